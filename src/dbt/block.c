/* Blocks: finding them without a lock, publishing, chaining and dropping them with one. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dbt/internal.h"

/* Neighbours in a page are neighbours in the table: they are mostly looked for together. */
static u32 hash_of(u64 gpa, u32 mode)
{
    u64 h = (gpa >> MEM_PAGE_SHIFT ^ ((u64)mode << 40)) * 0x9e3779b97f4a7c15ull;

    return (u32)((h >> (64 - DBT_HASH_BITS)) + (gpa & (MEM_PAGE_SIZE - 1)) / 4) &
           ((1u << DBT_HASH_BITS) - 1);
}

struct block *block_find(struct dbt *dbt, u64 gpa, u32 mode, u64 page2)
{
    struct block *b = atomic_load_explicit(&dbt->hash[hash_of(gpa, mode)], memory_order_acquire);

    while (b) {
        if (b->gpa == gpa && b->mode == mode &&
            (b->page2 == DBT_NO_PAGE || b->region || b->page2 == page2) &&
            !atomic_load_explicit(&b->dead, memory_order_relaxed))
            return b;
        b = atomic_load_explicit(&b->hash_next, memory_order_acquire);
    }
    return NULL;
}

struct block *block_find_two_pages(struct dbt *dbt, u64 gpa, u32 mode)
{
    struct block *b = atomic_load_explicit(&dbt->hash[hash_of(gpa, mode)], memory_order_acquire);

    while (b && (b->gpa != gpa || b->mode != mode || b->page2 == DBT_NO_PAGE || b->region ||
                 atomic_load_explicit(&b->dead, memory_order_relaxed)))
        b = atomic_load_explicit(&b->hash_next, memory_order_acquire);
    return b;
}

/* Stores to the block's pages are caught from page_protect on, but that may have been undone, or a
 * store been on its way: what counts is what memory holds once the block can be found. */
static bool code_unchanged(struct dbt *dbt, const struct block *block, const u8 *code)
{
    u64 in_first = align_down(block->gpa, MEM_PAGE_SIZE) + MEM_PAGE_SIZE - block->gpa;
    u64 first = block->length < in_first ? block->length : in_first;
    const u8 *now;

    page_protect_locked(dbt, block->gpa);
    if (block->page2 != DBT_NO_PAGE)
        page_protect_locked(dbt, block->page2);
    if (!page_watches(dbt, block))
        return false;
    if (block->checked)
        return true;
    if (dbt->config.direct) {
        u8 bytes[DBT_MAX_INSNS * DBT_INSN_BYTES];

        return !direct_read(dbt, block->gpa, bytes, block->length) &&
               !memcmp(bytes, code, block->length);
    }
    now = mem_hva(dbt->config.mem, block->gpa, first, false);
    if (!now || memcmp(now, code, first))
        return false;
    if (block->page2 == DBT_NO_PAGE)
        return true;
    now = mem_hva(dbt->config.mem, block->page2, block->length - first, false);
    return now && !memcmp(now, code + first, block->length - first);
}

/* From here on @block is found. Lock held. */
static void publish(struct dbt *dbt, struct block *block)
{
    struct block *_Atomic *head = &dbt->hash[hash_of(block->gpa, block->mode)];

    atomic_store_explicit(&block->hash_next, atomic_load(head), memory_order_relaxed);
    atomic_store_explicit(head, block, memory_order_release);
    cache_published(dbt, block);
    dbt->stats.blocks++;
    dbt->stats.guest_insns += block->guest_insns;
}

struct block *block_insert(struct dbt *dbt, struct block *block, const u8 *code, int *ret)
{
    struct block *answer;

    pthread_mutex_lock(&dbt->lock);
    answer = block_find(dbt, block->gpa, block->mode, block->page2);
    if (!answer || (answer->page2 != block->page2 && !answer->region)) {
        if (!page_add_block(dbt, block)) {
            *ret = -ENOMEM;
            answer = NULL;
        } else if (code_unchanged(dbt, block, code)) {
            publish(dbt, block);
            answer = block;
        } else {
            page_remove_block(dbt, block);
            answer = NULL;
        }
    }
    if (answer != block)
        atomic_store(&block->dead, true);
    pthread_mutex_unlock(&dbt->lock);
    return answer;
}

static void unlink_jump(struct dbt_link *link)
{
    struct dbt_link **at = &link->to->incoming;

    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    link->to = NULL;
}

/* The jump with its rel32 at @patch_addr. Lock held. */
static struct dbt_link *find_link(struct dbt *dbt, u64 patch_addr)
{
    struct block *from = cache_find(dbt, patch_addr);

    for (u32 i = 0; from && i < from->nlinks; i++)
        if ((u64)from->code + from->links[i].host.patch == patch_addr)
            return &from->links[i];
    return NULL;
}

/* Only inside a page and a mode is the destination's identity certain, or by guest address. */
static bool may_chain(const struct dbt *dbt, const struct block *from, const struct block *to)
{
    return !from->dead && !to->dead && from->mode == to->mode &&
           (dbt->config.direct ||
            (to->page2 == DBT_NO_PAGE &&
             align_down(from->gpa, MEM_PAGE_SIZE) == align_down(to->gpa, MEM_PAGE_SIZE)));
}

static void chain(struct dbt *dbt, struct dbt_link *link, struct block *to)
{
    struct block *from = link->from;

    if (link->to && !link->host.counter) /* another CPU was faster */
        return;
    if (link->to)
        unlink_jump(link);
    link->to = to;
    link->next = to->incoming;
    to->incoming = link;
    if (link->host.counter && *link->host.counter >= 0 && !to->region &&
        !__atomic_load_n(&to->no_region, __ATOMIC_RELAXED))
        host_count_link(from->code_rw, (u64)from->code, &link->host, (u64)to->code);
    else
        host_patch_link(from->code_rw, (u64)from->code, &link->host, (u64)to->code);
    dbt->stats.chained++;
}

