/*
 * Streams on descriptors. A vCPU that writes a character only puts it into a ring; the first one
 * arms a timer, and the I/O thread writes out what has come together until then. So a guest's
 * console costs no system call a byte, and a slow terminal never stops a vCPU inside a handler.
 * When the ring is full the device is told so and shows it to the guest as a transmitter that is
 * not yet empty.
 */
#include "machine/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

/* One write at most: a terminal or pipe that is ready for output takes this without blocking. */
#define WRITE_CHUNK 2048

/* How long characters gather: less than a person or a protocol notices. */
#define GATHER_NS (NSEC_PER_SEC / 1000)

static size_t send_bytes(void *backend, const u8 *data, size_t len)
{
    struct fd_stream *s = backend;
    bool arm = false, full = false;
    size_t room;

    mutex_lock(&s->lock);
    if (!s->out_lost) {
        room = STREAM_OUT_BYTES - (size_t)(s->out_head - s->out_tail);
        if (len > room) {
            len = room;
            s->device_waits = full = true;
        }
        for (size_t i = 0; i < len; i++)
            s->out_data[s->out_head++ % STREAM_OUT_BYTES] = data[i];
        arm = len && !s->gathering && !(s->out.events & EPOLLOUT);
        s->gathering |= arm;
    }
    mutex_unlock(&s->lock);
    if (full)
        loop_wake(s->loop);
    else if (arm)
        loop_timer_set(s->loop, &s->gather, clock_mono_ns() + GATHER_NS);
    return len;
}

static void room(void *backend)
{
    struct fd_stream *s = backend;

    mutex_lock(&s->lock);
    s->room = true;
    mutex_unlock(&s->lock);
    loop_wake(s->loop);
}

static bool writable_now(const struct fd_stream *s)
{
    struct pollfd pfd = {.fd = s->out.fd, .events = POLLOUT};

    return s->out_plain || (poll(&pfd, 1, 0) == 1 && (pfd.revents & (POLLOUT | POLLERR | POLLHUP)));
}

