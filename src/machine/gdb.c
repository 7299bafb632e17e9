/*
 * The GDB server's connection: who listens where, what comes in and goes out, and when the guest
 * stands still. One debugger at a time; whatever it sends and whenever it goes, the guest lives on.
 */
#include "machine/gdb.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#define END_FLUSH_NS (NSEC_PER_SEC / 5)

static void process(struct gdb *gdb);

/* ---- Output ---------------------------------------------------------------------------------- */

static void disconnect(struct gdb *gdb)
{
    if (gdb->client.fd < 0)
        return;
    loop_remove(&gdb->machine->loop, &gdb->client);
    close(gdb->client.fd);
    gdb->client.fd = -1;
    gdb->reply_due = gdb->interrupted = false;
    gdb->input_len = gdb->input_at = 0;
    strbuf_free(&gdb->output);
    strbuf_free(&gdb->reply);
    strbuf_free(&gdb->last);
    gdb->written = 0;
    if (gdb->state == GDB_STOPPED) {
        gdb_let_go(gdb);
        gdb->state = GDB_DETACHED;
    } else if (gdb->state == GDB_RUNNING) {
        gdb_stop(gdb); /* to take the breakpoints out */
    }
}

/* Writes what it can. */
static void flush(struct gdb *gdb)
{
    while (gdb->client.fd >= 0 && gdb->written < gdb->output.len) {
        ssize_t done = send(gdb->client.fd, gdb->output.text + gdb->written,
                            gdb->output.len - gdb->written, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN)
            return;
        if (done <= 0) {
            disconnect(gdb);
            return;
        }
        gdb->written += (size_t)done;
    }
    gdb->output.len = gdb->written = 0;
    if (gdb->closing || gdb->output.failed)
        disconnect(gdb);
}

void gdb_send(struct gdb *gdb)
{
    gdb->last.len = 0;
    gdb_frame(&gdb->last, gdb->reply.text ? gdb->reply.text : "", gdb->reply.len);
    strbuf_append(&gdb->output, gdb->last.text ? gdb->last.text : "", gdb->last.len);
    gdb->output.failed |= gdb->reply.failed | gdb->last.failed;
    gdb->reply.len = 0;
}

static void again(struct gdb *gdb)
{
    if (!gdb->no_ack && gdb->last.len)
        strbuf_append(&gdb->output, gdb->last.text, gdb->last.len);
}

/* ---- States ---------------------------------------------------------------------------------- */

static void stopped(struct gdb *gdb)
{
    gdb->state = GDB_STOPPED;
    if (gdb->client.fd < 0) {
        gdb_let_go(gdb);
        gdb->state = GDB_DETACHED;
        return;
    }
    if (gdb->reply_due)
        gdb_send_stop(gdb);
    gdb->reply_due = gdb->interrupted = false;
}

void gdb_stop(struct gdb *gdb)
{
    gdb->state = GDB_STOPPING;
    gdb_hold_all(gdb);
    if (gdb_all_parked(gdb))
        stopped(gdb);
}

void gdb_running(struct gdb *gdb)
{
    gdb->state = GDB_RUNNING;
}

void gdb_detach(struct gdb *gdb)
{
    gdb->closing = true;
}

void gdb_woken(struct machine *machine)
{
    struct gdb *gdb = machine->gdb;
    bool wanted;

    mutex_lock(&gdb->lock);
    wanted = gdb->stop_wanted;
    if (__atomic_load_n(&machine->stopping, __ATOMIC_SEQ_CST))
        pthread_cond_broadcast(&gdb->cond);
    mutex_unlock(&gdb->lock);
    if (gdb->state == GDB_RUNNING && wanted)
        gdb_stop(gdb);
    else if (gdb->state == GDB_STOPPING && gdb_all_parked(gdb))
        stopped(gdb);
    process(gdb);
}

void gdb_reset(struct machine *machine)
{
    struct gdb *gdb = machine->gdb;

    for (unsigned i = 0; i < gdb->breakpoint_count; i++)
        gdb->breakpoints[i].present = false; /* memory is fresh */
    for (unsigned i = 0; i < gdb_cpus(gdb); i++) {
        struct gdb_vcpu *debug = &gdb_vcpu(gdb, i)->debug;

        debug->stop.signal = 0;
        memset(&debug->applied, 0, sizeof(debug->applied));
        gdb_apply(gdb, gdb_vcpu(gdb, i));
    }
}

/* ---- Input ----------------------------------------------------------------------------------- */

static void acknowledge(struct gdb *gdb, char sign)
{
    if (!gdb->no_ack)
        strbuf_append(&gdb->output, &sign, 1);
}

static void refuse(struct gdb *gdb, int error)
{
    strbuf_printf(&gdb->reply, "E%02x", error);
    gdb_send(gdb);
}

