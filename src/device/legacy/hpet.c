/*
 * High precision event timers (IA-PC HPET Specification 1.0a): a main counter of 64 bits at 100 MHz
 * and three comparators, each one-shot or periodic, with legacy replacement and interrupt messages.
 */
#include <errno.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/thread.h"
#include "device/hpet.h"
#include "device/pci/pci.h"
#include "device/vtd.h"

#define BLOCK_BYTES 1024
#define TICK_NS 10
#define PERIOD_FS 10000000ull /* of the main counter */
#define TIMERS 3
/* Shortest time to the next interrupt: a guest may ask for 100 million a second and gets what one
 * thread can give; the comparator goes on as if all had come. */
#define SHORTEST_NS 20000
#define FIRST_PCI_LINE 16

enum {
    CAPABILITIES = 0x000,
    CONFIG = 0x010,
    STATUS = 0x020,
    COUNTER = 0x0f0,
    TIMER0 = 0x100,
    TIMER_BYTES = 0x20,
    TIMER_CONFIG = 0x00, /* from the timer's start */
    TIMER_COMPARATOR = 0x08,
    TIMER_MESSAGE = 0x10,

    ENABLE = BIT(0),
    LEGACY = BIT(1),

    LEVEL = BIT(1),
    INTERRUPT = BIT(2),
    PERIODIC = BIT(3),
    CAN_PERIODIC = BIT(4),
    CAN_64_BITS = BIT(5),
    SET_ACCUMULATOR = BIT(6),
    MODE_32_BITS = BIT(8),
    ROUTE_SHIFT = 9,
    ROUTE_MASK = 0x1f,
    MESSAGE = BIT(14),
    CAN_MESSAGE = BIT(15),
    TIMER_WRITABLE =
        LEVEL | INTERRUPT | PERIODIC | MODE_32_BITS | ROUTE_MASK << ROUTE_SHIFT | MESSAGE,
};

#define ROUTES 0x00ff0000u /* lines 16 to 23, those of PCI */
#define CAPABILITY_BITS                                                                            \
    (1 /* revision */ | (TIMERS - 1) << 8 | BIT(13) /* 64 bits */ | BIT(15) /* legacy */ |         \
     0x8086ull << 16 | PERIOD_FS << 32)

struct hpet_state {
    u64 config, status;
    u64 counter;    /* while it stands, and when it last started */
    u64 started_ns; /* clock_mono_ns then */
    struct hpet_timer_state {
        u64 config, comparator, period, message;
        u64 seen; /* main counter up to which matches are done */
    } timers[TIMERS];
};

struct hpet {
    struct device dev;
    struct hpet_state state;
    struct device *rtc; /* line 8 is taken from it; NULL for none */
    struct hpet_timer {
        struct hpet *hpet;
        struct device_timer timer;
        int line; /* that it holds up, -1 for none */
    } timers[TIMERS];
    bool replaced; /* what PIT and RTC were told */
};

static struct hpet *to_hpet(struct device *dev)
{
    return container_of(dev, struct hpet, dev);
}

static u64 counter(const struct hpet_state *s)
{
    return s->config & ENABLE ? s->counter + (clock_mono_ns() - s->started_ns) / TICK_NS
                              : s->counter;
}

static u64 width_mask(const struct hpet_timer_state *t)
{
    return t->config & MODE_32_BITS ? 0xffffffff : ~0ull;
}

/* ---- Interrupts ----------------------------------------------------------------------------- */

/* The line a timer is on: legacy replacement comes before its own choice. */
static unsigned route(const struct hpet_state *s, unsigned n)
{
    if ((s->config & LEGACY) && n < 2)
        return n ? 8 : 0;
    return s->timers[n].config >> ROUTE_SHIFT & ROUTE_MASK;
}

static bool uses_message(const struct hpet_state *s, unsigned n)
{
    return (s->timers[n].config & MESSAGE) && !((s->config & LEGACY) && n < 2);
}

/* PCI's lines are shared, and the bridge knows by how many. */
static void drive(struct hpet *hpet, unsigned line, bool level)
{
    const struct device_env *env = hpet->dev.env;

    if (line >= FIRST_PCI_LINE && hpet->dev.parent)
        pci_host_line(hpet->dev.parent, line, level);
    else
        env->irq_set(env->opaque, line, level);
}

