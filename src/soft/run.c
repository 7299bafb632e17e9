/*
 * The run loop: events in, translated code, VM exits out.
 *
 * Order of events before an instruction (SDM volume 3 table 6-2): an event whose delivery a VM exit
 * cut short, exceptions of the instruction before, INIT, NMI, external interrupts.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "soft/private.h"
#include "trace/trace.h"

static soft_exit_handler *const handlers[VMX_REASONS] = {
#define R(number, name, information, section, when, handler) [number] = soft_exit_##handler,
#include "vmx/reasons.def"
#undef R
};

/* --- what handlers use --- */

void soft_skip(struct soft_vcpu *vcpu, u32 insn_len)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u64 rip = x86_rip(cpu) + insn_len;

    soft_mmio_done(vcpu);
    switch (cpu->common.mode & X86_MODE_CODE_MASK) {
    case X86_MODE_CODE64:
        break;
    case X86_MODE_CODE32:
        rip = (u32)rip;
        break;
    default:
        rip = (u16)rip;
    }
    x86_set_rip(cpu, rip);
    x86_clear_shadow(cpu);
    x86_pmu_retired(cpu, ~0u, false);
    vmx_carried_out(cpu);
    x86_debug_trap(cpu, false);
}

void soft_raise(struct soft_vcpu *vcpu, u8 vector, u32 error)
{
    static const u32 with_error = BIT(X86_DF) | BIT(X86_TS) | BIT(X86_NP) | BIT(X86_SS_FAULT) |
                                  BIT(X86_GP) | BIT(X86_PF) | BIT(X86_AC) | BIT(X86_CP);

    vcpu->cpu.pending = (struct x86_event){
        .valid = true,
        .vector = vector,
        .type = 3,
        .has_error = with_error >> vector & 1,
        .error = error,
    };
}

int soft_internal_error(struct soft_vcpu *vcpu, const char *fmt, ...)
{
    struct kvm_run *run = soft_record(vcpu);
    va_list args;

    va_start(args, fmt);
    vsnprintf(vcpu->priv.why, sizeof vcpu->priv.why, fmt, args);
    va_end(args);
    run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run->internal.ndata = 0;
    return SOFT_HAND_UP;
}

void soft_explain(struct vcpu *vcpu, struct err *err)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);

    if (soft->priv.why[0])
        err_set(err, 0, "%s", soft->priv.why);
    else
        err_set(err, 0, "the soft engine knows no error of vCPU %u", vcpu->index);
}

/* --- events --- */

/* SDM 9.4.4: the other processors wait for a SIPI, the bootstrap processor starts over. */
static void take_init(struct soft_vcpu *vcpu)
{
    trace_emit(IRQ, irq, (int)vcpu->id.vcpu.index, .unit = "cpu", .action = "init");
    soft_mmio_done(vcpu);
    vcpu->vmx.root.vmcs.vm_entry_interruption_information = 0;
    vmx_reset(&vcpu->cpu);
    x86_reset(&vcpu->cpu, true);
    lapic_reset(&vcpu->parts.lapic, true);
    vcpu->run.init_received = true;
    if (!(vcpu->parts.lapic.state.base & APIC_BASE_BSP))
        soft_set_state(vcpu, SOFT_WAIT_SIPI);
    else if (vcpu->run.state != SOFT_RUNNING)
        soft_set_state(vcpu, SOFT_RUNNABLE);
}

static void take_sipi(struct soft_vcpu *vcpu, u8 vector)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    if (vcpu->run.state != SOFT_WAIT_SIPI)
        return;
    trace_emit(IRQ, irq, (int)vcpu->id.vcpu.index, .unit = "cpu", .action = "sipi",
               .number = vector);
    cpu->seg[X86_CS].selector = (u16)(vector << 8);
    cpu->seg[X86_CS].base = (u64)vector << 12;
    x86_set_rip(cpu, 0);
    soft_set_state(vcpu, SOFT_RUNNABLE);
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
}

/* After an exit to the guest's hypervisor of a vCPU that may have slept. */
static void left_non_root(struct soft_vcpu *vcpu)
{
    if (vcpu->run.state == SOFT_WAIT_SIPI || vcpu->run.state == SOFT_HALTED)
        soft_set_state(vcpu, SOFT_RUNNABLE);
    vcpu->priv.events_due = true;
}

