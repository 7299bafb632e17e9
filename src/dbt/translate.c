/*
 * From "the next instruction is at this address" to a block: jump cache, then the blocks known by
 * guest-physical address, then translation: fetch, lift, optimise, compile, publish.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "dbt/internal.h"
#include "trace/trace.h"

/* Guest-physical address to execute @gva from; may leave with a guest exception. */
static u64 fetch_gpa(struct guest_cpu *cpu, u64 gva)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct fetch_entry *f = &dc->fetch[(gva >> MEM_PAGE_SHIFT) % DBT_FETCH_ENTRIES];
    u64 at = align_down(gva, MEM_PAGE_SIZE);

    if (dc->dbt->config.direct) { /* rights change without a flush, and asking for them is cheap */
        struct guest_page page = {0};

        cpu->ops->walk(cpu, gva, GUEST_FETCH, false, false, &page);
        return gva;
    }
    if (f->gva != at || f->space != cpu->space || f->mode != cpu->mode) {
        struct guest_page page = {0};

        cpu->ops->walk(cpu, gva, GUEST_FETCH, false, false, &page);
        if (!page.global)
            tlb_private_code(dc);
        f->gva = at;
        f->gpa = align_down(page.gpa, MEM_PAGE_SIZE);
        f->space = cpu->space;
        f->mode = cpu->mode;
        tlb_note_code(dc, gva);
    }
    return f->gpa | (gva & (MEM_PAGE_SIZE - 1));
}

struct source {
    u64 pc, gpa, page2;
    const u8 *hva;  /* where it lies; NULL in direct mode, where reading it may fault */
    const u8 *code; /* bytes, or both */
    u32 avail;
    bool checked; /* stores to its pages are not seen: the block is to look itself */
    /* What is lifted is a copy, so that a store of another vCPU cannot change it half way. */
    u8 bytes[DBT_MAX_INSNS * DBT_INSN_BYTES];
    u8 both[2 * DBT_INSN_BYTES]; /* an instruction over two pages */
};

static int find_source(struct guest_cpu *cpu, struct source *src)
{
    const struct mem_slot *slot;

    src->pc = cpu->ops->pc(cpu);
    src->gpa = fetch_gpa(cpu, src->pc);
    src->page2 = DBT_NO_PAGE;
    src->avail = (u32)(MEM_PAGE_SIZE - (src->gpa & (MEM_PAGE_SIZE - 1)));
    src->hva = NULL;
    if (dbt_cpu(cpu)->dbt->config.direct)
        return 0;
    slot = mem_find(cpu->mem, src->gpa);
    if (!slot) {
        cpu->scratch[0] = src->gpa;
        return -EFAULT;
    }
    src->hva = slot->hva + (src->gpa - slot->gpa);
    return 0;
}

/* Other vCPUs may write it meanwhile; page_written comes behind their stores. */
static void copy_code(u8 *to, const u8 *from, u32 bytes)
{
    for (; bytes && (u64)from & 7; bytes--)
        *to++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
    for (; bytes >= 8; bytes -= 8, from += 8, to += 8) {
        u64 word = __atomic_load_n((const u64 *)from, __ATOMIC_RELAXED);

        memcpy(to, &word, 8);
    }
    while (bytes--)
        *to++ = __atomic_load_n(from++, __ATOMIC_RELAXED);
}

static int copy_source(struct guest_cpu *cpu, struct source *src, u32 max_insns)
{
    if (src->avail > max_insns * DBT_INSN_BYTES)
        src->avail = max_insns * DBT_INSN_BYTES;
    src->code = src->bytes;
    if (src->hva) {
        copy_code(src->bytes, src->hva, src->avail);
        return 0;
    }
    cpu->scratch[0] = src->gpa;
    return direct_read(dbt_cpu(cpu)->dbt, src->gpa, src->bytes, src->avail);
}

