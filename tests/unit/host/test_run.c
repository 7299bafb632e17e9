/* The ways into, between and out of units; site records; room. */
#include "world.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define S0 "s[264]" /* the first slots behind the pc */
#define S1 "s[272]"

struct bench {
    struct world *w;
    struct jit jit;
    struct arena arena;
};

static struct bench b;

static int setup(void **state)
{
    (void)state;
    memset(&b, 0, sizeof(b));
    b.w = world_new();
    world_reset(b.w, 1);
    jit_init(&b.jit, HOST_MEMORY_TLB, b.w);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    jit_free(&b.jit);
    world_free(b.w);
    arena_free(&b.arena);
    return 0;
}

static struct ir_unit *parse(const char *text)
{
    struct ir_unit *unit = arena_alloc(&b.arena, sizeof(*unit));
    struct err err;

    ir_init(unit, &b.arena, random_helpers, random_nhelpers, WORLD_SLOTS);
    if (ir_parse(unit, text, &err) || ir_verify(unit, &err))
        fail_msg("%s", err.text);
    return unit;
}

static void *compile(const char *text, struct host_code *code)
{
    struct host_code unused;

    return jit_compile(&b.jit, parse(text), code ? code : &unused);
}

static u64 slot(unsigned offset)
{
    u64 v;

    memcpy(&v, b.w->slots + offset, 8);
    return v;
}

static u64 run(void *code)
{
    return b.jit.enter(b.w, code, WORLD_BASE);
}

/* --- leaving ------------------------------------------------------------------------------ */

static void test_exit(void **state)
{
    (void)state;
    assert_int_equal(run(compile("block 0:\n%1 = const.i64 5\nput " S0 ", %1\nexit 77\n", NULL)),
                     77);
    assert_int_equal(slot(8), 5);
    assert_int_equal(b.w->exit_code, 77);
    assert_int_equal(b.w->missed, 0);
}

static void test_goto_not_chained(void **state)
{
    struct host_code code;
    void *at = compile("block 0:\ngoto base + 0x123\n", &code);

    (void)state;
    assert_int_equal(run(at), 0);
    assert_int_equal(slot(0), WORLD_BASE + 0x123);
    assert_int_equal(b.w->missed, 1);
    assert_int_equal(code.nlinks, 1);
    assert_int_equal(code.links[0].offset, 0x123);
    /* The run time is told which link it was, by the address of its field. */
    assert_int_equal(b.w->missed_link, (u64)at + code.links[0].patch);
    assert_int_equal(b.w->missed_link & 3, 0);
}

static void test_goto_out_of_the_page_is_no_link(void **state)
{
    struct host_code code;

    (void)state;
    assert_int_equal(run(compile("block 0:\ngoto base - 0x10\n", &code)), 0);
    assert_int_equal(slot(0), WORLD_BASE - 0x10);
    assert_int_equal(code.nlinks, 0);
    assert_int_equal(b.w->missed_link, 0);
}

static void test_direct_pages_link_everywhere(void **state)
{
    struct host_code code;

    (void)state;
    b.jit.abi.direct_pages = true;
    assert_int_equal(run(compile("block 0:\ngoto base + 0x123456789a\n", &code)), 0);
    assert_int_equal(slot(0), WORLD_BASE + 0x123456789a);
    assert_int_equal(code.nlinks, 1);
}

static void test_chaining(void **state)
{
    struct host_code code;
    void *to = compile("block 0:\n%1 = base\nput " S1 ", %1\nexit 50\n", NULL);
    void *from = compile("block 0:\n%1 = const.i64 9\nput " S0 ", %1\ngoto base + 0x40\n", &code);
    u8 *rw = b.jit.rw + ((u8 *)from - b.jit.exec);

    (void)state;
    host_patch_link(rw, (u64)from, &code.links[0], (u64)to);
    assert_int_equal(run(from), 50);
    assert_int_equal(slot(8), 9);
    assert_int_equal(slot(16), WORLD_BASE); /* the base register went along */
    assert_int_equal(b.w->missed, 0);
    host_patch_link(rw, (u64)from, &code.links[0], 0);
    assert_int_equal(run(from), 0);
    assert_int_equal(slot(0), WORLD_BASE + 0x40);
}

