/* Helpers of the system instructions that have no better home: I/O, CPUID, HLT, MONITOR, random
 * numbers, VMX. */
#include "base/entropy.h"
#include "guest/x86/x86_internal.h"

/* Puts what the instruction asked for back to the run loop as not implemented: nobody intercepted
 * what the CPU cannot do alone. */
static NORETURN void unimplemented(struct x86_cpu *cpu)
{
    guest_leave(&cpu->common, X86_EXIT_UNIMPLEMENTED);
}

u64 x86_helper_cpuid(struct x86_cpu *cpu, u64 length)
{
    u32 out[4] = {0, 0, 0, 0};

    x86_intercept(cpu, X86_REASON_CPUID, 0, (u32)length, 0, 0);
    if (cpu->hooks && cpu->hooks->cpuid)
        cpu->hooks->cpuid(cpu, (u32)cpu->gpr[X86_RAX], (u32)cpu->gpr[X86_RCX], out);
    cpu->gpr[X86_RAX] = out[0];
    cpu->gpr[X86_RBX] = out[1];
    cpu->gpr[X86_RCX] = out[2];
    cpu->gpr[X86_RDX] = out[3];
    return 0;
}

u64 x86_helper_need_feature(struct x86_cpu *cpu, u64 feature)
{
    if (!x86_has(cpu, feature))
        x86_raise(cpu, X86_UD);
    return 0;
}

u64 x86_helper_hlt(struct x86_cpu *cpu, u64 length)
{
    x86_intercept(cpu, X86_REASON_HLT, 0, (u32)length, 0, 0);
    cpu->lip += length;
    cpu->activity = X86_HALTED;
    x86_pmu_retired(cpu, ~0u, false);
    guest_leave(&cpu->common, X86_EXIT_HALT_CHECK);
}

u64 x86_helper_intercept(struct x86_cpu *cpu, u64 reason, u64 length)
{
    x86_intercept(cpu, (u32)reason, 0, (u32)length, 0, 0);
    return 0;
}

/* --- Port I/O (SDM vol. 1 19.5) --- */

static void check_port(struct x86_cpu *cpu, u16 port, unsigned bytes)
{
    const struct x86_seg *tr = &cpu->seg[X86_TR];
    u16 map = 0, denied = 0;
    u64 base;

    if (!x86_protected(cpu) || (cpu->cpl <= x86_iopl(cpu) && !x86_vm86(cpu)))
        return;
    /* Only a 32-bit (or 64-bit) TSS has an I/O map. */
    if ((X86_SEG_TYPE(tr->access) | 2) != 11 || tr->limit < 103)
        x86_raise_error(cpu, X86_GP, 0);
    base = tr->base;
    x86_load_implicit(cpu, base + 102, &map, 2);
    /* Two bytes are always read, so both must be there. */
    if ((u32)map + port / 8 + 1 > tr->limit)
        x86_raise_error(cpu, X86_GP, 0);
    x86_load_implicit(cpu, base + map + port / 8, &denied, 2);
    if (denied >> port % 8 & mask_low(bytes))
        x86_raise_error(cpu, X86_GP, 0);
}

/* Exit qualification for I/O instructions (SDM vol. 3 table 28-5). */
static u64 io_qualification(u16 port, unsigned bytes, bool in)
{
    return (bytes - 1) | (u64)in << 3 | (u64)port << 16;
}

static NORETURN void port_io(struct x86_cpu *cpu, u64 port, u64 what, u64 length, bool in)
{
    unsigned bytes = what & 0xff;

    check_port(cpu, (u16)port, bytes);
    x86_intercept(cpu, X86_REASON_IO, io_qualification((u16)port, bytes, in) | (what >> 8 & 1) << 6,
                  (u32)length, 0, 0);
    unimplemented(cpu);
}

u64 x86_helper_in(struct x86_cpu *cpu, u64 port, u64 what, u64 length)
{
    port_io(cpu, port, what, length, true);
}

u64 x86_helper_out(struct x86_cpu *cpu, u64 port, u64 what, u64 length)
{
    port_io(cpu, port, what, length, false);
}

static u64 unchecked_linear(const struct x86_cpu *cpu, unsigned seg, u64 offset)
{
    if (x86_code64(cpu))
        return seg == X86_FS || seg == X86_GS ? cpu->seg[seg].base + offset : offset;
    return (u32)(cpu->seg[seg].base + offset);
}

/* INS and OUTS: one exit; who intercepts does the element (or, with REP, elements) and moves rSI,
 * rDI, rCX and RIP. Answers only when there is nothing to do: REP with a count of 0. */
static u64 string_io(struct x86_cpu *cpu, u64 what, u64 length, bool in)
{
    unsigned bytes = what & 0xff, address = what >> 8 & 0xff, seg = what >> 16 & 0xff;
    bool repeated = what >> 24 & 1;
    u64 mask = mask_low(address * 8), linear, info;
    u64 offset = cpu->gpr[in ? X86_RDI : X86_RSI] & mask;
    u16 port = (u16)cpu->gpr[X86_RDX];
    u64 qualification = io_qualification(port, bytes, in) | BIT(4) | (u64)repeated << 5;

    check_port(cpu, port, bytes);
    if (repeated && !(cpu->gpr[X86_RCX] & mask))
        return 0;
    /* SDM vol. 3 26.1.1: an exit comes before the faults of the segment and the address. */
    linear = x86_exits_inside(cpu, X86_REASON_IO, qualification)
                 ? unchecked_linear(cpu, seg, offset)
                 : x86_segment_linear(cpu, seg, offset, bytes, in);
    /* SDM vol. 3 table 28-8: address size 9:7, segment 17:15. */
    info = (address == 2 ? 0 : address == 4 ? 1 : 2) << 7 | (u64)seg << 15;
    x86_intercept(cpu, X86_REASON_IO, qualification, (u32)length, linear, info);
    unimplemented(cpu);
}

