/*
 * Performance counters: what is counted, exactly, at which privilege; overflow and its interrupt;
 * the registers' rules. SDM volume 3 chapter 20. What a sequence counts is taken as the difference
 * to an empty one, since processors do not agree about the instructions that start and stop the
 * counters.
 */
#include "rt.h"

#define PMC 0xc1
#define SELECT 0x186
#define FIXED 0x309
#define CAPABILITIES 0x345
#define FIXED_CONTROL 0x38d
#define STATUS 0x38e
#define CONTROL 0x38f
#define CLEAR 0x390
#define FULL_PMC 0x4c1
#define DEBUGCTL 0x1d9
#define LAPIC_LVT_COUNTER 0x340

#define INSNS 0xc0
#define BRANCHES 0xc4
#define CORE_CYCLES 0x3c
#define USR (1u << 16)
#define OS (1u << 17)
#define INT (1u << 20)
#define EN (1u << 22)
#define BOTH (USR | OS | EN)
#define ALL 0x70000000full
#define MASK ((1ull << 48) - 1)

static u32 version, general;

static void stop(void)
{
    wrmsr(CONTROL, 0);
    wrmsr(CLEAR, rdmsr(STATUS));
    for (u32 i = 0; i < 2; i++) {
        wrmsr(SELECT + i, 0);
        wrmsr(PMC + i, 0);
    }
    wrmsr(FIXED_CONTROL, 0);
    for (u32 i = 0; i < 3; i++)
        wrmsr(FIXED + i, 0);
}

/* Instructions and branches at the levels of @levels, on counters 0 and 1 and the first fixed
 * one. */
static void prepare(u32 levels)
{
    stop();
    wrmsr(SELECT, INSNS | levels | EN);
    wrmsr(SELECT + 1, BRANCHES | levels | EN);
    wrmsr(FIXED_CONTROL, (levels & OS ? 1 : 0) | (levels & USR ? 2 : 0));
}

#define START "mov $0x38f, %%ecx; mov $3, %%eax; mov $1, %%edx; wrmsr\n"
#define STOP "\nmov $0x38f, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
#define RUN(text, ...)                                                                             \
    do {                                                                                           \
        prepare(OS);                                                                               \
        asm volatile(START text STOP:__VA_ARGS__                                                   \
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "memory", "cc");             \
    } while (0)

static u64 insns_of_none, branches_of_none;

static void check(u32 line, u64 insns, u64 branches)
{
    expect(line, rdmsr(PMC) - insns_of_none, insns);
    expect(line, rdmsr(PMC + 1) - branches_of_none, branches);
    expect(line, rdmsr(FIXED), rdmsr(PMC));
    expect(line, rdmsr(STATUS), 0);
}
#define CHECK(insns, branches) check(__LINE__, insns, branches)

static u8 buffer[8192];

static void straight(void)
{
    RUN("", :);
    insns_of_none = rdmsr(PMC);
    branches_of_none = rdmsr(PMC + 1);
    EXPECT(insns_of_none >= 3 && insns_of_none <= 5, 1);
    EXPECT(branches_of_none, 0);
    RUN("nop; nop; nop; nop; nop; nop; nop; nop; nop; nop", :);
    CHECK(10, 0);
    RUN(".rept 300; lea 1(%%rsi), %%rsi; .endr", :); /* more than a translation holds */
    CHECK(300, 0);
    RUN("push %%rax; pop %%rdi; mov (%%rsp), %%rdi; xchg %%rdi, %%rsi", :);
    CHECK(4, 0);
    RUN("mov $0, %%eax; mov $0, %%ecx; push %%rbx; cpuid; pop %%rbx", :);
    CHECK(5, 0);
    RUN("mov $0x80, %%edx; in %%dx, %%al; out %%al, $0x80", :);
    CHECK(3, 0);
    RUN("pushf; pop %%rax; push %%rax; popf; sti; cli; mov %%cr3, %%rax; mov %%rax, %%cr3", :);
    CHECK(8, 0);
}

