/*
 * The engine contract: system -> VM -> vCPU, shaped like KVM's API and speaking its structs
 * (<linux/kvm.h>, Documentation/virt/kvm/api.rst), because that is the vocabulary of the field.
 * Two engines implement it: kvm (the host kernel's) and soft (ours).
 *
 * Every operation answers 0 (or a count) or a negative errno. Operations on a vCPU are called by
 * its own thread or while it is not in run(); kick() and the irq operations from any thread.
 */
#ifndef TRIODE_ENGINE_H
#define TRIODE_ENGINE_H

#include <linux/kvm.h>

#include "base/err.h"
#include "base/types.h"
#include "mem/mem.h"

struct engine;
struct vm;
struct vcpu;
struct engine_ops;

/* What the board wants the CPUs to look like. */
struct engine_topology {
    unsigned cpus; /* vCPUs present at start, 1..64 */
    unsigned sockets, cores, threads;
};

struct engine_vm_config {
    struct mem *mem; /* the VM's memory; outlives the VM */
    struct engine_topology topology;
    const char *cpu_model;     /* "--cpu" text: "x86-64-v2", "x86-64-v2,vmx=off", "host" ... */
    bool jit;                  /* soft: false = IR interpreter (--jit=off) */
    u64 code_cache_bytes;      /* soft: 0 = default */
    u32 dump_stages;           /* soft: DBT_DUMP_* bits (--dump) */
    u64 dump_first, dump_last; /* guest addresses for dump_stages */
    bool count_insns;          /* soft: count guest instructions (--stats, probe) */
    bool pit;                  /* in-kernel 8254 wanted */
};

struct engine {
    const struct engine_ops *ops;
};

struct vm {
    const struct engine_ops *ops;
    struct mem *mem;
};

struct vcpu {
    const struct engine_ops *ops;
    struct vm *vm;
    unsigned index; /* 0..cpus-1 */
    u32 apic_id;
    struct kvm_run *run; /* the exit record; its io data at (u8 *)run + run->io.data_offset */
};

/* Statistics both engines fill as far as they can; names and values, for --stats. */
struct engine_stat {
    const char *name;
    u64 value;
};

struct engine_ops {
    const char *name; /* "kvm", "soft" */

    /* System. @err gets the sentence when the engine is not usable here. */
    int (*open)(struct engine **engine, struct err *err);
    void (*close)(struct engine *engine);
    int (*check_extension)(struct engine *engine, u32 capability);               /* KVM_CAP_* */
    int (*get_supported_cpuid)(struct engine *engine, struct kvm_cpuid2 *cpuid); /* in: nent room */

    /* VM. In-kernel (here: in-engine) irqchip: PIC pair, IOAPIC, a LAPIC per vCPU, and the PIT. */
    int (*vm_create)(struct engine *engine, const struct engine_vm_config *config, struct vm **vm,
                     struct err *err);
    void (*vm_destroy)(struct vm *vm); /* after all its vCPUs are destroyed */
    int (*set_memory)(struct vm *vm, const struct kvm_userspace_memory_region *region);
    int (*get_dirty_log)(struct vm *vm, u32 slot, u64 *bitmap, size_t bytes);
    int (*irq_line)(struct vm *vm, u32 gsi, int level); /* 0..15 to PIC and IOAPIC, 16..23 IOAPIC */
    int (*signal_msi)(struct vm *vm, const struct kvm_msi *msi);
    /* From now on what the I/O APIC sends goes through @remap: it gets the message that the entry
     * stands for (VT-d 5.1.5.1: an entry's bits 63:48 are the address's bits 19:4, bit 11 its bit
     * 2) and makes of it one as signal_msi takes it; false: it is blocked. Any thread calls it.
     * NULL where the engine cannot. */
    int (*set_irq_remap)(struct vm *vm, bool (*remap)(void *opaque, struct kvm_msi *msi),
                         void *opaque);
    int (*get_irqchip)(struct vm *vm, struct kvm_irqchip *chip);
    int (*set_irqchip)(struct vm *vm, const struct kvm_irqchip *chip);
    int (*get_pit)(struct vm *vm, struct kvm_pit_state2 *pit);
    int (*set_pit)(struct vm *vm, const struct kvm_pit_state2 *pit);
    int (*get_clock)(struct vm *vm, struct kvm_clock_data *clock);
    int (*set_clock)(struct vm *vm, const struct kvm_clock_data *clock);

