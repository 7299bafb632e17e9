/* Boot protocols on images made here: where things land, what the CPU's state is, what is
 * refused. */
#include <asm/bootparam.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot_test.h"

#define SETUP_BYTES 1024 /* one boot sector, one sector of setup */
#define KERNEL_BYTES 8192
#define ELF_BYTES 1024
#define CR4_PAE 0x20
#define CR4_LA57 0x1000

static struct {
    struct mem *mem;
    u8 *ram;
    struct boot_context ctx;
    struct machine_map map;
    struct err err;
} t;

static char kernel_path[] = "/tmp/triode-test-XXXXXX";
static char initrd_path[] = "/tmp/triode-test-XXXXXX";

/* A bzImage whose payload is at @payload, if any. */
static size_t make_bzimage(u8 *image, const void *payload, u32 payload_len)
{
    struct setup_header hdr = {
        .setup_sects = 1,
        .syssize = KERNEL_BYTES / 16,
        .boot_flag = 0xaa55,
        .header = 0x53726448,
        .version = 0x020f,
        .loadflags = LOADED_HIGH,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64,
        .cmdline_size = 100,
        .payload_offset = 4096,
        .payload_length = payload_len,
        .pref_address = 0x1000000,
        .init_size = 0x800000,
    };

    memset(image, 0, SETUP_BYTES + KERNEL_BYTES);
    memcpy(image + 0x1f1, &hdr, sizeof(hdr));
    memset(image + SETUP_BYTES, 0xcc, 4096);
    memcpy(image + SETUP_BYTES + 4096, payload, payload_len);
    return SETUP_BYTES + KERNEL_BYTES;
}

/* An ELF kernel at 16 MiB with entry there, and a PVH note. */
static size_t make_elf(u8 *image)
{
    static const u32 note[] = {4, 8, 18, 0x006e6558, 0x1000010, 0};

    memset(image, 0, ELF_BYTES);
    memcpy(image,
           "\x7f"
           "ELF\2\1\1",
           7);
    memcpy(image + 16, (u16[]){2, 62}, 4);
    memcpy(image + 24, (u64[]){0x1000000, 64}, 16);
    memcpy(image + 54, (u16[]){56, 2}, 4);
    memcpy(image + 64, (u32[]){1, 7}, 8);
    memcpy(image + 72, (u64[]){512, 0xffffffff81000000, 0x1000000, 512, 4096, 4096}, 48);
    memcpy(image + 120, (u32[]){4, 4}, 8);
    memcpy(image + 128, (u64[]){256, 0, 0, sizeof(note), sizeof(note), 4}, 48);
    memcpy(image + 256, note, sizeof(note));
    memset(image + 512, 0x90, 512);
    return ELF_BYTES;
}

/* LZ4's legacy frame with literals only, and the size that the kernel's build appends. */
static u32 make_payload(u8 *payload, const u8 *data, u32 len)
{
    u8 *at = payload + 8;
    u32 rest = len - 15, block;

    *at++ = 0xf0;
    for (; rest >= 255; rest -= 255)
        *at++ = 255;
    *at++ = (u8)rest;
    memcpy(at, data, len);
    at += len;
    block = (u32)(at - payload) - 8;
    memcpy(payload, "\x02\x21\x4c\x18", 4);
    memcpy(payload + 4, &block, 4);
    memcpy(at, &len, 4);
    return (u32)(at - payload) + 4;
}

static int boot(const void *image, size_t len)
{
    write_file(kernel_path, image, len);
    memset(t.ram, 0, RAM);
    memset(&t.ctx.regs, 0xff, sizeof(t.ctx.regs));
    memset(&t.err, 0, sizeof(t.err));
    return boot_kernel(&t.ctx, kernel_path, &t.err);
}

static void refused(const void *image, size_t len, const char *word)
{
    assert_true(boot(image, len) < 0);
    if (!strstr(t.err.text, word) || !strstr(t.err.text, kernel_path))
        fail_msg("\"%s\" has no \"%s\"", t.err.text, word);
}

