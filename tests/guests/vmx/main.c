#include "vmx_guest.h"

void guest_main(void)
{
    unsigned failed;

    if (!vmx_start()) {
        print("VMXON failed\n");
        quit(1);
    }
    failed = test_checks() + test_exits() + test_events() + test_information() + test_memory() +
             test_smp();
    print(failed ? "FAILED\n" : "all passed\n");
    quit(failed ? 1 : 0);
}
