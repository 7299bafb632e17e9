/*
 * State slots as variables, and which value each holds at every point: by names, found by going
 * round the nodes until nothing changes. Where two ways bring different values there is a phi.
 */
#include <errno.h>
#include <string.h>

#include "opt/region.h"

/* --- variables ---------------------------------------------------------------------------- */

#define MAX_ACCESSES 256

struct access {
    u32 slot, bytes;
    u8 type; /* of the first one seen */
    bool integer;
};

struct accesses {
    struct access list[MAX_ACCESSES];
    u32 n;
};

static enum ir_type access_type(const struct ir_unit *unit, const struct ir_inst *inst)
{
    return inst->op == IR_get ? (enum ir_type)inst->type : ir_typeof(unit, inst->a);
}

static bool is_access(const struct ir_inst *inst)
{
    return inst->op == IR_get || inst->op == IR_put;
}

static bool note_access(struct accesses *all, u32 slot, enum ir_type type)
{
    u32 bytes = ir_type_bytes(type), i = 0;
    bool integer = type <= IR_I64;

    for (; i < all->n && all->list[i].slot <= slot; i++) {
        if (all->list[i].slot == slot && all->list[i].bytes == bytes) {
            all->list[i].integer &= integer;
            return true;
        }
    }
    if (all->n == MAX_ACCESSES)
        return false;
    memmove(&all->list[i + 1], &all->list[i], (all->n - i) * sizeof(all->list[0]));
    all->list[i] = (struct access){slot, bytes, (u8)type, integer};
    all->n++;
    return true;
}

/* The accesses from @first on that overlap, directly or by way of each other; they become a
 * variable if one of them covers all others, and either there are no others or all are integers. */
static u32 add_var(struct region *r, const struct accesses *all, u32 first)
{
    u32 from = all->list[first].slot, to = from, n = first;
    const struct access *widest = &all->list[first];
    bool integer = true;

    do {
        const struct access *a = &all->list[n];

        if (a->slot + a->bytes > to)
            to = a->slot + a->bytes;
        if (a->bytes > widest->bytes)
            widest = a;
        integer &= a->integer;
        n++;
    } while (n < all->n && all->list[n].slot < to);
    if (r->nvars < REGION_VARS && widest->slot == from && widest->slot + widest->bytes == to &&
        (n == first + 1 || integer))
        r->vars[r->nvars++] = (struct region_var){from, to - from, widest->type};
    return n;
}

static u32 find_var(const struct region *r, u32 slot)
{
    for (u32 v = 0; v < r->nvars; v++) {
        if (slot - r->vars[v].slot < r->vars[v].bytes)
            return v;
    }
    return REGION_NONE;
}

static int find_vars(struct region *r)
{
    struct accesses all = {.n = 0};

    for (u32 p = 0; p < r->nparts; p++) {
        const struct ir_unit *unit = &r->parts[p].unit;

        for (ir_ref ref = 1; ref < unit->ninsts && r->parts[p].used; ref++) {
            const struct ir_inst *inst = ir_inst(unit, ref);

            if (is_access(inst) && !note_access(&all, (u32)inst->imm, access_type(unit, inst)))
                return -E2BIG;
        }
    }
    for (u32 i = 0; i < all.n;)
        i = add_var(r, &all, i);
    r->pc_var = find_var(r, r->parts[0].unit.pc_slot);
    for (u32 p = 0; p < r->nparts; p++) {
        const struct ir_unit *unit = &r->parts[p].unit;

        if (!r->parts[p].used)
            continue;
        if (unit->ninsts > 0xffff)
            return -E2BIG;
        r->var_of[p] = arena_alloc(r->arena, unit->ninsts);
        if (!r->var_of[p])
            return -ENOMEM;
        for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
            const struct ir_inst *inst = ir_inst(unit, ref);

            if (is_access(inst))
                r->var_of[p][ref] = (u8)(find_var(r, (u32)inst->imm) + 1);
        }
    }
    return 0;
}

