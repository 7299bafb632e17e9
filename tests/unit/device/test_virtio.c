/* virtio-blk and virtio-rng behind the PCI host bridge: as a driver should use them, and as not. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "board.h"

#include "device/image.h"

#define RAM (256 * KiB)
#define SECTORS 64
#define MSIX_BAR 0xf0000000u
#define MAIN_BAR 0xf0010000u
#define ISR (MAIN_BAR + 0x1000)
#define CONFIG (MAIN_BAR + 0x2000)
#define NOTIFY (MAIN_BAR + 0x3000)

/* Where the driver of these tests keeps things. */
enum {
    DESC = 0x1000,
    AVAIL = 0x2000,
    USED = 0x3000,
    HEADER = 0x4000,
    STATUS = 0x4100,
    DATA = 0x5000
};

struct desc {
    u64 gpa;
    u32 len;
    u16 flags, next;
};

static struct {
    struct board *b;
    struct device *dev;
    struct disk_image image;
    u8 *arena, *ram;
    unsigned messages;
    u64 message_address;
    u32 message_data;
} t;

static char path[] = "/tmp/triode-disk-XXXXXX";

static void on_msi(void *opaque, u64 address, u32 data)
{
    (void)opaque;
    t.messages++;
    t.message_address = address;
    t.message_data = data;
}

static u64 mmio(u64 addr, unsigned size)
{
    u64 value;

    device_bus_read(&t.b->memory, addr, size, &value);
    return value;
}

static void set(u64 addr, unsigned size, u64 value)
{
    device_bus_write(&t.b->memory, addr, size, value);
}

static u32 config(unsigned reg, unsigned size)
{
    out(t.b, 0xcf8, 4, 0x80000000 | 2 << 11 | (reg & 0xfc));
    return (u32)in(t.b, (u16)(0xcfc + (reg & 3)), size);
}

static void set_config(unsigned reg, unsigned size, u32 value)
{
    out(t.b, 0xcf8, 4, 0x80000000 | 2 << 11 | (reg & 0xfc));
    out(t.b, (u16)(0xcfc + (reg & 3)), size, value);
}

static void add_device(const char *name)
{
    struct device_place place = board_place(t.b);

    place.stream = NULL;
    place.parent = t.b->dev;
    place.image = &t.image;
    assert_int_equal(device_create(&t.dev, name, "slot=2", &place, NULL), 0);
    set_config(0x14, 4, MSIX_BAR);
    set_config(0x20, 4, MAIN_BAR);
    set_config(0x04, 2, 6);
}