/* The unit jumped to finds its own page in the base register. */
static void test_chaining_to_another_page(void **state)
{
    static const char *const texts[] = {
        "block 0:\ngoto base + 0x3045\n",
        "block 0:\n%1 = get.i64 " S0 "\n%2 = eq %1, %1\n%3 = get.i64 " S0
        "\n%4 = const.i64 0\n%5 = ult %4, %3\ngoto_if %5, base + 0x3045\nexit 56\n",
    };
    void *to = compile("block 0:\n%1 = base\nput " S1 ", %1\nexit 55\n", NULL);

    (void)state;
    b.jit.abi.direct_pages = true;
    memset(b.w->slots + 8, 1, 8);
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        struct host_code code;
        void *from = compile(texts[i], &code);

        assert_int_equal(code.nlinks, 1);
        assert_int_equal(run(from), 0);
        assert_int_equal(slot(0), WORLD_BASE + 0x3045);
        host_patch_link(b.jit.rw + ((u8 *)from - b.jit.exec), (u64)from, &code.links[0], (u64)to);
        assert_int_equal(run(from), 55);
        assert_int_equal(slot(16), WORLD_BASE + 0x3000);
    }
}

static void test_conditional_chaining(void **state)
{
    static const char text[] = "block 0:\n%1 = get.i64 " S0 "\n%2 = const.i64 7\n%3 = ult %1, %2\n"
                               "goto_if %3, base + 0x10\ngoto base + 0x20\n";
    struct host_code code;
    void *then = compile("block 0:\nexit 51\n", NULL),
         *otherwise = compile("block 0:\nexit 52\n", NULL);
    void *from = compile(text, &code);
    u8 *rw = b.jit.rw + ((u8 *)from - b.jit.exec);

    (void)state;
    assert_int_equal(code.nlinks, 2);
    for (unsigned k = 0; k < 2; k++)
        host_patch_link(rw, (u64)from, &code.links[k],
                        (u64)(code.links[k].offset == 0x10 ? then : otherwise));
    memset(b.w->slots + 8, 0, 8);
    assert_int_equal(run(from), 51);
    memset(b.w->slots + 8, 0x7f, 8);
    assert_int_equal(run(from), 52);
    host_patch_link(rw, (u64)from, &code.links[1], 0);
    assert_int_equal(run(from), 0);
    assert_int_equal(slot(0), WORLD_BASE + 0x20);
}

static void test_more_gotos_than_links(void **state)
{
    enum { GOTOS = HOST_MAX_LINKS + 4 };
    char text[8192] = "block 0:\n%1 = get.i64 " S0 "\n";
    struct host_code code;
    void *at;

    (void)state;
    for (unsigned k = 0; k < GOTOS; k++)
        sprintf(text + strlen(text),
                "%%%u = const.i64 %u\n%%%u = eq %%1, %%%u\ngoto_if %%%u, base + %u\n", 10 * k + 10,
                k, 10 * k + 11, 10 * k + 10, 10 * k + 11, 16 * k);
    strcat(text, "exit 20\n");
    at = compile(text, &code);
    assert_int_equal(code.nlinks, HOST_MAX_LINKS);
    for (u64 k = 0; k <= GOTOS; k++) {
        memcpy(b.w->slots + 8, &k, 8);
        assert_int_equal(run(at), k < GOTOS ? 0 : 20);
        if (k < GOTOS)
            assert_int_equal(slot(0), WORLD_BASE + 16 * k);
    }
}

/* --- the jump cache ----------------------------------------------------------------------- */

static void put_jump_at(u32 index, u64 gva, void *code)
{
    b.w->jump_entries[index] = (struct host_jump){gva, b.w->space, b.w->mode, code, gva & ~4095ull};
}

static void put_jump(u64 gva, void *code)
{
    put_jump_at(host_jump_index(gva, WORLD_JUMP_BITS), gva, code);
}

static void check_jump_cache(u32 *mode)
{
    void *to = compile("block 0:\n%1 = base\nput " S1 ", %1\nexit 53\n", NULL);
    void *indirect = compile("block 0:\n%1 = get.i64 " S0 "\ninsn 0x77, 2\ngoto_ind %1\n", NULL);
    void *far = compile("block 0:\ngoto base + 0x2345\n", NULL);
    u64 gva = 0x12345678;

    b.w->space = 5;
    *mode = 6;
    memcpy(b.w->slots + 8, &gva, 8);
    assert_int_equal(run(indirect), 0);
    assert_int_equal(slot(0), gva);
    /* The run time is told which instruction it was. */
    assert_int_equal(b.w->missed_from, WORLD_BASE + 0x77);
    put_jump(gva, to);
    assert_int_equal(run(indirect), 53);
    assert_int_equal(slot(16), gva & ~4095ull);
    b.w->space = 7;
    assert_int_equal(run(indirect), 0);
    b.w->space = 5;
    *mode = 7;
    assert_int_equal(run(indirect), 0);
    *mode = 6;
    gva += 1ull << 32;
    memcpy(b.w->slots + 8, &gva, 8);
    assert_int_equal(run(indirect), 0);

    /* In the entry beside its own. */
    put_jump(gva ^ 1ull << 40, to);
    put_jump_at(host_jump_index(gva, WORLD_JUMP_BITS) ^ 1, gva, to);
    assert_int_equal(run(indirect), 53);
    assert_int_equal(slot(16), gva & ~4095ull);
    b.w->space = 7;
    assert_int_equal(run(indirect), 0);
    assert_int_equal(b.w->missed_from, WORLD_BASE + 0x77);
    b.w->space = 5;

    put_jump(WORLD_BASE + 0x2345, to);
    assert_int_equal(run(far), 53);
    assert_int_equal(slot(16), WORLD_BASE + 0x2000);
}

