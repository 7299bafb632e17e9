/* The 8254 on made-up time, by its data sheet. One tick is 838.1 ns. */
#include "../unit.h"

#include <string.h>

#include "base/bits.h"
#include "soft/pit.h"

struct fixture {
    struct pit pit;
    struct soft_timers timers;
    unsigned rises;
    bool line;
};

static void set_line(struct pit *pit, bool level)
{
    struct fixture *f = (struct fixture *)pit;

    f->rises += level && !f->line;
    f->line = level;
}

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof f);
    soft_timers_by_hand(&f.timers);
    pit_init(&f.pit, &f.timers, set_line);
    *state = &f;
    return 0;
}

static void advance_ticks(struct fixture *f, u64 ticks)
{
    static const u64 second = 1000000000;
    u64 now = soft_timers_now(&f->timers), begun = now * PIT_HZ / second + ticks;

    soft_timers_advance(&f->timers, (begun * second + PIT_HZ - 1) / PIT_HZ - now);
}

static void program(struct fixture *f, unsigned channel, unsigned mode, u16 count)
{
    pit_write(&f->pit, 0x43, (u8)(channel << 6 | 0x30 | mode << 1));
    pit_write(&f->pit, (u16)(0x40 + channel), (u8)count);
    pit_write(&f->pit, (u16)(0x40 + channel), (u8)(count >> 8));
}

static u16 latched(struct fixture *f, unsigned channel)
{
    u8 low;

    pit_write(&f->pit, 0x43, (u8)(channel << 6));
    low = pit_read(&f->pit, (u16)(0x40 + channel));
    return (u16)(low | pit_read(&f->pit, (u16)(0x40 + channel)) << 8);
}

static void test_rate(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 11932); /* 100 Hz */
    assert_true(f->line);
    f->rises = 0;
    soft_timers_advance(&f->timers, 1000000000);
    assert_in_range(f->rises, 99, 100);
}

static void test_square_wave(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 3, 1000);
    f->rises = 0;
    advance_ticks(f, 10 * 1000);
    assert_in_range(f->rises, 9, 10);
    program(f, 2, 3, 1000);
    pit_write(&f->pit, 0x61, 1);
    advance_ticks(f, 10);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0x20);
    advance_ticks(f, 500);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0);
    advance_ticks(f, 500);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0x20);
}

static void test_terminal_count(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 0, 500);
    assert_false(f->line);
    advance_ticks(f, 499);
    assert_int_equal(f->rises, 0);
    advance_ticks(f, 2);
    assert_int_equal(f->rises, 1);
    assert_true(f->line);
    advance_ticks(f, 100000);
    assert_int_equal(f->rises, 1); /* once */
}

static void test_latch_and_access_modes(void **state)
{
    struct fixture *f = *state;
    u16 count;

    program(f, 0, 2, 0); /* 65536 */
    advance_ticks(f, 0x1234);
    pit_write(&f->pit, 0x43, 0x00);
    advance_ticks(f, 0x100); /* does not change what is latched */
    count = pit_read(&f->pit, 0x40);
    count |= pit_read(&f->pit, 0x40) << 8;
    assert_in_range(count, 0x10000 - 0x1235, 0x10000 - 0x1233);
    assert_in_range(latched(f, 0), 0x10000 - 0x1336, 0x10000 - 0x1333);
    pit_write(&f->pit, 0x43, 0x14); /* channel 0, low byte only, mode 2 */
    pit_write(&f->pit, 0x40, 0x80);
    advance_ticks(f, 0x10);
    assert_in_range(pit_read(&f->pit, 0x40), 0x6f, 0x71);
    pit_write(&f->pit, 0x43, 0x24); /* high byte only */
    pit_write(&f->pit, 0x40, 0x02);
    advance_ticks(f, 0x10);
    assert_int_equal(pit_read(&f->pit, 0x40), 0x01);
}

