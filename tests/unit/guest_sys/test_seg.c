/* Segment loads, far transfers, system calls: checks in the SDM's order and what they leave. */
#include "fixture.h"

static u32 load_segment(struct fixture *f, unsigned reg, u16 selector)
{
    return TRY(f, x86_load_segment(&f->cpu, reg, selector));
}

static void test_data_segments(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    set_descriptor(f, SEL_TEST, descriptor(0x92, 0x4, 0x12345678, 0xfffff)); /* not accessed */
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_FS, SEL_TEST)), 0);
    assert_int_equal(cpu->seg[X86_FS].base, 0x12345678);
    assert_int_equal(cpu->seg[X86_FS].limit, 0xfffff);
    assert_int_equal(cpu->seg[X86_FS].access, 0x4093);
    assert_int_equal(*ram64(f, GDT_BASE + SEL_TEST) >> 40 & 0xff, 0x93); /* accessed now */
    set_descriptor(f, SEL_TEST, descriptor(0x93, 0xc, 0, 0x12345));
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_FS, SEL_TEST)), 0);
    assert_int_equal(cpu->seg[X86_FS].limit, 0x12345fff);

    /* Null is fine for data, and unusable. */
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_FS, 3)), 0);
    assert_true(cpu->seg[X86_FS].access & X86_SEG_UNUSABLE);

    assert_raises(f, x86_load_segment(cpu, X86_ES, GDT_LIMIT + 1), X86_GP, GDT_LIMIT + 1);
    assert_raises(f, x86_load_segment(cpu, X86_ES, 0x0c), X86_GP, 0x0c); /* no LDT */
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_TSS), X86_GP, SEL_TSS);
    set_descriptor(f, SEL_TEST, descriptor(0x98, 0xc, 0, 0xfffff)); /* execute-only */
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_TEST), X86_GP, SEL_TEST);
    set_descriptor(f, SEL_TEST, descriptor(0x12, 0xc, 0, 0xfffff));
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_TEST), X86_NP, SEL_TEST);
    /* Privilege: max(CPL, RPL) <= DPL but for conforming code. */
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_DATA0 | 3), X86_GP, SEL_DATA0);
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_ES, SEL_CONFORM0 | 3)), 0);
    set_cpl(f, 3);
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_DATA0), X86_GP, SEL_DATA0);
    assert_raises(f, x86_load_segment(cpu, X86_ES, SEL_CODE0), X86_GP, SEL_CODE0);
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_ES, SEL_CODE3)), 0);
}

static void test_stack_segment(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    assert_raises(f, x86_load_segment(cpu, X86_SS, 0), X86_GP, 0);
    assert_raises(f, x86_load_segment(cpu, X86_SS, SEL_DATA0 | 3), X86_GP, SEL_DATA0);
    assert_raises(f, x86_load_segment(cpu, X86_SS, SEL_DATA3), X86_GP, SEL_DATA3 & ~3);
    assert_raises(f, x86_load_segment(cpu, X86_SS, SEL_CODE0), X86_GP, SEL_CODE0);
    set_descriptor(f, SEL_TEST, descriptor(0x91, 0xc, 0, 0xfffff));
    assert_raises(f, x86_load_segment(cpu, X86_SS, SEL_TEST), X86_GP, SEL_TEST);
    set_descriptor(f, SEL_TEST, descriptor(0x13, 0xc, 0, 0xfffff));
    assert_raises(f, x86_load_segment(cpu, X86_SS, SEL_TEST), X86_SS_FAULT, SEL_TEST);
    set_descriptor(f, SEL_TEST, descriptor(0x93, 0x0, 0, 0xffff)); /* 16-bit */
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_SS, SEL_TEST)), 0);
    assert_false(cpu->common.mode & (X86_MODE_SS32 | X86_MODE_FLAT));
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_SS, SEL_DATA0)), 0);
    assert_int_equal(cpu->common.mode & (X86_MODE_SS32 | X86_MODE_FLAT),
                     X86_MODE_SS32 | X86_MODE_FLAT);

    /* In 64-bit mode null is allowed below CPL 3, with RPL = CPL. */
    enter_long(f);
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_SS, 0)), 0);
    assert_true(cpu->seg[X86_SS].access & X86_SEG_UNUSABLE);
    assert_raises(f, x86_load_segment(cpu, X86_SS, 1), X86_GP, 0);
    set_cpl(f, 3);
    assert_raises(f, x86_load_segment(cpu, X86_SS, 3), X86_GP, 0);
}