static void test_jump_cache(void **state)
{
    (void)state;
    check_jump_cache(&b.w->mode);
}

static void test_jump_cache_mode_elsewhere(void **state)
{
    (void)state;
    b.jit.abi.mode = offsetof(struct world, far_mode);
    b.w->mode = 6; /* what put_jump says */
    check_jump_cache(&b.w->far_mode);
}

static void *answer_miss(struct world *w, u64 link)
{
    (void)link;
    w->on_miss = NULL;
    return (void *)w->last_addr; /* lent for this */
}

static void test_miss_goes_on(void **state)
{
    void *to = compile("block 0:\n%1 = base\nput " S1 ", %1\nexit 54\n", NULL);

    (void)state;
    b.w->on_miss = answer_miss;
    b.w->last_addr = (u64)to;
    assert_int_equal(run(compile("block 0:\ngoto base + 0x5678\n", NULL)), 54);
    assert_int_equal(slot(0), WORLD_BASE + 0x5678);
    assert_int_equal(slot(16), WORLD_BASE + 0x5000);
}

/* --- side exits and records --------------------------------------------------------------- */

static void test_poll(void **state)
{
    void *at = compile("block 0:\npoll\nexit 30\n", NULL);

    (void)state;
    assert_int_equal(run(at), 30);
    b.w->request = 1;
    assert_int_equal(run(at), IR_EXIT_REQUEST);
}

/* Values of every kind of place must be in state when a side exit is taken. */
static void test_puts_of_a_side_exit(void **state)
{
    void *at = compile("block 0:\n"
                       "%1 = get.i64 s[272]\n%2 = not.i64 %1\n%3 = base\n"
                       "%4 = const.i64 0x123456789abcdef0\n%5 = const.i64 0xfffffffffffffffb\n"
                       "%6 = const.i64 0x77\n%7 = add.i64 %3, %6\n%8 = vec %1, %2\n"
                       "%9 = trunc.i8 %2\n%10 = ne %1, %2\n"
                       "dput s[256], %7\ndput s[280], %2\ndput s[288], %4\ndput s[296], %5\n"
                       "dput s[304], %8\ndput s[328], %9\n"
                       "exit_if %10, 31\n"
                       "put s[256], %1\nput s[280], %1\nput s[288], %1\nput s[296], %1\n"
                       "put s[304], %8\nput s[328], %9\nexit 32\n",
                       NULL);
    u64 v = slot(16), untouched = slot(8);
    u8 byte = b.w->slots[73];

    (void)state;
    assert_int_equal(run(at), 31);
    assert_int_equal(slot(0), WORLD_BASE + 0x77);
    assert_int_equal(slot(8), untouched);
    assert_int_equal(slot(24), ~v);
    assert_int_equal(slot(32), 0x123456789abcdef0);
    assert_int_equal(slot(40), (u64)-5);
    assert_int_equal(slot(48), v);
    assert_int_equal(slot(56), ~v);
    assert_int_equal(b.w->slots[72], (u8)~v);
    assert_int_equal(b.w->slots[73], byte); /* a byte's put is a byte */
}

/* An index that melts into an address form keeps its width: here 32 bits of a wider register. */
static void test_scaled_index(void **state)
{
    void *at = compile("block 0:\n%1 = get.i64 s[264]\n%2 = get.i64 s[272]\n%3 = trunc.i32 %1\n"
                       "%4 = zext.i64 %3\n%5 = const.i8 3\n%6 = shl.i64 %4, %5\n"
                       "%7 = add.i64 %2, %6\nput s[280], %7\nexit 34\n",
                       NULL);

    (void)state;
    assert_true(slot(8) >> 32);
    assert_int_equal(run(at), 34);
    assert_int_equal(slot(24), slot(16) + ((slot(8) & 0xffffffff) << 3));
}

static void test_insns_are_counted(void **state)
{
    (void)state;
    run(compile("block 0:\ninsn 0, 1\ninsn 1, 1\ninsn 2, 1\ngoto base + 3\n", NULL));
    assert_int_equal(b.w->insns, 3);
}

