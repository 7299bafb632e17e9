/* SSE: operands, moves and the state instructions. SDM vol. 1 chapters 10 to 12. */
#include "guest/x86/sse.h"

ir_ref sse_address(struct x86_lift *l, unsigned bytes, bool write, enum sse_alignment alignment)
{
    ir_ref address = lift_linear(l, bytes, write);

    if (alignment == ALIGNED)
        lift_raise_if(l,
                      ir_ne(l->u, ir_and(l->u, address, ir_const(l->u, IR_I64, 15)),
                            ir_const(l->u, IR_I64, 0)),
                      X86_GP);
    return address;
}

static bool is_memory(const struct x86_lift *l, unsigned n)
{
    return l->in->op[n].kind == X86_OP_MEM;
}

static ir_ref load(struct x86_lift *l, enum sse_alignment alignment)
{
    return ir_ld(l->u, IR_V128, sse_address(l, 16, false, alignment), 0);
}

ir_ref sse_read(struct x86_lift *l, unsigned n)
{
    const struct x86_operand *op = &l->in->op[n];
    ir_ref low;

    if (op->kind != X86_OP_MEM)
        return sse_register(l, n);
    if (op->size == 16)
        return load(l, ALIGNED);
    if (op->size >= 4) {
        enum ir_type type = op->size == 4 ? IR_F32 : IR_F64;

        return ir_vzext(l->u, ir_ld(l->u, type, sse_address(l, op->size, false, UNALIGNED), 0));
    }
    low = ir_ld(l->u, lift_int_type(op->size), sse_address(l, op->size, false, UNALIGNED), 0);
    return ir_vec(l->u, ir_zext(l->u, IR_I64, low), ir_const(l->u, IR_I64, 0));
}

ir_ref sse_register(struct x86_lift *l, unsigned n)
{
    return ir_get(l->u, IR_V128, xmm_slot(l->in->op[n].reg));
}

void sse_write(struct x86_lift *l, unsigned n, ir_ref v)
{
    ir_put(l->u, xmm_slot(l->in->op[n].reg), v);
}

ir_ref sse_read_scalar(struct x86_lift *l, unsigned n, enum ir_type type)
{
    if (is_memory(l, n))
        return ir_ld(l->u, type, sse_address(l, ir_type_bytes(type), false, UNALIGNED), 0);
    return ir_vlow(l->u, type, sse_register(l, n));
}

void sse_fp_begin(struct x86_lift *l)
{
    if (l->mode & X86_MODE_FP_UNMASKED)
        LIFT_CALL(l, IR_VOID, fp_begin, IR_NONE, IR_NONE, IR_NONE, IR_NONE);
}

void sse_fp_check(struct x86_lift *l)
{
    if (l->mode & X86_MODE_FP_UNMASKED)
        LIFT_CALL(l, IR_VOID, fp_check, ir_const(l->u, IR_I64, 0), IR_NONE, IR_NONE, IR_NONE);
}

void sse_fp_check_result(struct x86_lift *l, ir_ref result, enum ir_type lanes)
{
    u32 slot = X86_SLOT(common.scratch);

    if (!(l->mode & X86_MODE_FP_UNMASKED))
        return;
    ir_put(l->u, slot, result);
    LIFT_CALL(l, IR_VOID, fp_check, ir_const(l->u, IR_I64, ir_type_bytes(lanes)), IR_NONE, IR_NONE,
              IR_NONE);
}

/* Whole registers. */
static void move(struct x86_lift *l, enum sse_alignment alignment)
{
    ir_ref v;

    if (is_memory(l, 1))
        v = load(l, alignment);
    else
        v = sse_register(l, 1);
    if (is_memory(l, 0))
        ir_st(l->u, sse_address(l, 16, true, alignment), 0, v);
    else
        sse_write(l, 0, v);
}

#define MOVE(name, alignment)                                                                      \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        move(l, alignment);                                                                        \
    }
MOVE(movaps, ALIGNED)
MOVE(movapd, ALIGNED)
MOVE(movdqa, ALIGNED)
MOVE(movntps, ALIGNED)
MOVE(movntpd, ALIGNED)
MOVE(movntdq, ALIGNED)
MOVE(movntdqa, ALIGNED)
MOVE(movups, UNALIGNED)
MOVE(movupd, UNALIGNED)
MOVE(movdqu, UNALIGNED)
MOVE(lddqu, UNALIGNED)

/* MOVSS, MOVSD: from memory the rest of the register becomes 0, from a register it stays. */
static void move_scalar(struct x86_lift *l, enum ir_type type)
{
    ir_ref v = sse_read_scalar(l, 1, type);

    if (is_memory(l, 0))
        ir_st(l->u, sse_address(l, ir_type_bytes(type), true, UNALIGNED), 0, v);
    else if (is_memory(l, 1))
        sse_write(l, 0, ir_vzext(l->u, v));
    else
        sse_write(l, 0, ir_vmerge(l->u, sse_register(l, 0), v));
}

void lift_movss(struct x86_lift *l)
{
    move_scalar(l, IR_F32);
}

