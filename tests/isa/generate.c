/*
 * Random cases: an instance of a row with its memory operand somewhere in the data area, before it
 * perhaps an instruction that sets the flags, after it perhaps one that looks at them.
 */
#include "isa.h"

#include <cpuid.h>
#include <string.h>

#include "guest/x86/state.h"
#include "modrm.h"

u8 isa_pattern[ISA_DATA_SIZE];
static u64 random_state = 1;

void isa_seed(u64 seed)
{
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
}

static u64 random64(void)
{
    u64 v;

    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    v = random_state * 0x2545f4914f6cdd1dull;
    return v ^ v >> 32;
}

u32 isa_random(u32 below)
{
    return (u32)(random64() >> 33) % below;
}

static u64 boundary(void)
{
    static const u64 values[] = {
        0,
        1,
        2,
        3,
        0x7f,
        0x80,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0xffff,
        0x10000,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000,
        0xfffffffffffffffe,
        0xffffffffffffffff,
        0xffffffff80000000,
        0x5555555555555555,
    };

    return values[isa_random(ARRAY_SIZE(values))];
}

static u64 value(void)
{
    switch (isa_random(4)) {
    case 0:
        return boundary();
    case 1:
        return isa_random(256);
    case 2:
        return boundary() ^ boundary() << isa_random(32);
    }
    return random64();
}

/* Lanes that floating-point code finds interesting, and any others. */
static u64 lanes(void)
{
    static const u32 singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                  0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 0x00000001,
                                  0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x4f000000,
                                  0xcf000000, 0x4b7fffff, 0x40490fdb, 0x3effffff, 0x4f800000};
    static const u64 doubles[] = {
        0,
        1ull << 63,
        0x3ff0000000000000,
        0xbff8000000000000,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0xfff8000000000001,
        0x7ff0000000000001,
        1,
        0x800fffffffffffff,
        0x0010000000000000,
        0x7fefffffffffffff,
        0x41e0000000000000,
        0xc1e0000000200000,
        0x43e0000000000000,
        0xc3e0000000000000,
        0x433fffffffffffff,
        0x3810000000000000,
        0x36a0000000000000,
        0x47efffffffffffff,
        0x3fdfffffffffffff,
    };

    switch (isa_random(4)) {
    case 0:
        return singles[isa_random(ARRAY_SIZE(singles))] |
               (u64)singles[isa_random(ARRAY_SIZE(singles))] << 32;
    case 1:
        return doubles[isa_random(ARRAY_SIZE(doubles))];
    case 2:
        /* Moderate numbers, so that arithmetic gives finite results. */
        return isa_random(2) ? 0x3ff0000000000000 + (random64() >> 8) % (1ull << 56)
                             : (0x3f000000 + isa_random(1 << 25)) |
                                   (0x3f000000ull + isa_random(1 << 25)) << 32;
    }
    return value();
}

void isa_make_pattern(void)
{
    for (unsigned i = 0; i < ISA_DATA_SIZE; i += 8) {
        u64 v = lanes();

        memcpy(isa_pattern + i, &v, 8);
    }
}

/*
 * Which rows
 */

#define I(map, opcode, prefix, modrm, flags, name, op1, op2, op3) +1
enum {
    INT_ROWS = 0
#include "guest/x86/insns_int.def"
    ,
    SYS_ROWS = 0
#include "guest/x86/insns_sys.def"
};
#undef I

bool isa_named(const struct x86_row *row, const char *const *names)
{
    for (; *names; names++)
        if (!strcmp(row->name, *names))
            return true;
    return false;
}

/* Does the host's CPU have what the row is part of? */
static bool on_host(const struct x86_row *row)
{
    static const struct {
        const char *name;
        u32 leaf;
        u8 reg, bit; /* reg: 1 EBX, 2 ECX */
    } features[] = {
        {"movbe", 1, 2, 22},
        {"adcx", 7, 1, 19},
        {"adox", 7, 1, 19},
        {"movdiri", 7, 2, 27},
    };
    u32 r[4];

    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        if (!strcmp(row->name, features[i].name))
            return __get_cpuid_count(features[i].leaf, 0, &r[0], &r[1], &r[2], &r[3]) &&
                   r[features[i].reg] >> features[i].bit & 1;
    return true;
}

