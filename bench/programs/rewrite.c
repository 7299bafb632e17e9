/* Code that is rewritten each time before it runs. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int main(void)
{
    uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned sum = 0;

    for (int i = 0; i < 80000; i++) {
#ifdef __x86_64__
        p[0] = 0xb8; /* mov $i, %eax; ret */
        memcpy(p + 1, &i, 4);
        p[5] = 0xc3;
#else
        uint32_t code[2] = {(uint32_t)(i & 0x7ff) << 20 | 0x513, 0x8067}; /* li a0; ret */

        memcpy(p, code, 8);
#endif
        __builtin___clear_cache((char *)p, (char *)p + 8);
        sum += (unsigned)((int (*)(void))p)();
    }
    printf("%u\n", sum);
    return 0;
}
