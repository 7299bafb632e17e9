#include "ir_test.h"

static u64 nothing(void *state)
{
    (void)state;
    return 0;
}

static u64 twice(void *state, u64 a)
{
    (void)state;
    return 2 * a;
}

enum { PLAIN, READS, WRITES, TRAPS, PURE };
static const struct ir_helper helpers[] = {
    [PLAIN] = {"plain", (void *)nothing, 0, 0},
    [READS] = {"reads", (void *)nothing, 0, IR_HELPER_READS},
    [WRITES] = {"writes", (void *)nothing, 0, IR_HELPER_WRITES},
    [TRAPS] = {"traps", (void *)nothing, 0, IR_HELPER_TRAPS},
    [PURE] = {"pure", (void *)twice, 1, IR_HELPER_PURE},
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct bench));
    assert_non_null(*state);
    bench_reset(*state, helpers, ARRAY_SIZE(helpers));
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    arena_free(&b->arena);
    free(b);
    return 0;
}

/*
 * Folding and identities: every pair of integer operations, with constants and a variable, gives
 * what the interpreter gives for the pair as written.
 */

static const u64 constants[] = {0,          1,          2,          7,     31,         33,
                                0x7f,       0x80,       0xff,       0x1ff, 0x7fffffff, 0x80000000,
                                0xffffffff, ~0ull >> 1, 1ull << 63, ~0ull};

/* One operation on x (operand @at) and constants, described enough to build it twice. */
struct step {
    enum ir_op op;
    enum ir_type type, from;
    unsigned at;
    u64 constant, imm;
};

static ir_ref emit_as(struct ir_unit *u, bool raw, enum ir_op op, enum ir_type type,
                      const ir_ref operand[3], u64 imm)
{
    struct ir_inst inst = {
        .op = op, .type = type, .a = operand[0], .b = operand[1], .c = operand[2], .imm = imm};

    return raw ? ir_append(u, &inst)
               : ir_emit(u, op, type, operand[0], operand[1], operand[2], 0, imm);
}

static ir_ref emit_step(struct ir_unit *u, bool raw, const struct step *s, ir_ref x)
{
    const struct ir_op_shape *shape = &ir_op_shape[s->op];
    ir_ref operand[3] = {0};

    for (unsigned k = 0; k < shape->nargs; k++) {
        char letter = shape->operand[k];
        enum ir_type type = letter == 'T'   ? s->type
                            : letter == 'S' ? s->from
                                            : ir_letter_type(letter);

        operand[k] = k == s->at ? x
                                : emit_as(u, raw, IR_const, type, (const ir_ref[3]){0},
                                          s->constant & ir_mask_of[type]);
    }
    return emit_as(u, raw, s->op, s->type, operand, s->imm);
}

/* What operand @at of the step takes; IR_VOID if there is none. */
static enum ir_type step_takes(const struct step *s)
{
    char letter = s->at < ir_op_shape[s->op].nargs ? ir_op_shape[s->op].operand[s->at] : 0;

    return letter == 'T' ? s->type : letter == 'S' ? s->from : letter ? ir_letter_type(letter) : 0;
}

/* All integer operations in all types, operand positions and with some immediates. */
static unsigned all_steps(struct step *steps, unsigned max)
{
    unsigned n = 0;

    for (unsigned op = 0; op < IR_vec; op++) {
        bool fixed = ir_op_shape[op].result != 'T';
        bool open = strchr(ir_op_info[op].signature, 'S');

        if (ir_op_info[op].flags & IR_SIDE || op == IR_base || op == IR_get || op == IR_const ||
            (op >= IR_feq && op <= IR_fleq))
            continue;
        for (unsigned type = IR_I1; type <= IR_I64; type++) {
            for (unsigned from = IR_I1; from <= IR_I64; from++) {
                u64 room =
                    ir_bits_of[from > type ? from : type] - ir_bits_of[from > type ? type : from];
                bool up = op == IR_zext || op == IR_sext || op == IR_deposit;
                bool cast = up || op == IR_trunc || op == IR_extract;

                if (fixed ? type != IR_I1 : !(ir_op_info[op].types >> type & 1))
                    continue;
                if (open ? (from == IR_I1 && op != IR_zext && op != IR_sext) : from != type)
                    continue;
                if (op == IR_bitcast || (cast && (up ? from >= type : from <= type)))
                    continue;
                for (unsigned at = 0; at < ir_op_shape[op].nargs; at++) {
                    for (unsigned i = 0; i < (ir_op_shape[op].has_imm ? 5 : 1); i++) {
                        assert_true(n < max);
                        steps[n++] = (struct step){op, type, from, at, 0, room * i / 4};
                    }
                }
            }
        }
    }
    return n;
}