    /* vCPU: created in power-on state; index 0 is the bootstrap processor, the others wait for
     * SIPI. */
    int (*vcpu_create)(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **vcpu,
                       struct err *err);
    void (*vcpu_destroy)(struct vcpu *vcpu);
    int (*set_cpuid)(struct vcpu *vcpu, const struct kvm_cpuid2 *cpuid);
    int (*get_cpuid)(struct vcpu *vcpu, struct kvm_cpuid2 *cpuid);
    int (*get_regs)(struct vcpu *vcpu, struct kvm_regs *regs);
    int (*set_regs)(struct vcpu *vcpu, const struct kvm_regs *regs);
    int (*get_sregs)(struct vcpu *vcpu, struct kvm_sregs *sregs);
    int (*set_sregs)(struct vcpu *vcpu, const struct kvm_sregs *sregs);
    int (*get_fpu)(struct vcpu *vcpu, struct kvm_fpu *fpu);
    int (*set_fpu)(struct vcpu *vcpu, const struct kvm_fpu *fpu);
    int (*get_xsave)(struct vcpu *vcpu, struct kvm_xsave *xsave);
    int (*set_xsave)(struct vcpu *vcpu, const struct kvm_xsave *xsave);
    int (*get_xcrs)(struct vcpu *vcpu, struct kvm_xcrs *xcrs);
    int (*set_xcrs)(struct vcpu *vcpu, const struct kvm_xcrs *xcrs);
    int (*get_msrs)(struct vcpu *vcpu, struct kvm_msrs *msrs); /* count done, as KVM */
    int (*set_msrs)(struct vcpu *vcpu, const struct kvm_msrs *msrs);
    int (*get_lapic)(struct vcpu *vcpu, struct kvm_lapic_state *lapic);
    int (*set_lapic)(struct vcpu *vcpu, const struct kvm_lapic_state *lapic);
    int (*get_vcpu_events)(struct vcpu *vcpu, struct kvm_vcpu_events *events);
    int (*set_vcpu_events)(struct vcpu *vcpu, const struct kvm_vcpu_events *events);
    int (*get_mp_state)(struct vcpu *vcpu, struct kvm_mp_state *state);
    int (*set_mp_state)(struct vcpu *vcpu, const struct kvm_mp_state *state);
    int (*get_debugregs)(struct vcpu *vcpu, struct kvm_debugregs *regs);
    int (*set_debugregs)(struct vcpu *vcpu, const struct kvm_debugregs *regs);
    int (*set_guest_debug)(struct vcpu *vcpu, const struct kvm_guest_debug *debug);
    int (*interrupt)(struct vcpu *vcpu, u32 vector); /* without irqchip only */
    int (*nmi)(struct vcpu *vcpu);
    int (*translate)(struct vcpu *vcpu, struct kvm_translation *translation); /* gva -> gpa */

    /* Runs the guest until an exit that the engine cannot handle; 0 with vcpu->run filled, or
     * -EINTR after a kick (exit_reason KVM_EXIT_INTR). A halted or SIPI-waiting vCPU sleeps inside.
     * A pending KVM_EXIT_IO or KVM_EXIT_MMIO read is completed from the record on the next run. */
    int (*vcpu_run)(struct vcpu *vcpu);

    /* Makes vcpu_run return -EINTR soon, now or the next time it is called. Any thread. */
    void (*kick)(struct vcpu *vcpu);

    /* Fills at most @max statistics, answers how many. */
    int (*vcpu_stats)(struct vcpu *vcpu, struct engine_stat *stats, int max);
    int (*vm_stats)(struct vm *vm, struct engine_stat *stats, int max);

    /* One sentence about why the last run failed (FAIL_ENTRY, INTERNAL_ERROR), as the engine knows
     * it, with guest bytes disassembled where that helps. */
    void (*explain)(struct vcpu *vcpu, struct err *err);
};

/* The engines this build has, ended by NULL. */
extern const struct engine_ops kvm_engine_ops;
extern const struct engine_ops soft_engine_ops;

/* "KVM_EXIT_IO" for 2, NULL for a number without a row in exits.def. */
const char *engine_exit_name(u32 exit_reason);

/* Host-independent helpers on KVM's structs. */
const struct kvm_cpuid_entry2 *engine_cpuid_find(const struct kvm_cpuid2 *cpuid, u32 function,
                                                 u32 index);

#endif