static void test_real_segments(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_real(f);
    cpu->seg[X86_DS].limit = 0xffffffff; /* unreal mode */
    assert_int_equal(TRY(f, x86_load_segment(cpu, X86_DS, 0x1234)), 0);
    assert_int_equal(cpu->seg[X86_DS].base, 0x12340);
    assert_int_equal(cpu->seg[X86_DS].limit, 0xffffffff);
}

static void test_ldtr_tr(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    set_descriptor(f, SEL_TEST, descriptor(0x82, 0, 0x30000, 0xff));
    *ram64(f, GDT_BASE + SEL_TEST + 8) = 0xffff8880;
    assert_int_equal(TRY(f, x86_helper_lldt(cpu, SEL_TEST)), 0);
    assert_int_equal(cpu->seg[X86_LDTR].base, 0xffff888000030000);
    *ram64(f, GDT_BASE + SEL_TEST + 8) = 0x1ffffff;
    assert_raises(f, x86_helper_lldt(cpu, SEL_TEST), X86_GP, SEL_TEST);
    assert_raises(f, x86_helper_lldt(cpu, SEL_TEST | 4), X86_GP, SEL_TEST | 4);
    assert_raises(f, x86_helper_lldt(cpu, SEL_DATA0), X86_GP, SEL_DATA0);
    set_descriptor(f, SEL_TEST, descriptor(0x02, 0, 0, 0xff));
    assert_raises(f, x86_helper_lldt(cpu, SEL_TEST), X86_NP, SEL_TEST);
    /* The 16 bytes must be within the limit. */
    assert_raises(f, x86_helper_lldt(cpu, SEL_TEST + 8), X86_GP, SEL_TEST + 8);
    assert_int_equal(TRY(f, x86_helper_lldt(cpu, 0)), 0);
    assert_true(cpu->seg[X86_LDTR].access & X86_SEG_UNUSABLE);

    set_descriptor(f, SEL_TEST, descriptor(0x89, 0, 0x30000, 0x67));
    *ram64(f, GDT_BASE + SEL_TEST + 8) = 0;
    assert_int_equal(TRY(f, x86_helper_ltr(cpu, SEL_TEST)), 0);
    assert_int_equal(X86_SEG_TYPE(cpu->seg[X86_TR].access), 11);
    assert_int_equal(*ram64(f, GDT_BASE + SEL_TEST) >> 40 & 15, 11); /* busy */
    assert_raises(f, x86_helper_ltr(cpu, SEL_TEST), X86_GP, SEL_TEST);
    set_descriptor(f, SEL_TEST, descriptor(0x81, 0, 0, 0x67)); /* 16-bit TSS */
    assert_raises(f, x86_helper_ltr(cpu, SEL_TEST), X86_GP, SEL_TEST);
    assert_raises(f, x86_helper_ltr(cpu, 0), X86_GP, 0);
}

static void test_inspection(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    assert_int_equal(x86_helper_lar(cpu, SEL_CODE0), BIT(63) | 0xc09b00);
    assert_int_equal(x86_helper_lsl(cpu, SEL_CODE0), BIT(63) | 0xffffffff);
    assert_int_equal(x86_helper_lar(cpu, SEL_TSS), BIT(63) | 0x008b00);
    assert_int_equal(x86_helper_lar(cpu, 0), 0);
    assert_int_equal(x86_helper_lar(cpu, GDT_LIMIT + 1), 0);
    assert_int_equal(x86_helper_lar(cpu, SEL_DATA0 | 3), 0);
    assert_int_equal(x86_helper_verr(cpu, SEL_DATA0), 1);
    assert_int_equal(x86_helper_verw(cpu, SEL_DATA0), 1);
    assert_int_equal(x86_helper_verw(cpu, SEL_CODE0), 0);
    assert_int_equal(x86_helper_verr(cpu, SEL_TSS), 0);
    set_descriptor(f, SEL_TEST, descriptor(0x98, 0xc, 0, 0xfffff));
    assert_int_equal(x86_helper_verr(cpu, SEL_TEST), 0);
    /* A call gate: LAR yes, LSL no. */
    set_descriptor(f, SEL_TEST, descriptor(0x8c, 0, 0, 0));
    assert_true(x86_helper_lar(cpu, SEL_TEST) >> 63);
    assert_int_equal(x86_helper_lsl(cpu, SEL_TEST), 0);
    set_cpl(f, 3);
    assert_int_equal(x86_helper_verr(cpu, SEL_DATA0), 0);
    assert_int_equal(x86_helper_verr(cpu, SEL_CONFORM0), 1);
    enter_long(f);
    set_descriptor(f, SEL_TEST, descriptor(0x81, 0, 0, 0x67)); /* no 16-bit TSS there */
    assert_int_equal(x86_helper_lar(cpu, SEL_TEST), 0);
}

