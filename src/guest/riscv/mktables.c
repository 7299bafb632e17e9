/*
 * Build tool: makes the decoder's tables from the instruction rows. Refuses rows whose bits do not
 * fill a word, whose immediate does not fit its format, and 32-bit rows that overlap, unless one of
 * them is a special case of the other; that one is then tried first.
 */
#include <stdio.h>
#include <stdlib.h>

#include "guest/riscv/rows.h"

#define CHAIN_MAX 64

static u32 fixed(const struct riscv_row *row)
{
    return riscv_row_mask(row, '0') | riscv_row_mask(row, '1');
}

static void check(const struct riscv_row *row)
{
    u8 position[32];
    unsigned bits = 0, width = row->compressed ? 16 : 32;

    for (const char *s = row->bits; *s; s++)
        bits += *s != ' ';
    if (bits != width) {
        fprintf(stderr, "row %s has %u bits\n", row->name, bits);
        exit(1);
    }
    if ((unsigned)__builtin_popcount(riscv_row_mask(row, 'i')) !=
        riscv_format_bits(row->format, position)) {
        fprintf(stderr, "row %s has an immediate that is not of its format\n", row->name);
        exit(1);
    }
}

/* Is @a to be tried before @b? */
static bool before(const struct riscv_row *a, const struct riscv_row *b)
{
    u32 fa = fixed(a), fb = fixed(b), both = fa & fb;

    if (a->compressed || (riscv_row_mask(a, '1') & both) != (riscv_row_mask(b, '1') & both))
        return false;
    if (both != fa && both != fb) {
        fprintf(stderr, "rows %s and %s overlap\n", a->name, b->name);
        exit(1);
    }
    return fa != fb && both == fb;
}

/* Rows whose bits agree with @key in the bits of @mask. */
static unsigned collect(bool compressed, u32 mask, u32 key, unsigned *chain)
{
    unsigned count = 0;

    for (unsigned r = 0; r < riscv_rows_count; r++) {
        const struct riscv_row *row = &riscv_rows[r];
        u32 both = fixed(row) & mask;
        unsigned at = count;

        if (row->compressed != compressed || (riscv_row_mask(row, '1') & both) != (key & both))
            continue;
        if (count == CHAIN_MAX) {
            fprintf(stderr, "too many rows share a key\n");
            exit(1);
        }
        while (at && before(row, &riscv_rows[chain[at - 1]])) {
            chain[at] = chain[at - 1];
            at--;
        }
        chain[at] = r;
        count++;
    }
    return count;
}

static void print_rows(void)
{
    static const char letters[] = "dnmkraDNMAi";

    puts("static const struct row_bits row_bits[] = {");
    for (unsigned r = 0; r < riscv_rows_count; r++) {
        const struct riscv_row *row = &riscv_rows[r];

        check(row);
        printf("    {%#x, %#x, {", fixed(row), riscv_row_mask(row, '1'));
        for (const char *l = letters; *l; l++)
            printf("%#x, ", riscv_row_mask(row, *l));
        puts("}},");
    }
    puts("};");
}

static void print_formats(void)
{
    puts("static const struct format_bits format_bits[] = {");
    for (unsigned f = 0; f <= RISCV_FORMAT_C_SDSP; f++) {
        u8 position[32];
        unsigned count = riscv_format_bits(f, position);

        printf("    {%u, %u, {", count, riscv_formats[f].sign);
        for (unsigned i = 0; i < count; i++)
            printf("%u, ", position[i]);
        puts(count ? "}}," : "0}},");
    }
    puts("};");
}

/* Keys: bits 6:2 and 14:12 of a word; bits 15:13 and 1:0 of a halfword. */
static void print_chains(const char *name, bool compressed)
{
    unsigned keys = compressed ? 32 : 256, next = 1;
    unsigned start[256] = {0};

    printf("static const u16 %s_chain[] = {\n    NO_ROW,\n", name);
    for (unsigned key = 0; key < keys; key++) {
        u32 mask = compressed ? 0xe003 : 0x707f;
        u32 bits =
            compressed ? (key >> 2) << 13 | (key & 3) : (key >> 5) << 12 | (key & 31) << 2 | 3;
        unsigned chain[CHAIN_MAX];
        unsigned count = collect(compressed, mask, bits, chain);

        if (!count)
            continue;
        start[key] = next;
        printf("    ");
        for (unsigned i = 0; i < count; i++)
            printf("%u, ", chain[i]);
        puts("NO_ROW,");
        next += count + 1;
    }
    printf("};\nstatic const u16 %s_start[] = {\n    ", name);
    for (unsigned key = 0; key < keys; key++)
        printf("%u,%s", start[key], key % 16 == 15 ? "\n    " : " ");
    puts("};");
}

int main(void)
{
    puts("/* Made by mktables from the .def files. */");
    print_rows();
    print_formats();
    print_chains("word", false);
    print_chains("half", true);
    return 0;
}
