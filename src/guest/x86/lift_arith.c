/* Binary and decimal arithmetic, logic, flag control. SDM vol. 1 7.3.2 to 7.3.5, 7.3.13. */
#include "guest/x86/cc.h"
#include "guest/x86/lift.h"
#include "guest/x86/x86_internal.h"

/* A destination that is read and written: register, or memory whose address is computed once. */
struct dest {
    ir_ref addr; /* IR_NONE: register */
    ir_ref old;
};

static struct dest dest_read(struct x86_lift *l)
{
    struct dest d = {IR_NONE, IR_NONE};

    if (l->in->op[0].kind == X86_OP_MEM) {
        d.addr = lift_address(l, 0, true);
        d.old = ir_ld(l->u, lift_int_type(l->in->op[0].size), d.addr, 0);
    } else {
        d.old = lift_read(l, 0);
    }
    return d;
}

static void dest_write(struct x86_lift *l, const struct dest *d, ir_ref value)
{
    if (d->addr)
        ir_st(l->u, d->addr, 0, value);
    else
        lift_write(l, 0, value);
}

/* LOCK with memory: the old value, the operation done by an atomic. */
static ir_ref locked(struct x86_lift *l, enum ir_op op, ir_ref value)
{
    return ir_atomic(l->u, op, lift_address(l, 0, true), 0, value);
}

static unsigned size_of(const struct x86_lift *l)
{
    return l->in->op[0].size;
}

/* CF as an integer of the operation's type. */
static ir_ref carry_in(struct x86_lift *l)
{
    return ir_zext(l->u, lift_int_type(size_of(l)), lift_cf(l));
}

void lift_add(struct x86_lift *l)
{
    ir_ref b = lift_read(l, 1), r;

    if (l->in->lock) {
        r = ir_add(l->u, locked(l, IR_aadd, b), b);
    } else {
        struct dest d = dest_read(l);

        r = ir_add(l->u, d.old, b);
        dest_write(l, &d, r);
    }
    lift_cc(l, X86_CC(ADD, size_of(l)), r, b, IR_NONE);
}

void lift_adc(struct x86_lift *l)
{
    ir_ref b = lift_read(l, 1), c = carry_in(l), sum = ir_add(l->u, b, c), r;

    if (l->in->lock) {
        r = ir_add(l->u, locked(l, IR_aadd, sum), sum);
    } else {
        struct dest d = dest_read(l);

        r = ir_add(l->u, d.old, sum);
        dest_write(l, &d, r);
    }
    lift_cc(l, X86_CC(ADC, size_of(l)), r, b, c);
}

/* The carry comes from one flag and goes there; the other flags stay. */
static void add_by_flag(struct x86_lift *l, unsigned bit)
{
    ir_ref a, b, carry, flags, sum, out, at = ir_const(l->u, IR_I8, bit);

    lift_need_feature(l, X86_FEATURE_ADX);
    b = lift_read(l, 1);
    a = lift_read(l, 0);
    flags = lift_eflags_arith(l);
    carry = ir_and(l->u, ir_shr(l->u, flags, at), ir_const(l->u, IR_I64, 1));
    if (size_of(l) == 4)
        carry = ir_trunc(l->u, IR_I32, carry);
    sum = ir_add(l->u, a, b);
    out = ir_ult(l->u, sum, a);
    a = ir_add(l->u, sum, carry);
    out = ir_zext(l->u, IR_I64, ir_or(l->u, out, ir_ult(l->u, a, sum)));
    lift_write(l, 0, a);
    flags = ir_and(l->u, flags, ir_const(l->u, IR_I64, ~BIT(bit)));
    lift_set_eflags_arith(l, ir_or(l->u, flags, ir_shl(l->u, out, at)));
}

void lift_adcx(struct x86_lift *l)
{
    add_by_flag(l, 0);
}

void lift_adox(struct x86_lift *l)
{
    add_by_flag(l, 11);
}

