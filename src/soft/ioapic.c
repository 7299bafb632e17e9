#include "soft/ioapic.h"

#include <string.h>

#include "trace/trace.h"

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

/* Redirection table entry. */
#define ENTRY_LOGICAL BIT(11)
#define ENTRY_STATUS BIT(12)     /* read-only */
#define ENTRY_REMOTE_IRR BIT(14) /* read-only */
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_WRITABLE 0xff0000000001afffull
#define ENTRY_REMAPPABLE 0x00ff000000000000ull /* the rest of the index, and the format */

void ioapic_reset(struct ioapic *ioapic)
{
    mutex_lock(&ioapic->lock);
    ioapic->select = 0;
    ioapic->id = 0;
    ioapic->lines = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
    mutex_unlock(&ioapic->lock);
}

void ioapic_init(struct ioapic *ioapic,
                 void (*send)(struct ioapic *ioapic, const struct apic_message *message))
{
    memset(ioapic, 0, sizeof *ioapic);
    mutex_init(&ioapic->lock);
    ioapic->send = send;
    ioapic_reset(ioapic);
}

void ioapic_set_remap(struct ioapic *ioapic, bool (*remap)(void *opaque, struct kvm_msi *msi),
                      void *opaque)
{
    mutex_lock(&ioapic->lock);
    ioapic->remap = remap;
    ioapic->remap_opaque = opaque;
    mutex_unlock(&ioapic->lock);
}

/* The entry as the message that goes to the IOMMU, and what comes back. */
static bool remapped(struct ioapic *ioapic, u64 entry, struct apic_message *message)
{
    struct kvm_msi msi = {
        .address_lo = (u32)APIC_BASE_DEFAULT | (u32)(entry >> 48) << 4 |
                      (entry & ENTRY_LOGICAL ? (u32)BIT(2) : 0),
        .data = entry & 0x7ff,
    };

    if (entry & ENTRY_LEVEL)
        msi.data |= BIT(15) | BIT(14); /* level, asserted */
    return ioapic->remap(ioapic->remap_opaque, &msi) && apic_parse_msi(&msi, message);
}

static void deliver(struct ioapic *ioapic, unsigned pin)
{
    u64 entry = ioapic->redirection[pin];
    struct apic_message message = {
        .dest = (u32)(entry >> 56),
        .vector = (u8)entry,
        .delivery = entry >> 8 & 7,
        .logical = entry & ENTRY_LOGICAL,
        .level = entry & ENTRY_LEVEL,
        .assert = true,
        .narrow = true,
    };

    trace_emit(IRQ, irq, -1, .unit = "ioapic", .action = "deliver", .number = pin, .value = entry);
    if (entry & ENTRY_LEVEL)
        ioapic->redirection[pin] |= ENTRY_REMOTE_IRR;
    if (!ioapic->remap || remapped(ioapic, entry, &message))
        ioapic->send(ioapic, &message);
}

/* A level-triggered pin is delivered while its line is high and nobody is serving it. */
static void deliver_level(struct ioapic *ioapic, unsigned pin)
{
    u64 entry = ioapic->redirection[pin];

    if (ioapic->lines >> pin & 1 && entry & ENTRY_LEVEL &&
        !(entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        deliver(ioapic, pin);
}

/* An edge on a masked pin is ignored, not remembered (82093AA, interrupt mask). */
void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool level)
{
    u32 bit = 1u << pin;
    bool old;

    mutex_lock(&ioapic->lock);
    old = ioapic->lines & bit;
    ioapic->lines = level ? ioapic->lines | bit : ioapic->lines & ~bit;
    if (ioapic->redirection[pin] & ENTRY_LEVEL)
        deliver_level(ioapic, pin);
    else if (level && !old && !(ioapic->redirection[pin] & ENTRY_MASKED))
        deliver(ioapic, pin);
    mutex_unlock(&ioapic->lock);
}

static void end_of_interrupt(struct ioapic *ioapic, u8 vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        u64 *entry = &ioapic->redirection[pin];

        if ((u8)*entry != vector || !(*entry & ENTRY_LEVEL) || !(*entry & ENTRY_REMOTE_IRR))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        deliver_level(ioapic, pin);
    }
}

