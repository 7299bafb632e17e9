/* The state of a RISC-V CPU (RV64GC, user level). */
#ifndef TRIODE_RISCV_STATE_H
#define TRIODE_RISCV_STATE_H

#include <stddef.h>

#include "guest/guest.h"

/* Mode word: what code means beside its bytes. */
#define RISCV_MODE_FRM 7u /* fcsr.frm: which rounding mode "dynamic" is */

#define RISCV_FCSR_FLAGS 0x1fu
#define RISCV_FCSR_FRM_SHIFT 5
#define RISCV_FCSR_MASK 0xffu

enum riscv_rounding {
    RISCV_RNE,
    RISCV_RTZ,
    RISCV_RDN,
    RISCV_RUP,
    RISCV_RMM,
    RISCV_RM_DYNAMIC = 7,
};

enum riscv_fflags {
    RISCV_NX = 1 << 0,
    RISCV_UF = 1 << 1,
    RISCV_OF = 1 << 2,
    RISCV_DZ = 1 << 3,
    RISCV_NV = 1 << 4,
};

#define RISCV_NO_RESERVATION (~0ull)

struct riscv_cpu {
    struct guest_cpu common;
    u64 x[32]; /* x[0] is 0 and never written */
    u64 pc;
    u64 f[32]; /* single precision is NaN-boxed: ones above (RISC-V volume I, 13.2) */
    /* With all flags while the CPU is not in dbt_run. Change it by riscv_set_fcsr. */
    u32 fcsr;
    /*
     * LR notes address and value (sign-extended for LR.W); SC succeeds if it is asked for that
     * address and finds that value there, by a compare and swap. A value that changed and came back
     * in between is not noticed: what algorithms rely on, that nothing they loaded has changed,
     * holds. Each SC, and whoever switches threads of the guest, drops the reservation.
     */
    u64 reserved_address, reserved_value;
    u64 tval; /* with RISCV_EXIT_MISALIGNED and the access faults: the address */
};

static inline struct riscv_cpu *riscv_cpu(struct guest_cpu *cpu)
{
    return (struct riscv_cpu *)cpu;
}

#define RISCV_SLOT(field) ((u32)offsetof(struct riscv_cpu, field))

#endif