static void test_far_jump(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    x86_set_rip(cpu, 0x1000);
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE16, 0x12345678, 2, 5)), 0);
    assert_int_equal(cpu->lip, 0x5678);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE16);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_CODE16, 0x12345, 4, 7), X86_GP, 0);
    assert_raises(f, x86_helper_far_jmp(cpu, 0, 0, 4, 7), X86_GP, 0);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_DATA0, 0, 4, 7), X86_GP, SEL_DATA0);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_CODE3, 0, 4, 7), X86_GP, SEL_CODE3 & ~3);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_CODE0 | 3, 0, 4, 7), X86_GP, SEL_CODE0);
    set_descriptor(f, SEL_TEST, descriptor(0x1b, 0xc, 0, 0xfffff));
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_TEST, 0, 4, 7), X86_NP, SEL_TEST);
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE0, 0x2000, 4, 7)), 0);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);
    /* Compatibility mode and 64-bit mode. */
    enter_long(f);
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE0, 0x2000, 4, 7)), 0);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);
    assert_true(cpu->common.mode & X86_MODE_LMA);
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE64_0, 0x3000, 4, 7)), 0);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE64);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_CODE64_0, 0x800000000000, 8, 7), X86_GP, 0);
    set_descriptor(f, SEL_TEST, descriptor(0x9b, 0xe, 0, 0xfffff)); /* L and D */
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_TEST, 0, 8, 7), X86_GP, SEL_TEST);
}

/* Real mode to protected mode as every boot loader does it. */
static void test_enter_protected(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f); /* for the GDT */
    enter_real(f);
    assert_true(x86_write_cr0(cpu, X86_CR0_PE, true));
    assert_int_equal(cpu->common.mode & (X86_MODE_PE | X86_MODE_CODE_MASK), X86_MODE_PE);
    assert_int_equal(TRY(f, x86_helper_far_jmp(cpu, SEL_CODE0, 0x7c00, 4, 8)), 0);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);
    assert_false(cpu->common.mode & X86_MODE_FLAT);
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        if (i != X86_CS)
            assert_int_equal(load_segment(f, i, SEL_DATA0), 0);
    assert_true(cpu->common.mode & X86_MODE_FLAT);
}

static void test_call_gate(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    set_cpl(f, 3);
    x86_set_rip(cpu, 0x1000);
    cpu->gpr[X86_RSP] = 0x8000;
    *ram32(f, 0x8000) = 0x11111111;
    *ram32(f, 0x8004) = 0x22222222;
    *ram32(f, TSS_BASE + 4) = 0x7000;
    *ram32(f, TSS_BASE + 8) = SEL_DATA0;
    /* 32-bit gate, DPL 3, two parameters. */
    set_descriptor(f, SEL_TEST,
                   0x5678 | (u64)SEL_CODE0 << 16 | 2ull << 32 | 0xecull << 40 | 0x1234ull << 48);
    assert_int_equal(TRY(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0xbad, 4, 7)), 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->lip, 0x12345678);
    assert_int_equal(cpu->seg[X86_CS].selector, SEL_CODE0);
    assert_int_equal(cpu->gpr[X86_RSP], 0x7000 - 24);
    assert_int_equal(*ram32(f, 0x7000 - 4), SEL_DATA3);
    assert_int_equal(*ram32(f, 0x7000 - 8), 0x8000);
    assert_int_equal(*ram32(f, 0x7000 - 12), 0x22222222);
    assert_int_equal(*ram32(f, 0x7000 - 16), 0x11111111);
    assert_int_equal(*ram32(f, 0x7000 - 20), SEL_CODE3);
    assert_int_equal(*ram32(f, 0x7000 - 24), 0x1007);
    /* RETF 8 back out; segments that CPL 3 may not have are dropped. */
    x86_load_segment(cpu, X86_DS, SEL_DATA0);
    x86_load_segment(cpu, X86_ES, SEL_DATA3);
    assert_int_equal(TRY(f, x86_helper_far_ret(cpu, 4, 8)), 0);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->lip, 0x1007);
    assert_int_equal(cpu->gpr[X86_RSP], 0x8008);
    assert_int_equal(cpu->seg[X86_SS].selector, SEL_DATA3);
    assert_true(cpu->seg[X86_DS].access & X86_SEG_UNUSABLE);
    assert_int_equal(cpu->seg[X86_ES].selector, SEL_DATA3);

    /* Gate of DPL 0 from CPL 3. */
    set_descriptor(f, SEL_TEST, (u64)SEL_CODE0 << 16 | 0x8cull << 40);
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST, 0, 4, 7), X86_GP, SEL_TEST);
    set_descriptor(f, SEL_TEST, (u64)SEL_CODE0 << 16 | 0x6cull << 40);
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST, 0, 4, 7), X86_NP, SEL_TEST);
    set_descriptor(f, SEL_TEST, (u64)SEL_CODE0 << 16 | 0xecull << 40);
    assert_raises(f, x86_helper_far_jmp(cpu, SEL_TEST, 0, 4, 7), X86_GP, SEL_CODE0);
}