static void startup(struct soft_vcpu *vcpu, u8 vector)
{
    enum vmx_signal what = vmx_startup_ipi(&vcpu->cpu, vector);

    if (what == VMX_SIGNAL_TAKE)
        take_sipi(vcpu, vector);
    else if (what == VMX_SIGNAL_EXITED)
        left_non_root(vcpu);
}

static void take_start_signals(struct soft_vcpu *vcpu)
{
    u32 taken = SOFT_SIGNAL_INIT | SOFT_SIGNAL_SIPI | SOFT_SIGNAL_SIPI_FIRST;
    u32 signals;

    if (likely(!(__atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST) & taken)))
        return;
    signals = __atomic_fetch_and(&vcpu->run.signals, ~taken, __ATOMIC_SEQ_CST);
    if (signals & SOFT_SIGNAL_SIPI_FIRST)
        startup(vcpu, (u8)signals);
    if (signals & SOFT_SIGNAL_INIT) {
        switch (vmx_init_signal(&vcpu->cpu)) {
        case VMX_SIGNAL_TAKE:
            take_init(vcpu);
            break;
        case VMX_SIGNAL_BLOCKED: /* until VMXOFF or a VM entry */
            __atomic_fetch_or(&vcpu->run.signals, SOFT_SIGNAL_INIT, __ATOMIC_SEQ_CST);
            break;
        case VMX_SIGNAL_EXITED:
            left_non_root(vcpu);
            break;
        }
    }
    if (signals & SOFT_SIGNAL_SIPI && !(signals & SOFT_SIGNAL_SIPI_FIRST))
        startup(vcpu, (u8)signals);
}

static bool nmi_waits(const struct soft_vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->run.signals, __ATOMIC_SEQ_CST) & SOFT_SIGNAL_NMI;
}

/* While one is handled only one more is held back (SDM 6.7.1). Where they cause VM exits, the bit
 * is about virtual ones. */
static void merge_blocked_nmis(struct soft_vcpu *vcpu)
{
    if (x86_interruptibility(&vcpu->cpu) & X86_BLOCKED_BY_NMI &&
        !vmx_exits_on_interrupt(&vcpu->cpu, true))
        __atomic_fetch_and(&vcpu->run.signals, ~(u32)SOFT_SIGNAL_NMI_AGAIN, __ATOMIC_SEQ_CST);
}

static bool interrupt_waits(const struct soft_vcpu *vcpu)
{
    return lapic_extint(&vcpu->parts.lapic) || lapic_pending(&vcpu->parts.lapic) >= 0;
}

static void inject_nmi(struct soft_vcpu *vcpu)
{
    struct x86_event event = {.valid = true, .vector = X86_NMI, .type = 2};

    soft_take_nmi(vcpu);
    vcpu->priv.stats.injected[1]++;
    vmx_inject(&vcpu->vmx, &event);
}

/* The vector of the interrupt that waits, taken from its controller; -1 when the 8259's line, which
 * another thread sets, has fallen meanwhile. */
static int acknowledge(struct soft_vcpu *vcpu)
{
    struct lapic *lapic = &vcpu->parts.lapic;
    int vector;

    if (lapic_extint(lapic))
        return pic_acknowledge(&vcpu->id.vm->pic);
    vector = lapic_pending(lapic);
    if (vector >= 0)
        lapic_accept(lapic, (u8)vector);
    return vector;
}

static void inject_interrupt(struct soft_vcpu *vcpu)
{
    int vector = acknowledge(vcpu);
    struct x86_event event = {.valid = true, .type = 0, .vector = (u8)vector};

    if (vector < 0)
        return;
    trace_emit(IRQ, irq, (int)vcpu->id.vcpu.index, .unit = "cpu", .action = "take",
               .number = event.vector);
    vcpu->priv.stats.injected[0]++;
    vmx_inject(&vcpu->vmx, &event);
}

/* A virtual interrupt of non-root operation (SDM 30.2). */
static void look_for_virtual(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    if (likely(!vmx_virtual_interrupt(cpu)))
        return;
    if (x86_interrupt_allowed(cpu)) {
        vmx_deliver_virtual_interrupt(cpu);
        vcpu->priv.events_due = true;
    } else {
        cpu->quiet = false;
        if (x86_interruptibility(cpu) & X86_SHADOW && cpu->eflags & X86_FLAG_IF)
            vcpu->priv.shadow_step = true;
    }
}

