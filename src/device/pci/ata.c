/* A disk's commands (ATA/ATAPI-6). PIO moves at most 8 KiB inside the guest's access. */
#include "device/pci/ata.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LAST_28_BITS 0xfffffffull

void ata_drive_irq(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    const struct device_env *env = c->ide->dev.env;

    env->irq_set(env->opaque, c->line, s->irq && !(s->control & ATA_CONTROL_NO_IRQ));
}

static void raise_irq(struct ata_channel *c)
{
    ata_state_of(c)->irq = 1;
    ata_state_of(c)->bm_status |= BM_IRQ;
    ata_drive_irq(c);
}

bool ata_present(struct ata_channel *c)
{
    return c->image && !(ata_state_of(c)->regs[ATA_DEVICE] & ATA_DEVICE_SECOND);
}

void ata_fail(struct ata_channel *c, u8 error)
{
    struct ata_state *s = ata_state_of(c);

    s->transfer = ATA_NOTHING;
    s->dma = 0;
    s->error = error;
    s->status = ATA_DRDY | ATA_DSC | ATA_ERR;
    raise_irq(c);
}

void ata_succeed(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);

    s->transfer = ATA_NOTHING;
    s->status = ATA_DRDY | ATA_DSC;
    s->error = 0;
    raise_irq(c);
}

/* After reset: the signature of a disk (ATA/ATAPI-6, 9.12). */
void ata_reset(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u8 control = s->control, bm = s->bm_status & BM_DRIVES;

    memset(s, 0, sizeof(*s));
    s->control = control;
    s->bm_status = bm;
    s->regs[ATA_COUNT] = s->regs[ATA_LBA_LOW] = 1;
    s->error = 1;
    s->status = c->image ? ATA_DRDY | ATA_DSC : 0;
    ata_drive_irq(c);
}

/* ---- Commands ------------------------------------------------------------------------------- */

static void put_words(u8 *data, unsigned word, unsigned words, u64 value)
{
    for (unsigned i = 0; i < words; i++, value >>= 16) {
        data[2 * (word + i)] = (u8)value;
        data[2 * (word + i) + 1] = (u8)(value >> 8);
    }
}

/* Strings have the characters of each word swapped, and are padded with spaces. */
static void put_text(u8 *data, unsigned word, unsigned words, const char *text)
{
    size_t len = strlen(text);

    for (unsigned i = 0; i < 2 * words; i++)
        data[2 * word + (i ^ 1)] = i < len ? (u8)text[i] : ' ';
}

static u64 sectors_of(const struct ata_channel *c)
{
    return c->image->size / IMAGE_SECTOR;
}

static u64 cylinders_of(const struct ata_channel *c)
{
    u64 cylinders = sectors_of(c) / (ATA_HEADS * ATA_TRACK);

    return cylinders > 16383 ? 16383 : cylinders;
}

static void identify(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u64 sectors = sectors_of(c), cylinders = cylinders_of(c);
    char serial[20];

    snprintf(serial, sizeof(serial), "triode-%u", c->line);
    memset(s->data, 0, IMAGE_SECTOR);
    put_words(s->data, 0, 1, 0x0040);
    put_words(s->data, 1, 1, cylinders);
    put_words(s->data, 3, 1, ATA_HEADS);
    put_words(s->data, 6, 1, ATA_TRACK);
    put_text(s->data, 10, 10, serial);
    put_text(s->data, 23, 4, "1.0");
    put_text(s->data, 27, 20, "Triode disk");
    put_words(s->data, 47, 1, 0x8000 | ATA_MULTIPLE);
    put_words(s->data, 49, 1, 0x0300); /* LBA, DMA */
    put_words(s->data, 53, 1, 0x0007);
    put_words(s->data, 54, 1, cylinders);
    put_words(s->data, 55, 1, ATA_HEADS);
    put_words(s->data, 56, 1, ATA_TRACK);
    put_words(s->data, 57, 2, cylinders * ATA_HEADS * ATA_TRACK);
    put_words(s->data, 59, 1, s->multiple ? 0x100u | s->multiple : 0);
    put_words(s->data, 60, 2, sectors > LAST_28_BITS ? LAST_28_BITS : sectors);
    put_words(s->data, 63, 1, 0x0007); /* multiword DMA 0 to 2 */
    put_words(s->data, 64, 1, 0x0003); /* PIO 3 and 4 */
    for (unsigned i = 65; i <= 68; i++)
        put_words(s->data, i, 1, 120);
    put_words(s->data, 80, 1, 0x007e); /* ATA-1 to ATA-6 */
    put_words(s->data, 82, 1, 0x0020); /* write cache */
    put_words(s->data, 83, 1, 0x7400); /* FLUSH CACHE (EXT), 48-bit addresses */
    put_words(s->data, 84, 1, 0x4000);
    put_words(s->data, 85, 1, 0x0020);
    put_words(s->data, 86, 1, 0x3400);
    put_words(s->data, 87, 1, 0x4000);
    put_words(s->data, 88, 1, 0x003f); /* Ultra DMA 0 to 5 */
    put_words(s->data, 93, 1, 0x604b); /* 80-wire cable, device 0 */
    put_words(s->data, 100, 4, sectors);
}

