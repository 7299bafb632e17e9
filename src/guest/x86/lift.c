/*
 * The driver of lifting: decodes a block's instructions one after the other and has each lifted by
 * the function of its row; and the ways out of a block.
 */
#include <errno.h>

#include "guest/x86/driver.h"
#include "guest/x86/lift.h"
#include "guest/x86/rows.h"

#define I(map, opcode, prefix, modrm, flags, name, op1, op2, op3)                                  \
    void lift_##name(struct x86_lift *l);
#include "guest/x86/all_rows.def"
#undef I

/* In the order of x86_rows. */
static void (*const lift_functions[])(struct x86_lift *) = {
#define I(map, opcode, prefix, modrm, flags, name, op1, op2, op3) lift_##name,
#include "guest/x86/all_rows.def"
#undef I
};

#define PAGE_SIZE 4096u

static bool flat_cs(const struct x86_lift *l)
{
    return lift_is64(l) ||
           (l->mode & X86_MODE_FLAT_CS && (l->mode & X86_MODE_CODE_MASK) == X86_MODE_CODE32);
}

static ir_ref at_offset(struct x86_lift *l, s64 offset)
{
    return ir_base_plus(l->u, offset);
}

static ir_ref cs_base(struct x86_lift *l)
{
    return ir_get(l->u, IR_I64, X86_SLOT(seg[X86_CS].base));
}

ir_ref lift_next_pc(struct x86_lift *l)
{
    return at_offset(l, l->next);
}

ir_ref lift_next_rip(struct x86_lift *l)
{
    ir_ref pc = lift_next_pc(l);

    if (lift_is64(l) || l->mode & X86_MODE_FLAT_CS)
        return pc;
    return ir_sub(l->u, pc, cs_base(l));
}

static void count_down(struct x86_lift *l, u32 slot, ir_ref by)
{
    ir_put(l->u, slot, ir_sub(l->u, ir_get(l->u, IR_I64, slot), by));
}

/* Counts the instruction if @done (i64) is 1. */
static void count_if(struct x86_lift *l, ir_ref done)
{
    if (l->mode & X86_MODE_COUNT_INSNS)
        count_down(l, X86_SLOT(pmu.insns_left), done);
    if (l->branch && l->mode & X86_MODE_COUNT_BRANCHES)
        count_down(l, X86_SLOT(pmu.branches_left), done);
    l->counted = true;
}

void lift_count(struct x86_lift *l)
{
    if (l->mode & X86_MODE_COUNT && !l->counted)
        count_if(l, ir_const(l->u, IR_I64, 1));
}

/* Overflow is looked for where the request word is: a counter that has none left stops the CPU. */
static void check_count(struct x86_lift *l, u32 slot)
{
    ir_ref left = ir_get(l->u, IR_I64, slot), zero = ir_const(l->u, IR_I64, 0);

    ir_exit_if(l->u, ir_sle(l->u, left, zero), X86_EXIT_COUNTER);
}

void lift_end_step(struct x86_lift *l, ir_ref tf, enum lift_keep_rf keep_rf)
{
    bool taken = l->branch && !l->depends;

    lift_count(l);
    LIFT_CALL(l, IR_VOID, single_step, tf, ir_const(l->u, IR_I64, keep_rf), lift_next_pc(l),
              ir_const(l->u, IR_I64, (l->next - l->offset) | (taken ? STEP_TAKEN : 0)));
    ir_exit(l->u, X86_EXIT_HALT_CHECK);
    l->ended = true;
}

void lift_record_branch(struct x86_lift *l, ir_ref cond, ir_ref to)
{
    ir_ref taken;

    if (!(l->mode & X86_MODE_LBR) || l->mode & X86_MODE_STEPPING || !l->branch || l->recorded)
        return;
    taken = cond ? ir_zext(l->u, IR_I64, cond) : ir_const(l->u, IR_I64, 1);
    LIFT_CALL(l, IR_VOID, record_branch, taken, at_offset(l, l->offset), to, IR_NONE);
    l->recorded = true;
}

