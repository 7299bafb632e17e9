/*
 * Memory outside all slots. The local APIC and the I/O APIC are answered on the spot. Everything
 * else is an EPT violation of the root VMCS and goes up as KVM_EXIT_MMIO; when the answer is there
 * the instruction starts over, alone, and the accesses it has already made are taken from a list
 * instead of being made again.
 */
#include <string.h>

#include "base/log.h"
#include "soft/private.h"
#include "trace/trace.h"

/* --- chips inside --- */

/* Registers are 32 bits at 16-byte steps; a narrower read gets its part. Wider or crossing accesses
 * are undefined (SDM 11.4.1) and see one register. */
static bool inside_read(struct soft_vcpu *vcpu, u64 gpa, void *buf, unsigned bytes)
{
    struct lapic *lapic = &vcpu->parts.lapic;
    u64 page = gpa & ~0xfffull;
    u32 offset = gpa & 0xfff, value;

    if (page == (lapic->state.base & ~0xfffull) && lapic_enabled(lapic) && !lapic_x2apic(lapic))
        value = lapic_mmio_read(lapic, offset & ~0xfu);
    else if (page == IOAPIC_BASE)
        value = ioapic_read(&vcpu->id.vm->ioapic, offset & ~3u);
    else
        return false;
    if (page != IOAPIC_BASE && offset & 0xc)
        value = 0;
    value >>= 8 * (offset & 3);
    memset(buf, 0, bytes);
    memcpy(buf, &value, bytes < 4 ? bytes : 4);
    return true;
}

static bool inside_write(struct soft_vcpu *vcpu, u64 gpa, const void *buf, unsigned bytes)
{
    struct lapic *lapic = &vcpu->parts.lapic;
    u64 page = gpa & ~0xfffull;
    u32 offset = gpa & 0xfff, value = 0;
    bool is_lapic =
        page == (lapic->state.base & ~0xfffull) && lapic_enabled(lapic) && !lapic_x2apic(lapic);

    if (!is_lapic && page != IOAPIC_BASE)
        return false;
    memcpy(&value, buf, bytes < 4 ? bytes : 4);
    if (is_lapic) {
        if (!(offset & 0xf)) /* only whole registers are written */
            lapic_mmio_write(lapic, offset, value);
    } else if (!(offset & 3)) {
        ioapic_write(&vcpu->id.vm->ioapic, offset, value);
    }
    return true;
}

/* --- the list --- */

/* Changes when a repeated instruction has done an iteration, so that what is on the list belongs to
 * the one before. */
static u64 place(const struct x86_cpu *cpu)
{
    u64 hash = cpu->lip;

    hash = hash * 0x9e3779b97f4a7c15ull + cpu->gpr[X86_RCX];
    hash = hash * 0x9e3779b97f4a7c15ull + cpu->gpr[X86_RSI];
    hash = hash * 0x9e3779b97f4a7c15ull + cpu->gpr[X86_RDI];
    return hash * 0x9e3779b97f4a7c15ull + cpu->gpr[X86_RSP];
}

void soft_mmio_done(struct soft_vcpu *vcpu)
{
    vcpu->priv.mmio.count = vcpu->priv.mmio.next = 0;
}

/* The next entry of the list, if it is this access. One that is not means that another CPU changed
 * the instruction or its page tables under it: the rest of the list is void. */
static struct soft_mmio_access *from_list(struct soft_vcpu *vcpu, u64 gpa, unsigned bytes,
                                          bool write)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;
    struct soft_mmio_access *access;

    if (mmio->next >= mmio->count)
        return NULL;
    if (mmio->place != place(&vcpu->cpu)) {
        soft_mmio_done(vcpu);
        return NULL;
    }
    access = &mmio->done[mmio->next];
    if (access->gpa != gpa || access->bytes != bytes || access->write != write) {
        mmio->count = mmio->next;
        return NULL;
    }
    mmio->next++;
    return access;
}

/* Makes room for an access at the place of the guest's instruction. */
static void begin_place(struct soft_vcpu *vcpu)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;
    u64 now = place(&vcpu->cpu);

    if (mmio->place != now) {
        soft_mmio_done(vcpu);
        mmio->place = now;
    }
}

/* Ports lie above all guest-physical addresses. */
static u64 port_gpa(u16 port)
{
    return BIT(63) | port;
}

