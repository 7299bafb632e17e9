/* The x87 instructions on the guest's register stack. SDM vol. 1 chapter 8, vol. 2. */
#include <string.h>

#include "guest/x86/helpers.h"
#include "guest/x86/x86.h"
#include "guest/x86/x86_internal.h"
#include "guest/x86/x87.h"
#include "guest/x86/x87_host.h"

#define INDEFINITE ((struct x86_fpr){.mantissa = 0xc000000000000000ull, .sign_exponent = 0xffff})

static unsigned physical(const struct x86_cpu *cpu, unsigned i)
{
    return (cpu->ftop + i) & 7;
}

static struct x86_fpr *st(struct x86_cpu *cpu, unsigned i)
{
    return &cpu->fpr[physical(cpu, i)];
}

static bool empty(const struct x86_cpu *cpu, unsigned i)
{
    return !(cpu->ftag >> physical(cpu, i) & 1);
}

static void write_st(struct x86_cpu *cpu, unsigned i, struct x86_fpr v)
{
    memset(v.pad, 0, sizeof(v.pad));
    *st(cpu, i) = v;
    cpu->ftag |= (u8)(1u << physical(cpu, i));
}

static void pop(struct x86_cpu *cpu)
{
    cpu->ftag &= (u8) ~(1u << physical(cpu, 0));
    cpu->ftop = (cpu->ftop + 1) & 7;
}

static void push(struct x86_cpu *cpu, struct x86_fpr v)
{
    cpu->ftop = (cpu->ftop - 1) & 7;
    write_st(cpu, 0, v);
}

/* ES and B follow the unmasked ones of the flags (SDM vol. 1 8.1.3.3). */
static void summarize(struct x86_cpu *cpu)
{
    if (cpu->fsw & ~cpu->fcw & 0x3f)
        cpu->fsw |= X87_ES | X87_B;
    else
        cpu->fsw &= (u16) ~(X87_ES | X87_B);
}

/* A waiting instruction meets a pending exception. */
static void wait_for_exceptions(struct x86_cpu *cpu)
{
    if (cpu->fsw & X87_ES)
        x86_raise(cpu, X86_MF);
}

static void begin(struct x86_cpu *cpu)
{
    wait_for_exceptions(cpu);
    cpu->fip = x86_rip(cpu);
    cpu->fcs = cpu->seg[X86_CS].selector;
}

/* FOP is that of the last instruction with an unmasked exception (SDM vol. 1 8.1.9.1). */
static void note_opcode(struct x86_cpu *cpu)
{
    struct x86_insn in;

    if (x86_decode_at_lip(cpu, &in))
        cpu->fop = (u16)((in.opcode & 7u) << 8 | in.modrm);
}

/* Takes over an operation's flags; its condition bits in @mask replace the old ones. Answers the
 * unmasked ones among its exceptions. */
static unsigned finish(struct x86_cpu *cpu, u16 status, unsigned mask)
{
    cpu->fsw = (u16)((cpu->fsw & ~mask) | (status & (mask | 0x7f)));
    summarize(cpu);
    status &= (u16)(~cpu->fcw & 0x3f);
    if (status)
        note_opcode(cpu);
    return status;
}

/* Stack fault: C1 says which kind. True if masked: the instruction goes on with the indefinite
 * value (SDM vol. 1 8.5.1.1). */
static bool stack_fault(struct x86_cpu *cpu, bool overflow)
{
    return !finish(cpu, (u16)(X87_IE | X87_SF | (overflow ? X87_C1 : 0)), X87_C1);
}

/* Faults if any of @bytes cannot be written. */
static void probe(struct x86_cpu *cpu, u64 address, unsigned bytes)
{
    u64 last = address + bytes - 1;

    cpu->common.memory->host(&cpu->common, address, GUEST_WRITE);
    if (last >> 12 != address >> 12)
        cpu->common.memory->host(&cpu->common, last & ~4095ull, GUEST_WRITE);
}

static bool underflow(struct x86_cpu *cpu)
{
    return stack_fault(cpu, false);
}

/* --- operands in memory ---------------------------------------------------------------------- */

