/* The one source of time. Record/replay will hook in here. */
#ifndef TRIODE_BASE_CLOCK_H
#define TRIODE_BASE_CLOCK_H

#include "base/types.h"

#define NSEC_PER_SEC UINT64_C(1000000000)

/* Nanoseconds of the host's CLOCK_MONOTONIC. */
u64 clock_mono_ns(void);

/* Nanoseconds since the epoch, CLOCK_REALTIME. */
u64 clock_real_ns(void);

/* CPU nanoseconds used by the calling thread. */
u64 clock_thread_ns(void);

/* a * mul / div with a 128-bit product. */
static inline u64 muldiv64(u64 a, u64 mul, u64 div)
{
    return (u64)((u128)a * mul / div);
}

#endif
