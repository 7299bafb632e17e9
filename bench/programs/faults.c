/* Page faults: memory that is touched for the first time. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/mman.h>

#define BYTES (64ul << 20)

int main(void)
{
    unsigned long sum = 0;

    for (int round = 0; round < 6; round++) {
        char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        madvise(p, BYTES, MADV_NOHUGEPAGE);
        for (unsigned long i = 0; i < BYTES; i += 4096)
            sum += (unsigned long)++p[i];
        munmap(p, BYTES);
    }
    printf("%lu\n", sum);
    return 0;
}
