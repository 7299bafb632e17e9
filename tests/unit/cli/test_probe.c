/* The probe against engines that fail in every way it distinguishes. They have no CPU: what the
 * guest would do is a script. */
#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/probe.h"
#include "cli/probe_guest.h"

struct step {
    u32 exit, port, out; /* an IN when out is 0 */
};

/* What a guest that works does, up to its end. */
static const struct step good[] = {
    {KVM_EXIT_IO, PROBE_PORT_ECHO, 0},          {KVM_EXIT_IO, PROBE_PORT, (u32)~PROBE_MAGIC},
    {KVM_EXIT_IO, PROBE_PORT_COUNT, 0},         {KVM_EXIT_IO, PROBE_PORT, PROBE_COUNTED},
    {KVM_EXIT_IO, PROBE_PORT, PROBE_CPUID},     {KVM_EXIT_IO, PROBE_PORT, PROBE_PAGE_FAULT},
    {KVM_EXIT_IO, PROBE_PORT, PROBE_SYSCALL},   {KVM_EXIT_IO, PROBE_PORT, PROBE_SSE},
    {KVM_EXIT_IO, PROBE_PORT, PROBE_MMIO_DONE}, {KVM_EXIT_IO, PROBE_PORT, PROBE_TIMER},
    {KVM_EXIT_IO, PROBE_PORT, PROBE_END},
};

static struct {
    int open_error, vm_error;
    size_t steps; /* of good, then `last` */
    struct step last;
    u64 loop_ns; /* CPU time that the counting loop takes */
    size_t at;
    struct engine engine;
    struct vm vm;
    struct vcpu vcpu;
    union {
        struct kvm_run run;
        u8 bytes[8192];
    };
} fake;

static int fake_open(struct engine **engine, struct err *err)
{
    if (fake.open_error)
        return err_set(err, fake.open_error, "no such engine here");
    *engine = &fake.engine;
    return 0;
}

static void fake_close(struct engine *engine)
{
    (void)engine;
}

static int fake_cpuid(struct engine *engine, struct kvm_cpuid2 *cpuid)
{
    (void)engine;
    cpuid->nent = 0;
    return 0;
}

static int fake_vm_create(struct engine *engine, const struct engine_vm_config *config,
                          struct vm **vm, struct err *err)
{
    (void)engine;
    (void)config;
    if (fake.vm_error)
        return err_set(err, fake.vm_error, "no VM today");
    *vm = &fake.vm;
    return 0;
}

static void fake_vm_destroy(struct vm *vm)
{
    (void)vm;
}

static int fake_set_memory(struct vm *vm, const struct kvm_userspace_memory_region *region)
{
    (void)vm;
    (void)region;
    return 0;
}

static int fake_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **vcpu,
                            struct err *err)
{
    (void)vm;
    (void)index;
    (void)apic_id;
    (void)err;
    fake.vcpu.run = &fake.run;
    *vcpu = &fake.vcpu;
    return 0;
}

static void fake_vcpu_destroy(struct vcpu *vcpu)
{
    (void)vcpu;
}

static int fake_set_cpuid(struct vcpu *vcpu, const struct kvm_cpuid2 *cpuid)
{
    (void)vcpu;
    (void)cpuid;
    return 0;
}

static int fake_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs)
{
    (void)vcpu;
    memset(sregs, 0, sizeof *sregs);
    return 0;
}

static int fake_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    (void)vcpu;
    (void)sregs;
    return 0;
}

static int fake_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs)
{
    (void)vcpu;
    (void)regs;
    return 0;
}

static int fake_run(struct vcpu *vcpu)
{
    const struct step *step = fake.at < fake.steps ? &good[fake.at] : &fake.last;
    u32 *data = (u32 *)(fake.bytes + 4096);

    fake.at++;
    vcpu->run->exit_reason = step->exit;
    vcpu->run->io.port = step->port;
    vcpu->run->io.size = 4;
    vcpu->run->io.count = 1;
    vcpu->run->io.data_offset = 4096;
    vcpu->run->io.direction = step->out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    if (step->out == PROBE_COUNTED)
        for (u64 start = clock_thread_ns(); clock_thread_ns() - start < fake.loop_ns;)
            ;
    if (step->out)
        *data = step->out;
    return 0;
}

static void fake_kick(struct vcpu *vcpu)
{
    (void)vcpu;
}

