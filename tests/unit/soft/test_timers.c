#include "../unit.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "soft/timers.h"

struct counted {
    struct soft_timer timer;
    unsigned fired;
    u64 at, period;
};

static void count(struct soft_timer *timer)
{
    struct counted *c = (struct counted *)timer;

    c->fired++;
    c->at = soft_timers_now(timer->queue);
    if (c->period)
        soft_timer_arm(timer, timer->deadline + c->period);
}

static void test_order(void **state)
{
    struct soft_timers timers;
    struct counted a = {0}, b = {0}, c = {0};

    (void)state;
    soft_timers_by_hand(&timers);
    soft_timer_init(&a.timer, &timers, count);
    soft_timer_init(&b.timer, &timers, count);
    soft_timer_init(&c.timer, &timers, count);
    soft_timer_arm(&a.timer, 300);
    soft_timer_arm(&b.timer, 100);
    soft_timer_arm(&c.timer, 200);
    soft_timers_advance(&timers, 99);
    assert_int_equal(a.fired + b.fired + c.fired, 0);
    soft_timers_advance(&timers, 1);
    assert_int_equal(b.fired, 1);
    soft_timer_disarm(&c.timer);
    soft_timers_advance(&timers, 1000);
    assert_int_equal(a.at, 300);
    assert_int_equal(c.fired, 0);
    assert_int_equal(soft_timers_now(&timers), 1100);
}

static void test_periodic_and_rearmed(void **state)
{
    struct soft_timers timers;
    struct counted a = {.period = 10};

    (void)state;
    soft_timers_by_hand(&timers);
    soft_timer_init(&a.timer, &timers, count);
    soft_timer_arm(&a.timer, 5);
    soft_timer_arm(&a.timer, 10); /* replaces */
    soft_timers_advance(&timers, 100);
    assert_int_equal(a.fired, 10);
    soft_timer_destroy(&a.timer);
    soft_timers_advance(&timers, 100);
    assert_int_equal(a.fired, 10);
}

static atomic_uint thread_fired;

static void count_in_thread(struct soft_timer *timer)
{
    (void)timer;
    atomic_fetch_add(&thread_fired, 1);
}

/* A deadline earlier than what the thread sleeps for must not wait for the later one. */
static void test_thread(void **state)
{
    struct soft_timer late, early;
    struct soft_timers timers;
    u64 start = clock_mono_ns();

    (void)state;
    assert_int_equal(soft_timers_start(&timers, NULL), 0);
    soft_timer_init(&late, &timers, count_in_thread);
    soft_timer_init(&early, &timers, count_in_thread);
    soft_timer_arm(&late, start + 3600 * NSEC_PER_SEC);
    soft_timer_arm(&early, start + 2000000);
    while (!atomic_load(&thread_fired) && clock_mono_ns() < start + 5 * NSEC_PER_SEC) {
    }
    assert_int_equal(atomic_load(&thread_fired), 1);
    assert_true(clock_mono_ns() >= start + 2000000);
    soft_timer_arm(&early, 0); /* long past: at once */
    while (atomic_load(&thread_fired) < 2 && clock_mono_ns() < start + 5 * NSEC_PER_SEC) {
    }
    assert_int_equal(atomic_load(&thread_fired), 2);
    soft_timer_destroy(&late);
    soft_timer_destroy(&early);
    soft_timers_stop(&timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_periodic_and_rearmed),
        cmocka_unit_test(test_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
