/* Memory-mapped I/O: every size and the instructions that drivers and compilers use. */
#include "rt.h"

#define M(offset) ((volatile u8 *)(word)(MMIO_GPA + (offset)))
#define M8(offset) (*(volatile u8 *)(word)(MMIO_GPA + (offset)))
#define M16(offset) (*(volatile u16 *)(word)(MMIO_GPA + (offset)))
#define M32(offset) (*(volatile u32 *)(word)(MMIO_GPA + (offset)))
#define M64(offset) (*(volatile u64 *)(word)(MMIO_GPA + (offset)))
#define PATTERN(i) ((u8)((i) ^ (i) >> 8 ^ 0xa5))

#define LAST(size, write, offset)                                                                  \
    do {                                                                                           \
        EXPECT(inl(PORT_LAST_ACCESS), (size) | (write) << 8 | 1 << 16);                            \
        EXPECT(inl(PORT_LAST_ADDRESS), offset);                                                    \
    } while (0)

static void reads(void)
{
    EXPECT(M8(3), PATTERN(3));
    LAST(1, 0, 3);
    EXPECT(M16(4), PATTERN(4) | PATTERN(5) << 8);
    LAST(2, 0, 4);
    EXPECT(M32(8), 0xaeafacad);
    LAST(4, 0, 8);
#ifdef __x86_64__
    EXPECT(M64(0x10), 0xb2b3b0b1b6b7b4b5);
    LAST(8, 0, 0x10);
#endif
    /* Unaligned inside the page. */
    EXPECT(M32(0x21),
           PATTERN(0x21) | PATTERN(0x22) << 8 | PATTERN(0x23) << 16 | (u32)PATTERN(0x24) << 24);
}

static void writes(void)
{
    M8(0x100) = 0x12;
    LAST(1, 1, 0x100);
    M16(0x102) = 0x3456;
    LAST(2, 1, 0x102);
    M32(0x104) = 0x789abcde;
    LAST(4, 1, 0x104);
    EXPECT(M32(0x100), 0x34560012 | PATTERN(0x101) << 8);
    EXPECT(M32(0x104), 0x789abcde);
#ifdef __x86_64__
    M64(0x108) = 0x1122334455667788;
    LAST(8, 1, 0x108);
    EXPECT(M64(0x108), 0x1122334455667788);
    /* An immediate is sign-extended. */
    asm volatile("movq $-2, %0" : "=m"(M64(0x110)));
    LAST(8, 1, 0x110);
    EXPECT(M64(0x110), ~1ull);
#endif
    asm volatile("movb $0x7f, %0" : "=m"(M8(0x120)));
    asm volatile("movl $0x01020304, %0" : "=m"(M32(0x124)));
    asm volatile("movw $0x0506, %0" : "=m"(M16(0x128)));
    EXPECT(M8(0x120), 0x7f);
    EXPECT(M32(0x124), 0x01020304);
    EXPECT(M16(0x128), 0x0506);
}

static void extensions(void)
{
    word value;

    M8(0x130) = 0x81;
    M16(0x132) = 0x8182;
    M32(0x134) = 0x81828384;
    asm volatile("movzb" W " %1, %0" : "=r"(value) : "m"(M8(0x130)));
    EXPECT(value, 0x81);
    LAST(1, 0, 0x130);
    asm volatile("movzw" W " %1, %0" : "=r"(value) : "m"(M16(0x132)));
    EXPECT(value, 0x8182);
    LAST(2, 0, 0x132);
    asm volatile("movsb" W " %1, %0" : "=r"(value) : "m"(M8(0x130)));
    EXPECT(value, (word)~0x7e);
    asm volatile("movsw" W " %1, %0" : "=r"(value) : "m"(M16(0x132)));
    EXPECT(value, (word)~0x7e7d);
#ifdef __x86_64__
    asm volatile("movslq %1, %0" : "=r"(value) : "m"(M32(0x134)));
    EXPECT(value, 0xffffffff81828384);
    value = ~0ull;
    asm volatile("movl %1, %k0" : "+r"(value) : "m"(M32(0x134)));
    EXPECT(value, 0x81828384);
    value = ~0ull;
    asm volatile("movw %1, %w0" : "+r"(value) : "m"(M16(0x132)));
    EXPECT(value, 0xffffffffffff8182);
#endif
}

