#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "ir/private.h"

#define TYPES_INT (1u << IR_I8 | 1u << IR_I16 | 1u << IR_I32 | 1u << IR_I64)
#define TYPES_FP (1u << IR_F32 | 1u << IR_F64)
#define TYPES_STATE (TYPES_INT | TYPES_FP | 1u << IR_V128)
#define SLOT_LIMIT 65536u
#define UNKNOWN ~0u

struct verifier {
    const struct ir_unit *unit;
    struct err *err;
    u32 *block_of;   /* by reference; UNKNOWN outside of blocks */
    u64 *dominators; /* a bit set of blocks for each block */
    u32 words;       /* of a bit set */
    u8 *been;        /* for one walk at a time: by block */
};

PRINTF_LIKE(3, 4)
static int broken(const struct verifier *v, ir_ref ref, const char *fmt, ...)
{
    const struct ir_inst *inst = &v->unit->insts[ref];
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(v->err, -EINVAL, "block %u, %%%u %s: %s", v->block_of[ref], ref,
                   inst->op < IR_OPS ? ir_op_info[inst->op].name : "?", text);
}

static enum ir_type type_of(const struct verifier *v, ir_ref ref)
{
    return v->unit->insts[ref].type;
}

static bool is_one_of(enum ir_type type, u32 types)
{
    return type < IR_TYPES && (types >> type & 1);
}

/* The blocks that a terminator may jump to; answers their number, 0 to 2. */
static unsigned successors(const struct ir_inst *term, u32 to[2])
{
    to[0] = (u32)term->imm;
    to[1] = (u32)(term->imm >> 32);
    if (term->op == IR_jump)
        return 1;
    return term->op != IR_branch ? 0 : to[0] == to[1] ? 1 : 2;
}

static const struct ir_inst *terminator(const struct ir_unit *unit, u32 block)
{
    return &unit->insts[unit->blocks[block].first + unit->blocks[block].count - 1];
}

/*
 * Blocks
 */

static int check_block(struct verifier *v, u32 b)
{
    const struct ir_unit *unit = v->unit;
    const struct ir_block *block = &unit->blocks[b];

    if (!block->count)
        return err_set(v->err, -EINVAL, "block %u: empty", b);
    if (!block->first || block->first > unit->ninsts || block->count > unit->ninsts - block->first)
        return err_set(v->err, -EINVAL, "block %u: outside the unit", b);
    for (ir_ref ref = block->first; ref < block->first + block->count; ref++) {
        const struct ir_inst *inst = &unit->insts[ref];
        bool last = ref == block->first + block->count - 1;

        if (v->block_of[ref] != UNKNOWN)
            return err_set(v->err, -EINVAL, "block %u: overlaps block %u", b, v->block_of[ref]);
        v->block_of[ref] = b;
        if (inst->op >= IR_OPS)
            return broken(v, ref, "no such operation");
        if (last && !(ir_op_info[inst->op].flags & IR_TERM))
            return broken(v, ref, "the block's last instruction is no terminator");
        if (!last && ir_op_info[inst->op].flags & IR_TERM)
            return broken(v, ref, "a terminator inside the block");
    }
    return 0;
}

static int check_targets(struct verifier *v, u32 b)
{
    u32 to[2];
    unsigned n = successors(terminator(v->unit, b), to);

    for (unsigned k = 0; k < n; k++) {
        if (to[k] >= v->unit->nblocks)
            return broken(v, terminator(v->unit, b) - v->unit->insts, "no block %u", to[k]);
    }
    return 0;
}

static u64 *dominators(const struct verifier *v, u32 block)
{
    return v->dominators + (size_t)block * v->words;
}

/* Narrows the dominators of the successors of @b; true when something changed. */
static bool narrow(const struct verifier *v, u32 b)
{
    u32 to[2];
    unsigned n = successors(terminator(v->unit, b), to);
    bool changed = false;

    for (unsigned k = 0; k < n; k++) {
        for (u32 w = 0; w < v->words; w++) {
            u64 *set = dominators(v, to[k]) + w;
            u64 self = w == to[k] / 64 ? BIT(to[k] % 64) : 0;
            u64 now = *set & (dominators(v, b)[w] | self);

            changed |= now != *set;
            *set = now;
        }
    }
    return changed;
}

