/*
 * From an IR unit to host code in three walks:
 *
 *   plan.c   backwards: which instructions get code at all, which melt into their users (constants,
 *            comparisons before a branch, state slots as memory operands, address sums), and to
 *            where each value must be kept
 *   alloc.c  forwards: a register or a spill granule for each value that needs one
 *   lower.c  forwards: code, with slow paths behind it (sites.c) and the sites behind those
 *
 * Values in registers: i32 is zero-extended, i1 is 0 or 1, i8 and i16 have undefined upper bits
 * (their users look at the low bits only), f32 and f64 have undefined upper lanes (zeros behind
 * ld).
 *
 * Private to src/host/x64.
 */
#ifndef TRIODE_HOST_X64_LOWER_H
#define TRIODE_HOST_X64_LOWER_H

#include <errno.h>

#include "host/host.h"
#include "host/x64/encode.h"

#define NO_LOC 0xff /* value.reg: not in a register; 0..15 general, 16..31 xmm */
#define LOC_XMM 16
#define NO_GRANULE 0xffffu

enum {
    VALUE_NEEDED = 1 << 0, /* has a register or granule of its own */
    VALUE_XMM = 1 << 1,    /* lives in vector registers */
    VALUE_STORE = 1 << 2,  /* of a dput: store at once, no tracking */
    VALUE_FREED = 1 << 3,  /* alloc: its register was given back already */
    VALUE_PLACED = 1 << 4, /* alloc: has been given its place */
    VALUE_FUSED = 1 << 5,  /* a comparison that its only user emits */
};

/* What is known of each instruction. For a dput, end is the last instruction that may need its
 * value to make guest state precise, 0 for none. */
struct value {
    u32 end;    /* the last instruction that needs the value */
    u32 start;  /* the first that makes it: its own index, or a phi's first set */
    u32 next;   /* alloc: next value with the same end */
    u32 ending; /* alloc: list of values that end here */
    u16 uses;   /* saturating */
    u16 spill;  /* granule, or NO_GRANULE */
    u8 reg;
    u8 flags;
};

/* What is known besides in a unit of several blocks. Values of one web live in one place
 * (web.c). */
struct life {
    u32 weight;  /* how often it is read and written, roughly */
    ir_ref root; /* the value in whose place it lives; 0: its own */
};

/* Points of time: an instruction's operands are read, a call takes registers away, its result is
 * made. */
enum { POINT_READ, POINT_CLOBBER, POINT_MADE, POINTS };

static inline u32 point_at(u32 pos, u32 part)
{
    return pos * POINTS + part;
}

/* A place is taken from one point to another, inclusive; lists are in order. */
struct live_range {
    u32 from, to;
    struct live_range *next;
};

struct active_dput {
    ir_ref ref; /* the dput */
    u32 end;
};
#define MAX_ACTIVE_DPUTS 64

/* A displacement to fill in when the block it leads to has its place. */
struct fixup {
    u8 *place;
    u32 block;
};

/* Code out of the way of the hot path, made after it. */
enum stub_kind {
    STUB_SITE,     /* call thunk_site for site */
    STUB_UNLINKED, /* a direct jump that is not chained */
    STUB_LEAVE,    /* a goto_if out of the page, or with dputs in effect */
    STUB_MISSED,   /* the jump cache has no entry for the address in reg */
};
struct stub {
    u8 kind;
    u8 nconstants; /* SITE: loaded into rdx, rax before the call */
    u8 reg;        /* MISSED */
    u8 *place;     /* displacement that leads here */
    u32 site;      /* SITE: offset in the site buffer */
    u64 ways;      /* SITE: 0, or a thunk to call first: if it answers equal, */
    u8 *hit;       /* code to go on with */
    u32 link;      /* UNLINKED: index in host_code.links */
    bool backward; /* LEAVE: the jump leads to the instruction itself or before it */
    u64 constant[2];
    s64 offset;    /* LEAVE, UNLINKED: the destination is base + offset */
    ir_ref *dputs; /* LEAVE: to be done before */
    u32 ndputs;
    s64 insn_offset; /* of the guest instruction that it belongs to */
};

/* One of several copies done at once. */
struct parallel_move {
    ir_ref from; /* operand */
    ir_ref phi;  /* what it is for, when it is for a phi */
    u8 to_reg;   /* 0..15 general, 16..31 xmm, NO_LOC: the granule */
    u8 type;
    u16 to_spill;
};

