/* The local APIC's timer, SDM volume 3 11.5.4. */
#include "soft/lapic.h"

enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

/* A guest that asks for a faster periodic interrupt than this only starves itself and the host. */
#define PERIOD_MIN_NS 50000

static unsigned mode(const struct lapic *lapic)
{
    return lapic->state.lvt[0] >> 17 & 3;
}

/* SDM figure 11-10: bits 3, 1, 0; 111b divides by 1. */
static unsigned divide_shift(u32 tdcr)
{
    return (((tdcr & 3) | (tdcr >> 1 & 4)) + 1) & 7;
}

static u64 count_ns(const struct lapic *lapic, u64 count)
{
    return count * APIC_TICK_NS << divide_shift(lapic->state.tdcr);
}

/* Lock held. */
static void stop(struct lapic *lapic)
{
    soft_timer_disarm(&lapic->timer);
    lapic->state.timer_period = 0;
    lapic->state.tsc_deadline = 0;
}

/* Lock held. Has the timer run out by @now? Then it starts its next period or stops. */
static bool run_out(struct lapic *lapic, u64 now)
{
    struct soft_timer *timer = &lapic->timer;
    struct lapic_state *s = &lapic->state;

    if (now < timer->deadline) /* armed anew for later between firing and here */
        return false;
    if (mode(lapic) == TIMER_DEADLINE) {
        bool due = s->tsc_deadline;

        s->tsc_deadline = 0;
        return due;
    }
    if (!s->timer_period || now < s->timer_start + s->timer_period)
        return false;
    if (mode(lapic) == TIMER_PERIODIC) {
        u64 period = s->timer_period < PERIOD_MIN_NS ? PERIOD_MIN_NS : s->timer_period;

        /* Periods that the host slept through are lost, as on a CPU with interrupts off. */
        s->timer_start += (now - s->timer_start) / period * period;
        soft_timer_arm(timer, s->timer_start + period);
    } else {
        s->timer_period = 0;
    }
    return true;
}

void lapic_timer_fire(struct soft_timer *timer)
{
    struct lapic *lapic = container_of(timer, struct lapic, timer);
    bool due;

    mutex_lock(&lapic->timer_lock);
    due = run_out(lapic, soft_timers_now(timer->queue));
    mutex_unlock(&lapic->timer_lock);
    if (due)
        lapic_local_interrupt(lapic, 0);
}

/* The timer thread may be late: the CPU must not see a count that has come to its end, or change
 * the mode of one that has, before the interrupt. */
void lapic_timer_settle(struct lapic *lapic)
{
    lapic_timer_fire(&lapic->timer);
}

void lapic_timer_start(struct lapic *lapic)
{
    struct lapic_state *s = &lapic->state;

    mutex_lock(&lapic->timer_lock);
    stop(lapic);
    if (mode(lapic) != TIMER_DEADLINE && s->tmict) {
        s->timer_start = soft_timers_now(lapic->timer.queue);
        s->timer_period = count_ns(lapic, s->tmict);
        soft_timer_arm(&lapic->timer, s->timer_start + s->timer_period);
    }
    mutex_unlock(&lapic->timer_lock);
}

/* Going to or from TSC-deadline mode disarms the timer. */
void lapic_timer_lvt_changed(struct lapic *lapic, u32 old)
{
    mutex_lock(&lapic->timer_lock);
    if ((mode(lapic) == TIMER_DEADLINE) != ((old >> 17 & 3) == TIMER_DEADLINE)) {
        stop(lapic);
        lapic->state.tmict = 0;
    }
    mutex_unlock(&lapic->timer_lock);
}

static u32 count_now(const struct lapic *lapic)
{
    const struct lapic_state *s = &lapic->state;
    u64 elapsed;

    if (!s->timer_period)
        return 0;
    elapsed = soft_timers_now(lapic->timer.queue) - s->timer_start;
    if (mode(lapic) == TIMER_PERIODIC)
        elapsed %= s->timer_period;
    else if (elapsed >= s->timer_period)
        return 0;
    return (u32)((s->timer_period - elapsed) / APIC_TICK_NS >> divide_shift(s->tdcr));
}

u32 lapic_timer_count(struct lapic *lapic)
{
    u32 count;

    lapic_timer_settle(lapic);
    mutex_lock(&lapic->timer_lock);
    count = count_now(lapic);
    mutex_unlock(&lapic->timer_lock);
    return count;
}

/* The count goes on from where it is at the new rate. */
void lapic_timer_divide_changed(struct lapic *lapic, u32 tdcr)
{
    struct lapic_state *s = &lapic->state;
    u32 left;

    lapic_timer_settle(lapic);
    mutex_lock(&lapic->timer_lock);
    left = count_now(lapic);
    s->tdcr = tdcr & 0xb;
    if (s->timer_period && left) {
        s->timer_period = count_ns(lapic, s->tmict);
        s->timer_start =
            soft_timers_now(lapic->timer.queue) + count_ns(lapic, left) - s->timer_period;
        soft_timer_arm(&lapic->timer, s->timer_start + s->timer_period);
    }
    mutex_unlock(&lapic->timer_lock);
}

u64 lapic_tsc_deadline(struct lapic *lapic)
{
    u64 tsc;

    lapic_timer_settle(lapic);
    mutex_lock(&lapic->timer_lock);
    tsc = lapic->state.tsc_deadline;
    mutex_unlock(&lapic->timer_lock);
    return tsc;
}

/* SDM 11.5.4.1: ignored in the other modes; 0 disarms; one in the past is an interrupt at once. */
void lapic_set_tsc_deadline(struct lapic *lapic, u64 tsc)
{
    bool due = false;

    mutex_lock(&lapic->timer_lock);
    if (mode(lapic) == TIMER_DEADLINE && lapic_enabled(lapic)) {
        u64 deadline = tsc ? lapic->hooks->deadline_ns(lapic, tsc) : 0;

        due = tsc && deadline <= soft_timers_now(lapic->timer.queue);
        lapic->state.tsc_deadline = due ? 0 : tsc;
        if (tsc && !due)
            soft_timer_arm(&lapic->timer, deadline);
        else
            soft_timer_disarm(&lapic->timer);
    }
    mutex_unlock(&lapic->timer_lock);
    if (due)
        lapic_local_interrupt(lapic, 0);
}
