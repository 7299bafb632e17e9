/* APIC virtualization and virtual interrupts. SDM chapter 30. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

/* Offsets of registers in the virtual-APIC page; x2APIC MSR 800h + offset / 16. */
enum {
    VAPIC_ID = 0x20,
    VAPIC_VERSION = 0x30,
    VAPIC_TPR = 0x80,
    VAPIC_PPR = 0xa0,
    VAPIC_EOI = 0xb0,
    VAPIC_LDR = 0xd0,
    VAPIC_DFR = 0xe0,
    VAPIC_SVR = 0xf0,
    VAPIC_ISR = 0x100,
    VAPIC_TMR = 0x180,
    VAPIC_IRR = 0x200,
    VAPIC_ESR = 0x280,
    VAPIC_ICR = 0x300,
    VAPIC_ICR2 = 0x310,
    VAPIC_LVT_TIMER = 0x320,
    VAPIC_LVT_ERROR = 0x370,
    VAPIC_INITIAL_COUNT = 0x380,
    VAPIC_DIVIDE = 0x3e0,
    VAPIC_SELF_IPI = 0x3f0,
};

#define MSR_X2APIC 0x800u

/* Access types of the exit qualification, SDM table 28-6. */
enum {
    ACCESS_READ,
    ACCESS_WRITE,
    ACCESS_FETCH,
    ACCESS_DELIVERY,
    ACCESS_PHYSICAL_DELIVERY = 10,
    ACCESS_PHYSICAL = 15
};

static u32 get(const struct x86_cpu *cpu, const struct vmcs *v, u32 offset)
{
    u32 value = 0;

    mem_read(cpu->common.mem, v->virtual_apic_address + offset, &value, sizeof(value));
    return value;
}

static void set(struct x86_cpu *cpu, const struct vmcs *v, u32 offset, u32 value)
{
    mem_write(cpu->common.mem, v->virtual_apic_address + offset, &value, sizeof(value));
}

static u32 rvi(const struct vmcs *v)
{
    return v->guest_interrupt_status & 0xff;
}

static u32 svi(const struct vmcs *v)
{
    return v->guest_interrupt_status >> 8;
}

static void set_status(struct vmcs *v, u32 requested, u32 in_service)
{
    v->guest_interrupt_status = (u16)(in_service << 8 | requested);
}

/* Registers of 256 bits: eight words of 32, 16 bytes apart. */
static u32 word_of(u32 base, unsigned vector)
{
    return base + (vector >> 5) * 16;
}

static void set_vector(struct x86_cpu *cpu, const struct vmcs *v, u32 base, unsigned vector,
                       bool on)
{
    u32 word = get(cpu, v, word_of(base, vector)), bit = 1u << (vector & 31);

    set(cpu, v, word_of(base, vector), on ? word | bit : word & ~bit);
}

static unsigned highest(const struct x86_cpu *cpu, const struct vmcs *v, u32 base)
{
    for (unsigned i = 8; i-- > 0;) {
        u32 word = get(cpu, v, base + i * 16);

        if (word)
            return i * 32 + 31 - (unsigned)__builtin_clz(word);
    }
    return 0;
}

static bool delivery(const struct vmcs *v)
{
    return vmx_proc2(v, VMX_C_virtual_interrupt_delivery);
}

/* An exit that comes when the instruction under way is done. */
static void exit_after(struct x86_cpu *cpu, u32 reason, u64 qualification)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    vmx->due = reason;
    vmx->due_qualification = qualification;
}

/* 30.1.3. */
static void virtualize_ppr(struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 tpr = get(cpu, v, VAPIC_TPR) & 0xff;

    set(cpu, v, VAPIC_PPR, tpr >> 4 >= svi(v) >> 4 ? tpr : svi(v) & 0xf0);
}

/* Whoever waits for less pressure looks again after this instruction. */
static void look_again(struct x86_cpu *cpu)
{
    __atomic_fetch_or(&cpu->common.request, GUEST_REQ_EVENT, __ATOMIC_SEQ_CST);
}

