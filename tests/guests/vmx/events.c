/* Events and what they meet: debug exceptions, NMIs, interrupts, INIT, the trap flag, the timer. */
#include "harness.h"

#define BS (1u << 14)
#define ENABLED_BREAKPOINT (1u << 12)
#define TF (1u << 8)
#define IF (1u << 9)
#define RF (1u << 16)
#define VALID 0x80000000u

/* --- pending debug exceptions (25.4.2, 27.7.3, 28.3.4) --- */

static void pending_debug(void)
{
    begin("27.7.3 a pending debug exception", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 1);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), VALID | 0x301);
    EXPECT(GET(exit_qualification), 1);
    EXPECT(guest_at(code_nops), 0);
    EXPECT(GET(guest_pending_debug_exceptions), 0);

    begin("27.7.3 bits that nothing enables are not delivered", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_pending_debug_exceptions, 3);
    EXPECT(run(), 18);

    begin("27.7.3 pending single step and breakpoints at once", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | BS | 4);
    EXPECT(run(), 0);
    EXPECT(GET(exit_qualification), BS | 4);

    begin("27.7.3 blocking by STI does not hold them back", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_rflags, 2 | IF);
    PUT(guest_interruptibility_state, 1);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 1);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_nops), 0);

    begin("27.7.3 blocking by MOV SS holds them back for an instruction", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_interruptibility_state, 2);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 2);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_nops), 1);
    EXPECT(GET(exit_qualification), 2);
    EXPECT(GET(guest_interruptibility_state), 0);

    begin("27.7.3 MOV SS, single step and a breakpoint", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_interruptibility_state, 2);
    PUT(guest_rflags, 2 | TF);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | BS | 2);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_nops), 1);
    EXPECT(GET(exit_qualification), BS | 2);

    begin("27.7.3 an injected exception drops them", code_nops);
    PUT(exception_bitmap, 1 << 1);
    gate(13, code_handler);
    use_idt();
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 1);
    PUT(vm_entry_interruption_information, VALID | 1 << 11 | 3 << 8 | 13);
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(GET(guest_pending_debug_exceptions), 0);
}

GUEST(code_mov_ss_cpuid, "mov %ss, %eax; mov %eax, %ss; cpuid; nop; vmcall");
static void pending_debug_saved(void)
{
    begin("28.3.4 an exit in the shadow of MOV SS saves what is pending", code_nops);
    PUT(guest_rip, (u64)code_mov_ss_cpuid + 4);
    PUT(guest_interruptibility_state, 2);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 8);
    EXPECT(run(), 10);
    EXPECT(GET(guest_interruptibility_state), 2);
    EXPECT(GET(guest_pending_debug_exceptions), ENABLED_BREAKPOINT | 8);

    begin("28.3.4 single step pending in the shadow of MOV SS", code_mov_ss_cpuid);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_rflags, 2 | TF);
    EXPECT(run(), 0); /* behind the first instruction, */
    EXPECT(guest_at(code_mov_ss_cpuid), 2);
    EXPECT(run(), 10); /* not behind MOV to SS */
    EXPECT(GET(guest_interruptibility_state), 2);
    EXPECT(GET(guest_pending_debug_exceptions), BS);

    begin("26.5.2 the trap flag's exit comes before a single-step trap", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PUT(guest_rflags, 2 | TF);
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_nops), 1);
    EXPECT(GET(guest_pending_debug_exceptions), BS);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_nops), 1);
    EXPECT(GET(exit_qualification), BS);
    EXPECT(GET(guest_pending_debug_exceptions), 0);
}

/* --- what injection does besides, and its exits (27.6, 28.1) --- */

static void inject(const char *name, u32 info)
{
    begin(name, code_nops);
    gate(1, code_handler);
    gate(40, code_handler);
    use_idt();
    PUT(guest_rflags, 2 | IF);
    PUT(vm_entry_instruction_length, 1);
    PUT(vm_entry_interruption_information, VALID | info);
}

/* The IDT is not there. */
static void without_idt(void)
{
    own_ept(false);
    PUT(guest_idtr_base, ROOM);
    ept_4k[0] = 0;
}

