/*
 * Engine exits. One handler a row of engine/exits.def, with this contract: called in the vCPU's
 * thread, not in run(), with the record the engine filled; answers
 *   MACHINE_RESUME  run on; data for the guest, if any, is in the record;
 *   MACHINE_STOP    this vCPU's thread ends, after machine_finish said why;
 *   MACHINE_ERROR   the engine cannot go on: the caller reports what it says, with registers.
 */
#include <string.h>

#include "base/thread.h"
#include "engine/engine.h"
#include "machine/private.h"
#include "trace/trace.h"

#define HANDLER(suffix)                                                                            \
    static enum machine_verdict machine_exit_##suffix(                                             \
        struct machine *machine, struct machine_vcpu *vcpu, struct kvm_run *run)

static enum machine_verdict stop_with_report(struct machine_vcpu *vcpu, enum machine_end end,
                                             const char *text)
{
    machine_vcpu_finish(vcpu, end, text);
    return MACHINE_STOP;
}

HANDLER(io)
{
    u8 *data = (u8 *)run + run->io.data_offset;
    unsigned size = run->io.size;

    for (u32 i = 0; i < run->io.count; i++, data += size) {
        u64 value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            device_bus_write(&machine->ports, run->io.port, size, value);
        } else {
            device_bus_read(&machine->ports, run->io.port, size, &value);
            memcpy(data, &value, size);
        }
        trace_emit(PIO, pio, (int)vcpu->index,
                   .op = run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in", .port = run->io.port,
                   .size = size, .value = value);
    }
    return MACHINE_RESUME;
}

HANDLER(mmio)
{
    u64 gpa = run->mmio.phys_addr;

    /* Engines may hand up pieces of an access that crosses a page, of any length up to 8. */
    for (u32 done = 0; done < run->mmio.len;) {
        u32 left = run->mmio.len - done, size = 8;
        u64 value = 0;

        while (size > left)
            size /= 2;
        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + done, size);
            device_bus_write(&machine->memory, gpa + done, size, value);
        } else {
            device_bus_read(&machine->memory, gpa + done, size, &value);
            memcpy(run->mmio.data + done, &value, size);
        }
        trace_emit(MMIO, mmio, (int)vcpu->index, .op = run->mmio.is_write ? "write" : "read",
                   .gpa = gpa + done, .size = size, .value = value);
        done += size;
    }
    return MACHINE_RESUME;
}

HANDLER(shutdown)
{
    (void)run;
    if (machine->gdb)
        gdb_shutdown(vcpu);
    if (machine->config.reset_on_triple_fault) {
        machine->env.request(machine->env.opaque, DEVICE_REQUEST_RESET);
        return MACHINE_RESUME;
    }
    return stop_with_report(vcpu, MACHINE_TRIPLE_FAULT,
                            "the guest's CPU shut down after a triple fault");
}

HANDLER(system_event)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        machine->env.request(machine->env.opaque, DEVICE_REQUEST_POWER_OFF);
        return MACHINE_RESUME;
    case KVM_SYSTEM_EVENT_RESET:
        machine->env.request(machine->env.opaque, DEVICE_REQUEST_RESET);
        return MACHINE_RESUME;
    case KVM_SYSTEM_EVENT_CRASH:
        return stop_with_report(vcpu, MACHINE_PANIC, "the guest reported that it crashed");
    default:
        return MACHINE_ERROR;
    }
}

HANDLER(intr)
{
    (void)machine;
    (void)vcpu;
    (void)run;
    return MACHINE_RESUME;
}

HANDLER(irq_window_open)
{
    (void)machine;
    (void)vcpu;
    (void)run;
    return MACHINE_RESUME;
}

/* Interrupts are the engine's: nothing here could wake a CPU that halted, or debug one. */
HANDLER(hlt)
{
    (void)machine;
    (void)run;
    return stop_with_report(vcpu, MACHINE_FAILED,
                            "the engine left a halted CPU to the machine, which cannot wake it");
}

HANDLER(debug)
{
    if (machine->gdb) {
        vcpu->debug.at_rest = true;
        return gdb_debug_exit(vcpu, run);
    }
    return stop_with_report(vcpu, MACHINE_FAILED,
                            "the engine stopped at a breakpoint that nobody set");
}

HANDLER(unknown)
{
    (void)machine;
    (void)vcpu;
    (void)run;
    return MACHINE_ERROR;
}

HANDLER(fail_entry)
{
    (void)machine;
    (void)vcpu;
    (void)run;
    return MACHINE_ERROR;
}

HANDLER(internal_error)
{
    (void)machine;
    (void)vcpu;
    (void)run;
    return MACHINE_ERROR;
}

static const struct {
    u32 reason;
    enum machine_verdict (*handle)(struct machine *machine, struct machine_vcpu *vcpu,
                                   struct kvm_run *run);
} handlers[] = {
#define X(number, suffix, sentence) [MACHINE_EXIT_##suffix] = {number, machine_exit_##suffix},
#include "engine/exits.def"
#undef X
};

enum machine_verdict machine_handle_exit(struct machine *machine, struct machine_vcpu *vcpu,
                                         struct kvm_run *run)
{
    struct err text;

    trace_emit(MACHINE, machine, (int)vcpu->index, .exit = engine_exit_name(run->exit_reason));
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (handlers[i].reason != run->exit_reason)
            continue;
        vcpu->exits[i]++;
        return handlers[i].handle(machine, vcpu, run);
    }
    err_set(&text, 0, "vCPU %u: the engine made exit %u, which the machine does not know",
            vcpu->index, run->exit_reason);
    return stop_with_report(vcpu, MACHINE_FAILED, text.text);
}
