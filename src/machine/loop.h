/* The I/O thread's event loop: descriptors and timers. Inside src/machine only. */
#ifndef TRIODE_MACHINE_LOOP_H
#define TRIODE_MACHINE_LOOP_H

#include <pthread.h>

#include "base/err.h"
#include "base/list.h"
#include "base/types.h"
#include "device/device.h"

struct loop_fd {
    int fd;
    u32 events;                              /* EPOLLIN, EPOLLOUT; 0 listens to neither */
    void (*ready)(void *opaque, u32 events); /* in the loop's thread */
    void *opaque;
    bool registered; /* loop's */
};

struct loop {
    int epoll;
    struct loop_fd timer, wake;
    pthread_mutex_t lock;                        /* of timers */
    struct list timers;                          /* armed, by deadline */
    void (*woken)(void *opaque);                 /* after loop_wake, in the loop's thread */
    void (*sleeping)(void *opaque, bool begins); /* around each sleep, or NULL */
    void *opaque;
    bool quit; /* loop's thread only */
};

int loop_init(struct loop *loop, void (*woken)(void *opaque), void *opaque, struct err *err);
void loop_free(struct loop *loop);

/* The descriptor stays the caller's. loop_add answers -EPERM for what cannot be waited for (a plain
 * file). loop_change sets @events. Any thread, but one at a time for one descriptor. */
int loop_add(struct loop *loop, struct loop_fd *fd);
void loop_change(struct loop *loop, struct loop_fd *fd, u32 events);
void loop_remove(struct loop *loop, struct loop_fd *fd);

/* device_env's timer_set. Any thread. */
void loop_timer_set(struct loop *loop, struct device_timer *timer, u64 deadline_ns);

/* Makes the loop call woken(). Any thread, also in signal handlers. */
void loop_wake(struct loop *loop);

/* Handles one batch of events, waiting for it without limit. */
void loop_once(struct loop *loop);

#endif
