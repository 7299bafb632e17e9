#include "../unit.h"

#include "base/clock.h"
#include "soft/clock.h"

/* The guest's formula (Linux, Documentation/virt/kvm/x86/msr.rst). */
static u64 pvclock_ns(u64 delta, u32 mul, s8 shift)
{
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return (u64)((u128)delta * mul >> 32);
}

static void test_factor(void **state)
{
    static const u64 khz[] = {10000, 999999, 1000000, 1000001, 2000000, 2595191, 4000001, 5700000};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
        u64 hour = khz[i] * 1000 * 3600, ns;
        s8 shift;
        u32 mul;

        soft_clock_factor(khz[i], &mul, &shift);
        assert_true(mul >> 31);
        ns = pvclock_ns(hour, mul, shift);
        /* 2^-31 relative error of mul, an hour: 2 us. */
        assert_in_range(ns, 3600 * NSEC_PER_SEC - 2000, 3600 * NSEC_PER_SEC + 1);
    }
}

static bool agrees(const struct soft_clock *clock)
{
    u64 ns = clock_mono_ns(), ticks = soft_clock_ticks(clock);

    while (clock_mono_ns() < ns + 5000000) {
    }
    ticks = soft_clock_ticks_to_ns(clock, soft_clock_ticks(clock) - ticks);
    ns = clock_mono_ns() - ns;
    return ticks >= ns * 99 / 100 && ticks <= ns * 101 / 100;
}

/* The host may take the CPU away between two looks at the clocks, so there are some tries. */
static void test_measured_against_the_host(void **state)
{
    struct soft_clock clock;
    unsigned tries = 0;

    (void)state;
    soft_clock_init(&clock, soft_clock_measure());
    while (!agrees(&clock))
        assert_in_range(++tries, 1, 20);
}

static void test_set(void **state)
{
    struct soft_clock clock;
    u64 now;

    (void)state;
    soft_clock_init(&clock, 0); /* without a usable TSC: nanoseconds */
    assert_int_equal(clock.khz, 1000000);
    soft_clock_set(&clock, 5000000000000ull);
    now = soft_clock_now(&clock);
    assert_in_range(now, 5000000000000ull, 5001000000000ull);
    assert_true(soft_clock_now(&clock) >= now);
    assert_int_equal(soft_clock_ns_to_ticks(&clock, 77), 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_factor),
        cmocka_unit_test(test_measured_against_the_host),
        cmocka_unit_test(test_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
