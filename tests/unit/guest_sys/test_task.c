/* Task switches: the checks before the commit point, which leave everything as it was, and behind
 * it, which are exceptions of the new task (SDM vol. 3 table 8-1). */
#include "fixture.h"

#define OLD_TSS TSS_BASE
#define NEW_TSS 0x13000ull
#define LDT_BASE 0x14000ull
#define SEL_NEW (SEL_TEST)
#define SEL_GATE (SEL_TEST + 8)
#define STACK 0x8000u
#define NEW_STACK 0x9000u
#define ENTRY 0x5000u

/* Fields of a 32-bit TSS (SDM vol. 3 figure 8-2). */
enum {
    LINK = 0,
    CR3 = 0x1c,
    EIP = 0x20,
    EFLAGS = 0x24,
    ESP = 0x38,
    ES = 0x48,
    CS = 0x4c,
    SS = 0x50,
    DS = 0x54,
    FS = 0x58,
    LDT = 0x60,
    TRAP = 0x64,
};

static u8 access_of(struct fixture *f, u16 selector)
{
    return (u8)(*ram64(f, GDT_BASE + (selector & 0xfff8)) >> 40);
}

static void make_tasks(struct fixture *f)
{
    enter_protected(f);
    f->cpu.gpr[X86_RSP] = STACK;
    x86_set_rip(&f->cpu, 0x1000);
    memset(ram64(f, NEW_TSS), 0, 0x68);
    *ram32(f, NEW_TSS + EIP) = ENTRY;
    *ram32(f, NEW_TSS + EFLAGS) = 2;
    *ram32(f, NEW_TSS + ESP) = NEW_STACK;
    *ram32(f, NEW_TSS + CS) = SEL_CODE0;
    *ram32(f, NEW_TSS + SS) = SEL_DATA0;
    *ram32(f, NEW_TSS + DS) = SEL_DATA0;
    set_descriptor(f, SEL_NEW, descriptor(0x89, 0, NEW_TSS, 0x67));
}

static void set_task_gate(struct fixture *f, u8 vector)
{
    *ram64(f, IDT_BASE + vector * 8u) = (u64)SEL_NEW << 16 | 0x85ull << 40;
}

static int deliver(struct fixture *f, struct x86_event event)
{
    volatile int result = -1;

    assert_int_equal(TRY(f, result = x86_deliver(&f->cpu, &event)), 0);
    return result;
}

static u32 call(struct fixture *f, u16 selector)
{
    return TRY(f, x86_helper_far_call(&f->cpu, selector, 0, 4, 7));
}

static void test_call_and_return(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    cpu->dr[7] = 0x7ff;
    x86_set_rflags(cpu, 2 | X86_FLAG_IF | X86_FLAG_CF);
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_HALT_CHECK);
    assert_int_equal(f->last_reason, X86_REASON_TASK_SWITCH);
    assert_int_equal(f->last_qualification, SEL_NEW);
    assert_int_equal(*ram16(f, NEW_TSS + LINK), SEL_TSS);
    assert_int_equal(*ram32(f, OLD_TSS + EIP), 0x1007);
    assert_int_equal(*ram32(f, OLD_TSS + ESP), STACK);
    assert_int_equal(*ram32(f, OLD_TSS + EFLAGS), 2 | X86_FLAG_IF | X86_FLAG_CF);
    assert_int_equal(access_of(f, SEL_NEW), 0x8b);
    assert_int_equal(access_of(f, SEL_TSS), 0x8b);
    assert_int_equal(cpu->seg[X86_TR].selector, SEL_NEW);
    assert_int_equal(cpu->seg[X86_TR].base, NEW_TSS);
    assert_int_equal(X86_SEG_TYPE(cpu->seg[X86_TR].access), 11);
    assert_int_equal(cpu->lip, ENTRY);
    assert_int_equal(cpu->gpr[X86_RSP], NEW_STACK);
    assert_int_equal(x86_rflags(cpu), 2 | X86_FLAG_NT);
    assert_true(cpu->cr0 & X86_CR0_TS);
    assert_int_equal(cpu->dr[7], 0x7ff & ~0x155);
    assert_true(cpu->seg[X86_FS].access & X86_SEG_UNUSABLE);

    assert_int_equal(TRY(f, x86_helper_iret(cpu, 4, 1)), X86_EXIT_HALT_CHECK);
    assert_int_equal(f->last_qualification, SEL_TSS | 1u << 30);
    assert_int_equal(access_of(f, SEL_NEW), 0x89);
    assert_int_equal(access_of(f, SEL_TSS), 0x8b);
    assert_int_equal(*ram32(f, NEW_TSS + EFLAGS), 2);
    assert_int_equal(*ram32(f, NEW_TSS + EIP), ENTRY + 1);
    assert_int_equal(cpu->lip, 0x1007);
    assert_int_equal(x86_rflags(cpu), 2 | X86_FLAG_IF | X86_FLAG_CF);

    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_NEW, 0, 4, 7)), X86_EXIT_HALT_CHECK);
    assert_int_equal(f->last_qualification, SEL_NEW | 2u << 30);
    assert_int_equal(access_of(f, SEL_NEW), 0x8b);
    assert_int_equal(access_of(f, SEL_TSS), 0x89);
    assert_int_equal(x86_rflags(cpu), 2);
}

