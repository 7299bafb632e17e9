#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_bool terminal_raw;

void log_terminal_raw(bool raw)
{
    atomic_store_explicit(&terminal_raw, raw, memory_order_relaxed);
}

bool log_terminal_is_raw(void)
{
    return atomic_load_explicit(&terminal_raw, memory_order_relaxed);
}

static void put_line(const char *prefix, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

static void put_line(const char *prefix, const char *fmt, va_list ap)
{
    char line[2048];
    const size_t room = sizeof(line) - 2; /* "\r\n" */
    int saved_errno = errno, head, body;
    size_t len;

    head = snprintf(line, room, "triode: %s", prefix);
    body = vsnprintf(line + head, room - head, fmt, ap);
    len = body < 0 ? (size_t)head : (size_t)head + body;
    if (len > room - 1)
        len = room - 1; /* vsnprintf cut it there */
    if (log_terminal_is_raw())
        line[len++] = '\r';
    line[len++] = '\n';
    if (write(STDERR_FILENO, line, len) < 0) {
        /* Nobody is left to be told. */
    }
    errno = saved_errno;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    static const char *const prefixes[] = {
        [LOG_ERROR] = "", [LOG_WARN] = "warning: ", [LOG_INFO] = ""};
    va_list ap;

    va_start(ap, fmt);
    put_line(prefixes[level], fmt, ap);
    va_end(ap);
}

void bug(const char *file, int line, const char *fmt, ...)
{
    char prefix[256];
    va_list ap;

    snprintf(prefix, sizeof(prefix), "internal error at %s:%d: ", file, line);
    va_start(ap, fmt);
    put_line(prefix, fmt, ap);
    va_end(ap);
    abort();
}
