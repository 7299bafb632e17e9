/*
 * LZ4's legacy frame and block formats (lz4, doc/lz4_Frame_format.md and lz4_Block_format.md), as
 * Linux's build makes them: a magic number, then blocks of at most 8 MiB, each after its packed
 * size. Blocks do not refer to each other.
 */
#include <errno.h>
#include <string.h>

#include "machine/boot.h"

#define MAGIC_BYTES 4
#define BLOCK_MAX (8 * MiB)
#define MIN_MATCH 4

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

/* Bytes repeat themselves when the distance is shorter than the length. */
static void copy_match(u8 *out, size_t distance, size_t length)
{
    const u8 *from = out - distance;

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
        copy_match(at, distance, (size_t)length + MIN_MATCH);
        at += length + MIN_MATCH;
    }
    return -EINVAL;
}

s64 boot_unpack_lz4(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    size_t at = MAGIC_BYTES, done = 0;

    if (in_size < at)
        return -EINVAL;
    while (in_size - at >= 4) {
        size_t room = out_size - done;
        u32 packed;
        s64 got;

        memcpy(&packed, in + at, 4);
        at += 4;
        if (packed > in_size - at)
            return -EINVAL;
        got = unpack_block(in + at, packed, out + done, room < BLOCK_MAX ? room : BLOCK_MAX);
        if (got < 0)
            return got;
        at += packed;
        done += (size_t)got;
    }
    return at == in_size ? (s64)done : -EINVAL;
}
