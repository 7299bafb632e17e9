/* Control, debug and model-specific registers: reserved bits, mode transitions, effects on TLBs. */
#include "fixture.h"

static void test_cr0(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    assert_false(x86_write_cr0(cpu, cpu->cr0 | BIT(32), true));
    assert_false(x86_write_cr0(cpu, X86_CR0_PG, true));              /* PG without PE */
    assert_false(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_NW, true)); /* NW without CD */
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_NW | X86_CR0_CD, true));
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | 0x0ff8ff00, true)); /* ignored bits */
    assert_int_equal(cpu->cr0, X86_CR0_PE | X86_CR0_ET | X86_CR0_WP * 0);
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_TS, true));
    assert_int_equal(cpu->common.mode & (X86_MODE_FPU_TRAP | X86_MODE_SSE_TRAP),
                     X86_MODE_FPU_TRAP | X86_MODE_SSE_TRAP);
    assert_int_equal(TRY(f, x86_helper_lmsw(cpu, 0, 3, 0, 0)), 0);
    assert_int_equal(cpu->cr0, X86_CR0_PE | X86_CR0_ET); /* LMSW cannot clear PE */
    assert_int_equal(f->last_reason, X86_REASON_CR);
    assert_int_equal(f->last_qualification, 3 << 4);
    f->flush_all = 0;
    cpu->cr3 = TABLES_BASE;
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true));
    assert_int_equal(f->flush_all, 1);
}

/* SDM vol. 3 10.8.5: the way into IA-32e mode, and the checks on it. */
static void test_enter_long_mode(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f); /* for tables and GDT */
    enter_protected(f);
    cpu->cr3 = TABLES_BASE;
    assert_true(x86_write_efer(cpu, X86_EFER_LME, true));
    assert_false(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true)); /* no PAE */
    assert_true(x86_write_cr4(cpu, X86_CR4_PAE, true));
    cpu->seg[X86_TR].access = 0x83;
    assert_false(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true)); /* 16-bit TSS */
    cpu->seg[X86_TR].access = 0x8b;
    cpu->seg[X86_CS].access |= X86_SEG_L;
    assert_false(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true)); /* CS.L already */
    assert_int_equal(cpu->efer, X86_EFER_LME);
    cpu->seg[X86_CS].access &= ~X86_SEG_L;
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true));
    assert_int_equal(cpu->efer, X86_EFER_LME | X86_EFER_LMA);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);
    assert_false(x86_write_efer(cpu, 0, true));           /* LME with paging on */
    assert_true(x86_write_efer(cpu, X86_EFER_LME, true)); /* LMA is read-only */
    assert_int_equal(cpu->efer, X86_EFER_LME | X86_EFER_LMA);
    assert_false(x86_write_cr4(cpu, 0, true)); /* PAE must stay */
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE64_0, 0x1000, 4, 7)), 0);
    assert_false(x86_write_cr0(cpu, X86_CR0_PE, true)); /* not from 64-bit code */
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE0, 0x1000, 4, 7)), 0);
    assert_true(x86_write_cr0(cpu, X86_CR0_PE, true));
    assert_int_equal(cpu->efer, X86_EFER_LME);
}

static void test_cr4(void **state)
{
    static const struct {
        u64 bit;
        u32 feature;
    } rows[] = {
        {X86_CR4_VME, X86_FEATURE_VME},     {X86_CR4_PVI, X86_FEATURE_VME},
        {X86_CR4_PGE, X86_FEATURE_PGE},     {X86_CR4_UMIP, X86_FEATURE_UMIP},
        {X86_CR4_OSFXSR, X86_FEATURE_FXSR}, {X86_CR4_FSGSBASE, X86_FEATURE_FSGSBASE},
        {X86_CR4_PCIDE, X86_FEATURE_PCID},  {X86_CR4_OSXSAVE, X86_FEATURE_XSAVE},
        {X86_CR4_SMEP, X86_FEATURE_SMEP},   {X86_CR4_SMAP, X86_FEATURE_SMAP},
        {X86_CR4_PKE, X86_FEATURE_PKU},
    };
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        cpu->cr4 = X86_CR4_PAE;
        f->features_off = 0;
        x86_update_features(cpu);
        assert_true(x86_write_cr4(cpu, X86_CR4_PAE | rows[i].bit, true));
        cpu->cr4 = X86_CR4_PAE;
        f->features_off = rows[i].feature;
        x86_update_features(cpu);
        assert_false(x86_write_cr4(cpu, X86_CR4_PAE | rows[i].bit, true));
    }
    f->features_off = 0;
    x86_update_features(cpu);
    for (unsigned bit = 14; bit < 64; bit++)
        if (bit == 14 || bit == 15 || bit == 19 || bit > 22)
            assert_false(x86_write_cr4(cpu, X86_CR4_PAE | BIT(bit), true));
    assert_false(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_VMXE, true)); /* not offered */
    assert_false(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_LA57, true)); /* not in IA-32e mode */
    cpu->cr3 = TABLES_BASE | 1;
    assert_false(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_PCIDE, true));
    cpu->cr3 = TABLES_BASE;
    f->flush_all = 0;
    assert_true(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_PGE, true));
    assert_int_equal(f->flush_all, 1);
    assert_true(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_PGE | X86_CR4_TSD, true));
    assert_int_equal(f->flush_all, 1);
    enter_protected(f);
    assert_false(x86_write_cr4(cpu, X86_CR4_PCIDE, true));
    assert_true(x86_write_cr4(cpu, X86_CR4_LA57, true));
}

