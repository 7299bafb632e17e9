/* virtio-rng: random bytes (VIRTIO 1.2, 5.4). */
#include "base/entropy.h"
#include "device/virtio/virtio.h"

#define MOST (64 * KiB) /* bytes for one buffer */

struct virtio_rng {
    struct virtio v;
    struct virtio_rng_state {
        struct virtio_state common;
    } state;
    struct virtio_chain chain;
};

static struct virtio_rng *to_rng(struct device *dev)
{
    return container_of(container_of(dev, struct virtio, dev), struct virtio_rng, v);
}

static void work(struct virtio *v, unsigned q)
{
    struct virtio_chain *chain = &container_of(v, struct virtio_rng, v)->chain;

    for (unsigned served = 0; virtio_take(v, q, chain) > 0;) {
        u64 done = 0;

        for (unsigned i = chain->out; i < chain->out + chain->in && done < MOST; i++) {
            u64 some =
                chain->pieces[i].iov_len < MOST - done ? chain->pieces[i].iov_len : MOST - done;

            entropy_fill(chain->pieces[i].iov_base, some);
            done += some;
        }
        virtio_wrote_all(v, chain);
        virtio_give(v, q, chain, (u32)done);
        virtio_notify(v, q);
        if (++served == VIRTIO_BATCH) {
            virtio_again(v, q);
            return;
        }
    }
}

static void get_config(struct virtio *v, u8 *config)
{
    (void)v;
    (void)config;
}

static const struct virtio_ops ops = {
    .id = 4,
    .pci_class = 0x00ff,
    .queues = 1,
    .size = 64,
    .get_config = get_config,
    .work = work,
};

static int create(struct device *dev, const char *options, struct err *err)
{
    return virtio_create(&to_rng(dev)->v, &ops, &to_rng(dev)->state.common, options, err);
}

static void destroy(struct device *dev)
{
    virtio_destroy(&to_rng(dev)->v);
}

static void reset(struct device *dev)
{
    virtio_reset(&to_rng(dev)->v);
}

static void loaded(struct device *dev)
{
    virtio_loaded(&to_rng(dev)->v);
}

const struct device_class device_class_virtio_rng = {
    DEVICE_CLASS(struct virtio_rng),
    .state_version = 2,
    .create = create,
    .destroy = destroy,
    .reset = reset,
    .loaded = loaded,
};
