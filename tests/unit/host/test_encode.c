/* Every form the encoder knows, over registers, sizes, addressing forms and immediates, decoded
 * again by Zydis. */
#include "../unit.h"

#include <Zydis/Zydis.h>
#include <stdio.h>

#include "host/x64/encode.h"

static struct x64 code;
static u8 buffer[64];
static ZydisDecoder decoder;
static ZydisDecodedInstruction inst;
static ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
static unsigned checked;

static const u8 gprs[] = {RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R11, R12, R13, R15};
static const u8 sizes[] = {1, 2, 4, 8};

#define EACH(var, array)                                                                           \
    for (unsigned var##_i = 0;                                                                     \
         var##_i < ARRAY_SIZE(array) && ((void)(var = (array)[var##_i]), true); var##_i++)

static void begin(void)
{
    code = (struct x64){
        .p = buffer, .start = buffer, .limit = buffer + sizeof(buffer), .exec = 0x10000000};
}

static void decode(ZydisMnemonic mnemonic)
{
    size_t bytes = (size_t)(code.p - code.start);

    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, buffer, bytes, &inst, ops)))
        fail_msg("%s does not decode", ZydisMnemonicGetString(mnemonic));
    if (inst.mnemonic != mnemonic || inst.length != bytes)
        fail_msg("%s of %zu bytes came out as %s of %u", ZydisMnemonicGetString(mnemonic), bytes,
                 ZydisMnemonicGetString(inst.mnemonic), inst.length);
    checked++;
}

static ZydisRegister gpr(unsigned bytes, unsigned r)
{
    static const ZydisRegister low[] = {ZYDIS_REGISTER_AL,  ZYDIS_REGISTER_CL,  ZYDIS_REGISTER_DL,
                                        ZYDIS_REGISTER_BL,  ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_BPL,
                                        ZYDIS_REGISTER_SIL, ZYDIS_REGISTER_DIL};

    switch (bytes) {
    case 1:
        return r < 8 ? low[r] : ZYDIS_REGISTER_R8B + (r - 8);
    case 2:
        return ZYDIS_REGISTER_AX + r;
    case 4:
        return ZYDIS_REGISTER_EAX + r;
    default:
        return ZYDIS_REGISTER_RAX + r;
    }
}

static void is_gpr(unsigned k, unsigned bytes, unsigned r)
{
    assert_int_equal(ops[k].type, ZYDIS_OPERAND_TYPE_REGISTER);
    assert_int_equal(ops[k].reg.value, gpr(bytes, r));
}

static void is_xmm(unsigned k, unsigned r)
{
    assert_int_equal(ops[k].type, ZYDIS_OPERAND_TYPE_REGISTER);
    assert_int_equal(ops[k].reg.value, ZYDIS_REGISTER_XMM0 + r);
}

static void is_imm(unsigned k, s64 value)
{
    assert_int_equal(ops[k].type, ZYDIS_OPERAND_TYPE_IMMEDIATE);
    assert_int_equal(ops[k].imm.value.s, value);
}

static void is_mem(unsigned k, unsigned bytes, struct x64_mem m)
{
    assert_int_equal(ops[k].type, ZYDIS_OPERAND_TYPE_MEMORY);
    if (bytes)
        assert_int_equal(ops[k].size, bytes * 8);
    assert_int_equal(ops[k].mem.base, gpr(8, m.base));
    if (m.index == X64_NO_REG) {
        assert_int_equal(ops[k].mem.index, ZYDIS_REGISTER_NONE);
    } else {
        assert_int_equal(ops[k].mem.index, gpr(8, m.index));
        assert_int_equal(ops[k].mem.scale, 1 << m.shift);
    }
    assert_int_equal(ops[k].mem.disp.value, m.disp);
}

