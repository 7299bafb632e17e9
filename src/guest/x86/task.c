/*
 * Task switches (SDM vol. 3 chapter 8). Everything that can fault in the old task is looked at
 * first; from the commit point on the CPU is in the new task, and what is wrong with its segments
 * is an exception of its own.
 */
#include "guest/x86/x86_internal.h"

enum { TYPE_LDT = 2, TSS_BUSY = 2, TSS_WIDE = 8 };

/* The dynamic part of a TSS (SDM vol. 3 figures 8-2 and 8-10): what is saved is a piece of it. */
struct layout {
    u32 min_limit;
    u32 saved, saved_bytes; /* EIP to the last selector */
    u32 eip, flags, gpr;
    u32 selectors; /* ES CS SS DS and, in the 32-bit one, FS GS */
    u32 ldt;
    unsigned width; /* of registers; selectors are as far apart */
    unsigned segments;
};

static const struct layout layout32 = {
    .min_limit = 0x67,
    .saved = 0x20,
    .saved_bytes = 0x40,
    .eip = 0x20,
    .flags = 0x24,
    .gpr = 0x28,
    .selectors = 0x48,
    .ldt = 0x60,
    .width = 4,
    .segments = 6,
};

static const struct layout layout16 = {
    .min_limit = 0x2b,
    .saved = 14,
    .saved_bytes = 28,
    .eip = 14,
    .flags = 16,
    .gpr = 18,
    .selectors = 34,
    .ldt = 42,
    .width = 2,
    .segments = 4,
};

enum { TSS_LINK = 0, TSS_CR3 = 0x1c, TSS_DEBUG_TRAP = 0x64 };

struct task_switch {
    struct x86_cpu *cpu;
    enum x86_task_source source;
    u16 selector;
    u32 ext;            /* EXT bit of error codes */
    struct x86_seg tss; /* the new one */
    u64 raw;            /* its descriptor, */
    u64 access;         /* the linear address of that one's access byte, */
    u64 old_access;     /* and of the old one's */
    const struct layout *from, *to;
};

/* What the new TSS holds. */
struct task_state {
    u32 cr3, eip, flags;
    u32 gpr[8];
    u16 selectors[6], ldt;
    bool debug_trap;
};

static NORETURN void fault(const struct task_switch *t, u8 vector, u16 selector)
{
    x86_raise_error(t->cpu, vector, (selector & 0xfffcu) | t->ext);
}

static const struct layout *layout_of(const struct x86_seg *tss)
{
    return tss->access & TSS_WIDE ? &layout32 : &layout16;
}

/* SDM vol. 3 table 8-1, up to the limit: faults of the old task. */
static void find_tss(struct task_switch *t)
{
    struct x86_cpu *cpu = t->cpu;
    bool back = t->source == X86_TASK_IRET;
    u8 vector = back ? X86_TS : X86_GP;
    struct x86_descriptor d;

    if (t->selector & 4 || !(t->selector & 0xfffc) ||
        !x86_read_descriptor(cpu, t->selector, false, &d))
        fault(t, vector, t->selector);
    t->raw = d.raw;
    t->tss = x86_unpack_descriptor(t->selector, d.raw);
    /* Available (types 1, 9), or for a return busy (3, 11). */
    if ((t->tss.access & (X86_SEG_S | 5)) != 1 || !!(t->tss.access & TSS_BUSY) != back)
        fault(t, vector, t->selector);
    if (!(t->tss.access & X86_SEG_P))
        fault(t, X86_NP, t->selector);
    t->to = layout_of(&t->tss);
    if (t->tss.limit < t->to->min_limit)
        fault(t, X86_TS, t->selector);
}

static void reach(struct x86_cpu *cpu, u64 gva, unsigned bytes, enum guest_access access)
{
    struct guest_page page;

    x86_walk(&cpu->common, (u32)gva, access, true, false, &page);
    if ((gva & 4095) + bytes > 4096)
        x86_walk(&cpu->common, (u32)(gva + bytes - 1), access, true, false, &page);
}

