/* The parts of dbt to each other. */
#ifndef TRIODE_DBT_INTERNAL_H
#define TRIODE_DBT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "dbt/dbt.h"
#include "host/host.h"
#include "opt/opt.h"

#define DBT_MAX_CPUS 256
#define DBT_CHUNK (256 * KiB)         /* of the code cache, handed to one vCPU at a time */
#define DBT_CHUNK_HOT (104 * KiB)     /* its first part: code that runs often */
#define DBT_THUNKS (64 * KiB)         /* at the start of the cache */
#define DBT_MAX_BLOCK_CODE (48 * KiB) /* a step area for each CPU fits before the first chunk */
#define DBT_MAX_INSNS 64              /* guest instructions a block */
#define DBT_INSN_BYTES 16             /* longest instruction of any guest, rounded up */
#define DBT_HOT 4096                  /* jumps back until a loop is compiled as a region */
#define DBT_CHUNK_BLOCKS (144 * KiB)  /* memory for a chunk's struct block */
#define DBT_CHUNK_COUNTERS 512        /* of jumps back in a chunk */
#define DBT_BLOCK_JUMPS 3             /* jump cache entries a block remembers */
#define DBT_MAX_UNITS 100000          /* kept by the interpreter */
#define DBT_HASH_BITS 18              /* large programs have some 100,000 blocks */
#define DBT_JUMP_BITS 14
#define DBT_SPACES 12 /* address spaces a vCPU remembers */
#define DBT_PRIVS 4
#define DBT_PRIV_IMPLICIT 1 /* the class of supervisor accesses under the strictest rules */
#define DBT_PRIV_USER 0     /* the class that shares no code with other spaces */
#define DBT_FETCH_ENTRIES 256
#define DBT_FILTER_BITS (1u << 16)
#define DBT_NO_PAGE (~0ull)

/* A direct jump out of @from that is patched to enter the block whose incoming list it is on. */
struct dbt_link {
    struct host_link host;
    struct block *from;
    struct block *to;      /* NULL while not chained */
    struct dbt_link *next; /* on to->incoming */
};

struct block {
    /* What block_find looks at comes first: mostly one cache line, and mostly not in the cache. */
    u64 gpa;
    u64 page2; /* second page's gpa, or DBT_NO_PAGE */
    u32 mode;
    atomic_bool dead;
    struct block *_Atomic hash_next;
    u8 *code;       /* executable address */
    bool checked;   /* begins with a look whether its guest code is as it was */
    bool region;    /* compiled from several blocks, in direct mode of any two pages */
    bool no_region; /* jumps back here need not be counted */
    bool watched;   /* a region was wanted here, and where indirect jumps lead was noted then */
    u32 length;     /* guest bytes */
    u32 guest_insns;
    u64 granules[2]; /* the 64-byte pieces of its pages that hold its guest code */
    u32 hot_bytes;   /* of code from its start */
    u32 cold;        /* distance from the start to code that runs seldom, */
    u32 insn_bytes;  /* to its end, where the sites are, */
    u32 code_bytes;  /* and to their end */
    u8 *code_rw;
    struct ir_unit *unit; /* without jit: what is interpreted */
    struct dbt_link *links;
    u32 nlinks;
    struct dbt_link *incoming;
    struct block *page_next[2]; /* on the lists of its one or two code pages */
    /* Jump cache entries that lead here: as jump_name has them. More than fit: all caches are
     * dropped when the block goes. */
    atomic_uint njumps;
    u32 jumps[DBT_BLOCK_JUMPS];
};

/*
 * What is known of a page, in its byte of the code map. Without any bit: no code was made from it.
 * Direct mode alone has more than CODE_WATCHED: there seeing a store means a fault of the host, and
 * when a page has had CODE_MAX_FAULTS of them, it stays writable, and blocks made from it check
 * themselves. When a loop in it has become hot and no check has failed for as long, it is watched
 * again, CODE_MAX_RETURNS times.
 */
