/*
 * PCI host bridge: configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2), the memory-mapped
 * mechanism (PCI Express 5.0, 7.2.2) and the chipset's reset control register at port 0xCF9, whose
 * byte lies within the address register's dword and is told apart by the access's size.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/thread.h"
#include "device/pci/pci.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT 0xcfc
#define ECAM_BYTES (256 * MiB)
#define ECAM_FUNCTION_BITS 12
#define FUNCTIONS 256
#define SHADOW_FIRST (768 * KiB)
#define SHADOW_PIECE (16 * KiB)

enum {
    ADDRESS_ENABLE = 0x80000000,
    RESET_CPU = 0x04, /* a rising edge resets; bit 1 chooses how much, all is one here */
    RESET_KEPT = 0x0a,

    MCH_PCIEXBAR = 0x60, /* Intel 3 Series Express Chipset, 5.1.16 */
    MCH_PAM0 = 0x90,     /* 5.1.21 */
    MCH_PAMS = 7,
};

struct pci_host_state {
    u32 address;
    u8 reset_control;
    struct pci_config config; /* function 0:0.0 is the bridge itself */
};

struct pci_host {
    struct device dev;
    struct pci_host_state state;
    u8 shadow;            /* mode of all pieces after a reset */
    bool routed;          /* no firmware will route interrupts to the 8259 */
    struct device *iommu; /* NULL for none */
    struct pci_function functions[FUNCTIONS];
    pthread_mutex_t lines_lock; /* taken below any other */
    unsigned high[PCI_LINES];   /* pins that hold each line up; follows from the functions */
    u8 routes[PCI_LINES];       /* as the LPC bridge's registers have them */
};

static struct pci_host *to_host(struct device *dev)
{
    return container_of(dev, struct pci_host, dev);
}

int pci_host_attach(struct device *dev, unsigned devfn, const struct pci_function *function)
{
    struct pci_host *host = to_host(dev);

    if (devfn >= FUNCTIONS || host->functions[devfn].config)
        return -EEXIST;
    host->functions[devfn] = *function;
    return 0;
}

void pci_host_detach(struct device *dev, unsigned devfn)
{
    to_host(dev)->functions[devfn] = (struct pci_function){0};
}

void pci_host_set_iommu(struct device *dev, struct device *iommu)
{
    to_host(dev)->iommu = iommu;
}

struct device *pci_host_iommu(const struct device *dev)
{
    return container_of(dev, struct pci_host, dev)->iommu;
}

/* The line of the 8259 that @route means, of all lines that go there; lock held. */
static void set_legacy_line(struct pci_host *host, u8 route)
{
    const struct device_env *env = host->dev.env;
    bool high = false;

    if (route == PCI_ROUTE_OFF || !(PCI_ROUTES >> route & 1))
        return;
    for (unsigned i = 0; i < PCI_LINES; i++)
        high |= host->routes[i] == route && host->high[i];
    env->irq_set(env->opaque, route, high);
}

void pci_host_route(struct device *dev, unsigned line, u8 route)
{
    struct pci_host *host = to_host(dev);
    u8 *now = &host->routes[line - PCI_FIRST_LINE], old;

    mutex_lock(&host->lines_lock);
    old = *now;
    *now = route > 15 ? PCI_ROUTE_OFF : route;
    if (*now != old) {
        set_legacy_line(host, old);
        set_legacy_line(host, *now);
    }
    mutex_unlock(&host->lines_lock);
}

u8 pci_host_reset_route(const struct device *dev, unsigned line)
{
    return container_of(dev, struct pci_host, dev)->routed ? pci_legacy_line(line) : PCI_ROUTE_OFF;
}

void pci_host_line(struct device *dev, unsigned line, bool level)
{
    struct pci_host *host = to_host(dev);
    unsigned *high = &host->high[line - PCI_FIRST_LINE];

    mutex_lock(&host->lines_lock);
    *high += level ? 1 : -1u;
    dev->env->irq_set(dev->env->opaque, line, *high != 0);
    set_legacy_line(host, host->routes[line - PCI_FIRST_LINE]);
    mutex_unlock(&host->lines_lock);
}

void pci_host_intx(struct device *dev, unsigned devfn, bool level)
{
    pci_host_line(dev, pci_intx_line(devfn), level);
}

static struct pci_function *find(struct pci_host *host, unsigned bus, unsigned devfn)
{
    struct pci_function *function = &host->functions[devfn];

    return !bus && function->config ? function : NULL;
}

