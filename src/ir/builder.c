/*
 * Building a unit. On the path of every guest instruction that is translated: nothing here
 * allocates but the doubling of the instruction array, and nothing is cleared for a block but the
 * heads of the slot table.
 */
#include <string.h>

#include "ir/eval.h"
#include "ir/private.h"

enum {
    FIRST_INSTS = 128,
    FIRST_BLOCKS = 8,
    SHARES = 128,   /* entries of the table of shared values */
    GRANULES = 256, /* chains of known slots, by slot / GRANULE */
    GRANULE = 8,
    KNOWN = 255,
};

/* What the slot's bytes hold at this point of the block. */
struct known_slot {
    u32 slot;
    ir_ref value;
    u8 bytes;
    u8 next; /* index + 1 in known, 0 ends */
};

struct ir_forward {
    /* Hash of an instruction -> its reference. Never cleared: an entry counts only if it lies in
     * the current block and the instruction there is equal. */
    ir_ref shared[SHARES];
    /* Known slots may overlap only by gets, which all agree with memory; a put ends the knowledge
     * of every slot that it touches. */
    u8 head[GRANULES];
    u8 nknown;
    u8 widest; /* bytes of the widest known slot */
    struct known_slot known[KNOWN];
};

/* Stands in for the array that could not be had: a failed unit is read but never written. */
static const struct ir_inst no_inst;

static void forget_slots(struct ir_forward *forward)
{
    memset(forward->head, 0, sizeof(forward->head));
    forward->nknown = 0;
    forward->widest = 0;
}

void ir_init(struct ir_unit *unit, struct arena *arena, const struct ir_helper *helpers,
             u32 nhelpers, u32 pc_slot)
{
    *unit = (struct ir_unit){
        .arena = arena,
        .helpers = helpers,
        .nhelpers = nhelpers,
        .pc_slot = pc_slot,
        .insts = arena_alloc_dirty(arena, FIRST_INSTS * sizeof(struct ir_inst)),
        .ninsts = 1,
        .cap = FIRST_INSTS,
        .blocks = arena_alloc(arena, FIRST_BLOCKS * sizeof(struct ir_block)),
        .nblocks = 1,
        .blocks_cap = FIRST_BLOCKS,
        .forward = arena_alloc_dirty(arena, sizeof(struct ir_forward)),
    };
    if (!unit->insts || !unit->blocks || !unit->forward) {
        unit->failed = true;
        unit->insts = (struct ir_inst *)&no_inst;
        unit->nblocks = 0;
        return;
    }
    unit->insts[0] = (struct ir_inst){.op = IR_NOP};
    unit->blocks[0].first = 1;
    memset(unit->forward->shared, 0, sizeof(unit->forward->shared));
    forget_slots(unit->forward);
}

u32 ir_block_new(struct ir_unit *unit)
{
    if (unit->failed)
        return 0;
    if (unit->nblocks == unit->blocks_cap) {
        struct ir_block *blocks =
            arena_alloc(unit->arena, 2 * unit->blocks_cap * sizeof(*unit->blocks));

        if (!blocks) {
            unit->failed = true;
            return 0;
        }
        memcpy(blocks, unit->blocks, unit->nblocks * sizeof(*blocks));
        unit->blocks = blocks;
        unit->blocks_cap *= 2;
    }
    return unit->nblocks++;
}

void ir_begin(struct ir_unit *unit, u32 block)
{
    if (unit->failed)
        return;
    unit->current = block;
    unit->blocks[block] = (struct ir_block){.first = unit->ninsts};
    unit->pc_pending = false;
    forget_slots(unit->forward);
}

static bool grow(struct ir_unit *unit)
{
    struct ir_inst *insts = arena_alloc_dirty(unit->arena, 2 * (size_t)unit->cap * sizeof(*insts));

    if (!insts) {
        unit->failed = true;
        return false;
    }
    memcpy(insts, unit->insts, unit->ninsts * sizeof(*insts));
    unit->insts = insts;
    unit->cap *= 2;
    return true;
}

/* Copies in the pieces in which it was written a moment ago. A wider load would have to wait until
 * the stores have left the store buffer, and that for every instruction of every unit. */
static inline void copy_inst(struct ir_inst *to, const struct ir_inst *from)
{
    const volatile struct ir_inst *in = from;

    to->op = in->op;
    to->type = in->type;
    to->mark = 0;
    to->a = in->a;
    to->b = in->b;
    to->c = in->c;
    to->d = in->d;
    to->imm = in->imm;
}

ir_ref ir_append(struct ir_unit *unit, const struct ir_inst *inst)
{
    if (unlikely(unit->ninsts == unit->cap) && !grow(unit))
        return IR_NONE;
    copy_inst(&unit->insts[unit->ninsts], inst);
    unit->blocks[unit->current].count++;
    return unit->ninsts++;
}

