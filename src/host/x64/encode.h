/*
 * The x86-64 encoder: one function for register-register and one for register-memory forms, driven
 * by an opcode word, with short helpers for what integer code uses most. Nothing here checks for
 * room: the caller makes sure of X64_MAX_BYTES for each instruction. Private to src/host/x64.
 */
#ifndef TRIODE_HOST_X64_ENCODE_H
#define TRIODE_HOST_X64_ENCODE_H

#include <string.h>

#include "host/x64/regs.h"

#define X64_MAX_BYTES 16

struct x64 {
    u8 *p;     /* next byte to write */
    u8 *start; /* first byte of the buffer */
    u8 *limit; /* end of the buffer */
    u64 exec;  /* address at which start[0] will run */
};

struct x64_mem {
    u8 base;  /* register or X64_RIP (disp then counts from the end of the instruction) */
    u8 index; /* register other than rsp, or X64_NO_REG */
    u8 shift; /* of the index: 0..3 */
    s32 disp;
};

/*
 * Opcode word: the opcode byte, its map, its mandatory or operand-size prefix, REX.W, and whether
 * the register operands are byte registers (so that spl..dil get their REX). SSE instructions are
 * written the same way: pshufb is X64_66 | X64_0F38 | 0x00.
 */
enum {
    X64_0F = 1 << 8,
    X64_0F38 = 2 << 8,
    X64_0F3A = 3 << 8,
    X64_MAP = 3 << 8,
    X64_66 = 1 << 10,
    X64_F2 = 1 << 11,
    X64_F3 = 1 << 12,
    X64_W = 1 << 13,
    X64_BYTE_REG = 1 << 14, /* the ModRM.reg operand is a byte register */
    X64_BYTE_RM = 1 << 15,  /* the ModRM.rm operand is one */
    X64_LOCK = 1 << 16,
};

/* The general forms. @reg is ModRM.reg (or an opcode extension /0../7), @rm and @mem the other
 * operand. A form with an immediate is followed by x64_byte or x64_u32. */
void x64_rr(struct x64 *c, u32 op, unsigned reg, unsigned rm);
void x64_rm(struct x64 *c, u32 op, unsigned reg, struct x64_mem mem);

/* The same with a VEX prefix, 128-bit or scalar: @vvvv is the middle operand (BMI2 shifts: the
 * count). Only for features that were detected. */
void x64_vex_rr(struct x64 *c, u32 op, unsigned reg, unsigned vvvv, unsigned rm);
void x64_vex_rm(struct x64 *c, u32 op, unsigned reg, unsigned vvvv, struct x64_mem mem);

static inline void x64_byte(struct x64 *c, unsigned v)
{
    *c->p++ = (u8)v;
}

static inline void x64_u32(struct x64 *c, u32 v)
{
    memcpy(c->p, &v, 4);
    c->p += 4;
}

static inline void x64_u64(struct x64 *c, u64 v)
{
    memcpy(c->p, &v, 8);
    c->p += 8;
}

static inline struct x64_mem x64_at(unsigned base, s32 disp)
{
    return (struct x64_mem){.base = (u8)base, .index = X64_NO_REG, .disp = disp};
}

static inline struct x64_mem x64_at_index(unsigned base, unsigned index, unsigned shift, s32 disp)
{
    return (struct x64_mem){(u8)base, (u8)index, (u8)shift, disp};
}

/* Address in the executable mapping of the next byte. */
static inline u64 x64_here(const struct x64 *c)
{
    return c->exec + (u64)(c->p - c->start);
}

static inline bool x64_fits_s32(u64 v)
{
    return (s64)v == (s32)v;
}

static inline bool x64_fits_s8(s64 v)
{
    return v == (s8)v;
}

/* Operand size of 1, 2, 4 or 8 bytes as opcode bits, for an opcode whose byte form is even. */
static inline u32 x64_size(unsigned bytes)
{
    static const u32 bits[9] = {
        [1] = X64_BYTE_REG | X64_BYTE_RM, [2] = X64_66 | 1, [4] = 1, [8] = X64_W | 1};
    return bits[bytes];
}

/* Group 1: add or adc sbb and sub xor cmp. */
enum x64_alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
void x64_alu_rr(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, unsigned s);
void x64_alu_rm(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, struct x64_mem s);
void x64_alu_mr(struct x64 *c, enum x64_alu alu, unsigned bytes, struct x64_mem d, unsigned s);
void x64_alu_ri(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, s32 imm);
void x64_alu_mi(struct x64 *c, enum x64_alu alu, unsigned bytes, struct x64_mem d, s32 imm);

void x64_test_rr(struct x64 *c, unsigned bytes, unsigned a, unsigned b);
void x64_test_ri(struct x64 *c, unsigned bytes, unsigned a, s32 imm);
void x64_test_mi(struct x64 *c, unsigned bytes, struct x64_mem a, s32 imm);

