/* Paging in long mode: page faults with their error codes, A and D bits, WP, NX, reserved bits,
 * global pages and INVLPG, 4 KiB and 1 GiB pages. */
#include "rt.h"

#define P 1ull
#define RW 2ull
#define US 4ull
#define PWT 8ull
#define PCD 16ull
#define A 32ull
#define D 64ull
#define PS 128ull
#define G 256ull
#define NX (1ull << 63)

/* Error code bits: SDM volume 3, 4.7. */
#define E_P 1
#define E_WR 2
#define E_US 4
#define E_RSVD 8
#define E_ID 16

/* 4 KiB pages at AREA, through a page table of the test's own; AREA + n pages maps FREE_GPA + n. */
#define AREA 0x800000ull
static u64 table[512] __attribute__((aligned(4096)));
#define DIRECTORY ((volatile u64 *)(word)(TABLES_GPA + 0x2000))

static volatile u32 *page(unsigned n)
{
    return (volatile u32 *)(word)(AREA + n * 4096);
}

static volatile u32 *physical(unsigned n)
{
    return (volatile u32 *)(word)(FREE_GPA + n * 4096);
}

static void set(unsigned n, u64 bits)
{
    *(volatile u64 *)&table[n] = (FREE_GPA + n * 4096) | bits;
    invlpg(page(n));
}

static u64 get(unsigned n)
{
    return *(volatile u64 *)&table[n];
}

static int read_page(unsigned n)
{
    u32 value;

    return TRAPS("movl %1, %0", : "=r"(value) : "m"(*page(n)));
}

static int write_page(unsigned n)
{
    return TRAPS("movl $1, %0", : "=m"(*page(n)));
}

/* Jumps there; a jump back by RBX waits. */
#define JUMP_TO_RBX 0xe3ff
static int execute_page(unsigned n)
{
    return TRAPS("movq $8f, %%rbx; jmp *%0; 8:", : : "r"(page(n)) : "memory", "rbx");
}

#define FAULT(vector, want_error, n)                                                               \
    do {                                                                                           \
        EXPECT(vector, 14);                                                                        \
        EXPECT(fault.error, want_error);                                                           \
        EXPECT(fault.cr2, (u64)page(n));                                                           \
    } while (0)

static void not_present(void)
{
    set(1, 0);
    FAULT(read_page(1), 0, 1);
    FAULT(write_page(1), E_WR, 1);
    set(1, P | RW);
    EXPECT(read_page(1), NO_FAULT);
    EXPECT(get(1), (FREE_GPA + 4096) | P | RW | A);
    EXPECT(write_page(1), NO_FAULT);
    EXPECT(get(1), (FREE_GPA + 4096) | P | RW | A | D);
    EXPECT(*physical(1), 1);
}

static void write_protect(void)
{
    word cr0 = read_cr0();

    set(2, P);
    write_cr0(cr0 & ~0x10000ul);
    EXPECT(write_page(2), NO_FAULT); /* WP = 0: the supervisor may */
    EXPECT(get(2) & (A | D), A | D);
    write_cr0(cr0 | 0x10000ul);
    set(2, P);
    FAULT(write_page(2), E_P | E_WR, 2);
    EXPECT(get(2) & D, 0);
    EXPECT(read_page(2), NO_FAULT);
    write_cr0(cr0);
}

static void no_execute(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800); /* EFER.NXE */
    *physical(3) = JUMP_TO_RBX;
    set(3, P | RW | NX);
    EXPECT(read_page(3), NO_FAULT);
    FAULT(execute_page(3), E_P | E_ID, 3);
    EXPECT(fault.ip, (u64)page(3));
    set(3, P | RW);
    EXPECT(execute_page(3), NO_FAULT);
    set(3, 0);
    FAULT(execute_page(3), E_ID, 3);
    /* NX in the directory counts too. */
    set(3, P | RW);
    DIRECTORY[AREA >> 21] |= NX;
    write_cr3(read_cr3());
    FAULT(execute_page(3), E_P | E_ID, 3);
    DIRECTORY[AREA >> 21] &= ~NX;
    write_cr3(read_cr3());
    EXPECT(execute_page(3), NO_FAULT);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ull);
    set(3, P | RW | NX); /* reserved while NXE = 0 */
    FAULT(read_page(3), E_P | E_RSVD, 3);
}

static void reserved_bits(void)
{
    set(4, P | RW | 1ull << 51); /* beyond any guest's physical addresses here */
    FAULT(read_page(4), E_P | E_RSVD, 4);
    FAULT(write_page(4), E_P | E_RSVD | E_WR, 4);
    set(4, P | RW);
    DIRECTORY[5] |= 1 << 13; /* bits 20..13 of a 2 MiB page's entry */
    invlpg((void *)(word)(5 << 21));
    u32 value;

    EXPECT(TRAPS("movl (%1), %0", : "=r"(value) : "r"((word)5 << 21)), 14);
    EXPECT(fault.error, E_P | E_RSVD);
    DIRECTORY[5] &= ~(1ull << 13);
    invlpg((void *)(word)(5 << 21));
}

static void user_reads(void)
{
    asm volatile("movl (%0), %%eax; int $0x80" : : "r"(AREA + 5 * 4096) : "rax");
}

static void user_writes(void)
{
    asm volatile("movl $7, (%0); int $0x80" : : "r"(AREA + 5 * 4096) : "memory");
}

