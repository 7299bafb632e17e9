/* Power-on and INIT state (SDM vol. 3 table 10-1). */
#include "guest/x86/pmu.h"
#include "guest/x86/x86_internal.h"

static void reset_segments(struct x86_cpu *cpu)
{
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_seg){.limit = 0xffff, .access = X86_SEG_P | X86_SEG_S | 3};
    cpu->seg[X86_CS].selector = 0xf000;
    cpu->seg[X86_CS].base = 0xffff0000;
    cpu->seg[X86_CS].access = X86_SEG_P | X86_SEG_S | 0xb;
    cpu->seg[X86_LDTR].access = X86_SEG_P | 2;
    cpu->seg[X86_TR].access = X86_SEG_P | 0xb;
    cpu->gdtr = cpu->idtr = (struct x86_table){.limit = 0xffff};
}

/* What INIT leaves alone: FPU and SSE state, caches' bits of CR0, XCR0, MSRs. */
static void reset_power_on(struct x86_cpu *cpu)
{
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
    memset(cpu->ymm_hi, 0, sizeof(cpu->ymm_hi));
    memset(cpu->fpr, 0, sizeof(cpu->fpr));
    cpu->mxcsr = 0x1f80;
    cpu->fcw = 0x40;
    cpu->fsw = 0;
    cpu->ftop = 0;
    cpu->ftag = 0xff; /* FTW 5555h: zeros, none of them empty */
    cpu->fop = cpu->fcs = cpu->fds = 0;
    cpu->fip = cpu->fdp = 0;
    cpu->xcr0 = 1;
    cpu->xss = 0;
    cpu->pkru = cpu->pkrs = 0;
    cpu->msr_star = cpu->msr_lstar = cpu->msr_cstar = cpu->msr_fmask = 0;
    cpu->msr_kernel_gs_base = 0;
    cpu->msr_sysenter_cs = cpu->msr_sysenter_esp = cpu->msr_sysenter_eip = 0;
    cpu->msr_tsc_aux = 0;
    cpu->msr_pat = 0x0007040600070406;
    cpu->msr_debugctl = 0;
    cpu->lbr = (struct x86_lbr){0};
    x86_pmu_reset(cpu);
}

void x86_reset(struct x86_cpu *cpu, bool init)
{
    u64 caches = init ? cpu->cr0 & (X86_CR0_CD | X86_CR0_NW) : X86_CR0_CD | X86_CR0_NW;

    x86_update_features(cpu);
    if (!init)
        reset_power_on(cpu);
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    if (cpu->hooks && cpu->hooks->cpuid) {
        u32 out[4];

        cpu->hooks->cpuid(cpu, 1, 0, out);
        cpu->gpr[X86_RDX] = out[0]; /* the processor's signature */
    }
    reset_segments(cpu);
    x86_set_rflags(cpu, 2);
    cpu->cr0 = X86_CR0_ET | caches;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = 0;
    cpu->efer = 0;
    cpu->cpl = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
    cpu->interruptibility = 0;
    cpu->activity = X86_ACTIVE;
    cpu->pending.valid = false;
    cpu->monitor_armed = false;
    x86_set_rip(cpu, 0xfff0);
    if (cpu->common.memory)
        cpu->common.memory->flush_all(&cpu->common);
    x86_update(cpu);
}
