/* Registers, addresses and operands in IR. */
#include "guest/x86/lift.h"

enum ir_type lift_int_type(unsigned bytes)
{
    switch (bytes) {
    case 1:
        return IR_I8;
    case 2:
        return IR_I16;
    case 4:
        return IR_I32;
    }
    return IR_I64;
}

static u32 gpr_slot(unsigned reg)
{
    return X86_SLOT(gpr) + reg * 8;
}

/* Slots of general registers are read and written as i64 only, so that a get finds the put before
 * it whatever the sizes. */
ir_ref lift_reg(struct x86_lift *l, unsigned reg, unsigned bytes, bool high)
{
    ir_ref full = ir_get(l->u, IR_I64, gpr_slot(reg));

    if (bytes == 8)
        return full;
    if (high)
        return ir_extract(l->u, IR_I8, full, 8);
    return ir_trunc(l->u, lift_int_type(bytes), full);
}

void lift_set_reg(struct x86_lift *l, unsigned reg, unsigned bytes, bool high, ir_ref value)
{
    if (bytes == 4)
        value = ir_zext(l->u, IR_I64, value);
    else if (bytes < 4)
        value = ir_deposit(l->u, ir_get(l->u, IR_I64, gpr_slot(reg)), value, high ? 8 : 0);
    ir_put(l->u, gpr_slot(reg), value);
}

/* The low @bytes of an i64, zero-extended again. */
static ir_ref cut(struct x86_lift *l, ir_ref v, unsigned bytes)
{
    if (bytes == 8)
        return v;
    return ir_zext(l->u, IR_I64, ir_trunc(l->u, lift_int_type(bytes), v));
}

/* Base and index; IR_NONE if there is neither. To be added to: *@disp. */
static ir_ref registers_of_address(struct x86_lift *l, s64 *disp)
{
    const struct x86_insn *in = l->in;
    ir_ref sum = IR_NONE;

    *disp = in->disp;
    if (in->base == -2) {
        sum = ir_base_plus(l->u, *disp + l->next);
        *disp = 0;
    } else if (in->base >= 0) {
        sum = ir_get(l->u, IR_I64, gpr_slot((unsigned)in->base));
    }
    if (in->index >= 0) {
        ir_ref index = ir_get(l->u, IR_I64, gpr_slot((unsigned)in->index));

        if (in->scale)
            index = ir_shl(l->u, index, ir_const(l->u, IR_I8, in->scale));
        sum = sum ? ir_add(l->u, sum, index) : index;
    }
    return sum;
}

ir_ref lift_ea(struct x86_lift *l)
{
    s64 disp;
    ir_ref sum = registers_of_address(l, &disp);

    if (!sum)
        return ir_const(l->u, IR_I64, (u64)disp & mask_low(l->in->address_size * 8));
    if (disp)
        sum = ir_add(l->u, sum, ir_const(l->u, IR_I64, (u64)disp));
    return cut(l, sum, l->in->address_size);
}

static void check_alignment(struct x86_lift *l, ir_ref linear, unsigned bytes)
{
    if (l->mode & X86_MODE_AC && (bytes == 2 || bytes == 4 || bytes == 8))
        LIFT_CALL(l, IR_VOID, check_alignment, linear, ir_const(l->u, IR_I64, bytes), IR_NONE,
                  IR_NONE);
}

ir_ref lift_segment(struct x86_lift *l, unsigned segment, ir_ref offset, unsigned bytes, bool write)
{
    bool based = segment == X86_FS || segment == X86_GS;
    ir_ref linear = offset;

    if (lift_is64(l)) {
        if (based) {
            u32 slot = X86_SLOT(seg) + segment * sizeof(struct x86_seg);

            linear =
                ir_add(l->u, ir_get(l->u, IR_I64, slot + offsetof(struct x86_seg, base)), offset);
        }
    } else if (based || !(l->mode & X86_MODE_FLAT)) {
        linear = LIFT_CALL(l, IR_I64, seg_linear, ir_const(l->u, IR_I64, segment), offset,
                           ir_const(l->u, IR_I64, bytes | (write ? 256u : 0)), IR_NONE);
    }
    check_alignment(l, linear, bytes);
    return linear;
}

