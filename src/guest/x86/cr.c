/* Control and debug registers (SDM vol. 3 2.5, 18.2; TLB effects: 4.10.4.1). */
#include "guest/x86/x86_internal.h"

#define CR0_VALID                                                                                  \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |    \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

/* CR4 bits by the feature that brings them. */
static const struct {
    u64 bits;
    u64 feature;
} cr4_features[] = {
    {X86_CR4_TSD | X86_CR4_DE | X86_CR4_MCE | X86_CR4_PCE | X86_CR4_OSXMMEXCPT, X86_FEATURE_VALID},
    {X86_CR4_VME | X86_CR4_PVI, X86_FEATURE_VME},
    {X86_CR4_PSE, X86_FEATURE_PSE},
    {X86_CR4_PAE, X86_FEATURE_PAE},
    {X86_CR4_PGE, X86_FEATURE_PGE},
    {X86_CR4_OSFXSR, X86_FEATURE_FXSR},
    {X86_CR4_UMIP, X86_FEATURE_UMIP},
    {X86_CR4_LA57, X86_FEATURE_LA57},
    {X86_CR4_VMXE, X86_FEATURE_VMX},
    {X86_CR4_FSGSBASE, X86_FEATURE_FSGSBASE},
    {X86_CR4_PCIDE, X86_FEATURE_PCID},
    {X86_CR4_OSXSAVE, X86_FEATURE_XSAVE},
    {X86_CR4_SMEP, X86_FEATURE_SMEP},
    {X86_CR4_SMAP, X86_FEATURE_SMAP},
    {X86_CR4_PKE, X86_FEATURE_PKU},
    {X86_CR4_PKS, X86_FEATURE_PKS},
};

u64 x86_cr4_valid(const struct x86_cpu *cpu)
{
    u64 valid = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(cr4_features); i++)
        if (x86_has(cpu, cr4_features[i].feature))
            valid |= cr4_features[i].bits;
    return valid;
}

static void flush_all(struct x86_cpu *cpu)
{
    if (cpu->common.memory)
        cpu->common.memory->flush_all(&cpu->common);
}

static bool pae_paging(const struct x86_cpu *cpu)
{
    return cpu->cr0 & X86_CR0_PG && cpu->cr4 & X86_CR4_PAE && !x86_long_mode(cpu);
}

bool x86_load_pdptes(struct x86_cpu *cpu, u64 cr3)
{
    /* SDM vol. 3 4.4.1: reserved in a present PDPTE are bits 2:1, 8:5 and all above MAXPHYADDR. */
    u64 reserved = 0x1e6 | ~cpu->phys_mask;
    u64 pdpte[4];

    for (unsigned i = 0; i < 4; i++) {
        u64 gpa = (cr3 & 0xffffffe0) + 8 * i;

        if (cpu->hooks && cpu->hooks->second_level) {
            struct guest_page page;

            cpu->loading_pdptes = true;
            cpu->hooks->second_level(cpu, gpa, 0, GUEST_READ, true, false, &page);
            cpu->loading_pdptes = false;
            gpa = page.gpa | (gpa & 0xfff);
        }
        if (mem_read(cpu->common.mem, gpa, &pdpte[i], 8))
            pdpte[i] = ~0ull;
        if (pdpte[i] & 1 && pdpte[i] & reserved)
            return false;
    }
    memcpy(cpu->pdpte, pdpte, sizeof(pdpte));
    return true;
}

static bool cr0_allowed(struct x86_cpu *cpu, u64 value)
{
    bool enable = value & X86_CR0_PG && !(cpu->cr0 & X86_CR0_PG);

    if (value >> 32 || (value & X86_CR0_PG && !(value & X86_CR0_PE)) ||
        (value & X86_CR0_NW && !(value & X86_CR0_CD)))
        return false;
    if (!(value & X86_CR0_PG) && cpu->cr0 & X86_CR0_PG &&
        (x86_code64(cpu) || cpu->cr4 & X86_CR4_PCIDE))
        return false;
    /* Entering IA-32e mode (SDM vol. 3 10.8.5). */
    return !(enable && cpu->efer & X86_EFER_LME &&
             (!(cpu->cr4 & X86_CR4_PAE) || cpu->seg[X86_CS].access & X86_SEG_L ||
              !(X86_SEG_TYPE(cpu->seg[X86_TR].access) & 8)));
}

