/* Far JMP, CALL, RET and IRET (SDM vol. 1 6.4, vol. 2, vol. 3 5.8). Nothing is changed before the
 * last check has passed. */
#include "guest/x86/x86_internal.h"

enum { TYPE_CALL16 = 4, TYPE_TASK_GATE = 5, TYPE_CALL32 = 12 };

static bool is_code(const struct x86_seg *seg)
{
    return (seg->access & (X86_SEG_S | 8)) == (X86_SEG_S | 8);
}

static bool conforming(const struct x86_seg *seg)
{
    return seg->access & 4;
}

/* RIP is within CS: limit, or canonical in 64-bit code. */
static void check_rip(struct x86_cpu *cpu, const struct x86_seg *cs, u64 rip)
{
    bool code64 = x86_long_mode(cpu) && cs->access & X86_SEG_L;

    if (code64 ? !x86_canonical(cpu, rip) : rip > cs->limit)
        x86_raise_error(cpu, X86_GP, 0);
}

static u64 cut(u64 value, u64 bytes)
{
    return bytes == 8 ? value : value & mask_low((unsigned)bytes * 8);
}

/* Descriptor of a code segment to go to; #GP(selector) for what is none. */
static struct x86_seg read_code(struct x86_cpu *cpu, u16 selector, u64 *raw)
{
    struct x86_descriptor d;
    struct x86_seg seg;

    if (!(selector & 0xfffc))
        x86_raise_error(cpu, X86_GP, 0);
    if (!x86_read_descriptor(cpu, selector, false, &d))
        x86_raise_error(cpu, X86_GP, selector & 0xfffc);
    seg = x86_unpack_descriptor(selector, d.raw);
    *raw = d.raw;
    return seg;
}

static void check_present(struct x86_cpu *cpu, const struct x86_seg *seg)
{
    if (!(seg->access & X86_SEG_P))
        x86_raise_error(cpu, X86_NP, seg->selector & 0xfffc);
}

static void set_cs(struct x86_cpu *cpu, struct x86_seg *seg, u64 raw, u16 selector, u64 rip)
{
    x86_set_accessed(cpu, selector, &raw);
    seg->access |= 1;
    seg->selector = selector;
    cpu->seg[X86_CS] = *seg;
    x86_set_rip(cpu, rip);
}

static void load_cs_real(struct x86_cpu *cpu, u16 selector, u64 rip)
{
    struct x86_seg *cs = &cpu->seg[X86_CS];

    x86_load_segment_real(cpu, X86_CS, selector);
    if (!x86_vm86(cpu))
        cs->access = (cs->access & ~15u) | 0xb;
    x86_set_rip(cpu, rip);
    x86_update_far(cpu);
}

/* Checks a code segment named directly by JMP or CALL. */
static void check_direct(struct x86_cpu *cpu, const struct x86_seg *seg, u16 selector)
{
    unsigned dpl = X86_SEG_DPL(seg->access);
    u32 error = selector & 0xfffc;

    if (x86_long_mode(cpu) && (seg->access & (X86_SEG_L | X86_SEG_DB)) == (X86_SEG_L | X86_SEG_DB))
        x86_raise_error(cpu, X86_GP, error);
    if (conforming(seg) ? dpl > cpu->cpl : dpl != cpu->cpl || (selector & 3u) > cpu->cpl)
        x86_raise_error(cpu, X86_GP, error);
    check_present(cpu, seg);
}

struct gate {
    u64 offset;
    u16 selector;
    unsigned width; /* of what is pushed */
    unsigned params;
    struct x86_seg target;
    u64 raw;
    bool inner;
};

static void check_gate_access(struct x86_cpu *cpu, const struct x86_seg *seg)
{
    unsigned dpl = X86_SEG_DPL(seg->access);
    u32 error = seg->selector & 0xfffc;

    if (dpl < cpu->cpl || dpl < (seg->selector & 3u))
        x86_raise_error(cpu, X86_GP, error);
    check_present(cpu, seg);
}

