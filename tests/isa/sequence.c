/*
 * Random sequences: instructions of the tables one after the other, on registers and a small window
 * of memory through two pointers, with forward branches, counted loops, calls and indirect jumps.
 * Whatever leaves something undefined is followed by what defines it, or left out.
 */
#include "isa.h"

#include <string.h>

#include "guest/x86/state.h"

/* Reserved registers: two pointers, the counter of loops. */
struct roles {
    u8 pointer[2], counter;
    u8 rm[2]; /* of ModRM with mod 1: [pointer + disp8] */
};

static const struct roles *roles_of(unsigned bits)
{
    static const struct roles roles16 = {{3, 5}, 7, {7, 6}}, roles32 = {{5, 6}, 7, {5, 6}},
                              roles64 = {{14, 13}, 15, {6, 5}};

    return bits == 64 ? &roles64 : bits == 32 ? &roles32 : &roles16;
}

static bool reserved(unsigned bits, unsigned reg)
{
    const struct roles *r = roles_of(bits);

    return reg == r->pointer[0] || reg == r->pointer[1] || reg == r->counter || reg == X86_RSP;
}

static bool usable(const struct x86_row *row)
{
    /* Control flow is made here; the others change reserved registers, need set-up, would end most
     * sequences, or leave what CPUs differ in. */
    static const char *const never[] = {
        "jmp",   "call",   "ret",    "jcc",     "loop",     "loope",      "loopne",       "jcxz",
        "popf",  "popa",   "enter",  "leave",   "xlat",     "maskmovdqu", "mmx_maskmovq", "movs",
        "stos",  "lods",   "cmps",   "scas",    "fldenv",   "frstor",     "fnsave",       "fnstenv",
        "fcomi", "fcomip", "fucomi", "fucomip", "cvtpi2ps", "ldmxcsr",    "fldcw",        "bound",
        "into",  "int3",   "ud0",    "ud1",     "ud2",      "shld",       "shrd",         NULL};

    return isa_testable(row) && !isa_named(row, never) &&
           !(row->flags & (X86_ROW_ENDS | X86_ROW_PROT | X86_ROW_CPL0));
}

static bool allowed(const struct x86_insn *in, unsigned bits)
{
    static const char *const divisions[] = {"div", "idiv", "aam", NULL};
    static const char *const bit_strings[] = {"bt", "bts", "btr", "btc", NULL};

    for (unsigned i = 0; i < 3; i++) {
        const struct x86_operand *op = &in->op[i];

        if (op->kind == X86_OP_MOFFS || op->kind == X86_OP_FAR || op->kind == X86_OP_REL ||
            op->kind == X86_OP_SEG)
            return false;
        if (op->kind == X86_OP_REG &&
            (reserved(bits, op->reg) || (op->size == 1 && reserved(bits, op->reg & 3))))
            return false;
    }
    if (in->op[0].kind == X86_OP_MEM && in->op[1].kind == X86_OP_REG &&
        isa_named(in->row, bit_strings))
        return false;
    if (!strcmp(in->row->name, "bswap") && in->operand_size == 2)
        return false;
    return !isa_named(in->row, divisions) || !isa_random(8);
}

static u8 displacement(unsigned size)
{
    return (u8)(size >= 16 || isa_random(4) ? isa_random(256) & 0xf0 : isa_random(256));
}

