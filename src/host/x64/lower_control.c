/* Helper calls, jumps inside a unit, and the ways out of it. */
#include "host/x64/lower.h"

/* --- calls -------------------------------------------------------------------------------- */

/* The one place where code depends on an address that is not reached through the state pointer. */
static void call_absolute(struct lowering *l, const void *fn)
{
    x64_mov_ri(&l->code, RAX, (u64)fn);
    x64_rr(&l->code, 0xff, 2, RAX);
}

LOWER(call)
{
    static const u8 regs[] = {RSI, RDX, RCX, R8};
    const ir_ref args[] = {inst->a, inst->b, inst->c, inst->d};
    struct parallel_move moves[4];
    unsigned n = 0;
    ir_ref late[2] = {0};

    /* rdx and rcx are scratch: nothing lives there, so they come last. */
    for (unsigned i = 0; i < 4 && args[i]; i++) {
        if (regs[i] == RDX || regs[i] == RCX)
            late[i - 1] = args[i];
        else
            moves[n++] = (struct parallel_move){.from = args[i], .to_reg = regs[i], .type = IR_I64};
    }
    for (unsigned i = 0; i < 2; i++) {
        if (late[i])
            moves[n++] =
                (struct parallel_move){.from = late[i], .to_reg = regs[1 + i], .type = IR_I64};
    }
    move_parallel(l, moves, n);
    x64_lea(&l->code, 8, RDI, slot_mem(0));
    call_absolute(l, l->unit->helpers[inst->imm].fn);
    if (!value_needed(l, ref))
        return;
    if (inst->type == IR_I1)
        x64_alu_ri(&l->code, ALU_AND, 4, RAX, 1);
    else if (inst->type == IR_I32 && l->values[ref].reg == NO_LOC)
        x64_mov_rr(&l->code, 4, RAX, RAX);
    result_from(l, ref, RAX, type_bytes(inst->type));
}

/* --- inside the unit ---------------------------------------------------------------------- */

LOWER(set)
{
    const struct value *phi = &l->values[inst->imm];

    (void)ref;
    if (!(phi->flags & VALUE_NEEDED))
        return;
    l->sets[l->nsets++] = (struct parallel_move){
        .from = inst->a,
        .phi = (ir_ref)inst->imm,
        .to_reg = phi->reg,
        .to_spill = phi->spill,
        .type = ir_inst(l->unit, (ir_ref)inst->imm)->type,
    };
}

static bool in_block(const struct lowering *l, ir_ref ref, u32 block)
{
    const struct ir_block *b = &l->unit->blocks[block];

    return ref - b->first < b->count;
}

/* Moves the values for the phis of @block to them. */
static void set_phis(struct lowering *l, u32 block)
{
    struct parallel_move moves[64];
    unsigned n = 0;

    for (u32 i = 0; i < l->nsets; i++) {
        if (!in_block(l, l->sets[i].phi, block))
            continue;
        if (n == ARRAY_SIZE(moves)) {
            lower_fail(l, -E2BIG);
            return;
        }
        moves[n++] = l->sets[i];
    }
    if (n)
        move_parallel(l, moves, n);
}

static bool sets_phis(const struct lowering *l, u32 block)
{
    for (u32 i = 0; i < l->nsets; i++) {
        if (in_block(l, l->sets[i].phi, block))
            return true;
    }
    return false;
}

/* The same, if one of them does not lie where it is to go already. */
static bool moves_phis(struct lowering *l, u32 block)
{
    for (u32 i = 0; i < l->nsets; i++) {
        if (in_block(l, l->sets[i].phi, block) && move_is_needed(l, &l->sets[i]))
            return true;
    }
    return false;
}

/* Nothing that the phis of @block share a place with is wanted on the way to @other: not by its
 * code, nor as a value for phis of its own. */
