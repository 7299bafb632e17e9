/* The tables (ACPI 6.4, 5.2): RSDP, XSDT, FADT, FACS, DSDT, MADT, MCFG, HPET. */
#include "machine/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "device/device.h"
#include "device/hpet.h"
#include "device/pci/pci.h"
#include "device/vtd.h"
#include "machine/aml.h"
#include "machine/machine.h"

#define PACKED __attribute__((packed))

struct PACKED header {
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem_id[6], oem_table_id[8];
    u32 oem_revision;
    char creator_id[4];
    u32 creator_revision;
};

struct PACKED address {
    u8 space, width, offset, access;
    u64 address;
};

enum { SPACE_MEMORY = 0, SPACE_IO = 1, ACCESS_BYTE = 1, ACCESS_WORD = 2, ACCESS_DWORD = 3 };

struct PACKED fadt {
    struct header header;
    u32 facs, dsdt;
    u8 reserved0, profile;
    u16 sci_int;
    u32 smi_cmd;
    u8 acpi_enable, acpi_disable, s4bios, pstate;
    u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
    u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst;
    u16 c2_latency, c3_latency, flush_size, flush_stride;
    u8 duty_offset, duty_width, day_alarm, month_alarm, century;
    u16 boot_flags;
    u8 reserved1;
    u32 flags;
    struct address reset_reg;
    u8 reset_value;
    u16 arm_flags;
    u8 minor;
    u64 x_facs, x_dsdt;
    struct address x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0,
        x_gpe1, sleep_control, sleep_status;
    u64 hypervisor;
};

enum {
    PROFILE_UNSPECIFIED = 0,
    BOOT_LEGACY_DEVICES = BIT(0),
    BOOT_NO_VGA = BIT(2),
    FLAG_WBINVD = BIT(0),
    FLAG_PROC_C1 = BIT(2),
    FLAG_NO_POWER_BUTTON = BIT(4), /* no button of the fixed hardware */
    FLAG_NO_SLEEP_BUTTON = BIT(5),
    FLAG_TIMER_32 = BIT(8),
    FLAG_RESET_REG = BIT(10),
    CENTURY_BYTE = 0x32,
    RESET_PORT = 0xcf9,
    RESET_VALUE = 0x06,
    NO_C2 = 101, /* latencies above 100 and 1000 us say "not supported" */
    NO_C3 = 1001,
};

/* Tables are laid one after the other; all are below 4 GiB. */
struct builder {
    struct mem *mem;
    u64 next, end;
    u64 tables[8]; /* what the XSDT lists */
    unsigned count;
    int error;
};

static u8 checksum(const void *data, size_t len)
{
    u8 sum = 0;

    for (size_t i = 0; i < len; i++)
        sum += ((const u8 *)data)[i];
    return -sum;
}

static u64 put(struct builder *b, const void *data, size_t len, u64 align)
{
    u64 gpa = align_up(b->next, align);

    if (gpa + len > b->end)
        b->error = -ENOSPC;
    else if (!b->error)
        b->error = mem_write(b->mem, gpa, data, len);
    b->next = gpa + len;
    return gpa;
}

static void fill_header(struct header *h, const char *signature, u8 revision, size_t len)
{
    memcpy(h->signature, signature, 4);
    h->length = (u32)len;
    h->revision = revision;
    memcpy(h->oem_id, "TRIODE", 6);
    memcpy(h->oem_table_id, "TRIODEPC", 8);
    h->oem_revision = 1;
    memcpy(h->creator_id, "TRIO", 4);
    h->creator_revision = 1;
    h->checksum = 0;
    h->checksum = checksum(h, len);
}

/* @table starts with a struct header whose fields are filled in here. */
static u64 put_table(struct builder *b, const char *signature, u8 revision, void *table, size_t len)
{
    fill_header(table, signature, revision, len);
    return put(b, table, len, 16);
}

/* ---- DSDT -------------------------------------------------------------------------------- */

static void name_integer(struct aml *aml, const char *name, u64 value)
{
    aml_name(aml, name);
    aml_integer(aml, value);
}

static void name_eisa_id(struct aml *aml, const char *name, const char *id)
{
    aml_name(aml, name);
    aml_eisa_id(aml, id);
}

/* The lines of interrupt pins of slots 1 to 31, or those of the 8259 pair that these are routed
 * to. */
