/*
 * MMX: 64-bit registers that lie in the x87's. The operations are those of XMM registers with the
 * operands in the low halves. SDM vol. 1 chapter 9.
 */
#include "guest/x86/sse.h"
#include "guest/x86/x87.h"

static u32 mmx_slot(unsigned reg)
{
    return X86_SLOT(fpr) + (reg & 7) * sizeof(struct x86_fpr);
}

/* A pending x87 exception comes before anything else (SDM vol. 1 9.5.1), operands in memory too. */
static void wait_for_exceptions(struct x86_lift *l)
{
    ir_ref fsw = ir_get(l->u, IR_I16, X86_SLOT(fsw)), es = ir_const(l->u, IR_I16, X87_STATUS_ES);

    lift_raise_if(l, ir_ne(l->u, ir_and(l->u, fsw, es), ir_const(l->u, IR_I16, 0)), X86_MF);
}

/* TOP 0, all registers valid: once nothing can fault any more (SDM vol. 3 table 13-1). */
static void enter(struct x86_lift *l)
{
    ir_put(l->u, X86_SLOT(ftop), ir_const(l->u, IR_I8, 0));
    ir_put(l->u, X86_SLOT(ftag), ir_const(l->u, IR_I8, 0xff));
}

/* Operand n as i64. */
static ir_ref read(struct x86_lift *l, unsigned n)
{
    const struct x86_operand *op = &l->in->op[n];
    ir_ref v;

    if (op->kind == X86_OP_MMX)
        return ir_get(l->u, IR_I64, mmx_slot(op->reg));
    v = ir_ld(l->u, lift_int_type(op->size), lift_linear(l, op->size, false), 0);
    return op->size == 8 ? v : ir_zext(l->u, IR_I64, v);
}

/* Operand 1 of an instruction that begins with reading it. */
static ir_ref source(struct x86_lift *l)
{
    wait_for_exceptions(l);
    return read(l, 1);
}

/* A write sets the exponent and sign of the x87 register to ones (SDM vol. 1 9.2.2). */
static void write(struct x86_lift *l, unsigned n, ir_ref v)
{
    u32 slot = mmx_slot(l->in->op[n].reg);

    ir_put(l->u, slot, v);
    ir_put(l->u, slot + (u32)offsetof(struct x86_fpr, sign_exponent),
           ir_const(l->u, IR_I16, 0xffff));
}

static ir_ref low(struct x86_lift *l, ir_ref v)
{
    return ir_vec(l->u, v, ir_const(l->u, IR_I64, 0));
}

