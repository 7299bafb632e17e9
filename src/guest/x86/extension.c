/*
 * Which instructions belong to the extensions that x86-64-v2 adds to x86-64. CPUs without one of
 * them translate in X86_MODE_REDUCED, where these check for it; others lose nothing. Later
 * extensions check always, by their lift functions.
 */
#include "guest/x86/driver.h"
#include "guest/x86/rows.h"
#include "guest/x86/x86_internal.h"

static u64 of_one_byte(const struct x86_insn *in)
{
    bool fisttp = in->has_modrm && in->mod != 3 && (in->modrm >> 3 & 7) == 1;

    switch (in->opcode) {
    case 0x9e: /* SAHF */
    case 0x9f: /* LAHF */
        return in->code_size == 8 ? X86_FEATURE_LAHF : 0;
    case 0xdb:
    case 0xdd:
    case 0xdf:
        return fisttp ? X86_FEATURE_SSE3 : 0;
    }
    return 0;
}

static u64 of_0f(const struct x86_insn *in)
{
    unsigned prefix = in->row->prefix;

    switch (in->opcode) {
    case 0x12: /* MOVDDUP, MOVSLDUP */
    case 0x16: /* MOVSHDUP */
        return prefix == X86_PFX_PF2 || prefix == X86_PFX_PF3 ? X86_FEATURE_SSE3 : 0;
    case 0x7c: /* HADD, HSUB, ADDSUB */
    case 0x7d:
    case 0xd0:
        return X86_FEATURE_SSE3;
    case 0xf0: /* LDDQU */
        return prefix == X86_PFX_PF2 ? X86_FEATURE_SSE3 : 0;
    case 0xb8:
        return prefix == X86_PFX_PF3 ? X86_FEATURE_POPCNT : 0;
    case 0xc7: /* CMPXCHG16B */
        return in->mod != 3 && (in->modrm >> 3 & 7) == 1 && in->rex & 8 ? X86_FEATURE_CX16 : 0;
    }
    return 0;
}

static u64 of_0f38(const struct x86_insn *in)
{
    if (in->opcode <= 0x0b || (in->opcode >= 0x1c && in->opcode <= 0x1e))
        return X86_FEATURE_SSSE3;
    if (in->opcode == 0x37 || in->row->prefix == X86_PFX_PF2) /* PCMPGTQ, CRC32 */
        return X86_FEATURE_SSE4_2;
    return in->opcode <= 0x41 ? X86_FEATURE_SSE4_1 : 0;
}

static u64 of_0f3a(const struct x86_insn *in)
{
    if (in->opcode == 0x0f) /* PALIGNR */
        return X86_FEATURE_SSSE3;
    return (in->opcode & 0xf0) == 0x60 ? X86_FEATURE_SSE4_2 : X86_FEATURE_SSE4_1;
}

u64 x86_extension(const struct x86_insn *in)
{
    switch (in->map) {
    case X86_MAP_M0F:
        return of_0f(in);
    case X86_MAP_M38:
        return of_0f38(in);
    case X86_MAP_M3A:
        return of_0f3a(in);
    }
    return of_one_byte(in);
}
