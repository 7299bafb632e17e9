/* What a kernel uses if CPUID offers it: PCID and INVPCID, protection keys, FSGSBASE, the XSAVE
 * family, MONITOR and MWAIT, user waits, CMPXCHG16B, RDPID, RDSEED, CLFLUSHOPT. */
#include "rt.h"

static bool has(u32 leaf, u32 subleaf, u32 reg, u32 bit)
{
    u32 regs[4];

    cpuid(leaf, subleaf, regs);
    return regs[reg] >> bit & 1;
}

#define AREA 0x800000ull
#define ENTRY (((volatile u64 *)(word)(TABLES_GPA + 0x2000))[AREA >> 21])
#define SHOWN (*(volatile u32 *)(word)AREA)

static void invpcid(u64 type, u64 pcid, u64 address)
{
    struct {
        u64 pcid, address;
    } descriptor = {pcid, address};

    asm volatile("invpcid %1, %0" : : "r"(type), "m"(descriptor) : "memory");
}

static void pcid(void)
{
    u64 cr3 = read_cr3();

    if (!has(1, 0, 2, 17))
        return;
    EXPECT(TRAPS("mov %0, %%cr3; mov %1, %%cr4; mov %2, %%cr3",
                 :
                 : "r"(cr3 | 5), "r"(read_cr4() | 1 << 17), "r"(cr3)),
           13); /* PCIDE only with PCID 0 */
    write_cr3(cr3);
    write_cr4(read_cr4() | 1 << 17);
    *(volatile u32 *)(word)0x600000 = 6;
    *(volatile u32 *)(word)0xa00000 = 10;
    write_cr3(cr3 | 1);
    ENTRY = 0x600087;
    invpcid(2, 0, 0); /* all contexts, global entries too */
    EXPECT(SHOWN, 6);
    ENTRY = 0xa00087;
    write_cr3(cr3 | 2); /* a PCID that has seen nothing: flushed on load */
    EXPECT(SHOWN, 10);
    write_cr3(cr3 | 1); /* bit 63 clear: flushes PCID 1 */
    EXPECT(SHOWN, 10);
    ENTRY = 0x600087;
    invpcid(0, 1, AREA); /* one address of PCID 1 */
    EXPECT(SHOWN, 6);
    ENTRY = 0xa00087;
    invpcid(1, 1, 0); /* all of PCID 1 */
    EXPECT(SHOWN, 10);
    ENTRY = 0x600087;
    invpcid(3, 0, 0); /* all contexts but global entries */
    EXPECT(SHOWN, 6);
    EXPECT(read_cr3(), cr3 | 1);
    EXPECT(TRAPS("invpcid %1, %0", : : "r"(4ul), "m"(*(u64(*)[2])FREE_GPA)), 13);
    ENTRY = AREA | 0x87;
    write_cr3(cr3);
    write_cr4(read_cr4() & ~(1ul << 17));
}

static void user_read(void)
{
    asm volatile("movl (%0), %%eax; int $0x80" : : "r"(AREA) : "rax");
}

static void user_write(void)
{
    asm volatile("movl $1, (%0); int $0x80" : : "r"(AREA) : "memory");
}

