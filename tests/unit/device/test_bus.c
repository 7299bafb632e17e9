#include <errno.h>
#include <pthread.h>

#include "board.h"

struct probe {
    struct device dev;
    unsigned reads, writes, size;
    u64 offset, value, answer;
};

static u64 probe_read(struct device *dev, u64 offset, unsigned size)
{
    struct probe *p = container_of(dev, struct probe, dev);

    p->reads++;
    p->offset = offset;
    p->size = size;
    return p->answer >> offset * 8;
}

static void probe_write(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct probe *p = container_of(dev, struct probe, dev);

    p->writes++;
    p->offset = offset;
    p->size = size;
    p->value = value;
}

static struct device_region region(struct probe *p, u64 first, u64 len, unsigned widest)
{
    return (struct device_region){first, len, widest, probe_read, probe_write, &p->dev};
}

static void probe_init(struct probe *p)
{
    memset(p, 0, sizeof(*p));
    p->answer = 0x8877665544332211;
    pthread_mutex_init(&p->dev.lock, NULL);
}

static void overlaps_are_refused(void **state)
{
    struct device_bus bus;
    struct probe p;
    struct device_region r;

    (void)state;
    probe_init(&p);
    device_bus_init(&bus);
    r = region(&p, 0x100, 0x10, 1);
    assert_int_equal(device_bus_add(&bus, &r), 0);
    for (u64 first = 0xf8; first <= 0x10f; first++) {
        r = region(&p, first, 9, 1);
        assert_int_equal(device_bus_add(&bus, &r), -EEXIST);
    }
    r = region(&p, 0xf8, 8, 1);
    assert_int_equal(device_bus_add(&bus, &r), 0);
    r = region(&p, 0x110, 8, 1);
    assert_int_equal(device_bus_add(&bus, &r), 0);
    r = region(&p, 0x50, 0, 1);
    assert_int_equal(device_bus_add(&bus, &r), -EINVAL);
    r = region(&p, ~0ull - 2, 8, 1);
    assert_int_equal(device_bus_add(&bus, &r), -EINVAL);
    r = region(&p, 0x50, 8, 3);
    assert_int_equal(device_bus_add(&bus, &r), -EINVAL);
    assert_int_equal(device_bus_remove(&bus, 0x101), -ENOENT);
    assert_int_equal(device_bus_remove(&bus, 0x100), 0);
    assert_int_equal(bus.count, 2);
    device_bus_forget(&bus, &p.dev);
    assert_int_equal(bus.count, 0);
}

static void full_table_is_refused(void **state)
{
    struct device_bus bus;
    struct probe p;

    (void)state;
    probe_init(&p);
    device_bus_init(&bus);
    for (unsigned i = 0; i <= DEVICE_BUS_MAX_REGIONS; i++) {
        /* From the top down, so that each goes to the front. */
        struct device_region r = region(&p, 0x10000 - i * 16, 16, 1);

        assert_int_equal(device_bus_add(&bus, &r), i < DEVICE_BUS_MAX_REGIONS ? 0 : -ENOSPC);
    }
    for (unsigned i = 1; i < bus.count; i++)
        assert_true(bus.regions[i - 1].first < bus.regions[i].first);
}

static void empty_places_read_ones(void **state)
{
    struct device_bus bus;
    struct probe p;
    struct device_region r;
    u64 value;

    (void)state;
    probe_init(&p);
    device_bus_init(&bus);
    assert_false(device_bus_read(&bus, 0x80, 4, &value));
    assert_int_equal(value, 0xffffffff);
    assert_false(device_bus_read(&bus, 0x80, 8, &value));
    assert_true(value == ~0ull);
    assert_false(device_bus_write(&bus, 0x80, 4, 5));

    /* Half in a device, half in nothing. */
    r = region(&p, 0x80, 2, 1);
    device_bus_add(&bus, &r);
    assert_false(device_bus_read(&bus, 0x80, 4, &value));
    assert_int_equal(value, 0xffff2211);
    assert_int_equal(p.reads, 2);
    assert_false(device_bus_read(&bus, 0x7f, 2, &value));
    assert_int_equal(value, 0x11ff);
}

