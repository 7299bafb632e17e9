/* RV32I and RV64I (RISC-V volume I, chapters 2 and 4) and Zifencei (5). */
#include "guest/riscv/lift.h"

LIFT(lui)
{
    set_rd(l, imm64(l));
}

LIFT(auipc)
{
    set_rd(l, riscv_pc(l, l->in.imm));
}

/* --- transfers ---------------------------------------------------------------------------- */

static ir_ref next_pc(struct riscv_lift *l)
{
    return riscv_pc(l, l->in.length);
}

LIFT(jal)
{
    set_rd(l, next_pc(l));
    ir_goto(l->u, l->offset + l->in.imm);
    l->ended = true;
}

LIFT(jalr)
{
    ir_ref to = ir_and(l->u, ir_add(l->u, rs1(l), imm64(l)), ir_const(l->u, IR_I64, ~1ull));

    set_rd(l, next_pc(l));
    ir_goto_ind(l->u, to);
    l->ended = true;
}

static void branch(struct riscv_lift *l, ir_ref taken)
{
    ir_goto_if(l->u, taken, l->offset + l->in.imm);
    ir_goto(l->u, l->next);
    l->ended = true;
}

LIFT(beq)
{
    branch(l, ir_eq(l->u, rs1(l), rs2(l)));
}

LIFT(bne)
{
    branch(l, ir_ne(l->u, rs1(l), rs2(l)));
}

LIFT(blt)
{
    branch(l, ir_slt(l->u, rs1(l), rs2(l)));
}

LIFT(bge)
{
    branch(l, ir_sle(l->u, rs2(l), rs1(l)));
}

LIFT(bltu)
{
    branch(l, ir_ult(l->u, rs1(l), rs2(l)));
}

LIFT(bgeu)
{
    branch(l, ir_ule(l->u, rs2(l), rs1(l)));
}

/* --- loads and stores --------------------------------------------------------------------- */

static void load_signed(struct riscv_lift *l, enum ir_type type)
{
    set_rd(l, ir_sext(l->u, IR_I64, ir_ld(l->u, type, rs1(l), l->in.imm)));
}

static void load_unsigned(struct riscv_lift *l, enum ir_type type)
{
    set_rd(l, ir_zext(l->u, IR_I64, ir_ld(l->u, type, rs1(l), l->in.imm)));
}

static void store(struct riscv_lift *l, enum ir_type type)
{
    ir_st(l->u, rs1(l), l->in.imm, ir_trunc(l->u, type, rs2(l)));
}

LIFT(lb)
{
    load_signed(l, IR_I8);
}

LIFT(lh)
{
    load_signed(l, IR_I16);
}

LIFT(lw)
{
    load_signed(l, IR_I32);
}

LIFT(ld)
{
    set_rd(l, ir_ld(l->u, IR_I64, rs1(l), l->in.imm));
}

LIFT(lbu)
{
    load_unsigned(l, IR_I8);
}

LIFT(lhu)
{
    load_unsigned(l, IR_I16);
}

LIFT(lwu)
{
    load_unsigned(l, IR_I32);
}

LIFT(sb)
{
    store(l, IR_I8);
}

LIFT(sh)
{
    store(l, IR_I16);
}

LIFT(sw)
{
    store(l, IR_I32);
}

LIFT(sd)
{
    ir_st(l->u, rs1(l), l->in.imm, rs2(l));
}

/* --- arithmetic --------------------------------------------------------------------------- */

/* A shift's count; the IR takes it modulo the width, as the manual does. */
static ir_ref count(struct riscv_lift *l)
{
    return ir_trunc(l->u, IR_I8, rs2(l));
}

static ir_ref imm_count(struct riscv_lift *l)
{
    return ir_const(l->u, IR_I8, (u64)l->in.imm);
}

static ir_ref rs1w(struct riscv_lift *l)
{
    return riscv_xw(l, l->in.rs1);
}

static ir_ref rs2w(struct riscv_lift *l)
{
    return riscv_xw(l, l->in.rs2);
}

#define LIFT_EXPR(name, set, expr)                                                                 \
    LIFT(name)                                                                                     \
    {                                                                                              \
        set(l, expr);                                                                              \
    }
#define RD(name, op, a, b) LIFT_EXPR(name, set_rd, ir_##op(l->u, a, b))
#define RDW(name, op, a, b) LIFT_EXPR(name, set_rdw, ir_##op(l->u, a, b))

RD(addi, add, rs1(l), imm64(l))
RD(xori, xor, rs1(l), imm64(l))
RD(ori, or, rs1(l), imm64(l))
RD(andi, and, rs1(l), imm64(l))
RD(slli, shl, rs1(l), imm_count(l))
RD(srli, shr, rs1(l), imm_count(l))
RD(srai, sar, rs1(l), imm_count(l))
RD(add, add, rs1(l), rs2(l))
RD(sub, sub, rs1(l), rs2(l))
RD(xor, xor, rs1(l), rs2(l))
RD(or, or, rs1(l), rs2(l))
RD(and, and, rs1(l), rs2(l))
RD(sll, shl, rs1(l), count(l))
RD(srl, shr, rs1(l), count(l))
RD(sra, sar, rs1(l), count(l))

RDW(addiw, add, rs1w(l), ir_const(l->u, IR_I32, (u32)l->in.imm))
RDW(slliw, shl, rs1w(l), imm_count(l))
RDW(srliw, shr, rs1w(l), imm_count(l))
RDW(sraiw, sar, rs1w(l), imm_count(l))
RDW(addw, add, rs1w(l), rs2w(l))
RDW(subw, sub, rs1w(l), rs2w(l))
RDW(sllw, shl, rs1w(l), count(l))
RDW(srlw, shr, rs1w(l), count(l))
RDW(sraw, sar, rs1w(l), count(l))

static void set_less(struct riscv_lift *l, ir_ref less)
{
    set_rd(l, ir_zext(l->u, IR_I64, less));
}

LIFT(slt)
{
    set_less(l, ir_slt(l->u, rs1(l), rs2(l)));
}

LIFT(sltu)
{
    set_less(l, ir_ult(l->u, rs1(l), rs2(l)));
}

LIFT(slti)
{
    set_less(l, ir_slt(l->u, rs1(l), imm64(l)));
}

LIFT(sltiu)
{
    set_less(l, ir_ult(l->u, rs1(l), imm64(l)));
}

/* --- order, environment ------------------------------------------------------------------- */

/*
 * Loads and stores of the IR keep the order of total store ordering, in which only a later load
 * passes an earlier store: the other orders need no fence, and neither does FENCE.TSO (fm = 8).
 */
LIFT(fence)
{
    enum { FM_TSO = 8, OUTPUT_OR_WRITE = 5, INPUT_OR_READ = 10 };
    unsigned predecessor = l->in.imm >> 4 & 15, successor = l->in.imm & 15;

    if ((l->in.imm >> 8 & 15) == FM_TSO)
        return;
    if (predecessor & OUTPUT_OR_WRITE && successor & INPUT_OR_READ)
        ir_fence(l->u);
}

/* The translator sees writes to code by itself; what it needs is a new block. */
LIFT(fence_i)
{
    (void)l;
}

LIFT(ecall)
{
    riscv_leave(l, RISCV_EXIT_ECALL);
}

LIFT(ebreak)
{
    riscv_leave(l, RISCV_EXIT_EBREAK);
}
