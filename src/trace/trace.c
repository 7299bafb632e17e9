#include "trace/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "base/thread.h"

#define MAX_ARGS 8
#define BUFFER_BYTES (256 * KiB)

enum arg_kind { KIND_none, KIND_str, KIND_hex, KIND_dec };

/* An argument struct is read as an array of these: every kind is 8 bytes wide. */
union arg {
    trace_str str;
    u64 number;
};

struct event_info {
    const char *name, *help;
    struct {
        const char *name;
        enum arg_kind kind;
    } args[MAX_ARGS];
};

#define A(kind, name) {#name, KIND_##kind},
#define X(constant, name, help, args) [TRACE_##constant] = {#name, help, {args}},
static const struct event_info events[TRACE_EVENTS] = {
#include "trace/events.def"
};
#undef X
#undef A

#define X(constant, name, help, args)                                                              \
    _Static_assert(sizeof(struct trace_##name##_args) <= MAX_ARGS * sizeof(union arg),             \
                   "too many arguments: " #name);
#include "trace/events.def"
#undef X
_Static_assert(TRACE_EVENTS <= 64, "trace_mask has one bit an event");

u64 trace_mask;

/* Where lines go while trace_mask is not 0. */
static struct {
    pthread_mutex_t lock;
    struct strbuf buffer; /* lines not written yet; standard error gets each at once */
    u64 start_ns;
    int fd;
    bool json, failed;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

const char *trace_name(unsigned index)
{
    return index < TRACE_EVENTS ? events[index].name : NULL;
}

const char *trace_help(unsigned index)
{
    return index < TRACE_EVENTS ? events[index].help : NULL;
}

/* --- one line ------------------------------------------------------------------------------- */

/* @text as a JSON string (RFC 8259, 7). Bytes above 0x7f pass: texts here are UTF-8. */
static void json_string(struct strbuf *sb, const char *text)
{
    strbuf_append(sb, "\"", 1);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            strbuf_printf(sb, "\\%c", *text);
        else if ((u8)*text < 0x20)
            strbuf_printf(sb, "\\u%04x", (u8)*text);
        else
            strbuf_append(sb, text, 1);
    }
    strbuf_append(sb, "\"", 1);
}

static void text_line(struct strbuf *sb, const struct event_info *event, int cpu, u64 ns,
                      const union arg *args)
{
    strbuf_printf(sb, "%5" PRIu64 ".%06" PRIu64 " ", ns / NSEC_PER_SEC, ns % NSEC_PER_SEC / 1000);
    if (cpu >= 0)
        strbuf_printf(sb, "cpu%d ", cpu);
    strbuf_printf(sb, "%s", event->name);
    for (unsigned i = 0; i < MAX_ARGS && event->args[i].kind != KIND_none; i++) {
        const char *name = event->args[i].name;

        if (event->args[i].kind == KIND_hex)
            strbuf_printf(sb, " %s=%#" PRIx64, name, args[i].number);
        else if (event->args[i].kind == KIND_dec)
            strbuf_printf(sb, " %s=%" PRIu64, name, args[i].number);
        else if (args[i].str)
            strbuf_printf(sb, " %s=%s", name, args[i].str);
    }
}

static void json_line(struct strbuf *sb, const struct event_info *event, int cpu, u64 ns,
                      const union arg *args)
{
    strbuf_printf(sb, "{\"ns\":%" PRIu64 ",", ns);
    if (cpu >= 0)
        strbuf_printf(sb, "\"cpu\":%d,", cpu);
    strbuf_printf(sb, "\"event\":\"%s\"", event->name);
    for (unsigned i = 0; i < MAX_ARGS && event->args[i].kind != KIND_none; i++) {
        const char *name = event->args[i].name;

        /* Hexadecimal as strings: a JSON number keeps only 53 bits with most readers. */
        if (event->args[i].kind == KIND_hex) {
            strbuf_printf(sb, ",\"%s\":\"%#" PRIx64 "\"", name, args[i].number);
        } else if (event->args[i].kind == KIND_dec) {
            strbuf_printf(sb, ",\"%s\":%" PRIu64, name, args[i].number);
        } else if (args[i].str) {
            strbuf_printf(sb, ",\"%s\":", name);
            json_string(sb, args[i].str);
        }
    }
    strbuf_append(sb, "}", 1);
}

/* Writes the buffer out; with sink.lock held. A full disk is said once, then lines are dropped. */
static void flush(void)
{
    const char *p = sink.buffer.text;
    size_t len = sink.buffer.len;

    while (len && !sink.failed) {
        ssize_t n = write(sink.fd, p, len);

        if (n < 0 && errno != EINTR) {
            sink.failed = true;
            log_warn("the trace ends here: %s", strerror(errno));
        } else if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    sink.buffer.len = 0;
}

void trace_write(enum trace_event event, int cpu, const void *args)
{
    int saved_errno = errno;

    mutex_lock(&sink.lock);
    if (sink.fd >= 0) {
        u64 ns = clock_mono_ns() - sink.start_ns;

        (sink.json ? json_line : text_line)(&sink.buffer, &events[event], cpu, ns, args);
        if (sink.fd == STDERR_FILENO && log_terminal_is_raw())
            strbuf_append(&sink.buffer, "\r", 1);
        strbuf_append(&sink.buffer, "\n", 1);
        if (sink.fd == STDERR_FILENO || sink.buffer.len >= BUFFER_BYTES)
            flush();
    }
    mutex_unlock(&sink.lock);
    errno = saved_errno;
}

/* --- the switch ----------------------------------------------------------------------------- */

static int unknown_event(const char *name, size_t len, struct err *err)
{
    struct strbuf known = {0};

    for (unsigned i = 0; i < TRACE_EVENTS; i++)
        strbuf_printf(&known, "%s, ", events[i].name);
    err_set(err, -EINVAL, "no trace event is called '%.*s'; there are %sand all", (int)len, name,
            known.text ? known.text : "");
    strbuf_free(&known);
    return -EINVAL;
}

/* EVENT[,EVENT...], @len characters of it, as a mask. */
static int parse_events(const char *spec, size_t len, u64 *mask, struct err *err)
{
    const char *end = spec + len;

    *mask = 0;
    for (;;) {
        const char *comma = memchr(spec, ',', (size_t)(end - spec));
        size_t word = (size_t)((comma ? comma : end) - spec);
        u64 bit = 0;

        for (unsigned i = 0; i < TRACE_EVENTS; i++) {
            if (strlen(events[i].name) == word && !memcmp(events[i].name, spec, word))
                bit = 1ull << i;
        }
        if (word == 3 && !memcmp(spec, "all", 3))
            bit = TRACE_EVENTS == 64 ? ~0ull : (1ull << TRACE_EVENTS) - 1;
        if (!bit)
            return unknown_event(spec, word, err);
        *mask |= bit;
        if (!comma)
            return 0;
        spec = comma + 1;
    }
}

static bool ends_in(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len >= end_len && !strcmp(text + len - end_len, end);
}

int trace_open(const char *spec, struct err *err)
{
    const char *colon = strchr(spec, ':');
    int fd = STDERR_FILENO, rc;
    u64 mask;

    rc = parse_events(spec, colon ? (size_t)(colon - spec) : strlen(spec), &mask, err);
    if (rc < 0)
        return rc;
    if (colon) {
        const char *path = colon + 1;

        if (!*path)
            return err_set(err, -EINVAL, "--trace %s names no file after the colon", spec);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) {
            rc = -errno;
            return err_set(err, rc, "cannot write the trace to %s: %s", path, strerror(-rc));
        }
    }
    trace_close();
    mutex_lock(&sink.lock);
    sink.fd = fd;
    sink.json = colon && ends_in(colon, ".jsonl");
    sink.failed = false;
    sink.start_ns = clock_mono_ns();
    mutex_unlock(&sink.lock);
    __atomic_store_n(&trace_mask, mask, __ATOMIC_RELEASE);
    return 0;
}

void trace_close(void)
{
    __atomic_store_n(&trace_mask, 0, __ATOMIC_RELEASE);
    mutex_lock(&sink.lock);
    flush();
    strbuf_free(&sink.buffer);
    if (sink.fd > STDERR_FILENO)
        close(sink.fd);
    sink.fd = -1;
    mutex_unlock(&sink.lock);
}
