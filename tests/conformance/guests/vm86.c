/* Virtual-8086 mode: what needs IOPL 3, and the virtual interrupt flag of VME and PVI (SDM volume 3
 * chapter 21). */
#include "rt.h"

#define TSS_VME SELECTOR_FREE
#define NONE ((int)NO_FAULT)
#define IF 0x200u
#define TF 0x100u
#define IOPL3 0x3000u
#define VM 0x20000u
#define VIF 0x80000u
#define VIP 0x100000u
#define CR4_VME 1u
#define CR4_PVI 2u

/* The TSS that virtual-8086 mode runs under: the interrupt redirection map lies before the I/O
 * map. */
static struct {
    u8 fixed[104];
    u8 redirection[32];
    u8 io[18];
} __attribute__((packed, aligned(256))) vm_tss;
static u8 trap_stack[2048] __attribute__((aligned(16)));

/* Where and how the last excursion ended: the frame in virtual-8086 mode has four selectors
 * more. */
static struct frame trap;
static u32 trap_ds, trap_es;

void vm86_back(void);
void vm86_enter(u32 cs, u32 ip, u32 flags, u32 sp);
u32 vm86_sp;
asm("vm86_enter:\n"
    "    mov %esp, %eax\n"
    "    pusha\n"
    "    mov %esp, vm86_sp\n"
    "    push $0x5555\n" /* GS FS DS ES */
    "    push $0x4444\n"
    "    push $0x3333\n"
    "    push $0x2222\n"
    "    push $0x1000\n" /* SS: the stack at 10000h + SP */
    "    push 16(%eax)\n"
    "    push 12(%eax)\n"
    "    push 4(%eax)\n"
    "    push 8(%eax)\n"
    "    xor %eax, %eax\n"
    "    iret\n"
    "vm86_back:\n"
    "    mov $0x10, %eax\n" /* the handler's DS was null */
    "    mov %eax, %ds\n"
    "    mov vm86_sp, %esp\n"
    "    mov %eax, %es\n"
    "    mov %eax, %fs\n"
    "    mov %eax, %gs\n"
    "    popa\n"
    "    ret\n");

static void leave(struct frame *frame)
{
    trap = *frame;
    trap_es = (&frame->ss)[1];
    trap_ds = (&frame->ss)[2];
    frame->ip = (word)vm86_back;
    frame->cs = SELECTOR_CODE;
    frame->flags = 2;
}

/* The stack of virtual-8086 mode: one paragraph-aligned kilobyte within SS. */
static u8 stack[1024] __attribute__((aligned(16)));
#define STACK_SP ((word)stack + 1000 - 0x10000)
#define WORD_AT(sp) (*(volatile u16 *)(0x10000 + (u16)(sp)))

/* Runs code until it traps; the vector. */
static u32 run(const char *code, u32 flags)
{
    memset(&trap, 0, sizeof trap);
    vm86_enter((word)code >> 4, (word)code & 15, flags | VM | 2, STACK_SP);
    return trap.vector;
}

static bool at(const char *where)
{
    return trap.cs * 16 + trap.ip == (word)where;
}

extern char v_hlt[], v_pushf[], v_pushf_hlt[], v_pushfd[], v_popf[], v_popf_hlt[], v_cli[],
    v_cli_hlt[], v_sti[], v_sti_hlt[], v_int[], v_int_hlt[], v_iret[], v_iret_hlt[], v_handler[],
    v_iret_ip[], v_int3[], v_popfd[], v_in[], v_popf_tf[], v_int_prot[];
asm("    .code16\n"
    "v_hlt: hlt\n"
    "v_pushf: pushfw\n"
    "v_pushf_hlt: hlt\n"
    "v_pushfd: pushfl\n"
    "    hlt\n"
    "v_popf: push $0x0ed7\n" /* all arithmetic flags, DF, IF */
    "    popfw\n"
    "v_popf_hlt: hlt\n"
    "v_popf_tf: push $0x0102\n"
    "    popfw\n"
    "    hlt\n"
    "v_popfd: pushl $2\n"
    "    popfl\n"
    "    hlt\n"
    "v_cli: cli\n"
    "v_cli_hlt: hlt\n"
    "v_sti: sti\n"
    "v_sti_hlt: hlt\n"
    "v_int: int $0x60\n"
    "v_int_hlt: hlt\n"
    "v_int_prot: int $0x61\n"
    "    hlt\n"
    "v_int3: int3\n"
    "    hlt\n"
    "v_iret: push $0x0203\n" /* IF, CF */
    "    push %cs\n"
    "    .byte 0x68\n" /* push, of a word to be put right */
    "v_iret_ip: .word 0\n"
    "    iretw\n"
    "v_iret_hlt: hlt\n"
    "v_in: inb $0x80, %al\n"
    "    inb $0x81, %al\n"
    "    hlt\n"
    "v_handler: hlt\n"
    "    .code32\n");

