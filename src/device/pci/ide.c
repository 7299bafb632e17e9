/*
 * IDE controller with two channels in compatibility mode (Intel 82371SB PIIX3 data sheet): task
 * file and PCI function. Each channel takes a disk as its drive 0. DMA is the I/O thread's work.
 */
#include "device/ide.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/thread.h"
#include "device/pci/ata.h"

/* ---- Task file ------------------------------------------------------------------------------- */

static u64 read_data(struct ata_channel *c, unsigned size)
{
    struct ata_state *s = ata_state_of(c);
    u64 value = 0;

    if (s->transfer != ATA_TO_HOST || s->at + size > s->len)
        return 0;
    memcpy(&value, s->data + s->at, size);
    s->at += size;
    if (s->at >= s->len)
        ata_block_done(c);
    return value;
}

static void write_data(struct ata_channel *c, unsigned size, u64 value)
{
    struct ata_state *s = ata_state_of(c);

    if (s->transfer != ATA_FROM_HOST || s->at + size > s->len)
        return;
    memcpy(s->data + s->at, &value, size);
    s->at += size;
    if (s->at >= s->len)
        ata_block_done(c);
}

static u8 status_of(struct ata_channel *c)
{
    return ata_present(c) ? ata_state_of(c)->status : 0;
}

static u64 read_register(struct ata_channel *c, unsigned reg)
{
    struct ata_state *s = ata_state_of(c);
    const u8 *regs = s->control & ATA_CONTROL_HIGH ? s->before : s->regs;

    if (!c->image)
        return reg == ATA_COMMAND ? 0 : 0xff;
    switch (reg) {
    case ATA_COMMAND:
        s->irq = 0;
        ata_drive_irq(c);
        return status_of(c);
    case ATA_ERROR:
        return ata_present(c) ? s->error : 0;
    case ATA_DEVICE:
        return s->regs[ATA_DEVICE] | 0xa0;
    default:
        return ata_present(c) ? regs[reg] : 0;
    }
}

static void write_register(struct ata_channel *c, unsigned reg, u8 value)
{
    struct ata_state *s = ata_state_of(c);

    if (reg == ATA_COMMAND) {
        s->irq = 0;
        ata_drive_irq(c);
        ata_command(c, value);
        return;
    }
    if (s->status & ATA_BSY)
        return;
    s->control &= ~ATA_CONTROL_HIGH;
    s->before[reg] = s->regs[reg];
    s->regs[reg] = value;
}

static u64 read_task(struct ata_channel *c, u64 offset, unsigned size)
{
    u64 value = 0;

    if (offset == ATA_DATA)
        return read_data(c, size);
    for (unsigned i = 0; i < size; i++)
        value |= read_register(c, (unsigned)offset + i) << 8 * i;
    return value;
}

static void write_task(struct ata_channel *c, u64 offset, unsigned size, u64 value)
{
    if (offset == ATA_DATA) {
        write_data(c, size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_register(c, (unsigned)offset + i, (u8)(value >> 8 * i));
}

static void write_control(struct ata_channel *c, u8 value)
{
    struct ata_state *s = ata_state_of(c);
    bool released = (s->control & ATA_CONTROL_RESET) && !(value & ATA_CONTROL_RESET);

    s->control = value;
    if (value & ATA_CONTROL_RESET)
        s->status = ATA_BSY;
    if (released)
        ata_reset(c);
    ata_drive_irq(c);
}

#define CHANNEL(n)                                                                                 \
    static u64 read_task##n(struct device *dev, u64 offset, unsigned size)                         \
    {                                                                                              \
        return read_task(&to_ide(dev)->channels[n], offset, size);                                 \
    }                                                                                              \
    static void write_task##n(struct device *dev, u64 offset, unsigned size, u64 value)            \
    {                                                                                              \
        write_task(&to_ide(dev)->channels[n], offset, size, value);                                \
    }                                                                                              \
    static u64 read_control##n(struct device *dev, u64 offset, unsigned size)                      \
    {                                                                                              \
        (void)offset;                                                                              \
        (void)size;                                                                                \
        return status_of(&to_ide(dev)->channels[n]);                                               \
    }                                                                                              \
    static void write_control##n(struct device *dev, u64 offset, unsigned size, u64 value)         \
    {                                                                                              \
        (void)offset;                                                                              \
        (void)size;                                                                                \
        write_control(&to_ide(dev)->channels[n], (u8)value);                                       \
    }
CHANNEL(0)
CHANNEL(1)

/* ---- Life ---------------------------------------------------------------------------------- */

static void written(struct device *dev, unsigned offset, unsigned size)
{
    (void)size;
    pci_unit_written(&to_ide(dev)->unit, offset);
}

static void reset(struct device *dev)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086, .device = 0x7010, .class = 0x0101, .prog_if = 0x80};
    struct ide *ide = to_ide(dev);
    struct pci_config *config = &ide->state.config;

    pci_unit_reset(&ide->unit, &identity);
    pci_put16(config, 0x40, 0x8000); /* IDETIM: both channels decode */
    pci_put16(config, 0x42, 0x8000);
    memset(config->writable + 0x40, 0xff, 5);
    for (unsigned i = 0; i < 2; i++) {
        ide->state.channels[i].control = 0;
        ide->state.channels[i].bm_status = 0;
        ata_reset(&ide->channels[i]);
    }
}

