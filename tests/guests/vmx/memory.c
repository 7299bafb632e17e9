/* EPT and the guest's own page tables, VPIDs and invalidation, the APIC-access page (28.2, 29,
 * 30). */
#include "harness.h"

/* The guest's own page tables, in ROOM: 1 GiB one to one, by 4-KiB pages from ROOM to ROOM + 2
 * MiB. */
#define TABLES (ROOM + 0x10000)
#define PML4 ((volatile u64 *)TABLES)
#define PDPT ((volatile u64 *)(TABLES + 0x1000))
#define DIRECTORY ((volatile u64 *)(TABLES + 0x2000))
#define TABLE ((volatile u64 *)(TABLES + 0x3000))
#define ENTRY_OF(gpa) (((gpa)-ROOM) >> 12)
#define ACCESSED 0x20

static void own_tables(u64 flags)
{
    memset((void *)TABLES, 0, 0x4000);
    PML4[0] = (TABLES + 0x1000) | 3 | flags;
    PDPT[0] = (TABLES + 0x2000) | 3 | flags;
    for (u64 i = 0; i < 512; i++) {
        DIRECTORY[i] = i << 21 | 0x83 | flags;
        TABLE[i] = (ROOM + (i << 12)) | 3 | flags;
    }
    DIRECTORY[ROOM >> 21] = (TABLES + 0x3000) | 3 | flags;
    PUT(guest_cr3, TABLES);
}

/* The exit qualification of a violation, without what is undefined. */
static u64 violation(void)
{
    return GET(exit_qualification) & 0x1bf;
}

GUEST(code_read, "mov 0x3000000, %al; vmcall");
static void paging_structures(void)
{
    begin("28.2.1 a paging structure that is not mapped", code_read);
    own_ept(false);
    own_tables(0);
    ept_4k[ENTRY_OF(TABLES)] = 0;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x81);
    EXPECT(GET(guest_physical_address), TABLES);
    EXPECT(GET(guest_linear_address), (u64)code_read);
    EXPECT(GET(vm_exit_instruction_length) < 16, 1);

    begin("29.3.3.2 setting an accessed flag reads and writes", code_read);
    own_ept(false);
    own_tables(0);
    ept_4k[ENTRY_OF(TABLES)] &= ~6ull;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x8b);
    EXPECT(GET(guest_physical_address), TABLES);
    own_tables(ACCESSED);
    EXPECT(run(), 18);

    begin("29.3.3.2 the data page's entry, by a linear address", code_read);
    own_ept(false);
    own_tables(ACCESSED);
    ept_4k[ENTRY_OF(TABLES + 0x3000)] = 0;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x81);
    EXPECT(GET(guest_physical_address), TABLES + 0x3000);
    EXPECT(GET(guest_linear_address), ROOM);
    EXPECT(guest_at(code_read), 0);

    begin("29.3.3.2 with accessed and dirty flags walks write", code_read);
    own_ept(true);
    own_tables(ACCESSED);
    ept_4k[ENTRY_OF(TABLES)] &= ~6ull;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x8b);
    ept_4k[ENTRY_OF(TABLES)] |= 2;
    EXPECT(run(), 18);
    EXPECT(ept_4k[ENTRY_OF(TABLES)] & 0x300, 0x300);
    EXPECT(ept_4k[0] & 0x300, 0x100);

    begin("29.3.3.1 a misconfigured paging structure", code_read);
    own_ept(false);
    own_tables(ACCESSED);
    ept_4k[ENTRY_OF(TABLES + 0x1000)] = 2;
    EXPECT(run(), 49);
    EXPECT(GET(guest_physical_address), TABLES + 0x1000);
}

