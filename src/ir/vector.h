/* What the expression column of ops_vector.def means, and its functions. Private to src/ir. */
#ifndef TRIODE_IR_VECTOR_H
#define TRIODE_IR_VECTOR_H

#include "ir/value.h"

/* Saturation of a value that is out of a lane's range. */
static inline s8 ir_sat_s8(s32 v)
{
    return (s8)(v > 127 ? 127 : v < -127 - 1 ? -127 - 1 : v);
}

static inline u8 ir_sat_u8(s32 v)
{
    return (u8)(v > 255 ? 255 : v < 0 ? 0 : v);
}

static inline s16 ir_sat_s16(s32 v)
{
    return (s16)(v > 32767 ? 32767 : v < -32767 - 1 ? -32767 - 1 : v);
}

static inline u16 ir_sat_u16(s32 v)
{
    return (u16)(v > 65535 ? 65535 : v < 0 ? 0 : v);
}

/* The functions that rows name: ir_v_<name>(a, b, imm). */
/* clang-format off */
#define IR_VECTOR_FUNCTIONS(F)                                                                     \
    F(align) F(bshl) F(bshr) F(cvtf32f64) F(cvtf32s32) F(cvtf64f32) F(cvtf64s32) F(cvts32f32)      \
    F(cvts32f64) F(cvtzf32s32) F(cvtzf64s32) F(faddsub32) F(faddsub64) F(fcmp32) F(fcmp64)         \
    F(fcmplo32) F(fcmplo64) F(fhadd32) F(fhadd64) F(fhsub32) F(fhsub64) F(fround32) F(fround64)    \
    F(froundlo32) F(froundlo64) F(fsqrt32) F(fsqrt64) F(fsqrtlo32) F(fsqrtlo64) F(get16) F(get32)  \
    F(get64) F(get8) F(hadd16) F(hadd32) F(hadds16) F(hsub16) F(hsub32) F(hsubs16) F(insertps)     \
    F(madd16) F(maddub16) F(minpos) F(movmask32) F(movmask64) F(movmask8) F(mpsad) F(packss16)     \
    F(packss32) F(packus16) F(packus32) F(sad8) F(testc) F(testz) F(unpkhi16) F(unpkhi32)          \
    F(unpkhi64) F(unpkhi8) F(unpklo16) F(unpklo32) F(unpklo64) F(unpklo8)
/* clang-format on */
#define F(name)                                                                                    \
    union ir_value ir_v_##name(const union ir_value *a, const union ir_value *b, u64 imm);
IR_VECTOR_FUNCTIONS(F)
#undef F

#define VLANES(lane, body)                                                                         \
    for (unsigned i = 0; i < 16 / sizeof(lane); i++) {                                             \
        body                                                                                       \
    }
#define VEC1(lane, e)                                                                              \
    VLANES(lane, const lane x = a->lane[i]; const u64 q = b->q[0]; (void)x; (void)q;               \
           r.lane[i] = (lane)(e);)
#define VEC2(lane, e)                                                                              \
    VLANES(lane, const lane x = a->lane[i]; const lane y = b->lane[i]; (void)x; (void)y;           \
           r.lane[i] = (lane)(e);)
#define VEC3(lane, e)                                                                              \
    VLANES(lane, const lane x = a->lane[i]; const lane y = b->lane[i]; const lane z = c->lane[i];  \
           (void)x; (void)y; (void)z; r.lane[i] = (lane)(e);)
#define LOW(lane, e)                                                                               \
    const lane x = a->lane[0], y = b->lane[0];                                                     \
    (void)x, (void)y;                                                                              \
    r = *a;                                                                                        \
    r.lane[0] = (lane)(e);
#define VFUNC(name) r = ir_v_##name(a, b, imm);
#define VFUNC3(name) r = ir_v_##name(a, b, c, imm);

/* eval_vadd8(a, b, c, imm) and so on, one for each row; an operand that the row lacks is any valid
 * pointer. */
#define IR_OP(name, sig, types, flags, expr, doc)                                                  \
    static inline union ir_value eval_##name(const union ir_value *a, const union ir_value *b,     \
                                             const union ir_value *c, u64 imm)                     \
    {                                                                                              \
        union ir_value r = {{0}};                                                                  \
                                                                                                   \
        (void)a, (void)b, (void)c, (void)imm;                                                      \
        expr return r;                                                                             \
    }
#include "ir/ops_vector.def"
#undef IR_OP

#endif
