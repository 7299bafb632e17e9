/* Zba, Zbb, Zbs: bit manipulation (RISC-V volume I, the B chapter). */
#include "guest/riscv/lift.h"

static ir_ref rs1w(struct riscv_lift *l)
{
    return riscv_xw(l, l->in.rs1);
}

static ir_ref count(struct riscv_lift *l)
{
    return ir_trunc(l->u, IR_I8, rs2(l));
}

static ir_ref imm_count(struct riscv_lift *l)
{
    return ir_const(l->u, IR_I8, (u64)l->in.imm);
}

/* --- Zba: addresses ----------------------------------------------------------------------- */

static void shift_add(struct riscv_lift *l, ir_ref a, unsigned shift)
{
    set_rd(l, ir_add(l->u, ir_shl(l->u, a, ir_const(l->u, IR_I8, shift)), rs2(l)));
}

static ir_ref rs1_unsigned_word(struct riscv_lift *l)
{
    return ir_zext(l->u, IR_I64, rs1w(l));
}

#define SHIFT_ADD(name, operand, shift)                                                            \
    LIFT(name)                                                                                     \
    {                                                                                              \
        shift_add(l, operand(l), shift);                                                           \
    }
SHIFT_ADD(sh1add, rs1, 1)
SHIFT_ADD(sh2add, rs1, 2)
SHIFT_ADD(sh3add, rs1, 3)
SHIFT_ADD(add_uw, rs1_unsigned_word, 0)
SHIFT_ADD(sh1add_uw, rs1_unsigned_word, 1)
SHIFT_ADD(sh2add_uw, rs1_unsigned_word, 2)
SHIFT_ADD(sh3add_uw, rs1_unsigned_word, 3)

LIFT(slli_uw)
{
    set_rd(l, ir_shl(l->u, rs1_unsigned_word(l), imm_count(l)));
}

/* --- Zbb: basics -------------------------------------------------------------------------- */

#define RD(name, expr)                                                                             \
    LIFT(name)                                                                                     \
    {                                                                                              \
        struct ir_unit *u = l->u;                                                                  \
                                                                                                   \
        set_rd(l, expr);                                                                           \
    }
#define RDW(name, expr)                                                                            \
    LIFT(name)                                                                                     \
    {                                                                                              \
        struct ir_unit *u = l->u;                                                                  \
                                                                                                   \
        set_rdw(l, expr);                                                                          \
    }

RD(andn, ir_and(u, rs1(l), ir_not(u, rs2(l))))
RD(orn, ir_or(u, rs1(l), ir_not(u, rs2(l))))
RD(xnor, ir_not(u, ir_xor(u, rs1(l), rs2(l))))
RD(clz, ir_clz(u, rs1(l)))
RDW(clzw, ir_clz(u, rs1w(l)))
RD(ctz, ir_ctz(u, rs1(l)))
RDW(ctzw, ir_ctz(u, rs1w(l)))
RD(cpop, ir_popcnt(u, rs1(l)))
RDW(cpopw, ir_popcnt(u, rs1w(l)))
RD(max, ir_sel(u, ir_slt(u, rs1(l), rs2(l)), rs2(l), rs1(l)))
RD(maxu, ir_sel(u, ir_ult(u, rs1(l), rs2(l)), rs2(l), rs1(l)))
RD(min, ir_sel(u, ir_slt(u, rs1(l), rs2(l)), rs1(l), rs2(l)))
RD(minu, ir_sel(u, ir_ult(u, rs1(l), rs2(l)), rs1(l), rs2(l)))
RD(sext_b, ir_sext(u, IR_I64, ir_trunc(u, IR_I8, rs1(l))))
RD(sext_h, ir_sext(u, IR_I64, ir_trunc(u, IR_I16, rs1(l))))
RD(zext_h, ir_zext(u, IR_I64, ir_trunc(u, IR_I16, rs1(l))))
RD(rol, ir_rol(u, rs1(l), count(l)))
RDW(rolw, ir_rol(u, rs1w(l), count(l)))
RD(ror, ir_ror(u, rs1(l), count(l)))
RDW(rorw, ir_ror(u, rs1w(l), count(l)))
RD(rori, ir_ror(u, rs1(l), imm_count(l)))
RDW(roriw, ir_ror(u, rs1w(l), imm_count(l)))
RD(rev8, ir_bswap(u, rs1(l)))

/* Ones for each byte that is not 0: its low seven bits carry into bit 7 when added to 7fh, and what
 * is in bit 7 then is spread over the byte. */
LIFT(orc_b)
{
    struct ir_unit *u = l->u;
    ir_ref value = rs1(l), low = ir_const(u, IR_I64, 0x7f7f7f7f7f7f7f7f), top;

    top = ir_or(u, ir_add(u, ir_and(u, value, low), low), value);
    top = ir_shr(u, top, ir_const(u, IR_I8, 7));
    top = ir_and(u, top, ir_const(u, IR_I64, 0x0101010101010101));
    set_rd(l, ir_mul(u, top, ir_const(u, IR_I64, 0xff)));
}

/* --- Zbs: single bits --------------------------------------------------------------------- */

static ir_ref bit(struct riscv_lift *l, ir_ref number)
{
    return ir_shl(l->u, ir_const(l->u, IR_I64, 1), number);
}

static ir_ref extracted(struct riscv_lift *l, ir_ref number)
{
    return ir_and(l->u, ir_shr(l->u, rs1(l), number), ir_const(l->u, IR_I64, 1));
}

RD(bclr, ir_and(u, rs1(l), ir_not(u, bit(l, count(l)))))
RD(bclri, ir_and(u, rs1(l), ir_not(u, bit(l, imm_count(l)))))
RD(binv, ir_xor(u, rs1(l), bit(l, count(l))))
RD(binvi, ir_xor(u, rs1(l), bit(l, imm_count(l))))
RD(bset, ir_or(u, rs1(l), bit(l, count(l))))
RD(bseti, ir_or(u, rs1(l), bit(l, imm_count(l))))
LIFT(bext)
{
    set_rd(l, extracted(l, count(l)));
}

LIFT(bexti)
{
    set_rd(l, extracted(l, imm_count(l)));
}
