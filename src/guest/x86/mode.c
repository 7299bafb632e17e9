/*
 * What follows from the state: the mode word of translations, the address space, instruction
 * pointer and interruptibility.
 */
#include "guest/x86/pmu.h"
#include "guest/x86/x86_internal.h"

/* Bits of the space key above the page-table base (SDM vol. 3 4.10.4: what a TLB may rely on). */
enum {
    KEY_PG = 52,
    KEY_PAE,
    KEY_LMA,
    KEY_LA57,
    KEY_PSE,
    KEY_WP,
    KEY_SMEP,
    KEY_SMAP,
    KEY_PKE,
    KEY_NXE,
    KEY_PKS,
};

/* Flat: base 0, no limit; @type_mask/@type: for data, writable and not expand-down. */
static bool flat_data(const struct x86_seg *seg)
{
    return !seg->base && seg->limit == 0xffffffff &&
           (seg->access & (X86_SEG_UNUSABLE | X86_SEG_P | X86_SEG_S | 0xe)) ==
               (X86_SEG_P | X86_SEG_S | 2);
}

static u32 segment_mode(const struct x86_cpu *cpu)
{
    const struct x86_seg *cs = &cpu->seg[X86_CS];
    u32 mode;

    if (x86_code64(cpu))
        return X86_MODE_CODE64 | X86_MODE_FLAT | X86_MODE_FLAT_CS;
    mode = cs->access & X86_SEG_DB ? X86_MODE_CODE32 : X86_MODE_CODE16;
    if (cpu->seg[X86_SS].access & X86_SEG_DB)
        mode |= X86_MODE_SS32;
    if (cs->base || cs->limit != 0xffffffff)
        return mode;
    mode |= X86_MODE_FLAT_CS;
    if ((cs->access & 0xa) == 0xa && flat_data(&cpu->seg[X86_DS]) && flat_data(&cpu->seg[X86_ES]) &&
        flat_data(&cpu->seg[X86_SS]))
        mode |= X86_MODE_FLAT;
    return mode;
}

static u32 fpu_mode(const struct x86_cpu *cpu)
{
    u32 mode = 0;

    if (cpu->cr0 & (X86_CR0_EM | X86_CR0_TS))
        mode |= X86_MODE_FPU_TRAP | X86_MODE_SSE_TRAP;
    if (!(cpu->cr4 & X86_CR4_OSFXSR))
        mode |= X86_MODE_SSE_TRAP;
    if ((cpu->mxcsr & 0x1f80) != 0x1f80)
        mode |= X86_MODE_FP_UNMASKED;
    return mode;
}

/* A breakpoint on execution or data (R/W 2 is for I/O). */
static bool breakpoints(const struct x86_cpu *cpu)
{
    for (unsigned i = 0; i < 4; i++)
        if (cpu->dr[7] >> 2 * i & 3 && (cpu->dr[7] >> (16 + 4 * i) & 3) != 2)
            return true;
    return false;
}

static u32 debugger_mode(const struct x86_debugger *debugger)
{
    u32 mode = 0;

    for (unsigned i = 0; i < 4; i++)
        if (debugger->dr7 >> 2 * i & 3 && !(debugger->dr7 >> (16 + 4 * i) & 3))
            mode |= 1u << (X86_MODE_BREAK_SHIFT + x86_break_hash(debugger->dr[i]));
    return mode;
}

void x86_update_mode(struct x86_cpu *cpu)
{
    u32 mode = segment_mode(cpu) | fpu_mode(cpu);

    mode |= (u32)cpu->cpl << X86_MODE_CPL_SHIFT;
    mode |= cpu->common.mode & (X86_MODE_NONROOT | X86_MODE_PAUSE | X86_MODE_REDUCED);
    if (x86_protected(cpu))
        mode |= X86_MODE_PE;
    if (x86_vm86(cpu))
        mode |= X86_MODE_VM86;
    if (x86_long_mode(cpu))
        mode |= X86_MODE_LMA | (cpu->cr4 & X86_CR4_LA57 ? X86_MODE_LA57 : 0);
    if (cpu->eflags & X86_FLAG_TF)
        mode |= X86_MODE_TF;
    if (!x86_protected(cpu) || cpu->cpl <= x86_iopl(cpu))
        mode |= X86_MODE_IOPL_OK;
    if (cpu->cpl == 3 && cpu->cr0 & X86_CR0_AM && cpu->eflags & X86_FLAG_AC)
        mode |= X86_MODE_AC;
    if (cpu->dr[7] & 0xff && breakpoints(cpu))
        mode |= X86_MODE_DR;
    if (unlikely(cpu->msr_debugctl & X86_DEBUGCTL_LBR))
        mode |= X86_MODE_LBR;
    if (unlikely(cpu->pmu.on))
        mode |= x86_pmu_mode(cpu);
    if (unlikely(cpu->debugger.dr7))
        mode |= debugger_mode(&cpu->debugger);
    /* While breakpoints are on, walks see every access: no soft TLB entry may answer instead. */
    if (mode & ~cpu->common.mode & X86_MODE_DR) {
        if (cpu->common.memory)
            cpu->common.memory->flush_all(&cpu->common);
        if (cpu->lip != cpu->rf_lip)
            cpu->eflags &= ~X86_FLAG_RF;
        cpu->debug_hits = 0;
    }
    cpu->common.mode = mode;
}

