/* The PC board: memory map, devices, tables, boot. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/ide.h"
#include "device/vtd.h"
#include "machine/acpi.h"
#include "machine/boot.h"
#include "machine/private.h"
#include "machine/smbios.h"

/*
 * Memory map. The hole below 4 GiB holds PCI's windows, the configuration space (ECAM) and the
 * interrupt controllers; RAM that does not fit below it goes on at 4 GiB.
 */
#define FIRMWARE_MAX (8 * MiB)
#define FIRMWARE_LOW_RAM_END 0xb0000000ull /* there SeaBIOS wants the configuration space */
#define EBDA 0x9fc00ull   /* top KiB of conventional memory, which PC firmware keeps for itself */
#define VGA 0xa0000ull    /* no RAM: a window of a card that is not there */
#define TABLES 0xe0000ull /* ACPI tables, to 1 MiB */
#define SMBIOS 0xf0000ull /* here systems look for it */
#define RESET_VECTOR 0xffff0ull /* of real mode */
#define LOW_RAM_END 0xc0000000ull
#define MMIO_FIRST 0xc0000000ull
#define ECAM 0xe0000000ull
#define ECAM_END 0xf0000000ull
#define MMIO2_LAST 0xfebfffffull
#define IO_APIC 0xfec00000ull
#define HPET 0xfed00000u
#define IOMMU 0xfed90000u
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
    u64 limit = machine->config.firmware ? FIRMWARE_LOW_RAM_END : LOW_RAM_END;

    return machine->ram.size < limit ? machine->ram.size : limit;
}

static u64 high_end(const struct machine *machine)
{
    return HIGH_RAM + machine->ram.size - low_end(machine);
}

static u64 ecam(const struct machine *machine)
{
    return machine->config.firmware ? FIRMWARE_LOW_RAM_END : ECAM;
}

static void lay_out_memory(struct machine *machine)
{
    struct machine_map *map = &machine->map;
    u64 low = low_end(machine);

    add_ram(machine, 0, VGA, 0);
    add_ram(machine, MiB, low, MiB); /* between them lies what shadow.c maps */
    add_ram(machine, HIGH_RAM, high_end(machine), low);

    if (machine->config.firmware) {
        machine->slots[machine->slot_count++] = (struct machine_ram_slot){
            .gpa = HIGH_RAM - machine->rom_size, .size = machine->rom_size, .rom = machine->rom};
        add_range(map, 0, low, MAP_RAM);
        add_range(map, HIGH_RAM, high_end(machine), MAP_RAM);
        return;
    }
    add_range(map, 0, EBDA, MAP_RAM);
    add_range(map, EBDA, VGA, MAP_RESERVED);
    add_range(map, TABLES, MiB, MAP_RESERVED);
    add_range(map, MiB, low, MAP_RAM);
    add_range(map, ECAM, ECAM_END, MAP_RESERVED);
    add_range(map, HIGH_RAM, high_end(machine), MAP_RAM);
}

static int add_ide_disk(struct machine *machine, struct device *host, struct device **ide,
                        unsigned *channel, struct disk_image *image, struct err *err)
{
    int ret = 0;

    if (*channel == 2)
        return err_set(err, -EINVAL, "--disk: more than two disks with if=ide");
    if (!*ide)
        ret = machine_add_pci(machine, "ide", "slot=1", host, NULL, ide, err);
    if (!ret)
        device_ide_set_disk(*ide, (*channel)++, image);
    return ret;
}

/* Slot 1 is the IDE controller's; virtio devices come after it. */
static int create_pci_devices(struct machine *machine, struct device *host, struct err *err)
{
    unsigned slot = FIRST_VIRTIO_SLOT, channel = 0;
    struct device *ide = NULL;
    char options[32];
    int ret = 0;

    for (unsigned i = 0; !ret && i < machine->config.disk_count; i++) {
        struct disk_image *image;

        ret = machine_open_image(machine, &machine->config.disks[i], &image, err);
        if (ret)
            return ret;
        if (machine->config.disks[i].ide) {
            ret = add_ide_disk(machine, host, &ide, &channel, image, err);
            continue;
        }
        snprintf(options, sizeof(options), "slot=%u", slot++);
        ret = machine_add_pci(machine, "virtio-blk", options, host, image, NULL, err);
    }
    if (!ret && machine->config.rng) {
        snprintf(options, sizeof(options), "slot=%u", slot++);
        ret = machine_add_pci(machine, "virtio-rng", options, host, NULL, NULL, err);
    }
    return ret;
}

