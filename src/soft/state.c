/* Get and set of register state in KVM's structs. */
#include <errno.h>
#include <string.h>

#include "soft/private.h"

/* Order of the general registers in struct kvm_regs. */
#define REGS(X)                                                                                    \
    X(rax, X86_RAX)                                                                                \
    X(rbx, X86_RBX)                                                                                \
    X(rcx, X86_RCX)                                                                                \
    X(rdx, X86_RDX)                                                                                \
    X(rsi, X86_RSI)                                                                                \
    X(rdi, X86_RDI)                                                                                \
    X(rsp, X86_RSP)                                                                                \
    X(rbp, X86_RBP)                                                                                \
    X(r8, 8)                                                                                       \
    X(r9, 9)                                                                                       \
    X(r10, 10)                                                                                     \
    X(r11, 11)                                                                                     \
    X(r12, 12)                                                                                     \
    X(r13, 13)                                                                                     \
    X(r14, 14)                                                                                     \
    X(r15, 15)

int soft_get_regs(struct vcpu *vcpu, struct kvm_regs *regs)
{
    const struct x86_cpu *cpu = &soft_vcpu(vcpu)->cpu;

#define X(name, index) regs->name = cpu->gpr[index];
    REGS(X)
#undef X
    regs->rip = x86_rip(cpu);
    regs->rflags = x86_rflags(cpu);
    return 0;
}

int soft_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    struct x86_cpu *cpu = &soft->cpu;

#define X(name, index) cpu->gpr[index] = regs->name;
    REGS(X)
#undef X
    x86_set_rip(cpu, regs->rip);
    x86_set_rflags(cpu, (regs->rflags & 0x3f7fd7) | 2);
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
    cpu->pending.valid = false;
    soft_mmio_done(soft);
    soft->priv.events_due = true;
    return 0;
}

/* --- special registers --- */

static void get_segment(const struct x86_seg *seg, struct kvm_segment *out)
{
    *out = (struct kvm_segment){
        .base = seg->base,
        .limit = seg->limit,
        .selector = seg->selector,
        .type = X86_SEG_TYPE(seg->access),
        .present = !!(seg->access & X86_SEG_P),
        .dpl = X86_SEG_DPL(seg->access),
        .db = !!(seg->access & X86_SEG_DB),
        .s = !!(seg->access & X86_SEG_S),
        .l = !!(seg->access & X86_SEG_L),
        .g = !!(seg->access & X86_SEG_G),
        .avl = seg->access >> 12 & 1,
        .unusable = !!(seg->access & X86_SEG_UNUSABLE),
    };
}

static void set_segment(struct x86_seg *seg, const struct kvm_segment *in)
{
    seg->base = in->base;
    seg->limit = in->limit;
    seg->selector = in->selector;
    seg->access = (u32)(in->type & 15) | (in->s ? X86_SEG_S : 0) | (in->dpl & 3u) << 5 |
                  (in->present ? X86_SEG_P : 0) | (in->avl & 1u) << 12 | (in->l ? X86_SEG_L : 0) |
                  (in->db ? X86_SEG_DB : 0) | (in->g ? X86_SEG_G : 0) |
                  (in->unusable || !in->present ? X86_SEG_UNUSABLE : 0);
}

#define SEGMENTS(X)                                                                                \
    X(es, X86_ES)                                                                                  \
    X(cs, X86_CS)                                                                                  \
    X(ss, X86_SS)                                                                                  \
    X(ds, X86_DS)                                                                                  \
    X(fs, X86_FS)                                                                                  \
    X(gs, X86_GS)                                                                                  \
    X(ldt, X86_LDTR)                                                                               \
    X(tr, X86_TR)

int soft_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    const struct x86_cpu *cpu = &soft->cpu;
    u32 injecting = soft->vmx.root.vmcs.vm_entry_interruption_information;

    memset(sregs, 0, sizeof *sregs);