/* The instruction at the page's end goes on in the next page: puts both parts side by side. */
static int add_second_page(struct guest_cpu *cpu, struct source *src)
{
    const struct mem_slot *slot;

    if (src->avail >= DBT_INSN_BYTES)
        return -EINVAL;
    src->page2 = fetch_gpa(cpu, src->pc + src->avail);
    if (dbt_cpu(cpu)->dbt->config.direct) {
        memcpy(src->both, src->code, src->avail);
        cpu->scratch[0] = src->page2;
        if (direct_read(dbt_cpu(cpu)->dbt, src->page2, src->both + src->avail, DBT_INSN_BYTES))
            return -EFAULT;
        src->code = src->both;
        src->avail += DBT_INSN_BYTES;
        return 0;
    }
    slot = mem_find(cpu->mem, src->page2);
    if (!slot) {
        cpu->scratch[0] = src->page2;
        return -EFAULT;
    }
    page_protect(dbt_cpu(cpu)->dbt, src->page2);
    memcpy(src->both, src->code, src->avail);
    memcpy(src->both + src->avail, slot->hva + (src->page2 - slot->gpa), DBT_INSN_BYTES);
    src->code = src->both;
    src->avail += DBT_INSN_BYTES;
    return 0;
}

static bool dumped(const struct dbt *dbt, u64 pc, u32 stage)
{
    return (dbt->config.dump_stages & stage) && pc >= dbt->config.dump_first &&
           pc <= dbt->config.dump_last;
}

static void dump_guest(struct guest_cpu *cpu, const struct source *src, u32 length)
{
    u32 at = 0;

    fprintf(stderr, "guest code at %#" PRIx64 " (gpa %#" PRIx64 ", mode %#x):\n", src->pc, src->gpa,
            cpu->mode);
    while (at < length && cpu->ops->disassemble) {
        char text[128];
        int n = cpu->ops->disassemble(cpu->mode, src->pc + at, src->code + at, length - at, text,
                                      sizeof(text));

        fprintf(stderr, "  %#" PRIx64 "  %s\n", src->pc + at, text);
        at += (u32)n;
    }
}

void translate_dump_unit(const struct dbt *dbt, u64 pc, u32 stage, const char *title,
                         const struct ir_unit *unit)
{
    if (!dumped(dbt, pc, stage))
        return;
    fprintf(stderr, "%s:\n", title);
    ir_print(unit, stderr);
}

/*
 * Has the unit begin with a look at the @bytes bytes that it is made from: if they are others, it
 * leaves, and is made again.
 */
static void check_code(struct guest_cpu *cpu, struct ir_unit *unit, const struct source *src,
                       u32 bytes)
{
    s64 at = (s64)(src->pc & (MEM_PAGE_SIZE - 1));
    ir_ref base = ir_base(unit), changed = IR_NONE;

    ir_put(unit, cpu->ops->pc_slot, ir_add(unit, base, ir_const(unit, IR_I64, (u64)at)));
    for (u32 i = 0; i < bytes;) {
        u32 n = bytes - i >= 8 ? 8 : bytes - i >= 4 ? 4 : bytes - i >= 2 ? 2 : 1;
        enum ir_type type = n == 8 ? IR_I64 : n == 4 ? IR_I32 : n == 2 ? IR_I16 : IR_I8;
        u64 was = 0;
        ir_ref now, bit;

        memcpy(&was, src->code + i, n);
        now = ir_ld(unit, type, base, at + i);
        bit = ir_xor(unit, now, ir_const(unit, type, was));
        if (n < 8)
            bit = ir_zext(unit, IR_I64, bit);
        changed = changed ? ir_or(unit, changed, bit) : bit;
        i += n;
    }
    ir_exit_if(unit, ir_ne(unit, changed, ir_const(unit, IR_I64, 0)), DBT_EXIT_STALE);
}

/* Lifts up to @max_insns, behind a look at @check bytes if that is not 0. */
static int lift_at_most(struct guest_cpu *cpu, struct ir_unit *unit, struct arena *arena,
                        struct source *src, u32 max_insns, u32 check, u32 *length)
{
    const struct guest_ops *ops = cpu->ops;
    struct guest_lift lift = {
        .unit = unit,
        .pc = src->pc,
        .code = src->code,
        .avail = src->avail,
        .mode = cpu->mode,
        .max_insns = max_insns,
        .two_pages = src->page2 != DBT_NO_PAGE,
        .chains_pages = dbt_cpu(cpu)->dbt->config.direct,
        .fma = dbt_cpu(cpu)->dbt->abi.features & HOST_FEATURE_FMA,
    };
    int ret;