static void wide_accesses_are_split(void **state)
{
    struct device_bus bus;
    struct probe p;
    struct device_region r;
    u64 value;

    (void)state;
    probe_init(&p);
    device_bus_init(&bus);
    r = region(&p, 0x1000, 8, 4);
    device_bus_add(&bus, &r);
    assert_true(device_bus_read(&bus, 0x1000, 8, &value));
    assert_true(value == p.answer);
    assert_int_equal(p.reads, 2);
    p.reads = 0;
    assert_true(device_bus_read(&bus, 0x1001, 4, &value)); /* 1 + 2 + 1 */
    assert_int_equal(value, 0x55443322);
    assert_int_equal(p.reads, 3);
    assert_true(device_bus_write(&bus, 0x1004, 4, 0x1ffffffff));
    assert_int_equal(p.size, 4);
    assert_int_equal(p.offset, 4);
    assert_int_equal(p.value, 0xffffffff);
    assert_true(device_bus_write(&bus, 0x1002, 2, 0xabcd));
    assert_int_equal(p.size, 2);
    assert_int_equal(p.value, 0xabcd);
    p.writes = 0;
    assert_false(device_bus_write(&bus, 0x1006, 4, 0xdddd0000 | 0xabcd)); /* the end is outside */
    assert_int_equal(p.writes, 1);
    assert_int_equal(p.value, 0xabcd);
}

/* One thread moves a region about while another looks two up that never move. */
struct race {
    struct device_bus bus;
    struct probe fixed[2], moving;
    bool stop;
};

static void *mover(void *opaque)
{
    struct race *race = opaque;

    while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
        struct device_region low = region(&race->moving, 0x100, 16, 4);
        struct device_region high = region(&race->moving, 0x900, 16, 4);

        assert_int_equal(device_bus_add(&race->bus, &low), 0);
        assert_int_equal(device_bus_add(&race->bus, &high), 0);
        assert_int_equal(device_bus_remove(&race->bus, 0x100), 0);
        assert_int_equal(device_bus_remove(&race->bus, 0x900), 0);
    }
    return NULL;
}

static void readers_never_see_a_torn_table(void **state)
{
    struct race race = {0};
    pthread_t thread;

    (void)state;
    device_bus_init(&race.bus);
    probe_init(&race.moving);
    for (unsigned i = 0; i < 2; i++) {
        struct device_region r;

        probe_init(&race.fixed[i]);
        race.fixed[i].answer = i ? 0x5555 : 0xaaaa;
        r = region(&race.fixed[i], i ? 0x800 : 0x200, 16, 4);
        assert_int_equal(device_bus_add(&race.bus, &r), 0);
    }
    assert_int_equal(pthread_create(&thread, NULL, mover, &race), 0);
    for (unsigned i = 0; i < 200000; i++) {
        u64 value;

        assert_true(device_bus_read(&race.bus, i & 1 ? 0x800 : 0x200, 2, &value));
        assert_int_equal(value, i & 1 ? 0x5555 : 0xaaaa);
    }
    __atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
}

static void devices_are_found_by_name(void **state)
{
    struct board *b = board_new("post", NULL);
    struct device_place place = board_place(b);
    struct device *other;
    struct err err;

    (void)state;
    assert_non_null(device_info_find("serial"));
    assert_null(device_info_find("seria"));
    for (size_t i = 0; device_info_at(i); i++)
        assert_ptr_equal(device_info_find(device_info_at(i)->name), device_info_at(i));
    assert_int_equal(device_create(&other, "nothing", NULL, &place, &err), -ENOENT);
    /* A second one finds its ports taken, and leaves the first one's alone. */
    assert_int_equal(device_create(&other, "post", NULL, &place, &err), -EEXIST);
    outb(b, 0x80, 0x42);
    assert_int_equal(inb(b, 0x80), 0x42);
    board_free(b);
}

static void options_are_checked(void **state)
{
    struct board *b = board_new("post", NULL);
    struct device_place place = board_place(b);
    static const char *const bad[] = {"port",    "port=",        "port=x",
                                      "port=-1", "irq=24",       "port=0x10000",
                                      "prt=1",   "port=1;irq=2", "port=1,,irq=4"};
    struct device *dev;
    struct err err;
    u64 number = 7;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        err.text[0] = 0;
        assert_int_equal(device_create(&dev, "serial", bad[i], &place, &err), -EINVAL);
        assert_true(err.text[0]);
    }
    assert_int_equal(device_option_number("a=1,bb=0x22", "bb", 100, &number, &err), 0);
    assert_int_equal(number, 0x22);
    assert_int_equal(device_option_number("a=1,bb=0x22", "b", 100, &number, &err), 0);
    assert_int_equal(number, 0x22);
    assert_int_equal(device_create(&dev, "serial", "port=0x2f8,irq=3", &place, &err), 0);
    device_destroy(dev);
    board_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlaps_are_refused),
        cmocka_unit_test(full_table_is_refused),
        cmocka_unit_test(empty_places_read_ones),
        cmocka_unit_test(wide_accesses_are_split),
        cmocka_unit_test(readers_never_see_a_torn_table),
        cmocka_unit_test(devices_are_found_by_name),
        cmocka_unit_test(options_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
