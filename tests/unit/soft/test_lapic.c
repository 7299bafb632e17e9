/* The local APIC on made-up time; expectations are the SDM's (volume 3 chapter 11). */
#include "../unit.h"

#include <pthread.h>
#include <string.h>

#include "soft/lapic.h"

struct fixture {
    struct lapic lapic;
    struct soft_timers timers;
    unsigned notified, nmis, sent, eois;
    struct apic_message message;
    u8 eoi_vector;
};

static struct fixture *of(struct lapic *lapic)
{
    return container_of(lapic, struct fixture, lapic);
}

static void notify(struct lapic *lapic)
{
    of(lapic)->notified++;
}

static void nmi(struct lapic *lapic)
{
    of(lapic)->nmis++;
}

static void eoi(struct lapic *lapic, u8 vector)
{
    of(lapic)->eois++;
    of(lapic)->eoi_vector = vector;
}

static void send(struct lapic *lapic, const struct apic_message *message)
{
    of(lapic)->sent++;
    of(lapic)->message = *message;
}

/* The guest's TSC runs at 2 GHz. */
static u64 deadline_ns(struct lapic *lapic, u64 tsc)
{
    (void)lapic;
    return tsc / 2;
}

static const struct lapic_hooks hooks = {notify, nmi, eoi, send, deadline_ns};

static int setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof f);
    soft_timers_by_hand(&f.timers);
    lapic_init(&f.lapic, 3, false, &f.timers, &hooks);
    *state = &f;
    return 0;
}

#define REG(reg) ((reg) << 4)

static void enable(struct fixture *f)
{
    lapic_mmio_write(&f->lapic, REG(APIC_SVR), 0x1ff);
}

static void test_reset_state(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ID)), 3u << 24);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_LVR)), 0x50014);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_SVR)), 0xff);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_DFR)), 0xffffffff);
    for (u32 reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg++)
        assert_int_equal(lapic_mmio_read(&f->lapic, REG(reg)), 0x10000);
    /* Switched off by SVR: fixed interrupts do not come through, LVT masks stick. */
    assert_false(lapic_accepts_fixed(&f->lapic));
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x40);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_LVT_TIMER)), 0x10040);
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;
    struct lapic *l = &f->lapic;

    enable(f);
    lapic_post(l, 0x41, false);
    lapic_post(l, 0x62, false);
    assert_int_equal(lapic_pending(l), 0x62);
    lapic_accept(l, 0x62);
    assert_int_equal(lapic_mmio_read(l, REG(APIC_PPR)), 0x60);
    assert_int_equal(lapic_pending(l), -1); /* class 4 waits for class 6 */
    lapic_post(l, 0x6f, false);
    assert_int_equal(lapic_pending(l), -1); /* the same class waits too */
    lapic_post(l, 0x71, false);
    assert_int_equal(lapic_pending(l), 0x71);
    lapic_accept(l, 0x71);
    lapic_mmio_write(l, REG(APIC_EOI), 0);
    assert_int_equal(lapic_mmio_read(l, REG(APIC_PPR)), 0x60);
    lapic_mmio_write(l, REG(APIC_EOI), 0);
    assert_int_equal(lapic_pending(l), 0x6f);
    lapic_set_cr8(l, 6);
    assert_int_equal(lapic_pending(l), -1);
    assert_int_equal(lapic_mmio_read(l, REG(APIC_TPR)), 0x60);
    f->notified = 0;
    lapic_set_cr8(l, 0);
    assert_int_equal(f->notified, 1);
    assert_int_equal(f->eois, 0);
}

static void test_level_eoi(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_post(&f->lapic, 0x55, true);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMR + 2)), 1u << 21);
    lapic_accept(&f->lapic, 0x55);
    lapic_mmio_write(&f->lapic, REG(APIC_EOI), 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->eoi_vector, 0x55);
    lapic_post(&f->lapic, 0x55, false);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMR + 2)), 0);
}

static void test_timer_one_shot(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 3); /* by 16 */
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x30);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 1000);
    soft_timers_advance(&f->timers, 16 * 400);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 600);
    soft_timers_advance(&f->timers, 16 * 600 - 1);
    assert_int_equal(lapic_pending(&f->lapic), -1);
    soft_timers_advance(&f->timers, 1);
    assert_int_equal(lapic_pending(&f->lapic), 0x30);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 0);
}

