/* Clock, keyboard controller, ACPI, PCI host bridge, debug console. */
#include <errno.h>
#include <time.h>

#include "board.h"

/* ---- MC146818 ---- */

static u8 cmos(struct board *b, u8 index)
{
    outb(b, 0x70, index);
    return inb(b, 0x71);
}

static void cmos_set(struct board *b, u8 index, u8 value)
{
    outb(b, 0x70, index);
    outb(b, 0x71, value);
}

static unsigned bcd(u8 value)
{
    return (value >> 4) * 10 + (value & 15);
}

static time_t clock_shown(struct board *b)
{
    struct tm tm;

    while (cmos(b, 0x0a) & 0x80)
        ;
    tm = (struct tm){
        .tm_sec = (int)bcd(cmos(b, 0)),
        .tm_min = (int)bcd(cmos(b, 2)),
        .tm_hour = (int)bcd(cmos(b, 4)),
        .tm_mday = (int)bcd(cmos(b, 7)),
        .tm_mon = (int)bcd(cmos(b, 8)) - 1,
        .tm_year = (int)(bcd(cmos(b, 0x32)) * 100 + bcd(cmos(b, 9))) - 1900,
    };
    return timegm(&tm);
}

static void rtc_shows_the_hosts_time(void **state)
{
    struct board *b = board_new("rtc", NULL);
    time_t shown = clock_shown(b);
    struct tm tm;

    (void)state;
    assert_in_range(time(NULL) - shown + 1, 0, 3);
    gmtime_r(&shown, &tm);
    assert_int_equal(cmos(b, 6), tm.tm_wday + 1);
    assert_int_equal(cmos(b, 0x0d), 0x80);
    assert_int_equal(cmos(b, 0x0b), 0x02);
    assert_int_equal(inb(b, 0x70), 0xff);
    board_free(b);
}

static void rtc_formats(void **state)
{
    struct board *b = board_new("rtc", NULL);

    (void)state;
    cmos_set(b, 0x0b, 0x82); /* stop, 24 hours, BCD */
    cmos_set(b, 4, 0x23);
    cmos_set(b, 2, 0x59);
    cmos_set(b, 0, 0x30);
    cmos_set(b, 7, 0x31);
    cmos_set(b, 8, 0x12);
    cmos_set(b, 9, 0x99);
    cmos_set(b, 0x32, 0x19);
    assert_int_equal(cmos(b, 0), 0x30); /* stands */
    cmos_set(b, 0x0b, 0x02);
    assert_int_equal(cmos(b, 4), 0x23);
    assert_int_equal(clock_shown(b) / 60, 946684740 / 60); /* 1999-12-31 23:59 */
    cmos_set(b, 0x0b, 0x06);                               /* binary */
    assert_int_equal(cmos(b, 4), 23);
    assert_int_equal(cmos(b, 2), 59);
    assert_int_equal(cmos(b, 9), 99);
    cmos_set(b, 0x0b, 0x00);            /* 12 hours, BCD */
    assert_int_equal(cmos(b, 4), 0x91); /* 11 p.m. */
    cmos_set(b, 4, 0x12);               /* midnight */
    cmos_set(b, 0x0b, 0x02);
    assert_int_equal(cmos(b, 4), 0x00);
    board_free(b);
}

static void rtc_interrupts(void **state)
{
    struct board *b = board_new("rtc", NULL);

    (void)state;
    cmos(b, 0x0c);
    cmos_set(b, 0x0a, 0x26); /* 1024 Hz */
    cmos_set(b, 0x0b, 0x42);
    assert_int_equal(b->line[8], 0);
    nanosleep(&(struct timespec){0, 3000000}, NULL);
    board_fire(b);
    assert_int_equal(b->line[8], 1);
    assert_int_equal(cmos(b, 0x0c) & 0xc0, 0xc0);
    assert_int_equal(b->line[8], 0);
    cmos_set(b, 0x0b, 0x02);
    nanosleep(&(struct timespec){0, 3000000}, NULL);
    assert_int_equal(cmos(b, 0x0c) & 0xc0, 0x40); /* the flag rises without its interrupt too */

    for (u8 alarm = 1; alarm <= 5; alarm += 2)
        cmos_set(b, alarm, 0xff); /* any time */
    cmos_set(b, 0x0b, 0x32);
    nanosleep(&(struct timespec){1, 50000000}, NULL);
    board_fire(b);
    assert_int_equal(b->line[8], 1);
    assert_int_equal(cmos(b, 0x0c) & 0xb0, 0xb0);
    cmos_set(b, 5, (u8)(cmos(b, 4) ^ 1)); /* another hour: no alarm */
    cmos(b, 0x0c);
    nanosleep(&(struct timespec){1, 50000000}, NULL);
    assert_int_equal(cmos(b, 0x0c) & 0x30, 0x10);
    board_free(b);
}

