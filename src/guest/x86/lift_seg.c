/* Segment registers, far transfers, and the instructions on descriptors and their tables: operands,
 * and the calls of the helpers that do the work on the state. */
#include "guest/x86/lift_sys.h"

/* Ends the block at the linear address that a far transfer's helper answered. @flags (i64): those
 * in which TF has to be set for a trap, besides the mode's. */
static void go_to_with(struct x86_lift *l, ir_ref lip, ir_ref flags, enum lift_keep_rf keep_rf)
{
    l->branch = true;
    if (l->mode & X86_MODE_STEPPING) {
        lift_end_step(l, ir_and(l->u, flags, imm(l, l->mode & X86_MODE_TF ? X86_FLAG_TF : 0)),
                      keep_rf);
        return;
    }
    lift_count(l);
    lift_record_branch(l, IR_NONE, lip);
    ir_goto_ind(l->u, lip);
    l->ended = true;
}

static void go_to(struct x86_lift *l, ir_ref lip)
{
    go_to_with(l, lip, imm(l, X86_FLAG_TF), CLEAR_RF);
}

/* --- Segment registers --- */

static u32 selector_slot(unsigned reg)
{
    return X86_SLOT(seg) + reg * (u32)sizeof(struct x86_seg) +
           (u32)offsetof(struct x86_seg, selector);
}

/* Loads @reg; the mode word may follow (stack size, flatness) outside 64-bit mode. */
static void load_segment(struct x86_lift *l, unsigned reg, ir_ref selector, bool shadow)
{
    CALL3(l, load_segment, imm(l, reg), zext64(l, selector), imm(l, shadow ? length(l) : 0));
}

static void end_after_load(struct x86_lift *l, unsigned reg)
{
    if (!lift_is64(l) && reg != X86_FS && reg != X86_GS)
        lift_end_state(l);
}

/* A register destination takes the operand size, memory 16 bits. */
static void store_selector(struct x86_lift *l, ir_ref value)
{
    const struct x86_insn *in = l->in;

    if (in->mod != 3) {
        ir_st(l->u, lift_linear(l, 2, true), 0, value);
        return;
    }
    if (in->operand_size > 2)
        value = ir_zext(l->u, lift_int_type(in->operand_size), value);
    lift_set_reg(l, in->rm, in->operand_size, false, value);
}

void lift_mov_from_seg(struct x86_lift *l)
{
    if (l->in->op[1].reg > X86_GS)
        lift_raise(l, X86_UD);
    else
        store_selector(l, ir_get(l->u, IR_I16, selector_slot(l->in->op[1].reg)));
}

void lift_mov_to_seg(struct x86_lift *l)
{
    unsigned reg = l->in->op[0].reg;

    if (reg > X86_GS || reg == X86_CS) {
        lift_raise(l, X86_UD);
        return;
    }
    load_segment(l, reg, lift_read(l, 1), true);
    end_after_load(l, reg);
}

void lift_push_seg(struct x86_lift *l)
{
    ir_ref value = ir_get(l->u, IR_I16, selector_slot(l->in->op[0].reg));

    if (l->in->operand_size > 2)
        value = ir_zext(l->u, lift_int_type(l->in->operand_size), value);
    lift_stack_push(l, value);
}

void lift_pop_seg(struct x86_lift *l)
{
    unsigned size = l->in->operand_size;
    ir_ref value = lift_stack_pop(l, lift_int_type(size));

    if (size > 2)
        value = ir_trunc(l->u, IR_I16, value);
    load_segment(l, l->in->op[0].reg, value, true);
    lift_add_sp(l, size);
    end_after_load(l, l->in->op[0].reg);
}

static void load_far_pointer(struct x86_lift *l, unsigned reg)
{
    unsigned size = l->in->operand_size;
    ir_ref at = lift_linear(l, size + 2, false);
    ir_ref offset = ir_ld(l->u, lift_int_type(size), at, 0);

    load_segment(l, reg, ir_ld(l->u, IR_I16, at, size), false);
    lift_write(l, 0, offset);
    end_after_load(l, reg);
}

void lift_les(struct x86_lift *l)
{
    load_far_pointer(l, X86_ES);
}

void lift_lds(struct x86_lift *l)
{
    load_far_pointer(l, X86_DS);
}

void lift_lss(struct x86_lift *l)
{
    load_far_pointer(l, X86_SS);
}

