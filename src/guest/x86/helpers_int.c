/* Helpers of the general-purpose instructions, but for the repeated strings (rep.c). */
#include "guest/x86/cc.h"
#include "guest/x86/helpers.h"
#include "guest/x86/rows.h"
#include "guest/x86/x86_internal.h"

u64 x86_helper_cc_eflags(struct x86_cpu *cpu, u64 dst, u64 src, u64 src2, u64 op)
{
    (void)cpu;
    return x86_cc_eflags(dst, src, src2, op);
}

u64 x86_helper_cc_cf(struct x86_cpu *cpu, u64 dst, u64 src, u64 src2, u64 op)
{
    (void)cpu;
    return x86_cc_cf(dst, src, src2, op);
}

u64 x86_helper_cc_condition(struct x86_cpu *cpu, u64 dst, u64 src, u64 src2, u64 op)
{
    (void)cpu;
    return x86_cc_condition(op >> 8 & 15, dst, src, src2, op & 255);
}

/* RCL, RCR: the operand with the carry above it, size * 8 + 1 bits, rotated. */
static u128 rotated(u64 value, u64 count, u64 cf, u64 how)
{
    unsigned bits = (how & 255) * 8 + 1;
    u128 mask = ((u128)1 << bits) - 1;
    u128 v = (u128)cf << (bits - 1) | (value & mask_low(bits - 1));
    unsigned left = count % bits;

    if (how >> 8 && left)
        left = bits - left;
    return left ? (v << left | v >> (bits - left)) & mask : v;
}

u64 x86_helper_rotate_carry(struct x86_cpu *cpu, u64 value, u64 count, u64 cf, u64 how)
{
    (void)cpu;
    return (u64)rotated(value, count, cf, how) & mask_low((how & 255) * 8);
}

/* CF, and OF in bit 8. */
u64 x86_helper_rotate_carry_flags(struct x86_cpu *cpu, u64 value, u64 count, u64 cf, u64 how)
{
    unsigned bits = (how & 255) * 8;
    u128 v = rotated(value, count, cf, how);
    u64 carry = (u64)(v >> bits) & 1, top = (u64)(v >> (bits - 1)) & 1;
    u64 below = (u64)(v >> (bits - 2)) & 1;

    (void)cpu;
    return carry | (top ^ (how >> 8 ? below : carry)) << 8;
}

static u64 flags_of_byte(u8 v)
{
    return (v ? 0 : X86_FLAG_ZF) | (v & 0x80 ? X86_FLAG_SF : 0) |
           (__builtin_parity(v) ? 0 : X86_FLAG_PF);
}

/* DAA, DAS: answers AX | flags << 16. */
u64 x86_helper_decimal_adjust(struct x86_cpu *cpu, u64 ax, u64 flags, u64 subtract)
{
    u8 al = (u8)ax, old = al;
    bool old_cf = flags & X86_FLAG_CF, cf = false, af = false;

    (void)cpu;
    if ((al & 15) > 9 || flags & X86_FLAG_AF) {
        cf = old_cf || (subtract ? al < 6 : al > 0xff - 6);
        al = (u8)(subtract ? al - 6 : al + 6);
        af = true;
    }
    if (old > 0x99 || old_cf) {
        al = (u8)(subtract ? al - 0x60 : al + 0x60);
        cf = true;
    } else if (!subtract) {
        cf = false;
    }
    flags = flags_of_byte(al) | (cf ? X86_FLAG_CF : 0) | (af ? X86_FLAG_AF : 0);
    return (ax & 0xff00) | al | flags << 16;
}

/* AAA, AAS. */
u64 x86_helper_ascii_adjust(struct x86_cpu *cpu, u64 ax, u64 flags, u64 subtract)
{
    bool adjust = (ax & 15) > 9 || flags & X86_FLAG_AF;

    (void)cpu;
    if (adjust)
        ax = subtract ? ax - 0x106 : ax + 0x106;
    ax &= 0xff0f;
    flags = flags_of_byte((u8)ax) | (adjust ? X86_FLAG_CF | X86_FLAG_AF : 0);
    return ax | flags << 16;
}

