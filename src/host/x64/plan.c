/*
 * Which instructions get code, what melts into its user, and how long each value lives.
 *
 * One walk forwards counts uses and finds how long each dput can matter; one walk backwards then
 * starts from what has effects and asks for operands. A value is live over one range of the linear
 * instruction order, from its definition to its last use; a loop that it is used in makes the range
 * reach to the loop's end.
 */
#include "host/x64/lower.h"

/* Within this distance a state slot may be read by its user instead of where the get stands. */
#define FOLD_DISTANCE 16
#define SLOT_BYTES 65536

static bool is_int_compare(unsigned op)
{
    return op >= IR_eq && op <= IR_sle;
}

static bool is_fp_compare(unsigned op)
{
    return op >= IR_feq && op <= IR_fleq;
}

static unsigned type_bits(unsigned type)
{
    return type == IR_I1 ? 1 : type_bytes(type) * 8;
}

/* Loads of narrow types fill the whole register. */
static bool is_clean(const struct ir_inst *inst)
{
    return inst->op == IR_ld || inst->op == IR_get || inst->op == IR_const;
}

ir_ref plan_peel(const struct ir_unit *unit, ir_ref ref, bool strict)
{
    const struct ir_inst *inst = ir_inst(unit, ref);
    unsigned look = strict && inst->type == IR_I32 ? 64 : type_bits(inst->type);

    for (;; inst = ir_inst(unit, ref)) {
        const struct ir_inst *from = ir_inst(unit, inst->a);

        if (inst->op == IR_trunc || (inst->op == IR_extract && !inst->imm)) {
            if (inst->type == IR_I1 || look > type_bits(inst->type))
                return ref;
        } else if (inst->op == IR_zext) {
            if (look > type_bits(from->type)) {
                if (from->type != IR_I32 && from->type != IR_I1)
                    return is_clean(from) ? inst->a : ref;
                look = 64;
            }
        } else if (inst->op == IR_sext) {
            if (look > type_bits(from->type) || from->type == IR_I1)
                return ref;
        } else if (inst->op == IR_vzext) {
            if (look > type_bits(from->type) && from->op != IR_ld)
                return ref;
        } else if (inst->op != IR_vlow) { /* nobody looks at a number's upper lanes */
            return ref;
        }
        ref = inst->a;
    }
}

bool plan_base_plus(const struct ir_unit *unit, ir_ref ref, s32 *offset)
{
    const struct ir_inst *inst = ir_inst(unit, ref);

    *offset = (s32)inst->imm;
    return inst->op == IR_base;
}

bool plan_fits_displacement(s64 v)
{
    return v >= -(1 << 30) && v < 1 << 30; /* leaves room for the size of the access */
}

ir_ref plan_address(const struct lowering *l, ir_ref ref, s64 imm, s32 *disp)
{
    const struct ir_inst *inst;
    s32 offset;

    ref = plan_peel(l->unit, ref, true);
    inst = ir_inst(l->unit, ref);
    *disp = plan_fits_displacement(imm) ? (s32)imm : 0;
    if (plan_base_plus(l->unit, ref, &offset))
        return ref;
    if (inst->op == IR_add && inst->type == IR_I64 && l->values[ref].uses == 1) {
        const struct ir_inst *b = ir_inst(l->unit, inst->b);

        if (b->op == IR_const && plan_fits_displacement((s64)b->imm) &&
            plan_fits_displacement(imm) && plan_fits_displacement((s64)b->imm + imm)) {
            *disp = (s32)((s64)b->imm + imm);
            return plan_peel(l->unit, inst->a, true);
        }
    }
    return ref;
}

struct plan_index plan_index(const struct lowering *l, const struct ir_inst *access)
{
    const struct ir_inst *inst;
    struct plan_index p = {0};