static void setup_on(const char *host, const char *name, bool read_only)
{
    int fd;

    memset(&t, 0, sizeof(t));
    /* Guest memory between pages nobody may touch. */
    t.arena = mmap(NULL, RAM + 2 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    t.ram = t.arena + MiB;
    assert_int_equal(mprotect(t.ram, RAM, PROT_READ | PROT_WRITE), 0);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (unsigned i = 0; i < SECTORS; i++) {
        u8 sector[512];

        memset(sector, (int)i + 1, sizeof(sector));
        assert_int_equal(write(fd, sector, 512), 512);
    }
    close(fd);
    assert_int_equal(image_open(&t.image, path, read_only, NULL), 0);
    t.b = board_new("pci-host", host);
    t.b->env.msi = on_msi;
    t.b->env.mem = mem_create();
    assert_int_equal(mem_set_slot(t.b->env.mem, 0, 0, 0, RAM, t.ram), 0);
    add_device(name);
}

static void setup_with(const char *name, bool read_only)
{
    setup_on(NULL, name, read_only);
}

static void cleanup(void)
{
    device_destroy(t.dev);
    mem_destroy(t.b->env.mem);
    board_free(t.b);
    image_close(&t.image);
    munmap(t.arena, RAM + 2 * MiB);
}

static void start(u64 features)
{
    set(MAIN_BAR + 0x14, 1, 0);
    set(MAIN_BAR + 0x14, 1, 3);
    set(MAIN_BAR + 0x08, 4, 0);
    set(MAIN_BAR + 0x0c, 4, (u32)features);
    set(MAIN_BAR + 0x08, 4, 1);
    set(MAIN_BAR + 0x0c, 4, 1 | features >> 32);
    set(MAIN_BAR + 0x14, 1, 11);
    assert_int_equal(mmio(MAIN_BAR + 0x14, 1), 11);
    set(MAIN_BAR + 0x16, 2, 0);
    set(MAIN_BAR + 0x18, 2, 8);
    set(MAIN_BAR + 0x20, 4, DESC);
    set(MAIN_BAR + 0x28, 4, AVAIL);
    set(MAIN_BAR + 0x30, 4, USED);
    set(MAIN_BAR + 0x1c, 2, 1);
    set(MAIN_BAR + 0x14, 1, 15);
    memset(t.ram + DESC, 0, 0x3000);
}

static u16 *word(u64 gpa)
{
    return (u16 *)(t.ram + gpa);
}

static void put_desc(u64 table, unsigned i, u64 gpa, u32 len, u16 flags, u16 next)
{
    struct desc d = {gpa, len, flags, next};

    memcpy(t.ram + table + i * 16, &d, 16);
}

static void offer(u16 head)
{
    *word(AVAIL + 4 + 2 * (*word(AVAIL + 2) % 8)) = head;
    ++*word(AVAIL + 2);
    set(NOTIFY, 2, 0);
    board_fire(t.b);
}

/* One request in descriptors 0, 1, 2; answers its status byte. */
static u8 request(u32 type, u64 sector, u32 len)
{
    u32 head[4] = {type, 0, (u32)sector, (u32)(sector >> 32)};
    u16 used = *word(USED + 2);

    memcpy(t.ram + HEADER, head, 16);
    t.ram[STATUS] = 0xee;
    put_desc(DESC, 0, HEADER, 16, 1, len ? 1 : 2);
    put_desc(DESC, 1, DATA, len, type == 0 || type == 8 ? 3 : 1, 2);
    put_desc(DESC, 2, STATUS, 1, 2, 0);
    offer(0);
    assert_int_equal(*word(USED + 2), (u16)(used + 1));
    return t.ram[STATUS];
}

static void bars_and_capabilities(void **state)
{
    unsigned cap, seen = 0;

    (void)state;
    setup_with("virtio-blk", false);
    assert_int_equal(config(0, 4), 0x10421af4);
    assert_int_equal(config(0x3d, 1), 1);
    set_config(0x20, 4, 0xffffffff);
    assert_int_equal(config(0x20, 4), 0xffffc000);
    assert_int_equal(mmio(CONFIG, 4), 0xffffffff); /* while sizing it answers nowhere */
    set_config(0x20, 4, MAIN_BAR);
    assert_int_equal(mmio(CONFIG, 8), SECTORS);
    set_config(0x04, 2, 4);
    assert_int_equal(mmio(CONFIG, 4), 0xffffffff);
    set_config(0x04, 2, 6);
    set_config(0x10, 4, 0xffffffff);
    assert_int_equal(config(0x10, 4), 0);
    for (cap = config(0x34, 1); cap; cap = config(cap + 1, 1)) {
        assert_in_range(cap, 0x40, 0xfc);
        assert_int_equal(cap % 4, 0);
        assert_true(config(cap, 1) == 5 || config(cap, 1) == 9 || config(cap, 1) == 17);
        seen |= 1u << (config(cap, 1) == 9 ? config(cap + 3, 1) : 0);
        if (config(cap, 1) == 9 && config(cap + 3, 1) == 5) {
            /* The same registers through configuration space. */
            set_config(cap + 4, 1, 4);
            set_config(cap + 8, 4, 0x2000);
            set_config(cap + 12, 4, 4);
            assert_int_equal(config(cap + 16, 4), SECTORS);
            set_config(cap + 8, 4, 0xfffffffc);
            config(cap + 16, 4);
            set_config(cap + 12, 4, 0x80000000);
            set_config(cap + 16, 4, 1);
        }
    }
    assert_int_equal(seen, 0x3f);
    cleanup();
}

static void reads_and_writes(void **state)
{
    u8 on_disk[512];

    (void)state;
    setup_with("virtio-blk", false);
    start(1 << 9);
    assert_int_equal(request(0, 3, 1024), 0);
    assert_int_equal(t.ram[DATA], 4);
    assert_int_equal(t.ram[DATA + 512], 5);
    assert_int_equal(t.b->line[18], 1); /* INTA of slot 2 */
    assert_int_equal(mmio(ISR, 1), 1);
    assert_int_equal(t.b->line[18], 0);
    memset(t.ram + DATA, 0xa5, 512);
    assert_int_equal(request(1, SECTORS - 1, 512), 0);
    assert_int_equal(request(4, 0, 0), 0);
    assert_int_equal(pread(t.image.fd, on_disk, 512, (SECTORS - 1) * 512), 512);
    assert_memory_equal(on_disk, t.ram + DATA, 512);
    assert_int_equal(request(8, 0, 20), 0);
    assert_string_equal((char *)t.ram + DATA, "triode-2");
    /* What cannot be: beyond the end, half a sector, an unknown type. */
    assert_int_equal(request(0, SECTORS, 512), 1);
    assert_int_equal(request(0, SECTORS - 1, 1024), 1);
    assert_int_equal(request(0, ~0ull, 512), 1);
    assert_int_equal(request(1, ~0ull / 512, 512), 1);
    assert_int_equal(request(0, 0, 100), 1);
    assert_int_equal(request(77, 0, 512), 2);
    /* Discard and write zeros. */
    memcpy(t.ram + DATA, (u32[]){2, 0, 1, 0}, 16);
    assert_int_equal(request(13, 0, 16), 0);
    assert_int_equal(request(0, 2, 512), 0);
    assert_int_equal(t.ram[DATA], 0);
    memcpy(t.ram + DATA, (u32[]){SECTORS, 0, 1, 0}, 16);
    assert_int_equal(request(11, 0, 16), 1);
    cleanup();
}

static void route(unsigned pirq, u8 value)
{
    out(t.b, 0xcf8, 4, 0x80000000 | 31 << 11 | 0x60);
    outb(t.b, (u16)(0xcfc + pirq), value);
}

/* INTA of slot 2 is PIRQC, line 18, which the LPC bridge's register 62h may route to the 8259
 * pair. */
static void routes_to_legacy_lines(void **state)
{
    struct device_place place;
    struct device *lpc;

    (void)state;
    setup_with("virtio-blk", false);
    place = board_place(t.b);
    place.parent = t.b->dev;
    assert_int_equal(device_create(&lpc, "lpc", "slot=31", &place, NULL), 0);
    assert_int_equal(config(0x3c, 1), 0);
    start(1 << 9);
    assert_int_equal(request(0, 3, 1024), 0);
    assert_int_equal(t.b->line[18], 1);
    assert_int_equal(t.b->line[11], 0);
    route(2, 0x0b);
    assert_int_equal(t.b->line[11], 1);
    route(2, 0x05);
    assert_int_equal(t.b->line[11], 0);
    assert_int_equal(t.b->line[5], 1);
    route(2, 0x08); /* reserved: the clock's */
    assert_int_equal(t.b->line[5] + t.b->line[8], 0);
    route(3, 0x0a);
    assert_int_equal(t.b->line[10], 0);
    route(2, 0x0a); /* two share it */
    assert_int_equal(t.b->line[10], 1);
    route(3, 0x80);
    assert_int_equal(t.b->line[10], 1);
    mmio(ISR, 1);
    assert_int_equal(t.b->line[18] + t.b->line[10], 0);
    assert_int_equal(request(0, 3, 1024), 0);
    assert_int_equal(t.b->line[10], 1);
    device_reset(lpc);
    assert_int_equal(t.b->line[18], 1);
    assert_int_equal(t.b->line[10], 0);
    device_destroy(lpc);
    cleanup();
    /* A board without firmware has them routed, and says so in the interrupt line register. */
    setup_on("routed=1", "virtio-blk", false);
    assert_int_equal(config(0x3c, 1), 11);
    start(1 << 9);
    assert_int_equal(request(0, 3, 1024), 0);
    assert_int_equal(t.b->line[11], 1);
    mmio(ISR, 1);
    assert_int_equal(t.b->line[11], 0);
    cleanup();
}

static void disk_troubles(void **state)
{
    struct disk_image other;
    struct err err;

    (void)state;
    setup_with("virtio-blk", false);
    assert_int_equal(image_open(&other, path, false, &err), -EBUSY);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(image_open(&other, path, true, &err), -EBUSY);
    start(0);
    assert_int_equal(truncate(path, 1024), 0); /* shrinks while in use */
    assert_int_equal(request(0, 1, 512), 0);
    assert_int_equal(request(0, 2, 512), 1);
    assert_int_equal(request(0, 1, 1024), 1);
    cleanup();
    setup_with("virtio-blk", true);
    assert_int_equal(image_open(&other, path, true, &err), 0);
    image_close(&other);
    assert_int_equal(image_open(&other, path, false, &err), -EBUSY);
    start(1 << 5);
    assert_int_equal(request(1, 0, 512), 1);
    assert_int_equal(request(0, 0, 512), 0);
    assert_int_equal(t.ram[DATA], 1);
    cleanup();
    assert_int_equal(image_open(&other, "/tmp", false, &err), -EISDIR);
    assert_int_equal(image_open(&other, "/tmp", true, &err), -EISDIR);
    assert_int_equal(image_open(&other, "/nonexistent/disk", false, &err), -ENOENT);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(image_open(&other, path, false, &err), -EINVAL);
    assert_int_equal(truncate(path, 511), 0);
    assert_int_equal(image_open(&other, path, false, &err), -EINVAL);
}

static void message_interrupts(void **state)
{
    unsigned cap;

    (void)state;
    setup_with("virtio-blk", false);
    for (cap = config(0x34, 1); config(cap, 1) != 0x11;)
        cap = config(cap + 1, 1);
    assert_int_equal(config(cap + 2, 2), 1); /* two vectors */
    start(0);
    set(MSIX_BAR + 16, 4, 0xfee01000);
    set(MSIX_BAR + 24, 4, 0x4123);
    set(MAIN_BAR + 0x1a, 2, 1);
    assert_int_equal(mmio(MAIN_BAR + 0x1a, 2), 1);
    set(MAIN_BAR + 0x1a, 2, 7);
    assert_int_equal(mmio(MAIN_BAR + 0x1a, 2), 0xffff);
    set(MAIN_BAR + 0x1a, 2, 1);
    set_config(cap + 2, 2, 0x8000);
    request(0, 0, 512);
    assert_int_equal(t.messages, 0); /* the entry is masked */
    assert_int_equal(mmio(MSIX_BAR + 0x800, 8), 2);
    set(MSIX_BAR + 28, 4, 0);
    assert_int_equal(t.messages, 1);
    assert_int_equal(t.message_address, 0xfee01000);
    assert_int_equal(t.message_data, 0x4123);
    request(0, 0, 512);
    assert_int_equal(t.messages, 2);
    set_config(cap + 2, 2, 0xc000);
    request(0, 0, 512);
    assert_int_equal(t.messages, 2);
    set_config(cap + 2, 2, 0x8000);
    assert_int_equal(t.messages, 3);
    assert_int_equal(t.b->line[18], 0);
    *word(AVAIL) = 1; /* the driver polls */
    request(0, 0, 512);
    assert_int_equal(t.messages, 3);
    cleanup();
}

/* Plain MSI in the pin's place (PCI 3.0, 6.8.1): a message each time the level rises. */
static void one_message_interrupt(void **state)
{
    unsigned cap;

    (void)state;
    setup_with("virtio-blk", false);
    for (cap = config(0x34, 1); config(cap, 1) != 0x05;)
        cap = config(cap + 1, 1);
    assert_int_equal(config(cap + 2, 2), 0x0180); /* one vector, 64 bits, maskable */
    start(0);
    set_config(cap + 4, 4, 0xfee01003);
    assert_int_equal(config(cap + 4, 4), 0xfee01000);
    set_config(cap + 8, 4, 0x100);
    set_config(cap + 12, 2, 0x4123);
    request(0, 0, 512);
    assert_int_equal(t.b->line[18], 1); /* not yet on */
    set_config(cap + 2, 2, 1);
    assert_int_equal(t.b->line[18], 0);
    assert_int_equal(t.messages, 1); /* what was up is not lost */
    assert_true(t.message_address == 0x100fee01000);
    assert_int_equal(t.message_data, 0x4123);
    request(0, 0, 512);
    assert_int_equal(t.messages, 1); /* the driver has not looked since */
    assert_int_equal(mmio(ISR, 1), 1);
    request(0, 0, 512);
    assert_int_equal(t.messages, 2);
    mmio(ISR, 1);
    set_config(cap + 16, 4, 1);
    request(0, 0, 512);
    assert_int_equal(t.messages, 2);
    assert_int_equal(config(cap + 20, 4), 1);
    set_config(cap + 16, 4, 0);
    assert_int_equal(t.messages, 3);
    assert_int_equal(config(cap + 20, 4), 0);
    mmio(ISR, 1);
    set_config(cap + 16, 4, 1);
    request(0, 0, 512);
    mmio(ISR, 1);
    assert_int_equal(config(cap + 20, 4), 0); /* nobody waits any more */
    set_config(cap + 16, 4, 0);
    assert_int_equal(t.messages, 3);
    assert_int_equal(t.b->line[18], 0);
    request(0, 0, 512);
    assert_int_equal(t.messages, 4);
    set_config(cap + 2, 2, 0);
    assert_int_equal(t.b->line[18], 1); /* back to the pin */
    cleanup();
}

static void indirect_and_event_index(void **state)
{
    (void)state;
    setup_with("virtio-blk", false);
    start(3u << 28);
    memset(t.ram + HEADER, 0, 16);
    put_desc(0x8000, 0, HEADER, 16, 1, 1);
    put_desc(0x8000, 1, DATA, 512, 3, 2);
    put_desc(0x8000, 2, STATUS, 1, 2, 0);
    put_desc(DESC, 3, 0x8000, 48, 4, 0);
    *word(AVAIL + 4 + 16) = 1; /* used_event: after the second */
    offer(3);
    assert_int_equal(*word(USED + 2), 1);
    assert_int_equal(t.ram[DATA], 1);
    assert_int_equal(*word(USED + 4 + 64), 1); /* avail_event */
    mmio(ISR, 1);
    offer(3);
    assert_int_equal(mmio(ISR, 1), 1);
    offer(3);
    assert_int_equal(mmio(ISR, 1), 0);
    cleanup();
}

static void map_page(unsigned page, u64 entry)
{
    memcpy(t.ram + 0x15000 + 8 * page, &entry, 8);
}

/* Tables in which the first 16 pages are where they are, for slot 2 alone. */
static struct device *add_iommu(void)
{
    static const u64 entries[][2] = {
        {0x10000, 0x11001}, {0x11100, 0x12001}, {0x11108, 2},
        {0x12000, 0x13003}, {0x13000, 0x14003}, {0x14000, 0x15003},
    };
    struct device_place place = board_place(t.b);
    struct device *iommu;

    place.parent = t.b->dev;
    assert_int_equal(device_create(&iommu, "vtd", "address=0xfed90000", &place, NULL), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(entries); i++)
        memcpy(t.ram + entries[i][0], &entries[i][1], 8);
    for (unsigned i = 0; i < 16; i++)
        map_page(i, i << 12 | 3);
    set(0xfed90020, 8, 0x10000);
    set(0xfed90018, 4, 0x40000000);
    set(0xfed90018, 4, 0x80000000);
    return iommu;
}

static void behind_an_iommu(void **state)
{
    struct device *iommu;

    (void)state;
    setup_with("virtio-blk", false);
    assert_int_equal(mmio(MAIN_BAR + 4, 4) & 2, 0);
    iommu = add_iommu();
    assert_int_equal(mmio(MAIN_BAR + 4, 4) & 2, 2); /* SIZE_MAX */
    set(MAIN_BAR, 4, 1);
    assert_int_equal(mmio(MAIN_BAR + 4, 4) & 2, 2); /* ACCESS_PLATFORM */
    map_page(5, 0x20003);
    map_page(6, 0x22003);
    map_page(7, 0x23003);
    start(1ull << 33 | 1 << 9);
    assert_int_equal(request(0, 0, 0x3000), 0);
    assert_int_equal(t.ram[DATA], 0);
    assert_int_equal(t.ram[0x20000], 1);
    assert_int_equal(t.ram[0x20fff], 8);
    assert_int_equal(t.ram[0x21000], 0);
    assert_int_equal(t.ram[0x22000], 9);
    assert_int_equal(t.ram[0x23fff], 24);
    /* A page that may be read, and not written; the used ring gone; the rest blocked. */
    map_page(5, 0x20001);
    assert_int_equal(request(1, 40, 512), 0);
    put_desc(DESC, 1, DATA, 512, 3, 2);
    t.ram[HEADER] = 0;
    offer(0);
    assert_int_equal(mmio(MAIN_BAR + 0x14, 1), 79); /* needs a reset */
    assert_true(mmio(0xfed90408, 8) == 0x8000000500000010);
    assert_true(mmio(0xfed90400, 8) == DATA);
    start(1 << 9);
    map_page(3, 0x3001);
    put_desc(DESC, 2, STATUS, 1, 2, 0);
    put_desc(DESC, 0, HEADER, 16, 1, 2);
    t.ram[HEADER] = 4;
    offer(0);
    assert_int_equal(mmio(MAIN_BAR + 0x14, 1), 79);
    assert_int_equal(*word(USED + 2), 0);
    device_destroy(iommu);
    start(1 << 9);
    assert_int_equal(request(0, 0, 512), 0);
    assert_int_equal(t.ram[DATA], 1);
    cleanup();
}

static void survives_a_load(void **state)
{
    size_t len;
    u8 *saved;

    (void)state;
    setup_with("virtio-blk", false);
    start(0);
    request(0, 0, 512);
    len = device_state_size(t.dev);
    saved = malloc(len);
    device_save(t.dev, saved);
    device_destroy(t.dev);
    t.b->timer_count = 0;
    assert_int_equal(t.b->line[18], 0);
    add_device("virtio-blk");
    assert_int_equal(device_load(t.dev, saved, len), 0);
    assert_int_equal(t.b->line[18], 1);
    assert_int_equal(mmio(ISR, 1), 1);
    assert_int_equal(request(0, 5, 512), 0);
    assert_int_equal(t.ram[DATA], 6);
    free(saved);
    cleanup();
}

static void random_bytes(void **state)
{
    unsigned zeros = 0;

    (void)state;
    setup_with("virtio-rng", false);
    start(0);
    put_desc(DESC, 0, DATA, 4096, 2, 0);
    offer(0);
    assert_int_equal(*word(USED + 2), 1);
    assert_int_equal(*(u32 *)(t.ram + USED + 8), 4096);
    for (unsigned i = 0; i < 4096; i++)
        zeros += !t.ram[DATA + i];
    assert_in_range(zeros, 1, 64);
    assert_int_equal(t.ram[DATA + 4096], 0);
    cleanup();
}

/* ---- Hostile drivers ---- */

static u64 seed = 1;

static u32 chance(u32 below)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (u32)((seed >> 33) % below);
}

