/* A vCPU: creation, its run-state machine, requests and sleep. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "soft/private.h"
#include "trace/trace.h"

/* --- run states --- */

#define TO(state) (1u << SOFT_##state)
static const struct {
    const char *name;
    u32 next; /* states that may follow */
} states[SOFT_STATES] = {
    [SOFT_CREATED] = {"created",
                      TO(RUNNABLE) | TO(WAIT_SIPI) | TO(HALTED) | TO(PAUSED) | TO(UNPLUGGED)},
    [SOFT_RUNNABLE] = {"runnable",
                       TO(RUNNING) | TO(HALTED) | TO(WAIT_SIPI) | TO(PAUSED) | TO(UNPLUGGED)},
    [SOFT_RUNNING] = {"running", TO(RUNNABLE) | TO(HALTED) | TO(WAIT_SIPI)},
    [SOFT_HALTED] = {"halted",
                     TO(RUNNABLE) | TO(RUNNING) | TO(WAIT_SIPI) | TO(PAUSED) | TO(UNPLUGGED)},
    [SOFT_WAIT_SIPI] = {"wait-for-SIPI",
                        TO(RUNNABLE) | TO(RUNNING) | TO(HALTED) | TO(PAUSED) | TO(UNPLUGGED)},
    [SOFT_PAUSED] = {"paused", TO(RUNNABLE) | TO(HALTED) | TO(WAIT_SIPI) | TO(UNPLUGGED)},
    [SOFT_UNPLUGGED] = {"unplugged", 0},
};

void soft_set_state(struct soft_vcpu *vcpu, enum soft_state state)
{
    enum soft_state old = vcpu->run.state;

    if (old == state)
        return;
    BUG_ON(!(states[old].next >> state & 1));
    vcpu->run.state = state;
    /* The VMCS's activity state says the same to whoever looks there (SDM 25.4.2). */
    vcpu->cpu.activity = state == SOFT_HALTED      ? X86_HALTED
                         : state == SOFT_WAIT_SIPI ? X86_WAITS_FOR_SIPI
                                                   : X86_ACTIVE;
    x86_pmu_halt(&vcpu->cpu, state != SOFT_RUNNING);
    if (!(old == SOFT_RUNNABLE && state == SOFT_RUNNING) &&
        !(old == SOFT_RUNNING && state == SOFT_RUNNABLE))
        trace_emit(STATE, state, (int)vcpu->id.vcpu.index, .from = states[old].name,
                   .to = states[state].name);
}

/* --- requests from other threads --- */

static void futex(u32 *word, int op, u32 value)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

void soft_request(struct soft_vcpu *vcpu, u32 bits)
{
    dbt_request(&vcpu->cpu.common, bits);
    __atomic_fetch_add(&vcpu->run.calls, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&vcpu->run.sleeping, __ATOMIC_SEQ_CST))
        futex(&vcpu->run.calls, FUTEX_WAKE, INT_MAX);
}

/* The request word itself cannot be slept on: bits in it that are the translator's own stay set
 * while the vCPU does not run. */
void soft_sleep(struct soft_vcpu *vcpu)
{
    u32 calls = __atomic_load_n(&vcpu->run.calls, __ATOMIC_SEQ_CST);

    __atomic_store_n(&vcpu->run.sleeping, 1, __ATOMIC_SEQ_CST);
    if (!(__atomic_load_n(&vcpu->cpu.common.request, __ATOMIC_SEQ_CST) &
          (GUEST_REQ_KICK | GUEST_REQ_EVENT)))
        futex(&vcpu->run.calls, FUTEX_WAIT, calls);
    __atomic_store_n(&vcpu->run.sleeping, 0, __ATOMIC_SEQ_CST);
}

void soft_signal(struct soft_vcpu *vcpu, u32 signals)
{
    __atomic_fetch_or(&vcpu->run.signals, signals, __ATOMIC_SEQ_CST);
    soft_request(vcpu, GUEST_REQ_EVENT);
}

/* False, with what is there by now in *@old, if that is something else. */
static bool replace_signals(struct soft_vcpu *vcpu, u32 *old, u32 signals)
{
    return __atomic_compare_exchange_n(&vcpu->run.signals, old, signals, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

/* A CPU takes an NMI at once and holds the next one back until IRET. One that had no time to look
 * yet must see both. */
void soft_signal_nmi(struct soft_vcpu *vcpu)
{
    u32 old = __atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST), again;

    do
        again = old & SOFT_SIGNAL_NMI ? SOFT_SIGNAL_NMI_AGAIN : 0;
    while (!replace_signals(vcpu, &old, old | SOFT_SIGNAL_NMI | again));
    soft_request(vcpu, GUEST_REQ_EVENT);
}

void soft_take_nmi(struct soft_vcpu *vcpu)
{
    u32 old = __atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST), taken;

    do
        taken = old & SOFT_SIGNAL_NMI_AGAIN ? SOFT_SIGNAL_NMI_AGAIN : SOFT_SIGNAL_NMI;
    while (!replace_signals(vcpu, &old, old & ~taken));
}