/* Group 2: shifts and rotates. */
enum x64_shift { SHIFT_ROL, SHIFT_ROR, SHIFT_SHL = 4, SHIFT_SHR = 5, SHIFT_SAR = 7 };
void x64_shift_ri(struct x64 *c, enum x64_shift shift, unsigned bytes, unsigned d, unsigned count);
void x64_shift_cl(struct x64 *c, enum x64_shift shift, unsigned bytes, unsigned d);

/* Group 3 on a register: /2 not, /3 neg, /4 mul, /5 imul, /6 div, /7 idiv. */
enum x64_unary { UNARY_NOT = 2, UNARY_NEG, UNARY_MUL, UNARY_IMUL, UNARY_DIV, UNARY_IDIV };
void x64_unary_r(struct x64 *c, enum x64_unary op, unsigned bytes, unsigned d);
void x64_unary_m(struct x64 *c, enum x64_unary op, unsigned bytes, struct x64_mem d);

/* Moves. mov_rr of 4 bytes zero-extends; no mov touches the flags. */
void x64_mov_rr(struct x64 *c, unsigned bytes, unsigned d, unsigned s);
void x64_mov_ri(struct x64 *c, unsigned d, u64 imm);                        /* the whole register */
void x64_load(struct x64 *c, unsigned bytes, unsigned d, struct x64_mem s); /* zero-extends */
void x64_store(struct x64 *c, unsigned bytes, struct x64_mem d, unsigned s);
void x64_store_imm(struct x64 *c, unsigned bytes, struct x64_mem d, s32 imm);
void x64_lea(struct x64 *c, unsigned bytes, unsigned d, struct x64_mem s);
void x64_movzx(struct x64 *c, unsigned from_bytes, unsigned d, unsigned s); /* to 64 bits */
void x64_movsx(struct x64 *c, unsigned from_bytes, unsigned to_bytes, unsigned d, unsigned s);
void x64_movsx_m(struct x64 *c, unsigned from_bytes, unsigned to_bytes, unsigned d,
                 struct x64_mem s);

void x64_setcc(struct x64 *c, enum x64_cc cc, unsigned d);
void x64_cmov(struct x64 *c, enum x64_cc cc, unsigned bytes, unsigned d, unsigned s);

/* Jumps to executable address @to, which must be within 2 GiB. */
void x64_jmp(struct x64 *c, u64 to);
void x64_jcc(struct x64 *c, enum x64_cc cc, u64 to);
void x64_call(struct x64 *c, u64 to);
/* Jumps with a place to fill in; answer the place of the displacement. */
u8 *x64_jmp_later(struct x64 *c);
u8 *x64_jcc_later(struct x64 *c, enum x64_cc cc);
/* Points a 32-bit or 8-bit displacement at the current end of the code. */
void x64_land(struct x64 *c, u8 *place);
u8 *x64_jcc8_later(struct x64 *c, enum x64_cc cc);
void x64_land8(struct x64 *c, u8 *place);

/* @bytes (0..15) of no-operation. */
void x64_nop(struct x64 *c, unsigned bytes);

/* SSE with a prefixed opcode word and an immediate byte. */
static inline void x64_rr_ib(struct x64 *c, u32 op, unsigned reg, unsigned rm, unsigned imm)
{
    x64_rr(c, op, reg, rm);
    x64_byte(c, imm);
}

static inline void x64_rm_ib(struct x64 *c, u32 op, unsigned reg, struct x64_mem mem, unsigned imm)
{
    x64_rm(c, op, reg, mem);
    x64_byte(c, imm);
}

/* The vector moves that all files need. */
#define X64_MOVAPS (X64_0F | 0x28)
#define X64_MOVAPS_ST (X64_0F | 0x29)
#define X64_MOVUPS (X64_0F | 0x10)
#define X64_MOVUPS_ST (X64_0F | 0x11)
#define X64_MOVSS (X64_F3 | X64_0F | 0x10)
#define X64_MOVSS_ST (X64_F3 | X64_0F | 0x11)
#define X64_MOVSD (X64_F2 | X64_0F | 0x10)
#define X64_MOVSD_ST (X64_F2 | X64_0F | 0x11)
#define X64_XORPS (X64_0F | 0x57)
#define X64_MOVD_TO_XMM (X64_66 | X64_0F | 0x6e)   /* xmm, r32; X64_W: movq xmm, r64 */
#define X64_MOVD_FROM_XMM (X64_66 | X64_0F | 0x7e) /* r32, xmm: reg is the xmm, rm the gpr */
#define X64_MOVQ (X64_F3 | X64_0F | 0x7e)          /* xmm, xmm or m64; clears the upper half */
#define X64_PCMPEQD (X64_66 | X64_0F | 0x76)
#define X64_INSERTPS (X64_66 | X64_0F3A | 0x21)
#define X64_PINSRQ (X64_66 | X64_0F3A | X64_W | 0x22)
#define X64_PEXTRQ (X64_66 | X64_0F3A | X64_W | 0x16)

#endif
