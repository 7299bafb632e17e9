/*
 * Floating point against the host's own SSE instructions: result bits and sticky flags, in all four
 * rounding modes, on numbers, zeros, denormals, infinities and NaNs of both kinds. On a host without
 * SSE4.1 this is skipped.
 */
#include "ir_test.h"

#if defined(__x86_64__)
#include <smmintrin.h>
#include <xmmintrin.h>

#define FLAGS 0x3fu
#define MASKED 0x1f80u

static const u32 f32s[] = {
    0,          0x80000000, 1,          0x80000001, 0x007fffff, 0x00800000, 0x3f800000, 0xbf800000,
    0x3f000000, 0x3fc00000, 0x40200000, 0xc0200000, 0x3eaaaaab, 0x4effffff, 0x4f000000, 0xcf000000,
    0xcf000001, 0x5effffff, 0x5f000000, 0xdf000000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00001,
    0xffc12345, 0x7f800001, 0xff923456, 0x33000000, 0x4b000001, 0x4affffff,
};
static const u64 f64s[] = {
    0,
    1ull << 63,
    1,
    0x8000000000000001,
    0x000fffffffffffff,
    0x0010000000000000,
    0x3ff0000000000000,
    0xbff0000000000000,
    0x3fe0000000000000,
    0x3ff8000000000000,
    0x4004000000000000,
    0xc004000000000000,
    0x3fd5555555555555,
    0x41dfffffffc00000,
    0x41dfffffffe00000,
    0x41e0000000000000,
    0xc1e0000000000000,
    0xc1e0000000200000,
    0xc1e0000000100000,
    0x43dfffffffffffff,
    0x43e0000000000000,
    0xc3e0000000000000,
    0xc3e0000000000001,
    0x7fefffffffffffff,
    0x47efffffe0000000,
    0x47effffff0000000,
    0x36a0000000000000,
    0x380fffffffffffff,
    0x7ff0000000000000,
    0xfff0000000000000,
    0x7ff8000000000001,
    0xfff8123456789abc,
    0x7ff0000000000001,
    0xfff1234567890000,
    0x3cb0000000000000,
    0x4330000000000001,
    0x432fffffffffffff,
};

struct answer {
    u64 value;
    u32 flags;
};

/* One operation by the interpreter. */
static struct answer ours(struct bench *b, enum ir_op op, enum ir_type type, enum ir_type from,
                          u64 x, u64 y, u64 imm, u32 mxcsr)
{
    struct ir_inst inst = {.op = op, .type = type, .imm = imm}, in = {.op = IR_get, .type = from};
    ir_ref result;

    bench_reset(b, NULL, 0);
    in.imm = 16;
    inst.a = ir_append(&b->unit, &in);
    in.imm = 24;
    if (ir_op_shape[op].nargs == 2)
        inst.b = ir_append(&b->unit, &in);
    result = ir_append(&b->unit, &inst);
    ir_put(&b->unit, 8, type == IR_I1 ? ir_zext(&b->unit, IR_I8, result) : result);
    ir_exit(&b->unit, IR_EXIT_GUEST);
    bench_set_slot(b, 8, 0);
    bench_set_slot(b, 16, x);
    bench_set_slot(b, 24, y);
    _mm_setcsr(mxcsr);
    bench_run(b, 0);
    mxcsr = _mm_getcsr();
    _mm_setcsr(MASKED);
    return (struct answer){bench_slot(b, 8), mxcsr & FLAGS};
}

/* The host's instruction: `insn b, a` with a in @r. */
#define HOST(insn, result_type, r, x, mxcsr)                                                       \
    ({                                                                                             \
        __typeof__(r) r_ = (r);                                                                    \
        __typeof__(x) x_ = (x);                                                                    \
        result_type bits_ = 0;                                                                     \
        u32 flags_;                                                                                \
        _mm_setcsr(mxcsr);                                                                         \
        __asm__ volatile(insn " %1, %0" : "+x"(r_) : "x"(x_));                                     \
        flags_ = _mm_getcsr() & FLAGS;                                                             \
        _mm_setcsr(MASKED);                                                                        \
        memcpy(&bits_, &r_, sizeof(bits_));                                                        \
        (struct answer){bits_, flags_};                                                            \
    })
