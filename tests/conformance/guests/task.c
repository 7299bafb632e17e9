/* Hardware task switches: CALL, JMP, IRET and task gates, with 32- and 16-bit TSSs, virtual-8086
 * tasks, CR3, and the checks on the way (SDM volume 3 chapter 8). */
#include "rt.h"

#define TSS_A SELECTOR_FREE
#define TSS_B (SELECTOR_FREE + 8)
#define GATE (SELECTOR_FREE + 16)
#define LDT (SELECTOR_FREE + 24)
#define NONE ((int)NO_FAULT)
#define NT 0x4000u

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    u32 ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, fs, gs, ldt;
    u16 trap, io_map;
};

struct tss16 {
    u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss,
        ds, ldt;
};

static struct tss32 task_a __attribute__((aligned(128)));
static struct tss16 task_b __attribute__((aligned(64)));
static u32 stack_a[256], stack_b[256];
#define MAIN_TSS ((volatile struct tss32 *)(void *)tss)

static u64 system_descriptor(u32 base, u32 limit, u8 access)
{
    return limit | (u64)(base & 0xffffff) << 16 | (u64)access << 40 | (u64)(base >> 24) << 56;
}

static unsigned type_of(unsigned selector)
{
    return get_descriptor(selector) >> 40 & 31;
}

static void make_a(void (*entry)(void))
{
    memset(&task_a, 0, sizeof task_a);
    task_a.eip = (word)entry;
    task_a.eflags = 2;
    task_a.sp = (word)&stack_a[250];
    task_a.es = task_a.ss = task_a.ds = task_a.fs = task_a.gs = SELECTOR_DATA;
    task_a.cs = SELECTOR_CODE;
    task_a.cr3 = read_cr3();
    task_a.io_map = sizeof task_a;
    set_descriptor(TSS_A, system_descriptor((word)&task_a, sizeof task_a - 1, 0x89));
}

static struct far {
    u32 offset;
    u16 selector;
} __attribute__((packed)) far;

static int call_task(u16 selector)
{
    far.selector = selector;
    return TRAPS("lcall *%0", : : "m"(far) : "memory", "cc");
}

static int jump_task(u16 selector)
{
    far.selector = selector;
    return TRAPS("ljmp *%0", : : "m"(far) : "memory", "cc");
}

/* What a task saw when it began: a task is naked code, its registers and flags are of interest. */
static volatile u32 seen_ax, seen_flags, seen_cr0, seen_sp, seen_error, seen_tr;

static u32 flags_of(void)
{
    u32 value;

    asm volatile("pushf; pop %0" : "=r"(value));
    return value;
}

extern char called[], gated[], gated_error[], called16[], in_vm86[];
asm("called:\n"
    "    pushf\n"
    "    pop seen_flags\n"
    "    mov %eax, seen_ax\n"
    "    mov %esp, seen_sp\n"
    "    mov %cr0, %eax\n"
    "    mov %eax, seen_cr0\n"
    "    str %ax\n"
    "    mov %eax, seen_tr\n"
    "    clts\n"
    "    mov $0xa5a5a5a5, %eax\n"
    "    iret\n"
    "    incl seen_ax\n" /* called a second time: it goes on here */
    "    iret\n"
    "gated:\n"
    "    incl seen_ax\n"
    "    iret\n"
    "    jmp gated\n"
    "gated_error:\n"
    "    pop seen_error\n"
    "    mov %esp, seen_sp\n"
    "    mov guard_ip, %eax\n" /* the main task goes on where it wants */
    "    mov %eax, tss + 0x20\n"
    "    iret\n"
    "    jmp gated_error\n"
    "    .code16\n"
    "called16:\n"
    "    pushfw\n"
    "    popw %ax\n"
    "    movl $seen_flags, %ebx\n"
    "    movw %ax, (%ebx)\n"
    "    movl $seen_ax, %ebx\n"
    "    movl %ecx, (%ebx)\n"
    "    movl $seen_sp, %ebx\n"
    "    movl %esp, (%ebx)\n"
    "    iretw\n"
    "    .code32\n");

