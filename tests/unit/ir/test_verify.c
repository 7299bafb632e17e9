#include "ir_test.h"

static u64 helper(void *state, u64 a)
{
    (void)state;
    return a;
}

static const struct ir_helper helpers[] = {
    {"one", (void *)helper, 1, 0},
    {"reads", (void *)helper, 1, IR_HELPER_READS},
    {"pure", (void *)helper, 1, IR_HELPER_PURE},
};

struct text_case {
    const char *text, *says; /* says NULL: the unit is right */
};

#define VALUES                                                                                     \
    "%1 = get.i64 s[8]\n%2 = get.i32 s[16]\n%3 = get.f64 s[24]\n%4 = eq %1, %1\n"                  \
    "%5 = get.v128 s[32]\n%6 = get.i8 s[48]\n"
#define EXIT "\nexit 16\n"

static const struct text_case cases[] = {
    /* Blocks */
    {VALUES EXIT, NULL},
    {"block 1:\nexit 16", "block 0: empty"},
    {"fence", "is no terminator"},
    {"exit 16\nfence\nexit 16", "terminator inside the block"},
    {"jump block 1", "no block 1"},
    {"%1 = const.i1 1\nbranch %1, block 0, block 7", "no block 7"},
    {"jump block 0", NULL},
    /* Types and operands */
    {"%1 = const.v128 1" EXIT, "cannot be v128"},
    {"%1 = const.i8 256" EXIT, "wider than its type"},
    {VALUES "%9 = add.f64 %3, %3" EXIT, "cannot be f64"},
    {VALUES "%9 = fadd.i64 %1, %1" EXIT, "cannot be i64"},
    {VALUES "%9 = add.i64 %1, %2" EXIT, "%2 is i32, not i64"},
    {VALUES "%9 = add.i64 %1" EXIT, "operand 2 missing"},
    {VALUES "%9 = neg.i64 %1, %1" EXIT, "operand 2 too many"},
    {VALUES "%9 = shl.i64 %1, %1" EXIT, "%1 is i64, not i8"},
    {VALUES "%9 = umulh.i32 %2, %2" EXIT, "cannot be i32"},
    {VALUES "%9 = eq %1, %2" EXIT, "compares i64 with i32"},
    {VALUES "%9 = eq %3, %3" EXIT, "compares f64 with f64"},
    {VALUES "%9 = ult %4, %4" EXIT, "compares i1 with i1"},
    {VALUES "%9 = feq %1, %1" EXIT, "compares i64 with i64"},
    {VALUES "%9 = sel.i64 %1, %1, %1" EXIT, "%1 is i64, not i1"},
    {VALUES "%9 = sel.v128 %4, %5, %5" EXIT, NULL},
    {VALUES "%9 = parity %1" EXIT, "%1 is i64, not i8"},
    {VALUES "%9 = vec %1, %2" EXIT, "%2 is i32, not i64"},
    {VALUES "%9 = vadd8 %5, %1" EXIT, "%1 is i64, not v128"},
    /* Widths */
    {VALUES "%9 = zext.i32 %1" EXIT, "not from i64"},
    {VALUES "%9 = zext.i64 %1" EXIT, "not from i64"},
    {VALUES "%9 = sext.i8 %4" EXIT, NULL},
    {VALUES "%9 = trunc.i64 %2" EXIT, "not from i32"},
    {VALUES "%9 = trunc.i1 %2" EXIT, NULL},
    {VALUES "%9 = extract.i8 %1, 57" EXIT, "bit 57"},
    {VALUES "%9 = extract.i8 %1, 56" EXIT, NULL},
    {VALUES "%9 = deposit.i64 %1, %2, 33" EXIT, "bit 33"},
    {VALUES "%9 = deposit.i64 %1, %4, 0" EXIT, "not from i1"},
    {VALUES "%9 = bitcast.i32 %1" EXIT, "not from i64"},
    {VALUES "%9 = bitcast.i64 %1" EXIT, "not from i64"},
    {VALUES "%9 = bitcast.i64 %3" EXIT, NULL},
    {VALUES "%9 = fcvt.f64 %3" EXIT, "not from f64"},
    {VALUES "%9 = scvtf.f64 %6" EXIT, "not from i8"},
    {VALUES "%9 = fcvts.i32 %1" EXIT, "not from i64"},
    {VALUES "%9 = fround.f64 %3, 5" EXIT, "no such rounding"},
    {VALUES "%9 = fround.f64 %3, 12" EXIT, NULL},
    {VALUES "%9 = vzext %1" EXIT, "not of a number"},
    {VALUES "%9 = vzext %3" EXIT, NULL},
    {VALUES "%9 = vmerge %5, %2" EXIT, "not of a number"},
    {VALUES "%9 = vmerge %5, %3" EXIT, NULL},
    {VALUES "%9 = vlow.i64 %5" EXIT, "cannot be i64"},
    {VALUES "%9 = vfaddlo32 %5, %3" EXIT, "is f64, not f32"},
    /* State and memory */
    {"%1 = get.i64 s[65529]" EXIT, "out of range"},
    {"%1 = get.i64 s[65528]" EXIT, NULL},
    {VALUES "put s[8], %4" EXIT, "a slot cannot be i1"},
    {"%1 = get.i1 s[8]" EXIT, "cannot be i1"},
    {VALUES "st [%1], %4" EXIT, "cannot store it"},
    {VALUES "%9 = ld.i8 [%2]" EXIT, "%2 is i32, not i64"},
    {VALUES "%9 = acas.i8 [%1], %6" EXIT, "operand 3 missing"},
    {VALUES "%9 = aadd.f64 [%1], %3" EXIT, "cannot be f64"},
    /* Calls */
    {VALUES "call @7, %1" EXIT, "no helper 7"},
    {VALUES "call @one" EXIT, "one takes 1 operands"},
    {VALUES "call @one, %1, %1" EXIT, "one takes 1 operands"},
    {VALUES "call @one, %6" EXIT, "neither i32 nor i64"},
    {VALUES "%9 = call.f64 @one, %1" EXIT, "cannot be f64"},
    {VALUES "%9 = call.i1 @one, %2" EXIT, NULL},
    /* Leaving */
    {"exit 0x100000000", "wider than 32 bits"},
    {VALUES "goto_ind %2", "%2 is i32, not i64"},
    /* dput */
    {VALUES "dput s[8], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[8], %1\nput s[8], %3" EXIT, NULL},
    {VALUES "dput s[8], %1\n%9 = ld.i8 [%1]\npoll\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[8], %1\nput s[8], %2" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\nput s[4], %1\nput s[8], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\n%9 = get.i8 s[15]\nput s[8], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\n%9 = get.i8 s[16]\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[8], %1\ncall @reads, %1\nput s[8], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\ncall @one, %1\ncall @pure, %1\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[8], %1\ngoto_if %4, base\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[0], %1\ngoto_if %4, base\nput s[0], %1" EXIT, NULL},
    {VALUES "dput s[0], %1\ngoto base + 1", NULL},
    {VALUES "dput s[0], %1\ngoto_ind %1", NULL},
    {VALUES "dput s[0], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\nput s[8], %1" EXIT, NULL},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\npoll\nput s[8], %1" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\ngoto_if %4, base\nput s[8], %1" EXIT,
     "no put replaces it"},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\nput s[8], %2" EXIT, "no put replaces it"},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\njump block 2\nblock 2:\nput s[8], %1" EXIT,
     NULL},
    {VALUES "dput s[8], %1\njump block 1\nblock 1:\njump block 2\nblock 2:\nput s[0], %1" EXIT,
     "no put replaces it"},
    {VALUES "dput s[8], %1\nbranch %4, block 1, block 2\nblock 1:\nput s[8], %1\nexit 16\n"
            "block 2:\nput s[0], %1\nput s[8], %1" EXIT,
     NULL},
    {VALUES "dput s[8], %1\nbranch %4, block 1, block 2\nblock 1:\nput s[8], %1\nexit 16\n"
            "block 2:\nput s[0], %1" EXIT,
     "no put replaces it"},
    /* Values across blocks */
    {VALUES "branch %4, block 1, block 2\nblock 1:\n%20 = neg.i64 %1\njump block 2\n"
            "block 2:\nput s[8], %20" EXIT,
     "not defined on every path"},
    {VALUES "jump block 1\nblock 1:\nput s[8], %1" EXIT, NULL},
    /* Phis */
    {"%1 = phi.i64" EXIT, "phi in the entry block"},
    {"jump block 1\nblock 1:\nfence\n%9 = phi.i64" EXIT, "phi behind another"},
    {VALUES "set %9, %2\njump block 1\nblock 1:\n%9 = phi.i64" EXIT, "type is not that of the phi"},
    {VALUES "set %1, %1\njump block 1\nblock 1:\n" EXIT, "%1 is no phi"},
    {VALUES "set %19, %1\nset %19, %1\njump block 1\nblock 1:\n%19 = phi.i64" EXIT, "set twice"},
    {VALUES "set %19, %1\njump block 1\nblock 1:\n%19 = phi.i64" EXIT, NULL},
    {VALUES "jump block 1\nblock 1:\n%19 = phi.i64" EXIT, "without a set"},
    {VALUES "set %19, %1\njump block 2\nblock 1:\n%19 = phi.i64" EXIT "block 2:" EXIT,
     "does not jump to the phi's block"},
};