enum {
    CODE_WATCHED = 1 << 0, /* stores are seen */
    CODE_CHECKED = 1 << 1, /* they are not: blocks check themselves */
    CODE_STALE = 1 << 2,   /* since a hot loop asked last, a check failed */
    CODE_SHARED = 1 << 3,  /* it cannot be watched */
    CODE_FAULT = 1 << 4,   /* counts in two bits */
    CODE_FAULTS = 3 << 4,
    CODE_RETURN = 1 << 6, /* counts in two bits */
    CODE_RETURNS = 3 << 6,
};

/* A guest page that translated code was made from. */
struct code_page {
    u64 gpa;
    u64 granules; /* bit n: bytes 64n..64n+63 may hold translated instructions */
    struct block *blocks;
    unsigned idle;        /* stores since it had a block */
    unsigned overwritten; /* stores that took blocks since it had a new one */
    struct code_page *hash_next;
};

struct chunk_part {
    u32 used, populated; /* bytes; the latter have host memory and page table entries */
};

/*
 * A piece of the code cache, and what belongs to its blocks. One vCPU fills it, without a lock;
 * when it is full and its last published block has died, it can be used again.
 */
struct chunk {
    struct chunk_part hot, cold;
    u8 *memory;   /* DBT_CHUNK_BLOCKS: blocks from the start, pointers to them from the end */
    u32 used;     /* bytes of it, by blocks */
    u32 counters; /* used */
    atomic_uint nblocks;              /* in address order, which is the same in both parts */
    u32 live;                         /* those that are published; under lock */
    enum chunk_state {                /* under lock */
                       CHUNK_FREE,    /* it has room, and is on the list or was never used */
                       CHUNK_FILLING, /* a vCPU has it */
                       CHUNK_FULL,
    } state;
    struct chunk *next; /* free one */
};

/* So often did the jump at @from lead to @to: addresses by which blocks are known, guest-physical
 * ones or in direct mode virtual ones. */
struct jump_note {
    u64 from, to;
    u32 mode, count;
};
#define INDIRECT_TARGETS 8 /* of a jump that are noted */

struct fetch_entry {
    u64 gva; /* page */
    u64 gpa; /* page */
    u32 space, mode;
};

struct space {
    u64 key, tag;
    u32 id; /* cpu->space: changes when translations of it are dropped */
    u64 last_used;
    bool valid;
    struct tlb *tlb[DBT_PRIVS];
};

/* A vCPU's part. */
struct dbt_cpu {
    struct dbt *dbt;
    struct guest_cpu *cpu;
    struct space spaces[DBT_SPACES];
    struct space *current;
    unsigned priv;
    u32 next_space_id;
    u64 use_clock;
    /* Supervisor code is the same in all spaces (of space_tag 0) as long as it runs from global
     * pages: then it has one tag, whatever space is current, and the second jump cache alone. */
    _Alignas(64) struct host_jump jumps[2][1u << DBT_JUMP_BITS];
    struct host_jump_more jump_more[2][1u << DBT_JUMP_BITS]; /* what belongs to jumps[] */
    u32 shared_id;
    bool private_code; /* it ran from another page since the last flush of all */
    _Alignas(64) struct host_jump
        no_jumps[1u << DBT_JUMP_BITS]; /* never hits: for single instructions */
    atomic_bool drop_jumps; /* some entry of jumps[] may lead to a dead block: nobody knows which */
    struct fetch_entry fetch[DBT_FETCH_ENTRIES];
    /* Pages that jumps[] or fetch[] may speak of: two bits for each, by hash. Large enough that the
     * pages flushed one by one, of data mostly, are seldom taken for them. */
    u64 code_filter[DBT_FILTER_BITS / 64];
    struct chunk *chunk;
    struct arena arena; /* for one translation */
    u8 *step_rw;        /* where single instructions are compiled, never kept */
    u64 step_exec;
    struct block *running;      /* interpreter: the block being run */
    struct host_code step_code; /* direct mode: what is at step_exec, */
    struct block step_block;    /* and its guest bytes */
    atomic_bool translating; /* in translate_lookup or translate_step: a fault is not the guest's */
    u32 stolen_requests;     /* kept from the single instruction that is being run */
    struct jump_note *notes; /* NULL before they are wanted */
    u32 watching;            /* so many indirect jumps are still to be noted */
    u64 jumped_from;         /* in translate_missed: address of the indirect jump */
    bool stepping;           /* a single instruction is being run: the jump cache is off */
    bool smc_step;           /* the next instruction overwrites its own block: run it alone */
    atomic_bool in_guest;
    u64 lookups;
};

