/*
 * Identities of the operations, one function an operation or group. A rule looks at an instruction
 * that is about to be appended and answers an existing value that equals it, CHANGED when it has
 * rewritten it into another one (which is then looked at again), or IR_NONE.
 */
#include "ir/eval.h"
#include "ir/private.h"

#define CHANGED ((ir_ref)~0u)

typedef ir_ref rule(struct ir_unit *unit, struct ir_inst *inst);

static const struct ir_inst *at(const struct ir_unit *unit, ir_ref ref)
{
    return &unit->insts[ref];
}

static bool const_value(const struct ir_unit *unit, ir_ref ref, u64 *value)
{
    if (unit->insts[ref].op != IR_const)
        return false;
    *value = unit->insts[ref].imm;
    return true;
}

static ir_ref become(struct ir_inst *inst, enum ir_op op, ir_ref a, ir_ref b, u64 imm)
{
    *inst = (struct ir_inst){.op = op, .type = inst->type, .a = a, .b = b, .imm = imm};
    return CHANGED;
}

static ir_ref become_const(struct ir_inst *inst, u64 value)
{
    return become(inst, IR_const, 0, 0, value & ir_mask_of[inst->type]);
}

/* If a is `op x, constant` of the same kind as inst, a is replaced by x and *c1 is the constant. */
static bool through(struct ir_unit *unit, struct ir_inst *inst, enum ir_op op, u64 *c1)
{
    const struct ir_inst *in = at(unit, inst->a);

    if (in->op != op || !const_value(unit, in->b, c1))
        return false;
    inst->a = in->a;
    return true;
}

static ir_ref rule_add(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c, c1;

    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return inst->a;
    if (at(unit, inst->a)->op == IR_base) {
        c += at(unit, inst->a)->imm;
        return (s64)c == (s32)c ? become(inst, IR_base, 0, 0, c) : IR_NONE;
    }
    if (!through(unit, inst, IR_add, &c1))
        return IR_NONE;
    inst->b = ir_const(unit, inst->type, c + c1);
    return CHANGED;
}

static ir_ref rule_sub(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c;

    if (inst->a == inst->b)
        return become_const(inst, 0);
    if (const_value(unit, inst->b, &c))
        return become(inst, IR_add, inst->a, ir_const(unit, inst->type, 0 - c), 0);
    if (const_value(unit, inst->a, &c) && c == 0)
        return become(inst, IR_neg, inst->b, 0, 0);
    return IR_NONE;
}

static ir_ref rule_mul(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c;

    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return become_const(inst, 0);
    if (c == 1)
        return inst->a;
    if (is_power_of_two(c))
        return become(inst, IR_shl, inst->a, ir_const(unit, IR_I8, __builtin_ctzll(c)), 0);
    return IR_NONE;
}

static ir_ref rule_and(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c, c1;

    if (inst->a == inst->b)
        return inst->a;
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return become_const(inst, 0);
    if (c == ir_mask_of[inst->type])
        return inst->a;
    if (at(unit, inst->a)->op == IR_zext) {
        u64 live = ir_mask_of[ir_typeof(unit, at(unit, inst->a)->a)];

        if ((c & live) == live)
            return inst->a;
        if ((c & live) == 0)
            return become_const(inst, 0);
    }
    /* Low bits that a sum does not change: is base + 32 aligned? */
    if (at(unit, inst->a)->op == IR_add && const_value(unit, at(unit, inst->a)->b, &c1) &&
        c < (c1 & (0 - c1))) {
        inst->a = at(unit, inst->a)->a;
        return CHANGED;
    }
    if (!through(unit, inst, IR_and, &c1))
        return IR_NONE;
    inst->b = ir_const(unit, inst->type, c & c1);
    return CHANGED;
}

static ir_ref rule_or(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c, c1;

    if (inst->a == inst->b)
        return inst->a;
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return inst->a;
    if (c == ir_mask_of[inst->type])
        return inst->b;
    if (!through(unit, inst, IR_or, &c1))
        return IR_NONE;
    inst->b = ir_const(unit, inst->type, c | c1);
    return CHANGED;
}

