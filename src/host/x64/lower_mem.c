/* State slots, guest memory through the soft TLB or directly, atomics. */
#include "host/x64/lower.h"

/* --- state slots -------------------------------------------------------------------------- */

LOWER(get)
{
    struct x64_mem slot = slot_mem(inst->imm);

    if (l->values[ref].reg == NO_LOC && l->values[ref].spill == NO_GRANULE)
        return; /* read where it is used: plan_at_home */

    if (is_xmm_type(inst->type)) {
        unsigned d = result_xmm(l, ref, XMM15);

        xmm_load(&l->code, inst->type, d, slot);
        result_xmm_done(l, ref, d);
    } else {
        unsigned d = result_gpr(l, ref, RAX);

        x64_load(&l->code, type_bytes(inst->type), d, slot);
        result_done(l, ref, d);
    }
}

LOWER(put)
{
    if (inst->op == IR_dput && !(l->values[ref].flags & VALUE_STORE)) {
        if (l->values[ref].end)
            dput_track(l, ref);
        return;
    }
    store_operand(l, inst->a, ir_typeof(l->unit, inst->a), slot_mem(inst->imm));
}

/* --- guest memory ------------------------------------------------------------------------- */

/* A guest address: register (never rax or rdx) and displacement. */
struct address {
    u8 reg;
    u8 index, shift; /* X64_NO_REG for none; never with the TLB */
    s32 disp;
};

/* The index of an access may be in rax. */
static struct address address_of(struct lowering *l, const struct ir_inst *inst)
{
    struct plan_index p = plan_index(l, inst);
    struct operand o = operand_at(l, p.base, true);
    struct address a = {.index = X64_NO_REG, .shift = (u8)p.shift, .disp = p.disp};
    s64 imm = (s64)inst->imm;
    bool taken = plan_fits_displacement(imm);

    if (p.index)
        a.index = (u8)operand_gpr(l, p.index, RAX, true);
    if (o.kind == IN_BASE && taken && o.imm + (u64)(s64)p.disp + (1ull << 30) < 1ull << 31) {
        a.reg = BASE_REG;
        a.disp += (s32)o.imm;
        return a;
    }
    a.reg = (u8)gpr_of(l, &o, 8, RCX);
    if (taken)
        return a;
    /* The displacement is too large for an address form. */
    x64_mov_ri(&l->code, RAX, (u64)imm);
    x64_lea(&l->code, 8, RCX, x64_at_index(RAX, a.reg, 0, 0));
    a.reg = RCX;
    return a;
}

static unsigned log2_of(u32 v)
{
    return (unsigned)__builtin_ctz(v);
}

/*
 * The soft TLB's hit path: leaves the entry in rax. The first byte chooses the entry, the last
 * one's page is compared, so an access over two pages misses. @miss: the jump to fill in.
 */
static void tlb_lookup(struct lowering *l, struct address a, unsigned bytes, u32 tag, u8 **miss)
{
    const struct host_abi *abi = l->abi;
    unsigned entry = log2_of(abi->tlb_entry_bytes);
    s32 last = a.disp + (s32)bytes - 1;
    struct x64 *c = &l->code;

    if (last)
        x64_lea(c, 8, RDX, x64_at(a.reg, last));
    else
        x64_mov_rr(c, 8, RDX, a.reg);
    if (bytes == 1)
        x64_mov_rr(c, 4, RAX, RDX);
    else if (a.disp)
        x64_lea(c, 4, RAX, x64_at(a.reg, a.disp));
    else
        x64_mov_rr(c, 4, RAX, a.reg);
    x64_shift_ri(c, SHIFT_SHR, 4, RAX, 12 - entry);
    x64_alu_ri(c, ALU_AND, 8, RDX, -4096);
    x64_alu_ri(c, ALU_AND, 4, RAX, (s32)(((1u << abi->tlb_bits) - 1) << entry));
    x64_alu_rm(c, ALU_ADD, 8, RAX, slot_mem(abi->tlb));
    x64_alu_rm(c, ALU_CMP, 8, RDX, x64_at(RAX, (s32)tag));
    *miss = x64_jcc_later(c, CC_NE);
}

/* One access: what its record needs, and the host address when it hits. */
struct access {
    struct address address;
    u32 site;
    bool direct;
    u8 *miss;
};

