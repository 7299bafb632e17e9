/* Model-specific registers: values that stick, values that are refused, registers that are not. */
#include "rt.h"

static int try_write(u32 index, u64 value)
{
    return TRAPS("wrmsr", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static int try_read(u32 index)
{
    u32 low, high;

    return TRAPS("rdmsr", : "=a"(low), "=d"(high) : "c"(index));
}

#define STICKS(index, value)                                                                       \
    do {                                                                                           \
        EXPECT(try_write(index, value), NO_FAULT);                                                 \
        EXPECT(rdmsr(index), value);                                                               \
    } while (0)
#define REFUSED(index, value)                                                                      \
    do {                                                                                           \
        u64 before = rdmsr(index);                                                                 \
        EXPECT(try_write(index, value), 13);                                                       \
        EXPECT(fault.error, 0);                                                                    \
        EXPECT(rdmsr(index), before);                                                              \
    } while (0)

#define HIGH_HALF 0xffff800012345678
#define NOT_CANONICAL 0x0100000000000000 /* with 57 bits of linear address, too */

static void syscall_family(void)
{
    STICKS(0xc0000081, 0x0018000800000000); /* STAR */
    STICKS(0xc0000082, HIGH_HALF);          /* LSTAR */
    STICKS(0xc0000083, HIGH_HALF + 8);      /* CSTAR */
    STICKS(0xc0000084, 0x47700);            /* SFMASK */
    REFUSED(0xc0000082, NOT_CANONICAL);
    STICKS(0x174, 8); /* SYSENTER_CS, ESP, EIP */
    STICKS(0x175, HIGH_HALF);
    STICKS(0x176, HIGH_HALF + 16);
}

static void bases(void)
{
    static u64 slot = 0x1122334455667788;
    u64 value, gs_before = rdmsr(0xc0000101);

    STICKS(0xc0000100, (u64)&slot); /* FS_BASE */
    asm volatile("movq %%fs:0, %0" : "=r"(value));
    EXPECT(value, slot);
    STICKS(0xc0000101, (u64)&slot - 16); /* GS_BASE */
    asm volatile("movq %%gs:16, %0" : "=r"(value));
    EXPECT(value, slot);
    STICKS(0xc0000102, HIGH_HALF); /* KERNEL_GS_BASE */
    asm volatile("swapgs");
    EXPECT(rdmsr(0xc0000101), HIGH_HALF);
    EXPECT(rdmsr(0xc0000102), (u64)&slot - 16);
    asm volatile("swapgs");
    EXPECT(rdmsr(0xc0000101), (u64)&slot - 16);
    REFUSED(0xc0000100, NOT_CANONICAL);
    REFUSED(0xc0000101, NOT_CANONICAL);
    REFUSED(0xc0000102, NOT_CANONICAL);
    /* A null selector keeps nothing of FS's base on Intel, and does on AMD; a real one loads 0. */
    asm volatile("mov %w0, %%fs" : : "r"(SELECTOR_DATA));
    EXPECT(rdmsr(0xc0000100), 0);
    wrmsr(0xc0000101, gs_before);
}

static void efer(void)
{
    u64 before = rdmsr(0xc0000080);

    EXPECT(before & 0x500, 0x500); /* LME, LMA */
    STICKS(0xc0000080, before | 1);
    STICKS(0xc0000080, before | 0x801);
    EXPECT(try_write(0xc0000080, before & ~0x400ull), NO_FAULT); /* LMA is not written */
    EXPECT(rdmsr(0xc0000080), before);
    REFUSED(0xc0000080, before & ~0x100ull); /* LME with paging on */
    REFUSED(0xc0000080, before | 0x10000000);
}

static void page_attributes(void)
{
    EXPECT(rdmsr(0x277), 0x0007040600070406); /* PAT as after reset */
    STICKS(0x277, 0x0007010600070106);
    REFUSED(0x277, 0x0007040600070402); /* type 2 is reserved */
    REFUSED(0x277, 0x0807040600070406);
    wrmsr(0x277, 0x0007040600070406);
}

static void time_stamp(void)
{
    u64 first = rdtsc(), second = rdtsc(), third;

    EXPECT(second > first, 1);
    third = rdmsr(0x10);
    EXPECT(third > second, 1);
    wrmsr(0x10, 1ull << 50);
    third = rdtsc();
    EXPECT(third >= 1ull << 50 && third < (1ull << 50) + (1ull << 40), 1);
    wrmsr(0x10, first);
    third = rdtsc();
    EXPECT(third >= first && third < 1ull << 50, 1);
}

static void tsc_adjust(void)
{
    u32 regs[4];
    u64 before;

    cpuid(7, 0, regs);
    if (!(regs[1] >> 1 & 1))
        return;
    wrmsr(0x3b, 0);
    before = rdtsc();
    wrmsr(0x3b, 1ull << 50);
    EXPECT(rdmsr(0x3b), 1ull << 50);
    EXPECT(rdtsc() - before >= 1ull << 50, 1);
    wrmsr(0x3b, 0);
    EXPECT(rdtsc() - before < 1ull << 50, 1);
}

static void rdtscp(void)
{
    u32 regs[4], low, high, aux;

    cpuid(0x80000001, 0, regs);
    if (!(regs[3] >> 27 & 1))
        return;
    STICKS(0xc0000103, 0x4321); /* TSC_AUX */
    asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
    EXPECT(aux, 0x4321);
}

static void machine_check_and_mtrr(void)
{
    u32 regs[4];

    cpuid(1, 0, regs);
    if (regs[3] >> 12 & 1) {
        u64 capabilities = rdmsr(0xfe);

        EXPECT((capabilities & 0xff) >= 1, 1);
        STICKS(0x2ff, 0xc06);
        REFUSED(0x2ff, 0xc02); /* type 2 is reserved */
        STICKS(0x200, 0x80000006);
        STICKS(0x250, 0x0606060606060606);
        wrmsr(0x2ff, 0);
    }
}

/* IA32_MISC_ENABLE, with what of it shows in CPUID. */
static void misc_enable(void)
{
    u64 before = rdmsr(0x1a0);
    u32 regs[4];

    if (before & 0x1800 && !(before & 0x400400000)) {
        cpuid(0x80000001, 0, regs);
        EXPECT(regs[3] >> 20 & 1, 1);
        if (try_write(0x1a0, before | 0x400400000) == (int)NO_FAULT) {
            cpuid(0x80000001, 0, regs);
            EXPECT(regs[3] >> 20 & 1, 0); /* execute-disable off */
            cpuid(0, 0, regs);
            EXPECT(regs[0], 2);
            wrmsr(0x1a0, before);
        }
        cpuid(0, 0, regs);
        EXPECT(regs[0] > 2, 1);
    }
    REFUSED(0x1a0, before | 1ull << 63);
}

static void unknown(void)
{
    static const u32 nobody[] = {0x2, 0x1fff, 0x12345678, 0x40001000, 0xc0001234};

    for (u32 i = 0; i < sizeof nobody / sizeof nobody[0]; i++) {
        EXPECT(try_read(nobody[i]), 13);
        EXPECT(fault.error, 0);
        EXPECT(try_write(nobody[i], 0), 13);
    }
}

static void user_rdmsr(void)
{
    asm volatile("rdmsr; int $0x80" : : "c"(0x10) : "eax", "edx");
}

static void privileged(void)
{
    EXPECT(user(user_rdmsr), 13);
}

void guest_main(void)
{
    syscall_family();
    bases();
    efer();
    page_attributes();
    time_stamp();
    tsc_adjust();
    rdtscp();
    machine_check_and_mtrr();
    misc_enable();
    unknown();
    privileged();
}