static void test_timer_periodic(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 0xb); /* by 1 */
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x20031);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 100000);
    for (unsigned i = 0; i < 5; i++) {
        soft_timers_advance(&f->timers, 100000);
        assert_int_equal(lapic_pending(&f->lapic), 0x31);
        lapic_accept(&f->lapic, 0x31);
        lapic_eoi(&f->lapic);
        assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 100000);
    }
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 0); /* stops it */
    soft_timers_advance(&f->timers, 1000000);
    assert_int_equal(lapic_pending(&f->lapic), -1);
}

static void test_timer_divide_on_the_fly(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 0xb);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x30);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 1000);
    soft_timers_advance(&f->timers, 500);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 0); /* by 2: the other half takes twice as long */
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 500);
    soft_timers_advance(&f->timers, 999);
    assert_int_equal(lapic_pending(&f->lapic), -1);
    soft_timers_advance(&f->timers, 1);
    assert_int_equal(lapic_pending(&f->lapic), 0x30);
}

static void test_timer_deadline(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_set_tsc_deadline(&f->lapic, 1000); /* ignored: the timer is in one-shot mode */
    assert_int_equal(lapic_tsc_deadline(&f->lapic), 0);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x40032);
    lapic_set_tsc_deadline(&f->lapic, 1000);
    assert_int_equal(lapic_tsc_deadline(&f->lapic), 1000);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 5); /* ignored in this mode */
    soft_timers_advance(&f->timers, 499);
    assert_int_equal(lapic_pending(&f->lapic), -1);
    soft_timers_advance(&f->timers, 1);
    assert_int_equal(lapic_pending(&f->lapic), 0x32);
    assert_int_equal(lapic_tsc_deadline(&f->lapic), 0);
    lapic_accept(&f->lapic, 0x32);
    lapic_eoi(&f->lapic);
    /* One in the past is an interrupt before the next instruction. */
    lapic_set_tsc_deadline(&f->lapic, 999);
    assert_int_equal(lapic_pending(&f->lapic), 0x32);
    assert_int_equal(lapic_tsc_deadline(&f->lapic), 0);
    lapic_accept(&f->lapic, 0x32);
    lapic_eoi(&f->lapic);
    lapic_set_tsc_deadline(&f->lapic, 2000);
    lapic_set_tsc_deadline(&f->lapic, 0);
    soft_timers_advance(&f->timers, 5000);
    assert_int_equal(lapic_pending(&f->lapic), -1);
}

/* The CPU looks at the timer before the host's thread has: it sees what has happened by the
 * clock. */
static void test_timer_thread_late(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 0xb);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x30);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 100000);
    f->timers.now += 150000;
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x20031); /* periodic: it stays at its end */
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 0);
    assert_int_equal(lapic_pending(&f->lapic), 0x30);
    lapic_accept(&f->lapic, 0x30);
    lapic_eoi(&f->lapic);
    soft_timers_advance(&f->timers, 1000000);
    assert_int_equal(lapic_pending(&f->lapic), -1);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 100000);
    f->timers.now += 130000;
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_TMCCT)), 70000);
    assert_int_equal(lapic_pending(&f->lapic), 0x31);
    lapic_accept(&f->lapic, 0x31);
    lapic_eoi(&f->lapic);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x40032);
    lapic_set_tsc_deadline(&f->lapic, f->timers.now * 2 + 1000);
    f->timers.now += 500;
    assert_int_equal(lapic_tsc_deadline(&f->lapic), 0);
    assert_int_equal(lapic_pending(&f->lapic), 0x32);
}

static void test_masked_timer(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x10030);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 10);
    soft_timers_advance(&f->timers, 1000);
    assert_int_equal(lapic_pending(&f->lapic), -1);
}

static void *resets(void *opaque)
{
    struct fixture *f = opaque;

    for (unsigned i = 0; i < 100000; i++)
        lapic_reset(&f->lapic, true);
    __atomic_store_n(&f->eoi_vector, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* A CPU that an INIT resets is there for the SIPI behind it at every moment. */
static void test_found_during_init(void **state)
{
    const struct apic_message sipi = {.dest = 3, .delivery = APIC_SIPI};
    struct fixture *f = *state;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, resets, f), 0);
    while (!__atomic_load_n(&f->eoi_vector, __ATOMIC_ACQUIRE))
        assert_true(lapic_matches(&f->lapic, &sipi));
    pthread_join(thread, NULL);
}

