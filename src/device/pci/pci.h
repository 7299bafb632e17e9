/*
 * PCI inside this folder: what functions share with their host bridge (PCI Local Bus 3.0, chapter
 * 6). Functions sit on bus 0.
 */
#ifndef TRIODE_DEVICE_PCI_H
#define TRIODE_DEVICE_PCI_H

#include "device/device.h"

#define PCI_CONFIG_SIZE 256
#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))

/* Interrupt lines of the board that are PCI's: of PIRQA to PIRQH. */
#define PCI_FIRST_LINE 16
#define PCI_LINES 8

enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_PROG_IF = 0x09,
    PCI_CLASS = 0x0a, /* sub-class, then base class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,

    PCI_COMMAND_IO = 0x0001,
    PCI_COMMAND_MEMORY = 0x0002,
    PCI_COMMAND_MASTER = 0x0004,
    PCI_COMMAND_NO_INTX = 0x0400,
    PCI_STATUS_INTX = 0x0008,
    PCI_STATUS_CAPABILITIES = 0x0010,

    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_MSIX = 0x11,
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
    /* Called before a guest's read, for bytes that show something live; or NULL. */
    void (*reading)(struct device *dev, unsigned offset, unsigned size);
};

static inline u16 pci_get16(const struct pci_config *config, unsigned offset)
{
    return (u16)(config->bytes[offset] | config->bytes[offset + 1] << 8);
}

static inline u32 pci_get32(const struct pci_config *config, unsigned offset)
{
    return pci_get16(config, offset) | (u32)pci_get16(config, offset + 2) << 16;
}

static inline void pci_put16(struct pci_config *config, unsigned offset, u16 value)
{
    config->bytes[offset] = (u8)value;
    config->bytes[offset + 1] = (u8)(value >> 8);
}

static inline void pci_put32(struct pci_config *config, unsigned offset, u32 value)
{
    pci_put16(config, offset, (u16)value);
    pci_put16(config, offset + 2, (u16)(value >> 16));
}

/* Makes @function answer at @devfn of @host's bus 0. -EEXIST when the place is taken. */
int pci_host_attach(struct device *host, unsigned devfn, const struct pci_function *function);

/* Takes the function at @devfn away again, its pin down. */
void pci_host_detach(struct device *host, unsigned devfn);

/* Interrupt pin INTA of @devfn goes up or down. A line is high while any pin on it is; each
 * function says only what changes. Any thread. */
void pci_host_intx(struct device *host, unsigned devfn, bool level);

/* The same for a device that is no PCI function but shares @line of PCI_LINES from
 * PCI_FIRST_LINE. */
void pci_host_line(struct device *host, unsigned line, bool level);

/* Where @line goes in the 8259 pair besides: an interrupt of 3 to 7, 9 to 12, 14 or 15 that lines
 * may share, or anything else for nowhere. Any thread. */
#define PCI_ROUTES 0xdef8u
#define PCI_ROUTE_OFF 0x80
void pci_host_route(struct device *host, unsigned line, u8 route);
/* The route after a reset: off when firmware is to set it. */
u8 pci_host_reset_route(const struct device *host, unsigned line);

/* Gives the bus an IOMMU (vtd.h), through which all requests of its functions go from then on; NULL
 * takes it away. While the board is built. */
void pci_host_set_iommu(struct device *host, struct device *iommu);
struct device *pci_host_iommu(const struct device *host);

/* A message of @source that is no function of the bus but whose messages are remapped. */
void pci_host_msi(struct device *host, u16 source, u64 address, u32 data);

/* Line of interrupt pin @pin, 0 for INTA, of the functions in @slot: turned by the slot so that
 * they spread. The board's _PRT says so too. */
static inline unsigned pci_pin_line(unsigned slot, unsigned pin)
{
    return PCI_FIRST_LINE + (slot + pin) % PCI_LINES;
}

/* Line of pin INTA of @devfn. */
static inline unsigned pci_intx_line(unsigned devfn)
{
    return pci_pin_line(devfn >> 3, 0);
}

