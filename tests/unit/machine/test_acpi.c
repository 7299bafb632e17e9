/* The ACPI tables, read by the reference implementation's compiler (acpica-tools), if it is
 * here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit.h"

#include "machine/acpi.h"
#include "machine/aml.h"
#include "machine/machine.h"

#define GPA 0xe0000
#define BYTES 0x20000

static u8 memory[BYTES] __attribute__((aligned(4096)));
static char folder[] = "/tmp/triode-test-XXXXXX";

static u64 put(const char *smp)
{
    struct mem *mem = mem_create();
    struct engine_topology topology;
    const struct acpi_config config = {
        .topology = &topology,
        .ecam = 0xe0000000,
        .mmio_first = 0xc0000000,
        .mmio_last = 0xdfffffff,
        .mmio2_first = 0xf0000000,
        .mmio2_last = 0xfebfffff,
        .high_first = 0x200000000,
        .high_last = 0x81ffffffff,
        .io_apic = 0xfec00000,
        .local_apic = 0xfee00000,
        .hpet = 0xfed00000,
        .iommu = 0xfed90000,
        .remaps = true,
        .pm_base = 0x600,
        .sci = 9,
        .serial_port = 0x3f8,
        .serial_irq = 4,
        .sleeps = true,
    };
    u64 rsdp = 0;

    memset(memory, 0, sizeof(memory));
    assert_int_equal(machine_topology_parse(smp, &topology, NULL), 0);
    assert_int_equal(mem_set_slot(mem, 0, 0, GPA, BYTES, memory), 0);
    assert_int_equal(acpi_put_tables(mem, &config, GPA, BYTES, &rsdp, NULL), 0);
    /* Too little room is noticed, not overrun. */
    assert_int_not_equal(acpi_put_tables(mem, &config, GPA, 0x400, &rsdp, NULL), 0);
    assert_int_equal(acpi_put_tables(mem, &config, GPA, BYTES, &rsdp, NULL), 0);
    mem_destroy(mem);
    return rsdp;
}

static u8 *at(u64 gpa)
{
    assert_in_range(gpa, GPA, GPA + BYTES - 1);
    return memory + (gpa - GPA);
}

static u64 get(const u8 *p, unsigned size)
{
    u64 value = 0;

    memcpy(&value, p, size);
    return value;
}

static u8 sum(const u8 *p, size_t len)
{
    u8 total = 0;

    while (len--)
        total += *p++;
    return total;
}

/* Calls @visit for each table the root pointer leads to. */
static void walk(u64 rsdp, void (*visit)(const u8 *table, u32 len))
{
    u8 *root = at(rsdp), *xsdt;

    assert_memory_equal(root, "RSD PTR ", 8);
    assert_int_equal(sum(root, 20), 0);
    assert_int_equal(sum(root, 36), 0);
    xsdt = at(get(root + 24, 8));
    visit(xsdt, (u32)get(xsdt + 4, 4));
    for (u32 i = 36; i < get(xsdt + 4, 4); i += 8) {
        u8 *table = at(get(xsdt + i, 8));

        visit(table, (u32)get(table + 4, 4));
        if (!memcmp(table, "FACP", 4)) {
            u8 *dsdt = at(get(table + 140, 8));

            assert_int_equal(get(table + 40, 4), get(table + 140, 8));
            visit(dsdt, (u32)get(dsdt + 4, 4));
        }
    }
}

static unsigned visited;

static void check_sum(const u8 *table, u32 len)
{
    assert_int_equal(sum(table, len), 0);
    visited++;
}

static void sums_are_zero(void **state)
{
    (void)state;
    visited = 0;
    walk(put("2"), check_sum);
    assert_int_equal(visited, 7);
}

static u64 facs_gpa, sleeps;

static void find_sleep(const u8 *table, u32 len)
{
    if (!memcmp(table, "FACP", 4))
        facs_gpa = get(table + 36, 4);
    if (!memcmp(table, "DSDT", 4))
        for (u32 i = 36; i + 4 < len; i++)
            sleeps += !memcmp(table + i, "_S3_", 4);
}

