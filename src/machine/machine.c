/* A machine's life: creation, threads, resets, the end. */
#include "machine/private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "device/vtd.h"
#include "machine/gdb.h"

/* How long the end waits for a terminal or pipe that does not take the serial port's output. */
#define FLUSH_NS (5 * NSEC_PER_SEC)
#define FLUSH_STOPPED_NS (NSEC_PER_SEC / 5)

#define X(name) extern const struct machine_board machine_board_##name;
#include "machine/boards.def"
#undef X

static const struct {
    const char *name;
    const struct machine_board *board;
} boards[] = {
#define X(name) {#name, &machine_board_##name},
#include "machine/boards.def"
#undef X
};

static const struct machine_board *find_board(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(boards); i++)
        if (!strcmp(boards[i].name, name))
            return boards[i].board;
    return NULL;
}

/* ---- What devices ask for ------------------------------------------------------------------ */

static void irq_set(void *opaque, unsigned line, int level)
{
    struct machine *machine = opaque;

    /* While the board is built or reset there is no VM; its lines then start low. */
    if (machine->vm)
        machine->ops->irq_line(machine->vm, line, level);
}

static void timer_set(void *opaque, struct device_timer *timer, u64 deadline_ns)
{
    struct machine *machine = opaque;

    loop_timer_set(&machine->loop, timer, deadline_ns);
}

/* Makes the vCPU threads leave their loops; the I/O thread kicks them and does what follows. */
static void halt_vcpus(struct machine *machine)
{
    __atomic_store_n(&machine->stopping, 1, __ATOMIC_SEQ_CST);
    loop_wake(&machine->loop);
}

static void request(void *opaque, enum device_request what)
{
    struct machine *machine = opaque;

    if (what == DEVICE_REQUEST_POWER_OFF) {
        machine_finish(machine, MACHINE_POWER_OFF, NULL);
        return;
    }
    if (what == DEVICE_REQUEST_RESET && machine->config.end_on_reset) {
        machine_finish(machine, MACHINE_RESET, NULL);
        return;
    }
    mutex_lock(&machine->lock);
    if (what == DEVICE_REQUEST_RESET)
        machine->reset_wanted = true;
    else if (what == DEVICE_REQUEST_SLEEP)
        machine->sleep_wanted = true;
    else
        machine->wake_wanted = machine->sleep_wanted;
    mutex_unlock(&machine->lock);
    if (what == DEVICE_REQUEST_WAKE)
        loop_wake(&machine->loop);
    else
        halt_vcpus(machine);
}

static void send_msi(void *opaque, u64 address, u32 data)
{
    struct machine *machine = opaque;
    const struct kvm_msi msi = {
        .address_lo = (u32)address, .address_hi = (u32)(address >> 32), .data = data};

    if (machine->vm && machine->ops->signal_msi)
        machine->ops->signal_msi(machine->vm, &msi);
}

/* What the I/O APIC sends, on its way through the IOMMU. */
static bool remap_io_apic(void *opaque, struct kvm_msi *msi)
{
    struct machine *machine = opaque;
    u64 address = msi->address_lo;

    if (!device_vtd_remap(machine->iommu, DEVICE_VTD_SOURCE(DEVICE_VTD_IO_APIC_SLOT), &address,
                          &msi->data))
        return false;
    msi->address_lo = (u32)address;
    msi->address_hi = (u32)(address >> 32);
    return true;
}

static void pit_connect(void *opaque, bool connected)
{
    struct machine *machine = opaque;
    struct kvm_pit_state2 pit;

    /* While the board is built or reset there is no VM; its PIT is then connected. */
    if (!machine->vm || !machine->ops->get_pit || machine->ops->get_pit(machine->vm, &pit))
        return;
    pit.flags &= ~(u32)KVM_PIT_FLAGS_HPET_LEGACY;
    if (!connected)
        pit.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
    machine->ops->set_pit(machine->vm, &pit);
}