/* The caller holds the bridge's lock; another function's is taken below it. */
static u64 config_read(struct pci_host *host, unsigned bus, unsigned devfn, unsigned offset,
                       unsigned size)
{
    struct pci_function *function = find(host, bus, devfn);
    u64 value = 0;

    if (!function)
        return ~0ull;
    if (offset + size > PCI_CONFIG_SIZE)
        return 0; /* conventional functions have no extended space */
    if (function->dev != &host->dev)
        mutex_lock(&function->dev->lock);
    if (function->reading)
        function->reading(function->dev, offset, size);
    memcpy(&value, function->config->bytes + offset, size);
    if (function->dev != &host->dev)
        mutex_unlock(&function->dev->lock);
    return value;
}

static void config_write(struct pci_host *host, unsigned bus, unsigned devfn, unsigned offset,
                         unsigned size, u64 value)
{
    struct pci_function *function = find(host, bus, devfn);

    if (!function || offset + size > PCI_CONFIG_SIZE)
        return;
    if (function->dev != &host->dev)
        mutex_lock(&function->dev->lock);
    for (unsigned i = 0; i < size; i++) {
        u8 *byte = &function->config->bytes[offset + i];
        u8 mask = function->config->writable[offset + i];

        *byte = (*byte & ~mask) | ((u8)(value >> i * 8) & mask);
    }
    if (function->written)
        function->written(function->dev, offset, size);
    if (function->dev != &host->dev)
        mutex_unlock(&function->dev->lock);
}

static u64 read_address(struct device *dev, u64 offset, unsigned size)
{
    const struct pci_host_state *s = &to_host(dev)->state;

    if (size == 4)
        return s->address;
    if (size == 1 && offset == 1)
        return s->reset_control;
    return ~0ull;
}

static void write_address(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct pci_host_state *s = &to_host(dev)->state;

    if (size == 4) {
        s->address = (u32)value & 0x80fffffc;
    } else if (size == 1 && offset == 1) {
        if ((value & RESET_CPU) && !(s->reset_control & RESET_CPU))
            dev->env->request(dev->env->opaque, DEVICE_REQUEST_RESET);
        s->reset_control = value & (RESET_KEPT | RESET_CPU);
    }
}

static u64 read_data(struct device *dev, u64 offset, unsigned size)
{
    struct pci_host *host = to_host(dev);
    u32 address = host->state.address;

    if (!(address & ADDRESS_ENABLE))
        return ~0ull;
    return config_read(host, address >> 16 & 0xff, address >> 8 & 0xff,
                       (address & 0xfc) + (unsigned)offset, size);
}

static void write_data(struct device *dev, u64 offset, unsigned size, u64 value)
{
    struct pci_host *host = to_host(dev);
    u32 address = host->state.address;

    if (address & ADDRESS_ENABLE)
        config_write(host, address >> 16 & 0xff, address >> 8 & 0xff,
                     (address & 0xfc) + (unsigned)offset, size, value);
}

static u64 read_ecam(struct device *dev, u64 offset, unsigned size)
{
    return config_read(to_host(dev), offset >> 20, offset >> ECAM_FUNCTION_BITS & 0xff,
                       offset & (BIT(ECAM_FUNCTION_BITS) - 1), size);
}

static void write_ecam(struct device *dev, u64 offset, unsigned size, u64 value)
{
    config_write(to_host(dev), offset >> 20, offset >> ECAM_FUNCTION_BITS & 0xff,
                 offset & (BIT(ECAM_FUNCTION_BITS) - 1), size, value);
}

/* ---- Memory below 1 MiB ---------------------------------------------------------------------- */

/* Two bits for each piece: the first register's upper half has the last one, then two a
 * register. */
static u8 shadow_mode(const struct pci_config *config, unsigned piece)
{
    unsigned nibble = piece == DEVICE_SHADOW_PIECES - 1 ? 1 : piece + 2;

    return config->bytes[MCH_PAM0 + nibble / 2] >> nibble % 2 * 4 & 3;
}

static void set_shadow(struct pci_host *host)
{
    const struct device_env *env = host->dev.env;
    u8 modes[DEVICE_SHADOW_PIECES];

    for (unsigned i = 0; i < DEVICE_SHADOW_PIECES; i++)
        modes[i] = shadow_mode(&host->state.config, i);
    if (env->shadow)
        env->shadow(env->opaque, modes);
}

static void bridge_written(struct device *dev, unsigned offset, unsigned size)
{
    if (offset < MCH_PAM0 + MCH_PAMS && offset + size > MCH_PAM0)
        set_shadow(to_host(dev));
}

