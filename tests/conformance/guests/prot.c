/* 32-bit protected mode: segment bases, limits and types, LDT, call gates, 16-bit code, user mode,
 * SYSENTER, and paging with 4 KiB, 4 MiB and PAE tables. */
#include "rt.h"

#define DESCRIPTOR(base, limit, access, flags)                                                     \
    ((u64)((limit)&0xffff) | (u64)((base)&0xffffff) << 16 | (u64)(access) << 40 |                  \
     (u64)((limit) >> 16 & 0xf) << 48 | (u64)(flags) << 52 | (u64)((base) >> 24 & 0xff) << 56)

static u8 area[4096] __attribute__((aligned(4096)));

static void load_fs(u64 descriptor)
{
    set_descriptor(SELECTOR_FREE, descriptor);
    asm volatile("mov %w0, %%fs" : : "r"(SELECTOR_FREE));
}

static int read_fs(u32 offset)
{
    u32 value;

    return TRAPS("movl %%fs:(%1), %0", : "=r"(value) : "r"(offset));
}

static int write_fs(u32 offset)
{
    return TRAPS("movl $0x12345678, %%fs:(%0)", : : "r"(offset) : "memory");
}

#define NONE ((int)NO_FAULT)

static void data_segments(void)
{
    u32 value;

    load_fs(DESCRIPTOR((word)area, 0xff, 0x93, 4)); /* byte granular, 256 bytes */
    *(volatile u32 *)(area + 16) = 0xabcd;
    asm volatile("movl %%fs:16, %0" : "=r"(value));
    EXPECT(value, 0xabcd);
    EXPECT(read_fs(0xfc), NONE);
    EXPECT(read_fs(0xfd), 13);
    EXPECT(fault.error, 0);
    EXPECT(read_fs(0xffffffff), 13);
    load_fs(DESCRIPTOR((word)area, 0, 0x93, 0xc)); /* page granular: 4 KiB */
    EXPECT(read_fs(0xffc), NONE);
    EXPECT(read_fs(0x1000), 13);
    load_fs(DESCRIPTOR((word)area, 0xff, 0x91, 4)); /* read-only */
    EXPECT(read_fs(0), NONE);
    EXPECT(write_fs(0), 13);
    load_fs(DESCRIPTOR((word)area, 0xff, 0x97, 4)); /* expand-down: above the limit */
    EXPECT(read_fs(0x100), NONE);
    EXPECT(read_fs(0xfc), 13);
    EXPECT(read_fs(0xff), 13);
    EXPECT(read_fs(0xfffffffd), 13);                /* wraps */
    load_fs(DESCRIPTOR((word)area, 0xff, 0x9b, 4)); /* readable code */
    EXPECT(read_fs(0), NONE);
    EXPECT(write_fs(0), 13);
    set_descriptor(SELECTOR_FREE, DESCRIPTOR((word)area, 0xff, 0x99, 4)); /* execute-only */
    EXPECT(TRAPS("mov %w0, %%fs", : : "r"(SELECTOR_FREE)), 13);
    EXPECT(fault.error, SELECTOR_FREE);
    asm volatile("mov %w0, %%fs" : : "r"(0)); /* null loads, uses do not */
    EXPECT(read_fs(0), 13);
    EXPECT(fault.error, 0);
    EXPECT(TRAPS("movl (%%esp,%1), %0", : "=r"(value) : "r"(0)), NONE);
}

static void local_table(void)
{
    static u64 table[2] __attribute__((aligned(8)));
    u32 value;

    table[1] = DESCRIPTOR((word)area, 0xfff, 0x93, 4);
    set_descriptor(SELECTOR_FREE, DESCRIPTOR((word)table, sizeof table - 1, 0x82, 0));
    asm volatile("lldt %w0" : : "r"(SELECTOR_FREE));
    asm volatile("mov %w0, %%fs" : : "r"(8 | 4));
    asm volatile("movl %%fs:16, %0" : "=r"(value));
    EXPECT(value, 0xabcd);
    EXPECT(TRAPS("mov %w0, %%fs", : : "r"(16 | 4)), 13);
    EXPECT(fault.error, 16 | 4);
    asm volatile("lldt %w0" : : "r"(0));
    EXPECT(TRAPS("mov %w0, %%fs", : : "r"(8 | 4)), 13);
    asm volatile("mov %w0, %%fs" : : "r"(SELECTOR_DATA));
}

