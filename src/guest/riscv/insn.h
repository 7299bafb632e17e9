/* A decoded instruction. */
#ifndef TRIODE_RISCV_INSN_H
#define TRIODE_RISCV_INSN_H

#include "guest/riscv/rows.h"

struct riscv_insn {
    const struct riscv_row *row; /* NULL: illegal */
    u8 rd, rs1, rs2, rs3;
    u8 rm;
    u8 length; /* 2 or 4 */
    u32 word;  /* as it stands in memory */
    s64 imm;
};

/* Decodes at @code, of which @avail bytes are there. 0, -ERANGE (more bytes are needed), or
 * -EINVAL: illegal; length is set nevertheless (RISC-V volume I, 1.5: longer encodings are not
 * supported, and count as 4 bytes). */
int riscv_decode(struct riscv_insn *in, const u8 *code, u32 avail);

#endif