static void write_pkru(u32 value)
{
    asm volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static void protection_keys(void)
{
    u32 value, high;

    if (!has(7, 0, 2, 3))
        return;
    EXPECT(TRAPS("rdpkru", : "=a"(value), "=d"(high) : "c"(0)), 6); /* CR4.PKE = 0 */
    write_cr4(read_cr4() | 1 << 22);
    EXPECT(has(7, 0, 2, 4), 1);       /* OSPKE */
    ENTRY = AREA | 0x87 | 3ull << 59; /* key 3 */
    write_cr3(read_cr3());
    write_pkru(0);
    EXPECT(user(user_read), 0x80);
    EXPECT(user(user_write), 0x80);
    write_pkru(2u << 6); /* writes off */
    asm volatile("rdpkru" : "=a"(value), "=d"(high) : "c"(0));
    EXPECT(value, 2u << 6);
    EXPECT(high, 0);
    EXPECT(user(user_read), 0x80);
    EXPECT(user(user_write), 14);
    EXPECT(fault.error, 0x27); /* PK, U, W, P */
    write_pkru(1u << 6);       /* all off */
    EXPECT(user(user_read), 14);
    EXPECT(fault.error, 0x25);
    EXPECT(fault.cr2, AREA);
    /* A user page is the supervisor's business too, for writes if WP is on. */
    EXPECT(TRAPS("movl %1, %0", : "=r"(value) : "m"(SHOWN)), 14);
    EXPECT(fault.error, 0x21);
    write_pkru(2u << 6);
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), NO_FAULT);
    write_cr0(read_cr0() | 0x10000);
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), 14);
    write_cr0(read_cr0() & ~0x10000ul);
    write_pkru(0);
    ENTRY = AREA | 0x87;
    write_cr3(read_cr3());
    write_cr4(read_cr4() & ~(1ul << 22));
}

#define PKRS 0x6e1

/* The same for supervisor pages, by an MSR. */
static void supervisor_keys(void)
{
    u32 value;

    if (!has(7, 0, 2, 31)) {
        EXPECT(TRAPS("rdmsr", : : "c"(PKRS) : "eax", "edx"), 13);
        return;
    }
    EXPECT(rdmsr(PKRS), 0);
    ENTRY = AREA | 0x83 | 3ull << 59; /* key 3 */
    write_cr3(read_cr3());
    wrmsr(PKRS, 1u << 6);
    EXPECT(TRAPS("movl %1, %0", : "=r"(value) : "m"(SHOWN)), NO_FAULT); /* CR4.PKS = 0 */
    write_cr4(read_cr4() | 1 << 24);
    EXPECT(TRAPS("movl %1, %0", : "=r"(value) : "m"(SHOWN)), 14);
    EXPECT(fault.error, 0x21); /* PK, P */
    EXPECT(fault.cr2, AREA);
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), 14);
    EXPECT(fault.error, 0x23);
    wrmsr(PKRS, 2u << 6); /* writes off, which WP is for */
    EXPECT(TRAPS("movl %1, %0", : "=r"(value) : "m"(SHOWN)), NO_FAULT);
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), NO_FAULT);
    write_cr0(read_cr0() | 0x10000);
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), 14);
    EXPECT(fault.error, 0x23);
    wrmsr(PKRS, ~(3u << 6) & ~3u); /* other keys' rights: key 0 is this code's own */
    EXPECT(TRAPS("movl $3, %0", : "=m"(SHOWN)), NO_FAULT);
    EXPECT(TRAPS("wrmsr", : : "c"(PKRS), "a"(0), "d"(1)), 13);
    /* A user page is none of its business. */
    wrmsr(PKRS, 1u << 6);
    ENTRY = AREA | 0x87 | 3ull << 59;
    write_cr3(read_cr3());
    EXPECT(TRAPS("movl %1, %0", : "=r"(value) : "m"(SHOWN)), NO_FAULT);
    EXPECT(user(user_write), 0x80);
    write_cr0(read_cr0() & ~0x10000ul);
    wrmsr(PKRS, 0);
    ENTRY = AREA | 0x87;
    write_cr3(read_cr3());
    write_cr4(read_cr4() & ~(1ul << 24));
}

static void segment_bases(void)
{
    static u64 slot = 0xfeed;
    u64 value, before = rdmsr(0xc0000101);

    if (!has(7, 0, 1, 0))
        return;
    EXPECT(TRAPS("rdfsbase %0", : "=r"(value)), 6); /* CR4.FSGSBASE = 0 */
    write_cr4(read_cr4() | 1 << 16);
    asm volatile("wrfsbase %0" : : "r"(&slot));
    asm volatile("movq %%fs:0, %0" : "=r"(value));
    EXPECT(value, 0xfeed);
    asm volatile("rdfsbase %0" : "=r"(value));
    EXPECT(value, (u64)&slot);
    asm volatile("wrgsbase %k0" : : "r"(0xdeadbeef12345678));
    asm volatile("rdgsbase %0" : "=r"(value));
    EXPECT(value, 0x12345678);
    EXPECT(rdmsr(0xc0000101), 0x12345678);
    EXPECT(TRAPS("wrgsbase %0", : : "r"(0x0100000000000000)), 13);
    wrmsr(0xc0000101, before);
    write_cr4(read_cr4() & ~(1ul << 16));
}

