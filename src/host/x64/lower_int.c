/* Integer arithmetic, comparisons, selection and changes of width. */
#include "host/x64/lower.h"

static bool is_pow2_const(const struct operand *o)
{
    return o->kind == IN_CONST && o->imm && !(o->imm & (o->imm - 1));
}

/* --- add, sub, mul ------------------------------------------------------------------------ */

/* x + y << shift with the index in a register. */
static void add_scaled(struct lowering *l, ir_ref ref, const struct ir_inst *inst, ir_ref scaled,
                       unsigned shift)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false);
    unsigned index = operand_gpr(l, scaled, RCX, false);
    unsigned base = gpr_of(l, &a, bytes, RAX);

    x64_lea(&l->code, bytes, d, x64_at_index(base, index, shift, 0));
    result_done(l, ref, d);
}

LOWER(add)
{
    unsigned bytes = wide_bytes(inst->type), d, shift;
    ir_ref scaled = plan_scaled(l, inst->b, &shift);
    struct x64 *c = &l->code;
    struct operand a, b;

    if (scaled) {
        add_scaled(l, ref, inst, scaled, shift);
        return;
    }
    a = operand_at(l, inst->a, false);
    b = operand_at(l, inst->b, false);
    d = result_gpr(l, ref, RAX);
    if (a.kind == IN_CONST || (b.kind == IN_REG && b.reg == d)) {
        struct operand t = a;
        a = b;
        b = t;
    }
    if (a.kind == IN_REG && a.reg != d) {
        if (b.kind == IN_CONST && (bytes == 4 || x64_fits_s32(b.imm))) {
            x64_lea(c, bytes, d, x64_at(a.reg, (s32)b.imm));
            result_done(l, ref, d);
            return;
        }
        if (b.kind != IN_MEM) {
            unsigned index = gpr_of(l, &b, bytes, RCX);
            x64_lea(c, bytes, d, x64_at_index(a.reg, index, 0, 0));
            result_done(l, ref, d);
            return;
        }
    }
    move_operand(l, &a, d, bytes);
    alu_operand(l, ALU_ADD, bytes, d, &b, RCX);
    result_done(l, ref, d);
}

LOWER(sub)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false), b = operand_at(l, inst->b, false);

    if (a.kind == IN_REG && a.reg != d && b.kind == IN_CONST && x64_fits_s32(0 - b.imm)) {
        x64_lea(&l->code, bytes, d, x64_at(a.reg, (s32)(0 - b.imm)));
    } else {
        move_operand(l, &a, d, bytes);
        alu_operand(l, ALU_SUB, bytes, d, &b, RCX);
    }
    result_done(l, ref, d);
}

/* b of a commutative pair is the constant, and never in d. */
static void order_pair(struct operand *a, struct operand *b, unsigned d)
{
    if (a->kind == IN_CONST || (b->kind == IN_REG && b->reg == d)) {
        struct operand t = *a;
        *a = *b;
        *b = t;
    }
}

LOWER(mul)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false), b = operand_at(l, inst->b, false);
    u32 w = bytes == 8 ? X64_W : 0;
    struct x64 *c = &l->code;

    order_pair(&a, &b, d);
    if (is_pow2_const(&b)) {
        move_operand(l, &a, d, bytes);
        x64_shift_ri(c, SHIFT_SHL, bytes, d, (unsigned)__builtin_ctzll(b.imm));
    } else if (b.kind == IN_CONST && (b.imm == 3 || b.imm == 5 || b.imm == 9)) {
        unsigned r = gpr_of(l, &a, bytes, RAX);
        x64_lea(c, bytes, d, x64_at_index(r, r, b.imm == 3 ? 1 : b.imm == 5 ? 2 : 3, 0));
    } else if (b.kind == IN_CONST && (bytes == 4 || x64_fits_s32(b.imm))) {
        bool small = x64_fits_s8((s32)b.imm);
        x64_rr(c, w | (small ? 0x6b : 0x69), d, gpr_of(l, &a, bytes, RAX));
        if (small)
            x64_byte(c, (u8)b.imm);
        else
            x64_u32(c, (u32)b.imm);
    } else {
        move_operand(l, &a, d, bytes);
        if (b.kind == IN_MEM)
            x64_rm(c, w | X64_0F | 0xaf, d, b.mem);
        else
            x64_rr(c, w | X64_0F | 0xaf, d, gpr_of(l, &b, bytes, RCX));
    }
    result_done(l, ref, d);
}

