/*
 * The decoder: prefixes, opcode map, then the chain of rows for the opcode (tables made by
 * mktables), then ModRM, displacement and operands as the row's codes say. SDM vol. 2 chapter 2 and
 * appendix A.
 */
#include <errno.h>
#include <string.h>

#include "guest/x86/rows.h"
#include "guest/x86/state.h"

#define NO_ROW 0xffff
#include "x86_tables.h"

#define INSN_MAX 15

enum operand_place {
    NOTHING,
    RM,
    RM_REG,
    REG,
    IMM,
    IMM_SIGNED,
    IMM_Z,
    IMM_V,
    REL,
    MEM,
    MOFFS,
    SREG,
    CREG,
    DREG,
    STR_SRC,
    STR_DST,
    OPCODE_REG,
    FAR,
    XMM_REG,
    XMM_RM_REG,
    XMM_RM,
    MMX_REG,
    MMX_RM,
    MMX_RM_REG,
    ACC,
    COUNT,
    PORT,
    ONE,
    SEG0,
    SEG1,
    SEG2,
    SEG3,
    SEG4,
    SEG5,
    STACK_TOP,
    STACK_RM,
};
enum operand_size { V = 128, Z, Y, C, P, A, S, N };

static const struct {
    u8 place, size;
} operand_codes[X86_OPERAND_CODES_COUNT] = {
#define O(code, place, size) {place, size},
    X86_OPERAND_CODES(O)
#undef O
};

struct reader {
    const u8 *code;
    u32 avail, at;
    int error;
    u8 last_rep; /* F2 or F3, the later one; 0 */
    s8 override; /* segment, -1 */
    bool addrsize_prefix;
};

/* Near the end of the bytes: byte by byte, and remembers which end it was. */
static u64 take_last(struct reader *r, unsigned n)
{
    u64 v = 0;

    if (r->at + n > r->avail || r->at + n > INSN_MAX) {
        /* The bytes that are there count first: with 15 of them read there is no need to know the
         * next page. */
        r->error = r->at + n > INSN_MAX && r->avail >= INSN_MAX ? -E2BIG : -ERANGE;
        return 0;
    }
    memcpy(&v, r->code + r->at, n);
    r->at += n;
    return v;
}

/* The next @n bytes, little-endian. */
static inline u64 take(struct reader *r, unsigned n)
{
    u64 v;

    if (unlikely(r->at + 8 > r->avail || r->at + n > INSN_MAX))
        return take_last(r, n);
    memcpy(&v, r->code + r->at, 8);
    r->at += n;
    return v & mask_low(n * 8);
}

enum prefix { SEGMENT = 1, OPSIZE, ADDRSIZE, LOCK, REP };
static const u8 prefixes[256] = {
    [0x26] = SEGMENT, [0x2e] = SEGMENT, [0x36] = SEGMENT, [0x3e] = SEGMENT,
    [0x64] = SEGMENT, [0x65] = SEGMENT, [0x66] = OPSIZE,  [0x67] = ADDRSIZE,
    [0xf0] = LOCK,    [0xf2] = REP,     [0xf3] = REP,
};

static void legacy_prefix(struct reader *r, struct x86_insn *in, u8 byte)
{
    switch (prefixes[byte]) {
    case SEGMENT:
        if (byte >= 0x64)
            r->override = (s8)(X86_FS + (byte - 0x64));
        else if (in->code_size != 8)
            r->override = (s8)(X86_ES + ((byte - 0x26) >> 3));
        break;
    case OPSIZE:
        in->opsize_prefix = true;
        break;
    case ADDRSIZE:
        r->addrsize_prefix = true;
        break;
    case LOCK:
        in->lock = true;
        break;
    case REP:
        in->repne |= byte == 0xf2;
        in->rep |= byte == 0xf3;
        r->last_rep = byte;
        break;
    }
}

