/*
 * What exits tell of the instruction: qualification, instruction information, linear address
 * (28.2); time-stamp counter, MSR lists, debug controls; the modes a guest can be in.
 */
#include "harness.h"

#define LOW(value) ((value)&0xffffffff)

/* Instruction information of a memory operand (tables 28-9 to 28-14). */
#define MEMORY(scale, segment, index, base)                                                        \
    ((u64)(scale) | 2 << 7 | (u64)(segment) << 15 | (u64)(index) << 18 | (u64)(base) << 23)
#define NO_INDEX (1 << 22)
#define NO_BASE (1 << 27)
#define REGISTER(number) (1u << 10 | (u32)(number) << 3)
#define SECOND(number) ((u64)(number) << 28)

struct wanted {
    u32 reason, length;
    u64 qualification, info, mask; /* @mask: the bits of the information that are defined */
};

static void check_all(const struct wanted *wanted, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        EXPECT(run(), wanted[i].reason);
        EXPECT(GET(vm_exit_instruction_length), wanted[i].length);
        EXPECT(GET(exit_qualification), wanted[i].qualification);
        EXPECT(GET(vm_exit_instruction_information) & wanted[i].mask, wanted[i].info);
        skip();
    }
}

GUEST(code_vmx_operands,
      "vmclear 0x10(%rbx,%rcx,4); vmptrld %fs:-8(%r13); vmxon 0x1234567; vmptrst 0x20(%rip);"
      "vmread %rdx, %rax; vmwrite 0x7f(%r9,%r10,8), %r12; invept (%rsi), %r8;"
      "invvpid %gs:(,%rdi,2), %rbx");
/* The bits that are defined: of all, without an index, without index and base. */
#define OPERAND 0xfff8383ull
#define UNINDEXED (OPERAND & ~0x3c0003ull)
#define ABSOLUTE (UNINDEXED & ~0x7800000ull)

static void vmx_operands(void)
{
    const struct wanted wanted[] = {
        {19, 6, 0x10, MEMORY(2, 3, 1, 3), OPERAND},
        {21, 6, -8ull, MEMORY(0, 4, 0, 13) | NO_INDEX, UNINDEXED},
        {27, 9, 0x1234567, MEMORY(0, 3, 0, 0) | NO_INDEX | NO_BASE, ABSOLUTE},
        {22, 7, (u64)code_vmx_operands + 28 + 0x20, MEMORY(0, 3, 0, 0) | NO_INDEX | NO_BASE,
         ABSOLUTE},
        {23, 3, 0, REGISTER(0) | SECOND(2), 0x478 | SECOND(15)},
        {25, 6, 0x7f, MEMORY(3, 3, 10, 9) | SECOND(12), OPERAND | 1 << 10 | SECOND(15)},
        {50, 6, 0, MEMORY(0, 3, 0, 6) | NO_INDEX | SECOND(8), UNINDEXED | SECOND(15)},
        {53, 11, 0, MEMORY(1, 5, 7, 0) | NO_BASE | SECOND(3),
         (OPERAND & ~0x7800000ull) | SECOND(15)},
    };

    begin("28.2.5 operands of VMX instructions", code_vmx_operands);
    check_all(wanted, sizeof(wanted) / sizeof(wanted[0]));
}

GUEST(code_descriptors, "sgdt (%rax); sidt 8(%rax); lgdt 16(%rax); lidt (%rbx,%rdx,2);"
                        "sldt %ecx; str (%rbp); lldt %si; ltr 4(%rdi)");
static void descriptor_tables(void)
{
    const u64 identity = 3u << 28, memory = UNINDEXED | identity;
    const struct wanted wanted[] = {
        {46, 3, 0, MEMORY(0, 3, 0, 0) | NO_INDEX, memory},
        {46, 4, 8, MEMORY(0, 3, 0, 0) | NO_INDEX | 1 << 28, memory},
        {46, 4, 16, MEMORY(0, 3, 0, 0) | NO_INDEX | 2 << 28, memory},
        {46, 4, 0, MEMORY(1, 3, 2, 3) | 3 << 28, OPERAND | identity},
        {47, 3, 0, REGISTER(1), 0x478 | identity},
        {47, 4, 0, MEMORY(0, 2, 0, 5) | NO_INDEX | 1 << 28, memory | 1 << 10},
        {47, 3, 0, REGISTER(6) | 2 << 28, 0x478 | identity},
        {47, 4, 4, MEMORY(0, 3, 0, 7) | NO_INDEX | 3u << 28, memory | 1 << 10},
    };

    begin("28.2.5 operands of descriptor-table instructions", code_descriptors);
    PROC2(C_descriptor_table_exiting);
    check_all(wanted, sizeof(wanted) / sizeof(wanted[0]));
}