/* Of 16 bits: gate, TSS, stack and return, which keep the upper half of ESP where the stack is
 * small. */
static void test_call_gate16(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    set_descriptor(f, SEL_TSS, descriptor(0x83, 0, TSS_BASE, 0x2b));
    cpu->seg[X86_TR] =
        (struct x86_seg){.base = TSS_BASE, .limit = 0x2b, .access = 0x83, .selector = SEL_TSS};
    set_descriptor(f, SEL_TEST + 8, descriptor(0x93, 0, 0, 0xffff)); /* a 16-bit stack */
    *ram16(f, TSS_BASE + 2) = 0x7000;
    *ram16(f, TSS_BASE + 4) = SEL_TEST + 8;
    set_descriptor(f, SEL_TEST,
                   0xffff000000005678 | (u64)SEL_CODE0 << 16 | 0xe4ull << 40 | 3ull << 32);
    set_cpl(f, 3);
    x86_set_rip(cpu, 0x1000);
    cpu->gpr[X86_RSP] = 0x18000;
    for (unsigned i = 0; i < 3; i++)
        *ram16(f, 0x18000 + 2 * i) = (u16)(0xa0 + i);
    assert_int_equal(TRY(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7)), 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->lip, 0x5678); /* 16 bits of offset */
    assert_int_equal(cpu->seg[X86_SS].selector, SEL_TEST + 8);
    assert_int_equal(cpu->gpr[X86_RSP] & 0xffff, 0x7000 - 14);
    assert_int_equal(*ram16(f, 0x7000 - 2), SEL_DATA3);
    assert_int_equal(*ram16(f, 0x7000 - 4), 0x8000);
    assert_int_equal(*ram16(f, 0x7000 - 6), 0xa2);
    assert_int_equal(*ram16(f, 0x7000 - 10), 0xa0);
    assert_int_equal(*ram16(f, 0x7000 - 12), SEL_CODE3);
    assert_int_equal(*ram16(f, 0x7000 - 14), 0x1007);
    assert_int_equal(TRY(f, x86_helper_far_ret(cpu, 2, 6)), 0);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->lip, 0x1007);
    assert_int_equal(cpu->gpr[X86_RSP], 0x8006); /* the 16 bits that were pushed */

    /* Not enough room on the new stack: #SS with its selector; no SS in the TSS: #TS. */
    set_cpl(f, 3);
    x86_set_rip(cpu, 0x1000);
    cpu->gpr[X86_RSP] = 0x18000;
    set_descriptor(f, SEL_TEST + 8, descriptor(0x93, 0, 0, 0x6ff1));
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7), X86_SS_FAULT, SEL_TEST + 8);
    *ram16(f, TSS_BASE + 4) = 0;
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7), X86_TS, 0);
    *ram16(f, TSS_BASE + 4) = SEL_DATA3;
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7), X86_TS, SEL_DATA3 & ~3u);
    set_descriptor(f, SEL_TEST + 8, descriptor(0x13, 0, 0, 0xffff));
    *ram16(f, TSS_BASE + 4) = SEL_TEST + 8;
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7), X86_SS_FAULT, SEL_TEST + 8);
    cpu->seg[X86_TR].limit = 4;
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST | 3, 0, 4, 7), X86_TS, SEL_TSS);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->gpr[X86_RSP], 0x18000);
}

