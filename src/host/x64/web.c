/*
 * Webs: a phi and the values that it is set to live in one place where none of them is still wanted
 * when another is made, so that nothing is moved on the ways into its block. What counts is where a
 * value is alive on some way, not merely between its first and last mention: of the ways apart in a
 * loop, each makes its own next value while the others still read the one before.
 */
#include "host/x64/lower.h"

#define READ(pos) point_at(pos, POINT_READ)
#define MADE(pos) point_at(pos, POINT_MADE)

struct webs {
    struct lowering *l;
    const struct ir_unit *unit;
    u32 *block_of;       /* by reference */
    u32 *first_use;      /* by reference: in uses; one more entry ends the last */
    u32 *uses;           /* positions */
    u32 *number;         /* by reference: of what lives in several blocks, from 1 */
    ir_ref *far;         /* by number */
    u32 nfar, words;     /* bits of a set of them */
    u64 *in, *out;       /* by block: sets of numbers */
    u32 *layout, *place; /* blocks in order of their code; by block: where it is there */
    u32 *last;           /* by block: the last point where a value is wanted, of one at a time */
    struct live_range **ranges; /* by reference; of a root those of its web */
};

static u64 *set_of(const struct webs *w, u64 *sets, u32 block)
{
    return sets + (size_t)block * w->words;
}

static bool is_value(const struct webs *w, ir_ref ref)
{
    return w->l->values[ref].flags & VALUE_NEEDED;
}

static u32 last_of(const struct webs *w, u32 block)
{
    return w->unit->blocks[block].first + w->unit->blocks[block].count - 1;
}

/* --- who is used where -------------------------------------------------------------------- */

static void sort_uses(struct webs *w)
{
    const struct lowering *l = w->l;

    for (u32 i = 0; i < l->nuses; i++)
        w->first_use[l->uses[i].ref + 1]++;
    for (u32 ref = 1; ref <= w->unit->ninsts; ref++)
        w->first_use[ref] += w->first_use[ref - 1];
    for (u32 i = 0; i < l->nuses; i++) /* the next entry tells how far the list got */
        w->uses[w->first_use[l->uses[i].ref]++] = l->uses[i].pos;
    for (u32 ref = w->unit->ninsts; ref; ref--)
        w->first_use[ref] = w->first_use[ref - 1];
    w->first_use[0] = 0;
}

static void number_far(struct webs *w)
{
    for (ir_ref ref = 1; ref < w->unit->ninsts; ref++) {
        bool far = false;

        for (u32 i = w->first_use[ref]; i < w->first_use[ref + 1] && is_value(w, ref); i++)
            far |= w->block_of[w->uses[i]] != w->block_of[ref];
        if (far) {
            w->far[++w->nfar] = ref;
            w->number[ref] = w->nfar;
        }
    }
    w->words = w->nfar / 64 + 1;
}

static u32 successors(const struct webs *w, u32 block, u32 to[2])
{
    const struct ir_inst *last = ir_inst(w->unit, last_of(w, block));

    to[0] = (u32)last->imm;
    to[1] = (u32)(last->imm >> 32);
    return last->op == IR_branch ? 2 : last->op == IR_jump;
}

static bool flow(struct webs *w, u32 block)
{
    u64 *in = set_of(w, w->in, block), *out = set_of(w, w->out, block);
    u32 to[2], n = successors(w, block, to);
    bool changed = false;

    for (u32 i = 0; i < n; i++) {
        const u64 *next = set_of(w, w->in, to[i]);

        for (u32 k = 0; k < w->words; k++)
            out[k] |= next[k];
    }
    for (u32 k = 0; k < w->words; k++) {
        for (u64 left = out[k] & ~in[k]; left; left &= left - 1) {
            u32 number = k * 64 + (u32)__builtin_ctzll(left);

            if (w->block_of[w->far[number]] == block)
                continue;
            in[k] |= left & -left;
            changed = true;
        }
    }
    return changed;
}

static void find_alive(struct webs *w)
{
    bool changed = true;

    for (u32 n = 1; n <= w->nfar; n++) {
        ir_ref ref = w->far[n];

        for (u32 i = w->first_use[ref]; i < w->first_use[ref + 1]; i++) {
            u32 block = w->block_of[w->uses[i]];

            if (block != w->block_of[ref])
                set_of(w, w->in, block)[n / 64] |= 1ull << n % 64;
        }
    }
    while (changed) {
        changed = false;
        for (u32 b = w->unit->nblocks; b--;)
            changed |= flow(w, b);
    }
}