/* One instance of @row: its code in @item, false if this draw is of no use. */
static bool instance(struct isa_item *item, const struct x86_row *row, unsigned bits)
{
    static const u8 mandatory[] = {0, 0, 0x66, 0xf3, 0xf2, 0};
    static const u8 escapes[X86_MAPS][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    const struct roles *roles = roles_of(bits);
    unsigned n = 0, pointer = isa_random(2);
    struct x86_insn in;
    u8 code[32], rex = 0x40 | (isa_random(2) ? 8 : 0), modrm;
    u8 *displaced = NULL;

    if (row->flags & (bits == 64 ? X86_ROW_I64 : X86_ROW_O64))
        return false;
    if (row->prefix == X86_PFX_ANY && !(row->flags & X86_ROW_F64) && !isa_random(4))
        code[n++] = 0x66;
    if (mandatory[row->prefix])
        code[n++] = mandatory[row->prefix];
    modrm = isa_random_modrm(row);
    if (modrm < 0xc0 && row->modrm != X86_MODRM_NONE) {
        if (row->flags & X86_ROW_LOCK && !isa_random(8))
            code[n++] = 0xf0;
        modrm = (u8)((modrm & 0x38) | 0x40 | roles->rm[pointer]);
        rex |= 1;
    } else {
        rex |= isa_random(2) ? 1 : 0;
    }
    rex |= isa_random(2) ? 4 : 0;
    if (bits == 64)
        code[n++] = rex;
    for (unsigned i = 0; i < 2; i++)
        if (escapes[row->map][i])
            code[n++] = escapes[row->map][i];
    code[n++] = (u8)(row->opcode + isa_random(x86_row_span(row)));
    if (row->modrm != X86_MODRM_NONE) {
        code[n++] = modrm;
        displaced = modrm < 0xc0 ? &code[n++] : NULL;
    }
    for (unsigned i = 0; i < 10; i++)
        code[n + i] = (u8)isa_random(256);
    if (displaced)
        *displaced = 0;
    if (x86_decode(&in, code, sizeof(code), bits / 8) != X86_DECODE_OK || in.row != row ||
        !allowed(&in, bits))
        return false;
    if (displaced)
        *displaced = displacement(in.op[0].kind == X86_OP_MEM ? in.op[0].size : in.op[1].size);
    memcpy(item->code, code, in.length);
    item->length = in.length;
    if (isa_leaves_flags(row)) {
        memcpy(item->code + item->length, "\x39\xc8", 2); /* CMP eax, ecx */
        item->length += 2;
    }
    return true;
}

/* An instance of some row of at most four bytes, made that by NOPs. */
static bool four_bytes(struct isa_item *item, unsigned bits)
{
    for (unsigned tries = 0; tries < 400; tries++) {
        const struct x86_row *row = &x86_rows[isa_random(x86_rows_count)];

        if (usable(row) && instance(item, row, bits) && item->length <= 4) {
            memset(item->code + item->length, 0x90, 4u - item->length);
            item->length = 4;
            return true;
        }
    }
    return false;
}

static struct isa_item *add(struct isa_sequence *s)
{
    struct isa_item *item = &s->items[s->count++];

    memset(item, 0, sizeof(*item));
    return item;
}

static void add_bytes(struct isa_sequence *s, const char *code, unsigned length)
{
    struct isa_item *item = add(s);

    memcpy(item->code, code, length);
    item->length = (u8)length;
}

/* @balanced: the stack is to stay where it is, in functions and loops. */
static void add_plain(struct isa_sequence *s, bool balanced)
{
    static const char *const stack[] = {"push", "pop", "pushf", "pusha", NULL};
    struct isa_item *item = add(s);

    for (;;) {
        const struct x86_row *row = &x86_rows[isa_random(x86_rows_count)];

        if (usable(row) && !(balanced && isa_named(row, stack)) && instance(item, row, s->c.bits))
            return;
    }
}

/* @code, then a displacement to item @target (to be filled in, if 0). */
static struct isa_item *add_branch(struct isa_sequence *s, const char *code, unsigned length,
                                   unsigned target)
{
    struct isa_item *item;

    add_bytes(s, code, length);
    item = &s->items[s->count - 1];
    item->displacement = (u8)length;
    item->length = item->displaced_from = (u8)(length + (s->c.bits == 16 ? 2 : 4));
    item->target = target;
    return item;
}

static void add_forward_jump(struct isa_sequence *s)
{
    char jcc[2] = {0x0f, (char)(0x80 + isa_random(16))};
    unsigned target = s->count + 1 + isa_random(12);
    struct isa_item *item;

    if (s->c.bits == 64 && !isa_random(4)) { /* LEA rax, target; JMP rax */
        item = add_branch(s, "\x48\x8d\x05", 3, target);
        memcpy(item->code + item->length, "\xff\xe0", 2);
        item->length += 2;
    } else if (!isa_random(5)) {
        add_branch(s, "\xe9", 1, target);
    } else {
        add_branch(s, jcc, 2, target);
    }
}

static void add_call(struct isa_sequence *s)
{
    struct isa_item *over;
    unsigned body = isa_random(5) + 1, first, group = s->count + 1;

    add_branch(s, "\xe8", 1, s->count + 2)->group = group;
    over = add_branch(s, "\xe9", 1, 0);
    first = s->count;
    while (body--)
        add_plain(s, true);
    add_bytes(s, "\xc3", 1);
    s->items[s->count - 1].group = over->group = group;
    over->target = s->count;
    /* Nobody may jump into the function. */
    for (unsigned i = 0; i + 2 < first; i++)
        if (s->items[i].displacement && s->items[i].target >= first &&
            s->items[i].target < s->count)
            s->items[i].target = s->count;
}

/* MOV counter, n; the end of the loop is SUB counter, 1; JG first. */
static void add_loop_head(struct isa_sequence *s)
{
    u32 n = isa_random(8) ? 1 + isa_random(20) : 100 + isa_random(400);
    unsigned counter = roles_of(s->c.bits)->counter;
    char code[8] = {0x41, (char)(0xb8 + (counter & 7))};
    unsigned at = s->c.bits == 64 ? 0 : 1;

    memcpy(code + 2, &n, 4);
    add_bytes(s, code + at, (s->c.bits == 16 ? 4 : 6) - at);
}

static void add_loop_end(struct isa_sequence *s, unsigned first)
{
    char code[] = {0x41, (char)0x83, (char)(0xe8 | (roles_of(s->c.bits)->counter & 7)),
                   1,    0x0f,       (char)0x8f};
    unsigned at = s->c.bits == 64 ? 0 : 1;

    add_branch(s, code + at, sizeof(code) - at, first);
}

/* LEA rdi, [r14 + d]; LEA rsi, [r13 + d]; MOV ecx, n; a string instruction. */
static void add_string(struct isa_sequence *s)
{
    static const u8 opcodes[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    char code[16] = {0x49,       (char)0x8d,           0x7e, (char)isa_random(256),
                     0x49,       (char)0x8d,           0x75, (char)isa_random(256),
                     (char)0xb9, (char)isa_random(12), 0,    0,
                     0};
    unsigned n = 13;

    if (isa_random(3))
        code[n++] = (char)(isa_random(2) ? 0xf2 : 0xf3);
    if (isa_random(2))
        code[n++] = 0x48;
    code[n++] = (char)opcodes[isa_random(ARRAY_SIZE(opcodes))];
    add_bytes(s, code, n);
}

/* A store of the four bytes @code to item @target: by MOV, XCHG, or REP STOSD. */
static struct isa_item *add_code_store(struct isa_sequence *s, const u8 *code, unsigned target)
{
    unsigned kind = isa_random(s->c.bits == 64 ? 3 : 2);
    struct isa_item *item = add(s);
    u8 *p = item->code;

    if (kind == 0) { /* MOV dword [target], code */
        memcpy(p, "\xc7\x05", 2);
        item->displacement = 2;
        memcpy(p + 6, code, 4);
        item->length = 10;
    } else if (kind == 1) { /* MOV eax, code; XCHG [target], eax */
        p[0] = 0xb8;
        memcpy(p + 1, code, 4);
        memcpy(p + 5, "\x87\x05", 2);
        item->displacement = 7;
        item->length = 11;
    } else { /* LEA rdi, [target]; MOV eax, code; MOV ecx, 1; REP STOSD */
        memcpy(p, "\x48\x8d\x3d", 3);
        item->displacement = 3;
        p[7] = 0xb8;
        memcpy(p + 8, code, 4);
        memcpy(p + 12, "\xb9\x01\0\0\0\xf3\xab", 7);
        item->length = 19;
    }
    if (s->c.bits == 64)
        item->displaced_from = kind == 2 ? 7 : item->length;
    item->target = target;
    return item;
}

/* Code that changes code: soon to be run, or run before, in a loop again. */
static void add_self_modification(struct isa_sequence *s, bool balanced)
{
    struct isa_item fresh = {0}, *item;
    unsigned between = isa_random(6), target = s->count + 1 + between, group = s->count + 1;

    if (!four_bytes(&fresh, s->c.bits))
        return;
    if (s->patched && isa_random(3)) {
        item = &s->items[s->patched];
        group = item->group;
        add_code_store(s, fresh.code, s->patched)->group = group;
        return;
    }
    add_code_store(s, fresh.code, target)->group = group;
    while (between--)
        add_plain(s, balanced);
    item = add(s);
    if (!four_bytes(item, s->c.bits))
        memcpy(item->code, "\x90\x90\x90\x90", item->length = 4);
    item->group = group;
    s->patched = s->count - 1;
}

static void add_one(struct isa_sequence *s, unsigned *loop, unsigned *loop_left)
{
    unsigned kind = isa_random(60);

    if (kind == 59 && s->c.bits != 16) {
        add_self_modification(s, *loop);
    } else if (kind < 6) {
        add_forward_jump(s);
    } else if (kind < 8) {
        add_call(s);
    } else if (kind == 8 && s->c.bits == 64) {
        add_string(s);
    } else if (kind < 12 && !*loop) {
        add_loop_head(s);
        *loop = s->count;
        *loop_left = 2 + isa_random(25);
    } else {
        add_plain(s, *loop);
    }
    if (*loop && !(*loop_left)--) {
        add_loop_end(s, *loop);
        *loop = 0;
    }
}

bool isa_assemble(struct isa_sequence *s)
{
    unsigned offset[ISA_ITEMS + 1], at = 0;

    for (unsigned i = 0; i < s->count; i++) {
        offset[i] = at;
        at += s->items[i].off ? 0 : s->items[i].length;
    }
    offset[s->count] = at;
    if (at >= s->c.text_slot)
        return false;
    memset(s->text, 0xcc, s->c.text_slot);
    for (unsigned i = 0; i < s->count; i++) {
        const struct isa_item *item = &s->items[i];
        unsigned target = item->target < s->count ? item->target : s->count;
        u32 relative = offset[target] - (offset[i] + item->displaced_from);

        if (item->off)
            continue;
        if (item->displacement && !item->displaced_from) /* an address of 32-bit code */
            relative = (u32)s->c.in.rip + offset[target];
        memcpy(s->text + offset[i], item->code, item->length);
        if (item->displacement)
            memcpy(s->text + offset[i] + item->displacement, &relative, s->c.bits == 16 ? 2 : 4);
    }
    s->c.text = s->text;
    s->c.text_size = at;
    return true;
}

bool isa_generate_sequence(struct isa_sequence *s, unsigned bits, unsigned length, unsigned slot,
                           unsigned number)
{
    static const struct x86_row sequence = {.name = "sequence", .flags = X86_ROW_SSE};
    const struct roles *roles = roles_of(bits);
    u64 window = ISA_DATA + (isa_random(2) ? 2048 : 4096);
    unsigned loop = 0, loop_left = 0;
    u64 *gpr = s->c.in.gpr;
    u32 mxcsr;

    memset(s, 0, sizeof(*s));
    s->c.row = &sequence;
    s->c.bits = bits;
    isa_random_state(&s->c.in, bits);
    s->c.in.rflags &= ~(u64)X86_FLAG_TF;
    s->c.text_slot = slot;
    s->c.in.rip = ISA_CODE + number * slot - isa_code_base(&s->c);
    gpr[X86_RSP] = ISA_DATA - isa_data_base(&s->c) + 7168;
    gpr[roles->pointer[0]] = window - isa_data_base(&s->c);
    gpr[roles->pointer[1]] = window - isa_data_base(&s->c) + 0x30;
    gpr[roles->counter] = isa_random(4);
    s->c.fault_undefined = X86_FLAGS_ARITH;
    if (isa_random(16)) { /* most with all exceptions masked */
        s->c.in.fx[0] |= 0x3f;
        s->c.in.fx[2] = 0;
        s->c.in.fx[3] &= 0x7f;
        memcpy(&mxcsr, s->c.in.fx + 24, 4);
        mxcsr |= 0x1f80;
        memcpy(s->c.in.fx + 24, &mxcsr, 4);
    }
    while (s->count < length)
        add_one(s, &loop, &loop_left);
    if (loop)
        add_loop_end(s, loop);
    return isa_assemble(s);
}