#define PACKED(name, operation)                                                                    \
    void lift_mmx_##name(struct x86_lift *l)                                                       \
    {                                                                                              \
        ir_ref b = low(l, source(l));                                                              \
                                                                                                   \
        enter(l);                                                                                  \
        write(l, 0, ir_vlo(l->u, sse_op2(l, IR_##operation, low(l, read(l, 0)), b, 0)));           \
    }
#include "guest/x86/packed.def"
#undef PACKED

/* The high lanes of 64 bits are what comes out above when the low halves are interleaved. */
#define UNPACK_HIGH(name, operation)                                                               \
    void lift_mmx_##name(struct x86_lift *l)                                                       \
    {                                                                                              \
        ir_ref b = low(l, source(l));                                                              \
                                                                                                   \
        enter(l);                                                                                  \
        write(l, 0, ir_vhi(l->u, sse_op2(l, IR_##operation, low(l, read(l, 0)), b, 0)));           \
    }
UNPACK_HIGH(punpckhbw, vunpklo8)
UNPACK_HIGH(punpckhwd, vunpklo16)
UNPACK_HIGH(punpckhdq, vunpklo32)

/* Both operands side by side in one vector. */
#define JOINED(name, operation)                                                                    \
    void lift_mmx_##name(struct x86_lift *l)                                                       \
    {                                                                                              \
        ir_ref b = source(l), v;                                                                   \
                                                                                                   \
        enter(l);                                                                                  \
        v = ir_vec(l->u, read(l, 0), b);                                                           \
        write(l, 0, ir_vlo(l->u, sse_op2(l, IR_##operation, v, v, 0)));                            \
    }
JOINED(packsswb, vpackss16)
JOINED(packssdw, vpackss32)
JOINED(packuswb, vpackus16)
JOINED(phaddw, vhadd16)
JOINED(phaddd, vhadd32)
JOINED(phaddsw, vhadds16)
JOINED(phsubw, vhsub16)
JOINED(phsubd, vhsub32)
JOINED(phsubsw, vhsubs16)

#define UNARY(name, operation)                                                                     \
    void lift_mmx_##name(struct x86_lift *l)                                                       \
    {                                                                                              \
        ir_ref v = low(l, source(l));                                                              \
                                                                                                   \
        enter(l);                                                                                  \
        write(l, 0, ir_vlo(l->u, sse_op1(l, IR_##operation, v, 0)));                               \
    }
UNARY(pabsb, vabs8)
UNARY(pabsw, vabs16)
UNARY(pabsd, vabs32)

static void shift(struct x86_lift *l, enum ir_op op)
{
    const struct x86_operand *by = &l->in->op[1];
    ir_ref count;

    wait_for_exceptions(l);
    count = by->kind == X86_OP_IMM ? ir_const(l->u, IR_I64, by->value & 0xff) : read(l, 1);
    enter(l);
    write(l, 0, ir_vlo(l->u, sse_op2(l, op, low(l, read(l, 0)), count, 0)));
}

#define SHIFT(name, operation)                                                                     \
    void lift_mmx_##name(struct x86_lift *l)                                                       \
    {                                                                                              \
        shift(l, IR_##operation);                                                                  \
    }
SHIFT(psllw, vshl16)
SHIFT(pslld, vshl32)
SHIFT(psllq, vshl64)
SHIFT(psrlw, vshr16)
SHIFT(psrld, vshr32)
SHIFT(psrlq, vshr64)
SHIFT(psraw, vsar16)
SHIFT(psrad, vsar32)

/* Three bits of each index byte choose here, not four. */
void lift_mmx_pshufb(struct x86_lift *l)
{
    ir_ref b = ir_and(l->u, source(l), ir_const(l->u, IR_I64, 0x8787878787878787ull));

    enter(l);
    write(l, 0, ir_vlo(l->u, sse_op2(l, IR_vshuf8, low(l, read(l, 0)), low(l, b), 0)));
}

void lift_mmx_movd(struct x86_lift *l)
{
    if (l->in->op[0].kind == X86_OP_MMX) {
        ir_ref v;

        wait_for_exceptions(l);
        v = lift_read(l, 1);
        enter(l);
        write(l, 0, l->in->op[1].size == 8 ? v : ir_zext(l->u, IR_I64, v));
    } else {
        ir_ref v = source(l);

        if (l->in->op[0].size == 4)
            v = ir_trunc(l->u, IR_I32, v);
        lift_write(l, 0, v);
        enter(l);
    }
}

void lift_mmx_movq(struct x86_lift *l)
{
    ir_ref v = source(l);

    if (l->in->op[0].kind == X86_OP_MMX) {
        enter(l);
        write(l, 0, v);
    } else {
        ir_st(l->u, lift_linear(l, 8, true), 0, v);
        enter(l);
    }
}

void lift_mmx_movntq(struct x86_lift *l)
{
    lift_mmx_movq(l);
}

void lift_mmx_pshufw(struct x86_lift *l)
{
    ir_ref v = low(l, source(l));

    enter(l);
    write(l, 0, ir_vlo(l->u, sse_op1(l, IR_vshuflo16, v, sse_imm(l))));
}

/* Bytes imm.. of the 16 that operand 0 above operand 1 make, zeros beyond. */
void lift_mmx_palignr(struct x86_lift *l)
{
    ir_ref b = source(l);
    u64 by = sse_imm(l) > 16 ? 16 : sse_imm(l);

    enter(l);
    write(l, 0, ir_vlo(l->u, sse_op1(l, IR_vbshr, ir_vec(l->u, b, read(l, 0)), by)));
}

void lift_mmx_pinsrw(struct x86_lift *l)
{
    ir_ref v;

    wait_for_exceptions(l);
    v = ir_zext(l->u, IR_I32, lift_read(l, 1));
    enter(l);
    write(l, 0, ir_vlo(l->u, sse_op2(l, IR_vset16, low(l, read(l, 0)), v, sse_imm(l) & 3)));
}

void lift_mmx_pextrw(struct x86_lift *l)
{
    ir_ref v = low(l, source(l));

    enter(l);
    lift_write(l, 0, ir_emit(l->u, IR_vget16, IR_I32, v, 0, 0, 0, sse_imm(l) & 3));
}

void lift_mmx_pmovmskb(struct x86_lift *l)
{
    ir_ref v = low(l, source(l));

    enter(l);
    lift_write(l, 0, ir_emit(l->u, IR_vmovmask8, IR_I32, v, 0, 0, 0, 0));
}

void lift_mmx_maskmovq(struct x86_lift *l)
{
    ir_ref offset = lift_reg(l, X86_RDI, l->in->address_size, false), address;

    if (l->in->address_size != 8)
        offset = ir_zext(l->u, IR_I64, offset);
    wait_for_exceptions(l);
    enter(l); /* even if the stores fault */
    address = lift_segment(l, l->in->segment, offset, 8, true);
    ir_put(l->u, X86_SLOT(common.scratch), low(l, read(l, 1)));
    LIFT_CALL(l, IR_VOID, mmx_maskmov, address, ir_const(l->u, IR_I64, l->in->op[0].reg & 7),
              IR_NONE, IR_NONE);
}

void lift_emms(struct x86_lift *l)
{
    wait_for_exceptions(l);
    ir_put(l->u, X86_SLOT(ftop), ir_const(l->u, IR_I8, 0));
    ir_put(l->u, X86_SLOT(ftag), ir_const(l->u, IR_I8, 0));
}

void lift_movq2dq(struct x86_lift *l)
{
    ir_ref v = low(l, source(l));

    enter(l);
    sse_write(l, 0, v);
}

void lift_movdq2q(struct x86_lift *l)
{
    ir_ref v = ir_vlo(l->u, sse_read(l, 1));

    wait_for_exceptions(l);
    enter(l);
    write(l, 0, v);
}

/* To two floats. CVTPI2PD from memory does not touch the x87 state (SDM vol. 2). */
static void from_ints(struct x86_lift *l, enum ir_op op)
{
    bool mmx = op == IR_vcvts32f32 || l->in->op[1].kind == X86_OP_MMX;
    ir_ref v;

    if (mmx)
        wait_for_exceptions(l);
    v = low(l, read(l, 1));
    if (mmx)
        enter(l); /* even if it ends in #XM */
    sse_fp_begin(l);
    v = sse_op1(l, op, v, 0);
    sse_fp_check(l);
    if (op == IR_vcvts32f32)
        sse_write(l, 0, sse_op2(l, IR_vblend64, sse_register(l, 0), v, 1));
    else
        sse_write(l, 0, v);
}

void lift_cvtpi2ps(struct x86_lift *l)
{
    from_ints(l, IR_vcvts32f32);
}

void lift_cvtpi2pd(struct x86_lift *l)
{
    from_ints(l, IR_vcvts32f64);
}

static void to_ints(struct x86_lift *l, enum ir_op op)
{
    ir_ref v;

    wait_for_exceptions(l);
    v = sse_read(l, 1);
    if (op == IR_vcvtf32s32 || op == IR_vcvtzf32s32) /* two lanes count, not what lies above */
        v = low(l, ir_vlo(l->u, v));
    enter(l);
    sse_fp_begin(l);
    v = sse_op1(l, op, v, 0);
    sse_fp_check(l);
    write(l, 0, ir_vlo(l->u, v));
}

void lift_cvtps2pi(struct x86_lift *l)
{
    to_ints(l, IR_vcvtf32s32);
}

void lift_cvttps2pi(struct x86_lift *l)
{
    to_ints(l, IR_vcvtzf32s32);
}

void lift_cvtpd2pi(struct x86_lift *l)
{
    to_ints(l, IR_vcvtf64s32);
}

void lift_cvttpd2pi(struct x86_lift *l)
{
    to_ints(l, IR_vcvtzf64s32);
}