static bool broken(void)
{
    return mmio(MAIN_BAR + 0x14, 1) & 64;
}

static void lying_chains(void **state)
{
    (void)state;
    setup_with("virtio-blk", false);
    for (unsigned i = 0; i < 11; i++) {
        start(3u << 28);
        put_desc(DESC, 0, HEADER, 16, 1, 1);
        put_desc(DESC, 1, DATA, 512, 3, 2);
        put_desc(DESC, 2, STATUS, 1, 2, 0);
        switch (i) {
        case 0: /* a loop */
            put_desc(DESC, 2, STATUS, 1, 3, 1);
            break;
        case 1:
            put_desc(DESC, 1, DATA, 512, 3, 8);
            break;
        case 2:
            put_desc(DESC, 1, RAM - 256, 512, 3, 2);
            break;
        case 3:
            put_desc(DESC, 1, ~0ull - 100, 512, 3, 2);
            break;
        case 4: /* read after write */
            put_desc(DESC, 2, STATUS, 1, 0, 0);
            break;
        case 5:
            put_desc(DESC, 0, HEADER, 15, 1, 2);
            break;
        case 6: /* nowhere for the status */
            put_desc(DESC, 0, HEADER, 16, 0, 0);
            break;
        case 7:
            put_desc(DESC, 1, DATA, 40, 4, 0);
            break;
        case 8: /* indirect within indirect */
            put_desc(DESC, 1, 0x8000, 16, 4, 0);
            put_desc(0x8000, 0, 0x8000, 16, 4, 0);
            break;
        case 9: /* more than the ring has */
            *word(AVAIL + 2) = 100;
            break;
        case 10:
            *word(AVAIL + 4) = 8;
            ++*word(AVAIL + 2);
            break;
        }
        if (i == 10) {
            set(NOTIFY, 2, 0);
            board_fire(t.b);
        } else {
            offer(0);
        }
        assert_true(broken());
        assert_int_equal(*word(USED + 2), 0);
    }
    start(0);
    assert_int_equal(request(0, 0, 512), 0); /* a reset mends it */
    set(MAIN_BAR + 0x14, 1, 0);
    set(MAIN_BAR + 0x14, 1, 3);
    set(MAIN_BAR + 0x14, 1, 11); /* without VERSION_1 */
    assert_int_equal(mmio(MAIN_BAR + 0x14, 1), 3);
    cleanup();
}