/* Leaves for the linear address @pc by lookup. */
static void leave_for(struct x86_lift *l, ir_ref pc)
{
    if (l->mode & X86_MODE_STEPPING) {
        ir_put(l->u, X86_SLOT(lip), pc);
        lift_end_step(l, ir_const(l->u, IR_I64, l->mode & X86_MODE_TF), CLEAR_RF);
    } else {
        lift_count(l);
        lift_record_branch(l, l->depends ? ir_ne(l->u, pc, lift_next_pc(l)) : IR_NONE, pc);
        ir_goto_ind(l->u, pc);
    }
    l->ended = true;
}

/* A linear address beyond 32 bits wraps outside 64-bit mode. Within the page it cannot happen. */
static bool may_wrap(const struct x86_lift *l, s64 offset)
{
    return !lift_is64(l) && (offset < 0 || offset >= PAGE_SIZE);
}

static ir_ref wrap(struct x86_lift *l, ir_ref pc)
{
    return ir_and(l->u, pc, ir_const(l->u, IR_I64, 0xffffffff));
}

static ir_ref fits(struct x86_lift *l, ir_ref pc)
{
    return ir_ule(l->u, pc, ir_const(l->u, IR_I64, 0xffffffff));
}

/* The next instruction follows in memory. */
static void fall_through(struct x86_lift *l)
{
    lift_count(l);
    if (l->mode & X86_MODE_STEPPING)
        leave_for(l, at_offset(l, l->next));
    else
        ir_goto(l->u, l->next);
    l->ended = true;
}

bool lift_is_plain(const struct x86_lift *l, s64 offset)
{
    return flat_cs(l) && l->in->operand_size != 2 && !may_wrap(l, offset) &&
           !(l->mode & (X86_MODE_STEPPING | X86_MODE_LBR));
}

/* A jump that is not plain. */
static void goto_elsewhere(struct x86_lift *l, s64 offset)
{
    ir_ref pc = at_offset(l, offset);

    if (!flat_cs(l) || l->in->operand_size == 2) {
        lift_goto_rip(
            l, ir_add(l->u, lift_next_rip(l), ir_const(l->u, IR_I64, (u64)(offset - l->next))));
    } else if (l->mode & X86_MODE_STEPPING) {
        leave_for(l, lift_is64(l) ? pc : wrap(l, pc));
    } else if (may_wrap(l, offset)) {
        lift_count(l);
        lift_record_branch(l, IR_NONE, wrap(l, pc));
        ir_goto_if(l->u, fits(l, pc), offset);
        leave_for(l, wrap(l, pc));
    } else {
        lift_count(l);
        lift_record_branch(l, IR_NONE, pc);
        ir_goto(l->u, offset);
        l->ended = true;
    }
}

void lift_goto(struct x86_lift *l, s64 offset)
{
    if (!lift_is_plain(l, offset)) {
        goto_elsewhere(l, offset);
        return;
    }
    lift_count(l);
    ir_goto(l->u, offset);
    l->ended = true;
}

/* i1: the address is not canonical. */
static ir_ref non_canonical(struct x86_lift *l, ir_ref address)
{
    unsigned width = l->mode & X86_MODE_LA57 ? 57 : 48;
    ir_ref top = ir_sar(l->u, address, ir_const(l->u, IR_I8, width - 1)); /* 0 or -1 */

    return ir_ult(l->u, ir_const(l->u, IR_I64, 1), ir_add(l->u, top, ir_const(l->u, IR_I64, 1)));
}

static ir_ref cs_limit(struct x86_lift *l)
{
    return ir_zext(l->u, IR_I64, ir_get(l->u, IR_I32, X86_SLOT(seg[X86_CS].limit)));
}

/* i1, or IR_NONE: CS does not hold @rip. */
static ir_ref outside_cs(struct x86_lift *l, ir_ref rip, bool canonical)
{
    if (!flat_cs(l))
        return ir_ult(l->u, cs_limit(l), rip);
    if (lift_is64(l) && (canonical || l->mode & (X86_MODE_STEPPING | X86_MODE_LBR)))
        return non_canonical(l, rip);
    return IR_NONE;
}

/* Cut to the operand size. */
static ir_ref cut_rip(struct x86_lift *l, ir_ref rip)
{
    if (l->in->operand_size == 8)
        return rip;
    return ir_and(l->u, rip, ir_const(l->u, IR_I64, mask_low(l->in->operand_size * 8)));
}

