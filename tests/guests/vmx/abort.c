/* A VMX abort (28.7): the list of MSRs to load at a VM exit has one that no list may have. */
#include "harness.h"

GUEST(code_exit, "vmcall");

void guest_main(void)
{
    static struct {
        u32 index, reserved;
        u64 value;
    } list __attribute__((aligned(16))) = {.index = 0xc0000100};

    if (!vmx_start())
        quit(1);
    begin("28.7 VMX abort", code_exit);
    PUT(vm_exit_msr_load_address, (u64)&list);
    PUT(vm_exit_msr_load_count, 1);
    run();
    quit(1);
}
