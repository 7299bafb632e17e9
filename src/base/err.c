#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return code;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return code;
}

int err_context(struct err *err, int code, const char *fmt, ...)
{
    char old[sizeof(err->text)];
    va_list ap;
    int len;

    if (!err)
        return code;
    memcpy(old, err->text, sizeof(old));
    va_start(ap, fmt);
    len = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (len >= 0 && (size_t)len + 3 < sizeof(err->text)) {
        size_t room = sizeof(err->text) - (size_t)len - 3;

        snprintf(err->text + len, room + 3, ": %.*s", (int)room, old);
    }
    return code;
}
