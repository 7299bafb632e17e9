/* What SSE instructions do that is not an IR operation. */
#include <math.h>
#include <string.h>

#include "guest/x86/helpers.h"
#include "guest/x86/x86.h"
#include "guest/x86/x86_internal.h"

#define MXCSR_FLAGS 0x3fu
#define MXCSR_UE 0x10u
#define MXCSR_MASKS_SHIFT 7
#define MXCSR_VALID 0xffffu /* DAZ included */

u64 x86_helper_ldmxcsr(struct x86_cpu *cpu, u64 value)
{
    if (value & ~(u64)MXCSR_VALID)
        x86_raise_error(cpu, X86_GP, 0);
    cpu->mxcsr = (u32)value;
    x86_mxcsr_loaded(cpu);
    return 0;
}

u64 x86_helper_stmxcsr(struct x86_cpu *cpu)
{
    cpu->common.memory->fp_sync(&cpu->common);
    return cpu->mxcsr;
}

/* The flags so far wait in scratch[3] while the instruction starts with none. */
u64 x86_helper_fp_begin(struct x86_cpu *cpu)
{
    cpu->common.memory->fp_sync(&cpu->common);
    cpu->common.scratch[3] = cpu->mxcsr & MXCSR_FLAGS;
    cpu->mxcsr &= ~MXCSR_FLAGS;
    cpu->common.memory->fp_load(&cpu->common);
    return 0;
}

/* A tiny result that is exact underflows too while that is unmasked (SDM vol. 1 4.9.1.5). */
static bool has_denormal(const u64 *v, u64 lane)
{
    const u64 exponent = lane == 4 ? 0x7f800000 : 0x7ffull << 52;

    for (u64 i = 0; lane && i < 16 / lane; i++) {
        u64 bits = lane == 4 ? (u32)(v[i / 2] >> 32 * (i & 1)) : v[i];

        if (!(bits & exponent) && bits << (lane == 4 ? 41 : 12))
            return true;
    }
    return false;
}

/* SDM vol. 1 11.5.2: with an unmasked exception the destination stays as it was; the flags of that
 * instruction are set. Denormal, invalid and divide-by-zero come before the computation: then the
 * others are not raised. */
u64 x86_helper_fp_check(struct x86_cpu *cpu, u64 lane)
{
    const u32 before_computing = 7;
    u32 raised, unmasked;

    cpu->common.memory->fp_sync(&cpu->common);
    raised = cpu->mxcsr & MXCSR_FLAGS;
    if (!(cpu->mxcsr >> MXCSR_MASKS_SHIFT & MXCSR_UE) && has_denormal(cpu->common.scratch, lane))
        raised |= MXCSR_UE;
    unmasked = raised & ~(cpu->mxcsr >> MXCSR_MASKS_SHIFT);
    if (unmasked & before_computing)
        raised &= before_computing;
    cpu->mxcsr = (cpu->mxcsr & ~MXCSR_FLAGS) | raised | (u32)cpu->common.scratch[3];
    cpu->common.memory->fp_load(&cpu->common);
    if (!unmasked)
        return 0;
    if (cpu->cr4 & X86_CR4_OSXMMEXCPT)
        x86_raise(cpu, X86_XM);
    x86_raise(cpu, X86_UD);
}

static float float_of(u64 bits)
{
    u32 low = (u32)bits;
    float f;

    memcpy(&f, &low, 4);
    return f;
}

static u64 bits_of(float f)
{
    u32 bits;

    memcpy(&bits, &f, 4);
    return bits;
}

#define EXPONENT(bits) ((bits) >> 23 & 0xff)
#define FRACTION(bits) ((bits)&0x7fffff)
#define SIGN(bits) ((bits)&0x80000000u)
#define INFINITY_BITS 0x7f800000u
#define QUIET_BIT 0x400000u
#define DEFAULT_NAN 0xffc00000u

/* Rounded to 12 bits of fraction, as the approximations of the hardware have no more. */
static u64 to_12_bits(double v)
{
    u64 bits = bits_of((float)v);

    return (bits + 0x400) & ~0x7ffull;
}

/* SDM vol. 2 RCPPS: denormals count as 0, and results that would be denormal are flushed. */
u64 x86_helper_rcp(struct x86_cpu *cpu, u64 bits)
{
    (void)cpu;
    if (EXPONENT(bits) == 0xff && FRACTION(bits))
        return bits | QUIET_BIT;
    if (EXPONENT(bits) == 0xff)
        return SIGN(bits);
    if (EXPONENT(bits) == 0)
        return SIGN(bits) | INFINITY_BITS;
    if (EXPONENT(bits) >= 253 && (EXPONENT(bits) > 253 || FRACTION(bits)))
        return SIGN(bits);
    return to_12_bits(1.0 / (double)float_of(bits));
}

