/* MSRs that the CPU itself works with (SDM vol. 4); the others are the engine's. */
#include "guest/x86/pmu.h"
#include "guest/x86/x86_internal.h"

enum {
    MSR_TSC = 0x10,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_LAST_BRANCH_FROM = 0x40,
    MSR_LAST_BRANCH_TO = 0x60,
    MSR_LAST_BRANCH_TOP = 0x1c9,
    MSR_DEBUGCTL = 0x1d9,
    MSR_LAST_EXCEPTION_FROM = 0x1dd,
    MSR_LAST_EXCEPTION_TO = 0x1de,
    MSR_PAT = 0x277,
    MSR_PKRS = 0x6e1,
    MSR_XSS = 0xda0,
    MSR_EFER = 0xc0000080,
    MSR_STAR = 0xc0000081,
    MSR_LSTAR = 0xc0000082,
    MSR_CSTAR = 0xc0000083,
    MSR_FMASK = 0xc0000084,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE = 0xc0000101,
    MSR_KERNEL_GS_BASE = 0xc0000102,
    MSR_TSC_AUX = 0xc0000103,
};

/* The guest's TSC now. */
static u64 tsc_now(const struct x86_cpu *cpu)
{
    u128 scaled;

    /* LFENCE before RDTSC, and RDTSCP, wait for earlier loads; the fences that translated code has
     * for them order memory only, and the host's RDTSC could be early (SDM 4.3, RDTSC). */
    __builtin_ia32_lfence();
    if (cpu->hooks && cpu->hooks->tsc)
        return cpu->hooks->tsc(cpu);
    scaled = (u128)__builtin_ia32_rdtsc() * cpu->tsc_scale;
    return (u64)(scaled >> 48) + cpu->tsc_offset;
}

/* The MSRs of the last branches; NULL: @msr is none. */
static u64 *branch_record(struct x86_cpu *cpu, u32 msr)
{
    if (msr - MSR_LAST_BRANCH_FROM < X86_LBR_ENTRIES)
        return &cpu->lbr.from[msr - MSR_LAST_BRANCH_FROM];
    if (msr - MSR_LAST_BRANCH_TO < X86_LBR_ENTRIES)
        return &cpu->lbr.to[msr - MSR_LAST_BRANCH_TO];
    switch (msr) {
    case MSR_LAST_BRANCH_TOP:
        return &cpu->lbr.top;
    case MSR_LAST_EXCEPTION_FROM:
        return &cpu->lbr.exception_from;
    case MSR_LAST_EXCEPTION_TO:
        return &cpu->lbr.exception_to;
    }
    return NULL;
}

bool x86_msr_read(struct x86_cpu *cpu, u32 msr, u64 *value)
{
    const u64 *branch = branch_record(cpu, msr);

    if (branch) {
        *value = *branch;
        return true;
    }
    switch (msr) {
    case MSR_TSC:
        *value = tsc_now(cpu);
        return true;
    case MSR_SYSENTER_CS:
        *value = cpu->msr_sysenter_cs;
        return true;
    case MSR_SYSENTER_ESP:
        *value = cpu->msr_sysenter_esp;
        return true;
    case MSR_SYSENTER_EIP:
        *value = cpu->msr_sysenter_eip;
        return true;
    case MSR_DEBUGCTL:
        *value = cpu->msr_debugctl;
        return true;
    case MSR_PAT:
        *value = cpu->msr_pat;
        return true;
    case MSR_EFER:
        *value = cpu->efer;
        return true;
    case MSR_STAR:
        *value = cpu->msr_star;
        return true;
    case MSR_LSTAR:
        *value = cpu->msr_lstar;
        return true;
    case MSR_CSTAR:
        *value = cpu->msr_cstar;
        return true;
    case MSR_FMASK:
        *value = cpu->msr_fmask;
        return true;
    case MSR_FS_BASE:
        *value = cpu->seg[X86_FS].base;
        return true;
    case MSR_GS_BASE:
        *value = cpu->seg[X86_GS].base;
        return true;
    case MSR_KERNEL_GS_BASE:
        *value = cpu->msr_kernel_gs_base;
        return true;
    case MSR_TSC_AUX:
        *value = cpu->msr_tsc_aux;
        return x86_has(cpu, X86_FEATURE_RDTSCP);
    case MSR_PKRS:
        *value = cpu->pkrs;
        return x86_has(cpu, X86_FEATURE_PKS);
    case MSR_XSS:
        *value = cpu->xss;
        return x86_has(cpu, X86_FEATURE_XSAVES);
    }
    if (x86_pmu_read_msr(cpu, msr, value))
        return true;
    return cpu->hooks && cpu->hooks->msr_read && cpu->hooks->msr_read(cpu, msr, value);
}

