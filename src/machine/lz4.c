/*
 * LZ4's legacy frame and block formats (lz4, doc/lz4_Frame_format.md and lz4_Block_format.md), as
 * Linux's build makes them: a magic number, then blocks of at most 8 MiB, each after its packed
 * size. Blocks do not refer to each other.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "machine/boot.h"

#define MAGIC_BYTES 4
#define BLOCK_MAX (8 * MiB)
#define MIN_MATCH 4
#define MAX_BLOCKS 128 /* 1 GiB */
#define MAX_HELPERS 3

/* A length of 15 goes on in bytes until one is not 255. -1 when the input ends first. */
static s64 read_length(const u8 **in, const u8 *end, unsigned nibble)
{
    s64 length = nibble;
    u8 byte;

    if (nibble < 15)
        return length;
    do {
        if (*in >= end)
            return -1;
        byte = *(*in)++;
        length += byte;
    } while (byte == 255);
    return length;
}

/*
 * Bytes repeat themselves when the distance is shorter than the length. @slack is the room behind
 * the match: where it allows, whole words are copied and the last one runs over the end.
 */
static void copy_match(u8 *out, size_t distance, size_t length, size_t slack)
{
    const u8 *from = out - distance;

    if (distance >= 16 && slack >= 16) {
        for (size_t i = 0; i < length; i += 16)
            memcpy(out + i, from + i, 16);
        return;
    }
    while (length > distance) {
        memcpy(out, from, distance);
        out += distance;
        length -= distance;
        distance *= 2; /* what was just copied continues the pattern */
    }
    memcpy(out, from, length);
}

static s64 unpack_block(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    const u8 *in_end = in + in_size;
    u8 *at = out, *out_end = out + out_size;

    while (in < in_end) {
        u8 token = *in++;
        s64 length = read_length(&in, in_end, token >> 4);
        size_t distance;

        if (length < 0 || length > in_end - in || length > out_end - at)
            return -EINVAL;
        if (length <= 16 && in_end - in >= 16 && out_end - at >= 16)
            memcpy(at, in, 16);
        else
            memcpy(at, in, (size_t)length);
        at += length;
        in += length;
        if (in == in_end)
            return at - out; /* the last sequence has literals only */
        if (in_end - in < 2)
            return -EINVAL;
        distance = in[0] | (size_t)in[1] << 8;
        in += 2;
        length = read_length(&in, in_end, token & 15);
        if (length < 0 || !distance || (s64)distance > at - out ||
            length + MIN_MATCH > out_end - at)
            return -EINVAL;
        copy_match(at, distance, (size_t)length + MIN_MATCH,
                   (size_t)(out_end - at - length - MIN_MATCH));
        at += length + MIN_MATCH;
    }
    return -EINVAL;
}

/* All blocks but the last unpack to BLOCK_MAX bytes, so each one's place is known beforehand. */
struct block {
    const u8 *in;
    u32 packed;
    s64 got;
};

struct job {
    struct block blocks[MAX_BLOCKS];
    unsigned count, next; /* next: to be unpacked; atomic */
    u8 *out;
    size_t out_size;
};

static void *work(void *opaque)
{
    struct job *job = opaque;

    for (;;) {
        unsigned i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        size_t room;

        if (i >= job->count)
            return NULL;
        room = job->out_size - i * BLOCK_MAX;
        job->blocks[i].got =
            unpack_block(job->blocks[i].in, job->blocks[i].packed, job->out + i * BLOCK_MAX,
                         room < BLOCK_MAX ? room : BLOCK_MAX);
    }
}

static int find_blocks(struct job *job, const u8 *in, size_t in_size)
{
    size_t at = MAGIC_BYTES;

    if (in_size < at)
        return -EINVAL;
    while (in_size - at >= 4) {
        struct block *block = &job->blocks[job->count];

        if (job->count == MAX_BLOCKS || job->count * BLOCK_MAX >= job->out_size)
            return -EINVAL;
        memcpy(&block->packed, in + at, 4);
        at += 4;
        if (block->packed > in_size - at)
            return -EINVAL;
        block->in = in + at;
        at += block->packed;
        job->count++;
    }
    return at == in_size && job->count ? 0 : -EINVAL;
}

s64 boot_unpack_lz4(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    struct job job = {.out = out, .out_size = out_size};
    pthread_t helpers[MAX_HELPERS];
    unsigned started = 0;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    s64 done = 0;
    int ret = find_blocks(&job, in, in_size);

    if (ret)
        return ret;
    /* Helpers are only for speed: whether they start does not matter. */
    while (started < MAX_HELPERS && started + 1 < job.count && started + 1 < cpus &&
           !thread_create(&helpers[started], "triode-unpack", work, &job, NULL))
        started++;
    work(&job);
    while (started)
        pthread_join(helpers[--started], NULL);
    for (unsigned i = 0; i < job.count; i++) {
        if (job.blocks[i].got < 0 || (i + 1 < job.count && job.blocks[i].got != (s64)BLOCK_MAX))
            return -EINVAL;
        done += job.blocks[i].got;
    }
    return done;
}
