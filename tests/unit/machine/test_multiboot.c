/* Multiboot kernels made here: where things land, what the record says, which lies are refused. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot_test.h"

#define IMAGE_BYTES 16384
#define CODE 4096 /* offset in the file */
#define PLACE 0x200000

static struct {
    struct mem *mem;
    u8 *ram;
    struct boot_context ctx;
    struct machine_map map;
    struct err err;
    u8 image[IMAGE_BYTES];
} t;

static char path[] = "/tmp/triode-multiboot-XXXXXX", module[] = "/tmp/triode-module-XXXXXX";

static void put_header(u32 at, u32 flags, const u32 *addresses)
{
    u32 header[8] = {0x1badb002, flags, -(0x1badb002 + flags)};

    if (addresses)
        memcpy(header + 3, addresses, 20);
    memcpy(t.image + at, header, addresses ? 32 : 12);
}

static void make_elf32(u64 place, u64 entry, u32 file_bytes, u32 memory_bytes)
{
    Elf32_Ehdr h = {.e_type = ET_EXEC,
                    .e_machine = EM_386,
                    .e_entry = (u32)entry,
                    .e_phoff = 64,
                    .e_phentsize = 32,
                    .e_phnum = 1};
    Elf32_Phdr p = {.p_type = PT_LOAD,
                    .p_offset = CODE,
                    .p_vaddr = (u32)place,
                    .p_paddr = (u32)place,
                    .p_filesz = file_bytes,
                    .p_memsz = memory_bytes};

    memset(t.image, 0, sizeof(t.image));
    memcpy(h.e_ident, "\177ELF\1\1\1", 7);
    memcpy(t.image, &h, sizeof(h));
    memcpy(t.image + 64, &p, sizeof(p));
    memset(t.image + CODE, 0x90, 4096);
}

static int setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof(t));
    if (make_ram(&t.mem, &t.ram, &t.map))
        return -1;
    t.ctx = (struct boot_context){.mem = t.mem, .map = &t.map, .low_end = RAM};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mem_destroy(t.mem);
    munmap(t.ram, RAM);
    return 0;
}

static int boot(void)
{
    write_file(path, t.image, sizeof(t.image));
    return boot_kernel(&t.ctx, path, &t.err);
}

static u32 word(u64 gpa)
{
    u32 value;

    assert_int_equal(mem_read(t.mem, gpa, &value, 4), 0);
    return value;
}

static const char *text(u64 gpa)
{
    return (const char *)t.ram + word(gpa);
}

static void elf32(void **state)
{
    char expected[100];
    u64 info;

    (void)state;
    make_elf32(PLACE, PLACE + 16, 4096, 12288);
    put_header(8180, 3, NULL);
    memset(t.ram + PLACE, 0xff, 12288);
    t.ctx.command_line = "one two";
    assert_int_equal(boot(), 0);
    assert_int_equal(t.ctx.regs.rax, 0x2badb002);
    assert_int_equal(t.ctx.regs.rip, PLACE + 16);
    assert_int_equal(t.ctx.sregs.cr0 & 0x80000001, 1);
    assert_int_equal(t.ctx.sregs.cs.db, 1);
    assert_int_equal(t.ctx.sregs.cs.limit, 0xffffffff);
    assert_int_equal(t.ctx.regs.rflags & 0x20200, 0);
    assert_int_equal(t.ram[PLACE + 4000], 0x90);
    assert_int_equal(t.ram[PLACE + 4096], 0); /* what the file does not have is cleared */
    info = t.ctx.regs.rbx;
    assert_int_equal(word(info) & 0x4d, 0x4d);
    assert_int_equal(word(info + 4), 639);
    assert_int_equal(word(0x413) & 0xffff, 639); /* the BIOS data area says the same */
    assert_int_equal(word(info + 8), (RAM - MiB) / KiB);
    snprintf(expected, sizeof(expected), "%s one two", path);
    assert_string_equal(text(info + 16), expected);
    assert_int_equal(word(info + 20), 0);
    assert_int_equal(word(info + 44), 48);
    assert_int_equal(word(word(info + 48)), 20);
    assert_int_equal(word(word(info + 48) + 24 + 4), MiB);
    assert_int_equal(word(word(info + 48) + 24 + 20), MAP_RAM);
}

static void modules(void **state)
{
    char list[200], expected[100];
    u64 info, table;

    (void)state;
    make_elf32(PLACE, PLACE, 4096, 4096);
    put_header(4000, 1, NULL);
    write_file(module, "module data", 11);
    snprintf(list, sizeof(list), "%s a=1 b,%s", module, module);
    t.ctx.initrd_path = list;
    assert_int_equal(boot(), 0);
    info = t.ctx.regs.rbx;
    assert_int_equal(word(info + 20), 2);
    table = word(info + 24);
    snprintf(expected, sizeof(expected), "%s a=1 b", module);
    assert_string_equal(text(table + 8), expected);
    assert_string_equal(text(table + 24), module);
    for (unsigned i = 0; i < 2; i++) {
        u32 first = word(table + i * 16);

        assert_int_equal(first % 4096, 0);
        assert_true(first >= PLACE + 4096);
        assert_int_equal(word(table + i * 16 + 4) - first, 11);
        assert_memory_equal(t.ram + first, "module data", 11);
    }
    assert_true(word(table + 16) >= word(table + 4));
    t.ctx.initrd_path = "/nonexistent/module x";
    assert_int_not_equal(boot(), 0);
    assert_non_null(strstr(t.err.text, "/nonexistent/module"));
}