/* ... with the result in a general register. */
#define HOST_TO_INT(insn, result_type, x, mxcsr)                                                   \
    ({                                                                                             \
        __typeof__(x) x_ = (x);                                                                    \
        result_type r_;                                                                            \
        u32 flags_;                                                                                \
        _mm_setcsr(mxcsr);                                                                         \
        __asm__ volatile(insn " %1, %0" : "=r"(r_) : "x"(x_));                                     \
        flags_ = _mm_getcsr() & FLAGS;                                                             \
        _mm_setcsr(MASKED);                                                                        \
        (struct answer){r_, flags_};                                                               \
    })

static void must_equal(const char *what, u32 mxcsr, u64 x, u64 y, struct answer got,
                       struct answer want)
{
    if (got.value != want.value || got.flags != want.flags)
        fail_msg("%s, mxcsr %x, %" PRIx64 " %" PRIx64 ": %" PRIx64 " flags %x, host %" PRIx64
                 " flags %x",
                 what, mxcsr, x, y, got.value, got.flags, want.value, want.flags);
}

#define EACH_MODE(mxcsr) for (u32 mxcsr = MASKED; mxcsr <= (MASKED | 0x6000); mxcsr += 0x2000)
#define EACH(x, values) for (size_t x = 0; x < ARRAY_SIZE(values); x++)

#define BINARY(b, op, insn)                                                                        \
    EACH_MODE(mxcsr)                                                                               \
    {                                                                                              \
        EACH(i, f32s)                                                                              \
        EACH(j, f32s)                                                                              \
        must_equal(insn "ss", mxcsr, f32s[i], f32s[j],                                             \
                   ours(b, op, IR_F32, IR_F32, f32s[i], f32s[j], 0, mxcsr),                        \
                   HOST(insn "ss", u32, ir_f32(f32s[i]), ir_f32(f32s[j]), mxcsr));                 \
        EACH(i, f64s)                                                                              \
        EACH(j, f64s)                                                                              \
        must_equal(insn "sd", mxcsr, f64s[i], f64s[j],                                             \
                   ours(b, op, IR_F64, IR_F64, f64s[i], f64s[j], 0, mxcsr),                        \
                   HOST(insn "sd", u64, ir_f64(f64s[i]), ir_f64(f64s[j]), mxcsr));                 \
    }

static void test_arithmetic(void **state)
{
    struct bench *b = *state;

    BINARY(b, IR_fadd, "add");
    BINARY(b, IR_fsub, "sub");
    BINARY(b, IR_fmul, "mul");
    BINARY(b, IR_fdiv, "div");
    BINARY(b, IR_fmin, "min");
    BINARY(b, IR_fmax, "max");
    EACH_MODE(mxcsr)
    {
        EACH(i, f32s)
        must_equal("sqrtss", mxcsr, f32s[i], 0,
                   ours(b, IR_fsqrt, IR_F32, IR_F32, f32s[i], 0, 0, mxcsr),
                   HOST("sqrtss", u32, 0.f, ir_f32(f32s[i]), mxcsr));
        EACH(i, f64s)
        must_equal("sqrtsd", mxcsr, f64s[i], 0,
                   ours(b, IR_fsqrt, IR_F64, IR_F64, f64s[i], 0, 0, mxcsr),
                   HOST("sqrtsd", u64, 0., ir_f64(f64s[i]), mxcsr));
    }
}

/* Comparisons: cmpxxss predicates; feq and funord are quiet, flt and fle signal, fltq and fleq are
 * what UCOMI gives. */
