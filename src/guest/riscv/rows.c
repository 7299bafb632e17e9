#include "guest/riscv/rows.h"

#include <stdlib.h>

const struct riscv_row riscv_rows[] = {
#define I(name, bits, format, flags)                                                               \
    {#name, bits, RISCV_FORMAT_##format, RISCV_ROW_##flags, RISCV_OP_##name, 0, 0, false},
#include "guest/riscv/insns.def"
#undef I
#define C(name, bits, format, flags, same, rd, rs1)                                                \
    {#name, bits, RISCV_FORMAT_##format, RISCV_ROW_##flags, RISCV_OP_##same, rd, rs1, true},
#include "guest/riscv/insns_c.def"
#undef C
};
const unsigned riscv_rows_count = sizeof(riscv_rows) / sizeof(riscv_rows[0]);

const struct riscv_format_info riscv_formats[] = {
#define F(name, sign, bits) {bits, sign},
#include "guest/riscv/formats.def"
#undef F
};

unsigned riscv_format_bits(enum riscv_format format, u8 position[32])
{
    const char *s = riscv_formats[format].bits;
    unsigned count = 0;

    while (*s) {
        char *end;
        unsigned first = (unsigned)strtoul(s, &end, 10), last = first;

        if (*end == ':')
            last = (unsigned)strtoul(end + 1, &end, 10);
        for (unsigned bit = first + 1; bit-- > last;)
            position[count++] = (u8)bit;
        s = *end == ' ' ? end + 1 : end;
    }
    return count;
}

u32 riscv_row_mask(const struct riscv_row *row, char letter)
{
    u32 bit = row->compressed ? 1u << 15 : 1u << 31, mask = 0;

    for (const char *s = row->bits; *s; s++) {
        if (*s == ' ')
            continue;
        if (*s == letter)
            mask |= bit;
        bit >>= 1;
    }
    return mask;
}
