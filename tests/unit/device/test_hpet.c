/* HPET (IA-PC HPET Specification 1.0a): counter, comparators, where interrupts go. */
#include <time.h>

#include "board.h"
#include "device/hpet.h"

#define BASE 0xfed00000
#define CONFIG 0x10
#define STATUS 0x20
#define COUNTER 0xf0
#define TIMER(n) (0x100 + 0x20 * (n))
#define COMPARATOR(n) (TIMER(n) + 8)
#define MESSAGE(n) (TIMER(n) + 16)

enum {
    LEVEL = 0x02,
    INTERRUPT = 0x04,
    PERIODIC = 0x08,
    SET = 0x40,
    ONLY_32 = 0x100,
    LINE_20 = 20 << 9,
    BY_MESSAGE = 0x4000
};

static struct {
    int pit_cuts, pit_connects;
    unsigned messages;
    u64 address;
    u32 data;
} seen;

static void pit_connect(void *opaque, bool connected)
{
    (void)opaque;
    seen.pit_connects += connected;
    seen.pit_cuts += !connected;
}

static void msi(void *opaque, u64 address, u32 data)
{
    (void)opaque;
    seen.messages++;
    seen.address = address;
    seen.data = data;
}

static u64 get(struct board *b, u64 offset, unsigned size)
{
    u64 value;

    assert_true(device_bus_read(&b->memory, BASE + offset, size, &value));
    return value;
}

static void set(struct board *b, u64 offset, unsigned size, u64 value)
{
    assert_true(device_bus_write(&b->memory, BASE + offset, size, value));
}

static struct board *new_hpet(void)
{
    struct board *b = board_new("hpet", NULL);

    memset(&seen, 0, sizeof(seen));
    b->env.pit_connect = pit_connect;
    b->env.msi = msi;
    return b;
}

static void pass(unsigned us)
{
    u64 end = clock_mono_ns() + us * 1000ull;

    while (clock_mono_ns() < end)
        ;
}

static void says_what_it_is(void **state)
{
    struct board *b = new_hpet();

    (void)state;
    assert_int_equal(get(b, 0, 4), DEVICE_HPET_ID);
    assert_int_equal(get(b, 4, 4), 10000000); /* fs */
    assert_int_equal(get(b, 0, 8), 0x989680ull << 32 | 0x8086a201);
    assert_int_equal(get(b, 2, 2), 0x8086);
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(get(b, TIMER(n), 4) & 0x8030, 0x8030); /* message, 64 bits, periodic */
        assert_int_equal(get(b, TIMER(n) + 4, 4), 0x00ff0000);
        assert_true(get(b, COMPARATOR(n), 8) == ~0ull);
    }
    assert_int_equal(get(b, TIMER(3), 8), 0); /* there is no fourth */
    set(b, 0, 8, 0);
    set(b, TIMER(3), 8, ~0ull);
    set(b, 0x3f8, 8, ~0ull);
    assert_int_equal(get(b, 0, 4), DEVICE_HPET_ID);
    assert_int_equal(get(b, 0x3f8, 8), 0);
    board_free(b);
}

static void counts_while_enabled(void **state)
{
    struct board *b = new_hpet();
    u64 first, second, start;

    (void)state;
    set(b, COUNTER, 8, 0x123456789abcdef0);
    pass(50);
    assert_true(get(b, COUNTER, 8) == 0x123456789abcdef0);
    set(b, COUNTER, 4, 0);
    set(b, COUNTER + 4, 4, 7);
    assert_true(get(b, COUNTER, 8) == 7ull << 32);
    start = clock_mono_ns();
    set(b, CONFIG, 4, 1);
    first = get(b, COUNTER, 8);
    pass(1000);
    second = get(b, COUNTER, 8);
    assert_in_range(second - first, 1000 * 100, (clock_mono_ns() - start) / 10);
    set(b, CONFIG, 4, 0);
    first = get(b, COUNTER, 8);
    assert_in_range(first, second, (7ull << 32) + (clock_mono_ns() - start) / 10);
    pass(50);
    assert_true(get(b, COUNTER, 8) == first);
    assert_int_equal(get(b, CONFIG, 8), 0);
    board_free(b);
}