static u8 area[4096] __attribute__((aligned(64)));

static void xsave(void)
{
    u64 value, *header = (u64 *)(area + 512);
    u32 regs[4];

    if (!has(1, 0, 2, 26))
        return;
    write_cr0((read_cr0() & ~4ul) | 2);
    write_cr4(read_cr4() | 0x600 | 1 << 18);
    asm volatile("xsetbv" : : "a"(3), "d"(0), "c"(0));
    asm volatile("fninit; fld1; movq %0, %%xmm5" : : "r"(0x5555ull));
    memset(area, 0xcc, 576);
    memset(header, 0, 64);
    asm volatile("xsave64 %0" : "+m"(area) : "a"(3), "d"(0));
    EXPECT(header[0] & 3, 3);
    EXPECT(*(u64 *)(area + 160 + 5 * 16), 0x5555);
    EXPECT(*(u64 *)(area + 32), 0x8000000000000000); /* 1.0 */
    /* A component that XSTATE_BV does not name goes to its initial state. */
    header[0] = 1;
    asm volatile("xrstor64 %0" : : "m"(area), "a"(3), "d"(0));
    asm volatile("movq %%xmm5, %0" : "=r"(value));
    EXPECT(value, 0);
    header[0] = 3;
    asm volatile("xrstor64 %0" : : "m"(area), "a"(2), "d"(0));
    asm volatile("movq %%xmm5, %0" : "=r"(value));
    EXPECT(value, 0x5555);
    header[0] = 1ull << 62; /* not enabled */
    EXPECT(TRAPS("xrstor64 %0", : : "m"(area), "a"(3), "d"(0)), 13);
    header[0] = 3;
    header[2] = 1; /* reserved */
    EXPECT(TRAPS("xrstor64 %0", : : "m"(area), "a"(3), "d"(0)), 13);
    header[2] = 0;
    EXPECT(TRAPS("xsave64 16(%0)", : : "r"(area), "a"(3), "d"(0)), 13); /* alignment */
    cpuid(0xd, 1, regs);
    if (regs[0] & 1) {
        asm volatile("xsaveopt64 %0" : "+m"(area) : "a"(3), "d"(0));
        EXPECT(header[0] & 2, 2);
    }
    if (regs[0] & 2) {
        memset(header, 0, 64);
        asm volatile("xsavec64 %0" : "+m"(area) : "a"(3), "d"(0));
        EXPECT(header[1], 0x8000000000000003);
        EXPECT(header[0] & 2, 2);
    }
    if (regs[0] & 8) {
        EXPECT(rdmsr(0xda0), 0); /* XSS */
        memset(header, 0, 64);
        asm volatile("xsaves64 %0" : "+m"(area) : "a"(3), "d"(0));
        EXPECT(header[1], 0x8000000000000003);
        asm volatile("pxor %xmm5, %xmm5");
        asm volatile("xrstors64 %0" : : "m"(area), "a"(3), "d"(0));
        asm volatile("movq %%xmm5, %0" : "=r"(value));
        EXPECT(value, 0x5555);
        header[1] = 0; /* not compacted */
        EXPECT(TRAPS("xrstors64 %0", : : "m"(area), "a"(3), "d"(0)), 13);
    }
    if (regs[0] & 4) {
        u32 low, high;

        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
        EXPECT(low & ~3u, 0);
    }
    write_cr4(read_cr4() & ~(1ul << 18));
}

