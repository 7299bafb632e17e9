/* Code that writes code: on a page of its own, beside itself, and the very next instruction. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "make.h"

int main(void)
{
    uint8_t *p =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long sum = 0;
    int ends[2];

    for (int i = 0; i < 1000; i++) {
        size_t n = make(p, i);

        __builtin___clear_cache((char *)p, (char *)p + n);
        sum += ((function)p)();
    }
    printf("rewritten %ld\n", sum);
    for (int i = 0; i < 64; i++)
        make(p + 64 * i, i);
    __builtin___clear_cache((char *)p, (char *)p + 4096);
    sum = 0;
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < 64; i++)
            sum += ((function)(p + 64 * i))();
    printf("many %ld\n", sum);
    /* The kernel writes code: by read. */
    if (pipe(ends))
        return 1;
    {
        uint8_t code[16];
        size_t n = make(code, 99);

        if (write(ends[1], code, n) != (ssize_t)n || read(ends[0], p, n) != (ssize_t)n)
            return 1;
        __builtin___clear_cache((char *)p, (char *)p + n);
        printf("read %d\n", ((function)p)());
    }
    mprotect(p, 4096, PROT_READ | PROT_WRITE);
    make(p, 55);
    mprotect(p, 4096, PROT_READ | PROT_EXEC);
    printf("protected %d\n", ((function)p)());
    munmap(p, 8192);
    p = mmap(p, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
             -1, 0);
    make(p, 66);
    printf("mapped anew %d\n", ((function)p)());
#if defined(__x86_64__) && !defined(PORTABLE)
    {
        /* movb $0x42, 1(%rip) changes the operand of the mov that follows it. */
        static const uint8_t code[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x42, 0xb8, 0x01, 0, 0, 0, 0xc3};

        memcpy(p + 100, code, sizeof(code));
        printf("next instruction %#x\n", ((function)(p + 100))());
    }
    {
        /* A loop that counts up the operand of its own add: 1 + 2 + ... + 10. */
        static const uint8_t code[] = {
            0x31, 0xc0,                               /* xor %eax, %eax */
            0x83, 0xc0, 0x00,                         /* 2: add $0, %eax */
            0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff,       /* incb -7(%rip): the operand */
            0x80, 0x3d, 0xf2, 0xff, 0xff, 0xff, 0x0b, /* cmpb $11, -14(%rip) */
            0x75, 0xee,                               /* jne 2b */
            0xc3,
        };

        memcpy(p + 200, code, sizeof(code));
        printf("loop %d\n", ((function)(p + 200))());
    }
#endif
    return 0;
}