/* One shot on line 0, as Linux has its first timer. */
static void one_shot_by_legacy_route(void **state)
{
    struct board *b = new_hpet();
    u64 at;

    (void)state;
    set(b, CONFIG, 4, 3);
    assert_int_equal(seen.pit_cuts, 1);
    set(b, TIMER(0), 4, INTERRUPT | ONLY_32);
    at = get(b, COUNTER, 4) + 20000; /* 200 us */
    set(b, COMPARATOR(0), 4, at);
    board_fire(b); /* too early */
    assert_int_equal(b->edges[0], 0);
    pass(250);
    board_fire(b);
    assert_int_equal(b->edges[0], 1);
    assert_int_equal(b->line[0], 0);
    board_fire(b);
    assert_int_equal(b->edges[0], 1);
    assert_int_equal(get(b, COMPARATOR(0), 8), (u32)at);
    /* A value that is reached at this moment counts. */
    set(b, CONFIG, 4, 2);
    set(b, COUNTER, 8, 5000);
    set(b, COMPARATOR(0), 4, 5000);
    set(b, CONFIG, 4, 3);
    assert_int_equal(b->edges[0], 2);
    /* Timer 1 has line 8, and going back gives the PIT its line again. */
    set(b, TIMER(1), 4, INTERRUPT);
    set(b, COMPARATOR(1), 8, get(b, COUNTER, 8) + 10000);
    pass(110);
    board_fire(b);
    assert_int_equal(b->edges[8], 1);
    set(b, CONFIG, 4, 1);
    assert_int_equal(seen.pit_connects, 1);
    board_free(b);
}

static void wraps_at_32_bits(void **state)
{
    struct board *b = new_hpet();

    (void)state;
    set(b, COUNTER, 8, 0x5ffffff00);
    set(b, TIMER(2), 4, INTERRUPT | ONLY_32 | LINE_20);
    set(b, COMPARATOR(2), 8, 0xabcd00000100); /* the upper half is cut off */
    assert_int_equal(get(b, COMPARATOR(2), 8), 0x100);
    set(b, CONFIG, 4, 1);
    pass(10);
    board_fire(b);
    assert_int_equal(b->edges[20], 1);

    /* With 64 bits the same value is 2^64 ticks away. */
    set(b, CONFIG, 4, 0);
    set(b, COUNTER, 8, 0x5ffffff00);
    set(b, TIMER(2), 4, INTERRUPT | LINE_20);
    set(b, COMPARATOR(2), 8, 0x100);
    set(b, CONFIG, 4, 1);
    pass(10);
    board_fire(b);
    assert_int_equal(b->edges[20], 1);
    board_free(b);
}

static void periodic(void **state)
{
    struct board *b = new_hpet();
    u64 start;

    (void)state;
    set(b, CONFIG, 4, 1);
    start = get(b, COUNTER, 8);
    set(b, TIMER(2), 4, INTERRUPT | PERIODIC | SET | LINE_20);
    assert_int_equal(get(b, TIMER(2), 4) & SET, 0); /* reads as 0 */
    set(b, COMPARATOR(2), 8, start + 5000);
    set(b, COMPARATOR(2), 8, 30000); /* only what is added: 300 us */
    assert_int_equal(get(b, COMPARATOR(2), 8), start + 5000);
    pass(60);
    board_fire(b);
    assert_int_equal(b->edges[20], 1);
    assert_int_equal(get(b, COMPARATOR(2), 8), start + 35000);
    /* What is missed comes once, and the rhythm stays. */
    pass(1000);
    board_fire(b);
    assert_int_equal(b->edges[20], 2);
    assert_int_equal((get(b, COMPARATOR(2), 8) - start) % 30000, 5000);
    assert_true(get(b, COMPARATOR(2), 8) > get(b, COUNTER, 8));
    /* The same once more after a migration. */
    board_migrate(b, NULL);
    pass(310);
    board_fire(b);
    assert_int_equal(b->edges[20], 3);
    set(b, CONFIG, 4, 0);
    pass(350);
    board_fire(b);
    assert_int_equal(b->edges[20], 3);
    board_free(b);
}

