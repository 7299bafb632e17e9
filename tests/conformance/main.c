/*
 * conformance ENGINE [PATTERN]: runs the suite (the tests whose names match) on one engine. Exit
 * status as cmocka has it; 77, which build systems take for "skipped", when the engine is not here.
 */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/probe.h"

#define GUEST_LIMIT_MS 20000

struct guest_case {
    const char *binary;
    enum guest_mode mode;
    unsigned cpus;
};

static const struct guest_case guest_cases[] = {
#define G(name, mode, suffix, cpus, about) {#name suffix, mode, cpus},
#include "guests.def"
#undef G
};

static void guest_test(void **state)
{
    const struct guest_case *guest = *state;

    /* KVM's counters are the host's perf events, which count instructions that exit twice, or not
     * at all. */
    if (test_ops == &kvm_engine_ops && !strcmp(guest->binary, "counters64"))
        skip();

    run_guest(guest->binary, guest->mode, guest->cpus, GUEST_LIMIT_MS);
}

static int choose_engine(const char *name)
{
    static const struct engine_ops *const engines[] = {&kvm_engine_ops, &soft_engine_ops};
    struct probe_result result;

    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (!strcmp(engines[i]->name, name))
            test_ops = engines[i];
    }
    if (!test_ops) {
        fprintf(stderr, "there is no engine \"%s\"\n", name);
        return 2;
    }
    if (test_ops != &kvm_engine_ops)
        return 0;
    if (probe_engine(test_ops, &result))
        return 1;
    if (!result.usable && !result.emulated) {
        printf("SKIP: %s\n", result.reason);
        return 77;
    }
    if (result.emulated)
        snprintf(test_doubt, sizeof test_doubt, "%s", result.reason);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest host_tests[] = {
#define X(name) cmocka_unit_test_teardown(name, host_destroy_all),
        STATE_TESTS(X) RUN_TESTS(X)
#undef X
    };
    struct CMUnitTest tests[ARRAY_SIZE(host_tests) + ARRAY_SIZE(guest_cases)];
    const char *engine = argc > 1 ? argv[1] : getenv("CONFORMANCE_ENGINE");
    size_t count = 0;
    int ret;

    if (!engine) {
        fprintf(stderr, "usage: conformance kvm|soft [PATTERN]\n");
        return 2;
    }
    ret = choose_engine(engine);
    if (ret)
        return ret;
    for (size_t i = 0; i < ARRAY_SIZE(guest_cases); i++) {
        tests[count++] = (struct CMUnitTest){
            .name = guest_cases[i].binary,
            .test_func = guest_test,
            .teardown_func = host_destroy_all,
            .initial_state = (void *)&guest_cases[i],
        };
    }
    memcpy(&tests[count], host_tests, sizeof host_tests);
    if (argc > 2)
        cmocka_set_test_filter(argv[2]);
    return cmocka_run_group_tests_name("conformance", tests, NULL, NULL);
}
