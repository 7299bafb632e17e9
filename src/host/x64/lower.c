/* The walk that emits code, and where operands are found and results go. */
#include "host/x64/lower.h"

#define INST_ROOM 256 /* more than any scalar instruction's lowering takes */
#define VECTOR_ROOM 1024

const struct lower_op lower_ops[IR_OPS] = {
    [IR_const] = {lower_nothing, 0},
    [IR_base] = {lower_nothing, 0},
    [IR_get] = {lower_get, LOWER_ANY},
    [IR_put] = {lower_put, LOWER_MEM_A},
    [IR_dput] = {lower_put, 0},
    [IR_add] = {lower_add, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_sub] = {lower_sub, LOWER_MEM_A | LOWER_MEM_B},
    [IR_mul] = {lower_mul, LOWER_MEM_A | LOWER_MEM_B | LOWER_COMM},
    [IR_umulh] = {lower_umulh, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_smulh] = {lower_umulh, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_udiv] = {lower_div, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_urem] = {lower_div, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_sdiv] = {lower_div, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_srem] = {lower_div, LOWER_MEM_A | LOWER_MEM_B | LOWER_ANY},
    [IR_udiv2] = {lower_div2, LOWER_ANY},
    [IR_urem2] = {lower_div2, LOWER_ANY},
    [IR_neg] = {lower_unary, LOWER_MEM_A | LOWER_ANY},
    [IR_not] = {lower_unary, LOWER_MEM_A | LOWER_ANY},
    [IR_and] = {lower_logic, LOWER_MEM_A | LOWER_MEM_B | LOWER_COMM},
    [IR_or] = {lower_logic, LOWER_MEM_A | LOWER_MEM_B | LOWER_COMM},
    [IR_xor] = {lower_logic, LOWER_MEM_A | LOWER_MEM_B | LOWER_COMM},
    [IR_shl] = {lower_shift, LOWER_MEM_A | LOWER_ANY},
    [IR_shr] = {lower_shift, LOWER_MEM_A | LOWER_ANY},
    [IR_sar] = {lower_shift, LOWER_MEM_A | LOWER_ANY},
    [IR_rol] = {lower_shift, LOWER_MEM_A | LOWER_ANY},
    [IR_ror] = {lower_shift, LOWER_MEM_A | LOWER_ANY},
    [IR_fshl] = {lower_funnel, LOWER_MEM_A | LOWER_STRICT},
    [IR_fshr] = {lower_funnel, LOWER_MEM_A | LOWER_STRICT},
    [IR_clz] = {lower_count_zeros, LOWER_MEM_A | LOWER_ANY},
    [IR_ctz] = {lower_count_zeros, LOWER_MEM_A | LOWER_ANY},
    [IR_popcnt] = {lower_popcnt, LOWER_MEM_A | LOWER_ANY},
    [IR_bswap] = {lower_bswap, LOWER_MEM_A | LOWER_ANY},
    [IR_parity] = {lower_compare, LOWER_MEM_A | LOWER_ANY},
    [IR_eq] = {lower_compare, LOWER_ANY},
    [IR_ne] = {lower_compare, LOWER_ANY},
    [IR_ult] = {lower_compare, LOWER_ANY},
    [IR_ule] = {lower_compare, LOWER_ANY},
    [IR_slt] = {lower_compare, LOWER_ANY},
    [IR_sle] = {lower_compare, LOWER_ANY},
    [IR_sel] = {lower_sel, LOWER_COND | LOWER_ANY},
    [IR_zext] = {lower_zext, LOWER_MEM_A | LOWER_ANY},
    [IR_sext] = {lower_sext, LOWER_MEM_A | LOWER_ANY},
    [IR_trunc] = {lower_trunc, LOWER_MEM_A | LOWER_ANY},
    [IR_extract] = {lower_extract, LOWER_MEM_A | LOWER_ANY},
    [IR_deposit] = {lower_deposit, LOWER_MEM_A | LOWER_STRICT},
    [IR_bitcast] = {lower_bitcast, LOWER_ANY},
    [IR_fadd] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fsub] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fmul] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fdiv] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fmin] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fmax] = {lower_fp_binary, LOWER_MEM_B},
    [IR_fsqrt] = {lower_fp_unary, LOWER_ANY},
    [IR_fround] = {lower_fround, LOWER_ANY},
    [IR_fma] = {lower_fma, LOWER_ANY},
    [IR_feq] = {lower_compare, LOWER_ANY},
    [IR_funord] = {lower_compare, LOWER_ANY},
    [IR_flt] = {lower_compare, LOWER_ANY},
    [IR_fle] = {lower_compare, LOWER_ANY},
    [IR_fltq] = {lower_compare, LOWER_ANY},
    [IR_fleq] = {lower_compare, LOWER_ANY},
    [IR_fflags] = {lower_fflags, LOWER_MEM_B},
    [IR_fflagsq] = {lower_fflags, LOWER_MEM_B},
    [IR_fcvt] = {lower_fcvt, LOWER_ANY},
    [IR_scvtf] = {lower_scvtf, LOWER_MEM_A | LOWER_ANY},
    [IR_fcvts] = {lower_fcvts, LOWER_ANY},
    [IR_fcvtzs] = {lower_fcvts, LOWER_ANY},
    [IR_vec] = {lower_vec, LOWER_ANY},
    [IR_vlo] = {lower_vlo, LOWER_ANY},
    [IR_vhi] = {lower_vhi, LOWER_ANY},
    [IR_vlow] = {lower_nothing, 0}, /* its users read the vector: plan_peel */
    [IR_vzext] = {lower_vzext, LOWER_ANY},
    [IR_vmerge] = {lower_vmerge, 0},
    [IR_ld] = {lower_ld, LOWER_ADDRESS | LOWER_ANY},
    [IR_st] = {lower_st, LOWER_ADDRESS},
    [IR_acas] = {lower_acas, LOWER_ADDRESS | LOWER_ANY},
    [IR_axchg] = {lower_atomic, LOWER_ADDRESS | LOWER_ANY},
    [IR_aadd] = {lower_atomic, LOWER_ADDRESS | LOWER_ANY},
    [IR_aand] = {lower_atomic, LOWER_ADDRESS | LOWER_ANY},
    [IR_aor] = {lower_atomic, LOWER_ADDRESS | LOWER_ANY},
    [IR_axor] = {lower_atomic, LOWER_ADDRESS | LOWER_ANY},
    [IR_fence] = {lower_fence, 0},
    [IR_call] = {lower_call, LOWER_STRICT | LOWER_ANY},
    [IR_phi] = {lower_nothing, 0},
    [IR_set] = {lower_set, 0},
    [IR_jump] = {lower_jump, 0},
    [IR_branch] = {lower_branch, LOWER_COND},
    [IR_insn] = {lower_insn, 0},
    [IR_poll] = {lower_poll, 0},
    [IR_goto] = {lower_goto, 0},
    [IR_goto_if] = {lower_goto_if, LOWER_COND},
    [IR_goto_ind] = {lower_goto_ind, 0},
    [IR_exit] = {lower_exit, 0},
    [IR_exit_if] = {lower_exit_if, LOWER_COND},
    /* Lane operations have their code in lower_vector.c. */
    [IR_vfaddlo32] = {NULL, LOWER_MEM_B},
    [IR_vfsublo32] = {NULL, LOWER_MEM_B},
    [IR_vfmullo32] = {NULL, LOWER_MEM_B},
    [IR_vfdivlo32] = {NULL, LOWER_MEM_B},
    [IR_vfminlo32] = {NULL, LOWER_MEM_B},
    [IR_vfmaxlo32] = {NULL, LOWER_MEM_B},
    [IR_vfsqrtlo32] = {NULL, LOWER_MEM_B},
    [IR_vfroundlo32] = {NULL, LOWER_MEM_B},
    [IR_vfcmplo32] = {NULL, LOWER_MEM_B},
    [IR_vfaddlo64] = {NULL, LOWER_MEM_B},
    [IR_vfsublo64] = {NULL, LOWER_MEM_B},
    [IR_vfmullo64] = {NULL, LOWER_MEM_B},
    [IR_vfdivlo64] = {NULL, LOWER_MEM_B},
    [IR_vfminlo64] = {NULL, LOWER_MEM_B},
    [IR_vfmaxlo64] = {NULL, LOWER_MEM_B},
    [IR_vfsqrtlo64] = {NULL, LOWER_MEM_B},
    [IR_vfroundlo64] = {NULL, LOWER_MEM_B},
    [IR_vfcmplo64] = {NULL, LOWER_MEM_B},
    [IR_vcvtlof64f32] = {NULL, LOWER_MEM_B},
    [IR_vcvtlof32f64] = {NULL, LOWER_MEM_B},
    [IR_vcvtlos32f32] = {NULL, LOWER_MEM_B},
    [IR_vcvtlos64f32] = {NULL, LOWER_MEM_B},
    [IR_vcvtlos32f64] = {NULL, LOWER_MEM_B},
    [IR_vcvtlos64f64] = {NULL, LOWER_MEM_B},
};