void lift_sub(struct x86_lift *l)
{
    ir_ref b = lift_read(l, 1), a;

    if (l->in->lock) {
        a = locked(l, IR_aadd, ir_neg(l->u, b));
    } else {
        struct dest d = dest_read(l);

        a = d.old;
        dest_write(l, &d, ir_sub(l->u, a, b));
    }
    lift_cc(l, X86_CC(SUB, size_of(l)), a, b, IR_NONE);
}

void lift_sbb(struct x86_lift *l)
{
    ir_ref b = lift_read(l, 1), c = carry_in(l), sum = ir_add(l->u, b, c), a;

    if (l->in->lock) {
        a = locked(l, IR_aadd, ir_neg(l->u, sum));
    } else {
        struct dest d = dest_read(l);

        a = d.old;
        dest_write(l, &d, ir_sub(l->u, a, sum));
    }
    lift_cc(l, X86_CC(SBB, size_of(l)), a, b, c);
}

void lift_cmp(struct x86_lift *l)
{
    ir_ref a = lift_read(l, 0);

    lift_cc(l, X86_CC(SUB, size_of(l)), a, lift_read(l, 1), IR_NONE);
}

static void logic(struct x86_lift *l, enum ir_op op, enum ir_op atomic)
{
    enum ir_type type = lift_int_type(size_of(l));
    ir_ref b = lift_read(l, 1), r;

    if (l->in->lock) {
        r = ir_emit(l->u, op, type, locked(l, atomic, b), b, 0, 0, 0);
    } else {
        struct dest d = dest_read(l);

        r = ir_emit(l->u, op, type, d.old, b, 0, 0, 0);
        dest_write(l, &d, r);
    }
    lift_cc(l, X86_CC(LOGIC, size_of(l)), r, IR_NONE, IR_NONE);
}

void lift_and(struct x86_lift *l)
{
    logic(l, IR_and, IR_aand);
}

void lift_or(struct x86_lift *l)
{
    logic(l, IR_or, IR_aor);
}

void lift_xor(struct x86_lift *l)
{
    logic(l, IR_xor, IR_axor);
}

void lift_test(struct x86_lift *l)
{
    ir_ref r = ir_and(l->u, lift_read(l, 0), lift_read(l, 1));

    lift_cc(l, X86_CC(LOGIC, size_of(l)), r, IR_NONE, IR_NONE);
}

static void step(struct x86_lift *l, u64 by, u64 cc)
{
    ir_ref amount = ir_const(l->u, lift_int_type(size_of(l)), by & mask_low(size_of(l) * 8));
    ir_ref cf = ir_zext(l->u, IR_I64, lift_cf(l)), r;

    if (l->in->lock) {
        r = ir_add(l->u, locked(l, IR_aadd, amount), amount);
    } else {
        struct dest d = dest_read(l);

        r = ir_add(l->u, d.old, amount);
        dest_write(l, &d, r);
    }
    lift_cc(l, cc, r, cf, IR_NONE);
}

void lift_inc(struct x86_lift *l)
{
    step(l, 1, X86_CC(INC, size_of(l)));
}

void lift_dec(struct x86_lift *l)
{
    step(l, ~0ull, X86_CC(DEC, size_of(l)));
}

void lift_not(struct x86_lift *l)
{
    if (l->in->lock) {
        locked(l, IR_axor, ir_const(l->u, lift_int_type(size_of(l)), mask_low(size_of(l) * 8)));
    } else {
        struct dest d = dest_read(l);

        dest_write(l, &d, ir_not(l->u, d.old));
    }
}

void lift_neg(struct x86_lift *l)
{
    enum ir_type type = lift_int_type(size_of(l));
    ir_ref old;

    if (l->in->lock) {
        old = LIFT_CALL(l, IR_I64, lock_neg, lift_address(l, 0, true),
                        ir_const(l->u, IR_I64, size_of(l)), IR_NONE, IR_NONE);
        if (type != IR_I64)
            old = ir_trunc(l->u, type, old);
    } else {
        struct dest d = dest_read(l);

        old = d.old;
        dest_write(l, &d, ir_neg(l->u, old));
    }
    lift_cc(l, X86_CC(SUB, size_of(l)), ir_const(l->u, type, 0), old, IR_NONE);
}