void lift_movsd(struct x86_lift *l)
{
    move_scalar(l, IR_F64);
}

/* MOVLPS, MOVHPS and their like: 64 bits between memory and one half. */
static void move_low(struct x86_lift *l)
{
    ir_ref v = sse_read_scalar(l, 1, IR_F64);

    if (is_memory(l, 0))
        ir_st(l->u, sse_address(l, 8, true, UNALIGNED), 0, v);
    else
        sse_write(l, 0, ir_vmerge(l->u, sse_register(l, 0), v));
}

static void move_high(struct x86_lift *l)
{
    if (is_memory(l, 0))
        ir_st(l->u, sse_address(l, 8, true, UNALIGNED), 0, ir_vhi(l->u, sse_register(l, 1)));
    else
        sse_write(l, 0, sse_op2(l, IR_vunpklo64, sse_register(l, 0), sse_read(l, 1), 0));
}

void lift_movlps(struct x86_lift *l)
{
    move_low(l);
}

void lift_movlpd(struct x86_lift *l)
{
    move_low(l);
}

void lift_movhps(struct x86_lift *l)
{
    move_high(l);
}

void lift_movhpd(struct x86_lift *l)
{
    move_high(l);
}

void lift_movhlps(struct x86_lift *l)
{
    sse_write(l, 0, sse_op2(l, IR_vunpkhi64, sse_register(l, 1), sse_register(l, 0), 0));
}

void lift_movlhps(struct x86_lift *l)
{
    sse_write(l, 0, sse_op2(l, IR_vunpklo64, sse_register(l, 0), sse_register(l, 1), 0));
}

void lift_movddup(struct x86_lift *l)
{
    ir_ref v = sse_read(l, 1);

    sse_write(l, 0, sse_op2(l, IR_vunpklo64, v, v, 0));
}

void lift_movsldup(struct x86_lift *l)
{
    sse_write(l, 0, sse_op1(l, IR_vshuf32, sse_read(l, 1), 0xa0));
}

void lift_movshdup(struct x86_lift *l)
{
    sse_write(l, 0, sse_op1(l, IR_vshuf32, sse_read(l, 1), 0xf5));
}

void lift_movd(struct x86_lift *l)
{
    const struct x86_operand *to = &l->in->op[0], *from = &l->in->op[1];
    ir_ref v;

    if (to->kind != X86_OP_XMM) {
        v = ir_vlo(l->u, sse_register(l, 1));
        lift_write(l, 0, to->size == 4 ? ir_trunc(l->u, IR_I32, v) : v);
        return;
    }
    if (from->kind == X86_OP_MEM) {
        sse_write(l, 0, sse_read(l, 1));
        return;
    }
    v = lift_read(l, 1);
    if (from->size == 4)
        v = ir_zext(l->u, IR_I64, v);
    sse_write(l, 0, ir_vec(l->u, v, ir_const(l->u, IR_I64, 0)));
}

void lift_movq(struct x86_lift *l)
{
    ir_ref v = sse_read_scalar(l, 1, IR_F64);

    if (is_memory(l, 0))
        ir_st(l->u, sse_address(l, 8, true, UNALIGNED), 0, v);
    else
        sse_write(l, 0, ir_vzext(l->u, v));
}

void lift_movnti(struct x86_lift *l)
{
    lift_write(l, 0, lift_read(l, 1));
}

#define MASK(name, op)                                                                             \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        lift_write(l, 0, ir_emit(l->u, IR_##op, IR_I32, sse_read(l, 1), 0, 0, 0, 0));              \
    }
MASK(movmskps, vmovmask32)
MASK(movmskpd, vmovmask64)
MASK(pmovmskb, vmovmask8)

/* Stores to DS:[rDI] the bytes whose mask byte has its top bit set. */
void lift_maskmovdqu(struct x86_lift *l)
{
    ir_ref offset = lift_reg(l, X86_RDI, l->in->address_size, false);

    if (l->in->address_size != 8)
        offset = ir_zext(l->u, IR_I64, offset);
    LIFT_CALL(l, IR_VOID, maskmov, lift_segment(l, l->in->segment, offset, 16, true),
              ir_const(l->u, IR_I64, l->in->op[0].reg), ir_const(l->u, IR_I64, l->in->op[1].reg),
              IR_NONE);
}

void lift_ldmxcsr(struct x86_lift *l)
{
    ir_ref v = ir_ld(l->u, IR_I32, sse_address(l, 4, false, UNALIGNED), 0);

    LIFT_CALL(l, IR_VOID, ldmxcsr, ir_zext(l->u, IR_I64, v), IR_NONE, IR_NONE, IR_NONE);
    lift_end_state(l); /* the mode word says whether exceptions are unmasked */
}

void lift_stmxcsr(struct x86_lift *l)
{
    ir_ref address = sse_address(l, 4, true, UNALIGNED);
    ir_ref v = LIFT_CALL(l, IR_I64, stmxcsr, IR_NONE, IR_NONE, IR_NONE, IR_NONE);

    ir_st(l->u, address, 0, ir_trunc(l->u, IR_I32, v));
}
