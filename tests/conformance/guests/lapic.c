/* The local APIC: identification, self-IPIs, priorities, timer in its modes, errors, x2APIC. */
#include "rt.h"

#define IA32_APIC_BASE 0x1b
#define IA32_TSC_DEADLINE 0x6e0
#define X2APIC_ID 0x802
#define X2APIC_SPURIOUS 0x80f
#define X2APIC_EOI 0x80b
#define X2APIC_ICR 0x830
#define X2APIC_SELF_IPI 0x83f

static void identity(void)
{
    u32 regs[4];

    cpuid(1, 0, regs);
    EXPECT(regs[3] >> 9 & 1, 1);
    EXPECT(regs[1] >> 24, 0);
    EXPECT(lapic_read(LAPIC_ID) >> 24, 0);
    EXPECT(lapic_read(LAPIC_VERSION) >> 4 & 0xf, 1);                        /* 0x1x: integrated */
    EXPECT(rdmsr(IA32_APIC_BASE) & 0xfffffffffffffb00, LAPIC_BASE | 0x900); /* enabled, BSP */
    EXPECT(lapic_read(LAPIC_SPURIOUS) >> 8 & 1, 0);
    EXPECT(lapic_read(LAPIC_LVT_TIMER) >> 16 & 1, 1);
    lapic_enable();
    EXPECT(lapic_read(LAPIC_SPURIOUS), 0x1ff);
}

static void self_ipi(void)
{
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x41); /* to self, fixed */
    EXPECT(lapic_read(LAPIC_IRR + 0x20) >> 1 & 1, 1);
    EXPECT(count[0x41], 0);
    open_interrupts();
    EXPECT(count[0x41], 1);
    EXPECT(lapic_read(LAPIC_IRR + 0x20), 0);
    EXPECT(lapic_read(LAPIC_ISR + 0x20), 0);
    lapic_write(LAPIC_ICR_HIGH, 0); /* physical destination 0 */
    lapic_write(LAPIC_ICR_LOW, 0x41);
    open_interrupts();
    EXPECT(count[0x41], 2);
    lapic_write(LAPIC_DFR, 0xffffffff); /* logical destination, flat model */
    lapic_write(LAPIC_LDR, 2u << 24);
    lapic_write(LAPIC_ICR_HIGH, 2u << 24);
    lapic_write(LAPIC_ICR_LOW, 0x841);
    open_interrupts();
    EXPECT(count[0x41], 3);
}

static volatile u32 nested, isr_seen, ppr_seen;

static void nesting_handler(struct frame *frame)
{
    count[frame->vector]++;
    isr_seen = lapic_read(LAPIC_ISR + 0x20);
    ppr_seen = lapic_read(LAPIC_PPR);
    /* A higher class interrupts this handler, one of the same class waits. */
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x52);
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x4e);
    open_interrupts();
    nested = count[0x52] << 8 | count[0x4e];
    lapic_write(LAPIC_EOI, 0);
}

static void priorities(void)
{
    handlers[0x48] = nesting_handler;
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x48);
    open_interrupts();
    EXPECT(isr_seen, 1 << 8);
    EXPECT(ppr_seen, 0x40);
    EXPECT(nested, 1 << 8);
    EXPECT(count[0x4e], 1);
    /* The task priority holds its own and lower classes back. */
    lapic_write(LAPIC_TPR, 0x40);
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x4e);
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x52);
    open_interrupts();
    EXPECT(count[0x4e], 1);
    EXPECT(count[0x52], 2);
#ifdef __x86_64__
    EXPECT(read_cr8(), 4);
    write_cr8(3);
    EXPECT(lapic_read(LAPIC_TPR), 0x30);
#else
    lapic_write(LAPIC_TPR, 0x30);
#endif
    open_interrupts();
    EXPECT(count[0x4e], 2);
    lapic_write(LAPIC_TPR, 0);
    EXPECT(lapic_read(LAPIC_PPR), 0);
}

/* What a write to the local APIC posts comes in through the first window there is, be it a few
 * instructions later. */
static void short_windows(void)
{
    u32 before = count[0x4f], *icr = (u32 *)(word)(LAPIC_BASE + LAPIC_ICR_LOW);

    handlers[0x4f] = counting_handler;
    asm volatile("movl $0x4004f, (%0); nop; sti; nop; cli" : : "r"(icr) : "memory");
    EXPECT(count[0x4f] - before, 1);
    asm volatile("movl $0x4004f, (%0); pushf; push %1; popf; nop; popf"
                 :
                 : "r"(icr), "r"((word)0x202)
                 : "memory", "cc");
    EXPECT(count[0x4f] - before, 2);
    for (unsigned i = 0; i < 5000; i++)
        asm volatile("movl $0x4004f, (%0); sti; nop; cli" : : "r"(icr) : "memory");
    EXPECT(count[0x4f] - before, 5002);
}

