/*
 * guest/x86 to the layers above (vmx, soft, user): the CPU as functions.
 */
#ifndef TRIODE_X86_H
#define TRIODE_X86_H

#include "guest/x86/state.h"

extern const struct guest_ops x86_guest_ops;

struct x86_cr_view {
    u64 mask, shadow, fixed;
};

/* What the CPU asks of its engine. Each intercept function either returns (nobody intercepts: the
 * instruction goes on as on bare hardware) or fills cpu->vmexit and leaves by guest_leave with
 * X86_EXIT_VMEXIT, state still before the instruction (cpu->vmexit.insn_len says how long it
 * is). */
struct x86_hooks {
    /* User mode: SYSCALL is answered by @syscall, which leaves by guest_leave with rip behind the
     * instruction and everything else as it was. NULL: the instruction as the SDM has it. */
    void (*syscall)(struct x86_cpu *cpu);
    /* An instruction with basic exit reason @reason (HLT, CPUID, RDMSR, I/O, MOV CR, VMX...). */
    void (*intercept)(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len, u64 linear,
                      u64 insn_info);
    /* In VMX non-root operation: would such an instruction exit to the guest's hypervisor? For
     * those whose exit comes before faults (SDM vol. 3 26.1.1), but not an exit to the engine. */
    bool (*exits_inside)(const struct x86_cpu *cpu, u32 reason, u64 qualification);
    /* Is the instruction with basic exit reason @reason (RDPID: X86_REASON_RDPID), which this CPU
     * has, there in VMX non-root operation too? Some are only if a control enables them. */
    bool (*enabled)(const struct x86_cpu *cpu, u32 reason);
    /* A VMX instruction that nobody intercepts, by its exit reason: the CPU executes it. @info: as
     * VM-exit instruction information; @linear: of its memory operand. */
    void (*vmx)(struct x86_cpu *cpu, u32 reason, u64 info, u64 linear, unsigned insn_len);
    /* CR0 or CR4 as VMX has it: bits the guest does not own, what it reads of them, and bits that
     * must be 1. NULL or all 0: as without VMX. */
    struct x86_cr_view (*cr_view)(struct x86_cpu *cpu, unsigned cr);
    /* Reads/writes of an MSR that x86_msr_read/write do not keep themselves; false: #GP(0). */
    bool (*msr_read)(struct x86_cpu *cpu, u32 msr, u64 *value);
    bool (*msr_write)(struct x86_cpu *cpu, u32 msr, u64 value);
    void (*cpuid)(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4]);
    /* Guest-physical access outside memslots, see guest_ops.mmio_read/write. */
    void (*mmio_read)(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes);
    void (*mmio_write)(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes);
    /* Second-level translation (EPT): guest-physical to host-physical (what memslots speak), with
     * permissions; leaves with an EPT violation or misconfiguration VM exit, or answers false when
     * @probe. NULL while no VMCS with EPT is in effect: identity. */
    bool (*second_level)(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                         bool walk_entry, bool probe, struct guest_page *page);
    u64 (*read_tpr)(struct x86_cpu *cpu); /* CR8 */
    void (*write_tpr)(struct x86_cpu *cpu, u64 value);
    u64 (*tsc)(const struct x86_cpu *cpu); /* the guest's TSC now */
    /* In non-root operation, once an instruction has read the TSC and before it has changed
     * anything: leaves if something was due by then. */
    void (*time_seen)(struct x86_cpu *cpu);
    /* Performance counters: ticks at the TSC's rate in which the thread that runs the CPU did so;
     * the overflow interrupt; and to have pmu.alarm_gone_off set, and the CPU asked to look, not
     * later than in @cycles. */
    u64 (*cycles)(struct x86_cpu *cpu);
    void (*performance_interrupt)(struct x86_cpu *cpu);
    void (*cycles_alarm)(struct x86_cpu *cpu, u64 cycles);
};

/* Power-on (or INIT, when @init) state, SDM vol. 3 table 10-1; first instruction at FFFFFFF0h. */
void x86_reset(struct x86_cpu *cpu, bool init);

/* Recomputes common.mode from the state; and the TLB/space through memory->switch_space. Every
 * function that changes CR0, CR3, CR4, EFER, CS, SS, CPL, EFLAGS.TF/VM/IOPL/AC, MXCSR masks, DR7
 * calls one or both at its end. */
void x86_update_mode(struct x86_cpu *cpu);
void x86_update_mmu(struct x86_cpu *cpu);

u64 x86_rip(const struct x86_cpu *cpu);
void x86_set_rip(struct x86_cpu *cpu, u64 rip);

/* All of RFLAGS with lazy flags computed, and the way back. Mode is not updated. RF is that of the
 * instruction at lip: who sets lip afterwards sets rf_lip too. */
u64 x86_rflags(const struct x86_cpu *cpu);
void x86_set_rflags(struct x86_cpu *cpu, u64 rflags);

/* Record an exception in cpu->pending and leave with X86_EXIT_EVENT. For helpers and walks. */
void x86_raise(struct x86_cpu *cpu, u8 vector) NORETURN;
void x86_raise_error(struct x86_cpu *cpu, u8 vector, u32 error) NORETURN;
void x86_raise_pf(struct x86_cpu *cpu, u64 address, u32 error) NORETURN;

