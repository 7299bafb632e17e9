/* Listings, from the rows: the full form of an instruction also where it is compressed. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "guest/riscv/driver.h"
#include "guest/riscv/insn.h"

static bool starts(const char *name, const char *with)
{
    return !strncmp(name, with, strlen(with));
}

static bool is_float(const char *name)
{
    return name[0] == 'f' && !starts(name, "fence");
}

static bool accesses_memory(const struct riscv_row *row)
{
    return row->format == RISCV_FORMAT_S ||
           (row->format == RISCV_FORMAT_I && (row->name[0] == 'l' || starts(row->name, "fl")));
}

/* Which operands of a floating-point instruction are integer registers. */
static bool integer_rd(const char *name)
{
    return !is_float(name) || starts(name, "feq") || starts(name, "flt_") || starts(name, "fle") ||
           starts(name, "fclass") || starts(name, "fmv_x") || starts(name, "fcvt_w") ||
           starts(name, "fcvt_l");
}

static bool integer_rs1(const char *name)
{
    return !is_float(name) || starts(name, "fmv_w") || starts(name, "fmv_d") ||
           (starts(name, "fcvt") && (starts(name + 6, "_w") || starts(name + 6, "_l")));
}

struct text {
    char *at;
    size_t left;
    unsigned operands;
};

static void add(struct text *t, const char *string)
{
    int n = snprintf(t->at, t->left, "%s", string);
    size_t used = (size_t)n < t->left ? (size_t)n : t->left - 1;

    t->at += used;
    t->left -= used;
}

static void operand(struct text *t, const char *string)
{
    add(t, t->operands++ ? ", " : " ");
    add(t, string);
}

static void reg(struct text *t, bool integer, unsigned number)
{
    char name[8];

    snprintf(name, sizeof(name), "%c%u", integer ? 'x' : 'f', number);
    operand(t, name);
}

static void immediate(struct text *t, const struct riscv_insn *in, const struct riscv_row *row,
                      u64 pc)
{
    char number[48];
    bool relative = row->format == RISCV_FORMAT_B || row->format == RISCV_FORMAT_J;

    if (accesses_memory(row))
        snprintf(number, sizeof(number), "%" PRId64 "(x%u)", in->imm, in->rs1);
    else if (relative)
        snprintf(number, sizeof(number), "%#" PRIx64, pc + (u64)in->imm);
    else
        snprintf(number, sizeof(number), "%" PRId64, in->imm);
    operand(t, number);
}

static void list(struct text *t, const struct riscv_insn *in, u64 pc)
{
    const struct riscv_row *row = &riscv_rows[in->row->op];
    bool memory = accesses_memory(row);
    char name[16];

    snprintf(name, sizeof(name), "%s", row->name);
    for (char *c = name; *c; c++)
        *c = *c == '_' ? '.' : *c;
    add(t, name);
    if (riscv_row_mask(row, 'd'))
        reg(t, integer_rd(row->name), in->rd);
    if (row->format == RISCV_FORMAT_S)
        reg(t, !is_float(row->name), in->rs2);
    if (riscv_row_mask(row, 'n') && !memory)
        reg(t, integer_rs1(row->name), in->rs1);
    if (riscv_row_mask(row, 'm') && row->format != RISCV_FORMAT_S)
        reg(t, !is_float(row->name), in->rs2);
    if (riscv_row_mask(row, 'k'))
        reg(t, false, in->rs3);
    if (row->format != RISCV_FORMAT_NONE)
        immediate(t, in, row, pc);
    if (riscv_row_mask(row, 'r')) {
        static const char *const modes[8] = {"rne", "rtz", "rdn", "rup", "rmm", "5", "6", "dyn"};

        operand(t, modes[in->rm]);
    }
}

int riscv_disassemble(u32 mode, u64 pc, const u8 *code, u32 avail, char *text, size_t size)
{
    struct riscv_insn in;
    struct text t = {text, size, 0};
    int decoded = riscv_decode(&in, code, avail);

    (void)mode;
    if (!in.length) {
        snprintf(text, size, "(cut)");
        return (int)(avail ? avail : 1);
    }
    if (decoded)
        snprintf(text, size, "(illegal) %0*x", in.length * 2, in.word);
    else
        list(&t, &in, pc);
    return in.length;
}