static void find_dominators(const struct verifier *v)
{
    bool changed;

    for (size_t i = 0; i < (size_t)v->words * v->unit->nblocks; i++)
        v->dominators[i] = ~0ull;
    for (u32 w = 0; w < v->words; w++)
        dominators(v, 0)[w] = w == 0;
    do {
        changed = false;
        for (u32 b = 0; b < v->unit->nblocks; b++)
            changed |= narrow(v, b);
    } while (changed);
}

/*
 * Phis and sets
 */

/* The set of @phi in block @b, or IR_NONE. */
static ir_ref find_set(const struct ir_unit *unit, u32 b, ir_ref phi)
{
    const struct ir_block *block = &unit->blocks[b];

    for (ir_ref ref = block->first + block->count; ref-- > block->first;) {
        if (unit->insts[ref].op == IR_set && unit->insts[ref].imm == phi)
            return ref;
    }
    return IR_NONE;
}

/* Every edge gives every phi of its destination a value. */
static int check_edges(const struct verifier *v, u32 b)
{
    const struct ir_unit *unit = v->unit;
    u32 to[2];
    unsigned n = successors(terminator(unit, b), to);

    for (unsigned k = 0; k < n; k++) {
        const struct ir_block *block = &unit->blocks[to[k]];

        for (ir_ref ref = block->first; ref < block->first + block->count; ref++) {
            if (unit->insts[ref].op == IR_phi && !find_set(unit, b, ref))
                return broken(v, ref, "block %u jumps here without a set of it", b);
        }
    }
    return 0;
}

static int check_phi(const struct verifier *v, ir_ref ref)
{
    const struct ir_unit *unit = v->unit;
    u32 b = v->block_of[ref];

    if (b == 0)
        return broken(v, ref, "a phi in the entry block");
    for (ir_ref before = unit->blocks[b].first; before < ref; before++) {
        if (unit->insts[before].op != IR_phi && unit->insts[before].op != IR_NOP)
            return broken(v, ref, "a phi behind another instruction");
    }
    return 0;
}

static int check_set(const struct verifier *v, ir_ref ref)
{
    const struct ir_unit *unit = v->unit;
    const struct ir_inst *set = &unit->insts[ref];
    u32 to[2], b = v->block_of[ref];
    unsigned n = successors(terminator(unit, b), to);

    if (set->imm >= unit->ninsts || unit->insts[set->imm].op != IR_phi)
        return broken(v, ref, "%%%" PRIu64 " is no phi", set->imm);
    if (type_of(v, set->a) != type_of(v, set->imm))
        return broken(v, ref, "type is not that of the phi");
    if (find_set(unit, b, set->imm) != ref)
        return broken(v, ref, "the phi is set twice");
    for (unsigned k = 0; k < n; k++) {
        if (to[k] == v->block_of[set->imm])
            return 0;
    }
    return broken(v, ref, "the block does not jump to the phi's block");
}

/*
 * Operands and immediates
 */

static int check_operand(const struct verifier *v, ir_ref ref, unsigned k)
{
    const struct ir_unit *unit = v->unit;
    const struct ir_inst *inst = &unit->insts[ref];
    ir_ref operand = ir_operand(inst, k);
    char letter = ir_op_shape[inst->op].operand[k];
    u32 b;

    if (!letter)
        return operand ? broken(v, ref, "operand %u too many", k + 1) : 0;
    if (!operand)
        return inst->op == IR_call ? 0 : broken(v, ref, "operand %u missing", k + 1);
    if (operand >= ref)
        return broken(v, ref, "operand %%%u is not defined yet", operand);
    if (unit->insts[operand].op == IR_NOP || type_of(v, operand) == IR_VOID)
        return broken(v, ref, "operand %%%u has no value", operand);
    b = v->block_of[operand];
    if (b == UNKNOWN || !(dominators(v, v->block_of[ref])[b / 64] >> b % 64 & 1))
        return broken(v, ref, "operand %%%u is not defined on every path here", operand);
    if (letter == 'T' && type_of(v, operand) != inst->type)
        return broken(v, ref, "operand %%%u is %s, not %s", operand,
                      ir_type_name(type_of(v, operand)), ir_type_name(inst->type));
    if (letter != 'T' && letter != 'S' && type_of(v, operand) != ir_letter_type(letter))
        return broken(v, ref, "operand %%%u is %s, not %s", operand,
                      ir_type_name(type_of(v, operand)), ir_type_name(ir_letter_type(letter)));
    return 0;
}

