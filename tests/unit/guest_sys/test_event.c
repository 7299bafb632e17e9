/* Delivery of exceptions and interrupts: frames in every mode, checks of gates, code and stack
 * segments with their error codes, double and triple faults. */
#include "fixture.h"

#define HANDLER 0x00123456u
#define STACK 0x8000u

static struct x86_event software(u8 vector, u8 type, u32 len)
{
    return (struct x86_event){.valid = true, .vector = vector, .type = type, .insn_len = len};
}

static void set_gate(struct fixture *f, u8 vector, u8 type, unsigned dpl, u16 selector, u64 offset)
{
    bool wide = f->cpu.efer & X86_EFER_LMA;
    u64 at = IDT_BASE + vector * (wide ? 16 : 8);

    *ram64(f, at) = (offset & 0xffff) | (u64)selector << 16 | (u64)type << 40 | (u64)dpl << 45 |
                    BIT(47) | (offset >> 16 & 0xffff) << 48;
    if (wide)
        *ram64(f, at + 8) = offset >> 32;
}

static void start(struct fixture *f, u64 rip)
{
    f->cpu.gpr[X86_RSP] = STACK;
    x86_set_rip(&f->cpu, rip);
}

static int deliver(struct fixture *f, struct x86_event event)
{
    volatile int result = -1;

    assert_int_equal(TRY(f, result = x86_deliver(&f->cpu, &event)), 0);
    return result;
}

static void assert_delivery_fault(struct fixture *f, struct x86_event event, u8 vector, u32 error)
{
    struct x86_cpu before = f->cpu;

    assert_int_equal(deliver(f, event), -EAGAIN);
    assert_fault(f, vector, error);
    /* Nothing of the state moved. */
    assert_int_equal(f->cpu.lip, before.lip);
    assert_int_equal(f->cpu.gpr[X86_RSP], before.gpr[X86_RSP]);
    assert_int_equal(f->cpu.cpl, before.cpl);
    assert_int_equal(x86_rflags(&f->cpu), x86_rflags(&before));
    assert_memory_equal(f->cpu.seg, before.seg, sizeof(before.seg));
}

static void test_real_mode(void **state)
{
    struct fixture *f = *state;

    enter_real(f);
    x86_load_segment_real(&f->cpu, X86_CS, 0x100);
    x86_load_segment_real(&f->cpu, X86_SS, 0x200);
    start(f, 0x34);
    x86_set_rflags(&f->cpu, 2 | X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_CF);
    *ram32(f, 0x21 * 4) = 0xabcd1234;
    assert_int_equal(deliver(f, software(0x21, X86_EVENT_SOFT_INT, 2)), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], STACK - 6);
    assert_int_equal(*ram16(f, 0x2000 + STACK - 2), 2 | X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_CF);
    assert_int_equal(*ram16(f, 0x2000 + STACK - 4), 0x100);
    assert_int_equal(*ram16(f, 0x2000 + STACK - 6), 0x36);
    assert_int_equal(f->cpu.seg[X86_CS].selector, 0xabcd);
    assert_int_equal(f->cpu.lip, 0xabcd0 + 0x1234);
    assert_int_equal(f->cpu.eflags & (X86_FLAG_IF | X86_FLAG_TF), 0);

    /* Beyond the IVT's limit; an error code is never pushed in real mode. */
    f->cpu.idtr.limit = 0x21 * 4 + 2;
    assert_int_equal(deliver(f, software(0x21, X86_EVENT_SOFT_INT, 2)), -EAGAIN);
    assert_int_equal(f->cpu.pending.vector, X86_GP);
}