static void hold_line(struct hpet *hpet, unsigned n, int line)
{
    struct hpet_timer *timer = &hpet->timers[n];

    if (timer->line == line)
        return;
    if (timer->line >= 0)
        drive(hpet, (unsigned)timer->line, false);
    timer->line = line;
    if (line >= 0)
        drive(hpet, (unsigned)line, true);
}

/* A line that does not exist for this timer leads nowhere. */
static bool has_line(const struct hpet_state *s, unsigned n)
{
    return ((s->config & LEGACY) && n < 2) || (route(s, n) < 32 && (ROUTES >> route(s, n) & 1));
}

static void update_level(struct hpet *hpet, unsigned n)
{
    const struct hpet_state *s = &hpet->state;
    u64 config = s->timers[n].config;
    bool up = (s->status >> n & 1) && (config & INTERRUPT) && (config & LEVEL) &&
              (s->config & ENABLE) && !uses_message(s, n) && has_line(s, n);

    hold_line(hpet, n, up ? (int)route(s, n) : -1);
}

static void matched(struct hpet *hpet, unsigned n)
{
    struct hpet_state *s = &hpet->state;
    const struct device_env *env = hpet->dev.env;
    const struct hpet_timer_state *t = &s->timers[n];

    if (t->config & LEVEL) {
        s->status |= BIT(n);
        update_level(hpet, n);
    } else if (t->config & INTERRUPT) {
        if (uses_message(s, n)) {
            if (hpet->dev.parent)
                pci_host_msi(hpet->dev.parent, DEVICE_VTD_SOURCE(DEVICE_VTD_HPET_SLOT),
                             t->message >> 32, (u32)t->message);
            else if (env->msi)
                env->msi(env->opaque, t->message >> 32, (u32)t->message);
        } else if (has_line(s, n)) {
            drive(hpet, route(s, n), true);
            drive(hpet, route(s, n), false);
        }
    }
}

/* ---- Comparators ----------------------------------------------------------------------------- */

/* Ticks from @from until the comparator's value comes up again; what a timer of 64 bits reaches in
 * centuries is no match. */
static u64 distance(const struct hpet_timer_state *t, u64 from)
{
    return (t->comparator - from) & width_mask(t);
}

/* Does what is due and arms the timer for what comes next. */
static void run_timer(struct hpet *hpet, unsigned n)
{
    struct hpet_state *s = &hpet->state;
    struct hpet_timer_state *t = &s->timers[n];
    const struct device_env *env = hpet->dev.env;
    u64 now = counter(s), mask = width_mask(t), passed = now - t->seen, deadline = 0, next;
    bool due = passed && distance(t, t->seen + 1) < passed;

    if (!(s->config & ENABLE)) {
        env->timer_set(env->opaque, &hpet->timers[n].timer, 0);
        return;
    }
    t->seen = now;
    if (due && (t->config & PERIODIC) && (t->period & mask)) {
        u64 late = (now - t->comparator) & mask, period = t->period & mask;

        t->comparator = (t->comparator + (late / period + 1) * period) & mask;
    }
    if (due)
        matched(hpet, n);
    next = distance(t, now + 1) + 1;
    if ((t->config & INTERRUPT) && next < ~0ull / 2 / TICK_NS) {
        u64 wait = next * TICK_NS;

        deadline = clock_mono_ns() + (due && wait < SHORTEST_NS ? SHORTEST_NS : wait);
    }
    env->timer_set(env->opaque, &hpet->timers[n].timer, deadline);
}

static void run_all(struct hpet *hpet)
{
    for (unsigned n = 0; n < TIMERS; n++)
        run_timer(hpet, n);
}

static void timer_fired(void *opaque)
{
    struct hpet_timer *timer = opaque;
    struct hpet *hpet = timer->hpet;

    mutex_lock(&hpet->dev.lock);
    run_timer(hpet, (unsigned)(timer - hpet->timers));
    mutex_unlock(&hpet->dev.lock);
}

