/* Far transfers of 64-bit code and what they check: RET, IRET, JMP, CALL, call gates, SYSCALL while
 * stepping; LTR and LLDT; faults of event delivery. */
#include "rt.h"

#define NONE ((int)NO_FAULT)
#define FREE SELECTOR_FREE
#define WILD 0x0100000000000000 /* not canonical, with 57 bits either */
#define CODE64 0x00af9b000000ffff
#define CODE_BOTH 0x00ef9b000000ffff /* L and D */
#define CODE64_ABSENT 0x00af1b000000ffff
#define CONFORMING3 0x00afff000000ffff

u64 kept_rsp;

/* The word 9 in the text is where TRAPS goes on after a fault: with the stack as it was. */
#define ON_STACK(text) "mov %%rsp, kept_rsp;" text "; 9: mov kept_rsp, %%rsp"

static int far_return(u64 selector, u64 rip)
{
    return TRAPS(ON_STACK("push %0; push %1; lretq; 8:"),
                 :
                 : "r"(selector), "r"(rip)
                 : "memory", "cc");
}

static int interrupt_return(u64 cs, u64 rip, u64 ss)
{
    return TRAPS(ON_STACK("push %2; push %%rsp; pushf; push %0; push %1; iretq"),
                 :
                 : "r"(cs), "r"(rip), "r"(ss)
                 : "memory", "cc");
}

/* What RET and IRET ask of a code segment. */
static void return_checks(void)
{
    static const struct {
        u64 descriptor, selector;
        int vector;
        u64 error;
    } cases[] = {
        {0, 0, 13, 0},
        {0, 3, 13, 0},
        {0, 0x1000, 13, 0x1000},
        {0, SELECTOR_DATA, 13, SELECTOR_DATA},
        {0, SELECTOR_USER64, 13, SELECTOR_USER64 & ~3},      /* DPL 3, RPL 3: SS is wrong */
        {0, SELECTOR_USER64 & ~3, 13, SELECTOR_USER64 & ~3}, /* DPL 3, RPL 0 */
        {0, SELECTOR_CODE | 3, 13, SELECTOR_CODE},           /* DPL 0, RPL 3 */
        {0, SELECTOR_TSS, 13, SELECTOR_TSS},                 /* a system descriptor */
        {0, FREE | 4, 13, FREE | 4},                         /* no LDT */
        {CODE_BOTH, FREE, 13, FREE},
        {CODE64_ABSENT, FREE, 11, FREE},
        {CONFORMING3, FREE, 13, FREE}, /* conforming, but of less privilege */
    };

    for (u32 i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool outer = cases[i].selector == SELECTOR_USER64;

        set_descriptor(FREE, cases[i].descriptor);
        if (!outer) {
            EXPECT(far_return(cases[i].selector, 0x1234), cases[i].vector);
            EXPECT(fault.error, cases[i].error);
        }
        EXPECT(interrupt_return(cases[i].selector, 0x1234, SELECTOR_DATA), cases[i].vector);
        EXPECT(fault.error, outer ? SELECTOR_DATA : cases[i].error);
    }
    EXPECT(far_return(SELECTOR_CODE, WILD), 13);
    EXPECT(fault.error, 0);
    EXPECT(interrupt_return(SELECTOR_CODE, WILD, SELECTOR_DATA), 13);
    EXPECT(fault.error, 0);
    /* The stack segment. */
    EXPECT(interrupt_return(SELECTOR_USER64, 0x1234, 0), 13); /* null at level 3 */
    EXPECT(fault.error, 0);
    EXPECT(interrupt_return(SELECTOR_CODE, 0x1234, SELECTOR_USER_DATA), 13);
    EXPECT(fault.error, SELECTOR_USER_DATA & ~3);
    EXPECT(interrupt_return(SELECTOR_CODE, 0x1234, SELECTOR_CODE), 13);
    EXPECT(fault.error, SELECTOR_CODE);
    set_descriptor(FREE, 0x00cf13000000ffff);
    EXPECT(interrupt_return(SELECTOR_CODE, 0x1234, FREE), 12);
    EXPECT(fault.error, FREE);
    /* NT has no meaning in long mode but this. */
    EXPECT(TRAPS(ON_STACK("pushf; orq $0x4000, (%%rsp); popf; iretq"), : : : "memory", "cc"), 13);
    EXPECT(fault.error, 0);
    asm volatile("pushf; andq $~0x4000, (%%rsp); popf" : : : "memory", "cc");
}