void soft_signal_init(struct soft_vcpu *vcpu)
{
    u32 old = __atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST), first;

    do
        first = old & SOFT_SIGNAL_SIPI ? SOFT_SIGNAL_SIPI_FIRST : 0;
    while (!replace_signals(vcpu, &old, old | SOFT_SIGNAL_INIT | first));
    soft_request(vcpu, GUEST_REQ_EVENT);
}

/* Of two SIPIs in a row the first starts the CPU; of one before an INIT and one after it, the
 * second. */
void soft_signal_sipi(struct soft_vcpu *vcpu, u8 vector)
{
    u32 old = __atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST), others;

    do {
        if (old & SOFT_SIGNAL_SIPI && !(old & SOFT_SIGNAL_SIPI_FIRST))
            return;
        others = old & ~(0xffu | SOFT_SIGNAL_SIPI_FIRST);
    } while (!replace_signals(vcpu, &old, others | SOFT_SIGNAL_SIPI | vector));
    soft_request(vcpu, GUEST_REQ_EVENT);
}

void soft_vcpu_kick(struct vcpu *vcpu)
{
    soft_request(soft_vcpu(vcpu), GUEST_REQ_KICK);
}

/* --- the CPU's hooks --- */

static u64 hook_read_tpr(struct x86_cpu *cpu)
{
    u64 value;

    if (vmx_read_cr8(cpu, &value))
        return value;
    return lapic_cr8(&soft_of(cpu)->parts.lapic);
}

static void hook_write_tpr(struct x86_cpu *cpu, u64 value)
{
    if (!vmx_write_cr8(cpu, value))
        lapic_set_cr8(&soft_of(cpu)->parts.lapic, value);
}

static u64 scaled(const struct x86_cpu *cpu, u64 ticks)
{
    return likely(cpu->tsc_scale == 1ull << 48) ? ticks : (u64)((u128)ticks * cpu->tsc_scale >> 48);
}

static u64 hook_tsc(const struct x86_cpu *cpu)
{
    u64 ticks = soft_clock_ticks(&soft_of(cpu)->id.vm->clock);

    return vmx_tsc(cpu, scaled(cpu, ticks) + cpu->tsc_offset);
}

/* --- performance counters --- */

/* By the thread's own time: while the host runs others, no cycle of this CPU passes. */
static u64 hook_cycles(struct x86_cpu *cpu)
{
    return scaled(cpu, soft_clock_ns_to_ticks(&soft_of(cpu)->id.vm->clock, clock_thread_ns()));
}

static void hook_performance_interrupt(struct x86_cpu *cpu)
{
    lapic_performance_interrupt(&soft_of(cpu)->parts.lapic);
}

static void cycles_alarm_fire(struct soft_timer *timer)
{
    struct soft_vcpu *vcpu = container_of(timer, struct soft_vcpu, priv.cycles_alarm);

    __atomic_store_n(&vcpu->cpu.pmu.alarm_gone_off, true, __ATOMIC_SEQ_CST);
    soft_request(vcpu, GUEST_REQ_EVENT);
}

static void hook_cycles_alarm(struct x86_cpu *cpu, u64 cycles)
{
    struct soft_vcpu *vcpu = soft_of(cpu);

    soft_timer_arm(&vcpu->priv.cycles_alarm,
                   soft_lapic_hooks.deadline_ns(&vcpu->parts.lapic, vmx_outer_tsc(cpu) + cycles));
}

static u32 xsave_bytes(u64 components, bool compacted)
{
    if (!(components & BIT(9)))
        return 576;
    return compacted ? 576 + 8 : X86_XSAVE_BYTES;
}