/* MWAIT ends by the store of another processor: here by an interrupt, or at once. */
static void monitor(void)
{
    static u32 line[16] __attribute__((aligned(64)));

    if (!has(1, 0, 2, 3))
        return;
    handlers[0x41] = counting_handler;
    lapic_enable();
    asm volatile("monitor" : : "a"(line), "c"(0), "d"(0));
    lapic_write(LAPIC_ICR_LOW, 0x40000 | 0x41);
    asm volatile("sti; mwait; outb %%al, $0x80; nop; cli" : : "a"(0), "c"(0));
    EXPECT(count[0x41], 1);
    EXPECT(TRAPS("monitor", : : "a"(line), "c"(1), "d"(0)), 13);
    wrmsr(0xc0000100, 1ull << 46); /* FS: what it names is not mapped */
    EXPECT(TRAPS(".byte 0x64; monitor", : : "a"(line), "c"(0), "d"(0)), 14);
    wrmsr(0xc0000100, 0);
}

#define UMONITOR_RAX ".byte 0xf3, 0x0f, 0xae, 0xf0"
#define UMWAIT_ECX ".byte 0xf2, 0x0f, 0xae, 0xf1"
#define TPAUSE_ECX ".byte 0x66, 0x0f, 0xae, 0xf1"

/* The waits may end at any time; what they do to flags and what they refuse is certain. */
static void user_wait(void)
{
    static u32 line[16] __attribute__((aligned(64)));
    const u64 no_address = 1ull << 62;
    u64 flags;

    if (!has(7, 0, 2, 5)) {
        EXPECT(TRAPS(TPAUSE_ECX, : : "a"(0), "d"(0), "c"(0)), 6);
        EXPECT(TRAPS(UMWAIT_ECX, : : "a"(0), "d"(0), "c"(0)), 6);
        EXPECT(TRAPS(UMONITOR_RAX, : : "a"(line)), 6);
        return;
    }
    EXPECT(TRAPS("wrmsr", : : "c"(0xe1), "a"(2), "d"(0)), 13);
    EXPECT(TRAPS("wrmsr", : : "c"(0xe1), "a"(0), "d"(1)), 13);
    wrmsr(0xe1, 0x10001);
    EXPECT(rdmsr(0xe1), 0x10001);
    wrmsr(0xe1, 0);
    asm volatile("stc; " TPAUSE_ECX "; pushf; pop %0"
                 : "=r"(flags)
                 : "a"(0), "d"(0), "c"(0)
                 : "cc");
    EXPECT(flags & 0x8d5, 0); /* the deadline is long over */
    asm volatile(UMONITOR_RAX "; stc; " UMWAIT_ECX "; pushf; pop %0"
                 : "=r"(flags)
                 : "a"(line), "d"(0), "c"(1)
                 : "cc");
    EXPECT(flags & 0x8d5, 0);
    EXPECT(TRAPS(TPAUSE_ECX, : : "a"(0), "d"(0), "c"(2)), 13);
    EXPECT(TRAPS(UMWAIT_ECX, : : "a"(0), "d"(0), "c"(1u << 31)), 13);
    if (sizeof(word) == 8)
        EXPECT(TRAPS(UMONITOR_RAX, : : "a"(no_address)), 13);
}

static void wide_exchange(void)
{
    static u64 pair[2] __attribute__((aligned(16))) = {1, 2};
    u64 low = 1, high = 2;
    u8 equal;

    if (!has(1, 0, 2, 13))
        return;
    asm volatile("lock cmpxchg16b %0; setz %1"
                 : "+m"(pair), "=q"(equal), "+a"(low), "+d"(high)
                 : "b"(3), "c"(4));
    EXPECT(equal, 1);
    EXPECT(pair[0], 3);
    EXPECT(pair[1], 4);
    asm volatile("lock cmpxchg16b %0; setz %1"
                 : "+m"(pair), "=q"(equal), "+a"(low), "+d"(high)
                 : "b"(5), "c"(6));
    EXPECT(equal, 0);
    EXPECT(low, 3);
    EXPECT(high, 4);
    EXPECT(TRAPS("cmpxchg16b 8(%0)", : : "r"(pair), "a"(0), "b"(0), "c"(0), "d"(0)), 13);
}