static ir_ref rule_xor(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c, c1;

    if (inst->a == inst->b)
        return become_const(inst, 0);
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return inst->a;
    if (c == ir_mask_of[inst->type])
        return become(inst, IR_not, inst->a, 0, 0);
    if (!through(unit, inst, IR_xor, &c1))
        return IR_NONE;
    inst->b = ir_const(unit, inst->type, c ^ c1);
    return CHANGED;
}

/* neg, bswap: twice is nothing. */
static ir_ref rule_involution(struct ir_unit *unit, struct ir_inst *inst)
{
    return at(unit, inst->a)->op == inst->op ? at(unit, inst->a)->a : IR_NONE;
}

static ir_ref rule_not(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);

    switch (in->op) {
    case IR_not:
        return in->a;
    case IR_eq:
        return become(inst, IR_ne, in->a, in->b, 0);
    case IR_ne:
        return become(inst, IR_eq, in->a, in->b, 0);
    case IR_ult:
        return become(inst, IR_ule, in->b, in->a, 0);
    case IR_ule:
        return become(inst, IR_ult, in->b, in->a, 0);
    case IR_slt:
        return become(inst, IR_sle, in->b, in->a, 0);
    case IR_sle:
        return become(inst, IR_slt, in->b, in->a, 0);
    default:
        return IR_NONE;
    }
}

/* Shifts and rotates by b. */
static ir_ref rule_shift(struct ir_unit *unit, struct ir_inst *inst)
{
    unsigned n = ir_bits_of[inst->type];
    const struct ir_inst *in = at(unit, inst->a), *count = at(unit, inst->b);
    u64 c, c1;

    if (const_value(unit, inst->a, &c) && c == 0)
        return inst->a;
    if (count->op == IR_and && const_value(unit, count->b, &c) && (c & (n - 1)) == n - 1) {
        inst->b = count->a;
        return CHANGED;
    }
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    c &= n - 1;
    if (c == 0)
        return inst->a;
    if (in->op != inst->op || inst->op == IR_rol || inst->op == IR_ror ||
        !const_value(unit, in->b, &c1))
        return IR_NONE;
    c += c1 & (n - 1);
    if (c >= n && inst->op != IR_sar)
        return become_const(inst, 0);
    inst->a = in->a;
    inst->b = ir_const(unit, IR_I8, c < n ? c : n - 1);
    return CHANGED;
}

static ir_ref rule_funnel(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c;

    return const_value(unit, inst->c, &c) && !(c & (ir_bits_of[inst->type] - 1)) ? inst->a
                                                                                 : IR_NONE;
}

/* A comparison of zext x with a constant that its type cannot or can hold. */
static ir_ref equal_zext(struct ir_unit *unit, struct ir_inst *inst, ir_ref x, u64 c)
{
    enum ir_type type = ir_typeof(unit, x);

    if (c > ir_mask_of[type])
        return become_const(inst, inst->op == IR_ne);
    if (type == IR_I1)
        return c == (inst->op == IR_eq) ? x : become(inst, IR_not, x, 0, 0);
    inst->a = x;
    inst->b = ir_const(unit, type, c);
    return CHANGED;
}

static ir_ref rule_equal(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);
    enum ir_type type = in->type;
    u64 c, c1;

    if (inst->a == inst->b)
        return become_const(inst, inst->op == IR_eq);
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (in->op == IR_zext)
        return equal_zext(unit, inst, in->a, c);
    if ((in->op == IR_sub || in->op == IR_xor) && c == 0) {
        inst->b = in->b;
        inst->a = in->a;
        return CHANGED;
    }
    if (in->op != IR_add || !const_value(unit, in->b, &c1))
        return IR_NONE;
    inst->a = in->a;
    inst->b = ir_const(unit, type, c - c1);
    return CHANGED;
}