static void exit_run(void *opaque, int status)
{
    struct machine *machine = opaque;

    mutex_lock(&machine->lock);
    if (machine->end == MACHINE_RUNNING)
        machine->exit_status = status;
    mutex_unlock(&machine->lock);
    machine_finish(machine, MACHINE_EXITED, NULL);
}

int machine_exit_status(const struct machine *machine)
{
    return machine->exit_status;
}

/* RAM is a shared mapping of a file in memory: what is dropped of it here comes back unchanged by
 * the next access, through fresh page tables of the host and so of the host's hypervisor. */
static void drop_page(void *opaque, u64 gpa)
{
    struct machine *machine = opaque;
    u8 *hva = mem_hva(machine->mem, gpa, MEM_PAGE_SIZE, false);

    if (hva && hva >= machine->ram.hva && hva < machine->ram.hva + machine->ram.size)
        madvise(hva, MEM_PAGE_SIZE, MADV_DONTNEED);
}

void machine_finish(struct machine *machine, enum machine_end end, const char *text)
{
    mutex_lock(&machine->lock);
    if (machine->end == MACHINE_RUNNING) {
        if (text)
            err_set(&machine->error, 0, "%s", text);
        __atomic_store_n(&machine->end, end, __ATOMIC_SEQ_CST);
    }
    mutex_unlock(&machine->lock);
    halt_vcpus(machine);
}

void machine_stop(struct machine *machine)
{
    machine_finish(machine, MACHINE_STOPPED, NULL);
}

/* ---- Power on and off ----------------------------------------------------------------------- */

static int map_ram(struct machine *machine, struct err *err)
{
    for (unsigned i = 0; i < machine->slot_count; i++) {
        const struct machine_ram_slot *slot = &machine->slots[i];
        struct kvm_userspace_memory_region region = {
            .slot = i,
            .guest_phys_addr = slot->gpa,
            .memory_size = slot->size,
            .flags = slot->rom ? KVM_MEM_READONLY : 0,
            .userspace_addr = (uintptr_t)(slot->rom ? slot->rom : machine->ram.hva + slot->offset),
        };
        int ret = machine->ops->set_memory(machine->vm, &region);

        if (ret)
            return err_set(err, ret, "the engine does not take %" PRIu64 " MiB of memory: %s",
                           slot->size / MiB, strerror(-ret));
    }
    return machine_shadow_map(machine)
               ? err_set(err, -EIO, "the engine does not take the memory below 1 MiB")
               : 0;
}

static int create_vcpus(struct machine *machine, struct err *err)
{
    const struct engine_topology *topology = &machine->config.topology;

    for (unsigned i = 0; i < topology->cpus; i++) {
        struct machine_vcpu *vcpu = &machine->vcpus[i];
        int ret;

        vcpu->machine = machine;
        vcpu->index = i;
        vcpu->state = MACHINE_VCPU_CREATED;
        ret = machine->ops->vcpu_create(machine->vm, i, machine_apic_id(topology, i), &vcpu->vcpu,
                                        err);
        if (!ret)
            ret = machine_set_cpuid(machine, vcpu->vcpu, err);
        if (ret)
            return ret;
    }
    return 0;
}

static void power_off(struct machine *machine)
{
    struct vm *vm = machine->vm;

    for (unsigned i = 0; i < MACHINE_MAX_CPUS; i++) {
        if (machine->vcpus[i].vcpu)
            machine->ops->vcpu_destroy(machine->vcpus[i].vcpu);
        machine->vcpus[i].vcpu = NULL;
    }
    machine->vm = NULL;
    if (vm)
        machine->ops->vm_destroy(vm);
    for (unsigned i = 0; i < machine->slot_count; i++)
        mem_set_slot(machine->mem, i, 0, 0, 0, NULL);
    machine_shadow_unmap(machine);
}

