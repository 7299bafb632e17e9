/* FXSAVE and XSAVE images: the host's FXSAVE is the truth for the legacy area. */
#include "fixture.h"

#include <stdlib.h>

#include "base/entropy.h"

static void host_round_trip(struct fixture *f, const u8 image[512])
{
    u8 ours[512], host[512] __attribute__((aligned(16)));
    u8 saved[512] __attribute__((aligned(16)));

    memcpy(host, image, 512);
    __asm__ volatile("fxsave64 %0" : "=m"(saved));
    __asm__ volatile("fxrstor64 %0" : : "m"(host) : "memory");
    __asm__ volatile("fxsave64 %0" : "=m"(host)::"memory");
    __asm__ volatile("fxrstor64 %0" : : "m"(saved) : "memory");

    x86_fxrstor(&f->cpu, image, true);
    x86_fxsave(&f->cpu, ours, true);
    assert_memory_equal(ours, host, 5);           /* FCW, FSW, FTW */
    assert_memory_equal(ours + 24, host + 24, 4); /* MXCSR; the mask is the CPU model's */
    for (unsigned i = 0; i < 8; i++)
        assert_memory_equal(ours + 32 + 16 * i, host + 32 + 16 * i, 10);
    assert_memory_equal(ours + 160, host + 160, 256);
}

static void test_fxsave_against_host(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 200; i++) {
        u8 image[512] = {0};

        entropy_fill(image, 5);
        image[0] |= 0x3f; /* all x87 exceptions masked: none pending at the next x87 insn */
        image[1] &= 0x0f;
        image[2] = 0; /* no exception flags, so ES stays 0 */
        image[3] &= 0x7f;
        entropy_fill(image + 24, 2);
        image[25] |= 0x1f; /* masked here too */
        image[24] |= 0x80;
        for (unsigned r = 0; r < 8; r++)
            entropy_fill(image + 32 + 16 * r, 10);
        entropy_fill(image + 160, 256);
        host_round_trip(f, image);
    }
}

/* Exception flags, masks, ES and B as they may come: what FXRSTOR makes of the last two. */
static void test_summary_against_host(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 500; i++) {
        u8 image[512] = {0};

        entropy_fill(image, 4);
        image[25] = 0x1f;
        image[24] = 0x80;
        host_round_trip(f, image);
    }
}

static void fill(struct x86_cpu *cpu)
{
    cpu->fcw = 0x27f;
    cpu->fsw = 0x4100;
    cpu->ftop = 5;
    cpu->ftag = 0xa5;
    cpu->mxcsr = 0x1fa0;
    cpu->pkru = 0x55555554;
    for (unsigned i = 0; i < 8; i++) {
        cpu->fpr[i].mantissa = 0x1111 * (i + 1);
        cpu->fpr[i].sign_exponent = (u16)(0x3fff + i);
    }
    for (unsigned i = 0; i < 16; i++)
        cpu->xmm[i][0] = cpu->xmm[i][1] = 0x0101010101010101 * i;
}

static void start(struct fixture *f)
{
    enter_long(f);
    f->cpu.cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXSAVE | X86_CR4_PKE;
    f->cpu.xcr0 = 0x203;
    f->cpu.gpr[X86_RAX] = 0xffffffff;
    f->cpu.gpr[X86_RDX] = 0xffffffff;
    memset(f->ram.hva + 0x5000, 0, 0x2000);
}