static void addresses(void **state)
{
    u32 good[5] = {PLACE + 0x100, PLACE, PLACE + 0x1000, PLACE + 0x3000, PLACE + 0x200};

    (void)state;
    memset(t.image, 0x5a, sizeof(t.image));
    put_header(0x300, 0x10003, good);
    assert_int_equal(boot(), 0);
    assert_int_equal(t.ctx.regs.rip, PLACE + 0x200);
    assert_memory_equal(t.ram + PLACE, t.image + 0x200, 0x1000);
    assert_int_equal(t.ram[PLACE + 0x1000], 0);
    good[2] = 0; /* to the end of the file */
    good[3] = 0;
    put_header(0x300, 0x10003, good);
    assert_int_equal(boot(), 0);
    assert_memory_equal(t.ram + PLACE, t.image + 0x200, sizeof(t.image) - 0x200);
}

static void low_image_leaves_the_record_elsewhere(void **state)
{
    (void)state;
    make_elf32(0x4000, 0x4000, 4096, 0x20000);
    put_header(1024, 0, NULL);
    assert_int_equal(boot(), 0);
    assert_true(t.ctx.regs.rbx >= 0x24000);
    assert_int_equal(t.ram[0x4000], 0x90);
}

static void refused(void)
{
    assert_true(boot() < 0);
    assert_non_null(strstr(t.err.text, path));
    assert_null(strchr(t.err.text, '\n'));
}

static void lies(void **state)
{
    static const u32 bad[][5] = {
        {PLACE + 0x1000, PLACE, 0, 0, PLACE},                 /* before the file */
        {PLACE - 4, PLACE, 0, 0, PLACE},                      /* header before load */
        {PLACE, PLACE, PLACE - 0x1000, 0, PLACE},             /* ends before it begins */
        {PLACE, PLACE, PLACE + 0x1000, PLACE + 0x800, PLACE}, /* so does bss */
        {PLACE, PLACE, PLACE + 0x100000, 0, PLACE},           /* more than the file */
        {PLACE, PLACE, PLACE + 0x1000, 0xf0000000, PLACE},    /* more than memory */
        {PLACE, PLACE, PLACE + 0x1000, 0, PLACE + 0x1000},    /* entry behind the end */
        {PLACE, PLACE, PLACE + 0x1000, 0, 0},                 /* entry elsewhere */
        {0xfffff000, 0xfffff000, 0, 0, 0xfffff000},           /* no memory, wraps */
        {0, 0, 0x1000, 0, 0x100},                             /* over the vectors */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        memset(t.image, 0, sizeof(t.image));
        put_header(0x300, 0x10000, bad[i]);
        refused();
    }
    make_elf32(PLACE, PLACE, 4096, 4096);
    put_header(8180, 8, NULL); /* an unknown demand */
    refused();
    make_elf32(PLACE, PLACE + 4096, 4096, 4096);
    put_header(8180, 0, NULL);
    refused();
    make_elf32(PLACE, PLACE, 0x10000, 0x10000);
    put_header(512, 0, NULL);
    refused();
    make_elf32(PLACE, PLACE, 4096, 2048);
    put_header(512, 0, NULL);
    refused();
    make_elf32(0xfffff000, 0xfffff000, 4096, 0xffffffff);
    put_header(512, 0, NULL);
    refused();
    make_elf32(PLACE, PLACE, 4096, 4096);
    put_header(8188, 0, NULL); /* not within 8 KiB: no Multiboot kernel */
    refused();
    make_elf32(PLACE, PLACE, 4096, 4096);
    put_header(512, 0, NULL);
    memset(t.image + 28, 0xff, 4); /* e_phoff */
    refused();
    memset(t.image, 0, sizeof(t.image));
    put_header(512, 0, NULL);
    refused();
}

/* Whatever bytes a header has, the answer is an error or a state within memory. */
static void random_headers(void **state)
{
    u64 seed = 1;

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        u32 words[5];

        for (unsigned i = 0; i < 5; i++) {
            seed = seed * 6364136223846793005 + 1442695040888963407;
            words[i] = (u32)(seed >> 33);
            if (seed >> 62)
                words[i] &= 0x3fffff;
        }
        if (round % 2) {
            make_elf32(words[0], words[1], words[2], words[3]);
            memcpy(t.image + 28, &(u32){words[4] & 0xffff}, 4);
            put_header(512, 0, NULL);
        } else {
            memset(t.image, 0, sizeof(t.image));
            put_header(words[0] % 2000 * 4, 0x10000, words);
        }
        if (!boot())
            assert_true(t.ctx.regs.rip < RAM && t.ctx.regs.rbx < RAM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(elf32, setup, teardown),
        cmocka_unit_test_setup_teardown(modules, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(low_image_leaves_the_record_elsewhere, setup, teardown),
        cmocka_unit_test_setup_teardown(lies, setup, teardown),
        cmocka_unit_test_setup_teardown(random_headers, setup, teardown),
    };
    int ret;

    close(mkstemp(path));
    close(mkstemp(module));
    ret = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    unlink(module);
    return ret;
}
