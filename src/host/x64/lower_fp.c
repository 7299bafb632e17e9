/*
 * Scalar floating point by SSE, in the current MXCSR. The first operand of an SSE instruction is
 * the one whose NaN is passed on, as the IR wants it, so nothing is ever swapped.
 */
#include "host/x64/lower.h"

static u32 scalar_prefix(unsigned type)
{
    return type == IR_F32 ? X64_F3 : X64_F2;
}

LOWER(fp_binary)
{
    static const u8 opcodes[] = {[IR_fadd - IR_fadd] = 0x58, [IR_fsub - IR_fadd] = 0x5c,
                                 [IR_fmul - IR_fadd] = 0x59, [IR_fdiv - IR_fadd] = 0x5e,
                                 [IR_fmin - IR_fadd] = 0x5d, [IR_fmax - IR_fadd] = 0x5f};
    u32 op = scalar_prefix(inst->type) | X64_0F | opcodes[inst->op - IR_fadd];
    unsigned d = result_xmm(l, ref, XMM15);
    struct operand b = operand_at(l, inst->b, false);

    operand_xmm_move(l, inst->a, d);
    if (b.kind == IN_MEM)
        x64_rm(&l->code, op, d, b.mem);
    else
        x64_rr(&l->code, op, d, xmm_of(l, &b, inst->type, XMM14));
    result_xmm_done(l, ref, d);
}

LOWER(fp_unary)
{
    unsigned d = result_xmm(l, ref, XMM15), a = operand_xmm(l, inst->a, XMM14);

    x64_rr(&l->code, scalar_prefix(inst->type) | X64_0F | 0x51, d, a);
    result_xmm_done(l, ref, d);
}

/* roundss, roundsd: the IR's modes are the instruction's (SDM volume 2, ROUNDSD, table 4-18). */
LOWER(fround)
{
    unsigned d = result_xmm(l, ref, XMM15), a = operand_xmm(l, inst->a, XMM14);

    x64_rr_ib(&l->code, X64_66 | X64_0F3A | (inst->type == IR_F32 ? 0x0a : 0x0b), d, a,
              (unsigned)inst->imm & 15);
    result_xmm_done(l, ref, d);
}

/* The operand in a register, or where it is in memory. */
static void fused(struct lowering *l, unsigned type, unsigned d, unsigned a,
                  const struct operand *b)
{
    u32 op = X64_66 | X64_0F38 | (type == IR_F64 ? X64_W : 0) | 0xb9; /* vfmadd231 */

    if (b->kind == IN_MEM)
        x64_vex_rm(&l->code, op, d, a, b->mem);
    else
        x64_vex_rr(&l->code, op, d, a, b->reg);
}

static void with(struct lowering *l, u32 op, unsigned d, const struct operand *b)
{
    if (b->kind == IN_MEM)
        x64_rm(&l->code, op, d, b->mem);
    else
        x64_rr(&l->code, op, d, b->reg);
}

/* d is a NaN: make it the canonical one, and multiply where that is exact, for the sake of the
 * flag. */
static void fused_nan(struct lowering *l, unsigned type, unsigned d, unsigned a,
                      const struct operand *b)
{
    u32 compare = X64_0F | (type == IR_F64 ? X64_66 : 0) | 0x2e, prefix = scalar_prefix(type);
    struct x64 *c = &l->code;
    u8 *zero, *not_zero;

    x64_rr(c, X64_XORPS, d, d);
    x64_rr(c, compare, d, a);
    zero = x64_jcc8_later(c, CC_E);
    with(l, compare, d, b);
    not_zero = x64_jcc8_later(c, CC_NE);
    x64_land8(c, zero);
    x64_rr(c, X64_MOVAPS, d, a);
    with(l, prefix | X64_0F | 0x59, d, b);
    x64_land8(c, not_zero);
    x64_mov_ri(c, RDX, type == IR_F64 ? 0x7ff8ull << 48 : 0x7fc00000);
    x64_rr(c, X64_MOVD_TO_XMM | (type == IR_F64 ? X64_W : 0), d, RDX);
}

LOWER(fma)
{
    struct operand b = operand_at(l, inst->b, false);
    unsigned type = inst->type, a;
    u8 *number;

    if (!(l->abi->features & HOST_FEATURE_FMA)) {
        lower_fail(l, -E2BIG);
        return;
    }
    operand_xmm_move(l, inst->c, XMM15);
    a = operand_xmm(l, inst->a, XMM14);
    if (b.kind == IN_CONST) {
        /* There is no third register: by way of what only slow paths write. */
        x64_mov_ri(&l->code, RDX, b.imm);
        b = (struct operand){.kind = IN_MEM,
                             .mem = x64_at(RSP, (s32)offsetof(struct host_frame, vector))};
        x64_store(&l->code, 8, b.mem, RDX);
    }
    fused(l, type, XMM15, a, &b);
    x64_rr(&l->code, X64_0F | (type == IR_F64 ? X64_66 : 0) | 0x2e, XMM15, XMM15);
    number = x64_jcc8_later(&l->code, CC_NP);
    fused_nan(l, type, XMM15, a, &b);
    x64_land8(&l->code, number);
    result_xmm_done(l, ref, XMM15);
}

