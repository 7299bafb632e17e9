/*
 * Lane operations: one SSE instruction each, so a table of opcodes and a few shapes. The result's
 * register may be operand a's, never b's or c's.
 */
#include "host/x64/lower.h"

enum shape {
    BINARY,     /* op d, b after d = a */
    BINARY_IMM, /* the same with an immediate */
    UNARY,      /* op d, a */
    UNARY_IMM,
    SHIFT,      /* a scalar count: the immediate form if it is constant */
    BYTE_SHIFT, /* group form with an immediate only */
    BLENDV,     /* three operands; the opcode is that of the lanes' signed comparison */
    TO_GPR,     /* op r32, a */
    TEST,       /* sets flags: the condition is the result */
    GET,        /* a lane to a general register */
    SET,        /* a general register to a lane */
    LOW,        /* op d, scalar b after d = a */
    LOW_IMM,
    LOW_INT, /* the same of an integer */
};

struct form {
    u32 opcode;
    u8 shape;
    u8 group; /* SHIFT: opcode of the immediate form; TEST: condition */
    u8 digit; /* SHIFT, BYTE_SHIFT: its ModRM.reg */
};

#define X64_ANDPS (X64_0F | 0x54)
#define FIRST_VECTOR_OP (IR_exit_if + 1)
#define ROW(name) IR_##name - FIRST_VECTOR_OP

