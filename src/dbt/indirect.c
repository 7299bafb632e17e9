/*
 * Where jumps through memory and returns lead. Nobody counts that while all is well: when a loop
 * has become hot and such jumps are in it, the jump cache is turned off for a moment, each of them
 * comes to translate_missed, and their destinations are noted. A region then has a comparison for
 * each.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "dbt/internal.h"

#define NOTES 512
#define WINDOW 512 /* jumps that are looked at, */
#define SHARE 64   /* of which a destination has this part at least, if it is to matter */

static u32 hash_of(u64 from, u32 mode)
{
    return (u32)((from ^ (u64)mode << 40) * 0x9e3779b97f4a7c15ull >> 32) %
           (NOTES - INDIRECT_TARGETS);
}

void indirect_watch(struct dbt_cpu *dc, struct block *block)
{
    u32 hot = dc->dbt->config.hot;

    __atomic_store_n(&block->watched, true, __ATOMIC_RELAXED);
    if (!dc->notes)
        dc->notes = calloc(NOTES, sizeof(*dc->notes));
    if (!dc->notes)
        return;
    dc->watching = hot < WINDOW / 64 ? hot * 64 : WINDOW;
    tlb_choose_jumps(dc);
}

static struct jump_note *note_for(struct dbt_cpu *dc, u64 from, u64 to)
{
    struct jump_note *first = &dc->notes[hash_of(from, dc->cpu->mode)], *least = first;

    for (struct jump_note *note = first; note < first + INDIRECT_TARGETS; note++) {
        if (note->from == from && note->to == to && note->mode == dc->cpu->mode)
            return note;
        if (note->count < least->count)
            least = note;
    }
    *least = (struct jump_note){from, to, dc->cpu->mode, 0};
    return least;
}

void indirect_note(struct dbt_cpu *dc, u64 from, const struct block *to)
{
    u64 pc = dc->cpu->ops->pc(dc->cpu);

    if (!--dc->watching)
        tlb_choose_jumps(dc);
    if (!dc->dbt->config.direct) { /* within the page, where the mapping is the same for both */
        if (align_down(from, MEM_PAGE_SIZE) != align_down(pc, MEM_PAGE_SIZE))
            return;
        from = align_down(to->gpa, MEM_PAGE_SIZE) | (from & (MEM_PAGE_SIZE - 1));
    }
    note_for(dc, from, to->gpa)->count++;
}

u32 indirect_targets(const struct dbt_cpu *dc, u64 from, struct jump_note to[INDIRECT_TARGETS])
{
    u32 n = 0, all = 0;

    for (u32 i = 0; dc->notes && i < INDIRECT_TARGETS; i++) {
        const struct jump_note *note = &dc->notes[hash_of(from, dc->cpu->mode) + i];
        u32 at = n;

        if (note->from != from || note->mode != dc->cpu->mode)
            continue;
        for (; at && to[at - 1].count < note->count; at--)
            to[at] = to[at - 1];
        to[at] = *note;
        all += note->count;
        n++;
    }
    while (n && to[n - 1].count < all / SHARE)
        n--;
    return n;
}

bool indirect_leads_to(const struct dbt_cpu *dc, const struct block *block)
{
    u32 count = 0;

    for (u32 i = 0; dc->notes && i < NOTES; i++) {
        if (dc->notes[i].to == block->gpa && dc->notes[i].mode == block->mode)
            count += dc->notes[i].count;
    }
    return count > 1;
}
