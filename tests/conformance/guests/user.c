/* User mode: SYSCALL and SYSRET, SYSENTER and SYSEXIT, privileged instructions, compatibility mode,
 * SMEP, SMAP, UMIP, I/O permissions, alignment checks. */
#include "rt.h"

extern char syscall_entry[], sysenter_entry[], compatibility_code[], compatibility_end[];

volatile u64 seen[8];
u64 saved_rsp;

/* SYSCALL lands here at level 0 on the user's stack: notes what it sees and goes back by SYSRET. */
asm("syscall_entry:\n"
    "    movq %rcx, seen\n"
    "    movq %r11, seen + 8\n"
    "    pushf\n"
    "    popq seen + 16\n"
    "    mov %cs, %eax\n"
    "    mov %eax, seen + 24\n"
    "    mov %ss, %eax\n"
    "    mov %eax, seen + 32\n"
    "    movq seen, %rcx\n"
    "    orq $0x800, %r11\n" /* OF, to see RFLAGS come from R11 */
    "    sysretq\n"
    "sysenter_entry:\n"
    "    movq %rsp, seen\n"
    "    pushf\n"
    "    popq seen + 16\n"
    "    mov %cs, %eax\n"
    "    mov %eax, seen + 24\n"
    "    mov %ss, %eax\n"
    "    mov %eax, seen + 32\n"
    "    movq saved_rsp, %rcx\n"
    "    movq $2f, %rdx\n"
    "    sysexitq\n"
    "2:  mov %cs, %ecx\n"
    "    mov %ss, %edx\n"
    "    int $0x80\n");

static void user_syscall(void)
{
    asm volatile(
        "movq $0x123, %%rdi; stc; syscall; 8: seto %%bl; mov %%cs, %%r12d; mov %%ss, %%r13d;"
        "movq $8b, %%r14; int $0x80"
        :
        :
        : "rdi", "rbx", "rcx", "r11", "r12", "r13", "r14", "memory");
}

static void system_calls(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (u64)SELECTOR_CODE << 32 | (u64)SELECTOR_USER32 << 48);
    wrmsr(0xc0000082, (u64)syscall_entry);
    wrmsr(0xc0000084, 0x201); /* clears IF and CF */
    EXPECT(user(user_syscall), 0x80);
    EXPECT(seen[0], user_frame.r14); /* RCX: the return address */
    EXPECT(seen[1] & 1, 1);          /* R11: flags before */
    EXPECT(seen[2] & 1, 0);          /* masked */
    EXPECT((u32)seen[3], SELECTOR_CODE);
    EXPECT((u32)seen[4], SELECTOR_CODE + 8);
    EXPECT(user_frame.bx & 0xff, 1);
    EXPECT(user_frame.r12, SELECTOR_USER64);
    EXPECT(user_frame.r13, SELECTOR_USER_DATA);
    EXPECT(user_frame.di, 0x123);
    /* Without SCE: #UD. */
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
    EXPECT(user(user_syscall), 6);
}

static void user_sysenter(void)
{
    asm volatile("movq %%rsp, saved_rsp; sysenter; int3" : : : "memory", "rcx", "rdx", "rax");
}

static void sysenter(void)
{
    static u64 stack[64];
    u32 regs[4];

    cpuid(0, 0, regs);
    if (regs[1] == 0x68747541) /* AMD has no SYSENTER in long mode: #UD */
        return;
    wrmsr(0x174, SELECTOR_CODE); /* CS 0x08, SS 0x10; SYSEXIT: CS 0x08 + 32, SS 0x08 + 40 */
    wrmsr(0x175, (u64)&stack[60]);
    wrmsr(0x176, (u64)sysenter_entry);
    set_descriptor(SELECTOR_USER64, 0x00affb000000ffff);
    EXPECT(user(user_sysenter), 0x80);
    EXPECT(seen[0], (u64)&stack[60]);
    EXPECT((u32)seen[3], SELECTOR_CODE);
    EXPECT((u32)seen[4], SELECTOR_CODE + 8);
    EXPECT(seen[2] & 0x200, 0);
    EXPECT((u32)user_frame.cx, (SELECTOR_CODE + 32) | 3);
    EXPECT((u32)user_frame.dx, (SELECTOR_CODE + 40) | 3);
    wrmsr(0x174, 0);
    EXPECT(user(user_sysenter), 13); /* a null SYSENTER_CS */
}

