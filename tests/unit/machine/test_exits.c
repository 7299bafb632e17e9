/* The dispatch of engine exits, with made-up exits and no CPU. */
#include <unistd.h>

#include "fake_engine.h"

static const u8 nothing[] = {0xf4};

static int no_script(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    (void)run;
    (void)number;
    fail_msg("the vCPU was run");
    return -EIO;
}

static struct machine *machine_new(void)
{
    char path[] = "/tmp/triode-test-XXXXXX";
    struct machine_config config = fake_config(path);
    struct machine *machine;
    struct err err;
    int ret;

    fake.script = no_script;
    fake_kernel(path, nothing, sizeof(nothing));
    ret = machine_create(&machine, &config, &err);
    unlink(path);
    if (ret)
        fail_msg("%s", err.text);
    return machine;
}

static enum machine_verdict handle(struct machine *machine)
{
    return machine_handle_exit(machine, &machine->vcpus[0], machine->vcpus[0].vcpu->run);
}

static void io_goes_to_the_ports(void **state)
{
    struct machine *m = machine_new();
    struct kvm_run *run = m->vcpus[0].vcpu->run;

    (void)state;
    fake_io(run, true, 0x80, 1, 0x42);
    assert_int_equal(handle(m), MACHINE_RESUME);
    fake_io(run, false, 0x80, 1, 0);
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(fake_io_data(run), 0x42);
    fake_io(run, false, 0x333, 4, 0);
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(fake_io_data(run), 0xffffffff);
    fake_io(run, true, 0xcf8, 4, 0x80000000);
    assert_int_equal(handle(m), MACHINE_RESUME);
    fake_io(run, false, 0xcfc, 4, 0);
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(fake_io_data(run), 0x29c08086);
    assert_int_equal(m->vcpus[0].exits[MACHINE_EXIT_io], 5);
    machine_destroy(m);
}

/* REP OUTSB and REP INSW: count items in one exit. */
static void string_io(void **state)
{
    struct machine *m = machine_new();
    struct kvm_run *run = m->vcpus[0].vcpu->run;
    u8 *data = (u8 *)run + FAKE_DATA_OFFSET;

    (void)state;
    fake_io(run, true, 0x80, 1, 0x332211);
    run->io.count = 3;
    assert_int_equal(handle(m), MACHINE_RESUME);
    fake_io(run, false, 0x80, 1, 0);
    run->io.count = 3;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_memory_equal(data, "\x33\x33\x33\0", 4);
    fake_io(run, false, 0x333, 2, 0);
    run->io.count = 2;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_memory_equal(data, "\xff\xff\xff\xff\0", 5);
    machine_destroy(m);
}

