/* Listing of emitted code. */
#include <Zydis/Zydis.h>

#include "host/host.h"

void host_disassemble(const u8 *code, size_t bytes, u64 exec_addr, FILE *out)
{
    size_t at = 0;

    while (at < bytes) {
        ZydisDisassembledInstruction inst;

        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, exec_addr + at,
                                                code + at, bytes - at, &inst))) {
            /* Distances to site records stand between the slow paths. */
            fprintf(out, "%016" PRIx64 "  .byte 0x%02x\n", exec_addr + at, code[at]);
            at++;
            continue;
        }
        fprintf(out, "%016" PRIx64 "  %s\n", exec_addr + at, inst.text);
        at += inst.info.length;
    }
}
