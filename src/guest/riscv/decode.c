/* From instruction words to rows and operands. */
#include <errno.h>

#include "base/bits.h"
#include "guest/riscv/insn.h"

#define NO_ROW 0xffff

enum letter { L_D, L_N, L_M, L_K, L_R, L_A, L_D3, L_N3, L_M3, L_A3, L_I, LETTERS };

struct row_bits {
    u32 mask, value;
    u32 letter[LETTERS];
};

struct format_bits {
    u8 count, sign;
    u8 position[20];
};

#include "riscv_tables.h"

/* The bits of @word under @mask, which are contiguous. */
static u8 field(u32 word, u32 mask)
{
    return (u8)((word & mask) >> __builtin_ctz(mask));
}

static s64 immediate(const struct row_bits *bits, const struct format_bits *format, u32 word)
{
    u32 mask = bits->letter[L_I];
    u64 value = 0;

    for (unsigned i = 0; i < format->count; i++) {
        unsigned bit = 31 - (unsigned)__builtin_clz(mask);

        value |= (u64)(word >> bit & 1) << format->position[i];
        mask &= ~(1u << bit);
    }
    /* The first bit is the topmost in all formats with a sign. */
    if (format->sign && value >> format->position[0])
        value |= ~0ull << format->position[0];
    return (s64)value;
}

static void operands(struct riscv_insn *in)
{
    const struct row_bits *bits = &row_bits[in->row - riscv_rows];
    const u32 *l = bits->letter;

    in->rd = l[L_D]    ? field(in->word, l[L_D])
             : l[L_A]  ? field(in->word, l[L_A])
             : l[L_D3] ? 8 + field(in->word, l[L_D3])
             : l[L_A3] ? 8 + field(in->word, l[L_A3])
                       : in->row->rd;
    in->rs1 = l[L_N]    ? field(in->word, l[L_N])
              : l[L_A]  ? field(in->word, l[L_A])
              : l[L_N3] ? 8 + field(in->word, l[L_N3])
              : l[L_A3] ? 8 + field(in->word, l[L_A3])
                        : in->row->rs1;
    in->rs2 = l[L_M] ? field(in->word, l[L_M]) : l[L_M3] ? 8 + field(in->word, l[L_M3]) : 0;
    in->rs3 = l[L_K] ? field(in->word, l[L_K]) : 0;
    in->rm = l[L_R] ? field(in->word, l[L_R]) : 0;
    in->imm = immediate(bits, &format_bits[in->row->format], in->word);
}

static bool reserved(const struct riscv_insn *in)
{
    unsigned flags = in->row->flags;

    return (flags & RISCV_ROW_NZI && !in->imm) || (flags & RISCV_ROW_NZD && !in->rd) ||
           (flags & RISCV_ROW_NZN && !in->rs1);
}

static int find(struct riscv_insn *in, const u16 *chain)
{
    for (; *chain != NO_ROW; chain++) {
        if ((in->word & row_bits[*chain].mask) != row_bits[*chain].value)
            continue;
        in->row = &riscv_rows[*chain];
        operands(in);
        if (!reserved(in))
            return 0;
        break;
    }
    in->row = NULL;
    return -EINVAL;
}

int riscv_decode(struct riscv_insn *in, const u8 *code, u32 avail)
{
    *in = (struct riscv_insn){0};
    if (avail < 2)
        return -ERANGE;
    in->word = code[0] | (u32)code[1] << 8;
    if ((in->word & 3) != 3) {
        in->length = 2;
        return find(in, &half_chain[half_start[in->word >> 13 << 2 | (in->word & 3)]]);
    }
    if (avail < 4)
        return -ERANGE;
    in->word |= (u32)code[2] << 16 | (u32)code[3] << 24;
    in->length = 4;
    return find(in, &word_chain[word_start[(in->word >> 12 & 7) << 5 | (in->word >> 2 & 31)]]);
}