static void branches(void)
{
    RUN("mov $1000, %%esi; 1: dec %%esi; jnz 1b", :);
    CHECK(2001, 1000);
    RUN("mov $1000000, %%esi; 1: add %%esi, %%edi; dec %%esi; jnz 1b", :); /* hot */
    CHECK(3000001, 1000000);
    RUN("mov $100, %%ecx; 1: loop 1b; jrcxz 1f; nop; 1:", :);
    CHECK(102, 101);
    RUN("call 1f; jmp 2f; 1: ret; 2: lea 3f(%%rip), %%rax; jmp *%%rax; nop; 3:", :);
    CHECK(5, 4);
    RUN("xor %%esi, %%esi; jz 1f; nop; 1: jnz 1f; nop; 1:", :); /* taken, and not */
    CHECK(4, 2);
    RUN("mov $20000, %%esi\n"
        "1: mov $5, %%edi\n"
        "2: mov %%esi, (%0, %%rdi, 8); dec %%edi; jnz 2b\n"
        "test $7, %%esi; jz 3f; call 4f; 3: dec %%esi; jnz 1b; jmp 5f; 4: ret; 5:",
        : "r"(buffer));
    CHECK(1 + 20000 * (1 + 15 + 2 + 2) + 17500 * 2 + 1, 20000 * (5 + 1 + 1) + 17500 * 2 + 1);
}

static void strings(void)
{
    RUN("mov %0, %%rdi; mov $8000, %%ecx; rep stosb", : "r"(buffer));
    CHECK(3, 0);
    RUN("mov %0, %%rdi; xor %%ecx, %%ecx; rep stosb", : "r"(buffer));
    CHECK(3, 0);
    RUN("mov %0, %%rsi; lea 4096(%0), %%rdi; mov $500, %%ecx; rep movsq; movsq", : "r"(buffer));
    CHECK(5, 0);
    RUN("mov %0, %%rsi; mov $16, %%ecx; mov $0x520, %%edx; rep outsb", : "r"(buffer));
    CHECK(4, 0);
}

/* Handlers of a known length. */
extern char count_skip[], count_return[], count_skip_error[], count_interrupt[];
asm(".text\n"
    "count_skip: addq $2, (%rsp); iretq\n"
    "count_skip_error: add $8, %rsp; addq $2, (%rsp); iretq\n"
    "count_interrupt: push %rax; mov $0xfee000b0, %eax; movl $0, (%rax); pop %rax\n"
    "count_return: iretq\n");

static void set_handler(unsigned vector, const char *to)
{
    word own = entry_table[vector];

    if (to)
        entry_table[vector] = (word)to;
    set_gate(vector, vector == 0x80 ? 3 : 0, 0);
    entry_table[vector] = own;
}

static void exceptions(void)
{
    set_handler(6, count_skip);
    set_handler(13, count_skip_error);
    set_handler(14, count_skip_error);
    set_handler(0x81, count_return);
    set_handler(3, count_return);
    /* The instruction that faults is not retired. */
    RUN("nop; nop; ud2; nop; nop", :);
    CHECK(6, 1);
    RUN("mov $1, %%esi; mov $0x7fff00000000, %%rax; mov (%%rax), %%edi; nop", :); /* 2 bytes */
    CHECK(3 + 3, 1);
    RUN("mov $1 << 63, %%rax; nop; mov (%%rax), %%edi; nop", :);
    CHECK(3 + 3, 1);
    /* One that comes to its handler is. */
    RUN("nop; int $0x81; nop", :);
    CHECK(4, 2);
    RUN("int3; nop", :);
    CHECK(3, 2);
    RUN("mov $200000, %%esi; 1: test $0xffff, %%si; jnz 2f; ud2; 2: dec %%esi; jnz 1b", :);
    CHECK(1 + 200000 * 4 + 3 * 2, 200000 * 2 + 3);
    for (unsigned i = 0; i < 4; i++)
        set_handler((const u8[]){3, 6, 13, 14}[i], NULL);
}

/* Instructions behind which an interrupt that waits comes in. */
#define SELF_IPI "mov $0xfee00300, %%edi; movl $0x40053, (%%rdi); jmp 7f; 7:"
static void interrupts(void)
{
    set_handler(0x53, count_interrupt);
    RUN(SELF_IPI "nop; sti; nop; cli; nop", :);
    CHECK(8 + 5, 2);
    RUN(SELF_IPI "pushf; orl $0x200, (%%rsp); popf; nop; cli", :);
    CHECK(8 + 5, 2);
    RUN(SELF_IPI "mov %%rsp, %%rsi; push $0x10; push %%rsi; pushf; orl $0x200, (%%rsp); push $8;"
                 "lea 1f(%%rip), %%rax; push %%rax; iretq; nop; 1: cli",
        :);
    CHECK(13 + 5, 3);
    RUN("mov $5, %%eax; mov %%rax, %%cr8;" SELF_IPI
        "sti; nop; xor %%eax, %%eax; mov %%rax, %%cr8; nop; cli",
        :);
    CHECK(11 + 5, 2);
    set_handler(0x53, NULL);
}

