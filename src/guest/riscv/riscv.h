/*
 * guest/riscv to the layers above: RV64GC with Zicsr, Zifencei, Zba, Zbb and Zbs as a program at
 * user level sees it. Manuals: RISC-V volume I (docs/specs.md).
 */
#ifndef TRIODE_RISCV_H
#define TRIODE_RISCV_H

#include "guest/riscv/state.h"

/* Exit codes of dbt_run. In all of them pc stands at the instruction (ECALL and EBREAK too: who
 * answers them steps over it), and nothing of it is done. */
enum {
    RISCV_EXIT_ECALL = IR_EXIT_GUEST,
    RISCV_EXIT_EBREAK,
    RISCV_EXIT_ILLEGAL,
    RISCV_EXIT_MISALIGNED, /* an atomic access to tval */
    RISCV_EXIT_LOAD_FAULT, /* outside of memory, at tval; not in direct mode */
    RISCV_EXIT_STORE_FAULT,
};

/* Without translation of addresses (volume II, satp mode Bare): gva = gpa, all of it accessible. A
 * user mode puts its own walk in the place of this one. */
extern const struct guest_ops riscv_guest_ops;

/* All registers 0, round to nearest, no reservation; @pc next. Makes the address space current when
 * the translator uses a soft TLB. The CPU is attached. */
void riscv_reset(struct riscv_cpu *cpu, u64 pc);

/* fcsr and what follows from it: the mode word. Outside dbt_run. */
void riscv_set_fcsr(struct riscv_cpu *cpu, u32 fcsr);

/* Length of the instruction that begins with @low: 2 or 4 bytes. */
static inline unsigned riscv_insn_length(u16 low)
{
    return (low & 3) == 3 ? 4 : 2;
}

#endif
