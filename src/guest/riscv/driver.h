/* Between the parts of guest/riscv: its entries of struct guest_ops. */
#ifndef TRIODE_RISCV_DRIVER_H
#define TRIODE_RISCV_DRIVER_H

#include "guest/riscv/state.h"

int riscv_lift(struct guest_lift *lift);
int riscv_disassemble(u32 mode, u64 pc, const u8 *code, u32 avail, char *text, size_t size);

#define X_ARGS_1 u64
#define X_ARGS_2 u64, u64
#define X_ARGS_3 u64, u64, u64
#define X_ARGS_4 u64, u64, u64, u64
#define X(name, nargs, flags) u64 riscv_helper_##name(struct riscv_cpu *cpu, X_ARGS_##nargs);
#include "guest/riscv/helpers.def"
#undef X

#endif