static void loaded(struct device *dev)
{
    struct ide *ide = to_ide(dev);

    for (unsigned i = 0; i < 2; i++) {
        struct ata_state *s = &ide->state.channels[i];

        if (s->len > sizeof(s->data) || s->at > s->len || s->block > ATA_MULTIPLE ||
            s->multiple > ATA_MULTIPLE)
            ata_reset(&ide->channels[i]);
        ata_drive_irq(&ide->channels[i]);
        ata_start_work(&ide->channels[i]);
    }
    pci_unit_loaded(&ide->unit);
}

void device_ide_set_disk(struct device *dev, unsigned channel, struct disk_image *image)
{
    struct ata_channel *c = &to_ide(dev)->channels[channel];

    mutex_lock(&dev->lock);
    c->image = image;
    ata_reset(c);
    mutex_unlock(&dev->lock);
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct ide *ide = to_ide(dev);
    const struct device_region regions[] = {
        {0x1f0, 8, 4, read_task0, write_task0, dev},
        {0x170, 8, 4, read_task1, write_task1, dev},
        {0x3f6, 1, 1, read_control0, write_control0, dev},
        {0x376, 1, 1, read_control1, write_control1, dev},
    };
    u64 slot = 1;
    int ret = device_options_check(options, "slot", err);

    if (!ret)
        ret = device_option_number(options, "slot", 31, &slot, err);
    if (ret)
        return ret;
    if (!dev->parent)
        return err_set(err, -EINVAL, "it needs a PCI bus");
    for (unsigned i = 0; i < 2; i++) {
        struct ata_channel *c = &ide->channels[i];

        *c = (struct ata_channel){.ide = ide, .line = 14 + i};
        c->work = (struct device_timer){.fire = ide_dma_work, .opaque = c};
    }
    for (size_t i = 0; !ret && i < ARRAY_SIZE(regions); i++)
        ret = device_bus_add(dev->ports, &regions[i]);
    ide->unit.dev = dev;
    ide->unit.config = &ide->state.config;
    ide->unit.devfn = PCI_DEVFN((unsigned)slot, 0);
    ide->unit.bars[BM_BAR] = (struct pci_bar){16, true, 4, ide_dma_read, ide_dma_write};
    if (!ret)
        ret = pci_host_attach(
            dev->parent, ide->unit.devfn,
            &(struct pci_function){.config = ide->unit.config, .dev = dev, .written = written});
    return ret ? err_set(err, ret, "its ports or PCI slot %" PRIu64 " are taken", slot) : 0;
}

static void destroy(struct device *dev)
{
    struct ide *ide = to_ide(dev);

    for (unsigned i = 0; i < 2; i++)
        dev->env->timer_set(dev->env->opaque, &ide->channels[i].work, 0);
    pci_host_detach(dev->parent, ide->unit.devfn);
}

const struct device_class device_class_ide = {
    DEVICE_CLASS(struct ide), .state_version = 1, .create = create,
    .destroy = destroy,       .reset = reset,     .loaded = loaded,
};
