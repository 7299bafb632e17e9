#include "guest/riscv/softfp.h"

#include "base/bits.h"
#include "guest/riscv/state.h"

struct format {
    int bits, precision, bias; /* precision counts the hidden bit */
};
static const struct format formats[] = {{32, 24, 127}, {64, 53, 1023}};

enum kind { ZERO, FINITE, INFINITE, QUIET, SIGNALLING };

/* (-1)^sign * significand * 2^(exponent - 63); FINITE has bit 63 of the significand set. */
struct number {
    enum kind kind;
    bool sign;
    int exponent;
    u64 significand;
};

static u64 sign_bit(const struct format *f)
{
    return 1ull << (f->bits - 1);
}

static u64 infinity(const struct format *f, bool sign)
{
    u64 exponent = mask_low((unsigned)(f->bits - f->precision)) << (f->precision - 1);

    return exponent | (sign ? sign_bit(f) : 0);
}

static u64 canonical_nan(const struct format *f)
{
    return infinity(f, false) | 1ull << (f->precision - 2);
}

static u64 zero(const struct format *f, bool sign)
{
    return sign ? sign_bit(f) : 0;
}

static struct number unpack(const struct format *f, u64 a)
{
    u64 fraction = a & mask_low((unsigned)f->precision - 1);
    int exponent = (int)((a & ~sign_bit(f)) >> (f->precision - 1));
    struct number n = {.sign = a >> (f->bits - 1) & 1};
    int shift;

    if (exponent == 2 * f->bias + 1) {
        n.kind = !fraction ? INFINITE : fraction >> (f->precision - 2) & 1 ? QUIET : SIGNALLING;
    } else if (exponent) {
        n.kind = FINITE;
        n.exponent = exponent - f->bias;
        n.significand = (fraction | 1ull << (f->precision - 1)) << (64 - f->precision);
    } else if (fraction) {
        shift = __builtin_clzll(fraction);
        n.kind = FINITE;
        n.exponent = 1 - f->bias - (shift - (64 - f->precision));
        n.significand = fraction << shift;
    }
    return n;
}

static bool is_nan(const struct number *n)
{
    return n->kind >= QUIET;
}

static u64 invalid(const struct format *f, u32 *flags)
{
    *flags |= RISCV_NV;
    return canonical_nan(f);
}

/* The result when an operand is a NaN. */
static u64 propagate(const struct format *f, bool signalling, u32 *flags)
{
    if (signalling)
        *flags |= RISCV_NV;
    return canonical_nan(f);
}

/* Shifts right; what falls out stays visible in the lowest bit. */
static u64 shift_jam(u64 v, unsigned n)
{
    if (!n)
        return v;
    return n > 63 ? v != 0 : v >> n | (v << (64 - n) != 0);
}

static u128 shift_jam128(u128 v, unsigned n)
{
    if (!n)
        return v;
    return n > 127 ? v != 0 : v >> n | (v << (128 - n) != 0);
}

/* Does what stands below bit @drop of @v round its magnitude up? */
static bool rounds_up(u64 v, unsigned drop, bool sign, unsigned rm)
{
    u64 rest = v & mask_low(drop), half = 1ull << (drop - 1);

    switch (rm) {
    case RISCV_RTZ:
        return false;
    case RISCV_RDN:
        return sign && rest;
    case RISCV_RUP:
        return !sign && rest;
    case RISCV_RMM:
        return rest >= half;
    default:
        return rest > half || (rest == half && v >> drop & 1);
    }
}

static u64 overflow(const struct format *f, bool sign, unsigned rm, u32 *flags)
{
    bool largest = rm == RISCV_RTZ || (rm == RISCV_RDN && !sign) || (rm == RISCV_RUP && sign);

    *flags |= RISCV_OF | RISCV_NX;
    return infinity(f, sign) - largest;
}

/* Rounds @n (bit 63 of the significand set, lowest bit sticky) to the format. */
static u64 pack(const struct format *f, struct number n, unsigned rm, u32 *flags)
{
    unsigned drop = 64 - (unsigned)f->precision;
    int least = 1 - f->bias;
    u64 rounded = (n.significand >> drop) + rounds_up(n.significand, drop, n.sign, rm);
    bool carried = rounded >> f->precision;

    if (n.exponent >= least) {
        if (n.significand & mask_low(drop))
            *flags |= RISCV_NX;
        if (n.exponent + carried > f->bias)
            return overflow(f, n.sign, rm, flags);
        /* A carry into the hidden bit's neighbour raises the exponent by itself. */
        return zero(f, n.sign) + ((u64)(n.exponent + f->bias - 1) << (f->precision - 1)) + rounded;
    }
    /* Tiny, unless rounding without a bound on the exponent reaches the least normal number. */
    n.significand = shift_jam(n.significand, (unsigned)(least - n.exponent));
    if (n.significand & mask_low(drop)) {
        *flags |= RISCV_NX;
        if (n.exponent < least - 1 || !carried)
            *flags |= RISCV_UF;
    }
    return zero(f, n.sign) + (n.significand >> drop) + rounds_up(n.significand, drop, n.sign, rm);
}

