/*
 * Site records: what the slow path of a trapping instruction must know, put behind the code; and
 * the stubs, code that runs seldom, between the two.
 */
#include "host/x64/lower.h"

#define STUB_ROOM 96
#define STORE_ROOM 24

/* --- locations ---------------------------------------------------------------------------- */

bool site_locate(struct lowering *l, ir_ref ref, unsigned bytes, u8 *kind, s32 *where)
{
    struct operand o = operand_at(l, ref, false);
    bool xmm = is_xmm_type(ir_typeof(l->unit, ref));

    switch (o.kind) {
    case IN_REG:
        *kind = xmm ? HOST_LOC_VECTOR : HOST_LOC_REG;
        *where = o.reg;
        return true;
    case IN_MEM:
        *kind = o.mem.base == RSP ? HOST_LOC_SPILL : HOST_LOC_STATE;
        *where = o.mem.base == RSP ? o.mem.disp / 16 : o.mem.disp;
        return true;
    case IN_BASE:
        *kind = HOST_LOC_BASE;
        *where = (s32)o.imm;
        return true;
    default:
        if (bytes == 8 && !x64_fits_s32(o.imm))
            return false;
        *kind = HOST_LOC_CONST;
        *where = (s32)o.imm;
        return true;
    }
}

void site_locate_result(struct lowering *l, ir_ref ref, u8 *kind, s32 *where)
{
    const struct value *v = &l->values[ref];

    if (v->spill != NO_GRANULE) {
        *kind = HOST_LOC_SPILL;
        *where = v->spill;
    } else if (v->flags & VALUE_XMM) {
        *kind = HOST_LOC_VECTOR;
        *where = v->reg != NO_LOC ? v->reg & 15 : XMM15;
    } else {
        *kind = HOST_LOC_REG;
        *where = v->reg != NO_LOC ? v->reg : RAX;
    }
}

/* --- dputs -------------------------------------------------------------------------------- */

void dput_track(struct lowering *l, ir_ref ref)
{
    u32 kept = 0;

    if (l->ndputs == MAX_ACTIVE_DPUTS) {
        for (u32 i = 0; i < l->ndputs; i++) {
            if (l->dputs[i].end >= ref)
                l->dputs[kept++] = l->dputs[i];
        }
        l->ndputs = kept; /* plan.c keeps no more than that alive */
    }
    l->dputs[l->ndputs++] = (struct active_dput){ref, l->values[ref].end};
}

/* Writes the puts in effect at l->pos; answers their number of entries. */
static unsigned put_entries(struct lowering *l, struct host_put *puts)
{
    unsigned n = 0;
    u32 kept = 0;

    for (u32 i = 0; i < l->ndputs; i++) {
        const struct ir_inst *dput = ir_inst(l->unit, l->dputs[i].ref);
        unsigned type = ir_typeof(l->unit, dput->a);
        struct host_put *put = &puts[n];

        if (l->dputs[i].end < l->pos)
            continue;
        l->dputs[kept++] = l->dputs[i];
        put->slot = (u16)dput->imm;
        put->type = (u8)type;
        n++;
        if (!site_locate(l, dput->a, type_bytes(type), &put->kind, &put->where)) {
            u64 imm = operand_at(l, dput->a, false).imm;

            put->kind = HOST_LOC_CONST;
            put->where = (s32)imm;
            puts[n++] = (struct host_put){.slot = 0xffff, .where = (s32)(imm >> 32)};
        }
    }
    l->ndputs = kept;
    return n;
}

/* --- records ------------------------------------------------------------------------------ */

static bool grow_sites(struct lowering *l, u32 bytes)
{
    u32 cap = l->sites_cap ? l->sites_cap * 2 : 4096;
    u8 *sites;

    if (l->sites_bytes + bytes <= l->sites_cap)
        return true;
    sites = arena_alloc_dirty(l->unit->arena, cap);
    if (!sites)
        return false;
    if (l->sites)
        memcpy(sites, l->sites, l->sites_bytes);
    l->sites = sites;
    l->sites_cap = cap;
    return true;
}

u32 site_begin(struct lowering *l)
{
    const struct ir_inst *inst = ir_inst(l->unit, l->pos);
    u32 most = sizeof(struct host_site) + 2 * MAX_ACTIVE_DPUTS * sizeof(struct host_put), site;
    struct host_site *s;

    if (!grow_sites(l, most)) {
        lower_fail(l, -ENOMEM);
        l->sites_bytes = 0; /* the unit is lost: write over what there is */
        if (!l->sites)
            return 0;
    }
    site = l->sites_bytes;
    s = site_at(l, site);
    memset(s, 0, sizeof(*s));
    s->op = (u8)inst->op;
    s->nputs = (u16)put_entries(l, s->puts);
    l->sites_bytes += (u32)(sizeof(*s) + s->nputs * sizeof(s->puts[0]));
    return site;
}

