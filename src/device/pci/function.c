/* Base address registers, capabilities and interrupts of a PCI function (PCI Local Bus 3.0, 6). */
#include <string.h>

#include "base/bits.h"
#include "device/pci/pci.h"

enum {
    BAR_IO = 1,
    CAPABILITIES_FIRST = 0x40,

    MSI_CONTROL = 2,
    MSI_ADDRESS = 4,
    MSI_DATA = 12,
    MSI_MASK = 16,
    MSI_PENDING = 20,
    MSI_LEN = 24,
    MSI_ENABLE = 0x0001,
    MSI_COUNT = 0x0070, /* how many vectors the guest allots; there is one */
    MSI_64_BITS = 0x0080,
    MSI_MASKABLE = 0x0100,

    MSIX_CONTROL = 2,
    MSIX_TABLE = 4,
    MSIX_PBA = 8,
    MSIX_LEN = 12,
    MSIX_ENABLE = 0x8000,
    MSIX_MASK_ALL = 0x4000,
    ENTRY_BYTES = 16,
    ENTRY_MASKED = 1,
};

/* ---- Configuration space ------------------------------------------------------------------- */

static void unmap(struct pci_unit *unit, unsigned i)
{
    const struct pci_bar *bar = &unit->bars[i];

    if (unit->mapped[i])
        device_bus_remove(bar->io ? unit->dev->ports : unit->dev->memory, unit->mapped[i]);
    unit->mapped[i] = 0;
}

