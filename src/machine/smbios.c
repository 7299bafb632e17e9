/*
 * SMBIOS (DMTF DSP0134, 3.4.0): what a system's inventory tools, and drivers with lists of odd
 * machines, ask for. A structure is a formatted part, then its strings, then an empty string.
 */
#include "machine/smbios.h"

#include <string.h>

#include "base/bits.h"

#define PACKED __attribute__((packed))
#define VENDOR "Triode"
#define PRODUCT "PC"
#define FIRMWARE_DATE "11/22/2026"

struct PACKED head {
    u8 type, length;
    u16 handle;
};

enum {
    FIRMWARE = 0,
    SYSTEM = 1,
    CHASSIS = 3,
    PROCESSOR = 4,
    MEMORY_ARRAY = 16,
    MEMORY_DEVICE = 17,
    BOOT = 32,
    END = 127,

    OTHER = 1,
    UNKNOWN = 2,
    NONE = 0xfffe, /* handle of what is not there */

    /* Handles; a socket's is added to the first. */
    HANDLE_FIRMWARE = 0x000,
    HANDLE_SYSTEM = 0x100,
    HANDLE_CHASSIS = 0x300,
    HANDLE_PROCESSOR = 0x400,
    HANDLE_ARRAY = 0x1000,
    HANDLE_DEVICE = 0x1100,
    HANDLE_BOOT = 0x2000,
    HANDLE_END = 0x7f00,
};

/* @structure starts with a struct head; @strings, each with its NUL, are numbered from 1. */
static void add(struct strbuf *out, u8 type, u16 handle, void *structure, u8 len,
                const char *strings, size_t strings_len)
{
    struct head *head = structure;

    head->type = type;
    head->length = len;
    head->handle = handle;
    strbuf_append(out, structure, len);
    strbuf_append(out, strings, strings_len);
    strbuf_append(out, "\0\0", strings_len ? 1 : 2);
}

/* A list of string literals: the compiler ends the last one with a NUL of its own. */
#define ADD(out, type, handle, structure, strings)                                                 \
    add(out, type, handle, &(structure), sizeof(structure), strings,                               \
        sizeof(strings) > 1 ? sizeof(strings) : 0)

static void add_firmware(struct strbuf *out)
{
    struct PACKED {
        struct head head;
        u8 vendor, version;
        u16 segment;
        u8 date, rom_size;
        u64 characteristics;
        u8 extension[2], major, minor, ec_major, ec_minor;
        u16 extended_rom_size;
    } firmware = {
        .vendor = 1,
        .version = 2,
        .segment = 0xf000,
        .date = 3,
        .characteristics = BIT(3), /* the others are not supported */
        .extension = {BIT(0) /* ACPI */, BIT(4) /* virtual machine */},
        .major = 0xff,
        .minor = 0xff,
        .ec_major = 0xff,
        .ec_minor = 0xff,
    };

    ADD(out, FIRMWARE, HANDLE_FIRMWARE, firmware, VENDOR "\0" TRIODE_VERSION "\0" FIRMWARE_DATE);
}

static void add_system(struct strbuf *out)
{
    enum { POWER_SWITCH = 6 };
    struct PACKED {
        struct head head;
        u8 manufacturer, product, version, serial;
        u8 uuid[16]; /* zeros: none */
        u8 wake_up, sku, family;
    } system = {.manufacturer = 1, .product = 2, .version = 3, .wake_up = POWER_SWITCH};

    ADD(out, SYSTEM, HANDLE_SYSTEM, system, VENDOR "\0" PRODUCT "\0" TRIODE_VERSION);
}

static void add_chassis(struct strbuf *out)
{
    enum { SAFE = 3 };
    struct PACKED {
        struct head head;
        u8 manufacturer, type, version, serial, asset, boot_state, power_state, thermal_state;
        u8 security;
        u32 oem;
        u8 height, cords, elements, element_length, sku;
    } chassis = {
        .manufacturer = 1,
        .type = OTHER,
        .boot_state = SAFE,
        .power_state = SAFE,
        .thermal_state = SAFE,
        .security = UNKNOWN,
    };

    ADD(out, CHASSIS, HANDLE_CHASSIS, chassis, VENDOR);
}

static u8 capped(unsigned count)
{
    return count > 255 ? 255 : (u8)count;
}