/* Calls @check with every addressing form. */
static void each_mem(void (*check)(struct x64_mem m, unsigned bytes), unsigned bytes)
{
    static const s32 disps[] = {0, 1, -128, 127, 128, -129, INT32_MAX, INT32_MIN};
    unsigned base, index;
    s32 disp;

    EACH(disp, disps)
    {
        EACH(base, gprs)
        {
            check(x64_at(base, disp), bytes);
            EACH(index, gprs)
            check(x64_at_index(base, index, index & 3, disp), bytes);
        }
        check(x64_at(RSP, disp), bytes);
        check(x64_at_index(RSP, R12, 3, disp), bytes);
    }
}

static const ZydisMnemonic alu_names[] = {
    ZYDIS_MNEMONIC_ADD, ZYDIS_MNEMONIC_OR,  ZYDIS_MNEMONIC_ADC, ZYDIS_MNEMONIC_SBB,
    ZYDIS_MNEMONIC_AND, ZYDIS_MNEMONIC_SUB, ZYDIS_MNEMONIC_XOR, ZYDIS_MNEMONIC_CMP};

static s64 cut(s32 imm, unsigned bytes)
{
    return bytes == 1 ? (s8)imm : bytes == 2 ? (s16)imm : imm;
}

static void test_alu(void **state)
{
    static const s32 imms[] = {0, 1, -1, 127, -128, 128, 0x7fff, -0x8000, INT32_MAX, INT32_MIN};
    unsigned bytes, d, s;
    s32 imm;

    (void)state;
    for (unsigned alu = 0; alu < 8; alu++) {
        EACH(bytes, sizes) EACH(d, gprs)
        {
            EACH(s, gprs)
            {
                begin();
                x64_alu_rr(&code, alu, bytes, d, s);
                decode(alu_names[alu]);
                is_gpr(0, bytes, d);
                is_gpr(1, bytes, s);
            }
            EACH(imm, imms)
            {
                begin();
                x64_alu_ri(&code, alu, bytes, d, imm);
                decode(alu_names[alu]);
                is_gpr(0, bytes, d);
                is_imm(1, cut(imm, bytes));
                begin();
                x64_alu_mi(&code, alu, bytes, x64_at(d, 8), imm);
                decode(alu_names[alu]);
                is_mem(0, bytes, x64_at(d, 8));
                is_imm(1, cut(imm, bytes));
            }
        }
    }
}

static void check_alu_mem(struct x64_mem m, unsigned bytes)
{
    begin();
    x64_alu_rm(&code, ALU_SUB, bytes, RSI, m);
    decode(ZYDIS_MNEMONIC_SUB);
    is_gpr(0, bytes, RSI);
    is_mem(1, bytes, m);
    begin();
    x64_alu_mr(&code, ALU_XOR, bytes, m, R9);
    decode(ZYDIS_MNEMONIC_XOR);
    is_mem(0, bytes, m);
    is_gpr(1, bytes, R9);
}

static void check_moves(struct x64_mem m, unsigned bytes)
{
    unsigned to;

    begin();
    x64_load(&code, bytes, RDI, m);
    decode(bytes < 4 ? ZYDIS_MNEMONIC_MOVZX : ZYDIS_MNEMONIC_MOV);
    is_gpr(0, bytes < 4 ? 4 : bytes, RDI);
    is_mem(1, bytes, m);
    begin();
    x64_store(&code, bytes, m, RDI);
    decode(ZYDIS_MNEMONIC_MOV);
    is_mem(0, bytes, m);
    is_gpr(1, bytes, RDI);
    begin();
    x64_store_imm(&code, bytes, m, -2);
    decode(ZYDIS_MNEMONIC_MOV);
    is_mem(0, bytes, m);
    is_imm(1, -2);
    begin();
    x64_test_mi(&code, bytes, m, 0x55);
    decode(ZYDIS_MNEMONIC_TEST);
    is_mem(0, bytes, m);
    is_imm(1, 0x55);
    begin();
    x64_unary_m(&code, UNARY_DIV, bytes, m);
    decode(ZYDIS_MNEMONIC_DIV);
    is_mem(0, bytes, m);
    for (to = 4; to <= 8 && bytes < 8; to += 4) {
        if (bytes >= to)
            continue;
        begin();
        x64_movsx_m(&code, bytes, to, R10, m);
        decode(bytes == 4 ? ZYDIS_MNEMONIC_MOVSXD : ZYDIS_MNEMONIC_MOVSX);
        is_gpr(0, to, R10);
        is_mem(1, bytes, m);
    }
    if (bytes >= 4) {
        begin();
        x64_lea(&code, bytes, R15, m);
        decode(ZYDIS_MNEMONIC_LEA);
        is_gpr(0, bytes, R15);
        is_mem(1, 0, m);
    }
}

