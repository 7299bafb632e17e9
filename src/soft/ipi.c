/* Interrupts between controllers and CPUs: routing, destinations, delivery modes. */
#include <errno.h>

#include "soft/private.h"
#include "trace/trace.h"

static struct soft_vcpu *of_lapic(struct lapic *lapic)
{
    return container_of(lapic, struct soft_vcpu, parts.lapic);
}

static void hook_notify(struct lapic *lapic)
{
    soft_request(of_lapic(lapic), GUEST_REQ_EVENT);
}

static void hook_nmi(struct lapic *lapic)
{
    soft_signal_nmi(of_lapic(lapic));
}

static void hook_eoi(struct lapic *lapic, u8 vector)
{
    ioapic_eoi(&of_lapic(lapic)->id.vm->ioapic, vector);
}

static void hook_send(struct lapic *lapic, const struct apic_message *message)
{
    struct soft_vcpu *vcpu = of_lapic(lapic);

    soft_deliver(vcpu->id.vm, message, vcpu);
}

/* By the distance from now, so that errors of the measured frequency do not add up. */
static u64 hook_deadline_ns(struct lapic *lapic, u64 tsc)
{
    struct soft_vcpu *vcpu = of_lapic(lapic);
    const struct soft_clock *clock = &vcpu->id.vm->clock;
    u64 now = soft_timers_now(&vcpu->id.vm->timers);
    u64 guest_now = vmx_outer_tsc(&vcpu->cpu);
    u64 ticks;

    if (tsc <= guest_now)
        return now;
    ticks = (u64)(((u128)(tsc - guest_now) << 48) / vcpu->cpu.tsc_scale);
    if (ticks > 1ull << 62)
        ticks = 1ull << 62; /* decades away: keep clear of overflow */
    return now + soft_clock_ticks_to_ns(clock, ticks);
}

const struct lapic_hooks soft_lapic_hooks = {
    .notify = hook_notify,
    .nmi = hook_nmi,
    .eoi = hook_eoi,
    .send = hook_send,
    .deadline_ns = hook_deadline_ns,
};

static bool deliver_to(struct soft_vcpu *vcpu, const struct apic_message *message)
{
    switch (message->delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        if (!lapic_accepts_fixed(&vcpu->parts.lapic))
            return false;
        lapic_post(&vcpu->parts.lapic, message->vector, message->level);
        return true;
    case APIC_NMI:
        soft_signal_nmi(vcpu);
        return true;
    case APIC_INIT:
        if (!message->level || message->assert)
            soft_signal_init(vcpu);
        return true;
    case APIC_SIPI:
        soft_signal_sipi(vcpu, message->vector);
        return true;
    case APIC_EXTINT: /* an 8259 behind an I/O APIC pin: its vector comes by acknowledge */
        lapic_post(&vcpu->parts.lapic, pic_acknowledge(&vcpu->id.vm->pic), false);
        return true;
    default: /* SMI: this CPU has no SMM */
        return false;
    }
}

static bool wanted(struct soft_vcpu *vcpu, const struct apic_message *message,
                   const struct soft_vcpu *source)
{
    switch (message->shorthand) {
    case 1:
        return vcpu == source;
    case 2:
        return true;
    case 3:
        return vcpu != source;
    default:
        return lapic_matches(&vcpu->parts.lapic, message);
    }
}

/* Among the CPUs addressed the one with the lowest priority; equals take turns. */
static struct soft_vcpu *arbitrate(struct soft_vm *vm, const struct apic_message *message,
                                   const struct soft_vcpu *source)
{
    u32 start = __atomic_fetch_add(&vm->lowest_next, 1, __ATOMIC_RELAXED), best_priority = ~0u;
    struct soft_vcpu *best = NULL;

    for (u32 i = 0; i < SOFT_MAX_CPUS; i++) {
        struct soft_vcpu *vcpu = vm->cpu[(start + i) % SOFT_MAX_CPUS];
        u32 priority;

        if (!vcpu || !wanted(vcpu, message, source) || !lapic_accepts_fixed(&vcpu->parts.lapic))
            continue;
        priority = lapic_arbitration_priority(&vcpu->parts.lapic);
        if (priority < best_priority) {
            best_priority = priority;
            best = vcpu;
        }
    }
    return best;
}

