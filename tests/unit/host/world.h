/*
 * A guest without a guest: state with the fields a host_abi names, a few pages of memory behind a
 * real soft TLB, a small code cache; and the same for the interpreter, to compare with.
 */
#ifndef TRIODE_TESTS_HOST_WORLD_H
#define TRIODE_TESTS_HOST_WORLD_H

#include "../unit.h"

#include "../../ir/random.h"
#include "host/host.h"

#define WORLD_BASE 0x400000ull /* value of the base op */
#define WORLD_MEMORY 0x7000000000ull
#define WORLD_FIRST_PAGE (WORLD_MEMORY - 4096)
#define WORLD_PAGES 3
#define WORLD_TLB_BITS 6
#define WORLD_TLB_WAYS 3
#define WORLD_JUMP_BITS 12
#define WORLD_SLOTS 256 /* offset of guest registers in the state */
#define WORLD_CODE_BYTES (1 << 20)

enum { WORLD_TRAPPED = 99 }; /* what host_enter answers when the site callback left */

struct world_tlb_entry {
    u64 read_tag, write_tag, addend, unused;
};

struct world {
    u32 request, exit_code, space, mode;
    struct world_tlb_entry *tlb;
    struct host_jump *jumps;
    u64 insns;
    u32 far_mode; /* a mode that is not beside the space */
    s32 tlb_patience;
    u8 pad[WORLD_SLOTS - 48];
    _Alignas(16) u8 slots[RANDOM_STATE_BYTES];
    /* Not known to emitted code. */
    jmp_buf *leave;
    unsigned accesses, trap_at; /* the access of this number traps; 0: none */
    unsigned sites;             /* calls of the site callback */
    bool fill_tlb;              /* slow accesses make the next one hit */
    u64 missed, missed_link;    /* calls of the missed callback, its last link */
    u64 missed_from;            /* and instruction */
    void *(*on_miss)(struct world *w, u64 link);
    u64 last_addr; /* of the last slow access */
    u8 *memory;    /* WORLD_PAGES pages */
    struct world_tlb_entry entries[WORLD_TLB_WAYS][1 << WORLD_TLB_BITS];
    struct host_jump jump_entries[1 << WORLD_JUMP_BITS];
};

struct jit {
    u8 *rw, *exec;
    size_t used;
    struct host_abi abi;
    u64 (*enter)(void *state, void *code, u64 base);
};

void jit_init(struct jit *jit, enum host_memory memory, struct world *w);
void jit_free(struct jit *jit);

/* Compiles behind what is there; answers the executable address. */
void *jit_compile(struct jit *jit, const struct ir_unit *unit, struct host_code *code);

struct world *world_new(void);
void world_free(struct world *w);
/* Slots and memory filled from @seed, everything else as new. */
void world_reset(struct world *w, u64 seed);

struct world_result {
    bool trapped;
    u32 exit_code; /* 0 for goto */
    u32 mxcsr;     /* sticky flags */
};
struct world_result world_interpret(struct world *w, const struct ir_unit *unit);
struct world_result world_run(struct world *w, struct jit *jit, void *code);

#endif