extern char gate_function[], code16[];
asm("gate_function:\n"
    "    mov $0x6a7e, %eax\n"
    "    lret\n"
    "code16:\n"
    "    .code16\n"
    "    mov $0xffff, %ax\n"
    "    inc %ax\n"
    "    mov $0x1234, %ax\n"
    "    lretl\n"
    "    .code32\n");

static void transfers(void)
{
    u32 value, entry = (word)gate_function;
    struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) far = {0, SELECTOR_FREE};

    /* A 32-bit call gate; the offset in the instruction does not count. */
    set_descriptor(SELECTOR_FREE, (entry & 0xffff) | SELECTOR_CODE << 16 | 0x8cull << 40 |
                                      (u64)(entry & 0xffff0000) << 32);
    asm volatile("lcall *%1" : "=a"(value) : "m"(far) : "memory");
    EXPECT(value, 0x6a7e);
    /* 16-bit code with a base. */
    set_descriptor(SELECTOR_FREE, DESCRIPTOR((word)code16, 0xffff, 0x9b, 0));
    asm volatile("lcall *%1" : "=a"(value) : "m"(far), "a"(0xaaaa0000) : "memory", "cc");
    EXPECT(value, 0xaaaa1234);
    far.selector = SELECTOR_DATA;
    EXPECT(TRAPS("ljmp *%0", : : "m"(far)), 13);
    EXPECT(fault.error, SELECTOR_DATA);
}

extern char short_code[], short_jump[], short_back[];
asm("short_code:\n"
    "    nop\n"
    "    nop\n"
    "    mov $1, %eax\n"
    "    nop\n"
    "short_jump:\n"
    "    jmp short_code\n");
static struct frame beyond;

static void beyond_handler(struct frame *frame)
{
    beyond = *frame;
    frame->cs = SELECTOR_CODE;
    frame->ip = (word)short_back;
}

/* Enters a code segment at short_code that ends behind its byte @limit; where #GP came. */
static __attribute__((noinline)) u32 run_short(u32 limit, u32 ip)
{
    static struct {
        u32 offset;
        u16 selector;
    } __attribute__((packed)) far; /* the stack pointer moves before it is used */

    set_descriptor(SELECTOR_FREE, DESCRIPTOR((word)short_code, limit, 0x9b, 4));
    far.offset = ip;
    far.selector = SELECTOR_FREE;
    beyond.ip = -1;
    asm volatile("push %%ebp; ljmp *%0\n"
                 "short_back: pop %%ebp"
                 :
                 : "m"(far)
                 : "eax", "ebx", "ecx", "edx", "esi", "edi", "memory");
    EXPECT(beyond.error, 0);
    return beyond.ip;
}

/* Code that runs past the limit of CS: #GP at the first instruction that is not all within it. */
static void code_limits(void)
{
    handlers[13] = beyond_handler;
    EXPECT(run_short(0, 0), 1);
    EXPECT(run_short(1, 0), 2);
    EXPECT(run_short(5, 0), 2);
    EXPECT(run_short(6, 0), 7);
    EXPECT(run_short(6, 2), 7);
    handlers[13] = NULL;
}

static void user_exit(void)
{
    asm volatile("mov %%cs, %%ebx; mov %%ss, %%ecx; int $0x80" : : : "ebx", "ecx");
}

static void user_cli(void)
{
    asm volatile("cli; int $0x80");
}

extern char sysenter_entry[];
u32 saved_esp;
asm("sysenter_entry:\n"
    "    mov %cs, %eax\n"
    "    mov %ss, %ebx\n"
    "    mov saved_esp, %ecx\n"
    "    mov $1f, %edx\n"
    "    sysexit\n"
    "1:  mov %cs, %ecx\n"
    "    mov %ss, %edx\n"
    "    int $0x80\n");

static void user_sysenter(void)
{
    asm volatile("mov %%esp, saved_esp; sysenter" : : : "memory");
}

static void user_mode(void)
{
    static u32 stack[64];

    EXPECT(user(user_exit), 0x80);
    EXPECT(user_frame.bx, SELECTOR_USER32);
    EXPECT(user_frame.cx, SELECTOR_USER_DATA);
    EXPECT(user_frame.ss, SELECTOR_USER_DATA);
    EXPECT(user(user_cli), 13);
    wrmsr(0x174, SELECTOR_CODE);
    wrmsr(0x175, (word)&stack[60]);
    wrmsr(0x176, (word)sysenter_entry);
    EXPECT(user(user_sysenter), 0x80);
    EXPECT(user_frame.ax, SELECTOR_CODE);
    EXPECT(user_frame.bx, SELECTOR_CODE + 8);
    EXPECT(user_frame.cx, (SELECTOR_CODE + 16) | 3);
    EXPECT(user_frame.dx, (SELECTOR_CODE + 24) | 3);
}