static void calls(void)
{
    u32 keep = 0x12345678;

    make_a((void (*)(void))called);
    task_a.ax = 0xcafe0001;
    write_cr0(read_cr0() & ~8u);
    far.selector = TSS_A;
    asm volatile("stc; lcall *%1" : "+b"(keep) : "m"(far) : "memory", "cc");
    EXPECT(keep, 0x12345678);
    EXPECT(seen_ax, 0xcafe0001);
    EXPECT(seen_flags, 2 | NT); /* nested */
    EXPECT(seen_cr0 & 8, 8);    /* TS */
    EXPECT((u16)seen_tr, TSS_A);
    EXPECT(seen_sp, (word)&stack_a[250]);
    EXPECT(task_a.link, SELECTOR_TSS);
    EXPECT(type_of(TSS_A), 9); /* available again */
    EXPECT(type_of(SELECTOR_TSS), 0xb);
    EXPECT(task_a.ax, 0xa5a5a5a5);    /* as it left */
    EXPECT(task_a.eflags & NT, 0);    /* IRET clears it in what is saved */
    EXPECT(MAIN_TSS->bx, 0x12345678); /* as the call saved it */
    EXPECT(MAIN_TSS->eflags & 1, 1);
    EXPECT(MAIN_TSS->cs, SELECTOR_CODE);
    EXPECT(read_cr0() & 8, 8); /* by the return too */
    EXPECT(flags_of() & NT, 0);
    asm volatile("clts");
    seen_ax = 7;
    EXPECT(call_task(TSS_A), NONE);
    EXPECT(seen_ax, 8);
    asm volatile("clts");
}

static void jumps(void)
{
    extern char jumped[];

    asm volatile("jmp 1f\n"
                 "jumped:\n"
                 "    pushf\n"
                 "    pop seen_flags\n"
                 "    movw $0x30, far + 4\n"
                 "    ljmp *far\n"
                 "    jmp jumped\n"
                 "1:");
    make_a((void (*)(void))jumped);
    task_a.link = 0x77;
    EXPECT(jump_task(TSS_A), NONE);
    EXPECT(seen_flags, 2);     /* not nested */
    EXPECT(task_a.link, 0x77); /* no link either */
    EXPECT(type_of(TSS_A), 9); /* both busy bits have moved twice */
    EXPECT(type_of(SELECTOR_TSS), 0xb);
    /* Through a task gate in the GDT. */
    set_descriptor(GATE, 0x850000000000 | (u64)TSS_A << 16);
    seen_flags = 0;
    EXPECT(jump_task(GATE), NONE);
    EXPECT(seen_flags, 2);
    asm volatile("clts");
}

static void set_task_gate(unsigned vector, u16 selector, unsigned dpl)
{
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) idtr;

    asm volatile("sidt %0" : "=m"(idtr));
    ((volatile u64 *)idtr.base)[vector] = (0x8500ull | (u64)dpl << 13) << 32 | (u32)selector << 16;
}

static void gates(void)
{
    make_a((void (*)(void))gated);
    set_task_gate(0x50, TSS_A, 0);
    seen_ax = 0;
    EXPECT(TRAPS("int $0x50", : : : "memory"), NONE);
    EXPECT(seen_ax, 1);
    EXPECT(TRAPS("int $0x50", : : : "memory"), NONE);
    EXPECT(seen_ax, 2);
    EXPECT(type_of(TSS_A), 9);
    /* An exception with an error code, which stands on the new task's stack. */
    make_a((void (*)(void))gated_error);
    set_task_gate(13, TSS_A, 0);
    asm volatile("mov $9f, %%eax; mov %%eax, guard_ip; mov %w0, %%ds; 9:"
                 :
                 : "b"(0x1000)
                 : "eax", "memory");
    EXPECT(seen_error, 0x1000);
    EXPECT(seen_sp, (word)&stack_a[250]);
    EXPECT(MAIN_TSS->eflags >> 16 & 1, 1); /* RF: a fault */
    set_gate(13, 0, 0);
    guard_ip = 0;
    asm volatile("clts");
}