static void rtc_memory_and_battery(void **state)
{
    struct board *b = board_new("rtc", NULL);

    (void)state;
    device_rtc_set_memory(b->dev, 3 * GiB, 5 * GiB);
    assert_int_equal(cmos(b, 0x15) | cmos(b, 0x16) << 8, 640);
    assert_int_equal(cmos(b, 0x30) | cmos(b, 0x31) << 8, 0xffff);
    assert_int_equal(cmos(b, 0x34) | cmos(b, 0x35) << 8, (3 * GiB - 16 * MiB) / (64 * KiB));
    assert_int_equal(cmos(b, 0x5b) | cmos(b, 0x5c) << 8 | cmos(b, 0x5d) << 16,
                     5 * GiB / (64 * KiB));
    cmos_set(b, 0x40, 0x5a);
    cmos_set(b, 0x0b, 0x72);
    device_reset(b->dev);
    assert_int_equal(cmos(b, 0x40), 0x5a);
    assert_int_equal(cmos(b, 0x0b), 0x02);
    board_migrate(b, NULL);
    assert_int_equal(cmos(b, 0x40), 0x5a);
    board_free(b);
}

/* ---- i8042 ---- */

static void kbc_self_test_and_ram(void **state)
{
    struct board *b = board_new("i8042", NULL);

    (void)state;
    outb(b, 0x64, 0xaa);
    assert_int_equal(inb(b, 0x64) & 5, 5);
    assert_int_equal(inb(b, 0x60), 0x55);
    assert_int_equal(inb(b, 0x64) & 1, 0);
    outb(b, 0x64, 0x60);
    outb(b, 0x60, 0x47);
    outb(b, 0x64, 0x20);
    assert_int_equal(inb(b, 0x60), 0x47);
    outb(b, 0x64, 0xa7);
    outb(b, 0x64, 0x20);
    assert_int_equal(inb(b, 0x60), 0x67);
    outb(b, 0x64, 0xab);
    assert_int_equal(inb(b, 0x60), 0);
    board_free(b);
}

static void kbc_without_devices(void **state)
{
    struct board *b = board_new("i8042", NULL);

    (void)state;
    outb(b, 0x64, 0x60);
    outb(b, 0x60, 0x03); /* both interrupts */
    outb(b, 0x60, 0xff); /* reset the keyboard */
    assert_int_equal(inb(b, 0x64) & 0x61, 0x41);
    assert_int_equal(b->line[1], 1);
    assert_int_equal(inb(b, 0x60), 0xfe);
    assert_int_equal(b->line[1], 0);
    outb(b, 0x64, 0xd4);
    outb(b, 0x60, 0xf2);
    assert_int_equal(inb(b, 0x64) & 0x61, 0x61);
    assert_int_equal(b->line[12], 1);
    inb(b, 0x60);
    outb(b, 0x64, 0xd3); /* what the test of the mouse port does */
    outb(b, 0x60, 0x5a);
    assert_int_equal(inb(b, 0x64) & 0x61, 0x21);
    board_migrate(b, NULL);
    assert_int_equal(b->line[12], 1);
    assert_int_equal(inb(b, 0x60), 0x5a);
    board_free(b);
}