static void check(const struct ir_unit *unit, const char *text, const char *says)
{
    struct err err = {{0}};
    int rc = ir_verify(unit, &err);

    if (!says) {
        if (rc)
            fail_msg("%s\n%s", err.text, text);
        return;
    }
    if (rc != -EINVAL || !strstr(err.text, says))
        fail_msg("answers %d \"%s\", not \"%s\", to\n%s", rc, err.text, says, text);
}

static void test_rules(void **state)
{
    struct arena arena = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct ir_unit unit;
        struct err err;

        ir_init(&unit, &arena, helpers, ARRAY_SIZE(helpers), 0);
        if (ir_parse(&unit, cases[i].text, &err))
            fail_msg("%s\n%s", err.text, cases[i].text);
        check(&unit, cases[i].text, cases[i].says);
    }
    arena_free(&arena);
}

/* What the text form cannot say. */
static void test_damaged_units(void **state)
{
    struct arena arena = {0};
    struct ir_unit unit;
    ir_ref x, sum;

    (void)state;
    ir_init(&unit, &arena, helpers, ARRAY_SIZE(helpers), 0);
    x = ir_get(&unit, IR_I64, 8);
    sum = ir_add(&unit, x, x);
    ir_put(&unit, 8, sum);
    ir_exit(&unit, 16);
    check(&unit, "whole", NULL);
    unit.insts[sum].a = sum;
    check(&unit, "use of itself", "is not defined yet");
    unit.insts[sum].a = 1000;
    check(&unit, "use of nothing", "is not defined yet");
    unit.insts[sum].a = x;
    unit.insts[sum].imm = 5;
    check(&unit, "immediate", "immediate 5 not wanted");
    unit.insts[sum].imm = 0;
    unit.insts[sum].op = IR_NOP;
    check(&unit, "use of a removed value", "has no value");
    unit.insts[sum].op = IR_OPS;
    check(&unit, "operation", "no such operation");
    unit.insts[sum].op = IR_add;
    unit.insts[sum].type = IR_TYPES;
    check(&unit, "type", "cannot be ?");
    unit.insts[sum].type = IR_I64;
    unit.blocks[0].count++;
    check(&unit, "too long", "outside the unit");
    unit.blocks[0].count--;
    check(&unit, "whole again", NULL);
    ir_block_new(&unit);
    unit.blocks[1] = unit.blocks[0];
    check(&unit, "twice", "overlaps block 0");
    unit.failed = true;
    check(&unit, "failed", "memory ran out");
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_damaged_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