static void put_routes(struct aml *aml, const char *name, bool legacy)
{
    enum { SLOTS = 31, PINS = 4 };

    aml_name(aml, name);
    aml_begin_package(aml, SLOTS * PINS);
    for (unsigned slot = 1; slot <= SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            unsigned line = pci_pin_line(slot, pin);

            aml_begin_package(aml, 4);
            aml_integer(aml, slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0); /* no link device: the line itself follows */
            aml_integer(aml, legacy ? pci_legacy_line(line) : line);
            aml_end(aml);
        }
    }
    aml_end(aml);
}

/* Method (_PIC, 1) { PICF = Arg0 }: 0, as it starts, for the 8259 pair, 1 for the I/O APIC. */
static void put_pic(struct aml *aml)
{
    static const u8 body[] = {0x70, 0x68, 'P', 'I', 'C', 'F'}; /* Store */

    name_integer(aml, "PICF", 0);
    aml_begin_method(aml, "_PIC", 1);
    aml_bytes(aml, body, sizeof(body));
    aml_end(aml);
}

/* Method (_PRT) { If (PICF) { Return (PRTA) } Return (PRTP) } */
static void put_prt(struct aml *aml)
{
    static const u8 body[] = {
        0xa0, 0x0a, 'P', 'I', 'C', 'F', 0xa4, 'P', 'R', 'T', 'A', 0xa4, 'P', 'R', 'T', 'P',
    };

    put_routes(aml, "PRTA", false);
    put_routes(aml, "PRTP", true);
    aml_begin_method(aml, "_PRT", 0);
    aml_bytes(aml, body, sizeof(body));
    aml_end(aml);
}

/*
 * Method (_OSC, 4) grants the guest no control of PCI Express features, for there are none:
 *     CreateDWordField (Arg3, 8, CTRL)  CTRL = Zero  Return (Arg3)
 */
static void put_osc(struct aml *aml)
{
    static const u8 body[] = {
        0x8a, 0x6b, 0x0a, 0x08, 'C', 'T', 'R', 'L', /* CreateDWordField */
        0x70, 0x00, 'C',  'T',  'R', 'L',           /* Store */
        0xa4, 0x6b,                                 /* Return */
    };

    aml_begin_method(aml, "_OSC", 4);
    aml_bytes(aml, body, sizeof(body));
    aml_end(aml);
}

static void put_host_bridge(struct aml *aml, const struct acpi_config *c)
{
    aml_begin_device(aml, "PCI0");
    name_eisa_id(aml, "_HID", "PNP0A08");
    name_eisa_id(aml, "_CID", "PNP0A03");
    name_integer(aml, "_UID", 0);
    name_integer(aml, "_SEG", 0);
    name_integer(aml, "_BBN", 0);
    aml_name(aml, "_CRS");
    aml_begin_resources(aml);
    aml_word_space(aml, AML_SPACE_BUS, 0, 255);
    aml_io(aml, 0xcf8, 8);
    aml_word_space(aml, AML_SPACE_IO, 0, 0xcf7);
    aml_word_space(aml, AML_SPACE_IO, 0xd00, 0xffff);
    aml_dword_memory(aml, 0xa0000, 0xbffff);
    aml_dword_memory(aml, (u32)c->mmio_first, (u32)c->mmio_last);
    aml_dword_memory(aml, (u32)c->mmio2_first, (u32)c->mmio2_last);
    aml_qword_memory(aml, c->high_first, c->high_last);
    aml_end_resources(aml);
    put_prt(aml);
    put_osc(aml);
    aml_end(aml);
}

