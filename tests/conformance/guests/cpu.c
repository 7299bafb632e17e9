/* What the CPU says of itself, and a few things that must agree with it. */
#include "rt.h"

static bool has(u32 leaf, u32 reg, u32 bit)
{
    u32 regs[4];

    cpuid(leaf, 0, regs);
    return regs[reg] >> bit & 1;
}

static void basics(void)
{
    u32 regs[4], again[4];

    cpuid(0, 0, regs);
    EXPECT(regs[0] >= 1, 1);
    cpuid(0x80000000, 0, regs);
    EXPECT(regs[0] >= 0x80000008, 1);
    cpuid(0x80000008, 0, regs);
    EXPECT((regs[0] & 0xff) >= 36, 1);
    EXPECT((regs[0] >> 8 & 0xff) == (has(7, 2, 16) ? 57 : 48), 1); /* LA57 */
    EXPECT(has(1, 3, 0), 1);                                       /* FPU */
    EXPECT(has(1, 3, 4), 1);                                       /* TSC */
    EXPECT(has(1, 3, 5), 1);                                       /* MSR */
    EXPECT(has(1, 3, 6), 1);                                       /* PAE */
    EXPECT(has(1, 3, 9), 1);                                       /* APIC */
    EXPECT(has(1, 3, 25), 1);                                      /* SSE */
    EXPECT(has(1, 3, 26), 1);                                      /* SSE2 */
    EXPECT(has(0x80000001, 3, 29), 1);                             /* long mode */
    EXPECT(has(0x80000001, 3, 20), 1);                             /* NX */
    EXPECT(has(0x80000001, 3, 11), 1);                             /* SYSCALL */
    cpuid(1, 0, regs);
    cpuid(1, 0, again);
    EXPECT(regs[0], again[0]);
    EXPECT(regs[3], again[3]);
}

/* OSXSAVE is CR4's bit, seen through CPUID. */
static void operating_system_bits(void)
{
    u32 low, high, regs[4];

    if (!has(1, 2, 26))
        return;
    EXPECT(has(1, 2, 27), 0);
    EXPECT(TRAPS("xgetbv", : "=a"(low), "=d"(high) : "c"(0)), 6);
    write_cr4(read_cr4() | 1 << 18);
    EXPECT(has(1, 2, 27), 1);
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    EXPECT(low, 1);
    EXPECT(high, 0);
    EXPECT(TRAPS("xsetbv", : : "a"(3), "d"(0), "c"(0)), NO_FAULT);
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    EXPECT(low, 3);
    EXPECT(TRAPS("xsetbv", : : "a"(2), "d"(0), "c"(0)), 13); /* x87 must be on */
    EXPECT(TRAPS("xsetbv", : : "a"(3), "d"(0), "c"(1)), 13);
    cpuid(0xd, 0, regs);
    EXPECT(regs[0] & 3, 3);
    EXPECT(regs[1] >= 576, 1);
    EXPECT(TRAPS("xsetbv", : : "a"(~regs[0] | 3), "d"(0), "c"(0)), 13);
    write_cr4(read_cr4() & ~(1ul << 18));
}

/* Control register bits of features that are not there are refused. */
static void control_register_bits(void)
{
    static const struct {
        u32 leaf, reg, bit, cr4_bit;
    } features[] = {
        {7, 1, 7, 20},  /* SMEP */
        {7, 1, 20, 21}, /* SMAP */
        {7, 2, 2, 11},  /* UMIP */
        {7, 1, 0, 16},  /* FSGSBASE */
        {7, 2, 3, 22},  /* PKU */
        {1, 2, 17, 17}, /* PCID */
        {1, 2, 26, 18}, /* XSAVE */
    };

    for (u32 i = 0; i < sizeof features / sizeof features[0]; i++) {
        bool there = has(features[i].leaf, features[i].reg, features[i].bit);
        word before = read_cr4(), bit = 1ul << features[i].cr4_bit;

        if (features[i].cr4_bit == 20 || features[i].cr4_bit == 21)
            continue; /* all pages here are the user's */
        EXPECT(TRAPS("mov %0, %%cr4", : : "r"(before | bit)), there ? NO_FAULT : 13);
        write_cr4(before);
    }
}

static void random_numbers(void)
{
    u64 first, second;
    u8 ok = 0;

    if (!has(1, 2, 30))
        return;
    for (u32 i = 0; i < 10 && !ok; i++)
        asm volatile("rdrand %0; setc %1" : "=r"(first), "=q"(ok));
    EXPECT(ok, 1);
    asm volatile("1: rdrand %0; jnc 1b" : "=r"(second));
    EXPECT(first != second, 1);
}

