/*
 * The local APIC, SDM volume 3 chapter 11: xAPIC registers in memory and x2APIC MSRs.
 *
 * Who may do what: a register is read and written by the vCPU's own thread. Any thread may post an
 * interrupt (IRR and TMR are atomic) or ask whether a destination matches. The timer has a lock,
 * because it fires from the timer thread.
 */
#ifndef TRIODE_SOFT_LAPIC_H
#define TRIODE_SOFT_LAPIC_H

#include <linux/kvm.h>

#include "base/bits.h"
#include "soft/timers.h"

#define APIC_BASE_DEFAULT 0xfee00000ull
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_EXTD BIT(10) /* x2APIC mode */
#define APIC_BASE_EN BIT(11)
#define APIC_VERSION 0x50014u /* 6 LVT entries, version 14h, as KVM's */
#define APIC_TICK_NS 1u       /* the timer counts at 1 GHz before division, as KVM's */

/* Register numbers: byte offset / 16, and x2APIC MSR - 800h. */
enum lapic_reg {
    APIC_ID = 0x02,
    APIC_LVR = 0x03,
    APIC_TPR = 0x08,
    APIC_APR = 0x09,
    APIC_PPR = 0x0a,
    APIC_EOI = 0x0b,
    APIC_RRD = 0x0c,
    APIC_LDR = 0x0d,
    APIC_DFR = 0x0e,
    APIC_SVR = 0x0f,
    APIC_ISR = 0x10,
    APIC_TMR = 0x18,
    APIC_IRR = 0x20,
    APIC_ESR = 0x28,
    APIC_ICR = 0x30,
    APIC_ICR2 = 0x31,
    APIC_LVT_TIMER = 0x32,
    APIC_LVT_THERMAL = 0x33,
    APIC_LVT_PERFORMANCE = 0x34,
    APIC_LVT_LINT0 = 0x35,
    APIC_LVT_LINT1 = 0x36,
    APIC_LVT_ERROR = 0x37,
    APIC_TMICT = 0x38,
    APIC_TMCCT = 0x39,
    APIC_TDCR = 0x3e,
    APIC_SELF_IPI = 0x3f,
};
#define APIC_LVTS 6

enum apic_delivery {
    APIC_FIXED,
    APIC_LOWEST,
    APIC_SMI,
    APIC_DELIVERY_3,
    APIC_NMI,
    APIC_INIT,
    APIC_SIPI,
    APIC_EXTINT,
};

/* An interrupt on its way to CPUs. */
struct apic_message {
    u32 dest;
    u8 vector;
    u8 delivery;  /* enum apic_delivery */
    u8 shorthand; /* 0 none, 1 self, 2 all including self, 3 all but self */
    bool logical;
    bool level;  /* level-triggered */
    bool assert; /* INIT: false is the old level de-assert, which does nothing */
    bool narrow; /* dest has 8 bits (I/O APIC, MSI): FFh is everybody in x2APIC mode too */
};

/* All mutable state. */
struct lapic_state {
    u64 base; /* IA32_APIC_BASE */
    u32 id;   /* xAPIC: in bits 31:24 */
    u32 tpr, ldr, dfr, svr, esr, esr_new;
    u32 icr, icr2;
    u32 lvt[APIC_LVTS]; /* from APIC_LVT_TIMER */
    u32 tmict, tdcr;
    u32 irr[8], isr[8], tmr[8];
    u64 timer_start, timer_period; /* ns; 0: not running */
    u64 tsc_deadline;              /* guest TSC; 0: none */
    u8 lint0;                      /* level of the pin: the 8259's output */
};

struct lapic;

struct lapic_hooks {
    void (*notify)(struct lapic *lapic);         /* there may be something to take: any thread */
    void (*nmi)(struct lapic *lapic);            /* an LVT entry says NMI: any thread */
    void (*eoi)(struct lapic *lapic, u8 vector); /* of a level-triggered interrupt */
    void (*send)(struct lapic *lapic, const struct apic_message *message);
    u64 (*deadline_ns)(struct lapic *lapic, u64 tsc); /* guest TSC to the timers' clock */
};