static void put_legacy_devices(struct aml *aml, const struct acpi_config *c)
{
    aml_begin_device(aml, "COM1");
    name_eisa_id(aml, "_HID", "PNP0501");
    name_integer(aml, "_UID", 1);
    aml_name(aml, "_CRS");
    aml_begin_resources(aml);
    aml_io(aml, c->serial_port, 8);
    aml_irq(aml, c->serial_irq);
    aml_end_resources(aml);
    aml_end(aml);

    aml_begin_device(aml, "RTC0");
    name_eisa_id(aml, "_HID", "PNP0B00");
    aml_name(aml, "_CRS");
    aml_begin_resources(aml);
    aml_io(aml, 0x70, 2);
    aml_irq(aml, 8);
    aml_end_resources(aml);
    aml_end(aml);

    aml_begin_device(aml, "HPET");
    name_eisa_id(aml, "_HID", "PNP0103");
    name_integer(aml, "_UID", 0);
    aml_name(aml, "_CRS");
    aml_begin_resources(aml);
    aml_memory32(aml, c->hpet, (u32)KiB);
    aml_end_resources(aml);
    aml_end(aml);

    /* What else must be left alone: the configuration space, ACPI's own ports. */
    aml_begin_device(aml, "MBRD");
    name_eisa_id(aml, "_HID", "PNP0C02");
    name_integer(aml, "_UID", 0);
    aml_name(aml, "_CRS");
    aml_begin_resources(aml);
    aml_memory32(aml, (u32)c->ecam, (u32)(256 * MiB));
    aml_io(aml, c->pm_base, 0x40);
    aml_end_resources(aml);
    aml_end(aml);
}

/* The CPUs of the MADT by their unique IDs, as devices that they are. */
static void put_cpus(struct aml *aml, const struct acpi_config *c)
{
    for (unsigned i = 0; i < c->topology->cpus; i++) {
        char name[8];

        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_begin_device(aml, name);
        aml_name(aml, "_HID");
        aml_string(aml, "ACPI0007");
        name_integer(aml, "_UID", i);
        aml_end(aml);
    }
}

static void put_sleep_state(struct aml *aml, const char *name, unsigned type)
{
    aml_name(aml, name);
    aml_begin_package(aml, 4);
    aml_integer(aml, type);
    aml_integer(aml, type);
    aml_integer(aml, 0);
    aml_integer(aml, 0);
    aml_end(aml);
}

static u64 put_dsdt(struct builder *b, const struct acpi_config *c)
{
    struct aml aml = {0};
    struct header header = {0};
    u64 gpa;

    aml_bytes(&aml, &header, sizeof(header));
    if (c->sleeps)
        put_sleep_state(&aml, "\\_S3_", DEVICE_ACPI_SLP_TYP_S3);
    put_sleep_state(&aml, "\\_S5_", DEVICE_ACPI_SLP_TYP_S5);
    put_pic(&aml);
    aml_begin_scope(&aml, "\\_SB_");
    put_cpus(&aml, c);
    put_host_bridge(&aml, c);
    put_legacy_devices(&aml, c);
    aml_end(&aml);
    if (aml.code.failed) {
        b->error = -ENOMEM;
        return 0;
    }
    gpa = put_table(b, "DSDT", 2, aml.code.text, aml.code.len);
    strbuf_free(&aml.code);
    return gpa;
}

/* ---- The other tables --------------------------------------------------------------------- */

struct PACKED facs {
    char signature[4];
    u32 length, hardware_signature, waking_vector, global_lock, flags;
    u64 x_waking_vector;
    u8 version, reserved[31];
};

#define FACS_OFFSET 64 /* from the RSDP, so that it is found again */

static u64 put_facs(struct builder *b)
{
    const struct facs facs = {.signature = "FACS", .length = 64, .version = 2};

    _Static_assert(sizeof(facs) == 64, "FACS is 64 bytes");
    return put(b, &facs, sizeof(facs), 64);
}

u32 acpi_waking_vector(struct mem *mem, u64 gpa)
{
    struct facs facs;

    if (mem_read(mem, gpa + FACS_OFFSET, &facs, sizeof(facs)) || facs.waking_vector >= MiB)
        return 0;
    return facs.waking_vector;
}

static struct address io_address(u16 port, u8 bytes, u8 access)
{
    return (struct address){SPACE_IO, bytes * 8, 0, access, port};
}

