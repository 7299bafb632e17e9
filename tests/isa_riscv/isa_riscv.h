/*
 * The differential harness for RISC-V: a program of many cases, each a few instructions on a state
 * of its own, runs under qemu-riscv64 and on ours, and must leave the same memory. Nothing here
 * knows what an instruction does.
 */
#ifndef TRIODE_TESTS_ISA_RISCV_H
#define TRIODE_TESTS_ISA_RISCV_H

#include <stddef.h>

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
    struct isa_area in;
};

static inline u64 isa_area_address(unsigned number)
{
    return ISA_DATA + number * sizeof(struct isa_area);
}

/* The first instruction under test; between cases lie 12 bytes of the program's before and 4 behind. */
static inline u64 isa_case_pc(unsigned number)
{
    return ISA_TEXT + 0x800 + number * (2 * ISA_MAX_INSNS * 4 + 16ull);
}

/* generate.c */
void isa_seed(u64 seed);
u32 isa_random(u32 below);
/* Only instructions whose row's name begins with @only, if it is not NULL. @illegal: of random words
 * those that our decoder refuses, too. */
void isa_generate(struct isa_case *c, unsigned number, const char *only, bool illegal);

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

/* emulate.c */
struct isa_emulator;
struct isa_emulator *isa_emulator_create(bool jit);
void isa_emulator_destroy(struct isa_emulator *e);
/* 0 or -1 with a word on stderr. */
int isa_emulate(struct isa_emulator *e, const struct isa_program *p, struct isa_area *results);
/* Prints what becomes of the code from @pc on, of @bytes. */
void isa_dump(const struct isa_program *p, u64 pc, unsigned bytes);

#endif