/* Where firmware for this chipset routes a line, and this board where there is none. */
static inline u8 pci_legacy_line(unsigned line)
{
    return line & 2 ? 11 : 10;
}

/* ---- What functions have in common: base addresses, interrupts ------------------------------- */

#define PCI_BARS 6
#define PCI_MSIX_VECTORS 16

struct pci_bar {
    u32 size; /* a power of two, 0 for none */
    bool io;
    unsigned widest;
    device_read_fn read;
    device_write_fn write;
};

/* MSI-X table and pending bits: part of the device's state (PCI 3.0, 6.8.2). */
struct pci_msix {
    struct {
        u32 address, address_high, data, control;
    } entries[PCI_MSIX_VECTORS];
    u32 pending;
};

/* A function on its bus. What is here follows from the state and is not saved. */
struct pci_unit {
    struct device *dev;
    struct pci_config *config;
    unsigned devfn;
    struct pci_bar bars[PCI_BARS];
    u64 mapped[PCI_BARS]; /* where each answers; 0: nowhere */
    struct pci_msix *msix;
    unsigned vectors, msix_offset; /* of the capability, 0 without */
    unsigned capabilities_end;     /* where the next one goes */
    unsigned msi_offset;           /* likewise of MSI */
    bool level, driven;            /* of INTA: what the device wants, what the line got */
    bool told;                     /* MSI: the message for this level was sent */
};

struct pci_identity {
    u16 vendor, device, class, subsystem_vendor, subsystem;
    u8 prog_if, revision;
    bool intx; /* has pin INTA */
};

/* Sets the configuration space to power-on state; capabilities are added after it. */
void pci_unit_reset(struct pci_unit *unit, const struct pci_identity *identity);

/* Appends a capability of @len bytes, answers its offset. The bytes after the first two are 0. */
unsigned pci_add_capability(struct pci_unit *unit, u8 id, unsigned len);

/* Adds MSI-X with @vectors entries in @bar: table at 0, pending bits at PCI_MSIX_PBA. */
#define PCI_MSIX_PBA 0x800
void pci_add_msix(struct pci_unit *unit, struct pci_msix *msix, unsigned vectors, unsigned bar);
u64 pci_msix_read(struct pci_unit *unit, u64 offset, unsigned size);
void pci_msix_write(struct pci_unit *unit, u64 offset, unsigned size, u64 value);

/* Adds MSI with one vector that can be masked (PCI 3.0, 6.8.1): once a driver turns it on, pci_intx
 * sends a message whenever the level rises. */
void pci_add_msi(struct pci_unit *unit);

/* To be called from the function's written(), and after a load. */
void pci_unit_written(struct pci_unit *unit, unsigned offset);
void pci_unit_loaded(struct pci_unit *unit);

/* Sends message @vector, or keeps it pending while masked. False when MSI-X is off. */
bool pci_msix_raise(struct pci_unit *unit, unsigned vector);
void pci_intx(struct pci_unit *unit, bool level);
bool pci_is_master(const struct pci_unit *unit);

/* ---- DMA and messages: addresses are the bus's, which an IOMMU translates for each function -- */

bool pci_has_iommu(const struct pci_unit *unit);

/* Around each piece of work with memory, in the I/O thread: what was mapped is good until its
 * end. */
void pci_dma_begin(const struct pci_unit *unit);
void pci_dma_end(const struct pci_unit *unit);

/* Where @address is: *@len becomes what lies there in one piece, *@gpa its guest-physical address;
 * the writer owes mem_wrote. NULL when it is not memory or the IOMMU blocks it. */
u8 *pci_dma_map(const struct pci_unit *unit, u64 address, u64 *len, bool write, u64 *gpa);

/* 0, or -EFAULT as pci_dma_map; what was copied before stays. */
int pci_dma_read(const struct pci_unit *unit, u64 address, void *buf, u64 len);
int pci_dma_write(const struct pci_unit *unit, u64 address, const void *buf, u64 len);

void pci_send_msi(const struct pci_unit *unit, u64 address, u32 data);

#endif