static void mmio_goes_to_the_memory_bus(void **state)
{
    struct machine *m = machine_new();
    struct kvm_run *run = m->vcpus[0].vcpu->run;

    (void)state;
    run->exit_reason = KVM_EXIT_MMIO;
    run->mmio.phys_addr = 0xe0000000; /* ECAM */
    run->mmio.len = 4;
    run->mmio.is_write = 0;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_memory_equal(run->mmio.data, "\x86\x80\xc0\x29", 4);
    run->mmio.phys_addr = 0xe0000001;
    run->mmio.len = 3; /* a piece of an access across two pages */
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_memory_equal(run->mmio.data, "\x80\xc0\x29", 3);
    run->mmio.phys_addr = 0xa0000; /* nothing there */
    run->mmio.len = 8;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_memory_equal(run->mmio.data, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    run->mmio.is_write = 1;
    assert_int_equal(handle(m), MACHINE_RESUME);
    machine_destroy(m);
}

static void harmless_exits_resume(void **state)
{
    struct machine *m = machine_new();

    (void)state;
    m->vcpus[0].vcpu->run->exit_reason = KVM_EXIT_INTR;
    assert_int_equal(handle(m), MACHINE_RESUME);
    m->vcpus[0].vcpu->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(m->end, MACHINE_RUNNING);
    machine_destroy(m);
}

static void triple_fault_reports_registers(void **state)
{
    struct machine *m = machine_new();
    struct fake_vcpu *vcpu = to_fake(m->vcpus[0].vcpu);

    (void)state;
    vcpu->regs.rip = 0x100000;
    vcpu->regs.r13 = 0xfeedfacecafebeef;
    vcpu->vcpu.run->exit_reason = KVM_EXIT_SHUTDOWN;
    assert_int_equal(handle(m), MACHINE_STOP);
    assert_int_equal(m->end, MACHINE_TRIPLE_FAULT);
    assert_non_null(strstr(machine_error(m), "triple fault"));
    assert_non_null(strstr(machine_report(m), "R13 feedfacecafebeef"));
    assert_non_null(strstr(machine_report(m), "hlt")); /* what lies at RIP */
    machine_destroy(m);
}

/* Or it resets, as a PC does. */
static void triple_fault_resets(void **state)
{
    struct machine *m = machine_new();

    (void)state;
    m->config.reset_on_triple_fault = true;
    m->vcpus[0].vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(m->end, MACHINE_RUNNING);
    assert_true(m->reset_wanted);
    m->config.end_on_reset = true;
    assert_int_equal(handle(m), MACHINE_RESUME);
    assert_int_equal(m->end, MACHINE_RESET);
    machine_destroy(m);
}

static void system_events(void **state)
{
    static const struct {
        u32 type;
        enum machine_end end;
        enum machine_verdict verdict;
    } cases[] = {
        {KVM_SYSTEM_EVENT_SHUTDOWN, MACHINE_POWER_OFF, MACHINE_RESUME},
        {KVM_SYSTEM_EVENT_CRASH, MACHINE_PANIC, MACHINE_STOP},
        {KVM_SYSTEM_EVENT_RESET, MACHINE_RUNNING, MACHINE_RESUME},
        {12345, MACHINE_RUNNING, MACHINE_ERROR},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct machine *m = machine_new();

        m->vcpus[0].vcpu->run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
        m->vcpus[0].vcpu->run->system_event.type = cases[i].type;
        assert_int_equal(handle(m), cases[i].verdict);
        assert_int_equal(m->end, cases[i].end);
        assert_int_equal(m->reset_wanted, cases[i].type == KVM_SYSTEM_EVENT_RESET);
        machine_destroy(m);
    }
}

static void engine_errors_are_errors(void **state)
{
    static const u32 reasons[] = {KVM_EXIT_UNKNOWN, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_INTERNAL_ERROR};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
        struct machine *m = machine_new();

        m->vcpus[0].vcpu->run->exit_reason = reasons[i];
        assert_int_equal(handle(m), MACHINE_ERROR);
        machine_destroy(m);
    }
}

static void exits_nobody_asked_for_are_loud(void **state)
{
    static const u32 reasons[] = {KVM_EXIT_HLT, KVM_EXIT_DEBUG, KVM_EXIT_S390_SIEIC, 0xdead};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
        struct machine *m = machine_new();

        m->vcpus[0].vcpu->run->exit_reason = reasons[i];
        assert_int_equal(handle(m), MACHINE_STOP);
        assert_int_equal(m->end, MACHINE_FAILED);
        assert_true(machine_error(m)[0]);
        assert_true(machine_report(m)[0]);
        machine_destroy(m);
    }
}

/* The first end counts: what a second vCPU meets meanwhile does not replace it. */
static void first_end_stays(void **state)
{
    struct machine *m = machine_new();

    (void)state;
    machine_finish(m, MACHINE_POWER_OFF, NULL);
    m->vcpus[0].vcpu->run->exit_reason = KVM_EXIT_SHUTDOWN;
    assert_int_equal(handle(m), MACHINE_STOP);
    assert_int_equal(m->end, MACHINE_POWER_OFF);
    assert_string_equal(machine_error(m), "");
    assert_string_equal(machine_report(m), "");
    machine_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(io_goes_to_the_ports),
        cmocka_unit_test(string_io),
        cmocka_unit_test(mmio_goes_to_the_memory_bus),
        cmocka_unit_test(harmless_exits_resume),
        cmocka_unit_test(triple_fault_reports_registers),
        cmocka_unit_test(triple_fault_resets),
        cmocka_unit_test(system_events),
        cmocka_unit_test(engine_errors_are_errors),
        cmocka_unit_test(exits_nobody_asked_for_are_loud),
        cmocka_unit_test(first_end_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
