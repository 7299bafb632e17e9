/*
 * The decoder against Zydis: every row of the tables in all three code sizes with random prefixes,
 * ModRM, displacement and immediates must give the same length, mnemonic and operands, and #UD
 * where Zydis sees no instruction.
 */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "../../isa/modrm.h"

#include "guest/x86/driver.h"
#include "guest/x86/rows.h"
#include "guest/x86/state.h"
#include "guest/x86/x86_internal.h"

#define TRIES 400

static u64 seed = 0x9e3779b97f4a7c15ull;

static u32 any(u32 below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (u32)(seed >> 32) % below;
}

/* Row names whose instructions go by other mnemonics in Zydis; '*' ends a prefix match. */
static const struct {
    const char *row, *mnemonics;
} aliases[] = {
    {"jcc", "j*"},
    {"setcc", "set*"},
    {"cmovcc", "cmov*"},
    {"cbw", "cbw cwde cdqe"},
    {"cwd", "cwd cdq cqo"},
    {"movs", "movsb movsw movsd movsq"},
    {"cmps", "cmpsb cmpsw cmpsd cmpsq"},
    {"stos", "stosb stosw stosd stosq"},
    {"lods", "lodsb lodsw lodsd lodsq"},
    {"scas", "scasb scasw scasd scasq"},
    {"ins", "insb insw insd"},
    {"outs", "outsb outsw outsd"},
    {"pusha", "pusha pushad"},
    {"popa", "popa popad"},
    {"pushf", "pushf pushfd pushfq"},
    {"popf", "popf popfd popfq"},
    {"iret", "iret iretd iretq"},
    {"cmpxchg8b", "cmpxchg8b cmpxchg16b"},
    {"jcxz", "jcxz jecxz jrcxz"},
    {"nop", "nop prefetch* endbr* rdssp* bnd* cldemote"},
    {"prefetchw", "prefetch*"},
    {"xchg", "xchg nop"},
    {"movd", "movd movq"},
    {"pextrd", "pextrd pextrq"},
    {"pinsrd", "pinsrd pinsrq"},
    {"retf", "ret"},
    {"fnop_287", "fdisi8087_nop feni8087_nop fsetpm287_nop"},
    {"fstp", "fstp fstpnce"},
    {"fxsave", "fxsave fxsave64"},
    {"fxrstor", "fxrstor fxrstor64"},
    {"xsave", "xsave xsave64"},
    {"xsavec", "xsavec xsavec64"},
    {"xsaveopt", "xsaveopt xsaveopt64"},
    {"xsaves", "xsaves xsaves64"},
    {"xrstor", "xrstor xrstor64"},
    {"xrstors", "xrstors xrstors64"},
    /* What these were before a feature gave the F3 prefix a meaning. */
    {"bsf", "bsf tzcnt"},
    {"bsr", "bsr lzcnt"},
};

/* Instructions of features that no CPU model has: #UD for us. */
static const char *const absent =
    " tzcnt lzcnt serialize xabort xbegin xend xtest "
    "cldemote ptwrite incssp* rstorssp saveprevssp setssbsy clrssbsy wrss* wruss* "
    "enqcmd* movdir64b gf2p8* sha* aes* pclmulqdq bnd* rdssp* v* k* jk* pconfig encls enclu enclv "
    "xresldtrk xsusldtrk uiret testui clui stui senduipi hreset wbnoinvd mcommit invlpgb tlbsync "
    "rdpru clzero monitorx mwaitx pvalidate psmash rmpupdate rmpadjust skinit stgi clgi vmrun "
    "vmmcall vmload vmsave invlpga extrq insertq movntss movntsd montmul xcrypt* xsha* xstore "
    "pf* pi2f* pmulhrw pavgusb pswapd femms tdcall seam* getsec aenc* adec* encodekey* loadiwkey "
    "prefetchwt1 ";

/* AMD's outside 64-bit code, not Intel's. */
static const char *const amd_legacy = "syscall sysret";