static const struct form forms[IR_NOP - FIRST_VECTOR_OP] = {
    [ROW(vand)] = {X64_66 | X64_0F | 0xdb, BINARY},
    [ROW(vor)] = {X64_66 | X64_0F | 0xeb, BINARY},
    [ROW(vxor)] = {X64_66 | X64_0F | 0xef, BINARY},
    [ROW(vandn)] = {X64_66 | X64_0F | 0xdf, BINARY},
    [ROW(vadd8)] = {X64_66 | X64_0F | 0xfc, BINARY},
    [ROW(vadd16)] = {X64_66 | X64_0F | 0xfd, BINARY},
    [ROW(vadd32)] = {X64_66 | X64_0F | 0xfe, BINARY},
    [ROW(vadd64)] = {X64_66 | X64_0F | 0xd4, BINARY},
    [ROW(vsub8)] = {X64_66 | X64_0F | 0xf8, BINARY},
    [ROW(vsub16)] = {X64_66 | X64_0F | 0xf9, BINARY},
    [ROW(vsub32)] = {X64_66 | X64_0F | 0xfa, BINARY},
    [ROW(vsub64)] = {X64_66 | X64_0F | 0xfb, BINARY},
    [ROW(vadds8)] = {X64_66 | X64_0F | 0xec, BINARY},
    [ROW(vaddus8)] = {X64_66 | X64_0F | 0xdc, BINARY},
    [ROW(vsubs8)] = {X64_66 | X64_0F | 0xe8, BINARY},
    [ROW(vsubus8)] = {X64_66 | X64_0F | 0xd8, BINARY},
    [ROW(vavg8)] = {X64_66 | X64_0F | 0xe0, BINARY},
    [ROW(vadds16)] = {X64_66 | X64_0F | 0xed, BINARY},
    [ROW(vaddus16)] = {X64_66 | X64_0F | 0xdd, BINARY},
    [ROW(vsubs16)] = {X64_66 | X64_0F | 0xe9, BINARY},
    [ROW(vsubus16)] = {X64_66 | X64_0F | 0xd9, BINARY},
    [ROW(vavg16)] = {X64_66 | X64_0F | 0xe3, BINARY},
    [ROW(vsad8)] = {X64_66 | X64_0F | 0xf6, BINARY},
    [ROW(vmul16)] = {X64_66 | X64_0F | 0xd5, BINARY},
    [ROW(vmulh16)] = {X64_66 | X64_0F | 0xe5, BINARY},
    [ROW(vmulhu16)] = {X64_66 | X64_0F | 0xe4, BINARY},
    [ROW(vmulhrs16)] = {X64_66 | X64_0F38 | 0x0b, BINARY},
    [ROW(vmul32)] = {X64_66 | X64_0F38 | 0x40, BINARY},
    [ROW(vmulu32)] = {X64_66 | X64_0F | 0xf4, BINARY},
    [ROW(vmuls32)] = {X64_66 | X64_0F38 | 0x28, BINARY},
    [ROW(vmadd16)] = {X64_66 | X64_0F | 0xf5, BINARY},
    [ROW(vmaddub16)] = {X64_66 | X64_0F38 | 0x04, BINARY},
    [ROW(vmins8)] = {X64_66 | X64_0F38 | 0x38, BINARY},
    [ROW(vmaxs8)] = {X64_66 | X64_0F38 | 0x3c, BINARY},
    [ROW(vmins16)] = {X64_66 | X64_0F | 0xea, BINARY},
    [ROW(vmaxs16)] = {X64_66 | X64_0F | 0xee, BINARY},
    [ROW(vmins32)] = {X64_66 | X64_0F38 | 0x39, BINARY},
    [ROW(vmaxs32)] = {X64_66 | X64_0F38 | 0x3d, BINARY},
    [ROW(vminu8)] = {X64_66 | X64_0F | 0xda, BINARY},
    [ROW(vmaxu8)] = {X64_66 | X64_0F | 0xde, BINARY},
    [ROW(vminu16)] = {X64_66 | X64_0F38 | 0x3a, BINARY},
    [ROW(vmaxu16)] = {X64_66 | X64_0F38 | 0x3e, BINARY},
    [ROW(vminu32)] = {X64_66 | X64_0F38 | 0x3b, BINARY},
    [ROW(vmaxu32)] = {X64_66 | X64_0F38 | 0x3f, BINARY},
    [ROW(vabs8)] = {X64_66 | X64_0F38 | 0x1c, UNARY},
    [ROW(vsign8)] = {X64_66 | X64_0F38 | 0x08, BINARY},
    [ROW(vabs16)] = {X64_66 | X64_0F38 | 0x1d, UNARY},
    [ROW(vsign16)] = {X64_66 | X64_0F38 | 0x09, BINARY},
    [ROW(vabs32)] = {X64_66 | X64_0F38 | 0x1e, UNARY},
    [ROW(vsign32)] = {X64_66 | X64_0F38 | 0x0a, BINARY},
    [ROW(vcmpeq8)] = {X64_66 | X64_0F | 0x74, BINARY},
    [ROW(vcmpgt8)] = {X64_66 | X64_0F | 0x64, BINARY},
    [ROW(vcmpeq16)] = {X64_66 | X64_0F | 0x75, BINARY},
    [ROW(vcmpgt16)] = {X64_66 | X64_0F | 0x65, BINARY},
    [ROW(vcmpeq32)] = {X64_66 | X64_0F | 0x76, BINARY},
    [ROW(vcmpgt32)] = {X64_66 | X64_0F | 0x66, BINARY},
    [ROW(vcmpeq64)] = {X64_66 | X64_0F38 | 0x29, BINARY},
    [ROW(vcmpgt64)] = {X64_66 | X64_0F38 | 0x37, BINARY},
    [ROW(vtestz)] = {X64_66 | X64_0F38 | 0x17, TEST, CC_E, 0},
    [ROW(vtestc)] = {X64_66 | X64_0F38 | 0x17, TEST, CC_B, 0},
    [ROW(vshl16)] = {X64_66 | X64_0F | 0xf1, SHIFT, 0x71, 6},
    [ROW(vshr16)] = {X64_66 | X64_0F | 0xd1, SHIFT, 0x71, 2},
    [ROW(vsar16)] = {X64_66 | X64_0F | 0xe1, SHIFT, 0x71, 4},
    [ROW(vshl32)] = {X64_66 | X64_0F | 0xf2, SHIFT, 0x72, 6},
    [ROW(vshr32)] = {X64_66 | X64_0F | 0xd2, SHIFT, 0x72, 2},
    [ROW(vsar32)] = {X64_66 | X64_0F | 0xe2, SHIFT, 0x72, 4},
    [ROW(vshl64)] = {X64_66 | X64_0F | 0xf3, SHIFT, 0x73, 6},
    [ROW(vshr64)] = {X64_66 | X64_0F | 0xd3, SHIFT, 0x73, 2},
    [ROW(vbshl)] = {X64_66 | X64_0F | 0x73, BYTE_SHIFT, 0, 7},
    [ROW(vbshr)] = {X64_66 | X64_0F | 0x73, BYTE_SHIFT, 0, 3},
    [ROW(valign)] = {X64_66 | X64_0F3A | 0x0f, BINARY_IMM},
    [ROW(vpackss16)] = {X64_66 | X64_0F | 0x63, BINARY},
    [ROW(vpackus16)] = {X64_66 | X64_0F | 0x67, BINARY},
    [ROW(vpackss32)] = {X64_66 | X64_0F | 0x6b, BINARY},
    [ROW(vpackus32)] = {X64_66 | X64_0F38 | 0x2b, BINARY},
    [ROW(vunpklo8)] = {X64_66 | X64_0F | 0x60, BINARY},
    [ROW(vunpkhi8)] = {X64_66 | X64_0F | 0x68, BINARY},
    [ROW(vunpklo16)] = {X64_66 | X64_0F | 0x61, BINARY},
    [ROW(vunpkhi16)] = {X64_66 | X64_0F | 0x69, BINARY},
    [ROW(vunpklo32)] = {X64_66 | X64_0F | 0x62, BINARY},
    [ROW(vunpkhi32)] = {X64_66 | X64_0F | 0x6a, BINARY},
    [ROW(vunpklo64)] = {X64_66 | X64_0F | 0x6c, BINARY},
    [ROW(vunpkhi64)] = {X64_66 | X64_0F | 0x6d, BINARY},
    [ROW(vsx8to16)] = {X64_66 | X64_0F38 | 0x20, UNARY},
    [ROW(vzx8to16)] = {X64_66 | X64_0F38 | 0x30, UNARY},
    [ROW(vsx8to32)] = {X64_66 | X64_0F38 | 0x21, UNARY},
    [ROW(vzx8to32)] = {X64_66 | X64_0F38 | 0x31, UNARY},
    [ROW(vsx8to64)] = {X64_66 | X64_0F38 | 0x22, UNARY},
    [ROW(vzx8to64)] = {X64_66 | X64_0F38 | 0x32, UNARY},
    [ROW(vsx16to32)] = {X64_66 | X64_0F38 | 0x23, UNARY},
    [ROW(vzx16to32)] = {X64_66 | X64_0F38 | 0x33, UNARY},
    [ROW(vsx16to64)] = {X64_66 | X64_0F38 | 0x24, UNARY},
    [ROW(vzx16to64)] = {X64_66 | X64_0F38 | 0x34, UNARY},
    [ROW(vsx32to64)] = {X64_66 | X64_0F38 | 0x25, UNARY},
    [ROW(vzx32to64)] = {X64_66 | X64_0F38 | 0x35, UNARY},
    [ROW(vshuf8)] = {X64_66 | X64_0F38 | 0x00, BINARY},
    [ROW(vshuf32)] = {X64_66 | X64_0F | 0x70, UNARY_IMM},
    [ROW(vshuflo16)] = {X64_F2 | X64_0F | 0x70, UNARY_IMM},
    [ROW(vshufhi16)] = {X64_F3 | X64_0F | 0x70, UNARY_IMM},
    [ROW(vshufps)] = {X64_0F | 0xc6, BINARY_IMM},
    [ROW(vshufpd)] = {X64_66 | X64_0F | 0xc6, BINARY_IMM},
    [ROW(vblend16)] = {X64_66 | X64_0F3A | 0x0e, BINARY_IMM},
    [ROW(vblend32)] = {X64_66 | X64_0F3A | 0x0c, BINARY_IMM},
    [ROW(vblend64)] = {X64_66 | X64_0F3A | 0x0d, BINARY_IMM},
    [ROW(vblendv8)] = {X64_66 | X64_0F | 0x64, BLENDV},
    [ROW(vblendv32)] = {X64_66 | X64_0F | 0x66, BLENDV},
    [ROW(vblendv64)] = {X64_66 | X64_0F38 | 0x37, BLENDV},
    [ROW(vinsertps)] = {X64_66 | X64_0F3A | 0x21, BINARY_IMM},
    [ROW(vhadd16)] = {X64_66 | X64_0F38 | 0x01, BINARY},
    [ROW(vhsub16)] = {X64_66 | X64_0F38 | 0x05, BINARY},
    [ROW(vhadd32)] = {X64_66 | X64_0F38 | 0x02, BINARY},
    [ROW(vhsub32)] = {X64_66 | X64_0F38 | 0x06, BINARY},
    [ROW(vhadds16)] = {X64_66 | X64_0F38 | 0x03, BINARY},
    [ROW(vhsubs16)] = {X64_66 | X64_0F38 | 0x07, BINARY},
    [ROW(vmpsad)] = {X64_66 | X64_0F3A | 0x42, BINARY_IMM},
    [ROW(vminpos)] = {X64_66 | X64_0F38 | 0x41, UNARY},
    [ROW(vmovmask8)] = {X64_66 | X64_0F | 0xd7, TO_GPR},
    [ROW(vmovmask32)] = {X64_0F | 0x50, TO_GPR},
    [ROW(vmovmask64)] = {X64_66 | X64_0F | 0x50, TO_GPR},
    [ROW(vget8)] = {X64_66 | X64_0F3A | 0x14, GET},
    [ROW(vget16)] = {X64_66 | X64_0F3A | 0x15, GET},
    [ROW(vget32)] = {X64_66 | X64_0F3A | 0x16, GET},
    [ROW(vget64)] = {X64_66 | X64_0F3A | X64_W | 0x16, GET},
    [ROW(vset8)] = {X64_66 | X64_0F3A | 0x20, SET},
    [ROW(vset16)] = {X64_66 | X64_0F | 0xc4, SET},
    [ROW(vset32)] = {X64_66 | X64_0F3A | 0x22, SET},
    [ROW(vset64)] = {X64_66 | X64_0F3A | X64_W | 0x22, SET},
    [ROW(vfadd32)] = {X64_0F | 0x58, BINARY},
    [ROW(vfsub32)] = {X64_0F | 0x5c, BINARY},
    [ROW(vfmul32)] = {X64_0F | 0x59, BINARY},
    [ROW(vfdiv32)] = {X64_0F | 0x5e, BINARY},
    [ROW(vfmin32)] = {X64_0F | 0x5d, BINARY},
    [ROW(vfmax32)] = {X64_0F | 0x5f, BINARY},
    [ROW(vfsqrt32)] = {X64_0F | 0x51, UNARY},
    [ROW(vfaddsub32)] = {X64_F2 | X64_0F | 0xd0, BINARY},
    [ROW(vfhadd32)] = {X64_F2 | X64_0F | 0x7c, BINARY},
    [ROW(vfhsub32)] = {X64_F2 | X64_0F | 0x7d, BINARY},
    [ROW(vfcmp32)] = {X64_0F | 0xc2, BINARY_IMM},
    [ROW(vfround32)] = {X64_66 | X64_0F3A | 0x08, UNARY_IMM},
    [ROW(vfadd64)] = {X64_66 | X64_0F | 0x58, BINARY},
    [ROW(vfsub64)] = {X64_66 | X64_0F | 0x5c, BINARY},
    [ROW(vfmul64)] = {X64_66 | X64_0F | 0x59, BINARY},
    [ROW(vfdiv64)] = {X64_66 | X64_0F | 0x5e, BINARY},
    [ROW(vfmin64)] = {X64_66 | X64_0F | 0x5d, BINARY},
    [ROW(vfmax64)] = {X64_66 | X64_0F | 0x5f, BINARY},
    [ROW(vfsqrt64)] = {X64_66 | X64_0F | 0x51, UNARY},
    [ROW(vfaddsub64)] = {X64_66 | X64_0F | 0xd0, BINARY},
    [ROW(vfhadd64)] = {X64_66 | X64_0F | 0x7c, BINARY},
    [ROW(vfhsub64)] = {X64_66 | X64_0F | 0x7d, BINARY},
    [ROW(vfcmp64)] = {X64_66 | X64_0F | 0xc2, BINARY_IMM},
    [ROW(vfround64)] = {X64_66 | X64_0F3A | 0x09, UNARY_IMM},
    [ROW(vcvts32f32)] = {X64_0F | 0x5b, UNARY},
    [ROW(vcvtf32s32)] = {X64_66 | X64_0F | 0x5b, UNARY},
    [ROW(vcvtzf32s32)] = {X64_F3 | X64_0F | 0x5b, UNARY},
    [ROW(vcvts32f64)] = {X64_F3 | X64_0F | 0xe6, UNARY},
    [ROW(vcvtf64s32)] = {X64_F2 | X64_0F | 0xe6, UNARY},
    [ROW(vcvtzf64s32)] = {X64_66 | X64_0F | 0xe6, UNARY},
    [ROW(vcvtf32f64)] = {X64_0F | 0x5a, UNARY},
    [ROW(vcvtf64f32)] = {X64_66 | X64_0F | 0x5a, UNARY},
    [ROW(vfaddlo32)] = {X64_F3 | X64_0F | 0x58, LOW},
    [ROW(vfsublo32)] = {X64_F3 | X64_0F | 0x5c, LOW},
    [ROW(vfmullo32)] = {X64_F3 | X64_0F | 0x59, LOW},
    [ROW(vfdivlo32)] = {X64_F3 | X64_0F | 0x5e, LOW},
    [ROW(vfminlo32)] = {X64_F3 | X64_0F | 0x5d, LOW},
    [ROW(vfmaxlo32)] = {X64_F3 | X64_0F | 0x5f, LOW},
    [ROW(vfsqrtlo32)] = {X64_F3 | X64_0F | 0x51, LOW},
    [ROW(vfroundlo32)] = {X64_66 | X64_0F3A | 0x0a, LOW_IMM},
    [ROW(vfcmplo32)] = {X64_F3 | X64_0F | 0xc2, LOW_IMM},
    [ROW(vfaddlo64)] = {X64_F2 | X64_0F | 0x58, LOW},
    [ROW(vfsublo64)] = {X64_F2 | X64_0F | 0x5c, LOW},
    [ROW(vfmullo64)] = {X64_F2 | X64_0F | 0x59, LOW},
    [ROW(vfdivlo64)] = {X64_F2 | X64_0F | 0x5e, LOW},
    [ROW(vfminlo64)] = {X64_F2 | X64_0F | 0x5d, LOW},
    [ROW(vfmaxlo64)] = {X64_F2 | X64_0F | 0x5f, LOW},
    [ROW(vfsqrtlo64)] = {X64_F2 | X64_0F | 0x51, LOW},
    [ROW(vfroundlo64)] = {X64_66 | X64_0F3A | 0x0b, LOW_IMM},
    [ROW(vfcmplo64)] = {X64_F2 | X64_0F | 0xc2, LOW_IMM},
    [ROW(vcvtlof64f32)] = {X64_F2 | X64_0F | 0x5a, LOW},
    [ROW(vcvtlof32f64)] = {X64_F3 | X64_0F | 0x5a, LOW},
    [ROW(vcvtlos32f32)] = {X64_F3 | X64_0F | 0x2a, LOW_INT},
    [ROW(vcvtlos64f32)] = {X64_F3 | X64_0F | X64_W | 0x2a, LOW_INT},
    [ROW(vcvtlos32f64)] = {X64_F2 | X64_0F | 0x2a, LOW_INT},
    [ROW(vcvtlos64f64)] = {X64_F2 | X64_0F | X64_W | 0x2a, LOW_INT},
};

