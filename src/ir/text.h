/* The text form, shared by printer and parser. Private to src/ir. */
#ifndef TRIODE_IR_TEXT_H
#define TRIODE_IR_TEXT_H

#include "ir/ir.h"

/* How what follows the operation's name is written. */
enum ir_form {
    IR_FORM_PLAIN,  /* %1, %2, imm */
    IR_FORM_CONST,  /* 0x10 */
    IR_FORM_SLOT,   /* s[16], %1 */
    IR_FORM_MEMORY, /* [%1 + 0x10], %2 */
    IR_FORM_CALL,   /* @name, %1 */
    IR_FORM_SET,    /* %phi, %1 */
    IR_FORM_JUMP,   /* block 1 */
    IR_FORM_BRANCH, /* %1, block 1, block 2 */
    IR_FORM_INSN,   /* 0x10, 3 */
    IR_FORM_PC,     /* %1, base + 0x10 */
    IR_FORM_BASE,   /* + 0x10, or nothing */
};
enum ir_form ir_form(enum ir_op op);

#endif