/* Walks the page tables the loader made, by hand. */
static u64 translate(u64 gva)
{
    u64 entry = t.ctx.sregs.cr3 | 1;

    for (unsigned shift = t.ctx.sregs.cr4 & CR4_LA57 ? 48 : 39; shift >= 39; shift -= 9) {
        entry = ((const u64 *)(t.ram + (entry & ~0xfffull)))[gva >> shift & 511];
        assert_int_equal(entry & 0x81, 1);
    }
    entry = ((const u64 *)(t.ram + (entry & ~0xfffull)))[gva >> 30 & 511];
    assert_int_equal(entry & 0x81, 1);
    entry = ((const u64 *)(t.ram + (entry & ~0xfffull)))[gva >> 21 & 511];
    assert_int_equal(entry & 0x83, 0x83);
    return (entry & ~0x1fffffull) | (gva & 0x1fffff);
}

static void check_long_mode_with(u64 rip, u64 cr4)
{
    const struct kvm_sregs *s = &t.ctx.sregs;
    u64 descriptor;

    assert_int_equal(t.ctx.regs.rip, rip);
    assert_int_equal(t.ctx.regs.rsi, BOOT_PARAMS);
    assert_int_equal(t.ctx.regs.rflags, 2);
    assert_int_equal(s->cr0 & 0x80000001, 0x80000001);
    assert_int_equal(s->cr4, cr4);
    assert_int_equal(s->efer, 0x500);
    assert_int_equal(s->cs.selector, 0x10);
    assert_int_equal(s->cs.l, 1);
    assert_int_equal(s->cs.db, 0);
    assert_int_equal(s->ss.selector, 0x18);
    assert_int_equal(s->gdt.limit, 47);
    memcpy(&descriptor, t.ram + s->gdt.base + 0x10, 8);
    assert_true(descriptor == 0x00af9b000000ffff);
    memcpy(&descriptor, t.ram + s->gdt.base + 0x18, 8);
    assert_true(descriptor == 0x00cf93000000ffff);
    for (u64 gva = 0; gva < 4 * GiB; gva += 0x1234567)
        assert_true(translate(gva) == gva);
}

static void check_long_mode(u64 rip)
{
    check_long_mode_with(rip, CR4_PAE);
}

static const struct boot_params *zero_page(void)
{
    return (const struct boot_params *)(t.ram + BOOT_PARAMS);
}

static void bzimage_by_its_own_entry(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048];
    size_t len = make_bzimage(image, payload, make_payload(payload, elf, (u32)make_elf(elf)));
    const struct boot_params *bp = zero_page();

    (void)state;
    t.ctx.unpack = false;
    assert_int_equal(boot(image, len), 0);
    check_long_mode(0x1000200);
    assert_memory_equal(t.ram + 0x1000000, image + SETUP_BYTES, KERNEL_BYTES);
    assert_int_equal(bp->hdr.header, 0x53726448);
    assert_int_equal(bp->hdr.type_of_loader, 0xff);
    assert_string_equal((char *)t.ram + bp->hdr.cmd_line_ptr, "a=b quiet");
    assert_int_equal(bp->hdr.ramdisk_size, 0);
    assert_int_equal(bp->acpi_rsdp_addr, 0xe0000);
    assert_int_equal(bp->e820_entries, 2);
    assert_int_equal(bp->e820_table[1].addr, MiB);
    assert_int_equal(bp->e820_table[1].size, RAM - MiB);
    assert_int_equal(bp->e820_table[1].type, 1);
    assert_int_equal(bp->sentinel, 0);
}

static void bzimage_unpacked_here(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048];
    size_t len = make_bzimage(image, payload, make_payload(payload, elf, (u32)make_elf(elf)));

    (void)state;
    t.ctx.unpack = true;
    assert_int_equal(boot(image, len), 0);
    check_long_mode(0x1000000);
    assert_memory_equal(t.ram + 0x1000000, elf + 512, 512);
    assert_int_equal(zero_page()->hdr.init_size, 0x800000);
    /* Nothing is left of where it was unpacked: an ELF header 2 MiB below. */
    for (u64 at = MiB; at < RAM; at++)
        assert_true(!t.ram[at] || (at >= 0x1000000 && at < 0x1000200));

    /* A payload that does not unpack is left to the kernel itself. */
    payload[20] ^= 0xff;
    memcpy(payload + 4, "\xff\xff\xff\x00", 4);
    len = make_bzimage(image, payload, 1100);
    assert_int_equal(boot(image, len), 0);
    check_long_mode(0x1000200);
}

/* As the kernel's own decompressor would have it: the CPU, the kernel and its command line
 * agree. */
