/*
 * fw_cfg: numbered items that the board leaves for firmware (and for test kernels), read byte by
 * byte through ports 0x510 and 0x511 or by DMA through 0x514 (QEMU, docs/specs/fw_cfg.rst). Items
 * are fixed once the board is built; a guest chooses and reads them and cannot change them.
 */
#include "device/fw_cfg.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SELECTOR_PORT 0x510
#define DMA_PORT 0x514
#define MAX_FILES 32
#define FIRST_FILE 0x20
#define ITEMS (FIRST_FILE + MAX_FILES)
#define NAME_BYTES 56

enum {
    FEATURE_PORTS = 1,
    FEATURE_DMA = 2,

    DMA_ERROR = 1,
    DMA_READ = 2,
    DMA_SKIP = 4,
    DMA_SELECT = 8,
    DMA_WRITE = 16,
};

static const u64 dma_signature = 0x51454d5520434647; /* "QEMU CFG" */

struct item {
    u8 *data;
    u32 size;
};

/* An entry of the directory, which is item 0x19; big-endian. */
struct file {
    u32 size;
    u16 select, reserved;
    char name[NAME_BYTES];
};

struct fw_cfg {
    struct device dev;
    struct fw_cfg_state {
        u16 selected;
        u32 offset;
        u32 dma_high;
    } state;
    struct item items[ITEMS];
    struct {
        u32 count;
        struct file files[MAX_FILES];
    } directory;
};

static struct fw_cfg *to_fw_cfg(struct device *dev)
{
    return container_of(dev, struct fw_cfg, dev);
}

int device_fw_cfg_add(struct device *dev, u16 key, const void *data, size_t size)
{
    struct fw_cfg *cfg = to_fw_cfg(dev);
    struct item *item;
    u8 *copy;

    if (key >= ITEMS || size > UINT32_MAX)
        return -EINVAL;
    copy = malloc(size ? size : 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, size);
    item = &cfg->items[key];
    free(item->data);
    item->data = copy;
    item->size = (u32)size;
    return 0;
}

int device_fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t size)
{
    struct fw_cfg *cfg = to_fw_cfg(dev);
    u32 count = be32toh(cfg->directory.count);
    struct file *file = &cfg->directory.files[count];
    int ret;

    for (u32 i = 0; i < count; i++) {
        if (strcmp(cfg->directory.files[i].name, name))
            continue;
        cfg->directory.files[i].size = htobe32((u32)size);
        ret = device_fw_cfg_add(dev, (u16)(FIRST_FILE + i), data, size);
        return ret ? ret
                   : device_fw_cfg_add(dev, DEVICE_FW_CFG_DIRECTORY, &cfg->directory,
                                       sizeof(u32) + count * sizeof(struct file));
    }
    if (count == MAX_FILES || strlen(name) >= NAME_BYTES)
        return -ENOSPC;
    ret = device_fw_cfg_add(dev, (u16)(FIRST_FILE + count), data, size);
    if (ret)
        return ret;
    file->size = htobe32((u32)size);
    file->select = htobe16((u16)(FIRST_FILE + count));
    memcpy(file->name, name, strlen(name) + 1);
    cfg->directory.count = htobe32(count + 1);
    return device_fw_cfg_add(dev, DEVICE_FW_CFG_DIRECTORY, &cfg->directory,
                             sizeof(u32) + (count + 1) * sizeof(struct file));
}

static const struct item *selected(const struct fw_cfg *cfg)
{
    static const struct item none;

    return cfg->state.selected < ITEMS ? &cfg->items[cfg->state.selected] : &none;
}

static u8 next_byte(struct fw_cfg *cfg)
{
    const struct item *item = selected(cfg);

    return cfg->state.offset < item->size ? item->data[cfg->state.offset++] : 0;
}

static void select_item(struct fw_cfg *cfg, u16 key)
{
    cfg->state.selected = key;
    cfg->state.offset = 0;
}

static u64 read_port(struct device *dev, u64 offset, unsigned size)
{
    if (offset == 1)
        return next_byte(to_fw_cfg(dev));
    return size == 2 ? to_fw_cfg(dev)->state.selected : 0;
}