bool soft_mmio_recall_port(struct soft_vcpu *vcpu, u16 port, void *data, unsigned bytes)
{
    const struct soft_mmio_access *access = from_list(vcpu, port_gpa(port), bytes, false);

    if (access)
        memcpy(data, access->data, bytes);
    return access;
}

void soft_mmio_note_port(struct soft_vcpu *vcpu, u16 port, const void *data, unsigned bytes)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;
    struct soft_mmio_access access = {.gpa = port_gpa(port), .bytes = (u8)bytes};

    begin_place(vcpu);
    memcpy(access.data, data, bytes);
    mmio->count = 0; /* it is the instruction's first */
    mmio->done[mmio->count++] = access;
    mmio->next = mmio->count;
}

static void ask(struct soft_vcpu *vcpu, u64 gpa, const void *data, unsigned bytes,
                bool write) NORETURN;
static void ask(struct soft_vcpu *vcpu, u64 gpa, const void *data, unsigned bytes, bool write)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;

    begin_place(vcpu);
    mmio->pending = (struct soft_mmio_access){.gpa = gpa, .bytes = (u8)bytes, .write = write};
    if (write)
        memcpy(mmio->pending.data, data, bytes);
    vmx_ept_violation(&vcpu->cpu, gpa, write ? GUEST_WRITE : GUEST_READ);
}

/* The trace of all others is the machine's. */
static void note_inside(struct soft_vcpu *vcpu, const char *op, u64 gpa, const void *buf,
                        unsigned bytes)
{
    u64 value = 0;

    vcpu->priv.stats.mmio_inside++;
    memcpy(&value, buf, bytes < sizeof(value) ? bytes : sizeof(value));
    trace_emit(MMIO, mmio, (int)vcpu->id.vcpu.index, .op = op, .gpa = gpa, .size = bytes,
               .value = value);
}

void soft_mmio_read(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes)
{
    struct soft_vcpu *vcpu = soft_of(cpu);

    if (vmx_apic_read(cpu, gpa, buf, bytes))
        return;
    if (inside_read(vcpu, gpa, buf, bytes)) {
        note_inside(vcpu, "read", gpa, buf, bytes);
        return;
    }
    for (unsigned done = 0; done < bytes;) { /* a record holds 8 bytes */
        unsigned part = bytes - done < 8 ? bytes - done : 8;
        struct soft_mmio_access *access = from_list(vcpu, gpa + done, part, false);

        if (!access)
            ask(vcpu, gpa + done, NULL, part, false);
        memcpy((u8 *)buf + done, access->data, part);
        done += part;
    }
}

void soft_mmio_write(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes)
{
    struct soft_vcpu *vcpu = soft_of(cpu);

    if (vmx_apic_write(cpu, gpa, buf, bytes))
        return;
    if (inside_write(vcpu, gpa, buf, bytes)) {
        note_inside(vcpu, "write", gpa, buf, bytes);
        return;
    }
    for (unsigned done = 0; done < bytes;) {
        unsigned part = bytes - done < 8 ? bytes - done : 8;

        if (!from_list(vcpu, gpa + done, part, true))
            ask(vcpu, gpa + done, (const u8 *)buf + done, part, true);
        done += part;
    }
}

int soft_exit_ept_violation(struct soft_vcpu *vcpu, const struct x86_vmexit *exit)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;
    struct kvm_run *run = soft_record(vcpu);

    if (mmio->count == SOFT_MMIO_ACCESSES)
        return soft_internal_error(vcpu,
                                   "the instruction at %#" PRIx64 " makes more than %d accesses "
                                   "outside memory, the last at %#" PRIx64,
                                   vcpu->cpu.lip, SOFT_MMIO_ACCESSES, exit->physical);
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = mmio->pending.gpa;
    run->mmio.len = mmio->pending.bytes;
    run->mmio.is_write = mmio->pending.write;
    memcpy(run->mmio.data, mmio->pending.data, sizeof run->mmio.data);
    mmio->waiting = true;
    return SOFT_HAND_UP;
}

/* The next vcpu_run after KVM_EXIT_MMIO: what was asked is now known. */
void soft_finish_mmio(struct soft_vcpu *vcpu)
{
    struct soft_mmio *mmio = &vcpu->priv.mmio;
    const struct kvm_run *run = soft_record(vcpu);

    mmio->waiting = false;
    if (!mmio->pending.write)
        memcpy(mmio->pending.data, run->mmio.data, sizeof mmio->pending.data);
    mmio->done[mmio->count++] = mmio->pending;
    mmio->next = 0;
}
