/*
 * Direct mode: guest memory is the host's own, with the host's protection. There is no check before
 * an access; what must not be is a fault of the host, which the handler of the layer above brings
 * here to be turned into guest state.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/copy.h"
#include "dbt/internal.h"

/* Addresses of 48 bits: leaves of a byte a page, made when the first code of 512 MiB is. */
#define LEAF_BITS 17
#define ROOT_ENTRIES (1u << (48 - MEM_PAGE_SHIFT - LEAF_BITS))

u8 *direct_code_byte(struct dbt *dbt, u64 page)
{
    u64 number = page >> MEM_PAGE_SHIFT;
    u8 *_Atomic *leaf;
    u8 *bytes;

    if (!dbt->code_map || number >> LEAF_BITS >= ROOT_ENTRIES)
        return NULL;
    leaf = &dbt->code_map[number >> LEAF_BITS];
    bytes = atomic_load(leaf);
    if (!bytes) { /* the lock is held: nobody else makes one */
        bytes = calloc(1, 1u << LEAF_BITS);
        atomic_store(leaf, bytes);
    }
    return bytes ? &bytes[number & mask_low(LEAF_BITS)] : NULL;
}

u8 direct_code_state(const struct dbt *dbt, u64 page)
{
    u64 number = page >> MEM_PAGE_SHIFT;
    const u8 *bytes = NULL;

    if (number >> LEAF_BITS < ROOT_ENTRIES)
        bytes = atomic_load(&dbt->code_map[number >> LEAF_BITS]);
    return bytes ? __atomic_load_n(&bytes[number & mask_low(LEAF_BITS)], __ATOMIC_RELAXED) : 0;
}

int direct_create(struct dbt *dbt)
{
    dbt->code_map = calloc(ROOT_ENTRIES, sizeof(*dbt->code_map));
    return dbt->code_map ? 0 : -ENOMEM;
}

void direct_free(struct dbt *dbt)
{
    for (u32 i = 0; dbt->code_map && i < ROOT_ENTRIES; i++)
        free(dbt->code_map[i]);
    free((void *)dbt->code_map);
    dbt->code_map = NULL;
}

/* Where a fault of direct_read's goes on: the thread's, because it may have no CPU at hand. */
static __thread jmp_buf *read_guard;

int direct_read(const struct dbt *dbt, u64 gva, void *buf, size_t len)
{
    jmp_buf guard;

    if (_setjmp(guard)) {
        read_guard = NULL;
        return -EFAULT;
    }
    read_guard = &guard;
    __asm__ volatile("" ::: "memory");
    memcpy(buf, (const void *)(dbt->config.direct_base + gva), len);
    __asm__ volatile("" ::: "memory");
    read_guard = NULL;
    return 0;
}

/* --- accesses of helpers ------------------------------------------------------------------ */

static u8 *at(const struct guest_cpu *cpu, u64 gva)
{
    return (u8 *)(((struct dbt_cpu *)cpu->dbt)->dbt->config.direct_base + gva);
}

static void load(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    copy_sized(buf, at(cpu, gva), bytes);
}

static void store(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    copy_sized(at(cpu, gva), buf, bytes);
}

static u64 atomic(struct guest_cpu *cpu, u64 gva, enum ir_op op, unsigned bytes, u64 operand,
                  u64 desired)
{
    return access_atomic_on(at(cpu, gva), op, bytes, operand, desired);
}

static bool cas128(struct guest_cpu *cpu, u64 gva, u64 expected[2], const u64 desired[2])
{
    u128 old = (u128)expected[1] << 64 | expected[0];
    u128 now = __sync_val_compare_and_swap((u128 *)(void *)at(cpu, gva), old,
                                           (u128)desired[1] << 64 | desired[0]);

    expected[0] = (u64)now;
    expected[1] = (u64)(now >> 64);
    return now == old;
}

static u8 *host(struct guest_cpu *cpu, u64 gva, enum guest_access access)
{
    (void)access;
    return at(cpu, gva);
}