void lift_lfs(struct x86_lift *l)
{
    load_far_pointer(l, X86_FS);
}

void lift_lgs(struct x86_lift *l)
{
    load_far_pointer(l, X86_GS);
}

/* --- Far transfers --- */

static void far_operand(struct x86_lift *l, ir_ref *selector, ir_ref *offset)
{
    const struct x86_operand *op = &l->in->op[0];
    unsigned size = l->in->operand_size;
    ir_ref at;

    if (op->kind == X86_OP_FAR) {
        *selector = imm(l, op->selector);
        *offset = imm(l, op->value & mask_low(size * 8));
        return;
    }
    at = lift_linear(l, size + 2, false);
    *offset = zext64(l, ir_ld(l->u, lift_int_type(size), at, 0));
    *selector = zext64(l, ir_ld(l->u, IR_I16, at, size));
}

void lift_jmp_far(struct x86_lift *l)
{
    ir_ref selector, offset;

    far_operand(l, &selector, &offset);
    go_to(l, LIFT_CALL(l, IR_I64, far_jmp, selector, offset, imm(l, l->in->operand_size),
                       imm(l, length(l))));
}

void lift_call_far(struct x86_lift *l)
{
    ir_ref selector, offset;

    far_operand(l, &selector, &offset);
    go_to(l, LIFT_CALL(l, IR_I64, far_call, selector, offset, imm(l, l->in->operand_size),
                       imm(l, length(l))));
}

void lift_retf(struct x86_lift *l)
{
    u64 release = l->in->op[0].kind == X86_OP_IMM ? l->in->op[0].value & 0xffff : 0;

    go_to(l, VALUE2(l, far_ret, imm(l, l->in->operand_size), imm(l, release)));
}

void lift_iret(struct x86_lift *l)
{
    ir_ref lip = VALUE2(l, iret, imm(l, l->in->operand_size), imm(l, length(l)));

    go_to_with(l, lip, imm(l, X86_FLAG_TF), KEEP_RF_IRET);
}

void lift_syscall(struct x86_lift *l)
{
    ir_ref lip = VALUE1(l, syscall, imm(l, length(l)));

    /* Where it masks TF it is not stepped. */
    go_to_with(l, lip, ir_get(l->u, IR_I64, X86_SLOT(eflags)), CLEAR_RF);
}

void lift_sysret(struct x86_lift *l)
{
    go_to(l, VALUE1(l, sysret, imm(l, l->in->operand_size)));
}

void lift_sysenter(struct x86_lift *l)
{
    go_to(l, VALUE0(l, sysenter));
}

void lift_sysexit(struct x86_lift *l)
{
    go_to(l, VALUE1(l, sysexit, imm(l, l->in->operand_size)));
}

/* --- Descriptor tables and descriptors --- */

/* UMIP, privilege and VM exits; @identity as in the exit's instruction information. */
static void descriptor_table(struct x86_lift *l, u64 reason, u64 identity)
{
    u64 info = (exit_info(l->in) & mask_low(28)) | identity << 28;

    if (l->in->operand_size != 2)
        info |= BIT(11) * (reason == X86_REASON_GDTR_IDTR);
    CALL3(l, descriptor_table, imm(l, reason | length(l) << 32), imm(l, info),
          imm(l, (u64)l->in->disp));
}

void lift_sldt(struct x86_lift *l)
{
    descriptor_table(l, X86_REASON_LDTR_TR, 0);
    store_selector(l, ir_get(l->u, IR_I16, selector_slot(X86_LDTR)));
}

void lift_str(struct x86_lift *l)
{
    descriptor_table(l, X86_REASON_LDTR_TR, 1);
    store_selector(l, ir_get(l->u, IR_I16, selector_slot(X86_TR)));
}

void lift_lldt(struct x86_lift *l)
{
    ir_ref selector;

    descriptor_table(l, X86_REASON_LDTR_TR, 2);
    selector = lift_read(l, 0);
    CALL1(l, lldt, zext64(l, selector));
}

void lift_ltr(struct x86_lift *l)
{
    ir_ref selector;

    descriptor_table(l, X86_REASON_LDTR_TR, 3);
    selector = lift_read(l, 0);
    CALL1(l, ltr, zext64(l, selector));
}

