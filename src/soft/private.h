/* What the files of src/soft share. */
#ifndef TRIODE_SOFT_PRIVATE_H
#define TRIODE_SOFT_PRIVATE_H

#include "dbt/dbt.h"
#include "engine/engine.h"
#include "guest/x86/x86.h"
#include "soft/clock.h"
#include "soft/cpuid.h"
#include "soft/ioapic.h"
#include "soft/lapic.h"
#include "soft/pic.h"
#include "soft/pit.h"
#include "soft/soft.h"
#include "vmx/vmx.h"

#define SOFT_MAX_CPUS 64
#define SOFT_PIO_BYTES MEM_PAGE_SIZE
#define SOFT_MMIO_ACCESSES 512 /* outside memory by one instruction */

struct soft_engine {
    struct engine engine;
    u64 host_khz;
};

struct soft_vcpu;

struct soft_vm {
    struct vm vm;
    struct soft_engine *engine;
    struct engine_topology topology;
    struct cpuid_model model;
    struct dbt *dbt;
    struct soft_clock clock;
    struct soft_timers timers;
    struct pic pic;
    struct ioapic ioapic;
    struct pit pit;
    bool has_pit;
    bool pauses; /* several vCPUs: who spins with PAUSE gives up its host CPU now and then */
    struct soft_vcpu *_Atomic cpu[SOFT_MAX_CPUS];
    u32 lowest_next; /* where lowest-priority arbitration begins */
};

/* --- the vCPU in its five parts --- */

/* Identity. */
struct soft_identity {
    struct vcpu vcpu; /* engine's view: VM, index, APIC id, run record */
    struct soft_vm *vm;
    u32 socket, core, thread;
};

/* Run state: one machine, changed by soft_set_state alone. */
enum soft_state {
    SOFT_CREATED, /* no vcpu_run yet */
    SOFT_RUNNABLE,
    SOFT_RUNNING, /* in vcpu_run */
    SOFT_HALTED,  /* HLT: an event wakes it */
    SOFT_WAIT_SIPI,
    SOFT_PAUSED, /* stopped by set_mp_state */
    SOFT_UNPLUGGED,
    SOFT_STATES
};

enum { /* bits of soft_run_state.signals: any thread sets them */
       SOFT_SIGNAL_NMI = 1 << 8,
       SOFT_SIGNAL_INIT = 1 << 9,
       SOFT_SIGNAL_SIPI = 1 << 10,       /* vector in bits 7:0 */
       SOFT_SIGNAL_UNHALT = 1 << 11,     /* KVM_HC_KICK_CPU */
       SOFT_SIGNAL_NMI_AGAIN = 1 << 12,  /* another came before the vCPU looked at the first */
       SOFT_SIGNAL_SIPI_FIRST = 1 << 13, /* the SIPI came before the INIT */
};

struct soft_run_state {
    enum soft_state state;
    bool init_received; /* waiting for SIPI: after an INIT, not since power-on */
    u32 signals;
    u32 calls;    /* counts soft_request; what a sleeper waits on */
    u32 sleeping; /* the thread waits, or is about to */
};

/* Components outside the VMCS. FPU and SIMD registers are in struct x86_cpu. */
/* IA32_MISC_ENABLE (SDM vol. 4 table 2-2). */
#define SOFT_MISC_LIMIT_CPUID BIT(22)
#define SOFT_MISC_DISABLE_XD BIT(34)

struct soft_msrs {
    u64 *stored;     /* one slot a stored MSR of msrs.def */
    u64 misc_enable; /* for what CPUID answers */
    u64 tsc_base;    /* tsc_offset with IA32_TSC_ADJUST 0 */
    u64 system_time; /* KVM's MSRs */
    u64 wall_clock;
};

struct soft_components {
    struct lapic lapic;
    struct soft_msrs msrs;
    struct cpuid_table cpuid;
};

/* Private: what is neither architecture nor identity. */
struct soft_mmio_access {
    u64 gpa;
    u8 bytes;
    bool write;
    u8 data[8];
};

struct soft_mmio {
    struct soft_mmio_access done[SOFT_MMIO_ACCESSES]; /* by the instruction at hand */
    u32 count, next;
    u64 place; /* which instruction and iteration: a hash of the registers that move */
    struct soft_mmio_access pending; /* handed up in KVM_EXIT_MMIO */
    bool waiting;
};