ir_ref lift_linear(struct x86_lift *l, unsigned bytes, bool write)
{
    return lift_segment(l, l->in->segment, lift_ea(l), bytes, write);
}

ir_ref lift_address(struct x86_lift *l, unsigned n, bool write)
{
    const struct x86_operand *op = &l->in->op[n];

    if (op->kind == X86_OP_MOFFS)
        return lift_segment(l, l->in->segment, ir_const(l->u, IR_I64, op->value), op->size, write);
    return lift_linear(l, op->size, write);
}

/* Linear address of operand @n, less *@disp: what is added to an address without being looked at is
 * left to the access. */
static ir_ref address_but(struct x86_lift *l, unsigned n, bool write, s64 *disp)
{
    const struct x86_insn *in = l->in;
    bool based = in->segment == X86_FS || in->segment == X86_GS;
    ir_ref sum, base = IR_NONE;

    if (in->op[n].kind != X86_OP_MEM || !lift_is64(l) || in->address_size != 8 ||
        l->mode & X86_MODE_AC) {
        *disp = 0;
        return lift_address(l, n, write);
    }
    sum = registers_of_address(l, disp);
    if (based)
        base = ir_get(l->u, IR_I64,
                      X86_SLOT(seg) + in->segment * (u32)sizeof(struct x86_seg) +
                          (u32)offsetof(struct x86_seg, base));
    if (base)
        return sum ? ir_add(l->u, base, sum) : base;
    if (sum)
        return sum;
    sum = ir_const(l->u, IR_I64, (u64)*disp);
    *disp = 0;
    return sum;
}

ir_ref lift_read(struct x86_lift *l, unsigned n)
{
    const struct x86_operand *op = &l->in->op[n];
    enum ir_type type = lift_int_type(op->size);
    ir_ref address;
    s64 disp;

    switch (op->kind) {
    case X86_OP_REG:
        return lift_reg(l, op->reg, op->size, op->high);
    case X86_OP_SEG:
        return ir_get(l->u, IR_I16,
                      X86_SLOT(seg) + op->reg * (u32)sizeof(struct x86_seg) +
                          (u32)offsetof(struct x86_seg, selector));
    case X86_OP_MEM:
    case X86_OP_MOFFS:
        address = address_but(l, n, false, &disp);
        return ir_ld(l->u, type, address, disp);
    }
    return ir_const(l->u, type, op->value & mask_low(op->size * 8));
}

void lift_write(struct x86_lift *l, unsigned n, ir_ref value)
{
    const struct x86_operand *op = &l->in->op[n];
    ir_ref address;
    s64 disp;

    if (op->kind == X86_OP_REG) {
        lift_set_reg(l, op->reg, op->size, op->high, value);
        return;
    }
    address = address_but(l, n, true, &disp);
    ir_st(l->u, address, disp, value);
}

unsigned lift_stack_width(const struct x86_lift *l)
{
    return lift_is64(l) ? 8 : l->mode & X86_MODE_SS32 ? 4 : 2;
}

void lift_stack_push(struct x86_lift *l, ir_ref value)
{
    unsigned bytes = ir_type_bytes(ir_typeof(l->u, value)), width = lift_stack_width(l);
    ir_ref sp = ir_get(l->u, IR_I64, gpr_slot(X86_RSP));

    sp = cut(l, ir_sub(l->u, sp, ir_const(l->u, IR_I64, bytes)), width);
    ir_st(l->u, lift_segment(l, X86_SS, sp, bytes, true), 0, value);
    lift_add_sp(l, -(s64)bytes);
}

ir_ref lift_stack_pop(struct x86_lift *l, enum ir_type type)
{
    ir_ref sp = cut(l, ir_get(l->u, IR_I64, gpr_slot(X86_RSP)), lift_stack_width(l));

    return ir_ld(l->u, type, lift_segment(l, X86_SS, sp, ir_type_bytes(type), false), 0);
}

void lift_add_sp(struct x86_lift *l, s64 bytes)
{
    unsigned width = lift_stack_width(l);
    ir_ref sp = lift_reg(l, X86_RSP, width, false);
    ir_ref step = ir_const(l->u, lift_int_type(width), (u64)bytes & mask_low(width * 8));

    lift_set_reg(l, X86_RSP, width, false, ir_add(l->u, sp, step));
}
