/*
 * Kernel images of every format: bzImage, ELF with a PVH note, Multiboot. A boot protocol that
 * takes one leaves registers and memory; nothing may be written outside RAM, nor read outside the
 * file. Input: u8 choices, then the file.
 */
#include "fuzz.h"
#include "machine/boot.h"

#define RAM (48 * MiB)

static struct mem *mem;
static struct machine_map map;

static void make_memory(void)
{
    struct mem_ram ram;
    struct err err;

    mem = mem_create();
    MUST(mem && !mem_ram_alloc(&ram, RAM, &err));
    MUST(!mem_set_slot(mem, 0, 0, 0, RAM, ram.hva)); /* below 1 MiB, too, as the board has it */
    map.count = 2;
    map.ranges[0].first = 0;
    map.ranges[0].size = 0xa0000;
    map.ranges[0].type = MAP_RAM;
    map.ranges[1].first = 0x100000;
    map.ranges[1].size = RAM - 0x100000;
    map.ranges[1].type = MAP_RAM;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct boot_file file = {.path = "image", .size = size - 1};
    struct boot_context ctx = {.map = &map, .low_end = RAM, .rsdp = 0xe0000};
    struct err err = {""};
    int ret = 0;

    if (!mem)
        make_memory();
    if (size < 2)
        return 0;
    ctx.mem = mem;
    ctx.unpack = data[0] & 1;
    ctx.command_line = data[0] & 2 ? "a=b c" : NULL;
    file.data = malloc(file.size);
    MUST(file.data);
    memcpy(file.data, data + 1, file.size);
    if (boot_linux_recognizes(&file))
        ret = boot_linux(&ctx, &file, &err);
    else if (boot_multiboot_recognizes(&file))
        ret = boot_multiboot(&ctx, &file, &err);
    else if (boot_elf_recognizes(&file) && boot_pvh_recognizes(&file))
        ret = boot_pvh(&ctx, &file, &err);
    MUST(ret <= 0 && (!ret || err.text[0]));
    free(file.data);
    return 0;
}