struct dbt {
    struct dbt_config config;
    struct host_abi abi;
    u64 (*enter)(void *state, void *code, u64 base);
    int code_fd;
    u8 *code_rw, *code_exec;
    u64 code_size;
    struct chunk *chunks;
    u32 nchunks, first_chunk; /* below first_chunk: thunks and step areas */
    u32 next_chunk;           /* from here on they have never been used */
    struct chunk *free_chunks;
    u32 dead_chunks; /* full ones that lost their last live block since they were looked for */
    u8 *block_memory;
    u64 generation; /* grows when code goes for good; all CPUs stand still then */

    pthread_mutex_t lock; /* blocks, pages, links, chunks */
    struct block *_Atomic *hash;
    struct code_page **pages;
    s32 *counters;          /* DBT_CHUNK_COUNTERS for each chunk; NULL: no regions */
    struct arena units;     /* without jit: blocks and what is interpreted, */
    atomic_uint kept_units; /* so many since the last flush, so that memory has a bound */

    pthread_mutex_t cpus_lock;
    pthread_cond_t cpus_cond;
    struct dbt_cpu *cpus[DBT_MAX_CPUS];
    atomic_uint exclusive; /* how many want or hold the machine standing still */
    bool exclusive_held;

    u8 *_Atomic *code_map; /* direct mode: page_protect's bytes, in leaves by address */
    int fork_fd;           /* the child's code cache, between fork_prepare and its end */

    bool must_leave;        /* a block went that vCPUs may still run, or find; under lock */
    struct dbt_stats stats; /* under lock */
};

static inline struct dbt_cpu *dbt_cpu(struct guest_cpu *cpu)
{
    return (struct dbt_cpu *)cpu->dbt;
}

/* cache.c: the code cache, one memfd mapped twice: writable and executable. */
int cache_create(struct dbt *dbt, struct err *err);
void cache_destroy(struct dbt *dbt);
/* Room of DBT_MAX_BLOCK_CODE, and as much abi.cold bytes further. */
struct cache_room {
    u8 *rw;
    u64 exec;
    struct host_abi abi; /* the host's view for a unit that is compiled into it */
};
/* In the CPU's chunk, or a new one; -ENOSPC when cache_make_room is due. Lock not held. */
int cache_reserve(struct dbt_cpu *dc, struct cache_room *room);
/* Keeps @code, which was compiled into @room: a block that says where it is and nothing else. */
struct block *cache_keep(struct dbt_cpu *dc, const struct cache_room *room,
                         const struct host_code *code);
/* @block can be found from now on, or no more. Lock held. */
void cache_published(struct dbt *dbt, struct block *block);
void cache_retired(struct dbt *dbt, struct block *block);
/* By the code's address, dead ones too. Lock held. */
struct block *cache_find(struct dbt *dbt, u64 exec_addr);
/* What the counter of a jump back begins with. */
s32 cache_first_count(const struct dbt *dbt);
/* The CPU goes: another may go on filling its chunk. */
void cache_leave(struct dbt_cpu *dc);
/* Frees the chunks whose blocks are all dead; if that is not enough, forgets all translations. All
 * CPUs stand still. */
void cache_make_room(struct dbt *dbt);
/* The block whose code the vCPU is in: as noted without jit; else that which called for a slow path
 * or helper. NULL outside guest code, and for single instructions. */
