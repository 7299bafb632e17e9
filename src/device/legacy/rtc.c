/*
 * The PC's clock and CMOS memory: Motorola MC146818, data sheet of 1984, with the century byte and
 * the memory sizes that PC firmware keeps in it. The clock shows the host's UTC time plus an
 * offset that the guest changes by setting it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "device/device.h"

#define RTC_IRQ 8
#define NVRAM_SIZE 128
#define UPDATE_WARNING_NS 244000ull /* the update bit comes up 244 us before the update */
#define ONE_DAY 86400

enum {
    SECONDS = 0x00,
    SECONDS_ALARM = 0x01,
    MINUTES = 0x02,
    MINUTES_ALARM = 0x03,
    HOURS = 0x04,
    HOURS_ALARM = 0x05,
    WEEKDAY = 0x06,
    MONTHDAY = 0x07,
    MONTH = 0x08,
    YEAR = 0x09,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
    CENTURY = 0x32,

    A_UIP = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RUNS = 0x20, /* 32.768 kHz */
    A_RATE = 0x0f,

    B_SET = 0x80,
    B_PIE = 0x40,
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_BINARY = 0x04,
    B_24H = 0x02,

    C_IRQF = 0x80,
    C_PF = 0x40,
    C_AF = 0x20,
    C_UF = 0x10,

    D_VALID = 0x80,
    ALARM_ANY = 0xc0,
    PM = 0x80,
};

struct rtc_state {
    u8 index;
    u8 nvram[NVRAM_SIZE]; /* bytes 0..9 count only for the alarm and while B_SET stops the clock */
    s64 offset_ns;        /* guest's clock minus host's */
    s64 flags_until;      /* second up to which AF and UF are computed */
    u64 periods_until;    /* periodic tick up to which PF is computed */
};

struct rtc {
    struct device dev;
    struct rtc_state state;
    struct device_timer second, periodic;
    u64 below_4g, above_4g;
    bool cut;          /* line 8 is the HPET's */
    bool alarmed;      /* the alarm's interrupt is up */
    struct device *pm; /* told of alarms, NULL for none */
};

static struct rtc *to_rtc(struct device *dev)
{
    return container_of(dev, struct rtc, dev);
}

static s64 guest_ns(const struct rtc *rtc)
{
    return (s64)clock_real_ns() + rtc->state.offset_ns;
}

static s64 floor_div(s64 a, s64 b)
{
    return a / b - (a % b < 0);
}

static u8 encode(const struct rtc_state *s, unsigned n)
{
    return s->nvram[REG_B] & B_BINARY ? n : (n / 10 % 10) << 4 | n % 10;
}