static struct {
    u64 offset;
    u16 selector;
} __attribute__((packed)) far;

/* Assemblers differ about their names: of the 80-bit pointer that RAX points to. */
#define JUMP_FAR ".byte 0x48, 0xff, 0x28"
#define CALL_FAR ".byte 0x48, 0xff, 0x18"

static int jump(u16 selector, u64 offset)
{
    far.selector = selector;
    far.offset = offset;
    return TRAPS(JUMP_FAR, : : "a"(&far) : "memory");
}

static int call(u16 selector, u64 offset)
{
    far.selector = selector;
    far.offset = offset;
    word at = (word)&far;

    return TRAPS(ON_STACK(CALL_FAR), : "+a"(at) : : "memory", "rcx", "rdx");
}

static void set_call_gate(u64 offset, u16 selector, u8 access)
{
    set_descriptor(FREE, (offset & 0xffff) | (u64)selector << 16 | (u64)access << 40 |
                             (offset >> 16 & 0xffff) << 48);
    set_descriptor(FREE + 8, offset >> 32);
}

volatile u64 gate_cs, gate_ss, gate_rsp;
extern char gate_entry[], jump_target[];
asm("gate_entry:\n"
    "    mov %cs, %eax\n"
    "    mov %eax, gate_cs\n"
    "    mov %ss, %eax\n"
    "    mov %eax, gate_ss\n"
    "    mov %rsp, gate_rsp\n"
    "    lretq\n"
    "jump_target:\n"
    "    movq $0x9a7e, gate_cs\n"
    "    jmp *guard_ip\n");

static void jumps_and_calls(void)
{
    EXPECT(jump(SELECTOR_CODE, WILD), 13);
    EXPECT(fault.error, 0);
    EXPECT(call(SELECTOR_CODE, WILD), 13);
    EXPECT(fault.error, 0);
    EXPECT(jump(0, 0), 13);
    EXPECT(fault.error, 0);
    EXPECT(jump(SELECTOR_DATA, 0), 13);
    EXPECT(fault.error, SELECTOR_DATA);
    EXPECT(jump(SELECTOR_TSS, 0), 13); /* no tasks in long mode */
    EXPECT(fault.error, SELECTOR_TSS);
    EXPECT(call(SELECTOR_USER64, 0), 13);
    EXPECT(fault.error, SELECTOR_USER64 & ~3);
    set_descriptor(FREE, CODE_BOTH);
    EXPECT(jump(FREE, 0), 13);
    EXPECT(fault.error, FREE);
    gate_cs = 0;
    EXPECT(jump(SELECTOR_CODE, (word)jump_target), NONE);
    EXPECT(gate_cs, 0x9a7e);
    EXPECT(call(SELECTOR_CODE, (word)gate_entry), NONE);
    EXPECT(gate_cs, SELECTOR_CODE);
    /* Call gates are of 16 bytes. */
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0x8c);
    gate_cs = 0;
    EXPECT(call(FREE, 0), NONE);
    EXPECT(gate_cs, SELECTOR_CODE);
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0x84); /* there are none of 16 bits */
    EXPECT(call(FREE, 0), 13);
    EXPECT(fault.error, FREE);
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0x0c);
    EXPECT(call(FREE, 0), 11);
    EXPECT(fault.error, FREE);
    set_call_gate((word)gate_entry, 0, 0x8c);
    EXPECT(call(FREE, 0), 13);
    EXPECT(fault.error, 0);
    set_call_gate((word)gate_entry, SELECTOR_USER32 & ~3, 0x8c); /* not 64-bit code */
    EXPECT(call(FREE, 0), 13);
    EXPECT(fault.error, SELECTOR_USER32 & ~3);
    set_call_gate(WILD, SELECTOR_CODE, 0x8c);
    EXPECT(call(FREE, 0), 13);
    EXPECT(fault.error, 0);
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0x8c);
    set_descriptor(FREE + 8, 1ull << 40); /* a type in the upper half */
    EXPECT(call(FREE, 0), 13);
    EXPECT(fault.error, FREE);
}

