/* Entry, traps and the choice of the scenario: its name and a seed are the kernel's command
 * line. */
#include "guest.h"

struct gate {
    u16 low, selector, flags, middle;
    u32 high, zero;
};
struct pointer {
    u16 limit;
    u64 base;
} __attribute__((packed));

extern u64 gdt[], entry_table[256];
extern char trap_stack_top[], trampoline[], trampoline_end[];

volatile u64 guard_ip, interrupts, traps;
volatile bool attempting;
void (*cpu_task)(unsigned cpu);
static u32 alive;
static struct gate idt[256] __attribute__((aligned(16)));
static u8 tss[104];
static u64 rng;

u64 random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng * 0x2545f4914f6cdd1dull;
}

void say(const char *text)
{
    while (*text)
        outb(0x402, (u8)*text++);
}

static void say_number(u64 value)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        outb(0x402, (u8) "0123456789abcdef"[value >> shift & 15]);
    outb(0x402, ' ');
}

static void end(u8 value)
{
    for (;;)
        outb(PORT_EXIT, value);
}

void trap(struct frame *frame)
{
    static u64 ticks;

    if (frame->vector >= 0x40 && frame->vector < 0x80) {
        interrupts++;
        lapic_write(0xb0, 0);
        if (!attempting || ++ticks & 1)
            return; /* an attempt has from one to two ticks */
    }
    traps++;
    if (attempting) {
        attempting = false;
        frame->ip = (u64)attempt_end;
        frame->cs = 8;
        frame->ss = 16;
        frame->flags = 2;
        frame->sp = attempt_sp;
        frame->ax = frame->vector;
        return;
    }
    if (guard_ip) {
        frame->ip = guard_ip;
        return;
    }
    if (frame->vector >= 32)
        return;
    say("unexpected trap ");
    say_number(frame->vector);
    say_number(frame->error);
    say_number(frame->ip);
    end(UNEXPECTED);
}

static void load_tables(void)
{
    struct pointer idtr = {sizeof idt - 1, (u64)idt};
    u64 top = (u64)trap_stack_top, base = (u64)tss;

    for (unsigned i = 0; i < 256; i++)
        idt[i] = (struct gate){.low = (u16)entry_table[i],
                               .selector = 8,
                               .flags = (i == 0x80 ? 0xee00 : 0x8e00) | (i < 32),
                               .middle = (u16)(entry_table[i] >> 16),
                               .high = (u32)(entry_table[i] >> 32)};
    *(volatile u64 *)(tss + 4) = top;
    *(volatile u64 *)(tss + 36) = top; /* IST1: faults come with any stack */
    tss[102] = sizeof tss;
    gdt[6] =
        (sizeof tss - 1) | (base & 0xffffff) << 16 | (u64)0x89 << 40 | (base >> 24 & 0xff) << 56;
    gdt[7] = base >> 32;
    asm volatile("lidt %0" : : "m"(idtr));
    asm volatile("ltr %w0" : : "r"(0x30));
}

/* A periodic interrupt, vector 40h. */
void lapic_timer(u32 count)
{
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x3e0, 0xb);
    lapic_write(0x320, 0x20040);
    lapic_write(0x380, count);
}

void start_cpus(unsigned count)
{
    volatile u8 *to = (volatile u8 *)0x8000;

    for (char *from = trampoline; from < trampoline_end; from++)
        *to++ = (u8)*from;
    lapic_write(0xf0, 0x1ff);
    lapic_write(0x300, 0xc4500);
    lapic_write(0x300, 0xc4608);
    while (__atomic_load_n(&alive, __ATOMIC_SEQ_CST) + 1 < count)
        pause();
}

void other_cpu(unsigned cpu)
{
    struct pointer idtr = {sizeof idt - 1, (u64)idt};

    asm volatile("lidt %0" : : "m"(idtr));
    lapic_write(0xf0, 0x1ff);
    __atomic_fetch_add(&alive, 1, __ATOMIC_SEQ_CST);
    if (cpu_task)
        cpu_task(cpu);
}

static bool same(const char *a, const char **b)
{
    const char *at = *b;

    while (*a && *a == *at)
        a++, at++;
    if (*a || (*at && *at != ' '))
        return false;
    *b = *at ? at + 1 : at;
    return true;
}

void first_cpu(const u32 *info)
{
    const char *line = (const char *)(u64)info[4];

    load_tables();
    while (*line && *line++ != ' ') /* the kernel's name */
        ;
    for (const struct scenario *s = scenarios; s->name; s++) {
        if (!same(s->name, &line))
            continue;
        for (rng = 88172645463325252ull; *line >= '0' && *line <= '9'; line++)
            rng = rng * 10 + (u64)(*line - '0');
        s->run();
        say("survived\n");
        end(SURVIVED);
    }
    say("no such scenario\n");
    end(UNEXPECTED);
}

void *memset(void *to, int byte, unsigned long n)
{
    volatile u8 *at = to;

    while (n--)
        *at++ = (u8)byte;
    return to;
}