/* 30.1.2. */
static void virtualize_tpr(struct x86_cpu *cpu, struct vmcs *v)
{
    if (delivery(v)) {
        virtualize_ppr(cpu, v);
        look_again(cpu);
    } else if ((get(cpu, v, VAPIC_TPR) >> 4 & 15) < (v->tpr_threshold & 15)) {
        exit_after(cpu, VMX_REASON_tpr_below_threshold, 0);
        look_again(cpu);
    }
}

/* 30.1.4. */
static void virtualize_eoi(struct x86_cpu *cpu, struct vmcs *v)
{
    const u64 bitmap[] = {v->eoi_exit_bitmap_0, v->eoi_exit_bitmap_1, v->eoi_exit_bitmap_2,
                          v->eoi_exit_bitmap_3};
    unsigned vector = svi(v);

    set_vector(cpu, v, VAPIC_ISR, vector, false);
    set_status(v, rvi(v), highest(cpu, v, VAPIC_ISR));
    virtualize_ppr(cpu, v);
    if (bitmap[vector >> 6] >> (vector & 63) & 1)
        exit_after(cpu, VMX_REASON_virtualized_eoi, vector);
    look_again(cpu);
}

/* 30.1.5. */
static void virtualize_self_ipi(struct x86_cpu *cpu, struct vmcs *v, unsigned vector)
{
    set_vector(cpu, v, VAPIC_IRR, vector, true);
    set_status(v, vector > rvi(v) ? vector : rvi(v), svi(v));
    look_again(cpu);
}

bool vmx_virtual_interrupt(const struct x86_cpu *cpu)
{
    const struct vmcs *v = vmx_inner(cpu);

    return v && delivery(v) && !vmx_proc(v, VMX_C_interrupt_window_exiting) &&
           rvi(v) >> 4 > (get(cpu, v, VAPIC_PPR) >> 4 & 15);
}

/* 30.2.2. */
void vmx_deliver_virtual_interrupt(struct x86_cpu *cpu)
{
    struct vmcs *v = vmx_inner(cpu);
    u32 vector = rvi(v);
    struct x86_event event = {.valid = true, .vector = (u8)vector};

    set_vector(cpu, v, VAPIC_ISR, vector, true);
    set(cpu, v, VAPIC_PPR, vector & 0xf0);
    set_vector(cpu, v, VAPIC_IRR, vector, false);
    set_status(v, highest(cpu, v, VAPIC_IRR), vector);
    vmx_inject(vmx_of(cpu), &event);
}

/* 27.3.2.5 and 27.7.7: what an entry does with the virtual APIC. */
void vmx_enter_vapic(struct x86_cpu *cpu)
{
    struct vmcs *v = vmx_inner(cpu);

    if (!vmx_proc(v, VMX_C_use_tpr_shadow))
        return;
    if (delivery(v))
        virtualize_ppr(cpu, v);
    else if (vmx_proc2(v, VMX_C_virtualize_apic_accesses))
        virtualize_tpr(cpu, v);
}

/* 30.6: the outstanding-notification bit goes, what is posted is requested. */
bool vmx_post_interrupts(struct x86_cpu *cpu, u8 vector)
{
    struct vmcs *v = vmx_inner(cpu);
    u64 at;

    if (!v || !vmx_pin(v, VMX_C_process_posted_interrupts) ||
        vector != v->posted_interrupt_notification_vector)
        return false;
    at = v->posted_interrupt_descriptor_address;
    for (unsigned i = 0; i < 9; i++) {
        u32 *hva = (u32 *)mem_hva(cpu->common.mem, at + (i < 8 ? i * 4 : 32), 4, true), word;

        if (!hva)
            continue;
        if (i == 8) {
            __atomic_fetch_and(hva, ~1u, __ATOMIC_SEQ_CST);
            break;
        }
        word = __atomic_exchange_n(hva, 0, __ATOMIC_SEQ_CST);
        if (!word)
            continue;
        set(cpu, v, VAPIC_IRR + i * 16, get(cpu, v, VAPIC_IRR + i * 16) | word);
        word = i * 32 + 31 - (unsigned)__builtin_clz(word);
        if (word > rvi(v))
            set_status(v, word, svi(v));
    }
    mem_wrote(cpu->common.mem, at, 64);
    return true;
}