    p.base = plan_address(l, access->a, (s64)access->imm, &p.disp);
    inst = ir_inst(l->unit, p.base);
    if (l->abi->memory != HOST_MEMORY_DIRECT || l->abi->direct_base ||
        (access->op != IR_ld && access->op != IR_st) || !plan_fits_displacement((s64)access->imm) ||
        inst->op != IR_add || inst->type != IR_I64 || l->values[p.base].uses != 1 ||
        ir_is_const(l->unit, inst->b))
        return p;
    p.index = plan_scaled(l, inst->b, &p.shift);
    if (!p.index)
        p.index = inst->b;
    p.base = inst->a;
    return p;
}

/* May @ref's comparison move down to @pos? Its flags in MXCSR must not be missed in between. */
static bool fp_may_move(const struct lowering *l, ir_ref ref, u32 pos)
{
    if (pos - ref > 8)
        return false;
    while (++ref < pos) {
        unsigned op = ir_inst(l->unit, ref)->op;

        if (ir_op_info[op].flags & (IR_TRAP | IR_OBSERVE | IR_TERM | IR_ENV) || op == IR_call)
            return false;
    }
    return true;
}

ir_ref plan_condition(const struct lowering *l, ir_ref ref, u32 pos, bool *invert)
{
    const struct ir_inst *inst;

    *invert = false;
    for (;;) {
        inst = ir_inst(l->unit, ref);
        if (l->values[ref].uses != 1)
            return IR_NONE;
        if (is_int_compare(inst->op) || inst->op == IR_parity ||
            (inst->op == IR_trunc && inst->type == IR_I1))
            return ref;
        if (is_fp_compare(inst->op))
            return fp_may_move(l, ref, pos) ? ref : IR_NONE;
        if (inst->op != IR_not)
            return IR_NONE;
        *invert = !*invert;
        ref = inst->a;
    }
}

static bool is_zero(const struct ir_unit *unit, ir_ref ref)
{
    return ir_is_const(unit, ref) && !ir_inst(unit, ref)->imm;
}

ir_ref plan_test(const struct lowering *l, const struct ir_inst *compare)
{
    ir_ref ref;

    if ((compare->op != IR_eq && compare->op != IR_ne) || !is_zero(l->unit, compare->b))
        return IR_NONE;
    ref = compare->a;
    return ir_inst(l->unit, ref)->op == IR_and && l->values[ref].uses == 1 ? ref : IR_NONE;
}

ir_ref plan_scaled(const struct lowering *l, ir_ref ref, unsigned *shift)
{
    const struct ir_inst *inst = ir_inst(l->unit, ref), *count;

    if (inst->op != IR_shl || l->values[ref].uses != 1 || inst->type < IR_I32)
        return IR_NONE;
    count = ir_inst(l->unit, inst->b);
    if (count->op != IR_const || count->imm < 1 || count->imm > 3)
        return IR_NONE;
    *shift = (unsigned)count->imm;
    return inst->a;
}

/* --- dputs -------------------------------------------------------------------------------- */

struct dput_walk {
    struct {
        u32 slot, end;
        ir_ref ref;
    } active[MAX_ACTIVE_DPUTS];
    u32 n;
    u64 filter; /* bit slot/8 % 64: may be among the active ones */
    u32 last_trap;
};

static u64 filter_bits(u32 slot, u32 end)
{
    u64 bits = 0;

    for (u32 word = slot / 8; word <= (end - 1) / 8; word++)
        bits |= 1ull << (word & 63);
    return bits;
}

/* Slot bytes [slot, end) are read (@write false) or written: what becomes of the dputs there. A
 * dput that is not simply replaced is done at once, where it stands: as a put. */
static void dputs_touch(struct lowering *l, struct dput_walk *w, u32 slot, u32 end, bool write)
{
    if (!(w->filter & filter_bits(slot, end)))
        return;
    for (u32 i = 0; i < w->n;) {
        struct value *v = &l->values[w->active[i].ref];

        if (w->active[i].slot >= end || w->active[i].end <= slot) {
            i++;
            continue;
        }
        if (write && w->active[i].slot >= slot && w->active[i].end <= end)
            v->end = w->last_trap > w->active[i].ref ? w->last_trap : 0;
        else
            v->flags |= VALUE_STORE;
        w->active[i] = w->active[--w->n];
    }
}

