/*
 * The hot tier: when a jump back has been taken often enough, the loop that it closes is compiled
 * again, as one unit. It is made of the blocks that are known by now, which are those that were
 * run, and lies in one page, or in direct mode in two: there alone is it certain where a jump
 * leads.
 *
 * An indirect jump (goto_ind) stays inside when it leads where it was seen to lead (indirect.c):
 * its address is compared with each of these places. Where several of them lead to the same places,
 * as in an interpreter, that is done in one place for all of them, a part without guest code.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dbt/internal.h"
#include "trace/trace.h"

#define MAX_REGION_INSNS 250
#define MAX_DISPATCHES 4
#define FEW_TARGETS 2 /* are compared with where the jump is */
#define DISPATCH_OFFSET (-((s64)1 << 40))
#define NO_DISPATCH ~0u
#define MAX_DISTANCE ((s64)1 << 30) /* of the second page: offsets fit 32 bits */

struct former {
    struct guest_cpu *cpu;
    struct dbt *dbt;
    u64 base;                             /* gpa of the page that the region begins in */
    s64 page2;                            /* offset of a second page from it, 0 for none */
    struct opt_part parts[OPT_MAX_PARTS]; /* with room at the end for dispatches */
    struct piece {
        u64 gpa;
        u8 *code; /* a copy: what is lifted cannot change */
        u32 length;
    } pieces[OPT_MAX_PARTS]; /* beside parts */
    struct jump {
        s64 to[INDIRECT_TARGETS];
        u32 n;
        u32 dispatch;       /* which, or NO_DISPATCH */
    } jumps[OPT_MAX_PARTS]; /* beside parts: the goto_ind at their end */
    struct dispatch {
        s64 to[2 * INDIRECT_TARGETS];
        u32 n, jumps;
    } dispatches[MAX_DISPATCHES];
    u32 nparts, insns, ndispatches;
    bool unknown; /* it was not noted where some jump leads */
};

static bool read_guest(const struct former *f, u64 gpa, u8 *bytes, u32 len)
{
    const u8 *hva;

    if (f->dbt->config.direct)
        return !direct_read(f->dbt, gpa, bytes, len);
    hva = mem_hva(f->dbt->config.mem, gpa, len, false);
    if (hva)
        memcpy(bytes, hva, len);
    return hva;
}

/* The block at @offset becomes a part. Failing that costs no more than the part. */
static void add_part(struct former *f, s64 offset)
{
    struct dbt_cpu *dc = dbt_cpu(f->cpu);
    const struct guest_ops *ops = f->cpu->ops;
    struct opt_part *part = &f->parts[f->nparts];
    struct piece *piece = &f->pieces[f->nparts];
    u64 gpa = f->base + (u64)offset;
    u32 avail = (u32)(MEM_PAGE_SIZE - (gpa & (MEM_PAGE_SIZE - 1)));
    struct guest_lift lift = {.unit = &part->unit,
                              .pc = align_down(ops->pc(f->cpu), MEM_PAGE_SIZE) + (u64)offset,
                              .mode = f->cpu->mode,
                              .polls = true,
                              .fma = dc->dbt->abi.features & HOST_FEATURE_FMA,
                              .max_insns = DBT_MAX_INSNS};

    if (avail > DBT_MAX_INSNS * DBT_INSN_BYTES)
        avail = DBT_MAX_INSNS * DBT_INSN_BYTES;
    piece->code = arena_alloc(&dc->arena, avail);
    if (!piece->code || !read_guest(f, gpa, piece->code, avail))
        return;
    lift.code = piece->code;
    lift.avail = avail;
    ir_init(&part->unit, &dc->arena, ops->helpers, ops->nhelpers, ops->pc_slot);
    if (ops->lift(&lift) || part->unit.failed ||
        f->insns + part->unit.guest_insns > MAX_REGION_INSNS)
        return;
    piece->gpa = gpa;
    piece->length = lift.length;
    part->offset = offset;
    f->insns += part->unit.guest_insns;
    f->nparts++;
}

