/*
 * An engine without a CPU: vcpu_run does what the test's script says. A script gets the exit record
 * and the number of the run, and answers what vcpu_run is to answer; SLEEP waits for a kick.
 */
#ifndef TRIODE_TESTS_FAKE_ENGINE_H
#define TRIODE_TESTS_FAKE_ENGINE_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit.h"

#include "base/thread.h"
#include "engine/engine.h"
#include "machine/private.h"

#define FAKE_SLEEP 1
#define FAKE_DATA_OFFSET 4096

struct fake_vcpu {
    struct vcpu vcpu;
    unsigned runs;
    bool kicked;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu; /* as last set */
    struct kvm_xsave xsave;
    struct kvm_guest_debug debug; /* as last set */
};

struct fake_engine {
    struct engine engine;
    int (*script)(struct fake_vcpu *vcpu, struct kvm_run *run, unsigned number);
    unsigned vms, vcpus, slots;
    int line[24];
    struct vm vm;
};

static struct fake_engine fake; /* one a test program; the ops have no argument for it */

static struct fake_vcpu *to_fake(struct vcpu *vcpu)
{
    return container_of(vcpu, struct fake_vcpu, vcpu);
}

extern const struct engine_ops fake_ops;

static int fake_vm_create(struct engine *engine, const struct engine_vm_config *config,
                          struct vm **vm, struct err *err)
{
    (void)engine;
    (void)err;
    fake.vms++;
    fake.slots = 0;
    fake.vm = (struct vm){&fake_ops, config->mem};
    *vm = &fake.vm;
    return 0;
}

static void fake_vm_destroy(struct vm *vm)
{
    (void)vm;
    assert_int_equal(fake.vcpus, 0);
}

static int fake_set_memory(struct vm *vm, const struct kvm_userspace_memory_region *r)
{
    fake.slots++;
    return mem_set_slot(vm->mem, r->slot, r->flags & KVM_MEM_READONLY ? MEM_READONLY : 0,
                        r->guest_phys_addr, r->memory_size, (void *)(uintptr_t)r->userspace_addr);
}

static int fake_irq_line(struct vm *vm, u32 line, int level)
{
    (void)vm;
    __atomic_store_n(&fake.line[line], level, __ATOMIC_SEQ_CST);
    return 0;
}

static int fake_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **out,
                            struct err *err)
{
    struct fake_vcpu *vcpu = calloc(1, sizeof(*vcpu));

    (void)err;
    assert_non_null(vcpu);
    vcpu->vcpu = (struct vcpu){&fake_ops, vm, index, apic_id, calloc(1, 2 * FAKE_DATA_OFFSET)};
    assert_non_null(vcpu->vcpu.run);
    mutex_init(&vcpu->lock);
    cond_init(&vcpu->cond);
    fake.vcpus++;
    *out = &vcpu->vcpu;
    return 0;
}

static void fake_vcpu_destroy(struct vcpu *vcpu)
{
    fake.vcpus--;
    free(vcpu->run);
    free(to_fake(vcpu));
}

static int fake_get_cpuid(struct vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
    (void)vcpu;
    cpuid->nent = 1; /* brings its own */
    return 0;
}

static int fake_get_regs(struct vcpu *vcpu, struct kvm_regs *regs)
{
    *regs = to_fake(vcpu)->regs;
    return 0;
}

static int fake_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs)
{
    to_fake(vcpu)->regs = *regs;
    return 0;
}

static int fake_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs)
{
    *sregs = to_fake(vcpu)->sregs;
    return 0;
}

static int fake_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
    to_fake(vcpu)->sregs = *sregs;
    return 0;
}

static int fake_set_fpu(struct vcpu *vcpu, const struct kvm_fpu *fpu)
{
    to_fake(vcpu)->fpu = *fpu;
    return 0;
}

static int fake_get_xsave(struct vcpu *vcpu, struct kvm_xsave *xsave)
{
    *xsave = to_fake(vcpu)->xsave;
    return 0;
}

static int fake_set_xsave(struct vcpu *vcpu, const struct kvm_xsave *xsave)
{
    to_fake(vcpu)->xsave = *xsave;
    return 0;
}

static int fake_set_guest_debug(struct vcpu *vcpu, const struct kvm_guest_debug *debug)
{
    to_fake(vcpu)->debug = *debug;
    return 0;
}

