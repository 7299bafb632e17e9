/* Pages whose code is written again and again: all that can happen to such a page afterwards. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "make.h"

#define PAGE 4096
#define OFTEN 40

typedef long (*loop_function)(long);

#if defined(__x86_64__)
/* Adds @step as often as its argument says. */
static size_t make_loop(uint8_t *to, int step)
{
    static const uint8_t code[] = {
        0x31, 0xc0,          /* xor %eax, %eax */
        0x48, 0x83, 0xc0, 0, /* 1: add $step, %rax */
        0x48, 0xff, 0xcf,    /* dec %rdi */
        0x75, 0xf7,          /* jnz 1b */
        0xc3,
    };

    memcpy(to, code, sizeof(code));
    to[5] = (uint8_t)step;
    return sizeof(code);
}

/* Reads address 0 at its second instruction. */
static size_t make_fault(uint8_t *to)
{
    static const uint8_t code[] = {0x31, 0xd2, 0x8b, 0x02,
                                   0xc3}; /* xor %edx, %edx; mov (%rdx), %eax */

    memcpy(to, code, sizeof(code));
    return sizeof(code);
}

static uintptr_t pc_of(const ucontext_t *u)
{
    return (uintptr_t)u->uc_mcontext.gregs[REG_RIP];
}

#define FAULT_OFFSET 2
#define VALUE_OFFSET 1
#elif defined(__riscv)
static size_t make_loop(uint8_t *to, int step)
{
    uint32_t code[] = {
        0x00000593,                        /* li a1, 0 */
        (uint32_t)step << 20 | 0x00058593, /* 1: addi a1, a1, step */
        0xfff50513,                        /* addi a0, a0, -1 */
        0xfe051ce3,                        /* bnez a0, 1b */
        0x00058513,                        /* mv a0, a1 */
        0x00008067,                        /* ret */
    };

    memcpy(to, code, sizeof(code));
    return sizeof(code);
}

static size_t make_fault(uint8_t *to)
{
    uint32_t code[] = {0x00000593, 0x0005a503, 0x8067}; /* li a1, 0; lw a0, 0(a1); ret */

    memcpy(to, code, sizeof(code));
    return sizeof(code);
}

static uintptr_t pc_of(const ucontext_t *u)
{
    return u->uc_mcontext.__gregs[REG_PC];
}

#define FAULT_OFFSET 4
#define VALUE_OFFSET 0
#endif

static sigjmp_buf caught;
static volatile int expected;
static volatile int caught_code;
static void *volatile caught_address;
static volatile uintptr_t caught_pc;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    if (!expected) {
        signal(sig, SIG_DFL); /* it comes again */
        return;
    }
    expected = 0;
    caught_code = info->si_code;
    caught_address = info->si_addr;
    caught_pc = pc_of(context);
    siglongjmp(caught, 1);
}

#define EXPECT_FAULT() (expected = 1, !sigsetjmp(caught, 1))

static void flush(void *at, size_t n)
{
    __builtin___clear_cache((char *)at, (char *)at + n);
}

static int call(void *at)
{
    return ((function)at)();
}

static long call_loop(void *at, long n)
{
    return ((loop_function)at)(n);
}

/* Writes and runs a function so often that the page counts as one that is. */
static int make_often(uint8_t *p)
{
    int sum = 0;

    for (int i = 0; i < OFTEN; i++) {
        flush(p, make(p, i));
        sum += call(p);
    }
    return sum;
}

static uint8_t *map(void *at, size_t n, int more)
{
    uint8_t *p =
        mmap(at, n, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | more, -1, 0);

    if (p == MAP_FAILED)
        exit(1);
    return p;
}

static void beside_data(uint8_t *p)
{
    long sum = 0;

    make_often(p);
    flush(p, make(p, 3));
    for (int i = 0; i < 20000; i++) {
        p[2048 + i % 64]++;
        sum += call(p) + p[2048 + i % 64];
    }
    printf("data beside code %ld\n", sum);
}