GUEST(code_vm86_int, ".code16; cpuid; .code64");
static void injected_events(void)
{
    for (u32 kind = 0x301; kind <= 0x501; kind += 0x200) {
        inject("27.6.1.1 an injected debug exception leaves DR7 and DEBUGCTL alone", kind);
        PUT(guest_dr7, 0x2400);
        ADD(vm_entry_controls, C_entry_load_debug_controls);
        ADD(primary_vm_exit_controls, C_exit_save_debug_controls);
        PUT(guest_ia32_debugctl, 1);
        EXPECT(run(), 18);
        EXPECT(guest_at(code_handler), 1);
        EXPECT(GET(guest_dr7), 0x2400);
        EXPECT(GET(guest_ia32_debugctl), 1);
    }

    inject("27.6.1.1 IOPL does not forbid an injected INT n in virtual-8086 mode", 0x428);
    own_ept(false);
    virtual_8086(code_vm86_int);
    PUT(exception_bitmap, 1 << 13);
    PUT(guest_idtr_limit, 0);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_error_code), 40 * 8 + 2); /* not 0: the gate is looked for */
    EXPECT(GET(idt_vectoring_information), VALID | 0x428);

    inject("27.6.2 a pending MTF exit comes before pending debug exceptions", 0x700);
    PUT(guest_pending_debug_exceptions, BS);
    EXPECT(run(), 37);
    EXPECT(GET(guest_pending_debug_exceptions), BS);

    inject("28.1 an exit in a delivery is one of the active state", 40);
    without_idt();
    PUT(guest_activity_state, 1);
    EXPECT(run(), 48);
    EXPECT(GET(guest_activity_state), 0);
    EXPECT(GET(idt_vectoring_information), VALID | 40);

    inject("28.1 an exit in a delivery finds no blocking by MOV SS", 0x428);
    without_idt();
    PUT(guest_interruptibility_state, 2);
    EXPECT(run(), 48);
    EXPECT(GET(guest_interruptibility_state), 0);
}

/* --- exceptions (26.2, 28.2) --- */

GUEST(code_int3, "int3; .byte 0xf1, 0xcd, 3; vmcall");
static void software_exceptions(void)
{
    begin("26.2 INT3 and INT1", code_int3);
    PUT(exception_bitmap, 1 << 3 | 1 << 1);
    gate(3, code_handler);
    use_idt();
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), VALID | 6 << 8 | 3);
    EXPECT(GET(vm_exit_instruction_length), 1);
    EXPECT(guest_at(code_int3), 0);
    skip();
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), VALID | 5 << 8 | 1);
    EXPECT(GET(vm_exit_instruction_length), 1);
    skip();
    EXPECT(run(), 18); /* INT n does not ask the bitmap */
    EXPECT(guest_at(code_handler), 1);
    EXPECT(guest_rax, (u64)code_int3 + 4);
}

GUEST(code_fault, "movabs 0x100000000, %al");
static void page_fault_filter(void)
{
    static const struct {
        u32 bitmap, mask, match;
        bool exits;
    } cases[] = {
        {1 << 14, 0, 0, true},  {1 << 14, 0, 1, false}, {0, 0, 1, true},  {0, 0, 0, false},
        {1 << 14, 2, 2, false}, {0, 2, 2, true},        {0, 2, 0, false},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        u64 cr2 = READ_CR(2);

        begin("25.6.3 page-fault error-code mask and match", code_fault);
        gate(14, code_handler);
        use_idt();
        guest_rax = 0;
        PUT(exception_bitmap, cases[i].bitmap);
        PUT(page_fault_error_code_mask, cases[i].mask);
        PUT(page_fault_error_code_match, cases[i].match);
        EXPECT(run(), cases[i].exits ? 0 : 18);
        if (!cases[i].exits)
            continue;
        EXPECT(GET(vm_exit_interruption_information), VALID | 1 << 11 | 3 << 8 | 14);
        EXPECT(GET(vm_exit_interruption_error_code), 0);
        EXPECT(GET(exit_qualification), 0x100000000);
        EXPECT(READ_CR(2), cr2); /* an exit does not write CR2 */
    }
}

static void faults_in_delivery(void)
{
    const u32 bitmaps[] = {1 << 13 | 1 << 8, 1 << 8, 0};

    for (unsigned i = 0; i < 3; i++) {
        begin("28.2.4 a fault in a delivery asks the bitmap before it is a double fault",
              code_nops);
        use_idt();
        PUT(guest_idtr_limit, 0);
        PUT(exception_bitmap, bitmaps[i]);
        PUT(vm_entry_interruption_information, VALID | 1 << 11 | 3 << 8 | 12);
        EXPECT(run(), i < 2 ? 0 : 2);
        if (i == 0) {
            EXPECT(GET(vm_exit_interruption_information), VALID | 1 << 11 | 3 << 8 | 13);
            EXPECT(GET(vm_exit_interruption_error_code), 12 * 8 + 3);
            EXPECT(GET(idt_vectoring_information), VALID | 1 << 11 | 3 << 8 | 12);
        } else {
            EXPECT(GET(idt_vectoring_information) >> 31, 0);
        }
        if (i == 1)
            EXPECT(GET(vm_exit_interruption_information), VALID | 1 << 11 | 3 << 8 | 8);
    }
}