/* --- names -------------------------------------------------------------------------------- */

static region_id const_name(struct region *r, const struct ir_inst *inst)
{
    for (u32 i = 0; i < r->nconsts; i++) {
        if (r->consts[i].imm == inst->imm && r->consts[i].type == inst->type)
            return region_name(ID_CONST, 0, i);
    }
    if (r->nconsts == REGION_CONSTS)
        return ID_NOTHING;
    r->consts[r->nconsts] = (struct region_const){inst->imm, inst->type};
    return region_name(ID_CONST, 0, r->nconsts++);
}

static region_id put_name(struct region *r, u32 n, ir_ref ref, const struct region_var *var)
{
    const struct ir_unit *unit = region_unit(r, n);
    const struct ir_inst *inst = ir_inst(unit, ref), *value = ir_inst(unit, inst->a);
    u32 p = r->nodes[n].part, group = r->nodes[n].group, from;
    region_id id = ID_NOTHING;

    if (!region_whole(var, (u32)inst->imm, (enum ir_type)value->type))
        return region_name(ID_DEF, group, ref);
    if (value->op == IR_const)
        id = const_name(r, value);
    if (id)
        return id;
    from = value->op == IR_get ? region_var_of(r, p, inst->a) : REGION_NONE;
    if (from != REGION_NONE &&
        region_whole(&r->vars[from], (u32)value->imm, (enum ir_type)value->type)) {
        id = r->alias[group][inst->a];
        if (region_kind(id) != ID_MEMORY)
            return id;
    }
    return region_name(ID_DEF, group, inst->a);
}

void region_step(struct region *r, u32 n, ir_ref ref, region_id *names)
{
    const struct ir_unit *unit = region_unit(r, n);
    const struct ir_inst *inst = ir_inst(unit, ref);
    u32 v;

    if (inst->op == IR_call && unit->helpers[inst->imm].flags & IR_HELPER_WRITES) {
        for (v = 0; v < r->nvars; v++)
            names[v] = region_name(ID_MEMORY, 0, v);
        return;
    }
    if (!is_access(inst))
        return;
    v = region_var_of(r, r->nodes[n].part, ref);
    if (v == REGION_NONE)
        return;
    if (inst->op == IR_get)
        r->alias[r->nodes[n].group][ref] = names[v];
    else
        names[v] = put_name(r, n, ref, &r->vars[v]);
}

/* --- around the nodes --------------------------------------------------------------------- */

static region_id meet(u32 n, u32 v, region_id a, region_id b)
{
    if (!a || a == b)
        return b;
    if (!b)
        return a;
    if (!region_in_value(a, v) && !region_in_value(b, v))
        return region_name(ID_MEMORY, 0, v);
    return region_name(ID_PHI, n, v);
}

static region_id name_at(const struct region *r, u32 n, u32 v)
{
    const struct region_node *node = &r->nodes[n];
    region_id id = n == 0 ? region_name(ID_ENTRY, 0, v) : ID_NOTHING;

    if (node->group == n && v == r->pc_var && !r->parts[node->part].dispatch)
        return region_name(ID_PC, n, 0);
    if (r->in[n][v] == region_name(ID_PHI, n, v) || region_kind(r->in[n][v]) == ID_MEMORY)
        return r->in[n][v];
    for (u32 i = 0; i < node->npreds; i++)
        id = meet(n, v, id, r->out[node->preds[i]][v]);
    return id;
}

static void find_names(struct region *r)
{
    bool changed = true;

    memset(r->in, 0, r->nnodes * sizeof(*r->in));
    memset(r->out, 0, r->nnodes * sizeof(*r->out));
    while (changed) {
        changed = false;
        for (u32 i = 0; i < r->nordered; i++) {
            u32 n = r->order[i];
            region_id names[REGION_VARS];

            for (u32 v = 0; v < r->nvars; v++)
                names[v] = r->in[n][v] = name_at(r, n, v);
            for (ir_ref ref = r->nodes[n].first; ref <= r->nodes[n].last; ref++)
                region_step(r, n, ref, names);
            changed |= memcmp(names, r->out[n], r->nvars * sizeof(names[0]));
            memcpy(r->out[n], names, r->nvars * sizeof(names[0]));
        }
    }
}