static void assert_refused(struct fixture *f, u16 selector, u8 vector, u32 error)
{
    struct x86_cpu before = f->cpu;
    u64 old_tss = *ram64(f, OLD_TSS + EIP);
    u8 busy = access_of(f, SEL_TSS), new_busy = access_of(f, SEL_NEW);

    assert_int_equal(call(f, selector), X86_EXIT_EVENT);
    assert_fault(f, vector, error);
    assert_int_equal(f->cpu.lip, before.lip);
    assert_int_equal(f->cpu.cr0, before.cr0);
    assert_memory_equal(f->cpu.gpr, before.gpr, sizeof(before.gpr));
    assert_memory_equal(f->cpu.seg, before.seg, sizeof(before.seg));
    assert_int_equal(*ram64(f, OLD_TSS + EIP), old_tss);
    assert_int_equal(access_of(f, SEL_TSS), busy);
    assert_int_equal(access_of(f, SEL_NEW), new_busy);
}

static void test_before_commit(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    assert_refused(f, SEL_NEW | 4, X86_GP, SEL_NEW | 4);
    assert_refused(f, GDT_LIMIT + 1, X86_GP, GDT_LIMIT + 1);
    assert_refused(f, SEL_NEW | 1, X86_GP, SEL_NEW); /* DPL 0 */
    set_descriptor(f, SEL_NEW, descriptor(0x8b, 0, NEW_TSS, 0x67));
    assert_refused(f, SEL_NEW, X86_GP, SEL_NEW);
    set_descriptor(f, SEL_NEW, descriptor(0x09, 0, NEW_TSS, 0x67));
    assert_refused(f, SEL_NEW, X86_NP, SEL_NEW);
    set_descriptor(f, SEL_NEW, descriptor(0x89, 0, NEW_TSS, 0x66));
    assert_refused(f, SEL_NEW, X86_TS, SEL_NEW);
    set_descriptor(f, SEL_NEW, descriptor(0x81, 0, NEW_TSS, 0x2a));
    assert_refused(f, SEL_NEW, X86_TS, SEL_NEW);
    set_descriptor(f, SEL_NEW, descriptor(0x89, 0, NEW_TSS, 0x67));
    cpu->seg[X86_TR].limit = 0x5e; /* the old one cannot be saved */
    assert_refused(f, SEL_NEW, X86_TS, SEL_TSS);
    cpu->seg[X86_TR].limit = 0x67;
    /* Through a gate the descriptor's own privilege does not count; the gate's does. */
    set_descriptor(f, SEL_GATE, (u64)SEL_NEW << 16 | 0x85ull << 40);
    assert_refused(f, SEL_GATE | 3, X86_GP, SEL_GATE);
    set_descriptor(f, SEL_GATE, (u64)SEL_NEW << 16 | 0x05ull << 40);
    assert_refused(f, SEL_GATE, X86_NP, SEL_GATE);
    set_descriptor(f, SEL_GATE, (u64)SEL_DATA0 << 16 | 0x85ull << 40);
    assert_refused(f, SEL_GATE, X86_GP, SEL_DATA0);
    set_descriptor(f, SEL_GATE, (u64)(SEL_NEW | 4) << 16 | 0x85ull << 40);
    assert_refused(f, SEL_GATE, X86_GP, SEL_NEW | 4);
    set_cpl(f, 3);
    set_descriptor(f, SEL_GATE, (u64)SEL_NEW << 16 | 0xe5ull << 40);
    assert_int_equal(call(f, SEL_GATE | 3), X86_EXIT_HALT_CHECK);
    assert_int_equal(cpu->cpl, 0);

    /* A return wants a busy one. */
    make_tasks(f);
    x86_set_rflags(cpu, 2 | X86_FLAG_NT);
    *ram16(f, OLD_TSS + LINK) = SEL_NEW;
    assert_raises(f, x86_helper_iret(cpu, 4, 1), X86_TS, SEL_NEW);
    *ram16(f, OLD_TSS + LINK) = 0;
    assert_raises(f, x86_helper_iret(cpu, 4, 1), X86_TS, 0);
    *ram16(f, OLD_TSS + LINK) = SEL_NEW;
    set_descriptor(f, SEL_NEW, descriptor(0x0b, 0, NEW_TSS, 0x67));
    assert_raises(f, x86_helper_iret(cpu, 4, 1), X86_NP, SEL_NEW);
}

