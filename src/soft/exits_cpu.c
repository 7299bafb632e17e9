/*
 * VM-exit handlers of the root VMCS for instructions that name no memory or port, and for events.
 * A handler answers SOFT_RESUME, SOFT_HAND_UP with the run record filled, or a negative errno.
 * Those that carry out an instruction skip it.
 */
#include <errno.h>
#include <sched.h>

#include "soft/private.h"
#include "trace/trace.h"

int soft_exit_unexpected(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    return soft_internal_error(vcpu,
                               "VM exit \"%s\" (%u, qualification %#" PRIx64 ") at %#" PRIx64
                               ", which the root VMCS does not ask for",
                               vmx_reason_name(exit->reason), exit->reason, exit->qualification,
                               vcpu->cpu.lip);
}

/* Only a debugger makes exceptions exit. */
int soft_exit_exception(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct kvm_run *run = soft_record(vcpu);

    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch = (struct kvm_debug_exit_arch){
        .exception = (u8)vcpu->vmx.root.vmcs.vm_exit_interruption_information,
        .pc = vcpu->cpu.lip,
        .dr6 = exit->qualification,
        .dr7 = vcpu->cpu.dr[7],
    };
    return SOFT_HAND_UP;
}

int soft_exit_external_interrupt(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    (void)exit;
    vcpu->priv.events_due = true;
    return SOFT_RESUME;
}

int soft_exit_interrupt_window(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    return soft_exit_external_interrupt(vcpu, exit);
}

int soft_exit_init(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    return soft_exit_external_interrupt(vcpu, exit);
}

int soft_exit_sipi(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    return soft_exit_external_interrupt(vcpu, exit);
}

int soft_exit_triple_fault(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    (void)exit;
    soft_record(vcpu)->exit_reason = KVM_EXIT_SHUTDOWN;
    return SOFT_HAND_UP;
}

int soft_exit_cpuid(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u32 leaf = (u32)cpu->gpr[X86_RAX], subleaf = (u32)cpu->gpr[X86_RCX], out[4];

    soft_cpuid(cpu, leaf, subleaf, out);
    /* For systems that stumble over high numbers; the features themselves stay. */
    if (leaf == 0 && vcpu->parts.msrs.misc_enable & SOFT_MISC_LIMIT_CPUID)
        out[CPUID_EAX] = 2;
    cpu->gpr[X86_RAX] = out[CPUID_EAX];
    cpu->gpr[X86_RBX] = out[CPUID_EBX];
    cpu->gpr[X86_RCX] = out[CPUID_ECX];
    cpu->gpr[X86_RDX] = out[CPUID_EDX];
    trace_emit(CPUID, cpuid, (int)vcpu->id.vcpu.index, .leaf = leaf, .subleaf = subleaf,
               .eax = out[0], .ebx = out[1], .ecx = out[2], .edx = out[3]);
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

/* The run loop finds the vCPU halted and sleeps, unless something wakes it at once. */
int soft_exit_hlt(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    soft_skip(vcpu, exit->insn_len);
    vcpu->priv.stats.halts++;
    soft_set_state(vcpu, SOFT_HALTED);
    return SOFT_RESUME;
}

/* Caches are the host's business. */
int soft_exit_invd(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

int soft_exit_wbinvd(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    return soft_exit_invd(vcpu, exit);
}

/* MWAIT may end at any time (SDM volume 2, MWAIT); the host's other threads get a turn. */
int soft_exit_mwait(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    soft_skip(vcpu, exit->insn_len);
    vcpu->cpu.monitor_armed = false;
    sched_yield();
    return SOFT_RESUME;
}

int soft_exit_monitor(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    x86_monitor(&vcpu->cpu, exit->linear);
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

/*
 * Intercepted only with several vCPUs: whoever is waited for may be waiting for our host CPU. Most
 * waits end before that is worth anything, and to yield on a busy host is to sleep for long, so
 * only who has been spinning for a while does.
 */
#define SPIN_MICROSECONDS 50
#define GAP_MICROSECONDS 5 /* PAUSEs further apart are not one spin */

int soft_exit_pause(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct soft_private *priv = &vcpu->priv;
    const struct soft_clock *clock = &vcpu->id.vm->clock;
    u64 now = soft_clock_ticks(clock), microsecond = clock->khz / 1000;

    soft_skip(vcpu, exit->insn_len);
    if (now - priv->pause_last > GAP_MICROSECONDS * microsecond)
        priv->pause_first = now;
    priv->pause_last = now;
    if (now - priv->pause_first > SPIN_MICROSECONDS * microsecond) {
        sched_yield();
        priv->pause_first = priv->pause_last = soft_clock_ticks(clock);
    }
    return SOFT_RESUME;
}

int soft_exit_xsetbv(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u64 value = (u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32;

    if (cpu->cpl || (u32)cpu->gpr[X86_RCX] || !x86_write_xcr0(cpu, value))
        soft_raise(vcpu, X86_GP, 0);
    else
        soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

int soft_exit_rdmsr(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u32 msr = (u32)cpu->gpr[X86_RCX];
    u64 value = 0;
    bool ok = x86_msr_read(cpu, msr, &value);

    trace_emit(MSR, msr, (int)vcpu->id.vcpu.index, .op = ok ? "rdmsr" : "rdmsr #GP", .msr = msr,
               .value = value);
    if (!ok) {
        soft_raise(vcpu, X86_GP, 0);
        return SOFT_RESUME;
    }
    cpu->gpr[X86_RAX] = (u32)value;
    cpu->gpr[X86_RDX] = value >> 32;
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}

int soft_exit_wrmsr(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u32 msr = (u32)cpu->gpr[X86_RCX];
    u64 value = (u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32;
    u64 offset = cpu->tsc_offset;
    bool ok = vmx_wrmsr(cpu, msr, value);

    trace_emit(MSR, msr, (int)vcpu->id.vcpu.index, .op = ok ? "wrmsr" : "wrmsr #GP", .msr = msr,
               .value = value);
    if (!ok) {
        soft_raise(vcpu, X86_GP, 0);
        return SOFT_RESUME;
    }
    if (cpu->tsc_offset != offset)
        soft_write_system_time(vcpu);
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}
