/* 16-byte moves to and from MMIO: two accesses of 8 bytes, or one of 16 cut by the engine. */
#include "rt.h"

void guest_main(void)
{
    static u64 pair[2] __attribute__((aligned(16)));
    static const u64 data[2]
        __attribute__((aligned(16))) = {0x0102030405060708, 0x1112131415161718};
    u8 *page = (u8 *)(word)(MMIO_GPA + 0x300);

    write_cr0((read_cr0() & ~4ul) | 2);
    write_cr4(read_cr4() | 0x600);
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" : : "r"(data), "r"(page) : "memory");
    EXPECT(*(volatile u64 *)page, data[0]);
    EXPECT(*(volatile u64 *)(page + 8), data[1]);
    asm volatile("movdqu (%1), %%xmm1; movdqa %%xmm1, (%0)" : : "r"(pair), "r"(page) : "memory");
    EXPECT(pair[0], data[0]);
    EXPECT(pair[1], data[1]);
}
