/* Registers of the IOMMU and its life (VT-d 11.4). */
#include <errno.h>

#include "device/pci/pci.h"
#include "device/vtd/vtd.h"

#define REGISTERS_BYTES 4096
#define VERSION 0x10

/* Capabilities, true to what the other files do (11.4.2, 11.4.3). */
#define CAPABILITIES                                                                               \
    (6 /* 2^16 domains */ | 6ull << 8 /* 3 and 4 levels */ | 47ull << 16 /* 48 bits */ |           \
     BIT(22) /* reads of no bytes */ | (u64)VTD_FAULT_OFFSET / 16 << 24 |                          \
     3ull << 34 /* pages of 2 MiB and 1 GiB */ | BIT(39) /* invalidation of pages */ |             \
     (VTD_FAULTS - 1ull) << 40 | 18ull << 48 /* of up to 1 GiB */ | BIT(54) |                      \
     BIT(55) /* draining */)
#define EXTENDED_CAPABILITIES                                                                      \
    (BIT(0) /* coherent walks */ | BIT(1) /* queued invalidation */ | BIT(6) /* pass-through */ |  \
     BIT(7) /* snoop control */ | VTD_IOTLB_OFFSET / 16 << 8)
#define REMAPPING_CAPABILITIES                                                                     \
    (BIT(3) /* interrupt remapping */ | BIT(4) /* 32-bit destinations */ | 15ull << 20)

enum {
    LATCHED = VTD_GCMD_TE | VTD_GCMD_QIE | VTD_GCMD_IRE | VTD_GCMD_CFI,
};

static const struct {
    u16 offset;
    u8 bytes;
    u64 writable, cleared;
} infos[] = {
#define X(name, offset, bytes, writable, cleared) {offset, bytes, writable, cleared},
#include "device/vtd/registers.def"
#undef X
};

/* The register with the dword at @offset, or -1. */
static int find(u64 offset)
{
    for (unsigned i = 0; i < ARRAY_SIZE(infos); i++)
        if (offset - infos[i].offset < infos[i].bytes)
            return (int)i;
    return -1;
}

/* ---- What writes set off --------------------------------------------------------------------- */

/* Software changes one thing at a time (11.4.4.1), but all that changes is done. */
static void command(struct vtd *vtd, u64 value)
{
    struct vtd_state *s = &vtd->state;
    u64 latched = LATCHED, *status = &s->regs[VTD_GSTS], changed;

    if (!vtd->remaps) {
        latched &= ~(u64)(VTD_GCMD_IRE | VTD_GCMD_CFI);
        value &= ~(u64)VTD_GCMD_SIRTP;
    }
    if (value & VTD_GCMD_SRTP)
        s->root = s->regs[VTD_RTADDR];
    if (value & VTD_GCMD_SIRTP)
        s->interrupts = s->regs[VTD_IRTA];
    changed = (*status ^ value) & latched;
    *status = (*status & ~latched) | (value & latched) | (value & (VTD_GCMD_SRTP | VTD_GCMD_SIRTP));
    if (!(*status & (VTD_GCMD_TE | VTD_GCMD_IRE)))
        s->next_fault = 0; /* 7.2.1 */
    if (changed & VTD_GCMD_QIE)
        s->regs[VTD_IQH] = 0;
    if ((changed & VTD_GCMD_TE) || (value & VTD_GCMD_SRTP))
        vtd_drain(vtd);
    if (changed & VTD_GCMD_QIE)
        vtd_run_queue(vtd);
}

/* Invalidation by register: what was asked for at bit @asked is answered as done at bit @done. */
static void invalidate(struct vtd *vtd, enum vtd_register reg, unsigned asked, unsigned done)
{
    u64 *value = &vtd->state.regs[reg];

    if (!(*value & BIT(63)))
        return;
    vtd_drain(vtd);
    *value &= ~(BIT(63) | 3ull << done);
    *value |= (*value >> asked & 3) << done;
}

