/* Exceptions and interrupts: raising them, and delivery through the IDT (SDM vol. 3 chapter 6). */
#include "guest/x86/driver.h"
#include "guest/x86/x86_internal.h"

static bool has_error_code(unsigned vector)
{
    return BIT(vector) & (BIT(X86_DF) | BIT(X86_TS) | BIT(X86_NP) | BIT(X86_SS_FAULT) |
                          BIT(X86_GP) | BIT(X86_PF) | BIT(X86_AC) | BIT(X86_CP));
}

void x86_raise_error(struct x86_cpu *cpu, u8 vector, u32 error)
{
    cpu->pending = (struct x86_event){
        .valid = true,
        .vector = vector,
        .type = X86_EVENT_HARDWARE,
        .has_error = has_error_code(vector),
        .error = error,
    };
    guest_leave(&cpu->common, X86_EXIT_EVENT);
}

void x86_raise(struct x86_cpu *cpu, u8 vector)
{
    x86_raise_error(cpu, vector, 0);
}

void x86_raise_pf(struct x86_cpu *cpu, u64 address, u32 error)
{
    cpu->pending = (struct x86_event){
        .valid = true,
        .vector = X86_PF,
        .type = X86_EVENT_HARDWARE,
        .has_error = true,
        .error = error,
        .payload = address,
        .has_payload = true,
    };
    guest_leave(&cpu->common, X86_EXIT_EVENT);
}

static struct x86_event debug_event(u64 dr6_bits)
{
    return (struct x86_event){
        .valid = true,
        .vector = X86_DB,
        .type = X86_EVENT_HARDWARE,
        .payload = dr6_bits,
        .has_payload = true,
    };
}

void x86_raise_debug(struct x86_cpu *cpu, u64 dr6_bits)
{
    cpu->pending = debug_event(dr6_bits);
    guest_leave(&cpu->common, X86_EXIT_EVENT);
}

/* What delivery works with. */
struct delivery {
    struct x86_cpu *cpu;
    const struct x86_event *event;
    u32 ext;   /* EXT bit of error codes for faults on the way */
    u64 rip;   /* to push */
    u64 flags; /* to push */
    bool trap; /* trap gate: IF stays */
    bool task; /* task gate */
    unsigned ist;
    u16 selector;
    u64 offset;
    unsigned width; /* of the gate */
    struct x86_seg cs;
    u64 cs_raw;
    u8 cpl; /* new */
};

static bool software(const struct x86_event *event)
{
    return event->type == X86_EVENT_SOFT_INT || event->type == X86_EVENT_SOFT_EXCEPTION;
}

/* #GP(vector * 8 + 2 + EXT): the error code names the IDT entry. */
static void gate_fault(struct delivery *d, u8 vector)
{
    x86_raise_error(d->cpu, vector, d->event->vector * 8u + 2 + d->ext);
}

static void read_gate(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;
    bool wide = x86_long_mode(cpu);
    u32 size = wide ? 16 : 8, offset = d->event->vector * size;
    u64 raw[2] = {0, 0}, gva = cpu->idtr.base + offset;
    unsigned type;

    if (offset + size - 1 > cpu->idtr.limit)
        gate_fault(d, X86_GP);
    x86_load_implicit(cpu, wide ? gva : (u32)gva, raw, size);
    type = bits(raw[0], 44, 40);
    if (wide ? (type & ~1u) != 14 || bits(raw[1], 44, 40)
             : type != 5 && (type & ~1u) != 6 && (type & ~1u) != 14)
        gate_fault(d, X86_GP);
    if (software(d->event) && bits(raw[0], 46, 45) < cpu->cpl)
        gate_fault(d, X86_GP);
    if (!(raw[0] & BIT(47)))
        gate_fault(d, X86_NP);
    d->selector = (u16)(raw[0] >> 16);
    d->task = type == 5;
    d->width = wide ? 8 : type & 8 ? 4 : 2;
    d->trap = type & 1;
    d->ist = wide ? bits(raw[0], 34, 32) : 0;
    d->offset = (raw[0] & 0xffff) | (d->width > 2 ? bits(raw[0], 63, 48) << 16 : 0);
    d->offset |= wide ? raw[1] << 32 : 0;
}

