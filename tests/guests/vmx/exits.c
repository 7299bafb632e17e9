/*
 * What makes VM exits, what they report, and what non-root operation does without one. Guest code
 * is a bare function; a test makes a VMCS, runs it, and looks at what came back.
 */
#include "harness.h"

/* --- instructions (26.1) --- */

GUEST(code_simple, "cpuid; hlt; xsetbv; invd; vmcall; vmxoff; vmlaunch");
static void simple_instructions(void)
{
    static const u16 reasons[] = {10, 12, 55, 13, 18, 26, 20};
    static const u16 lengths[] = {2, 1, 3, 2, 3, 3, 3};

    begin("26.1.2 instructions that always exit", code_simple);
    PUT(guest_cr4, GET(guest_cr4) | 1 << 18);
    for (unsigned i = 0; i < 7; i++) {
        EXPECT(run(), reasons[i]);
        EXPECT(GET(vm_exit_instruction_length), lengths[i]);
        skip();
    }
}

GUEST(code_cr, "mov %rax, %cr3; mov %cr3, %rdx; mov %cr0, %rax; vmcall; mov %rax, %cr4; vmcall;"
               "clts; vmcall");
static void control_registers(void)
{
    begin("26.1.3 control registers", code_cr);
    PROC(C_cr3_load_exiting | C_cr3_store_exiting);
    PUT(cr0_guest_host_mask, 8 | 1 << 16);
    PUT(cr0_read_shadow, 8);
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 3);
    PUT(cr3_target_count, 1);
    PUT(cr3_target_value_0, GET(guest_cr3));
    guest_rax = GET(guest_cr3);
    EXPECT(run(), 28);
    EXPECT(GET(exit_qualification), 3 | 1 << 4 | 2 << 8);
    skip();
    EXPECT(run(), 18);
    EXPECT(guest_rax, (GET(guest_cr0) & ~0x10008ull) | 8);
    skip();
    PUT(cr4_guest_host_mask, 1 << 13);
    guest_rax = GET(guest_cr4) & ~(1ull << 13); /* as the read shadow has it */
    EXPECT(run(), 18);
    skip();
    EXPECT(run(), 28); /* the shadow's TS is set and not the guest's to clear */
    EXPECT(GET(exit_qualification), 2 << 4);
}

GUEST(code_io, "in $0x70, %al; out %al, $0x80; mov $0x8000, %edx; inl %dx, %eax; vmcall");
static void ports(void)
{
    begin("26.1.3 I/O bitmaps", code_io);
    memset(pages[0], 0, 8192);
    PROC(C_use_io_bitmaps);
    PUT(io_bitmap_a_address, (u64)pages[0]);
    PUT(io_bitmap_b_address, (u64)pages[1]);
    pages[0][0x80 / 8] = 1;
    pages[1][0] = 8; /* 8003h, the last of four ports */
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x800040);
    skip();
    EXPECT(run(), 30);
    EXPECT(GET(exit_qualification), 0x8000000b);
}

GUEST(code_msr, "mov $0x174, %ecx; rdmsr; mov $0xc0000082, %ecx; rdmsr; wrmsr; vmcall");
static void msrs(void)
{
    begin("26.1.3 MSR bitmaps", code_msr);
    memset(pages[0], 0, 4096);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    pages[0][3072 + 0x82 / 8] = 4;
    EXPECT(run(), 32);
    EXPECT(GET(vm_exit_instruction_length), 2);
}

GUEST(code_exits_first, "outsb; rep insb; monitor; mwait; vmcall");
static void exits_before_faults(void)
{
    static const u16 reasons[] = {30, 30, 39, 36};

    begin("26.1.1 an exit comes before faults of the operand", code_exits_first);
    PROC(C_unconditional_io_exiting | C_monitor_exiting | C_mwait_exiting);
    PUT(exception_bitmap, ~0u);
    guest_rsi = 1ull << 63;
    guest_rcx = 2;
    for (unsigned i = 0; i < 4; i++) {
        EXPECT(run(), reasons[i]);
        skip();
    }

    begin("26.1.1 without the exit they fault", code_exits_first);
    PUT(exception_bitmap, ~0u);
    guest_rsi = 1ull << 63;
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000b0d);
    PUT(guest_rip, (u64)code_exits_first + 3);
    guest_rcx = 2;
    EXPECT(run(), 0);
    EXPECT(guest_at(code_exits_first), 3);
    PUT(guest_rip, (u64)code_exits_first + 6);
    EXPECT(run(), 0);
    EXPECT(guest_at(code_exits_first), 6);
    EXPECT(GET(vm_exit_interruption_information), 0x80000b0d);
}

