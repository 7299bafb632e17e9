#include "mem/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/thread.h"

#define MAX_READERS 256

/* Never written once published: slots sorted by gpa, none overlapping. */
struct table {
    unsigned count;
    struct mem_slot slots[MEM_MAX_SLOTS];
};

/* What no new reader can find any more, and the epoch from which on no reader holds it. */
struct retired {
    struct retired *next;
    u64 epoch;
    struct table *table;
    u64 *dirty;
    u8 *code;
};

struct reader {
    _Alignas(64) _Atomic u64 seen; /* the epoch at its last quiescent point; 0: offline */
};

struct mem {
    _Atomic(struct table *) table;
    _Atomic u64 epoch;       /* of the current table; counts from 1 */
    atomic_bool reclaimable; /* retired is not empty */
    pthread_mutex_t lock;    /* writers, and the retired list */
    struct retired *retired;
    struct mem_hooks hooks; /* set before the first reader starts */
    struct reader readers[MAX_READERS];
};

struct mem *mem_create(void)
{
    struct mem *mem = aligned_alloc(_Alignof(struct mem), sizeof(*mem));
    struct table *table = calloc(1, sizeof(*table));

    if (!mem || !table) {
        free(mem);
        free(table);
        return NULL;
    }
    memset(mem, 0, sizeof(*mem));
    mutex_init(&mem->lock);
    atomic_init(&mem->table, table);
    atomic_init(&mem->epoch, 1);
    return mem;
}

static void free_retired(struct retired *r)
{
    free(r->table);
    free(r->dirty);
    free(r->code);
    free(r);
}

void mem_destroy(struct mem *mem)
{
    struct table *table;

    if (!mem)
        return;
    table = atomic_load(&mem->table);
    for (unsigned i = 0; i < table->count; i++) {
        free(table->slots[i].dirty);
        free(table->slots[i].code);
    }
    free(table);
    while (mem->retired) {
        struct retired *r = mem->retired;

        mem->retired = r->next;
        free_retired(r);
    }
    pthread_mutex_destroy(&mem->lock);
    free(mem);
}

/* Frees what no online reader can hold. With mem->lock held. */
static void reclaim(struct mem *mem)
{
    struct retired **link = &mem->retired;
    u64 oldest = UINT64_MAX;

    for (unsigned i = 0; i < MAX_READERS; i++) {
        u64 seen = atomic_load(&mem->readers[i].seen);

        if (seen && seen < oldest)
            oldest = seen;
    }
    while (*link) {
        struct retired *r = *link;

        if (r->epoch <= oldest) {
            *link = r->next;
            free_retired(r);
        } else {
            link = &r->next;
        }
    }
    atomic_store(&mem->reclaimable, mem->retired != NULL);
}

void mem_reader_online(struct mem *mem, unsigned reader)
{
    BUG_ON(reader >= MAX_READERS);
    /* Sequentially consistent: the writer either sees this reader or has already published the
     * table this reader will load. */
    atomic_store(&mem->readers[reader].seen, atomic_load(&mem->epoch));
    atomic_thread_fence(memory_order_seq_cst);
}

void mem_reader_offline(struct mem *mem, unsigned reader)
{
    BUG_ON(reader >= MAX_READERS);
    atomic_store(&mem->readers[reader].seen, 0);
}

void mem_quiescent(struct mem *mem, unsigned reader)
{
    u64 epoch = atomic_load_explicit(&mem->epoch, memory_order_acquire);

    if (atomic_load_explicit(&mem->readers[reader].seen, memory_order_relaxed) == epoch)
        return;
    atomic_store_explicit(&mem->readers[reader].seen, epoch, memory_order_release);
    if (atomic_load_explicit(&mem->reclaimable, memory_order_relaxed) &&
        pthread_mutex_trylock(&mem->lock) == 0) {
        reclaim(mem);
        mutex_unlock(&mem->lock);
    }
}

u64 mem_generation(const struct mem *mem)
{
    return atomic_load_explicit(&mem->epoch, memory_order_acquire);
}

void mem_set_hooks(struct mem *mem, const struct mem_hooks *hooks)
{
    mem->hooks = hooks ? *hooks : (struct mem_hooks){0};
}

/* --- changing the table --------------------------------------------------------------------- */

static bool slot_valid(u32 id, u32 flags, u64 gpa, u64 size, const void *hva)
{
    if (id >= MEM_MAX_SLOTS || flags & ~(u32)(MEM_LOG_DIRTY | MEM_READONLY))
        return false;
    if (!size)
        return true;
    if ((gpa | size | (uintptr_t)hva) & (MEM_PAGE_SIZE - 1) || !hva)
        return false;
    return gpa + size > gpa;
}

static const struct mem_slot *slot_by_id(const struct table *table, u32 id)
{
    for (unsigned i = 0; i < table->count; i++) {
        if (table->slots[i].id == id)
            return &table->slots[i];
    }
    return NULL;
}

static bool overlaps(const struct table *table, const struct mem_slot *slot)
{
    for (unsigned i = 0; i < table->count; i++) {
        const struct mem_slot *s = &table->slots[i];

        if (s->id != slot->id && slot->gpa < s->gpa + s->size && s->gpa < slot->gpa + slot->size)
            return true;
    }
    return false;
}