static void user_executes(void)
{
    asm volatile("call *%0; int $0x80" : : "r"(AREA + 5 * 4096) : "memory");
}

static void user_pages(void)
{
    set(5, P | RW | US);
    EXPECT(user(user_reads), 0x80);
    EXPECT(user(user_writes), 0x80);
    EXPECT(*physical(5), 7);
    set(5, P | US);
    EXPECT(user(user_reads), 0x80);
    FAULT(user(user_writes), E_P | E_US | E_WR, 5);
    set(5, P | RW);
    FAULT(user(user_reads), E_P | E_US, 5);
    FAULT(user(user_writes), E_P | E_US | E_WR, 5);
    EXPECT(read_page(5), NO_FAULT);
    set(5, 0);
    FAULT(user(user_reads), E_US, 5);
    FAULT(user(user_executes), E_US, 5); /* no I/D bit without NXE and SMEP */
    /* The supervisor bit of the directory wins over the page's. */
    set(5, P | RW | US);
    DIRECTORY[AREA >> 21] &= ~US;
    write_cr3(read_cr3());
    FAULT(user(user_reads), E_P | E_US, 5);
    DIRECTORY[AREA >> 21] |= US;
    DIRECTORY[AREA >> 21] &= ~RW;
    write_cr3(read_cr3());
    FAULT(user(user_writes), E_P | E_US | E_WR, 5);
    DIRECTORY[AREA >> 21] |= RW;
    write_cr3(read_cr3());
}

static void stale_and_global(void)
{
    word cr4 = read_cr4();

    *physical(6) = 0x66;
    *physical(7) = 0x77;
    set(6, P | RW);
    EXPECT(*page(6), 0x66);
    *(volatile u64 *)&table[6] = (FREE_GPA + 7 * 4096) | P | RW;
    write_cr3(read_cr3());
    EXPECT(*page(6), 0x77);
    /* Changing CR4.PGE drops global entries as well. */
    write_cr4(cr4 | 0x80);
    set(6, P | RW | G);
    EXPECT(*page(6), 0x66);
    *(volatile u64 *)&table[6] = (FREE_GPA + 7 * 4096) | P | RW | G;
    write_cr4(cr4);
    EXPECT(*page(6), 0x77);
}

/* An access that lies in two pages faults for the one that is not there, with its address. */
static void straddle(void)
{
    u32 value;

    set(8, P | RW);
    set(9, 0);
    EXPECT(TRAPS("movl (%1), %0", : "=r"(value) : "r"((u64)page(9) - 2)), 14);
    EXPECT(fault.cr2, (u64)page(9));
    EXPECT(fault.error, 0);
    *physical(8) = 0;
    physical(8)[1023] = 0x11223344;
    EXPECT(TRAPS("movl $-1, (%0)", : : "r"((u64)page(9) - 2) : "memory"), 14);
    EXPECT(fault.error, E_WR);
    EXPECT(physical(8)[1023], 0x11223344); /* nothing was written */
    set(9, P | RW);
    EXPECT(TRAPS("movl $-1, (%0)", : : "r"((u64)page(9) - 2) : "memory"), NO_FAULT);
    EXPECT(physical(8)[1023], 0xffff3344);
    EXPECT(*physical(9) & 0xffff, 0xffff);
}

/* REP MOVSB stops at the page that is not there with its registers at the byte that faults. */
static void string_fault(void)
{
    u64 si = (u64)page(8), di = (u64)page(9) - 5, cx = 20;

    set(8, P | RW);
    set(9, 0);
    EXPECT(TRAPS("rep movsb", : "+S"(si), "+D"(di), "+c"(cx) : : "memory"), 14);
    EXPECT(di, (u64)page(9));
    EXPECT(cx, 15);
    EXPECT(si, (u64)page(8) + 5);
}

static void huge_page(void)
{
    volatile u64 *directory_pointers = (volatile u64 *)(word)(TABLES_GPA + 0x1000);
    u32 regs[4];

    cpuid(0x80000001, 0, regs);
    if (!(regs[3] >> 26 & 1))
        return;
    directory_pointers[8] = 0 | P | RW | PS; /* 8 GiB on shows 0 on */
    *physical(10) = 0xabcd;
    EXPECT(*(volatile u32 *)(0x200000000 + FREE_GPA + 10 * 4096), 0xabcd);
    EXPECT(directory_pointers[8] & A, A);
    EXPECT(directory_pointers[8] & D, 0);
    directory_pointers[8] = 0;
    write_cr3(read_cr3());
}

static void not_canonical(void)
{
    u64 value;

    EXPECT(TRAPS("movq (%1), %0", : "=r"(value) : "r"(0x0000800000000000)), 13);
    EXPECT(fault.error, 0);
    EXPECT(TRAPS("movq (%1), %0", : "=r"(value) : "r"(0xffff7fffffffffff)), 13);
    /* Through RSP or RBP it is the stack's fault. */
    EXPECT(TRAPS("movq (%%rsp, %1), %0", : "=&r"(value) : "r"(0x0000800000000000)), 12);
    EXPECT(fault.error, 0);
}

void guest_main(void)
{
    for (unsigned i = 0; i < 512; i++)
        set(i, P | RW | US);
    DIRECTORY[AREA >> 21] = (u64)table | P | RW | US;
    write_cr3(read_cr3());
    not_present();
    write_protect();
    no_execute();
    reserved_bits();
    user_pages();
    stale_and_global();
    straddle();
    string_fault();
    huge_page();
    not_canonical();
}