/* get; inner; outer; put the result as i64. */
static void build_pair(struct bench *b, bool raw, const struct step *inner,
                       const struct step *outer)
{
    struct ir_unit *u = &b->unit;
    enum ir_type takes = step_takes(inner);
    ir_ref operand[3] = {0}, x;

    bench_reset(b, helpers, ARRAY_SIZE(helpers));
    x = emit_as(u, raw, IR_get, takes == IR_I1 ? IR_I8 : takes, operand, 8);
    if (takes == IR_I1) {
        operand[0] = x;
        x = emit_as(u, raw, IR_trunc, IR_I1, operand, 0);
    }
    operand[0] = emit_step(u, raw, outer, emit_step(u, raw, inner, x));
    if (ir_typeof(u, operand[0]) != IR_I64)
        operand[0] = emit_as(u, raw, IR_zext, IR_I64, operand, 0);
    emit_as(u, raw, IR_put, IR_VOID, operand, 16);
    ir_exit(u, IR_EXIT_GUEST);
}

static void check_pair(struct bench *raw, struct bench *built, const struct step *inner,
                       const struct step *outer)
{
    static const u64 xs[] = {0, 1, 0x80, 0xfedcba9876543210, ~0ull, 0x7fffffff80000000};

    build_pair(raw, true, inner, outer);
    build_pair(built, false, inner, outer);
    for (unsigned i = 0; i < ARRAY_SIZE(xs); i++) {
        char *text;

        bench_set_slot(raw, 8, xs[i]);
        bench_set_slot(built, 8, xs[i]);
        bench_run(raw, 0);
        bench_run(built, 0);
        if (bench_slot(raw, 16) == bench_slot(built, 16))
            continue;
        text = unit_text(&raw->unit);
        fprintf(stderr, "x %" PRIx64 ": %" PRIx64 "\n%s", xs[i], bench_slot(raw, 16), text);
        free(text);
        text = unit_text(&built->unit);
        fprintf(stderr, "but %" PRIx64 "\n%s", bench_slot(built, 16), text);
        free(text);
        fail();
    }
}

static void test_pairs_of_operations(void **state)
{
    static struct step steps[1000];
    struct bench *raw = *state, *built = calloc(1, sizeof(*built));
    unsigned n = all_steps(steps, ARRAY_SIZE(steps)), pairs = 0;
    u32 rng = 1;

    assert_non_null(built);
    for (unsigned i = 0; i < n; i++) {
        enum ir_type gives = steps[i].type;

        for (unsigned o = 0; o < n; o++) {
            struct step inner = steps[i], outer = steps[o];

            if (step_takes(&outer) != gives)
                continue;
            /* The identities that need two particular constants must meet them. */
            for (unsigned k = 0; k < (inner.op == outer.op ? 100 : 12); k++) {
                rng = rng * 1664525 + 1013904223;
                inner.constant = constants[rng >> 20 & (ARRAY_SIZE(constants) - 1)];
                outer.constant = constants[rng >> 26 & (ARRAY_SIZE(constants) - 1)];
                check_pair(raw, built, &inner, &outer);
                pairs++;
            }
        }
    }
    assert_true(pairs > 100000);
    arena_free(&built->arena);
    free(built);
}

static bool is_number(const struct ir_unit *u, ir_ref ref, u64 number)
{
    return ir_is_const(u, ref) && ir_inst(u, ref)->imm == number;
}

