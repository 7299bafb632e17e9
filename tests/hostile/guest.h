/* What a hostile guest is made of: traps that may be survived, ports, random numbers. */
#ifndef HOSTILE_GUEST_H
#define HOSTILE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
    u64 vector, error, ip, cs, flags, sp, ss;
};

#define PORT_EXIT 0xf4
#define SURVIVED 0x10            /* status 33 */
#define UNEXPECTED 0x11          /* status 35 */
#define FORBIDDEN 0x12           /* status 37 */
#define SCRATCH ((u8 *)0x800000) /* free RAM from here */
#define LAPIC 0xfee00000u
#define CPUS_MAX 4

extern volatile u64 guard_ip;
extern volatile u64 interrupts, traps;
extern volatile bool attempting;
extern u64 tables[], attempt_sp;
extern void (*cpu_task)(unsigned cpu); /* what the others do; the first is number 0 */

u64 attempt(u64 cs, u64 rip, u64 ss, u64 rsp, u64 flags, const u64 regs[15]);
void attempt_end(void);
u64 random(void);
void say(const char *text);
void start_cpus(unsigned count); /* until so many run, with this one */
void lapic_timer(u32 count);

/* Executes assembly text; a fault goes on behind it. Operands are asm's. */
#define TRY(text, ...)                                                                             \
    do {                                                                                           \
        asm volatile("movq $9f, guard_ip\n\t" text "\n9:\tmovq $0, guard_ip" __VA_ARGS__);         \
    } while (0)

static inline void outb(u16 port, u8 value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void lapic_write(u32 reg, u32 value)
{
    *(volatile u32 *)(u64)(LAPIC + reg) = value;
}

static inline void pause(void)
{
    asm volatile("pause");
}

/* An outcome that must not be: ends the guest with status 37. */
void forbidden(const char *name);

/* scenarios.c, and litmus.c */
struct scenario {
    const char *name;
    void (*run)(void);
};
extern const struct scenario scenarios[];

#endif