static void test_call_gate64(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    set_cpl(f, 3);
    x86_set_rip(cpu, 0x1000);
    cpu->gpr[X86_RSP] = 0x8000;
    *ram64(f, TSS_BASE + 4) = 0x7000;
    set_descriptor(f, SEL_TEST, 0x5678 | (u64)SEL_CODE64_0 << 16 | 0xecull << 40);
    *ram64(f, GDT_BASE + SEL_TEST + 8) = 0x7fff;
    assert_int_equal(TRY(f, x86_helper_far_call(cpu, SEL_TEST, 0, 4, 6)), 0);
    assert_int_equal(cpu->lip, 0x7fff00005678);
    assert_int_equal(cpu->seg[X86_SS].selector, 0);
    assert_int_equal(cpu->gpr[X86_RSP], 0x7000 - 32);
    assert_int_equal(*ram64(f, 0x7000 - 32), 0x1006);
    assert_int_equal(*ram64(f, 0x7000 - 16), 0x8000);
    assert_int_equal(TRY(f, x86_helper_far_ret(cpu, 8, 0)), 0);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->gpr[X86_RSP], 0x8000);
    /* The target must be 64-bit code, the upper half's type 0. */
    set_descriptor(f, SEL_TEST, 0x5678 | (u64)SEL_CODE0 << 16 | 0xecull << 40);
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST, 0, 4, 6), X86_GP, SEL_CODE0);
    *ram64(f, GDT_BASE + SEL_TEST + 8) = 0x1f0000007fff;
    assert_raises(f, x86_helper_far_call(cpu, SEL_TEST, 0, 4, 6), X86_GP, SEL_TEST);
}

static void push_iret(struct fixture *f, u64 ss, u64 rsp, u64 flags, u64 cs, u64 rip)
{
    const u64 frame[] = {rip, cs, flags, rsp, ss};

    f->cpu.gpr[X86_RSP] = 0x7000;
    memcpy(f->ram.hva + 0x7000, frame, sizeof(frame));
}

static void test_iretq(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    x86_set_rip(cpu, 0x1000);
    cpu->interruptibility = X86_BLOCKED_BY_NMI;
    push_iret(f, SEL_DATA3, 0x9001, 2 | X86_FLAG_IF | X86_FLAG_ZF | X86_FLAG_AC, SEL_CODE64_3,
              0x123456);
    /* IF opens: the run loop must look. */
    assert_int_equal(TRY(f, x86_helper_iret(cpu, 8, 2)), X86_EXIT_HALT_CHECK);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->lip, 0x123456);
    assert_int_equal(cpu->gpr[X86_RSP], 0x9001);
    assert_int_equal(x86_rflags(cpu), 2 | X86_FLAG_IF | X86_FLAG_ZF | X86_FLAG_AC);
    assert_int_equal(cpu->interruptibility, 0);
    assert_int_equal(cpu->space_priv, 0);

    enter_long(f);
    cpu->quiet = true;
    push_iret(f, 0, 0x9001, 2 | X86_FLAG_IF, SEL_CODE64_0, 0x123456);
    assert_int_equal(TRY(f, x86_helper_iret(cpu, 8, 2)), 0);
    assert_int_equal(cpu->gpr[X86_RSP], 0x9001);
    assert_true(cpu->seg[X86_SS].access & X86_SEG_UNUSABLE);

    /* To compatibility mode. */
    enter_long(f);
    push_iret(f, SEL_DATA3, 0x100009001, 2, SEL_CODE3, 0x123456);
    assert_int_equal(TRY(f, x86_helper_iret(cpu, 8, 2)), 0);
    assert_int_equal(cpu->gpr[X86_RSP], 0x9001);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);

    enter_long(f);
    push_iret(f, SEL_DATA3, 0x9000, 2, SEL_CODE64_3, 0x800000000000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, 0);
    assert_int_equal(cpu->gpr[X86_RSP], 0x7000);
    push_iret(f, 3, 0x9000, 2, SEL_CODE64_3, 0x1000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, 0);
    push_iret(f, SEL_DATA0, 0x9000, 2, SEL_CODE64_3, 0x1000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, SEL_DATA0);
    push_iret(f, SEL_DATA3, 0x9000, 2, 3, 0x1000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, 0);
    push_iret(f, SEL_DATA3, 0x9000, 2, SEL_DATA3, 0x1000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, SEL_DATA3 & ~3);
    cpu->eflags |= X86_FLAG_NT;
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, 0);
    /* Inward is never a return. */
    set_cpl(f, 3);
    cpu->eflags &= ~X86_FLAG_NT;
    push_iret(f, SEL_DATA0, 0x9000, 2, SEL_CODE64_0, 0x1000);
    assert_raises(f, x86_helper_iret(cpu, 8, 2), X86_GP, SEL_CODE64_0);
}

