/* KVM's paravirtual interface, Linux Documentation/virt/kvm/x86: hypercalls and kvmclock. */
#include <errno.h>
#include <linux/kvm_para.h>
#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "soft/private.h"
#include "trace/trace.h"

/* Layouts are the interface's (msr.rst). */
struct wall_clock {
    u32 version, sec, nsec;
};

struct system_time {
    u32 version, pad;
    u64 tsc_timestamp, system_time;
    u32 mul;
    s8 shift;
    u8 flags, pad2[2];
};

_Static_assert(sizeof(struct wall_clock) == 12 && sizeof(struct system_time) == 32, "no padding");

#define SYSTEM_TIME_STABLE 1 /* all vCPUs' pages say the same */
#define SYSTEM_TIME_ENABLE 1

/* An odd version says "being written". The stores must be seen in this order. */
static void publish(struct soft_vcpu *vcpu, u64 gpa, void *data, size_t len)
{
    struct mem *mem = vcpu->id.vm->vm.mem;
    u32 version, odd;
    u8 *hva;

    mem_reader_online(mem, vcpu->cpu.common.index);
    hva = mem_hva(mem, gpa, len, true);
    if (hva && !(gpa & 3)) {
        memcpy(&version, hva, 4);
        odd = (version | 1) + (version & 1 ? 2 : 0);
        __atomic_store_n((u32 *)(void *)hva, odd, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        memcpy(hva + 4, (u8 *)data + 4, len - 4);
        __atomic_store_n((u32 *)(void *)hva, odd + 1, __ATOMIC_RELEASE);
        mem_wrote(mem, gpa, len);
    }
    mem_reader_offline(mem, vcpu->cpu.common.index);
}

void soft_write_wall_clock(struct soft_vcpu *vcpu)
{
    u64 boot = clock_real_ns() - soft_clock_now(&vcpu->id.vm->clock);
    struct wall_clock page = {
        .sec = (u32)(boot / NSEC_PER_SEC),
        .nsec = (u32)(boot % NSEC_PER_SEC),
    };

    publish(vcpu, vcpu->parts.msrs.wall_clock, &page, sizeof page);
}

/* One pair of TSC and time for all vCPUs and for good: the TSC is invariant. */
void soft_write_system_time(struct soft_vcpu *vcpu)
{
    const struct soft_clock *clock = &vcpu->id.vm->clock;
    struct system_time page = {
        .tsc_timestamp =
            (u64)((u128)clock->epoch_ticks * vcpu->cpu.tsc_scale >> 48) + vcpu->cpu.tsc_offset,
        .system_time = clock->epoch_ns,
        .flags = SYSTEM_TIME_STABLE,
    };

    if (!(vcpu->parts.msrs.system_time & SYSTEM_TIME_ENABLE))
        return;
    soft_clock_factor(clock->khz, &page.mul, &page.shift);
    publish(vcpu, vcpu->parts.msrs.system_time & ~(u64)SYSTEM_TIME_ENABLE, &page, sizeof page);
}

static struct soft_vcpu *by_apic_id(struct soft_vm *vm, u64 apic_id)
{
    for (unsigned i = 0; i < SOFT_MAX_CPUS; i++)
        if (vm->cpu[i] && vm->cpu[i]->id.vcpu.apic_id == apic_id)
            return vm->cpu[i];
    return NULL;
}

/* Bitmaps of APIC ids from @min, @bits ids each; the ICR gives vector and delivery mode. */
static u64 send_ipi(struct soft_vm *vm, u64 low, u64 high, u64 min, u64 icr, unsigned bits)
{
    struct apic_message message = {
        .vector = (u8)icr,
        .delivery = icr >> 8 & 7,
        .assert = true,
    };
    u64 count = 0;

    if (icr & (BIT(11) | 3ull << 18) ||
        (message.delivery != APIC_FIXED && message.delivery != APIC_NMI))
        return (u64)-KVM_EINVAL;
    for (unsigned i = 0; i < 2 * bits; i++) {
        message.dest = (u32)(min + i);
        /* An id that no CPU has would be a broadcast, or another CPU's by its low bits. */
        if ((i < bits ? low >> i : high >> (i - bits)) & 1 && by_apic_id(vm, min + i))
            count += soft_deliver(vm, &message, NULL);
    }
    return count;
}

/* As in KVM all of them work whether CPUID offers them or not. */
static u64 hypercall(struct soft_vm *vm, u64 number, const u64 arg[4], bool code64)
{
    struct soft_vcpu *other;

    switch (number) {
    case KVM_HC_VAPIC_POLL_IRQ:
        return 0;
    case KVM_HC_KICK_CPU:
        other = by_apic_id(vm, arg[1]);
        if (other)
            soft_signal(other, SOFT_SIGNAL_UNHALT);
        return 0;
    case KVM_HC_SEND_IPI:
        return send_ipi(vm, arg[0], arg[1], arg[2], arg[3], code64 ? 64 : 32);
    case KVM_HC_SCHED_YIELD:
        sched_yield();
        return 0;
    }
    return (u64)-KVM_ENOSYS;
}

int soft_exit_vmcall(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    bool code64 = (cpu->common.mode & X86_MODE_CODE_MASK) == X86_MODE_CODE64;
    u64 mask = code64 ? ~0ull : 0xffffffff;
    u64 number = cpu->gpr[X86_RAX] & mask;
    u64 arg[4] = {cpu->gpr[X86_RBX] & mask, cpu->gpr[X86_RCX] & mask, cpu->gpr[X86_RDX] & mask,
                  cpu->gpr[X86_RSI] & mask};
    u64 result = cpu->cpl ? (u64)-KVM_EPERM : hypercall(vcpu->id.vm, number, arg, code64);

    cpu->gpr[X86_RAX] = result & mask;
    trace_emit(HYPERCALL, hypercall, (int)vcpu->id.vcpu.index, .number = number, .a0 = arg[0],
               .a1 = arg[1], .a2 = arg[2], .a3 = arg[3], .result = result & mask);
    soft_skip(vcpu, exit->insn_len);
    return SOFT_RESUME;
}