static int check_result(const struct verifier *v, ir_ref ref)
{
    const struct ir_inst *inst = &v->unit->insts[ref];
    char letter = ir_op_shape[inst->op].result;

    if (letter == 'T' ? !is_one_of(inst->type, ir_op_info[inst->op].types)
                      : inst->type != ir_letter_type(letter))
        return broken(v, ref, "cannot be %s", ir_type_name(inst->type));
    return 0;
}

static int check_call(const struct verifier *v, ir_ref ref)
{
    const struct ir_inst *inst = &v->unit->insts[ref];

    if (inst->imm >= v->unit->nhelpers)
        return broken(v, ref, "no helper %" PRIu64, inst->imm);
    for (unsigned k = 0; k < 4; k++) {
        ir_ref operand = ir_operand(inst, k);

        if (!operand != (k >= v->unit->helpers[inst->imm].nargs))
            return broken(v, ref, "%s takes %u operands", v->unit->helpers[inst->imm].name,
                          v->unit->helpers[inst->imm].nargs);
        if (operand && type_of(v, operand) != IR_I32 && type_of(v, operand) != IR_I64)
            return broken(v, ref, "operand %%%u is neither i32 nor i64", operand);
    }
    return 0;
}

static bool call_looks(const struct ir_unit *unit, const struct ir_inst *inst)
{
    u8 flags =
        inst->op == IR_call && inst->imm < unit->nhelpers ? unit->helpers[inst->imm].flags : 0;

    return flags && !(flags & IR_HELPER_PURE);
}

/* Is the slot put in @block, or on all ways behind it, before anybody can look? @been: blocks that
 * are known or being asked. */
static bool is_put_first(const struct verifier *v, u32 block, u64 slot, unsigned bytes, u8 *been)
{
    const struct ir_unit *unit = v->unit;
    bool pc = slot == unit->pc_slot && bytes == 8; /* which the goto forms write */

    if (been[block]++)
        return true;
    for (const struct ir_inst *in = &unit->insts[unit->blocks[block].first];; in++) {
        bool put = in->op == IR_put || in->op == IR_dput;
        u32 to[2], n;

        if (put && in->imm == slot && ir_type_bytes(type_of(v, in->a)) == bytes)
            return true;
        if (in->op == IR_jump || in->op == IR_branch) {
            n = successors(in, to);
            return is_put_first(v, to[0], slot, bytes, been) &&
                   is_put_first(v, to[n - 1], slot, bytes, been);
        }
        if (pc && (in->op == IR_goto || in->op == IR_goto_ind))
            return true;
        if (pc && in->op == IR_goto_if)
            continue;
        if ((in->op == IR_get && in->imm < slot + bytes &&
             slot < in->imm + ir_type_bytes((enum ir_type)in->type)) ||
            call_looks(unit, in) || in->op == IR_goto_if ||
            ir_op_info[in->op].flags & (IR_OBSERVE | IR_TERM | IR_TRAP))
            return false;
    }
}