/* CRC-32C, four bits at a time, reflected polynomial 82F63B78h. */
u64 x86_helper_crc32(struct x86_cpu *cpu, u64 crc, u64 value, u64 bytes)
{
    static const u32 table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    u32 c = (u32)crc;

    (void)cpu;
    for (unsigned i = 0; i < bytes * 2; i++, value >>= 4)
        c = c >> 4 ^ table[(c ^ value) & 15];
    return c;
}

u64 x86_helper_seg_linear(struct x86_cpu *cpu, u64 segment, u64 offset, u64 access)
{
    return x86_segment_linear(cpu, (unsigned)segment, offset, access & 255, access >> 8);
}

/* An operand outside the address space is the access's own fault. */
u64 x86_helper_check_alignment(struct x86_cpu *cpu, u64 linear, u64 bytes)
{
    struct x86_memory_operand m;

    if (!(linear & (bytes - 1)))
        return 0;
    if (x86_code64(cpu) && (!x86_canonical(cpu, linear) || !x86_canonical(cpu, linear + bytes - 1)))
        return 0;
    if (!x86_find_memory_operand(cpu, linear, &m) || !m.outside)
        x86_raise_error(cpu, X86_AC, 0);
    return 0;
}

u64 x86_helper_idiv64(struct x86_cpu *cpu, u64 high, u64 low, u64 divisor)
{
    s128 n = (s128)((u128)high << 64 | low), d = (s64)divisor, q;

    if (!d)
        x86_raise(cpu, X86_DE);
    if ((s64)high == (s64)low >> 63 && !(d == -1 && (s64)low == INT64_MIN))
        return (u64)((s64)low / (s64)divisor);
    /* -2^127 / -1 has no quotient in 128 bits either. */
    if (d == -1 && high == 1ull << 63 && !low)
        x86_raise(cpu, X86_DE);
    q = n / d;
    if (q != (s64)q)
        x86_raise(cpu, X86_DE);
    return (u64)q;
}

u64 x86_helper_lock_neg(struct x86_cpu *cpu, u64 gva, u64 bytes)
{
    struct guest_cpu *c = &cpu->common;
    u64 mask = mask_low((unsigned)bytes * 8), old = 0, seen;

    /* The first attempt finds the value, or with 0 is already right: 0 - 0 = 0. */
    for (;;) {
        seen = c->memory->atomic(c, gva, IR_acas, (unsigned)bytes, old, -old & mask) & mask;
        if (seen == old)
            return old;
        old = seen;
    }
}

/* Answers ZF. */
u64 x86_helper_cmpxchg16b(struct x86_cpu *cpu, u64 gva)
{
    u64 expected[2] = {cpu->gpr[X86_RAX], cpu->gpr[X86_RDX]};
    const u64 desired[2] = {cpu->gpr[X86_RBX], cpu->gpr[X86_RCX]};

    if (gva & 15)
        x86_raise_error(cpu, X86_GP, 0);
    if (cpu->common.memory->cas128(&cpu->common, gva, expected, desired))
        return 1;
    cpu->gpr[X86_RAX] = expected[0];
    cpu->gpr[X86_RDX] = expected[1];
    return 0;
}

/* For a row with @flags in a mode where x87, MMX or SSE may be off: #UD or #NM, or nothing.
 * SDM vol. 3 table 2-1 (2.5), 13.1, 14.1. */
u64 x86_helper_check_fpu(struct x86_cpu *cpu, u64 flags)
{
    if (flags & (X86_ROW_SSE | X86_ROW_SSEFP) &&
        (cpu->cr0 & X86_CR0_EM || !(cpu->cr4 & X86_CR4_OSFXSR)))
        x86_raise(cpu, X86_UD);
    if (flags & X86_ROW_MMX && cpu->cr0 & X86_CR0_EM)
        x86_raise(cpu, X86_UD);
    if (cpu->cr0 & (X86_CR0_TS | X86_CR0_EM))
        x86_raise(cpu, X86_NM);
    return 0;
}