static void task16(void)
{
    task_b = (struct tss16){
        .ip = 0,
        .flags = 2,
        .cx = 0x4321,
        .sp = 0x3f0,
        .es = SELECTOR_DATA,
        .cs = LDT,
        .ss = GATE,
        .ds = SELECTOR_DATA,
    };
    set_descriptor(LDT, system_descriptor((word)called16, 0xffff, 0x9b));
    set_descriptor(GATE, system_descriptor((word)stack_b, 0x3ff, 0x93));
    set_descriptor(TSS_B, system_descriptor((word)&task_b, sizeof task_b - 1, 0x81));
    seen_flags = 0;
    EXPECT(call_task(TSS_B), NONE);
    EXPECT(seen_flags, 2 | NT);
    EXPECT((u16)seen_ax, 0x4321);
    EXPECT((u16)seen_sp, 0x3f0);
    EXPECT(task_b.link, SELECTOR_TSS);
    EXPECT(type_of(TSS_B), 1);
    EXPECT(task_b.sp, 0x3f0);
    EXPECT(task_b.ip > 0 && task_b.ip < 100, 1);
    asm volatile("clts; mov %0, %%fs; mov %0, %%gs" : : "r"(SELECTOR_DATA));
}

/* Faults of the old task: nothing has changed. */
static void refusals(void)
{
    u64 descriptor;

    make_a((void (*)(void))called);
    descriptor = get_descriptor(TSS_A);
    set_descriptor(TSS_A, descriptor | 2ull << 40);
    EXPECT(call_task(TSS_A), 13); /* busy */
    EXPECT(fault.error, TSS_A);
    EXPECT(jump_task(TSS_A), 13);
    set_descriptor(TSS_A, descriptor & ~(0x80ull << 40));
    EXPECT(call_task(TSS_A), 11);
    EXPECT(fault.error, TSS_A);
    set_descriptor(TSS_A, descriptor - 1); /* one byte short */
    EXPECT(call_task(TSS_A), 10);
    EXPECT(fault.error, TSS_A);
    set_descriptor(TSS_A, descriptor);
    EXPECT(call_task(TSS_A | 4), 13); /* in the LDT, of which there is none */
    EXPECT(fault.error, TSS_A | 4);
    EXPECT(call_task(TSS_A | 3), 13); /* RPL above the descriptor's DPL */
    EXPECT(fault.error, TSS_A);
    set_descriptor(GATE, 0x850000000000 | (u64)SELECTOR_DATA << 16);
    EXPECT(call_task(GATE), 13); /* a gate to what is no TSS */
    EXPECT(fault.error, SELECTOR_DATA);
    set_descriptor(GATE, 0x050000000000 | (u64)TSS_A << 16);
    EXPECT(call_task(GATE), 11);
    EXPECT(fault.error, GATE);
    /* IRET with NT needs a busy TSS in the link. */
    MAIN_TSS->link = TSS_A;
    asm volatile("pushf; orl $0x4000, (%%esp); popf" : : : "cc", "memory");
    EXPECT(TRAPS("iret", :), 10);
    EXPECT(fault.error, TSS_A);
    asm volatile("pushf; andl $~0x4000, (%%esp); popf" : : : "cc", "memory");
    EXPECT(type_of(TSS_A), 9);
    EXPECT(type_of(SELECTOR_TSS), 0xb);
}

static volatile u32 vm86_ax, vm86_cs, vm86_flags;

/* The privileged instruction of the virtual-8086 task: back to the main one. */
static void vm86_fault(struct frame *frame)
{
    vm86_ax = frame->ax;
    vm86_cs = frame->cs;
    vm86_flags = frame->flags;
    far.selector = SELECTOR_TSS;
    asm volatile("ljmp *%0" : : "m"(far));
}