/* Group 3 with an implied rax/rdx on an operand that may be in memory. */
static void unary_operand(struct lowering *l, enum x64_unary op, unsigned bytes,
                          const struct operand *o)
{
    if (o->kind == IN_MEM)
        x64_unary_m(&l->code, op, bytes, o->mem);
    else
        x64_unary_r(&l->code, op, bytes, gpr_of(l, o, bytes, RCX));
}

LOWER(umulh)
{
    struct operand b = operand_at(l, inst->b, false);

    operand_move(l, inst->a, RAX, 8);
    unary_operand(l, inst->op == IR_umulh ? UNARY_MUL : UNARY_IMUL, 8, &b);
    result_from(l, ref, RDX, 8);
}

LOWER(div)
{
    unsigned bytes = wide_bytes(inst->type);
    bool is_signed = inst->op == IR_sdiv || inst->op == IR_srem;
    struct operand b = operand_at(l, inst->b, false);

    operand_move(l, inst->a, RAX, bytes);
    if (is_signed) { /* cdq, cqo */
        if (bytes == 8)
            x64_byte(&l->code, 0x48);
        x64_byte(&l->code, 0x99);
    } else {
        x64_alu_rr(&l->code, ALU_XOR, 4, RDX, RDX);
    }
    unary_operand(l, is_signed ? UNARY_IDIV : UNARY_DIV, bytes, &b);
    result_from(l, ref, inst->op == IR_udiv || inst->op == IR_sdiv ? RAX : RDX, bytes);
}

LOWER(div2)
{
    struct operand divisor = operand_at(l, inst->c, false);

    operand_move(l, inst->a, RDX, 8);
    operand_move(l, inst->b, RAX, 8);
    unary_operand(l, UNARY_DIV, 8, &divisor);
    result_from(l, ref, inst->op == IR_udiv2 ? RAX : RDX, 8);
}

LOWER(unary)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);

    operand_move(l, inst->a, d, bytes);
    if (inst->type == IR_I1)
        x64_alu_ri(&l->code, ALU_XOR, 4, d, 1);
    else
        x64_unary_r(&l->code, inst->op == IR_neg ? UNARY_NEG : UNARY_NOT, bytes, d);
    result_done(l, ref, d);
}

/* --- logic -------------------------------------------------------------------------------- */

/* Masks that are moves; true when done. */
static bool and_as_move(struct lowering *l, const struct operand *a, u64 mask, unsigned d)
{
    unsigned from = mask == 0xff ? 1 : mask == 0xffff ? 2 : mask == 0xffffffff ? 4 : 0;

    if (!from)
        return false;
    if (a->kind == IN_MEM)
        x64_load(&l->code, from, d, a->mem);
    else
        x64_movzx(&l->code, from, d, gpr_of(l, a, 8, RAX));
    return true;
}

LOWER(logic)
{
    enum x64_alu alu = inst->op == IR_and ? ALU_AND : inst->op == IR_or ? ALU_OR : ALU_XOR;
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false), b = operand_at(l, inst->b, false);

    order_pair(&a, &b, d);
    if (alu == ALU_AND && b.kind == IN_CONST) {
        if (inst->type >= IR_I32 && and_as_move(l, &a, b.imm, d)) {
            result_done(l, ref, d);
            return;
        }
        if (b.imm <= INT32_MAX)
            bytes = 4; /* clears the upper half just as well */
    }
    move_operand(l, &a, d, bytes);
    alu_operand(l, alu, bytes, d, &b, RCX);
    result_done(l, ref, d);
}

