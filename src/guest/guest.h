/*
 * The guest contract: what the translator needs of a guest CPU, and the common part of every guest
 * CPU's state. Lifters (guest/x86, ...) implement it; dbt and soft use it.
 */
#ifndef TRIODE_GUEST_H
#define TRIODE_GUEST_H

#include <setjmp.h>

#include "base/err.h"
#include "ir/ir.h"
#include "mem/mem.h"

/*
 * Soft TLB. The translated hit path: index = gva >> 12 & (TLB_ENTRIES - 1); the access's first and
 * last byte must lie in the page of read_tag (loads) or write_tag (stores and atomics); then host
 * address = gva + addend. A tag that must not hit (MMIO, code page, not dirty yet, ...) has bit 0
 * set or is ~0. One struct tlb for each address space and privilege class: switching is changing
 * cpu->tlb, nothing is flushed.
 *
 * Translated code looks in the first way, and where it misses, out of line in the others: pages
 * that share an index by chance would else make a program many times slower. Now and then
 * (tlb_patience) a hit there goes to the slow path, which puts the entry into the first way.
 */
#define TLB_BITS 10
#define TLB_ENTRIES (1u << TLB_BITS)
#define TLB_WAYS 4
#define TLB_PATIENCE 1000

struct tlb_entry {
    u64 read_tag; /* page address, or ~0 */
    u64 write_tag;
    u64 addend; /* hva - gva */
    u64 gpa;    /* page address, with bit 0 set for a global mapping */
};

struct tlb {
    struct tlb_entry entry[TLB_WAYS][TLB_ENTRIES];
    u32 next_way; /* which of the other ways takes the next entry that leaves the first */
    /* Bit n: there may be entries among the nth 64th of the indices, in the first way, in the
     * others. */
    u64 first, others;
    u64 large_first, large_last; /* addresses whose entries came from mappings larger than 4 KiB */
};

enum guest_access { GUEST_READ, GUEST_WRITE, GUEST_FETCH };

/* What a guest's MMU says of a page. */
struct guest_page {
    u64 gpa;       /* page address */
    bool readable; /* a TLB entry may answer reads, */
    bool writable; /* and writes, without asking again (dirty bit set, permission given) */
    u8 page_shift; /* size of the mapping, 12..30, for large-page invalidation */
    bool global;
};

struct guest_ops;
struct guest_memory;

/* Requests: bits of the word that translated code polls. */
enum {
    GUEST_REQ_KICK = 1 << 0,      /* leave vcpu_run */
    GUEST_REQ_EVENT = 1 << 1,     /* interrupt controller has something to say */
    GUEST_REQ_FLUSH_TLB = 1 << 2, /* memslots or dirty logging changed */
    GUEST_REQ_EXCLUSIVE = 1 << 3, /* another vCPU waits for all to stand still */
    GUEST_REQ_DEBUG = 1 << 4,
    GUEST_REQ_JUMPS = 1 << 5, /* blocks were invalidated: drop the jump cache */
    GUEST_REQ_DBT = GUEST_REQ_FLUSH_TLB | GUEST_REQ_EXCLUSIVE | GUEST_REQ_JUMPS, /* dbt's own */
};

/* Common part, first in every guest CPU's state; the state pointer of the IR points here. What
 * translated code uses comes last, beside the guest's registers: there its offsets are short. */
struct guest_cpu {
    u32 insn_limit; /* 1: translate single instructions, do not cache; 0: normal */
    unsigned index; /* vCPU number, also the mem reader number */
    u64 space_tag;  /* with the space key: which second-level translation; 0 none */
    u64 scratch[4]; /* between lifted code and its helpers; not guest state */
    const struct guest_ops *ops;
    const struct guest_memory *memory; /* dbt's services, below */
    struct mem *mem;
    void *dbt;                                  /* dbt's per-vCPU part */
    jmp_buf *leave;                             /* where guest_leave goes: the innermost run loop */
    u64 tlb_hits_slow, tlb_misses, tlb_flushes; /* victim hits, walks, flushes: for --stats */
    u64 host_frame;   /* dbt's: host stack pointer inside translated code; 0 outside */
    u32 exit_code;    /* argument of the last exit / exit_if, or guest_leave */
    s32 tlb_patience; /* hits outside the first way until one goes to the slow path: below 0 */
    u64 insns;        /* guest instructions executed, when counted */
    struct tlb *tlb;  /* of the current address space and privilege class */
    void *jump_cache; /* dbt's: gva -> block, per vCPU */
    u32 space;        /* tag of the current address space for the jump cache */
    u32 mode;         /* block identity beside the gpa: every bit that changes what code means;
                                * behind space, so that the jump cache compares both at once */
    u32 request;      /* atomic or/and */
};

/* Leaves translated code, interpreter or helper, back to the run loop, which sees exit_code. All
 * guest state must be in memory (it is, in helpers declared IR_HELPER_TRAPS). */
static inline NORETURN void guest_leave(struct guest_cpu *cpu, u32 exit_code)
{
    cpu->exit_code = exit_code;
    longjmp(*cpu->leave, 1);
}