GUEST(code_random, "rdrand %r8; rdrand %ax; rdseed %ecx; invpcid -8(%rax), %rdx;"
                   "invpcid 0x100(%rip), %rdx");
static void random_and_invpcid(void)
{
    const struct wanted wanted[] = {
        {57, 4, 0, 8 << 3 | 2 << 11, 0x1878},
        {57, 4, 0, 0, 0x1878},
        {61, 3, 0, 1 << 3 | 1 << 11, 0x1878},
        {58, 6, -8ull, MEMORY(0, 3, 0, 0) | NO_INDEX | SECOND(2), UNINDEXED | SECOND(15)},
        {58, 9, (u64)code_random + 26 + 0x100, MEMORY(0, 3, 0, 0) | NO_INDEX | NO_BASE | SECOND(2),
         ABSOLUTE | SECOND(15)},
    };

    begin("28.2.5 RDRAND, RDSEED and INVPCID", code_random);
    PROC(C_invlpg_exiting);
    PROC2(C_rdrand_exiting | C_rdseed_exiting | C_enable_invpcid);
    check_all(wanted, sizeof(wanted) / sizeof(wanted[0]));
}

GUEST(code_user_wait, ".byte 0xf2, 0x41, 0x0f, 0xae, 0xf1; .byte 0x66, 0x0f, 0xae, 0xf1");
GUEST(code_umonitor, ".byte 0xf3, 0x0f, 0xae, 0xf4; .byte 0x66, 0x0f, 0xae, 0xf1; vmcall");
static void user_wait(void)
{
    const struct wanted wanted[] = {
        {67, 5, 0, 9 << 3 | 1 << 11, 0x1878},
        {68, 4, 0, 1 << 3 | 1 << 11, 0x1878},
    };

    begin("28.2.5 UMWAIT and TPAUSE", code_user_wait);
    PROC(C_rdtsc_exiting);
    PROC2(C_enable_user_wait_and_pause);
    check_all(wanted, sizeof(wanted) / sizeof(wanted[0]));

    begin("26.3 UMONITOR, UMWAIT and TPAUSE are enabled", code_umonitor);
    guest_rcx = 0;
    PROC2(C_enable_user_wait_and_pause);
    EXPECT(run(), 18);

    begin("26.3 UMONITOR is not enabled", code_umonitor);
    PUT(exception_bitmap, 1 << 6);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_umonitor), 0);
    PUT(guest_rip, (u64)code_umonitor + 4);
    PROC(C_rdtsc_exiting); /* #UD comes first */
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000306);
    EXPECT(guest_at(code_umonitor), 4);
}

GUEST(code_string_io, "outsb; rep insl; outsw %fs:(%esi), %dx; insb");
static void string_io(void)
{
    begin("28.2.1 INS and OUTS", code_string_io);
    PROC(C_unconditional_io_exiting);
    guest_rdx = 0x345;
    guest_rsi = ROOM + 4;
    guest_rdi = ROOM + 8;
    guest_rcx = 7;
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x3450010);
    EXPECT(GET(guest_linear_address), ROOM + 4);
    EXPECT(GET(vm_exit_instruction_information) & 0x38380, MEMORY(0, 3, 0, 0));
    skip();
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x345003b);
    EXPECT(GET(guest_linear_address), ROOM + 8);
    EXPECT(GET(vm_exit_instruction_information) & 0x380, 2 << 7);
    EXPECT(guest_rcx, 7);
    skip();
    PUT(guest_fs_base, 0x100);
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x3450011);
    EXPECT(GET(guest_linear_address), ROOM + 0x104);
    EXPECT(GET(vm_exit_instruction_information) & 0x38380, 1 << 7 | 4 << 15);
    skip();
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x3450018);
}