GUEST(code_write, "movb $1, 0x3000000; vmcall");
GUEST(code_jump, "mov $0x3000000, %eax; jmp *%rax");
static void page_rights(void)
{
    static const struct {
        u64 entry, wanted;
    } cases[] = {{0, 0}, {2, 0x400}, {4, 0x200}, {6, 0x600}, {1ull << 63 | 6, 0xe00}};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin("28.2.1 advanced information: the page's rights", code_read);
        own_ept(false);
        own_tables(ACCESSED | 4);
        TABLE[0] = ROOM | 1 | ACCESSED | cases[i].entry;
        ept_4k[0] = 0;
        EXPECT(run(), 48);
        EXPECT(GET(exit_qualification) & 0xfff, 0x181 | cases[i].wanted);
    }

    begin("28.2.1 a read of an execute-only page", code_read);
    own_ept(false);
    ept_4k[0] = (ept_4k[0] & ~7ull) | 4;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x1a1);

    begin("28.2.1 a write to a page that is read-only by a 2-MiB entry", code_write);
    own_ept(false);
    ept_2m[ROOM >> 21] = ROOM | 0xb1;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x18a);

    begin("28.2.1 a fetch of what an upper level does not let execute", code_jump);
    own_ept(false);
    ept_2m[ROOM >> 21] &= ~4ull;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x19c);
    EXPECT(GET(guest_rip), ROOM);

    begin("28.2.1 addresses that EPT does not have", code_read);
    own_ept(false);
    own_tables(ACCESSED);
    TABLE[0] = 1ull << 39 | 3 | ACCESSED;
    EXPECT(run(), 48);
    EXPECT(violation(), 0x181);
    EXPECT(GET(guest_physical_address), 1ull << 39);
}

static void misconfigurations(void)
{
    static const u64 leaves[] = {2, 6, 0x17, 0x1f, 0x3f, 1ull << 51 | 0x37};
    static const u64 tables[] = {0x0f, 0x17, 0x27, 0x47, 1ull << 51 | 7, 2, 6};

    for (unsigned i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
        begin("29.3.3.1 misconfigured leaves", code_read);
        own_ept(false);
        ept_4k[0] = ROOM | leaves[i];
        EXPECT(run(), 49);
        EXPECT(GET(guest_physical_address), ROOM);
        flush_ept();
        ept_4k[0] = ROOM | 0x37;
        EXPECT(run(), 18);
    }
    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        begin("29.3.3.1 misconfigured tables", code_read);
        own_ept(false);
        ept_2m[ROOM >> 21] = (u64)ept_4k | tables[i];
        EXPECT(run(), 49);
    }
    begin("29.3.3.1 a page of 512 GiB", code_read);
    own_ept(false);
    ept_root[0] = 0xb7;
    EXPECT(run(), 49);
    begin("29.3.3.1 an unaligned page of 2 MiB", code_read);
    own_ept(false);
    ept_2m[ROOM >> 21] = ROOM | 0x1000 | 0xb7;
    EXPECT(run(), 49);
    begin("29.3.3.1 an unaligned page of 1 GiB", code_read);
    own_ept(false);
    ept_pdpt[0] = 1ull << 21 | 0xb7;
    EXPECT(run(), 49);
}

GUEST(code_load_cr3, ".code32; mov %eax, %cr3; vmcall; .code64");
static void pdptes(void)
{
    u64 directory = ((u64 *)(((u64 *)root)[0] & ~0xfffull))[0] & ~0xfffull;

    begin("28.2.1 MOV to CR3 that cannot load PDPTEs", code_load_cr3);
    own_ept(false);
    PROC2(C_unrestricted_guest);
    REMOVE(vm_entry_controls, C_entry_ia32e_mode_guest);
    PUT(guest_ia32_efer, 0);
    PUT(guest_cs_access_rights, 0xc09b);
    PUT(guest_pdpte0, directory | 1);
    guest_rax = ROOM;
    ept_4k[0] = 0;
    EXPECT(run(), 48);
    EXPECT(violation(), 1); /* no linear address */
    EXPECT(GET(guest_physical_address), ROOM);
    EXPECT(guest_at(code_load_cr3), 0);
}

/* --- VPIDs and invalidation (29.4) --- */

