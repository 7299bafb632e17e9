/*
 * The reference: what a unit does, one instruction after the other. Threaded code over the rows; a
 * row with an expression is its eval_ function, any other names an exec_ function here that answers
 * the next instruction, or NULL to leave.
 */
#include <string.h>

#include "base/copy.h"
#include "ir/eval.h"
#include "ir/private.h"
#include "ir/vector.h"

struct machine {
    const struct ir_unit *unit;
    const struct ir_run *run;
    union ir_value *value; /* by reference */
    union ir_value *next;  /* what phis will be after the jump; by reference */
    struct ir_outcome outcome;
};

#define EXEC(name)                                                                                 \
    static inline const struct ir_inst *exec_##name(struct machine *m, const struct ir_inst *in)

static inline union ir_value *result(struct machine *m, const struct ir_inst *in)
{
    return &m->value[in - m->unit->insts];
}

static inline enum ir_type type_of(const struct machine *m, ir_ref ref)
{
    return m->unit->insts[ref].type;
}

static inline u64 scalar(const struct machine *m, ir_ref ref)
{
    return m->value[ref].q[0];
}

static inline unsigned bytes_of(enum ir_type type)
{
    return ir_bits_of[type] / 8;
}

static const struct ir_inst *enter_block(struct machine *m, u32 block)
{
    return &m->unit->insts[m->unit->blocks[block].first];
}

static inline const struct ir_inst *leave(struct machine *m, int how, u32 code)
{
    m->outcome.how = how;
    m->outcome.exit_code = code;
    return NULL;
}

static const struct ir_inst *leave_to(struct machine *m, u64 pc)
{
    memcpy((u8 *)m->run->state + m->unit->pc_slot, &pc, sizeof(pc));
    return leave(m, IR_LEFT_GOTO, 0);
}

EXEC(base)
{
    result(m, in)->q[0] = m->run->base + in->imm;
    return in + 1;
}

EXEC(get)
{
    union ir_value *r = result(m, in);

    r->q[0] = 0;
    copy_sized(r, (u8 *)m->run->state + in->imm, bytes_of(in->type));
    return in + 1;
}

EXEC(put)
{
    copy_sized((u8 *)m->run->state + in->imm, &m->value[in->a], bytes_of(type_of(m, in->a)));
    return in + 1;
}

EXEC(dput)
{
    return exec_put(m, in);
}

EXEC(sel)
{
    *result(m, in) = m->value[scalar(m, in->a) ? in->b : in->c];
    return in + 1;
}

EXEC(fma)
{
    u64 a = scalar(m, in->a), b = scalar(m, in->b), c = scalar(m, in->c);

    result(m, in)->q[0] = in->type == IR_F32
                              ? ir_bits_f32(ir_fma_f32(ir_f32(a), ir_f32(b), ir_f32(c)))
                              : ir_bits_f64(ir_fma_f64(ir_f64(a), ir_f64(b), ir_f64(c)));
    return in + 1;
}

EXEC(fcvt)
{
    u64 a = scalar(m, in->a);

    if (in->type == type_of(m, in->a))
        result(m, in)->q[0] = a;
    else
        result(m, in)->q[0] =
            in->type == IR_F32 ? ir_bits_f32((f32)ir_f64(a)) : ir_bits_f64((f64)ir_f32(a));
    return in + 1;
}

EXEC(scvtf)
{
    u64 a = scalar(m, in->a);
    s64 number = type_of(m, in->a) == IR_I32 ? (s32)a : (s64)a;

    result(m, in)->q[0] = in->type == IR_F32 ? ir_bits_f32((f32)number) : ir_bits_f64((f64)number);
    return in + 1;
}

EXEC(fcvts)
{
    result(m, in)->q[0] = ir_float_to_int(in->type, type_of(m, in->a), scalar(m, in->a), false);
    return in + 1;
}

EXEC(fcvtzs)
{
    result(m, in)->q[0] = ir_float_to_int(in->type, type_of(m, in->a), scalar(m, in->a), true);
    return in + 1;
}

EXEC(vec)
{
    *result(m, in) = (union ir_value){.q = {scalar(m, in->a), scalar(m, in->b)}};
    return in + 1;
}

EXEC(vlo)
{
    result(m, in)->q[0] = m->value[in->a].q[0];
    return in + 1;
}

EXEC(vhi)
{
    result(m, in)->q[0] = m->value[in->a].q[1];
    return in + 1;
}

EXEC(vlow)
{
    result(m, in)->q[0] = m->value[in->a].q[0] & ir_mask_of[in->type];
    return in + 1;
}

EXEC(vzext)
{
    *result(m, in) = (union ir_value){.q = {scalar(m, in->a), 0}};
    return in + 1;
}

EXEC(vmerge)
{
    union ir_value *r = result(m, in);

    *r = m->value[in->a];
    copy_sized(r, &m->value[in->b], bytes_of(type_of(m, in->b)));
    return in + 1;
}

EXEC(ld)
{
    union ir_value *r = result(m, in);

    r->q[0] = 0;
    m->run->memory->load(m->run->state, scalar(m, in->a) + in->imm, r, bytes_of(in->type));
    return in + 1;
}

