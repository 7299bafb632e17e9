/* The decoder: words with their operands as the manual and Debian's assembler have them. */
#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "guest/riscv/insn.h"
#include "guest/riscv/riscv.h"

static int decode(struct riscv_insn *in, u32 word)
{
    return riscv_decode(in, (const u8 *)&word, 4);
}

/* As binutils lists them. */
static void test_listing(void **state)
{
    static const struct {
        u32 word;
        const char *text;
    } cases[] = {
        {0x00a58533, "add x10, x11, x10"},
        {0xfff50513, "addi x10, x10, -1"},
        {0xffc5b503, "ld x10, -4(x11)"},
        {0x00b53423, "sd x11, 8(x10)"},
        {0x02b57553, "fadd.d f10, f10, f11, dyn"},
        {0xc2051553, "fcvt.w.d x10, f10, rtz"},
        {0x00100073, "ebreak"},
        {0x3007a073, "csrrs x0, x15, 768"},
        {0xfe000ee3, "beq x0, x0, 0xffc"},
        {0xff5ff0ef, "jal x1, 0xff4"},
        {0x12b5252f, "(illegal) 12b5252f"},
        {0x1005252f, "lr.w x10, x10"},
        {0x60051513, "clz x10, x10"},
        {0x0805453b, "zext.h x10, x10"},
        {0x6b855513, "rev8 x10, x10"},
        {0x28755513, "orc.b x10, x10"},
        {0x0000852e, "add x10, x0, x11"},
        {0x00001141, "addi x2, x2, -16"},
        {0x00008082, "jalr x0, x1, 0"},
        {0x0000a001, "jal x0, 0x1000"},
        {0x00000000, "(illegal) 0000"},
        {0x0000717d, "addi x2, x2, -16"},
        {0x000067a1, "lui x15, 32768"},
        {0x00009002, "ebreak"},
        {0x0000e022, "sd x8, 0(x2)"},
        {0x000060a2, "ld x1, 8(x2)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[96];
        int length = riscv_guest_ops.disassemble(0, 0x1000, (const u8 *)&cases[i].word, 4, text,
                                                 sizeof(text));

        assert_int_equal(length, riscv_insn_length((u16)cases[i].word));
        assert_string_equal(text, cases[i].text);
    }
}

/* Letters, formats and rows agree: what is put into a word comes out of it. */
static void test_round_trip(void **state)
{
    (void)state;
    for (unsigned r = 0; r < riscv_rows_count; r++) {
        const struct riscv_row *row = &riscv_rows[r];

        for (unsigned n = 0; n < 200; n++) {
            u32 fixed = riscv_row_mask(row, '0') | riscv_row_mask(row, '1');
            u32 word = ((u32)mrand48() & ~fixed) | riscv_row_mask(row, '1');
            u32 d = riscv_row_mask(row, 'd');
            struct riscv_insn in;
            int ret;

            if (row->compressed)
                word &= 0xffff;
            ret = decode(&in, word);
            if (ret) {
                /* The row's reserved values; C.MV of x0 to x0 would be those of C.JR. */
                assert_true(row->flags & (RISCV_ROW_NZI | RISCV_ROW_NZD | RISCV_ROW_NZN) ||
                            word == 0x8002);
                continue;
            }
            assert_int_equal(in.length, row->compressed ? 2 : 4);
            if (in.row != row)
                continue; /* a row that is a special case of this one */
            if (d)
                assert_int_equal(in.rd, (word & d) >> __builtin_ctz(d));
            if (riscv_formats[row->format].sign)
                assert_true(in.imm == sign_extend((u64)in.imm, 32));
            else
                assert_true(in.imm >= 0 && in.imm < 4096);
        }
    }
}

static void test_reserved(void **state)
{
    /* C.ADDI4SPN 0, C.ADDIW x0, C.ADDI16SP 0, C.LUI 0, C.LWSP x0, C.LDSP x0, C.JR x0, and the
     * quadrant rows without meaning in RV64GC. */
    static const u16 words[] = {0x0000, 0x2005, 0x6101, 0x6081, 0x4002,
                                0x6002, 0x8002, 0x8000, 0x9c41, 0x9c61};
    struct riscv_insn in;

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        assert_int_equal(decode(&in, words[i]), -EINVAL);
        assert_int_equal(in.length, 2);
    }
    assert_int_equal(decode(&in, 0xffffffff), -EINVAL);
    assert_int_equal(in.length, 4);
}

static void test_cut(void **state)
{
    static const u8 code[] = {0x33, 0x85, 0xa5, 0x00};
    struct riscv_insn in;

    (void)state;
    for (u32 avail = 0; avail < 4; avail++)
        assert_int_equal(riscv_decode(&in, code, avail), -ERANGE);
    assert_int_equal(riscv_decode(&in, code, 4), 0);
    assert_int_equal(riscv_decode(&in, (const u8 *)"\x41\x11", 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
