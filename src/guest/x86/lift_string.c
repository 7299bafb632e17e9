/*
 * String instructions. Without a repeat prefix they are lifted; with one a helper does as many
 * elements as it may between two looks at the request word (rep.c), and the unit runs the
 * instruction again while work is left. SDM vol. 1 7.3.9.
 */
#include "guest/x86/cc.h"
#include "guest/x86/driver.h"
#include "guest/x86/lift.h"

static ir_ref source(struct x86_lift *l, unsigned size)
{
    unsigned width = l->in->address_size;
    ir_ref at = lift_reg(l, X86_RSI, width, false);

    if (width != 8)
        at = ir_zext(l->u, IR_I64, at);
    return lift_segment(l, l->in->segment, at, size, false);
}

static ir_ref dest(struct x86_lift *l, unsigned size, bool write)
{
    unsigned width = l->in->address_size;
    ir_ref at = lift_reg(l, X86_RDI, width, false);

    if (width != 8)
        at = ir_zext(l->u, IR_I64, at);
    return lift_segment(l, X86_ES, at, size, write);
}

static void advance(struct x86_lift *l, unsigned reg, unsigned size)
{
    unsigned width = l->in->address_size;
    ir_ref step = ir_get(l->u, IR_I64, X86_SLOT(df));

    step = ir_shl(l->u, step, ir_const(l->u, IR_I8, (u64)__builtin_ctz(size)));
    if (width != 8)
        step = ir_trunc(l->u, lift_int_type(width), step);
    lift_set_reg(l, reg, width, false, ir_add(l->u, lift_reg(l, reg, width, false), step));
}

/* With a repeat prefix: all of it by helper. False without one. */
static bool repeated(struct x86_lift *l, enum x86_helper helper, unsigned size)
{
    const struct x86_insn *in = l->in;
    bool once = l->mode & X86_MODE_STEPPING;
    ir_ref left;

    if (!in->rep && !in->repne)
        return false;
    left = ir_call(l->u, IR_I64, helper,
                   ir_const(l->u, IR_I64,
                            size | in->address_size << 8 | (u32)in->segment << 16 |
                                (u32)in->repne << 24 | (u32)once << 25),
                   IR_NONE, IR_NONE, IR_NONE);
    lift_again_if(l, ir_ne(l->u, left, ir_const(l->u, IR_I64, 0)));
    return true;
}

void lift_movs(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;
    ir_ref v;

    if (repeated(l, X86_HELPER_rep_movs, size))
        return;
    v = ir_ld(l->u, lift_int_type(size), source(l, size), 0);
    ir_st(l->u, dest(l, size, true), 0, v);
    advance(l, X86_RSI, size);
    advance(l, X86_RDI, size);
}

void lift_stos(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;

    if (repeated(l, X86_HELPER_rep_stos, size))
        return;
    ir_st(l->u, dest(l, size, true), 0, lift_reg(l, X86_RAX, size, false));
    advance(l, X86_RDI, size);
}

void lift_lods(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;

    if (repeated(l, X86_HELPER_rep_lods, size))
        return;
    lift_set_reg(l, X86_RAX, size, false, ir_ld(l->u, lift_int_type(size), source(l, size), 0));
    advance(l, X86_RSI, size);
}

/* The helpers write the flags, when an element was compared. */
static bool repeated_compare(struct x86_lift *l, enum x86_helper helper, unsigned size)
{
    if (!l->in->rep && !l->in->repne)
        return false;
    lift_flags_changed(l);
    return repeated(l, helper, size);
}

void lift_cmps(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;
    ir_ref a, b;

    if (repeated_compare(l, X86_HELPER_rep_cmps, size))
        return;
    a = ir_ld(l->u, lift_int_type(size), source(l, size), 0);
    b = ir_ld(l->u, lift_int_type(size), dest(l, size, false), 0);
    advance(l, X86_RSI, size);
    advance(l, X86_RDI, size);
    lift_cc(l, X86_CC(SUB, size), a, b, IR_NONE);
}

void lift_scas(struct x86_lift *l)
{
    unsigned size = l->in->op[0].size;
    ir_ref a, b;

    if (repeated_compare(l, X86_HELPER_rep_scas, size))
        return;
    a = lift_reg(l, X86_RAX, size, false);
    b = ir_ld(l->u, lift_int_type(size), dest(l, size, false), 0);
    advance(l, X86_RDI, size);
    lift_cc(l, X86_CC(SUB, size), a, b, IR_NONE);
}
