/* x86 code in any mode. Input: u32 mode, u16 offset in the page, u8 choices, then the code. */
#include "lift.h"
#include "guest/x86/x86.h"

#define MODES ((X86_MODE_DR << 1) - 1)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    u32 mode = fuzz_take(&in, 4) & MODES;

    if ((mode & X86_MODE_CODE_MASK) == 3)
        mode ^= 1;
    fuzz_lift(&x86_guest_ops, &in, mode, 1, 15);
    return 0;
}
