/* The driver of lifting: where blocks end, what depends on the mode, and precise faults. */
#include "../unit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "dbt/dbt.h"
#include "guest/riscv/riscv.h"

static struct arena arena;
static struct ir_unit unit;

static int lift_at(u64 pc, u32 mode, const void *code, u32 avail, u32 max, u32 *length)
{
    struct guest_lift lift = {
        .unit = &unit, .pc = pc, .code = code, .avail = avail, .mode = mode, .max_insns = max};
    struct err err;
    int ret;

    arena_reset(&arena);
    ir_init(&unit, &arena, riscv_guest_ops.helpers, riscv_guest_ops.nhelpers,
            riscv_guest_ops.pc_slot);
    ret = riscv_guest_ops.lift(&lift);
    if (!ret && ir_verify(&unit, &err)) {
        ir_print(&unit, stderr);
        fail_msg("%s", err.text);
    }
    *length = lift.length;
    return ret;
}

static unsigned count(enum ir_op op)
{
    unsigned n = 0;

    for (u32 i = 1; i < unit.ninsts; i++)
        n += unit.insts[i].op == op;
    return n;
}

static void test_ends(void **state)
{
    /* ADDI a0, a0, 1; JAL x0, 8; ADDI */
    static const u32 code[] = {0x00150513, 0x0080006f, 0x00150513};
    u32 length;

    (void)state;
    assert_int_equal(lift_at(0x1000, 0, code, 12, 64, &length), 0);
    assert_int_equal(length, 8);
    assert_int_equal(unit.guest_insns, 2);
    assert_int_equal(count(IR_goto), 1);
    assert_int_equal(lift_at(0x1000, 0, code, 12, 1, &length), 0);
    assert_int_equal(length, 4);
}

static void test_page_end(void **state)
{
    /* C.ADDI; the first half of ADDI */
    static const u8 code[] = {0x05, 0x05, 0x13, 0x05};
    u32 length;

    (void)state;
    assert_int_equal(lift_at(0x1ffc, 0, code, 4, 64, &length), 0);
    assert_int_equal(length, 2);
    assert_int_equal(lift_at(0x1ffe, 0, code + 2, 2, 64, &length), -ERANGE);
}

/* FADD.D fa0, fa0, fa1 with each rounding mode of its own, in each mode of frm. */
static void test_rounding(void **state)
{
    u32 length;

    (void)state;
    for (u32 frm = 0; frm < 8; frm++) {
        for (u32 rm = 0; rm < 8; rm++) {
            u32 code[] = {0x02b50553 | rm << 12, 0x00008067};
            u32 effective = rm == RISCV_RM_DYNAMIC ? frm : rm;

            assert_int_equal(lift_at(0x1000, frm, code, 8, 64, &length), 0);
            if (effective > RISCV_RMM) {
                assert_int_equal(length, 4); /* illegal */
                assert_int_equal(count(IR_exit), 1);
            } else if (effective == frm && frm != RISCV_RMM) {
                assert_int_equal(count(IR_fadd), 1);
                assert_int_equal(count(IR_call), 0);
            } else {
                assert_int_equal(count(IR_fadd), 0);
                assert_int_equal(count(IR_call), 1);
            }
        }
    }
}

/* --- run ---------------------------------------------------------------------------------- */

#define CODE 0x10000000ull
#define RAM_SIZE 0x10000u

struct machine {
    struct riscv_cpu cpu;
    struct mem *mem;
    struct mem_ram ram;
    struct dbt *dbt;
};

static struct machine *machine_create(bool jit)
{
    struct machine *m = aligned_alloc(64, (sizeof(*m) + 63) / 64 * 64);
    struct dbt_config config = {.guest = &riscv_guest_ops, .jit = jit};
    struct err err;

    memset(m, 0, sizeof(*m));
    m->mem = config.mem = mem_create();
    assert_int_equal(mem_ram_alloc(&m->ram, RAM_SIZE, &err), 0);
    assert_int_equal(mem_set_slot(m->mem, 0, 0, CODE, RAM_SIZE, m->ram.hva), 0);
    assert_int_equal(dbt_create(&m->dbt, &config, &err), 0);
    m->cpu.common.ops = &riscv_guest_ops;
    m->cpu.common.mem = m->mem;
    mem_reader_online(m->mem, 0);
    assert_int_equal(dbt_attach(m->dbt, &m->cpu.common), 0);
    riscv_reset(&m->cpu, CODE);
    return m;
}

static void machine_destroy(struct machine *m)
{
    dbt_detach(&m->cpu.common);
    dbt_destroy(m->dbt);
    mem_reader_offline(m->mem, 0);
    mem_destroy(m->mem);
    mem_ram_free(&m->ram);
    free(m);
}

static void run_code(struct machine *m, const u32 *code, size_t bytes, u32 exit_code)
{
    memcpy(m->ram.hva, code, bytes);
    mem_wrote(m->mem, CODE, bytes);
    assert_int_equal(dbt_run(&m->cpu.common), exit_code);
}