static void random_rings(void **state)
{
    (void)state;
    setup_with("virtio-blk", false);
    for (unsigned round = 0; round < 20000; round++) {
        if (broken() || !round)
            start((u64)chance(4) << 28 | (u64)chance(2) << 9);
        for (unsigned i = 0; i < 8; i++)
            put_desc(chance(8) ? DESC : 0x8000, chance(8), chance(4) ? chance(RAM) : HEADER,
                     chance(3) ? chance(600) : 16 * chance(9), (u16)chance(8), (u16)chance(9));
        memcpy(t.ram + HEADER, (u32[]){chance(15), 0, chance(SECTORS + 2), 0}, 16);
        if (!chance(3))
            put_desc(DESC, 0, HEADER, 16, 1, 1);
        offer((u16)chance(9));
        assert_in_range(mmio(MAIN_BAR + 0x14, 1), 1, 79);
    }
    cleanup();
}

static void random_registers(void **state)
{
    (void)state;
    setup_with("virtio-blk", false);
    for (unsigned round = 0; round < 50000; round++) {
        unsigned size = 1u << chance(4);
        u64 value = chance(2) ? chance(256) : (u64)chance(1u << 31) << chance(33);

        switch (chance(6)) {
        case 0:
            set_config(chance(256) & ~(size > 4 ? 3 : size - 1), size > 4 ? 4 : size, (u32)value);
            break;
        case 1:
            config(chance(256) & ~3u, 4);
            break;
        case 2:
            mmio(MAIN_BAR + chance(0x4100), size);
            break;
        case 3:
            set(MSIX_BAR + chance(0x1000), size, value);
            break;
        default:
            set(MAIN_BAR + chance(4) * 0x1000 + chance(0x40), size, value);
            break;
        }
        if (!chance(50)) {
            set_config(0x14, 4, MSIX_BAR);
            set_config(0x20, 4, MAIN_BAR);
            set_config(0x04, 2, 6);
        }
        if (!chance(10))
            board_fire(t.b);
        if (!chance(5000))
            device_reset(t.dev);
    }
    cleanup();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_and_capabilities),
        cmocka_unit_test(reads_and_writes),
        cmocka_unit_test(routes_to_legacy_lines),
        cmocka_unit_test(disk_troubles),
        cmocka_unit_test(message_interrupts),
        cmocka_unit_test(one_message_interrupt),
        cmocka_unit_test(indirect_and_event_index),
        cmocka_unit_test(behind_an_iommu),
        cmocka_unit_test(survives_a_load),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(lying_chains),
        cmocka_unit_test(random_rings),
        cmocka_unit_test(random_registers),
    };
    int ret;

    close(mkstemp(path));
    ret = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return ret;
}