/* A far transfer to a system descriptor: call gates are read into @gate; task switches leave. */
static void read_gate(struct x86_cpu *cpu, const struct x86_seg *seg, u64 raw, bool call,
                      u32 length, struct gate *gate)
{
    bool wide = x86_long_mode(cpu);
    unsigned type = X86_SEG_TYPE(seg->access), dpl;
    struct x86_descriptor d = {.raw = raw};
    u32 error = seg->selector & 0xfffc;

    if (!wide && (type == 1 || type == 9 || type == TYPE_TASK_GATE)) {
        check_gate_access(cpu, seg);
        x86_task_switch(cpu, type == TYPE_TASK_GATE ? (u16)(raw >> 16) : seg->selector,
                        call ? X86_TASK_CALL : X86_TASK_JMP, length);
    }
    if (type != TYPE_CALL32 && (wide || type != TYPE_CALL16))
        x86_raise_error(cpu, X86_GP, error);
    if (wide && (!x86_read_descriptor(cpu, seg->selector, true, &d) || bits(d.high, 44, 40)))
        x86_raise_error(cpu, X86_GP, error);
    check_gate_access(cpu, seg);
    gate->selector = (u16)(raw >> 16);
    gate->offset = (raw & 0xffff) | (type == TYPE_CALL16 ? 0 : bits(raw, 63, 48) << 16);
    gate->offset |= d.high << 32;
    gate->width = wide ? 8 : type == TYPE_CALL32 ? 4 : 2;
    gate->params = wide ? 0 : bits(raw, 36, 32);
    gate->target = read_code(cpu, gate->selector, &gate->raw);
    error = gate->selector & 0xfffc;
    dpl = X86_SEG_DPL(gate->target.access);
    if (!is_code(&gate->target) || dpl > cpu->cpl)
        x86_raise_error(cpu, X86_GP, error);
    if (wide && (gate->target.access & (X86_SEG_L | X86_SEG_DB)) != X86_SEG_L)
        x86_raise_error(cpu, X86_GP, error);
    gate->inner = !conforming(&gate->target) && dpl < cpu->cpl;
    if (gate->inner && !call)
        x86_raise_error(cpu, X86_GP, error);
    check_present(cpu, &gate->target);
}

u64 x86_helper_far_jmp(struct x86_cpu *cpu, u64 selector, u64 offset, u64 bytes, u64 length)
{
    struct x86_seg seg;
    struct gate gate;
    u64 raw;

    offset = cut(offset, bytes);
    if (!x86_protected(cpu) || x86_vm86(cpu)) {
        check_rip(cpu, &cpu->seg[X86_CS], offset);
        load_cs_real(cpu, (u16)selector, offset);
        return cpu->lip;
    }
    seg = read_code(cpu, (u16)selector, &raw);
    if (seg.access & X86_SEG_S) {
        if (!is_code(&seg))
            x86_raise_error(cpu, X86_GP, selector & 0xfffc);
        check_direct(cpu, &seg, (u16)selector);
    } else {
        read_gate(cpu, &seg, raw, false, (u32)length, &gate);
        seg = gate.target;
        raw = gate.raw;
        selector = gate.selector;
        offset = gate.offset;
    }
    check_rip(cpu, &seg, offset);
    set_cs(cpu, &seg, raw, (u16)((selector & 0xfffc) | cpu->cpl), offset);
    x86_update_far(cpu);
    return cpu->lip;
}

static void push_return(struct x86_stack *s, struct x86_cpu *cpu, u64 length)
{
    x86_push(s, cpu->seg[X86_CS].selector);
    x86_push(s, x86_rip(cpu) + length);
}

/* Through a call gate to an inner level: a new stack with the old one's pointer and parameters. */
static void call_inner(struct x86_cpu *cpu, struct gate *gate, u64 length)
{
    unsigned dpl = X86_SEG_DPL(gate->target.access);
    struct x86_stack s, old;
    u64 params[31];

    x86_stack_init(&old, cpu, gate->width);
    x86_stack_from_tss(&s, cpu, dpl, 0, 0);
    s.width = gate->width;
    s.system = true;
    for (unsigned i = 0; i < gate->params; i++)
        params[i] = x86_pop(&old);
    x86_push(&s, cpu->seg[X86_SS].selector);
    x86_push(&s, cpu->gpr[X86_RSP]);
    for (unsigned i = gate->params; i--;)
        x86_push(&s, params[i]);
    push_return(&s, cpu, length);
    check_rip(cpu, &gate->target, gate->offset);
    cpu->cpl = (u8)dpl;
    cpu->seg[X86_SS] = s.ss;
    x86_stack_commit(&s);
    set_cs(cpu, &gate->target, gate->raw, (u16)((gate->selector & 0xfffc) | dpl), gate->offset);
    x86_update_far(cpu);
}

