#include "fixture.h"

#include <stdlib.h>

static struct fixture *of(struct x86_cpu *cpu)
{
    return (struct fixture *)cpu;
}

ram_u64 *ram64(struct fixture *f, u64 gpa)
{
    assert_true(gpa + 8 <= RAM_SIZE);
    return (ram_u64 *)(void *)(f->ram.hva + gpa);
}

ram_u32 *ram32(struct fixture *f, u64 gpa)
{
    return (ram_u32 *)ram64(f, gpa);
}

ram_u16 *ram16(struct fixture *f, u64 gpa)
{
    return (ram_u16 *)ram64(f, gpa);
}

/* --- Guest memory services --- */

static u8 *at(struct guest_cpu *cpu, u64 gva, enum guest_access access, bool implicit)
{
    struct fixture *f = (struct fixture *)cpu;
    struct guest_page page;

    assert_int_equal(x86_walk(cpu, gva, access, implicit, false, &page), 0);
    assert_true(page.gpa < RAM_SIZE);
    return f->ram.hva + (page.gpa | (gva & 4095));
}

static void load_with(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes, bool implicit)
{
    for (unsigned i = 0; i < bytes; i++)
        ((u8 *)buf)[i] = *at(cpu, gva + i, GUEST_READ, implicit);
}

static void store_with(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes,
                       bool implicit)
{
    at(cpu, gva, GUEST_WRITE, implicit);
    at(cpu, gva + bytes - 1, GUEST_WRITE, implicit); /* all or nothing */
    for (unsigned i = 0; i < bytes; i++)
        *at(cpu, gva + i, GUEST_WRITE, implicit) = ((const u8 *)buf)[i];
}

static void load(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    load_with(cpu, gva, buf, bytes, false);
}

static void store(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    store_with(cpu, gva, buf, bytes, false);
}

static void load_implicit(struct guest_cpu *cpu, u64 gva, void *buf, unsigned bytes)
{
    load_with(cpu, gva, buf, bytes, true);
}

static void store_implicit(struct guest_cpu *cpu, u64 gva, const void *buf, unsigned bytes)
{
    store_with(cpu, gva, buf, bytes, true);
}

static u8 *host(struct guest_cpu *cpu, u64 gva, enum guest_access access)
{
    (void)cpu, (void)gva, (void)access;
    return NULL;
}

static void flush_page(struct guest_cpu *cpu, u64 gva)
{
    ((struct fixture *)cpu)->flush_page++;
    ((struct fixture *)cpu)->flushed_gva = gva;
}

static void flush_all(struct guest_cpu *cpu)
{
    ((struct fixture *)cpu)->flush_all++;
}

static void flush_space(struct guest_cpu *cpu, u64 key, bool keep_global)
{
    assert_true(keep_global);
    ((struct fixture *)cpu)->flush_space++;
    ((struct fixture *)cpu)->flushed_key = key;
}

static void switch_space(struct guest_cpu *cpu, u64 key, unsigned priv)
{
    static struct tlb tlb; /* only its address matters */

    (void)key;
    assert_true(priv <= 2);
    ((struct fixture *)cpu)->switches++;
    cpu->tlb = &tlb;
}

static const struct guest_memory memory = {
    .load = load,
    .store = store,
    .load_implicit = load_implicit,
    .store_implicit = store_implicit,
    .host = host,
    .flush_page = flush_page,
    .flush_all = flush_all,
    .flush_space = flush_space,
    .switch_space = switch_space,
};

/* --- Hooks --- */