u64 x86_debugctl_valid(const struct x86_cpu *cpu)
{
    u64 freeze = X86_DEBUGCTL_FREEZE_LBRS | X86_DEBUGCTL_FREEZE_PERFMON;

    return X86_DEBUGCTL_LBR | X86_DEBUGCTL_BTF | (x86_has(cpu, X86_FEATURE_PMU) ? freeze : 0);
}

/* Memory types in IA32_PAT: 0 1 4 5 6 7 (SDM vol. 3 12.12.2). */
static bool pat_valid(u64 value)
{
    for (unsigned i = 0; i < 8; i++)
        if (!(0xf3 >> (value >> 8 * i & 7) & 1) || value >> 8 * i & 0xf8)
            return false;
    return true;
}

static bool write_address(struct x86_cpu *cpu, u64 *field, u64 value)
{
    if (!x86_canonical_any(cpu, value))
        return false;
    *field = value;
    return true;
}

/* Rights of supervisor pages; what the soft TLB knows follows from them. */
static bool write_pkrs(struct x86_cpu *cpu, u64 value)
{
    if (!x86_has(cpu, X86_FEATURE_PKS) || value >> 32)
        return false;
    if (cpu->cr4 & X86_CR4_PKS && cpu->pkrs != value && cpu->common.memory)
        cpu->common.memory->flush_all(&cpu->common);
    cpu->pkrs = (u32)value;
    return true;
}

bool x86_msr_write(struct x86_cpu *cpu, u32 msr, u64 value)
{
    u64 *branch = branch_record(cpu, msr);

    if (branch) {
        if (msr == MSR_LAST_BRANCH_TOP ? value >= X86_LBR_ENTRIES : !x86_canonical_any(cpu, value))
            return false;
        *branch = value;
        return true;
    }
    switch (msr) {
    case MSR_TSC:
        cpu->tsc_offset += value - tsc_now(cpu);
        return true;
    case MSR_SYSENTER_CS:
        cpu->msr_sysenter_cs = (u32)value;
        return true;
    case MSR_SYSENTER_ESP:
        return write_address(cpu, &cpu->msr_sysenter_esp, value);
    case MSR_SYSENTER_EIP:
        return write_address(cpu, &cpu->msr_sysenter_eip, value);
    case MSR_DEBUGCTL:
        if (value & ~x86_debugctl_valid(cpu))
            return false;
        cpu->msr_debugctl = value;
        x86_update_mode(cpu);
        return true;
    case MSR_PAT:
        if (!pat_valid(value))
            return false;
        cpu->msr_pat = value;
        return true;
    case MSR_EFER:
        return x86_write_efer(cpu, value, true);
    case MSR_STAR:
        cpu->msr_star = value;
        return true;
    case MSR_LSTAR:
        return write_address(cpu, &cpu->msr_lstar, value);
    case MSR_CSTAR:
        return write_address(cpu, &cpu->msr_cstar, value);
    case MSR_FMASK:
        if (value >> 32)
            return false;
        cpu->msr_fmask = value;
        return true;
    case MSR_FS_BASE:
        return write_address(cpu, &cpu->seg[X86_FS].base, value);
    case MSR_GS_BASE:
        return write_address(cpu, &cpu->seg[X86_GS].base, value);
    case MSR_KERNEL_GS_BASE:
        return write_address(cpu, &cpu->msr_kernel_gs_base, value);
    case MSR_TSC_AUX:
        if (!x86_has(cpu, X86_FEATURE_RDTSCP) || value >> 32)
            return false;
        cpu->msr_tsc_aux = value;
        return true;
    case MSR_PKRS:
        return write_pkrs(cpu, value);
    case MSR_XSS: /* no supervisor component is offered */
        return x86_has(cpu, X86_FEATURE_XSAVES) && !value;
    }
    if (x86_pmu_write_msr(cpu, msr, value))
        return true;
    return cpu->hooks && cpu->hooks->msr_write && cpu->hooks->msr_write(cpu, msr, value);
}