GUEST(code_tables, "sgdt -16(%rsp); str %eax; rdtsc; pause; mov %dr0, %rax; invlpg (%rax)");
static void other_controls(void)
{
    begin("26.1.3 other controls", code_tables);
    PROC(C_rdtsc_exiting | C_pause_exiting | C_mov_dr_exiting | C_invlpg_exiting);
    PROC2(C_descriptor_table_exiting);
    EXPECT(run(), 46);
    EXPECT(GET(exit_qualification), -16);
    skip();
    EXPECT(run(), 47);
    skip();
    EXPECT(run(), 16);
    skip();
    EXPECT(run(), 40);
    skip();
    EXPECT(run(), 29);
    EXPECT(GET(exit_qualification), 1 << 4);
    skip();
    guest_rax = 0x123456;
    EXPECT(run(), 14);
    EXPECT(GET(exit_qualification), 0x123456);
}

GUEST(code_pause, "1: pause; jmp 1b");
static void pause_loop(void)
{
    begin("26.1.3 PAUSE-loop exiting", code_pause);
    PROC2(C_pause_loop_exiting);
    PUT(ple_gap, 100000000);
    PUT(ple_window, 100000);
    EXPECT(run(), 40);
}

/* --- exceptions and injection (26.2, 27.6) --- */

GUEST(code_ud, "ud2");
static void exceptions(void)
{
    begin("26.2 exceptions", code_ud);
    PUT(exception_bitmap, 1 << 6);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000306);
    EXPECT(guest_at(code_ud), 0);
    PUT(exception_bitmap, 0);
    EXPECT(run(), 2); /* no IDT: #UD, #GP, #DF, end */
    EXPECT(GET(idt_vectoring_information) >> 31, 0);
}

static void injection(void)
{
    begin("27.6 injection", code_nops);
    gate(40, code_handler);
    use_idt();
    PUT(vm_entry_interruption_information, 0x80000000 | 4 << 8 | 40);
    PUT(vm_entry_instruction_length, 3);
    EXPECT(run(), 18);
    EXPECT(guest_rax, (u64)code_nops + 3); /* a software interrupt's own length counts */
    EXPECT(GET(vm_entry_interruption_information) >> 31, 0);

    begin("27.6 injection of #GP", code_nops);
    gate(13, code_handler);
    use_idt();
    PUT(vm_entry_interruption_information, 0x80000000 | 1 << 11 | 3 << 8 | 13);
    PUT(vm_entry_exception_error_code, 0x1234);
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x1234);

    begin("28.2.4 an exit during delivery", code_nops);
    use_idt();
    PUT(guest_idtr_limit, 0);
    PUT(exception_bitmap, 1 << 13);
    PUT(vm_entry_interruption_information, 0x80000000 | 4 << 8 | 40);
    PUT(vm_entry_instruction_length, 2);
    EXPECT(run(), 0);
    EXPECT(GET(idt_vectoring_information), 0x80000000 | 4 << 8 | 40);
    EXPECT(GET(vm_exit_instruction_length), 2);
    EXPECT(GET(vm_exit_interruption_error_code), 40 * 8 + 2);
}

/* --- windows, the trap flag, the timer (26.2, 26.5) --- */

GUEST(code_window, "sti; nop; nop; vmcall");
static void windows(void)
{
    begin("26.2 interrupt window", code_window);
    PROC(C_interrupt_window_exiting);
    EXPECT(run(), 7);
    EXPECT(guest_at(code_window), 2); /* behind the shadow of STI */

    begin("26.2 NMI window", code_nops);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting);
    EXPECT(run(), 8);
    EXPECT(guest_at(code_nops), 0);
}

GUEST(code_iret, "mov %rsp, %rdx; mov %ss, %eax; push %rax; push %rdx; pushf; mov %cs, %eax;"
                 "push %rax; lea 1f(%rip), %rax; push %rax; iretq; 1: nop; vmcall");