/* The handler's code segment, and with it the new privilege level. */
static void read_target(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;
    u32 error = (d->selector & 0xfffc) | d->ext;
    struct x86_descriptor desc;
    unsigned dpl;

    if (!(d->selector & 0xfffc))
        x86_raise_error(cpu, X86_GP, d->ext);
    if (!x86_read_descriptor(cpu, d->selector, false, &desc))
        x86_raise_error(cpu, X86_GP, error);
    d->cs = x86_unpack_descriptor(d->selector, desc.raw);
    d->cs_raw = desc.raw;
    dpl = X86_SEG_DPL(d->cs.access);
    if ((d->cs.access & (X86_SEG_S | 8)) != (X86_SEG_S | 8) || dpl > cpu->cpl)
        x86_raise_error(cpu, X86_GP, error);
    if (x86_long_mode(cpu) && (d->cs.access & (X86_SEG_L | X86_SEG_DB)) != X86_SEG_L)
        x86_raise_error(cpu, X86_GP, error);
    if (!(d->cs.access & X86_SEG_P))
        x86_raise_error(cpu, X86_NP, error);
    d->cpl = d->cs.access & 4 ? cpu->cpl : (u8)dpl; /* conforming code runs at the old level */
    if (x86_vm86(cpu) && d->cpl)
        x86_raise_error(cpu, X86_GP, error);
}

static void check_offset(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;

    if (x86_long_mode(cpu) ? !x86_canonical(cpu, d->offset) : d->offset > d->cs.limit)
        x86_raise_error(cpu, X86_GP, d->ext);
}

static void push_vm86_segments(struct x86_stack *s)
{
    static const u8 order[] = {X86_GS, X86_FS, X86_DS, X86_ES};

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        x86_push(s, s->cpu->seg[order[i]].selector);
}

static void drop_vm86_segments(struct x86_cpu *cpu)
{
    static const u8 regs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++)
        cpu->seg[regs[i]] = (struct x86_seg){.access = X86_SEG_UNUSABLE};
}

/* All that follows the last check. */
static void enter_handler(struct delivery *d, const struct x86_stack *s)
{
    struct x86_cpu *cpu = d->cpu;
    bool vm86 = x86_vm86(cpu);

    x86_set_accessed(cpu, d->selector, &d->cs_raw);
    d->cs.access |= 1;
    d->cs.selector = (u16)((d->selector & 0xfffc) | d->cpl);
    cpu->cpl = d->cpl;
    cpu->seg[X86_CS] = d->cs;
    cpu->seg[X86_SS] = s->ss;
    x86_stack_commit(s);
    if (vm86)
        drop_vm86_segments(cpu);
    cpu->eflags &= ~(X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_RF | X86_FLAG_VM);
    if (!d->trap)
        cpu->eflags &= ~X86_FLAG_IF;
    x86_set_rip(cpu, d->offset);
}

/* Answers whether a debug trap follows: the new task's, by a task gate. */
static bool deliver_protected(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;
    struct x86_stack s;
    bool inner;

    read_gate(d);
    if (d->task)
        return x86_task_gate(cpu, d->selector, d->event, d->rip, d->flags, d->ext);
    read_target(d);
    inner = d->cpl < cpu->cpl;
    if (inner || d->ist)
        x86_stack_from_tss(&s, cpu, d->cpl, d->ist, d->ext);
    else
        x86_stack_init(&s, cpu, d->width);
    if (!inner)
        s.ss = cpu->seg[X86_SS];
    s.width = d->width;
    s.system = d->cpl < 3;
    if (!inner)
        s.error = d->ext;
    if (x86_long_mode(cpu)) {
        s.code64 = true;
        s.mask = ~0ull;
        if (!inner && !d->ist && !x86_code64(cpu))
            s.sp = (u32)s.sp;
        s.sp &= ~15ull;
    }
    if (x86_vm86(cpu))
        push_vm86_segments(&s);
    if (inner || x86_long_mode(cpu)) {
        x86_push(&s, cpu->seg[X86_SS].selector);
        x86_push(&s, cpu->gpr[X86_RSP]);
    }
    x86_push(&s, d->flags);
    x86_push(&s, cpu->seg[X86_CS].selector);
    x86_push(&s, d->rip);
    if (d->event->has_error)
        x86_push(&s, d->event->error);
    check_offset(d);
    enter_handler(d, &s);
    return false;
}