/* --- operands ----------------------------------------------------------------------------- */

struct operand operand_at(struct lowering *l, ir_ref ref, bool strict)
{
    const struct ir_inst *inst;
    const struct value *v;
    s32 offset;

    ref = plan_peel(l->unit, ref, strict);
    inst = ir_inst(l->unit, ref);
    v = &l->values[ref];
    if (inst->op == IR_const)
        return (struct operand){.kind = IN_CONST, .imm = inst->imm};
    if (v->reg != NO_LOC)
        return (struct operand){.kind = IN_REG, .reg = v->reg & 15};
    if (v->spill != NO_GRANULE)
        return (struct operand){.kind = IN_MEM, .mem = granule_mem(v->spill)};
    if (plan_base_plus(l->unit, ref, &offset))
        return (struct operand){.kind = IN_BASE, .imm = (u64)(s64)offset};
    return (struct operand){.kind = IN_MEM, .mem = slot_mem(inst->imm)};
}

static u64 cut(u64 imm, unsigned bytes)
{
    return bytes == 8 ? imm : imm & ((1ull << 8 * bytes) - 1);
}

void move_operand(struct lowering *l, const struct operand *o, unsigned d, unsigned bytes)
{
    struct x64 *c = &l->code;

    switch (o->kind) {
    case IN_REG:
        if (o->reg != d)
            x64_mov_rr(c, bytes == 8 ? 8 : 4, d, o->reg);
        return;
    case IN_MEM:
        x64_load(c, bytes, d, o->mem);
        return;
    case IN_CONST:
        x64_mov_ri(c, d, cut(o->imm, bytes));
        return;
    default:
        x64_lea(c, 8, d, x64_at(BASE_REG, (s32)o->imm));
    }
}

