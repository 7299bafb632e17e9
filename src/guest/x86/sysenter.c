/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, and the FS and GS bases (SDM vol. 3 5.8.7, 5.8.8; vol. 2). */
#include "guest/x86/x86_internal.h"

/* The flat segments that these instructions load without looking at descriptors. */
static void set_flat(struct x86_cpu *cpu, u16 cs, u16 ss, unsigned cpl, bool code64)
{
    u32 common = X86_SEG_S | X86_SEG_P | X86_SEG_G | cpl << 5;

    cpu->cpl = (u8)cpl;
    cpu->seg[X86_CS] = (struct x86_seg){
        .limit = 0xffffffff,
        .access = common | 11 | (code64 ? X86_SEG_L : X86_SEG_DB),
        .selector = cs,
    };
    cpu->seg[X86_SS] = (struct x86_seg){
        .limit = 0xffffffff,
        .access = common | 3 | X86_SEG_DB,
        .selector = ss,
    };
}

u64 x86_helper_syscall(struct x86_cpu *cpu, u64 length)
{
    u16 cs = (u16)(cpu->msr_star >> 32 & 0xfffc);
    u64 flags;

    if (!(cpu->efer & X86_EFER_SCE) || !x86_code64(cpu))
        x86_raise(cpu, X86_UD);
    if (cpu->hooks && cpu->hooks->syscall) {
        cpu->lip += length;
        cpu->hooks->syscall(cpu);
    }
    flags = x86_rflags(cpu);
    cpu->gpr[X86_RCX] = cpu->lip + length;
    cpu->gpr[11] = flags & ~X86_FLAG_RF;
    x86_set_rflags(cpu, flags & ~(cpu->msr_fmask | X86_FLAG_RF));
    cpu->lip = cpu->msr_lstar;
    set_flat(cpu, cs, (u16)(cs + 8), 0, true);
    x86_update_far(cpu);
    return cpu->lip;
}

u64 x86_helper_sysret(struct x86_cpu *cpu, u64 bytes)
{
    u16 selector = (u16)(cpu->msr_star >> 48);
    bool code64 = bytes == 8, closed = !(cpu->eflags & X86_FLAG_IF);
    bool stepping = cpu->common.mode & X86_MODE_STEPPING;
    u64 rip = cpu->gpr[X86_RCX];
    u32 mode = cpu->common.mode;

    if (!(cpu->efer & X86_EFER_SCE) || !x86_code64(cpu))
        x86_raise(cpu, X86_UD);
    if (cpu->cpl || (code64 && !x86_canonical(cpu, rip)))
        x86_raise_error(cpu, X86_GP, 0);
    /* SDM vol. 2 SYSRET: RF and VM cleared, reserved bits as they are. */
    x86_set_rflags(cpu, (cpu->gpr[11] & 0x3c7fd7) | 2);
    set_flat(cpu, (u16)((selector + (code64 ? 16 : 0)) | 3), (u16)((selector + 8) | 3), 3, code64);
    cpu->lip = code64 ? rip : (u32)rip;
    x86_update_far(cpu);
    if (!stepping && closed && cpu->eflags & X86_FLAG_IF)
        x86_check_events(cpu, mode, true);
    return cpu->lip;
}

u64 x86_helper_sysenter(struct x86_cpu *cpu)
{
    u16 cs = (u16)(cpu->msr_sysenter_cs & 0xfffc);
    bool long_mode = x86_long_mode(cpu);

    if (!x86_protected(cpu) || !cs)
        x86_raise_error(cpu, X86_GP, 0);
    cpu->eflags &= ~(X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
    cpu->gpr[X86_RSP] = long_mode ? cpu->msr_sysenter_esp : (u32)cpu->msr_sysenter_esp;
    set_flat(cpu, cs, (u16)(cs + 8), 0, long_mode);
    x86_set_rip(cpu, long_mode ? cpu->msr_sysenter_eip : (u32)cpu->msr_sysenter_eip);
    x86_update_far(cpu);
    return cpu->lip;
}

u64 x86_helper_sysexit(struct x86_cpu *cpu, u64 bytes)
{
    u16 cs = (u16)(cpu->msr_sysenter_cs & 0xfffc);
    u64 rip = cpu->gpr[X86_RDX], rsp = cpu->gpr[X86_RCX];
    bool code64 = bytes == 8;

    if (!x86_protected(cpu) || !cs || cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    if (code64 && (!x86_canonical(cpu, rip) || !x86_canonical(cpu, rsp)))
        x86_raise_error(cpu, X86_GP, 0);
    cs = (u16)(cs + (code64 ? 32 : 16));
    set_flat(cpu, cs | 3, (u16)(cs + 8) | 3, 3, code64);
    cpu->gpr[X86_RSP] = code64 ? rsp : (u32)rsp;
    x86_set_rip(cpu, code64 ? rip : (u32)rip);
    x86_update_far(cpu);
    return cpu->lip;
}

u64 x86_helper_fsgsbase(struct x86_cpu *cpu)
{
    if (!(cpu->cr4 & X86_CR4_FSGSBASE))
        x86_raise(cpu, X86_UD);
    return 0;
}

u64 x86_helper_write_fsgsbase(struct x86_cpu *cpu, u64 reg, u64 base)
{
    if (!(cpu->cr4 & X86_CR4_FSGSBASE))
        x86_raise(cpu, X86_UD);
    if (!x86_canonical_any(cpu, base))
        x86_raise_error(cpu, X86_GP, 0);
    cpu->seg[reg].base = base;
    return 0;
}
