/*
 * Which parts make up a region, and its control flow. Parts that lead back to the first one stay. A
 * part is cut where a conditional jump inside the region ends a block.
 */
#include <errno.h>
#include <string.h>

#include "opt/region.h"

u32 region_jump(const struct region *r, u32 p, const struct ir_inst *inst)
{
    s64 to = region_page(r, p) + (s64)inst->imm;

    if (inst->op != IR_goto && inst->op != IR_goto_if)
        return REGION_NONE;
    for (u32 i = 0; i < r->nparts; i++) {
        if (r->parts[i].used && r->parts[i].offset == to)
            return i;
    }
    return REGION_NONE;
}

/* Keeps the parts from which parts[0] can be reached; answers whether there is a way back at
 * all. */
static bool keep_loop(struct region *r)
{
    bool back[OPT_MAX_PARTS] = {false}, changed = true, loop = false;

    for (u32 p = 0; p < r->nparts; p++)
        r->parts[p].used = r->parts[p].unit.nblocks == 1;
    while (changed) {
        changed = false;
        for (u32 p = 0; p < r->nparts; p++) {
            const struct ir_unit *unit = &r->parts[p].unit;

            for (ir_ref ref = 1; ref < unit->ninsts && r->parts[p].used && !back[p]; ref++) {
                u32 to = region_jump(r, p, ir_inst(unit, ref));

                back[p] = to != REGION_NONE && (to == 0 || back[to]);
                changed |= back[p];
            }
        }
    }
    loop = back[0];
    for (u32 p = 0; p < r->nparts; p++)
        r->parts[p].used &= back[p];
    return loop;
}

static struct region_node *node_new(struct region *r, u32 part, ir_ref first)
{
    struct region_node *node = &r->nodes[r->nnodes++];

    *node = (struct region_node){.part = part,
                                 .first = first,
                                 .then = REGION_NONE,
                                 .otherwise = REGION_NONE,
                                 .order = REGION_NONE,
                                 .group = r->nnodes - 1};
    return node;
}

#define TO_PART 1000000u /* then, otherwise: + part, until all parts have nodes */

static int cut_part(struct region *r, u32 p)
{
    const struct ir_unit *unit = &r->parts[p].unit;
    struct region_node *node;
    u32 group;

    if (r->nnodes == REGION_NODES)
        return -E2BIG;
    node = node_new(r, p, 1);
    group = node->group;
    for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
        const struct ir_inst *inst = ir_inst(unit, ref);
        u32 to = region_jump(r, p, inst), next;

        node->last = ref;
        if (inst->op == IR_goto && to != REGION_NONE)
            node->then = TO_PART + to;
        if (inst->op != IR_goto_if)
            continue;
        next = region_jump(r, p, &inst[1]);
        if (to == REGION_NONE && next == REGION_NONE)
            continue;
        if (inst[1].op == IR_goto) { /* both ways are known: the goto melts in */
            node->then = to == REGION_NONE ? to : TO_PART + to;
            node->otherwise = next == REGION_NONE ? next : TO_PART + next;
            return 0;
        }
        if (r->nnodes == REGION_NODES)
            return -E2BIG;
        node->then = TO_PART + to;
        node->otherwise = r->nnodes;
        node = node_new(r, p, ref + 1);
        node->group = group;
    }
    return 0;
}

static u32 resolve(const struct region *r, u32 to)
{
    if (to == REGION_NONE || to < TO_PART)
        return to;
    for (u32 n = 0; n < r->nnodes; n++) {
        if (r->nodes[n].group == n && r->nodes[n].part == to - TO_PART)
            return n;
    }
    return REGION_NONE;
}

/*
 * The first time round the loop gets a copy of its own. Behind it more is known: what is constant
 * in the loop, and which variables hold the same.
 */
#define PEEL_INSNS 100 /* guest instructions that are worth making twice */

static void peel(struct region *r)
{
    u32 n = r->nnodes, insns = 0;

    for (u32 p = 0; p < r->nparts; p++) {
        if (r->parts[p].used && r->parts[p].dispatch) /* all ways meet there: nothing is known */
            return;
        insns += r->parts[p].used ? r->parts[p].unit.guest_insns : 0;
    }
    if (2 * n > REGION_NODES || insns > PEEL_INSNS)
        return;
    for (u32 i = 0; i < n; i++) {
        struct region_node *first = &r->nodes[i], *again = &r->nodes[n + i];

        *again = *first;
        again->group += n;
        if (again->then != REGION_NONE)
            again->then += n;
        if (again->otherwise != REGION_NONE)
            again->otherwise += n;
        if (first->then == 0)
            first->then = n;
        if (first->otherwise == 0)
            first->otherwise = n;
    }
    r->nnodes = 2 * n;
}

static bool leaves(const struct region *r, u32 n)
{
    return r->nodes[n].then == REGION_NONE && r->nodes[n].otherwise == REGION_NONE;
}

/* Postorder, from the end of r->order backwards. The way that is not jumped is visited last, so
 * that it comes right behind, but not if the region is left there. */
static void visit(struct region *r, u32 n, u32 *at)
{
    struct region_node *node = &r->nodes[n];
    u32 first = node->then, last = node->otherwise;

    node->order = 0;
    if (first != REGION_NONE && last != REGION_NONE && leaves(r, last)) {
        first = node->otherwise;
        last = node->then;
    }
    if (first != REGION_NONE && r->nodes[first].order == REGION_NONE)
        visit(r, first, at);
    if (last != REGION_NONE && r->nodes[last].order == REGION_NONE)
        visit(r, last, at);
    r->order[--*at] = n;
}

static int add_pred(struct region *r, u32 n, u32 to)
{
    struct region_node *node;

    if (to == REGION_NONE)
        return 0;
    node = &r->nodes[to];
    if (node->npreds && node->preds[node->npreds - 1] == n) /* both ways lead there */
        return 0;
    if (node->npreds == REGION_PREDS)
        return -E2BIG;
    node->preds[node->npreds++] = n;
    return 0;
}

static int find_preds(struct region *r)
{
    int rc = 0;

    for (u32 i = 0; i < r->nordered && !rc; i++) {
        const struct region_node *node = &r->nodes[r->order[i]];

        rc = add_pred(r, r->order[i], node->then);
        if (!rc)
            rc = add_pred(r, r->order[i], node->otherwise);
    }
    return rc;
}

int region_graph(struct region *r)
{
    u32 at = REGION_NODES;
    int rc = 0;

    if (!keep_loop(r))
        return -ENOENT;
    for (u32 p = 0; p < r->nparts && !rc; p++) {
        if (r->parts[p].used)
            rc = cut_part(r, p);
    }
    if (rc)
        return rc;
    for (u32 n = 0; n < r->nnodes; n++) {
        r->nodes[n].then = resolve(r, r->nodes[n].then);
        r->nodes[n].otherwise = resolve(r, r->nodes[n].otherwise);
    }
    peel(r);
    visit(r, 0, &at);
    r->nordered = REGION_NODES - at;
    memmove(r->order, r->order + at, r->nordered * sizeof(r->order[0]));
    for (u32 i = 0; i < r->nordered; i++)
        r->nodes[r->order[i]].order = i;
    return find_preds(r);
}