/*
 * Known slots
 */

/* First and last granule whose chains may hold a slot that overlaps [slot, slot + bytes). */
static u32 first_granule(const struct ir_forward *forward, u32 slot)
{
    u32 back = forward->widest ? forward->widest - 1u : 0;

    return (slot > back ? slot - back : 0) / GRANULE;
}

static u32 last_granule(u32 slot, unsigned bytes)
{
    return (slot + bytes - 1) / GRANULE;
}

/* The known slot that holds all of [slot, slot + bytes), the exact one if there is one. */
static struct known_slot *find_slot(struct ir_forward *forward, u32 slot, unsigned bytes)
{
    struct known_slot *found = NULL;

    for (u32 g = first_granule(forward, slot); g <= slot / GRANULE; g++) {
        for (u8 i = forward->head[g % GRANULES]; i; i = forward->known[i - 1].next) {
            struct known_slot *k = &forward->known[i - 1];

            if (k->slot == slot && k->bytes == bytes)
                return k;
            if (k->slot <= slot && k->slot + k->bytes >= slot + bytes)
                found = k;
        }
    }
    return found;
}

static void remember_slot(struct ir_forward *forward, u32 slot, unsigned bytes, ir_ref value)
{
    u8 *head = &forward->head[slot / GRANULE % GRANULES];

    if (forward->nknown == KNOWN)
        forget_slots(forward);
    forward->known[forward->nknown] = (struct known_slot){slot, value, bytes, *head};
    *head = ++forward->nknown;
    if (bytes > forward->widest)
        forward->widest = bytes;
}

static void forget_overlapping(struct ir_forward *forward, u32 slot, unsigned bytes)
{
    for (u32 g = first_granule(forward, slot); g <= last_granule(slot, bytes); g++) {
        u8 *link = &forward->head[g % GRANULES];

        while (*link) {
            struct known_slot *k = &forward->known[*link - 1];

            if (k->slot < slot + bytes && slot < k->slot + k->bytes)
                *link = k->next;
            else
                link = &k->next;
        }
    }
}

static enum ir_type int_of_bits(unsigned bits)
{
    return bits == 8 ? IR_I8 : bits == 16 ? IR_I16 : bits == 32 ? IR_I32 : IR_I64;
}

/* The bytes from @offset of @value as a @type, or IR_NONE where no short way leads there. */
static ir_ref part_of_value(struct ir_unit *unit, ir_ref value, unsigned offset, enum ir_type type)
{
    enum ir_type have = ir_typeof(unit, value);
    unsigned bits = ir_type_bits(type);

    if (have == type)
        return value;
    if (type == IR_V128 || type == IR_V256 || have == IR_V256)
        return IR_NONE;
    if (have == IR_V128 && !offset && (type == IR_F32 || type == IR_F64))
        return ir_vlow(unit, type, value);
    if (have == IR_V128) {
        if (offset / 8 != (offset + bits / 8 - 1) / 8)
            return IR_NONE;
        value = offset < 8 ? ir_vlo(unit, value) : ir_vhi(unit, value);
        offset %= 8;
    } else if (have == IR_F32 || have == IR_F64) {
        value = ir_bitcast(unit, int_of_bits(ir_type_bits(have)), value);
    }
    if (ir_type_bits(ir_typeof(unit, value)) != bits)
        value = ir_extract(unit, int_of_bits(bits), value, offset * 8);
    return type == IR_F32 || type == IR_F64 ? ir_bitcast(unit, type, value) : value;
}

static ir_ref emit_get(struct ir_unit *unit, const struct ir_inst *inst)
{
    u32 slot = inst->imm;
    unsigned bytes = ir_type_bytes(inst->type);
    struct known_slot *known = find_slot(unit->forward, slot, bytes);
    ir_ref ref = IR_NONE;

    if (known)
        ref = part_of_value(unit, known->value, slot - known->slot, inst->type);
    if (ref)
        return ref;
    ref = ir_append(unit, inst);
    if (ref)
        remember_slot(unit->forward, slot, bytes, ref);
    return ref;
}

static void emit_put(struct ir_unit *unit, const struct ir_inst *inst)
{
    u32 slot = inst->imm;
    unsigned bytes = ir_type_bytes(ir_typeof(unit, inst->a));
    struct known_slot *known = find_slot(unit->forward, slot, bytes);

    if (known && known->slot == slot && known->value == inst->a)
        return;
    forget_overlapping(unit->forward, slot, bytes);
    if (ir_append(unit, inst))
        remember_slot(unit->forward, slot, bytes, inst->a);
}

/*
 * Everything else
 */