/* Forms that Zydis refuses: MPX ones, #UD only where there is MPX; control, debug and segment
 * registers that there are not, which the lift functions refuse. */
static const char *const refused_later =
    "nop mov_to_cr mov_from_cr mov_to_dr mov_from_dr mov_to_seg mov_from_seg";

static bool listed(const char *list, const char *name)
{
    char word[32];
    int used;

    for (; sscanf(list, " %31s%n", word, &used) == 1; list += used) {
        size_t n = strlen(word);

        if (word[n - 1] == '*' ? !strncmp(word, name, n - 1) : !strcmp(word, name))
            return true;
    }
    return false;
}

/* Rows tell forms of one mnemonic apart by mmx_ before it or something with _ behind it. */
static bool mnemonic_fits(const char *row, const char *zydis)
{
    size_t n = strlen(zydis);

    if (!strncmp(row, "mmx_", 4))
        row += 4;
    if (!strncmp(row, zydis, n) && row[n] == '_')
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
        if (!strcmp(aliases[i].row, row))
            return listed(aliases[i].mnemonics, zydis);
    return !strcmp(row, zydis);
}

/* A random instance of @row, 32 bytes. */
static void make(const struct x86_row *row, unsigned code_size, u8 *code)
{
    static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    static const u8 mandatory[] = {0, 0, 0x66, 0xf3, 0xf2, 0};
    static const u8 escapes[X86_MAPS][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    unsigned n = 0;

    for (unsigned i = 0; i < 32; i++)
        code[i] = (u8)any(256);
    for (unsigned i = any(2) ? any(4) : 0; i; i--)
        code[n++] = prefixes[any(ARRAY_SIZE(prefixes))];
    if (mandatory[row->prefix])
        code[n++] = mandatory[row->prefix];
    if (code_size == 8 && any(2))
        code[n++] = (u8)(0x40 + any(16));
    for (unsigned i = 0; i < 2; i++)
        if (escapes[row->map][i])
            code[n++] = escapes[row->map][i];
    code[n++] = (u8)(row->opcode + any(x86_row_span(row)));
    if (row->modrm != X86_MODRM_NONE)
        code[n] = modrm_of_row(row, (u8)any(256));
}

struct zydis {
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    bool valid;
};

static void zydis_decode(struct zydis *z, const u8 *code, unsigned length, unsigned code_size)
{
    ZydisMachineMode mode = code_size == 8   ? ZYDIS_MACHINE_MODE_LONG_64
                            : code_size == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                             : ZYDIS_MACHINE_MODE_LEGACY_16;

    ZydisDecoderInit(&z->decoder, mode,
                     code_size == 8   ? ZYDIS_STACK_WIDTH_64
                     : code_size == 4 ? ZYDIS_STACK_WIDTH_32
                                      : ZYDIS_STACK_WIDTH_16);
    z->valid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z->decoder, code, length, &z->insn, z->op));
}

static int register_number(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_NONE ? -1 : ZydisRegisterGetId(reg);
}

/* 3E on an indirect branch is NOTRACK to Zydis; it overrides the segment all the same. */
static bool notrack(const struct x86_insn *in)
{
    return in->segment == X86_DS &&
           (!strcmp(in->row->name, "jmp") || !strcmp(in->row->name, "call"));
}

