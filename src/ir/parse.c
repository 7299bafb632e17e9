#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ir/eval.h"
#include "ir/private.h"
#include "ir/text.h"

#define NUMBER_LIMIT 1000000u /* of %numbers and blocks */

struct parser {
    struct ir_unit *unit;
    struct err *err;
    const char *p;
    unsigned line;
    u32 *refs; /* %number -> reference, IR_NONE for none yet */
    u32 nrefs;
};

PRINTF_LIKE(2, 3)
static int wrong(struct parser *ps, const char *fmt, ...)
{
    char text[128];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(ps->err, -EINVAL, "line %u: %s", ps->line, text);
}

/*
 * Words
 */

static void skip_space(struct parser *ps)
{
    while (*ps->p == ' ' || *ps->p == '\t')
        ps->p++;
    if (*ps->p == ';') {
        while (*ps->p && *ps->p != '\n')
            ps->p++;
    }
}

static bool accept(struct parser *ps, const char *text)
{
    size_t len = strlen(text);

    skip_space(ps);
    if (strncmp(ps->p, text, len))
        return false;
    if (isalnum((u8)text[len - 1]) && (isalnum((u8)ps->p[len]) || ps->p[len] == '_'))
        return false;
    ps->p += len;
    return true;
}

static int expect(struct parser *ps, const char *text)
{
    return accept(ps, text) ? 0 : wrong(ps, "'%s' expected", text);
}

static int word(struct parser *ps, char *buf, size_t size)
{
    size_t len = 0;

    skip_space(ps);
    while (isalnum((u8)ps->p[len]) || ps->p[len] == '_')
        len++;
    if (!len || len >= size)
        return wrong(ps, "a name expected");
    memcpy(buf, ps->p, len);
    buf[len] = '\0';
    ps->p += len;
    return 0;
}

static int number(struct parser *ps, u64 max, u64 *value)
{
    char *end;

    skip_space(ps);
    if (!isdigit((u8)*ps->p))
        return wrong(ps, "a number expected");
    errno = 0;
    *value = strtoull(ps->p, &end, 0);
    if (errno || *value > max)
        return wrong(ps, "the number is too large");
    ps->p = end;
    return 0;
}

/* Nothing, or + or - and a number. */
static int displacement(struct parser *ps, u64 *value)
{
    bool minus;
    int rc;

    *value = 0;
    if (!(minus = accept(ps, "-")) && !accept(ps, "+"))
        return 0;
    rc = number(ps, ~0ull, value);
    if (minus)
        *value = 0 - *value;
    return rc;
}

static int percent(struct parser *ps, u64 *value)
{
    int rc = expect(ps, "%");

    return rc ? rc : number(ps, NUMBER_LIMIT, value);
}

static int operand(struct parser *ps, ir_ref *ref)
{
    u64 n;
    int rc = percent(ps, &n);

    if (rc)
        return rc;
    *ref = n < ps->nrefs ? ps->refs[n] : IR_NONE;
    return *ref ? 0 : wrong(ps, "%%%" PRIu64 " is not defined yet", n);
}

/* %1, %2 ... into operands from number @k on; @comma says that one must stand before the first. */
static int operands(struct parser *ps, struct ir_inst *inst, unsigned k, bool comma)
{
    ir_ref *refs[4] = {&inst->a, &inst->b, &inst->c, &inst->d};
    int rc = 0;

    for (; k < 4 && !rc; k++, comma = true) {
        const char *before = ps->p;

        if (comma && !accept(ps, ","))
            break;
        skip_space(ps);
        if (*ps->p != '%') {
            ps->p = before;
            break;
        }
        rc = operand(ps, refs[k]);
    }
    return rc;
}

/*
 * Instructions
 */

static int block_name(struct parser *ps, u64 *block)
{
    int rc = expect(ps, "block");

    return rc ? rc : number(ps, NUMBER_LIMIT, block);
}

static int slot(struct parser *ps, struct ir_inst *inst)
{
    int rc = expect(ps, "s[");

    if (!rc)
        rc = number(ps, ~0ull, &inst->imm);
    if (!rc)
        rc = expect(ps, "]");
    return rc ? rc : operands(ps, inst, 0, true);
}