GUEST(code_control_registers, "lmsw %ax; lmsw 2(%rbx); clts; mov %cr8, %r9; mov %r9, %cr8;"
                              "mov %r10, %dr7; mov %dr3, %rsp; mov %rsp, %cr4; smsw %ax; vmcall");
static void control_registers(void)
{
    begin("28.2.1 control and debug registers", code_control_registers);
    PROC(C_cr8_load_exiting | C_cr8_store_exiting | C_mov_dr_exiting);
    PUT(cr0_guest_host_mask, 0xf);
    PUT(cr0_read_shadow, 8);
    PUT(cr4_guest_host_mask, ~0ull);
    PUT(cr4_read_shadow, ~0ull);
    guest_rax = 0xffff0005;
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x50030);
    skip();
    guest_rbx = ROOM;
    *(u16 *)(ROOM + 2) = 0x1234;
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x12340070);
    EXPECT(GET(guest_linear_address), ROOM + 2);
    skip();
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x20);
    skip();
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x918);
    skip();
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x908);
    skip();
    EXPECT(run(), 29);
    EXPECT(GET(exit_qualification), 0xa07);
    skip();
    EXPECT(run(), 29);
    EXPECT(GET(exit_qualification), 0x413);
    skip();
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 0x404);
    skip();
    guest_rax = 0;
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0xf, 8); /* SMSW reads the shadow */
}

GUEST(code_owned, "mov %cr0, %rax; and $~2, %rax; mov %rax, %cr0; mov %cr0, %rax; vmcall;"
                  "lmsw %bx; vmcall");
static void owned_bits(void)
{
    u64 cr0;

    begin("26.3 bits of CR0 that the guest does not own", code_owned);
    cr0 = GET(guest_cr0);
    PUT(cr0_guest_host_mask, 1 << 5 | 1 << 3);
    PUT(cr0_read_shadow, 1 << 3); /* NE reads as 0, TS as 1 */
    EXPECT(run(), 18);
    EXPECT(GET(guest_cr0), cr0 & ~2ull);
    EXPECT(guest_rax, ((cr0 & ~2ull) | 8) & ~0x20ull);
    skip();
    guest_rbx = 0xc; /* TS as the shadow has it, EM, no PE */
    EXPECT(run(), 18);
    EXPECT(GET(guest_cr0) & 0xf, 5);
}

/* --- MSRs and the time-stamp counter --- */

GUEST(code_bounds, "rdmsr; mov $0xc0002000, %ecx; rdmsr; mov $0x40000000, %ecx; wrmsr;"
                   "mov $0xc0001fff, %ecx; wrmsr");
static void msr_bounds(void)
{
    begin("25.6.9 MSRs that no bitmap has", code_bounds);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    guest_rcx = 0x2000;
    EXPECT(run(), 31);
    skip();
    EXPECT(run(), 31);
    skip();
    EXPECT(run(), 32);
    skip();
    pages[0][3072 + 1023] = 0x80;
    EXPECT(run(), 32);
    pages[0][3072 + 1023] = 0;
    PUT(exception_bitmap, 1 << 13);
    EXPECT(run(), 0);
}

static u64 tsc(void)
{
    u32 low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}

#define NEAR(value, around) ((u64)(value) - (around) < 1ull << 36)

GUEST(code_tsc, "rdtsc; shl $32, %rdx; or %rdx, %rax; vmcall;"
                "mov $16, %ecx; rdmsr; shl $32, %rdx; or %rdx, %rax; vmcall;"
                "xor %eax, %eax; xor %edx, %edx; wrmsr; vmcall");
