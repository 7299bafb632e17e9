/* F and D: single and double precision (RISC-V volume I, the chapters of both). */
#include "guest/riscv/lift_fp.h"

#define FP(name, call)                                                                             \
    LIFT(name)                                                                                     \
    {                                                                                              \
        call;                                                                                      \
    }

/* An instruction of both formats, which its name ends with, and by which it calls. */
#define BOTH(name, function, ...)                                                                  \
    FP(name##_s, function(l, SOFTFP_S, ##__VA_ARGS__))                                             \
    FP(name##_d, function(l, SOFTFP_D, ##__VA_ARGS__))

/* Conversions of both formats with an integer format. */
#define INTEGER(letters, how)                                                                      \
    FP(fcvt_##letters##_s, fp_to_int(l, SOFTFP_S, how))                                            \
    FP(fcvt_##letters##_d, fp_to_int(l, SOFTFP_D, how))                                            \
    FP(fcvt_s_##letters, fp_from_int(l, SOFTFP_S, how))                                            \
    FP(fcvt_d_##letters, fp_from_int(l, SOFTFP_D, how))

FP(flw, fp_load(l, SOFTFP_S))
FP(fld, fp_load(l, SOFTFP_D))
FP(fsw, fp_store(l, SOFTFP_S))
FP(fsd, fp_store(l, SOFTFP_D))
BOTH(fmadd, fp_fma, false, false)
BOTH(fmsub, fp_fma, false, true)
BOTH(fnmsub, fp_fma, true, false)
BOTH(fnmadd, fp_fma, true, true)
BOTH(fadd, fp_arith, IR_fadd)
BOTH(fsub, fp_arith, IR_fsub)
BOTH(fmul, fp_arith, IR_fmul)
BOTH(fdiv, fp_arith, IR_fdiv)
BOTH(fsqrt, fp_sqrt)
BOTH(fsgnj, fp_sign, FP_SIGN_COPY)
BOTH(fsgnjn, fp_sign, FP_SIGN_NEGATE)
BOTH(fsgnjx, fp_sign, FP_SIGN_XOR)
BOTH(fmin, fp_minmax, false)
BOTH(fmax, fp_minmax, true)
BOTH(feq, fp_compare, IR_feq)
BOTH(flt, fp_compare, IR_flt)
BOTH(fle, fp_compare, IR_fle)
BOTH(fclass, fp_class)
INTEGER(w, SOFTFP_W)
INTEGER(wu, SOFTFP_WU)
INTEGER(l, SOFTFP_L)
INTEGER(lu, SOFTFP_LU)
FP(fcvt_s_d, fp_convert(l, SOFTFP_S, SOFTFP_D))
FP(fcvt_d_s, fp_convert(l, SOFTFP_D, SOFTFP_S))
FP(fmv_x_w, fp_move_to_x(l, SOFTFP_S))
FP(fmv_x_d, fp_move_to_x(l, SOFTFP_D))
FP(fmv_w_x, fp_move_from_x(l, SOFTFP_S))
FP(fmv_d_x, fp_move_from_x(l, SOFTFP_D))