static void add_processor(struct strbuf *out, const struct engine_topology *t, unsigned socket)
{
    enum { CENTRAL = 3, ENABLED = 0x41, BIT_64 = 4, MULTI_CORE = 8, NO_CACHE = 0xffff };
    unsigned threads = t->cores * t->threads;
    struct PACKED {
        struct head head;
        u8 socket, type, family, manufacturer;
        u64 id;
        u8 version, voltage;
        u16 clock, max_speed, speed;
        u8 status, upgrade;
        u16 l1, l2, l3;
        u8 serial, asset, part, cores, enabled, threads;
        u16 characteristics, family2, cores2, enabled2, threads2;
    } processor = {
        .socket = 1,
        .type = CENTRAL,
        .family = OTHER,
        .manufacturer = 2,
        .version = 3,
        .status = ENABLED,
        .upgrade = OTHER,
        .l1 = NO_CACHE,
        .l2 = NO_CACHE,
        .l3 = NO_CACHE,
        .cores = capped(t->cores),
        .enabled = capped(t->cores),
        .threads = capped(threads),
        .characteristics = BIT_64 | (t->cores > 1 ? MULTI_CORE : 0),
        .family2 = OTHER,
        .cores2 = (u16)t->cores,
        .enabled2 = (u16)t->cores,
        .threads2 = (u16)threads,
    };

    ADD(out, PROCESSOR, (u16)(HANDLE_PROCESSOR + socket), processor,
        "CPU\0" VENDOR "\0" VENDOR " virtual CPU");
}

/* One device has it all. */
static void add_memory(struct strbuf *out, u64 memory)
{
    enum { SYSTEM_BOARD = 3, SYSTEM_MEMORY = 3, NO_ECC = 3, DIMM = 9, RAM = 7, IN_KIB = 0x8000 };
    enum { EXTENDED = 0x7fff };
    struct PACKED {
        struct head head;
        u8 location, use, correction;
        u32 capacity_kib;
        u16 error_handle, devices;
        u64 capacity;
    } array = {
        .location = SYSTEM_BOARD,
        .use = SYSTEM_MEMORY,
        .correction = NO_ECC,
        .capacity_kib = 0x80000000, /* the wider field counts */
        .error_handle = NONE,
        .devices = 1,
        .capacity = memory,
    };
    struct PACKED {
        struct head head;
        u16 array, error_handle, total_width, data_width, size;
        u8 form, set, locator, bank, type;
        u16 detail, speed;
        u8 manufacturer, serial, asset, part, attributes;
        u32 extended_size;
    } device = {
        .array = HANDLE_ARRAY,
        .error_handle = NONE,
        .total_width = 64,
        .data_width = 64,
        .form = DIMM,
        .locator = 1,
        .type = RAM,
        .detail = UNKNOWN << 1,
        .manufacturer = 2,
    };

    if (memory % MiB && memory < 32 * MiB) {
        device.size = (u16)(memory / KiB) | IN_KIB;
    } else if (memory / MiB < EXTENDED) {
        device.size = (u16)(memory / MiB);
    } else {
        device.size = EXTENDED;
        device.extended_size = (u32)(memory / MiB);
    }
    ADD(out, MEMORY_ARRAY, HANDLE_ARRAY, array, "");
    ADD(out, MEMORY_DEVICE, HANDLE_DEVICE, device, "DIMM 0\0" VENDOR);
}

void smbios_build(struct strbuf *out, const struct engine_topology *topology, u64 memory)
{
    struct PACKED {
        struct head head;
        u8 reserved[6], status; /* no error */
    } boot = {0};
    struct PACKED {
        struct head head;
    } end = {0};

    add_firmware(out);
    add_system(out);
    add_chassis(out);
    for (unsigned i = 0; i < topology->sockets; i++)
        add_processor(out, topology, i);
    add_memory(out, memory);
    ADD(out, BOOT, HANDLE_BOOT, boot, "");
    ADD(out, END, HANDLE_END, end, "");
}

void smbios_entry(u8 bytes[SMBIOS_ENTRY_BYTES], u64 gpa, u32 len)
{
    struct PACKED {
        char anchor[5];
        u8 checksum, length, major, minor, docrev, revision, reserved;
        u32 max_size;
        u64 address;
    } entry = {
        .length = sizeof(entry),
        .major = 3,
        .minor = 4,
        .revision = 1,
        .max_size = len,
        .address = gpa,
    };
    u8 sum = 0;

    _Static_assert(sizeof(entry) == SMBIOS_ENTRY_BYTES, "as 5.2.2 has it");
    memcpy(entry.anchor, "_SM3_", 5);
    memcpy(bytes, &entry, sizeof(entry));
    for (unsigned i = 0; i < sizeof(entry); i++)
        sum += bytes[i];
    bytes[5] = -sum;
}