static void instructions_of_v3(void)
{
    u64 value = 0x1122334455667788, sum = ~0ull, swapped;
    u8 carry, overflow;

    if (has(1, 0, 2, 22)) {
        asm volatile("movbe %1, %0" : "=r"(swapped) : "m"(value));
        EXPECT(swapped, 0x8877665544332211);
        asm volatile("movbe %w1, %0" : "+m"(value) : "r"(0xabcd));
        EXPECT(value, 0x112233445566cdab);
    } else {
        EXPECT(TRAPS("movbe %0, %%eax", : : "m"(value) : "rax"), 6);
    }
    EXPECT(TRAPS(".byte 0x0f, 0x38, 0xf0, 0xc0", :), 6); /* MOVBE with two registers */
    if (has(7, 0, 1, 19)) {
        /* Two chains side by side: CF from the one, OF from the other. */
        asm volatile("xor %k3, %k3; stc; adcx %3, %0; adox %3, %0;"
                     "setc %1; seto %2"
                     : "+r"(sum), "=q"(carry), "=q"(overflow), "=&r"(swapped)
                     :
                     : "cc");
        EXPECT(sum, 0);
        EXPECT(carry, 1);
        EXPECT(overflow, 0);
        sum = ~0ull;
        asm volatile("mov $0x7f, %b1; add $1, %b1; clc; adox %3, %0; setc %1; seto %2"
                     : "+r"(sum), "=&q"(carry), "=&q"(overflow)
                     : "r"(0ull)
                     : "cc");
        EXPECT(sum, 0);
        EXPECT(carry, 0);
        EXPECT(overflow, 1);
    } else {
        EXPECT(TRAPS("adcx %%eax, %%eax", :), 6);
    }
    if (has(7, 0, 2, 27)) {
        asm volatile("movdiri %1, %0" : "=m"(value) : "r"(0x123456789abcdef0ull));
        EXPECT(value, 0x123456789abcdef0);
    } else {
        EXPECT(TRAPS("movdiri %%eax, %0", : "=m"(value)), 6);
    }
}

/* Memory that no operand names: the segment is still the prefix's. */
static void segment_of_xlat(void)
{
    static const u8 table[2] = {0x11, 0x22};
    u8 value = 1;

    wrmsr(0xc0000100, (word)table - 0x1000);
    asm volatile(".byte 0x64; xlatb" : "+a"(value) : "b"((word)0x1000), "m"(table));
    EXPECT(value, 0x22);
    wrmsr(0xc0000100, 0);
}

static void small_ones(void)
{
    static u8 line[64] __attribute__((aligned(64)));
    u64 value;
    u8 ok = 0;

    if (has(7, 0, 2, 22)) {
        wrmsr(0xc0000103, 0x1234);
        asm volatile("rdpid %0" : "=r"(value));
        EXPECT(value, 0x1234);
    }
    if (has(7, 0, 1, 18)) {
        for (u32 i = 0; i < 1000 && !ok; i++)
            asm volatile("rdseed %0; setc %1" : "=r"(value), "=q"(ok));
        EXPECT(ok, 1);
    }
    EXPECT(TRAPS("clflushopt %0", : "+m"(line)), has(7, 0, 1, 23) ? (int)NO_FAULT : 6);
    EXPECT(TRAPS("clwb %0", : "+m"(line)), has(7, 0, 1, 24) ? (int)NO_FAULT : 6);
    if (has(1, 0, 2, 23)) {
        asm volatile("popcnt %1, %0" : "=r"(value) : "r"(0xff00ff00ff00ff01));
        EXPECT(value, 33);
    } else {
        EXPECT(TRAPS("popcnt %%rax, %%rax", :), 6);
    }
}

void guest_main(void)
{
    pic_disable();
    pcid();
    protection_keys();
    supervisor_keys();
    segment_bases();
    xsave();
    monitor();
    user_wait();
    wide_exchange();
    segment_of_xlat();
    small_ones();
    instructions_of_v3();
}
