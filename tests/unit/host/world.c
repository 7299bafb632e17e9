#include "world.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STICKY 0x3d /* all but the denormal flag, which C arithmetic on bits may miss */

/* --- memory ------------------------------------------------------------------------------- */

static u8 *host_address(struct world *w, u64 addr, unsigned bytes)
{
    u64 offset = addr - WORLD_FIRST_PAGE;

    w->last_addr = addr;
    assert_true(offset <= WORLD_PAGES * 4096 - bytes);
    return w->memory + offset;
}

static bool access_traps(struct world *w)
{
    return ++w->accesses == w->trap_at;
}

static u8 *interpreter_address(struct world *w, u64 addr, unsigned bytes)
{
    if (access_traps(w))
        longjmp(*w->leave, 1);
    return host_address(w, addr, bytes);
}

static void load(void *state, u64 addr, void *buf, unsigned bytes)
{
    memcpy(buf, interpreter_address(state, addr, bytes), bytes);
}

static void store(void *state, u64 addr, const void *buf, unsigned bytes)
{
    memcpy(interpreter_address(state, addr, bytes), buf, bytes);
}

static u64 atomic(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand, u64 desired)
{
    return random_atomic(interpreter_address(state, addr, bytes), op, bytes, operand, desired);
}

static void trap_helper(void *state)
{
    struct world *w = state;

    if (access_traps(w))
        longjmp(*w->leave, 1);
}

/* --- callbacks of emitted code ------------------------------------------------------------ */

static void fill_tlb(struct world *w, u64 addr)
{
    struct world_tlb_entry *entry =
        &w->entries[w->sites % WORLD_TLB_WAYS][addr >> 12 & ((1 << WORLD_TLB_BITS) - 1)];
    u64 page = addr & ~4095ull;

    if (w->tlb_patience < 0)
        w->tlb_patience = (s32)(w->sites % 5);
    if (page - WORLD_FIRST_PAGE >= WORLD_PAGES * 4096)
        return;
    entry->read_tag = entry->write_tag = page;
    entry->addend = (u64)w->memory - WORLD_FIRST_PAGE;
}

static u64 site(void *state, struct host_frame *frame, const struct host_site *site)
{
    struct world *w = state;
    unsigned bytes = ir_type_bytes(site->type);
    u64 value[2] = {0}, a[2] = {0}, b[2] = {0}, addr;
    u8 *p;

    w->sites++;
    if (site->op == IR_poll || site->op == IR_exit_if) {
        host_restore(state, frame, site);
        return site->exit_code;
    }
    if (access_traps(w)) {
        host_restore(state, frame, site);
        return WORLD_TRAPPED;
    }
    addr = host_read_location(frame, site->addr_kind, site->addr) + (u64)(s64)site->disp;
    p = host_address(w, addr, bytes);
    if (w->fill_tlb)
        fill_tlb(w, addr);
    if (site->op == IR_ld) {
        memcpy(value, p, bytes);
        host_write_result(frame, site, value);
        return 0;
    }
    host_read_operand(frame, site->operand_kind, site->operand, a);
    if (site->op == IR_st) {
        memcpy(p, a, bytes);
        return 0;
    }
    if (site->op == IR_acas)
        host_read_operand(frame, site->operand2_kind, site->operand2, b);
    value[0] = random_atomic(p, site->op, bytes, a[0], b[0]);
    host_write_result(frame, site, value);
    return 0;
}

static void *missed(void *state, u64 link, u64 from)
{
    struct world *w = state;

    w->missed++;
    w->missed_link = link;
    w->missed_from = from;
    return w->on_miss ? w->on_miss(w, link) : NULL;
}

/* --- code --------------------------------------------------------------------------------- */