static ir_ref rule_less(struct ir_unit *unit, struct ir_inst *inst)
{
    bool or_equal = inst->op == IR_ule || inst->op == IR_sle;
    u64 c;

    if (inst->a == inst->b)
        return become_const(inst, or_equal);
    if (inst->op == IR_slt || inst->op == IR_sle)
        return IR_NONE;
    if (const_value(unit, inst->a, &c) && c == 0)
        return or_equal ? become_const(inst, 1) : become(inst, IR_ne, inst->b, inst->a, 0);
    if (!const_value(unit, inst->b, &c))
        return IR_NONE;
    if (c == 0)
        return or_equal ? become(inst, IR_eq, inst->a, inst->b, 0) : become_const(inst, 0);
    if (c == 1 && !or_equal)
        return become(inst, IR_eq, inst->a, ir_const(unit, ir_typeof(unit, inst->a), 0), 0);
    if (or_equal && c == ir_mask_of[ir_typeof(unit, inst->a)])
        return become_const(inst, 1);
    return IR_NONE;
}

static ir_ref rule_sel(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 cond, b, c;

    if (const_value(unit, inst->a, &cond))
        return cond ? inst->b : inst->c;
    if (inst->b == inst->c)
        return inst->b;
    if (at(unit, inst->a)->op == IR_not) {
        ir_ref b_ref = inst->b;

        inst->a = at(unit, inst->a)->a;
        inst->b = inst->c;
        inst->c = b_ref;
        return CHANGED;
    }
    if (!const_value(unit, inst->b, &b) || !const_value(unit, inst->c, &c))
        return IR_NONE;
    if (inst->type == IR_I1)
        return b ? inst->a : become(inst, IR_not, inst->a, 0, 0);
    if (b == 1 && c == 0 && inst->type <= IR_I64)
        return become(inst, IR_zext, inst->a, 0, 0);
    return IR_NONE;
}

static ir_ref rule_zext(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);

    if (in->type == inst->type)
        return inst->a;
    return in->op == IR_zext ? become(inst, IR_zext, in->a, 0, 0) : IR_NONE;
}

static ir_ref rule_sext(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);

    if (in->type == inst->type)
        return inst->a;
    return in->op == IR_sext || in->op == IR_zext ? become(inst, in->op, in->a, 0, 0) : IR_NONE;
}

static ir_ref rule_trunc(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);
    u64 mask = ir_mask_of[inst->type], c;

    if (in->type == inst->type)
        return inst->a;
    switch (in->op) {
    case IR_zext:
    case IR_sext:
        if (ir_typeof(unit, in->a) > inst->type)
            return become(inst, IR_trunc, in->a, 0, 0);
        if (ir_typeof(unit, in->a) == inst->type)
            return in->a;
        return become(inst, in->op, in->a, 0, 0);
    case IR_trunc:
        return become(inst, IR_trunc, in->a, 0, 0);
    case IR_extract:
        /* There is no extract of i1. */
        return inst->type == IR_I1 ? IR_NONE : become(inst, IR_extract, in->a, 0, in->imm);
    case IR_deposit:
        if (in->imm == 0 && ir_typeof(unit, in->b) >= inst->type)
            return become(inst, IR_trunc, in->b, 0, 0);
        return in->imm >= ir_bits_of[inst->type] ? become(inst, IR_trunc, in->a, 0, 0) : IR_NONE;
    case IR_and:
        if (const_value(unit, in->b, &c) && (c & mask) == mask)
            return become(inst, IR_trunc, in->a, 0, 0);
        return IR_NONE;
    default:
        return IR_NONE;
    }
}

static ir_ref rule_extract(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);
    unsigned width = ir_bits_of[inst->type], inner = ir_bits_of[ir_typeof(unit, in->a)];

    if (inst->imm == 0)
        return become(inst, IR_trunc, inst->a, 0, 0);
    switch (in->op) {
    case IR_zext:
        if (inst->imm >= inner)
            return become_const(inst, 0);
        return inst->imm + width <= inner ? become(inst, IR_extract, in->a, 0, inst->imm) : IR_NONE;
    case IR_trunc:
        return become(inst, IR_extract, in->a, 0, inst->imm);
    case IR_extract:
        return become(inst, IR_extract, in->a, 0, in->imm + inst->imm);
    case IR_deposit: {
        unsigned start = in->imm, end = start + ir_bits_of[ir_typeof(unit, in->b)];

        if (inst->imm == start && ir_typeof(unit, in->b) == inst->type)
            return in->b;
        if (inst->imm + width <= start || inst->imm >= end)
            return become(inst, IR_extract, in->a, 0, inst->imm);
        return IR_NONE;
    }
    default:
        return IR_NONE;
    }
}