static void set_zf(struct x86_lift *l, ir_ref zf)
{
    ir_ref flags = ir_and(l->u, lift_eflags_arith(l), imm(l, ~X86_FLAG_ZF));
    ir_ref bit = ir_shl(l->u, ir_zext(l->u, IR_I64, zf), ir_const(l->u, IR_I8, 6));

    lift_set_eflags_arith(l, ir_or(l->u, flags, bit));
}

void lift_verr(struct x86_lift *l)
{
    set_zf(l, ir_ne(l->u, VALUE1(l, verr, zext64(l, lift_read(l, 0))), imm(l, 0)));
}

void lift_verw(struct x86_lift *l)
{
    set_zf(l, ir_ne(l->u, VALUE1(l, verw, zext64(l, lift_read(l, 0))), imm(l, 0)));
}

/* LAR and LSL: bit 63 of @result says whether there is a value to write. */
static void inspected(struct x86_lift *l, ir_ref result)
{
    unsigned size = l->in->operand_size;
    ir_ref ok = ir_slt(l->u, result, imm(l, 0));
    ir_ref value = size == 8 ? ir_and(l->u, result, imm(l, ~BIT(63)))
                             : ir_trunc(l->u, lift_int_type(size), result);

    lift_write(l, 0, ir_sel(l->u, ok, value, lift_read(l, 0)));
    set_zf(l, ok);
}

void lift_lar(struct x86_lift *l)
{
    inspected(l, VALUE1(l, lar, zext64(l, lift_read(l, 1))));
}

void lift_lsl(struct x86_lift *l)
{
    inspected(l, VALUE1(l, lsl, zext64(l, lift_read(l, 1))));
}

void lift_arpl(struct x86_lift *l)
{
    bool memory = l->in->op[0].kind == X86_OP_MEM;
    ir_ref at = memory ? lift_address(l, 0, true) : IR_NONE;
    ir_ref old = memory ? ir_ld(l->u, IR_I16, at, 0) : lift_read(l, 0);
    ir_ref rpl_mask = ir_const(l->u, IR_I16, 3);
    ir_ref rpl = ir_and(l->u, lift_read(l, 1), rpl_mask);
    ir_ref less = ir_ult(l->u, ir_and(l->u, old, rpl_mask), rpl);
    ir_ref raised = ir_or(l->u, ir_and(l->u, old, ir_const(l->u, IR_I16, 0xfffc)), rpl);
    ir_ref value = ir_sel(l->u, less, raised, old);

    if (memory)
        ir_st(l->u, at, 0, value);
    else
        lift_write(l, 0, value);
    set_zf(l, less);
}

static void store_table(struct x86_lift *l, u64 identity, u32 base, u32 limit)
{
    unsigned size = lift_is64(l) ? 8 : 4;
    ir_ref at, value;

    descriptor_table(l, X86_REASON_GDTR_IDTR, identity);
    at = lift_linear(l, size + 2, true);
    value = ir_get(l->u, IR_I64, base);
    ir_st(l->u, at, 0, ir_trunc(l->u, IR_I16, ir_get(l->u, IR_I32, limit)));
    ir_st(l->u, at, 2, size == 8 ? value : ir_trunc(l->u, IR_I32, value));
}

void lift_sgdt(struct x86_lift *l)
{
    store_table(l, 0, X86_SLOT(gdtr.base), X86_SLOT(gdtr.limit));
}

void lift_sidt(struct x86_lift *l)
{
    store_table(l, 1, X86_SLOT(idtr.base), X86_SLOT(idtr.limit));
}

static void load_table(struct x86_lift *l, u64 identity, u64 which)
{
    unsigned size = lift_is64(l) ? 8 : 4;
    ir_ref at, limit, base;

    descriptor_table(l, X86_REASON_GDTR_IDTR, identity);
    at = lift_linear(l, size + 2, false);
    limit = zext64(l, ir_ld(l->u, IR_I16, at, 0));
    base = zext64(l, ir_ld(l->u, lift_int_type(size), at, 2));
    if (l->in->operand_size == 2 && size == 4)
        base = ir_and(l->u, base, imm(l, 0xffffff)); /* as the 80286 had it */
    CALL3(l, load_table, imm(l, which), base, limit);
}

void lift_lgdt(struct x86_lift *l)
{
    load_table(l, 2, 0);
}

void lift_lidt(struct x86_lift *l)
{
    load_table(l, 3, 1);
}