static void test_cr3(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    u64 key;

    enter_long(f);
    assert_false(x86_write_cr3(cpu, TABLES_BASE | BIT(40), true)); /* MAXPHYADDR is 40 */
    assert_false(x86_write_cr3(cpu, TABLES_BASE | BIT(63), true)); /* no PCIDs */
    f->flush_space = 0;
    assert_true(x86_write_cr3(cpu, TABLES_BASE | 0x18, true));
    assert_int_equal(f->flush_space, 1);
    key = cpu->space_key;
    assert_int_equal(f->flushed_key, key);
    assert_true(x86_write_cr3(cpu, TABLES_BASE, true));
    assert_int_equal(cpu->space_key, key); /* PWT and PCD are no part of it */
    assert_true(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_PCIDE, true));
    f->flush_space = 0;
    assert_true(x86_write_cr3(cpu, TABLES_BASE | 5 | BIT(63), true));
    assert_int_equal(f->flush_space, 0);
    assert_int_equal(cpu->cr3, TABLES_BASE | 5);
    assert_int_not_equal(cpu->space_key, key);
    key = cpu->space_key;
    assert_true(x86_write_cr3(cpu, TABLES_BASE | 6, true));
    assert_int_equal(f->flush_space, 1);
    assert_int_not_equal(cpu->space_key, key);
    assert_false(x86_write_cr0(cpu, X86_CR0_PE, true)); /* PCIDE with paging off */
}

/* Everything that changes what a walk answers changes the key. */
static void test_space_key(void **state)
{
    static const u64 cr4_bits[] = {X86_CR4_PSE, X86_CR4_SMEP, X86_CR4_SMAP, X86_CR4_PKE,
                                   X86_CR4_LA57};
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    u64 keys[16];
    unsigned n = 0;

    enter_long(f);
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    for (unsigned i = 0; i < ARRAY_SIZE(cr4_bits); i++) {
        cpu->cr4 ^= cr4_bits[i];
        keys[n++] = x86_space_key(cpu, cpu->cr3);
        cpu->cr4 ^= cr4_bits[i];
    }
    cpu->cr0 ^= X86_CR0_WP;
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    cpu->cr0 ^= X86_CR0_WP;
    cpu->efer ^= X86_EFER_NXE;
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    cpu->efer ^= X86_EFER_NXE | X86_EFER_LMA;
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    cpu->cr4 &= ~X86_CR4_PAE;
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    cpu->cr0 &= ~X86_CR0_PG;
    keys[n++] = x86_space_key(cpu, cpu->cr3);
    for (unsigned i = 0; i < n; i++)
        for (unsigned j = 0; j < i; j++)
            assert_int_not_equal(keys[i], keys[j]);
}

static void test_pae_pdptes(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    assert_true(x86_write_cr4(cpu, X86_CR4_PAE, true));
    memset(f->ram.hva + 0x30000, 0, 64);
    *ram64(f, 0x30020) = 0x31001;
    *ram64(f, 0x30028) = 0xffffffe6; /* not present: anything goes */
    assert_true(x86_write_cr3(cpu, 0x30020, true));
    assert_true(x86_write_cr0(cpu, X86_CR0_PE | X86_CR0_PG, true));
    assert_int_equal(cpu->pdpte[0], 0x31001);
    for (unsigned bit = 1; bit < 64; bit++) {
        bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 40;

        *ram64(f, 0x30038) = BIT(bit) | 1;
        assert_int_equal(x86_write_cr3(cpu, 0x30020, true), !reserved);
    }
    *ram64(f, 0x30038) = 3;
    assert_int_equal(cpu->pdpte[3], BIT(39) | 1);
    /* They are registers: memory changes are seen at the next load only. */
    *ram64(f, 0x30020) = 0;
    assert_int_equal(cpu->pdpte[0], 0x31001);
    assert_false(x86_write_cr4(cpu, X86_CR4_PAE | X86_CR4_PGE, true)); /* reloads, and fails */
    assert_int_equal(cpu->cr4, X86_CR4_PAE);
}

