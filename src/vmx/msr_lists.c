/* MSR-load and MSR-store areas (SDM 27.4, 28.4), and VMX aborts (28.7). */
#include "trace/trace.h"
#include "vmx/nested.h"

#define MSR_TSC 0x10u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_SMM_MONITOR_CTL 0x9bu
#define MSR_SMBASE 0x9eu

/* What IA32_VMX_MISC[27:25] recommends (SDM A.6). Longer lists have no defined behaviour, and would
 * let a guest keep the CPU from everything else. */
#define MAX_ENTRIES 512u

struct msr_entry {
    u32 index, reserved;
    u64 value;
};

static bool x2apic_range(u32 msr)
{
    return msr >> 8 == 8;
}

static bool may_load(const struct msr_entry *e)
{
    return e->index != MSR_FS_BASE && e->index != MSR_GS_BASE && e->index != MSR_SMM_MONITOR_CTL &&
           !x2apic_range(e->index) && !e->reserved;
}

u32 vmx_load_msrs(struct x86_cpu *cpu, u64 address, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        struct msr_entry e;

        if (i == MAX_ENTRIES ||
            mem_read(cpu->common.mem, address + (u64)i * sizeof(e), &e, sizeof(e)) ||
            !may_load(&e) || !vmx_wrmsr(cpu, e.index, e.value))
            return i + 1;
    }
    return 0;
}

/* TSC offsetting and scaling are for RDTSC, RDTSCP and RDMSR (SDM 25.6.5), not for what is stored
 * here. */
static bool read_msr(struct x86_cpu *cpu, u32 msr, u64 *value)
{
    if (msr != MSR_TSC)
        return x86_msr_read(cpu, msr, value);
    *value = vmx_outer_tsc(cpu);
    return true;
}

u32 vmx_store_msrs(struct x86_cpu *cpu, u64 address, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        u64 at = address + (u64)i * sizeof(struct msr_entry);
        struct msr_entry e;

        if (i == MAX_ENTRIES || mem_read(cpu->common.mem, at, &e, sizeof(e)) || e.reserved ||
            e.index == MSR_SMBASE || x2apic_range(e.index) || !read_msr(cpu, e.index, &e.value) ||
            mem_write(cpu->common.mem, at + offsetof(struct msr_entry, value), &e.value, 8))
            return i + 1;
    }
    return 0;
}

/* The processor goes into the shutdown state: for us as after a triple fault. */
void vmx_abort(struct x86_cpu *cpu, u32 indicator)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    trace_emit(VMX, vmx, (int)cpu->common.index, .what = "VMX abort", .level = 1);
    mem_write(cpu->common.mem, vmx->current_pointer + offsetof(struct vmx_region, abort),
              &indicator, 4);
    vmx_event_exit(cpu, VMX_REASON_triple_fault, 0);
    guest_leave(&cpu->common, X86_EXIT_VMEXIT);
}
