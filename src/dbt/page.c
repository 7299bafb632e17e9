/*
 * Code pages: which guest pages translated code was made from, and what happens when one is
 * written. A page's byte in its memslot's code map says so to every writer; soft TLBs do not answer
 * stores to such pages, so they come through page_written.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dbt/internal.h"
#include "trace/trace.h"

#define PAGE_HASH_BITS 12
#define GRANULE 64
/* So many stores in a row without code to run: it was code. Giving up earlier, each time that a
 * program rewrites its code, would mean to search all soft TLBs each time when it runs. */
#define IDLE_STORES 16
/* So many that each took code, while none was made from the page: it is filled with something
 * else. */
#define OVERWRITES 8

static struct code_page **bucket(struct dbt *dbt, u64 page)
{
    return &dbt->pages[((page >> MEM_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull) >> (64 - PAGE_HASH_BITS)];
}

static struct code_page *find_page(struct dbt *dbt, u64 page)
{
    struct code_page *p = *bucket(dbt, page);

    while (p && p->gpa != page)
        p = p->hash_next;
    return p;
}

static u8 *code_byte(struct dbt *dbt, u64 gpa)
{
    const struct mem_slot *slot;

    if (dbt->config.direct)
        return direct_code_byte(dbt, gpa);
    slot = mem_find(dbt->config.mem, gpa);
    return slot ? &slot->code[(gpa - slot->gpa) >> MEM_PAGE_SHIFT] : NULL;
}

static unsigned state_of(const u8 *code)
{
    return __atomic_load_n(code, __ATOMIC_RELAXED);
}

static void set_state(u8 *code, unsigned state)
{
    __atomic_store_n(code, (u8)state, __ATOMIC_SEQ_CST);
}

void page_protect(struct dbt *dbt, u64 gpa)
{
    u8 *code;

    if (dbt->config.direct) /* done when the block is published, with the lock held */
        return;
    code = code_byte(dbt, gpa);
    if (!code || __atomic_exchange_n(code, CODE_WATCHED, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&dbt->cpus_lock);
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i])
            tlb_revoke_write(dbt->cpus[i], align_down(gpa, MEM_PAGE_SIZE));
    pthread_mutex_unlock(&dbt->cpus_lock);
}

void page_protect_locked(struct dbt *dbt, u64 gpa)
{
    u8 *code;

    if (!dbt->config.direct) {
        page_protect(dbt, gpa);
        return;
    }
    code = code_byte(dbt, gpa);
    if (!code || state_of(code) & (CODE_WATCHED | CODE_CHECKED))
        return;
    if (dbt->config.protect(dbt->config.opaque, align_down(gpa, MEM_PAGE_SIZE), true))
        set_state(code, state_of(code) | CODE_WATCHED);
    else
        set_state(code, CODE_CHECKED | CODE_SHARED);
}

/* Stores to the page need not be seen any more. Lock held in direct mode. */
static void unprotect(struct dbt *dbt, u64 page)
{
    u8 *code = code_byte(dbt, page);
    u8 state = code ? state_of(code) : CODE_WATCHED;

    if (code)
        set_state(code, 0);
    if (dbt->config.direct && state & CODE_WATCHED)
        dbt->config.protect(dbt->config.opaque, page, false);
}

bool page_is_checked(struct dbt *dbt, u64 page)
{
    return dbt->config.direct && direct_code_state(dbt, page) & CODE_CHECKED;
}

bool page_watches(struct dbt *dbt, const struct block *block)
{
    return block->checked || !dbt->config.direct ||
           (direct_code_state(dbt, block->gpa) & CODE_WATCHED &&
            (block->page2 == DBT_NO_PAGE || direct_code_state(dbt, block->page2) & CODE_WATCHED));
}

u64 page_granules(u64 gpa, u64 len)
{
    u64 page = align_down(gpa, MEM_PAGE_SIZE);

    return mask_low((unsigned)((gpa + len - 1 - page) / GRANULE) + 1) &
           ~mask_low((unsigned)((gpa - page) / GRANULE));
}

static unsigned which_page(const struct block *block, u64 page)
{
    return align_down(block->gpa, MEM_PAGE_SIZE) == page ? 0 : 1;
}

/* The part of @block's guest bytes that lies in @page, as granule bits. */
static u64 granules(const struct block *block, u64 page)
{
    return block->granules[which_page(block, page)];
}

