/* Data movement and the stack. SDM vol. 1 7.3.1. */
#include "guest/x86/cc.h"
#include "guest/x86/lift.h"
#include "guest/x86/x86_internal.h"

void lift_mov(struct x86_lift *l)
{
    lift_write(l, 0, lift_read(l, 1));
}

void lift_movzx(struct x86_lift *l)
{
    enum ir_type to = lift_int_type(l->in->op[0].size);
    ir_ref v = lift_read(l, 1);

    lift_write(l, 0, ir_typeof(l->u, v) == to ? v : ir_zext(l->u, to, v));
}

void lift_movsx(struct x86_lift *l)
{
    enum ir_type to = lift_int_type(l->in->op[0].size);
    ir_ref v = lift_read(l, 1);

    lift_write(l, 0, ir_typeof(l->u, v) == to ? v : ir_sext(l->u, to, v));
}

void lift_movsxd(struct x86_lift *l)
{
    ir_ref v = lift_read(l, 1);

    if (l->in->operand_size == 8)
        v = ir_sext(l->u, IR_I64, v);
    else if (l->in->operand_size == 2)
        v = ir_trunc(l->u, IR_I16, v);
    lift_write(l, 0, v);
}

void lift_cmovcc(struct x86_lift *l)
{
    /* The source is read, and a 32-bit destination zero-extended, whatever the condition. */
    ir_ref source = lift_read(l, 1), dest = lift_read(l, 0);

    lift_write(l, 0, ir_sel(l->u, lift_condition(l, l->in->opcode & 15), source, dest));
}

void lift_lea(struct x86_lift *l)
{
    enum ir_type type = lift_int_type(l->in->operand_size);
    ir_ref ea = lift_ea(l);

    lift_write(l, 0, type == IR_I64 ? ea : ir_trunc(l->u, type, ea));
}

void lift_xchg(struct x86_lift *l)
{
    const struct x86_operand *op = l->in->op;
    ir_ref a, b;

    if (op[0].kind == X86_OP_MEM) {
        a = ir_atomic(l->u, IR_axchg, lift_address(l, 0, true), 0, lift_read(l, 1));
        lift_write(l, 1, a);
        return;
    }
    /* 90h is NOP: EAX is not zero-extended. */
    if (l->in->opcode == 0x90 && op[0].reg == X86_RAX)
        return;
    a = lift_read(l, 0);
    b = lift_read(l, 1);
    lift_write(l, 0, b);
    lift_write(l, 1, a);
}

void lift_xadd(struct x86_lift *l)
{
    ir_ref addr = IR_NONE, old, add = lift_read(l, 1), sum;

    if (l->in->op[0].kind == X86_OP_MEM)
        addr = lift_address(l, 0, true);
    if (addr && l->in->lock)
        old = ir_atomic(l->u, IR_aadd, addr, 0, add);
    else
        old = addr ? ir_ld(l->u, ir_typeof(l->u, add), addr, 0) : lift_read(l, 0);
    sum = ir_add(l->u, old, add);
    if (addr && !l->in->lock)
        ir_st(l->u, addr, 0, sum);
    lift_write(l, 1, old);
    if (!addr)
        lift_write(l, 0, sum);
    lift_cc(l, X86_CC(ADD, l->in->op[0].size), sum, add, IR_NONE);
}

void lift_cmpxchg(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;
    ir_ref want = lift_reg(l, X86_RAX, size, false), desired = lift_read(l, 1);
    ir_ref full = lift_reg(l, X86_RAX, 8, false), old, equal, rax;

    if (l->in->op[0].kind == X86_OP_MEM) {
        ir_ref addr = lift_address(l, 0, true);

        if (l->in->lock) {
            old = ir_acas(l->u, addr, 0, want, desired);
            equal = ir_eq(l->u, want, old);
        } else {
            old = ir_ld(l->u, ir_typeof(l->u, want), addr, 0);
            equal = ir_eq(l->u, want, old);
            ir_st(l->u, addr, 0, ir_sel(l->u, equal, desired, old));
        }
    } else {
        unsigned reg = l->in->op[0].reg;
        ir_ref whole = lift_reg(l, reg, 8, false);

        old = lift_read(l, 0);
        equal = ir_eq(l->u, want, old);
        if (size == 4) /* zero-extended only when it is written */
            lift_set_reg(l, reg, 8, false,
                         ir_sel(l->u, equal, ir_zext(l->u, IR_I64, desired), whole));
        else
            lift_write(l, 0, ir_sel(l->u, equal, desired, old));
        /* The destination may be part of rAX. */
        full = lift_reg(l, X86_RAX, 8, false);
    }
    if (size == 4)
        rax = ir_zext(l->u, IR_I64, old);
    else
        rax = size == 8 ? old : ir_deposit(l->u, full, old, 0);
    lift_set_reg(l, X86_RAX, 8, false, ir_sel(l->u, equal, full, rax));
    lift_cc(l, X86_CC(SUB, size), want, old, IR_NONE);
}