/* The address and count in the task file, for 28 or 48 bits or cylinder, head, sector. */
static bool get_address(struct ata_channel *c, bool wide)
{
    struct ata_state *s = ata_state_of(c);
    const u8 *r = s->regs, *b = s->before;
    u64 low = r[ATA_LBA_LOW] | r[ATA_LBA_MIDDLE] << 8 | r[ATA_LBA_HIGH] << 16;

    if (wide) {
        s->left = r[ATA_COUNT] | b[ATA_COUNT] << 8;
        s->left = s->left ? s->left : ATA_MAX_SECTORS;
        s->sector = low | (u64)b[ATA_LBA_LOW] << 24 | (u64)b[ATA_LBA_MIDDLE] << 32 |
                    (u64)b[ATA_LBA_HIGH] << 40;
    } else {
        s->left = r[ATA_COUNT] ? r[ATA_COUNT] : 256;
        s->sector = low | (u64)(r[ATA_DEVICE] & 15) << 24;
        if (!(r[ATA_DEVICE] & ATA_DEVICE_LBA)) {
            if (!r[ATA_LBA_LOW])
                return false;
            s->sector =
                ((r[ATA_LBA_MIDDLE] | r[ATA_LBA_HIGH] << 8) * ATA_HEADS + (r[ATA_DEVICE] & 15u)) *
                    ATA_TRACK +
                r[ATA_LBA_LOW] - 1u;
        }
    }
    return s->sector <= sectors_of(c) && s->left <= sectors_of(c) - s->sector;
}

/* Moves the next block between disk and buffer; 0 or a negative errno. */
int ata_move_block(struct ata_channel *c, bool write, u32 sectors)
{
    struct ata_state *s = ata_state_of(c);
    struct iovec piece = {s->data, sectors * IMAGE_SECTOR};
    int ret;

    if (s->sector > sectors_of(c) || sectors > sectors_of(c) - s->sector)
        return -EIO;
    ret = image_transfer(c->image, write, &piece, 1, s->sector * IMAGE_SECTOR);
    s->sector += sectors;
    return ret;
}

static void next_read_block(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u32 now = s->left < s->block ? s->left : s->block;

    if (ata_move_block(c, false, now)) {
        ata_fail(c, ATA_E_NOT_FOUND);
        return;
    }
    s->left -= now;
    s->at = 0;
    s->len = now * IMAGE_SECTOR;
    s->transfer = ATA_TO_HOST;
    s->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
    raise_irq(c);
}

static void expect_write_block(struct ata_channel *c, bool interrupt)
{
    struct ata_state *s = ata_state_of(c);
    u32 now = s->left < s->block ? s->left : s->block;

    s->at = 0;
    s->len = now * IMAGE_SECTOR;
    s->transfer = ATA_FROM_HOST;
    s->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
    if (interrupt)
        raise_irq(c);
}

void ata_block_done(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u32 sectors = s->len / IMAGE_SECTOR;

    if (s->transfer == ATA_TO_HOST) {
        s->transfer = ATA_NOTHING;
        s->status = ATA_DRDY | ATA_DSC;
        if (s->left)
            next_read_block(c);
        return;
    }
    if (ata_move_block(c, true, sectors)) {
        ata_fail(c, ATA_E_ABORT);
        return;
    }
    s->left -= sectors;
    if (s->left)
        expect_write_block(c, true);
    else
        ata_succeed(c);
}

static void start_pio(struct ata_channel *c, bool write, bool wide, u32 block)
{
    struct ata_state *s = ata_state_of(c);

    s->block = block;
    if (!block || (write && c->image->read_only))
        ata_fail(c, ATA_E_ABORT);
    else if (!get_address(c, wide))
        ata_fail(c, ATA_E_NOT_FOUND);
    else if (write)
        expect_write_block(c, false);
    else
        next_read_block(c);
}

void ata_start_work(struct ata_channel *c)
{
    const struct device_env *env = c->ide->dev.env;

    if (ata_state_of(c)->dma && (ata_state_of(c)->bm_command & BM_START))
        env->timer_set(env->opaque, &c->work, 1);
}

static void start_dma(struct ata_channel *c, bool write, bool wide)
{
    struct ata_state *s = ata_state_of(c);

    if (write && c->image->read_only) {
        ata_fail(c, ATA_E_ABORT);
    } else if (!get_address(c, wide)) {
        ata_fail(c, ATA_E_NOT_FOUND);
    } else {
        s->dma = 1;
        s->dma_write = write;
        s->status = ATA_DRDY | ATA_BSY;
        ata_start_work(c);
    }
}

static void set_features(struct ata_channel *c, u8 feature)
{
    switch (feature) {
    case 0x02: /* write cache on, off */
    case 0x82:
    case 0x03: /* transfer mode */
    case 0x55: /* look-ahead off, on */
    case 0xaa:
    case 0x66: /* power-on defaults */
    case 0xcc:
        ata_succeed(c);
        break;
    default:
        ata_fail(c, ATA_E_ABORT);
        break;
    }
}