static bool add_to_page(struct dbt *dbt, struct block *block, u64 page, unsigned which)
{
    struct code_page *p = find_page(dbt, page);

    if (dbt->config.direct && !direct_code_byte(dbt, page))
        return false;
    if (!p) {
        p = calloc(1, sizeof(*p));
        if (!p)
            return false;
        p->gpa = page;
        p->hash_next = *bucket(dbt, page);
        *bucket(dbt, page) = p;
    }
    block->page_next[which] = p->blocks;
    p->blocks = block;
    p->idle = p->overwritten = 0;
    p->granules |= granules(block, page);
    return true;
}

static void remove_from_page(struct dbt *dbt, struct block *block, u64 page)
{
    struct code_page *p = find_page(dbt, page);
    struct block **at = p ? &p->blocks : NULL;

    while (at && *at && *at != block)
        at = &(*at)->page_next[which_page(*at, page)];
    if (!at || !*at)
        return;
    *at = block->page_next[which_page(block, page)]; /* p->granules may say too much from now on */
}

bool page_add_block(struct dbt *dbt, struct block *block)
{
    if (!add_to_page(dbt, block, align_down(block->gpa, MEM_PAGE_SIZE), 0))
        return false;
    if (block->page2 == DBT_NO_PAGE || add_to_page(dbt, block, block->page2, 1))
        return true;
    remove_from_page(dbt, block, align_down(block->gpa, MEM_PAGE_SIZE));
    return false;
}

void page_remove_block(struct dbt *dbt, struct block *block)
{
    remove_from_page(dbt, block, align_down(block->gpa, MEM_PAGE_SIZE));
    if (block->page2 != DBT_NO_PAGE)
        remove_from_page(dbt, block, block->page2);
}

bool page_touches(const struct block *block, u64 gpa, u64 len)
{
    u64 page = align_down(gpa, MEM_PAGE_SIZE);

    if (align_down(block->gpa, MEM_PAGE_SIZE) != page && block->page2 != page)
        return false;
    return granules(block, page) & page_granules(gpa, len);
}

static void drop_blocks(struct dbt *dbt, struct code_page *p, u64 hit)
{
    struct block *b = p->blocks;

    while (b) {
        struct block *next = b->page_next[which_page(b, p->gpa)];

        if (granules(b, p->gpa) & hit)
            block_invalidate(dbt, b);
        b = next;
    }
    p->granules = 0;
    for (b = p->blocks; b; b = b->page_next[which_page(b, p->gpa)])
        p->granules |= granules(b, p->gpa);
}

static void drop_page(struct dbt *dbt, struct code_page *p)
{
    struct code_page **at = bucket(dbt, p->gpa);

    while (*at != p)
        at = &(*at)->hash_next;
    *at = p->hash_next;
    unprotect(dbt, p->gpa);
    free(p);
}

/* Ends what may have dropped blocks. If vCPUs may still run one, they all leave translated code for
 * a moment, and those whose jump cache may lead there drop it. Seldom: mostly nothing leads to a
 * dead block any more. */
static void unlock(struct dbt *dbt)
{
    bool leave = dbt->must_leave;

    dbt->must_leave = false;
    pthread_mutex_unlock(&dbt->lock);
    if (!leave)
        return;
    pthread_mutex_lock(&dbt->cpus_lock);
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i])
            dbt_request(dbt->cpus[i]->cpu, GUEST_REQ_JUMPS);
    pthread_mutex_unlock(&dbt->cpus_lock);
}

static bool drop_whole(struct dbt *dbt, struct code_page *p)
{
    if (!p)
        return false;
    drop_blocks(dbt, p, ~0ull);
    drop_page(dbt, p);
    return true;
}

bool page_written(struct dbt *dbt, u64 gpa, u64 len)
{
    u64 invalidated;
    struct code_page *p;
    bool dropped;

    pthread_mutex_lock(&dbt->lock);
    invalidated = dbt->stats.invalidated;
    p = find_page(dbt, align_down(gpa, MEM_PAGE_SIZE));
    if (p) {
        if (p->granules & page_granules(gpa, len)) {
            drop_blocks(dbt, p, page_granules(gpa, len));
            p->overwritten++;
        }
        if ((!p->blocks && ++p->idle > IDLE_STORES) || p->overwritten > OVERWRITES)
            drop_whole(dbt, p);
    }
    trace_emit(SMC, smc, -1, .gpa = gpa, .bytes = len,
               .dropped = dbt->stats.invalidated - invalidated);
    dropped = dbt->stats.invalidated != invalidated;
    unlock(dbt);
    return dropped;
}

