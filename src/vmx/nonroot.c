/* VMX non-root operation: what is different there for the CPU, and exits that events cause. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

struct x86_cr_view vmx_cr_view(struct x86_cpu *cpu, unsigned cr)
{
    const struct vmcs *v = vmx_inner(cpu);
    struct x86_cr_view view = {0};

    if (!vmx_of(cpu)->on)
        return view;
    view.fixed = cr == 0 ? vmx_cr0_fixed0(v) : VMX_CR4_FIXED0;
    if (v) {
        view.mask = cr == 0 ? v->cr0_guest_host_mask : v->cr4_guest_host_mask;
        view.shadow = cr == 0 ? v->cr0_read_shadow : v->cr4_read_shadow;
    }
    return view;
}

u64 vmx_tsc(const struct x86_cpu *cpu, u64 outer)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v) || !vmx_proc(v, VMX_C_use_tsc_offsetting))
        return outer;
    if (vmx_proc2(v, VMX_C_use_tsc_scaling))
        outer = (u64)((u128)outer * v->tsc_multiplier >> 48);
    return outer + v->tsc_offset;
}

bool vmx_exits_on_interrupt(const struct x86_cpu *cpu, bool nmi)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return false;
    /* SDM 26.2, 25.4: blocking by STI or MOV SS holds them back; RFLAGS.IF does not. */
    if (x86_interruptibility(cpu) & (X86_SHADOW_STI | X86_SHADOW_MOV_SS))
        return false;
    if (nmi)
        return vmx_pin(v, VMX_C_nmi_exiting) &&
               (vmx_pin(v, VMX_C_virtual_nmis) ||
                !(x86_interruptibility(cpu) & X86_BLOCKED_BY_NMI));
    return vmx_pin(v, VMX_C_external_interrupt_exiting);
}

bool vmx_acknowledges(const struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    return v && vmx_exit_control(v, VMX_C_exit_acknowledge_interrupt);
}

static void exit_without_qualification(struct x86_cpu *cpu, u32 reason)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->exit_to = &vmx->nested;
    cpu->vmexit = (struct x86_vmexit){.reason = reason};
    vmx_exit(cpu);
}

void vmx_interrupt_exit(struct x86_cpu *cpu, bool nmi, int vector)
{
    struct vmcs *v = vmx_inner(cpu);

    exit_without_qualification(cpu, nmi ? VMX_REASON_exception_or_nmi
                                        : VMX_REASON_external_interrupt);
    if (nmi)
        v->vm_exit_interruption_information = (u32)VMX_INTR_VALID | 2u << 8 | X86_NMI;
    else
        v->vm_exit_interruption_information = vector >= 0 ? (u32)VMX_INTR_VALID | (u32)vector : 0;
}

/* SDM 26.2: interrupt window, NMI window; 26.5.2: monitor trap flag injected as pending. */
bool vmx_window_exit(struct x86_cpu *cpu)
{
    struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return false;
    if (vmx_of(cpu)->mtf_pending) {
        exit_without_qualification(cpu, VMX_REASON_monitor_trap_flag);
        return true;
    }
    if (vmx_proc(v, (u32)VMX_C_nmi_window_exiting) &&
        !(x86_interruptibility(cpu) &
          (X86_SHADOW_STI | X86_SHADOW_MOV_SS | X86_BLOCKED_BY_NMI))) {
        exit_without_qualification(cpu, VMX_REASON_nmi_window);
        return true;
    }
    if (vmx_proc(v, VMX_C_interrupt_window_exiting) && x86_interrupt_allowed(cpu)) {
        exit_without_qualification(cpu, VMX_REASON_interrupt_window);
        return true;
    }
    return false;
}

bool vmx_window_waits(const struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    return v && (vmx_proc(v, VMX_C_interrupt_window_exiting) ||
                 vmx_proc(v, (u32)VMX_C_nmi_window_exiting));
}

void vmx_reset(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->on = false;
    vmx->current_pointer = VMX_NO_POINTER;
    vmx->current = vmx->exit_to = &vmx->root;
    vmx->mtf_pending = false;
    cpu->common.mode &= ~(u32)X86_MODE_NONROOT;
    if (vmx->hooks)
        vmx_update_second_level(cpu);
}
