/* x87: each instruction is a call of a helper that works on 80-bit values. SDM vol. 1 chapter 8. */
#include "guest/x86/lift.h"
#include "guest/x86/x87.h"

static ir_ref constant(struct x86_lift *l, u64 value)
{
    return ir_const(l->u, IR_I64, value);
}

/* A pending exception comes before what the operand's address may raise. */
static void wait_for_exceptions(struct x86_lift *l)
{
    ir_ref fsw = ir_get(l->u, IR_I16, X86_SLOT(fsw)), es = ir_const(l->u, IR_I16, X87_STATUS_ES);

    lift_raise_if(l, ir_ne(l->u, ir_and(l->u, fsw, es), ir_const(l->u, IR_I16, 0)), X86_MF);
}

/* Operand 0 in memory, as a linear address; 0 where there is none. */
static ir_ref address(struct x86_lift *l, bool write)
{
    const struct x86_operand *op = &l->in->op[0];

    if (op->kind != X86_OP_MEM)
        return constant(l, 0);
    wait_for_exceptions(l);
    return lift_linear(l, op->size, write);
}

/* The operand that is not ST(0): the code of a float, or of an integer format, or ST(i). */
static u64 other(struct x86_lift *l, bool integer)
{
    const struct x86_operand *op = &l->in->op[0];

    if (op->kind != X86_OP_MEM)
        return l->in->modrm & 7;
    switch (op->size) {
    case 2:
        return X87_I16;
    case 4:
        return integer ? X87_I32 : X87_M32;
    case 8:
        return integer ? X87_I64 : X87_M64;
    default:
        return X87_M80;
    }
}

static void arith(struct x86_lift *l, u64 operation, bool integer)
{
    /* DC and DE: the result goes to ST(i) in the register forms. */
    if (l->in->mod == 3 && l->in->opcode & 4)
        operation |= X87_TO_STI;
    LIFT_CALL(l, IR_VOID, x87_arith, constant(l, operation), constant(l, other(l, integer)),
              address(l, false), IR_NONE);
}

#define ARITH(name, operation)                                                                     \
    void lift_f##name(struct x86_lift *l)                                                          \
    {                                                                                              \
        arith(l, operation, false);                                                                \
    }                                                                                              \
    void lift_f##name##p(struct x86_lift *l)                                                       \
    {                                                                                              \
        arith(l, operation | X87_POP, false);                                                      \
    }                                                                                              \
    void lift_fi##name(struct x86_lift *l)                                                         \
    {                                                                                              \
        arith(l, operation, true);                                                                 \
    }
ARITH(add, X87_ADD)
ARITH(mul, X87_MUL)
ARITH(sub, X87_SUB)
ARITH(subr, X87_SUBR)
ARITH(div, X87_DIV)
ARITH(divr, X87_DIVR)

static void compare(struct x86_lift *l, u64 flags, bool integer)
{
    ir_ref eflags = LIFT_CALL(l, IR_I64, x87_compare, constant(l, flags),
                              constant(l, other(l, integer)), address(l, false), IR_NONE);

    if (flags & X87_EFLAGS)
        lift_set_eflags_arith(l, eflags);
}

#define COMPARE(name, flags, integer)                                                              \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        compare(l, flags, integer);                                                                \
    }
COMPARE(fcom, 0, false)
COMPARE(fcomp, 1, false)
COMPARE(fcompp, 2, false)
COMPARE(ficom, 0, true)
COMPARE(ficomp, 1, true)
COMPARE(fucom, X87_QUIET, false)
COMPARE(fucomp, X87_QUIET | 1, false)
COMPARE(fucompp, X87_QUIET | 2, false)
COMPARE(fcomi, X87_EFLAGS, false)
COMPARE(fcomip, X87_EFLAGS | 1, false)
COMPARE(fucomi, X87_EFLAGS | X87_QUIET, false)
COMPARE(fucomip, X87_EFLAGS | X87_QUIET | 1, false)
COMPARE(ftst, X87_WITH_ZERO, false)

static void load(struct x86_lift *l, u64 from)
{
    LIFT_CALL(l, IR_VOID, x87_load, constant(l, from), address(l, false), IR_NONE, IR_NONE);
}

void lift_fld(struct x86_lift *l)
{
    load(l, other(l, false));
}

void lift_fild(struct x86_lift *l)
{
    load(l, other(l, true));
}

void lift_fbld(struct x86_lift *l)
{
    load(l, X87_BCD);
}

static void store(struct x86_lift *l, u64 to, bool pop)
{
    LIFT_CALL(l, IR_VOID, x87_store, constant(l, to), address(l, true), constant(l, pop), IR_NONE);
}

void lift_fst(struct x86_lift *l)
{
    store(l, other(l, false), false);
}

void lift_fstp(struct x86_lift *l)
{
    store(l, other(l, false), true);
}

/* D9 D8+i, an opcode without a name in the SDM: FSTP that never meets a stack fault. */
void lift_fstpnce(struct x86_lift *l)
{
    store(l, other(l, false) | X87_UNCHECKED, true);
}