/* Real mode, and virtual-8086 mode by redirection (SDM vol. 3 21.1.4, 21.3.3): @flags to push. */
static void deliver_real(struct delivery *d, u64 base, u32 limit, u64 flags)
{
    struct x86_cpu *cpu = d->cpu;
    u32 offset = d->event->vector * 4u;
    struct x86_stack s;
    u16 vector[2];

    if (offset + 3 > limit)
        gate_fault(d, X86_GP);
    x86_load_implicit(cpu, (u32)(base + offset), vector, 4);
    x86_stack_init(&s, cpu, 2);
    x86_push(&s, flags);
    x86_push(&s, cpu->seg[X86_CS].selector);
    x86_push(&s, d->rip);
    x86_stack_commit(&s);
    x86_load_segment_real(cpu, X86_CS, vector[1]);
    if (!x86_vm86(cpu)) {
        cpu->seg[X86_CS].access = (cpu->seg[X86_CS].access & ~15u) | 0xb;
        cpu->eflags &= ~(X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_RF | X86_FLAG_AC);
    }
    x86_set_rip(cpu, vector[0]);
}

/* Does INT n in virtual-8086 mode go to the 8086 program's own handler? (SDM vol. 3 table 21-2) */
static bool redirected(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;
    const struct x86_seg *tr = &cpu->seg[X86_TR];
    u32 byte = d->event->vector / 8u;
    u16 io_map = 0;
    u8 map = 0xff;

    if (!x86_vm86(cpu) || d->event->type != X86_EVENT_SOFT_INT || !(cpu->cr4 & X86_CR4_VME))
        return false;
    if (tr->limit < 103)
        x86_raise_error(cpu, X86_GP, 0);
    x86_load_implicit(cpu, (u32)(tr->base + 102), &io_map, 2);
    if (io_map < 32 || io_map - 32u + byte > tr->limit)
        x86_raise_error(cpu, X86_GP, 0);
    x86_load_implicit(cpu, (u32)(tr->base + io_map - 32 + byte), &map, 1);
    return !(map >> d->event->vector % 8 & 1);
}

static void deliver_redirected(struct delivery *d)
{
    struct x86_cpu *cpu = d->cpu;
    u64 flags = d->flags;

    if (x86_iopl(cpu) == 3) {
        deliver_real(d, 0, 0x3ff, flags);
        cpu->eflags &= ~(X86_FLAG_IF | X86_FLAG_TF);
        return;
    }
    flags = (flags & ~X86_FLAG_IF) | X86_FLAG_IOPL;
    if (flags & X86_FLAG_VIF)
        flags |= X86_FLAG_IF;
    deliver_real(d, 0, 0x3ff, flags);
    cpu->eflags &= ~(X86_FLAG_VIF | X86_FLAG_TF);
}

/* RF in the pushed image (SDM vol. 3 18.3.1.1): set for faults, so that an instruction breakpoint
 * does not hit again; but those breakpoints themselves leave it to their handler. */
u64 x86_flags_to_push(const struct x86_cpu *cpu, const struct x86_event *event)
{
    u64 flags = x86_rflags(cpu);
    bool fault = event->vector != X86_DF && event->vector != X86_MC;

    if (event->vector == X86_DB)
        fault = event->has_payload && event->payload & X86_DR6_BD;
    if (event->type == X86_EVENT_HARDWARE && fault)
        flags |= X86_FLAG_RF;
    else if (software(event) || event->type == X86_EVENT_ICEBP)
        flags &= ~X86_FLAG_RF;
    return flags;
}

static bool deliver(struct x86_cpu *cpu, const struct x86_event *event)
{
    struct delivery d = {.cpu = cpu, .event = event, .ext = !software(event)};

    d.rip = x86_rip(cpu);
    if (software(event) || event->type == X86_EVENT_ICEBP)
        d.rip += event->insn_len;
    if (!x86_code64(cpu))
        d.rip = (u32)d.rip;
    d.flags = x86_flags_to_push(cpu, event);
    if (!x86_protected(cpu))
        deliver_real(&d, cpu->idtr.base, cpu->idtr.limit, d.flags & ~X86_FLAG_RF);
    else if (redirected(&d))
        deliver_redirected(&d);
    else if (x86_vm86(cpu) && event->type == X86_EVENT_SOFT_INT && x86_iopl(cpu) < 3 &&
             !event->injected)
        x86_raise_error(cpu, X86_GP, 0);
    else
        return deliver_protected(&d);
    return false;
}

/* Effects outside the stack frame: CR2, DR6, NMI blocking. */
static void note_payload(struct x86_cpu *cpu, const struct x86_event *event)
{
    if (event->type == X86_EVENT_ICEBP && !event->injected) {
        cpu->dr[7] &= ~BIT(13); /* GD */
        cpu->msr_debugctl &= ~X86_DEBUGCTL_LBR;
    }
    if (!event->has_payload || event->type != X86_EVENT_HARDWARE)
        return;
    if (event->vector == X86_PF) {
        cpu->cr2 = event->payload;
    } else if (event->vector == X86_DB) {
        cpu->dr[6] = (cpu->dr[6] & ~0xfull) | event->payload;
        cpu->dr[7] &= ~BIT(13); /* GD */
        cpu->msr_debugctl &= ~(X86_DEBUGCTL_LBR | X86_DEBUGCTL_BTF);
    }
}