    ir_init(unit, arena, ops->helpers, ops->nhelpers, ops->pc_slot);
    if (check)
        check_code(cpu, unit, src, check);
    ret = ops->lift(&lift);
    if (ret == -ERANGE && src->page2 == DBT_NO_PAGE) {
        ret = add_second_page(cpu, src);
        if (ret)
            return ret;
        ir_init(unit, arena, ops->helpers, ops->nhelpers, ops->pc_slot);
        lift.code = src->code;
        lift.avail = src->avail;
        lift.two_pages = true;
        ret = ops->lift(&lift);
    }
    if (!ret && unit->failed)
        ret = -ENOMEM;
    *length = lift.length;
    /* A first instruction that ended within its page after all, or lies wholly in the first. */
    if (src->page2 != DBT_NO_PAGE && lift.length <= MEM_PAGE_SIZE - (src->gpa & 4095))
        src->page2 = DBT_NO_PAGE;
    return ret;
}

static bool may_store(const struct ir_unit *unit, const struct ir_inst *inst)
{
    return inst->op == IR_st || (inst->op >= IR_acas && inst->op <= IR_axor) ||
           (inst->op == IR_call && !(unit->helpers[inst->imm].flags & IR_HELPER_PURE));
}

/*
 * Lifts again what became @unit, of @length bytes, so that it checks itself. Its own stores may
 * change what follows them: where the guest promises that this is seen at once, the block ends
 * behind the first instruction that may store, and the next one looks.
 */
static int lift_checked(struct guest_cpu *cpu, struct ir_unit *unit, struct arena *arena,
                        struct source *src, u32 *length)
{
    u32 insns = 0, bytes = *length;

    for (ir_ref ref = 1; ref < unit->ninsts && !cpu->ops->fenced_fetch; ref++) {
        const struct ir_inst *inst = ir_inst(unit, ref);

        if (inst->op == IR_insn) {
            insns++;
            bytes = (u32)inst->imm + (u32)(inst->imm >> 32) - (u32)(src->pc & (MEM_PAGE_SIZE - 1));
        } else if (may_store(unit, inst)) {
            break;
        }
    }
    return lift_at_most(cpu, unit, arena, src, insns ? insns : unit->guest_insns, bytes, length);
}

/* Fetch to optimised IR. 0, -ENOMEM, -EFAULT (not memory). May leave. */
static int lift_block(struct guest_cpu *cpu, struct ir_unit *unit, struct arena *arena,
                      struct source *src, u32 max_insns, u32 *length)
{
    struct dbt *dbt = dbt_cpu(cpu)->dbt;
    int ret = lift_at_most(cpu, unit, arena, src, max_insns, 0, length);

    src->checked = page_is_checked(dbt, src->gpa) ||
                   (src->page2 != DBT_NO_PAGE && page_is_checked(dbt, src->page2));
    if (!ret && src->checked && !cpu->insn_limit && !dbt_cpu(cpu)->smc_step)
        ret = lift_checked(cpu, unit, arena, src, length);
    if (ret)
        return ret;
    if (dumped(dbt, src->pc, DBT_DUMP_GUEST))
        dump_guest(cpu, src, *length);
    translate_dump_unit(dbt, src->pc, DBT_DUMP_LIFT, "lifted", unit);
    ret = opt_run(unit, OPT_QUICK);
    translate_dump_unit(dbt, src->pc, DBT_DUMP_OPT, "optimised", unit);
    return ret;
}

void translate_dump_host(const struct dbt *dbt, u64 pc, const u8 *rw, u64 exec,
                         const struct host_code *code)
{
    if (!dumped(dbt, pc, DBT_DUMP_HOST))
        return;
    fprintf(stderr, "host code, %zu bytes, %zu apart and %zu of sites:\n", code->hot_bytes,
            code->code_bytes - code->cold, code->total_bytes - code->code_bytes);
    host_disassemble(rw, code->hot_bytes, exec, stderr);
    host_disassemble(rw + code->cold, code->code_bytes - code->cold, exec + code->cold, stderr);
}