static void test_protected_same_level(void **state)
{
    struct fixture *f = *state;

    enter_protected(f);
    start(f, 0x1000);
    x86_set_rflags(&f->cpu, 2 | X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_AC);
    set_gate(f, X86_GP, 14, 0, SEL_CODE0, HANDLER);
    assert_int_equal(deliver(f, hardware(X86_GP, true, 0x1234)), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], STACK - 16);
    assert_int_equal(*ram32(f, STACK - 16), 0x1234);
    assert_int_equal(*ram32(f, STACK - 12), 0x1000);
    assert_int_equal(*ram32(f, STACK - 8), SEL_CODE0);
    /* A fault pushes RF. */
    assert_int_equal(*ram32(f, STACK - 4),
                     2 | X86_FLAG_IF | X86_FLAG_TF | X86_FLAG_NT | X86_FLAG_AC | X86_FLAG_RF);
    assert_int_equal(f->cpu.lip, HANDLER);
    assert_int_equal(f->cpu.eflags, 2 | X86_FLAG_AC);

    /* Trap gate: IF stays. External interrupts and traps push RF as it is. */
    start(f, 0x1000);
    x86_set_rflags(&f->cpu, 2 | X86_FLAG_IF);
    set_gate(f, 0x30, 15, 0, SEL_CODE0, HANDLER);
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30, .type = X86_EVENT_EXTERNAL}), 0);
    assert_int_equal(f->cpu.eflags, 2 | X86_FLAG_IF);
    assert_int_equal(*ram32(f, STACK - 4), 2 | X86_FLAG_IF);

    /* 16-bit gate: words, and 16 bits of offset. */
    start(f, 0x1000);
    set_gate(f, 0x30, 6, 0, SEL_CODE0, HANDLER);
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30, .type = X86_EVENT_EXTERNAL}), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], STACK - 6);
    assert_int_equal(*ram16(f, STACK - 6), 0x1000);
    assert_int_equal(f->cpu.lip, HANDLER & 0xffff);
}

static void test_protected_inner(void **state)
{
    struct fixture *f = *state;

    enter_protected(f);
    set_cpl(f, 3);
    start(f, 0x1000);
    *ram32(f, TSS_BASE + 4) = 0x7000;
    *ram32(f, TSS_BASE + 8) = SEL_DATA0;
    set_gate(f, X86_PF, 14, 0, SEL_CODE0, HANDLER);
    struct x86_event pf = hardware(X86_PF, true, 6);
    pf.payload = 0xdeadb000;
    pf.has_payload = true;
    assert_int_equal(deliver(f, pf), 0);
    assert_int_equal(f->cpu.cr2, 0xdeadb000);
    assert_int_equal(f->cpu.cpl, 0);
    assert_int_equal(f->cpu.seg[X86_CS].selector, SEL_CODE0);
    assert_int_equal(f->cpu.seg[X86_SS].selector, SEL_DATA0);
    assert_int_equal(f->cpu.gpr[X86_RSP], 0x7000 - 24);
    assert_int_equal(*ram32(f, 0x7000 - 4), SEL_DATA3);
    assert_int_equal(*ram32(f, 0x7000 - 8), STACK);
    assert_int_equal(*ram32(f, 0x7000 - 16), SEL_CODE3);
    assert_int_equal(*ram32(f, 0x7000 - 20), 0x1000);
    assert_int_equal(*ram32(f, 0x7000 - 24), 6);
    assert_int_equal(f->cpu.common.mode & X86_MODE_CPL_MASK, 0);

    /* Conforming handler: stays at CPL 3 on the same stack. */
    set_cpl(f, 3);
    start(f, 0x1000);
    set_gate(f, X86_DE, 15, 0, SEL_CONFORM0, HANDLER);
    assert_int_equal(deliver(f, hardware(X86_DE, false, 0)), 0);
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.gpr[X86_RSP], STACK - 12);
    assert_int_equal(f->cpu.seg[X86_CS].selector, SEL_CONFORM0 | 3);
}