bool isa_testable(const struct x86_row *row)
{
    /* INT is a system call natively; the approximations are each CPU's own. */
    static const char *const never[] = {"int",     "int1",    "rcpps", "rcpss",
                                        "rsqrtps", "rsqrtss", NULL};
    long number = row - x86_rows;

    /* PREFETCHW with a register: nothing on Intel's CPUs, #UD on AMD's. */
    if (row->map == X86_MAP_M0F && row->opcode == 0x0d && row->modrm == X86_MODRM_RR)
        return false;
    return (number < INT_ROWS || number >= INT_ROWS + SYS_ROWS) && !isa_named(row, never) &&
           on_host(row);
}

/* Flags that the SDM leaves undefined, by name; shifts and rotates: unless the count is 1. */
static const struct {
    const char *name;
    u64 flags, unless_one;
} undefined_flags[] = {
#define AF X86_FLAG_AF
#define OF X86_FLAG_OF
    {"and", AF, 0},
    {"or", AF, 0},
    {"xor", AF, 0},
    {"test", AF, 0},
    {"shl", AF, OF},
    {"shr", AF, OF},
    {"sar", AF, OF},
    {"shld", AF, OF},
    {"shrd", AF, OF},
    {"rol", 0, OF},
    {"ror", 0, OF},
    {"rcl", 0, OF},
    {"rcr", 0, OF},
    {"mul", X86_FLAG_SF | X86_FLAG_ZF | AF | X86_FLAG_PF, 0},
    {"imul", X86_FLAG_SF | X86_FLAG_ZF | AF | X86_FLAG_PF, 0},
    {"div", X86_FLAGS_ARITH, 0},
    {"idiv", X86_FLAGS_ARITH, 0},
    {"bsf", X86_FLAGS_ARITH & ~X86_FLAG_ZF, 0},
    {"bsr", X86_FLAGS_ARITH & ~X86_FLAG_ZF, 0},
    {"bt", OF | X86_FLAG_SF | AF | X86_FLAG_PF, 0},
    {"bts", OF | X86_FLAG_SF | AF | X86_FLAG_PF, 0},
    {"btr", OF | X86_FLAG_SF | AF | X86_FLAG_PF, 0},
    {"btc", OF | X86_FLAG_SF | AF | X86_FLAG_PF, 0},
    {"daa", OF, 0},
    {"das", OF, 0},
    {"aaa", OF | X86_FLAG_SF | X86_FLAG_ZF | X86_FLAG_PF, 0},
    {"aas", OF | X86_FLAG_SF | X86_FLAG_ZF | X86_FLAG_PF, 0},
    {"aam", OF | AF | X86_FLAG_CF, 0},
    {"aad", OF | AF | X86_FLAG_CF, 0},
#undef AF
#undef OF
};

bool isa_leaves_flags(const struct x86_row *row)
{
    for (unsigned i = 0; i < ARRAY_SIZE(undefined_flags); i++)
        if (!strcmp(row->name, undefined_flags[i].name))
            return true;
    return false;
}

/* The flags that condition @cc looks at. */
static u64 condition_flags(unsigned cc)
{
    static const u64 flags[8] = {
        X86_FLAG_OF,
        X86_FLAG_CF,
        X86_FLAG_ZF,
        X86_FLAG_CF | X86_FLAG_ZF,
        X86_FLAG_SF,
        X86_FLAG_PF,
        X86_FLAG_SF | X86_FLAG_OF,
        X86_FLAG_SF | X86_FLAG_OF | X86_FLAG_ZF,
    };

    return flags[cc >> 1];
}

/*
 * Code
 */

u8 isa_random_modrm(const struct x86_row *row)
{
    return modrm_of_row(row, (u8)isa_random(256));
}

