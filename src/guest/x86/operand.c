/*
 * What the instruction at lip does with memory: asked only once an access failed, to say exactly
 * how. The checks of a whole operand (limit, canonical, write access of what is read to be written)
 * come before paging's of its first byte; translated code and the soft TLB see pages and loads
 * alone.
 */
#include "guest/x86/rows.h"
#include "guest/x86/x86_internal.h"

/* The bytes of the instruction at lip, as far as they are mapped. */
static unsigned read_code(struct x86_cpu *cpu, u8 code[15])
{
    unsigned done = 0;

    while (done < 15) {
        u64 gva = cpu->lip + done;
        unsigned part = 4096 - (gva & 4095);
        struct guest_page page;

        if (part > 15 - done)
            part = 15 - done;
        if (x86_walk(&cpu->common, gva, GUEST_FETCH, false, true, &page) ||
            mem_read(cpu->common.mem, page.gpa | (gva & 4095), code + done, part))
            break;
        done += part;
    }
    return done;
}

bool x86_decode_at_lip(struct x86_cpu *cpu, struct x86_insn *in)
{
    u8 code[15];
    unsigned avail;

    if (!cpu->common.mem)
        return false;
    avail = read_code(cpu, code);
    return x86_decode(in, code, avail, 2u << (cpu->common.mode & X86_MODE_CODE_MASK)) ==
           X86_DECODE_OK;
}

bool x86_uses_stack(const struct x86_insn *in)
{
    u8 opcode = in->opcode;

    if (in->map)
        return opcode == 0xa0 || opcode == 0xa1 || opcode == 0xa8 || opcode == 0xa9;
    if (opcode == 0xff)
        return (in->reg & 7) == 2 || (in->reg & 7) == 3 || (in->reg & 7) == 6;
    return (opcode >= 0x50 && opcode <= 0x5f) || opcode == 0x68 || opcode == 0x6a ||
           opcode == 0x8f || opcode == 0x9c || opcode == 0x9d || opcode == 0xc2 || opcode == 0xc3 ||
           (opcode >= 0xc8 && opcode <= 0xcb) || opcode == 0xcf || opcode == 0xe8;
}

/* Lockable instructions, shifts and rotates read their destination to write it. */
static bool modifies_memory(const struct x86_insn *in)
{
    u8 opcode = in->opcode;

    if (in->row->flags & X86_ROW_LOCK)
        return true;
    if (in->map == X86_MAP_M0F)
        return opcode == 0xa4 || opcode == 0xa5 || opcode == 0xac || opcode == 0xad;
    return in->map == X86_MAP_M1 &&
           (opcode == 0xc0 || opcode == 0xc1 || (opcode >= 0xd0 && opcode <= 0xd3));
}

/* BT, BTS, BTR, BTC with the bit's number in a register: where its word is from the operand on. */
static u64 bit_offset(const struct x86_cpu *cpu, const struct x86_insn *in)
{
    u8 opcode = in->opcode;
    unsigned size = in->operand_size;
    s64 bit;

    if (in->map != X86_MAP_M0F ||
        (opcode != 0xa3 && opcode != 0xab && opcode != 0xb3 && opcode != 0xbb))
        return 0;
    bit = sign_extend(cpu->gpr[in->op[1].reg], size * 8);
    return (u64)(bit >> (3 + __builtin_ctz(size))) * size;
}

static u64 effective_address(const struct x86_cpu *cpu, const struct x86_insn *in,
                             const struct x86_operand *op)
{
    u64 ea = (u64)in->disp;

    switch (op->kind) {
    case X86_OP_MOFFS:
        ea = op->value;
        break;
    case X86_OP_STR_SRC:
        ea = cpu->gpr[X86_RSI];
        break;
    case X86_OP_STR_DST:
        ea = cpu->gpr[X86_RDI];
        break;
    default:
        if (in->base == -2)
            ea += cpu->lip + in->length;
        else if (in->base >= 0)
            ea += cpu->gpr[in->base];
        if (in->index >= 0)
            ea += cpu->gpr[in->index] << in->scale;
        if (in->map == X86_MAP_M1 && in->opcode == 0x8f && in->base == X86_RSP)
            ea += op->size; /* POP: counts with rSP already raised */
        ea += bit_offset(cpu, in);
    }
    return ea & mask_low(in->address_size * 8);
}

static unsigned operand_bytes(const struct x86_insn *in, const struct x86_operand *op)
{
    bool cmpxchg8b = in->map == X86_MAP_M0F && in->opcode == 0xc7 && (in->reg & 7) == 1;

    return cmpxchg8b ? in->rex & 8 ? 16 : 8 : op->size;
}

static bool is_memory(const struct x86_operand *op)
{
    return op->kind == X86_OP_MEM || op->kind == X86_OP_MOFFS || op->kind == X86_OP_STR_SRC ||
           op->kind == X86_OP_STR_DST;
}

/* Fills in where @bytes at @offset of @segment are; true if @gva is one of them. */
static bool place(const struct x86_cpu *cpu, unsigned segment, u64 offset, unsigned bytes, u64 gva,
                  struct x86_memory_operand *m)
{
    const struct x86_seg *seg = &cpu->seg[segment];

