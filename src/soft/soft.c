/* The system and the VM, and the table of all operations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "soft/private.h"

static int soft_open(struct engine **out, struct err *err)
{
    struct soft_engine *engine = calloc(1, sizeof *engine);

    if (!engine)
        return err_set(err, -ENOMEM, "out of memory for the soft engine");
    engine->engine.ops = &soft_engine_ops;
    engine->host_khz = soft_clock_measure();
    *out = &engine->engine;
    return 0;
}

static void soft_close(struct engine *engine)
{
    free(container_of(engine, struct soft_engine, engine));
}

static int check_extension(struct engine *engine, u32 capability)
{
    (void)engine;
    switch (capability) {
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_PIT2:
    case KVM_CAP_PIT_STATE2:
    case KVM_CAP_USER_NMI:
    case KVM_CAP_SET_GUEST_DEBUG:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_GET_TSC_KHZ:
    case KVM_CAP_TSC_DEADLINE_TIMER:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_ADJUST_CLOCK:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_GET_MSR_FEATURES:
        return 1;
    case KVM_CAP_SET_GUEST_DEBUG2:
        return KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP |
               KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_BLOCKIRQ | KVM_GUESTDBG_INJECT_DB |
               KVM_GUESTDBG_INJECT_BP;
    case KVM_CAP_NR_VCPUS:
    case KVM_CAP_MAX_VCPUS:
        return SOFT_MAX_CPUS;
    case KVM_CAP_MAX_VCPU_ID:
        return 254;
    case KVM_CAP_NR_MEMSLOTS:
        return MEM_MAX_SLOTS;
    case KVM_CAP_COALESCED_MMIO:
    default:
        return 0;
    }
}

static int get_supported_cpuid(struct engine *engine, struct kvm_cpuid2 *cpuid)
{
    static const struct engine_topology one = {1, 1, 1, 1};
    struct soft_engine *soft = container_of(engine, struct soft_engine, engine);
    struct cpuid_model model;
    struct cpuid_table table;

    cpuid_parse_model(&model, "max", NULL);
    cpuid_build(&table, &model, &one, 0, soft->host_khz ? soft->host_khz : 1000000);
    if (cpuid->nent < table.count)
        return -E2BIG;
    memcpy(cpuid->entries, table.entry, table.count * sizeof *table.entry);
    cpuid->nent = table.count;
    return 0;
}

static int create_dbt(struct soft_vm *vm, const struct engine_vm_config *config, struct err *err)
{
    struct dbt_config dbt = {
        .mem = config->mem,
        .guest = &x86_guest_ops,
        .code_cache_bytes = config->code_cache_bytes,
        .jit = config->jit,
        .count_insns = config->count_insns,
        .dump_stages = config->dump_stages,
        .dump_first = config->dump_first,
        .dump_last = config->dump_last,
    };

    return dbt_create(&vm->dbt, &dbt, err);
}

static int vm_create(struct engine *engine, const struct engine_vm_config *config, struct vm **out,
                     struct err *err)
{
    struct soft_vm *vm = calloc(1, sizeof *vm);
    int ret;

    if (!vm)
        return err_set(err, -ENOMEM, "out of memory for a VM");
    vm->vm.ops = &soft_engine_ops;
    vm->vm.mem = config->mem;
    vm->engine = container_of(engine, struct soft_engine, engine);
    vm->topology = config->topology;
    vm->has_pit = config->pit;
    vm->pauses = config->topology.cpus > 1;
    ret = cpuid_parse_model(&vm->model, config->cpu_model, err);
    if (ret)
        goto fail;
    ret = create_dbt(vm, config, err);
    if (ret)
        goto fail;
    ret = soft_timers_start(&vm->timers, err);
    if (ret)
        goto fail_dbt;
    soft_clock_init(&vm->clock, vm->engine->host_khz);
    pic_init(&vm->pic, soft_pic_output);
    ioapic_init(&vm->ioapic, soft_ioapic_send);
    pit_init(&vm->pit, &vm->timers, soft_pit_line);
    *out = &vm->vm;
    return 0;

fail_dbt:
    dbt_destroy(vm->dbt);
fail:
    free(vm);
    return ret;
}

static void vm_destroy(struct vm *engine_vm)
{
    struct soft_vm *vm = soft_vm(engine_vm);

    pit_destroy(&vm->pit);
    soft_timers_stop(&vm->timers);
    dbt_destroy(vm->dbt);
    free(vm);
}

static int set_memory(struct vm *vm, const struct kvm_userspace_memory_region *region)
{
    u32 flags = 0;

    if (region->slot >= MEM_MAX_SLOTS ||
        region->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY))
        return -EINVAL;
    if (region->flags & KVM_MEM_LOG_DIRTY_PAGES)
        flags |= MEM_LOG_DIRTY;
    if (region->flags & KVM_MEM_READONLY)
        flags |= MEM_READONLY;
    return mem_set_slot(vm->mem, region->slot, flags, region->guest_phys_addr, region->memory_size,
                        (void *)(uintptr_t)region->userspace_addr);
}

static int get_dirty_log(struct vm *vm, u32 slot, u64 *bitmap, size_t bytes)
{
    return mem_get_dirty(vm->mem, slot, bitmap, bytes);
}

static int set_irq_remap(struct vm *vm, bool (*remap)(void *opaque, struct kvm_msi *msi),
                         void *opaque)
{
    ioapic_set_remap(&soft_vm(vm)->ioapic, remap, opaque);
    return 0;
}

static int get_irqchip(struct vm *vm, struct kvm_irqchip *chip)
{
    switch (chip->chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE:
        pic_get_state(&soft_vm(vm)->pic, chip->chip_id, &chip->chip.pic);
        return 0;
    case KVM_IRQCHIP_IOAPIC:
        ioapic_get_state(&soft_vm(vm)->ioapic, &chip->chip.ioapic);
        return 0;
    default:
        return -EINVAL;
    }
}

static int set_irqchip(struct vm *vm, const struct kvm_irqchip *chip)
{
    switch (chip->chip_id) {
    case KVM_IRQCHIP_PIC_MASTER:
    case KVM_IRQCHIP_PIC_SLAVE:
        pic_set_state(&soft_vm(vm)->pic, chip->chip_id, &chip->chip.pic);
        return 0;
    case KVM_IRQCHIP_IOAPIC:
        ioapic_set_state(&soft_vm(vm)->ioapic, &chip->chip.ioapic);
        return 0;
    default:
        return -EINVAL;
    }
}

static int get_pit(struct vm *vm, struct kvm_pit_state2 *pit)
{
    if (!soft_vm(vm)->has_pit)
        return -ENXIO;
    pit_get_state(&soft_vm(vm)->pit, pit);
    return 0;
}

static int set_pit(struct vm *vm, const struct kvm_pit_state2 *pit)
{
    if (!soft_vm(vm)->has_pit)
        return -ENXIO;
    pit_set_state(&soft_vm(vm)->pit, pit);
    return 0;
}

static int get_clock(struct vm *vm, struct kvm_clock_data *clock)
{
    memset(clock, 0, sizeof *clock);
    clock->clock = soft_clock_now(&soft_vm(vm)->clock);
    clock->flags = KVM_CLOCK_TSC_STABLE;
    return 0;
}

static int set_clock(struct vm *vm, const struct kvm_clock_data *clock)
{
    struct soft_vm *soft = soft_vm(vm);

    soft_clock_set(&soft->clock, clock->clock);
    for (unsigned i = 0; i < SOFT_MAX_CPUS; i++)
        if (soft->cpu[i])
            soft_write_system_time(soft->cpu[i]);
    return 0;
}

const struct engine_ops soft_engine_ops = {
    .name = "soft",
    .open = soft_open,
    .close = soft_close,
    .check_extension = check_extension,
    .get_supported_cpuid = get_supported_cpuid,
    .vm_create = vm_create,
    .vm_destroy = vm_destroy,
    .set_memory = set_memory,
    .get_dirty_log = get_dirty_log,
    .irq_line = soft_irq_line,
    .signal_msi = soft_signal_msi,
    .set_irq_remap = set_irq_remap,
    .get_irqchip = get_irqchip,
    .set_irqchip = set_irqchip,
    .get_pit = get_pit,
    .set_pit = set_pit,
    .get_clock = get_clock,
    .set_clock = set_clock,
    .vcpu_create = soft_vcpu_create,
    .vcpu_destroy = soft_vcpu_destroy,
#define X(name, type) .get_##name = soft_get_##name, .set_##name = soft_set_##name,
    SOFT_VCPU_STATE(X)
#undef X
        .get_msrs = soft_get_msrs,
    .set_msrs = soft_set_msrs,
    .set_guest_debug = soft_set_guest_debug,
    .interrupt = soft_interrupt,
    .nmi = soft_nmi,
    .translate = soft_translate,
    .vcpu_run = soft_vcpu_run,
    .kick = soft_vcpu_kick,
    .vcpu_stats = soft_vcpu_stats,
    .vm_stats = soft_vm_stats,
    .explain = soft_explain,
};
