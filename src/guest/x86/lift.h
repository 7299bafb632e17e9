/*
 * What lift functions work with. A lift function turns one decoded instruction into IR:
 *     void lift_add(struct x86_lift *l)
 * Operand checks of the row's flags (CPL0, LOCK, FPU/SSE availability ...) are already lifted. It
 * need not advance lip: the driver puts lip at every instruction's start (so that faults are
 * precise) and goes to the next one after it, unless the function ended the block.
 */
#ifndef TRIODE_X86_LIFT_H
#define TRIODE_X86_LIFT_H

#include "guest/x86/insn.h"
#include "guest/x86/state.h"
#include "ir/ir.h"

struct x86_lift {
    struct ir_unit *u;
    const struct x86_insn *in;
    u32 mode;      /* X86_MODE_* */
    u32 offset;    /* of this instruction from base */
    u32 next;      /* of the next one */
    bool ended;    /* the block has its terminator */
    bool branch;   /* the instruction is one, for who counts, */
    bool depends;  /* which is not always taken */
    bool counted;  /* the performance counters have it, */
    bool recorded; /* and the record of last branches */
    u32 start;     /* of the block's first instruction, */
    ir_ref room;   /* and how far CS reaches behind its first byte, where that is to be checked */
    /* What the lifter knows of the lazy flags at this point; see cc.h. */
    struct x86_cc {
        bool known;
        u64 op;
        ir_ref dst, src, src2;
    } cc;
};

#define X86_SLOT(field) ((u32)offsetof(struct x86_cpu, field))

static inline bool lift_is64(const struct x86_lift *l)
{
    return (l->mode & X86_MODE_CODE_MASK) == X86_MODE_CODE64;
}

/* IR integer type of 1, 2, 4, 8 bytes. */
enum ir_type lift_int_type(unsigned bytes);

/* General registers. A 32-bit write zero-extends in every mode (the upper half is unobservable
 * outside 64-bit mode); 8/16-bit writes merge. @high: AH CH DH BH. */
ir_ref lift_reg(struct x86_lift *l, unsigned reg, unsigned bytes, bool high);
void lift_set_reg(struct x86_lift *l, unsigned reg, unsigned bytes, bool high, ir_ref value);

/* Effective address (offset in the segment, truncated to the address size), and the linear address
 * of the memory operand for an access of @bytes (adds the segment base; outside flat modes checks
 * the segment by helper). i64. */
ir_ref lift_ea(struct x86_lift *l);
ir_ref lift_linear(struct x86_lift *l, unsigned bytes, bool write);
/* The same for any segment and offset (i64). */
ir_ref lift_segment(struct x86_lift *l, unsigned segment, ir_ref offset, unsigned bytes,
                    bool write);

/* Operand n (0..2) as an integer of its size: register, memory or immediate. */
ir_ref lift_read(struct x86_lift *l, unsigned n);
void lift_write(struct x86_lift *l, unsigned n, ir_ref value);
/* For read-modify-write destinations: the linear address is computed once. */
ir_ref lift_address(struct x86_lift *l, unsigned n, bool write);

/* Flags. */
ir_ref lift_eflags_arith(struct x86_lift *l); /* i64: the six flags in their places */
void lift_set_eflags_arith(struct x86_lift *l, ir_ref flags); /* i64; other bits ignored */
ir_ref lift_cf(struct x86_lift *l);                           /* i1 */
ir_ref lift_condition(struct x86_lift *l, unsigned cc);       /* i1: Jcc condition code 0..15 */
/* ZF PF CF as given (i1 each), OF SF AF 0: COMISD, PTEST, ... (@pf IR_NONE: 0) */
void lift_set_zpc(struct x86_lift *l, ir_ref zf, ir_ref pf, ir_ref cf);

/* Raise an exception now (ends the block), or if @cond (i1). Error code 0 where there is one. */
void lift_raise(struct x86_lift *l, unsigned vector);
void lift_raise_if(struct x86_lift *l, ir_ref cond, unsigned vector);

/* #UD unless CPUID has the feature, X86_FEATURE_*. */
void lift_need_feature(struct x86_lift *l, u64 feature);

/* The instruction is done: nothing of it can fault any more. Who ends a block otherwise than by the
 * functions here, or may leave it after an instruction, calls this before. */
void lift_count(struct x86_lift *l);

/* A branch to the linear address @to (i64) is about to be taken, if @cond (i1; IR_NONE: always):
 * for the record of last branches. Once all that may fault is done; again for the same branch does
 * nothing. */
void lift_record_branch(struct x86_lift *l, ir_ref cond, ir_ref to);

/* Go on at the next instruction through the run loop or a lookup: after anything that may have
 * changed the mode word or the address space. Ends the block. */
void lift_end_state(struct x86_lift *l);

/* The next instruction's linear address (i64), and its RIP: less the CS base. */
ir_ref lift_next_pc(struct x86_lift *l);
ir_ref lift_next_rip(struct x86_lift *l);

/* The stack: width of the stack pointer in bytes; value of rSP cut to it; push of a value of its
 * own type. lift_stack_pop loads what is on top and leaves rSP; lift_add_sp commits, once nothing
 * can fault any more. */
unsigned lift_stack_width(const struct x86_lift *l);
void lift_stack_push(struct x86_lift *l, ir_ref value);
ir_ref lift_stack_pop(struct x86_lift *l, enum ir_type type);
void lift_add_sp(struct x86_lift *l, s64 bytes);

/* Transfers; each ends the block. To an offset from base (near, this CS); to a RIP (i64) in this
 * CS, cut to the operand size; to an offset if @cond, else the next instruction. */
void lift_goto(struct x86_lift *l, s64 offset);
/* Nothing is to be checked of a jump to that offset from base, nor anybody to be told of it. */
bool lift_is_plain(const struct x86_lift *l, s64 offset);
void lift_goto_rip(struct x86_lift *l, ir_ref rip);
void lift_goto_if(struct x86_lift *l, ir_ref cond, s64 offset);

/* The flags now come from this operation: X86_CC(kind, bytes) and its values as in cc.h, of the
 * operation's own type (or i64); IR_NONE for those the kind does not keep. */
void lift_cc(struct x86_lift *l, u64 op, ir_ref dst, ir_ref src, ir_ref src2);
/* Forget what is known of the flags: after a helper that wrote the cc slots. */
void lift_flags_changed(struct x86_lift *l);

/* Calls row @helper of helpers.def; unused operands IR_NONE. lip is precise. */
#define LIFT_CALL(l, type, name, a, b, c, d) ir_call((l)->u, type, X86_HELPER_##name, a, b, c, d)

/*
 * Helpers callable from lifted code: X(name, number of operands, flags), implemented as
 * u64 x86_helper_<name>(struct x86_cpu *, u64...). Rows stand in helpers_int.def, helpers_sys.def,
 * helpers_sse.def, helpers_x87.def.
 */
enum x86_helper {
#define X(name, nargs, flags) X86_HELPER_##name,
#include "guest/x86/all_helpers.def"
#undef X
    X86_HELPERS
};

/* One lift function for each name in the tables, generated declarations in rows.h. */

#endif
