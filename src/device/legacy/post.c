/* Port 0x80 takes POST codes; Linux writes it, or 0xED, to wait about a microsecond. */
#include "device/device.h"

struct post {
    struct device dev;
    struct post_state {
        u8 code;
    } state;
};

static u64 read_port(struct device *dev, u64 offset, unsigned size)
{
    struct post *post = container_of(dev, struct post, dev);

    (void)offset;
    (void)size;
    return post->state.code;
}

static void write_port(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct post *post = container_of(dev, struct post, dev);

    (void)offset;
    (void)size;
    post->state.code = (u8)value;
}

static void reset(struct device *dev)
{
    struct post *post = container_of(dev, struct post, dev);

    post->state = (struct post_state){0};
}

static int create(struct device *dev, const char *options, struct err *err)
{
    static const u16 ports[] = {0x80, 0xed};
    int ret = device_options_check(options, "", err);

    for (size_t i = 0; !ret && i < ARRAY_SIZE(ports); i++) {
        struct device_region region = {ports[i], 1, 1, read_port, write_port, dev};

        ret = device_bus_add(dev->ports, &region);
        if (ret)
            err_set(err, ret, "port %#x is taken", ports[i]);
    }
    return ret;
}

const struct device_class device_class_post = {
    DEVICE_CLASS(struct post),
    .state_version = 1,
    .create = create,
    .reset = reset,
};