static void test_memory(void **state)
{
    unsigned bytes;

    (void)state;
    EACH(bytes, sizes)
    {
        each_mem(check_alu_mem, bytes);
        each_mem(check_moves, bytes);
    }
}

static void check_register_forms(unsigned bytes, unsigned d, unsigned s)
{
    begin();
    x64_test_rr(&code, bytes, d, s);
    decode(ZYDIS_MNEMONIC_TEST);
    is_gpr(0, bytes, d);
    is_gpr(1, bytes, s);
    begin();
    x64_mov_rr(&code, bytes, d, s);
    decode(ZYDIS_MNEMONIC_MOV);
    is_gpr(0, bytes, d);
    is_gpr(1, bytes, s);
    if (bytes < 8) {
        begin();
        x64_movzx(&code, bytes, d, s);
        decode(bytes == 4 ? ZYDIS_MNEMONIC_MOV : ZYDIS_MNEMONIC_MOVZX);
        is_gpr(0, 4, d);
        is_gpr(1, bytes, s);
        begin();
        x64_movsx(&code, bytes, 8, d, s);
        decode(bytes == 4 ? ZYDIS_MNEMONIC_MOVSXD : ZYDIS_MNEMONIC_MOVSX);
        is_gpr(0, 8, d);
        is_gpr(1, bytes, s);
    }
    if (bytes >= 4) {
        begin();
        x64_cmov(&code, CC_LE, bytes, d, s);
        decode(ZYDIS_MNEMONIC_CMOVLE);
        is_gpr(0, bytes, d);
        is_gpr(1, bytes, s);
        begin();
        x64_vex_rr(&code, X64_F2 | X64_0F38 | (bytes == 8 ? X64_W : 0) | 0xf7, d, s, R12);
        decode(ZYDIS_MNEMONIC_SHRX);
        is_gpr(0, bytes, d);
        is_gpr(1, bytes, R12);
        is_gpr(2, bytes, s);
    }
}

static void test_registers(void **state)
{
    static const struct {
        enum x64_shift shift;
        ZydisMnemonic name;
    } shifts[] = {{SHIFT_ROL, ZYDIS_MNEMONIC_ROL},
                  {SHIFT_ROR, ZYDIS_MNEMONIC_ROR},
                  {SHIFT_SHL, ZYDIS_MNEMONIC_SHL},
                  {SHIFT_SHR, ZYDIS_MNEMONIC_SHR},
                  {SHIFT_SAR, ZYDIS_MNEMONIC_SAR}};
    static const ZydisMnemonic unaries[] = {
        [UNARY_NOT] = ZYDIS_MNEMONIC_NOT, [UNARY_NEG] = ZYDIS_MNEMONIC_NEG,
        [UNARY_MUL] = ZYDIS_MNEMONIC_MUL, [UNARY_IMUL] = ZYDIS_MNEMONIC_IMUL,
        [UNARY_DIV] = ZYDIS_MNEMONIC_DIV, [UNARY_IDIV] = ZYDIS_MNEMONIC_IDIV};
    unsigned bytes, d, s;

    (void)state;
    EACH(bytes, sizes) EACH(d, gprs)
    {
        EACH(s, gprs)
        check_register_forms(bytes, d, s);
        begin();
        x64_test_ri(&code, bytes, d, -3);
        decode(ZYDIS_MNEMONIC_TEST);
        is_gpr(0, bytes, d);
        is_imm(1, -3);
        for (unsigned i = 0; i < ARRAY_SIZE(shifts); i++) {
            for (unsigned count = 1; count < bytes * 8; count++) {
                begin();
                x64_shift_ri(&code, shifts[i].shift, bytes, d, count);
                decode(shifts[i].name);
                is_gpr(0, bytes, d);
                is_imm(1, count);
            }
            begin();
            x64_shift_cl(&code, shifts[i].shift, bytes, d);
            decode(shifts[i].name);
            is_gpr(0, bytes, d);
            is_gpr(1, 1, RCX);
        }
        for (unsigned op = UNARY_NOT; op <= UNARY_IDIV; op++) {
            begin();
            x64_unary_r(&code, op, bytes, d);
            decode(unaries[op]);
            is_gpr(0, bytes, d);
        }
    }
}