static void fp_sync(struct guest_cpu *cpu)
{
    dbt_memory.fp_sync(cpu);
}

static void fp_load(struct guest_cpu *cpu)
{
    dbt_memory.fp_load(cpu);
}

const struct guest_memory direct_memory = {
    .load = load,
    .store = store,
    .atomic = atomic,
    .cas128 = cas128,
    .fp_sync = fp_sync,
    .fp_load = fp_load,
    .host = host,
    .load_implicit = load,
    .store_implicit = store,
    .flush_page = tlb_flush_page,
    .flush_all = tlb_flush_all,
    .flush_space = tlb_flush_space,
    .switch_space = tlb_switch_space,
};

/* --- faults ------------------------------------------------------------------------------- */

/* Where a fault came from. */
struct origin {
    struct host_fault fault;
    bool translated;              /* in host code of ours, else in C */
    const struct block *block;    /* guest code it belongs to, if known */
    const struct host_site *site; /* of the access */
};

static struct origin find_origin(struct dbt_cpu *dc, const void *ucontext)
{
    struct dbt *dbt = dc->dbt;
    struct origin o = {0};
    struct host_code code;
    const struct block *block;

    host_read_fault(ucontext, &o.fault);
    if (o.fault.pc - (u64)dbt->code_exec >= dbt->code_size) {
        o.block = cache_running(dc); /* of a helper */
        return o;
    }
    o.translated = true;
    if (o.fault.pc - dc->step_exec < DBT_MAX_BLOCK_CODE) {
        o.block = &dc->step_block;
        o.site = host_find_site((const u8 *)dc->step_exec, &dc->step_code, o.fault.pc);
        return o;
    }
    pthread_mutex_lock(&dbt->lock); /* translated code holds no lock */
    block = cache_find(dbt, o.fault.pc);
    pthread_mutex_unlock(&dbt->lock);
    o.block = block;
    if (!block)
        return o;
    code.code_bytes = block->insn_bytes;
    code.total_bytes = block->code_bytes;
    o.site = host_find_site(block->code, &code, o.fault.pc);
    return o;
}

static void make_precise(struct guest_cpu *cpu, const void *ucontext, const struct origin *o)
{
    if (o->site)
        host_restore(cpu, host_fault_frame(ucontext), o->site);
    /* The kernel gave the handler a fresh floating-point environment. */
    host_fp_enter(o->fault.mxcsr);
}

bool dbt_fault_precise(struct guest_cpu *cpu, const void *ucontext)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct origin o;

    if (read_guard) {
        host_read_fault(ucontext, &o.fault);
        host_fp_enter(o.fault.mxcsr);
        longjmp(*read_guard, 1);
    }
    if (!dc || !cpu->leave || atomic_load(&dc->translating))
        return false;
    o = find_origin(dc, ucontext);
    if (o.translated && !o.site)
        return false;
    make_precise(cpu, ucontext, &o);
    return true;
}

void dbt_fault_write(struct guest_cpu *cpu, const void *ucontext, u64 gva)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct origin o = find_origin(dc, ucontext);
    u64 page = align_down(gva, MEM_PAGE_SIZE), len = page + MEM_PAGE_SIZE - gva;
    bool own = cpu->leave && o.block && o.block != &dc->step_block && (o.site || !o.translated) &&
               !cpu->insn_limit && !dc->smc_step && page_touches(o.block, gva, len < 16 ? len : 16);

    if (!page_fault(dc->dbt, page)) /* another thread was faster, or it never was code */
        dc->dbt->config.protect(dc->dbt->config.opaque, page, false);
    else if (!o.translated) /* a helper may have changed what follows its instruction */
        dbt_request(cpu, GUEST_REQ_JUMPS);
    if (!own)
        return;
    dc->smc_step = true;
    make_precise(cpu, ucontext, &o);
    guest_leave(cpu, IR_EXIT_REQUEST);
}

void dbt_code_changed(struct dbt *dbt, u64 gva, u64 len)
{
    if (len)
        page_drop_range(dbt, gva, gva + len - 1);
}
