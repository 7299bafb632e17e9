/* Shifts, rotates, bit and byte instructions. SDM vol. 1 7.3.6, 7.3.7. */
#include "guest/x86/cc.h"
#include "guest/x86/lift.h"

struct shift {
    unsigned size;
    ir_ref addr;  /* IR_NONE: register */
    ir_ref value; /* of the operand's type */
    ir_ref count; /* i8, masked to 5 or 6 bits */
    ir_ref some;  /* i1, count != 0; IR_NONE when known */
    u8 fixed;     /* the count if known */
    bool known;
};

static ir_ref count8(struct x86_lift *l, u64 n)
{
    return ir_const(l->u, IR_I8, n);
}

/* Operand 0 and the count in operand @n. */
static struct shift begin(struct x86_lift *l, unsigned n)
{
    struct shift s = {.size = l->in->op[0].size};
    u64 mask = s.size == 8 ? 63 : 31;

    if (l->in->op[0].kind == X86_OP_MEM) {
        s.addr = lift_address(l, 0, true);
        s.value = ir_ld(l->u, lift_int_type(s.size), s.addr, 0);
    } else {
        s.value = lift_read(l, 0);
    }
    if (l->in->op[n].kind == X86_OP_IMM) {
        s.known = true;
        s.fixed = l->in->op[n].value & mask;
        s.count = count8(l, s.fixed);
    } else {
        s.count = ir_and(l->u, lift_read(l, n), count8(l, mask));
        s.some = ir_ne(l->u, s.count, count8(l, 0));
    }
    return s;
}

static void store(struct x86_lift *l, const struct shift *s, ir_ref result)
{
    if (s->addr)
        ir_st(l->u, s->addr, 0, result);
    else
        lift_write(l, 0, result);
}

static ir_ref widen(struct x86_lift *l, ir_ref v)
{
    return ir_typeof(l->u, v) == IR_I64 ? v : ir_zext(l->u, IR_I64, v);
}

/* New flags, unless the count is 0: then all stay. */
static void set_cc(struct x86_lift *l, const struct shift *s, u64 op, ir_ref dst, ir_ref src)
{
    ir_ref old_dst, old_src, old_op;

    if (s->known) {
        if (s->fixed)
            lift_cc(l, op, dst, src, IR_NONE);
        return;
    }
    old_dst = ir_get(l->u, IR_I64, X86_SLOT(cc_dst));
    old_src = ir_get(l->u, IR_I64, X86_SLOT(cc_src));
    old_op = ir_get(l->u, IR_I8, X86_SLOT(cc_op));
    ir_put(l->u, X86_SLOT(cc_dst), ir_sel(l->u, s->some, widen(l, dst), old_dst));
    ir_put(l->u, X86_SLOT(cc_src), ir_sel(l->u, s->some, widen(l, src), old_src));
    ir_put(l->u, X86_SLOT(cc_op), ir_sel(l->u, s->some, ir_const(l->u, IR_I8, op), old_op));
    lift_flags_changed(l);
}

/* Shifts work in at least 32 bits, since counts reach 31 for all narrower operands. */
static ir_ref narrow(struct x86_lift *l, const struct shift *s, ir_ref v)
{
    return s->size >= 4 ? v : ir_trunc(l->u, lift_int_type(s->size), v);
}

static void shift(struct x86_lift *l, enum ir_op op, u64 cc)
{
    struct shift s = begin(l, 1);
    enum ir_type type = s.size == 8 ? IR_I64 : IR_I32;
    ir_ref v = s.value, less, result, before;

    if (s.size < 4)
        v = op == IR_sar ? ir_sext(l->u, type, v) : ir_zext(l->u, type, v);
    less = ir_sub(l->u, s.count, count8(l, 1));
    result = narrow(l, &s, ir_emit(l->u, op, type, v, s.count, 0, 0, 0));
    before = narrow(l, &s, ir_emit(l->u, op, type, v, less, 0, 0, 0));
    store(l, &s, result);
    set_cc(l, &s, cc, result, before);
}

void lift_shl(struct x86_lift *l)
{
    shift(l, IR_shl, X86_CC(SHL, l->in->op[0].size));
}