struct soft_pio {
    bool waiting; /* handed up in KVM_EXIT_IO */
    u64 qualification, insn_info;
    u32 insn_len, count;
    u64 lip; /* of the instruction, to see whether somebody moved it */
    u64 linear;
};

struct soft_stats {
    u64 injected[4]; /* external interrupts, NMIs, exceptions, others */
    u64 halts, wakeups, exits_to_machine, mmio_inside, pio_inside;
    u64 ticks_guest, ticks_soft; /* host ticks in translated code and in the engine */
};

struct soft_private {
    struct soft_mmio mmio;
    struct soft_pio pio;
    struct soft_stats stats;
    struct kvm_guest_debug debug;
    bool events_due;  /* look at interrupts before going on */
    bool watch_step;  /* run one instruction that touches what the debugger watches */
    bool shadow_step; /* run one instruction out of an interrupt shadow, then look again */
    u64 last_ticks;
    u64 pause_first, pause_last;    /* ticks: the spin that PAUSE is used for */
    struct soft_timer preemption;   /* wakes for the VMX-preemption timer */
    struct soft_timer cycles_alarm; /* a performance counter of cycles may have overflowed */
    char why[256];                  /* for explain() */
};

struct soft_vcpu {
    struct vmx_cpu vmx; /* virtual registers: the VMCS, first: x86_cpu.engine */
    struct x86_cpu cpu; /* and their hot home */
    struct soft_identity id;
    struct soft_run_state run;
    struct soft_components parts;
    struct soft_private priv;
};

static inline struct soft_vm *soft_vm(struct vm *vm)
{
    return container_of(vm, struct soft_vm, vm);
}

static inline struct soft_vcpu *soft_vcpu(struct vcpu *vcpu)
{
    return container_of(vcpu, struct soft_vcpu, id.vcpu);
}

static inline struct soft_vcpu *soft_of(const struct x86_cpu *cpu)
{
    return (struct soft_vcpu *)cpu->engine;
}

static inline struct kvm_run *soft_record(struct soft_vcpu *vcpu)
{
    return vcpu->id.vcpu.run;
}

/* What a VM-exit handler answers, beside negative errnos. */
enum {
    SOFT_RESUME = 0,  /* go on */
    SOFT_HAND_UP = 1, /* the run record is filled: an engine exit */
};

/* One handler for each root handler named in vmx/reasons.def. */
typedef int soft_exit_handler(struct soft_vcpu *vcpu, const struct x86_vmexit *exit);
soft_exit_handler soft_exit_exception, soft_exit_external_interrupt, soft_exit_triple_fault,
    soft_exit_init, soft_exit_sipi, soft_exit_interrupt_window, soft_exit_cpuid, soft_exit_hlt,
    soft_exit_invd, soft_exit_vmcall, soft_exit_io, soft_exit_rdmsr, soft_exit_wrmsr,
    soft_exit_mwait, soft_exit_monitor, soft_exit_pause, soft_exit_ept_violation, soft_exit_wbinvd,
    soft_exit_xsetbv, soft_exit_unexpected;

/* vcpu.c */
int soft_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **vcpu,
                     struct err *err);
void soft_vcpu_destroy(struct vcpu *vcpu);
void soft_set_state(struct soft_vcpu *vcpu, enum soft_state state);
/* Sets request bits and wakes the vCPU if it sleeps. Any thread. */
void soft_request(struct soft_vcpu *vcpu, u32 bits);
void soft_signal(struct soft_vcpu *vcpu, u32 signals);
void soft_signal_nmi(struct soft_vcpu *vcpu);
void soft_take_nmi(struct soft_vcpu *vcpu); /* one of those that wait */
void soft_signal_init(struct soft_vcpu *vcpu);
void soft_signal_sipi(struct soft_vcpu *vcpu, u8 vector);
/* Sleeps until a request comes. */
void soft_sleep(struct soft_vcpu *vcpu);
extern const struct x86_hooks soft_x86_hooks;