struct block *cache_running(struct dbt_cpu *dc);
/* Forgets all translations; all CPUs stand still. */
void cache_flush(struct dbt *dbt);

/* block.c */
struct block *block_find(struct dbt *dbt, u64 gpa, u32 mode, u64 page2);
/* A block at @gpa that goes on in some second page, or NULL. */
struct block *block_find_two_pages(struct dbt *dbt, u64 gpa, u32 mode);
/* Publishes @block, made from the bytes @code. If another CPU was faster, answers its block; NULL
 * if memory no longer holds these bytes: translate again, unless *@ret says -ENOMEM. */
struct block *block_insert(struct dbt *dbt, struct block *block, const u8 *code, int *ret);
void block_chain(struct dbt *dbt, u64 patch_addr, struct block *to);
/* Has the jump at @patch_addr been taken so often that a region is due? */
bool block_jump_is_hot(struct dbt *dbt, u64 patch_addr);
/* It is to be counted anew. */
void block_jump_again(struct dbt *dbt, u64 patch_addr);
/* Publishes region @block in the place of @head, if @unchanged says yes with the lock held. */
bool block_replace(struct dbt *dbt, struct block *head, struct block *block,
                   bool (*unchanged)(void *opaque), void *opaque);
/* Entry @index of dc->jumps[@table], or the one beside it, is about to lead to @block. */
void block_remember_jump(struct block *block, struct dbt_cpu *dc, unsigned table, u32 index);
void block_invalidate(struct dbt *dbt, struct block *block); /* lock held */

/* page.c */
/* From here on, stores to the page are seen: before its bytes are read for translation. */
void page_protect(struct dbt *dbt, u64 gpa);
/* The same with the lock held, which direct mode wants. */
void page_protect_locked(struct dbt *dbt, u64 gpa);
/* Granules of the page that [gpa, gpa+len), within a page, touches. */
u64 page_granules(u64 gpa, u64 len);
/* False: no memory, and nobody could tell @block that its code changed. Lock held. */
bool page_add_block(struct dbt *dbt, struct block *block);
void page_remove_block(struct dbt *dbt, struct block *block); /* lock held */
/* Direct mode: must blocks made from the page check themselves? Any thread, without the lock. */
bool page_is_checked(struct dbt *dbt, u64 page);
/* Is a change of the code of @block seen, by the page or by the block? Lock held, pages
 * protected. */
bool page_watches(struct dbt *dbt, const struct block *block);
/* A store met the protection of a page: its blocks go, and the page may be written. False: it was
 * not protected, or not any more. */
bool page_fault(struct dbt *dbt, u64 page);
/* @block found that its code changed. */
void page_stale(struct dbt *dbt, struct block *block);
/* A loop that begins with @block, which checks itself, is hot. True: its page is watched from now
 * on, and its blocks have gone. */
bool page_settle(struct dbt *dbt, struct block *block);
/* Does a store to [gpa, gpa+len), within a page, change code of @block? */
bool page_touches(const struct block *block, u64 gpa, u64 len);
/* [gpa, gpa+len), within a page, was written: the blocks made from it go. False: there were
 * none. */
bool page_written(struct dbt *dbt, u64 gpa, u64 len);
/* All blocks made from pages that [first, last] touches go; the pages may be written then. False:
 * there was no such page. */
bool page_drop_range(struct dbt *dbt, u64 first, u64 last);
void pages_free(struct dbt *dbt);

/* tlb.c */
void tlb_switch_space(struct guest_cpu *cpu, u64 key, unsigned priv);
void tlb_flush_page(struct guest_cpu *cpu, u64 gva);
void tlb_flush_all(struct guest_cpu *cpu);
void tlb_flush_space(struct guest_cpu *cpu, u64 key, bool keep_global);
void tlb_flush_tags(struct guest_cpu *cpu, u64 mask, u64 value);
void tlb_drop_jumps(struct dbt_cpu *dc);
/* Supervisor code runs from a page that is not global. */
void tlb_private_code(struct dbt_cpu *dc);
/* Makes the CPU use what belongs to its space and privilege class. */
void tlb_choose_jumps(struct dbt_cpu *dc);
/* Which of dc->jumps the current space and privilege class use. */
unsigned tlb_jumps(const struct dbt_cpu *dc);
void tlb_note_code(struct dbt_cpu *dc, u64 gva);
void tlb_revoke_write(struct dbt_cpu *dc, u64 gpa);
void tlb_free(struct dbt_cpu *dc);
struct tlb *tlb_of_priv(struct dbt_cpu *dc, unsigned priv);

