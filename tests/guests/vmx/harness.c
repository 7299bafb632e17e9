/* See harness.h. */
#include "harness.h"

static const char *test;
unsigned failures;

void expect(const char *what, u64 got, u64 wanted)
{
    if (got == wanted)
        return;
    failures++;
    print("FAILED: ");
    print(test);
    print(": ");
    print(what);
    print(" is ");
    print_hex(got);
    print(", wanted ");
    print_hex(wanted);
    print("\n");
}

static bool launched;

void begin(const char *name, void (*code)(void))
{
    test = name;
    launched = false;
    vmcs_make(code);
}

u64 run(void)
{
    u64 result = enter_guest(launched);

    launched = true;
    return result ? ~0ull : GET(exit_reason);
}

void skip(void)
{
    PUT(guest_rip, GET(guest_rip) + GET(vm_exit_instruction_length));
}

u64 guest_at(void (*code)(void))
{
    return GET(guest_rip) - (u64)code;
}

static u64 idt[64][2] __attribute__((aligned(16)));

void gate(unsigned vector, void (*code)(void))
{
    u64 at = (u64)code;

    idt[vector][0] = (at & 0xffff) | 8 << 16 | 0x8eull << 40 | (at >> 16 & 0xffff) << 48;
    idt[vector][1] = at >> 32;
}

void use_idt(void)
{
    PUT(guest_idtr_base, (u64)idt);
    PUT(guest_idtr_limit, sizeof(idt) - 1);
}

__asm__(".globl code_handler, code_nops");
GUEST(code_handler, "pop %rax; vmcall");
GUEST(code_nops, "nop; nop; nop; nop; vmcall");

void without_paging(void)
{
    PROC2(C_enable_ept | C_unrestricted_guest);
    REMOVE(vm_entry_controls, C_entry_ia32e_mode_guest);
    PUT(guest_ia32_efer, 0);
    PUT(guest_cr0, 0x31);
}

void virtual_8086(void (*code)(void))
{
    without_paging();
    PUT(guest_rflags, 0x20002);
    for (unsigned i = 0; i < 6; i++) {
        vmwrite(FIELD_guest_es_selector + 2 * i, 0xffff);
        vmwrite(FIELD_guest_es_base + 2 * i, 0xffff0);
        vmwrite(FIELD_guest_es_limit + 2 * i, 0xffff);
        vmwrite(FIELD_guest_es_access_rights + 2 * i, 0xf3);
    }
    PUT(guest_rip, (u64)code - 0xffff0);
    PUT(guest_rsp, 0xfff0);
}

u64 *const ept_2m = (u64 *)pages[8];
u64 *const ept_4k = (u64 *)pages[9];
u64 *const ept_pdpt = (u64 *)pages[10];
u64 *const ept_root = (u64 *)pages[11];

void own_ept(bool flags)
{
    memset(pages[8], 0, 4 * 4096);
    ept_root[0] = (u64)ept_pdpt | 7;
    ept_pdpt[0] = (u64)ept_2m | 7;
    for (u64 i = 0; i < 512; i++)
        ept_2m[i] = i << 21 | 0xb7;
    ept_2m[ROOM >> 21] = (u64)ept_4k | 7;
    for (u64 i = 0; i < 512; i++)
        ept_4k[i] = (ROOM + (i << 12)) | 0x37;
    PUT(ept_pointer, (u64)ept_root | 3 << 3 | 6 | (flags ? 1 << 6 : 0));
    PROC2(C_enable_ept);
}

void flush_ept(void)
{
    u64 descriptor[2] = {GET(ept_pointer), 0};

    __asm__ volatile("invept %0, %1" : : "m"(descriptor), "r"(1ull) : "cc", "memory");
}

void virtual_apic(const char *name, void (*code)(void))
{
    begin(name, code);
    memset(pages[1], 0, 4096);
    PROC(C_use_tpr_shadow);
    PUT(virtual_apic_address, (u64)pages[1]);
}

unsigned run_groups(const char *what, void (*const tests[])(void), size_t n)
{
    unsigned before = failures;

    for (size_t i = 0; i < n; i++)
        tests[i]();
    print_hex(n);
    print(" groups of ");
    print(what);
    print("\n");
    return failures - before;
}
