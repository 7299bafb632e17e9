/*
 * What lift functions work with. LIFT(addi) { ... } turns one decoded instruction into IR. The
 * driver has put pc at the instruction, so that faults are precise, and goes on to the next one
 * unless the function ended the block. Nothing is written before the last thing that can fault.
 */
#ifndef TRIODE_RISCV_LIFT_H
#define TRIODE_RISCV_LIFT_H

#include "guest/riscv/insn.h"
#include "guest/riscv/riscv.h"

struct riscv_lift {
    struct ir_unit *u;
    struct riscv_insn in;
    u32 offset;   /* of this instruction from base */
    u32 next;     /* of the next one */
    unsigned frm; /* of the mode */
    bool fma;     /* the IR's may be used */
    bool ended;   /* the block has its terminator */
    /* f registers known to hold a boxed single: its value (f32) in the current IR block. */
    ir_ref single[32];
};

#define LIFT(name) void riscv_lift_##name(struct riscv_lift *l)

#define I(name, bits, format, flags) LIFT(name);
#include "guest/riscv/insns.def"
#undef I

enum riscv_helper {
#define X(name, nargs, flags) RISCV_HELPER_##name,
#include "guest/riscv/helpers.def"
#undef X
    RISCV_HELPERS
};

/* Integer registers: x0 reads as 0 and swallows writes. _w: the low 32 bits as i32, and a write of
 * an i32, sign-extended. */
ir_ref riscv_x(struct riscv_lift *l, unsigned reg);
ir_ref riscv_xw(struct riscv_lift *l, unsigned reg);
void riscv_set_x(struct riscv_lift *l, unsigned reg, ir_ref value);
void riscv_set_xw(struct riscv_lift *l, unsigned reg, ir_ref value);

/* Operands by role. */
static inline ir_ref rs1(struct riscv_lift *l)
{
    return riscv_x(l, l->in.rs1);
}

static inline ir_ref rs2(struct riscv_lift *l)
{
    return riscv_x(l, l->in.rs2);
}

static inline void set_rd(struct riscv_lift *l, ir_ref value)
{
    riscv_set_x(l, l->in.rd, value);
}

static inline void set_rdw(struct riscv_lift *l, ir_ref value)
{
    riscv_set_xw(l, l->in.rd, value);
}

static inline ir_ref imm64(struct riscv_lift *l)
{
    return ir_const(l->u, IR_I64, (u64)l->in.imm);
}

/* Address of the instruction, @delta bytes on. */
ir_ref riscv_pc(struct riscv_lift *l, s64 delta);

/* Leaves with the exit code, pc at this instruction. Ends the block. */
void riscv_leave(struct riscv_lift *l, u32 exit_code);

/* Goes on at the next instruction in the mode there is by then. Ends the block. */
void riscv_end(struct riscv_lift *l);

/* A new IR block begins: what is known of f registers is forgotten. */
void riscv_begin(struct riscv_lift *l, u32 block);

#define LIFT_CALL(l, type, name, a, b, c, d) ir_call((l)->u, type, RISCV_HELPER_##name, a, b, c, d)

#endif