static void set_zf_only(struct x86_lift *l, ir_ref zf)
{
    ir_ref flags = lift_eflags_arith(l), bit = ir_zext(l->u, IR_I64, zf);

    flags = ir_and(l->u, flags, ir_const(l->u, IR_I64, X86_FLAGS_ARITH & ~X86_FLAG_ZF));
    bit = ir_shl(l->u, bit, ir_const(l->u, IR_I8, 6));
    lift_cc(l, X86_CC(EFLAGS, 1), ir_or(l->u, flags, bit), IR_NONE, IR_NONE);
}

/* The 64-bit value of two 32-bit registers. */
static ir_ref pair(struct x86_lift *l, unsigned high, unsigned low)
{
    ir_ref hi = lift_reg(l, high, 8, false), lo = lift_reg(l, low, 4, false);

    hi = ir_shl(l->u, hi, ir_const(l->u, IR_I8, 32));
    return ir_or(l->u, hi, ir_zext(l->u, IR_I64, lo));
}

void lift_cmpxchg8b(struct x86_lift *l)
{
    ir_ref addr, want, old, equal, zf;

    if (l->in->rex & 8) {
        addr = lift_linear(l, 16, true);
        zf = LIFT_CALL(l, IR_I64, cmpxchg16b, addr, IR_NONE, IR_NONE, IR_NONE);
        set_zf_only(l, ir_trunc(l->u, IR_I1, zf));
        return;
    }
    addr = lift_linear(l, 8, true);
    want = pair(l, X86_RDX, X86_RAX);
    old = ir_acas(l->u, addr, 0, want, pair(l, X86_RCX, X86_RBX));
    equal = ir_eq(l->u, old, want);
    for (unsigned i = 0; i < 2; i++) {
        unsigned reg = i ? X86_RDX : X86_RAX;
        ir_ref part = ir_extract(l->u, IR_I32, old, i * 32);

        lift_set_reg(l, reg, 8, false,
                     ir_sel(l->u, equal, lift_reg(l, reg, 8, false), ir_zext(l->u, IR_I64, part)));
    }
    set_zf_only(l, equal);
}

/* CBW, CWDE, CDQE. */
void lift_cbw(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref half = lift_reg(l, X86_RAX, size / 2, false);

    lift_set_reg(l, X86_RAX, size, false, ir_sext(l->u, lift_int_type(size), half));
}

/* CWD, CDQ, CQO. */
void lift_cwd(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref v = lift_reg(l, X86_RAX, size, false);

    v = ir_sar(l->u, v, ir_const(l->u, IR_I8, size * 8 - 1));
    lift_set_reg(l, X86_RDX, size, false, v);
}

void lift_xlat(struct x86_lift *l)
{
    unsigned width = l->in->address_size;
    ir_ref at = lift_reg(l, X86_RBX, 8, false);

    at = ir_add(l->u, at, ir_zext(l->u, IR_I64, lift_reg(l, X86_RAX, 1, false)));
    if (width != 8)
        at = ir_and(l->u, at, ir_const(l->u, IR_I64, mask_low(width * 8)));
    at = lift_segment(l, l->in->segment, at, 1, false);
    lift_set_reg(l, X86_RAX, 1, false, ir_ld(l->u, IR_I8, at, 0));
}

void lift_bswap(struct x86_lift *l)
{
    ir_ref v = lift_read(l, 0);

    /* 16-bit BSWAP is undefined; CPUs clear the register. */
    if (l->in->operand_size == 2)
        lift_write(l, 0, ir_const(l->u, IR_I16, 0));
    else
        lift_write(l, 0, ir_bswap(l->u, v));
}