static void timer(void)
{
    u32 first;

    lapic_write(LAPIC_TIMER_DIVIDE, 0xb); /* by 1 */
    lapic_write(LAPIC_LVT_TIMER, 0x60);   /* one shot */
    lapic_write(LAPIC_TIMER_INITIAL, 1000000);
    sti_hlt_cli();
    EXPECT(count[0x60], 1);
    EXPECT(lapic_read(LAPIC_TIMER_CURRENT), 0);
    lapic_write(LAPIC_LVT_TIMER, 0x20000 | 0x61); /* periodic */
    lapic_write(LAPIC_TIMER_INITIAL, 2000000);
    while (count[0x61] < 3)
        sti_hlt_cli();
    first = lapic_read(LAPIC_TIMER_CURRENT);
    EXPECT(first <= 2000000, 1);
    lapic_write(LAPIC_TIMER_INITIAL, 0); /* stops it */
    first = count[0x61];
    EXPECT(lapic_read(LAPIC_TIMER_CURRENT), 0);
    open_interrupts();
    EXPECT(count[0x61] - first <= 1, 1);
    /* Masked: it counts, but does not interrupt. */
    lapic_write(LAPIC_LVT_TIMER, 0x10000 | 0x62);
    lapic_write(LAPIC_TIMER_INITIAL, 1000);
    WAIT_UNTIL(lapic_read(LAPIC_TIMER_CURRENT) == 0);
    open_interrupts();
    EXPECT(count[0x62], 0);
}

static void deadline_timer(void)
{
    u32 regs[4];
    u64 when;

    cpuid(1, 0, regs);
    if (!(regs[2] >> 24 & 1))
        return;
    lapic_write(LAPIC_LVT_TIMER, 0x40000 | 0x63);
    when = rdtsc() + 5000000;
    wrmsr(IA32_TSC_DEADLINE, when);
    EXPECT(rdmsr(IA32_TSC_DEADLINE) == when || rdmsr(IA32_TSC_DEADLINE) == 0, 1);
    sti_hlt_cli();
    EXPECT(count[0x63], 1);
    EXPECT(rdtsc() >= when, 1);
    EXPECT(rdmsr(IA32_TSC_DEADLINE), 0);
    /* A deadline in the past fires at once; 0 disarms. */
    wrmsr(IA32_TSC_DEADLINE, 1);
    WAIT_UNTIL(lapic_read(LAPIC_IRR + 0x30) >> 3 & 1);
    open_interrupts();
    EXPECT(count[0x63], 2);
    wrmsr(IA32_TSC_DEADLINE, rdtsc() + 100000000000);
    wrmsr(IA32_TSC_DEADLINE, 0);
    EXPECT(rdmsr(IA32_TSC_DEADLINE), 0);
    lapic_write(LAPIC_LVT_TIMER, 0x10000);
}

static void x2apic_handler(struct frame *frame)
{
    count[frame->vector]++;
    wrmsr(X2APIC_EOI, 0);
}

static void x2apic(void)
{
    u32 regs[4];

    cpuid(1, 0, regs);
    if (!(regs[2] >> 21 & 1))
        return;
    EXPECT(TRAPS("rdmsr", : : "c"(X2APIC_ID) : "eax", "edx"), 13); /* not in xAPIC mode */
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | 0x400);
    EXPECT(rdmsr(X2APIC_ID), 0);
    EXPECT(rdmsr(X2APIC_SPURIOUS), 0x1ff);
    handlers[0x70] = x2apic_handler;
    wrmsr(X2APIC_SELF_IPI, 0x70);
    open_interrupts();
    EXPECT(count[0x70], 1);
    wrmsr(X2APIC_ICR, 0x70); /* destination 0, physical: me */
    open_interrupts();
    EXPECT(count[0x70], 2);
    EXPECT(TRAPS("wrmsr", : : "c"(X2APIC_ID), "a"(1), "d"(0)), 13);
    /* Straight back to xAPIC is not allowed, by way of "off" it is. */
    EXPECT(TRAPS("wrmsr", : : "c"(IA32_APIC_BASE), "a"(LAPIC_BASE | 0x900), "d"(0)), 13);
    wrmsr(IA32_APIC_BASE, LAPIC_BASE | 0x100);
    cpuid(1, 0, regs);
    EXPECT(regs[3] >> 9 & 1, 0);
    wrmsr(IA32_APIC_BASE, LAPIC_BASE | 0x900);
    cpuid(1, 0, regs);
    EXPECT(regs[3] >> 9 & 1, 1);
}

void guest_main(void)
{
    for (unsigned i = 0x40; i < 0x70; i++)
        handlers[i] = counting_handler;
    pic_disable();
    identity();
    self_ipi();
    priorities();
    short_windows();
    timer();
    deadline_timer();
    x2apic();
}
