/* The driver of lifting: where blocks end, what they are made of, and that flags cost no calls. */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "guest/x86/x86.h"

#define MODE64                                                                                     \
    (X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_LMA | X86_MODE_FLAT | X86_MODE_FLAT_CS |             \
     X86_MODE_CPL_MASK)
#define MODE32                                                                                     \
    (X86_MODE_CODE32 | X86_MODE_PE | X86_MODE_FLAT | X86_MODE_FLAT_CS | X86_MODE_SS32 |            \
     X86_MODE_CPL_MASK)

struct fixture {
    struct arena arena;
    struct ir_unit unit;
    struct guest_lift lift;
    int result;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return *state ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    arena_free(&f->arena);
    free(f);
    return 0;
}

static void lift_at(struct fixture *f, u64 pc, u32 mode, const void *code, u32 avail)
{
    arena_reset(&f->arena);
    ir_init(&f->unit, &f->arena, x86_guest_ops.helpers, x86_guest_ops.nhelpers,
            x86_guest_ops.pc_slot);
    f->lift.unit = &f->unit;
    f->lift.pc = pc;
    f->lift.code = code;
    f->lift.avail = avail;
    f->lift.mode = mode;
    if (!f->lift.max_insns)
        f->lift.max_insns = 64;
    f->result = x86_guest_ops.lift(&f->lift);
    if (!f->result) {
        struct err err;

        if (ir_verify(&f->unit, &err)) {
            ir_print(&f->unit, stderr);
            fail_msg("%s", err.text);
        }
    }
}

static unsigned count(const struct fixture *f, enum ir_op op)
{
    unsigned n = 0;

    for (u32 i = 1; i < f->unit.ninsts; i++)
        n += f->unit.insts[i].op == op;
    return n;
}

static const struct ir_inst *last(const struct fixture *f)
{
    return &f->unit.insts[f->unit.ninsts - 1];
}

static void test_ends_at_jump(void **state)
{
    static const u8 code[] = {0x01, 0xd8, 0xeb, 0x10, 0x90, 0x90};
    struct fixture *f = *state;

    lift_at(f, 0x401200, MODE64, code, sizeof(code));
    assert_int_equal(f->result, 0);
    assert_int_equal(f->lift.length, 4);
    assert_int_equal(f->unit.guest_insns, 2);
    assert_int_equal(last(f)->op, IR_goto);
    assert_int_equal(last(f)->imm, 0x214);
}

static void test_page_end(void **state)
{
    static const u8 code[] = {0x90, 0x90, 0xb8, 1, 2, 3, 4};
    struct fixture *f = *state;

    /* The third instruction lies half in the next page: the block ends before it, */
    lift_at(f, 0x401ffc, MODE64, code, 4);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->lift.length, 2);
    assert_int_equal(last(f)->op, IR_goto_ind); /* what lies in two pages cannot be chained to */
    f->lift.chains_pages = true;                /* or can, */
    lift_at(f, 0x401ffc, MODE64, code, 4);
    assert_int_equal(last(f)->op, IR_goto);
    assert_int_equal(last(f)->imm, 0xffe);
    /* where it cannot be lifted from one page, */
    lift_at(f, 0x401ffe, MODE64, code + 2, 2);
    assert_int_equal(f->result, -ERANGE);
    /* but alone from two. */
    f->lift.two_pages = true;
    lift_at(f, 0x401ffe, MODE64, code + 2, 5);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->lift.length, 5);
    assert_int_equal(last(f)->imm, 0x1003);
}

static void test_fills_page(void **state)
{
    static const u8 code[] = {0x90, 0x90, 0x90};
    struct fixture *f = *state;

    lift_at(f, 0x401ffd, MODE64, code, 3);
    assert_int_equal(f->result, 0);
    assert_int_equal(f->lift.length, 3);
    assert_int_equal(last(f)->imm, 0x1000);
}

static void test_bounds_instructions(void **state)
{
    static const u8 code[] = {0x90, 0x90, 0x90, 0x90};
    struct fixture *f = *state;

    f->lift.max_insns = 3;
    lift_at(f, 0x401000, MODE64, code, sizeof(code));
    assert_int_equal(f->unit.guest_insns, 3);
    /* Single steps: one at a time, and no way out without the trap. */
    lift_at(f, 0x401000, MODE64 | X86_MODE_TF, code, sizeof(code));
    assert_int_equal(f->unit.guest_insns, 1);
    assert_int_equal(count(f, IR_goto), 0);
    assert_int_equal(count(f, IR_call), 1);
}

