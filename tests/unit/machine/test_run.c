/* Whole machines on an engine without a CPU: threads, ends, resets, serial port. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "fake_engine.h"

#include "base/clock.h"

static const u8 code[] = {0xfa, 0xf4};
static char kernel_path[] = "/tmp/triode-test-XXXXXX";

static struct machine *create(const struct machine_config *config)
{
    struct machine *machine;
    struct err err;

    if (machine_create(&machine, config, &err))
        fail_msg("%s", err.text);
    return machine;
}

/* Runs to the end, which must come within five seconds. */
static enum machine_end finish(struct machine *machine)
{
    struct pollfd pfd = {.fd = machine_done_fd(machine), .events = POLLIN};
    enum machine_end end;

    assert_int_equal(poll(&pfd, 1, 5000), 1);
    assert_true(machine_join_for(machine, 5 * NSEC_PER_SEC, &end));
    return end;
}

static enum machine_end run(const struct machine_config *config)
{
    struct machine *machine = create(config);
    enum machine_end end;

    assert_int_equal(machine_start(machine, NULL), 0);
    end = finish(machine);
    machine_destroy(machine);
    return end;
}

static int power_off(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    if (vcpu->vcpu.index || number)
        return FAKE_SLEEP;
    return fake_io(run, true, 0x604, 2, 1 << 13 | DEVICE_ACPI_SLP_TYP_S5 << 10);
}

static void power_off_ends_all_vcpus(void **state)
{
    struct machine_config config = fake_config(kernel_path);

    (void)state;
    fake.script = power_off;
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    config.topology = (struct engine_topology){64, 2, 16, 2};
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    assert_int_equal(fake.vcpus, 0);
}

static int sleep_on(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    (void)run;
    (void)number;
    return FAKE_SLEEP;
}

static void stop_reaches_sleeping_vcpus(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct machine *machine;

    (void)state;
    fake.script = sleep_on;
    config.topology = (struct engine_topology){8, 1, 8, 1};
    for (unsigned i = 0; i < 50; i++) {
        machine = create(&config);
        assert_int_equal(machine_start(machine, NULL), 0);
        if (i & 1)
            usleep(i * 100);
        machine_stop(machine);
        assert_int_equal(finish(machine), MACHINE_STOPPED);
        machine_destroy(machine);
    }
}

/* Boots three times: a byte in CMOS counts, for it outlives resets. */
static int reset_twice(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    u64 boots = fake.vms;

    if (vcpu->vcpu.index)
        return FAKE_SLEEP;
    switch (number) {
    case 0:
        /* The boot state is there again each time. */
        assert_int_equal(vcpu->regs.rip, 0x100000);
        assert_int_equal(vcpu->fpu.fcw, 0x37f); /* as firmware leaves it */
        assert_int_equal(vcpu->fpu.mxcsr, 0x1f80);
        assert_int_equal(vcpu->sregs.cs.selector, 0x10);
        return fake_io(run, true, 0x70, 1, 0x40);
    case 1:
        return fake_io(run, false, 0x71, 1, 0);
    case 2:
        assert_int_equal(fake_io_data(run), boots - 1);
        return fake_io(run, true, 0x71, 1, boots);
    case 3:
        return boots == 3 ? fake_io(run, true, 0x604, 2, 1 << 13 | DEVICE_ACPI_SLP_TYP_S5 << 10)
                          : fake_io(run, true, boots == 1 ? 0xcf9 : 0x64, 1, boots == 1 ? 6 : 0xfe);
    default:
        return FAKE_SLEEP;
    }
}

static void reset_builds_the_guest_anew(void **state)
{
    struct machine_config config = fake_config(kernel_path);

    (void)state;
    fake.script = reset_twice;
    fake.vms = 0;
    config.topology = (struct engine_topology){2, 1, 2, 1};
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    assert_int_equal(fake.vms, 3);
    fake.vms = 0;
    config.end_on_reset = true;
    assert_int_equal(run(&config), MACHINE_RESET);
    assert_int_equal(fake.vms, 1);
}

static int fail_at_once(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    (void)run;
    (void)number;
    return -EFAULT;
}