/* SDM vol. 3 table 6-4. */
static enum { BENIGN, CONTRIBUTORY, PAGE_FAULT } class_of(const struct x86_event *event)
{
    if (event->type != X86_EVENT_HARDWARE)
        return BENIGN;
    switch (event->vector) {
    case X86_PF:
    case X86_VE:
        return PAGE_FAULT;
    case X86_DE:
    case X86_TS:
    case X86_NP:
    case X86_SS_FAULT:
    case X86_GP:
    case X86_CP:
        return CONTRIBUTORY;
    }
    return BENIGN;
}

/* Delivery of @first faulted with cpu->pending (SDM vol. 3 table 6-5). */
int x86_combine(struct x86_cpu *cpu, const struct x86_event *first)
{
    unsigned was = class_of(first), is = class_of(&cpu->pending);

    if (first->type == X86_EVENT_HARDWARE && first->vector == X86_DF && is != BENIGN) {
        cpu->pending.valid = false;
        return -ESHUTDOWN;
    }
    if ((was == CONTRIBUTORY && is == CONTRIBUTORY) || (was == PAGE_FAULT && is != BENIGN)) {
        note_payload(cpu, &cpu->pending); /* CR2 is that of the second page fault */
        cpu->pending = (struct x86_event){
            .valid = true, .vector = X86_DF, .type = X86_EVENT_HARDWARE, .has_error = true};
    }
    return -EAGAIN;
}

/* A branch, if the CPU records them (SDM vol. 3 18.4.1). */
static void record_branch(struct x86_cpu *cpu, u64 from, u64 to)
{
    struct x86_lbr *lbr = &cpu->lbr;

    if (!(cpu->msr_debugctl & X86_DEBUGCTL_LBR))
        return;
    lbr->top = (lbr->top + 1) % X86_LBR_ENTRIES;
    lbr->from[lbr->top] = from;
    lbr->to[lbr->top] = to;
}

/* An exception or interrupt was delivered: one of the branches, and the end of those before it. */
static void record_delivery(struct x86_cpu *cpu, u64 from)
{
    struct x86_lbr *lbr = &cpu->lbr;

    if (!(cpu->msr_debugctl & X86_DEBUGCTL_LBR))
        return;
    lbr->exception_from = lbr->from[lbr->top];
    lbr->exception_to = lbr->to[lbr->top];
    record_branch(cpu, from, cpu->lip);
}

u64 x86_helper_record_branch(struct x86_cpu *cpu, u64 taken, u64 from, u64 to)
{
    if (taken)
        record_branch(cpu, from, to);
    return 0;
}

int x86_deliver_once(struct x86_cpu *cpu, const struct x86_event *wanted)
{
    const struct x86_event event = *wanted; /* it may be cpu->pending, which a fault overwrites */
    jmp_buf *outer = cpu->common.leave;
    /* What a load of SS has held back comes behind a software interrupt, and together with INT1. */
    volatile u32 held = software(&event) || event.type == X86_EVENT_ICEBP ? cpu->debug_hits : 0;
    const u64 from = cpu->lip;
    bool task_trap;
    jmp_buf here;

    cpu->debug_hits = 0;
    cpu->common.leave = &here;
    if (setjmp(here)) {
        cpu->common.leave = outer;
        cpu->delivering = false;
        cpu->debug_hits = 0;
        if (cpu->common.exit_code != X86_EXIT_EVENT)
            guest_leave(&cpu->common, cpu->common.exit_code);
        return -EAGAIN;
    }
    note_payload(cpu, &event);
    if (event.type == X86_EVENT_ICEBP && held) {
        cpu->dr[6] = (cpu->dr[6] & ~0xfull) | held;
        held = 0;
    }
    cpu->delivering = true;
    task_trap = deliver(cpu, &event);
    cpu->common.leave = outer;
    cpu->delivering = false;
    record_delivery(cpu, from);
    /* The delivery's own accesses meet data breakpoints as well: a trap before the handler's first
     * instruction. */
    held |= cpu->debug_hits;
    cpu->pending = debug_event(held | (task_trap ? X86_DR6_BT : 0));
    cpu->pending.valid = held || task_trap;
    cpu->debug_hits = 0;
    x86_clear_shadow(cpu);
    if (event.type == X86_EVENT_NMI)
        cpu->interruptibility |= X86_BLOCKED_BY_NMI;
    cpu->activity = X86_ACTIVE;
    x86_update(cpu);
    return 0;
}

