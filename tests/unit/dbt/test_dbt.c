/*
 * The run time with a real guest CPU (x86, 32-bit flat mode, no paging) on real memory: chaining,
 * invalidation, self-modifying code, code over page ends, MMIO, a full code cache. Each program
 * runs compiled and interpreted, and ends with HLT.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dbt/dbt.h"
#include "guest/x86/x86.h"

#define RAM_BYTES (24 * MiB)
#define START 0x1000u
#define STACK 0x80000u
#define MMIO 0xd0000000u
#define REASON_HLT 12

#define PROGRAM(name, text)                                                                        \
    extern const u8 name[], name##_end[];                                                          \
    __asm__(".pushsection .rodata\n.code32\n" #name ":\n" text "\n" #name                          \
            "_end:\n.code64\n.popsection\n");

PROGRAM(sum, "xor %eax, %eax\n mov $1000, %ecx\n"
             "1: add %ecx, %eax\n dec %ecx\n jnz 1b\n hlt")

PROGRAM(calls, "xor %eax, %eax\n mov $10, %ebx\n"
               "1: push %ebx\n call 2f\n add $4, %esp\n dec %ebx\n jnz 1b\n hlt\n"
               "2: mov 4(%esp), %ecx\n imul %ecx, %ecx\n add %ecx, %eax\n ret")

/* Patches the immediate of an instruction in its own block, then runs it. */
PROGRAM(patch_own, "movl $0x1234, 1f+1-patch_own+0x1000\n"
                   "1: mov $0, %eax\n hlt")

/* Runs a function, patches it from another block, runs it again. */
PROGRAM(patch_other, "xor %eax, %eax\n call 2f\n call 2f\n movb $7, 2f+1-patch_other+0x1000\n"
                     "jmp 1f\n1: call 2f\n hlt\n"
                     "2: mov $1, %ecx\n add %ecx, %eax\n ret")

/* Rewrites, with REP MOVSB, the instructions right behind it. */
PROGRAM(patch_rep, "mov $2f-patch_rep+0x1000, %esi\n mov $1f-patch_rep+0x1000, %edi\n"
                   "mov $5, %ecx\n cld\n rep movsb\n"
                   "1: mov $1, %eax\n hlt\n"
                   "2: mov $2, %eax")

PROGRAM(mmio, "mov $0xd0000000, %ebx\n mov 4(%ebx), %eax\n mov %ax, 8(%ebx)\n"
              "movzbl 1(%ebx), %ecx\n hlt")

/* Atomics over a page end, and at the end of memory that is plain. */
PROGRAM(split_lock, "mov $0x20ffe, %ebx\n movl $0xffffffff, (%ebx)\n lock incl (%ebx)\n"
                    "mov (%ebx), %eax\n movl $5, (%ebx)\n mov $7, %ecx\n lock xadd %ecx, (%ebx)\n"
                    "mov (%ebx), %edx\n hlt")

/* Loops in loops, with ways apart and together again, and one that leaves in the middle. */
PROGRAM(nested, "xor %eax, %eax\n mov $50, %ecx\n"
                "1: mov $60, %edx\n"
                "2: add %edx, %eax\n test $1, %al\n jz 3f\n add $3, %eax\n xchg %esi, %edi\n"
                "3: add %eax, %esi\n cmp $5, %edx\n je 4f\n dec %edx\n jnz 2b\n"
                "4: mov %edx, (%esp)\n add (%esp), %eax\n dec %ecx\n jnz 1b\n hlt")

/* Each time round it changes an instruction of its own. */
PROGRAM(patch_loop, "xor %eax, %eax\n mov $100, %ecx\n"
                    "1: incb 2f+1-patch_loop+0x1000\n"
                    "2: mov $0, %ebx\n add %ebx, %eax\n dec %ecx\n jnz 1b\n hlt")