/* Rounds significand * 2^(exponent - 127), not 0, not normalised. */
static u64 pack128(const struct format *f, bool sign, int exponent, u128 significand, unsigned rm,
                   u32 *flags)
{
    u64 high = (u64)(significand >> 64);
    int shift = high ? __builtin_clzll(high) : 64 + __builtin_clzll((u64)significand);
    struct number n = {FINITE, sign, exponent - shift, 0};

    significand <<= shift;
    n.significand = (u64)(significand >> 64) | ((u64)significand != 0);
    return pack(f, n, rm, flags);
}

u64 softfp_mul(enum softfp_format format, u64 a, u64 b, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[format];
    struct number x = unpack(f, a), y = unpack(f, b);
    bool sign = x.sign ^ y.sign;

    if (is_nan(&x) || is_nan(&y))
        return propagate(f, x.kind == SIGNALLING || y.kind == SIGNALLING, flags);
    if ((x.kind == INFINITE && y.kind == ZERO) || (x.kind == ZERO && y.kind == INFINITE))
        return invalid(f, flags);
    if (x.kind == INFINITE || y.kind == INFINITE)
        return infinity(f, sign);
    if (x.kind == ZERO || y.kind == ZERO)
        return zero(f, sign);
    return pack128(f, sign, x.exponent + y.exponent + 1, (u128)x.significand * y.significand, rm,
                   flags);
}

/* A sum that may be zero: exponents are those of bit 126. */
static u64 add128(const struct format *f, bool sa, int ea, u128 a, bool sb, int eb, u128 b,
                  unsigned rm, u32 *flags)
{
    int exponent = ea > eb ? ea : eb;
    u128 sum;

    a = shift_jam128(a, (unsigned)(exponent - ea));
    b = shift_jam128(b, (unsigned)(exponent - eb));
    if (sa == sb) {
        sum = a + b;
    } else if (a >= b) {
        sum = a - b;
    } else {
        sum = b - a;
        sa = sb;
    }
    if (!sum)
        return zero(f, rm == RISCV_RDN);
    return pack128(f, sa, exponent + 1, sum, rm, flags);
}

u64 softfp_fma(enum softfp_format format, u64 a, u64 b, u64 c, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[format];
    struct number x = unpack(f, a), y = unpack(f, b), z = unpack(f, c);
    bool sign = x.sign ^ y.sign;
    u128 product;

    if ((x.kind == INFINITE && y.kind == ZERO) || (x.kind == ZERO && y.kind == INFINITE))
        return invalid(f, flags);
    if (is_nan(&x) || is_nan(&y) || is_nan(&z))
        return propagate(f, x.kind == SIGNALLING || y.kind == SIGNALLING || z.kind == SIGNALLING,
                         flags);
    if (x.kind == INFINITE || y.kind == INFINITE)
        return z.kind == INFINITE && z.sign != sign ? invalid(f, flags) : infinity(f, sign);
    if (z.kind == INFINITE)
        return c;
    if (x.kind == ZERO || y.kind == ZERO) {
        if (z.kind == ZERO)
            return zero(f, sign == z.sign ? sign : rm == RISCV_RDN);
        return pack(f, z, rm, flags);
    }
    product = (u128)x.significand * y.significand; /* its low bits are 0 */
    if (z.kind == ZERO)
        return pack128(f, sign, x.exponent + y.exponent + 1, product, rm, flags);
    return add128(f, sign, x.exponent + y.exponent + 1, product >> 1, z.sign, z.exponent,
                  (u128)z.significand << 63, rm, flags);
}

u64 softfp_add(enum softfp_format format, u64 a, u64 b, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[format];
    u64 one = (u64)f->bias << (f->precision - 1);

    return softfp_fma(format, a, one, b, rm, flags);
}

u64 softfp_div(enum softfp_format format, u64 a, u64 b, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[format];
    struct number x = unpack(f, a), y = unpack(f, b);
    bool sign = x.sign ^ y.sign;
    u128 dividend, quotient;

    if (is_nan(&x) || is_nan(&y))
        return propagate(f, x.kind == SIGNALLING || y.kind == SIGNALLING, flags);
    if (x.kind == y.kind && (x.kind == INFINITE || x.kind == ZERO))
        return invalid(f, flags);
    if (x.kind == INFINITE || y.kind == ZERO) {
        if (x.kind != INFINITE)
            *flags |= RISCV_DZ;
        return infinity(f, sign);
    }
    if (x.kind == ZERO || y.kind == INFINITE)
        return zero(f, sign);
    /* Twice as many bits as are kept, and the remainder as a sticky bit below them. */
    dividend = (u128)x.significand << 63;
    quotient = dividend / y.significand;
    return pack128(f, sign, x.exponent - y.exponent,
                   quotient << 64 | (dividend % y.significand != 0), rm, flags);
}

