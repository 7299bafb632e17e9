/* What the targets of each guest CPU's lifter share. */
#ifndef TRIODE_TESTS_FUZZ_LIFT_H
#define TRIODE_TESTS_FUZZ_LIFT_H

#include "fuzz.h"
#include "guest/guest.h"

/* Lifts code of @guest in @mode, whose instructions are at multiples of @alignment and have
 * @longest bytes at most, and takes it through all that follows. @in: u16 offset in the page, u8
 * choices, the code. */
void fuzz_lift(const struct guest_ops *guest, struct fuzz_input *in, u32 mode, unsigned alignment,
               unsigned longest);

#endif
