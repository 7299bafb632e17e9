/* SSE: floating-point arithmetic, comparison and conversion. */
#include "guest/x86/cc.h"
#include "guest/x86/sse.h"

/* --- packed ----------------------------------------------------------------------------- */

/* The lanes in which @op may underflow, void if it cannot. */
static enum ir_type underflows(enum ir_op op)
{
    switch (op) {
    case IR_vfadd32:
    case IR_vfsub32:
    case IR_vfmul32:
    case IR_vfdiv32:
    case IR_vfaddsub32:
    case IR_vfhadd32:
    case IR_vfhsub32:
    case IR_vcvtf64f32:
        return IR_F32;
    case IR_vfadd64:
    case IR_vfsub64:
    case IR_vfmul64:
    case IR_vfdiv64:
    case IR_vfaddsub64:
    case IR_vfhadd64:
    case IR_vfhsub64:
        return IR_F64;
    default:
        return IR_VOID;
    }
}

static void packed(struct x86_lift *l, enum ir_op op, bool unary, u64 imm)
{
    ir_ref b = sse_read(l, 1), r;

    sse_fp_begin(l);
    r = unary ? sse_op1(l, op, b, imm) : sse_op2(l, op, sse_register(l, 0), b, imm);
    if (underflows(op))
        sse_fp_check_result(l, r, underflows(op));
    else
        sse_fp_check(l);
    sse_write(l, 0, r);
}

#define PACKED(name, op)                                                                           \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        packed(l, IR_##op, false, 0);                                                              \
    }
#define PACKED1(name, op)                                                                          \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        packed(l, IR_##op, true, 0);                                                               \
    }
PACKED(addps, vfadd32)
PACKED(addpd, vfadd64)
PACKED(subps, vfsub32)
PACKED(subpd, vfsub64)
PACKED(mulps, vfmul32)
PACKED(mulpd, vfmul64)
PACKED(divps, vfdiv32)
PACKED(divpd, vfdiv64)
PACKED(minps, vfmin32)
PACKED(minpd, vfmin64)
PACKED(maxps, vfmax32)
PACKED(maxpd, vfmax64)
PACKED(addsubps, vfaddsub32)
PACKED(addsubpd, vfaddsub64)
PACKED(haddps, vfhadd32)
PACKED(haddpd, vfhadd64)
PACKED(hsubps, vfhsub32)
PACKED(hsubpd, vfhsub64)
PACKED1(sqrtps, vfsqrt32)
PACKED1(sqrtpd, vfsqrt64)
PACKED1(cvtdq2ps, vcvts32f32)
PACKED1(cvtps2dq, vcvtf32s32)
PACKED1(cvttps2dq, vcvtzf32s32)
PACKED1(cvtdq2pd, vcvts32f64)
PACKED1(cvtpd2dq, vcvtf64s32)
PACKED1(cvttpd2dq, vcvtzf64s32)
PACKED1(cvtps2pd, vcvtf32f64)
PACKED1(cvtpd2ps, vcvtf64f32)

void lift_cmpps(struct x86_lift *l)
{
    packed(l, IR_vfcmp32, false, sse_imm(l) & 7);
}

void lift_cmppd(struct x86_lift *l)
{
    packed(l, IR_vfcmp64, false, sse_imm(l) & 7);
}

/* SDM vol. 2 ROUNDPS: bit 2 of the immediate chooses MXCSR's mode, bit 3 suppresses inexact. */
static u64 rounding(const struct x86_lift *l)
{
    u64 imm = sse_imm(l);

    return (imm & 4 ? 4 : imm & 3) | (imm & 8);
}

void lift_roundps(struct x86_lift *l)
{
    packed(l, IR_vfround32, true, rounding(l));
}

void lift_roundpd(struct x86_lift *l)
{
    packed(l, IR_vfround64, true, rounding(l));
}

/* --- scalar: in the low lane of the whole register, so that it stays in one of the host's ----- */

/* @b is the second operand or what is converted. @lanes: type of a result that may underflow, or
 * void. */
static void scalar(struct x86_lift *l, enum ir_op op, ir_ref b, u64 imm, enum ir_type lanes)
{
    ir_ref r;

    sse_fp_begin(l);
    r = sse_op2(l, op, sse_register(l, 0), b, imm);
    if (lanes)
        sse_fp_check_result(l, ir_vzext(l->u, ir_vlow(l->u, lanes, r)), lanes);
    else
        sse_fp_check(l);
    sse_write(l, 0, r);
}

