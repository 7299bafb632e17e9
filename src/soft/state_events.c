/* Get and set of what waits to happen to a vCPU: events, run state, interrupts, a debugger. */
#include <errno.h>
#include <string.h>

#include "soft/private.h"

int soft_get_lapic(struct vcpu *vcpu, struct kvm_lapic_state *lapic)
{
    lapic_get_state(&soft_vcpu(vcpu)->parts.lapic, lapic);
    return 0;
}

int soft_set_lapic(struct vcpu *vcpu, const struct kvm_lapic_state *lapic)
{
    lapic_set_state(&soft_vcpu(vcpu)->parts.lapic, lapic);
    return 0;
}

/* An event in the VM-entry fields is "injected" in KVM's words: on its way, not to be asked
 * again. */
static void get_injected(const struct soft_vcpu *soft, struct kvm_vcpu_events *events)
{
    const struct vmcs *vmcs = &soft->vmx.root.vmcs;
    u32 info = vmcs->vm_entry_interruption_information;

    if (!(info & VMX_INTR_VALID))
        return;
    switch (VMX_INTR_TYPE(info)) {
    case 0:
    case 4:
        events->interrupt.injected = 1;
        events->interrupt.nr = (u8)info;
        events->interrupt.soft = VMX_INTR_TYPE(info) == 4;
        break;
    case 2:
        events->nmi.injected = 1;
        break;
    default:
        events->exception.injected = 1;
        events->exception.nr = (u8)info;
        events->exception.has_error_code = !!(info & VMX_INTR_ERROR);
        events->exception.error_code = vmcs->vm_entry_exception_error_code;
        break;
    }
}

/* An exception not yet delivered counts as injected; its address or DR6 bits take effect now,
 * because the struct has no room for them unless the user asked for payloads. */
static void get_pending(struct x86_cpu *cpu, struct kvm_vcpu_events *events)
{
    struct x86_event *pending = &cpu->pending;

    if (!pending->valid)
        return;
    if (pending->has_payload && pending->vector == X86_PF)
        cpu->cr2 = pending->payload;
    else if (pending->has_payload && pending->vector == X86_DB)
        cpu->dr[6] = (cpu->dr[6] & ~0xfull) | pending->payload;
    pending->has_payload = false;
    events->exception.injected = 1;
    events->exception.nr = pending->vector;
    events->exception.has_error_code = pending->has_error;
    events->exception.error_code = pending->error;
}

int soft_get_vcpu_events(struct vcpu *vcpu, struct kvm_vcpu_events *events)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    u32 signals = __atomic_load_n(&soft->run.signals, __ATOMIC_SEQ_CST);
    u32 shadow = x86_interruptibility(&soft->cpu);

    memset(events, 0, sizeof *events);
    get_pending(&soft->cpu, events);
    get_injected(soft, events);
    events->interrupt.shadow = (shadow & X86_SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) |
                               (shadow & X86_SHADOW_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
    events->nmi.pending = !!(signals & SOFT_SIGNAL_NMI) + !!(signals & SOFT_SIGNAL_NMI_AGAIN);
    events->nmi.masked = !!(shadow & X86_BLOCKED_BY_NMI);
    events->sipi_vector = signals & 0xff;
    events->smi.latched_init = !!(signals & SOFT_SIGNAL_INIT);
    events->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    return 0;
}

static void set_nmis(struct soft_vcpu *soft, unsigned pending)
{
    u32 both = SOFT_SIGNAL_NMI | SOFT_SIGNAL_NMI_AGAIN;

    __atomic_fetch_and(&soft->run.signals, ~both, __ATOMIC_SEQ_CST);
    if (pending)
        soft_signal(soft, pending > 1 ? both : SOFT_SIGNAL_NMI);
}

static void set_injected(struct soft_vcpu *soft, const struct kvm_vcpu_events *events)
{
    struct x86_event event = {.valid = true};

    soft->vmx.root.vmcs.vm_entry_interruption_information = 0;
    if (events->nmi.injected) {
        event.vector = X86_NMI;
        event.type = 2;
    } else if (events->interrupt.injected) {
        event.vector = events->interrupt.nr;
        event.type = events->interrupt.soft ? 4 : 0;
    } else {
        return;
    }
    vmx_inject(&soft->vmx, &event);
}