enum { PLAIN, OPT, COMPACT, SUPERVISOR, WIDE = 16 };

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    for (volatile unsigned form = PLAIN; form <= SUPERVISOR; form++) {
        struct x86_cpu before;

        start(f);
        fill(cpu);
        before = *cpu;
        assert_int_equal(TRY(f, x86_helper_xsave(cpu, 0x5000, form + WIDE, 4)), 0);
        assert_int_equal(*ram64(f, 0x5000 + 512), 0x203);
        assert_int_equal(*ram64(f, 0x5000 + 520), form >= COMPACT ? BIT(63) | 0x203 : 0);
        assert_int_equal(*ram32(f, 0x5000 + (form >= COMPACT ? 576 : 2688)), 0x55555554);
        memset(cpu->xmm, 0xff, sizeof(cpu->xmm));
        memset(cpu->fpr, 0xff, sizeof(cpu->fpr));
        cpu->fcw = cpu->fsw = 0;
        cpu->ftop = cpu->ftag = 0;
        cpu->mxcsr = 0x1f80;
        cpu->pkru = 0;
        assert_int_equal(
            TRY(f, x86_helper_xrstor(cpu, 0x5000, (form == SUPERVISOR ? 3 : 0) + WIDE, 4)), 0);
        assert_memory_equal(cpu->xmm, before.xmm, sizeof(cpu->xmm));
        for (unsigned i = 0; i < 8; i++)
            assert_memory_equal(&cpu->fpr[i], &before.fpr[i], 10);
        assert_int_equal(cpu->fsw, 0x4100);
        assert_int_equal(cpu->ftop, 5);
        assert_int_equal(cpu->ftag, 0xa5);
        assert_int_equal(cpu->mxcsr, 0x1fa0);
        assert_int_equal(cpu->pkru, 0x55555554);
    }
}

/* Components in their initial state, not requested, or absent from the image. */
static void test_init_and_mask(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    start(f);
    fill(cpu);
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
    cpu->mxcsr = 0x1f80;
    memset(f->ram.hva + 0x5000 + 160, 0xee, 256);
    assert_int_equal(TRY(f, x86_helper_xsave(cpu, 0x5000, OPT, 4)), 0);
    assert_int_equal(*ram64(f, 0x5000 + 512), 0x201);
    assert_int_equal(f->ram.hva[0x5000 + 160], 0xee); /* not written */
    assert_int_equal(TRY(f, x86_helper_xsave(cpu, 0x5000, PLAIN, 4)), 0);
    assert_int_equal(f->ram.hva[0x5000 + 160], 0);
    assert_int_equal(*ram64(f, 0x5000 + 512), 0x201);

    /* Only SSE requested: the other header bits stay, and x87 is not touched. */
    cpu->gpr[X86_RAX] = 2;
    cpu->gpr[X86_RDX] = 0;
    cpu->xmm[0][0] = 1;
    assert_int_equal(TRY(f, x86_helper_xsave(cpu, 0x5000, PLAIN, 4)), 0);
    assert_int_equal(*ram64(f, 0x5000 + 512), 0x203);
    cpu->gpr[X86_RAX] = 1;
    *ram64(f, 0x5000 + 512) = 2; /* x87 absent: initialised */
    assert_int_equal(TRY(f, x86_helper_xrstor(cpu, 0x5000, 0, 4)), 0);
    assert_int_equal(cpu->fcw, 0x37f);
    assert_int_equal(cpu->ftag, 0);
    assert_int_equal(cpu->xmm[0][0], 1);
}