/* In non-root operation an NMI or interrupt is the guest's hypervisor's business, unless the
 * interrupt only says that virtual ones are posted. */
static void exit_for_event(struct soft_vcpu *vcpu, bool nmi)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    if (nmi) {
        soft_take_nmi(vcpu);
        vmx_interrupt_exit(cpu, true, -1);
    } else {
        int vector = vmx_acknowledges(cpu) ? acknowledge(vcpu) : -1;

        if (vector >= 0 && vmx_post_interrupts(cpu, (u8)vector)) {
            lapic_eoi(&vcpu->parts.lapic);
            look_for_virtual(vcpu);
        } else if (vector >= 0 || !vmx_acknowledges(cpu)) { /* else it is gone again */
            vmx_interrupt_exit(cpu, false, vector);
        }
    }
    vcpu->priv.events_due = true;
}

/*
 * Looks for NMIs and interrupts and puts the first that may come in into the VM-entry fields. One
 * that may not come in now makes STI, IRET and the like leave (quiet is false); one that only waits
 * for the end of an interrupt shadow gets a single instruction's time.
 */
static void look_for_events(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    bool nmi, interrupt;

    vcpu->priv.events_due = false;
    __atomic_fetch_and(&cpu->common.request, ~(u32)GUEST_REQ_EVENT, __ATOMIC_SEQ_CST);
    take_start_signals(vcpu);
    if (vcpu->priv.debug.control & KVM_GUESTDBG_BLOCKIRQ) {
        cpu->quiet = true;
        return;
    }
    nmi = nmi_waits(vcpu);
    if (unlikely(nmi))
        merge_blocked_nmis(vcpu);
    interrupt = interrupt_waits(vcpu);
    if (unlikely(vmx_window_exit(
            cpu, nmi && (vmx_exits_on_interrupt(cpu, true) || x86_nmi_allowed(cpu))))) {
        vcpu->priv.events_due = true;
        return;
    }
    cpu->quiet = !nmi && !interrupt && !vmx_window_waits(cpu);
    if (unlikely(vmx_window_waits(cpu)) && x86_interruptibility(cpu) & X86_SHADOW)
        vcpu->priv.shadow_step = true;
    if (likely(!nmi && !interrupt)) {
        look_for_virtual(vcpu);
        return;
    }
    if ((nmi && vmx_exits_on_interrupt(cpu, true)) ||
        (interrupt && vmx_exits_on_interrupt(cpu, false))) {
        exit_for_event(vcpu, nmi && vmx_exits_on_interrupt(cpu, true));
    } else if (nmi && x86_nmi_allowed(cpu)) {
        inject_nmi(vcpu);
        vcpu->priv.events_due = interrupt || nmi_waits(vcpu);
    } else if (interrupt && x86_interrupt_allowed(cpu)) {
        inject_interrupt(vcpu);
        cpu->quiet = !nmi_waits(vcpu) && !interrupt_waits(vcpu) && !vmx_window_waits(cpu);
        vcpu->priv.events_due = !cpu->quiet;
    } else if (x86_interruptibility(cpu) & X86_SHADOW && (nmi || cpu->eflags & X86_FLAG_IF)) {
        vcpu->priv.shadow_step = true;
    } else {
        look_for_virtual(vcpu);
    }
}

/* Would anything wake a halted CPU? */
static bool wakes(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    if (__atomic_fetch_and(&vcpu->run.signals, ~(u32)SOFT_SIGNAL_UNHALT, __ATOMIC_SEQ_CST) &
        SOFT_SIGNAL_UNHALT)
        return true;
    return (nmi_waits(vcpu) && (x86_nmi_allowed(cpu) || vmx_exits_on_interrupt(cpu, true))) ||
           (interrupt_waits(vcpu) &&
            (x86_interrupt_allowed(cpu) || vmx_exits_on_interrupt(cpu, false))) ||
           (vmx_virtual_interrupt(cpu) && x86_interrupt_allowed(cpu)) || vmx_window_due(cpu) ||
           cpu->pending.valid || vmx_injecting(&vcpu->vmx);
}

