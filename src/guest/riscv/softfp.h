/*
 * IEEE 754 arithmetic on integers, with RISC-V's canonical NaN and flags: every rounding mode, also
 * those the host lacks or is not in. Values are bit patterns; singles in the low 32 bits, the upper
 * ones 0. @rm is an enum riscv_rounding other than dynamic; flags are added to *flags.
 */
#ifndef TRIODE_RISCV_SOFTFP_H
#define TRIODE_RISCV_SOFTFP_H

#include "base/types.h"

enum softfp_format { SOFTFP_S, SOFTFP_D };
enum softfp_int { SOFTFP_W, SOFTFP_WU, SOFTFP_L, SOFTFP_LU };

u64 softfp_add(enum softfp_format f, u64 a, u64 b, unsigned rm, u32 *flags);
u64 softfp_mul(enum softfp_format f, u64 a, u64 b, unsigned rm, u32 *flags);
u64 softfp_div(enum softfp_format f, u64 a, u64 b, unsigned rm, u32 *flags);
u64 softfp_sqrt(enum softfp_format f, u64 a, unsigned rm, u32 *flags);
/* a * b + c, rounded once. */
u64 softfp_fma(enum softfp_format f, u64 a, u64 b, u64 c, unsigned rm, u32 *flags);
u64 softfp_convert(enum softfp_format to, enum softfp_format from, u64 a, unsigned rm, u32 *flags);
/* Results of 32 bits are sign-extended, unsigned ones too (volume I, 13.7). */
u64 softfp_to_int(enum softfp_format f, u64 a, enum softfp_int how, unsigned rm, u32 *flags);
u64 softfp_from_int(enum softfp_format f, u64 value, enum softfp_int how, unsigned rm, u32 *flags);
/* The bit of FCLASS, as a number of one bit set (13.9). */
u64 softfp_class(enum softfp_format f, u64 a);

#endif
