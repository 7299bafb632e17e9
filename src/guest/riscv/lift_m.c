/* M: multiplication and division (RISC-V volume I, the M chapter). */
#include "guest/riscv/lift.h"

LIFT(mul)
{
    set_rd(l, ir_mul(l->u, rs1(l), rs2(l)));
}

LIFT(mulh)
{
    set_rd(l, ir_smulh(l->u, rs1(l), rs2(l)));
}

LIFT(mulhu)
{
    set_rd(l, ir_umulh(l->u, rs1(l), rs2(l)));
}

/* A negative first operand was taken for 2^64 more than it is. */
LIFT(mulhsu)
{
    ir_ref a = rs1(l), b = rs2(l);
    ir_ref sign = ir_sar(l->u, a, ir_const(l->u, IR_I8, 63));

    set_rd(l, ir_sub(l->u, ir_umulh(l->u, a, b), ir_and(l->u, sign, b)));
}

LIFT(mulw)
{
    set_rdw(l, ir_mul(l->u, riscv_xw(l, l->in.rs1), riscv_xw(l, l->in.rs2)));
}

/* Division by 0 gives ones, and the dividend as remainder; the quotient that does not fit wraps.
 * For those the IR's division gets the divisor 1. */
struct division {
    ir_ref a, b;
    ir_ref by_zero; /* i1 */
    ir_ref divisor;
};

static struct division begin(struct riscv_lift *l, enum ir_type type, bool is_signed)
{
    struct division d;
    ir_ref odd, one = ir_const(l->u, type, 1);

    d.a = type == IR_I64 ? rs1(l) : riscv_xw(l, l->in.rs1);
    d.b = type == IR_I64 ? rs2(l) : riscv_xw(l, l->in.rs2);
    odd = d.by_zero = ir_eq(l->u, d.b, ir_const(l->u, type, 0));
    if (is_signed) {
        u64 least = type == IR_I64 ? 1ull << 63 : 1ull << 31;
        u64 ones = type == IR_I64 ? ~0ull : 0xffffffff;

        odd = ir_or(l->u, odd,
                    ir_and(l->u, ir_eq(l->u, d.a, ir_const(l->u, type, least)),
                           ir_eq(l->u, d.b, ir_const(l->u, type, ones))));
    }
    d.divisor = ir_sel(l->u, odd, one, d.b);
    return d;
}

static void quotient(struct riscv_lift *l, enum ir_type type, enum ir_op op)
{
    struct division d = begin(l, type, op == IR_sdiv);
    ir_ref q = ir_emit(l->u, op, type, d.a, d.divisor, 0, 0, 0);

    q = ir_sel(l->u, d.by_zero, ir_const(l->u, type, type == IR_I64 ? ~0ull : 0xffffffff), q);
    set_rd(l, type == IR_I64 ? q : ir_sext(l->u, IR_I64, q));
}

static void remainder_of(struct riscv_lift *l, enum ir_type type, enum ir_op op)
{
    struct division d = begin(l, type, op == IR_srem);
    ir_ref r = ir_emit(l->u, op, type, d.a, d.divisor, 0, 0, 0);

    r = ir_sel(l->u, d.by_zero, d.a, r);
    set_rd(l, type == IR_I64 ? r : ir_sext(l->u, IR_I64, r));
}

LIFT(div)
{
    quotient(l, IR_I64, IR_sdiv);
}

LIFT(divu)
{
    quotient(l, IR_I64, IR_udiv);
}

LIFT(rem)
{
    remainder_of(l, IR_I64, IR_srem);
}

LIFT(remu)
{
    remainder_of(l, IR_I64, IR_urem);
}

LIFT(divw)
{
    quotient(l, IR_I32, IR_sdiv);
}

LIFT(divuw)
{
    quotient(l, IR_I32, IR_udiv);
}

LIFT(remw)
{
    remainder_of(l, IR_I32, IR_srem);
}

LIFT(remuw)
{
    remainder_of(l, IR_I32, IR_urem);
}
