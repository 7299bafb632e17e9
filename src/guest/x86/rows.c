/* The row table: the .def files as data. The short names that the files use exist here only. */
#include "guest/x86/rows.h"

/* clang-format off */
enum {
    M1 = X86_MAP_M1, M0F = X86_MAP_M0F, M38 = X86_MAP_M38, M3A = X86_MAP_M3A,
    ANY = X86_PFX_ANY, NP = X86_PFX_NP, NFX = X86_PFX_NFX,
    P66 = X86_PFX_P66, PF3 = X86_PFX_PF3, PF2 = X86_PFX_PF2,
    NONE = X86_MODRM_NONE, MR = X86_MODRM_MR, RR = X86_MODRM_RR, RN = X86_MODRM_RN,
    G0 = X86_MODRM_G, G1, G2, G3, G4, G5, G6, G7,
    R0 = X86_MODRM_R, R1, R2, R3, R4, R5, R6, R7,
    N0 = X86_MODRM_N, N1, N2, N3, N4, N5, N6, N7,
    ZREG = X86_ROW_ZREG, COND = X86_ROW_COND, LOCK = X86_ROW_LOCK, O64 = X86_ROW_O64,
    I64 = X86_ROW_I64, D64 = X86_ROW_D64, F64 = X86_ROW_F64, CPL0 = X86_ROW_CPL0,
    PROT = X86_ROW_PROT, SSE = X86_ROW_SSE, SSEFP = X86_ROW_SSEFP, FPU = X86_ROW_FPU,
    MMX = X86_ROW_MMX, ENDS = X86_ROW_ENDS,
};
/* clang-format on */
#define B(byte) (X86_MODRM_B + (byte))

const struct x86_row x86_rows[] = {
#define I(map_, opcode_, prefix_, modrm_, flags_, name_, op1, op2, op3)                            \
    {                                                                                              \
        .map = map_,                                                                               \
        .opcode = opcode_,                                                                         \
        .prefix = prefix_,                                                                         \
        .modrm = modrm_,                                                                           \
        .flags = flags_,                                                                           \
        .name = #name_,                                                                            \
        .op = {X86_OC_##op1, X86_OC_##op2, X86_OC_##op3},                                          \
    },
#include "guest/x86/all_rows.def"
#undef I
};
const unsigned x86_rows_count = ARRAY_SIZE(x86_rows);
