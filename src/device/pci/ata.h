/*
 * Inside src/device/pci: a channel of the IDE controller with the disk on it. ata.c has the disk's
 * commands (ATA/ATAPI-6), ide_dma.c the bus master, ide.c the registers and the PCI function.
 */
#ifndef TRIODE_DEVICE_PCI_ATA_H
#define TRIODE_DEVICE_PCI_ATA_H

#include "device/image.h"
#include "device/pci/pci.h"

enum {
    ATA_DATA = 0,
    ATA_ERROR = 1, /* written: features */
    ATA_COUNT = 2,
    ATA_LBA_LOW = 3,
    ATA_LBA_MIDDLE = 4,
    ATA_LBA_HIGH = 5,
    ATA_DEVICE = 6,
    ATA_COMMAND = 7, /* read: status */

    ATA_BSY = 0x80,
    ATA_DRDY = 0x40,
    ATA_DF = 0x20,
    ATA_DSC = 0x10,
    ATA_DRQ = 0x08,
    ATA_ERR = 0x01,

    ATA_E_ABORT = 0x04,
    ATA_E_NOT_FOUND = 0x10,

    ATA_DEVICE_LBA = 0x40,
    ATA_DEVICE_SECOND = 0x10,
    ATA_CONTROL_HIGH = 0x80, /* show what was written to the registers before */
    ATA_CONTROL_RESET = 0x04,
    ATA_CONTROL_NO_IRQ = 0x02,

    BM_START = 0x01,
    BM_TO_MEMORY = 0x08,
    BM_ACTIVE = 0x01,
    BM_ERROR = 0x02,
    BM_IRQ = 0x04,
    BM_DRIVES = 0x60, /* capability bits software keeps */

    BM_BAR = 4,
    ATA_MULTIPLE = 16, /* sectors per interrupt at most */
    ATA_HEADS = 16,
    ATA_TRACK = 63,
    ATA_MAX_SECTORS = 65536,
};

enum ata_transfer { ATA_NOTHING, ATA_TO_HOST, ATA_FROM_HOST };

struct ata_state {
    u8 regs[8], before[8]; /* task file, and what it held before the last writes */
    u8 status, error, control;
    u8 multiple;
    u8 transfer; /* enum ata_transfer, of the PIO data under way */
    u8 dma, dma_write, bm_command, bm_status, irq;
    u32 prd;
    u32 at, len;     /* within data */
    u64 sector;      /* next one on the disk */
    u32 left, block; /* sectors after those in data; sectors a block */
    u8 data[ATA_MULTIPLE * IMAGE_SECTOR];
};

struct ide;

struct ata_channel {
    struct ide *ide;
    struct disk_image *image;
    unsigned line;
    struct device_timer work;
};

struct ide {
    struct device dev;
    struct ide_state {
        struct pci_config config;
        struct ata_state channels[2];
    } state;
    struct pci_unit unit;
    struct ata_channel channels[2];
};

static inline struct ide *to_ide(struct device *dev)
{
    return container_of(dev, struct ide, dev);
}

static inline struct ata_state *ata_state_of(struct ata_channel *c)
{
    return &c->ide->state.channels[c - c->ide->channels];
}

/* All are called with the controller's lock held. */

/* The interrupt line follows the state. */
void ata_drive_irq(struct ata_channel *c);
/* Is the chosen drive there? Only drive 0 can be. */
bool ata_present(struct ata_channel *c);
/* To the state after a reset. */
void ata_reset(struct ata_channel *c);

/* The command register was written. */
void ata_command(struct ata_channel *c, u8 value);
/* The guest has read, or filled, the data of a PIO command to its end. */
void ata_block_done(struct ata_channel *c);

/* Ends a command, with an interrupt. @error: bits of the error register. */
void ata_fail(struct ata_channel *c, u8 error);
void ata_succeed(struct ata_channel *c);

/* Moves @sectors between disk and buffer; 0 or a negative errno. */
int ata_move_block(struct ata_channel *c, bool write, u32 sectors);
/* Lets the I/O thread do a DMA command's work once command and bus master are both started. */
void ata_start_work(struct ata_channel *c);

/* The bus master's registers, and its work in the I/O thread; @opaque is the channel. */
void ide_dma_work(void *opaque);
u64 ide_dma_read(struct device *dev, u64 offset, unsigned size);
void ide_dma_write(struct device *dev, u64 offset, unsigned size, u64 value);

#endif