static void set_pages(void)
{
    *(volatile u8 *)ROOM = 1;
    *(volatile u8 *)(ROOM + 0x1000) = 2;
}

static u64 read_again(void)
{
    PUT(guest_rip, (u64)code_read);
    EXPECT(run(), 18);
    return guest_rax & 0xff;
}

static void invvpid(u64 type, u64 vpid, u64 address)
{
    u64 descriptor[2] = {vpid, address};

    __asm__ volatile("invvpid %0, %1" : : "m"(descriptor), "r"(type) : "cc", "memory");
}

static void vpids(void)
{
    static const u64 vpid[] = {7, 7, 0, 7};

    set_pages();
    begin("27.3.2.5 an entry without VPID forgets the guest's translations", code_read);
    own_tables(ACCESSED);
    EXPECT(read_again(), 1);
    TABLE[0] = (ROOM + 0x1000) | 3;
    EXPECT(read_again(), 2);

    for (u64 type = 0; type < 4; type++) {
        begin("31.3 INVVPID", code_read);
        PROC2(C_enable_vpid);
        PUT(virtual_processor_identifier, 7);
        own_tables(ACCESSED);
        invvpid(1, 7, 0);
        EXPECT(read_again(), 1);
        TABLE[0] = (ROOM + 0x1000) | 3;
        invvpid(type, vpid[type], ROOM);
        EXPECT(read_again(), 2);
    }

    begin("29.4.3.3 what belongs to another VPID", code_read);
    PROC2(C_enable_vpid);
    PUT(virtual_processor_identifier, 8);
    own_tables(ACCESSED);
    EXPECT(read_again(), 1);

    for (u64 type = 1; type < 3; type++) {
        u64 descriptor[2] = {0, 0};

        begin("31.3 INVEPT", code_read);
        own_ept(false);
        PROC2(C_enable_vpid);
        flush_ept();
        EXPECT(read_again(), 1);
        ept_4k[0] = (ROOM + 0x1000) | 0x37;
        descriptor[0] = type == 1 ? GET(ept_pointer) : 0;
        __asm__ volatile("invept %0, %1" : : "m"(descriptor), "r"(type) : "cc", "memory");
        EXPECT(read_again(), 2);
    }

    begin("29.4.2 a page whose rights grow needs no invalidation", code_write);
    own_ept(false);
    PROC2(C_enable_vpid);
    flush_ept();
    ept_4k[0] &= ~2ull;
    EXPECT(run(), 48);
    ept_4k[0] |= 2;
    EXPECT(run(), 18);
}

GUEST(code_reload_cr3, "mov %cr3, %rax; mov %rax, %cr3; vmcall");
GUEST(code_read_write, "mov 0x3000000, %al; mov %al, 0x3000000; vmcall");
static void implied_invalidations(void)
{
    u64 first;

    begin("29.4.3.1 MOV to CR3 counts for all EPTPs", code_read);
    own_ept(false);
    first = GET(ept_pointer);
    for (unsigned i = 0; i < 512; i++)
        ((u64 *)pages[2])[i] = ept_root[i];
    PROC2(C_enable_vpid);
    PUT(virtual_processor_identifier, 7);
    set_pages();
    own_tables(ACCESSED);
    flush_ept();
    EXPECT(read_again(), 1);
    TABLE[0] = (ROOM + 0x1000) | 3;
    PUT(ept_pointer, (u64)pages[2] | (first & 0xfff));
    PUT(guest_rip, (u64)code_reload_cr3);
    EXPECT(run(), 18);
    PUT(ept_pointer, first);
    EXPECT(read_again(), 2);

    begin("29.4.3.1 an EPT violation invalidates for its linear address", code_read_write);
    own_ept(false);
    PROC2(C_enable_vpid);
    PUT(virtual_processor_identifier, 7);
    set_pages();
    flush_ept();
    ept_4k[0] &= ~2ull;
    EXPECT(run(), 48);
    ept_4k[0] = (ROOM + 0x1000) | 0x37;
    EXPECT(read_again(), 2);

    begin("4.10.4.1 and so does a page fault that exits", code_read_write);
    PROC2(C_enable_vpid);
    PUT(virtual_processor_identifier, 7);
    PUT(exception_bitmap, 1 << 14);
    PUT(guest_cr0, GET(guest_cr0) | 1 << 16);
    set_pages();
    own_tables(ACCESSED);
    TABLE[0] = ROOM | ACCESSED | 1;
    invvpid(1, 7, 0);
    EXPECT(run(), 0);
    EXPECT(GET(exit_qualification), ROOM);
    TABLE[0] = (ROOM + 0x1000) | 3;
    EXPECT(read_again(), 2);
}