u64 x86_helper_ins(struct x86_cpu *cpu, u64 what, u64 length)
{
    return string_io(cpu, what, length, true);
}

u64 x86_helper_outs(struct x86_cpu *cpu, u64 what, u64 length)
{
    return string_io(cpu, what, length, false);
}

/* --- MONITOR and MWAIT --- */

void x86_monitor(struct x86_cpu *cpu, u64 linear)
{
    u8 byte;

    cpu->common.memory->load(&cpu->common, linear, &byte, 1);
    cpu->monitor_armed = true;
}

u64 x86_helper_monitor(struct x86_cpu *cpu, u64 linear, u64 length)
{
    if (cpu->cpl || !x86_has(cpu, X86_FEATURE_MONITOR))
        x86_raise(cpu, X86_UD);
    if (cpu->gpr[X86_RCX] && !x86_exits_inside(cpu, X86_REASON_MONITOR, 0))
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_MONITOR, 0, (u32)length, linear, 0);
    x86_monitor(cpu, linear);
    return 0;
}

u64 x86_helper_mwait(struct x86_cpu *cpu, u64 length)
{
    if (cpu->cpl || !x86_has(cpu, X86_FEATURE_MONITOR))
        x86_raise(cpu, X86_UD);
    if (cpu->gpr[X86_RCX] & ~1ull && !x86_exits_inside(cpu, X86_REASON_MWAIT, 0))
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, X86_REASON_MWAIT, cpu->monitor_armed, (u32)length, 0, 0);
    /* An implementation may leave the wait at any time (SDM vol. 2 MWAIT): at once. */
    cpu->monitor_armed = false;
    return 0;
}

/* --- UMONITOR, UMWAIT and TPAUSE --- */

u64 x86_helper_umonitor(struct x86_cpu *cpu, u64 linear)
{
    if (!x86_has(cpu, X86_FEATURE_WAITPKG))
        x86_raise(cpu, X86_UD);
    x86_need_enabled(cpu, X86_REASON_UMONITOR);
    x86_monitor(cpu, linear);
    return 0;
}

u64 x86_helper_user_wait(struct x86_cpu *cpu, u64 reason, u64 reg, u64 length)
{
    if (!x86_has(cpu, X86_FEATURE_WAITPKG))
        x86_raise(cpu, X86_UD);
    x86_need_enabled(cpu, (u32)reason);
    if (cpu->cr4 & X86_CR4_TSD && cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    /* SDM vol. 3 table 28-16: register 6:3, 32 bits 12:11. */
    x86_intercept(cpu, (u32)reason, 0, (u32)length, 0, reg << 3 | 1u << 11);
    if ((u32)cpu->gpr[reg] & ~1u)
        x86_raise_error(cpu, X86_GP, 0);
    /* An implementation may leave these waits at any time, too: at once, long before the limit that
     * IA32_UMWAIT_CONTROL sets, which CF would report. */
    if (reason == X86_REASON_UMWAIT)
        cpu->monitor_armed = false;
    return 0;
}

/* --- RDRAND and RDSEED --- */

u64 x86_helper_random(struct x86_cpu *cpu, u64 reason, u64 info, u64 length)
{
    u64 value;

    if (!x86_has(cpu, reason == X86_REASON_RDRAND ? X86_FEATURE_RDRAND : X86_FEATURE_RDSEED))
        x86_raise(cpu, X86_UD);
    x86_intercept(cpu, (u32)reason, 0, (u32)length, 0, info);
    if (cpu->random_left < sizeof(value)) {
        entropy_fill(cpu->random, sizeof(cpu->random));
        cpu->random_left = sizeof(cpu->random);
    }
    cpu->random_left -= sizeof(value);
    memcpy(&value, cpu->random + cpu->random_left, sizeof(value));
    memset(cpu->random + cpu->random_left, 0, sizeof(value));
    return value;
}

/* --- VMX --- */

u64 x86_helper_vmcall(struct x86_cpu *cpu, u64 length)
{
    x86_intercept(cpu, X86_REASON_VMCALL, 0, (u32)length, 0, 0);
    x86_raise(cpu, X86_UD);
}

u64 x86_helper_vmx(struct x86_cpu *cpu, u64 reason_length, u64 info, u64 displacement, u64 linear)
{
    u32 reason = reason_length & 0xffff, length = (u32)(reason_length >> 16);

    if (reason == X86_REASON_VMREAD || reason == X86_REASON_VMWRITE)
        cpu->cr_operand = cpu->gpr[info >> 28 & 15] & (x86_code64(cpu) ? ~0ull : 0xffffffff);
    /* Outside VMX operation all but VMXON are #UD, and VMXON needs CR4.VMXE, which cannot be set
     * while CPUID does not offer VMX. VMFUNC is for guests in any mode. */
    if (!(cpu->cr4 & X86_CR4_VMXE) || !cpu->hooks->vmx)
        x86_raise(cpu, X86_UD);
    if (reason != X86_REASON_VMFUNC &&
        (!x86_protected(cpu) || x86_vm86(cpu) || (x86_long_mode(cpu) && !x86_code64(cpu))))
        x86_raise(cpu, X86_UD);
    x86_intercept(cpu, reason, displacement, length, linear, info);
    cpu->hooks->vmx(cpu, reason, info, linear, length);
    return 0;
}