#define X(name, index) get_segment(&cpu->seg[index], &sregs->name);
    SEGMENTS(X)
#undef X
    sregs->gdt.base = cpu->gdtr.base;
    sregs->gdt.limit = (u16)cpu->gdtr.limit;
    sregs->idt.base = cpu->idtr.base;
    sregs->idt.limit = (u16)cpu->idtr.limit;
    sregs->cr0 = cpu->cr0;
    sregs->cr2 = cpu->cr2;
    sregs->cr3 = cpu->cr3;
    sregs->cr4 = cpu->cr4;
    sregs->cr8 = lapic_cr8(&soft->parts.lapic);
    sregs->efer = cpu->efer;
    sregs->apic_base = soft->parts.lapic.state.base;
    if (injecting & VMX_INTR_VALID && VMX_INTR_TYPE(injecting) == 0)
        sregs->interrupt_bitmap[(injecting & 255) / 64] = BIT(injecting % 64);
    return 0;
}

/* What no sequence of instructions could make (SDM 27.3.1.1). */
static bool valid_sregs(struct x86_cpu *cpu, const struct kvm_sregs *s)
{
    bool pg = s->cr0 & X86_CR0_PG, lme = s->efer & X86_EFER_LME, lma = s->efer & X86_EFER_LMA;

    if (s->cr0 >> 32 || (pg && !(s->cr0 & X86_CR0_PE)) ||
        (s->cr0 & X86_CR0_NW && !(s->cr0 & X86_CR0_CD)))
        return false;
    if (lme && pg)
        return lma && s->cr4 & X86_CR4_PAE && !(s->cr3 & ~cpu->phys_mask);
    return !lma && !s->cs.l;
}

static bool valid_features(struct x86_cpu *cpu, const struct kvm_sregs *s)
{
    u64 old_cr4 = cpu->cr4, old_efer = cpu->efer, old_cr0 = cpu->cr0;
    bool ok;

    /* The CPU knows which bits it has: ask it with paging off, where no other rule applies. */
    cpu->cr0 = X86_CR0_ET;
    cpu->cr4 = 0;
    cpu->efer = 0;
    ok = x86_write_cr4(cpu, s->cr4 & ~X86_CR4_PCIDE, true) && x86_write_efer(cpu, s->efer, true);
    cpu->cr0 = old_cr0;
    cpu->cr4 = old_cr4;
    cpu->efer = old_efer;
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
    return ok;
}

int soft_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    struct x86_cpu *cpu = &soft->cpu;
    u64 rip = x86_rip(cpu);

    if (!valid_sregs(cpu, sregs) || !valid_features(cpu, sregs))
        return -EINVAL;
    if (sregs->apic_base != soft->parts.lapic.state.base &&
        !soft_msr_set(soft, 0x1b, sregs->apic_base))
        return -EINVAL;
#define X(name, index) set_segment(&cpu->seg[index], &sregs->name);
    SEGMENTS(X)
#undef X
    cpu->gdtr = (struct x86_table){sregs->gdt.base, sregs->gdt.limit};
    cpu->idtr = (struct x86_table){sregs->idt.base, sregs->idt.limit};
    cpu->cpl = X86_SEG_DPL(cpu->seg[X86_SS].access);
    if (!(sregs->cr0 & X86_CR0_PE))
        cpu->cpl = 0;
    cpu->efer = sregs->efer;
    cpu->cr0 = sregs->cr0 | X86_CR0_ET;
    cpu->cr2 = sregs->cr2;
    cpu->cr4 = sregs->cr4;
    cpu->cr3 = sregs->cr3;
    if (cpu->cr0 & X86_CR0_PG && cpu->cr4 & X86_CR4_PAE && !(cpu->efer & X86_EFER_LMA))
        x86_write_cr3(cpu, sregs->cr3, true); /* loads the PDPTEs */
    x86_set_rip(cpu, rip);
    cpu->common.memory->flush_all(&cpu->common);
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
    lapic_set_cr8(&soft->parts.lapic, sregs->cr8);
    for (u32 i = 0; i < 256; i++) {
        struct x86_event event = {.valid = true, .vector = (u8)i};

        if (sregs->interrupt_bitmap[i / 64] >> i % 64 & 1)
            vmx_inject(&soft->vmx, &event);
    }
    soft_mmio_done(soft);
    soft->priv.events_due = true;
    return 0;
}

