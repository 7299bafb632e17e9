/* Bit fields, rounding and sign extension. */
#ifndef TRIODE_BASE_BITS_H
#define TRIODE_BASE_BITS_H

#include "base/types.h"

#define BIT(n) (UINT64_C(1) << (n))

/* A mask of the low @n bits; @n from 0 to 64. */
static inline u64 mask_low(unsigned n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

/* Bits @hi..@lo of @v, moved down to bit 0. */
static inline u64 bits(u64 v, unsigned hi, unsigned lo)
{
    return (v >> lo) & mask_low(hi - lo + 1);
}

/* The low @n bits of @v as a signed number; @n from 1 to 64. */
static inline s64 sign_extend(u64 v, unsigned n)
{
    return (s64)(v << (64 - n)) >> (64 - n);
}

/* @v rounded down or up to a multiple of @a, a power of two. */
static inline u64 align_down(u64 v, u64 a)
{
    return v & ~(a - 1);
}

static inline u64 align_up(u64 v, u64 a)
{
    return (v + a - 1) & ~(a - 1);
}

static inline bool is_power_of_two(u64 v)
{
    return v && !(v & (v - 1));
}

#endif