/* Counts are 64 bits wide in the IR and compared unsigned, as the instructions do it. */
static void shift(struct lowering *l, const struct form *form, const struct ir_inst *inst,
                  unsigned d)
{
    if (ir_is_const(l->unit, inst->b)) {
        u64 count = l->unit->insts[inst->b].imm;

        x64_rr_ib(&l->code, X64_66 | X64_0F | form->group, form->digit, d,
                  count > 255 ? 255 : (unsigned)count);
        return;
    }
    x64_rr(&l->code, X64_MOVD_TO_XMM | X64_W, XMM14, operand_gpr(l, inst->b, RAX, true));
    x64_rr(&l->code, form->opcode, d, XMM14);
}

/* op d, operand: from its register or its granule. */
static void with_operand(struct lowering *l, u32 opcode, unsigned d, ir_ref ref)
{
    struct operand o = operand_at(l, ref, false);

    if (o.kind == IN_REG)
        x64_rr(&l->code, opcode, d, o.reg);
    else
        x64_rm(&l->code, opcode, d, o.mem);
}

/* The instructions want their mask in xmm0, which may be anybody's: ((a ^ b) & mask) ^ a is as
 * short, with the mask's sign bits spread over the lanes by a comparison with 0. */
static void blend(struct lowering *l, const struct form *form, ir_ref ref,
                  const struct ir_inst *inst)
{
    struct x64 *c = &l->code;
    unsigned d;

    x64_rr(c, X64_XORPS, XMM15, XMM15);
    with_operand(l, form->opcode, XMM15, inst->c); /* pcmpgt: 0 > lane */
    operand_xmm_move(l, inst->b, XMM14);
    with_operand(l, X64_XORPS, XMM14, inst->a);
    x64_rr(c, X64_ANDPS, XMM15, XMM14);
    d = result_xmm(l, ref, XMM14);
    operand_xmm_move(l, inst->a, d);
    x64_rr(c, X64_XORPS, d, XMM15);
    result_xmm_done(l, ref, d);
}