static const char *memory_differs(const struct x86_insn *in, const ZydisDecodedOperand *op)
{
    static const ZydisRegister segments[] = {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_CS,
                                             ZYDIS_REGISTER_SS, ZYDIS_REGISTER_DS,
                                             ZYDIS_REGISTER_FS, ZYDIS_REGISTER_GS};
    bool rip = op->mem.base == ZYDIS_REGISTER_RIP || op->mem.base == ZYDIS_REGISTER_EIP;
    bool based = in->segment == X86_FS || in->segment == X86_GS;

    /* [index * 1] may also be read as [base]. */
    if (in->base == -1 && in->index >= 0 && !in->scale && !op->mem.index)
        return register_number(op->mem.base) == in->index ? NULL : "index as base";
    /* Zydis 4.0 takes SIB base 101b with REX.B and 67h for R13D even with mod 0 (SDM vol. 2 table
     * 2-5: no base). */
    if (in->base == -1 && op->mem.base == ZYDIS_REGISTER_R13D && !in->mod)
        return NULL;
    if (in->base != (rip ? -2 : register_number(op->mem.base)))
        return "base";
    if (in->index != register_number(op->mem.index))
        return "index";
    if (op->mem.index && 1u << in->scale != op->mem.scale)
        return "scale";
    if ((u64)in->disp != (u64)(op->mem.disp.has_displacement ? op->mem.disp.value : 0))
        return "displacement";
    /* Which segment is only told apart in 64-bit mode if it has a base. */
    if (op->mem.type == ZYDIS_MEMOP_TYPE_MEM && !notrack(in) && (in->code_size != 8 || based) &&
        op->mem.segment != segments[in->segment])
        return "segment";
    return NULL;
}

static const char *register_differs(const struct x86_operand *mine, ZydisRegister reg)
{
    int number = register_number(reg);

    if (reg == ZYDIS_REGISTER_NONE)
        return "register";
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8) {
        /* Zydis numbers AL CL DL BL AH CH DH BH SPL ...  */
        if (mine->high != (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH))
            return "high byte";
        number = reg - (mine->high ? ZYDIS_REGISTER_AH : ZYDIS_REGISTER_AL);
        if (reg >= ZYDIS_REGISTER_SPL)
            number = reg - ZYDIS_REGISTER_SPL + 4;
    }
    return mine->reg != number ? "register number" : NULL;
}

/* NULL, or what is wrong with operand @n. Implicit operands in our rows have no visible partner. */
static const char *operand_differs(const struct x86_insn *in, const struct zydis *z, unsigned n)
{
    const struct x86_operand *mine = &in->op[n];
    const ZydisDecodedOperand *op = &z->op[n];

    switch (mine->kind) {
    case X86_OP_REG:
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return "kind (register)";
        if (mine->size * 8u != op->size)
            return "size";
        return register_differs(mine, op->reg.value);
    case X86_OP_MEM:
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
            return "kind (memory)";
        if (mine->size && op->size && mine->size * 8u != op->size)
            return "size";
        return memory_differs(in, op);
    case X86_OP_IMM:
        if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return "kind (immediate)";
        if ((mine->value ^ op->imm.value.u) & mask_low(mine->size * 8))
            return "immediate";
        return NULL;
    case X86_OP_REL:
        if (op->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || mine->value != op->imm.value.u)
            return "displacement";
        return NULL;
    case X86_OP_XMM:
    case X86_OP_MMX:
    case X86_OP_CR:
    case X86_OP_DR:
    case X86_OP_SEG:
        if (op->type != ZYDIS_OPERAND_TYPE_REGISTER || register_number(op->reg.value) != mine->reg)
            return "special register";
        return NULL;
    case X86_OP_MOFFS:
        if (op->type != ZYDIS_OPERAND_TYPE_MEMORY ||
            ((u64)op->mem.disp.value ^ mine->value) & mask_low(in->address_size * 8))
            return "absolute address";
        return NULL;
    }
    return NULL;
}

/* Rows whose operands are none of Zydis's business: its visible ones differ by convention. */
static bool operands_compared(const struct x86_row *row, const struct zydis *z)
{
    static const char *const except =
        "nop pause prefetchw movsxd enter xchg ud0 ud1 bound salc cmpxchg8b clflush movmskps "
        "movmskpd "
        "pinsrw pextrw pmovmskb mmx_pinsrw invept invvpid invpcid lar lsl sldt str smsw vmread "
        "vmwrite mov_from_seg";

    return !listed(except, row->name) && z->insn.mnemonic != ZYDIS_MNEMONIC_NOP;
}

