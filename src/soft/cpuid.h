/* CPUID: models, features by name, topology. */
#ifndef TRIODE_SOFT_CPUID_H
#define TRIODE_SOFT_CPUID_H

#include <linux/kvm.h>

#include "engine/engine.h"

#define CPUID_MAX_ENTRIES 48
#define CPUID_PHYS_BITS 46

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* What "--cpu" asked for: one bit for each row of features.def. */
struct cpuid_model {
    const char *name;
    u64 features[2];
};

/* "model[,+feature|-feature|feature=on|feature=off]..."; NULL is the default model, "host" is
 * "max". -EINVAL with the names that exist in @err. */
int cpuid_parse_model(struct cpuid_model *model, const char *text, struct err *err);

struct cpuid_table {
    u32 count;
    struct kvm_cpuid_entry2 entry[CPUID_MAX_ENTRIES];
};

/* All leaves of a CPU with @apic_id in @topology whose TSC runs at @tsc_khz. */
void cpuid_build(struct cpuid_table *table, const struct cpuid_model *model,
                 const struct engine_topology *topology, u32 apic_id, u64 tsc_khz);

/* What the instruction answers: leaves above the highest give the highest basic leaf's values, as
 * Intel's CPUs do (SDM volume 2, CPUID). */
const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid_table *table, u32 leaf, u32 subleaf);

/* Bits of an APIC id below those of the core and of the package. */
unsigned cpuid_thread_bits(const struct engine_topology *topology);
unsigned cpuid_core_bits(const struct engine_topology *topology); /* threads included */

#endif
