/*
 * A port that ends the run: a guest that writes @v leaves the exit status (v << 1) | 1, which is
 * never 0, so that it cannot be taken for an orderly power-off (QEMU's isa-debug-exit).
 */
#include "device/device.h"

struct debug_exit {
    struct device dev;
    struct debug_exit_state {
        u32 value; /* last written */
    } state;
};

static u64 read_port(struct device *dev, u64 offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return 0;
}

static void write_port(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct debug_exit *port = container_of(dev, struct debug_exit, dev);

    (void)offset;
    (void)size;
    port->state.value = (u32)value;
    if (dev->env->exit)
        dev->env->exit(dev->env->opaque, (u8)(value << 1 | 1));
}

static void reset(struct device *dev)
{
    container_of(dev, struct debug_exit, dev)->state = (struct debug_exit_state){0};
}

static int create(struct device *dev, const char *options, struct err *err)
{
    u64 port = 0xf4;
    int ret = device_options_check(options, "port", err);

    if (!ret)
        ret = device_option_number(options, "port", 0xfffc, &port, err);
    if (ret)
        return ret;
    ret =
        device_bus_add(dev->ports, &(struct device_region){port, 4, 4, read_port, write_port, dev});
    return ret ? err_set(err, ret, "ports at %#" PRIx64 " are taken", port) : 0;
}

const struct device_class device_class_debug_exit = {
    DEVICE_CLASS(struct debug_exit),
    .state_version = 1,
    .create = create,
    .reset = reset,
};
