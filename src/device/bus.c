/*
 * A bus: a sorted table of address ranges. Readers are many and hot, writers are board set-up and,
 * rarely, a guest that moves a PCI BAR; hence a sequence lock, whose readers write nothing shared.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "device/device.h"

void device_bus_init(struct device_bus *bus)
{
    memset(bus, 0, sizeof(*bus));
    mutex_init(&bus->lock);
}

static void begin_change(struct device_bus *bus)
{
    __atomic_store_n(&bus->sequence, bus->sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void end_change(struct device_bus *bus)
{
    __atomic_store_n(&bus->sequence, bus->sequence + 1, __ATOMIC_RELEASE);
}

/* The table is copied word by word with atomics, because readers look at it meanwhile. */
static void store_region(struct device_region *to, const struct device_region *from)
{
    u64 *out = (u64 *)to;
    const u64 *in = (const u64 *)from;

    _Static_assert(sizeof(*to) % sizeof(u64) == 0, "copied by words");
    for (size_t i = 0; i < sizeof(*to) / sizeof(u64); i++)
        __atomic_store_n(&out[i], in[i], __ATOMIC_RELAXED);
}

static void load_region(struct device_region *to, const struct device_region *from)
{
    u64 *out = (u64 *)to;
    const u64 *in = (const u64 *)from;

    for (size_t i = 0; i < sizeof(*to) / sizeof(u64); i++)
        out[i] = __atomic_load_n(&in[i], __ATOMIC_RELAXED);
}

int device_bus_add(struct device_bus *bus, const struct device_region *region)
{
    u64 last = region->first + region->len - 1;
    u32 at = 0;
    int ret = 0;

    if (!region->len || last < region->first || !region->read || !region->write ||
        region->widest > 8 || (region->widest & (region->widest - 1)) || !region->widest)
        return -EINVAL;
    mutex_lock(&bus->lock);
    while (at < bus->count && bus->regions[at].first <= region->first)
        at++;
    if (bus->count == DEVICE_BUS_MAX_REGIONS)
        ret = -ENOSPC;
    else if ((at && bus->regions[at - 1].first + bus->regions[at - 1].len > region->first) ||
             (at < bus->count && bus->regions[at].first <= last))
        ret = -EEXIST;
    if (!ret) {
        begin_change(bus);
        for (u32 i = bus->count; i > at; i--)
            store_region(&bus->regions[i], &bus->regions[i - 1]);
        store_region(&bus->regions[at], region);
        __atomic_store_n(&bus->count, bus->count + 1, __ATOMIC_RELAXED);
        end_change(bus);
    }
    mutex_unlock(&bus->lock);
    return ret;
}

int device_bus_remove(struct device_bus *bus, u64 first)
{
    int ret = -ENOENT;

    mutex_lock(&bus->lock);
    for (u32 at = 0; at < bus->count; at++) {
        if (bus->regions[at].first != first)
            continue;
        begin_change(bus);
        for (u32 i = at; i + 1 < bus->count; i++)
            store_region(&bus->regions[i], &bus->regions[i + 1]);
        __atomic_store_n(&bus->count, bus->count - 1, __ATOMIC_RELAXED);
        end_change(bus);
        ret = 0;
        break;
    }
    mutex_unlock(&bus->lock);
    return ret;
}

void device_bus_forget(struct device_bus *bus, const struct device *dev)
{
    for (u32 at = 0; at < bus->count;) {
        if (bus->regions[at].dev == dev)
            device_bus_remove(bus, bus->regions[at].first);
        else
            at++;
    }
}

/* Binary search in a table that may be changing: the result counts only if the sequence held. */
static bool search(struct device_bus *bus, u64 addr, struct device_region *found)
{
    u32 low = 0, high = __atomic_load_n(&bus->count, __ATOMIC_RELAXED);

    while (low < high) {
        u32 middle = (low + high) / 2;

        if (__atomic_load_n(&bus->regions[middle].first, __ATOMIC_RELAXED) <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return false;
    load_region(found, &bus->regions[low - 1]);
    return addr - found->first < found->len;
}

static bool lookup(struct device_bus *bus, u64 addr, struct device_region *found)
{
    u32 before, after;
    bool hit;

    do {
        before = __atomic_load_n(&bus->sequence, __ATOMIC_ACQUIRE) & ~1u;
        hit = search(bus, addr, found);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        after = __atomic_load_n(&bus->sequence, __ATOMIC_RELAXED);
    } while (before != after);
    return hit;
}

/* The next piece of an access that the region takes at once. */
static unsigned piece_size(const struct device_region *region, u64 offset, unsigned left)
{
    unsigned size = region->widest;

    while (size > left || (offset & (size - 1)) || offset + size > region->len)
        size /= 2;
    return size;
}

static u64 value_mask(unsigned size)
{
    return size == 8 ? ~0ull : (1ull << size * 8) - 1;
}

bool device_bus_read(struct device_bus *bus, u64 addr, unsigned size, u64 *value)
{
    struct device_region region;
    bool all = true;
    unsigned done = 0;

    *value = 0;
    while (done < size) {
        unsigned piece = 1;
        u64 part = 0xff;

        if (lookup(bus, addr + done, &region)) {
            u64 offset = addr + done - region.first;

            piece = piece_size(&region, offset, size - done);
            mutex_lock(&region.dev->lock);
            part = region.read(region.dev, offset, piece) & value_mask(piece);
            mutex_unlock(&region.dev->lock);
        } else {
            all = false;
        }
        *value |= part << done * 8;
        done += piece;
    }
    return all;
}

bool device_bus_write(struct device_bus *bus, u64 addr, unsigned size, u64 value)
{
    struct device_region region;
    bool all = true;
    unsigned done = 0;

    while (done < size) {
        unsigned piece = 1;

        if (lookup(bus, addr + done, &region)) {
            u64 offset = addr + done - region.first;

            piece = piece_size(&region, offset, size - done);
            mutex_lock(&region.dev->lock);
            region.write(region.dev, offset, piece, value >> done * 8 & value_mask(piece));
            mutex_unlock(&region.dev->lock);
        } else {
            all = false;
        }
        done += piece;
    }
    return all;
}