static void virtual_nmis(void)
{
    begin("26.3 IRET ends virtual-NMI blocking", code_iret);
    PIN(C_nmi_exiting | C_virtual_nmis);
    PROC(C_nmi_window_exiting);
    PUT(guest_interruptibility_state, 8);
    EXPECT(run(), 8);
    EXPECT(GET(guest_interruptibility_state), 0);

    begin("26.3 IRET leaves NMI blocking alone", code_iret);
    PIN(C_nmi_exiting);
    PUT(guest_interruptibility_state, 8);
    EXPECT(run(), 18);
    EXPECT(GET(guest_interruptibility_state), 8);
}

static void trap_flag(void)
{
    begin("26.5.2 monitor trap flag", code_nops);
    PROC(C_monitor_trap_flag);
    for (unsigned i = 1; i < 4; i++) {
        EXPECT(run(), 37);
        EXPECT(guest_at(code_nops), i);
    }
    PUT(vm_entry_interruption_information, 0x80000000 | 4 << 8 | 40);
    PUT(vm_entry_instruction_length, 1);
    use_idt();
    EXPECT(run(), 37);
    EXPECT(guest_at(code_handler), 0); /* before the handler's first instruction */

    begin("26.5.2 injected MTF exit", code_nops);
    PUT(vm_entry_interruption_information, 0x80000000 | 7 << 8);
    EXPECT(run(), 37);
    EXPECT(guest_at(code_nops), 0);
}

GUEST(code_loop, "1: jmp 1b");
static void timer(void)
{
    begin("26.5.1 preemption timer", code_loop);
    PIN(C_activate_vmx_preemption_timer);
    ADD(primary_vm_exit_controls, C_exit_save_preemption_timer);
    PUT(vmx_preemption_timer_value, 10000);
    EXPECT(run(), 52);
    EXPECT(GET(vmx_preemption_timer_value), 0);
    EXPECT(run(), 52); /* 0: at once */
    EXPECT(guest_at(code_loop), 0);

    begin("26.5.1 preemption timer in HLT", code_loop);
    PIN(C_activate_vmx_preemption_timer);
    PUT(vmx_preemption_timer_value, 10000);
    PUT(guest_activity_state, 1);
    EXPECT(run(), 52);
    EXPECT(GET(guest_activity_state), 1);
}

/* --- EPT (29.3) --- */

GUEST(code_access, "mov $0x3000000, %rax; mov (%rax), %edx; mov %edx, 8(%rax); call *%rax; vmcall");
static void violations(void)
{
    *(u8 *)ROOM = 0xc3;
    begin("29.3.3 violations", code_access);
    own_ept(false);
    ept_4k[0] &= ~7ull;
    EXPECT(run(), 48);
    EXPECT(GET(exit_qualification) & 0x1ff, 0x181);
    EXPECT(GET(guest_physical_address), ROOM);
    EXPECT(GET(guest_linear_address), ROOM);
    ept_4k[0] |= 5;
    EXPECT(run(), 48);
    EXPECT(GET(exit_qualification) & 0x1ff, 0x1aa);
    EXPECT(GET(guest_physical_address), ROOM + 8);
    ept_4k[0] = (ept_4k[0] & ~7ull) | 3;
    flush_ept();
    EXPECT(run(), 48);
    EXPECT(GET(exit_qualification) & 0x1ff, 0x19c);
    ept_4k[0] = (ept_4k[0] & ~7ull) | 4; /* execute-only */
    flush_ept();
    EXPECT(run(), 18);

    begin("29.3.3.1 misconfiguration: write without read", code_access);
    own_ept(false);
    ept_4k[0] = (ept_4k[0] & ~7ull) | 2;
    EXPECT(run(), 49);
    EXPECT(GET(guest_physical_address), ROOM);
    ept_4k[0] = (ept_4k[0] & ~0x3full) | 0x17; /* memory type 2 */
    flush_ept();
    EXPECT(run(), 49);
}

static void ept_flags(void)
{
    begin("29.3.5 accessed and dirty flags", code_access);
    own_ept(true);
    ept_4k[0] &= ~2ull;
    EXPECT(run(), 48);
    EXPECT(ept_4k[0] & 0x300, 0x100);
    ept_4k[0] |= 2;
    EXPECT(run(), 18);
    EXPECT(ept_4k[0] & 0x300, 0x300);
    EXPECT(ept_4k[1] & 0x300, 0);

    begin("29.3.6 page-modification log", code_access);
    own_ept(true);
    PROC2(C_enable_pml);
    memset(pages[0], 0, 4096);
    PUT(pml_address, (u64)pages[0]);
    PUT(pml_index, 0xffff);
    EXPECT(run(), 62);
    PUT(pml_index, 511);
    EXPECT(run(), 18);
    EXPECT(((u64 *)pages[0])[512 - (511 - GET(pml_index))] != 0, 1);
    for (unsigned i = 511; i > GET(pml_index) && i < 512; i--)
        if (((u64 *)pages[0])[i] == ROOM)
            return;
    EXPECT(0, 1); /* the page written is not in the log */
}