int soft_set_vcpu_events(struct vcpu *vcpu, const struct kvm_vcpu_events *events)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    struct x86_cpu *cpu = &soft->cpu;

    if (events->flags & ~(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                          KVM_VCPUEVENT_VALID_SHADOW) ||
        (events->exception.injected && (events->exception.nr > 31 || events->exception.nr == 2)))
        return -EINVAL;
    cpu->pending = (struct x86_event){
        .valid = events->exception.injected || events->exception.pending,
        .vector = events->exception.nr,
        .type = events->exception.nr == X86_BP || events->exception.nr == X86_OF ? 6 : 3,
        .has_error = events->exception.has_error_code,
        .error = events->exception.error_code,
        .insn_len = events->exception.nr == X86_BP || events->exception.nr == X86_OF ? 1 : 0,
    };
    set_injected(soft, events);
    if (events->flags & KVM_VCPUEVENT_VALID_SHADOW) {
        x86_clear_shadow(cpu);
        if (events->interrupt.shadow & KVM_X86_SHADOW_INT_STI)
            cpu->interruptibility |= X86_SHADOW_STI;
        if (events->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
            cpu->interruptibility |= X86_SHADOW_MOV_SS;
        cpu->shadow_lip = cpu->lip;
    }
    cpu->interruptibility &= ~X86_BLOCKED_BY_NMI;
    if (events->nmi.masked)
        cpu->interruptibility |= X86_BLOCKED_BY_NMI;
    if (events->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
        set_nmis(soft, events->nmi.pending);
    soft->priv.events_due = true;
    return 0;
}

int soft_get_mp_state(struct vcpu *vcpu, struct kvm_mp_state *state)
{
    switch (soft_vcpu(vcpu)->run.state) {
    case SOFT_HALTED:
        state->mp_state = KVM_MP_STATE_HALTED;
        break;
    case SOFT_WAIT_SIPI:
        state->mp_state = soft_vcpu(vcpu)->run.init_received ? KVM_MP_STATE_INIT_RECEIVED
                                                             : KVM_MP_STATE_UNINITIALIZED;
        break;
    case SOFT_PAUSED:
    case SOFT_UNPLUGGED:
        state->mp_state = KVM_MP_STATE_STOPPED;
        break;
    default:
        state->mp_state = KVM_MP_STATE_RUNNABLE;
        break;
    }
    return 0;
}

int soft_set_mp_state(struct vcpu *vcpu, const struct kvm_mp_state *state)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    enum soft_state to;

    switch (state->mp_state) {
    case KVM_MP_STATE_RUNNABLE:
    case KVM_MP_STATE_SIPI_RECEIVED:
        to = SOFT_RUNNABLE;
        break;
    case KVM_MP_STATE_HALTED:
        to = SOFT_HALTED;
        break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        to = SOFT_WAIT_SIPI;
        break;
    case KVM_MP_STATE_STOPPED:
        to = SOFT_PAUSED;
        break;
    default:
        return -EINVAL;
    }
    if (soft->run.state == SOFT_UNPLUGGED || soft->run.state == SOFT_RUNNING)
        return -EBUSY;
    soft->run.init_received = state->mp_state == KVM_MP_STATE_INIT_RECEIVED;
    soft_set_state(soft, to);
    return 0;
}

/* For a VM without interrupt controllers; ours always has them. */
int soft_interrupt(struct vcpu *vcpu, u32 vector)
{
    (void)vcpu;
    (void)vector;
    return -ENXIO;
}

int soft_nmi(struct vcpu *vcpu)
{
    soft_signal_nmi(soft_vcpu(vcpu));
    return 0;
}

/* The debugger's breakpoints; I/O breakpoints (R/W 2) are refused. */
static int set_hw_breakpoints(struct x86_cpu *cpu, const struct kvm_guest_debug *debug)
{
    struct x86_debugger *debugger = &cpu->debugger;
    bool on = debug->control & KVM_GUESTDBG_ENABLE && debug->control & KVM_GUESTDBG_USE_HW_BP;
    u32 old = debugger->dr7, dr7 = on ? (u32)debug->arch.debugreg[7] : 0;

    for (unsigned i = 0; i < 4; i++)
        if (dr7 >> (2 * i) & 3 && (dr7 >> (16 + 4 * i) & 3) == 2)
            return -EOPNOTSUPP;
    debugger->dr7 = dr7 & 0xff ? dr7 : 0;
    debugger->hits = 0;
    for (unsigned i = 0; i < 4; i++)
        debugger->dr[i] = debug->arch.debugreg[i];
    x86_update_mode(cpu);
    if ((old || debugger->dr7) && cpu->common.memory)
        cpu->common.memory->flush_all(&cpu->common);
    return 0;
}

/* By the VM-entry fields: what is injected there is not intercepted, so the guest gets it although
 * the debugger has such exceptions exit. */
static void inject_exception(struct soft_vcpu *soft, bool breakpoint)
{
    struct x86_event event = {.valid = true, .vector = X86_DB, .type = 3};

    if (breakpoint)
        event = (struct x86_event){.valid = true, .vector = X86_BP, .type = 6, .insn_len = 1};
    vmx_inject(&soft->vmx, &event);
}

int soft_set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    struct vmcs *vmcs = &soft->vmx.root.vmcs;
    int ret;
    const u32 known = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |
                      KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_BLOCKIRQ | KVM_GUESTDBG_INJECT_DB |
                      KVM_GUESTDBG_INJECT_BP;

    if (debug->control & ~known)
        return -EINVAL;
    if (debug->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP) &&
        (soft->cpu.pending.valid || vmx_injecting(&soft->vmx)))
        return -EBUSY;
    ret = set_hw_breakpoints(&soft->cpu, debug);
    if (ret)
        return ret;
    if (debug->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP))
        inject_exception(soft, debug->control & KVM_GUESTDBG_INJECT_BP);
    soft->priv.debug = *debug;
    soft->priv.watch_step = false;
    if (!(debug->control & KVM_GUESTDBG_ENABLE))
        soft->priv.debug.control = 0;
    vmcs->exception_bitmap = soft->priv.debug.control & KVM_GUESTDBG_USE_SW_BP ? BIT(X86_BP) : 0;
    soft->priv.events_due = true;
    return 0;
}
