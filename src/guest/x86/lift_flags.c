/* The lazy flags in IR: cc.h says what is kept; here conditions become comparisons of it. */
#include "guest/x86/cc.h"
#include "guest/x86/lift.h"
#include "guest/x86/rows.h"

/* Which of the slots a kind uses. */
enum { USES_SRC = 1, USES_SRC2 = 2 };
static const u8 kind_uses[] = {
    [X86_CC_EFLAGS] = 0,
    [X86_CC_ADD] = USES_SRC,
    [X86_CC_ADC] = USES_SRC | USES_SRC2,
    [X86_CC_SUB] = USES_SRC,
    [X86_CC_SBB] = USES_SRC | USES_SRC2,
    [X86_CC_LOGIC] = 0,
    [X86_CC_INC] = USES_SRC,
    [X86_CC_DEC] = USES_SRC,
    [X86_CC_SHL] = USES_SRC,
    [X86_CC_SHR] = USES_SRC,
    [X86_CC_MUL] = USES_SRC,
};

static ir_ref zero_like(struct x86_lift *l, ir_ref v)
{
    return ir_const(l->u, ir_typeof(l->u, v), 0);
}

static ir_ref false_(struct x86_lift *l)
{
    return ir_const(l->u, IR_I1, 0);
}

static ir_ref widen(struct x86_lift *l, ir_ref v)
{
    return ir_typeof(l->u, v) == IR_I64 ? v : ir_zext(l->u, IR_I64, v);
}

void lift_cc(struct x86_lift *l, u64 op, ir_ref dst, ir_ref src, ir_ref src2)
{
    l->cc.known = true;
    l->cc.op = op;
    l->cc.dst = dst;
    l->cc.src = src;
    l->cc.src2 = src2;
    ir_put(l->u, X86_SLOT(cc_dst), widen(l, dst));
    if (src)
        ir_put(l->u, X86_SLOT(cc_src), widen(l, src));
    if (src2)
        ir_put(l->u, X86_SLOT(cc_src2), widen(l, src2));
    ir_put(l->u, X86_SLOT(cc_op), ir_const(l->u, IR_I8, op));
}

void lift_flags_changed(struct x86_lift *l)
{
    l->cc.known = false;
}

/* A call of one of the three cc helpers; @extra is or-ed into the operation. */
static ir_ref call_cc(struct x86_lift *l, enum x86_helper helper, u64 extra)
{
    ir_ref zero = ir_const(l->u, IR_I64, 0);
    ir_ref dst = ir_get(l->u, IR_I64, X86_SLOT(cc_dst));
    ir_ref src = zero, src2 = zero, op;

    if (!l->cc.known || kind_uses[l->cc.op >> 2] & USES_SRC)
        src = ir_get(l->u, IR_I64, X86_SLOT(cc_src));
    if (!l->cc.known || kind_uses[l->cc.op >> 2] & USES_SRC2)
        src2 = ir_get(l->u, IR_I64, X86_SLOT(cc_src2));
    if (l->cc.known)
        op = ir_const(l->u, IR_I64, l->cc.op);
    else
        op = ir_zext(l->u, IR_I64, ir_get(l->u, IR_I8, X86_SLOT(cc_op)));
    if (extra)
        op = ir_or(l->u, op, ir_const(l->u, IR_I64, extra));
    return ir_call(l->u, IR_I64, helper, dst, src, src2, op);
}

ir_ref lift_eflags_arith(struct x86_lift *l)
{
    ir_ref flags;

    if (l->cc.known && l->cc.op == X86_CC(EFLAGS, 1))
        return l->cc.dst;
    flags = call_cc(l, X86_HELPER_cc_eflags, 0);
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
    return flags;
}

