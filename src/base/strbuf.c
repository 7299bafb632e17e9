#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for @len more characters and the NUL. */
static bool reserve(struct strbuf *sb, size_t len)
{
    size_t cap = sb->cap ? sb->cap : 64;
    char *text;

    if (sb->failed)
        return false;
    if (len >= SIZE_MAX / 2 - sb->len) {
        sb->failed = true;
        return false;
    }
    while (cap < sb->len + len + 1)
        cap *= 2;
    if (cap == sb->cap)
        return true;
    text = realloc(sb->text, cap);
    if (!text) {
        sb->failed = true;
        return false;
    }
    sb->text = text;
    sb->cap = cap;
    return true;
}

void strbuf_printf(struct strbuf *sb, const char *fmt, ...)
{
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (len < 0 || !reserve(sb, len))
        return;
    va_start(ap, fmt);
    vsnprintf(sb->text + sb->len, len + 1, fmt, ap);
    va_end(ap);
    sb->len += len;
}

void strbuf_append(struct strbuf *sb, const char *data, size_t len)
{
    if (!reserve(sb, len))
        return;
    if (len)
        memcpy(sb->text + sb->len, data, len);
    sb->len += len;
    sb->text[sb->len] = '\0';
}

void strbuf_free(struct strbuf *sb)
{
    free(sb->text);
    *sb = (struct strbuf){0};
}