/* Reads prefixes and opcode; in->map and in->opcode are set. */
static void read_opcode(struct reader *r, struct x86_insn *in)
{
    u8 byte = (u8)take(r, 1);

    for (; !r->error; byte = (u8)take(r, 1)) {
        if ((byte & 0xf0) == 0x40 && in->code_size == 8) {
            in->rex = byte;
        } else if (prefixes[byte]) {
            legacy_prefix(r, in, byte);
            in->rex = 0; /* REX counts only right before the opcode */
        } else {
            break;
        }
    }
    in->map = X86_MAP_M1;
    if (byte == 0x0f && !r->error) {
        byte = (u8)take(r, 1);
        in->map = X86_MAP_M0F;
        if (byte == 0x38 || byte == 0x3a) {
            in->map = byte == 0x38 ? X86_MAP_M38 : X86_MAP_M3A;
            byte = (u8)take(r, 1);
        }
    }
    in->opcode = byte;
}

static bool prefix_matches(const struct reader *r, const struct x86_insn *in, unsigned prefix)
{
    switch (prefix) {
    case X86_PFX_NP:
        return !r->last_rep && !in->opsize_prefix;
    case X86_PFX_NFX:
        return !r->last_rep;
    case X86_PFX_P66:
        return !r->last_rep && in->opsize_prefix;
    case X86_PFX_PF3:
        return r->last_rep == 0xf3;
    case X86_PFX_PF2:
        return r->last_rep == 0xf2;
    }
    return true;
}

static bool modrm_matches(unsigned want, u8 modrm)
{
    bool is_reg = modrm >= 0xc0;

    if (want >= X86_MODRM_B)
        return modrm == (u8)want;
    if (want >= X86_MODRM_G) {
        if ((want & 7) != ((modrm >> 3) & 7))
            return false;
        want &= ~7u;
        return want == X86_MODRM_G || is_reg == (want == X86_MODRM_R);
    }
    return want == X86_MODRM_MR || is_reg == (want == X86_MODRM_RR);
}

/* The row for the opcode read, with ModRM read if its rows have one; NULL: #UD (or r->error). */
static const struct x86_row *find_row(struct reader *r, struct x86_insn *in)
{
    const u16 *chain = &row_chain[row_start[in->map][in->opcode]];
    unsigned wrong_mode = in->code_size == 8 ? X86_ROW_I64 : X86_ROW_O64;

    if (*chain == NO_ROW)
        return NULL;
    in->has_modrm = x86_rows[*chain].modrm != X86_MODRM_NONE;
    if (in->has_modrm) {
        in->modrm = (u8)take(r, 1);
        if (r->error)
            return NULL;
    }
    for (; *chain != NO_ROW; chain++) {
        const struct x86_row *row = &x86_rows[*chain];

        if (!(row->flags & wrong_mode) && prefix_matches(r, in, row->prefix) &&
            (!in->has_modrm || modrm_matches(row->modrm, in->modrm)))
            return row;
    }
    return NULL;
}

static void set_sizes(struct reader *r, struct x86_insn *in, const struct x86_row *row)
{
    /* Where 66 selects the row it does not change the operand size. */
    bool opsize = in->opsize_prefix && row->prefix != X86_PFX_P66;

    if (in->code_size == 8) {
        if (in->rex & 8 || row->flags & X86_ROW_F64)
            in->operand_size = 8;
        else if (opsize)
            in->operand_size = 2;
        else
            in->operand_size = row->flags & X86_ROW_D64 ? 8 : 4;
        in->address_size = r->addrsize_prefix ? 4 : 8;
    } else {
        in->operand_size = opsize ? in->code_size ^ 6 : in->code_size;
        in->address_size = r->addrsize_prefix ? in->code_size ^ 6 : in->code_size;
    }
}

static void read_memory16(struct reader *r, struct x86_insn *in)
{
    static const s8 bases[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
                                X86_RSI, X86_RDI, X86_RBP, X86_RBX};
    static const s8 indexes[8] = {X86_RSI, X86_RDI, X86_RSI, X86_RDI, -1, -1, -1, -1};
    unsigned rm = in->modrm & 7;

    in->base = bases[rm];
    in->index = indexes[rm];
    if (in->mod == 0 && rm == 6) {
        in->base = -1;
        in->disp = (s16)take(r, 2);
    } else if (in->mod == 1) {
        in->disp = (s8)take(r, 1);
    } else if (in->mod == 2) {
        in->disp = (s16)take(r, 2);
    }
}

