/* Who intercepts what; the entry path; the exit path. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "trace/trace.h"

/*
 * The root's controls: what an engine must see (I/O, HLT, CPUID, MSRs of its own, memory that is
 * not there) exits; everything else the CPU executes itself.
 */
void vmx_init(struct vmx_cpu *vmx)
{
    struct vmcs *vmcs = &vmx->root.vmcs;

    memset(vmx, 0, sizeof *vmx);
    vmx->current = vmx->exit_to = &vmx->root;
    vmx->nested.outer = &vmx->root;
    vmx->current_pointer = VMX_NO_POINTER;
    for (enum vmx_control_word word = VMX_PIN; word < VMX_CONTROL_WORDS; word++) {
        vmx->allowed0[word] = vmx_allowed0(word);
        vmx->allowed1[word] = vmx_allowed1(word);
        vmx->pmu_controls[word] = vmx_pmu_controls(word);
    }
    vmcs->pin_based_controls = vmx_allowed0(VMX_PIN) | VMX_C_external_interrupt_exiting;
    vmcs->primary_processor_based_controls =
        (u32)(vmx_allowed0(VMX_PROC) | VMX_C_use_tsc_offsetting | VMX_C_hlt_exiting |
              VMX_C_mwait_exiting | VMX_C_unconditional_io_exiting | VMX_C_use_msr_bitmaps |
              VMX_C_monitor_exiting | VMX_C_activate_secondary_controls);
    vmcs->secondary_processor_based_controls = vmx_allowed0(VMX_PROC2) | VMX_C_enable_ept |
                                               VMX_C_enable_rdtscp | VMX_C_wbinvd_exiting |
                                               VMX_C_unrestricted_guest | VMX_C_enable_invpcid |
                                               VMX_C_enable_xsaves_xrstors | VMX_C_use_tsc_scaling;
    vmcs->primary_vm_exit_controls =
        vmx_default1(VMX_EXIT) | VMX_C_exit_host_address_space_size | VMX_C_exit_save_efer;
    vmcs->vm_entry_controls = vmx_default1(VMX_ENTRY) | VMX_C_entry_load_efer;
    vmcs->vmcs_link_pointer = ~0ull;
    vmcs->tsc_multiplier = 1ull << 48;
}

/* The control word as it counts: 0 for secondary controls that are not activated. */
static u64 control_word(const struct vmcs *vmcs, u8 word)
{
    if (word == VMX_PROC2 && !vmx_proc(vmcs, (u32)VMX_C_activate_secondary_controls))
        return 0;
    return vmx_control_get(vmcs, word);
}

bool vmx_enabled(const struct x86_cpu *cpu, u32 reason)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v))
        return true;
    switch (reason) {
    case X86_REASON_RDPID:
    case VMX_REASON_rdtscp:
        return vmx_proc2(v, VMX_C_enable_rdtscp);
    case VMX_REASON_invpcid:
        return vmx_proc2(v, VMX_C_enable_invpcid);
    case VMX_REASON_xsaves:
    case VMX_REASON_xrstors:
        return vmx_proc2(v, VMX_C_enable_xsaves_xrstors);
    case VMX_REASON_vmfunc:
        return vmx_proc2(v, VMX_C_enable_vm_functions) && (u32)cpu->gpr[X86_RAX] <= 63;
    case X86_REASON_UMONITOR:
    case VMX_REASON_umwait:
    case VMX_REASON_tpause:
        return vmx_proc2(v, VMX_C_enable_user_wait_and_pause);
    default:
        return true;
    }
}

static bool intercepts(const struct vmx_level *level, const struct x86_cpu *cpu,
                       const struct vmx_reason_info *info, u64 qualification)
{
    switch (info->when) {
    case VMX_ALWAYS:
        return true;
    case VMX_INNER:
        return level->outer;
    case VMX_ON:
        return control_word(&level->vmcs, info->word) & info->mask;
    case VMX_ASK:
        return info->ask(level, cpu, qualification);
    default:
        return false;
    }
}

/* The innermost VMCS that wants a VM exit for @reason, or NULL. */
static struct vmx_level *interceptor(const struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    const struct vmx_reason_info *info = vmx_reason(reason);

    BUG_ON(!info);
    for (struct vmx_level *level = vmx_of(cpu)->current; level; level = level->outer)
        if (intercepts(level, cpu, info, qualification))
            return level;
    return NULL;
}

bool vmx_exits_inside(const struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    const struct vmx_level *level = interceptor(cpu, reason, qualification);

    return level && level->outer;
}

void vmx_intercept(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len, u64 linear,
                   u64 insn_info)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmx_level *level;

    if (reason == VMX_REASON_vmfunc && !vmx_enabled(cpu, reason))
        x86_raise(cpu, X86_UD);
    level = interceptor(cpu, reason, qualification);
    if (likely(!level))
        return;
    vmx->exit_to = level;
    cpu->vmexit = (struct x86_vmexit){.reason = reason,
                                      .insn_len = insn_len,
                                      .qualification = qualification,
                                      .linear = linear,
                                      .insn_info = insn_info};
    guest_leave(&cpu->common, X86_EXIT_VMEXIT);
}

