/* Integer loops: collatz lengths, primes by a sieve. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint8_t sieve[1 << 20];

int main(void)
{
    uint64_t longest = 0, primes = 0;

    for (uint64_t start = 1; start < 900000; start++) {
        uint64_t n = start, steps = 0;

        for (; n != 1; steps++)
            n = n & 1 ? 3 * n + 1 : n >> 1;
        if (steps > longest)
            longest = steps;
    }
    for (int round = 0; round < 12; round++) {
        memset(sieve, 0, sizeof(sieve));
        for (uint64_t i = 2; i < sizeof(sieve); i++) {
            if (sieve[i])
                continue;
            primes++;
            for (uint64_t k = i * i; k < sizeof(sieve); k += i)
                sieve[k] = 1;
        }
    }
    printf("%llu %llu\n", (unsigned long long)longest, (unsigned long long)primes);
    return 0;
}