static bool may_set_early(const struct lowering *l, u32 block, u32 other)
{
    if (sets_phis(l, other))
        return false;
    for (u32 i = 0; i < l->nsets; i++) {
        if (in_block(l, l->sets[i].phi, block) && web_wanted(l, l->sets[i].phi, other))
            return false;
    }
    return true;
}

static void place_to_block(struct lowering *l, u8 *place, u32 block)
{
    l->fixups[l->nfixups++] = (struct fixup){place, block};
}

static bool falls_into(const struct lowering *l, u32 block)
{
    return l->unit->blocks[block].first == l->pos + 1;
}

static void jump_to(struct lowering *l, u32 block)
{
    if (!falls_into(l, block))
        place_to_block(l, x64_jmp_later(&l->code), block);
}

LOWER(jump)
{
    (void)ref;
    count_insns(l);
    set_phis(l, (u32)inst->imm);
    jump_to(l, (u32)inst->imm);
    l->nsets = 0;
}

LOWER(branch)
{
    u32 then = (u32)inst->imm, otherwise = (u32)(inst->imm >> 32);
    struct condition cond;
    u8 *place;

    (void)ref;
    count_insns(l);
    cond = condition_flags(l, inst->a);
    if (falls_into(l, then) || (moves_phis(l, then) && !falls_into(l, otherwise))) {
        u32 t = then;

        then = otherwise;
        otherwise = t;
        cond = condition_not(cond);
    }
    /* Now: jump to then if cond, go on to otherwise. */
    if (!moves_phis(l, then)) {
        place_to_block(l, condition_jump(l, cond), then);
    } else if (then == otherwise || may_set_early(l, then, otherwise)) {
        set_phis(l, then); /* leaves the flags alone */
        place_to_block(l, condition_jump(l, cond), then);
        if (then == otherwise)
            l->nsets = 0;
    } else {
        place = condition_jump(l, condition_not(cond));
        set_phis(l, then);
        place_to_block(l, x64_jmp_later(&l->code), then);
        x64_land(&l->code, place);
    }
    set_phis(l, otherwise);
    jump_to(l, otherwise);
    l->nsets = 0;
}

LOWER(insn)
{
    (void)ref;
    l->pending_insns++;
    l->insn_offset = (s32)(u32)inst->imm;
}

/* Adds what was executed since the last time; changes the flags. */
void count_insns(struct lowering *l)
{
    if (l->abi->count_insns && l->pending_insns)
        x64_alu_mi(&l->code, ALU_ADD, 8, slot_mem(l->abi->insns), (s32)l->pending_insns);
    l->pending_insns = 0;
}

/* --- side exits --------------------------------------------------------------------------- */

static void side_exit(struct lowering *l, u8 *place, u32 exit_code)
{
    u32 site = site_begin(l);
    struct stub *stub;

    if (l->error)
        return;
    site_at(l, site)->exit_code = exit_code;
    stub = stub_new(l, STUB_SITE, place);
    stub->site = site;
}

LOWER(poll)
{
    (void)ref, (void)inst;
    x64_alu_mi(&l->code, ALU_CMP, 4, slot_mem(l->abi->request), 0);
    side_exit(l, x64_jcc_later(&l->code, CC_NE), IR_EXIT_REQUEST);
}

LOWER(exit_if)
{
    struct condition cond = condition_flags(l, inst->a);

    (void)ref;
    side_exit(l, condition_jump(l, cond), (u32)inst->imm);
}

LOWER(exit)
{
    (void)ref;
    count_insns(l);
    x64_store_imm(&l->code, 4, slot_mem(l->abi->exit_code), (s32)inst->imm);
    x64_jmp(&l->code, l->abi->thunk_exit);
}

/* --- gotos -------------------------------------------------------------------------------- */

void leave_address(struct lowering *l, s64 offset)
{
    struct x64 *c = &l->code;

    if (x64_fits_s32((u64)offset)) {
        x64_lea(c, 8, RAX, x64_at(BASE_REG, (s32)offset));
    } else {
        x64_mov_ri(c, RAX, (u64)offset);
        x64_alu_rr(c, ALU_ADD, 8, RAX, BASE_REG);
    }
}

