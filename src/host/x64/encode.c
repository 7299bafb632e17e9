/* Encoding of x86-64 instructions (SDM volume 2, chapter 2). */
#include "host/x64/encode.h"

static void prefixes_and_opcode(struct x64 *c, u32 op, unsigned reg, unsigned index, unsigned base,
                                bool need_rex)
{
    unsigned rex =
        (op & X64_W ? 8 : 0) | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1);
    u8 *p = c->p;

    if (op & (X64_66 | X64_F2 | X64_F3 | X64_LOCK)) {
        if (op & X64_LOCK)
            *p++ = 0xf0;
        if (op & X64_66)
            *p++ = 0x66;
        if (op & X64_F2)
            *p++ = 0xf2;
        if (op & X64_F3)
            *p++ = 0xf3;
    }
    if (rex || need_rex)
        *p++ = (u8)(0x40 | rex);
    if (op & X64_MAP) {
        *p++ = 0x0f;
        if ((op & X64_MAP) == X64_0F38)
            *p++ = 0x38;
        else if ((op & X64_MAP) == X64_0F3A)
            *p++ = 0x3a;
    }
    *p++ = (u8)op;
    c->p = p;
}

/* spl, bpl, sil and dil are ah, ch, dh and bh without a REX prefix. */
static bool byte_needs_rex(unsigned reg)
{
    return reg >= 4 && reg < 8;
}

void x64_rr(struct x64 *c, u32 op, unsigned reg, unsigned rm)
{
    bool rex =
        (op & X64_BYTE_REG && byte_needs_rex(reg)) || (op & X64_BYTE_RM && byte_needs_rex(rm));

    prefixes_and_opcode(c, op, reg, 0, rm, rex);
    *c->p++ = (u8)(0xc0 | (reg & 7) << 3 | (rm & 7));
}

/* ModRM, SIB and displacement (SDM volume 2, tables 2-2 and 2-3). */
static void modrm_mem(struct x64 *c, unsigned reg, struct x64_mem m)
{
    unsigned mod, low = m.base & 7, field = (reg & 7) << 3;

    if (m.base == X64_RIP) {
        x64_byte(c, field | 5);
        x64_u32(c, (u32)m.disp);
        return;
    }
    if (m.disp == 0 && low != RBP) /* rbp and r13 have no form without displacement */
        mod = 0x00;
    else
        mod = x64_fits_s8(m.disp) ? 0x40 : 0x80;
    if (m.index != X64_NO_REG) {
        x64_byte(c, mod | field | 4);
        x64_byte(c, (unsigned)m.shift << 6 | (m.index & 7u) << 3 | low);
    } else if (low == RSP) { /* rsp and r12 as base need a SIB byte */
        x64_byte(c, mod | field | 4);
        x64_byte(c, 0x24);
    } else {
        x64_byte(c, mod | field | low);
    }
    if (mod == 0x40)
        x64_byte(c, (u8)m.disp);
    else if (mod == 0x80)
        x64_u32(c, (u32)m.disp);
}

void x64_rm(struct x64 *c, u32 op, unsigned reg, struct x64_mem mem)
{
    bool rex = op & X64_BYTE_REG && byte_needs_rex(reg);
    unsigned index = mem.index == X64_NO_REG ? 0 : mem.index;

    prefixes_and_opcode(c, op, reg, index, mem.base == X64_RIP ? 0 : mem.base, rex);
    modrm_mem(c, reg, mem);
}