/* Bytes of a memory format. */
static unsigned format_bytes(u64 format)
{
    switch (format) {
    case X87_I16:
    case X87_I16_TRUNCATED:
        return 2;
    case X87_M32:
    case X87_I32:
    case X87_I32_TRUNCATED:
        return 4;
    case X87_M64:
    case X87_I64:
    case X87_I64_TRUNCATED:
        return 8;
    default:
        return 10;
    }
}

static void fetch(struct x86_cpu *cpu, u64 format, u64 address, struct x86_fpr *raw)
{
    cpu->common.memory->load(&cpu->common, address, raw, format_bytes(format));
    cpu->fdp = address;
    cpu->fds = cpu->seg[X86_DS].selector;
}

/* @raw, as memory has it, on a stack of its own. */
static struct x87_result convert_from(u16 cw, u64 format, const struct x86_fpr *raw)
{
    switch (format) {
    case X87_M32:
        return x87_load_m32(cw, (const u32 *)raw);
    case X87_M64:
        return x87_load_m64(cw, (const u64 *)raw);
    case X87_I16:
        return x87_load_i16(cw, (const u16 *)raw);
    case X87_I32:
        return x87_load_i32(cw, (const u32 *)raw);
    case X87_I64:
        return x87_load_i64(cw, (const u64 *)raw);
    case X87_BCD:
        return x87_load_bcd(cw, raw);
    }
    return (struct x87_result){.value = {*raw}};
}

/* What can fault comes before the stack is looked at, that before the value. */
u64 x86_helper_x87_load(struct x86_cpu *cpu, u64 from, u64 address)
{
    struct x87_result r = {0};
    struct x86_fpr raw = {0};

    begin(cpu);
    if (from >= 8)
        fetch(cpu, from, address, &raw);
    if (!empty(cpu, 7) || (from < 8 && empty(cpu, (unsigned)from))) {
        if (stack_fault(cpu, from >= 8 || !empty(cpu, (unsigned)from)))
            push(cpu, INDEFINITE);
        return 0;
    }
    if (from >= 8)
        r = convert_from(cpu->fcw, from, &raw);
    else
        r.value[0] = *st(cpu, (unsigned)from);
    /* A denormal is loaded even if that exception is unmasked. */
    if (!(finish(cpu, r.status, X87_C1) & X87_IE))
        push(cpu, r.value[0]);
    return 0;
}

u64 x86_helper_x87_constant(struct x86_cpu *cpu, u64 number)
{
    u16 cw = cpu->fcw | 0x3f;
    struct x86_fpr v;

    begin(cpu);
    switch (number) {
    case 0:
        v = x87_fld1(cw);
        break;
    case 1:
        v = x87_fldl2t(cw);
        break;
    case 2:
        v = x87_fldl2e(cw);
        break;
    case 3:
        v = x87_fldpi(cw);
        break;
    case 4:
        v = x87_fldlg2(cw);
        break;
    case 5:
        v = x87_fldln2(cw);
        break;
    default:
        v = x87_fldz(cw);
        break;
    }
    if (empty(cpu, 7)) {
        cpu->fsw &= (u16)~X87_C1;
        push(cpu, v);
    } else if (stack_fault(cpu, true)) {
        push(cpu, INDEFINITE);
    }
    return 0;
}

static u16 convert_to(u16 cw, const struct x86_fpr *v, u64 to, struct x86_fpr *out)
{
    switch (to) {
    case X87_M32:
        return x87_store_m32(cw, v, (u32 *)out);
    case X87_M64:
        return x87_store_m64(cw, v, (u64 *)out);
    case X87_I16:
        return x87_store_i16(cw, v, (u16 *)out);
    case X87_I32:
        return x87_store_i32(cw, v, (u32 *)out);
    case X87_I64:
        return x87_store_i64(cw, v, (u64 *)out);
    case X87_I16_TRUNCATED:
        return x87_store_i16_truncated(cw, v, (u16 *)out);
    case X87_I32_TRUNCATED:
        return x87_store_i32_truncated(cw, v, (u32 *)out);
    case X87_I64_TRUNCATED:
        return x87_store_i64_truncated(cw, v, (u64 *)out);
    case X87_BCD:
        return x87_store_bcd(cw, v, out);
    }
    *out = *v;
    return 0;
}