bool page_fault(struct dbt *dbt, u64 page)
{
    struct code_page *p;
    bool watched;
    u8 *code;

    pthread_mutex_lock(&dbt->lock);
    p = find_page(dbt, page);
    code = code_byte(dbt, page);
    watched = p && code && state_of(code) & CODE_WATCHED;
    if (watched) {
        unsigned state = state_of(code);

        drop_blocks(dbt, p, ~0ull);
        unprotect(dbt, page);
        if ((state & CODE_FAULTS) == CODE_FAULTS)
            state = (state & CODE_RETURNS) | CODE_CHECKED;
        else
            state = (state & ~CODE_WATCHED) + CODE_FAULT;
        set_state(code, state);
    }
    unlock(dbt);
    return watched;
}

/* The byte of one of the pages of @block; NULL if it has but one. */
static u8 *code_of(struct dbt *dbt, const struct block *block, unsigned which)
{
    u64 page = which ? block->page2 : block->gpa;

    return page == DBT_NO_PAGE ? NULL : code_byte(dbt, page);
}

void page_stale(struct dbt *dbt, struct block *block)
{
    pthread_mutex_lock(&dbt->lock);
    if (!atomic_load(&block->dead)) {
        for (unsigned i = 0; i < 2; i++) {
            u8 *code = code_of(dbt, block, i);

            if (code && state_of(code) & CODE_CHECKED)
                set_state(code, state_of(code) | CODE_STALE);
        }
        block_invalidate(dbt, block);
    }
    unlock(dbt);
}

/* May the page be watched again? */
static bool is_settled(const u8 *code)
{
    return code && !(state_of(code) & (CODE_STALE | CODE_SHARED)) &&
           (state_of(code) & CODE_RETURNS) != CODE_RETURNS;
}

bool page_settle(struct dbt *dbt, struct block *block)
{
    bool settled = true;

    pthread_mutex_lock(&dbt->lock);
    for (unsigned i = 0; i < 2; i++) {
        u8 *code = code_of(dbt, block, i);

        if (!code || !(state_of(code) & CODE_CHECKED))
            continue;
        settled = settled && is_settled(code);
        set_state(code, state_of(code) & ~CODE_STALE);
    }
    for (unsigned i = 0; settled && i < 2; i++) {
        u8 *code = code_of(dbt, block, i);
        u64 page = align_down(i ? block->page2 : block->gpa, MEM_PAGE_SIZE);

        if (!code || !(state_of(code) & CODE_CHECKED))
            continue;
        set_state(code, (state_of(code) & CODE_RETURNS) + CODE_RETURN);
        drop_blocks(dbt, find_page(dbt, page), ~0ull);
    }
    unlock(dbt);
    return settled;
}

bool page_drop_range(struct dbt *dbt, u64 first, u64 last)
{
    bool dropped = false;

    first = align_down(first, MEM_PAGE_SIZE);
    pthread_mutex_lock(&dbt->lock);
    if ((last - first) >> MEM_PAGE_SHIFT < 64) {
        for (u64 page = first; page - first <= last - first; page += MEM_PAGE_SIZE)
            dropped |= drop_whole(dbt, find_page(dbt, page));
    } else {
        for (u32 i = 0; i < 1u << PAGE_HASH_BITS; i++) {
            struct code_page *p = dbt->pages[i];

            while (p) {
                struct code_page *next = p->hash_next;

                if (p->gpa >= first && p->gpa <= last)
                    dropped |= drop_whole(dbt, p);
                p = next;
            }
        }
    }
    unlock(dbt);
    return dropped;
}

void pages_free(struct dbt *dbt)
{
    for (u32 i = 0; i < 1u << PAGE_HASH_BITS; i++) {
        struct code_page *p = dbt->pages[i];

        while (p) {
            struct code_page *next = p->hash_next;

            unprotect(dbt, p->gpa);
            free(p);
            p = next;
        }
        dbt->pages[i] = NULL;
    }
}