static void test_exceptions(void **state)
{
    static const u8 undefined[] = {0x90, 0x0f, 0x0b};
    static const u8 hlt[] = {0xf4};
    u8 endless[32];
    struct fixture *f = *state;

    lift_at(f, 0x401000, MODE64, undefined, sizeof(undefined));
    assert_int_equal(f->lift.length, 3);
    assert_int_equal(last(f)->op, IR_exit);
    assert_int_equal(last(f)->imm, X86_EXIT_VECTOR + X86_UD);
    lift_at(f, 0x401000, MODE64, hlt, sizeof(hlt));
    assert_int_equal(last(f)->imm, X86_EXIT_VECTOR + X86_GP);
    memset(endless, 0x66, sizeof(endless));
    lift_at(f, 0x401000, MODE64, endless, sizeof(endless));
    assert_int_equal(last(f)->imm, X86_EXIT_VECTOR + X86_GP);
    /* In 15 bytes at the page's end there is no need to look further. */
    lift_at(f, 0x401ff1, MODE64, endless, 15);
    assert_int_equal(f->result, 0);
}

/* Every condition after every kind of flags becomes IR of its own, with no helper. */
static void test_conditions_need_no_call(void **state)
{
    static const struct {
        u8 code[4];
        u8 length;
    } setters[] = {
        {{0x01, 0xd8}, 2},             /* ADD */
        {{0x48, 0x39, 0xd8}, 3},       /* CMP, 64-bit */
        {{0x66, 0x29, 0xd8}, 3},       /* SUB, 16-bit */
        {{0x84, 0xc0}, 2},             /* TEST, 8-bit */
        {{0xf7, 0xd8}, 2},             /* NEG */
        {{0xc1, 0xe0, 0x03}, 3},       /* SHL */
        {{0xd1, 0xf8}, 2},             /* SAR */
        {{0x0f, 0xaf, 0xc3}, 3},       /* IMUL */
        {{0xf3, 0x0f, 0xb8, 0xc3}, 4}, /* POPCNT */
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(setters); i++) {
        for (unsigned cc = 0; cc < 16; cc++) {
            u8 code[8];

            memcpy(code, setters[i].code, 4);
            code[setters[i].length] = (u8)(0x70 + cc);
            code[setters[i].length + 1] = 4;
            lift_at(f, 0x401000, MODE64, code, setters[i].length + 2u);
            assert_int_equal(f->result, 0);
            assert_int_equal(count(f, IR_call), 0);
        }
    }
}

/* What was materialised once is not computed again. */
/* Instructions of x86-64-v2 ask for their feature where the CPU may lack it, and only there. */
static void test_reduced_cpus_check(void **state)
{
    static const u8 code[] = {
        0xf3, 0x0f, 0xb8, 0xc1,             /* popcnt eax, ecx */
        0x66, 0x0f, 0x38, 0x17, 0xc1,       /* ptest xmm0, xmm1 */
        0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0x04, /* palignr xmm0, xmm1, 4 */
        0x66, 0x0f, 0x7c, 0xc1,             /* haddpd xmm0, xmm1 */
        0x9f,                               /* lahf */
        0x0f, 0x58, 0xc1,                   /* addps xmm0, xmm1: older */
        0xf4,
    };
    struct fixture *f = *state;
    unsigned calls;

    lift_at(f, 0x1000, MODE64, code, sizeof(code));
    calls = count(f, IR_call);
    lift_at(f, 0x1000, MODE64 | X86_MODE_REDUCED, code, sizeof(code));
    assert_int_equal(f->result, 0);
    assert_int_equal(count(f, IR_call), calls + 5);
    lift_at(f, 0x1000, MODE32 | X86_MODE_REDUCED, code, sizeof(code));
    assert_int_equal(count(f, IR_call), calls + 4); /* LAHF is an old one there */
}

static void test_flags_materialised_once(void **state)
{
    static const u8 code[] = {0x0f, 0x92, 0xc0, 0x0f, 0x94, 0xc1, 0x0f, 0x9f, 0xc2, 0x9c};
    struct fixture *f = *state;

    lift_at(f, 0x401000, MODE64, code, sizeof(code));
    assert_int_equal(count(f, IR_call), 1);
}

static char *text_of(struct fixture *f)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    ir_print(&f->unit, out);
    fclose(out);
    return text;
}

/* Blocks are shared between mappings: only the offset in the page may show. */
static void test_position_independent(void **state)
{
    static const u8 code[] = {0x48, 0x8d, 0x05, 1, 2, 3, 0, 0xff, 0xd0, 0xe8, 4, 0, 0, 0};
    static const u8 call[] = {0xe8, 0x80, 0, 0, 0};
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        u32 mode = i ? MODE32 : MODE64;
        const u8 *bytes = i ? call : code;
        char *a, *b;

        lift_at(f, 0x401230, mode, bytes, i ? sizeof(call) : sizeof(code));
        a = text_of(f);
        lift_at(f, 0x7f0000230, mode, bytes, i ? sizeof(call) : sizeof(code));
        b = text_of(f);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ends_at_jump, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fills_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds_instructions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exceptions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conditions_need_no_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reduced_cpus_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flags_materialised_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_position_independent, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
