/* memcpy, memset, strlen, strchr, memcmp of many sizes. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static char from[1 << 20], to[1 << 20];

int main(void)
{
    volatile size_t sum = 0;

    memset(from, 'x', sizeof(from) - 1);
    for (int round = 0; round < 450; round++) {
        memcpy(to, from, sizeof(from));
        to[sizeof(to) / 2 + round] = 'y';
        sum += strlen(to);
        sum += (size_t)(strchr(to, 'y') - to);
        sum += (size_t)memcmp(from, to, sizeof(to) / 2);
    }
    for (int round = 0; round < 3000000; round++) {
        size_t size = (size_t)round * 37 % 120 + 1;

        memcpy(to + 8, from + 3, size);
        to[8 + size] = '\0';
        sum += strlen(to + 8);
    }
    printf("%zu\n", sum);
    return 0;
}
