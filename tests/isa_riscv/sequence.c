/*
 * Random sequences: instructions of the tables one after the other, on registers and the case's
 * window of memory through several pointers, with forward branches, counted loops, indirect jumps,
 * and stores that change the code itself.
 */
#include <string.h>

#include "guest/riscv/insn.h"
#include "isa_riscv.h"

/* Registers that keep their meaning: SP and S0 are what short forms address by. */
enum { SP = 2, S0 = 8, CODE_AT = 23, CODE_WORD = 24, COUNTER = 25, ALIGNED = 26, MIDDLE = 27 };
#define RESERVED                                                                                   \
    (1u << SP | 1u << S0 | 1u << CODE_AT | 1u << CODE_WORD | 1u << COUNTER | 1u << ALIGNED |       \
     1u << MIDDLE | 1u << ISA_LINK | 1u << ISA_AREA)

/* Where the pointers lie in the window. */
static int window_offset(unsigned reg)
{
    return reg == MIDDLE ? ISA_WINDOW / 2 : reg == ALIGNED ? 64 : 0;
}

static bool named(const struct riscv_row *row, const char *prefix)
{
    return !strncmp(riscv_rows[row->op].name, prefix, strlen(prefix));
}

/* What is made here, needs more than itself, or is a known difference. */
static bool usable(const struct riscv_row *row)
{
    return isa_kind(row) < ISA_JUMP && !named(row, "lr_") && !named(row, "sc_") &&
           !named(row, "ctzw") && !named(row, "ecall");
}

static u32 with(const struct riscv_row *row, u32 word, char letter, u32 value)
{
    u32 mask = riscv_row_mask(row, letter);

    return mask ? (word & ~mask) | (value << __builtin_ctz(mask) & mask) : word;
}

static u32 with_immediate(const struct riscv_row *row, u32 word, s64 value)
{
    return (word & ~riscv_row_mask(row, 'i')) | isa_place_immediate(row, (u64)value);
}

/* Makes a memory access stay in the window. */
static u32 aim(const struct riscv_row *row, u32 word)
{
    static const u8 pointers[] = {SP, S0, MIDDLE, MIDDLE};
    unsigned reg = pointers[isa_random(sizeof(pointers))];

    if (row->compressed)
        return word;
    if (isa_kind(row) == ISA_ATOMIC)
        return with(row, word, 'n', ALIGNED);
    word = with(row, word, 'n', reg);
    return with_immediate(row, word, (s64)isa_random(ISA_WINDOW - 8) - window_offset(reg));
}

static bool in_window(const struct riscv_insn *in)
{
    s64 at = window_offset(in->rs1) + in->imm;
    bool pointer = in->rs1 == SP || in->rs1 == S0 || in->rs1 == MIDDLE || in->rs1 == ALIGNED;

    return pointer && at >= 0 && at <= ISA_WINDOW - 8;
}

/* An instance of some row; of four bytes if @full. */
static u32 plain_word(bool full)
{
    for (;;) {
        const struct riscv_row *row = &riscv_rows[isa_random(riscv_rows_count)];
        struct riscv_insn in;
        u32 word;

        if (!usable(row) || (full && row->compressed))
            continue;
        word = isa_random_word(row);
        if (isa_kind(row) != ISA_PLAIN)
            word = aim(row, word);
        if (riscv_decode(&in, (u8 *)&word, 4) || in.row != row)
            continue;
        if (isa_kind(row) != ISA_PLAIN && !in_window(&in))
            continue;
        if (isa_writes_integer(row) && RESERVED >> in.rd & 1)
            continue;
        return row->compressed ? word | 0x00010000 : word; /* C.NOP behind it */
    }
}

static struct isa_item *add(struct isa_sequence *s)
{
    struct isa_item *item = &s->items[s->count++];

    memset(item, 0, sizeof(*item));
    return item;
}

static u32 encode(enum riscv_op op, u32 rd, u32 rs1, u32 rs2, s64 immediate)
{
    const struct riscv_row *row = &riscv_rows[op];
    u32 word = riscv_row_mask(row, '1');

    word = with(row, word, 'd', rd);
    word = with(row, word, 'n', rs1);
    word = with(row, word, 'm', rs2);
    return riscv_row_mask(row, 'i') ? with_immediate(row, word, immediate) : word;
}

static void add_word(struct isa_sequence *s, u32 word)
{
    struct isa_item *item = add(s);

    item->word[item->count++] = word;
}

static void add_jump(struct isa_sequence *s)
{
    u32 a = isa_random(32), b = isa_random(32), link = isa_random(2) ? 0 : 5 + isa_random(3);
    enum riscv_op branch = RISCV_OP_beq + isa_random(RISCV_OP_bgeu - RISCV_OP_beq + 1);
    struct isa_item *item = add(s);

    item->target = s->count + isa_random(12);
    switch (isa_random(4)) {
    case 0:
        item->form = ISA_FORM_JAL;
        item->word[item->count++] = encode(RISCV_OP_jal, link, 0, 0, 0);
        break;
    case 1:
        item->form = ISA_FORM_JALR;
        item->word[item->count++] = encode(RISCV_OP_auipc, CODE_AT, 0, 0, 0);
        item->word[item->count++] = encode(RISCV_OP_jalr, link, CODE_AT, 0, 0);
        break;
    default:
        item->form = ISA_FORM_BRANCH;
        item->word[item->count++] = encode(branch, 0, a, b, 0);
    }
}