static void test_efer(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    for (unsigned bit = 1; bit < 64; bit++) {
        bool known = bit == 8 || bit == 10 || bit == 11;

        assert_int_equal(x86_write_efer(cpu, BIT(bit), true), known);
    }
    assert_true(x86_write_efer(cpu, 0, true));
    f->features_off = X86_FEATURE_NX;
    x86_update_features(cpu);
    assert_false(x86_write_efer(cpu, X86_EFER_NXE, true));
}

static void test_debug_registers(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 0, 0x1234567890, 3)), 0);
    assert_int_equal(cpu->dr[0], 0x1234567890);
    assert_int_equal(f->last_reason, X86_REASON_DR);
    assert_raises(f, x86_helper_write_dr(cpu, 7, BIT(32), 3), X86_GP, 0);
    assert_raises(f, x86_helper_write_dr(cpu, 6, BIT(32), 3), X86_GP, 0);
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 6, 0, 3)), 0);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);                                /* bit 16 is RTM's */
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 5, 0x000d0001, 3)), 0); /* DR5 is DR7 */
    assert_int_equal(cpu->dr[7], 0x000d0401);
    assert_true(cpu->common.mode & X86_MODE_DR);
    cpu->cr4 |= X86_CR4_DE;
    assert_raises(f, x86_helper_read_dr(cpu, 4, 3), X86_UD, 0);
    assert_raises(f, x86_helper_read_dr(cpu, 9, 3), X86_UD, 0);
    /* General detect. */
    assert_int_equal(TRY(f, x86_helper_write_dr(cpu, 7, BIT(13), 3)), 0);
    assert_int_equal(TRY(f, x86_helper_read_dr(cpu, 0, 3)), X86_EXIT_EVENT);
    assert_fault(f, X86_DB, 0);
    assert_int_equal(cpu->pending.payload, BIT(13));
    /* The VM exit comes before the privilege check. */
    cpu->dr[7] = 0x400;
    set_cpl(f, 3);
    f->intercepts = 0;
    assert_raises(f, x86_helper_read_dr(cpu, 0, 3), X86_GP, 0);
    assert_int_equal(f->intercepts, 1);
}

static void test_msrs(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    static const u32 addresses[] = {0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101,
                                    0xc0000102, 0x175,      0x176};
    u64 value;

    f->features_off = X86_FEATURE_LA57;
    x86_update_features(cpu);
    enter_long(f);
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        assert_true(x86_msr_write(cpu, addresses[i], 0xffff800000000000));
        assert_false(x86_msr_write(cpu, addresses[i], 0x0000800000000000));
        assert_true(x86_msr_read(cpu, addresses[i], &value));
        assert_int_equal(value, 0xffff800000000000);
    }
    assert_int_equal(cpu->seg[X86_FS].base, 0xffff800000000000);
    assert_false(x86_msr_write(cpu, 0xc0000084, BIT(32)));
    assert_false(x86_msr_write(cpu, 0xc0000103, BIT(32)));
    for (unsigned type = 0; type < 256; type++)
        assert_int_equal(x86_msr_write(cpu, 0x277, 0x0606060606060600 | type),
                         type < 8 && type != 2 && type != 3);
    assert_true(x86_msr_write(cpu, 0xda0, 0));
    assert_false(x86_msr_write(cpu, 0xda0, 1));
    assert_false(x86_msr_read(cpu, 0x12345678, &value)); /* and no hook that knows it */
    cpu->tsc_scale = BIT(48);
    assert_true(x86_msr_write(cpu, 0x10, 1000));
    assert_true(x86_msr_read(cpu, 0x10, &value));
    assert_in_range(value, 1000, 1000000000);

    cpu->gpr[X86_RCX] = 0x12345678;
    assert_raises(f, x86_helper_rdmsr(cpu, 2), X86_GP, 0);
    cpu->gpr[X86_RCX] = 0xffffffff00000000 | 0xc0000082;
    assert_int_equal(TRY(f, x86_helper_rdmsr(cpu, 2)), 0);
    assert_int_equal(cpu->gpr[X86_RAX], 0);
    assert_int_equal(cpu->gpr[X86_RDX], 0xffff8000);
}

static void test_tsd(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    cpu->cr4 |= X86_CR4_TSD;
    assert_int_equal(TRY(f, x86_helper_rdtsc(cpu, 2)), 0);
    set_cpl(f, 3);
    assert_raises(f, x86_helper_rdtsc(cpu, 2), X86_GP, 0);
    assert_raises(f, x86_helper_rdtscp(cpu, 3), X86_GP, 0);
    assert_raises(f, x86_helper_rdpmc(cpu, 2), X86_GP, 0);
    f->features_off = X86_FEATURE_RDTSCP;
    x86_update_features(cpu);
    assert_raises(f, x86_helper_rdtscp(cpu, 3), X86_UD, 0);
}

