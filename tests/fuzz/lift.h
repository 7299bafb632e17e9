/* What the targets of each guest CPU's lifter share. */
#ifndef TRIODE_TESTS_FUZZ_LIFT_H
#define TRIODE_TESTS_FUZZ_LIFT_H

#include "guest/guest.h"

#define FUZZ_LIFT_BYTES 64 /* most of a block's page; as many again stand for the next page */

/* Lifts what @lift describes (its unit is set here) of @guest, whose instructions have @longest bytes
 * at most, and takes it through all that follows. */
void fuzz_lift(const struct guest_ops *guest, struct guest_lift *lift, unsigned longest,
               u8 choices);

#endif