void lift_shr(struct x86_lift *l)
{
    shift(l, IR_shr, X86_CC(SHR, l->in->op[0].size));
}

void lift_sar(struct x86_lift *l)
{
    shift(l, IR_sar, X86_CC(SHR, l->in->op[0].size));
}

void lift_shld(struct x86_lift *l)
{
    struct shift s = begin(l, 2);
    ir_ref fill = lift_read(l, 1), result, before;
    ir_ref less = ir_sub(l->u, s.count, count8(l, 1));

    if (s.size == 2) {
        /* Counts above 16 go on with the destination's own bits: dest:src:dest. */
        ir_ref wide = ir_deposit(l->u, ir_zext(l->u, IR_I64, s.value), s.value, 32);

        wide = ir_deposit(l->u, wide, fill, 16);
        result = ir_extract(l->u, IR_I16, ir_shl(l->u, wide, s.count), 32);
        before = ir_extract(l->u, IR_I16, ir_shl(l->u, wide, less), 32);
    } else {
        result = ir_fshl(l->u, s.value, fill, s.count);
        before = ir_fshl(l->u, s.value, fill, less);
    }
    store(l, &s, result);
    set_cc(l, &s, X86_CC(SHL, s.size), result, before);
}

void lift_shrd(struct x86_lift *l)
{
    struct shift s = begin(l, 2);
    ir_ref fill = lift_read(l, 1), result, before;
    ir_ref less = ir_sub(l->u, s.count, count8(l, 1));

    if (s.size == 2) {
        ir_ref wide = ir_deposit(l->u, ir_zext(l->u, IR_I64, s.value), fill, 16);

        wide = ir_deposit(l->u, wide, s.value, 32);
        result = ir_trunc(l->u, IR_I16, ir_shr(l->u, wide, s.count));
        before = ir_trunc(l->u, IR_I16, ir_shr(l->u, wide, less));
    } else {
        result = ir_fshr(l->u, s.value, fill, s.count);
        before = ir_fshr(l->u, s.value, fill, less);
    }
    store(l, &s, result);
    set_cc(l, &s, X86_CC(SHR, s.size), result, before);
}