bool leave_may_link(const struct lowering *l, s64 offset)
{
    return (l->abi->direct_pages || (u64)offset < 4096) && l->out->nlinks < HOST_MAX_LINKS;
}

void leave_link(struct lowering *l, u8 *place, s64 offset)
{
    struct host_link *link = &l->out->links[l->out->nlinks];
    struct stub *stub = stub_new(l, STUB_UNLINKED, place);

    link->patch = (u32)(place - l->code.start);
    link->offset = offset;
    if (l->backward && l->abi->counters && l->out->ncounters < HOST_MAX_COUNTERS)
        link->counter = &l->abi->counters[l->out->ncounters++];
    stub->link = l->out->nlinks++;
    stub->offset = offset;
}

void align_displacement(struct lowering *l, unsigned opcode_bytes)
{
    x64_nop(&l->code, (4 - (unsigned)((x64_here(&l->code) + opcode_bytes) & 3)) & 3);
}

/* The jump cache's entry has another address in @reg, or is of another space or mode than the
 * state's. */
static void jump_misses(struct lowering *l, unsigned reg)
{
    struct stub *stub = stub_new(l, STUB_MISSED, x64_jcc_later(&l->code, CC_NE));

    stub->reg = (u8)reg;
}

bool compare_space(struct x64 *c, const struct host_abi *abi, unsigned part)
{
    bool together = abi->mode == abi->space + 4;
    unsigned bytes = together ? 8 : 4;

    if (part == (together ? 1 : 2))
        return false;
    x64_load(c, bytes, RDX, slot_mem(part ? abi->mode : abi->space));
    x64_alu_rm(
        c, ALU_CMP, bytes, RDX,
        x64_at(RCX, part ? offsetof(struct host_jump, mode) : offsetof(struct host_jump, space)));
    return true;
}

/* Guest execution goes on at the address in @reg, not rcx nor rdx: through the jump cache. */
static void leave_indirect(struct lowering *l, unsigned reg)
{
    const struct host_abi *abi = l->abi;
    struct x64 *c = &l->code;

    x64_rr(c, 0x6b, RCX, reg); /* host_jump_index, in bytes */
    x64_byte(c, sizeof(struct host_jump) + 1);
    x64_alu_ri(c, ALU_AND, 4, RCX,
               (s32)(((1u << abi->jump_cache_bits) - 1) * sizeof(struct host_jump)));
    x64_alu_rm(c, ALU_ADD, 8, RCX, slot_mem(abi->jump_cache));
    x64_alu_rm(c, ALU_CMP, 8, reg, x64_at(RCX, offsetof(struct host_jump, gva)));
    jump_misses(l, reg);
    for (unsigned part = 0; compare_space(c, abi, part); part++)
        jump_misses(l, reg);
    x64_load(c, 8, BASE_REG, x64_at(RCX, offsetof(struct host_jump, base)));
    x64_rm(c, 0xff, 4, x64_at(RCX, offsetof(struct host_jump, code)));
}

/* The next unit's base is the page of its own address. */
static void move_base(struct lowering *l, s64 delta)
{
    struct x64 *c = &l->code;

    if (x64_fits_s32((u64)delta)) {
        x64_alu_ri(c, ALU_ADD, 8, BASE_REG, (s32)delta);
    } else {
        x64_mov_ri(c, RAX, (u64)delta);
        x64_alu_rr(c, ALU_ADD, 8, BASE_REG, RAX);
    }
}

static bool in_page(s64 offset)
{
    return (u64)offset < 4096;
}

void leave_to(struct lowering *l, s64 offset)
{
    if (leave_may_link(l, offset)) {
        if (!in_page(offset))
            move_base(l, offset & -4096);
        align_displacement(l, 1);
        leave_link(l, x64_jmp_later(&l->code), offset & 4095);
        return;
    }
    leave_address(l, offset);
    leave_indirect(l, RAX);
}