static void faults(bool jit)
{
    /* ADDI a0, a0, 1; LD a0, 0(a1); ADDI a0, a0, 1; ECALL */
    static const u32 load[] = {0x00150513, 0x0005b503, 0x00150513, 0x00000073};
    /* AMOADD.W a0, a2, (a1); ECALL */
    static const u32 amo[] = {0x00c5a52f, 0x00000073};
    /* ADDI a0, a0, 1; EBREAK */
    static const u32 trap[] = {0x00150513, 0x00100073};
    struct machine *m = machine_create(jit);

    m->cpu.x[10] = 5;
    m->cpu.x[11] = 0x20000000;
    run_code(m, load, sizeof(load), RISCV_EXIT_LOAD_FAULT);
    assert_int_equal(m->cpu.pc, CODE + 4);
    assert_int_equal(m->cpu.x[10], 6);
    assert_int_equal(m->cpu.tval, 0x20000000);

    riscv_reset(&m->cpu, CODE);
    m->cpu.x[11] = CODE + 0x1002;
    run_code(m, amo, sizeof(amo), RISCV_EXIT_MISALIGNED);
    assert_int_equal(m->cpu.pc, CODE);
    assert_int_equal(m->cpu.tval, CODE + 0x1002);

    riscv_reset(&m->cpu, CODE);
    run_code(m, trap, sizeof(trap), RISCV_EXIT_EBREAK);
    assert_int_equal(m->cpu.pc, CODE + 4);
    assert_int_equal(m->cpu.x[10], 1);
    machine_destroy(m);
}

static void test_faults(void **state)
{
    (void)state;
    faults(false);
    faults(true);
}

/* A loop on one word by two kinds of atomics; x0 stays 0. */
static void test_reservation(void **state)
{
    /* again: LR.D a0, (a1); ADDI a0, a0, 1; SC.D a2, a0, (a1); BNE a2, x0, again;
     * SC.D a3, a0, (a1); ADDI x0, a0, 1; ECALL */
    static const u32 code[] = {0x1005b52f, 0x00150513, 0x18a5b62f, 0xfe061ae3,
                               0x18a5b6af, 0x00150013, 0x00000073};

    (void)state;
    for (int jit = 0; jit < 2; jit++) {
        struct machine *m = machine_create(jit);

        m->cpu.x[11] = CODE + 0x2000;
        m->ram.hva[0x2000] = 41;
        run_code(m, code, sizeof(code), RISCV_EXIT_ECALL);
        assert_int_equal(m->ram.hva[0x2000], 42);
        assert_int_equal(m->cpu.x[12], 0);
        assert_int_equal(m->cpu.x[13], 1); /* no reservation any more */
        assert_int_equal(m->cpu.x[0], 0);
        assert_int_equal(m->cpu.reserved_address, RISCV_NO_RESERVATION);
        machine_destroy(m);
    }
}

/* frm in fcsr takes effect on the next instruction, and flags are seen at once. */
static void test_fcsr(void **state)
{
    /* FDIV.D fa2, fa0, fa1; CSRRWI x0, frm, 3 (up); FDIV.D fa3, fa0, fa1; CSRRS a0, fcsr, x0;
     * CSRRWI x0, fflags, 0; CSRRS a1, fcsr, x0; ECALL */
    static const u32 code[] = {0x1ab57653, 0x0021d073, 0x1ab576d3, 0x00302573,
                               0x00105073, 0x003025f3, 0x00000073};

    (void)state;
    for (int jit = 0; jit < 2; jit++) {
        struct machine *m = machine_create(jit);

        m->cpu.f[10] = 0x3ff0000000000000; /* 1 */
        m->cpu.f[11] = 0x4008000000000000; /* 3 */
        run_code(m, code, sizeof(code), RISCV_EXIT_ECALL);
        assert_int_equal(m->cpu.f[12], 0x3fd5555555555555);
        assert_int_equal(m->cpu.f[13], 0x3fd5555555555556);
        assert_int_equal(m->cpu.x[10], RISCV_RUP << 5 | RISCV_NX);
        assert_int_equal(m->cpu.x[11], RISCV_RUP << 5);
        assert_int_equal(m->cpu.common.mode, RISCV_RUP);
        machine_destroy(m);
    }
}

/* What the manual reserves or keeps for privileged code. */
static void test_illegal(void **state)
{
    /* CSRRW x0, cycle, x0; CSRRS a0, sstatus, x0; MRET; WFI; CSRRW of a number without register */
    static const u32 words[] = {0xc0001073, 0x10002573, 0x30200073, 0x10500073, 0x7c001073};

    (void)state;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct machine *m = machine_create(true);

        run_code(m, &words[i], 4, RISCV_EXIT_ILLEGAL);
        assert_int_equal(m->cpu.pc, CODE);
        machine_destroy(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),        cmocka_unit_test(test_page_end),
        cmocka_unit_test(test_rounding),    cmocka_unit_test(test_faults),
        cmocka_unit_test(test_reservation), cmocka_unit_test(test_fcsr),
        cmocka_unit_test(test_illegal),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    arena_free(&arena);
    return failed;
}