void jit_init(struct jit *jit, enum host_memory memory, struct world *w)
{
    static const struct host_callbacks callbacks = {site, missed};
    int fd = memfd_create("code", 0);

    assert_true(fd >= 0 && ftruncate(fd, WORLD_CODE_BYTES) == 0);
    jit->rw = mmap(NULL, WORLD_CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    jit->exec = mmap(NULL, WORLD_CODE_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    assert_true(jit->rw != MAP_FAILED && jit->exec != MAP_FAILED);
    close(fd);
    jit->abi = (struct host_abi){
        .memory = memory,
        .request = offsetof(struct world, request),
        .tlb = offsetof(struct world, tlb),
        .jump_cache = offsetof(struct world, jumps),
        .space = offsetof(struct world, space),
        .mode = offsetof(struct world, mode),
        .pc_slot = WORLD_SLOTS,
        .insns = offsetof(struct world, insns),
        .exit_code = offsetof(struct world, exit_code),
        .tlb_bits = WORLD_TLB_BITS,
        .tlb_entry_bytes = sizeof(struct world_tlb_entry),
        .tlb_read_tag = offsetof(struct world_tlb_entry, read_tag),
        .tlb_write_tag = offsetof(struct world_tlb_entry, write_tag),
        .tlb_addend = offsetof(struct world_tlb_entry, addend),
        .tlb_ways = WORLD_TLB_WAYS,
        .tlb_patience = offsetof(struct world, tlb_patience),
        .jump_cache_bits = WORLD_JUMP_BITS,
        .direct_base = (u64)w->memory - WORLD_FIRST_PAGE,
        .count_insns = true,
    };
    jit->used = host_make_thunks(jit->rw, (u64)jit->exec, WORLD_CODE_BYTES, &jit->abi, &callbacks,
                                 &jit->enter);
    assert_true(jit->used > 0);
}

void jit_free(struct jit *jit)
{
    munmap(jit->rw, WORLD_CODE_BYTES);
    munmap(jit->exec, WORLD_CODE_BYTES);
}

void *jit_compile(struct jit *jit, const struct ir_unit *unit, struct host_code *code)
{
    void *at;

    jit->used = (jit->used + 15) & ~(size_t)15;
    at = jit->exec + jit->used;
    assert_int_equal(host_compile(unit, &jit->abi, jit->rw + jit->used, (u64)at,
                                  WORLD_CODE_BYTES - jit->used, code),
                     0);
    jit->used += code->total_bytes;
    return at;
}

/* --- worlds ------------------------------------------------------------------------------- */

struct world *world_new(void)
{
    struct world *w = aligned_alloc(64, (sizeof(*w) + 63) & ~63ul);

    assert_non_null(w);
    assert_int_equal(offsetof(struct world, slots), WORLD_SLOTS);
    memset(w, 0, sizeof(*w));
    w->memory =
        mmap(NULL, WORLD_PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(w->memory != MAP_FAILED);
    return w;
}

void world_free(struct world *w)
{
    munmap(w->memory, WORLD_PAGES * 4096);
    free(w);
}

void world_reset(struct world *w, u64 seed)
{
    random_trap_fn *fn = trap_helper;
    u8 *memory = w->memory;

    memset(w, 0, offsetof(struct world, entries));
    w->memory = memory;
    w->tlb = w->entries[0];
    w->jumps = w->jump_entries;
    w->space = 1; /* no empty entry is of it */
    for (size_t i = 0; i < RANDOM_STATE; i += 8) {
        u64 v = random_next(&seed);

        memcpy(w->slots + i, &v, 8);
    }
    for (size_t i = 0; i < WORLD_PAGES * 4096; i += 8) {
        u64 v = random_next(&seed);

        memcpy(w->memory + i, &v, 8);
    }
    memcpy(w->slots + RANDOM_TRAP_SLOT, &fn, sizeof(fn));
    for (size_t way = 0; way < WORLD_TLB_WAYS; way++)
        for (size_t i = 0; i < 1 << WORLD_TLB_BITS; i++)
            w->entries[way][i] = (struct world_tlb_entry){~0ull, ~0ull, 0, 0};
    for (size_t i = 0; i < 1 << WORLD_JUMP_BITS; i++)
        w->jump_entries[i] = (struct host_jump){.gva = ~0ull};
}

struct world_result world_interpret(struct world *w, const struct ir_unit *unit)
{
    static const struct ir_memory memory = {load, store, atomic};
    struct ir_run run = {w, WORLD_BASE, &w->request, &memory};
    struct world_result result = {0};
    struct ir_outcome outcome;
    jmp_buf leave;

    w->leave = &leave;
    host_fp_enter(0x1f80);
    if (setjmp(leave)) {
        result.trapped = true;
    } else {
        outcome = ir_interpret(unit, &run);
        result.exit_code = outcome.how == IR_LEFT_EXIT ? outcome.exit_code : 0;
    }
    result.mxcsr = host_fp_leave() & STICKY;
    host_fp_enter(0x1f80);
    return result;
}

struct world_result world_run(struct world *w, struct jit *jit, void *code)
{
    struct world_result result = {0};
    jmp_buf leave;
    u64 answer;

    w->leave = &leave;
    host_fp_enter(0x1f80);
    if (setjmp(leave)) {
        result.trapped = true;
    } else {
        answer = jit->enter(w, code, WORLD_BASE);
        result.trapped = answer == WORLD_TRAPPED;
        result.exit_code = result.trapped ? 0 : (u32)answer;
    }
    result.mxcsr = host_fp_leave() & STICKY;
    host_fp_enter(0x1f80);
    return result;
}
