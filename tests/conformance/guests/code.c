/* Code that changes: by its own stores, ahead in the same block, through another mapping, by string
 * instructions, by DMA; and code that lies across pages. */
#include "rt.h"

#define AREA ((u8 *)(word)FREE_GPA)

typedef u32 (*function)(void);

/* mov $value, %eax; ret */
static void put_function(volatile u8 *at, u32 value)
{
    at[0] = 0xb8;
    for (unsigned i = 0; i < 4; i++)
        at[1 + i] = value >> 8 * i;
    at[5] = 0xc3;
}

static u32 call(const void *at)
{
    return ((function)(word)at)();
}

static void own_stores(void)
{
    for (u32 i = 0; i < 100; i++) {
        put_function(AREA, i);
        if (call(AREA) != i)
            EXPECT(i, 0xbad);
    }
    EXPECT(call(AREA), 99);
    /* Many calls, so that it is worth translating well, then a change of one byte. */
    for (u32 i = 0; i < 2000; i++)
        call(AREA);
    AREA[1] = 42;
    EXPECT(call(AREA), 42);
}

static void ahead(void)
{
    u32 value;

    /* The store changes the immediate of the very next instruction; a jump makes it seen. */
    for (u32 i = 0; i < 3; i++) {
        asm volatile("movl %1, 7f + 1\n"
                     "    jmp 7f\n"
                     "7:  movl $0x11111111, %%eax\n"
                     : "=&a"(value)
                     : "r"(0x22220000 + i)
                     : "memory");
        EXPECT(value, 0x22220000 + i);
    }
    /* And without the jump: the CPU notices (SDM volume 3, 12.6). */
    for (u32 i = 0; i < 3; i++) {
        asm volatile("movl %1, 7f + 1\n"
                     "7:  movl $0x11111111, %%eax\n"
                     : "=&a"(value)
                     : "r"(0x33330000 + i)
                     : "memory");
        EXPECT(value, 0x33330000 + i);
    }
}

/* In a loop, so that both the loop and what it changes are hot. */
static void in_a_loop(void)
{
    u32 sum = 0;

    for (u32 i = 0; i < 3000; i++) {
        AREA[0x101] = i;
        sum += call(AREA + 0x100);
    }
    u32 want = 0;

    for (u32 i = 0; i < 3000; i++)
        want += i & 0xff;
    EXPECT(sum, want);
}

static void across_pages(void)
{
    u8 *at = AREA + 4096 - 3;

    put_function(at, 0x01020304);
    EXPECT(call(at), 0x01020304);
    at[4] = 0x55; /* in the second page */
    EXPECT(call(at), 0x55020304);
    at[1] = 0x66; /* in the first */
    EXPECT(call(at), 0x55020366);
}

static void by_string(void)
{
    u8 other[8];
    const void *si = other;
    void *di = AREA + 0x200;
    word cx = 6;

    put_function(AREA + 0x200, 1);
    EXPECT(call(AREA + 0x200), 1);
    put_function(other, 2);
    asm volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    EXPECT(call(AREA + 0x200), 2);
    /* By port input. */
    outl(PORT_STREAM_RESET, 0);
    di = AREA + 0x201;
    cx = 4;
    asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT(call(AREA + 0x200), 0x04030201);
}

#ifdef __x86_64__
static void through_another_mapping(void)
{
    volatile u64 *directory = (volatile u64 *)(word)(TABLES_GPA + 0x2000);
    u8 *alias = (u8 *)(word)0x40000000 - 0x200000; /* below 1 GiB, nothing else is there */

    directory[511] = FREE_GPA | 0x87;
    write_cr3(read_cr3());
    put_function(AREA + 0x300, 7);
    EXPECT(call(AREA + 0x300), 7);
    EXPECT(call(alias + 0x300), 7);
    alias[0x301] = 8;
    EXPECT(call(AREA + 0x300), 8);
    AREA[0x301] = 9;
    EXPECT(call(alias + 0x300), 9);
    /* The same address, another page behind it. */
    put_function((u8 *)(word)0x600300, 10);
    directory[511] = 0x600000 | 0x87;
    invlpg(alias);
    EXPECT(call(alias + 0x300), 10);
    EXPECT(call(AREA + 0x300), 9);
    directory[511] = 511 << 21 | 0x87;
    write_cr3(read_cr3());
}

/* An instruction whose second half lies in a page that is not there faults with that page's
 * address, and RIP at its beginning. */
static void half_present(void)
{
    static u64 table[512] __attribute__((aligned(4096)));
    volatile u64 *directory = (volatile u64 *)(word)(TABLES_GPA + 0x2000);
    u64 address = 0x800000 + 4096 - 3;

    for (u64 i = 0; i < 512; i++)
        table[i] = (FREE_GPA + i * 4096) | 7;
    directory[4] = (u64)table | 7;
    write_cr3(read_cr3());
    put_function(AREA + 4096 - 3, 0x0a0b0c0d);
    EXPECT(call((void *)address), 0x0a0b0c0d);
    *(volatile u64 *)&table[1] = 0;
    invlpg((void *)0x801000);
    EXPECT(TRAPS("movq $8f, %%rbx; jmp *%0; 8:", : : "r"(address) : "rbx", "rax"), 14);
    EXPECT(fault.cr2, 0x801000);
    EXPECT(fault.ip, address);
    EXPECT(fault.error & ~16ul, 0);
    *(volatile u64 *)&table[1] = (FREE_GPA + 2 * 4096) | 7;
    invlpg((void *)0x801000);
    AREA[2 * 4096] = 0x0e;
    AREA[2 * 4096 + 1] = 0x0f;
    AREA[2 * 4096 + 2] = 0xc3;
    EXPECT(call((void *)address), 0x0f0e0c0d);
    directory[4] = 4 << 21 | 0x87;
    write_cr3(read_cr3());
}
#endif

void guest_main(void)
{
    own_stores();
    ahead();
    put_function(AREA + 0x100, 0);
    in_a_loop();
    across_pages();
    by_string();
#ifdef __x86_64__
    through_another_mapping();
    half_present();
#endif
}