void lift_set_eflags_arith(struct x86_lift *l, ir_ref flags)
{
    flags = ir_and(l->u, flags, ir_const(l->u, IR_I64, X86_FLAGS_ARITH));
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

/* i1 as the flag at the mask's place (i64). */
static ir_ref flag_at(struct x86_lift *l, ir_ref flag, u64 mask)
{
    ir_ref wide = ir_zext(l->u, IR_I64, flag);

    return ir_shl(l->u, wide, ir_const(l->u, IR_I8, (u64)__builtin_ctzll(mask)));
}

void lift_set_zpc(struct x86_lift *l, ir_ref zf, ir_ref pf, ir_ref cf)
{
    ir_ref flags = ir_or(l->u, flag_at(l, zf, X86_FLAG_ZF), ir_zext(l->u, IR_I64, cf));

    if (pf)
        flags = ir_or(l->u, flags, flag_at(l, pf, X86_FLAG_PF));
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

static ir_ref flag_set(struct x86_lift *l, u64 mask)
{
    ir_ref hit = ir_and(l->u, l->cc.dst, ir_const(l->u, IR_I64, mask));

    return ir_ne(l->u, hit, ir_const(l->u, IR_I64, 0));
}

/* The result whose zero, sign and parity count. */
static ir_ref result(struct x86_lift *l)
{
    ir_ref r;

    switch (l->cc.op >> 2) {
    case X86_CC_SUB:
        return ir_sub(l->u, l->cc.dst, l->cc.src);
    case X86_CC_SBB:
        r = ir_sub(l->u, l->cc.dst, l->cc.src);
        return ir_sub(l->u, r, l->cc.src2);
    }
    return l->cc.dst;
}

/* Carry of ADC, borrow of SBB: below, or equal with a carry in. */
static ir_ref carry_with_carry(struct x86_lift *l)
{
    ir_ref below = ir_ult(l->u, l->cc.dst, l->cc.src);
    ir_ref equal = ir_eq(l->u, l->cc.dst, l->cc.src);
    ir_ref carry = ir_trunc(l->u, IR_I1, l->cc.src2);

    return ir_or(l->u, below, ir_and(l->u, equal, carry));
}

ir_ref lift_cf(struct x86_lift *l)
{
    if (!l->cc.known)
        return ir_trunc(l->u, IR_I1, call_cc(l, X86_HELPER_cc_cf, 0));
    switch (l->cc.op >> 2) {
    case X86_CC_EFLAGS:
        return ir_trunc(l->u, IR_I1, l->cc.dst);
    case X86_CC_ADD:
    case X86_CC_SUB:
        return ir_ult(l->u, l->cc.dst, l->cc.src);
    case X86_CC_ADC:
    case X86_CC_SBB:
        return carry_with_carry(l);
    case X86_CC_INC:
    case X86_CC_DEC:
    case X86_CC_SHR:
        return ir_trunc(l->u, IR_I1, l->cc.src);
    case X86_CC_SHL:
        return ir_slt(l->u, l->cc.src, zero_like(l, l->cc.src));
    case X86_CC_MUL:
        return ir_ne(l->u, l->cc.src, zero_like(l, l->cc.src));
    }
    return false_(l);
}

static ir_ref zf(struct x86_lift *l)
{
    if (l->cc.op >> 2 == X86_CC_EFLAGS)
        return flag_set(l, X86_FLAG_ZF);
    if (l->cc.op >> 2 == X86_CC_SUB)
        return ir_eq(l->u, l->cc.dst, l->cc.src);
    return ir_eq(l->u, result(l), zero_like(l, l->cc.dst));
}

static ir_ref sf(struct x86_lift *l)
{
    if (l->cc.op >> 2 == X86_CC_EFLAGS)
        return flag_set(l, X86_FLAG_SF);
    return ir_slt(l->u, result(l), zero_like(l, l->cc.dst));
}

static ir_ref pf(struct x86_lift *l)
{
    ir_ref r;

    if (l->cc.op >> 2 == X86_CC_EFLAGS)
        return flag_set(l, X86_FLAG_PF);
    r = result(l);
    return ir_parity(l->u, ir_typeof(l->u, r) == IR_I8 ? r : ir_trunc(l->u, IR_I8, r));
}

/* Both differences' sign bits: (x ^ y) & (z ^ w) < 0. */
static ir_ref signs_differ(struct x86_lift *l, ir_ref x, ir_ref y, ir_ref z, ir_ref w)
{
    ir_ref v = ir_and(l->u, ir_xor(l->u, x, y), ir_xor(l->u, z, w));

    return ir_slt(l->u, v, zero_like(l, v));
}

static ir_ref of(struct x86_lift *l)
{
    ir_ref dst = l->cc.dst, src = l->cc.src, v;
    u64 kind = l->cc.op >> 2, sign = 1ull << ((8u << (l->cc.op & 3)) - 1);

    switch (kind) {
    case X86_CC_EFLAGS:
        return flag_set(l, X86_FLAG_OF);
    case X86_CC_ADD:
    case X86_CC_ADC:
        v = ir_sub(l->u, dst, src);
        if (kind == X86_CC_ADC)
            v = ir_sub(l->u, v, l->cc.src2);
        return signs_differ(l, v, dst, src, dst);
    case X86_CC_SUB:
    case X86_CC_SBB:
        return signs_differ(l, dst, src, dst, result(l));
    case X86_CC_INC:
    case X86_CC_DEC:
        v = ir_const(l->u, ir_typeof(l->u, dst), kind == X86_CC_INC ? sign : sign - 1);
        return ir_eq(l->u, dst, v);
    case X86_CC_SHL:
    case X86_CC_SHR:
        v = ir_xor(l->u, dst, src);
        return ir_slt(l->u, v, zero_like(l, v));
    case X86_CC_MUL:
        return lift_cf(l);
    }
    return false_(l);
}

/* SF != OF. */
static ir_ref less(struct x86_lift *l)
{
    if (l->cc.op >> 2 == X86_CC_SUB)
        return ir_slt(l->u, l->cc.dst, l->cc.src);
    return ir_xor(l->u, sf(l), of(l));
}

/* The even condition numbers, from known flags. */
static ir_ref condition(struct x86_lift *l, unsigned cc)
{
    bool sub = l->cc.op >> 2 == X86_CC_SUB;

    switch (cc >> 1) {
    case 0:
        return of(l);
    case 1:
        return lift_cf(l);
    case 2:
        return zf(l);
    case 3:
        if (sub)
            return ir_ule(l->u, l->cc.dst, l->cc.src);
        if (l->cc.op >> 2 == X86_CC_EFLAGS)
            return flag_set(l, X86_FLAG_CF | X86_FLAG_ZF);
        return ir_or(l->u, lift_cf(l), zf(l));
    case 4:
        return sf(l);
    case 5:
        return pf(l);
    case 6:
        return less(l);
    }
    if (sub)
        return ir_sle(l->u, l->cc.dst, l->cc.src);
    if (l->cc.op >> 2 == X86_CC_LOGIC)
        return ir_sle(l->u, l->cc.dst, zero_like(l, l->cc.dst));
    return ir_or(l->u, zf(l), less(l));
}

/* Known flags whose condition is one comparison; else IR_NONE. */
static ir_ref comparison(struct x86_lift *l, unsigned cc)
{
    enum { OF_TWO = 0xf0fc, OF_CARRY = 0x000c, WITH_ZERO = 0x0330 }; /* which conditions */
    static const struct {
        u8 op;
        bool swapped;
    } ways[16] = {
        [2] = {IR_ult, false}, [3] = {IR_ule, true},   [4] = {IR_eq, false},
        [5] = {IR_ne, false},  [6] = {IR_ule, false},  [7] = {IR_ult, true},
        [8] = {IR_slt, false}, [9] = {IR_sle, true},   [12] = {IR_slt, false},
        [13] = {IR_sle, true}, [14] = {IR_sle, false}, [15] = {IR_slt, true},
    };
    ir_ref a = l->cc.dst, b = l->cc.src;
    u64 kind = l->cc.op >> 2;

    if (kind == X86_CC_EFLAGS || kind == X86_CC_SBB)
        return IR_NONE;
    if (!(kind == X86_CC_SUB && OF_TWO >> cc & 1) && !(kind == X86_CC_ADD && OF_CARRY >> cc & 1)) {
        if (kind == X86_CC_SUB || !(WITH_ZERO >> cc & 1))
            return IR_NONE;
        b = zero_like(l, a);
    }
    return ways[cc].swapped ? ir_emit(l->u, ways[cc].op, IR_I1, b, a, 0, 0, 0)
                            : ir_emit(l->u, ways[cc].op, IR_I1, a, b, 0, 0, 0);
}

ir_ref lift_condition(struct x86_lift *l, unsigned cc)
{
    ir_ref value;

    if (!l->cc.known && l->in->row->flags & X86_ROW_ENDS)
        return ir_trunc(l->u, IR_I1, call_cc(l, X86_HELPER_cc_condition, (u64)cc << 8));
    /* Others may follow: compute all flags once. */
    if (!l->cc.known)
        lift_eflags_arith(l);
    value = comparison(l, cc);
    if (value)
        return value;
    value = condition(l, cc);
    return cc & 1 ? ir_not(l->u, value) : value;
}
