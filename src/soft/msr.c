/* MSRs of the engine: the table, and the ones that do something. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "soft/private.h"
#include "trace/trace.h"

#define MC_BANKS 4
/* IA32_MISC_ENABLE: fast strings, thermal control, SpeedStep, MONITOR, CPUID limit, xTPR, XD;
 * read-only: branch trace store and PEBS, not available, and whether there are performance
 * counters. */
#define MISC_ENABLE_VALID                                                                          \
    (BIT(0) | BIT(3) | MISC_ENABLE_COUNTERS | BIT(16) | BIT(18) | SOFT_MISC_LIMIT_CPUID |          \
     BIT(23) | SOFT_MISC_DISABLE_XD | MISC_ENABLE_FIXED)
#define MISC_ENABLE_FIXED (BIT(11) | BIT(12))
#define MISC_ENABLE_COUNTERS BIT(7)
#define MISC_ENABLE_RESET (BIT(0) | MISC_ENABLE_FIXED)

struct msr_access {
    struct soft_vcpu *vcpu;
    u32 msr;
    u64 *slot; /* of its stored value */
    bool host; /* get and set of state, not the guest */
};

typedef bool msr_read_fn(const struct msr_access *a, u64 *value);
typedef bool msr_write_fn(const struct msr_access *a, u64 value);

static bool enabled(const struct msr_access *a, u32 leaf, unsigned reg, unsigned bit)
{
    const struct kvm_cpuid_entry2 *e = cpuid_find(&a->vcpu->parts.cpuid, leaf, 0);
    const u32 *regs = e ? &e->eax : NULL;

    return regs && regs[reg] >> bit & 1;
}

static bool msr_read_apic_base(const struct msr_access *a, u64 *value)
{
    *value = a->vcpu->parts.lapic.state.base;
    return true;
}

static bool msr_write_apic_base(const struct msr_access *a, u64 value)
{
    bool ok;

    if (a->host)
        a->vcpu->parts.lapic.state.base &= ~(APIC_BASE_EN | APIC_BASE_EXTD);
    if (a->host && value & APIC_BASE_EXTD)
        lapic_set_base(&a->vcpu->parts.lapic, value & ~APIC_BASE_EXTD, a->vcpu->cpu.phys_mask);
    ok = lapic_set_base(&a->vcpu->parts.lapic, value, a->vcpu->cpu.phys_mask);
    /* The register page may be elsewhere now; nothing maps it, MMIO is never cached. */
    x86_update_features(&a->vcpu->cpu);
    return ok;
}

static bool msr_read_tsc_adjust(const struct msr_access *a, u64 *value)
{
    *value = a->vcpu->cpu.tsc_offset - a->vcpu->parts.msrs.tsc_base;
    return enabled(a, 7, CPUID_EBX, 1);
}

static bool msr_write_tsc_adjust(const struct msr_access *a, u64 value)
{
    if (!enabled(a, 7, CPUID_EBX, 1))
        return false;
    a->vcpu->cpu.tsc_offset = a->vcpu->parts.msrs.tsc_base + value;
    return true;
}

/* SDM 10.11.7.1: software writes 0, executes CPUID and reads the revision. */
static bool msr_read_vmx(const struct msr_access *a, u64 *value)
{
    return vmx_msr_read(&a->vcpu->cpu, a->msr, value);
}

static bool msr_write_vmx(const struct msr_access *a, u64 value)
{
    return vmx_msr_write(&a->vcpu->cpu, a->msr, value);
}

static bool msr_read_misc_enable(const struct msr_access *a, u64 *value)
{
    *value =
        a->vcpu->parts.msrs.misc_enable | (enabled(a, 1, CPUID_ECX, 15) ? MISC_ENABLE_COUNTERS : 0);
    return true;
}

static bool msr_write_misc_enable(const struct msr_access *a, u64 value)
{
    if (value & ~MISC_ENABLE_VALID)
        return false;
    a->vcpu->parts.msrs.misc_enable = (value & ~MISC_ENABLE_COUNTERS) | MISC_ENABLE_FIXED;
    x86_update_features(&a->vcpu->cpu);
    return true;
}

/* SDM vol. 2 UMWAIT: bit 0 keeps CPUs out of the deeper state, bits 31:2 limit the waits. */
static bool msr_read_umwait_control(const struct msr_access *a, u64 *value)
{
    *value = *a->slot;
    return enabled(a, 7, CPUID_ECX, 5);
}

static bool msr_write_umwait_control(const struct msr_access *a, u64 value)
{
    if (!enabled(a, 7, CPUID_ECX, 5) || value & ~0xfffffffdull)
        return false;
    *a->slot = value;
    return true;
}

