/* RISC-V code with any dynamic rounding mode. Input: u8 mode, u16 offset in the page, u8 choices, then
 * the code. */
#include "fuzz.h"
#include "guest/riscv/riscv.h"
#include "lift.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    u8 bytes[2 * FUZZ_LIFT_BYTES];
    struct guest_lift lift = {.code = bytes};
    u32 offset;
    u8 choices;

    lift.mode = fuzz_take(&in, 1) & RISCV_MODE_FRM;
    offset = fuzz_take(&in, 2) & 4094;
    choices = (u8)fuzz_take(&in, 1);
    lift.pc = 0x401000 + offset;
    lift.avail = 4096 - offset < FUZZ_LIFT_BYTES ? 4096 - offset : FUZZ_LIFT_BYTES;
    lift.max_insns = choices & 16 ? 1 : 32;
    fuzz_bytes(&in, bytes, sizeof bytes);
    fuzz_lift(&riscv_guest_ops, &lift, 4, choices);
    return 0;
}