#define PREDICATE(b, op, insn)                                                                     \
    do {                                                                                           \
        EACH(i, f32s)                                                                              \
        EACH(j, f32s)                                                                              \
        {                                                                                          \
            struct answer host = HOST(insn "ss", u32, ir_f32(f32s[i]), ir_f32(f32s[j]), MASKED);   \
                                                                                                   \
            host.value &= 1;                                                                       \
            must_equal(insn "ss", MASKED, f32s[i], f32s[j],                                        \
                       ours(b, op, IR_I1, IR_F32, f32s[i], f32s[j], 0, MASKED), host);             \
        }                                                                                          \
        EACH(i, f64s)                                                                              \
        EACH(j, f64s)                                                                              \
        {                                                                                          \
            struct answer host = HOST(insn "sd", u64, ir_f64(f64s[i]), ir_f64(f64s[j]), MASKED);   \
                                                                                                   \
            host.value &= 1;                                                                       \
            must_equal(insn "sd", MASKED, f64s[i], f64s[j],                                        \
                       ours(b, op, IR_I1, IR_F64, f64s[i], f64s[j], 0, MASKED), host);             \
        }                                                                                          \
    } while (0)

static struct answer host_ucomi(u64 x, u64 y, bool or_equal)
{
    f64 a = ir_f64(x), b = ir_f64(y);
    bool above;
    u32 flags;

    /* b > a: a NaN clears it, as both carry and zero are set then. */
    _mm_setcsr(MASKED);
    if (or_equal)
        __asm__ volatile("ucomisd %1, %2" : "=@ccae"(above) : "x"(a), "x"(b));
    else
        __asm__ volatile("ucomisd %1, %2" : "=@cca"(above) : "x"(a), "x"(b));
    flags = _mm_getcsr() & FLAGS;
    _mm_setcsr(MASKED);
    return (struct answer){above, flags};
}

static void test_comparisons(void **state)
{
    struct bench *b = *state;

    PREDICATE(b, IR_feq, "cmpeq");
    PREDICATE(b, IR_funord, "cmpunord");
    PREDICATE(b, IR_flt, "cmplt");
    PREDICATE(b, IR_fle, "cmple");
    EACH(i, f64s)
    EACH(j, f64s)
    {
        must_equal("fltq", MASKED, f64s[i], f64s[j],
                   ours(b, IR_fltq, IR_I1, IR_F64, f64s[i], f64s[j], 0, MASKED),
                   host_ucomi(f64s[i], f64s[j], false));
        must_equal("fleq", MASKED, f64s[i], f64s[j],
                   ours(b, IR_fleq, IR_I1, IR_F64, f64s[i], f64s[j], 0, MASKED),
                   host_ucomi(f64s[i], f64s[j], true));
    }
}