static void store_register(struct x86_cpu *cpu, unsigned to)
{
    if (empty(cpu, 0)) {
        if (underflow(cpu))
            write_st(cpu, to, INDEFINITE);
        return;
    }
    cpu->fsw &= (u16)~X87_C1;
    write_st(cpu, to, *st(cpu, 0));
}

/* Memory is written, or at least could be, before anything else changes. False: an unmasked
 * exception, nothing changes but the flags. */
static bool store_memory(struct x86_cpu *cpu, u64 to, u64 address)
{
    const unsigned stopping = X87_IE | X87_OE | X87_UE;
    bool missing = empty(cpu, 0);
    struct x86_fpr v = missing ? INDEFINITE : *st(cpu, 0), out = {0};
    u16 status = convert_to(missing ? X87_HOST_DEFAULT : cpu->fcw, &v, to, &out);

    if (missing)
        status = X87_IE | X87_SF;
    probe(cpu, address, format_bytes(to));
    if (!(status & ~cpu->fcw & stopping))
        cpu->common.memory->store(&cpu->common, address, &out, format_bytes(to));
    cpu->fdp = address;
    cpu->fds = cpu->seg[X86_DS].selector;
    return !(finish(cpu, status, X87_C1) & stopping);
}

u64 x86_helper_x87_store(struct x86_cpu *cpu, u64 to, u64 address, u64 pops)
{
    begin(cpu);
    if (to & X87_UNCHECKED) {
        cpu->fsw &= (u16)~X87_C1;
        if (!empty(cpu, 0))
            write_st(cpu, to & 7, *st(cpu, 0));
    } else if (to < 8)
        store_register(cpu, (unsigned)to);
    else if (!store_memory(cpu, to, address))
        return 0;
    if (pops && !(cpu->fsw & X87_ES && to < 8))
        pop(cpu);
    return 0;
}

/* --- arithmetic ------------------------------------------------------------------------------ */

static struct x87_result run_arith(u16 cw, u64 operation, const struct x86_fpr *a,
                                   const struct x86_fpr *b)
{
    switch (operation & 0xff) {
    case X87_ADD:
        return x87_run_add(cw, a, b);
    case X87_MUL:
        return x87_run_mul(cw, a, b);
    case X87_SUB:
        return x87_run_sub(cw, a, b);
    case X87_SUBR:
        return x87_run_subr(cw, a, b);
    case X87_DIV:
        return x87_run_div(cw, a, b);
    default:
        return x87_run_divr(cw, a, b);
    }
}

static struct x87_result run_arith_memory(u16 cw, u64 operation, const struct x86_fpr *a,
                                          u64 format, const struct x86_fpr *raw)
{
    bool wide = format == X87_M64;
    struct x87_result b;

    if (format != X87_M32 && format != X87_M64) {
        b = convert_from(cw, format, raw); /* integers: exact */
        return run_arith(cw, operation, a, &b.value[0]);
    }
    switch (operation & 0xff) {
    case X87_ADD:
        return wide ? x87_memory_add64(cw, a, raw) : x87_memory_add32(cw, a, raw);
    case X87_MUL:
        return wide ? x87_memory_mul64(cw, a, raw) : x87_memory_mul32(cw, a, raw);
    case X87_SUB:
        return wide ? x87_memory_sub64(cw, a, raw) : x87_memory_sub32(cw, a, raw);
    case X87_SUBR:
        return wide ? x87_memory_subr64(cw, a, raw) : x87_memory_subr32(cw, a, raw);
    case X87_DIV:
        return wide ? x87_memory_div64(cw, a, raw) : x87_memory_div32(cw, a, raw);
    default:
        return wide ? x87_memory_divr64(cw, a, raw) : x87_memory_divr32(cw, a, raw);
    }
}

static bool missing(const struct x86_cpu *cpu, u64 other)
{
    return empty(cpu, 0) || (other < 8 && empty(cpu, (unsigned)other));
}