/* --- FPU and SIMD, through the images that the CPU makes itself --- */

int soft_get_fpu(struct vcpu *vcpu, struct kvm_fpu *fpu)
{
    u8 image[512] __attribute__((aligned(16)));

    memset(image, 0, sizeof image);
    memset(fpu, 0, sizeof *fpu);
    x86_fxsave(&soft_vcpu(vcpu)->cpu, image, true);
    memcpy(&fpu->fcw, image, 2);
    memcpy(&fpu->fsw, image + 2, 2);
    fpu->ftwx = image[4];
    memcpy(&fpu->last_opcode, image + 6, 2);
    memcpy(&fpu->last_ip, image + 8, 8);
    memcpy(&fpu->last_dp, image + 16, 8);
    memcpy(&fpu->mxcsr, image + 24, 4);
    memcpy(fpu->fpr, image + 32, sizeof fpu->fpr);
    memcpy(fpu->xmm, image + 160, sizeof fpu->xmm);
    return 0;
}

int soft_set_fpu(struct vcpu *vcpu, const struct kvm_fpu *fpu)
{
    u8 image[512] __attribute__((aligned(16)));

    if (fpu->mxcsr >> 16)
        return -EINVAL;
    memset(image, 0, sizeof image);
    memcpy(image, &fpu->fcw, 2);
    memcpy(image + 2, &fpu->fsw, 2);
    image[4] = fpu->ftwx;
    memcpy(image + 6, &fpu->last_opcode, 2);
    memcpy(image + 8, &fpu->last_ip, 8);
    memcpy(image + 16, &fpu->last_dp, 8);
    memcpy(image + 24, &fpu->mxcsr, 4);
    memcpy(image + 32, fpu->fpr, sizeof fpu->fpr);
    memcpy(image + 160, fpu->xmm, sizeof fpu->xmm);
    x86_fxrstor(&soft_vcpu(vcpu)->cpu, image, true);
    x86_update_mode(&soft_vcpu(vcpu)->cpu);
    return 0;
}

int soft_get_xsave(struct vcpu *vcpu, struct kvm_xsave *xsave)
{
    _Static_assert(X86_XSAVE_BYTES <= sizeof xsave->region, "the image fits KVM's");

    memset(xsave->region, 0, sizeof xsave->region);
    x86_xsave(&soft_vcpu(vcpu)->cpu, (u8 *)xsave->region);
    return 0;
}

int soft_set_xsave(struct vcpu *vcpu, const struct kvm_xsave *xsave)
{
    if (!x86_xrstor(&soft_vcpu(vcpu)->cpu, (const u8 *)xsave->region))
        return -EINVAL;
    x86_update_mode(&soft_vcpu(vcpu)->cpu);
    return 0;
}

int soft_get_xcrs(struct vcpu *vcpu, struct kvm_xcrs *xcrs)
{
    memset(xcrs, 0, sizeof *xcrs);
    xcrs->nr_xcrs = 1;
    xcrs->xcrs[0].value = soft_vcpu(vcpu)->cpu.xcr0;
    return 0;
}

int soft_set_xcrs(struct vcpu *vcpu, const struct kvm_xcrs *xcrs)
{
    if (xcrs->nr_xcrs > KVM_MAX_XCRS || xcrs->flags)
        return -EINVAL;
    for (u32 i = 0; i < xcrs->nr_xcrs; i++)
        if (xcrs->xcrs[i].xcr == 0)
            return x86_write_xcr0(&soft_vcpu(vcpu)->cpu, xcrs->xcrs[i].value) ? 0 : -EINVAL;
    return 0;
}