/* The clock with those that it has to do with. */
static int create_timers(struct machine *machine, struct device *host, struct err *err)
{
    struct device *pm, *rtc, *hpet;
    char options[64];
    int ret = machine_add_device(machine, "acpi-pm", "port=0x600,irq=9", NULL, &pm, err);

    if (!ret)
        ret = machine_add_device(machine, "rtc", NULL, NULL, &rtc, err);
    if (ret)
        return ret;
    device_rtc_set_pm(rtc, pm);
    device_rtc_set_memory(rtc, low_end(machine), high_end(machine) - HIGH_RAM);
    snprintf(options, sizeof(options), "address=%#x", HPET);
    ret = machine_add_pci(machine, "hpet", options, host, NULL, &hpet, err);
    if (!ret)
        device_hpet_set_rtc(hpet, rtc);
    return ret;
}

/* Before what it translates for. It remaps interrupts where the engine's I/O APIC lets it. */
static int create_iommu(struct machine *machine, struct device *host, struct err *err)
{
    char options[64];

    if (!machine->config.iommu)
        return 0;
    snprintf(options, sizeof(options), "address=%#x,interrupts=%d", IOMMU,
             machine->ops->set_irq_remap != NULL);
    return machine_add_pci(machine, "vtd", options, host, NULL, &machine->iommu, err);
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
        {"i8042", NULL, NULL},
        {"post", NULL, NULL},
        {"serial", machine->config.firmware ? "port=0x3f8,irq=4,rts=0" : "port=0x3f8,irq=4",
         serial},
        {"debugcon", "port=0x402", debug},
        {"debugcon", "port=0xe9", debug},
    };
    struct device *host;
    int ret;

    for (size_t i = 0; i < ARRAY_SIZE(simple); i++) {
        ret = machine_add_device(machine, simple[i].name, simple[i].options, simple[i].stream, NULL,
                                 err);
        if (ret)
            return ret;
    }
    /* Kernels without firmware find memory as firmware leaves it, writable RAM to 1 MiB, and
     * interrupts routed to the 8259 pair. */
    snprintf(options, sizeof(options), "ecam=%#" PRIx64 ",shadow=%d,routed=%d", ecam(machine),
             machine->config.firmware ? 0 : DEVICE_SHADOW_READ | DEVICE_SHADOW_WRITE,
             !machine->config.firmware);
    ret = machine_add_device(machine, "pci-host", options, NULL, &host, err);
    if (!ret)
        ret = create_iommu(machine, host, err);
    if (!ret && machine->config.firmware)
        ret = machine_add_pci(machine, "lpc", "slot=31,pm=0x600", host, NULL, NULL, err);
    if (!ret)
        ret = create_pci_devices(machine, host, err);
    return ret ? ret : create_timers(machine, host, err);
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
    machine->fw_cfg = cfg;
    ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_RAM_SIZE, &memory, sizeof(memory));
    if (!ret)
        ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_CPUS, &cpus, sizeof(cpus));
    if (!ret)
        ret = device_fw_cfg_add(cfg, DEVICE_FW_CFG_MAX_CPUS, &cpus, sizeof(cpus));
    return ret ? err_set(err, ret, "cannot fill the firmware's configuration: %s", strerror(-ret))
               : 0;
}

static int open_firmware(struct machine *machine, struct err *err)
{
    struct boot_file file;
    int ret = boot_read_file(machine->config.firmware, "firmware", &file, err);

    if (ret)
        return ret;
    if (file.size % (4 * KiB) || file.size > FIRMWARE_MAX) {
        err_set(err, -EINVAL,
                "the firmware %s has %zu bytes; it must be a multiple of 4 KiB, up to 8 MiB",
                file.path, file.size);
        boot_free_file(&file);
        return -EINVAL;
    }
    machine->rom = file.data;
    machine->rom_size = file.size;
    return 0;
}

