/*
 * Floating point (RISC-V volume I, the F and D chapters). Arithmetic is the host's own when the
 * instruction's rounding mode is that of frm, which translated code runs in; else it is a helper on
 * integers. The IR's NaN results carry operands' payloads, RISC-V's are canonical.
 */
#include "guest/riscv/lift_fp.h"

#define BOX 0xffffffff00000000ull

/* Per format: IR types, and the helper of either. */
static const struct {
    enum ir_type type, bits;
    u64 canonical_nan, sign;
} formats[] = {
    [SOFTFP_S] = {IR_F32, IR_I32, 0x7fc00000, 0x80000000},
    [SOFTFP_D] = {IR_F64, IR_I64, 0x7ff8ull << 48, 1ull << 63},
};

#define FP_CALL(l, f, name, a, b, c, d)                                                            \
    ir_call((l)->u, formats[f].bits,                                                               \
            (f) == SOFTFP_S ? RISCV_HELPER_##name##_s : RISCV_HELPER_##name##_d, a, b, c, d)

static ir_ref constant(struct riscv_lift *l, enum softfp_format f, u64 bits)
{
    return ir_const(l->u, formats[f].bits, bits);
}

static ir_ref to_bits(struct riscv_lift *l, enum softfp_format f, ir_ref value)
{
    return ir_bitcast(l->u, formats[f].bits, value);
}

static ir_ref from_bits(struct riscv_lift *l, enum softfp_format f, ir_ref bits)
{
    return ir_bitcast(l->u, formats[f].type, bits);
}

/* The single in @reg; what is not boxed counts as the canonical NaN. */
static ir_ref get_single(struct riscv_lift *l, unsigned reg)
{
    ir_ref whole, boxed, low;

    if (l->single[reg])
        return l->single[reg];
    whole = ir_get(l->u, IR_I64, RISCV_SLOT(f[reg]));
    boxed = ir_eq(l->u, ir_extract(l->u, IR_I32, whole, 32), ir_const(l->u, IR_I32, 0xffffffff));
    low = ir_sel(l->u, boxed, ir_trunc(l->u, IR_I32, whole),
                 constant(l, SOFTFP_S, formats[SOFTFP_S].canonical_nan));
    l->single[reg] = from_bits(l, SOFTFP_S, low);
    return l->single[reg];
}

static ir_ref get(struct riscv_lift *l, enum softfp_format f, unsigned reg)
{
    return f == SOFTFP_S ? get_single(l, reg) : ir_get(l->u, IR_F64, RISCV_SLOT(f[reg]));
}

static ir_ref get_bits(struct riscv_lift *l, enum softfp_format f, unsigned reg)
{
    return to_bits(l, f, get(l, f, reg));
}

static void set_bits(struct riscv_lift *l, enum softfp_format f, ir_ref bits)
{
    unsigned rd = l->in.rd;

    if (f == SOFTFP_S) {
        l->single[rd] = from_bits(l, f, bits);
        bits = ir_or(l->u, ir_zext(l->u, IR_I64, bits), ir_const(l->u, IR_I64, BOX));
    } else {
        l->single[rd] = IR_NONE;
    }
    ir_put(l->u, RISCV_SLOT(f[rd]), bits);
}

static void set(struct riscv_lift *l, enum softfp_format f, ir_ref value)
{
    if (f == SOFTFP_S) {
        set_bits(l, f, to_bits(l, f, value));
        l->single[l->in.rd] = value;
    } else {
        l->single[l->in.rd] = IR_NONE;
        ir_put(l->u, RISCV_SLOT(f[l->in.rd]), value);
    }
}

/* A result of the IR's arithmetic. */
static void set_result(struct riscv_lift *l, enum softfp_format f, ir_ref value)
{
    ir_ref nan = from_bits(l, f, constant(l, f, formats[f].canonical_nan));

    set(l, f, ir_sel(l->u, ir_funord(l->u, value, value), nan, value));
}

static unsigned rounding(const struct riscv_lift *l)
{
    return l->in.rm == RISCV_RM_DYNAMIC ? l->frm : l->in.rm;
}

/* Does the host round as this instruction does? */
static bool native(const struct riscv_lift *l)
{
    return rounding(l) == l->frm && l->frm != RISCV_RMM;
}

static ir_ref rounding_operand(struct riscv_lift *l)
{
    return ir_const(l->u, IR_I64, rounding(l));
}

/* --- moves -------------------------------------------------------------------------------- */

void fp_load(struct riscv_lift *l, enum softfp_format f)
{
    set(l, f, ir_ld(l->u, formats[f].type, rs1(l), l->in.imm));
}

/* The low bits whatever they are (13.2: narrower stores transfer the lower bits). */
void fp_store(struct riscv_lift *l, enum softfp_format f)
{
    ir_ref value = ir_get(l->u, formats[f].type, RISCV_SLOT(f[l->in.rs2]));

    ir_st(l->u, rs1(l), l->in.imm, value);
}

void fp_move_to_x(struct riscv_lift *l, enum softfp_format f)
{
    ir_ref bits = ir_get(l->u, formats[f].bits, RISCV_SLOT(f[l->in.rs1]));

    set_rd(l, f == SOFTFP_S ? ir_sext(l->u, IR_I64, bits) : bits);
}

void fp_move_from_x(struct riscv_lift *l, enum softfp_format f)
{
    set_bits(l, f, f == SOFTFP_S ? riscv_xw(l, l->in.rs1) : rs1(l));
}

void fp_sign(struct riscv_lift *l, enum softfp_format f, enum fp_sign how)
{
    ir_ref a = get_bits(l, f, l->in.rs1), b = get_bits(l, f, l->in.rs2);
    ir_ref sign = constant(l, f, formats[f].sign);

    if (l->in.rs1 == l->in.rs2) { /* FMV, FNEG, FABS */
        if (how == FP_SIGN_COPY)
            set(l, f, get(l, f, l->in.rs1));
        else if (how == FP_SIGN_NEGATE)
            set_bits(l, f, ir_xor(l->u, a, sign));
        else
            set_bits(l, f, ir_and(l->u, a, ir_not(l->u, sign)));
        return;
    }
    if (how == FP_SIGN_XOR) {
        set_bits(l, f, ir_xor(l->u, a, ir_and(l->u, b, sign)));
        return;
    }
    if (how == FP_SIGN_NEGATE)
        b = ir_not(l->u, b);
    a = ir_and(l->u, a, ir_not(l->u, sign));
    set_bits(l, f, ir_or(l->u, a, ir_and(l->u, b, sign)));
}

/* --- arithmetic --------------------------------------------------------------------------- */

static void soft_arith(struct riscv_lift *l, enum softfp_format f, enum ir_op op)
{
    ir_ref a = get_bits(l, f, l->in.rs1), b = get_bits(l, f, l->in.rs2);
    ir_ref rm = rounding_operand(l);

    switch (op) {
    case IR_fmul:
        a = FP_CALL(l, f, fmul, a, b, rm, IR_NONE);
        break;
    case IR_fdiv:
        a = FP_CALL(l, f, fdiv, a, b, rm, IR_NONE);
        break;
    case IR_fsub:
        /* A NaN's sign does not matter, as no NaN passes through. */
        b = ir_xor(l->u, b, constant(l, f, formats[f].sign));
        /* fallthrough */
    default:
        a = FP_CALL(l, f, fadd, a, b, rm, IR_NONE);
        break;
    }
    set_bits(l, f, a);
}

void fp_arith(struct riscv_lift *l, enum softfp_format f, enum ir_op op)
{
    if (!native(l)) {
        soft_arith(l, f, op);
        return;
    }
    set_result(
        l, f,
        ir_emit(l->u, op, formats[f].type, get(l, f, l->in.rs1), get(l, f, l->in.rs2), 0, 0, 0));
}

void fp_sqrt(struct riscv_lift *l, enum softfp_format f)
{
    if (native(l))
        set_result(l, f, ir_fsqrt(l->u, get(l, f, l->in.rs1)));
    else
        set_bits(
            l, f,
            FP_CALL(l, f, fsqrt, get_bits(l, f, l->in.rs1), rounding_operand(l), IR_NONE, IR_NONE));
}

void fp_fma(struct riscv_lift *l, enum softfp_format f, bool negate_product, bool negate_addend)
{
    ir_ref a, b, c, sign = constant(l, f, formats[f].sign);

    if (native(l) && l->fma) {
        a = get(l, f, l->in.rs1);
        c = get(l, f, l->in.rs3);
        if (negate_product)
            a = from_bits(l, f, ir_xor(l->u, to_bits(l, f, a), sign));
        if (negate_addend)
            c = from_bits(l, f, ir_xor(l->u, to_bits(l, f, c), sign));
        set(l, f, ir_fma(l->u, a, get(l, f, l->in.rs2), c));
        return;
    }
    a = get_bits(l, f, l->in.rs1);
    b = get_bits(l, f, l->in.rs2);
    c = get_bits(l, f, l->in.rs3);
    if (negate_product)
        a = ir_xor(l->u, a, sign);
    if (negate_addend)
        c = ir_xor(l->u, c, sign);
    if (native(l))
        a = FP_CALL(l, f, fma_host, a, b, c, IR_NONE);
    else
        a = FP_CALL(l, f, fma, a, b, c, rounding_operand(l));
    set_bits(l, f, a);
}

/* --- comparisons -------------------------------------------------------------------------- */

/*
 * The IR's quiet comparisons raise the flag for signalling NaNs only while someone wants their
 * result. Adding -0 changes nothing and raises no other flag.
 */
static void signal_nan(struct riscv_lift *l, enum softfp_format f, ir_ref value)
{
    ir_fadd(l->u, value, from_bits(l, f, constant(l, f, formats[f].sign)));
}

void fp_minmax(struct riscv_lift *l, enum softfp_format f, bool max)
{
    struct ir_unit *u = l->u;
    ir_ref a = get(l, f, l->in.rs1), b = get(l, f, l->in.rs2);
    ir_ref abits = to_bits(l, f, a), bbits = to_bits(l, f, b), equal, r, nan;

    signal_nan(l, f, a);
    signal_nan(l, f, b);
    /* Equal values are the same bits or two zeros, of which the signs decide. */
    equal = max ? ir_and(u, abits, bbits) : ir_or(u, abits, bbits);
    r = ir_sel(u, ir_feq(u, a, b), equal, bbits);
    r = ir_sel(u, max ? ir_fltq(u, b, a) : ir_fltq(u, a, b), abits, r);
    r = ir_sel(u, ir_funord(u, b, b), abits, r);
    nan = ir_and(u, ir_funord(u, a, a), ir_funord(u, b, b));
    set_bits(l, f, ir_sel(u, nan, constant(l, f, formats[f].canonical_nan), r));
}

void fp_compare(struct riscv_lift *l, enum softfp_format f, enum ir_op op)
{
    ir_ref a = get(l, f, l->in.rs1), b = get(l, f, l->in.rs2);

    if (op == IR_feq) {
        signal_nan(l, f, a);
        signal_nan(l, f, b);
    }
    set_rd(l, ir_zext(l->u, IR_I64, ir_emit(l->u, op, IR_I1, a, b, 0, 0, 0)));
}

void fp_class(struct riscv_lift *l, enum softfp_format f)
{
    ir_ref result = FP_CALL(l, f, fclass, get_bits(l, f, l->in.rs1), IR_NONE, IR_NONE, IR_NONE);

    set_rd(l, f == SOFTFP_S ? ir_zext(l->u, IR_I64, result) : result);
}

/* --- conversions -------------------------------------------------------------------------- */

static ir_ref widened(struct riscv_lift *l, enum softfp_format f, ir_ref bits)
{
    return f == SOFTFP_S ? ir_zext(l->u, IR_I64, bits) : bits;
}

/*
 * The IR answers the least integer for all that is invalid; RISC-V the greatest for what is too
 * large and for NaNs.
 */
static ir_ref saturate(struct riscv_lift *l, enum softfp_format f, ir_ref value, ir_ref result)
{
    struct ir_unit *u = l->u;
    enum ir_type type = ir_typeof(u, result);
    u64 least = type == IR_I32 ? 1ull << 31 : 1ull << 63;
    ir_ref positive = ir_eq(u, ir_and(u, to_bits(l, f, value), constant(l, f, formats[f].sign)),
                            constant(l, f, 0));
    ir_ref invalid = ir_eq(u, result, ir_const(u, type, least));

    positive = ir_or(u, positive, ir_funord(u, value, value));
    return ir_sel(u, ir_and(u, invalid, positive), ir_const(u, type, least - 1), result);
}

void fp_to_int(struct riscv_lift *l, enum softfp_format f, enum softfp_int how)
{
    enum ir_type type = how == SOFTFP_W ? IR_I32 : IR_I64;
    ir_ref value = get(l, f, l->in.rs1), result, bits;
    bool to_zero = rounding(l) == RISCV_RTZ;

    if (!(how == SOFTFP_W || how == SOFTFP_L) || !(native(l) || to_zero)) {
        bits = widened(l, f, to_bits(l, f, value));
        set_rd(l, ir_call(l->u, IR_I64, f == SOFTFP_S ? RISCV_HELPER_from_s : RISCV_HELPER_from_d,
                          bits, ir_const(l->u, IR_I64, how), rounding_operand(l), IR_NONE));
        return;
    }
    result = to_zero ? ir_fcvtzs(l->u, type, value) : ir_fcvts(l->u, type, value);
    result = saturate(l, f, value, result);
    set_rd(l, type == IR_I32 ? ir_sext(l->u, IR_I64, result) : result);
}

/* No rounding takes place: the format holds every such integer. */
static bool exact(enum softfp_format f, enum softfp_int how)
{
    return f == SOFTFP_D && (how == SOFTFP_W || how == SOFTFP_WU);
}

void fp_from_int(struct riscv_lift *l, enum softfp_format f, enum softfp_int how)
{
    struct ir_unit *u = l->u;
    enum ir_type type = formats[f].type;
    ir_ref value = rs1(l), half, large, result;

    if (!native(l) && !exact(f, how)) {
        set_bits(l, f,
                 ir_call(u, formats[f].bits, f == SOFTFP_S ? RISCV_HELPER_to_s : RISCV_HELPER_to_d,
                         value, ir_const(u, IR_I64, how), rounding_operand(l), IR_NONE));
        return;
    }
    if (how == SOFTFP_W) {
        set(l, f, ir_scvtf(u, type, ir_trunc(u, IR_I32, value)));
    } else if (how == SOFTFP_WU) {
        set(l, f, ir_scvtf(u, type, ir_zext(u, IR_I64, ir_trunc(u, IR_I32, value))));
    } else if (how == SOFTFP_L) {
        set(l, f, ir_scvtf(u, type, value));
    } else {
        /* Beyond the signed range: half of it, the bit shifted out kept for rounding, doubled. */
        half = ir_or(u, ir_shr(u, value, ir_const(u, IR_I8, 1)),
                     ir_and(u, value, ir_const(u, IR_I64, 1)));
        large = ir_slt(u, value, ir_const(u, IR_I64, 0));
        result = ir_scvtf(u, type, ir_sel(u, large, half, value));
        set(l, f, ir_sel(u, large, ir_fadd(u, result, result), result));
    }
}

void fp_convert(struct riscv_lift *l, enum softfp_format to, enum softfp_format from)
{
    ir_ref value = get(l, from, l->in.rs1);

    if (to == SOFTFP_D || native(l))
        set_result(l, to, ir_fcvt(l->u, formats[to].type, value));
    else
        set_bits(l, to,
                 LIFT_CALL(l, IR_I32, fcvt_s_d, to_bits(l, from, value), rounding_operand(l),
                           IR_NONE, IR_NONE));
}