void lift_fist(struct x86_lift *l)
{
    store(l, other(l, true), false);
}

void lift_fistp(struct x86_lift *l)
{
    store(l, other(l, true), true);
}

void lift_fisttp(struct x86_lift *l)
{
    store(l, other(l, true) - X87_I16 + X87_I16_TRUNCATED, true);
}

void lift_fbstp(struct x86_lift *l)
{
    store(l, X87_BCD, true);
}

#define CONSTANT(name, number)                                                                     \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        LIFT_CALL(l, IR_VOID, x87_constant, constant(l, number), IR_NONE, IR_NONE, IR_NONE);       \
    }
CONSTANT(fld1, 0)
CONSTANT(fldl2t, 1)
CONSTANT(fldl2e, 2)
CONSTANT(fldpi, 3)
CONSTANT(fldlg2, 4)
CONSTANT(fldln2, 5)
CONSTANT(fldz, 6)

#define UNARY(name, code)                                                                          \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        LIFT_CALL(l, IR_VOID, x87_unary, constant(l, X87_##code), IR_NONE, IR_NONE, IR_NONE);      \
    }
UNARY(fchs, FCHS)
UNARY(fabs, FABS)
UNARY(fxam, FXAM)
UNARY(f2xm1, F2XM1)
UNARY(fyl2x, FYL2X)
UNARY(fptan, FPTAN)
UNARY(fpatan, FPATAN)
UNARY(fxtract, FXTRACT)
UNARY(fprem1, FPREM1)
UNARY(fdecstp, FDECSTP)
UNARY(fincstp, FINCSTP)
UNARY(fprem, FPREM)
UNARY(fyl2xp1, FYL2XP1)
UNARY(fsqrt, FSQRT)
UNARY(fsincos, FSINCOS)
UNARY(frndint, FRNDINT)
UNARY(fscale, FSCALE)
UNARY(fsin, FSIN)
UNARY(fcos, FCOS)
UNARY(fnop, FNOP)

/* FCMOVcc: CF, ZF, CF or ZF, PF; and the opposite. Jcc codes 2, 4, 6, 10. */
#define CMOV(name, condition)                                                                      \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        ir_ref holds = ir_zext(l->u, IR_I64, lift_condition(l, condition));                        \
                                                                                                   \
        LIFT_CALL(l, IR_VOID, x87_cmov, holds, constant(l, l->in->modrm & 7), IR_NONE, IR_NONE);   \
    }
CMOV(fcmovb, 2)
CMOV(fcmove, 4)
CMOV(fcmovbe, 6)
CMOV(fcmovu, 10)
CMOV(fcmovnb, 3)
CMOV(fcmovne, 5)
CMOV(fcmovnbe, 7)
CMOV(fcmovnu, 11)

static ir_ref control(struct x86_lift *l, u64 code, ir_ref operand)
{
    return LIFT_CALL(l, IR_I64, x87_control, constant(l, code), operand, IR_NONE, IR_NONE);
}

void lift_fldcw(struct x86_lift *l)
{
    wait_for_exceptions(l);
    control(l, X87_FLDCW, ir_zext(l->u, IR_I64, lift_read(l, 0)));
}

void lift_fnstcw(struct x86_lift *l)
{
    lift_write(l, 0, ir_trunc(l->u, IR_I16, control(l, X87_FNSTCW, constant(l, 0))));
}

void lift_fnstsw(struct x86_lift *l)
{
    lift_write(l, 0, ir_trunc(l->u, IR_I16, control(l, X87_FNSTSW, constant(l, 0))));
}

#define CONTROL(name, code)                                                                        \
    void lift_##name(struct x86_lift *l)                                                           \
    {                                                                                              \
        control(l, X87_##code, constant(l, l->in->modrm & 7));                                     \
    }
CONTROL(fnclex, FNCLEX)
CONTROL(fninit, FNINIT)
CONTROL(ffree, FFREE)
CONTROL(ffreep, FFREEP)
CONTROL(fxch, FXCH)

/* SDM vol. 2 WAIT: #NM by CR0.MP and TS, not by EM. */
void lift_fwait(struct x86_lift *l)
{
    control(l, X87_FWAIT, constant(l, 0));
}

/* FENI, FDISI, FSETPM of older coprocessors: no effect, no wait. */
void lift_fnop_287(struct x86_lift *l)
{
    (void)l;
}

static void environment(struct x86_lift *l, u64 what)
{
    bool registers = what & 2;
    unsigned bytes = (l->in->operand_size == 2 ? 14 : 28) + (registers ? 80 : 0);

    if (!(what & 1))
        wait_for_exceptions(l);
    LIFT_CALL(l, IR_VOID, x87_environment, lift_linear(l, bytes, what & 1),
              constant(l, l->in->operand_size), constant(l, what), IR_NONE);
}

void lift_fldenv(struct x86_lift *l)
{
    environment(l, 0);
}

void lift_fnstenv(struct x86_lift *l)
{
    environment(l, 1);
}

void lift_frstor(struct x86_lift *l)
{
    environment(l, 2);
}

void lift_fnsave(struct x86_lift *l)
{
    environment(l, 3);
}
