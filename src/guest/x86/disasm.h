#ifndef TRIODE_X86_DISASM_H
#define TRIODE_X86_DISASM_H

#include "base/types.h"

/* guest_ops.disassemble: one instruction as Intel-syntax text; answers its length, at least 1. */
int x86_disassemble(u32 mode, u64 pc, const u8 *code, u32 avail, char *text, size_t size);

#endif