GUEST(code_cpuid, "cpuid; vmcall");
GUEST(code_ud2, "ud2");
GUEST(code_int40, "int $40");
static void saved_rf(void)
{
    begin("28.3.3 RF of a fault that exits", code_ud2);
    PUT(exception_bitmap, 1 << 6);
    EXPECT(run(), 0);
    EXPECT(GET(guest_rflags) & RF, RF);

    begin("28.3.3 RF of an instruction that exits", code_cpuid);
    PUT(guest_rflags, 2 | RF);
    EXPECT(run(), 10);
    EXPECT(GET(guest_rflags) & RF, 0);

    begin("28.3.3 RF of an EPT violation", code_nops);
    own_ept(false);
    ept_4k[0] = 0;
    PUT(guest_rip, ROOM);
    EXPECT(run(), 48);
    EXPECT(GET(guest_rflags) & RF, RF);

    begin("28.3.3 RF of a software interrupt's delivery that exits", code_int40);
    PUT(exception_bitmap, 1 << 13);
    EXPECT(run(), 0);
    EXPECT(GET(idt_vectoring_information), VALID | 4 << 8 | 40);
    EXPECT(GET(vm_exit_instruction_length), 2);
    EXPECT(GET(guest_rflags) & RF, RF); /* the #GP's */

    begin("28.3.3 RF of an exit that no instruction caused", code_nops);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 0);
    PUT(guest_rflags, 2 | RF);
    EXPECT(run(), 52);
    EXPECT(GET(guest_rflags) & RF, RF);
}

/* --- NMIs (26.2, 26.3, 27.6, 28.5.5) --- */

GUEST(code_send_nmi, "mov $0xfee00300, %eax; movl $0, 0x10(%rax); movl $0x4400, (%rax);"
                     "jmp 1f; 1: nop; vmcall");
GUEST(code_bare_iret, "iretq");
static void nmis(void)
{
    LAPIC[0xf0 / 4] = 0x1ff;

    begin("26.2 an NMI exits", code_send_nmi);
    PIN(C_nmi_exiting);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), VALID | 0x202);
    EXPECT(GET(guest_interruptibility_state), 0);
    EXPECT(GET(idt_vectoring_information) >> 31, 0);

    begin("28.5.5 NMIs are blocked after it", code_nops);
    LAPIC[0x310 / 4] = 0;
    LAPIC[0x300 / 4] = 0x4400; /* to itself, where it would find no handler */
    PIN(C_nmi_exiting | C_virtual_nmis);
    EXPECT(run(), 0); /* but not by virtual-NMI blocking */
    EXPECT(GET(vm_exit_interruption_information), VALID | 0x202);
    EXPECT(guest_at(code_nops), 0);
    unblock_nmis();

    begin("26.3 an NMI of the guest's own", code_send_nmi);
    gate(2, code_handler);
    use_idt();
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(GET(guest_interruptibility_state), 8);
    unblock_nmis();

    begin("27.6.1 an injected NMI blocks virtual NMIs", code_nops);
    gate(2, code_handler);
    use_idt();
    PIN(C_nmi_exiting | C_virtual_nmis);
    PUT(vm_entry_interruption_information, VALID | 0x202);
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(GET(guest_interruptibility_state), 8);

    begin("28.3.4 an exit during an NMI's delivery", code_nops);
    use_idt();
    PUT(guest_idtr_limit, 0);
    PUT(exception_bitmap, 1 << 13);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PUT(vm_entry_interruption_information, VALID | 0x202);
    EXPECT(run(), 0);
    EXPECT(GET(idt_vectoring_information), VALID | 0x202);
    EXPECT(GET(guest_interruptibility_state), 8);

    begin("28.2.1 an IRET that ended NMI blocking and met an EPT violation", code_bare_iret);
    own_ept(false);
    ept_4k[0] = 0;
    PIN(C_nmi_exiting | C_virtual_nmis);
    PUT(guest_interruptibility_state, 8);
    PUT(guest_rsp, ROOM + 0x100);
    EXPECT(run(), 48);
    EXPECT(GET(exit_qualification) & 0x1fff, 0x1181 | (GET(exit_qualification) & 0xe00));

    begin("28.2.2 an IRET that ended NMI blocking and faulted", code_bare_iret);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PUT(exception_bitmap, 1 << 14);
    PUT(guest_interruptibility_state, 8);
    PUT(guest_rsp, 0x100000000);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), VALID | 1 << 12 | 1 << 11 | 3 << 8 | 14);

    begin("26.2 an NMI window in the HLT state", code_nops);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting);
    PUT(guest_activity_state, 1);
    EXPECT(run(), 8);
    EXPECT(GET(guest_activity_state), 1);

    begin("26.2 blocking by STI and MOV SS hold the NMI window back", code_nops);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting);
    PUT(guest_interruptibility_state, 2);
    EXPECT(run(), 8);
    EXPECT(guest_at(code_nops), 1);

    begin("27.6 an injected event comes before the NMI window", code_nops);
    gate(40, code_handler);
    use_idt();
    PIN(C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting);
    PUT(vm_entry_interruption_information, VALID | 4 << 8 | 40);
    EXPECT(run(), 8);
    EXPECT(guest_at(code_handler), 0);
}