static void dputs_store_all(struct lowering *l, struct dput_walk *w)
{
    for (u32 i = 0; i < w->n; i++)
        l->values[w->active[i].ref].flags |= VALUE_STORE;
    w->n = 0;
    w->filter = 0;
}

/* All state is looked at. Only the pc slot is special: goto and goto_ind write it themselves. */
static void dputs_observe(struct lowering *l, struct dput_walk *w, unsigned op)
{
    u32 pc = l->unit->pc_slot;

    if (op == IR_goto || op == IR_goto_ind)
        dputs_touch(l, w, pc, pc + 8, true);
    dputs_store_all(l, w);
}

/* All that is in effect at a jump is put again where it leads. */
static void dputs_jump(struct lowering *l, struct dput_walk *w)
{
    for (u32 i = 0; i < w->n; i++)
        l->values[w->active[i].ref].end = w->last_trap > w->active[i].ref ? w->last_trap : 0;
    w->n = 0;
    w->filter = 0;
}

static void dput_begin(struct lowering *l, struct dput_walk *w, ir_ref ref, u32 slot, u32 end)
{
    if (w->n == MAX_ACTIVE_DPUTS) {
        l->values[ref].flags |= VALUE_STORE;
        return;
    }
    w->active[w->n].slot = slot;
    w->active[w->n].end = end;
    w->active[w->n].ref = ref;
    w->n++;
    w->filter |= filter_bits(slot, end);
}

static void walk_dputs(struct lowering *l, struct dput_walk *w, ir_ref ref,
                       const struct ir_inst *inst)
{
    u32 flags = ir_op_info[inst->op].flags, slot = (u32)inst->imm;

    if (inst->op == IR_put || inst->op == IR_dput) {
        u32 end = slot + type_bytes(ir_typeof(l->unit, inst->a));

        dputs_touch(l, w, slot, end, true);
        if (inst->op == IR_dput)
            dput_begin(l, w, ref, slot, end);
    } else if (inst->op == IR_get) {
        dputs_touch(l, w, slot, slot + type_bytes(inst->type), false);
    } else if (inst->op == IR_call) {
        const struct ir_helper *helper = &l->unit->helpers[inst->imm];

        if (helper->flags & (IR_HELPER_READS | IR_HELPER_WRITES | IR_HELPER_TRAPS))
            dputs_store_all(l, w);
        l->ncalls++;
    } else if (inst->op == IR_jump || inst->op == IR_branch) {
        dputs_jump(l, w);
    } else if (flags & (IR_OBSERVE | IR_TERM) && inst->op != IR_goto_if) {
        dputs_observe(l, w, inst->op);
    }
    if (flags & IR_TRAP || inst->op == IR_goto_if)
        w->last_trap = ref;
}

static void count_operands(struct value *values, const struct ir_inst *inst)
{
    values[inst->a].uses++;
    if (!inst->b)
        return;
    values[inst->b].uses++;
    if (!inst->c)
        return;
    values[inst->c].uses++;
    if (inst->d)
        values[inst->d].uses++;
}

static void count_uses(struct lowering *l)
{
    struct dput_walk walk = {0};
    struct value *values = l->values;
    u32 nsets = 0;

    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);

        values[ref].start = ref;
        values[ref].reg = NO_LOC;
        values[ref].spill = NO_GRANULE;
        if (is_xmm_type(inst->type))
            values[ref].flags = VALUE_XMM;
        if (inst->a) /* operands come in order; counting in values[0] would be a chain of stores */
            count_operands(values, inst);
        walk_dputs(l, &walk, ref, inst);
        if (inst->op == IR_set && ++nsets > l->max_sets)
            l->max_sets = nsets;
        if (ir_op_info[inst->op].flags & IR_TERM)
            nsets = 0;
    }
}