/* The checks in SDM vol. 2 INT n, with their error codes: EXT is 0 for software interrupts. */
static void test_gate_checks(void **state)
{
    struct fixture *f = *state;
    struct x86_event irq = {.vector = 0x30, .type = X86_EVENT_EXTERNAL};
    struct x86_event swi = software(0x30, X86_EVENT_SOFT_INT, 2);
    struct x86_event bp = software(0x30, X86_EVENT_SOFT_EXCEPTION, 1);
    const u32 idt = 0x30 * 8 + 2;

    enter_protected(f);
    set_cpl(f, 3);
    start(f, 0x1000);
    *ram32(f, TSS_BASE + 4) = 0x7000;
    *ram32(f, TSS_BASE + 8) = SEL_DATA0;

    f->cpu.idtr.limit = 0x30 * 8 + 6;
    assert_delivery_fault(f, irq, X86_GP, idt + 1);
    assert_delivery_fault(f, swi, X86_GP, idt);
    f->cpu.idtr.limit = 0x7ff;
    set_gate(f, 0x30, 12, 3, SEL_CODE0, HANDLER); /* a call gate */
    assert_delivery_fault(f, irq, X86_GP, idt + 1);
    set_gate(f, 0x30, 14, 0, SEL_CODE0, HANDLER);
    assert_delivery_fault(f, swi, X86_GP, idt); /* DPL < CPL counts for software only */
    assert_delivery_fault(f, bp, X86_GP, idt);
    assert_int_equal(deliver(f, irq), 0);
    set_cpl(f, 3);
    start(f, 0x1000);
    *ram64(f, IDT_BASE + 0x30 * 8) &= ~BIT(47);
    assert_delivery_fault(f, irq, X86_NP, idt + 1);
    set_gate(f, 0x30, 14, 3, SEL_CODE0, HANDLER);
    *ram64(f, IDT_BASE + 0x30 * 8) &= ~BIT(47);
    assert_delivery_fault(f, swi, X86_NP, idt);

    set_gate(f, 0x30, 14, 3, 3, HANDLER);
    assert_delivery_fault(f, irq, X86_GP, 1);
    assert_delivery_fault(f, swi, X86_GP, 0);
    set_gate(f, 0x30, 14, 3, GDT_LIMIT + 1, HANDLER);
    assert_delivery_fault(f, irq, X86_GP, GDT_LIMIT + 1 + 1);
    set_gate(f, 0x30, 14, 3, SEL_DATA0, HANDLER);
    assert_delivery_fault(f, swi, X86_GP, SEL_DATA0);
    set_gate(f, 0x30, 14, 3, SEL_TEST, HANDLER);
    set_descriptor(f, SEL_TEST, descriptor(0x1b, 0xc, 0, 0xfffff));
    assert_delivery_fault(f, irq, X86_NP, SEL_TEST + 1);

    /* A handler outside its segment. */
    set_descriptor(f, SEL_TEST, descriptor(0x9b, 0x4, 0, 0xffff));
    assert_delivery_fault(f, irq, X86_GP, 1);
    set_gate(f, 0x30, 14, 3, SEL_CODE3, HANDLER);
    set_cpl(f, 0);
    assert_delivery_fault(f, irq, X86_GP, (SEL_CODE3 & 0xfffc) + 1); /* outward */
}