static void test_xrstor_checks(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    start(f);
    *ram32(f, 0x5000 + 24) = 0x1f80;
    assert_int_equal(TRY(f, x86_helper_xrstor(cpu, 0x5000, 0, 4)), 0);
    assert_raises(f, x86_helper_xrstor(cpu, 0x5020, 0, 4), X86_GP, 0); /* alignment */
    *ram64(f, 0x5000 + 512) = 4;                                       /* not in XCR0 */
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_GP, 0);
    *ram64(f, 0x5000 + 512) = 0;
    *ram64(f, 0x5000 + 520) = 1;
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_GP, 0);
    *ram64(f, 0x5000 + 520) = 0;
    *ram64(f, 0x5000 + 528) = 1;
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_GP, 0);
    *ram64(f, 0x5000 + 528) = 0;
    *ram32(f, 0x5000 + 24) = 0x10000;
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_GP, 0);
    cpu->gpr[X86_RAX] = 1; /* SSE not requested: MXCSR is not looked at */
    cpu->gpr[X86_RDX] = 0;
    assert_int_equal(TRY(f, x86_helper_xrstor(cpu, 0x5000, 0, 4)), 0);
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 3, 4), X86_GP, 0); /* XRSTORS: compacted only */
    *ram64(f, 0x5000 + 520) = BIT(63) | 1;
    *ram64(f, 0x5000 + 512) = 2; /* not in XCOMP_BV */
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 3, 4), X86_GP, 0);
    cpu->cr0 |= X86_CR0_TS;
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_NM, 0);
    assert_raises(f, x86_helper_fxsave(cpu, 0x5000, 0), X86_NM, 0);
    cpu->cr4 &= ~X86_CR4_OSXSAVE;
    assert_raises(f, x86_helper_xrstor(cpu, 0x5000, 0, 4), X86_UD, 0);
    cpu->cr0 &= ~X86_CR0_TS;
    assert_raises(f, x86_helper_fxsave(cpu, 0x5008, 0), X86_GP, 0);
    *ram32(f, 0x5000 + 24) = 0x10000;
    assert_raises(f, x86_helper_fxrstor(cpu, 0x5000, 0), X86_GP, 0);
}

static void test_xcr0(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    start(f);
    assert_true(x86_write_xcr0(cpu, 1));
    assert_true(x86_write_xcr0(cpu, 0x203));
    assert_false(x86_write_xcr0(cpu, 2));
    assert_false(x86_write_xcr0(cpu, 7)); /* no AVX */
    f->features_off = X86_FEATURE_PKU;
    x86_update_features(cpu);
    assert_false(x86_write_xcr0(cpu, 0x203));
    cpu->gpr[X86_RCX] = 1;
    assert_raises(f, x86_helper_xsetbv(cpu, 3), X86_GP, 0);
    set_cpl(f, 3);
    assert_raises(f, x86_helper_xsetbv(cpu, 3), X86_GP, 0);
}

static void test_pkru(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    start(f);
    cpu->gpr[X86_RAX] = 0x55555550;
    cpu->gpr[X86_RCX] = cpu->gpr[X86_RDX] = 0;
    f->flush_all = 0;
    assert_int_equal(TRY(f, x86_helper_wrpkru(cpu)), 0);
    assert_int_equal(f->flush_all, 0); /* no page with a key was ever walked */
    cpu->pkey_used = true;
    cpu->gpr[X86_RAX] = 0;
    assert_int_equal(TRY(f, x86_helper_wrpkru(cpu)), 0);
    assert_int_equal(f->flush_all, 1);
    cpu->gpr[X86_RDX] = 1;
    assert_raises(f, x86_helper_wrpkru(cpu), X86_GP, 0);
    cpu->cr4 &= ~X86_CR4_PKE;
    assert_raises(f, x86_helper_rdpkru(cpu), X86_UD, 0);
}

/* The engine's image round-trips and refuses what the CPU would refuse. */
static void test_engine_image(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu before;
    u8 *image = malloc(X86_XSAVE_BYTES);

    start(f);
    fill(&f->cpu);
    before = f->cpu;
    x86_xsave(&f->cpu, image);
    memset(f->cpu.xmm, 0, sizeof(f->cpu.xmm));
    f->cpu.pkru = 0;
    assert_true(x86_xrstor(&f->cpu, image));
    assert_memory_equal(f->cpu.xmm, before.xmm, sizeof(before.xmm));
    assert_int_equal(f->cpu.pkru, before.pkru);
    assert_int_equal(f->cpu.mxcsr, before.mxcsr);
    image[26] = 1;
    assert_false(x86_xrstor(&f->cpu, image));
    free(image);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_fxsave_against_host),
        T(test_summary_against_host),
        T(test_round_trip),
        T(test_init_and_mask),
        T(test_xrstor_checks),
        T(test_xcr0),
        T(test_pkru),
        T(test_engine_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