static void segments(void)
{
    EXPECT(run(v_hlt, IOPL3), 13);
    EXPECT(at(v_hlt), 1);
    EXPECT(trap.error, 0);
    EXPECT(trap.ss, 0x1000);
    EXPECT((u16)trap_es, 0x2222);
    EXPECT((u16)trap_ds, 0x3333);
    EXPECT(trap.flags & VM, VM);
    EXPECT((u16)trap.ds, 0); /* the handler's start null */
}

/* IOPL 3: the flags are the program's own. */
static void with_iopl(void)
{
    EXPECT(run(v_pushf, IOPL3 | VIF), 13);
    EXPECT(at(v_pushf_hlt), 1);
    EXPECT(WORD_AT(STACK_SP - 2) & (IF | IOPL3), IOPL3);
    EXPECT(run(v_popf, IOPL3), 13);
    EXPECT(trap.flags & (IF | IOPL3 | VM | 0xcd5), IF | IOPL3 | VM | 0xcd5);
    EXPECT(run(v_cli, IOPL3 | IF), 13);
    EXPECT(at(v_cli_hlt), 1);
    EXPECT(trap.flags & IF, 0);
    EXPECT(run(v_sti, IOPL3), 13);
    EXPECT(trap.flags & IF, IF);
    EXPECT(run(v_pushfd, IOPL3 | IF), 13);
    EXPECT(at(v_pushfd), 0);
    EXPECT(WORD_AT(STACK_SP - 2), 0); /* VM is not seen */
    EXPECT(WORD_AT(STACK_SP - 4) & (IF | IOPL3), IF | IOPL3);
}

/* Below IOPL 3 and without VME all of it is #GP. */
static void without_iopl(void)
{
    static char *const codes[] = {v_pushf, v_cli, v_sti, v_int, v_pushfd};

    for (u32 i = 0; i < sizeof codes / sizeof *codes; i++) {
        EXPECT(run(codes[i], 0), 13);
        EXPECT(at(codes[i]), 1);
        EXPECT(trap.error, 0);
    }
    EXPECT(run(v_popf, 0), 13);
    EXPECT(trap.sp, STACK_SP - 2);
    EXPECT(run(v_iret, 0), 13);
    EXPECT(trap.sp, STACK_SP - 6);
    EXPECT(run(v_int3, 0), 3); /* INT3 is not sensitive to IOPL */
}

static void vme_flags(void)
{
    write_cr4(read_cr4() | CR4_VME);
    EXPECT(run(v_pushf, IF), 13);
    EXPECT(at(v_pushf_hlt), 1);
    EXPECT(WORD_AT(STACK_SP - 2) & (IF | IOPL3), IOPL3); /* VIF for IF, and IOPL seen as 3 */
    EXPECT(run(v_pushf, VIF), 13);
    EXPECT(WORD_AT(STACK_SP - 2) & (IF | IOPL3), IF | IOPL3);
    EXPECT(run(v_pushfd, VIF), 13);
    EXPECT(at(v_pushfd), 1); /* not the doubleword */
    EXPECT(run(v_popf, 0), 13);
    EXPECT(at(v_popf_hlt), 1);
    EXPECT(trap.flags & (IF | VIF | IOPL3 | VM | 0xcd5), VIF | VM | 0xcd5);
    EXPECT(run(v_popf, VIP), 13); /* would let a pending interrupt in */
    EXPECT(trap.sp, STACK_SP - 2);
    EXPECT(run(v_popf_tf, 0), 13);
    EXPECT(trap.sp, STACK_SP - 2);
    EXPECT(run(v_popfd, 0), 13);
    EXPECT(trap.sp, STACK_SP - 4);
    EXPECT(run(v_cli, IF | VIF), 13);
    EXPECT(at(v_cli_hlt), 1);
    EXPECT(trap.flags & (IF | VIF), IF);
    EXPECT(run(v_sti, 0), 13);
    EXPECT(at(v_sti_hlt), 1);
    EXPECT(trap.flags & (IF | VIF), VIF);
    EXPECT(run(v_sti, VIP), 13);
    EXPECT(at(v_sti), 1);
    /* IRET: as POPF, but first aim it. */
    *(volatile u16 *)v_iret_ip = (u16)(((word)v_iret & 15) + (v_iret_hlt - v_iret));
    EXPECT(run(v_iret, 0), 13);
    EXPECT(at(v_iret_hlt), 1);
    EXPECT(trap.flags & (IF | VIF | 1), VIF | 1);
    EXPECT(trap.sp, STACK_SP);
    EXPECT(run(v_iret, VIP), 13);
    EXPECT(trap.sp, STACK_SP - 6);
}