static void put_fadt(struct builder *b, const struct acpi_config *c, u64 facs, u64 dsdt)
{
    struct fadt fadt = {
        .facs = (u32)facs,
        .dsdt = (u32)dsdt,
        .profile = PROFILE_UNSPECIFIED,
        .sci_int = c->sci,
        .pm1a_evt = c->pm_base,
        .pm1a_cnt = c->pm_base + 4u,
        .pm_tmr = c->pm_base + 8u,
        .gpe0 = c->pm_base + 0x20u,
        .pm1_evt_len = 4,
        .pm1_cnt_len = 2,
        .pm_tmr_len = 4,
        .gpe0_len = 4,
        .c2_latency = NO_C2,
        .c3_latency = NO_C3,
        .century = CENTURY_BYTE,
        /* The keyboard controller has no keyboard: a guest need not spend time on looking. */
        .boot_flags = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
        .flags = FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON |
                 FLAG_TIMER_32 | FLAG_RESET_REG,
        .reset_reg = io_address(RESET_PORT, 1, ACCESS_BYTE),
        .reset_value = RESET_VALUE,
        .minor = 3,
        .x_dsdt = dsdt,
        .x_pm1a_evt = io_address(c->pm_base, 4, ACCESS_WORD),
        .x_pm1a_cnt = io_address(c->pm_base + 4, 2, ACCESS_WORD),
        .x_pm_tmr = io_address(c->pm_base + 8, 4, ACCESS_DWORD),
        .x_gpe0 = io_address(c->pm_base + 0x20, 4, ACCESS_BYTE),
        .hypervisor = 0,
    };

    _Static_assert(sizeof(fadt) == 276, "FADT of ACPI 6 is 276 bytes");
    b->tables[b->count++] = put_table(b, "FACP", 6, &fadt, sizeof(fadt));
}

static void append(struct strbuf *sb, const void *data, size_t len)
{
    strbuf_append(sb, data, len);
}

static void add_local_apics(struct strbuf *madt, const struct engine_topology *t)
{
    for (unsigned i = 0; i < t->cpus; i++) {
        u32 id = machine_apic_id(t, i);
        struct PACKED {
            u8 type, length, uid, id;
            u32 flags;
        } apic = {0, 8, (u8)i, (u8)id, 1};
        struct PACKED {
            u8 type, length;
            u16 reserved;
            u32 id, flags, uid;
        } x2apic = {9, 16, 0, id, 1, i};

        if (id < 255)
            append(madt, &apic, sizeof(apic));
        else
            append(madt, &x2apic, sizeof(x2apic));
    }
}

static void put_madt(struct builder *b, const struct acpi_config *c)
{
    enum { PCAT_COMPAT = 1, EDGE_HIGH = 0, LEVEL_HIGH = 0xd };
    struct PACKED {
        struct header header;
        u32 local_apic, flags;
    } head = {.local_apic = c->local_apic, .flags = PCAT_COMPAT};
    struct PACKED {
        u8 type, length, id, reserved;
        u32 address, first_line;
    } io_apic = {1, 12, 0, 0, c->io_apic, 0};
    struct PACKED source_override {
        u8 type, length, bus, source;
        u32 line;
        u16 flags;
    } timer = {2, 10, 0, 0, 2, EDGE_HIGH}, sci = {2, 10, 0, c->sci, c->sci, LEVEL_HIGH};
    struct PACKED {
        u8 type, length, uid;
        u16 flags;
        u8 pin;
    } nmi = {4, 6, 0xff, 0, 1}; /* LINT1 of all */
    struct strbuf madt = {0};

    append(&madt, &head, sizeof(head));
    add_local_apics(&madt, c->topology);
    append(&madt, &io_apic, sizeof(io_apic));
    append(&madt, &timer, sizeof(timer));
    append(&madt, &sci, sizeof(sci));
    append(&madt, &nmi, sizeof(nmi));
    if (madt.failed)
        b->error = -ENOMEM;
    else
        b->tables[b->count++] = put_table(b, "APIC", 5, madt.text, madt.len);
    strbuf_free(&madt);
}

static void put_mcfg(struct builder *b, const struct acpi_config *c)
{
    struct PACKED {
        struct header header;
        u64 reserved0, base;
        u16 segment;
        u8 first_bus, last_bus;
        u32 reserved1;
    } mcfg = {.base = c->ecam, .last_bus = 255};

    b->tables[b->count++] = put_table(b, "MCFG", 1, &mcfg, sizeof(mcfg));
}

/* IA-PC HPET Specification 1.0a, 3.2.4. */
static void put_hpet(struct builder *b, const struct acpi_config *c)
{
    struct PACKED {
        struct header header;
        u32 id;
        struct address address;
        u8 number;
        u16 min_tick;
        u8 protection;
    } hpet = {
        .id = DEVICE_HPET_ID,
        .address = {SPACE_MEMORY, 64, 0, 0, c->hpet},
        .min_tick = DEVICE_HPET_MIN_TICK,
    };

    b->tables[b->count++] = put_table(b, "HPET", 1, &hpet, sizeof(hpet));
}

