/* Memory below 1 MiB as the chipset's attribute registers have it (Intel 3 Series, 5.1.21). */
#include <unistd.h>

#include "fake_engine.h"

#define PIECES 13
#define ROM_BYTES (256 * KiB)

static u8 rom[ROM_BYTES];

static int no_script(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    (void)run;
    (void)number;
    return -EIO;
}

static struct machine *machine_new(size_t rom_bytes)
{
    char path[] = "/tmp/triode-test-XXXXXX";
    struct machine_config config = fake_config(NULL);
    struct machine *machine;
    struct err err;
    int fd = mkstemp(path), ret;

    for (size_t i = 0; i < sizeof(rom); i++)
        rom[i] = (u8)(i >> 12 ^ 0x5a);
    assert_int_equal(write(fd, rom, rom_bytes), rom_bytes);
    close(fd);
    fake.script = no_script;
    config.firmware = path;
    config.append = NULL;
    ret = machine_create(&machine, &config, &err);
    unlink(path);
    if (ret)
        fail_msg("%s", err.text);
    return machine;
}

static void set_register(struct machine *m, unsigned reg, u8 value)
{
    device_bus_write(&m->ports, 0xcf8, 4, 0x80000000 | (reg & 0xfc));
    device_bus_write(&m->ports, 0xcfc + (reg & 3), 1, value);
}

static u8 get_register(struct machine *m, unsigned reg)
{
    u64 value;

    device_bus_write(&m->ports, 0xcf8, 4, 0x80000000 | (reg & 0xfc));
    device_bus_read(&m->ports, 0xcfc + (reg & 3), 1, &value);
    return (u8)value;
}

static u64 first(unsigned piece)
{
    return 0xc0000 + piece * 0x4000;
}

static unsigned len(unsigned piece)
{
    return piece == PIECES - 1 ? 0x10000 : 0x4000;
}

/* A CPU's view: memory if there is any, else the bus. */
static u8 load(struct machine *m, u64 gpa)
{
    u8 byte;
    u64 value;

    if (!mem_read(m->mem, gpa, &byte, 1))
        return byte;
    device_bus_read(&m->memory, gpa, 1, &value);
    return (u8)value;
}

static void store(struct machine *m, u64 gpa, u8 byte)
{
    if (mem_write(m->mem, gpa, &byte, 1))
        device_bus_write(&m->memory, gpa, 1, byte);
}

/* What the piece's registers say, looked at from both ends of it. */
static void check(struct machine *m, unsigned piece, u8 mode, size_t rom_bytes)
{
    u64 window = rom_bytes < 0x20000 ? rom_bytes : 0x20000;

    for (unsigned i = 0; i < 2; i++) {
        u64 gpa = i ? first(piece) + len(piece) - 1 : first(piece);
        u8 *ram = m->ram.hva + gpa, before = *ram, now = load(m, gpa), byte = (u8)(before + 1);
        u8 below = gpa >= MiB - window ? rom[rom_bytes - (MiB - gpa)] : 0xff;

        assert_int_equal(now, mode & 1 ? before : below);
        store(m, gpa, byte);
        assert_int_equal(*ram, mode & 2 ? byte : before);
        assert_int_equal(load(m, gpa), mode & 1 ? *ram : below);
    }
}

static void set_mode(struct machine *m, unsigned piece, u8 mode)
{
    unsigned nibble = piece == PIECES - 1 ? 1 : piece + 2, reg = 0x90 + nibble / 2;
    u8 old = get_register(m, reg);

    set_register(m, reg, (u8)((old & ~(3 << nibble % 2 * 4)) | mode << nibble % 2 * 4));
}

static void starts_with_the_firmware(void **state)
{
    struct machine *m = machine_new(ROM_BYTES);

    (void)state;
    for (unsigned piece = 0; piece < PIECES; piece++)
        check(m, piece, 0, ROM_BYTES);
    assert_int_equal(load(m, 0xffffffff), rom[ROM_BYTES - 1]);
    set_register(m, 0x90, 0xff); /* reserved bits stay 0 */
    assert_int_equal(get_register(m, 0x90), 0x30);
    set_register(m, 0x91, 0xff);
    assert_int_equal(get_register(m, 0x91), 0x33);
    machine_destroy(m);
}

/* As firmware does it: read from the file, written to RAM, then RAM, then RAM that nobody
 * writes. */
static void shadows(void **state)
{
    struct machine *m = machine_new(ROM_BYTES);

    (void)state;
    set_mode(m, 12, 2);
    for (u64 gpa = 0xf0000; gpa < MiB; gpa++)
        store(m, gpa, load(m, gpa));
    set_mode(m, 12, 3);
    assert_memory_equal(m->ram.hva + 0xf0000, rom + ROM_BYTES - 0x10000, 0x10000);
    store(m, 0xf1234, 77);
    assert_int_equal(load(m, 0xf1234), 77);
    set_mode(m, 12, 1);
    store(m, 0xf1234, 78);
    assert_int_equal(load(m, 0xf1234), 77);
    assert_null(mem_hva(m->mem, 0xf1234, 1, true));
    set_mode(m, 12, 0);
    assert_int_equal(load(m, 0xf1234), rom[ROM_BYTES - 0x10000 + 0x1234]);
    machine_destroy(m);
}

/* Any modes in any order: no piece does what another's say. */
static void any_order(void **state)
{
    static const size_t sizes[] = {64 * KiB, ROM_BYTES};
    u64 random = 7;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct machine *m = machine_new(sizes[i]);
        u8 modes[PIECES] = {0};

        for (unsigned change = 0; change < 300; change++) {
            unsigned piece = (random = random * 6364136223846793005ull + 1) >> 40 & 15;

            if (piece >= PIECES)
                continue;
            modes[piece] = random >> 50 & 3;
            set_mode(m, piece, modes[piece]);
            for (piece = 0; piece < PIECES; piece++)
                check(m, piece, modes[piece], sizes[i]);
            assert_int_equal(m->end, MACHINE_RUNNING);
        }
        machine_destroy(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_with_the_firmware),
        cmocka_unit_test(shadows),
        cmocka_unit_test(any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
