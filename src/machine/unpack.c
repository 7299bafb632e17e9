/* Payload formats of bzImages. LZ4 is ours; the others come with libraries this build may lack. */
#include <errno.h>
#include <string.h>

#include "machine/boot.h"

#ifdef TRIODE_HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef TRIODE_HAVE_LZMA
#include <lzma.h>
#endif
#ifdef TRIODE_HAVE_ZSTD
#include <zstd.h>
#endif

#ifdef TRIODE_HAVE_ZLIB
static s64 unpack_gzip(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    z_stream z = {
        .next_in = (u8 *)in, .avail_in = (u32)in_size, .next_out = out, .avail_out = (u32)out_size};
    int ret;

    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) /* 16: a gzip header */
        return -ENOMEM;
    ret = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return ret == Z_STREAM_END ? (s64)(out_size - z.avail_out) : -EINVAL;
}
#else
#define unpack_gzip NULL
#endif

#ifdef TRIODE_HAVE_LZMA
static s64 unpack_xz(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    u64 memory_limit = 512 * MiB;
    size_t in_at = 0, out_at = 0;
    lzma_ret ret = lzma_stream_buffer_decode(&memory_limit, 0, NULL, in, &in_at, in_size, out,
                                             &out_at, out_size);

    return ret == LZMA_OK ? (s64)out_at : -EINVAL;
}
#else
#define unpack_xz NULL
#endif

#ifdef TRIODE_HAVE_ZSTD
static s64 unpack_zstd(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    size_t done = ZSTD_decompress(out, out_size, in, in_size);

    return ZSTD_isError(done) ? -EINVAL : (s64)done;
}
#else
#define unpack_zstd NULL
#endif

static const struct format {
    const char *name;
    u8 magic[6];
    u8 magic_len;
    s64 (*unpack)(const u8 *in, size_t in_size, u8 *out, size_t out_size);
} formats[] = {
    {"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, boot_unpack_lz4},
    {"gzip", {0x1f, 0x8b}, 2, unpack_gzip},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, unpack_xz},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
    {"bzip2", {'B', 'Z', 'h'}, 3, NULL},
    {"lzma", {0x5d, 0, 0}, 3, NULL},
    {"lzo", {0x89, 'L', 'Z', 'O'}, 4, NULL},
};

static const struct format *find(const u8 *in, size_t in_size)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (in_size >= formats[i].magic_len && !memcmp(in, formats[i].magic, formats[i].magic_len))
            return &formats[i];
    return NULL;
}

const char *boot_unpack_format(const u8 *in, size_t in_size)
{
    const struct format *format = find(in, in_size);

    return format ? format->name : NULL;
}

bool boot_unpack_supported(const char *format)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (!strcmp(formats[i].name, format))
            return formats[i].unpack != NULL;
    return false;
}

s64 boot_unpack(const u8 *in, size_t in_size, u8 *out, size_t out_size)
{
    const struct format *format = find(in, in_size);

    if (!format || !format->unpack)
        return -EOPNOTSUPP;
    return format->unpack(in, in_size, out, out_size);
}