void block_chain(struct dbt *dbt, u64 patch_addr, struct block *to)
{
    struct dbt_link *link;

    pthread_mutex_lock(&dbt->lock);
    link = find_link(dbt, patch_addr);
    if (link && may_chain(dbt, link->from, to))
        chain(dbt, link, to);
    pthread_mutex_unlock(&dbt->lock);
}

/* Two jump cache entries of any vCPU, side by side, as a number. */
static u32 jump_name(const struct dbt_cpu *dc, unsigned table, u32 index)
{
    return (dc->cpu->index << 1 | table) << DBT_JUMP_BITS | (index & ~1u);
}

/* The entries of that name, if they lead to @block, forget it. */
static void forget_jump(struct dbt *dbt, u32 name, struct block *block)
{
    struct dbt_cpu *dc = dbt->cpus[name >> (DBT_JUMP_BITS + 1)];
    unsigned table = name >> DBT_JUMP_BITS & 1, index = name & ((1u << DBT_JUMP_BITS) - 1);

    for (unsigned i = index; dc && i < index + 2; i++)
        if (__atomic_load_n(&dc->jump_more[table][i].block, __ATOMIC_SEQ_CST) == block)
            __atomic_store_n(&dc->jumps[table][i].space, 0, __ATOMIC_SEQ_CST); /* no space's tag */
}

bool block_jump_is_hot(struct dbt *dbt, u64 patch_addr)
{
    const struct dbt_link *link;
    bool hot;

    if (!dbt->counters)
        return false;
    pthread_mutex_lock(&dbt->lock);
    link = find_link(dbt, patch_addr);
    hot = link && link->host.counter && *link->host.counter < 0;
    pthread_mutex_unlock(&dbt->lock);
    return hot;
}

void block_jump_again(struct dbt *dbt, u64 patch_addr)
{
    const struct dbt_link *link;

    pthread_mutex_lock(&dbt->lock);
    link = find_link(dbt, patch_addr);
    if (link && link->host.counter)
        *link->host.counter = cache_first_count(dbt);
    pthread_mutex_unlock(&dbt->lock);
}

void block_remember_jump(struct block *block, struct dbt_cpu *dc, unsigned table, u32 index)
{
    u32 n = atomic_load(&block->njumps), known = n < DBT_BLOCK_JUMPS ? n : DBT_BLOCK_JUMPS;
    u32 jump = jump_name(dc, table, index);

    for (u32 i = 0; i < known; i++)
        if (__atomic_load_n(&block->jumps[i], __ATOMIC_RELAXED) == jump)
            return;
    n = atomic_fetch_add(&block->njumps, 1);
    if (n < DBT_BLOCK_JUMPS)
        __atomic_store_n(&block->jumps[n], jump, __ATOMIC_SEQ_CST);
}

/* The vCPUs' jump caches forget @block. One that is writing the entry this moment looks at dead
 * afterwards (remember_jump comes first). */
static void forget_jumps(struct dbt *dbt, struct block *block)
{
    u32 n = atomic_load(&block->njumps);

    for (u32 i = 0; i < n && i < DBT_BLOCK_JUMPS; i++)
        forget_jump(dbt, __atomic_load_n(&block->jumps[i], __ATOMIC_SEQ_CST), block);
    if (n <= DBT_BLOCK_JUMPS)
        return;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i])
            atomic_store(&dbt->cpus[i]->drop_jumps, true);
    dbt->must_leave = true;
}

/* Nobody finds @block any more, and no jump leads to it or away. */
static void retire(struct dbt *dbt, struct block *block)
{
    struct block *_Atomic *at = &dbt->hash[hash_of(block->gpa, block->mode)];

    atomic_store(&block->dead, true);
    forget_jumps(dbt, block);
    while (*at && *at != block)
        at = &(*at)->hash_next;
    if (*at)
        atomic_store(at, atomic_load(&block->hash_next)); /* readers may still stand on block */
    page_remove_block(dbt, block);
    cache_retired(dbt, block);
    while (block->incoming) {
        struct dbt_link *link = block->incoming;

        host_patch_link(link->from->code_rw, (u64)link->from->code, &link->host, 0);
        block->incoming = link->next;
        link->to = NULL;
    }
    for (u32 i = 0; i < block->nlinks; i++)
        if (block->links[i].to) {
            host_patch_link(block->code_rw, (u64)block->code, &block->links[i].host, 0);
            unlink_jump(&block->links[i]);
        }
}

void block_invalidate(struct dbt *dbt, struct block *block)
{
    retire(dbt, block);
    if (block->region) /* it may go round and round without looking at its links */
        dbt->must_leave = true;
    dbt->stats.invalidated++;
}

bool block_replace(struct dbt *dbt, struct block *head, struct block *block,
                   bool (*unchanged)(void *opaque), void *opaque)
{
    bool ok = false;

    pthread_mutex_lock(&dbt->lock);
    page_protect_locked(dbt, block->gpa);
    if (block->page2 != DBT_NO_PAGE)
        page_protect_locked(dbt, block->page2);
    if (!atomic_load(&head->dead)) {
        bool added = page_add_block(dbt, block);

        ok = added && page_watches(dbt, block) && unchanged(opaque);
        if (ok) {
            retire(dbt, head);
            publish(dbt, block);
            dbt->stats.regions++;
        } else if (added) {
            page_remove_block(dbt, block);
        }
    }
    if (!ok)
        atomic_store(&block->dead, true);
    pthread_mutex_unlock(&dbt->lock);
    return ok;
}
