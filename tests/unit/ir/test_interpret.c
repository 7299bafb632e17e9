/* Operations against the host CPU's own instructions or plain C of another shape, on boundary
 * values; then control, memory and calls. */
#include "ir_test.h"

static const u64 numbers[] = {
    0,
    1,
    2,
    3,
    7,
    8,
    0x0f,
    0x10,
    0x1f,
    0x20,
    0x3f,
    0x40,
    0x7e,
    0x7f,
    0x80,
    0x81,
    0xfe,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x10000,
    0x12345678,
    0x7fffffff,
    0x80000000,
    0x80000001,
    0xffffffff,
    0x100000000,
    0x123456789abcdef0,
    ~0ull >> 1,
    1ull << 63,
    (1ull << 63) + 1,
    0xfedcba9876543210,
    ~0ull - 1,
    ~0ull,
};

/* Runs one operation on values of @from (result zero-extended), through the interpreter. */
static u64 run_op(struct bench *b, enum ir_op op, enum ir_type type, enum ir_type from, u64 x,
                  u64 y, u64 z, u64 imm)
{
    const struct ir_op_shape *shape = &ir_op_shape[op];
    const u64 in[3] = {x, y, z};
    struct ir_inst inst = {.op = op, .type = type, .imm = imm};
    ir_ref *operand[3] = {&inst.a, &inst.b, &inst.c}, result;

    bench_reset(b, NULL, 0);
    for (unsigned k = 0; k < shape->nargs; k++) {
        char letter = shape->operand[k];
        enum ir_type t = letter == 'T' ? type : letter == 'S' ? from : ir_letter_type(letter);
        struct ir_inst value = {.op = IR_const, .type = t, .imm = in[k] & ir_mask_of[t]};

        *operand[k] = ir_append(&b->unit, &value);
    }
    result = ir_append(&b->unit, &inst);
    if (type == IR_I1)
        result = ir_zext(&b->unit, IR_I8, result);
    bench_set_slot(b, 8, 0);
    ir_put(&b->unit, 8, result);
    ir_exit(&b->unit, IR_EXIT_GUEST);
    bench_run(b, 0);
    return bench_slot(b, 8);
}