/* --- ranges ------------------------------------------------------------------------------- */

/* May the result of the instruction at @pos take the place of operand @ref, read there last? */
static bool may_take(const struct webs *w, u32 pos, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(w->unit, pos);
    unsigned flags = lower_ops[inst->op].flags;
    bool strict = flags & LOWER_STRICT || is_vector_op(inst->op);
    ir_ref first = inst->op == IR_sel ? inst->c : inst->a;
    bool a = first && plan_peel(w->unit, first, strict) == ref;
    bool b = inst->b && plan_peel(w->unit, inst->b, strict) == ref;
    bool c = inst->c && plan_peel(w->unit, inst->c, strict) == ref;
    bool d = inst->d && plan_peel(w->unit, inst->d, strict) == ref;

    if (!is_value(w, pos) || flags & LOWER_ANY)
        return true;
    return (a || (b && flags & LOWER_COMM)) && (!b || flags & LOWER_COMM) && !c && !d;
}

static bool add_range(struct webs *w, struct live_range ***end, u32 from, u32 to)
{
    struct live_range *range = arena_alloc(w->unit->arena, sizeof(*range));

    if (!range)
        return false;
    *range = (struct live_range){from, to < from ? from : to, NULL};
    **end = range;
    *end = &range->next;
    return true;
}

static bool has(const struct webs *w, u64 *sets, u32 block, u32 number)
{
    return number && set_of(w, sets, block)[number / 64] >> number % 64 & 1;
}

static bool find_ranges(struct webs *w, ir_ref ref)
{
    u32 home = w->block_of[ref], number = w->number[ref];
    bool phi = ir_inst(w->unit, ref)->op == IR_phi;
    struct live_range **end = &w->ranges[ref];

    for (u32 i = w->first_use[ref]; i < w->first_use[ref + 1]; i++) {
        u32 pos = w->uses[i], block = w->block_of[pos];
        u32 point = may_take(w, pos, ref) ? READ(pos) : MADE(pos);

        if (point > w->last[block])
            w->last[block] = point;
    }
    for (u32 i = number ? 0 : w->place[home]; i < w->unit->nblocks; i++) {
        u32 b = w->layout[i];
        bool in = has(w, w->in, b, number), out = has(w, w->out, b, number);
        u32 from = in || phi ? READ(w->unit->blocks[b].first) : MADE(ref);

        if ((in || b == home) && !add_range(w, &end, from, out ? MADE(last_of(w, b)) : w->last[b]))
            return false;
        w->last[b] = 0;
        if (!number)
            break;
    }
    return true;
}

static bool meet(const struct live_range *a, const struct live_range *b)
{
    while (a && b) {
        if (a->to < b->from)
            a = a->next;
        else if (b->to < a->from)
            b = b->next;
        else
            return true;
    }
    return false;
}

static struct live_range *merge(struct live_range *a, struct live_range *b)
{
    struct live_range *all = NULL, **end = &all;

    while (a || b) {
        struct live_range **from = !b || (a && a->from < b->from) ? &a : &b;

        *end = *from;
        *from = (*from)->next;
        end = &(*end)->next;
    }
    return all;
}

/* --- webs --------------------------------------------------------------------------------- */

static void join(struct webs *w, const struct ir_inst *set)
{
    struct lowering *l = w->l;
    ir_ref phi = (ir_ref)set->imm, from = plan_peel(w->unit, set->a, true);

    if (!is_value(w, phi) || !is_value(w, from) ||
        (l->values[phi].flags ^ l->values[from].flags) & VALUE_XMM)
        return;
    phi = plan_root(l, phi); /* a phi as well, since such values must not be read at home */
    from = plan_root(l, from);
    if (phi == from || meet(w->ranges[phi], w->ranges[from]))
        return;
    w->ranges[phi] = merge(w->ranges[phi], w->ranges[from]);
    l->lives[from].root = phi;
    l->lives[phi].weight += l->lives[from].weight;
}