#define SCALAR(name, op, type, lanes)                                                              \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        scalar(l, IR_##op, sse_read_scalar(l, 1, IR_##type), 0, IR_##lanes);                       \
    }
SCALAR(addss, vfaddlo32, F32, F32)
SCALAR(addsd, vfaddlo64, F64, F64)
SCALAR(subss, vfsublo32, F32, F32)
SCALAR(subsd, vfsublo64, F64, F64)
SCALAR(mulss, vfmullo32, F32, F32)
SCALAR(mulsd, vfmullo64, F64, F64)
SCALAR(divss, vfdivlo32, F32, F32)
SCALAR(divsd, vfdivlo64, F64, F64)
SCALAR(minss, vfminlo32, F32, VOID)
SCALAR(minsd, vfminlo64, F64, VOID)
SCALAR(maxss, vfmaxlo32, F32, VOID)
SCALAR(maxsd, vfmaxlo64, F64, VOID)
SCALAR(sqrtss, vfsqrtlo32, F32, VOID)
SCALAR(sqrtsd, vfsqrtlo64, F64, VOID)
SCALAR(cvtss2sd, vcvtlof32f64, F32, VOID)
SCALAR(cvtsd2ss, vcvtlof64f32, F64, F32)

void lift_roundss(struct x86_lift *l)
{
    scalar(l, IR_vfroundlo32, sse_read_scalar(l, 1, IR_F32), rounding(l), IR_VOID);
}

void lift_roundsd(struct x86_lift *l)
{
    scalar(l, IR_vfroundlo64, sse_read_scalar(l, 1, IR_F64), rounding(l), IR_VOID);
}

/* CMPSS, CMPSD: predicates as in SDM vol. 2 table 3-7, the low lane becomes ones or zeros. */
void lift_cmpss(struct x86_lift *l)
{
    scalar(l, IR_vfcmplo32, sse_read_scalar(l, 1, IR_F32), sse_imm(l) & 7, IR_VOID);
}

void lift_cmpsd(struct x86_lift *l)
{
    scalar(l, IR_vfcmplo64, sse_read_scalar(l, 1, IR_F64), sse_imm(l) & 7, IR_VOID);
}

void lift_cvtsi2ss(struct x86_lift *l)
{
    bool wide = l->in->op[1].size == 8;

    scalar(l, wide ? IR_vcvtlos64f32 : IR_vcvtlos32f32, lift_read(l, 1), 0, IR_VOID);
}

void lift_cvtsi2sd(struct x86_lift *l)
{
    bool wide = l->in->op[1].size == 8;

    scalar(l, wide ? IR_vcvtlos64f64 : IR_vcvtlos32f64, lift_read(l, 1), 0, IR_VOID);
}

/* UCOMISD: ZF PF CF = 111 unordered, 000 greater, 001 less, 100 equal; COMISD signals for quiet
 * NaNs too. Exceptions count even if nobody wants the flags. */
