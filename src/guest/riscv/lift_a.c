/*
 * A: atomic memory operations (RISC-V volume I, the A chapter). All of them are atomic operations
 * of the host, which order everything, so aq and rl ask for nothing more. The address must be
 * naturally aligned.
 */
#include "guest/riscv/lift.h"

static unsigned size_of(enum ir_type type)
{
    return type == IR_I64 ? 8 : 4;
}

static ir_ref address(struct riscv_lift *l, enum ir_type type)
{
    ir_ref at = rs1(l);
    ir_ref low = ir_and(l->u, at, ir_const(l->u, IR_I64, size_of(type) - 1));

    ir_put(l->u, RISCV_SLOT(tval), at);
    ir_exit_if(l->u, ir_ne(l->u, low, ir_const(l->u, IR_I64, 0)), RISCV_EXIT_MISALIGNED);
    return at;
}

static ir_ref operand(struct riscv_lift *l, enum ir_type type)
{
    return type == IR_I64 ? rs2(l) : riscv_xw(l, l->in.rs2);
}

static ir_ref widened(struct riscv_lift *l, ir_ref value)
{
    return ir_typeof(l->u, value) == IR_I64 ? value : ir_sext(l->u, IR_I64, value);
}

static void load_reserved(struct riscv_lift *l, enum ir_type type)
{
    ir_ref at = address(l, type);
    ir_ref value = widened(l, ir_ld(l->u, type, at, 0));

    ir_put(l->u, RISCV_SLOT(reserved_address), at);
    ir_put(l->u, RISCV_SLOT(reserved_value), value);
    set_rd(l, value);
}

/* Drops the reservation; rd is 0 for success, 1 for failure. */
static void conclude(struct riscv_lift *l, ir_ref failed, u32 done)
{
    ir_put(l->u, RISCV_SLOT(reserved_address), ir_const(l->u, IR_I64, RISCV_NO_RESERVATION));
    set_rd(l, failed);
    ir_jump(l->u, done);
}

static void store_conditional(struct riscv_lift *l, enum ir_type type)
{
    struct ir_unit *u = l->u;
    ir_ref at = address(l, type), value = operand(l, type), old;
    ir_ref expected = ir_get(u, type, RISCV_SLOT(reserved_value));
    ir_ref reserved = ir_eq(u, ir_get(u, IR_I64, RISCV_SLOT(reserved_address)), at);
    u32 attempt = ir_block_new(u), fail = ir_block_new(u), done = ir_block_new(u);

    ir_branch(u, reserved, attempt, fail);
    riscv_begin(l, attempt);
    old = ir_acas(u, at, 0, expected, value);
    conclude(l, ir_zext(u, IR_I64, ir_ne(u, old, expected)), done);
    riscv_begin(l, fail);
    conclude(l, ir_const(u, IR_I64, 1), done);
    riscv_begin(l, done);
}

/* rd gets the old value, as it was in memory. */
static void modify(struct riscv_lift *l, enum ir_type type, enum ir_op op)
{
    ir_ref at = address(l, type);

    set_rd(l, widened(l, ir_atomic(l->u, op, at, 0, operand(l, type))));
}

enum extreme { MIN, MAX, MINU, MAXU };

/* When another CPU was faster the instruction is begun anew. */
static void choose(struct riscv_lift *l, enum ir_type type, enum extreme extreme)
{
    struct ir_unit *u = l->u;
    ir_ref at = address(l, type), value = operand(l, type);
    ir_ref old = ir_ld(u, type, at, 0), keep, seen;

    switch (extreme) {
    case MIN:
        keep = ir_sle(u, old, value);
        break;
    case MAX:
        keep = ir_sle(u, value, old);
        break;
    case MINU:
        keep = ir_ule(u, old, value);
        break;
    default:
        keep = ir_ule(u, value, old);
        break;
    }
    seen = ir_acas(u, at, 0, old, ir_sel(u, keep, old, value));
    ir_goto_if(u, ir_ne(u, seen, old), l->offset);
    set_rd(l, widened(l, old));
}

LIFT(lr_w)
{
    load_reserved(l, IR_I32);
}

LIFT(lr_d)
{
    load_reserved(l, IR_I64);
}

LIFT(sc_w)
{
    store_conditional(l, IR_I32);
}

LIFT(sc_d)
{
    store_conditional(l, IR_I64);
}

#define MODIFY(name, op)                                                                           \
    LIFT(name##_w)                                                                                 \
    {                                                                                              \
        modify(l, IR_I32, IR_##op);                                                                \
    }                                                                                              \
    LIFT(name##_d)                                                                                 \
    {                                                                                              \
        modify(l, IR_I64, IR_##op);                                                                \
    }
MODIFY(amoswap, axchg)
MODIFY(amoadd, aadd)
MODIFY(amoand, aand)
MODIFY(amoor, aor)
MODIFY(amoxor, axor)

#define CHOOSE(name, extreme)                                                                      \
    LIFT(name##_w)                                                                                 \
    {                                                                                              \
        choose(l, IR_I32, extreme);                                                                \
    }                                                                                              \
    LIFT(name##_d)                                                                                 \
    {                                                                                              \
        choose(l, IR_I64, extreme);                                                                \
    }
CHOOSE(amomin, MIN)
CHOOSE(amomax, MAX)
CHOOSE(amominu, MINU)
CHOOSE(amomaxu, MAXU)