static void time_stamp_counter(void)
{
    u64 before = tsc();

    begin("26.3 TSC offset", code_tsc);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps | C_use_tsc_offsetting);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PUT(tsc_offset, 1ull << 50);
    EXPECT(run(), 18);
    EXPECT(NEAR(guest_rax, before + (1ull << 50)), 1);
    skip();
    EXPECT(run(), 18);
    EXPECT(NEAR(guest_rax, before + (1ull << 50)), 1);
    skip();
    PUT(guest_rip, (u64)code_tsc);
    PROC2(C_use_tsc_scaling);
    PUT(tsc_multiplier, 1ull << 49);
    before = tsc();
    EXPECT(run(), 18);
    EXPECT(NEAR(guest_rax, 2 * before + (1ull << 50)), 1);
    PUT(guest_rip, (u64)code_tsc + 23);
    before = tsc();
    guest_rcx = 16;
    EXPECT(run(), 18); /* WRMSR writes the counter itself */
    EXPECT(NEAR(tsc(), 0), 1);
    wrmsr(0x10, before);
}

GUEST(code_kernel_gs, "mov $0xc0000102, %ecx; rdmsr; vmcall");
static void msr_lists(void)
{
    static struct {
        u32 index, reserved;
        u64 value;
    } list[513] __attribute__((aligned(16)));
    const u32 kernel_gs = 0xc0000102;
    u64 before;

    for (unsigned i = 0; i < 513; i++) {
        list[i].index = kernel_gs;
        list[i].reserved = 0;
        list[i].value = i;
    }
    begin("27.4, 28.4 lists of MSRs", code_kernel_gs);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PUT(vm_entry_msr_load_address, (u64)list);
    PUT(vm_entry_msr_load_count, 512);
    PUT(vm_exit_msr_store_address, (u64)(list + 1));
    PUT(vm_exit_msr_store_count, 1);
    PUT(vm_exit_msr_load_address, (u64)(list + 2));
    PUT(vm_exit_msr_load_count, 1);
    list[2].value = 0x2222;
    list[511].value = 0x511;
    EXPECT(run(), 18);
    EXPECT(LOW(guest_rax), 0x511);
    EXPECT(list[1].value, 0x511);
    EXPECT(rdmsr(kernel_gs), 0x2222);
    PUT(vm_entry_msr_load_count, 513); /* more than IA32_VMX_MISC recommends */
    EXPECT(run(), 0x80000022);
    EXPECT(GET(exit_qualification), 513);
    PUT(vm_entry_msr_load_count, 3);
    list[1].index = 0xc0000100; /* the FS base is a field */
    EXPECT(run(), 0x80000022);
    EXPECT(GET(exit_qualification), 2);
    PUT(vm_exit_msr_store_count, 0);
    PUT(vm_exit_msr_load_count, 0);

    begin("28.4 the stored time-stamp counter has no offset", code_kernel_gs);
    PROC(C_use_msr_bitmaps | C_use_tsc_offsetting);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PUT(tsc_offset, 1ull << 50);
    list[0].index = 0x10;
    PUT(vm_exit_msr_store_address, (u64)list);
    PUT(vm_exit_msr_store_count, 1);
    before = tsc();
    EXPECT(run(), 18);
    EXPECT(list[0].value >= before && list[0].value <= tsc(), 1);
    PUT(vm_exit_msr_store_count, 0);
}

GUEST(code_cr0, "mov %cr0, %rax; vmcall");
static void kept_bits(void)
{
    const u64 kept = 0x7ffaffd0; /* reserved, ET, NW, CD */
    u64 cr0;

    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    begin("27.3.2.1 some bits of CR0 stay with an entry", code_cr0);
    PUT(guest_cr0, GET(guest_cr0) ^ kept);
    EXPECT(run(), 18);
    EXPECT(guest_rax & kept, cr0 & kept);
    EXPECT(GET(guest_cr0) & kept, cr0 & kept);

    begin("28.5.1 and with an exit", code_cr0);
    PUT(host_cr0, GET(host_cr0) ^ kept);
    EXPECT(run(), 18);
    __asm__ volatile("mov %%cr0, %0" : "=r"(guest_rax));
    EXPECT(guest_rax, cr0);
}

