/* VM exit to a guest's VMCS: information fields, guest state saved, host state loaded. SDM ch.
 * 28. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

#define SAVE_SEGMENT(cpu, v, REG, name)                                                            \
    do {                                                                                           \
        (v)->guest_##name##_selector = (cpu)->seg[REG].selector;                                   \
        (v)->guest_##name##_base = (cpu)->seg[REG].base;                                           \
        (v)->guest_##name##_limit = (cpu)->seg[REG].limit;                                         \
        (v)->guest_##name##_access_rights = (cpu)->seg[REG].access;                                \
    } while (0)

/* SDM 28.3.1. */
static void save_registers(struct x86_cpu *cpu, struct vmcs *v)
{
    v->guest_cr0 = cpu->cr0;
    v->guest_cr3 = cpu->cr3;
    v->guest_cr4 = cpu->cr4;
    v->guest_ia32_sysenter_cs = (u32)cpu->msr_sysenter_cs;
    v->guest_ia32_sysenter_esp = cpu->msr_sysenter_esp;
    v->guest_ia32_sysenter_eip = cpu->msr_sysenter_eip;
    if (vmx_exit_control(v, VMX_C_exit_save_debug_controls)) {
        v->guest_dr7 = cpu->dr[7];
        v->guest_ia32_debugctl = cpu->msr_debugctl;
    }
    if (vmx_exit_control(v, VMX_C_exit_save_pat))
        v->guest_ia32_pat = cpu->msr_pat;
    if (vmx_exit_control(v, VMX_C_exit_save_efer))
        v->guest_ia32_efer = cpu->efer;
    if (vmx_exit_control(v, VMX_C_exit_save_perf_global_ctrl))
        v->guest_ia32_perf_global_ctrl = cpu->pmu.global_control;
    /* SDM 28.2: the control follows LMA where IA32_VMX_MISC[5] says so. */
    if (cpu->efer & X86_EFER_LMA)
        v->vm_entry_controls |= VMX_C_entry_ia32e_mode_guest;
    else
        v->vm_entry_controls &= ~(u32)VMX_C_entry_ia32e_mode_guest;
    if (cpu->cr0 & X86_CR0_PG && cpu->cr4 & X86_CR4_PAE && !(cpu->efer & X86_EFER_LMA) &&
        vmx_proc2(v, VMX_C_enable_ept)) {
        v->guest_pdpte0 = cpu->pdpte[0];
        v->guest_pdpte1 = cpu->pdpte[1];
        v->guest_pdpte2 = cpu->pdpte[2];
        v->guest_pdpte3 = cpu->pdpte[3];
    }
}

static void save_segments(struct x86_cpu *cpu, struct vmcs *v)
{
    SAVE_SEGMENT(cpu, v, X86_ES, es);
    SAVE_SEGMENT(cpu, v, X86_CS, cs);
    SAVE_SEGMENT(cpu, v, X86_SS, ss);
    SAVE_SEGMENT(cpu, v, X86_DS, ds);
    SAVE_SEGMENT(cpu, v, X86_FS, fs);
    SAVE_SEGMENT(cpu, v, X86_GS, gs);
    SAVE_SEGMENT(cpu, v, X86_LDTR, ldtr);
    SAVE_SEGMENT(cpu, v, X86_TR, tr);
    v->guest_gdtr_base = cpu->gdtr.base;
    v->guest_gdtr_limit = cpu->gdtr.limit;
    v->guest_idtr_base = cpu->idtr.base;
    v->guest_idtr_limit = cpu->idtr.limit;
    /* SDM 28.3.2: SS.DPL holds the CPL. */
    v->guest_ss_access_rights = (v->guest_ss_access_rights & ~0x60u) | (u32)cpu->cpl << 5;
}

/* What is left of the VMX-preemption timer; 0 if it has run out. */
static u32 preemption_left(struct x86_cpu *cpu)
{
    u64 end = vmx_of(cpu)->preemption_tsc >> VMX_PREEMPTION_SHIFT;
    u64 now = vmx_outer_tsc(cpu) >> VMX_PREEMPTION_SHIFT;

    return end > now ? (u32)(end - now) : 0;
}

/* SDM 28.3.3: RF as an event's delivery would push it for an event that exits, 0 for an
 * instruction, 1 where the access of an instruction did. */
