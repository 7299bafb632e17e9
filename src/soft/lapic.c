#include "soft/lapic.h"

#include <string.h>

#include "base/clock.h"
#include "trace/trace.h"

#define SVR_ENABLED BIT(8)
#define LVT_MASKED BIT(16)
#define LVT_PENDING_IRR BIT(14)
#define ESR_SEND_ILLEGAL BIT(5)
#define ESR_RECEIVE_ILLEGAL BIT(6)
#define ESR_ILLEGAL_REGISTER BIT(7)

/* Bits of each LVT entry that exist and can be written. */
static const u32 lvt_bits[APIC_LVTS] = {
    0x700ff, /* timer: vector, mask, mode */
    0x107ff, /* thermal: vector, delivery mode, mask */
    0x107ff, /* performance */
    0x1a7ff, /* LINT0: and polarity, trigger mode */
    0x1a7ff, /* LINT1 */
    0x100ff, /* error: vector, mask */
};

static u32 load(const u32 *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void store(u32 *word, u32 value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static void set_vector(u32 *map, u8 vector)
{
    __atomic_fetch_or(&map[vector / 32], 1u << vector % 32, __ATOMIC_SEQ_CST);
}

static void clear_vector(u32 *map, u8 vector)
{
    __atomic_fetch_and(&map[vector / 32], ~(1u << vector % 32), __ATOMIC_SEQ_CST);
}

static bool test_vector(const u32 *map, u8 vector)
{
    return load(&map[vector / 32]) >> vector % 32 & 1;
}

static int highest_vector(const u32 *map)
{
    for (int i = 7; i >= 0; i--) {
        u32 word = load(&map[i]);

        if (word)
            return i * 32 + 31 - __builtin_clz(word);
    }
    return -1;
}

static bool software_enabled(const struct lapic *lapic)
{
    return load(&lapic->state.svr) & SVR_ENABLED;
}

void lapic_init(struct lapic *lapic, u32 apic_id, bool bsp, struct soft_timers *timers,
                const struct lapic_hooks *hooks)
{
    memset(lapic, 0, sizeof *lapic);
    lapic->apic_id = apic_id;
    lapic->hooks = hooks;
    lapic->has_x2apic = lapic->has_tsc_deadline = true;
    lapic->state.base = APIC_BASE_DEFAULT | APIC_BASE_EN | (bsp ? APIC_BASE_BSP : 0);
    mutex_init(&lapic->timer_lock);
    soft_timer_init(&lapic->timer, timers, lapic_timer_fire);
    lapic_reset(lapic, false);
}

void lapic_destroy(struct lapic *lapic)
{
    soft_timer_destroy(&lapic->timer);
}

/* SDM 11.12.5.1: the logical id is made of the x2APIC id: cluster in 31:16, one bit of 15:0. */
static u32 x2apic_ldr(const struct lapic *lapic)
{
    return (lapic->apic_id >> 4) << 16 | 1u << (lapic->apic_id & 15);
}

static void clear(u32 *map)
{
    for (unsigned i = 0; i < 8; i++)
        store(&map[i], 0);
}

/*
 * The bootstrap processor's LINT0 comes up as ExtINT: "virtual wire" mode, which firmware would
 * have set up for the 8259 before any operating system runs. KVM does the same.
 *
 * Other CPUs look at the registers meanwhile, to find who takes an interrupt: what stays as it is
 * must not be gone for a moment, or a SIPI right behind the INIT is lost. The pin is another
 * thread's.
 */
void lapic_reset(struct lapic *lapic, bool init)
{
    struct lapic_state *s = &lapic->state;
    u64 base = init ? s->base : APIC_BASE_DEFAULT | APIC_BASE_EN | (s->base & APIC_BASE_BSP);
    u32 lint0 = base & APIC_BASE_BSP ? APIC_EXTINT << 8 : LVT_MASKED;

    soft_timer_disarm(&lapic->timer);
    mutex_lock(&lapic->timer_lock);
    __atomic_store_n(&s->base, base, __ATOMIC_RELAXED);
    store(&s->id, lapic->apic_id << 24);
    store(&s->ldr, base & APIC_BASE_EXTD ? x2apic_ldr(lapic) : 0);
    store(&s->dfr, ~0u);
    store(&s->tpr, 0);
    store(&s->svr, 0xff);
    s->esr = s->icr = s->icr2 = s->tmict = s->tdcr = 0;
    store(&s->esr_new, 0);
    for (unsigned i = 0; i < APIC_LVTS; i++)
        store(&s->lvt[i], i == APIC_LVT_LINT0 - APIC_LVT_TIMER ? lint0 : LVT_MASKED);
    clear(s->irr);
    clear(s->isr);
    clear(s->tmr);
    s->timer_start = s->timer_period = s->tsc_deadline = 0;
    mutex_unlock(&lapic->timer_lock);
}

bool lapic_set_base(struct lapic *lapic, u64 base, u64 phys_mask)
{
    u64 old = lapic->state.base;
    u64 writable = (phys_mask & ~0xfffull) | APIC_BASE_BSP | APIC_BASE_EN |
                   (lapic->has_x2apic ? APIC_BASE_EXTD : 0);
    u64 mode = base & (APIC_BASE_EN | APIC_BASE_EXTD);
    u64 old_mode = old & (APIC_BASE_EN | APIC_BASE_EXTD);

    if (base & ~writable || mode == APIC_BASE_EXTD)
        return false;
    if (old_mode == (APIC_BASE_EN | APIC_BASE_EXTD) && mode == APIC_BASE_EN)
        return false;
    if (old_mode == 0 && mode == (APIC_BASE_EN | APIC_BASE_EXTD))
        return false;
    __atomic_store_n(&lapic->state.base, base, __ATOMIC_RELAXED);
    if (mode == old_mode)
        return true;
    if (!mode || !old_mode) { /* off, or on again: as after reset (SDM 11.4.3) */
        lapic_reset(lapic, true);
    } else { /* xAPIC to x2APIC: registers stay but for these (SDM 11.12.5.1) */
        store(&lapic->state.ldr, x2apic_ldr(lapic));
        lapic->state.icr2 = 0;
    }
    lapic->hooks->notify(lapic);
    return true;
}

/* --- interrupts in and out --- */

static u32 processor_priority(const struct lapic *lapic)
{
    int serving = highest_vector(lapic->state.isr);
    u32 tpr = load(&lapic->state.tpr);

    if (serving < 0 || (tpr & 0xf0) >= ((u32)serving & 0xf0))
        return tpr;
    return (u32)serving & 0xf0;
}

int lapic_pending(const struct lapic *lapic)
{
    int vector;

    if (!lapic_enabled(lapic) || !software_enabled(lapic))
        return -1;
    vector = highest_vector(lapic->state.irr);
    if (vector < 0 || ((u32)vector & 0xf0) <= (processor_priority(lapic) & 0xf0))
        return -1;
    return vector;
}

void lapic_accept(struct lapic *lapic, u8 vector)
{
    clear_vector(lapic->state.irr, vector);
    set_vector(lapic->state.isr, vector);
}

bool lapic_extint(const struct lapic *lapic)
{
    u32 lvt = load(&lapic->state.lvt[APIC_LVT_LINT0 - APIC_LVT_TIMER]);

    if (!__atomic_load_n(&lapic->state.lint0, __ATOMIC_SEQ_CST))
        return false;
    /* Without a local APIC the pin is the CPU's INTR. */
    if (!lapic_enabled(lapic))
        return lapic->state.base & APIC_BASE_BSP;
    return !(lvt & LVT_MASKED) && (lvt >> 8 & 7) == APIC_EXTINT;
}

void lapic_eoi(struct lapic *lapic)
{
    int vector = highest_vector(lapic->state.isr);

    if (vector < 0)
        return;
    clear_vector(lapic->state.isr, (u8)vector);
    trace_emit(IRQ, irq, lapic->cpu, .unit = "lapic", .action = "eoi", .number = (u8)vector);
    if (test_vector(lapic->state.tmr, (u8)vector))
        lapic->hooks->eoi(lapic, (u8)vector);
    if (lapic_pending(lapic) >= 0)
        lapic->hooks->notify(lapic);
}

static void error(struct lapic *lapic, u32 bit)
{
    u32 old = __atomic_fetch_or(&lapic->state.esr_new, bit, __ATOMIC_SEQ_CST);

    if (!(old & bit))
        lapic_local_interrupt(lapic, APIC_LVT_ERROR - APIC_LVT_TIMER);
}

/* TMR first: when IRR shows the vector, its trigger mode is known. */
void lapic_post(struct lapic *lapic, u8 vector, bool level)
{
    if (vector < 16) {
        error(lapic, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (level)
        set_vector(lapic->state.tmr, vector);
    else if (test_vector(lapic->state.tmr, vector))
        clear_vector(lapic->state.tmr, vector);
    trace_emit(IRQ, irq, lapic->cpu, .unit = "lapic", .action = "post", .number = vector,
               .value = level);
    set_vector(lapic->state.irr, vector);
    lapic->hooks->notify(lapic);
}

bool lapic_accepts_fixed(const struct lapic *lapic)
{
    return lapic_enabled(lapic) && software_enabled(lapic);
}

void lapic_local_interrupt(struct lapic *lapic, unsigned lvt)
{
    u32 entry = load(&lapic->state.lvt[lvt]);
    bool fixed_only = lvt == 0 || lvt == APIC_LVT_ERROR - APIC_LVT_TIMER;

    if (entry & LVT_MASKED || !lapic_enabled(lapic))
        return;
    switch (fixed_only ? APIC_FIXED : entry >> 8 & 7) {
    case APIC_FIXED:
        if (software_enabled(lapic))
            lapic_post(lapic, (u8)entry, false);
        break;
    case APIC_NMI:
        lapic->hooks->nmi(lapic);
        break;
    case APIC_EXTINT:
        lapic->hooks->notify(lapic);
        break;
    default: /* SMI and INIT by LINT pins: no chip here is wired to give them */
        break;
    }
}

void lapic_performance_interrupt(struct lapic *lapic)
{
    const unsigned lvt = APIC_LVT_PERFORMANCE - APIC_LVT_TIMER;

    if (!lapic_enabled(lapic) || load(&lapic->state.lvt[lvt]) & LVT_MASKED)
        return;
    lapic_local_interrupt(lapic, lvt);
    store(&lapic->state.lvt[lvt], load(&lapic->state.lvt[lvt]) | LVT_MASKED);
}

void lapic_set_lint0(struct lapic *lapic, bool level)
{
    bool old = __atomic_exchange_n(&lapic->state.lint0, level, __ATOMIC_SEQ_CST);

    if (!level || old)
        return;
    if (!lapic_enabled(lapic))
        lapic->hooks->notify(lapic);
    else
        lapic_local_interrupt(lapic, APIC_LVT_LINT0 - APIC_LVT_TIMER);
}

/* SDM 11.6.2. */
static bool matches_logical(const struct lapic *lapic, u32 dest)
{
    u32 ldr = load(&lapic->state.ldr), dfr = load(&lapic->state.dfr);

    if (lapic_x2apic(lapic))
        return dest == ~0u || (ldr >> 16 == dest >> 16 && ldr & dest & 0xffff);
    if (dest > 0xff)
        return false;
    ldr >>= 24;
    if (dfr >> 28 == 0xf)
        return ldr & dest;
    return dest == 0xff || (ldr >> 4 == dest >> 4 && ldr & dest & 0xf);
}

bool lapic_matches(const struct lapic *lapic, const struct apic_message *message)
{
    u32 dest = message->dest;

    if (!lapic_enabled(lapic))
        return false;
    if (message->narrow && dest == 0xff && lapic_x2apic(lapic))
        dest = ~0u;
    if (message->logical)
        return matches_logical(lapic, dest);
    if (lapic_x2apic(lapic))
        return dest == ~0u || dest == lapic->apic_id;
    return dest == 0xff || dest == ~0u || dest == load(&lapic->state.id) >> 24;
}

u32 lapic_arbitration_priority(const struct lapic *lapic)
{
    return processor_priority(lapic);
}

u64 lapic_cr8(const struct lapic *lapic)
{
    return lapic->state.tpr >> 4 & 15;
}

static void set_tpr(struct lapic *lapic, u32 tpr)
{
    u32 old = lapic->state.tpr;

    store(&lapic->state.tpr, tpr & 0xff);
    if (tpr < old && lapic_pending(lapic) >= 0)
        lapic->hooks->notify(lapic);
}

void lapic_set_cr8(struct lapic *lapic, u64 value)
{
    set_tpr(lapic, (u32)(value & 15) << 4);
}

/* --- registers --- */

static void send_icr(struct lapic *lapic, u32 low, u32 dest)
{
    struct apic_message message = {
        .dest = dest,
        .vector = (u8)low,
        .delivery = low >> 8 & 7,
        .shorthand = low >> 18 & 3,
        .logical = low & BIT(11),
        .level = low & BIT(15),
        .assert = low & BIT(14),
    };

    if ((message.delivery == APIC_FIXED || message.delivery == APIC_LOWEST) &&
        message.vector < 16) {
        error(lapic, ESR_SEND_ILLEGAL);
        return;
    }
    trace_emit(IRQ, irq, lapic->cpu, .unit = "lapic", .action = "send", .number = message.vector,
               .value = (u64)dest << 32 | low);
    lapic->hooks->send(lapic, &message);
}

static void write_svr(struct lapic *lapic, u32 value)
{
    struct lapic_state *s = &lapic->state;

    store(&s->svr, value & 0x1ff);
    if (!(value & SVR_ENABLED)) {
        for (unsigned i = 0; i < APIC_LVTS; i++)
            store(&s->lvt[i], s->lvt[i] | LVT_MASKED);
    } else if (lapic_pending(lapic) >= 0) {
        lapic->hooks->notify(lapic);
    }
}

static void write_lvt(struct lapic *lapic, unsigned index, u32 value)
{
    u32 old = lapic->state.lvt[index];

    if (index == 0)
        lapic_timer_settle(lapic);
    value &= lvt_bits[index];
    if (index == 0 && (value >> 17 & 3) == 3)
        value &= ~(3u << 17); /* reserved */
    if (index == 0 && !lapic->has_tsc_deadline)
        value &= ~BIT(18);
    if (!software_enabled(lapic))
        value |= LVT_MASKED;
    store(&lapic->state.lvt[index], value);
    if (index == 0)
        lapic_timer_lvt_changed(lapic, old);
    else if (index == APIC_LVT_LINT0 - APIC_LVT_TIMER && lapic_extint(lapic))
        lapic->hooks->notify(lapic);
}

/* Registers both modes have, by number. False: there is none. */
static bool read_common(struct lapic *lapic, u32 reg, u32 *value)
{
    const struct lapic_state *s = &lapic->state;

    switch (reg) {
    case APIC_LVR:
        *value = APIC_VERSION;
        break;
    case APIC_TPR:
        *value = s->tpr;
        break;
    case APIC_PPR:
        *value = processor_priority(lapic);
        break;
    case APIC_LDR:
        *value = s->ldr;
        break;
    case APIC_SVR:
        *value = s->svr;
        break;
    case APIC_ISR ... APIC_ISR + 7:
        *value = s->isr[reg - APIC_ISR];
        break;
    case APIC_TMR ... APIC_TMR + 7:
        *value = load(&s->tmr[reg - APIC_TMR]);
        break;
    case APIC_IRR ... APIC_IRR + 7:
        *value = load(&s->irr[reg - APIC_IRR]);
        break;
    case APIC_ESR:
        *value = s->esr;
        break;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        *value = s->lvt[reg - APIC_LVT_TIMER];
        break;
    case APIC_TMICT:
        *value = s->tmict;
        break;
    case APIC_TMCCT:
        *value = lapic_timer_count(lapic);
        break;
    case APIC_TDCR:
        *value = s->tdcr;
        break;
    default:
        return false;
    }
    return true;
}

static bool write_common(struct lapic *lapic, u32 reg, u32 value)
{
    switch (reg) {
    case APIC_TPR:
        set_tpr(lapic, value);
        break;
    case APIC_EOI:
        lapic_eoi(lapic);
        break;
    case APIC_SVR:
        write_svr(lapic, value);
        break;
    case APIC_ESR: /* a write shows what came up since the last one (SDM 11.5.3) */
        lapic->state.esr = __atomic_exchange_n(&lapic->state.esr_new, 0, __ATOMIC_SEQ_CST);
        break;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        write_lvt(lapic, reg - APIC_LVT_TIMER, value);
        break;
    case APIC_TMICT:
        if ((lapic->state.lvt[0] >> 17 & 3) == 2)
            break; /* ignored in TSC-deadline mode */
        lapic->state.tmict = value;
        lapic_timer_start(lapic);
        break;
    case APIC_TDCR:
        lapic_timer_divide_changed(lapic, value);
        break;
    default:
        return false;
    }
    return true;
}

u32 lapic_mmio_read(struct lapic *lapic, u32 offset)
{
    u32 reg = offset >> 4, value = 0;

    switch (reg) {
    case APIC_ID:
        return lapic->state.id;
    case APIC_DFR:
        return lapic->state.dfr;
    case APIC_ICR:
        return lapic->state.icr;
    case APIC_ICR2:
        return lapic->state.icr2;
    case APIC_APR:
    case APIC_RRD:
        return 0;
    }
    if (!read_common(lapic, reg, &value))
        error(lapic, ESR_ILLEGAL_REGISTER);
    return value;
}

void lapic_mmio_write(struct lapic *lapic, u32 offset, u32 value)
{
    u32 reg = offset >> 4;

    switch (reg) {
    case APIC_ID:
        store(&lapic->state.id, value & 0xff000000);
        return;
    case APIC_LDR:
        store(&lapic->state.ldr, value & 0xff000000);
        return;
    case APIC_DFR:
        store(&lapic->state.dfr, value | 0x0fffffff);
        return;
    case APIC_ICR:
        lapic->state.icr = value & ~(u32)BIT(12); /* sent at once: delivery status stays idle */
        send_icr(lapic, value, lapic->state.icr2 >> 24);
        return;
    case APIC_ICR2:
        lapic->state.icr2 = value & 0xff000000;
        return;
    }
    if (!write_common(lapic, reg, value))
        error(lapic, ESR_ILLEGAL_REGISTER);
}

bool lapic_msr_read(struct lapic *lapic, u32 msr, u64 *value)
{
    u32 reg = msr - 0x800, low;

    if (!lapic_x2apic(lapic))
        return false;
    if (reg == APIC_ICR) {
        *value = (u64)lapic->state.icr2 << 32 | lapic->state.icr;
        return true;
    }
    if (reg == APIC_ID) {
        *value = lapic->apic_id;
        return true;
    }
    if (!read_common(lapic, reg, &low))
        return false;
    *value = low;
    return true;
}

/* SDM 11.12.1.2: reserved bits fault instead of being ignored. */
static bool x2apic_reserved(u32 reg, u64 value)
{
    switch (reg) {
    case APIC_TPR:
        return value > 0xff;
    case APIC_EOI:
    case APIC_ESR:
        return value;
    case APIC_SVR:
        return value & ~0x1ffull;
    case APIC_ICR:
        return value & 0xfff33000 & ~BIT(12);
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        return value & ~(u64)(lvt_bits[reg - APIC_LVT_TIMER] | BIT(12) | LVT_PENDING_IRR);
    case APIC_TDCR:
        return value & ~0xbull;
    default:
        return value >> 32;
    }
}

bool lapic_msr_write(struct lapic *lapic, u32 msr, u64 value)
{
    u32 reg = msr - 0x800;

    if (!lapic_x2apic(lapic) || x2apic_reserved(reg, value))
        return false;
    switch (reg) {
    case APIC_ICR:
        lapic->state.icr = (u32)value;
        lapic->state.icr2 = (u32)(value >> 32);
        send_icr(lapic, (u32)value, (u32)(value >> 32));
        return true;
    case APIC_SELF_IPI:
        if (value > 0xff)
            return false;
        if (value < 16)
            error(lapic, ESR_SEND_ILLEGAL);
        else
            lapic_post(lapic, (u8)value, false);
        return true;
    default:
        return write_common(lapic, reg, (u32)value);
    }
}

/* --- KVM's image: each register at its byte offset --- */

static u32 *image_reg(struct kvm_lapic_state *image, u32 reg)
{
    return (u32 *)(void *)(image->regs + reg * 16);
}

void lapic_get_state(struct lapic *lapic, struct kvm_lapic_state *image)
{
    memset(image, 0, sizeof *image);
    for (u32 reg = 0; reg < 0x40; reg++) {
        u32 value;

        if (read_common(lapic, reg, &value))
            *image_reg(image, reg) = value;
    }
    *image_reg(image, APIC_ID) = lapic_x2apic(lapic) ? lapic->apic_id << 24 : lapic->state.id;
    *image_reg(image, APIC_DFR) = lapic->state.dfr;
    *image_reg(image, APIC_ICR) = lapic->state.icr;
    *image_reg(image, APIC_ICR2) = lapic->state.icr2;
}

void lapic_set_state(struct lapic *lapic, const struct kvm_lapic_state *in)
{
    struct kvm_lapic_state copy = *in, *image = &copy;
    struct lapic_state *s = &lapic->state;
    u32 left = *image_reg(image, APIC_TMCCT);

    soft_timer_disarm(&lapic->timer);
    for (u32 i = 0; i < 8; i++) {
        store(&s->isr[i], *image_reg(image, APIC_ISR + i));
        store(&s->tmr[i], *image_reg(image, APIC_TMR + i));
        store(&s->irr[i], *image_reg(image, APIC_IRR + i));
    }
    for (u32 i = 0; i < APIC_LVTS; i++)
        store(&s->lvt[i], *image_reg(image, APIC_LVT_TIMER + i) & lvt_bits[i]);
    if (!lapic_x2apic(lapic)) {
        store(&s->id, *image_reg(image, APIC_ID) & 0xff000000);
        store(&s->ldr, *image_reg(image, APIC_LDR) & 0xff000000);
        store(&s->dfr, *image_reg(image, APIC_DFR) | 0x0fffffff);
    }
    store(&s->tpr, *image_reg(image, APIC_TPR) & 0xff);
    store(&s->svr, *image_reg(image, APIC_SVR) & 0x1ff);
    s->esr = *image_reg(image, APIC_ESR);
    s->icr = *image_reg(image, APIC_ICR);
    s->icr2 = *image_reg(image, APIC_ICR2);
    s->tmict = *image_reg(image, APIC_TMICT);
    s->tdcr = *image_reg(image, APIC_TDCR) & 0xb;
    lapic_timer_start(lapic);
    if (left && left < s->tmict && s->timer_period) {
        mutex_lock(&lapic->timer_lock);
        s->timer_start -= muldiv64(s->timer_period, s->tmict - left, s->tmict);
        soft_timer_arm(&lapic->timer, s->timer_start + s->timer_period);
        mutex_unlock(&lapic->timer_lock);
    }
    lapic->hooks->notify(lapic);
}
