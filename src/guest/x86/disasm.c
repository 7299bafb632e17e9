/* Listings by Zydis: an opinion independent of our own decoder. */
#include <stdio.h>

#include <Zydis/Zydis.h>

#include "guest/x86/disasm.h"
#include "guest/x86/state.h"

int x86_disassemble(u32 mode, u64 pc, const u8 *code, u32 avail, char *text, size_t size)
{
    static const ZydisMachineMode modes[4] = {
        ZYDIS_MACHINE_MODE_LEGACY_16,
        ZYDIS_MACHINE_MODE_LEGACY_32,
        ZYDIS_MACHINE_MODE_LONG_64,
        ZYDIS_MACHINE_MODE_LONG_64,
    };
    ZydisDisassembledInstruction insn;

    if (ZYAN_FAILED(
            ZydisDisassembleIntel(modes[mode & X86_MODE_CODE_MASK], pc, code, avail, &insn))) {
        snprintf(text, size, "(bad) %02x", avail ? code[0] : 0);
        return 1;
    }
    snprintf(text, size, "%s", insn.text);
    return insn.info.length;
}