static unsigned decode(const struct rtc_state *s, u8 value)
{
    return s->nvram[REG_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static u8 encode_hour(const struct rtc_state *s, unsigned hour)
{
    if (s->nvram[REG_B] & B_24H)
        return encode(s, hour);
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? PM : 0);
}

static unsigned decode_hour(const struct rtc_state *s, u8 value)
{
    if (s->nvram[REG_B] & B_24H)
        return decode(s, value);
    return decode(s, value & ~PM) % 12 + (value & PM ? 12 : 0);
}

/* Puts the time of @second into the ten clock bytes and the century. */
static void show_time(struct rtc_state *s, s64 second)
{
    time_t t = (time_t)second;
    struct tm tm;

    if (!gmtime_r(&t, &tm))
        memset(&tm, 0, sizeof(tm));
    s->nvram[SECONDS] = encode(s, (unsigned)tm.tm_sec);
    s->nvram[MINUTES] = encode(s, (unsigned)tm.tm_min);
    s->nvram[HOURS] = encode_hour(s, (unsigned)tm.tm_hour);
    s->nvram[WEEKDAY] = encode(s, (unsigned)tm.tm_wday + 1);
    s->nvram[MONTHDAY] = encode(s, (unsigned)tm.tm_mday);
    s->nvram[MONTH] = encode(s, (unsigned)tm.tm_mon + 1);
    s->nvram[YEAR] = encode(s, (unsigned)tm.tm_year % 100);
    s->nvram[CENTURY] = encode(s, ((unsigned)tm.tm_year + 1900) / 100);
}

/* The second that the ten clock bytes and the century name. */
static s64 shown_time(const struct rtc_state *s)
{
    struct tm tm = {
        .tm_sec = (int)decode(s, s->nvram[SECONDS]),
        .tm_min = (int)decode(s, s->nvram[MINUTES]),
        .tm_hour = (int)decode_hour(s, s->nvram[HOURS]),
        .tm_mday = (int)decode(s, s->nvram[MONTHDAY]),
        .tm_mon = (int)decode(s, s->nvram[MONTH]) - 1,
        .tm_year = (int)(decode(s, s->nvram[CENTURY]) * 100 + decode(s, s->nvram[YEAR])) - 1900,
    };

    return timegm(&tm);
}

static bool stopped(const struct rtc_state *s)
{
    return (s->nvram[REG_B] & B_SET) || (s->nvram[REG_A] & A_DIVIDER) != A_DIVIDER_RUNS;
}

static bool alarm_matches(const struct rtc_state *s, s64 second)
{
    unsigned of_day = (unsigned)(second - floor_div(second, ONE_DAY) * ONE_DAY);
    u8 sec = s->nvram[SECONDS_ALARM], min = s->nvram[MINUTES_ALARM], hour = s->nvram[HOURS_ALARM];

    return ((sec & ALARM_ANY) == ALARM_ANY || decode(s, sec) == of_day % 60) &&
           ((min & ALARM_ANY) == ALARM_ANY || decode(s, min) == of_day / 60 % 60) &&
           ((hour & ALARM_ANY) == ALARM_ANY || decode_hour(s, hour) == of_day / 3600);
}

/* Nanoseconds between periodic interrupts, 0 for none (data sheet, table 5). */
static u64 period_ns(const struct rtc_state *s)
{
    unsigned rate = s->nvram[REG_A] & A_RATE;

    if (!rate || (s->nvram[REG_A] & A_DIVIDER) != A_DIVIDER_RUNS)
        return 0;
    if (rate <= 2)
        rate += 7;
    return NSEC_PER_SEC << (rate - 1) >> 15;
}

/* Brings register C up to the present. The flags rise whether or not interrupts are enabled. */
static void update_flags(struct rtc *rtc)
{
    struct rtc_state *s = &rtc->state;
    u64 period = period_ns(s), mono = clock_mono_ns();
    s64 now = floor_div(guest_ns(rtc), NSEC_PER_SEC);

    if (!stopped(s)) {
        if (now > s->flags_until)
            s->nvram[REG_C] |= C_UF;
        if (s->flags_until < now - ONE_DAY)
            s->flags_until = now - ONE_DAY; /* a day has every alarm */
        while (s->flags_until < now)
            if (alarm_matches(s, ++s->flags_until))
                s->nvram[REG_C] |= C_AF;
    }
    s->flags_until = now;
    if (period && mono / period > s->periods_until) {
        s->nvram[REG_C] |= C_PF;
        s->periods_until = mono / period;
    }
}

static void update_irq(struct rtc *rtc)
{
    struct rtc_state *s = &rtc->state;
    u8 pending = s->nvram[REG_C] & s->nvram[REG_B] & (C_PF | C_AF | C_UF);
    bool high = pending != 0, alarm = pending & C_AF;

    s->nvram[REG_C] = (s->nvram[REG_C] & ~C_IRQF) | (high ? C_IRQF : 0);
    if (!rtc->cut)
        rtc->dev.env->irq_set(rtc->dev.env->opaque, RTC_IRQ, high);
    if (alarm && !rtc->alarmed && rtc->pm)
        device_acpi_pm_alarm(rtc->pm);
    rtc->alarmed = alarm;
}

/* Timers run only while the guest wants interrupts. */
static void arm_timers(struct rtc *rtc)
{
    const struct rtc_state *s = &rtc->state;
    const struct device_env *env = rtc->dev.env;
    u64 mono = clock_mono_ns(), period = period_ns(s), second = 0, periodic = 0;

    if ((s->nvram[REG_B] & (B_AIE | B_UIE)) && !stopped(s)) {
        s64 now = guest_ns(rtc);

        second =
            mono + NSEC_PER_SEC - (u64)(now - floor_div(now, NSEC_PER_SEC) * (s64)NSEC_PER_SEC);
    }
    if ((s->nvram[REG_B] & B_PIE) && period)
        periodic = (mono / period + 1) * period;
    env->timer_set(env->opaque, &rtc->second, second);
    env->timer_set(env->opaque, &rtc->periodic, periodic);
}

static void timer_fired(void *opaque)
{
    struct rtc *rtc = opaque;

    mutex_lock(&rtc->dev.lock);
    update_flags(rtc);
    update_irq(rtc);
    arm_timers(rtc);
    mutex_unlock(&rtc->dev.lock);
}

static bool updating(const struct rtc *rtc)
{
    s64 now = guest_ns(rtc);
    u64 into = (u64)(now - floor_div(now, NSEC_PER_SEC) * (s64)NSEC_PER_SEC);

    return !stopped(&rtc->state) && into >= NSEC_PER_SEC - UPDATE_WARNING_NS;
}

static u64 read_data(struct device *dev, u64 offset, unsigned size)
{
    struct rtc *rtc = to_rtc(dev);
    struct rtc_state *s = &rtc->state;
    u8 value;

    (void)size;
    if (!offset)
        return 0xff; /* the index cannot be read back */
    switch (s->index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY ... YEAR:
    case CENTURY:
        if (!stopped(s))
            show_time(s, floor_div(guest_ns(rtc), NSEC_PER_SEC));
        break;
    case REG_A:
        return s->nvram[REG_A] | (updating(rtc) ? A_UIP : 0);
    case REG_C:
        update_flags(rtc);
        update_irq(rtc);
        value = s->nvram[REG_C];
        s->nvram[REG_C] = 0;
        update_irq(rtc);
        return value;
    case REG_D:
        return D_VALID;
    }
    return s->nvram[s->index];
}

/* A clock byte was set: while the clock stands the guest goes on setting, else it runs from here. A
 * year that 64 bits of nanoseconds do not reach (bytes that are no BCD make one) leaves the clock
 * as it is. */
static void set_time(struct rtc *rtc)
{
    s64 now = floor_div(guest_ns(rtc), NSEC_PER_SEC), offset;

    if (!__builtin_mul_overflow(shown_time(&rtc->state) - now, (s64)NSEC_PER_SEC, &offset) &&
        !__builtin_add_overflow(offset, rtc->state.offset_ns, &offset) && offset < INT64_MAX / 2 &&
        offset > INT64_MIN / 2)
        rtc->state.offset_ns = offset;
    rtc->state.flags_until = floor_div(guest_ns(rtc), NSEC_PER_SEC);
}

static void write_control(struct rtc *rtc, u8 index, u8 value)
{
    struct rtc_state *s = &rtc->state;
    bool stood = stopped(s);

    update_flags(rtc);
    if (!stood)
        show_time(s, floor_div(guest_ns(rtc), NSEC_PER_SEC));
    if (index == REG_A)
        s->nvram[REG_A] = value & ~A_UIP;
    else
        s->nvram[REG_B] = value & B_SET ? value & ~B_UIE : value;
    if (stood && !stopped(s))
        set_time(rtc);
    if (period_ns(s))
        s->periods_until = clock_mono_ns() / period_ns(s);
    update_irq(rtc);
    arm_timers(rtc);
}

static void write_data(struct device *dev, u64 offset, unsigned size, u64 wide)
{
    struct rtc *rtc = to_rtc(dev);
    struct rtc_state *s = &rtc->state;
    u8 value = (u8)wide;

    (void)size;
    if (!offset) {
        s->index = value & (NVRAM_SIZE - 1); /* bit 7 masks NMI, which nothing here raises */
        return;
    }
    switch (s->index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case WEEKDAY ... YEAR:
    case CENTURY:
        if (!stopped(s))
            show_time(s, floor_div(guest_ns(rtc), NSEC_PER_SEC));
        s->nvram[s->index] = value;
        if (!stopped(s))
            set_time(rtc);
        break;
    case REG_A:
    case REG_B:
        write_control(rtc, s->index, value);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        s->nvram[s->index] = value;
        break;
    }
}

static void put16(u8 *at, u64 value, u64 max)
{
    if (value > max)
        value = max;
    at[0] = (u8)value;
    at[1] = (u8)(value >> 8);
}

/* Bytes as PC firmware leaves them: base memory in KiB, memory above 1 MiB in KiB (twice), above
 * 16 MiB and above 4 GiB in units of 64 KiB. */
static void show_memory(struct rtc *rtc)
{
    u8 *nvram = rtc->state.nvram;
    u64 high = rtc->above_4g / (64 * KiB);

    put16(nvram + 0x15, 640, 640);
    put16(nvram + 0x17, rtc->below_4g > MiB ? (rtc->below_4g - MiB) / KiB : 0, 0xffff);
    memcpy(nvram + 0x30, nvram + 0x17, 2);
    put16(nvram + 0x34, rtc->below_4g > 16 * MiB ? (rtc->below_4g - 16 * MiB) / (64 * KiB) : 0,
          0xffff);
    put16(nvram + 0x5b, high, ~0ull);
    nvram[0x5d] = (u8)(high >> 16);
}

void device_rtc_set_memory(struct device *dev, u64 below_4g, u64 above_4g)
{
    struct rtc *rtc = to_rtc(dev);

    mutex_lock(&dev->lock);
    rtc->below_4g = below_4g;
    rtc->above_4g = above_4g;
    show_memory(rtc);
    mutex_unlock(&dev->lock);
}

void device_rtc_connect(struct device *dev, bool connected)
{
    struct rtc *rtc = to_rtc(dev);

    mutex_lock(&dev->lock);
    if (rtc->cut == connected)
        dev->env->irq_set(dev->env->opaque, RTC_IRQ, 0);
    rtc->cut = !connected;
    update_irq(rtc);
    mutex_unlock(&dev->lock);
}

void device_rtc_set_pm(struct device *dev, struct device *pm)
{
    to_rtc(dev)->pm = pm;
}

/* The battery keeps time and memory; a reset clears the interrupt enables (data sheet, RESET). */
static void reset(struct device *dev)
{
    struct rtc *rtc = to_rtc(dev);
    struct rtc_state *s = &rtc->state;

    s->index = 0;
    if (!s->nvram[REG_A]) {
        s->nvram[REG_A] = A_DIVIDER_RUNS | 6;
        s->nvram[REG_B] = B_24H;
        s->flags_until = floor_div(guest_ns(rtc), NSEC_PER_SEC);
    }
    s->nvram[REG_B] &= ~(B_PIE | B_AIE | B_UIE);
    s->nvram[REG_C] = 0;
    show_memory(rtc);
    update_irq(rtc);
    arm_timers(rtc);
}

static void loaded(struct device *dev)
{
    to_rtc(dev)->alarmed = true; /* ACPI's state has it already, if there was one */
    update_irq(to_rtc(dev));
    arm_timers(to_rtc(dev));
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct rtc *rtc = to_rtc(dev);
    int ret = device_options_check(options, "", err);

    if (ret)
        return ret;
    rtc->second = (struct device_timer){.fire = timer_fired, .opaque = rtc};
    rtc->periodic = (struct device_timer){.fire = timer_fired, .opaque = rtc};
    ret =
        device_bus_add(dev->ports, &(struct device_region){0x70, 2, 1, read_data, write_data, dev});
    return ret ? err_set(err, ret, "ports 0x70 and 0x71 are taken") : 0;
}

static void destroy(struct device *dev)
{
    struct rtc *rtc = to_rtc(dev);

    dev->env->timer_set(dev->env->opaque, &rtc->second, 0);
    dev->env->timer_set(dev->env->opaque, &rtc->periodic, 0);
}

const struct device_class device_class_rtc = {
    DEVICE_CLASS(struct rtc), .state_version = 1, .create = create, .destroy = destroy,
    .reset = reset,           .loaded = loaded,   .standby = true,
};
