/* What fw_cfg holds for firmware, used as firmware does (QEMU, docs/specs/fw_cfg.rst). */
#include <endian.h>
#include <unistd.h>

#include "fake_engine.h"

#define FILES 2
#define PLACE 0x7f000000u /* where this firmware puts the first file; the next comes 1 MiB later */

static struct loaded {
    char name[56];
    u8 data[128 * 1024];
    u32 size, at;
} files[FILES];
static unsigned count;
static u8 zones[FILES];

static int no_script(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    (void)run;
    (void)number;
    return -EIO;
}

static struct machine *machine_new(const char *smp)
{
    static const u8 rom[64 * 1024];
    char path[] = "/tmp/triode-test-XXXXXX";
    struct machine_config config = fake_config(NULL);
    struct machine *machine;
    struct err err;
    int fd = mkstemp(path), ret;

    assert_int_equal(write(fd, rom, sizeof(rom)), sizeof(rom));
    close(fd);
    fake.script = no_script;
    config.firmware = path;
    config.append = NULL;
    assert_int_equal(machine_topology_parse(smp, &config.topology, NULL), 0);
    ret = machine_create(&machine, &config, &err);
    unlink(path);
    if (ret)
        fail_msg("%s", err.text);
    return machine;
}

static void read_item(struct machine *m, u16 key, void *buf, size_t len)
{
    device_bus_write(&m->ports, 0x510, 2, key);
    for (size_t i = 0; i < len; i++) {
        u64 byte;

        device_bus_read(&m->ports, 0x511, 1, &byte);
        ((u8 *)buf)[i] = (u8)byte;
    }
}

/* Answers the file's size, 0 when it is not there. */
static u32 read_file(struct machine *m, const char *name, void *buf, size_t room)
{
    struct {
        u32 size;
        u16 key, reserved;
        char name[56];
    } entry;
    u32 entries;

    read_item(m, 0x19, &entries, 4);
    for (u32 i = 0; i < be32toh(entries); i++) {
        u8 directory[4 + 64 * 64];

        read_item(m, 0x19, directory, 4 + (i + 1) * 64);
        memcpy(&entry, directory + 4 + i * 64, 64);
        if (strcmp(entry.name, name))
            continue;
        assert_true(be32toh(entry.size) <= room);
        read_item(m, be16toh(entry.key), buf, be32toh(entry.size));
        return be32toh(entry.size);
    }
    return 0;
}

static struct loaded *find(const char *name)
{
    for (unsigned i = 0; i < count; i++)
        if (!strcmp(files[i].name, name))
            return &files[i];
    fail_msg("\"%s\" was not allocated", name);
    return NULL;
}

static u32 get32(const u8 *at)
{
    u32 value;

    memcpy(&value, at, 4);
    return value;
}

static u8 sum(const u8 *at, u32 len)
{
    u8 total = 0;

    while (len--)
        total += *at++;
    return total;
}

static void allocate(struct machine *m, const u8 *command)
{
    struct loaded *file = &files[count];

    assert_true(count < FILES);
    memcpy(file->name, command + 4, sizeof(file->name));
    file->size = read_file(m, file->name, file->data, sizeof(file->data));
    assert_true(file->size);
    file->at = PLACE + count * (u32)MiB;
    assert_int_equal(file->at % get32(command + 60), 0);
    zones[count++] = command[64];
}

static void add_pointer(const u8 *command)
{
    struct loaded *file = find((const char *)command + 4);
    const struct loaded *target = find((const char *)command + 60);
    u32 at = get32(command + 116), size = command[120];
    u64 value = 0;

    assert_true(at + size <= file->size);
    memcpy(&value, file->data + at, size);
    assert_true(value < target->size); /* an offset so far */
    value += target->at;
    memcpy(file->data + at, &value, size);
}

/* Some firmware replaces the byte by what the sum lacks, some takes the sum off it. */
static void add_checksum(const u8 *command, bool replace)
{
    struct loaded *file = find((const char *)command + 4);
    u32 at = get32(command + 60), first = get32(command + 64), len = get32(command + 68);
    u8 lacks = -sum(file->data + first, len);

    assert_true(first + len <= file->size && at >= first && at < first + len);
    file->data[at] = replace ? lacks : (u8)(file->data[at] + lacks);
}