static void test_read_back(void **state)
{
    struct fixture *f = *state;

    program(f, 0, 2, 100);
    pit_write(&f->pit, 0x43, 0xe2);                  /* status of channel 0 */
    assert_int_equal(pit_read(&f->pit, 0x40), 0xb4); /* output high, both bytes, mode 2 */
    pit_write(&f->pit, 0x43, 0x34);                  /* no count yet: null count */
    pit_write(&f->pit, 0x43, 0xe2);
    assert_int_equal(pit_read(&f->pit, 0x40) & 0x40, 0x40);
    program(f, 2, 0, 1000);
    pit_write(&f->pit, 0x43, 0xc8); /* status and count of channel 2: the status comes first */
    assert_int_equal(pit_read(&f->pit, 0x42), 0x30);
    assert_int_equal(pit_read(&f->pit, 0x42), 1000 & 0xff);
    assert_int_equal(pit_read(&f->pit, 0x42), 1000 >> 8);
}

/* What Linux does to measure its TSC: channel 2 in mode 0, gate by port 61h, output in bit 5. */
static void test_gate(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 0, 1000);
    advance_ticks(f, 5000); /* the gate is low: no counting */
    assert_int_equal(latched(f, 2), 1000);
    pit_write(&f->pit, 0x61, 1);
    advance_ticks(f, 600);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x21, 1);
    pit_write(&f->pit, 0x61, 0);
    advance_ticks(f, 5000);
    assert_in_range(latched(f, 2), 399, 401);
    pit_write(&f->pit, 0x61, 1);
    advance_ticks(f, 398);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0);
    advance_ticks(f, 4);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0x20);
}

static void test_one_shot_by_gate(void **state)
{
    struct fixture *f = *state;

    program(f, 2, 1, 100);
    advance_ticks(f, 1000);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0x20); /* high until triggered */
    pit_write(&f->pit, 0x61, 1);
    advance_ticks(f, 50);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0);
    pit_write(&f->pit, 0x61, 0); /* the gate's level does not matter */
    advance_ticks(f, 49);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0);
    advance_ticks(f, 3);
    assert_int_equal(pit_read(&f->pit, 0x61) & 0x20, 0x20);
}

static void test_bcd(void **state)
{
    struct fixture *f = *state;

    pit_write(&f->pit, 0x43, 0x31); /* channel 0, mode 0, BCD */
    pit_write(&f->pit, 0x40, 0x00);
    pit_write(&f->pit, 0x40, 0x10); /* 1000 decimal */
    advance_ticks(f, 1);
    assert_in_range(latched(f, 0), 0x0998, 0x1000);
    advance_ticks(f, 100);
    assert_in_range(latched(f, 0), 0x0898, 0x0900);
}

static void test_state_round_trip(void **state)
{
    struct fixture *f = *state;
    struct kvm_pit_state2 image, again;

    program(f, 0, 2, 1000);
    pit_write(&f->pit, 0x61, 3);
    advance_ticks(f, 100);
    pit_get_state(&f->pit, &image);
    assert_int_equal(image.channels[0].count, 1000);
    assert_int_equal(image.channels[0].mode, 2);
    assert_int_equal(image.flags, KVM_PIT_FLAGS_SPEAKER_DATA_ON);
    program(f, 0, 0, 7);
    pit_set_state(&f->pit, &image);
    pit_get_state(&f->pit, &again);
    assert_memory_equal(&image, &again, sizeof image);
    f->line = false;
    f->rises = 0;
    advance_ticks(f, 905);
    assert_int_equal(f->rises, 1);
}

/* The HPET has line 0; the channel counts on. */
static void test_cut_off_its_line(void **state)
{
    struct fixture *f = *state;
    struct kvm_pit_state2 image;

    program(f, 0, 2, 1000);
    pit_get_state(&f->pit, &image);
    image.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
    pit_set_state(&f->pit, &image);
    pit_get_state(&f->pit, &image);
    assert_int_equal(image.flags, KVM_PIT_FLAGS_HPET_LEGACY);
    f->rises = 0;
    advance_ticks(f, 3500);
    assert_int_equal(f->rises, 0);
    assert_in_range(latched(f, 0), 1, 500);
    image.flags = 0;
    pit_set_state(&f->pit, &image);
    advance_ticks(f, 1000);
    assert_int_equal(f->rises, 1);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rate),
        TEST(test_square_wave),
        TEST(test_terminal_count),
        TEST(test_latch_and_access_modes),
        TEST(test_read_back),
        TEST(test_gate),
        TEST(test_one_shot_by_gate),
        TEST(test_bcd),
        TEST(test_state_round_trip),
        TEST(test_cut_off_its_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