struct lapic {
    struct lapic_state state;
    u32 apic_id; /* x2APIC id, fixed */
    bool has_x2apic, has_tsc_deadline;
    int cpu; /* index, for the trace */
    const struct lapic_hooks *hooks;
    pthread_mutex_t timer_lock;
    struct soft_timer timer;
};

void lapic_init(struct lapic *lapic, u32 apic_id, bool bsp, struct soft_timers *timers,
                const struct lapic_hooks *hooks);
void lapic_destroy(struct lapic *lapic);
/* Power-on state; on INIT the base address and its flags stay (SDM 11.4.7.2). */
void lapic_reset(struct lapic *lapic, bool init);

/* IA32_APIC_BASE; false: #GP(0) for reserved bits or a forbidden change of mode (SDM 11.12.5). */
bool lapic_set_base(struct lapic *lapic, u64 base, u64 phys_mask);

static inline bool lapic_enabled(const struct lapic *lapic)
{
    return __atomic_load_n(&lapic->state.base, __ATOMIC_RELAXED) & APIC_BASE_EN;
}

static inline bool lapic_x2apic(const struct lapic *lapic)
{
    return __atomic_load_n(&lapic->state.base, __ATOMIC_RELAXED) & APIC_BASE_EXTD;
}

/* Register page at @offset (0..FFFh), as the CPU accesses it. */
u32 lapic_mmio_read(struct lapic *lapic, u32 offset);
void lapic_mmio_write(struct lapic *lapic, u32 offset, u32 value);
/* x2APIC MSRs 800h..8FFh; false: #GP(0). */
bool lapic_msr_read(struct lapic *lapic, u32 msr, u64 *value);
bool lapic_msr_write(struct lapic *lapic, u32 msr, u64 value);

/* CR8: task priority class. */
u64 lapic_cr8(const struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, u64 value);

/* Vector of the highest interrupt whose class is above the processor priority; -1: none. */
int lapic_pending(const struct lapic *lapic);
/* The CPU takes it: from IRR to ISR. */
void lapic_accept(struct lapic *lapic, u8 vector);
/* The 8259's interrupt reaches this CPU by LINT0 as ExtINT. */
bool lapic_extint(const struct lapic *lapic);
void lapic_eoi(struct lapic *lapic);

/* Any thread. */
void lapic_post(struct lapic *lapic, u8 vector, bool level);
void lapic_set_lint0(struct lapic *lapic, bool level);
bool lapic_matches(const struct lapic *lapic, const struct apic_message *message);
/* For lowest-priority arbitration: the processor priority as seen from outside. */
u32 lapic_arbitration_priority(const struct lapic *lapic);
bool lapic_accepts_fixed(const struct lapic *lapic);

/* Runs LVT entry @lvt (index from APIC_LVT_TIMER) now. */
void lapic_local_interrupt(struct lapic *lapic, unsigned lvt);
/* A performance counter overflowed: its LVT entry, which this masks (SDM 11.5.1). */
void lapic_performance_interrupt(struct lapic *lapic);

/* lapic_timer.c */
void lapic_timer_fire(struct soft_timer *timer);
void lapic_timer_settle(struct lapic *lapic); /* before the CPU looks at it or changes its mode */
void lapic_timer_start(struct lapic *lapic);  /* after a write of the initial count */
void lapic_timer_lvt_changed(struct lapic *lapic, u32 old);
void lapic_timer_divide_changed(struct lapic *lapic, u32 tdcr);
u32 lapic_timer_count(struct lapic *lapic);
u64 lapic_tsc_deadline(struct lapic *lapic);
void lapic_set_tsc_deadline(struct lapic *lapic, u64 tsc);

/* KVM's image of the registers. */
void lapic_get_state(struct lapic *lapic, struct kvm_lapic_state *image);
void lapic_set_state(struct lapic *lapic, const struct kvm_lapic_state *image);

#endif