static void engine_failure_is_explained(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct machine *machine;

    (void)state;
    fake.script = fail_at_once;
    machine = create(&config);
    assert_int_equal(machine_start(machine, NULL), 0);
    assert_int_equal(finish(machine), MACHINE_FAILED);
    assert_non_null(strstr(machine_error(machine), "the script says so"));
    assert_non_null(strstr(machine_report(machine), "RIP 0000000000100000"));
    machine_destroy(machine);
}

/* Echoes what comes in, in capitals, by polling; ends at a full stop. */
static int echo(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    static u64 byte;

    if (vcpu->vcpu.index)
        return FAKE_SLEEP;
    if (!number)
        return fake_io(run, true, 0x3fc, 1, 0x03); /* DTR, RTS */
    if (run->io.port == 0x3fd && (fake_io_data(run) & 1))
        return fake_io(run, false, 0x3f8, 1, 0);
    if (run->io.port == 0x3f8 && run->io.direction == KVM_EXIT_IO_IN) {
        byte = fake_io_data(run);
        if (byte == '.')
            return fake_io(run, true, 0x604, 2, 1 << 13 | DEVICE_ACPI_SLP_TYP_S5 << 10);
        return fake_io(run, true, 0x3f8, 1, byte & ~0x20ull);
    }
    return fake_io(run, false, 0x3fd, 1, 0);
}

static void serial_port_on_pipes(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    int to[2], from[2];
    char text[64] = {0};

    (void)state;
    assert_int_equal(pipe(to) | pipe(from), 0);
    config.serial =
        (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = to[0], .out = from[1]};
    assert_int_equal(write(to[1], "hello.", 6), 6);
    close(to[1]); /* the end of input is not the end of the run */
    fake.script = echo;
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    assert_int_equal(read(from[0], text, sizeof(text)), 5);
    assert_string_equal(text, "HELLO");
    close(to[0]);
    close(from[0]);
    close(from[1]);
}

static void serial_port_from_a_plain_file(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    char path[] = "/tmp/triode-test-XXXXXX", text[64] = {0};
    int in = mkstemp(path), from[2];

    (void)state;
    assert_int_equal(write(in, "plain.", 6), 6);
    lseek(in, 0, SEEK_SET);
    assert_int_equal(pipe(from), 0);
    config.serial = (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = in, .out = from[1]};
    fake.script = echo;
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    assert_int_equal(read(from[0], text, sizeof(text)), 5);
    assert_string_equal(text, "PLAIN");
    unlink(path);
    close(in);
    close(from[0]);
    close(from[1]);
}

static void serial_port_on_a_pty(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct machine *machine;
    struct pollfd pfd = {.events = POLLIN};
    char text[64] = {0};
    int fd;

    (void)state;
    config.serial.kind = MACHINE_SERIAL_PTY;
    fake.script = echo;
    machine = create(&config);
    fd = open(machine_serial_path(machine), O_RDWR | O_NOCTTY);
    assert_true(fd >= 0);
    assert_int_equal(machine_start(machine, NULL), 0);
    assert_int_equal(write(fd, "pty", 3), 3);
    for (size_t len = 0; len < 3;) {
        pfd.fd = fd;
        assert_int_equal(poll(&pfd, 1, 5000), 1);
        len += (size_t)read(fd, text + len, sizeof(text) - len);
    }
    assert_string_equal(text, "PTY");
    assert_int_equal(write(fd, ".", 1), 1);
    assert_int_equal(finish(machine), MACHINE_POWER_OFF);
    machine_destroy(machine);
    close(fd);
}

/* More output than the ring and the pipe hold, read slowly: nothing is lost. */
static int talk(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    static unsigned sent;

    if (vcpu->vcpu.index)
        return FAKE_SLEEP;
    if (!number)
        sent = 0;
    if (sent == 300000)
        return number < 10000000
                   ? fake_io(run, true, 0x604, 2, 1 << 13 | DEVICE_ACPI_SLP_TYP_S5 << 10)
                   : FAKE_SLEEP;
    if (number && run->io.port == 0x3fd && (fake_io_data(run) & 0x20)) {
        sent++;
        return fake_io(run, true, 0x3f8, 1, 'a' + sent % 26);
    }
    return fake_io(run, false, 0x3fd, 1, 0);
}