u64 x86_space_key(const struct x86_cpu *cpu, u64 cr3)
{
    u64 cr4 = cpu->cr4, key;

    if (!(cpu->cr0 & X86_CR0_PG))
        return 0;
    if (x86_long_mode(cpu))
        key = cr3 & mask_low(52) & ~(cr4 & X86_CR4_PCIDE ? 0 : 0xfffull);
    else
        key = cr3 & (cr4 & X86_CR4_PAE ? 0xffffffe0 : 0xfffff000);
    key |= BIT(KEY_PG);
    key |= (u64) !!(cr4 & X86_CR4_PAE) << KEY_PAE;
    key |= (u64)x86_long_mode(cpu) << KEY_LMA;
    key |= (u64) !!(cr4 & X86_CR4_LA57) << KEY_LA57;
    key |= (u64) !!(cr4 & X86_CR4_PSE) << KEY_PSE;
    key |= (u64) !!(cpu->cr0 & X86_CR0_WP) << KEY_WP;
    key |= (u64) !!(cr4 & X86_CR4_SMEP) << KEY_SMEP;
    key |= (u64) !!(cr4 & X86_CR4_SMAP) << KEY_SMAP;
    key |= (u64) !!(cr4 & X86_CR4_PKE) << KEY_PKE;
    key |= (u64) !!(cpu->efer & X86_EFER_NXE) << KEY_NXE;
    key |= (u64) !!(cr4 & X86_CR4_PKS) << KEY_PKS;
    return key;
}

void x86_update_mmu(struct x86_cpu *cpu)
{
    u64 key = x86_space_key(cpu, cpu->cr3);
    unsigned priv = 2; /* a supervisor that SMAP does not hinder */

    if (cpu->cpl == 3)
        priv = 0;
    else if (cpu->cr4 & X86_CR4_SMAP && !(cpu->eflags & X86_FLAG_AC))
        priv = 1;
    if (cpu->common.tlb && key == cpu->space_key && priv == cpu->space_priv)
        return;
    cpu->space_key = key;
    cpu->space_priv = priv;
    if (cpu->common.memory)
        cpu->common.memory->switch_space(&cpu->common, key, priv);
}

u64 x86_rip(const struct x86_cpu *cpu)
{
    if (x86_code64(cpu))
        return cpu->lip;
    return (u32)(cpu->lip - cpu->seg[X86_CS].base);
}

void x86_set_rip(struct x86_cpu *cpu, u64 rip)
{
    cpu->lip = x86_code64(cpu) ? rip : (u32)(rip + cpu->seg[X86_CS].base);
}

u32 x86_interruptibility(const struct x86_cpu *cpu)
{
    u32 state = cpu->interruptibility;

    if (cpu->lip != cpu->shadow_lip)
        state &= ~X86_SHADOW;
    return state;
}

void x86_clear_shadow(struct x86_cpu *cpu)
{
    cpu->interruptibility &= ~X86_SHADOW;
}

bool x86_interrupt_allowed(const struct x86_cpu *cpu)
{
    return cpu->eflags & X86_FLAG_IF && cpu->activity <= X86_HALTED &&
           !(x86_interruptibility(cpu) & X86_SHADOW);
}

bool x86_nmi_allowed(const struct x86_cpu *cpu)
{
    return cpu->activity <= X86_SHUTDOWN &&
           !(x86_interruptibility(cpu) & (X86_SHADOW | X86_BLOCKED_BY_NMI));
}