LOWER(fcvt)
{
    unsigned d = result_xmm(l, ref, XMM15), a = operand_xmm(l, inst->a, XMM14);

    x64_rr(&l->code, scalar_prefix(ir_typeof(l->unit, inst->a)) | X64_0F | 0x5a, d, a);
    result_xmm_done(l, ref, d);
}

LOWER(scvtf)
{
    unsigned d = result_xmm(l, ref, XMM15), from = wide_bytes(ir_typeof(l->unit, inst->a));
    u32 op = scalar_prefix(inst->type) | X64_0F | (from == 8 ? X64_W : 0) | 0x2a;
    struct operand a = operand_at(l, inst->a, false);

    x64_rr(&l->code, X64_XORPS, d, d); /* the upper lanes are inputs: cut the dependency */
    if (a.kind == IN_MEM)
        x64_rm(&l->code, op, d, a.mem);
    else
        x64_rr(&l->code, op, d, gpr_of(l, &a, from, RAX));
    result_xmm_done(l, ref, d);
}

LOWER(fcvts)
{
    unsigned d = result_gpr(l, ref, RAX), a = operand_xmm(l, inst->a, XMM14);
    u32 op = scalar_prefix(ir_typeof(l->unit, inst->a)) | X64_0F |
             (inst->type == IR_I64 ? X64_W : 0) | (inst->op == IR_fcvts ? 0x2d : 0x2c);

    x64_rr(&l->code, op, d, a);
    result_done(l, ref, d);
}

LOWER(bitcast)
{
    unsigned from = ir_typeof(l->unit, inst->a);
    u32 w = type_bytes(inst->type) == 8 ? X64_W : 0;

    if (is_xmm_type(inst->type)) {
        unsigned d = result_xmm(l, ref, XMM15);
        struct operand a = operand_at(l, inst->a, false);

        if (a.kind == IN_CONST && !a.imm)
            x64_rr(&l->code, X64_XORPS, d, d);
        else
            x64_rr(&l->code, w | X64_MOVD_TO_XMM, d, gpr_of(l, &a, type_bytes(from), RAX));
        result_xmm_done(l, ref, d);
    } else {
        unsigned d = result_gpr(l, ref, RAX);

        x64_rr(&l->code, w | X64_MOVD_FROM_XMM, operand_xmm(l, inst->a, XMM15), d);
        result_done(l, ref, d);
    }
}

/*
 * comisd and ucomisd set CF for less and unordered, ZF for equal and unordered, PF for unordered
 * (SDM volume 2, COMISD). With the operands swapped, "above" is an ordered less-than.
 */
struct condition compare_fp_flags(struct lowering *l, const struct ir_inst *compare)
{
    bool quiet = compare->op != IR_flt && compare->op != IR_fle;
    bool less = compare->op != IR_feq && compare->op != IR_funord;
    u32 op =
        X64_0F | (ir_typeof(l->unit, compare->a) == IR_F64 ? X64_66 : 0) | (quiet ? 0x2e : 0x2f);
    ir_ref first = less ? compare->b : compare->a, second = less ? compare->a : compare->b;
    unsigned a = operand_xmm(l, first, XMM14);
    struct operand b = operand_at(l, second, false);

    if (b.kind == IN_MEM)
        x64_rm(&l->code, op, a, b.mem);
    else
        x64_rr(&l->code, op, a, xmm_of(l, &b, ir_typeof(l->unit, second), XMM15));
    switch (compare->op) {
    case IR_feq:
        return (struct condition){CC_E, AND_NOT_PARITY};
    case IR_funord:
        return (struct condition){CC_P, PARITY_IGNORED};
    case IR_flt:
    case IR_fltq:
        return (struct condition){CC_A, PARITY_IGNORED};
    default:
        return (struct condition){CC_AE, PARITY_IGNORED};
    }
}

/* The flags of comisd are the result: LAHF has all three in AH. */
LOWER(fflags)
{
    unsigned type = ir_typeof(l->unit, inst->a), d = result_gpr(l, ref, RAX);
    u32 op = X64_0F | (type == IR_F64 ? X64_66 : 0) | (inst->op == IR_fflagsq ? 0x2e : 0x2f);
    struct operand b = operand_at(l, inst->b, false);
    unsigned a = operand_xmm(l, inst->a, XMM14);

    if (b.kind == IN_MEM)
        x64_rm(&l->code, op, a, b.mem);
    else
        x64_rr(&l->code, op, a, xmm_of(l, &b, type, XMM15));
    x64_byte(&l->code, 0x9f); /* LAHF */
    x64_byte(&l->code, 0x0f); /* MOVZX eax, ah */
    x64_byte(&l->code, 0xb6);
    x64_byte(&l->code, 0xc4);
    x64_alu_ri(&l->code, ALU_AND, 4, RAX, 0x45);
    if (d != RAX)
        x64_mov_rr(&l->code, 4, d, RAX);
    result_done(l, ref, d);
}