/* INT n to the program's own handler where the redirection map has a 0. */
static void vme_interrupts(void)
{
    *(volatile u32 *)(0x60 * 4) = (u32)((word)v_handler >> 4) << 16 | ((word)v_handler & 15);
    EXPECT(run(v_int, VIF | 1), 13);
    EXPECT(at(v_handler), 1);
    EXPECT(trap.flags & (VIF | IF | VM), VM); /* VIF is cleared */
    EXPECT(trap.sp, STACK_SP - 6);
    EXPECT(WORD_AT(STACK_SP - 2) & (IF | IOPL3 | 1), IF | IOPL3 | 1);
    EXPECT(WORD_AT(STACK_SP - 4), (word)v_int >> 4);
    EXPECT(WORD_AT(STACK_SP - 6), ((word)v_int & 15) + 2);
    EXPECT(run(v_int, IOPL3 | IF), 13);
    EXPECT(at(v_handler), 1);
    EXPECT(trap.flags & IF, 0); /* IF itself with IOPL 3 */
    EXPECT(WORD_AT(STACK_SP - 2) & (IF | IOPL3), IF | IOPL3);
    vm_tss.redirection[0x61 / 8] |= 1 << 0x61 % 8;
    EXPECT(run(v_int_prot, 0), 13);
    EXPECT(at(v_int_prot), 1);
    EXPECT(trap.error, 0);
    EXPECT(run(v_int_prot, IOPL3), 0x61); /* through the IDT's gate */
    set_gate(0x61, 0, 0);
    EXPECT(run(v_int_prot, IOPL3), 13);
    EXPECT(trap.error, 0x61 * 8 + 2);
    set_gate(0x61, 3, 0);
    write_cr4(read_cr4() & ~CR4_VME);
}

/* Ports are the I/O map's business whatever IOPL. */
static void ports(void)
{
    vm_tss.io[0x81 / 8] |= 2;
    EXPECT(run(v_in, IOPL3), 13);
    EXPECT(at(v_in + 2), 1);
    EXPECT(run(v_in, 0), 13);
    EXPECT(at(v_in + 2), 1);
}

static void user_flags(void)
{
    asm volatile("cli; pushf; pop %%eax; sti; pushf; pop %%ecx; int $0x80" : : : "eax", "ecx");
}

static void user_sti(void)
{
    asm volatile("sti; int $0x80");
}

/* Protected-mode virtual interrupts: CLI and STI alone, at CPL 3. */
static void pvi(void)
{
    handlers[13] = NULL;
    EXPECT(user(user_flags), 13);
    write_cr4(read_cr4() | CR4_PVI);
    EXPECT(user_at(SELECTOR_USER32, (word)user_flags, IF | VIF | 2), 0x80);
    EXPECT(user_frame.ax & (IF | VIF), IF);
    EXPECT(user_frame.cx & (IF | VIF), IF | VIF);
    EXPECT(user_at(SELECTOR_USER32, (word)user_sti, VIP | 2), 13);
    write_cr4(read_cr4() & ~CR4_PVI);
}

void guest_main(void)
{
    static const u8 vectors[] = {1, 3, 13, 0x61};
    u32 top = (word)(trap_stack + sizeof trap_stack), ss0 = SELECTOR_DATA;

    memcpy(vm_tss.fixed + 4, &top, 4);
    memcpy(vm_tss.fixed + 8, &ss0, 4);
    vm_tss.fixed[102] = sizeof vm_tss.fixed + sizeof vm_tss.redirection;
    vm_tss.io[17] = 0xff;
    set_descriptor(TSS_VME, (sizeof vm_tss - 1) | (u64)((word)&vm_tss & 0xffffff) << 16 |
                                (u64)0x89 << 40 | (u64)((word)&vm_tss >> 24) << 56);
    asm volatile("ltr %w0" : : "r"(TSS_VME));
    set_gate(3, 3, 0);
    set_gate(0x61, 3, 0);
    for (u32 i = 0; i < sizeof vectors; i++)
        handlers[vectors[i]] = leave;
    segments();
    with_iopl();
    without_iopl();
    vme_flags();
    vme_interrupts();
    ports();
    pvi();
}