/* rDX:rAX, or AX, from a product of two operands of @size bytes. Signed if @sign. */
static void multiply_accumulator(struct x86_lift *l, bool sign)
{
    unsigned size = size_of(l);
    ir_ref a = lift_reg(l, X86_RAX, size, false), b = lift_read(l, 0), low, high, over;
    enum ir_type type = lift_int_type(size);

    if (size == 8) {
        low = ir_mul(l->u, a, b);
        high = sign ? ir_smulh(l->u, a, b) : ir_umulh(l->u, a, b);
    } else {
        enum ir_type wide = lift_int_type(size * 2);
        ir_ref product;

        a = sign ? ir_sext(l->u, wide, a) : ir_zext(l->u, wide, a);
        b = sign ? ir_sext(l->u, wide, b) : ir_zext(l->u, wide, b);
        product = ir_mul(l->u, a, b);
        low = ir_trunc(l->u, type, product);
        high = ir_extract(l->u, type, product, size * 8);
    }
    lift_set_reg(l, X86_RAX, size, false, low);
    if (size == 1)
        lift_set_reg(l, X86_RAX, 1, true, high);
    else
        lift_set_reg(l, X86_RDX, size, false, high);
    over = high;
    if (sign) {
        ir_ref fill = ir_sar(l->u, low, ir_const(l->u, IR_I8, size * 8 - 1));

        over = ir_xor(l->u, high, fill);
    }
    lift_cc(l, X86_CC(MUL, size), low, over, IR_NONE);
}

void lift_mul(struct x86_lift *l)
{
    multiply_accumulator(l, false);
}

void lift_imul(struct x86_lift *l)
{
    unsigned size = size_of(l);
    bool three = l->in->op[2].kind != X86_OP_NONE;
    ir_ref a, b, low, over;

    if (l->in->op[1].kind == X86_OP_NONE) {
        multiply_accumulator(l, true);
        return;
    }
    a = lift_read(l, 1);
    b = lift_read(l, three ? 2 : 0);
    if (size == 8) {
        low = ir_mul(l->u, a, b);
        over = ir_xor(l->u, ir_smulh(l->u, a, b), ir_sar(l->u, low, ir_const(l->u, IR_I8, 63)));
    } else {
        enum ir_type wide = lift_int_type(size * 2);
        ir_ref product = ir_mul(l->u, ir_sext(l->u, wide, a), ir_sext(l->u, wide, b));

        low = ir_trunc(l->u, lift_int_type(size), product);
        over = ir_xor(l->u, product, ir_sext(l->u, wide, low));
    }
    lift_write(l, 0, low);
    lift_cc(l, X86_CC(MUL, size), low, over, IR_NONE);
}

static ir_ref is_zero(struct x86_lift *l, ir_ref v)
{
    return ir_eq(l->u, v, ir_const(l->u, ir_typeof(l->u, v), 0));
}

/* Quotient and remainder of the type @wide into their places for operand size @size. */
static void set_quotient(struct x86_lift *l, unsigned size, ir_ref q, ir_ref r)
{
    enum ir_type type = lift_int_type(size);

    if (ir_typeof(l->u, q) != type) {
        q = ir_trunc(l->u, type, q);
        r = ir_trunc(l->u, type, r);
    }
    lift_set_reg(l, X86_RAX, size, false, q);
    if (size == 1)
        lift_set_reg(l, X86_RAX, 1, true, r);
    else
        lift_set_reg(l, X86_RDX, size, false, r);
}

