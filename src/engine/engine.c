#include "engine/engine.h"

const char *engine_exit_name(u32 exit_reason)
{
    switch (exit_reason) {
#define X(number, handler, sentence)                                                               \
    case number:                                                                                   \
        return #number;
#include "engine/exits.def"
#undef X
    default:
        return NULL;
    }
}

const struct kvm_cpuid_entry2 *engine_cpuid_find(const struct kvm_cpuid2 *cpuid, u32 function,
                                                 u32 index)
{
    for (u32 i = 0; i < cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];

        if (entry->function != function)
            continue;
        if (!(entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || entry->index == index)
            return entry;
    }
    return NULL;
}
