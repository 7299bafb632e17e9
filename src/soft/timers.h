/*
 * The soft engine's timers: armed on the host's monotonic clock, fired from one thread a VM. Arming
 * an earlier deadline than all others reprograms a timerfd; it wakes nobody. In unit tests the
 * queue runs by hand instead, on made-up time.
 */
#ifndef TRIODE_SOFT_TIMERS_H
#define TRIODE_SOFT_TIMERS_H

#include "base/list.h"
#include "base/thread.h"

struct soft_timers {
    pthread_mutex_t lock;
    pthread_cond_t fired;      /* a callback has returned */
    struct list armed;         /* earliest first */
    struct soft_timer *firing; /* its callback runs now */
    int fd;                    /* timerfd; -1 by hand */
    bool stop;
    u64 now; /* by hand: the time */
    pthread_t thread;
};

struct soft_timer {
    struct list node;
    struct soft_timers *queue;
    u64 deadline; /* ns, valid while armed */
    void (*fire)(struct soft_timer *timer);
};

/* Starts the thread. Negative errno with @err set. */
int soft_timers_start(struct soft_timers *timers, struct err *err);
/* After all timers are destroyed. */
void soft_timers_stop(struct soft_timers *timers);

/* A queue without a thread; soft_timers_advance moves its clock and fires what comes due, in order,
 * on the calling thread. */
void soft_timers_by_hand(struct soft_timers *timers);
void soft_timers_advance(struct soft_timers *timers, u64 ns);

/* The queue's clock, ns. */
u64 soft_timers_now(const struct soft_timers *timers);

/* @fire is called without locks; it may arm and disarm, its own timer too. */
void soft_timer_init(struct soft_timer *timer, struct soft_timers *timers,
                     void (*fire)(struct soft_timer *timer));
/* Not armed any more, and its callback has returned. */
void soft_timer_destroy(struct soft_timer *timer);

/* Waits until no callback runs that began before. */
void soft_timers_quiesce(struct soft_timers *timers);

/* (Re)arms for @deadline in ns of the queue's clock; one in the past fires at once. */
void soft_timer_arm(struct soft_timer *timer, u64 deadline);
/* A callback that has begun may still be running afterwards. */
void soft_timer_disarm(struct soft_timer *timer);

#endif
