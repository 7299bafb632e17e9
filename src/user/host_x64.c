/* What user mode knows of the host CPU's signal contexts. */
#include <ucontext.h>

#include "user/private.h"

extern const u8 user_host_begin[], user_host_end[], user_host_cancelled[];

void user_host_cancel(void *ucontext)
{
    greg_t *pc = &((ucontext_t *)ucontext)->uc_mcontext.gregs[REG_RIP];

    if ((u64)*pc >= (u64)user_host_begin && (u64)*pc < (u64)user_host_end)
        *pc = (greg_t)user_host_cancelled;
}

void user_host_fault(const void *ucontext, struct user_fault *fault)
{
    const greg_t *regs = ((const ucontext_t *)ucontext)->uc_mcontext.gregs;

    fault->trap = (u64)regs[REG_TRAPNO];
    fault->error = (u64)regs[REG_ERR];
    fault->address = (u64)regs[REG_CR2];
}