void vmx_event_exit(struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->exit_to = &vmx->root;
    cpu->vmexit = (struct x86_vmexit){.reason = reason, .qualification = qualification};
}

/* SDM table 28-7: 0 read, 1 write, 2 fetch, 7 linear address valid, 8 not a paging-structure entry.
 * Nothing is mapped there, so bits 5:3 are 0. */
void vmx_ept_violation(struct x86_cpu *cpu, u64 gpa, enum guest_access access)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->exit_to = &vmx->root;
    cpu->vmexit = (struct x86_vmexit){
        .reason = VMX_REASON_ept_violation,
        .qualification = (access == GUEST_READ    ? BIT(0)
                          : access == GUEST_WRITE ? BIT(1)
                                                  : BIT(2)) |
                         BIT(8),
        .physical = gpa,
    };
    guest_leave(&cpu->common, X86_EXIT_VMEXIT);
}

u32 vmx_event_info(const struct x86_event *event)
{
    return (u32)(event->vector | (u32)event->type << 8 | (event->has_error ? VMX_INTR_ERROR : 0) |
                 VMX_INTR_VALID);
}

struct x86_event vmx_info_event(u32 info, u32 error, u32 insn_len)
{
    return (struct x86_event){
        .valid = info & VMX_INTR_VALID,
        .vector = (u8)info,
        .type = VMX_INTR_TYPE(info),
        .has_error = info & VMX_INTR_ERROR,
        .error = error,
        .insn_len = insn_len,
    };
}

/* SDM 28.2.2, 28.2.3: the exit came of an IRET that had already ended blocking by NMI. The root
 * does the IRET again. */
static void note_nmi_unblocked(struct x86_cpu *cpu, struct vmcs *vmcs)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    u32 info = vmcs->vm_exit_interruption_information;

    cpu->nmi_unblocked = false;
    if (vmx->exit_to == &vmx->root)
        cpu->interruptibility |= X86_BLOCKED_BY_NMI;
    else if (info & VMX_INTR_VALID && !vmx->delivering.valid && (info & 0xff) != X86_DF)
        vmcs->vm_exit_interruption_information |= BIT(12);
    else if (cpu->vmexit.reason == VMX_REASON_ept_violation ||
             cpu->vmexit.reason == VMX_REASON_page_modification_log_full)
        cpu->vmexit.qualification = vmcs->exit_qualification |= BIT(12);
}

/* The exit under way is by an external interrupt with its vector. */
static bool acknowledged(const struct x86_cpu *cpu)
{
    return cpu->vmexit.reason == VMX_REASON_external_interrupt && cpu->pending.valid &&
           cpu->pending.type == 0;
}

u32 vmx_exit(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    const struct x86_vmexit *exit = &cpu->vmexit;
    struct vmcs *vmcs = &vmx->exit_to->vmcs;

    vmcs->exit_reason = exit->reason;
    vmcs->exit_qualification = exit->qualification;
    vmcs->guest_linear_address = exit->linear;
    vmcs->guest_physical_address = exit->physical;
    vmcs->vm_exit_instruction_length = exit->insn_len;
    vmcs->vm_exit_instruction_information = (u32)exit->insn_info;
    vmcs->vm_exit_interruption_information = 0;
    vmcs->vm_entry_interruption_information &= ~(u32)VMX_INTR_VALID;
    if (exit->reason == VMX_REASON_exception_or_nmi || acknowledged(cpu)) {
        vmcs->vm_exit_interruption_information = vmx_event_info(&cpu->pending);
        vmcs->vm_exit_interruption_error_code = cpu->pending.error;
        cpu->pending.valid = false;
    }
    if (cpu->nmi_unblocked)
        note_nmi_unblocked(cpu, vmcs);
    vmcs->idt_vectoring_information = 0;
    if (vmx->delivering.valid) {
        vmcs->idt_vectoring_information = vmx_event_info(&vmx->delivering);
        vmcs->idt_vectoring_error_code = vmx->delivering.error;
        vmcs->vm_exit_instruction_length = vmx->delivering.insn_len;
        vmx->delivering.valid = false;
    }
    if (vmx->exit_to != &vmx->root) {
        vmx_nested_exit(cpu, exit->reason);
        return VMX_HANDLED;
    }
    vmx->exits[exit->reason]++;
    trace_emit(EXITS, exits, (int)cpu->common.index, .reason = vmx_reason_name(exit->reason),
               .rip = x86_rip(cpu), .qualification = exit->qualification, .gpa = exit->physical);
    return exit->reason;
}

void vmx_inject(struct vmx_cpu *vmx, const struct x86_event *event)
{
    struct vmcs *vmcs = &vmx->root.vmcs;

    vmcs->vm_entry_interruption_information = vmx_event_info(event);
    vmcs->vm_entry_exception_error_code = event->error;
    vmcs->vm_entry_instruction_length = event->insn_len;
}

bool vmx_injecting(const struct vmx_cpu *vmx)
{
    return vmx->root.vmcs.vm_entry_interruption_information & VMX_INTR_VALID;
}

