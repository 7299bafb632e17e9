/*
 * Random units, compiled and interpreted: the way out, guest state, memory and the sticky
 * floating-point flags must be the same; with every access on the slow path, with a TLB that hits,
 * with memory reached directly, with the request word set, and with the k-th trap taken.
 * Arguments: first seed, number of seeds; a third one prints the first failing unit's listing.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opt/opt.h"

struct bench {
    struct world *expected, *got;
    struct jit tlb, direct;
    u64 runs;
};

static u64 first_seed = 1, seeds = 1500;
static bool verbose;

static struct random_options options_of(u64 seed)
{
    return (struct random_options){
        .insts = 20 + (unsigned)(seed * 7 % 200),
        .blocks = seed % 3 ? 1 + (unsigned)(seed % 7) : 1,
        .slot_base = WORLD_SLOTS,
        .memory_base = WORLD_MEMORY,
        .memory = seed % 5 != 0,
        .atomics = seed % 2,
        .calls = seed % 4 == 1,
        .leaves = seed % 3 != 1,
        .floats = seed % 8 >= 5,
        .vectors = seed % 8 >= 6,
        .raw = seed % 11 == 10,
    };
}

static void explain(struct bench *b, const struct ir_unit *unit, struct jit *jit, u64 seed,
                    const char *what)
{
    struct host_code code;
    size_t used = jit->used;
    void *at;

    fprintf(stderr, "seed %lu: %s\n", seed, what);
    for (size_t i = 0; i < RANDOM_STATE; i++) {
        if (b->expected->slots[i] != b->got->slots[i])
            fprintf(stderr, "  slot %zu: %02x, not %02x\n", WORLD_SLOTS + i, b->got->slots[i],
                    b->expected->slots[i]);
    }
    for (size_t i = 0; i < WORLD_PAGES * 4096; i++) {
        if (b->expected->memory[i] != b->got->memory[i])
            fprintf(stderr, "  memory %zx: %02x, not %02x\n", i, b->got->memory[i],
                    b->expected->memory[i]);
    }
    if (verbose) {
        ir_print(unit, stderr);
        at = jit_compile(jit, unit, &code);
        host_disassemble(jit->rw + used + ((0 - used) & 15), code.code_bytes, (u64)at, stderr);
    }
    fail();
}

/* A quiet comparison that nobody looks at may be left out, and the invalid flag of a signalling NaN
 * with it (ops.def). */
static u32 flags_that_count(const struct ir_unit *unit)
{
    for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
        switch (unit->insts[ref].op) {
        case IR_feq:
        case IR_funord:
        case IR_fltq:
        case IR_fleq:
            return ~1u;
        }
    }
    return ~0u;
}

static void compare(struct bench *b, const struct ir_unit *unit, struct jit *jit, u64 seed,
                    struct world_result want, struct world_result have)
{
    b->runs++;
    if (want.trapped != have.trapped || want.exit_code != have.exit_code) {
        fprintf(stderr, "left with %u (trapped %d), not %u (%d)\n", have.exit_code, have.trapped,
                want.exit_code, want.trapped);
        explain(b, unit, jit, seed, "left differently");
    }
    if (memcmp(b->expected->slots, b->got->slots, RANDOM_STATE))
        explain(b, unit, jit, seed, "state");
    if (memcmp(b->expected->memory, b->got->memory, WORLD_PAGES * 4096))
        explain(b, unit, jit, seed, "memory");
    if ((want.mxcsr ^ have.mxcsr) & flags_that_count(unit)) {
        fprintf(stderr, "flags %x, not %x\n", have.mxcsr, want.mxcsr);
        explain(b, unit, jit, seed, "sticky flags");
    }
}

/* @how: 0 every access slow, 1 with a TLB that fills, 2 direct. */
static void run_once(struct bench *b, const struct ir_unit *unit, u64 seed, int how, u32 request,
                     unsigned trap_at)
{
    struct jit *jit = how == 2 ? &b->direct : &b->tlb;
    size_t used = jit->used;
    struct world_result want, have;
    struct host_code code;
    void *at = jit_compile(jit, unit, &code);

    world_reset(b->expected, seed);
    world_reset(b->got, seed);
    b->expected->request = b->got->request = request;
    b->expected->trap_at = b->got->trap_at = trap_at;
    b->got->fill_tlb = how == 1;
    want = world_interpret(b->expected, unit);
    have = world_run(b->got, jit, at);
    jit->used = used;
    compare(b, unit, jit, seed, want, have);
}

static void check_unit(struct bench *b, const struct ir_unit *unit, u64 seed)
{
    unsigned accesses;

    run_once(b, unit, seed, 0, 0, 0);
    accesses = b->expected->accesses;
    assert_int_equal(accesses, b->got->accesses);
    run_once(b, unit, seed, 1, 0, 0);
    run_once(b, unit, seed, 2, 0, 0);
    run_once(b, unit, seed, 1, 1, 0);
    for (unsigned k = 1; k <= accesses; k += 1 + accesses / 16)
        run_once(b, unit, seed, 0, 0, k);
}

static void test_random_units(void **state)
{
    struct bench b = {world_new(), world_new(), {0}, {0}, 0};
    struct arena arena = {0};

    (void)state;
    jit_init(&b.tlb, HOST_MEMORY_TLB, b.got);
    jit_init(&b.direct, HOST_MEMORY_DIRECT, b.got);
    for (u64 seed = first_seed; seed < first_seed + seeds; seed++) {
        struct random_options options = options_of(seed);
        struct ir_unit *unit = random_unit(&arena, seed, &options);
        struct err err;

        assert_non_null(unit);
        if (seed % 2)
            assert_int_equal(opt_run(unit, OPT_QUICK), 0);
        if (ir_verify(unit, &err))
            fail_msg("seed %lu: %s", seed, err.text);
        check_unit(&b, unit, seed);
        arena_reset(&arena);
    }
    print_message("%lu runs\n", b.runs);
    arena_free(&arena);
    jit_free(&b.tlb);
    jit_free(&b.direct);
    world_free(b.expected);
    world_free(b.got);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_units)};

    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 0);
    if (argc > 2)
        seeds = strtoull(argv[2], NULL, 0);
    verbose = argc > 3;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