unsigned gpr_of(struct lowering *l, const struct operand *o, unsigned bytes, unsigned scratch)
{
    if (o->kind == IN_REG)
        return o->reg;
    if (o->kind == IN_BASE && !o->imm)
        return BASE_REG;
    move_operand(l, o, scratch, bytes);
    return scratch;
}

unsigned operand_gpr(struct lowering *l, ir_ref ref, unsigned scratch, bool strict)
{
    struct operand o = operand_at(l, ref, strict);
    unsigned bytes = type_bytes(ir_typeof(l->unit, ref));

    /* A granule holds the whole register; a slot only what its type says. */
    if (strict && o.kind == IN_MEM && o.mem.base == RSP)
        bytes = 8;
    return gpr_of(l, &o, bytes, scratch);
}

void operand_move(struct lowering *l, ir_ref ref, unsigned d, unsigned bytes)
{
    struct operand o = operand_at(l, ref, false);

    move_operand(l, &o, d, bytes);
}

void xmm_load(struct x64 *c, unsigned type, unsigned d, struct x64_mem m)
{
    x64_rm(c, type == IR_F32 ? X64_MOVSS : type == IR_F64 ? X64_MOVSD : X64_MOVUPS, d, m);
}

void xmm_store(struct x64 *c, unsigned type, struct x64_mem m, unsigned s)
{
    x64_rm(c, type == IR_F32 ? X64_MOVSS_ST : type == IR_F64 ? X64_MOVSD_ST : X64_MOVUPS_ST, s, m);
}