static void fake_explain(struct vcpu *vcpu, struct err *err)
{
    (void)vcpu;
    err_set(err, 0, "because");
}

#define FAKE_OPS                                                                                   \
    {                                                                                              \
        .name = "fake", .open = fake_open, .close = fake_close, .get_supported_cpuid = fake_cpuid, \
        .vm_create = fake_vm_create, .vm_destroy = fake_vm_destroy, .set_memory = fake_set_memory, \
        .vcpu_create = fake_vcpu_create, .vcpu_destroy = fake_vcpu_destroy,                        \
        .set_cpuid = fake_set_cpuid, .get_sregs = fake_get_sregs, .set_sregs = fake_set_sregs,     \
        .set_regs = fake_set_regs, .vcpu_run = fake_run, .kick = fake_kick,                        \
        .explain = fake_explain,                                                                   \
    }
/* What the probe takes for the host kernel's engine is judged by its speed, too. */
const struct engine_ops kvm_engine_ops = FAKE_OPS;
const struct engine_ops soft_engine_ops = FAKE_OPS;

static void probe(const struct engine_ops *ops, struct probe_result *result)
{
    fake.at = 0;
    assert_int_equal(probe_engine(ops, result), 0);
}

static int reset(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.steps = ARRAY_SIZE(good);
    fake.loop_ns = 5000000;
    return 0;
}

static void assert_says(const struct probe_result *result, const char *part)
{
    if (!strstr(result->reason, part))
        fail_msg("\"%s\" is not in \"%s\"", part, result->reason);
}

static void all_well(void **state)
{
    struct probe_result result;

    (void)state;
    probe(&soft_engine_ops, &result);
    assert_true(result.usable);
    assert_false(result.emulated);
    /* 2000 rounds in 5 ms or a little more. */
    assert_true(result.mips > 0 && result.mips < 4);
    assert_says(&result, "ran to its end");
}

static void slow_kernel_engine_emulates(void **state)
{
    struct probe_result result;

    (void)state;
    probe(&kvm_engine_ops, &result);
    assert_false(result.usable);
    assert_true(result.emulated);
    assert_true(result.native_mips > 100);
    assert_says(&result, "emulates rather than virtualizes: ");
}

static void does_not_open(void **state)
{
    struct probe_result result;

    (void)state;
    fake.open_error = -ENOENT;
    probe(&kvm_engine_ops, &result);
    assert_false(result.usable);
    assert_string_equal(result.reason, "no such engine here");
}

static void makes_no_vm(void **state)
{
    struct probe_result result;

    (void)state;
    fake.vm_error = -EBUSY;
    probe(&kvm_engine_ops, &result);
    assert_false(result.usable);
    assert_string_equal(result.reason, "no VM today");
}

static void fails_on_the_way(void **state)
{
    struct probe_result result;

    (void)state;
    fake.steps = 5;
    fake.last = (struct step){.exit = KVM_EXIT_INTERNAL_ERROR};
    probe(&soft_engine_ops, &result);
    assert_false(result.usable);
    assert_says(&result, "fails at a page fault with a handler: because");
    reset(NULL);
    fake.steps = 8;
    fake.last = (struct step){.exit = KVM_EXIT_SHUTDOWN};
    probe(&soft_engine_ops, &result);
    assert_says(&result, "fails at MMIO: KVM_EXIT_SHUTDOWN");
    /* Fast, but wrong. */
    reset(NULL);
    fake.loop_ns = 0;
    fake.steps = 4;
    fake.last = (struct step){KVM_EXIT_IO, PROBE_PORT, PROBE_FAIL};
    probe(&soft_engine_ops, &result);
    assert_false(result.usable);
    assert_says(&result, "fails at CPUID");
}

static void wrong_echo(void **state)
{
    struct probe_result result;

    (void)state;
    fake.steps = 1;
    fake.last = (struct step){KVM_EXIT_IO, PROBE_PORT, 12345};
    probe(&soft_engine_ops, &result);
    assert_false(result.usable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_well, reset),
        cmocka_unit_test_setup(slow_kernel_engine_emulates, reset),
        cmocka_unit_test_setup(does_not_open, reset),
        cmocka_unit_test_setup(makes_no_vm, reset),
        cmocka_unit_test_setup(fails_on_the_way, reset),
        cmocka_unit_test_setup(wrong_echo, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