/* @old without slot @id and with @slot (may be NULL) in its place by gpa. */
static struct table *table_with(const struct table *old, u32 id, const struct mem_slot *slot)
{
    struct table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    for (unsigned i = 0; i < old->count; i++) {
        if (old->slots[i].id == id)
            continue;
        if (slot && slot->gpa < old->slots[i].gpa) {
            table->slots[table->count++] = *slot;
            slot = NULL;
        }
        table->slots[table->count++] = old->slots[i];
    }
    if (slot)
        table->slots[table->count++] = *slot;
    return table;
}

/* What the new slot takes over from @old (may be NULL) and what it needs anew. */
static int slot_arrays(struct mem_slot *slot, const struct mem_slot *old)
{
    u64 pages = slot->size >> MEM_PAGE_SHIFT;

    if (slot->flags & MEM_LOG_DIRTY) {
        slot->dirty = old ? old->dirty : NULL;
        if (!slot->dirty)
            slot->dirty = calloc((pages + 63) / 64, sizeof(u64));
        if (!slot->dirty)
            return -ENOMEM;
    }
    slot->code = old && old->gpa == slot->gpa ? old->code : NULL;
    if (!slot->code)
        slot->code = calloc(pages, 1);
    if (!slot->code) {
        if (!old || slot->dirty != old->dirty)
            free(slot->dirty);
        return -ENOMEM;
    }
    return 0;
}

/* Makes @table what readers find, and retires the old one with what @old loses to @slot. */
static void publish(struct mem *mem, struct table *table, struct retired *r,
                    const struct mem_slot *old, const struct mem_slot *slot)
{
    r->table = atomic_load(&mem->table);
    if (old) {
        r->dirty = slot && slot->dirty == old->dirty ? NULL : old->dirty;
        r->code = slot && slot->code == old->code ? NULL : old->code;
    }
    atomic_store(&mem->table, table);
    r->epoch = atomic_fetch_add(&mem->epoch, 1) + 1;
    r->next = mem->retired;
    mem->retired = r;
    reclaim(mem);
}

static int change_table(struct mem *mem, const struct mem_slot *old, struct mem_slot *slot, u32 id)
{
    struct retired *r = calloc(1, sizeof(*r));
    struct table *table = NULL;

    if (!r || (slot && slot_arrays(slot, old) < 0)) {
        free(r);
        return -ENOMEM;
    }
    table = table_with(atomic_load(&mem->table), id, slot);
    if (!table) {
        if (slot && (!old || slot->dirty != old->dirty))
            free(slot->dirty);
        if (slot && (!old || slot->code != old->code))
            free(slot->code);
        free(r);
        return -ENOMEM;
    }
    publish(mem, table, r, old, slot);
    return 0;
}

/* The checks of KVM_SET_USER_MEMORY_REGION (Documentation/virt/kvm/api.rst 4.35), then the change.
 * With mem->lock held. *@gone is set to what is no longer memory where it was. */
static int set_slot_locked(struct mem *mem, struct mem_slot *slot, struct mem_slot *gone)
{
    const struct table *table = atomic_load(&mem->table);
    const struct mem_slot *old = slot_by_id(table, slot->id);

    if (!slot->size) {
        if (!old)
            return -EINVAL;
        *gone = *old;
        return change_table(mem, old, NULL, slot->id);
    }
    if (old) {
        if (old->size != slot->size || old->hva != slot->hva ||
            (old->flags ^ slot->flags) & MEM_READONLY)
            return -EINVAL;
        if (old->gpa == slot->gpa && old->flags == slot->flags)
            return 1;
        if (old->gpa != slot->gpa)
            *gone = *old;
    }
    if (overlaps(table, slot))
        return -EEXIST;
    return change_table(mem, old, slot, slot->id);
}

int mem_set_slot(struct mem *mem, u32 id, u32 flags, u64 gpa, u64 size, void *hva)
{
    struct mem_slot slot = {.id = id, .flags = flags, .gpa = gpa, .size = size, .hva = hva};
    struct mem_slot gone = {0};
    int rc;

    if (!slot_valid(id, flags, gpa, size, hva))
        return -EINVAL;
    mutex_lock(&mem->lock);
    rc = set_slot_locked(mem, &slot, &gone);
    mutex_unlock(&mem->lock);
    if (rc)
        return rc < 0 ? rc : 0;

    if (gone.size && mem->hooks.code_written)
        mem->hooks.code_written(mem->hooks.opaque, gone.gpa, gone.size);
    if (mem->hooks.slots_changed)
        mem->hooks.slots_changed(mem->hooks.opaque);
    return 0;
}

/* --- readers -------------------------------------------------------------------------------- */

const struct mem_slot *mem_find(const struct mem *mem, u64 gpa)
{
    const struct table *table = atomic_load_explicit(&mem->table, memory_order_acquire);
    unsigned low = 0, high = table->count;

    while (low < high) {
        unsigned mid = (low + high) / 2;
        const struct mem_slot *slot = &table->slots[mid];

        if (gpa < slot->gpa)
            high = mid;
        else if (gpa - slot->gpa >= slot->size)
            low = mid + 1;
        else
            return slot;
    }
    return NULL;
}

