#include "random.h"

#include <string.h>

#include "ir/eval.h"
#include "ir/private.h"

#define POOL 256
#define MAX_PHIS 2

struct pooled {
    ir_ref ref;
    enum ir_type type;
};

struct block_plan {
    unsigned nphis;
    enum ir_type phi_type[MAX_PHIS];
    ir_ref phi[MAX_PHIS];
};

struct generator {
    struct ir_unit *unit;
    const struct random_options *options;
    u64 rng;
    struct pooled pool[POOL]; /* values that may be used here: of block 0 and of this block */
    unsigned npool, nglobal;
    struct block_plan plan[8];
    struct {
        ir_ref set;
        u8 block, phi;
    } sets[64];
    unsigned nsets;
};

u64 random_next(u64 *state)
{
    u64 z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static u64 below(struct generator *g, u64 n)
{
    return random_next(&g->rng) % n;
}

/*
 * Helpers
 */

static u64 helper_pure(void *state, u64 a, u64 b)
{
    (void)state;
    return a * 3 + (b ^ 0x5555);
}

static u64 helper_reads(void *state, u64 slot)
{
    u64 value;

    memcpy(&value, (u8 *)state + slot, sizeof(value));
    return value + 1;
}

static u64 helper_writes(void *state, u64 slot, u64 value)
{
    memcpy((u8 *)state + slot, &value, sizeof(value));
    return slot;
}

static u64 helper_traps(void *state, u64 slot_base)
{
    random_trap_fn *trap;

    memcpy(&trap, (u8 *)state + slot_base + RANDOM_TRAP_SLOT, sizeof(trap));
    if (trap)
        trap(state);
    return 7;
}

static u64 helper_plain(void *state, u64 a, u64 b, u64 c, u64 d)
{
    (void)state;
    return a + 2 * b + 3 * c + 5 * d;
}

static u64 helper_nothing(void *state)
{
    (void)state;
    return 0;
}

enum { PURE, READS, WRITES, TRAPS, PLAIN, NOTHING, HELPERS };

const struct ir_helper random_helpers[] = {
    [PURE] = {"pure", (void *)helper_pure, 2, IR_HELPER_PURE},
    [READS] = {"reads", (void *)helper_reads, 1, IR_HELPER_READS},
    [WRITES] = {"writes", (void *)helper_writes, 2, IR_HELPER_WRITES | IR_HELPER_READS},
    [TRAPS] = {"traps", (void *)helper_traps, 1, IR_HELPER_TRAPS},
    [PLAIN] = {"plain", (void *)helper_plain, 4, 0},
    [NOTHING] = {"nothing", (void *)helper_nothing, 0, 0},
};
const u32 random_nhelpers = ARRAY_SIZE(random_helpers);

/*
 * Emission
 */

static ir_ref emit(struct generator *g, enum ir_op op, enum ir_type type, ir_ref a, ir_ref b,
                   ir_ref c, ir_ref d, u64 imm)
{
    struct ir_inst inst = {.op = op, .type = type, .a = a, .b = b, .c = c, .d = d, .imm = imm};
    ir_ref ref;

    if (g->options->raw && !g->unit->failed) {
        ref = ir_append(g->unit, &inst);
        if (op == IR_insn)
            g->unit->guest_insns++;
    } else {
        ref = ir_emit(g->unit, op, type, a, b, c, d, imm);
    }
    if (type != IR_VOID && g->npool < POOL)
        g->pool[g->npool++] = (struct pooled){ref, type};
    return ref;
}

static ir_ref constant(struct generator *g, enum ir_type type, u64 value)
{
    return emit(g, IR_const, type, 0, 0, 0, 0, value & ir_mask_of[type]);
}

static ir_ref random_constant(struct generator *g, enum ir_type type)
{
    static const u64 ints[] = {0,          1,          2,          7,          8,
                               31,         32,         0x7f,       0x80,       0xff,
                               0x7fff,     0x8000,     0xffff,     0x7fffffff, 0x80000000,
                               0xffffffff, ~0ull >> 1, 1ull << 63, ~0ull};
    static const double floats[] = {0, -0.0, 1, -1.5, 2.5, 1e10, -3e9, 1e300, 0x1p-1040, 1.0 / 0.0};

    if (type == IR_F32)
        return constant(g, type, ir_bits_f32((float)floats[below(g, ARRAY_SIZE(floats))]));
    if (type == IR_F64)
        return constant(g, type, ir_bits_f64(floats[below(g, ARRAY_SIZE(floats))]));
    if (type == IR_V128) {
        ir_ref lo = random_constant(g, IR_I64), hi = random_constant(g, IR_I64);

        return emit(g, IR_vec, IR_V128, lo, hi, 0, 0, 0);
    }
    return constant(g, type, below(g, 3) ? ints[below(g, ARRAY_SIZE(ints))] : random_next(&g->rng));
}

/* A value of @type: mostly a recent one, sometimes a constant. */
static ir_ref value(struct generator *g, enum ir_type type)
{
    unsigned found = 0;
    struct pooled *pick = NULL;

    if (below(g, 6)) {
        for (unsigned i = 0; i < g->npool; i++) {
            if (g->pool[i].type == type && below(g, ++found) == 0)
                pick = &g->pool[i];
        }
    }
    return pick ? pick->ref : random_constant(g, type);
}

static enum ir_type one_of(struct generator *g, u32 types)
{
    unsigned found = 0;
    enum ir_type pick = IR_VOID;

    for (unsigned type = IR_I1; type < IR_TYPES; type++) {
        if (types >> type & 1 && below(g, ++found) == 0)
            pick = type;
    }
    return pick;
}

#define TYPES_INT (1u << IR_I8 | 1u << IR_I16 | 1u << IR_I32 | 1u << IR_I64)
#define TYPES_FP (1u << IR_F32 | 1u << IR_F64)

static u32 state_types(const struct generator *g)
{
    return TYPES_INT | (g->options->floats ? TYPES_FP : 0) |
           (g->options->vectors ? 1u << IR_V128 : 0);
}

/* Integer types narrower or wider than @type. */
static u32 narrower(enum ir_type type)
{
    return TYPES_INT & ((1u << type) - 1);
}

static u32 wider(enum ir_type type)
{
    return TYPES_INT & ~((2u << type) - 1);
}

/*
 * Pure operations
 */

/* A type for the operands that the signature leaves open, given the result type; IR_VOID when there
 * is none. */
static enum ir_type source_type(struct generator *g, enum ir_op op, enum ir_type type)
{
    switch (op) {
    case IR_eq:
    case IR_ne:
    case IR_ult:
    case IR_ule:
    case IR_slt:
    case IR_sle:
        return one_of(g, TYPES_INT);
    case IR_zext:
    case IR_sext:
        return one_of(g, narrower(type) | 1u << IR_I1);
    case IR_trunc:
    case IR_extract:
        return one_of(g, wider(type));
    case IR_deposit:
        return one_of(g, narrower(type));
    case IR_bitcast:
        return type == IR_I32 ? IR_F32 : type == IR_F32 ? IR_I32 : type == IR_I64 ? IR_F64 : IR_I64;
    case IR_fcvt:
        return type == IR_F32 ? IR_F64 : IR_F32;
    case IR_scvtf:
        return one_of(g, 1u << IR_I32 | 1u << IR_I64);
    default:
        return one_of(g, TYPES_FP);
    }
}

static u64 vector_imm(struct generator *g, enum ir_op op)
{
    const char *name = ir_op_info[op].name;

    if (strstr(name, "round"))
        return below(g, 5) + 8 * below(g, 2);
    if (!strncmp(name, "vget", 4) || !strncmp(name, "vset", 4) || !strncmp(name, "vblend", 6))
        return below(g, strstr(name, "16")   ? 8
                        : strstr(name, "8")  ? 16
                        : strstr(name, "32") ? 4
                                             : 2);
    if (strstr(name, "cmp") || strstr(name, "mpsad"))
        return below(g, 8);
    if (!strncmp(name, "vb", 2) || !strcmp(name, "valign"))
        return below(g, 16);
    return below(g, strcmp(name, "vshufpd") ? 256 : 4);
}

static u64 immediate(struct generator *g, enum ir_op op, enum ir_type type, enum ir_type source)
{
    switch (op) {
    case IR_const:
        return random_next(&g->rng) & ir_mask_of[type];
    case IR_extract:
        return below(g, ir_bits_of[source] - ir_bits_of[type] + 1) & (below(g, 2) ? ~7ull : ~0ull);
    case IR_deposit:
        return below(g, ir_bits_of[type] - ir_bits_of[source] + 1) & (below(g, 2) ? ~7ull : ~0ull);
    case IR_fround:
        return below(g, 5) + 8 * below(g, 2);
    default:
        return ir_op_shape[op].has_imm ? vector_imm(g, op) : 0;
    }
}

/* Makes the operands of a division such that it neither traps nor overflows. */
static void tame_division(struct generator *g, enum ir_op op, enum ir_type type, ir_ref operand[4])
{
    u64 top = ir_mask_of[type] ^ ir_mask_of[type] >> 1;

    if (op == IR_udiv2 || op == IR_urem2) {
        operand[0] = emit(g, IR_and, type, operand[0], constant(g, type, ~top), 0, 0, 0);
        operand[2] = emit(g, IR_or, type, operand[2], constant(g, type, top), 0, 0, 0);
    } else if (op == IR_udiv || op == IR_urem) {
        operand[1] = emit(g, IR_or, type, operand[1], constant(g, type, 1), 0, 0, 0);
    } else if (op == IR_sdiv || op == IR_srem) {
        operand[1] = emit(g, IR_and, type, operand[1], constant(g, type, ~top), 0, 0, 0);
        operand[1] = emit(g, IR_or, type, operand[1], constant(g, type, 1), 0, 0, 0);
    }
}

static void pure_op(struct generator *g, enum ir_op op)
{
    const struct ir_op_shape *shape = &ir_op_shape[op];
    u32 allowed = ir_op_info[op].types & (state_types(g) | 1u << IR_I1);
    enum ir_type type = shape->result == 'T' ? IR_VOID : ir_letter_type(shape->result), source;
    ir_ref operand[4] = {0};
    bool open = false;

    if (op == IR_extract || op == IR_trunc)
        allowed &= ~(1u << IR_I64);
    else if (op == IR_deposit)
        allowed &= ~(1u << IR_I8);
    else if (op == IR_bitcast && !g->options->floats)
        return;
    if (shape->result == 'T')
        type = one_of(g, allowed);
    if (type == IR_VOID)
        return;
    for (unsigned k = 0; k < shape->nargs; k++)
        open |= shape->operand[k] == 'S';
    source = open ? source_type(g, op, type) : IR_VOID;
    if (open && source == IR_VOID)
        return;
    for (unsigned k = 0; k < shape->nargs; k++) {
        char letter = shape->operand[k];

        operand[k] = value(g, letter == 'T'   ? type
                              : letter == 'S' ? source
                                              : ir_letter_type(letter));
    }
    tame_division(g, op, type, operand);
    emit(g, op, type, operand[0], operand[1], operand[2], operand[3],
         immediate(g, op, type, source));
}

static bool is_vector(enum ir_op op)
{
    if (op >= IR_vec && op <= IR_vmerge)
        return true;
    switch (op) {
#define IR_OP(name, sig, types, flags, expr, doc) case IR_##name:
#include "ir/ops_vector.def"
#undef IR_OP
        return true;
    default:
        return false;
    }
}

static bool is_float(enum ir_op op)
{
    switch (op) {
    case IR_feq:
    case IR_funord:
    case IR_fltq:
    case IR_fleq:
        return true;
    default:
        return ir_op_info[op].flags & IR_ENV && !is_vector(op);
    }
}

/* An operation without effect on state, memory and control. */
static void any_pure(struct generator *g)
{
    for (;;) {
        enum ir_op op = below(g, IR_NOP);

        if (ir_op_info[op].flags & IR_SIDE && !(ir_op_info[op].flags & IR_ENV))
            continue;
        if (op == IR_get || (is_vector(op) && (!g->options->vectors || !below(g, 3))))
            continue;
        if (op == IR_fma && !__builtin_cpu_supports("fma"))
            continue;
        if (op >= IR_vlow && op <= IR_vmerge && !g->options->floats)
            continue;
        if ((is_float(op) && !g->options->floats) ||
            (ir_op_info[op].flags & IR_ENV && !g->options->floats))
            continue;
        pure_op(g, op);
        return;
    }
}

/*
 * State, memory, calls, exits
 */

static u32 slot(struct generator *g, enum ir_type type)
{
    u32 bytes = ir_type_bytes(type);
    /* Mostly a few slots of natural alignment, so that they meet; at times any overlap. */
    u32 offset =
        below(g, 8) ? below(g, 6) * 16 + below(g, 16 / bytes) * bytes : below(g, RANDOM_STATE - 24);

    return g->options->slot_base + 8 + (type == IR_V128 && below(g, 2) ? offset & ~7u : offset);
}

static void any_put(struct generator *g)
{
    enum ir_type type = one_of(g, state_types(g));

    /* As a lifter does it: the pc is put again and again. */
    if (!below(g, 4)) {
        ir_ref pc = emit(g, IR_add, IR_I64, emit(g, IR_base, IR_I64, 0, 0, 0, 0, 0),
                         constant(g, IR_I64, below(g, 4096)), 0, 0, 0);

        emit(g, IR_put, IR_VOID, pc, 0, 0, 0, g->unit->pc_slot);
        return;
    }
    emit(g, IR_put, IR_VOID, value(g, type), 0, 0, 0, slot(g, type));
}

static void any_get(struct generator *g)
{
    enum ir_type type = one_of(g, state_types(g));

    emit(g, IR_get, type, 0, 0, 0, 0, slot(g, type));
}

static ir_ref address(struct generator *g)
{
    bool indexed = below(g, 2);
    u64 window = indexed ? RANDOM_WINDOW / 2 : RANDOM_WINDOW;
    ir_ref offset, whole, index;

    offset = emit(g, IR_and, IR_I64, value(g, IR_I64), constant(g, IR_I64, window - 1), 0, 0, 0);
    whole = emit(g, IR_add, IR_I64, offset, constant(g, IR_I64, g->options->memory_base), 0, 0, 0);
    if (!indexed)
        return whole;
    index =
        emit(g, IR_and, IR_I64, value(g, IR_I64), constant(g, IR_I64, (window - 1) >> 3), 0, 0, 0);
    index = emit(g, IR_shl, IR_I64, index, constant(g, IR_I8, below(g, 4)), 0, 0, 0);
    return emit(g, IR_add, IR_I64, whole, index, 0, 0, 0);
}

static void any_memory(struct generator *g)
{
    enum ir_type type = one_of(g, state_types(g));
    ir_ref addr = address(g);
    u64 disp = below(g, 200) - 100;

    if (below(g, 2))
        emit(g, IR_ld, type, addr, 0, 0, 0, disp);
    else
        emit(g, IR_st, IR_VOID, addr, value(g, type), 0, 0, disp);
}

static void any_atomic(struct generator *g)
{
    static const enum ir_op ops[] = {IR_acas, IR_axchg, IR_aadd, IR_aand, IR_aor, IR_axor};
    enum ir_op op = ops[below(g, ARRAY_SIZE(ops))];
    enum ir_type type = one_of(g, TYPES_INT);
    /* Aligned, so that hosts of every kind can do it. */
    ir_ref addr = emit(g, IR_and, IR_I64, address(g), constant(g, IR_I64, ~7ull), 0, 0, 0);
    ir_ref operand = value(g, type);

    emit(g, op, type, addr, operand, op == IR_acas ? value(g, type) : IR_NONE, 0, 0);
}

static void any_call(struct generator *g)
{
    u32 helper = below(g, HELPERS);
    ir_ref operand[4] = {0};
    unsigned nargs = random_helpers[helper].nargs;
    enum ir_type type = one_of(g, TYPES_INT | 1u << IR_I1);

    for (unsigned k = 0; k < nargs; k++)
        operand[k] = value(g, below(g, 2) ? IR_I32 : IR_I64);
    if (helper == READS || helper == WRITES)
        operand[0] = constant(g, IR_I64, slot(g, IR_I64));
    if (helper == TRAPS)
        operand[0] = constant(g, IR_I64, g->options->slot_base);
    if (helper == NOTHING || !below(g, 3))
        type = IR_VOID;
    emit(g, IR_call, type, operand[0], operand[1], operand[2], operand[3], helper);
}

static void any_leave(struct generator *g)
{
    ir_ref cond = emit(g, IR_eq, IR_I1, value(g, IR_I8), value(g, IR_I8), 0, 0, 0);

    switch (below(g, 3)) {
    case 0:
        emit(g, IR_exit_if, IR_VOID, cond, 0, 0, 0, IR_EXIT_GUEST + below(g, 10));
        break;
    case 1:
        emit(g, IR_goto_if, IR_VOID, cond, 0, 0, 0, below(g, 8192) - 4096);
        break;
    default:
        emit(g, IR_poll, IR_VOID, 0, 0, 0, 0, 0);
        break;
    }
}

static void any_op(struct generator *g)
{
    const struct random_options *o = g->options;
    unsigned kind = below(g, 100);

    if (kind < 20)
        any_put(g);
    else if (kind < 32)
        any_get(g);
    else if (kind < 44 && o->memory)
        any_memory(g);
    else if (kind < 48 && o->atomics)
        any_atomic(g);
    else if (kind < 52 && o->calls)
        any_call(g);
    else if (kind < 56 && o->leaves)
        any_leave(g);
    else if (kind < 60)
        emit(g, IR_insn, IR_VOID, 0, 0, 0, 0, below(g, 4096) | (1 + below(g, 15)) << 32);
    else if (kind < 61)
        emit(g, IR_fence, IR_VOID, 0, 0, 0, 0, 0);
    else
        any_pure(g);
}

/*
 * Blocks
 */

static bool loops(const struct generator *g, u32 b)
{
    return g->plan[b].nphis && g->plan[b].phi_type[0] == IR_VOID;
}

static enum ir_type phi_type(const struct generator *g, u32 b, unsigned k)
{
    return k == 0 && loops(g, b) ? IR_I64 : g->plan[b].phi_type[k];
}

/* Phis and, for a block that jumps to itself, phi 0 as the counter (planned as void). */
static void plan_blocks(struct generator *g, u32 nblocks)
{
    for (u32 b = 1; b < nblocks; b++) {
        g->plan[b].nphis = below(g, MAX_PHIS + 1);
        for (unsigned k = 0; k < g->plan[b].nphis; k++)
            g->plan[b].phi_type[k] = one_of(g, state_types(g) | 1u << IR_I1);
        if (g->plan[b].nphis && b + 1 < nblocks && below(g, 2))
            g->plan[b].phi_type[0] = IR_VOID;
    }
}

static void set_phis(struct generator *g, u32 from, u32 to, ir_ref counter)
{
    for (unsigned k = 0; k < g->plan[to].nphis; k++) {
        ir_ref v;

        if (k == 0 && loops(g, to))
            v = from == to ? counter : constant(g, IR_I64, 1 + below(g, 3));
        else
            v = value(g, phi_type(g, to, k));
        g->sets[g->nsets].set = g->unit->ninsts;
        g->sets[g->nsets].block = to;
        g->sets[g->nsets++].phi = k;
        emit(g, IR_set, IR_VOID, v, 0, 0, 0, 0);
    }
}

static void leave_unit(struct generator *g)
{
    switch (below(g, 3)) {
    case 0:
        emit(g, IR_goto, IR_VOID, 0, 0, 0, 0, below(g, 8192) - 4096);
        break;
    case 1:
        emit(g, IR_goto_ind, IR_VOID, value(g, IR_I64), 0, 0, 0, 0);
        break;
    default:
        emit(g, IR_exit, IR_VOID, 0, 0, 0, 0, IR_EXIT_GUEST + below(g, 10));
        break;
    }
}

static void end_block(struct generator *g, u32 b, u32 nblocks)
{
    u32 to[2];
    ir_ref cond, counter = IR_NONE;

    if (b + 1 == nblocks) {
        leave_unit(g);
        return;
    }
    to[0] = b + 1 + below(g, nblocks - b - 1);
    to[1] = b + 1 + below(g, nblocks - b - 1);
    if (b && loops(g, b)) {
        to[0] = b;
        counter = emit(g, IR_sub, IR_I64, g->plan[b].phi[0], constant(g, IR_I64, 1), 0, 0, 0);
        cond = emit(g, IR_ne, IR_I1, counter, constant(g, IR_I64, 0), 0, 0, 0);
    } else {
        cond = value(g, IR_I1);
    }
    set_phis(g, b, to[0], counter);
    if (to[0] == to[1]) {
        emit(g, IR_jump, IR_VOID, 0, 0, 0, 0, to[0]);
        return;
    }
    set_phis(g, b, to[1], counter);
    emit(g, IR_branch, IR_VOID, cond, 0, 0, 0, to[0] | (u64)to[1] << 32);
}

/* Values that nothing can fold, of every type. */
static void prime_pool(struct generator *g)
{
    for (unsigned type = IR_I8; type < IR_TYPES; type++) {
        if (!(state_types(g) >> type & 1))
            continue;
        emit(g, IR_get, type, 0, 0, 0, 0, slot(g, type));
        emit(g, IR_get, type, 0, 0, 0, 0, slot(g, type));
    }
    emit(g, IR_ult, IR_I1, value(g, IR_I8), value(g, IR_I8), 0, 0, 0);
}

static void build_block(struct generator *g, u32 b, u32 nblocks, unsigned insts)
{
    ir_begin(g->unit, b);
    for (unsigned k = 0; k < g->plan[b].nphis; k++)
        g->plan[b].phi[k] = emit(g, IR_phi, phi_type(g, b, k), 0, 0, 0, 0, 0);
    if (b == 0)
        prime_pool(g);
    for (unsigned i = 0; i < insts; i++)
        any_op(g);
    /* Results must show: whatever is newest goes to memory. */
    for (unsigned i = 0; i < 4 && i < g->npool; i++) {
        struct pooled *p = &g->pool[g->npool - 1 - i];

        if (p->type != IR_I1)
            emit(g, IR_put, IR_VOID, p->ref, 0, 0, 0, slot(g, p->type));
    }
    end_block(g, b, nblocks);
    if (b == 0)
        g->nglobal = g->npool < POOL / 2 ? g->npool : POOL / 2;
    g->npool = g->nglobal;
}

struct ir_unit *random_unit(struct arena *arena, u64 seed, const struct random_options *options)
{
    struct generator g = {.options = options, .rng = seed};
    u32 nblocks = options->blocks ? options->blocks : 1;
    unsigned insts = options->insts ? options->insts : 40;

    g.unit = arena_alloc(arena, sizeof(*g.unit));
    if (!g.unit || nblocks > ARRAY_SIZE(g.plan))
        return NULL;
    ir_init(g.unit, arena, random_helpers, random_nhelpers, options->slot_base);
    for (u32 b = 1; b < nblocks; b++)
        ir_block_new(g.unit);
    plan_blocks(&g, nblocks);
    for (u32 b = 0; b < nblocks; b++)
        build_block(&g, b, nblocks, insts / nblocks + 1);
    if (g.unit->failed)
        return NULL;
    for (unsigned i = 0; i < g.nsets; i++)
        g.unit->insts[g.sets[i].set].imm = g.plan[g.sets[i].block].phi[g.sets[i].phi];
    return g.unit;
}

u64 random_atomic(u8 *p, enum ir_op op, unsigned bytes, u64 operand, u64 desired)
{
    u64 old = 0, new, mask = bytes == 8 ? ~0ull : (1ull << bytes * 8) - 1;

    memcpy(&old, p, bytes);
    switch (op) {
    case IR_acas:
        new = old == (operand & mask) ? desired : old;
        break;
    case IR_axchg:
        new = operand;
        break;
    case IR_aadd:
        new = old + operand;
        break;
    case IR_aand:
        new = old &operand;
        break;
    case IR_aor:
        new = old | operand;
        break;
    default:
        new = old ^ operand;
        break;
    }
    memcpy(p, &new, bytes);
    return old;
}
