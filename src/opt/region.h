/* The parts of region forming to each other. Private to src/opt. */
#ifndef TRIODE_OPT_REGION_H
#define TRIODE_OPT_REGION_H

#include "opt/opt.h"

enum {
    REGION_NODES = 192,
    REGION_VARS = 64,
    REGION_PREDS = 32,
    REGION_CONSTS = 256,
};
#define REGION_NONE ~0u

/* A run of instructions of a part that becomes one block of the region. */
struct region_node {
    u32 part;
    ir_ref first, last;  /* last: the goto_if or terminator that ends it */
    u32 then, otherwise; /* nodes; REGION_NONE: leaves the region, or there is no such way */
    u32 group;           /* the node that the part, or this copy of it, begins with */
    u32 order;           /* place in the region's layout; REGION_NONE while not reached */
    u32 npreds, preds[REGION_PREDS];
};

/* Guest state that the region keeps in values: slots that all accesses of the region treat as one,
 * or as a part of one. */
struct region_var {
    u32 slot, bytes;
    u8 type;
};

/* Which value a variable holds, see region_slots.c. */
typedef u32 region_id;

struct region {
    struct arena *arena;
    struct opt_part *parts;
    u32 nparts;
    struct region_node nodes[REGION_NODES];
    u32 nnodes;
    u32 order[REGION_NODES], nordered; /* nodes in reverse postorder: dominators come first */

    struct region_var vars[REGION_VARS];
    u32 nvars, pc_var;
    u8 *var_of[OPT_MAX_PARTS]; /* by reference of a get or put: variable + 1 */
    region_id (*in)[REGION_VARS], (*out)[REGION_VARS]; /* by node */
    region_id *alias[REGION_NODES]; /* by group and reference: what a get found */
    u64 used[REGION_NODES];         /* variables that have phis */
    u64 entry_used;                 /* variables whose value at the region's entry is read */
    struct region_const {
        u64 imm;
        u8 type;
    } consts[REGION_CONSTS];
    u32 nconsts;
};

/* --- region_graph.c: 0, -ENOENT, -E2BIG */
int region_graph(struct region *r);
/* The part that @inst of part @p jumps to, or REGION_NONE. */
u32 region_jump(const struct region *r, u32 p, const struct ir_inst *inst);

/* --- region_slots.c: which value each variable holds where */

/* A value's name: equal names are equal values. Besides what its kind needs, nothing is in it. */
enum region_kind {
    ID_NOTHING, /* not known yet */
    ID_ENTRY,   /* what variable @what held when the region was entered */
    ID_MEMORY,  /* what memory holds for variable @what */
    ID_CONST,   /* constant number @what */
    ID_PC,      /* the guest address of node @node's part */
    ID_PHI,     /* of variable @what in node @node */
    ID_DEF,     /* reference @what of group @node */
};

static inline region_id region_name(enum region_kind kind, u32 node, u32 what)
{
    return (u32)kind << 28 | node << 16 | what;
}

static inline enum region_kind region_kind(region_id id)
{
    return (enum region_kind)(id >> 28);
}

static inline u32 region_id_node(region_id id)
{
    return id >> 16 & 0xfff;
}

static inline u32 region_id_what(region_id id)
{
    return id & 0xffff;
}

/* Must memory be told of the value that variable @v has by name @id? */
static inline bool region_in_value(region_id id, u32 v)
{
    return region_kind(id) >= ID_CONST || (region_kind(id) == ID_ENTRY && region_id_what(id) != v);
}

/* The first variable whose phi in node @n gets what @v's gets on all ways; REGION_NONE for none. */
u32 region_twin(const struct region *r, u32 n, u32 v);

int region_slots(struct region *r); /* 0, -E2BIG, -ENOMEM */

/* What instruction @ref of node @n does to the names in @names. */
void region_step(struct region *r, u32 n, ir_ref ref, region_id *names);

/* The variable that the get or put at @ref of part @p reads or writes, or REGION_NONE. */
static inline u32 region_var_of(const struct region *r, u32 p, ir_ref ref)
{
    return r->var_of[p][ref] ? r->var_of[p][ref] - 1u : REGION_NONE;
}

/* Does a get or put of @type at @slot mean the whole variable, as it is kept? */
static inline bool region_whole(const struct region_var *var, u32 slot, enum ir_type type)
{
    return var->slot == slot && var->type == type;
}

/* The base of part @p's unit, from the region's. */
static inline s64 region_page(const struct region *r, u32 p)
{
    return r->parts[p].dispatch ? 0 : r->parts[p].offset & ~(s64)4095;
}

static inline const struct ir_unit *region_unit(const struct region *r, u32 node)
{
    return &r->parts[r->nodes[node].part].unit;
}

#endif