/* The fault belongs to the new task. */
static void assert_late(struct fixture *f, u32 field, u16 selector, u8 vector, u32 error)
{
    make_tasks(f);
    set_descriptor(f, 0x48, descriptor(0x13, 0xc, 0, 0xfffff)); /* data, not present */
    *ram32(f, NEW_TSS + field) = selector;
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_EVENT);
    assert_fault(f, vector, error);
    assert_int_equal(f->cpu.seg[X86_TR].selector, SEL_NEW);
    assert_int_equal(access_of(f, SEL_NEW), 0x8b);
    assert_int_equal(f->cpu.lip, ENTRY);
    assert_int_equal(f->cpu.gpr[X86_RSP], NEW_STACK);
    assert_int_equal(*ram32(f, OLD_TSS + EIP), 0x1007);
    assert_true(f->cpu.eflags & X86_FLAG_NT);
    assert_int_equal(f->cpu.seg[X86_DS].selector, *ram16(f, NEW_TSS + DS));
}

static void test_behind_commit(void **state)
{
    struct fixture *f = *state;

    assert_late(f, LDT, SEL_DATA0, X86_TS, SEL_DATA0);
    assert_late(f, LDT, SEL_LDT | 4, X86_TS, SEL_LDT | 4);
    assert_late(f, CS, 0, X86_TS, 0);
    assert_late(f, CS, SEL_DATA0, X86_TS, SEL_DATA0);
    assert_late(f, CS, SEL_CODE0 | 1, X86_TS, SEL_DATA0); /* SS first: its DPL is not 1 */
    assert_late(f, SS, 0, X86_TS, 0);
    assert_late(f, SS, SEL_DATA3, X86_TS, SEL_DATA3 & ~3u);
    assert_late(f, SS, SEL_CODE0, X86_TS, SEL_CODE0);
    assert_late(f, SS, 0x48, X86_SS_FAULT, 0x48);
    assert_late(f, DS, SEL_TSS, X86_TS, SEL_TSS);
    assert_late(f, DS, 0x48, X86_NP, 0x48);
    assert_late(f, ES, SEL_DATA0 | 3, X86_TS, SEL_DATA0);
    assert_late(f, FS, 0x200, X86_TS, 0x200);
}

static void test_ldt(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    set_descriptor(f, SEL_LDT, descriptor(0x82, 0, LDT_BASE, 0xf));
    *ram64(f, LDT_BASE + 8) = descriptor(0x93, 0xc, 0x1000, 0xfffff);
    *ram32(f, NEW_TSS + LDT) = SEL_LDT;
    *ram32(f, NEW_TSS + FS) = 12;
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_HALT_CHECK);
    assert_int_equal(cpu->seg[X86_LDTR].base, LDT_BASE);
    assert_int_equal(cpu->seg[X86_FS].base, 0x1000);
    /* The limit of the new code segment. */
    make_tasks(f);
    *ram32(f, NEW_TSS + CS) = SEL_CODE16;
    *ram32(f, NEW_TSS + EIP) = 0x10000;
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_EVENT);
    assert_fault(f, X86_GP, 0);
    assert_int_equal(cpu->seg[X86_CS].selector, SEL_CODE16);
}