static void five_levels_of_page_tables(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048];
    size_t len = make_bzimage(image, payload, make_payload(payload, elf, (u32)make_elf(elf)));
    struct setup_header *hdr = (struct setup_header *)(image + 0x1f1);
    const char *command_line = t.ctx.command_line;
    static const struct {
        bool la57;
        u16 flags;
        const char *command_line;
        u64 cr4;
    } cases[] = {
        {true, XLF_5LEVEL | XLF_5LEVEL_ENABLED, "a=b", CR4_PAE | CR4_LA57},
        {true, XLF_5LEVEL | XLF_5LEVEL_ENABLED, NULL, CR4_PAE | CR4_LA57},
        {true, XLF_5LEVEL | XLF_5LEVEL_ENABLED, "quiet x=no5lvl no5lvls", CR4_PAE | CR4_LA57},
        {true, XLF_5LEVEL | XLF_5LEVEL_ENABLED, "quiet no5lvl a=b", CR4_PAE},
        {true, XLF_5LEVEL, "a=b", CR4_PAE},
        {true, 0, "a=b", CR4_PAE},
        {false, XLF_5LEVEL | XLF_5LEVEL_ENABLED, "a=b", CR4_PAE},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        t.ctx.unpack = true;
        t.ctx.la57 = cases[i].la57;
        t.ctx.command_line = cases[i].command_line;
        hdr->xloadflags = XLF_KERNEL_64 | cases[i].flags;
        assert_int_equal(boot(image, len), 0);
        check_long_mode_with(0x1000000, cases[i].cr4);
        t.ctx.unpack = false; /* the decompressor wants four and sees to it itself */
        assert_int_equal(boot(image, len), 0);
        check_long_mode(0x1000200);
    }
    t.ctx.la57 = false;
    t.ctx.command_line = command_line;
}

static void check_protected_mode(u64 rip)
{
    const struct kvm_sregs *s = &t.ctx.sregs;

    assert_int_equal(t.ctx.regs.rip, rip);
    assert_int_equal(t.ctx.regs.rsi, BOOT_PARAMS);
    assert_int_equal(t.ctx.regs.rflags, 2);
    assert_int_equal(s->cr0, 0x11);
    assert_int_equal(s->cr4 | s->efer, 0);
    assert_int_equal(s->cs.selector, 0x10);
    assert_int_equal(s->cs.db, 1);
    assert_int_equal(s->cs.l, 0);
    assert_int_equal(s->ds.selector, 0x18);
    assert_int_equal(s->ss.selector, 0x18);
}

/* A kernel without 64-bit entry, and one that has it when it is asked for the other. */
static void bzimage_by_its_32bit_entry(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);

    (void)state;
    t.ctx.entry = MACHINE_ENTRY_32;
    assert_int_equal(boot(image, len), 0);
    check_protected_mode(0x1000000);
    assert_int_equal(zero_page()->hdr.code32_start, 0x1000000);
    assert_memory_equal(t.ram + 0x1000000, image + SETUP_BYTES, KERNEL_BYTES);
    t.ctx.entry = MACHINE_ENTRY_AUTO;
    ((struct setup_header *)(image + 0x1f1))->xloadflags = 0;
    assert_int_equal(boot(image, len), 0);
    check_protected_mode(0x1000000);
    t.ctx.entry = MACHINE_ENTRY_64;
    refused(image, len, "no 64-bit entry");
    t.ctx.entry = MACHINE_ENTRY_32;
    refused(image, SETUP_BYTES, "truncated");
    make_elf(image);
    refused(image, ELF_BYTES, "--entry");
    t.ctx.entry = MACHINE_ENTRY_AUTO;
}

/* An i386 ELF kernel at 16 MiB, entered 16 bytes in, with a PVH note. */
static size_t make_elf32(u8 *image)
{
    static const u32 note[] = {4, 4, 18, 0x006e6558, 0x1000020};

    memset(image, 0, ELF_BYTES);
    memcpy(image,
           "\x7f"
           "ELF\1\1\1",
           7);
    memcpy(image + 16, (u16[]){2, 3}, 4);
    memcpy(image + 24, (u32[]){0x1000010, 52}, 8);
    memcpy(image + 42, (u16[]){32, 2}, 4);
    memcpy(image + 52, (u32[]){1, 512, 0xc1000000, 0x1000000, 512, 4096, 7, 4096}, 32);
    memcpy(image + 84, (u32[]){4, 256, 0, 0, sizeof(note), sizeof(note), 4, 4}, 32);
    memcpy(image + 256, note, sizeof(note));
    memset(image + 512, 0x90, 512);
    return ELF_BYTES;
}