void lift_movbe(struct x86_lift *l)
{
    bool word = l->in->operand_size == 2;
    ir_ref v;

    lift_need_feature(l, X86_FEATURE_MOVBE);
    v = lift_read(l, 1);
    v = ir_bswap(l->u, word ? ir_zext(l->u, IR_I32, v) : v);
    if (word)
        v = ir_trunc(l->u, IR_I16, ir_shr(l->u, v, ir_const(l->u, IR_I8, 16)));
    lift_write(l, 0, v);
}

/* A store that goes around the caches. */
void lift_movdiri(struct x86_lift *l)
{
    lift_need_feature(l, X86_FEATURE_MOVDIRI);
    lift_write(l, 0, lift_read(l, 1));
}

void lift_push(struct x86_lift *l)
{
    lift_stack_push(l, lift_read(l, 0));
}

void lift_pop(struct x86_lift *l)
{
    const struct x86_insn *in = l->in;
    unsigned size = in->op[0].size;
    ir_ref value = lift_stack_pop(l, lift_int_type(size));

    if (in->op[0].kind == X86_OP_MEM) {
        /* The address counts with rSP already raised; rSP itself changes only after the store. */
        struct x86_insn raised = *in;

        if (in->base == X86_RSP)
            raised.disp += size;
        l->in = &raised;
        lift_write(l, 0, value);
        l->in = in;
        lift_add_sp(l, size);
    } else {
        lift_add_sp(l, size);
        lift_write(l, 0, value);
    }
}

void lift_pusha(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    unsigned width = lift_stack_width(l);
    ir_ref sp = lift_reg(l, X86_RSP, 8, false);

    for (unsigned i = 0; i < 8; i++) {
        ir_ref at = ir_sub(l->u, sp, ir_const(l->u, IR_I64, (i + 1) * size));

        at = ir_and(l->u, at, ir_const(l->u, IR_I64, mask_low(width * 8)));
        at = lift_segment(l, X86_SS, at, size, true);
        ir_st(l->u, at, 0, lift_reg(l, i, size, false));
    }
    lift_add_sp(l, -8 * (s64)size);
}

void lift_popa(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    unsigned width = lift_stack_width(l);
    ir_ref sp = lift_reg(l, X86_RSP, 8, false), value[8];

    for (unsigned i = 0; i < 8; i++) {
        ir_ref at = ir_add(l->u, sp, ir_const(l->u, IR_I64, i * size));

        at = ir_and(l->u, at, ir_const(l->u, IR_I64, mask_low(width * 8)));
        at = lift_segment(l, X86_SS, at, size, false);
        value[i] = ir_ld(l->u, lift_int_type(size), at, 0);
    }
    for (unsigned i = 0; i < 8; i++)
        if (7 - i != X86_RSP)
            lift_set_reg(l, 7 - i, size, false, value[i]);
    lift_add_sp(l, 8 * (s64)size);
}

/* PUSHF and POPF in virtual-8086 mode need IOPL 3; those of words do with VME, which shows VIF as
 * IF (SDM vol. 3 21.3.3.4). False: raised. */
static bool vm86_allowed(struct x86_lift *l, bool *vme)
{
    *vme = l->mode & X86_MODE_VM86 && !(l->mode & X86_MODE_IOPL_OK);
    if (*vme && l->in->operand_size != 2) {
        lift_raise(l, X86_GP);
        return false;
    }
    if (*vme)
        LIFT_CALL(l, IR_VOID, check_vme, IR_NONE, IR_NONE, IR_NONE, IR_NONE);
    return true;
}

/* VIF in the place of IF, and IOPL 3. */
static ir_ref vme_image(struct x86_lift *l, ir_ref image)
{
    ir_ref vif = ir_and(l->u, image, ir_const(l->u, IR_I64, X86_FLAG_VIF));

    image = ir_and(l->u, image, ir_const(l->u, IR_I64, ~X86_FLAG_IF));
    image = ir_or(l->u, image, ir_shr(l->u, vif, ir_const(l->u, IR_I8, 19 - 9)));
    return ir_or(l->u, image, ir_const(l->u, IR_I64, X86_FLAG_IOPL));
}