static int memory(struct parser *ps, struct ir_inst *inst)
{
    int rc = expect(ps, "[");

    if (!rc)
        rc = operand(ps, &inst->a);
    if (!rc)
        rc = displacement(ps, &inst->imm);
    if (!rc)
        rc = expect(ps, "]");
    return rc ? rc : operands(ps, inst, 1, true);
}

static int call(struct parser *ps, struct ir_inst *inst)
{
    char name[64];
    int rc = expect(ps, "@");

    if (rc)
        return rc;
    if (isdigit((u8)*ps->p)) {
        rc = number(ps, ~0u, &inst->imm);
        return rc ? rc : operands(ps, inst, 0, true);
    }
    rc = word(ps, name, sizeof(name));
    if (rc)
        return rc;
    while (inst->imm < ps->unit->nhelpers && strcmp(ps->unit->helpers[inst->imm].name, name))
        inst->imm++;
    if (inst->imm == ps->unit->nhelpers)
        return wrong(ps, "no helper %s", name);
    return operands(ps, inst, 0, true);
}

/* "x, " and then @second into the halves of imm. */
static int two_halves(struct parser *ps, struct ir_inst *inst, bool blocks)
{
    u64 low = 0, high = 0;
    int rc = blocks ? block_name(ps, &low) : number(ps, ~0u, &low);

    if (!rc)
        rc = expect(ps, ",");
    if (!rc)
        rc = blocks ? block_name(ps, &high) : number(ps, ~0u, &high);
    inst->imm = low | high << 32;
    return rc;
}

static int branch(struct parser *ps, struct ir_inst *inst)
{
    int rc = operand(ps, &inst->a);

    if (!rc)
        rc = expect(ps, ",");
    return rc ? rc : two_halves(ps, inst, true);
}

/* imm is the phi's %number until the end, because the phi may come later. */
static int set(struct parser *ps, struct ir_inst *inst)
{
    int rc = percent(ps, &inst->imm);

    if (!rc)
        rc = expect(ps, ",");
    return rc ? rc : operand(ps, &inst->a);
}

static int to_pc(struct parser *ps, struct ir_inst *inst)
{
    int rc = operands(ps, inst, 0, false);

    if (!rc && inst->a)
        rc = expect(ps, ",");
    if (!rc)
        rc = expect(ps, "base");
    return rc ? rc : displacement(ps, &inst->imm);
}

static int plain(struct parser *ps, struct ir_inst *inst)
{
    int rc = operands(ps, inst, 0, false);

    if (rc || !ir_op_shape[inst->op].has_imm)
        return rc;
    if (inst->a && (rc = expect(ps, ",")))
        return rc;
    return number(ps, ~0ull, &inst->imm);
}

static int rest(struct parser *ps, struct ir_inst *inst)
{
    switch (ir_form(inst->op)) {
    case IR_FORM_CONST:
        return number(ps, ~0ull, &inst->imm);
    case IR_FORM_SLOT:
        return slot(ps, inst);
    case IR_FORM_MEMORY:
        return memory(ps, inst);
    case IR_FORM_CALL:
        return call(ps, inst);
    case IR_FORM_SET:
        return set(ps, inst);
    case IR_FORM_JUMP:
        return block_name(ps, &inst->imm);
    case IR_FORM_BRANCH:
        return branch(ps, inst);
    case IR_FORM_INSN:
        ps->unit->guest_insns++;
        return two_halves(ps, inst, false);
    case IR_FORM_PC:
        return to_pc(ps, inst);
    case IR_FORM_BASE:
        return displacement(ps, &inst->imm);
    default:
        return plain(ps, inst);
    }
}