u64 x86_helper_far_call(struct x86_cpu *cpu, u64 selector, u64 offset, u64 bytes, u64 length)
{
    struct x86_stack s;
    struct x86_seg seg;
    struct gate gate;
    u64 raw;

    offset = cut(offset, bytes);
    x86_stack_init(&s, cpu, (unsigned)bytes);
    if (!x86_protected(cpu) || x86_vm86(cpu)) {
        push_return(&s, cpu, length);
        check_rip(cpu, &cpu->seg[X86_CS], offset);
        x86_stack_commit(&s);
        load_cs_real(cpu, (u16)selector, offset);
        return cpu->lip;
    }
    seg = read_code(cpu, (u16)selector, &raw);
    if (seg.access & X86_SEG_S) {
        if (!is_code(&seg))
            x86_raise_error(cpu, X86_GP, selector & 0xfffc);
        check_direct(cpu, &seg, (u16)selector);
    } else {
        read_gate(cpu, &seg, raw, true, (u32)length, &gate);
        if (gate.inner) {
            call_inner(cpu, &gate, length);
            return cpu->lip;
        }
        seg = gate.target;
        raw = gate.raw;
        selector = gate.selector;
        offset = gate.offset;
        s.width = gate.width;
    }
    push_return(&s, cpu, length);
    check_rip(cpu, &seg, offset);
    x86_stack_commit(&s);
    set_cs(cpu, &seg, raw, (u16)((selector & 0xfffc) | cpu->cpl), offset);
    x86_update_far(cpu);
    return cpu->lip;
}

/* CS for a return to its RPL (RET and IRET alike). */
static struct x86_seg return_cs(struct x86_cpu *cpu, u16 selector, u64 *raw)
{
    struct x86_seg cs = read_code(cpu, selector, raw);
    unsigned rpl = selector & 3, dpl = X86_SEG_DPL(cs.access);

    if (!is_code(&cs) || rpl < cpu->cpl || (conforming(&cs) ? dpl > rpl : dpl != rpl))
        x86_raise_error(cpu, X86_GP, selector & 0xfffc);
    if (x86_long_mode(cpu) && (cs.access & (X86_SEG_L | X86_SEG_DB)) == (X86_SEG_L | X86_SEG_DB))
        x86_raise_error(cpu, X86_GP, selector & 0xfffc);
    check_present(cpu, &cs);
    return cs;
}

/* SS for a return to @cs at privilege @rpl. */
static struct x86_seg return_ss(struct x86_cpu *cpu, u16 selector, const struct x86_seg *cs,
                                unsigned rpl)
{
    bool code64 = x86_long_mode(cpu) && cs->access & X86_SEG_L;
    u32 error = selector & 0xfffc;
    struct x86_descriptor d;
    struct x86_seg ss;

    if (!error) {
        if (!code64 || rpl == 3 || (selector & 3u) != rpl)
            x86_raise_error(cpu, X86_GP, 0);
        return x86_null_ss(selector, rpl);
    }
    if (!x86_read_descriptor(cpu, selector, false, &d))
        x86_raise_error(cpu, X86_GP, error);
    ss = x86_unpack_descriptor(selector, d.raw);
    if ((selector & 3u) != rpl || X86_SEG_DPL(ss.access) != rpl ||
        (ss.access & (X86_SEG_S | 0xa)) != (X86_SEG_S | 2))
        x86_raise_error(cpu, X86_GP, error);
    if (!(ss.access & X86_SEG_P))
        x86_raise_error(cpu, X86_SS_FAULT, error);
    x86_set_accessed(cpu, selector, &d.raw);
    return x86_unpack_descriptor(selector, d.raw);
}

