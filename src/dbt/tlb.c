/*
 * Soft TLBs: one table for each address space and privilege class that a vCPU used lately, so that
 * switching is changing a pointer. Tables are filled here, by their own vCPU; another vCPU may only
 * set bit 0 of write tags (tlb_revoke_write).
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dbt/internal.h"
#include "trace/trace.h"

#define INVALID_TAG (~0ull)

/* Entries of a way that one bit of tlb->first and others stands for. */
#define GROUP (TLB_ENTRIES / 64)

typedef void visit_group(struct tlb_entry *group, u64 gpa);

/* All groups of entries that are not known to be empty. Most tables hold few entries when they are
 * flushed: looking at all of them takes longer than what else there is to do. */
static inline void each_group(struct tlb *tlb, visit_group *visit, u64 gpa)
{
    for (unsigned way = 0; way < TLB_WAYS; way++) {
        u64 left = __atomic_load_n(way ? &tlb->others : &tlb->first, __ATOMIC_SEQ_CST);

        for (; left; left &= left - 1)
            visit(&tlb->entry[way][GROUP * (unsigned)__builtin_ctzll(left)], gpa);
    }
}

static void clear_group(struct tlb_entry *group, u64 gpa)
{
    (void)gpa;
    memset(group, 0xff, GROUP * sizeof(*group));
}

static void clear(struct tlb *tlb)
{
    if (!tlb || !tlb->first)
        return;
    each_group(tlb, clear_group, 0);
    tlb->others = tlb->first = 0;
    tlb->large_first = ~0ull;
    tlb->large_last = 0;
}

struct tlb *tlb_of_priv(struct dbt_cpu *dc, unsigned priv)
{
    struct tlb **tlb = &dc->current->tlb[priv];

    if (!*tlb) {
        struct tlb *fresh = aligned_alloc(64, align_up(sizeof(*fresh), 64));

        if (!fresh)
            guest_leave(dc->cpu, DBT_EXIT_NOMEM);
        fresh->first = ~0ull;
        fresh->next_way = 0;
        fresh->others = ~0ull;
        clear(fresh);
        /* tlb_revoke_write of another vCPU may look at any time: publish when clean. */
        __atomic_store_n(tlb, fresh, __ATOMIC_RELEASE);
    }
    return *tlb;
}

unsigned tlb_jumps(const struct dbt_cpu *dc)
{
    return dc->priv != DBT_PRIV_USER && !dc->private_code && !dc->current->tag;
}

void tlb_choose_jumps(struct dbt_cpu *dc)
{
    unsigned table = tlb_jumps(dc);

    dc->cpu->space = table ? dc->shared_id : dc->current->id;
    dc->cpu->jump_cache = dc->stepping || dc->watching ? dc->no_jumps : dc->jumps[table];
}

static u32 new_id(struct dbt_cpu *dc)
{
    if (!++dc->next_space_id) { /* wrapped: old tags could come to life again */
        memset(dc->jumps, 0, sizeof(dc->jumps));
        memset(dc->fetch, 0, sizeof(dc->fetch));
        dc->next_space_id = 1;
    }
    return dc->next_space_id;
}

/* Blocks and code translations that jumps[] and fetch[] hold for the space are forgotten by giving
 * it a new tag. */
static void retag(struct dbt_cpu *dc, struct space *space)
{
    space->id = new_id(dc);
    if (space == dc->current)
        tlb_choose_jumps(dc);
}

static void retag_shared(struct dbt_cpu *dc)
{
    dc->shared_id = new_id(dc);
    if (dc->current)
        tlb_choose_jumps(dc);
}

void tlb_private_code(struct dbt_cpu *dc)
{
    if (tlb_jumps(dc)) {
        dc->private_code = true;
        tlb_choose_jumps(dc);
    }
}

static void flush_space(struct dbt_cpu *dc, struct space *space)
{
    for (unsigned i = 0; i < DBT_PRIVS; i++)
        clear(space->tlb[i]);
    retag(dc, space);
    dc->cpu->tlb_flushes++;
    trace_emit(TLB, tlb, (int)dc->cpu->index, .action = "flush space", .space = space->key);
}