/* An interpreter of bytes: its loop is closed by indirect jumps alone. */
#define INTERPRETER(name, more)                                                                    \
    PROGRAM(                                                                                       \
        name,                                                                                      \
        "xor %eax, %eax\n mov $300, %ecx\n mov $bytes_" #name "-" #name "+0x1000, %esi\n"          \
        "movzbl (%esi), %edx\n inc %esi\n jmp *table_" #name "-" #name "+0x1000(,%edx,4)\n"        \
        "10: add %ecx, %eax\n" NEXT(name) "11: rol $3, %eax\n" NEXT(                               \
            name) "12: xor %ecx, %eax\n adc $5, %ebx\n" NEXT(name) "13: dec %ecx\n jz 14f\n mov "  \
                                                                   "$bytes_" #name "-" #name       \
                                                                   "+0x1000, %esi\n" more NEXT(    \
                                                                       name) "14: hlt\n"           \
                                                                             "bytes_" #name        \
                                                                             ": .byte 0, 1, 0, "   \
                                                                             "2, 1, 1, 2, 0, 3\n"  \
                                                                             "table_" #name        \
                                                                             ": .long 10b-" #name  \
                                                                             "+0x1000, 11b-" #name \
                                                                             "+0x1000\n"           \
                                                                             ".long 12b-" #name    \
                                                                             "+0x1000, 13b-" #name \
                                                                             "+0x1000")
#define NEXT(name)                                                                                 \
    "movzbl (%esi), %edx\n inc %esi\n jmp *table_" #name "-" #name "+0x1000(,%edx,4)\n"

INTERPRETER(interpreter, "")
/* After a while it changes what one of the bytes means, and where another leads. */
INTERPRETER(interpreter_patched, "cmp $100, %ecx\n jne 15f\n"
                                 "movb $0x29, 10b-interpreter_patched+0x1000\n" /* sub */
                                 "movl $12b-interpreter_patched+0x1000,"
                                 " table_interpreter_patched+4-interpreter_patched+0x1000\n"
                                 "15:\n")

/* Fibonacci numbers, and as many calls. */
PROGRAM(recursion, "mov $14, %eax\n xor %edi, %edi\n call 1f\n hlt\n"
                   "1: inc %edi\n cmp $2, %eax\n jb 2f\n push %eax\n dec %eax\n call 1b\n"
                   "xchg %eax, (%esp)\n sub $2, %eax\n call 1b\n pop %ecx\n add %ecx, %eax\n"
                   "2: ret")

/* Calls through a table of three functions, one of which now and then returns to where nobody
 * called from, as longjmp does. */
PROGRAM(unwinding, "xor %eax, %eax\n mov $2000, %ecx\n"
                   "1: mov %ecx, %edx\n and $3, %edx\n call *5f-unwinding+0x1000(,%edx,4)\n"
                   "add %ecx, %eax\n"
                   "2: dec %ecx\n jnz 1b\n hlt\n"
                   "3: add $7, %eax\n ret\n"
                   "4: rol %eax\n test $0x1c, %ecx\n jnz 3b\n movl $2b-unwinding+0x1000, (%esp)\n"
                   "ret\n"
                   "6: call 4b\n xor %edx, %eax\n ret\n"
                   "5: .long 3b-unwinding+0x1000, 4b-unwinding+0x1000, 6b-unwinding+0x1000\n"
                   ".long 3b-unwinding+0x1000")

/* A loop that calls a function through a register, in the place of which other code comes. */
PROGRAM(patch_callee, "xor %eax, %eax\n mov $400, %ecx\n mov $2f-patch_callee+0x1000, %ebx\n"
                      "1: call *%ebx\n add %edx, %eax\n cmp $200, %ecx\n jne 3f\n"
                      "incb 2f+1-patch_callee+0x1000\n"
                      "3: dec %ecx\n jnz 1b\n hlt\n"
                      "2: mov $1, %edx\n ret")