ir_ref lift_check_rip(struct x86_lift *l, ir_ref rip, bool canonical)
{
    ir_ref outside;

    rip = cut_rip(l, rip);
    outside = outside_cs(l, rip, canonical);
    if (outside)
        lift_raise_if(l, outside, X86_GP);
    return rip;
}

ir_ref lift_check_branch(struct x86_lift *l, ir_ref cond, s64 offset)
{
    ir_ref there = lift_next_rip(l), outside;

    there = cut_rip(l, ir_add(l->u, there, ir_const(l->u, IR_I64, (u64)(offset - l->next))));
    outside = outside_cs(l, there, false);
    if (outside)
        lift_raise_if(l, ir_and(l->u, cond, outside), X86_GP);
    return there;
}

void lift_goto_rip(struct x86_lift *l, ir_ref rip)
{
    rip = lift_check_rip(l, rip, false);
    if (!flat_cs(l))
        rip = wrap(l, ir_add(l->u, rip, cs_base(l)));
    leave_for(l, rip);
}

/* A conditional jump that is not plain. */
static void goto_elsewhere_if(struct x86_lift *l, ir_ref cond, s64 offset)
{
    ir_ref pc = at_offset(l, offset), next = lift_next_pc(l);

    if (flat_cs(l) && l->in->operand_size != 2 && !(l->mode & X86_MODE_STEPPING)) {
        lift_count(l);
        lift_record_branch(l, cond, may_wrap(l, offset) ? wrap(l, pc) : pc);
        if (may_wrap(l, offset)) {
            ir_goto_if(l->u, ir_and(l->u, cond, fits(l, pc)), offset);
            leave_for(l, ir_sel(l->u, cond, wrap(l, pc), next));
            return;
        }
        ir_goto_if(l->u, cond, offset);
        fall_through(l);
    } else {
        ir_ref to = ir_sel(l->u, cond, lift_check_branch(l, cond, offset), lift_next_rip(l));

        leave_for(l, flat_cs(l) ? to : wrap(l, ir_add(l->u, to, cs_base(l))));
    }
}

void lift_goto_if(struct x86_lift *l, ir_ref cond, s64 offset)
{
    l->depends = true;
    if (!lift_is_plain(l, offset)) {
        goto_elsewhere_if(l, cond, offset);
        return;
    }
    lift_count(l);
    ir_goto_if(l->u, cond, offset);
    fall_through(l);
}

void lift_again_if(struct x86_lift *l, ir_ref cond)
{
    if (l->mode & X86_MODE_STEPPING) {
        ir_put(l->u, X86_SLOT(lip), ir_sel(l->u, cond, at_offset(l, l->offset), lift_next_pc(l)));
        if (l->mode & X86_MODE_COUNT)
            count_if(l, ir_zext(l->u, IR_I64, ir_not(l->u, cond)));
        lift_end_step(l, ir_const(l->u, IR_I64, l->mode & X86_MODE_TF), KEEP_RF_REPEAT);
    } else
        ir_goto_if(l->u, cond, l->offset);
}

void lift_raise(struct x86_lift *l, unsigned vector)
{
    ir_exit(l->u, X86_EXIT_VECTOR + vector);
    l->ended = true;
}

void lift_raise_if(struct x86_lift *l, ir_ref cond, unsigned vector)
{
    ir_exit_if(l->u, cond, X86_EXIT_VECTOR + vector);
}

void lift_need_feature(struct x86_lift *l, u64 feature)
{
    LIFT_CALL(l, IR_VOID, need_feature, ir_const(l->u, IR_I64, feature), IR_NONE, IR_NONE, IR_NONE);
}

void lift_end_state(struct x86_lift *l)
{
    leave_for(l, lift_next_pc(l));
}

/* What the row's flags ask for, in the order of the exceptions' priorities. */
static void check_row(struct x86_lift *l, unsigned flags)
{
    bool protected = l->mode & X86_MODE_PE && !(l->mode & X86_MODE_VM86);

    if (flags & X86_ROW_PROT && !protected) {
        lift_raise(l, X86_UD);
        return;
    }
    if (flags & X86_ROW_CPL0 && l->mode & X86_MODE_CPL_MASK) {
        lift_raise(l, X86_GP);
        return;
    }
    if ((flags & (X86_ROW_FPU | X86_ROW_MMX) && l->mode & X86_MODE_FPU_TRAP) ||
        (flags & (X86_ROW_SSE | X86_ROW_SSEFP) && l->mode & X86_MODE_SSE_TRAP))
        LIFT_CALL(l, IR_VOID, check_fpu, ir_const(l->u, IR_I64, flags), IR_NONE, IR_NONE, IR_NONE);
}

