/*
 * CPUID for an engine that starts its vCPUs with an empty table (the kernel's KVM): everything the
 * engine says it supports, with the leaves that speak of topology made true to --smp.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "machine/private.h"

#define MAX_ENTRIES 256

struct table {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[MAX_ENTRIES];
};

struct place {
    const struct engine_topology *topology;
    u32 apic_id;
};

/* Leaf 1: initial APIC id, room for APIC ids in the package, HTT; the guest sees a hypervisor. */
static void fix_leaf_1(struct kvm_cpuid_entry2 *e, const struct place *p)
{
    u32 ids = 1u << machine_package_bits(p->topology);

    e->ebx &= 0xffff;
    e->ebx |= p->apic_id << 24 | ids << 16;
    e->ecx |= 1u << 31;
    if (ids > 1)
        e->edx |= 1u << 28;
    else
        e->edx &= ~(1u << 28);
}

/* Leaf 4: how many ids share each cache (threads a core's, all the last level), and the cores. */
static void fix_leaf_4(struct kvm_cpuid_entry2 *e, const struct place *p)
{
    unsigned level = e->eax >> 5 & 7;
    unsigned threads = machine_thread_bits(p->topology),
             package = machine_package_bits(p->topology);
    u32 sharing = level < 3 ? 1u << threads : 1u << package;

    if (!(e->eax & 0x1f))
        return;
    e->eax &= 0x3fff;
    e->eax |= (sharing - 1) << 14 | ((1u << (package - threads)) - 1) << 26;
}

/* Leaves 0xB and 0x1F: threads, cores, end (SDM volume 2, CPUID). */
static void add_topology(struct table *t, u32 leaf, const struct place *p)
{
    const struct engine_topology *top = p->topology;
    const struct {
        u32 shift, count, type;
    } levels[] = {
        {machine_thread_bits(top), top->threads, 1},
        {machine_package_bits(top), top->threads * top->cores, 2},
        {0, 0, 0},
    };

    for (u32 i = 0; i < ARRAY_SIZE(levels) && t->head.nent < MAX_ENTRIES; i++)
        t->entries[t->head.nent++] = (struct kvm_cpuid_entry2){
            .function = leaf,
            .index = i,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            .eax = levels[i].shift,
            .ebx = levels[i].count,
            .ecx = levels[i].type << 8 | i,
            .edx = p->apic_id,
        };
}

/* AMD's leaves: cores of the package, and this one's place in it (APM volume 3, appendix E). */
static void fix_amd(struct kvm_cpuid_entry2 *e, const struct place *p)
{
    const struct engine_topology *top = p->topology;

    if (e->function == 0x80000008)
        e->ecx = machine_package_bits(top) << 12 | (top->cores * top->threads - 1);
    else if (e->function == 0x8000001e) {
        e->eax = p->apic_id;
        e->ebx = (e->ebx & ~0xffffu) | (top->threads - 1) << 8 |
                 (p->apic_id >> machine_thread_bits(top) & 0xff);
        e->ecx = p->apic_id >> machine_package_bits(top);
    }
}

static void remove_leaf(struct table *t, u32 leaf)
{
    u32 kept = 0;

    for (u32 i = 0; i < t->head.nent; i++)
        if (t->entries[i].function != leaf)
            t->entries[kept++] = t->entries[i];
    t->head.nent = kept;
}

static void fix_table(struct table *t, const struct place *p)
{
    bool has_1f = engine_cpuid_find(&t->head, 0x1f, 0) != NULL;

    for (u32 i = 0; i < t->head.nent; i++) {
        struct kvm_cpuid_entry2 *e = &t->entries[i];

        if (e->function == 1)
            fix_leaf_1(e, p);
        else if (e->function == 4)
            fix_leaf_4(e, p);
        else
            fix_amd(e, p);
    }
    remove_leaf(t, 0xb);
    remove_leaf(t, 0x1f);
    add_topology(t, 0xb, p);
    if (has_1f)
        add_topology(t, 0x1f, p);
}

int machine_set_cpuid(struct machine *machine, struct vcpu *vcpu, struct err *err)
{
    const struct place place = {&machine->config.topology, vcpu->apic_id};
    const char *model = machine->config.cpu_model;
    struct table *t;
    int ret;

    t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, -ENOMEM, "out of memory for CPUID");
    t->head.nent = MAX_ENTRIES;
    ret = machine->ops->get_cpuid(vcpu, &t->head);
    if (!ret && t->head.nent)
        goto out; /* the engine brings a table that fits its model */
    if (model && strcmp(model, "host")) {
        ret = err_set(err, -EINVAL, "--cpu %s: the %s engine has only \"host\"", model,
                      machine->ops->name);
        goto out;
    }
    t->head.nent = MAX_ENTRIES;
    ret = machine->ops->get_supported_cpuid(machine->config.engine, &t->head);
    if (!ret) {
        fix_table(t, &place);
        ret = machine->ops->set_cpuid(vcpu, &t->head);
    }
    if (ret)
        err_set(err, ret, "the %s engine does not take a CPUID table: %s", machine->ops->name,
                strerror(-ret));
out:
    free(t);
    return ret;
}

bool machine_cpu_has(struct machine *machine, struct vcpu *vcpu, u32 leaf, unsigned reg,
                     unsigned bit)
{
    struct table *t = calloc(1, sizeof(*t));
    const struct kvm_cpuid_entry2 *e = NULL;
    bool has = false;

    if (!t)
        return false;
    t->head.nent = MAX_ENTRIES;
    if (!machine->ops->get_cpuid(vcpu, &t->head))
        e = engine_cpuid_find(&t->head, leaf, 0);
    if (e) {
        const u32 regs[] = {e->eax, e->ebx, e->ecx, e->edx};

        has = regs[reg] >> bit & 1;
    }
    free(t);
    return has;
}