static u32 hash(const struct ir_inst *inst)
{
    u64 h = inst->op * 0x9e3779b97f4a7c15ull ^ inst->imm * 0xc2b2ae3d27d4eb4full;

    h ^= (inst->a | (u64)inst->b << 32) * 0xff51afd7ed558ccdull;
    h ^= (inst->c + inst->type) * 0x165667b19e3779f9ull;
    return (h ^ h >> 29) >> 32 & (SHARES - 1);
}

static bool same(const struct ir_inst *x, const struct ir_inst *y)
{
    return x->op == y->op && x->type == y->type && x->a == y->a && x->b == y->b && x->c == y->c &&
           x->d == y->d && x->imm == y->imm;
}

static ir_ref emit_shared(struct ir_unit *unit, const struct ir_inst *inst)
{
    ir_ref *entry = &unit->forward->shared[hash(inst)];
    u32 first = unit->blocks[unit->current].first;

    if (*entry >= first && *entry < unit->ninsts && same(&unit->insts[*entry], inst))
        return *entry;
    return *entry = ir_append(unit, inst);
}

static ir_ref emit_call(struct ir_unit *unit, const struct ir_inst *inst)
{
    u8 flags = inst->imm < unit->nhelpers ? unit->helpers[inst->imm].flags : IR_HELPER_WRITES;

    if (flags & IR_HELPER_PURE)
        return emit_shared(unit, inst);
    if (flags & IR_HELPER_WRITES)
        forget_slots(unit->forward);
    return ir_append(unit, inst);
}

/* May @op read the pc slot, or leave for who does? The goto forms write it. */
static bool shows_pc(const struct ir_unit *unit, enum ir_op op, enum ir_type type, u64 imm)
{
    u32 flags = ir_op_info[op].flags;

    if (op == IR_call)
        return imm >= unit->nhelpers ||
               (unit->helpers[imm].flags & (IR_HELPER_READS | IR_HELPER_WRITES | IR_HELPER_TRAPS));
    if (op == IR_get)
        return imm < unit->pc_slot + 8 && imm + ir_type_bytes(type) > unit->pc_slot;
    if (op == IR_goto || op == IR_goto_if || op == IR_goto_ind)
        return false;
    return flags & (IR_TRAP | IR_OBSERVE | IR_TERM);
}

static void put_pc(struct ir_unit *unit)
{
    unit->pc_pending = false;
    ir_put(unit, unit->pc_slot, ir_base_plus(unit, unit->pc_offset));
}

ir_ref ir_emit(struct ir_unit *unit, enum ir_op op, enum ir_type type, ir_ref a, ir_ref b, ir_ref c,
               ir_ref d, u64 imm)
{
    struct ir_inst inst = {.op = op, .type = type, .a = a, .b = b, .c = c, .d = d, .imm = imm};
    ir_ref ref;

    if (unlikely(unit->failed))
        return IR_NONE;
    if (unit->pc_pending && shows_pc(unit, op, type, imm))
        put_pc(unit);
    switch (op) {
    case IR_const:
        inst.imm &= ir_mask_of[type];
        return emit_shared(unit, &inst);
    case IR_base:
        return emit_shared(unit, &inst);
    case IR_get:
        return emit_get(unit, &inst);
    case IR_put:
        if (imm == unit->pc_slot)
            unit->pc_pending = false;
        emit_put(unit, &inst);
        return IR_NONE;
    case IR_call:
        return emit_call(unit, &inst);
    case IR_insn:
        if (!unit->guest_insns++)
            unit->first_insn = (u32)imm;
        ir_append(unit, &inst);
        return IR_NONE;
    case IR_poll:
        unit->poll = ir_append(unit, &inst);
        return IR_NONE;
    case IR_goto:
    case IR_goto_if:
        unit->may_return |= (s64)imm <= (s64)unit->first_insn;
        break;
    case IR_goto_ind:
    case IR_exit:
    case IR_jump:
    case IR_branch:
        unit->may_return = true;
        break;
    default:
        break;
    }
    ref = ir_simplify(unit, &inst);
    if (ref || inst.op == IR_NOP)
        return ref;
    if (inst.op == IR_const)
        return emit_shared(unit, &inst);
    if (inst.op == IR_exit_if) { /* what did not leave here before does not now */
        emit_shared(unit, &inst);
        return IR_NONE;
    }
    return ir_op_info[inst.op].flags & IR_SIDE ? ir_append(unit, &inst) : emit_shared(unit, &inst);
}

void ir_drop_poll(struct ir_unit *unit)
{
    if (!unit->failed && unit->poll && !unit->may_return)
        unit->insts[unit->poll] = (struct ir_inst){.op = IR_NOP};
}
