/* Counters for --stats. */
#include "soft/private.h"

struct sink {
    struct engine_stat *stats;
    int count, max;
};

static void put(struct sink *sink, const char *name, u64 value)
{
    if (sink->count < sink->max)
        sink->stats[sink->count++] = (struct engine_stat){name, value};
}

static const struct {
    u32 reason;
    const char *name;
} exit_names[] = {
#define R(number, name, information, section, when, handler) {number, "exits_" #name},
#include "vmx/reasons.def"
#undef R
};

/* Those to the guest's own hypervisor. */
static const char *const l2_exit_names[] = {
#define R(number, name, information, section, when, handler) "l2_exits_" #name,
#include "vmx/reasons.def"
#undef R
};

int soft_vcpu_stats(struct vcpu *vcpu, struct engine_stat *stats, int max)
{
    struct soft_vcpu *soft = soft_vcpu(vcpu);
    const struct soft_stats *s = &soft->priv.stats;
    const struct guest_cpu *cpu = &soft->cpu.common;
    const struct soft_clock *clock = &soft->id.vm->clock;
    u64 guest_ns = soft_clock_ticks_to_ns(clock, s->ticks_guest), exits = 0;
    struct sink sink = {stats, 0, max};

    for (unsigned i = 0; i < VMX_REASONS; i++)
        exits += soft->vmx.exits[i];
    put(&sink, "exits", exits);
    for (size_t i = 0; i < ARRAY_SIZE(exit_names); i++)
        if (soft->vmx.exits[exit_names[i].reason])
            put(&sink, exit_names[i].name, soft->vmx.exits[exit_names[i].reason]);
    put(&sink, "l2_entries", soft->vmx.entries);
    for (size_t i = 0; i < ARRAY_SIZE(exit_names); i++)
        if (soft->vmx.inner_exits[exit_names[i].reason])
            put(&sink, l2_exit_names[i], soft->vmx.inner_exits[exit_names[i].reason]);
    put(&sink, "exits_to_machine", s->exits_to_machine);
    put(&sink, "interrupts", s->injected[0]);
    put(&sink, "nmis", s->injected[1]);
    put(&sink, "exceptions", s->injected[2]);
    put(&sink, "halts", s->halts);
    put(&sink, "wakeups", s->wakeups);
    put(&sink, "mmio_inside", s->mmio_inside);
    put(&sink, "pio_inside", s->pio_inside);
    put(&sink, "guest_insns", cpu->insns);
    put(&sink, "guest_ns", guest_ns);
    put(&sink, "soft_ns", soft_clock_ticks_to_ns(clock, s->ticks_soft));
    put(&sink, "mips", guest_ns ? cpu->insns * 1000 / guest_ns : 0);
    put(&sink, "tlb_slow_hits", cpu->tlb_hits_slow);
    put(&sink, "tlb_misses", cpu->tlb_misses);
    put(&sink, "tlb_flushes", cpu->tlb_flushes);
    return sink.count;
}

int soft_vm_stats(struct vm *vm, struct engine_stat *stats, int max)
{
    struct sink sink = {stats, 0, max};
    struct dbt_stats dbt;

    dbt_get_stats(soft_vm(vm)->dbt, &dbt);
    put(&sink, "blocks_translated", dbt.blocks);
    put(&sink, "regions_translated", dbt.regions);
    put(&sink, "guest_insns_translated", dbt.guest_insns);
    put(&sink, "code_bytes", dbt.code_bytes);
    put(&sink, "code_cache_bytes", dbt.cache_bytes);
    put(&sink, "code_cache_flushes", dbt.flushes);
    put(&sink, "code_cache_reclaims", dbt.reclaims);
    put(&sink, "blocks_invalidated", dbt.invalidated);
    put(&sink, "jumps_chained", dbt.chained);
    put(&sink, "jump_cache_misses", dbt.lookups);
    return sink.count;
}