bool x86_write_cr0(struct x86_cpu *cpu, u64 value, bool check)
{
    u64 old = cpu->cr0, old_efer = cpu->efer;

    if (check && !cr0_allowed(cpu, value))
        return false;
    value = (value & CR0_VALID) | X86_CR0_ET;
    if (check && (old ^ value) & X86_CR0_PG && cpu->efer & X86_EFER_LME)
        cpu->efer = value & X86_CR0_PG ? cpu->efer | X86_EFER_LMA : cpu->efer & ~X86_EFER_LMA;
    cpu->cr0 = value;
    if (check && pae_paging(cpu) && (old ^ value) & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW) &&
        !x86_load_pdptes(cpu, cpu->cr3)) {
        cpu->cr0 = old;
        cpu->efer = old_efer;
        return false;
    }
    /* Spaces of the other WP setting miss the flushes that MOV CR3 does to the current one. */
    if ((old ^ value) & (X86_CR0_PG | X86_CR0_WP))
        flush_all(cpu);
    x86_update(cpu);
    return true;
}

bool x86_write_cr3(struct x86_cpu *cpu, u64 value, bool check)
{
    bool keep = false;

    if (check && cpu->cr4 & X86_CR4_PCIDE) {
        keep = value >> 63;
        value &= ~BIT(63);
    }
    if (x86_long_mode(cpu)) {
        if (check && value & ~cpu->phys_mask)
            return false;
    } else {
        value = (u32)value;
        if (check && pae_paging(cpu) && !x86_load_pdptes(cpu, value))
            return false;
    }
    cpu->cr3 = value;
    if (!keep && cpu->common.memory)
        cpu->common.memory->flush_space(&cpu->common, x86_space_key(cpu, value), true);
    x86_update_mmu(cpu);
    return true;
}

bool x86_write_cr4(struct x86_cpu *cpu, u64 value, bool check)
{
    const u64 pdpte_bits = X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_SMEP;
    const u64 flush_bits = X86_CR4_PAE | X86_CR4_PSE | X86_CR4_PGE | X86_CR4_LA57 | X86_CR4_SMEP |
                           X86_CR4_SMAP | X86_CR4_PKE | X86_CR4_PKS;
    u64 old = cpu->cr4, changed = old ^ value;

    if (check) {
        if (value & ~x86_cr4_valid(cpu))
            return false;
        if (x86_long_mode(cpu) && (!(value & X86_CR4_PAE) || changed & X86_CR4_LA57))
            return false;
        if (value & changed & X86_CR4_PCIDE && (!x86_long_mode(cpu) || cpu->cr3 & 0xfff))
            return false;
    }
    cpu->cr4 = value;
    if (check && pae_paging(cpu) && changed & pdpte_bits && !x86_load_pdptes(cpu, cpu->cr3)) {
        cpu->cr4 = old;
        return false;
    }
    if (changed & flush_bits || (changed & X86_CR4_PCIDE && !(value & X86_CR4_PCIDE)))
        flush_all(cpu);
    x86_update(cpu);
    return true;
}

bool x86_write_efer(struct x86_cpu *cpu, u64 value, bool check)
{
    u64 valid = 0, old = cpu->efer;

    if (x86_has(cpu, X86_FEATURE_SYSCALL))
        valid |= X86_EFER_SCE;
    if (x86_has(cpu, X86_FEATURE_LM))
        valid |= X86_EFER_LME | X86_EFER_LMA;
    if (x86_has(cpu, X86_FEATURE_NX))
        valid |= X86_EFER_NXE;
    if (check) {
        if (value & ~valid)
            return false;
        if ((value ^ old) & X86_EFER_LME && cpu->cr0 & X86_CR0_PG)
            return false;
        value = (value & ~X86_EFER_LMA) | (old & X86_EFER_LMA); /* LMA is read-only */
    }
    cpu->efer = value;
    if ((value ^ old) & X86_EFER_NXE)
        flush_all(cpu);
    x86_update(cpu);
    return true;
}

/* --- Helpers. Other register and direction are part of the exit qualification (SDM vol. 3 tables
 * 27-3, 27-4). --- */