/* Is all of it mapped? Page faults come before anything is changed. */
static void reach_memory(struct task_switch *t)
{
    struct x86_cpu *cpu = t->cpu;
    const struct x86_seg *old = &cpu->seg[X86_TR];
    bool nests = t->source == X86_TASK_CALL || t->source == X86_TASK_GATE;

    t->from = layout_of(old);
    if (old->limit < t->from->saved + t->from->saved_bytes - 1)
        fault(t, X86_TS, old->selector);
    reach(cpu, old->base + t->from->saved, t->from->saved_bytes, GUEST_WRITE);
    reach(cpu, t->tss.base, t->to->min_limit + 1, GUEST_READ);
    if (nests)
        reach(cpu, t->tss.base + TSS_LINK, 2, GUEST_WRITE);
    t->access = cpu->gdtr.base + (t->selector & 0xfff8u) + 5;
    t->old_access = cpu->gdtr.base + (old->selector & 0xfff8u) + 5;
    if (t->source != X86_TASK_IRET)
        reach(cpu, t->access, 1, GUEST_WRITE);
    if (!nests)
        reach(cpu, t->old_access, 1, GUEST_WRITE);
}

static u32 load(struct x86_cpu *cpu, const struct x86_seg *tss, u32 offset, unsigned bytes)
{
    u32 value = 0;

    x86_load_implicit(cpu, (u32)(tss->base + offset), &value, bytes);
    return value;
}

static void store(struct x86_cpu *cpu, const struct x86_seg *tss, u32 offset, u64 value,
                  unsigned bytes)
{
    x86_store_implicit(cpu, (u32)(tss->base + offset), &value, bytes);
}

static void set_busy(struct x86_cpu *cpu, u64 at, bool busy)
{
    u8 access;

    x86_load_implicit(cpu, (u32)at, &access, 1);
    access = busy ? access | TSS_BUSY : access & ~TSS_BUSY;
    x86_store_implicit(cpu, (u32)at, &access, 1);
}

static void save_old(const struct task_switch *t, u64 rip, u64 flags)
{
    struct x86_cpu *cpu = t->cpu;
    const struct x86_seg *old = &cpu->seg[X86_TR];
    const struct layout *l = t->from;

    store(cpu, old, l->eip, rip, l->width);
    store(cpu, old, l->flags, flags, l->width);
    for (unsigned i = 0; i < 8; i++)
        store(cpu, old, l->gpr + i * l->width, cpu->gpr[i], l->width);
    for (unsigned i = 0; i < l->segments; i++)
        store(cpu, old, l->selectors + i * l->width, cpu->seg[X86_ES + i].selector, 2);
}

static struct task_state load_new(const struct task_switch *t)
{
    struct x86_cpu *cpu = t->cpu;
    const struct layout *l = t->to;
    struct task_state s = {
        .eip = load(cpu, &t->tss, l->eip, l->width),
        .flags = load(cpu, &t->tss, l->flags, l->width),
        .ldt = (u16)load(cpu, &t->tss, l->ldt, 2),
    };

    for (unsigned i = 0; i < 8; i++)
        s.gpr[i] =
            load(cpu, &t->tss, l->gpr + i * l->width, l->width) | (l->width == 2 ? 0xffff0000 : 0);
    for (unsigned i = 0; i < l->segments; i++)
        s.selectors[i] = (u16)load(cpu, &t->tss, l->selectors + i * l->width, 2);
    if (l->width == 4) {
        s.cr3 = load(cpu, &t->tss, TSS_CR3, 4);
        s.debug_trap = load(cpu, &t->tss, TSS_DEBUG_TRAP, 1) & 1;
    }
    return s;
}

/* --- The new task's segments (SDM vol. 3 table 8-1, behind the commit point) --- */