/* --- requests ----------------------------------------------------------------------------- */

static void live_until(struct lowering *l, ir_ref ref, u32 pos)
{
    if (l->values[ref].end < pos)
        l->values[ref].end = pos;
}

static void use_at(struct lowering *l, ir_ref ref, u32 pos)
{
    l->lives[ref].weight += l->weight;
    if (l->nuses == l->uses_cap) {
        u32 cap = l->uses_cap ? 2 * l->uses_cap : 2 * l->unit->ninsts;
        struct use *uses = arena_alloc_dirty(l->unit->arena, cap * sizeof(*uses));

        if (!uses) {
            lower_fail(l, -ENOMEM);
            return;
        }
        if (l->nuses)
            memcpy(uses, l->uses, l->nuses * sizeof(*uses));
        l->uses = uses;
        l->uses_cap = cap;
    }
    l->uses[l->nuses++] = (struct use){ref, pos};
}

/* May the get at @ref be done at @pos instead? */
static bool slot_may_wait(const struct lowering *l, ir_ref ref, u32 pos)
{
    const struct ir_inst *get = ir_inst(l->unit, ref);
    u32 slot = (u32)get->imm, end = slot + type_bytes(get->type);

    if (pos - ref > FOLD_DISTANCE)
        return false;
    while (++ref < pos) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);

        if (inst->op == IR_put || inst->op == IR_dput) {
            u32 to = (u32)inst->imm;

            if (to < end && to + type_bytes(ir_typeof(l->unit, inst->a)) > slot)
                return false;
        } else if (inst->op == IR_call || inst->op == IR_phi ||
                   ir_op_info[inst->op].flags & (IR_TERM | IR_OBSERVE)) {
            return false;
        }
    }
    return true;
}

/* @bytes: what the user reads if the operand is in memory; 0: it must not be in a state slot. */
static void request(struct lowering *l, ir_ref ref, u32 pos, bool strict, unsigned bytes)
{
    const struct ir_inst *inst;
    struct value *v;
    s32 offset;

    ref = plan_peel(l->unit, ref, strict);
    inst = ir_inst(l->unit, ref);
    if (inst->op == IR_const || plan_base_plus(l->unit, ref, &offset))
        return;
    live_until(l, ref, pos);
    if (l->lives)
        use_at(l, ref, pos);
    v = &l->values[ref];
    if (inst->op == IR_get && bytes && v->uses == 1 && !(v->flags & VALUE_NEEDED) &&
        type_bytes(inst->type) >= bytes && (inst->type != IR_V128 || bytes <= 8) &&
        slot_may_wait(l, ref, pos))
        return;
    v->flags |= VALUE_NEEDED;
}

static void request_compare(struct lowering *l, const struct ir_inst *inst, u32 pos)
{
    unsigned type = ir_typeof(l->unit, inst->a);
    ir_ref test = plan_test(l, inst);

    if (test) {
        request(l, ir_inst(l->unit, test)->a, pos, false, type_bytes(type));
        request(l, ir_inst(l->unit, test)->b, pos, false, type_bytes(type));
        return;
    }
    request(l, inst->a, pos, false, type_bytes(type));
    if (inst->b)
        request(l, inst->b, pos, false, type_bytes(type));
}

static void request_condition(struct lowering *l, ir_ref ref, u32 pos)
{
    bool invert;
    ir_ref compare = plan_condition(l, ref, pos, &invert);

    if (!compare) {
        request(l, ref, pos, true, 0);
        return;
    }
    l->values[compare].flags |= VALUE_FUSED;
    request_compare(l, ir_inst(l->unit, compare), pos);
}