/* A dput's value must never be needed in memory: see ops.def. */
static int check_dput(const struct verifier *v, ir_ref ref)
{
    const struct ir_unit *unit = v->unit;
    u64 slot = unit->insts[ref].imm;
    unsigned bytes = ir_type_bytes(type_of(v, unit->insts[ref].a));
    bool pc = slot == unit->pc_slot && bytes == 8;

    for (const struct ir_inst *in = &unit->insts[ref + 1];; in++) {
        bool put = in->op == IR_put || in->op == IR_dput;

        if (put || in->op == IR_get) {
            unsigned n = ir_type_bytes(put ? type_of(v, in->a) : (enum ir_type)in->type);

            if (put && in->imm == slot && n == bytes)
                return 0;
            if (in->imm < slot + bytes && slot < in->imm + n)
                break;
        } else if (in->op == IR_call) {
            if (call_looks(unit, in))
                break;
        } else if (pc && (in->op == IR_goto || in->op == IR_goto_ind)) {
            return 0;
        } else if (in->op == IR_jump || in->op == IR_branch) {
            u32 to[2];
            unsigned n = successors(in, to);

            memset(v->been, 0, unit->nblocks);
            if (is_put_first(v, to[0], slot, bytes, v->been) &&
                is_put_first(v, to[n - 1], slot, bytes, v->been))
                return 0;
            break;
        } else if (ir_op_info[in->op].flags & (IR_OBSERVE | IR_TERM)) {
            if (in->op != IR_goto_if)
                break;
        }
    }
    return broken(v, ref, "no put replaces it");
}

static int check_slot(const struct verifier *v, ir_ref ref, enum ir_type type)
{
    const struct ir_inst *inst = &v->unit->insts[ref];

    if (!is_one_of(type, TYPES_STATE))
        return broken(v, ref, "a slot cannot be %s", ir_type_name(type));
    if (inst->imm > SLOT_LIMIT - ir_type_bytes(type))
        return broken(v, ref, "slot %" PRIu64 " is out of range", inst->imm);
    return inst->op == IR_dput ? check_dput(v, ref) : 0;
}

static int check_widths(const struct verifier *v, ir_ref ref)
{
    const struct ir_inst *inst = &v->unit->insts[ref];
    enum ir_type from = type_of(v, inst->a), to = inst->type;
    unsigned from_bits = ir_bits_of[from], to_bits = ir_bits_of[to];
    bool ok;

    switch (inst->op) {
    case IR_zext:
    case IR_sext:
        ok = is_one_of(from, TYPES_INT | 1u << IR_I1) && from_bits < to_bits;
        break;
    case IR_trunc:
        ok = is_one_of(from, TYPES_INT) && from_bits > to_bits;
        break;
    case IR_extract:
        ok = is_one_of(from, TYPES_INT) && from_bits > to_bits && inst->imm <= from_bits - to_bits;
        break;
    case IR_deposit:
        from = type_of(v, inst->b);
        from_bits = ir_bits_of[from];
        ok = is_one_of(from, TYPES_INT) && from_bits < to_bits && inst->imm <= to_bits - from_bits;
        break;
    case IR_bitcast:
        ok = from_bits == to_bits && is_one_of(from, TYPES_FP) != is_one_of(to, TYPES_FP) &&
             is_one_of(from, TYPES_INT | TYPES_FP);
        break;
    case IR_fcvt:
        ok = is_one_of(from, TYPES_FP) && from != to;
        break;
    case IR_scvtf:
        ok = from == IR_I32 || from == IR_I64;
        break;
    default: /* fcvts, fcvtzs */
        ok = is_one_of(from, TYPES_FP);
        break;
    }
    return ok ? 0
              : broken(v, ref, "not from %s at bit %" PRIu64 " to %s", ir_type_name(from),
                       inst->imm, ir_type_name(to));
}

static int check_compared(const struct verifier *v, ir_ref ref, u32 types)
{
    const struct ir_inst *inst = &v->unit->insts[ref];

    if (type_of(v, inst->a) != type_of(v, inst->b) || !is_one_of(type_of(v, inst->a), types))
        return broken(v, ref, "compares %s with %s", ir_type_name(type_of(v, inst->a)),
                      ir_type_name(type_of(v, inst->b)));
    return 0;
}

