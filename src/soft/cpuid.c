#include "soft/cpuid.h"

#include <errno.h>
#include <linux/kvm_para.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "guest/x86/x86.h"

enum feature_level { V1, V2, CPU, MAX };
#define LEVEL(l) (1u << (l))

static const struct feature {
    const char *name;
    u32 leaf, subleaf;
    u8 reg, bit, level;
} features[] = {
#define F(name, leaf, subleaf, reg, bit, level) {#name, leaf, subleaf, CPUID_##reg, bit, level},
#include "soft/features.def"
#undef F
};

static const struct {
    const char *name;
    u32 levels;
} models[] = {
#define M(name, levels, help) {name, levels},
#include "soft/models.def"
#undef M
};

/* No CPU has the first without the second, so it goes with it; in such an order that one pass
 * does. */
static const struct {
    const char *name, *needs;
} dependencies[] = {
    {"sse2", "sse"},
    {"pni", "sse2"},
    {"ssse3", "pni"},
    {"sse4_1", "ssse3"},
    {"sse4_2", "sse4_1"},
    {"xsaveopt", "xsave"},
    {"xsavec", "xsave"},
    {"xgetbv1", "xsave"},
    {"xsaves", "xsavec"},
    {"la57", "lm"},
    {"pcid", "lm"},
    {"invpcid", "pcid"},
    {"pdpe1gb", "lm"},
    {"fsgsbase", "lm"},
    {"x2apic", "apic"},
    {"tsc_deadline_timer", "apic"},
    {"kvmclock_stable", "kvmclock"},
};

_Static_assert(ARRAY_SIZE(features) <= 128, "struct cpuid_model holds 128 features");

static void set_feature(struct cpuid_model *model, unsigned index, bool on)
{
    if (on)
        model->features[index / 64] |= BIT(index % 64);
    else
        model->features[index / 64] &= ~BIT(index % 64);
}

static unsigned feature_index(const char *name)
{
    unsigned i = 0;

    while (strcmp(features[i].name, name) != 0)
        BUG_ON(++i == ARRAY_SIZE(features));
    return i;
}

static void drop_dependent(struct cpuid_model *model)
{
    for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
        unsigned needs = feature_index(dependencies[i].needs);

        if (!(model->features[needs / 64] >> needs % 64 & 1))
            set_feature(model, feature_index(dependencies[i].name), false);
    }
}

static int unknown_model(const char *name, size_t len, struct err *err)
{
    struct strbuf names = {0};
    int ret;

    for (size_t i = 0; i < ARRAY_SIZE(models); i++)
        strbuf_printf(&names, "%s%s", i ? ", " : "", models[i].name);
    ret = err_set(err, -EINVAL, "the soft engine has no CPU model \"%.*s\"; it has %s", (int)len,
                  name, names.text ? names.text : "");
    strbuf_free(&names);
    return ret;
}

static int unknown_feature(const char *name, size_t len, struct err *err)
{
    struct strbuf names = {0};
    int ret;

    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        strbuf_printf(&names, "%s%s", i ? " " : "", features[i].name);
    ret = err_set(err, -EINVAL, "no CPU feature \"%.*s\"; there are: %s", (int)len, name,
                  names.text ? names.text : "");
    strbuf_free(&names);
    return ret;
}

static bool equals(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && !memcmp(name, text, len);
}

/* One "+name", "-name", "name=on", "name=off" of @len characters. */
static int parse_feature(struct cpuid_model *model, const char *text, size_t len, struct err *err)
{
    const char *equal = memchr(text, '=', len), *name = text, *whole = text;
    size_t name_len = len, whole_len = len;
    bool on = true;

    if (equal) {
        const char *value = equal + 1;
        size_t value_len = len - (size_t)(value - text);

        name_len = (size_t)(equal - text);
        if (!equals("on", value, value_len) && !equals("off", value, value_len))
            return err_set(err, -EINVAL, "CPU feature \"%.*s\": on or off, not \"%.*s\"",
                           (int)name_len, text, (int)value_len, value);
        on = equals("on", value, value_len);
    } else if (len && (*text == '+' || *text == '-')) {
        on = *text == '+';
        name++;
        name_len--;
    } else {
        return err_set(err, -EINVAL,
                       "\"%.*s\" after the CPU model: write +feature, -feature or feature=on|off",
                       (int)whole_len, whole);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        if (equals(features[i].name, name, name_len)) {
            set_feature(model, i, on);
            return 0;
        }
    }
    return unknown_feature(name, name_len, err);
}

int cpuid_parse_model(struct cpuid_model *model, const char *text, struct err *err)
{
    size_t len;

    memset(model, 0, sizeof *model);
    if (!text || !*text)
        text = models[0].name;
    len = strcspn(text, ",");
    for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
        if (!equals(models[i].name, text, len) &&
            !(equals("max", models[i].name, strlen(models[i].name)) && equals("host", text, len)))
            continue;
        model->name = models[i].name;
        for (unsigned f = 0; f < ARRAY_SIZE(features); f++)
            set_feature(model, f, models[i].levels & LEVEL(features[f].level));
    }
    if (!model->name)
        return unknown_model(text, len, err);
    for (text += len; *text; text += len) {
        int ret;

        text++;
        len = strcspn(text, ",");
        ret = parse_feature(model, text, len, err);
        if (ret)
            return ret;
    }
    drop_dependent(model);
    return 0;
}