/* To running; in non-root operation the activity state stays until an event or exit ends it. */
static void wake(struct soft_vcpu *vcpu)
{
    u32 activity = vcpu->cpu.common.mode & X86_MODE_NONROOT ? vcpu->cpu.activity : X86_ACTIVE;

    soft_set_state(vcpu, SOFT_RUNNING);
    vcpu->cpu.activity = activity;
}

/* The activity state that a VM entry, or an event that was none, has left: to sleep. */
static u32 sleep_again(struct soft_vcpu *vcpu)
{
    u32 activity = vcpu->cpu.activity;

    soft_set_state(vcpu, activity == X86_WAITS_FOR_SIPI ? SOFT_WAIT_SIPI : SOFT_HALTED);
    vcpu->cpu.activity = activity;
    return X86_EXIT_STATE;
}

/* Waits while the vCPU has nothing to run. False: a kick came. */
static bool wait_runnable(struct soft_vcpu *vcpu)
{
    u32 *request = &vcpu->cpu.common.request;

    /* An instruction whose accesses have gone up in part is finished before a kick counts. */
    if (soft_replaying(vcpu) && vcpu->run.state == SOFT_RUNNABLE) {
        soft_set_state(vcpu, SOFT_RUNNING);
        return true;
    }
    for (;;) {
        u32 bits =
            __atomic_fetch_and(request, ~(u32)(GUEST_REQ_KICK | GUEST_REQ_EVENT), __ATOMIC_SEQ_CST);

        if (bits & GUEST_REQ_EVENT)
            vcpu->priv.events_due = true;
        if (bits & GUEST_REQ_KICK || soft_record(vcpu)->immediate_exit)
            return false;
        if (vcpu->run.state != SOFT_PAUSED)
            take_start_signals(vcpu);
        switch (vcpu->run.state) {
        case SOFT_HALTED:
            if (!wakes(vcpu))
                break;
            vcpu->priv.stats.wakeups++;
            vcpu->priv.events_due = true;
            wake(vcpu);
            return true;
        case SOFT_WAIT_SIPI:
        case SOFT_PAUSED:
            break;
        default:
            soft_set_state(vcpu, SOFT_RUNNING);
            return true;
        }
        soft_sleep(vcpu);
    }
}

/* --- one round: entry, guest code --- */

static u32 deliver_events(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    if (vmx_injecting(&vcpu->vmx)) { /* cut short by a VM exit: again */
        if (vmx_enter(cpu) == VMX_EXITED)
            return X86_EXIT_VMEXIT;
        soft_mmio_done(vcpu);
    }
    /* In the middle of an instruction that was handed up nothing may come in. */
    if (soft_replaying(vcpu))
        return 0;
    if (unlikely(vmx_trap_exit(cpu)))
        vcpu->priv.events_due = true;
    if (cpu->pending.valid) {
        vcpu->priv.stats.injected[2]++;
        trace_emit(EXCEPTION, exception, (int)vcpu->id.vcpu.index, .vector = cpu->pending.vector,
                   .error = cpu->pending.error, .rip = x86_rip(cpu),
                   .address = cpu->pending.payload);
        if (vmx_exception(cpu) == VMX_EXITED)
            return X86_EXIT_VMEXIT;
        vcpu->priv.events_due = true;
    }
    if (vcpu->priv.events_due ||
        __atomic_load_n(&cpu->common.request, __ATOMIC_SEQ_CST) & GUEST_REQ_EVENT) {
        look_for_events(vcpu);
        if (vmx_enter(cpu) == VMX_EXITED)
            return X86_EXIT_VMEXIT;
    }
    /* Before the next instruction come the monitor trap flag's exit behind what was delivered, and
     * the debug trap of a task that an event has switched to. */
    return vmx_trap_exit(cpu) || cpu->pending.valid ? X86_EXIT_STATE : 0;
}

static u64 count_ticks(struct soft_vcpu *vcpu, u64 *counter)
{
    u64 now = soft_clock_ticks(&vcpu->id.vm->clock);

    *counter += now - vcpu->priv.last_ticks;
    vcpu->priv.last_ticks = now;
    return now;
}

