/*
 * Optimisation passes on a unit. opt_run reads as the list of passes; each pass's file says what it
 * requires, keeps and breaks. In debug builds the verifier runs after each.
 */
#ifndef TRIODE_OPT_H
#define TRIODE_OPT_H

#include "ir/ir.h"

enum opt_level { OPT_NONE, OPT_QUICK, OPT_FULL };

/* 0 or -ENOMEM. OPT_QUICK: dead code, put sinking (put -> dput or nothing) in one backward walk. */
int opt_run(struct ir_unit *unit, enum opt_level level);

/* A piece of a region: a unit of one block, as lifted. */
struct opt_part {
    struct ir_unit unit;
    s64 offset;    /* of its first guest instruction from the region's base, the page of parts[0] */
    bool dispatch; /* no guest code: jumps here come with their destination in the pc slot, the
                    * offset is but a name, and the unit's own base is the region's */
    bool used;     /* out: the region contains it */
};

#define OPT_MAX_PARTS 40

/*
 * Makes one unit of those of @parts that lie on a way from parts[0] back to it: a loop with all
 * that is in it. Guest registers are values across its blocks; jumps between parts stay inside the
 * unit, all others leave it. -ENOENT when no way leads back to parts[0], -E2BIG for more than the
 * tables hold, -ENOMEM. The answer is to be given to opt_run. @region is fresh, not yet ir_init'ed;
 * it and the scratch memory come from @arena.
 */
int opt_region(struct ir_unit *region, struct arena *arena, struct opt_part *parts, u32 nparts);

#endif