static void level_and_status(void **state)
{
    struct board *b = new_hpet();

    (void)state;
    set(b, CONFIG, 4, 1);
    set(b, TIMER(1), 4, INTERRUPT | LEVEL | LINE_20);
    set(b, COMPARATOR(1), 8, get(b, COUNTER, 8) + 10000);
    pass(110);
    board_fire(b);
    assert_int_equal(b->line[20], 1);
    assert_int_equal(get(b, STATUS, 8), 2);
    set(b, STATUS, 4, 1); /* another timer's */
    assert_int_equal(b->line[20], 1);
    board_migrate(b, NULL);
    assert_int_equal(b->line[20], 1);
    set(b, TIMER(1), 4, LEVEL | LINE_20);
    assert_int_equal(b->line[20], 0);
    set(b, TIMER(1), 4, INTERRUPT | LEVEL | LINE_20);
    assert_int_equal(b->line[20], 1);
    set(b, STATUS, 4, 2);
    assert_int_equal(b->line[20], 0);
    assert_int_equal(get(b, STATUS, 4), 0);
    device_reset(b->dev);
    assert_int_equal(get(b, CONFIG, 4), 0);
    board_free(b);
}

static void by_message(void **state)
{
    struct board *b = new_hpet();

    (void)state;
    set(b, CONFIG, 4, 1);
    set(b, MESSAGE(2), 4, 0x4031);
    set(b, MESSAGE(2) + 4, 4, 0xfee01000);
    set(b, TIMER(2), 4, INTERRUPT | BY_MESSAGE);
    set(b, COMPARATOR(2), 8, get(b, COUNTER, 8) + 10000);
    pass(110);
    board_fire(b);
    assert_int_equal(seen.messages, 1);
    assert_int_equal(seen.address, 0xfee01000);
    assert_int_equal(seen.data, 0x4031);
    board_free(b);
}

/* A line outside the mask is not taken over; 100 million interrupts a second are not made. */
static void asks_too_much(void **state)
{
    struct board *b = new_hpet();

    (void)state;
    set(b, TIMER(2), 4, LINE_20);
    set(b, TIMER(2), 4, 5 << 9);
    assert_int_equal(get(b, TIMER(2), 4) >> 9 & 31, 20);
    set(b, CONFIG, 4, 1);
    for (u64 period = 0; period < 3; period++) {
        set(b, TIMER(2), 4, INTERRUPT | PERIODIC | SET | LINE_20);
        set(b, COMPARATOR(2), 8, get(b, COUNTER, 8) + 100);
        set(b, COMPARATOR(2), 8, period);
        pass(5);
        for (unsigned i = 0; i < b->timer_count; i++) {
            u64 now = clock_mono_ns();

            if (!b->timers[i]->deadline_ns)
                continue;
            b->timers[i]->deadline_ns = 0;
            b->timers[i]->fire(b->timers[i]->opaque);
            assert_true(!b->timers[i]->deadline_ns || b->timers[i]->deadline_ns >= now + 20000);
        }
    }
    for (u64 offset = 0; offset < 1024; offset += 8)
        for (unsigned size = 1; size <= 8; size *= 2)
            set(b, offset, size, ~0ull);
    board_fire(b);
    board_free(b);
}

/* Line 8 belongs to one of the two. */
static void takes_the_clocks_line(void **state)
{
    struct board *clock = board_new("rtc", NULL), *b = new_hpet();

    (void)state;
    device_hpet_set_rtc(b->dev, clock->dev);
    outb(clock, 0x70, 0x0a);
    outb(clock, 0x71, 0x26);
    outb(clock, 0x70, 0x0b);
    outb(clock, 0x71, 0x42); /* periodic, 1024 Hz */
    pass(1100);
    board_fire(clock);
    assert_int_equal(clock->line[8], 1);
    set(b, CONFIG, 4, 2);
    assert_int_equal(clock->line[8], 0);
    pass(1100);
    board_fire(clock);
    assert_int_equal(clock->line[8], 0);
    set(b, CONFIG, 4, 0);
    assert_int_equal(clock->line[8], 1); /* it still wants it */
    device_reset(b->dev);
    board_free(b);
    board_free(clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_it_is),
        cmocka_unit_test(counts_while_enabled),
        cmocka_unit_test(one_shot_by_legacy_route),
        cmocka_unit_test(wraps_at_32_bits),
        cmocka_unit_test(periodic),
        cmocka_unit_test(level_and_status),
        cmocka_unit_test(by_message),
        cmocka_unit_test(asks_too_much),
        cmocka_unit_test(takes_the_clocks_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