/* Four pages that share an index of the soft TLB. */
PROGRAM(aliases, "mov $2000, %ecx\n"
                 "1: add %ecx, 0x600000\n mov 0x600000, %edx\n add %edx, 0xa00000\n"
                 "add %edx, 0xe00000\n add %edx, 0x1200000\n dec %ecx\n jnz 1b\n"
                 "mov 0x1200000, %eax\n hlt")

/* Writes a function, has its page's TLB entry make room for others, calls it; and again. */
PROGRAM(patch_alias, "mov $5, %ebx\n xor %esi, %esi\n"
                     "1: movb $0xb8, 0x600000\n mov %ebx, 0x600001\n movb $0xc3, 0x600005\n"
                     "incl 0xa00000\n incl 0xe00000\n mov $0x600000, %eax\n call *%eax\n"
                     "add %eax, %esi\n dec %ebx\n jnz 1b\n mov %esi, %eax\n hlt")

/* Changes a function each time before it calls it. */
PROGRAM(patch_often, "mov $30000, %ecx\n movb $0xb8, 0x600000\n movb $0xc3, 0x600005\n"
                     "xor %edx, %edx\n mov $0x600000, %ebx\n"
                     "1: mov %ecx, 0x600001\n call *%ebx\n add %eax, %edx\n dec %ecx\n jnz 1b\n"
                     "mov %edx, %eax\n hlt")

/* Stands still with all others in each round. */
PROGRAM(split_loop, "mov $20000, %ecx\n"
                    "1: lock incl 0x20ffe\n jmp 2f\n 2: dec %ecx\n jnz 1b\n hlt")

/* Ends when somebody writes over it. */
PROGRAM(spin, "1: inc %eax\n mov %eax, (%esp)\n jmp 1b")

struct machine {
    struct mem *mem;
    struct mem_ram ram;
    struct dbt *dbt;
    struct x86_cpu *cpu;
    bool ended;
    u64 mmio_address, mmio_value;
    unsigned mmio_bytes;
};

static void intercept(struct x86_cpu *cpu, u32 reason, u64 qualification, u32 insn_len, u64 linear,
                      u64 insn_info)
{
    (void)qualification, (void)insn_len, (void)linear, (void)insn_info;
    if (reason == REASON_HLT) {
        __atomic_store_n(&((struct machine *)cpu->engine)->ended, true, __ATOMIC_RELAXED);
        guest_leave(&cpu->common, X86_EXIT_VMEXIT);
    }
}

static void mmio_read(struct x86_cpu *cpu, u64 gpa, void *buf, unsigned bytes)
{
    u64 v = gpa * 0x0101 + bytes;

    (void)cpu;
    memcpy(buf, &v, bytes);
}

static void mmio_write(struct x86_cpu *cpu, u64 gpa, const void *buf, unsigned bytes)
{
    struct machine *m = cpu->engine;

    m->mmio_address = gpa;
    m->mmio_bytes = bytes;
    m->mmio_value = 0;
    memcpy(&m->mmio_value, buf, bytes);
}

static const struct x86_hooks hooks = {
    .intercept = intercept, .mmio_read = mmio_read, .mmio_write = mmio_write};

static void flat_mode(struct x86_cpu *cpu)
{
    x86_reset(cpu, false);
    cpu->cr0 |= X86_CR0_PE;
    for (unsigned i = X86_ES; i <= X86_GS; i++)
        cpu->seg[i] = (struct x86_seg){.limit = ~0u,
                                       .access = X86_SEG_P | X86_SEG_S | X86_SEG_DB | X86_SEG_G |
                                                 (i == X86_CS ? 0xb : 3)};
    cpu->lip = START;
    cpu->gpr[X86_RSP] = STACK;
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
}

