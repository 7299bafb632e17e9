/*
 * The 8254 interval timer with a PC's wiring: channel 0 to interrupt line 0, channel 2 gated by and
 * read back through port 61h. Intel 8254 data sheet.
 */
#ifndef TRIODE_SOFT_PIT_H
#define TRIODE_SOFT_PIT_H

#include <linux/kvm.h>

#include "soft/timers.h"

#define PIT_HZ 1193182ull

struct pit_channel {
    struct kvm_pit_channel_state s; /* count_load_time: when counting began, ns of the timers */
    u64 held;                       /* ns counted when the gate fell; valid while it is low */
    bool armed;                     /* modes 1 and 5: the gate has risen */
    bool loaded;                    /* a count was written since the mode */
};

struct pit {
    pthread_mutex_t lock;
    struct pit_channel channel[3];
    bool speaker;                                  /* port 61h bit 1 */
    bool cut;                                      /* the HPET has line 0 */
    struct soft_timer timer;                       /* channel 0's next rising edge */
    void (*set_line)(struct pit *pit, bool level); /* called with the lock held */
};

void pit_init(struct pit *pit, struct soft_timers *timers,
              void (*set_line)(struct pit *pit, bool level));
void pit_destroy(struct pit *pit);
/* Ports 40h..43h and 61h. */
bool pit_port(u16 port);
u8 pit_read(struct pit *pit, u16 port);
void pit_write(struct pit *pit, u16 port, u8 value);
void pit_get_state(struct pit *pit, struct kvm_pit_state2 *state);
void pit_set_state(struct pit *pit, const struct kvm_pit_state2 *state);

#endif