unsigned xmm_of(struct lowering *l, const struct operand *o, unsigned type, unsigned scratch)
{
    struct x64 *c = &l->code;

    if (o->kind == IN_REG)
        return o->reg;
    if (o->kind == IN_MEM) {
        xmm_load(c, o->mem.base == RSP ? IR_V128 : type, scratch, o->mem);
    } else if (!o->imm) {
        x64_rr(c, X64_XORPS, scratch, scratch);
    } else {
        x64_mov_ri(c, RDX, o->imm);
        x64_rr(c, X64_MOVD_TO_XMM | (type == IR_F64 ? X64_W : 0), scratch, RDX);
    }
    return scratch;
}

unsigned operand_xmm(struct lowering *l, ir_ref ref, unsigned scratch)
{
    struct operand o = operand_at(l, ref, false);

    return xmm_of(l, &o, ir_typeof(l->unit, ref), scratch);
}

void operand_xmm_move(struct lowering *l, ir_ref ref, unsigned d)
{
    unsigned s = operand_xmm(l, ref, d);

    if (s != d)
        x64_rr(&l->code, X64_MOVAPS, d, s);
}

void alu_operand(struct lowering *l, enum x64_alu alu, unsigned bytes, unsigned d,
                 const struct operand *o, unsigned scratch)
{
    struct x64 *c = &l->code;

    if (o->kind == IN_MEM)
        x64_alu_rm(c, alu, bytes, d, o->mem);
    else if (o->kind == IN_CONST && (bytes < 8 || x64_fits_s32(o->imm)))
        x64_alu_ri(c, alu, bytes, d,
                   bytes == 1   ? (s8)o->imm
                   : bytes == 2 ? (s16)o->imm
                                : (s32)o->imm);
    else
        x64_alu_rr(c, alu, bytes, d, gpr_of(l, o, bytes, scratch));
}

/* --- results ------------------------------------------------------------------------------ */

unsigned result_gpr(struct lowering *l, ir_ref ref, unsigned scratch)
{
    unsigned reg = l->values[ref].reg;

    return reg != NO_LOC ? reg : scratch;
}

unsigned result_xmm(struct lowering *l, ir_ref ref, unsigned scratch)
{
    unsigned reg = l->values[ref].reg;

    return reg != NO_LOC ? reg & 15 : scratch;
}

void result_from(struct lowering *l, ir_ref ref, unsigned reg, unsigned bytes)
{
    const struct value *v = &l->values[ref];

    if (v->reg != NO_LOC) {
        if (v->reg != reg)
            x64_mov_rr(&l->code, bytes == 8 ? 8 : 4, v->reg, reg);
    } else if (v->spill != NO_GRANULE) {
        x64_store(&l->code, 8, granule_mem(v->spill), reg);
    }
}

void result_done(struct lowering *l, ir_ref ref, unsigned reg)
{
    result_from(l, ref, reg, 8);
}

void result_xmm_done(struct lowering *l, ir_ref ref, unsigned reg)
{
    const struct value *v = &l->values[ref];

    if (v->reg != NO_LOC) {
        if ((v->reg & 15u) != reg)
            x64_rr(&l->code, X64_MOVAPS, v->reg & 15, reg);
    } else if (v->spill != NO_GRANULE) {
        x64_rm(&l->code, X64_MOVAPS_ST, reg, granule_mem(v->spill));
    }
}

