/*
 * VT-x: the VMCS as data, and the one way into and out of a guest. A vCPU always runs under a VMCS:
 * the engine's own (the root), and on top of it those of a guest that is itself a hypervisor. An
 * event asks the innermost VMCS first, then the next one out; the first that intercepts it gets the
 * VM exit.
 */
#ifndef TRIODE_VMX_H
#define TRIODE_VMX_H

#include "guest/x86/x86.h"

/* Widths of fields. W64 and WN differ in the encoding and on 32-bit CPUs only. */
typedef u16 vmx_W16;
typedef u32 vmx_W32;
typedef u64 vmx_W64;
typedef u64 vmx_WN;

struct vmcs {
#define F(encoding, width, area, access, name) vmx_##width name;
#include "vmx/fields.def"
#undef F
};

enum vmx_width { VMX_W16, VMX_W64, VMX_W32, VMX_WN }; /* as bits 14:13 of the encoding */
enum vmx_area { VMX_CONTROL, VMX_INFORMATION, VMX_GUEST, VMX_HOST }; /* bits 11:10 */
enum vmx_access { VMX_RW, VMX_RO };

struct vmx_field {
    u16 encoding;
    u8 width, area, access;
    u16 offset; /* in struct vmcs */
    const char *name;
};

extern const struct vmx_field vmx_fields[];
extern const unsigned vmx_nfields;

/* The row of a VMCS component by its encoding, high halves of 64-bit fields included; NULL: no such
 * field. */
const struct vmx_field *vmx_field_find(u32 encoding);
u64 vmx_field_get(const struct vmcs *vmcs, const struct vmx_field *field);
void vmx_field_set(struct vmcs *vmcs, const struct vmx_field *field, u64 value);

/* Control bits, as VMX_C_hlt_exiting. */
enum {
#define C(word, bit, name, allowed) VMX_C_##name = (int)(1u << (bit)),
#include "vmx/controls.def"
#undef C
};

enum vmx_control_word {
    VMX_PIN,
    VMX_PROC,
    VMX_PROC2,
    VMX_PROC3,
    VMX_EXIT,
    VMX_EXIT2,
    VMX_ENTRY,
    VMX_CONTROL_WORDS
};

enum vmx_allowed { VMX_ONE, VMX_DEFAULT1, VMX_MAY, VMX_PMU, VMX_NO };

struct vmx_control {
    u8 word, bit, allowed;
    const char *name;
};

extern const struct vmx_control vmx_controls[];
extern const unsigned vmx_ncontrols;

/* Bits of @word that must be 1, and that may be 1, as the TRUE capability MSRs report them (SDM
 * A.3). */
u32 vmx_allowed0(enum vmx_control_word word);
u32 vmx_allowed1(enum vmx_control_word word);
/* Those of the bits that may be 1 only on a CPU with performance counters. */
u32 vmx_pmu_controls(enum vmx_control_word word);
/* Bits that must be 1 for a guest that knows only the older capability MSRs (SDM A.2). */
u32 vmx_default1(enum vmx_control_word word);
u64 vmx_control_get(const struct vmcs *vmcs, enum vmx_control_word word);

/* Basic exit reasons, as VMX_REASON_hlt. */
enum vmx_reason {
#define R(number, name, information, section, when, handler) VMX_REASON_##name = number,
#include "vmx/reasons.def"
#undef R
    VMX_REASONS = 78
};

enum {
    VMX_INFO_Q = 1 << 0, /* qualification */
    VMX_INFO_L = 1 << 1, /* guest-linear address */
    VMX_INFO_P = 1 << 2, /* guest-physical address */
    VMX_INFO_I = 1 << 3, /* interruption information */
    VMX_INFO_N = 1 << 4, /* instruction length */
    VMX_INFO_D = 1 << 5, /* instruction information */
};

struct vmcs;
struct vmx_level;

struct vmx_reason_info {
    const char *name;
    const char *section;
    u8 info; /* VMX_INFO_* */
    enum vmx_when { VMX_NEVER, VMX_EVENT, VMX_INNER, VMX_ALWAYS, VMX_ON, VMX_ASK } when;
    u8 word; /* of the control, for VMX_ON */
    u32 mask;
    bool (*ask)(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification);
};

/* NULL for a number that no row has. */
const struct vmx_reason_info *vmx_reason(u32 reason);
/* "hlt"; "reserved" for a number without a row. */
const char *vmx_reason_name(u32 reason);

/* Interruption information, SDM 25.8.3 and 25.9.2. */
#define VMX_INTR_VALID BIT(31)
#define VMX_INTR_ERROR BIT(11)
#define VMX_INTR_TYPE(info) (((info) >> 8) & 7)