/* Describes an operand in the record; a constant too wide for that goes to rdx or rax in the
 * stub. */
static void locate_operand(struct lowering *l, ir_ref ref, u8 *kind, s32 *where, struct stub *stub)
{
    static const u8 regs[] = {RDX, RAX};
    unsigned bytes = type_bytes(ir_typeof(l->unit, ref));

    if (site_locate(l, ref, bytes, kind, where))
        return;
    *kind = HOST_LOC_REG;
    *where = regs[stub->nconstants];
    stub->constant[stub->nconstants++] = operand_at(l, ref, false).imm;
}

/* Does all up to a hit. @b, @c: operands of the record or IR_NONE. Afterwards rax (TLB) holds the
 * entry; access_mem answers the operand. */
static struct access access_begin(struct lowering *l, const struct ir_inst *inst, unsigned type,
                                  bool write, ir_ref b, ir_ref c)
{
    struct access a = {.address = address_of(l, inst),
                       .direct = l->abi->memory == HOST_MEMORY_DIRECT};
    struct host_site *site;
    struct stub *stub = NULL;

    a.site = site_begin(l);
    if (!a.direct) {
        tlb_lookup(l, a.address, type_bytes(type),
                   write ? l->abi->tlb_write_tag : l->abi->tlb_read_tag, &a.miss);
        stub = stub_new(l, STUB_SITE, a.miss);
        stub->site = a.site;
        stub->ways = write ? l->abi->thunk_write : l->abi->thunk_read;
        stub->hit = l->code.p;
    }
    if (l->error)
        return a;
    site = site_at(l, a.site);
    site->type = (u8)type;
    if (a.direct) /* nobody does the access instead: the puts are all there is to know */
        return a;
    site->addr_kind = HOST_LOC_REG;
    site->addr = a.address.reg;
    site->disp = a.address.disp;
    if (b)
        locate_operand(l, b, &site->operand_kind, &site->operand, stub);
    if (c)
        locate_operand(l, c, &site->operand2_kind, &site->operand2, stub);
    return a;
}

/* The access as a memory operand; @index (rax or rdx) is used up. */
static struct x64_mem access_mem(struct lowering *l, const struct access *a, unsigned index)
{
    struct x64 *c = &l->code;

    if (!a->direct) {
        x64_load(c, 8, index, x64_at(RAX, (s32)l->abi->tlb_addend));
        return x64_at_index(a->address.reg, index, 0, a->address.disp);
    }
    if (a->address.index != X64_NO_REG)
        return x64_at_index(a->address.reg, a->address.index, a->address.shift, a->address.disp);
    if (!l->abi->direct_base)
        return x64_at(a->address.reg, a->address.disp);
    x64_mov_ri(c, index, l->abi->direct_base);
    return x64_at_index(a->address.reg, index, 0, a->address.disp);
}

static void access_end(struct lowering *l, const struct access *a)
{
    if (!l->error)
        site_at(l, a->site)->resume = (s32)(l->code.p - l->code.start);
}

LOWER(ld)
{
    struct access a = access_begin(l, inst, inst->type, false, IR_NONE, IR_NONE);
    struct x64_mem mem = access_mem(l, &a, RAX);

    if (l->error)
        return;
    site_locate_result(l, ref, &site_at(l, a.site)->result_kind, &site_at(l, a.site)->result);
    if (is_xmm_type(inst->type)) {
        unsigned d = result_xmm(l, ref, XMM15);

        xmm_load(&l->code, inst->type, d, mem);
        if (a.direct)
            access_end(l, &a);
        result_xmm_done(l, ref, d);
    } else {
        unsigned d = result_gpr(l, ref, RAX);

        x64_load(&l->code, type_bytes(inst->type), d, mem);
        if (a.direct)
            access_end(l, &a);
        result_done(l, ref, d);
    }
    if (!a.direct)
        access_end(l, &a);
}

LOWER(st)
{
    unsigned type = ir_typeof(l->unit, inst->b);
    struct access a = access_begin(l, inst, type, true, inst->b, IR_NONE);
    struct x64_mem mem = access_mem(l, &a, RAX);

    (void)ref;
    store_operand(l, inst->b, type, mem);
    access_end(l, &a);
}

/* --- atomics: lock-prefixed instructions on the host address ------------------------------- */