static void read_memory(struct reader *r, struct x86_insn *in)
{
    unsigned rm = in->modrm & 7;
    unsigned base = rm;

    if (rm == 4) {
        u8 sib = (u8)take(r, 1);
        unsigned index = ((sib >> 3) & 7) | (in->rex & 2) << 2;

        in->scale = sib >> 6;
        in->index = index == 4 ? -1 : (s8)index;
        base = sib & 7;
    }
    if (base == 5 && in->mod == 0) {
        /* No base; without SIB it is RIP-relative in 64-bit mode. */
        in->base = rm == 5 && in->code_size == 8 ? -2 : -1;
        in->disp = (s32)take(r, 4);
        return;
    }
    in->base = (s8)(base | (in->rex & 1) << 3);
    if (in->mod == 1)
        in->disp = (s8)take(r, 1);
    else if (in->mod == 2)
        in->disp = (s32)take(r, 4);
}

static void read_modrm(struct reader *r, struct x86_insn *in, bool always_reg)
{
    in->mod = always_reg ? 3 : in->modrm >> 6;
    in->reg = ((in->modrm >> 3) & 7) | (in->rex & 4) << 1;
    in->rm = (in->modrm & 7) | (in->rex & 1) << 3;
    in->base = in->index = -1;
    if (in->mod == 3)
        return;
    if (in->address_size == 2)
        read_memory16(r, in);
    else
        read_memory(r, in);
    in->segment = in->base == X86_RSP || in->base == X86_RBP ? X86_SS : X86_DS;
    if (r->override >= 0)
        in->segment = (u8)r->override;
}

static unsigned size_of(const struct x86_insn *in, unsigned size)
{
    switch (size) {
    case V:
        return in->operand_size;
    case Z:
        return in->operand_size == 2 ? 2 : 4;
    case Y:
        return in->rex & 8 ? 8 : 4;
    case C:
        return in->code_size == 8 ? 8 : 4;
    case P:
        return in->operand_size + 2;
    case A:
        return in->operand_size * 2;
    case S:
        return in->code_size == 8 ? 10 : 6;
    case N:
        return in->address_size;
    }
    return size;
}

static void general(const struct x86_insn *in, struct x86_operand *op, unsigned reg)
{
    op->kind = X86_OP_REG;
    if (op->size == 1 && !in->rex && reg >= 4) {
        op->high = true;
        reg -= 4;
    }
    op->reg = (u8)reg;
}

static void immediate(struct reader *r, struct x86_insn *in, struct x86_operand *op, unsigned place)
{
    op->kind = place == REL ? X86_OP_REL : X86_OP_IMM;
    if (place == IMM_SIGNED)
        op->value = (u64)(s8)take(r, 1);
    else if (place == IMM_Z)
        op->value = op->size == 2 ? (u64)(s16)take(r, 2) : (u64)(s32)take(r, 4);
    else if (place == REL)
        op->value = op->size == 1   ? (u64)(s8)take(r, 1)
                    : op->size == 2 ? (u64)(s16)take(r, 2)
                                    : (u64)(s32)take(r, 4);
    else
        op->value = take(r, op->size);
    in->imm = op->value;
}