/* x86_deliver_once may leave for memory outside all slots; that comes back here. */
static int deliver_once(struct x86_cpu *cpu, const struct x86_event *event)
{
    jmp_buf leave, *outer = cpu->common.leave;
    int ret;

    cpu->common.leave = &leave;
    if (!setjmp(leave))
        ret = x86_deliver_once(cpu, event);
    else
        ret = cpu->common.exit_code == X86_EXIT_EVENT ? -EAGAIN : VMX_EXITED;
    cpu->common.leave = outer;
    return ret;
}

/* SDM 26.2 and 25.6.3: the exception bitmap; for page faults also error-code mask and match. */
static struct vmx_level *exception_interceptor(struct vmx_cpu *vmx, const struct x86_event *event)
{
    for (struct vmx_level *level = vmx->current; level; level = level->outer) {
        const struct vmcs *vmcs = &level->vmcs;
        bool set = vmcs->exception_bitmap >> (event->vector & 31) & 1;

        if (event->vector == X86_PF &&
            (event->error & vmcs->page_fault_error_code_mask) != vmcs->page_fault_error_code_match)
            set = !set;
        if (set)
            return level;
    }
    return NULL;
}

static bool is_exception(const struct x86_event *event)
{
    return event->type == 3 || event->type == 5 || event->type == 6;
}

/* @event exits, if the exception bitmap of a VMCS says so. */
static bool exception_exits(struct x86_cpu *cpu, const struct x86_event *event)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmx_level *level = is_exception(event) ? exception_interceptor(vmx, event) : NULL;

    if (likely(!level))
        return false;
    /* SDM 28.2.4: a double fault that exits directly is not "during event delivery". */
    if (event->vector == X86_DF)
        vmx->delivering.valid = false;
    cpu->pending = *event;
    vmx_event_exit(cpu, VMX_REASON_exception_or_nmi, event->has_payload ? event->payload : 0);
    vmx->exit_to = level;
    cpu->vmexit.insn_len = event->insn_len;
    return true;
}

/* @retires: the instruction that the event comes of, which is INT n or its like, is done with
 * it. */
static void delivered(struct x86_cpu *cpu, bool retires)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    if (retires)
        x86_pmu_retired(cpu, ~0u, true);
    vmx->delivering.valid = false;
    cpu->nmi_unblocked = false;
    /* SDM 26.5.2: the trap flag's exit comes before the handler's first instruction. */
    if (vmx->current->outer && vmx_proc(&vmx->current->vmcs, VMX_C_monitor_trap_flag))
        vmx->mtf_pending = true;
}

/* Delivers @event and whatever faults its delivery raises. A fault asks the exception bitmap before
 * it becomes a double fault (SDM 26.2, 28.2.4). */
static int deliver(struct x86_cpu *cpu, struct x86_event event, bool injected)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    /* Injected events do not ask the bitmap (SDM 27.6.1.2); what their delivery raises does. */
    if (!injected && exception_exits(cpu, &event))
        return VMX_EXITED;
    /* SDM 28.1: what ends with a delivery has ended if it leads to an exit. */
    cpu->activity = X86_ACTIVE;
    x86_clear_shadow(cpu);
    for (;;) {
        int ret;

        vmx->delivering = event;
        /* Blocked from the start, whatever comes of the delivery. */
        if (event.type == 2)
            cpu->interruptibility |= X86_BLOCKED_BY_NMI;
        ret = deliver_once(cpu, &event);
        if (ret == 0) {
            delivered(cpu, !injected && event.type > 3);
            return VMX_GO;
        }
        if (ret == VMX_EXITED)
            return VMX_EXITED;
        if (ret == -EAGAIN) {
            struct x86_event fault = cpu->pending;

            if (exception_exits(cpu, &fault))
                return VMX_EXITED;
            ret = x86_combine(cpu, &event);
        }
        if (ret != -EAGAIN) {
            vmx->delivering.valid = false; /* nor is a triple fault */
            vmx_event_exit(cpu, VMX_REASON_triple_fault, 0);
            vmx->exit_to = vmx->current;
            return VMX_EXITED;
        }
        event = cpu->pending;
        cpu->pending.valid = false;
        if (event.vector == X86_DF && exception_exits(cpu, &event))
            return VMX_EXITED;
    }
}

int vmx_enter(struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmcs *vmcs =
        &vmx->root.vmcs; /* the engine's; a guest's own entry put its event there too */
    struct x86_event event;

    if (likely(!(vmcs->vm_entry_interruption_information & VMX_INTR_VALID)))
        return VMX_GO;
    event = vmx_info_event(vmcs->vm_entry_interruption_information,
                           vmcs->vm_entry_exception_error_code, vmcs->vm_entry_instruction_length);
    event.injected = true;
    vmcs->vm_entry_interruption_information &= ~(u32)VMX_INTR_VALID;
    return deliver(cpu, event, true);
}

int vmx_exception(struct x86_cpu *cpu)
{
    struct x86_event event = cpu->pending;

    cpu->pending.valid = false;
    return deliver(cpu, event, false);
}