u64 x86_helper_rsqrt(struct x86_cpu *cpu, u64 bits)
{
    (void)cpu;
    if (EXPONENT(bits) == 0xff && FRACTION(bits))
        return bits | QUIET_BIT;
    if (EXPONENT(bits) == 0)
        return SIGN(bits) | INFINITY_BITS;
    if (SIGN(bits))
        return DEFAULT_NAN;
    if (EXPONENT(bits) == 0xff)
        return 0;
    return to_12_bits(1.0 / sqrt((double)float_of(bits)));
}

void x86_store_masked(struct x86_cpu *cpu, u64 address, const u8 *from, const u8 *mask, unsigned n)
{
    int last = -1;

    for (unsigned i = 0; i < n; i++) {
        if (!(mask[i] & 0x80))
            continue;
        if (last < 0 || (address + i) >> 12 != (address + (u64)last) >> 12)
            cpu->common.memory->host(&cpu->common, address + i, GUEST_WRITE);
        last = (int)i;
    }
    for (unsigned i = 0; i < n; i++)
        if (mask[i] & 0x80)
            cpu->common.memory->store(&cpu->common, address + i, &from[i], 1);
}

u64 x86_helper_maskmov(struct x86_cpu *cpu, u64 address, u64 data, u64 mask)
{
    x86_store_masked(cpu, address, (const u8 *)cpu->xmm[data], (const u8 *)cpu->xmm[mask], 16);
    return 0;
}

/* --- PCMPESTRI and its like: SDM vol. 2 4.1 --------------------------------------------------- */

struct strings {
    const u8 *a, *b; /* first and second operand */
    unsigned n;      /* elements in a vector */
    unsigned la, lb; /* valid elements */
    u64 imm;
};

static int element(const struct strings *s, const u8 *v, unsigned i)
{
    bool is_signed = s->imm & 2;
    u16 word;

    if (!(s->imm & 1))
        return is_signed ? (s8)v[i] : v[i];
    memcpy(&word, v + 2 * i, 2);
    return is_signed ? (s16)word : word;
}

/* An explicit length, saturated (SDM vol. 2 4.1.3). */
static unsigned explicit_length(u64 reg, bool wide, unsigned n)
{
    s64 v = wide ? (s64)reg : (s32)reg;

    if (v < 0)
        v = v < -(s64)n ? n : -v;
    return v > n ? n : (unsigned)v;
}

static unsigned implicit_length(const struct strings *s, const u8 *v)
{
    unsigned i = 0;

    if (!(s->imm & 1))
        return (unsigned)strnlen((const char *)v, s->n);

    while (i < s->n && element(s, v, i))
        i++;
    return i;
}

/* Comparison of a[i] with b[j], overridden where either is invalid (SDM vol. 2 table 4-7). */
static bool compare_elements(const struct strings *s, unsigned i, unsigned j)
{
    unsigned aggregation = s->imm >> 2 & 3;
    bool a_valid = i < s->la, b_valid = j < s->lb;

    if (!a_valid || !b_valid) {
        switch (aggregation) {
        case 0:
        case 1:
            return false;
        case 2:
            return !a_valid && !b_valid;
        default:
            return !a_valid;
        }
    }
    if (aggregation == 1)
        return i & 1 ? element(s, s->b, j) <= element(s, s->a, i)
                     : element(s, s->b, j) >= element(s, s->a, i);
    return element(s, s->a, i) == element(s, s->b, j);
}

static bool aggregate(const struct strings *s, unsigned j)
{
    unsigned i;

    switch (s->imm >> 2 & 3) {
    case 0: /* equal any */
        for (i = 0; i < s->n; i++)
            if (compare_elements(s, i, j))
                return true;
        return false;
    case 1: /* ranges */
        for (i = 0; i < s->n; i += 2)
            if (compare_elements(s, i, j) && compare_elements(s, i + 1, j))
                return true;
        return false;
    case 2: /* equal each */
        return compare_elements(s, j, j);
    default: /* equal ordered */
        for (i = 0; i + j < s->n; i++)
            if (!compare_elements(s, i, i + j))
                return false;
        return true;
    }
}

