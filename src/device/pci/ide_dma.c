/* The bus master of the IDE controller (Programming Interface for Bus Master IDE Controller
 * 1.0). */
#include <errno.h>

#include "base/thread.h"
#include "device/pci/ata.h"

/* One entry of the physical region descriptor table; 0 bytes mean 64 KiB. */
struct prd {
    u32 address;
    u16 len, end;
};

/* Moves [@address, @address + @len) to or from the disk, through the buffer. */
static int dma_piece(struct ata_channel *c, u64 address, u32 len, u32 *fill)
{
    struct ata_state *s = ata_state_of(c);
    const struct pci_unit *unit = &c->ide->unit;

    while (len && (s->left || s->at < *fill)) {
        u32 some;
        int ret = 0;

        if (s->at == *fill) { /* the buffer is used up */
            u32 sectors = s->left < ATA_MULTIPLE ? s->left : ATA_MULTIPLE;

            *fill = sectors * IMAGE_SECTOR;
            s->at = 0;
            s->left -= sectors;
            if (!s->dma_write && ata_move_block(c, false, sectors))
                return -EIO;
        }
        some = *fill - s->at < len ? *fill - s->at : len;
        ret = s->dma_write ? pci_dma_read(unit, address, s->data + s->at, some)
                           : pci_dma_write(unit, address, s->data + s->at, some);
        if (ret)
            return ret;
        s->at += some;
        address += some;
        len -= some;
        if (s->dma_write && s->at == *fill && ata_move_block(c, true, *fill / IMAGE_SECTOR))
            return -EIO;
    }
    return 0;
}

/* In the I/O thread. A table has at most 64 KiB of entries, so that this ends. */
static void do_dma(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u32 fill = 0, at = s->prd;
    bool last = false;
    int ret = 0;

    s->at = 0;
    for (unsigned i = 0; !ret && !last && i < 8192 && (s->left || s->at < fill); i++) {
        struct prd prd;

        ret = pci_dma_read(&c->ide->unit, at, &prd, sizeof(prd));
        if (!ret)
            ret = dma_piece(c, prd.address & ~1u, prd.len & ~1u ? prd.len & ~1u : 0x10000, &fill);
        last = prd.end & 0x8000;
        at += sizeof(prd);
    }
    s->dma = 0;
    if (ret || s->left || s->at < fill) {
        s->bm_status |= ret ? BM_ERROR : 0;
        s->bm_status &= ~BM_ACTIVE;
        ata_fail(c, ATA_E_ABORT);
    } else {
        s->bm_status &= last ? ~BM_ACTIVE : ~0;
        ata_succeed(c);
    }
}

void ide_dma_work(void *opaque)
{
    struct ata_channel *c = opaque;

    mutex_lock(&c->ide->dev.lock);
    pci_dma_begin(&c->ide->unit);
    if (ata_state_of(c)->dma && (ata_state_of(c)->bm_command & BM_START) && c->image)
        do_dma(c);
    pci_dma_end(&c->ide->unit);
    mutex_unlock(&c->ide->dev.lock);
}

u64 ide_dma_read(struct device *dev, u64 offset, unsigned size)
{
    struct ata_state *s = &to_ide(dev)->state.channels[offset >> 3 & 1];
    u64 value = 0;

    for (unsigned i = 0; i < size; i++) {
        unsigned reg = (offset + i) & 7;
        u8 byte = reg == 0   ? s->bm_command
                  : reg == 2 ? s->bm_status
                  : reg >= 4 ? (u8)(s->prd >> (reg - 4) * 8)
                             : 0;

        value |= (u64)byte << 8 * i;
    }
    return value;
}

static void write_bm_byte(struct ata_channel *c, unsigned reg, u8 value)
{
    struct ata_state *s = ata_state_of(c);

    if (reg == 0) {
        bool starts = !(s->bm_command & BM_START) && (value & BM_START);

        s->bm_command = value & (BM_START | BM_TO_MEMORY);
        if (starts) {
            s->bm_status |= BM_ACTIVE;
            ata_start_work(c);
        } else if (!(value & BM_START)) {
            s->bm_status &= ~BM_ACTIVE;
        }
    } else if (reg == 2) {
        s->bm_status =
            (s->bm_status & ~BM_DRIVES & ~(value & (BM_ERROR | BM_IRQ))) | (value & BM_DRIVES);
    } else if (reg >= 4) {
        unsigned shift = (reg - 4) * 8;

        s->prd = ((s->prd & ~(0xffu << shift)) | (u32)value << shift) & ~3u;
    }
}

void ide_dma_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct ata_channel *c = &to_ide(dev)->channels[offset >> 3 & 1];

    for (unsigned i = 0; i < size; i++)
        write_bm_byte(c, (offset + i) & 7, (u8)(value >> 8 * i));
}