static int create_test_devices(struct machine *machine, struct err *err)
{
    struct stream *debug = machine->debug ? &machine->debug->stream : NULL;
    int ret = machine_add_device(machine, "debug-exit", "port=0xf4", NULL, NULL, err);

    return ret ? ret : machine_add_device(machine, "testdev", NULL, debug, NULL, err);
}

static int create(struct machine *machine, struct err *err)
{
    int ret = machine->config.firmware ? open_firmware(machine, err) : 0;

    if (ret)
        return ret;
    lay_out_memory(machine);
    ret = create_devices(machine, err);
    if (!ret)
        ret = create_fw_cfg(machine, err);
    if (!ret && machine->config.test_devices)
        ret = create_test_devices(machine, err);
    return ret;
}

static int put_acpi(struct machine *machine, u64 *rsdp, struct err *err)
{
    u64 high = align_up(high_end(machine), GiB);
    const struct acpi_config config = {
        .topology = &machine->config.topology,
        .ecam = ecam(machine),
        .mmio_first = MMIO_FIRST,
        .mmio_last = ECAM - 1, /* under firmware both windows are one, in two pieces */
        .mmio2_first = machine->config.firmware ? ECAM : ECAM_END,
        .mmio2_last = MMIO2_LAST,
        .high_first = high,
        .high_last = high + HIGH_WINDOW - 1,
        .io_apic = IO_APIC,
        .local_apic = LOCAL_APIC,
        .hpet = HPET,
        .iommu = machine->config.iommu ? IOMMU : 0,
        .remaps = machine->ops->set_irq_remap != NULL,
        .pm_base = PM_PORT,
        .sci = SCI,
        .serial_port = SERIAL_PORT,
        .serial_irq = SERIAL_IRQ,
        .sleeps = !machine->config.firmware, /* whose part waking would be */
    };

    if (machine->config.firmware)
        return machine_put_firmware_files(machine, &config, SERIAL_PORT, err);
    return acpi_put_tables(machine->mem, &config, TABLES, SMBIOS - TABLES, rsdp, err);
}

/* Firmware gets the inventory by fw_cfg and puts it where it likes. */
static int put_smbios(struct machine *machine)
{
    u8 entry[SMBIOS_ENTRY_BYTES];
    struct strbuf tables = {0};
    int ret;

    smbios_build(&tables, &machine->config.topology, machine->ram.size);
    if (tables.failed) {
        ret = -ENOMEM;
    } else if (machine->config.firmware) {
        smbios_entry(entry, 0, (u32)tables.len);
        ret = device_fw_cfg_add_file(machine->fw_cfg, "etc/smbios/smbios-anchor", entry,
                                     sizeof(entry));
        if (!ret)
            ret = device_fw_cfg_add_file(machine->fw_cfg, "etc/smbios/smbios-tables", tables.text,
                                         tables.len);
    } else if (SMBIOS + sizeof(entry) + tables.len > RESET_VECTOR) {
        ret = -ENOSPC;
    } else {
        smbios_entry(entry, SMBIOS + sizeof(entry), (u32)tables.len);
        ret = mem_write(machine->mem, SMBIOS, entry, sizeof(entry));
        if (!ret)
            ret = mem_write(machine->mem, SMBIOS + sizeof(entry), tables.text, tables.len);
    }
    strbuf_free(&tables);
    return ret;
}

/*
 * What firmware does to every CPU before it boots a system: memory is write-back by default (SDM
 * 12.11.2.1; without it Linux leaves the page attribute table off), fast string operations are on,
 * and the x87 is as FNINIT leaves it: empty, with exceptions masked, which it is not at power-on.
 * An engine that lacks one of these MSRs loses nothing a guest would miss.
 */
static void set_boot_state(struct machine *machine, struct vcpu *vcpu)
{
    static const struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
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
    if (machine->ops->set_fpu)
        machine->ops->set_fpu(vcpu, &fpu);
}

/* Multiboot 0.6.96, 3.2: the interrupt controllers are left "programmed with the normal BIOS/DOS
 * values". */