static void test_page_crossing_misses(void **state)
{
    void *at = compile(
        "block 0:\n%1 = get.i64 " S0 "\n%2 = ld.i32 [%1 + 2]\nput s[272], %2\nexit 33\n", NULL);
    u64 first = WORLD_MEMORY + 4096 - 6;

    (void)state;
    b.w->fill_tlb = true;
    for (u64 addr = first - 3; addr < first + 8; addr++) {
        u32 want;

        memcpy(&want, b.w->memory + addr + 2 - WORLD_FIRST_PAGE, 4);
        memcpy(b.w->slots + 8, &addr, 8);
        run(at); /* fills */
        b.w->sites = 0;
        b.w->tlb_patience = 100;
        run(at);
        assert_int_equal((u32)slot(16), want);
        assert_int_equal(b.w->sites, ((addr + 2) ^ (addr + 5)) >> 12 ? 1 : 0);
    }
}

/* --- room --------------------------------------------------------------------------------- */

static void test_too_small_a_buffer(void **state)
{
    struct random_options options = {.insts = 150,
                                     .blocks = 3,
                                     .slot_base = WORLD_SLOTS,
                                     .memory_base = WORLD_MEMORY,
                                     .memory = true,
                                     .leaves = true,
                                     .calls = true,
                                     .floats = true,
                                     .vectors = true};
    struct ir_unit *unit = random_unit(&b.arena, 42, &options);
    struct host_code code;
    u8 *buf = malloc(65536 + 512);
    size_t need = 0;

    (void)state;
    for (size_t size = 0; !need && size < 65536; size += 37) {
        int rc;

        memset(buf + size, 0xee, 512);
        rc = host_compile(unit, &b.jit.abi, buf, (u64)b.jit.exec, size, &code);
        for (unsigned i = 0; i < 512; i++)
            assert_int_equal(buf[size + i], 0xee);
        assert_true(rc == 0 || rc == -ENOSPC);
        if (rc == 0)
            need = size;
    }
    assert_true(need && need >= code.total_bytes && need < code.total_bytes + 2048);
    free(buf);
}

/* --- memory reached directly -------------------------------------------------------------- */

static struct {
    const u8 *code_exec;
    const struct host_code *code;
    struct jit *jit;
    struct world *w;
    jmp_buf leave;
} fault;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                  REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                  REG_R12, REG_R13, REG_R14, REG_R15};
    const greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const struct host_site *site = host_find_site(fault.code_exec, fault.code, (u64)regs[REG_RIP]);
    static struct host_frame frame;

    (void)signal, (void)info;
    if (!site)
        abort();
    memcpy(frame.spill, (void *)regs[REG_RSP], sizeof(frame.spill));
    for (unsigned r = 0; r < 16; r++)
        frame.saved[r] = (u64)regs[order[r]];
    host_restore(fault.w, &frame, site);
    siglongjmp(fault.leave, 1);
}

static void test_direct_fault(void **state)
{
    static const char text[] = "block 0:\n%1 = get.i64 s[264]\n%2 = base\n%3 = const.i64 4\n"
                               "%4 = add.i64 %2, %3\ndput s[256], %2\n%5 = ld.i64 [%1]\n"
                               "dput s[256], %4\nst [%1 + 0x1000], %5\nput s[256], %1\nexit 40\n";
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER}, old;
    struct host_code code;
    struct jit direct;
    u64 addr = WORLD_FIRST_PAGE + 8;

    (void)state;
    jit_init(&direct, HOST_MEMORY_DIRECT, b.w);
    fault.code_exec = jit_compile(&direct, parse(text), &code);
    fault.code = &code;
    fault.w = b.w;
    memcpy(b.w->slots + 8, &addr, 8);
    assert_int_equal(direct.enter(b.w, (void *)fault.code_exec, WORLD_BASE), 40);
    sigaction(SIGSEGV, &action, &old);
    for (volatile unsigned page = 0; page < 2; page++) {
        mprotect(b.w->memory + 4096 * page, 4096, PROT_NONE);
        if (!sigsetjmp(fault.leave, 1)) {
            direct.enter(b.w, (void *)fault.code_exec, WORLD_BASE);
            fail_msg("no fault");
        }
        assert_int_equal(slot(0), WORLD_BASE + 4 * page);
        mprotect(b.w->memory + 4096 * page, 4096, PROT_READ | PROT_WRITE);
    }
    sigaction(SIGSEGV, &old, NULL);
    jit_free(&direct);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
        T(exit),
        T(goto_not_chained),
        T(goto_out_of_the_page_is_no_link),
        T(direct_pages_link_everywhere),
        T(chaining),
        T(chaining_to_another_page),
        T(conditional_chaining),
        T(more_gotos_than_links),
        T(jump_cache),
        T(jump_cache_mode_elsewhere),
        T(miss_goes_on),
        T(poll),
        T(puts_of_a_side_exit),
        T(scaled_index),
        T(insns_are_counted),
        T(page_crossing_misses),
        T(too_small_a_buffer),
        T(direct_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
