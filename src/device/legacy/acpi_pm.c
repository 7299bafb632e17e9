/*
 * ACPI fixed hardware (ACPI 6.4, 4.8): the PM1a event and control blocks, the 32-bit PM timer and
 * a GPE0 block. There is no legacy mode: SCI_EN always reads 1. Layout from the base port: events
 * at 0, control at 4, timer at 8, GPE0 at 0x20.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/thread.h"
#include "device/device.h"

#define PM_TIMER_HZ 3579545ull
#define PM_TIMER_HALF (1ull << 31) /* TMR_STS rises whenever the top bit changes */

enum {
    PM1_STATUS = 0,
    PM1_ENABLE = 2,
    PM1_CONTROL = 4,
    PM_TIMER = 8,
    GPE0 = 0x20,
    GPE0_BYTES = 4, /* half status, half enable */
    BLOCK_BYTES = 12,

    TMR_STS = 0x0001,
    RTC_STS = 0x0400,
    WAK_STS = 0x8000,
    PM1_STATUSES = 0xc731, /* WAK, PCIEXP_WAKE, RTC, SLPBTN, PWRBTN, GBL, BM, TMR */
    PM1_ENABLES = 0x0721,  /* RTC, SLPBTN, PWRBTN, GBL, TMR */

    SCI_EN = 0x0001,
    CONTROL_KEPT = 0x1c02, /* SLP_TYP, BM_RLD; GBL_RLS and SLP_EN read 0 */
    SLP_EN = 0x2000,
    SLP_TYP_SHIFT = 10,
    SLP_TYP_MASK = 7,
};

struct acpi_pm_state {
    u16 status, enable, control;
    u8 gpe[GPE0_BYTES];
    bool asleep;
    u64 start_ns; /* the timer read 0 then */
    u64 halves;   /* PM_TIMER_HALFs up to which TMR_STS is computed */
};

struct acpi_pm {
    struct device dev;
    struct acpi_pm_state state;
    struct device_timer carry;
    unsigned irq;
};

static struct acpi_pm *to_pm(struct device *dev)
{
    return container_of(dev, struct acpi_pm, dev);
}

static u64 ticks(const struct acpi_pm *pm)
{
    return muldiv64(clock_mono_ns() - pm->state.start_ns, PM_TIMER_HZ, NSEC_PER_SEC);
}

static void update(struct acpi_pm *pm)
{
    struct acpi_pm_state *s = &pm->state;
    const struct device_env *env = pm->dev.env;
    u64 halves = ticks(pm) / PM_TIMER_HALF, deadline = 0;
    bool high;

    if (halves != s->halves)
        s->status |= TMR_STS;
    s->halves = halves;
    if ((s->enable & TMR_STS) && !(s->status & TMR_STS))
        deadline =
            s->start_ns + 1 + muldiv64((halves + 1) * PM_TIMER_HALF, NSEC_PER_SEC, PM_TIMER_HZ);
    env->timer_set(env->opaque, &pm->carry, deadline);
    high = s->status & s->enable;
    for (unsigned i = 0; i < GPE0_BYTES / 2; i++)
        high |= s->gpe[i] & s->gpe[GPE0_BYTES / 2 + i];
    env->irq_set(env->opaque, pm->irq, high);
    if (s->asleep && (s->status & s->enable & RTC_STS)) {
        s->asleep = false;
        s->status |= WAK_STS;
        env->request(env->opaque, DEVICE_REQUEST_WAKE);
    }
}

static void carry_fired(void *opaque)
{
    struct acpi_pm *pm = opaque;

    mutex_lock(&pm->dev.lock);
    update(pm);
    mutex_unlock(&pm->dev.lock);
}

static u64 read_block(struct device *dev, u64 offset, unsigned size)
{
    struct acpi_pm *pm = to_pm(dev);
    struct acpi_pm_state *s = &pm->state;
    u64 value = 0;

    (void)size;
    switch (offset & ~3ull) {
    case PM1_STATUS:
        update(pm);
        value = s->status | (u64)s->enable << 16;
        break;
    case PM1_CONTROL:
        value = s->control | SCI_EN;
        break;
    case PM_TIMER:
        value = (u32)ticks(pm);
        break;
    }
    return value >> (offset & 3) * 8;
}