/* After a return to an outer level: data segments that it may not use become null. */
static void drop_inner_segments(struct x86_cpu *cpu)
{
    static const u8 regs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        struct x86_seg *seg = &cpu->seg[regs[i]];

        if (seg->access & X86_SEG_UNUSABLE) {
            /* Null already; only a selector's RPL bits may still stand there. */
            if (!(seg->selector & 0xfffc))
                continue;
        } else if (X86_SEG_DPL(seg->access) >= cpu->cpl || (is_code(seg) && conforming(seg))) {
            continue;
        }
        *seg = (struct x86_seg){.access = X86_SEG_UNUSABLE, .base = seg->base};
    }
}

/* RSP with the popped value, of which a 16-bit stack keeps 16 bits. */
static u64 outer_sp(const struct x86_cpu *cpu, const struct x86_seg *cs, const struct x86_seg *ss,
                    u64 sp)
{
    if (x86_long_mode(cpu) && cs->access & X86_SEG_L)
        return sp;
    return ss->access & X86_SEG_DB ? (u32)sp : (cpu->gpr[X86_RSP] & ~0xffffull) | (sp & 0xffff);
}

static u64 add_sp(const struct x86_cpu *cpu, u64 sp, u64 bytes)
{
    u64 mask = x86_stack_mask(cpu);

    return (sp & ~mask) | ((sp + bytes) & mask);
}

u64 x86_helper_far_ret(struct x86_cpu *cpu, u64 bytes, u64 release)
{
    struct x86_stack s;
    struct x86_seg cs, ss;
    u64 rip, sp, raw;
    u16 selector;

    x86_stack_init(&s, cpu, (unsigned)bytes);
    rip = x86_pop(&s);
    selector = (u16)x86_pop(&s);
    if (!x86_protected(cpu) || x86_vm86(cpu)) {
        check_rip(cpu, &cpu->seg[X86_CS], rip);
        cpu->gpr[X86_RSP] = add_sp(cpu, s.sp, release);
        load_cs_real(cpu, selector, rip);
        return cpu->lip;
    }
    cs = return_cs(cpu, selector, &raw);
    if ((selector & 3) == cpu->cpl) {
        check_rip(cpu, &cs, rip);
        cpu->gpr[X86_RSP] = add_sp(cpu, s.sp, release);
        set_cs(cpu, &cs, raw, selector, rip);
        x86_update_far(cpu);
        return cpu->lip;
    }
    s.sp = add_sp(cpu, s.sp, release);
    sp = x86_pop(&s);
    ss = return_ss(cpu, (u16)x86_pop(&s), &cs, selector & 3);
    check_rip(cpu, &cs, rip);
    sp = outer_sp(cpu, &cs, &ss, sp);
    cpu->cpl = selector & 3;
    set_cs(cpu, &cs, raw, selector, rip);
    cpu->seg[X86_SS] = ss;
    cpu->gpr[X86_RSP] = add_sp(cpu, sp, release);
    drop_inner_segments(cpu);
    x86_update_far(cpu);
    return cpu->lip;
}

/* Flags popped by IRET, those that the privilege does not allow as they were. */
static void pop_flags(struct x86_cpu *cpu, u64 flags, u64 writable)
{
    x86_set_rflags(cpu, (x86_rflags(cpu) & ~writable) | (flags & writable) | 2);
    x86_clear_shadow(cpu);
}

static void iret_real(struct x86_cpu *cpu, u64 bytes)
{
    u64 writable = x86_flags_writable(cpu, (unsigned)bytes) | (bytes > 2 ? X86_FLAG_RF : 0);
    struct x86_stack s;
    u64 rip, flags;
    u16 selector;
    bool vme = x86_vm86(cpu) && x86_iopl(cpu) < 3;

    if (vme && (!(cpu->cr4 & X86_CR4_VME) || bytes != 2))
        x86_raise_error(cpu, X86_GP, 0);
    x86_stack_init(&s, cpu, (unsigned)bytes);
    rip = x86_pop(&s);
    selector = (u16)x86_pop(&s);
    flags = x86_pop(&s);
    check_rip(cpu, &cpu->seg[X86_CS], rip);
    if (vme) {
        flags = x86_vme_flags(cpu, flags);
        writable |= X86_FLAG_VIF;
    }
    x86_stack_commit(&s);
    pop_flags(cpu, flags, writable);
    load_cs_real(cpu, selector, rip);
}

