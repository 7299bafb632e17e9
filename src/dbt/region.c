/*
 * The hot tier: when a jump back has been taken often enough, the loop that it closes is compiled
 * again, as one unit. It is made of the blocks that are known by now, which are those that were run,
 * and lies in one page, or in direct mode in two: there alone is it certain where a jump leads.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "dbt/internal.h"
#include "trace/trace.h"

#define MAX_REGION_INSNS 250
#define MAX_DISTANCE ((s64)1 << 30) /* of the second page: offsets fit 32 bits */

struct former {
    struct guest_cpu *cpu;
    struct dbt *dbt;
    u64 base;  /* gpa of the page that the region begins in */
    s64 page2; /* offset of a second page from it, 0 for none */
    struct opt_part parts[OPT_MAX_PARTS];
    struct piece {
        u64 gpa;
        u8 *code; /* a copy: what is lifted cannot change */
        u32 length;
    } pieces[OPT_MAX_PARTS]; /* beside parts */
    u32 nparts, insns;
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
    if (f->nparts == OPT_MAX_PARTS)
        return;
    block = block_find(f->dbt, f->base + (u64)to, f->cpu->mode, DBT_NO_PAGE);
    if (block && !block->region && !block->checked && within(f, to))
        add_part(f, to);
}

/* All blocks that can be reached from the first one by jumps that are certain, nearest first. */
static void find_parts(struct former *f, s64 first)
{
    add_part(f, first);
    for (u32 i = 0; i < f->nparts; i++) {
        const struct ir_unit *unit = &f->parts[i].unit;
        s64 page = f->parts[i].offset & -(s64)MEM_PAGE_SIZE;

        for (ir_ref ref = 1; ref < unit->ninsts; ref++) {
            const struct ir_inst *inst = ir_inst(unit, ref);

            if (inst->op == IR_goto || inst->op == IR_goto_if)
                follow(f, page + (s64)inst->imm);
        }
    }
}

static bool unchanged(void *opaque)
{
    struct former *f = opaque;

    for (u32 i = 0; i < f->nparts; i++) {
        u8 now[DBT_MAX_INSNS * DBT_INSN_BYTES];

        if (f->parts[i].used && (!read_guest(f, f->pieces[i].gpa, now, f->pieces[i].length) ||
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

        if (!f->parts[i].used)
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
    block = f->nparts ? compile(f, pc, later) : NULL;
    if (!block || !block_replace(dc->dbt, head, block, unchanged, f))
        return NULL;
    trace_emit(BLOCK, block, (int)cpu->index, .gva = pc, .gpa = block->gpa, .mode = block->mode,
               .insns = block->guest_insns, .guest_bytes = block->length,
               .host_bytes = block->hot_bytes);
    return block;
}