/* --- stubs -------------------------------------------------------------------------------- */

struct stub *stub_new(struct lowering *l, enum stub_kind kind, u8 *place)
{
    if (l->nstubs == l->stubs_cap) {
        u32 cap = l->stubs_cap ? l->stubs_cap * 2 : 32;
        struct stub *stubs = arena_alloc_dirty(l->unit->arena, cap * sizeof(*stubs));

        if (!stubs) {
            lower_fail(l, -ENOMEM);
            l->spare_stub = (struct stub){0};
            return &l->spare_stub;
        }
        if (l->nstubs)
            memcpy(stubs, l->stubs, l->nstubs * sizeof(*stubs));
        l->stubs = stubs;
        l->stubs_cap = cap;
    }
    l->stubs[l->nstubs] =
        (struct stub){.kind = (u8)kind, .place = place, .insn_offset = l->insn_offset};
    return &l->stubs[l->nstubs++];
}

/* call thunk_site, then the distance from here to the record, known later. */
static void emit_site_stub(struct lowering *l, struct stub *stub)
{
    static const u8 regs[] = {RDX, RAX};

    if (stub->ways) {
        x64_call(&l->code, stub->ways);
        x64_jcc(&l->code, CC_E, l->code.exec + (u64)(stub->hit - l->code.start));
    }
    for (unsigned i = 0; i < stub->nconstants && i < ARRAY_SIZE(regs); i++)
        x64_mov_ri(&l->code, regs[i], stub->constant[i]);
    x64_call(&l->code, l->vectors ? l->abi->thunk_site : l->abi->thunk_site_general);
    stub->place = l->code.p;
    x64_u32(&l->code, 0);
}

static void emit_unlinked_stub(struct lowering *l, const struct stub *stub)
{
    struct host_link *link = &l->out->links[stub->link];
    struct x64 *c = &l->code;

    link->unlinked = (u32)(c->p - c->start);
    leave_address(l, stub->offset);
    /* lea of the patch field, for the run time to find the link by */
    x64_lea(c, 8, RDX, x64_at(X64_RIP, (s32)link->patch - ((s32)(c->p - c->start) + 7)));
    x64_jmp(c, l->abi->thunk_goto);
    if (!link->counter)
        return;
    link->counting = (u32)(c->p - c->start);
    x64_mov_ri(c, RAX, (u64)link->counter);
    x64_alu_mi(c, ALU_SUB, 4, x64_at(RAX, 0), 1);
    x64_jcc(c, CC_S, c->exec + link->unlinked);
    align_displacement(l, 1);
    link->onward = (u32)(x64_jmp_later(c) - c->start);
}

static void emit_leave_stub(struct lowering *l, const struct stub *stub)
{
    for (u32 i = 0; i < stub->ndputs; i++) {
        const struct ir_inst *dput = ir_inst(l->unit, stub->dputs[i]);

        store_operand(l, dput->a, ir_typeof(l->unit, dput->a), slot_mem(dput->imm));
    }
    l->backward = stub->backward;
    leave_to(l, stub->offset);
}

static void emit_missed_stub(struct lowering *l, const struct stub *stub)
{
    if (stub->reg != RAX)
        x64_mov_rr(&l->code, 8, RAX, stub->reg);
    x64_mov_ri(&l->code, RDX, (u64)stub->insn_offset);
    x64_jmp(&l->code, l->abi->thunk_miss);
}

void emit_stubs(struct lowering *l)
{
    /* A LEAVE stub may make UNLINKED stubs, so the list can grow on the way. */
    for (u32 i = 0; i < l->nstubs; i++) {
        struct stub copy = l->stubs[i], *stub = &l->stubs[i];

        if (!room(l, 2 * STUB_ROOM + copy.ndputs * STORE_ROOM))
            return;

        l->insn_offset = stub->insn_offset;
        x64_land(&l->code, stub->place);
        switch (stub->kind) {
        case STUB_SITE:
            emit_site_stub(l, stub);
            break;
        case STUB_UNLINKED:
            emit_unlinked_stub(l, stub);
            break;
        case STUB_LEAVE:
            emit_leave_stub(l, &copy);
            break;
        case STUB_MISSED:
            emit_missed_stub(l, stub);
            break;
        }
    }
}

