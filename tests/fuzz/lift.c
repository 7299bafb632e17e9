/* x86 code in any mode. Input: u32 mode, u16 offset in the page, u8 choices, then the code. */
#include "lift.h"
#include "fuzz.h"
#include "guest/x86/x86.h"

#define MODES ((X86_MODE_DR << 1) - 1)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    u8 bytes[2 * FUZZ_LIFT_BYTES];
    struct guest_lift lift = {.code = bytes};
    u32 offset;
    u8 choices;

    lift.mode = fuzz_take(&in, 4) & MODES;
    offset = fuzz_take(&in, 2) & 4095;
    choices = (u8)fuzz_take(&in, 1);
    lift.pc = 0x401000 + offset;
    lift.avail = 4096 - offset < FUZZ_LIFT_BYTES ? 4096 - offset : FUZZ_LIFT_BYTES;
    lift.max_insns = choices & 16 ? 1 : 32;
    if ((lift.mode & X86_MODE_CODE_MASK) == 3)
        lift.mode ^= 1;
    fuzz_bytes(&in, bytes, sizeof bytes);
    fuzz_lift(&x86_guest_ops, &lift, 15, choices);
    return 0;
}