/* Which guest code @block was made from. */
static void describe(struct block *block, const struct guest_cpu *cpu, const struct source *src,
                     u32 length)
{
    u32 first = (u32)(MEM_PAGE_SIZE - (src->gpa & (MEM_PAGE_SIZE - 1)));

    block->gpa = src->gpa;
    block->page2 = src->page2;
    block->mode = cpu->mode;
    block->checked = src->checked;
    block->length = length;
    if (src->page2 == DBT_NO_PAGE)
        first = length;
    else
        block->granules[1] = page_granules(src->page2, length - first);
    block->granules[0] = page_granules(src->gpa, first);
}

/* Compiles into the CPU's chunk; lifts less when the unit is more than the host back end takes. */
static struct block *compile_block(struct guest_cpu *cpu, struct source *src, u32 *length, int *ret)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u32 max_insns = DBT_MAX_INSNS;
    struct cache_room room;
    struct host_code code;
    struct ir_unit unit;
    struct block *block;

    *ret = cache_reserve(dc, &room);
    if (*ret)
        return NULL;
    for (;;) {
        arena_reset(&dc->arena);
        *ret = lift_block(cpu, &unit, &dc->arena, src, max_insns, length);
        if (*ret)
            return NULL;
        memset(&code, 0, sizeof(code));
        *ret = host_compile(&unit, &room.abi, room.rw, room.exec, DBT_MAX_BLOCK_CODE, &code);
        if ((*ret != -ENOSPC && *ret != -E2BIG) || max_insns == 1)
            break;
        max_insns = max_insns > 8 ? max_insns / 4 : 1;
    }
    if (*ret)
        return NULL;
    translate_dump_host(dc->dbt, src->pc, room.rw, room.exec, &code);
    block = cache_keep(dc, &room, &code);
    describe(block, cpu, src, *length);
    block->guest_insns = unit.guest_insns;
    return block;
}

static void *unit_memory(struct dbt *dbt, size_t bytes)
{
    void *p;

    pthread_mutex_lock(&dbt->lock);
    p = arena_alloc(&dbt->units, bytes);
    pthread_mutex_unlock(&dbt->lock);
    return p;
}

/* Without jit: the unit itself is kept. */
static struct block *keep_unit(struct guest_cpu *cpu, struct source *src, u32 *length, int *ret)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct ir_unit unit, *kept;
    struct block *block;
    size_t insts, blocks;
    u8 *memory;

    *ret = atomic_fetch_add(&dc->dbt->kept_units, 1) < DBT_MAX_UNITS ? 0 : -ENOSPC;
    if (*ret)
        return NULL;
    arena_reset(&dc->arena);
    *ret = lift_block(cpu, &unit, &dc->arena, src, DBT_MAX_INSNS, length);
    if (*ret)
        return NULL;
    insts = unit.ninsts * sizeof(*unit.insts);
    blocks = unit.nblocks * sizeof(*unit.blocks);
    block = unit_memory(dc->dbt, sizeof(*block));
    memory = unit_memory(dc->dbt, sizeof(*kept) + insts + blocks);
    if (!block || !memory) {
        *ret = -ENOMEM;
        return NULL;
    }
    describe(block, cpu, src, *length);
    kept = (struct ir_unit *)memory;
    *kept = unit;
    kept->insts = memcpy(memory + sizeof(*kept), unit.insts, insts);
    kept->blocks = memcpy(memory + sizeof(*kept) + insts, unit.blocks, blocks);
    kept->arena = NULL;
    kept->forward = NULL;
    block->guest_insns = unit.guest_insns;
    block->unit = kept;
    block->code = (u8 *)kept; /* not NULL: the jump cache holds it, nothing jumps to it */
    return block;
}