static bool msr_read_microcode_revision(const struct msr_access *a, u64 *value)
{
    (void)a;
    *value = 1ull << 32;
    return true;
}

static bool msr_write_microcode_revision(const struct msr_access *a, u64 value)
{
    (void)a;
    (void)value;
    return true;
}

/*
 * Translated code does not run ahead of the guest across its privilege checks, and its register
 * allocation leaves nothing of one guest context in another's, so none of these leaks exists.
 * RDCL_NO SKIP_L1DFL_VMENTRY SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO
 * BHI_NO PBRSB_NO GDS_NO RFDS_NO.
 */
static bool msr_read_arch_capabilities(const struct msr_access *a, u64 *value)
{
    *value = BIT(0) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) |
             BIT(20) | BIT(24) | BIT(26) | BIT(27);
    return enabled(a, 7, CPUID_EDX, 29);
}

static bool msr_write_arch_capabilities(const struct msr_access *a, u64 value)
{
    (void)value;
    return a->host;
}

static bool stored_read(const struct msr_access *a, u64 *value)
{
    *value = *a->slot;
    return true;
}

static bool valid_memory_type(u64 type)
{
    return type == 0 || type == 1 || type == 4 || type == 5 || type == 6;
}

static bool msr_write_mtrr_variable(const struct msr_access *a, u64 value)
{
    u64 low = a->msr & 1 ? value & 0x7ff : value & 0xf00; /* mask: only bit 11; base: only a type */

    if (value & ~a->vcpu->cpu.phys_mask || low ||
        (!(a->msr & 1) && !valid_memory_type(value & 255)))
        return false;
    *a->slot = value;
    return true;
}

static bool msr_write_mtrr_fixed(const struct msr_access *a, u64 value)
{
    for (unsigned i = 0; i < 64; i += 8)
        if (!valid_memory_type(value >> i & 255))
            return false;
    *a->slot = value;
    return true;
}

static bool msr_write_mtrr_default_type(const struct msr_access *a, u64 value)
{
    if (value & ~0xcffull || !valid_memory_type(value & 255))
        return false;
    *a->slot = value;
    return true;
}

#define msr_read_mtrr_variable stored_read
#define msr_read_mtrr_fixed stored_read
#define msr_read_mtrr_default_type stored_read
#define msr_read_machine_check_banks stored_read

/* CTL: all zeros or all ones; STATUS: only 0 (SDM 16.3.2). */
static bool msr_write_machine_check_banks(const struct msr_access *a, u64 value)
{
    unsigned reg = a->msr & 3;

    if (!a->host && ((reg == 0 && value && value != ~0ull) || (reg == 1 && value)))
        return false;
    *a->slot = value;
    return true;
}

static bool msr_read_tsc_deadline(const struct msr_access *a, u64 *value)
{
    *value = lapic_tsc_deadline(&a->vcpu->parts.lapic);
    return a->vcpu->parts.lapic.has_tsc_deadline;
}

static bool msr_write_tsc_deadline(const struct msr_access *a, u64 value)
{
    if (!a->vcpu->parts.lapic.has_tsc_deadline)
        return false;
    lapic_set_tsc_deadline(&a->vcpu->parts.lapic, value);
    return true;
}

static bool msr_read_x2apic(const struct msr_access *a, u64 *value)
{
    return lapic_msr_read(&a->vcpu->parts.lapic, a->msr, value);
}

static bool msr_write_x2apic(const struct msr_access *a, u64 value)
{
    return lapic_msr_write(&a->vcpu->parts.lapic, a->msr, value);
}

static bool has_kvmclock(const struct msr_access *a)
{
    return enabled(a, 0x40000001, CPUID_EAX, 3);
}

static bool msr_read_kvm_wall_clock(const struct msr_access *a, u64 *value)
{
    *value = a->vcpu->parts.msrs.wall_clock;
    return has_kvmclock(a);
}

static bool msr_write_kvm_wall_clock(const struct msr_access *a, u64 value)
{
    if (!has_kvmclock(a))
        return false;
    a->vcpu->parts.msrs.wall_clock = value;
    soft_write_wall_clock(a->vcpu);
    return true;
}

static bool msr_read_kvm_system_time(const struct msr_access *a, u64 *value)
{
    *value = a->vcpu->parts.msrs.system_time;
    return has_kvmclock(a);
}

static bool msr_write_kvm_system_time(const struct msr_access *a, u64 value)
{
    if (!has_kvmclock(a))
        return false;
    a->vcpu->parts.msrs.system_time = value;
    soft_write_system_time(a->vcpu);
    return true;
}

