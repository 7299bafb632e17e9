/* ModR/M bytes for rows of the decode table. */
#ifndef TRIODE_TESTS_MODRM_H
#define TRIODE_TESTS_MODRM_H

#include "guest/x86/rows.h"

/* The ModR/M byte next to @byte that decodes as @row. */
static inline u8 modrm_of_row(const struct x86_row *row, u8 byte)
{
    if (row->modrm >= X86_MODRM_B)
        return (u8)row->modrm;
    if (row->modrm >= X86_MODRM_G) {
        byte = (u8)((byte & 0xc7) | (row->modrm & 7) << 3);
        if (row->modrm >= X86_MODRM_N)
            return byte >= 0xc0 ? byte & 0x7f : byte;
        return row->modrm >= X86_MODRM_R ? byte | 0xc0 : byte;
    }
    if (row->modrm == X86_MODRM_RR)
        return byte | 0xc0;
    if (row->modrm == X86_MODRM_RN && byte >= 0xc0)
        return byte & 0x7f;
    return byte;
}

#endif