/* With @vector, after sleep, the guest goes on there with the memory it had. */
static int power_on(struct machine *machine, u32 vector, struct err *err)
{
    const struct machine_config *config = &machine->config;
    const struct engine_vm_config vm_config = {
        .mem = machine->mem,
        .topology = config->topology,
        .cpu_model = config->cpu_model,
        .jit = config->jit,
        .dump_stages = config->dump_stages,
        .dump_first = config->dump_first,
        .dump_last = config->dump_last,
        .code_cache_bytes = config->code_cache_bytes,
        .count_insns = config->count_insns,
        .pit = true,
    };
    int ret = machine->ops->vm_create(config->engine, &vm_config, &machine->vm, err);

    if (!ret && machine->iommu && machine->ops->set_irq_remap)
        ret = machine->ops->set_irq_remap(machine->vm, remap_io_apic, machine);
    if (!ret)
        ret = map_ram(machine, err);
    if (!ret)
        ret = create_vcpus(machine, err);
    if (!ret)
        ret = vector ? machine->board->wake(machine, vector, err)
                     : machine->board->boot(machine, err);
    return ret;
}

/* A new VM, with fresh memory unless it was @asleep: every engine's power-on state is right by
 * construction. Devices keep what survives a reset on a PC; the paravirtual clock goes on in
 * sleep. */
static int power_cycle(struct machine *machine, bool asleep, struct err *err)
{
    const struct engine_ops *ops = machine->ops;
    u32 vector = asleep ? machine->board->waking_vector(machine) : 0;
    struct kvm_clock_data clock;
    bool has_clock = vector && ops->get_clock && !ops->get_clock(machine->vm, &clock);
    int ret;

    power_off(machine);
    if (!vector && fallocate(machine->ram.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                             (off_t)machine->ram.size))
        return err_set(err, -errno, "cannot clear the guest's memory: %s", strerror(errno));
    for (unsigned i = 0; i < machine->device_count; i++)
        if (!vector || !machine->devices[i]->class->standby)
            device_reset(machine->devices[i]);
    machine->resets += !vector;
    ret = power_on(machine, vector, err);
    for (unsigned i = 0; !ret && vector && i < machine->device_count; i++)
        device_woken(machine->devices[i]);
    if (!ret && has_clock)
        ops->set_clock(machine->vm, &clock);
    return ret;
}

/* ---- The I/O thread -------------------------------------------------------------------------- */

static void end_run(struct machine *machine)
{
    u64 wait = machine->end == MACHINE_STOPPED ? FLUSH_STOPPED_NS : FLUSH_NS;
    u64 one = 1;

    machine->ended_ns = clock_mono_ns();
    if (machine->serial)
        fd_stream_flush(machine->serial, machine->ended_ns + wait);
    if (machine->debug)
        fd_stream_flush(machine->debug, machine->ended_ns + wait);
    if (machine->gdb)
        gdb_ended(machine);
    machine->loop.quit = true;
    if (write(machine->done_fd, &one, sizeof(one)) < 0)
        log_warn("the end of the run cannot be reported: %s", strerror(errno));
}

static void restart(struct machine *machine)
{
    struct err err = {0};
    int ret = power_cycle(machine, !machine->reset_wanted, &err);

    if (!ret && machine->gdb)
        gdb_reset(machine);
    mutex_lock(&machine->lock);
    machine->reset_wanted = machine->sleep_wanted = machine->wake_wanted = false;
    if (machine->end == MACHINE_RUNNING)
        __atomic_store_n(&machine->stopping, 0, __ATOMIC_SEQ_CST);
    mutex_unlock(&machine->lock);
    if (!ret && !__atomic_load_n(&machine->stopping, __ATOMIC_SEQ_CST))
        ret = machine_vcpus_start(machine, &err);
    if (ret)
        machine_finish(machine, MACHINE_FAILED, err.text);
}

static bool asleep(struct machine *machine)
{
    bool asleep;

    mutex_lock(&machine->lock);
    asleep = machine->sleep_wanted && !machine->wake_wanted && !machine->reset_wanted;
    mutex_unlock(&machine->lock);
    return asleep;
}

