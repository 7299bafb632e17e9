/*
 * Floating-point instructions of both formats: lift_fd.c has a line for each that calls one of
 * these with its format.
 */
#ifndef TRIODE_RISCV_LIFT_FP_H
#define TRIODE_RISCV_LIFT_FP_H

#include "guest/riscv/lift.h"
#include "guest/riscv/softfp.h"

void fp_load(struct riscv_lift *l, enum softfp_format f);
void fp_store(struct riscv_lift *l, enum softfp_format f);

/* op: IR_fadd, IR_fsub, IR_fmul, IR_fdiv. */
void fp_arith(struct riscv_lift *l, enum softfp_format f, enum ir_op op);
void fp_sqrt(struct riscv_lift *l, enum softfp_format f);
/* rs1 * rs2 + rs3 with signs turned as said. */
void fp_fma(struct riscv_lift *l, enum softfp_format f, bool negate_product, bool negate_addend);

enum fp_sign { FP_SIGN_COPY, FP_SIGN_NEGATE, FP_SIGN_XOR };
void fp_sign(struct riscv_lift *l, enum softfp_format f, enum fp_sign how);
void fp_minmax(struct riscv_lift *l, enum softfp_format f, bool max);
/* op: IR_feq, IR_flt, IR_fle. */
void fp_compare(struct riscv_lift *l, enum softfp_format f, enum ir_op op);
void fp_class(struct riscv_lift *l, enum softfp_format f);

void fp_to_int(struct riscv_lift *l, enum softfp_format f, enum softfp_int how);
void fp_from_int(struct riscv_lift *l, enum softfp_format f, enum softfp_int how);
void fp_convert(struct riscv_lift *l, enum softfp_format to, enum softfp_format from);
/* The bits of rs1 as they are. */
void fp_move_to_x(struct riscv_lift *l, enum softfp_format f);
void fp_move_from_x(struct riscv_lift *l, enum softfp_format f);

#endif