/* While the guest runs GDB has nothing to say but Ctrl-C and, from some clients, good-bye. */
static void packet(struct gdb *gdb)
{
    char first = gdb->parser.data[0];

    acknowledge(gdb, '+');
    if (gdb->state == GDB_STOPPED || first == 'k' || first == 'D')
        gdb_command(gdb);
    else
        refuse(gdb, EBUSY);
}

static void handle(struct gdb *gdb, enum gdb_event event)
{
    switch (event) {
    case GDB_EVENT_PACKET:
        packet(gdb);
        break;
    case GDB_EVENT_BAD:
        acknowledge(gdb, '-');
        break;
    case GDB_EVENT_TOO_LONG:
        acknowledge(gdb, '+');
        refuse(gdb, E2BIG);
        break;
    case GDB_EVENT_INTERRUPT:
        if (gdb->state != GDB_RUNNING)
            break;
        gdb->interrupted = true;
        gdb_stop(gdb);
        break;
    case GDB_EVENT_NAK:
        again(gdb);
        break;
    case GDB_EVENT_NONE:
        break;
    }
}

/* Input waits while vCPUs are being parked and while the debugger does not take its answers. */
static void process(struct gdb *gdb)
{
    flush(gdb);
    while (gdb->client.fd >= 0 && gdb->state != GDB_STOPPING && !gdb->output.len &&
           gdb->input_at < gdb->input_len) {
        handle(gdb, gdb_parse(&gdb->parser, gdb->input[gdb->input_at++]));
        flush(gdb);
    }
    if (gdb->client.fd < 0)
        return;
    if (gdb->output.len)
        loop_change(&gdb->machine->loop, &gdb->client, EPOLLOUT);
    else
        loop_change(&gdb->machine->loop, &gdb->client, gdb->state == GDB_STOPPING ? 0 : EPOLLIN);
}