/* Rotates replace CF and OF (i1 each) and keep the rest, all if the count is 0. */
static void set_cf_of(struct x86_lift *l, const struct shift *s, ir_ref cf, ir_ref of)
{
    u64 keep = X86_FLAGS_ARITH & ~(X86_FLAG_CF | X86_FLAG_OF);
    ir_ref old, flags;

    if (s->known && !s->fixed)
        return;
    old = lift_eflags_arith(l);
    flags = ir_and(l->u, old, ir_const(l->u, IR_I64, keep));
    flags = ir_or(l->u, flags, ir_zext(l->u, IR_I64, cf));
    of = ir_shl(l->u, ir_zext(l->u, IR_I64, of), count8(l, 11));
    flags = ir_or(l->u, flags, of);
    if (s->some)
        flags = ir_sel(l->u, s->some, flags, old);
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

/* Bit @bit counted from the top (0: the sign). */
static ir_ref top_bit(struct x86_lift *l, ir_ref v, unsigned bit)
{
    if (bit)
        v = ir_shl(l->u, v, count8(l, bit));
    return ir_slt(l->u, v, ir_const(l->u, ir_typeof(l->u, v), 0));
}

void lift_rol(struct x86_lift *l)
{
    struct shift s = begin(l, 1);
    ir_ref r = ir_rol(l->u, s.value, s.count), cf = ir_trunc(l->u, IR_I1, r);

    store(l, &s, r);
    set_cf_of(l, &s, cf, ir_xor(l->u, cf, top_bit(l, r, 0)));
}

void lift_ror(struct x86_lift *l)
{
    struct shift s = begin(l, 1);
    ir_ref r = ir_ror(l->u, s.value, s.count), cf = top_bit(l, r, 0);

    store(l, &s, r);
    set_cf_of(l, &s, cf, ir_xor(l->u, cf, top_bit(l, r, 1)));
}

/* Through the carry by any count: helpers for value and flags, (value, count, CF, size | right). */
static void rotate_carry(struct x86_lift *l, bool right)
{
    struct shift s = begin(l, 1);
    ir_ref cf = ir_zext(l->u, IR_I64, lift_cf(l)), count = ir_zext(l->u, IR_I64, s.count);
    ir_ref value = widen(l, s.value), r, flags;
    ir_ref how = ir_const(l->u, IR_I64, s.size | (right ? 256u : 0));

    r = LIFT_CALL(l, IR_I64, rotate_carry, value, count, cf, how);
    flags = LIFT_CALL(l, IR_I64, rotate_carry_flags, value, count, cf, how);
    if (s.size != 8)
        r = ir_trunc(l->u, lift_int_type(s.size), r);
    store(l, &s, r);
    set_cf_of(l, &s, ir_trunc(l->u, IR_I1, flags),
              ir_trunc(l->u, IR_I1, ir_shr(l->u, flags, count8(l, 8))));
}

/* By one, in place. */
static void rotate_carry_once(struct x86_lift *l, bool right)
{
    struct shift s = begin(l, 1);
    enum ir_type type = lift_int_type(s.size);
    ir_ref in = ir_zext(l->u, type, lift_cf(l)), r, out, of;

    if (right) {
        out = ir_trunc(l->u, IR_I1, s.value);
        r = ir_or(l->u, ir_shr(l->u, s.value, count8(l, 1)),
                  ir_shl(l->u, in, count8(l, s.size * 8 - 1)));
        of = ir_xor(l->u, top_bit(l, r, 0), top_bit(l, r, 1));
    } else {
        out = top_bit(l, s.value, 0);
        r = ir_or(l->u, ir_shl(l->u, s.value, count8(l, 1)), in);
        of = ir_xor(l->u, top_bit(l, r, 0), out);
    }
    store(l, &s, r);
    set_cf_of(l, &s, out, of);
}

static bool by_one(const struct x86_lift *l)
{
    return l->in->op[1].kind == X86_OP_IMM &&
           (l->in->op[1].value & (l->in->op[0].size == 8 ? 63 : 31)) == 1;
}

void lift_rcl(struct x86_lift *l)
{
    if (by_one(l))
        rotate_carry_once(l, false);
    else
        rotate_carry(l, false);
}

void lift_rcr(struct x86_lift *l)
{
    if (by_one(l))
        rotate_carry_once(l, true);
    else
        rotate_carry(l, true);
}

/* CF replaced; ZF kept. The others, undefined, are kept where that costs nothing. */
static void set_cf(struct x86_lift *l, ir_ref cf)
{
    ir_ref flags;

    if (!l->cc.known || l->cc.op == X86_CC(EFLAGS, 1)) {
        flags = lift_eflags_arith(l);
        flags = ir_and(l->u, flags, ir_const(l->u, IR_I64, X86_FLAGS_ARITH & ~X86_FLAG_CF));
    } else {
        flags = ir_zext(l->u, IR_I64, lift_condition(l, 4));
        flags = ir_shl(l->u, flags, count8(l, 6));
    }
    flags = ir_or(l->u, flags, ir_zext(l->u, IR_I64, cf));
    lift_cc(l, X86_CC(EFLAGS, 1), flags, IR_NONE, IR_NONE);
}

/* The address of the operand-sized word that holds the bit: a register offset reaches beyond the
 * operand, in both directions. SDM vol. 2 3.1.1.9. */
static ir_ref bit_address(struct x86_lift *l, ir_ref offset, bool write)
{
    unsigned size = l->in->operand_size, log = (unsigned)__builtin_ctz(size);
    ir_ref ea = lift_ea(l), words;

    if (l->in->op[1].kind == X86_OP_IMM)
        return lift_linear(l, size, write);
    words = size == 8 ? offset : ir_sext(l->u, IR_I64, offset);
    words = ir_sar(l->u, words, count8(l, log + 3));
    ea = ir_add(l->u, ea, ir_shl(l->u, words, count8(l, log)));
    if (l->in->address_size != 8)
        ea = ir_and(l->u, ea, ir_const(l->u, IR_I64, mask_low(l->in->address_size * 8)));
    return lift_segment(l, l->in->segment, ea, size, write);
}

/* @op combines the word with the bit's mask (inverted for IR_and); IR_NOP: only test. */
static void bit_test(struct x86_lift *l, enum ir_op op, enum ir_op atomic)
{
    enum ir_type type = lift_int_type(l->in->operand_size);
    ir_ref offset = lift_read(l, 1), addr = IR_NONE, old = IR_NONE, bit, mask, cf;

    bit = ir_trunc(l->u, IR_I8, offset);
    mask = ir_shl(l->u, ir_const(l->u, type, 1), bit);
    if (op == IR_and)
        mask = ir_not(l->u, mask);
    if (l->in->op[0].kind == X86_OP_MEM) {
        addr = bit_address(l, offset, op != IR_NOP);
        if (l->in->lock)
            old = ir_atomic(l->u, atomic, addr, 0, mask);
        else
            old = ir_ld(l->u, type, addr, 0);
    } else {
        old = lift_read(l, 0);
    }
    cf = ir_trunc(l->u, IR_I1, ir_shr(l->u, old, bit));
    if (op != IR_NOP && !l->in->lock) {
        ir_ref value = ir_emit(l->u, op, type, old, mask, 0, 0, 0);

        if (addr)
            ir_st(l->u, addr, 0, value);
        else
            lift_write(l, 0, value);
    }
    set_cf(l, cf);
}

void lift_bt(struct x86_lift *l)
{
    bit_test(l, IR_NOP, IR_NOP);
}

void lift_bts(struct x86_lift *l)
{
    bit_test(l, IR_or, IR_aor);
}

void lift_btr(struct x86_lift *l)
{
    bit_test(l, IR_and, IR_aand);
}

void lift_btc(struct x86_lift *l)
{
    bit_test(l, IR_xor, IR_axor);
}

/* The destination stays, all 64 bits of it, when the source is 0. */
static void bit_scan(struct x86_lift *l, bool reverse)
{
    unsigned size = l->in->operand_size, reg = l->in->op[0].reg;
    enum ir_type type = size == 8 ? IR_I64 : IR_I32;
    ir_ref source = lift_read(l, 1), v = source, old, full, zero;

    zero = ir_eq(l->u, source, ir_const(l->u, lift_int_type(size), 0));
    if (size == 2)
        v = ir_zext(l->u, IR_I32, v);
    if (reverse)
        v = ir_xor(l->u, ir_clz(l->u, v), ir_const(l->u, type, size == 8 ? 63 : 31));
    else
        v = ir_ctz(l->u, v);
    old = lift_reg(l, reg, 8, false);
    if (size == 2)
        full = ir_deposit(l->u, old, ir_trunc(l->u, IR_I16, v), 0);
    else
        full = widen(l, v);
    lift_set_reg(l, reg, 8, false, ir_sel(l->u, zero, old, full));
    lift_cc(l, X86_CC(LOGIC, size), source, IR_NONE, IR_NONE);
}

void lift_bsf(struct x86_lift *l)
{
    bit_scan(l, false);
}

void lift_bsr(struct x86_lift *l)
{
    bit_scan(l, true);
}

void lift_popcnt(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref v = lift_read(l, 1), r, zf;

    r = ir_popcnt(l->u, size == 2 ? ir_zext(l->u, IR_I32, v) : v);
    lift_write(l, 0, size == 2 ? ir_trunc(l->u, IR_I16, r) : r);
    zf = ir_eq(l->u, v, ir_const(l->u, ir_typeof(l->u, v), 0));
    lift_set_zpc(l, zf, IR_NONE, ir_const(l->u, IR_I1, 0));
}

void lift_crc32(struct x86_lift *l)
{
    ir_ref value = widen(l, lift_read(l, 1));
    ir_ref crc = ir_zext(l->u, IR_I64, lift_reg(l, l->in->op[0].reg, 4, false));

    crc =
        LIFT_CALL(l, IR_I64, crc32, crc, value, ir_const(l->u, IR_I64, l->in->op[1].size), IR_NONE);
    lift_set_reg(l, l->in->op[0].reg, 8, false, crc);
}