/* DMA remapping (VT-d 8.1): one unit for all of PCI, and who else sends interrupts through it. */
static void put_dmar(struct builder *b, const struct acpi_config *c)
{
    enum { INTERRUPT_REMAPPING = 1, ALL_OF_PCI = 1, SCOPE_IO_APIC = 3, SCOPE_HPET = 4 };
    struct PACKED scope {
        u8 type, length;
        u16 reserved;
        u8 id, bus, slot, function;
    };
    struct PACKED {
        struct header header;
        u8 width, flags, reserved[10];
        struct PACKED {
            u16 type, length;
            u8 flags, reserved;
            u16 segment;
            u64 address;
            struct scope io_apic, hpet;
        } unit;
    } dmar = {
        .width = DEVICE_VTD_HOST_BITS - 1,
        .flags = c->remaps ? INTERRUPT_REMAPPING : 0,
        .unit = {.length = sizeof(dmar.unit),
                 .flags = ALL_OF_PCI,
                 .address = c->iommu,
                 .io_apic = {SCOPE_IO_APIC, sizeof(struct scope), 0, 0, DEVICE_VTD_BUS,
                             DEVICE_VTD_IO_APIC_SLOT, 0},
                 .hpet = {SCOPE_HPET, sizeof(struct scope), 0, 0, DEVICE_VTD_BUS,
                          DEVICE_VTD_HPET_SLOT, 0}},
    };

    b->tables[b->count++] = put_table(b, "DMAR", 1, &dmar, sizeof(dmar));
}

static u64 put_xsdt(struct builder *b)
{
    struct PACKED {
        struct header header;
        u64 tables[ARRAY_SIZE(b->tables)];
    } xsdt = {0};

    memcpy(xsdt.tables, b->tables, b->count * sizeof(u64));
    return put_table(b, "XSDT", 1, &xsdt, sizeof(xsdt.header) + b->count * sizeof(u64));
}

/* The same list for systems of ACPI 1.0's time. */
static u64 put_rsdt(struct builder *b)
{
    struct PACKED {
        struct header header;
        u32 tables[ARRAY_SIZE(b->tables)];
    } rsdt = {0};

    for (unsigned i = 0; i < b->count; i++)
        rsdt.tables[i] = (u32)b->tables[i];
    return put_table(b, "RSDT", 1, &rsdt, sizeof(rsdt.header) + b->count * sizeof(u32));
}

static void put_rsdp(struct builder *b, u64 gpa, u64 rsdt, u64 xsdt)
{
    struct PACKED {
        char signature[8];
        u8 checksum;
        char oem_id[6];
        u8 revision;
        u32 rsdt, length;
        u64 xsdt;
        u8 extended_checksum, reserved[3];
    } rsdp = {.revision = 2, .rsdt = (u32)rsdt, .length = sizeof(rsdp), .xsdt = xsdt};

    memcpy(rsdp.signature, "RSD PTR ", 8);
    memcpy(rsdp.oem_id, "TRIODE", 6);
    rsdp.checksum = checksum(&rsdp, 20); /* ACPI 1.0's part */
    rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
    if (!b->error)
        b->error = mem_write(b->mem, gpa, &rsdp, sizeof(rsdp));
}

int acpi_put_tables(struct mem *mem, const struct acpi_config *config, u64 gpa, u64 size, u64 *rsdp,
                    struct err *err)
{
    struct builder b = {.mem = mem, .next = gpa + FACS_OFFSET, .end = gpa + size};
    u64 facs, dsdt, rsdt;

    facs = put_facs(&b);
    dsdt = put_dsdt(&b, config);
    put_fadt(&b, config, facs, dsdt);
    put_madt(&b, config);
    put_mcfg(&b, config);
    put_hpet(&b, config);
    if (config->iommu)
        put_dmar(&b, config);
    rsdt = put_rsdt(&b);
    put_rsdp(&b, gpa, rsdt, put_xsdt(&b));
    *rsdp = gpa;
    return b.error ? err_set(err, b.error, "the ACPI tables do not fit into their %" PRIu64 " KiB",
                             size / KiB)
                   : 0;
}
