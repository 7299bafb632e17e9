/* Control transfer, software interrupts, hints. SDM vol. 1 7.3.8, 7.3.12, 7.3.14. */
#include "guest/x86/driver.h"
#include "guest/x86/lift.h"
#include "guest/x86/x86_internal.h"

void lift_xchg(struct x86_lift *l);

static ir_ref zext64(struct x86_lift *l, ir_ref v)
{
    return ir_typeof(l->u, v) == IR_I64 ? v : ir_zext(l->u, IR_I64, v);
}

static s64 destination(const struct x86_lift *l)
{
    return (s64)l->next + (s64)l->in->op[0].value;
}

void lift_jcc(struct x86_lift *l)
{
    l->branch = true;
    lift_goto_if(l, lift_condition(l, l->in->opcode & 15), destination(l));
}

void lift_jmp(struct x86_lift *l)
{
    l->branch = true;
    if (l->in->op[0].kind == X86_OP_REL)
        lift_goto(l, destination(l));
    else
        lift_goto_rip(l, zext64(l, lift_read(l, 0)));
}

void lift_call(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    bool relative = l->in->op[0].kind == X86_OP_REL;
    bool plain = relative && lift_is_plain(l, destination(l));
    ir_ref rip = lift_next_rip(l), to = IR_NONE;

    l->branch = true;
    if (!relative)
        to = zext64(l, lift_read(l, 0));
    else if (!plain)
        to = ir_add(l->u, rip, ir_const(l->u, IR_I64, l->in->op[0].value));
    if (!plain)
        to = lift_check_rip(l, to, !relative);
    lift_stack_push(l, size == 8 ? rip : ir_trunc(l->u, lift_int_type(size), rip));
    if (relative)
        lift_goto(l, destination(l));
    else
        lift_goto_rip(l, to);
}

void lift_ret(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref rip = lift_check_rip(l, zext64(l, lift_stack_pop(l, lift_int_type(size))), false);

    l->branch = true;
    lift_add_sp(l, size + (s64)l->in->imm);
    lift_goto_rip(l, rip);
}

/* LOOP, and LOOPE, LOOPNE with a condition beside the count. */
static void loop(struct x86_lift *l, ir_ref also)
{
    unsigned width = l->in->address_size;
    enum ir_type type = lift_int_type(width);
    ir_ref count = lift_reg(l, X86_RCX, width, false), cond;

    l->branch = true;
    count = ir_sub(l->u, count, ir_const(l->u, type, 1));
    cond = ir_ne(l->u, count, ir_const(l->u, type, 0));
    if (also)
        cond = ir_and(l->u, cond, also);
    lift_check_branch(l, cond, destination(l));
    lift_set_reg(l, X86_RCX, width, false, count);
    lift_goto_if(l, cond, destination(l));
}

void lift_loop(struct x86_lift *l)
{
    loop(l, IR_NONE);
}

void lift_loope(struct x86_lift *l)
{
    loop(l, lift_condition(l, 4));
}

void lift_loopne(struct x86_lift *l)
{
    loop(l, lift_condition(l, 5));
}

void lift_jcxz(struct x86_lift *l)
{
    unsigned width = l->in->address_size;
    ir_ref count = lift_reg(l, X86_RCX, width, false);

    l->branch = true;
    lift_goto_if(l, ir_eq(l->u, count, ir_const(l->u, lift_int_type(width), 0)), destination(l));
}

static void software_interrupt(struct x86_lift *l, u64 vector, u64 type)
{
    LIFT_CALL(l, IR_VOID, soft_interrupt, ir_const(l->u, IR_I64, vector),
              ir_const(l->u, IR_I64, type), ir_const(l->u, IR_I64, l->next - l->offset), IR_NONE);
    ir_exit(l->u, X86_EXIT_STATE);
}

void lift_int(struct x86_lift *l)
{
    software_interrupt(l, l->in->imm, X86_EVENT_SOFT_INT);
    l->ended = true;
}

void lift_int3(struct x86_lift *l)
{
    software_interrupt(l, X86_BP, X86_EVENT_SOFT_EXCEPTION);
    l->ended = true;
}

void lift_int1(struct x86_lift *l)
{
    software_interrupt(l, X86_DB, X86_EVENT_ICEBP);
    l->ended = true;
}

void lift_into(struct x86_lift *l)
{
    ir_ref of = lift_condition(l, 0);
    u32 raise = ir_block_new(l->u), go_on = ir_block_new(l->u);

    ir_branch(l->u, of, raise, go_on);
    ir_begin(l->u, raise);
    software_interrupt(l, X86_OF, X86_EVENT_SOFT_EXCEPTION);
    ir_begin(l->u, go_on);
}

void lift_bound(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    enum ir_type type = lift_int_type(size);
    ir_ref index = lift_read(l, 0), ea = lift_ea(l), lower, upper;

    lower = ir_ld(l->u, type, lift_segment(l, l->in->segment, ea, size, false), 0);
    ea = ir_add(l->u, ea, ir_const(l->u, IR_I64, size));
    upper = ir_ld(l->u, type, lift_segment(l, l->in->segment, ea, size, false), 0);
    lift_raise_if(l, ir_or(l->u, ir_slt(l->u, index, lower), ir_slt(l->u, upper, index)), X86_BR);
}

void lift_nop(struct x86_lift *l)
{
    (void)l;
}

void lift_prefetchw(struct x86_lift *l)
{
    (void)l;
}

/* A VMCS may intercept PAUSE. With REX.B it is an exchange with r8, whatever the prefix. */
void lift_pause(struct x86_lift *l)
{
    if (l->in->rex & 1) {
        lift_xchg(l);
        return;
    }
    if (l->mode & (X86_MODE_NONROOT | X86_MODE_PAUSE))
        LIFT_CALL(l, IR_VOID, intercept, ir_const(l->u, IR_I64, X86_REASON_PAUSE),
                  ir_const(l->u, IR_I64, l->next - l->offset), IR_NONE, IR_NONE);
}

void lift_lfence(struct x86_lift *l)
{
    ir_fence(l->u);
}

void lift_mfence(struct x86_lift *l)
{
    ir_fence(l->u);
}

void lift_sfence(struct x86_lift *l)
{
    ir_fence(l->u);
}

void lift_ud0(struct x86_lift *l)
{
    lift_raise(l, X86_UD);
}

void lift_ud1(struct x86_lift *l)
{
    lift_raise(l, X86_UD);
}

void lift_ud2(struct x86_lift *l)
{
    lift_raise(l, X86_UD);
}