void lift_pushf(struct x86_lift *l)
{
    ir_ref df, image;
    bool vme;

    if (!vm86_allowed(l, &vme))
        return;
    /* DF is kept as 1 or -1. */
    df = ir_get(l->u, IR_I64, X86_SLOT(df));
    df = ir_and(l->u, df, ir_const(l->u, IR_I64, X86_FLAG_DF));
    image = ir_get(l->u, IR_I64, X86_SLOT(eflags));
    image = ir_and(l->u, image, ir_const(l->u, IR_I64, ~(X86_FLAG_RF | X86_FLAG_VM)));
    image = ir_or(l->u, image, ir_const(l->u, IR_I64, 2));
    image = ir_or(l->u, image, ir_or(l->u, lift_eflags_arith(l), df));
    if (vme)
        image = vme_image(l, image);
    if (l->in->operand_size != 8)
        image = ir_trunc(l->u, lift_int_type(l->in->operand_size), image);
    lift_stack_push(l, image);
}

void lift_popf(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref image;
    bool vme;

    if (!vm86_allowed(l, &vme))
        return;
    image = lift_stack_pop(l, lift_int_type(size));
    if (size != 8)
        image = ir_zext(l->u, IR_I64, image);
    if (vme) {
        LIFT_CALL(l, IR_VOID, popf_vme, image, IR_NONE, IR_NONE, IR_NONE);
        lift_add_sp(l, size);
    } else {
        lift_add_sp(l, size);
        ir_put(l->u, X86_SLOT(lip), lift_next_pc(l));
        LIFT_CALL(l, IR_VOID, popf, image, ir_const(l->u, IR_I64, size), IR_NONE, IR_NONE);
    }
    lift_flags_changed(l);
    lift_end_state(l);
}

/* The address of @bytes at stack offset @base - @below. */
static ir_ref frame_at(struct x86_lift *l, ir_ref base, u64 below, unsigned bytes, bool write)
{
    ir_ref at = ir_sub(l->u, base, ir_const(l->u, IR_I64, below));

    at = ir_and(l->u, at, ir_const(l->u, IR_I64, mask_low(lift_stack_width(l) * 8)));
    return lift_segment(l, X86_SS, at, bytes, write);
}

void lift_enter(struct x86_lift *l)
{
    unsigned size = l->in->operand_size, width = lift_stack_width(l);
    unsigned level = l->in->op[1].value & 31;
    u64 alloc = l->in->op[0].value;
    ir_ref sp = lift_reg(l, X86_RSP, 8, false), bp = lift_reg(l, X86_RBP, 8, false);
    ir_ref frame = ir_sub(l->u, sp, ir_const(l->u, IR_I64, size));
    u64 used = size;

    ir_st(l->u, frame_at(l, sp, used, size, true), 0, lift_reg(l, X86_RBP, size, false));
    for (unsigned i = 1; i < level; i++) {
        ir_ref link = ir_ld(l->u, lift_int_type(size), frame_at(l, bp, i * size, size, false), 0);

        used += size;
        ir_st(l->u, frame_at(l, sp, used, size, true), 0, link);
    }
    if (level) {
        used += size;
        ir_st(l->u, frame_at(l, sp, used, size, true), 0,
              size == 8 ? frame : ir_trunc(l->u, lift_int_type(size), frame));
    }
    /* The new top of the stack must be writable, too. */
    ir_atomic(l->u, IR_aor, frame_at(l, sp, used + alloc, size, true), 0,
              ir_const(l->u, lift_int_type(size), 0));
    lift_set_reg(l, X86_RBP, width, false,
                 width == 8 ? frame : ir_trunc(l->u, lift_int_type(width), frame));
    lift_add_sp(l, -(s64)(used + alloc));
}

void lift_leave(struct x86_lift *l)
{
    unsigned size = l->in->operand_size, width = lift_stack_width(l);
    ir_ref bp = lift_reg(l, X86_RBP, 8, false), old, sp;

    old = ir_ld(l->u, lift_int_type(size), frame_at(l, bp, 0, size, false), 0);
    sp = ir_add(l->u, bp, ir_const(l->u, IR_I64, size));
    lift_set_reg(l, X86_RSP, width, false,
                 width == 8 ? sp : ir_trunc(l->u, lift_int_type(width), sp));
    lift_set_reg(l, X86_RBP, size, false, old);
}
