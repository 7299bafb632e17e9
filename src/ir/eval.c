#include "ir/eval.h"

#include <fenv.h>

/*
 * Flags are raised by doing an operation that raises them: feraiseexcept may set them in another
 * unit of the host than the one that scalar arithmetic uses.
 */
static void raise_invalid(void)
{
    volatile f32 zero = 0;

    zero = zero / zero;
}

static void raise_inexact(void)
{
    volatile f32 sum = 1, tiny = 0x1p-30f;

    sum = sum + tiny;
}

/*
 * Whether the environment takes denormal operands for zeros, and @value as it is then taken. What
 * uses comparisons and bits instead of arithmetic has to ask.
 */
static bool denormals_are_zeros(void)
{
#ifdef __SSE__
    return __builtin_ia32_stmxcsr() & 0x40;
#else
    return false;
#endif
}

static f32 operand_f32(f32 value)
{
    u64 bits = ir_bits_f32(value);

    return !(bits & 0x7f800000) && denormals_are_zeros() ? ir_f32(bits & 0x80000000) : value;
}

static f64 operand_f64(f64 value)
{
    u64 bits = ir_bits_f64(value);

    return !(bits & 0x7ffull << 52) && denormals_are_zeros() ? ir_f64(bits & 1ull << 63) : value;
}

/* A signalling comparison is a quiet one and, for any NaN, the flag. */
#define SIGNALLING(type)                                                                           \
    static void signal_nan_##type(type a, type b)                                                  \
    {                                                                                              \
        if (isunordered(a, b))                                                                     \
            raise_invalid();                                                                       \
    }                                                                                              \
    type ir_fmin_##type(type a, type b)                                                            \
    {                                                                                              \
        signal_nan_##type(a, b);                                                                   \
        return operand_##type(isless(a, b) ? a : b);                                               \
    }                                                                                              \
    type ir_fmax_##type(type a, type b)                                                            \
    {                                                                                              \
        signal_nan_##type(a, b);                                                                   \
        return operand_##type(isgreater(a, b) ? a : b);                                            \
    }                                                                                              \
    bool ir_fless_##type(type a, type b)                                                           \
    {                                                                                              \
        signal_nan_##type(a, b);                                                                   \
        return isless(a, b);                                                                       \
    }                                                                                              \
    bool ir_fless_equal_##type(type a, type b)                                                     \
    {                                                                                              \
        signal_nan_##type(a, b);                                                                   \
        return islessequal(a, b);                                                                  \
    }
SIGNALLING(f32)
SIGNALLING(f64)

/* Whether infinity times zero plus a quiet NaN is invalid differs between hosts (IEEE 754 7.2): a
 * product with a zero is exact, and invalid if the other factor is infinite. */
#define FUSED(type, fma, nan)                                                                      \
    type ir_fma_##type(type a, type b, type c)                                                     \
    {                                                                                              \
        volatile type r = fma(a, b, c), product;                                                   \
                                                                                                   \
        if (!isunordered(r, r))                                                                    \
            return r;                                                                              \
        if (a == 0 || b == 0)                                                                      \
            product = a * b;                                                                       \
        (void)product;                                                                             \
        return nan;                                                                                \
    }
FUSED(f32, fmaf, ir_f32(0x7fc00000))
FUSED(f64, fma, ir_f64(0x7ff8ull << 48))

enum { ROUND_EVEN, ROUND_DOWN, ROUND_UP, ROUND_ZERO, ROUND_CURRENT, ROUND_QUIET = 8 };

f64 ir_fround_f64(f64 value, u64 mode)
{
    f64 r;

    value = operand_f64(value);
    switch (mode & 7) {
    case ROUND_EVEN:
        r = roundeven(value);
        break;
    case ROUND_DOWN:
        r = floor(value);
        break;
    case ROUND_UP:
        r = ceil(value);
        break;
    case ROUND_ZERO:
        r = trunc(value);
        break;
    default:
        r = nearbyint(value);
        break;
    }
    r = ir_fnan(r, value, value);
    /* An integral value comes back bit by bit; comparing bits raises nothing. */
    if (!(mode & ROUND_QUIET) && ir_bits_f64(r) != ir_bits_f64(value) &&
        (ir_bits_f64(r) & ~0ull >> 1) < 0x7ffull << 52)
        raise_inexact();
    return r;
}

f32 ir_fround_f32(f32 value, u64 mode)
{
    f32 r;

    value = operand_f32(value);
    switch (mode & 7) {
    case ROUND_EVEN:
        r = roundevenf(value);
        break;
    case ROUND_DOWN:
        r = floorf(value);
        break;
    case ROUND_UP:
        r = ceilf(value);
        break;
    case ROUND_ZERO:
        r = truncf(value);
        break;
    default:
        r = nearbyintf(value);
        break;
    }
    r = ir_fnan(r, value, value);
    if (!(mode & ROUND_QUIET) && ir_bits_f32(r) != ir_bits_f32(value) &&
        (ir_bits_f32(r) & 0x7fffffff) < 0x7f800000)
        raise_inexact();
    return r;
}

u64 ir_float_to_int(enum ir_type to, enum ir_type from, u64 value, bool to_zero)
{
    u64 mode = (to_zero ? ROUND_ZERO : ROUND_CURRENT) | ROUND_QUIET;
    u64 invalid = 1ull << (ir_bits_of[to] - 1);
    u64 rounded, bound, magnitude;
    f64 exact;

    /* f32 is not widened first: that would raise the denormal flag. */
    if (from == IR_F32) {
        f32 v = operand_f32(ir_f32(value)), r = ir_fround_f32(v, mode);

        value = ir_bits_f32(v);
        rounded = ir_bits_f32(r);
        if ((rounded & 0x7fffffff) > 0x7f800000) {
            raise_invalid();
            return invalid;
        }
        exact = r;
    } else {
        exact = operand_f64(ir_f64(value));
        value = ir_bits_f64(exact);
        exact = ir_fround_f64(exact, mode);
        rounded = ir_bits_f64(exact);
    }
    magnitude = ir_bits_f64(exact) & ~0ull >> 1;
    bound = ir_bits_f64(to == IR_I32 ? 0x1p31 : 0x1p63);
    if (magnitude > bound || (magnitude == bound && !(ir_bits_f64(exact) >> 63))) {
        raise_invalid();
        return invalid;
    }
    if (rounded != value)
        raise_inexact();
    return (u64)(s64)exact & mask_low(ir_bits_of[to]);
}

bool ir_eval(enum ir_op op, enum ir_type type, enum ir_type ta, enum ir_type tb, u64 a, u64 b,
             u64 c, u64 imm, u64 *result)
{
    u64 value;

    switch (op) {
#define IR_CASE_1(name)
#define IR_CASE_0(name)                                                                            \
    case IR_##name:                                                                                \
        value = eval_##name(type, ta, tb, a, b, c, imm);                                           \
        break;
#define IR_OP(name, sig, types, flags, expr, doc) IR_PASTE(IR_CASE_, IR_IS_FUNC(expr))(name)
#include "ir/ops.def"
#undef IR_OP
    default:
        return false;
    }
    if (ir_op_info[op].flags & IR_ENV)
        return false;
    *result = value & ir_mask_of[type];
    return true;
}
