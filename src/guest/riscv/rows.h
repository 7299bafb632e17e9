/*
 * The instruction tables: a row as the decoder (and whoever enumerates instructions) sees it.
 */
#ifndef TRIODE_RISCV_ROWS_H
#define TRIODE_RISCV_ROWS_H

#include "base/types.h"

enum riscv_format {
#define F(name, sign, bits) RISCV_FORMAT_##name,
#include "guest/riscv/formats.def"
#undef F
};

enum riscv_op {
#define I(name, bits, format, flags) RISCV_OP_##name,
#include "guest/riscv/insns.def"
#undef I
    RISCV_OPS
};

enum riscv_row_flags {
    RISCV_ROW_0 = 0,
    RISCV_ROW_RM = 1 << 0,
    RISCV_ROW_END = 1 << 1,
    RISCV_ROW_NZI = 1 << 2,
    RISCV_ROW_NZD = 1 << 3,
    RISCV_ROW_NZN = 1 << 4,
};

struct riscv_row {
    const char *name;
    const char *bits; /* as in the .def files, blanks and all */
    u8 format;        /* enum riscv_format */
    u8 flags;         /* enum riscv_row_flags */
    u8 op;            /* enum riscv_op: whose lift function */
    u8 rd, rs1;       /* when no letter names them */
    bool compressed;
};

/* First the 32-bit rows, in the order of enum riscv_op, then the compressed ones. */
extern const struct riscv_row riscv_rows[];
extern const unsigned riscv_rows_count;

struct riscv_format_info {
    const char *bits;
    bool sign;
};
extern const struct riscv_format_info riscv_formats[];

/* Positions of the immediate's bits, from a row's first letter i on; answers how many. */
unsigned riscv_format_bits(enum riscv_format format, u8 position[32]);

/* What a row's bit string says: @letter's bits in the word as a mask ('1' and '0': fixed ones). */
u32 riscv_row_mask(const struct riscv_row *row, char letter);

#endif