/* A flag-setting instruction on r10, r11 (32-bit code: without a result). */
static unsigned prelude(u8 *code, unsigned bits)
{
    static const u8 alu[] = {0x01, 0x11, 0x19, 0x29, 0x31, 0x39, 0x85, 0x38, 0x00, 0x28};
    static const u8 single[] = {0xf8, 0xf9, 0xf5, 0x9e, 0xfc, 0xfd};
    unsigned n = 0, kind = isa_random(5);

    if (kind == 0) {
        code[n++] = single[isa_random(ARRAY_SIZE(single))];
    } else if (kind == 1 && bits == 64) {
        code[n++] = isa_random(2) ? 0x49 : 0x41; /* INC, DEC, NEG r10 */
        code[n++] = isa_random(2) ? 0xff : 0xf7;
        code[n++] = (u8)(0xc2 | (code[1] == 0xff ? isa_random(2) : 3) << 3);
    } else if (kind <= 3) {
        if (bits == 64)
            code[n++] = isa_random(2) ? 0x4d : 0x45;
        code[n++] = bits == 64 ? alu[isa_random(ARRAY_SIZE(alu))] : 0x39;
        code[n++] = bits == 64 ? 0xda : (u8)(0xc0 | isa_random(64));
    }
    return n;
}

/* Something that uses the flags in r9. */
static unsigned postlude(u8 *code, unsigned bits, u64 undefined)
{
    unsigned cc = isa_random(16);

    if (bits != 64 || isa_random(2))
        return 0;
    if (isa_random(4) == 0 && !(undefined & X86_FLAG_CF)) {
        memcpy(code, "\x4d\x11\xc9", 3); /* ADC r9, r9 */
        return 3;
    }
    if (condition_flags(cc) & undefined)
        return 0;
    if (isa_random(2))
        memcpy(code, "\x41\x0f\x90\xc1", 4); /* SETcc r9b */
    else
        memcpy(code, "\x4c\x0f\x40\xcb", 4); /* CMOVcc r9, rbx */
    code[2] = (u8)(code[2] + cc);
    return 4;
}