void x64_vex_rr(struct x64 *c, u32 op, unsigned reg, unsigned vvvv, unsigned rm)
{
    unsigned pp = op & X64_66 ? 1 : op & X64_F3 ? 2 : op & X64_F2 ? 3 : 0;

    x64_byte(c, 0xc4);
    x64_byte(c, (~reg >> 3 & 1) << 7 | 0x40 | (~rm >> 3 & 1) << 5 | (op & X64_MAP) >> 8);
    x64_byte(c, (op & X64_W ? 0x80 : 0) | (~vvvv & 15) << 3 | pp);
    x64_byte(c, op & 0xff);
    x64_byte(c, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

void x64_vex_rm(struct x64 *c, u32 op, unsigned reg, unsigned vvvv, struct x64_mem mem)
{
    unsigned pp = op & X64_66 ? 1 : op & X64_F3 ? 2 : op & X64_F2 ? 3 : 0;
    unsigned index = mem.index == X64_NO_REG ? 0 : mem.index;

    x64_byte(c, 0xc4);
    x64_byte(c, (~reg >> 3 & 1) << 7 | (~index >> 3 & 1) << 6 |
                    (~(unsigned)mem.base >> 3 & 1) << 5 | (op & X64_MAP) >> 8);
    x64_byte(c, (op & X64_W ? 0x80 : 0) | (~vvvv & 15) << 3 | pp);
    x64_byte(c, op & 0xff);
    modrm_mem(c, reg, mem);
}

void x64_alu_rr(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, unsigned s)
{
    x64_rr(c, x64_size(bytes) | (u32)alu << 3, s, d);
}

void x64_alu_rm(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, struct x64_mem s)
{
    x64_rm(c, x64_size(bytes) | (u32)alu << 3 | 2, d, s);
}

void x64_alu_mr(struct x64 *c, enum x64_alu alu, unsigned bytes, struct x64_mem d, unsigned s)
{
    x64_rm(c, x64_size(bytes) | (u32)alu << 3, s, d);
}

static void immediate(struct x64 *c, unsigned bytes, s32 imm)
{
    if (bytes == 1) {
        x64_byte(c, (u8)imm);
    } else if (bytes == 2) {
        x64_byte(c, (u8)imm);
        x64_byte(c, (u8)(imm >> 8));
    } else {
        x64_u32(c, (u32)imm);
    }
}

/* Opcode of group 1 with an immediate: 80 (byte), 83 (sign-extended byte) or 81. */
static u32 alu_imm_opcode(unsigned bytes, s32 imm)
{
    return (bytes > 1 && x64_fits_s8(imm) ? 0x83 : 0x80) | (x64_size(bytes) & ~(u32)X64_BYTE_REG);
}

void x64_alu_ri(struct x64 *c, enum x64_alu alu, unsigned bytes, unsigned d, s32 imm)
{
    u32 op = alu_imm_opcode(bytes, imm);

    if (d == RAX && (op & 0xff) != 0x83) { /* a form of its own, without ModRM */
        if (bytes == 2 || bytes == 8)
            x64_byte(c, bytes == 2 ? 0x66 : 0x48);
        x64_byte(c, (unsigned)alu << 3 | (bytes == 1 ? 4 : 5));
        immediate(c, bytes, imm);
        return;
    }
    x64_rr(c, op, (unsigned)alu, d);
    immediate(c, (op & 0xff) == 0x83 ? 1 : bytes, imm);
}

void x64_alu_mi(struct x64 *c, enum x64_alu alu, unsigned bytes, struct x64_mem d, s32 imm)
{
    u32 op = alu_imm_opcode(bytes, imm);

    x64_rm(c, op, (unsigned)alu, d);
    immediate(c, (op & 0xff) == 0x83 ? 1 : bytes, imm);
}

void x64_test_rr(struct x64 *c, unsigned bytes, unsigned a, unsigned b)
{
    x64_rr(c, 0x84 | x64_size(bytes), b, a);
}

void x64_test_ri(struct x64 *c, unsigned bytes, unsigned a, s32 imm)
{
    x64_rr(c, (0xf6 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, 0, a);
    immediate(c, bytes, imm);
}

void x64_test_mi(struct x64 *c, unsigned bytes, struct x64_mem a, s32 imm)
{
    x64_rm(c, (0xf6 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, 0, a);
    immediate(c, bytes, imm);
}

void x64_shift_ri(struct x64 *c, enum x64_shift shift, unsigned bytes, unsigned d, unsigned count)
{
    u32 size = x64_size(bytes) & ~(u32)X64_BYTE_REG;

    if (count == 1) {
        x64_rr(c, 0xd0 | size, (unsigned)shift, d);
        return;
    }
    x64_rr(c, 0xc0 | size, (unsigned)shift, d);
    x64_byte(c, count);
}

void x64_shift_cl(struct x64 *c, enum x64_shift shift, unsigned bytes, unsigned d)
{
    x64_rr(c, (0xd2 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, (unsigned)shift, d);
}

void x64_unary_r(struct x64 *c, enum x64_unary op, unsigned bytes, unsigned d)
{
    x64_rr(c, (0xf6 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, (unsigned)op, d);
}

void x64_unary_m(struct x64 *c, enum x64_unary op, unsigned bytes, struct x64_mem d)
{
    x64_rm(c, (0xf6 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, (unsigned)op, d);
}

void x64_mov_rr(struct x64 *c, unsigned bytes, unsigned d, unsigned s)
{
    x64_rr(c, 0x88 | x64_size(bytes), s, d);
}

void x64_mov_ri(struct x64 *c, unsigned d, u64 imm)
{
    if (imm <= UINT32_MAX) {
        if (d >= 8)
            x64_byte(c, 0x41);
        x64_byte(c, 0xb8 | (d & 7));
        x64_u32(c, (u32)imm);
    } else if (x64_fits_s32(imm)) {
        x64_rr(c, X64_W | 0xc7, 0, d);
        x64_u32(c, (u32)imm);
    } else {
        x64_byte(c, d >= 8 ? 0x49 : 0x48);
        x64_byte(c, 0xb8 | (d & 7));
        x64_u64(c, imm);
    }
}

void x64_load(struct x64 *c, unsigned bytes, unsigned d, struct x64_mem s)
{
    static const u32 ops[9] = {
        [1] = X64_0F | 0xb6, [2] = X64_0F | 0xb7, [4] = 0x8b, [8] = X64_W | 0x8b};
    x64_rm(c, ops[bytes], d, s);
}

void x64_store(struct x64 *c, unsigned bytes, struct x64_mem d, unsigned s)
{
    x64_rm(c, 0x88 | x64_size(bytes), s, d);
}

void x64_store_imm(struct x64 *c, unsigned bytes, struct x64_mem d, s32 imm)
{
    x64_rm(c, (0xc6 | x64_size(bytes)) & ~(u32)X64_BYTE_REG, 0, d);
    immediate(c, bytes, imm);
}

void x64_lea(struct x64 *c, unsigned bytes, unsigned d, struct x64_mem s)
{
    x64_rm(c, bytes == 8 ? X64_W | 0x8d : 0x8d, d, s);
}

void x64_movzx(struct x64 *c, unsigned from_bytes, unsigned d, unsigned s)
{
    if (from_bytes == 4)
        x64_mov_rr(c, 4, d, s);
    else
        x64_rr(c, from_bytes == 1 ? X64_0F | X64_BYTE_RM | 0xb6 : X64_0F | 0xb7, d, s);
}

static u32 movsx_opcode(unsigned from_bytes, unsigned to_bytes)
{
    u32 w = to_bytes == 8 ? X64_W : 0;

    if (from_bytes == 4)
        return w | 0x63;
    return w | X64_0F | (from_bytes == 1 ? X64_BYTE_RM | 0xbe : 0xbf);
}

void x64_movsx(struct x64 *c, unsigned from_bytes, unsigned to_bytes, unsigned d, unsigned s)
{
    x64_rr(c, movsx_opcode(from_bytes, to_bytes), d, s);
}

void x64_movsx_m(struct x64 *c, unsigned from_bytes, unsigned to_bytes, unsigned d,
                 struct x64_mem s)
{
    x64_rm(c, movsx_opcode(from_bytes, to_bytes), d, s);
}

void x64_setcc(struct x64 *c, enum x64_cc cc, unsigned d)
{
    x64_rr(c, X64_0F | X64_BYTE_RM | 0x90 | cc, 0, d);
}

void x64_cmov(struct x64 *c, enum x64_cc cc, unsigned bytes, unsigned d, unsigned s)
{
    x64_rr(c, X64_0F | (bytes == 8 ? X64_W : 0) | 0x40 | cc, d, s);
}

/* A displacement counts from its own end. */
static void relative(struct x64 *c, u64 to)
{
    x64_u32(c, (u32)(to - (x64_here(c) + 4)));
}

void x64_jmp(struct x64 *c, u64 to)
{
    x64_byte(c, 0xe9);
    relative(c, to);
}

void x64_jcc(struct x64 *c, enum x64_cc cc, u64 to)
{
    x64_byte(c, 0x0f);
    x64_byte(c, 0x80 | cc);
    relative(c, to);
}

void x64_call(struct x64 *c, u64 to)
{
    x64_byte(c, 0xe8);
    relative(c, to);
}

u8 *x64_jmp_later(struct x64 *c)
{
    x64_byte(c, 0xe9);
    x64_u32(c, 0);
    return c->p - 4;
}

u8 *x64_jcc_later(struct x64 *c, enum x64_cc cc)
{
    x64_byte(c, 0x0f);
    x64_byte(c, 0x80 | cc);
    x64_u32(c, 0);
    return c->p - 4;
}

void x64_land(struct x64 *c, u8 *place)
{
    u32 rel = (u32)(c->p - (place + 4));

    memcpy(place, &rel, 4);
}

u8 *x64_jcc8_later(struct x64 *c, enum x64_cc cc)
{
    x64_byte(c, 0x70 | cc);
    x64_byte(c, 0);
    return c->p - 1;
}

void x64_land8(struct x64 *c, u8 *place)
{
    *place = (u8)(c->p - (place + 1));
}

void x64_nop(struct x64 *c, unsigned bytes)
{
    /* The recommended multi-byte forms (SDM volume 2, NOP). */
    static const u8 forms[10][9] = {
        {0},
        {0x90},
        {0x66, 0x90},
        {0x0f, 0x1f, 0x00},
        {0x0f, 0x1f, 0x40, 0x00},
        {0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
        {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
        {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
        {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
    };

    while (bytes) {
        unsigned n = bytes < 9 ? bytes : 9;

        memcpy(c->p, forms[n], n);
        c->p += n;
        bytes -= n;
    }
}