static void written(struct vtd *vtd, enum vtd_register reg, u64 value)
{
    switch (reg) {
    case VTD_GCMD:
        command(vtd, value);
        break;
    case VTD_CCMD:
        invalidate(vtd, VTD_CCMD, 61, 59);
        break;
    case VTD_IOTLB:
        invalidate(vtd, VTD_IOTLB, 60, 57);
        break;
    case VTD_IQT:
        vtd_run_queue(vtd);
        break;
    case VTD_FSTS:
    case VTD_FECTL:
    case VTD_ICS:
    case VTD_IECTL:
        vtd_status_written(vtd);
        vtd_run_queue(vtd); /* which a queue error had stopped */
        break;
    default:
        break;
    }
}

/* ---- Access ---------------------------------------------------------------------------------- */

static bool is_fault(u64 offset)
{
    return offset - VTD_FAULT_OFFSET < sizeof(((struct vtd_state *)0)->faults);
}

static u32 read_dword(const struct vtd *vtd, u64 offset)
{
    int reg = find(offset);

    if (is_fault(offset))
        return ((const u32 *)vtd->state.faults)[(offset - VTD_FAULT_OFFSET) / 4];
    return reg < 0 ? 0 : (u32)(vtd->state.regs[reg] >> 8 * (offset - infos[reg].offset));
}

static u64 read_block(struct device *dev, u64 offset, unsigned size)
{
    const struct vtd *vtd = to_vtd(dev);
    u64 value = read_dword(vtd, offset & ~3ull) >> (offset & 3) * 8;

    if (size == 8)
        value |= (u64)read_dword(vtd, offset + 4) << 32;
    return value;
}

static void write_register(struct vtd *vtd, int reg, unsigned shift, u64 mask, u64 value)
{
    u64 *at = &vtd->state.regs[reg];

    mask <<= shift;
    value = value << shift & mask;
    *at = (*at & ~(mask & infos[reg].writable)) | (value & infos[reg].writable);
    *at &= ~(value & infos[reg].cleared);
    written(vtd, (enum vtd_register)reg, value);
}

/* Registers take dwords and, if they have them, quadwords (11.2); what is narrower is lost. */
static void write_block(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct vtd *vtd = to_vtd(dev);
    int reg = find(offset);

    if (size < 4)
        return;
    if (is_fault(offset)) {
        vtd_write_fault(vtd, offset - VTD_FAULT_OFFSET, size, value);
    } else if (size == 8 && (reg < 0 || infos[reg].bytes == 4)) {
        write_block(dev, offset, 4, (u32)value);
        write_block(dev, offset + 4, 4, value >> 32);
    } else if (reg >= 0) {
        write_register(vtd, reg, 8 * (unsigned)(offset - infos[reg].offset),
                       size == 8 ? ~0ull : ~0u, value);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void reset(struct device *dev)
{
    struct vtd *vtd = to_vtd(dev);
    u64 *regs = vtd->state.regs;

    vtd->state = (struct vtd_state){0};
    regs[VTD_VER] = VERSION;
    regs[VTD_CAP] = CAPABILITIES;
    regs[VTD_ECAP] = EXTENDED_CAPABILITIES | (vtd->remaps ? REMAPPING_CAPABILITIES : 0);
    regs[VTD_FECTL] = regs[VTD_IECTL] = VTD_EVENT_MASKED;
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct vtd *vtd = to_vtd(dev);
    u64 address = 0xfed90000, interrupts = 1;
    int ret = device_options_check(options, "address,interrupts", err);

    if (!ret)
        ret = device_option_number(options, "address", ~0ull, &address, err);
    if (!ret)
        ret = device_option_number(options, "interrupts", 1, &interrupts, err);
    if (ret)
        return ret;
    if (!dev->parent)
        return err_set(err, -EINVAL, "it needs a PCI bus");
    vtd->remaps = interrupts;
    ret = device_bus_add(dev->memory, &(struct device_region){address, REGISTERS_BYTES, 8,
                                                              read_block, write_block, dev});
    if (ret)
        return err_set(err, ret, "memory at %#" PRIx64 " is taken", address);
    pthread_cond_init(&vtd->done, NULL);
    pci_host_set_iommu(dev->parent, dev);
    return 0;
}

static void destroy(struct device *dev)
{
    pci_host_set_iommu(dev->parent, NULL);
    pthread_cond_destroy(&to_vtd(dev)->done);
}

const struct device_class device_class_vtd = {
    DEVICE_CLASS(struct vtd), .state_version = 1, .create = create,
    .destroy = destroy,       .reset = reset,
};