EXEC(st)
{
    m->run->memory->store(m->run->state, scalar(m, in->a) + in->imm, &m->value[in->b],
                          bytes_of(type_of(m, in->b)));
    return in + 1;
}

static inline const struct ir_inst *atomic(struct machine *m, const struct ir_inst *in, u64 desired)
{
    result(m, in)->q[0] = m->run->memory->atomic(m->run->state, scalar(m, in->a) + in->imm, in->op,
                                                 bytes_of(in->type), scalar(m, in->b), desired) &
                          ir_mask_of[in->type];
    return in + 1;
}

EXEC(acas)
{
    return atomic(m, in, scalar(m, in->c));
}

EXEC(axchg)
{
    return atomic(m, in, 0);
}

EXEC(aadd)
{
    return atomic(m, in, 0);
}

EXEC(aand)
{
    return atomic(m, in, 0);
}

EXEC(aor)
{
    return atomic(m, in, 0);
}

EXEC(axor)
{
    return atomic(m, in, 0);
}

EXEC(fence)
{
    (void)m;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return in + 1;
}

static u64 call_helper(const struct ir_helper *helper, void *state, u64 a, u64 b, u64 c, u64 d)
{
    switch (helper->nargs) {
    case 0:
        return ((u64(*)(void *))helper->fn)(state);
    case 1:
        return ((u64(*)(void *, u64))helper->fn)(state, a);
    case 2:
        return ((u64(*)(void *, u64, u64))helper->fn)(state, a, b);
    case 3:
        return ((u64(*)(void *, u64, u64, u64))helper->fn)(state, a, b, c);
    default:
        return ((u64(*)(void *, u64, u64, u64, u64))helper->fn)(state, a, b, c, d);
    }
}

EXEC(call)
{
    u64 value = call_helper(&m->unit->helpers[in->imm], m->run->state, scalar(m, in->a),
                            scalar(m, in->b), scalar(m, in->c), scalar(m, in->d));

    result(m, in)->q[0] = value & ir_mask_of[in->type];
    return in + 1;
}

EXEC(phi)
{
    *result(m, in) = m->next[in - m->unit->insts];
    return in + 1;
}

EXEC(set)
{
    m->next[in->imm] = m->value[in->a];
    return in + 1;
}

EXEC(jump)
{
    return enter_block(m, in->imm);
}

EXEC(branch)
{
    return enter_block(m, scalar(m, in->a) ? (u32)in->imm : in->imm >> 32);
}

EXEC(insn)
{
    m->outcome.insn = (u32)in->imm;
    return in + 1;
}

EXEC(poll)
{
    return __atomic_load_n(m->run->request, __ATOMIC_RELAXED)
               ? leave(m, IR_LEFT_EXIT, IR_EXIT_REQUEST)
               : in + 1;
}

EXEC(goto)
{
    return leave_to(m, m->run->base + in->imm);
}

EXEC(goto_if)
{
    return scalar(m, in->a) ? leave_to(m, m->run->base + in->imm) : in + 1;
}

EXEC(goto_ind)
{
    return leave_to(m, scalar(m, in->a));
}

EXEC(exit)
{
    return leave(m, IR_LEFT_EXIT, in->imm);
}

EXEC(exit_if)
{
    return scalar(m, in->a) ? leave(m, IR_LEFT_EXIT, in->imm) : in + 1;
}

struct ir_outcome ir_interpret(const struct ir_unit *unit, const struct ir_run *run)
{
    /* On the stack, because a memory function or helper may leave by longjmp. */
    union ir_value values[unit->ninsts], next[unit->nblocks > 1 ? unit->ninsts : 1];
    struct machine m = {.unit = unit, .run = run, .value = values, .next = next};
    const struct ir_inst *in = enter_block(&m, 0);
    static const void *const labels[IR_OPS] = {
#define IR_OP(name, sig, types, flags, expr, doc) [IR_##name] = &&run_##name,
#include "ir/ops.def"
#include "ir/ops_vector.def"
#undef IR_OP
        [IR_NOP] = &&run_nop,
    };

    values[0].q[0] = 0; /* operands that an op does not have are read as well */
    goto *labels[in->op];

#define NEXT                                                                                       \
    in++;                                                                                          \
    goto *labels[in->op];

#define RUN_1(name)                                                                                \
    run_##name : in = exec_##name(&m, in);                                                         \
    if (!in)                                                                                       \
        return m.outcome;                                                                          \
    goto *labels[in->op];
#define RUN_0(name)                                                                                \
    run_##name : values[in - unit->insts].q[0] =                                                   \
        eval_##name(in->type, unit->insts[in->a].type, unit->insts[in->b].type,                    \
                    values[in->a].q[0], values[in->b].q[0], values[in->c].q[0], in->imm) &         \
        ir_mask_of[in->type];                                                                      \
    NEXT
#define IR_OP(name, sig, types, flags, expr, doc) IR_PASTE(RUN_, IR_IS_FUNC(expr))(name)
#include "ir/ops.def"
#undef IR_OP

#define IR_OP(name, sig, types, flags, expr, doc)                                                  \
    run_##name : values[in - unit->insts] =                                                        \
                     eval_##name(&values[in->a], &values[in->b], &values[in->c], in->imm);         \
    NEXT
#include "ir/ops_vector.def"
#undef IR_OP

run_nop:
    NEXT
}
