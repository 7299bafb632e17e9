/* Sorting by qsort and by hand. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define N 300000

static uint32_t v[N];

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void sort(uint32_t *lo, uint32_t *hi)
{
    while (hi - lo > 1) {
        uint32_t pivot = lo[(hi - lo - 1) / 2], *i = lo - 1, *k = hi;

        for (;;) {
            do
                i++;
            while (*i < pivot);
            do
                k--;
            while (*k > pivot);
            if (i >= k)
                break;
            uint32_t t = *i;
            *i = *k;
            *k = t;
        }
        sort(lo, k + 1);
        lo = k + 1;
    }
}

int main(void)
{
    uint32_t seed = 1, sum = 0;

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            v[i] = seed = seed * 1664525 + 1013904223;
        if (round % 2)
            qsort(v, N, sizeof(*v), compare);
        else
            sort(v, v + N);
        for (int i = 0; i < N; i += 1000)
            sum = sum * 31 + v[i];
    }
    printf("%u\n", sum);
    return 0;
}