/* Writes one chunk of the ring; false when nothing moved. The lock is not held across write(). */
static bool write_chunk(struct fd_stream *s)
{
    u8 chunk[WRITE_CHUNK];
    size_t len;
    ssize_t done;

    mutex_lock(&s->lock);
    len = (size_t)(s->out_head - s->out_tail);
    if (len > sizeof(chunk))
        len = sizeof(chunk);
    for (size_t i = 0; i < len; i++)
        chunk[i] = s->out_data[(s->out_tail + i) % STREAM_OUT_BYTES];
    mutex_unlock(&s->lock);
    if (!len)
        return false;
    done = write(s->out.fd, chunk, len);
    if (done < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    mutex_lock(&s->lock);
    if (done < 0) {
        s->out_lost = true;
        s->out_tail = s->out_head;
    } else {
        s->out_tail += (u64)done;
    }
    mutex_unlock(&s->lock);
    if (done < 0)
        log_warn("serial output is lost from here on: %s", strerror(errno));
    return true;
}

static bool out_empty(struct fd_stream *s)
{
    bool empty;

    mutex_lock(&s->lock);
    empty = s->out_head == s->out_tail;
    mutex_unlock(&s->lock);
    return empty;
}

static void pump_out(struct fd_stream *s)
{
    bool tell;

    if (s->out.fd < 0)
        return;
    mutex_lock(&s->lock);
    s->gathering = false;
    mutex_unlock(&s->lock);
    while (!out_empty(s) && writable_now(s) && write_chunk(s))
        ;
    mutex_lock(&s->lock);
    if (!s->out_plain && !s->out_lost)
        loop_change(s->loop, &s->out, s->out_head != s->out_tail ? EPOLLOUT : 0);
    tell = s->device_waits && s->out_head - s->out_tail <= STREAM_OUT_BYTES / 2;
    if (tell)
        s->device_waits = false;
    mutex_unlock(&s->lock);
    if (tell)
        s->stream.writable(s->stream.device);
}

/* Offers the device what was read. */
static void feed(struct fd_stream *s)
{
    size_t taken;

    if (!s->in_len)
        return;
    taken = s->stream.receive(s->stream.device, s->in_data, s->in_len);
    s->in_len -= taken;
    memmove(s->in_data, s->in_data + taken, s->in_len);
}

/* Reads once. False when there is nothing now or ever. */
static bool pull(struct fd_stream *s)
{
    u8 data[STREAM_IN_BYTES];
    size_t free_bytes = STREAM_IN_BYTES - s->in_len, kept;
    ssize_t len;

    if (s->in_ended || (!free_bytes && !s->config.never_pause))
        return false;
    len = read(s->in.fd, data, s->config.never_pause ? sizeof(data) : free_bytes);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (len < 0 && errno == EIO && tcgetpgrp(s->in.fd) >= 0) {
        s->in_paused = true; /* the terminal is another job's now: until fd_stream_resume */
        loop_remove(s->loop, &s->in);
        return false;
    }
    if (len <= 0) {
        s->in_ended = true;
        if (!s->in_plain)
            loop_remove(s->loop, &s->in);
        return false;
    }
    kept = s->config.filter ? s->config.filter(s->config.opaque, data, (size_t)len) : (size_t)len;
    if (kept > free_bytes)
        kept = free_bytes; /* the guest does not listen: what is typed on is lost */
    memcpy(s->in_data + s->in_len, data, kept);
    s->in_len += kept;
    return true;
}

static void pump_in(struct fd_stream *s)
{
    if (s->in.fd < 0)
        return;
    feed(s);
    if (s->in_plain)
        while (!s->in_len && pull(s))
            feed(s);
    if (!s->in_plain && !s->in_ended && !s->in_paused)
        loop_change(s->loop, &s->in,
                    s->config.never_pause || s->in_len < STREAM_IN_BYTES ? EPOLLIN : 0);
}

static void in_ready(void *opaque, u32 events)
{
    struct fd_stream *s = opaque;

    (void)events;
    pull(s);
    pump_in(s);
}

static void gathered(void *opaque)
{
    pump_out(opaque);
}

static void out_ready(void *opaque, u32 events)
{
    (void)events;
    pump_out(opaque);
}

void fd_stream_service(struct fd_stream *s)
{
    bool has_room;

    mutex_lock(&s->lock);
    has_room = s->room;
    if (s->resume)
        s->in_paused = false;
    s->room = s->resume = false;
    mutex_unlock(&s->lock);
    pump_out(s);
    if (has_room || s->in_plain)
        pump_in(s);
}

void fd_stream_resume(struct fd_stream *s)
{
    mutex_lock(&s->lock);
    s->room = s->resume = true;
    mutex_unlock(&s->lock);
    loop_wake(s->loop);
}

void fd_stream_flush(struct fd_stream *s, u64 deadline_ns)
{
    if (s->out.fd < 0)
        return;
    while (!out_empty(s)) {
        struct pollfd pfd = {.fd = s->out.fd, .events = POLLOUT};
        u64 now = clock_mono_ns();

        if (now >= deadline_ns)
            break;
        if (!s->out_plain)
            poll(&pfd, 1, (int)((deadline_ns - now) / 1000000) + 1);
        if (writable_now(s))
            write_chunk(s);
    }
}

static int open_pty(struct fd_stream *s, struct err *err)
{
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    if (master < 0 || grantpt(master) || unlockpt(master) ||
        ptsname_r(master, s->path, sizeof(s->path)))
        goto fail;
    s->slave = open(s->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s->slave < 0 || tcgetattr(s->slave, &raw))
        goto fail;
    cfmakeraw(&raw);
    tcsetattr(s->slave, TCSANOW, &raw);
    s->config.in = s->config.out = master;
    return 0;

fail:
    err_set(err, -errno, "cannot open a pty for the serial port: %s", strerror(errno));
    if (master >= 0)
        close(master);
    return -EIO;
}

static int wait_for(struct fd_stream *s, struct loop_fd *fd, bool *plain)
{
    int ret = fd->fd < 0 ? 0 : loop_add(s->loop, fd);

    *plain = ret == -EPERM;
    return *plain ? 0 : ret;
}

int fd_stream_open(struct fd_stream *s, const struct machine_serial *config, struct loop *loop,
                   struct err *err)
{
    int ret = 0;

    s->config = *config;
    s->loop = loop;
    s->slave = -1;
    s->gather = (struct device_timer){.fire = gathered, .opaque = s};
    mutex_init(&s->lock);
    s->stream = (struct stream){.backend = s, .send = send_bytes, .room = room};
    if (config->kind == MACHINE_SERIAL_PTY)
        ret = open_pty(s, err);
    if (ret)
        return ret;
    s->in = (struct loop_fd){.fd = s->config.in, .events = EPOLLIN, .ready = in_ready, .opaque = s};
    s->out = (struct loop_fd){.fd = -1, .ready = out_ready, .opaque = s};
    s->out_lost = s->config.out < 0;
    if (s->config.out >= 0) {
        s->out.fd = fcntl(s->config.out, F_DUPFD_CLOEXEC, 3);
        if (s->out.fd < 0)
            return err_set(err, -errno, "cannot write to the serial port's output: %s",
                           strerror(errno));
    }
    ret = wait_for(s, &s->in, &s->in_plain);
    if (!ret)
        ret = wait_for(s, &s->out, &s->out_plain);
    return ret ? err_set(err, ret, "cannot wait for the serial port's back end: %s", strerror(-ret))
               : 0;
}

void fd_stream_close(struct fd_stream *s)
{
    if (!s->loop)
        return;
    loop_timer_set(s->loop, &s->gather, 0);
    if (s->out.fd >= 0) {
        loop_remove(s->loop, &s->out);
        close(s->out.fd);
    }
    if (s->in.fd >= 0 && !s->in_ended)
        loop_remove(s->loop, &s->in);
    if (s->slave >= 0) {
        close(s->slave);
        close(s->config.in);
    }
    pthread_mutex_destroy(&s->lock);
}
