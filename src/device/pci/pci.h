/*
 * PCI inside this folder: what functions share with their host bridge (PCI Local Bus 3.0, chapter
 * 6). Functions sit on bus 0.
 */
#ifndef TRIODE_DEVICE_PCI_H
#define TRIODE_DEVICE_PCI_H

#include "device/device.h"

#define PCI_CONFIG_SIZE 256
#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))

enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x0a, /* sub-class, then base class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
};

/* A function's configuration space: part of its device's state. */
struct pci_config {
    u8 bytes[PCI_CONFIG_SIZE];
    u8 writable[PCI_CONFIG_SIZE]; /* bits a guest's write changes */
};

struct pci_function {
    struct pci_config *config;
    struct device *dev; /* its lock guards config */
    /* Called after a guest's write to [offset, offset + size), dev's lock held; or NULL. */
    void (*written)(struct device *dev, unsigned offset, unsigned size);
};

static inline void pci_put16(struct pci_config *config, unsigned offset, u16 value)
{
    config->bytes[offset] = (u8)value;
    config->bytes[offset + 1] = (u8)(value >> 8);
}

/* Makes @function answer at @devfn of @host's bus 0. -EEXIST when the place is taken. */
int pci_host_attach(struct device *host, unsigned devfn, const struct pci_function *function);

#endif