static bool use(struct region *r, region_id id)
{
    u64 *set = region_kind(id) == ID_PHI     ? &r->used[region_id_node(id)]
               : region_kind(id) == ID_ENTRY ? &r->entry_used
                                             : NULL;
    u64 bit = 1ull << region_id_what(id) % 64;

    if (!set || *set & bit)
        return false;
    *set |= bit;
    return true;
}

static void use_gets(struct region *r, u32 n)
{
    region_id names[REGION_VARS];

    memcpy(names, r->in[n], sizeof(names));
    for (ir_ref ref = r->nodes[n].first; ref <= r->nodes[n].last; ref++) {
        const struct ir_inst *inst = ir_inst(region_unit(r, n), ref);
        u32 v = is_access(inst) ? region_var_of(r, r->nodes[n].part, ref) : REGION_NONE;

        if (v != REGION_NONE &&
            (inst->op == IR_get ||
             ir_type_bytes(access_type(region_unit(r, n), inst)) < r->vars[v].bytes))
            use(r, names[v]);
        region_step(r, n, ref, names);
    }
}

/* Fills used and entry_used. */
static void find_uses(struct region *r)
{
    bool changed = true;

    memset(r->used, 0, sizeof(r->used));
    r->entry_used = 0;
    for (u32 i = 0; i < r->nordered; i++) {
        u32 n = r->order[i];

        use_gets(r, n);
        for (u32 v = 0; v < r->nvars; v++) {
            if (r->in[n][v] == region_name(ID_PHI, n, v))
                use(r, r->in[n][v]);
        }
    }
    while (changed) {
        changed = false;
        for (u32 i = 0; i < r->nordered; i++) {
            u32 n = r->order[i];

            for (u64 left = r->used[n]; left; left &= left - 1) {
                u32 v = (u32)__builtin_ctzll(left);

                if (n == 0)
                    changed |= use(r, region_name(ID_ENTRY, 0, v));
                for (u32 k = 0; k < r->nodes[n].npreds; k++)
                    changed |= use(r, r->out[r->nodes[n].preds[k]][v]);
            }
        }
    }
}

u32 region_twin(const struct region *r, u32 n, u32 v)
{
    const struct region_node *node = &r->nodes[n];

    for (u64 left = n ? r->used[n] : 0; left; left &= left - 1) {
        u32 w = (u32)__builtin_ctzll(left);
        bool same = r->in[n][w] == region_name(ID_PHI, n, w) && r->vars[w].type == r->vars[v].type;

        for (u32 i = 0; i < node->npreds && same; i++) {
            region_id id = r->out[node->preds[i]][v];

            same = id == r->out[node->preds[i]][w] && region_kind(id) != ID_MEMORY;
        }
        if (same)
            return w;
    }
    return REGION_NONE;
}

int region_slots(struct region *r)
{
    int rc = find_vars(r);

    if (rc)
        return rc;
    r->in = arena_alloc(r->arena, r->nnodes * sizeof(*r->in));
    r->out = arena_alloc(r->arena, r->nnodes * sizeof(*r->out));
    if (!r->in || !r->out)
        return -ENOMEM;
    for (u32 n = 0; n < r->nnodes; n++) {
        if (r->nodes[n].group != n)
            continue;
        r->alias[n] = arena_alloc(r->arena, region_unit(r, n)->ninsts * sizeof(region_id));
        if (!r->alias[n])
            return -ENOMEM;
    }
    find_names(r);
    find_uses(r);
    return 0;
}