static u64 split(struct x86_cpu *cpu, u64 value)
{
    cpu->gpr[X86_RAX] = (u32)value;
    cpu->gpr[X86_RDX] = value >> 32;
    return 0;
}

static u64 edx_eax(const struct x86_cpu *cpu)
{
    return (u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32;
}

/* The TSC has been read and is about to be the guest's. */
static void see_time(struct x86_cpu *cpu)
{
    if (unlikely(cpu->common.mode & X86_MODE_NONROOT))
        cpu->hooks->time_seen(cpu);
}

u64 x86_helper_rdmsr(struct x86_cpu *cpu, u64 length)
{
    u64 value;

    x86_intercept(cpu, X86_REASON_RDMSR, 0, (u32)length, 0, 0);
    if (!x86_msr_read(cpu, (u32)cpu->gpr[X86_RCX], &value))
        x86_raise_error(cpu, X86_GP, 0);
    if ((u32)cpu->gpr[X86_RCX] == MSR_TSC)
        see_time(cpu);
    return split(cpu, value);
}

u64 x86_helper_wrmsr(struct x86_cpu *cpu, u64 length)
{
    x86_intercept(cpu, X86_REASON_WRMSR, 0, (u32)length, 0, 0);
    if (!x86_msr_write(cpu, (u32)cpu->gpr[X86_RCX], edx_eax(cpu)))
        x86_raise_error(cpu, X86_GP, 0);
    return 0;
}

u64 x86_helper_rdtsc(struct x86_cpu *cpu, u64 length)
{
    u64 tsc;

    if (cpu->cr4 & X86_CR4_TSD && cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_RDTSC, 0, (u32)length, 0, 0);
    tsc = tsc_now(cpu);
    see_time(cpu);
    return split(cpu, tsc);
}

u64 x86_helper_rdtscp(struct x86_cpu *cpu, u64 length)
{
    u64 tsc;

    if (!x86_has(cpu, X86_FEATURE_RDTSCP))
        x86_raise(cpu, X86_UD);
    x86_need_enabled(cpu, X86_REASON_RDTSCP);
    if (cpu->cr4 & X86_CR4_TSD && cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_RDTSCP, 0, (u32)length, 0, 0);
    tsc = tsc_now(cpu);
    see_time(cpu);
    cpu->gpr[X86_RCX] = (u32)cpu->msr_tsc_aux;
    return split(cpu, tsc);
}

u64 x86_helper_rdpid(struct x86_cpu *cpu)
{
    if (!x86_has(cpu, X86_FEATURE_RDPID))
        x86_raise(cpu, X86_UD);
    x86_need_enabled(cpu, X86_REASON_RDPID);
    return cpu->msr_tsc_aux;
}

u64 x86_helper_rdpmc(struct x86_cpu *cpu, u64 length)
{
    u64 value;

    if (!(cpu->cr4 & X86_CR4_PCE) && cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_RDPMC, 0, (u32)length, 0, 0);
    if (!x86_pmu_rdpmc(cpu, (u32)cpu->gpr[X86_RCX], &value))
        x86_raise_error(cpu, X86_GP, 0);
    return split(cpu, value);
}