/* op must be `expected`, an expression in x y z of C type @ctype, for all triples of numbers. */
#define CHECK_OP(b, op, irtype, ctype, expected)                                                   \
    do {                                                                                           \
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {                                         \
            for (size_t j = 0; j < ARRAY_SIZE(numbers); j++) {                                     \
                ctype x = (ctype)numbers[i], y = (ctype)numbers[j],                                \
                      z = (ctype)numbers[(i + j) % 36];                                            \
                u64 want = (expected), got = run_op(b, op, irtype, irtype, x, y, z, 0);            \
                                                                                                   \
                (void)z;                                                                           \
                if (want != got)                                                                   \
                    fail_msg("%s %" PRIx64 " %" PRIx64 " %" PRIx64 ": %" PRIx64 ", not %" PRIx64,  \
                             #op, (u64)x, (u64)y, (u64)z, got, want);                              \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* The host's instruction on x (in/out) with y as the other operand or as count in cl. */
#define HOST2(insn, x, y)                                                                          \
    ({                                                                                             \
        __auto_type r_ = (x);                                                                      \
        __asm__(insn " %1, %0" : "+r"(r_) : "r"(y) : "cc");                                        \
        r_;                                                                                        \
    })
#define HOST_SHIFT(insn, x, count)                                                                 \
    ({                                                                                             \
        __auto_type r_ = (x);                                                                      \
        __asm__(insn " %%cl, %0" : "+r"(r_) : "c"((u8)((count) & (8 * sizeof(x) - 1))) : "cc");    \
        r_;                                                                                        \
    })
#define HOST1(insn, x)                                                                             \
    ({                                                                                             \
        __auto_type r_ = (x);                                                                      \
        __asm__(insn " %0" : "+r"(r_) : : "cc");                                                   \
        r_;                                                                                        \
    })

#define CHECK_WIDTH(b, irtype, ctype)                                                              \
    do {                                                                                           \
        CHECK_OP(b, IR_add, irtype, ctype, HOST2("add", x, y));                                    \
        CHECK_OP(b, IR_sub, irtype, ctype, HOST2("sub", x, y));                                    \
        CHECK_OP(b, IR_and, irtype, ctype, HOST2("and", x, y));                                    \
        CHECK_OP(b, IR_or, irtype, ctype, HOST2("or", x, y));                                      \
        CHECK_OP(b, IR_xor, irtype, ctype, HOST2("xor", x, y));                                    \
        CHECK_OP(b, IR_neg, irtype, ctype, HOST1("neg", x));                                       \
        CHECK_OP(b, IR_not, irtype, ctype, HOST1("not", x));                                       \
        CHECK_OP(b, IR_shl, irtype, ctype, HOST_SHIFT("shl", x, y));                               \
        CHECK_OP(b, IR_shr, irtype, ctype, HOST_SHIFT("shr", x, y));                               \
        CHECK_OP(b, IR_sar, irtype, ctype, HOST_SHIFT("sar", x, y));                               \
        CHECK_OP(b, IR_rol, irtype, ctype, HOST_SHIFT("rol", x, y));                               \
        CHECK_OP(b, IR_ror, irtype, ctype, HOST_SHIFT("ror", x, y));                               \
    } while (0)

static void test_integers(void **state)
{
    struct bench *b = *state;

    CHECK_WIDTH(b, IR_I8, u8);
    CHECK_WIDTH(b, IR_I16, u16);
    CHECK_WIDTH(b, IR_I32, u32);
    CHECK_WIDTH(b, IR_I64, u64);
    CHECK_OP(b, IR_mul, IR_I8, u8, (u8)(x * y));
    CHECK_OP(b, IR_mul, IR_I16, u16, HOST2("imul", x, y));
    CHECK_OP(b, IR_mul, IR_I32, u32, HOST2("imul", x, y));
    CHECK_OP(b, IR_mul, IR_I64, u64, HOST2("imul", x, y));
    CHECK_OP(b, IR_bswap, IR_I32, u32, HOST1("bswap", x));
    CHECK_OP(b, IR_bswap, IR_I64, u64, HOST1("bswap", x));
}

/* Counts by looking at one bit after the other. */
static u64 leading(u64 v, unsigned n)
{
    u64 count = 0;

    while (count < n && !(v >> (n - 1 - count) & 1))
        count++;
    return count;
}

static u64 trailing(u64 v, unsigned n)
{
    u64 count = 0;

    while (count < n && !(v >> count & 1))
        count++;
    return count;
}

static u64 ones(u64 v)
{
    u64 count = 0;

    for (; v; v >>= 1)
        count += v & 1;
    return count;
}

static bool host_parity(u8 v)
{
    bool even;

    __asm__("test %1, %1" : "=@ccp"(even) : "q"(v));
    return even;
}

static void test_bits(void **state)
{
    struct bench *b = *state;

    CHECK_OP(b, IR_clz, IR_I32, u32, leading(x, 32));
    CHECK_OP(b, IR_clz, IR_I64, u64, leading(x, 64));
    CHECK_OP(b, IR_ctz, IR_I32, u32, trailing(x, 32));
    CHECK_OP(b, IR_ctz, IR_I64, u64, trailing(x, 64));
    CHECK_OP(b, IR_popcnt, IR_I32, u32, ones(x));
    CHECK_OP(b, IR_popcnt, IR_I64, u64, ones(x));
    for (unsigned v = 0; v < 256; v++)
        assert_int_equal(run_op(b, IR_parity, IR_I1, IR_VOID, v, 0, 0, 0), host_parity(v));
}

/* SHLD r, x by cl and SHRD; the IR's fshr takes the low half first. */
#define HOST_DOUBLE(insn, dst, src, count)                                                         \
    ({                                                                                             \
        __auto_type r_ = (dst);                                                                    \
        __asm__(insn " %%cl, %1, %0"                                                               \
                : "+r"(r_)                                                                         \
                : "r"(src), "c"((u8)((count) & (8 * sizeof(dst) - 1)))                             \
                : "cc");                                                                           \
        r_;                                                                                        \
    })

static u64 host_div(u64 hi, u64 lo, u64 by, bool remainder)
{
    if (by <= hi)
        return 0;
    __asm__("div %2" : "+a"(lo), "+d"(hi) : "r"(by) : "cc");
    return remainder ? hi : lo;
}

static u64 host_idiv(s64 x, s64 by, unsigned n, bool remainder)
{
    s64 low = n == 32 ? INT32_MIN : INT64_MIN;

    if (!by || (by == -1 && x == low))
        return 0;
    if (n == 32) {
        s32 a = (s32)x, d = a >> 31;

        __asm__("idivl %2" : "+a"(a), "+d"(d) : "r"((s32)by) : "cc");
        return (u32)(remainder ? d : a);
    }
    s64 a = x, d = x >> 63;

    __asm__("idivq %2" : "+a"(a), "+d"(d) : "r"(by) : "cc");
    return (u64)(remainder ? d : a);
}

static u64 host_mulh(u64 x, u64 y, bool is_signed)
{
    u64 hi;

    if (is_signed)
        __asm__("imulq %2" : "+a"(x), "=d"(hi) : "r"(y) : "cc");
    else
        __asm__("mulq %2" : "+a"(x), "=d"(hi) : "r"(y) : "cc");
    return hi;
}

static void test_wide(void **state)
{
    struct bench *b = *state;

    CHECK_OP(b, IR_umulh, IR_I64, u64, host_mulh(x, y, false));
    CHECK_OP(b, IR_smulh, IR_I64, u64, host_mulh(x, y, true));
    CHECK_OP(b, IR_udiv, IR_I32, u32, host_div(0, x, y, false));
    CHECK_OP(b, IR_urem, IR_I32, u32, host_div(0, x, y, true));
    CHECK_OP(b, IR_udiv, IR_I64, u64, host_div(0, x, y, false));
    CHECK_OP(b, IR_urem, IR_I64, u64, host_div(0, x, y, true));
    CHECK_OP(b, IR_udiv2, IR_I64, u64, host_div(x, y, z, false));
    CHECK_OP(b, IR_urem2, IR_I64, u64, host_div(x, y, z, true));
    CHECK_OP(b, IR_sdiv, IR_I32, u32, host_idiv((s32)x, (s32)y, 32, false));
    CHECK_OP(b, IR_srem, IR_I32, u32, host_idiv((s32)x, (s32)y, 32, true));
    CHECK_OP(b, IR_sdiv, IR_I64, u64, host_idiv((s64)x, (s64)y, 64, false));
    CHECK_OP(b, IR_srem, IR_I64, u64, host_idiv((s64)x, (s64)y, 64, true));
    CHECK_OP(b, IR_fshl, IR_I32, u32, HOST_DOUBLE("shld", x, y, z));
    CHECK_OP(b, IR_fshl, IR_I64, u64, HOST_DOUBLE("shld", x, y, z));
    CHECK_OP(b, IR_fshr, IR_I32, u32, HOST_DOUBLE("shrd", x, y, z));
    CHECK_OP(b, IR_fshr, IR_I64, u64, HOST_DOUBLE("shrd", x, y, z));
}

#define HOST_FLAG(cc, x, y)                                                                        \
    ({                                                                                             \
        bool flag_;                                                                                \
        __asm__("cmp %2, %1" : "=@cc" cc(flag_) : "r"(x), "r"(y));                                 \
        flag_;                                                                                     \
    })
#define CHECK_COMPARE(b, op, cc, irtype, ctype)                                                    \
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {                                             \
        for (size_t j = 0; j < ARRAY_SIZE(numbers); j++) {                                         \
            ctype x = (ctype)numbers[i], y = (ctype)numbers[j];                                    \
                                                                                                   \
            assert_int_equal(run_op(b, op, IR_I1, irtype, x, y, 0, 0), HOST_FLAG(cc, x, y));       \
        }                                                                                          \
    }
#define CHECK_COMPARES(b, irtype, ctype)                                                           \
    CHECK_COMPARE(b, IR_eq, "e", irtype, ctype)                                                    \
    CHECK_COMPARE(b, IR_ne, "ne", irtype, ctype)                                                   \
    CHECK_COMPARE(b, IR_ult, "b", irtype, ctype)                                                   \
    CHECK_COMPARE(b, IR_ule, "be", irtype, ctype)                                                  \
    CHECK_COMPARE(b, IR_slt, "l", irtype, ctype)                                                   \
    CHECK_COMPARE(b, IR_sle, "le", irtype, ctype)

static void test_comparisons(void **state)
{
    struct bench *b = *state;

    CHECK_COMPARES(b, IR_I8, u8);
    CHECK_COMPARES(b, IR_I16, u16);
    CHECK_COMPARES(b, IR_I32, u32);
    CHECK_COMPARES(b, IR_I64, u64);
}

/* Width changes through memory: what lies in the bytes of a little-endian number. */
static u64 bytes_at(u64 v, unsigned byte, unsigned count)
{
    u64 r = 0;

    memcpy(&r, (u8 *)&v + byte, count);
    return r;
}

static void test_widths(void **state)
{
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        u64 v = numbers[i];

        assert_int_equal(run_op(b, IR_zext, IR_I64, IR_I8, v, 0, 0, 0), (u8)v);
        assert_int_equal(run_op(b, IR_zext, IR_I32, IR_I1, v, 0, 0, 0), v & 1);
        assert_int_equal(run_op(b, IR_sext, IR_I64, IR_I8, v, 0, 0, 0), (u64)(s64)(s8)v);
        assert_int_equal(run_op(b, IR_sext, IR_I32, IR_I16, v, 0, 0, 0), (u32)(s32)(s16)v);
        assert_int_equal(run_op(b, IR_sext, IR_I64, IR_I32, v, 0, 0, 0), (u64)(s64)(s32)v);
        assert_int_equal(run_op(b, IR_sext, IR_I8, IR_I1, v, 0, 0, 0), v & 1 ? 0xff : 0);
        assert_int_equal(run_op(b, IR_trunc, IR_I16, IR_I64, v, 0, 0, 0), bytes_at(v, 0, 2));
        assert_int_equal(run_op(b, IR_trunc, IR_I1, IR_I64, v, 0, 0, 0), v & 1);
        for (unsigned byte = 0; byte < 8; byte++)
            assert_int_equal(run_op(b, IR_extract, IR_I8, IR_I64, v, 0, 0, 8 * byte),
                             bytes_at(v, byte, 1));
        for (unsigned byte = 0; byte < 7; byte++) {
            u64 want = v;

            memcpy((u8 *)&want + byte, (const u8[]){0xa5, 0x5a}, 2);
            assert_int_equal(run_op(b, IR_deposit, IR_I64, IR_I16, v, 0x5aa5, 0, 8 * byte), want);
        }
    }
}

/* The folder and the interpreter agree, whatever the operation. */
static void test_folder(void **state)
{
    struct bench *b = *state;

    for (unsigned op = 0; op < IR_OPS; op++) {
        for (unsigned type = IR_I1; type <= IR_I64; type++) {
            u64 folded;

            if (!(ir_op_info[op].types >> type & 1) || strchr(ir_op_info[op].signature, 'S'))
                continue;
            for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
                u64 x = numbers[i] & ir_mask_of[type], y = numbers[(i * 7) % 36] & ir_mask_of[type];
                char letter = ir_op_shape[op].operand[1];
                enum ir_type tb = letter && letter != 'T' ? ir_letter_type(letter) : type;

                if (ir_op_shape[op].nargs == 0 ||
                    !ir_eval(op, type, type, tb, x, y & ir_mask_of[tb], 5, 0, &folded))
                    continue;
                assert_int_equal(folded, run_op(b, op, type, type, x, y, 5, 0));
            }
        }
    }
}

/*
 * The rest: text in, state and outcome out.
 */

static u64 add_to_slot(void *state, u64 a, u64 b)
{
    u64 value;

    memcpy(&value, (u8 *)state + 8, 8);
    value += a * 16 + b;
    memcpy((u8 *)state + 8, &value, 8);
    return value;
}

static u64 four(void *state, u64 a, u64 b, u64 c, u64 d)
{
    (void)state;
    return a + (b << 8) + (c << 16) + (d << 24);
}

static const struct ir_helper helpers[] = {
    {"add_to_slot", (void *)add_to_slot, 2, IR_HELPER_READS | IR_HELPER_WRITES},
    {"four", (void *)four, 4, IR_HELPER_PURE},
};

static struct ir_outcome run_text(struct bench *b, const char *text, u32 request)
{
    struct err err;

    bench_reset(b, helpers, ARRAY_SIZE(helpers));
    if (ir_parse(&b->unit, text, &err) || ir_verify(&b->unit, &err))
        fail_msg("%s", err.text);
    return bench_run(b, request);
}

static void test_loop(void **state)
{
    struct bench *b = *state;
    struct ir_outcome out;

    /* Fibonacci: the phis swap, so their values must change all at once. */
    out = run_text(b,
                   "block 0:\n%1 = const.i64 0\n%2 = const.i64 1\n%3 = const.i8 10\n"
                   "set %10, %1\nset %11, %2\nset %12, %3\njump block 1\n"
                   "block 1:\n%10 = phi.i64\n%11 = phi.i64\n%12 = phi.i8\n"
                   "%13 = add.i64 %10, %11\n%14 = const.i8 1\n%15 = sub.i8 %12, %14\n"
                   "set %10, %11\nset %11, %13\nset %12, %15\n"
                   "%16 = const.i8 0\n%17 = eq %15, %16\nbranch %17, block 2, block 1\n"
                   "block 2:\nput s[8], %10\ngoto base + 0x123",
                   0);
    assert_int_equal(out.how, IR_LEFT_GOTO);
    assert_int_equal(bench_slot(b, PC_SLOT), BASE + 0x123);
    assert_int_equal(bench_slot(b, 8), 34);
}

static void test_memory(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < sizeof(b->memory); i++)
        b->memory[i] = i;
    run_text(b,
             "%1 = const.i64 0x10\n%2 = ld.i32 [%1 - 0xe]\n%3 = zext.i64 %2\nput s[8], %3\n"
             "%4 = ld.v128 [%1 + 0x20]\n%5 = vhi %4\nput s[16], %5\nst [%1 + 0x40], %4\n"
             "%6 = const.i16 0xbeef\nst [%1], %6\n%7 = const.i8 0xf0\n"
             "%8 = aadd.i8 [%1 + 0x11], %7\nput s[24], %8\n"
             "%9 = const.i8 0x22\n%10 = const.i8 0x99\n%11 = acas.i8 [%1 + 0x12], %9, %10\n"
             "%12 = acas.i8 [%1 + 0x13], %9, %10\nput s[25], %11\nput s[26], %12\nexit 16",
             0);
    assert_int_equal(bench_slot(b, 8), 0x05040302);
    assert_int_equal(bench_slot(b, 16), 0x3f3e3d3c3b3a3938);
    assert_int_equal(b->memory[0x5f], 0x3f);
    assert_int_equal(b->memory[0x10], 0xef);
    assert_int_equal(b->memory[0x12], 0x12);
    assert_int_equal(b->memory[0x21], 0x11);
    assert_int_equal(b->memory[0x22], 0x99);
    assert_int_equal(b->memory[0x23], 0x23);
    assert_memory_equal(b->state + 24, "\x21\x22\x23", 3);
}

static void test_leaving(void **state)
{
    struct bench *b = *state;
    struct ir_outcome out;

    out = run_text(b, "poll\nexit 20", 0);
    assert_int_equal(out.how, IR_LEFT_EXIT);
    assert_int_equal(out.exit_code, 20);
    out = run_text(b, "poll\nexit 20", 4);
    assert_int_equal(out.how, IR_LEFT_EXIT);
    assert_int_equal(out.exit_code, IR_EXIT_REQUEST);
    bench_set_slot(b, 8, 1);
    out = run_text(b, "%1 = get.i8 s[8]\n%2 = trunc.i1 %1\nexit_if %2, 21\nexit 20", 0);
    assert_int_equal(out.exit_code, 21);
    out = run_text(b, "%1 = get.i8 s[8]\n%2 = trunc.i1 %1\ngoto_if %2, base - 2\nexit 20", 0);
    assert_int_equal(out.how, IR_LEFT_GOTO);
    assert_int_equal(bench_slot(b, PC_SLOT), BASE - 2);
    bench_set_slot(b, 8, 2);
    out = run_text(b, "%1 = get.i8 s[8]\n%2 = trunc.i1 %1\nexit_if %2, 21\nexit 20", 0);
    assert_int_equal(out.exit_code, 20);
    out = run_text(b, "%1 = get.i64 s[8]\ngoto_ind %1", 0);
    assert_int_equal(out.how, IR_LEFT_GOTO);
    assert_int_equal(bench_slot(b, PC_SLOT), 2);
}

static void test_calls(void **state)
{
    struct bench *b = *state;

    bench_set_slot(b, 8, 100);
    run_text(b,
             "%1 = const.i32 3\n%2 = const.i64 5\n%3 = call.i64 @add_to_slot, %1, %2\n"
             "put s[16], %3\n%4 = call.i32 @four, %1, %2, %1, %2\n%5 = zext.i64 %4\n"
             "put s[24], %5\n%6 = call.i8 @add_to_slot, %2, %1\n%7 = zext.i64 %6\nput s[32], %7\n"
             "exit 16",
             0);
    assert_int_equal(bench_slot(b, 16), 153);
    assert_int_equal(bench_slot(b, 24), 0x05030503);
    assert_int_equal(bench_slot(b, 8), 236);
    assert_int_equal(bench_slot(b, 32), 236);
}

static void test_vectors(void **state)
{
    struct bench *b = *state;

    run_text(b,
             "%1 = const.i64 0xff01020304050607\n%2 = const.i64 0x8081828384858687\n"
             "%3 = vec %1, %2\n%4 = vadd8 %3, %3\n%5 = vlo %4\nput s[8], %5\n%6 = vhi %4\n"
             "put s[16], %6\n%7 = vmovmask8 %3\n%8 = zext.i64 %7\nput s[24], %8\n"
             "put s[32], %3\n%9 = get.v128 s[32]\n%10 = const.i1 0\n%11 = sel.v128 %10, %3, %4\n"
             "put s[48], %11\nexit 16",
             0);
    assert_int_equal(bench_slot(b, 8), 0xfe020406080a0c0e);
    assert_int_equal(bench_slot(b, 16), 0x00020406080a0c0e);
    assert_int_equal(bench_slot(b, 24), 0xff80);
    assert_int_equal(bench_slot(b, 40), 0x8081828384858687);
    assert_int_equal(bench_slot(b, 48), 0xfe020406080a0c0e);
    assert_int_equal(bench_slot(b, 56), 0x00020406080a0c0e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers), cmocka_unit_test(test_bits),
        cmocka_unit_test(test_wide),     cmocka_unit_test(test_comparisons),
        cmocka_unit_test(test_widths),   cmocka_unit_test(test_folder),
        cmocka_unit_test(test_loop),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_leaving),  cmocka_unit_test(test_calls),
        cmocka_unit_test(test_vectors),
    };

    return cmocka_run_group_tests(tests, bench_setup, bench_teardown);
}