static u64 read_shadow(struct device *dev, u64 offset, unsigned size)
{
    (void)dev;
    (void)offset;
    (void)size;
    return ~0ull; /* neither RAM nor firmware */
}

/* What is no memory for writing comes here: some of it is RAM that cannot be read. */
static void write_shadow(struct device *dev, u64 offset, unsigned size, u64 value)
{
    const struct device_env *env = dev->env;
    unsigned piece = (unsigned)(offset / SHADOW_PIECE);

    if (piece >= DEVICE_SHADOW_PIECES)
        piece = DEVICE_SHADOW_PIECES - 1;
    if (shadow_mode(&to_host(dev)->state.config, piece) == DEVICE_SHADOW_WRITE && env->shadow_write)
        env->shadow_write(env->opaque, SHADOW_FIRST + offset, size, value);
}

static void reset(struct device *dev)
{
    struct pci_host *host = to_host(dev);
    struct pci_config *config = &host->state.config;

    host->state = (struct pci_host_state){0};
    pci_put16(config, PCI_VENDOR_ID, 0x8086);
    pci_put16(config, PCI_DEVICE_ID,
              0x29c0);                      /* Q35's memory controller hub, which firmware knows */
    pci_put16(config, PCI_COMMAND, 0x0006); /* memory space, bus master: fixed */
    pci_put16(config, PCI_CLASS, 0x0600);   /* host bridge */
    config->bytes[PCI_REVISION] = 2;
    /* By these firmware knows the board: that it may ask fw_cfg. */
    pci_put16(config, PCI_SUBSYSTEM_VENDOR_ID, 0x1af4);
    pci_put16(config, PCI_SUBSYSTEM_ID, 0x1100);
    /* Firmware sets it and reads it back; the board has put the extended configuration space where
     * firmware wants it. */
    memset(config->writable + MCH_PCIEXBAR, 0xff, 8);
    config->writable[MCH_PAM0] = 0x30;
    memset(config->writable + MCH_PAM0 + 1, 0x33, MCH_PAMS - 1);
    for (unsigned i = 0; i < MCH_PAMS; i++)
        config->bytes[MCH_PAM0 + i] = config->writable[MCH_PAM0 + i] & host->shadow * 0x11;
    set_shadow(host);
    for (unsigned line = PCI_FIRST_LINE; line < PCI_FIRST_LINE + PCI_LINES; line++)
        pci_host_route(dev, line, pci_host_reset_route(dev, line));
}

static void loaded(struct device *dev)
{
    set_shadow(to_host(dev));
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct pci_host *host = to_host(dev);
    u64 ecam = 0, shadow = 0, routed = 0;
    int ret = device_options_check(options, "ecam,shadow,routed", err);

    if (!ret)
        ret = device_option_number(options, "ecam", ~0ull, &ecam, err);
    if (!ret)
        ret = device_option_number(options, "shadow", 3, &shadow, err);
    if (!ret)
        ret = device_option_number(options, "routed", 1, &routed, err);
    if (ret)
        return ret;
    mutex_init(&host->lines_lock);
    host->shadow = (u8)shadow;
    host->routed = routed;
    for (unsigned i = 0; i < PCI_LINES; i++)
        host->routes[i] = pci_host_reset_route(dev, PCI_FIRST_LINE + i);
    host->functions[0] =
        (struct pci_function){.config = &host->state.config, .dev = dev, .written = bridge_written};
    ret = device_bus_add(
        dev->ports, &(struct device_region){ADDRESS_PORT, 4, 4, read_address, write_address, dev});
    if (!ret)
        ret = device_bus_add(dev->ports,
                             &(struct device_region){DATA_PORT, 4, 4, read_data, write_data, dev});
    if (!ret)
        ret =
            device_bus_add(dev->memory, &(struct device_region){SHADOW_FIRST, MiB - SHADOW_FIRST, 8,
                                                                read_shadow, write_shadow, dev});
    if (!ret && ecam)
        ret = device_bus_add(
            dev->memory, &(struct device_region){ecam, ECAM_BYTES, 4, read_ecam, write_ecam, dev});
    return ret ? err_set(err, ret, "its ports or its memory at %#" PRIx64 " are taken", ecam) : 0;
}

const struct device_class device_class_pci_host = {
    DEVICE_CLASS(struct pci_host),
    .state_version = 1,
    .create = create,
    .reset = reset,
    .loaded = loaded,
};