/* ---- Registers ------------------------------------------------------------------------------- */

static void replace_legacy(struct hpet *hpet)
{
    const struct device_env *env = hpet->dev.env;
    bool replaced = hpet->state.config & LEGACY;

    if (replaced == hpet->replaced)
        return;
    hpet->replaced = replaced;
    if (env->pit_connect)
        env->pit_connect(env->opaque, !replaced);
    if (hpet->rtc)
        device_rtc_connect(hpet->rtc, !replaced);
}

static void write_config(struct hpet *hpet, u64 value)
{
    struct hpet_state *s = &hpet->state;
    u64 changed = s->config ^ value;

    if (changed & ENABLE & ~value)
        s->counter = counter(s);
    s->config = value & (ENABLE | LEGACY);
    if (changed & ENABLE & value) {
        s->started_ns = clock_mono_ns();
        for (unsigned n = 0; n < TIMERS; n++)
            s->timers[n].seen = s->counter - 1; /* what it stands at counts */
    }
    replace_legacy(hpet);
    run_all(hpet);
    for (unsigned n = 0; n < TIMERS; n++)
        update_level(hpet, n);
}

/* For a counter that stands; one that runs takes it too, and all matches are of the new count. */
static void write_counter(struct hpet *hpet, u64 value)
{
    struct hpet_state *s = &hpet->state;

    s->counter = value;
    s->started_ns = clock_mono_ns();
    for (unsigned n = 0; n < TIMERS; n++)
        s->timers[n].seen = value;
    run_all(hpet);
}

static void write_timer_config(struct hpet *hpet, unsigned n, u64 value)
{
    struct hpet_timer_state *t = &hpet->state.timers[n];
    u64 old = t->config;

    /* A line that the timer cannot have is not taken over, by which software sees it. */
    if (!(ROUTES >> (value >> ROUTE_SHIFT & ROUTE_MASK) & 1))
        value = (value & ~(u64)(ROUTE_MASK << ROUTE_SHIFT)) | (old & ROUTE_MASK << ROUTE_SHIFT);
    t->config = (value & (TIMER_WRITABLE | SET_ACCUMULATOR)) | (old & ~(u64)TIMER_WRITABLE);
    if (!(t->config & PERIODIC))
        t->config &= ~(u64)SET_ACCUMULATOR;
    if (t->config & MODE_32_BITS) {
        t->comparator = (u32)t->comparator;
        t->period = (u32)t->period;
    }
    if (!(t->config & LEVEL))
        hpet->state.status &= ~BIT(n);
    run_timer(hpet, n);
    update_level(hpet, n);
}

static u64 merge(u64 old, u64 offset, unsigned size, u64 value)
{
    unsigned shift = (offset & 7) * 8;
    u64 mask = (size == 8 ? ~0ull : BIT(size * 8) - 1) << shift;

    return (old & ~mask) | (value << shift & mask);
}

/* In periodic mode a write sets what is added at each match, and the comparator itself only when
 * that was asked for just before (2.3.9.2.2). */
static void write_comparator(struct hpet *hpet, unsigned n, u64 offset, unsigned size, u64 value)
{
    struct hpet_timer_state *t = &hpet->state.timers[n];

    run_timer(hpet, n);
    if (!(t->config & PERIODIC) || (t->config & SET_ACCUMULATOR)) {
        t->comparator = merge(t->comparator, offset, size, value) & width_mask(t);
        t->seen = counter(&hpet->state) - 1; /* what is reached just now counts */
    }
    if (t->config & PERIODIC)
        t->period = merge(t->period, offset, size, value) & width_mask(t);
    t->config &= ~(u64)SET_ACCUMULATOR;
    run_timer(hpet, n);
}

static void write_timer(struct hpet *hpet, unsigned n, u64 offset, unsigned size, u64 value)
{
    struct hpet_timer_state *t = &hpet->state.timers[n];

    switch (offset & ~7ull) {
    case TIMER_CONFIG:
        write_timer_config(hpet, n, merge(t->config & TIMER_WRITABLE, offset, size, value));
        break;
    case TIMER_COMPARATOR:
        write_comparator(hpet, n, offset, size, value);
        break;
    case TIMER_MESSAGE:
        t->message = merge(t->message, offset, size, value);
        break;
    }
}

