/*
 * The lazy arithmetic flags: CF PF AF ZF SF OF are not kept but computed from the last operation
 * that set them: cpu->cc_op says which, cc_dst, cc_src and cc_src2 hold its values (zero-extended;
 * only the low bytes of the operation's size count). What each kind keeps:
 *
 *   kind    cc_dst        cc_src                         cc_src2
 *   EFLAGS  the flags
 *   ADD     result        second operand
 *   ADC     result        second operand                 carry in
 *   SUB     first operand second operand
 *   SBB     first operand second operand                 carry in
 *   LOGIC   result
 *   INC     result        CF as it was (0 or 1)
 *   DEC     result        CF as it was
 *   SHL     result        shifted one position less
 *   SHR     result        shifted one position less      (also SAR)
 *   MUL     low half      not 0 if the product does not fit
 *
 * Flags that the SDM leaves undefined come out like this: AF 0 for LOGIC, SHL, SHR and MUL; OF of
 * multi-bit shifts as the difference of the last two sign bits; SF ZF PF of MUL from the low half;
 * rotates, BT and the like keep what they do not define; BSF, BSR as LOGIC of the source; DIV keeps
 * all; DAA and DAS OF 0; AAA and AAS SF ZF PF of AL, OF 0; AAM and AAD CF AF OF 0.
 */
#ifndef TRIODE_X86_CC_H
#define TRIODE_X86_CC_H

#include "guest/x86/state.h"

enum x86_cc_kind {
    X86_CC_EFLAGS,
    X86_CC_ADD,
    X86_CC_ADC,
    X86_CC_SUB,
    X86_CC_SBB,
    X86_CC_LOGIC,
    X86_CC_INC,
    X86_CC_DEC,
    X86_CC_SHL,
    X86_CC_SHR,
    X86_CC_MUL,
};

/* cc_op: kind and operand size (bytes 1, 2, 4, 8); EFLAGS is 0. */
#define X86_CC(kind, bytes) ((u64)X86_CC_##kind << 2 | (u64)__builtin_ctz(bytes))

/* The six flags in their places. */
u64 x86_cc_eflags(u64 dst, u64 src, u64 src2, u64 op);
bool x86_cc_cf(u64 dst, u64 src, u64 src2, u64 op);
/* Jcc condition @condition (0..15). */
bool x86_cc_condition(unsigned condition, u64 dst, u64 src, u64 src2, u64 op);

static inline u64 x86_arith_flags(const struct x86_cpu *cpu)
{
    return x86_cc_eflags(cpu->cc_dst, cpu->cc_src, cpu->cc_src2, cpu->cc_op);
}

static inline void x86_set_arith_flags(struct x86_cpu *cpu, u64 flags)
{
    cpu->cc_dst = flags & X86_FLAGS_ARITH;
    cpu->cc_op = X86_CC(EFLAGS, 1);
}

#endif
