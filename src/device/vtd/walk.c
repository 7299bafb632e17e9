/* From a request to the address in memory: root table, context table, second-stage paging (VT-d
 * 9). */
#include <errno.h>

#include "base/thread.h"
#include "device/vtd/vtd.h"

enum {
    PRESENT = BIT(0),
    NO_FAULTS = BIT(1), /* of a context entry: they are not recorded */
    TYPE_SHIFT = 2,
    TYPE_MASK = 3,
    TYPE_PAGED = 0,
    TYPE_PASS_THROUGH = 2,
    WIDTH_MASK = 7,
    WIDTH_3_LEVELS = 1,
    WIDTH_4_LEVELS = 2,

    READ = BIT(0), /* of a paging entry */
    WRITE = BIT(1),
    LARGE = BIT(7),
    SNOOP = BIT(11), /* of one that maps a page */
    LEVEL_BITS = 9,
    LARGEST = 3, /* level: 1 GiB */
};

#define HOST_MASK (BIT(DEVICE_VTD_HOST_BITS) - 1)
#define ROOT_RESERVED (0xffeull | (VTD_PAGES & ~HOST_MASK))
#define CONTEXT_RESERVED (0xff0ull | (VTD_PAGES & ~HOST_MASK))
#define CONTEXT_RESERVED_HIGH (BIT(7) | ~(BIT(24) - 1))
#define PAGING_RESERVED (BIT(62) | (0x000ffffffffff000ull & ~HOST_MASK))
#define INTERRUPTS 0xfee00000ull
#define INTERRUPTS_BYTES MiB

struct request {
    u64 address;
    bool write;
    bool silent;        /* faults are not recorded */
    u64 gpa, page_mask; /* answer */
};

static enum vtd_fault walk_pages(struct vtd *vtd, u64 table, unsigned levels, struct request *r)
{
    const struct mem *mem = vtd->dev.env->mem;
    u64 need = r->write ? WRITE : READ;

    if (r->address >> (MEM_PAGE_SHIFT + LEVEL_BITS * levels))
        return VTD_BEYOND_WIDTH;
    for (unsigned level = levels;; level--) {
        unsigned shift = MEM_PAGE_SHIFT + LEVEL_BITS * (level - 1);
        u64 index = r->address >> shift & (BIT(LEVEL_BITS) - 1), entry, reserved = PAGING_RESERVED;
        bool leaf;

        if (mem_read(mem, table + 8 * index, &entry, sizeof(entry)))
            return level == levels ? VTD_BAD_CONTEXT : VTD_PAGING_ACCESS;
        /* Without both rights the rest means nothing. */
        if (!(entry & (READ | WRITE)))
            return r->write ? VTD_NO_WRITE : VTD_NO_READ;
        leaf = level == 1 || (entry & LARGE);
        r->page_mask = BIT(shift) - 1;
        reserved |= leaf ? r->page_mask & VTD_PAGES : SNOOP;
        if (level > LARGEST)
            reserved |= LARGE;
        if (entry & reserved)
            return VTD_PAGING_RESERVED;
        if (!(entry & need))
            return r->write ? VTD_NO_WRITE : VTD_NO_READ;
        table = entry & HOST_MASK & VTD_PAGES;
        if (leaf) {
            r->gpa = table | (r->address & r->page_mask);
            return r->gpa - INTERRUPTS < INTERRUPTS_BYTES ? VTD_TO_INTERRUPTS : VTD_OK;
        }
    }
}

static enum vtd_fault walk(struct vtd *vtd, u16 source, struct request *r)
{
    const struct mem *mem = vtd->dev.env->mem;
    u64 root[2], context[2];

    if (mem_read(mem, vtd->state.root + 16 * (source >> 8), root, sizeof(root)))
        return VTD_ROOT_ACCESS;
    if (!(root[0] & PRESENT))
        return VTD_NO_ROOT;
    if ((root[0] & ROOT_RESERVED) || root[1])
        return VTD_ROOT_RESERVED;
    if (mem_read(mem, (root[0] & VTD_PAGES) + 16 * (source & 0xff), context, sizeof(context)))
        return VTD_CONTEXT_ACCESS;
    r->silent = context[0] & NO_FAULTS;
    if (!(context[0] & PRESENT))
        return VTD_NO_CONTEXT;
    if ((context[0] & CONTEXT_RESERVED) || (context[1] & CONTEXT_RESERVED_HIGH))
        return VTD_CONTEXT_RESERVED;
    if ((context[1] & WIDTH_MASK) != WIDTH_3_LEVELS && (context[1] & WIDTH_MASK) != WIDTH_4_LEVELS)
        return VTD_BAD_CONTEXT;
    switch (context[0] >> TYPE_SHIFT & TYPE_MASK) {
    case TYPE_PAGED:
        return walk_pages(vtd, context[0] & VTD_PAGES,
                          (context[1] & WIDTH_MASK) == WIDTH_3_LEVELS ? 3 : 4, r);
    case TYPE_PASS_THROUGH:
        r->gpa = r->address;
        r->page_mask = HOST_MASK;
        return r->address & ~HOST_MASK ? VTD_BEYOND_WIDTH : VTD_OK;
    default: /* with device TLBs, and one that is none */
        return VTD_BAD_CONTEXT;
    }
}

/* Bytes at @address up to the end of the naturally aligned block of @mask + 1. */
static u64 rest(u64 address, u64 mask, u64 len)
{
    u64 left = mask - (address & mask); /* one less than there are */

    return len - 1 < left ? len : left + 1;
}

int vtd_translate(struct device *dev, u16 source, u64 address, bool write, u64 *gpa, u64 *len)
{
    struct vtd *vtd = to_vtd(dev);
    struct request r = {.address = address, .write = write};
    enum vtd_fault fault = VTD_OK;

    if (!*len)
        return -EINVAL;
    mutex_lock(&dev->lock);
    if (!(vtd->state.regs[VTD_GSTS] & VTD_GCMD_TE)) {
        r.gpa = address;
        r.page_mask = ~0ull;
    } else if (address - INTERRUPTS < INTERRUPTS_BYTES) {
        r.gpa = address; /* no memory is there, whatever the tables say (3.15) */
        r.page_mask = INTERRUPTS_BYTES - 1;
    } else {
        fault = walk(vtd, source, &r);
        if (fault && !r.silent)
            vtd_record(vtd, fault, source, address, !write);
    }
    mutex_unlock(&dev->lock);
    if (fault)
        return -EFAULT;
    *gpa = r.gpa;
    *len = rest(address, r.page_mask, *len);
    return 0;
}

/* ---- Work under way -------------------------------------------------------------------------- */

void vtd_begin(struct device *dev)
{
    mutex_lock(&dev->lock);
    to_vtd(dev)->begun++;
    mutex_unlock(&dev->lock);
}

void vtd_end(struct device *dev)
{
    struct vtd *vtd = to_vtd(dev);

    mutex_lock(&dev->lock);
    vtd->ended++;
    pthread_cond_broadcast(&vtd->done);
    mutex_unlock(&dev->lock);
}

void vtd_drain(struct vtd *vtd)
{
    u64 all = vtd->begun;

    while (vtd->ended < all)
        pthread_cond_wait(&vtd->done, &vtd->dev.lock);
}