static void slow_reader_loses_nothing(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct machine *machine;
    unsigned seen = 0;
    u8 buf[1024];
    int from[2];

    (void)state;
    assert_int_equal(pipe(from), 0);
    config.serial = (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = -1, .out = from[1]};
    fake.script = talk;
    machine = create(&config);
    assert_int_equal(machine_start(machine, NULL), 0);
    usleep(50000);
    while (seen < 300000) {
        ssize_t len = read(from[0], buf, sizeof(buf));

        assert_true(len > 0);
        for (ssize_t i = 0; i < len; i++)
            assert_int_equal(buf[i], 'a' + ++seen % 26);
    }
    assert_int_equal(finish(machine), MACHINE_POWER_OFF);
    machine_destroy(machine);
    close(from[0]);
    close(from[1]);
}

/* The reader goes away: the guest must not hang on it. */
static void lost_reader_does_not_stop_the_guest(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    int from[2];

    (void)state;
    assert_int_equal(pipe(from), 0);
    close(from[0]);
    config.serial = (struct machine_serial){.kind = MACHINE_SERIAL_FDS, .in = -1, .out = from[1]};
    fake.script = talk;
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    close(from[1]);
}

/* The 1024 Hz interrupt of the clock, through the I/O thread's timers. */
static int count_ticks(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number)
{
    (void)vcpu;
    switch (number) {
    case 0:
        return fake_io(run, true, 0x70, 1, 0x0b);
    case 1:
        return fake_io(run, true, 0x71, 1, 0x42);
    default:
        for (unsigned i = 0; i < 5000 && !__atomic_load_n(&fake.line[8], __ATOMIC_SEQ_CST); i++)
            usleep(1000);
        return fake_io(run, true, 0x604, 2, 1 << 13 | DEVICE_ACPI_SLP_TYP_S5 << 10);
    }
}

static void timers_reach_interrupt_lines(void **state)
{
    struct machine_config config = fake_config(kernel_path);

    (void)state;
    fake.line[8] = 0;
    fake.script = count_ticks;
    assert_int_equal(run(&config), MACHINE_POWER_OFF);
    assert_int_equal(fake.line[8], 1);
}

static void bad_configurations_are_refused(void **state)
{
    struct machine_config config;
    struct machine *machine;
    struct err err;

    (void)state;
    config = fake_config(kernel_path);
    config.memory = MiB;
    assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
    assert_non_null(strstr(err.text, "--mem"));
    config = fake_config(kernel_path);
    config.memory = 64 * MiB + 1;
    assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
    config = fake_config("/nonexistent");
    assert_int_equal(machine_create(&machine, &config, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent"));
    config = fake_config(kernel_path);
    config.board = "toaster";
    assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
    assert_int_equal(fake.vcpus, 0);
}

static void statistics_count_exits(void **state)
{
    struct machine_config config = fake_config(kernel_path);
    struct machine *machine;
    struct strbuf text = {0};
    unsigned long long io = 0;

    (void)state;
    fake.script = power_off;
    machine = create(&config);
    assert_int_equal(machine_start(machine, NULL), 0);
    finish(machine);
    machine_stats(machine, &text);
    assert_non_null(text.text);
    assert_int_equal(sscanf(strstr(text.text, "  io "), "  io %llu", &io), 1);
    assert_int_equal(io, 1);
    assert_non_null(strstr(text.text, "wall clock"));
    strbuf_free(&text);
    machine_destroy(machine);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    fake_kernel(kernel_path, code, sizeof(code));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(kernel_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_off_ends_all_vcpus),
        cmocka_unit_test(stop_reaches_sleeping_vcpus),
        cmocka_unit_test(reset_builds_the_guest_anew),
        cmocka_unit_test(engine_failure_is_explained),
        cmocka_unit_test(serial_port_on_pipes),
        cmocka_unit_test(serial_port_from_a_plain_file),
        cmocka_unit_test(serial_port_on_a_pty),
        cmocka_unit_test(slow_reader_loses_nothing),
        cmocka_unit_test(lost_reader_does_not_stop_the_guest),
        cmocka_unit_test(timers_reach_interrupt_lines),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(statistics_count_exits),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