/* @v: a vector that nothing is known of. */
static void check_numbers_in_vectors(struct ir_unit *u, ir_ref v)
{
    ir_ref d = ir_get(u, IR_F64, 64), f = ir_get(u, IR_F32, 72), merged = ir_vmerge(u, v, d);
    ir_ref x;

    assert_int_equal(ir_vlow(u, IR_F64, ir_vzext(u, d)), d);
    assert_int_not_equal(ir_vlow(u, IR_F64, ir_vzext(u, f)), f);
    assert_int_equal(ir_vlo(u, ir_vzext(u, d)), ir_bitcast(u, IR_I64, d));
    assert_true(is_number(u, ir_vhi(u, ir_vzext(u, f)), 0));
    assert_int_equal(ir_vlow(u, IR_F64, merged), d);
    assert_int_not_equal(ir_vlow(u, IR_F32, merged), d);
    assert_int_equal(ir_vhi(u, merged), ir_vhi(u, v));
    assert_int_equal(ir_vmerge(u, v, ir_vlow(u, IR_F64, v)), v);
    assert_int_equal(ir_vmerge(u, ir_vmerge(u, v, f), d), merged);
    assert_int_not_equal(ir_vmerge(u, merged, f), ir_vmerge(u, v, f));
    x = ir_emit(u, IR_vxor, IR_V128, v, v, 0, 0, 0);
    assert_true(is_number(u, ir_vlo(u, x), 0) && is_number(u, ir_vhi(u, x), 0));
    x = ir_emit(u, IR_vsub16, IR_V128, v, v, 0, 0, 0);
    assert_true(is_number(u, ir_vlo(u, x), 0));
    x = ir_emit(u, IR_vcmpeq32, IR_V128, v, v, 0, 0, 0);
    assert_true(is_number(u, ir_vlo(u, x), ~0ull));
    x = ir_emit(u, IR_vxor, IR_V128, v, merged, 0, 0, 0);
    assert_int_equal(ir_inst(u, x)->op, IR_vxor);
}

/* What must become of some expressions, so that the identities are known to be at work. */
static void test_identities(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8), y = ir_get(u, IR_I64, 16), z = ir_get(u, IR_I32, 24);
    ir_ref zero = ir_const(u, IR_I64, 0), ones = ir_const(u, IR_I64, ~0ull);
    ir_ref five = ir_const(u, IR_I64, 5), less = ir_ult(u, x, y), in;
    ir_ref bit = ir_trunc(u, IR_I1, x);

    assert_int_equal(ir_const(u, IR_I64, 5), five);
    assert_int_equal(ir_add(u, x, zero), x);
    assert_int_equal(ir_add(u, zero, x), x);
    assert_int_equal(ir_sub(u, ir_add(u, x, five), five), x);
    assert_int_equal(ir_add(u, x, y), ir_add(u, y, x));
    assert_int_equal(ir_sub(u, x, x), zero);
    assert_int_equal(ir_inst(u, ir_sub(u, zero, x))->op, IR_neg);
    assert_int_equal(ir_and(u, x, x), x);
    assert_int_equal(ir_and(u, x, ones), x);
    assert_int_equal(ir_and(u, x, zero), zero);
    assert_int_equal(ir_or(u, x, zero), x);
    assert_int_equal(ir_or(u, x, ones), ones);
    assert_int_equal(ir_xor(u, x, x), zero);
    assert_int_equal(ir_not(u, ir_xor(u, x, ones)), x);
    assert_int_equal(ir_neg(u, ir_neg(u, x)), x);
    assert_int_equal(ir_inst(u, ir_mul(u, x, ir_const(u, IR_I64, 8)))->op, IR_shl);
    assert_int_equal(ir_shl(u, x, ir_const(u, IR_I8, 64)), x);
    assert_int_equal(ir_trunc(u, IR_I32, ir_zext(u, IR_I64, z)), z);
    assert_int_equal(ir_extract(u, IR_I32, ir_sext(u, IR_I64, z), 0), z);
    assert_int_equal(ir_extract(u, IR_I8, ir_zext(u, IR_I64, z), 32), ir_const(u, IR_I8, 0));
    in = ir_trunc(u, IR_I8, y);
    assert_int_equal(ir_extract(u, IR_I8, ir_deposit(u, x, in, 8), 8), in);
    assert_int_equal(ir_deposit(u, x, ir_extract(u, IR_I8, x, 8), 8), x);
    assert_int_not_equal(ir_deposit(u, x, ir_extract(u, IR_I8, x, 16), 8), x);
    assert_int_equal(ir_sel(u, ir_const(u, IR_I1, 1), x, y), x);
    assert_int_equal(ir_sel(u, less, x, x), x);
    assert_int_equal(ir_sel(u, bit, ir_const(u, IR_I1, 1), ir_const(u, IR_I1, 0)), bit);
    assert_int_equal(ir_sel(u, bit, ir_const(u, IR_I1, 0), ir_const(u, IR_I1, 1)), ir_not(u, bit));
    assert_int_equal(ir_sel(u, bit, ir_const(u, IR_I64, 1), zero), ir_zext(u, IR_I64, bit));
    assert_int_equal(ir_sel(u, ir_not(u, bit), x, y), ir_sel(u, bit, y, x));
    assert_int_equal(ir_ne(u, ir_zext(u, IR_I8, less), ir_const(u, IR_I8, 0)), less);
    assert_int_equal(ir_eq(u, ir_sub(u, x, y), zero), ir_eq(u, x, y));
    assert_int_equal(ir_inst(u, ir_not(u, less))->op, IR_ule);
    assert_int_equal(ir_bitcast(u, IR_I32, ir_bitcast(u, IR_F32, z)), z);
    in = ir_and(u, x, ir_const(u, IR_I64, 15));
    assert_int_equal(ir_and(u, ir_add(u, x, ir_const(u, IR_I64, 0x130)), ir_const(u, IR_I64, 15)),
                     in);
    assert_int_not_equal(ir_and(u, ir_add(u, x, ir_const(u, IR_I64, 8)), ir_const(u, IR_I64, 15)),
                         in);
    assert_int_equal(ir_and(u, ir_add(u, x, ir_const(u, IR_I64, 16)), ir_const(u, IR_I64, 12)),
                     ir_and(u, x, ir_const(u, IR_I64, 12)));
    in = ir_vec(u, x, y);
    assert_int_equal(ir_vlo(u, in), x);
    assert_int_equal(ir_vhi(u, in), y);
    in = ir_get(u, IR_V128, 32);
    assert_int_equal(ir_vec(u, ir_vlo(u, in), ir_vhi(u, in)), in);
    check_numbers_in_vectors(u, in);
    assert_int_equal(ir_inst(u, ir_ld(u, IR_I8, ir_add(u, x, five), 3))->imm, 8);
    assert_int_equal(ir_inst(u, ir_ld(u, IR_I8, ir_add(u, x, ones), 0))->imm, ~0ull);
    assert_int_equal(ir_inst(u, ir_ld(u, IR_I8, ir_add(u, x, five), 0x7fffffff))->imm, 0x7fffffff);
}