static void compare_flags(struct x86_lift *l, enum ir_type type, bool signalling)
{
    ir_ref b = sse_read_scalar(l, 1, type);
    ir_ref a = ir_vlow(l->u, type, sse_register(l, 0)), flags;

    sse_fp_begin(l);
    flags = ir_emit(l->u, signalling ? IR_fflags : IR_fflagsq, IR_I64, a, b, 0, 0, 0);
    sse_fp_check(l);
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

void lift_ucomiss(struct x86_lift *l)
{
    compare_flags(l, IR_F32, false);
}

void lift_ucomisd(struct x86_lift *l)
{
    compare_flags(l, IR_F64, false);
}

void lift_comiss(struct x86_lift *l)
{
    compare_flags(l, IR_F32, true);
}

void lift_comisd(struct x86_lift *l)
{
    compare_flags(l, IR_F64, true);
}

/* --- to integers ------------------------------------------------------------------------------ */

static void to_int(struct x86_lift *l, enum ir_op op, enum ir_type from)
{
    ir_ref v = sse_read_scalar(l, 1, from);

    sse_fp_begin(l);
    v = ir_emit(l->u, op, lift_int_type(l->in->op[0].size), v, 0, 0, 0, 0);
    sse_fp_check(l);
    lift_write(l, 0, v);
}

void lift_cvtss2si(struct x86_lift *l)
{
    to_int(l, IR_fcvts, IR_F32);
}

void lift_cvtsd2si(struct x86_lift *l)
{
    to_int(l, IR_fcvts, IR_F64);
}

void lift_cvttss2si(struct x86_lift *l)
{
    to_int(l, IR_fcvtzs, IR_F32);
}

void lift_cvttsd2si(struct x86_lift *l)
{
    to_int(l, IR_fcvtzs, IR_F64);
}

/* --- approximations: SDM vol. 2 RCPPS promises a relative error of 1.5 * 2^-12 ---------------- */

static ir_ref approximate(struct x86_lift *l, u32 helper, ir_ref bits)
{
    ir_ref r =
        ir_call(l->u, IR_I64, helper, ir_zext(l->u, IR_I64, bits), IR_NONE, IR_NONE, IR_NONE);

    return ir_trunc(l->u, IR_I32, r);
}

static void approximate_all(struct x86_lift *l, u32 helper)
{
    ir_ref v = sse_read(l, 1), r = v;

    for (unsigned i = 0; i < 4; i++) {
        ir_ref lane = ir_emit(l->u, IR_vget32, IR_I32, v, 0, 0, 0, i);

        r = sse_op2(l, IR_vset32, r, approximate(l, helper, lane), i);
    }
    sse_write(l, 0, r);
}

void lift_rcpps(struct x86_lift *l)
{
    approximate_all(l, X86_HELPER_rcp);
}

void lift_rsqrtps(struct x86_lift *l)
{
    approximate_all(l, X86_HELPER_rsqrt);
}

static void approximate_one(struct x86_lift *l, u32 helper)
{
    ir_ref bits = ir_bitcast(l->u, IR_I32, sse_read_scalar(l, 1, IR_F32));

    sse_write(l, 0, sse_op2(l, IR_vset32, sse_register(l, 0), approximate(l, helper, bits), 0));
}

void lift_rcpss(struct x86_lift *l)
{
    approximate_one(l, X86_HELPER_rcp);
}

void lift_rsqrtss(struct x86_lift *l)
{
    approximate_one(l, X86_HELPER_rsqrt);
}

/* One step of a dot product, each with its own exceptions. */
static ir_ref dot_step(struct x86_lift *l, enum ir_op op, ir_ref a, ir_ref b)
{
    ir_ref r;

    sse_fp_begin(l);
    r = sse_op2(l, op, a, b, 0);
    sse_fp_check_result(l, r, underflows(op));
    return r;
}

/* Ones in the lanes of @bytes that the low bits of @which choose. */
static ir_ref lane_mask(struct x86_lift *l, u64 which, unsigned bytes)
{
    u64 half[2] = {0};

    for (unsigned i = 0; i < 16 / bytes; i++)
        if (which >> i & 1)
            half[i * bytes / 8] |= mask_low(8 * bytes) << (i * bytes * 8 & 63);
    return ir_vec(l->u, ir_const(l->u, IR_I64, half[0]), ir_const(l->u, IR_I64, half[1]));
}

/* SDM vol. 2 DPPS: products, sums of pairs, the sum of those, each rounded. Lanes left out are
 * zeros from the start and raise nothing. */
static void dot_product(struct x86_lift *l, unsigned bytes)
{
    u64 imm = sse_imm(l);
    ir_ref which = lane_mask(l, imm >> 4, bytes);
    ir_ref b = sse_op2(l, IR_vand, sse_read(l, 1), which, 0);
    ir_ref a = sse_op2(l, IR_vand, sse_register(l, 0), which, 0);
    ir_ref r = dot_step(l, bytes == 4 ? IR_vfmul32 : IR_vfmul64, a, b);

    if (bytes == 4)
        r = dot_step(l, IR_vfhadd32, r, r);
    r = dot_step(l, bytes == 4 ? IR_vfhadd32 : IR_vfhadd64, r, r);
    sse_write(l, 0, sse_op2(l, IR_vand, r, lane_mask(l, imm, bytes), 0));
}

void lift_dpps(struct x86_lift *l)
{
    dot_product(l, 4);
}

void lift_dppd(struct x86_lift *l)
{
    dot_product(l, 8);
}