struct lowering {
    struct x64 code;
    const struct ir_unit *unit;
    const struct host_abi *abi;
    struct value *values;
    struct life *lives; /* NULL for a single block */
    u32 *depths;        /* of loops, by block */
    struct use {
        ir_ref ref;
        u32 pos;
    } * uses; /* of values, in a unit of several blocks */
    u32 nuses, uses_cap;
    struct webs *webs; /* in a unit of several blocks */
    u32 weight;        /* plan: of a use by the current instruction */
    u64 *put_slots;    /* bits: 8 bytes of state each, that the unit changes */
    u32 pos;           /* instruction being lowered */
    u32 block;         /* its block */
    int error;         /* the first reason why this unit cannot be compiled, or 0 */

    u8 **block_places; /* code of each block, NULL before it is emitted */
    struct fixup *fixups;
    u32 nfixups;
    struct parallel_move *sets; /* of the current block */
    u32 nsets;
    struct stub *stubs;
    u32 nstubs, stubs_cap;
    struct stub spare_stub; /* what stub_new answers when memory ran out */
    u8 *sites;              /* the site records, offsets from here */
    u32 sites_bytes, sites_cap;
    struct active_dput dputs[MAX_ACTIVE_DPUTS];
    u32 ndputs;
    u32 pending_insns; /* guest instructions not yet counted */
    s64 insn_offset;   /* of the current guest instruction, from base */
    bool backward;     /* the jump being made leads backwards */
    struct host_code *out;

    u32 max_sets; /* the most sets in one block */
    u32 ncalls;
    bool vectors; /* some value lives in a vector register */
};

/* --- plan.c ------------------------------------------------------------------------------- */

/* Fills values[]; answers 0 or -ENOMEM. */
int plan_unit(struct lowering *l);

/* The value in whose place @ref lives. */
static inline ir_ref plan_root(const struct lowering *l, ir_ref ref)
{
    while (l->lives && l->lives[ref].root)
        ref = l->lives[ref].root;
    return ref;
}

/* Is @ref a state slot that nothing changes while the unit runs? Then it need not be kept
 * elsewhere. */
bool plan_at_home(const struct lowering *l, ir_ref ref);

/* The value to read instead of @ref: through truncations and extensions that change nothing a user
 * can see. @strict: the user looks at the whole register, not only at the bits of @ref's type. */
ir_ref plan_peel(const struct ir_unit *unit, ir_ref ref, bool strict);

/* Is @ref base + constant? Then the constant is in *@offset; such values need no register. */
bool plan_base_plus(const struct ir_unit *unit, ir_ref ref, s32 *offset);

/* The part of a memory address that must be in a register, with the constant part in *@disp; if
 * @imm does not fit an address form *@disp is 0 and the user adds it. */
bool plan_fits_displacement(s64 v);
ir_ref plan_address(const struct lowering *l, ir_ref ref, s64 imm, s32 *disp);

/* The same for load or store @access, which may have a second register as well when guest addresses
 * are the host's: base + (index << shift) + disp. @index: IR_NONE for none. */
struct plan_index {
    ir_ref base, index;
    unsigned shift;
    s32 disp;
};
struct plan_index plan_index(const struct lowering *l, const struct ir_inst *access);

/* The comparison that decides condition @ref when it melts into its user, else IR_NONE; *@invert
 * is set when the opposite is meant. @pos: the user. */
ir_ref plan_condition(const struct lowering *l, ir_ref ref, u32 pos, bool *invert);

/* The and whose operands an eq or ne with 0 tests directly, else IR_NONE. */
ir_ref plan_test(const struct lowering *l, const struct ir_inst *compare);

/* For an add: the operand that is a shift left by 1..3 which melts into an address form; its count
 * in *@shift. */
ir_ref plan_scaled(const struct lowering *l, ir_ref ref, unsigned *shift);

static inline bool is_xmm_type(unsigned type)
{
    return type >= IR_F32;
}

static inline unsigned type_bytes(unsigned type)
{
    static const u8 bytes[IR_TYPES] = {[IR_I1] = 1,  [IR_I8] = 1,  [IR_I16] = 2, [IR_I32] = 4,
                                       [IR_I64] = 8, [IR_F32] = 4, [IR_F64] = 8, [IR_V128] = 16};
    return bytes[type];
}

/* Bytes an integer operation on @type works on when upper garbage does no harm: 4 or 8. */
static inline unsigned wide_bytes(unsigned type)
{
    return type == IR_I64 ? 8 : 4;
}

/* --- alloc.c ------------------------------------------------------------------------------ */

/* 0, -ENOMEM, -E2BIG when there are not enough granules. */
int alloc_unit(struct lowering *l);

/* web.c, for a unit of several blocks: joins phis with what they are set to; 0 or -ENOMEM. */
int web_unit(struct lowering *l);
/* Where @ref, a root, has to have its place. */
const struct live_range *web_ranges(const struct lowering *l, ir_ref ref);
/* Is the place of @ref that of a value that @block begins with? */
bool web_wanted(const struct lowering *l, ir_ref ref, u32 block);