int x86_deliver(struct x86_cpu *cpu, const struct x86_event *wanted)
{
    const struct x86_event event = *wanted;
    int ret = x86_deliver_once(cpu, &event);

    return ret == -EAGAIN ? x86_combine(cpu, &event) : ret;
}

u64 x86_helper_soft_interrupt(struct x86_cpu *cpu, u64 vector, u64 type, u64 length)
{
    cpu->pending = (struct x86_event){
        .valid = true,
        .vector = (u8)vector,
        .type = (u8)type,
        .insn_len = (u32)length,
    };
    guest_leave(&cpu->common, X86_EXIT_EVENT);
}

static bool resumes(const struct x86_cpu *cpu)
{
    return cpu->eflags & X86_FLAG_RF && cpu->lip == cpu->rf_lip;
}

void x86_code_breakpoint(struct x86_cpu *cpu)
{
    u64 hits = 0;

    if (resumes(cpu) || x86_interruptibility(cpu) & X86_SHADOW_MOV_SS)
        return;
    for (unsigned i = 0; i < 4; i++)
        if (cpu->dr[7] >> 2 * i & 3 && !(cpu->dr[7] >> (16 + 4 * i) & 15) && cpu->dr[i] == cpu->lip)
            hits |= BIT(i);
    if (hits)
        x86_raise_debug(cpu, hits);
}

u64 x86_helper_debug_begin(struct x86_cpu *cpu)
{
    x86_code_breakpoint(cpu);
    return 0;
}

u64 x86_helper_debugger_break(struct x86_cpu *cpu)
{
    struct x86_debugger *debugger = &cpu->debugger;

    for (unsigned i = 0; i < 4; i++)
        if (debugger->dr7 >> 2 * i & 3 && !(debugger->dr7 >> (16 + 4 * i) & 3) &&
            debugger->dr[i] == cpu->lip)
            debugger->hits |= 1u << i;
    if (debugger->hits)
        guest_leave(&cpu->common, X86_EXIT_DEBUGGER);
    return 0;
}

/* What of debug traps is due behind the instruction before lip, which began with @tf. With BTF only
 * those that branch are stepped (SDM vol. 3 18.4.3). */
static u64 traps_due(struct x86_cpu *cpu, bool tf, bool branched)
{
    bool stepped = tf && (branched || !(cpu->msr_debugctl & X86_DEBUGCTL_BTF));
    u64 due = cpu->debug_hits | (stepped ? X86_DR6_BS : 0);

    /* A load of SS holds breakpoints back until the next instruction is done (SDM vol. 3 6.8.3). */
    if (x86_interruptibility(cpu) & X86_SHADOW_MOV_SS)
        return 0;
    cpu->debug_hits = 0;
    return due;
}

u64 x86_helper_single_step(struct x86_cpu *cpu, u64 tf, u64 keep_rf, u64 next, u64 length)
{
    bool branched = (cpu->lip != next || length & STEP_TAKEN) && keep_rf != KEEP_RF_REPEAT;
    u64 due;

    if (!keep_rf || cpu->lip != cpu->rf_lip)
        cpu->eflags &= ~X86_FLAG_RF;
    if (branched)
        record_branch(cpu, next - (length & ~(u64)STEP_TAKEN), cpu->lip);
    due = traps_due(cpu, tf, branched);
    if (due)
        x86_raise_debug(cpu, due);
    return 0;
}

void x86_debug_trap(struct x86_cpu *cpu, bool again)
{
    u64 due;

    if (again)
        x86_between_iterations(cpu);
    else
        cpu->eflags &= ~X86_FLAG_RF;
    due = traps_due(cpu, cpu->eflags & X86_FLAG_TF, false);
    if (due)
        cpu->pending = debug_event(due);
}

void x86_debug_io(struct x86_cpu *cpu, u16 port, unsigned bytes)
{
    static const u8 lengths[] = {1, 2, 8, 4};

    if (!(cpu->cr4 & X86_CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        unsigned control = cpu->dr[7] >> (16 + 4 * i) & 15;
        u64 length = lengths[control >> 2], first = cpu->dr[i] & ~(length - 1);

        if (cpu->dr[7] >> 2 * i & 3 && (control & 3) == 2 && port < first + length &&
            first < (u64)port + bytes)
            cpu->debug_hits |= 1u << i;
    }
}