void ioapic_eoi(struct ioapic *ioapic, u8 vector)
{
    mutex_lock(&ioapic->lock);
    end_of_interrupt(ioapic, vector);
    mutex_unlock(&ioapic->lock);
}

static u32 read_register(const struct ioapic *ioapic)
{
    u32 reg = ioapic->select;
    u64 entry;

    switch (reg) {
    case 0x00:
    case 0x02: /* arbitration id */
        return ioapic->id;
    case 0x01:
        return VERSION;
    case 0x10 ... 0x10 + 2 * IOAPIC_PINS - 1:
        entry = ioapic->redirection[(reg - 0x10) / 2];
        return (u32)(reg & 1 ? entry >> 32 : entry);
    default:
        return 0;
    }
}

static u64 writable(const struct ioapic *ioapic)
{
    return ENTRY_WRITABLE | (ioapic->remap ? ENTRY_REMAPPABLE : 0);
}

static void write_redirection(struct ioapic *ioapic, unsigned pin, bool high, u32 value)
{
    u64 *entry = &ioapic->redirection[pin];
    u64 whole = high ? (u64)value << 32 | (u32)*entry : (*entry & ~0xffffffffull) | value;

    *entry = (whole & writable(ioapic)) | (*entry & (ENTRY_REMOTE_IRR | ENTRY_STATUS));
    /* An edge-triggered entry has no remote IRR: guests clear a stuck one by switching to edge. */
    if (!(*entry & ENTRY_LEVEL))
        *entry &= ~ENTRY_REMOTE_IRR;
    deliver_level(ioapic, pin);
}

u32 ioapic_read(struct ioapic *ioapic, u32 offset)
{
    u32 value = 0;

    mutex_lock(&ioapic->lock);
    if (offset == 0x00)
        value = ioapic->select;
    else if (offset == 0x10)
        value = read_register(ioapic);
    mutex_unlock(&ioapic->lock);
    return value;
}

void ioapic_write(struct ioapic *ioapic, u32 offset, u32 value)
{
    mutex_lock(&ioapic->lock);
    switch (offset) {
    case 0x00:
        ioapic->select = value & 0xff;
        break;
    case 0x10:
        if (ioapic->select == 0)
            ioapic->id = value & 0x0f000000;
        else if (ioapic->select >= 0x10 && ioapic->select < 0x10 + 2 * IOAPIC_PINS)
            write_redirection(ioapic, (ioapic->select - 0x10) / 2, ioapic->select & 1, value);
        break;
    case 0x40:
        end_of_interrupt(ioapic, (u8)value);
        break;
    }
    mutex_unlock(&ioapic->lock);
}

void ioapic_get_state(struct ioapic *ioapic, struct kvm_ioapic_state *state)
{
    memset(state, 0, sizeof *state);
    mutex_lock(&ioapic->lock);
    state->base_address = IOAPIC_BASE;
    state->ioregsel = ioapic->select;
    state->id = ioapic->id >> 24;
    state->irr = ioapic->lines;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        state->redirtbl[pin].bits = ioapic->redirection[pin];
    mutex_unlock(&ioapic->lock);
}

void ioapic_set_state(struct ioapic *ioapic, const struct kvm_ioapic_state *state)
{
    mutex_lock(&ioapic->lock);
    ioapic->select = state->ioregsel & 0xff;
    ioapic->id = state->id << 24 & 0x0f000000;
    ioapic->lines = state->irr & mask_low(IOAPIC_PINS);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] =
            state->redirtbl[pin].bits & (writable(ioapic) | ENTRY_REMOTE_IRR | ENTRY_STATUS);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        deliver_level(ioapic, pin);
    mutex_unlock(&ioapic->lock);
}