static void send_identity(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);

    identify(c);
    s->at = 0;
    s->len = IMAGE_SECTOR;
    s->left = 0;
    s->transfer = ATA_TO_HOST;
    s->status = ATA_DRDY | ATA_DSC | ATA_DRQ;
    raise_irq(c);
}

static void succeed_if(struct ata_channel *c, bool fine, u8 error)
{
    if (fine)
        ata_succeed(c);
    else
        ata_fail(c, error);
}

static void set_multiple(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u8 sectors = s->regs[ATA_COUNT];
    bool fine = sectors <= ATA_MULTIPLE && !(sectors & (sectors - 1));

    if (fine)
        s->multiple = sectors;
    succeed_if(c, fine, ATA_E_ABORT);
}

/* All of the disk is native. */
static void native_max(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);
    u64 last = sectors_of(c) - 1;

    if (last > LAST_28_BITS)
        last = LAST_28_BITS;
    s->regs[ATA_LBA_LOW] = (u8)last;
    s->regs[ATA_LBA_MIDDLE] = (u8)(last >> 8);
    s->regs[ATA_LBA_HIGH] = (u8)(last >> 16);
    s->regs[ATA_DEVICE] = (s->regs[ATA_DEVICE] & 0xf0) | (last >> 24 & 15);
    ata_succeed(c);
}

/* The disk has passed its test. */
static void diagnose(struct ata_channel *c)
{
    struct ata_state *s = ata_state_of(c);

    s->regs[ATA_COUNT] = s->regs[ATA_LBA_LOW] = 1;
    s->regs[ATA_LBA_MIDDLE] = s->regs[ATA_LBA_HIGH] = 0;
    ata_succeed(c);
    s->error = 1;
}

/* Commands that move sectors; with 48-bit addresses where @wide, blocks of several where
 * @multiple. */
static const struct transfer {
    u8 command;
    bool dma, write, wide, multiple;
} transfers[] = {
    {0x20}, /* READ SECTORS (EXT); 21h and the like are the older ones that do not retry */
    {0x21},
    {0x24, .wide = true},
    {0xc4, .multiple = true}, /* READ MULTIPLE (EXT) */
    {0x29, .wide = true, .multiple = true},
    {0x30, .write = true}, /* WRITE SECTORS (EXT) */
    {0x31, .write = true},
    {0x34, .write = true, .wide = true},
    {0xc5, .write = true, .multiple = true}, /* WRITE MULTIPLE (EXT) */
    {0x39, .write = true, .wide = true, .multiple = true},
    {0xc8, .dma = true}, /* READ DMA (EXT) */
    {0xc9, .dma = true},
    {0x25, .dma = true, .wide = true},
    {0xca, .dma = true, .write = true}, /* WRITE DMA (EXT) */
    {0xcb, .dma = true, .write = true},
    {0x35, .dma = true, .write = true, .wide = true},
};

static bool start_transfer(struct ata_channel *c, u8 command)
{
    for (size_t i = 0; i < ARRAY_SIZE(transfers); i++) {
        const struct transfer *t = &transfers[i];

        if (t->command != command)
            continue;
        if (t->dma)
            start_dma(c, t->write, t->wide);
        else
            start_pio(c, t->write, t->wide, t->multiple ? ata_state_of(c)->multiple : 1);
        return true;
    }
    return false;
}

void ata_command(struct ata_channel *c, u8 value)
{
    struct ata_state *s = ata_state_of(c);

    if (!ata_present(c) || (s->status & ATA_BSY))
        return;
    s->error = 0;
    if (start_transfer(c, value))
        return;
    switch (value) {
    case 0xec: /* IDENTIFY DEVICE */
        send_identity(c);
        break;
    case 0x40: /* READ VERIFY SECTORS (EXT) */
    case 0x42:
        succeed_if(c, get_address(c, value == 0x42), ATA_E_NOT_FOUND);
        break;
    case 0xc6: /* SET MULTIPLE MODE */
        set_multiple(c);
        break;
    case 0xe7: /* FLUSH CACHE (EXT) */
    case 0xea:
        succeed_if(c, !image_flush(c->image), ATA_E_ABORT);
        break;
    case 0xf8: /* READ NATIVE MAX ADDRESS */
        native_max(c);
        break;
    case 0xef: /* SET FEATURES */
        set_features(c, s->regs[ATA_ERROR]);
        break;
    case 0xe5: /* CHECK POWER MODE: active */
        s->regs[ATA_COUNT] = 0xff;
        ata_succeed(c);
        break;
    case 0x91: /* INITIALIZE DEVICE PARAMETERS: there is one geometry */
        succeed_if(c,
                   s->regs[ATA_COUNT] == ATA_TRACK && (s->regs[ATA_DEVICE] & 15) == ATA_HEADS - 1,
                   ATA_E_ABORT);
        break;
    case 0x10:          /* RECALIBRATE */
    case 0xe0 ... 0xe3: /* STANDBY, IDLE */
        ata_succeed(c);
        break;
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC */
        diagnose(c);
        break;
    default:
        ata_fail(c, ATA_E_ABORT);
        break;
    }
}
