/* Random cases, from the rows of the instruction tables. */
#include <string.h>

#include "guest/riscv/insn.h"
#include "isa_riscv.h"

unsigned isa_words = 2 * ISA_MAX_INSNS;
static u64 state = 1;

void isa_seed(u64 seed)
{
    state = seed * 2 + 1;
}

static u64 random64(void)
{
    u64 x;

    state += 0x9e3779b97f4a7c15;
    x = state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

u32 isa_random(u32 below)
{
    return (u32)((random64() >> 32) * below >> 32);
}

#define PICK(array) array[isa_random(sizeof(array) / sizeof(array[0]))]

static u64 integer(void)
{
    static const u64 odd[] = {0,
                              1,
                              2,
                              3,
                              ~0ull,
                              ~1ull,
                              0x7f,
                              0x80,
                              0xff,
                              0x7fff,
                              0x8000,
                              0xffff,
                              0x7fffffff,
                              0x80000000,
                              0xffffffff,
                              0x100000000,
                              ~0x7fffffffull,
                              ~0ull >> 1,
                              1ull << 63,
                              (1ull << 63) + 1,
                              63,
                              64,
                              31,
                              32};

    switch (isa_random(4)) {
    case 0:
        return PICK(odd);
    case 1:
        return random64() >> isa_random(64);
    case 2:
        return ~(random64() >> isa_random(64));
    default:
        return random64();
    }
}

/* A number with few, or nearly all, bits of the fraction set: where rounding is decided. */
static u64 fraction(unsigned bits)
{
    u64 v = random64(), mask = (1ull << bits) - 1;

    switch (isa_random(6)) {
    case 0:
        return 0;
    case 1:
        return mask;
    case 2:
        return 1ull << isa_random(bits);
    case 3:
        return mask & ~(1ull << isa_random(bits));
    case 4:
        return v & mask & ~0ull << isa_random(bits);
    default:
        return v & mask;
    }
}

static u64 exponent(unsigned bits)
{
    u64 bias = (1ull << (bits - 1)) - 1, all = 2 * bias + 1;

    switch (isa_random(8)) {
    case 0:
        return 0;
    case 1:
        return all;
    case 2:
        return isa_random(3);
    case 3:
        return all - 1 - isa_random(3);
    case 4: /* near the ends of the integers */
        return bias + 28 + isa_random(40);
    case 5:
        return random64() & all;
    default:
        return bias - 30 + isa_random(60);
    }
}

static u64 floating(void)
{
    u64 sign = random64() >> 63;

    switch (isa_random(8)) {
    case 0:
        return integer();
    case 1: /* not boxed */
        return (random64() & 0xffff) << 32 | 0x3f800000 | fraction(23);
    case 2:
    case 3:
    case 4:
        return 0xffffffffull << 32 | sign << 31 | exponent(8) << 23 | fraction(23);
    default:
        return sign << 63 | exponent(11) << 52 | fraction(52);
    }
}

/* What the case has decided so far. */
struct draw {
    struct isa_case *c;
    unsigned number;
    u32 pinned, written; /* integer registers: value needed as it is; no longer that of the state */
    u32 reserved_rs1;    /* register of the LR just drawn, or 0 */
    char reserved_width; /* 'w' or 'd' of the last LR: an SC of the other width may go either way */
};

static u32 place(u32 mask, u32 value)
{
    return value << __builtin_ctz(mask) & mask;
}

u32 isa_place_immediate(const struct riscv_row *row, u64 value)
{
    u32 mask = riscv_row_mask(row, 'i'), word = 0;
    u8 position[32];
    unsigned count = riscv_format_bits(row->format, position);

    for (unsigned i = 0; i < count; i++) {
        u32 bit = 1u << (31 - __builtin_clz(mask));

        if (value >> position[i] & 1)
            word |= bit;
        mask &= ~bit;
    }
    return word;
}

u32 isa_random_word(const struct riscv_row *row)
{
    u32 fixed = riscv_row_mask(row, '0') | riscv_row_mask(row, '1');
    u32 word = ((u32)random64() & ~fixed) | riscv_row_mask(row, '1');
    u32 rm = riscv_row_mask(row, 'r');

    if (rm && isa_random(2))
        word |= rm; /* dynamic */
    return row->compressed ? word & 0xffff : word;
}

static bool is(const struct riscv_row *row, const char *prefix)
{
    return !strncmp(riscv_rows[row->op].name, prefix, strlen(prefix));
}

static bool is_csr(const struct riscv_row *row)
{
    return is(row, "csr");
}

static u32 random_csr(u32 word, const struct riscv_row *row)
{
    static const u16 csrs[] = {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 0, 0x100, 0x300, 0x7c0};

    return (word & ~riscv_row_mask(row, 'i')) | isa_place_immediate(row, PICK(csrs));
}

static bool writes_float(enum riscv_op op)
{
    const char *name = riscv_rows[op].name;
    static const char *const integers[] = {"fence",  "feq",   "flt_",   "fle_",
                                           "fclass", "fmv_x", "fcvt_w", "fcvt_l"};

    if (name[0] != 'f')
        return false;
    for (unsigned i = 0; i < sizeof(integers) / sizeof(integers[0]); i++)
        if (!strncmp(name, integers[i], strlen(integers[i])))
            return false;
    return true;
}

bool isa_writes_integer(const struct riscv_row *row)
{
    return !writes_float(row->op) && riscv_row_mask(&riscv_rows[row->op], 'd');
}

enum isa_kind isa_kind(const struct riscv_row *row)
{
    enum riscv_op op = row->op;

    if (op == RISCV_OP_jalr)
        return ISA_INDIRECT;
    if (op == RISCV_OP_jal || (op >= RISCV_OP_beq && op <= RISCV_OP_bgeu))
        return ISA_JUMP;
    if (op >= RISCV_OP_lr_w && op <= RISCV_OP_amomaxu_d)
        return ISA_ATOMIC;
    if ((op >= RISCV_OP_lb && op <= RISCV_OP_sd) || op == RISCV_OP_flw || op == RISCV_OP_fsw ||
        op == RISCV_OP_fld || op == RISCV_OP_fsd)
        return ISA_MEMORY;
    return ISA_PLAIN;
}

/* Makes @in's address lie in the case's window. */
static bool aim(struct draw *d, const struct riscv_insn *in, enum isa_kind kind)
{
    u64 window = isa_area_address(d->number) + offsetof(struct isa_area, data);
    u64 at = window + isa_random(ISA_WINDOW - 8), have = d->c->in.x[in->rs1] + (u64)in->imm;
    u32 bit = 1u << in->rs1;

    /* Whether an SC that fails anyway looks at its alignment is left open. */
    if (kind == ISA_ATOMIC && (is(in->row, "sc_") || isa_random(16)))
        at &= ~7ull;
    if (!in->rs1 || in->rs1 == ISA_LINK || d->written & bit)
        return false;
    if (in->rs1 == ISA_AREA || d->pinned & bit)
        return have - window <= ISA_WINDOW - 8 && !(is(in->row, "sc_") && have & 7);
    d->c->in.x[in->rs1] = at - (u64)in->imm;
    d->pinned |= bit;
    return true;
}

static bool fits(struct draw *d, struct riscv_insn *in, enum isa_kind kind, u64 pc)
{
    u32 bit = 1u << in->rs1;

    if (!writes_float(in->row->op) && kind != ISA_JUMP && in->rd >= ISA_LINK &&
        riscv_row_mask(&riscv_rows[in->row->op], 'd'))
        return false;
    if (in->row->op == RISCV_OP_jal && in->rd >= ISA_LINK)
        return false;
    /* Known difference: qemu-user 7.2 answers 63 for the trailing zeros of a word 0, not 32. */
    if (is(in->row, "ctzw") && (d->written & bit || !(u32)d->c->in.x[in->rs1]))
        return false;
    if (is(in->row, "sc_") && d->reserved_width && in->row->name[3] != d->reserved_width)
        return false;
    if (kind == ISA_MEMORY || kind == ISA_ATOMIC)
        return aim(d, in, kind);
    if (is(in->row, "ctzw"))
        d->pinned |= bit;
    if (kind == ISA_INDIRECT) {
        if (!in->rs1 || in->rs1 >= ISA_LINK || (d->pinned | d->written) & bit)
            return false;
        d->c->in.x[in->rs1] = pc + 8 - (u64)in->imm;
        d->pinned |= bit;
    }
    return true;
}

static void append(struct isa_case *c, u32 word)
{
    c->word[c->count++] = word;
}

/* One instruction of @row; false if this draw makes no sense. */
static bool draw_row(struct draw *d, const struct riscv_row *row)
{
    u32 word = isa_random_word(row), before = d->pinned;
    enum isa_kind kind = isa_kind(row);
    struct riscv_insn in;
    u64 pc = isa_case_pc(d->number) + d->c->count * 4ull;

    if (row->op == RISCV_OP_ecall || (kind == ISA_INDIRECT && d->c->count))
        return false;
    /* Two operands the same are idioms (moves, negation, 0) that a lifter may know. */
    if (!row->compressed && riscv_row_mask(row, 'm') && riscv_row_mask(row, 'n') && !isa_random(8))
        word = (word & ~riscv_row_mask(row, 'm')) |
               place(riscv_row_mask(row, 'm'),
                     (word & riscv_row_mask(row, 'n')) >> __builtin_ctz(riscv_row_mask(row, 'n')));
    if (is_csr(row))
        word = random_csr(word, row);
    if (kind == ISA_JUMP)
        word = (word & ~riscv_row_mask(row, 'i')) | isa_place_immediate(row, 8);
    if (d->reserved_rs1 && is(row, "sc_"))
        word =
            (word & ~riscv_row_mask(row, 'n')) | place(riscv_row_mask(row, 'n'), d->reserved_rs1);
    if (riscv_decode(&in, (u8 *)&word, 4) || in.row != row)
        return false;
    if (!fits(d, &in, kind, pc)) {
        d->pinned = before;
        return false;
    }
    d->reserved_rs1 = is(row, "lr_") && in.rd != in.rs1 ? in.rs1 : 0;
    if (is(row, "lr_"))
        d->reserved_width = row->name[3];
    if (!writes_float(row->op) && riscv_row_mask(&riscv_rows[row->op], 'd'))
        d->written |= 1u << in.rd;
    append(d->c, row->compressed ? word | 0x00010000 : word); /* C.NOP behind it */
    if (kind == ISA_JUMP || kind == ISA_INDIRECT) {
        append(d->c, 0x001e8e93); /* ADDI x29, x29, 1: skipped or not */
        d->written |= 1u << 29;
    }
    return true;
}

static const struct riscv_row *random_row(const struct draw *d, const char *only)
{
    const struct riscv_row *row;

    if (d->reserved_rs1 && isa_random(2))
        return &riscv_rows[d->reserved_width == 'w' ? RISCV_OP_sc_w : RISCV_OP_sc_d];
    do
        row = &riscv_rows[isa_random(riscv_rows_count)];
    while (only && strncmp(row->name, only, strlen(only)) != 0);
    return row;
}

static void draw_illegal(struct draw *d)
{
    struct riscv_insn in;
    u32 word;

    do {
        word = (u32)random64();
        if (isa_random(2)) /* one bit off a valid one */
            word =
                isa_random_word(&riscv_rows[isa_random(riscv_rows_count)]) ^ 1u << isa_random(32);
    } while (!riscv_decode(&in, (u8 *)&word, 4));
    append(d->c, in.length == 2 ? (word & 0xffff) | 0x00010000 : word);
}

void isa_random_state(struct isa_area *a)
{
    memset(a, 0, sizeof(*a));
    for (unsigned i = 1; i < ISA_LINK; i++)
        a->x[i] = integer();
    for (unsigned i = 0; i < 32; i++)
        a->f[i] = floating();
    a->fcsr = (isa_random(16) ? isa_random(5) : 5 + isa_random(3)) << 5;
    if (isa_random(4) == 0)
        a->fcsr |= isa_random(32);
    for (unsigned i = 0; i < ISA_WINDOW; i += 8) {
        u64 v = isa_random(2) ? floating() : integer();

        memcpy(a->data + i, &v, 8);
    }
}

void isa_generate(struct isa_case *c, unsigned number, const char *only, bool illegal)
{
    struct draw d = {.c = c, .number = number};
    unsigned want = isa_random(2) ? 1 : 1 + isa_random(ISA_MAX_INSNS);

    c->count = 0;
    c->text = NULL;
    isa_random_state(&c->in);
    c->in.x[ISA_AREA] = isa_area_address(number);
    if (illegal) {
        draw_illegal(&d);
        return;
    }
    for (unsigned i = 0; i < want;)
        i += draw_row(&d, random_row(&d, only));
}