u64 softfp_sqrt(enum softfp_format format, u64 a, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[format];
    struct number x = unpack(f, a);
    u128 rest;
    u64 root = 0;

    if (is_nan(&x))
        return propagate(f, x.kind == SIGNALLING, flags);
    if (x.kind == ZERO)
        return a;
    if (x.sign)
        return invalid(f, flags);
    if (x.kind == INFINITE)
        return a;
    /* The root of an even power of two times [2^126, 2^128) has 64 bits. */
    rest = (u128)x.significand << (x.exponent & 1 ? 64 : 63);
    for (int bit = 63; bit >= 0; bit--) {
        u64 next = root | 1ull << bit;

        if ((u128)next * next <= rest)
            root = next;
    }
    x.exponent = (x.exponent - (x.exponent & 1)) / 2;
    x.significand = root | ((u128)root * root != rest);
    return pack(f, x, rm, flags);
}

u64 softfp_convert(enum softfp_format to, enum softfp_format from, u64 a, unsigned rm, u32 *flags)
{
    const struct format *f = &formats[to];
    struct number x = unpack(&formats[from], a);

    if (is_nan(&x))
        return propagate(f, x.kind == SIGNALLING, flags);
    if (x.kind == INFINITE)
        return infinity(f, x.sign);
    if (x.kind == ZERO)
        return zero(f, x.sign);
    return pack(f, x, rm, flags);
}

static u64 saturated(enum softfp_int how, bool low)
{
    switch (how) {
    case SOFTFP_W:
        return low ? (u64)INT32_MIN : INT32_MAX;
    case SOFTFP_WU:
    case SOFTFP_LU:
        return low ? 0 : ~0ull;
    default:
        return low ? 1ull << 63 : ~0ull >> 1;
    }
}

u64 softfp_to_int(enum softfp_format format, u64 a, enum softfp_int how, unsigned rm, u32 *flags)
{
    struct number x = unpack(&formats[format], a);
    bool is_signed = how == SOFTFP_W || how == SOFTFP_L, fits;
    unsigned width = how == SOFTFP_W || how == SOFTFP_WU ? 32 : 64;
    u128 fixed, integer; /* of the fraction two bits: half, and all below */

    if (x.kind == ZERO)
        return 0;
    if (x.kind != FINITE || x.exponent >= (int)width) {
        *flags |= RISCV_NV;
        return saturated(how, x.sign && !is_nan(&x));
    }
    fixed = (u128)x.significand << 64;
    fixed = shift_jam128(fixed, (unsigned)(125 - x.exponent));
    integer = (fixed >> 2) + rounds_up((u64)fixed, 2, x.sign, rm);
    if (is_signed)
        fits = integer < ((u128)1 << (width - 1)) + x.sign;
    else
        fits = x.sign ? !integer : !(integer >> width);
    if (!fits) {
        *flags |= RISCV_NV;
        return saturated(how, x.sign);
    }
    if (fixed & 3)
        *flags |= RISCV_NX;
    integer = x.sign ? -integer : integer;
    return width == 32 ? (u64)(s64)(s32)integer : (u64)integer;
}

u64 softfp_from_int(enum softfp_format format, u64 value, enum softfp_int how, unsigned rm,
                    u32 *flags)
{
    struct number n = {FINITE, false, 63, 0};
    int shift;

    if (how == SOFTFP_W)
        value = (u64)(s64)(s32)value;
    else if (how == SOFTFP_WU)
        value = (u32)value;
    if ((how == SOFTFP_W || how == SOFTFP_L) && value >> 63) {
        n.sign = true;
        value = -value;
    }
    if (!value)
        return 0;
    shift = __builtin_clzll(value);
    n.significand = value << shift;
    n.exponent -= shift;
    return pack(&formats[format], n, rm, flags);
}

u64 softfp_class(enum softfp_format format, u64 a)
{
    const struct format *f = &formats[format];
    struct number n = unpack(f, a);
    bool subnormal = n.kind == FINITE && n.exponent < 1 - f->bias;

    switch (n.kind) {
    case SIGNALLING:
        return 1 << 8;
    case QUIET:
        return 1 << 9;
    case INFINITE:
        return n.sign ? 1 << 0 : 1 << 7;
    case ZERO:
        return n.sign ? 1 << 3 : 1 << 4;
    default:
        if (subnormal)
            return n.sign ? 1 << 2 : 1 << 5;
        return n.sign ? 1 << 1 : 1 << 6;
    }
}
