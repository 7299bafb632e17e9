/* What the suite's guests can ask their host for: the devices and commands of protocol.h. */
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"

static void record_line(struct host_cpu *cpu, u32 value)
{
    struct host *host = cpu->host;
    u64 got, want;
    size_t used;

    cpu->line[cpu->words++] = value;
    if (cpu->words < ARRAY_SIZE(cpu->line))
        return;
    cpu->words = 0;
    got = (u64)cpu->line[2] << 32 | cpu->line[1];
    want = (u64)cpu->line[4] << 32 | cpu->line[3];
    mutex_lock(&host->lock);
    host->checks++;
    host->last_line = cpu->line[0];
    used = strlen(host->trouble);
    if (got != want)
        snprintf(host->trouble + used, sizeof host->trouble - used,
                 "guest line %u: got 0x%" PRIx64 ", wanted 0x%" PRIx64 "\n", cpu->line[0], got,
                 want);
    mutex_unlock(&host->lock);
}

static void end_guest(struct host *host, u32 checks)
{
    host->checks_named = checks;
    host->done = true;
    host->stop = true;
    for (unsigned i = 0; i < host->cpus; i++)
        host->ops->kick(host->cpu[i].vcpu);
}

struct order {
    struct host *host;
    u32 command, a, b;
};

static void execute(const struct order *order)
{
    struct host *host = order->host;
    struct kvm_msi msi = {.address_lo = order->a, .data = order->b};

    switch (order->command & ~COMMAND_DELAYED) {
    case COMMAND_IRQ:
        host->ops->irq_line(host->vm, order->a, order->b);
        break;
    case COMMAND_PULSE:
        host->ops->irq_line(host->vm, order->a, 1);
        host->ops->irq_line(host->vm, order->a, 0);
        break;
    case COMMAND_MSI:
        host->ops->signal_msi(host->vm, &msi);
        break;
    case COMMAND_NMI:
        /* Operations on a vCPU belong to its thread. */
        if (order->a < host->cpus) {
            host->cpu[order->a].nmi_wanted = true;
            host->ops->kick(host->cpu[order->a].vcpu);
        }
        break;
    }
}

static void *order_thread(void *opaque)
{
    struct order *order = opaque;

    usleep(10000);
    if (!order->host->stop)
        execute(order);
    order->host->orders--;
    free(order);
    return NULL;
}

static void take_order(struct host *host, u32 command)
{
    struct order order = {host, command, host->arg_a, host->arg_b}, *copy;
    pthread_t thread;

    if (!(command & COMMAND_DELAYED)) {
        execute(&order);
        return;
    }
    copy = malloc(sizeof *copy);
    if (!copy)
        return;
    *copy = order;
    host->orders++;
    if (thread_create(&thread, "order", order_thread, copy, NULL)) {
        host->orders--;
        free(copy);
        return;
    }
    pthread_detach(thread);
}

static void note_access(struct host *host, u32 address, u32 size, bool write, u32 count)
{
    host->last.what = size | write << 8 | count << 16;
    host->last.address = address;
    host->accesses++;
}

static u32 read_word(struct host *host, u32 port)
{
    u32 value = 0xffffffff;

    switch (port) {
    case PORT_LAST_ACCESS:
        return host->last.what;
    case PORT_LAST_ADDRESS:
        return host->last.address;
    case PORT_ACCESSES:
        value = host->accesses;
        host->accesses = 0;
        return value;
    case PORT_STREAM_POP:
        if (host->queue_tail != host->queue_head)
            value = host->queue[host->queue_tail++ % sizeof host->queue];
        return value;
    }
    return value;
}

static bool write_word(struct host_cpu *cpu, u32 port, u32 value)
{
    struct host *host = cpu->host;
    size_t used;

    switch (port) {
    case PORT_DELAY:
        return true;
    case PORT_EXPECT:
        record_line(cpu, value);
        return true;
    case PORT_DONE:
        end_guest(host, value);
        return true;
    case PORT_CONSOLE:
        used = strlen(host->console);
        if (used + 1 < sizeof host->console)
            host->console[used] = value;
        return true;
    case PORT_ARG_A:
        host->arg_a = value;
        return true;
    case PORT_ARG_B:
        host->arg_b = value;
        return true;
    case PORT_COMMAND:
        take_order(host, value);
        return true;
    case PORT_STREAM_RESET:
        host->stream_next = 0;
        host->queue_head = host->queue_tail = 0;
        host->accesses = 0;
        return true;
    }
    return false;
}

static bool io_element(struct host_cpu *cpu, u32 port, u8 *data, u32 size, bool write)
{
    struct host *host = cpu->host;
    u32 value = 0;

    if (port >= PORT_REGS && port + size <= PORT_REGS + PORT_REGS_COUNT) {
        u8 *reg = host->regs + (port - PORT_REGS);

        memcpy(write ? reg : data, write ? data : reg, size);
        return true;
    }
    if (port == PORT_STREAM) {
        for (u32 i = 0; i < size; i++) {
            if (write)
                host->queue[host->queue_head++ % sizeof host->queue] = data[i];
            else
                data[i] = ++host->stream_next;
        }
        return true;
    }
    if (write) {
        memcpy(&value, data, size);
        return write_word(cpu, port, value);
    }
    value = read_word(host, port);
    memcpy(data, &value, size);
    return port == PORT_DELAY || (port >= PORT_LAST_ACCESS && port <= PORT_STREAM_POP);
}

static bool handle_io(struct host_cpu *cpu)
{
    struct kvm_run *run = cpu->vcpu->run;
    u8 *data = (u8 *)run + run->io.data_offset;
    bool write = run->io.direction == KVM_EXIT_IO_OUT, known = true;
    u32 port = run->io.port;

    if ((port >= PORT_REGS && port < PORT_REGS + PORT_REGS_COUNT) || port == PORT_STREAM)
        note_access(cpu->host, port, run->io.size, write, run->io.count);
    for (u32 i = 0; i < run->io.count && known; i++)
        known = io_element(cpu, port, data + i * run->io.size, run->io.size, write);
    return known;
}

static bool handle_mmio(struct host_cpu *cpu)
{
    struct kvm_run *run = cpu->vcpu->run;
    struct host *host = cpu->host;
    u64 gpa = run->mmio.phys_addr;
    u32 offset = gpa & 0xfff;
    bool rom = gpa - ROM_GPA < ROM_BYTES;

    if (gpa - LOW_HOLE_GPA >= LOW_HOLE_BYTES && gpa - MMIO_GPA >= 0x1000 && !rom)
        return false;
    if (offset + run->mmio.len > sizeof host->page)
        return false;
    note_access(host, offset, run->mmio.len, run->mmio.is_write, 1);
    if (rom) /* writes to a read-only slot go nowhere */
        return run->mmio.is_write;
    if (run->mmio.is_write)
        memcpy(host->page + offset, run->mmio.data, run->mmio.len);
    else
        memcpy(run->mmio.data, host->page + offset, run->mmio.len);
    return true;
}

bool host_handle_exit(struct host_cpu *cpu)
{
    switch (cpu->vcpu->run->exit_reason) {
    case KVM_EXIT_IO:
        return handle_io(cpu);
    case KVM_EXIT_MMIO:
        return handle_mmio(cpu);
    default:
        return false;
    }
}
