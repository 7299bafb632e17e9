#include "base/clock.h"

#include <time.h>

static u64 read_clock(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts); /* cannot fail for the three clocks below */
    return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

u64 clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

u64 clock_real_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

u64 clock_thread_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}
