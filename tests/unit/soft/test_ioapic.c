/* The I/O APIC by its data sheet. */
#include "../unit.h"

#include <string.h>

#include "soft/ioapic.h"

struct fixture {
    struct ioapic ioapic;
    unsigned sent;
    struct apic_message message;
};

static void send(struct ioapic *ioapic, const struct apic_message *message)
{
    struct fixture *f = container_of(ioapic, struct fixture, ioapic);

    f->sent++;
    f->message = *message;
}

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof f);
    ioapic_init(&f.ioapic, send);
    *state = &f;
    return 0;
}

static void write_reg(struct fixture *f, u32 reg, u32 value)
{
    ioapic_write(&f->ioapic, 0x00, reg);
    ioapic_write(&f->ioapic, 0x10, value);
}

static u32 read_reg(struct fixture *f, u32 reg)
{
    ioapic_write(&f->ioapic, 0x00, reg);
    return ioapic_read(&f->ioapic, 0x10);
}

static void test_registers(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(read_reg(f, 1), 0x00170020);
    assert_int_equal(read_reg(f, 0x10), 0x10000); /* masked after reset */
    write_reg(f, 0, 0xff000000);
    assert_int_equal(read_reg(f, 0), 0x0f000000);
    write_reg(f, 0x10 + 2 * 23 + 1, 0xaa123456);
    write_reg(f, 0x10 + 2 * 23, 0xffffffff);
    assert_int_equal(read_reg(f, 0x10 + 2 * 23 + 1), 0xaa000000);
    assert_int_equal(read_reg(f, 0x10 + 2 * 23), 0x1afff); /* status and remote IRR: read-only */
    write_reg(f, 0x10 + 2 * 24, 0);
    assert_int_equal(read_reg(f, 0x10 + 2 * 24), 0);
    assert_int_equal(ioapic_read(&f->ioapic, 0x20), 0);
}

static void test_edge(void **state)
{
    struct fixture *f = *state;

    ioapic_set_line(&f->ioapic, 4, true); /* masked: lost */
    write_reg(f, 0x10 + 2 * 4 + 1, 0x02000000);
    write_reg(f, 0x10 + 2 * 4, 0x0834); /* logical, fixed, 34h */
    assert_int_equal(f->sent, 0);
    ioapic_set_line(&f->ioapic, 4, true); /* still high: no edge */
    assert_int_equal(f->sent, 0);
    ioapic_set_line(&f->ioapic, 4, false);
    ioapic_set_line(&f->ioapic, 4, true);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->message.vector, 0x34);
    assert_int_equal(f->message.dest, 2);
    assert_true(f->message.logical && f->message.narrow && !f->message.level);
    ioapic_eoi(&f->ioapic, 0x34);
    assert_int_equal(f->sent, 1);
}

static void test_level(void **state)
{
    struct fixture *f = *state;

    write_reg(f, 0x10 + 2 * 10, 0x8055); /* level */
    ioapic_set_line(&f->ioapic, 10, true);
    assert_int_equal(f->sent, 1);
    assert_true(f->message.level);
    assert_int_equal(read_reg(f, 0x10 + 2 * 10), 0xc055);
    ioapic_set_line(&f->ioapic, 10, false);
    ioapic_set_line(&f->ioapic, 10, true);
    assert_int_equal(f->sent, 1); /* remote IRR holds it back */
    ioapic_eoi(&f->ioapic, 0x54); /* another vector */
    assert_int_equal(f->sent, 1);
    ioapic_eoi(&f->ioapic, 0x55); /* the line is still high: again */
    assert_int_equal(f->sent, 2);
    ioapic_set_line(&f->ioapic, 10, false);
    ioapic_write(&f->ioapic, 0x40, 0x55); /* the EOI register does the same */
    assert_int_equal(f->sent, 2);
    assert_int_equal(read_reg(f, 0x10 + 2 * 10), 0x8055);
    write_reg(f, 0x10 + 2 * 10, 0x18055);
    ioapic_set_line(&f->ioapic, 10, true);
    assert_int_equal(f->sent, 2);
    write_reg(f, 0x10 + 2 * 10, 0x8055); /* unmasked while high */
    assert_int_equal(f->sent, 3);
    /* Guests without EOI registers clear remote IRR by going to edge and back. */
    write_reg(f, 0x10 + 2 * 10, 0x10055);
    assert_int_equal(read_reg(f, 0x10 + 2 * 10), 0x10055);
}

static struct kvm_msi asked;

static bool remap(void *opaque, struct kvm_msi *msi)
{
    asked = *msi;
    *msi = *(const struct kvm_msi *)opaque;
    return msi->address_lo != 0;
}

/* With somebody who remaps: the entry as a message, and what comes back in its place. */
static void test_remapped(void **state)
{
    struct kvm_msi answer = {.address_lo = 0xfee34004, .address_hi = 0x1200, .data = 0x8166};
    struct fixture *f = *state;

    ioapic_set_remap(&f->ioapic, remap, &answer);
    write_reg(f, 0x10 + 2 * 10 + 1, 0xabcdffff);
    assert_int_equal(read_reg(f, 0x10 + 2 * 10 + 1), 0xabcd0000);
    write_reg(f, 0x10 + 2 * 10, 0x8955); /* level, logical, lowest priority */
    ioapic_set_line(&f->ioapic, 10, true);
    assert_int_equal(asked.address_lo, 0xfee00000 | 0xabcd << 4 | 4);
    assert_int_equal(asked.data, 0xc155);
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->message.dest, 0x1234);
    assert_int_equal(f->message.vector, 0x66);
    assert_int_equal(f->message.delivery, APIC_LOWEST);
    assert_true(f->message.logical && f->message.level && !f->message.narrow);
    assert_int_equal(read_reg(f, 0x10 + 2 * 10), 0xc955); /* remote IRR is this pin's own */
    ioapic_eoi(&f->ioapic, 0x66);
    assert_int_equal(f->sent, 1);
    ioapic_eoi(&f->ioapic, 0x55);
    assert_int_equal(f->sent, 2);
    answer.address_lo = 0; /* blocked */
    ioapic_eoi(&f->ioapic, 0x55);
    assert_int_equal(f->sent, 2);
}

static void test_state_round_trip(void **state)
{
    struct fixture *f = *state;
    struct kvm_ioapic_state image, again;

    write_reg(f, 0x10 + 2 * 10, 0x8055);
    write_reg(f, 0x10 + 2 * 10 + 1, 0x03000000);
    write_reg(f, 0, 0x04000000);
    ioapic_set_line(&f->ioapic, 10, true);
    ioapic_get_state(&f->ioapic, &image);
    assert_int_equal(image.redirtbl[10].fields.vector, 0x55);
    assert_int_equal(image.redirtbl[10].fields.remote_irr, 1);
    assert_int_equal(image.redirtbl[10].fields.dest_id, 3);
    assert_int_equal(image.id, 4);
    ioapic_reset(&f->ioapic);
    ioapic_set_state(&f->ioapic, &image);
    ioapic_get_state(&f->ioapic, &again);
    assert_memory_equal(&image, &again, sizeof image);
    assert_int_equal(f->sent, 1); /* being served: not sent again */
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_registers), TEST(test_edge), TEST(test_level),
                                       TEST(test_remapped), TEST(test_state_round_trip)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