void soft_cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    struct soft_vcpu *vcpu = soft_of(cpu);
    const struct kvm_cpuid_entry2 *e = cpuid_find(&vcpu->parts.cpuid, leaf, subleaf);

    memset(out, 0, 4 * sizeof *out);
    if (!e) {
        /* Leaves Bh and 1Fh give the APIC id and the subleaf's number beyond the last level too. */
        if (leaf == 0xb || leaf == 0x1f) {
            out[CPUID_ECX] = subleaf & 0xff;
            out[CPUID_EDX] = vcpu->id.vcpu.apic_id;
        }
        return;
    }
    memcpy(out, &e->eax, 4 * sizeof *out);
    switch (leaf) {
    case 0x80000001:
        if (vcpu->parts.msrs.misc_enable & SOFT_MISC_DISABLE_XD)
            out[CPUID_EDX] &= ~(u32)BIT(20);
        break;
    case 1:
        if (cpu->cr4 & X86_CR4_OSXSAVE && out[CPUID_ECX] & BIT(26))
            out[CPUID_ECX] |= BIT(27);
        if (!lapic_enabled(&vcpu->parts.lapic))
            out[CPUID_EDX] &= ~(u32)BIT(9);
        break;
    case 7:
        if (cpu->cr4 & X86_CR4_PKE && out[CPUID_ECX] & BIT(3))
            out[CPUID_ECX] |= BIT(4);
        break;
    case 0xd:
        if (subleaf == 0 && out[CPUID_EAX])
            out[CPUID_EBX] = xsave_bytes(cpu->xcr0, false);
        else if (subleaf == 1 && out[CPUID_EAX] & (BIT(1) | BIT(3)))
            out[CPUID_EBX] = xsave_bytes(cpu->xcr0 | cpu->xss, true);
        break;
    }
}

static void hook_cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    soft_cpuid(cpu, leaf, subleaf, out);
}

/* All but second-level translation, which is there only while a guest's VMCS has EPT. */
#define HOOKS                                                                                      \
    .intercept = vmx_intercept, .exits_inside = vmx_exits_inside, .enabled = vmx_enabled,          \
    .vmx = vmx_instruction, .cr_view = vmx_cr_view, .msr_read = soft_msr_read,                     \
    .msr_write = soft_msr_write, .cpuid = hook_cpuid, .mmio_read = soft_mmio_read,                 \
    .mmio_write = soft_mmio_write, .read_tpr = hook_read_tpr, .write_tpr = hook_write_tpr,         \
    .tsc = hook_tsc, .time_seen = vmx_time_seen, .cycles = hook_cycles,                            \
    .performance_interrupt = hook_performance_interrupt, .cycles_alarm = hook_cycles_alarm

const struct x86_hooks soft_x86_hooks = {HOOKS};
static const struct x86_hooks hooks_ept = {HOOKS, .second_level = vmx_second_level};

/* The VMX-preemption timer: the run loop looks whether it is time. */
static void preemption_fire(struct soft_timer *timer)
{
    struct soft_vcpu *vcpu = container_of(timer, struct soft_vcpu, priv.preemption);

    __atomic_store_n(&vcpu->vmx.preemption_fired, true, __ATOMIC_SEQ_CST);
    soft_request(vcpu, GUEST_REQ_EVENT);
}

static void arm_preemption(struct x86_cpu *cpu, u64 tsc)
{
    struct soft_vcpu *vcpu = soft_of(cpu);

    soft_timer_arm(&vcpu->priv.preemption, soft_lapic_hooks.deadline_ns(&vcpu->parts.lapic, tsc));
}

/* --- creation --- */

static void identify(struct soft_vcpu *vcpu, struct soft_vm *vm, unsigned index, u32 apic_id)
{
    unsigned thread_bits = cpuid_thread_bits(&vm->topology);
    unsigned core_bits = cpuid_core_bits(&vm->topology);

    vcpu->id.vm = vm;
    vcpu->id.vcpu.ops = &soft_engine_ops;
    vcpu->id.vcpu.vm = &vm->vm;
    vcpu->id.vcpu.index = index;
    vcpu->id.vcpu.apic_id = apic_id;
    vcpu->id.thread = apic_id & (u32)mask_low(thread_bits);
    vcpu->id.core = apic_id >> thread_bits & (u32)mask_low(core_bits - thread_bits);
    vcpu->id.socket = apic_id >> core_bits;
}

static void power_on(struct soft_vcpu *vcpu)
{
    struct soft_vm *vm = vcpu->id.vm;
    struct x86_cpu *cpu = &vcpu->cpu;

    cpu->tsc_scale = 1ull << 48;
    cpu->tsc_offset = vcpu->parts.msrs.tsc_base = 0 - vm->clock.boot_tsc;
    cpu->phys_mask = mask_low(CPUID_PHYS_BITS);
    cpu->quiet = true;
    cpu->pmu.halted = true;
    x86_reset(cpu, false);
    vcpu->run.state = SOFT_CREATED;
    if (vcpu->id.vcpu.index)
        soft_set_state(vcpu, SOFT_WAIT_SIPI);
}