static void read_modify_write(void)
{
    u32 value;
    u8 carry;

    M32(0x140) = 10;
    inl(PORT_ACCESSES);
    asm volatile("addl %1, %0" : "+m"(M32(0x140)) : "r"(32));
    EXPECT(inl(PORT_ACCESSES), 2);
    EXPECT(M32(0x140), 42);
    asm volatile("subl $2, %0" : "+m"(M32(0x140)));
    asm volatile("orl $0x80, %0" : "+m"(M32(0x140)));
    asm volatile("xorl $0xff, %0" : "+m"(M32(0x140)));
    asm volatile("andl $0x7f, %0" : "+m"(M32(0x140)));
    EXPECT(M32(0x140), 0x57);
    asm volatile("incl %0" : "+m"(M32(0x140)));
    asm volatile("decb %0" : "+m"(M8(0x140)));
    asm volatile("notl %0" : "+m"(M32(0x140)));
    asm volatile("negl %0" : "+m"(M32(0x140)));
    EXPECT(M32(0x140), 0x58);
    asm volatile("lock addl $1, %0" : "+m"(M32(0x140)));
    EXPECT(M32(0x140), 0x59);
    value = 0x1234;
    asm volatile("xchgl %1, %0" : "+m"(M32(0x140)), "+r"(value));
    EXPECT(value, 0x59);
    EXPECT(M32(0x140), 0x1234);
    asm volatile("btsl $0, %0; setc %1" : "+m"(M32(0x140)), "=r"(carry));
    EXPECT(carry, 0);
    asm volatile("btrl $2, %0; setc %1" : "+m"(M32(0x140)), "=r"(carry));
    EXPECT(carry, 1);
    EXPECT(M32(0x140), 0x1231);
    asm volatile("shll $4, %0" : "+m"(M32(0x140)));
    EXPECT(M32(0x140), 0x12310);
    asm volatile("lock cmpxchgl %2, %0; setz %1"
                 : "+m"(M32(0x140)), "=r"(carry)
                 : "r"(77), "a"(0x12310));
    EXPECT(carry, 1);
    EXPECT(M32(0x140), 77);
    value = 5;
    asm volatile("lock cmpxchgl %3, %0; setz %1"
                 : "+m"(M32(0x140)), "=r"(carry), "+a"(value)
                 : "r"(78));
    EXPECT(carry, 0);
    EXPECT(value, 77);
    value = 3;
    asm volatile("lock xaddl %1, %0" : "+m"(M32(0x140)), "+r"(value));
    EXPECT(value, 77);
    EXPECT(M32(0x140), 80);
}

static void only_reads(void)
{
    u8 flag;
    u32 value = 1;
    word pushed;

    M32(0x150) = 0x00ff00ff;
    inl(PORT_ACCESSES);
    asm volatile("cmpl $0x00ff00ff, %1; sete %0" : "=r"(flag) : "m"(M32(0x150)));
    EXPECT(flag, 1);
    asm volatile("testb $0x80, %1; setnz %0" : "=r"(flag) : "m"(M8(0x150)));
    EXPECT(flag, 1);
    asm volatile("btl $8, %1; setc %0" : "=r"(flag) : "m"(M32(0x150)));
    EXPECT(flag, 0);
    EXPECT(inl(PORT_ACCESSES), 3);
    asm volatile("addl %1, %0" : "+r"(value) : "m"(M32(0x150)));
    EXPECT(value, 0x00ff0100);
    asm volatile("push" W " %1; pop" W " %0" : "=r"(pushed) : "m"(M32(0x150)));
#ifdef __x86_64__
    EXPECT(pushed, M64(0x150));
#else
    EXPECT(pushed, 0x00ff00ff);
#endif
    asm volatile("push" W " $0x77; pop" W " %0" : "=m"(M32(0x158)));
    EXPECT(M32(0x158), 0x77);
}

static u8 buffer[256];

