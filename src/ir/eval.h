/*
 * The expression column of ops.def as C functions: the one place where scalar operations have their
 * meaning. Constant folder and interpreter use them. Private to src/ir, and to be compiled with
 * -frounding-math -ftrapping-math -fno-math-errno.
 */
#ifndef TRIODE_IR_EVAL_H
#define TRIODE_IR_EVAL_H

#include <math.h>

#include "base/bits.h"
#include "ir/ir.h"
#include "ir/value.h"

extern const u8 ir_bits_of[IR_TYPES];  /* width in bits, 0 for void */
extern const u64 ir_mask_of[IR_TYPES]; /* mask of the bits in q[0] */

/* Whether an expression column is FUNC, as 0 or 1 for the preprocessor. */
#define FUNC unused, 1
#define IR_SECOND(a, b, ...) b
#define IR_IS_FUNC(...) IR_SECOND(__VA_ARGS__, 0, 0)
#define IR_PASTE2(a, b) a##b
#define IR_PASTE(a, b) IR_PASTE2(a, b)

static inline u64 value_rotl(u64 v, u64 count, unsigned n)
{
    unsigned k = count & (n - 1);

    return k ? v << k | (v & mask_low(n)) >> (n - k) : v;
}

static inline u64 value_sdiv(s64 a, s64 b, unsigned n)
{
    if (b == 0 || (b == -1 && (u64)a == ~0ull << (n - 1)))
        return 0;
    return (u64)(a / b);
}

static inline u64 value_srem(s64 a, s64 b, unsigned n)
{
    if (b == 0 || (b == -1 && (u64)a == ~0ull << (n - 1)))
        return 0;
    return (u64)(a % b);
}

static inline u64 value_udiv2(u64 hi, u64 lo, u64 divisor)
{
    return divisor > hi ? (u64)(((u128)hi << 64 | lo) / divisor) : 0;
}

static inline u64 value_urem2(u64 hi, u64 lo, u64 divisor)
{
    return divisor > hi ? (u64)(((u128)hi << 64 | lo) % divisor) : 0;
}

static inline u64 value_fshl(u64 hi, u64 lo, u64 count, unsigned n)
{
    unsigned k = count & (n - 1);

    return k ? hi << k | lo >> (n - k) : hi;
}

static inline u64 value_fshr(u64 lo, u64 hi, u64 count, unsigned n)
{
    unsigned k = count & (n - 1);

    return k ? lo >> k | hi << (n - k) : lo;
}

static inline u64 value_clz(u64 v, unsigned n)
{
    return v ? (u64)__builtin_clzll(v) - (64 - n) : n;
}

static inline u64 value_ctz(u64 v, unsigned n)
{
    return v ? (u64)__builtin_ctzll(v) : n;
}

static inline u64 value_bswap(u64 v, unsigned n)
{
    return __builtin_bswap64(v) >> (64 - n);
}

static inline u64 value_insert(u64 a, u64 b, u64 bit, unsigned width)
{
    u64 mask = mask_low(width) << bit;

    return (a & ~mask) | (b << bit & mask);
}

#define value_fmin(a, b) _Generic((a), float : ir_fmin_f32, double : ir_fmin_f64)(a, b)
#define value_fmax(a, b) _Generic((a), float : ir_fmax_f32, double : ir_fmax_f64)(a, b)
#define value_fless(a, b) _Generic((a), float : ir_fless_f32, double : ir_fless_f64)(a, b)
#define value_fless_equal(a, b)                                                                    \
    _Generic((a), float : ir_fless_equal_f32, double : ir_fless_equal_f64)(a, b)

/* Rounds to an integral value as fround's imm says; exact about which flags are raised. */
f32 ir_fround_f32(f32 value, u64 mode);
f64 ir_fround_f64(f64 value, u64 mode);
#define value_fround(value, mode)                                                                  \
    _Generic((value), float : ir_fround_f32, double : ir_fround_f64)(value, mode)
#define value_fsqrt(value) _Generic((value), float : sqrtf, double : sqrt)(value)

/* @value, of type @from, to a signed integer of type @to; current rounding mode or towards zero. */
u64 ir_float_to_int(enum ir_type to, enum ir_type from, u64 value, bool to_zero);

#define IR_EVAL_1(name, ...)
#define IR_EVAL_0(name, is_float, ...)                                                             \
    static inline u64 eval_##name(enum ir_type type, enum ir_type ta, enum ir_type tb, u64 a,      \
                                  u64 b, u64 c, u64 imm)                                           \
    {                                                                                              \
        unsigned n = ir_bits_of[type], nb = ir_bits_of[tb];                                        \
                                                                                                   \
        (void)n, (void)nb, (void)ta, (void)a, (void)b, (void)c, (void)imm;                         \
        if (is_float && ta == IR_F32) {                                                            \
            float fa = ir_f32(a), fb = ir_f32(b);                                                  \
                                                                                                   \
            (void)fa, (void)fb;                                                                    \
            IR_OPERANDS_SIGNED                                                                     \
            return IR_BITS(__VA_ARGS__);                                                           \
        }                                                                                          \
        double fa = ir_f64(a), fb = ir_f64(b);                                                     \
                                                                                                   \
        (void)fa, (void)fb;                                                                        \
        IR_OPERANDS_SIGNED                                                                         \
        return IR_BITS(__VA_ARGS__);                                                               \
    }
#define IR_OPERANDS_SIGNED                                                                         \
    s64 sa = sign_extend(a, ir_bits_of[ta] ? ir_bits_of[ta] : 64);                                 \
    s64 sb = sign_extend(b, ir_bits_of[tb] ? ir_bits_of[tb] : 64);                                 \
    (void)sa, (void)sb;

/* eval_add(type, ta, tb, a, b, c, imm) and so on, one for each row with an expression; @ta and @tb
 * are the types of a and b. Bits above the result type's width are undefined. */
#define IR_OP(name, sig, types, flags, expr, doc)                                                  \
    IR_PASTE(IR_EVAL_, IR_IS_FUNC(expr))(name, __builtin_strstr(#expr, "fa") != NULL, expr)
#include "ir/ops.def"
#undef IR_OP

/* Value of an operation that ops.def has an expression for and that is no ENV operation; false for
 * any other. */
bool ir_eval(enum ir_op op, enum ir_type type, enum ir_type ta, enum ir_type tb, u64 a, u64 b,
             u64 c, u64 imm, u64 *result);

#endif