static void load_ldtr(const struct task_switch *t, u16 selector)
{
    struct x86_cpu *cpu = t->cpu;
    struct x86_descriptor d;
    struct x86_seg seg;

    if (!(selector & 0xfffc))
        return;
    if (selector & 4 || !x86_read_descriptor(cpu, selector, false, &d))
        fault(t, X86_TS, selector);
    seg = x86_unpack_descriptor(selector, d.raw);
    if ((seg.access & (X86_SEG_P | X86_SEG_S | 15)) != (X86_SEG_P | TYPE_LDT))
        fault(t, X86_TS, selector);
    cpu->seg[X86_LDTR] = seg;
}

static struct x86_descriptor read_segment(const struct task_switch *t, u16 selector)
{
    struct x86_descriptor d;

    if (!(selector & 0xfffc) || !x86_read_descriptor(t->cpu, selector, false, &d))
        fault(t, X86_TS, selector);
    return d;
}

static void use_segment(const struct task_switch *t, unsigned reg, u16 selector,
                        struct x86_descriptor *d)
{
    x86_set_accessed(t->cpu, selector, &d->raw);
    t->cpu->seg[reg] = x86_unpack_descriptor(selector, d->raw);
}

static void load_ss(const struct task_switch *t, u16 selector)
{
    struct x86_descriptor d = read_segment(t, selector);
    struct x86_seg seg = x86_unpack_descriptor(selector, d.raw);
    unsigned cpl = t->cpu->cpl;

    if ((seg.access & (X86_SEG_S | 0xa)) != (X86_SEG_S | 2) || X86_SEG_DPL(seg.access) != cpl ||
        (selector & 3u) != cpl)
        fault(t, X86_TS, selector);
    if (!(seg.access & X86_SEG_P))
        fault(t, X86_SS_FAULT, selector);
    use_segment(t, X86_SS, selector, &d);
}

static void load_cs(const struct task_switch *t, u16 selector)
{
    struct x86_descriptor d = read_segment(t, selector);
    struct x86_seg seg = x86_unpack_descriptor(selector, d.raw);
    unsigned rpl = selector & 3, dpl = X86_SEG_DPL(seg.access);

    if ((seg.access & (X86_SEG_S | 8)) != (X86_SEG_S | 8) ||
        (seg.access & 4 ? dpl > rpl : dpl != rpl))
        fault(t, X86_TS, selector);
    if (!(seg.access & X86_SEG_P))
        fault(t, X86_NP, selector);
    use_segment(t, X86_CS, selector, &d);
}

static void load_data(const struct task_switch *t, unsigned reg, u16 selector)
{
    unsigned dpl, cpl = t->cpu->cpl;
    struct x86_descriptor d;
    struct x86_seg seg;

    if (!(selector & 0xfffc))
        return;
    d = read_segment(t, selector);
    seg = x86_unpack_descriptor(selector, d.raw);
    dpl = X86_SEG_DPL(seg.access);
    if (!(seg.access & X86_SEG_S) || (seg.access & 0xa) == 8 ||
        ((seg.access & 0xc) != 0xc && (dpl < cpl || dpl < (selector & 3u))))
        fault(t, X86_TS, selector);
    if (!(seg.access & X86_SEG_P))
        fault(t, X86_NP, selector);
    use_segment(t, reg, selector, &d);
}

static void load_segments(const struct task_switch *t, const struct task_state *s)
{
    static const u8 data[] = {X86_DS, X86_ES, X86_FS, X86_GS};
    struct x86_cpu *cpu = t->cpu;

    load_ldtr(t, s->ldt);
    if (x86_vm86(cpu)) {
        for (unsigned i = X86_ES; i <= X86_GS; i++)
            x86_load_segment_real(cpu, i, s->selectors[i]);
    } else {
        load_ss(t, s->selectors[X86_SS]);
        load_cs(t, s->selectors[X86_CS]);
        for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
            load_data(t, data[i], s->selectors[data[i]]);
    }
    x86_set_rip(cpu, s->eip);
    cpu->rf_lip = cpu->lip;
    x86_update(cpu);
}