static bool within(struct former *f, s64 to)
{
    s64 page = to & -(s64)MEM_PAGE_SIZE;

    if (!page || page == f->page2)
        return true;
    if (!f->dbt->config.direct || f->page2 || page >= MAX_DISTANCE || page <= -MAX_DISTANCE)
        return false;
    f->page2 = page;
    return true;
}

static void follow(struct former *f, s64 to)
{
    const struct block *block;

    for (u32 i = 0; i < f->nparts; i++) {
        if (f->parts[i].offset == to)
            return;
    }
    if (f->nparts == OPT_MAX_PARTS - MAX_DISPATCHES)
        return;
    block = block_find(f->dbt, f->base + (u64)to, f->cpu->mode, DBT_NO_PAGE);
    if (block && !block->region && !block->checked && within(f, to))
        add_part(f, to);
}

static s64 page_of(const struct former *f, u32 p)
{
    return f->parts[p].offset & -(s64)MEM_PAGE_SIZE;
}

/* The instruction that ends @unit with a goto_ind, by its offset: one that changes neither mode nor
 * mapping. An address that is known beforehand is not a jump's but has code looked up anew, as
 * behind an instruction that orders fetches. */
static bool ends_with_jump(const struct ir_unit *unit, u32 *insn)
{
    ir_ref ref = unit->ninsts - 1;

    if (unit->nblocks != 1 || ir_inst(unit, ref)->op != IR_goto_ind ||
        ir_inst(unit, ir_inst(unit, ref)->a)->op == IR_base)
        return false;
    while (--ref) {
        const struct ir_inst *inst = ir_inst(unit, ref);

        if (inst->op == IR_call && !(unit->helpers[inst->imm].flags & IR_HELPER_PURE))
            return false;
        if (inst->op == IR_insn) {
            *insn = (u32)inst->imm;
            return true;
        }
    }
    return false;
}

static void follow_jump(struct former *f, u32 p)
{
    struct jump *jump = &f->jumps[p];
    struct jump_note notes[INDIRECT_TARGETS];
    u32 insn, n;

    if (!ends_with_jump(&f->parts[p].unit, &insn))
        return;
    n = indirect_targets(dbt_cpu(f->cpu), f->base + (u64)page_of(f, p) + insn, notes);
    f->unknown |= !n;
    for (u32 i = 0; i < n; i++) {
        jump->to[i] = (s64)(notes[i].to - f->base);
        follow(f, jump->to[i]);
    }
    jump->n = n;
}

/* All blocks that can be reached from the first one by jumps that are certain, or were seen,
 * nearest first. */
static void find_parts(struct former *f, s64 first)
{
    add_part(f, first);
    for (u32 i = 0; i < f->nparts; i++) {
        const struct ir_unit *unit = &f->parts[i].unit;

        for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
            const struct ir_inst *inst = ir_inst(unit, ref);

            if (inst->op == IR_goto || inst->op == IR_goto_if)
                follow(f, page_of(f, i) + (s64)inst->imm);
        }
        follow_jump(f, i);
    }
}

/* --- indirect jumps ----------------------------------------------------------------------- */

static bool is_part(const struct former *f, s64 offset)
{
    for (u32 i = 0; i < f->nparts; i++) {
        if (f->parts[i].offset == offset)
            return true;
    }
    return false;
}

static bool leads_to(const s64 *to, u32 n, s64 offset)
{
    for (u32 i = 0; i < n; i++) {
        if (to[i] == offset)
            return true;
    }
    return false;
}

/* The dispatch for @jump: one that has a destination of its, or a new one; NO_DISPATCH if these are
 * few, or it would be one too many. */
static u32 dispatch_for(struct former *f, const struct jump *jump)
{
    if (jump->n <= FEW_TARGETS)
        return NO_DISPATCH;
    for (u32 d = 0; d < f->ndispatches; d++) {
        for (u32 i = 0; i < jump->n; i++) {
            if (leads_to(f->dispatches[d].to, f->dispatches[d].n, jump->to[i]))
                return d;
        }
    }
    return f->ndispatches < MAX_DISPATCHES ? f->ndispatches++ : NO_DISPATCH;
}