static void test_environment_operations_stay(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref one = ir_const(u, IR_F64, ir_bits_f64(1)), three = ir_const(u, IR_F64, ir_bits_f64(3));
    ir_ref quotient = ir_fdiv(u, one, three);

    assert_int_equal(ir_inst(u, quotient)->op, IR_fdiv);
    assert_int_not_equal(ir_fdiv(u, one, three), quotient);
}

static void test_sharing_ends_with_the_block(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8), y = ir_get(u, IR_I64, 16);
    ir_ref product = ir_mul(u, x, y);
    u32 next = ir_block_new(u);

    assert_int_equal(ir_mul(u, x, y), product);
    ir_jump(u, next);
    ir_begin(u, next);
    assert_int_not_equal(ir_mul(u, x, y), product);
    assert_int_not_equal(ir_get(u, IR_I64, 8), x);
}

/*
 * Slots
 */

static void test_get_after_put(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8), y = ir_get(u, IR_I64, 16), w;

    assert_int_equal(ir_get(u, IR_I64, 8), x);
    ir_put(u, 24, x);
    assert_int_equal(ir_get(u, IR_I64, 24), x);
    assert_int_equal(ir_get(u, IR_I32, 24), ir_trunc(u, IR_I32, x));
    assert_int_equal(ir_get(u, IR_I8, 25), ir_extract(u, IR_I8, x, 8));
    assert_int_equal(ir_get(u, IR_F64, 24), ir_bitcast(u, IR_F64, x));
    /* A put of a part ends the knowledge of the whole, not of its neighbours. */
    ir_put(u, 32, y);
    ir_put(u, 26, ir_trunc(u, IR_I8, y));
    w = ir_get(u, IR_I64, 24);
    assert_int_equal(ir_inst(u, w)->op, IR_get);
    assert_int_equal(ir_get(u, IR_I64, 32), y);
    assert_int_equal(ir_get(u, IR_I8, 26), ir_trunc(u, IR_I8, y));
    /* Overlap from below, across a granule. */
    ir_put(u, 28, y);
    assert_int_equal(ir_inst(u, ir_get(u, IR_I32, 32))->op, IR_extract);
    assert_int_equal(ir_inst(u, ir_get(u, IR_I64, 32))->op, IR_get);
}

