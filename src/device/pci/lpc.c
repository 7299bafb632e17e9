/*
 * LPC bridge (Intel I/O Controller Hub 9 data sheet, chapter 13), of which firmware for this
 * chipset reads where the ACPI registers are, and which routes the PCI interrupt lines to the 8259
 * pair. Nothing is behind it: what a PC has there are devices of their own here, at fixed places.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "device/pci/pci.h"

enum {
    PMBASE = 0x40, /* ACPI registers: bit 0 says I/O */
    ACPI_CNTL = 0x44,
    ACPI_CNTL_ENABLE = 0x80,
    PIRQ_A = 0x60, /* to 0x63; E to H at 0x68 */
    PIRQ_E = 0x68,
    DECODE = 0x80, /* LPC_I/O_DEC and LPC_EN */
};

struct lpc_state {
    struct pci_config config;
};

struct lpc {
    struct device dev;
    struct lpc_state state;
    struct pci_unit unit;
    u16 pm_base;
};

static struct lpc *to_lpc(struct device *dev)
{
    return container_of(dev, struct lpc, dev);
}

static u8 *route(struct lpc *lpc, unsigned pirq)
{
    return &lpc->state.config.bytes[pirq < 4 ? PIRQ_A + pirq : PIRQ_E + pirq - 4];
}

static void set_routes(struct lpc *lpc)
{
    for (unsigned i = 0; i < PCI_LINES; i++)
        pci_host_route(lpc->dev.parent, PCI_FIRST_LINE + i, *route(lpc, i));
}

static void written(struct device *dev, unsigned offset, unsigned size)
{
    struct lpc *lpc = to_lpc(dev);

    pci_unit_written(&lpc->unit, offset);
    if (offset < PIRQ_E + 4 && offset + size > PIRQ_A)
        set_routes(lpc);
}

static void reset(struct device *dev)
{
    static const struct pci_identity identity = {
        .vendor = 0x8086, .device = 0x2918, .class = 0x0601, .revision = 2};
    struct lpc *lpc = to_lpc(dev);
    struct pci_config *config = &lpc->state.config;

    pci_unit_reset(&lpc->unit, &identity);
    pci_put32(config, PMBASE, lpc->pm_base | 1u);
    config->bytes[ACPI_CNTL] = ACPI_CNTL_ENABLE;
    for (unsigned i = 0; i < PCI_LINES; i++)
        *route(lpc, i) = pci_host_reset_route(dev->parent, PCI_FIRST_LINE + i);
    memset(config->writable + PIRQ_A, 0x8f, 4);
    memset(config->writable + PIRQ_E, 0x8f, 4);
    set_routes(lpc);
    memset(config->writable + DECODE, 0xff, 4);
}

static void loaded(struct device *dev)
{
    pci_unit_loaded(&to_lpc(dev)->unit);
    set_routes(to_lpc(dev));
}

static int create(struct device *dev, const char *options, struct err *err)
{
    struct lpc *lpc = to_lpc(dev);
    u64 slot = 31, pm_base = 0x600;
    int ret = device_options_check(options, "slot,pm", err);

    if (!ret)
        ret = device_option_number(options, "slot", 31, &slot, err);
    if (!ret)
        ret = device_option_number(options, "pm", 0xff80, &pm_base, err);
    if (ret)
        return ret;
    if (!dev->parent)
        return err_set(err, -EINVAL, "it needs a PCI bus");
    lpc->pm_base = (u16)pm_base;
    lpc->unit.dev = dev;
    lpc->unit.config = &lpc->state.config;
    lpc->unit.devfn = PCI_DEVFN((unsigned)slot, 0);
    ret = pci_host_attach(
        dev->parent, lpc->unit.devfn,
        &(struct pci_function){.config = lpc->unit.config, .dev = dev, .written = written});
    return ret ? err_set(err, ret, "PCI slot %" PRIu64 " is taken", slot) : 0;
}

static void destroy(struct device *dev)
{
    pci_host_detach(dev->parent, to_lpc(dev)->unit.devfn);
}

const struct device_class device_class_lpc = {
    DEVICE_CLASS(struct lpc), .state_version = 1, .create = create,
    .destroy = destroy,       .reset = reset,     .loaded = loaded,
};
