/* The way of functions to memory and to CPUs: by the IOMMU, if the board has one. */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "device/pci/pci.h"
#include "device/vtd/vtd.h"

/* Functions sit on bus 0: their requester id is the device and function number. */
static u16 source_of(const struct pci_unit *unit)
{
    return (u16)unit->devfn;
}

static struct device *iommu_of(const struct pci_unit *unit)
{
    return unit->dev->parent ? pci_host_iommu(unit->dev->parent) : NULL;
}

bool pci_has_iommu(const struct pci_unit *unit)
{
    return iommu_of(unit) != NULL;
}

void pci_dma_begin(const struct pci_unit *unit)
{
    if (iommu_of(unit))
        vtd_begin(iommu_of(unit));
}

void pci_dma_end(const struct pci_unit *unit)
{
    if (iommu_of(unit))
        vtd_end(iommu_of(unit));
}

u8 *pci_dma_map(const struct pci_unit *unit, u64 address, u64 *len, bool write, u64 *gpa)
{
    const struct mem *mem = unit->dev->env->mem;
    struct device *iommu = iommu_of(unit);
    const struct mem_slot *slot;
    u64 left;

    *gpa = address;
    if (iommu && vtd_translate(iommu, source_of(unit), address, write, gpa, len))
        return NULL;
    slot = mem_find(mem, *gpa);
    if (!slot)
        return NULL;
    left = slot->gpa + slot->size - *gpa;
    if (*len > left)
        *len = left;
    return mem_hva(mem, *gpa, *len, write);
}

static int copy(const struct pci_unit *unit, u64 address, void *buf, u64 len, bool write)
{
    while (len) {
        u64 some = len, gpa;
        u8 *hva = pci_dma_map(unit, address, &some, write, &gpa);

        if (!hva)
            return -EFAULT;
        if (write) {
            memcpy(hva, buf, some);
            mem_wrote(unit->dev->env->mem, gpa, some);
        } else {
            memcpy(buf, hva, some);
        }
        buf = (u8 *)buf + some;
        address += some;
        len -= some;
    }
    return 0;
}

int pci_dma_read(const struct pci_unit *unit, u64 address, void *buf, u64 len)
{
    return copy(unit, address, buf, len, false);
}

int pci_dma_write(const struct pci_unit *unit, u64 address, const void *buf, u64 len)
{
    return copy(unit, address, (void *)buf, len, true);
}

static void send(const struct device *dev, struct device *iommu, u16 source, u64 address, u32 data)
{
    const struct device_env *env = dev->env;

    if (env->msi && (!iommu || device_vtd_remap(iommu, source, &address, &data)))
        env->msi(env->opaque, address, data);
}

void pci_send_msi(const struct pci_unit *unit, u64 address, u32 data)
{
    send(unit->dev, iommu_of(unit), source_of(unit), address, data);
}

void pci_host_msi(struct device *host, u16 source, u64 address, u32 data)
{
    send(host, pci_host_iommu(host), source, address, data);
}