static void kbc_resets(void **state)
{
    struct board *b = board_new("i8042", NULL);

    (void)state;
    outb(b, 0x64, 0xfe);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 1);
    outb(b, 0x64, 0xff); /* pulses nothing */
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 1);
    outb(b, 0x64, 0xd1);
    outb(b, 0x60, 0xdf); /* A20, no reset */
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 1);
    outb(b, 0x64, 0xd1);
    outb(b, 0x60, 0xde);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 2);
    outb(b, 0x92, 0x02);
    assert_int_equal(inb(b, 0x92), 0x02);
    outb(b, 0x92, 0x03);
    outb(b, 0x92, 0x03);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 3);
    board_free(b);
}

/* ---- ACPI ---- */

static void pm_power_off(void **state)
{
    struct board *b = board_new("acpi-pm", NULL);

    (void)state;
    assert_int_equal(in(b, 0x604, 2), 1); /* SCI_EN: no legacy mode */
    out(b, 0x604, 2, 5 << 10);
    assert_int_equal(in(b, 0x604, 2), 5 << 10 | 1);
    assert_int_equal(b->requests[DEVICE_REQUEST_POWER_OFF], 0);
    out(b, 0x604, 2, 1 << 13 | 2 << 10); /* a sleep that is not there */
    assert_int_equal(b->requests[DEVICE_REQUEST_POWER_OFF], 0);
    out(b, 0x604, 2, 1 << 13);
    assert_int_equal(b->requests[DEVICE_REQUEST_POWER_OFF], 1);
    assert_int_equal(in(b, 0x604, 2) & 1 << 13, 0);
    board_free(b);
}

/* ACPI 6.4, 4.8.3.1.1: an enabled event ends sleep, and WAK_STS says that there was one. */
static void pm_sleeps(void **state)
{
    struct board *b = board_new("acpi-pm", NULL);

    (void)state;
    device_acpi_pm_alarm(b->dev);
    assert_int_equal(b->requests[DEVICE_REQUEST_WAKE], 0); /* awake */
    out(b, 0x600, 2, 0x0400);
    out(b, 0x604, 2, 1 << 13 | 1 << 10);
    assert_int_equal(b->requests[DEVICE_REQUEST_SLEEP], 1);
    device_acpi_pm_alarm(b->dev); /* not enabled */
    assert_int_equal(b->requests[DEVICE_REQUEST_WAKE], 0);
    assert_int_equal(in(b, 0x600, 2), 0x0400);
    out(b, 0x602, 2, 0x0400);
    assert_int_equal(b->requests[DEVICE_REQUEST_WAKE], 1);
    assert_int_equal(in(b, 0x600, 2), 0x8400);
    b->line[9] = 0; /* of interrupt controllers that are gone */
    device_woken(b->dev);
    assert_int_equal(b->line[9], 1);
    assert_int_equal(in(b, 0x602, 2), 0x0400);
    out(b, 0x600, 2, 0x8400);
    assert_int_equal(in(b, 0x600, 2), 0);
    assert_int_equal(b->line[9], 0);

    device_acpi_pm_alarm(b->dev);
    out(b, 0x604, 2, 1 << 13 | 1 << 10); /* its end is there already */
    assert_int_equal(b->requests[DEVICE_REQUEST_SLEEP], 2);
    assert_int_equal(b->requests[DEVICE_REQUEST_WAKE], 2);
    device_reset(b->dev);
    assert_int_equal(in(b, 0x600, 4), 0);
    board_free(b);
}

/* The clock has power in sleep: its alarm is still there, and its line goes up again. */
static void rtc_outlives_sleep(void **state)
{
    struct board *b = board_new("rtc", NULL);

    (void)state;
    for (unsigned i = 1; i < 6; i += 2)
        cmos_set(b, (u8)i, 0xc0); /* every second */
    cmos_set(b, 0x0b, 0x22);
    while (!b->line[8])
        board_fire(b);
    b->line[8] = 0;
    device_woken(b->dev);
    assert_int_equal(b->line[8], 1);
    assert_int_equal(cmos(b, 0x0b), 0x22);
    assert_int_equal(cmos(b, 0x0c) & 0xa0, 0xa0);
    board_free(b);
}