/* What Zydis calls the set that the instruction is of, as one of X86_FEATURES_V2. */
static u64 zydis_extension(const struct zydis *z)
{
    static const struct {
        ZydisISASet set;
        u64 feature;
    } sets[] = {
        {ZYDIS_ISA_SET_SSE3, X86_FEATURE_SSE3},     {ZYDIS_ISA_SET_SSE3X87, X86_FEATURE_SSE3},
        {ZYDIS_ISA_SET_SSSE3, X86_FEATURE_SSSE3},   {ZYDIS_ISA_SET_SSSE3MMX, X86_FEATURE_SSSE3},
        {ZYDIS_ISA_SET_SSE4, X86_FEATURE_SSE4_1},   {ZYDIS_ISA_SET_SSE42, X86_FEATURE_SSE4_2},
        {ZYDIS_ISA_SET_POPCNT, X86_FEATURE_POPCNT}, {ZYDIS_ISA_SET_CMPXCHG16B, X86_FEATURE_CX16},
    };

    if (z->insn.mnemonic == ZYDIS_MNEMONIC_LAHF || z->insn.mnemonic == ZYDIS_MNEMONIC_SAHF)
        return z->decoder.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? X86_FEATURE_LAHF : 0;
    for (unsigned i = 0; i < ARRAY_SIZE(sets); i++)
        if (z->insn.meta.isa_set == sets[i].set)
            return sets[i].feature;
    return 0;
}

static void describe(const u8 *code, unsigned code_size, const struct x86_insn *in, int result,
                     const struct zydis *z, const char *what)
{
    fprintf(stderr, "%s in %u-bit code:", what, code_size * 8);
    for (unsigned i = 0; i < 15; i++)
        fprintf(stderr, " %02x", code[i]);
    fprintf(stderr, "\n  ours: %d %s length %u\n", result, in->row ? in->row->name : "-",
            in->length);
    if (z->valid)
        fprintf(stderr, "  zydis: %s length %u\n", ZydisMnemonicGetString(z->insn.mnemonic),
                z->insn.length);
    else
        fprintf(stderr, "  zydis: none\n");
}

/* True if both decoders agree about @code. */
static bool agree(const u8 *code, unsigned code_size)
{
    struct x86_insn in;
    struct zydis z;
    int result = x86_decode(&in, code, 32, code_size);
    const char *what = NULL, *mnemonic;

    zydis_decode(&z, code, 15, code_size);
    mnemonic = z.valid ? ZydisMnemonicGetString(z.insn.mnemonic) : "";
    if (result != X86_DECODE_OK) {
        if (z.valid && !listed(absent, mnemonic) &&
            (code_size == 8 || !listed(amd_legacy, mnemonic)))
            what = "refused";
    } else if (!z.valid) {
        if (!listed(refused_later, in.row->name))
            what = "accepted";
    } else if (!mnemonic_fits(in.row->name, mnemonic)) {
        if (!listed(absent, mnemonic))
            what = "mnemonic";
    } else if (in.length != z.insn.length) {
        what = "length";
    } else if (x86_extension(&in) != zydis_extension(&z)) {
        what = "extension";
    } else if (operands_compared(in.row, &z)) {
        for (unsigned n = 0; n < 3 && !what; n++)
            what = operand_differs(&in, &z, n);
    }
    if (what)
        describe(code, code_size, &in, result, &z, what);
    return !what;
}

static void test_rows(void **state)
{
    unsigned failures = 0;

    (void)state;
    for (unsigned r = 0; r < x86_rows_count; r++) {
        for (unsigned size = 2; size <= 8; size *= 2) {
            for (unsigned i = 0; i < TRIES; i++) {
                u8 code[32];

                make(&x86_rows[r], size, code);
                if (!agree(code, size)) {
                    failures++;
                    break;
                }
            }
        }
    }
    assert_int_equal(failures, 0);
}

/* Every opcode there could be, with each prefix that may be part of it and every ModRM: what has no
 * row must be no instruction, or one of an absent feature. (mod 1 and 2 are as 0.) */