void tlb_switch_space(struct guest_cpu *cpu, u64 key, unsigned priv)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct space *space = dc->current, *oldest = &dc->spaces[0];

    BUG_ON(priv >= DBT_PRIVS);
    if (!space || !space->valid || space->key != key || space->tag != cpu->space_tag) {
        space = NULL;
        for (unsigned i = 0; i < DBT_SPACES && !space; i++) {
            struct space *s = &dc->spaces[i];

            if (s->valid && s->key == key && s->tag == cpu->space_tag)
                space = s;
            else if (!s->valid || (oldest->valid && s->last_used < oldest->last_used))
                oldest = s;
        }
        if (!space) {
            space = oldest;
            flush_space(dc, space);
            space->key = key;
            space->tag = cpu->space_tag;
            space->valid = true;
        }
        space->last_used = ++dc->use_clock;
        dc->current = space;
    }
    dc->priv = priv;
    cpu->tlb = tlb_of_priv(dc, priv);
    tlb_choose_jumps(dc);
}

void tlb_drop_jumps(struct dbt_cpu *dc)
{
    for (unsigned i = 0; i < DBT_SPACES; i++)
        if (dc->spaces[i].valid)
            retag(dc, &dc->spaces[i]);
    retag_shared(dc);
    memset(dc->code_filter, 0, sizeof(dc->code_filter));
}

struct filter_bits {
    unsigned a, b;
};

static struct filter_bits filter_bits(u64 gva)
{
    u64 hash = (gva >> MEM_PAGE_SHIFT) * 0x9e3779b97f4a7c15ull;

    return (struct filter_bits){hash >> 48 & (DBT_FILTER_BITS - 1),
                                hash >> 32 & (DBT_FILTER_BITS - 1)};
}

void tlb_note_code(struct dbt_cpu *dc, u64 gva)
{
    struct filter_bits bits = filter_bits(gva);

    dc->code_filter[bits.a / 64] |= BIT(bits.a % 64);
    dc->code_filter[bits.b / 64] |= BIT(bits.b % 64);
}

static bool may_be_code(const struct dbt_cpu *dc, u64 gva)
{
    struct filter_bits bits = filter_bits(gva);

    return dc->code_filter[bits.a / 64] >> bits.a % 64 &
           dc->code_filter[bits.b / 64] >> bits.b % 64 & 1;
}

static void drop_entry(struct tlb_entry *e, u64 page)
{
    if (align_down(e->read_tag, MEM_PAGE_SIZE) == page ||
        align_down(e->write_tag, MEM_PAGE_SIZE) == page)
        memset(e, 0xff, sizeof(*e));
}

static unsigned index_of(u64 gva)
{
    return (gva >> MEM_PAGE_SHIFT) & (TLB_ENTRIES - 1);
}

/* How many ways may have an entry for @gva. */
static unsigned ways_used(const struct tlb *tlb, u64 gva)
{
    return tlb->others >> index_of(gva) / GROUP & 1 ? TLB_WAYS : 1;
}

void tlb_flush_page(struct guest_cpu *cpu, u64 gva)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u64 page = align_down(gva, MEM_PAGE_SIZE);

    cpu->tlb_flushes++;
    trace_emit(TLB, tlb, (int)cpu->index, .action = "flush page", .gva = page);
    for (unsigned i = 0; i < DBT_SPACES * DBT_PRIVS; i++) {
        struct space *space = &dc->spaces[i / DBT_PRIVS];
        struct tlb *tlb = space->valid ? space->tlb[i % DBT_PRIVS] : NULL;

        if (!tlb || !tlb->first)
            continue;
        if (page >= tlb->large_first && page <= tlb->large_last) {
            clear(tlb);
            continue;
        }
        for (unsigned way = 0; way < ways_used(tlb, page); way++)
            drop_entry(&tlb->entry[way][index_of(page)], page);
    }
    /* A block's second page counts too: it was noted when the block was. */
    if (may_be_code(dc, page))
        tlb_drop_jumps(dc);
}

void tlb_flush_all(struct guest_cpu *cpu)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);

    for (unsigned i = 0; i < DBT_SPACES; i++)
        if (dc->spaces[i].valid)
            flush_space(dc, &dc->spaces[i]);
    dc->private_code = false;
    retag_shared(dc);
    memset(dc->code_filter, 0, sizeof(dc->code_filter));
}

void tlb_flush_tags(struct guest_cpu *cpu, u64 mask, u64 value)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);

    for (unsigned i = 0; i < DBT_SPACES; i++)
        if (dc->spaces[i].valid && dc->spaces[i].tag && (dc->spaces[i].tag & mask) == value)
            flush_space(dc, &dc->spaces[i]);
}