/* color.c: registers for a unit of several blocks; 0 or -ENOMEM. */
int color_unit(struct lowering *l);

/* --- lower.c: operands and results -------------------------------------------------------- */

enum operand_kind { IN_REG, IN_MEM, IN_CONST, IN_BASE };
struct operand {
    u8 kind;
    u8 reg;             /* REG: general or xmm number */
    struct x64_mem mem; /* MEM: a spill granule or a state slot */
    u64 imm;            /* CONST: the value; BASE: the offset (signed) */
};

/* Where operand @ref is to be read. */
struct operand operand_at(struct lowering *l, ir_ref ref, bool strict);
/* The operand in a general register, loaded into @scratch if it is in none. No flags change. */
unsigned operand_gpr(struct lowering *l, ir_ref ref, unsigned scratch, bool strict);
unsigned gpr_of(struct lowering *l, const struct operand *o, unsigned bytes, unsigned scratch);
/* The operand copied into register @d. No flags change. */
void operand_move(struct lowering *l, ir_ref ref, unsigned d, unsigned bytes);
void move_operand(struct lowering *l, const struct operand *o, unsigned d, unsigned bytes);
/* The vector or floating-point operand in an xmm register, loaded into @scratch if in none; a
 * constant comes through rdx. No flags change. */
unsigned xmm_of(struct lowering *l, const struct operand *o, unsigned type, unsigned scratch);
unsigned operand_xmm(struct lowering *l, ir_ref ref, unsigned scratch);
/* The same copied into @d. */
void operand_xmm_move(struct lowering *l, ir_ref ref, unsigned d);

/* The register in which instruction @ref should leave its result: its own, or @scratch when it has
 * none. result_done must follow; it stores spilled results. A result's register is never that of
 * another operand than the first one, unless the operation's row in lower_ops says otherwise. */
unsigned result_gpr(struct lowering *l, ir_ref ref, unsigned scratch);
unsigned result_xmm(struct lowering *l, ir_ref ref, unsigned scratch);
void result_done(struct lowering *l, ir_ref ref, unsigned reg); /* general */
void result_xmm_done(struct lowering *l, ir_ref ref, unsigned reg);
/* Moves a general register's value to where @ref lives. */
void result_from(struct lowering *l, ir_ref ref, unsigned reg, unsigned bytes);

static inline bool value_needed(const struct lowering *l, ir_ref ref)
{
    return l->values[ref].flags & VALUE_NEEDED;
}

/* alu d, operand: immediate and memory forms where they fit, @scratch where not. */
void alu_operand(struct lowering *l, enum x64_alu alu, unsigned bytes, unsigned d,
                 const struct operand *o, unsigned scratch);

static inline struct x64_mem slot_mem(u64 slot)
{
    return x64_at(STATE_REG, (s32)slot - STATE_BIAS);
}

static inline struct x64_mem granule_mem(unsigned granule)
{
    return x64_at(RSP, (s32)(granule * 16));
}

/* Bytes a scalar or vector load, store or move of @type takes. */
void xmm_load(struct x64 *c, unsigned type, unsigned d, struct x64_mem m);
void xmm_store(struct x64 *c, unsigned type, struct x64_mem m, unsigned s);
/* Stores operand @ref of @type, whatever it is, to @mem; rdx and xmm15 are used. */
void store_operand(struct lowering *l, ir_ref ref, unsigned type, struct x64_mem mem);

/* Does the copy change anything? */
bool move_is_needed(struct lowering *l, const struct parallel_move *move);
/* Copies all @n at once: no destination changes before all sources are read. No flags change. */
void move_parallel(struct lowering *l, struct parallel_move *moves, unsigned n);

/* --- conditions (lower_int.c) ------------------------------------------------------------- */

/* Flags after a comparison: cc decides, together with the parity flag for two of them. */
enum { PARITY_IGNORED, AND_NOT_PARITY, OR_PARITY };
struct condition {
    u8 cc;
    u8 parity;
};

/* Emits what sets the flags for condition operand @ref. */
struct condition condition_flags(struct lowering *l, ir_ref ref);
struct condition compare_flags(struct lowering *l, const struct ir_inst *compare);
struct condition compare_fp_flags(struct lowering *l, const struct ir_inst *compare);
struct condition condition_not(struct condition c);
/* Jumps if the condition holds; answers the one place to fill in. */
u8 *condition_jump(struct lowering *l, struct condition c);
/* The same with a displacement that can be patched atomically. */
u8 *condition_jump_aligned(struct lowering *l, struct condition c);

/* --- sites.c ------------------------------------------------------------------------------ */

/* Begins a record for the trapping instruction at l->pos with the dputs in effect; answers its
 * offset. The pointer from site_at is good until the next site_begin. */
