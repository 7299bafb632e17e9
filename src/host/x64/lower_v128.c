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