/* ACPI 6.4, 5.2.10: the vector is 12 bytes into the FACS, and in the first MiB. */
static void waking_vector_is_the_guests(void **state)
{
    static const u32 vectors[] = {0, 0x9a010, 0xfffff, 0x100000, 0xffffffff};
    struct mem *mem = mem_create();

    (void)state;
    walk(put("1"), find_sleep);
    assert_int_equal(sleeps, 1);
    assert_memory_equal(at(facs_gpa), "FACS", 4);
    assert_int_equal(mem_set_slot(mem, 0, 0, GPA, BYTES, memory), 0);
    for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
        memcpy(at(facs_gpa) + 12, &vectors[i], 4);
        assert_int_equal(acpi_waking_vector(mem, GPA), vectors[i] < 0x100000 ? vectors[i] : 0);
    }
    mem_destroy(mem);
}

static unsigned apics;

static void count_apics(const u8 *table, u32 len)
{
    if (memcmp(table, "APIC", 4))
        return;
    apics = 0;
    for (u32 i = 44; i < len; i += table[i + 1]) {
        assert_true(table[i + 1] >= 2);
        apics += table[i] == 0;
    }
}

static void madt_lists_every_cpu(void **state)
{
    (void)state;
    walk(put("1"), count_apics);
    assert_int_equal(apics, 1);
    walk(put("64,sockets=4,threads=2"), count_apics);
    assert_int_equal(apics, 64);
}

static void write_table(const u8 *table, u32 len)
{
    char path[128];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%.4s.dat", folder, (const char *)table);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(table, 1, len, file), len);
    fclose(file);
}

/* Runs a command in the folder; fails if its output has a line with one of the words. */
static void run_iasl(const char *arguments, const char *must_say)
{
    char command[256], line[512], all[16384] = "";
    FILE *pipe;

    snprintf(command, sizeof(command), "cd %s && iasl %s 2>&1", folder, arguments);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    while (fgets(line, sizeof(line), pipe))
        if (strlen(all) + strlen(line) < sizeof(all))
            strcat(all, line);
    if (pclose(pipe) || strstr(all, "Incorrect") || strstr(all, "Invalid") ||
        strstr(all, "Could not") || strstr(all, "Warning ") || strstr(all, "Error ") ||
        !strstr(all, must_say))
        fail_msg("iasl %s:\n%s", arguments, all);
}

static void reference_compiler_agrees(void **state)
{
    static const char *const smp[] = {"1", "64,sockets=4,threads=2"};
    char command[64];

    (void)state;
    if (system("command -v iasl >/dev/null"))
        skip();
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < ARRAY_SIZE(smp); i++) {
        walk(put(smp[i]), write_table);
        run_iasl("-d FACP.dat APIC.dat MCFG.dat HPET.dat DMAR.dat XSDT.dat DSDT.dat",
                 "ASL Output:    DSDT.dsl");
        /* What it made of our byte code must be a program without a complaint. */
        run_iasl("-we -p again DSDT.dsl", "0 Errors, 0 Warnings");
        run_iasl("-p again FACP.dsl", "FACP");
        run_iasl("-p again APIC.dsl", "APIC");
        run_iasl("-p again HPET.dsl", "HPET");
        run_iasl("-p again DMAR.dsl", "DMAR");
    }
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void integers_take_the_shortest_form(void **state)
{
    struct aml aml = {0};

    (void)state;
    aml_integer(&aml, 0);
    aml_integer(&aml, 1);
    aml_integer(&aml, 0x42);
    aml_integer(&aml, 0x1234);
    aml_integer(&aml, 0x12345678);
    aml_integer(&aml, 0x123456789abcdef0);
    assert_int_equal(aml.code.len, 21);
    assert_memory_equal(aml.code.text,
                        "\x00\x01\x0a\x42\x0b\x34\x12\x0c\x78\x56\x34\x12\x0e\xf0\xde\xbc\x9a\x78"
                        "\x56\x34\x12",
                        21);
    strbuf_free(&aml.code);
    memset(&aml, 0, sizeof(aml));
    aml_eisa_id(&aml, "PNP0A03"); /* the manual's example: 0x030AD041 */
    assert_memory_equal(aml.code.text, "\x0c\x41\xd0\x0a\x03", 5);
    strbuf_free(&aml.code);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_zero),
        cmocka_unit_test(madt_lists_every_cpu),
        cmocka_unit_test(waking_vector_is_the_guests),
        cmocka_unit_test(reference_compiler_agrees),
        cmocka_unit_test(integers_take_the_shortest_form),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