int soft_get_debugregs(struct vcpu *vcpu, struct kvm_debugregs *regs)
{
    const struct x86_cpu *cpu = &soft_vcpu(vcpu)->cpu;

    memset(regs, 0, sizeof *regs);
    memcpy(regs->db, cpu->dr, sizeof regs->db);
    regs->dr6 = cpu->dr[6];
    regs->dr7 = cpu->dr[7];
    return 0;
}

int soft_set_debugregs(struct vcpu *vcpu, const struct kvm_debugregs *regs)
{
    struct x86_cpu *cpu = &soft_vcpu(vcpu)->cpu;

    if (regs->flags || regs->dr6 >> 32 || regs->dr7 >> 32)
        return -EINVAL;
    memcpy(cpu->dr, regs->db, sizeof regs->db);
    cpu->dr[6] = regs->dr6;
    cpu->dr[7] = regs->dr7;
    x86_update_mode(cpu);
    return 0;
}

/* --- MSRs: as KVM, up to the first that fails, and how many were done --- */

int soft_get_msrs(struct vcpu *vcpu, struct kvm_msrs *msrs)
{
    u32 i;

    for (i = 0; i < msrs->nmsrs; i++) {
        u64 value;

        if (!soft_msr_get(soft_vcpu(vcpu), msrs->entries[i].index, &value))
            break;
        msrs->entries[i].data = value;
    }
    return (int)i;
}

int soft_set_msrs(struct vcpu *vcpu, const struct kvm_msrs *msrs)
{
    u32 i;

    for (i = 0; i < msrs->nmsrs; i++)
        if (!soft_msr_set(soft_vcpu(vcpu), msrs->entries[i].index, msrs->entries[i].data))
            break;
    soft_vcpu(vcpu)->priv.events_due = true;
    return (int)i;
}

/* --- CPUID --- */

int soft_get_cpuid(struct vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
    const struct cpuid_table *table = &soft_vcpu(vcpu)->parts.cpuid;

    if (cpuid->nent < table->count)
        return -E2BIG;
    memcpy(cpuid->entries, table->entry, table->count * sizeof *table->entry);
    cpuid->nent = table->count;
    return 0;
}

int soft_set_cpuid(struct vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    struct cpuid_table *table = &soft->parts.cpuid;
    const struct kvm_cpuid_entry2 *e;

    if (cpuid->nent > CPUID_MAX_ENTRIES)
        return -E2BIG;
    memcpy(table->entry, cpuid->entries, cpuid->nent * sizeof *table->entry);
    table->count = cpuid->nent;
    e = engine_cpuid_find(cpuid, 0x80000008, 0);
    if (e && (e->eax & 0xff) >= 32 && (e->eax & 0xff) <= 52)
        soft->cpu.phys_mask = mask_low(e->eax & 0xff);
    e = engine_cpuid_find(cpuid, 1, 0);
    soft->parts.lapic.has_x2apic = e && e->ecx & BIT(21);
    soft->parts.lapic.has_tsc_deadline = e && e->ecx & BIT(24);
    x86_update_features(&soft->cpu);
    return 0;
}

int soft_translate(struct vcpu *vcpu, struct kvm_translation *translation)
{
    struct x86_cpu *cpu = &soft_vcpu(vcpu)->cpu;
    struct guest_page page;
    u64 gva = translation->linear_address;

    *translation = (struct kvm_translation){.linear_address = gva, .physical_address = ~0ull};
    mem_reader_online(cpu->common.mem, cpu->common.index);
    if (!x86_translate(cpu, gva, &page)) {
        translation->physical_address = page.gpa | (gva & (MEM_PAGE_SIZE - 1));
        translation->valid = 1;
        translation->writeable = page.writable;
        translation->usermode = cpu->cpl == 3;
    }
    mem_reader_offline(cpu->common.mem, cpu->common.index);
    return 0;
}
