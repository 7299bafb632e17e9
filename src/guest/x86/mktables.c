/*
 * Build tool: orders the instruction rows into the decoder's tables, so that decoding starts with
 * an index by map and opcode and then tries few rows, the most specific first. Refuses rows that
 * can never be told apart.
 */
#include <stdio.h>
#include <stdlib.h>

#include "guest/x86/rows.h"

#define CHAIN_MAX 64

static bool covers(const struct x86_row *row, unsigned map, unsigned opcode)
{
    return row->map == map && opcode >= row->opcode && opcode < row->opcode + x86_row_span(row);
}

/* Higher is tried earlier. */
static int specificity(const struct x86_row *row)
{
    int modrm = row->modrm >= X86_MODRM_B    ? 4
                : row->modrm >= X86_MODRM_R  ? 3
                : row->modrm >= X86_MODRM_G  ? 2
                : row->modrm >= X86_MODRM_RR ? 1
                                             : 0;
    return modrm * 2 + (row->prefix != X86_PFX_ANY);
}

static bool same_key(const struct x86_row *a, const struct x86_row *b)
{
    bool modes_apart = (a->flags & X86_ROW_O64 && b->flags & X86_ROW_I64) ||
                       (a->flags & X86_ROW_I64 && b->flags & X86_ROW_O64);

    return a->prefix == b->prefix && a->modrm == b->modrm && !modes_apart;
}

static unsigned collect(unsigned map, unsigned opcode, unsigned *chain)
{
    unsigned count = 0;

    for (unsigned r = 0; r < x86_rows_count; r++) {
        const struct x86_row *row = &x86_rows[r];
        unsigned at = count;

        if (!covers(row, map, opcode))
            continue;
        for (unsigned i = 0; i < count; i++) {
            const struct x86_row *other = &x86_rows[chain[i]];

            if (same_key(row, other) && row->flags == other->flags) {
                fprintf(stderr, "rows %s and %s clash at map %u opcode %02x\n", row->name,
                        other->name, map, opcode);
                exit(1);
            }
            if ((row->modrm == X86_MODRM_NONE) != (other->modrm == X86_MODRM_NONE)) {
                fprintf(stderr, "rows %s and %s disagree about ModRM at map %u opcode %02x\n",
                        row->name, other->name, map, opcode);
                exit(1);
            }
        }
        if (count == CHAIN_MAX) {
            fprintf(stderr, "too many rows at map %u opcode %02x\n", map, opcode);
            exit(1);
        }
        while (at && specificity(&x86_rows[chain[at - 1]]) < specificity(row)) {
            chain[at] = chain[at - 1];
            at--;
        }
        chain[at] = r;
        count++;
    }
    return count;
}

int main(void)
{
    static unsigned start[X86_MAPS][256];
    unsigned next = 1;

    puts("/* Made by mktables from the .def files. */");
    puts("static const u16 row_chain[] = {\n    NO_ROW,");
    for (unsigned map = 0; map < X86_MAPS; map++) {
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            unsigned chain[CHAIN_MAX];
            unsigned count = collect(map, opcode, chain);

            if (!count)
                continue;
            start[map][opcode] = next;
            printf("    ");
            for (unsigned i = 0; i < count; i++)
                printf("%u, ", chain[i]);
            puts("NO_ROW,");
            next += count + 1;
        }
    }
    puts("};\nstatic const u16 row_start[X86_MAPS][256] = {");
    for (unsigned map = 0; map < X86_MAPS; map++) {
        puts("    {");
        for (unsigned opcode = 0; opcode < 256; opcode++)
            printf("%u,%s", start[map][opcode], opcode % 16 == 15 ? "\n" : " ");
        puts("    },");
    }
    puts("};");
    return 0;
}