static void test_stack_checks(void **state)
{
    struct fixture *f = *state;
    struct x86_event irq = {.vector = 0x30, .type = X86_EVENT_EXTERNAL};
    struct x86_event swi = software(0x30, X86_EVENT_SOFT_INT, 2);

    enter_protected(f);
    set_cpl(f, 3);
    start(f, 0x1000);
    set_gate(f, 0x30, 14, 3, SEL_CODE0, HANDLER);
    *ram32(f, TSS_BASE + 4) = 0x7000;

    *ram32(f, TSS_BASE + 8) = 0;
    assert_delivery_fault(f, irq, X86_TS, 1);
    assert_delivery_fault(f, swi, X86_TS, 0);
    *ram32(f, TSS_BASE + 8) = GDT_LIMIT + 1;
    assert_delivery_fault(f, irq, X86_TS, GDT_LIMIT + 1 + 1);
    *ram32(f, TSS_BASE + 8) = SEL_DATA0 | 1;
    assert_delivery_fault(f, irq, X86_TS, SEL_DATA0 + 1);
    *ram32(f, TSS_BASE + 8) = SEL_CODE0;
    assert_delivery_fault(f, irq, X86_TS, SEL_CODE0 + 1);
    *ram32(f, TSS_BASE + 8) = SEL_TEST;
    set_descriptor(f, SEL_TEST, descriptor(0x13, 0xc, 0, 0xfffff)); /* not present */
    assert_delivery_fault(f, irq, X86_SS_FAULT, SEL_TEST + 1);
    set_descriptor(f, SEL_TEST, descriptor(0x91, 0xc, 0, 0xfffff)); /* read-only */
    assert_delivery_fault(f, irq, X86_TS, SEL_TEST + 1);
    set_descriptor(f, SEL_TEST, descriptor(0x93, 0x4, 0, 0x6ff0)); /* too small */
    assert_delivery_fault(f, irq, X86_SS_FAULT, SEL_TEST + 1);
    set_descriptor(f, SEL_TEST, descriptor(0x97, 0x4, 0, 0x6ff0)); /* expand-down: room */
    assert_delivery_fault(f, irq, X86_SS_FAULT, SEL_TEST + 1);     /* 20 bytes reach 6FECh */
    set_descriptor(f, SEL_TEST, descriptor(0x97, 0x4, 0, 0x6feb));
    assert_int_equal(deliver(f, irq), 0);
    set_cpl(f, 3);
    start(f, 0x1000);
    f->cpu.seg[X86_TR].limit = 7;
    assert_delivery_fault(f, irq, X86_TS, SEL_TSS + 1);
    /* Same level, no room: #SS with EXT. */
    f->cpu.seg[X86_TR].limit = 0x1ff;
    set_cpl(f, 0);
    f->cpu.seg[X86_SS].limit = STACK - 2;
    assert_delivery_fault(f, irq, X86_SS_FAULT, 1);
    assert_delivery_fault(f, swi, X86_SS_FAULT, 0);
}

static void test_long_mode(void **state)
{
    struct fixture *f = *state;

    enter_long(f);
    start(f, 0x1000);
    f->cpu.gpr[X86_RSP] = STACK + 9; /* gets aligned */
    set_gate(f, X86_GP, 14, 0, SEL_CODE64_0, HANDLER);
    assert_int_equal(deliver(f, hardware(X86_GP, true, 0x1234)), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], STACK - 48);
    assert_int_equal(*ram64(f, STACK - 8), SEL_DATA0);
    assert_int_equal(*ram64(f, STACK - 16), STACK + 9);
    assert_int_equal(*ram64(f, STACK - 24), 2 | X86_FLAG_RF);
    assert_int_equal(*ram64(f, STACK - 32), SEL_CODE64_0);
    assert_int_equal(*ram64(f, STACK - 40), 0x1000);
    assert_int_equal(*ram64(f, STACK - 48), 0x1234);
    assert_int_equal(f->cpu.seg[X86_SS].selector, SEL_DATA0); /* kept: no change of level */

    /* From CPL 3: RSP0, SS null with the new RPL. */
    set_cpl(f, 3);
    start(f, 0x1000);
    *ram64(f, TSS_BASE + 4) = 0x7008;
    assert_int_equal(deliver(f, hardware(X86_GP, true, 0)), 0);
    assert_int_equal(f->cpu.cpl, 0);
    assert_int_equal(f->cpu.seg[X86_SS].selector, 0);
    assert_true(f->cpu.seg[X86_SS].access & X86_SEG_UNUSABLE);
    assert_int_equal(f->cpu.gpr[X86_RSP], 0x7000 - 48);
    assert_int_equal(*ram64(f, 0x7000 - 8), SEL_DATA3);

    /* IST 3, also without a change of level; an NMI blocks NMIs. */
    set_cpl(f, 0);
    start(f, 0x1000);
    set_gate(f, X86_NMI, 14, 0, SEL_CODE64_0, HANDLER);
    *ram64(f, IDT_BASE + 32) |= 3ull << 32;
    *ram64(f, TSS_BASE + 0x1c + 24) = 0x6000;
    assert_true(x86_nmi_allowed(&f->cpu));
    assert_int_equal(deliver(f, (struct x86_event){.vector = X86_NMI, .type = X86_EVENT_NMI}), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], 0x6000 - 40);
    assert_int_equal(f->cpu.seg[X86_SS].selector, SEL_DATA0);
    assert_false(x86_nmi_allowed(&f->cpu));
}

