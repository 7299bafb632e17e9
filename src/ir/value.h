/* The interpreter's values. Private to src/ir. */
#ifndef TRIODE_IR_VALUE_H
#define TRIODE_IR_VALUE_H

#include "base/types.h"

typedef float f32;
typedef double f64;

/* A scalar is zero-extended in q[0]; i1 is 0 or 1. Lanes count from the low end. */
union ir_value {
    u64 q[2];
    u8 u8[16];
    u16 u16[8];
    u32 u32[4];
    u64 u64[2];
    s8 s8[16];
    s16 s16[8];
    s32 s32[4];
    s64 s64[2];
    f32 f32[4];
    f64 f64[2];
};

static inline f32 ir_f32(u64 bits)
{
    return ((union ir_value){.u32 = {(u32)bits}}).f32[0];
}

static inline f64 ir_f64(u64 bits)
{
    return ((union ir_value){.q = {bits}}).f64[0];
}

static inline u64 ir_bits_f32(f32 value)
{
    return ((union ir_value){.f32 = {value}}).u32[0];
}

static inline u64 ir_bits_f64(f64 value)
{
    return ((union ir_value){.f64 = {value}}).q[0];
}

static inline u64 ir_bits_int(u64 value)
{
    return value;
}

/* The bits of a C value by its C type; integers become u64. */
#define IR_BITS(e)                                                                                 \
    _Generic((e), float : ir_bits_f32, double : ir_bits_f64, default : ir_bits_int)(e)

/*
 * The result @r of arithmetic on @a and @b when it is a NaN: operand a's NaN made quiet, else b's,
 * else what the host gave. Spelt out because a compiler may swap the operands of a C sum, and done
 * on bits because comparing would raise the denormal flag.
 */
static inline f32 ir_fnan_f32(f32 r, f32 a, f32 b)
{
    u64 ab = ir_bits_f32(a), bb = ir_bits_f32(b);

    if (likely((ir_bits_f32(r) & 0x7fffffff) <= 0x7f800000))
        return r;
    if ((ab & 0x7fffffff) > 0x7f800000)
        return ir_f32(ab | 0x400000);
    return (bb & 0x7fffffff) > 0x7f800000 ? ir_f32(bb | 0x400000) : r;
}

static inline f64 ir_fnan_f64(f64 r, f64 a, f64 b)
{
    const u64 magnitude = ~0ull >> 1, infinity = 0x7ffull << 52, quiet = 1ull << 51;
    u64 ab = ir_bits_f64(a), bb = ir_bits_f64(b);

    if (likely((ir_bits_f64(r) & magnitude) <= infinity))
        return r;
    if ((ab & magnitude) > infinity)
        return ir_f64(ab | quiet);
    return (bb & magnitude) > infinity ? ir_f64(bb | quiet) : r;
}

#define ir_fnan(r, a, b) _Generic((r), float : ir_fnan_f32, double : ir_fnan_f64)(r, a, b)

/* What C leaves to the compiler: which comparison a conditional expression uses, and so whether a
 * quiet NaN raises the invalid flag. */
f32 ir_fmin_f32(f32 a, f32 b);
f64 ir_fmin_f64(f64 a, f64 b);
f32 ir_fmax_f32(f32 a, f32 b);
f64 ir_fmax_f64(f64 a, f64 b);
f32 ir_fma_f32(f32 a, f32 b, f32 c);
f64 ir_fma_f64(f64 a, f64 b, f64 c);
bool ir_fless_f32(f32 a, f32 b);
bool ir_fless_f64(f64 a, f64 b);
bool ir_fless_equal_f32(f32 a, f32 b);
bool ir_fless_equal_f64(f64 a, f64 b);

#endif
