/*
 * IDE controller with two channels in compatibility mode (Intel 82371SB PIIX3 data sheet; ATA/ATAPI-6
 * for commands; Programming Interface for Bus Master IDE Controller 1.0). Each channel takes a disk
 * as its drive 0. DMA is the I/O thread's work; PIO moves at most 8 KiB inside the guest's access.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/thread.h"
#include "device/ide.h"
#include "device/image.h"
#include "device/pci/pci.h"

enum {
    DATA = 0,
    ERROR = 1, /* written: features */
    COUNT = 2,
    LBA_LOW = 3,
    LBA_MIDDLE = 4,
    LBA_HIGH = 5,
    DEVICE = 6,
    COMMAND = 7, /* read: status */

    BSY = 0x80,
    DRDY = 0x40,
    DF = 0x20,
    DSC = 0x10,
    DRQ = 0x08,
    ERR = 0x01,

    E_ABORT = 0x04,
    E_NOT_FOUND = 0x10,

    DEVICE_LBA = 0x40,
    DEVICE_SECOND = 0x10,
    CONTROL_HIGH = 0x80, /* show what was written to the registers before */
    CONTROL_RESET = 0x04,
    CONTROL_NO_IRQ = 0x02,

    BM_START = 0x01,
    BM_TO_MEMORY = 0x08,
    BM_ACTIVE = 0x01,
    BM_ERROR = 0x02,
    BM_IRQ = 0x04,
    BM_DRIVES = 0x60, /* capability bits software keeps */

    BM_BAR = 4,
    MULTIPLE = 16, /* sectors per interrupt at most */
    HEADS = 16,
    TRACK = 63,
    MAX_SECTORS = 65536,
};

enum transfer { NOTHING, TO_HOST, FROM_HOST };

struct channel_state {
    u8 regs[8], before[8]; /* task file, and what it held before the last writes */
    u8 status, error, control;
    u8 multiple;
    u8 transfer; /* enum transfer, of the PIO data under way */
    u8 dma, dma_write, bm_command, bm_status, irq;
    u32 prd;
    u32 at, len;     /* within data */
    u64 sector;      /* next one on the disk */
    u32 left, block; /* sectors after those in data; sectors a block */
    u8 data[MULTIPLE * IMAGE_SECTOR];
};

struct ide;

struct channel {
    struct ide *ide;
    struct disk_image *image;
    unsigned line;
    struct device_timer work;
};

struct ide {
    struct device dev;
    struct ide_state {
        struct pci_config config;
        struct channel_state channels[2];
    } state;
    struct pci_unit unit;
    struct channel channels[2];
};

static struct ide *to_ide(struct device *dev)
{
    return container_of(dev, struct ide, dev);
}

static struct channel_state *state_of(struct channel *c)
{
    return &c->ide->state.channels[c - c->ide->channels];
}

static void drive_irq(struct channel *c)
{
    struct channel_state *s = state_of(c);
    const struct device_env *env = c->ide->dev.env;

    env->irq_set(env->opaque, c->line, s->irq && !(s->control & CONTROL_NO_IRQ));
}

static void raise(struct channel *c)
{
    state_of(c)->irq = 1;
    state_of(c)->bm_status |= BM_IRQ;
    drive_irq(c);
}

static bool present(struct channel *c)
{
    return c->image && !(state_of(c)->regs[DEVICE] & DEVICE_SECOND);
}

static void fail(struct channel *c, u8 error)
{
    struct channel_state *s = state_of(c);

    s->transfer = NOTHING;
    s->dma = 0;
    s->error = error;
    s->status = DRDY | DSC | ERR;
    raise(c);
}

static void succeed(struct channel *c)
{
    struct channel_state *s = state_of(c);

    s->transfer = NOTHING;
    s->status = DRDY | DSC;
    s->error = 0;
    raise(c);
}

