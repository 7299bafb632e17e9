/* SMBIOS structures: their form, and what dmidecode makes of them, if it is here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit.h"

#include "machine/machine.h"
#include "machine/smbios.h"

#define DUMP_TABLES 32 /* where dmidecode's dumps have the structures */

static struct strbuf build(const char *smp, u64 memory)
{
    struct engine_topology topology;
    struct strbuf tables = {0};

    assert_int_equal(machine_topology_parse(smp, &topology, NULL), 0);
    smbios_build(&tables, &topology, memory);
    assert_false(tables.failed);
    return tables;
}

/* Each structure ends with two zeros, and the last is of type 127; answers how many. */
static unsigned walk(const struct strbuf *tables, unsigned counts[256])
{
    const u8 *at = (const u8 *)tables->text, *end = at + tables->len;
    unsigned all = 0;

    memset(counts, 0, 256 * sizeof(counts[0]));
    while (at < end) {
        u8 type = at[0];

        counts[type]++;
        all++;
        assert_true(at[1] >= 4 && at + at[1] + 2 <= end);
        at += at[1];
        while (at[0] || at[1])
            assert_true(++at + 1 < end);
        at += 2;
        assert_true(type != 127 || at == end);
    }
    assert_int_equal(counts[127], 1);
    return all;
}

static void structures(void **state)
{
    struct strbuf tables = build("12,sockets=3,cores=2,threads=2", 8 * GiB);
    unsigned counts[256];

    (void)state;
    assert_int_equal(walk(&tables, counts), 10);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 1);
    assert_int_equal(counts[4], 3);
    assert_int_equal(counts[17], 1);
    strbuf_free(&tables);
    tables = build("64,sockets=64", 64 * MiB);
    assert_int_equal(walk(&tables, counts), 71);
    assert_true(tables.len < 64 * KiB - 64);
    strbuf_free(&tables);
}

static void entry_point(void **state)
{
    u8 entry[SMBIOS_ENTRY_BYTES], sum = 0;
    u64 address;

    (void)state;
    smbios_entry(entry, 0xf0020, 1234);
    assert_memory_equal(entry, "_SM3_", 5);
    for (unsigned i = 0; i < sizeof(entry); i++)
        sum += entry[i];
    assert_int_equal(sum, 0);
    memcpy(&address, entry + 16, 8);
    assert_int_equal(address, 0xf0020);
}

static void contains(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("no \"%s\" in\n%s", line, text);
}

/* dmidecode reads a dump as Linux shows it, and complains of what it does not understand. */
static void as_dmidecode_reads_it(void **state)
{
    static const struct {
        const char *smp;
        u64 memory;
        const char *lines[4];
    } cases[] = {
        {"1", 512 * MiB, {"Size: 512 MB", "Core Count: 1", "Thread Count: 1"}},
        {"4,cores=2,threads=2", 3 * GiB, {"Size: 3 GB", "Core Count: 2", "Thread Count: 4"}},
        {"2,sockets=2", 100 * GiB, {"Size: 100 GB", "Handle 0x0401"}},
        {"1", 8 * MiB + 4 * KiB, {"Size: 8196 kB"}},
    };
    static char dump[DUMP_TABLES + 65536], text[65536];
    char path[] = "/tmp/triode-test-XXXXXX", command[128];

    (void)state;
    if (system("PATH=$PATH:/usr/sbin command -v dmidecode >/dev/null"))
        skip();
    close(mkstemp(path));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct strbuf tables = build(cases[i].smp, cases[i].memory);
        FILE *file = fopen(path, "wb");
        size_t len;

        smbios_entry((u8 *)dump, DUMP_TABLES, (u32)tables.len);
        memcpy(dump + DUMP_TABLES, tables.text, tables.len);
        assert_non_null(file);
        fwrite(dump, 1, DUMP_TABLES + tables.len, file);
        fclose(file);
        strbuf_free(&tables);
        snprintf(command, sizeof(command),
                 "PATH=$PATH:/usr/sbin dmidecode --from-dump %s 2>&1; echo status $?", path);
        file = popen(command, "r");
        assert_non_null(file);
        len = fread(text, 1, sizeof(text) - 1, file);
        text[len] = 0;
        pclose(file);
        contains(text, "status 0");
        contains(text, "SMBIOS 3.4.0 present.");
        contains(text, "Manufacturer: Triode");
        contains(text, "System is a virtual machine");
        contains(text, "End Of Table");
        for (unsigned j = 0; j < ARRAY_SIZE(cases[i].lines) && cases[i].lines[j]; j++)
            contains(text, cases[i].lines[j]);
        assert_null(strstr(text, "TRUNCATED"));
        assert_null(strstr(text, "BAD INDEX"));
        assert_null(strstr(text, "OUT OF SPEC"));
        assert_null(strcasestr(text, "wrong"));
        assert_null(strcasestr(text, "broken"));
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structures),
        cmocka_unit_test(entry_point),
        cmocka_unit_test(as_dmidecode_reads_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
