/* Payload formats: what the formats' own tools pack, we unpack; damaged data is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit.h"

#include "machine/boot.h"

#define PLAIN_BYTES (s64)(20 * MiB) /* more than two of LZ4's blocks */

static u8 *plain, *packed, *out;
static char plain_path[] = "/tmp/triode-test-XXXXXX";

/* Text-like data with short and long matches, runs, and noise that does not compress. */
static void make_plain(void)
{
    u64 random = 88172645463325252ull;
    size_t at = 0;

    while (at < PLAIN_BYTES) {
        size_t len, from;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        len = random >> 8 & 0x3ff;
        if (!(random >> 20 & 15))
            len *= 64;
        if (len > PLAIN_BYTES - at)
            len = PLAIN_BYTES - at;
        from = at ? (random >> 24) % (at < 70000 ? at : 70000) + 1 : 0;
        for (size_t i = 0; i < len; i++, at++)
            plain[at] = random & 1 && from ? plain[at - from]
                        : random & 2       ? (u8)(random >> 32)
                                           : (u8)((random * (i + 1)) >> 40);
    }
}

/* Packs the plain file with a command; 0 when the tool is not here. */
static size_t pack(const char *tool, const char *arguments)
{
    char command[256];
    size_t len;
    FILE *pipe;

    snprintf(command, sizeof(command), "command -v %s >/dev/null", tool);
    if (system(command))
        return 0;
    snprintf(command, sizeof(command), "%s %s <%s 2>/dev/null", tool, arguments, plain_path);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    len = fread(packed, 1, 2 * PLAIN_BYTES, pipe);
    assert_int_equal(pclose(pipe), 0);
    return len;
}

static void check(const char *tool, const char *arguments, const char *format)
{
    size_t len = pack(tool, arguments);
    s64 done;

    if (!len)
        skip();
    assert_string_equal(boot_unpack_format(packed, len), format);
    done = boot_unpack(packed, len, out, PLAIN_BYTES);
    if (done == -EOPNOTSUPP)
        skip();
    assert_int_equal(done, PLAIN_BYTES);
    assert_memory_equal(out, plain, PLAIN_BYTES);

    /* Cut short, and into too little room. */
    for (size_t cut = len - 1; cut > len / 2; cut -= len / 7)
        assert_true(boot_unpack(packed, cut, out, PLAIN_BYTES) < PLAIN_BYTES);
    assert_true(boot_unpack(packed, len, out, PLAIN_BYTES - 1) < PLAIN_BYTES);
    assert_true(boot_unpack(packed, len, out, 10) <= 10);
}

static void lz4(void **state)
{
    (void)state;
    check("lz4", "-l -9 -c", "lz4");
}

static void lz4_fast(void **state)
{
    (void)state;
    check("lz4", "-l -1 -c", "lz4");
}

static void gzip(void **state)
{
    (void)state;
    check("gzip", "-c", "gzip");
}

static void xz(void **state)
{
    (void)state;
    check("xz", "-0 -c --check=crc32", "xz");
}

static void zstd(void **state)
{
    (void)state;
    check("zstd", "-q -c", "zstd");
}

/* Made by lz4 -l of "abcabcabcabcabcabcabcabcabcabc\n", so that one case needs no tool. */
static void lz4_without_tools(void **state)
{
    static const u8 data[] = {0x02, 0x21, 0x4c, 0x18, 0x0d, 0,   0,   0,   0x3f, 'a', 'b',
                              'c',  3,    0,    0x03, 0x50, 'b', 'c', 'a', 'b',  'c'};
    u8 text[64];

    (void)state;
    assert_int_equal(boot_unpack(data, sizeof(data), text, sizeof(text)), 3 + 22 + 5);
    assert_memory_equal(text, "abcabcabcabcabcabcabcabcabcabc", 30);
}

static void unknown_formats(void **state)
{
    (void)state;
    assert_null(boot_unpack_format((const u8 *)"hello, world", 12));
    assert_int_equal(boot_unpack((const u8 *)"hello, world", 12, out, 100), -EOPNOTSUPP);
    assert_int_equal(boot_unpack((const u8 *)"BZh91AY", 7, out, 100), -EOPNOTSUPP);
    assert_int_equal(boot_unpack((const u8 *)"\x02", 1, out, 100), -EOPNOTSUPP);
}

/* Bytes changed at random: any answer will do, but nothing may be read or written outside (the
 * sanitizers' build watches). */
static void damaged_lz4_stays_inside(void **state)
{
    u8 data[400], small[1000];
    u64 random = 12345;

    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        size_t len = 8 + i % (sizeof(data) - 8);
        u32 block = (u32)len - 8;

        for (size_t j = 0; j < len; j++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            data[j] = (u8)(random >> 56);
            if (i & 1)
                data[j] &= 0x3f; /* shorter literals, so that matches happen */
        }
        memcpy(data, "\x02\x21\x4c\x18", 4);
        memcpy(data + 4, &block, 4);
        assert_true(boot_unpack_lz4(data, len, small, sizeof(small)) <= (s64)sizeof(small));
    }
}

static int set_up(void **state)
{
    int fd = mkstemp(plain_path);

    (void)state;
    plain = malloc(PLAIN_BYTES);
    packed = malloc(2 * PLAIN_BYTES);
    out = malloc(PLAIN_BYTES);
    if (fd < 0 || !plain || !packed || !out)
        return -1;
    make_plain();
    if (write(fd, plain, PLAIN_BYTES) != (ssize_t)PLAIN_BYTES)
        return -1;
    return close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    free(plain);
    free(packed);
    free(out);
    return unlink(plain_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lz4),
        cmocka_unit_test(lz4_fast),
        cmocka_unit_test(gzip),
        cmocka_unit_test(xz),
        cmocka_unit_test(zstd),
        cmocka_unit_test(lz4_without_tools),
        cmocka_unit_test(unknown_formats),
        cmocka_unit_test(damaged_lz4_stays_inside),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
