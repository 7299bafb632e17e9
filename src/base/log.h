/* Messages for the person who runs Triode. All go to standard error, one line each. */
#ifndef TRIODE_BASE_LOG_H
#define TRIODE_BASE_LOG_H

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO };

/* "triode: " + message + newline, written with one write(2) so that threads do not mix lines.
 * While the terminal is raw a carriage return is put before the newline. */
void log_msg(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Whether the terminal is in raw mode now, where a bare newline does not return the carriage. */
void log_terminal_raw(bool raw);
bool log_terminal_is_raw(void);

#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)

/* An invariant of Triode itself is broken: says where and aborts. Never for guest behaviour. */
void bug(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4) NORETURN;
#define BUG(...) bug(__FILE__, __LINE__, __VA_ARGS__)
#define BUG_ON(cond)                                                                               \
    do {                                                                                           \
        if (unlikely(cond))                                                                        \
            BUG("%s", #cond);                                                                      \
    } while (0)

#endif