/* The instruction's last byte within the limit of CS, where that is one: jumps are checked where
 * they come from, but code may also run past the end. */
static void check_fetch(struct x86_lift *l)
{
    if (lift_is64(l) || l->mode & X86_MODE_FLAT_CS)
        return;
    if (!l->room)
        l->room = ir_sub(l->u, cs_limit(l), ir_sub(l->u, at_offset(l, l->start), cs_base(l)));
    lift_raise_if(l, ir_slt(l->u, l->room, ir_const(l->u, IR_I64, l->next - 1 - l->start)), X86_GP);
}

static void lift_one(struct x86_lift *l, int decoded)
{
    const struct x86_row *row = l->in->row;

    ir_insn(l->u, l->offset, l->next - l->offset);
    ir_pc_is(l->u, l->offset);
    l->branch = l->depends = l->counted = l->recorded = false;
    if (l->u->guest_insns == 1) {
        ir_poll(l->u);
        if (l->mode & X86_MODE_COUNT_INSNS)
            check_count(l, X86_SLOT(pmu.insns_left));
        if (l->mode & X86_MODE_COUNT_BRANCHES)
            check_count(l, X86_SLOT(pmu.branches_left));
    }
    if (l->mode & X86_MODE_BREAK_MASK &&
        l->mode >> (X86_MODE_BREAK_SHIFT + x86_break_hash((u64)l->offset)) & 1)
        LIFT_CALL(l, IR_VOID, debugger_break, IR_NONE, IR_NONE, IR_NONE, IR_NONE);
    if (l->mode & X86_MODE_DR)
        LIFT_CALL(l, IR_VOID, debug_begin, IR_NONE, IR_NONE, IR_NONE, IR_NONE);
    check_fetch(l);
    if (decoded != X86_DECODE_OK) {
        lift_raise(l, decoded == -E2BIG ? X86_GP : X86_UD);
        return;
    }
    if (unlikely(l->mode & X86_MODE_REDUCED) && x86_extension(l->in))
        lift_need_feature(l, x86_extension(l->in));
    if (row->flags &
        (X86_ROW_PROT | X86_ROW_CPL0 | X86_ROW_FPU | X86_ROW_MMX | X86_ROW_SSE | X86_ROW_SSEFP))
        check_row(l, row->flags);
    if (!l->ended)
        lift_functions[row - x86_rows](l);
    if (!l->ended && row->flags & X86_ROW_ENDS)
        lift_end_state(l);
    if (!l->ended)
        lift_count(l);
}

int x86_lift(struct guest_lift *lift)
{
    struct x86_insn insn;
    struct x86_lift l = {.u = lift->unit, .in = &insn, .mode = lift->mode};
    u32 start = lift->pc & (PAGE_SIZE - 1);
    u32 max = lift->two_pages || lift->mode & X86_MODE_STEPPING ? 1 : lift->max_insns;
    unsigned code_size = 2u << (lift->mode & X86_MODE_CODE_MASK);

    l.offset = l.next = l.start = start;
    while (!l.ended) {
        u32 at = l.next - start;
        int decoded;

        if (lift->unit->guest_insns >= max || (at >= lift->avail && at)) {
            fall_through(&l);
            break;
        }
        decoded = x86_decode(&insn, lift->code + at, lift->avail - at, code_size);
        if (decoded == -ERANGE) {
            if (!at)
                return -ERANGE;
            if (lift->chains_pages)
                fall_through(&l);
            else
                leave_for(&l, at_offset(&l, l.next));
            break;
        }
        l.offset = l.next;
        l.next += decoded == -E2BIG ? 15 : insn.length;
        lift_one(&l, decoded);
    }
    if (!lift->polls && !(lift->mode & X86_MODE_COUNT))
        ir_drop_poll(lift->unit);
    lift->length = l.next - start;
    return lift->unit->failed ? -ENOMEM : 0;
}
