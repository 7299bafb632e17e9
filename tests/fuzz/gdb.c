/*
 * Debuggers: bytes as they come from a connection, or commands in well-formed packets, with a guest
 * that stands still. Input: u8 choices, then bytes, or commands divided by line feeds.
 */
#include <unistd.h>

#include "engine/engine.h"
#include "fuzz.h"
#include "machine/gdb.h"

#define RAM (16 * MiB)
#define CPUS 3

static struct machine *machine;

/* ---- An engine whose vCPUs are registers and no more ----------------------------------------- */

struct still_vcpu {
    struct vcpu vcpu;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave xsave;
};

static const struct engine_ops still_ops;
static struct vm still_vm;

static struct still_vcpu *to_still(struct vcpu *vcpu)
{
    return container_of(vcpu, struct still_vcpu, vcpu);
}

static int vm_create(struct engine *engine, const struct engine_vm_config *config, struct vm **vm,
                     struct err *err)
{
    (void)engine, (void)err;
    still_vm = (struct vm){&still_ops, config->mem};
    *vm = &still_vm;
    return 0;
}

static int set_memory(struct vm *vm, const struct kvm_userspace_memory_region *r)
{
    return mem_set_slot(vm->mem, r->slot, 0, r->guest_phys_addr, r->memory_size,
                        (void *)(uintptr_t)r->userspace_addr);
}

static int irq_line(struct vm *vm, u32 line, int level)
{
    (void)vm, (void)line, (void)level;
    return 0;
}

static int vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **out,
                       struct err *err)
{
    struct still_vcpu *vcpu = calloc(1, sizeof *vcpu);

    (void)err;
    MUST(vcpu);
    vcpu->vcpu = (struct vcpu){&still_ops, vm, index, apic_id, calloc(1, 8192)};
    *out = &vcpu->vcpu;
    return 0;
}

static int get_cpuid(struct vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
    (void)vcpu;
    cpuid->nent = 1; /* brings its own */
    return 0;
}

static int set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    (void)vcpu, (void)debug;
    return 0;
}

static int translate(struct vcpu *vcpu, struct kvm_translation *t)
{
    (void)vcpu;
    t->physical_address = t->linear_address & (RAM * 2 - 1);
    t->valid = t->linear_address >> 32 == 0;
    return 0;
}

static void kick(struct vcpu *vcpu)
{
    (void)vcpu;
}

#define REGISTERS(what, type)                                                                      \
    static int get_##what(struct vcpu *vcpu, struct type *to)                                      \
    {                                                                                              \
        *to = to_still(vcpu)->what;                                                                \
        return 0;                                                                                  \
    }                                                                                              \
    static int set_##what(struct vcpu *vcpu, const struct type *from)                              \
    {                                                                                              \
        to_still(vcpu)->what = *from;                                                              \
        return 0;                                                                                  \
    }
REGISTERS(regs, kvm_regs)
REGISTERS(sregs, kvm_sregs)
REGISTERS(xsave, kvm_xsave)

static const struct engine_ops still_ops = {
    .name = "still",
    .vm_create = vm_create,
    .set_memory = set_memory,
    .irq_line = irq_line,
    .vcpu_create = vcpu_create,
    .get_cpuid = get_cpuid,
    .get_regs = get_regs,
    .set_regs = set_regs,
    .get_sregs = get_sregs,
    .set_sregs = set_sregs,
    .get_xsave = get_xsave,
    .set_xsave = set_xsave,
    .set_guest_debug = set_guest_debug,
    .translate = translate,
    .kick = kick,
};

/* ---- The machine, made once and never started ------------------------------------------------ */

/* The smallest Multiboot kernel: its header at 1 MiB. */
static void write_kernel(char *path)
{
    static const u32 header[] = {0x1badb002, 0x10000,  0u - 0x1badb002 - 0x10000,
                                 0x100000,   0x100000, 0x100030,
                                 0x100030,   0x100020};
    u8 image[64] = {0};
    int fd = mkstemp(path);

    memcpy(image, header, sizeof header);
    MUST(fd >= 0 && write(fd, image, sizeof image) == sizeof image);
    close(fd);
}

static void make_machine(void)
{
    static struct engine engine = {.ops = &still_ops};
    char path[] = "/tmp/triode-fuzz-XXXXXX";
    struct machine_config config = {.engine = &engine,
                                    .board = "pc",
                                    .kernel = path,
                                    .memory = RAM,
                                    .topology = {CPUS, 1, CPUS, 1},
                                    .gdb = "0"};
    struct err err = {""};

    write_kernel(path);
    if (machine_create(&machine, &config, &err))
        fprintf(stderr, "%s\n", err.text);
    unlink(path);
    MUST(machine && machine->gdb);
}

static void park(struct gdb *gdb)
{
    gdb->state = GDB_STOPPED;
    for (unsigned i = 0; i < CPUS; i++)
        gdb_vcpu(gdb, i)->debug.parked = true;
}

static void handle(struct gdb *gdb, enum gdb_event event)
{
    MUST(event <= GDB_EVENT_NAK && gdb->parser.len <= GDB_PACKET_MAX);
    if (event != GDB_EVENT_PACKET)
        return;
    gdb_command(gdb);
    MUST(!gdb->reply.len && !gdb->output.failed);
    MUST(gdb->breakpoint_count <= GDB_MAX_BREAKPOINTS);
    MUST(gdb->selected < CPUS && gdb->resumed < CPUS);
    gdb->output.len = 0;
    park(gdb); /* whatever was resumed has stopped again */
}

static void feed(struct gdb *gdb, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        handle(gdb, gdb_parse(&gdb->parser, (u8)bytes[i]));
}

static void feed_lines(struct gdb *gdb, const char *at, size_t left)
{
    struct strbuf frame = {0};

    while (left) {
        const char *end = memchr(at, '\n', left);
        size_t len = end ? (size_t)(end - at) : left;

        frame.len = 0;
        gdb_frame(&frame, at, len);
        feed(gdb, frame.text, frame.len);
        len += end ? 1 : 0;
        at += len;
        left -= len;
    }
    strbuf_free(&frame);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct gdb *gdb;

    if (!machine)
        make_machine();
    gdb = machine->gdb;
    if (!size)
        return 0;
    memset(&gdb->parser, 0, sizeof gdb->parser);
    gdb->no_ack = gdb->physical = gdb->closing = false;
    gdb->selected = gdb->resumed = 0;
    park(gdb);
    if (data[0] & 1)
        feed(gdb, (const char *)data + 1, size - 1);
    else
        feed_lines(gdb, (const char *)data + 1, size - 1);
    gdb_let_go(gdb);
    MUST(!gdb->breakpoint_count && !gdb->dr7);
    return 0;
}
