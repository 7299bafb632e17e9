/*
 * Cases kept as files: one keyword and its numbers, all hexadecimal, a line; what is not there is
 * 0.
 *
 *     # comment
 *     bits 64
 *     rip 10000000
 *     code 48 89 c8 cc
 *     gpr NUMBER VALUE
 *     rflags VALUE
 *     fx OFFSET BYTES       of the FXSAVE image
 *     data OFFSET BYTES     of the data area
 *     undefined FLAGS       not compared; likewise fault-undefined, x87-undefined, ignored,
 *     fault-page
 */
#include "isa.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE_BYTES = 32 };

static bool any(const u8 *bytes, unsigned n)
{
    while (n--)
        if (*bytes++)
            return true;
    return false;
}

static void write_bytes(FILE *f, const char *keyword, bool offsets, const u8 *bytes, unsigned size)
{
    for (unsigned at = 0; at < size; at += LINE_BYTES) {
        unsigned n = size - at < LINE_BYTES ? size - at : LINE_BYTES;

        if (offsets && !any(bytes + at, n))
            continue;
        fprintf(f, "%s", keyword);
        if (offsets)
            fprintf(f, " %x", at);
        for (unsigned i = 0; i < n; i++)
            fprintf(f, " %02x", bytes[at + i]);
        fputc('\n', f);
    }
}

static void write_number(FILE *f, const char *keyword, u64 value)
{
    if (value)
        fprintf(f, "%s %" PRIx64 "\n", keyword, value);
}

static void write_case(FILE *f, const struct isa_case *c)
{
    u8 data[ISA_DATA_SIZE];
    unsigned size = c->text ? c->text_size : ISA_SLOT;
    const u8 *code = c->text ? c->text : c->code;

    while (size > 1 && code[size - 1] == 0xcc)
        size--;
    fprintf(f, "bits %x\nrip %" PRIx64 "\n", c->bits, c->in.rip);
    write_bytes(f, "code", false, code, size);
    for (unsigned i = 0; i < 16; i++)
        if (c->in.gpr[i])
            fprintf(f, "gpr %x %" PRIx64 "\n", i, c->in.gpr[i]);
    write_number(f, "rflags", c->in.rflags);
    write_bytes(f, "fx", true, c->in.fx, ISA_FX);
    memcpy(data, isa_pattern, sizeof(data));
    if (c->patch_at)
        memcpy(data + (c->patch_at - ISA_DATA), &c->patch, 8);
    write_bytes(f, "data", true, data, sizeof(data));
    write_number(f, "undefined", c->undefined);
    write_number(f, "fault-undefined", c->fault_undefined);
    write_number(f, "x87-undefined", c->x87_undefined);
    write_number(f, "fault-page", c->fault_page_only);
    if (c->ignored_bytes)
        fprintf(f, "ignored %" PRIx64 " %x\n", c->ignored_at, c->ignored_bytes);
}

bool isa_save(const struct isa_case *c, const char *path, const char *comment)
{
    FILE *f = fopen(path, "w");

    if (!f) {
        perror(path);
        return false;
    }
    fprintf(f, "# %s\n", comment);
    write_case(f, c);
    return !fclose(f);
}

/* The numbers behind a keyword. */
static unsigned read_numbers(const char *text, u64 *numbers, unsigned max)
{
    unsigned n = 0;
    char *end;

    for (;; text = end) {
        u64 v = strtoull(text, &end, 16);

        if (end == text || n == max)
            break;
        numbers[n++] = v;
    }
    while (isspace((unsigned char)*text))
        text++;
    return *text ? max + 1 : n;
}

static bool put_bytes(u8 *to, unsigned size, u64 offset, const u64 *numbers, unsigned n)
{
    if (offset > size || n > size - offset)
        return false;
    for (unsigned i = 0; i < n; i++)
        to[offset + i] = (u8)numbers[i];
    return true;
}

static bool read_line(struct isa_case *c, u8 *text, const char *keyword, const u64 *v, unsigned n)
{
    const struct {
        const char *name;
        u64 *at;
    } single[] = {{"rip", &c->in.rip},
                  {"rflags", &c->in.rflags},
                  {"undefined", &c->undefined},
                  {"fault-undefined", &c->fault_undefined}};

    for (unsigned i = 0; i < ARRAY_SIZE(single); i++) {
        if (!strcmp(keyword, single[i].name)) {
            *single[i].at = v[0];
            return n == 1;
        }
    }
    if (!strcmp(keyword, "bits")) {
        c->bits = (unsigned)v[0];
        return n == 1 && (v[0] == 16 || v[0] == 32 || v[0] == 64);
    }
    if (!strcmp(keyword, "code")) {
        c->text_size += n;
        return n && put_bytes(text, ISA_LONG_SLOT, c->text_size - n, v, n);
    }
    if (!strcmp(keyword, "gpr") && n == 2 && v[0] < 16) {
        c->in.gpr[v[0]] = v[1];
        return true;
    }
    if (!strcmp(keyword, "fx"))
        return n > 1 && put_bytes(c->in.fx, ISA_FX, v[0], v + 1, n - 1);
    if (!strcmp(keyword, "data"))
        return n > 1 && put_bytes(isa_pattern, ISA_DATA_SIZE, v[0], v + 1, n - 1);
    if (!strcmp(keyword, "x87-undefined"))
        c->x87_undefined = (u16)v[0];
    else if (!strcmp(keyword, "fault-page"))
        c->fault_page_only = v[0];
    else if (!strcmp(keyword, "ignored") && n == 2)
        c->ignored_at = v[0], c->ignored_bytes = (unsigned)v[1];
    else
        return false;
    return true;
}

bool isa_load(struct isa_case *c, const char *path)
{
    static const struct x86_row kept = {.name = "kept case", .flags = X86_ROW_SSE};
    u8 *text = malloc(ISA_LONG_SLOT);
    FILE *f = fopen(path, "r");
    char line[256], keyword[24];
    bool good = f && text;
    unsigned number = 0;

    if (!f)
        perror(path);
    memset(c, 0, sizeof(*c));
    memset(isa_pattern, 0, ISA_DATA_SIZE);
    if (text)
        memset(text, 0xcc, ISA_LONG_SLOT);
    while (good && fgets(line, sizeof(line), f)) {
        u64 numbers[LINE_BYTES + 1];
        int at = 0;
        unsigned n;

        number++;
        if (line[0] == '#' || sscanf(line, "%23s%n", keyword, &at) != 1)
            continue;
        n = read_numbers(line + at, numbers, ARRAY_SIZE(numbers));
        good = n && n <= ARRAY_SIZE(numbers) && read_line(c, text, keyword, numbers, n);
        if (!good)
            fprintf(stderr, "%s:%u: not understood\n", path, number);
    }
    if (f)
        fclose(f);
    c->row = &kept;
    c->text = text;
    c->text_slot = ISA_LONG_SLOT;
    if (good && (!c->bits || c->in.rip + (c->bits == 16 ? ISA_CODE : 0) - ISA_CODE >
                                 ISA_CODE_SIZE - ISA_LONG_SLOT)) {
        fprintf(stderr, "%s: no code in the code area\n", path);
        good = false;
    }
    return good;
}