static void add_cpu(struct machine *m, u32 index)
{
    m->cpu = aligned_alloc(64, (sizeof(*m->cpu) + 63) & ~63ul);
    assert_non_null(m->cpu);
    memset(m->cpu, 0, sizeof(*m->cpu));
    m->cpu->common.ops = &x86_guest_ops;
    m->cpu->common.mem = m->mem;
    m->cpu->common.index = index;
    m->cpu->phys_mask = (1ull << 39) - 1;
    m->cpu->hooks = &hooks;
    m->cpu->engine = m;
    assert_int_equal(dbt_attach(m->dbt, &m->cpu->common), 0);
    flat_mode(m->cpu);
}

static void start_hot(struct machine *m, bool jit, u64 cache, u32 hot)
{
    struct dbt_config config = {
        .guest = &x86_guest_ops, .jit = jit, .code_cache_bytes = cache, .hot = hot};
    struct err err;

    memset(m, 0, sizeof(*m));
    m->mem = mem_create();
    assert_non_null(m->mem);
    assert_int_equal(mem_ram_alloc(&m->ram, RAM_BYTES, &err), 0);
    assert_int_equal(mem_set_slot(m->mem, 0, 0, 0, RAM_BYTES, m->ram.hva), 0);
    config.mem = m->mem;
    assert_int_equal(dbt_create(&m->dbt, &config, &err), 0);
    add_cpu(m, 0);
}

static void start(struct machine *m, bool jit, u64 cache)
{
    start_hot(m, jit, cache, 0);
}

static void stop(struct machine *m)
{
    dbt_detach(&m->cpu->common);
    dbt_destroy(m->dbt);
    mem_destroy(m->mem);
    mem_ram_free(&m->ram);
    free(m->cpu);
}

static void run(struct machine *m)
{
    __atomic_store_n(&m->ended, false, __ATOMIC_RELAXED);
    while (!m->ended) {
        u32 code = dbt_run(&m->cpu->common);

        if (!m->ended && code != X86_EXIT_STATE && code != X86_EXIT_HALT_CHECK &&
            code != IR_EXIT_REQUEST)
            fail_msg("exit code %u at %#lx", code, (unsigned long)m->cpu->lip);
    }
}

static void load(struct machine *m, u32 at, const u8 *code, const u8 *end)
{
    assert_int_equal(mem_write(m->mem, at, code, (u64)(end - code)), 0);
}

static void program(struct machine *m, bool jit, const u8 *code, const u8 *end)
{
    start(m, jit, 0);
    load(m, START, code, end);
    run(m);
}

#define EAX(m) ((u32)(m)->cpu->gpr[X86_RAX])

static void test_loop(void **state)
{
    for (int jit = 0; jit < 2; jit++) {
        struct machine m;
        struct dbt_stats stats;

        (void)state;
        program(&m, jit, sum, sum_end);
        assert_int_equal(EAX(&m), 500500);
        dbt_get_stats(m.dbt, &stats);
        if (jit)
            assert_true(stats.chained >= 1);
        stop(&m);
    }
}

static void test_calls(void **state)
{
    for (int jit = 0; jit < 2; jit++) {
        struct machine m;

        (void)state;
        program(&m, jit, calls, calls_end);
        assert_int_equal(EAX(&m), 385);
        assert_int_equal(m.cpu->gpr[X86_RSP], STACK);
        stop(&m);
    }
}

static void test_self_modifying(void **state)
{
    static const struct {
        const u8 *code, *end;
        u32 eax;
    } cases[] = {{patch_own, patch_own_end, 0x1234},
                 {patch_other, patch_other_end, 9},
                 {patch_rep, patch_rep_end, 2},
                 {patch_alias, patch_alias_end, 15}};

    (void)state;
    for (int jit = 0; jit < 2; jit++)
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            struct machine m;

            program(&m, jit, cases[i].code, cases[i].end);
            assert_int_equal(EAX(&m), cases[i].eax);
            stop(&m);
        }
}

