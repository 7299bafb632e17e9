#include "device/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static int measure(struct disk_image *image, const char *path, struct err *err)
{
    struct stat st;

    if (fstat(image->fd, &st))
        return err_set(err, -errno, "cannot look at the disk %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "the disk %s is a directory", path);
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(image->fd, BLKGETSIZE64, &image->size))
            return err_set(err, -errno, "cannot find the size of the disk %s: %s", path,
                           strerror(errno));
    } else if (S_ISREG(st.st_mode)) {
        image->size = (u64)st.st_size;
    } else {
        return err_set(err, -EINVAL, "the disk %s is neither a plain file nor a block device",
                       path);
    }
    if (!image->size)
        return err_set(err, -EINVAL, "the disk %s is empty", path);
    image->size -= image->size % IMAGE_SECTOR;
    if (!image->size)
        return err_set(err, -EINVAL, "the disk %s is smaller than a sector of 512 bytes", path);
    return 0;
}

static int lock(struct disk_image *image, const char *path, struct err *err)
{
    struct flock whole = {.l_type = image->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (!fcntl(image->fd, F_OFD_SETLK, &whole))
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return err_set(err, -EBUSY,
                       "the disk %s is in use already, by another machine or another --disk%s",
                       path, image->read_only ? ", which writes to it" : "");
    return errno == ENOLCK || errno == EINVAL
               ? 0
               : err_set(err, -errno, "cannot lock the disk %s: %s", path, strerror(errno));
}

int image_open(struct disk_image *image, const char *path, bool read_only, struct err *err)
{
    int ret;

    *image = (struct disk_image){.read_only = read_only};
    image->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
    if (image->fd < 0) {
        ret = -errno;
        if (ret == -EISDIR)
            return err_set(err, ret, "the disk %s is a directory", path);
        return err_set(err, ret, "cannot open the disk %s%s: %s%s", path,
                       read_only ? "" : " for writing", strerror(-ret),
                       !read_only && (ret == -EACCES || ret == -EROFS) ? " (\",ro\" only reads it)"
                                                                       : "");
    }
    ret = measure(image, path, err);
    if (!ret)
        ret = lock(image, path, err);
    if (ret) {
        close(image->fd);
        image->fd = -1;
    }
    return ret;
}

void image_close(struct disk_image *image)
{
    if (image->fd >= 0)
        close(image->fd);
    image->fd = -1;
}

int image_transfer(const struct disk_image *image, bool write, struct iovec *iov, unsigned count,
                   u64 offset)
{
    while (count) {
        ssize_t len;
        int some;

        if (!iov->iov_len) {
            iov++;
            count--;
            continue;
        }
        some = count < IOV_MAX ? (int)count : IOV_MAX;
        len = write ? pwritev(image->fd, iov, some, (off_t)offset)
                    : preadv(image->fd, iov, some, (off_t)offset);
        if (len < 0 && errno == EINTR)
            continue;
        if (len <= 0)
            return len ? -errno : -EIO;
        offset += (u64)len;
        while (len && count) {
            size_t done = (size_t)len < iov->iov_len ? (size_t)len : iov->iov_len;

            iov->iov_base = (u8 *)iov->iov_base + done;
            iov->iov_len -= done;
            len -= (ssize_t)done;
            if (!iov->iov_len) {
                iov++;
                count--;
            }
        }
    }
    return 0;
}

int image_flush(struct disk_image *image)
{
    if (image->read_only)
        return 0;
    while (!image->lost && fdatasync(image->fd)) {
        if (errno == EINTR)
            continue;
        image->lost = -errno;
        log_warn("a disk cannot be flushed, and will not be trusted any more: %s", strerror(errno));
    }
    return image->lost;
}

int image_zero(const struct disk_image *image, u64 offset, u64 len, bool discard)
{
    static const u8 zeros[64 * 1024];
    int mode = FALLOC_FL_KEEP_SIZE | (discard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);

    if (!len || !fallocate(image->fd, mode, (off_t)offset, (off_t)len))
        return 0;
    if (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)
        return -errno;
    while (len) {
        size_t some = len < sizeof(zeros) ? len : sizeof(zeros);
        struct iovec iov = {(void *)zeros, some};
        int ret = image_transfer(image, true, &iov, 1, offset);

        if (ret)
            return ret;
        offset += some;
        len -= some;
    }
    return 0;
}