u64 x86_helper_x87_arith(struct x86_cpu *cpu, u64 operation, u64 other, u64 address)
{
    unsigned to = operation & X87_TO_STI ? (unsigned)other : 0;
    struct x86_fpr raw = {0};
    struct x87_result r;

    begin(cpu);
    if (other >= 8)
        fetch(cpu, other, address, &raw);
    if (missing(cpu, other)) {
        if (!underflow(cpu))
            return 0;
        write_st(cpu, to, INDEFINITE);
    } else {
        /* The reversed forms are named for their destination: FSUB ST(i), ST(0) = ST(i) - ST(0). */
        if (other >= 8)
            r = run_arith_memory(cpu->fcw, operation, st(cpu, 0), other, &raw);
        else if (operation & X87_TO_STI)
            r = run_arith(cpu->fcw, operation, st(cpu, (unsigned)other), st(cpu, 0));
        else
            r = run_arith(cpu->fcw, operation, st(cpu, 0), st(cpu, (unsigned)other));
        if (finish(cpu, r.status, X87_C1) & (X87_IE | X87_DE | X87_ZE))
            return 0;
        write_st(cpu, to, r.value[0]);
    }
    if (operation & X87_POP)
        pop(cpu);
    return 0;
}

static u64 eflags_of(u16 fsw)
{
    return (fsw & X87_C0 ? X86_FLAG_CF : 0) | (fsw & X87_C2 ? X86_FLAG_PF : 0) |
           (fsw & X87_C3 ? X86_FLAG_ZF : 0);
}

static u16 run_compare(u16 cw, u64 flags, const struct x86_fpr *a, const struct x86_fpr *b,
                       u64 format)
{
    struct x87_result integer;

    if (format == X87_M32)
        return x87_memory_com32(cw, a, b).status;
    if (format == X87_M64)
        return x87_memory_com64(cw, a, b).status;
    if (flags & X87_WITH_ZERO)
        return x87_run_ftst(cw, a, NULL).status;
    if (format >= 8) {
        integer = convert_from(cw, format, b);
        return x87_run_com(cw, a, &integer.value[0]).status;
    }
    return (flags & X87_QUIET ? x87_run_ucom(cw, a, b) : x87_run_com(cw, a, b)).status;
}

u64 x86_helper_x87_compare(struct x86_cpu *cpu, u64 flags, u64 other, u64 address)
{
    const unsigned conditions = X87_C0 | X87_C2 | X87_C3;
    struct x86_fpr raw = {0};
    u16 status, stop;

    begin(cpu);
    if (flags & X87_WITH_ZERO)
        other = 0;
    if (other >= 8)
        fetch(cpu, other, address, &raw);
    if (missing(cpu, other))
        status = (u16)(X87_IE | X87_SF | conditions);
    else
        status = run_compare(cpu->fcw, flags, st(cpu, 0),
                             other < 8 ? st(cpu, (unsigned)other) : &raw, other);
    stop = (u16)(finish(cpu, status, X87_C1 | (flags & X87_EFLAGS ? 0 : conditions)) &
                 (X87_IE | X87_DE));
    for (u64 i = 0; !stop && i < (flags & X87_POPS); i++)
        pop(cpu);
    return eflags_of(status);
}

/* --- one operand ------------------------------------------------------------------------------ */

/* Operations on ST(0) and ST(1): 1 result in place, -1 result in ST(1) and a pop, 2 a push. */
static struct x87_result run_unary(u16 cw, u64 code, const struct x86_fpr *a,
                                   const struct x86_fpr *b, int *shape)
{
    *shape = 1;
    switch (code) {
    case X87_FCHS:
        return x87_run_fchs(cw, a, NULL);
    case X87_FABS:
        return x87_run_fabs(cw, a, NULL);
    case X87_F2XM1:
        return x87_run_f2xm1(cw, a, NULL);
    case X87_FSQRT:
        return x87_run_fsqrt(cw, a, NULL);
    case X87_FRNDINT:
        return x87_run_frndint(cw, a, NULL);
    case X87_FSIN:
        return x87_run_fsin(cw, a, NULL);
    case X87_FCOS:
        return x87_run_fcos(cw, a, NULL);
    case X87_FSCALE:
        return x87_run_fscale(cw, a, b);
    case X87_FPREM:
        return x87_run_fprem(cw, a, b);
    case X87_FPREM1:
        return x87_run_fprem1(cw, a, b);
    case X87_FYL2X:
        *shape = -1;
        return x87_run_fyl2x(cw, a, b);
    case X87_FYL2XP1:
        *shape = -1;
        return x87_run_fyl2xp1(cw, a, b);
    case X87_FPATAN:
        *shape = -1;
        return x87_run_fpatan(cw, a, b);
    case X87_FPTAN:
        *shape = 2;
        return x87_run_fptan(cw, a, NULL);
    case X87_FSINCOS:
        *shape = 2;
        return x87_run_fsincos(cw, a, NULL);
    default:
        *shape = 2;
        return x87_run_fxtract(cw, a, NULL);
    }
}

