/* The PC board: memory map, devices, tables, boot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "device/fw_cfg.h"
#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/private.h"

/*
 * Memory map. The hole below 4 GiB holds PCI's windows, the configuration space (ECAM) and the
 * interrupt controllers; RAM that does not fit below it goes on at 4 GiB.
 */
#define EBDA 0x9fc00ull /* top KiB of conventional memory, which PC firmware keeps for itself */
#define VGA 0xa0000ull  /* no RAM: a window of a card that is not there */
#define OPTION_ROMS 0xc0000ull
#define TABLES 0xe0000ull /* ACPI tables, to 1 MiB */
#define LOW_RAM_END 0xc0000000ull
#define MMIO_FIRST 0xc0000000ull
#define ECAM 0xe0000000ull
#define ECAM_END 0xf0000000ull
#define MMIO2_LAST 0xfebfffffull
#define IO_APIC 0xfec00000ull
#define LOCAL_APIC 0xfee00000ull
#define HIGH_RAM (4 * GiB)
#define HIGH_WINDOW (512 * GiB) /* bytes of PCI window above RAM */

#define SERIAL_PORT 0x3f8
#define SERIAL_IRQ 4
#define PM_PORT 0x600
#define SCI 9
#define FIRST_VIRTIO_SLOT 2

static void add_range(struct machine_map *map, u64 first, u64 end, u32 type)
{
    if (end <= first)
        return;
    map->ranges[map->count].first = first;
    map->ranges[map->count].size = end - first;
    map->ranges[map->count++].type = type;
}

static void add_ram(struct machine *machine, u64 gpa, u64 end, u64 offset)
{
    if (end > gpa)
        machine->slots[machine->slot_count++] =
            (struct machine_ram_slot){.gpa = gpa, .size = end - gpa, .offset = offset};
}

static u64 low_end(const struct machine *machine)
{
    return machine->ram.size < LOW_RAM_END ? machine->ram.size : LOW_RAM_END;
}

static u64 high_end(const struct machine *machine)
{
    return HIGH_RAM + machine->ram.size - low_end(machine);
}

static void lay_out_memory(struct machine *machine)
{
    struct machine_map *map = &machine->map;
    u64 low = low_end(machine);

    add_ram(machine, 0, VGA, 0);
    add_ram(machine, OPTION_ROMS, low, OPTION_ROMS);
    add_ram(machine, HIGH_RAM, high_end(machine), low);

    add_range(map, 0, EBDA, MAP_RAM);
    add_range(map, EBDA, VGA, MAP_RESERVED);
    add_range(map, TABLES, MiB, MAP_RESERVED);
    add_range(map, MiB, low, MAP_RAM);
    add_range(map, ECAM, ECAM_END, MAP_RESERVED);
    add_range(map, HIGH_RAM, high_end(machine), MAP_RAM);
}

/* Slot 1 is the IDE controller's; virtio devices come after it. */
static int create_pci_devices(struct machine *machine, struct device *host, struct err *err)
{
    unsigned slot = FIRST_VIRTIO_SLOT;
    char options[32];
    int ret = 0;

    for (unsigned i = 0; !ret && i < machine->config.disk_count; i++) {
        struct disk_image *image;

        ret = machine_open_image(machine, &machine->config.disks[i], &image, err);
        if (ret)
            return ret;
        snprintf(options, sizeof(options), "slot=%u", slot++);
        ret = machine_add_pci(machine, "virtio-blk", options, host, image, err);
    }
    if (!ret && machine->config.rng) {
        snprintf(options, sizeof(options), "slot=%u", slot++);
        ret = machine_add_pci(machine, "virtio-rng", options, host, NULL, err);
    }
    return ret;
}

static int create_devices(struct machine *machine, struct err *err)
{
    struct stream *serial = machine->serial ? &machine->serial->stream : NULL;
    struct stream *debug = machine->debug ? &machine->debug->stream : NULL;
    char options[64];
    const struct {
        const char *name, *options;
        struct stream *stream;
    } simple[] = {
        {"acpi-pm", "port=0x600,irq=9", NULL},
        {"i8042", NULL, NULL},
        {"post", NULL, NULL},
        {"serial", "port=0x3f8,irq=4", serial},
        {"debugcon", "port=0x402", debug},
        {"debugcon", "port=0xe9", debug},
    };
    struct device *rtc, *host;
    int ret;

    for (size_t i = 0; i < ARRAY_SIZE(simple); i++) {
        ret = machine_add_device(machine, simple[i].name, simple[i].options, simple[i].stream, NULL,
                                 err);
        if (ret)
            return ret;
    }
    snprintf(options, sizeof(options), "ecam=%#llx", ECAM);
    ret = machine_add_device(machine, "pci-host", options, NULL, &host, err);
    if (!ret)
        ret = create_pci_devices(machine, host, err);
    if (!ret)
        ret = machine_add_device(machine, "rtc", NULL, NULL, &rtc, err);
    if (!ret)
        device_rtc_set_memory(rtc, low_end(machine), high_end(machine) - HIGH_RAM);
    return ret;
}