static void test_tlb_ways(void **state)
{
    u32 first = 0, last = 0;
    struct machine m;

    (void)state;
    for (u32 i = 2000; i; i--) {
        first += i;
        last += first;
    }
    program(&m, true, aliases, aliases_end);
    assert_int_equal(EAX(&m), last);
    assert_in_range(m.cpu->common.tlb_misses, 1, 20);
    assert_in_range(m.cpu->common.tlb_hits_slow, 0, 100);
    stop(&m);
}

/* The same program at every place around a page end, run twice each with a change by a device. */
static void test_page_end(void **state)
{
    (void)state;
    for (int jit = 0; jit < 2; jit++) {
        struct machine m;
        u8 immediate = 0xe7; /* 1000 = 0x3e8 becomes 999 */

        start(&m, jit, 0);
        for (u32 at = 0x3000 - 24; at <= 0x3000; at++) {
            load(&m, at, sum, sum_end);
            m.cpu->lip = at;
            run(&m);
            assert_int_equal(EAX(&m), 500500);
            assert_int_equal(mem_write(m.mem, at + 3, &immediate, 1), 0);
            m.cpu->lip = at;
            run(&m);
            assert_int_equal(EAX(&m), 499500);
        }
        stop(&m);
    }
}

static void test_mmio(void **state)
{
    (void)state;
    for (int jit = 0; jit < 2; jit++) {
        struct machine m;

        program(&m, jit, mmio, mmio_end);
        assert_int_equal(EAX(&m), (u32)((MMIO + 4ull) * 0x0101 + 4));
        assert_int_equal(m.cpu->gpr[X86_RCX], (u8)((MMIO + 1ull) * 0x0101 + 1));
        assert_int_equal(m.mmio_address, MMIO + 8);
        assert_int_equal(m.mmio_bytes, 2);
        assert_int_equal(m.mmio_value, (u16)EAX(&m));
        stop(&m);
    }
}

static void test_split_lock(void **state)
{
    (void)state;
    for (int jit = 0; jit < 2; jit++) {
        struct machine m;

        program(&m, jit, split_lock, split_lock_end);
        assert_int_equal(EAX(&m), 0);
        assert_int_equal(m.cpu->gpr[X86_RCX], 5);
        assert_int_equal(m.cpu->gpr[X86_RDX], 12);
        stop(&m);
    }
}

/* More code than the smallest cache holds: 60,000 blocks of "inc eax; jmp next". */
static void test_full_cache(void **state)
{
    struct machine m;
    struct dbt_stats stats;
    const u32 first = 0x100000, blocks = 60000;

    (void)state;
    start(&m, true, MiB);
    for (u32 i = 0; i < blocks; i++) {
        static const u8 block[] = {0x40, 0xe9, 0x0a, 0, 0, 0};

        memcpy(m.ram.hva + first + i * 16, block, sizeof(block));
    }
    m.ram.hva[first + blocks * 16] = 0xf4;
    m.cpu->lip = first;
    run(&m);
    assert_int_equal(EAX(&m), blocks);
    dbt_get_stats(m.dbt, &stats);
    assert_true(stats.flushes >= 1);
    stop(&m);
}

/* Room that dead code leaves is used again: what lives need not be forgotten. */
static void test_dead_code(void **state)
{
    const u32 rounds = 30000;
    struct machine m;
    struct dbt_stats stats;

    (void)state;
    start(&m, true, MiB);
    load(&m, START, patch_often, patch_often_end);
    run(&m);
    assert_int_equal(EAX(&m), rounds * (rounds + 1) / 2);
    dbt_get_stats(m.dbt, &stats);
    assert_true(stats.reclaims > 1);
    assert_int_equal(stats.flushes, 0);
    assert_true(stats.code_bytes < 64 * KiB);
    stop(&m);
}

static void *run_thread(void *opaque)
{
    run(opaque);
    return NULL;
}

/* Two vCPUs that call C again and again and wait there for each other, while all code goes: they come
 * back to code that must still be there, and must lead to none that is not. */
