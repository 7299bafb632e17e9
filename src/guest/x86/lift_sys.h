/* What the files that lift system instructions share: operands, helper calls, VM-exit
 * information. */
#ifndef TRIODE_X86_LIFT_SYS_H
#define TRIODE_X86_LIFT_SYS_H

#include "guest/x86/driver.h"
#include "guest/x86/lift.h"
#include "guest/x86/x86_internal.h"

static inline ir_ref imm(struct x86_lift *l, u64 value)
{
    return ir_const(l->u, IR_I64, value);
}

static inline u64 length(const struct x86_lift *l)
{
    return l->next - l->offset;
}

static inline ir_ref zext64(struct x86_lift *l, ir_ref value)
{
    return ir_typeof(l->u, value) == IR_I64 ? value : ir_zext(l->u, IR_I64, value);
}

#define CALL0(l, name) LIFT_CALL(l, IR_VOID, name, IR_NONE, IR_NONE, IR_NONE, IR_NONE)
#define CALL1(l, name, a) LIFT_CALL(l, IR_VOID, name, a, IR_NONE, IR_NONE, IR_NONE)
#define CALL2(l, name, a, b) LIFT_CALL(l, IR_VOID, name, a, b, IR_NONE, IR_NONE)
#define CALL3(l, name, a, b, c) LIFT_CALL(l, IR_VOID, name, a, b, c, IR_NONE)
#define VALUE0(l, name) LIFT_CALL(l, IR_I64, name, IR_NONE, IR_NONE, IR_NONE, IR_NONE)
#define VALUE1(l, name, a) LIFT_CALL(l, IR_I64, name, a, IR_NONE, IR_NONE, IR_NONE)
#define VALUE2(l, name, a, b) LIFT_CALL(l, IR_I64, name, a, b, IR_NONE, IR_NONE)

/* VM-exit instruction information (SDM vol. 3 tables 27-9 to 27-14): the memory operand, or the
 * register in ModRM.rm; and the register in ModRM.reg. */
static inline u64 exit_info(const struct x86_insn *in)
{
    u64 info = (u64)(in->address_size >> 2) << 7 | (u64)in->reg << 28;

    if (in->mod == 3)
        return info | (u64)in->rm << 3 | BIT(10);
    info |= in->scale | (u64)in->segment << 15;
    info |= in->index >= 0 ? (u64)in->index << 18 : BIT(22);
    info |= in->base >= 0 ? (u64)in->base << 23 : BIT(27);
    return info;
}

#endif