static void vm86(void)
{
    asm volatile("jmp 1f\n"
                 "    .code16\n"
                 "in_vm86:\n"
                 "    mov %ds, %ax\n"
                 "    hlt\n"
                 "    .code32\n"
                 "1:");
    make_a(NULL);
    task_a.eflags = 0x20002;
    task_a.cs = (word)in_vm86 >> 4;
    task_a.eip = (word)in_vm86 & 15;
    task_a.ss = 0x1234;
    task_a.ds = 0xbeef;
    task_a.esp0 = (word)&stack_b[250];
    task_a.ss0 = SELECTOR_DATA;
    handlers[13] = vm86_fault;
    EXPECT(jump_task(TSS_A), NONE);
    EXPECT((u16)vm86_ax, 0xbeef);
    EXPECT((u16)vm86_cs, (word)in_vm86 >> 4);
    EXPECT(vm86_flags >> 17 & 1, 1);
    handlers[13] = NULL;
    asm volatile("clts");
}

static u32 directories[2][1024] __attribute__((aligned(4096)));

/* A task has its own CR3. */
static void address_spaces(void)
{
    extern char spaced[];
    volatile u32 *window = (volatile u32 *)0x1000000;

    asm volatile("jmp 1f\n"
                 "spaced:\n"
                 "    mov 0x1000000, %eax\n"
                 "    mov %eax, seen_ax\n"
                 "    iret\n"
                 "1:");
    for (u32 i = 0; i < 1024; i++)
        directories[0][i] = directories[1][i] = i << 22 | 0x83;
    directories[0][4] = 0x400000 | 0x83;
    directories[1][4] = 0x800000 | 0x83;
    *(volatile u32 *)0x400000 = 0x11111111;
    *(volatile u32 *)0x800000 = 0x22222222;
    write_cr4(read_cr4() | 0x10); /* PSE */
    write_cr3((word)directories[0]);
    write_cr0(read_cr0() | 0x80000000);
    make_a((void (*)(void))spaced);
    task_a.cr3 = (word)directories[1];
    MAIN_TSS->cr3 = (word)directories[0];
    EXPECT(*window, 0x11111111);
    EXPECT(call_task(TSS_A), NONE);
    EXPECT(seen_ax, 0x22222222);
    EXPECT(*window, 0x11111111);
    /* A TSS that is not mapped is a page fault of the old task. */
    make_a((void (*)(void))spaced);
    set_descriptor(TSS_A, system_descriptor(0x1400000 - 0x40, sizeof task_a - 1, 0x89));
    directories[0][5] = 0;
    write_cr3((word)directories[0]);
    EXPECT(call_task(TSS_A), 14);
    EXPECT(fault.cr2 & ~0xfffu, 0x1400000);
    EXPECT(type_of(TSS_A), 9);
    EXPECT(type_of(SELECTOR_TSS), 0xb);
    write_cr0(read_cr0() & ~0x80000000);
    asm volatile("clts");
}

static volatile u32 debug_dr6, debug_ip;

static void debug_trap(struct frame *frame)
{
    u32 dr6;

    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    debug_dr6 = dr6;
    debug_ip = frame->ip;
}

/* The T flag of a TSS: #DB before the task's first instruction. */
static void trap_flag(void)
{
    make_a((void (*)(void))called);
    task_a.trap = 1;
    handlers[1] = debug_trap;
    asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0));
    asm volatile("mov %0, %%dr7" : : "r"(0x755)); /* local enables go */
    EXPECT(call_task(TSS_A), NONE);
    EXPECT(debug_ip, (word)called);
    EXPECT(debug_dr6 >> 15 & 1, 1);
    asm volatile("mov %%dr7, %0" : "=r"(debug_dr6));
    EXPECT(debug_dr6 & 0x55, 0);
    handlers[1] = NULL;
    asm volatile("clts; mov %0, %%dr7" : : "r"(0x400));
}

void guest_main(void)
{
    MAIN_TSS->cr3 = read_cr3();
    calls();
    jumps();
    gates();
    task16();
    refusals();
    vm86();
    address_spaces();
    trap_flag();
}