/* One VMCS in effect. */
struct vmx_level {
    struct vmcs vmcs;
    struct vmx_level *outer; /* NULL: the root */
    /* Root: which MSRs exit, in place of a guest's bitmap in memory. NULL: all. */
    bool (*msr_exits)(u32 msr);
};

/* A vCPU's VMX part. cpu->engine points to an object that begins with it. */
struct vmx_cpu {
    struct vmx_level root;
    struct vmx_level *current;   /* innermost in effect */
    struct vmx_level *exit_to;   /* who gets the exit in cpu->vmexit */
    struct x86_event delivering; /* event whose delivery is under way: IDT-vectoring information */
    u64 exits[VMX_REASONS];
    /* Asked at every VM entry. */
    u32 allowed0[VMX_CONTROL_WORDS], allowed1[VMX_CONTROL_WORDS], pmu_controls[VMX_CONTROL_WORDS];
    const struct x86_hooks *hooks, *hooks_ept; /* the engine's, without and with second_level */

    /* VMX operation of the guest (nested.h). */
    bool on;
    u64 feature_control; /* IA32_FEATURE_CONTROL */
    u64 vmxon_pointer, current_pointer;
    struct vmx_level nested; /* the current VMCS; outer is the root */
    bool launched, shadow;   /* of the current VMCS */
    u64 entries;

    /* What comes before the next instruction of non-root operation, beside interrupts. */
    bool mtf_pending;
    u32 due; /* trap-like exit reason of the instruction just done; 0: none */
    u64 due_qualification;
    bool alone;                  /* the next instruction runs alone: something is due behind it */
    bool stepping;               /* it does, for the monitor trap flag */
    bool preemption;             /* the VMX-preemption timer counts */
    bool preemption_fired;       /* the engine's timer for it has gone off */
    u64 preemption_tsc;          /* when it is 0, by the TSC outside */
    u64 pause_first, pause_last; /* PAUSE-loop exiting, TSC */
    void (*arm)(struct x86_cpu *cpu, u64 tsc); /* engine: ask for events at that TSC */

    u64 inner_exits[VMX_REASONS];
};

#define VMX_PREEMPTION_SHIFT 5

static inline struct vmx_cpu *vmx_of(const struct x86_cpu *cpu)
{
    return (struct vmx_cpu *)cpu->engine;
}

/* Hooks of the guest's VMX: instructions nobody intercepts, the view of control registers, second-
 * level translation. */
void vmx_instruction(struct x86_cpu *cpu, u32 reason, u64 info, u64 linear, unsigned insn_len);
struct x86_cr_view vmx_cr_view(struct x86_cpu *cpu, unsigned cr);
bool vmx_second_level(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                      bool walk_entry, bool probe, struct guest_page *page);

/* x86_msr_write, of the TSC without regard to non-root operation's offset (SDM 26.3). */
bool vmx_wrmsr(struct x86_cpu *cpu, u32 msr, u64 value);

/* IA32_FEATURE_CONTROL and the capability MSRs; false: #GP. */
bool vmx_msr_read(const struct x86_cpu *cpu, u32 msr, u64 *value);
bool vmx_msr_write(struct x86_cpu *cpu, u32 msr, u64 value);

/* The TSC of non-root operation from the one outside (SDM 26.3, 26.5.3). */
u64 vmx_tsc(const struct x86_cpu *cpu, u64 outer);

/* The TSC outside non-root operation, now. */
u64 vmx_outer_tsc(const struct x86_cpu *cpu);

/* The virtual APIC of non-root operation (SDM chapter 30). All but the last three answer false if
 * it is none of theirs. @gpa: as memory accesses to the APIC-access page are seen, beyond all
 * memslots. *@ok false: #GP. */
#define VMX_APIC_PAGE BIT(51)
bool vmx_read_cr8(struct x86_cpu *cpu, u64 *value);
bool vmx_write_cr8(struct x86_cpu *cpu, u64 value);
bool vmx_x2apic_read(struct x86_cpu *cpu, u32 msr, u64 *value);
bool vmx_x2apic_write(struct x86_cpu *cpu, u32 msr, u64 value, bool *ok);
bool vmx_apic_read(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes);
bool vmx_apic_write(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes);
/* The external interrupt just acknowledged is the notification of posted interrupts: taken over. */
bool vmx_post_interrupts(struct x86_cpu *cpu, u8 vector);
/* Is a virtual interrupt recognized? If it may come in, put it up for the next vmx_enter. */
bool vmx_virtual_interrupt(const struct x86_cpu *cpu);
void vmx_deliver_virtual_interrupt(struct x86_cpu *cpu);