/* One item, so that nobody jumps past the counting. */
static void add_loop_end(struct isa_sequence *s, unsigned first)
{
    struct isa_item *item = add(s);

    item->form = ISA_FORM_LOOP;
    item->target = first;
    item->word[item->count++] = encode(RISCV_OP_addi, COUNTER, COUNTER, 0, -1);
    item->word[item->count++] = encode(RISCV_OP_bge, 0, COUNTER, 0, 0); /* >= x0 */
}

/* LUI, ADDIW the new word; AUIPC, SW to item @target; FENCE.I. */
static void add_code_store(struct isa_sequence *s, unsigned target, unsigned group)
{
    struct isa_item *item = add(s);
    u32 code = plain_word(true);

    item->form = ISA_FORM_STORE;
    item->target = target;
    item->group = group;
    item->word[item->count++] = encode(RISCV_OP_lui, CODE_WORD, 0, 0, (s32)(code + 0x800));
    item->word[item->count++] =
        encode(RISCV_OP_addiw, CODE_WORD, CODE_WORD, 0, (s32)(code << 20) >> 20);
    item->word[item->count++] = encode(RISCV_OP_auipc, CODE_AT, 0, 0, 0);
    item->word[item->count++] = encode(RISCV_OP_sw, 0, CODE_AT, CODE_WORD, 0);
    item->word[item->count++] = riscv_row_mask(&riscv_rows[RISCV_OP_fence_i], '1');
}

static void add_self_modification(struct isa_sequence *s)
{
    unsigned between = isa_random(6), group = s->count + 1;

    if (s->patched && isa_random(3)) {
        add_code_store(s, s->patched, s->items[s->patched].group);
        return;
    }
    add_code_store(s, s->count + 1 + between, group);
    while (between--)
        add_word(s, plain_word(false));
    s->patched = s->count;
    add_word(s, plain_word(true));
    s->items[s->patched].group = group;
}

/* Makes @word, the item's in the text, reach what lies @distance bytes from its start. */
static void set_distance(struct isa_item *item, u32 *word, s64 distance)
{
    s64 high;

    switch (item->form) {
    case ISA_FORM_NONE:
        break;
    case ISA_FORM_BRANCH: /* of whichever condition: all have the same fields */
        *word = with_immediate(&riscv_rows[RISCV_OP_beq], *word, distance);
        break;
    case ISA_FORM_LOOP:
        word[1] = with_immediate(&riscv_rows[RISCV_OP_bge], word[1], distance - 4);
        break;
    case ISA_FORM_JAL:
        *word = with_immediate(&riscv_rows[RISCV_OP_jal], *word, distance);
        break;
    case ISA_FORM_JALR:
        word[1] = with_immediate(&riscv_rows[RISCV_OP_jalr], word[1], distance);
        break;
    case ISA_FORM_STORE:
        distance -= 8;
        high = (distance + 0x800) & ~0xfffll;
        word[2] = with_immediate(&riscv_rows[RISCV_OP_auipc], word[2], high);
        word[3] = with_immediate(&riscv_rows[RISCV_OP_sw], word[3], distance - high);
        break;
    }
}

bool isa_assemble(struct isa_sequence *s)
{
    unsigned at[ISA_ITEMS + 1], n = 0;

    for (unsigned i = 0; i < s->count; i++) {
        at[i] = n;
        n += s->items[i].off ? 0 : s->items[i].count;
    }
    at[s->count] = n;
    if (n > isa_words)
        return false;
    for (unsigned i = 0; i < s->count; i++) {
        struct isa_item *item = &s->items[i];
        unsigned target = item->target < s->count ? item->target : s->count;

        if (item->off)
            continue;
        memcpy(s->text + at[i], item->word, item->count * sizeof(u32));
        set_distance(item, s->text + at[i], ((s64)at[target] - at[i]) * 4);
    }
    s->c.text = s->text;
    s->c.count = n;
    return true;
}

bool isa_generate_sequence(struct isa_sequence *s, unsigned number, unsigned length)
{
    unsigned loop = 0, left = 0;
    u64 window = isa_area_address(number) + offsetof(struct isa_area, data);

    memset(s, 0, sizeof(*s));
    isa_random_state(&s->c.in);
    s->c.in.x[ISA_AREA] = isa_area_address(number);
    s->c.in.x[SP] = s->c.in.x[S0] = window;
    s->c.in.x[ALIGNED] = window + (u64)window_offset(ALIGNED);
    s->c.in.x[MIDDLE] = window + (u64)window_offset(MIDDLE);
    s->c.in.x[COUNTER] = 0;
    while (s->count < length) {
        unsigned kind = isa_random(40);

        if (kind < 4) {
            add_jump(s);
        } else if (kind == 4) {
            add_self_modification(s);
        } else if (kind < 7 && !loop) {
            add_word(s, encode(RISCV_OP_addi, COUNTER, 0, 0,
                               isa_random(8) ? isa_random(20) : isa_random(400)));
            loop = s->count;
            left = 2 + isa_random(25);
        } else {
            add_word(s, plain_word(false));
        }
        if (loop && !left--) {
            add_loop_end(s, loop);
            loop = 0;
        }
    }
    if (loop)
        add_loop_end(s, loop);
    return isa_assemble(s);
}