static void test_immediates(void **state)
{
    static const u64 imms[] = {
        0,           1,     0x7fffffff,         0x80000000,         0xffffffff,
        0x100000000, ~0ull, 0xffffffff80000000, 0xffffffff7fffffff, 0x123456789abcdef0};
    unsigned d;
    u64 imm;

    (void)state;
    EACH(d, gprs) EACH(imm, imms)
    {
        begin();
        x64_mov_ri(&code, d, imm);
        decode(ZYDIS_MNEMONIC_MOV);
        assert_int_equal(ops[0].reg.value, gpr(imm <= UINT32_MAX ? 4 : 8, d));
        /* A 32-bit form zero-extends. */
        assert_true((imm <= UINT32_MAX ? (u32)ops[1].imm.value.u : ops[1].imm.value.u) == imm);
    }
}

static void test_conditions(void **state)
{
    static const ZydisMnemonic sets[] = {
        ZYDIS_MNEMONIC_SETO, ZYDIS_MNEMONIC_SETNO, ZYDIS_MNEMONIC_SETB,  ZYDIS_MNEMONIC_SETNB,
        ZYDIS_MNEMONIC_SETZ, ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETBE, ZYDIS_MNEMONIC_SETNBE,
        ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETNS, ZYDIS_MNEMONIC_SETP,  ZYDIS_MNEMONIC_SETNP,
        ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETNL, ZYDIS_MNEMONIC_SETLE, ZYDIS_MNEMONIC_SETNLE};
    static const ZydisMnemonic jumps[] = {
        ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB,  ZYDIS_MNEMONIC_JNB,
        ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
        ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP,  ZYDIS_MNEMONIC_JNP,
        ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE};
    unsigned d;
    u64 to;

    (void)state;
    for (unsigned cc = 0; cc < 16; cc++) {
        EACH(d, gprs)
        {
            begin();
            x64_setcc(&code, cc, d);
            decode(sets[cc]);
            is_gpr(0, 1, d);
        }
        begin();
        x64_jcc(&code, cc, 0x10001234);
        decode(jumps[cc]);
        assert_true(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&inst, &ops[0], code.exec, &to)));
        assert_int_equal(to, 0x10001234);
    }
    begin();
    x64_jmp(&code, 0xffff000);
    decode(ZYDIS_MNEMONIC_JMP);
    assert_true(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&inst, &ops[0], code.exec, &to)));
    assert_int_equal(to, 0xffff000);
    begin();
    x64_call(&code, 0x10000000);
    decode(ZYDIS_MNEMONIC_CALL);
    assert_true(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&inst, &ops[0], code.exec, &to)));
    assert_int_equal(to, 0x10000000);
}

