#include "ir/eval.h"
#include "ir/private.h"
#include "ir/text.h"

enum ir_form ir_form(enum ir_op op)
{
    switch (op) {
    case IR_const:
        return IR_FORM_CONST;
    case IR_get:
    case IR_put:
    case IR_dput:
        return IR_FORM_SLOT;
    case IR_ld:
    case IR_st:
    case IR_acas:
    case IR_axchg:
    case IR_aadd:
    case IR_aand:
    case IR_aor:
    case IR_axor:
        return IR_FORM_MEMORY;
    case IR_call:
        return IR_FORM_CALL;
    case IR_set:
        return IR_FORM_SET;
    case IR_jump:
        return IR_FORM_JUMP;
    case IR_branch:
        return IR_FORM_BRANCH;
    case IR_insn:
        return IR_FORM_INSN;
    case IR_goto:
    case IR_goto_if:
        return IR_FORM_PC;
    case IR_base:
        return IR_FORM_BASE;
    default:
        return IR_FORM_PLAIN;
    }
}

static void print_signed(FILE *out, const char *head, s64 value)
{
    u64 magnitude = value < 0 ? 0 - (u64)value : (u64)value;

    fprintf(out, "%s%c 0x%" PRIx64, head, value < 0 ? '-' : '+', magnitude);
}

/* Operands from number @k on, separated by commas, the first after @before. */
static void print_operands(const struct ir_inst *inst, unsigned k, const char *before, FILE *out)
{
    for (; k < 4 && ir_operand(inst, k); k++) {
        fprintf(out, "%s%%%u", before, ir_operand(inst, k));
        before = ", ";
    }
}

static void print_memory(const struct ir_inst *inst, FILE *out)
{
    fprintf(out, " [%%%u", inst->a);
    if (inst->imm)
        print_signed(out, " ", (s64)inst->imm);
    fputc(']', out);
    print_operands(inst, 1, ", ", out);
}

static void print_call(const struct ir_unit *unit, const struct ir_inst *inst, FILE *out)
{
    if (inst->imm < unit->nhelpers)
        fprintf(out, " @%s", unit->helpers[inst->imm].name);
    else
        fprintf(out, " @%" PRIu64, inst->imm);
    print_operands(inst, 0, ", ", out);
}

static void print_rest(const struct ir_unit *unit, const struct ir_inst *inst, FILE *out)
{
    switch (ir_form(inst->op)) {
    case IR_FORM_CONST:
        fprintf(out, " 0x%" PRIx64, inst->imm);
        break;
    case IR_FORM_SLOT:
        fprintf(out, " s[%" PRIu64 "]", inst->imm);
        print_operands(inst, 0, ", ", out);
        break;
    case IR_FORM_MEMORY:
        print_memory(inst, out);
        break;
    case IR_FORM_CALL:
        print_call(unit, inst, out);
        break;
    case IR_FORM_SET:
        fprintf(out, " %%%" PRIu64 ", %%%u", inst->imm, inst->a);
        break;
    case IR_FORM_JUMP:
        fprintf(out, " block %" PRIu64, inst->imm);
        break;
    case IR_FORM_BRANCH:
        fprintf(out, " %%%u, block %u, block %u", inst->a, (u32)inst->imm, (u32)(inst->imm >> 32));
        break;
    case IR_FORM_INSN:
        fprintf(out, " 0x%x, %u", (u32)inst->imm, (u32)(inst->imm >> 32));
        break;
    case IR_FORM_PC:
        print_operands(inst, 0, " ", out);
        print_signed(out, inst->a ? ", base " : " base ", (s64)inst->imm);
        break;
    case IR_FORM_BASE:
        if (inst->imm)
            print_signed(out, " ", (s64)inst->imm);
        break;
    case IR_FORM_PLAIN:
        print_operands(inst, 0, " ", out);
        if (ir_op_shape[inst->op].has_imm)
            fprintf(out, "%s%" PRIu64, inst->a ? ", " : " ", inst->imm);
        break;
    }
}

static void print_inst(const struct ir_unit *unit, ir_ref ref, FILE *out)
{
    const struct ir_inst *inst = &unit->insts[ref];
    char head[16] = "";

    if (inst->type != IR_VOID)
        snprintf(head, sizeof(head), "%%%u =", ref);
    fprintf(out, inst->op == IR_insn ? "%6s %s" : "%8s %s", head, ir_op_info[inst->op].name);
    if (ir_op_shape[inst->op].result == 'T' && inst->type != IR_VOID)
        fprintf(out, ".%s", ir_type_name(inst->type));
    print_rest(unit, inst, out);
    fputc('\n', out);
}

/* The block that is laid out after @first, or nblocks. */
static u32 next_block(const struct ir_unit *unit, u32 first)
{
    u32 found = unit->nblocks;

    for (u32 b = 0; b < unit->nblocks; b++) {
        if (unit->blocks[b].first > first &&
            (found == unit->nblocks || unit->blocks[b].first < unit->blocks[found].first))
            found = b;
    }
    return found;
}

void ir_print(const struct ir_unit *unit, FILE *out)
{
    for (u32 b = next_block(unit, 0); b < unit->nblocks;
         b = next_block(unit, unit->blocks[b].first)) {
        const struct ir_block *block = &unit->blocks[b];

        fprintf(out, "block %u:\n", b);
        for (ir_ref ref = block->first; ref < block->first + block->count; ref++) {
            if (unit->insts[ref].op != IR_NOP)
                print_inst(unit, ref, out);
        }
    }
}
