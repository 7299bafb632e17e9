/*
 * Linear scan: one walk in instruction order gives each value a register, or a spill granule when
 * there is none: of all values alive, the one that lives longest goes to memory, for its whole
 * life. Values never move, so nothing has to be reconciled between blocks. In a unit of several
 * blocks registers are given before, by use (color.c), and the walk gives granules to the others.
 */
#include "host/x64/lower.h"

struct allocator {
    struct lowering *l;
    u32 free[2];      /* general, xmm: bit masks */
    ir_ref owner[32]; /* by value.reg */
    u32 next_call;    /* the first call behind the current instruction */
    u32 ngranules;
    u32 granule_until[HOST_SPILLS]; /* end of the last life in it */
    ir_ref sets[64];                /* of the current block: phis that have no place yet */
    u32 nsets;
};

#define GRANULES_SEARCHED 32

/* A granule that nothing used since @start; lives are inclusive at both ends. */
static bool give_granule(struct allocator *a, ir_ref ref)
{
    struct value *v = &a->l->values[ref];
    u32 first = a->ngranules > GRANULES_SEARCHED ? a->ngranules - GRANULES_SEARCHED : 0;

    v->reg = NO_LOC;
    if (plan_at_home(a->l, ref))
        return true;
    for (u32 g = first; g < a->ngranules; g++) {
        if (a->granule_until[g] < v->start) {
            a->granule_until[g] = v->end;
            v->spill = (u16)g;
            return true;
        }
    }
    if (a->ngranules == HOST_SPILLS)
        return false;
    a->granule_until[a->ngranules] = v->end;
    v->spill = (u16)a->ngranules++;
    return true;
}

static void take(struct allocator *a, ir_ref ref, unsigned reg)
{
    struct value *v = &a->l->values[ref];

    v->reg = (u8)reg;
    a->owner[reg] = ref;
    a->l->vectors |= reg >= LOC_XMM;
    a->free[reg >= LOC_XMM] &= ~(1u << (reg & 15));
}

static void release(struct allocator *a, ir_ref ref)
{
    struct value *v = &a->l->values[ref];

    if (v->flags & VALUE_FREED)
        return;
    v->flags |= VALUE_FREED;
    if (v->reg != NO_LOC) {
        a->free[v->reg >= LOC_XMM] |= 1u << (v->reg & 15);
        a->owner[v->reg] = IR_NONE;
    }
}

/* A register of @mask from who lives longest, @ref included. */
static bool evict(struct allocator *a, ir_ref ref, u32 mask, unsigned bank)
{
    struct value *values = a->l->values;
    ir_ref victim = ref;
    unsigned reg;

    for (; mask; mask &= mask - 1) {
        ir_ref owner = a->owner[bank + (unsigned)__builtin_ctz(mask)];

        if (owner && values[owner].end > values[victim].end)
            victim = owner;
    }
    if (victim == ref)
        return give_granule(a, ref);
    reg = values[victim].reg;
    a->owner[reg] = IR_NONE;
    if (!give_granule(a, victim))
        return false;
    take(a, ref, reg);
    return true;
}

static bool place(struct allocator *a, ir_ref ref, unsigned hint)
{
    struct value *v = &a->l->values[ref];
    unsigned bank = v->flags & VALUE_XMM ? LOC_XMM : 0;
    u32 mask = bank ? XMM_VALUES : GPR_VALUES, free;
    bool crosses = a->next_call && a->next_call < v->end;

    v->flags |= VALUE_PLACED;
    if (a->l->lives) /* in a register already, or with its root */
        return plan_root(a->l, ref) != ref || v->reg != NO_LOC || give_granule(a, ref);
    v->next = a->l->values[v->end].ending;
    a->l->values[v->end].ending = ref;
    if (crosses) {
        if (bank)
            return give_granule(a, ref);
        mask = GPR_CALLEE_SAVED;
    }
    free = a->free[bank != 0] & mask;
    if (hint != NO_LOC && (hint >= LOC_XMM) == (bank != 0) && free >> (hint & 15) & 1) {
        take(a, ref, hint);
        return true;
    }
    if (a->l->ncalls && !bank && !crosses && free & GPR_CALLER_SAVED)
        free &= GPR_CALLER_SAVED;
    if (!free)
        return evict(a, ref, mask, bank);
    take(a, ref, bank + (unsigned)__builtin_ctz(free));
    return true;
}