static unsigned random_instruction(u8 *code, const struct x86_row *row, unsigned bits)
{
    static const u8 mandatory[] = {0, 0, 0x66, 0xf3, 0xf2, 0};
    static const u8 escapes[X86_MAPS][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    bool string = row->op[0] == X86_OC_Xb || row->op[0] == X86_OC_Xv || row->op[0] == X86_OC_Yb ||
                  row->op[0] == X86_OC_Yv || row->op[1] == X86_OC_Xb || row->op[1] == X86_OC_Xv ||
                  row->op[1] == X86_OC_Yb || row->op[1] == X86_OC_Yv;
    unsigned n = 0;

    /* 66h on near branches in 64-bit code is Intel's nothing and AMD's 16-bit IP. */
    if (row->prefix == X86_PFX_ANY && !(row->flags & X86_ROW_F64) && !isa_random(4))
        code[n++] = 0x66;
    if (!isa_random(8))
        code[n++] = 0x67;
    if (string && isa_random(4))
        code[n++] = isa_random(2) ? 0xf2 : 0xf3;
    if (row->flags & X86_ROW_LOCK && !isa_random(4))
        code[n++] = 0xf0;
    if (mandatory[row->prefix])
        code[n++] = mandatory[row->prefix];
    if (bits == 64 && isa_random(3))
        code[n++] = (u8)(0x40 | (isa_random(2) ? 8 : 0) | isa_random(8));
    for (unsigned i = 0; i < 2; i++)
        if (escapes[row->map][i])
            code[n++] = escapes[row->map][i];
    code[n++] = (u8)(row->opcode + isa_random(x86_row_span(row)));
    if (row->modrm != X86_MODRM_NONE)
        code[n++] = isa_random_modrm(row);
    for (unsigned i = 0; i < 10; i++)
        code[n++] = isa_random(4) ? (u8)isa_random(256) : (u8)boundary();
    return n;
}

/* Replaces the last occurrence of @bytes of @old in the instruction. */
static bool rewrite(u8 *code, unsigned length, u64 old, u64 new, unsigned bytes)
{
    for (unsigned at = length - bytes + 1; at-- > 1;) {
        if (!memcmp(code + at, &old, bytes)) {
            memcpy(code + at, &new, bytes);
            return true;
        }
    }
    return false;
}

/*
 * Registers and memory
 */

/* An 80-bit value of any class, the unsupported ones (SDM vol. 1 8.2.2) included. */
static void random_float80(u8 *image)
{
    static const u16 exponents[] = {0,      1,      0x3fff, 0x3ffe, 0x4000, 0x400e, 0x401e, 0x403e,
                                    0x3f81, 0x3f6a, 0x407e, 0x3c01, 0x3bcd, 0x43fe, 0x7ffe, 0x7fff};
    static const u64 mantissas[] = {0,
                                    1ull << 63,
                                    3ull << 62,
                                    1,
                                    ~0ull,
                                    0xffffff0000000000,
                                    0xfffffffffffff800,
                                    0x8000000000000400,
                                    0xc90fdaa22168c235,
                                    0x8000008000000000};
    u64 mantissa = isa_random(2) ? mantissas[isa_random(ARRAY_SIZE(mantissas))] : random64();
    u16 exponent = exponents[isa_random(ARRAY_SIZE(exponents))];

    switch (isa_random(8)) {
    case 0:
        exponent = (u16)isa_random(0x8000);
        break;
    case 1:
    case 2:
    case 3: /* an integer, or not much more than one */
        mantissa = random64() << isa_random(64);
        exponent = (u16)(0x3fff + isa_random(66));
        break;
    case 4: /* around 1 */
        exponent = (u16)(0x3ff0 + isa_random(20));
        break;
    }
    if (exponent && isa_random(16))
        mantissa |= 1ull << 63;
    if (isa_random(2))
        exponent |= 0x8000;
    if (!isa_random(12))
        exponent = mantissa = 0;
    memcpy(image, &mantissa, 8);
    memcpy(image + 8, &exponent, 2);
}

/* The x87 part of the image: any TOP, tags, precision, rounding; now and then unmasked exceptions,
 * which may be pending. */
static void random_x87(u8 *fx)
{
    u16 fcw = 0x37f, fsw = 0;
    u8 tags = 0;

    if (isa_random(2))
        fcw = (u16)(0x7f | isa_random(4) << 10 | (isa_random(3) ? 0x300 : isa_random(4) << 8));
    if (!isa_random(4))
        fcw &= (u16) ~(isa_random(2) ? 0x3f : 1 << isa_random(6));
    fsw = (u16)(isa_random(8) << 11 | (isa_random(0x10000) & 0x4700));
    if (!isa_random(4))
        fsw |= (u16)(isa_random(0x80) & (isa_random(6) ? fcw | ~0x3fu : ~0u));
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    for (unsigned i = 0; i < 8; i++)
        if (isa_random(8))
            tags |= (u8)(1u << i);
    if (!isa_random(16))
        tags = isa_random(2) ? 0 : 0xff;
    memcpy(fx, &fcw, 2);
    memcpy(fx + 2, &fsw, 2);
    fx[4] = tags;
    for (unsigned i = 0; i < 8; i++)
        random_float80(fx + 32 + 16 * i);
}

void isa_random_state(struct isa_state *s, unsigned bits)
{
    static const u64 flags[] = {X86_FLAG_CF, X86_FLAG_PF, X86_FLAG_AF, X86_FLAG_ZF,
                                X86_FLAG_SF, X86_FLAG_OF, X86_FLAG_DF};
    u32 mxcsr = 0x1f80;

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < (bits == 64 ? 16 : 8); i++)
        s->gpr[i] = value() & mask_low(bits == 64 ? 64 : 32);
    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++)
        if (isa_random(2))
            s->rflags |= flags[i];
    random_x87(s->fx);
    mxcsr |= isa_random(4) << 13;
    if (!isa_random(8))
        mxcsr |= 0x8040;
    else if (!isa_random(8))
        mxcsr |= isa_random(2) ? 0x8000 : 0x40;
    /* Flags so far; now and then an unmasked exception. */
    if (!isa_random(4))
        mxcsr |= isa_random(64);
    if (!isa_random(8))
        mxcsr &= ~(isa_random(2) ? 0x1f80u : 0x80u << isa_random(6));
    memcpy(s->fx + 24, &mxcsr, 4);
    for (unsigned i = 160; i < ISA_FX; i += 8) {
        u64 v = lanes();

        if (i < 160 + (bits == 64 ? 256u : 128u))
            memcpy(s->fx + i, &v, 8);
    }
}

