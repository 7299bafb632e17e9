/*
 * Several CPUs: the classic tests of x86-TSO (Owens, Sarkar, Sewell 2009; SDM 9.2.3),
 * cross-modifying code, TLB shootdown. An outcome that the model forbids ends the guest with status
 * 37.
 */
#include "guest.h"

#define VARIABLES 4

/* Each on a cache line of its own. Results are what a CPU read. */
struct result {
    u32 a, b;
} __attribute__((aligned(64)));

static struct {
    volatile u32 value __attribute__((aligned(64)));
} v[VARIABLES];
static struct result results[CPUS_MAX];
static volatile u32 go __attribute__((aligned(64)));
static volatile u32 done[CPUS_MAX][16] __attribute__((aligned(64)));
static volatile u32 counter;
static volatile u8 split[2 * 4096] __attribute__((aligned(4096)));
static u64 wide[2] __attribute__((aligned(16)));

void forbidden(const char *name)
{
    say(name);
    say(": forbidden outcome\n");
    outb(PORT_EXIT, FORBIDDEN);
}

/* ---- What a CPU does, as the row's text has it ----------------------------------------------- */

/* x, y, z, w are the variables, a and b the results, one and two registers with these values. */
#define CODE(name, text)                                                                           \
    static void name(struct result *r)                                                             \
    {                                                                                              \
        u32 a = 0, b = 0, one = 1, two = 2;                                                        \
                                                                                                   \
        asm volatile(                                                                              \
            text                                                                                   \
            : [a] "+r"(a), [b] "+r"(b), [one] "+r"(one), [two] "+r"(two), [x] "+m"(v[0].value),    \
              [y] "+m"(v[1].value), [z] "+m"(v[2].value), [w] "+m"(v[3].value)                     \
            :                                                                                      \
            : "memory", "cc");                                                                     \
        r->a = a;                                                                                  \
        r->b = b;                                                                                  \
    }

#define W(variable) "movl $1, %[" #variable "];"
#define W2(variable) "movl $2, %[" #variable "];"
#define R(result, variable) "movl %[" #variable "], %[" #result "];"
#define X(variable) "xchgl %[one], %[" #variable "];"
#define LOCKED_ADD(variable) "lock addl $1, %[" #variable "];"
#define FENCE "mfence;"
#define LOCKED_FENCE "lock orl $0, (%%rsp);"

CODE(wx_ry, W(x) R(a, y))
CODE(wy_rx, W(y) R(a, x))
CODE(wx_f_ry, W(x) FENCE R(a, y))
CODE(wy_f_rx, W(y) FENCE R(a, x))
CODE(wx_lf_ry, W(x) LOCKED_FENCE R(a, y))
CODE(wy_lf_rx, W(y) LOCKED_FENCE R(a, x))
CODE(xx_ry, X(x) R(a, y))
CODE(xy_rx, X(y) R(a, x))
CODE(lx_ry, LOCKED_ADD(x) R(a, y))
CODE(ly_rx, LOCKED_ADD(y) R(a, x))
CODE(ry_wx, R(a, y) W(x))
CODE(rx_wy, R(a, x) W(y))
CODE(wx_wy, W(x) W(y))
CODE(ry_rx, R(a, y) R(b, x))
CODE(rx_ry, R(a, x) R(b, y))
CODE(lx_wy, LOCKED_ADD(x) W(y))
CODE(w2x_wy, W2(x) W(y))
CODE(w2y_f_rx, W2(y) FENCE R(a, x))
CODE(wx_w2y, W(x) W2(y))
CODE(wy_w2x, W(y) W2(x))
CODE(wx, W(x))
CODE(wy, W(y))
CODE(xx, X(x))
CODE(xy, X(y))
CODE(rx_rx, R(a, x) R(b, x))
CODE(wy_f_rz, W(y) FENCE R(a, z))
CODE(wz_f_rw, W(z) FENCE R(a, w))
CODE(ww_f_rx, "movl $1, %[w];" FENCE R(a, x))
CODE(ry_after_rx, R(a, x) R(b, y))

/* ---- The tests: what each CPU does, and which outcome must not be ---------------------------- */

#define r0 results[0]
#define r1 results[1]
#define r2 results[2]
#define r3 results[3]
#define x v[0].value
#define y v[1].value