static void virtualization_exception(void)
{
    begin("26.5.7 #VE", code_access);
    own_ept(false);
    PROC2(C_ept_violation_ve);
    memset(pages[0], 0, 4096);
    PUT(virtualization_exception_information_address, (u64)pages[0]);
    PUT(exception_bitmap, 1 << 20);
    ept_4k[0] &= ~7ull;
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000314);
    EXPECT(*(u32 *)pages[0], 48);
    EXPECT(*(u32 *)(pages[0] + 4), 0xffffffff);
    EXPECT(*(u64 *)(pages[0] + 24), ROOM);
    EXPECT(run(), 48); /* the area is still busy */
    *(u32 *)(pages[0] + 4) = 0;
    ept_4k[0] |= 1ull << 63;
    EXPECT(run(), 48); /* suppressed */
}

static void mode_based(void)
{
    begin("29.3.3.2 mode-based execute control", code_access);
    own_ept(false);
    PROC2(C_mode_based_execute_control);
    ept_root[0] |= 1 << 10;
    ept_pdpt[0] |= 1 << 10;
    ept_2m[ROOM >> 21] |= 1 << 10;
    ept_4k[0] = (ept_4k[0] & ~4ull) | 1 << 10; /* our pages are supervisor pages */
    EXPECT(run(), 48);
    EXPECT(GET(exit_qualification) & 0x1ff, 0x1dc);
}

GUEST(code_vmfunc, "xor %eax, %eax; mov $1, %ecx; vmfunc; mov 0x3000008, %eax; vmcall;"
                   "xor %eax, %eax; mov $2, %ecx; vmfunc; mov $1, %eax; vmfunc");
static void vm_functions(void)
{
    u64 *list = (u64 *)pages[0];

    *(u32 *)(ROOM + 8) = 1;
    *(u32 *)(ROOM + 0x1008) = 2;
    begin("26.5.6 EPTP switching", code_vmfunc);
    own_ept(false);
    memset(pages[0], 0, 4096);
    memset(pages[12], 0, 4 * 4096);
    list[1] = (u64)pages[12] | 3 << 3 | 6;
    ((u64 *)pages[12])[0] = (u64)pages[13] | 7;
    ((u64 *)pages[13])[0] = (u64)pages[14] | 7;
    for (u64 i = 0; i < 512; i++)
        ((u64 *)pages[14])[i] = i << 21 | 0xb7;
    ((u64 *)pages[14])[ROOM >> 21] = (u64)pages[15] | 7;
    ((u64 *)pages[15])[0] = (ROOM + 0x1000) | 0x37; /* another page there */
    PROC2(C_enable_vm_functions);
    PUT(vm_function_controls, 1);
    PUT(eptp_list_address, (u64)pages[0]);
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0xffffffff, 2);
    EXPECT(GET(ept_pointer), list[1]);
    skip();
    EXPECT(run(), 59); /* entry 2 is none */
    skip();
    EXPECT(run(), 59); /* nor is function 1 enabled */
}

/* --- the virtual APIC (30) --- */

GUEST(code_cr8, "mov $5, %eax; mov %rax, %cr8; mov %cr8, %rax; mov %rax, %rdx; xor %eax, %eax;"
                "mov %rax, %cr8; nop; vmcall");
static void tpr_shadow(void)
{
    virtual_apic("30.3 CR8", code_cr8);
    PUT(tpr_threshold, 0);
    EXPECT(run(), 18);
    EXPECT(VAPIC[0x80 / 4], 0);

    virtual_apic("30.1.2 TPR below threshold", code_cr8);
    VAPIC[0x80 / 4] = 0x30;
    PUT(tpr_threshold, 3);
    EXPECT(run(), 43);
    EXPECT(guest_at(code_cr8), 22); /* behind the MOV that lowered it */
}

