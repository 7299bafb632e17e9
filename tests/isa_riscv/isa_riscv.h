/*
 * The differential harness for RISC-V: a program of many cases, each a few instructions on a state
 * of its own, runs under qemu-riscv64 and on ours, and must leave the same memory. Nothing here
 * knows what an instruction does.
 */
#ifndef TRIODE_TESTS_ISA_RISCV_H
#define TRIODE_TESTS_ISA_RISCV_H

#include <stddef.h>

#include "../isa/engines.h"
#include "base/types.h"
#include "guest/riscv/rows.h"

#define ISA_TEXT 0x10000000ull
#define ISA_TEXT_SIZE 0x200000ull
#define ISA_DATA 0x20000000ull
#define ISA_DATA_SIZE 0x400000ull
#define ISA_BATCH 4000u
#define ISA_MAX_INSNS 12
#define ISA_WINDOW 256u

/* x30 links the program's own calls and x31 points to the case's area: instructions under test read
 * but never write them. */
enum { ISA_LINK = 30, ISA_AREA = 31 };

/* A case's state before, and when the program has run, after. */
struct isa_area {
    u64 x[32], f[32];
    u64 fcsr;
    u64 fault; /* number of the signal that its last faulting instruction raised; it is skipped */
    u8 data[ISA_WINDOW];
};

struct isa_case {
    unsigned count;
    u32 word[2 * ISA_MAX_INSNS]; /* short forms are followed by C.NOP */
    const u32 *text;             /* of a sequence, instead of word */
    struct isa_area in;
};

/* Room for each case's words: 2 * ISA_MAX_INSNS, or more for sequences. */
extern unsigned isa_words;

/* A part of a sequence that stays together. */
enum isa_form {
    ISA_FORM_NONE,
    ISA_FORM_BRANCH,
    ISA_FORM_LOOP,
    ISA_FORM_JAL,
    ISA_FORM_JALR,
    ISA_FORM_STORE
};
struct isa_item {
    u32 word[5];
    u8 count;
    u8 form;         /* enum isa_form: how its words say where @target is */
    bool off;        /* left out */
    unsigned target; /* an item's number */
    unsigned group;  /* not 0: left out with all others that have it */
};

#define ISA_ITEMS 2100u /* of a sequence */
#define ISA_TEXT_WORDS 4096u
struct isa_sequence {
    struct isa_case c;
    unsigned count, patched; /* an item that is overwritten: 0 none */
    struct isa_item items[ISA_ITEMS];
    u32 text[ISA_TEXT_WORDS];
};

static inline u64 isa_area_address(unsigned number)
{
    return ISA_DATA + number * sizeof(struct isa_area);
}

/* The first instruction under test; between cases lie 12 bytes of the program's before and 4
 * behind. */
static inline u64 isa_case_pc(unsigned number)
{
    return ISA_TEXT + 0x800 + number * (isa_words * 4 + 16ull);
}

/* generate.c */
void isa_seed(u64 seed);
u32 isa_random(u32 below);
/* Only instructions whose row's name begins with @only, if it is not NULL. @illegal: of random
 * words those that our decoder refuses, too. */
void isa_generate(struct isa_case *c, unsigned number, const char *only, bool illegal);

/* What generate.c has for sequences. */
enum isa_kind { ISA_PLAIN, ISA_MEMORY, ISA_ATOMIC, ISA_JUMP, ISA_INDIRECT };
enum isa_kind isa_kind(const struct riscv_row *row);
bool isa_writes_integer(const struct riscv_row *row);
u32 isa_random_word(const struct riscv_row *row);
u32 isa_place_immediate(const struct riscv_row *row, u64 value);
void isa_random_state(struct isa_area *a);

/* sequence.c: about @length instructions, at most ISA_ITEMS - 100; false if they came out too
 * long. */
bool isa_generate_sequence(struct isa_sequence *s, unsigned number, unsigned length);
/* Writes @s->text, again after items were left out. */
bool isa_assemble(struct isa_sequence *s);

/* program.c: the memory image that runs the cases. */
struct isa_program {
    u32 text[ISA_TEXT_SIZE / 4];
    unsigned words;
    u8 data[ISA_DATA_SIZE];
    size_t data_bytes, results_bytes;
    u64 entry;
};
void isa_make_program(struct isa_program *p, const struct isa_case *cases, unsigned count);
/* As a static ELF executable. 0 or -1. */
int isa_write_elf(const struct isa_program *p, int fd);

/* oracle.c: runs the program under qemu-riscv64. 0, -1, or 1: there is none. */
int isa_oracle(const struct isa_program *p, struct isa_area *results);

/* emulate.c. With @dump each stage of what is translated goes to stderr. */
struct isa_emulator;
struct isa_emulator *isa_emulator_create(enum isa_engine engine, bool dump);
void isa_emulator_destroy(struct isa_emulator *e);
/* 0 or -1 with a word on stderr. */
int isa_emulate(struct isa_emulator *e, const struct isa_program *p, struct isa_area *results);
/* Lists the code from @pc on, of @bytes. */
void isa_dump(const struct isa_program *p, u64 pc, unsigned bytes);

#endif