static void request_add(struct lowering *l, const struct ir_inst *inst, u32 pos)
{
    unsigned bytes = wide_bytes(inst->type), shift;
    ir_ref scaled = plan_scaled(l, inst->b, &shift);

    if (scaled) {
        request(l, inst->a, pos, false, bytes);
        request(l, scaled, pos, false, 0);
        return;
    }
    request(l, inst->a, pos, false, bytes);
    request(l, inst->b, pos, false, bytes);
}

static void request_set(struct lowering *l, const struct ir_inst *inst, u32 term)
{
    struct value *phi = &l->values[inst->imm];

    if (!phi->uses)
        return;
    request(l, inst->a, term, true, 0);
    phi->flags |= VALUE_NEEDED;
    if (l->lives)
        l->lives[inst->imm].weight += l->weight;
    live_until(l, (ir_ref)inst->imm, term);
    if (phi->start > term)
        phi->start = term;
}

/* Bytes that a general row's instruction reads of operand @ref. */
static unsigned read_bytes(const struct lowering *l, const struct ir_inst *inst, ir_ref ref)
{
    unsigned type = ir_typeof(l->unit, ref);

    switch (inst->op) {
    case IR_zext:
    case IR_sext:
    case IR_parity:
        return type_bytes(type);
    default:
        return is_xmm_type(type) ? type_bytes(type) : wide_bytes(type);
    }
}

static void request_address(struct lowering *l, const struct ir_inst *inst, u32 pos)
{
    struct plan_index p = plan_index(l, inst);

    request(l, p.base, pos, true, 0);
    if (p.index)
        request(l, p.index, pos, true, 0);
}

static void request_row(struct lowering *l, const struct ir_inst *inst, u32 pos)
{
    unsigned flags = lower_ops[inst->op].flags;
    bool strict = flags & LOWER_STRICT || is_vector_op(inst->op);

    if (flags & LOWER_COND)
        request_condition(l, inst->a, pos);
    else if (flags & LOWER_ADDRESS)
        request_address(l, inst, pos);
    else if (inst->a)
        request(l, inst->a, pos, strict, flags & LOWER_MEM_A ? read_bytes(l, inst, inst->a) : 0);
    if (inst->b)
        request(l, inst->b, pos, strict, flags & LOWER_MEM_B ? read_bytes(l, inst, inst->b) : 0);
    if (inst->c)
        request(l, inst->c, pos, strict, 0);
    if (inst->d)
        request(l, inst->d, pos, strict, 0);
}

static void request_operands(struct lowering *l, ir_ref ref, const struct ir_inst *inst, u32 term)
{
    switch (inst->op) {
    case IR_dput:
        if (l->values[ref].flags & VALUE_STORE)
            request(l, inst->a, ref, false, 0);
        else if (l->values[ref].end)
            request(l, inst->a, l->values[ref].end, false, 0);
        return;
    case IR_set:
        request_set(l, inst, term);
        return;
    case IR_add:
        request_add(l, inst, ref);
        return;
    case IR_eq ... IR_sle:
    case IR_feq ... IR_fleq:
        request_compare(l, inst, ref);
        return;
    default:
        request_row(l, inst, ref);
    }
}

/* How much a use counts: ten times more in each loop; nothing when only traps look. */
static void weigh(struct lowering *l, ir_ref ref, const struct ir_inst *inst)
{
    static const u32 weights[] = {1, 10, 100, 1000, 10000};
    const struct ir_unit *unit = l->unit;

    if (ir_op_info[inst->op].flags & IR_TERM) {
        u32 block = 0;

        while (ref - unit->blocks[block].first >= unit->blocks[block].count)
            block++;
        l->block = block;
    }
    l->weight =
        inst->op == IR_dput ? 0 : weights[l->depths[l->block] < 4 ? l->depths[l->block] : 4];
}

