/*
 * The driver of lifting: decodes a block's instructions one after the other and has each lifted by
 * the function of its row.
 */
#include "guest/riscv/lift.h"

#include <errno.h>
#include <string.h>

#include "guest/riscv/driver.h"

#define PAGE_SIZE 4096u

/* In the order of enum riscv_op. */
static void (*const lift_functions[RISCV_OPS])(struct riscv_lift *) = {
#define I(name, bits, format, flags) riscv_lift_##name,
#include "guest/riscv/insns.def"
#undef I
};

ir_ref riscv_x(struct riscv_lift *l, unsigned reg)
{
    return reg ? ir_get(l->u, IR_I64, RISCV_SLOT(x[reg])) : ir_const(l->u, IR_I64, 0);
}

ir_ref riscv_xw(struct riscv_lift *l, unsigned reg)
{
    return ir_trunc(l->u, IR_I32, riscv_x(l, reg));
}

void riscv_set_x(struct riscv_lift *l, unsigned reg, ir_ref value)
{
    if (reg)
        ir_put(l->u, RISCV_SLOT(x[reg]), value);
}

void riscv_set_xw(struct riscv_lift *l, unsigned reg, ir_ref value)
{
    riscv_set_x(l, reg, ir_sext(l->u, IR_I64, value));
}

ir_ref riscv_pc(struct riscv_lift *l, s64 delta)
{
    return ir_base_plus(l->u, l->offset + delta);
}

void riscv_leave(struct riscv_lift *l, u32 exit_code)
{
    ir_exit(l->u, exit_code);
    l->ended = true;
}

void riscv_end(struct riscv_lift *l)
{
    ir_goto_ind(l->u, riscv_pc(l, l->next - l->offset));
    l->ended = true;
}

void riscv_begin(struct riscv_lift *l, u32 block)
{
    ir_begin(l->u, block);
    memset(l->single, 0, sizeof(l->single));
}

/* Volume I, 13.2: rounding modes 5 and 6 are reserved, and 7 means frm, where 7 is reserved too. */
static bool rounding_valid(const struct riscv_lift *l)
{
    unsigned rm = l->in.rm == RISCV_RM_DYNAMIC ? l->frm : l->in.rm;

    return rm <= RISCV_RMM;
}

static void lift_one(struct riscv_lift *l, int decoded)
{
    const struct riscv_row *row = l->in.row;

    ir_insn(l->u, l->offset, l->in.length);
    ir_pc_is(l->u, l->offset);
    if (l->u->guest_insns == 1)
        ir_poll(l->u);
    if (decoded || (riscv_rows[row->op].flags & RISCV_ROW_RM && !rounding_valid(l))) {
        riscv_leave(l, RISCV_EXIT_ILLEGAL);
        return;
    }
    lift_functions[row->op](l);
    if (!l->ended && riscv_rows[row->op].flags & RISCV_ROW_END)
        riscv_end(l);
}

int riscv_lift(struct guest_lift *lift)
{
    u32 start = lift->pc & (PAGE_SIZE - 1);
    struct riscv_lift l = {.u = lift->unit, .frm = lift->mode & RISCV_MODE_FRM, .fma = lift->fma};
    u32 max = lift->two_pages ? 1 : lift->max_insns;

    l.offset = l.next = start;
    while (!l.ended) {
        u32 at = l.next - start;
        int decoded = -ERANGE;

        if (!at || (l.u->guest_insns < max && at < lift->avail))
            decoded = riscv_decode(&l.in, lift->code + at, lift->avail - at);
        if (decoded == -ERANGE && !at)
            return -ERANGE;
        if (decoded == -ERANGE) {
            ir_goto(l.u, l.next);
            break;
        }
        l.offset = l.next;
        l.next += l.in.length;
        lift_one(&l, decoded);
    }
    if (!lift->polls)
        ir_drop_poll(l.u);
    lift->length = l.next - start;
    return l.u->failed ? -ENOMEM : 0;
}
