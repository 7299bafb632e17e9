/*
 * Guest-physical memory: memslots, as KVM has them, from gpa to hva, with dirty logs.
 *
 * Readers (translated code's slow paths, devices) take no lock: the slot table is immutable, a new
 * one replaces it, and the old one is freed when every registered reader has passed a quiescent
 * point (mem_quiescent). A gpa outside all slots is not memory: for a CPU it is MMIO.
 */
#ifndef TRIODE_MEM_H
#define TRIODE_MEM_H

#include "base/err.h"
#include "base/types.h"

#define MEM_PAGE_SHIFT 12
#define MEM_PAGE_SIZE 4096ull
#define MEM_MAX_SLOTS 64

enum {
    MEM_LOG_DIRTY = 1 << 0, /* KVM_MEM_LOG_DIRTY_PAGES */
    MEM_READONLY = 1 << 1,  /* KVM_MEM_READONLY: writes are MMIO */
};

struct mem_slot {
    u32 id, flags;
    u64 gpa, size; /* both page-aligned */
    u8 *hva;
    u64 *dirty; /* one bit a page, set by writers with atomic or; NULL without MEM_LOG_DIRTY */
    u8 *code;   /* one byte a page, not 0 while translated code was made from the page */
};

struct mem;

struct mem *mem_create(void);
void mem_destroy(struct mem *mem);

/* Adds, changes or (size 0) removes slot @id, as KVM_SET_USER_MEMORY_REGION does: in place only gpa
 * and MEM_LOG_DIRTY may change. -EINVAL: not page-aligned, id or flags unknown, an end beyond 2^64,
 * another change in place, no such slot to remove; -EEXIST: overlaps another slot; -ENOMEM. The
 * host memory stays the caller's. Of a slot removed or moved, code_written hears the old range
 * whole. */
int mem_set_slot(struct mem *mem, u32 id, u32 flags, u64 gpa, u64 size, void *hva);

/* A counter that changes with every slot change; cached translations compare it. */
u64 mem_generation(const struct mem *mem);

/* The slot that holds @gpa, or NULL. Valid until the calling thread's next mem_quiescent. */
const struct mem_slot *mem_find(const struct mem *mem, u64 gpa);

/* hva of @gpa if [gpa, gpa+len) lies within one slot, else NULL. For a write, also NULL if the slot
 * is read-only; the caller then owes mem_wrote(). */
u8 *mem_hva(const struct mem *mem, u64 gpa, u64 len, bool write);

/* Tells the dirty log and the owner of translated code that [gpa, gpa+len) was written by other
 * means than a CPU's translated stores (a device, the loader, a state setter). */
void mem_wrote(struct mem *mem, u64 gpa, u64 len);

/* Copies that may span slots. 0, or -EFAULT when a part is not memory (the rest is then undone for
 * nobody: what was copied before the hole stays). */
int mem_read(const struct mem *mem, u64 gpa, void *buf, u64 len);
int mem_write(struct mem *mem, u64 gpa, const void *buf, u64 len);
int mem_fill(struct mem *mem, u64 gpa, u8 byte, u64 len);

/* Sets the dirty bit of the page of @gpa in @slot. */
void mem_mark_dirty(const struct mem_slot *slot, u64 gpa);

/* Copies slot @id's dirty bitmap out and clears it (KVM_GET_DIRTY_LOG). -ENOENT without a log,
 * -EINVAL when @bitmap_bytes is less than the pages rounded up to 64, by eight. Calls dirty_reset
 * before it returns. */
int mem_get_dirty(struct mem *mem, u32 id, u64 *bitmap, size_t bitmap_bytes);

/* What the owner of translated code and of soft TLBs wants to hear of. Called without a lock of
 * mem's; set before the first reader runs. */
struct mem_hooks {
    void (*code_written)(void *opaque, u64 gpa, u64 len); /* page had its code byte set */
    void (*slots_changed)(void *opaque);                  /* soft TLBs must be flushed */
    void (*dirty_reset)(void *opaque); /* write permissions must be re-earned; in force on return */
    void *opaque;
};
void mem_set_hooks(struct mem *mem, const struct mem_hooks *hooks);

/* A reader thread says "I hold no slot pointer now". Registration is by reader index 0..255. Every
 * thread that reads while slots may change (vCPUs, the I/O thread) is registered; while it sleeps
 * or waits it goes offline, so that it holds up no reclamation. */
void mem_reader_online(struct mem *mem, unsigned reader);
void mem_reader_offline(struct mem *mem, unsigned reader);
void mem_quiescent(struct mem *mem, unsigned reader);

/* Guest RAM: a memfd mapped shared, so that another process can map it too. Unmaps/closes in
 * mem_ram_free. */
struct mem_ram {
    u8 *hva;
    u64 size;
    int fd;
};
int mem_ram_alloc(struct mem_ram *ram, u64 size, struct err *err);
void mem_ram_free(struct mem_ram *ram);
/* All of [hva, hva + size), @hva a page's beginning, is about to be written: has the host give
 * memory for it at once, in huge pages where it can, which costs a tenth of what the faults
 * would. */
void mem_populate(u8 *hva, u64 size);

#endif