static void cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    static const struct {
        u32 leaf, subleaf;
        u8 reg, bit;
        u32 feature;
    } rows[] = {
        {1, 0, 3, 1, X86_FEATURE_VME},
        {1, 0, 3, 3, X86_FEATURE_PSE},
        {1, 0, 3, 6, X86_FEATURE_PAE},
        {1, 0, 3, 13, X86_FEATURE_PGE},
        {1, 0, 3, 24, X86_FEATURE_FXSR},
        {1, 0, 2, 3, X86_FEATURE_MONITOR},
        {1, 0, 2, 15, X86_FEATURE_PMU},
        {1, 0, 2, 17, X86_FEATURE_PCID},
        {1, 0, 2, 26, X86_FEATURE_XSAVE},
        {1, 0, 2, 30, X86_FEATURE_RDRAND},
        {7, 0, 1, 0, X86_FEATURE_FSGSBASE},
        {7, 0, 1, 7, X86_FEATURE_SMEP},
        {7, 0, 1, 10, X86_FEATURE_INVPCID},
        {7, 0, 1, 18, X86_FEATURE_RDSEED},
        {7, 0, 1, 20, X86_FEATURE_SMAP},
        {7, 0, 2, 2, X86_FEATURE_UMIP},
        {7, 0, 2, 3, X86_FEATURE_PKU},
        {7, 0, 2, 16, X86_FEATURE_LA57},
        {0xd, 1, 0, 0, X86_FEATURE_XSAVEOPT},
        {0xd, 1, 0, 1, X86_FEATURE_XSAVEC},
        {0xd, 1, 0, 3, X86_FEATURE_XSAVES},
        {0x80000001, 0, 3, 11, X86_FEATURE_SYSCALL},
        {0x80000001, 0, 3, 20, X86_FEATURE_NX},
        {0x80000001, 0, 3, 26, X86_FEATURE_PAGE1GB},
        {0x80000001, 0, 3, 27, X86_FEATURE_RDTSCP},
        {0x80000001, 0, 3, 29, X86_FEATURE_LM},
    };

    memset(out, 0, 16);
    if (leaf == 0)
        out[0] = 0xd;
    if (leaf == 0x80000000)
        out[0] = 0x80000008;
    if (leaf == 1) {
        out[0] = 0x306a9;
        out[2] = 0x00982201; /* of x86-64-v2 */
    }
    if (leaf == 0x80000001)
        out[2] = 1;
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
        if (rows[i].leaf == leaf && rows[i].subleaf == subleaf &&
            !(of(cpu)->features_off & rows[i].feature))
            out[rows[i].reg] |= 1u << rows[i].bit;
}

static void intercept(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len, u64 linear,
                      u64 insn_info)
{
    struct fixture *f = of(cpu);

    (void)insn_len;
    f->intercepts++;
    f->last_reason = reason;
    f->last_qualification = qualification;
    f->last_linear = linear;
    f->last_info = insn_info;
}

static const struct x86_hooks hooks = {.cpuid = cpuid, .intercept = intercept};

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->mem = mem_create();
    assert_int_equal(mem_ram_alloc(&f->ram, RAM_SIZE, NULL), 0);
    assert_int_equal(mem_set_slot(f->mem, 0, 0, 0, RAM_SIZE, f->ram.hva), 0);
    f->cpu.common.mem = f->mem;
    f->cpu.common.memory = &memory;
    f->cpu.hooks = &hooks;
    f->cpu.phys_mask = mask_low(40);
    x86_reset(&f->cpu, false);
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    mem_destroy(f->mem);
    mem_ram_free(&f->ram);
    free(f);
    return 0;
}

/* --- Modes --- */

u64 descriptor(u8 access, u8 flags, u32 base, u32 limit)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void set_descriptor(struct fixture *f, u16 selector, u64 raw)
{
    *ram64(f, GDT_BASE + (selector & 0xfff8)) = raw;
}