static void strings(void)
{
    const void *si = (const void *)M(0x200);
    void *di = buffer;
    word cx = 16, bad = 0;

    inl(PORT_ACCESSES);
    asm volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    EXPECT(inl(PORT_ACCESSES), 16);
    EXPECT((word)si, MMIO_GPA + 0x210);
    for (u32 i = 0; i < 16; i++)
        bad += buffer[i] != PATTERN(0x200 + i);
    EXPECT(bad, 0);
    si = buffer;
    di = (void *)M(0x220);
    cx = 4;
    asm volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    EXPECT(inl(PORT_ACCESSES), 4);
    EXPECT(M32(0x22c), *(u32 *)(buffer + 12));
    di = (void *)M(0x240);
    cx = 3;
    asm volatile("rep stosl" : "+D"(di), "+c"(cx) : "a"(0xdeadbeef) : "memory");
    EXPECT(M32(0x248), 0xdeadbeef);
    EXPECT(M8(0x24c), PATTERN(0x24c));
    si = (const void *)M(0x240);
    u32 eax;

    asm volatile("lodsl" : "=a"(eax), "+S"(si) : : "memory");
    EXPECT(eax, 0xdeadbeef);
    /* Device to device. */
    si = (const void *)M(0x240);
    di = (void *)M(0x260);
    cx = 2;
    asm volatile("rep movsl" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    EXPECT(M32(0x264), 0xdeadbeef);
}

/* String I/O with its memory operand outside memory: the port is accessed once for each element. */
static void string_ports(void)
{
    const void *si;
    void *di = (void *)M(0x300);
    word cx = 1100, bad = 0;

    outl(PORT_STREAM_RESET, 0);
    inl(PORT_ACCESSES);
    asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT(inl(PORT_ACCESSES), 2200);
    EXPECT(cx, 0);
    EXPECT((word)di, MMIO_GPA + 0x300 + 1100);
    for (u32 i = 0; i < 1100; i++)
        bad += M8(0x300 + i) != (u8)(1 + i);
    EXPECT(bad, 0);
    EXPECT(inb(PORT_STREAM), (u8)1101);
    /* From RAM into the hole, with an element that lies in both. */
    di = (void *)(word)(LOW_HOLE_GPA - 6);
    cx = 3;
    outl(PORT_STREAM_RESET, 0);
    asm volatile("rep insl" : "+D"(di), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT(*(volatile u16 *)(word)(LOW_HOLE_GPA - 2), 0x0605);
    EXPECT(M32(0), 0x0a090807);
    EXPECT(inb(PORT_STREAM), 13);
    M32(0) = PATTERN(0) | PATTERN(1) << 8 | PATTERN(2) << 16 | (u32)PATTERN(3) << 24;
    si = (const void *)M(0x300);
    cx = 3;
    asm volatile("rep outsw" : "+S"(si), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)si, MMIO_GPA + 0x306);
    for (u32 i = 0; i < 6; i++)
        EXPECT(inl(PORT_STREAM_POP), 1 + i);
    EXPECT(inl(PORT_STREAM_POP), 0xffffffff);
}

/* Where memory ends and the hole begins. */
static void border(void)
{
    volatile u8 *end = (volatile u8 *)(word)(LOW_HOLE_GPA - 2);

    end[0] = 0x11;
    end[1] = 0x22;
    EXPECT(*(volatile u32 *)end, 0x2211 | PATTERN(0) << 16 | (u32)PATTERN(1) << 24);
    *(volatile u32 *)end = 0xa4a56677;
    EXPECT(*(volatile u16 *)end, 0x6677);
    EXPECT(M8(0), 0xa5);
    EXPECT(M8(1), 0xa4);
}

static void read_only(void)
{
    volatile u32 *rom = (volatile u32 *)(word)(ROM_GPA + 0x80);

    EXPECT(*rom, 0x5a5a5a5a);
    inl(PORT_ACCESSES);
    *rom = 1;
    EXPECT(inl(PORT_ACCESSES), 1);
    EXPECT(*rom, 0x5a5a5a5a);
    EXPECT(inl(PORT_ACCESSES), 0);
}

#ifdef __x86_64__
static void high_registers(void)
{
    u64 value = 0x55;

    asm volatile("movq %1, %%r15; movl 0x134(%%r15), %%r14d; movl %%r14d, 0x138(%%r15); "
                 "movb %%r14b, 0x13c(%%r15); movq %%r14, %0"
                 : "=r"(value)
                 : "r"((u64)MMIO_GPA)
                 : "r14", "r15", "memory");
    EXPECT(value, 0x81828384);
    EXPECT(M32(0x138), 0x81828384);
    EXPECT(M8(0x13c), 0x84);
    /* The legacy high byte registers too. */
    asm volatile("movb $0x9a, %%ah; movb %%ah, %0" : "=m"(M8(0x13d)) : : "rax");
    EXPECT(M8(0x13d), 0x9a);
}
#endif

void guest_main(void)
{
    reads();
    writes();
    extensions();
    read_modify_write();
    only_reads();
    strings();
    string_ports();
    border();
    read_only();
#ifdef __x86_64__
    high_registers();
#endif
}