static const u8 *at(u64 address)
{
    for (unsigned i = 0; i < count; i++)
        if (address >= files[i].at && address < files[i].at + files[i].size)
            return files[i].data + (address - files[i].at);
    fail_msg("nothing is at %#" PRIx64, address);
    return NULL;
}

static const u8 *table(u64 address, const char *signature)
{
    const u8 *t = at(address);

    if (signature)
        assert_memory_equal(t, signature, 4);
    assert_int_equal(sum(t, get32(t + 4)), 0);
    return t;
}

static u64 get64(const u8 *p)
{
    return get32(p) | (u64)get32(p + 4) << 32;
}

static void check_tables(void)
{
    const u8 *root = find("etc/acpi/rsdp")->data, *rsdt, *xsdt;
    unsigned entries;

    assert_memory_equal(root, "RSD PTR ", 8);
    assert_int_equal(sum(root, 20), 0);
    assert_int_equal(sum(root, 36), 0);
    rsdt = table(get32(root + 16), "RSDT");
    xsdt = table(get64(root + 24), "XSDT");
    entries = (get32(rsdt + 4) - 36) / 4;
    assert_int_equal(entries, (get32(xsdt + 4) - 36) / 8);
    for (unsigned i = 0; i < entries; i++) {
        const u8 *t = table(get32(rsdt + 36 + 4 * i), NULL);

        assert_ptr_equal(t, at(get64(xsdt + 36 + 8 * i)));
        if (memcmp(t, "FACP", 4))
            continue;
        table(get32(t + 40), "DSDT");
        assert_int_equal(get32(t + 40), get64(t + 140));
        assert_memory_equal(at(get32(t + 36)), "FACS", 4);
        assert_int_equal(get32(t + 36) % 64, 0);
    }
}

static void the_table_loader(void **state)
{
    static const char *const smp[] = {"1", "64"};

    (void)state;
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(smp); i++) {
        struct machine *m = machine_new(smp[i / 2]);
        static u8 script[128 * 128];
        u32 len = read_file(m, "etc/table-loader", script, sizeof(script));

        count = 0;
        assert_true(len && len % 128 == 0);
        for (u32 done = 0; done < len; done += 128) {
            switch (get32(script + done)) {
            case 1:
                allocate(m, script + done);
                break;
            case 2:
                add_pointer(script + done);
                break;
            case 3:
                add_checksum(script + done, i & 1);
                break;
            default:
                fail_msg("command %u", get32(script + done));
            }
        }
        assert_int_equal(count, 2);
        assert_int_equal(zones[find("etc/acpi/rsdp") - files], 2);
        assert_int_equal(zones[find("etc/acpi/tables") - files], 1);
        check_tables();
        machine_destroy(m);
    }
}

static void map_and_inventory(void **state)
{
    struct machine *m = machine_new("1");
    u8 map[20 * 16], anchor[64], tables[4096];
    u64 value;

    (void)state;
    assert_int_equal(read_file(m, "etc/e820", map, sizeof(map)), 20);
    memcpy(&value, map + 8, 8);
    assert_int_equal(value, 64 * MiB);
    assert_int_equal(get32(map + 16), 1);
    assert_int_equal(read_file(m, "etc/sercon-port", &value, 8), 8);
    assert_int_equal(value, 0x3f8);
    assert_int_equal(read_file(m, "etc/smbios/smbios-anchor", anchor, sizeof(anchor)), 24);
    assert_memory_equal(anchor, "_SM3_", 5);
    assert_int_equal(get32(anchor + 12),
                     read_file(m, "etc/smbios/smbios-tables", tables, sizeof(tables)));
    assert_int_equal(read_file(m, "etc/acpi", tables, sizeof(tables)), 0);
    machine_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_loader),
        cmocka_unit_test(map_and_inventory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