/* --- the virtual APIC (30) --- */

GUEST(code_call_apic, "mov $0x3010040, %eax; call *%rax");
GUEST(code_wide, "mov $0x3010080, %eax; mov (%rax), %rdx; vmcall");
GUEST(code_tpr, "mov $0x3010080, %ebx; movl $0x20, (%rbx); mov (%rbx), %eax; vmcall;"
                "movb $0x10, (%rbx); nop; vmcall");
static void apic_accesses(void)
{
    virtual_apic("30.4.1 a fetch from the APIC-access page", code_call_apic);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, ACCESS_PAGE);
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification), 0x2040);
    EXPECT(GET(guest_rip), ACCESS_PAGE + 0x40);

    virtual_apic("30.4.2 a wide read", code_wide);
    PROC2(C_virtualize_apic_accesses | C_apic_register_virtualization);
    PUT(apic_access_address, ACCESS_PAGE);
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification), 0x80);

    virtual_apic("30.4.3 writes of the TPR", code_tpr);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, ACCESS_PAGE);
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0xffffffff, 0x20);
    skip();
    PUT(tpr_threshold, 2);
    EXPECT(run(), 43);
    EXPECT(guest_at(code_tpr), 19);
    EXPECT(VAPIC[0x80 / 4], 0x10);
    EXPECT(run(), 43); /* at once: it still is below */
    EXPECT(guest_at(code_tpr), 19);

    begin("30.4.6.1 a walk of the guest's page tables over the APIC-access page", code_nops);
    own_ept(false);
    own_tables(0);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, TABLES + 0x1000);
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification) >> 12, 15);
    gate(40, code_handler);
    use_idt();
    PUT(vm_entry_interruption_information, 0x80000000 | 40);
    PUT(guest_rflags, 0x202);
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification) >> 12, 10);
    EXPECT(GET(idt_vectoring_information), 0x80000000 | 40);
    PUT(guest_rflags, 2);
    PUT(apic_access_address, ROOM);
    EXPECT(run(), 18);

    virtual_apic("30.4.1 an access by an event's delivery", code_nops);
    PROC2(C_virtualize_apic_accesses);
    PUT(apic_access_address, ACCESS_PAGE);
    gate(40, code_handler);
    use_idt();
    PUT(guest_rsp, ACCESS_PAGE + 0x1000);
    PUT(vm_entry_interruption_information, 0x80000000 | 40);
    PUT(guest_rflags, 0x202);
    EXPECT(run(), 44);
    EXPECT(GET(exit_qualification), 0x3ff8);
    EXPECT(GET(idt_vectoring_information), 0x80000000 | 40);
}