/* Host address in rdx, which frees rax and rcx. */
static struct x64_mem access_in_rdx(struct lowering *l, const struct access *a)
{
    struct x64_mem mem = access_mem(l, a, RDX);

    if (mem.index == X64_NO_REG && !mem.disp && mem.base != RCX)
        return mem;
    x64_lea(&l->code, 8, RDX, mem);
    return x64_at(RDX, 0);
}

LOWER(acas)
{
    unsigned bytes = type_bytes(inst->type), desired;
    struct access a = access_begin(l, inst, inst->type, true, inst->b, inst->c);
    struct x64_mem mem = access_in_rdx(l, &a);
    struct operand b = operand_at(l, inst->b, false), c = operand_at(l, inst->c, false);

    if (l->error)
        return;
    site_locate_result(l, ref, &site_at(l, a.site)->result_kind, &site_at(l, a.site)->result);
    move_operand(l, &b, RAX, wide_bytes(inst->type));
    desired = gpr_of(l, &c, wide_bytes(inst->type), RCX);
    x64_rm(&l->code, X64_LOCK | X64_0F | 0xb0 | x64_size(bytes), desired, mem);
    if (a.direct)
        access_end(l, &a);
    result_from(l, ref, RAX, bytes);
    if (!a.direct)
        access_end(l, &a);
}

/* The result of and, or and xor is wanted: cmpxchg until nobody was faster. */
static void atomic_loop(struct lowering *l, enum x64_alu alu, unsigned bytes, struct x64_mem mem,
                        const struct operand *operand)
{
    struct x64 *c = &l->code;
    u8 *again, *place;

    x64_load(c, bytes, RAX, mem);
    again = c->p;
    move_operand(l, operand, RCX, bytes == 8 ? 8 : 4);
    x64_alu_rr(c, alu, bytes == 8 ? 8 : 4, RCX, RAX);
    x64_rm(c, X64_LOCK | X64_0F | 0xb0 | x64_size(bytes), RCX, mem);
    place = x64_jcc8_later(c, CC_NE);
    *place = (u8)(again - c->p);
}

/* The result is not wanted. */
static void atomic_plain(struct lowering *l, enum x64_alu alu, unsigned bytes, struct x64_mem mem,
                         const struct operand *operand)
{
    struct x64 *c = &l->code;

    x64_rm(c, X64_LOCK | x64_size(bytes) | (u32)alu << 3, gpr_of(l, operand, bytes, RCX), mem);
}

LOWER(atomic)
{
    static const u8 alus[] = {[IR_aadd - IR_axchg] = ALU_ADD,
                              [IR_aand - IR_axchg] = ALU_AND,
                              [IR_aor - IR_axchg] = ALU_OR,
                              [IR_axor - IR_axchg] = ALU_XOR};
    unsigned bytes = type_bytes(inst->type), wide = wide_bytes(inst->type), reg = RAX;
    struct access a = access_begin(l, inst, inst->type, true, inst->b, IR_NONE);
    struct x64_mem mem = access_in_rdx(l, &a);
    struct operand b = operand_at(l, inst->b, false);

    if (l->error)
        return;
    site_locate_result(l, ref, &site_at(l, a.site)->result_kind, &site_at(l, a.site)->result);
    if (inst->op == IR_axchg || (inst->op == IR_aadd && value_needed(l, ref))) {
        move_operand(l, &b, RAX, wide);
        if (inst->op == IR_axchg)
            x64_rm(&l->code, 0x86 | x64_size(bytes), RAX, mem);
        else
            x64_rm(&l->code, X64_LOCK | X64_0F | 0xc0 | x64_size(bytes), RAX, mem);
    } else if (value_needed(l, ref)) {
        atomic_loop(l, alus[inst->op - IR_axchg], bytes, mem, &b);
    } else {
        atomic_plain(l, alus[inst->op - IR_axchg], bytes, mem, &b);
    }
    if (a.direct)
        access_end(l, &a);
    if (value_needed(l, ref))
        result_from(l, ref, reg, bytes);
    if (!a.direct)
        access_end(l, &a);
}

/* A locked instruction orders as mfence does, in a fraction of its time. */
LOWER(fence)
{
    (void)ref, (void)inst;
    x64_rm(&l->code, X64_LOCK | 0x83, ALU_OR, x64_at(RSP, 0));
    x64_byte(&l->code, 0);
}
