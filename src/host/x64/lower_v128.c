/* 128-bit vectors: making and taking apart. Lane operations are in lower_vector.c. */
#include "host/x64/lower.h"

LOWER(vec)
{
    unsigned d = result_xmm(l, ref, XMM15);
    struct operand lo = operand_at(l, inst->a, false), hi = operand_at(l, inst->b, false);
    struct x64 *c = &l->code;

    if (lo.kind == IN_CONST && !lo.imm && hi.kind == IN_CONST && !hi.imm) {
        x64_rr(c, X64_XORPS, d, d);
        result_xmm_done(l, ref, d);
        return;
    }
    if (lo.kind == IN_CONST && !~lo.imm && hi.kind == IN_CONST && !~hi.imm) {
        x64_rr(c, X64_PCMPEQD, d, d);
        result_xmm_done(l, ref, d);
        return;
    }
    if (lo.kind == IN_MEM)
        x64_rm(c, X64_MOVQ, d, lo.mem);
    else
        x64_rr(c, X64_MOVD_TO_XMM | X64_W, d, gpr_of(l, &lo, 8, RAX));
    /* movq has cleared the upper half. */
    if (hi.kind == IN_MEM)
        x64_rm_ib(c, X64_PINSRQ, d, hi.mem, 1);
    else if (hi.kind != IN_CONST || hi.imm)
        x64_rr_ib(c, X64_PINSRQ, d, gpr_of(l, &hi, 8, RAX), 1);
    result_xmm_done(l, ref, d);
}

LOWER(vlo)
{
    unsigned d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false);

    if (a.kind == IN_MEM)
        x64_load(&l->code, 8, d, a.mem);
    else
        x64_rr(&l->code, X64_MOVD_FROM_XMM | X64_W, a.reg, d);
    result_done(l, ref, d);
}

LOWER(vhi)
{
    unsigned d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false);

    if (a.kind == IN_MEM) {
        a.mem.disp += 8;
        x64_load(&l->code, 8, d, a.mem);
    } else {
        x64_rr_ib(&l->code, X64_PEXTRQ, a.reg, d, 1);
    }
    result_done(l, ref, d);
}

/* Of what a load brought nothing is to be done: the upper lanes are zeros already (plan_peel). */
LOWER(vzext)
{
    unsigned d = result_xmm(l, ref, XMM15), a = operand_xmm(l, inst->a, XMM14);

    if (ir_typeof(l->unit, inst->a) == IR_F64)
        x64_rr(&l->code, X64_MOVQ, d, a);
    else
        x64_rr_ib(&l->code, X64_INSERTPS, d, a, 0x0e); /* zeros in lanes 1 to 3 */
    result_xmm_done(l, ref, d);
}

LOWER(vmerge)
{
    unsigned d = result_xmm(l, ref, XMM15);

    operand_xmm_move(l, inst->a, d);
    x64_rr(&l->code, ir_typeof(l->unit, inst->b) == IR_F64 ? X64_MOVSD : X64_MOVSS, d,
           operand_xmm(l, inst->b, XMM14));
    result_xmm_done(l, ref, d);
}
