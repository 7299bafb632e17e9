/* vCPU threads: run the guest, handle the exit, until told to stop. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "machine/private.h"
#include "trace/trace.h"

static const char *const state_names[] = {
#define X(constant, name) [MACHINE_VCPU_##constant] = name,
    MACHINE_VCPU_STATES(X)
#undef X
};

/* The only place that changes a vCPU thread's run state. */
static void set_state(struct machine_vcpu *vcpu, enum machine_vcpu_state state)
{
    trace_emit(STATE, state, (int)vcpu->index, .from = state_names[vcpu->state],
               .to = state_names[state]);
    vcpu->state = state;
}

void machine_vcpu_finish(struct machine_vcpu *vcpu, enum machine_end end, const char *text)
{
    struct machine *machine = vcpu->machine;
    struct strbuf dump = {0};

    machine_dump_vcpu(vcpu->vcpu, &dump);
    mutex_lock(&machine->lock);
    if (machine->end == MACHINE_RUNNING && !machine->report.text)
        machine->report = dump;
    else
        strbuf_free(&dump);
    mutex_unlock(&machine->lock);
    machine_finish(machine, end, text);
}

static void fail(struct machine_vcpu *vcpu, int error)
{
    struct machine *machine = vcpu->machine;
    struct err why = {0};

    if (machine->ops->explain)
        machine->ops->explain(vcpu->vcpu, &why);
    if (!why.text[0])
        err_set(&why, error, "%s", strerror(-error));
    err_context(&why, error, "vCPU %u: the %s engine cannot go on", vcpu->index,
                machine->ops->name);
    machine_vcpu_finish(vcpu, MACHINE_FAILED, why.text);
}

/* One pass: run, then handle. False when the thread is to end. */
static bool step(struct machine_vcpu *vcpu)
{
    struct machine *machine = vcpu->machine;
    enum machine_verdict verdict;
    u64 start, back;
    int ret;

    if (__atomic_load_n(&machine->stopping, __ATOMIC_SEQ_CST))
        return false;
    if (unlikely(__atomic_load_n(&vcpu->debug.held, __ATOMIC_SEQ_CST)) && vcpu->debug.at_rest) {
        gdb_park(vcpu);
        return true;
    }
    start = clock_mono_ns();
    ret = machine->ops->vcpu_run(vcpu->vcpu);
    back = clock_mono_ns();
    vcpu->engine_ns += back - start;
    vcpu->debug.at_rest = ret == -EINTR;
    if (ret == -EINTR) {
        vcpu->exits[MACHINE_EXIT_intr]++;
        return true;
    }
    if (ret < 0) {
        fail(vcpu, ret);
        return false;
    }
    set_state(vcpu, MACHINE_VCPU_HANDLING);
    verdict = machine_handle_exit(machine, vcpu, vcpu->vcpu->run);
    if (verdict == MACHINE_ERROR)
        fail(vcpu, -EIO);
    set_state(vcpu, MACHINE_VCPU_RUNNING);
    vcpu->machine_ns += clock_mono_ns() - back;
    return verdict == MACHINE_RESUME;
}

static void *vcpu_main(void *opaque)
{
    struct machine_vcpu *vcpu = opaque;
    struct machine *machine = vcpu->machine;

    set_state(vcpu, MACHINE_VCPU_RUNNING);
    while (step(vcpu))
        ;
    set_state(vcpu, MACHINE_VCPU_STOPPED);
    if (__atomic_sub_fetch(&machine->running, 1, __ATOMIC_SEQ_CST) == 0)
        loop_wake(&machine->loop);
    return NULL;
}

int machine_vcpus_start(struct machine *machine, struct err *err)
{
    unsigned cpus = machine->config.topology.cpus;

    /* Counted before they start, so that an early end of one is not taken for the end of all. */
    __atomic_store_n(&machine->running, cpus, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < cpus; i++) {
        struct machine_vcpu *vcpu = &machine->vcpus[i];
        char name[16];
        int ret;

        snprintf(name, sizeof(name), "triode-cpu%u", i);
        vcpu->debug.at_rest = true;
        ret = thread_create(&vcpu->thread, name, vcpu_main, vcpu, err);
        if (ret) {
            __atomic_sub_fetch(&machine->running, cpus - i, __ATOMIC_SEQ_CST);
            return ret;
        }
        vcpu->has_thread = true;
    }
    return 0;
}

void machine_vcpus_join(struct machine *machine)
{
    for (unsigned i = 0; i < MACHINE_MAX_CPUS; i++) {
        if (machine->vcpus[i].has_thread)
            pthread_join(machine->vcpus[i].thread, NULL);
        machine->vcpus[i].has_thread = false;
    }
}

void machine_kick_all(struct machine *machine)
{
    for (unsigned i = 0; i < MACHINE_MAX_CPUS; i++)
        if (machine->vcpus[i].has_thread)
            machine->ops->kick(machine->vcpus[i].vcpu);
}
