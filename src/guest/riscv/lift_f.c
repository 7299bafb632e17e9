/* F: single precision (RISC-V volume I, the F chapter). */
#include "guest/riscv/lift_fp.h"

#define FP(name, call)                                                                             \
    LIFT(name)                                                                                     \
    {                                                                                              \
        call;                                                                                      \
    }

FP(flw, fp_load(l, SOFTFP_S))
FP(fsw, fp_store(l, SOFTFP_S))
FP(fmadd_s, fp_fma(l, SOFTFP_S, false, false))
FP(fmsub_s, fp_fma(l, SOFTFP_S, false, true))
FP(fnmsub_s, fp_fma(l, SOFTFP_S, true, false))
FP(fnmadd_s, fp_fma(l, SOFTFP_S, true, true))
FP(fadd_s, fp_arith(l, SOFTFP_S, IR_fadd))
FP(fsub_s, fp_arith(l, SOFTFP_S, IR_fsub))
FP(fmul_s, fp_arith(l, SOFTFP_S, IR_fmul))
FP(fdiv_s, fp_arith(l, SOFTFP_S, IR_fdiv))
FP(fsqrt_s, fp_sqrt(l, SOFTFP_S))
FP(fsgnj_s, fp_sign(l, SOFTFP_S, FP_SIGN_COPY))
FP(fsgnjn_s, fp_sign(l, SOFTFP_S, FP_SIGN_NEGATE))
FP(fsgnjx_s, fp_sign(l, SOFTFP_S, FP_SIGN_XOR))
FP(fmin_s, fp_minmax(l, SOFTFP_S, false))
FP(fmax_s, fp_minmax(l, SOFTFP_S, true))
FP(fcvt_w_s, fp_to_int(l, SOFTFP_S, SOFTFP_W))
FP(fcvt_wu_s, fp_to_int(l, SOFTFP_S, SOFTFP_WU))
FP(fcvt_l_s, fp_to_int(l, SOFTFP_S, SOFTFP_L))
FP(fcvt_lu_s, fp_to_int(l, SOFTFP_S, SOFTFP_LU))
FP(fmv_x_w, fp_move_to_x(l, SOFTFP_S))
FP(feq_s, fp_compare(l, SOFTFP_S, IR_feq))
FP(flt_s, fp_compare(l, SOFTFP_S, IR_flt))
FP(fle_s, fp_compare(l, SOFTFP_S, IR_fle))
FP(fclass_s, fp_class(l, SOFTFP_S))
FP(fcvt_s_w, fp_from_int(l, SOFTFP_S, SOFTFP_W))
FP(fcvt_s_wu, fp_from_int(l, SOFTFP_S, SOFTFP_WU))
FP(fcvt_s_l, fp_from_int(l, SOFTFP_S, SOFTFP_L))
FP(fcvt_s_lu, fp_from_int(l, SOFTFP_S, SOFTFP_LU))
FP(fmv_w_x, fp_move_from_x(l, SOFTFP_S))
