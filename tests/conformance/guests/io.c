/* Port I/O of all sizes, single and string. 32- and 64-bit. */
#include "rt.h"

static void single(void)
{
    u32 eax;

    outl(PORT_REGS, 0x44332211);
    EXPECT(inl(PORT_LAST_ACCESS), 4 | 1 << 8 | 1 << 16);
    EXPECT(inl(PORT_LAST_ADDRESS), PORT_REGS);
    EXPECT(inb(PORT_REGS), 0x11);
    EXPECT(inl(PORT_LAST_ACCESS), 1 | 0 << 8 | 1 << 16);
    EXPECT(inb(PORT_REGS + 3), 0x44);
    EXPECT(inw(PORT_REGS + 1), 0x3322);
    EXPECT(inl(PORT_LAST_ACCESS), 2 | 0 << 8 | 1 << 16);
    EXPECT(inl(PORT_LAST_ADDRESS), PORT_REGS + 1);
    outw(PORT_REGS + 2, 0xbeef);
    outb(PORT_REGS, 0x99);
    EXPECT(inl(PORT_REGS), 0xbeef2299);

    /* IN of 1 and 2 bytes leaves the rest of EAX. */
    asm volatile("inb %%dx, %%al" : "=a"(eax) : "a"(0xaabbccdd), "d"(PORT_REGS));
    EXPECT(eax, 0xaabbcc99);
    asm volatile("inw %%dx, %%ax" : "=a"(eax) : "a"(0xaabbccdd), "d"(PORT_REGS));
    EXPECT(eax, 0xaabb2299);
#ifdef __x86_64__
    u64 rax;

    asm volatile("inl %%dx, %%eax" : "=a"(rax) : "a"(~0ull), "d"(PORT_REGS));
    EXPECT(rax, 0xbeef2299);
    asm volatile("inw %%dx, %%ax" : "=a"(rax) : "a"(~0ull), "d"(PORT_REGS));
    EXPECT(rax, 0xffffffffffff2299);
#endif
}

/* With an immediate port: port 0x80 is nobody's, but a BIOS delay everybody uses; the PIC's mask
 * register is somebody's. */
static void immediate(void)
{
    u8 mask;

    asm volatile("movb $0xa5, %%al; outb %%al, $0xa1; movb $0, %%al; inb $0xa1, %%al" : "=a"(mask));
    EXPECT(mask, 0xa5);
}

static u8 buffer[8192] __attribute__((aligned(4096)));

#define INS(suffix, to, n)                                                                         \
    ({                                                                                             \
        void *di_ = (to);                                                                          \
        word cx_ = (n);                                                                            \
        asm volatile("rep ins" suffix : "+D"(di_), "+c"(cx_) : "d"(PORT_STREAM) : "memory");       \
        EXPECT(cx_, 0);                                                                            \
        (word) di_ - (word)(to);                                                                   \
    })
#define OUTS(suffix, from, n)                                                                      \
    ({                                                                                             \
        const void *si_ = (from);                                                                  \
        word cx_ = (n);                                                                            \
        asm volatile("rep outs" suffix : "+S"(si_), "+c"(cx_) : "d"(PORT_STREAM) : "memory");      \
        EXPECT(cx_, 0);                                                                            \
        (word) si_ - (word)(from);                                                                 \
    })

static u32 bad_bytes(const u8 *from, u32 n, u8 first)
{
    u32 bad = 0;

    for (u32 i = 0; i < n; i++)
        bad += from[i] != (u8)(first + i);
    return bad;
}