static bool debug_steps(const struct soft_vcpu *vcpu)
{
    return vcpu->priv.debug.control & KVM_GUESTDBG_SINGLESTEP;
}

/* What an instruction that had to run alone came to: done, or a debug trap behind it. */
static void stepped_non_root(struct soft_vcpu *vcpu, u32 code)
{
    const struct x86_event *pending = &vcpu->cpu.pending;
    bool trap = code == X86_EXIT_EVENT && pending->vector == X86_DB && pending->payload & BIT(14);

    vmx_stepped(&vcpu->cpu, code == DBT_EXIT_STEP || code == X86_EXIT_HALT_CHECK ||
                                (code == X86_EXIT_STATE && !vcpu->vmx.alone) || trap);
    vcpu->priv.events_due = true;
}

static u32 enter_and_run(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    u64 before = cpu->lip;
    bool steps;
    u32 code;

    cpu->common.insn_limit = 0;
    cpu->debugger.alone = true; /* no way out of the middle of a delivery */
    if (unlikely(cpu->pmu.on))
        x86_pmu_look(cpu);
    mem_reader_online(cpu->common.mem, cpu->common.index);
    code = deliver_events(vcpu);
    mem_reader_offline(cpu->common.mem, cpu->common.index);
    if (unlikely(code))
        return code;
    if (unlikely(vcpu->run.state != SOFT_RUNNING)) /* INIT */
        return X86_EXIT_STATE;
    if (unlikely(cpu->activity))
        return sleep_again(vcpu);
    /* A debugger that steps sees the first instruction of an event's handler before it runs. */
    if (unlikely(debug_steps(vcpu) && cpu->lip != before))
        return X86_EXIT_STATE;
    cpu->debugger.alone = vcpu->priv.watch_step || debug_steps(vcpu);
    steps = vmx_steps(cpu);
    cpu->common.insn_limit =
        soft_replaying(vcpu) || vcpu->priv.shadow_step || cpu->debugger.alone || steps;
    vcpu->vmx.alone = false;
    count_ticks(vcpu, &vcpu->priv.stats.ticks_soft);
    code = dbt_run(&cpu->common);
    count_ticks(vcpu, &vcpu->priv.stats.ticks_guest);
    if (unlikely(steps))
        stepped_non_root(vcpu, code);
    return code;
}

/* --- what came out --- */

/* A delivery that the exit cut short goes in again with the next entry (SDM 28.2.4). */
static void requeue_delivery(struct soft_vcpu *vcpu)
{
    const struct vmcs *vmcs = &vcpu->vmx.root.vmcs;
    struct x86_event event;

    if (!(vmcs->idt_vectoring_information & VMX_INTR_VALID))
        return;
    event = vmx_info_event(vmcs->idt_vectoring_information, vmcs->idt_vectoring_error_code,
                           vmcs->vm_exit_instruction_length);
    vmx_inject(&vcpu->vmx, &event);
}

static int handle_vmexit(struct soft_vcpu *vcpu)
{
    u32 reason = vmx_exit(&vcpu->cpu);

    if (reason == VMX_HANDLED) {
        soft_mmio_done(vcpu);
        vcpu->priv.events_due = true;
        return SOFT_RESUME;
    }
    requeue_delivery(vcpu);
    return handlers[reason] ? handlers[reason](vcpu, &vcpu->cpu.vmexit)
                            : soft_exit_unexpected(vcpu, &vcpu->cpu.vmexit);
}

static int unimplemented(struct soft_vcpu *vcpu)
{
    struct x86_cpu *cpu = &vcpu->cpu;
    char bytes[16 * 3 + 1] = "", text[96] = "?";
    struct guest_page page;
    u8 code[15];
    size_t used = 0, len;

    len = MEM_PAGE_SIZE - (cpu->lip & (MEM_PAGE_SIZE - 1));
    if (len > sizeof code)
        len = sizeof code;
    if (x86_translate(cpu, cpu->lip, &page) ||
        mem_read(cpu->common.mem, page.gpa | (cpu->lip & (MEM_PAGE_SIZE - 1)), code, len))
        return soft_internal_error(vcpu, "an instruction at %#" PRIx64 " that is not implemented",
                                   cpu->lip);
    len = (size_t)x86_guest_ops.disassemble(cpu->common.mode, cpu->lip, code, (u32)len, text,
                                            sizeof text);
    for (size_t i = 0; i < len && i < sizeof code; i++)
        used += (size_t)snprintf(bytes + used, sizeof bytes - used, "%02x ", code[i]);
    return soft_internal_error(vcpu,
                               "this CPU does not implement the instruction at %#" PRIx64 ": %s %s",
                               cpu->lip, bytes, text);
}

