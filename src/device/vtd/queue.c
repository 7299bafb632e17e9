/* Queued invalidation (VT-d 6.5.2). */
#include "device/vtd/vtd.h"

enum {
    CONTEXT_CACHE = 1,
    IOTLB = 2,
    INTERRUPT_ENTRIES = 4,
    WAIT = 5,

    GRANULARITY = 0x30,
    WAIT_INTERRUPT = BIT(4),
    WAIT_STATUS = BIT(5),
    MASK = 0x3f, /* of an IOTLB descriptor's second half, with the largest that CAP offers */
    MASK_MAX = 18,
    DESCRIPTOR_BYTES = 16,
};

struct descriptor {
    u64 low, high;
};

/* Bits that must be 0, by type; what is no type here is no descriptor for this unit. */
static const struct {
    u64 low, high;
} reserved[] = {
    [CONTEXT_CACHE] = {0xfffc00000000ffc0, ~0ull},
    [IOTLB] = {0xffffffff0000ff00, 0xf80},
    [INTERRUPT_ENTRIES] = {0xffff000007ffffe0, ~0ull},
    [WAIT] = {0xffffff80, 3},
};

static unsigned type_of(const struct descriptor *d)
{
    return (d->low & 15) | (d->low >> 5 & 0x70); /* bits 11:9 are its upper ones */
}

static bool valid(const struct vtd *vtd, const struct descriptor *d)
{
    unsigned type = type_of(d);

    if (type >= ARRAY_SIZE(reserved) || !reserved[type].low)
        return false;
    if ((d->low & reserved[type].low) || (d->high & reserved[type].high))
        return false;
    if (type == INTERRUPT_ENTRIES)
        return vtd->remaps;
    if (type == IOTLB && (d->low & GRANULARITY) == GRANULARITY && (d->high & MASK) > MASK_MAX)
        return false;
    return type == WAIT || (d->low & GRANULARITY);
}

/* Software sees the status once everything before is done. */
static void wait(struct vtd *vtd, const struct descriptor *d)
{
    struct mem *mem = vtd->dev.env->mem;
    u64 gpa = d->high & (BIT(DEVICE_VTD_HOST_BITS) - 1);
    u32 *status = (u32 *)mem_hva(mem, gpa, sizeof(*status), true);

    if ((d->low & WAIT_STATUS) && status) {
        __atomic_store_n(status, (u32)(d->low >> 32), __ATOMIC_RELEASE);
        mem_wrote(mem, gpa, sizeof(*status));
    }
    if (d->low & WAIT_INTERRUPT)
        vtd_wait_done(vtd);
}

/* The next descriptor. False when there is none to carry out. */
static bool fetch(struct vtd *vtd, struct descriptor *d)
{
    const u64 *regs = vtd->state.regs;
    u64 bytes = MEM_PAGE_SIZE << (regs[VTD_IQA] & VTD_IQA_SIZE);

    if (!(regs[VTD_GSTS] & VTD_GCMD_QIE) || (regs[VTD_FSTS] & VTD_FSTS_IQE) ||
        regs[VTD_IQH] == regs[VTD_IQT])
        return false;
    if (regs[VTD_IQT] < bytes && regs[VTD_IQH] < bytes &&
        !mem_read(vtd->dev.env->mem, (regs[VTD_IQA] & VTD_PAGES) + regs[VTD_IQH], d, sizeof(*d)) &&
        valid(vtd, d))
        return true;
    vtd_queue_error(vtd); /* the head stays at it */
    return false;
}

void vtd_run_queue(struct vtd *vtd)
{
    u64 *regs = vtd->state.regs;
    struct descriptor d;

    if (vtd->queue_busy) /* another vCPU is at it, and will find what was added */
        return;
    vtd->queue_busy = true;
    while (fetch(vtd, &d)) {
        u64 bytes = MEM_PAGE_SIZE << (regs[VTD_IQA] & VTD_IQA_SIZE);

        if (type_of(&d) == WAIT)
            wait(vtd, &d);
        else
            vtd_drain(vtd);
        if (regs[VTD_GSTS] & VTD_GCMD_QIE) /* not turned off meanwhile */
            regs[VTD_IQH] = (regs[VTD_IQH] + DESCRIPTOR_BYTES) & (bytes - 1);
    }
    vtd->queue_busy = false;
}
