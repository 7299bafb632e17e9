/*
 * Random units, run by the interpreter as generated, as the builder improves them and after the
 * optimiser: state, memory and way out must be the same, also when the k-th memory access or the
 * trapping helper leaves by longjmp. Arguments: first seed, number of seeds.
 */
#include "../unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "opt/opt.h"
#include "random.h"

#define MEMORY_BASE 0x7000000000ull
#define MEMORY_BYTES (RANDOM_WINDOW + 2 * RANDOM_MARGIN)

struct world {
    _Alignas(16) u8 state[RANDOM_STATE_BYTES];
    jmp_buf *leave;             /* behind the slots */
    unsigned accesses, trap_at; /* the access of this number traps; 0: none */
    u8 memory[MEMORY_BYTES];
};

struct result {
    struct ir_outcome outcome;
    bool trapped;
};

static u8 *host(struct world *w, u64 addr, unsigned bytes)
{
    u64 offset = addr - (MEMORY_BASE - RANDOM_MARGIN);

    if (++w->accesses == w->trap_at)
        longjmp(*w->leave, 1);
    assert_true(offset <= MEMORY_BYTES - bytes);
    return w->memory + offset;
}

static void load(void *state, u64 addr, void *buf, unsigned bytes)
{
    memcpy(buf, host(state, addr, bytes), bytes);
}

static void store(void *state, u64 addr, const void *buf, unsigned bytes)
{
    memcpy(host(state, addr, bytes), buf, bytes);
}

static u64 atomic(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand, u64 desired)
{
    return random_atomic(host(state, addr, bytes), op, bytes, operand, desired);
}

static void trap(void *state)
{
    struct world *w = state;

    if (++w->accesses == w->trap_at)
        longjmp(*w->leave, 1);
}

static void world_init(struct world *w, u64 seed, unsigned trap_at)
{
    random_trap_fn *fn = trap;

    memset(w, 0, sizeof(*w));
    for (size_t i = 0; i < RANDOM_STATE; i += 8) {
        u64 v = random_next(&seed);

        memcpy(w->state + i, &v, 8);
    }
    for (size_t i = 0; i < MEMORY_BYTES; i++)
        w->memory[i] = (u8)random_next(&seed);
    memcpy(w->state + RANDOM_TRAP_SLOT, &fn, sizeof(fn));
    w->trap_at = trap_at;
}

static struct result run(const struct ir_unit *unit, struct world *w, u32 request)
{
    static const struct ir_memory memory = {load, store, atomic};
    struct ir_run r = {w, 0x400000, &request, &memory};
    struct result result = {0};
    jmp_buf leave;

    w->leave = &leave;
    if (setjmp(leave))
        result.trapped = true;
    else
        result.outcome = ir_interpret(unit, &r);
    w->leave = NULL;
    return result;
}

static bool same_world(const struct world *x, const struct world *y)
{
    return !memcmp(x->state, y->state, RANDOM_STATE) && !memcmp(x->memory, y->memory, MEMORY_BYTES);
}

static void must_agree(u64 seed, const char *what, const struct ir_unit *raw,
                       const struct ir_unit *unit, unsigned trap_at, u32 request)
{
    static struct world x, y;
    struct result rx, ry;

    world_init(&x, seed, trap_at);
    y = x;
    rx = run(raw, &x, request);
    ry = run(unit, &y, request);
    if (rx.trapped == ry.trapped && rx.outcome.how == ry.outcome.how &&
        rx.outcome.exit_code == ry.outcome.exit_code && same_world(&x, &y))
        return;
    fprintf(stderr, "seed %" PRIu64 ", %s, trap at %u, request %u\n", seed, what, trap_at, request);
    ir_print(raw, stderr);
    fprintf(stderr, "----\n");
    ir_print(unit, stderr);
    for (unsigned i = 0; i < RANDOM_STATE; i++) {
        if (x.state[i] != y.state[i])
            fprintf(stderr, "state[%u] %02x %02x\n", i, x.state[i], y.state[i]);
    }
    fail();
}

static void must_verify(u64 seed, const char *what, const struct ir_unit *unit)
{
    struct err err;

    assert_non_null(unit);
    if (!ir_verify(unit, &err))
        return;
    ir_print(unit, stderr);
    fail_msg("seed %" PRIu64 ", %s: %s", seed, what, err.text);
}

/* A unit whose dputs are gone must still end with the same state, if it does not leave by a trap or
 * by a goto_if behind them: that is what says that a dput need not be in memory. */
static void must_agree_without_dputs(u64 seed, const struct ir_unit *raw, struct ir_unit *unit)
{
    bool traps = false, leaves = false;

    for (ir_ref ref = unit->ninsts - 1; ref; ref--) {
        struct ir_inst *inst = &unit->insts[ref];

        if (ir_op_info[inst->op].flags & IR_TERM)
            leaves = false;
        leaves |= inst->op == IR_goto_if;
        traps |= inst->op == IR_exit_if;
        if (inst->op == IR_dput && !leaves)
            *inst = (struct ir_inst){.op = IR_NOP};
    }
    if (!traps)
        must_agree(seed, "without dputs", raw, unit, 0, 0);
}

static struct random_options options_of(u64 seed)
{
    return (struct random_options){
        .insts = 10 + seed % 70,
        .blocks = seed % 3 == 0 ? 1 + seed / 3 % 8 : 1,
        .memory_base = MEMORY_BASE,
        .memory = seed % 5 != 0,
        .atomics = seed % 4 == 0,
        .calls = seed % 7 < 3,
        .leaves = seed % 11 < 6,
        .floats = seed % 13 < 4,
        .vectors = seed % 6 < 2,
    };
}

static u64 count_accesses(u64 seed, const struct ir_unit *raw)
{
    static struct world w;

    world_init(&w, seed, 0);
    run(raw, &w, 0);
    return w.accesses;
}

static void test_seed(u64 seed)
{
    struct random_options options = options_of(seed);
    struct arena arena = {0};
    struct ir_unit *raw, *built, *opted;
    u64 accesses;

    built = random_unit(&arena, seed, &options);
    opted = random_unit(&arena, seed, &options);
    options.raw = true;
    raw = random_unit(&arena, seed, &options);
    must_verify(seed, "raw", raw);
    must_verify(seed, "built", built);
    assert_int_equal(opt_run(opted, OPT_FULL), 0);
    must_verify(seed, "optimised", opted);
    accesses = count_accesses(seed, raw);
    for (unsigned k = 0; k <= accesses; k++) {
        must_agree(seed, "built", raw, built, k, 0);
        must_agree(seed, "optimised", raw, opted, k, 0);
    }
    must_agree(seed, "built", raw, built, 0, 1);
    must_agree(seed, "optimised", raw, opted, 0, 1);
    must_agree_without_dputs(seed, raw, opted);
    arena_free(&arena);
}

static u64 first_seed, seeds = 3000;

static void test_random_units(void **state)
{
    (void)state;
    for (u64 seed = first_seed; seed < first_seed + seeds; seed++)
        test_seed(seed);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_units)};

    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 0);
    if (argc > 2)
        seeds = strtoull(argv[2], NULL, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
