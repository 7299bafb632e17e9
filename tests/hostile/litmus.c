/*
 * Two CPUs: the classic tests of x86-TSO (Owens, Sarkar, Sewell 2009), cross-modifying code, TLB
 * shootdown. An outcome that the model forbids ends the guest with status 37. SB's relaxed outcome is
 * allowed; with MFENCE or locked operations it is not.
 */
#include "guest.h"

#define ROUNDS 20000

/* Each on a cache line of its own. */
static struct {
    volatile u32 x __attribute__((aligned(64)));
    volatile u32 y __attribute__((aligned(64)));
    volatile u32 go __attribute__((aligned(64)));
    volatile u32 done __attribute__((aligned(64)));
    volatile u32 r1, r2 __attribute__((aligned(64)));
    volatile u32 s1, s2 __attribute__((aligned(64)));
} l;

enum { SB, SB_MFENCE, SB_XCHG, LB, MP, MP_LOCKED, S_TEST, R_LOCKED, COUNT, TESTS };

static volatile u32 test, counter;
static u8 *const changing = (u8 *)0xa00000;

static void forbidden(const char *name)
{
    say(name);
    say(": forbidden outcome\n");
    outb(PORT_EXIT, FORBIDDEN);
}

/* What the two CPUs do in each test; the results are what they read. */
static void left(u32 which)
{
    u32 a = 0, b = 0;

    switch (which) {
    case SB:
        asm volatile("movl $1, %1; movl %2, %0" : "=r"(a), "=m"(l.x) : "m"(l.y) : "memory");
        break;
    case SB_MFENCE:
        asm volatile("movl $1, %1; mfence; movl %2, %0" : "=r"(a), "=m"(l.x) : "m"(l.y) : "memory");
        break;
    case SB_XCHG:
    case R_LOCKED:
        b = 1;
        asm volatile("xchgl %1, %2; movl %3, %0"
                     : "=&r"(a), "+r"(b), "+m"(l.x)
                     : "m"(l.y)
                     : "memory");
        break;
    case LB:
        asm volatile("movl %1, %0; movl $1, %2" : "=r"(a) : "m"(l.y), "m"(l.x) : "memory");
        break;
    case MP:
    case S_TEST:
        asm volatile("movl $1, %0; movl $1, %1" : : "m"(l.x), "m"(l.y) : "memory");
        break;
    case MP_LOCKED:
        asm volatile("lock incl %0; movl $1, %1" : : "m"(l.x), "m"(l.y) : "memory");
        break;
    default:
        for (unsigned i = 0; i < 8; i++) {
            a = 1;
            asm volatile("lock xaddl %0, %1" : "+r"(a), "+m"(counter) : : "memory");
        }
    }
    l.r1 = a;
}

static void right(u32 which)
{
    u32 a = 0, b = 0;

    switch (which) {
    case SB:
        asm volatile("movl $1, %1; movl %2, %0" : "=r"(a), "=m"(l.y) : "m"(l.x) : "memory");
        break;
    case SB_MFENCE:
        asm volatile("movl $1, %1; mfence; movl %2, %0" : "=r"(a), "=m"(l.y) : "m"(l.x) : "memory");
        break;
    case SB_XCHG:
    case R_LOCKED:
        b = 1;
        asm volatile("xchgl %1, %2; movl %3, %0"
                     : "=&r"(a), "+r"(b), "+m"(l.y)
                     : "m"(l.x)
                     : "memory");
        break;
    case LB:
        asm volatile("movl %1, %0; movl $1, %2" : "=r"(a) : "m"(l.x), "m"(l.y) : "memory");
        break;
    case MP:
    case MP_LOCKED:
        asm volatile("movl %2, %0; movl %3, %1"
                     : "=&r"(a), "=r"(b)
                     : "m"(l.y), "m"(l.x)
                     : "memory");
        break;
    case S_TEST:
        asm volatile("movl %1, %0; movl $2, %2" : "=&r"(a) : "m"(l.y), "m"(l.x) : "memory");
        break;
    default:
        for (unsigned i = 0; i < 8; i++)
            asm volatile("lock incl %0" : "+m"(counter) : : "memory");
    }
    l.s1 = a;
    l.s2 = b;
}