enum msr_kind { MSR_STORED, MSR_CONSTANT, MSR_CALL, MSR_CPU };
enum { EXIT, DIRECT };

#define STORED(valid, value) MSR_STORED, valid, value, NULL, NULL
#define CONSTANT(value) MSR_CONSTANT, 0, value, NULL, NULL
#define CPU MSR_CPU, 0, 0, NULL, NULL
#define CALL(name) MSR_CALL, 0, 0, msr_read_##name, msr_write_##name
static const struct msr_row {
    u32 first, last;
    const char *name;
    bool direct;
    enum msr_kind kind;
    u64 valid, reset;
    msr_read_fn *read;
    msr_write_fn *write;
} rows[] = {
#define M(first, last, name, kind, how) {first, last, #name, how, kind},
#include "soft/msrs.def"
#undef M
};

static const struct msr_row *find_row(u32 msr)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (msr >= rows[i].first && msr <= rows[i].last)
            return &rows[i];
    return NULL;
}

/* Rows that store nothing have slots too; the few spare words keep this simple. */
static size_t first_slot(size_t row)
{
    size_t slot = 0;

    for (size_t i = 0; i < row; i++)
        slot += rows[i].last - rows[i].first + 1;
    return slot;
}

static size_t slot_of(const struct msr_row *row, u32 msr)
{
    return first_slot((size_t)(row - rows)) + (msr - row->first);
}

int soft_msrs_init(struct soft_vcpu *vcpu)
{
    vcpu->parts.msrs.stored = calloc(first_slot(ARRAY_SIZE(rows)), sizeof(u64));
    if (!vcpu->parts.msrs.stored)
        return -ENOMEM;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (u32 msr = rows[i].first; msr <= rows[i].last; msr++)
            vcpu->parts.msrs.stored[slot_of(&rows[i], msr)] = rows[i].reset;
    vcpu->parts.msrs.misc_enable = MISC_ENABLE_RESET;
    return 0;
}

bool soft_msr_exits(u32 msr)
{
    const struct msr_row *row = find_row(msr);

    return !row || !row->direct;
}

static bool read_msr(struct soft_vcpu *vcpu, u32 msr, u64 *value, bool host)
{
    const struct msr_row *row = find_row(msr);
    struct msr_access a = {.vcpu = vcpu, .msr = msr, .host = host};

    if (!row || row->kind == MSR_CPU)
        return false;
    a.slot = &vcpu->parts.msrs.stored[slot_of(row, msr)];
    switch (row->kind) {
    case MSR_CALL:
        return row->read(&a, value);
    case MSR_CONSTANT:
        *value = row->reset;
        return true;
    default:
        *value = *a.slot;
        return true;
    }
}

static bool write_msr(struct soft_vcpu *vcpu, u32 msr, u64 value, bool host)
{
    const struct msr_row *row = find_row(msr);
    struct msr_access a = {.vcpu = vcpu, .msr = msr, .host = host};

    if (!row || row->kind == MSR_CPU)
        return false;
    a.slot = &vcpu->parts.msrs.stored[slot_of(row, msr)];
    switch (row->kind) {
    case MSR_CALL:
        return row->write(&a, value);
    case MSR_CONSTANT:
        return host && value == row->reset;
    default:
        if (value & ~row->valid)
            return false;
        *a.slot = value;
        return true;
    }
}

bool soft_msr_read(struct x86_cpu *cpu, u32 msr, u64 *value)
{
    return vmx_x2apic_read(cpu, msr, value) || read_msr(soft_of(cpu), msr, value, false);
}

bool soft_msr_write(struct x86_cpu *cpu, u32 msr, u64 value)
{
    bool ok;

    if (vmx_x2apic_write(cpu, msr, value, &ok))
        return ok;
    return write_msr(soft_of(cpu), msr, value, false);
}

/* An MSR without a row may be the CPU's own. */
bool soft_msr_get(struct soft_vcpu *vcpu, u32 msr, u64 *value)
{
    return read_msr(vcpu, msr, value, true) || x86_msr_read(&vcpu->cpu, msr, value);
}

/* The TSC set from outside is a new beginning, not an adjustment of the guest's. */
bool soft_msr_set(struct soft_vcpu *vcpu, u32 msr, u64 value)
{
    u64 adjust = vcpu->cpu.tsc_offset - vcpu->parts.msrs.tsc_base;
    bool ok = write_msr(vcpu, msr, value, true) || x86_msr_write(&vcpu->cpu, msr, value);

    if (ok && msr == 0x10)
        vcpu->parts.msrs.tsc_base = vcpu->cpu.tsc_offset - adjust;
    return ok;
}