static void pm_timer_runs(void **state)
{
    struct board *b = board_new("acpi-pm", NULL);
    u64 host = clock_mono_ns(), start = in(b, 0x608, 4), ticks, passed;

    (void)state;
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    ticks = in(b, 0x608, 4) - start;
    passed = clock_mono_ns() - host;
    assert_true(ticks <= passed * 3579545 / NSEC_PER_SEC + 1);
    assert_true(ticks >= 50000000ull * 3579545 / NSEC_PER_SEC);
    out(b, 0x608, 4, 0); /* read-only */
    assert_true(in(b, 0x608, 4) >= start + ticks);
    board_free(b);
}

static void pm_events(void **state)
{
    struct board *b = board_new("acpi-pm", NULL);

    (void)state;
    out(b, 0x602, 2, 0xffff);
    assert_int_equal(in(b, 0x602, 2), 0x0721);
    assert_int_equal(b->line[9], 0);
    out(b, 0x622, 1, 0x01);
    assert_int_equal(in(b, 0x622, 1), 0x01);
    out(b, 0x620, 1, 0xff);
    assert_int_equal(in(b, 0x620, 1), 0);
    out(b, 0x600, 4, 0x0020ffff); /* both registers in one access */
    assert_int_equal(in(b, 0x602, 2), 0x0020);
    out(b, 0x603, 1, 0x01);
    assert_int_equal(in(b, 0x600, 4), 0x01200000);
    board_migrate(b, NULL);
    assert_int_equal(in(b, 0x602, 2), 0x0120);
    board_free(b);
}

/* ---- PCI ---- */

static void pci_mechanism_1(void **state)
{
    struct board *b = board_new("pci-host", "ecam=0xe0000000");

    (void)state;
    assert_int_equal(in(b, 0xcfc, 4), 0xffffffff); /* not enabled */
    out(b, 0xcf8, 4, 0x80000000);
    assert_int_equal(in(b, 0xcf8, 4), 0x80000000);
    assert_int_equal(in(b, 0xcfc, 4), 0x29c08086);
    assert_int_equal(in(b, 0xcfe, 2), 0x29c0);
    assert_int_equal(in(b, 0xcfd, 1), 0x80);
    out(b, 0xcfc, 4, 0); /* ids are fixed */
    assert_int_equal(in(b, 0xcfc, 2), 0x8086);
    out(b, 0xcf8, 4, 0x80000008);
    assert_int_equal(in(b, 0xcfe, 2), 0x0600);
    out(b, 0xcf8, 4, 0x80000800); /* slot 1 is empty */
    assert_int_equal(in(b, 0xcfc, 4), 0xffffffff);
    out(b, 0xcf8, 4, 0x80010000); /* so is bus 1 */
    assert_int_equal(in(b, 0xcfc, 4), 0xffffffff);
    board_free(b);
}

static void pci_ecam(void **state)
{
    struct board *b = board_new("pci-host", "ecam=0xe0000000");
    u64 value;

    (void)state;
    assert_true(device_bus_read(&b->memory, 0xe0000000, 4, &value));
    assert_int_equal(value, 0x29c08086);
    assert_true(device_bus_read(&b->memory, 0xe0000100, 4, &value));
    assert_int_equal(value, 0);
    assert_true(device_bus_read(&b->memory, 0xe0008000, 4, &value));
    assert_int_equal(value, 0xffffffff);
    assert_true(device_bus_read(&b->memory, 0xeffffffc, 4, &value));
    assert_int_equal(value, 0xffffffff);
    assert_false(device_bus_read(&b->memory, 0xf0000000, 4, &value));
    board_free(b);
}

static void reset_control(void **state)
{
    struct board *b = board_new("pci-host", NULL);

    (void)state;
    out(b, 0xcf8, 4, 0x80000600); /* the same byte, but a dword: an address */
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 0);
    outb(b, 0xcf9, 0x02);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 0);
    outb(b, 0xcf9, 0x06);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 1);
    assert_int_equal(inb(b, 0xcf9), 0x06);
    outb(b, 0xcf9, 0x06);
    assert_int_equal(b->requests[DEVICE_REQUEST_RESET], 1);
    board_migrate(b, NULL);
    assert_int_equal(in(b, 0xcf8, 4), 0x80000600);
    assert_int_equal(inb(b, 0xcf9), 0x06);
    board_free(b);
}