/* Register, bit and feature for x86_update_features. */
static const struct {
    u32 leaf, subleaf;
    u8 reg, bit; /* reg: 0 EAX .. 3 EDX */
    u64 feature;
} feature_bits[] = {
    {1, 0, 3, 1, X86_FEATURE_VME},
    {1, 0, 3, 3, X86_FEATURE_PSE},
    {1, 0, 3, 6, X86_FEATURE_PAE},
    {1, 0, 3, 11, X86_FEATURE_SEP},
    {1, 0, 3, 13, X86_FEATURE_PGE},
    {1, 0, 3, 24, X86_FEATURE_FXSR},
    {1, 0, 2, 0, X86_FEATURE_SSE3},
    {1, 0, 2, 3, X86_FEATURE_MONITOR},
    {1, 0, 2, 5, X86_FEATURE_VMX},
    {1, 0, 2, 15, X86_FEATURE_PMU},
    {1, 0, 2, 9, X86_FEATURE_SSSE3},
    {1, 0, 2, 13, X86_FEATURE_CX16},
    {1, 0, 2, 17, X86_FEATURE_PCID},
    {1, 0, 2, 19, X86_FEATURE_SSE4_1},
    {1, 0, 2, 20, X86_FEATURE_SSE4_2},
    {1, 0, 2, 22, X86_FEATURE_MOVBE},
    {1, 0, 2, 23, X86_FEATURE_POPCNT},
    {1, 0, 2, 26, X86_FEATURE_XSAVE},
    {1, 0, 2, 30, X86_FEATURE_RDRAND},
    {7, 0, 1, 0, X86_FEATURE_FSGSBASE},
    {7, 0, 1, 7, X86_FEATURE_SMEP},
    {7, 0, 1, 10, X86_FEATURE_INVPCID},
    {7, 0, 1, 18, X86_FEATURE_RDSEED},
    {7, 0, 1, 19, X86_FEATURE_ADX},
    {7, 0, 1, 20, X86_FEATURE_SMAP},
    {7, 0, 1, 23, X86_FEATURE_CLFLUSHOPT},
    {7, 0, 1, 24, X86_FEATURE_CLWB},
    {7, 0, 2, 2, X86_FEATURE_UMIP},
    {7, 0, 2, 3, X86_FEATURE_PKU},
    {7, 0, 2, 5, X86_FEATURE_WAITPKG},
    {7, 0, 2, 16, X86_FEATURE_LA57},
    {7, 0, 2, 22, X86_FEATURE_RDPID},
    {7, 0, 2, 27, X86_FEATURE_MOVDIRI},
    {7, 0, 2, 31, X86_FEATURE_PKS},
    {0xd, 1, 0, 0, X86_FEATURE_XSAVEOPT},
    {0xd, 1, 0, 1, X86_FEATURE_XSAVEC},
    {0xd, 1, 0, 3, X86_FEATURE_XSAVES},
    {0x80000001, 0, 2, 0, X86_FEATURE_LAHF},
    {0x80000001, 0, 3, 11, X86_FEATURE_SYSCALL},
    {0x80000001, 0, 3, 20, X86_FEATURE_NX},
    {0x80000001, 0, 3, 26, X86_FEATURE_PAGE1GB},
    {0x80000001, 0, 3, 27, X86_FEATURE_RDTSCP},
    {0x80000001, 0, 3, 29, X86_FEATURE_LM},
};

void x86_update_features(struct x86_cpu *cpu)
{
    cpu->features = X86_FEATURE_VALID;
    if (!cpu->hooks || !cpu->hooks->cpuid) {
        cpu->features |= X86_FEATURES_V2;
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(feature_bits); i++) {
        u32 limit[4], out[4];

        cpu->hooks->cpuid(cpu, feature_bits[i].leaf & 0x80000000, 0, limit);
        if (feature_bits[i].leaf > limit[0])
            continue;
        cpu->hooks->cpuid(cpu, feature_bits[i].leaf, feature_bits[i].subleaf, out);
        if (out[feature_bits[i].reg] >> feature_bits[i].bit & 1)
            cpu->features |= feature_bits[i].feature;
    }
    if ((cpu->features & X86_FEATURES_V2) == X86_FEATURES_V2)
        cpu->common.mode &= ~X86_MODE_REDUCED;
    else
        cpu->common.mode |= X86_MODE_REDUCED;
}
