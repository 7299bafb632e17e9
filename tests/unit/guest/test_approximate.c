/* RCPPS and RSQRTPS, which each CPU may answer differently, against the bound of SDM vol. 2: a
 * relative error of at most 1.5 * 2^-12. Special values as the manual lists them. */
#include "../unit.h"

#include <math.h>
#include <string.h>

#include "guest/x86/helpers.h"

#define BOUND (1.5 / 4096)

static float of_bits(u32 bits)
{
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

static u32 rcp(u32 bits)
{
    return (u32)x86_helper_rcp(NULL, bits);
}

static u32 rsqrt(u32 bits)
{
    return (u32)x86_helper_rsqrt(NULL, bits);
}

static void check(u32 bits, u32 result, double exact)
{
    double error = fabs((double)of_bits(result) / exact - 1);

    if (!(error <= BOUND))
        fail_msg("%08x gives %08x, off by %g", bits, result, error);
}

/* Every exponent with normal operand and result, fractions in steps that are no power of two. */
static void test_bound(void **state)
{
    unsigned checked = 0;

    (void)state;
    for (u32 exponent = 1; exponent <= 254; exponent++) {
        for (u32 fraction = 0; fraction < 1 << 23; fraction += 9973) {
            u32 bits = exponent << 23 | fraction;
            double v = (double)of_bits(bits);

            check(bits, rsqrt(bits), 1 / sqrt(v));
            if (exponent < 253) { /* 1 / v is normal */
                check(bits, rcp(bits), 1 / v);
                check(bits | 1u << 31, rcp(bits | 1u << 31), -1 / v);
            }
            checked++;
        }
    }
    assert_true(checked > 200000);
}

static void test_specials(void **state)
{
    static const struct {
        u32 operand, rcp, rsqrt;
    } rows[] = {
        {0x00000000, 0x7f800000, 0x7f800000}, /* zeros */
        {0x80000000, 0xff800000, 0xff800000},
        {0x00000001, 0x7f800000, 0x7f800000}, /* denormals count as zeros */
        {0x807fffff, 0xff800000, 0xff800000},
        {0x7f800000, 0x00000000, 0x00000000}, /* infinities */
        {0xff800000, 0x80000000, 0xffc00000},
        {0x7f800001, 0x7fc00001, 0x7fc00001}, /* NaNs become quiet */
        {0xffc12345, 0xffc12345, 0xffc12345},
        {0x3f800000, 0x3f800000, 0x3f800000},
        {0xbf800000, 0xbf800000, 0xffc00000}, /* the root of a negative number */
        {0x7f000001, 0x00000000, 0x00000000}, /* a result that would be denormal */
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(rcp(rows[i].operand), rows[i].rcp);
        if (rows[i].operand != 0x7f000001)
            assert_int_equal(rsqrt(rows[i].operand), rows[i].rsqrt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_specials),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