/* After loop_wake: a stream has work, vCPUs are to stop, or the last of them has. */
static void woken(void *opaque)
{
    struct machine *machine = opaque;

    if (machine->serial)
        fd_stream_service(machine->serial);
    if (machine->debug)
        fd_stream_service(machine->debug);
    if (machine->gdb)
        gdb_woken(machine);
    if (!__atomic_load_n(&machine->stopping, __ATOMIC_SEQ_CST) || machine->loop.quit)
        return;
    if (__atomic_load_n(&machine->running, __ATOMIC_SEQ_CST)) {
        machine_kick_all(machine);
        return;
    }
    machine_vcpus_join(machine);
    if (__atomic_load_n(&machine->end, __ATOMIC_SEQ_CST) != MACHINE_RUNNING)
        end_run(machine);
    else if (!asleep(machine))
        restart(machine);
}

/* Around the loop's sleep, during which the thread holds no pointer into the slot table. */
static void sleeping(void *opaque, bool begins)
{
    struct machine *machine = opaque;

    if (begins)
        mem_reader_offline(machine->mem, MACHINE_IO_READER);
    else
        mem_reader_online(machine->mem, MACHINE_IO_READER);
}

static void *io_main(void *opaque)
{
    struct machine *machine = opaque;

    struct err err = {0};

    mem_reader_online(machine->mem, MACHINE_IO_READER);
    /* This thread alone starts, kicks and joins vCPU threads, so that nothing of it needs a
     * lock. */
    if (machine_vcpus_start(machine, &err))
        machine_finish(machine, MACHINE_FAILED, err.text);
    loop_wake(&machine->loop); /* plain-file input is there from the start */
    while (!machine->loop.quit)
        loop_once(&machine->loop);
    mem_reader_offline(machine->mem, MACHINE_IO_READER);
    return NULL;
}

/* ---- Creation and destruction ---------------------------------------------------------------- */

static int copy_string(const char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return from && !*to ? -ENOMEM : 0;
}

/* After this the machine's strings are its own, or NULL. */
static int copy_config(struct machine *machine, const struct machine_config *config)
{
    struct machine_config *own = &machine->config;
    int ret;

    *own = *config;
    own->board = NULL;
    own->gdb = NULL;
    own->firmware = NULL;
    own->kernel = own->initrd = own->append = own->cpu_model = NULL;
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        own->disks[i].path = NULL;
    ret = copy_string(&own->kernel, config->kernel);
    if (!ret)
        ret = copy_string(&own->initrd, config->initrd);
    if (!ret)
        ret = copy_string(&own->append, config->append);
    if (!ret)
        ret = copy_string(&own->cpu_model, config->cpu_model);
    if (!ret)
        ret = copy_string(&own->firmware, config->firmware);
    for (unsigned i = 0; !ret && i < config->disk_count; i++)
        ret = copy_string(&own->disks[i].path, config->disks[i].path);
    return ret;
}

/* A size in the largest unit that leaves no rest, as a person would say it. */
static const char *size_text(u64 bytes, char *text, size_t len)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;

    for (bytes /= KiB; bytes && !(bytes % KiB) && unit + 1 < ARRAY_SIZE(units); bytes /= KiB)
        unit++;
    snprintf(text, len, "%" PRIu64 " %s", bytes, units[unit]);
    return text;
}

static int check_memory(const struct machine_board *board, u64 bytes, struct err *err)
{
    char given[32], limit[32];

    if (bytes % MEM_PAGE_SIZE)
        return err_set(err, -EINVAL, "--mem: %" PRIu64 " bytes are not a multiple of 4 KiB", bytes);
    if (bytes < board->min_memory)
        return err_set(err, -EINVAL, "--mem: %s is too little; the %s board needs at least %s",
                       size_text(bytes, given, sizeof(given)), board->name,
                       size_text(board->min_memory, limit, sizeof(limit)));
    if (bytes > board->max_memory)
        return err_set(err, -EINVAL, "--mem: %s is too much; the %s board takes at most %s",
                       size_text(bytes, given, sizeof(given)), board->name,
                       size_text(board->max_memory, limit, sizeof(limit)));
    return 0;
}

