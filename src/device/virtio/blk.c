/* virtio-blk: a disk (VIRTIO 1.2, 5.2). One queue; requests run one after the other. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "device/image.h"
#include "device/virtio/virtio.h"

enum {
    F_SIZE_MAX = 1,
    F_SEG_MAX = 2,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14,

    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13,

    S_OK = 0,
    S_IOERR = 1,
    S_UNSUPP = 2,

    QUEUE_SIZE = 256,
    ID_BYTES = 20,
    MAX_RANGES = 16,
    MAX_RANGE_SECTORS = 1 << 22,
    CONFIG_BYTES = 60,
};

struct request {
    u32 type, reserved;
    u64 sector;
};

struct range {
    u64 sector;
    u32 sectors, flags;
};

struct virtio_blk_state {
    struct virtio_state common;
};

struct virtio_blk {
    struct virtio v;
    struct virtio_blk_state state;
    u8 id[ID_BYTES];
    struct virtio_chain chain; /* the request under way */
};

static struct virtio_blk *to_blk(struct virtio *v)
{
    return container_of(v, struct virtio_blk, v);
}

static void put32(u8 *at, u32 value)
{
    memcpy(at, &value, sizeof(value));
}

static void get_config(struct virtio *v, u8 *config)
{
    u64 sectors = v->dev.image->size / IMAGE_SECTOR;

    memcpy(config, &sectors, 8);
    put32(config + 8, VIRTIO_PAGED_BYTES);
    put32(config + 12, QUEUE_SIZE - 2); /* seg_max: beside header and status */
    put32(config + 20, IMAGE_SECTOR);
    config[34] = 1; /* queues */
    put32(config + 36, MAX_RANGE_SECTORS);
    put32(config + 40, MAX_RANGES);
    put32(config + 44, 1); /* discard alignment */
    put32(config + 48, MAX_RANGE_SECTORS);
    put32(config + 52, MAX_RANGES);
    config[56] = 1; /* writing zeros may unmap */
}

static u64 get_features(struct virtio *v)
{
    return (v->dev.image->read_only ? BIT(F_RO) : BIT(F_DISCARD) | BIT(F_WRITE_ZEROES)) |
           (pci_has_iommu(&v->unit) ? BIT(F_SIZE_MAX) : 0);
}

/* Takes @len bytes off the front of @pieces into @buf. */
static bool take_front(struct iovec *pieces, unsigned count, void *buf, size_t len)
{
    for (unsigned i = 0; i < count && len; i++) {
        size_t some = pieces[i].iov_len < len ? pieces[i].iov_len : len;

        memcpy(buf, pieces[i].iov_base, some);
        buf = (u8 *)buf + some;
        pieces[i].iov_base = (u8 *)pieces[i].iov_base + some;
        pieces[i].iov_len -= some;
        len -= some;
    }
    return !len;
}

/* Cuts the last byte off @pieces, where the status goes. */
static u8 *take_last(struct iovec *pieces, unsigned count)
{
    while (count && !pieces[count - 1].iov_len)
        count--;
    return count ? (u8 *)pieces[count - 1].iov_base + --pieces[count - 1].iov_len : NULL;
}

static int transfer(struct virtio_blk *blk, bool write, u64 sector, bool through)
{
    struct disk_image *image = blk->v.dev.image;
    struct virtio_chain *chain = &blk->chain;
    struct iovec *pieces = write ? chain->pieces : chain->pieces + chain->out;
    u64 bytes = write ? chain->out_bytes - sizeof(struct request) : chain->in_bytes - 1;
    int ret;

    if (bytes % IMAGE_SECTOR || sector > image->size / IMAGE_SECTOR ||
        bytes > image->size - sector * IMAGE_SECTOR || (write && image->read_only))
        return S_IOERR;
    ret =
        image_transfer(image, write, pieces, write ? chain->out : chain->in, sector * IMAGE_SECTOR);
    if (!ret && write && through)
        ret = image_flush(image);
    return ret ? S_IOERR : S_OK;
}