/* A single instruction is done: in a replay, out of a shadow, or for a debugger. */
static void stepped(struct soft_vcpu *vcpu)
{
    soft_mmio_done(vcpu);
    if (vcpu->priv.shadow_step) {
        vcpu->priv.shadow_step = false;
        x86_clear_shadow(&vcpu->cpu);
        vcpu->priv.events_due = true;
    }
}

static int debugger_exit(struct soft_vcpu *vcpu, u32 dr6_bits)
{
    struct kvm_run *run = soft_record(vcpu);

    vcpu->cpu.debugger.hits = 0;
    run->exit_reason = KVM_EXIT_DEBUG;
    run->debug.arch = (struct kvm_debug_exit_arch){
        .exception = X86_DB,
        .pc = vcpu->cpu.lip,
        .dr6 = 0xffff0ff0 | dr6_bits,
        .dr7 = vcpu->priv.debug.arch.debugreg[7],
    };
    return SOFT_HAND_UP;
}

/* After a round trip that @code ended, from the instruction at @before: is there something to tell
 * the debugger? Of an instruction that faulted there is not, but of its exception's handler there
 * is. */
static int debugger_looks(struct soft_vcpu *vcpu, u32 code, u64 before)
{
    struct x86_debugger *debugger = &vcpu->cpu.debugger;
    bool done = code == DBT_EXIT_STEP || vcpu->cpu.lip != before || vcpu->run.state == SOFT_HALTED;

    if (code == X86_EXIT_EVENT)
        debugger->hits = 0;
    if (code == X86_EXIT_DEBUGGER) {
        if (debugger->hits)
            return debugger_exit(vcpu, debugger->hits);
        vcpu->priv.watch_step = true;
        return SOFT_RESUME;
    }
    if (soft_replaying(vcpu))
        return SOFT_RESUME;
    if (done)
        vcpu->priv.watch_step = false;
    if (done && debug_steps(vcpu))
        return debugger_exit(vcpu, debugger->hits | BIT(14));
    return debugger->hits ? debugger_exit(vcpu, debugger->hits) : SOFT_RESUME;
}

static int handle(struct soft_vcpu *vcpu, u32 code)
{
    struct x86_cpu *cpu = &vcpu->cpu;

    switch (code) {
    case X86_EXIT_VMEXIT:
        return handle_vmexit(vcpu);
    case IR_EXIT_REQUEST:
        if (!(__atomic_load_n(&cpu->common.request, __ATOMIC_SEQ_CST) & GUEST_REQ_EVENT))
            return SOFT_RESUME; /* a kick */
        vmx_event_exit(cpu, VMX_REASON_external_interrupt, 0);
        return handle_vmexit(vcpu);
    case DBT_EXIT_STEP:
        stepped(vcpu);
        return SOFT_RESUME;
    case X86_EXIT_DEBUGGER:
    case X86_EXIT_COUNTER:
        return SOFT_RESUME;
    case X86_EXIT_EVENT:
        soft_mmio_done(vcpu);
        return SOFT_RESUME;
    case X86_EXIT_STATE:
    case X86_EXIT_HALT_CHECK:
        if (cpu->common.insn_limit)
            stepped(vcpu);
        vcpu->priv.events_due = true;
        return SOFT_RESUME;
    case X86_EXIT_UNIMPLEMENTED:
        return unimplemented(vcpu);
    case DBT_EXIT_FETCH:
        return soft_internal_error(vcpu,
                                   "the guest jumped to %#" PRIx64
                                   ", which is guest-physical %#" PRIx64 ", outside memory",
                                   cpu->lip, cpu->common.scratch[0]);
    case DBT_EXIT_NOMEM:
        snprintf(vcpu->priv.why, sizeof vcpu->priv.why,
                 "the host has no memory for translated code");
        return -ENOMEM;
    default:
        if (code >= X86_EXIT_VECTOR && code < X86_EXIT_VECTOR + 32) {
            soft_mmio_done(vcpu);
            soft_raise(vcpu, (u8)(code - X86_EXIT_VECTOR), 0);
            return SOFT_RESUME;
        }
        return soft_internal_error(vcpu, "the translator stopped with exit code %u at %#" PRIx64,
                                   code, cpu->lip);
    }
}