/* T(name, CPUs, what they do, forbidden). SB's relaxed outcome is allowed without a fence, and
 * counted. */
#define TESTS                                                                                      \
    T("SB", 2, (wx_ry, wy_rx), (relaxed += !r0.a && !r1.a, false))                                 \
    T("SB+mfences", 2, (wx_f_ry, wy_f_rx), !r0.a && !r1.a)                                         \
    T("SB+locked fences", 2, (wx_lf_ry, wy_lf_rx), !r0.a && !r1.a)                                 \
    T("SB+xchg", 2, (xx_ry, xy_rx), !r0.a && !r1.a)                                                \
    T("SB+locked adds", 2, (lx_ry, ly_rx), !r0.a && !r1.a)                                         \
    T("LB", 2, (ry_wx, rx_wy), r0.a &&r1.a)                                                        \
    T("MP", 2, (wx_wy, ry_rx), r1.a && !r1.b)                                                      \
    T("MP+locked add", 2, (lx_wy, ry_rx), r1.a && !r1.b)                                           \
    T("S", 2, (w2x_wy, ry_wx), r1.a &&x == 2)                                                      \
    T("R+mfence", 2, (wx_wy, w2y_f_rx), y == 2 && !r1.a)                                           \
    T("2+2W", 2, (wx_w2y, wy_w2x), x == 1 && y == 1)                                               \
    T("CoRR", 2, (wx, rx_rx), r1.a && !r1.b)                                                       \
    T("WRC", 3, (wx, rx_wy, ry_rx), r1.a &&r2.a && !r2.b)                                          \
    T("RWC+mfence", 3, (wx, rx_ry, wy_f_rx), r1.a && !r1.b && !r2.a)                               \
    T("IRIW", 4, (wx, wy, ry_after_rx, ry_rx), r2.a && !r2.b && r3.a && !r3.b)                     \
    T("IRIW+xchg", 4, (xx, xy, ry_after_rx, ry_rx), r2.a && !r2.b && r3.a && !r3.b)                \
    T("SB of four+mfences", 4, (wx_f_ry, wy_f_rz, wz_f_rw, ww_f_rx),                               \
      !r0.a && !r1.a && !r2.a && !r3.a)

#define LIST(...) __VA_ARGS__
static const struct litmus {
    const char *name;
    u8 cpus;
    void (*code[CPUS_MAX])(struct result *r);
} tests[] = {
#define T(name, cpus, code, forbidden) {name, cpus, {LIST code}},
    TESTS
#undef T
};

static u32 relaxed;

static bool is_forbidden(u32 test)
{
    u32 i = 0;

#define T(name, cpus, code, forbidden)                                                             \
    if (test == i++)                                                                               \
        return forbidden;
    TESTS
#undef T
    return true;
}

#undef x
#undef y

/* ---- Rounds ---------------------------------------------------------------------------------- */

/* go is the number of the round, with the test in its low bits. */
#define TEST_BITS 5

static void part(u32 test, unsigned cpu)
{
    if (cpu < tests[test].cpus)
        tests[test].code[cpu](&results[cpu]);
}

static void follow(unsigned cpu)
{
    for (u32 last = 0;;) {
        u32 now = go;

        if (now == last) {
            pause();
            continue;
        }
        last = now;
        part(now & ((1u << TEST_BITS) - 1), cpu);
        done[cpu][0] = now;
    }
}

static void play(u32 test, unsigned cpus, u32 rounds)
{
    static u32 number;

    for (u32 i = 0; i < rounds; i++) {
        for (unsigned k = 0; k < VARIABLES; k++)
            v[k].value = 0;
        go = ++number << TEST_BITS | test;
        for (u32 wait = (u32)random() & 31; wait; wait--)
            asm volatile("");
        part(test, 0);
        for (unsigned cpu = 1; cpu < cpus; cpu++)
            while (done[cpu][0] != go)
                pause();
        if (is_forbidden(test))
            forbidden(tests[test].name);
    }
}

static void run_tests(unsigned cpus, u32 rounds)
{
    cpu_task = follow;
    start_cpus(cpus);
    for (u32 test = 0; test < sizeof tests / sizeof *tests; test++)
        if (tests[test].cpus <= cpus)
            play(test, cpus, rounds);
    if (relaxed)
        say("SB showed its store buffers\n");
}