static void check(u32 which, u32 *relaxed)
{
    switch (which) {
    case SB:
        *relaxed += !l.r1 && !l.s1; /* store buffers are allowed to show */
        break;
    case SB_MFENCE:
    case SB_XCHG:
    case R_LOCKED:
        if (!l.r1 && !l.s1)
            forbidden("SB with fences");
        break;
    case LB:
        if (l.r1 && l.s1)
            forbidden("LB");
        break;
    case MP:
    case MP_LOCKED:
        if (l.s1 && !l.s2)
            forbidden("MP");
        break;
    case S_TEST:
        if (l.s1 && l.x == 1)
            forbidden("S");
        break;
    }
}

static void second_litmus(void)
{
    for (u32 round = 1;; round++) {
        while (l.go != round)
            pause();
        right(test);
        l.done = round;
    }
}

void litmus(void)
{
    u32 relaxed = 0, round = 0;

    second_cpu_task = second_litmus;
    start_second_cpu();
    for (test = 0; test < TESTS; test++) {
        for (u32 i = 0; i < ROUNDS; i++) {
            l.x = l.y = 0;
            l.go = ++round;
            for (u32 wait = (u32)random() & 31; wait; wait--)
                asm volatile("");
            left(test);
            while (l.done != round)
                pause();
            check(test, &relaxed);
        }
    }
    if (counter != ROUNDS * 16)
        forbidden("locked counter");
    if (relaxed)
        say("SB showed its store buffers\n");
}

/* One CPU runs a function whose immediate the other changes; it never sees but an old or a new value,
 * and the new one after it was told. */
static volatile u32 promised, stop;

static u32 call_changing(void)
{
    u32 value;

    asm volatile("call *%1" : "=a"(value) : "r"(changing) : "memory");
    return value;
}

static void second_runs_code(void)
{
    u32 last = 0;

    while (!stop) {
        u32 least = promised, value;

        value = 0;
        asm volatile("cpuid" : "+a"(value) : : "rbx", "rcx", "rdx", "memory"); /* SDM 9.1.3 */
        value = call_changing();
        if (value < least || value < last)
            forbidden("cross-modifying code");
        last = value;
    }
    l.done = 1;
}

void cross_modify(void)
{
    changing[0x00] = 0xb8;
    changing[0x05] = 0xc3;
    second_cpu_task = second_runs_code;
    start_second_cpu();
    for (u32 i = 1; i < 100000; i++) {
        asm volatile("movl %0, (%1)" : : "r"(i), "r"(changing + 1) : "memory");
        promised = i;
    }
    stop = 1;
    while (!l.done)
        pause();
}

/* One CPU moves a page about and tells the other by an IPI, whose handler drops the mapping; then no
 * store of the other may reach the old page. */
static volatile u32 acknowledged;

static void second_writes(void)
{
    volatile u32 *page = (volatile u32 *)0x1000000; /* 2 MiB that move */

    asm volatile("cli");
    while (!stop) {
        u32 order = l.go;

        if (acknowledged != order) {
            asm volatile("invlpg (%0)" : : "r"(page) : "memory");
            acknowledged = order;
        }
        for (u32 i = 0; i < 64; i++)
            page[i * 16] = order;
    }
    l.done = 1;
}

void shootdown(void)
{
    volatile u64 *entry = tables + 1024 + 8;

    second_cpu_task = second_writes;
    start_second_cpu();
    for (u32 i = 1; i < 20000; i++) {
        u64 target = i & 1 ? 0x1200000 : 0x1400000, other = i & 1 ? 0x1400000 : 0x1200000;

        *entry = target | 0x83;
        asm volatile("invlpg (%0)" : : "r"(0x1000000ull) : "memory");
        l.go = i;
        while (acknowledged != i)
            pause();
        *(volatile u32 *)other = 0;
        for (u32 wait = 0; wait < 100; wait++)
            asm volatile("");
        if (*(volatile u32 *)other)
            forbidden("TLB shootdown");
    }
    stop = 1;
    while (!l.done)
        pause();
}
