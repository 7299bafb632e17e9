/* SSE: integers in XMM registers, logic and rearrangement. One IR operation each. */
#include "guest/x86/sse.h"

static ir_ref destination(struct x86_lift *l)
{
    return sse_register(l, 0);
}

#define BINARY(name, operation)                                                                    \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        ir_ref b = sse_read(l, 1);                                                                 \
                                                                                                   \
        sse_write(l, 0, sse_op2(l, IR_##operation, destination(l), b, 0));                         \
    }
#define PACKED(name, operation) BINARY(name, operation)
#include "guest/x86/packed.def"
#undef PACKED
BINARY(punpcklqdq, vunpklo64)
BINARY(punpckhbw, vunpkhi8)
BINARY(punpckhwd, vunpkhi16)
BINARY(punpckhdq, vunpkhi32)
BINARY(punpckhqdq, vunpkhi64)
BINARY(unpcklps, vunpklo32)
BINARY(unpcklpd, vunpklo64)
BINARY(unpckhps, vunpkhi32)
BINARY(unpckhpd, vunpkhi64)
BINARY(packsswb, vpackss16)
BINARY(packssdw, vpackss32)
BINARY(packuswb, vpackus16)
BINARY(packusdw, vpackus32)
BINARY(pcmpgtq, vcmpgt64)
BINARY(pcmpeqq, vcmpeq64)
BINARY(pmuldq, vmuls32)
BINARY(pmulld, vmul32)
BINARY(pminuw, vminu16)
BINARY(pminud, vminu32)
BINARY(pminsb, vmins8)
BINARY(pminsd, vmins32)
BINARY(pmaxuw, vmaxu16)
BINARY(pmaxud, vmaxu32)
BINARY(pmaxsb, vmaxs8)
BINARY(pmaxsd, vmaxs32)
BINARY(andps, vand)
BINARY(andpd, vand)
BINARY(andnps, vandn)
BINARY(andnpd, vandn)
BINARY(orps, vor)
BINARY(orpd, vor)
BINARY(xorps, vxor)
BINARY(xorpd, vxor)
BINARY(pshufb, vshuf8)
BINARY(phaddw, vhadd16)
BINARY(phaddd, vhadd32)
BINARY(phaddsw, vhadds16)
BINARY(phsubw, vhsub16)
BINARY(phsubd, vhsub32)
BINARY(phsubsw, vhsubs16)

#define UNARY(name, operation)                                                                     \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        sse_write(l, 0, sse_op1(l, IR_##operation, sse_read(l, 1), 0));                            \
    }
UNARY(pabsb, vabs8)
UNARY(pabsw, vabs16)
UNARY(pabsd, vabs32)
UNARY(phminposuw, vminpos)
UNARY(pmovsxbw, vsx8to16)
UNARY(pmovsxbd, vsx8to32)
UNARY(pmovsxbq, vsx8to64)
UNARY(pmovsxwd, vsx16to32)
UNARY(pmovsxwq, vsx16to64)
UNARY(pmovsxdq, vsx32to64)
UNARY(pmovzxbw, vzx8to16)
UNARY(pmovzxbd, vzx8to32)
UNARY(pmovzxbq, vzx8to64)
UNARY(pmovzxwd, vzx16to32)
UNARY(pmovzxwq, vzx16to64)
UNARY(pmovzxdq, vzx32to64)

#define BINARY_IMM(name, operation)                                                                \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        ir_ref b = sse_read(l, 1);                                                                 \
                                                                                                   \
        sse_write(l, 0, sse_op2(l, IR_##operation, destination(l), b, sse_imm(l)));                \
    }
BINARY_IMM(shufps, vshufps)
BINARY_IMM(shufpd, vshufpd)
BINARY_IMM(blendps, vblend32)
BINARY_IMM(blendpd, vblend64)
BINARY_IMM(palignr, valign)
BINARY_IMM(pblendw, vblend16)
BINARY_IMM(mpsadbw, vmpsad)

#define UNARY_IMM(name, operation)                                                                 \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        sse_write(l, 0, sse_op1(l, IR_##operation, sse_read(l, 1), sse_imm(l)));                   \
    }
UNARY_IMM(pshufd, vshuf32)
UNARY_IMM(pshuflw, vshuflo16)
UNARY_IMM(pshufhw, vshufhi16)

/* The count is an immediate byte, or the low 64 bits of the other operand. */
static void shift(struct x86_lift *l, enum ir_op op)
{
    const struct x86_operand *by = &l->in->op[1];
    ir_ref count = by->kind == X86_OP_IMM ? ir_const(l->u, IR_I64, by->value & 0xff)
                                          : ir_vlo(l->u, sse_read(l, 1));

    sse_write(l, 0, sse_op2(l, op, destination(l), count, 0));
}

#define SHIFT(name, operation)                                                                     \
    void lift_##name(struct x86_lift *l)                                                           \
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

static void byte_shift(struct x86_lift *l, enum ir_op op)
{
    u64 count = l->in->op[1].value & 0xff;

    sse_write(l, 0, sse_op1(l, op, destination(l), count > 16 ? 16 : count));
}

void lift_pslldq(struct x86_lift *l)
{
    byte_shift(l, IR_vbshl);
}

