/*
 * Dead code and put sinking, in one walk from the unit's end to its beginning.
 *
 * Requires: a verified unit whose marks are 0, every value defined before (lower reference than) its
 *           uses.
 * Does:     removes pure instructions (and calls of pure helpers) that nobody uses; removes puts
 *           whose bytes are written again before anybody can see them; turns a put that only a trap
 *           in between could show into a dput.
 * Keeps:    references, blocks, every load. Marks are 0 again.
 * Breaks:   nothing; IR_NOP appears.
 *
 * For the puts the walk keeps a set of ranges of state that a put later in the block, or at the
 * beginning of all blocks that may come next, covers. The ranges are disjoint: a put that stays ends
 * those that it overlaps. A trap or goto_if in between does not end a range but makes it trapped: an
 * earlier put to exactly the same slot may then become a dput.
 */
#include <string.h>

#include "opt/private.h"

enum { COVERS = 96 };

struct cover {
    u32 slot, end;
    u32 trap; /* number of traps seen (from the end) when the put was met */
};

struct walk {
    struct ir_unit *unit;
    u32 ncovers, traps;
    struct cover cover[COVERS];
};

static void cover_nothing(struct walk *walk)
{
    walk->ncovers = 0;
}

static void uncover(struct walk *walk, u32 slot, u32 end)
{
    u32 n = 0;

    for (u32 i = 0; i < walk->ncovers; i++) {
        if (walk->cover[i].slot >= end || slot >= walk->cover[i].end)
            walk->cover[n++] = walk->cover[i];
    }
    walk->ncovers = n;
}

/* When the table is full the put is just not known: fewer puts are removed. */
static void add_cover(struct walk *walk, u32 slot, u32 end)
{
    if (walk->ncovers < COVERS)
        walk->cover[walk->ncovers++] = (struct cover){slot, end, walk->traps};
}

static u32 value_bytes(const struct walk *walk, ir_ref ref)
{
    return ir_type_bytes(walk->unit->insts[ref].type);
}

/* A put: decides what becomes of it. */
static void sink_put(struct walk *walk, struct ir_inst *inst)
{
    u32 slot = inst->imm, end = slot + value_bytes(walk, inst->a);

    for (u32 i = 0; i < walk->ncovers; i++) {
        struct cover *cover = &walk->cover[i];

        if (cover->slot > slot || cover->end < end)
            continue;
        if (cover->trap == walk->traps) {
            inst->op = IR_NOP;
            return;
        }
        if (cover->slot == slot && cover->end == end) {
            inst->op = IR_dput;
            cover->trap = walk->traps;
            return;
        }
    }
    inst->op = IR_put;
    uncover(walk, slot, end);
    add_cover(walk, slot, end);
}

/* goto_if: who takes it sees everything, as after a trap, but the pc slot, which it writes itself. */
static void sink_past_goto_if(struct walk *walk)
{
    u32 pc = walk->unit->pc_slot, before = walk->traps++;

    for (u32 i = 0; i < walk->ncovers; i++) {
        struct cover *cover = &walk->cover[i];

        if (cover->slot == pc && cover->end == pc + 8 && cover->trap == before)
            cover->trap = walk->traps;
    }
}

/* Is the slot put at the beginning of @block, before anybody can look? */
static bool is_put_first(const struct walk *walk, u32 block, u32 slot, u32 end)
{
    const struct ir_unit *unit = walk->unit;

    for (const struct ir_inst *inst = &unit->insts[unit->blocks[block].first];; inst++) {
        u32 at = (u32)inst->imm;

        if (inst->op == IR_put || inst->op == IR_dput) {
            if (at == slot && at + value_bytes(walk, inst->a) == end)
                return true;
        } else if (inst->op == IR_get && at < end && slot < at + ir_type_bytes(inst->type)) {
            return false;
        } else if (inst->op == IR_call || inst->op == IR_goto_if ||
                   ir_op_info[inst->op].flags & (IR_OBSERVE | IR_TERM | IR_TRAP)) {
            return false;
        }
    }
}

/* Covered at a block's end is what all blocks behind it put first. */
static void sink_past_jump(struct walk *walk, const struct ir_inst *jump)
{
    const struct ir_unit *unit = walk->unit;
    u32 then = (u32)jump->imm, otherwise = jump->op == IR_jump ? then : (u32)(jump->imm >> 32);

    cover_nothing(walk);
    for (const struct ir_inst *inst = &unit->insts[unit->blocks[then].first];; inst++) {
        u32 end = (u32)inst->imm;

        if (inst->op == IR_put || inst->op == IR_dput) {
            end += value_bytes(walk, inst->a);
            uncover(walk, (u32)inst->imm, end);
            if (then == otherwise || is_put_first(walk, otherwise, (u32)inst->imm, end))
                add_cover(walk, (u32)inst->imm, end);
        } else if (inst->op == IR_get || inst->op == IR_call || inst->op == IR_goto_if ||
                   ir_op_info[inst->op].flags & (IR_OBSERVE | IR_TERM | IR_TRAP)) {
            return;
        }
    }
}

static u8 helper_flags(const struct ir_unit *unit, const struct ir_inst *call)
{
    return unit->helpers[call->imm].flags;
}

static void sink_past(struct walk *walk, const struct ir_inst *inst)
{
    u32 flags = ir_op_info[inst->op].flags;

    switch (inst->op) {
    case IR_get:
        uncover(walk, inst->imm, inst->imm + ir_type_bytes(inst->type));
        return;
    case IR_call:
        if (helper_flags(walk->unit, inst) && !(helper_flags(walk->unit, inst) & IR_HELPER_PURE))
            cover_nothing(walk);
        return;
    case IR_goto_if:
        sink_past_goto_if(walk);
        return;
    case IR_jump:
    case IR_branch:
        sink_past_jump(walk, inst);
        return;
    case IR_goto:
    case IR_goto_ind:
        cover_nothing(walk);
        add_cover(walk, walk->unit->pc_slot, walk->unit->pc_slot + 8);
        return;
    default:
        if (flags & (IR_OBSERVE | IR_TERM))
            cover_nothing(walk);
        if (flags & IR_TRAP)
            walk->traps++;
        return;
    }
}

static bool is_needed(const struct ir_unit *unit, const struct ir_inst *inst)
{
    if (inst->mark)
        return true;
    if (inst->op == IR_call)
        return !(helper_flags(unit, inst) & IR_HELPER_PURE);
    return ir_op_info[inst->op].flags & IR_SIDE;
}

static void mark_operands(struct ir_unit *unit, const struct ir_inst *inst)
{
    unit->insts[inst->a].mark = 1;
    unit->insts[inst->b].mark = 1;
    unit->insts[inst->c].mark = 1;
    unit->insts[inst->d].mark = 1;
}

int opt_sink(struct ir_unit *unit)
{
    struct walk walk = {.unit = unit};

    for (ir_ref ref = unit->ninsts - 1; ref > 0; ref--) {
        struct ir_inst *inst = &unit->insts[ref];

        if (!is_needed(unit, inst))
            inst->op = IR_NOP;
        inst->mark = 0;
        if (inst->op == IR_put || inst->op == IR_dput)
            sink_put(&walk, inst);
        if (inst->op == IR_NOP) {
            *inst = (struct ir_inst){.op = IR_NOP};
            continue;
        }
        sink_past(&walk, inst);
        mark_operands(unit, inst);
    }
    unit->insts[0].mark = 0;
    return 0;
}