static void find_lives(struct lowering *l)
{
    u32 term = 0;

    for (ir_ref ref = l->unit->ninsts - 1; ref; ref--) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);
        unsigned flags = l->values[ref].flags;

        if (ir_op_info[inst->op].flags & IR_TERM)
            term = ref;
        if (l->lives) {
            weigh(l, ref, inst);
            if (flags & VALUE_NEEDED)
                l->lives[ref].weight += l->weight;
        }
        if (flags & VALUE_NEEDED ||
            (ir_op_info[inst->op].flags & IR_SIDE && !(flags & VALUE_FUSED)))
            request_operands(l, ref, inst, term);
    }
}

/* --- several blocks ----------------------------------------------------------------------- */

struct back_edges {
    u32 first, last; /* where the first and last jump back to a block stand, or 0 */
};

static struct back_edges find_back_edges(const struct ir_unit *unit, u32 block)
{
    struct back_edges edges = {0};

    for (u32 b = 0; b < unit->nblocks; b++) {
        u32 ref = unit->blocks[b].first + unit->blocks[b].count - 1;
        const struct ir_inst *term = ir_inst(unit, ref);
        bool leads =
            (term->op == IR_jump && (u32)term->imm == block) ||
            (term->op == IR_branch && ((u32)term->imm == block || (u32)(term->imm >> 32) == block));

        if (!leads || ref < unit->blocks[block].first)
            continue;
        if (!edges.first || ref < edges.first)
            edges.first = ref;
        if (ref > edges.last)
            edges.last = ref;
    }
    return edges;
}

/* Two loops may begin with one block: the inner one jumps back first. */
static void find_depths(struct lowering *l)
{
    const struct ir_unit *unit = l->unit;

    for (u32 header = 0; header < unit->nblocks; header++) {
        struct back_edges edges = find_back_edges(unit, header);

        for (u32 b = 0; b < unit->nblocks && edges.last; b++) {
            u32 first = unit->blocks[b].first;

            if (first >= unit->blocks[header].first)
                l->depths[b] +=
                    (first <= edges.last) + (edges.first < edges.last && first <= edges.first);
        }
    }
}

static void find_put_slots(struct lowering *l)
{
    for (ir_ref ref = 1; ref < l->unit->ninsts; ref++) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);
        u32 first = 0, last = 0;

        if (inst->op == IR_put || inst->op == IR_dput) {
            first = (u32)inst->imm;
            last = first + type_bytes(ir_typeof(l->unit, inst->a)) - 1;
        } else if (inst->op == IR_call &&
                   l->unit->helpers[inst->imm].flags & (IR_HELPER_WRITES | IR_HELPER_TRAPS)) {
            last = SLOT_BYTES - 1;
        } else {
            continue;
        }
        for (u32 word = first / 8; word <= last / 8; word++)
            l->put_slots[word / 64] |= 1ull << word % 64;
    }
}

bool plan_at_home(const struct lowering *l, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(l->unit, ref);
    u32 word = (u32)inst->imm / 8;

    if (!l->lives || inst->op != IR_get || (inst->type != IR_I64 && inst->type != IR_F64))
        return false;
    return !(inst->imm % 8) && !(l->put_slots[word / 64] >> word % 64 & 1);
}

static int plan_blocks(struct lowering *l)
{
    const struct ir_unit *unit = l->unit;

    l->lives = arena_alloc(unit->arena, unit->ninsts * sizeof(*l->lives));
    l->depths = arena_alloc(unit->arena, unit->nblocks * sizeof(*l->depths));
    l->put_slots = arena_alloc(unit->arena, SLOT_BYTES / 64);
    if (!l->lives || !l->depths || !l->put_slots)
        return -ENOMEM;
    find_depths(l);
    find_put_slots(l);
    return 0;
}

int plan_unit(struct lowering *l)
{
    int rc = 0;

    l->values = arena_alloc(l->unit->arena, l->unit->ninsts * sizeof(*l->values));
    if (!l->values)
        return -ENOMEM;
    count_uses(l);
    if (l->unit->nblocks > 1)
        rc = plan_blocks(l);
    if (rc)
        return rc;
    find_lives(l);
    return l->lives ? web_unit(l) : 0;
}
