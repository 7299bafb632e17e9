/*
 * How long host_compile takes an IR instruction: over many units in turn, as a guest that boots has
 * it, so caches and branch predictors are not warmed by one unit.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "opt/opt.h"

#define UNITS 200
#define ROUNDS 50

static u64 measure(struct jit *jit, struct ir_unit **units, struct arena *scratch, u64 *insts,
                   u64 *bytes)
{
    u64 start = clock_thread_ns();

    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < UNITS; i++) {
            struct ir_unit unit = *units[i];
            struct host_code code;

            unit.arena = scratch;
            arena_reset(scratch);
            if (host_compile(&unit, &jit->abi, jit->rw + jit->used, (u64)jit->exec + jit->used,
                             WORLD_CODE_BYTES - jit->used, &code))
                abort();
            *insts += unit.ninsts;
            *bytes += code.code_bytes;
        }
    }
    return clock_thread_ns() - start;
}

int main(void)
{
    struct arena arena = {0}, scratch = {0};
    struct ir_unit *units[UNITS];
    struct world *w = world_new();
    struct jit jit;

    jit_init(&jit, HOST_MEMORY_TLB, w);
    for (unsigned size = 30; size <= 1000; size = size * 5 / 2) {
        struct random_options options = {.insts = size,
                                         .slot_base = WORLD_SLOTS,
                                         .memory_base = WORLD_MEMORY,
                                         .memory = true,
                                         .leaves = true};
        u64 insts = 0, bytes = 0, ns;

        for (unsigned i = 0; i < UNITS; i++) {
            units[i] = random_unit(&arena, i + 1, &options);
            if (!units[i] || opt_run(units[i], OPT_QUICK))
                return 1;
        }
        ns = measure(&jit, units, &scratch, &insts, &bytes);
        printf("%5lu instructions a unit: %6.1f ns an instruction, %.1f bytes\n",
               insts / (UNITS * ROUNDS), (double)ns / (double)insts, (double)bytes / (double)insts);
    }
    arena_free(&arena);
    arena_free(&scratch);
    jit_free(&jit);
    world_free(w);
    return 0;
}
