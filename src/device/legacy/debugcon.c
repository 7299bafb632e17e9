/*
 * A debug console: firmware and kernels write characters to a port and find out that it is there by
 * reading the port's own number's low byte, 0xE9 (Bochs and QEMU have it at 0xE9 and 0x402).
 */
#include <errno.h>

#include "device/device.h"

#define PRESENT 0xe9

struct debugcon {
    struct device dev;
    struct debugcon_state {
        u64 lost; /* bytes the back end had no room for */
    } state;
};

static u64 read_port(struct device *dev, u64 offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return PRESENT;
}

static void write_port(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct debugcon *con = container_of(dev, struct debugcon, dev);
    u8 byte = (u8)value;

    (void)offset;
    (void)size;
    if (dev->stream && !dev->stream->send(dev->stream->backend, &byte, 1))
        con->state.lost++;
}

static void reset(struct device *dev)
{
    struct debugcon *con = container_of(dev, struct debugcon, dev);

    con->state = (struct debugcon_state){0};
}

static size_t receive(void *device, const u8 *data, size_t len)
{
    (void)device;
    (void)data;
    return len; /* nothing listens: input is dropped, so that the back end does not wait */
}

static void ignore(void *device)
{
    (void)device;
}

static int create(struct device *dev, const char *options, struct err *err)
{
    u64 port = 0x402;
    int ret = device_options_check(options, "port", err);

    if (!ret)
        ret = device_option_number(options, "port", 0xffff, &port, err);
    if (ret)
        return ret;
    if (dev->stream) {
        dev->stream->device = dev;
        dev->stream->receive = receive;
        dev->stream->writable = ignore;
        dev->stream->line_break = ignore;
    }
    ret =
        device_bus_add(dev->ports, &(struct device_region){port, 1, 1, read_port, write_port, dev});
    return ret ? err_set(err, ret, "port %#" PRIx64 " is taken", port) : 0;
}

const struct device_class device_class_debugcon = {
    DEVICE_CLASS(struct debugcon),
    .state_version = 1,
    .create = create,
    .reset = reset,
};
