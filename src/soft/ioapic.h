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

struct ioapic {
    pthread_mutex_t lock;
    u32 select, id;
    u64 redirection[IOAPIC_PINS];
    u32 lines; /* levels of the pins */
    /* Called with the lock held. */
    void (*send)(struct ioapic *ioapic, const struct apic_message *message);
};

void ioapic_init(struct ioapic *ioapic,
                 void (*send)(struct ioapic *ioapic, const struct apic_message *message));
void ioapic_reset(struct ioapic *ioapic);
void ioapic_set_line(struct ioapic *ioapic, unsigned pin, bool level);
/* A CPU's end of interrupt for @vector. */
void ioapic_eoi(struct ioapic *ioapic, u8 vector);
u32 ioapic_read(struct ioapic *ioapic, u32 offset);
void ioapic_write(struct ioapic *ioapic, u32 offset, u32 value);
void ioapic_get_state(struct ioapic *ioapic, struct kvm_ioapic_state *state);
void ioapic_set_state(struct ioapic *ioapic, const struct kvm_ioapic_state *state);

#endif