static ir_ref rule_deposit(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *a = at(unit, inst->a), *b = at(unit, inst->b);
    u64 c;

    if ((b->op == IR_trunc && inst->imm == 0 && b->a == inst->a) ||
        (b->op == IR_extract && b->a == inst->a && b->imm == inst->imm))
        return inst->a;
    if (inst->imm == 0 && const_value(unit, inst->a, &c) && c == 0)
        return become(inst, IR_zext, inst->b, 0, 0);
    if (a->op == IR_deposit && a->imm == inst->imm && ir_typeof(unit, a->b) <= b->type) {
        inst->a = a->a;
        return CHANGED;
    }
    return IR_NONE;
}

static ir_ref rule_bitcast(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);

    if (in->type == inst->type)
        return inst->a;
    return in->op == IR_bitcast ? become(inst, IR_bitcast, in->a, 0, 0) : IR_NONE;
}

static ir_ref rule_vec(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *lo = at(unit, inst->a), *hi = at(unit, inst->b);

    return lo->op == IR_vlo && hi->op == IR_vhi && lo->a == hi->a ? lo->a : IR_NONE;
}

static ir_ref rule_half(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);

    if (in->op == IR_vzext && inst->op == IR_vhi)
        return become_const(inst, 0);
    if (in->op == IR_vzext && ir_typeof(unit, in->a) == IR_F64)
        return become(inst, IR_bitcast, in->a, 0, 0);
    if (in->op == IR_vmerge && inst->op == IR_vhi)
        return become(inst, IR_vhi, in->a, 0, 0);
    if (in->op != IR_vec)
        return IR_NONE;
    return inst->op == IR_vlo ? in->a : in->b;
}

static ir_ref both_halves(struct ir_unit *unit, struct ir_inst *inst, u64 half)
{
    ir_ref value = ir_const(unit, IR_I64, half);

    return become(inst, IR_vec, value, value, 0);
}

/* A lane less itself, and a lane compared with itself. */
static ir_ref rule_vector_nothing(struct ir_unit *unit, struct ir_inst *inst)
{
    return inst->a == inst->b ? both_halves(unit, inst, 0) : IR_NONE;
}

static ir_ref rule_vector_ones(struct ir_unit *unit, struct ir_inst *inst)
{
    return inst->a == inst->b ? both_halves(unit, inst, ~0ull) : IR_NONE;
}

static ir_ref rule_low(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);
    ir_ref low = in->op == IR_vzext ? in->a : in->op == IR_vmerge ? in->b : IR_NONE;

    return low && ir_typeof(unit, low) == inst->type ? low : IR_NONE;
}

static ir_ref rule_merge(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *a = at(unit, inst->a), *b = at(unit, inst->b);

    if (b->op == IR_vlow && b->a == inst->a)
        return inst->a;
    if (a->op == IR_vmerge && ir_typeof(unit, a->b) <= b->type) {
        inst->a = a->a;
        return CHANGED;
    }
    return IR_NONE;
}

/* A constant part of the address moves into the displacement, as long as hosts can encode it. */
static ir_ref rule_address(struct ir_unit *unit, struct ir_inst *inst)
{
    const struct ir_inst *in = at(unit, inst->a);
    u64 c;

    if (in->op != IR_add || !const_value(unit, in->b, &c) || (s64)c != (s32)c)
        return IR_NONE;
    if ((s64)(c + inst->imm) != (s32)(c + inst->imm))
        return IR_NONE;
    inst->a = in->a;
    inst->imm += c;
    return CHANGED;
}

/* goto_if, exit_if that never leave. */
static ir_ref rule_leave_if(struct ir_unit *unit, struct ir_inst *inst)
{
    u64 c;

    if (const_value(unit, inst->a, &c) && !c)
        inst->op = IR_NOP;
    return IR_NONE;
}

