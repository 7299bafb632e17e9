/* Arithmetic on integers against the host's: four rounding modes, results and flags. */
#include "../unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xmmintrin.h>

#include "guest/riscv/softfp.h"
#include "guest/riscv/state.h"

#define ROUNDS 200000

static u64 random_double(void)
{
    u64 v = (u64)mrand48() << 32 ^ (u64)(u32)mrand48();
    static const u64 odd[] = {0,
                              1,
                              0x000fffffffffffff,
                              0x0010000000000000,
                              0x3ff0000000000000,
                              0x3ff0000000000001,
                              0x7fefffffffffffff,
                              0x7ff0000000000000,
                              0x7ff8000000000000,
                              0x7ff0000000000001,
                              0x43e0000000000000,
                              0x41dfffffffc00000};

    if (v % 7 == 0)
        return odd[v / 7 % 12] | (v & 1ull << 63);
    if (v % 7 < 4) /* near one another */
        return (v & 0x800fffffffffffff) | (1000 + (v >> 20 & 63)) << 52;
    return v % 7 == 4 ? v & 0x801fffff00000000 : v;
}

static u64 random_single(void)
{
    u32 v = (u32)mrand48();

    if (v % 5 == 0)
        return v & 0x80ffffff;
    return v % 5 < 3 ? (v & 0x807fffff) | (112 + (v >> 10 & 31)) << 23 : v;
}

static u64 bits_d(double v)
{
    u64 bits;

    memcpy(&bits, &v, 8);
    return isnan(v) ? 0x7ff8000000000000 : bits;
}

static u64 bits_s(float v)
{
    u32 bits;

    memcpy(&bits, &v, 4);
    return isnan(v) ? 0x7fc00000 : bits;
}

static double as_d(u64 bits)
{
    double v;

    memcpy(&v, &bits, 8);
    return v;
}

static float as_s(u64 bits)
{
    u32 low = (u32)bits;
    float v;

    memcpy(&v, &low, 4);
    return v;
}

/* MXCSR of each rounding mode; its flags as RISC-V's. */
static const u32 host_mode[4] = {0x1f80, 0x7f80, 0x3f80, 0x5f80};

static u32 host_flags(void)
{
    u32 m = _mm_getcsr();

    _mm_setcsr(0x1f80);
    return (m & 1 ? RISCV_NV : 0) | (m & 4 ? RISCV_DZ : 0) | (m & 8 ? RISCV_OF : 0) |
           (m & 16 ? RISCV_UF : 0) | (m & 32 ? RISCV_NX : 0);
}

#define CHECK(rm, host, soft)                                                                      \
    do {                                                                                           \
        u32 flags = 0, expected_flags;                                                             \
        u64 expected, got;                                                                         \
                                                                                                   \
        _mm_setcsr(host_mode[rm]);                                                                 \
        expected = host;                                                                           \
        expected_flags = host_flags();                                                             \
        got = soft;                                                                                \
        if (got != expected || flags != expected_flags)                                            \
            fail_msg("%s rm %u: %#llx %#llx: expected %#llx flags %#x, got %#llx flags %#x",       \
                     #soft, rm, (unsigned long long)a, (unsigned long long)b,                      \
                     (unsigned long long)expected, expected_flags, (unsigned long long)got,        \
                     flags);                                                                       \
    } while (0)

static void test_double(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        volatile u64 a = random_double(), b = random_double();
        volatile double x = as_d(a), y = as_d(b);
        unsigned rm = i & 3;

        CHECK(rm, bits_d(x + y), softfp_add(SOFTFP_D, a, b, rm, &flags));
        CHECK(rm, bits_d(x * y), softfp_mul(SOFTFP_D, a, b, rm, &flags));
        CHECK(rm, bits_d(x / y), softfp_div(SOFTFP_D, a, b, rm, &flags));
        CHECK(rm, bits_d(_mm_cvtsd_f64(_mm_sqrt_sd(_mm_set_sd(x), _mm_set_sd(x)))),
              softfp_sqrt(SOFTFP_D, a, rm, &flags));
        CHECK(rm, bits_s((float)x), softfp_convert(SOFTFP_S, SOFTFP_D, a, rm, &flags));
        CHECK(rm, bits_d((double)(s64)a), softfp_from_int(SOFTFP_D, a, SOFTFP_L, rm, &flags));
    }
}

static void test_single(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        volatile u64 a = random_single(), b = random_single();
        volatile float x = as_s(a), y = as_s(b);
        unsigned rm = i & 3;

        CHECK(rm, bits_s(x + y), softfp_add(SOFTFP_S, a, b, rm, &flags));
        CHECK(rm, bits_s(x * y), softfp_mul(SOFTFP_S, a, b, rm, &flags));
        CHECK(rm, bits_s(x / y), softfp_div(SOFTFP_S, a, b, rm, &flags));
        CHECK(rm, bits_s(_mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)))),
              softfp_sqrt(SOFTFP_S, a, rm, &flags));
        CHECK(rm, bits_d((double)x), softfp_convert(SOFTFP_D, SOFTFP_S, a, rm, &flags));
        CHECK(rm, bits_s((float)(s32)a), softfp_from_int(SOFTFP_S, a, SOFTFP_W, rm, &flags));
    }
}

/* What hosts do not have: ties away from zero, and RISC-V's answers for what does not fit. */
static void test_own_rules(void **state)
{
    u32 flags = 0;

    (void)state;
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(2.5), SOFTFP_L, RISCV_RMM, &flags), 3);
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(-2.5), SOFTFP_L, RISCV_RMM, &flags), (u64)-3);
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(2.5), SOFTFP_L, RISCV_RNE, &flags), 2);
    assert_int_equal(flags, RISCV_NX);
    flags = 0;
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(NAN), SOFTFP_W, RISCV_RTZ, &flags), 0x7fffffff);
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(-1.0), SOFTFP_LU, RISCV_RTZ, &flags), 0);
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(0x1p32), SOFTFP_WU, RISCV_RTZ, &flags), ~0ull);
    assert_int_equal(flags, RISCV_NV);
    flags = 0;
    assert_int_equal(softfp_to_int(SOFTFP_D, bits_d(-0.5), SOFTFP_LU, RISCV_RTZ, &flags), 0);
    assert_int_equal(flags, RISCV_NX);
    /* 1 + 2^-53 is a tie. */
    assert_int_equal(softfp_add(SOFTFP_D, bits_d(1), bits_d(0x1p-53), RISCV_RMM, &flags),
                     bits_d(1 + 0x1p-52));
    assert_int_equal(softfp_class(SOFTFP_S, 0x80000001), 1 << 2);
    assert_int_equal(softfp_class(SOFTFP_D, 0x7ff0000000000001), 1 << 8);
    flags = 0;
    /* Infinity times zero is invalid whatever is added. */
    assert_int_equal(softfp_fma(SOFTFP_D, bits_d(INFINITY), 0, bits_d(NAN), RISCV_RNE, &flags),
                     bits_d(NAN));
    assert_int_equal(flags, RISCV_NV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_double),
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_own_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