void emit_sites(struct lowering *l)
{
    struct x64 *c = &l->code;
    size_t code_bytes = (size_t)(c->p - c->start), at = (code_bytes + 7) & ~(size_t)7;

    if (!room(l, at - code_bytes + l->sites_bytes))
        return;
    memset(c->p, 0xcc, at - code_bytes);
    for (u32 offset = 0; offset < l->sites_bytes;) {
        struct host_site *s = site_at(l, offset);

        if (s->resume) /* was an offset in the code */
            s->resume -= (s32)(at + offset);
        offset += (u32)(sizeof(*s) + s->nputs * sizeof(s->puts[0]));
    }
    if (l->sites)
        memcpy(c->start + at, l->sites, l->sites_bytes);
    for (u32 i = 0; i < l->nstubs; i++) {
        const struct stub *stub = &l->stubs[i];

        if (stub->kind == STUB_SITE) {
            u32 rel = (u32)(at + stub->site - (size_t)(stub->place - c->start));
            memcpy(stub->place, &rel, 4);
        }
    }
    c->p = c->start + at + l->sites_bytes;
    l->out->code_bytes = code_bytes;
    l->out->total_bytes = (size_t)(c->p - c->start);
}

/* --- what the run time asks of records ---------------------------------------------------- */

u64 host_read_location(const struct host_frame *frame, u8 kind, s32 where)
{
    switch (kind) {
    case HOST_LOC_REG:
        return frame->saved[where];
    case HOST_LOC_VECTOR:
        return frame->vector[where][0];
    case HOST_LOC_SPILL:
        return frame->spill[where * 2];
    case HOST_LOC_STATE:
        return *(const u64 *)(frame->saved[STATE_REG] + (u64)(s64)where);
    case HOST_LOC_BASE:
        return frame->saved[BASE_REG] + (u64)(s64)where;
    default:
        return (u64)(s64)where;
    }
}

void host_read_operand(const struct host_frame *frame, u8 kind, s32 where, u64 value[2])
{
    value[0] = host_read_location(frame, kind, where);
    value[1] = kind == HOST_LOC_VECTOR  ? frame->vector[where][1]
               : kind == HOST_LOC_SPILL ? frame->spill[where * 2 + 1]
                                        : 0;
}

void host_write_result(struct host_frame *frame, const struct host_site *site, const u64 value[2])
{
    s32 where = site->result;

    switch (site->result_kind) {
    case HOST_LOC_REG:
        frame->saved[where] = value[0];
        break;
    case HOST_LOC_VECTOR:
        frame->vector[where][0] = value[0];
        frame->vector[where][1] = value[1];
        break;
    default:
        frame->spill[where * 2] = value[0];
        frame->spill[where * 2 + 1] = value[1];
    }
}

static void restore_vector(void *slot, const struct host_frame *frame, const struct host_put *put)
{
    u64 value[2];

    host_read_operand(frame, put->kind, put->where, value);
    memcpy(slot, value, sizeof(value));
}

/* Slow accesses restore every time, so this is a hot path: most puts are general registers. */
void host_restore(void *state, const struct host_frame *frame, const struct host_site *site)
{
    for (const struct host_put *put = site->puts, *end = put + site->nputs; put < end; put++) {
        void *slot = (u8 *)state + put->slot;
        u64 value = host_read_location(frame, put->kind, put->where);

        if (put->kind == HOST_LOC_CONST && put + 1 < end && put[1].slot == 0xffff) {
            value = (u32)put->where | (u64)(u32)put[1].where << 32;
            memcpy(slot, &value, 8);
            put++;
            continue;
        }
        switch (put->type) {
        case IR_I64:
        case IR_F64:
            memcpy(slot, &value, 8);
            break;
        case IR_I32:
        case IR_F32:
            memcpy(slot, &value, 4);
            break;
        case IR_I16:
            memcpy(slot, &value, 2);
            break;
        case IR_V128:
            restore_vector(slot, frame, put);
            break;
        default:
            memcpy(slot, &value, 1);
        }
    }
}

const struct host_site *host_find_site(const u8 *code_exec, const struct host_code *code, u64 pc)
{
    const u8 *at = code_exec + ((code->code_bytes + 7) & ~(size_t)7);
    const u8 *end = code_exec + code->total_bytes;

    while (at < end) {
        const struct host_site *site = (const struct host_site *)(const void *)at;

        if (site->resume && (u64)at + (u64)(s64)site->resume > pc)
            return site;
        at += sizeof(*site) + site->nputs * sizeof(site->puts[0]);
    }
    return NULL;
}
