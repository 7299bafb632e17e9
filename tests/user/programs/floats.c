/* Floating point: printing, rounding modes, conversions, mathematics. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf back;

static void leap(int n)
{
    longjmp(back, n);
}

int main(void)
{
    volatile double one = 1, three = 3, big = DBL_MAX, zero = 0;
    volatile float f = 16777217.0f;
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    volatile int steps = 0;
    uint64_t seed = 1;
    double sum = 0;

    printf("%.17g %g %a %.3e\n", one / three, big, 0.1, 12345.678);
    printf("%f %f %f\n", big * 10, zero / zero != zero / zero ? -1.0 : 1.0, -one / zero);
    printf("%.9g %d %ld\n", f, (int)-2.7, lrint(2.5));
    for (int i = 0; i < 4; i++) {
        fesetround(modes[i]);
        printf("%.20g %g %g\n", one / three, rint(2.5 * one), nearbyint(-2.5 * one));
    }
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
    printf("%g", one / three);
    printf(" inexact %d", !!fetestexcept(FE_INEXACT));
    printf(" %g", one / zero);
    printf(" divbyzero %d\n", !!fetestexcept(FE_DIVBYZERO));
    for (int i = 0; i < 1000; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        sum += sin((double)(seed >> 40)) * exp(-(double)(i % 50)) + sqrt((double)i);
    }
    printf("%.12g %.12g %.12g\n", sum, pow(2.5, 3.7), atan2(1, -3));
    printf("%.6Lg\n", (long double)one / 3);
    printf("%g %g\n", strtod("1.7976931348623157e308", NULL), strtod("4.9e-324", NULL));
    if (setjmp(back) < 5) {
        steps++;
        leap(steps);
    }
    printf("steps %d\n", steps);
    return 0;
}