/* ---- Debug console ---- */

static void debug_console(void **state)
{
    struct board *b = board_new("debugcon", "port=0x402");

    (void)state;
    assert_int_equal(inb(b, 0x402), 0xe9);
    outb(b, 0x402, 'o');
    outb(b, 0x402, 'k');
    assert_int_equal(b->sent_len, 2);
    assert_memory_equal(b->sent, "ok", 2);
    b->send_room = 0;
    outb(b, 0x402, 'x'); /* lost, but nobody waits */
    assert_int_equal(b->sent_len, 2);
    board_free(b);
}

/* The alarm is an event of ACPI too, whoever has line 8. */
static void rtc_alarm_tells_acpi(void **state)
{
    struct board *clock = board_new("rtc", NULL), *pm = board_new("acpi-pm", "port=0x600,irq=9");

    (void)state;
    device_rtc_set_pm(clock->dev, pm->dev);
    out(pm, 0x602, 2, 0x400);
    for (unsigned i = 1; i < 6; i += 2)
        cmos_set(clock, (u8)i, 0xc0); /* every second */
    cmos_set(clock, 0x0b, 0x22);
    assert_int_equal(pm->line[9], 0);
    while (!clock->line[8])
        board_fire(clock);
    assert_int_equal(pm->line[9], 1);
    assert_int_equal(in(pm, 0x600, 2), 0x400);
    out(pm, 0x600, 2, 0x400);
    assert_int_equal(pm->line[9], 0);
    board_fire(clock); /* still the same alarm */
    assert_int_equal(pm->line[9], 0);
    cmos(clock, 0x0c);
    device_rtc_connect(clock->dev, false);
    while (!pm->line[9])
        board_fire(clock);
    assert_int_equal(clock->line[8], 0);
    board_free(clock);
    board_free(pm);
}

/* Firmware asks the LPC bridge where the ACPI registers are. */
static void lpc_bridge(void **state)
{
    struct board *b = board_new("pci-host", NULL);
    struct device_place place = board_place(b);
    struct device *lpc;

    (void)state;
    place.parent = b->dev;
    place.stream = NULL;
    assert_int_equal(device_create(&lpc, "lpc", "slot=31,pm=0x600", &place, NULL), 0);
    out(b, 0xcf8, 4, 0x8000f800);
    assert_int_equal(in(b, 0xcfc, 4), 0x29188086);
    out(b, 0xcf8, 4, 0x8000f840);
    out(b, 0xcfc, 4, 0x1001); /* they cannot be moved */
    assert_int_equal(in(b, 0xcfc, 4), 0x601);
    out(b, 0xcf8, 4, 0x8000f844);
    assert_int_equal(in(b, 0xcfc, 1), 0x80);
    out(b, 0xcf8, 4, 0x8000f860);
    assert_int_equal(in(b, 0xcfc, 4), 0x80808080);
    out(b, 0xcfc, 4, 0x0b0a0b0a);
    assert_int_equal(in(b, 0xcfc, 4), 0x0b0a0b0a);
    device_reset(lpc);
    assert_int_equal(in(b, 0xcfc, 4), 0x80808080);
    device_destroy(lpc);
    assert_int_equal(in(b, 0xcfc, 4), 0xffffffff);
    board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lpc_bridge),
        cmocka_unit_test(rtc_alarm_tells_acpi),
        cmocka_unit_test(rtc_shows_the_hosts_time),
        cmocka_unit_test(rtc_formats),
        cmocka_unit_test(rtc_interrupts),
        cmocka_unit_test(rtc_memory_and_battery),
        cmocka_unit_test(kbc_self_test_and_ram),
        cmocka_unit_test(kbc_without_devices),
        cmocka_unit_test(kbc_resets),
        cmocka_unit_test(pm_power_off),
        cmocka_unit_test(pm_sleeps),
        cmocka_unit_test(rtc_outlives_sleep),
        cmocka_unit_test(pm_timer_runs),
        cmocka_unit_test(pm_events),
        cmocka_unit_test(pci_mechanism_1),
        cmocka_unit_test(pci_ecam),
        cmocka_unit_test(reset_control),
        cmocka_unit_test(debug_console),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
