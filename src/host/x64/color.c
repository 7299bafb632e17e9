/*
 * Registers for a unit of several blocks. Values get them one after the other, who is used most for
 * the time that it is alive first, each the first register that is free all that time. So what a
 * loop works with is served before what only lives through it, and short lives share few registers.
 */
#include <stdlib.h>

#include "host/x64/lower.h"

enum { REGISTERS = 32 }; /* numbered as value.reg */

struct coloring {
    struct lowering *l;
    u64 *busy[REGISTERS]; /* a bit a point of time */
    u32 words;
    ir_ref *partner; /* by root: who it would best share a register with */
};

/* The bits of word @word from point @from to @to, inclusive. */
static u64 word_mask(u32 word, u32 from, u32 to)
{
    u64 mask = ~0ull;

    if (from > word * 64)
        mask &= ~0ull << (from & 63);
    if (to < word * 64 + 63)
        mask &= ~0ull >> (63 - (to & 63));
    return mask;
}

static bool is_free(const struct coloring *c, unsigned reg, const struct live_range *range)
{
    for (; range; range = range->next) {
        for (u32 word = range->from / 64; word <= range->to / 64; word++) {
            if (c->busy[reg][word] & word_mask(word, range->from, range->to))
                return false;
        }
    }
    return true;
}

static void occupy(struct coloring *c, unsigned reg, u32 from, u32 to)
{
    for (u32 word = from / 64; word <= to / 64; word++)
        c->busy[reg][word] |= word_mask(word, from, to);
}

static ir_ref operand_root(const struct lowering *l, ir_ref user, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(l->unit, user);
    bool strict = lower_ops[inst->op].flags & LOWER_STRICT || is_vector_op(inst->op);

    return ref ? plan_root(l, plan_peel(l->unit, ref, strict)) : IR_NONE;
}

/* The operand whose register the result of @ref had best take. */
static ir_ref reused_operand(const struct lowering *l, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(l->unit, ref);
    ir_ref first = operand_root(l, ref, inst->op == IR_sel ? inst->c : inst->a);

    if (l->values[first].end != ref && lower_ops[inst->op].flags & (LOWER_COMM | LOWER_ANY))
        return operand_root(l, ref, inst->b);
    return first;
}

/* --- one value -------------------------------------------------------------------------------- */

static u32 wanted(const struct coloring *c, ir_ref ref)
{
    const struct lowering *l = c->l;
    ir_ref user = l->values[ref].end, friends[3] = {c->partner[ref]};
    u32 hints = 0;

    if (ir_inst(l->unit, ref)->op != IR_phi)
        friends[1] = reused_operand(l, ref);
    if (user != ref && l->values[user].flags & VALUE_NEEDED &&
        ir_inst(l->unit, user)->op != IR_phi && reused_operand(l, user) == ref)
        friends[2] = plan_root(l, user);
    for (unsigned i = 0; i < ARRAY_SIZE(friends); i++) {
        if (friends[i] && l->values[friends[i]].reg != NO_LOC)
            hints |= 1u << l->values[friends[i]].reg;
    }
    return hints;
}

static void place(struct coloring *c, ir_ref ref)
{
    struct lowering *l = c->l;
    struct value *v = &l->values[ref];
    const struct live_range *ranges = web_ranges(l, ref);
    u32 may = v->flags & VALUE_XMM ? XMM_VALUES << LOC_XMM : GPR_VALUES;
    u32 order[3];

    order[0] = may & wanted(c, ref);
    order[1] = may & (l->ncalls ? GPR_CALLER_SAVED | XMM_VALUES << LOC_XMM : ~0u);
    order[2] = may;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        for (u32 left = order[i]; left; left &= left - 1) {
            unsigned reg = (unsigned)__builtin_ctz(left);

            if (!is_free(c, reg, ranges))
                continue;
            for (; ranges; ranges = ranges->next)
                occupy(c, reg, ranges->from, ranges->to);
            v->reg = (u8)reg;
            l->vectors |= reg >= LOC_XMM;
            return;
        }
    }
}

/* --- all -------------------------------------------------------------------------------------- */

struct candidate {
    u64 rank;
    ir_ref ref;
};

static int by_rank(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? 1 : -1;
    return x->ref < y->ref ? -1 : x->ref > y->ref;
}

/* How much it is used for the time that it takes a register away from others. */
static u64 rank(const struct lowering *l, ir_ref ref)
{
    u64 length = 0;

    for (const struct live_range *range = web_ranges(l, ref); range; range = range->next)
        length += range->to - range->from + 1;
    return ((u64)l->lives[ref].weight << 16) / (length ? length : 1);
}

static bool needs_place(const struct lowering *l, ir_ref ref)
{
    return l->values[ref].flags & VALUE_NEEDED && plan_root(l, ref) == ref;
}

static u32 find_candidates(struct lowering *l, struct candidate *candidates)
{
    u32 n = 0;

    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        if (needs_place(l, ref))
            candidates[n++] = (struct candidate){rank(l, ref), ref};
    }
    return n;
}

static void find_partners(struct coloring *c)
{
    const struct lowering *l = c->l;

    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);
        ir_ref phi, from;

        if (inst->op != IR_set || !(l->values[inst->imm].flags & VALUE_NEEDED))
            continue;
        phi = plan_root(l, (ir_ref)inst->imm);
        from = plan_root(l, plan_peel(l->unit, inst->a, true));
        if (phi == from)
            continue;
        c->partner[phi] = from;
        c->partner[from] = phi;
    }
}

static void clobber(struct coloring *c)
{
    u32 lost = GPR_CALLER_SAVED | XMM_VALUES << LOC_XMM;

    for (ir_ref ref = 1; ref < c->l->unit->ninsts && c->l->ncalls; ref++) {
        if (ir_inst(c->l->unit, ref)->op != IR_call)
            continue;
        for (u32 left = lost; left; left &= left - 1)
            occupy(c, (unsigned)__builtin_ctz(left), point_at(ref, POINT_CLOBBER),
                   point_at(ref, POINT_CLOBBER));
    }
}

int color_unit(struct lowering *l)
{
    struct arena *arena = l->unit->arena;
    u32 ninsts = l->unit->ninsts, n;
    struct coloring c = {.l = l, .words = point_at(ninsts, 0) / 64 + 1};
    struct candidate *candidates = arena_alloc_dirty(arena, ninsts * sizeof(*candidates));
    u64 *busy = arena_alloc(arena, (size_t)REGISTERS * c.words * sizeof(*busy));

    c.partner = arena_alloc(arena, ninsts * sizeof(*c.partner));
    if (!candidates || !busy || !c.partner)
        return -ENOMEM;
    for (unsigned reg = 0; reg < REGISTERS; reg++)
        c.busy[reg] = busy + (size_t)reg * c.words;
    clobber(&c);
    find_partners(&c);
    n = find_candidates(l, candidates);
    qsort(candidates, n, sizeof(*candidates), by_rank);
    for (u32 i = 0; i < n; i++)
        place(&c, candidates[i].ref);
    return 0;
}