GUEST(code_apic, "mov $0x3010000, %rbx; mov 0x80(%rbx), %eax; mov %eax, 0x300(%rbx); nop; vmcall");
static void apic_accesses(void)
{
    virtual_apic("30.4 APIC accesses", code_apic);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, ACCESS_PAGE);
    VAPIC[0x80 / 4] = 0x70;
    EXPECT(run(), 44); /* the TPR is read without an exit, the ICR is not written */
    EXPECT(guest_rax & 0xffffffff, 0x70);
    EXPECT(GET(exit_qualification), 0x1300);
    EXPECT(GET(vm_exit_instruction_length), 6);
    PROC2(C_apic_register_virtualization);
    EXPECT(run(), 56);
    EXPECT(GET(exit_qualification), 0x300);
    EXPECT(guest_at(code_apic), 19);
    EXPECT(VAPIC[0x300 / 4], 0x70);

    virtual_apic("30.4 APIC accesses through EPT", code_apic);
    own_ept(false);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, ROOM); /* where EPT has it */
    ept_4k[(ACCESS_PAGE - ROOM) >> 12] = ROOM | 0x37;
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification), 0x1300);
}

GUEST(code_self_ipi, "mov $0x3010000, %rbx; sti; movl $0x40028, 0x300(%rbx); nop; nop; vmcall");
GUEST(code_eoi, "mov $0x3010000, %rbx; movl $0, 0xb0(%rbx); nop; vmcall");
static void virtual_interrupts(void)
{
    virtual_apic("30.1.5 self-IPI, delivered", code_self_ipi);
    PIN(C_external_interrupt_exiting);
    PROC2(C_virtualize_apic_accesses | C_apic_register_virtualization |
          C_virtual_interrupt_delivery);
    PUT(apic_access_address, ACCESS_PAGE);
    gate(40, code_handler);
    use_idt();
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(GET(guest_interrupt_status), 40 << 8);
    EXPECT(VAPIC[0x110 / 4], 1 << 8);
    EXPECT(VAPIC[0xa0 / 4], 0x20);
    PUT(guest_rip, (u64)code_eoi);
    EXPECT(run(), 18);
    EXPECT(GET(guest_interrupt_status), 0);
    EXPECT(VAPIC[0x110 / 4], 0);
    PUT(guest_rip, (u64)code_eoi);
    PUT(guest_interrupt_status, 40 << 8);
    PUT(eoi_exit_bitmap_0, 1ull << 40);
    EXPECT(run(), 45);
    EXPECT(GET(exit_qualification), 40);

    virtual_apic("30.2 a virtual interrupt at entry", code_nops);
    PIN(C_external_interrupt_exiting);
    PROC2(C_virtual_interrupt_delivery);
    PUT(guest_interrupt_status, 40);
    VAPIC[0x210 / 4] = 1 << 8;
    PUT(guest_rflags, 0x202);
    use_idt();
    EXPECT(run(), 18);
    EXPECT(guest_rax, (u64)code_nops);
    EXPECT(VAPIC[0x210 / 4], 0);

    virtual_apic("30.2 held back by VPPR", code_nops);
    PIN(C_external_interrupt_exiting);
    PROC2(C_virtual_interrupt_delivery);
    PUT(guest_interrupt_status, 40);
    VAPIC[0x80 / 4] = 0x20;
    PUT(guest_rflags, 0x202);
    EXPECT(run(), 18);
    EXPECT(guest_at(code_nops), 4);
}

GUEST(code_x2apic, "mov $0x808, %ecx; mov $0x50, %eax; xor %edx, %edx; wrmsr; rdmsr; vmcall");
static void x2apic(void)
{
    virtual_apic("30.5 x2APIC mode", code_x2apic);
    PROC(C_use_msr_bitmaps);
    memset(pages[0], 0, 4096);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PROC2(C_virtualize_x2apic_mode);
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x50);
    EXPECT(VAPIC[0x80 / 4], 0x50);
}

/* begin() with posted interrupts by vector F2h; answers the descriptor, in which vector 40 is
 * posted. */
static u64 *posted(const char *name, void (*code)(void))
{
    u64 *descriptor = (u64 *)pages[2];

    virtual_apic(name, code);
    PIN(C_external_interrupt_exiting | C_process_posted_interrupts);
    ADD(primary_vm_exit_controls, C_exit_acknowledge_interrupt);
    PROC2(C_virtual_interrupt_delivery);
    memset(descriptor, 0, 64);
    descriptor[0] = 1ull << 40;
    PUT(posted_interrupt_descriptor_address, (u64)descriptor);
    PUT(posted_interrupt_notification_vector, 0xf2);
    use_idt();
    return descriptor;
}

