/*
 * Forming a region: parts that make a loop become one unit, in which guest state lives in values.
 *
 * A block of the region begins with a put of every variable that a value holds there. That changes
 * nothing, since the slot's bytes are what they were; but it lets opt_sink take away the puts of
 * the blocks before, so that memory is written where the region is left and nowhere else.
 */
#include <errno.h>
#include <string.h>

#include "opt/region.h"

struct emitter {
    struct region *r;
    struct ir_unit *unit;
    u32 block[REGION_NODES];
    ir_ref (*phi)[REGION_VARS];
    ir_ref entry[REGION_VARS];
    ir_ref *values[REGION_NODES]; /* by group and reference */
    struct pending_set {
        ir_ref set;
        u32 node, var;
    } * sets; /* phis that come later */
    u32 nsets, sets_cap;
    region_id names[REGION_VARS]; /* at the current instruction */
};

static s64 page_of(const struct region *r, u32 n)
{
    return region_page(r, r->nodes[n].part);
}

static ir_ref address(struct emitter *e, s64 offset)
{
    return ir_base_plus(e->unit, offset);
}

/* The value of name @id of variable @v, in the current block. */
static ir_ref value_of(struct emitter *e, region_id id, u32 v)
{
    const struct region *r = e->r;
    u32 n = region_id_node(id), what = region_id_what(id);

    switch (region_kind(id)) {
    case ID_ENTRY:
        return e->entry[what];
    case ID_CONST:
        return ir_const(e->unit, (enum ir_type)r->consts[what].type, r->consts[what].imm);
    case ID_PC:
        return address(e, r->parts[r->nodes[n].part].offset);
    case ID_PHI:
        return e->phi[n][what];
    case ID_DEF:
        return e->values[n][what];
    default:
        return ir_get(e->unit, (enum ir_type)r->vars[v].type, r->vars[v].slot);
    }
}

/* --- reads and writes of a part of a variable --------------------------------------------- */

static ir_ref narrow_get(struct emitter *e, ir_ref value, const struct region_var *var, u32 slot,
                         enum ir_type type)
{
    if (var->type == type)
        return value;
    if (ir_type_bytes(type) == var->bytes)
        return ir_bitcast(e->unit, type, value);
    return ir_extract(e->unit, type, value, (slot - var->slot) * 8);
}

static ir_ref narrow_put(struct emitter *e, u32 v, u32 slot, ir_ref part)
{
    const struct region_var *var = &e->r->vars[v];

    if (ir_typeof(e->unit, part) == var->type)
        return part;
    if (ir_type_bytes(ir_typeof(e->unit, part)) == var->bytes)
        return ir_bitcast(e->unit, (enum ir_type)var->type, part);
    return ir_deposit(e->unit, value_of(e, e->names[v], v), part, (slot - var->slot) * 8);
}

/* --- instructions ------------------------------------------------------------------------- */

/* Is a jump back among the ways to @n? There the request word is looked at. */
static bool begins_loop(const struct region *r, u32 n)
{
    const struct region_node *node = &r->nodes[n];

    for (u32 i = 0; i < node->npreds; i++) {
        if (r->nodes[node->preds[i]].order >= node->order)
            return true;
    }
    return node->order == 0;
}

static ir_ref copy_access(struct emitter *e, u32 n, ir_ref ref, const struct ir_inst *inst)
{
    u32 v = region_var_of(e->r, e->r->nodes[n].part, ref);
    ir_ref *values = e->values[e->r->nodes[n].group], value;

    if (inst->op == IR_get) {
        if (v == REGION_NONE)
            return ir_get(e->unit, (enum ir_type)inst->type, (u32)inst->imm);
        return narrow_get(e, value_of(e, e->names[v], v), &e->r->vars[v], (u32)inst->imm,
                          (enum ir_type)inst->type);
    }
    if (v == REGION_NONE) {
        ir_put(e->unit, (u32)inst->imm, values[inst->a]);
        return IR_NONE;
    }
    value = narrow_put(e, v, (u32)inst->imm, values[inst->a]);
    ir_put(e->unit, e->r->vars[v].slot, value);
    return value;
}

static void copy_inst(struct emitter *e, u32 n, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(region_unit(e->r, n), ref);
    ir_ref *values = e->values[e->r->nodes[n].group];
    u64 imm = inst->imm;

    switch (inst->op) {
    case IR_NOP:
        return;
    case IR_get:
    case IR_put:
        values[ref] = copy_access(e, n, ref, inst);
        region_step(e->r, n, ref, e->names);
        return;
    case IR_base:
        values[ref] = address(e, page_of(e->r, n) + (s64)inst->imm);
        return;
    case IR_poll:
        if (!begins_loop(e->r, n))
            return;
        break;
    case IR_insn:
        imm = (u32)(imm + (u64)page_of(e->r, n)) | (imm & ~0xffffffffull);
        break;
    case IR_goto:
    case IR_goto_if:
        imm += (u64)page_of(e->r, n);
        break;
    default:
        break;
    }
    values[ref] = ir_emit(e->unit, (enum ir_op)inst->op, (enum ir_type)inst->type, values[inst->a],
                          values[inst->b], values[inst->c], values[inst->d], imm);
    region_step(e->r, n, ref, e->names);
}

/* --- blocks ------------------------------------------------------------------------------- */

/* Does @v have a phi in node @n, and one of its own? */
static bool own_phi(const struct emitter *e, u32 n, u32 v)
{
    u32 twin;

    if (e->r->in[n][v] != region_name(ID_PHI, n, v))
        return false;
    twin = region_twin(e->r, n, v);
    return twin == REGION_NONE || twin == v;
}

