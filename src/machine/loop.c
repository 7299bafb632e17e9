/* Event loop on epoll with one timerfd for all timers. */
#include "machine/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#define BATCH 16

static void drain(int fd)
{
    u64 count;

    while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

static void on_wake(void *opaque, u32 events)
{
    struct loop *loop = opaque;

    (void)events;
    drain(loop->wake.fd);
    loop->woken(loop->opaque);
}

/* Sets the timerfd to the earliest deadline. The lock is held. */
static void program(struct loop *loop)
{
    struct itimerspec spec = {0};

    if (!list_empty(&loop->timers)) {
        u64 ns = list_entry(loop->timers.next, struct device_timer, node)->deadline_ns;

        spec.it_value.tv_sec = (time_t)(ns / NSEC_PER_SEC);
        spec.it_value.tv_nsec = (long)(ns % NSEC_PER_SEC);
    }
    if (timerfd_settime(loop->timer.fd, TFD_TIMER_ABSTIME, &spec, NULL))
        BUG("timerfd_settime: %s", strerror(errno));
}

static void on_timer(void *opaque, u32 events)
{
    struct loop *loop = opaque;

    (void)events;
    drain(loop->timer.fd);
    mutex_lock(&loop->lock);
    while (!list_empty(&loop->timers)) {
        struct device_timer *timer = list_entry(loop->timers.next, struct device_timer, node);

        if (timer->deadline_ns > clock_mono_ns())
            break;
        list_remove(&timer->node);
        timer->deadline_ns = 0;
        mutex_unlock(&loop->lock);
        timer->fire(timer->opaque);
        mutex_lock(&loop->lock);
    }
    program(loop);
    mutex_unlock(&loop->lock);
}

void loop_timer_set(struct loop *loop, struct device_timer *timer, u64 deadline_ns)
{
    bool was_first, armed = timer->deadline_ns != 0;
    struct list *at;

    if (!armed && !deadline_ns)
        return;
    mutex_lock(&loop->lock);
    was_first = timer->deadline_ns && loop->timers.next == &timer->node;
    if (timer->deadline_ns)
        list_remove(&timer->node);
    timer->deadline_ns = deadline_ns;
    if (deadline_ns) {
        for (at = loop->timers.next; at != &loop->timers; at = at->next)
            if (list_entry(at, struct device_timer, node)->deadline_ns > deadline_ns)
                break;
        list_add_tail(at, &timer->node);
    }
    if (was_first || (deadline_ns && loop->timers.next == &timer->node))
        program(loop);
    mutex_unlock(&loop->lock);
}

/* A descriptor nobody wants events of is taken out, because epoll would still report its hang-up
 * again and again. */
static int apply(struct loop *loop, struct loop_fd *fd, u32 events)
{
    struct epoll_event event = {.events = events, .data.ptr = fd};
    int op = !events ? EPOLL_CTL_DEL : fd->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    fd->events = events;
    if (!events && !fd->registered)
        return 0;
    fd->registered = events != 0;
    return epoll_ctl(loop->epoll, op, fd->fd, &event) ? -errno : 0;
}

int loop_add(struct loop *loop, struct loop_fd *fd)
{
    u32 events = fd->events;
    int ret = apply(loop, fd, EPOLLIN);

    if (ret)
        fd->registered = false;
    else if (events != EPOLLIN)
        ret = apply(loop, fd, events);
    return ret;
}

void loop_change(struct loop *loop, struct loop_fd *fd, u32 events)
{
    int ret;

    if (fd->events == events)
        return;
    ret = apply(loop, fd, events);
    if (ret)
        log_warn("epoll_ctl: %s", strerror(-ret));
}

void loop_remove(struct loop *loop, struct loop_fd *fd)
{
    apply(loop, fd, 0);
}

void loop_wake(struct loop *loop)
{
    u64 one = 1;
    ssize_t done = write(loop->wake.fd, &one, sizeof(one));

    (void)done; /* full counter: the wake-up is already under way */
}

void loop_once(struct loop *loop)
{
    struct epoll_event events[BATCH];
    int count;

    if (loop->sleeping)
        loop->sleeping(loop->opaque, true);
    count = epoll_wait(loop->epoll, events, BATCH, -1);
    if (loop->sleeping)
        loop->sleeping(loop->opaque, false);
    for (int i = 0; i < count; i++) {
        struct loop_fd *fd = events[i].data.ptr;

        fd->ready(fd->opaque, events[i].events);
    }
}

int loop_init(struct loop *loop, void (*woken)(void *opaque), void *opaque, struct err *err)
{
    int ret;

    memset(loop, 0, sizeof(*loop));
    list_init(&loop->timers);
    mutex_init(&loop->lock);
    loop->woken = woken;
    loop->opaque = opaque;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->timer = (struct loop_fd){
        .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
        .events = EPOLLIN,
        .ready = on_timer,
        .opaque = loop,
    };
    loop->wake = (struct loop_fd){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .events = EPOLLIN,
        .ready = on_wake,
        .opaque = loop,
    };
    if (loop->epoll < 0 || loop->timer.fd < 0 || loop->wake.fd < 0)
        ret = -errno;
    else
        ret = loop_add(loop, &loop->timer);
    if (!ret)
        ret = loop_add(loop, &loop->wake);
    if (ret) {
        loop_free(loop);
        return err_set(err, ret, "cannot set up the I/O thread's event loop: %s", strerror(-ret));
    }
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void loop_free(struct loop *loop)
{
    close_if_open(loop->epoll);
    close_if_open(loop->timer.fd);
    close_if_open(loop->wake.fd);
    pthread_mutex_destroy(&loop->lock);
}
