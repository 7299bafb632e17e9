/* Builders by name. Included by ir/ir.h only. */
#ifndef TRIODE_IR_BUILD_H
#define TRIODE_IR_BUILD_H

#define IR_UNARY(name)                                                                             \
    static inline ir_ref ir_##name(struct ir_unit *u, ir_ref a)                                    \
    {                                                                                              \
        return ir_emit(u, IR_##name, ir_typeof(u, a), a, 0, 0, 0, 0);                              \
    }
#define IR_BINARY(name)                                                                            \
    static inline ir_ref ir_##name(struct ir_unit *u, ir_ref a, ir_ref b)                          \
    {                                                                                              \
        return ir_emit(u, IR_##name, ir_typeof(u, a), a, b, 0, 0, 0);                              \
    }
#define IR_TERNARY(name)                                                                           \
    static inline ir_ref ir_##name(struct ir_unit *u, ir_ref a, ir_ref b, ir_ref c)                \
    {                                                                                              \
        return ir_emit(u, IR_##name, ir_typeof(u, a), a, b, c, 0, 0);                              \
    }
#define IR_COMPARE(name)                                                                           \
    static inline ir_ref ir_##name(struct ir_unit *u, ir_ref a, ir_ref b)                          \
    {                                                                                              \
        return ir_emit(u, IR_##name, IR_I1, a, b, 0, 0, 0);                                        \
    }
#define IR_CONVERT(name)                                                                           \
    static inline ir_ref ir_##name(struct ir_unit *u, enum ir_type type, ir_ref a)                 \
    {                                                                                              \
        return ir_emit(u, IR_##name, type, a, 0, 0, 0, 0);                                         \
    }

/* clang-format off */
IR_UNARY(neg) IR_UNARY(not) IR_UNARY(clz) IR_UNARY(ctz) IR_UNARY(popcnt) IR_UNARY(bswap)
IR_UNARY(fsqrt)
IR_BINARY(add) IR_BINARY(sub) IR_BINARY(mul) IR_BINARY(umulh) IR_BINARY(smulh)
IR_BINARY(udiv) IR_BINARY(urem) IR_BINARY(sdiv) IR_BINARY(srem)
IR_BINARY(and) IR_BINARY(or) IR_BINARY(xor)
IR_BINARY(shl) IR_BINARY(shr) IR_BINARY(sar) IR_BINARY(rol) IR_BINARY(ror)
IR_BINARY(fadd) IR_BINARY(fsub) IR_BINARY(fmul) IR_BINARY(fdiv) IR_BINARY(fmin) IR_BINARY(fmax)
IR_TERNARY(udiv2) IR_TERNARY(urem2) IR_TERNARY(fshl) IR_TERNARY(fshr)
IR_COMPARE(eq) IR_COMPARE(ne) IR_COMPARE(ult) IR_COMPARE(ule) IR_COMPARE(slt) IR_COMPARE(sle)
IR_COMPARE(feq) IR_COMPARE(funord) IR_COMPARE(flt) IR_COMPARE(fle) IR_COMPARE(fltq)
IR_COMPARE(fleq)
IR_CONVERT(zext) IR_CONVERT(sext) IR_CONVERT(trunc) IR_CONVERT(bitcast) IR_CONVERT(fcvt)
IR_CONVERT(scvtf) IR_CONVERT(fcvts) IR_CONVERT(fcvtzs)
/* clang-format on */

#undef IR_UNARY
#undef IR_BINARY
#undef IR_TERNARY
#undef IR_COMPARE
#undef IR_CONVERT

                                                static inline ir_ref
    ir_const(struct ir_unit *u, enum ir_type type, u64 value)
{
    return ir_emit(u, IR_const, type, 0, 0, 0, 0, value);
}

/* a * b + c, rounded once. */
static inline ir_ref ir_fma(struct ir_unit *u, ir_ref a, ir_ref b, ir_ref c)
{
    return ir_emit(u, IR_fma, ir_typeof(u, a), a, b, c, 0, 0);
}

static inline ir_ref ir_base(struct ir_unit *u)
{
    return ir_emit(u, IR_base, IR_I64, 0, 0, 0, 0, 0);
}

static inline ir_ref ir_base_plus(struct ir_unit *u, s64 offset)
{
    if (offset == (s32)offset)
        return ir_emit(u, IR_base, IR_I64, 0, 0, 0, 0, (u64)offset);
    return ir_add(u, ir_base(u), ir_const(u, IR_I64, (u64)offset));
}

static inline ir_ref ir_get(struct ir_unit *u, enum ir_type type, u32 slot)
{
    return ir_emit(u, IR_get, type, 0, 0, 0, 0, slot);
}

static inline void ir_put(struct ir_unit *u, u32 slot, ir_ref value)
{
    ir_emit(u, IR_put, IR_VOID, value, 0, 0, 0, slot);
}

/* sel: b if cond, else c. */
static inline ir_ref ir_sel(struct ir_unit *u, ir_ref cond, ir_ref b, ir_ref c)
{
    return ir_emit(u, IR_sel, ir_typeof(u, b), cond, b, c, 0, 0);
}

static inline ir_ref ir_parity(struct ir_unit *u, ir_ref a)
{
    return ir_emit(u, IR_parity, IR_I1, a, 0, 0, 0, 0);
}

static inline ir_ref ir_extract(struct ir_unit *u, enum ir_type type, ir_ref a, unsigned bit)
{
    return ir_emit(u, IR_extract, type, a, 0, 0, 0, bit);
}

static inline ir_ref ir_deposit(struct ir_unit *u, ir_ref a, ir_ref b, unsigned bit)
{
    return ir_emit(u, IR_deposit, ir_typeof(u, a), a, b, 0, 0, bit);
}

static inline ir_ref ir_fround(struct ir_unit *u, ir_ref a, unsigned mode)
{
    return ir_emit(u, IR_fround, ir_typeof(u, a), a, 0, 0, 0, mode);
}

static inline ir_ref ir_vec(struct ir_unit *u, ir_ref lo, ir_ref hi)
{
    return ir_emit(u, IR_vec, IR_V128, lo, hi, 0, 0, 0);
}

static inline ir_ref ir_vlo(struct ir_unit *u, ir_ref v)
{
    return ir_emit(u, IR_vlo, IR_I64, v, 0, 0, 0, 0);
}

static inline ir_ref ir_vhi(struct ir_unit *u, ir_ref v)
{
    return ir_emit(u, IR_vhi, IR_I64, v, 0, 0, 0, 0);
}

/* Numbers in vectors: f32 or f64 in the lowest lane. */
static inline ir_ref ir_vlow(struct ir_unit *u, enum ir_type type, ir_ref v)
{
    return ir_emit(u, IR_vlow, type, v, 0, 0, 0, 0);
}

static inline ir_ref ir_vzext(struct ir_unit *u, ir_ref number)
{
    return ir_emit(u, IR_vzext, IR_V128, number, 0, 0, 0, 0);
}

static inline ir_ref ir_vmerge(struct ir_unit *u, ir_ref v, ir_ref number)
{
    return ir_emit(u, IR_vmerge, IR_V128, v, number, 0, 0, 0);
}

/* Guest memory at addr + disp. */
static inline ir_ref ir_ld(struct ir_unit *u, enum ir_type type, ir_ref addr, s64 disp)
{
    return ir_emit(u, IR_ld, type, addr, 0, 0, 0, (u64)disp);
}

static inline void ir_st(struct ir_unit *u, ir_ref addr, s64 disp, ir_ref value)
{
    ir_emit(u, IR_st, IR_VOID, addr, value, 0, 0, (u64)disp);
}

/* op: IR_axchg, IR_aadd, IR_aand, IR_aor, IR_axor. Answers the old value. */
static inline ir_ref ir_atomic(struct ir_unit *u, enum ir_op op, ir_ref addr, s64 disp,
                               ir_ref value)
{
    return ir_emit(u, op, ir_typeof(u, value), addr, value, 0, 0, (u64)disp);
}

static inline ir_ref ir_acas(struct ir_unit *u, ir_ref addr, s64 disp, ir_ref expected,
                             ir_ref desired)
{
    return ir_emit(u, IR_acas, ir_typeof(u, expected), addr, expected, desired, 0, (u64)disp);
}

static inline void ir_fence(struct ir_unit *u)
{
    ir_emit(u, IR_fence, IR_VOID, 0, 0, 0, 0, 0);
}

/* type IR_VOID for no result; unused operands IR_NONE. */
static inline ir_ref ir_call(struct ir_unit *u, enum ir_type type, u32 helper, ir_ref a, ir_ref b,
                             ir_ref c, ir_ref d)
{
    return ir_emit(u, IR_call, type, a, b, c, d, helper);
}

static inline ir_ref ir_phi(struct ir_unit *u, enum ir_type type)
{
    return ir_emit(u, IR_phi, type, 0, 0, 0, 0, 0);
}

static inline void ir_set(struct ir_unit *u, ir_ref phi, ir_ref value)
{
    ir_emit(u, IR_set, IR_VOID, value, 0, 0, 0, phi);
}

static inline void ir_jump(struct ir_unit *u, u32 block)
{
    ir_emit(u, IR_jump, IR_VOID, 0, 0, 0, 0, block);
}

static inline void ir_branch(struct ir_unit *u, ir_ref cond, u32 then, u32 otherwise)
{
    ir_emit(u, IR_branch, IR_VOID, cond, 0, 0, 0, then | (u64)otherwise << 32);
}

static inline void ir_insn(struct ir_unit *u, u32 offset, u32 length)
{
    ir_emit(u, IR_insn, IR_VOID, 0, 0, 0, 0, offset | (u64)length << 32);
}

static inline void ir_poll(struct ir_unit *u)
{
    ir_emit(u, IR_poll, IR_VOID, 0, 0, 0, 0, 0);
}

static inline void ir_goto(struct ir_unit *u, s64 offset)
{
    ir_emit(u, IR_goto, IR_VOID, 0, 0, 0, 0, (u64)offset);
}

static inline void ir_goto_if(struct ir_unit *u, ir_ref cond, s64 offset)
{
    ir_emit(u, IR_goto_if, IR_VOID, cond, 0, 0, 0, (u64)offset);
}

static inline void ir_goto_ind(struct ir_unit *u, ir_ref address)
{
    ir_emit(u, IR_goto_ind, IR_VOID, address, 0, 0, 0, 0);
}

static inline void ir_exit(struct ir_unit *u, u32 code)
{
    ir_emit(u, IR_exit, IR_VOID, 0, 0, 0, 0, code);
}

static inline void ir_exit_if(struct ir_unit *u, ir_ref cond, u32 code)
{
    ir_emit(u, IR_exit_if, IR_VOID, cond, 0, 0, 0, code);
}

#endif
