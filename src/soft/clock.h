/*
 * The guest's clocks: the host's TSC is the one source. The guest's TSC is it with offset and
 * scale; kvmclock is computed from it by the guest itself, with a factor that we publish.
 */
#ifndef TRIODE_SOFT_CLOCK_H
#define TRIODE_SOFT_CLOCK_H

#include "base/types.h"

struct soft_clock {
    u64 khz;         /* of the host's TSC */
    bool counter;    /* the host has an invariant TSC; else ticks are nanoseconds */
    u64 boot_tsc;    /* host ticks when the VM was made: the guest's TSC begins at 0 there */
    u64 epoch_ticks; /* kvmclock: at this host tick */
    u64 epoch_ns;    /* it showed this */
};

/* The frequency of the host's TSC in kHz; 0: it has none that can serve as a clock. Takes some
 * milliseconds. */
u64 soft_clock_measure(void);

void soft_clock_init(struct soft_clock *clock, u64 host_khz);

/* Host ticks now. */
u64 soft_clock_ticks(const struct soft_clock *clock);
u64 soft_clock_ticks_to_ns(const struct soft_clock *clock, u64 ticks);
u64 soft_clock_ns_to_ticks(const struct soft_clock *clock, u64 ns);

/* kvmclock now, ns; and setting it. */
u64 soft_clock_now(const struct soft_clock *clock);
void soft_clock_set(struct soft_clock *clock, u64 ns);

/* Factor of pvclock: ns = ((ticks << shift) * mul) >> 32; a negative shift is to the right. */
void soft_clock_factor(u64 khz, u32 *mul, s8 *shift);

#endif