static void posted_interrupts(void)
{
    u64 *descriptor = posted("30.6 posted interrupts", code_nops);

    descriptor[4] = 1;
    PUT(guest_rflags, 0x202);
    LAPIC[0xf0 / 4] = 0x1ff;
    LAPIC[0x300 / 4] = 0x400f2; /* to itself; interrupts are off here */
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(descriptor[0] | descriptor[4], 0);
    LAPIC[0x300 / 4] = 0x400f3; /* another vector exits */
    PUT(guest_rip, (u64)code_nops);
    EXPECT(run(), 1);
    EXPECT(GET(vm_exit_interruption_information), 0x800000f3);
    LAPIC[0xb0 / 4] = 0;
}

GUEST(code_post_to_self, "movl $0xf0, 0xa0(%rbx); movl $0x400f2, (%rdx); sti;"
                         "mov $1000, %ecx; 1: loop 1b; vmcall");
static void posted_under_pressure(void)
{
    u64 *descriptor = posted("30.6 posted interrupts look at the PPR as it is", code_post_to_self);

    guest_rbx = (u64)VAPIC;
    guest_rdx = (u64)LAPIC + 0x300;
    EXPECT(run(), 18);
    EXPECT(guest_at(code_post_to_self), 24);
    EXPECT(VAPIC[0xa0 / 4], 0xf0);
    EXPECT(GET(guest_interrupt_status), 40);
    EXPECT(descriptor[0], 0);
}

static void nmi(void)
{
    begin("26.2 NMI", code_nops);
    PIN(C_nmi_exiting);
    /* To itself, while NMIs are blocked: the guest gets it. */
    LAPIC[0xf0 / 4] = 0x1ff;
    PUT(guest_interruptibility_state, 0);
    __asm__ volatile("nop");
    EXPECT(run(), 18);
}

/* --- VMCS shadowing, other modes, VMfail --- */

GUEST(code_shadow, "mov $0x6820, %edx; mov $0x1234, %eax; vmwrite %rax, %rdx; xor %eax, %eax;"
                   "vmread %rdx, %rax; vmcall; mov $0x681e, %edx; vmread %rdx, %rax");
static void shadowing(void)
{
    begin("26.1.3 VMCS shadowing", code_shadow);
    memset(pages[2], 0, 4096);
    *(u32 *)pages[2] = (u32)rdmsr(0x480) | 1u << 31;
    memset(pages[3], 0, 4096);
    pages[3][0x681e / 8] = 1 << (0x681e % 8);
    PROC2(C_vmcs_shadowing);
    PUT(vmread_bitmap_address, (u64)pages[3]);
    PUT(vmwrite_bitmap_address, (u64)pages[3]);
    PUT(vmcs_link_pointer, (u64)pages[2]);
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x1234);
    skip();
    EXPECT(run(), 23);
}

GUEST(code_real, ".code16; mov $0x1234, %ax; vmcall; .code64");
static void real_mode(void)
{
    begin("27.3.2 real mode", code_real);
    without_paging();
    PUT(guest_cr0, 0x30);
    PUT(guest_cr4, 1 << 13);
    for (unsigned i = 0; i < 6; i++) {
        vmwrite(FIELD_guest_es_limit + 2 * i, 0xffff);
        vmwrite(FIELD_guest_es_access_rights + 2 * i, 0x93);
    }
    PUT(guest_cs_selector, (u64)code_real >> 4 & 0xf000);
    PUT(guest_cs_base, (u64)code_real & ~0xffffull);
    PUT(guest_rip, (u64)code_real & 0xffff);
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0xffff, 0x1234);
}

GUEST(code_tasks, ".code32; ljmp $0x28, $0; lcall $0x30, $0; int $0x40; iret; ljmp $0x38, $0;"
                  ".code64");
/* Code segment, data, an LDT for a hole, two TSSs that can be switched to, one that is not
 * there. */