static void test_icr(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_ICR2), 0x05000000);
    lapic_mmio_write(&f->lapic, REG(APIC_ICR), 0x4861); /* assert, logical, fixed, 61h */
    assert_int_equal(f->sent, 1);
    assert_int_equal(f->message.dest, 5);
    assert_int_equal(f->message.vector, 0x61);
    assert_int_equal(f->message.delivery, APIC_FIXED);
    assert_true(f->message.logical && f->message.assert);
    lapic_mmio_write(&f->lapic, REG(APIC_ICR), 0xc4500); /* all but self, INIT, assert */
    assert_int_equal(f->message.shorthand, 3);
    assert_int_equal(f->message.delivery, APIC_INIT);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ICR)), 0xc4500);
    /* An illegal vector is not sent; ESR shows it after a write. */
    lapic_mmio_write(&f->lapic, REG(APIC_ICR), 0x400f);
    assert_int_equal(f->sent, 2);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ESR)), 0);
    lapic_mmio_write(&f->lapic, REG(APIC_ESR), 0);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ESR)), 0x20);
    lapic_mmio_write(&f->lapic, REG(APIC_ESR), 0);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ESR)), 0);
}

static void test_error_interrupt(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_ERROR), 0xfe);
    lapic_post(&f->lapic, 5, false);
    assert_int_equal(lapic_pending(&f->lapic), 0xfe);
    lapic_mmio_write(&f->lapic, REG(APIC_ESR), 0);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_ESR)), 0x40);
}

static bool matches(struct fixture *f, u32 dest, bool logical, bool narrow)
{
    struct apic_message m = {.dest = dest, .logical = logical, .narrow = narrow};

    return lapic_matches(&f->lapic, &m);
}

static void test_destinations(void **state)
{
    struct fixture *f = *state;

    assert_true(matches(f, 3, false, true));
    assert_false(matches(f, 4, false, true));
    assert_true(matches(f, 0xff, false, true));
    lapic_mmio_write(&f->lapic, REG(APIC_LDR), 0x08000000); /* flat */
    assert_true(matches(f, 0x0c, true, true));
    assert_false(matches(f, 0x04, true, true));
    lapic_mmio_write(&f->lapic, REG(APIC_DFR), 0x0fffffff); /* cluster */
    lapic_mmio_write(&f->lapic, REG(APIC_LDR), 0x24000000);
    assert_true(matches(f, 0x25, true, true));
    assert_true(matches(f, 0x2c, true, true));
    assert_false(matches(f, 0x34, true, true));
    assert_false(matches(f, 0x21, true, true));
    assert_true(matches(f, 0xff, true, true));
}