/* Bytes, unsigned or compared for equality only, take the short way: C libraries search strings
 * with them. Sixteen comparisons at once; bit j of a mask speaks of b[j]. */
typedef u8 byte_lanes __attribute__((vector_size(16)));

static u32 mask_of(byte_lanes lanes)
{
    u64 half[2];

    memcpy(half, &lanes, 16);
    for (unsigned i = 0; i < 2; i++) /* the top bits of eight bytes side by side */
        half[i] = (half[i] & 0x8080808080808080ull) / 0x80 * 0x0102040810204080ull >> 56;
    return (u32)(half[0] | half[1] << 8);
}

static byte_lanes all_lanes(u8 byte)
{
    return (byte_lanes){0} + byte;
}

static u32 compare_bytes(const struct strings *s)
{
    u32 valid_a = (u32)mask_low(s->la), valid_b = (u32)mask_low(s->lb), result;
    byte_lanes a, b, any = {0};

    memcpy(&a, s->a, 16);
    memcpy(&b, s->b, 16);
    switch (s->imm >> 2 & 3) {
    case 0:
        for (unsigned i = 0; i < s->la; i++)
            any |= (byte_lanes)(b == all_lanes(s->a[i]));
        return mask_of(any) & valid_b;
    case 1:
        for (unsigned i = 0; i + 1 < s->la; i += 2)
            any |=
                (byte_lanes)(b >= all_lanes(s->a[i])) & (byte_lanes)(b <= all_lanes(s->a[i + 1]));
        return mask_of(any) & valid_b;
    case 2:
        return (mask_of((byte_lanes)(a == b)) & valid_a & valid_b) | (~valid_a & ~valid_b & 0xffff);
    default:
        result = 0xffff;
        for (unsigned i = 0; i < s->la; i++)
            result &= (mask_of((byte_lanes)(b == all_lanes(s->a[i]))) & valid_b) >> i |
                      (0xffffu & ~(0xffffu >> i));
        return result;
    }
}

static u32 compare_all(const struct strings *s)
{
    u32 result = 0;

    /* Signed bytes differ from unsigned ones in ranges only. */
    if (!(s->imm & 1) && (!(s->imm & 2) || (s->imm >> 2 & 3) != 1))
        return compare_bytes(s);
    for (unsigned j = 0; j < s->n; j++)
        result |= (u32)aggregate(s, j) << j;
    return result;
}

/* IntRes2 (SDM vol. 2 4.1.6). */
static u32 compare_strings(const struct strings *s)
{
    u32 result = compare_all(s), all = s->n == 16 ? 0xffff : 0xff;

    switch (s->imm >> 4 & 3) {
    case 1:
        return result ^ all;
    case 3: /* only where the second operand is valid */
        return result ^ (u32)mask_low(s->lb);
    default:
        return result;
    }
}

static void write_mask(struct x86_cpu *cpu, const struct strings *s, u32 result)
{
    u8 mask[16] = {0};

    if (s->imm & 0x40) {
        for (unsigned i = 0; i < 16; i++)
            mask[i] = result >> (s->imm & 1 ? i / 2 : i) & 1 ? 0xff : 0;
    } else {
        memcpy(mask, &result, 4);
    }
    memcpy(cpu->xmm[0], mask, 16);
}

u64 x86_helper_pcmpstr(struct x86_cpu *cpu, u64 reg, u64 imm, u64 form)
{
    struct strings s = {.a = (const u8 *)cpu->xmm[reg],
                        .b = (const u8 *)cpu->common.scratch,
                        .n = imm & 1 ? 8 : 16,
                        .imm = imm};
    bool wide = form & 2;
    u32 result;

    s.la = form & 1 ? explicit_length(cpu->gpr[X86_RAX], wide, s.n) : implicit_length(&s, s.a);
    s.lb = form & 1 ? explicit_length(cpu->gpr[X86_RDX], wide, s.n) : implicit_length(&s, s.b);
    result = compare_strings(&s);
    if (form & 4)
        write_mask(cpu, &s, result);
    else if (!result)
        cpu->gpr[X86_RCX] = s.n;
    else
        cpu->gpr[X86_RCX] = (u64)(imm & 0x40 ? 31 - __builtin_clz(result) : __builtin_ctz(result));
    return (result ? X86_FLAG_CF : 0) | (s.lb < s.n ? X86_FLAG_ZF : 0) |
           (s.la < s.n ? X86_FLAG_SF : 0) | (result & 1 ? X86_FLAG_OF : 0);
}
