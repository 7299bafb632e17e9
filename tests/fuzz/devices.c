/*
 * Every row of devices.def on one board, with disks where they take some: any sequence of port and
 * memory accesses, input on the streams, timers, resets, states saved and loaded. Input: records of
 * an operation byte and its operands.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "device/device.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/ide.h"
#include "fuzz.h"

#define RAM (1 * MiB)
#define DISK (256 * KiB)
#define DEVICES 32
#define TIMERS 64

static struct board {
    struct mem *mem;
    struct device_env env;
    struct device_bus ports, memory;
    struct stream streams[DEVICES];
    struct device *devices[DEVICES];
    unsigned count;
    struct device_timer *timers[TIMERS];
    unsigned timer_count;
    struct disk_image disk, read_only_disk;
} b;

static void irq(void *opaque, unsigned line, int level)
{
    (void)opaque, (void)level;
    MUST(line < 24);
}

static void set_timer(void *opaque, struct device_timer *timer, u64 deadline_ns)
{
    unsigned i = 0;

    (void)opaque;
    while (i < b.timer_count && b.timers[i] != timer)
        i++;
    MUST(i < TIMERS);
    b.timers[i] = timer;
    b.timer_count += i == b.timer_count;
    timer->deadline_ns = deadline_ns;
}

static void request(void *opaque, enum device_request request)
{
    (void)opaque, (void)request;
}

static void msi(void *opaque, u64 address, u32 data)
{
    (void)opaque, (void)address, (void)data;
}

static void exit_with(void *opaque, int status)
{
    (void)opaque, (void)status;
}

static void drop_page(void *opaque, u64 gpa)
{
    (void)opaque, (void)gpa;
}

static void pit_connect(void *opaque, bool connected)
{
    (void)opaque, (void)connected;
}

static size_t send(void *backend, const u8 *data, size_t len)
{
    (void)backend, (void)data;
    return len / 2 + 1 < len ? len / 2 + 1 : len;
}

static void room(void *backend)
{
    (void)backend;
}

static void fire_timers(void)
{
    for (unsigned i = 0; i < b.timer_count; i++) {
        if (!b.timers[i]->deadline_ns)
            continue;
        b.timers[i]->deadline_ns = 0;
        b.timers[i]->fire(b.timers[i]->opaque);
    }
}

static struct device *find(const char *name)
{
    for (unsigned i = 0; i < b.count; i++)
        if (!strcmp(b.devices[i]->name, name))
            return b.devices[i];
    return NULL;
}

static void make_disk(struct disk_image *disk, bool read_only)
{
    *disk = (struct disk_image){memfd_create("disk", MFD_CLOEXEC), read_only, DISK};
    MUST(disk->fd >= 0 && !ftruncate(disk->fd, DISK));
}

/* What a board tells its devices. */
static void furnish(void)
{
    struct device *ide = find("ide"), *fw_cfg = find("fw-cfg"), *hpet = find("hpet");
    u64 memory = RAM;

    MUST(ide && fw_cfg && hpet && find("virtio-blk"));
    device_ide_set_disk(ide, 0, &b.disk);
    device_ide_set_disk(ide, 1, &b.read_only_disk);
    MUST(!device_fw_cfg_add(fw_cfg, DEVICE_FW_CFG_RAM_SIZE, &memory, sizeof memory));
    MUST(!device_fw_cfg_add_file(fw_cfg, "etc/one", "first", 5));
    MUST(!device_fw_cfg_add_file(fw_cfg, "etc/empty", "", 0));
    device_hpet_set_rtc(hpet, find("rtc"));
}

/* What cannot be made without options that only a board knows is left out. */
static void make_board(void)
{
    static struct mem_ram ram;
    const struct device_info *info;
    struct err err;
    char slot[16];

    b.mem = mem_create();
    MUST(b.mem && !mem_ram_alloc(&ram, RAM, &err) && !mem_set_slot(b.mem, 0, 0, 0, RAM, ram.hva));
    b.env = (struct device_env){.mem = b.mem,
                                .opaque = &b,
                                .irq_set = irq,
                                .timer_set = set_timer,
                                .request = request,
                                .msi = msi,
                                .pit_connect = pit_connect,
                                .exit = exit_with,
                                .drop_page = drop_page};
    make_disk(&b.disk, false);
    make_disk(&b.read_only_disk, true);
    device_bus_init(&b.ports);
    device_bus_init(&b.memory);
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; (info = device_info_at(i)) && b.count < DEVICES; i++) {
            struct stream *stream = &b.streams[b.count];
            struct device_place place = {.env = &b.env,
                                         .ports = &b.ports,
                                         .memory = &b.memory,
                                         .stream = stream,
                                         .parent = find("pci-host"),
                                         .image = &b.disk};

            if (find(info->name))
                continue;
            snprintf(slot, sizeof slot, "slot=%zu", i + 1);
            *stream = (struct stream){.backend = &b, .send = send, .room = room};
            if (!device_create(&b.devices[b.count], info->name,
                               strstr(info->options, "slot=") ? slot : NULL, &place, &err))
                b.count++;
            else
                *stream = (struct stream){0};
        }
    }
    furnish();
}

static u64 choose(struct fuzz_input *in, const struct device_bus *bus)
{
    u64 pick = fuzz_take(in, 3);
    const struct device_region *region;

    if (!bus->count)
        return pick;
    region = &bus->regions[(pick & 0xff) % bus->count];
    return region->first + (pick >> 8) % (region->len + 8);
}

static void save_and_load(struct fuzz_input *in)
{
    struct device *dev = b.devices[fuzz_take(in, 1) % b.count];
    size_t len = device_state_size(dev);
    u8 *state = malloc(len);

    MUST(state);
    device_save(dev, state);
    MUST(!device_load(dev, state, len));
    free(state);
}

static void step(struct fuzz_input *in)
{
    u8 op = (u8)fuzz_take(in, 1);
    unsigned size = 1u << (op >> 4 & 3);
    struct device_bus *bus = op & 0x80 ? &b.memory : &b.ports;
    u64 address = choose(in, bus), value;
    struct stream *stream;
    u8 bytes[16];

    switch (op & 15) {
    case 10:
        fire_timers();
        break;
    case 11:
        save_and_load(in);
        break;
    case 12:
        device_reset(b.devices[fuzz_take(in, 1) % b.count]);
        break;
    case 13:
        stream = &b.streams[fuzz_take(in, 1) % b.count];
        fuzz_bytes(in, bytes, sizeof bytes);
        if (stream->receive)
            MUST(stream->receive(stream->device, bytes, sizeof bytes) <= sizeof bytes);
        if (op & 0x10 && stream->writable)
            stream->writable(stream->device);
        if (op & 0x20 && stream->line_break)
            stream->line_break(stream->device);
        break;
    case 14: /* what DMA engines find in memory */
        fuzz_bytes(in, bytes, sizeof bytes);
        mem_write(b.mem, (address & 0xffff) * 8, bytes, sizeof bytes);
        break;
    default:
        if (op & 1)
            device_bus_write(bus, address, size, fuzz_take(in, size));
        else
            device_bus_read(bus, address, size, &value);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};

    if (!b.mem)
        make_board();
    for (unsigned i = 0; i < b.count; i++)
        device_reset(b.devices[i]);
    while (in.left)
        step(&in);
    return 0;
}