/* In the innermost loops first. */
static void join_all(struct webs *w)
{
    u32 deepest = 0;

    for (u32 b = 0; b < w->unit->nblocks; b++)
        deepest = w->l->depths[b] > deepest ? w->l->depths[b] : deepest;
    for (u32 depth = deepest + 1; depth--;) {
        for (ir_ref ref = 1; ref < w->unit->ninsts; ref++) {
            const struct ir_inst *inst = ir_inst(w->unit, ref);

            if (inst->op == IR_set && w->l->depths[w->block_of[ref]] == depth)
                join(w, inst);
        }
    }
}

static void sort_blocks(struct webs *w)
{
    const struct ir_block *blocks = w->unit->blocks;

    for (u32 b = 0; b < w->unit->nblocks; b++) {
        u32 i = b;

        for (; i && blocks[w->layout[i - 1]].first > blocks[b].first; i--)
            w->layout[i] = w->layout[i - 1];
        w->layout[i] = b;
    }
    for (u32 i = 0; i < w->unit->nblocks; i++)
        w->place[w->layout[i]] = i;
}

static bool get_memory(struct webs *w)
{
    struct arena *arena = w->unit->arena;
    u32 n = w->unit->ninsts;

    w->block_of = arena_alloc(arena, n * sizeof(u32));
    w->first_use = arena_alloc(arena, (n + 1) * sizeof(u32));
    w->uses = arena_alloc(arena, (w->l->nuses + 1) * sizeof(u32));
    w->number = arena_alloc(arena, n * sizeof(u32));
    w->far = arena_alloc(arena, n * sizeof(ir_ref));
    w->last = arena_alloc(arena, w->unit->nblocks * sizeof(u32));
    w->layout = arena_alloc(arena, w->unit->nblocks * sizeof(u32));
    w->place = arena_alloc(arena, w->unit->nblocks * sizeof(u32));
    w->ranges = arena_alloc(arena, n * sizeof(*w->ranges));
    return w->layout && w->place && w->block_of && w->first_use && w->uses && w->number && w->far &&
           w->last && w->ranges;
}

/* What the walk for granules looks at. */
static void set_lives(struct webs *w)
{
    for (ir_ref ref = 1; ref < w->unit->ninsts; ref++) {
        const struct live_range *range = w->ranges[ref];
        struct value *v = &w->l->values[ref];

        if (!range || plan_root(w->l, ref) != ref)
            continue;
        v->start = range->from / POINTS;
        while (range->next)
            range = range->next;
        v->end = range->to / POINTS;
    }
}

const struct live_range *web_ranges(const struct lowering *l, ir_ref ref)
{
    return l->webs->ranges[ref];
}

bool web_wanted(const struct lowering *l, ir_ref ref, u32 block)
{
    const struct value *v = &l->values[ref];
    const u64 *in = set_of(l->webs, l->webs->in, block);

    for (u32 n = 1; n <= l->webs->nfar; n++) {
        const struct value *other = &l->values[l->webs->far[n]];

        if (in[n / 64] >> n % 64 & 1 && other->reg == v->reg && other->spill == v->spill)
            return true;
    }
    return false;
}

int web_unit(struct lowering *l)
{
    struct webs *w = arena_alloc(l->unit->arena, sizeof(*w));
    size_t bytes;

    if (!w || l->error)
        return -ENOMEM;
    *w = (struct webs){.l = l, .unit = l->unit};
    if (!get_memory(w))
        return -ENOMEM;
    for (u32 b = 0; b < l->unit->nblocks; b++) {
        for (u32 i = 0; i < l->unit->blocks[b].count; i++)
            w->block_of[l->unit->blocks[b].first + i] = b;
    }
    sort_uses(w);
    number_far(w);
    bytes = (size_t)l->unit->nblocks * w->words * sizeof(u64);
    w->in = arena_alloc(l->unit->arena, bytes);
    w->out = arena_alloc(l->unit->arena, bytes);
    if (!w->in || !w->out)
        return -ENOMEM;
    sort_blocks(w);
    find_alive(w);
    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        if (is_value(w, ref) && !find_ranges(w, ref))
            return -ENOMEM;
    }
    join_all(w);
    set_lives(w);
    l->webs = w;
    return 0;
}