static void test_vector_slots(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8), y = ir_get(u, IR_I64, 16), v = ir_vec(u, x, y);

    ir_put(u, 32, v);
    assert_int_equal(ir_get(u, IR_I64, 32), x);
    assert_int_equal(ir_get(u, IR_I64, 40), y);
    assert_int_equal(ir_get(u, IR_F32, 44), ir_bitcast(u, IR_F32, ir_extract(u, IR_I32, y, 32)));
    assert_int_equal(ir_inst(u, ir_get(u, IR_I64, 36))->op, IR_get);
    ir_put(u, 40, x);
    assert_int_equal(ir_inst(u, ir_get(u, IR_V128, 32))->op, IR_get);
    assert_int_equal(ir_get(u, IR_I64, 40), x);
}

static void test_puts_that_change_nothing(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8);

    ir_put(u, 8, x);
    assert_int_equal(count_op(u, IR_put), 0);
    ir_put(u, 16, x);
    ir_put(u, 16, x);
    assert_int_equal(count_op(u, IR_put), 1);
    ir_put(u, 16, ir_get(u, IR_I64, 24));
    ir_put(u, 16, x);
    assert_int_equal(count_op(u, IR_put), 3);
}

static void test_calls_and_slots(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8), pure;

    ir_call(u, IR_VOID, PLAIN, 0, 0, 0, 0);
    ir_call(u, IR_VOID, READS, 0, 0, 0, 0);
    ir_call(u, IR_VOID, TRAPS, 0, 0, 0, 0);
    pure = ir_call(u, IR_I64, PURE, x, 0, 0, 0);
    assert_int_equal(ir_get(u, IR_I64, 8), x);
    assert_int_equal(ir_call(u, IR_I64, PURE, x, 0, 0, 0), pure);
    ir_call(u, IR_VOID, WRITES, 0, 0, 0, 0);
    assert_int_not_equal(ir_get(u, IR_I64, 8), x);
}

static void test_many_slots(void **state)
{
    struct bench *b = *state;
    struct ir_unit *u = &b->unit;
    ir_ref value[1000];

    /* More than the table holds, and aliases in its hash: knowledge may be lost, never wrong. */
    for (unsigned i = 0; i < 1000; i++) {
        value[i] = ir_add(u, ir_get(u, IR_I64, 8), ir_const(u, IR_I64, i));
        ir_put(u, 16 + 8 * i, value[i]);
    }
    for (unsigned i = 0; i < 1000; i++) {
        ir_ref ref = ir_get(u, IR_I64, 16 + 8 * i);

        assert_true(ref == value[i] || ir_inst(u, ref)->op == IR_get);
    }
}

static void test_leaving(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;

    ir_exit_if(u, ir_const(u, IR_I1, 0), 17);
    ir_goto_if(u, ir_const(u, IR_I1, 0), 4);
    assert_int_equal(u->blocks[0].count, 1); /* the constant */
    ir_goto_ind(u, ir_add(u, ir_base(u), ir_const(u, IR_I64, 0x10)));
    /* The address is known, the mode is not: a helper before it may have changed it. */
    assert_int_equal(u->insts[u->ninsts - 1].op, IR_goto_ind);
}

/* How many puts to the pc slot, and polls, there are. */
static unsigned count_pc_puts(const struct ir_unit *u, unsigned *polls)
{
    unsigned puts = 0;

    *polls = 0;
    for (ir_ref ref = 1; ref < u->ninsts; ref++) {
        puts += u->insts[ref].op == IR_put && u->insts[ref].imm == u->pc_slot;
        *polls += u->insts[ref].op == IR_poll;
    }
    return puts;
}