static int open_stream(struct machine *machine, const struct machine_serial *config,
                       struct fd_stream **stream, struct err *err)
{
    int ret;

    if (config->kind == MACHINE_SERIAL_NONE)
        return 0;
    *stream = calloc(1, sizeof(**stream));
    if (!*stream)
        return err_set(err, -ENOMEM, "out of memory for a serial port");
    ret = fd_stream_open(*stream, config, &machine->loop, err);
    if (ret) {
        free(*stream);
        *stream = NULL;
    }
    return ret;
}

static int add_device(struct machine *machine, const char *name, const char *options,
                      struct device_place *place, struct device **dev, struct err *err)
{
    struct device *created;
    int ret;

    BUG_ON(machine->device_count == MACHINE_MAX_DEVICES);
    place->env = &machine->env;
    place->ports = &machine->ports;
    place->memory = &machine->memory;
    ret = device_create(&created, name, options, place, err);
    if (ret)
        return ret;
    machine->devices[machine->device_count++] = created;
    if (dev)
        *dev = created;
    return 0;
}

int machine_add_device(struct machine *machine, const char *name, const char *options,
                       struct stream *stream, struct device **dev, struct err *err)
{
    struct device_place place = {.stream = stream};

    return add_device(machine, name, options, &place, dev, err);
}

int machine_add_pci(struct machine *machine, const char *name, const char *options,
                    struct device *host, struct disk_image *image, struct device **dev,
                    struct err *err)
{
    struct device_place place = {.parent = host, .image = image};

    return add_device(machine, name, options, &place, dev, err);
}

int machine_open_image(struct machine *machine, const struct machine_disk *disk,
                       struct disk_image **image, struct err *err)
{
    int ret;

    BUG_ON(machine->image_count == MACHINE_MAX_DISKS);
    *image = &machine->images[machine->image_count];
    ret = image_open(*image, disk->path, disk->read_only, err);
    machine->image_count += !ret;
    return ret;
}

static int set_up(struct machine *machine, const struct machine_config *config, struct err *err)
{
    int ret = check_memory(machine->board, config->memory, err);

    if (ret)
        return ret;
    machine->mem = mem_create();
    if (!machine->mem)
        return err_set(err, -ENOMEM, "out of memory");
    machine->env.mem = machine->mem;
    ret = mem_ram_alloc(&machine->ram, config->memory, err);
    if (!ret)
        ret = open_stream(machine, &config->serial, &machine->serial, err);
    if (!ret)
        ret = open_stream(machine, &config->debug, &machine->debug, err);
    if (!ret)
        ret = machine->board->create(machine, err);
    if (!ret)
        ret = power_on(machine, 0, err);
    if (!ret && config->gdb)
        ret = gdb_open(machine, config->gdb, config->gdb_wait, err);
    return ret;
}