    m->bytes = bytes;
    m->stack = segment == X86_SS;
    if (x86_code64(cpu)) {
        u64 base = segment == X86_FS || segment == X86_GS ? seg->base : 0;

        m->linear = base + offset;
        m->outside = !x86_canonical(cpu, m->linear) || !x86_canonical(cpu, m->linear + bytes - 1);
        return gva - m->linear < bytes;
    }
    m->linear = (u32)(seg->base + offset);
    m->outside = offset + bytes - 1 > 0xffffffff;
    return gva - m->linear < bytes;
}

/* BOUND reads its two limits one after the other. */
static bool find_bound(const struct x86_cpu *cpu, const struct x86_insn *in, u64 gva,
                       struct x86_memory_operand *m)
{
    u64 ea = effective_address(cpu, in, &in->op[1]);
    unsigned size = in->operand_size;

    return place(cpu, in->segment, ea, size, gva, m) ||
           place(cpu, in->segment, ea + size, size, gva, m);
}

bool x86_find_memory_operand(struct x86_cpu *cpu, u64 gva, struct x86_memory_operand *m)
{
    struct x86_insn in;

    if (!x86_decode_at_lip(cpu, &in))
        return false;
    if (in.map == X86_MAP_M1 && in.opcode == 0x62) {
        m->modified = false;
        return find_bound(cpu, &in, gva, m);
    }
    m->modified = false;
    if (in.map == X86_MAP_M1 && in.opcode == 0x8f && /* POP reads the stack first */
        place(cpu, X86_SS, cpu->gpr[X86_RSP] & x86_stack_mask(cpu), in.operand_size, gva, m))
        return true;
    for (unsigned i = 0; i < 3; i++) {
        const struct x86_operand *op = &in.op[i];

        unsigned bytes = operand_bytes(&in, op);

        if (!is_memory(op) || !bytes)
            continue;
        m->modified = i == 0 && modifies_memory(&in);
        if (place(cpu, op->kind == X86_OP_STR_DST ? X86_ES : in.segment,
                  effective_address(cpu, &in, op), bytes, gva, m))
            return true;
    }
    m->modified = false;
    if (!x86_uses_stack(&in))
        return false;
    /* What is pushed lies below, what is popped above the stack pointer. */
    for (unsigned i = 0; i < 2; i++) {
        u64 sp = cpu->gpr[X86_RSP] - (i ? in.operand_size : 0);

        if (place(cpu, X86_SS, sp & x86_stack_mask(cpu), in.operand_size, gva, m))
            return true;
    }
    return false;
}

bool x86_access_is_stack(struct x86_cpu *cpu, u64 gva)
{
    struct x86_memory_operand m;
    struct x86_insn in;
    bool memory;

    if (x86_find_memory_operand(cpu, gva, &m))
        return m.stack;
    /* One of several accesses. */
    if (!x86_decode_at_lip(cpu, &in))
        return false;
    memory = in.has_modrm && in.mod != 3;
    if (memory && in.segment == X86_SS)
        return true;
    return x86_uses_stack(&in) && (!memory || gva - (cpu->gpr[X86_RSP] - 64) < 128);
}

/* Takes back what the near branch @in did to registers; false if it is none. */
static bool undo_branch(struct x86_cpu *cpu, const struct x86_insn *in)
{
    u64 *gpr = cpu->gpr, mask = mask_low(in->address_size * 8);
    u8 opcode = in->opcode;

    if (in->map == X86_MAP_M0F)
        return opcode >= 0x80 && opcode <= 0x8f;
    if (in->map != X86_MAP_M1)
        return false;
    switch (opcode) {
    case 0xc2:
    case 0xc3:
        gpr[X86_RSP] -= in->operand_size + in->imm;
        return true;
    case 0xe0: /* LOOPNE, LOOPE, LOOP */
    case 0xe1:
    case 0xe2:
        gpr[X86_RCX] = (gpr[X86_RCX] + 1) & mask;
        return true;
    case 0xe8:
        gpr[X86_RSP] += in->operand_size;
        return true;
    case 0xe3:
    case 0xe9:
    case 0xeb:
        return true;
    case 0xff:
        return (in->reg & 7) == 4;
    }
    return opcode >= 0x70 && opcode <= 0x7f;
}

/* A branch to a non-canonical address is #GP(0) of its own (SDM vol. 2 RET, JMP, CALL). No
 * translation is ever found there, so only a search that fails has to look. Running on into such an
 * address is not a branch: the next fetch faults. */
void x86_jumped(struct guest_cpu *common, u64 from)
{
    struct x86_cpu *cpu = x86_cpu(common);
    u64 to = cpu->lip;
    struct x86_insn in;

    if (likely(x86_canonical(cpu, to)) || !x86_code64(cpu))
        return;
    cpu->lip = from;
    if (x86_decode_at_lip(cpu, &in) && to != from + in.length && undo_branch(cpu, &in)) {
        x86_pmu_unretired(cpu);
        x86_raise_error(cpu, X86_GP, 0);
    }
    cpu->lip = to;
}