static bool needs_st1(u64 code)
{
    return code == X87_FSCALE || code == X87_FPREM || code == X87_FPREM1 || code == X87_FYL2X ||
           code == X87_FYL2XP1 || code == X87_FPATAN;
}

/* FXAM looks at empty registers too. */
static void examine(struct x86_cpu *cpu)
{
    u16 sign = st(cpu, 0)->sign_exponent >> 15 ? X87_C1 : 0;
    u16 class = empty(cpu, 0) ? X87_C3 | X87_C0 : x87_run_fxam(cpu->fcw, st(cpu, 0), NULL).status;

    cpu->fsw = (u16)((cpu->fsw & ~X87_CONDITIONS) | (class & (X87_C0 | X87_C2 | X87_C3)) | sign);
}

static bool pushes(u64 code)
{
    return code == X87_FPTAN || code == X87_FSINCOS || code == X87_FXTRACT;
}

static bool is_nan(const struct x86_fpr *v)
{
    return (v->sign_exponent & 0x7fff) == 0x7fff && v->mantissa << 1;
}

static void missing_operand(struct x86_cpu *cpu, u64 code)
{
    if (code == X87_FSIN || code == X87_FCOS || code == X87_FPTAN || code == X87_FSINCOS ||
        code == X87_FPREM || code == X87_FPREM1)
        cpu->fsw &= (u16)~X87_C2;
    if (!underflow(cpu))
        return;
    if (code == X87_FYL2X || code == X87_FYL2XP1 || code == X87_FPATAN) {
        write_st(cpu, 1, INDEFINITE);
        pop(cpu);
        return;
    }
    write_st(cpu, 0, INDEFINITE);
    if (pushes(code))
        push(cpu, INDEFINITE);
}

u64 x86_helper_x87_unary(struct x86_cpu *cpu, u64 code)
{
    unsigned mask = X87_C1, stop = X87_IE | X87_DE | X87_ZE;
    struct x87_result r;
    int shape;

    begin(cpu);
    switch (code) {
    case X87_FNOP:
        return 0;
    case X87_FXAM:
        examine(cpu);
        return 0;
    case X87_FINCSTP:
    case X87_FDECSTP:
        cpu->ftop = (cpu->ftop + (code == X87_FINCSTP ? 1 : 7)) & 7;
        cpu->fsw &= (u16)~X87_C1;
        return 0;
    }
    if (empty(cpu, 0) || (needs_st1(code) && empty(cpu, 1))) {
        missing_operand(cpu, code);
        return 0;
    }
    if (pushes(code) && !empty(cpu, 7)) {
        if (code != X87_FXTRACT)
            cpu->fsw &= (u16)~X87_C2;
        if (stack_fault(cpu, true)) {
            write_st(cpu, 0, INDEFINITE);
            push(cpu, INDEFINITE);
        }
        return 0;
    }
    if (code == X87_FPREM || code == X87_FPREM1)
        mask |= X87_C0 | X87_C2 | X87_C3;
    else if (code == X87_FSIN || code == X87_FCOS || code == X87_FPTAN || code == X87_FSINCOS)
        mask |= X87_C2;
    r = run_unary(cpu->fcw, code, st(cpu, 0), st(cpu, 1), &shape);
    /* With a NaN there is no quotient: C0 and C3 stay. */
    if (r.status & X87_IE || r.status & ~cpu->fcw & stop || is_nan(&r.value[0]))
        mask &= ~(X87_C0 | X87_C3);
    if (finish(cpu, r.status, mask) & stop)
        return 0;
    if (shape == 2 && r.status & X87_C2 && code != X87_FXTRACT)
        return 0; /* out of range: nothing changes */
    if (shape == 2) {
        write_st(cpu, 0, r.value[1]);
        push(cpu, r.value[0]);
    } else if (shape == -1) {
        write_st(cpu, 1, r.value[0]);
        pop(cpu);
    } else {
        write_st(cpu, 0, r.value[0]);
    }
    return 0;
}

