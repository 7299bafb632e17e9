/* Shared by the files of src/ir. */
#ifndef TRIODE_IR_PRIVATE_H
#define TRIODE_IR_PRIVATE_H

#include "ir/ir.h"

/* A row's signature taken apart. */
struct ir_op_shape {
    char operand[4]; /* letters; 0 for none */
    char result;     /* letter; '.' for none */
    u8 nargs;
    bool has_imm;
};
extern const struct ir_op_shape ir_op_shape[IR_OPS];

/* The type that a signature's letter names; IR_VOID for T, S and '.'. */
enum ir_type ir_letter_type(char letter);

/* Appends an instruction as it is to the current block; IR_NONE when memory ran out. */
ir_ref ir_append(struct ir_unit *unit, const struct ir_inst *inst);

/* What the builder would answer for an instruction instead of appending it: *inst may be changed
 * into a simpler one; IR_NONE when it is to be appended. */
ir_ref ir_simplify(struct ir_unit *unit, struct ir_inst *inst);

/* Operand by number, 0..3. */
static inline ir_ref ir_operand(const struct ir_inst *inst, unsigned k)
{
    return k == 0 ? inst->a : k == 1 ? inst->b : k == 2 ? inst->c : inst->d;
}

#endif