/* What IRET and POPF may change of the flags depends on CPL and IOPL. */
static void test_flag_privilege(void **state)
{
    const u64 all = 0x3f7fd7;
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    cpu->quiet = true;
    set_cpl(f, 3);
    TRY(f, x86_helper_popf(cpu, all, 8));
    assert_int_equal(x86_rflags(cpu), X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT |
                                          X86_FLAG_AC | X86_FLAG_ID | 2);
    assert_true(cpu->common.mode & X86_MODE_TF);
    x86_set_rflags(cpu, 2);
    set_cpl(f, 0);
    TRY(f, x86_helper_popf(cpu, all, 2));
    assert_int_equal(x86_rflags(cpu), X86_FLAGS_ARITH | X86_FLAG_TF | X86_FLAG_DF | X86_FLAG_NT |
                                          X86_FLAG_IF | X86_FLAG_IOPL | 2);
    set_cpl(f, 3); /* IOPL is 3: IF, but not IOPL */
    TRY(f, x86_helper_popf(cpu, 0, 8));
    assert_int_equal(x86_rflags(cpu), X86_FLAG_IOPL | 2);
    assert_true(cpu->common.mode & X86_MODE_IOPL_OK);
}

static void test_syscall(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    set_cpl(f, 3);
    cpu->quiet = true;
    x86_set_rip(cpu, 0x400000);
    x86_set_rflags(cpu, 2 | X86_FLAG_IF | X86_FLAG_CF | X86_FLAG_AC | X86_FLAG_DF);
    cpu->msr_star = 0x23ull << 48 | 0x10ull << 32;
    cpu->msr_lstar = 0xffffffff81000000;
    cpu->msr_fmask = 0x47700;
    cpu->cr4 |= X86_CR4_SMAP;
    assert_int_equal(TRY(f, x86_helper_syscall(cpu, 2)), 0);
    assert_int_equal(cpu->gpr[X86_RCX], 0x400002);
    assert_int_equal(cpu->gpr[11], 2 | X86_FLAG_IF | X86_FLAG_CF | X86_FLAG_AC | X86_FLAG_DF);
    assert_int_equal(x86_rflags(cpu), 2 | X86_FLAG_CF);
    assert_int_equal(cpu->lip, 0xffffffff81000000);
    assert_int_equal(cpu->seg[X86_CS].selector, 0x10);
    assert_int_equal(cpu->seg[X86_SS].selector, 0x18);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->space_priv, 1); /* SMAP in force */
    assert_int_equal(TRY(f, x86_helper_stac(cpu, 1)), 0);
    assert_int_equal(cpu->space_priv, 2);

    assert_int_equal(TRY(f, x86_helper_sysret(cpu, 8)), 0);
    assert_int_equal(cpu->lip, 0x400002);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->seg[X86_CS].selector, 0x33);
    assert_int_equal(cpu->seg[X86_SS].selector, 0x2b);
    assert_int_equal(x86_rflags(cpu), 2 | X86_FLAG_IF | X86_FLAG_CF | X86_FLAG_AC | X86_FLAG_DF);
    assert_raises(f, x86_helper_sysret(cpu, 8), X86_GP, 0);
    assert_raises(f, x86_helper_stac(cpu, 1), X86_UD, 0);
    set_cpl(f, 0);
    cpu->gpr[X86_RCX] = 0x800000000000;
    assert_raises(f, x86_helper_sysret(cpu, 8), X86_GP, 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(TRY(f, x86_helper_sysret(cpu, 4)), 0);
    assert_int_equal(cpu->seg[X86_CS].selector, 0x23);
    assert_int_equal(cpu->common.mode & X86_MODE_CODE_MASK, X86_MODE_CODE32);
    assert_raises(f, x86_helper_syscall(cpu, 2), X86_UD, 0); /* not in compatibility mode */
    set_cpl(f, 0);
    cpu->efer &= ~X86_EFER_SCE;
    assert_raises(f, x86_helper_syscall(cpu, 2), X86_UD, 0);
    assert_raises(f, x86_helper_sysret(cpu, 8), X86_UD, 0);
}