u64 x86_helper_x87_cmov(struct x86_cpu *cpu, u64 holds, u64 i)
{
    begin(cpu);
    if (missing(cpu, i)) {
        /* Whatever the condition */
        if (underflow(cpu))
            write_st(cpu, 0, INDEFINITE);
        return 0;
    }
    if (holds)
        write_st(cpu, 0, *st(cpu, (unsigned)i));
    return 0;
}

static void exchange(struct x86_cpu *cpu, unsigned i)
{
    struct x86_fpr a, b;

    if ((empty(cpu, 0) || empty(cpu, i)) && !underflow(cpu))
        return;
    a = empty(cpu, 0) ? INDEFINITE : *st(cpu, 0);
    b = empty(cpu, i) ? INDEFINITE : *st(cpu, i);
    write_st(cpu, 0, b);
    write_st(cpu, i, a);
}

/* --- control ---------------------------------------------------------------------------------- */

static void init(struct x86_cpu *cpu)
{
    cpu->fcw = 0x37f;
    cpu->fsw = 0;
    cpu->ftop = 0;
    cpu->ftag = 0;
    cpu->fip = cpu->fdp = 0;
    cpu->fcs = cpu->fds = cpu->fop = 0;
}

u64 x86_helper_x87_control(struct x86_cpu *cpu, u64 code, u64 operand)
{
    switch (code) {
    case X87_FLDCW:
        wait_for_exceptions(cpu);
        cpu->fcw = (u16)((operand & 0x1f3f) | 0x40);
        summarize(cpu);
        return 0;
    case X87_FNSTCW:
        return cpu->fcw;
    case X87_FNSTSW:
        return cpu->fsw | (u64)cpu->ftop << X87_TOP_SHIFT;
    case X87_FNCLEX:
        cpu->fsw &= X87_CONDITIONS;
        return 0;
    case X87_FNINIT:
        init(cpu);
        return 0;
    case X87_FWAIT:
        if ((cpu->cr0 & (X86_CR0_MP | X86_CR0_TS)) == (X86_CR0_MP | X86_CR0_TS))
            x86_raise(cpu, X86_NM);
        wait_for_exceptions(cpu);
        return 0;
    }
    begin(cpu);
    if (code == X87_FXCH) {
        cpu->fsw &= (u16)~X87_C1;
        exchange(cpu, (unsigned)operand);
        return 0;
    }
    cpu->fsw &= (u16)~X87_C1;
    cpu->ftag &= (u8) ~(1u << physical(cpu, (unsigned)operand));
    if (code == X87_FFREEP)
        pop(cpu);
    return 0;
}

/* The two-bit tags of the environment image: 0 valid, 1 zero, 2 special, 3 empty. */
static u16 full_tags(const struct x86_cpu *cpu)
{
    u16 tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        const struct x86_fpr *v = &cpu->fpr[i];
        unsigned exponent = v->sign_exponent & 0x7fff, tag = 0;

        if (!(cpu->ftag >> i & 1))
            tag = 3;
        else if (!exponent && !v->mantissa)
            tag = 1;
        else if (!exponent || exponent == 0x7fff || !(v->mantissa >> 63))
            tag = 2;
        tags |= (u16)(tag << (2 * i));
    }
    return tags;
}

/* Linear addresses instead of selectors and offsets. */
static bool real_format(const struct x86_cpu *cpu)
{
    return !(cpu->cr0 & X86_CR0_PE) || cpu->eflags & X86_FLAG_VM;
}

