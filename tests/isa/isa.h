/*
 * The differential harness: the same few instructions on the host's own CPU and on ours, from the
 * same random state, must leave the same state. Nothing here knows what an instruction does.
 */
#ifndef TRIODE_TESTS_ISA_H
#define TRIODE_TESTS_ISA_H

#include <string.h>

#include "base/types.h"
#include "engines.h"
#include "guest/x86/rows.h"

/* Where code and data lie, the same in both worlds: below 4 GiB, for 32-bit code too. */
#define ISA_CODE 0x10000000ull
#define ISA_SLOT 64u /* bytes of code a case, filled up with INT3 */
#define ISA_BATCH 1024u
#define ISA_DATA 0x10800000ull /* readable and writable, nothing around it */
#define ISA_WRITABLE 8192u     /* the two pages of it that can be written, */
#define ISA_DATA_SIZE 12288u   /* and one behind them that can only be read */
/* 16-bit code cannot run behind this offset: within the last slot, so that instructions straddle
 * it. */
#define ISA_CODE16_LIMIT (ISA_BATCH * ISA_SLOT - ISA_SLOT + 4)
#define ISA_CODE_SIZE 0x100000u
#define ISA_LONG_SLOT 16384u /* at most, for a sequence */
#define ISA_LONG_BATCH 16u
#define ISA_ITEMS 2100u /* of a sequence */
#define ISA_FX 416u     /* bytes of an FXSAVE image up to the last XMM register */

struct isa_state {
    u64 gpr[16]; /* numbered as instructions do */
    u64 rip, rflags;
    u8 fx[ISA_FX];
};

struct isa_case {
    const struct x86_row *row;
    unsigned bits; /* 16, 32, 64 */
    u8 code[ISA_SLOT];
    const u8 *text;                /* of a sequence, instead of code: */
    unsigned text_size, text_slot; /* bytes used, and with INT3s behind them */
    struct isa_state in;
    u64 patch_at, patch; /* eight bytes of memory beside the common pattern */
    u64 undefined;       /* flags not compared, */
    u64 fault_undefined; /* and those when it ends in an exception */
    u16 x87_undefined;   /* bits of the x87 status word not compared */
    /* Memory not compared, and whether of a fault's address only the page is. */
    u64 ignored_at;
    unsigned ignored_bytes;
    bool fault_page_only;
};

/* Copies the case's code to where @area stands for ISA_CODE. */
static inline void isa_place(const struct isa_case *c, u8 *area)
{
    u64 at = c->in.rip + (c->bits == 16 ? ISA_CODE : 0) - ISA_CODE;

    memcpy(area + at, c->text ? c->text : c->code, c->text ? c->text_slot : ISA_SLOT);
}

/* A part of a sequence that stays together. */
struct isa_item {
    u8 code[32];
    u8 length;
    /* A branch, or a store into the code: where its displacement is (0: nowhere), and what that is
     * relative to (0: nothing, it is an address). */
    u8 displacement, displaced_from;
    bool off;        /* left out */
    unsigned target; /* an item's number */
    unsigned group;  /* not 0: left out with all others that have it */
};

struct isa_sequence {
    struct isa_case c;
    unsigned count, patched; /* an item that is overwritten: 0 none */
    struct isa_item items[ISA_ITEMS];
    u8 text[ISA_LONG_SLOT];
};

struct isa_result {
    bool died; /* no state: the instruction hung or killed its process */
    struct isa_state out;
    u8 vector;
    u32 error;    /* its error code, if it has one */
    u64 address;  /* #PF */
    bool changed; /* memory: @data is what was written to, else all is as it was */
    u8 data[ISA_WRITABLE];
};

static inline u64 isa_slot(unsigned number)
{
    return ISA_CODE + number * ISA_SLOT;
}

/* 16-bit code runs in segments: code from ISA_CODE, data and stack from ISA_DATA, limits as large
 * as those areas. In the others offsets are addresses. */
static inline u64 isa_code_base(const struct isa_case *c)
{
    return c->bits == 16 ? ISA_CODE : 0;
}

static inline u64 isa_data_base(const struct isa_case *c)
{
    return c->bits == 16 ? ISA_DATA : 0;
}

/* Contents of the data area before each case, the patch aside. */
extern u8 isa_pattern[ISA_DATA_SIZE];

/* generate.c: a random case for @row; false if this draw makes no sense (try again). */
void isa_seed(u64 seed);
u32 isa_random(u32 below);
bool isa_generate(struct isa_case *c, const struct x86_row *row, unsigned bits, unsigned number);
void isa_make_pattern(void);
void isa_random_state(struct isa_state *s, unsigned bits);
u8 isa_random_modrm(const struct x86_row *row);
bool isa_named(const struct x86_row *row, const char *const *names);
/* Whether it leaves arithmetic flags undefined. */
bool isa_leaves_flags(const struct x86_row *row);
/* Rows whose instructions can be compared: not those of the system. */
bool isa_testable(const struct x86_row *row);

/* sequence.c: about @length instructions, at most ISA_ITEMS - 100, at @slot bytes for each number;
 * false if they came out too long. */
bool isa_generate_sequence(struct isa_sequence *s, unsigned bits, unsigned length, unsigned slot,
                           unsigned number);
/* Writes @s->text, again after items were left out. */
bool isa_assemble(struct isa_sequence *s);

/* The writable part of memory before the case. */
static inline void isa_initial_data(const struct isa_case *c, u8 data[ISA_WRITABLE])
{
    memcpy(data, isa_pattern, ISA_WRITABLE);
    if (c->patch_at)
        memcpy(data + (c->patch_at - ISA_DATA), &c->patch, 8);
}

/* What both worlds do after a case, which began with isa_initial_data in @data: notes what memory
 * became, and makes it the pattern again. */
void isa_note_data(const struct isa_case *c, u8 *data, struct isa_result *r);

/* native.c: runs cases on the host CPU in a child process. The results hold until the next run. */
struct isa_native;
struct isa_native *isa_native_create(void);
const struct isa_result *isa_native_run(struct isa_native *native, const struct isa_case *cases,
                                        unsigned count);
void isa_native_destroy(struct isa_native *native);

/* emulate.c: runs them on ours. With @dump each stage of what is translated goes to stderr. */
struct isa_emulator;
struct isa_emulator *isa_emulator_create(enum isa_engine engine, bool dump);
void isa_emulate(struct isa_emulator *emulator, const struct isa_case *cases, unsigned count,
                 struct isa_result *results);
u64 isa_emulator_regions(struct isa_emulator *emulator); /* compiled so far */
void isa_emulator_destroy(struct isa_emulator *emulator);

/* compare.c */
bool isa_same(const struct isa_case *c, const struct isa_result *host,
              const struct isa_result *ours);
void isa_print_code(const struct isa_case *c);
void isa_print_difference(const struct isa_case *c, const struct isa_result *host,
                          const struct isa_result *ours);

/* regressions.c: a case and isa_pattern as a text file, with @comment as its first lines. False
 * with a word on stderr. A loaded case's text is allocated. */
bool isa_save(const struct isa_case *c, const char *path, const char *comment);
bool isa_load(struct isa_case *c, const char *path);

#endif