/* It is rewritten, then runs for long, in turn: more often than anybody would go along with. */
static void in_turn(uint8_t *p)
{
    long sum = 0;

    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < OFTEN; i++) {
            flush(p, make_loop(p, i + round));
            sum += call_loop(p, 3);
        }
        sum += call_loop(p, 40000);
        sum += call_loop(p, 40000);
    }
    printf("in turn %ld\n", sum);
}

static void gone(uint8_t *p)
{
    make_often(p);
    munmap(p, PAGE);
    if (EXPECT_FAULT())
        call(p);
    printf("unmapped %d %d %d\n", caught_code, caught_address == p, caught_pc == (uintptr_t)p);
    map(p, PAGE, MAP_FIXED);
    flush(p, make(p, 77));
    printf("mapped anew %d\n", call(p));
    make_often(p);
    map(p, PAGE, MAP_FIXED); /* over it */
    flush(p, make(p, 78));
    printf("mapped over %d\n", call(p));
}

static void protections(uint8_t *p)
{
    make_often(p);
    mprotect(p, PAGE, PROT_READ | PROT_WRITE);
    if (EXPECT_FAULT())
        call(p);
    printf("not executable %d %d\n", caught_code, caught_address == p);
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    printf("executable %d\n", call(p));
    caught_code = 0;
    if (EXPECT_FAULT())
        p[0] = 0;
    printf("not writable %d %d, still %d\n", caught_code, caught_address == p, call(p));
    mprotect(p, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    printf("writable %d\n", make_often(p));
}

static void precise(uint8_t *p)
{
    size_t n;

    make_often(p);
    n = make_fault(p);
    flush(p, n);
    if (EXPECT_FAULT())
        call(p);
    printf("fault at its instruction %d, of %p\n", caught_pc == (uintptr_t)p + FAULT_OFFSET,
           caught_address);
}

static void two_pages(uint8_t *p)
{
    uint8_t *at = p + PAGE - 2;
    int sum = 0;

    make_often(p + PAGE);
    for (int i = 0; i < OFTEN; i++) {
        flush(at, make(at, i * 3));
        sum += call(at);
    }
    make_often(p);
    for (int i = 0; i < OFTEN; i++) {
        flush(at, make(at, i * 5));
        sum += call(at);
    }
    printf("over two pages %d\n", sum);
}

static void by_read(uint8_t *p)
{
    uint8_t code[16];
    size_t n;
    int ends[2], sum = 0;

    if (pipe(ends))
        exit(1);
    make_often(p);
    for (int i = 0; i < OFTEN; i++) {
        n = make(code, i + 200);
        if (write(ends[1], code, n) != (ssize_t)n || read(ends[0], p, n) != (ssize_t)n)
            exit(1);
        flush(p, n);
        sum += call(p);
    }
    printf("by read %d\n", sum);
}

static void in_child(uint8_t *p)
{
    int status = 0;

    make_often(p);
    fflush(stdout);
    if (!fork()) {
        flush(p, make(p, 20));
        _exit(call(p) + (make_often(p) == OFTEN * (OFTEN - 1) / 2));
    }
    wait(&status);
    printf("child %d, here %d\n", WEXITSTATUS(status), call(p));
}

/* The same memory, writable here and executable there. */
static void two_mappings(void)
{
    int fd = memfd_create("code", 0), sum = 0, later;
    uint8_t *w, *x;

    if (fd < 0 || ftruncate(fd, PAGE))
        exit(1);
    w = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    for (int i = 0; i < OFTEN; i++) {
        size_t n = make(w, i);

        flush(x, n);
        sum += call(x);
    }
    flush(x, make_loop(w, 7));
    later = (int)call_loop(x, 50000);
    flush(x, make_loop(w, 8));
    printf("two mappings %d %d %ld\n", sum, later, call_loop(x, 50000));
    mprotect(x, PAGE, PROT_READ);
    mprotect(x, PAGE, PROT_READ | PROT_EXEC);
    flush(x, make(w, 5));
    sum = call(x);
    flush(x, make(w, 6));
    printf("and protected %d %d\n", sum, call(x));
    munmap(w, PAGE);
    munmap(x, PAGE);
    close(fd);
}

static uint8_t *shared_code;
static atomic_int version, answered;

/* What another processor changed is run once this one has serialised (SDM volume 3, 9.1.3), or has
 * done a FENCE.I. */
static void serialise(void)
{
#if defined(__x86_64__)
    unsigned a = 0, b, c = 0, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
#else
    __asm__ volatile("fence.i" ::: "memory");
#endif
}

static void *runner(void *opaque)
{
    long *wrong = opaque;
    int seen;

    do {
        int got;

        seen = atomic_load(&version);
        serialise();
        got = call(shared_code);
        if (got < seen || got > 1900)
            ++*wrong;
        atomic_store(&answered, seen);
    } while (seen < 1900);
    return NULL;
}

/* The value is changed by one store, aligned, while the other thread runs it. */
static void two_threads(uint8_t *p)
{
    pthread_t thread;
    long wrong = 0;

    shared_code = p + 64 - VALUE_OFFSET;
    flush(shared_code, make(shared_code, 0));
    if (pthread_create(&thread, NULL, runner, &wrong))
        exit(1);
    for (int i = 1; i <= 1900; i++) {
#if defined(__x86_64__)
        int now = i;
#else
        int now = (int)li_a0(i);
#endif

        __atomic_store_n((int *)(shared_code + VALUE_OFFSET), now, __ATOMIC_SEQ_CST);
        atomic_store(&version, i);
        while (i % 4 == 0 && atomic_load(&answered) < i)
            sched_yield();
    }
    pthread_join(thread, NULL);
    printf("two threads: %ld wrong\n", wrong);
}

#if defined(__x86_64__) && !defined(PORTABLE)
/* On x86 a store is seen by the very next instruction. */
static void itself(uint8_t *p)
{
    static const uint8_t next[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x42, 0xb8, 0x01, 0, 0, 0, 0xc3};
    static const uint8_t count[] = {
        0x31, 0xc0,                               /* xor %eax, %eax */
        0x83, 0xc0, 0x00,                         /* 2: add $0, %eax */
        0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff,       /* incb -7(%rip): the operand */
        0x80, 0x3d, 0xf2, 0xff, 0xff, 0xff, 0x0b, /* cmpb $11, -14(%rip) */
        0x75, 0xee,                               /* jne 2b */
        0xc3,
    };
    static const uint8_t string[] = {
        0x48, 0x8d, 0x3d, 0x0a, 0, 0, 0, /* lea 1f+1(%rip), %rdi */
        0xb0, 0x11,                      /* mov $0x11, %al */
        0xb9, 0x02, 0,    0,    0,       /* mov $2, %ecx */
        0xf3, 0xaa,                      /* rep stosb */
        0xb8, 0x00, 0,    0,    0,       /* mov $0, %eax: the bytes behind its first */
        0xc3,
    };
    static const uint8_t locked[] = {
        0xb9, 0x05, 0,    0,    0,             /* mov $5, %ecx */
        0xf0, 0x0f, 0xc1, 0x0d, 0x01, 0, 0, 0, /* lock xadd %ecx, 1f+1(%rip) */
        0xb8, 0x10, 0,    0,    0,             /* 1: mov $0x10, %eax */
        0x01, 0xc8, 0xc3,                      /* add %ecx, %eax; ret */
    };
    int sum = 0;

    make_often(p);
    for (int i = 0; i < OFTEN; i++) {
        memcpy(p + 100, next, sizeof(next));
        sum += call(p + 100);
        memcpy(p + 200, count, sizeof(count));
        sum += call(p + 200);
        memcpy(p + 300, string, sizeof(string));
        sum += call(p + 300);
        memcpy(p + 400, locked, sizeof(locked));
        sum += call(p + 400);
    }
    printf("itself %d\n", sum);
}
#endif

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    uint8_t *p = map(NULL, 2 * PAGE, 0);

    sigaction(SIGSEGV, &action, NULL);
    printf("often %d\n", make_often(p));
    beside_data(p);
    in_turn(p);
    gone(p);
    protections(p);
    precise(p);
    two_pages(p);
    by_read(p);
    in_child(p);
    two_mappings();
    two_threads(p);
#if defined(__x86_64__) && !defined(PORTABLE)
    itself(p);
#endif
    return 0;
}
