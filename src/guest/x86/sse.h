/* What the lift functions of SSE share. */
#ifndef TRIODE_X86_SSE_H
#define TRIODE_X86_SSE_H

#include "guest/x86/lift.h"

/* State slot of XMM register @reg. It is read and written as a whole only, as v128: a value of one
 * type, which stays in a host register whatever instructions use it. */
static inline u32 xmm_slot(unsigned reg)
{
    return X86_SLOT(xmm) + reg * 16;
}

/* XMM0 where an instruction has it as a third operand without saying so. */
#define XMM0_SLOT xmm_slot(0)

enum sse_alignment { UNALIGNED, ALIGNED };

/* Linear address of memory operand n of @bytes; #GP unless 16-byte aligned when ALIGNED. */
ir_ref sse_address(struct x86_lift *l, unsigned bytes, bool write, enum sse_alignment alignment);

/* Operand n as a vector. Memory of 16 bytes must be aligned; smaller memory operands are
 * zero-extended. */
ir_ref sse_read(struct x86_lift *l, unsigned n);
void sse_write(struct x86_lift *l, unsigned n, ir_ref v);

/* XMM register operand n. */
ir_ref sse_register(struct x86_lift *l, unsigned n);

/* The low lane of operand n, of an XMM register or memory: IR_F32 or IR_F64. */
ir_ref sse_read_scalar(struct x86_lift *l, unsigned n, enum ir_type type);

/* While an MXCSR exception is unmasked (X86_MODE_FP_UNMASKED): before the first floating-point
 * operation, and after the last one, before results are written. */
void sse_fp_begin(struct x86_lift *l);
void sse_fp_check(struct x86_lift *l);
/* The same for what can underflow: @result, whose lanes are of @type, is looked at too. */
void sse_fp_check_result(struct x86_lift *l, ir_ref result, enum ir_type lanes);

static inline ir_ref sse_op1(struct x86_lift *l, enum ir_op op, ir_ref a, u64 imm)
{
    return ir_emit(l->u, op, IR_V128, a, IR_NONE, IR_NONE, IR_NONE, imm);
}

static inline ir_ref sse_op2(struct x86_lift *l, enum ir_op op, ir_ref a, ir_ref b, u64 imm)
{
    return ir_emit(l->u, op, IR_V128, a, b, IR_NONE, IR_NONE, imm);
}

static inline u64 sse_imm(const struct x86_lift *l)
{
    return l->in->op[2].value & 0xff;
}

#endif