static void join_dispatch(struct former *f, struct jump *jump)
{
    struct dispatch *dispatch;

    jump->dispatch = dispatch_for(f, jump);
    if (jump->dispatch == NO_DISPATCH)
        return;
    dispatch = &f->dispatches[jump->dispatch];
    dispatch->jumps++;
    for (u32 i = 0; i < jump->n; i++) {
        if (dispatch->n < ARRAY_SIZE(dispatch->to) &&
            !leads_to(dispatch->to, dispatch->n, jump->to[i]))
            dispatch->to[dispatch->n++] = jump->to[i];
    }
}

/* goto @to if @offset, from the region's base, is that. @page: from there to the base of @unit. */
static void emit_target(struct ir_unit *unit, ir_ref offset, s64 page, s64 to)
{
    ir_goto_if(unit, ir_eq(unit, offset, ir_const(unit, IR_I64, (u64)to)), to - page);
}

/* How far @address is from the region's base. */
static ir_ref emit_offset(struct ir_unit *unit, ir_ref address, s64 page)
{
    ir_ref offset = ir_sub(unit, address, ir_base(unit));

    return page ? ir_add(unit, offset, ir_const(unit, IR_I64, (u64)page)) : offset;
}

/* To the dispatch, if the address is in the region's pages. One that is impossible is noticed by
 * the goto_ind behind, where it is known which instruction jumped. */
static void emit_to_dispatch(struct former *f, struct ir_unit *unit, ir_ref offset, s64 to)
{
    s64 first = f->page2 < 0 ? f->page2 : 0, last = f->page2 > 0 ? f->page2 : 0;

    if (first)
        offset = ir_sub(unit, offset, ir_const(unit, IR_I64, (u64)first));
    ir_goto_if(unit,
               ir_ult(unit, offset, ir_const(unit, IR_I64, (u64)(last - first) + MEM_PAGE_SIZE)),
               to);
}

/* The jump at the end of part @p becomes jumps inside of the region, and one that leaves it. */
static void resolve_jump(struct former *f, u32 p)
{
    const struct jump *jump = &f->jumps[p];
    struct ir_unit *unit = &f->parts[p].unit;
    ir_ref address = ir_inst(unit, unit->ninsts - 1)->a, offset;
    s64 page = page_of(f, p);

    unit->ninsts--;
    unit->blocks[0].count--;
    offset = emit_offset(unit, address, page);
    if (jump->dispatch != NO_DISPATCH && f->dispatches[jump->dispatch].jumps > 1) {
        ir_put(unit, unit->pc_slot, address);
        emit_to_dispatch(f, unit, offset, DISPATCH_OFFSET - (s64)jump->dispatch - page);
    } else {
        for (u32 i = 0; i < jump->n; i++)
            emit_target(unit, offset, page, jump->to[i]);
    }
    ir_goto_ind(unit, address);
}

static void add_dispatch(struct former *f, u32 d)
{
    struct opt_part *part = &f->parts[f->nparts];
    const struct guest_ops *ops = f->cpu->ops;
    ir_ref address, offset;

    ir_init(&part->unit, &dbt_cpu(f->cpu)->arena, ops->helpers, ops->nhelpers, ops->pc_slot);
    address = ir_get(&part->unit, IR_I64, ops->pc_slot);
    offset = emit_offset(&part->unit, address, 0);
    for (u32 i = 0; i < f->dispatches[d].n; i++)
        emit_target(&part->unit, offset, 0, f->dispatches[d].to[i]);
    ir_goto_ind(&part->unit, address);
    part->offset = DISPATCH_OFFSET - (s64)d;
    part->dispatch = true;
    f->nparts++;
}

