/*
 * The I/O APIC: 24 pins, version 20h with the EOI register. 82093AA data sheet, and Intel I/O
 * Controller Hub data sheets for the EOI register.
 */
#ifndef TRIODE_SOFT_IOAPIC_H
#define TRIODE_SOFT_IOAPIC_H

#include <linux/kvm.h>

#include "base/thread.h"
#include "soft/lapic.h"

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

/* The interrupt that a write to the APICs' window of memory is (SDM 11.11). address_hi: bits 31:8
 * of a 32-bit destination, as KVM has them. False when it is none. */
bool apic_parse_msi(const struct kvm_msi *msi, struct apic_message *message);

struct ioapic {
    pthread_mutex_t lock;
    u32 select, id;
    u64 redirection[IOAPIC_PINS];
    u32 lines; /* levels of the pins */
    /* Called with the lock held. */
    void (*send)(struct ioapic *ioapic, const struct apic_message *message);
    bool (*remap)(void *opaque, struct kvm_msi *msi); /* engine.h, set_irq_remap; or NULL */
    void *remap_opaque;
};

void ioapic_init(struct ioapic *ioapic,
                 void (*send)(struct ioapic *ioapic, const struct apic_message *message));
void ioapic_set_remap(struct ioapic *ioapic, bool (*remap)(void *opaque, struct kvm_msi *msi),
                      void *opaque);
void ioapic_reset(struct ioapic *ioapic);
void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool level);
/* A CPU's end of interrupt for @vector. */
void ioapic_eoi(struct ioapic *ioapic, u8 vector);
u32 ioapic_read(struct ioapic *ioapic, u32 offset);
void ioapic_write(struct ioapic *ioapic, u32 offset, u32 value);
void ioapic_get_state(struct ioapic *ioapic, struct kvm_ioapic_state *state);
void ioapic_set_state(struct ioapic *ioapic, const struct kvm_ioapic_state *state);

#endif
