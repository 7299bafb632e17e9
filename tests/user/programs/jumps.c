/* Calls, returns and jumps through memory, hot enough to be compiled as loops, and what breaks into
 * them: signals, longjmp, deep recursion, code that comes in the place of other code. */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "make.h"

static jmp_buf out;
static volatile sig_atomic_t signals;

static __attribute__((noinline)) unsigned fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline)) unsigned down(unsigned n, unsigned leave)
{
    unsigned below;

    if (n == leave)
        longjmp(out, (int)n);
    below = n ? down(n - 1, leave) : 1;
    return below * 3 + n;
}

static void unwind(void)
{
    volatile unsigned sum = 0, i;

    for (i = 0; i < 20000; i++) {
        int left = setjmp(out);

        if (left)
            sum += (unsigned)left;
        else
            sum += down(40, i % 60 ? i % 60 : 99);
    }
    printf("unwound %u\n", sum);
    printf("deep %u\n", down(50000, ~0u));
}

static unsigned one(unsigned x)
{
    return x + 1;
}
static unsigned two(unsigned x)
{
    return x * 5;
}
static unsigned three(unsigned x)
{
    return x ^ x >> 3;
}
static unsigned four(unsigned x)
{
    return one(x) + three(x);
}

static void table(void)
{
    static unsigned (*const volatile functions[])(unsigned) = {one, two, three, four};
    unsigned x = 1;

    for (unsigned i = 0; i < 200000; i++)
        x = functions[(i ^ i >> 4) & 3](x);
    printf("table %u\n", x);
}

/* Its loop is closed by indirect jumps alone. */
static unsigned interpret(const unsigned char *code, unsigned rounds)
{
    static const void *const labels[] = {&&add, &&xor, &&rotate, &&twice, &&next};
    const unsigned char *at = code;
    unsigned x = 7, left = rounds;

#define NEXT goto *labels[*at++]
    NEXT;
add:
    x += left;
    NEXT;
    xor : x ^= 0x1234567;
    NEXT;
rotate:
    x = x << 5 | x >> 27;
    NEXT;
twice:
    x *= 2 * left + 1;
    NEXT;
next:
    if (!--left)
        return x;
    at = code;
    NEXT;
}

static void count(int number)
{
    (void)number;
    signals++;
}

static void interrupted(void)
{
    static const unsigned char code[] = {0, 1, 2, 3, 0, 2, 4};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    unsigned rounds = 0, right = 0, want_fib = fib(18), want = interpret(code, 5000);

    signal(SIGALRM, count);
    setitimer(ITIMER_REAL, &often, NULL);
    while (signals < 50) {
        right += fib(18) == want_fib;
        right += interpret(code, 5000) == want;
        rounds += 2;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("interrupted %d %u %u\n", rounds == right, want_fib, want);
}

/* Functions that a hot loop calls change, then move. */
static void rewritten(void)
{
    uint8_t *page =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned sum = 0;

    for (int change = 0; change < 8; change++) {
        function volatile f = (function)(page + 64 * (change & 3)), g = (function)(page + 4096);

        make((uint8_t *)f, change + 1);
        make((uint8_t *)g, change * 3);
        __builtin___clear_cache((char *)page, (char *)page + 8192);
        for (int i = 0; i < 20000; i++)
            sum = sum * 3 + (unsigned)f() + (unsigned)g();
    }
    printf("rewritten %u\n", sum);
#if defined(__x86_64__) && !defined(PORTABLE)
    {
        /* A function that changes the code at its return address once its count has come to 0. */
        static const uint8_t code[] = {
            0x31, 0xc0,                               /* xor %eax, %eax */
            0xb9, 0x20, 0x4e, 0,    0,                /* mov $20000, %ecx */
            0xe8, 0x08, 0,    0,    0,                /* 1: call 2f */
            0x83, 0xc0, 0x01,                         /* add $1, %eax */
            0xff, 0xc9,                               /* dec %ecx */
            0x75, 0xf4,                               /* jne 1b */
            0xc3,                                     /* ret */
            0x81, 0xf9, 0xe8, 0x03, 0,    0,          /* 2: cmp $1000, %ecx */
            0x75, 0x07,                               /* jne 3f */
            0xc6, 0x05, 0xeb, 0xff, 0xff, 0xff, 0x05, /* movb $5: the operand of add */
            0xc3,                                     /* 3: ret */
        };

        memcpy(page, code, sizeof(code));
        printf("returned to other code %d\n", ((function)page)());
    }
#endif
    munmap(page, 8192);
}

int main(void)
{
    printf("fib %u\n", fib(22));
    unwind();
    table();
    interrupted();
    rewritten();
    return 0;
}