u32 site_begin(struct lowering *l);
static inline struct host_site *site_at(struct lowering *l, u32 site)
{
    return (struct host_site *)(void *)(l->sites + site);
}
/* Describes operand @ref, of which @bytes matter, as a location. False for a constant that does not
 * fit: nothing is written then. */
bool site_locate(struct lowering *l, ir_ref ref, unsigned bytes, u8 *kind, s32 *where);
/* Describes where result @ref goes. */
void site_locate_result(struct lowering *l, ir_ref ref, u8 *kind, s32 *where);
/* A new stub of @kind that @place leads to, good until the next one is made. */
struct stub *stub_new(struct lowering *l, enum stub_kind kind, u8 *place);
/* All stubs, then the sites; fixes all offsets. */
void emit_stubs(struct lowering *l);
void emit_sites(struct lowering *l);
/* A dput begins to be in effect. */
void dput_track(struct lowering *l, ir_ref ref);

/* --- rows --------------------------------------------------------------------------------- */

enum {
    LOWER_MEM_A = 1 << 0, /* operand a may be a memory operand: a state slot read here */
    LOWER_MEM_B = 1 << 1,
    LOWER_STRICT = 1 << 2,  /* looks at whole registers of its operands */
    LOWER_ANY = 1 << 3,     /* the result may be in any operand's register */
    LOWER_COMM = 1 << 4,    /* the result may be in b's register: operands are swapped then */
    LOWER_COND = 1 << 5,    /* operand a is a condition */
    LOWER_ADDRESS = 1 << 6, /* operand a is a guest address */
};
struct lower_op {
    void (*emit)(struct lowering *l, ir_ref ref, const struct ir_inst *inst);
    u8 flags;
};
extern const struct lower_op lower_ops[IR_OPS];

static inline bool is_vector_op(unsigned op)
{
    return op > IR_exit_if && op < IR_NOP;
}

#define LOWER(name) void lower_##name(struct lowering *l, ir_ref ref, const struct ir_inst *inst)
LOWER(add);
LOWER(sub);
LOWER(mul);
LOWER(logic);
LOWER(umulh);
LOWER(div);
LOWER(div2);
LOWER(unary);
LOWER(shift);
LOWER(funnel);
LOWER(count_zeros);
LOWER(popcnt);
LOWER(bswap);
LOWER(compare);
LOWER(sel);
LOWER(zext);
LOWER(sext);
LOWER(trunc);
LOWER(extract);
LOWER(deposit);
LOWER(bitcast);
LOWER(fp_binary);
LOWER(fp_unary);
LOWER(fround);
LOWER(fma);
LOWER(fcvt);
LOWER(scvtf);
LOWER(fcvts);
LOWER(fflags);
LOWER(vec);
LOWER(vlo);
LOWER(vhi);
LOWER(vzext);
LOWER(vmerge);
LOWER(get);
LOWER(put);
LOWER(ld);
LOWER(st);
LOWER(acas);
LOWER(atomic);
LOWER(fence);
LOWER(call);
LOWER(set);
LOWER(jump);
LOWER(branch);
LOWER(insn);
LOWER(poll);
LOWER(goto);
LOWER(goto_if);
LOWER(goto_ind);
LOWER(exit);
LOWER(exit_if);
LOWER(nothing);

/* The tail of a goto to base + @offset. */
void leave_to(struct lowering *l, s64 offset);
/* A jump to base + @offset that may be chained: fills a link and makes its stub. False when it must
 * be left otherwise. */
bool leave_may_link(const struct lowering *l, s64 offset);
void leave_link(struct lowering *l, u8 *place, s64 offset);
/* The next displacement after @opcode_bytes will be 4-byte aligned. */
void align_displacement(struct lowering *l, unsigned opcode_bytes);
/* Compares the entry of the jump cache at rcx with the state's space and mode, both at once if they
 * lie side by side; rdx is used. False: there is no such @part (0, 1). */
bool compare_space(struct x64 *c, const struct host_abi *abi, unsigned part);
void count_insns(struct lowering *l);
/* rax = base + @offset. */
void leave_address(struct lowering *l, s64 offset);

/* Lane operations: all ops after exit_if (lower_vector.c). Emits code for @ref, which is needed or
 * has side effects. Their scalar operands are planned as strict and must be read so. */
void lower_vector(struct lowering *l, ir_ref ref);

static inline void lower_fail(struct lowering *l, int error)
{
    if (!l->error)
        l->error = error;
}

/* Makes sure of room for @bytes; fails the unit and answers false when there is none. */
static inline bool room(struct lowering *l, size_t bytes)
{
    if ((size_t)(l->code.limit - l->code.p) >= bytes)
        return true;
    lower_fail(l, -ENOSPC);
    return false;
}

#endif