/* --- external interrupts and INIT (26.2) --- */

GUEST(code_send_self, "mov $0xfee00300, %eax; movl $0x400f2, (%rax); jmp 1f; 1: nop; vmcall");
GUEST(code_sti_hlt, "sti; hlt; nop; vmcall");
static void interrupts(void)
{
    LAPIC[0xf0 / 4] = 0x1ff;

    begin("26.2 an external interrupt that is not acknowledged", code_send_self);
    PIN(C_external_interrupt_exiting);
    EXPECT(run(), 1);
    EXPECT(GET(vm_exit_interruption_information) >> 31, 0);
    EXPECT(LAPIC[0x270 / 4], 1 << 18); /* it is still requested */

    begin("28.2.2 acknowledged on exit", code_nops);
    PIN(C_external_interrupt_exiting);
    ADD(primary_vm_exit_controls, C_exit_acknowledge_interrupt);
    PUT(guest_activity_state, 1);
    EXPECT(run(), 1);
    EXPECT(GET(vm_exit_interruption_information), VALID | 0xf2);
    EXPECT(GET(guest_activity_state), 1);
    EXPECT(LAPIC[0x270 / 4], 0);
    EXPECT(LAPIC[0x170 / 4], 1 << 18);
    LAPIC[0xb0 / 4] = 0;

    begin("26.2 the guest's own interrupt", code_send_self);
    PUT(exception_bitmap, 1 << 13); /* there is no such gate */
    use_idt();
    PUT(guest_rflags, 2 | IF);
    EXPECT(run(), 0);
    EXPECT(GET(idt_vectoring_information), VALID | 0xf2);
    EXPECT(GET(vm_exit_interruption_error_code), 0xf2 * 8 + 3);
    LAPIC[0xb0 / 4] = 0;

    begin("26.2 an interrupt window in the HLT state", code_nops);
    PROC(C_interrupt_window_exiting);
    PUT(guest_activity_state, 1);
    PUT(guest_rflags, 2 | IF);
    EXPECT(run(), 7);
    EXPECT(GET(guest_activity_state), 1);

    begin("26.2 an interrupt window behind STI comes before HLT", code_sti_hlt);
    PROC(C_interrupt_window_exiting);
    REMOVE(primary_processor_based_controls, C_hlt_exiting);
    EXPECT(run(), 7);
    EXPECT(guest_at(code_sti_hlt), 2);
    EXPECT(GET(guest_activity_state), 1);

    begin("26.2 the interrupt window comes before the interrupt", code_nops);
    LAPIC[0x300 / 4] = 0x400f2;
    PROC(C_interrupt_window_exiting);
    PIN(C_external_interrupt_exiting);
    PUT(guest_rflags, 2 | IF);
    EXPECT(run(), 7);
    REMOVE(primary_processor_based_controls, C_interrupt_window_exiting);
    ADD(primary_vm_exit_controls, C_exit_acknowledge_interrupt);
    EXPECT(run(), 1);
    LAPIC[0xb0 / 4] = 0;
}

static void init_signal(void)
{
    begin("26.2 an INIT signal", code_nops);
    LAPIC[0xf0 / 4] = 0x1ff;
    LAPIC[0x310 / 4] = 0;
    LAPIC[0x300 / 4] = 0x4500; /* to itself: held back in VMX root operation */
    EXPECT(run(), 3);
    EXPECT(GET(exit_qualification), 0);
    EXPECT(guest_at(code_nops), 0);
    EXPECT(run(), 18); /* it is gone */
}