void litmus2(void)
{
    run_tests(2, 10000);
}

void litmus4(void)
{
    run_tests(4, 600);
}

/* ---- Locked operations: nobody's is lost ----------------------------------------------------- */

#define ADDITIONS 20000

/* In turn aligned, across the end of a cache line, across the end of a page, and 16 bytes wide. */
static void add_up(unsigned cpu)
{
    volatile u32 *line = (volatile u32 *)(split + 62), *page = (volatile u32 *)(split + 4094);

    for (u32 i = 0; i < ADDITIONS; i++) {
        u32 value = 1, old;
        u64 low = wide[0], high = wide[1];
        u8 swapped;

        asm volatile("lock incl %0" : "+m"(counter) : : "memory");
        asm volatile("lock xaddl %0, %1" : "+r"(value), "+m"(*line) : : "memory");
        do {
            old = *page;
            value = old;
            asm volatile("lock cmpxchgl %2, %1"
                         : "+a"(value), "+m"(*page)
                         : "r"(old + 1)
                         : "memory");
        } while (value != old);
        do {
            asm volatile("lock cmpxchg16b %1; sete %0"
                         : "=q"(swapped), "+m"(wide), "+a"(low), "+d"(high)
                         : "b"(low + 1), "c"(high - 1)
                         : "memory");
        } while (!swapped);
    }
    done[cpu][0] = 1;
}

static void count(unsigned cpus)
{
    u32 all = cpus * ADDITIONS;

    cpu_task = add_up;
    start_cpus(cpus);
    add_up(0);
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        while (!done[cpu][0])
            pause();
    if (counter != all || *(u32 *)(split + 62) != all || *(u32 *)(split + 4094) != all ||
        wide[0] != all || wide[1] != 0ull - all)
        forbidden("locked counters");
}

void locked2(void)
{
    count(2);
}

void locked4(void)
{
    count(4);
}

/* ---- Code that another CPU changes ----------------------------------------------------------- */

static u8 *const changing = (u8 *)0xa00000;

/* One CPU runs a function whose immediate the other changes; it never sees but an old or a new
 * value, and the new one after it was told. */
static volatile u32 promised, stop;

static u32 call_changing(void)
{
    u32 value;

    asm volatile("call *%1" : "=a"(value) : "r"(changing) : "memory");
    return value;
}

static void runs_code(unsigned cpu)
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
    done[cpu][0] = 1;
}

void cross_modify(void)
{
    changing[0x00] = 0xb8;
    changing[0x05] = 0xc3;
    cpu_task = runs_code;
    start_cpus(2);
    for (u32 i = 1; i < 100000; i++) {
        asm volatile("movl %0, (%1)" : : "r"(i), "r"(changing + 1) : "memory");
        promised = i;
    }
    stop = 1;
    while (!done[1][0])
        pause();
}

/* One CPU moves a page about and tells the other by an IPI, whose handler drops the mapping; then
 * no store of the other may reach the old page. */
static volatile u32 acknowledged;

static void writes(unsigned cpu)
{
    volatile u32 *page = (volatile u32 *)0x1000000; /* 2 MiB that move */

    asm volatile("cli");
    while (!stop) {
        u32 order = go;

        if (acknowledged != order) {
            asm volatile("invlpg (%0)" : : "r"(page) : "memory");
            acknowledged = order;
        }
        for (u32 i = 0; i < 64; i++)
            page[i * 16] = order;
    }
    done[cpu][0] = 1;
}

void shootdown(void)
{
    volatile u64 *entry = tables + 1024 + 8;

    cpu_task = writes;
    start_cpus(2);
    for (u32 i = 1; i < 20000; i++) {
        u64 target = i & 1 ? 0x1200000 : 0x1400000, other = i & 1 ? 0x1400000 : 0x1200000;

        *entry = target | 0x83;
        asm volatile("invlpg (%0)" : : "r"(0x1000000ull) : "memory");
        go = i;
        while (acknowledged != i)
            pause();
        *(volatile u32 *)other = 0;
        for (u32 wait = 0; wait < 100; wait++)
            asm volatile("");
        if (*(volatile u32 *)other)
            forbidden("TLB shootdown");
    }
    stop = 1;
    while (!done[1][0])
        pause();
}
