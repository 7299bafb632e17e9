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

u64 vmx_outer_tsc(const struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmx_level *current = vmx->current;
    u64 tsc;

    if (!cpu->hooks->tsc)
        return 0;
    vmx->current = &vmx->root;
    tsc = cpu->hooks->tsc(cpu);
    vmx->current = current;
    return tsc;
}

bool vmx_wrmsr(struct x86_cpu *cpu, u32 msr, u64 value)
{
    const u32 msr_tsc = 0x10;

    if (msr == msr_tsc && vmx_inner(cpu)) {
        cpu->tsc_offset += value - vmx_outer_tsc(cpu);
        return true;
    }
    return x86_msr_write(cpu, msr, value);
}

bool vmx_exits_on_interrupt(const struct x86_cpu *cpu, bool nmi)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return false;
    /* SDM 26.2, 25.4: blocking by STI or MOV SS holds them back; RFLAGS.IF does not. */
    if (x86_interruptibility(cpu) & X86_SHADOW)
        return false;
    if (nmi)
        return vmx_pin(v, VMX_C_nmi_exiting) && cpu->activity != X86_WAITS_FOR_SIPI &&
               (vmx_pin(v, VMX_C_virtual_nmis) ||
                !(x86_interruptibility(cpu) & X86_BLOCKED_BY_NMI));
    /* Neither in the shutdown nor in the wait-for-SIPI state. */
    return vmx_pin(v, VMX_C_external_interrupt_exiting) && cpu->activity <= X86_HALTED;
}

bool vmx_acknowledges(const struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    return v && vmx_exit_control(v, VMX_C_exit_acknowledge_interrupt);
}

static void exit_qualified(struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->exit_to = &vmx->nested;
    cpu->vmexit = (struct x86_vmexit){.reason = reason, .qualification = qualification};
    vmx_exit(cpu);
}

static void exit_without_qualification(struct x86_cpu *cpu, u32 reason)
{
    exit_qualified(cpu, reason, 0);
}

void vmx_interrupt_exit(struct x86_cpu *cpu, bool nmi, int vector)
{
    /* A debug trap that waits is saved with the state. */
    if (cpu->pending.valid && cpu->pending.vector == X86_DB && cpu->pending.has_payload)
        cpu->debug_hits |= (u32)cpu->pending.payload;
    cpu->pending = (struct x86_event){
        .valid = nmi || vector >= 0, .vector = nmi ? X86_NMI : (u8)vector, .type = nmi ? 2 : 0};
    exit_without_qualification(cpu,
                               nmi ? VMX_REASON_exception_or_nmi : VMX_REASON_external_interrupt);
    if (nmi)
        cpu->interruptibility |= X86_BLOCKED_BY_NMI; /* SDM 28.5.5 */
}

/* The VMX-preemption timer at 0 (SDM 26.5.1). */
static bool preempted(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    if (likely(!vmx->preemption) || cpu->activity == X86_WAITS_FOR_SIPI)
        return false;
    if (vmx_outer_tsc(cpu) >= vmx->preemption_tsc)
        return true;
    /* The engine's clock and the TSC do not agree to the last tick. */
    if (__atomic_exchange_n(&vmx->preemption_fired, false, __ATOMIC_SEQ_CST))
        vmx->arm(cpu, vmx->preemption_tsc);
    return false;
}

void vmx_time_seen(struct x86_cpu *cpu)
{
    if (likely(!vmx_inner(cpu)) || cpu->common.insn_limit == 1 || !preempted(cpu))
        return;
    vmx_of(cpu)->alone = true;
    guest_leave(&cpu->common, X86_EXIT_STATE);
}

bool vmx_steps(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return false;
    vmx->stepping = vmx_proc(v, VMX_C_monitor_trap_flag);
    return vmx->stepping || vmx->alone || cpu->debug_hits;
}

/* Debug exceptions that were pending at VM entry, held back by MOV SS for one instruction. */
static void raise_held(struct x86_cpu *cpu)
{
    if (likely(!cpu->debug_hits) || cpu->pending.valid ||
        x86_interruptibility(cpu) & X86_SHADOW_MOV_SS)
        return;
    cpu->pending = (struct x86_event){.valid = true,
                                      .vector = X86_DB,
                                      .type = 3,
                                      .payload = cpu->debug_hits,
                                      .has_payload = true};
    cpu->debug_hits = 0;
}

void vmx_stepped(struct x86_cpu *cpu, bool done)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    if (done && vmx_inner(cpu)) {
        vmx->mtf_pending |= vmx->stepping;
        raise_held(cpu);
    }
    vmx->stepping = false;
}

void vmx_carried_out(struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (unlikely(v))
        vmx_of(cpu)->mtf_pending |= vmx_proc(v, VMX_C_monitor_trap_flag);
}

bool vmx_trap_exit(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    u32 reason = vmx->due;

    if (likely(!reason && !vmx->mtf_pending))
        return false;
    if (!vmx_inner(cpu)) {
        vmx->due = 0;
        vmx->mtf_pending = false;
        return false;
    }
    exit_qualified(cpu, reason ? reason : VMX_REASON_monitor_trap_flag,
                   reason ? vmx->due_qualification : 0);
    return true;
}

enum vmx_signal vmx_init_signal(struct x86_cpu *cpu)
{
    if (likely(!vmx_of(cpu)->on))
        return VMX_SIGNAL_TAKE;
    if (!vmx_inner(cpu) || cpu->activity == X86_WAITS_FOR_SIPI)
        return VMX_SIGNAL_BLOCKED;
    exit_without_qualification(cpu, VMX_REASON_init_signal);
    return VMX_SIGNAL_EXITED;
}

enum vmx_signal vmx_startup_ipi(struct x86_cpu *cpu, u8 vector)
{
    if (likely(!vmx_inner(cpu)))
        return VMX_SIGNAL_TAKE;
    if (cpu->activity != X86_WAITS_FOR_SIPI)
        return VMX_SIGNAL_BLOCKED;
    exit_qualified(cpu, VMX_REASON_startup_ipi, vector);
    return VMX_SIGNAL_EXITED;
}

/* SDM 26.2: interrupt window, NMI window; 26.5.1: the preemption timer, which comes before them.
 * 0: none is due. */
static u32 window_reason(struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return 0;
    if (preempted(cpu))
        return VMX_REASON_preemption_timer;
    if (vmx_proc(v, (u32)VMX_C_nmi_window_exiting) && cpu->activity != X86_WAITS_FOR_SIPI &&
        !(x86_interruptibility(cpu) & (X86_SHADOW | X86_BLOCKED_BY_NMI)))
        return VMX_REASON_nmi_window;
    if (vmx_proc(v, VMX_C_interrupt_window_exiting) && x86_interrupt_allowed(cpu))
        return VMX_REASON_interrupt_window;
    return 0;
}

bool vmx_window_due(struct x86_cpu *cpu)
{
    return window_reason(cpu);
}

bool vmx_window_exit(struct x86_cpu *cpu, bool nmi)
{
    u32 reason = window_reason(cpu);

    if (likely(!reason) || (nmi && reason == VMX_REASON_interrupt_window))
        return false;
    exit_without_qualification(cpu, reason);
    return true;
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
    vmx->mtf_pending = vmx->alone = vmx->stepping = vmx->preemption = false;
    vmx->due = 0;
    cpu->iret_keeps_nmi = false;
    cpu->common.mode &= ~(u32)X86_MODE_NONROOT;
    if (vmx->hooks)
        vmx_update_second_level(cpu);
}
