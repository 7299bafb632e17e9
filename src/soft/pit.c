#include "soft/pit.h"

#include <string.h>

#include "base/bits.h"
#include "base/clock.h"

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

static u64 now_ns(const struct pit *pit)
{
    return soft_timers_now(pit->timer.queue);
}

static u64 to_ticks(u64 ns)
{
    return muldiv64(ns, PIT_HZ, NSEC_PER_SEC);
}

/* First ns at which @ticks have passed. */
static u64 to_ns(u64 ticks)
{
    return (u64)(((u128)ticks * NSEC_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

/* Modes 1 and 5 wait for their gate to rise; the others count while it is high. */
static bool triggered_by_gate(const struct pit_channel *c)
{
    return c->s.mode == 1 || c->s.mode == 5;
}

static u64 elapsed_ticks(const struct pit *pit, const struct pit_channel *c)
{
    if (!c->loaded || (triggered_by_gate(c) && !c->armed))
        return 0;
    if (!c->s.gate && !triggered_by_gate(c))
        return to_ticks(c->held);
    return to_ticks(now_ns(pit) - (u64)c->s.count_load_time);
}

static bool output(const struct pit *pit, const struct pit_channel *c)
{
    u64 ticks = elapsed_ticks(pit, c), count = c->s.count;

    if (!c->loaded)
        return c->s.mode != 0;
    switch (c->s.mode) {
    case 0:
        return ticks >= count;
    case 1:
        return !c->armed || ticks >= count;
    case 2:
        return !c->s.gate || ticks % count != count - 1;
    case 3:
        return !c->s.gate || ticks % count < (count + 1) / 2;
    case 5:
        return !c->armed || ticks != count;
    default:
        return ticks != count;
    }
}

static u16 to_bcd(u32 value)
{
    return (u16)(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                 value % 10);
}

static u32 from_bcd(u32 value)
{
    return (value >> 12 & 15) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 +
           (value & 15);
}

static u16 counter(const struct pit *pit, const struct pit_channel *c)
{
    u64 ticks = elapsed_ticks(pit, c), count = c->s.count ? c->s.count : 0x10000;
    u32 modulus = c->s.bcd ? 10000 : 0x10000, value;

    switch (c->s.mode) {
    case 2:
        value = (u32)(count - ticks % count);
        break;
    case 3: /* counts by two, twice a period */
        value = (u32)(count - 2 * ticks % count) & ~1u;
        break;
    default: /* runs on through 0 */
        value = (u32)((count + modulus - ticks % modulus) % modulus);
        break;
    }
    value %= modulus;
    return c->s.bcd ? to_bcd(value) : (u16)value;
}

/* Channel 0: ticks from the load to the next rise of its output; 0: it does not rise any more. */
static u64 next_rise(const struct pit_channel *c, u64 ticks)
{
    switch (c->s.mode) {
    case 0:
        return ticks < c->s.count ? c->s.count : 0;
    case 2:
    case 3:
        return (ticks / c->s.count + 1) * c->s.count;
    case 4:
        return ticks <= c->s.count ? c->s.count + 1 : 0;
    default: /* its gate is tied high and never rises */
        return 0;
    }
}

static void drive(struct pit *pit, bool level)
{
    if (!pit->cut)
        pit->set_line(pit, level);
}

static void arm_line(struct pit *pit)
{
    struct pit_channel *c = &pit->channel[0];
    u64 rise = c->loaded ? next_rise(c, elapsed_ticks(pit, c)) : 0;

    if (rise)
        soft_timer_arm(&pit->timer, (u64)c->s.count_load_time + to_ns(rise));
    else
        soft_timer_disarm(&pit->timer);
}

/* The low part before a rise in modes 2 and 4 is one tick, too short for anyone to see: the line
 * falls and rises at once. */
static void fire(struct soft_timer *timer)
{
    struct pit *pit = container_of(timer, struct pit, timer);

    mutex_lock(&pit->lock);
    if (pit->channel[0].loaded && now_ns(pit) >= timer->deadline) {
        drive(pit, false);
        drive(pit, true);
        arm_line(pit);
    }
    mutex_unlock(&pit->lock);
}

void pit_init(struct pit *pit, struct soft_timers *timers,
              void (*set_line)(struct pit *pit, bool level))
{
    memset(pit, 0, sizeof *pit);
    mutex_init(&pit->lock);
    soft_timer_init(&pit->timer, timers, fire);
    pit->set_line = set_line;
    for (unsigned i = 0; i < 3; i++) {
        pit->channel[i].s.mode = 0xff; /* undefined until programmed */
        pit->channel[i].s.gate = i != 2;
        pit->channel[i].s.rw_mode = ACCESS_BOTH;
        pit->channel[i].s.count = 0x10000;
    }
}

void pit_destroy(struct pit *pit)
{
    soft_timer_destroy(&pit->timer);
}

static void load(struct pit *pit, unsigned index, u32 value)
{
    struct pit_channel *c = &pit->channel[index];

    if (c->s.bcd)
        value = from_bcd(value);
    c->s.count = value ? value : c->s.bcd ? 10000 : 0x10000;
    if ((c->s.mode == 2 || c->s.mode == 3) && c->s.count < 2)
        c->s.count = 2; /* 1 is not allowed there */
    c->loaded = true;
    c->held = 0;
    if (!triggered_by_gate(c))
        c->s.count_load_time = (s64)now_ns(pit);
    if (index == 0) {
        drive(pit, output(pit, c));
        arm_line(pit);
    }
}

static void latch_count(const struct pit *pit, struct pit_channel *c)
{
    if (c->s.count_latched)
        return;
    c->s.latched_count = counter(pit, c);
    c->s.count_latched = c->s.rw_mode;
}

static void latch_status(const struct pit *pit, struct pit_channel *c)
{
    if (c->s.status_latched)
        return;
    c->s.status = (u8)(output(pit, c) << 7 | !c->loaded << 6 | c->s.rw_mode << 4 |
                       (c->s.mode & 7) << 1 | c->s.bcd);
    c->s.status_latched = 1;
}

static void write_control(struct pit *pit, u8 value)
{
    unsigned index = value >> 6, access = value >> 4 & 3;
    struct pit_channel *c;

    if (index == 3) { /* read-back: bits 5 and 4 low say what, 3..1 which */
        for (unsigned i = 0; i < 3; i++) {
            if (!(value >> (i + 1) & 1))
                continue;
            if (!(value & 0x20))
                latch_count(pit, &pit->channel[i]);
            if (!(value & 0x10))
                latch_status(pit, &pit->channel[i]);
        }
        return;
    }
    c = &pit->channel[index];
    if (access == ACCESS_LATCH) {
        latch_count(pit, c);
        return;
    }
    c->s.rw_mode = access;
    c->s.read_state = c->s.write_state = access;
    c->s.mode = value >> 1 & 7;
    if (c->s.mode > 5)
        c->s.mode -= 4; /* modes 2 and 3 have a don't-care bit */
    c->s.bcd = value & 1;
    c->s.count_latched = c->s.status_latched = 0;
    c->loaded = c->armed = false;
    c->held = 0;
    if (index == 0) {
        drive(pit, output(pit, c));
        arm_line(pit);
    }
}

/* read_state, write_state: the access mode, where ACCESS_BOTH becomes ACCESS_LATCH (0) between the
 * two bytes. */
static void write_count(struct pit *pit, unsigned index, u8 value)
{
    struct kvm_pit_channel_state *s = &pit->channel[index].s;

    switch (s->write_state) {
    case ACCESS_LOW:
        load(pit, index, value);
        break;
    case ACCESS_HIGH:
        load(pit, index, (u32)value << 8);
        break;
    case ACCESS_BOTH:
        s->write_latch = value;
        s->write_state = ACCESS_LATCH;
        if (s->mode == 0)
            pit->channel[index].loaded = false; /* the first byte stops counting */
        break;
    default:
        s->write_state = ACCESS_BOTH;
        load(pit, index, s->write_latch | (u32)value << 8);
        break;
    }
}

static u8 read_count(struct pit *pit, struct pit_channel *c)
{
    struct kvm_pit_channel_state *s = &c->s;
    u16 count;

    if (s->status_latched) {
        s->status_latched = 0;
        return s->status;
    }
    if (s->count_latched) {
        if (s->count_latched == ACCESS_BOTH) {
            s->count_latched = ACCESS_HIGH;
            return (u8)s->latched_count;
        }
        count = s->latched_count;
        if (s->count_latched == ACCESS_HIGH)
            count >>= 8;
        s->count_latched = 0;
        return (u8)count;
    }
    count = counter(pit, c);
    switch (s->read_state) {
    case ACCESS_LOW:
        return (u8)count;
    case ACCESS_HIGH:
        return (u8)(count >> 8);
    case ACCESS_BOTH:
        s->read_state = ACCESS_LATCH;
        return (u8)count;
    default:
        s->read_state = ACCESS_BOTH;
        return (u8)(count >> 8);
    }
}

static void set_gate(struct pit *pit, struct pit_channel *c, bool gate)
{
    u64 now = now_ns(pit);

    if (gate == c->s.gate)
        return;
    if (!gate) {
        if (c->loaded && !triggered_by_gate(c))
            c->held = now - (u64)c->s.count_load_time;
    } else if (c->s.mode == 0 || c->s.mode == 4) {
        c->s.count_load_time = (s64)(now - c->held);
    } else {
        c->s.count_load_time = (s64)now;
        c->armed = true;
    }
    c->s.gate = gate;
}

bool pit_port(u16 port)
{
    return (port & ~3) == 0x40 || port == 0x61;
}

u8 pit_read(struct pit *pit, u16 port)
{
    u8 value;

    mutex_lock(&pit->lock);
    if (port == 0x61) {
        /* Bit 4 toggles with each memory refresh, every 15 us. */
        value = (u8)(pit->channel[2].s.gate | pit->speaker << 1 | (now_ns(pit) / 15085 & 1) << 4 |
                     output(pit, &pit->channel[2]) << 5);
    } else if (port == 0x43) {
        value = 0xff; /* write-only */
    } else {
        value = read_count(pit, &pit->channel[port & 3]);
    }
    mutex_unlock(&pit->lock);
    return value;
}

void pit_write(struct pit *pit, u16 port, u8 value)
{
    mutex_lock(&pit->lock);
    if (port == 0x61) {
        set_gate(pit, &pit->channel[2], value & 1);
        pit->speaker = value & 2;
    } else if (port == 0x43) {
        write_control(pit, value);
    } else {
        write_count(pit, port & 3, value);
    }
    mutex_unlock(&pit->lock);
}

void pit_get_state(struct pit *pit, struct kvm_pit_state2 *state)
{
    memset(state, 0, sizeof *state);
    mutex_lock(&pit->lock);
    for (unsigned i = 0; i < 3; i++) {
        const struct pit_channel *c = &pit->channel[i];

        state->channels[i] = c->s;
        if (!c->s.gate && c->loaded && !triggered_by_gate(c))
            state->channels[i].count_load_time = (s64)(now_ns(pit) - c->held);
    }
    if (pit->speaker)
        state->flags = KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    if (pit->cut)
        state->flags |= KVM_PIT_FLAGS_HPET_LEGACY;
    mutex_unlock(&pit->lock);
}

void pit_set_state(struct pit *pit, const struct kvm_pit_state2 *state)
{
    mutex_lock(&pit->lock);
    for (unsigned i = 0; i < 3; i++) {
        struct pit_channel *c = &pit->channel[i];

        c->s = state->channels[i];
        if (i != 2)
            c->s.gate =
                1; /* tied high: with it low, time would stand still before a rise for ever */
        c->loaded = c->s.mode <= 5;
        if (!c->s.count || c->s.count > 0x10000)
            c->s.count = 0x10000;
        if ((c->s.mode == 2 || c->s.mode == 3) && c->s.count < 2)
            c->s.count = 2;
        c->armed = true;
        c->held = now_ns(pit) - (u64)c->s.count_load_time;
    }
    pit->speaker = state->flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    if ((state->flags & KVM_PIT_FLAGS_HPET_LEGACY) && !pit->cut)
        pit->set_line(pit, false);
    pit->cut = state->flags & KVM_PIT_FLAGS_HPET_LEGACY;
    arm_line(pit);
    mutex_unlock(&pit->lock);
}