void store_operand(struct lowering *l, ir_ref ref, unsigned type, struct x64_mem mem)
{
    struct operand o = operand_at(l, ref, false);
    unsigned bytes = type_bytes(type);

    if (o.kind == IN_CONST && (bytes < 8 || x64_fits_s32(o.imm)))
        x64_store_imm(&l->code, bytes, mem, (s32)o.imm);
    else if (is_xmm_type(type) && o.kind != IN_CONST)
        xmm_store(&l->code, type, mem, xmm_of(l, &o, type, XMM15));
    else
        x64_store(&l->code, bytes, mem, gpr_of(l, &o, bytes, RDX));
}

/* --- parallel moves ----------------------------------------------------------------------- */

/* A place as a number: registers, then granules; ~0 for what no move changes. */
static u32 place_of(const struct operand *o, bool xmm)
{
    if (o->kind == IN_REG)
        return o->reg + (xmm ? LOC_XMM : 0);
    return o->kind == IN_MEM && o->mem.base == RSP ? 32 + (u32)o->mem.disp / 16 : ~0u;
}

static u32 place_to(const struct parallel_move *m)
{
    return m->to_reg != NO_LOC ? m->to_reg : 32 + m->to_spill;
}

bool move_is_needed(struct lowering *l, const struct parallel_move *move)
{
    struct operand from = operand_at(l, move->from, true);

    return place_of(&from, is_xmm_type(move->type)) != place_to(move);
}

static void move_one(struct lowering *l, const struct parallel_move *m, const struct operand *o)
{
    struct x64 *c = &l->code;
    unsigned reg;

    if (is_xmm_type(m->type)) {
        unsigned d = m->to_reg & 15u;

        reg = xmm_of(l, o, m->type, m->to_reg != NO_LOC ? d : XMM14);
        if (m->to_reg == NO_LOC)
            x64_rm(c, X64_MOVAPS_ST, reg, granule_mem(m->to_spill));
        else if (reg != d)
            x64_rr(c, X64_MOVAPS, d, reg);
        return;
    }
    if (m->to_reg != NO_LOC) {
        move_operand(l, o, m->to_reg, 8);
        return;
    }
    reg = gpr_of(l, o, 8, RDX);
    x64_store(c, 8, granule_mem(m->to_spill), reg);
}

/* Breaks a cycle: what @m will overwrite is saved in a scratch register, from which its readers
 * take it. */
static void move_aside(struct lowering *l, const struct parallel_move *m, struct operand *from,
                       const u32 *read, unsigned n)
{
    bool xmm = is_xmm_type(m->type);
    unsigned scratch = xmm ? XMM15 : RAX;
    u32 to = place_to(m);
    bool saved = false;

    for (unsigned i = 0; i < n; i++) {
        if (read[i] != to)
            continue;
        if (!saved) {
            struct parallel_move aside = {.to_reg = (u8)(xmm ? LOC_XMM + scratch : scratch),
                                          .type = xmm ? IR_V128 : IR_I64};
            move_one(l, &aside, &from[i]);
            saved = true;
        }
        from[i] = (struct operand){.kind = IN_REG, .reg = (u8)scratch};
    }
}

void move_parallel(struct lowering *l, struct parallel_move *moves, unsigned n)
{
    struct operand from[64];
    u32 read[64];

    if (n > ARRAY_SIZE(from)) {
        lower_fail(l, -E2BIG);
        return;
    }
    if (!room(l, n * 40 + INST_ROOM))
        return;
    for (unsigned i = 0; i < n; i++) {
        from[i] = operand_at(l, moves[i].from, true);
        read[i] = place_of(&from[i], is_xmm_type(moves[i].type));
    }
    while (n) {
        unsigned ready = n;

        for (unsigned i = 0; i < n && ready == n; i++) {
            u32 to = place_to(&moves[i]);
            bool wanted = false;

            for (unsigned k = 0; k < n && !wanted; k++)
                wanted = k != i && read[k] == to;
            if (!wanted)
                ready = i;
        }
        if (ready == n) {
            ready = 0;
            move_aside(l, &moves[0], from, read, n);
            for (unsigned k = 0; k < n; k++) {
                if (read[k] == place_to(&moves[0]))
                    read[k] = ~0u;
            }
        }
        if (read[ready] != place_to(&moves[ready]))
            move_one(l, &moves[ready], &from[ready]);
        n--;
        moves[ready] = moves[n];
        from[ready] = from[n];
        read[ready] = read[n];
    }
}