static u64 read_register(struct hpet *hpet, u64 offset)
{
    const struct hpet_state *s = &hpet->state;
    const struct hpet_timer_state *t;

    switch (offset) {
    case CAPABILITIES:
        return CAPABILITY_BITS;
    case CONFIG:
        return s->config;
    case STATUS:
        return s->status;
    case COUNTER:
        return counter(s);
    }
    if (offset < TIMER0 || offset >= TIMER0 + TIMERS * TIMER_BYTES)
        return 0;
    t = &s->timers[(offset - TIMER0) / TIMER_BYTES];
    switch (offset % TIMER_BYTES) {
    case TIMER_CONFIG:
        return (t->config & TIMER_WRITABLE) | CAN_PERIODIC | CAN_64_BITS | CAN_MESSAGE |
               (u64)ROUTES << 32;
    case TIMER_COMPARATOR:
        run_timer(hpet, (unsigned)(t - s->timers));
        return t->comparator;
    case TIMER_MESSAGE:
        return t->message;
    }
    return 0;
}

static u64 read_block(struct device *dev, u64 offset, unsigned size)
{
    (void)size;
    return read_register(to_hpet(dev), offset & ~7ull) >> (offset & 7) * 8;
}

static void write_block(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct hpet *hpet = to_hpet(dev);
    struct hpet_state *s = &hpet->state;

    switch (offset & ~7ull) {
    case CONFIG:
        write_config(hpet, merge(s->config, offset, size, value));
        return;
    case STATUS: /* a 1 clears */
        s->status &= ~merge(0, offset, size, value);
        for (unsigned n = 0; n < TIMERS; n++)
            update_level(hpet, n);
        return;
    case COUNTER:
        run_all(hpet);
        write_counter(hpet, merge(counter(s), offset, size, value));
        return;
    }
    if (offset >= TIMER0 && offset < TIMER0 + TIMERS * TIMER_BYTES)
        write_timer(hpet, (unsigned)(offset - TIMER0) / TIMER_BYTES, offset % TIMER_BYTES, size,
                    value);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void reset(struct device *dev)
{
    struct hpet *hpet = to_hpet(dev);

    hpet->state = (struct hpet_state){0};
    for (unsigned n = 0; n < TIMERS; n++) {
        hpet->state.timers[n].comparator = ~0ull;
        hpet->state.timers[n].config = 16 << ROUTE_SHIFT;
        hold_line(hpet, n, -1);
    }
    replace_legacy(hpet);
    run_all(hpet);
}

static void loaded(struct device *dev)
{
    struct hpet *hpet = to_hpet(dev);

    replace_legacy(hpet);
    run_all(hpet);
    for (unsigned n = 0; n < TIMERS; n++)
        update_level(hpet, n);
}

void device_hpet_set_rtc(struct device *dev, struct device *rtc)
{
    to_hpet(dev)->rtc = rtc;
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct hpet *hpet = to_hpet(dev);
    u64 address = 0xfed00000;
    int ret = device_options_check(options, "address", err);

    if (!ret)
        ret = device_option_number(options, "address", ~0ull, &address, err);
    if (ret)
        return ret;
    for (unsigned n = 0; n < TIMERS; n++) {
        struct hpet_timer *timer = &hpet->timers[n];

        *timer = (struct hpet_timer){hpet, {.fire = timer_fired, .opaque = timer}, -1};
    }
    ret = device_bus_add(dev->memory, &(struct device_region){address, BLOCK_BYTES, 8, read_block,
                                                              write_block, dev});
    return ret ? err_set(err, ret, "memory at %#" PRIx64 " is taken", address) : 0;
}

static void destroy(struct device *dev)
{
    for (unsigned n = 0; n < TIMERS; n++)
        dev->env->timer_set(dev->env->opaque, &to_hpet(dev)->timers[n].timer, 0);
}

const struct device_class device_class_hpet = {
    DEVICE_CLASS(struct hpet), .state_version = 1, .create = create,
    .destroy = destroy,        .reset = reset,     .loaded = loaded,
};
