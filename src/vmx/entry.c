/* VM entry to a guest's VMCS: checks, guest state, MSRs, event injection. SDM chapter 27. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

static struct x86_seg segment(u16 selector, u64 base, u32 limit, u32 access)
{
    return (struct x86_seg){
        .selector = selector, .base = base, .limit = limit, .access = access & 0x1f0ff};
}

#define LOAD_SEGMENT(cpu, v, REG, name)                                                            \
    (cpu)->seg[REG] = segment((v)->guest_##name##_selector, (v)->guest_##name##_base,              \
                              (v)->guest_##name##_limit, (v)->guest_##name##_access_rights)

void vmx_load_cr0(struct x86_cpu *cpu, u64 value)
{
    const u64 loaded = X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_NE | X86_CR0_WP |
                       X86_CR0_AM | X86_CR0_PG;

    cpu->cr0 = (value & loaded) | (cpu->cr0 & ~loaded);
}

/* SDM 27.3.2.1. */
static void load_control_registers(struct x86_cpu *cpu, const struct vmcs *v)
{
    vmx_load_cr0(cpu, v->guest_cr0);
    cpu->cr4 = v->guest_cr4;
    cpu->cr3 = v->guest_cr3;
    if (vmx_entry_control(v, VMX_C_entry_load_debug_controls)) {
        cpu->dr[7] = (v->guest_dr7 & 0xffff23ff) | 0x400;
        cpu->msr_debugctl = v->guest_ia32_debugctl;
    }
    if (vmx_entry_control(v, VMX_C_entry_load_efer)) {
        cpu->efer = v->guest_ia32_efer;
    } else {
        /* LMA follows the control; LME too while paging is on. */
        bool ia32e = vmx_entry_control(v, VMX_C_entry_ia32e_mode_guest);

        cpu->efer = ia32e ? cpu->efer | X86_EFER_LMA : cpu->efer & ~X86_EFER_LMA;
        if (cpu->cr0 & X86_CR0_PG)
            cpu->efer = ia32e ? cpu->efer | X86_EFER_LME : cpu->efer & ~X86_EFER_LME;
    }
    if (vmx_entry_control(v, VMX_C_entry_load_pat))
        cpu->msr_pat = v->guest_ia32_pat;
    if (vmx_entry_control(v, VMX_C_entry_load_perf_global_ctrl))
        x86_pmu_set_global(cpu, v->guest_ia32_perf_global_ctrl);
    cpu->msr_sysenter_cs = v->guest_ia32_sysenter_cs;
    cpu->msr_sysenter_esp = v->guest_ia32_sysenter_esp;
    cpu->msr_sysenter_eip = v->guest_ia32_sysenter_eip;
}

static void load_segments(struct x86_cpu *cpu, const struct vmcs *v)
{
    LOAD_SEGMENT(cpu, v, X86_ES, es);
    LOAD_SEGMENT(cpu, v, X86_CS, cs);
    LOAD_SEGMENT(cpu, v, X86_SS, ss);
    LOAD_SEGMENT(cpu, v, X86_DS, ds);
    LOAD_SEGMENT(cpu, v, X86_FS, fs);
    LOAD_SEGMENT(cpu, v, X86_GS, gs);
    LOAD_SEGMENT(cpu, v, X86_LDTR, ldtr);
    LOAD_SEGMENT(cpu, v, X86_TR, tr);
    cpu->gdtr = (struct x86_table){v->guest_gdtr_base, v->guest_gdtr_limit};
    cpu->idtr = (struct x86_table){v->guest_idtr_base, v->guest_idtr_limit};
    cpu->cpl = X86_SEG_DPL(cpu->seg[X86_SS].access);
}

static bool load_pdptes(struct x86_cpu *cpu, const struct vmcs *v)
{
    if (!(cpu->cr0 & X86_CR0_PG) || !(cpu->cr4 & X86_CR4_PAE) || cpu->efer & X86_EFER_LMA)
        return true;
    if (!vmx_proc2(v, VMX_C_enable_ept))
        return x86_load_pdptes(cpu, cpu->cr3);
    cpu->pdpte[0] = v->guest_pdpte0;
    cpu->pdpte[1] = v->guest_pdpte1;
    cpu->pdpte[2] = v->guest_pdpte2;
    cpu->pdpte[3] = v->guest_pdpte3;
    return true;
}

static void load_rest(struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 state = v->guest_interruptibility_state;

    cpu->gpr[X86_RSP] = v->guest_rsp;
    cpu->lip = cpu->efer & X86_EFER_LMA && cpu->seg[X86_CS].access & X86_SEG_L
                   ? v->guest_rip
                   : (u32)(v->guest_rip + cpu->seg[X86_CS].base);
    x86_set_rflags(cpu, v->guest_rflags);
    cpu->interruptibility = state & (X86_SHADOW | X86_BLOCKED_BY_NMI);
    cpu->shadow_lip = cpu->rf_lip = cpu->lip;
    cpu->activity = v->guest_activity_state;
    cpu->monitor_armed = false;
}