static void begin_node(struct emitter *e, u32 n)
{
    const struct region *r = e->r;

    ir_begin(e->unit, e->block[n]);
    memcpy(e->names, r->in[n], sizeof(e->names));
    for (u32 v = 0; v < r->nvars; v++) {
        if (own_phi(e, n, v))
            e->phi[n][v] = ir_phi(e->unit, (enum ir_type)r->vars[v].type);
    }
    for (u32 v = 0; v < r->nvars; v++) {
        if (r->in[n][v] == region_name(ID_PHI, n, v) && !e->phi[n][v])
            e->phi[n][v] = e->phi[n][region_twin(r, n, v)];
    }
    for (u32 v = 0; v < r->nvars; v++) {
        if (region_in_value(r->in[n][v], v))
            ir_put(e->unit, r->vars[v].slot, value_of(e, r->in[n][v], v));
    }
}

static void set_phi(struct emitter *e, u32 to, u32 v, region_id id)
{
    ir_ref value = value_of(e, id, v);

    if (e->unit->failed)
        return;
    if (e->nsets == e->sets_cap) {
        u32 cap = e->sets_cap ? 2 * e->sets_cap : 256;
        struct pending_set *sets = arena_alloc(e->r->arena, cap * sizeof(*sets));

        if (!sets) {
            e->unit->failed = true;
            return;
        }
        if (e->nsets)
            memcpy(sets, e->sets, e->nsets * sizeof(*sets));
        e->sets = sets;
        e->sets_cap = cap;
    }
    e->sets[e->nsets++] = (struct pending_set){e->unit->ninsts, to, v};
    ir_set(e->unit, IR_NONE, value);
}

/* The way to node @to: from node @from, or from the entry. */
static void set_phis(struct emitter *e, u32 from, u32 to)
{
    const struct region *r = e->r;

    for (u32 v = 0; to != REGION_NONE && v < r->nvars; v++) {
        if (own_phi(e, to, v))
            set_phi(e, to, v, from == REGION_NONE ? region_name(ID_ENTRY, 0, v) : r->out[from][v]);
    }
}

static void jump_out_if(struct emitter *e, u32 n, ir_ref cond, const struct ir_inst *jump)
{
    ir_goto_if(e->unit, cond, (s64)jump->imm + page_of(e->r, n));
}

static void end_node(struct emitter *e, u32 n)
{
    const struct region_node *node = &e->r->nodes[n];
    const struct ir_inst *last = ir_inst(region_unit(e->r, n), node->last);
    u32 then = node->then, otherwise = node->otherwise;
    ir_ref cond;

    if (then == REGION_NONE && otherwise == REGION_NONE) {
        copy_inst(e, n, node->last);
        return;
    }
    if (last->op == IR_goto || then == otherwise) {
        set_phis(e, n, then);
        ir_jump(e->unit, e->block[then]);
        return;
    }
    cond = e->values[node->group][last->a];
    if (then == REGION_NONE || otherwise == REGION_NONE) {
        if (then == REGION_NONE)
            jump_out_if(e, n, cond, last);
        else
            jump_out_if(e, n, ir_not(e->unit, cond), &last[1]);
        then = then == REGION_NONE ? otherwise : then;
        set_phis(e, n, then);
        ir_jump(e->unit, e->block[then]);
        return;
    }
    set_phis(e, n, then);
    set_phis(e, n, otherwise);
    ir_branch(e->unit, cond, e->block[then], e->block[otherwise]);
}

static void emit_entry(struct emitter *e)
{
    const struct region *r = e->r;

    for (u32 v = 0; v < r->nvars; v++) {
        if (r->entry_used >> v & 1)
            e->entry[v] = ir_get(e->unit, (enum ir_type)r->vars[v].type, r->vars[v].slot);
    }
    set_phis(e, REGION_NONE, 0);
    ir_jump(e->unit, e->block[0]);
}

static int emit(struct emitter *e)
{
    const struct region *r = e->r;

    for (u32 i = 0; i < r->nordered; i++) {
        u32 n = r->order[i];

        e->block[n] = ir_block_new(e->unit);
        if (r->nodes[n].group != n)
            continue;
        e->values[n] = arena_alloc(r->arena, region_unit(r, n)->ninsts * sizeof(ir_ref));
        if (!e->values[n])
            return -ENOMEM;
    }
    emit_entry(e);
    for (u32 i = 0; i < r->nordered; i++) {
        u32 n = r->order[i];

        begin_node(e, n);
        for (ir_ref ref = r->nodes[n].first; ref < r->nodes[n].last; ref++)
            copy_inst(e, n, ref);
        end_node(e, n);
    }
    if (e->unit->failed)
        return -ENOMEM;
    for (u32 i = 0; i < e->nsets; i++)
        e->unit->insts[e->sets[i].set].imm = e->phi[e->sets[i].node][e->sets[i].var];
    return 0;
}

int opt_region(struct ir_unit *region, struct arena *arena, struct opt_part *parts, u32 nparts)
{
    struct region *r = arena_alloc(arena, sizeof(*r));
    struct emitter *e = arena_alloc(arena, sizeof(*e));
    int rc;

    if (!r || !e)
        return -ENOMEM;
    r->arena = arena;
    r->parts = parts;
    r->nparts = nparts;
    rc = region_graph(r);
    if (!rc)
        rc = region_slots(r);
    if (rc)
        return rc;
    e->r = r;
    e->unit = region;
    e->phi = arena_alloc(arena, r->nnodes * sizeof(*e->phi));
    if (!e->phi)
        return -ENOMEM;
    ir_init(region, arena, parts[0].unit.helpers, parts[0].unit.nhelpers, parts[0].unit.pc_slot);
    return emit(e);
}
