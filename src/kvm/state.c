/* Getters and setters of state: one ioctl each, made from the tables in private.h. */
#include <string.h>

#include "kvm/private.h"

/* Linux before 6.5 leaves nent as it was given, entries and all: the table ends with the last entry
 * that was written. */
static int get_cpuid(struct vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
    static const struct kvm_cpuid_entry2 empty;
    u32 room = cpuid->nent;
    int ret;

    memset(cpuid->entries, 0, room * sizeof(cpuid->entries[0]));
    ret = kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_GET_CPUID2, cpuid);
    if (ret || cpuid->nent != room)
        return ret;
    while (cpuid->nent && !memcmp(&cpuid->entries[cpuid->nent - 1], &empty, sizeof(empty)))
        cpuid->nent--;
    return 0;
}

static int get_state(struct vcpu *vcpu, unsigned long request, void *state)
{
    if (request == KVM_GET_CPUID2)
        return get_cpuid(vcpu, state);
    return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, request, state);
}

/* KVM's setters take their structs by pointers without const, but do not write to them. */
#define X(name, type, get, set)                                                                    \
    int kvm_get_##name(struct vcpu *vcpu, type *state)                                             \
    {                                                                                              \
        return get_state(vcpu, get, state);                                                        \
    }                                                                                              \
    int kvm_set_##name(struct vcpu *vcpu, const type *state)                                       \
    {                                                                                              \
        return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, set, (void *)state);                               \
    }
KVM_VCPU_STATE(X)
#undef X

#define X(name, type, get, set)                                                                    \
    int kvm_get_##name(struct vm *vm, type *state)                                                 \
    {                                                                                              \
        return kvm_ioctl(to_kvm_vm(vm)->fd, get, state);                                           \
    }                                                                                              \
    int kvm_set_##name(struct vm *vm, const type *state)                                           \
    {                                                                                              \
        return kvm_ioctl(to_kvm_vm(vm)->fd, set, (void *)state);                                   \
    }
KVM_VM_STATE(X)
#undef X

int kvm_set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_SET_GUEST_DEBUG, (void *)debug);
}

int kvm_interrupt(struct vcpu *vcpu, u32 vector)
{
    struct kvm_interrupt interrupt = {.irq = vector};

    return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_INTERRUPT, &interrupt);
}

int kvm_nmi(struct vcpu *vcpu)
{
    return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_NMI, NULL);
}

int kvm_translate(struct vcpu *vcpu, struct kvm_translation *translation)
{
    return kvm_ioctl(to_kvm_vcpu(vcpu)->fd, KVM_TRANSLATE, translation);
}