static void to_gpr(struct lowering *l, const struct form *form, ir_ref ref,
                   const struct ir_inst *inst)
{
    unsigned a = operand_xmm(l, inst->a, XMM15), d = result_gpr(l, ref, RAX);

    if (form->shape == GET) /* ModRM.reg is the vector here */
        x64_rr_ib(&l->code, form->opcode, a, d, (unsigned)inst->imm & 15);
    else
        x64_rr(&l->code, form->opcode, d, a);
    result_done(l, ref, d);
}

static void test(struct lowering *l, const struct form *form, ir_ref ref,
                 const struct ir_inst *inst)
{
    unsigned d;

    with_operand(l, form->opcode, operand_xmm(l, inst->a, XMM15), inst->b);
    d = result_gpr(l, ref, RAX);
    x64_setcc(&l->code, form->group, d);
    x64_movzx(&l->code, 1, d, d);
    result_done(l, ref, d);
}

static void unary(struct lowering *l, const struct form *form, ir_ref ref,
                  const struct ir_inst *inst)
{
    unsigned d = result_xmm(l, ref, XMM15);

    x64_rr(&l->code, form->opcode, d, operand_xmm(l, inst->a, XMM14));
    if (form->shape == UNARY_IMM)
        x64_byte(&l->code, (unsigned)inst->imm);
    result_xmm_done(l, ref, d);
}