static void cr_intercept(struct x86_cpu *cpu, u64 regs, unsigned type, u64 length)
{
    x86_intercept(cpu, X86_REASON_CR, (regs & 15) | type << 4 | (regs >> 8 & 15) << 8, (u32)length,
                  0, 0);
}

static struct x86_cr_view view(struct x86_cpu *cpu, unsigned cr)
{
    if (likely(!cpu->hooks || !cpu->hooks->cr_view))
        return (struct x86_cr_view){0};
    return cpu->hooks->cr_view(cpu, cr);
}

/* What the guest sees of @value: the read shadow where a hypervisor owns bits (SDM vol. 3 26.3). */
static u64 seen(struct x86_cpu *cpu, unsigned cr, u64 value)
{
    struct x86_cr_view v = view(cpu, cr);

    return (value & ~v.mask) | (v.shadow & v.mask);
}

/* A write that nobody intercepted: bits the guest does not own stay. False: a bit that VMX
 * operation fixes would change (SDM vol. 3 24.8). */
static bool owned(struct x86_cpu *cpu, unsigned cr, u64 old, u64 *value)
{
    struct x86_cr_view v = view(cpu, cr);

    *value = (*value & ~v.mask) | (old & v.mask);
    return !(~*value & v.fixed);
}

u64 x86_helper_read_cr(struct x86_cpu *cpu, u64 regs, u64 length)
{
    /* Only CR3 and CR8 reads can be intercepted; the hook knows, and may change what is read of
     * CR0 and CR4 (read shadows). */
    cr_intercept(cpu, regs, 1, length);
    switch (regs & 15) {
    case 0:
        return seen(cpu, 0, cpu->cr0);
    case 2:
        return cpu->cr2;
    case 3:
        return cpu->cr3;
    case 4:
        return seen(cpu, 4, cpu->cr4);
    case 8:
        return cpu->hooks && cpu->hooks->read_tpr ? cpu->hooks->read_tpr(cpu) : cpu->cr8;
    }
    x86_raise(cpu, X86_UD);
}

static bool write_cr8(struct x86_cpu *cpu, u64 value)
{
    if (value > 15)
        return false;
    cpu->cr8 = value;
    if (cpu->hooks && cpu->hooks->write_tpr)
        cpu->hooks->write_tpr(cpu, value);
    return true;
}

u64 x86_helper_write_cr(struct x86_cpu *cpu, u64 regs, u64 value, u64 length)
{
    bool done = false;

    cpu->cr_operand = value;
    cr_intercept(cpu, regs, 0, length);
    switch (regs & 15) {
    case 0:
        done = owned(cpu, 0, cpu->cr0, &value) && x86_write_cr0(cpu, value, true);
        break;
    case 2:
        cpu->cr2 = value;
        done = true;
        break;
    case 3:
        done = x86_write_cr3(cpu, value, true);
        break;
    case 4:
        done = owned(cpu, 4, cpu->cr4, &value) && x86_write_cr4(cpu, value, true);
        break;
    case 8:
        done = write_cr8(cpu, value);
        break;
    default:
        x86_raise(cpu, X86_UD);
    }
    if (!done)
        x86_raise_error(cpu, X86_GP, 0);
    return 0;
}

/* Which debug register DR @n means, after the checks that reads and writes share. VM exits come
 * before #GP for privilege and #UD for CR4.DE (SDM vol. 3 26.1.3). */