static int zero_ranges(struct virtio_blk *blk, bool discard)
{
    const struct disk_image *image = blk->v.dev.image;
    struct virtio_chain *chain = &blk->chain;
    u64 left = chain->out_bytes - sizeof(struct request);
    struct range range;

    if (image->read_only || !left || left % sizeof(range) || left / sizeof(range) > MAX_RANGES)
        return S_IOERR;
    for (; left; left -= sizeof(range)) {
        if (!take_front(chain->pieces, chain->out, &range, sizeof(range)) ||
            range.sectors > MAX_RANGE_SECTORS || range.sector > image->size / IMAGE_SECTOR ||
            range.sectors > image->size / IMAGE_SECTOR - range.sector)
            return S_IOERR;
        if (range.flags & (discard ? ~0u : ~1u))
            return S_UNSUPP;
        if (image_zero(image, range.sector * IMAGE_SECTOR, (u64)range.sectors * IMAGE_SECTOR,
                       discard || (range.flags & 1)))
            return S_IOERR;
    }
    return S_OK;
}

static int get_id(struct virtio_blk *blk)
{
    struct virtio_chain *chain = &blk->chain;
    size_t done = 0;

    for (unsigned i = chain->out; i < chain->out + chain->in && done < ID_BYTES; i++) {
        size_t some = ID_BYTES - done;

        if (some > chain->pieces[i].iov_len)
            some = chain->pieces[i].iov_len;
        memcpy(chain->pieces[i].iov_base, blk->id + done, some);
        done += some;
    }
    return S_OK;
}

static int carry_out(struct virtio_blk *blk, const struct request *request, bool through)
{
    switch (request->type) {
    case T_IN:
        return transfer(blk, false, request->sector, false);
    case T_OUT:
        return transfer(blk, true, request->sector, through);
    case T_FLUSH:
        return image_flush(blk->v.dev.image) ? S_IOERR : S_OK;
    case T_GET_ID:
        return get_id(blk);
    case T_DISCARD:
        return zero_ranges(blk, true);
    case T_WRITE_ZEROES:
        return zero_ranges(blk, false);
    default:
        return S_UNSUPP;
    }
}

static void work(struct virtio *v, unsigned q)
{
    struct virtio_blk *blk = to_blk(v);
    struct virtio_chain *chain = &blk->chain;
    unsigned served = 0;

    while (virtio_take(v, q, chain) > 0) {
        /* A driver that knows no flush must find each write on the disk. */
        bool through = !(v->state->features & BIT(F_FLUSH));
        struct request request;
        u8 *status;

        if (chain->out_bytes < sizeof(request) || !chain->in_bytes ||
            !take_front(chain->pieces, chain->out, &request, sizeof(request))) {
            virtio_broken(v);
            return;
        }
        status = take_last(chain->pieces + chain->out, chain->in);
        virtio_begin(v);
        *status = (u8)carry_out(blk, &request, through);
        virtio_wrote_all(v, chain);
        if (!virtio_end(v))
            return;
        virtio_give(v, q, chain, (u32)chain->in_bytes);
        virtio_notify(v, q);
        if (++served == VIRTIO_BATCH) {
            virtio_again(v, q);
            return;
        }
    }
}

static const struct virtio_ops ops = {
    .id = 2,
    .pci_class = 0x0100, /* SCSI controller, as other virtio disks say */
    .features = BIT(F_SEG_MAX) | BIT(F_BLK_SIZE) | BIT(F_FLUSH),
    .queues = 1,
    .size = QUEUE_SIZE,
    .config_bytes = CONFIG_BYTES,
    .get_config = get_config,
    .get_features = get_features,
    .work = work,
};

static struct virtio *to_virtio(struct device *dev)
{
    return container_of(dev, struct virtio, dev);
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct virtio_blk *blk = to_blk(to_virtio(dev));

    if (!dev->image)
        return err_set(err, -EINVAL, "it needs an image");
    if (virtio_create(&blk->v, &ops, &blk->state.common, options, err))
        return -EINVAL;
    snprintf((char *)blk->id, sizeof(blk->id), "triode-%u", blk->v.unit.devfn >> 3);
    return 0;
}

static void destroy(struct device *dev)
{
    virtio_destroy(to_virtio(dev));
}

static void reset(struct device *dev)
{
    virtio_reset(to_virtio(dev));
}

static void loaded(struct device *dev)
{
    virtio_loaded(to_virtio(dev));
}

const struct device_class device_class_virtio_blk = {
    DEVICE_CLASS(struct virtio_blk),
    .state_version = 2,
    .create = create,
    .destroy = destroy,
    .reset = reset,
    .loaded = loaded,
};
