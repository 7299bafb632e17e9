/* The runtime of the 32- and 64-bit guests: ports, comparisons, traps, the local APIC. */
#ifndef CONFORMANCE_RT_H
#define CONFORMANCE_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../protocol.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uintptr_t word;

#ifdef __x86_64__
#define W "q" /* the instruction suffix of a word */
#else
#define W "l"
#endif

#define SELECTOR_USER32 0x1b
#define SELECTOR_USER_DATA 0x23
#define SELECTOR_USER64 0x2b
#define SELECTOR_TSS 0x30
#define SELECTOR_FREE 0x40 /* two more descriptors for tests */

struct frame {
#ifdef __x86_64__
    word r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
#else
    word es, ds, di, si, bp, unused_sp, bx, dx, cx, ax;
#endif
    word vector, error, ip, cs, flags, sp, ss; /* 32-bit: sp and ss only from user mode */
};

/* The test itself. */
void guest_main(void);

static inline void outb(u16 port, u8 value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(u16 port, u16 value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
    u8 value;

    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u16 inw(u16 port)
{
    u16 value;

    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u32 inl(u16 port)
{
    u32 value;

    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u64 rdmsr(u32 index)
{
    u32 low, high;

    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (u64)high << 32 | low;
}

static inline void wrmsr(u32 index, u64 value)
{
    asm volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
    u32 low, high;

    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

static inline void cpuid(u32 leaf, u32 subleaf, u32 regs[4])
{
    asm volatile("cpuid"
                 : "=a"(regs[0]), "=b"(regs[1]), "=c"(regs[2]), "=d"(regs[3])
                 : "a"(leaf), "c"(subleaf));
}

#define ACCESS_CONTROL_REGISTER(n)                                                                 \
    static inline word read_cr##n(void)                                                            \
    {                                                                                              \
        word value;                                                                                \
                                                                                                   \
        asm volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                             \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_cr##n(word value)                                                     \
    {                                                                                              \
        asm volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                 \
    }
ACCESS_CONTROL_REGISTER(0)
ACCESS_CONTROL_REGISTER(2)
ACCESS_CONTROL_REGISTER(3)
ACCESS_CONTROL_REGISTER(4)
#ifdef __x86_64__
ACCESS_CONTROL_REGISTER(8)
#endif

static inline void invlpg(const volatile void *address)
{
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

/* Lets interrupts in for a few instructions. The write to port 0x80 leaves the guest and comes
 * back: engines that look for interrupts only there pass too. */
static inline void open_interrupts(void)
{
    asm volatile("sti; nop; outb %%al, $0x80; nop; outb %%al, $0x80; nop; outb %%al, $0x80; cli"
                 :
                 :
                 : "memory");
}

static inline void sti_hlt_cli(void)
{
    asm volatile("sti; hlt; outb %%al, $0x80; nop; cli" : : : "memory");
}

/* Tells the host of one comparison; it knows the line when they differ. */
void expect(u32 line, u64 got, u64 want);
#define EXPECT(got, want) expect(__LINE__, (u64)(got), (u64)(want))

void console(const char *text);
void command(u32 number, u32 a, u32 b);

/* The last fault that TRAPS or user() met; vector -1 for none. */
struct fault {
    int vector;
    word error, cr2, ip, cs, flags;
};
#define NO_FAULT ((u64)-1)
extern volatile struct fault fault;
extern volatile word guard_ip;

/* Runs assembly text that may fault and gives the vector, or -1. The operands are asm's: outputs :
 * inputs. On a fault, execution goes on after the text. */
#define TRAPS(text, ...)                                                                           \
    ({                                                                                             \
        fault.vector = -1;                                                                         \
        asm volatile("mov" W " $9f, guard_ip\n\t" text "\n9:\tmov" W " $0, guard_ip" __VA_ARGS__); \
        fault.vector;                                                                              \
    })

/* Handlers by vector; without one, and with no guard, a trap ends the guest loudly. The handler
 * signals the end of interrupt itself. */
extern void (*volatile handlers[256])(struct frame *frame);

/* Runs code at privilege level 3 on a stack of its own until it traps: to vector 0x80 when it means
 * to end. Gives the vector; the fault is in `fault`. rdi or nothing is passed. */
int user(void (*code)(void));
int user_at(word cs, word ip, word flags);
void user_enter(word cs, word ip, word sp, word flags);
void user_return(void);
extern struct frame user_frame; /* registers at the trap that ended user() */
#define USER_EXIT asm volatile("int $0x80")

void set_gate(unsigned vector, unsigned dpl, unsigned ist);
void set_descriptor(unsigned selector, u64 value);
u64 get_descriptor(unsigned selector);
extern word entry_table[256];
extern u64 gdt[12];
extern u8 tss[104];

/* Local APIC, by MMIO. */
#define LAPIC_BASE 0xfee00000u
static inline u32 lapic_read(u32 reg)
{
    return *(volatile u32 *)(word)(LAPIC_BASE + reg);
}

static inline void lapic_write(u32 reg, u32 value)
{
    *(volatile u32 *)(word)(LAPIC_BASE + reg) = value;
}
#define LAPIC_ID 0x20
#define LAPIC_VERSION 0x30
#define LAPIC_TPR 0x80
#define LAPIC_PPR 0xa0
#define LAPIC_EOI 0xb0
#define LAPIC_LDR 0xd0
#define LAPIC_DFR 0xe0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_ISR 0x100
#define LAPIC_TMR 0x180
#define LAPIC_IRR 0x200
#define LAPIC_ESR 0x280
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_LVT_ERROR 0x370
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE 0x3e0

void lapic_enable(void);
void pic_disable(void);

/* A handler that counts the interrupts of each vector in `count` and signals their end to the local
 * APIC. */
void counting_handler(struct frame *frame);
extern volatile u32 count[256];

/* Waits until the condition holds, at most some seconds by the TSC: the host may be busy. */
#define WAIT_UNTIL(condition)                                                                      \
    ({                                                                                             \
        for (u64 start = rdtsc(); !(condition) && rdtsc() - start < 20000000000ull;)               \
            asm volatile("pause");                                                                 \
        !!(condition);                                                                             \
    })

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);

#endif
