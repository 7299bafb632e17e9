/* Performance counters without an engine: cycles pass when the test says so. */
#include "fixture.h"

enum {
    PMC0 = 0xc1,
    SELECT0 = 0x186,
    FIXED0 = 0x309,
    FIXED_CONTROL = 0x38d,
    STATUS = 0x38e,
    CONTROL = 0x38f,
    CLEAR = 0x390,
    FULL_PMC0 = 0x4c1,
    DEBUGCTL = 0x1d9,
};

#define EN BIT(22)
#define INT BIT(20)
#define OS BIT(17)
#define USR BIT(16)
#define WIDTH_MASK mask_low(48)

static u64 now, alarm_in;
static unsigned interrupts, alarms;

static u64 cycles(struct x86_cpu *cpu)
{
    (void)cpu;
    return now;
}

static void interrupt(struct x86_cpu *cpu)
{
    (void)cpu;
    interrupts++;
}

static void alarm_wanted(struct x86_cpu *cpu, u64 in)
{
    (void)cpu;
    alarms++;
    alarm_in = in;
}

static struct x86_hooks hooks;

static int setup(void **state)
{
    int ret = fixture_setup(state);
    struct fixture *f = *state;

    hooks = *f->cpu.hooks;
    hooks.cycles = cycles;
    hooks.performance_interrupt = interrupt;
    hooks.cycles_alarm = alarm_wanted;
    f->cpu.hooks = &hooks;
    now = 1000;
    interrupts = alarms = 0;
    return ret;
}

static u64 get(struct x86_cpu *cpu, u32 msr)
{
    u64 value = ~0ull;

    assert_true(x86_msr_read(cpu, msr, &value));
    return value;
}

static void set(struct x86_cpu *cpu, u32 msr, u64 value)
{
    assert_true(x86_msr_write(cpu, msr, value));
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    assert_int_equal(get(cpu, CONTROL), 0xf);
    assert_int_equal(get(cpu, SELECT0), 0);
    set(cpu, SELECT0, 0xc0 | EN | OS);
    set(cpu, PMC0, 5);
    set(cpu, FIXED0 + 2, 6);
    set(cpu, FIXED_CONTROL, 0x333);
    set(cpu, CONTROL, 0x700000001);
    x86_reset(cpu, true); /* INIT changes nothing */
    assert_int_equal(get(cpu, SELECT0), 0xc0 | EN | OS);
    assert_int_equal(get(cpu, PMC0), 5);
    assert_int_equal(get(cpu, FIXED_CONTROL), 0x333);
    assert_int_equal(get(cpu, CONTROL), 0x700000001);
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, X86_MODE_COUNT_INSNS);
    x86_reset(cpu, false);
    assert_int_equal(get(cpu, SELECT0), 0);
    assert_int_equal(get(cpu, PMC0), 0);
    assert_int_equal(get(cpu, FIXED0 + 2), 0);
    assert_int_equal(get(cpu, FIXED_CONTROL), 0);
    assert_int_equal(get(cpu, CONTROL), 0xf);
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, 0);
}

static void test_absent(void **state)
{
    static const u32 msrs[] = {PMC0,   SELECT0, FIXED0, 0x345,    FIXED_CONTROL,
                               STATUS, CONTROL, CLEAR,  FULL_PMC0};
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    u64 value;

    cpu->gpr[X86_RCX] = 0;
    assert_int_equal(TRY(f, x86_helper_rdpmc(cpu, 2)), 0);
    set(cpu, DEBUGCTL, BIT(12));
    set(cpu, DEBUGCTL, 0);
    f->features_off = X86_FEATURE_PMU;
    x86_update_features(cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
        assert_false(x86_msr_read(cpu, msrs[i], &value));
        assert_false(x86_msr_write(cpu, msrs[i], 0));
    }
    assert_raises(f, x86_helper_rdpmc(cpu, 2), X86_GP, 0);
    assert_false(x86_msr_write(cpu, DEBUGCTL, BIT(12)));
}

