/* RISC-V code with any dynamic rounding mode. Input: u8 mode, u16 offset in the page, u8 choices,
 * then the code. */
#include "guest/riscv/riscv.h"
#include "lift.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    u32 mode = fuzz_take(&in, 1) & RISCV_MODE_FRM;

    fuzz_lift(&riscv_guest_ops, &in, mode, 2, 4);
    return 0;
}
