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

#endif
