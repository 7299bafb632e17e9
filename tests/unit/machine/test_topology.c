#include <errno.h>
#include <string.h>

#include "../unit.h"

#include "machine/machine.h"

static void good(const char *text, unsigned cpus, unsigned sockets, unsigned cores,
                 unsigned threads)
{
    struct engine_topology t;
    struct err err;

    if (machine_topology_parse(text, &t, &err))
        fail_msg("%s: %s", text, err.text);
    assert_int_equal(t.cpus, cpus);
    assert_int_equal(t.sockets, sockets);
    assert_int_equal(t.cores, cores);
    assert_int_equal(t.threads, threads);
}

static void bad(const char *text, const char *word)
{
    struct engine_topology t = {9, 9, 9, 9};
    struct err err = {0};

    assert_int_equal(machine_topology_parse(text, &t, &err), -EINVAL);
    if (!strstr(err.text, word))
        fail_msg("%s: \"%s\" has no \"%s\"", text, err.text, word);
    assert_int_equal(t.cpus, 9);
}

static void what_is_missing_is_computed(void **state)
{
    (void)state;
    good("1", 1, 1, 1, 1);
    good("6", 6, 1, 6, 1);
    good("64", 64, 1, 64, 1);
    good("8,sockets=2", 8, 2, 4, 1);
    good("8,threads=2", 8, 1, 4, 2);
    good("8,cores=2", 8, 4, 2, 1);
    good("8,sockets=2,threads=2", 8, 2, 2, 2);
    good("8,sockets=2,cores=2", 8, 2, 2, 2);
    good("8,cores=2,threads=2", 8, 2, 2, 2);
    good("12,sockets=2,cores=3,threads=2", 12, 2, 3, 2);
    good("threads=2,cpus=4", 4, 1, 2, 2);
    good("sockets=2,cores=3,threads=2", 12, 2, 3, 2);
    good("cores=4", 4, 1, 4, 1);
}

static void impossible_ones_are_refused_with_the_arithmetic(void **state)
{
    (void)state;
    bad("5,cores=2", "2 sockets x 2 cores x 1 thread = 4, not 5 vCPUs");
    bad("4,sockets=2,cores=2,threads=2", "2 sockets x 2 cores x 2 threads = 8, not 4 vCPUs");
    bad("1,sockets=2", "not 1 vCPU");
    bad("sockets=8,cores=8,threads=2", "128 vCPUs are more than 64");
    bad("0", "outside 1 to 64");
    bad("65", "outside 1 to 64");
    bad("99999999999999999999", "");
    bad("-1", "no number");
    bad("", "");
    bad("x", "no number");
    bad("2,", "sockets=");
    bad("2,cores", "sockets=");
    bad("2,cores=", "no number");
    bad("2,cores=0", "outside");
    bad("2,dies=2", "dies=2");
    bad("2 ", "no number");
    bad("2,cores=2x", "no number");
}

/* Ids are unique, their fields say what the topology says, and powers of two leave no holes. */
static void apic_ids_follow_the_topology(void **state)
{
    static const char *const texts[] = {"1",
                                        "6",
                                        "64",
                                        "12,sockets=2,cores=3,threads=2",
                                        "8,sockets=2,cores=2",
                                        "45,sockets=3,cores=5,threads=3"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct engine_topology t;
        bool seen[256] = {false};

        assert_int_equal(machine_topology_parse(texts[i], &t, NULL), 0);
        for (unsigned cpu = 0; cpu < t.cpus; cpu++) {
            u32 id = machine_apic_id(&t, cpu);
            u32 thread = id & ((1u << machine_thread_bits(&t)) - 1);
            u32 core = (id & ((1u << machine_package_bits(&t)) - 1)) >> machine_thread_bits(&t);
            u32 socket = id >> machine_package_bits(&t);

            assert_true(id < 256);
            assert_false(seen[id]);
            seen[id] = true;
            assert_int_equal((socket * t.cores + core) * t.threads + thread, cpu);
            assert_true(thread < t.threads && core < t.cores && socket < t.sockets);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing_is_computed),
        cmocka_unit_test(impossible_ones_are_refused_with_the_arithmetic),
        cmocka_unit_test(apic_ids_follow_the_topology),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
