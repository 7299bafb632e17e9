#include "vmx_guest.h"

u8 pages[16][4096] __attribute__((aligned(4096)));
u64 ept_pointer;

u8 vmcs_regions[2][4096] __attribute__((aligned(4096)));
unsigned vmcs_number;

static u8 vmxon_regions[2][4096] __attribute__((aligned(4096)));
static u64 ept_root[512] __attribute__((aligned(4096)));
static u64 ept_gigabytes[512] __attribute__((aligned(4096)));
static u8 guest_stack[4096] __attribute__((aligned(16)));

void print(const char *text)
{
    while (*text)
        outb(0x3f8, (u8)*text++);
}

void print_hex(u64 value)
{
    print("0x");
    for (int shift = 60; shift >= 0; shift -= 4)
        if (value >> shift || !shift)
            outb(0x3f8, (u8) "0123456789abcdef"[value >> shift & 15]);
}

void quit(int status)
{
    __asm__ volatile("outl %0, %1" : : "a"(status), "Nd"((u16)0xf4));
    for (;;)
        __asm__ volatile("cli; hlt");
}

void *memset(void *to, int value, size_t size)
{
    u8 *byte = to;

    while (size--)
        *byte++ = (u8)value;
    return to;
}

/* Compilers ask for it. */
void *memcpy(void *to, const void *from, size_t size);
void *memcpy(void *to, const void *from, size_t size)
{
    u8 *byte = to;
    const u8 *source = from;

    while (size--)
        *byte++ = *source++;
    return to;
}

/* The least a control word must have, by the TRUE capability MSR. */
static u32 must(u32 msr)
{
    return (u32)rdmsr(msr);
}

u32 may_be_one(u32 msr)
{
    return (u32)(rdmsr(msr) >> 32);
}

bool vmx_start(void)
{
    u64 region = (u64)vmxon_regions[vmcs_number], cr4 = READ_CR(4) | 1 << 13;
    u8 failed;

    if (!(rdmsr(0x3a) & 1))
        wrmsr(0x3a, 5);
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
    *(u32 *)region = (u32)rdmsr(0x480);
    __asm__ volatile("vmxon %1; setna %0" : "=r"(failed) : "m"(region) : "cc", "memory");
    ept_root[0] = (u64)ept_gigabytes | 7;
    for (u64 i = 0; i < 4; i++)
        ept_gigabytes[i] = i << 30 | 7 | 6 << 3 | 1 << 7;
    ept_pointer = (u64)ept_root | 3 << 3 | 6;
    return !failed;
}

static void controls(void)
{
    vmwrite(FIELD_pin_based_controls, must(0x48d));
    vmwrite(FIELD_primary_processor_based_controls,
            must(0x48e) | (u32)C_activate_secondary_controls | C_hlt_exiting);
    vmwrite(FIELD_secondary_processor_based_controls, 0);
    vmwrite(FIELD_primary_vm_exit_controls, must(0x48f) | C_exit_host_address_space_size |
                                                C_exit_save_efer | C_exit_load_efer |
                                                C_exit_load_pat);
    vmwrite(FIELD_vm_entry_controls, must(0x490) | C_entry_ia32e_mode_guest | C_entry_load_efer |
                                         C_entry_load_pat | C_entry_load_debug_controls);
    vmwrite(FIELD_ept_pointer, ept_pointer);
    vmwrite(FIELD_tsc_multiplier, 1ull << 48);
    vmwrite(FIELD_virtual_processor_identifier, 1);
}

static void host_state(void)
{
    vmwrite(FIELD_host_cr0, READ_CR(0));
    vmwrite(FIELD_host_cr3, READ_CR(3));
    vmwrite(FIELD_host_cr4, READ_CR(4));
    vmwrite(FIELD_host_ia32_efer, rdmsr(0xc0000080));
    vmwrite(FIELD_host_ia32_pat, rdmsr(0x277));
    vmwrite(FIELD_host_cs_selector, 8);
    vmwrite(FIELD_host_ss_selector, 16);
    vmwrite(FIELD_host_ds_selector, 16);
    vmwrite(FIELD_host_es_selector, 16);
    vmwrite(FIELD_host_tr_selector, 24);
    vmwrite(FIELD_host_tr_base, (u64)tss);
    vmwrite(FIELD_host_gdtr_base, (u64)gdt);
}

static void segment(u32 index, u16 selector, u32 limit, u32 access, u64 base)
{
    vmwrite(FIELD_guest_es_selector + 2 * index, selector);
    vmwrite(FIELD_guest_es_limit + 2 * index, limit);
    vmwrite(FIELD_guest_es_access_rights + 2 * index, access);
    vmwrite(FIELD_guest_es_base + 2 * index, base);
}

static void guest_state(void (*code)(void))
{
    vmwrite(FIELD_guest_cr0, READ_CR(0));
    vmwrite(FIELD_guest_cr3, READ_CR(3));
    vmwrite(FIELD_guest_cr4, READ_CR(4));
    vmwrite(FIELD_guest_ia32_efer, rdmsr(0xc0000080));
    vmwrite(FIELD_guest_ia32_pat, rdmsr(0x277));
    vmwrite(FIELD_guest_dr7, 0x400);
    segment(0, 16, ~0u, 0xc093, 0);
    segment(1, 8, ~0u, 0xa09b, 0);
    segment(2, 16, ~0u, 0xc093, 0);
    segment(3, 16, ~0u, 0xc093, 0);
    segment(4, 16, ~0u, 0xc093, 0);
    segment(5, 16, ~0u, 0xc093, 0);
    segment(6, 0, 0, 0x10000, 0);
    segment(7, 24, 0x67, 0x8b, (u64)tss);
    vmwrite(FIELD_guest_gdtr_base, (u64)gdt);
    vmwrite(FIELD_guest_gdtr_limit, 39);
    vmwrite(FIELD_guest_rip, (u64)code);
    vmwrite(FIELD_guest_rsp, (u64)guest_stack + sizeof(guest_stack) - 8);
    vmwrite(FIELD_guest_rflags, 2);
    vmwrite(FIELD_vmcs_link_pointer, ~0ull);
}

void vmcs_make(void (*code)(void))
{
    u8 *vmcs_region = vmcs_regions[vmcs_number];
    u64 region = (u64)vmcs_region;

    __asm__ volatile("vmclear %0" : : "m"(region) : "cc", "memory");
    memset(vmcs_region, 0, 4096);
    *(u32 *)vmcs_region = (u32)rdmsr(0x480);
    __asm__ volatile("vmptrld %0" : : "m"(region) : "cc", "memory");
    controls();
    host_state();
    guest_state(code);
}