static struct block *translate(struct guest_cpu *cpu, struct source *src, int *ret)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct dbt *dbt = dc->dbt;

    for (;;) {
        struct block *block;
        u32 length = 0;

        src->page2 = DBT_NO_PAGE;
        *ret = find_source(cpu, src);
        if (*ret)
            return NULL;
        page_protect(dbt, src->gpa);
        *ret = copy_source(cpu, src, DBT_MAX_INSNS);
        if (*ret)
            return NULL;
        block = dbt->config.jit ? compile_block(cpu, src, &length, ret)
                                : keep_unit(cpu, src, &length, ret);
        if (*ret == -ENOSPC) {
            exclusive_begin(dbt, dc);
            cache_make_room(dbt);
            exclusive_end(dbt, dc);
            continue;
        }
        if (!block)
            return NULL;
        block = block_insert(dbt, block, src->code, ret);
        if (*ret)
            return NULL;
        if (!block)
            continue;
        trace_emit(BLOCK, block, (int)cpu->index, .gva = src->pc, .gpa = block->gpa,
                   .mode = block->mode, .insns = block->guest_insns, .guest_bytes = block->length,
                   .host_bytes = block->hot_bytes);
        return block;
    }
}

/* May @block be in a loop that only indirect jumps close? Then they do not lead far. All entries
 * that count would cost too much. */
static bool may_close_loop(const struct dbt_cpu *dc, const struct block *block, u64 pc)
{
    return dc->dbt->counters && dc->jumped_from &&
           dc->jumped_from - pc + MEM_PAGE_SIZE < 2 * MEM_PAGE_SIZE && !block->region &&
           !block->checked && !__atomic_load_n(&block->no_region, __ATOMIC_RELAXED) &&
           block->page2 == DBT_NO_PAGE;
}

/* Others can find from here on that an entry leads to @block. This CPU looks whether it is dead
 * after it has written that; who drops the block says so before it looks. */
static void publish_jump(struct dbt_cpu *dc, unsigned table, u32 index, u32 space,
                         struct block *block)
{
    struct host_jump *jump = &dc->jumps[table][index];

    __atomic_store_n(&jump->space, space, __ATOMIC_RELAXED);
    __atomic_store_n(&dc->jump_more[table][index].block, block, __ATOMIC_SEQ_CST);
    if (unlikely(atomic_load(&block->dead)))
        __atomic_store_n(&jump->space, 0, __ATOMIC_SEQ_CST);
}

/* Makes room at @index: what is there goes to the entry beside. */
static void move_jump(struct dbt_cpu *dc, unsigned table, u32 index)
{
    const struct host_jump *from = &dc->jumps[table][index];
    struct host_jump *to = &dc->jumps[table][index ^ 1];
    struct host_jump_more *more = &dc->jump_more[table][index ^ 1];
    struct block *block = dc->jump_more[table][index].block;
    u32 space = __atomic_load_n(&from->space, __ATOMIC_RELAXED);

    if (space != dc->cpu->space)
        return;
    to->gva = from->gva;
    to->mode = from->mode;
    to->code = from->code;
    to->base = from->base;
    more->code = dc->jump_more[table][index].code;
    more->left = dc->jump_more[table][index].left;
    more->generation = dc->jump_more[table][index].generation;
    publish_jump(dc, table, index ^ 1, space, block);
}

static bool jump_is_of(const struct dbt_cpu *dc, unsigned table, u32 index, u64 pc)
{
    const struct host_jump *jump = &dc->jumps[table][index];

    return jump->gva == pc && jump->mode == dc->cpu->mode &&
           __atomic_load_n(&jump->space, __ATOMIC_RELAXED) == dc->cpu->space;
}

/* The jump cache leads to @block from now on. */
static void fill_jump(struct dbt_cpu *dc, struct block *block)
{
    u64 pc = dc->cpu->ops->pc(dc->cpu);
    u32 index = host_jump_index(pc, DBT_JUMP_BITS);
    unsigned table = tlb_jumps(dc);
    struct host_jump_more *more;
    struct host_jump *jump;

    if (jump_is_of(dc, table, index ^ 1, pc))
        index ^= 1;
    else if (!jump_is_of(dc, table, index, pc))
        move_jump(dc, table, index);
    jump = &dc->jumps[table][index];
    more = &dc->jump_more[table][index];
    block_remember_jump(block, dc, table, index);
    jump->gva = pc;
    jump->mode = dc->cpu->mode;
    jump->code = block->code;
    jump->base = align_down(pc, MEM_PAGE_SIZE);
    more->generation = dc->dbt->generation;
    if (may_close_loop(dc, block, pc)) {
        more->code = block->code;
        more->left = dc->dbt->config.hot;
        jump->code = (void *)dc->dbt->abi.thunk_counted;
    }
    publish_jump(dc, table, index, dc->cpu->space, block);
}

