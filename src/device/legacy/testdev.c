/*
 * What people who test kernels and hypervisors expect of a board (QEMU's pc-testdev and testdev,
 * Bochs's shutdown port):
 *   0xE0..0xE3   a latch of four bytes, written and read in any width
 *   0xE4         the guest-physical address of a page whose mapping is to be dropped: the next
 *                access finds the same contents by a fresh walk of whatever maps guest memory
 *   0xF1         bytes for a log
 *   0x2000+n     the level of interrupt line n
 *   0x8900       the bytes "Shutdown" one after the other switch the machine off
 *   0xFF000000   64 KiB that keep what is written, but are no memory
 */
#include <string.h>

#include "device/device.h"

#define LATCH_PORT 0xe0
#define FLUSH_PORT 0xe4
#define LOG_PORT 0xf1
#define LINES_PORT 0x2000
#define LINES 24
#define SHUTDOWN_PORT 0x8900
#define MMIO 0xff000000u
#define MMIO_BYTES 0x10000

static const char shutdown_word[] = "Shutdown";

struct testdev {
    struct device dev;
    struct testdev_state {
        u8 latch[4];
        u8 levels[LINES];
        u8 matched; /* characters of the shutdown word seen */
        u8 mmio[MMIO_BYTES];
    } state;
};

static struct testdev *to_testdev(struct device *dev)
{
    return container_of(dev, struct testdev, dev);
}

static u64 read_latch(struct device *dev, u64 offset, unsigned size)
{
    u64 value = 0;

    memcpy(&value, to_testdev(dev)->state.latch + offset, size);
    return value;
}

static void write_latch(struct device *dev, u64 offset, unsigned size, u64 value)
{
    memcpy(to_testdev(dev)->state.latch + offset, &value, size);
}

static u64 read_nothing(struct device *dev, u64 offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return 0;
}

static void write_flush(struct device *dev, u64 offset, unsigned size, u64 value)
{
    (void)offset;
    (void)size;
    if (dev->env->drop_page)
        dev->env->drop_page(dev->env->opaque, value & ~(MEM_PAGE_SIZE - 1));
}

static void write_log(struct device *dev, u64 offset, unsigned size, u64 value)
{
    u8 byte = (u8)value;

    (void)offset;
    (void)size;
    if (dev->stream)
        dev->stream->send(dev->stream->backend, &byte, 1);
}

static void write_line(struct device *dev, u64 offset, unsigned size, u64 value)
{
    (void)size;
    to_testdev(dev)->state.levels[offset] = value != 0;
    dev->env->irq_set(dev->env->opaque, (unsigned)offset, value != 0);
}

static void write_shutdown(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct testdev_state *s = &to_testdev(dev)->state;

    (void)offset;
    (void)size;
    if ((char)value != shutdown_word[s->matched])
        s->matched = 0;
    if ((char)value == shutdown_word[s->matched])
        s->matched++;
    if (shutdown_word[s->matched])
        return;
    s->matched = 0;
    dev->env->request(dev->env->opaque, DEVICE_REQUEST_POWER_OFF);
}

static u64 read_mmio(struct device *dev, u64 offset, unsigned size)
{
    u64 value = 0;

    memcpy(&value, to_testdev(dev)->state.mmio + offset, size);
    return value;
}

static void write_mmio(struct device *dev, u64 offset, unsigned size, u64 value)
{
    memcpy(to_testdev(dev)->state.mmio + offset, &value, size);
}

/* Only lines this device raised are its to lower: others own the rest. */
static void reset(struct device *dev)
{
    struct testdev_state *s = &to_testdev(dev)->state;

    for (unsigned i = 0; i < LINES; i++)
        if (s->levels[i])
            dev->env->irq_set(dev->env->opaque, i, 0);
    memset(s, 0, sizeof(*s));
}

static void loaded(struct device *dev)
{
    struct testdev_state *s = &to_testdev(dev)->state;

    for (unsigned i = 0; i < LINES; i++)
        if (s->levels[i])
            dev->env->irq_set(dev->env->opaque, i, 1);
    if (s->matched >= sizeof(shutdown_word) - 1)
        s->matched = 0;
}

static size_t receive(void *device, const u8 *data, size_t len)
{
    (void)device;
    (void)data;
    return len; /* the log has no input side */
}

static void ignore(void *device)
{
    (void)device;
}

static int create(struct device *dev, const char *options, struct err *err)
{
    const struct device_region ports[] = {
        {LATCH_PORT, 4, 4, read_latch, write_latch, dev},
        {FLUSH_PORT, 4, 4, read_nothing, write_flush, dev},
        {LOG_PORT, 1, 1, read_nothing, write_log, dev},
        {LINES_PORT, LINES, 1, read_nothing, write_line, dev},
        {SHUTDOWN_PORT, 1, 1, read_nothing, write_shutdown, dev},
    };
    int ret = device_options_check(options, "", err);

    for (size_t i = 0; !ret && i < ARRAY_SIZE(ports); i++)
        ret = device_bus_add(dev->ports, &ports[i]);
    if (!ret)
        ret = device_bus_add(
            dev->memory, &(struct device_region){MMIO, MMIO_BYTES, 8, read_mmio, write_mmio, dev});
    if (dev->stream) {
        dev->stream->device = dev;
        dev->stream->receive = receive;
        dev->stream->writable = ignore;
        dev->stream->line_break = ignore;
    }
    return ret ? err_set(err, ret, "its ports or its memory are taken") : 0;
}

const struct device_class device_class_testdev = {
    DEVICE_CLASS(struct testdev),
    .state_version = 1,
    .create = create,
    .reset = reset,
    .loaded = loaded,
};