/* AX, DX:AX or EDX:EAX as one value for division: i32, i32, i64. */
static ir_ref dividend(struct x86_lift *l, unsigned size, bool sign)
{
    ir_ref hi, lo;

    if (size == 1) {
        lo = lift_reg(l, X86_RAX, 2, false);
        return sign ? ir_sext(l->u, IR_I32, lo) : ir_zext(l->u, IR_I32, lo);
    }
    hi = lift_reg(l, X86_RDX, size == 2 ? 4 : 8, false);
    hi = ir_shl(l->u, hi, ir_const(l->u, IR_I8, size * 8));
    lo = ir_zext(l->u, size == 2 ? IR_I32 : IR_I64, lift_reg(l, X86_RAX, size, false));
    return ir_or(l->u, hi, lo);
}

void lift_div(struct x86_lift *l)
{
    unsigned size = size_of(l);
    ir_ref d = lift_read(l, 0), n, q;

    if (size == 8) {
        ir_ref hi = lift_reg(l, X86_RDX, 8, false), lo = lift_reg(l, X86_RAX, 8, false);

        lift_raise_if(l, ir_ule(l->u, d, hi), X86_DE);
        set_quotient(l, 8, ir_udiv2(l->u, hi, lo, d), ir_urem2(l->u, hi, lo, d));
        return;
    }
    n = dividend(l, size, false);
    lift_raise_if(l, is_zero(l, d), X86_DE);
    d = ir_zext(l->u, ir_typeof(l->u, n), d);
    q = ir_udiv(l->u, n, d);
    lift_raise_if(l, ir_ult(l->u, ir_const(l->u, ir_typeof(l->u, n), mask_low(size * 8)), q),
                  X86_DE);
    set_quotient(l, size, q, ir_urem(l->u, n, d));
}

void lift_idiv(struct x86_lift *l)
{
    unsigned size = size_of(l);
    ir_ref d = lift_read(l, 0), n, q, lowest, bad;
    enum ir_type wide;

    if (size == 8) {
        ir_ref hi = lift_reg(l, X86_RDX, 8, false), lo = lift_reg(l, X86_RAX, 8, false);

        q = LIFT_CALL(l, IR_I64, idiv64, hi, lo, d, IR_NONE);
        set_quotient(l, 8, q, ir_sub(l->u, lo, ir_mul(l->u, q, d)));
        return;
    }
    n = dividend(l, size, true);
    wide = ir_typeof(l->u, n);
    lift_raise_if(l, is_zero(l, d), X86_DE);
    d = ir_sext(l->u, wide, d);
    if (size == 4 || size == 2) {
        /* The one overflow that the host's own division would trap on. */
        lowest = ir_const(l->u, wide, 1ull << (size * 16 - 1));
        bad = ir_eq(l->u, d, ir_const(l->u, wide, mask_low(size * 16)));
        lift_raise_if(l, ir_and(l->u, bad, ir_eq(l->u, n, lowest)), X86_DE);
    }
    q = ir_sdiv(l->u, n, d);
    bad = ir_ne(l->u, q, ir_sext(l->u, wide, ir_trunc(l->u, lift_int_type(size), q)));
    lift_raise_if(l, bad, X86_DE);
    set_quotient(l, size, q, ir_srem(l->u, n, d));
}

/* Decimal adjustments: helper(AX, flags, operand) answers AX | flags << 16. */
static void decimal(struct x86_lift *l, enum x86_helper helper, u64 operand)
{
    ir_ref ax = ir_zext(l->u, IR_I64, lift_reg(l, X86_RAX, 2, false));
    ir_ref r = ir_call(l->u, IR_I64, helper, ax, lift_eflags_arith(l),
                       ir_const(l->u, IR_I64, operand), IR_NONE);

    lift_set_reg(l, X86_RAX, 2, false, ir_trunc(l->u, IR_I16, r));
    lift_set_eflags_arith(l, ir_shr(l->u, r, ir_const(l->u, IR_I8, 16)));
}

void lift_daa(struct x86_lift *l)
{
    decimal(l, X86_HELPER_decimal_adjust, 0);
}