static void test_all_opcodes(void **state)
{
    static const u8 prefixes[] = {0, 0x66, 0xf3, 0xf2};
    static const u8 escapes[X86_MAPS][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    unsigned failures = 0;

    (void)state;
    for (unsigned i = 0; i < X86_MAPS * 256 * ARRAY_SIZE(prefixes) * 3; i++) {
        unsigned map = i & 3, opcode = i >> 2 & 255, prefix = prefixes[i >> 10 & 3];
        unsigned size = 2u << (i >> 12);
        u8 code[32] = {0}, n = 0;

        if (map == 0 && (opcode == 0x0f || opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62 ||
                         opcode == 0x8f))
            continue; /* other maps, VEX, EVEX and XOP: test_undefined */
        if (prefix)
            code[n++] = (u8)prefix;
        for (unsigned e = 0; e < 2; e++)
            if (escapes[map][e])
                code[n++] = escapes[map][e];
        code[n++] = (u8)opcode;
        for (unsigned modrm = 0; modrm < 256; modrm = modrm == 0x3f ? 0xc0 : modrm + 1) {
            code[n] = (u8)modrm;
            if (!agree(code, size)) {
                failures++;
                break;
            }
        }
    }
    assert_int_equal(failures, 0);
}

/* Any cut of an instruction asks for more bytes; all of it decodes alike whatever follows. */
static void test_more_bytes(void **state)
{
    (void)state;
    for (unsigned r = 0; r < x86_rows_count; r++) {
        struct x86_insn whole, part;
        u8 code[32];

        make(&x86_rows[r], 8, code);
        if (x86_decode(&whole, code, 32, 8) != X86_DECODE_OK)
            continue;
        for (unsigned n = 0; n < whole.length; n++)
            assert_int_equal(x86_decode(&part, code, n, 8), -ERANGE);
        assert_int_equal(x86_decode(&part, code, whole.length, 8), X86_DECODE_OK);
        assert_memory_equal(&part, &whole, sizeof(part));
    }
}

static void test_length_limit(void **state)
{
    u8 code[32];
    struct x86_insn in;

    (void)state;
    memset(code, 0x66, sizeof(code));
    code[14] = 0x90;
    assert_int_equal(x86_decode(&in, code, 32, 8), X86_DECODE_OK);
    assert_int_equal(in.length, 15);
    assert_int_equal(x86_decode(&in, code, 14, 8), -ERANGE);
    code[14] = 0x66;
    assert_int_equal(x86_decode(&in, code, 15, 8), -E2BIG);
    assert_int_equal(x86_decode(&in, code, 32, 8), -E2BIG);
    /* The 15th byte is the opcode, its immediate the 16th. */
    code[14] = 0xb0;
    assert_int_equal(x86_decode(&in, code, 32, 8), -E2BIG);
}

static void test_undefined(void **state)
{
    static const struct {
        u8 code[4];
        unsigned size;
    } bad[] = {
        {{0xc5, 0xf8, 0x77}, 8},       /* VZEROUPPER */
        {{0xc4, 0xe2, 0x7b, 0xf7}, 8}, /* SHLX */
        {{0x62, 0xf1, 0x7c, 0x48}, 8}, /* EVEX */
        {{0x8f, 0xe9, 0x78, 0x80}, 8}, /* XOP */
        {{0x06}, 8},                   /* PUSH ES */
        {{0xf0, 0x90}, 8},             /* LOCK NOP */
        {{0xf0, 0x01, 0xc0}, 8},       /* LOCK ADD EAX, EAX */
        {{0xf0, 0x39, 0x00}, 8},       /* LOCK CMP */
        {{0x8d, 0xc0}, 8},             /* LEA with a register */
        {{0x62, 0xc0}, 4},             /* BOUND with a register */
        {{0xc5, 0xc0}, 4},             /* LDS with a register */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct x86_insn in;
        u8 code[32] = {0};

        memcpy(code, bad[i].code, 4);
        assert_int_equal(x86_decode(&in, code, 32, bad[i].size), X86_DECODE_UD);
        assert_null(in.row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_all_opcodes),
        cmocka_unit_test(test_more_bytes), cmocka_unit_test(test_length_limit),
        cmocka_unit_test(test_undefined),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