static void user_gate(void)
{
    word at = (word)&far;

    asm volatile("mov %%rsp, %%rbx; " CALL_FAR "; mov %%cs, %%ecx; mov %%rsp, %%rdx; int $0x80"
                 : "+a"(at)
                 :
                 : "rbx", "rcx", "rdx", "memory");
}

static void user_cr1(void)
{
    asm volatile(".byte 0x0f, 0x20, 0xc8; int $0x80" : : : "rax");
}

static void user_rdpmc(void)
{
    asm volatile("xor %%ecx, %%ecx; rdpmc; int $0x80" : : : "rax", "rcx", "rdx");
}

/* Through a gate to level 0 and back by RET. */
static void to_inner(void)
{
    far.selector = FREE | 3;
    far.offset = 0x1234; /* does not count */
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0xec);
    EXPECT(user(user_gate), 0x80);
    EXPECT(gate_cs, SELECTOR_CODE);
    EXPECT(gate_ss, 0); /* null, of the new level */
    EXPECT(gate_rsp, *(u64 *)(void *)(tss + 4) - 32);
    EXPECT((u32)user_frame.cx, SELECTOR_USER64);
    EXPECT(user_frame.dx, user_frame.bx);
    set_call_gate((word)gate_entry, SELECTOR_CODE, 0x8c);
    EXPECT(user(user_gate), 13); /* the gate's own privilege */
    EXPECT(fault.error, FREE);
    EXPECT(user(user_cr1), 6); /* no such register: before privilege */
    EXPECT(user(user_rdpmc), 13);
    EXPECT(TRAPS("rdpmc", : : "c"(0x3fffffff) : "rax", "rdx"), 13);
}

static void system_segments(void)
{
    u64 rights = 0;
    u8 ok;

    /* A base that is not canonical. */
    set_descriptor(FREE, 0x0000890000000067);
    set_descriptor(FREE + 8, WILD >> 32);
    EXPECT(TRAPS("ltr %w0", : : "r"(FREE)), 13);
    EXPECT(fault.error, FREE);
    set_descriptor(FREE, 0x0000820000000067);
    EXPECT(TRAPS("lldt %w0", : : "r"(FREE)), 13);
    EXPECT(fault.error, FREE);
    EXPECT(TRAPS("ltr %w0", : : "r"(0)), 13);
    EXPECT(fault.error, 0);
    EXPECT(TRAPS("ltr %w0", : : "r"(SELECTOR_CODE)), 13);
    EXPECT(TRAPS("lldt %w0", : : "r"(SELECTOR_TSS)), 13);
    set_descriptor(FREE + 8, 0);
    set_descriptor(FREE, 0x0000020000000067);
    EXPECT(TRAPS("lldt %w0", : : "r"(FREE)), 11);
    set_descriptor(FREE, 0x0000090000000067);
    EXPECT(TRAPS("ltr %w0", : : "r"(FREE)), 11);
    set_descriptor(FREE, 0x0000810000000067); /* 16-bit TSS: not in long mode */
    EXPECT(TRAPS("ltr %w0", : : "r"(FREE)), 13);
    asm volatile("lar %w2, %k0; setz %1" : "+r"(rights), "=r"(ok) : "r"(FREE));
    EXPECT(ok, 0);
    set_descriptor(FREE, 0x0000820000000067);
    asm volatile("lar %w2, %k0; setz %1" : "+r"(rights), "=r"(ok) : "r"(FREE));
    EXPECT(ok, 1);
    EXPECT(rights, 0x8200);
    asm volatile("lsl %w2, %k0; setz %1" : "+r"(rights), "=r"(ok) : "r"(FREE));
    EXPECT(rights, 0x67);
    asm volatile("verr %w1; setz %0" : "=r"(ok) : "r"(FREE));
    EXPECT(ok, 0);
}