static void write_port(struct device *dev, u64 offset, unsigned size, u64 value)
{
    if (!offset && size == 2)
        select_item(to_fw_cfg(dev), (u16)value);
}

/* Copies what the item has and zeros after it. */
static int dma_read(struct fw_cfg *cfg, u64 gpa, u32 len)
{
    const struct item *item = selected(cfg);
    u32 left = item->size - cfg->state.offset, some = len < left ? len : left;
    struct mem *mem = cfg->dev.env->mem;
    int ret = 0;

    if (gpa + len < gpa)
        return -EFAULT;
    if (some)
        ret = mem_write(mem, gpa, item->data + cfg->state.offset, some);
    if (!ret && len > some)
        ret = mem_fill(mem, gpa + some, 0, len - some);
    cfg->state.offset += some;
    return ret;
}

static void dma(struct fw_cfg *cfg, u64 gpa)
{
    struct {
        u32 control, len;
        u64 address;
    } request;
    struct mem *mem = cfg->dev.env->mem;
    u32 control, len, answer = 0;

    if (mem_read(mem, gpa, &request, sizeof(request)))
        return; /* there is nowhere to say what is wrong */
    control = be32toh(request.control);
    len = be32toh(request.len);
    if (control & DMA_SELECT)
        select_item(cfg, (u16)(control >> 16));
    if (control & DMA_READ) {
        answer = dma_read(cfg, be64toh(request.address), len) ? DMA_ERROR : 0;
    } else if (control & DMA_SKIP) {
        u32 left = selected(cfg)->size - cfg->state.offset;

        cfg->state.offset += len < left ? len : left;
    } else if (control & DMA_WRITE) {
        answer = DMA_ERROR; /* items are read-only */
    }
    answer = htobe32(answer);
    mem_write(mem, gpa, &answer, sizeof(answer));
}

static u64 read_dma(struct device *dev, u64 offset, unsigned size)
{
    (void)dev;
    /* The signature is big-endian: its first byte is the one at the lowest port. */
    return htobe64(dma_signature) >> offset * 8 & (size == 4 ? UINT32_MAX : (1u << size * 8) - 1);
}

static void write_dma(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct fw_cfg *cfg = to_fw_cfg(dev);

    if (size != 4)
        return;
    if (!offset) {
        cfg->state.dma_high = be32toh((u32)value);
        return;
    }
    dma(cfg, (u64)cfg->state.dma_high << 32 | be32toh((u32)value));
    cfg->state.dma_high = 0;
}

static void reset(struct device *dev)
{
    to_fw_cfg(dev)->state = (struct fw_cfg_state){0};
}

static void loaded(struct device *dev)
{
    struct fw_cfg *cfg = to_fw_cfg(dev);

    if (cfg->state.offset > selected(cfg)->size)
        cfg->state.offset = selected(cfg)->size;
}

static void destroy(struct device *dev)
{
    for (size_t i = 0; i < ITEMS; i++)
        free(to_fw_cfg(dev)->items[i].data);
}

static int create(struct device *dev, const char *options, struct err *err)
{
    static const u32 features = FEATURE_PORTS | FEATURE_DMA, none = 0;
    int ret = device_options_check(options, "", err);

    if (ret)
        return ret;
    ret = device_bus_add(dev->ports,
                         &(struct device_region){SELECTOR_PORT, 2, 2, read_port, write_port, dev});
    if (!ret)
        ret = device_bus_add(dev->ports,
                             &(struct device_region){DMA_PORT, 8, 4, read_dma, write_dma, dev});
    if (ret)
        return err_set(err, ret, "ports at 0x510 are taken");
    ret = device_fw_cfg_add(dev, DEVICE_FW_CFG_SIGNATURE, "QEMU", 4);
    if (!ret)
        ret = device_fw_cfg_add(dev, DEVICE_FW_CFG_ID, &features, 4);
    if (!ret)
        ret = device_fw_cfg_add(dev, DEVICE_FW_CFG_DIRECTORY, &none, 4);
    if (ret) {
        destroy(dev);
        return err_set(err, ret, "out of memory");
    }
    return 0;
}

const struct device_class device_class_fw_cfg = {
    DEVICE_CLASS(struct fw_cfg), .state_version = 1, .create = create,
    .destroy = destroy,          .reset = reset,     .loaded = loaded,
};
