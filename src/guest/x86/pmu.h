/*
 * The performance counters, inside guest/x86. Lifted code of modes X86_MODE_COUNT counts down
 * pmu.insns_left and pmu.branches_left behind each instruction, and asks at the start of a block
 * whether one has run out; everything else brings the counters up to date from there.
 */
#ifndef TRIODE_X86_PMU_H
#define TRIODE_X86_PMU_H

#include "guest/x86/state.h"

/* Counting bits of the mode word. Call it when pmu.on: a change of privilege may change them. */
u32 x86_pmu_mode(struct x86_cpu *cpu);

/* An MSR of the counters; false: #GP(0), or there is none of that number. */
bool x86_pmu_read_msr(struct x86_cpu *cpu, u32 msr, u64 *value);
bool x86_pmu_write_msr(struct x86_cpu *cpu, u32 msr, u64 value);

/* What RDPMC reads for @index (ECX); false: #GP(0). */
bool x86_pmu_rdpmc(struct x86_cpu *cpu, u32 index, u64 *value);

/* Power-on state (SDM vol. 3 table 10-1); INIT changes nothing. */
void x86_pmu_reset(struct x86_cpu *cpu);

#endif
