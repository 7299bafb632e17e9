/* What --test-devices adds, and fw_cfg. */
#include <endian.h>
#include <sys/mman.h>

#include "board.h"

#include "device/fw_cfg.h"

#define RAM (1 * MiB)

static struct {
    int status;
    unsigned exits;
    u64 dropped;
} seen;

static void on_exit_status(void *opaque, int status)
{
    (void)opaque;
    seen.status = status;
    seen.exits++;
}

static void on_drop(void *opaque, u64 gpa)
{
    (void)opaque;
    seen.dropped = gpa;
}

static struct board *new_board(const char *name)
{
    struct board *b = board_new(name, NULL);

    memset(&seen, 0, sizeof(seen));
    b->env.exit = on_exit_status;
    b->env.drop_page = on_drop;
    return b;
}

static void exit_port(void **state)
{
    struct board *b = new_board("debug-exit");

    (void)state;
    outb(b, 0xf4, 0);
    assert_int_equal(seen.status, 1);
    out(b, 0xf4, 4, 0x10);
    assert_int_equal(seen.status, 33);
    out(b, 0xf4, 2, 0x7f);
    assert_int_equal(seen.status, 255);
    assert_int_equal(seen.exits, 3);
    board_free(b);
}

static void latch(void **state)
{
    struct board *b = new_board("testdev");

    (void)state;
    out(b, 0xe0, 4, 0x12345678);
    assert_int_equal(inb(b, 0xe1), 0x56);
    out(b, 0xe2, 2, 0xabcd);
    outb(b, 0xe0, 0xff);
    assert_int_equal(in(b, 0xe0, 4), 0xabcd56ff);
    board_migrate(b, NULL);
    assert_int_equal(in(b, 0xe0, 4), 0xabcd56ff);
    device_bus_write(&b->memory, 0xff00fff8, 8, 0x0123456789abcdef);
    {
        u64 value;

        device_bus_read(&b->memory, 0xff00fffc, 4, &value);
        assert_int_equal(value, 0x01234567);
    }
    board_free(b);
}

static void lines_log_flush_shutdown(void **state)
{
    struct board *b = new_board("testdev");

    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        outb(b, (u16)(0x2000 + i), 1);
        assert_int_equal(b->line[i], 1);
        if (i % 2)
            outb(b, (u16)(0x2000 + i), 0);
    }
    device_reset(b->dev);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(b->line[i], 0);
    outb(b, 0xf1, 'x');
    outb(b, 0xf1, '\n');
    assert_memory_equal(b->sent, "x\n", 2);
    out(b, 0xe4, 4, 0x12345);
    assert_int_equal(seen.dropped, 0x12000);
    for (const char *c = "SShutdowShutdown"; *c; c++) {
        assert_int_equal(b->requests[DEVICE_REQUEST_POWER_OFF], 0);
        outb(b, 0x8900, (u8)*c);
    }
    assert_int_equal(b->requests[DEVICE_REQUEST_POWER_OFF], 1);
    board_free(b);
}

/* ---- fw_cfg ---- */

static void fw_cfg_ports(void **state)
{
    struct board *b = board_new("fw-cfg", NULL);
    char name[57] = "";
    u16 key;

    (void)state;
    assert_int_equal(device_fw_cfg_add_file(b->dev, "etc/thing", "content", 7), 0);
    assert_int_equal(device_fw_cfg_add(b->dev, 0xffff, "x", 1), -EINVAL);
    out(b, 0x510, 2, 0);
    assert_int_equal(inb(b, 0x511), 'Q');
    assert_int_equal(inb(b, 0x511), 'E');
    board_migrate(b, NULL);
    out(b, 0x510, 2, 1);
    assert_int_equal(inb(b, 0x511), 3);
    for (unsigned i = 0; i < 10; i++)
        inb(b, 0x511);
    assert_int_equal(inb(b, 0x511), 0);
    assert_int_equal(device_fw_cfg_add_file(b->dev, "etc/thing", "content", 7), 0);
    out(b, 0x510, 2, 0x19);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(inb(b, 0x511), 0);
    assert_int_equal(inb(b, 0x511), 1); /* one file */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(inb(b, 0x511), 0);
    assert_int_equal(inb(b, 0x511), 7);
    key = (u16)(inb(b, 0x511) << 8);
    key |= inb(b, 0x511);
    inb(b, 0x511);
    inb(b, 0x511);
    for (unsigned i = 0; i < 56; i++)
        name[i] = (char)inb(b, 0x511);
    assert_string_equal(name, "etc/thing");
    out(b, 0x510, 2, key);
    for (const char *c = "content"; *c; c++)
        assert_int_equal(inb(b, 0x511), *c);
    out(b, 0x510, 2, 0xfffe); /* nothing there */
    assert_int_equal(inb(b, 0x511), 0);
    board_free(b);
}

static u32 dma(struct board *b, u8 *ram, u64 at, u32 control, u32 len, u64 address)
{
    u32 request[4] = {htobe32(control), htobe32(len), htobe32((u32)(address >> 32)),
                      htobe32((u32)address)};
    u32 answer;

    memcpy(ram + at, request, sizeof(request));
    out(b, 0x514, 4, htobe32((u32)(at >> 32)));
    out(b, 0x518, 4, htobe32((u32)at));
    memcpy(&answer, ram + at, 4);
    return be32toh(answer);
}

static void fw_cfg_dma(void **state)
{
    struct board *b = board_new("fw-cfg", NULL);
    u8 *ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    b->env.mem = mem_create();
    assert_int_equal(mem_set_slot(b->env.mem, 0, 0, 0, RAM, ram), 0);
    assert_int_equal(in(b, 0x514, 4), htobe32(0x51454d55));
    assert_int_equal(in(b, 0x518, 4), htobe32(0x20434647));
    assert_int_equal(device_fw_cfg_add(b->dev, 5, "12345678", 8), 0);
    memset(ram + 0x1000, 0xff, 32);
    assert_int_equal(dma(b, ram, 0x100, 5 << 16 | 8 | 2, 6, 0x1000), 0);
    assert_memory_equal(ram + 0x1000, "123456\xff", 7);
    assert_int_equal(dma(b, ram, 0x100, 2, 6, 0x1010), 0);
    assert_memory_equal(ram + 0x1010, "78\0\0\0\0\xff", 7);
    assert_int_equal(dma(b, ram, 0x100, 5 << 16 | 8 | 4, 3, 0), 0);
    assert_int_equal(dma(b, ram, 0x100, 2, 2, 0x1000), 0);
    assert_memory_equal(ram + 0x1000, "45", 2);
    assert_int_equal(dma(b, ram, 0x100, 5 << 16 | 8 | 16, 2, 0x1000), 1); /* read-only */
    assert_int_equal(dma(b, ram, 0x100, 5 << 16 | 8 | 2, 8, RAM - 4), 1);
    assert_int_equal(dma(b, ram, 0x100, 5 << 16 | 8 | 2, 8, ~0ull - 2), 1);
    out(b, 0x514, 4, ~0ull); /* a request outside memory does nothing */
    out(b, 0x518, 4, ~0ull);
    mem_destroy(b->env.mem);
    munmap(ram, RAM);
    board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_port),
        cmocka_unit_test(latch),
        cmocka_unit_test(lines_log_flush_shutdown),
        cmocka_unit_test(fw_cfg_ports),
        cmocka_unit_test(fw_cfg_dma),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
