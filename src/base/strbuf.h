/* A growing text buffer. Out of memory is sticky: the text stays what it was and failed is set. */
#ifndef TRIODE_BASE_STRBUF_H
#define TRIODE_BASE_STRBUF_H

#include "base/types.h"

struct strbuf {
    char *text; /* always NUL-terminated once anything was added; NULL before */
    size_t len, cap;
    bool failed;
};

void strbuf_printf(struct strbuf *sb, const char *fmt, ...) PRINTF_LIKE(2, 3);
void strbuf_append(struct strbuf *sb, const char *data, size_t len);
void strbuf_free(struct strbuf *sb);

#endif