static void test_long_mode_checks(void **state)
{
    struct fixture *f = *state;
    struct x86_event irq = {.vector = 0x30, .type = X86_EVENT_EXTERNAL};
    const u32 idt = 0x30 * 8 + 2 + 1; /* the error code counts 8 bytes an entry in any mode */

    enter_long(f);
    start(f, 0x1000);
    set_gate(f, 0x30, 6, 0, SEL_CODE64_0, HANDLER); /* 16-bit gates are gone */
    assert_delivery_fault(f, irq, X86_GP, idt);
    set_gate(f, 0x30, 5, 0, SEL_CODE64_0, HANDLER);
    assert_delivery_fault(f, irq, X86_GP, idt);
    f->cpu.idtr.limit = 0x30 * 16 + 14;
    assert_delivery_fault(f, irq, X86_GP, idt);
    f->cpu.idtr.limit = 0xfff;
    set_gate(f, 0x30, 14, 0, SEL_CODE0, HANDLER); /* not 64-bit code */
    assert_delivery_fault(f, irq, X86_GP, SEL_CODE0 + 1);
    set_gate(f, 0x30, 14, 0, SEL_CODE64_0, 0x800000000000);
    assert_delivery_fault(f, irq, X86_GP, 1);
    set_gate(f, 0x30, 14, 0, SEL_CODE64_0, HANDLER);
    f->cpu.gpr[X86_RSP] = 0x800000000010;
    assert_delivery_fault(f, irq, X86_SS_FAULT, 1);
    set_cpl(f, 3);
    *ram64(f, TSS_BASE + 4) = 0x900000000000;
    assert_delivery_fault(f, irq, X86_SS_FAULT, 1);
    f->cpu.seg[X86_TR].limit = 10;
    assert_delivery_fault(f, irq, X86_TS, SEL_TSS + 1);
}

/* SDM vol. 3 table 6-5. */
static void test_double_fault(void **state)
{
    static const struct {
        u8 first, gate; /* gate 0: #NP on delivery; 1: the stack page is missing, #PF */
        u8 result;
    } rows[] = {
        {X86_UD, 0, X86_NP},       {X86_UD, 1, X86_PF}, {X86_DB, 0, X86_NP}, {X86_GP, 0, X86_DF},
        {X86_GP, 1, X86_PF},       {X86_DE, 0, X86_DF}, {X86_TS, 0, X86_DF}, {X86_NP, 0, X86_DF},
        {X86_SS_FAULT, 0, X86_DF}, {X86_PF, 0, X86_DF}, {X86_PF, 1, X86_DF}, {X86_AC, 0, X86_NP},
        {X86_MF, 1, X86_PF},
    };
    struct fixture *f = *state;

    enter_long(f);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        start(f, 0x1000);
        set_gate(f, rows[i].first, 14, 0, SEL_CODE64_0, HANDLER);
        if (rows[i].gate == 0)
            *ram64(f, IDT_BASE + rows[i].first * 16) &= ~BIT(47);
        else
            f->cpu.gpr[X86_RSP] = 0x40000000; /* 1 GiB: not mapped above, is below */
        if (rows[i].gate == 1)
            *ram64(f, TABLES_BASE + 0x2000 + 511 * 8) = 0;
        assert_int_equal(deliver(f, hardware(rows[i].first, false, 0)), -EAGAIN);
        assert_int_equal(f->cpu.pending.vector, rows[i].result);
        if (rows[i].result == X86_DF) {
            assert_true(f->cpu.pending.has_error);
            assert_int_equal(f->cpu.pending.error, 0);
            if (rows[i].gate == 1)
                assert_int_equal(f->cpu.cr2, 0x40000000 - 8);
        }
    }
    /* A fault while delivering #DF is a triple fault; an interrupt's faults come one by one. */
    set_gate(f, X86_DF, 14, 0, SEL_CODE64_0, HANDLER);
    *ram64(f, IDT_BASE + X86_DF * 16) &= ~BIT(47);
    assert_int_equal(deliver(f, hardware(X86_DF, true, 0)), -ESHUTDOWN);
    assert_int_equal(deliver(f, (struct x86_event){.vector = X86_DF, .type = X86_EVENT_EXTERNAL}),
                     -EAGAIN);
    assert_int_equal(f->cpu.pending.vector, X86_NP);
    assert_int_equal(deliver(f, software(X86_DF, X86_EVENT_SOFT_INT, 2)), -EAGAIN);
    assert_int_equal(f->cpu.pending.vector, X86_NP);
}