/* What is special to single operations. */
static int check_meaning(const struct verifier *v, ir_ref ref)
{
    const struct ir_inst *inst = &v->unit->insts[ref];

    switch (inst->op) {
    case IR_const:
        return inst->imm & ~ir_mask_of[inst->type] ? broken(v, ref, "wider than its type") : 0;
    case IR_base:
        return (s64)inst->imm != (s32)inst->imm ? broken(v, ref, "wider than 32 bits") : 0;
    case IR_get:
        return check_slot(v, ref, inst->type);
    case IR_put:
    case IR_dput:
        return check_slot(v, ref, type_of(v, inst->a));
    case IR_eq:
    case IR_ne:
    case IR_ult:
    case IR_ule:
    case IR_slt:
    case IR_sle:
        return check_compared(v, ref, TYPES_INT);
    case IR_feq:
    case IR_funord:
    case IR_flt:
    case IR_fle:
    case IR_fltq:
    case IR_fleq:
    case IR_fflags:
    case IR_fflagsq:
        return check_compared(v, ref, TYPES_FP);
    case IR_zext:
    case IR_sext:
    case IR_trunc:
    case IR_extract:
    case IR_deposit:
    case IR_bitcast:
    case IR_fcvt:
    case IR_scvtf:
    case IR_fcvts:
    case IR_fcvtzs:
        return check_widths(v, ref);
    case IR_vzext:
        return is_one_of(type_of(v, inst->a), TYPES_FP) ? 0 : broken(v, ref, "not of a number");
    case IR_vmerge:
        return is_one_of(type_of(v, inst->b), TYPES_FP) ? 0 : broken(v, ref, "not of a number");
    case IR_fround:
        return inst->imm > 15 || (inst->imm & 7) > 4 ? broken(v, ref, "no such rounding") : 0;
    case IR_st:
        return is_one_of(type_of(v, inst->b), TYPES_STATE) ? 0 : broken(v, ref, "cannot store it");
    case IR_call:
        return check_call(v, ref);
    case IR_phi:
        return check_phi(v, ref);
    case IR_set:
        return check_set(v, ref);
    case IR_exit:
    case IR_exit_if:
        return inst->imm >> 32 ? broken(v, ref, "exit code is wider than 32 bits") : 0;
    default:
        return 0;
    }
}

static int check_inst(const struct verifier *v, ir_ref ref)
{
    const struct ir_inst *inst = &v->unit->insts[ref];
    int rc = check_result(v, ref);

    for (unsigned k = 0; k < 4 && !rc; k++)
        rc = check_operand(v, ref, k);
    if (!rc && inst->imm && !ir_op_shape[inst->op].has_imm)
        rc = broken(v, ref, "immediate %" PRIu64 " not wanted", inst->imm);
    return rc ? rc : check_meaning(v, ref);
}

static int check_unit(struct verifier *v)
{
    const struct ir_unit *unit = v->unit;
    int rc = 0;

    for (u32 b = 0; b < unit->nblocks && !rc; b++)
        rc = check_block(v, b);
    for (u32 b = 0; b < unit->nblocks && !rc; b++)
        rc = check_targets(v, b);
    if (rc)
        return rc;
    find_dominators(v);
    for (ir_ref ref = 1; ref < unit->ninsts && !rc; ref++) {
        if (unit->insts[ref].op != IR_NOP && v->block_of[ref] != UNKNOWN)
            rc = check_inst(v, ref);
    }
    for (u32 b = 0; b < unit->nblocks && !rc; b++)
        rc = check_edges(v, b);
    return rc;
}

int ir_verify(const struct ir_unit *unit, struct err *err)
{
    struct verifier v = {.unit = unit, .err = err, .words = (unit->nblocks + 63) / 64};
    int rc;

    if (unit->failed)
        return err_set(err, -EINVAL, "memory ran out while the unit was built");
    v.block_of = malloc(unit->ninsts * sizeof(*v.block_of));
    v.dominators = malloc((size_t)v.words * unit->nblocks * sizeof(*v.dominators));
    v.been = malloc(unit->nblocks);
    if (v.block_of && v.dominators && v.been) {
        for (u32 i = 0; i < unit->ninsts; i++)
            v.block_of[i] = UNKNOWN;
        rc = check_unit(&v);
    } else {
        rc = err_set(err, -ENOMEM, "no memory to verify the unit with");
    }
    free(v.block_of);
    free(v.dominators);
    free(v.been);
    return rc;
}