/* What dbt asks of a lifter. */
struct guest_lift {
    struct ir_unit *unit; /* in: empty unit to build into */
    u64 pc;               /* in: gva (x86: linear address) of the first instruction; blocks are
                                * shared between mappings, so only its page offset may matter */
    const u8 *code;       /* in: its bytes; */
    u32 avail;            /* in: how many: to the end of the page, or beyond it (two_pages) */
    u32 mode;             /* in: cpu->mode */
    u32 max_insns;        /* in: upper bound on guest instructions */
    bool two_pages;       /* in: the bytes span two pages; lift only the first instruction */
    bool polls;           /* in: the block is to poll, wherever it leads */
    bool chains_pages;    /* in: a jump to an instruction that spans two pages can be chained;
                                * else ir_goto_ind finds it sooner */
    bool fma;             /* in: the IR's fma may be used */
    u32 length;           /* out: bytes of guest code lifted */
};

struct guest_ops {
    const char *name;
    const struct ir_helper *helpers;
    u32 nhelpers;
    u32 pc_slot; /* the slot goto writes: the linear address of the next instruction */
    size_t state_size;
    bool fenced_fetch; /* changed code need not be seen before an instruction that ends a block */

    /* Lifts a block from lift->code. Ends at a control transfer, a change of mode, the page's end
     * or max_insns; always ends with a terminator. When the very first instruction needs more than
     * avail bytes it answers -ERANGE: dbt then fetches the next page and calls again with
     * two_pages. A later instruction that does not fit ends the block before it. Undefined
     * instructions are lifted to code that raises the guest's exception. -ENOMEM. */
    int (*lift)(struct guest_lift *lift);

    /* Linear/virtual address of the next instruction, from state. */
    u64 (*pc)(const struct guest_cpu *cpu);

    /* The instruction at @from went on at pc, of which no translation is at hand: the guest may
     * take it back and raise what jumps to impossible addresses do. May be NULL. */
    void (*jumped)(struct guest_cpu *cpu, u64 from);

    /* Page walk for one address in the current context (@access by the current privilege, or as
     * supervisor if @implicit). Fills @page; on a fault records the guest's exception and leaves by
     * guest_leave, unless @probe, when it answers -EFAULT and changes nothing. May set
     * accessed/dirty bits in guest memory. */
    int (*walk)(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit, bool probe,
                struct guest_page *page);

    /* Loads and stores that are not RAM (or ROM writes): @gpa is outside all memslots. The engine
     * behind it may leave by guest_leave to complete the access later; then, when the instruction
     * is run again, the same access in the same order gets its data. Little-endian, 1..16 bytes. */
    void (*mmio_read)(struct guest_cpu *cpu, u64 gpa, void *buf, unsigned bytes);
    void (*mmio_write)(struct guest_cpu *cpu, u64 gpa, const void *buf, unsigned bytes);

    /* Floating-point environment for translated code, in MXCSR's format: read before it is entered;
     * sticky flags given back after it is left (bits 0..5 are to be kept). */
    u32 (*fp_enter)(const struct guest_cpu *cpu);
    void (*fp_leave)(struct guest_cpu *cpu, u32 mxcsr);

    /* One guest instruction as text for listings; answers its length, at least 1. */
    int (*disassemble)(u32 mode, u64 pc, const u8 *code, u32 avail, char *text, size_t size);
};

/* Memory accesses by helpers through the soft TLB of the current context; they may raise guest
 * exceptions (leave by guest_leave). Implemented by dbt; reached as cpu->memory. */
struct guest_memory {
    void (*load)(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes); /* 1..16 */
    void (*store)(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes);
    u64 (*atomic)(struct guest_cpu *cpu, u64 gva, enum ir_op op, unsigned bytes, u64 operand,
                  u64 desired);
    bool (*cas128)(struct guest_cpu *cpu, u64 gva, u64 expected[2], const u64 desired[2]);
    /* Brings the sticky floating-point flags up to date through ops->fp_leave, and loads a changed
     * environment from ops->fp_enter. For helpers that read or write it. */
    void (*fp_sync)(struct guest_cpu *cpu);
    void (*fp_load)(struct guest_cpu *cpu);
    /* Host address for up to the end of gva's page, for bulk work; NULL if not plain RAM. */
    u8 *(*host)(struct guest_cpu *cpu, u64 gva, enum guest_access access);
    /* As load/store but with supervisor rights whatever the current privilege (descriptor tables,
     * TSS, exception stacks). */
    void (*load_implicit)(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes);
    void (*store_implicit)(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes);
    /* The mapping of one page (gva) or of everything changed, in the spaces named. */
    void (*flush_page)(struct guest_cpu *cpu, u64 gva); /* all spaces of this vCPU */
    void (*flush_all)(struct guest_cpu *cpu);           /* all spaces, global pages too */
    /* With any space_tag. */
    void (*flush_space)(struct guest_cpu *cpu, u64 space_key, bool keep_global);
    /* All spaces whose tag is not 0 and is @value in the bits of @mask. */
    void (*flush_tags)(struct guest_cpu *cpu, u64 mask, u64 value);
    /* Makes the address space known by @space_key and cpu->space_tag (x86: CR3 | PCID bits, paging
     * mode) and privilege class @priv (0..3) current: sets cpu->tlb and cpu->space. A key not seen
     * lately starts empty. */
    void (*switch_space)(struct guest_cpu *cpu, u64 space_key, unsigned priv);
};
#endif
