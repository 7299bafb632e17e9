/* Fault recording (VT-d 7.2.1) and events (7.3). */
#include "device/vtd/vtd.h"

enum { FAULT_BYTES = 16 };

#define FAULT_SET BIT(63) /* of the second half */
#define FAULT_READ BIT(62)
#define FAULT_REASON_SHIFT 32

/* @control is the first of four registers: control, data, address, upper address. */
static void send(struct vtd *vtd, enum vtd_register control)
{
    const u64 *regs = &vtd->state.regs[control];
    const struct device_env *env = vtd->dev.env;

    /* What the unit itself sends is not remapped (5.1.6). */
    if (env->msi)
        env->msi(env->opaque, regs[3] << 32 | regs[2], (u32)regs[1]);
}

static void event(struct vtd *vtd, enum vtd_register control)
{
    u64 *reg = &vtd->state.regs[control];

    if (*reg & VTD_EVENT_MASKED)
        *reg |= VTD_EVENT_PENDING;
    else
        send(vtd, control);
}

/* The event is sent if it is pending and unmasked, and forgotten when its cause is gone. */
static void update(struct vtd *vtd, enum vtd_register control, u64 causes)
{
    u64 *reg = &vtd->state.regs[control];

    if (!causes)
        *reg &= ~(u64)VTD_EVENT_PENDING;
    if (!(*reg & VTD_EVENT_PENDING) || (*reg & VTD_EVENT_MASKED))
        return;
    *reg &= ~(u64)VTD_EVENT_PENDING;
    send(vtd, control);
}

static u64 fault_causes(const struct vtd *vtd)
{
    return vtd->state.regs[VTD_FSTS] & (VTD_FSTS_PFO | VTD_FSTS_PPF | VTD_FSTS_IQE);
}

void vtd_status_written(struct vtd *vtd)
{
    update(vtd, VTD_FECTL, fault_causes(vtd));
    update(vtd, VTD_IECTL, vtd->state.regs[VTD_ICS] & VTD_ICS_IWC);
}

/* One event for all causes until software has served them. */
static void fault_status(struct vtd *vtd, u64 cause)
{
    bool served = !fault_causes(vtd);

    vtd->state.regs[VTD_FSTS] |= cause;
    if (served)
        event(vtd, VTD_FECTL);
}

void vtd_record(struct vtd *vtd, enum vtd_fault reason, u16 source, u64 information, bool read)
{
    struct vtd_state *s = &vtd->state;
    u32 next = s->next_fault % VTD_FAULTS;

    if (s->regs[VTD_FSTS] & VTD_FSTS_PFO)
        return;
    if (s->faults[next].source & FAULT_SET) {
        fault_status(vtd, VTD_FSTS_PFO);
        return;
    }
    s->faults[next].information = information & VTD_PAGES;
    s->faults[next].source =
        source | (u64)reason << FAULT_REASON_SHIFT | (read ? FAULT_READ : 0) | FAULT_SET;
    s->next_fault = (next + 1) % VTD_FAULTS;
    if (!(s->regs[VTD_FSTS] & VTD_FSTS_PPF)) {
        s->regs[VTD_FSTS] &= ~(0xffull << VTD_FSTS_FRI_SHIFT);
        s->regs[VTD_FSTS] |= next << VTD_FSTS_FRI_SHIFT;
        fault_status(vtd, VTD_FSTS_PPF);
    }
}

void vtd_queue_error(struct vtd *vtd)
{
    fault_status(vtd, VTD_FSTS_IQE);
}

void vtd_wait_done(struct vtd *vtd)
{
    u64 *status = &vtd->state.regs[VTD_ICS];
    bool served = !(*status & VTD_ICS_IWC);

    *status |= VTD_ICS_IWC;
    if (served)
        event(vtd, VTD_IECTL);
}

/* Only the bit that says there is a fault can be written: a 1 clears it. */
void vtd_write_fault(struct vtd *vtd, u64 offset, unsigned size, u64 value)
{
    struct vtd_state *s = &vtd->state;
    u64 *source = &s->faults[offset / FAULT_BYTES].source;
    bool any = false;

    if (offset % FAULT_BYTES < 8 || (offset + size) % FAULT_BYTES || !(value >> (8 * size - 1)))
        return;
    *source &= ~FAULT_SET;
    for (unsigned i = 0; i < VTD_FAULTS; i++)
        any |= (s->faults[i].source & FAULT_SET) != 0;
    if (!any)
        s->regs[VTD_FSTS] &= ~(u64)VTD_FSTS_PPF;
    vtd_status_written(vtd);
}
