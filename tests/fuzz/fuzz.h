/*
 * A fuzz target is one file with LLVMFuzzerTestOneInput; it takes its input apart with the
 * functions here. What must not happen ends the process: a sanitizer's report, a signal, or MUST.
 */
#ifndef TRIODE_TESTS_FUZZ_H
#define TRIODE_TESTS_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);          \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const u8 *at;
    size_t left;
};

/* The next @bytes (up to 8), little-endian; zeros after the end. */
static inline u64 fuzz_take(struct fuzz_input *in, unsigned bytes)
{
    u64 value = 0;
    size_t take = in->left < bytes ? in->left : bytes;

    memcpy(&value, in->at, take);
    in->at += take;
    in->left -= take;
    return value;
}

static inline void fuzz_bytes(struct fuzz_input *in, void *to, size_t bytes)
{
    size_t take = in->left < bytes ? in->left : bytes;

    memset(to, 0, bytes);
    memcpy(to, in->at, take);
    in->at += take;
    in->left -= take;
}

#endif
