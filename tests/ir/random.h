/*
 * Random units for differential tests: the same seed and options give the same program, built with
 * or without the builder's improvements. Every unit verifies, ends, divides only by checked
 * divisors and stays inside a window of guest memory.
 */
#ifndef TRIODE_TESTS_IR_RANDOM_H
#define TRIODE_TESTS_IR_RANDOM_H

#include "ir/ir.h"

/* Guest memory that a unit may touch: [memory_base - RANDOM_MARGIN, memory_base + RANDOM_WINDOW +
 * RANDOM_MARGIN). */
#define RANDOM_WINDOW 4096
#define RANDOM_MARGIN 512

/* State that a unit may touch: RANDOM_STATE bytes from slot_base on, the pc slot at its start. */
#define RANDOM_STATE 256

struct random_options {
    unsigned insts;  /* about how many operations; 0: 40 */
    unsigned blocks; /* IR blocks, 1 to 8; 0: 1 */
    u32 slot_base;   /* multiple of 16 */
    u64 memory_base;
    bool memory, atomics, calls, leaves, floats, vectors; /* what may occur */
    bool raw; /* append every operation as it is, without the builder's improvements */
};

extern const struct ir_helper random_helpers[];
extern const u32 random_nhelpers;

/* Called by the trapping helper: state + RANDOM_TRAP_SLOT (from slot_base) holds it; it may leave
 * by longjmp. NULL: nothing happens. */
typedef void random_trap_fn(void *state);
#define RANDOM_TRAP_SLOT RANDOM_STATE
#define RANDOM_STATE_BYTES (RANDOM_STATE + 16) /* to be had behind slot_base */

/* A unit in @arena; NULL when memory is out. */
struct ir_unit *random_unit(struct arena *arena, u64 seed, const struct random_options *options);

/* The generator's own source of numbers, for tests that need more: splitmix64. */
u64 random_next(u64 *state);

/* What an atomic operation does to the @bytes at @p; answers what was there. */
u64 random_atomic(u8 *p, enum ir_op op, unsigned bytes, u64 operand, u64 desired);

#endif
