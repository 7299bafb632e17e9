/* Debug exceptions: single steps over every kind of instruction, breakpoints on code, data and
 * ports, RF, the shadows of MOV SS and STI, general detect, INT1 (SDM volume 3 chapter 18). */
#include "rt.h"

#define NONE ((int)NO_FAULT)
#define DR6_CLEAR 0xffff0ff0u
#define BD (1u << 13)
#define BS (1u << 14)
#define RF 0x10000u

#ifdef __x86_64__
#define SP "%%rsp"
#define AX "%%rax"
#else
#define SP "%%esp"
#define AX "%%eax"
#endif

#define DR(n)                                                                                      \
    static inline __attribute__((unused)) word read_dr##n(void)                                    \
    {                                                                                              \
        word value;                                                                                \
                                                                                                   \
        asm volatile("mov %%dr" #n ", %0" : "=r"(value));                                          \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_dr##n(word value)                                                     \
    {                                                                                              \
        asm volatile("mov %0, %%dr" #n : : "r"(value) : "memory");                                 \
    }
DR(0)
DR(1)
DR(6)
DR(7)

/* What the handler of #DB saw, in order. It ends stepping at the address `last`. */
#define SEEN 16
static volatile struct {
    word ip, dr6, flags, dr7;
} seen[SEEN];
static volatile u32 count_seen;
static volatile word last;
static volatile bool resume; /* sets RF where it returns to */

static void debug_handler(struct frame *frame)
{
    if (count_seen < SEEN) {
        seen[count_seen].ip = frame->ip;
        seen[count_seen].dr6 = read_dr6();
        seen[count_seen].flags = frame->flags;
        seen[count_seen].dr7 = read_dr7();
    }
    count_seen++;
    write_dr6(DR6_CLEAR);
    if (resume)
        frame->flags |= RF;
    if (frame->ip == last)
        frame->flags &= ~0x100ul;
}

static void begin(word until)
{
    memset((void *)seen, 0, sizeof seen);
    count_seen = 0;
    last = until;
    resume = false;
    handlers[1] = debug_handler;
    write_dr6(DR6_CLEAR);
}

static u32 end(void)
{
    handlers[1] = NULL;
    write_dr7(0x400);
    return count_seen;
}

#define STEP_ON "pushf; or" W " $0x100, (" SP "); popf\n"
/* The lengths of instructions give the addresses; labels mark where they begin and end. */
#define LABEL(name) "\n" #name ":\n"
extern char s_io[], s_io_end[], s_cpuid[], s_cpuid_end[], s_msr[], s_msr_end[], s_rep[],
    s_rep_end[], s_sti[], s_sti_end[], s_ss[], s_ss_end[], s_iret[], s_iret_end[], s_int[],
    s_int_end[], s_popf[], s_popf_end[], s_icebp[], s_icebp_end[], s_jump[], s_jump_end[];

static void step_instructions(void)
{
    begin((word)s_io_end);
    asm volatile(STEP_ON LABEL(s_io) "inb $0x80, %%al\n"
                                     "outb %%al, $0x80\n" LABEL(s_io_end)
                 :
                 :
                 : "eax", "memory", "cc");
    EXPECT(end(), 2);
    EXPECT(seen[0].ip, (word)s_io + 2);
    EXPECT(seen[0].dr6, DR6_CLEAR | BS);
    EXPECT(seen[0].flags & RF, 0);
    EXPECT(seen[1].ip, (word)s_io + 4);
    begin((word)s_cpuid_end);
    asm volatile(STEP_ON LABEL(s_cpuid) "cpuid\n" LABEL(s_cpuid_end)
                 :
                 : "a"(0), "c"(0)
                 : "ebx", "edx", "memory", "cc");
    EXPECT(end(), 1);
    EXPECT(seen[0].ip, (word)s_cpuid_end);
    EXPECT(seen[0].dr6, DR6_CLEAR | BS);
    begin((word)s_msr_end);
    asm volatile(STEP_ON LABEL(s_msr) "rdmsr\n"
                                      "wrmsr\n" LABEL(s_msr_end)
                 :
                 : "c"(0x277)
                 : "eax", "edx", "memory", "cc");
    EXPECT(end(), 2);
    EXPECT(seen[1].ip, (word)s_msr_end);
}

static void step_string(void)
{
    static u8 buffer[8];
    word count = 3;
    void *to = buffer;

    begin((word)s_rep_end);
    asm volatile(STEP_ON LABEL(s_rep) "rep stosb\n" LABEL(s_rep_end)
                 : "+c"(count), "+D"(to)
                 : "a"(0x55)
                 : "memory", "cc");
    EXPECT(end(), 3);
    EXPECT(seen[0].ip, (word)s_rep);
    EXPECT(seen[0].flags & RF, RF); /* between iterations */
    EXPECT(seen[1].ip, (word)s_rep);
    EXPECT(seen[2].ip, (word)s_rep_end);
    EXPECT(seen[2].flags & RF, 0);
    EXPECT(buffer[2], 0x55);
    EXPECT(buffer[3], 0);
}

static void step_shadows(void)
{
    word ss;

    asm volatile("mov %%ss, %0" : "=r"(ss));
    begin((word)s_sti_end);
    asm volatile(STEP_ON LABEL(s_sti) "sti\n"
                                      "cli\n" LABEL(s_sti_end)
                 :
                 :
                 : "memory", "cc");
    EXPECT(end(), 2); /* STI holds interrupts back, no debug traps */
    EXPECT(seen[0].ip, (word)s_sti + 1);
    begin((word)s_ss_end);
    asm volatile(STEP_ON LABEL(s_ss) "mov %w0, %%ss\n"
                                     "nop\n" LABEL(s_ss_end)
                 :
                 : "r"(ss)
                 : "memory", "cc");
    EXPECT(end(), 1); /* none between the load and the next instruction */
    EXPECT(seen[0].ip, (word)s_ss_end);
}

static void step_transfers(void)
{
    begin((word)s_iret_end);
#ifdef __x86_64__
    asm volatile("mov %%rsp, %%rdx; mov %%ss, %%eax; push %%rax; push %%rdx\n"
                 "pushf; orq $0x100, (%%rsp); mov %%cs, %%eax; push %%rax\n"
                 "push $s_iret; iretq\n" LABEL(s_iret) "nop\nnop\n" LABEL(s_iret_end)
                 :
                 :
                 : "rax", "rdx", "memory", "cc");
#else
    asm volatile("pushf; orl $0x100, (%%esp); push %%cs; push $s_iret; iretl\n" LABEL(
                     s_iret) "nop\nnop\n" LABEL(s_iret_end)
                 :
                 :
                 : "memory", "cc");
#endif
    EXPECT(end(), 2); /* IRET that sets TF traps behind the next instruction */
    EXPECT(seen[0].ip, (word)s_iret + 1);
    /* POPF that opens interrupts while stepping. */
    begin((word)s_popf_end);
    asm volatile("pushf; pushf; or" W " $0x300, (" SP
                 ")\n" STEP_ON LABEL(s_popf) "popf\npopf\n" LABEL(s_popf_end)
                 :
                 :
                 : "memory", "cc");
    EXPECT(end(), 2);
    EXPECT(seen[0].ip, (word)s_popf + 1);
    EXPECT(seen[1].ip, (word)s_popf + 2); /* it cleared TF, but had begun with it */
    /* A software interrupt clears TF; the trap comes behind the instruction after its IRET. */
    begin((word)s_int_end);
    handlers[0x44] = counting_handler;
    asm volatile(STEP_ON LABEL(s_int) "int $0x44\nnop\n" LABEL(s_int_end) : : : "memory", "cc");
    handlers[0x44] = NULL;
    EXPECT(end(), 1);
    EXPECT(seen[0].ip, (word)s_int_end);
    begin((word)s_jump_end);
    asm volatile(STEP_ON LABEL(s_jump) "jmp 1f\nnop\n1: call 2f\n2: pop " AX "\n" LABEL(s_jump_end)
                 :
                 :
                 : "eax", "memory", "cc");
    EXPECT(end(), 3);
    EXPECT(seen[0].ip, (word)s_jump + 3);
    EXPECT(seen[1].ip, (word)s_jump + 8);
}

/* INT1 is #DB without DR6 and without a trap of its own. */
static void icebp(void)
{
    word ip, ss;

    begin(0);
    asm volatile("mov" W " $8f, %0; .byte 0xf1; 8:" : "=r"(ip));
    EXPECT(end(), 1);
    EXPECT(seen[0].ip, ip);
    EXPECT(seen[0].dr6, DR6_CLEAR);
    asm volatile("mov %%ss, %0" : "=r"(ss));
    begin((word)s_icebp_end);
    asm volatile(STEP_ON LABEL(s_icebp) "mov %w0, %%ss\n"
                                        ".byte 0xf1\n"
                                        "nop\n" LABEL(s_icebp_end)
                 :
                 : "r"(ss)
                 : "memory", "cc");
    EXPECT(end(), 2);
    EXPECT(seen[0].ip, (word)s_icebp_end - 1);
    EXPECT(seen[0].dr6, DR6_CLEAR);
    EXPECT(seen[1].ip, (word)s_icebp_end);
    EXPECT(seen[1].dr6, DR6_CLEAR | BS);
}

extern char c_here[], c_rep[], c_rep_end[];

static void code_breakpoints(void)
{
    static u8 buffer[8];
    word count = 3;
    void *to = buffer;

    begin(0);
    resume = true;
    write_dr0((word)c_here);
    write_dr6(DR6_CLEAR | BS); /* sticky */
    write_dr7(0x402);
    asm volatile("mov $3, %%ecx; 1: nop\n" LABEL(c_here) "nop; dec %%ecx; jnz 1b"
                 :
                 :
                 : "ecx", "memory", "cc");
    EXPECT(end(), 3); /* RF counts for one instruction */
    EXPECT(seen[0].ip, (word)c_here);
    EXPECT(seen[0].dr6, DR6_CLEAR | BS | 1);
    EXPECT(seen[0].flags & RF, 0); /* the handler has to set it */
    EXPECT(seen[1].dr6, DR6_CLEAR | 1);
    /* A repeated string instruction meets it once. */
    begin(0);
    resume = true;
    write_dr0((word)c_rep);
    write_dr7(0x402);
    asm volatile(LABEL(c_rep) "rep stosb\n" LABEL(c_rep_end)
                 : "+c"(count), "+D"(to)
                 : "a"(0x55)
                 : "memory", "cc");
    EXPECT(end(), 1);
    EXPECT(buffer[2], 0x55);
}

/* RF goes with an IRET to one instruction, breakpoints enabled or not. */
extern char r_here[], r_again[];
static void resume_flag(void)
{
    begin(0);
    write_dr0((word)r_here);
    write_dr7(0x402);
#ifdef __x86_64__
    asm volatile("mov %%rsp, %%rdx; mov %%ss, %%eax; push %%rax; push %%rdx\n"
                 "pushf; orq $0x10000, (%%rsp); mov %%cs, %%eax; push %%rax\n"
                 "push $r_here; iretq\n" LABEL(r_here) "nop\n"
                 :
                 :
                 : "rax", "rdx", "memory", "cc");
#else
    asm volatile(
        "pushf; orl $0x10000, (%%esp); push %%cs; push $r_here; iretl\n" LABEL(r_here) "nop\n"
        :
        :
        : "memory", "cc");
#endif
    EXPECT(end(), 0);
    /* POPF does not set it, and PUSHF does not show it. */
    begin(0);
    resume = true;
    write_dr0((word)r_again);
    write_dr7(0x402);
    asm volatile("pushf; or" W " $0x10000, (" SP "); popf\n" LABEL(r_again) "nop\n"
                 :
                 :
                 : "memory", "cc");
    EXPECT(end(), 1);
    /* Faults push it, traps do not. */
    TRAPS("ud2", :);
    EXPECT(fault.flags & RF, RF);
    TRAPS("int3", :);
    EXPECT(fault.flags & RF, 0);
}

/* A load of SS that reads watched memory: #DB comes behind the instruction @next, once. */
#define WATCHED_SS(selector, next)                                                                 \
    do {                                                                                           \
        word ip_;                                                                                  \
                                                                                                   \
        begin(0);                                                                                  \
        write_dr0((word)(selector));                                                               \
        write_dr7(0x70402);                                                                        \
        asm volatile("mov %1, %%ss; " next "; 8: mov" W " $8b, %0"                                 \
                     : "=&r"(ip_)                                                                  \
                     : "m"(*(selector))                                                            \
                     : "memory");                                                                  \
        EXPECT(end(), 1);                                                                          \
        EXPECT(seen[0].ip, ip_);                                                                   \
        EXPECT(seen[0].dr6, DR6_CLEAR | 1);                                                        \
    } while (0)

static void data_breakpoints(void)
{
    static u8 buffer[16] __attribute__((aligned(8)));
    word count = 6, ip, ss;
    void *to = buffer;

    begin(0);
    write_dr0((word)buffer + 2);
    write_dr7(0x10402 | 1u << 18); /* two bytes, writes */
    asm volatile("mov" W " $8f, %2; 8: rep stosb"
                 : "+c"(count), "+D"(to), "=&r"(ip)
                 : "a"(0x33)
                 : "memory", "cc");
    EXPECT(end(), 2); /* behind the iterations that met it */
    EXPECT(seen[0].ip, ip);
    EXPECT(seen[0].flags & RF, RF);
    EXPECT(seen[0].dr6, DR6_CLEAR | 1);
    EXPECT(buffer[5], 0x33);
    asm volatile("mov %%ss, %0" : "=r"(ss));
    *(volatile u16 *)(buffer + 8) = ss;
    WATCHED_SS((u16 *)(buffer + 8), "nop");
    WATCHED_SS((u16 *)(buffer + 8),
               ".byte 0xf1"); /* INT1, a debug exception itself: the two are one */
    /* With a step at once both bits are set. */
    begin(0);
    last = (word)-1;
    write_dr0((word)buffer);
    write_dr7(0x10402);
    asm volatile(STEP_ON "movb $1, %0\n"
                         "pushf; and" W " $~0x100, (" SP "); popf"
                 : "=m"(buffer[0])
                 :
                 : "memory", "cc");
    EXPECT(end() >= 1, 1);
    EXPECT(seen[0].dr6, DR6_CLEAR | BS | 1);
}

static volatile u32 interrupts;

static void count_interrupt(struct frame *frame)
{
    (void)frame;
    interrupts++;
}

/* What the delivery of an event pushes is data too: the trap comes before its handler's first
 * instruction. */
static void watched_stack(void)
{
#ifdef __x86_64__
    enum { RETURN_ADDRESS = 5 * 8, FLAGS = 3 * 8, ALIGNED = ~15, WRITES = 0x90402, BYTE = 0x10402 };
#else
    enum { RETURN_ADDRESS = 3 * 4, FLAGS = 1 * 4, ALIGNED = ~0, WRITES = 0xd0402, BYTE = 0x10402 };
#endif
    static const struct {
        int slot;
        word dr7;
        u32 traps;
    } cases[] = {
        {RETURN_ADDRESS, WRITES, 1},
        {FLAGS - 1, BYTE, 1}, /* one byte of it is enough */
        {-32, BYTE, 0},       /* above all of the frame */
    };
    word gate = entry_table[0x42];

    handlers[0x42] = count_interrupt;
    for (u32 i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        word at, dr7 = cases[i].dr7;

        interrupts = 0;
        begin(0);
        asm volatile("mov " SP ", %0; and %2, %0; sub %3, %0; mov %0, %%dr0; mov %1, %%dr7\n"
                     "int $0x42\n"
                     "mov %4, %1; mov %1, %%dr7"
                     : "=&r"(at), "+&r"(dr7)
                     : "i"(ALIGNED), "r"((word)cases[i].slot), "i"(0x400)
                     : "memory", "cc");
        EXPECT(end(), cases[i].traps);
        EXPECT(interrupts, 1);
        if (!cases[i].traps)
            continue;
        EXPECT(seen[0].ip, gate);
        EXPECT(seen[0].dr6, DR6_CLEAR | 1);
        EXPECT(seen[0].flags & RF, 0);
    }
    handlers[0x42] = NULL;
}

static void io_breakpoints(void)
{
    word ip;

    begin(0);
    write_dr0(0x80);
    write_dr1(PORT_REGS);
    write_dr7(0x040a | 2u << 16 | 0xeu << 20); /* one byte; four bytes */
    asm volatile("outb %%al, $0x80" : : "a"(0));
    EXPECT(end(), 0); /* not without CR4.DE */
    write_cr4(read_cr4() | 8);
    begin(0);
    write_dr7(0x040a | 2u << 16 | 0xeu << 20);
    asm volatile("outb %%al, $0x80; 8: nop; mov" W " $8b, %0" : "=&r"(ip) : "a"(0));
    EXPECT(count_seen, 1);
    EXPECT(seen[0].ip, ip); /* a trap */
    EXPECT(seen[0].dr6, DR6_CLEAR | 1);
    inb(0x80);
    EXPECT(count_seen, 2);
    inb(PORT_REGS + 3);
    EXPECT(count_seen, 3);
    EXPECT(seen[2].dr6, DR6_CLEAR | 2);
    inb(PORT_REGS + 4);
    EXPECT(count_seen, 3);
    outw(PORT_REGS + 2, 0x1234);
    EXPECT(end(), 4);
    /* String instructions: behind each element. */
    static u8 bytes[4] = {1, 2, 3, 4};
    const void *from = bytes;
    word count = 3;

    begin(0);
    write_dr7(0x040a | 2u << 16 | 0xeu << 20);
    asm volatile("mov" W " $8f, %2; 8: rep outsb"
                 : "+c"(count), "+S"(from), "=&r"(ip)
                 : "d"(PORT_REGS)
                 : "memory", "cc");
    EXPECT(end(), 3);
    EXPECT(seen[0].ip, ip);
    EXPECT(seen[0].flags & RF, RF);
    EXPECT(seen[2].ip > ip, 1);
    EXPECT(seen[2].flags & RF, 0);
    EXPECT(count, 0);
    EXPECT(inb(PORT_REGS), 3);
    write_cr4(read_cr4() & ~8ul);
}

#define DEBUGCTL 0x1d9
#define BTF 2
extern char b_start[], b_target[], b_end[];

/* IA32_DEBUGCTL.BTF: steps only what branches, and ends with the first trap. */
static void branch_steps(void)
{
    const void *from = b_start;
    word count = 2;

    if (TRAPS("wrmsr", : : "c"(DEBUGCTL), "a"(BTF), "d"(0)) != NONE || rdmsr(DEBUGCTL) != BTF)
        return;
    begin((word)b_end);
    asm volatile(STEP_ON LABEL(b_start) "nop\n"
                                        "inb $0x80, %%al\n"
                                        "rep lodsb\n"
                                        "test %%esp, %%esp\n"
                                        "jz 1f\n" /* not taken */
                                        "jmp 1f\n"
                                        "nop\n"
                                        "1:" LABEL(b_target) "nop\n" LABEL(b_end)
                 : "+c"(count), "+S"(from)
                 :
                 : "eax", "memory", "cc");
    EXPECT(end(), 2);
    EXPECT(seen[0].ip, (word)b_target);
    EXPECT(seen[0].dr6, DR6_CLEAR | BS);
    EXPECT(seen[1].ip, (word)b_end); /* the trap has cleared BTF */
    EXPECT(rdmsr(DEBUGCTL), 0);
}

#define LBR 1
#define LAST_BRANCH_FROM(n) (0x40 + (n))
#define LAST_BRANCH_TO(n) (0x60 + (n))
#define LAST_BRANCH_TOP 0x1c9
#define LAST_EXCEPTION_FROM 0x1dd
#define LAST_EXCEPTION_TO 0x1de
extern char l_jump[], l_to[], l_call[], l_sub[], l_ret[], l_loop[], l_int[], l_after[], l_off[];

/* The last branches: taken ones, with calls, returns, interrupts and IRET among them, in a ring of
 * eight; and the last before an interrupt. A family 6 model 36h has them at these numbers. */
static void last_branches(void)
{
    u32 regs[4], low = LBR, high = 0;
    word count = 2;
    u64 first;

    cpuid(1, 0, regs);
    if ((regs[0] & 0xffff0) != 0x30660 || TRAPS("wrmsr",
                                                :
                                                : "c"(DEBUGCTL), "a"(LBR), "d"(0)) != NONE)
        return;
    wrmsr(DEBUGCTL, 0);
    handlers[0x42] = count_interrupt;
    interrupts = 0;
    first = rdmsr(LAST_BRANCH_TOP);
    EXPECT(first < 8, 1);
    asm volatile("wrmsr\n" LABEL(l_jump) "jmp l_to\n"
                                         "nop\n" LABEL(l_sub) "nop\n" LABEL(l_ret) "ret\n" LABEL(
                                             l_to) "test %%esp, %%esp\n"
                                                   "jz l_jump\n" /* not taken */
                 LABEL(l_call) "call l_sub\n"
                               "dec %2\n" LABEL(l_loop) "jnz l_to\n" LABEL(
                                   l_int) "int $0x42\n" LABEL(l_after) "xor %%eax, %%eax\n"
                                                                       "wrmsr\n" LABEL(l_off)
                 : "+a"(low), "+d"(high), "+r"(count)
                 : "c"(DEBUGCTL)
                 : "memory", "cc");
    EXPECT(interrupts, 1);
    /* The handler has branches of its own: what came before it is what the interrupt has kept. */
    EXPECT(rdmsr(LAST_EXCEPTION_FROM), (word)l_ret);
    EXPECT(rdmsr(LAST_EXCEPTION_TO), (word)l_call + 5);
    u64 top = rdmsr(LAST_BRANCH_TOP);

    EXPECT(rdmsr(LAST_BRANCH_TO(top)), (word)l_after); /* IRET */
    EXPECT(rdmsr(LAST_BRANCH_FROM(top)) != 0, 1);
    /* Without a handler's branches: a fault ends the record, whose handler is ours. */
    for (u32 i = 0; i < 8; i++) {
        wrmsr(LAST_BRANCH_FROM(i), 0x1234 + i);
        wrmsr(LAST_BRANCH_TO(i), 0);
    }
    EXPECT(rdmsr(LAST_BRANCH_FROM(7)), 0x123b);
    wrmsr(LAST_BRANCH_TOP, 6);
    EXPECT(TRAPS("wrmsr", : : "c"(LAST_BRANCH_TOP), "a"(8), "d"(0)), 13);
    low = LBR;
    count = 2;
    asm volatile("wrmsr\n"
                 "jmp 2f\n"
                 "nop\n"
                 "1: nop\n"
                 "ret\n"
                 "2: call 1b\n"
                 "dec %2\n"
                 "jnz 2b\n"
                 "xor %%eax, %%eax\n"
                 "wrmsr\n"
                 : "+a"(low), "+d"(high), "+r"(count)
                 : "c"(DEBUGCTL)
                 : "memory", "cc");
    EXPECT(rdmsr(LAST_BRANCH_TOP), 4); /* six branches from 6 on */
    EXPECT(rdmsr(LAST_BRANCH_FROM(5)), 0x1239);
    EXPECT(rdmsr(LAST_BRANCH_FROM(6)), 0x123a);
    EXPECT(rdmsr(LAST_BRANCH_TO(7)), rdmsr(LAST_BRANCH_FROM(0))); /* 2: */
    EXPECT(rdmsr(LAST_BRANCH_TO(2)), rdmsr(LAST_BRANCH_FROM(0)));
    EXPECT(rdmsr(LAST_BRANCH_FROM(3)), rdmsr(LAST_BRANCH_FROM(0)));
    EXPECT(rdmsr(LAST_BRANCH_TO(4)), rdmsr(LAST_BRANCH_FROM(0)) + 5);
    EXPECT(rdmsr(LAST_BRANCH_FROM(1)), rdmsr(LAST_BRANCH_FROM(4)));
    /* A call of the next instruction is a branch as well, a jump there that is not taken is
     * none. */
    low = LBR;
    asm volatile("wrmsr\n"
                 "test %%esp, %%esp\n"
                 "jz 1f\n"
                 "1: call 2f\n"
                 "2: pop" W " %2\n"
                 "xor %%eax, %%eax\n"
                 "wrmsr\n"
                 : "+a"(low), "+d"(high), "=&r"(count)
                 : "c"(DEBUGCTL)
                 : "memory", "cc");
    EXPECT(rdmsr(LAST_BRANCH_TOP), 5);
    EXPECT(rdmsr(LAST_BRANCH_FROM(5)), count - 5);
    EXPECT(rdmsr(LAST_BRANCH_TO(5)), count);
    /* A debug exception ends the recording. */
    begin(0);
    wrmsr(DEBUGCTL, LBR);
    asm volatile(".byte 0xf1" : : : "memory");
    EXPECT(rdmsr(DEBUGCTL), 0);
    EXPECT(end(), 1);
    handlers[0x42] = NULL;
}

#ifdef __x86_64__
/* Before the fault of a fetch. */
static void unmapped_code(void)
{
    volatile u64 *directory = (volatile u64 *)(word)(TABLES_GPA + 0x2000);
    u64 own = directory[4];
    word there = 4ul << 21;

    directory[4] = 0;
    invlpg((void *)there);
    begin(0);
    write_dr0(there);
    write_dr7(0x402);
    handlers[1] = NULL;
    EXPECT(TRAPS("jmp *%0", : : "r"(there)), 1);
    EXPECT(fault.ip, there);
    end();
    EXPECT(TRAPS("jmp *%0", : : "r"(there)), 14);
    EXPECT(fault.cr2, there);
    directory[4] = own;
}
#endif

/* DR7.GD, DR4 and DR5, and bits that are fixed. */
static void registers(void)
{
    word value;

    begin(0);
    write_dr7(0x2400);
    resume = true;
    EXPECT(TRAPS("mov" W " $8f, %0; 8: mov %%dr0, %0", : "=&r"(value)), NONE);
    EXPECT(count_seen, 1);
    EXPECT(seen[0].dr6, DR6_CLEAR | BD);
    EXPECT(seen[0].dr7, 0x400);     /* or the handler could not work */
    EXPECT(seen[0].flags & RF, RF); /* a fault that is no breakpoint */
    EXPECT(end(), 1);
    write_dr6(0);
    EXPECT(read_dr6(), DR6_CLEAR);
    write_dr6(0xffffffff);
    EXPECT(read_dr6(), 0xffffefff);
    write_dr6(DR6_CLEAR);
    write_dr7(0);
    EXPECT(read_dr7(), 0x400);
    asm volatile("mov %%dr5, %0" : "=r"(value));
    EXPECT(value, 0x400);
    write_cr4(read_cr4() | 8);
    EXPECT(TRAPS("mov %%dr4, %0", : "=r"(value)), 6);
    EXPECT(TRAPS("mov %0, %%dr5", : : "r"(0x400ul)), 6);
    write_cr4(read_cr4() & ~8ul);
#ifdef __x86_64__
    EXPECT(TRAPS("mov %0, %%dr6", : : "r"(1ull << 32)), 13);
    EXPECT(TRAPS("mov %0, %%dr7", : : "r"(1ull << 32)), 13);
    write_dr0(0x8000000000000000); /* any address */
    EXPECT(read_dr0(), 0x8000000000000000);
#endif
}

void guest_main(void)
{
    step_instructions();
    step_string();
    step_shadows();
    step_transfers();
    icebp();
    code_breakpoints();
    resume_flag();
    data_breakpoints();
    watched_stack();
    io_breakpoints();
    branch_steps();
    last_branches();
#ifdef __x86_64__
    unmapped_code();
#endif
    registers();
}