unsigned soft_deliver(struct soft_vm *vm, const struct apic_message *message,
                      struct soft_vcpu *source)
{
    unsigned count = 0;

    if (message->delivery == APIC_LOWEST) {
        struct soft_vcpu *vcpu = arbitrate(vm, message, source);

        return vcpu && deliver_to(vcpu, message);
    }
    for (u32 i = 0; i < SOFT_MAX_CPUS; i++) {
        struct soft_vcpu *vcpu = vm->cpu[i];

        if (vcpu && wanted(vcpu, message, source))
            count += deliver_to(vcpu, message);
    }
    return count;
}

void soft_ioapic_send(struct ioapic *ioapic, const struct apic_message *message)
{
    soft_deliver(container_of(ioapic, struct soft_vm, ioapic), message, NULL);
}

/* The 8259's output is wired to LINT0 of every CPU. */
void soft_pic_output(struct pic *pic, bool level)
{
    struct soft_vm *vm = container_of(pic, struct soft_vm, pic);

    for (u32 i = 0; i < SOFT_MAX_CPUS; i++)
        if (vm->cpu[i])
            lapic_set_lint0(&vm->cpu[i]->parts.lapic, level);
}

/*
 * Lines 0 to 15 go to both controllers, as on a PC, and the guest masks one of them. Line 0, the
 * timer, is at pin 2 of the I/O APIC: every PC's ACPI tables say so (interrupt source override),
 * and pin 2 itself would be the cascade, which is no line.
 */
static void set_line(struct soft_vm *vm, u32 gsi, bool level)
{
    if (gsi < 16)
        pic_set_line(&vm->pic, gsi, level);
    if (gsi < IOAPIC_PINS)
        ioapic_set_line(&vm->ioapic, gsi == 0 ? 2 : gsi, level);
}

void soft_pit_line(struct pit *pit, bool level)
{
    set_line(container_of(pit, struct soft_vm, pit), 0, level);
}

int soft_irq_line(struct vm *vm, u32 gsi, int level)
{
    if (gsi >= IOAPIC_PINS)
        return -EINVAL;
    trace_emit(IRQ, irq, -1, .unit = "line", .action = level ? "raise" : "lower", .number = gsi);
    set_line(soft_vm(vm), gsi, level);
    return 0;
}

bool apic_parse_msi(const struct kvm_msi *msi, struct apic_message *message)
{
    u32 high = msi->address_hi & 0xffffff00;

    *message = (struct apic_message){
        .dest = high | (msi->address_lo >> 12 & 0xff),
        .vector = (u8)msi->data,
        .delivery = msi->data >> 8 & 7,
        .logical = msi->address_lo & BIT(2),
        .level = msi->data & BIT(15),
        .assert = true,
        .narrow = !high,
    };

    /* The redirection hint is lowest-priority delivery by another name. */
    if (msi->address_lo & BIT(3) && message->delivery == APIC_FIXED && message->logical)
        message->delivery = APIC_LOWEST;
    return (msi->address_lo & 0xfff00000) == APIC_BASE_DEFAULT && !msi->flags;
}

int soft_signal_msi(struct vm *vm, const struct kvm_msi *msi)
{
    struct apic_message message;

    if (!apic_parse_msi(msi, &message))
        return -EINVAL;
    trace_emit(IRQ, irq, -1, .unit = "msi", .action = "send", .number = message.vector,
               .value = message.dest);
    soft_deliver(soft_vm(vm), &message, NULL);
    return 0;
}