/* --- shifts ------------------------------------------------------------------------------- */

/* The operand of a right shift of a narrow type, extended so that 32-bit shifts do. */
static void move_extended(struct lowering *l, const struct operand *a, unsigned type, bool sign,
                          unsigned d)
{
    unsigned bytes = type_bytes(type);
    struct x64 *c = &l->code;

    if (a->kind == IN_CONST)
        x64_mov_ri(c, d,
                   sign ? (u32)(bytes == 1 ? (s8)a->imm : (s16)a->imm)
                        : a->imm & (bytes == 1 ? 0xff : 0xffff));
    else if (a->kind == IN_MEM && sign)
        x64_movsx_m(c, bytes, 4, d, a->mem);
    else if (a->kind == IN_MEM)
        x64_load(c, bytes, d, a->mem);
    else if (sign)
        x64_movsx(c, bytes, 4, d, gpr_of(l, a, 8, RAX));
    else
        x64_movzx(c, bytes, d, gpr_of(l, a, 8, RAX));
}

/* BMI2's three-operand shifts leave the flags alone and need no rcx. */
static bool shift_bmi2(struct lowering *l, ir_ref ref, const struct ir_inst *inst,
                       const struct operand *a, const struct operand *count)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX), from, by;
    u32 prefix = inst->op == IR_shl ? X64_66 : inst->op == IR_shr ? X64_F2 : X64_F3;

    if (!(l->abi->features & HOST_FEATURE_BMI2) || inst->type < IR_I32 || inst->op > IR_sar)
        return false;
    from = gpr_of(l, a, bytes, RAX);
    by = gpr_of(l, count, 1, RCX);
    x64_vex_rr(&l->code, prefix | X64_0F38 | (bytes == 8 ? X64_W : 0) | 0xf7, d, by, from);
    result_done(l, ref, d);
    return true;
}

LOWER(shift)
{
    static const u8 kinds[] = {SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFT_ROL, SHIFT_ROR};
    enum x64_shift kind = kinds[inst->op - IR_shl];
    unsigned type = inst->type, bits = type_bytes(type) * 8, d = result_gpr(l, ref, RAX);
    bool narrow = type < IR_I32, rotate = inst->op == IR_rol || inst->op == IR_ror;
    unsigned bytes = rotate ? type_bytes(type) : wide_bytes(type);
    struct operand a = operand_at(l, inst->a, false), b = operand_at(l, inst->b, false);

    if (b.kind != IN_CONST) {
        if (shift_bmi2(l, ref, inst, &a, &b))
            return;
        move_operand(l, &b, RCX, 1);
        if (narrow && !rotate)
            x64_alu_ri(&l->code, ALU_AND, 4, RCX, (s32)bits - 1);
    }
    if (narrow && (kind == SHIFT_SHR || kind == SHIFT_SAR))
        move_extended(l, &a, type, kind == SHIFT_SAR, d);
    else
        move_operand(l, &a, d, wide_bytes(type));
    if (b.kind != IN_CONST)
        x64_shift_cl(&l->code, kind, bytes, d);
    else if (b.imm & (bits - 1))
        x64_shift_ri(&l->code, kind, bytes, d, b.imm & (bits - 1));
    else if (type == IR_I32)
        x64_mov_rr(&l->code, 4, d, d);
    result_done(l, ref, d);
}

LOWER(funnel)
{
    u32 op = X64_0F | (inst->op == IR_fshl ? 0xa4 : 0xac) | (inst->type == IR_I64 ? X64_W : 0);
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX), other;
    struct operand a = operand_at(l, inst->a, true), b = operand_at(l, inst->b, true);
    struct operand count = operand_at(l, inst->c, true);

    if (count.kind != IN_CONST)
        move_operand(l, &count, RCX, 1);
    move_operand(l, &a, d, bytes);
    other = gpr_of(l, &b, bytes, RDX);
    if (count.kind == IN_CONST) {
        x64_rr(&l->code, op, other, d);
        x64_byte(&l->code, count.imm & (bytes * 8 - 1));
    } else {
        x64_rr(&l->code, op | 1, other, d);
    }
    result_done(l, ref, d);
}

