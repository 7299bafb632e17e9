/* The lazy flags in C; what each kind keeps is in cc.h. */
#include "guest/x86/cc.h"

struct parts { /* of the last operation, cut to its size */
    u64 result;
    bool cf, of, af;
};

static struct parts of_sum(u64 r, u64 b, u64 carry, u64 mask, u64 sign)
{
    u64 a = (r - b - carry) & mask;

    return (struct parts){
        .result = r,
        .cf = r < b || (carry && r == b),
        .of = (a ^ r) & (b ^ r) & sign,
        .af = (a ^ b ^ r) & 16,
    };
}

static struct parts of_difference(u64 a, u64 b, u64 borrow, u64 mask, u64 sign)
{
    u64 r = (a - b - borrow) & mask;

    return (struct parts){
        .result = r,
        .cf = a < b || (borrow && a == b),
        .of = (a ^ b) & (a ^ r) & sign,
        .af = (a ^ b ^ r) & 16,
    };
}

static struct parts compute(u64 dst, u64 src, u64 src2, u64 op)
{
    unsigned bits = 8u << (op & 3);
    u64 mask = mask_low(bits), sign = 1ull << (bits - 1);
    u64 d = dst & mask, s = src & mask;

    switch (op >> 2) {
    case X86_CC_ADD:
        return of_sum(d, s, 0, mask, sign);
    case X86_CC_ADC:
        return of_sum(d, s, src2 & 1, mask, sign);
    case X86_CC_SUB:
        return of_difference(d, s, 0, mask, sign);
    case X86_CC_SBB:
        return of_difference(d, s, src2 & 1, mask, sign);
    case X86_CC_INC:
        return (struct parts){d, src & 1, d == sign, !(d & 15)};
    case X86_CC_DEC:
        return (struct parts){d, src & 1, d == sign - 1, (d & 15) == 15};
    case X86_CC_SHL:
        return (struct parts){d, s & sign, (d ^ s) & sign, false};
    case X86_CC_SHR:
        return (struct parts){d, s & 1, (d ^ s) & sign, false};
    case X86_CC_MUL:
        return (struct parts){d, src, src, false};
    }
    return (struct parts){d, false, false, false};
}

u64 x86_cc_eflags(u64 dst, u64 src, u64 src2, u64 op)
{
    unsigned bits = 8u << (op & 3);
    struct parts p;

    if (op >> 2 == X86_CC_EFLAGS)
        return dst & X86_FLAGS_ARITH;
    p = compute(dst, src, src2, op);
    return (p.cf ? X86_FLAG_CF : 0) | (__builtin_parity(p.result & 0xff) ? 0 : X86_FLAG_PF) |
           (p.af ? X86_FLAG_AF : 0) | (p.result ? 0 : X86_FLAG_ZF) |
           (p.result >> (bits - 1) & 1 ? X86_FLAG_SF : 0) | (p.of ? X86_FLAG_OF : 0);
}

bool x86_cc_cf(u64 dst, u64 src, u64 src2, u64 op)
{
    if (op >> 2 == X86_CC_EFLAGS)
        return dst & X86_FLAG_CF;
    return compute(dst, src, src2, op).cf;
}

bool x86_cc_condition(unsigned condition, u64 dst, u64 src, u64 src2, u64 op)
{
    u64 flags = x86_cc_eflags(dst, src, src2, op);
    bool less = !(flags & X86_FLAG_SF) != !(flags & X86_FLAG_OF);
    bool value = false;

    switch (condition >> 1) {
    case 0:
        value = flags & X86_FLAG_OF;
        break;
    case 1:
        value = flags & X86_FLAG_CF;
        break;
    case 2:
        value = flags & X86_FLAG_ZF;
        break;
    case 3:
        value = flags & (X86_FLAG_CF | X86_FLAG_ZF);
        break;
    case 4:
        value = flags & X86_FLAG_SF;
        break;
    case 5:
        value = flags & X86_FLAG_PF;
        break;
    case 6:
        value = less;
        break;
    case 7:
        value = less || flags & X86_FLAG_ZF;
        break;
    }
    return value != (condition & 1);
}