/* --- the table --- */

static struct kvm_cpuid_entry2 *add(struct cpuid_table *table, u32 leaf, u32 subleaf, bool indexed)
{
    struct kvm_cpuid_entry2 *e = &table->entry[table->count++];

    *e = (struct kvm_cpuid_entry2){
        .function = leaf,
        .index = subleaf,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    };
    return e;
}

static void add_values(struct cpuid_table *table, u32 leaf, u32 subleaf, bool indexed, u32 eax,
                       u32 ebx, u32 ecx, u32 edx)
{
    struct kvm_cpuid_entry2 *e = add(table, leaf, subleaf, indexed);

    e->eax = eax;
    e->ebx = ebx;
    e->ecx = ecx;
    e->edx = edx;
}

static unsigned bits_for(unsigned n)
{
    return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

unsigned cpuid_thread_bits(const struct engine_topology *topology)
{
    return bits_for(topology->threads);
}

unsigned cpuid_core_bits(const struct engine_topology *topology)
{
    return bits_for(topology->threads) + bits_for(topology->cores);
}

/* Up to 12 characters, or 16 for @leaf of the brand string, into the registers. */
static void put_text(u32 *out, const char *text, size_t len)
{
    char buf[16] = {0};

    memcpy(buf, text, len);
    memcpy(out, buf, sizeof buf);
}

static void build_identity(struct cpuid_table *t, const struct cpuid_model *model)
{
    char brand[48] = {0};
    u32 v[4];

    put_text(v, "GenuntelineI", 12); /* EBX, ECX, EDX in this order; read as EBX, EDX, ECX */
    add_values(t, 0, 0, false, 0x1f, v[0], v[1], v[2]);
    put_text(v, "KVMKVMKVM", 9);
    add_values(t, 0x40000000, 0, false, 0x40000001, v[0], v[1], v[2]);
    add(t, 0x40000001, 0, false);
    add_values(t, 0x80000000, 0, false, 0x80000008, 0, 0, 0);
    snprintf(brand, sizeof brand, "Triode %s", model->name);
    for (u32 i = 0; i < 3; i++) {
        memcpy(v, brand + 16 * i, 16);
        add_values(t, 0x80000002 + i, 0, false, v[0], v[1], v[2], v[3]);
    }
}

/* Deterministic caches (leaf 4): 64-byte lines; L1s and L2 are a core's, L3 a package's. */
static void build_caches(struct cpuid_table *t, const struct engine_topology *topology)
{
    static const struct {
        u32 type, level, ways, sets;
    } caches[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 16, 1024}, {3, 3, 16, 16384}};
    u32 thread_ids = 1u << cpuid_thread_bits(topology);
    u32 package_ids = 1u << cpuid_core_bits(topology);

    for (u32 i = 0; i < ARRAY_SIZE(caches); i++) {
        u32 sharing = caches[i].level == 3 ? package_ids : thread_ids;

        add_values(t, 4, i, true,
                   caches[i].type | caches[i].level << 5 | 1u << 8 | (sharing - 1) << 14 |
                       (package_ids / thread_ids - 1) << 26,
                   (caches[i].ways - 1) << 22 | 63, caches[i].sets - 1, 0);
    }
    add(t, 4, ARRAY_SIZE(caches), true);
    add_values(t, 0x80000005, 0, false, 0, 0, 0, 0);
    add_values(t, 0x80000006, 0, false, 0, 0, 1024u << 16 | 8u << 12 | 64, 0);
}

static void build_topology(struct cpuid_table *t, const struct engine_topology *topology,
                           u32 apic_id)
{
    static const u32 leaves[] = {0xb, 0x1f};
    u32 threads = topology->threads ? topology->threads : 1;
    u32 cores = topology->cores ? topology->cores : 1;

    for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++) {
        add_values(t, leaves[i], 0, true, cpuid_thread_bits(topology), threads, 1u << 8, apic_id);
        add_values(t, leaves[i], 1, true, cpuid_core_bits(topology), threads * cores, 2u << 8 | 1,
                   apic_id);
        add_values(t, leaves[i], 2, true, 0, 0, 2, apic_id);
    }
}

/* Version 2. Of the seven events, those of the last-level cache and of branch prediction are not
 * there. */
static void build_performance_counters(struct cpuid_table *t)
{
    const u32 version = 2, events = 7, missing = BIT(3) | BIT(4) | BIT(6);

    add_values(t, 0xa, 0, false,
               version | X86_PMU_GENERAL << 8 | X86_PMU_WIDTH << 16 | events << 24, missing, 0,
               X86_PMU_FIXED | X86_PMU_WIDTH << 5);
}