static void write_control(struct acpi_pm *pm, u16 value)
{
    const struct device_env *env = pm->dev.env;

    pm->state.control = value & CONTROL_KEPT;
    if (!(value & SLP_EN))
        return;
    switch (value >> SLP_TYP_SHIFT & SLP_TYP_MASK) {
    case DEVICE_ACPI_SLP_TYP_S5:
        env->request(env->opaque, DEVICE_REQUEST_POWER_OFF);
        break;
    case DEVICE_ACPI_SLP_TYP_S3:
        env->request(env->opaque, DEVICE_REQUEST_SLEEP);
        pm->state.asleep = true;
        update(pm); /* an event that is there already wakes at once */
        break;
    }
}

/* Replaces the bytes of a 16-bit register that the access covers. */
static u16 merge(u16 old, u64 offset, unsigned size, u64 value)
{
    unsigned shift = (offset & 1) * 8;
    u16 mask = size == 1 ? 0xff << shift : 0xffff;

    return (old & ~mask) | ((value << shift) & mask);
}

static void write_block(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct acpi_pm *pm = to_pm(dev);
    struct acpi_pm_state *s = &pm->state;

    if (size == 4) {
        write_block(dev, offset, 2, value & 0xffff);
        write_block(dev, offset + 2, 2, value >> 16);
        return;
    }
    switch (offset & ~1ull) {
    case PM1_STATUS: /* a 1 clears */
        update(pm);
        s->status &= ~(merge(0, offset, size, value) & PM1_STATUSES);
        update(pm);
        break;
    case PM1_ENABLE:
        s->enable = merge(s->enable, offset, size, value) & PM1_ENABLES;
        update(pm);
        break;
    case PM1_CONTROL:
        write_control(pm, merge(s->control, offset, size, value));
        break;
    }
}

static u64 read_gpe(struct device *dev, u64 offset, unsigned size)
{
    (void)size;
    return to_pm(dev)->state.gpe[offset];
}

static void write_gpe(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct acpi_pm *pm = to_pm(dev);

    (void)size;
    if (offset < GPE0_BYTES / 2)
        pm->state.gpe[offset] &= ~(u8)value;
    else
        pm->state.gpe[offset] = (u8)value;
    update(pm);
}

void device_acpi_pm_alarm(struct device *dev)
{
    struct acpi_pm *pm = to_pm(dev);

    mutex_lock(&dev->lock);
    pm->state.status |= RTC_STS;
    update(pm);
    mutex_unlock(&dev->lock);
}

static void reset(struct device *dev)
{
    struct acpi_pm *pm = to_pm(dev);

    pm->state = (struct acpi_pm_state){.start_ns = clock_mono_ns()};
    update(pm);
}

static void loaded(struct device *dev)
{
    update(to_pm(dev));
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct acpi_pm *pm = to_pm(dev);
    u64 port = 0x600, irq = 9;
    int ret = device_options_check(options, "port,irq", err);

    if (!ret)
        ret = device_option_number(options, "port", 0xffc0, &port, err);
    if (!ret)
        ret = device_option_number(options, "irq", 23, &irq, err);
    if (ret)
        return ret;
    pm->irq = (unsigned)irq;
    pm->carry = (struct device_timer){.fire = carry_fired, .opaque = pm};
    ret = device_bus_add(
        dev->ports, &(struct device_region){port, BLOCK_BYTES, 4, read_block, write_block, dev});
    if (!ret)
        ret = device_bus_add(dev->ports, &(struct device_region){port + GPE0, GPE0_BYTES, 1,
                                                                 read_gpe, write_gpe, dev});
    return ret ? err_set(err, ret, "ports at %#" PRIx64 " are taken", port) : 0;
}

static void destroy(struct device *dev)
{
    dev->env->timer_set(dev->env->opaque, &to_pm(dev)->carry, 0);
}

const struct device_class device_class_acpi_pm = {
    DEVICE_CLASS(struct acpi_pm),
    .state_version = 2,
    .create = create,
    .destroy = destroy,
    .reset = reset,
    .loaded = loaded,
    .standby = true,
};
