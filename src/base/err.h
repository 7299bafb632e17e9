/*
 * One sentence for the person at the terminal. Functions answer 0 or a negative errno; those that
 * can fail for a reason a user can mend also take a struct err and leave the sentence there. The
 * CLI prints it, nobody else does.
 */
#ifndef TRIODE_BASE_ERR_H
#define TRIODE_BASE_ERR_H

#include "base/types.h"

struct err {
    char text[512];
};

/* Writes the sentence into @err (which may be NULL) and answers @code, so that
 * `return err_set(err, -EINVAL, ...)` is one line. A later err_set replaces an earlier one. */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Puts "context: " in front of what @err says; answers @code. */
int err_context(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

#endif