/* --- bit counts --------------------------------------------------------------------------- */

LOWER(count_zeros)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX), bits = bytes * 8, from;
    u32 w = bytes == 8 ? X64_W : 0;
    struct operand a = operand_at(l, inst->a, false);
    struct x64 *c = &l->code;
    bool leading = inst->op == IR_clz;

    from = gpr_of(l, &a, bytes, RDX);
    if (l->abi->features & (leading ? HOST_FEATURE_LZCNT : HOST_FEATURE_BMI1)) {
        x64_rr(c, X64_F3 | X64_0F | w | (leading ? 0xbd : 0xbc), d, from);
    } else {
        /* bsr and bsf leave the zero flag and an undefined result for zero. */
        x64_mov_ri(c, RCX, leading ? 2 * bits - 1 : bits);
        x64_rr(c, X64_0F | w | (leading ? 0xbd : 0xbc), RAX, from);
        x64_cmov(c, CC_E, bytes, RAX, RCX);
        if (leading)
            x64_alu_ri(c, ALU_XOR, 4, RAX, (s32)bits - 1);
        if (d != RAX)
            x64_mov_rr(c, 4, d, RAX);
    }
    result_done(l, ref, d);
}

LOWER(popcnt)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false);

    x64_rr(&l->code, X64_F3 | X64_0F | (bytes == 8 ? X64_W : 0) | 0xb8, d,
           gpr_of(l, &a, bytes, RAX));
    result_done(l, ref, d);
}

LOWER(bswap)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);

    operand_move(l, inst->a, d, bytes);
    if (bytes == 8 || d >= 8)
        x64_byte(&l->code, 0x40 | (bytes == 8 ? 8 : 0) | d >> 3);
    x64_byte(&l->code, 0x0f);
    x64_byte(&l->code, 0xc8 | (d & 7));
    result_done(l, ref, d);
}

/* --- conditions --------------------------------------------------------------------------- */

struct condition condition_not(struct condition c)
{
    c.cc ^= 1;
    if (c.parity)
        c.parity = c.parity == AND_NOT_PARITY ? OR_PARITY : AND_NOT_PARITY;
    return c;
}

/* test x, y for the zero flag alone. */
static void test_operands(struct lowering *l, unsigned bytes, struct operand a, struct operand b)
{
    struct x64 *c = &l->code;
    unsigned load = bytes;
    u64 mask;

    if (a.kind == IN_CONST) {
        struct operand t = a;
        a = b;
        b = t;
    }
    mask = b.kind != IN_CONST ? 0 : bytes == 8 ? b.imm : b.imm & ((1ull << bytes * 8) - 1);
    if (b.kind == IN_CONST && (bytes < 8 || x64_fits_s32(b.imm))) {
        if (bytes > 1 && mask <= 0x7f)
            bytes = 1; /* the mask lies in the low byte */
        else if (bytes == 2 || (bytes == 8 && mask <= INT32_MAX))
            bytes = 4;
        if (a.kind == IN_MEM && bytes <= 1)
            x64_test_mi(c, bytes, a.mem, (s32)mask);
        else
            x64_test_ri(c, bytes, gpr_of(l, &a, load, RAX), (s32)mask);
        return;
    }
    x64_test_rr(c, bytes, gpr_of(l, &a, bytes, RAX), gpr_of(l, &b, bytes, RCX));
}

/* cmp a, b of @bytes. */
static void compare_operands(struct lowering *l, unsigned bytes, struct operand a, struct operand b)
{
    struct x64 *c = &l->code;
    bool immediate = b.kind == IN_CONST && (bytes < 8 || x64_fits_s32(b.imm));

    if (a.kind == IN_REG && b.kind == IN_CONST && !b.imm)
        x64_test_rr(c, bytes, a.reg, a.reg);
    else if (a.kind == IN_MEM && immediate)
        x64_alu_mi(c, ALU_CMP, bytes, a.mem,
                   bytes == 1   ? (s8)b.imm
                   : bytes == 2 ? (s16)b.imm
                                : (s32)b.imm);
    else if (a.kind == IN_MEM && b.kind == IN_REG)
        x64_alu_mr(c, ALU_CMP, bytes, a.mem, b.reg);
    else
        alu_operand(l, ALU_CMP, bytes, gpr_of(l, &a, bytes, RAX), &b, RCX);
}

