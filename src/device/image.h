/* Disk images: raw files and block devices. The machine opens them, a disk uses them. */
#ifndef TRIODE_DEVICE_IMAGE_H
#define TRIODE_DEVICE_IMAGE_H

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"

#define IMAGE_SECTOR 512

struct disk_image {
    int fd;
    bool read_only;
    u64 size; /* bytes, a multiple of IMAGE_SECTOR, as it was when opened */
    int lost; /* the error of a flush that failed, 0 for none */
};

/* Opens and locks @path: one writer or many readers (an open-file-description lock, fcntl(2)).
 * -ENOENT, -EISDIR, -EACCES, -EBUSY, -EINVAL (no whole sector), ... with a sentence. */
int image_open(struct disk_image *image, const char *path, bool read_only, struct err *err);
void image_close(struct disk_image *image);

/* Transfers all of @iov, at most IOV_MAX entries, which it uses up. -EIO when the image has become
 * shorter, else what the host says. Blocks. */
int image_transfer(const struct disk_image *image, bool write, struct iovec *iov, unsigned count,
                   u64 offset);
/* What was written is on the disk when this answers 0. Once it has failed it fails for ever: the
 * host kernel forgets what it could not write, and would say that all is well the next time. */
int image_flush(struct disk_image *image);
/* Makes a range read as zeros; with @discard the host may also give up its storage. */
int image_zero(const struct disk_image *image, u64 offset, u64 len, bool discard);

#endif
