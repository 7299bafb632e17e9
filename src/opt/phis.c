/*
 * Phis that are no choice, in a unit of several blocks.
 *
 * Requires: a verified unit whose marks are 0, every value defined before (lower reference than)
 *           its uses.
 * Does:     makes a branch whose condition is constant a jump, if its other way still comes from
 *           elsewhere; gives a phi that all ways set to one value, or to itself, that value's
 *           place.
 * Keeps:    references, blocks.
 * Breaks:   nothing; IR_NOP appears.
 *
 * Forming a region goes round its blocks with names that may still change, and then keeps a phi
 * where one was needed for a while. Each of them would be a register or memory of its own, and a
 * copy on every way into its loop.
 */
#include <errno.h>

#include "opt/private.h"

#define MANY (~0u)

struct phis {
    struct ir_unit *unit;
    ir_ref *instead; /* by reference: what a phi is to be replaced by, or IR_NONE */
    ir_ref *only;    /* the one value that it is set to besides itself; IR_NONE, MANY */
};

static ir_ref find(const struct phis *p, ir_ref ref)
{
    while (p->instead[ref])
        ref = p->instead[ref];
    return ref;
}

static bool in_block(const struct ir_unit *unit, u32 block, u64 ref)
{
    return ref - unit->blocks[block].first < unit->blocks[block].count;
}

/* The branch that ends @block goes to @to alone. */
static void become_jump(struct ir_unit *unit, u32 block, u32 to)
{
    u32 first = unit->blocks[block].first, last = first + unit->blocks[block].count - 1;

    unit->insts[last] = (struct ir_inst){.op = IR_jump, .imm = to};
    for (ir_ref ref = first; ref < last; ref++) {
        if (unit->insts[ref].op == IR_set && !in_block(unit, to, unit->insts[ref].imm))
            unit->insts[ref] = (struct ir_inst){.op = IR_NOP};
    }
}

static const struct ir_inst *terminator(const struct ir_unit *unit, u32 block)
{
    return &unit->insts[unit->blocks[block].first + unit->blocks[block].count - 1];
}

static int fold_branches(struct ir_unit *unit)
{
    u32 *ways = arena_alloc(unit->arena, unit->nblocks * sizeof(*ways));

    if (!ways)
        return -ENOMEM;
    for (u32 b = 0; b < unit->nblocks; b++) {
        const struct ir_inst *last = terminator(unit, b);

        if (last->op == IR_jump || last->op == IR_branch)
            ways[(u32)last->imm]++;
        if (last->op == IR_branch)
            ways[last->imm >> 32]++;
    }
    for (u32 b = 0; b < unit->nblocks; b++) {
        const struct ir_inst *last = terminator(unit, b);
        u32 then = (u32)last->imm, otherwise = (u32)(last->imm >> 32);
        bool holds;

        if (last->op != IR_branch || !ir_is_const(unit, last->a) || then == otherwise)
            continue;
        holds = ir_inst(unit, last->a)->imm;
        if (ways[holds ? otherwise : then] == 1)
            continue;
        ways[holds ? otherwise : then]--;
        become_jump(unit, b, holds ? then : otherwise);
    }
    return 0;
}

static void find_only(struct phis *p)
{
    for (ir_ref ref = 1; ref < p->unit->ninsts; ref++)
        p->only[ref] = IR_NONE;
    for (ir_ref ref = 1; ref < p->unit->ninsts; ref++) {
        const struct ir_inst *set = &p->unit->insts[ref];
        ir_ref value, *only;

        if (set->op != IR_set || p->instead[set->imm])
            continue;
        value = find(p, set->a);
        only = &p->only[set->imm];
        if (value != set->imm && value != *only)
            *only = *only ? MANY : value;
    }
}

/* Answers whether there may be more to do. */
static bool replace_phis(struct phis *p)
{
    bool changed = false;

    for (ir_ref ref = 1; ref < p->unit->ninsts; ref++) {
        ir_ref value = p->only[ref];

        if (p->unit->insts[ref].op != IR_phi || p->instead[ref] || !value || value == MANY)
            continue;
        value = find(p, value);
        if (value < ref) {
            p->instead[ref] = value;
            changed = true;
        }
    }
    return changed;
}

static void rewrite(struct phis *p)
{
    for (ir_ref ref = 1; ref < p->unit->ninsts; ref++) {
        struct ir_inst *inst = &p->unit->insts[ref];

        if (p->instead[ref] || (inst->op == IR_set && p->instead[inst->imm])) {
            *inst = (struct ir_inst){.op = IR_NOP};
            continue;
        }
        inst->a = find(p, inst->a);
        inst->b = find(p, inst->b);
        inst->c = find(p, inst->c);
        inst->d = find(p, inst->d);
    }
}

int opt_phis(struct ir_unit *unit)
{
    struct phis p = {.unit = unit};

    if (unit->nblocks == 1)
        return 0;
    p.instead = arena_alloc(unit->arena, unit->ninsts * sizeof(*p.instead));
    p.only = arena_alloc(unit->arena, unit->ninsts * sizeof(*p.only));
    if (!p.instead || !p.only || fold_branches(unit))
        return -ENOMEM;
    do
        find_only(&p);
    while (replace_phis(&p));
    rewrite(&p);
    return 0;
}