static void test_sysenter(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    set_cpl(f, 3);
    cpu->eflags |= X86_FLAG_IF;
    assert_raises(f, x86_helper_sysenter(cpu), X86_GP, 0);
    cpu->msr_sysenter_cs = SEL_CODE0;
    cpu->msr_sysenter_esp = 0x7000;
    cpu->msr_sysenter_eip = 0xc0001000;
    assert_int_equal(TRY(f, x86_helper_sysenter(cpu)), 0);
    assert_int_equal(cpu->cpl, 0);
    assert_int_equal(cpu->lip, 0xc0001000);
    assert_int_equal(cpu->gpr[X86_RSP], 0x7000);
    assert_int_equal(cpu->eflags & X86_FLAG_IF, 0);
    cpu->gpr[X86_RDX] = 0x5000;
    cpu->gpr[X86_RCX] = 0x6000;
    assert_int_equal(TRY(f, x86_helper_sysexit(cpu, 4)), 0);
    assert_int_equal(cpu->cpl, 3);
    assert_int_equal(cpu->seg[X86_CS].selector, (SEL_CODE0 + 16) | 3);
    assert_int_equal(cpu->seg[X86_SS].selector, (SEL_CODE0 + 24) | 3);
    assert_int_equal(cpu->lip, 0x5000);
    assert_int_equal(cpu->gpr[X86_RSP], 0x6000);
    assert_raises(f, x86_helper_sysexit(cpu, 4), X86_GP, 0);
}

static void test_io_permission(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_protected(f);
    /* Nobody takes the exit in this fixture: reaching it is the success. */
    assert_int_equal(TRY(f, x86_helper_in(cpu, 0x3f8, 1, 1)), X86_EXIT_UNIMPLEMENTED);
    assert_int_equal(f->last_reason, X86_REASON_IO);
    assert_int_equal(f->last_qualification, 0x3f80008);
    assert_int_equal(TRY(f, x86_helper_out(cpu, 0x80, 4 | 256, 2)), X86_EXIT_UNIMPLEMENTED);
    assert_int_equal(f->last_qualification, 0x800043);

    set_cpl(f, 3);
    *ram16(f, TSS_BASE + 102) = 0x68;
    memset(f->ram.hva + TSS_BASE + 0x68, 0xff, 0x180);
    assert_raises(f, x86_helper_in(cpu, 0x3f8, 1, 1), X86_GP, 0);
    f->ram.hva[TSS_BASE + 0x68 + 0x3f8 / 8] = 0xf0; /* 3F8h..3FBh */
    assert_int_equal(TRY(f, x86_helper_in(cpu, 0x3fb, 1, 1)), X86_EXIT_UNIMPLEMENTED);
    assert_int_equal(TRY(f, x86_helper_in(cpu, 0x3f8, 4, 1)), X86_EXIT_UNIMPLEMENTED);
    assert_raises(f, x86_helper_in(cpu, 0x3fa, 4, 1), X86_GP, 0);
    /* The byte after the last one must be in the TSS too. */
    cpu->seg[X86_TR].limit = 0x68 + 0x3f8 / 8;
    assert_raises(f, x86_helper_in(cpu, 0x3f8, 1, 1), X86_GP, 0);
    cpu->seg[X86_TR].limit = 102;
    assert_raises(f, x86_helper_in(cpu, 0, 1, 1), X86_GP, 0);
    cpu->seg[X86_TR].limit = 0x1ff;
    cpu->seg[X86_TR].access = 0x83; /* a 16-bit TSS has no map */
    assert_raises(f, x86_helper_in(cpu, 0x3f8, 1, 1), X86_GP, 0);
    cpu->eflags |= X86_FLAG_IOPL;
    assert_int_equal(TRY(f, x86_helper_in(cpu, 0x70, 1, 1)), X86_EXIT_UNIMPLEMENTED);
}