static u64 saved_rflags(const struct x86_cpu *cpu, const struct vmcs *v, u32 reason)
{
    const struct vmx_reason_info *info = vmx_reason(reason);
    u64 flags = x86_rflags(cpu);
    struct x86_event event;

    if (reason == VMX_REASON_exception_or_nmi) {
        event = vmx_info_event(v->vm_exit_interruption_information, 0, 0);
    } else if (reason == VMX_REASON_ept_violation || reason == VMX_REASON_ept_misconfiguration ||
               reason == VMX_REASON_page_modification_log_full ||
               reason == VMX_REASON_apic_access) {
        event = vmx_info_event(v->idt_vectoring_information, 0, 0);
        if (!event.valid)
            return flags | X86_FLAG_RF;
    } else {
        bool instruction = info && info->when != VMX_EVENT && info->when != VMX_NEVER;

        return instruction ? flags & ~X86_FLAG_RF : flags;
    }
    event.has_payload = event.vector == X86_DB;
    event.payload = v->exit_qualification;
    return x86_flags_to_push(cpu, &event);
}

/* SDM 28.3.4: debug traps of the instruction just done that the exit came before, and what a load
 * of SS holds back. */
static u64 pending_debug(const struct x86_cpu *cpu)
{
    u64 bits = cpu->debug_hits;

    if (cpu->pending.valid && cpu->pending.vector == X86_DB && cpu->pending.has_payload)
        bits |= cpu->pending.payload;
    if (x86_interruptibility(cpu) & X86_SHADOW_MOV_SS && cpu->eflags & X86_FLAG_TF &&
        !(cpu->msr_debugctl & X86_DEBUGCTL_BTF))
        bits |= BIT(14);
    return (bits & 0x400f) | (bits & 15 ? BIT(12) : 0);
}

/* SDM 28.3.3, 28.3.4. */
static void save_rest(struct x86_cpu *cpu, struct vmcs *v, u32 reason)
{
    v->guest_rsp = cpu->gpr[X86_RSP];
    v->guest_rip = x86_rip(cpu);
    v->guest_rflags = saved_rflags(cpu, v, reason);
    v->guest_interruptibility_state = x86_interruptibility(cpu);
    v->guest_activity_state = cpu->activity;
    v->guest_pending_debug_exceptions = pending_debug(cpu);
    if (vmx_exit_control(v, VMX_C_exit_save_preemption_timer))
        v->vmx_preemption_timer_value = preemption_left(cpu);
}

/* SDM 28.5.2. */
static void host_segment(struct x86_cpu *cpu, unsigned reg, u16 selector, u64 base, u32 access)
{
    cpu->seg[reg] = (struct x86_seg){
        .selector = selector,
        .base = base,
        .limit = ~0u,
        .access = selector || reg == X86_CS || reg == X86_TR ? access : access | X86_SEG_UNUSABLE,
    };
}

static void load_host_segments(struct x86_cpu *cpu, const struct vmcs *v)
{
    bool host64 = vmx_exit_control(v, VMX_C_exit_host_address_space_size);
    const u32 data = X86_SEG_P | X86_SEG_S | X86_SEG_DB | X86_SEG_G | 3;

    host_segment(cpu, X86_CS, v->host_cs_selector, 0,
                 X86_SEG_P | X86_SEG_S | X86_SEG_G | 0xb | (host64 ? X86_SEG_L : X86_SEG_DB));
    host_segment(cpu, X86_SS, v->host_ss_selector, 0, data);
    host_segment(cpu, X86_DS, v->host_ds_selector, 0, data);
    host_segment(cpu, X86_ES, v->host_es_selector, 0, data);
    host_segment(cpu, X86_FS, v->host_fs_selector, v->host_fs_base, data);
    host_segment(cpu, X86_GS, v->host_gs_selector, v->host_gs_base, data);
    host_segment(cpu, X86_TR, v->host_tr_selector, v->host_tr_base, X86_SEG_P | 0xb);
    cpu->seg[X86_TR].limit = 0x67;
    cpu->seg[X86_LDTR] = (struct x86_seg){.access = X86_SEG_UNUSABLE | 2};
    cpu->gdtr = (struct x86_table){v->host_gdtr_base, 0xffff};
    cpu->idtr = (struct x86_table){v->host_idtr_base, 0xffff};
    cpu->cpl = 0;
}