/* Where the guest wants the range: 0 while it is off, or still shows what sizing wrote. */
static u64 wanted(const struct pci_unit *unit, unsigned i)
{
    const struct pci_bar *bar = &unit->bars[i];
    u16 command = pci_get16(unit->config, PCI_COMMAND);
    u32 value = pci_get32(unit->config, PCI_BAR0 + 4 * i), mask = ~(bar->size - 1);

    if (!(command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
        return 0;
    value &= mask;
    if (value == mask || (bar->io && value + bar->size > 0x10000))
        return 0;
    return value;
}

/* A range on top of another device's answers nowhere until it is moved away. */
static void map(struct pci_unit *unit)
{
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const struct pci_bar *bar = &unit->bars[i];
        u64 first = bar->size ? wanted(unit, i) : 0;

        if (first == unit->mapped[i])
            continue;
        unmap(unit, i);
        if (first && !device_bus_add(bar->io ? unit->dev->ports : unit->dev->memory,
                                     &(struct device_region){first, bar->size, bar->widest,
                                                             bar->read, bar->write, unit->dev}))
            unit->mapped[i] = first;
    }
}

static bool msi_enabled(const struct pci_unit *unit)
{
    return unit->msi_offset &&
           (pci_get16(unit->config, unit->msi_offset + MSI_CONTROL) & MSI_ENABLE);
}

/* One message for each time the level is up, now or when it is unmasked. */
static void send_msi(struct pci_unit *unit)
{
    struct pci_config *config = unit->config;
    unsigned at = unit->msi_offset;
    bool due;

    if (!at)
        return;
    if (!unit->level)
        unit->told = false;
    due = unit->level && !unit->told && msi_enabled(unit);
    config->bytes[at + MSI_PENDING] = due && (config->bytes[at + MSI_MASK] & 1);
    if (!due || config->bytes[at + MSI_PENDING])
        return;
    unit->told = true;
    if (pci_is_master(unit))
        pci_send_msi(unit,
                     (u64)pci_get32(config, at + MSI_ADDRESS + 4) << 32 |
                         pci_get32(config, at + MSI_ADDRESS),
                     pci_get16(config, at + MSI_DATA));
}

static void drive_intx(struct pci_unit *unit)
{
    u16 command = pci_get16(unit->config, PCI_COMMAND);
    bool drive = unit->level && !(command & PCI_COMMAND_NO_INTX) && !msi_enabled(unit);

    if (unit->level)
        unit->config->bytes[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        unit->config->bytes[PCI_STATUS] &= ~PCI_STATUS_INTX;
    if (drive != unit->driven && unit->dev->parent)
        pci_host_intx(unit->dev->parent, unit->devfn, drive);
    unit->driven = drive;
    send_msi(unit);
}

void pci_unit_reset(struct pci_unit *unit, const struct pci_identity *identity)
{
    struct pci_config *config = unit->config;

    for (unsigned i = 0; i < PCI_BARS; i++)
        unmap(unit, i);
    memset(config, 0, sizeof(*config));
    unit->msix_offset = unit->msi_offset = 0;
    unit->told = false;
    unit->capabilities_end = CAPABILITIES_FIRST;
    pci_put16(config, PCI_VENDOR_ID, identity->vendor);
    pci_put16(config, PCI_DEVICE_ID, identity->device);
    pci_put16(config, PCI_CLASS, identity->class);
    pci_put16(config, PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor);
    pci_put16(config, PCI_SUBSYSTEM_ID, identity->subsystem);
    config->bytes[PCI_PROG_IF] = identity->prog_if;
    config->bytes[PCI_REVISION] = identity->revision;
    config->bytes[PCI_INTERRUPT_PIN] = identity->intx;
    if (identity->intx && unit->dev->parent)
        config->bytes[PCI_INTERRUPT_LINE] =
            pci_host_reset_route(unit->dev->parent, pci_intx_line(unit->devfn)) & 15;
    config->writable[PCI_INTERRUPT_LINE] = 0xff;
    config->writable[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    config->writable[PCI_COMMAND + 1] = PCI_COMMAND_NO_INTX >> 8;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        u32 mask = unit->bars[i].size ? ~(unit->bars[i].size - 1) : 0;

        for (unsigned j = 0; j < 4; j++)
            config->writable[PCI_BAR0 + 4 * i + j] = (u8)(mask >> 8 * j);
        if (unit->bars[i].io)
            config->bytes[PCI_BAR0 + 4 * i] = BAR_IO;
    }
    unit->level = false;
    drive_intx(unit);
}

unsigned pci_add_capability(struct pci_unit *unit, u8 id, unsigned len)
{
    struct pci_config *config = unit->config;
    unsigned link = PCI_CAPABILITIES, at = unit->capabilities_end;

    while (config->bytes[link])
        link = config->bytes[link] + 1u;
    config->bytes[link] = (u8)at;
    config->bytes[at] = id;
    config->bytes[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
    unit->capabilities_end = (unsigned)align_up(at + len, 4);
    return at;
}

static u16 msix_control(const struct pci_unit *unit)
{
    return unit->msix_offset ? pci_get16(unit->config, unit->msix_offset + MSIX_CONTROL) : 0;
}

static bool msix_enabled(const struct pci_unit *unit)
{
    return msix_control(unit) & MSIX_ENABLE;
}

void pci_unit_written(struct pci_unit *unit, unsigned offset)
{
    if (offset < PCI_BAR0 + 4 * PCI_BARS)
        map(unit);
    drive_intx(unit);
    if (!msix_enabled(unit))
        return;
    for (unsigned i = 0; i < unit->vectors; i++)
        if (unit->msix->pending & BIT(i))
            pci_msix_raise(unit, i);
}

void pci_unit_loaded(struct pci_unit *unit)
{
    unit->level = unit->config->bytes[PCI_STATUS] & PCI_STATUS_INTX;
    map(unit);
    unit->told = unit->level; /* what was to send was sent, unless it is pending */
    if (unit->msi_offset && unit->config->bytes[unit->msi_offset + MSI_PENDING])
        unit->told = false;
    drive_intx(unit);
}

bool pci_is_master(const struct pci_unit *unit)
{
    return pci_get16(unit->config, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* ---- Interrupts ---------------------------------------------------------------------------- */

void pci_intx(struct pci_unit *unit, bool level)
{
    unit->level = level;
    drive_intx(unit);
}

void pci_add_msi(struct pci_unit *unit)
{
    struct pci_config *config = unit->config;
    unsigned at = pci_add_capability(unit, PCI_CAP_MSI, MSI_LEN);

    unit->msi_offset = at;
    pci_put16(config, at + MSI_CONTROL, MSI_64_BITS | MSI_MASKABLE);
    config->writable[at + MSI_CONTROL] = MSI_ENABLE | MSI_COUNT;
    memset(config->writable + at + MSI_ADDRESS, 0xff, 8);
    config->writable[at + MSI_ADDRESS] = 0xfc;
    memset(config->writable + at + MSI_DATA, 0xff, 2);
    config->writable[at + MSI_MASK] = 1;
}

void pci_add_msix(struct pci_unit *unit, struct pci_msix *msix, unsigned vectors, unsigned bar)
{
    unsigned at = pci_add_capability(unit, PCI_CAP_MSIX, MSIX_LEN);

    unit->msix = msix;
    unit->vectors = vectors;
    unit->msix_offset = at;
    memset(msix, 0, sizeof(*msix));
    for (unsigned i = 0; i < vectors; i++)
        msix->entries[i].control = ENTRY_MASKED;
    pci_put16(unit->config, at + MSIX_CONTROL, (u16)(vectors - 1));
    pci_put32(unit->config, at + MSIX_TABLE, bar);
    pci_put32(unit->config, at + MSIX_PBA, PCI_MSIX_PBA | bar);
    unit->config->writable[at + MSIX_CONTROL + 1] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
}

bool pci_msix_raise(struct pci_unit *unit, unsigned vector)
{
    if (!msix_enabled(unit))
        return false;
    if (vector >= unit->vectors)
        return true; /* the guest asked for none */
    if ((msix_control(unit) & MSIX_MASK_ALL) ||
        (unit->msix->entries[vector].control & ENTRY_MASKED)) {
        unit->msix->pending |= BIT(vector);
        return true;
    }
    unit->msix->pending &= ~BIT(vector);
    pci_send_msi(unit,
                 (u64)unit->msix->entries[vector].address_high << 32 |
                     unit->msix->entries[vector].address,
                 unit->msix->entries[vector].data);
    return true;
}

u64 pci_msix_read(struct pci_unit *unit, u64 offset, unsigned size)
{
    u64 value = 0;

    if (offset + size <= unit->vectors * ENTRY_BYTES)
        memcpy(&value, (u8 *)unit->msix->entries + offset, size);
    else if (offset >= PCI_MSIX_PBA && offset + size <= PCI_MSIX_PBA + 8)
        value = (u64)unit->msix->pending >> (offset - PCI_MSIX_PBA) * 8;
    return value;
}

void pci_msix_write(struct pci_unit *unit, u64 offset, unsigned size, u64 value)
{
    unsigned vector = (unsigned)(offset / ENTRY_BYTES);

    if (offset + size > unit->vectors * ENTRY_BYTES || (size != 4 && size != 8))
        return; /* narrower accesses are undefined (PCI 3.0, 6.8.2) */
    memcpy((u8 *)unit->msix->entries + offset, &value, size);
    unit->msix->entries[vector].control &= ENTRY_MASKED;
    if (unit->msix->pending & BIT(vector))
        pci_msix_raise(unit, vector);
}