/* Delivery pushes with supervisor rights even from user mode, and pending faults of pages the user
 * may not touch do not arise. */
static void test_supervisor_stack(void **state)
{
    struct fixture *f = *state;

    enter_long(f);
    set_cpl(f, 3);
    start(f, 0x1000);
    *ram64(f, TSS_BASE + 4) = 0x7000;
    set_gate(f, X86_DE, 14, 0, SEL_CODE64_0, HANDLER);
    *ram64(f, TABLES_BASE + 0x2000) &= ~4ull; /* the first 2 MiB are the supervisor's */
    assert_int_equal(deliver(f, hardware(X86_DE, false, 0)), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], 0x7000 - 40);
}

static void test_vm86(void **state)
{
    struct fixture *f = *state;

    enter_protected(f);
    f->cpu.eflags |= X86_FLAG_VM | X86_FLAG_IF;
    f->cpu.cpl = 3;
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        x86_load_segment_real(&f->cpu, i, (u16)(0x100 + i));
    x86_update(&f->cpu);
    start(f, 0x22);
    *ram32(f, TSS_BASE + 4) = 0x7000;
    *ram32(f, TSS_BASE + 8) = SEL_DATA0;
    set_gate(f, X86_GP, 14, 0, SEL_CODE0, HANDLER);
    assert_int_equal(deliver(f, hardware(X86_GP, true, 0)), 0);
    assert_int_equal(f->cpu.gpr[X86_RSP], 0x7000 - 40);
    assert_int_equal(*ram32(f, 0x7000 - 4), 0x100 + X86_GS);
    assert_int_equal(*ram32(f, 0x7000 - 8), 0x100 + X86_FS);
    assert_int_equal(*ram32(f, 0x7000 - 12), 0x100 + X86_DS);
    assert_int_equal(*ram32(f, 0x7000 - 16), 0x100 + X86_ES);
    assert_int_equal(*ram32(f, 0x7000 - 20), 0x100 + X86_SS);
    assert_int_equal(*ram32(f, 0x7000 - 24), STACK);
    assert_int_equal(*ram32(f, 0x7000 - 28), 2 | X86_FLAG_VM | X86_FLAG_IF | X86_FLAG_RF);
    assert_int_equal(*ram32(f, 0x7000 - 32), 0x100 + X86_CS);
    assert_int_equal(*ram32(f, 0x7000 - 36), 0x22);
    assert_int_equal(*ram32(f, 0x7000 - 40), 0);
    assert_false(f->cpu.eflags & X86_FLAG_VM);
    assert_int_equal(f->cpu.seg[X86_DS].selector, 0);
    assert_true(f->cpu.seg[X86_DS].access & X86_SEG_UNUSABLE);
    assert_int_equal(f->cpu.common.mode & (X86_MODE_VM86 | X86_MODE_CPL_MASK), 0);

    /* And back by IRET. */
    f->cpu.gpr[X86_RSP] += 4;
    f->cpu.quiet = true;
    assert_int_equal(TRY(f, x86_helper_iret(&f->cpu, 4, 1)), 0);
    assert_true(f->cpu.eflags & X86_FLAG_VM);
    assert_int_equal(f->cpu.cpl, 3);
    assert_int_equal(f->cpu.seg[X86_GS].selector, 0x100 + X86_GS);
    assert_int_equal(f->cpu.seg[X86_GS].base, (0x100 + X86_GS) << 4);
    assert_int_equal(f->cpu.seg[X86_SS].limit, 0xffff);
    assert_int_equal(f->cpu.lip, ((0x100 + X86_CS) << 4) + 0x22);

    /* INT n with IOPL 0 is #GP(0). */
    assert_delivery_fault(f, software(0x21, X86_EVENT_SOFT_INT, 2), X86_GP, 0);
    /* With VME and a clear bit in the redirection map it goes to the 8086 program itself. */
    f->cpu.cr4 |= X86_CR4_VME;
    *ram16(f, TSS_BASE + 102) = 0x88;
    memset(f->ram.hva + TSS_BASE + 0x68, 0, 32);
    *ram32(f, 0x21 * 4) = 0x00300004;
    f->cpu.eflags |= X86_FLAG_VIF;
    assert_int_equal(deliver(f, software(0x21, X86_EVENT_SOFT_INT, 2)), 0);
    assert_true(f->cpu.eflags & X86_FLAG_VM);
    assert_false(f->cpu.eflags & X86_FLAG_VIF);
    assert_int_equal(f->cpu.lip, 0x304);
    assert_int_equal(*ram16(f, ((0x100 + X86_SS) << 4) + STACK - 2),
                     2 | X86_FLAG_IF | X86_FLAG_IOPL);
}