/*
 * A handler may itself leave like guest code, when it touches guest memory for the instruction it
 * carries out: that lands here as one more exit code.
 */
static int round_trip(struct soft_vcpu *vcpu)
{
    struct guest_cpu *cpu = &vcpu->cpu.common;
    u64 before = vcpu->cpu.lip;
    jmp_buf here;
    u32 code;
    int ret;

    cpu->leave = &here;
    if (!setjmp(here))
        code = enter_and_run(vcpu);
    else
        code = cpu->exit_code;
    cpu->leave = &here;
    ret = handle(vcpu, code);
    cpu->leave = NULL;
    if (unlikely(vcpu->priv.debug.control) && ret == SOFT_RESUME)
        ret = debugger_looks(vcpu, code, before);
    return ret;
}

static int finish_handed_up(struct soft_vcpu *vcpu)
{
    struct guest_cpu *cpu = &vcpu->cpu.common;
    u64 before = vcpu->cpu.lip;
    jmp_buf here;
    int ret = 0;

    if (vcpu->priv.mmio.waiting)
        soft_finish_mmio(vcpu);
    if (!vcpu->priv.pio.waiting)
        return 0;
    cpu->leave = &here;
    vcpu->cpu.debugger.alone = true; /* what the device said is not asked for again */
    if (!setjmp(here))
        ret = soft_finish_io(vcpu);
    else
        ret = handle(vcpu, cpu->exit_code);
    cpu->leave = NULL;
    if (unlikely(vcpu->priv.debug.control) && ret == SOFT_RESUME)
        ret = debugger_looks(vcpu, 0, before);
    return ret;
}

static int leave_run(struct soft_vcpu *vcpu, int ret)
{
    struct kvm_run *run = soft_record(vcpu);

    if (vcpu->run.state == SOFT_RUNNING)
        soft_set_state(vcpu, SOFT_RUNNABLE);
    run->if_flag = vcpu->cpu.eflags & X86_FLAG_IF ? 1 : 0;
    run->cr8 = lapic_cr8(&vcpu->parts.lapic);
    run->apic_base = vcpu->parts.lapic.state.base;
    run->ready_for_interrupt_injection =
        !vmx_injecting(&vcpu->vmx) && x86_interrupt_allowed(&vcpu->cpu);
    count_ticks(vcpu, &vcpu->priv.stats.ticks_soft);
    if (ret == -EINTR)
        run->exit_reason = KVM_EXIT_INTR;
    else
        vcpu->priv.stats.exits_to_machine++;
    return ret;
}

int soft_vcpu_run(struct vcpu *engine_vcpu)
{
    struct soft_vcpu *vcpu = soft_vcpu(engine_vcpu);
    u32 *request = &vcpu->cpu.common.request;
    int ret;

    if (vcpu->run.state == SOFT_UNPLUGGED)
        return -ENODEV;
    vcpu->priv.last_ticks = soft_clock_ticks(&vcpu->id.vm->clock);
    vcpu->priv.events_due = true;
    ret = finish_handed_up(vcpu);
    while (ret == SOFT_RESUME) {
        if (vcpu->run.state != SOFT_RUNNING ||
            (unlikely(__atomic_load_n(request, __ATOMIC_RELAXED) & GUEST_REQ_KICK ||
                      soft_record(vcpu)->immediate_exit) &&
             !soft_replaying(vcpu))) {
            if (vcpu->run.state == SOFT_CREATED)
                soft_set_state(vcpu, SOFT_RUNNABLE);
            count_ticks(vcpu, &vcpu->priv.stats.ticks_soft);
            if (!wait_runnable(vcpu))
                return leave_run(vcpu, -EINTR);
            vcpu->priv.last_ticks = soft_clock_ticks(&vcpu->id.vm->clock);
        }
        ret = round_trip(vcpu);
    }
    return leave_run(vcpu, ret == SOFT_HAND_UP ? 0 : ret);
}
