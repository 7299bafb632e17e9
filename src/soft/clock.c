#include "soft/clock.h"

#include <cpuid.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/bits.h"
#include "base/clock.h"

#define MEASURE_NS 5000000

static bool invariant_tsc(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) && edx & BIT(8);
}

/* The kernel's own idea of the frequency, from a perf event's page: exact, if we may have one. */
static u64 khz_of_kernel(void)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE,
        .size = sizeof attr,
        .config = PERF_COUNT_SW_DUMMY,
        .exclude_kernel = 1,
    };
    int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    struct perf_event_mmap_page *page;
    u64 khz = 0;

    if (fd < 0)
        return 0;
    page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) {
        if (page->cap_user_time && page->time_mult)
            khz = (u64)(((u128)1000000 << page->time_shift) / page->time_mult);
        munmap(page, (size_t)sysconf(_SC_PAGESIZE));
    }
    close(fd);
    return khz;
}

/* A time stamp and the TSC as close to it as it gets: of some tries, the one with the shortest
 * gap. */
static void sample(u64 *ns, u64 *tsc)
{
    u64 best = ~0ull;

    *ns = *tsc = 0;
    for (unsigned i = 0; i < 8; i++) {
        u64 before = __rdtsc(), time = clock_mono_ns(), after = __rdtsc();

        if (after - before < best) {
            best = after - before;
            *ns = time;
            *tsc = before + best / 2;
        }
    }
}

static u64 khz_measured(void)
{
    struct timespec wait = {.tv_nsec = MEASURE_NS};
    u64 ns[2], tsc[2];

    sample(&ns[0], &tsc[0]);
    nanosleep(&wait, NULL);
    sample(&ns[1], &tsc[1]);
    return muldiv64(tsc[1] - tsc[0], 1000000, ns[1] - ns[0]);
}

u64 soft_clock_measure(void)
{
    u64 khz;

    if (!invariant_tsc())
        return 0;
    khz = khz_of_kernel();
    return khz ? khz : khz_measured();
}

void soft_clock_init(struct soft_clock *clock, u64 host_khz)
{
    memset(clock, 0, sizeof *clock);
    clock->counter = host_khz;
    clock->khz = host_khz ? host_khz : 1000000;
    clock->boot_tsc = clock->epoch_ticks = soft_clock_ticks(clock);
}

u64 soft_clock_ticks(const struct soft_clock *clock)
{
    return clock->counter ? __rdtsc() : clock_mono_ns();
}

u64 soft_clock_ticks_to_ns(const struct soft_clock *clock, u64 ticks)
{
    return muldiv64(ticks, 1000000, clock->khz);
}

u64 soft_clock_ns_to_ticks(const struct soft_clock *clock, u64 ns)
{
    return muldiv64(ns, clock->khz, 1000000);
}

u64 soft_clock_now(const struct soft_clock *clock)
{
    return clock->epoch_ns +
           soft_clock_ticks_to_ns(clock, soft_clock_ticks(clock) - clock->epoch_ticks);
}

void soft_clock_set(struct soft_clock *clock, u64 ns)
{
    clock->epoch_ns = ns;
    clock->epoch_ticks = soft_clock_ticks(clock);
}

/* Scaled by 2^shift the frequency lies above 1 GHz and not above 2, so mul uses its top bit. */
void soft_clock_factor(u64 khz, u32 *mul, s8 *shift)
{
    u64 hz = khz * 1000;
    int s = 0;

    while ((s < 0 ? hz >> -s : hz << s) > 2 * NSEC_PER_SEC)
        s--;
    while ((s < 0 ? hz >> -s : hz << s) <= NSEC_PER_SEC)
        s++;
    *shift = (s8)s;
    *mul = (u32)(((u128)NSEC_PER_SEC << (32 - s)) / hz);
}