/* What the board tells firmware and test kernels about itself. */
static int create_fw_cfg(struct machine *machine, struct err *err)
{
    u64 memory = machine->ram.size;
    u16 cpus = (u16)machine->config.topology.cpus;
    struct device *cfg;
    int ret = machine_add_device(machine, "fw-cfg", NULL, NULL, &cfg, err);

    if (ret)
        return ret;
    ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_RAM_SIZE, &memory, sizeof(memory));
    if (!ret)
        ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_CPUS, &cpus, sizeof(cpus));
    if (!ret)
        ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_MAX_CPUS, &cpus, sizeof(cpus));
    return ret ? err_set(err, ret, "cannot fill the firmware's configuration: %s", strerror(-ret))
               : 0;
}

static int create_test_devices(struct machine *machine, struct err *err)
{
    struct stream *debug = machine->debug ? &machine->debug->stream : NULL;
    int ret = machine_add_device(machine, "debug-exit", "port=0xf4", NULL, NULL, err);

    return ret ? ret : machine_add_device(machine, "testdev", NULL, debug, NULL, err);
}

static int create(struct machine *machine, struct err *err)
{
    int ret;

    lay_out_memory(machine);
    ret = create_devices(machine, err);
    if (!ret)
        ret = create_fw_cfg(machine, err);
    if (!ret && machine->config.test_devices)
        ret = create_test_devices(machine, err);
    return ret;
}

static int put_tables(struct machine *machine, u64 *rsdp, struct err *err)
{
    u64 high = align_up(high_end(machine), GiB);
    const struct acpi_config config = {
        .topology = &machine->config.topology,
        .ecam = ECAM,
        .mmio_first = MMIO_FIRST,
        .mmio_last = ECAM - 1,
        .mmio2_first = ECAM_END,
        .mmio2_last = MMIO2_LAST,
        .high_first = high,
        .high_last = high + HIGH_WINDOW - 1,
        .io_apic = IO_APIC,
        .local_apic = LOCAL_APIC,
        .pm_base = PM_PORT,
        .sci = SCI,
        .serial_port = SERIAL_PORT,
        .serial_irq = SERIAL_IRQ,
    };

    return acpi_put_tables(machine->mem, &config, TABLES, MiB - TABLES, rsdp, err);
}

/*
 * What firmware does to every CPU before it boots a system: memory is write-back by default (SDM
 * 12.11.2.1; without it Linux leaves the page attribute table off), fast string operations are on.
 * An engine that lacks one of these MSRs loses nothing a guest would miss.
 */
static void set_boot_msrs(struct machine *machine, struct vcpu *vcpu)
{
    enum { MISC_ENABLE = 0x1a0, MTRR_DEF_TYPE = 0x2ff, MTRR_ENABLE = 0x800, WRITE_BACK = 6 };
    static const struct {
        u32 index;
        u64 value;
    } values[] = {{MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK}, {MISC_ENABLE, 1}};

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct {
            struct kvm_msrs head;
            struct kvm_msr_entry entry;
        } one = {.head.nmsrs = 1, .entry = {.index = values[i].index, .data = values[i].value}};

        if (machine->ops->set_msrs)
            machine->ops->set_msrs(vcpu, &one.head);
    }
}

static int boot(struct machine *machine, struct err *err)
{
    struct vcpu *first = machine->vcpus[0].vcpu;
    struct boot_context ctx = {
        .mem = machine->mem,
        .map = &machine->map,
        .low_end = low_end(machine),
        .command_line = machine->config.append,
        .initrd_path = machine->config.initrd,
        .unpack = machine->config.unpack,
    };
    int ret = put_tables(machine, &ctx.rsdp, err);

    if (ret)
        return ret;
    for (unsigned i = 0; i < machine->config.topology.cpus; i++)
        set_boot_msrs(machine, machine->vcpus[i].vcpu);
    ret = machine->ops->get_sregs(first, &ctx.sregs);
    if (ret)
        return err_set(err, ret, "the engine does not show its CPU's registers: %s",
                       strerror(-ret));
    ret = boot_kernel(&ctx, machine->config.kernel, err);
    if (ret)
        return ret;
    ret = machine->ops->set_sregs(first, &ctx.sregs);
    if (!ret)
        ret = machine->ops->set_regs(first, &ctx.regs);
    return ret ? err_set(err, ret, "the engine does not take the boot state: %s", strerror(-ret))
               : 0;
}

const struct machine_board machine_board_pc = {
    .name = "pc",
    .min_memory = 8 * MiB, /* enough for small test kernels; Linux asks for more itself */
    .max_memory = 1024 * GiB,
    .create = create,
    .boot = boot,
};