/* Must the next instruction run alone? What came of it, by dbt_run's answer. */
bool vmx_steps(struct x86_cpu *cpu);
void vmx_stepped(struct x86_cpu *cpu, bool done);

/* Non-root code is about to see the TSC. If the VMX-preemption timer has run out by then, it leaves
 * and the instruction runs alone, so that none comes between it and the exit (SDM 26.5.1). */
void vmx_time_seen(struct x86_cpu *cpu);

/* The engine has carried out an instruction of the guest's that exited to it. */
void vmx_carried_out(struct x86_cpu *cpu);
/* An exit due behind the instruction just done: made, true. Comes before debug traps. */
bool vmx_trap_exit(struct x86_cpu *cpu);

/* INIT and SIPI (SDM 26.2): what becomes of them. */
enum vmx_signal { VMX_SIGNAL_TAKE, VMX_SIGNAL_BLOCKED, VMX_SIGNAL_EXITED };
enum vmx_signal vmx_init_signal(struct x86_cpu *cpu);
enum vmx_signal vmx_startup_ipi(struct x86_cpu *cpu, u8 vector);

/* In non-root operation: does an external interrupt (or NMI) exit to the guest's hypervisor? */
bool vmx_exits_on_interrupt(const struct x86_cpu *cpu, bool nmi);
/* Makes that exit; @vector as acknowledged, or -1. */
void vmx_interrupt_exit(struct x86_cpu *cpu, bool nmi, int vector);
/* Should the interrupt be acknowledged first? */
bool vmx_acknowledges(const struct x86_cpu *cpu);
/* An exit due before the next instruction (a window, the timer): made, true. @nmi: an NMI comes in
 * otherwise, and that before an interrupt window. */
bool vmx_window_exit(struct x86_cpu *cpu, bool nmi);
/* Is one due now? For a CPU that sleeps. */
bool vmx_window_due(struct x86_cpu *cpu);
/* Does such an exit wait for the guest's state to change? */
bool vmx_window_waits(const struct x86_cpu *cpu);
/* Ends VMX operation without a word: reset. */
void vmx_reset(struct x86_cpu *cpu);

/* The root VMCS with the engine's controls. */
void vmx_init(struct vmx_cpu *vmx);

/* x86_hooks.enabled: the instructions that are #UD in non-root operation unless a control enables
 * them (SDM 26.3). */
bool vmx_enabled(const struct x86_cpu *cpu, u32 reason);

/* x86_hooks.exits_inside: is the innermost VMCS that wants an exit for @reason a guest's? */
bool vmx_exits_inside(const struct x86_cpu *cpu, u32 reason, u64 qualification);

/* x86_hooks.intercept: leaves with X86_EXIT_VMEXIT if a VMCS intercepts the instruction, else
 * returns. */
void vmx_intercept(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len, u64 linear,
                   u64 insn_info);

/* A VM exit that no instruction asked for, to the root: fills
 * cpu->vmexit. */
void vmx_event_exit(struct x86_cpu *cpu, u32 reason, u64 qualification);

/* Leaves for memory outside all slots at @gpa: the root's EPT violation. From mmio hooks. */
void vmx_ept_violation(struct x86_cpu *cpu, u64 gpa, enum guest_access access) NORETURN;

/* The exit path: writes what cpu->vmexit says into the exit-information fields of the VMCS that
 * gets it. Answers the basic exit reason for the root's handler, or VMX_HANDLED: it was an exit to
 * the guest's own hypervisor, which runs on. SDM 28.2. */
#define VMX_HANDLED (~0u)
u32 vmx_exit(struct x86_cpu *cpu);

/* Puts @event into the VM-entry fields of the root VMCS; the next vmx_enter delivers it. */
void vmx_inject(struct vmx_cpu *vmx, const struct x86_event *event);
/* Is one there already? */
bool vmx_injecting(const struct vmx_cpu *vmx);

enum { VMX_GO, VMX_EXITED };

/* The entry path, SDM 27.6: delivers what is to be injected. VMX_EXITED: cpu->vmexit is set (memory
 * outside all slots, triple fault, ...) and nothing was run. */
int vmx_enter(struct x86_cpu *cpu);

/* An exception of the guest's own in cpu->pending: exit if intercepted, else deliver; faults that
 * come up meanwhile too, up to the triple fault. VMX_GO or VMX_EXITED. */
int vmx_exception(struct x86_cpu *cpu);

/* The event in VM-entry or IDT-vectoring information format, and back. */
u32 vmx_event_info(const struct x86_event *event);
struct x86_event vmx_info_event(u32 info, u32 error, u32 insn_len);

#endif
