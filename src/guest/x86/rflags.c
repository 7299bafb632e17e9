/* RFLAGS as a whole, and the instructions that write its system part. */
#include "guest/x86/cc.h"
#include "guest/x86/x86_internal.h"

#define FLAGS_KNOWN                                                                                \
    (X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_IF | X86_FLAG_DF | X86_FLAG_IOPL | X86_FLAG_NT |     \
     X86_FLAG_RF | X86_FLAG_VM | X86_FLAG_AC | X86_FLAG_VIF | X86_FLAG_VIP | X86_FLAG_ID)

u64 x86_rflags(const struct x86_cpu *cpu)
{
    u64 eflags = cpu->eflags;

    if (cpu->lip != cpu->rf_lip)
        eflags &= ~X86_FLAG_RF;
    return eflags | x86_arith_flags(cpu) | (cpu->df == 1 ? 0 : X86_FLAG_DF) | 2;
}

void x86_set_rflags(struct x86_cpu *cpu, u64 rflags)
{
    x86_set_arith_flags(cpu, rflags);
    cpu->df = rflags & X86_FLAG_DF ? ~0ull : 1;
    cpu->eflags = (rflags & FLAGS_KNOWN & ~(X86_FLAGS_ARITH | X86_FLAG_DF)) | 2;
    cpu->rf_lip = cpu->lip;
}

u64 x86_flags_writable(const struct x86_cpu *cpu, unsigned width)
{
    u64 flags = X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT;

    if (width > 2)
        flags |= X86_FLAG_AC | X86_FLAG_ID;
    if (cpu->cpl == 0)
        flags |= X86_FLAG_IOPL;
    if (cpu->cpl <= x86_iopl(cpu))
        flags |= X86_FLAG_IF;
    return flags;
}

u64 x86_helper_popf(struct x86_cpu *cpu, u64 value, u64 bytes)
{
    bool stepping = cpu->common.mode & X86_MODE_STEPPING;
    u64 old = cpu->eflags, writable = x86_flags_writable(cpu, (unsigned)bytes);

    x86_set_rflags(cpu, (x86_rflags(cpu) & ~(writable | X86_FLAG_RF)) | (value & writable));
    if ((old ^ cpu->eflags) & (X86_FLAG_TF | X86_FLAG_AC | X86_FLAG_IOPL))
        x86_update(cpu);
    if (!stepping && !(old & X86_FLAG_IF) && cpu->eflags & X86_FLAG_IF)
        x86_check_events(cpu, ~0u, false);
    return 0;
}

u64 x86_helper_check_vme(struct x86_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_VME))
        x86_raise_error(cpu, X86_GP, 0);
    return 0;
}

u64 x86_vme_flags(struct x86_cpu *cpu, u64 image)
{
    if (image & X86_FLAG_TF || (image & X86_FLAG_IF && cpu->eflags & X86_FLAG_VIP))
        x86_raise_error(cpu, X86_GP, 0);
    image &= ~X86_FLAG_VIF;
    return image & X86_FLAG_IF ? image | X86_FLAG_VIF : image;
}

u64 x86_helper_popf_vme(struct x86_cpu *cpu, u64 value)
{
    u64 writable = x86_flags_writable(cpu, 2) | X86_FLAG_VIF;

    value = x86_vme_flags(cpu, value);
    x86_set_rflags(cpu, (x86_rflags(cpu) & ~(writable | X86_FLAG_RF)) | (value & writable));
    x86_update(cpu);
    return 0;
}

/* CLI and STI below IOPL: VIF under VME and PVI (SDM vol. 3 21.3.3, 21.4), else #GP(0). */
static void virtual_if(struct x86_cpu *cpu)
{
    if (x86_vm86(cpu) ? !(cpu->cr4 & X86_CR4_VME) : !(cpu->cr4 & X86_CR4_PVI && cpu->cpl == 3))
        x86_raise_error(cpu, X86_GP, 0);
}

u64 x86_helper_cli(struct x86_cpu *cpu)
{
    if (!x86_protected(cpu) || cpu->cpl <= x86_iopl(cpu)) {
        cpu->eflags &= ~X86_FLAG_IF;
    } else {
        virtual_if(cpu);
        cpu->eflags &= ~X86_FLAG_VIF;
    }
    return 0;
}

u64 x86_helper_sti(struct x86_cpu *cpu, u64 length)
{
    if (x86_protected(cpu) && cpu->cpl > x86_iopl(cpu)) {
        virtual_if(cpu);
        if (cpu->eflags & X86_FLAG_VIP)
            x86_raise_error(cpu, X86_GP, 0);
        cpu->eflags |= X86_FLAG_VIF;
        return 0;
    }
    if (cpu->eflags & X86_FLAG_IF)
        return 0;
    cpu->eflags |= X86_FLAG_IF;
    if (!(x86_interruptibility(cpu) & X86_SHADOW_MOV_SS)) {
        x86_clear_shadow(cpu);
        cpu->interruptibility |= X86_SHADOW_STI;
        cpu->shadow_lip = cpu->lip + length;
    }
    return x86_events_wait(cpu);
}
