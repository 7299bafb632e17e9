/*
 * Two 8259A interrupt controllers, the second cascaded to input 2 of the first, with the edge/level
 * control registers of PC chip sets (ports 4D0h, 4D1h). Intel 8259A data sheet.
 */
#ifndef TRIODE_SOFT_PIC_H
#define TRIODE_SOFT_PIC_H

#include <linux/kvm.h>

#include "base/thread.h"

struct pic {
    pthread_mutex_t lock;
    struct kvm_pic_state chip[2]; /* all state, in KVM's own form: master, slave */
    bool output;                  /* the INT pin of the master */
    /* Called with the lock held when the INT pin changes. */
    void (*set_output)(struct pic *pic, bool level);
};

void pic_init(struct pic *pic, void (*set_output)(struct pic *pic, bool level));
void pic_reset(struct pic *pic);
/* Input 0..15; 2 does not exist. */
void pic_set_line(struct pic *pic, unsigned line, bool level);
/* The CPU's interrupt acknowledge: the vector; that of input 7 when the request has gone. */
u8 pic_acknowledge(struct pic *pic);
/* Ports 20h 21h A0h A1h 4D0h 4D1h. False: not one of them. */
bool pic_port(u16 port);
u8 pic_read(struct pic *pic, u16 port);
void pic_write(struct pic *pic, u16 port, u8 value);
/* Chip 0 or 1 (KVM_IRQCHIP_PIC_MASTER, _SLAVE). */
void pic_get_state(struct pic *pic, unsigned chip, struct kvm_pic_state *state);
void pic_set_state(struct pic *pic, unsigned chip, const struct kvm_pic_state *state);

#endif
