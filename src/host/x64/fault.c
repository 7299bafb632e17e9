/* Faults of translated code, as the host's kernel tells a signal handler of them. */
#include <string.h>
#include <ucontext.h>

#include "host/host.h"
#include "host/x64/regs.h"

#define PAGE_FAULT_WRITE 2 /* SDM vol. 3 4.7: error code, W/R */

void host_read_fault(const void *ucontext, struct host_fault *fault)
{
    const ucontext_t *uc = ucontext;

    fault->pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
    fault->write = uc->uc_mcontext.gregs[REG_ERR] & PAGE_FAULT_WRITE;
    fault->mxcsr = uc->uc_mcontext.fpregs->mxcsr;
}

struct host_frame *host_fault_frame(const void *ucontext)
{
    static const u8 greg[16] = {
        [RAX] = REG_RAX, [RCX] = REG_RCX, [RDX] = REG_RDX, [RBX] = REG_RBX,
        [RSP] = REG_RSP, [RBP] = REG_RBP, [RSI] = REG_RSI, [RDI] = REG_RDI,
        [R8] = REG_R8,   [R9] = REG_R9,   [R10] = REG_R10, [R11] = REG_R11,
        [R12] = REG_R12, [R13] = REG_R13, [R14] = REG_R14, [R15] = REG_R15,
    };
    const ucontext_t *uc = ucontext;
    struct host_frame *frame = (struct host_frame *)uc->uc_mcontext.gregs[REG_RSP];

    for (unsigned i = 0; i < 16; i++) {
        frame->saved[i] = (u64)uc->uc_mcontext.gregs[greg[i]];
        memcpy(frame->vector[i], &uc->uc_mcontext.fpregs->_xmm[i], 16);
    }
    return frame;
}