GUEST(code_x2apic_read, "mov $0x802, %ecx; rdmsr; vmcall");
GUEST(code_x2apic_self, "mov $0x83f, %ecx; mov $40, %eax; xor %edx, %edx; sti; wrmsr; nop; vmcall");
GUEST(code_x2apic_eoi, "mov $0x80b, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; nop; vmcall");
static void x2apic(void)
{
    virtual_apic("30.5 reads of x2APIC registers", code_x2apic_read);
    PROC(C_use_msr_bitmaps);
    memset(pages[0], 0, 4096);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PROC2(C_virtualize_x2apic_mode | C_apic_register_virtualization);
    VAPIC[0x20 / 4] = 0x1234;
    EXPECT(run(), 18);
    EXPECT(guest_rax, 0x1234);

    virtual_apic("30.5 x2APIC self-IPI and EOI", code_x2apic_self);
    PIN(C_external_interrupt_exiting);
    PROC(C_use_msr_bitmaps);
    PUT(msr_bitmaps_address, (u64)pages[0]);
    PROC2(C_virtualize_x2apic_mode | C_virtual_interrupt_delivery);
    gate(40, code_handler);
    use_idt();
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(GET(guest_interrupt_status), 40 << 8);
    PUT(guest_rip, (u64)code_x2apic_eoi);
    PUT(eoi_exit_bitmap_0, 1ull << 40);
    EXPECT(run(), 45);
    EXPECT(GET(exit_qualification), 40);
    EXPECT(guest_at(code_x2apic_eoi), 11);
    EXPECT(GET(guest_interrupt_status), 0);
}

static void virtual_interrupts(void)
{
    virtual_apic("30.2.1 a virtual interrupt ends the HLT state", code_nops);
    PIN(C_external_interrupt_exiting);
    PROC2(C_virtual_interrupt_delivery);
    PUT(guest_interrupt_status, 40);
    VAPIC[0x210 / 4] = 1 << 8;
    PUT(guest_activity_state, 1);
    PUT(guest_rflags, 0x202);
    gate(40, code_handler);
    use_idt();
    EXPECT(run(), 18);
    EXPECT(guest_at(code_handler), 1);
    EXPECT(VAPIC[0xa0 / 4], 0x20);

    virtual_apic("30.2.1 an interrupt window holds it back", code_nops);
    PIN(C_external_interrupt_exiting);
    PROC(C_interrupt_window_exiting);
    PROC2(C_virtual_interrupt_delivery);
    PUT(guest_interrupt_status, 40);
    VAPIC[0x210 / 4] = 1 << 8;
    PUT(guest_rflags, 0x202);
    EXPECT(run(), 7);
    EXPECT(GET(guest_interrupt_status), 40);
}

/* --- VMCS shadowing, VMFUNC --- */

GUEST(code_shadow_error, "mov $0x7ffe, %edx; vmread %rdx, %rax; pushf; pop %rax; vmcall");
GUEST(code_vmfunc, "mov $64, %eax; vmfunc");
static void shadows(void)
{
    begin("31.3 VMREAD of a shadow VMCS without that field", code_shadow_error);
    memset(pages[2], 0, 4096);
    *(u32 *)pages[2] = (u32)rdmsr(0x480) | 1u << 31;
    memset(pages[3], 0, 4096);
    PROC2(C_vmcs_shadowing);
    PUT(vmread_bitmap_address, (u64)pages[3]);
    PUT(vmwrite_bitmap_address, (u64)pages[3]);
    PUT(vmcs_link_pointer, (u64)pages[2]);
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0x41, 0x40);
    EXPECT(GET(vm_instruction_error), 12); /* of the current VMCS, which is not the shadow */

    begin("31.3 VMREAD without a shadow VMCS", code_shadow_error);
    PROC2(C_vmcs_shadowing);
    PUT(vmread_bitmap_address, (u64)pages[3]);
    PUT(vmwrite_bitmap_address, (u64)pages[3]);
    EXPECT(run(), 18);
    EXPECT(guest_rax & 0x41, 1);

    begin("26.5.6.2 VMFUNC of a function beyond 63", code_vmfunc);
    PUT(exception_bitmap, 1 << 6);
    PROC2(C_enable_vm_functions);
    EXPECT(run(), 0);
    EXPECT(GET(vm_exit_interruption_information), 0x80000306);
}

unsigned test_memory(void)
{
    static void (*const tests[])(void) = {
        paging_structures, page_rights, misconfigurations,  pdptes,  vpids, implied_invalidations,
        apic_accesses,     x2apic,      virtual_interrupts, shadows,
    };

    return run_groups("memory", tests, sizeof(tests) / sizeof(tests[0]));
}