static void test_debug_payload(void **state)
{
    struct fixture *f = *state;

    enter_long(f);
    start(f, 0x1000);
    set_gate(f, X86_DB, 14, 0, SEL_CODE64_0, HANDLER);
    x86_set_rflags(&f->cpu, 2 | X86_FLAG_TF);
    f->cpu.dr[6] = 0xffff0ff0 | 1;
    assert_int_equal(TRY(f, x86_helper_single_step(&f->cpu, 1, 0, 0, 0)), X86_EXIT_EVENT);
    assert_int_equal(deliver(f, f->cpu.pending), 0);
    assert_int_equal(f->cpu.dr[6], 0xffff0ff0 | BIT(14));
    assert_false(f->cpu.eflags & X86_FLAG_TF);
    assert_int_equal(*ram64(f, STACK - 24), 2 | X86_FLAG_TF); /* a trap: no RF */
}

/* Breakpoints: on execution before the instruction unless RF is set, on data after it. */
static void test_breakpoints(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    struct guest_page page;

    enter_long(f);
    start(f, 0x1000);
    memcpy(f->ram.hva + 0x1000, "\x8b\x00", 2); /* mov eax, [rax]: 4 bytes */
    cpu->dr[0] = 0x1000;
    cpu->dr[1] = 0x5003;
    cpu->dr[2] = 0x6000;
    f->flush_all = 0;
    /* 0: execution; 1: 4 bytes, reads and writes, so 5000h to 5003h; 2: 1 byte, writes. */
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 7, 0x01f00015, 3)), 0);
    assert_true(cpu->common.mode & X86_MODE_DR);
    assert_int_equal(f->flush_all, 1);
    assert_int_equal(TRY(f, x86_helper_debug_begin(cpu)), X86_EXIT_EVENT);
    assert_fault(f, X86_DB, 0);
    assert_int_equal(cpu->pending.payload, 1);
    /* RF is for one instruction. */
    x86_set_rflags(cpu, 2 | X86_FLAG_RF);
    assert_int_equal(TRY(f, x86_helper_debug_begin(cpu)), 0);
    assert_true(x86_rflags(cpu) & X86_FLAG_RF);
    cpu->lip = 0x1002;
    assert_false(x86_rflags(cpu) & X86_FLAG_RF);
    assert_int_equal(TRY(f, x86_helper_single_step(cpu, 0, 0, 0, 0)), 0);
    cpu->lip = 0x1000;
    assert_int_equal(TRY(f, x86_helper_debug_begin(cpu)), X86_EXIT_EVENT);

    assert_int_equal(x86_walk(&cpu->common, 0x5004, GUEST_READ, false, false, &page), 0);
    assert_int_equal(cpu->debug_hits, 0);
    assert_false(page.readable);
    assert_int_equal(x86_walk(&cpu->common, 0x4ffc, GUEST_READ, false, false, &page), 0);
    assert_int_equal(cpu->debug_hits, 0);
    assert_int_equal(x86_walk(&cpu->common, 0x5fff, GUEST_READ, false, false, &page), 0);
    assert_int_equal(cpu->debug_hits, 0); /* a read: breakpoint 2 is for writes */
    assert_int_equal(TRY(f, x86_helper_single_step(cpu, 0, 0, 0, 0)), 0);
    assert_int_equal(x86_walk(&cpu->common, 0x5fff, GUEST_WRITE, false, false, &page), 0);
    assert_int_equal(x86_walk(&cpu->common, 0x4ffd, GUEST_READ, false, false, &page), 0);
    assert_int_equal(cpu->debug_hits, 6);
    assert_int_equal(TRY(f, x86_helper_single_step(cpu, 1, 0, 0, 0)), X86_EXIT_EVENT);
    assert_int_equal(cpu->pending.payload, 6 | BIT(14));
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 7, 0, 3)), 0);
    assert_false(cpu->common.mode & X86_MODE_DR);
    assert_int_equal(x86_walk(&cpu->common, 0x5000, GUEST_READ, false, false, &page), 0);
    assert_true(page.readable);
}

