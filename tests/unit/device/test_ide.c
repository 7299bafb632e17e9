/* The IDE controller: a disk by PIO and by DMA, errors, and registers at random. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board.h"

#include "device/ide.h"

#define RAM (256 * KiB)
#define SECTORS 64
#define BM 0xc000

static struct {
    struct board *b;
    struct device *dev;
    struct disk_image image;
    u8 *arena, *ram;
} t;

static char path[] = "/tmp/triode-ide-XXXXXX";

static void set_config(unsigned reg, unsigned size, u32 value)
{
    out(t.b, 0xcf8, 4, 0x80000000 | 1 << 11 | (reg & 0xfc));
    out(t.b, (u16)(0xcfc + (reg & 3)), size, value);
}

static void place_bus_master(void)
{
    set_config(0x20, 4, BM);
    set_config(0x04, 2, 5);
}

static void setup(bool read_only)
{
    struct device_place place;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    memset(&t, 0, sizeof(t));
    for (unsigned i = 0; i < SECTORS; i++) {
        u8 sector[512];

        memset(sector, (int)i + 1, sizeof(sector));
        assert_int_equal(write(fd, sector, 512), 512);
    }
    close(fd);
    assert_int_equal(image_open(&t.image, path, read_only, NULL), 0);
    t.arena = mmap(NULL, RAM + 2 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    t.ram = t.arena + MiB;
    assert_int_equal(mprotect(t.ram, RAM, PROT_READ | PROT_WRITE), 0);
    t.b = board_new("pci-host", NULL);
    t.b->env.mem = mem_create();
    assert_int_equal(mem_set_slot(t.b->env.mem, 0, 0, 0, RAM, t.ram), 0);
    place = board_place(t.b);
    place.stream = NULL;
    place.parent = t.b->dev;
    assert_int_equal(device_create(&t.dev, "ide", NULL, &place, NULL), 0);
    device_ide_set_disk(t.dev, 0, &t.image);
    place_bus_master();
}

static void cleanup(void)
{
    device_destroy(t.dev);
    mem_destroy(t.b->env.mem);
    board_free(t.b);
    image_close(&t.image);
    munmap(t.arena, RAM + 2 * MiB);
}

static void start(u8 command, u32 lba, u8 count)
{
    outb(t.b, 0x1f6, 0xe0 | lba >> 24);
    outb(t.b, 0x1f2, count);
    outb(t.b, 0x1f3, (u8)lba);
    outb(t.b, 0x1f4, (u8)(lba >> 8));
    outb(t.b, 0x1f5, (u8)(lba >> 16));
    outb(t.b, 0x1f7, command);
}

static void pio(void **state)
{
    u8 sector[512];

    (void)state;
    setup(false);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    assert_int_equal(inb(t.b, 0x177), 0); /* nothing there */
    start(0xec, 0, 0);
    assert_int_equal(t.b->line[14], 1);
    assert_int_equal(inb(t.b, 0x3f6), 0x58);
    assert_int_equal(t.b->line[14], 1); /* the alternate status leaves it */
    assert_int_equal(inb(t.b, 0x1f7), 0x58);
    assert_int_equal(t.b->line[14], 0);
    for (unsigned i = 0; i < 256; i++) {
        u16 word = (u16)in(t.b, 0x1f0, 2);

        if (i == 27)
            assert_int_equal(word, 'T' << 8 | 'r');
        if (i == 60 || i == 100)
            assert_int_equal(word, SECTORS);
    }
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    start(0x20, 5, 2);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(in(t.b, 0x1f0, 4), i < 128 ? 0x06060606 : 0x07070707);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    start(0x30, SECTORS - 1, 1);
    for (unsigned i = 0; i < 256; i++)
        out(t.b, 0x1f0, 2, i);
    assert_int_equal(t.b->line[14], 1);
    start(0xe7, 0, 0);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    assert_int_equal(pread(t.image.fd, sector, 512, (SECTORS - 1) * 512), 512);
    assert_int_equal(sector[510], 255);
    /* Cylinder 0, head 0, sector 3 is the third. */
    start(0x20, 0, 1);
    outb(t.b, 0x1f6, 0xa0);
    outb(t.b, 0x1f3, 3);
    outb(t.b, 0x1f2, 1);
    outb(t.b, 0x1f7, 0x20);
    assert_int_equal(in(t.b, 0x1f0, 2), 0x0303);
    cleanup();
}

/* A geometry that is not the disk's own would make addresses mean something else. */
static void geometry(void **state)
{
    (void)state;
    setup(false);
    outb(t.b, 0x1f6, 0xa0 | 15);
    outb(t.b, 0x1f2, 63);
    outb(t.b, 0x1f7, 0x91);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    outb(t.b, 0x1f2, 17);
    outb(t.b, 0x1f7, 0x91);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    assert_int_equal(inb(t.b, 0x1f1), 4);
    outb(t.b, 0x1f6, 0xa0 | 3);
    outb(t.b, 0x1f2, 63);
    outb(t.b, 0x1f7, 0x91);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    cleanup();
}