#define AREA 0x800000
static u32 directory[1024] __attribute__((aligned(4096)));
static u32 table[1024] __attribute__((aligned(4096)));
static u64 pae_pointers[4] __attribute__((aligned(32)));
static u64 pae_directories[4][512] __attribute__((aligned(4096)));
static u64 pae_table[512] __attribute__((aligned(4096)));

static int read_page(u32 n)
{
    u32 value;

    return TRAPS("movl %1, %0", : "=r"(value) : "m"(*(volatile u32 *)(AREA + n * 4096)));
}

static int write_page(u32 n)
{
    return TRAPS("movl $0x77, %0", : "=m"(*(volatile u32 *)(AREA + n * 4096)));
}

static void paging(void)
{
    for (u32 i = 0; i < 1024; i++) {
        directory[i] = i << 22 | 0x83; /* 4 MiB pages */
        table[i] = (FREE_GPA + i * 4096) | 3;
    }
    directory[AREA >> 22] = (word)table | 3;
    table[1] = 0;
    write_cr4(read_cr4() | 0x10); /* PSE */
    write_cr3((word)directory);
    write_cr0(read_cr0() | 0x80000000);
    *(volatile u32 *)(AREA + 8) = 0x4b;
    EXPECT(*(volatile u32 *)(FREE_GPA + 8), 0x4b);
    EXPECT(table[0] & 0x60, 0x60);
    EXPECT(directory[AREA >> 22] & 0x20, 0x20);
    EXPECT(read_page(1), 14);
    EXPECT(fault.error, 0);
    EXPECT(fault.cr2, AREA + 4096);
    EXPECT(write_page(1), 14);
    EXPECT(fault.error, 2);
    table[2] &= ~2u;
    invlpg((void *)(AREA + 2 * 4096));
    write_cr0(read_cr0() | 0x10000);
    EXPECT(write_page(2), 14);
    EXPECT(fault.error, 3);
    write_cr0(read_cr0() & ~0x10000u);
    EXPECT(write_page(2), NONE);
    write_cr0(read_cr0() & ~0x80000000);
}

static bool is_intel(void)
{
    u32 regs[4];

    cpuid(0, 0, regs);
    return regs[1] == 0x756e6547;
}

static void pae_paging(void)
{
    for (u32 i = 0; i < 4; i++) {
        pae_pointers[i] = (word)pae_directories[i] | 1;
        for (u32 k = 0; k < 512; k++)
            pae_directories[i][k] = (u64)(i << 30 | k << 21) | 0x83;
    }
    for (u32 i = 0; i < 512; i++)
        pae_table[i] = (FREE_GPA + i * 4096) | 3;
    pae_directories[0][AREA >> 21] = (word)pae_table | 3;
    pae_table[1] = 0;
    pae_table[3] |= 1ull << 63;
    write_cr4(read_cr4() | 0x20); /* PAE */
    write_cr3((word)pae_pointers);
    write_cr0(read_cr0() | 0x80000000);
    *(volatile u32 *)(AREA + 12) = 0x5c;
    EXPECT(*(volatile u32 *)(FREE_GPA + 12), 0x5c);
    EXPECT(pae_table[0] & 0x60, 0x60);
    EXPECT(read_page(1), 14);
    EXPECT(fault.error, 0);
    EXPECT(read_page(3), 14); /* NX is reserved while EFER.NXE = 0 */
    EXPECT(fault.error, 9);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    write_cr3((word)pae_pointers);
    EXPECT(read_page(3), NONE);
    if (is_intel()) {
        /* The pointers are read when CR3 is written, not before each walk. */
        pae_pointers[3] = 0;
        EXPECT(TRAPS("movl %0, %%eax", : : "m"(*(volatile u32 *)LAPIC_BASE) : "eax"), NONE);
        /* Reserved bits in a pointer make the load of CR3 fail. */
        pae_pointers[3] = (word)pae_directories[3] | 1 | 0x1e0;
        EXPECT(TRAPS("mov %0, %%cr3", : : "r"((word)pae_pointers)), 13);
        pae_pointers[3] = (word)pae_directories[3] | 1;
    }
    write_cr0(read_cr0() & ~0x80000000);
}

void guest_main(void)
{
    data_segments();
    local_table();
    transfers();
    code_limits();
    paging();
    pae_paging();
    user_mode();
}