static void i386_kernels_are_unpacked_too(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048];
    u32 packed = make_payload(payload, elf, (u32)make_elf32(elf));
    size_t len = make_bzimage(image, payload, packed);

    (void)state;
    ((struct setup_header *)(image + 0x1f1))->xloadflags = 0;
    t.ctx.unpack = true;
    assert_int_equal(boot(image, len), 0);
    check_protected_mode(0x1000010);
    assert_memory_equal(t.ram + 0x1000000, elf + 512, 512);

    /* A 32-bit payload behind a 64-bit entry is not what it seems: the kernel itself may try. */
    ((struct setup_header *)(image + 0x1f1))->xloadflags = XLF_KERNEL_64;
    assert_int_equal(boot(image, len), 0);
    check_long_mode(0x1000200);
    assert_int_equal(boot(elf, sizeof(elf)), 0); /* and as an ELF file, by PVH */
    assert_int_equal(t.ctx.regs.rip, 0x1000020);
    assert_int_equal(t.ctx.regs.rbx, BOOT_PARAMS);
}

/* The real-mode program with its header filled in, the state of boot.rst, and a BIOS. */
static void bzimage_by_its_16bit_entry(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);
    struct setup_header *hdr = (struct setup_header *)(image + 0x1f1);
    const struct setup_header *in_guest = &zero_page()->hdr;
    const struct kvm_sregs *s = &t.ctx.sregs;
    const u16 *vectors;
    const u8 *bios;
    u16 kilobytes;
    u32 handler;

    (void)state;
    hdr->jump = 0x6aeb; /* the header ends at 0x26c, and what comes then is code */
    memset(image + 0x26c, 0x90, SETUP_BYTES - 0x26c);
    t.ctx.entry = MACHINE_ENTRY_16;
    assert_int_equal(boot(image, len), 0);
    t.ctx.entry = MACHINE_ENTRY_AUTO;
    assert_int_equal(s->cr0, 0x10);
    assert_int_equal(s->cs.base, 0x10200);
    assert_int_equal(s->cs.selector, 0x1020);
    assert_int_equal(s->ds.base, 0x10000);
    assert_int_equal(s->ss.selector, 0x1000);
    assert_int_equal(s->ss.db, 0);
    assert_int_equal(t.ctx.regs.rip, 0);
    assert_int_equal(t.ctx.regs.rsp, 0xe000);
    assert_int_equal(in_guest->loadflags, LOADED_HIGH | CAN_USE_HEAP);
    assert_int_equal(in_guest->heap_end_ptr, 0xde00);
    assert_int_equal(in_guest->code32_start, 0x1000000);
    assert_string_equal((char *)t.ram + in_guest->cmd_line_ptr, "a=b quiet");
    assert_memory_equal(t.ram + BOOT_PARAMS + 0x26c, image + 0x26c, SETUP_BYTES - 0x26c);
    memcpy(&handler, t.ram + 0x15 * 4, 4);
    assert_int_equal(handler >> 16, BOOT_BIOS >> 4);
    vectors = (const u16 *)(t.ram + BOOT_BIOS);
    for (unsigned i = 2; vectors[i] != 0xffff; i += 2)
        if (vectors[i] == 0x15)
            assert_int_equal(vectors[i + 1], handler & 0xffff);
    memcpy(&kilobytes, t.ram + BOOT_BASE_MEMORY, sizeof(kilobytes));
    assert_int_equal(kilobytes, t.map.ranges[0].size / KiB);
    bios = t.ram + BOOT_BIOS;
    assert_non_null(memmem(bios, 1024, &t.map.ranges[1], 16)); /* address and size */
}