static void task_switches(void)
{
    u64 *table = (u64 *)pages[4], *idt = (u64 *)pages[5];
    u64 tss_at = (u64)pages[6];

    begin("26.4.2 task switches", code_tasks);
    table[1] = 0x00cf9b000000ffff;
    table[2] = 0x00cf93000000ffff;
    table[5] = 0x67 | (tss_at & 0xffffff) << 16 | 0x89ull << 40;
    table[6] = 0x85ull << 40 | 0x28 << 16; /* a task gate */
    table[7] = 0x67 | (tss_at & 0xffffff) << 16 | 0x09ull << 40;
    memset(idt, 0, 4096);
    idt[0x40] = 0x85ull << 40 | 0x28 << 16;
    without_paging();
    PUT(exception_bitmap, 1 << 11);
    PUT(guest_cr4, 1 << 13);
    PUT(guest_cs_access_rights, 0xc09b);
    PUT(guest_cs_limit, 0xffffffff);
    PUT(guest_gdtr_base, (u64)table);
    PUT(guest_gdtr_limit, 0x3f);
    PUT(guest_idtr_base, (u64)idt);
    PUT(guest_idtr_limit, 0x7ff);
    *(u16 *)GET(guest_tr_base) = 0x28; /* the back link */
    EXPECT(run(), 9);
    EXPECT(GET(exit_qualification), 0x28 | 2u << 30);
    EXPECT(GET(vm_exit_instruction_length), 7);
    EXPECT(GET(idt_vectoring_information) >> 31, 0);
    EXPECT(table[5] >> 40 & 0xff, 0x89); /* nothing has been switched */
    skip();
    EXPECT(run(), 9);
    EXPECT(GET(exit_qualification), 0x28);
    skip();
    EXPECT(run(), 9);
    EXPECT(GET(exit_qualification), 0x28 | 3u << 30);
    EXPECT(GET(idt_vectoring_information), 0x80000440);
    EXPECT(GET(vm_exit_instruction_length), 2);
    skip();
    PUT(guest_rflags, 0x4002); /* NT; a return wants a busy TSS */
    table[5] |= 2ull << 40;
    EXPECT(run(), 9);
    EXPECT(GET(exit_qualification), 0x28 | 1u << 30);
    EXPECT(GET(vm_exit_instruction_length), 1);
    skip();
    EXPECT(run(), 0); /* the checks come first */
    EXPECT(GET(vm_exit_interruption_information) & 0xff, 11);
    EXPECT(GET(vm_exit_interruption_error_code), 0x38);
}

static void vmfail(void)
{
    u64 odd = 8, far = 1ull << 51, wild = (u64)pages[0], ok[2] = {0, 0};

    begin("31.4 VM-instruction errors", code_nops);
    memset(pages[0], 0, 4096);
    EXPECT(FAILS("vmclear %2", "m"(odd)), 2);
    EXPECT(FAILS("vmclear %2", "m"(far)), 2);
    EXPECT(FAILS("vmresume", "m"(odd)), 5);
    EXPECT(FAILS("vmptrld %2", "m"(odd)), 9);
    EXPECT(FAILS("vmptrld %2", "m"(wild)), 11);
    EXPECT(FAILS("vmwrite %2, %3", "r"(0ull), "r"(0x7ffeull)), 12);
    EXPECT(FAILS("vmxon %2", "m"(wild)), 15);
    EXPECT(FAILS("invept %2, %3", "m"(ok), "r"(3ull)), 28);
    EXPECT(FAILS("invept %2, %3", "m"(ok), "r"(1ull)), 28);
    EXPECT(FAILS("invvpid %2, %3", "m"(ok), "r"(1ull)), 28);
    EXPECT(FAILS("invvpid %2, %3", "m"(ok), "r"(2ull)), 0);
    EXPECT(FAILS("mov %2, %%ss; vmlaunch", "r"(16)), 26);
    EXPECT(run(), 18);
    EXPECT(FAILS("vmlaunch", "m"(odd)), 4);
}

unsigned test_exits(void)
{
    static void (*const tests[])(void) = {
        simple_instructions,
        control_registers,
        ports,
        msrs,
        exits_before_faults,
        other_controls,
        pause_loop,
        exceptions,
        injection,
        windows,
        virtual_nmis,
        trap_flag,
        timer,
        violations,
        ept_flags,
        virtualization_exception,
        mode_based,
        vm_functions,
        tpr_shadow,
        apic_accesses,
        virtual_interrupts,
        x2apic,
        posted_interrupts,
        posted_under_pressure,
        nmi,
        shadowing,
        real_mode,
        task_switches,
        vmfail,
    };

    return run_groups("exits", tests, sizeof(tests) / sizeof(tests[0]));
}