struct condition compare_flags(struct lowering *l, const struct ir_inst *compare)
{
    static const u8 codes[] = {CC_E, CC_NE, CC_B, CC_BE, CC_L, CC_LE};
    static const u8 swapped[] = {CC_E, CC_NE, CC_A, CC_AE, CC_G, CC_GE};
    unsigned bytes = type_bytes(ir_typeof(l->unit, compare->a));
    ir_ref test = plan_test(l, compare);
    struct operand a, b;

    if (compare->op >= IR_feq && compare->op <= IR_fleq)
        return compare_fp_flags(l, compare);
    if (test) {
        const struct ir_inst *and = ir_inst(l->unit, test);

        test_operands(l, bytes, operand_at(l, and->a, false), operand_at(l, and->b, false));
        return (struct condition){codes[compare->op - IR_eq], 0};
    }
    a = operand_at(l, compare->a, false);
    if (compare->op == IR_parity) {
        unsigned r = gpr_of(l, &a, 1, RAX);

        x64_test_rr(&l->code, 1, r, r);
        return (struct condition){CC_P, 0};
    }
    if (compare->op == IR_trunc) {
        test_operands(l, 1, a, (struct operand){.kind = IN_CONST, .imm = 1});
        return (struct condition){CC_NE, 0};
    }
    b = operand_at(l, compare->b, false);
    if (a.kind == IN_CONST && b.kind != IN_CONST) {
        compare_operands(l, bytes, b, a);
        return (struct condition){swapped[compare->op - IR_eq], 0};
    }
    compare_operands(l, bytes, a, b);
    return (struct condition){codes[compare->op - IR_eq], 0};
}

struct condition condition_flags(struct lowering *l, ir_ref ref)
{
    bool invert;
    ir_ref compare = plan_condition(l, ref, l->pos, &invert);
    struct condition c;
    unsigned r;

    if (compare) {
        c = compare_flags(l, ir_inst(l->unit, compare));
        return invert ? condition_not(c) : c;
    }
    r = operand_gpr(l, ref, RAX, true);
    x64_test_rr(&l->code, 4, r, r);
    return (struct condition){CC_NE, 0};
}

static u8 *jump_or_parity(struct lowering *l, struct condition c)
{
    u8 *taken = x64_jcc8_later(&l->code, c.cc), *not_taken = x64_jcc8_later(&l->code, CC_NP),
       *place;

    x64_land8(&l->code, taken);
    place = x64_jmp_later(&l->code);
    x64_land8(&l->code, not_taken);
    return place;
}

u8 *condition_jump(struct lowering *l, struct condition c)
{
    u8 *not_taken, *place;

    if (c.parity == OR_PARITY)
        return jump_or_parity(l, c);
    if (c.parity == PARITY_IGNORED)
        return x64_jcc_later(&l->code, c.cc);
    not_taken = x64_jcc8_later(&l->code, CC_P);
    place = x64_jcc_later(&l->code, c.cc);
    x64_land8(&l->code, not_taken);
    return place;
}

u8 *condition_jump_aligned(struct lowering *l, struct condition c)
{
    align_displacement(l, c.parity == OR_PARITY ? 5 : c.parity ? 4 : 2);
    return condition_jump(l, c);
}