static void test_string_io(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;

    enter_long(f);
    cpu->gpr[X86_RDX] = 0x1f0;
    cpu->gpr[X86_RDI] = 0x5000;
    cpu->gpr[X86_RSI] = 0x100006000;
    cpu->seg[X86_FS].base = 0x10;
    cpu->gpr[X86_RCX] = 0x100000000;
    assert_int_equal(TRY(f, x86_helper_ins(cpu, 2 | 8 << 8 | 1 << 24, 2)), X86_EXIT_UNIMPLEMENTED);
    assert_int_equal(f->last_qualification, 0x1f00039);
    assert_int_equal(f->last_linear, 0x5000);
    assert_int_equal(f->last_info, 2 << 7);
    /* OUTS fs:[esi]; the count with 32-bit addresses is ECX: 0. */
    assert_int_equal(TRY(f, x86_helper_outs(cpu, 1 | 4 << 8 | X86_FS << 16 | 1 << 24, 3)), 0);
    cpu->gpr[X86_RCX]++;
    assert_int_equal(TRY(f, x86_helper_outs(cpu, 1 | 4 << 8 | X86_FS << 16 | 1 << 24, 3)),
                     X86_EXIT_UNIMPLEMENTED);
    assert_int_equal(f->last_linear, 0x6010);
    assert_int_equal(f->last_info, 1 << 7 | X86_FS << 15);
    cpu->gpr[X86_RDI] = 0x800000000000;
    assert_raises(f, x86_helper_ins(cpu, 2 | 8 << 8, 2), X86_GP, 0);
}

static void test_umip(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    const u64 store = X86_REASON_GDTR_IDTR | 7ull << 32, load = 2ull << 28;

    enter_long(f);
    set_cpl(f, 3);
    assert_int_equal(TRY(f, x86_helper_descriptor_table(cpu, store, 0, 0)), 0);
    cpu->cr4 |= X86_CR4_UMIP;
    assert_raises(f, x86_helper_descriptor_table(cpu, store, 0, 0), X86_GP, 0);
    assert_raises(f, x86_helper_smsw(cpu), X86_GP, 0);
    set_cpl(f, 0);
    f->intercepts = 0;
    assert_int_equal(TRY(f, x86_helper_descriptor_table(cpu, store, load, 0)), 0);
    assert_int_equal(f->intercepts, 1);
    assert_int_equal(f->last_reason, X86_REASON_GDTR_IDTR);
    assert_raises(f, x86_helper_load_table(cpu, 0, 0x100000000000000, 0xff), X86_GP, 0);
    assert_int_equal(TRY(f, x86_helper_load_table(cpu, 1, 0xffff800000000000, 0xfff)), 0);
    assert_int_equal(cpu->idtr.base, 0xffff800000000000);
}

static void test_segment_linear(void **state)
{
    struct fixture *f = *state;
    struct x86_cpu *cpu = &f->cpu;
    volatile u64 linear = 0;

    enter_protected(f);
    cpu->seg[X86_DS] = (struct x86_seg){.base = 0xfffff000, .limit = 0xfff, .access = 0x4093};
    assert_int_equal(TRY(f, linear = x86_segment_linear(cpu, X86_DS, 0xffc, 4, true)), 0);
    assert_int_equal(linear, 0xfffffffc);
    assert_raises(f, x86_segment_linear(cpu, X86_DS, 0xffd, 4, true), X86_GP, 0);
    assert_raises(f, x86_segment_linear(cpu, X86_DS, 0xffffffff, 2, true), X86_GP, 0);
    cpu->seg[X86_SS] = (struct x86_seg){.limit = 0xfff, .access = 0x4097}; /* expand-down */
    assert_raises(f, x86_segment_linear(cpu, X86_SS, 0xfff, 1, true), X86_SS_FAULT, 0);
    assert_int_equal(TRY(f, x86_segment_linear(cpu, X86_SS, 0x1000, 4, true)), 0);
    assert_raises(f, x86_segment_linear(cpu, X86_SS, 0xfffffffe, 4, true), X86_SS_FAULT, 0);
    assert_raises(f, x86_segment_linear(cpu, X86_CS, 0, 4, true), X86_GP, 0);
    assert_int_equal(TRY(f, x86_segment_linear(cpu, X86_CS, 0, 4, false)), 0);
    cpu->seg[X86_ES].access = X86_SEG_UNUSABLE;
    assert_raises(f, x86_segment_linear(cpu, X86_ES, 0, 1, false), X86_GP, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_data_segments),   T(test_stack_segment), T(test_real_segments),
        T(test_ldtr_tr),         T(test_inspection),    T(test_far_jump),
        T(test_enter_protected), T(test_call_gate),     T(test_call_gate16),
        T(test_call_gate64),     T(test_iretq),         T(test_flag_privilege),
        T(test_syscall),         T(test_sysenter),      T(test_io_permission),
        T(test_string_io),       T(test_umip),          T(test_segment_linear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
