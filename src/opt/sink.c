/*
 * Dead code and put sinking, in one walk from the unit's end to its beginning.
 *
 * Requires: a verified unit whose marks are 0, every value defined before (lower reference than)
 *           its uses.
 * Does:     removes pure instructions (and calls of pure helpers) that nobody uses; removes puts
 *           whose bytes are written again before anybody can see them; turns a put that only a trap
 *           in between could show into a dput.
 * Keeps:    references, blocks, every load. Marks are 0 again.
 * Breaks:   nothing; IR_NOP appears.
 *
 * For the puts the walk keeps a set of ranges of state that a put later in the block, or at the
 * beginning of all blocks that may come next, covers. The ranges are disjoint: a put that stays
 * ends those that it overlaps. A trap or goto_if in between does not end a range but makes it
 * trapped: an earlier put to exactly the same slot may then become a dput.
 */
#include <errno.h>
#include <string.h>

#include "opt/private.h"

enum { COVERS = 96 };

struct cover {
    u32 slot, end;
    u32 trap; /* number of traps seen (from the end) when the put was met */
};

/* What is put in a block, or behind it, before anybody can look. */
struct first_puts {
    u32 n;
    struct {
        u32 slot, end;
    } put[COVERS];
};

struct walk {
    struct ir_unit *unit;
    u32 ncovers, traps;
    struct cover cover[COVERS];
    struct first_puts **first; /* by block; for a unit of several */
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

/* goto_if: who takes it sees everything, as after a trap, but the pc slot, which it writes
 * itself. */
static void sink_past_goto_if(struct walk *walk)
{
    u32 pc = walk->unit->pc_slot, before = walk->traps++;

    for (u32 i = 0; i < walk->ncovers; i++) {
        struct cover *cover = &walk->cover[i];

        if (cover->slot == pc && cover->end == pc + 8 && cover->trap == before)
            cover->trap = walk->traps;
    }
}

/* The walk has come to the beginning of @block. */
static bool note_first_puts(struct walk *walk, u32 block)
{
    struct first_puts *first =
        arena_alloc(walk->unit->arena,
                    sizeof(*first) - sizeof(first->put) + walk->ncovers * sizeof(first->put[0]));

    if (!first)
        return false;
    for (u32 i = 0; i < walk->ncovers; i++) {
        if (walk->cover[i].trap != walk->traps)
            continue;
        first->put[first->n].slot = walk->cover[i].slot;
        first->put[first->n++].end = walk->cover[i].end;
    }
    walk->first[block] = first;
    return true;
}

static bool ends_prefix(const struct ir_inst *inst)
{
    return inst->op == IR_get || inst->op == IR_call || inst->op == IR_goto_if ||
           ir_op_info[inst->op].flags & (IR_OBSERVE | IR_TERM | IR_TRAP);
}

static void cover_first_puts(struct walk *walk, u32 block)
{
    const struct ir_unit *unit = walk->unit;
    const struct first_puts *first = walk->first ? walk->first[block] : NULL;

    cover_nothing(walk);
    if (first) {
        for (u32 i = 0; i < first->n; i++)
            add_cover(walk, first->put[i].slot, first->put[i].end);
        return;
    }
    /* A jump back: the walk has not been there, so all puts are as they were made. */
    for (const struct ir_inst *inst = &unit->insts[unit->blocks[block].first]; !ends_prefix(inst);
         inst++) {
        if (inst->op == IR_put || inst->op == IR_dput) {
            u32 end = (u32)inst->imm + value_bytes(walk, inst->a);

            uncover(walk, (u32)inst->imm, end);
            add_cover(walk, (u32)inst->imm, end);
        }
    }
}

/* Covered at a block's end is what is put first by all ways behind it. */
static void sink_past_jump(struct walk *walk, const struct ir_inst *jump)
{
    u32 then = (u32)jump->imm, otherwise = (u32)(jump->imm >> 32), n;
    struct cover cover[COVERS];

    cover_first_puts(walk, then);
    if (jump->op == IR_jump || then == otherwise)
        return;
    n = walk->ncovers;
    memcpy(cover, walk->cover, n * sizeof(cover[0]));
    cover_first_puts(walk, otherwise);
    for (u32 i = 0; i < walk->ncovers;) {
        bool both = false;

        for (u32 k = 0; k < n && !both; k++)
            both = walk->cover[i].slot == cover[k].slot && walk->cover[i].end == cover[k].end;
        if (both)
            i++;
        else
            walk->cover[i] = walk->cover[--walk->ncovers];
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

static bool begins_block(const struct ir_unit *unit, ir_ref ref, u32 *block)
{
    for (*block = 0; *block < unit->nblocks; ++*block) {
        if (unit->blocks[*block].first == ref)
            return true;
    }
    return false;
}

int opt_sink(struct ir_unit *unit)
{
    struct walk walk = {.unit = unit};
    u32 block;

    if (unit->nblocks > 1) {
        walk.first = arena_alloc(unit->arena, unit->nblocks * sizeof(struct first_puts *));
        if (!walk.first)
            return -ENOMEM;
    }
    for (ir_ref ref = unit->ninsts - 1; ref > 0; ref--) {
        struct ir_inst *inst = &unit->insts[ref];

        if (!is_needed(unit, inst))
            inst->op = IR_NOP;
        inst->mark = 0;
        if (inst->op == IR_put || inst->op == IR_dput)
            sink_put(&walk, inst);
        if (inst->op == IR_NOP) {
            *inst = (struct ir_inst){.op = IR_NOP};
        } else {
            sink_past(&walk, inst);
            mark_operands(unit, inst);
        }
        if (walk.first && begins_block(unit, ref, &block) && !note_first_puts(&walk, block))
            return -ENOMEM;
    }
    unit->insts[0].mark = 0;
    return 0;
}
