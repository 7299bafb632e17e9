#include "../unit.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "soft/cpuid.h"

static struct cpuid_table build(const char *text, unsigned sockets, unsigned cores,
                                unsigned threads, u32 apic_id)
{
    struct engine_topology topology = {sockets * cores * threads, sockets, cores, threads};
    struct cpuid_model model;
    struct cpuid_table table;
    struct err err = {""};

    if (cpuid_parse_model(&model, text, &err))
        fail_msg("%s", err.text);
    cpuid_build(&table, &model, &topology, apic_id, 2595191);
    return table;
}

static const struct kvm_cpuid_entry2 *leaf(const struct cpuid_table *table, u32 function, u32 index)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(table, function, index);

    assert_non_null(e);
    return e;
}

static void test_identity(void **state)
{
    struct cpuid_table t = build(NULL, 1, 1, 1, 0);
    char text[13] = "";

    (void)state;
    memcpy(text, &leaf(&t, 0, 0)->ebx, 4);
    memcpy(text + 4, &leaf(&t, 0, 0)->edx, 4);
    memcpy(text + 8, &leaf(&t, 0, 0)->ecx, 4);
    assert_string_equal(text, "GenuineIntel");
    memcpy(text, &leaf(&t, 0x40000000, 0)->ebx, 12);
    assert_memory_equal(text, "KVMKVMKVM\0\0\0", 12);
    assert_memory_equal(&leaf(&t, 0x80000002, 0)->eax, "Triode x86-64-v2", 16);
    assert_ptr_equal(cpuid_find(&t, 0x20, 0), cpuid_find(&t, 0x1f, 0)); /* above the limit */
}

/* psABI 3.1.1: what x86-64-v2 must have; and what this CPU must not claim. */
static void test_levels(void **state)
{
    struct cpuid_table v2 = build("x86-64-v2", 1, 1, 1, 0), v1 = build("x86-64", 1, 1, 1, 0);
    const u32 v2_bits = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23);

    (void)state;
    assert_int_equal(leaf(&v2, 1, 0)->ecx & v2_bits, v2_bits);
    assert_int_equal(leaf(&v1, 1, 0)->ecx & v2_bits, 0);
    assert_true(leaf(&v2, 0x80000001, 0)->ecx & 1);
    assert_false(leaf(&v2, 1, 0)->ecx & (BIT(12) | BIT(28))); /* FMA, AVX */
    assert_int_equal(leaf(&v2, 7, 0)->ebx & BIT(5), 0);       /* AVX2 */
    assert_int_equal(leaf(&v1, 1, 0)->edx & 0x0789fbff & ~BIT(9), 0x0789fbff & ~BIT(9) & ~BIT(18));
}