/* The commit point: from here on the CPU is in the new task. */
static void commit(struct task_switch *t, const struct task_state *s)
{
    struct x86_cpu *cpu = t->cpu;
    u32 flags = s->flags;

    t->tss.access |= TSS_BUSY;
    cpu->seg[X86_TR] = t->tss;
    cpu->cr0 |= X86_CR0_TS;
    cpu->dr[7] &= ~0x155ull; /* the local breakpoints */
    if (t->source == X86_TASK_CALL || t->source == X86_TASK_GATE)
        flags |= X86_FLAG_NT;
    x86_set_rflags(cpu, flags);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = s->gpr[i];
    /* Until their descriptors are there, registers hold the selectors alone. */
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        cpu->seg[i] =
            (struct x86_seg){.selector = s->selectors[i], .access = X86_SEG_UNUSABLE | X86_SEG_DB};
    cpu->seg[X86_LDTR] =
        (struct x86_seg){.selector = s->ldt, .access = X86_SEG_UNUSABLE | TYPE_LDT};
    cpu->cpl = flags & X86_FLAG_VM ? 3 : s->selectors[X86_CS] & 3;
    cpu->lip = s->eip;
    x86_clear_shadow(cpu);
    cpu->nmi_unblocked = false;
    cpu->debug_hits = 0;
    cpu->activity = X86_ACTIVE;
    x86_update(cpu);
    if (t->to->width == 4 && cpu->cr0 & X86_CR0_PG && !x86_write_cr3(cpu, s->cr3, true))
        x86_raise_error(cpu, X86_GP, t->ext);
}

/* Answers whether the new task's debug trap flag is set. @rip, @flags: what the old one saves. */
static bool switch_task(struct task_switch *t, u64 rip, u64 flags, u32 insn_len,
                        const struct x86_event *event)
{
    struct x86_cpu *cpu = t->cpu;
    struct task_state s;

    find_tss(t);
    x86_intercept(cpu, X86_REASON_TASK_SWITCH, t->selector | (u64)t->source << 30, insn_len, 0, 0);
    reach_memory(t);
    if (t->source == X86_TASK_IRET)
        flags &= ~X86_FLAG_NT;
    save_old(t, rip, flags);
    s = load_new(t);
    if (t->source == X86_TASK_IRET || t->source == X86_TASK_JMP)
        set_busy(cpu, t->old_access, false);
    else
        store(cpu, &t->tss, TSS_LINK, cpu->seg[X86_TR].selector, 2);
    if (t->source != X86_TASK_IRET)
        set_busy(cpu, t->access, true);
    commit(t, &s);
    load_segments(t, &s);
    if (event && event->has_error) {
        struct x86_stack stack;

        x86_stack_init(&stack, cpu, t->to->width);
        stack.error = t->ext;
        x86_push(&stack, event->error);
        x86_stack_commit(&stack);
    }
    if (x86_rip(cpu) > cpu->seg[X86_CS].limit)
        x86_raise_error(cpu, X86_GP, t->ext);
    return s.debug_trap;
}

void x86_task_switch(struct x86_cpu *cpu, u16 selector, enum x86_task_source source, u32 insn_len)
{
    struct task_switch t = {.cpu = cpu, .source = source, .selector = selector};
    u64 rip = (u32)(x86_rip(cpu) + insn_len), flags = x86_rflags(cpu) & ~X86_FLAG_RF;
    bool trap;

    trap = switch_task(&t, rip, flags, insn_len, NULL);
    x86_pmu_retired(cpu, ~0u, true);
    if (trap)
        x86_raise_debug(cpu, X86_DR6_BT);
    guest_leave(&cpu->common, X86_EXIT_HALT_CHECK);
}

bool x86_task_gate(struct x86_cpu *cpu, u16 selector, const struct x86_event *event, u64 rip,
                   u64 flags, u32 ext)
{
    struct task_switch t = {.cpu = cpu, .source = X86_TASK_GATE, .selector = selector, .ext = ext};

    return switch_task(&t, rip, flags, event->insn_len, event);
}