static void test_pc_where_it_shows(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    unsigned polls;
    ir_ref at;

    ir_insn(u, 0x10, 4);
    ir_pc_is(u, 0x10);
    ir_put(u, 8, ir_add(u, ir_get(u, IR_I64, 8), ir_const(u, IR_I64, 1)));
    ir_goto_if(u, ir_eq(u, ir_get(u, IR_I64, 8), ir_const(u, IR_I64, 0)), 0x40);
    assert_int_equal(count_pc_puts(u, &polls), 0);
    ir_insn(u, 0x14, 4);
    ir_pc_is(u, 0x14);
    at = ir_ld(u, IR_I64, ir_get(u, IR_I64, 8), 0);
    ir_st(u, at, 0, at);
    assert_int_equal(count_pc_puts(u, &polls), 1);
    assert_int_equal(u->insts[at - 1].op, IR_put);
    assert_int_equal(u->insts[u->insts[at - 1].a].op, IR_base);
    assert_int_equal(u->insts[u->insts[at - 1].a].imm, 0x14);
    ir_pc_is(u, 0x18);
    at = ir_get(u, IR_I64, u->pc_slot);
    assert_int_equal(u->insts[at].op, IR_base);
    assert_int_equal(u->insts[at].imm, 0x18);
    ir_pc_is(u, 0x1c);
    ir_exit(u, 17);
    assert_int_equal(count_pc_puts(u, &polls), 3);
}

/* Only who may lead back to its beginning has to poll. */
static void test_poll_where_it_turns(void **state)
{
    static const struct {
        s64 from, jump, next;
        unsigned polls;
    } cases[] = {{0x10, 0x40, 0x18, 0}, {0x10, 0x10, 0x18, 1}, {0x10, 0xc, 0x18, 1},
                 {0x10, 0x18, 0xc, 1},  {0x10, 0x12, 0x18, 0}, {0, 0x2000, 4, 0}};
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ir_unit *u = &b->unit;
        unsigned polls;

        bench_reset(b, helpers, ARRAY_SIZE(helpers));
        ir_insn(u, (u32)cases[i].from, 4);
        ir_pc_is(u, cases[i].from);
        ir_poll(u);
        ir_insn(u, (u32)cases[i].from + 4, 4);
        ir_goto_if(u, ir_eq(u, ir_get(u, IR_I64, 8), ir_const(u, IR_I64, 0)), cases[i].jump);
        ir_goto(u, cases[i].next);
        ir_drop_poll(u);
        count_pc_puts(u, &polls);
        assert_int_equal(polls, cases[i].polls);
    }
    bench_reset(b, helpers, ARRAY_SIZE(helpers));
    ir_insn(&b->unit, 0, 4);
    ir_poll(&b->unit);
    ir_goto_ind(&b->unit, ir_get(&b->unit, IR_I64, 8));
    ir_drop_poll(&b->unit);
    assert_int_equal(b->unit.insts[b->unit.poll].op, IR_poll);
}

static void test_exit_once(void **state)
{
    struct ir_unit *u = &((struct bench *)*state)->unit;
    ir_ref x = ir_get(u, IR_I64, 8);
    ir_ref odd = ir_trunc(u, IR_I1, x), other = ir_eq(u, x, ir_const(u, IR_I64, 0));
    u32 before;

    ir_exit_if(u, odd, IR_EXIT_GUEST);
    before = u->ninsts;
    ir_exit_if(u, odd, IR_EXIT_GUEST);
    assert_int_equal(u->ninsts, before);
    ir_exit_if(u, other, IR_EXIT_GUEST);
    assert_int_equal(u->ninsts, before + 1);
    ir_jump(u, ir_block_new(u));
    ir_begin(u, 1);
    before = u->ninsts;
    ir_exit_if(u, odd, IR_EXIT_GUEST);
    assert_int_equal(u->ninsts, before + 1);
}

static void test_no_memory(void **state)
{
    struct bench *b = *state;
    struct ir_unit *u = &b->unit;

    u->failed = true;
    assert_int_equal(ir_add(u, ir_const(u, IR_I64, 1), ir_get(u, IR_I64, 8)), IR_NONE);
    assert_int_equal(ir_block_new(u), 0);
    ir_begin(u, 0);
    assert_int_equal(u->ninsts, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_pairs_of_operations),
        TEST(test_identities),
        TEST(test_environment_operations_stay),
        TEST(test_sharing_ends_with_the_block),
        TEST(test_get_after_put),
        TEST(test_vector_slots),
        TEST(test_puts_that_change_nothing),
        TEST(test_calls_and_slots),
        TEST(test_many_slots),
        TEST(test_leaving),
        TEST(test_pc_where_it_shows),
        TEST(test_poll_where_it_turns),
        TEST(test_exit_once),
        TEST(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