/* SDM 28.5.1. */
static void load_host_registers(struct x86_cpu *cpu, const struct vmcs *v)
{
    bool host64 = vmx_exit_control(v, VMX_C_exit_host_address_space_size);

    vmx_load_cr0(cpu, v->host_cr0);
    cpu->cr3 = v->host_cr3;
    cpu->cr4 = host64 ? v->host_cr4 | X86_CR4_PAE : v->host_cr4 & ~X86_CR4_PCIDE;
    cpu->dr[7] = 0x400;
    cpu->msr_debugctl = 0;
    cpu->msr_sysenter_cs = v->host_ia32_sysenter_cs;
    cpu->msr_sysenter_esp = v->host_ia32_sysenter_esp;
    cpu->msr_sysenter_eip = v->host_ia32_sysenter_eip;
    cpu->efer = host64 ? cpu->efer | X86_EFER_LMA | X86_EFER_LME
                       : cpu->efer & ~(X86_EFER_LMA | X86_EFER_LME);
    if (vmx_exit_control(v, VMX_C_exit_load_efer))
        cpu->efer = v->host_ia32_efer;
    if (vmx_exit_control(v, VMX_C_exit_load_pat))
        cpu->msr_pat = v->host_ia32_pat;
    if (vmx_exit_control(v, VMX_C_exit_load_perf_global_ctrl))
        x86_pmu_set_global(cpu, v->host_ia32_perf_global_ctrl);
}

static void load_host_state(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    const struct vmcs *v = &vmx->nested.vmcs;
    bool pae, nonroot = vmx->current != &vmx->root;

    vmx->current = &vmx->root;
    vmx->exit_to = &vmx->root;
    cpu->common.mode &= ~(u32)X86_MODE_NONROOT;
    vmx_update_second_level(cpu);
    load_host_registers(cpu, v);
    load_host_segments(cpu, v);
    cpu->gpr[X86_RSP] = v->host_rsp;
    cpu->lip = v->host_rip;
    x86_set_rflags(cpu, 2);
    /* Virtual-NMI blocking ends with non-root operation, blocking of NMIs does not (SDM 28.5.5). */
    cpu->interruptibility &= vmx_pin(v, VMX_C_virtual_nmis) && nonroot ? 0 : X86_BLOCKED_BY_NMI;
    cpu->iret_keeps_nmi = false;
    cpu->activity = X86_ACTIVE;
    cpu->pending.valid = false;
    cpu->debug_hits = 0;
    cpu->monitor_armed = false;
    cpu->quiet = false;
    vmx->mtf_pending = vmx->alone = vmx->stepping = vmx->preemption = false;
    vmx->due = 0;
    x86_update_mode(cpu);
    if (!vmx_proc2(v, VMX_C_enable_vpid))
        cpu->common.memory->flush_all(&cpu->common);
    cpu->common.tlb = NULL;
    x86_update_mmu(cpu);
    pae = cpu->cr0 & X86_CR0_PG && cpu->cr4 & X86_CR4_PAE && !(cpu->efer & X86_EFER_LMA);
    if (pae && !x86_load_pdptes(cpu, cpu->cr3))
        vmx_abort(cpu, VMX_ABORT_HOST_PDPTES);
    if (vmx_load_msrs(cpu, v->vm_exit_msr_load_address, v->vm_exit_msr_load_count))
        vmx_abort(cpu, VMX_ABORT_LOAD_MSRS);
}

/* SDM 28.2.5: an access to the APIC-access page says how long the instruction is that made it. */
static void save_accessing_length(struct x86_cpu *cpu, struct vmcs *v)
{
    const u64 type = bits(v->exit_qualification, 15, 12);
    struct x86_insn in;

    if (type <= 1 && x86_decode_at_lip(cpu, &in))
        v->vm_exit_instruction_length = in.length;
}

void vmx_nested_exit(struct x86_cpu *cpu, u32 reason)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmcs *v = &vmx->nested.vmcs;
    bool failed_entry = reason >> 31;

    v->exit_reason = reason;
    v->exit_qualification = cpu->vmexit.qualification;
    if (reason == VMX_REASON_apic_access)
        save_accessing_length(cpu, v);
    vmx->inner_exits[reason & 0xff]++;
    vmx_trace_exit(cpu, v, reason);
    if (!failed_entry) {
        save_registers(cpu, v);
        save_segments(cpu, v);
        save_rest(cpu, v, reason);
        if (vmx_store_msrs(cpu, v->vm_exit_msr_store_address, v->vm_exit_msr_store_count))
            vmx_abort(cpu, VMX_ABORT_STORE_MSRS);
    }
    load_host_state(cpu);
}