/* What the jump cache knows of @pc in the current space; or, if @gpa is not 0, of code there that
 * some space has at @pc. */
static struct block *known_jump(const struct dbt_cpu *dc, u64 pc, u64 gpa)
{
    u32 index = host_jump_index(pc, DBT_JUMP_BITS);
    unsigned table = tlb_jumps(dc);

    for (u32 i = 0; i < 2; i++, index ^= 1) {
        const struct host_jump_more *more = &dc->jump_more[table][index];
        struct block *block = more->block;

        if (!block ||
            more->generation != dc->dbt->generation || /* else it may be no block any more */
            atomic_load_explicit(&block->dead, memory_order_relaxed))
            continue;
        if (gpa ? block->gpa == gpa && block->mode == dc->cpu->mode && block->page2 == DBT_NO_PAGE
                : jump_is_of(dc, table, index, pc))
            return block;
    }
    return NULL;
}

static struct block *lookup(struct guest_cpu *cpu, u32 *exit_code)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u64 pc = cpu->ops->pc(cpu);
    struct block *block = known_jump(dc, pc, 0);
    struct source src;
    int ret;

    if (block)
        return block;
    dc->lookups++;
    ret = find_source(cpu, &src);
    if (ret) {
        *exit_code = DBT_EXIT_FETCH;
        return NULL;
    }
    block = known_jump(dc, pc, src.gpa);
    if (!block)
        block = block_find(dc->dbt, src.gpa, cpu->mode, DBT_NO_PAGE);
    if (!block && src.avail < DBT_INSN_BYTES) {
        /* Known blocks that go on in the next page: found by that page's address too, but only if
         * there are any, because asking may fault where the instruction does not. */
        block = block_find_two_pages(dc->dbt, src.gpa, cpu->mode);
        if (block && block->page2 != fetch_gpa(cpu, pc + src.avail))
            block = block_find(dc->dbt, src.gpa, cpu->mode, fetch_gpa(cpu, pc + src.avail));
    }
    if (!block)
        block = translate(cpu, &src, &ret);
    if (!block) {
        *exit_code = ret == -EFAULT ? DBT_EXIT_FETCH : DBT_EXIT_NOMEM;
        return NULL;
    }
    fill_jump(dc, block); /* the fetch may have found that code is not shared */
    tlb_note_code(dc, pc);
    return block;
}

struct block *translate_lookup(struct guest_cpu *cpu, u32 *exit_code)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct block *block;

    atomic_store_explicit(&dc->translating, true, memory_order_relaxed);
    block = lookup(cpu, exit_code);
    atomic_store_explicit(&dc->translating, false, memory_order_relaxed);
    return block;
}

/* For a fault in the step area. */
static void note_step(struct dbt_cpu *dc, const struct source *src, u32 length,
                      const struct host_code *code)
{
    dc->step_code = *code;
    dc->step_block.gpa = src->gpa;
    dc->step_block.page2 = src->page2;
    dc->step_block.length = length;
}

static u32 step(struct guest_cpu *cpu, struct ir_unit *unit)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct dbt *dbt = dc->dbt;
    struct host_code code = {0};
    struct source src;
    u32 length;
    int ret;

    ret = find_source(cpu, &src);
    if (!ret)
        ret = copy_source(cpu, &src, 1);
    if (ret)
        return DBT_EXIT_FETCH;
    arena_reset(&dc->arena);
    src.page2 = DBT_NO_PAGE;
    ret = lift_block(cpu, unit, &dc->arena, &src, 1, &length);
    if (ret)
        return ret == -EFAULT ? DBT_EXIT_FETCH : DBT_EXIT_NOMEM;
    if (!dbt->config.jit)
        return 0;
    ret = host_compile(unit, &dbt->abi, dc->step_rw, dc->step_exec, DBT_MAX_BLOCK_CODE, &code);
    if (!ret)
        translate_dump_host(dbt, src.pc, dc->step_rw, dc->step_exec, &code);
    note_step(dc, &src, length, &code);
    return ret ? DBT_EXIT_NOMEM : 0;
}

