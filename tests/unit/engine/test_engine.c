#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

static void exit_names(void **state)
{
    (void)state;
    assert_string_equal(engine_exit_name(KVM_EXIT_IO), "KVM_EXIT_IO");
    assert_string_equal(engine_exit_name(KVM_EXIT_INTERNAL_ERROR), "KVM_EXIT_INTERNAL_ERROR");
    assert_null(engine_exit_name(KVM_EXIT_S390_TSCH));
    assert_null(engine_exit_name(0xffffffff));
}

static void cpuid_find_heeds_the_index_only_where_it_counts(void **state)
{
    struct kvm_cpuid2 *cpuid;
    const struct kvm_cpuid_entry2 *entry;

    (void)state;
    cpuid = calloc(1, sizeof *cpuid + 3 * sizeof cpuid->entries[0]);
    assert_non_null(cpuid);
    cpuid->nent = 3;
    cpuid->entries[0] = (struct kvm_cpuid_entry2){.function = 1, .eax = 11};
    cpuid->entries[1] = (struct kvm_cpuid_entry2){
        .function = 4, .index = 0, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 40};
    cpuid->entries[2] = (struct kvm_cpuid_entry2){
        .function = 4, .index = 1, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 41};
    entry = engine_cpuid_find(cpuid, 1, 7);
    assert_non_null(entry);
    assert_int_equal(entry->eax, 11);
    entry = engine_cpuid_find(cpuid, 4, 1);
    assert_non_null(entry);
    assert_int_equal(entry->eax, 41);
    assert_null(engine_cpuid_find(cpuid, 4, 2));
    assert_null(engine_cpuid_find(cpuid, 2, 0));
    free(cpuid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_names),
        cmocka_unit_test(cpuid_find_heeds_the_index_only_where_it_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