static void test_sse(void **state)
{
    static const struct {
        u32 op;
        ZydisMnemonic name;
        bool imm;
    } forms[] = {
        {X64_MOVAPS, ZYDIS_MNEMONIC_MOVAPS, false},
        {X64_MOVUPS, ZYDIS_MNEMONIC_MOVUPS, false},
        {X64_XORPS, ZYDIS_MNEMONIC_XORPS, false},
        {X64_F3 | X64_0F | 0x58, ZYDIS_MNEMONIC_ADDSS, false},
        {X64_F2 | X64_0F | 0x58, ZYDIS_MNEMONIC_ADDSD, false},
        {X64_66 | X64_0F | 0xfe, ZYDIS_MNEMONIC_PADDD, false},
        {X64_66 | X64_0F38 | 0x00, ZYDIS_MNEMONIC_PSHUFB, false},
        {X64_66 | X64_0F3A | 0x0f, ZYDIS_MNEMONIC_PALIGNR, true},
        {X64_66 | X64_0F3A | 0x0b, ZYDIS_MNEMONIC_ROUNDSD, true},
        {X64_66 | X64_0F | 0x2e, ZYDIS_MNEMONIC_UCOMISD, false},
        {X64_0F | 0x2f, ZYDIS_MNEMONIC_COMISS, false},
    };
    unsigned base;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++) {
        for (unsigned d = 0; d < 16; d++) {
            for (unsigned s = 0; s < 16; s++) {
                begin();
                x64_rr(&code, forms[i].op, d, s);
                if (forms[i].imm)
                    x64_byte(&code, 0x0c);
                decode(forms[i].name);
                is_xmm(0, d);
                is_xmm(1, s);
                if (forms[i].imm)
                    is_imm(2, 0x0c);
            }
            EACH(base, gprs)
            {
                begin();
                x64_rm(&code, forms[i].op, d, x64_at(base, 0x40));
                if (forms[i].imm)
                    x64_byte(&code, 0x0c);
                decode(forms[i].name);
                is_xmm(0, d);
                is_mem(1, 0, x64_at(base, 0x40));
            }
        }
    }
}

static void test_sse_gpr(void **state)
{
    unsigned r;

    (void)state;
    for (unsigned x = 0; x < 16; x++) {
        EACH(r, gprs)
        {
            begin();
            x64_rr(&code, X64_MOVD_TO_XMM | X64_W, x, r);
            decode(ZYDIS_MNEMONIC_MOVQ);
            is_xmm(0, x);
            is_gpr(1, 8, r);
            begin();
            x64_rr(&code, X64_MOVD_FROM_XMM, x, r);
            decode(ZYDIS_MNEMONIC_MOVD);
            is_gpr(0, 4, r);
            is_xmm(1, x);
            begin();
            x64_rr_ib(&code, X64_PINSRQ, x, r, 1);
            decode(ZYDIS_MNEMONIC_PINSRQ);
            is_xmm(0, x);
            is_gpr(1, 8, r);
            begin();
            x64_rr_ib(&code, X64_PEXTRQ, x, r, 1);
            decode(ZYDIS_MNEMONIC_PEXTRQ);
            is_gpr(0, 8, r);
            is_xmm(1, x);
        }
        begin();
        x64_rm(&code, X64_MOVQ, x, x64_at(RSP, 32));
        decode(ZYDIS_MNEMONIC_MOVQ);
        is_xmm(0, x);
        is_mem(1, 8, x64_at(RSP, 32));
    }
}

static void test_nops(void **state)
{
    (void)state;
    for (unsigned n = 1; n < 16; n++) {
        size_t at = 0;

        begin();
        x64_nop(&code, n);
        assert_int_equal(code.p - code.start, n);
        while (at < n) {
            assert_true(
                ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, buffer + at, n - at, &inst, ops)));
            assert_int_equal(inst.mnemonic, ZYDIS_MNEMONIC_NOP);
            at += inst.length;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alu),        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_registers),  cmocka_unit_test(test_immediates),
        cmocka_unit_test(test_conditions), cmocka_unit_test(test_sse),
        cmocka_unit_test(test_sse_gpr),    cmocka_unit_test(test_nops),
    };
    int failed;

    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("%u instructions decoded\n", checked);
    return failed;
}