int machine_create(struct machine **out, const struct machine_config *config, struct err *err)
{
    const struct machine_board *board = find_board(config->board);
    struct machine *machine;
    int ret;

    if (!board)
        return err_set(err, -EINVAL, "there is no board \"%s\"", config->board);
    machine = calloc(1, sizeof(*machine));
    if (!machine)
        return err_set(err, -ENOMEM, "out of memory");
    mutex_init(&machine->lock);
    device_bus_init(&machine->ports);
    device_bus_init(&machine->memory);
    machine->ops = config->engine->ops;
    machine->board = board;
    machine->ram.fd = -1;
    ret = loop_init(&machine->loop, woken, machine, err);
    if (ret) {
        free(machine);
        return ret;
    }
    machine->loop.sleeping = sleeping;
    machine->done_fd = eventfd(0, EFD_CLOEXEC);
    if (machine->done_fd < 0)
        ret = err_set(err, -errno, "cannot create an event descriptor: %s", strerror(errno));
    if (!ret && copy_config(machine, config))
        ret = err_set(err, -ENOMEM, "out of memory");
    machine->env = (struct device_env){.opaque = machine,
                                       .irq_set = irq_set,
                                       .timer_set = timer_set,
                                       .request = request,
                                       .msi = send_msi,
                                       .pit_connect = pit_connect,
                                       .shadow = machine_shadow_set,
                                       .shadow_write = machine_shadow_write,
                                       .exit = exit_run,
                                       .drop_page = drop_page};
    if (!ret)
        ret = set_up(machine, config, err);
    if (ret) {
        machine_destroy(machine);
        return ret;
    }
    *out = machine;
    return 0;
}

void machine_destroy(struct machine *machine)
{
    if (machine->gdb)
        gdb_close(machine);
    power_off(machine);
    while (machine->device_count)
        device_destroy(machine->devices[--machine->device_count]);
    while (machine->image_count)
        image_close(&machine->images[--machine->image_count]);
    if (machine->serial)
        fd_stream_close(machine->serial);
    if (machine->debug)
        fd_stream_close(machine->debug);
    free(machine->serial);
    free(machine->debug);
    if (machine->mem)
        mem_destroy(machine->mem);
    if (machine->ram.fd >= 0)
        mem_ram_free(&machine->ram);
    loop_free(&machine->loop);
    if (machine->done_fd >= 0)
        close(machine->done_fd);
    strbuf_free(&machine->report);
    free((void *)machine->config.kernel);
    free((void *)machine->config.initrd);
    free((void *)machine->config.append);
    free((void *)machine->config.cpu_model);
    free((void *)machine->config.firmware);
    if (machine->rom)
        munmap(machine->rom, machine->rom_size);
    for (unsigned i = 0; i < MACHINE_MAX_DISKS; i++)
        free((void *)machine->config.disks[i].path);
    pthread_mutex_destroy(&machine->lock);
    free(machine);
}

/* ---- Running --------------------------------------------------------------------------------- */

int machine_start(struct machine *machine, struct err *err)
{
    int ret;

    machine->started_ns = clock_mono_ns();
    ret = thread_create(&machine->io_thread, "triode-io", io_main, machine, err);
    if (ret)
        return ret;
    machine->has_io_thread = true;
    return 0;
}

int machine_done_fd(const struct machine *machine)
{
    return machine->done_fd;
}

enum machine_end machine_join(struct machine *machine)
{
    if (machine->has_io_thread)
        pthread_join(machine->io_thread, NULL);
    machine->has_io_thread = false;
    return machine->end;
}

bool machine_join_for(struct machine *machine, u64 ns, enum machine_end *end)
{
    struct timespec until;
    u64 at = clock_real_ns() + ns;

    until.tv_sec = (time_t)(at / NSEC_PER_SEC);
    until.tv_nsec = (long)(at % NSEC_PER_SEC);
    if (machine->has_io_thread && pthread_timedjoin_np(machine->io_thread, NULL, &until))
        return false;
    machine->has_io_thread = false;
    *end = machine->end;
    return true;
}

const char *machine_error(const struct machine *machine)
{
    return machine->error.text;
}

const char *machine_report(const struct machine *machine)
{
    return machine->report.text ? machine->report.text : "";
}

void machine_serial_break(struct machine *machine)
{
    if (machine->serial)
        machine->serial->stream.line_break(machine->serial->stream.device);
}

void machine_serial_resume(struct machine *machine)
{
    if (machine->serial)
        fd_stream_resume(machine->serial);
}

const char *machine_serial_path(const struct machine *machine)
{
    return machine->serial && machine->serial->slave >= 0 ? machine->serial->path : NULL;
}