/* After reset: the signature of a disk (ATA/ATAPI-6, 9.12). */
static void reset_channel(struct channel *c)
{
    struct channel_state *s = state_of(c);
    u8 control = s->control, bm = s->bm_status & BM_DRIVES;

    memset(s, 0, sizeof(*s));
    s->control = control;
    s->bm_status = bm;
    s->regs[COUNT] = s->regs[LBA_LOW] = 1;
    s->error = 1;
    s->status = c->image ? DRDY | DSC : 0;
    drive_irq(c);
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

static u64 sectors_of(const struct channel *c)
{
    return c->image->size / IMAGE_SECTOR;
}

static u64 cylinders_of(const struct channel *c)
{
    u64 cylinders = sectors_of(c) / (HEADS * TRACK);

    return cylinders > 16383 ? 16383 : cylinders;
}

static void identify(struct channel *c)
{
    struct channel_state *s = state_of(c);
    u64 sectors = sectors_of(c), cylinders = cylinders_of(c);
    u64 small = sectors > 0xfffffff ? 0xfffffff : sectors;
    char serial[20];

    snprintf(serial, sizeof(serial), "triode-%u", c->line);
    memset(s->data, 0, IMAGE_SECTOR);
    put_words(s->data, 0, 1, 0x0040);
    put_words(s->data, 1, 1, cylinders);
    put_words(s->data, 3, 1, HEADS);
    put_words(s->data, 6, 1, TRACK);
    put_text(s->data, 10, 10, serial);
    put_text(s->data, 23, 4, "1.0");
    put_text(s->data, 27, 20, "Triode disk");
    put_words(s->data, 47, 1, 0x8000 | MULTIPLE);
    put_words(s->data, 49, 1, 0x0300); /* LBA, DMA */
    put_words(s->data, 53, 1, 0x0007);
    put_words(s->data, 54, 1, cylinders);
    put_words(s->data, 55, 1, HEADS);
    put_words(s->data, 56, 1, TRACK);
    put_words(s->data, 57, 2, cylinders * HEADS * TRACK);
    put_words(s->data, 59, 1, s->multiple ? 0x100u | s->multiple : 0);
    put_words(s->data, 60, 2, small);
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
static bool get_address(struct channel *c, bool wide)
{
    struct channel_state *s = state_of(c);
    const u8 *r = s->regs, *b = s->before;
    u64 low = r[LBA_LOW] | r[LBA_MIDDLE] << 8 | r[LBA_HIGH] << 16;

    if (wide) {
        s->left = r[COUNT] | b[COUNT] << 8;
        s->left = s->left ? s->left : MAX_SECTORS;
        s->sector = low | (u64)b[LBA_LOW] << 24 | (u64)b[LBA_MIDDLE] << 32 | (u64)b[LBA_HIGH] << 40;
    } else {
        s->left = r[COUNT] ? r[COUNT] : 256;
        s->sector = low | (u64)(r[DEVICE] & 15) << 24;
        if (!(r[DEVICE] & DEVICE_LBA)) {
            if (!r[LBA_LOW])
                return false;
            s->sector = ((r[LBA_MIDDLE] | r[LBA_HIGH] << 8) * HEADS + (r[DEVICE] & 15u)) * TRACK +
                        r[LBA_LOW] - 1u;
        }
    }
    return s->sector <= sectors_of(c) && s->left <= sectors_of(c) - s->sector;
}

/* Moves the next block between disk and buffer; 0 or a negative errno. */
static int move_block(struct channel *c, bool write, u32 sectors)
{
    struct channel_state *s = state_of(c);
    struct iovec piece = {s->data, sectors * IMAGE_SECTOR};
    int ret;

    if (s->sector > sectors_of(c) || sectors > sectors_of(c) - s->sector)
        return -EIO;
    ret = image_transfer(c->image, write, &piece, 1, s->sector * IMAGE_SECTOR);
    s->sector += sectors;
    return ret;
}

static void next_read_block(struct channel *c)
{
    struct channel_state *s = state_of(c);
    u32 now = s->left < s->block ? s->left : s->block;

    if (move_block(c, false, now)) {
        fail(c, E_NOT_FOUND);
        return;
    }
    s->left -= now;
    s->at = 0;
    s->len = now * IMAGE_SECTOR;
    s->transfer = TO_HOST;
    s->status = DRDY | DSC | DRQ;
    raise(c);
}

static void expect_write_block(struct channel *c, bool interrupt)
{
    struct channel_state *s = state_of(c);
    u32 now = s->left < s->block ? s->left : s->block;

    s->at = 0;
    s->len = now * IMAGE_SECTOR;
    s->transfer = FROM_HOST;
    s->status = DRDY | DSC | DRQ;
    if (interrupt)
        raise(c);
}

static void block_done(struct channel *c)
{
    struct channel_state *s = state_of(c);
    u32 sectors = s->len / IMAGE_SECTOR;

    if (s->transfer == TO_HOST) {
        s->transfer = NOTHING;
        s->status = DRDY | DSC;
        if (s->left)
            next_read_block(c);
        return;
    }
    if (move_block(c, true, sectors)) {
        fail(c, E_ABORT);
        return;
    }
    s->left -= sectors;
    if (s->left)
        expect_write_block(c, true);
    else
        succeed(c);
}

static void start_pio(struct channel *c, bool write, bool wide, u32 block)
{
    struct channel_state *s = state_of(c);

    s->block = block;
    if (!block || (write && c->image->read_only))
        fail(c, E_ABORT);
    else if (!get_address(c, wide))
        fail(c, E_NOT_FOUND);
    else if (write)
        expect_write_block(c, false);
    else
        next_read_block(c);
}

static void start_work(struct channel *c)
{
    const struct device_env *env = c->ide->dev.env;

    if (state_of(c)->dma && (state_of(c)->bm_command & BM_START))
        env->timer_set(env->opaque, &c->work, 1);
}

static void start_dma(struct channel *c, bool write, bool wide)
{
    struct channel_state *s = state_of(c);

    if (write && c->image->read_only) {
        fail(c, E_ABORT);
    } else if (!get_address(c, wide)) {
        fail(c, E_NOT_FOUND);
    } else {
        s->dma = 1;
        s->dma_write = write;
        s->status = DRDY | BSY;
        start_work(c);
    }
}

static void set_features(struct channel *c, u8 feature)
{
    switch (feature) {
    case 0x02: /* write cache on, off */
    case 0x82:
    case 0x03: /* transfer mode */
    case 0x55: /* look-ahead off, on */
    case 0xaa:
    case 0x66: /* power-on defaults */
    case 0xcc:
        succeed(c);
        break;
    default:
        fail(c, E_ABORT);
        break;
    }
}

static void command(struct channel *c, u8 value)
{
    struct channel_state *s = state_of(c);

    if (!present(c) || (s->status & BSY))
        return;
    s->error = 0;
    switch (value) {
    case 0xec: /* IDENTIFY DEVICE */
        identify(c);
        s->at = 0;
        s->len = IMAGE_SECTOR;
        s->left = 0;
        s->transfer = TO_HOST;
        s->status = DRDY | DSC | DRQ;
        raise(c);
        break;
    case 0x20: /* READ SECTORS */
    case 0x21:
        start_pio(c, false, false, 1);
        break;
    case 0x24:
        start_pio(c, false, true, 1);
        break;
    case 0x29:
        start_pio(c, false, true, s->multiple);
        break;
    case 0xc4: /* READ MULTIPLE */
        start_pio(c, false, false, s->multiple);
        break;
    case 0x30: /* WRITE SECTORS */
    case 0x31:
        start_pio(c, true, false, 1);
        break;
    case 0x34:
        start_pio(c, true, true, 1);
        break;
    case 0x39:
        start_pio(c, true, true, s->multiple);
        break;
    case 0xc5: /* WRITE MULTIPLE */
        start_pio(c, true, false, s->multiple);
        break;
    case 0xc8: /* READ DMA */
    case 0xc9:
    case 0x25:
        start_dma(c, false, value == 0x25);
        break;
    case 0xca: /* WRITE DMA */
    case 0xcb:
    case 0x35:
        start_dma(c, true, value == 0x35);
        break;
    case 0x40: /* READ VERIFY SECTORS */
    case 0x42:
        if (get_address(c, value == 0x42))
            succeed(c);
        else
            fail(c, E_NOT_FOUND);
        break;
    case 0xc6: /* SET MULTIPLE MODE */
        if (s->regs[COUNT] > MULTIPLE || (s->regs[COUNT] & (s->regs[COUNT] - 1))) {
            fail(c, E_ABORT);
        } else {
            s->multiple = s->regs[COUNT];
            succeed(c);
        }
        break;
    case 0xe7: /* FLUSH CACHE (EXT) */
    case 0xea:
        if (image_flush(c->image))
            fail(c, E_ABORT);
        else
            succeed(c);
        break;
    case 0xf8: /* READ NATIVE MAX ADDRESS: all of it is */
        s->regs[LBA_LOW] = (u8)(sectors_of(c) - 1);
        s->regs[LBA_MIDDLE] = (u8)((sectors_of(c) - 1) >> 8);
        s->regs[LBA_HIGH] = (u8)((sectors_of(c) - 1) >> 16);
        s->regs[DEVICE] = (s->regs[DEVICE] & 0xf0) | ((sectors_of(c) - 1) >> 24 & 15);
        succeed(c);
        break;
    case 0xef:
        set_features(c, s->regs[ERROR]);
        break;
    case 0xe5: /* CHECK POWER MODE: active */
        s->regs[COUNT] = 0xff;
        succeed(c);
        break;
    case 0x10:          /* RECALIBRATE */
    case 0x91:          /* INITIALIZE DEVICE PARAMETERS */
    case 0xe0 ... 0xe3: /* STANDBY, IDLE */
        succeed(c);
        break;
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC: passed */
        s->regs[COUNT] = s->regs[LBA_LOW] = 1;
        s->regs[LBA_MIDDLE] = s->regs[LBA_HIGH] = 0;
        succeed(c);
        s->error = 1;
        break;
    default:
        fail(c, E_ABORT);
        break;
    }
}

/* ---- Bus master ------------------------------------------------------------------------------ */

/* One entry of the physical region descriptor table; 0 bytes mean 64 KiB. */
struct prd {
    u32 gpa;
    u16 len, end;
};

/* Moves [@gpa, @gpa + @len) to or from the disk, through the buffer. */
static int dma_piece(struct channel *c, u64 gpa, u32 len, u32 *fill)
{
    struct channel_state *s = state_of(c);
    struct mem *mem = c->ide->dev.env->mem;

    while (len && (s->left || s->at < *fill)) {
        u32 some;
        int ret = 0;

        if (s->at == *fill) { /* the buffer is used up */
            u32 sectors = s->left < MULTIPLE ? s->left : MULTIPLE;

            *fill = sectors * IMAGE_SECTOR;
            s->at = 0;
            s->left -= sectors;
            if (!s->dma_write && move_block(c, false, sectors))
                return -EIO;
        }
        some = *fill - s->at < len ? *fill - s->at : len;
        ret = s->dma_write ? mem_read(mem, gpa, s->data + s->at, some)
                           : mem_write(mem, gpa, s->data + s->at, some);
        if (ret)
            return ret;
        s->at += some;
        gpa += some;
        len -= some;
        if (s->dma_write && s->at == *fill && move_block(c, true, *fill / IMAGE_SECTOR))
            return -EIO;
    }
    return 0;
}

/* In the I/O thread. A table has at most 64 KiB of entries, so that this ends. */
static void do_dma(struct channel *c)
{
    struct channel_state *s = state_of(c);
    u32 fill = 0, at = s->prd;
    bool last = false;
    int ret = 0;

    s->at = 0;
    for (unsigned i = 0; !ret && !last && i < 8192 && (s->left || s->at < fill); i++) {
        struct prd prd;

        ret = mem_read(c->ide->dev.env->mem, at, &prd, sizeof(prd));
        if (!ret)
            ret = dma_piece(c, prd.gpa & ~1u, prd.len & ~1u ? prd.len & ~1u : 0x10000, &fill);
        last = prd.end & 0x8000;
        at += sizeof(prd);
    }
    s->dma = 0;
    if (ret || s->left || s->at < fill) {
        s->bm_status |= ret ? BM_ERROR : 0;
        s->bm_status &= ~BM_ACTIVE;
        fail(c, E_ABORT);
    } else {
        s->bm_status &= last ? ~BM_ACTIVE : ~0;
        succeed(c);
    }
}

static void work(void *opaque)
{
    struct channel *c = opaque;

    mutex_lock(&c->ide->dev.lock);
    if (state_of(c)->dma && (state_of(c)->bm_command & BM_START) && c->image)
        do_dma(c);
    mutex_unlock(&c->ide->dev.lock);
}

static u64 read_bm(struct device *dev, u64 offset, unsigned size)
{
    struct channel_state *s = &to_ide(dev)->state.channels[offset >> 3 & 1];
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

static void write_bm_byte(struct channel *c, unsigned reg, u8 value)
{
    struct channel_state *s = state_of(c);

    if (reg == 0) {
        bool starts = !(s->bm_command & BM_START) && (value & BM_START);

        s->bm_command = value & (BM_START | BM_TO_MEMORY);
        if (starts) {
            s->bm_status |= BM_ACTIVE;
            start_work(c);
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

static void write_bm(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct channel *c = &to_ide(dev)->channels[offset >> 3 & 1];

    for (unsigned i = 0; i < size; i++)
        write_bm_byte(c, (offset + i) & 7, (u8)(value >> 8 * i));
}

/* ---- Task file --------------------------------------------------------------------------------- */

static u64 read_data(struct channel *c, unsigned size)
{
    struct channel_state *s = state_of(c);
    u64 value = 0;

    if (s->transfer != TO_HOST || s->at + size > s->len)
        return 0;
    memcpy(&value, s->data + s->at, size);
    s->at += size;
    if (s->at >= s->len)
        block_done(c);
    return value;
}

static void write_data(struct channel *c, unsigned size, u64 value)
{
    struct channel_state *s = state_of(c);

    if (s->transfer != FROM_HOST || s->at + size > s->len)
        return;
    memcpy(s->data + s->at, &value, size);
    s->at += size;
    if (s->at >= s->len)
        block_done(c);
}

static u8 status_of(struct channel *c)
{
    return present(c) ? state_of(c)->status : 0;
}

static u64 read_register(struct channel *c, unsigned reg)
{
    struct channel_state *s = state_of(c);
    const u8 *regs = s->control & CONTROL_HIGH ? s->before : s->regs;

    if (!c->image)
        return reg == COMMAND ? 0 : 0xff;
    switch (reg) {
    case COMMAND:
        s->irq = 0;
        drive_irq(c);
        return status_of(c);
    case ERROR:
        return present(c) ? s->error : 0;
    case DEVICE:
        return s->regs[DEVICE] | 0xa0;
    default:
        return present(c) ? regs[reg] : 0;
    }
}

static void write_register(struct channel *c, unsigned reg, u8 value)
{
    struct channel_state *s = state_of(c);

    if (reg == COMMAND) {
        s->irq = 0;
        drive_irq(c);
        command(c, value);
        return;
    }
    if (s->status & BSY)
        return;
    s->control &= ~CONTROL_HIGH;
    s->before[reg] = s->regs[reg];
    s->regs[reg] = value;
}

static u64 read_task(struct channel *c, u64 offset, unsigned size)
{
    u64 value = 0;

    if (offset == DATA)
        return read_data(c, size);
    for (unsigned i = 0; i < size; i++)
        value |= read_register(c, (unsigned)offset + i) << 8 * i;
    return value;
}

static void write_task(struct channel *c, u64 offset, unsigned size, u64 value)
{
    if (offset == DATA) {
        write_data(c, size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_register(c, (unsigned)offset + i, (u8)(value >> 8 * i));
}

static void write_control(struct channel *c, u8 value)
{
    struct channel_state *s = state_of(c);
    bool released = (s->control & CONTROL_RESET) && !(value & CONTROL_RESET);

    s->control = value;
    if (value & CONTROL_RESET)
        s->status = BSY;
    if (released)
        reset_channel(c);
    drive_irq(c);
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
    pci_unit_written(&to_ide(dev)->unit, offset, size);
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
        reset_channel(&ide->channels[i]);
    }
}

static void loaded(struct device *dev)
{
    struct ide *ide = to_ide(dev);

    for (unsigned i = 0; i < 2; i++) {
        struct channel_state *s = &ide->state.channels[i];

        if (s->len > sizeof(s->data) || s->at > s->len || s->block > MULTIPLE ||
            s->multiple > MULTIPLE)
            reset_channel(&ide->channels[i]);
        drive_irq(&ide->channels[i]);
        start_work(&ide->channels[i]);
    }
    pci_unit_loaded(&ide->unit);
}

void device_ide_set_disk(struct device *dev, unsigned channel, struct disk_image *image)
{
    struct channel *c = &to_ide(dev)->channels[channel];

    mutex_lock(&dev->lock);
    c->image = image;
    reset_channel(c);
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
        struct channel *c = &ide->channels[i];

        *c = (struct channel){.ide = ide, .line = 14 + i};
        c->work = (struct device_timer){.fire = work, .opaque = c};
    }
    for (size_t i = 0; !ret && i < ARRAY_SIZE(regions); i++)
        ret = device_bus_add(dev->ports, &regions[i]);
    ide->unit.dev = dev;
    ide->unit.config = &ide->state.config;
    ide->unit.devfn = PCI_DEVFN((unsigned)slot, 0);
    ide->unit.bars[BM_BAR] = (struct pci_bar){16, true, 4, read_bm, write_bm};
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