/* Iret from the level to itself, and a trap flag that traps after an instruction. */
static void stepping(void)
{
    set_handler(1, count_return);
    RUN("pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; pushf; andl $~0x100, (%%rsp); popf; nop",
        :);
    /* A trap after each of the three and the three that end it, and one iret for each. */
    CHECK(10 + 6, 6);
    RUN("mov %0, %%rdi; mov $3, %%ecx; pushf; orl $0x100, (%%rsp); popf; rep stosb; pushf;"
        "andl $~0x100, (%%rsp); popf",
        : "r"(buffer));
    CHECK(9 + 6, 6);
    set_handler(1, NULL);
}

extern char user_10[], user_30[], user_loop[];
asm(".text\n"
    "user_10: .rept 10; nop; .endr; int $0x80\n"
    "user_30: .rept 30; nop; .endr; int $0x80\n"
    "user_loop: mov $5000, %ecx; 1: dec %ecx; jnz 1b; int $0x80\n");

static u64 at_level(u32 levels, const char *code, u64 *branches)
{
    prepare(levels);
    wrmsr(CONTROL, ALL);
    EXPECT(user((void (*)(void))code), 0x80);
    wrmsr(CONTROL, 0);
    EXPECT(rdmsr(FIXED), rdmsr(PMC));
    *branches = rdmsr(PMC + 1);
    return rdmsr(PMC);
}

static void levels(void)
{
    u64 b[6], user_insns = at_level(USR, user_10, &b[0]), os = at_level(OS, user_10, &b[1]);

    EXPECT(user_insns >= 10 && user_insns <= 12, 1);
    EXPECT(os > 20, 1);
    EXPECT(at_level(USR, user_30, &b[2]) - user_insns, 20);
    EXPECT(b[2], b[0]);
    EXPECT(at_level(OS, user_30, &b[3]), os);
    EXPECT(b[3], b[1]);
    EXPECT(at_level(USR | OS, user_30, &b[4]), os + user_insns + 20);
    EXPECT(b[4], b[0] + b[1]);
    EXPECT(at_level(USR, user_loop, &b[5]) - user_insns, 10001 - 10);
    EXPECT(b[5] - b[0], 5000);
    EXPECT(at_level(OS, user_loop, &b[5]), os);
}

static void read_counters(void)
{
    u64 first, second;

    prepare(OS);
    wrmsr(CONTROL, ALL);
    asm volatile(
        "xor %%ecx, %%ecx; lfence; rdpmc; mov %%eax, %%esi; lfence; nop; nop; nop; nop; nop\n"
        "lfence; rdpmc; mov %%eax, %%edi"
        : "=S"(first), "=D"(second)
        :
        : "rax", "rcx", "rdx");
    EXPECT(second - first, 9);
    wrmsr(CONTROL, 0);
    wrmsr(FIXED, 0x123456789abc);
    asm volatile("mov $0x40000000, %%ecx; rdpmc" : "=a"(first), "=d"(second) : : "rcx");
    EXPECT(first, 0x56789abc);
    EXPECT(second, 0x1234);
}

static void user_rdpmc(void)
{
    asm volatile("rdpmc" : : "c"(0) : "rax", "rdx");
    USER_EXIT;
}

static void refused_reads(void)
{
    EXPECT(TRAPS("rdpmc", : : "c"(general) : "rax", "rdx"), 13);
    EXPECT(fault.error, 0);
    EXPECT(TRAPS("rdpmc", : : "c"(0x40000010) : "rax", "rdx"), 13);
    EXPECT(TRAPS("rdpmc", : : "c"(0x20000000) : "rax", "rdx"), 13);
    EXPECT(user(user_rdpmc), 13);
    write_cr4(read_cr4() | 1 << 8);
    EXPECT(user(user_rdpmc), 0x80);
    write_cr4(read_cr4() & ~(word)(1 << 8));
}

