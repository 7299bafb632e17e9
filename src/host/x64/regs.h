/*
 * Host registers and what they are for. Private to src/host/x64.
 *
 *   rsp           struct host_frame
 *   rbp           STATE_BIAS into guest state
 *   r12           the base op: guest virtual address of the page the unit begins in
 *   rax rcx rdx   scratch inside one instruction's lowering
 *   xmm14 xmm15   the same for vectors
 *   all others    values
 */
#ifndef TRIODE_HOST_X64_REGS_H
#define TRIODE_HOST_X64_REGS_H

#include "base/types.h"

enum x64_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    X64_RIP = 0x20, /* base of a memory operand only */
    X64_NO_REG = 0xff,
};

enum x64_xmm { XMM14 = 14, XMM15 = 15 };

#define STATE_REG RBP
/* What units use of the state lies around here: displacements of one byte reach it. */
#define STATE_BIAS 216
#define BASE_REG R12

#define GPR_BIT(r) (1u << (r))
#define GPR_CALLEE_SAVED (GPR_BIT(RBX) | GPR_BIT(R13) | GPR_BIT(R14) | GPR_BIT(R15))
#define GPR_CALLER_SAVED                                                                           \
    (GPR_BIT(RSI) | GPR_BIT(RDI) | GPR_BIT(R8) | GPR_BIT(R9) | GPR_BIT(R10) | GPR_BIT(R11))
#define GPR_VALUES (GPR_CALLEE_SAVED | GPR_CALLER_SAVED)
#define XMM_VALUES 0x3fffu

/* Condition codes as in jcc, setcc and cmovcc; the low bit inverts. */
enum x64_cc {
    CC_O,
    CC_NO,
    CC_B,
    CC_AE,
    CC_E,
    CC_NE,
    CC_BE,
    CC_A,
    CC_S,
    CC_NS,
    CC_P,
    CC_NP,
    CC_L,
    CC_GE,
    CC_LE,
    CC_G,
};

#endif