/* imm of ROUNDSD is the IR's imm, but for the order of bits: 4 current, 8 no inexact. */
#define ROUND_CASE(b, imm)                                                                         \
    EACH_MODE(mxcsr)                                                                               \
    {                                                                                              \
        EACH(i, f32s)                                                                              \
        must_equal("roundss " #imm, mxcsr, f32s[i], 0,                                             \
                   ours(b, IR_fround, IR_F32, IR_F32, f32s[i], 0, imm, mxcsr),                     \
                   HOST("roundss $" #imm ",", u32, 0.f, ir_f32(f32s[i]), mxcsr));                  \
        EACH(i, f64s)                                                                              \
        must_equal("roundsd " #imm, mxcsr, f64s[i], 0,                                             \
                   ours(b, IR_fround, IR_F64, IR_F64, f64s[i], 0, imm, mxcsr),                     \
                   HOST("roundsd $" #imm ",", u64, 0., ir_f64(f64s[i]), mxcsr));                   \
    }

static void test_rounding(void **state)
{
    struct bench *b = *state;

    if (!__builtin_cpu_supports("sse4.1"))
        skip();
    ROUND_CASE(b, 0);
    ROUND_CASE(b, 1);
    ROUND_CASE(b, 2);
    ROUND_CASE(b, 3);
    ROUND_CASE(b, 4);
    ROUND_CASE(b, 8);
    ROUND_CASE(b, 9);
    ROUND_CASE(b, 10);
    ROUND_CASE(b, 11);
    ROUND_CASE(b, 12);
}

#define TO_INT(b, op, insn)                                                                        \
    EACH_MODE(mxcsr)                                                                               \
    {                                                                                              \
        EACH(i, f32s)                                                                              \
        {                                                                                          \
            must_equal(insn "ss2si 32", mxcsr, f32s[i], 0,                                         \
                       ours(b, op, IR_I32, IR_F32, f32s[i], 0, 0, mxcsr),                          \
                       HOST_TO_INT(insn "ss2si", u32, ir_f32(f32s[i]), mxcsr));                    \
            must_equal(insn "ss2si 64", mxcsr, f32s[i], 0,                                         \
                       ours(b, op, IR_I64, IR_F32, f32s[i], 0, 0, mxcsr),                          \
                       HOST_TO_INT(insn "ss2si", u64, ir_f32(f32s[i]), mxcsr));                    \
        }                                                                                          \
        EACH(i, f64s)                                                                              \
        {                                                                                          \
            must_equal(insn "sd2si 32", mxcsr, f64s[i], 0,                                         \
                       ours(b, op, IR_I32, IR_F64, f64s[i], 0, 0, mxcsr),                          \
                       HOST_TO_INT(insn "sd2si", u32, ir_f64(f64s[i]), mxcsr));                    \
            must_equal(insn "sd2si 64", mxcsr, f64s[i], 0,                                         \
                       ours(b, op, IR_I64, IR_F64, f64s[i], 0, 0, mxcsr),                          \
                       HOST_TO_INT(insn "sd2si", u64, ir_f64(f64s[i]), mxcsr));                    \
        }                                                                                          \
    }

/* Integer to floating point. */
#define FROM_INT(insn, result_type, zero, x, mxcsr)                                                \
    ({                                                                                             \
        __typeof__(zero) r_ = (zero);                                                              \
        result_type bits_;                                                                         \
        u32 flags_;                                                                                \
        _mm_setcsr(mxcsr);                                                                         \
        __asm__ volatile(insn " %1, %0" : "+x"(r_) : "r"(x));                                      \
        flags_ = _mm_getcsr() & FLAGS;                                                             \
        _mm_setcsr(MASKED);                                                                        \
        memcpy(&bits_, &r_, sizeof(bits_));                                                        \
        (struct answer){bits_, flags_};                                                            \
    })

static void test_conversions(void **state)
{
    struct bench *b = *state;

    TO_INT(b, IR_fcvts, "cvt");
    TO_INT(b, IR_fcvtzs, "cvtt");
    EACH_MODE(mxcsr)
    {
        EACH(i, f32s)
        must_equal("cvtss2sd", mxcsr, f32s[i], 0,
                   ours(b, IR_fcvt, IR_F64, IR_F32, f32s[i], 0, 0, mxcsr),
                   HOST("cvtss2sd", u64, 0., ir_f32(f32s[i]), mxcsr));
        EACH(i, f64s)
        must_equal("cvtsd2ss", mxcsr, f64s[i], 0,
                   ours(b, IR_fcvt, IR_F32, IR_F64, f64s[i], 0, 0, mxcsr),
                   HOST("cvtsd2ss", u32, 0.f, ir_f64(f64s[i]), mxcsr));
        /* The same bits serve as integers. */
        EACH(i, f64s)
        {
            s64 n = (s64)f64s[i];
            s32 m = (s32)(f64s[i] >> 20);

            must_equal("cvtsi2sdq", mxcsr, n, 0, ours(b, IR_scvtf, IR_F64, IR_I64, n, 0, 0, mxcsr),
                       FROM_INT("cvtsi2sdq", u64, 0., n, mxcsr));
            must_equal("cvtsi2ssq", mxcsr, n, 0, ours(b, IR_scvtf, IR_F32, IR_I64, n, 0, 0, mxcsr),
                       FROM_INT("cvtsi2ssq", u32, 0.f, n, mxcsr));
            must_equal("cvtsi2sdl", mxcsr, m, 0, ours(b, IR_scvtf, IR_F64, IR_I32, m, 0, 0, mxcsr),
                       FROM_INT("cvtsi2sdl", u64, 0., m, mxcsr));
            must_equal("cvtsi2ssl", mxcsr, m, 0, ours(b, IR_scvtf, IR_F32, IR_I32, m, 0, 0, mxcsr),
                       FROM_INT("cvtsi2ssl", u32, 0.f, m, mxcsr));
        }
    }
}

/* Packed operations on the same pair in every lane. */
static struct answer ours_packed(struct bench *b, enum ir_op op, u64 x, u64 y, u64 imm)
{
    struct ir_inst inst = {.op = op, .type = IR_V128, .imm = imm};
    struct ir_inst in = {.op = IR_get, .type = IR_V128};
    u32 flags;

    bench_reset(b, NULL, 0);
    in.imm = 32;
    inst.a = ir_append(&b->unit, &in);
    in.imm = 48;
    if (ir_op_shape[op].nargs == 2)
        inst.b = ir_append(&b->unit, &in);
    ir_put(&b->unit, 64, ir_append(&b->unit, &inst));
    ir_exit(&b->unit, IR_EXIT_GUEST);
    for (unsigned half = 0; half < 16; half += 8) {
        bench_set_slot(b, 32 + half, x);
        bench_set_slot(b, 48 + half, y);
    }
    _mm_setcsr(MASKED);
    bench_run(b, 0);
    flags = _mm_getcsr() & FLAGS;
    _mm_setcsr(MASKED);
    return (struct answer){bench_slot(b, 64), flags};
}

static u64 twice(u32 x)
{
    return (u64)x << 32 | x;
}

#define PACKED(b, op, insn, imm)                                                                   \
    do {                                                                                           \
        EACH(i, f32s)                                                                              \
        EACH(j, f32s)                                                                              \
        must_equal(insn "ps", MASKED, f32s[i], f32s[j],                                            \
                   ours_packed(b, op##32, twice(f32s[i]), twice(f32s[j]), imm),                    \
                   HOST(insn "ps", u64, _mm_castsi128_ps(_mm_set1_epi32((s32)f32s[i])),            \
                        _mm_castsi128_ps(_mm_set1_epi32((s32)f32s[j])), MASKED));                  \
        EACH(i, f64s)                                                                              \
        EACH(j, f64s)                                                                              \
        must_equal(insn "pd", MASKED, f64s[i], f64s[j],                                            \
                   ours_packed(b, op##64, f64s[i], f64s[j], imm),                                  \
                   HOST(insn "pd", u64, _mm_castsi128_pd(_mm_set1_epi64x((s64)f64s[i])),           \
                        _mm_castsi128_pd(_mm_set1_epi64x((s64)f64s[j])), MASKED));                 \
    } while (0)

static void test_packed(void **state)
{
    struct bench *b = *state;

    PACKED(b, IR_vfadd, "add", 0);
    PACKED(b, IR_vfsub, "sub", 0);
    PACKED(b, IR_vfmul, "mul", 0);
    PACKED(b, IR_vfdiv, "div", 0);
    PACKED(b, IR_vfmin, "min", 0);
    PACKED(b, IR_vfmax, "max", 0);
    PACKED(b, IR_vfaddsub, "addsub", 0);
    PACKED(b, IR_vfhadd, "hadd", 0);
    PACKED(b, IR_vfhsub, "hsub", 0);
    PACKED(b, IR_vfcmp, "cmpeq", 0);
    PACKED(b, IR_vfcmp, "cmplt", 1);
    PACKED(b, IR_vfcmp, "cmple", 2);
    PACKED(b, IR_vfcmp, "cmpunord", 3);
    PACKED(b, IR_vfcmp, "cmpneq", 4);
    PACKED(b, IR_vfcmp, "cmpnlt", 5);
    PACKED(b, IR_vfcmp, "cmpnle", 6);
    PACKED(b, IR_vfcmp, "cmpord", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arithmetic), cmocka_unit_test(test_comparisons),
        cmocka_unit_test(test_rounding),   cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_packed),
    };

    return cmocka_run_group_tests(tests, bench_setup, bench_teardown);
}
#else
int main(void)
{
    return 77; /* Meson's "skipped" */
}
#endif