/* What a slow access found: host memory, or (hva NULL) an address outside RAM. */
struct slow_page {
    u8 *hva; /* of the first byte */
    u64 gpa;
    bool code; /* a write must go through page_written */
    const struct mem_slot *slot;
};
/* Translates for [gva, gva+bytes) within one page and fills the TLB. May leave. */
struct slow_page tlb_slow(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit);

/* access.c: struct guest_memory and the site callback. */
extern const struct guest_memory dbt_memory; /* installed by dbt_attach */
u64 access_site(void *state, struct host_frame *frame, const struct host_site *site);
/* A host atomic on host memory; answers the old value. */
u64 access_atomic_on(void *hva, enum ir_op op, unsigned bytes, u64 operand, u64 desired);

/* translate.c: the block for the next instruction; may leave with a guest exception. NULL:
 * *exit_code says why not. */
struct block *translate_lookup(struct guest_cpu *cpu, u32 *exit_code);
/* One instruction (or insn_limit), not kept: its code is at dc->step_exec, or *unit without jit. */
u32 translate_step(struct guest_cpu *cpu, struct ir_unit *unit);
void *translate_missed(void *state, u64 link, u64 from);
/* Prints a stage, if that was asked for. */
void translate_dump_unit(const struct dbt *dbt, u64 pc, u32 stage, const char *title,
                         const struct ir_unit *unit);
void translate_dump_host(const struct dbt *dbt, u64 pc, const u8 *rw, u64 exec,
                         const struct host_code *code);

/* region.c: a region around the loop that begins at @head, where the CPU is about to go on; NULL if
 * there is none to be had; *later if just not now, for want of room. */
struct block *region_translate(struct guest_cpu *cpu, struct block *head, bool *later);

/* indirect.c: where indirect jumps lead. */
/* Notes the next ones, for a region that is to begin at @block. */
void indirect_watch(struct dbt_cpu *dc, struct block *block);
/* The jump of the instruction at virtual address @from, in the current page in system mode or else
 * not of interest, is about to go on in @to. */
void indirect_note(struct dbt_cpu *dc, u64 from, const struct block *to);
/* Where the jump at @from leads, most often first; answers how many. */
u32 indirect_targets(const struct dbt_cpu *dc, u64 from, struct jump_note to[INDIRECT_TARGETS]);
/* Did they lead to @block again and again? */
bool indirect_leads_to(const struct dbt_cpu *dc, const struct block *block);

/* direct.c: guest memory that is the host's. */
extern const struct guest_memory direct_memory;
/* The byte of @page's in the code map; NULL without memory for it. Lock held. */
u8 *direct_code_byte(struct dbt *dbt, u64 page);
/* What it holds; 0 if it is not there. Any thread. */
u8 direct_code_state(const struct dbt *dbt, u64 page);
/* Copies guest bytes; -EFAULT if they cannot be read. */
int direct_read(const struct dbt *dbt, u64 gva, void *buf, size_t len);
int direct_create(struct dbt *dbt);
void direct_free(struct dbt *dbt);

/* exclusive.c */
void exclusive_enter_guest(struct dbt_cpu *dc); /* waits while somebody holds the machine */
void exclusive_leave_guest(struct dbt_cpu *dc);
void exclusive_begin(struct dbt *dbt, struct dbt_cpu *self); /* self NULL: not a vCPU thread */
void exclusive_end(struct dbt *dbt, struct dbt_cpu *self);

#endif