static int op_and_type(struct parser *ps, struct ir_inst *inst)
{
    char name[32];
    int rc = word(ps, name, sizeof(name));

    if (rc)
        return rc;
    while (inst->op < IR_NOP && strcmp(ir_op_info[inst->op].name, name))
        inst->op++;
    if (inst->op == IR_NOP)
        return wrong(ps, "no operation %s", name);
    if (*ps->p != '.') {
        inst->type = ir_letter_type(ir_op_shape[inst->op].result);
        return 0;
    }
    ps->p++;
    rc = word(ps, name, sizeof(name));
    if (rc)
        return rc;
    while (inst->type < IR_TYPES && strcmp(ir_type_name(inst->type), name))
        inst->type++;
    return inst->type < IR_TYPES ? 0 : wrong(ps, "no type %s", name);
}

/* Makes %n the next instruction, which keeps its number if that is still free. */
static int define(struct parser *ps, u64 n)
{
    struct ir_inst nop = {.op = IR_NOP};

    while (n > ps->unit->ninsts && !ps->unit->failed)
        ir_append(ps->unit, &nop);
    if (n >= ps->nrefs) {
        u32 nrefs = n < 500 ? 1000 : 2 * n;
        u32 *refs = realloc(ps->refs, nrefs * sizeof(*refs));

        if (!refs)
            return err_set(ps->err, -ENOMEM, "no memory for the unit");
        memset(refs + ps->nrefs, 0, (nrefs - ps->nrefs) * sizeof(*refs));
        ps->refs = refs;
        ps->nrefs = nrefs;
    }
    if (ps->refs[n])
        return wrong(ps, "%%%" PRIu64 " is defined twice", n);
    ps->refs[n] = ps->unit->ninsts;
    return 0;
}

static int instruction(struct parser *ps)
{
    struct ir_inst inst = {0};
    u64 n = 0;
    bool named = *ps->p == '%';
    int rc = 0;

    if (named) {
        rc = percent(ps, &n);
        if (!rc)
            rc = expect(ps, "=");
    }
    if (!rc)
        rc = op_and_type(ps, &inst);
    if (!rc)
        rc = rest(ps, &inst);
    if (!rc && named != (inst.type != IR_VOID))
        rc = wrong(ps, named ? "%s has no value" : "the value of %s needs a name",
                   ir_op_info[inst.op].name);
    if (!rc && named)
        rc = define(ps, n);
    if (!rc)
        ir_append(ps->unit, &inst);
    return rc;
}

static int block_head(struct parser *ps)
{
    u64 block;
    int rc = number(ps, NUMBER_LIMIT, &block);

    if (!rc)
        rc = expect(ps, ":");
    if (rc)
        return rc;
    while (block >= ps->unit->nblocks && !ps->unit->failed)
        ir_block_new(ps->unit);
    if (!ps->unit->failed && ps->unit->blocks[block].count)
        return wrong(ps, "block %" PRIu64 " begins twice", block);
    ir_begin(ps->unit, block);
    return 0;
}

static int line(struct parser *ps)
{
    int rc = 0;

    skip_space(ps);
    if (accept(ps, "block"))
        rc = block_head(ps);
    else if (*ps->p && *ps->p != '\n')
        rc = instruction(ps);
    if (rc)
        return rc;
    skip_space(ps);
    if (*ps->p && *ps->p != '\n')
        return wrong(ps, "end of line expected");
    return 0;
}

static int resolve_sets(struct parser *ps)
{
    for (ir_ref ref = 1; ref < ps->unit->ninsts; ref++) {
        struct ir_inst *inst = &ps->unit->insts[ref];

        if (inst->op != IR_set)
            continue;
        if (inst->imm >= ps->nrefs || !ps->refs[inst->imm])
            return wrong(ps, "%%%" PRIu64 " is never defined", inst->imm);
        inst->imm = ps->refs[inst->imm];
    }
    return 0;
}

int ir_parse(struct ir_unit *unit, const char *text, struct err *err)
{
    struct parser ps = {.unit = unit, .err = err, .p = text};
    int rc = 0;

    while (*ps.p && !rc) {
        ps.line++;
        rc = line(&ps);
        if (*ps.p)
            ps.p++;
    }
    if (!rc)
        rc = resolve_sets(&ps);
    if (!rc && unit->failed)
        rc = err_set(err, -ENOMEM, "no memory for the unit");
    free(ps.refs);
    return rc;
}