void lift_das(struct x86_lift *l)
{
    decimal(l, X86_HELPER_decimal_adjust, 1);
}

void lift_aaa(struct x86_lift *l)
{
    decimal(l, X86_HELPER_ascii_adjust, 0);
}

void lift_aas(struct x86_lift *l)
{
    decimal(l, X86_HELPER_ascii_adjust, 1);
}

void lift_aam(struct x86_lift *l)
{
    ir_ref al = ir_zext(l->u, IR_I32, lift_reg(l, X86_RAX, 1, false)), base, r;

    if (!l->in->imm) {
        lift_raise(l, X86_DE);
        return;
    }
    base = ir_const(l->u, IR_I32, l->in->imm);
    r = ir_trunc(l->u, IR_I8, ir_urem(l->u, al, base));
    lift_set_reg(l, X86_RAX, 1, true, ir_trunc(l->u, IR_I8, ir_udiv(l->u, al, base)));
    lift_set_reg(l, X86_RAX, 1, false, r);
    lift_cc(l, X86_CC(LOGIC, 1), r, IR_NONE, IR_NONE);
}

void lift_aad(struct x86_lift *l)
{
    ir_ref al = lift_reg(l, X86_RAX, 1, false), ah = lift_reg(l, X86_RAX, 1, true), r;

    r = ir_add(l->u, al, ir_mul(l->u, ah, ir_const(l->u, IR_I8, l->in->imm)));
    lift_set_reg(l, X86_RAX, 2, false, ir_zext(l->u, IR_I16, r));
    lift_cc(l, X86_CC(LOGIC, 1), r, IR_NONE, IR_NONE);
}

static void change_cf(struct x86_lift *l, u64 and, u64 xor)
{
    ir_ref flags = ir_and(l->u, lift_eflags_arith(l), ir_const(l->u, IR_I64, and));

    flags = ir_xor(l->u, flags, ir_const(l->u, IR_I64, xor));
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

void lift_clc(struct x86_lift *l)
{
    change_cf(l, X86_FLAGS_ARITH & ~X86_FLAG_CF, 0);
}

void lift_stc(struct x86_lift *l)
{
    change_cf(l, X86_FLAGS_ARITH & ~X86_FLAG_CF, X86_FLAG_CF);
}

void lift_cmc(struct x86_lift *l)
{
    change_cf(l, X86_FLAGS_ARITH, X86_FLAG_CF);
}

void lift_cld(struct x86_lift *l)
{
    ir_put(l->u, X86_SLOT(df), ir_const(l->u, IR_I64, 1));
}

void lift_std(struct x86_lift *l)
{
    ir_put(l->u, X86_SLOT(df), ir_const(l->u, IR_I64, ~0ull));
}

void lift_lahf(struct x86_lift *l)
{
    ir_ref flags = ir_trunc(l->u, IR_I8, lift_eflags_arith(l));

    lift_set_reg(l, X86_RAX, 1, true, ir_or(l->u, flags, ir_const(l->u, IR_I8, 2)));
}

void lift_sahf(struct x86_lift *l)
{
    ir_ref low = ir_zext(l->u, IR_I64, lift_reg(l, X86_RAX, 1, true));
    ir_ref of = ir_and(l->u, lift_eflags_arith(l), ir_const(l->u, IR_I64, X86_FLAG_OF));

    low = ir_and(l->u, low, ir_const(l->u, IR_I64, X86_FLAGS_ARITH & 0xff));
    lift_cc(l, X86_CC(EFLAGS, 1), ir_or(l->u, low, of), IR_NONE, IR_NONE);
}

void lift_salc(struct x86_lift *l)
{
    lift_set_reg(l, X86_RAX, 1, false, ir_sext(l->u, IR_I8, lift_cf(l)));
}

void lift_setcc(struct x86_lift *l)
{
    lift_write(l, 0, ir_zext(l->u, IR_I8, lift_condition(l, l->in->opcode & 15)));
}
