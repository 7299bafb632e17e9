/*
 * What firmware is told by fw_cfg: the memory map, and tables that it puts into memory itself
 * (QEMU, docs/specs/fw_cfg.rst). The ACPI tables come as one file whose pointers are offsets, with
 * a script ("etc/table-loader") that says where the pointers and the checksums over them are.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"
#include "base/log.h"
#include "device/fw_cfg.h"
#include "machine/acpi.h"
#include "machine/private.h"

#define TABLES_MAX (128 * KiB)
#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"
#define MAX_COMMANDS 64
#define NAME_BYTES 56
#define PACKED __attribute__((packed))

enum {
    ALLOCATE = 1,
    ADD_POINTER = 2,
    ADD_CHECKSUM = 3,

    ZONE_HIGH = 1,
    ZONE_F_SEGMENT = 2,

    /* Offsets in tables (ACPI 6.4, 5.2). */
    LENGTH = 4,
    CHECKSUM = 9,
    HEADER_BYTES = 36,
    FADT_FACS = 36,
    FADT_DSDT = 40,
    FADT_X_DSDT = 140,
    RSDP_CHECKSUM = 8,
    RSDP_RSDT = 16,
    RSDP_OLD_BYTES = 20,
    RSDP_XSDT = 24,
    RSDP_EXTENDED_CHECKSUM = 32,
    RSDP_BYTES = 36,
};

struct PACKED command {
    u32 what;
    union PACKED {
        struct PACKED {
            char file[NAME_BYTES];
            u32 align;
            u8 zone;
        } allocate;
        struct PACKED {
            char file[NAME_BYTES], target[NAME_BYTES];
            u32 at;
            u8 size;
        } pointer;
        struct PACKED {
            char file[NAME_BYTES];
            u32 at, first, len;
        } checksum;
        u8 bytes[124];
    };
};

struct script {
    u8 *blob; /* all tables, the root pointer first */
    struct command commands[MAX_COMMANDS];
    unsigned count;
    u32 end; /* of the tables */
};

static u32 get32(const struct script *s, u32 at)
{
    u32 value;

    memcpy(&value, s->blob + at, sizeof(value));
    return value;
}

static void put_name(char name[NAME_BYTES], const char *file)
{
    snprintf(name, NAME_BYTES, "%s", file);
}

static struct command *next(struct script *s, u32 what)
{
    BUG_ON(s->count == MAX_COMMANDS);
    s->commands[s->count].what = what;
    return &s->commands[s->count++];
}

static void allocate(struct script *s, const char *file, u32 align, u8 zone)
{
    struct command *c = next(s, ALLOCATE);

    put_name(c->allocate.file, file);
    c->allocate.align = align;
    c->allocate.zone = zone;
}

static void add_pointer(struct script *s, const char *file, u32 at, u8 size)
{
    struct command *c = next(s, ADD_POINTER);

    put_name(c->pointer.file, file);
    put_name(c->pointer.target, TABLES_FILE);
    c->pointer.at = at;
    c->pointer.size = size;
}

static void add_checksum(struct script *s, const char *file, u32 at, u32 first, u32 len)
{
    struct command *c = next(s, ADD_CHECKSUM);

    s->blob[at] = 0; /* some firmware counts it in */
    put_name(c->checksum.file, file);
    c->checksum.at = at;
    c->checksum.first = first;
    c->checksum.len = len;
}

/* A table whose pointers are already in the script. */
static void finish_table(struct script *s, u32 at)
{
    u32 len = get32(s, at + LENGTH);

    add_checksum(s, TABLES_FILE, at + CHECKSUM, at, len);
    if (at + len > s->end)
        s->end = at + len;
}

static void add_list(struct script *s, u32 list, u8 size)
{
    u32 len = get32(s, list + LENGTH);

    for (u32 at = HEADER_BYTES; at < len; at += size)
        add_pointer(s, TABLES_FILE, list + at, size);
    finish_table(s, list);
}