/* An address in the data area for @size bytes; now and then in its read-only page, or its end or a
 * page boundary inside it is straddled. */
static u64 data_address(unsigned size)
{
    switch (isa_random(32)) {
    case 0:
        return ISA_DATA + ISA_DATA_SIZE - isa_random(size + 1);
    case 1:
    case 2:
        return ISA_DATA + 4096 - isa_random(size + 1);
    case 3:
        return ISA_DATA + ISA_WRITABLE - isa_random(size + 1);
    case 4:
        return ISA_DATA + ISA_WRITABLE + 16 * isa_random(250);
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        return ISA_DATA + 1024 + isa_random(4096);
    }
    return ISA_DATA + 1024 + 16 * isa_random(256);
}

/* Where there is no memory: at the ends of the address space and of its canonical halves. */
static u64 wild_address(unsigned bits, unsigned size)
{
    static const u64 edges[] = {0, 1ull << 47, ~0ull << 47, 1ull << 63};

    if (bits != 64)
        return (0x100000000 - isa_random(2 * size)) & 0xffffffff;
    return edges[isa_random(ARRAY_SIZE(edges))] + size - isa_random(2 * size);
}

/* Makes the memory operand of @in point to @target. */
static bool aim(struct isa_case *c, u8 *code, const struct x86_insn *in, u64 target)
{
    u64 *gpr = c->in.gpr, mask = mask_low(in->address_size * 8);

    target -= isa_data_base(c);
    if (target != (target & mask))
        return false;
    if (in->base == -2) {
        u64 next = c->in.rip + (u64)(code - c->code) + in->length;

        return rewrite(code, in->length, (u32)in->disp, target - next, 4);
    }
    if (in->base < 0 && in->index < 0)
        return rewrite(code, in->length, (u64)in->disp & mask & 0xffffffff, target,
                       in->address_size == 2 ? 2 : 4);
    if (in->base == in->index)
        return false;
    if (in->base < 0) {
        gpr[in->index] = ((target - (u64)in->disp) & mask) >> in->scale;
    } else {
        u64 index = in->index < 0 ? 0 : gpr[in->index] << in->scale;

        gpr[in->base] = target - (u64)in->disp - index;
        if (in->address_size != 8)
            gpr[in->base] &= mask;
    }
    return true;
}

/* AMD's CPUs have a bit 17 in MXCSR (MM), which faults by the SDM. */
static bool loads_mm(const struct isa_case *c, u64 target)
{
    u64 v = 0;

    if (target - ISA_DATA <= ISA_DATA_SIZE - 4)
        memcpy(&v, isa_pattern + (target - ISA_DATA), 4);
    return (c->patch_at ? c->patch : v) & 0x20000;
}

static bool is(const struct x86_insn *in, const char *name)
{
    return !strcmp(in->row->name, name);
}

/* Can @bytes be popped, and written before? */
static bool stack_holds(const struct isa_case *c, unsigned bytes)
{
    u64 at = isa_data_base(c) + c->in.gpr[X86_RSP] - ISA_DATA;

    return at <= ISA_WRITABLE - bytes;
}

/* Branches go to INT3s of their own slot; now and then to where no code is or can be. Of a CALL it
 * is the CPU's choice (SDM vol. 3 table 6-2) what comes first, that or a fault of the push. */
