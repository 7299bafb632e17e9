/* Shared by the IR's unit tests: a unit in an arena, built, run, printed. */
#ifndef TRIODE_TESTS_IR_TEST_H
#define TRIODE_TESTS_IR_TEST_H

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "ir/private.h"

#define STATE_BYTES 512
#define PC_SLOT 0
#define BASE 0x401000ull

struct bench {
    struct arena arena;
    struct ir_unit unit;
    _Alignas(16) u8 state[STATE_BYTES];
    u8 memory[256]; /* guest addresses 0..255 */
};

static inline int bench_setup(void **state)
{
    *state = calloc(1, sizeof(struct bench));
    return *state ? 0 : -1;
}

static inline int bench_teardown(void **state)
{
    arena_free(&((struct bench *)*state)->arena);
    free(*state);
    return 0;
}

static inline void bench_memory(void *state, u64 addr, void *buf, const void *from, unsigned bytes)
{
    struct bench *b = container_of(state, struct bench, state);

    assert_true(addr <= sizeof(b->memory) - bytes);
    if (buf)
        memcpy(buf, b->memory + addr, bytes);
    if (from)
        memcpy(b->memory + addr, from, bytes);
}

static inline void bench_load(void *state, u64 addr, void *buf, unsigned bytes)
{
    bench_memory(state, addr, buf, NULL, bytes);
}

static inline void bench_store(void *state, u64 addr, const void *buf, unsigned bytes)
{
    bench_memory(state, addr, NULL, buf, bytes);
}

static inline u64 bench_atomic(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand,
                               u64 desired)
{
    u64 old = 0, new = operand;

    bench_memory(state, addr, &old, NULL, bytes);
    if (op == IR_aadd)
        new = old + operand;
    if (op == IR_acas)
        new = old == operand ? desired : old;
    bench_memory(state, addr, NULL, &new, bytes);
    return old;
}

static inline void bench_reset(struct bench *b, const struct ir_helper *helpers, u32 nhelpers)
{
    arena_reset(&b->arena);
    ir_init(&b->unit, &b->arena, helpers, nhelpers, PC_SLOT);
}

static inline struct ir_outcome bench_run(struct bench *b, u32 request)
{
    static const struct ir_memory memory = {bench_load, bench_store, bench_atomic};
    struct ir_run run = {b->state, BASE, &request, &memory};

    return ir_interpret(&b->unit, &run);
}

static inline u64 bench_slot(const struct bench *b, u32 slot)
{
    u64 value;

    memcpy(&value, b->state + slot, sizeof(value));
    return value;
}

static inline void bench_set_slot(struct bench *b, u32 slot, u64 value)
{
    memcpy(b->state + slot, &value, sizeof(value));
}

/* The unit's text; to be freed. */
static inline char *unit_text(const struct ir_unit *unit)
{
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    ir_print(unit, f);
    fclose(f);
    return text;
}

static inline unsigned count_op(const struct ir_unit *unit, enum ir_op op)
{
    unsigned n = 0;

    for (ir_ref ref = 1; ref < unit->ninsts; ref++)
        n += unit->insts[ref].op == op;
    return n;
}

#endif
