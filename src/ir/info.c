/* The tables that ops.def and ops_vector.def make. */
#include "ir/eval.h"
#include "ir/private.h"

#define NONE 0
#define BOOL (1 << IR_I1)
#define INT (1 << IR_I8 | 1 << IR_I16 | 1 << IR_I32 | 1 << IR_I64)
#define FP (1 << IR_F32 | 1 << IR_F64)
#define VEC (1 << IR_V128)
#define W (1 << IR_I32 | 1 << IR_I64)
#define Q (1 << IR_I64)
#define ANY (1 << IR_VOID | BOOL | INT)

#define COMM IR_COMM
#define SIDE IR_SIDE
#define TRAP IR_TRAP
#define OBSERVE IR_OBSERVE
#define TERM IR_TERM
#define ENV IR_ENV

const struct ir_op_info ir_op_info[IR_OPS] = {
#define IR_OP(name, sig, types, flags, expr, doc) [IR_##name] = {#name, sig, types, flags, doc},
#include "ir/ops.def"
#include "ir/ops_vector.def"
#undef IR_OP
    [IR_NOP] = {"nop", ".=", NONE, 0, "An instruction that a pass removed."},
};

const struct ir_op_shape ir_op_shape[IR_OPS] = {
/* Operand letters stand behind the '='. A call's operands may be absent. */
#define AT(sig, k) (sig)[sizeof(sig) > 3 + (k) ? 2 + (k) : 0]
#define LETTER(sig, k) (sizeof(sig) > 3 + (k) && AT(sig, k) != '#' ? AT(sig, k) : 0)
#define IR_OP(name, sig, types, flags, expr, doc)                                                  \
    [IR_##name] = {.operand = {LETTER(sig, 0), LETTER(sig, 1), LETTER(sig, 2), LETTER(sig, 3)},    \
                   .result = (sig)[0],                                                             \
                   .nargs = sizeof(sig) - 3 - ((sig)[sizeof(sig) - 2] == '#'),                     \
                   .has_imm = (sig)[sizeof(sig) - 2] == '#'},
#include "ir/ops.def"
#include "ir/ops_vector.def"
#undef IR_OP
    [IR_NOP] = {.result = '.'},
};

const u8 ir_bits_of[IR_TYPES] = {
    [IR_I1] = 1,   [IR_I8] = 8,   [IR_I16] = 16,   [IR_I32] = 32, [IR_I64] = 64,
    [IR_F32] = 32, [IR_F64] = 64, [IR_V128] = 128, [IR_V256] = 0,
};

const u64 ir_mask_of[IR_TYPES] = {
    [IR_I1] = 1,           [IR_I8] = 0xff,    [IR_I16] = 0xffff,
    [IR_I32] = 0xffffffff, [IR_I64] = ~0ull,  [IR_F32] = 0xffffffff,
    [IR_F64] = ~0ull,      [IR_V128] = ~0ull, [IR_V256] = ~0ull,
};

static const char *const type_names[IR_TYPES] = {"void", "i1",  "i8",  "i16",  "i32",
                                                 "i64",  "f32", "f64", "v128", "v256"};

unsigned ir_type_bits(enum ir_type type)
{
    return type == IR_V256 ? 256 : ir_bits_of[type];
}

unsigned ir_type_bytes(enum ir_type type)
{
    return (ir_type_bits(type) + 7) / 8;
}

const char *ir_type_name(enum ir_type type)
{
    return type < IR_TYPES ? type_names[type] : "?";
}

enum ir_type ir_letter_type(char letter)
{
    switch (letter) {
    case '1':
        return IR_I1;
    case 'b':
        return IR_I8;
    case 'w':
        return IR_I16;
    case 'l':
        return IR_I32;
    case 'q':
        return IR_I64;
    case 'f':
        return IR_F32;
    case 'd':
        return IR_F64;
    case 'v':
        return IR_V128;
    default:
        return IR_VOID;
    }
}
