/*
 * The intermediate representation: what a lifter says a guest's instructions do, and all that the
 * optimiser, the interpreter and the hosts ever see. It knows no guest: guest registers are state
 * slots, byte offsets from the state pointer; guest specifics are helpers in a table.
 *
 * A unit is a list of blocks; a block is a contiguous range of instructions; an instruction is its
 * own SSA value. Guest state changes only by put/dput (and goto's write of the pc slot), so a
 * precise state at any trapping instruction is: memory, overlaid with the dputs in effect there.
 */
#ifndef TRIODE_IR_H
#define TRIODE_IR_H

#include <stdio.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/types.h"

enum ir_type {
    IR_VOID,
    IR_I1,
    IR_I8,
    IR_I16,
    IR_I32,
    IR_I64,
    IR_F32,
    IR_F64,
    IR_V128,
    IR_V256,
    IR_TYPES
};

enum ir_op {
#define IR_OP(name, sig, types, flags, expr, doc) IR_##name,
#include "ir/ops.def"
#include "ir/ops_vector.def"
#undef IR_OP
    IR_NOP, /* an instruction that a pass removed */
    IR_OPS
};

enum {
    IR_COMM = 1 << 0,
    IR_SIDE = 1 << 1,
    IR_TRAP = 1 << 2,
    IR_OBSERVE = 1 << 3,
    IR_TERM = 1 << 4,
    IR_ENV = 1 << 5, /* floating-point environment; see ops.def */
};

struct ir_op_info {
    const char *name;
    const char *signature;
    u32 types; /* 1 << enum ir_type */
    u32 flags;
    const char *doc;
};
extern const struct ir_op_info ir_op_info[IR_OPS];

/* Exit codes of exit, exit_if and poll. A guest's own codes start at IR_EXIT_GUEST. */
enum {
    IR_EXIT_REQUEST = 1, /* the request word was not 0 */
    IR_EXIT_GUEST = 16,
};

typedef u32 ir_ref; /* index of an instruction in its unit */
#define IR_NONE 0u  /* index 0 is never a value */

struct ir_inst {
    u16 op;
    u8 type; /* result type, IR_VOID for none */
    u8 mark; /* scratch for one pass at a time */
    ir_ref a, b, c, d;
    u64 imm;
};

struct ir_block {
    u32 first, count; /* range in insts */
};

/* A C function that lifted code may call: u64 fn(state, a, b, c, d), unused operands left out. */
enum {
    IR_HELPER_READS = 1 << 0,  /* reads guest state slots */
    IR_HELPER_WRITES = 1 << 1, /* writes guest state slots */
    IR_HELPER_TRAPS = 1 << 2,  /* may not return (raises a guest exception); implies READS */
    IR_HELPER_PURE = 1 << 3,   /* result depends on operands alone */
};
struct ir_helper {
    const char *name;
    void *fn;
    u8 nargs;
    u8 flags;
};

struct ir_unit {
    struct arena *arena;
    struct ir_inst *insts;
    u32 ninsts, cap;
    struct ir_block *blocks;
    u32 nblocks, blocks_cap;
    u32 current; /* block being built */
    const struct ir_helper *helpers;
    u32 nhelpers;
    u32 pc_slot;                /* byte offset of the guest's pc (i64) in its state */
    bool failed;                /* memory ran out while building */
    u32 guest_insns;            /* guest instructions in the unit */
    struct ir_forward *forward; /* builder's view of slot contents in the current block */
    bool pc_pending;            /* ir_pc_is: the put is still to be made, */
    s64 pc_offset;              /* of base + this */
    u32 first_insn;             /* offset of the first guest instruction, */
    bool may_return;            /* and there is a way out that may lead back to it or before it */
    ir_ref poll;
};

/* Begins an empty unit; instructions live in @arena. Block 0 exists and is current. */
void ir_init(struct ir_unit *unit, struct arena *arena, const struct ir_helper *helpers,
             u32 nhelpers, u32 pc_slot);

/* The unit is complete. Takes its poll back if all ways out are jumps to behind its beginning: a
 * ring of units has one in it that jumps back, and it is enough that this one polls. */
void ir_drop_poll(struct ir_unit *unit);

/* A new block's number; ir_begin makes it current (once, after the one before has its
 * terminator). */
u32 ir_block_new(struct ir_unit *unit);
void ir_begin(struct ir_unit *unit, u32 block);

/* The general builder: checks nothing, folds constants, simplifies identities (x+0, x&x, extract of
 * zext ...), forwards get after put/get of the same slot in the block, and shares equal pure values
 * where that is cheap. Answers the value to use, which may be an older one. */
ir_ref ir_emit(struct ir_unit *unit, enum ir_op op, enum ir_type type, ir_ref a, ir_ref b, ir_ref c,
               ir_ref d, u64 imm);

/* From here on the pc slot holds base + @offset. The put is made by ir_emit when something comes
 * that can look at it, which most instructions have nothing of: until the next call, a put to the
 * slot or a goto in its place. */
static inline void ir_pc_is(struct ir_unit *unit, s64 offset)
{
    unit->pc_pending = true;
    unit->pc_offset = offset;
}

static inline const struct ir_inst *ir_inst(const struct ir_unit *unit, ir_ref ref)
{
    return &unit->insts[ref];
}

static inline enum ir_type ir_typeof(const struct ir_unit *unit, ir_ref ref)
{
    return (enum ir_type)unit->insts[ref].type;
}

static inline bool ir_is_const(const struct ir_unit *unit, ir_ref ref)
{
    return unit->insts[ref].op == IR_const;
}

/* Width of a type in bits (i1: 1) and in bytes as it is in memory. */
unsigned ir_type_bits(enum ir_type type);
unsigned ir_type_bytes(enum ir_type type);
const char *ir_type_name(enum ir_type type);

/* Builders by name, for lifters. Types come from the operands unless named. */
#include "ir/build.h"

/* Text form; ir_parse(ir_print(u)) gives u again (but for removed instructions). ir_parse fills a
 * unit fresh from ir_init, as written and not verified; -EINVAL with the line in @err. Syntax:
 * docs/ir.md. */
void ir_print(const struct ir_unit *unit, FILE *out);
int ir_parse(struct ir_unit *unit, const char *text, struct err *err);

/* 0, or -EINVAL with the first broken rule in @err. */
int ir_verify(const struct ir_unit *unit, struct err *err);

/* The reference: runs the unit once on @state. */
struct ir_memory { /* how the interpreter reaches guest memory; each may leave by longjmp */
    void (*load)(void *state, u64 addr, void *buf, unsigned bytes);
    void (*store)(void *state, u64 addr, const void *buf, unsigned bytes);
    /* Atomic read-modify-write: op is IR_acas..IR_axor; answers the old value. */
    u64 (*atomic)(void *state, u64 addr, enum ir_op op, unsigned bytes, u64 operand, u64 desired);
};
struct ir_run {
    void *state;
    u64 base; /* value of the base op */
    const volatile u32 *request;
    const struct ir_memory *memory;
};
struct ir_outcome {
    enum { IR_LEFT_GOTO, IR_LEFT_EXIT } how; /* pc slot is written for GOTO */
    u32 exit_code;
    u32 insn; /* offset from base of the guest instruction that was left */
};
/* Because every put is done in order in memory, a longjmp out of a memory function or helper leaves
 * precise state. */
struct ir_outcome ir_interpret(const struct ir_unit *unit, const struct ir_run *run);

#endif