u8 *mem_hva(const struct mem *mem, u64 gpa, u64 len, bool write)
{
    const struct mem_slot *slot = mem_find(mem, gpa);

    if (!slot || (write && slot->flags & MEM_READONLY) || len > slot->size - (gpa - slot->gpa))
        return NULL;
    return slot->hva + (gpa - slot->gpa);
}

void mem_mark_dirty(const struct mem_slot *slot, u64 gpa)
{
    u64 page = (gpa - slot->gpa) >> MEM_PAGE_SHIFT;
    u64 bit = BIT(page % 64);

    /* Reading first keeps a page that is dirty already from bouncing between CPUs. */
    if (slot->dirty && !(__atomic_load_n(&slot->dirty[page / 64], __ATOMIC_RELAXED) & bit))
        __atomic_fetch_or(&slot->dirty[page / 64], bit, __ATOMIC_SEQ_CST);
}

/* One page, or the part of it that [gpa, gpa+len) covers, was written in @slot. */
static void page_written(struct mem *mem, const struct mem_slot *slot, u64 gpa, u64 len)
{
    u64 page = (gpa - slot->gpa) >> MEM_PAGE_SHIFT;

    mem_mark_dirty(slot, gpa);
    if (__atomic_load_n(&slot->code[page], __ATOMIC_SEQ_CST) && mem->hooks.code_written)
        mem->hooks.code_written(mem->hooks.opaque, gpa, len);
}

void mem_wrote(struct mem *mem, u64 gpa, u64 len)
{
    /* The data must be visible before the code bytes are looked at: a translator sets the byte
     * first and reads the page then. */
    atomic_thread_fence(memory_order_seq_cst);
    while (len) {
        const struct mem_slot *slot = mem_find(mem, gpa);
        u64 part = MEM_PAGE_SIZE - gpa % MEM_PAGE_SIZE;

        if (part > len)
            part = len;
        if (slot)
            page_written(mem, slot, gpa, part);
        gpa += part;
        len -= part;
    }
}

/* How much of [gpa, gpa+len) lies in the slot that @p was found in. */
static u64 part_in_slot(const struct mem_slot *slot, u64 gpa, u64 len)
{
    u64 room = slot->size - (gpa - slot->gpa);

    return len < room ? len : room;
}

int mem_read(const struct mem *mem, u64 gpa, void *buf, u64 len)
{
    u8 *to = buf;

    while (len) {
        const struct mem_slot *slot = mem_find(mem, gpa);
        u64 part;

        if (!slot)
            return -EFAULT;
        part = part_in_slot(slot, gpa, len);
        memcpy(to, slot->hva + (gpa - slot->gpa), part);
        to += part;
        gpa += part;
        len -= part;
    }
    return 0;
}

/* mem_write and mem_fill: @from is NULL for a fill with @byte. */
static int write_or_fill(struct mem *mem, u64 gpa, const u8 *from, u8 byte, u64 len)
{
    while (len) {
        const struct mem_slot *slot = mem_find(mem, gpa);
        u64 part;

        if (!slot || slot->flags & MEM_READONLY)
            return -EFAULT;
        part = part_in_slot(slot, gpa, len);
        if (from)
            memcpy(slot->hva + (gpa - slot->gpa), from, part);
        else
            memset(slot->hva + (gpa - slot->gpa), byte, part);
        mem_wrote(mem, gpa, part);
        from = from ? from + part : NULL;
        gpa += part;
        len -= part;
    }
    return 0;
}

int mem_write(struct mem *mem, u64 gpa, const void *buf, u64 len)
{
    return write_or_fill(mem, gpa, buf, 0, len);
}

int mem_fill(struct mem *mem, u64 gpa, u8 byte, u64 len)
{
    return write_or_fill(mem, gpa, NULL, byte, len);
}

int mem_get_dirty(struct mem *mem, u32 id, u64 *bitmap, size_t bitmap_bytes)
{
    const struct mem_slot *slot;
    int rc = 0;

    mutex_lock(&mem->lock); /* keeps the table: the caller need not be a reader */
    slot = slot_by_id(atomic_load(&mem->table), id);
    if (!slot || !slot->dirty) {
        rc = -ENOENT;
    } else {
        u64 words = ((slot->size >> MEM_PAGE_SHIFT) + 63) / 64;

        if (bitmap_bytes < words * sizeof(u64)) {
            rc = -EINVAL;
        } else {
            for (u64 i = 0; i < words; i++)
                bitmap[i] = __atomic_exchange_n(&slot->dirty[i], 0, __ATOMIC_SEQ_CST);
        }
    }
    mutex_unlock(&mem->lock);
    /* After the exchange: a store through a permission cached before it went to a page that is in
     * this bitmap, and one after the reset marks the page for the next. */
    if (!rc && mem->hooks.dirty_reset)
        mem->hooks.dirty_reset(mem->hooks.opaque);
    return rc;
}