static u64 destination(const struct isa_case *c)
{
    u64 stack = c->in.gpr[X86_RSP] + isa_data_base(c) - ISA_DATA;
    bool pushes = stack >= 8 && stack <= ISA_WRITABLE;

    switch (pushes || strcmp(c->row->name, "call") != 0 ? isa_random(24) : 2) {
    case 0:
        return c->bits == 64 ? wild_address(64, 1 + isa_random(4000)) : ISA_CODE16_LIMIT + 1;
    case 1:
        if (c->bits == 16)
            return ISA_CODE16_LIMIT + 1 + isa_random(0xffff - ISA_CODE16_LIMIT);
        return isa_random(2) ? ISA_DATA + isa_random(ISA_DATA_SIZE) : ISA_DATA - 1 - isa_random(64);
    }
    return c->in.rip + ISA_SLOT - 1 - isa_random(8);
}

static bool set_branch(struct isa_case *c, u8 *code, const struct x86_insn *in)
{
    static const char *const indirect[] = {"jmp", "call", "ret", NULL};
    u64 there = destination(c);

    if (in->op[0].kind == X86_OP_REL) {
        u64 next = c->in.rip + (u64)(code - c->code) + in->length;

        s64 distance = sign_extend(there - next, c->bits);

        if (sign_extend((u64)distance, 8u * in->op[0].size) != distance)
            return false;
        return rewrite(code, in->length, in->op[0].value, (u64)distance, in->op[0].size);
    }
    if (!isa_named(in->row, indirect))
        return true;
    if (is(in, "ret")) {
        if (!stack_holds(c, 8))
            return false;
        c->patch_at = isa_data_base(c) + c->in.gpr[X86_RSP];
        c->patch = there;
    } else if (in->op[0].kind == X86_OP_REG) {
        if (in->op[0].reg == X86_RSP)
            return false;
        c->in.gpr[in->op[0].reg] = there;
    } else {
        c->patch = there;
    }
    return in->operand_size != 2 || c->bits == 16;
}

/*
 * MASKMOVQ, MASKMOVDQU: with masked-out bytes in an inaccessible page it is the CPU's choice
 * whether it faults (SDM vol. 2 MASKMOVDQU: "may still be signaled (implementation dependent)"). So
 * all lies inside, or all bytes are wanted and some or all are outside.
 */
static bool set_mask_move(struct isa_case *c, const struct x86_insn *in)
{
    bool mmx = is(in, "mmx_maskmovq");
    unsigned reg = in->op[1].reg & (mmx ? 7 : 15), top = c->in.fx[3] >> 3 & 7;
    u64 at = ISA_DATA + isa_random(ISA_WRITABLE - 15);

    if (!isa_random(8) || in->address_size * 8 != c->bits) {
        at = ISA_DATA + (isa_random(2) ? ISA_DATA_SIZE : ISA_WRITABLE) + isa_random(4000) -
             isa_random(mmx ? 8 : 16);
        memset(c->in.fx + (mmx ? 32 + 16 * ((reg - top) & 7) : 160 + 16 * reg), 0xff,
               mmx ? 10 : 16);
    }
    c->in.gpr[X86_RDI] = at - isa_data_base(c);
    c->in.rflags &= ~(u64)X86_FLAG_AC;
    c->fault_page_only = true;
    /* What comes first, the end of the segment or the page before it, of accesses in parts? */
    return c->bits != 16 || at + 16 <= ISA_DATA + ISA_DATA_SIZE || at >= ISA_DATA + ISA_DATA_SIZE;
}

/*
 * The x87 environment in memory: last instruction and operand are not compared. AMD CPUs keep them
 * for pending exceptions only.
 */
static bool set_environment(struct isa_case *c, const struct x86_insn *in, u64 target)
{
    unsigned size = in->operand_size == 2 ? 2 : 4;

    /* What comes first, the end of the segment or that of the pages, of so many accesses? */
    if (c->bits == 16 && target + 27 * size > ISA_DATA + ISA_WRITABLE)
        return false;

    c->fault_page_only = true;
    if (is(in, "fnstenv") || is(in, "fnsave")) {
        c->ignored_at = target + 3 * size;
        c->ignored_bytes = 4 * size;
    }
    return true;
}