/* Frees operand @ref's register if this is its last use; answers the register as a hint. */
static unsigned release_operand(struct allocator *a, ir_ref ref, u32 pos, bool strict)
{
    struct value *v;

    if (!ref)
        return NO_LOC;
    ref = plan_peel(a->l->unit, ref, strict);
    v = &a->l->values[ref];
    if (v->end != pos || !(v->flags & VALUE_PLACED) || v->reg == NO_LOC)
        return NO_LOC;
    release(a, ref);
    return v->reg;
}

static void release_all(struct allocator *a, u32 pos)
{
    for (ir_ref ref = a->l->values[pos].ending; ref; ref = a->l->values[ref].next)
        release(a, ref);
}

static bool same_bank(const struct allocator *a, ir_ref ref, unsigned hint)
{
    return hint != NO_LOC && (hint >= LOC_XMM) == !!(a->l->values[ref].flags & VALUE_XMM);
}

/* Places the result of @inst; the operands whose register it may take are released before. */
static bool place_result(struct allocator *a, ir_ref ref, const struct ir_inst *inst)
{
    unsigned flags = lower_ops[inst->op].flags;
    bool strict = flags & LOWER_STRICT || is_vector_op(inst->op);
    ir_ref first = inst->op == IR_sel ? inst->c : inst->a;
    unsigned hint = release_operand(a, first, ref, strict);

    if (!same_bank(a, ref, hint) && flags & (LOWER_COMM | LOWER_ANY))
        hint = release_operand(a, inst->b, ref, strict);
    if (flags & LOWER_ANY)
        release_all(a, ref);
    return place(a, ref, hint);
}

/* The phis that this block is the first to set begin to live at its end. */
static bool place_phis(struct allocator *a, u32 pos)
{
    for (u32 i = 0; i < a->nsets; i++) {
        const struct ir_inst *set = ir_inst(a->l->unit, a->sets[i]);
        ir_ref phi = (ir_ref)set->imm, from = plan_peel(a->l->unit, set->a, true);

        if (a->l->values[phi].flags & VALUE_PLACED)
            continue;
        if (!place(a, phi, a->l->values[from].end == pos ? a->l->values[from].reg : NO_LOC))
            return false;
    }
    a->nsets = 0;
    return true;
}

static bool note_set(struct allocator *a, ir_ref ref, const struct ir_inst *inst)
{
    const struct value *phi = &a->l->values[inst->imm];

    if (!(phi->flags & VALUE_NEEDED) || phi->flags & VALUE_PLACED)
        return true;
    if (a->nsets == ARRAY_SIZE(a->sets))
        return false;
    a->sets[a->nsets++] = ref;
    return true;
}

static u32 find_call(const struct lowering *l, ir_ref after)
{
    if (!l->ncalls)
        return 0;
    while (++after < l->unit->ninsts) {
        if (ir_inst(l->unit, after)->op == IR_call)
            return after;
    }
    return 0;
}

static bool scan(struct allocator *a, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(a->l->unit, ref);
    const struct value *v = &a->l->values[ref];

    if (ref == a->next_call)
        a->next_call = find_call(a->l, ref);
    if (inst->op == IR_set && !note_set(a, ref, inst))
        return false;
    if ((v->flags & (VALUE_NEEDED | VALUE_PLACED)) == VALUE_NEEDED) {
        if (!place_result(a, ref, inst))
            return false;
    }
    if (v->ending)
        release_all(a, ref);
    if (ir_op_info[inst->op].flags & IR_TERM)
        return place_phis(a, ref);
    return true;
}

static void place_groups(struct lowering *l)
{
    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        const struct value *root = &l->values[plan_root(l, ref)];

        l->values[ref].reg = root->reg;
        l->values[ref].spill = root->spill;
    }
}

int alloc_unit(struct lowering *l)
{
    struct allocator a;

    if (l->lives && color_unit(l))
        return -ENOMEM;
    a.l = l;
    a.free[0] = GPR_VALUES;
    a.free[1] = XMM_VALUES;
    memset(a.owner, 0, sizeof(a.owner));
    a.ngranules = 0;
    a.nsets = 0;
    a.next_call = find_call(l, 0);
    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        if (!scan(&a, ref))
            return -E2BIG;
    }
    if (l->lives)
        place_groups(l);
    return 0;
}