/* --- the walk ----------------------------------------------------------------------------- */

LOWER(nothing)
{
    (void)l, (void)ref, (void)inst;
}

static void lower_inst(struct lowering *l, ir_ref ref)
{
    const struct ir_inst *inst = ir_inst(l->unit, ref);
    unsigned flags = l->values[ref].flags;

    if (!(flags & VALUE_NEEDED) && (!(ir_op_info[inst->op].flags & IR_SIDE) || flags & VALUE_FUSED))
        return;
    l->pos = ref;
    if (is_vector_op(inst->op)) {
        if (room(l, VECTOR_ROOM))
            lower_vector(l, ref);
    } else if (room(l, INST_ROOM)) {
        lower_ops[inst->op].emit(l, ref, inst);
    }
}

static int prepare(struct lowering *l)
{
    const struct ir_unit *unit = l->unit;

    l->block_places = arena_alloc(unit->arena, unit->nblocks * sizeof(*l->block_places));
    l->fixups = arena_alloc(unit->arena, 2 * unit->nblocks * sizeof(*l->fixups));
    l->sets = arena_alloc(unit->arena, (l->max_sets + 1) * sizeof(*l->sets));
    return l->block_places && l->fixups && l->sets ? 0 : -ENOMEM;
}

/* The block that is laid out behind instruction @last; nblocks if there is none. */
static u32 next_block(const struct ir_unit *unit, u32 block, u32 last)
{
    if (block + 1 < unit->nblocks && unit->blocks[block + 1].first == last + 1)
        return block + 1;
    for (u32 b = 0; b < unit->nblocks; b++) {
        if (unit->blocks[b].first == last + 1)
            return b;
    }
    return unit->nblocks;
}

static void lower_blocks(struct lowering *l)
{
    const struct ir_unit *unit = l->unit;
    u32 block = next_block(unit, 0, 0);

    /* Execution begins in block 0 and code in the first one of the layout: mostly the same. */
    if (block != 0) {
        l->fixups[l->nfixups++] = (struct fixup){x64_jmp_later(&l->code), 0};
    }
    while (block < unit->nblocks && !l->error) {
        u32 first = unit->blocks[block].first, end = first + unit->blocks[block].count;

        l->block = block;
        l->block_places[block] = l->code.p;
        l->ndputs = 0;
        for (ir_ref ref = first; ref < end && !l->error; ref++)
            lower_inst(l, ref);
        block = next_block(unit, block, end - 1);
    }
    for (u32 i = 0; i < l->nfixups && !l->error; i++) {
        u8 *to = l->block_places[l->fixups[i].block];
        u32 rel = (u32)(to - (l->fixups[i].place + 4));

        memcpy(l->fixups[i].place, &rel, 4);
    }
}

int host_compile(const struct ir_unit *unit, const struct host_abi *abi, u8 *buf, u64 exec_addr,
                 size_t size, struct host_code *code)
{
    struct lowering l = {.unit = unit, .abi = abi, .out = code};
    int rc;

    *code = (struct host_code){0};
    if (unit->ninsts > 16000) /* uses are counted in 16 bits */
        return -E2BIG;
    l.code = (struct x64){.p = buf, .start = buf, .limit = buf + size, .exec = exec_addr};
    rc = plan_unit(&l);
    if (!rc)
        rc = alloc_unit(&l);
    if (!rc)
        rc = prepare(&l);
    if (rc)
        return rc;
    if (size < 64)
        return -ENOSPC;
    lower_blocks(&l);
    code->hot_bytes = code->cold = (size_t)(l.code.p - buf);
    if (abi->cold) {
        code->cold = abi->cold;
        l.code.p = buf + abi->cold;
        l.code.limit = l.code.p + size;
    }
    if (!l.error)
        emit_stubs(&l);
    if (!l.error)
        emit_sites(&l);
    return l.error;
}