/* What lifted code counts down, at each level for whom it concerns. */
static void test_levels(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    set(cpu, SELECT0, 0xc0 | EN | OS);
    set(cpu, SELECT0 + 1, 0xc4 | EN | USR);
    set(cpu, SELECT0 + 2, 0xc0 | EN | OS | USR);
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, X86_MODE_COUNT_INSNS);
    cpu->pmu.insns_left -= 10;
    set_cpl(f, 3);
    x86_update_mode(cpu);
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, X86_MODE_COUNT);
    cpu->pmu.insns_left -= 100;
    cpu->pmu.branches_left -= 7;
    set_cpl(f, 0);
    x86_update_mode(cpu);
    cpu->pmu.insns_left -= 1;
    assert_int_equal(get(cpu, PMC0), 11);
    assert_int_equal(get(cpu, PMC0 + 1), 7);
    assert_int_equal(get(cpu, PMC0 + 2), 111);
    /* What cannot be counted is not. */
    set(cpu, SELECT0, 0x2e | 0x4f00 | EN | OS);
    set(cpu, SELECT0 + 2, 0xc0 | EN | OS | 2u << 24);
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, 0);
}

static void test_overflow(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    set(cpu, SELECT0, 0xc0 | EN | OS | INT);
    set(cpu, SELECT0 + 1, 0xc0 | EN | OS);
    set(cpu, FULL_PMC0, WIDTH_MASK - 9);
    set(cpu, FULL_PMC0 + 1, WIDTH_MASK - 4);
    assert_int_equal(cpu->pmu.insns_left, 10);
    cpu->pmu.insns_left -= 9;
    x86_pmu_look(cpu);
    assert_int_equal(interrupts, 0);
    assert_int_equal(get(cpu, STATUS), 2); /* which does not interrupt */
    cpu->pmu.insns_left -= 3;
    x86_pmu_look(cpu);
    assert_int_equal(interrupts, 1);
    assert_int_equal(get(cpu, STATUS), 3);
    assert_int_equal(get(cpu, PMC0), 2);
    assert_true(cpu->pmu.insns_left > 1 << 30);
    set(cpu, CLEAR, 1);
    assert_int_equal(get(cpu, STATUS), 2);
    set(cpu, DEBUGCTL, BIT(12) | BIT(11) | BIT(0));
    set(cpu, FULL_PMC0, WIDTH_MASK);
    cpu->pmu.insns_left -= 1;
    x86_pmu_look(cpu);
    assert_int_equal(interrupts, 2);
    assert_int_equal(get(cpu, CONTROL), 0);
    assert_int_equal(get(cpu, DEBUGCTL), BIT(12) | BIT(11));
    assert_int_equal(cpu->common.mode & X86_MODE_COUNT, 0);
}

static void test_cycles(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    set(cpu, FIXED_CONTROL, 0x0b0);
    set(cpu, FIXED0 + 1, WIDTH_MASK + 1 - 5000);
    set(cpu, CONTROL, BIT(33));
    assert_int_equal(alarms, 1);
    assert_int_equal(alarm_in, 5000);
    now += 1000;
    x86_pmu_halt(cpu, true);
    now += 7777;
    x86_pmu_halt(cpu, false);
    assert_int_equal(get(cpu, FIXED0 + 1), WIDTH_MASK + 1 - 4000);
    /* It goes off at a time that the halt has made too early, and is set again. */
    assert_int_equal(alarms, 1);
    cpu->pmu.alarm_gone_off = true;
    x86_pmu_look(cpu);
    assert_int_equal(interrupts, 0);
    assert_int_equal(alarms, 2);
    assert_int_equal(alarm_in, 4000);
    now += 4001;
    cpu->pmu.alarm_gone_off = true;
    x86_pmu_look(cpu);
    assert_int_equal(interrupts, 1);
    assert_int_equal(get(cpu, STATUS), BIT(33));
    assert_int_equal(get(cpu, FIXED0 + 1), 1);
    set(cpu, 0x10, 1ull << 40); /* the TSC is another matter */
    assert_int_equal(get(cpu, FIXED0 + 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reset, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_absent, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_levels, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_overflow, setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_cycles, setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