static void operand(struct reader *r, struct x86_insn *in, struct x86_operand *op, unsigned code)
{
    unsigned place = operand_codes[code].place;
    bool reg_rm = in->mod == 3;

    op->size = (u8)size_of(in, operand_codes[code].size);
    switch (place) {
    case RM:
        if (reg_rm)
            general(in, op, in->rm);
        else
            op->kind = X86_OP_MEM;
        break;
    case RM_REG:
        general(in, op, in->rm);
        break;
    case REG:
        general(in, op, in->reg);
        break;
    case OPCODE_REG:
        general(in, op, (in->opcode & 7) | (in->rex & 1) << 3);
        break;
    case ACC:
        op->kind = X86_OP_REG;
        op->reg = X86_RAX;
        break;
    case COUNT:
        op->kind = X86_OP_REG;
        op->reg = X86_RCX;
        break;
    case PORT:
        op->kind = X86_OP_REG;
        op->reg = X86_RDX;
        break;
    case IMM:
    case IMM_SIGNED:
    case IMM_Z:
    case IMM_V:
    case REL:
        immediate(r, in, op, place);
        break;
    case ONE:
        op->kind = X86_OP_IMM;
        op->value = 1;
        break;
    case MEM:
        op->kind = X86_OP_MEM;
        break;
    case MOFFS:
        op->kind = X86_OP_MOFFS;
        op->value = take(r, in->address_size);
        in->segment = r->override >= 0 ? (u8)r->override : X86_DS;
        break;
    case SREG:
        op->kind = X86_OP_SEG;
        op->reg = in->reg & 7;
        break;
    case CREG:
        op->kind = X86_OP_CR;
        op->reg = in->reg;
        break;
    case DREG:
        op->kind = X86_OP_DR;
        op->reg = in->reg;
        break;
    case STR_SRC:
        op->kind = X86_OP_STR_SRC;
        in->segment = r->override >= 0 ? (u8)r->override : X86_DS;
        break;
    case STR_DST:
        op->kind = X86_OP_STR_DST;
        break;
    case FAR:
        op->kind = X86_OP_FAR;
        op->value = take(r, op->size);
        op->selector = (u16)take(r, 2);
        break;
    case XMM_REG:
        op->kind = X86_OP_XMM;
        op->reg = in->reg;
        break;
    case XMM_RM_REG:
        op->kind = X86_OP_XMM;
        op->reg = in->rm;
        break;
    case XMM_RM:
        op->kind = reg_rm ? X86_OP_XMM : X86_OP_MEM;
        op->reg = in->rm;
        break;
    case MMX_REG:
        op->kind = X86_OP_MMX;
        op->reg = in->reg & 7;
        break;
    case MMX_RM_REG:
        op->kind = X86_OP_MMX;
        op->reg = in->rm & 7;
        break;
    case MMX_RM:
        op->kind = reg_rm ? X86_OP_MMX : X86_OP_MEM;
        op->reg = in->rm & 7;
        break;
    case SEG0:
    case SEG1:
    case SEG2:
    case SEG3:
    case SEG4:
    case SEG5:
        op->kind = X86_OP_SEG;
        op->reg = (u8)(X86_ES + (place - SEG0));
        break;
    case STACK_TOP:
        op->kind = X86_OP_ST;
        break;
    case STACK_RM:
        op->kind = X86_OP_ST;
        op->reg = in->rm & 7;
        break;
    }
}

/* MOV CR and MOV DR take mod as 3 whatever it is. */
static bool ignores_mod(const struct x86_row *row)
{
    return row->op[0] == X86_OC_Rd || row->op[1] == X86_OC_Rd;
}

int x86_decode(struct x86_insn *in, const u8 *code, u32 avail, unsigned code_size)
{
    struct reader r = {.code = code, .avail = avail, .override = -1};
    const struct x86_row *row;

    memset(in, 0, sizeof(*in));
    in->code_size = (u8)code_size;
    in->base = in->index = -1;
    read_opcode(&r, in);
    if (r.error)
        return r.error;
    /* Memory without an operand too: XLAT, MONITOR, MASKMOVQ. */
    in->segment = r.override >= 0 ? (u8)r.override : X86_DS;
    row = find_row(&r, in);
    if (r.error)
        return r.error;
    in->length = (u8)r.at;
    if (!row)
        return X86_DECODE_UD;

    set_sizes(&r, in, row);
    if (in->has_modrm)
        read_modrm(&r, in, ignores_mod(row));
    for (unsigned i = 0; i < 3 && row->op[i] != X86_OC__; i++)
        operand(&r, in, &in->op[i], row->op[i]);
    if (r.error)
        return r.error;
    in->length = (u8)r.at;
    if (in->lock && !(row->flags & X86_ROW_LOCK && in->op[0].kind == X86_OP_MEM))
        return X86_DECODE_UD;
    in->row = row;
    return X86_DECODE_OK;
}