GUEST(code_debugctl, "mov $0x1d9, %ecx; rdmsr; vmcall");
static void debug_controls(void)
{
    begin("27.3.2.1, 28.3.1 debug controls", code_debugctl);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    ADD(primary_vm_exit_controls, C_exit_save_debug_controls);
    PUT(guest_dr7, 0x402);
    PUT(guest_ia32_debugctl, 2);
    EXPECT(run(), 18);
    EXPECT(LOW(guest_rax), 2);
    EXPECT(GET(guest_ia32_debugctl), 2);
    EXPECT(GET(guest_dr7), 0x402);
    EXPECT(rdmsr(0x1d9), 0);
    REMOVE(vm_entry_controls, C_entry_load_debug_controls);
    PUT(guest_rip, (u64)code_debugctl);
    EXPECT(run(), 18);
    EXPECT(LOW(guest_rax), 0); /* as the host had it */
    EXPECT(GET(guest_dr7), 0x400);
    EXPECT(GET(guest_ia32_debugctl), 0);
}

#define PERF_CONTROL 0x38f
GUEST(code_counters, "mov $0x38f, %ecx; rdmsr; vmcall; mov $2, %eax; mov $0, %edx; wrmsr; vmcall");
GUEST(code_count_2, "nop; vmcall");
GUEST(code_count_102, ".rept 101; nop; .endr; vmcall");
GUEST(code_count_loop, "mov $1000, %esi; 1: dec %esi; jnz 1b; vmcall");
GUEST(code_rdpmc, "xor %ecx, %ecx; rdpmc; vmcall");

/* Counter 0 counts instructions; it runs in the host if bit 0 of @host is set, in the guest if that
 * of @guest is. */
static u64 counted(void (*code)(void), u64 host, u64 guest)
{
    u64 count;

    begin("27.3.2.1, 28.5.1 counters stop and go", code);
    ADD(vm_entry_controls, C_entry_load_perf_global_ctrl);
    ADD(primary_vm_exit_controls, C_exit_load_perf_global_ctrl);
    PUT(guest_ia32_perf_global_ctrl, guest);
    PUT(host_ia32_perf_global_ctrl, host);
    wrmsr(0x186, 0x4200c0);
    wrmsr(0xc1, 0);
    wrmsr(PERF_CONTROL, host);
    EXPECT(run(), 18);
    wrmsr(PERF_CONTROL, 0);
    count = rdmsr(0xc1);
    wrmsr(0x186, 0);
    return count;
}

static void performance_counters(void)
{
    u64 base;

    begin("27.3.2.1, 28.5.1 IA32_PERF_GLOBAL_CTRL", code_counters);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    EXPECT(may_be_one(0x483) >> 12 & 1, 1);
    EXPECT(may_be_one(0x483) >> 30 & 1, 1);
    EXPECT(may_be_one(0x484) >> 13 & 1, 1);
    wrmsr(PERF_CONTROL, 1);
    PUT(guest_ia32_perf_global_ctrl, 0x700000000);
    PUT(host_ia32_perf_global_ctrl, 0xc);
    EXPECT(run(), 18); /* neither loaded nor saved */
    EXPECT(LOW(guest_rax), 1);
    EXPECT(rdmsr(PERF_CONTROL), 1);
    PUT(guest_rip, (u64)code_counters);
    ADD(vm_entry_controls, C_entry_load_perf_global_ctrl);
    EXPECT(run(), 18); /* stays when the host goes on */
    EXPECT(LOW(guest_rdx), 7);
    EXPECT(rdmsr(PERF_CONTROL), 0x700000000);
    PUT(guest_rip, (u64)code_counters);
    ADD(primary_vm_exit_controls, C_exit_load_perf_global_ctrl);
    EXPECT(run(), 18);
    EXPECT(LOW(guest_rdx), 7);
    EXPECT(rdmsr(PERF_CONTROL), 0xc);
    skip();
    ADD(primary_vm_exit_controls, C_exit_save_perf_global_ctrl);
    EXPECT(run(), 18);
    EXPECT(GET(guest_ia32_perf_global_ctrl), 2);
    EXPECT(rdmsr(PERF_CONTROL), 0xc);
    wrmsr(PERF_CONTROL, 0);

    base = counted(code_count_2, 0, 1);
    EXPECT(base >= 1 && base <= 3, 1);
    EXPECT(counted(code_count_102, 0, 1) - base, 100);
    EXPECT(counted(code_count_loop, 0, 1) - base, 2000);
    base = counted(code_count_2, 1, 0);
    EXPECT(base > 10, 1);
    EXPECT(counted(code_count_102, 1, 0), base);
    base = counted(code_count_2, 1, 1);
    EXPECT(counted(code_count_loop, 1, 1) - base, 2000);

    begin("26.1.3 RDPMC", code_rdpmc);
    wrmsr(0xc1, 0x12345678);
    EXPECT(run(), 18);
    EXPECT(LOW(guest_rax), 0x12345678);
    PUT(guest_rip, (u64)code_rdpmc);
    PROC(C_rdpmc_exiting);
    EXPECT(run(), 15);
    EXPECT(GET(vm_exit_instruction_length), 2);
    EXPECT(guest_at(code_rdpmc), 2);
    wrmsr(0xc1, 0);
}