static int fake_translate(struct vcpu *vcpu, struct kvm_translation *t)
{
    (void)vcpu;
    t->physical_address = t->linear_address;
    t->valid = t->linear_address < MiB * 64;
    return 0;
}

static int fake_run(struct vcpu *vcpu)
{
    struct fake_vcpu *f = to_fake(vcpu);
    int ret = fake.script(f, vcpu->run, f->runs++);

    if (ret != FAKE_SLEEP)
        return ret;
    mutex_lock(&f->lock);
    while (!f->kicked)
        pthread_cond_wait(&f->cond, &f->lock);
    f->kicked = false;
    mutex_unlock(&f->lock);
    vcpu->run->exit_reason = KVM_EXIT_INTR;
    return -EINTR;
}

static void fake_kick(struct vcpu *vcpu)
{
    struct fake_vcpu *f = to_fake(vcpu);

    mutex_lock(&f->lock);
    f->kicked = true;
    pthread_cond_broadcast(&f->cond);
    mutex_unlock(&f->lock);
}

static void fake_explain(struct vcpu *vcpu, struct err *err)
{
    (void)vcpu;
    err_set(err, 0, "the script says so");
}

const struct engine_ops fake_ops = {
    .name = "fake",
    .vm_create = fake_vm_create,
    .vm_destroy = fake_vm_destroy,
    .set_memory = fake_set_memory,
    .irq_line = fake_irq_line,
    .vcpu_create = fake_vcpu_create,
    .vcpu_destroy = fake_vcpu_destroy,
    .get_cpuid = fake_get_cpuid,
    .get_regs = fake_get_regs,
    .set_regs = fake_set_regs,
    .get_sregs = fake_get_sregs,
    .set_sregs = fake_set_sregs,
    .set_fpu = fake_set_fpu,
    .get_xsave = fake_get_xsave,
    .set_xsave = fake_set_xsave,
    .set_guest_debug = fake_set_guest_debug,
    .translate = fake_translate,
    .vcpu_run = fake_run,
    .kick = fake_kick,
    .explain = fake_explain,
};

/* Fills an I/O exit; the data follows the record, as KVM has it. */
static inline int fake_io(struct kvm_run *run, bool out, u16 port, u8 size, u64 value)
{
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
    run->io.port = port;
    run->io.size = size;
    run->io.count = 1;
    run->io.data_offset = FAKE_DATA_OFFSET;
    memcpy((u8 *)run + FAKE_DATA_OFFSET, &value, 8);
    return 0;
}

static inline u64 fake_io_data(const struct kvm_run *run)
{
    u64 value = 0;

    memcpy(&value, (const u8 *)run + FAKE_DATA_OFFSET, run->io.size);
    return value;
}

/* A minimal ELF kernel with a PVH entry at 1 MiB whose code is @code. The file is unlinked by the
 * caller. */
static inline void fake_kernel(char *path, const void *code, size_t len)
{
    u8 image[512] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    u32 note[] = {4, 4, 18, 0x006e6558, 0x100000}; /* "Xen" */
    u16 *half = (u16 *)image;
    u64 *word = (u64 *)image;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_true(len <= 64);
    half[8] = 2;        /* EXEC */
    half[9] = 62;       /* x86-64 */
    word[3] = 0x100000; /* entry */
    word[4] = 64;       /* program headers */
    half[27] = 56;
    half[28] = 2;
    memcpy(image + 64, (u32[]){1, 7}, 8); /* LOAD */
    memcpy(image + 72, (u64[]){256, 0x100000, 0x100000, len, 4096, 4096}, 48);
    memcpy(image + 120, (u32[]){4, 4}, 8); /* NOTE */
    memcpy(image + 128, (u64[]){320, 0, 0, sizeof(note), sizeof(note), 4}, 48);
    memcpy(image + 256, code, len);
    memcpy(image + 320, note, sizeof(note));
    assert_int_equal(write(fd, image, sizeof(image)), sizeof(image));
    close(fd);
}

static inline struct machine_config fake_config(const char *kernel)
{
    fake.engine.ops = &fake_ops;
    return (struct machine_config){
        .engine = &fake.engine,
        .board = "pc",
        .kernel = kernel,
        .append = "hello",
        .memory = 64 * MiB,
        .topology = {1, 1, 1, 1},
        .unpack = true,
    };
}

#endif
