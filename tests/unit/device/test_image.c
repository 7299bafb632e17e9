/* Disk images on a host that fails: each system call's errors, short counts and their order. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../unit.h"

#include "device/image.h"

static char path[] = "/tmp/triode-image-XXXXXX";

/* The next calls fail with these, in turn; 0 ends the list. */
static struct {
    int errors[4];
    size_t at_most; /* bytes a transfer may take at once, 0 for all */
    unsigned transfers, syncs, allocations;
} host;

static bool fails(void)
{
    int error = host.errors[0];

    memmove(host.errors, host.errors + 1, sizeof(host.errors) - sizeof(host.errors[0]));
    errno = error;
    return error;
}

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __real_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len);

static struct iovec first_of(const struct iovec *iov)
{
    struct iovec one = *iov;

    if (host.at_most && one.iov_len > host.at_most)
        one.iov_len = host.at_most;
    return one;
}

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec one = first_of(iov);

    host.transfers++;
    if (fails())
        return -1;
    return host.at_most ? __real_pwritev64(fd, &one, 1, offset)
                        : __real_pwritev64(fd, iov, count, offset);
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int count, off_t offset)
{
    struct iovec one = first_of(iov);

    host.transfers++;
    if (fails())
        return -1;
    return host.at_most ? __real_preadv64(fd, &one, 1, offset)
                        : __real_preadv64(fd, iov, count, offset);
}

int __wrap_fdatasync(int fd)
{
    host.syncs++;
    return fails() ? -1 : __real_fdatasync(fd);
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t len)
{
    (void)fd;
    (void)mode;
    (void)offset;
    (void)len;
    host.allocations++;
    return fails() ? -1 : 0;
}

static struct disk_image open_image(off_t size, bool read_only)
{
    struct disk_image image;
    struct err err;

    memset(&host, 0, sizeof(host));
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(truncate(path, size), 0);
    if (image_open(&image, path, read_only, &err))
        fail_msg("%s", err.text);
    return image;
}

/* Moves @len bytes of pattern @seed in three pieces. */
static int move(struct disk_image *image, bool write, u8 *buf, size_t len, u64 offset)
{
    struct iovec iov[3] = {{buf, 100}, {buf + 100, 0}, {buf + 100, len - 100}};

    return image_transfer(image, write, iov, 3, offset);
}

static void short_counts_are_gone_on_with(void **state)
{
    struct disk_image image = open_image(16384, false);
    u8 out[4096], back[4096];

    (void)state;
    for (unsigned i = 0; i < sizeof(out); i++)
        out[i] = (u8)(i * 7 + i / 256);
    host.at_most = 333;
    host.errors[0] = EINTR;
    assert_int_equal(move(&image, true, out, sizeof(out), 1024), 0);
    assert_true(host.transfers > 12);
    host.errors[0] = EINTR;
    assert_int_equal(move(&image, false, back, sizeof(back), 1024), 0);
    assert_memory_equal(out, back, sizeof(out));
    image_close(&image);
}

static void errors_come_through(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT, EFBIG, EROFS};
    u8 buf[1024] = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        struct disk_image image = open_image(16384, false);

        host.errors[0] = errors[i];
        assert_int_equal(move(&image, true, buf, sizeof(buf), 0), -errors[i]);
        host.errors[0] = errors[i];
        assert_int_equal(move(&image, false, buf, sizeof(buf), 0), -errors[i]);
        host.errors[0] = errors[i];
        assert_int_equal(image_zero(&image, 0, 8192, true), -errors[i]);
        assert_int_equal(move(&image, true, buf, sizeof(buf), 0), 0); /* and it goes on */
        image_close(&image);
    }
}

static void shorter_than_it_was(void **state)
{
    struct disk_image image = open_image(16384, false);
    u8 buf[1024];

    (void)state;
    assert_int_equal(truncate(path, 512), 0);
    assert_int_equal(move(&image, false, buf, sizeof(buf), 0), -EIO);
    assert_int_equal(move(&image, false, buf, sizeof(buf), 8192), -EIO);
    image_close(&image);
}

/* The kernel reports a lost write once; who asks again must not hear that all is well. */
static void failed_flush_stays(void **state)
{
    struct disk_image image = open_image(16384, false);

    (void)state;
    assert_int_equal(image_flush(&image), 0);
    host.errors[0] = EINTR;
    assert_int_equal(image_flush(&image), 0);
    assert_int_equal(host.syncs, 3);
    host.errors[0] = EIO;
    assert_int_equal(image_flush(&image), -EIO);
    assert_int_equal(image_flush(&image), -EIO);
    assert_int_equal(host.syncs, 4);
    image_close(&image);
    image = open_image(16384, true);
    assert_int_equal(image_flush(&image), 0); /* nothing was written */
    assert_int_equal(host.syncs, 0);
    image_close(&image);
}

/* File systems that cannot punch holes get zeros written. */
static void zeros_by_hand(void **state)
{
    struct disk_image image = open_image(512 * 1024, false);
    u8 buf[1024];

    (void)state;
    memset(buf, 0xaa, sizeof(buf));
    assert_int_equal(move(&image, true, buf, sizeof(buf), 0), 0);
    assert_int_equal(move(&image, true, buf, sizeof(buf), 300 * 1024), 0);
    host.errors[0] = EOPNOTSUPP;
    assert_int_equal(image_zero(&image, 512, 300 * 1024, false), 0);
    assert_int_equal(host.allocations, 1);
    assert_int_equal(move(&image, false, buf, sizeof(buf), 0), 0);
    assert_int_equal(buf[511], 0xaa);
    assert_int_equal(buf[512], 0);
    assert_int_equal(move(&image, false, buf, sizeof(buf), 300 * 1024), 0);
    assert_int_equal(buf[511], 0);
    assert_int_equal(buf[512], 0xaa);
    image_close(&image);
}

static void odd_sizes(void **state)
{
    static const struct {
        off_t bytes;
        u64 size;
    } cases[] = {{512, 512}, {1023, 512}, {1024, 1024}, {1000001, 999936}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct disk_image image = open_image(cases[i].bytes, true);

        assert_int_equal(image.size, cases[i].size);
        image_close(&image);
    }
}

static int set_up(void **state)
{
    (void)state;
    return close(mkstemp(path));
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_counts_are_gone_on_with),
        cmocka_unit_test(errors_come_through),
        cmocka_unit_test(shorter_than_it_was),
        cmocka_unit_test(failed_flush_stays),
        cmocka_unit_test(zeros_by_hand),
        cmocka_unit_test(odd_sizes),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