/* --- the monitor trap flag (26.5.2) --- */

GUEST(code_rep, "mov $3, %ecx; mov $0x3000000, %edi; rep stosb; vmcall");
GUEST(code_out, "out %al, $0x80; vmcall");
GUEST(code_ud_handler, "nop; vmcall");
static void trap_flag(void)
{
    static const u8 at[] = {5, 10, 10, 10, 12};

    begin("26.5.2 the trap flag in a repeated instruction", code_rep);
    PROC(C_monitor_trap_flag);
    for (unsigned i = 0; i < sizeof(at); i++) {
        EXPECT(run(), 37);
        EXPECT(guest_at(code_rep), at[i]);
    }
    EXPECT(guest_rcx, 0);
    EXPECT(run(), 18);

    begin("26.5.2 the trap flag and a fault", code_ud2);
    gate(6, code_ud_handler);
    use_idt();
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_ud_handler), 0);

    begin("26.5.2 the trap flag and an instruction that exits", code_cpuid);
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 10);
    skip();
    EXPECT(run(), 18);

    begin("26.5.2 the trap flag and an instruction that the engine carries out", code_out);
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_out), 2);

    begin("26.5.2 the trap flag and a software interrupt", code_int40);
    gate(40, code_handler);
    use_idt();
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_handler), 0);

    begin("26.5.2 the trap flag and an external interrupt", code_nops);
    LAPIC[0xf0 / 4] = 0x1ff;
    LAPIC[0x300 / 4] = 0x40028;
    gate(40, code_handler);
    use_idt();
    PUT(guest_rflags, 2 | IF);
    PROC(C_monitor_trap_flag);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_handler), 0);
    LAPIC[0xb0 / 4] = 0;

    begin("26.5.2 the trap flag comes before the interrupt window", code_nops);
    PUT(guest_rflags, 2 | IF);
    PROC(C_monitor_trap_flag | C_interrupt_window_exiting);
    EXPECT(run(), 7); /* nothing has run */
    REMOVE(primary_processor_based_controls, C_interrupt_window_exiting);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_nops), 1);
}

/* --- the preemption timer (26.5.1) --- */

GUEST(code_clock, "rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, %rcx;"
                  "1: rdtsc; shl $32, %rdx; or %rdx, %rax; mov %rax, %rbx; jmp 1b");
static void timer(void)
{
    const u64 rate = rdmsr(0x485) & 31, value = 1000000 >> rate;

    begin("26.5.1 no instruction follows one that saw the time at which it ends", code_clock);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, value);
    EXPECT(run(), 52);
    EXPECT(guest_rbx < ((guest_rcx >> rate) + value) << rate, 1);

    begin("26.5.1 an injected event comes before the timer", code_nops);
    gate(40, code_handler);
    use_idt();
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 0);
    PUT(vm_entry_interruption_information, VALID | 4 << 8 | 40);
    EXPECT(run(), 52);
    EXPECT(guest_at(code_handler), 0);

    begin("26.5.1 a pending debug exception comes before the timer", code_nops);
    PUT(exception_bitmap, 1 << 1);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 0);
    PUT(guest_pending_debug_exceptions, ENABLED_BREAKPOINT | 1);
    EXPECT(run(), 0);

    begin("26.5.1 the timer comes before windows", code_nops);
    PIN(C_activate_vmx_preemption_timer | C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting | C_interrupt_window_exiting);
    PUT(guest_rflags, 2 | IF);
    PUT(vmx_preemption_timer_value, 0);
    EXPECT(run(), 52);

    begin("26.5.1 the timer in the shutdown state", code_nops);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 10000);
    PUT(guest_activity_state, 2);
    EXPECT(run(), 52);
    EXPECT(GET(guest_activity_state), 2);

    begin("26.5.1 the timer's value is not saved unasked", code_nops);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 1u << 31);
    EXPECT(run(), 18);
    EXPECT(GET(vmx_preemption_timer_value), 1u << 31);
    ADD(primary_vm_exit_controls, C_exit_save_preemption_timer);
    EXPECT(run(), 18);
    EXPECT(GET(vmx_preemption_timer_value) < 1u << 31, 1);
}

unsigned test_events(void)
{
    static void (*const tests[])(void) = {
        pending_debug,     pending_debug_saved, injected_events, software_exceptions,
        page_fault_filter, faults_in_delivery,  saved_rf,        nmis,
        interrupts,        init_signal,         trap_flag,       timer,
    };

    return run_groups("events", tests, sizeof(tests) / sizeof(tests[0]));
}