static void test_interruptibility(void **state)
{
    struct fixture *f = *state;

    enter_long(f);
    start(f, 0x1000);
    assert_false(x86_interrupt_allowed(&f->cpu));
    assert_int_equal(x86_helper_sti(&f->cpu, 1), 1); /* not quiet: look for events */
    f->cpu.lip++;
    assert_false(x86_interrupt_allowed(&f->cpu)); /* the shadow */
    assert_false(x86_nmi_allowed(&f->cpu));
    f->cpu.lip++;
    assert_true(x86_interrupt_allowed(&f->cpu));
    assert_int_equal(x86_helper_sti(&f->cpu, 1), 0); /* IF was set: no shadow */
    f->cpu.lip++;
    assert_true(x86_interrupt_allowed(&f->cpu));

    TRY(f, x86_helper_load_segment(&f->cpu, X86_SS, SEL_DATA0, 2));
    f->cpu.lip += 2;
    assert_false(x86_interrupt_allowed(&f->cpu));
    x86_clear_shadow(&f->cpu);
    assert_true(x86_interrupt_allowed(&f->cpu));
    f->cpu.activity = 1;
    assert_true(x86_interrupt_allowed(&f->cpu));
    f->cpu.activity = 3;
    assert_false(x86_interrupt_allowed(&f->cpu));
    assert_false(x86_nmi_allowed(&f->cpu));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_real_mode),        T(test_protected_same_level),
        T(test_protected_inner),  T(test_gate_checks),
        T(test_stack_checks),     T(test_long_mode),
        T(test_long_mode_checks), T(test_double_fault),
        T(test_supervisor_stack), T(test_vm86),
        T(test_debug_payload),    T(test_interruptibility),
        T(test_breakpoints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
