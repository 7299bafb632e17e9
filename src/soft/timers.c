#include "soft/timers.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

/* Sets the timerfd to the earliest deadline; lock held. */
static void program(struct soft_timers *timers)
{
    struct itimerspec spec = {0};

    if (timers->fd < 0)
        return;
    if (timers->stop) {
        spec.it_value.tv_nsec = 1;
    } else if (!list_empty(&timers->armed)) {
        u64 deadline = list_entry(timers->armed.next, struct soft_timer, node)->deadline;

        if (!deadline)
            deadline = 1; /* 0 would disarm it */
        spec.it_value.tv_sec = (time_t)(deadline / NSEC_PER_SEC);
        spec.it_value.tv_nsec = (long)(deadline % NSEC_PER_SEC);
    }
    timerfd_settime(timers->fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* Fires the first timer if it is due; lock held, dropped meanwhile. */
static bool fire_one(struct soft_timers *timers)
{
    struct soft_timer *timer;

    if (list_empty(&timers->armed))
        return false;
    timer = list_entry(timers->armed.next, struct soft_timer, node);
    if (timer->deadline > soft_timers_now(timers))
        return false;
    list_remove(&timer->node);
    timers->firing = timer;
    mutex_unlock(&timers->lock);
    timer->fire(timer);
    mutex_lock(&timers->lock);
    timers->firing = NULL;
    pthread_cond_broadcast(&timers->fired);
    return true;
}

static void *timers_main(void *opaque)
{
    struct soft_timers *timers = opaque;
    u64 expirations;

    mutex_lock(&timers->lock);
    while (!timers->stop) {
        while (fire_one(timers)) {
        }
        program(timers);
        mutex_unlock(&timers->lock);
        if (read(timers->fd, &expirations, sizeof expirations) < 0 && errno != EINTR)
            BUG("reading the timerfd failed: %s", strerror(errno));
        mutex_lock(&timers->lock);
    }
    mutex_unlock(&timers->lock);
    return NULL;
}

static void init(struct soft_timers *timers)
{
    memset(timers, 0, sizeof *timers);
    mutex_init(&timers->lock);
    cond_init(&timers->fired);
    list_init(&timers->armed);
    timers->fd = -1;
}

int soft_timers_start(struct soft_timers *timers, struct err *err)
{
    int ret;

    init(timers);
    timers->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    if (timers->fd < 0)
        return err_set(err, -errno, "the host gives no timerfd: %s", strerror(errno));
    ret = thread_create(&timers->thread, "timers", timers_main, timers, err);
    if (ret) {
        close(timers->fd);
        timers->fd = -1;
    }
    return ret;
}

void soft_timers_stop(struct soft_timers *timers)
{
    if (timers->fd < 0)
        return;
    mutex_lock(&timers->lock);
    timers->stop = true;
    program(timers);
    mutex_unlock(&timers->lock);
    pthread_join(timers->thread, NULL);
    close(timers->fd);
    timers->fd = -1;
}

void soft_timers_by_hand(struct soft_timers *timers)
{
    init(timers);
}

void soft_timers_advance(struct soft_timers *timers, u64 ns)
{
    u64 end = timers->now + ns;

    mutex_lock(&timers->lock);
    while (!list_empty(&timers->armed)) {
        u64 next = list_entry(timers->armed.next, struct soft_timer, node)->deadline;

        if (next > end)
            break;
        if (next > timers->now)
            timers->now = next;
        fire_one(timers);
    }
    timers->now = end;
    mutex_unlock(&timers->lock);
}

u64 soft_timers_now(const struct soft_timers *timers)
{
    return timers->fd < 0 ? timers->now : clock_mono_ns();
}

void soft_timer_init(struct soft_timer *timer, struct soft_timers *timers,
                     void (*fire)(struct soft_timer *timer))
{
    timer->queue = timers;
    timer->fire = fire;
    timer->deadline = 0;
    list_init(&timer->node);
}

void soft_timer_arm(struct soft_timer *timer, u64 deadline)
{
    struct soft_timers *timers = timer->queue;
    struct list *before;

    mutex_lock(&timers->lock);
    list_remove(&timer->node);
    timer->deadline = deadline;
    before = &timers->armed;
    list_for_each(it, &timers->armed) {
        if (list_entry(it, struct soft_timer, node)->deadline > deadline) {
            before = it;
            break;
        }
    }
    list_add_tail(before, &timer->node); /* in front of the first later one */
    if (timers->armed.next == &timer->node && !timers->firing)
        program(timers);
    mutex_unlock(&timers->lock);
}

void soft_timer_disarm(struct soft_timer *timer)
{
    mutex_lock(&timer->queue->lock);
    list_remove(&timer->node);
    mutex_unlock(&timer->queue->lock);
}

void soft_timers_quiesce(struct soft_timers *timers)
{
    struct soft_timer *firing;

    mutex_lock(&timers->lock);
    firing = timers->firing;
    while (firing && timers->firing == firing)
        pthread_cond_wait(&timers->fired, &timers->lock);
    mutex_unlock(&timers->lock);
}

void soft_timer_destroy(struct soft_timer *timer)
{
    struct soft_timers *timers = timer->queue;

    if (!timers)
        return;
    mutex_lock(&timers->lock);
    list_remove(&timer->node);
    while (timers->firing == timer)
        pthread_cond_wait(&timers->fired, &timers->lock);
    list_remove(&timer->node); /* the callback may have armed it again */
    mutex_unlock(&timers->lock);
}
