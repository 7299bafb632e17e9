/*
 * The rows of the instruction tables as the decoder sees them; the columns' meaning is in insn.h.
 * Row n of x86_rows has its lift function at lift.c's table n: both are made from the same files in
 * the same order, that of all_rows.def.
 */
#ifndef TRIODE_X86_ROWS_H
#define TRIODE_X86_ROWS_H

#include "guest/x86/insn.h"

enum x86_map { X86_MAP_M1, X86_MAP_M0F, X86_MAP_M38, X86_MAP_M3A, X86_MAPS };

enum x86_row_prefix { X86_PFX_ANY, X86_PFX_NP, X86_PFX_P66, X86_PFX_PF3, X86_PFX_PF2, X86_PFX_NFX };

/* Column modrm: a kind, the group kinds with their ModRM.reg in the low bits. */
enum x86_row_modrm {
    X86_MODRM_NONE,
    X86_MODRM_MR,
    X86_MODRM_RR,
    X86_MODRM_RN,
    X86_MODRM_G = 8,
    X86_MODRM_R = 16,
    X86_MODRM_N = 24,
    X86_MODRM_B = 256, /* + the ModRM byte */
};

enum x86_row_flags {
    X86_ROW_ZREG = 1 << 0, /* eight opcodes, register in the low three bits */
    X86_ROW_COND = 1 << 1, /* sixteen opcodes, condition in the low four bits */
    X86_ROW_LOCK = 1 << 2,
    X86_ROW_O64 = 1 << 3,
    X86_ROW_I64 = 1 << 4,
    X86_ROW_D64 = 1 << 5,
    X86_ROW_F64 = 1 << 6,
    X86_ROW_CPL0 = 1 << 7,
    X86_ROW_PROT = 1 << 8,
    X86_ROW_SSE = 1 << 9,
    X86_ROW_SSEFP = 1 << 10,
    X86_ROW_FPU = 1 << 11,
    X86_ROW_MMX = 1 << 12,
    X86_ROW_ENDS = 1 << 13,
};

/*
 * Operand codes: O(code, place, size). Sizes in bytes, or a rule: V the operand size; Z 2 or 4;
 * Y 4, or 8 with REX.W; C 4, or 8 in 64-bit mode; P V + 2; A 2 V; S 6, or 10 in 64-bit mode;
 * N the address size.
 */
/* clang-format off */
#define X86_OPERAND_CODES(O)                                                                       \
    O(_, NOTHING, 0)                                                                               \
    O(Eb, RM, 1) O(Ew, RM, 2) O(Ed, RM, 4) O(Eq, RM, 8) O(Ev, RM, V) O(Ey, RM, Y)                  \
    O(Rd, RM_REG, C) O(Rv, RM_REG, V) O(Ra, RM_REG, N)                                             \
    O(Gb, REG, 1) O(Gw, REG, 2) O(Gd, REG, 4) O(Gq, REG, 8) O(Gv, REG, V) O(Gy, REG, Y)            \
    O(Ib, IMM, 1) O(Iw, IMM, 2) O(Ibs, IMM_SIGNED, V) O(Iz, IMM_Z, V) O(Iv, IMM_V, V)              \
    O(Jb, REL, 1) O(Jz, REL, Z)                                                                    \
    O(M, MEM, 0) O(Mb, MEM, 1) O(Mw, MEM, 2) O(Md, MEM, 4) O(Mq, MEM, 8) O(Mdq, MEM, 16)           \
    O(Mt, MEM, 10) O(Mv, MEM, V) O(My, MEM, Y) O(Ma, MEM, A) O(Mp, MEM, P) O(Ms, MEM, S)           \
    O(Ob, MOFFS, 1) O(Ov, MOFFS, V)                                                                \
    O(Sw, SREG, 2) O(Cd, CREG, C) O(Dd, DREG, C)                                                   \
    O(Xb, STR_SRC, 1) O(Xv, STR_SRC, V) O(Xz, STR_SRC, Z)                                          \
    O(Yb, STR_DST, 1) O(Yv, STR_DST, V) O(Yz, STR_DST, Z)                                          \
    O(Zb, OPCODE_REG, 1) O(Zv, OPCODE_REG, V)                                                      \
    O(Ap, FAR, Z)                                                                                  \
    O(Vx, XMM_REG, 16) O(Ux, XMM_RM_REG, 16)                                                       \
    O(Wx, XMM_RM, 16) O(Wss, XMM_RM, 4) O(Wsd, XMM_RM, 8) O(Wq, XMM_RM, 8) O(Wd, XMM_RM, 4)        \
    O(Ww, XMM_RM, 2) O(Wb, XMM_RM, 1)                                                              \
    O(Pq, MMX_REG, 8) O(Qq, MMX_RM, 8) O(Qd, MMX_RM, 4) O(Nq, MMX_RM_REG, 8)                       \
    O(AL, ACC, 1) O(AX, ACC, 2) O(eAX, ACC, Z) O(rAX, ACC, V) O(CL, COUNT, 1) O(DX, PORT, 2)       \
    O(one, ONE, 1)                                                                                 \
    O(ES, SEG0, 2) O(CS, SEG1, 2) O(SS, SEG2, 2) O(DS, SEG3, 2) O(FS, SEG4, 2) O(GS, SEG5, 2)      \
    O(ST0, STACK_TOP, 10) O(STi, STACK_RM, 10)
/* clang-format on */

enum x86_operand_code {
#define O(code, place, size) X86_OC_##code,
    X86_OPERAND_CODES(O)
#undef O
        X86_OPERAND_CODES_COUNT
};

struct x86_row {
    u8 map, opcode, prefix;
    u8 op[3];  /* enum x86_operand_code */
    u16 modrm; /* enum x86_row_modrm */
    u16 flags; /* enum x86_row_flags */
    const char *name;
};

extern const struct x86_row x86_rows[];
extern const unsigned x86_rows_count;

/* How many opcodes a row stands for. */
static inline unsigned x86_row_span(const struct x86_row *row)
{
    return row->flags & X86_ROW_COND ? 16 : row->flags & X86_ROW_ZREG ? 8 : 1;
}

#endif