/* Headers of old protocols end early, and what they lack has the meaning it had then. */
static void old_protocols(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);
    struct setup_header *hdr = (struct setup_header *)(image + 0x1f1);
    const char *line = t.ctx.command_line;
    char text[258];

    (void)state;
    memset(&hdr->initrd_addr_max, 0xcc,
           sizeof(*hdr) - offsetof(struct setup_header, initrd_addr_max));
    hdr->version = 0x0202;
    write_file(initrd_path, "initrd", 6);
    t.ctx.initrd_path = initrd_path;
    assert_int_equal(boot(image, len), 0); /* by the entry that all have */
    assert_int_equal(t.ctx.sregs.cr0, 0x10);
    t.ctx.entry = MACHINE_ENTRY_32;
    assert_int_equal(boot(image, len), 0);
    t.ctx.initrd_path = NULL;
    check_protected_mode(0x100000);
    assert_int_equal(zero_page()->hdr.ramdisk_image, RAM - 4096);
    assert_int_equal(zero_page()->hdr.setup_data, 0);
    assert_int_equal(zero_page()->alt_mem_k, RAM / KiB - 1024);
    memset(text, 'x', sizeof(text) - 1);
    text[257] = 0;
    t.ctx.command_line = text;
    assert_int_equal(boot(image, len), -E2BIG);
    t.ctx.command_line = line;
    t.ctx.entry = MACHINE_ENTRY_AUTO;
    assert_non_null(strstr(t.err.text, "takes 255"));
}

static void bzimage_seed_is_random(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], first[48];
    size_t len = make_bzimage(image, "", 0);
    const struct setup_data *seed = (const struct setup_data *)(t.ram + BOOT_SEED);

    (void)state;
    assert_int_equal(boot(image, len), 0);
    assert_int_equal(zero_page()->hdr.setup_data, BOOT_SEED);
    assert_int_equal(seed->type, SETUP_RNG_SEED);
    assert_int_equal(seed->len, 32);
    assert_int_equal(seed->next, 0);
    memcpy(first, t.ram + BOOT_SEED, sizeof(first));
    assert_int_equal(boot(image, len), 0);
    assert_memory_not_equal(first, t.ram + BOOT_SEED, sizeof(first));
}

static void initrd_lies_high(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);
    char initrd[5000];

    (void)state;
    memset(initrd, 'i', sizeof(initrd));
    write_file(initrd_path, initrd, sizeof(initrd));
    t.ctx.initrd_path = initrd_path;
    assert_int_equal(boot(image, len), 0);
    assert_int_equal(zero_page()->hdr.ramdisk_image, RAM - 8192);
    assert_int_equal(zero_page()->hdr.ramdisk_size, 5000);
    assert_memory_equal(t.ram + RAM - 8192, initrd, 5000);

    /* The header's limit counts; under it the kernel is in the way, so it goes below that. */
    ((struct setup_header *)(image + 0x1f1))->initrd_addr_max = 0x17fffff;
    assert_int_equal(boot(image, len), 0);
    assert_int_equal(zero_page()->hdr.ramdisk_image, 0x1000000 - 8192);
    t.ctx.initrd_path = NULL;
}

static void initrd_that_does_not_fit(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);

    (void)state;
    write_file(initrd_path, "x", 1);
    assert_int_equal(truncate(initrd_path, RAM - 20 * MiB), 0);
    t.ctx.initrd_path = initrd_path;
    assert_int_equal(boot(image, len), -E2BIG);
    assert_non_null(strstr(t.err.text, initrd_path));
    assert_int_equal(truncate(initrd_path, RAM * 4), 0);
    assert_int_equal(boot(image, len), -E2BIG);
    t.ctx.initrd_path = "/nonexistent/initrd";
    assert_int_equal(boot(image, len), -ENOENT);
    assert_non_null(strstr(t.err.text, "/nonexistent/initrd"));
    t.ctx.initrd_path = NULL;
}

static void command_line_has_a_limit(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);
    const char *old = t.ctx.command_line;
    char line[102];

    (void)state;
    memset(line, 'x', sizeof(line));
    line[100] = 0;
    t.ctx.command_line = line;
    assert_int_equal(boot(image, len), 0);
    line[100] = 'x';
    line[101] = 0;
    assert_int_equal(boot(image, len), -E2BIG);
    assert_non_null(strstr(t.err.text, "101"));
    t.ctx.command_line = old;
}

static void unpacked_beyond_memory(void **state)
{
    u8 elf[ELF_BYTES], payload[3000], image[SETUP_BYTES + KERNEL_BYTES];
    u32 payload_len = make_payload(payload, elf, (u32)make_elf(elf));
    size_t len = make_bzimage(image, payload, payload_len);

    (void)state;
    ((struct setup_header *)(image + 0x1f1))->init_size = 49 << 20;
    t.ctx.unpack = true;
    refused(image, len, "up to 65 MiB, the guest has 64 MiB");
}