static int try_write(u32 index, u64 value)
{
    return TRAPS("wrmsr", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static void registers(void)
{
    stop();
    EXPECT(try_write(PMC, 0x0123456780000000), NO_FAULT); /* the sign of 32 bits */
    EXPECT(rdmsr(PMC), 0xffff80000000);
    EXPECT(try_write(PMC, 0x0123456770000000), NO_FAULT);
    EXPECT(rdmsr(PMC), 0x70000000);
    if (rdmsr(CAPABILITIES) >> 13 & 1) {
        EXPECT(try_write(FULL_PMC, 0x812345678901), NO_FAULT);
        EXPECT(rdmsr(PMC), 0x812345678901);
        EXPECT(rdmsr(FULL_PMC), 0x812345678901);
        EXPECT(try_write(FULL_PMC, 1ull << 48), 13);
    }
    EXPECT(try_write(SELECT, 1ull << 32), 13);
    EXPECT(try_write(CONTROL, 1ull << 31), 13);
    EXPECT(try_write(CONTROL, 1ull << 50), 13);
    EXPECT(try_write(FIXED_CONTROL, 1ull << 40), 13);
    EXPECT(try_write(CLEAR, 1ull << 31), 13);
    EXPECT(try_write(CAPABILITIES, 0), 13);
    EXPECT(try_write(STATUS, 0), 13);
    if (version == 2) {
        EXPECT(rdmsr(CAPABILITIES) & 0x3f, 1); /* last branches: linear addresses of 64 bits */
        EXPECT(try_write(SELECT, 1 << 21), 13);
        EXPECT(try_write(FIXED_CONTROL, 4), 13);
        EXPECT(try_write(FIXED, 1ull << 48), 13);
    }
    EXPECT(rdmsr(0x1a0) >> 7 & 1, 1);
    EXPECT(rdmsr(CONTROL), 0);
    stop();
}

static volatile u64 status_seen, control_seen;

static void overflow_handler(struct frame *frame)
{
    status_seen = rdmsr(STATUS);
    control_seen = rdmsr(CONTROL);
    counting_handler(frame);
}

static void run_a_while(void)
{
    asm volatile("sti; mov $1000, %%ecx; 1: dec %%ecx; jnz 1b; cli" : : : "rcx");
}

static void overflow(void)
{
    handlers[0x51] = overflow_handler;
    lapic_write(LAPIC_LVT_COUNTER, 0x51);
    stop();
    wrmsr(SELECT, INSNS | BOTH | INT);
    wrmsr(PMC, -300);
    wrmsr(CONTROL, ALL);
    run_a_while();
    wrmsr(CONTROL, 0);
    EXPECT(count[0x51], 1);
    EXPECT(status_seen, 1);
    EXPECT(rdmsr(STATUS), 1);
    EXPECT(rdmsr(PMC) > 1000 && rdmsr(PMC) < 5000, 1);
    EXPECT(lapic_read(LAPIC_LVT_COUNTER), 0x10051);
    wrmsr(CLEAR, 1);
    EXPECT(rdmsr(STATUS), 0);
    /* Masked: the status says it alone. */
    wrmsr(PMC, -300);
    wrmsr(CONTROL, ALL);
    run_a_while();
    EXPECT(count[0x51], 1);
    EXPECT(rdmsr(STATUS), 1);
    /* Branches, by an NMI, which the fixed counters do not ask for. */
    stop();
    handlers[2] = overflow_handler;
    lapic_write(LAPIC_LVT_COUNTER, 0x400);
    wrmsr(SELECT + 1, BRANCHES | BOTH | INT);
    wrmsr(PMC + 1, -100);
    wrmsr(FIXED_CONTROL, 3);
    wrmsr(FIXED, MASK - 5);
    wrmsr(CONTROL, ALL);
    run_a_while();
    wrmsr(CONTROL, 0);
    EXPECT(count[2], 1);
    EXPECT(status_seen, 1ull << 32 | 2);
    EXPECT(lapic_read(LAPIC_LVT_COUNTER), 0x10400);
    /* A fixed one. */
    stop();
    lapic_write(LAPIC_LVT_COUNTER, 0x51);
    wrmsr(FIXED_CONTROL, 0xb);
    wrmsr(FIXED, MASK - 200);
    wrmsr(CONTROL, ALL);
    run_a_while();
    wrmsr(CONTROL, 0);
    EXPECT(count[0x51], 2);
    EXPECT(status_seen, 1ull << 32);
    stop();
}

/* How soon: not long after the instruction that overflowed. */
static void overflow_is_prompt(void)
{
    u64 at;

    handlers[0x51] = overflow_handler;
    lapic_write(LAPIC_LVT_COUNTER, 0x51);
    stop();
    count[0x51] = 0;
    wrmsr(SELECT, INSNS | OS | EN | INT);
    wrmsr(PMC, -100000);
    wrmsr(CONTROL, ALL);
    asm volatile("xor %%eax, %%eax; sti; 1: inc %%rax; nop; cmpl $0, count + 0x51 * 4; je 1b; cli"
                 : "=a"(at)
                 :
                 : "memory");
    wrmsr(CONTROL, 0);
    EXPECT(at > 24500 && at < 25200, 1);
    stop();
}

static void cycles(void)
{
    u64 before, after;

    stop();
    wrmsr(SELECT, CORE_CYCLES | BOTH);
    wrmsr(SELECT + 1, CORE_CYCLES | 0x100 | USR | EN);
    wrmsr(FIXED_CONTROL, 0x330);
    before = rdtsc();
    wrmsr(CONTROL, ALL);
    while (rdtsc() - before < 20000000) {
    }
    wrmsr(CONTROL, 0);
    after = rdtsc();
    EXPECT(rdmsr(PMC) > 1000, 1);
    EXPECT(rdmsr(PMC + 1), 0); /* no time was spent in user mode */
    EXPECT(rdmsr(FIXED + 1) > 1000, 1);
    EXPECT(rdmsr(FIXED + 2) > 1000 && rdmsr(FIXED + 2) <= after - before, 1);
    /* Not while the CPU is halted. */
    stop();
    wrmsr(FIXED_CONTROL, 0x300);
    handlers[0x52] = counting_handler;
    count[0x52] = 0;
    command(COMMAND_MSI | COMMAND_DELAYED, 0xfee00000, 0x52);
    before = rdtsc();
    wrmsr(CONTROL, ALL);
    while (!count[0x52])
        sti_hlt_cli();
    wrmsr(CONTROL, 0);
    after = rdtsc();
    EXPECT(rdmsr(FIXED + 2) < (after - before) / 2, 1);
    /* Overflow while nothing else happens. */
    stop();
    count[0x51] = 0;
    lapic_write(LAPIC_LVT_COUNTER, 0x51);
    wrmsr(FIXED_CONTROL, 0xb0);
    wrmsr(FIXED + 1, MASK - 3000000);
    wrmsr(CONTROL, ALL);
    asm volatile("sti");
    EXPECT(WAIT_UNTIL(count[0x51]), 1);
    asm volatile("cli");
    wrmsr(CONTROL, 0);
    EXPECT(status_seen, 1ull << 33);
    stop();
}

static void freeze(void)
{
    if (version > 3 || try_write(DEBUGCTL, 1 << 12) != -1)
        return;
    stop();
    count[0x51] = 0;
    lapic_write(LAPIC_LVT_COUNTER, 0x51);
    wrmsr(SELECT, INSNS | BOTH | INT);
    wrmsr(PMC, -300);
    wrmsr(CONTROL, ALL);
    run_a_while();
    EXPECT(count[0x51], 1);
    EXPECT(control_seen, 0);
    EXPECT(rdmsr(CONTROL), 0);
    EXPECT(rdmsr(PMC) < 100, 1);
    wrmsr(DEBUGCTL, 0);
    stop();
}

void guest_main(void)
{
    u32 regs[4];

    cpuid(0xa, 0, regs);
    version = regs[0] & 255;
    general = regs[0] >> 8 & 255;
    if (version < 2 || general < 2 || (regs[3] & 31) < 3 || regs[0] >> 16 != (7 << 8 | 48) ||
        regs[1] & 0x27)
        return;
    lapic_enable();
    pic_disable();
    EXPECT(rdmsr(CONTROL) & 0xf, 0xf);
    straight();
    branches();
    strings();
    exceptions();
    interrupts();
    stepping();
    levels();
    read_counters();
    refused_reads();
    registers();
    overflow();
    overflow_is_prompt();
    cycles();
    freeze();
}