/* From protected mode at CPL 0 back to virtual-8086 mode. */
static void iret_to_vm86(struct x86_cpu *cpu, struct x86_stack *s, u64 eip, u16 cs, u64 flags)
{
    static const u8 order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
    u16 selectors[ARRAY_SIZE(order)];
    u64 esp = x86_pop(s);

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        selectors[i] = (u16)x86_pop(s);
    if (eip > 0xffff)
        x86_raise_error(cpu, X86_GP, 0);
    pop_flags(cpu, flags, ~0ull);
    cpu->cpl = 3;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        x86_load_segment_real(cpu, order[i], selectors[i]);
    cpu->gpr[X86_RSP] = (u32)esp;
    load_cs_real(cpu, cs, eip);
}

static void iret_protected(struct x86_cpu *cpu, u64 bytes, u64 length)
{
    bool long_mode = x86_long_mode(cpu), code64 = x86_code64(cpu), outer;
    u64 rip, flags, sp = 0, raw, writable;
    struct x86_seg cs, ss = {0};
    struct x86_stack s;
    u16 selector;

    if (cpu->eflags & X86_FLAG_NT) {
        u16 link = 0;

        if (long_mode)
            x86_raise_error(cpu, X86_GP, 0);
        x86_load_implicit(cpu, (u32)cpu->seg[X86_TR].base, &link, 2);
        x86_task_switch(cpu, link, X86_TASK_IRET, (u32)length);
    }
    x86_stack_init(&s, cpu, (unsigned)bytes);
    rip = x86_pop(&s);
    selector = (u16)x86_pop(&s);
    flags = x86_pop(&s);
    if (!long_mode && bytes == 4 && flags & X86_FLAG_VM && cpu->cpl == 0) {
        iret_to_vm86(cpu, &s, rip, selector, flags);
        return;
    }
    cs = return_cs(cpu, selector, &raw);
    outer = (selector & 3) != cpu->cpl;
    if (outer || code64) {
        sp = x86_pop(&s);
        ss = return_ss(cpu, (u16)x86_pop(&s), &cs, selector & 3);
        sp = outer_sp(cpu, &cs, &ss, sp);
    } else {
        sp = s.sp;
        ss = cpu->seg[X86_SS];
    }
    check_rip(cpu, &cs, rip);
    writable = x86_flags_writable(cpu, (unsigned)bytes);
    if (bytes > 2)
        writable |= X86_FLAG_RF;
    if (cpu->cpl == 0 && bytes > 2)
        writable |= X86_FLAG_VIF | X86_FLAG_VIP;
    pop_flags(cpu, flags, writable);
    cpu->cpl = selector & 3;
    set_cs(cpu, &cs, raw, selector, rip);
    cpu->seg[X86_SS] = ss;
    cpu->gpr[X86_RSP] = sp;
    if (outer)
        drop_inner_segments(cpu);
    x86_update_far(cpu);
}

u64 x86_helper_iret(struct x86_cpu *cpu, u64 bytes, u64 length)
{
    bool stepping = cpu->common.mode & X86_MODE_STEPPING, closed = !(cpu->eflags & X86_FLAG_IF);
    bool nmi = cpu->interruptibility & X86_BLOCKED_BY_NMI && !cpu->iret_keeps_nmi;
    u32 mode = cpu->common.mode;

    /* Unblocked before anything can fault (SDM vol. 3 6.7.1). */
    if (nmi)
        cpu->interruptibility &= ~(u32)X86_BLOCKED_BY_NMI;
    cpu->nmi_unblocked = nmi;
    if (!x86_protected(cpu) || x86_vm86(cpu))
        iret_real(cpu, bytes);
    else
        iret_protected(cpu, bytes, length);
    cpu->nmi_unblocked = false;
    cpu->rf_lip = cpu->lip;
    if (!stepping && (nmi || (closed && cpu->eflags & X86_FLAG_IF)))
        x86_check_events(cpu, mode, true);
    return cpu->lip;
}