#define USER_CODE(name, text)                                                                      \
    static void name(void)                                                                         \
    {                                                                                              \
        asm volatile(text "\n\tint $0x80"                                                          \
                     :                                                                             \
                     :                                                                             \
                     : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "memory");                        \
    }
USER_CODE(user_hlt, "hlt")
USER_CODE(user_cli, "cli")
USER_CODE(user_in, "inb $0x80, %%al")
USER_CODE(user_cr0, "mov %%cr0, %%rax")
USER_CODE(user_lgdt, "lgdt -8(%%rsp)")
USER_CODE(user_invlpg, "invlpg (%%rsp)")
USER_CODE(user_iret_up, "pushq $0x10; pushq %%rsp; pushq $2; pushq $8; pushq $0; iretq")
USER_CODE(user_int, "int $0x50")
USER_CODE(user_load_kernel_segment, "mov $0x10, %%eax; mov %%eax, %%ds")
USER_CODE(user_popf, "pushq $0x202; popf; pushf; popq %%rax")
USER_CODE(user_sgdt, "sgdt -16(%%rsp)")
USER_CODE(user_rdtsc, "rdtsc")
USER_CODE(user_ud, "ud2")

static void privileged(void)
{
    EXPECT(user(user_hlt), 13);
    EXPECT(fault.error, 0);
    EXPECT(user(user_cli), 13);
    EXPECT(user(user_in), 13);
    EXPECT(user(user_cr0), 13);
    EXPECT(user(user_lgdt), 13);
    EXPECT(user(user_invlpg), 13);
    EXPECT(user(user_iret_up), 13);
    EXPECT(user(user_int), 13);
    EXPECT(fault.error, 0x50 << 3 | 2); /* the gate, in the IDT */
    EXPECT(user(user_load_kernel_segment), 13);
    EXPECT(fault.error, SELECTOR_DATA);
    EXPECT(user(user_ud), 6);
    EXPECT(fault.cs, SELECTOR_USER64);
    EXPECT(user(user_popf), 0x80);
    EXPECT(user_frame.ax & 0x200, 0); /* IF stays */
    EXPECT(user(user_rdtsc), 0x80);
    write_cr4(read_cr4() | 4); /* TSD */
    EXPECT(user(user_rdtsc), 13);
    write_cr4(read_cr4() & ~4ul);
    /* IOPL 3 lets it. */
    EXPECT(user_at(SELECTOR_USER64, (word)user_in, 0x3002), 0x80);
    EXPECT(user_at(SELECTOR_USER64, (word)user_cli, 0x3002), 0x80);
}