static void make_script(struct script *s)
{
    u32 rsdt = get32(s, RSDP_RSDT), xsdt = get32(s, RSDP_XSDT);

    allocate(s, RSDP_FILE, 16, ZONE_F_SEGMENT);
    allocate(s, TABLES_FILE, 64, ZONE_HIGH);
    for (u32 at = HEADER_BYTES; at < get32(s, rsdt + LENGTH); at += 4) {
        u32 table = get32(s, rsdt + at);

        if (memcmp(s->blob + table, "FACP", 4))
            continue;
        add_pointer(s, TABLES_FILE, table + FADT_FACS, 4);
        add_pointer(s, TABLES_FILE, table + FADT_DSDT, 4);
        add_pointer(s, TABLES_FILE, table + FADT_X_DSDT, 8);
        finish_table(s, table);
    }
    add_list(s, rsdt, 4);
    add_list(s, xsdt, 8);
    add_pointer(s, RSDP_FILE, RSDP_RSDT, 4);
    add_pointer(s, RSDP_FILE, RSDP_XSDT, 8);
    add_checksum(s, RSDP_FILE, RSDP_CHECKSUM, 0, RSDP_OLD_BYTES);
    add_checksum(s, RSDP_FILE, RSDP_EXTENDED_CHECKSUM, 0, RSDP_BYTES);
}

static int put_tables(struct machine *machine, u8 *blob)
{
    struct script script = {.blob = blob};
    int ret;

    make_script(&script);
    ret = device_fw_cfg_add_file(machine->fw_cfg, RSDP_FILE, blob, RSDP_BYTES);
    memset(blob, 0, RSDP_BYTES);
    if (!ret)
        ret = device_fw_cfg_add_file(machine->fw_cfg, TABLES_FILE, blob, script.end);
    return ret ? ret
               : device_fw_cfg_add_file(machine->fw_cfg, "etc/table-loader", script.commands,
                                        script.count * sizeof(script.commands[0]));
}

/* The tables are built in memory of their own, as if at address 0. */
static int put_acpi(struct machine *machine, const struct acpi_config *acpi, struct err *err)
{
    u8 *blob = mmap(NULL, TABLES_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct mem *mem = mem_create();
    u64 rsdp;
    int ret = blob == MAP_FAILED || !mem ? -ENOMEM : 0;

    _Static_assert(sizeof(struct command) == 128, "entries of the script have 128 bytes");
    if (!ret)
        ret = mem_set_slot(mem, 0, 0, 0, TABLES_MAX, blob);
    if (!ret)
        ret = acpi_put_tables(mem, acpi, 0, TABLES_MAX, &rsdp, err);
    if (!ret)
        ret = put_tables(machine, blob);
    if (mem)
        mem_destroy(mem);
    if (blob != MAP_FAILED)
        munmap(blob, TABLES_MAX);
    return ret;
}

static int put_map(struct machine *machine)
{
    struct PACKED {
        u64 first, len;
        u32 type;
    } map[ARRAY_SIZE(machine->map.ranges)];

    for (unsigned i = 0; i < machine->map.count; i++) {
        map[i].first = machine->map.ranges[i].first;
        map[i].len = machine->map.ranges[i].size;
        map[i].type = machine->map.ranges[i].type;
    }
    return device_fw_cfg_add_file(machine->fw_cfg, "etc/e820", map,
                                  machine->map.count * sizeof(map[0]));
}

int machine_put_firmware_files(struct machine *machine, const struct acpi_config *acpi,
                               u64 console_port, struct err *err)
{
    int ret = put_map(machine);

    if (!ret)
        ret = put_acpi(machine, acpi, err);
    /* There is no screen: what BIOS programs print and read goes to the serial port. */
    if (!ret)
        ret = device_fw_cfg_add_file(machine->fw_cfg, "etc/sercon-port", &console_port,
                                     sizeof(console_port));
    return ret ? err_set(err, ret, "cannot fill the firmware's configuration: %s", strerror(-ret))
               : 0;
}