/* Components x87, SSE and PKRU. Sizes that depend on XCR0 are put in when asked (soft_cpuid). */
static void build_xsave(struct cpuid_table *t, bool xsave, bool pku)
{
    add_values(t, 0xd, 0, true, xsave ? 3 | (pku ? BIT(9) : 0) : 0, 0,
               xsave ? (pku ? X86_XSAVE_BYTES : 576) : 0, 0);
    add(t, 0xd, 1, true);
    if (xsave && pku)
        add_values(t, 0xd, 9, true, 8, X86_XSAVE_PKRU_OFFSET, 0, 0);
}

/* The fraction by which a 1 GHz crystal (the LAPIC timer's clock) makes the TSC: the closest with
 * numerators that Linux multiplies by the crystal's kHz in 32 bits. */
static void build_frequency(struct cpuid_table *t, u64 khz)
{
    const u64 crystal_khz = 1000000;
    u64 best_num = 0, best_den = 1, best_error = ~0ull;

    for (u64 den = 1; den <= 4096; den++) {
        u64 num = (khz * den + crystal_khz / 2) / crystal_khz, made, error;

        if (num > 0xffffffffull / crystal_khz)
            break;
        made = crystal_khz * num * 1000 / den; /* Hz */
        error = made > khz * 1000 ? made - khz * 1000 : khz * 1000 - made;
        if (num && error < best_error) {
            best_error = error;
            best_num = num;
            best_den = den;
        }
    }
    add_values(t, 0x15, 0, false, (u32)best_den, (u32)best_num,
               best_num ? (u32)(crystal_khz * 1000) : 0, 0);
    add_values(t, 0x16, 0, false, (u32)((khz + 500) / 1000), (u32)((khz + 500) / 1000), 100, 0);
}

static bool has(const struct cpuid_model *model, const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (!strcmp(features[i].name, name))
            return model->features[i / 64] >> i % 64 & 1;
    return false;
}

static u32 *register_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
    return reg == CPUID_EAX   ? &e->eax
           : reg == CPUID_EBX ? &e->ebx
           : reg == CPUID_ECX ? &e->ecx
                              : &e->edx;
}

static struct kvm_cpuid_entry2 *exact(struct cpuid_table *table, u32 leaf, u32 subleaf)
{
    for (u32 i = 0; i < table->count; i++) {
        struct kvm_cpuid_entry2 *e = &table->entry[i];

        if (e->function == leaf &&
            (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
            return e;
    }
    return NULL;
}

static void set_features(struct cpuid_table *table, const struct cpuid_model *model)
{
    bool xsave = has(model, "xsave");

    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        struct kvm_cpuid_entry2 *e = exact(table, f->leaf, f->subleaf);

        if (!e || !(model->features[i / 64] >> i % 64 & 1) || (f->leaf == 0xd && !xsave))
            continue;
        *register_of(e, f->reg) |= 1u << f->bit;
    }
}

void cpuid_build(struct cpuid_table *t, const struct cpuid_model *model,
                 const struct engine_topology *topology, u32 apic_id, u64 tsc_khz)
{
    u32 package_ids = 1u << cpuid_core_bits(topology);

    memset(t, 0, sizeof *t);
    build_identity(t, model);
    add_values(t, 1, 0, false, 0x00030661, /* family 6, model 36h, stepping 1 */
               apic_id << 24 | (package_ids & 0xff) << 16 | 8 << 8, 0,
               package_ids > 1 ? 1u << 28 : 0);
    /* Leaf 2: caches are in leaf 4; 64-byte prefetch. */
    add_values(t, 2, 0, false, 0x00feff01, 0xf0, 0, 0);
    build_caches(t, topology);
    if (has(model, "monitor"))
        add_values(t, 5, 0, false, 64, 64, 0, 0);
    add(t, 6, 0, false);
    add(t, 7, 0, true);
    if (has(model, "pmu"))
        build_performance_counters(t);
    build_topology(t, topology, apic_id);
    build_xsave(t, has(model, "xsave"), has(model, "pku"));
    build_frequency(t, tsc_khz);
    add(t, 0x80000001, 0, false);
    add(t, 0x80000007, 0, false);
    add_values(t, 0x80000008, 0, false, CPUID_PHYS_BITS | (has(model, "la57") ? 57 : 48) << 8, 0, 0,
               0);
    set_features(t, model);
    if (has(model, "kvmclock"))
        exact(t, 0x40000001, 0)->eax |= 1u << KVM_FEATURE_CLOCKSOURCE;
}

static u32 highest(const struct cpuid_table *table, u32 base)
{
    for (u32 i = 0; i < table->count; i++)
        if (table->entry[i].function == base)
            return table->entry[i].eax;
    return 0;
}

const struct kvm_cpuid_entry2 *cpuid_find(const struct cpuid_table *table, u32 leaf, u32 subleaf)
{
    u32 base = leaf & 0xc0000000;
    u32 limit = highest(table, base);

    if (leaf > limit && base != 0x40000000)
        leaf = highest(table, 0);
    return exact((struct cpuid_table *)table, leaf, subleaf);
}
