/* What the files of src/kvm share. */
#ifndef TRIODE_KVM_PRIVATE_H
#define TRIODE_KVM_PRIVATE_H

#include <sys/types.h>

#include "engine/engine.h"

struct kvm_engine {
    struct engine engine;
    int fd;
    size_t run_bytes; /* of the mapped struct kvm_run with its data pages */
};

struct kvm_stats; /* stats.c */

struct kvm_vm {
    struct vm vm;
    struct kvm_engine *owner;
    int fd;
    u64 slot_bytes[MEM_MAX_SLOTS];
    struct kvm_stats *stats;
};

struct kvm_vcpu {
    struct vcpu vcpu;
    int fd;
    size_t run_bytes;
    _Atomic pid_t tid;    /* the thread that runs it, 0 before the first run */
    _Atomic bool running; /* that thread is in KVM_RUN or about to be */
    int run_error;        /* errno of the last KVM_RUN, 0 when it gave an exit */
    struct kvm_stats *stats;
};

static inline struct kvm_engine *to_kvm_engine(struct engine *engine)
{
    return container_of(engine, struct kvm_engine, engine);
}

static inline struct kvm_vm *to_kvm_vm(struct vm *vm)
{
    return container_of(vm, struct kvm_vm, vm);
}

static inline struct kvm_vcpu *to_kvm_vcpu(struct vcpu *vcpu)
{
    return container_of(vcpu, struct kvm_vcpu, vcpu);
}

/* The signal whose only effect is to make KVM_RUN return. */
int kvm_kick_signal(void);

/* ioctl(2) with the answer the engine contract wants: what it returned, or a negative errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/* vcpu.c */
int kvm_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **vcpu,
                    struct err *err);
void kvm_vcpu_destroy(struct vcpu *vcpu);
int kvm_vcpu_run(struct vcpu *vcpu);
void kvm_vcpu_kick(struct vcpu *vcpu);

/* state.c: one getter and one setter a struct of KVM's. X(operation suffix, type, get, set) */
#define KVM_VCPU_STATE(X)                                                                          \
    X(regs, struct kvm_regs, KVM_GET_REGS, KVM_SET_REGS)                                           \
    X(sregs, struct kvm_sregs, KVM_GET_SREGS, KVM_SET_SREGS)                                       \
    X(fpu, struct kvm_fpu, KVM_GET_FPU, KVM_SET_FPU)                                               \
    X(xsave, struct kvm_xsave, KVM_GET_XSAVE, KVM_SET_XSAVE)                                       \
    X(xcrs, struct kvm_xcrs, KVM_GET_XCRS, KVM_SET_XCRS)                                           \
    X(msrs, struct kvm_msrs, KVM_GET_MSRS, KVM_SET_MSRS)                                           \
    X(lapic, struct kvm_lapic_state, KVM_GET_LAPIC, KVM_SET_LAPIC)                                 \
    X(vcpu_events, struct kvm_vcpu_events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS)               \
    X(mp_state, struct kvm_mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE)                           \
    X(debugregs, struct kvm_debugregs, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS)                       \
    X(cpuid, struct kvm_cpuid2, KVM_GET_CPUID2, KVM_SET_CPUID2)

#define KVM_VM_STATE(X)                                                                            \
    X(irqchip, struct kvm_irqchip, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP)                               \
    X(pit, struct kvm_pit_state2, KVM_GET_PIT2, KVM_SET_PIT2)                                      \
    X(clock, struct kvm_clock_data, KVM_GET_CLOCK, KVM_SET_CLOCK)

#define X(name, type, get, set)                                                                    \
    int kvm_get_##name(struct vcpu *vcpu, type *state);                                            \
    int kvm_set_##name(struct vcpu *vcpu, const type *state);
KVM_VCPU_STATE(X)
#undef X
#define X(name, type, get, set)                                                                    \
    int kvm_get_##name(struct vm *vm, type *state);                                                \
    int kvm_set_##name(struct vm *vm, const type *state);
KVM_VM_STATE(X)
#undef X

int kvm_set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug);
int kvm_interrupt(struct vcpu *vcpu, u32 vector);
int kvm_nmi(struct vcpu *vcpu);
int kvm_translate(struct vcpu *vcpu, struct kvm_translation *translation);

/* stats.c */
int kvm_vcpu_stats(struct vcpu *vcpu, struct engine_stat *stats, int max);
int kvm_vm_stats(struct vm *vm, struct engine_stat *stats, int max);
void kvm_stats_free(struct kvm_stats *stats); /* NULL is fine */

/* explain.c */
void kvm_explain(struct vcpu *vcpu, struct err *err);

/* open.c */
int kvm_open(struct engine **engine, struct err *err);
void kvm_close(struct engine *engine);

#endif
