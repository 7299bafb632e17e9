/*
 * A decoded x86 instruction. The decoder is tables: one row an instruction form in insns_*.def,
 *
 *   I(map, opcode, prefix, modrm, flags, name, operand1, operand2, operand3)
 *
 * map      M1 (one byte), M0F, M38, M3A
 * opcode   the byte; a row for a register in the opcode's low bits has flag ZREG and lists the
 *          first of its eight opcodes; COND likewise for sixteen opcodes with a condition
 * prefix   ANY; NP (no 66/F3/F2), NFX (no F3/F2); P66, PF3, PF2 where the prefix is part of the
 *          opcode
 * modrm    NONE; MR (any ModRM); G0..G7 (ModRM.reg = n); R0..R7 (mod 3 and reg = n); N0..N7 (memory
 *          and reg = n); RR (mod 3); RN (memory); B(0xC1) one exact ModRM byte
 * flags    or-ed: ZREG, COND, LOCK (allowed with memory destination), O64 (only in 64-bit mode),
 *          I64 (#UD in 64-bit mode; both rows of one opcode may stand side by side), D64 (operand
 *          size defaults to 64 in 64-bit mode), F64 (forced 64), CPL0 (#GP when CPL != 0), PROT
 *          (#UD in real and virtual-8086 mode), SSE, SSEFP (uses MXCSR), FPU, MMX, ENDS (ends the
 *          block)
 * name     the manual's mnemonic, lower case: lifted by lift_<name>(); several rows may share one
 * operands the manual's codes (SDM vol. 2 appendix A.2; sizes of all in rows.h): Eb Ev Ew Ed Ey
 *          Gb Gv Gw Gy Gd Ib Iw Iz Iv Ibs (sign-extended byte) Jb Jz M Ma Mp Ms Mb Mw Md Mq Mdq Mt
 *          Mv My Ob Ov Sw Cd Dd Rd (MOV CR and DR: mod ignored, 8 bytes in 64-bit mode) Rv Ra (of
 *          the address size) Xb Xv Xz Yb Yv Yz Zv Zb Ap Vx (xmm of reg) Wx Wss Wsd Wq Wd Ww Wb (xmm
 *          or memory of that size) Ux (xmm of rm, no memory) Pq Qq Qd Nq (mmx) AL AX eAX rAX CL DX
 *          one ES CS SS DS FS GS ST0 STi, or _ for none
 */
#ifndef TRIODE_X86_INSN_H
#define TRIODE_X86_INSN_H

#include "base/types.h"

enum x86_operand_kind {
    X86_OP_NONE,
    X86_OP_REG, /* general register, size; high-byte registers by .high */
    X86_OP_MEM, /* the instruction's memory operand, size bytes */
    X86_OP_IMM, /* value, already sign-extended to 64 bits as the form says */
    X86_OP_REL, /* branch displacement */
    X86_OP_SEG, /* segment register */
    X86_OP_CR,
    X86_OP_DR,
    X86_OP_XMM,
    X86_OP_MMX,
    X86_OP_ST,
    X86_OP_FAR,     /* ptr16:16/32: value = offset, selector */
    X86_OP_MOFFS,   /* absolute address without ModRM: value */
    X86_OP_STR_SRC, /* DS:[rSI] */
    X86_OP_STR_DST, /* ES:[rDI] */
};

struct x86_operand {
    u8 kind;
    u8 reg;
    u8 size; /* bytes; 0 where the code gives none (M) */
    bool high;
    u16 selector;
    u64 value;
};

struct x86_row;

struct x86_insn {
    const struct x86_row *row; /* NULL: #UD */
    u8 length;
    u8 operand_size;       /* 2, 4, 8 */
    u8 address_size;       /* 2, 4, 8 */
    u8 code_size;          /* 2, 4, 8: the mode */
    u8 rex;                /* 0 or 40h..4Fh */
    bool lock, rep, repne; /* prefixes present (rep = F3, repne = F2; also when mandatory) */
    bool opsize_prefix;    /* 66 present */
    u8 opcode, map;
    bool has_modrm;
    u8 modrm, mod, reg, rm; /* reg and rm with REX bits; rm as a register number if mod 3 */
    /* Memory operand: segment, base and index registers (-1 none), scale shift, displacement. */
    u8 segment;     /* X86_ES.. effective, after overrides and defaults */
    s8 base, index; /* -1 none; base -2: RIP-relative */
    u8 scale;
    s64 disp;
    u64 imm;
    struct x86_operand op[3];
};

enum { X86_DECODE_OK = 0, X86_DECODE_UD = 1 };

/* Decodes one instruction of at most @avail bytes in code of @code_size (2, 4, 8). X86_DECODE_OK;
 * X86_DECODE_UD (insn->row NULL or a form the SDM makes #UD; length is what was read); -ERANGE:
 * more bytes are needed; -E2BIG: longer than 15 bytes (#GP). */
int x86_decode(struct x86_insn *insn, const u8 *code, u32 avail, unsigned code_size);

#endif
