/* The system and VM operations, and the table of them all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "kvm/kvm.h"
#include "kvm/private.h"

/*
 * Intel CPUs without "unrestricted guest" need three pages for a TSS and one for an identity page
 * table to run real mode; both lie under the reset vector's ROM, where no board has RAM.
 */
#define IDENTITY_MAP_GPA 0xfffbc000ull
#define TSS_GPA 0xfffbd000ull

static int check_extension(struct engine *engine, u32 capability)
{
    return kvm_ioctl(to_kvm_engine(engine)->fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)capability);
}

static int get_supported_cpuid(struct engine *engine, struct kvm_cpuid2 *cpuid)
{
    return kvm_ioctl(to_kvm_engine(engine)->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
}

static int create_chips(struct kvm_vm *vm, const struct engine_vm_config *config, struct err *err)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    u64 identity = IDENTITY_MAP_GPA;
    int ret;

    if (check_extension(&vm->owner->engine, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) {
        ret = kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
        if (ret)
            return err_set(err, ret, "KVM_SET_IDENTITY_MAP_ADDR failed: %s", strerror(-ret));
    }
    ret = kvm_ioctl(vm->fd, KVM_SET_TSS_ADDR, (void *)TSS_GPA);
    if (ret)
        return err_set(err, ret, "KVM_SET_TSS_ADDR failed: %s", strerror(-ret));
    ret = kvm_ioctl(vm->fd, KVM_CREATE_IRQCHIP, NULL);
    if (ret)
        return err_set(err, ret, "KVM_CREATE_IRQCHIP failed: %s", strerror(-ret));
    if (config->pit) {
        ret = kvm_ioctl(vm->fd, KVM_CREATE_PIT2, &pit);
        if (ret)
            return err_set(err, ret, "KVM_CREATE_PIT2 failed: %s", strerror(-ret));
    }
    return 0;
}

static int vm_create(struct engine *engine, const struct engine_vm_config *config, struct vm **out,
                     struct err *err)
{
    struct kvm_vm *vm;
    int ret;

    vm = calloc(1, sizeof *vm);
    if (!vm)
        return err_set(err, -ENOMEM, "out of memory for a VM");
    vm->vm.ops = &kvm_engine_ops;
    vm->vm.mem = config->mem;
    vm->owner = to_kvm_engine(engine);
    do {
        vm->fd = kvm_ioctl(vm->owner->fd, KVM_CREATE_VM, NULL);
    } while (vm->fd == -EINTR);
    if (vm->fd < 0) {
        ret =
            err_set(err, vm->fd, "the kernel creates no VM (KVM_CREATE_VM): %s", strerror(-vm->fd));
        goto fail;
    }
    ret = create_chips(vm, config, err);
    if (ret) {
        close(vm->fd);
        goto fail;
    }
    *out = &vm->vm;
    return 0;

fail:
    free(vm);
    return ret;
}

static void vm_destroy(struct vm *vm)
{
    struct kvm_vm *kvm = to_kvm_vm(vm);

    kvm_stats_free(kvm->stats);
    close(kvm->fd);
    free(kvm);
}

/* The kernel and vm->mem learn of a slot together, so that devices and vCPUs see one memory. */
static int set_memory(struct vm *vm, const struct kvm_userspace_memory_region *region)
{
    struct kvm_vm *kvm = to_kvm_vm(vm);
    u32 flags = 0;
    int ret;

    if (region->slot >= MEM_MAX_SLOTS)
        return -EINVAL;
    if (region->flags & KVM_MEM_LOG_DIRTY_PAGES)
        flags |= MEM_LOG_DIRTY;
    if (region->flags & KVM_MEM_READONLY)
        flags |= MEM_READONLY;
    ret = kvm_ioctl(kvm->fd, KVM_SET_USER_MEMORY_REGION, (void *)region);
    if (ret)
        return ret;
    kvm->slot_bytes[region->slot] = region->memory_size;
    return mem_set_slot(vm->mem, region->slot, flags, region->guest_phys_addr, region->memory_size,
                        (void *)(uintptr_t)region->userspace_addr);
}

/* The kernel logs what vCPUs wrote, vm->mem what devices wrote; the caller gets both. */
static int get_dirty_log(struct vm *vm, u32 slot, u64 *bitmap, size_t bytes)
{
    struct kvm_vm *kvm = to_kvm_vm(vm);
    struct kvm_dirty_log log = {.slot = slot};
    size_t words;
    u64 *kernel;
    int ret;

    if (slot >= MEM_MAX_SLOTS)
        return -EINVAL;
    words = align_up(kvm->slot_bytes[slot] / MEM_PAGE_SIZE, 64) / 64;
    if (!words)
        return -ENOENT;
    if (bytes < words * sizeof *bitmap)
        return -EINVAL;
    kernel = calloc(words, sizeof *kernel);
    if (!kernel)
        return -ENOMEM;
    log.dirty_bitmap = kernel;
    ret = kvm_ioctl(kvm->fd, KVM_GET_DIRTY_LOG, &log);
    if (!ret)
        ret = mem_get_dirty(vm->mem, slot, bitmap, bytes);
    for (size_t i = 0; !ret && i < words; i++)
        bitmap[i] |= kernel[i];
    free(kernel);
    return ret;
}

static int irq_line(struct vm *vm, u32 gsi, int level)
{
    struct kvm_irq_level line = {.irq = gsi, .level = level};

    return kvm_ioctl(to_kvm_vm(vm)->fd, KVM_IRQ_LINE, &line);
}

/* KVM answers a positive number for "delivered" and 0 for "the guest has it blocked". */
static int signal_msi(struct vm *vm, const struct kvm_msi *msi)
{
    int ret = kvm_ioctl(to_kvm_vm(vm)->fd, KVM_SIGNAL_MSI, (void *)msi);

    return ret < 0 ? ret : 0;
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .open = kvm_open,
    .close = kvm_close,
    .check_extension = check_extension,
    .get_supported_cpuid = get_supported_cpuid,
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .set_memory = set_memory,
    .get_dirty_log = get_dirty_log,
    .irq_line = irq_line,
    .signal_msi = signal_msi,
#define X(name, type, get, set) .get_##name = kvm_get_##name, .set_##name = kvm_set_##name,
    KVM_VM_STATE(X) KVM_VCPU_STATE(X)
#undef X
        .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .set_guest_debug = kvm_set_guest_debug,
    .interrupt = kvm_interrupt,
    .nmi = kvm_nmi,
    .translate = kvm_translate,
    .vcpu_run = kvm_vcpu_run,
    .kick = kvm_vcpu_kick,
    .vcpu_stats = kvm_vcpu_stats,
    .vm_stats = kvm_vm_stats,
    .explain = kvm_explain,
};