static void clear_local(struct tlb_entry *group, u64 gpa)
{
    (void)gpa;
    for (unsigned i = 0; i < GROUP; i++)
        if (!(group[i].gpa & 1))
            memset(&group[i], 0xff, sizeof(group[i]));
}

void tlb_flush_space(struct guest_cpu *cpu, u64 key, bool keep_global)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);

    for (unsigned i = 0; i < DBT_SPACES; i++) {
        struct space *space = &dc->spaces[i];

        if (!space->valid || space->key != key)
            continue;
        if (!keep_global) {
            flush_space(dc, space);
            retag_shared(dc);
            continue;
        }
        for (unsigned p = 0; p < DBT_PRIVS; p++)
            if (space->tlb[p])
                each_group(space->tlb[p], clear_local, 0);
        retag(dc, space);
        cpu->tlb_flushes++;
        trace_emit(TLB, tlb, (int)cpu->index, .action = "flush local", .space = space->key);
    }
}

static void revoke(struct tlb_entry *group, u64 gpa)
{
    for (unsigned i = 0; i < GROUP; i++)
        if ((__atomic_load_n(&group[i].gpa, __ATOMIC_RELAXED) & ~1ull) == gpa)
            __atomic_or_fetch(&group[i].write_tag, 1, __ATOMIC_SEQ_CST);
}

/* May run on another vCPU's thread while @dc fills entries: see the end of fill(). */
void tlb_revoke_write(struct dbt_cpu *dc, u64 gpa)
{
    for (unsigned i = 0; i < DBT_SPACES * DBT_PRIVS; i++) {
        struct tlb *tlb =
            __atomic_load_n(&dc->spaces[i / DBT_PRIVS].tlb[i % DBT_PRIVS], __ATOMIC_ACQUIRE);

        if (tlb)
            each_group(tlb, revoke, gpa);
    }
}

void tlb_free(struct dbt_cpu *dc)
{
    for (unsigned i = 0; i < DBT_SPACES * DBT_PRIVS; i++)
        free(dc->spaces[i / DBT_PRIVS].tlb[i % DBT_PRIVS]);
}

static bool may_cache_write(const struct mem_slot *slot, u64 gpa, const struct guest_page *page)
{
    return page->writable && !(slot->flags & (MEM_LOG_DIRTY | MEM_READONLY)) &&
           !__atomic_load_n(&slot->code[(gpa - slot->gpa) >> MEM_PAGE_SHIFT], __ATOMIC_SEQ_CST);
}

/* Puts @from elsewhere in its table. A revocation may have looked at neither place in time: the
 * question is asked again, after the entry can be seen there. */
static void move(struct guest_cpu *cpu, struct tlb_entry *to, struct tlb_entry from)
{
    u64 gpa = from.gpa & ~1ull;
    const struct mem_slot *slot;

    to->read_tag = from.read_tag;
    to->addend = from.addend;
    __atomic_store_n(&to->gpa, from.gpa, __ATOMIC_RELAXED);
    __atomic_store_n(&to->write_tag, from.write_tag, __ATOMIC_SEQ_CST);
    if (from.write_tag & 1)
        return;
    slot = mem_find(cpu->mem, gpa);
    if (!slot ||
        __atomic_load_n(&slot->code[(gpa - slot->gpa) >> MEM_PAGE_SHIFT], __ATOMIC_SEQ_CST))
        __atomic_or_fetch(&to->write_tag, 1, __ATOMIC_SEQ_CST);
}

/* The entry in the first way makes room. */
static void displace(struct guest_cpu *cpu, struct tlb *tlb, unsigned index, u64 page)
{
    struct tlb_entry *e = &tlb->entry[0][index];
    unsigned to = 0;

    if (e->read_tag == INVALID_TAG || align_down(e->read_tag, MEM_PAGE_SIZE) == page)
        return;
    for (unsigned way = 1; way < TLB_WAYS && !to; way++) {
        u64 tag = tlb->entry[way][index].read_tag;

        if (tag == INVALID_TAG || align_down(tag, MEM_PAGE_SIZE) == page)
            to = way;
    }
    if (!to)
        to = 1 + tlb->next_way++ % (TLB_WAYS - 1);
    __atomic_store_n(&tlb->others, tlb->others | BIT(index / GROUP), __ATOMIC_SEQ_CST);
    move(cpu, &tlb->entry[to][index], *e);
}