/* --- CR8 (30.3) --- */

bool vmx_read_cr8(struct x86_cpu *cpu, u64 *value)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(!v) || !vmx_proc(v, VMX_C_use_tpr_shadow))
        return false;
    *value = get(cpu, v, VAPIC_TPR) >> 4 & 15;
    return true;
}

bool vmx_write_cr8(struct x86_cpu *cpu, u64 value)
{
    struct vmcs *v = vmx_inner(cpu);

    if (likely(!v) || !vmx_proc(v, VMX_C_use_tpr_shadow))
        return false;
    set(cpu, v, VAPIC_TPR, (u32)value << 4);
    virtualize_tpr(cpu, v);
    return true;
}

/* --- x2APIC MSRs (30.5) --- */

bool vmx_x2apic_read(struct x86_cpu *cpu, u32 msr, u64 *value)
{
    const struct vmcs *v = vmx_inner(cpu);
    u32 offset = (msr & 0xff) << 4;

    if (likely(!v) || msr >> 8 != MSR_X2APIC >> 8 || !vmx_proc2(v, VMX_C_virtualize_x2apic_mode) ||
        (offset != VAPIC_TPR && !vmx_proc2(v, VMX_C_apic_register_virtualization)))
        return false;
    *value = get(cpu, v, offset) | (u64)get(cpu, v, offset + 4) << 32;
    return true;
}

bool vmx_x2apic_write(struct x86_cpu *cpu, u32 msr, u64 value, bool *ok)
{
    struct vmcs *v = vmx_inner(cpu);
    u32 offset = (msr & 0xff) << 4;

    if (likely(!v) || msr >> 8 != MSR_X2APIC >> 8 || !vmx_proc2(v, VMX_C_virtualize_x2apic_mode) ||
        (offset != VAPIC_TPR &&
         !(delivery(v) && (offset == VAPIC_EOI || offset == VAPIC_SELF_IPI))))
        return false;
    *ok = offset == VAPIC_EOI ? !value : !(value >> 8);
    if (!*ok)
        return true;
    set(cpu, v, offset, (u32)value);
    set(cpu, v, offset + 4, 0);
    if (offset == VAPIC_TPR)
        virtualize_tpr(cpu, v);
    else if (offset == VAPIC_EOI)
        virtualize_eoi(cpu, v);
    else if (value & 0xf0)
        virtualize_self_ipi(cpu, v, (unsigned)value);
    else
        exit_after(cpu, VMX_REASON_apic_write, VAPIC_SELF_IPI);
    look_again(cpu);
    return true;
}

/* --- The APIC-access page (30.4) --- */

static NORETURN void access_exit(struct x86_cpu *cpu, u64 gpa, unsigned type)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    if (vmx->delivering.valid)
        type = type == ACCESS_PHYSICAL ? ACCESS_PHYSICAL_DELIVERY : ACCESS_DELIVERY;
    vmx->exit_to = &vmx->nested;
    cpu->vmexit = (struct x86_vmexit){
        .reason = VMX_REASON_apic_access,
        .qualification = (gpa & 0xfff) | (u64)type << 12,
    };
    guest_leave(&cpu->common, X86_EXIT_VMEXIT);
}

/* 30.4.6.1: such accesses are never virtualized, and their offset is not defined. */
void vmx_apic_walk(struct x86_cpu *cpu)
{
    cpu->loading_pdptes = false;
    access_exit(cpu, 0, ACCESS_PHYSICAL);
}

void vmx_apic_fetch(struct x86_cpu *cpu, u64 gva)
{
    access_exit(cpu, gva, ACCESS_FETCH);
}

static bool in(u32 reg, u32 first, u32 last)
{
    return reg >= first && reg <= last;
}