static void set_tables(struct fixture *f, bool wide)
{
    set_descriptor(f, SEL_CODE0, descriptor(0x9b, 0xc, 0, 0xfffff));
    set_descriptor(f, SEL_DATA0, descriptor(0x93, 0xc, 0, 0xfffff));
    set_descriptor(f, SEL_CODE3, descriptor(0xfb, 0xc, 0, 0xfffff));
    set_descriptor(f, SEL_DATA3, descriptor(0xf3, 0xc, 0, 0xfffff));
    set_descriptor(f, SEL_CODE64_0, descriptor(0x9b, 0xa, 0, 0xfffff));
    set_descriptor(f, SEL_CODE64_3, descriptor(0xfb, 0xa, 0, 0xfffff));
    set_descriptor(f, SEL_CODE16, descriptor(0x9b, 0x0, 0, 0xffff));
    set_descriptor(f, SEL_CONFORM0, descriptor(0x9f, 0xc, 0, 0xfffff));
    set_descriptor(f, SEL_TSS, descriptor(0x8b, 0, TSS_BASE, 0x1ff));
    set_descriptor(f, SEL_TSS + 8, 0);
    f->cpu.gdtr = (struct x86_table){.base = GDT_BASE, .limit = GDT_LIMIT};
    f->cpu.idtr = (struct x86_table){.base = IDT_BASE, .limit = wide ? 0xfff : 0x7ff};
    f->cpu.seg[X86_TR] =
        (struct x86_seg){.base = TSS_BASE, .limit = 0x1ff, .access = 0x8b, .selector = SEL_TSS};
    f->cpu.seg[X86_LDTR] = (struct x86_seg){.access = X86_SEG_UNUSABLE};
}

void enter_real(struct fixture *f)
{
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        f->cpu.seg[i] = (struct x86_seg){.limit = 0xffff, .access = i == X86_CS ? 0x9b : 0x93};
    f->cpu.cr0 = X86_CR0_ET;
    f->cpu.cr4 = 0;
    f->cpu.efer = 0;
    f->cpu.cpl = 0;
    f->cpu.idtr = (struct x86_table){.base = 0, .limit = 0x3ff};
    x86_set_rflags(&f->cpu, 2);
    x86_update(&f->cpu);
}

void set_cpl(struct fixture *f, unsigned cpl)
{
    bool wide = f->cpu.efer & X86_EFER_LMA;
    static const u16 code[2][2] = {{SEL_CODE0, SEL_CODE3}, {SEL_CODE64_0, SEL_CODE64_3}};

    f->cpu.cpl = (u8)cpl;
    f->cpu.seg[X86_CS] = (struct x86_seg){
        .limit = 0xffffffff,
        .access = 0x9b | cpl << 5 | X86_SEG_G | (wide ? X86_SEG_L : X86_SEG_DB),
        .selector = code[wide][cpl == 3],
    };
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        if (i != X86_CS)
            f->cpu.seg[i] = (struct x86_seg){
                .limit = 0xffffffff,
                .access = 0x93 | cpl << 5 | X86_SEG_G | X86_SEG_DB,
                .selector = cpl == 3 ? SEL_DATA3 : SEL_DATA0,
            };
    x86_update(&f->cpu);
}

void enter_protected(struct fixture *f)
{
    f->cpu.cr0 = X86_CR0_PE | X86_CR0_ET;
    f->cpu.cr4 = 0;
    f->cpu.efer = 0;
    x86_set_rflags(&f->cpu, 2);
    set_tables(f, false);
    set_cpl(f, 0);
}

/* Identity map of the first GiB with 2-MiB pages, user-accessible. */
void enter_long(struct fixture *f)
{
    *ram64(f, TABLES_BASE) = (TABLES_BASE + 0x1000) | 7;
    *ram64(f, TABLES_BASE + 0x1000) = (TABLES_BASE + 0x2000) | 7;
    for (unsigned i = 0; i < 512; i++)
        *ram64(f, TABLES_BASE + 0x2000 + 8 * i) = (u64)i << 21 | 0xe7;
    f->cpu.cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_PG | X86_CR0_WP;
    f->cpu.cr3 = TABLES_BASE;
    f->cpu.cr4 = X86_CR4_PAE;
    f->cpu.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
    x86_set_rflags(&f->cpu, 2);
    set_tables(f, true);
    set_cpl(f, 0);
}