/* SDM 27.3.2.5: without VPIDs an entry drops what the TLB knows of VPID 0. */
static void flush_for_transition(struct x86_cpu *cpu, const struct vmcs *v)
{
    if (!vmx_proc2(v, VMX_C_enable_vpid))
        cpu->common.memory->flush_all(&cpu->common);
}

static void load_guest_state(struct x86_cpu *cpu, const struct vmcs *v)
{
    load_control_registers(cpu, v);
    load_segments(cpu, v);
    load_rest(cpu, v);
}

static void enter_non_root(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->current = &vmx->nested;
    cpu->common.mode |= X86_MODE_NONROOT;
    vmx_update_second_level(cpu);
}

/* SDM 27.7.3: which of the pending debug exceptions there are after the entry. Blocking by MOV SS
 * holds them back for an instruction. A pending MTF VM exit is no vectoring. */
static void pend_debug(struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 info = v->vm_entry_interruption_information;
    u64 bits = v->guest_pending_debug_exceptions;
    bool mov_ss = v->guest_interruptibility_state & X86_SHADOW_MOV_SS, software;
    bool vectoring = info & VMX_INTR_VALID && VMX_INTR_TYPE(info) != 7;

    cpu->debug_hits = 0;
    if (!(bits & (BIT(12) | BIT(14))))
        return;
    bits &= 0x400f;
    software = VMX_INTR_TYPE(info) == 4 || VMX_INTR_TYPE(info) == 6;
    if (vectoring ? software && mov_ss : mov_ss)
        cpu->debug_hits = (u32)bits;
    else if (!vectoring && v->guest_activity_state <= X86_HALTED)
        cpu->pending = (struct x86_event){
            .valid = true, .vector = X86_DB, .type = 3, .payload = bits, .has_payload = true};
}

/* SDM 27.6: becomes the root's event to be injected, which the engine's entry path delivers. */
static void inject(struct x86_cpu *cpu, struct vmcs *v)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    u32 info = v->vm_entry_interruption_information;
    struct x86_event event;

    if (info & VMX_INTR_VALID) {
        event =
            vmx_info_event(info, v->vm_entry_exception_error_code, v->vm_entry_instruction_length);
        if (event.type == 7) { /* pending MTF VM exit */
            vmx->mtf_pending = true;
            return;
        }
        vmx_inject(vmx, &event);
    }
}

/* SDM 26.5.1: the timer counts by bit IA32_VMX_MISC[4:0] of the TSC. */
static void start_preemption_timer(struct x86_cpu *cpu, const struct vmcs *v)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    u64 ticks = vmx_outer_tsc(cpu) >> VMX_PREEMPTION_SHIFT;

    vmx->preemption = vmx_pin(v, VMX_C_activate_vmx_preemption_timer);
    if (!vmx->preemption)
        return;
    vmx->preemption_tsc = (ticks + v->vmx_preemption_timer_value) << VMX_PREEMPTION_SHIFT;
    vmx->preemption_fired = false;
    if (v->vmx_preemption_timer_value && vmx->arm)
        vmx->arm(cpu, vmx->preemption_tsc);
}

static NORETURN void fail_entry(struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    cpu->vmexit = (struct x86_vmexit){.reason = reason, .qualification = qualification};
    vmx_nested_exit(cpu, reason | 1u << 31);
    guest_leave(&cpu->common, X86_EXIT_STATE);
}

u32 vmx_nested_entry(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmcs *v = &vmx->nested.vmcs;
    u64 qualification;
    u32 failed;

    if (!vmx_check_controls(cpu, v))
        return VMX_ERR_CONTROLS;
    if (!vmx_check_host(cpu, v))
        return VMX_ERR_HOST_STATE;
    if (!vmx_check_guest(cpu, v, &qualification))
        fail_entry(cpu, VMX_REASON_entry_failure_guest_state, qualification);
    vmx->entries++;
    flush_for_transition(cpu, v);
    load_guest_state(cpu, v);
    enter_non_root(cpu);
    if (!load_pdptes(cpu, v))
        fail_entry(cpu, VMX_REASON_entry_failure_guest_state, VMX_FAIL_PDPTES);
    failed = vmx_load_msrs(cpu, v->vm_entry_msr_load_address, v->vm_entry_msr_load_count);
    if (failed)
        fail_entry(cpu, VMX_REASON_entry_failure_msr_loading, failed);
    vmx->launched = true;
    x86_update_mode(cpu);
    cpu->common.tlb = NULL;
    x86_update_mmu(cpu);
    vmx_trace_entry(cpu, v);
    pend_debug(cpu, v);
    inject(cpu, v);
    cpu->iret_keeps_nmi = vmx_pin(v, VMX_C_nmi_exiting) && !vmx_pin(v, VMX_C_virtual_nmis);
    start_preemption_timer(cpu, v);
    vmx_enter_vapic(cpu);
    v->vm_entry_interruption_information &= ~(u32)VMX_INTR_VALID;
    x86_pmu_retired(cpu, ~0u, false);
    guest_leave(&cpu->common, X86_EXIT_HALT_CHECK);
}