static void bad_bzimages(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES];
    size_t len = make_bzimage(image, "", 0);
    struct setup_header *hdr = (struct setup_header *)(image + 0x1f1);

    (void)state;
    t.ctx.unpack = false;
    for (size_t cut = 1; cut < len - 15; cut += 97)
        refused(image, cut, cut > 0x1f1 + sizeof(*hdr) ? "truncated" : "neither");
    hdr->version = 0x0201;
    refused(image, len, "2.01");
    make_bzimage(image, "", 0);
    hdr->loadflags = 0;
    refused(image, len, "zImage");
    make_bzimage(image, "", 0);
    hdr->init_size = 0x10000000;
    refused(image, len, "--mem");
    /* It would fit lower, but a kernel moves itself up to where it likes best. */
    hdr->init_size = 49 << 20;
    refused(image, len, "up to 65 MiB, the guest has 64 MiB");
    make_bzimage(image, "", 0);
    hdr->pref_address = 0xfff0000000000000;
    hdr->relocatable_kernel = 0;
    refused(image, len, "");
    hdr->pref_address = ~0ull; /* its end is beyond 64 bits */
    refused(image, len, "--mem");
    make_bzimage(image, "", 0);
    hdr->boot_flag = 0;
    refused(image, len, "neither");
    memcpy(image + 0x38, "ARM\x64", 4);
    refused(image, len, "arm64");
    refused("#!/bin/sh\n", 10, "neither");
    refused("", 0, "empty");
    assert_int_equal(boot_kernel(&t.ctx, "/tmp", &t.err), -EINVAL);
    assert_non_null(strstr(t.err.text, "directory"));
}

static void pvh(void **state)
{
    u8 image[ELF_BYTES];
    size_t len = make_elf(image);
    const struct kvm_sregs *s = &t.ctx.sregs;
    const u32 *info = (const u32 *)(t.ram + BOOT_PARAMS);

    (void)state;
    write_file(initrd_path, "initrd", 6);
    t.ctx.initrd_path = initrd_path;
    assert_int_equal(boot(image, len), 0);
    t.ctx.initrd_path = NULL;
    assert_int_equal(t.ctx.regs.rip, 0x1000010);
    assert_int_equal(t.ctx.regs.rbx, BOOT_PARAMS);
    assert_int_equal(s->cr0, 0x11);
    assert_int_equal(s->cr4 | s->efer, 0);
    assert_int_equal(s->cs.db, 1);
    assert_int_equal(s->cs.limit, 0xffffffff);
    assert_int_equal(s->tr.limit, 0x67);
    assert_int_equal(info[0], 0x336ec578);
    assert_int_equal(info[1], 1);
    assert_int_equal(info[3], 1); /* modules */
    assert_int_equal(*(u64 *)(t.ram + BOOT_PVH_MODULES), RAM - 4096);
    assert_int_equal(*(u64 *)(t.ram + BOOT_PVH_MODULES + 8), 6);
    assert_string_equal((char *)t.ram + BOOT_COMMAND_LINE, "a=b quiet");
    assert_int_equal(info[12], 2); /* entries of the memory map */
    assert_memory_equal(t.ram + 0x1000000, image + 512, 512);
}

static void bad_elf_files(void **state)
{
    u8 image[ELF_BYTES];
    size_t len = make_elf(image);

    (void)state;
    refused(image, 20, "truncated");
    refused(image, 100, "truncated");
    refused(image, 700, "truncated");
    image[4] = 1;
    refused(image, len, "another CPU"); /* x86-64's number in an ELF32 header */
    make_elf(image);
    image[18] = 183;
    refused(image, len, "another CPU");
    make_elf(image);
    image[16] = 3;
    refused(image, len, "type 3");
    make_elf(image);
    image[256] = 5; /* not Xen's note any more */
    refused(image, len, "PVH");
    make_elf(image);
    image[256 + 18] = 0x08; /* entry below the kernel */
    refused(image, len, "outside");
    make_elf(image);
    memcpy(image + 88, (u64[]){0x10000}, 8);
    memcpy(image + 256 + 16, (u64[]){0x10000}, 8);
    refused(image, len, "no memory");
    make_elf(image);
    memcpy(image + 104, (u64[]){1ull << 40}, 8);
    refused(image, len, "no memory");
    make_elf(image);
    memcpy(image + 88, (u64[]){~0ull - 10}, 8);
    refused(image, len, "");
}