static void set_boot_vectors(struct machine *machine)
{
    static const struct {
        u32 chip;
        u8 base;
    } values[] = {{KVM_IRQCHIP_PIC_MASTER, 0x08}, {KVM_IRQCHIP_PIC_SLAVE, 0x70}};

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct kvm_irqchip pic = {.chip_id = values[i].chip};

        if (!machine->ops->get_irqchip || machine->ops->get_irqchip(machine->vm, &pic))
            continue;
        pic.chip.pic.irq_base = values[i].base;
        machine->ops->set_irqchip(machine->vm, &pic);
    }
}

/* Systems also reset a PC by a jump in real mode to where its firmware starts. */
static int put_reset_vector(struct machine *machine)
{
    static const u8 code[] = {
        0xba, 0xf9, 0x0c, /* mov $0xcf9, %dx */
        0xb0, 0x02, 0xee, /* mov $2, %al; out %al, %dx */
        0xb0, 0x06, 0xee, /* mov $6, %al; out %al, %dx */
        0xf4, 0xeb, 0xfd, /* 1: hlt; jmp 1b */
    };

    return mem_write(machine->mem, RESET_VECTOR, code, sizeof(code));
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
        .entry = machine->config.entry,
        .la57 = machine_cpu_has(machine, first, 7, 2, 16),
    };
    int ret = put_acpi(machine, &ctx.rsdp, err);

    if (ret)
        return ret;
    ret = put_smbios(machine);
    if (ret)
        return err_set(err, ret, "cannot put the SMBIOS tables into memory: %s", strerror(-ret));
    if (machine->config.firmware)
        return 0; /* CPUs start as after power-on, at the reset vector */
    set_boot_vectors(machine);
    for (unsigned i = 0; i < machine->config.topology.cpus; i++)
        set_boot_state(machine, machine->vcpus[i].vcpu);
    ret = machine->ops->get_sregs(first, &ctx.sregs);
    if (ret)
        return err_set(err, ret, "the engine does not show its CPU's registers: %s",
                       strerror(-ret));
    ret = boot_kernel(&ctx, machine->config.kernel, err);
    if (ret)
        return ret;
    if (ctx.sregs.cs.l && !machine_cpu_has(machine, first, 0x80000001, 3, 29))
        return err_set(err, -EINVAL,
                       "the kernel %s starts in 64-bit mode, which this --cpu does not have (lm)",
                       machine->config.kernel);
    ret = put_reset_vector(machine);
    if (!ret)
        ret = machine->ops->set_sregs(first, &ctx.sregs);
    if (!ret)
        ret = machine->ops->set_regs(first, &ctx.regs);
    return ret ? err_set(err, ret, "the engine does not take the boot state: %s", strerror(-ret))
               : 0;
}

static u32 waking_vector(struct machine *machine)
{
    return machine->config.firmware ? 0 : acpi_waking_vector(machine->mem, TABLES);
}

/* As firmware leaves for the waking vector (ACPI 6.4, 16.3.1): real mode, CS:IP the vector. */
static int wake(struct machine *machine, u32 vector, struct err *err)
{
    struct vcpu *first = machine->vcpus[0].vcpu;
    struct boot_context ctx = {0};
    int ret = machine->ops->get_sregs(first, &ctx.sregs);

    set_boot_vectors(machine);
    for (unsigned i = 0; i < machine->config.topology.cpus; i++)
        set_boot_state(machine, machine->vcpus[i].vcpu);
    boot_enter_real_mode(&ctx, 0, (u16)(vector >> 4), 0);
    ctx.regs.rip = vector & 15;
    if (!ret)
        ret = machine->ops->set_sregs(first, &ctx.sregs);
    if (!ret)
        ret = machine->ops->set_regs(first, &ctx.regs);
    return ret ? err_set(err, ret, "the engine does not take the state after sleep: %s",
                         strerror(-ret))
               : 0;
}

const struct machine_board machine_board_pc = {
    .name = "pc",
    .min_memory = 8 * MiB, /* enough for small test kernels; Linux asks for more itself */
    .max_memory = 1024 * GiB,
    .create = create,
    .boot = boot,
    .waking_vector = waking_vector,
    .wake = wake,
};