static void test_events(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    set_task_gate(f, X86_DF);
    assert_int_equal(deliver(f, hardware(X86_DF, true, 0)), 0);
    assert_int_equal(f->last_qualification, SEL_NEW | 3u << 30);
    assert_int_equal(cpu->lip, ENTRY);
    assert_int_equal(cpu->gpr[X86_RSP], NEW_STACK - 4);
    assert_int_equal(*ram32(f, NEW_STACK - 4), 0);
    assert_int_equal(*ram32(f, OLD_TSS + EIP), 0x1000);
    assert_true(x86_rflags(cpu) & X86_FLAG_NT);

    /* A fault saves RF, an interrupt does not; NMIs are blocked behind one. */
    make_tasks(f);
    set_task_gate(f, X86_GP);
    assert_int_equal(deliver(f, hardware(X86_GP, true, 0x1234)), 0);
    assert_int_equal(*ram32(f, NEW_STACK - 4), 0x1234);
    assert_int_equal(*ram32(f, OLD_TSS + EFLAGS), 2 | X86_FLAG_RF);
    make_tasks(f);
    set_task_gate(f, X86_NMI);
    assert_int_equal(deliver(f, (struct x86_event){.vector = X86_NMI, .type = X86_EVENT_NMI}), 0);
    assert_int_equal(*ram32(f, OLD_TSS + EFLAGS), 2);
    assert_int_equal(cpu->gpr[X86_RSP], NEW_STACK);
    assert_false(x86_nmi_allowed(cpu));
    cpu->interruptibility = 0;

    /* Of an outside event the error codes have EXT, of a software interrupt's not. */
    make_tasks(f);
    set_task_gate(f, 0x30);
    *ram64(f, IDT_BASE + 0x30 * 8) |= 3ull << 45;
    set_descriptor(f, SEL_NEW, descriptor(0x8b, 0, NEW_TSS, 0x67));
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30}), -EAGAIN);
    assert_fault(f, X86_GP, SEL_NEW | 1);
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30, .type = X86_EVENT_SOFT_INT}),
                     -EAGAIN);
    assert_fault(f, X86_GP, SEL_NEW);
    set_cpl(f, 3);
    *ram64(f, IDT_BASE + 0x30 * 8) &= ~(3ull << 45);
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30, .type = X86_EVENT_SOFT_INT}),
                     -EAGAIN);
    assert_fault(f, X86_GP, 0x30 * 8 + 2);
}

static void test_debug_trap(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    *ram16(f, NEW_TSS + TRAP) = 1;
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_EVENT);
    assert_fault(f, X86_DB, 0);
    assert_int_equal(cpu->pending.payload, X86_DR6_BT);
    assert_int_equal(cpu->lip, ENTRY);
    make_tasks(f);
    *ram16(f, NEW_TSS + TRAP) = 1;
    set_task_gate(f, 0x30);
    assert_int_equal(deliver(f, (struct x86_event){.vector = 0x30}), 0);
    assert_true(cpu->pending.valid);
    assert_int_equal(cpu->pending.payload, X86_DR6_BT);
}

static void test_vm86_task(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    make_tasks(f);
    *ram32(f, NEW_TSS + EFLAGS) = 2 | (u32)X86_FLAG_VM;
    *ram32(f, NEW_TSS + CS) = 0x1234;
    *ram32(f, NEW_TSS + SS) = 0x2000;
    *ram32(f, NEW_TSS + DS) = 0xffff;
    *ram32(f, NEW_TSS + EIP) = 0x56;
    assert_int_equal(call(f, SEL_NEW), X86_EXIT_HALT_CHECK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->lip, 0x12340 + 0x56);
    assert_int_equal(cpu->seg[X86_DS].base, 0xffff0);
    assert_int_equal(cpu->seg[X86_SS].limit, 0xffff);
    assert_int_equal(cpu->seg[X86_CS].access, 0xf3);
    assert_true(cpu->common.mode & X86_MODE_VM86);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_call_and_return), T(test_before_commit), T(test_behind_commit), T(test_ldt),
        T(test_events),          T(test_debug_trap),    T(test_vm86_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
