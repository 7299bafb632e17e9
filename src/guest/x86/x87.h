/* x87: the codes that lift_x87.c gives its helpers. SDM vol. 1 chapter 8. */
#ifndef TRIODE_X86_X87_H
#define TRIODE_X86_X87_H

#include "base/types.h"

/* The other operand: ST(0..7), or memory in one of these formats. */
enum x87_operand {
    X87_M32 = 8,
    X87_M64,
    X87_M80,
    X87_I16,
    X87_I32,
    X87_I64,
    X87_I16_TRUNCATED, /* FISTTP */
    X87_I32_TRUNCATED,
    X87_I64_TRUNCATED,
    X87_BCD,
};

/* Or-ed to the ST index of a store: an empty ST(0) does not matter. */
#define X87_UNCHECKED (1 << 8)

enum x87_arith { X87_ADD, X87_MUL, X87_SUB, X87_SUBR, X87_DIV, X87_DIVR };
enum { X87_TO_STI = 1 << 8, X87_POP = 1 << 9 }; /* or-ed to x87_arith */

/* Compare: pops 0..2, quiet (FUCOM...), result in EFLAGS (FCOMI...). */
enum { X87_POPS = 3, X87_QUIET = 4, X87_EFLAGS = 8, X87_WITH_ZERO = 16 };

enum x87_unary {
    X87_FCHS,
    X87_FABS,
    X87_FXAM,
    X87_F2XM1,
    X87_FYL2X,
    X87_FPTAN,
    X87_FPATAN,
    X87_FXTRACT,
    X87_FPREM1,
    X87_FDECSTP,
    X87_FINCSTP,
    X87_FPREM,
    X87_FYL2XP1,
    X87_FSQRT,
    X87_FSINCOS,
    X87_FRNDINT,
    X87_FSCALE,
    X87_FSIN,
    X87_FCOS,
    X87_FNOP,
};

enum x87_control {
    X87_FLDCW,
    X87_FNSTCW,
    X87_FNSTSW,
    X87_FNCLEX,
    X87_FNINIT,
    X87_FFREE,
    X87_FFREEP,
    X87_FXCH,
    X87_FWAIT,
};

#define X87_STATUS_ES 0x80u /* an unmasked exception is pending */

#endif