static void resolve_jumps(struct former *f)
{
    u32 nparts = f->nparts;

    for (u32 p = 0; p < nparts; p++) {
        struct jump *jump = &f->jumps[p];
        u32 n = 0;

        for (u32 i = 0; i < jump->n; i++) {
            if (is_part(f, jump->to[i]))
                jump->to[n++] = jump->to[i];
        }
        jump->n = n;
        join_dispatch(f, jump);
    }
    for (u32 p = 0; p < nparts; p++) {
        if (f->jumps[p].n)
            resolve_jump(f, p);
    }
    for (u32 d = 0; d < f->ndispatches; d++) {
        if (f->dispatches[d].jumps > 1)
            add_dispatch(f, d);
    }
}

/* --- the region --------------------------------------------------------------------------- */

static bool unchanged(void *opaque)
{
    struct former *f = opaque;

    for (u32 i = 0; i < f->nparts; i++) {
        u8 now[DBT_MAX_INSNS * DBT_INSN_BYTES];

        if (f->parts[i].used && !f->parts[i].dispatch &&
            (!read_guest(f, f->pieces[i].gpa, now, f->pieces[i].length) ||
             memcmp(now, f->pieces[i].code, f->pieces[i].length)))
            return false;
    }
    return true;
}

static void describe(const struct former *f, struct block *block)
{
    block->mode = f->cpu->mode;
    block->gpa = f->pieces[0].gpa;
    block->page2 = DBT_NO_PAGE;
    block->region = true;
    for (u32 i = 0; i < f->nparts; i++) {
        bool second = align_down(f->pieces[i].gpa, MEM_PAGE_SIZE) != f->base;

        if (!f->parts[i].used || f->parts[i].dispatch)
            continue;
        if (second)
            block->page2 = align_down(f->pieces[i].gpa, MEM_PAGE_SIZE);
        block->granules[second] |= page_granules(f->pieces[i].gpa, f->pieces[i].length);
        block->length += f->pieces[i].length;
        block->guest_insns += f->parts[i].unit.guest_insns;
    }
}

static struct block *compile(struct former *f, u64 pc, bool *later)
{
    struct dbt_cpu *dc = dbt_cpu(f->cpu);
    struct cache_room room;
    struct host_code code;
    struct ir_unit unit;
    struct block *block;

    if (opt_region(&unit, &dc->arena, f->parts, f->nparts))
        return NULL;
    translate_dump_unit(f->dbt, pc, DBT_DUMP_LIFT, "region", &unit);
    if (opt_run(&unit, OPT_FULL))
        return NULL;
    translate_dump_unit(f->dbt, pc, DBT_DUMP_OPT, "region, optimised", &unit);
    if (cache_reserve(dc, &room)) {
        *later = true;
        return NULL;
    }
    if (host_compile(&unit, &room.abi, room.rw, room.exec, DBT_MAX_BLOCK_CODE, &code))
        return NULL;
    translate_dump_host(f->dbt, pc, room.rw, room.exec, &code);
    block = cache_keep(dc, &room, &code);
    describe(f, block);
    return block;
}

struct block *region_translate(struct guest_cpu *cpu, struct block *head, bool *later)
{
    struct dbt_cpu *dc = dbt_cpu(cpu);
    struct former *f;
    struct block *block;
    u64 pc = cpu->ops->pc(cpu);

    if (head->page2 != DBT_NO_PAGE)
        return NULL;
    arena_reset(&dc->arena);
    f = arena_alloc(&dc->arena, sizeof(*f));
    if (!f)
        return NULL;
    f->cpu = cpu;
    f->dbt = dc->dbt;
    f->base = align_down(head->gpa, MEM_PAGE_SIZE);
    find_parts(f, (s64)(head->gpa - f->base));
    if (f->unknown && !__atomic_load_n(&head->watched, __ATOMIC_RELAXED)) {
        *later = true;
        indirect_watch(dc, head);
        return NULL;
    }
    resolve_jumps(f);
    block = f->nparts ? compile(f, pc, later) : NULL;
    if (!block || !block_replace(dc->dbt, head, block, unchanged, f))
        return NULL;
    trace_emit(BLOCK, block, (int)cpu->index, .gva = pc, .gpa = block->gpa, .mode = block->mode,
               .insns = block->guest_insns, .guest_bytes = block->length,
               .host_bytes = block->hot_bytes);
    return block;
}