/* run.c */
int soft_vcpu_run(struct vcpu *vcpu);
void soft_vcpu_kick(struct vcpu *vcpu);
/* Past an instruction that an exit handler has carried out, with its single-step trap. */
void soft_skip(struct soft_vcpu *vcpu, u32 insn_len);
/* The instruction raises an exception instead. */
void soft_raise(struct soft_vcpu *vcpu, u8 vector, u32 error);
int soft_internal_error(struct soft_vcpu *vcpu, const char *fmt, ...) PRINTF_LIKE(2, 3);
void soft_explain(struct vcpu *vcpu, struct err *err);

/* exits_io.c */
int soft_finish_io(struct soft_vcpu *vcpu);
/* exits_mmio.c */
void soft_mmio_read(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes);
void soft_mmio_write(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes);
void soft_finish_mmio(struct soft_vcpu *vcpu);
/* INS into memory-mapped I/O: what the port has given is kept while the store goes up, after which
 * the instruction starts over. Recall answers false if nothing is kept. */
bool soft_mmio_recall_port(struct soft_vcpu *vcpu, u16 port, void *data, unsigned bytes);
void soft_mmio_note_port(struct soft_vcpu *vcpu, u16 port, const void *data, unsigned bytes);
static inline bool soft_replaying(const struct soft_vcpu *vcpu)
{
    return vcpu->priv.mmio.count;
}
void soft_mmio_done(struct soft_vcpu *vcpu);

/* hypercall.c */
void soft_write_system_time(struct soft_vcpu *vcpu);
void soft_write_wall_clock(struct soft_vcpu *vcpu);

/* msr.c */
bool soft_msr_read(struct x86_cpu *cpu, u32 msr, u64 *value);
bool soft_msr_write(struct x86_cpu *cpu, u32 msr, u64 value);
/* The same for get and set of state: no #GP for read-only ones, no side effects on the guest. */
bool soft_msr_get(struct soft_vcpu *vcpu, u32 msr, u64 *value);
bool soft_msr_set(struct soft_vcpu *vcpu, u32 msr, u64 value);
bool soft_msr_exits(u32 msr);
int soft_msrs_init(struct soft_vcpu *vcpu);

/* ipi.c */
extern const struct lapic_hooks soft_lapic_hooks;
/* How many CPUs took it. */
unsigned soft_deliver(struct soft_vm *vm, const struct apic_message *message,
                      struct soft_vcpu *source);
void soft_ioapic_send(struct ioapic *ioapic, const struct apic_message *message);
void soft_pic_output(struct pic *pic, bool level);
void soft_pit_line(struct pit *pit, bool level);
int soft_irq_line(struct vm *vm, u32 gsi, int level);
int soft_signal_msi(struct vm *vm, const struct kvm_msi *msi);

/* cpuid of the vCPU, with what changes as it runs. */
void soft_cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4]);

/* state.c, state_events.c */
#define SOFT_VCPU_STATE(X)                                                                         \
    X(regs, struct kvm_regs)                                                                       \
    X(sregs, struct kvm_sregs)                                                                     \
    X(fpu, struct kvm_fpu)                                                                         \
    X(xsave, struct kvm_xsave)                                                                     \
    X(xcrs, struct kvm_xcrs)                                                                       \
    X(lapic, struct kvm_lapic_state)                                                               \
    X(vcpu_events, struct kvm_vcpu_events)                                                         \
    X(mp_state, struct kvm_mp_state)                                                               \
    X(debugregs, struct kvm_debugregs)                                                             \
    X(cpuid, struct kvm_cpuid2)
#define X(name, type)                                                                              \
    int soft_get_##name(struct vcpu *vcpu, type *state);                                           \
    int soft_set_##name(struct vcpu *vcpu, const type *state);
SOFT_VCPU_STATE(X)
#undef X
int soft_get_msrs(struct vcpu *vcpu, struct kvm_msrs *msrs);
int soft_set_msrs(struct vcpu *vcpu, const struct kvm_msrs *msrs);
int soft_set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug);
int soft_interrupt(struct vcpu *vcpu, u32 vector);
int soft_nmi(struct vcpu *vcpu);
int soft_translate(struct vcpu *vcpu, struct kvm_translation *translation);

/* stats.c */
int soft_vcpu_stats(struct vcpu *vcpu, struct engine_stat *stats, int max);
int soft_vm_stats(struct vm *vm, struct engine_stat *stats, int max);

#endif