/* 30.4.2. */
static bool reads_virtually(const struct vmcs *v, u32 reg)
{
    if (!vmx_proc2(v, VMX_C_apic_register_virtualization))
        return reg == VAPIC_TPR;
    return in(reg, VAPIC_ID, VAPIC_VERSION) || reg == VAPIC_TPR || reg == VAPIC_EOI ||
           in(reg, VAPIC_LDR, VAPIC_SVR) || in(reg, VAPIC_ISR, VAPIC_ESR) ||
           in(reg, VAPIC_ICR, VAPIC_INITIAL_COUNT) || reg == VAPIC_DIVIDE;
}

/* 30.4.3.1. */
static bool writes_virtually(const struct vmcs *v, u32 reg)
{
    if (reg == VAPIC_TPR)
        return true;
    if (!vmx_proc2(v, VMX_C_apic_register_virtualization))
        return delivery(v) && (reg == VAPIC_EOI || reg == VAPIC_ICR);
    return reg == VAPIC_ID || reg == VAPIC_EOI || in(reg, VAPIC_LDR, VAPIC_SVR) ||
           reg == VAPIC_ESR || in(reg, VAPIC_ICR, VAPIC_INITIAL_COUNT) || reg == VAPIC_DIVIDE;
}

static bool one_register(u64 gpa, unsigned bytes)
{
    return (gpa & 15) + bytes <= 4;
}

bool vmx_apic_read(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes)
{
    const struct vmcs *v = vmx_inner(cpu);

    if (likely(gpa >> 12 != VMX_APIC_PAGE >> 12) || !v)
        return false;
    if (!vmx_proc(v, VMX_C_use_tpr_shadow) || vmx_of(cpu)->delivering.valid ||
        !one_register(gpa, bytes) || !reads_virtually(v, gpa & 0xff0))
        access_exit(cpu, gpa, ACCESS_READ);
    memset(buf, 0, bytes);
    mem_read(cpu->common.mem, v->virtual_apic_address + (gpa & 0xfff), buf, bytes);
    return true;
}

/* 30.4.3.3: an IPI to itself that needs nobody's help. */
static bool plain_self_ipi(u32 icr)
{
    const u32 reserved = 0xfff33000, shorthand = 3u << 18, delivery_mode = 7u << 8;

    return !(icr & reserved) && (icr & shorthand) == 1u << 18 && !(icr & delivery_mode) &&
           !(icr & BIT(15)) && icr & 0xf0;
}

/* 30.4.3.2: APIC-write emulation, when the instruction's other effects are done. */
static void emulate_write(struct x86_cpu *cpu, struct vmcs *v, u32 reg)
{
    switch (reg) {
    case VAPIC_TPR:
        set(cpu, v, reg, get(cpu, v, reg) & 0xff);
        virtualize_tpr(cpu, v);
        return;
    case VAPIC_EOI:
        if (!delivery(v))
            break;
        set(cpu, v, reg, 0);
        virtualize_eoi(cpu, v);
        return;
    case VAPIC_ICR:
        if (!delivery(v) || !plain_self_ipi(get(cpu, v, reg)))
            break;
        virtualize_self_ipi(cpu, v, get(cpu, v, reg) & 0xff);
        return;
    case VAPIC_ICR2:
        set(cpu, v, reg, get(cpu, v, reg) & 0xff000000);
        return;
    }
    exit_after(cpu, VMX_REASON_apic_write, reg);
}

bool vmx_apic_write(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes)
{
    struct vmx_cpu *vmx = vmx_of(cpu);
    struct vmcs *v = vmx_inner(cpu);

    if (likely(gpa >> 12 != VMX_APIC_PAGE >> 12) || !v)
        return false;
    if (!vmx_proc(v, VMX_C_use_tpr_shadow) || vmx->delivering.valid || !one_register(gpa, bytes) ||
        !writes_virtually(v, gpa & 0xff0))
        access_exit(cpu, gpa, ACCESS_WRITE);
    /* What follows the write comes between this instruction and the next: it runs alone. */
    if (cpu->common.insn_limit != 1) {
        vmx->alone = true;
        guest_leave(&cpu->common, X86_EXIT_STATE);
    }
    mem_write(cpu->common.mem, v->virtual_apic_address + (gpa & 0xfff), buf, bytes);
    emulate_write(cpu, v, gpa & 0xff0);
    return true;
}
