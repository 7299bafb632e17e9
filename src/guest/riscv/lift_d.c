/* D: double precision (RISC-V volume I, the D chapter). */
#include "guest/riscv/lift_fp.h"

#define FP(name, call)                                                                             \
    LIFT(name)                                                                                     \
    {                                                                                              \
        call;                                                                                      \
    }

FP(fld, fp_load(l, SOFTFP_D))
FP(fsd, fp_store(l, SOFTFP_D))
FP(fmadd_d, fp_fma(l, SOFTFP_D, false, false))
FP(fmsub_d, fp_fma(l, SOFTFP_D, false, true))
FP(fnmsub_d, fp_fma(l, SOFTFP_D, true, false))
FP(fnmadd_d, fp_fma(l, SOFTFP_D, true, true))
FP(fadd_d, fp_arith(l, SOFTFP_D, IR_fadd))
FP(fsub_d, fp_arith(l, SOFTFP_D, IR_fsub))
FP(fmul_d, fp_arith(l, SOFTFP_D, IR_fmul))
FP(fdiv_d, fp_arith(l, SOFTFP_D, IR_fdiv))
FP(fsqrt_d, fp_sqrt(l, SOFTFP_D))
FP(fsgnj_d, fp_sign(l, SOFTFP_D, FP_SIGN_COPY))
FP(fsgnjn_d, fp_sign(l, SOFTFP_D, FP_SIGN_NEGATE))
FP(fsgnjx_d, fp_sign(l, SOFTFP_D, FP_SIGN_XOR))
FP(fmin_d, fp_minmax(l, SOFTFP_D, false))
FP(fmax_d, fp_minmax(l, SOFTFP_D, true))
FP(fcvt_w_d, fp_to_int(l, SOFTFP_D, SOFTFP_W))
FP(fcvt_wu_d, fp_to_int(l, SOFTFP_D, SOFTFP_WU))
FP(fcvt_l_d, fp_to_int(l, SOFTFP_D, SOFTFP_L))
FP(fcvt_lu_d, fp_to_int(l, SOFTFP_D, SOFTFP_LU))
FP(fmv_x_d, fp_move_to_x(l, SOFTFP_D))
FP(feq_d, fp_compare(l, SOFTFP_D, IR_feq))
FP(flt_d, fp_compare(l, SOFTFP_D, IR_flt))
FP(fle_d, fp_compare(l, SOFTFP_D, IR_fle))
FP(fclass_d, fp_class(l, SOFTFP_D))
FP(fcvt_d_w, fp_from_int(l, SOFTFP_D, SOFTFP_W))
FP(fcvt_d_wu, fp_from_int(l, SOFTFP_D, SOFTFP_WU))
FP(fcvt_d_l, fp_from_int(l, SOFTFP_D, SOFTFP_L))
FP(fcvt_d_lu, fp_from_int(l, SOFTFP_D, SOFTFP_LU))
FP(fmv_d_x, fp_move_from_x(l, SOFTFP_D))
FP(fcvt_s_d, fp_convert(l, SOFTFP_S, SOFTFP_D))
FP(fcvt_d_s, fp_convert(l, SOFTFP_D, SOFTFP_S))
