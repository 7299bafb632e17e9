/* What this CPU's VT-x can do: the capability MSRs (SDM appendix A), true to controls.def. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

enum {
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_VMX_BASIC = 0x480,
    MSR_VMX_PINBASED = 0x481,
    MSR_VMX_PROCBASED = 0x482,
    MSR_VMX_EXIT = 0x483,
    MSR_VMX_ENTRY = 0x484,
    MSR_VMX_MISC = 0x485,
    MSR_VMX_CR0_FIXED0 = 0x486,
    MSR_VMX_CR0_FIXED1 = 0x487,
    MSR_VMX_CR4_FIXED0 = 0x488,
    MSR_VMX_CR4_FIXED1 = 0x489,
    MSR_VMX_VMCS_ENUM = 0x48a,
    MSR_VMX_PROCBASED2 = 0x48b,
    MSR_VMX_EPT_VPID_CAP = 0x48c,
    MSR_VMX_TRUE_PINBASED = 0x48d,
    MSR_VMX_TRUE_PROCBASED = 0x48e,
    MSR_VMX_TRUE_EXIT = 0x48f,
    MSR_VMX_TRUE_ENTRY = 0x490,
    MSR_VMX_VMFUNC = 0x491,
};

#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX BIT(2)

/* A.1: region size, write-back, INS/OUTS information, true controls. */
static u64 basic(void)
{
    return (VMX_REVISION) | (u64)VMX_PAGE << 32 | 6ull << 50 | BIT(54) | BIT(55);
}

/* A.6: preemption timer at TSC / 32, LMA saved in the entry control, HLT, shutdown and
 * wait-for-SIPI, four CR3-target values, VMWRITE to all fields, injection with length 0. */
static u64 misc(void)
{
    return VMX_PREEMPTION_SHIFT | BIT(5) | 7ull << 6 | 4ull << 16 | BIT(29) | BIT(30);
}

/* A.10: execute-only, 4-level walks, write-back and uncached paging structures, 2M and 1G pages,
 * INVEPT and INVVPID of all types, accessed and dirty flags, advanced information on violations. */
static u64 ept_vpid(void)
{
    return BIT(0) | BIT(6) | BIT(8) | BIT(14) | BIT(16) | BIT(17) | BIT(20) | BIT(21) | BIT(22) |
           BIT(25) | BIT(26) | BIT(32) | BIT(40) | BIT(41) | BIT(42) | BIT(43);
}

static u64 highest_index(void)
{
    u32 highest = 0;

    for (unsigned i = 0; i < vmx_nfields; i++)
        if (bits(vmx_fields[i].encoding, 9, 1) > highest)
            highest = (u32)bits(vmx_fields[i].encoding, 9, 1);
    return (u64)highest << 1;
}

u32 vmx_may(const struct x86_cpu *cpu, enum vmx_control_word word)
{
    const struct vmx_cpu *vmx = vmx_of(cpu);

    return vmx->allowed1[word] & ~(x86_has(cpu, X86_FEATURE_PMU) ? 0 : vmx->pmu_controls[word]);
}

static u64 allowed(const struct x86_cpu *cpu, enum vmx_control_word word, bool true_controls)
{
    u32 must = true_controls ? vmx_allowed0(word) : vmx_default1(word);

    return must | (u64)vmx_may(cpu, word) << 32;
}

static bool has_vmx(const struct x86_cpu *cpu)
{
    return x86_has(cpu, X86_FEATURE_VMX);
}

bool vmx_msr_read(const struct x86_cpu *cpu, u32 msr, u64 *value)
{
    if (!has_vmx(cpu))
        return false;
    switch (msr) {
    case MSR_FEATURE_CONTROL:
        *value = vmx_of(cpu)->feature_control;
        break;
    case MSR_VMX_BASIC:
        *value = basic();
        break;
    case MSR_VMX_PINBASED:
        *value = allowed(cpu, VMX_PIN, false);
        break;
    case MSR_VMX_PROCBASED:
        *value = allowed(cpu, VMX_PROC, false);
        break;
    case MSR_VMX_EXIT:
        *value = allowed(cpu, VMX_EXIT, false);
        break;
    case MSR_VMX_ENTRY:
        *value = allowed(cpu, VMX_ENTRY, false);
        break;
    case MSR_VMX_MISC:
        *value = misc();
        break;
    case MSR_VMX_CR0_FIXED0:
        *value = vmx_cr0_fixed0(NULL);
        break;
    case MSR_VMX_CR0_FIXED1:
        *value = 0xffffffff;
        break;
    case MSR_VMX_CR4_FIXED0:
        *value = VMX_CR4_FIXED0;
        break;
    case MSR_VMX_CR4_FIXED1:
        *value = vmx_cr4_fixed1(cpu);
        break;
    case MSR_VMX_VMCS_ENUM:
        *value = highest_index();
        break;
    case MSR_VMX_PROCBASED2:
        *value = allowed(cpu, VMX_PROC2, true);
        break;
    case MSR_VMX_EPT_VPID_CAP:
        *value = ept_vpid();
        break;
    case MSR_VMX_TRUE_PINBASED:
        *value = allowed(cpu, VMX_PIN, true);
        break;
    case MSR_VMX_TRUE_PROCBASED:
        *value = allowed(cpu, VMX_PROC, true);
        break;
    case MSR_VMX_TRUE_EXIT:
        *value = allowed(cpu, VMX_EXIT, true);
        break;
    case MSR_VMX_VMFUNC:
        *value = 1;
        break; /* EPTP switching */
    case MSR_VMX_TRUE_ENTRY:
        *value = allowed(cpu, VMX_ENTRY, true);
        break;
    default:
        return false;
    }
    return true;
}

bool vmx_msr_write(struct x86_cpu *cpu, u32 msr, u64 value)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    if (!has_vmx(cpu) || msr != MSR_FEATURE_CONTROL)
        return false;
    /* SDM 24.7: once locked, a write is #GP; there is no SMX, SGX or LMCE to enable. */
    if (vmx->feature_control & FEATURE_CONTROL_LOCK ||
        value & ~(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX))
        return false;
    vmx->feature_control = value;
    return true;
}

u64 vmx_cr0_fixed0(const struct vmcs *v)
{
    /* Unrestricted guest: PE and PG may be 0 (SDM A.7). */
    if (v && vmx_proc2(v, VMX_C_unrestricted_guest))
        return X86_CR0_NE;
    return X86_CR0_PE | X86_CR0_NE | X86_CR0_PG;
}

u64 vmx_cr4_fixed1(const struct x86_cpu *cpu)
{
    return x86_cr4_valid(cpu);
}