/* What certain instructions need to do more than fault or run for ever. */
static bool special(struct isa_case *c, u8 *code, const struct x86_insn *in)
{
    static const char *const strings[] = {"movs", "stos", "lods", "cmps", "scas", NULL};
    static const char *const fcomi[] = {"fcomi", "fcomip", "fucomi", "fucomip", NULL};
    u64 *gpr = c->in.gpr;

    if (isa_named(in->row, strings)) {
        gpr[X86_RCX] = isa_random(24);
        gpr[X86_RSI] = data_address(64) - isa_data_base(c);
        gpr[X86_RDI] =
            isa_random(3) ? data_address(64) - isa_data_base(c) : gpr[X86_RSI] + isa_random(24);
        /* A fault in the middle restores the flags on Intel's CPUs, not on AMD's. */
        if (is(in, "cmps") || is(in, "scas"))
            c->fault_undefined = X86_FLAGS_ARITH;
    } else if (is(in, "xlat")) {
        gpr[X86_RBX] = data_address(1) - isa_data_base(c);
    } else if (is(in, "popf")) {
        /* Not TF, NT, AC: the kernel that natively catches the end runs with some of them. */
        if (!stack_holds(c, 8))
            return false;
        c->patch_at = isa_data_base(c) + gpr[X86_RSP];
        c->patch = random64() & ~(X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_AC | X86_FLAG_RF);
    } else if (is(in, "popa") && !stack_holds(c, 32)) {
        return false; /* AMD's CPUs keep what was popped before a fault */
    } else if (is(in, "leave") || is(in, "enter")) {
        gpr[X86_RBP] = data_address(8) - isa_data_base(c);
    } else if (is(in, "maskmovdqu") || is(in, "mmx_maskmovq")) {
        if (!set_mask_move(c, in))
            return false;
    } else if (isa_named(in->row, fcomi)) {
        c->x87_undefined = 0x200; /* C1: SDM vol. 2 clears it, AMD's CPUs leave it */
    } else if (is(in, "cvtpi2ps") && in->op[1].kind == X86_OP_MEM) {
        /* SDM vol. 2 has it go to MMX operation, AMD's CPUs do not: where it makes no
         * difference. */
        c->in.fx[2] = c->in.fx[3] = 0;
        c->in.fx[4] = 0xff;
    } else if (is(in, "bswap") && in->operand_size == 2) {
        return false;
    } else if ((is(in, "div") || is(in, "idiv")) && isa_random(4) && in->base != X86_RDX &&
               in->index != X86_RDX) {
        gpr[X86_RDX] = isa_random(2) ? isa_random(4) : (u64)((s64)gpr[X86_RAX] >> 63);
    }
    return set_branch(c, code, in);
}

static bool set_undefined(struct isa_case *c, const struct x86_insn *in)
{
    unsigned n = in->op[2].kind == X86_OP_NONE ? 1 : 2;
    u64 count = in->op[n].kind == X86_OP_IMM ? in->op[n].value : c->in.gpr[X86_RCX];

    count &= in->op[0].size == 8 ? 63 : 31;
    for (unsigned i = 0; i < ARRAY_SIZE(undefined_flags); i++) {
        if (!is(in, undefined_flags[i].name))
            continue;
        c->undefined = undefined_flags[i].flags;
        if (undefined_flags[i].unless_one && count == 0)
            c->undefined = 0;
        else if (count != 1)
            c->undefined |= undefined_flags[i].unless_one;
    }
    if ((is(in, "shl") || is(in, "shr")) && count >= in->op[0].size * 8)
        c->undefined |= X86_FLAG_CF;
    /* Beyond the width the result itself is undefined. */
    return !((is(in, "shld") || is(in, "shrd")) && count > in->op[0].size * 8);
}

/* The count in CL, once the operands are placed. */
static bool is_count(const struct x86_insn *in)
{
    return in->row->op[1] == X86_OC_CL || in->row->op[2] == X86_OC_CL;
}