/* Segments that cannot be moved into place, because one would overwrite the next, are copied. */
static void bzimage_with_entangled_segments(void **state)
{
    u8 image[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048];
    size_t len;

    (void)state;
    make_elf(elf);
    elf[56] = 3; /* three program headers: the third one's source is the first one's place */
    memcpy(elf + 176, (u32[]){1, 7}, 8);
    memcpy(elf + 184, (u64[]){768, 0, 0x1001000, 256, 256, 4096}, 48);
    memcpy(elf + 256 - 24, (u32[]){0, 0, 0, 0, 0, 0}, 24);
    memcpy(elf + 88, (u64[]){0xe00300}, 8); /* where its file offset 768 comes to lie */
    memcpy(elf + 24, (u64[]){0xe00300}, 8);
    memset(elf + 768, 0x55, 256);
    len = make_bzimage(image, payload, make_payload(payload, elf, ELF_BYTES));
    t.ctx.unpack = true;
    assert_int_equal(boot(image, len), 0);
    check_long_mode(0xe00300);
    assert_memory_equal(t.ram + 0xe00300, elf + 512, 512);
    assert_memory_equal(t.ram + 0x1001000, elf + 768, 256);
}

/* Any bytes may stand in headers. The answer does not matter; the sanitizers' build watches. */
static void headers_that_lie(void **state)
{
    u8 bzimage[SETUP_BYTES + KERNEL_BYTES], elf[ELF_BYTES], payload[2048], image[16384];
    u32 packed = make_payload(payload, elf, (u32)make_elf(elf));
    size_t bz_len = make_bzimage(bzimage, payload, packed);
    u64 random = 99;

    (void)state;
    t.ctx.unpack = true;
    for (unsigned i = 0; i < 1500; i++) {
        bool as_elf = i & 1;
        size_t len = as_elf ? sizeof(elf) : bz_len;

        t.ctx.entry = as_elf ? MACHINE_ENTRY_AUTO : i / 4 % 4;
        memcpy(image, as_elf ? elf : bzimage, len);
        for (unsigned change = 0; change < 1 + i % 4; change++) {
            size_t at;

            random = random * 6364136223846793005ull + 1442695040888963407ull;
            at = as_elf ? (random >> 33) % 300 : 0x1f1 + (random >> 33) % 128;
            if (!as_elf && (i & 2))
                at = SETUP_BYTES + 4096 + (random >> 33) % packed;
            image[at] = (u8)(random >> 24);
        }
        write_file(kernel_path, image, len);
        boot_kernel(&t.ctx, kernel_path, &t.err);
    }
    t.ctx.entry = MACHINE_ENTRY_AUTO;
}

static int set_up(void **state)
{
    (void)state;
    close(mkstemp(kernel_path));
    close(mkstemp(initrd_path));
    if (make_ram(&t.mem, &t.ram, &t.map))
        return -1;
    t.ctx = (struct boot_context){
        .mem = t.mem, .map = &t.map, .low_end = RAM, .rsdp = 0xe0000, .command_line = "a=b quiet"};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mem_destroy(t.mem);
    munmap(t.ram, RAM);
    unlink(kernel_path);
    return unlink(initrd_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bzimage_by_its_own_entry),
        cmocka_unit_test(bzimage_unpacked_here),
        cmocka_unit_test(five_levels_of_page_tables),
        cmocka_unit_test(bzimage_by_its_32bit_entry),
        cmocka_unit_test(i386_kernels_are_unpacked_too),
        cmocka_unit_test(bzimage_by_its_16bit_entry),
        cmocka_unit_test(old_protocols),
        cmocka_unit_test(bzimage_seed_is_random),
        cmocka_unit_test(initrd_lies_high),
        cmocka_unit_test(initrd_that_does_not_fit),
        cmocka_unit_test(command_line_has_a_limit),
        cmocka_unit_test(unpacked_beyond_memory),
        cmocka_unit_test(bad_bzimages),
        cmocka_unit_test(pvh),
        cmocka_unit_test(bad_elf_files),
        cmocka_unit_test(headers_that_lie),
        cmocka_unit_test(bzimage_with_entangled_segments),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