u32 translate_step(struct guest_cpu *cpu, struct ir_unit *unit)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    u32 exit_code;

    atomic_store_explicit(&dc->translating, true, memory_order_relaxed);
    exit_code = step(cpu, unit);
    atomic_store_explicit(&dc->translating, false, memory_order_relaxed);
    return exit_code;
}

/* A region from @block on, where the CPU is about to go on; NULL if there is none, or not yet. */
static struct block *form_region(struct guest_cpu *cpu, struct block *block)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct block *region;
    bool later = false;

    if (dc->watching) {
        /* A loop without such jumps, which has become hot meanwhile, is not to wait for long. */
        dc->watching /= 2;
        if (!dc->watching)
            tlb_choose_jumps(dc);
        return NULL;
    }
    atomic_store_explicit(&dc->translating, true, memory_order_relaxed);
    region = region_translate(cpu, block, &later);
    atomic_store_explicit(&dc->translating, false, memory_order_relaxed);
    if (!region && !later)
        __atomic_store_n(&block->no_region, true, __ATOMIC_RELAXED);
    return region;
}

static bool may_begin_region(const struct block *block)
{
    return !block->region && !block->checked && block->page2 == DBT_NO_PAGE &&
           !__atomic_load_n(&block->no_region, __ATOMIC_RELAXED);
}

/* The jump cache's entry that leads to @block has counted to its end. */
static struct block *counted(struct guest_cpu *cpu, struct block *block)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct block *region = NULL;

    if (may_begin_region(block) && !dc->watching) {
        if (indirect_leads_to(dc, block))
            region = form_region(cpu, block);
        else if (!__atomic_load_n(&block->watched, __ATOMIC_RELAXED))
            indirect_watch(dc, block);
        else
            __atomic_store_n(&block->no_region, true, __ATOMIC_RELAXED);
    }
    if (region)
        return region;
    dc->jumped_from = cpu->ops->pc(cpu); /* counts again, if there may be a region later */
    fill_jump(dc, block);
    return block;
}

/* A direct jump, not chained, leads to @block; or to the region that it becomes. NULL: look
 * again. */
static struct block *reached(struct guest_cpu *cpu, u64 link, struct block *block)
{
    struct dbt *dbt = dbt_cpu(cpu)->dbt;
    struct block *region;

    if (!(block->checked || may_begin_region(block)) || !block_jump_is_hot(dbt, link))
        return block;
    if (block->checked) {
        if (page_settle(dbt, block))
            return NULL; /* to the run loop, which makes it anew */
    } else {
        region = form_region(cpu, block);
        if (region || !may_begin_region(block))
            return region ? region : block;
    }
    block_jump_again(dbt, link);
    return block;
}

static void *missed(struct guest_cpu *cpu, u64 link)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct dbt *dbt = dc->dbt;
    u64 generation = dbt->generation;
    struct block *block;
    u32 exit_code;

    block = translate_lookup(cpu, &exit_code);
    if (!block)
        return NULL; /* the run loop asks again and gets the same answer */
    if (link == HOST_LINK_COUNTED)
        return counted(cpu, block)->code;
    if (!link && dc->watching)
        indirect_note(dc, dc->jumped_from, block);
    /* A block of two pages cannot be chained to where the second may be mapped anew: each time
     * here. And when old code went, the jump may have been in it. */
    if (!link || (block->page2 != DBT_NO_PAGE && !dbt->config.direct) ||
        dbt->generation != generation)
        return block->code;
    block = reached(cpu, link, block);
    if (!block)
        return NULL;
    block_chain(dbt, link, block);
    return block->code;
}

/* Called by translated code: a jump was not chained, or the jump cache did not know. */
void *translate_missed(void *state, u64 link, u64 from)
{
    struct guest_cpu *cpu = state;
    struct dbt_cpu *dc = dbt_cpu(cpu);
    void *code;

    if (!link && cpu->ops->jumped)
        cpu->ops->jumped(cpu, from);
    if (cpu->insn_limit || dc->smc_step || __atomic_load_n(&cpu->request, __ATOMIC_RELAXED))
        return NULL;
    dc->jumped_from = link ? 0 : from;
    code = missed(cpu, link);
    dc->jumped_from = 0;
    return code;
}