static int vcpu_init(struct soft_vcpu *vcpu, struct soft_vm *vm, unsigned index, u32 apic_id)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    int ret;

    identify(vcpu, vm, index, apic_id);
    vmx_init(&vcpu->vmx);
    vcpu->vmx.root.msr_exits = soft_msr_exits;
    vcpu->vmx.hooks = &soft_x86_hooks;
    vcpu->vmx.hooks_ept = &hooks_ept;
    vcpu->vmx.arm = arm_preemption;
    soft_timer_init(&vcpu->priv.preemption, &vm->timers, preemption_fire);
    soft_timer_init(&vcpu->priv.cycles_alarm, &vm->timers, cycles_alarm_fire);
    if (vm->pauses) {
        vcpu->vmx.root.vmcs.primary_processor_based_controls |= (u32)VMX_C_pause_exiting;
        cpu->common.mode |= X86_MODE_PAUSE;
    }
    cpuid_build(&vcpu->parts.cpuid, &vm->model, &vm->topology, apic_id, vm->clock.khz);
    ret = soft_msrs_init(vcpu);
    if (ret)
        return ret;
    cpu->common.ops = &x86_guest_ops;
    cpu->common.mem = vm->vm.mem;
    cpu->common.index = index;
    cpu->hooks = &soft_x86_hooks;
    cpu->engine = vcpu;
    lapic_init(&vcpu->parts.lapic, apic_id, index == 0, &vm->timers, &soft_lapic_hooks);
    vcpu->parts.lapic.cpu = (int)index;
    vcpu->parts.lapic.has_x2apic = cpuid_find(&vcpu->parts.cpuid, 1, 0)->ecx & BIT(21);
    vcpu->parts.lapic.has_tsc_deadline = cpuid_find(&vcpu->parts.cpuid, 1, 0)->ecx & BIT(24);
    ret = dbt_attach(vm->dbt, &cpu->common);
    if (ret)
        return ret;
    power_on(vcpu);
    return 0;
}

int soft_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **out, struct err *err)
{
    struct soft_vm *soft = soft_vm(vm);
    size_t bytes = align_up(sizeof(struct soft_vcpu), 64);
    struct soft_vcpu *vcpu;
    int ret;

    if (index >= SOFT_MAX_CPUS || apic_id >= 255)
        return err_set(
            err, -EINVAL,
            "the soft engine has vCPUs 0 to %d with APIC ids to 254, not vCPU %u with %u",
            SOFT_MAX_CPUS - 1, index, apic_id);
    if (soft->cpu[index])
        return err_set(err, -EEXIST, "there is a vCPU %u already", index);
    vcpu = aligned_alloc(64, bytes);
    if (!vcpu)
        return err_set(err, -ENOMEM, "out of memory for vCPU %u", index);
    memset(vcpu, 0, bytes);
    vcpu->id.vcpu.run = aligned_alloc(MEM_PAGE_SIZE, MEM_PAGE_SIZE + SOFT_PIO_BYTES);
    if (!vcpu->id.vcpu.run) {
        free(vcpu);
        return err_set(err, -ENOMEM, "out of memory for vCPU %u", index);
    }
    memset(vcpu->id.vcpu.run, 0, MEM_PAGE_SIZE + SOFT_PIO_BYTES);
    ret = vcpu_init(vcpu, soft, index, apic_id);
    if (ret) {
        soft_vcpu_destroy(&vcpu->id.vcpu);
        return err_set(err, ret, "vCPU %u cannot be made: %s", index, strerror(-ret));
    }
    soft->cpu[index] = vcpu;
    lapic_set_lint0(&vcpu->parts.lapic, soft->pic.output);
    *out = &vcpu->id.vcpu;
    return 0;
}

void soft_vcpu_destroy(struct vcpu *vcpu)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);

    if (soft->id.vm->cpu[vcpu->index] == soft)
        soft->id.vm->cpu[vcpu->index] = NULL;
    soft_timers_quiesce(&soft->id.vm->timers); /* the 8254 may be looking at all vCPUs */
    if (soft->run.state != SOFT_UNPLUGGED && soft->run.state != SOFT_RUNNING)
        soft_set_state(soft, SOFT_UNPLUGGED);
    lapic_destroy(&soft->parts.lapic);
    soft_timer_destroy(&soft->priv.preemption);
    soft_timer_destroy(&soft->priv.cycles_alarm);
    dbt_detach(&soft->cpu.common);
    free(soft->parts.msrs.stored);
    free(vcpu->run);
    free(soft);
}