static void test_x2apic(void **state)
{
    struct fixture *f = *state;
    struct lapic *l = &f->lapic;
    u64 value;

    assert_false(lapic_msr_read(l, 0x802, &value)); /* not in xAPIC mode */
    assert_true(lapic_set_base(l, APIC_BASE_DEFAULT | 0xc00, mask_low(40)));
    assert_true(lapic_msr_read(l, 0x802, &value));
    assert_int_equal(value, 3);
    assert_true(lapic_msr_read(l, 0x80d, &value));
    assert_int_equal(value, 1 << 3);
    assert_false(lapic_msr_write(l, 0x80d, 1));     /* read-only */
    assert_false(lapic_msr_read(l, 0x80e, &value)); /* no DFR */
    assert_false(lapic_msr_read(l, 0x831, &value)); /* no ICR2 */
    assert_false(lapic_msr_write(l, 0x80b, 1));     /* EOI: only 0 */
    assert_true(lapic_msr_write(l, 0x80b, 0));
    assert_false(lapic_msr_write(l, 0x808, 0x100));
    assert_true(lapic_msr_write(l, 0x80f, 0x1ff));
    assert_true(lapic_msr_write(l, 0x830, 7ull << 32 | 0x40fd));
    assert_int_equal(f->message.dest, 7);
    assert_int_equal(f->message.vector, 0xfd);
    assert_true(lapic_msr_read(l, 0x830, &value));
    assert_int_equal(value, 7ull << 32 | 0x40fd);
    assert_true(lapic_msr_write(l, 0x83f, 0x77));
    assert_int_equal(lapic_pending(l), 0x77);
    assert_true(matches(f, 0xffffffff, false, false));
    assert_true(matches(f, 0xff, false, true));   /* from an I/O APIC: everybody */
    assert_false(matches(f, 0xff, false, false)); /* from a CPU: id 255 */
    assert_true(matches(f, 0x00000008, true, false));
    assert_false(matches(f, 0x00010008, true, false));
    /* SDM figure 11-27: not back to xAPIC, not from off to x2APIC. */
    assert_false(lapic_set_base(l, APIC_BASE_DEFAULT | 0x800, mask_low(40)));
    assert_false(lapic_set_base(l, APIC_BASE_DEFAULT | 0x400, mask_low(40)));
    assert_true(lapic_set_base(l, APIC_BASE_DEFAULT, mask_low(40)));
    assert_false(lapic_set_base(l, APIC_BASE_DEFAULT | 0xc00, mask_low(40)));
    assert_true(lapic_set_base(l, APIC_BASE_DEFAULT | 0x800, mask_low(40)));
    assert_false(lapic_set_base(l, 1ull << 40 | 0x800, mask_low(40)));
}

static void test_lint0(void **state)
{
    struct fixture *f = *state;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_LINT0), 0x700);
    assert_false(lapic_extint(&f->lapic));
    lapic_set_lint0(&f->lapic, true);
    assert_true(lapic_extint(&f->lapic));
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_LINT0), 0x10700);
    assert_false(lapic_extint(&f->lapic));
    lapic_set_lint0(&f->lapic, false);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_LINT0), 0x400); /* NMI */
    lapic_set_lint0(&f->lapic, true);
    assert_int_equal(f->nmis, 1);
    lapic_set_lint0(&f->lapic, false);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_LINT0), 0x035); /* fixed */
    lapic_set_lint0(&f->lapic, true);
    assert_int_equal(lapic_pending(&f->lapic), 0x35);
}

static void test_image_round_trip(void **state)
{
    struct fixture *f = *state;
    struct kvm_lapic_state image, again;

    enable(f);
    lapic_mmio_write(&f->lapic, REG(APIC_TPR), 0x20);
    lapic_mmio_write(&f->lapic, REG(APIC_LDR), 0x08000000);
    lapic_mmio_write(&f->lapic, REG(APIC_LVT_TIMER), 0x20031);
    lapic_mmio_write(&f->lapic, REG(APIC_TDCR), 0xb);
    lapic_mmio_write(&f->lapic, REG(APIC_TMICT), 1000000);
    lapic_post(&f->lapic, 0x91, true);
    lapic_post(&f->lapic, 0x45, false);
    lapic_accept(&f->lapic, 0x91);
    soft_timers_advance(&f->timers, 400000);
    lapic_get_state(&f->lapic, &image);
    assert_int_equal(*(u32 *)(void *)(image.regs + 0x390), 600000);
    lapic_reset(&f->lapic, false);
    lapic_set_state(&f->lapic, &image);
    lapic_get_state(&f->lapic, &again);
    assert_memory_equal(&image, &again, sizeof image);
    soft_timers_advance(&f->timers, 599999);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_IRR + 1)), 0);
    soft_timers_advance(&f->timers, 1);
    assert_int_equal(lapic_mmio_read(&f->lapic, REG(APIC_IRR + 1)), 1u << 17);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reset_state),
        TEST(test_priorities),
        TEST(test_level_eoi),
        TEST(test_timer_one_shot),
        TEST(test_timer_periodic),
        TEST(test_timer_divide_on_the_fly),
        TEST(test_timer_deadline),
        TEST(test_timer_thread_late),
        TEST(test_masked_timer),
        TEST(test_found_during_init),
        TEST(test_icr),
        TEST(test_error_interrupt),
        TEST(test_destinations),
        TEST(test_x2apic),
        TEST(test_lint0),
        TEST(test_image_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