static unsigned check_dr(struct x86_cpu *cpu, u64 regs, bool read, u64 length)
{
    unsigned n = regs & 15;

    if (n > 7)
        x86_raise(cpu, X86_UD);
    x86_intercept(cpu, X86_REASON_DR, n | (u64)read << 4 | (regs >> 8 & 15) << 8, (u32)length, 0,
                  0);
    if (n == 4 || n == 5) {
        if (cpu->cr4 & X86_CR4_DE)
            x86_raise(cpu, X86_UD);
        n += 2;
    }
    if (cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    if (cpu->dr[7] & BIT(13)) {
        cpu->pending = (struct x86_event){
            .valid = true,
            .vector = X86_DB,
            .type = X86_EVENT_HARDWARE,
            .payload = BIT(13), /* DR6.BD */
            .has_payload = true,
        };
        guest_leave(&cpu->common, X86_EXIT_EVENT);
    }
    return n;
}

u64 x86_helper_read_dr(struct x86_cpu *cpu, u64 regs, u64 length)
{
    return cpu->dr[check_dr(cpu, regs, true, length)];
}

u64 x86_helper_write_dr(struct x86_cpu *cpu, u64 regs, u64 value, u64 length)
{
    unsigned n = check_dr(cpu, regs, false, length);

    if (n >= 6 && value >> 32)
        x86_raise_error(cpu, X86_GP, 0);
    /* Without RTM and bus-lock detection their bits are fixed too. */
    if (n == 6)
        value = (value & 0xe00f) | 0xffff0ff0;
    else if (n == 7)
        value = (value & 0xffff23ff) | 0x400;
    cpu->dr[n] = value;
    x86_update_mode(cpu);
    return 0;
}

u64 x86_helper_lmsw(struct x86_cpu *cpu, u64 value, u64 length, u64 linear, u64 memory)
{
    u64 cr0;

    cpu->cr_operand = value;
    x86_intercept(cpu, X86_REASON_CR, 3 << 4 | memory << 6 | (value & 0xffff) << 16, (u32)length,
                  linear, 0);
    /* PE can be set but not cleared. */
    cr0 = (cpu->cr0 & ~14ull) | (value & 15);
    if (!owned(cpu, 0, cpu->cr0, &cr0) || !x86_write_cr0(cpu, cr0, true))
        x86_raise_error(cpu, X86_GP, 0);
    return 0;
}

u64 x86_helper_smsw(struct x86_cpu *cpu)
{
    if (cpu->cpl && cpu->cr4 & X86_CR4_UMIP)
        x86_raise_error(cpu, X86_GP, 0);
    return seen(cpu, 0, cpu->cr0);
}

u64 x86_helper_clts(struct x86_cpu *cpu, u64 length)
{
    x86_intercept(cpu, X86_REASON_CR, 2 << 4, (u32)length, 0, 0);
    if (!(view(cpu, 0).mask & X86_CR0_TS))
        cpu->cr0 &= ~X86_CR0_TS;
    x86_update_mode(cpu);
    return 0;
}

u64 x86_helper_stac(struct x86_cpu *cpu, u64 set)
{
    if (cpu->cpl || !x86_has(cpu, X86_FEATURE_SMAP))
        x86_raise(cpu, X86_UD);
    if (set)
        cpu->eflags |= X86_FLAG_AC;
    else
        cpu->eflags &= ~X86_FLAG_AC;
    x86_update_mmu(cpu);
    return 0;
}

u64 x86_helper_invlpg(struct x86_cpu *cpu, u64 linear, u64 length)
{
    x86_intercept(cpu, X86_REASON_INVLPG, linear, (u32)length, linear, 0);
    if (x86_canonical(cpu, linear))
        cpu->common.memory->flush_page(&cpu->common, linear);
    return 0;
}

u64 x86_helper_invpcid(struct x86_cpu *cpu, u64 type, u64 linear, u64 info,
                       u64 length_qualification)
{
    const struct guest_memory *memory = cpu->common.memory;
    u64 descriptor[2], displacement;

    if (!x86_has(cpu, X86_FEATURE_INVPCID))
        x86_raise(cpu, X86_UD);
    x86_need_enabled(cpu, X86_REASON_INVPCID);
    /* SDM vol. 3 26.1.1: #GP for privilege comes before the VM exit, other #GP after it. */
    if (cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    displacement = length_qualification & BIT(8) ? linear : (u64)((s64)length_qualification >> 32);
    x86_intercept(cpu, X86_REASON_INVPCID, displacement, (u8)length_qualification, linear, info);
    memory->load(&cpu->common, linear, descriptor, 16);
    if (type > 3 || (type < 2 && descriptor[0] >> 12) ||
        (type < 2 && descriptor[0] && !(cpu->cr4 & X86_CR4_PCIDE)) ||
        (type == 0 && !x86_canonical_any(cpu, descriptor[1])))
        x86_raise_error(cpu, X86_GP, 0);
    if (type == 0)
        memory->flush_page(&cpu->common, descriptor[1]);
    else if (type == 1 && (!(cpu->cr4 & X86_CR4_PCIDE) || descriptor[0] == (cpu->cr3 & 0xfff)))
        memory->flush_space(&cpu->common, x86_space_key(cpu, cpu->cr3), true);
    else
        memory->flush_all(&cpu->common);
    return 0;
}