static rule *const rules[IR_OPS] = {
    [IR_add] = rule_add,
    [IR_sub] = rule_sub,
    [IR_mul] = rule_mul,
    [IR_and] = rule_and,
    [IR_or] = rule_or,
    [IR_xor] = rule_xor,
    [IR_neg] = rule_involution,
    [IR_bswap] = rule_involution,
    [IR_not] = rule_not,
    [IR_shl] = rule_shift,
    [IR_shr] = rule_shift,
    [IR_sar] = rule_shift,
    [IR_rol] = rule_shift,
    [IR_ror] = rule_shift,
    [IR_fshl] = rule_funnel,
    [IR_fshr] = rule_funnel,
    [IR_eq] = rule_equal,
    [IR_ne] = rule_equal,
    [IR_ult] = rule_less,
    [IR_ule] = rule_less,
    [IR_slt] = rule_less,
    [IR_sle] = rule_less,
    [IR_sel] = rule_sel,
    [IR_zext] = rule_zext,
    [IR_sext] = rule_sext,
    [IR_trunc] = rule_trunc,
    [IR_extract] = rule_extract,
    [IR_deposit] = rule_deposit,
    [IR_bitcast] = rule_bitcast,
    [IR_vec] = rule_vec,
    [IR_vlo] = rule_half,
    [IR_vhi] = rule_half,
    [IR_vlow] = rule_low,
    [IR_vmerge] = rule_merge,
    [IR_vxor] = rule_vector_nothing,
    [IR_vandn] = rule_vector_nothing,
    [IR_vsub8] = rule_vector_nothing,
    [IR_vsub16] = rule_vector_nothing,
    [IR_vsub32] = rule_vector_nothing,
    [IR_vsub64] = rule_vector_nothing,
    [IR_vcmpgt8] = rule_vector_nothing,
    [IR_vcmpgt16] = rule_vector_nothing,
    [IR_vcmpgt32] = rule_vector_nothing,
    [IR_vcmpgt64] = rule_vector_nothing,
    [IR_vcmpeq8] = rule_vector_ones,
    [IR_vcmpeq16] = rule_vector_ones,
    [IR_vcmpeq32] = rule_vector_ones,
    [IR_vcmpeq64] = rule_vector_ones,
    [IR_ld] = rule_address,
    [IR_st] = rule_address,
    [IR_acas] = rule_address,
    [IR_axchg] = rule_address,
    [IR_aadd] = rule_address,
    [IR_aand] = rule_address,
    [IR_aor] = rule_address,
    [IR_axor] = rule_address,
    [IR_goto_if] = rule_leave_if,
    [IR_exit_if] = rule_leave_if,
};

static bool fold(const struct ir_unit *unit, struct ir_inst *inst)
{
    u64 value[3] = {0};
    unsigned nargs = ir_op_shape[inst->op].nargs;

    if (nargs == 0 || nargs > 3)
        return false;
    for (unsigned k = 0; k < nargs; k++) {
        if (!const_value(unit, ir_operand(inst, k), &value[k]))
            return false;
    }
    if (!ir_eval(inst->op, inst->type, ir_typeof(unit, inst->a), ir_typeof(unit, inst->b), value[0],
                 value[1], value[2], inst->imm, &value[0]))
        return false;
    become_const(inst, value[0]);
    return true;
}

/* Constants to the right, else the older value first. */
static void order_operands(const struct ir_unit *unit, struct ir_inst *inst)
{
    bool a_const = ir_is_const(unit, inst->a), b_const = ir_is_const(unit, inst->b);

    if (a_const > b_const || (a_const == b_const && inst->a > inst->b)) {
        ir_ref a = inst->a;

        inst->a = inst->b;
        inst->b = a;
    }
}

ir_ref ir_simplify(struct ir_unit *unit, struct ir_inst *inst)
{
    for (;;) {
        ir_ref ref;

        if (inst->op == IR_const || fold(unit, inst))
            return IR_NONE;
        if ((ir_op_info[inst->op].flags & (IR_COMM | IR_ENV)) == IR_COMM)
            order_operands(unit, inst);
        if (!rules[inst->op])
            return IR_NONE;
        ref = rules[inst->op](unit, inst);
        if (ref != CHANGED)
            return ref;
    }
}