static void client_ready(void *opaque, u32 events)
{
    struct gdb *gdb = opaque;
    ssize_t len;

    (void)events;
    if (gdb->client.fd < 0)
        return;
    if (gdb->input_at == gdb->input_len && gdb->state != GDB_STOPPING && !gdb->output.len) {
        len = recv(gdb->client.fd, gdb->input, sizeof(gdb->input), MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (len <= 0) {
            disconnect(gdb);
            return;
        }
        gdb->input_at = 0;
        gdb->input_len = (size_t)len;
    }
    process(gdb);
}

static void listener_ready(void *opaque, u32 events)
{
    struct gdb *gdb = opaque;
    int fd = accept4(gdb->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;

    (void)events;
    if (fd < 0)
        return;
    /* One at a time; and the one that just went must be cleaned up after first. */
    if (gdb->client.fd >= 0 || gdb->state == GDB_STOPPING) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    gdb->client =
        (struct loop_fd){.fd = fd, .events = EPOLLIN, .ready = client_ready, .opaque = gdb};
    if (loop_add(&gdb->machine->loop, &gdb->client)) {
        gdb->client.fd = -1;
        close(fd);
        return;
    }
    memset(&gdb->parser, 0, sizeof(gdb->parser));
    gdb->no_ack = gdb->physical = gdb->closing = false;
    gdb->selected = gdb->resumed = 0;
    gdb_stop(gdb);
    process(gdb);
}

void gdb_ended(struct machine *machine)
{
    struct gdb *gdb = machine->gdb;
    u64 deadline = clock_mono_ns() + END_FLUSH_NS;

    if (gdb->client.fd < 0)
        return;
    if (gdb->state == GDB_RUNNING || gdb->reply_due) {
        switch (machine->end) {
        case MACHINE_POWER_OFF:
        case MACHINE_RESET:
        case MACHINE_STOPPED:
        case MACHINE_EXITED:
            strbuf_printf(&gdb->reply, "W%02x", machine->exit_status & 0xff);
            break;
        default:
            strbuf_printf(&gdb->reply, "X%02x", GDB_SIGSEGV);
            break;
        }
        gdb_send(gdb);
    }
    gdb->state = GDB_DETACHED; /* nothing to let go any more */
    gdb->closing = true;
    do {
        flush(gdb);
    } while (gdb->client.fd >= 0 && clock_mono_ns() < deadline && !usleep(1000));
    disconnect(gdb);
}

/* ---- Opening --------------------------------------------------------------------------------- */

static int bad_address(const char *text, struct err *err)
{
    return err_set(err, -EINVAL, "--gdb takes PORT, tcp:[HOST:]PORT or unix:PATH, not \"%s\"",
                   text);
}

static int cannot_listen(const char *text, int error, struct err *err)
{
    return err_set(err, -error, "--gdb: cannot listen at %s: %s", text, strerror(error));
}

/* A socket in the file system behind which nobody listens. (Connecting to a plain file is refused,
 * too.) */
static bool left_over(const struct sockaddr_un *address)
{
    struct stat st;
    bool refused;
    int fd;

    if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode)) {
        errno = EADDRINUSE;
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    refused = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
              errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused;
}

static int listen_unix(struct gdb *gdb, const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, ret;

    if (!*path || strlen(path) >= sizeof(address.sun_path))
        return err_set(err, -EINVAL, "--gdb: the path of a socket has 1 to %zu characters",
                       sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return cannot_listen(path, errno, err);
    ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (ret && errno == EADDRINUSE && left_over(&address) && !unlink(path))
        ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
    if (ret || listen(fd, 1)) {
        ret = cannot_listen(path, errno, err);
        close(fd);
        return ret;
    }
    memcpy(gdb->path, address.sun_path, sizeof(gdb->path));
    snprintf(gdb->address, sizeof(gdb->address), "%s", path);
    gdb->listener.fd = fd;
    return 0;
}

static void describe_address(struct gdb *gdb, int fd)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    char host[128], port[16];

    if (getsockname(fd, (struct sockaddr *)&bound, &len) ||
        getnameinfo((struct sockaddr *)&bound, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    snprintf(gdb->address, sizeof(gdb->address), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
             port);
}

static int listen_tcp(struct gdb *gdb, const char *text, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    const char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
    char host[128] = "127.0.0.1", *end;
    size_t len = colon ? (size_t)(colon - text) : 0;
    int fd, one = 1, ret;

    if (*port < '0' || *port > '9' || strtoul(port, &end, 10) > 65535 || *end ||
        len >= sizeof(host))
        return bad_address(text, err);
    if (len && text[0] == '[' && text[len - 1] == ']')
        snprintf(host, sizeof(host), "%.*s", (int)len - 2, text + 1);
    else if (len)
        snprintf(host, sizeof(host), "%.*s", (int)len, text);
    ret = getaddrinfo(host, port, &hints, &found);
    if (ret)
        return err_set(err, -EINVAL, "--gdb: no address \"%s\": %s", host, gai_strerror(ret));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 1)) {
        ret = cannot_listen(text, errno, err);
        if (fd >= 0)
            close(fd);
    }
    freeaddrinfo(found);
    if (ret)
        return ret;
    describe_address(gdb, fd);
    gdb->listener.fd = fd;
    return 0;
}

static int listen_at(struct gdb *gdb, const char *text, struct err *err)
{
    if (!strncmp(text, "unix:", 5))
        return listen_unix(gdb, text + 5, err);
    if (!strncmp(text, "tcp:", 4))
        return listen_tcp(gdb, text + 4, err);
    return strchr(text, ':') ? bad_address(text, err) : listen_tcp(gdb, text, err);
}

int gdb_open(struct machine *machine, const char *text, bool wait, struct err *err)
{
    struct gdb *gdb = calloc(1, sizeof(*gdb));
    int flags, ret;

    if (!gdb)
        return err_set(err, -ENOMEM, "out of memory for the GDB server");
    gdb->machine = machine;
    gdb->client.fd = gdb->listener.fd = -1;
    mutex_init(&gdb->lock);
    cond_init(&gdb->cond);
    machine->gdb = gdb; /* from here on gdb_close cleans up */
    gdb_describe_target(&gdb->description);
    if (machine->ops->check_extension) {
        flags = machine->ops->check_extension(machine->config.engine, KVM_CAP_SET_GUEST_DEBUG2);
        gdb->debug_flags = flags > 0 ? (u32)flags : 0;
    }
    ret = listen_at(gdb, text, err);
    if (ret)
        return ret;
    gdb->listener.events = EPOLLIN;
    gdb->listener.ready = listener_ready;
    gdb->listener.opaque = gdb;
    ret = loop_add(&machine->loop, &gdb->listener);
    if (ret)
        return err_set(err, ret, "--gdb: cannot wait for a debugger: %s", strerror(-ret));
    for (unsigned i = 0; i < gdb_cpus(gdb); i++)
        gdb_vcpu(gdb, i)->debug.held = wait;
    return 0;
}

void gdb_close(struct machine *machine)
{
    struct gdb *gdb = machine->gdb;

    gdb->state = GDB_DETACHED;
    disconnect(gdb);
    if (gdb->listener.fd >= 0) {
        loop_remove(&machine->loop, &gdb->listener);
        close(gdb->listener.fd);
    }
    if (gdb->path[0])
        unlink(gdb->path);
    strbuf_free(&gdb->output);
    strbuf_free(&gdb->reply);
    strbuf_free(&gdb->last);
    strbuf_free(&gdb->description);
    pthread_cond_destroy(&gdb->cond);
    pthread_mutex_destroy(&gdb->lock);
    free(gdb);
    machine->gdb = NULL;
}

const char *machine_gdb_address(const struct machine *machine)
{
    return machine->gdb ? machine->gdb->address : NULL;
}
