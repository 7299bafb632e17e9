/* The 8259 pair by its data sheet. */
#include "../unit.h"

#include <string.h>

#include "soft/pic.h"

struct fixture {
    struct pic pic;
    unsigned changes;
};

static void set_output(struct pic *pic, bool level)
{
    struct fixture *f = (struct fixture *)pic;

    (void)level;
    f->changes++;
}

/* As a PC's firmware and Linux do it: vectors 20h and 28h. */
static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof f);
    pic_init(&f.pic, set_output);
    for (u16 port = 0x20; port <= 0xa0; port += 0x80) {
        pic_write(&f.pic, port, 0x11);
        pic_write(&f.pic, port + 1, port == 0x20 ? 0x20 : 0x28);
        pic_write(&f.pic, port + 1, port == 0x20 ? 4 : 2);
        pic_write(&f.pic, port + 1, 1);
        pic_write(&f.pic, port + 1, 0);
    }
    *state = &f;
    return 0;
}

static void test_edge_and_priority(void **state)
{
    struct pic *pic = *state;

    pic_set_line(pic, 4, true);
    pic_set_line(pic, 1, true);
    assert_true(pic->output);
    assert_int_equal(pic_acknowledge(pic), 0x21);
    assert_false(pic->output); /* 4 waits for 1 */
    pic_set_line(pic, 0, true);
    assert_true(pic->output); /* 0 does not */
    assert_int_equal(pic_acknowledge(pic), 0x20);
    pic_write(pic, 0x20, 0x20); /* EOI of 0 */
    assert_false(pic->output);
    pic_write(pic, 0x20, 0x61); /* specific EOI of 1 */
    assert_true(pic->output);
    assert_int_equal(pic_acknowledge(pic), 0x24);
    pic_write(pic, 0x20, 0x20);
    assert_false(pic->output); /* still high, but no new edge */
    pic_set_line(pic, 4, false);
    pic_set_line(pic, 4, true);
    assert_true(pic->output);
}

static void test_slave(void **state)
{
    struct pic *pic = *state;

    pic_set_line(pic, 12, true);
    assert_true(pic->output);
    assert_int_equal(pic_acknowledge(pic), 0x2c);
    pic_write(pic, 0x20, 0x0b);
    assert_int_equal(pic_read(pic, 0x20), 0x04); /* master: cascade in service */
    pic_write(pic, 0xa0, 0x0b);
    assert_int_equal(pic_read(pic, 0xa0), 0x10);
    pic_set_line(pic, 8, true); /* higher on the slave, but the master serves its cascade */
    assert_false(pic->output);
    pic_write(pic, 0x20, 0x20);
    assert_true(pic->output);
    assert_int_equal(pic_acknowledge(pic), 0x28);
}

static void test_mask_and_spurious(void **state)
{
    struct pic *pic = *state;

    pic_write(pic, 0x21, 0x10);
    pic_set_line(pic, 4, true);
    assert_false(pic->output);
    assert_int_equal(pic_read(pic, 0x21), 0x10);
    assert_int_equal(pic_read(pic, 0x20), 0x10); /* IRR shows it nevertheless */
    pic_write(pic, 0x21, 0);
    assert_true(pic->output);
    pic_write(pic, 0x21, 0xff); /* gone before the acknowledge */
    assert_int_equal(pic_acknowledge(pic), 0x27);
    pic_write(pic, 0x20, 0x0b);
    assert_int_equal(pic_read(pic, 0x20), 0); /* spurious: nothing in service */
}

static void test_level_triggered(void **state)
{
    struct pic *pic = *state;

    pic_write(pic, 0x4d1, 0xff);
    assert_int_equal(pic_read(pic, 0x4d1), 0xde); /* 8 and 13 are edge-triggered for ever */
    pic_write(pic, 0x4d0, 0xff);
    assert_int_equal(pic_read(pic, 0x4d0), 0xf8);
    pic_set_line(pic, 11, true);
    assert_int_equal(pic_acknowledge(pic), 0x2b);
    pic_write(pic, 0xa0, 0x20);
    pic_write(pic, 0x20, 0x20);
    assert_true(pic->output); /* high is enough */
    pic_set_line(pic, 11, false);
    assert_false(pic->output);
}

static void test_rotation_and_special_mask(void **state)
{
    struct pic *pic = *state;

    pic_write(pic, 0x20, 0xc4); /* 4 is the lowest now, 5 the highest */
    pic_set_line(pic, 0, true);
    pic_set_line(pic, 6, true);
    assert_int_equal(pic_acknowledge(pic), 0x26);
    pic_write(pic, 0x20, 0xa0); /* EOI and rotate: 7 is the highest */
    assert_int_equal(pic_acknowledge(pic), 0x20);
    pic_set_line(pic, 3, true);
    assert_false(pic->output);
    pic_write(pic, 0x20, 0x68); /* special mask mode */
    pic_write(pic, 0x21, 0x01); /* mask what is in service: the others may come */
    assert_true(pic->output);
    assert_int_equal(pic_acknowledge(pic), 0x23);
}

static void test_poll(void **state)
{
    struct pic *pic = *state;

    pic_write(pic, 0x20, 0x0c);
    assert_int_equal(pic_read(pic, 0x20), 0);
    pic_set_line(pic, 5, true);
    pic_write(pic, 0x20, 0x0c);
    assert_int_equal(pic_read(pic, 0x20), 0x85);
    assert_false(pic->output);
    pic_write(pic, 0x20, 0x0b);
    assert_int_equal(pic_read(pic, 0x20), 0x20);
}

static void test_auto_eoi(void **state)
{
    struct pic *pic = *state;

    pic_write(pic, 0x20, 0x11);
    pic_write(pic, 0x21, 0x20);
    pic_write(pic, 0x21, 4);
    pic_write(pic, 0x21, 3);
    pic_set_line(pic, 3, true);
    assert_int_equal(pic_acknowledge(pic), 0x23);
    pic_write(pic, 0x20, 0x0b);
    assert_int_equal(pic_read(pic, 0x20), 0);
}

static void test_state_round_trip(void **state)
{
    struct pic *pic = *state;
    struct kvm_pic_state image, again;

    pic_write(pic, 0x21, 0x40);
    pic_set_line(pic, 1, true);
    pic_acknowledge(pic);
    pic_get_state(pic, 0, &image);
    assert_int_equal(image.isr, 2);
    assert_int_equal(image.imr, 0x40);
    assert_int_equal(image.irq_base, 0x20);
    pic_reset(pic);
    pic_set_state(pic, 0, &image);
    pic_get_state(pic, 0, &again);
    assert_memory_equal(&image, &again, sizeof image);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_edge_and_priority),
        TEST(test_slave),
        TEST(test_mask_and_spurious),
        TEST(test_level_triggered),
        TEST(test_rotation_and_special_mask),
        TEST(test_poll),
        TEST(test_auto_eoi),
        TEST(test_state_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
