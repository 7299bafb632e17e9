/*
 * The translator's run time: from a guest CPU's state to running host code. One struct dbt a VM
 * holds the translations, shared by its vCPUs; each vCPU has its own soft TLBs and jump cache.
 *
 * A block is known by the guest-physical address of its first byte and the mode word, so address
 * spaces share translations; code reaches its own virtual address through the base register.
 */
#ifndef TRIODE_DBT_H
#define TRIODE_DBT_H

#include "base/err.h"
#include "guest/guest.h"

struct dbt;

/* Stages for --dump. */
enum {
    DBT_DUMP_GUEST = 1 << 0,
    DBT_DUMP_LIFT = 1 << 1,
    DBT_DUMP_OPT = 1 << 2,
    DBT_DUMP_HOST = 1 << 3,
};

struct dbt_config {
    struct mem *mem;
    const struct guest_ops *guest;
    u64 code_cache_bytes; /* 0: default; at least 1 MiB, at most 1 GiB */
    bool jit;             /* false: the IR interpreter runs the units */
    bool count_insns;
    u32 hot; /* jumps back until a loop is compiled as a region; 0: default, ~0: never */
    u32 dump_stages;
    u64 dump_first, dump_last; /* linear addresses */

    /* User mode: guest memory is the host's, @direct_base above guest address 0; there is no mem
     * and no TLB, blocks are known by guest virtual address, and ops->walk is only asked for
     * fetches (gpa = gva). @protect takes away (or gives back) the host's right to write a page, of
     * which code was made; called with a lock of dbt's held. False: the page may change without a
     * store through this mapping, so taking the right away would not show it. */
    bool direct;
    u64 direct_base;
    bool (*protect)(void *opaque, u64 page, bool on);
    void *opaque;
};

/* Exit codes of dbt_run beside IR_EXIT_REQUEST and the guest's own (IR_EXIT_GUEST and above). */
enum {
    DBT_EXIT_STEP = 2,  /* insn_limit instructions were run */
    DBT_EXIT_FETCH = 3, /* the next instruction is not in memory; scratch[0] = gpa */
    DBT_EXIT_NOMEM = 4, /* the host has no memory for a translation */
    DBT_EXIT_STALE = 5, /* never seen outside: a block found that its guest code changed */
};

int dbt_create(struct dbt **dbt, const struct dbt_config *config, struct err *err);
void dbt_destroy(struct dbt *dbt); /* after all CPUs are detached */

/* Gives @cpu its part (memory services, TLB, jump cache). cpu->ops, mem and index are set before.
 * The guest's space must be made current by memory->switch_space before dbt_run. */
int dbt_attach(struct dbt *dbt, struct guest_cpu *cpu);
void dbt_detach(struct guest_cpu *cpu);

/* Runs guest code on the calling thread until something needs the engine; answers an exit code.
 * Guest state is complete in memory then. */
u32 dbt_run(struct guest_cpu *cpu);

/* Sets request bits; the CPU leaves translated code soon. Any thread. */
void dbt_request(struct guest_cpu *cpu, u32 bits);

/*
 * Direct mode, for the handler of the host's SIGSEGV and SIGBUS, on the thread of @cpu.
 *
 * dbt_fault_write: a store met a page that was made read-only by @protect: its blocks go, the page
 * becomes writable, and the caller returns to do the store again. When the store changes the very
 * block that it stands in, this leaves to dbt_run instead.
 *
 * dbt_fault_precise: the guest made the fault (or dbt did, reading code: it then goes on there):
 * its state is made precise as of the faulting instruction; the caller leaves by guest_leave.
 * False: the fault is Triode's own.
 */
void dbt_fault_write(struct guest_cpu *cpu, const void *ucontext, u64 gva);
bool dbt_fault_precise(struct guest_cpu *cpu, const void *ucontext);

/* Direct mode: [gva, gva+len) was written, mapped or unmapped by other means than stores. */
void dbt_code_changed(struct dbt *dbt, u64 gva, u64 len);

/* Around fork: prepare takes all other vCPUs out of the guest and copies the code cache for the
 * child, which would share it; -errno if that cannot be. Then exactly one of the others, in the
 * parent (also when fork failed) and in the child, where only @cpu lives on. */
int dbt_fork_prepare(struct guest_cpu *cpu);
void dbt_fork_parent(struct guest_cpu *cpu);
int dbt_fork_child(struct guest_cpu *cpu);

struct dbt_stats {
    u64 blocks;      /* translated since start */
    u64 regions;     /* loops among them that were compiled as one */
    u64 guest_insns; /* lifted into them */
    u64 code_bytes;  /* host code that can be reached */
    u64 cache_bytes; /* size of the cache */
    u64 flushes;     /* of the whole cache */
    u64 reclaims;    /* looks for parts of it whose code is all dead */
    u64 invalidated; /* blocks dropped because their code changed */
    u64 chained;     /* direct jumps linked */
    u64 lookups;     /* jump cache misses */
};
void dbt_get_stats(struct dbt *dbt, struct dbt_stats *stats);

#endif