/* What the second operand is goes by the operation, not by a's type. */
static void with_scalar(struct lowering *l, const struct form *form, const struct ir_inst *inst,
                        unsigned d)
{
    struct operand b = operand_at(l, inst->b, true);
    unsigned type = ir_typeof(l->unit, inst->b);

    if (b.kind == IN_MEM)
        x64_rm(&l->code, form->opcode, d, b.mem);
    else if (form->shape == LOW_INT)
        x64_rr(&l->code, form->opcode, d, gpr_of(l, &b, wide_bytes(type), RAX));
    else
        x64_rr(&l->code, form->opcode, d, xmm_of(l, &b, type, XMM14));
    if (form->shape == LOW_IMM)
        x64_byte(&l->code, (unsigned)inst->imm);
}

/* d = a, then d is changed in place. */
static void in_place(struct lowering *l, const struct form *form, ir_ref ref,
                     const struct ir_inst *inst)
{
    unsigned d = result_xmm(l, ref, XMM15);

    operand_xmm_move(l, inst->a, d);
    switch (form->shape) {
    case SHIFT:
        shift(l, form, inst, d);
        break;
    case BYTE_SHIFT:
        x64_rr_ib(&l->code, form->opcode, form->digit, d, (unsigned)inst->imm);
        break;
    case LOW:
    case LOW_IMM:
    case LOW_INT:
        with_scalar(l, form, inst, d);
        break;
    case SET:
        x64_rr_ib(&l->code, form->opcode, d, operand_gpr(l, inst->b, RAX, true),
                  (unsigned)inst->imm & 15);
        break;
    default:
        x64_rr(&l->code, form->opcode, d, operand_xmm(l, inst->b, XMM14));
        if (form->shape == BINARY_IMM)
            x64_byte(&l->code, (unsigned)inst->imm);
        break;
    }
    result_xmm_done(l, ref, d);
}

void lower_vector(struct lowering *l, ir_ref ref)
{
    const struct ir_inst *inst = &l->unit->insts[ref];
    const struct form *form = &forms[inst->op - FIRST_VECTOR_OP];

    switch (form->shape) {
    case BLENDV:
        blend(l, form, ref, inst);
        break;
    case TO_GPR:
    case GET:
        to_gpr(l, form, ref, inst);
        break;
    case TEST:
        test(l, form, ref, inst);
        break;
    case UNARY:
    case UNARY_IMM:
        unary(l, form, ref, inst);
        break;
    default:
        in_place(l, form, ref, inst);
        break;
    }
}