static void fill(struct guest_cpu *cpu, struct tlb *tlb, u64 gva, u64 gpa,
                 const struct guest_page *page, const struct mem_slot *slot)
{
    u64 at = align_down(gva, MEM_PAGE_SIZE);
    struct tlb_entry *e = &tlb->entry[0][index_of(gva)];
    u64 write_tag;

    trace_emit(TLB, tlb, (int)cpu->index, .action = "fill", .gva = gva, .gpa = gpa);
    if (page->page_shift > MEM_PAGE_SHIFT) {
        u64 first = align_down(gva, BIT(page->page_shift));
        u64 last = first + BIT(page->page_shift) - 1;

        if (first < tlb->large_first)
            tlb->large_first = first;
        if (last > tlb->large_last)
            tlb->large_last = last;
    }
    displace(cpu, tlb, index_of(gva), at);
    __atomic_store_n(&tlb->first, tlb->first | BIT(index_of(gva) / GROUP), __ATOMIC_SEQ_CST);
    e->read_tag = page->readable ? at : at | 1;
    e->addend = (u64)slot->hva + (gpa - slot->gpa) - gva;
    write_tag = may_cache_write(slot, gpa, page) ? at : at | 1;
    __atomic_store_n(&e->write_tag, at | 1, __ATOMIC_RELAXED);
    __atomic_store_n(&e->gpa, align_down(gpa, MEM_PAGE_SIZE) | page->global, __ATOMIC_SEQ_CST);
    __atomic_store_n(&e->write_tag, write_tag, __ATOMIC_SEQ_CST);
    /* A revocation between the question and the answer did not see the entry: ask again. */
    if (!(write_tag & 1) && !may_cache_write(slot, gpa, page))
        __atomic_or_fetch(&e->write_tag, 1, __ATOMIC_SEQ_CST);
}

/* The entry for the access, in the first way by now; NULL if there is none. */
static struct tlb_entry *find(struct guest_cpu *cpu, struct tlb *tlb, u64 gva,
                              enum guest_access access)
{
    u64 page = align_down(gva, MEM_PAGE_SIZE);

    for (unsigned way = 0; way < ways_used(tlb, gva); way++) {
        struct tlb_entry *e = &tlb->entry[way][index_of(gva)];

        if ((access == GUEST_WRITE ? e->write_tag : e->read_tag) == page) {
            struct tlb_entry *first = &tlb->entry[0][index_of(gva)], old = *first;

            if (way) {
                move(cpu, first, *e);
                move(cpu, e, old);
            }
            return first;
        }
    }
    return NULL;
}

struct slow_page tlb_slow(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct tlb *tlb = implicit ? tlb_of_priv(dc, DBT_PRIV_IMPLICIT) : cpu->tlb;
    struct tlb_entry *e = find(cpu, tlb, gva, access);
    struct slow_page slow = {0};
    struct guest_page page = {0};

    if (cpu->tlb_patience < 0)
        cpu->tlb_patience = TLB_PATIENCE;
    if (e) {
        u64 offset = gva & (MEM_PAGE_SIZE - 1);

        cpu->tlb_hits_slow++;
        slow.gpa = (e->gpa & ~1ull) | offset;
        slow.hva = (u8 *)(gva + e->addend);
        slow.slot = mem_find(cpu->mem, slow.gpa);
        slow.code = slow.slot && access == GUEST_WRITE &&
                    __atomic_load_n(&slow.slot->code[(slow.gpa - slow.slot->gpa) >> MEM_PAGE_SHIFT],
                                    __ATOMIC_SEQ_CST);
        return slow;
    }
    cpu->tlb_misses++;
    cpu->ops->walk(cpu, gva, access, implicit, false, &page);
    slow.gpa = page.gpa | (gva & (MEM_PAGE_SIZE - 1));
    slow.slot = mem_find(cpu->mem, slow.gpa);
    if (!slow.slot)
        return slow;
    fill(cpu, tlb, gva, slow.gpa, &page, slow.slot);
    if (access == GUEST_WRITE) {
        if (slow.slot->flags & MEM_READONLY)
            return slow; /* ROM: the write is MMIO */
        if (slow.slot->flags & MEM_LOG_DIRTY)
            mem_mark_dirty(slow.slot, slow.gpa);
        slow.code = __atomic_load_n(&slow.slot->code[(slow.gpa - slow.slot->gpa) >> MEM_PAGE_SHIFT],
                                    __ATOMIC_SEQ_CST);
    }
    slow.hva = slow.slot->hva + (slow.gpa - slow.slot->gpa);
    return slow;
}
