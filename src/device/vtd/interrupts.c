/* Interrupt remapping (VT-d 5.1). */
#include "base/thread.h"
#include "device/vtd/vtd.h"

enum {
    REMAPPABLE = BIT(4), /* of a message's address */
    SUBHANDLE = BIT(3),
    HANDLE_HIGH = BIT(2),

    PRESENT = BIT(0), /* of an entry */
    NO_FAULTS = BIT(1),
    LOGICAL_SHIFT = 2,
    HINT_SHIFT = 3,
    LEVEL = BIT(4),
    DELIVERY_SHIFT = 5,
    VECTOR_SHIFT = 16,
    DESTINATION_SHIFT = 32,
    XAPIC_SHIFT = 40,
    QUALIFIER_SHIFT = 16, /* of its second half */
    VALIDATION_SHIFT = 18,

    BY_NOTHING = 0,
    BY_ID = 1,
    BY_BUS = 2,
    BY_RESERVED = 3,

    MESSAGE_ASSERT = BIT(14), /* of the data that is sent */
    MESSAGE_LEVEL = BIT(15),
};

#define WINDOW 0xfee00000u
#define ENTRY_RESERVED 0xff00f000ull         /* with the mode bit: there are no posted interrupts */
#define XAPIC_RESERVED 0xffff00ff00000000ull /* while destinations have 8 bits */
#define SOURCE_RESERVED 0xfffffffffff00000ull

static bool from(u16 source, u64 entry)
{
    static const u16 ignored[] = {0, 4, 6, 7}; /* function bits, by qualifier */
    u16 wanted = (u16)entry;

    switch (entry >> VALIDATION_SHIFT & 3) {
    case BY_ID:
        return !((source ^ wanted) & ~ignored[entry >> QUALIFIER_SHIFT & 3]);
    case BY_BUS:
        return source >> 8 >= wanted >> 8 && source >> 8 <= (wanted & 0xff);
    default:
        return true;
    }
}

static void make_message(const struct vtd *vtd, u64 entry, u64 *address, u32 *data)
{
    bool wide = vtd->state.interrupts & VTD_IRTA_EIME;
    u32 dest = wide ? (u32)(entry >> DESTINATION_SHIFT) : (u8)(entry >> XAPIC_SHIFT);

    *address = (u64)(dest & 0xffffff00) << 32 | WINDOW | (dest & 0xff) << 12 |
               (entry >> HINT_SHIFT & 1) << 3 | (entry >> LOGICAL_SHIFT & 1) << 2;
    *data = (u32)(entry >> VECTOR_SHIFT & 0xff) | (u32)(entry >> DELIVERY_SHIFT & 7) << 8 |
            MESSAGE_ASSERT; /* always (5.1.4) */
    if (entry & LEVEL)
        *data |= MESSAGE_LEVEL;
}

/* *@index: the entry's number, as far as it is known; *@silent: faults are not recorded. */
static enum vtd_fault remap(struct vtd *vtd, u16 source, u64 *address, u32 *data, u32 *index,
                            bool *silent)
{
    u64 table = vtd->state.interrupts, wide = table & VTD_IRTA_EIME, entry[2], at;

    if (!(*address & REMAPPABLE))
        return wide || !(vtd->state.regs[VTD_GSTS] & VTD_GCMD_CFI) ? VTD_COMPATIBILITY : VTD_OK;
    *index = (u32)(*address >> 5 & 0x7fff) | (*address & HANDLE_HIGH ? 0x8000 : 0);
    if (*address & SUBHANDLE) {
        if (*data >> 16)
            return VTD_INTERRUPT_RESERVED;
        *index += (u16)*data;
    }
    at = (table & VTD_PAGES) + 16ull * *index;
    if (*index >> ((table & VTD_IRTA_SIZE) + 1) || at >> DEVICE_VTD_HOST_BITS)
        return VTD_INTERRUPT_INDEX;
    if (mem_read(vtd->dev.env->mem, at, entry, sizeof(entry)))
        return VTD_INTERRUPT_ACCESS;
    *silent = entry[0] & NO_FAULTS;
    if (!(entry[0] & PRESENT))
        return VTD_INTERRUPT_ABSENT;
    if (!from(source, entry[1]))
        return VTD_WRONG_SOURCE;
    if ((entry[0] & ENTRY_RESERVED) || (!wide && (entry[0] & XAPIC_RESERVED)) ||
        (entry[1] & SOURCE_RESERVED) || (entry[1] >> VALIDATION_SHIFT & 3) == BY_RESERVED)
        return VTD_ENTRY_RESERVED;
    make_message(vtd, entry[0], address, data);
    return VTD_OK;
}

bool device_vtd_remap(struct device *dev, u16 source, u64 *address, u32 *data)
{
    struct vtd *vtd = to_vtd(dev);
    enum vtd_fault fault = VTD_OK;
    bool silent = false;
    u32 index = 0;

    mutex_lock(&dev->lock);
    if (vtd->state.regs[VTD_GSTS] & VTD_GCMD_IRE)
        fault = remap(vtd, source, address, data, &index, &silent);
    if (fault && !silent)
        vtd_record(vtd, fault, source, (u64)index << 48, false);
    mutex_unlock(&dev->lock);
    return !fault;
}