LOWER(goto)
{
    s64 offset = (s64)inst->imm;

    (void)ref;
    count_insns(l);
    l->backward = offset <= l->insn_offset;
    leave_to(l, offset);
}

/* The dputs whose value must be in memory when the jump at l->pos is taken: all in effect but the
 * pc's, which the jump writes. */
static bool dputs_to_do(struct lowering *l, struct stub *stub)
{
    u32 pc = l->unit->pc_slot;

    stub->dputs = arena_alloc(l->unit->arena, (l->ndputs + 1) * sizeof(*stub->dputs));
    if (!stub->dputs) {
        lower_fail(l, -ENOMEM);
        return false;
    }
    for (u32 i = 0; i < l->ndputs; i++) {
        ir_ref ref = l->dputs[i].ref;

        if (l->dputs[i].end >= l->pos && ir_inst(l->unit, ref)->imm != pc)
            stub->dputs[stub->ndputs++] = ref;
    }
    return stub->ndputs;
}

/* Does the jump at l->pos, when it is not taken, go back to a block, with nothing to move? Then the
 * jump there can be the one that depends on the condition. */
static bool loops_else(const struct lowering *l, u32 *block)
{
    for (ir_ref ref = l->pos + 1;; ref++) {
        const struct ir_inst *inst = ir_inst(l->unit, ref);
        ir_ref phi = (ir_ref)inst->imm;

        if (inst->op == IR_jump) {
            *block = (u32)inst->imm;
            return l->block_places[*block];
        }
        if (inst->op == IR_NOP || (inst->op == IR_set && !value_needed(l, phi)))
            continue;
        if (inst->op != IR_set ||
            plan_root(l, phi) != plan_root(l, plan_peel(l->unit, inst->a, true)))
            return false;
    }
}

LOWER(goto_if)
{
    s64 offset = (s64)inst->imm;
    struct stub leave = {.offset = offset,
                         .insn_offset = l->insn_offset,
                         .backward = offset <= l->insn_offset},
                *stub;
    struct condition cond;
    bool dputs, always, link = in_page(offset) && leave_may_link(l, offset);
    u32 block;

    (void)ref;
    count_insns(l);
    dputs = dputs_to_do(l, &leave);
    cond = condition_flags(l, inst->a);
    always = loops_else(l, &block);
    if (always)
        place_to_block(l, condition_jump(l, condition_not(cond)), block);
    if (always && link && !dputs)
        align_displacement(l, 1);
    if (link && !dputs) {
        l->backward = leave.backward;
        leave_link(l, always ? x64_jmp_later(&l->code) : condition_jump_aligned(l, cond), offset);
        return;
    }
    stub = stub_new(l, STUB_LEAVE, always ? x64_jmp_later(&l->code) : condition_jump(l, cond));
    leave.kind = stub->kind;
    leave.place = stub->place;
    *stub = leave;
}

LOWER(goto_ind)
{
    (void)ref;
    count_insns(l);
    leave_indirect(l, operand_gpr(l, inst->a, RAX, false));
}

void host_patch_link(u8 *code_rw, u64 code_exec, const struct host_link *link, u64 to)
{
    u64 from = code_exec + link->patch + 4;
    u32 rel = (u32)((to ? to : code_exec + link->unlinked) - from);

    __atomic_store_n((u32 *)(void *)(code_rw + link->patch), rel, __ATOMIC_RELEASE);
}

void host_count_link(u8 *code_rw, u64 code_exec, const struct host_link *link, u64 to)
{
    u64 from = code_exec + link->onward + 4;

    __atomic_store_n((u32 *)(void *)(code_rw + link->onward), (u32)(to - from), __ATOMIC_RELEASE);
    host_patch_link(code_rw, code_exec, link, code_exec + link->counting);
}
