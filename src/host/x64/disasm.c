/* Listing of emitted code. */
#include <string.h>

#include <Zydis/Zydis.h>

#include "host/host.h"

/* Units call a thunk this way for their slow paths, and the distance to the site record follows;
 * helpers are called through a register. */
#define CALL_RELATIVE 0xe8

void host_disassemble(const u8 *code, size_t bytes, u64 exec_addr, FILE *out)
{
    size_t at = 0;

    while (at < bytes) {
        ZydisDisassembledInstruction inst;

        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, exec_addr + at,
                                                code + at, bytes - at, &inst))) {
            fprintf(out, "%016" PRIx64 "  .byte 0x%02x\n", exec_addr + at, code[at]);
            at++;
            continue;
        }
        fprintf(out, "%016" PRIx64 "  %s\n", exec_addr + at, inst.text);
        at += inst.info.length;
        if (code[at - inst.info.length] == CALL_RELATIVE && bytes - at >= 4) {
            u32 distance;

            memcpy(&distance, code + at, 4);
            fprintf(out, "%016" PRIx64 "  .long 0x%x ; site at %" PRIx64 "\n", exec_addr + at,
                    distance, exec_addr + at + distance);
            at += 4;
        }
    }
}
