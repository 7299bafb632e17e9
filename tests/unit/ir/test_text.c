#include "ir_test.h"

#include "../../ir/random.h"

static bool same_inst(const struct ir_inst *x, const struct ir_inst *y)
{
    return x->op == y->op && x->type == y->type && x->a == y->a && x->b == y->b && x->c == y->c &&
           x->d == y->d && x->imm == y->imm;
}

static void must_round_trip(struct arena *arena, const struct ir_unit *unit)
{
    char *text = unit_text(unit), *again;
    struct ir_unit parsed;
    struct err err = {{0}};

    ir_init(&parsed, arena, unit->helpers, unit->nhelpers, unit->pc_slot);
    if (ir_parse(&parsed, text, &err))
        fail_msg("%s\n%s", err.text, text);
    again = unit_text(&parsed);
    assert_string_equal(text, again);
    assert_int_equal(parsed.ninsts, unit->ninsts);
    assert_int_equal(parsed.nblocks, unit->nblocks);
    assert_int_equal(parsed.guest_insns, unit->guest_insns);
    for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
        if (!same_inst(&parsed.insts[ref], &unit->insts[ref]))
            fail_msg("%%%u differs in\n%s", ref, text);
    }
    free(text);
    free(again);
}

/* Random units as they come, until every operation was seen. */
static void test_every_operation(void **state)
{
    bool seen[IR_OPS] = {false};
    unsigned missing = IR_OPS;

    (void)state;
    seen[IR_NOP] = seen[IR_dput] = true; /* only passes make them */
    for (u64 seed = 1; missing && seed < 4000; seed++) {
        struct random_options options = {.insts = 100,
                                         .blocks = 1 + seed % 8,
                                         .memory = true,
                                         .atomics = true,
                                         .calls = true,
                                         .leaves = true,
                                         .floats = true,
                                         .vectors = true,
                                         .raw = true,
                                         .memory_base = 0x10000};
        struct arena arena = {0};
        struct ir_unit *unit = random_unit(&arena, seed, &options);

        assert_non_null(unit);
        must_round_trip(&arena, unit);
        for (ir_ref ref = 1; ref < unit->ninsts; ref++)
            seen[unit->insts[ref].op] = true;
        missing = 0;
        for (unsigned op = 0; op < IR_OPS; op++)
            missing += !seen[op];
        arena_free(&arena);
    }
    for (unsigned op = 0; op < IR_OPS; op++) {
        if (!seen[op])
            fail_msg("never seen: %s", ir_op_info[op].name);
    }
}

static int parse(const char *text, struct err *err)
{
    struct arena arena = {0};
    struct ir_unit unit;
    int rc;

    ir_init(&unit, &arena, random_helpers, random_nhelpers, 0);
    rc = ir_parse(&unit, text, err);
    arena_free(&arena);
    return rc;
}

static void test_free_form(void **state)
{
    static const char text[] = "; a comment\n\n  block 0:  ; the only one\n"
                               "%7=get.i64 s[ 8 ]\n"
                               "\t%9 = add.i64 %7,%7 ; twice\n"
                               "dput s[0x10], %9\n"
                               "exit 16";
    struct arena arena = {0};
    struct ir_unit unit;
    struct err err;
    char *printed;

    (void)state;
    ir_init(&unit, &arena, NULL, 0, 0);
    assert_int_equal(ir_parse(&unit, text, &err), 0);
    printed = unit_text(&unit);
    assert_string_equal(printed, "block 0:\n"
                                 "    %7 = get.i64 s[8]\n"
                                 "    %9 = add.i64 %7, %7\n"
                                 "         dput s[16], %9\n"
                                 "         exit 16\n");
    free(printed);
    arena_free(&arena);
}

static void test_errors(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"block 0:\n frob", "line 2: no operation frob"},
        {"%1 = const.i7 1", "no type i7"},
        {"%1 = const.i8", "a number expected"},
        {"%1 = const.i64 0x1ffffffffffffffff", "the number is too large"},
        {"%1 = add.i64 %2, %2", "%2 is not defined yet"},
        {"%1 = const.i8 1\n%1 = const.i8 1", "line 2: %1 is defined twice"},
        {"const.i8 1", "the value of const needs a name"},
        {"%1 = fence", "fence has no value"},
        {"%1 = const.i8 1 2", "end of line expected"},
        {"%1 = get.i8 [1]", "'s[' expected"},
        {"jump 3", "'block' expected"},
        {"block 0:\nfence\nblock 0:", "line 3: block 0 begins twice"},
        {"call @nobody", "no helper nobody"},
        {"%1 = const.i8 1\nset %5, %1", "%5 is never defined"},
        {"%99999999 = const.i8 1", "the number is too large"},
        {"block 2000000:", "the number is too large"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct err err = {{0}};

        assert_int_equal(parse(cases[i].text, &err), -EINVAL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\" gives \"%s\", not \"%s\"", cases[i].text, err.text, cases[i].says);
    }
}

/* Whatever the bytes, the parser answers. */
static void test_damaged_text(void **state)
{
    struct random_options options = {
        .insts = 30, .blocks = 4, .memory = true, .calls = true, .leaves = true, .raw = true};
    struct arena arena = {0};
    char *text = unit_text(random_unit(&arena, 1, &options));
    size_t len = strlen(text);
    u64 rng = 1;

    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        char *copy = strdup(text);
        struct err err;

        assert_non_null(copy);
        copy[random_next(&rng) % len] = "%.,0 9[]a\n"[random_next(&rng) % 10];
        if (i % 3 == 0)
            copy[random_next(&rng) % len] = '\0';
        parse(copy, &err);
        free(copy);
    }
    free(text);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation),
        cmocka_unit_test(test_free_form),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_damaged_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