bool isa_generate(struct isa_case *c, const struct x86_row *row, unsigned bits, unsigned number)
{
    unsigned before, length;
    struct x86_insn in, again;
    u8 *code;

    memset(c, 0, sizeof(*c));
    memset(c->code, 0xcc, ISA_SLOT);
    c->row = row;
    c->bits = bits;
    isa_random_state(&c->in, bits);
    /* A trap after the first instruction, or its first repetition. */
    if (!isa_random(16))
        c->in.rflags |= X86_FLAG_TF;
    /* Of vectors CPUs differ in what they call aligned. */
    if (!isa_random(16) && !(row->flags & (X86_ROW_SSE | X86_ROW_SSEFP | X86_ROW_FPU)))
        c->in.rflags |= X86_FLAG_AC;
    c->in.rip = isa_slot(number) - isa_code_base(c);
    c->in.gpr[X86_RSP] = ISA_DATA - isa_data_base(c) + 2048 + 8 * isa_random(256);
    if (!isa_random(24)) /* a stack that ends, or cannot be written */
        c->in.gpr[X86_RSP] = data_address(16) - isa_data_base(c);
    else if (!isa_random(64) && bits != 16)
        c->in.gpr[X86_RSP] = wild_address(bits, 16);
    before = isa_random(2) ? prelude(c->code, bits) : 0;
    code = c->code + before;
    random_instruction(code, row, bits);
    if (x86_decode(&in, code, 32, bits / 8) != X86_DECODE_OK || in.row != row)
        return false;
    length = in.length;
    /* Whether their operand bytes are fetched, at the end of the segment, is the CPU's choice. */
    if ((is(&in, "ud0") || is(&in, "ud1")) && c->in.rip + 64 > ISA_CODE16_LIMIT && bits == 16)
        return false;
    memset(code + length, 0xcc, ISA_SLOT - before - length);

    if (in.has_modrm && in.mod != 3) {
        unsigned size = in.op[0].kind == X86_OP_MEM ? in.op[0].size : in.op[1].size;
        /* The x87 accesses what is longer than 8 bytes in parts. */
        bool wild = !isa_random(64) && bits != 16 && size <= 16 &&
                    !(row->flags & X86_ROW_FPU && (size > 8 || row->op[0] == X86_OC_M));
        u64 target = wild ? wild_address(bits, size ? size : 8) : data_address(size ? size : 8);

        if (row->op[1] == X86_OC_Gv && in.op[0].kind == X86_OP_MEM && row->map == X86_MAP_M0F &&
            in.op[1].reg != in.base && in.op[1].reg != in.index)
            c->in.gpr[in.op[1].reg] =
                (u64)(s64)(isa_random(4000) - 2000) & mask_low(bits == 64 ? 64 : 32);
        /* And so pages may come before the segment's end. */
        if (bits == 16 && row->flags & X86_ROW_FPU && size > 8 &&
            target + size > ISA_DATA + ISA_DATA_SIZE)
            return false;
        c->patch = value();
        if (!aim(c, code, &in, target))
            return false;
        /* The displacement was looked for by its bytes: they may have been another's. */
        if (x86_decode(&again, code, 32, bits / 8) != X86_DECODE_OK || again.imm != in.imm ||
            again.op[1].value != in.op[1].value || again.op[2].value != in.op[2].value)
            return false;
        if (row->op[0] == X86_OC_M && row->flags & X86_ROW_FPU && !set_environment(c, &in, target))
            return false;
        if (target >= ISA_DATA && target <= ISA_DATA + ISA_WRITABLE - 8 && isa_random(2))
            c->patch_at = target;
        if (is(&in, "ldmxcsr") && loads_mm(c, target))
            return false;
    }
    if (!special(c, code, &in) || !set_undefined(c, &in))
        return false;
    /* Only known destinations; and none that depends on the prelude. */
    if ((is(&in, "jmp") || is(&in, "call")) && in.op[0].kind != X86_OP_REL &&
        (before || (in.op[0].kind == X86_OP_MEM && (!c->patch_at || in.scale))))
        return false;
    if (c->undefined && is_count(&in) && before)
        return false;
    if (!(row->flags & X86_ROW_ENDS))
        postlude(code + length, bits, c->undefined);
    return true;
}