void lift_psrldq(struct x86_lift *l)
{
    byte_shift(l, IR_vbshr);
}

static void blend(struct x86_lift *l, enum ir_op op)
{
    ir_ref b = sse_read(l, 1);

    sse_write(l, 0,
              ir_emit(l->u, op, IR_V128, destination(l), b, ir_get(l->u, IR_V128, XMM0_SLOT),
                      IR_NONE, 0));
}

void lift_pblendvb(struct x86_lift *l)
{
    blend(l, IR_vblendv8);
}

void lift_blendvps(struct x86_lift *l)
{
    blend(l, IR_vblendv32);
}

void lift_blendvpd(struct x86_lift *l)
{
    blend(l, IR_vblendv64);
}

void lift_ptest(struct x86_lift *l)
{
    ir_ref b = sse_read(l, 1), a = destination(l);
    ir_ref zf = ir_emit(l->u, IR_vtestz, IR_I1, a, b, 0, 0, 0);
    ir_ref cf = ir_emit(l->u, IR_vtestc, IR_I1, a, b, 0, 0, 0);

    lift_set_zpc(l, zf, IR_NONE, cf);
}

/* From memory it is one lane, and the immediate does not choose. */
void lift_insertps(struct x86_lift *l)
{
    ir_ref b = sse_read(l, 1);
    u64 imm = sse_imm(l);

    if (l->in->op[1].kind == X86_OP_MEM)
        imm &= 0x3f;
    sse_write(l, 0, sse_op2(l, IR_vinsertps, destination(l), b, imm));
}

/* --- single lanes --------------------------------------------------------------------------- */

static ir_ref lane(struct x86_lift *l, enum ir_op op, unsigned n, u64 number)
{
    return ir_emit(l->u, op, op == IR_vget64 ? IR_I64 : IR_I32, sse_read(l, n), 0, 0, 0, number);
}

static void extract(struct x86_lift *l, enum ir_op op, unsigned lanes)
{
    const struct x86_operand *to = &l->in->op[0];
    ir_ref v = lane(l, op, 1, sse_imm(l) & (lanes - 1));

    if (to->kind == X86_OP_REG && op != IR_vget64) {
        lift_set_reg(l, to->reg, 4, false, v); /* zero-extended into the whole register */
        return;
    }
    if (to->size < 4)
        v = ir_trunc(l->u, lift_int_type(to->size), v);
    lift_write(l, 0, v);
}

void lift_pextrb(struct x86_lift *l)
{
    extract(l, IR_vget8, 16);
}

void lift_pextrw(struct x86_lift *l)
{
    extract(l, IR_vget16, 8);
}

void lift_pextrw_rm(struct x86_lift *l)
{
    extract(l, IR_vget16, 8);
}

void lift_pextrd(struct x86_lift *l)
{
    bool wide = l->in->op[0].size == 8;

    extract(l, wide ? IR_vget64 : IR_vget32, wide ? 2 : 4);
}

void lift_extractps(struct x86_lift *l)
{
    extract(l, IR_vget32, 4);
}

static void insert(struct x86_lift *l, enum ir_op op, unsigned lanes)
{
    ir_ref v = lift_read(l, 1);

    if (l->in->op[1].size < 4)
        v = ir_zext(l->u, IR_I32, v);
    sse_write(l, 0, sse_op2(l, op, destination(l), v, sse_imm(l) & (lanes - 1)));
}

void lift_pinsrb(struct x86_lift *l)
{
    insert(l, IR_vset8, 16);
}

void lift_pinsrw(struct x86_lift *l)
{
    insert(l, IR_vset16, 8);
}

void lift_pinsrd(struct x86_lift *l)
{
    bool wide = l->in->op[1].size == 8;

    insert(l, wide ? IR_vset64 : IR_vset32, wide ? 2 : 4);
}

/* --- string comparison: SDM vol. 2 4.1 -------------------------------------------------------- */

static void compare_strings(struct x86_lift *l, bool explicit_lengths, bool mask)
{
    u64 form = (explicit_lengths ? 1 : 0) | (l->in->rex & 8 ? 2 : 0) | (mask ? 4 : 0);
    const struct x86_operand *b = &l->in->op[1];
    ir_ref v = b->kind == X86_OP_MEM ? ir_ld(l->u, IR_V128, sse_address(l, 16, false, UNALIGNED), 0)
                                     : sse_read(l, 1);
    ir_ref flags;

    ir_put(l->u, X86_SLOT(common.scratch), v);
    flags = LIFT_CALL(l, IR_I64, pcmpstr, ir_const(l->u, IR_I64, l->in->op[0].reg),
                      ir_const(l->u, IR_I64, sse_imm(l)), ir_const(l->u, IR_I64, form), IR_NONE);
    lift_set_eflags_arith(l, flags);
}

void lift_pcmpestrm(struct x86_lift *l)
{
    compare_strings(l, true, true);
}

void lift_pcmpestri(struct x86_lift *l)
{
    compare_strings(l, true, false);
}

void lift_pcmpistrm(struct x86_lift *l)
{
    compare_strings(l, false, true);
}

void lift_pcmpistri(struct x86_lift *l)
{
    compare_strings(l, false, false);
}