/* --- modes --- */

/* 32-bit protected mode without paging. */
static void protected_mode(const char *name, void (*code)(void))
{
    begin(name, code);
    without_paging();
    PUT(guest_cs_access_rights, 0xc09b);
}

GUEST(code_protected, ".code32; mov $0x12345678, %eax; vmcall; mov %eax, %cr3; vmcall; .code64");
GUEST(code_to_long,
      ".code32; mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0; cpuid; .code64");
GUEST(code_vm86, ".code16; mov $0x4321, %ax; cpuid; .code64");
GUEST(code_function, "xor %eax, %eax; vmfunc");
static void modes(void)
{
    u64 *table = (u64 *)pages[4],
        directory = ((u64 *)(((u64 *)root)[0] & ~0xfffull))[0] & ~0xfffull;

    protected_mode("27.3.2 protected mode without paging", code_protected);
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x12345678);

    protected_mode("27.3.2.4 PAE paging by the fields", code_protected);
    PUT(guest_cr0, 0x80000031);
    PUT(guest_pdpte0, directory | 1);
    EXPECT(run(), 18);
    EXPECT(GET(guest_pdpte0), directory | 1);
    table[0] = directory | 1;
    table[1] = directory | 0x201;
    table[2] = table[3] = 0;
    skip();
    guest_rax = (u64)table;
    EXPECT(run(), 18);
    EXPECT(GET(guest_pdpte1), directory | 0x201); /* MOV to CR3 has loaded them */
    EXPECT(GET(guest_pdpte2), 0);

    begin("27.3.2.4 PAE paging by memory", code_protected);
    REMOVE(vm_entry_controls, C_entry_ia32e_mode_guest);
    PUT(guest_ia32_efer, 0);
    PUT(guest_cs_access_rights, 0xc09b);
    PUT(guest_cr3, (u64)table);
    EXPECT(run(), 18);
    table[3] = 0x1e7;
    EXPECT(run(), 0x80000021);
    EXPECT(GET(exit_qualification), 2);

    begin("27.3.2 compatibility mode", code_protected);
    PUT(guest_cs_access_rights, 0xc09b);
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x12345678);

    begin("26.5.6.2 VMFUNC in compatibility mode", code_function);
    PUT(guest_cs_access_rights, 0xc09b);
    PROC2(C_enable_vm_functions);
    EXPECT(run(), 59); /* no function is enabled */

    protected_mode("28.3.1 into IA-32e mode", code_to_long);
    PUT(guest_ia32_efer, 0x100);
    EXPECT(run(), 10);
    EXPECT(GET(guest_ia32_efer), 0x500);
    EXPECT(GET(vm_entry_controls) & C_entry_ia32e_mode_guest, C_entry_ia32e_mode_guest);

    begin("27.3.1.2 virtual-8086 mode", code_vm86);
    virtual_8086(code_vm86);
    EXPECT(run(), 10);
    EXPECT(guest_rax & 0xffff, 0x4321);
    EXPECT(GET(guest_rflags), 0x20002);
}

/* --- instructions that a control enables --- */

GUEST(code_enabled, "rdtscp; rdpid %rax; invpcid (%rdx), %rax; xsaves (%rdx); xrstors (%rdx);"
                    "vmfunc; vmcall");