static void sse_state(void)
{
    static u8 area[512] __attribute__((aligned(16)));
    u64 value;

    write_cr0((read_cr0() & ~4ul) | 2);
    EXPECT(TRAPS("movaps %%xmm0, %%xmm1", :), 6); /* OSFXSR = 0 */
    write_cr4(read_cr4() | 0x600);
    asm volatile("fninit; fldpi; movq %0, %%xmm3" : : "r"(0x123456789abcdef0));
    asm volatile("fxsaveq %0" : "=m"(area));
    EXPECT(*(u16 *)area, 0x37f);                     /* FCW */
    EXPECT(*(u16 *)(area + 2) >> 11 & 7, 7);         /* TOP */
    EXPECT(area[4], 0x80);                           /* abridged tags */
    EXPECT(*(u64 *)(area + 32), 0xc90fdaa22168c235); /* pi's significand */
    EXPECT(*(u16 *)(area + 40), 0x4000);
    EXPECT(*(u32 *)(area + 24), 0x1f80); /* MXCSR */
    EXPECT(*(u64 *)(area + 160 + 3 * 16), 0x123456789abcdef0);
    *(u64 *)(area + 160 + 3 * 16) = 77;
    asm volatile("fxrstorq %0" : : "m"(area));
    asm volatile("movq %%xmm3, %0" : "=r"(value));
    EXPECT(value, 77);
    *(u32 *)(area + 24) = 0xffff0000; /* reserved bits of MXCSR */
    EXPECT(TRAPS("fxrstorq %0", : : "m"(area)), 13);
    EXPECT(TRAPS("movaps (%0), %%xmm1", : : "r"(area + 1)), 13); /* misaligned */
}

static void math_error(void)
{
    u32 mxcsr = 0x1f80 & ~(1 << 9); /* divide by zero unmasked */

    EXPECT(TRAPS("ldmxcsr %0", : : "m"(mxcsr)), NO_FAULT);
    EXPECT(TRAPS("xorps %%xmm0, %%xmm0; movd %0, %%xmm1; divss %%xmm0, %%xmm1",
                 :
                 : "r"(0x3f800000)),
           19);
    mxcsr = 0x1f80;
    asm volatile("ldmxcsr %0" : : "m"(mxcsr));
    write_cr0(read_cr0() | 0x20);     /* NE */
    static const u16 control = 0x37b; /* zero divide unmasked */

    asm volatile("fninit; fldcw %0; fld1; fldz" : : "m"(control));
    static u8 image[512] __attribute__((aligned(16)));
    word ip;

    EXPECT(TRAPS("mov $8f, %0; 8: fdivrp; fxsave %1; fwait", : "=r"(ip), "=m"(image)), 16);
    EXPECT(*(u32 *)(image + 8), (u32)ip);
    EXPECT(*(u16 *)(image + 6), 0x6f9); /* the opcode DE F9 */
    EXPECT(*(u16 *)(image + 2) & 0x8084, 0x8084);
    /* Loading state makes ES and B what flags and masks say. */
    image[0] |= 4;
    asm volatile("fxrstor %0; fxsave %0; fninit" : "+m"(image));
    EXPECT(*(u16 *)(image + 2) & 0x8084, 4);
    image[0] &= (u8)~4;
    EXPECT(TRAPS("fxrstor %0; fwait", : : "m"(image)), 16);
    asm volatile("fninit");
}

/* MXCSR rules how SSE rounds, and collects what happened. */
static void rounding(void)
{
    static const u32 controls[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80}; /* nearest, down, up, to 0 */
    static const u32 thirds[] = {0x3eaaaaab, 0x3eaaaaaa, 0x3eaaaaab, 0x3eaaaaaa};
    static const u32 halves[] = {2, 2, 3, 2}; /* of 2.5 */
    u32 value, mxcsr;

    for (u32 i = 0; i < 4; i++) {
        asm volatile("ldmxcsr %0" : : "m"(controls[i]));
        asm volatile("movd %1, %%xmm0; movd %2, %%xmm1; divss %%xmm1, %%xmm0; movd %%xmm0, %0"
                     : "=r"(value)
                     : "r"(0x3f800000), "r"(0x40400000));
        EXPECT(value, thirds[i]);
        asm volatile("movd %1, %%xmm0; cvtss2si %%xmm0, %0" : "=r"(value) : "r"(0x40200000));
        EXPECT(value, halves[i]);
        asm volatile("stmxcsr %0" : "=m"(mxcsr));
        EXPECT(mxcsr, controls[i] | 0x20); /* inexact */
    }
    asm volatile("ldmxcsr %0" : : "m"(controls[0]));
}

/* CR0.TS set and cleared between two runs of the same code. */
static void lazy_fpu(void)
{
    for (u32 i = 0; i < 3; i++) {
        EXPECT(TRAPS("movq %%cr0, %%rax; orq $8, %%rax; movq %%rax, %%cr0; movaps %%xmm0, %%xmm1",
                     :
                     :
                     : "rax"),
               7);
        EXPECT(TRAPS("clts; movaps %%xmm0, %%xmm1", :), NO_FAULT);
    }
}

static void ignored_hints(void)
{
    static u8 line[64] __attribute__((aligned(64)));

    asm volatile("clflush %0; prefetchw %0; prefetcht0 %0; pause; lfence; mfence; sfence"
                 : "+m"(line));
    asm volatile("wbinvd" : : : "memory");
    asm volatile("nopw 16(%0); nopl (%0)" : : "r"(line));
    EXPECT(TRAPS("invd", : : : "memory"), NO_FAULT);
}

void guest_main(void)
{
    basics();
    operating_system_bits();
    control_register_bits();
    random_numbers();
    sse_state();
    rounding();
    lazy_fpu();
    math_error();
    ignored_hints();
}