static void string_in(void)
{
    outl(PORT_STREAM_RESET, 0);
    EXPECT(INS("b", buffer, 5), 5);
    EXPECT(bad_bytes(buffer, 5, 1), 0);
    EXPECT(buffer[5], 0);
    EXPECT(INS("w", buffer, 3), 6);
    EXPECT(bad_bytes(buffer, 6, 6), 0);
    EXPECT(INS("l", buffer, 2), 8);
    EXPECT(bad_bytes(buffer, 8, 12), 0);
    EXPECT(INS("b", buffer, 0), 0); /* a count of 0 does nothing */
    EXPECT(inb(PORT_STREAM), 20);
    /* Across a page boundary, with an element that lies in both pages. */
    outl(PORT_STREAM_RESET, 0);
    EXPECT(INS("l", buffer + 4096 - 10, 6), 24);
    EXPECT(bad_bytes(buffer + 4096 - 10, 24, 1), 0);
    /* More than an engine takes at once. */
    outl(PORT_STREAM_RESET, 0);
    EXPECT(INS("b", buffer, 6000), 6000);
    EXPECT(bad_bytes(buffer, 6000, 1), 0);
    /* Without REP; the other way. */
    void *di = buffer + 100;

    outl(PORT_STREAM_RESET, 0);
    asm volatile("insw" : "+D"(di) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)di, (word)buffer + 102);
    asm volatile("std; insw; cld" : "+D"(di) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)di, (word)buffer + 100);
    EXPECT(bad_bytes(buffer + 100, 4, 1), 0);
}

static void string_in_backwards(void)
{
    void *di = buffer + 100;
    word cx = 4;

    outl(PORT_STREAM_RESET, 0);
    asm volatile("std; rep insb; cld" : "+D"(di), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)di, (word)buffer + 96);
    EXPECT(cx, 0);
    EXPECT(*(u32 *)(buffer + 97), 0x01020304);
}

static u32 popped(u32 n, u8 first, u8 step)
{
    u32 bad = 0;

    for (u32 i = 0; i < n; i++)
        bad += inl(PORT_STREAM_POP) != (u8)(first + i * step);
    return bad;
}

static void string_out(void)
{
    for (u32 i = 0; i < sizeof buffer; i++)
        buffer[i] = i;
    outl(PORT_STREAM_RESET, 0);
    EXPECT(OUTS("b", buffer + 3, 5), 5);
    EXPECT(popped(5, 3, 1), 0);
    EXPECT(OUTS("w", buffer + 8, 2), 4);
    EXPECT(popped(4, 8, 1), 0);
    EXPECT(OUTS("l", buffer + 4096 - 6, 3), 12);
    EXPECT(popped(12, 250, 1), 0);
    EXPECT(inl(PORT_STREAM_POP), 0xffffffff);
    EXPECT(OUTS("l", buffer, 300), 1200);
    EXPECT(popped(1200, 0, 1), 0);
    EXPECT(inl(PORT_STREAM_POP), 0xffffffff);

    const void *si = buffer + 50;
    word cx = 3;

    asm volatile("std; rep outsb; cld" : "+S"(si), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)si, (word)buffer + 47);
    EXPECT(popped(3, 50, 0xff), 0);
    si = buffer + 7;
    asm volatile("outsl" : "+S"(si) : "d"(PORT_STREAM) : "memory");
    EXPECT((word)si, (word)buffer + 11);
    EXPECT(popped(4, 7, 1), 0);
}

#ifdef __x86_64__
/* With 32-bit addresses the counter and the index are 32 bits wide and zero-extended after. */
static void address_size(void)
{
    u64 si = 0xaaaaaaaa00000000 | (u64)buffer, cx = 0xbbbbbbbb00000002;

    outl(PORT_STREAM_RESET, 0);
    asm volatile("addr32 rep outsb" : "+S"(si), "+c"(cx) : "d"(PORT_STREAM) : "memory");
    EXPECT(cx, 0);
    EXPECT(si, (u64)buffer + 2);
    EXPECT(popped(2, 0, 1), 0);
}
#endif

void guest_main(void)
{
    single();
    immediate();
    string_in();
    string_in_backwards();
    string_out();
#ifdef __x86_64__
    address_size();
#endif
}