static struct gate {
    u64 low, high;
} * find_gate(unsigned vector)
{
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) idtr;

    asm volatile("sidt %0" : "=m"(idtr));
    return (struct gate *)idtr.base + vector;
}

/* Gates that are not good, and what comes of that while an exception is delivered. */
static void delivery(void)
{
    struct gate *gate = find_gate(0x44), before = *gate, *gp = find_gate(13), gp_before = *gp;

    gate->low &= ~(1ull << 47);
    EXPECT(TRAPS("int $0x44", :), 11);
    EXPECT(fault.error, 0x44 * 8 + 2);
    *gate = before;
    gate->low = (gate->low & ~(15ull << 40)) | 5ull << 40; /* a task gate */
    EXPECT(TRAPS("int $0x44", :), 13);
    EXPECT(fault.error, 0x44 * 8 + 2);
    *gate = before;
    gate->low = (gate->low & ~0xffff0000ull) | (u64)SELECTOR_DATA << 16;
    EXPECT(TRAPS("int $0x44", :), 13);
    EXPECT(fault.error, SELECTOR_DATA);
    gate->low = (gate->low & ~0xffff0000ull) | (u64)SELECTOR_USER32 << 16;
    EXPECT(TRAPS("int $0x44", :), 13);
    EXPECT(fault.error, SELECTOR_USER32 & ~3);
    *gate = before;
    gate->high = WILD >> 32;
    EXPECT(TRAPS("int $0x44", :), 13);
    EXPECT(fault.error, 0);
    *gate = before;
    /* An exception's: with EXT; two contributory ones are a double fault. */
    gate = find_gate(6);
    before = *gate;
    gate->low &= ~(1ull << 47);
    EXPECT(TRAPS("ud2", :), 11);
    EXPECT(fault.error, 6 * 8 + 3);
    *gate = before;
    gp->low &= ~(1ull << 47);
    EXPECT(TRAPS("mov %w0, %%ds", : : "r"(0x1000)), 8);
    EXPECT(fault.error, 0);
    *gp = gp_before;
}

/* SYSCALL that masks TF is not stepped; the instruction behind SYSRET is. */
extern char tf_entry[], tf_user[], tf_end[];
volatile u64 steps, step_cs, step_rip;
asm("tf_entry:\n"
    "    sysretq\n"
    "tf_user:\n"
    "    pushfq\n"
    "    orq $0x100, (%rsp)\n"
    "    popfq\n"
    "    syscall\n"
    "    nop\n"
    "tf_end:\n"
    "    nop\n"
    "    int $0x80\n");

static void step(struct frame *frame)
{
    if (!steps++) {
        step_cs = frame->cs;
        step_rip = frame->ip;
    }
    frame->flags &= ~0x100ull;
}

static void stepped_syscall(void)
{
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (u64)SELECTOR_CODE << 32 | (u64)SELECTOR_USER32 << 48);
    wrmsr(0xc0000082, (u64)tf_entry);
    wrmsr(0xc0000084, 0x100);
    handlers[1] = step;
    EXPECT(user_at(SELECTOR_USER64, (word)tf_user, 2), 0x80);
    EXPECT(steps, 1);
    EXPECT(step_cs, SELECTOR_USER64);
    EXPECT(step_rip, (word)tf_end);
    handlers[1] = NULL;
}

void guest_main(void)
{
    return_checks();
    jumps_and_calls();
    to_inner();
    system_segments();
    delivery();
    stepped_syscall();
}