static void test_features_by_name(void **state)
{
    struct cpuid_table t;
    struct cpuid_model model;
    struct err err = {""};

    (void)state;
    t = build("x86-64-v2,-pcid,x2apic=off,+la57,vmx=off", 1, 1, 1, 0);
    assert_int_equal(leaf(&t, 1, 0)->ecx & (BIT(5) | BIT(17) | BIT(21)), 0);
    assert_true(leaf(&t, 7, 0)->ecx & BIT(16));
    assert_int_equal(leaf(&t, 0x80000008, 0)->eax >> 8 & 0xff, 57);
    t = build("host", 1, 1, 1, 0);
    assert_memory_equal(&leaf(&t, 0x80000002, 0)->eax, "Triode max", 10);
    t = build("x86-64-v2,xsave=off", 1, 1, 1, 0);
    assert_int_equal(leaf(&t, 0xd, 0)->eax | leaf(&t, 0xd, 1)->eax, 0);
    /* What no CPU has alone goes with what it needs. */
    t = build("max,pcid=off,invpcid=on,sse2=off,xsave=off", 1, 1, 1, 0);
    assert_int_equal(leaf(&t, 7, 0)->ebx & BIT(10), 0);
    assert_int_equal(leaf(&t, 1, 0)->ecx & (BIT(0) | BIT(9) | BIT(17) | BIT(19) | BIT(20)), 0);
    assert_true(leaf(&t, 1, 0)->edx & BIT(25));
    assert_int_equal(leaf(&t, 0xd, 1)->eax, 0);
    t = build("max", 1, 1, 1, 0);
    assert_int_equal(leaf(&t, 7, 0)->ebx & (BIT(10) | BIT(19) | BIT(24)),
                     BIT(10) | BIT(19) | BIT(24));
    assert_int_equal(leaf(&t, 1, 0)->ecx & BIT(22), BIT(22)); /* MOVBE */
    assert_int_equal(cpuid_parse_model(&model, "pentium", &err), -EINVAL);
    assert_non_null(strstr(err.text, "x86-64-v2"));
    assert_int_equal(cpuid_parse_model(&model, "max,+avx", &err), -EINVAL);
    assert_non_null(strstr(err.text, "\"avx\""));
    assert_int_equal(cpuid_parse_model(&model, "max,pcid=maybe", &err), -EINVAL);
    assert_int_equal(cpuid_parse_model(&model, "max,pcid", &err), -EINVAL);
    assert_int_equal(cpuid_parse_model(&model, "max,", &err), -EINVAL);
}

/* 2 sockets, 3 cores, 2 threads: 1 bit of thread, 2 of core. */
static void test_topology(void **state)
{
    struct cpuid_table t = build(NULL, 2, 3, 2, 13);

    (void)state;
    assert_int_equal(leaf(&t, 1, 0)->ebx >> 24, 13);
    assert_int_equal(leaf(&t, 1, 0)->ebx >> 16 & 0xff, 8);
    assert_true(leaf(&t, 1, 0)->edx & BIT(28));
    assert_int_equal(leaf(&t, 4, 0)->eax >> 26, 3);
    assert_int_equal(leaf(&t, 4, 0)->eax >> 14 & 0xfff, 1);
    assert_int_equal(leaf(&t, 4, 3)->eax >> 14 & 0xfff, 7);
    assert_int_equal(leaf(&t, 4, 4)->eax & 31, 0);
    for (u32 function = 0xb; function <= 0x1f; function += 0x14) {
        assert_int_equal(leaf(&t, function, 0)->eax, 1);
        assert_int_equal(leaf(&t, function, 0)->ebx, 2);
        assert_int_equal(leaf(&t, function, 0)->ecx, 0x100);
        assert_int_equal(leaf(&t, function, 1)->eax, 3);
        assert_int_equal(leaf(&t, function, 1)->ebx, 6);
        assert_int_equal(leaf(&t, function, 1)->ecx, 0x201);
        assert_int_equal(leaf(&t, function, 2)->ebx, 0);
        assert_int_equal(leaf(&t, function, 1)->edx, 13);
    }
    t = build(NULL, 1, 1, 1, 0);
    assert_false(leaf(&t, 1, 0)->edx & BIT(28));
}

/* As Linux computes it: crystal kHz * numerator / denominator, in 32 bits. */
static void test_frequency(void **state)
{
    struct cpuid_table t = build(NULL, 1, 1, 1, 0);
    const struct kvm_cpuid_entry2 *e = leaf(&t, 0x15, 0);
    u32 khz = e->ecx / 1000 * e->ebx / e->eax;

    (void)state;
    assert_true((u64)(e->ecx / 1000) * e->ebx <= 0xffffffffull);
    assert_in_range(khz, 2595191 - 3, 2595191 + 3);
    assert_int_equal(leaf(&t, 0x16, 0)->eax, 2595);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),         cmocka_unit_test(test_levels),
        cmocka_unit_test(test_features_by_name), cmocka_unit_test(test_topology),
        cmocka_unit_test(test_frequency),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