static void test_flush_under_calls(void **state)
{
    pthread_t threads[2];
    struct machine m[2];
    struct mem_ram ram;
    struct err err;
    u32 sum = 0;

    (void)state;
    start(&m[0], true, MiB);
    load(&m[0], START, split_loop, split_loop_end);
    m[1] = m[0];
    add_cpu(&m[1], 1);
    assert_int_equal(mem_ram_alloc(&ram, MEM_PAGE_SIZE, &err), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_thread, &m[i]), 0);
    for (bool there = true; !__atomic_load_n(&m[0].ended, __ATOMIC_RELAXED) ||
                            !__atomic_load_n(&m[1].ended, __ATOMIC_RELAXED);
         there = !there) {
        assert_int_equal(mem_set_slot(m[0].mem, 1, 0, MMIO, there ? MEM_PAGE_SIZE : 0, ram.hva), 0);
        usleep(20);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    memcpy(&sum, m[0].ram.hva + 0x20ffe, 4);
    assert_int_equal(sum, 2 * 20000);
    dbt_detach(&m[1].cpu->common);
    free(m[1].cpu);
    stop(&m[0]);
    mem_ram_free(&ram);
}

static void test_cache_size(void **state)
{
    struct dbt_config config = {.guest = &x86_guest_ops, .jit = true, .code_cache_bytes = 4096};
    struct dbt *dbt;
    struct err err;

    (void)state;
    config.mem = mem_create();
    assert_int_equal(dbt_create(&dbt, &config, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1M to 1G"));
    mem_destroy(config.mem);
}

static void test_regions(void **state)
{
    static const struct {
        const u8 *code, *end;
    } cases[] = {{sum, sum_end},
                 {nested, nested_end},
                 {interpreter, interpreter_end},
                 {recursion, recursion_end},
                 {unwinding, unwinding_end},
                 {patch_callee, patch_callee_end},
                 {calls, calls_end},
                 {interpreter_patched, interpreter_patched_end},
                 {patch_own, patch_own_end},
                 {patch_loop, patch_loop_end}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct machine m, reference;
        struct dbt_stats stats;

        program(&reference, false, cases[i].code, cases[i].end);
        for (u32 hot = 1; hot <= 16; hot *= 4) {
            start_hot(&m, true, 0, hot);
            load(&m, START, cases[i].code, cases[i].end);
            run(&m);
            assert_memory_equal(m.cpu->gpr, reference.cpu->gpr, sizeof(m.cpu->gpr));
            dbt_get_stats(m.dbt, &stats);
            if (i < 6)
                assert_true(stats.regions > 0);
            stop(&m);
        }
        stop(&reference);
    }
}

static void *write_over(void *opaque)
{
    static const u8 hlt = 0xf4;
    struct machine *m = opaque;
    struct dbt_stats stats;

    do {
        usleep(1000);
        dbt_get_stats(m->dbt, &stats);
    } while (!stats.regions);
    usleep(10000);
    mem_write(m->mem, START, &hlt, 1);
    return NULL;
}

/* The loop runs inside of one translation, and must leave it when the code is not the same any
 * more. */
static void test_region_written_over(void **state)
{
    struct machine m;
    pthread_t thread;

    (void)state;
    start_hot(&m, true, 0, 2);
    load(&m, START, spin, spin_end);
    assert_int_equal(pthread_create(&thread, NULL, write_over, &m), 0);
    run(&m);
    pthread_join(thread, NULL);
    assert_int_equal(m.cpu->lip, START);
    assert_memory_equal(m.ram.hva + STACK, &m.cpu->gpr[X86_RAX], 4);
    stop(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_self_modifying),
        cmocka_unit_test(test_page_end),
        cmocka_unit_test(test_tlb_ways),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_split_lock),
        cmocka_unit_test(test_full_cache),
        cmocka_unit_test(test_dead_code),
        cmocka_unit_test(test_flush_under_calls),
        cmocka_unit_test(test_cache_size),
        cmocka_unit_test(test_regions),
        cmocka_unit_test(test_region_written_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