LOWER(compare)
{
    unsigned d = result_gpr(l, ref, RAX);
    struct condition cond = compare_flags(l, inst);
    struct x64 *c = &l->code;

    if (cond.parity) {
        x64_setcc(c, cond.parity == AND_NOT_PARITY ? CC_NP : CC_P, RCX);
        x64_setcc(c, cond.cc, RAX);
        x64_alu_rr(c, cond.parity == AND_NOT_PARITY ? ALU_AND : ALU_OR, 4, RAX, RCX);
        x64_movzx(c, 1, d, RAX);
    } else {
        x64_setcc(c, cond.cc, d);
        x64_movzx(c, 1, d, d);
    }
    result_done(l, ref, d);
}

/* --- selection ---------------------------------------------------------------------------- */

static void sel_xmm(struct lowering *l, ir_ref ref, const struct ir_inst *inst,
                    struct condition cond)
{
    unsigned d = result_xmm(l, ref, XMM15);
    struct operand b = operand_at(l, inst->b, false);
    bool inverse = b.kind == IN_REG && b.reg == d;
    u8 *skip;

    operand_xmm_move(l, inverse ? inst->b : inst->c, d);
    skip = condition_jump(l, inverse ? cond : condition_not(cond));
    operand_xmm_move(l, inverse ? inst->c : inst->b, d);
    x64_land(&l->code, skip);
    result_xmm_done(l, ref, d);
}

/* d = cond ? d : other, where the flags say cond. */
static void cmov_unless(struct lowering *l, struct condition cond, unsigned bytes, unsigned d,
                        const struct operand *other)
{
    unsigned r = gpr_of(l, other, bytes, RCX);

    cond = condition_not(cond);
    if (cond.parity == AND_NOT_PARITY) {
        /* Both must hold: go through a copy that keeps d where parity is set. */
        x64_mov_rr(&l->code, 8, RDX, r);
        x64_cmov(&l->code, CC_P, 8, RDX, d);
        x64_cmov(&l->code, cond.cc, bytes, d, RDX);
        return;
    }
    x64_cmov(&l->code, cond.cc, bytes, d, r);
    if (cond.parity == OR_PARITY)
        x64_cmov(&l->code, CC_P, bytes, d, r);
}

LOWER(sel)
{
    unsigned bytes = wide_bytes(inst->type), d;
    struct condition cond = condition_flags(l, inst->a);
    struct operand b, c;

    if (is_xmm_type(inst->type)) {
        sel_xmm(l, ref, inst, cond);
        return;
    }
    d = result_gpr(l, ref, RAX);
    b = operand_at(l, inst->b, inst->type == IR_I1);
    c = operand_at(l, inst->c, inst->type == IR_I1);
    if (c.kind == IN_REG && c.reg == d) {
        cmov_unless(l, condition_not(cond), bytes, d, &b);
    } else {
        move_operand(l, &b, d, bytes);
        cmov_unless(l, cond, bytes, d, &c);
    }
    result_done(l, ref, d);
}

/* --- width -------------------------------------------------------------------------------- */

LOWER(zext)
{
    unsigned d = result_gpr(l, ref, RAX), type = ir_typeof(l->unit, inst->a);
    struct operand a = operand_at(l, inst->a, type == IR_I1);

    if (type == IR_I1)
        move_operand(l, &a, d, 4);
    else if (a.kind == IN_MEM)
        x64_load(&l->code, type_bytes(type), d, a.mem);
    else
        x64_movzx(&l->code, type_bytes(type), d, gpr_of(l, &a, type_bytes(type), RAX));
    result_done(l, ref, d);
}

LOWER(sext)
{
    unsigned d = result_gpr(l, ref, RAX), from = ir_typeof(l->unit, inst->a);
    struct operand a = operand_at(l, inst->a, from == IR_I1);
    unsigned to = wide_bytes(inst->type);

    if (from == IR_I1) {
        move_operand(l, &a, d, 4);
        x64_unary_r(&l->code, UNARY_NEG, to, d);
    } else if (a.kind == IN_MEM) {
        x64_movsx_m(&l->code, type_bytes(from), to, d, a.mem);
    } else {
        x64_movsx(&l->code, type_bytes(from), to, d, gpr_of(l, &a, type_bytes(from), RAX));
    }
    result_done(l, ref, d);
}