static void io_permission_map(void)
{
    static u8 big[104 + 0x2000 + 1] __attribute__((aligned(16)));
    u64 before[2] = {get_descriptor(SELECTOR_TSS), get_descriptor(SELECTOR_TSS + 8)};
    u64 base = (u64)big;

    memcpy(big, tss, 104);
    memset(big + 104, 0xff, 0x2001);
    big[102] = 104;
    big[104 + 0x80 / 8] &= (u8)~1; /* port 0x80 */
    set_descriptor(SELECTOR_TSS, (sizeof big - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
                                     (base >> 24 & 0xff) << 56);
    asm volatile("ltr %w0" : : "r"(SELECTOR_TSS));
    EXPECT(user(user_in), 0x80);
    big[104 + 0x80 / 8] |= 1;
    EXPECT(user(user_in), 13);
    set_descriptor(SELECTOR_TSS, before[0] & ~(2ull << 40));
    asm volatile("ltr %w0" : : "r"(SELECTOR_TSS));
}

/* SMEP and SMAP: all pages here are user pages, so switch them on where the kernel's own are
 * not. */
static void supervisor_protection(void)
{
    volatile u64 *directory = (volatile u64 *)(word)(TABLES_GPA + 0x2000);
    u64 own = directory[0], value;
    u32 regs[4];

    cpuid(7, 0, regs);
    *(volatile u32 *)(word)FREE_GPA = 0xe3ff; /* jmp *%rbx */
    directory[0] = own & ~4ull;               /* the guest's own code and data: supervisor */
    write_cr3(read_cr3());
    if (regs[1] >> 7 & 1) {
        EXPECT(TRAPS("movq $8f, %%rbx; jmp *%0; 8:", : : "r"((u64)FREE_GPA) : "rbx"), NO_FAULT);
        write_cr4(read_cr4() | 1 << 20);
        EXPECT(TRAPS("movq $8f, %%rbx; jmp *%0; 8:", : : "r"((u64)FREE_GPA) : "rbx"), 14);
        EXPECT(fault.error, 0x11); /* P, I/D */
        write_cr4(read_cr4() & ~(1ul << 20));
    }
    if (regs[1] >> 20 & 1) {
        write_cr4(read_cr4() | 1 << 21);
        EXPECT(TRAPS("movq (%1), %0", : "=r"(value) : "r"((u64)FREE_GPA)), 14);
        EXPECT(fault.error, 1);
        EXPECT(TRAPS("movq %%rax, (%0)", : : "r"((u64)FREE_GPA) : "memory"), 14);
        EXPECT(fault.error, 3);
        EXPECT(TRAPS("stac; movq (%1), %0; clac", : "=r"(value) : "r"((u64)FREE_GPA)), NO_FAULT);
        EXPECT(TRAPS("movq (%1), %0", : "=r"(value) : "r"((u64)FREE_GPA)), 14);
        write_cr4(read_cr4() & ~(1ul << 21));
    }
    directory[0] = own;
    write_cr3(read_cr3());
}

static void user_mode_instruction_prevention(void)
{
    u32 regs[4];

    cpuid(7, 0, regs);
    if (!(regs[2] >> 2 & 1))
        return;
    EXPECT(user(user_sgdt), 0x80);
    write_cr4(read_cr4() | 1 << 11);
    EXPECT(user(user_sgdt), 13);
    write_cr4(read_cr4() & ~(1ul << 11));
}

static void user_misaligned(void)
{
    asm volatile("pushf; orq $0x40000, (%%rsp); popf; movl 1(%%rsp), %%eax; int $0x80"
                 :
                 :
                 : "rax", "memory", "cc");
}

static void alignment(void)
{
    EXPECT(user(user_misaligned), 0x80); /* CR0.AM = 0 */
    write_cr0(read_cr0() | 0x40000);
    EXPECT(user(user_misaligned), 17);
    EXPECT(fault.error, 0);
    write_cr0(read_cr0() & ~0x40000ul);
}

/* 32-bit code under a 64-bit kernel. */
asm("compatibility_code:\n"
    "    .code32\n"
    "    mov $0x12345678, %eax\n"
    "    inc %eax\n" /* one byte, a REX prefix in 64-bit mode */
    "    push %eax\n"
    "    pop %ebx\n"
    "    mov %cs, %ecx\n"
    "    int $0x80\n"
    "compatibility_end:\n"
    "    .code64\n");

static void compatibility_mode(void)
{
    EXPECT(user_at(SELECTOR_USER32, (word)compatibility_code, 2), 0x80);
    EXPECT(user_frame.ax, 0x12345679);
    EXPECT(user_frame.bx, 0x12345679);
    EXPECT(user_frame.cx, SELECTOR_USER32);
    EXPECT(user_frame.ip, (word)compatibility_end);
    EXPECT(user_frame.cs, SELECTOR_USER32);
}

void guest_main(void)
{
    system_calls();
    sysenter();
    privileged();
    io_permission_map();
    supervisor_protection();
    user_mode_instruction_prevention();
    alignment();
    compatibility_mode();
}