/* Makes the first pages of each level of @table the user's too, or the supervisor's alone again. */
static void user_pages(u64 *table, unsigned levels, u64 bit)
{
    for (; levels--; table = (u64 *)(*table & ~0xfffull))
        *table = (*table & ~4ull) | bit;
}

static void enabled(void)
{
    static const u8 lengths[] = {3, 4, 5, 4, 4, 3};
    const u32 controls =
        C_enable_rdtscp | C_enable_invpcid | C_enable_xsaves_xrstors | C_enable_vm_functions;

    begin("26.3 instructions that need a control are #UD before any other exception", code_enabled);
    REMOVE(secondary_processor_based_controls, controls);
    PROC(C_rdtsc_exiting | C_invlpg_exiting);
    PUT(exception_bitmap, 1 << 6);
    PUT(guest_cr4, GET(guest_cr4) | 1 << 2 | 1 << 18); /* TSD, OSXSAVE */
    PUT(guest_ss_access_rights, 0xc0f3);               /* CPL 3: all but RDPID are #GP */
    PUT(guest_cs_access_rights, 0xa0fb);
    PUT(guest_cs_selector, GET(guest_cs_selector) | 3);
    PUT(guest_ss_selector, GET(guest_ss_selector) | 3);
    user_pages((u64 *)root, 3, 4);
    for (unsigned i = 0; i < sizeof(lengths); i++) {
        EXPECT(run(), 0);
        EXPECT(GET(vm_exit_interruption_information), 0x80000306);
        PUT(guest_rip, GET(guest_rip) + lengths[i]);
    }
    user_pages((u64 *)root, 3, 0);

    begin("26.3 RDPID is enabled with RDTSCP, and RDTSC exiting is not for it", code_enabled);
    PROC(C_rdtsc_exiting);
    PROC2(C_enable_rdtscp);
    wrmsr(0xc0000103, 0x13579bdf);
    EXPECT(run(), 51);
    skip();
    PUT(exception_bitmap, 1 << 6);
    EXPECT(run(), 0); /* INVPCID */
    EXPECT(guest_at(code_enabled), 7);
    EXPECT(guest_rax, 0x13579bdf);
}

GUEST(code_vmwrite32,
      ".code32; mov $0x2010, %edx; mov $0x13579bdf, %eax; vmwrite %eax, %edx; vmcall; .code64");
static void widths(void)
{
    u64 mine, shadow = (u64)pages[2];

    begin("27.3.1.4 RIP may have the CPU's width where the guest's paging has less", code_nops);
    PUT(guest_rip, 0x00f0000000000000);
    PUT(exception_bitmap, 1 << 13);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000b0d);

    memset(pages[2], 0, 4096);
    memset(pages[3], 0, 4096);
    *(u32 *)pages[2] = (u32)rdmsr(0x480) | 1u << 31;
    protected_mode("31.3 VMWRITE of 32 bits clears the field's high half", code_vmwrite32);
    __asm__ volatile("vmptrst %0" : "=m"(mine));
    __asm__ volatile("vmclear %0; vmptrld %0" : : "m"(shadow) : "cc", "memory");
    PUT(tsc_offset, ~0ull);
    __asm__ volatile("vmptrld %0" : : "m"(mine) : "cc", "memory");
    PROC2(C_vmcs_shadowing);
    PUT(vmread_bitmap_address, (u64)pages[3]);
    PUT(vmwrite_bitmap_address, (u64)pages[3]);
    PUT(vmcs_link_pointer, shadow);
    EXPECT(run(), 18);
    __asm__ volatile("vmptrld %0" : : "m"(shadow) : "cc", "memory");
    EXPECT(GET(tsc_offset), 0x13579bdf);
    __asm__ volatile("vmptrld %0" : : "m"(mine) : "cc", "memory");
}

unsigned test_information(void)
{
    static void (*const tests[])(void) = {
        vmx_operands,
        descriptor_tables,
        random_and_invpcid,
        user_wait,
        string_io,
        control_registers,
        owned_bits,
        msr_bounds,
        time_stamp_counter,
        msr_lists,
        debug_controls,
        kept_bits,
        performance_counters,
        modes,
        enabled,
        widths,
    };

    return run_groups("information", tests, sizeof(tests) / sizeof(tests[0]));
}