/* The highest address in 28 bits: of a disk that has more, the highest that they can tell. */
static void native_max(void **state)
{
    (void)state;
    setup(false);
    start(0xf8, 0, 0);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    assert_int_equal(inb(t.b, 0x1f3), SECTORS - 1);
    assert_int_equal(inb(t.b, 0x1f6) & 15, 0);
    t.image.size = 0x10000001ull * 512;
    start(0xf8, 0, 0);
    assert_int_equal(inb(t.b, 0x1f3), 0xff);
    assert_int_equal(inb(t.b, 0x1f4), 0xff);
    assert_int_equal(inb(t.b, 0x1f5), 0xff);
    assert_int_equal(inb(t.b, 0x1f6) & 15, 15);
    cleanup();
}

static void errors(void **state)
{
    (void)state;
    setup(false);
    start(0x20, SECTORS, 1);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    assert_int_equal(inb(t.b, 0x1f1), 0x10);
    start(0x20, SECTORS - 1, 2);
    assert_int_equal(inb(t.b, 0x1f7) & 1, 1);
    start(0x00, 0, 0);
    assert_int_equal(inb(t.b, 0x1f1), 4);
    start(0xc4, 0, 1); /* no multiple mode set */
    assert_int_equal(inb(t.b, 0x1f1), 4);
    assert_int_equal(truncate(path, 512), 0);
    start(0x20, 1, 1);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    outb(t.b, 0x3f6, 4);
    assert_int_equal(inb(t.b, 0x1f7), 0x80);
    outb(t.b, 0x3f6, 0);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    outb(t.b, 0x1f6, 0x10);
    assert_int_equal(inb(t.b, 0x1f7), 0); /* no second drive */
    cleanup();
    setup(true);
    start(0x30, 0, 1);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    start(0xca, 0, 1);
    assert_int_equal(inb(t.b, 0x1f7), 0x51);
    cleanup();
}

static u8 dma(u8 command, u32 lba, u8 count)
{
    out(t.b, BM + 4, 4, 0x1000);
    outb(t.b, BM + 2, 6);
    start(command, lba, count);
    outb(t.b, BM, command == 0xc8 ? 9 : 1);
    board_fire(t.b);
    outb(t.b, BM, 0);
    return inb(t.b, 0x1f7);
}

static void direct_memory(void **state)
{
    (void)state;
    setup(false);
    memcpy(t.ram + 0x1000, (u32[]){0x2000, 700, 0x3000, 0x80000000 | 324}, 16);
    assert_int_equal(dma(0xc8, 9, 2), 0x50);
    assert_int_equal(inb(t.b, BM + 2) & 7, 4);
    assert_int_equal(t.ram[0x2000], 10);
    assert_int_equal(t.ram[0x2000 + 699], 11);
    assert_int_equal(t.ram[0x2000 + 700], 0);
    assert_int_equal(t.ram[0x3000 + 323], 11);
    assert_int_equal(t.ram[0x3000 + 324], 0);
    memset(t.ram + 0x2000, 0x77, 700);
    assert_int_equal(dma(0xca, 0, 2), 0x50);
    assert_int_equal(dma(0xc8, 0, 2), 0x50);
    assert_int_equal(t.ram[0x2000], 0x77);
    assert_int_equal(t.ram[0x3000], 11);
    assert_int_equal(dma(0xc8, 0, 3) & 1, 1); /* the table is too short */
    memcpy(t.ram + 0x1000, (u32[]){RAM - 512, 0x80000400}, 8);
    assert_int_equal(dma(0xc8, 0, 2) & 1, 1); /* no memory there */
    assert_int_equal(inb(t.b, BM + 2) & 2, 2);
    cleanup();
}

static void random_registers(void **state)
{
    static const u16 ports[] = {0x1f0, 0x1f0, 0x1f1, 0x1f2, 0x1f3,  0x1f4,  0x1f5, 0x1f6,
                                0x1f7, 0x1f7, 0x3f6, BM,    BM + 2, BM + 4, 0x170, 0x177};
    static const u8 commands[] = {0x20, 0x24, 0x29, 0x30, 0x34, 0x39, 0xc4, 0xc5, 0xc6,
                                  0xc8, 0x25, 0xca, 0x35, 0xe7, 0xec, 0xf8, 0x90, 0xef};
    u64 seed = 1;
    struct stat st;

    (void)state;
    setup(false);
    for (unsigned i = 0; i < 200000; i++) {
        u16 port;
        u64 value;

        seed = seed * 6364136223846793005 + 1442695040888963407;
        port = ports[seed >> 60];
        value = seed >> 24 & 0xff;
        if (port == 0x1f7 && (seed >> 58 & 3))
            value = commands[value % sizeof(commands)];
        if (port == 0x1f6)
            value &= 0xe1;
        if (port == BM + 4)
            value = seed >> 20 & (RAM - 1);
        if (seed >> 33 & 1)
            in(t.b, port, 1u << (seed >> 34) % 3);
        else
            out(t.b, port, 1u << (seed >> 34) % 3, value);
        if (!(seed >> 40 & 7))
            board_fire(t.b);
    }
    assert_int_equal(fstat(t.image.fd, &st), 0);
    assert_int_equal(st.st_size, SECTORS * 512);
    device_reset(t.dev);
    assert_int_equal(inb(t.b, 0x1f7), 0x50);
    cleanup();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pio),           cmocka_unit_test(geometry),
        cmocka_unit_test(native_max),    cmocka_unit_test(errors),
        cmocka_unit_test(direct_memory), cmocka_unit_test(random_registers),
    };
    int ret;

    close(mkstemp(path));
    ret = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return ret;
}
