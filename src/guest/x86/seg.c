/* Segment registers, LDTR and TR, and the instructions that look at descriptors (SDM vol. 3
 * chapter 3 and 5, vol. 2). */
#include "guest/x86/x86_internal.h"

/* System descriptor types (SDM vol. 3 table 3-2). */
enum {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_CALL16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_TSS32 = 9,
    TYPE_CALL32 = 12,
};

bool x86_read_descriptor(struct x86_cpu *cpu, u16 selector, bool wide, struct x86_descriptor *d)
{
    const struct x86_seg *ldt = &cpu->seg[X86_LDTR];
    u32 offset = selector & 0xfff8, limit = cpu->gdtr.limit;
    u64 base = cpu->gdtr.base;

    if (selector & 4) {
        if (ldt->access & X86_SEG_UNUSABLE)
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    if (offset + (wide ? 15 : 7) > limit)
        return false;
    base += offset;
    if (!x86_long_mode(cpu))
        base = (u32)base;
    d->high = 0;
    x86_load_implicit(cpu, base, d, wide ? 16 : 8);
    return true;
}

struct x86_seg x86_unpack_descriptor(u16 selector, u64 raw)
{
    struct x86_seg seg = {
        .base = bits(raw, 39, 16) | bits(raw, 63, 56) << 24,
        .limit = (u32)(bits(raw, 15, 0) | bits(raw, 51, 48) << 16),
        .access = raw >> 40 & 0xf0ff,
        .selector = selector,
    };

    if (seg.access & X86_SEG_G)
        seg.limit = seg.limit << 12 | 0xfff;
    return seg;
}

/* Linear address of the access byte of @selector's descriptor. */
static u64 access_byte(const struct x86_cpu *cpu, u16 selector)
{
    u64 base = selector & 4 ? cpu->seg[X86_LDTR].base : cpu->gdtr.base;

    base += (selector & 0xfff8) + 5;
    return x86_long_mode(cpu) ? base : (u32)base;
}

void x86_set_accessed(struct x86_cpu *cpu, u16 selector, u64 *raw)
{
    u8 access;

    if (*raw & BIT(40))
        return;
    *raw |= BIT(40);
    access = (u8)(*raw >> 40);
    x86_store_implicit(cpu, access_byte(cpu, selector), &access, 1);
}

struct x86_seg x86_null_ss(u16 selector, unsigned cpl)
{
    return (struct x86_seg){
        .selector = selector,
        .limit = 0xffffffff,
        .access = X86_SEG_UNUSABLE | X86_SEG_DB | X86_SEG_G | X86_SEG_P | X86_SEG_S | 3 | cpl << 5,
    };
}

void x86_load_segment_real(struct x86_cpu *cpu, unsigned reg, u16 selector)
{
    struct x86_seg *seg = &cpu->seg[reg];

    seg->selector = selector;
    seg->base = (u32)selector << 4;
    if (x86_vm86(cpu)) {
        seg->limit = 0xffff;
        seg->access = 0xf3;
    } else {
        /* Limit and size stay what they were: "unreal" mode lives on that. */
        seg->access = (seg->access & (X86_SEG_DB | X86_SEG_G)) | X86_SEG_P | X86_SEG_S | 3;
    }
}

static void load_ss(struct x86_cpu *cpu, u16 selector)
{
    u32 error = selector & 0xfffc, rpl = selector & 3;
    struct x86_descriptor d;
    struct x86_seg seg;

    if (!error) {
        if (!x86_code64(cpu) || cpu->cpl == 3 || rpl != cpu->cpl)
            x86_raise_error(cpu, X86_GP, 0);
        cpu->seg[X86_SS] = x86_null_ss(selector, cpu->cpl);
        return;
    }
    if (!x86_read_descriptor(cpu, selector, false, &d))
        x86_raise_error(cpu, X86_GP, error);
    seg = x86_unpack_descriptor(selector, d.raw);
    if (rpl != cpu->cpl || X86_SEG_DPL(seg.access) != cpu->cpl ||
        (seg.access & (X86_SEG_S | 0xa)) != (X86_SEG_S | 2))
        x86_raise_error(cpu, X86_GP, error);
    if (!(seg.access & X86_SEG_P))
        x86_raise_error(cpu, X86_SS_FAULT, error);
    x86_set_accessed(cpu, selector, &d.raw);
    cpu->seg[X86_SS] = x86_unpack_descriptor(selector, d.raw);
}

static void load_data(struct x86_cpu *cpu, unsigned reg, u16 selector)
{
    u32 error = selector & 0xfffc;
    struct x86_descriptor d;
    struct x86_seg seg;
    unsigned dpl;

    if (!error) {
        cpu->seg[reg] = (struct x86_seg){.selector = selector, .access = X86_SEG_UNUSABLE};
        return;
    }
    if (!x86_read_descriptor(cpu, selector, false, &d))
        x86_raise_error(cpu, X86_GP, error);
    seg = x86_unpack_descriptor(selector, d.raw);
    dpl = X86_SEG_DPL(seg.access);
    /* Data or readable code. */
    if (!(seg.access & X86_SEG_S) || (seg.access & 0xa) == 8)
        x86_raise_error(cpu, X86_GP, error);
    /* All but conforming code. */
    if ((seg.access & 0xc) != 0xc && (dpl < cpu->cpl || dpl < (selector & 3u)))
        x86_raise_error(cpu, X86_GP, error);
    if (!(seg.access & X86_SEG_P))
        x86_raise_error(cpu, X86_NP, error);
    x86_set_accessed(cpu, selector, &d.raw);
    cpu->seg[reg] = x86_unpack_descriptor(selector, d.raw);
}

void x86_load_segment(struct x86_cpu *cpu, unsigned reg, u16 selector)
{
    if (!x86_protected(cpu) || x86_vm86(cpu))
        x86_load_segment_real(cpu, reg, selector);
    else if (reg == X86_SS)
        load_ss(cpu, selector);
    else
        load_data(cpu, reg, selector);
    if (!x86_code64(cpu))
        x86_update_mode(cpu);
}

/* Reads @bytes of the TSS at @offset; #TS if they are beyond its limit. */
static u64 read_tss(struct x86_cpu *cpu, u32 offset, unsigned bytes, u32 ext)
{
    const struct x86_seg *tr = &cpu->seg[X86_TR];
    u64 value = 0, gva = tr->base + offset;

    if (offset + bytes - 1 > tr->limit)
        x86_raise_error(cpu, X86_TS, (tr->selector & 0xfffc) | ext);
    x86_load_implicit(cpu, x86_long_mode(cpu) ? gva : (u32)gva, &value, bytes);
    return value;
}

/* SS of an inner stack, with the checks of SDM vol. 2 CALL and INT. */
static struct x86_seg inner_ss(struct x86_cpu *cpu, u16 selector, unsigned dpl, u32 ext)
{
    u32 error = (selector & 0xfffc) | ext;
    struct x86_descriptor d;
    struct x86_seg seg;

    if (!(selector & 0xfffc))
        x86_raise_error(cpu, X86_TS, ext);
    if (!x86_read_descriptor(cpu, selector, false, &d))
        x86_raise_error(cpu, X86_TS, error);
    seg = x86_unpack_descriptor(selector, d.raw);
    if ((selector & 3u) != dpl || X86_SEG_DPL(seg.access) != dpl ||
        (seg.access & (X86_SEG_S | 0xa)) != (X86_SEG_S | 2))
        x86_raise_error(cpu, X86_TS, error);
    if (!(seg.access & X86_SEG_P))
        x86_raise_error(cpu, X86_SS_FAULT, error);
    x86_set_accessed(cpu, selector, &d.raw);
    return x86_unpack_descriptor(selector, d.raw);
}

void x86_stack_from_tss(struct x86_stack *s, struct x86_cpu *cpu, unsigned dpl, unsigned ist,
                        u32 ext)
{
    bool wide_tss = X86_SEG_TYPE(cpu->seg[X86_TR].access) & 8;
    u16 selector;

    *s = (struct x86_stack){.cpu = cpu, .error = ext, .mask = ~0ull, .code64 = true};
    if (x86_long_mode(cpu)) {
        s->sp = read_tss(cpu, ist ? 0x1c + 8 * ist : 4 + 8 * dpl, 8, ext);
        s->ss = x86_null_ss((u16)dpl, dpl);
        if (!x86_canonical(cpu, s->sp))
            x86_raise_error(cpu, X86_SS_FAULT, ext);
        return;
    }
    s->code64 = false;
    if (wide_tss) {
        s->sp = read_tss(cpu, 4 + 8 * dpl, 4, ext);
        selector = (u16)read_tss(cpu, 8 + 8 * dpl, 2, ext);
    } else {
        s->sp = read_tss(cpu, 2 + 4 * dpl, 2, ext);
        selector = (u16)read_tss(cpu, 4 + 4 * dpl, 2, ext);
    }
    s->ss = inner_ss(cpu, selector, dpl, ext);
    s->mask = s->ss.access & X86_SEG_DB ? 0xffffffff : 0xffff;
    s->error = (selector & 0xfffc) | ext;
}

u64 x86_segment_linear(struct x86_cpu *cpu, unsigned reg, u64 offset, unsigned bytes, bool write)
{
    const struct x86_seg *seg = &cpu->seg[reg];
    unsigned vector = reg == X86_SS ? X86_SS_FAULT : X86_GP;
    bool code = seg->access & 8;

    if (x86_code64(cpu)) {
        if (reg == X86_FS || reg == X86_GS)
            offset += seg->base;
        if (!x86_canonical(cpu, offset) || !x86_canonical(cpu, offset + bytes - 1))
            x86_raise_error(cpu, (u8)vector, 0);
        return offset;
    }
    if (seg->access & X86_SEG_UNUSABLE || !x86_within_limit(seg, (u32)offset, bytes))
        x86_raise_error(cpu, (u8)vector, 0);
    /* Read-only data or code; or code that may only be executed. Real mode does not care. */
    if (x86_protected(cpu) && !x86_vm86(cpu) &&
        (write ? code || !(seg->access & 2) : code && !(seg->access & 2)))
        x86_raise_error(cpu, (u8)vector, 0);
    return (u32)(seg->base + offset);
}

/* --- Helpers --- */

u64 x86_helper_load_segment(struct x86_cpu *cpu, u64 reg, u64 selector, u64 length)
{
    x86_load_segment(cpu, (unsigned)reg, (u16)selector);
    if (reg == X86_SS && length) {
        /* Two loads of SS in a row: only the first one's shadow counts (SDM vol. 3 6.8.3). */
        if (!(x86_interruptibility(cpu) & X86_SHADOW_MOV_SS)) {
            x86_clear_shadow(cpu);
            cpu->interruptibility |= X86_SHADOW_MOV_SS;
            cpu->shadow_lip = cpu->lip + length;
        }
    }
    return 0;
}

/* What LLDT and LTR load: the segment of a descriptor in the GDT whose type is in @types, a set of
 * BIT(TYPE_*). */
static struct x86_seg system_segment(struct x86_cpu *cpu, u16 selector, u64 types)
{
    u32 error = selector & 0xfffc;
    bool wide = x86_long_mode(cpu);
    struct x86_descriptor d;
    struct x86_seg seg;

    if (selector & 4 || !x86_read_descriptor(cpu, selector, wide, &d))
        x86_raise_error(cpu, X86_GP, error);
    seg = x86_unpack_descriptor(selector, d.raw);
    if (!(types & BIT(seg.access & (X86_SEG_S | 15))))
        x86_raise_error(cpu, X86_GP, error);
    if (!(seg.access & X86_SEG_P))
        x86_raise_error(cpu, X86_NP, error);
    seg.base |= d.high << 32;
    if (wide && !x86_canonical_any(cpu, seg.base))
        x86_raise_error(cpu, X86_GP, error);
    return seg;
}

u64 x86_helper_lldt(struct x86_cpu *cpu, u64 value)
{
    u16 selector = (u16)value;

    if (selector & 0xfffc)
        cpu->seg[X86_LDTR] = system_segment(cpu, selector, BIT(TYPE_LDT));
    else
        cpu->seg[X86_LDTR] =
            (struct x86_seg){.selector = selector, .access = X86_SEG_UNUSABLE | TYPE_LDT};
    return 0;
}

u64 x86_helper_ltr(struct x86_cpu *cpu, u64 value)
{
    u16 selector = (u16)value;
    struct x86_seg seg;
    u8 access;

    if (!(selector & 0xfffc))
        x86_raise_error(cpu, X86_GP, 0);
    seg =
        system_segment(cpu, selector, BIT(TYPE_TSS32) | (x86_long_mode(cpu) ? 0 : BIT(TYPE_TSS16)));
    seg.access |= 2; /* busy */
    access = (u8)seg.access;
    x86_store_implicit(cpu, access_byte(cpu, selector), &access, 1);
    cpu->seg[X86_TR] = seg;
    return 0;
}

/* May the program look at @selector with LAR, LSL, VERR, VERW? @system_types: bit n set if system
 * descriptors of type n are good for it. */
static bool inspect(struct x86_cpu *cpu, u16 selector, u32 system_types, struct x86_descriptor *d)
{
    unsigned dpl;

    if (!(selector & 0xfffc) || !x86_read_descriptor(cpu, selector, false, d))
        return false;
    dpl = bits(d->raw, 46, 45);
    if (!(d->raw & BIT(44))) {
        unsigned type = bits(d->raw, 43, 40);
        struct x86_descriptor whole;

        if (!(system_types >> type & 1))
            return false;
        /* The 16-byte form must lie within the limit and have type 0 in its upper half. */
        if (x86_long_mode(cpu) &&
            (!x86_read_descriptor(cpu, selector, true, &whole) || bits(whole.high, 44, 40)))
            return false;
    } else if (bits(d->raw, 43, 42) == 3) {
        return true; /* conforming code: any privilege */
    }
    return dpl >= cpu->cpl && dpl >= (selector & 3u);
}

u64 x86_helper_lar(struct x86_cpu *cpu, u64 selector)
{
    /* SDM vol. 2 LAR: types 1 2 3 4 5 9 11 12; in IA-32e mode 2 9 11 12. */
    u32 types = x86_long_mode(cpu) ? 0x1a04 : 0x1a3e;
    struct x86_descriptor d;

    if (!inspect(cpu, (u16)selector, types, &d))
        return 0;
    return BIT(63) | (d.raw >> 32 & 0x00f0ff00);
}

u64 x86_helper_lsl(struct x86_cpu *cpu, u64 selector)
{
    /* SDM vol. 2 LSL: types 1 2 3 9 11; in IA-32e mode 2 9 11. */
    u32 types = x86_long_mode(cpu) ? 0x0a04 : 0x0a0e;
    struct x86_descriptor d;

    if (!inspect(cpu, (u16)selector, types, &d))
        return 0;
    return BIT(63) | x86_unpack_descriptor((u16)selector, d.raw).limit;
}

u64 x86_helper_verr(struct x86_cpu *cpu, u64 selector)
{
    struct x86_descriptor d;

    /* Data, or code with the readable bit. */
    return inspect(cpu, (u16)selector, 0, &d) && (bits(d.raw, 43, 40) & 0xa) != 8;
}

u64 x86_helper_verw(struct x86_cpu *cpu, u64 selector)
{
    struct x86_descriptor d;

    return inspect(cpu, (u16)selector, 0, &d) && (bits(d.raw, 43, 40) & 0xa) == 2;
}

u64 x86_helper_descriptor_table(struct x86_cpu *cpu, u64 reason_length, u64 info, u64 qualification)
{
    u32 reason = (u32)reason_length;
    bool store = !(info >> 29 & 1); /* identities 0 and 1 store, 2 and 3 load */

    if (!store && cpu->cpl)
        x86_raise_error(cpu, X86_GP, 0);
    if (store && cpu->cpl && cpu->cr4 & X86_CR4_UMIP)
        x86_raise_error(cpu, X86_GP, 0);
    x86_intercept(cpu, reason, qualification, (u32)(reason_length >> 32), 0, info);
    return 0;
}

u64 x86_helper_load_table(struct x86_cpu *cpu, u64 which, u64 base, u64 limit)
{
    struct x86_table *table = which ? &cpu->idtr : &cpu->gdtr;

    if (x86_code64(cpu) && !x86_canonical_any(cpu, base))
        x86_raise_error(cpu, X86_GP, 0);
    table->base = base;
    table->limit = (u16)limit;
    return 0;
}