static void test_invpcid(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    *ram64(f, 0x5000) = 0;
    *ram64(f, 0x5008) = 0xffffffff81000000;
    assert_int_equal(TRY(f, x86_helper_invpcid(cpu, 0, 0x5000, 0, 5)), 0);
    assert_int_equal(f->flushed_gva, 0xffffffff81000000);
    *ram64(f, 0x5008) = 0x100000000000000;
    assert_raises(f, x86_helper_invpcid(cpu, 0, 0x5000, 0, 5), X86_GP, 0);
    *ram64(f, 0x5000) = 1; /* a PCID without CR4.PCIDE */
    assert_raises(f, x86_helper_invpcid(cpu, 1, 0x5000, 0, 5), X86_GP, 0);
    f->flush_all = 0;
    assert_int_equal(TRY(f, x86_helper_invpcid(cpu, 2, 0x5000, 0, 5)), 0);
    assert_int_equal(f->flush_all, 1);
    assert_raises(f, x86_helper_invpcid(cpu, 4, 0x5000, 0, 5), X86_GP, 0);
    *ram64(f, 0x5000) = 0x1000;
    cpu->cr4 |= X86_CR4_PCIDE;
    assert_raises(f, x86_helper_invpcid(cpu, 1, 0x5000, 0, 5), X86_GP, 0);
    *ram64(f, 0x5000) = cpu->cr3 & 0xfff;
    f->flush_space = 0;
    assert_int_equal(TRY(f, x86_helper_invpcid(cpu, 1, 0x5000, 0, 5)), 0);
    assert_int_equal(f->flush_space, 1);
    set_cpl(f, 3);
    assert_raises(f, x86_helper_invpcid(cpu, 2, 0x5000, 0, 5), X86_GP, 0);
}

static void test_reset(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    cpu->xmm[3][0] = 42;
    cpu->cr0 = (cpu->cr0 & ~X86_CR0_NW) | X86_CR0_CD;
    cpu->msr_lstar = 7;
    x86_reset(cpu, true);
    assert_int_equal(cpu->cr0, X86_CR0_ET | X86_CR0_CD);
    assert_int_equal(cpu->xmm[3][0], 42);
    assert_int_equal(cpu->msr_lstar, 7);
    x86_reset(cpu, false);
    assert_int_equal(cpu->lip, 0xfffffff0);
    assert_int_equal(x86_rip(cpu), 0xfff0);
    assert_int_equal(cpu->seg[X86_CS].selector, 0xf000);
    assert_int_equal(cpu->gpr[X86_RDX], 0x306a9);
    assert_int_equal(x86_rflags(cpu), 2);
    assert_int_equal(cpu->cr0, 0x60000010);
    assert_int_equal(cpu->xmm[3][0], 0);
    assert_int_equal(cpu->msr_lstar, 0);
    assert_int_equal(cpu->msr_pat, 0x0007040600070406);
    assert_int_equal(cpu->common.mode, X86_MODE_CODE16 | X86_MODE_SSE_TRAP | X86_MODE_IOPL_OK);
}

/* A helper that needs CR8 goes through the engine's local APIC. */
static u64 tpr;

static u64 read_tpr(struct x86_cpu *cpu)
{
    (void)cpu;
    return tpr;
}

static void write_tpr(struct x86_cpu *cpu, u64 value)
{
    (void)cpu;
    tpr = value;
}

static void test_cr8(void **state)
{
    struct fixture *f = *state;
    struct x86_hooks hooks = *f->cpu.hooks;

    hooks.read_tpr = read_tpr;
    hooks.write_tpr = write_tpr;
    f->cpu.hooks = &hooks;
    enter_long(f);
    assert_int_equal(TRY(f, x86_helper_write_cr(&f->cpu, 8, 9, 4)), 0);
    assert_int_equal(tpr, 9);
    assert_raises(f, x86_helper_write_cr(&f->cpu, 8, 16, 4), X86_GP, 0);
    assert_int_equal(x86_helper_read_cr(&f->cpu, 8, 4), 9);
    assert_raises(f, x86_helper_write_cr(&f->cpu, 0, X86_CR0_PG, 4), X86_GP, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_cr0),  T(test_enter_long_mode), T(test_cr4),
        T(test_cr3),  T(test_space_key),       T(test_pae_pdptes),
        T(test_efer), T(test_debug_registers), T(test_msrs),
        T(test_tsd),  T(test_invpcid),         T(test_reset),
        T(test_cr8),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