/* Delivers @event through the IDT (SDM vol. 3 chapter 6) in the current mode. 0; or, when delivery
 * itself faulted, the fault (combined per SDM table 6-5: double fault) is in cpu->pending and
 * -EAGAIN is answered; -ESHUTDOWN: triple fault. Never leaves by guest_leave for its own faults,
 * but may for MMIO or EPT exits. After 0 cpu->pending may hold a debug trap that comes before the
 * first instruction: that of a task (SDM vol. 3 8.2.1). */
int x86_deliver(struct x86_cpu *cpu, const struct x86_event *event);
/* The same in two steps, for who wants to see the fault itself: x86_deliver_once answers -EAGAIN
 * for any fault and leaves it in cpu->pending; x86_combine then makes of it what follows when
 * @first was being delivered. */
int x86_deliver_once(struct x86_cpu *cpu, const struct x86_event *event);
int x86_combine(struct x86_cpu *cpu, const struct x86_event *first);
/* RFLAGS as the delivery of @event pushes them. */
u64 x86_flags_to_push(const struct x86_cpu *cpu, const struct x86_event *event);

/* May an external interrupt / NMI be taken now? (IF, shadows, activity) */
bool x86_interrupt_allowed(const struct x86_cpu *cpu);
bool x86_nmi_allowed(const struct x86_cpu *cpu);

/* An instruction that the engine has carried out is done, or with @again an iteration of it: its
 * debug traps, if there are, become cpu->pending. */
void x86_debug_trap(struct x86_cpu *cpu, bool again);

/* Does an access of @bytes at @port meet I/O breakpoints (SDM vol. 3 18.2.4)? x86_debug_trap
 * raises. */
void x86_debug_io(struct x86_cpu *cpu, u16 port, unsigned bytes);

/* Interruptibility state with the STI and MOV SS bits true to the current instruction. Whoever
 * finds them set with an event waiting runs one instruction (insn_limit 1) and then calls
 * x86_clear_shadow: an instruction that jumps to itself never leaves its own address. */
u32 x86_interruptibility(const struct x86_cpu *cpu);
void x86_clear_shadow(struct x86_cpu *cpu);

/* What MONITOR and UMONITOR do once they may: fault as a load of a byte at @linear does, and
 * arm. */
void x86_monitor(struct x86_cpu *cpu, u64 linear);

/* Reads the feature bits that the CPU itself acts on from hooks->cpuid. Whoever changes what CPUID
 * answers calls it again; x86_reset does. */
void x86_update_features(struct x86_cpu *cpu);

/* Control and segment registers with all checks of MOV CR (SDM vol. 3 2.5) and effects on TLBs and
 * mode; answer false for #GP(0). Used by instructions, VM entry/exit (with @check false) and state
 * setters. */
bool x86_write_cr0(struct x86_cpu *cpu, u64 value, bool check);
bool x86_write_cr3(struct x86_cpu *cpu, u64 value, bool check);
bool x86_write_cr4(struct x86_cpu *cpu, u64 value, bool check);
bool x86_write_efer(struct x86_cpu *cpu, u64 value, bool check);
bool x86_write_xcr0(struct x86_cpu *cpu, u64 value);

/* MSRs kept in struct x86_cpu (EFER, STAR.., FS/GS base, SYSENTER.., TSC, TSC_AUX, PAT); others
 * through the hooks. False: #GP(0). */
bool x86_msr_read(struct x86_cpu *cpu, u32 msr, u64 *value);
bool x86_msr_write(struct x86_cpu *cpu, u32 msr, u64 value);

/* Performance counters. Before the CPU runs, if pmu.on: has one overflowed? Cycles pass, or
 * do not: by the thread that runs the CPU. IA32_PERF_GLOBAL_CTRL is loaded by a VM entry or exit:
 * @value has no reserved bits. x86_pmu_retired counts an instruction that the engine carried out,
 * or whose own code was left before it did, where the mode word has bits of @modes. */
void x86_pmu_look(struct x86_cpu *cpu);
void x86_pmu_halt(struct x86_cpu *cpu, bool halted);
void x86_pmu_set_global(struct x86_cpu *cpu, u64 value);
u64 x86_pmu_global_valid(void);
void x86_pmu_retired(struct x86_cpu *cpu, u32 modes, bool branch);

/* Bits of IA32_DEBUGCTL that exist. */
u64 x86_debugctl_valid(const struct x86_cpu *cpu);

/* FPU/SSE images for FXSAVE/XSAVE instructions and for the engine's get/set of fpu and xsave. */
void x86_fxsave(const struct x86_cpu *cpu, u8 image[512], bool rex_w);
void x86_fxrstor(struct x86_cpu *cpu, const u8 image[512], bool rex_w);

/* XSAVE area in the standard (not compacted) form, for the engine's get and set: components of XCR0
 * kept by this CPU (x87, SSE, PKRU). x86_xsave writes X86_XSAVE_BYTES; x86_xrstor answers false for
 * an image that XRSTOR would refuse with #GP. */
#define X86_XSAVE_PKRU_OFFSET 2688
#define X86_XSAVE_BYTES (X86_XSAVE_PKRU_OFFSET + 8)
void x86_xsave(const struct x86_cpu *cpu, u8 *image);
bool x86_xrstor(struct x86_cpu *cpu, const u8 *image);

/* gva -> gpa without effects, for debuggers and get_translation; -EFAULT. */
int x86_translate(struct x86_cpu *cpu, u64 gva, struct guest_page *page);

#endif