LOWER(trunc)
{
    unsigned d = result_gpr(l, ref, RAX);
    struct operand a = operand_at(l, inst->a, false);

    if (a.kind == IN_REG)
        x64_mov_rr(&l->code, 4, d, a.reg);
    else if (a.kind == IN_MEM)
        x64_load(&l->code, inst->type == IR_I32 ? 4 : 1, d, a.mem);
    else
        move_operand(l, &a, d, a.kind == IN_CONST ? 4 : 8);
    if (a.kind == IN_BASE && inst->type == IR_I32)
        x64_mov_rr(&l->code, 4, d, d);
    if (inst->type == IR_I1)
        x64_alu_ri(&l->code, ALU_AND, 4, d, 1);
    result_done(l, ref, d);
}

LOWER(extract)
{
    unsigned d = result_gpr(l, ref, RAX), from = ir_typeof(l->unit, inst->a);
    unsigned bytes = wide_bytes(from), shift = (unsigned)inst->imm;
    struct operand a = operand_at(l, inst->a, false);

    if (a.kind == IN_MEM && shift % 8 == 0) {
        a.mem.disp += (s32)shift / 8;
        x64_load(&l->code, type_bytes(inst->type), d, a.mem);
        result_done(l, ref, d);
        return;
    }
    /* Of a narrow operand the bits above are garbage, and land above the result's. */
    if (shift < 32 && shift + type_bytes(inst->type) * 8 <= 32 && inst->type != IR_I32)
        bytes = 4;
    move_operand(l, &a, d, bytes);
    if (shift)
        x64_shift_ri(&l->code, SHIFT_SHR, bytes, d, shift);
    if (inst->type == IR_I32 && shift < 32)
        x64_mov_rr(&l->code, 4, d, d);
    result_done(l, ref, d);
}

/* Any field: clear, shift into place, or. */
static void deposit_bits(struct lowering *l, const struct operand *a, const struct operand *b,
                         unsigned bytes, unsigned field, unsigned shift, unsigned d)
{
    u64 mask = ((1ull << field) - 1) << shift;
    struct operand keep = {.kind = IN_CONST, .imm = ~mask};
    struct x64 *c = &l->code;

    if (b->kind == IN_CONST) {
        x64_mov_ri(c, RDX, (b->imm & (mask >> shift)) << shift);
    } else {
        unsigned r = gpr_of(l, b, field / 8, RDX);
        x64_movzx(c, field / 8, RDX, r);
        if (shift)
            x64_shift_ri(c, SHIFT_SHL, bytes, RDX, shift);
    }
    move_operand(l, a, d, bytes);
    alu_operand(l, ALU_AND, bytes, d, &keep, RCX);
    x64_alu_rr(c, ALU_OR, bytes, d, RDX);
}

LOWER(deposit)
{
    unsigned bytes = wide_bytes(inst->type), d = result_gpr(l, ref, RAX);
    unsigned field = type_bytes(ir_typeof(l->unit, inst->b)), shift = (unsigned)inst->imm;
    struct operand a = operand_at(l, inst->a, true), b = operand_at(l, inst->b, true);
    struct x64 *c = &l->code;

    if (field == 1 && (shift == 0 || shift == 8)) {
        /* Byte registers; ah only goes with operands that need no REX. */
        unsigned r = gpr_of(l, &b, 1, RCX), to = shift ? RAX : d;

        if (shift && r != RCX)
            x64_mov_rr(c, 4, RCX, r);
        move_operand(l, &a, to, bytes);
        if (shift)
            x64_rr(c, 0x88, RCX, 4 /* ah */);
        else
            x64_mov_rr(c, 1, d, r);
        if (to != d)
            x64_mov_rr(c, bytes, d, to);
    } else if (field == 2 && shift == 0) {
        unsigned r = gpr_of(l, &b, 2, RCX);

        move_operand(l, &a, d, bytes);
        x64_mov_rr(c, 2, d, r);
    } else {
        deposit_bits(l, &a, &b, bytes, field * 8, shift, d);
    }
    result_done(l, ref, d);
}