/* SDM vol. 1 figures 8-9 to 8-12: seven words or doublewords. */
static unsigned make_image(struct x86_cpu *cpu, unsigned size, u8 *image)
{
    u32 linear_ip = (u32)(cpu->fip + ((u64)cpu->fcs << 4));
    u32 linear_dp = (u32)(cpu->fdp + ((u64)cpu->fds << 4));
    u32 field[7] = {cpu->fcw, cpu->fsw | (u32)cpu->ftop << X87_TOP_SHIFT, full_tags(cpu)};

    if (real_format(cpu)) {
        field[3] = linear_ip & 0xffff;
        field[4] = cpu->fop | (linear_ip >> 16) << 12;
        field[5] = linear_dp & 0xffff;
        field[6] = (linear_dp >> 16) << 12;
    } else {
        field[3] = (u32)cpu->fip;
        field[4] = cpu->fcs | (size == 4 ? (u32)cpu->fop << 16 : 0);
        field[5] = (u32)cpu->fdp;
        field[6] = cpu->fds;
    }
    for (unsigned i = 0; i < 7; i++) {
        if (size == 4 && (i < 3 || i == 6))
            field[i] |= 0xffff0000;
        memcpy(image + i * size, &field[i], size);
    }
    return 7 * size;
}

static void take_image(struct x86_cpu *cpu, unsigned size, const u8 *image)
{
    u32 field[7] = {0};

    for (unsigned i = 0; i < 7; i++)
        memcpy(&field[i], image + i * size, size);
    cpu->fcw = (u16)((field[0] & 0x1f3f) | 0x40);
    cpu->ftop = field[1] >> X87_TOP_SHIFT & 7;
    cpu->fsw = (u16)(field[1] & 0xc7ff);
    cpu->ftag = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((field[2] >> (2 * i) & 3) != 3)
            cpu->ftag |= (u8)(1u << i);
    if (real_format(cpu)) {
        cpu->fip = (field[3] & 0xffff) | (field[4] >> 12 & 0xffff) << 16;
        cpu->fdp = (field[5] & 0xffff) | (field[6] >> 12 & 0xffff) << 16;
        cpu->fop = field[4] & 0x7ff;
        cpu->fcs = cpu->fds = 0;
    } else {
        cpu->fip = field[3];
        cpu->fcs = (u16)field[4];
        cpu->fop = size == 4 ? field[4] >> 16 & 0x7ff : cpu->fop;
        cpu->fdp = field[5];
        cpu->fds = (u16)field[6];
    }
    summarize(cpu);
}

static void move_bytes(struct x86_cpu *cpu, u64 address, u8 *bytes, unsigned n, bool store)
{
    for (unsigned at = 0; at < n; at += 2) { /* all sizes here are even */
        if (store)
            cpu->common.memory->store(&cpu->common, address + at, bytes + at, 2);
        else
            cpu->common.memory->load(&cpu->common, address + at, bytes + at, 2);
    }
}

u64 x86_helper_x87_environment(struct x86_cpu *cpu, u64 address, u64 operand_size, u64 what)
{
    unsigned size = operand_size == 2 ? 2 : 4, bytes = 7 * size;
    bool store = what & 1, registers = what & 2;
    u8 image[28 + 80];

    if (!store)
        wait_for_exceptions(cpu);
    else
        make_image(cpu, size, image);
    if (registers && store)
        for (unsigned i = 0; i < 8; i++)
            memcpy(image + bytes + 10 * i, st(cpu, i), 10);
    if (store)
        probe(cpu, address, bytes + (registers ? 80 : 0));
    move_bytes(cpu, address, image, bytes + (registers ? 80 : 0), store);
    if (store) {
        if (registers)
            init(cpu);
        else
            cpu->fcw |= 0x3f;
        summarize(cpu);
        return 0;
    }
    take_image(cpu, size, image);
    for (unsigned i = 0; registers && i < 8; i++) {
        memset(st(cpu, i), 0, sizeof(struct x86_fpr));
        memcpy(st(cpu, i), image + bytes + 10 * i, 10);
    }
    return 0;
}

u64 x86_helper_mmx_maskmov(struct x86_cpu *cpu, u64 address, u64 data)
{
    x86_store_masked(cpu, address, (const u8 *)&cpu->fpr[data].mantissa,
                     (const u8 *)cpu->common.scratch, 8);
    return 0;
}
