/* VM entry's checks one by one, on a VMCS that passes but for what a row changes: those that the
 * guests of tests/guests/vmx do not reach, each both ways. */
#include <setjmp.h>
#include <string.h>

#include "../unit.h"

#include "mem/mem.h"
#include "vmx/nested.h"

#define RAM (64 * KiB)

enum part { CONTROLS, HOST, GUEST };

struct machine {
    struct vmx_cpu vmx; /* first, as vmx_of demands */
    struct x86_cpu cpu;
    struct mem_ram ram;
};

static struct machine m;
static struct vmcs wide, narrow, virtual8086, real; /* each passes */

static void put(struct vmcs *v, u32 encoding, u64 value)
{
    vmx_field_set(v, vmx_field_find(encoding), value);
}

/* A 64-bit guest of a 64-bit hypervisor, with EPT. */
static void make_wide(struct vmcs *v)
{
    memset(v, 0, sizeof *v);
    v->pin_based_controls = vmx_allowed0(VMX_PIN);
    v->primary_processor_based_controls =
        vmx_allowed0(VMX_PROC) | (u32)VMX_C_activate_secondary_controls;
    v->secondary_processor_based_controls = vmx_allowed0(VMX_PROC2) | (u32)VMX_C_enable_ept;
    v->primary_vm_exit_controls = vmx_allowed0(VMX_EXIT) | (u32)VMX_C_exit_host_address_space_size |
                                  (u32)VMX_C_exit_load_efer | (u32)VMX_C_exit_load_pat;
    v->vm_entry_controls =
        vmx_allowed0(VMX_ENTRY) | (u32)VMX_C_entry_ia32e_mode_guest | (u32)VMX_C_entry_load_efer;
    v->ept_pointer = 0x1000 | 6 | 3 << 3;
    v->vmcs_link_pointer = VMX_NO_POINTER;
    v->guest_ia32_efer = v->host_ia32_efer = 0x500;
    v->guest_cr0 = v->host_cr0 = 0x80000031;
    v->guest_cr4 = v->host_cr4 = 0x2020;
    v->guest_rflags = 2;
    for (u32 i = 0; i < 6; i++) { /* ES CS SS DS FS GS */
        put(v, 0x800 + 2 * i, i == 1 ? 8 : 16);
        put(v, 0x4800 + 2 * i, 0xffffffff);
        put(v, 0x4814 + 2 * i, i == 1 ? 0xa09b : 0xc093);
        put(v, 0xc00 + 2 * i, i == 1 ? 8 : 16);
    }
    v->guest_ldtr_access_rights = X86_SEG_UNUSABLE;
    v->guest_tr_selector = v->host_tr_selector = 24;
    v->guest_tr_limit = 0x67;
    v->guest_tr_access_rights = 0x8b;
}

static void make_others(void)
{
    narrow = wide;
    narrow.vm_entry_controls &= ~(u32)VMX_C_entry_ia32e_mode_guest;
    narrow.guest_ia32_efer = 0;
    narrow.guest_cs_access_rights = 0xc09b;

    virtual8086 = narrow;
    virtual8086.guest_rflags = 2 | X86_FLAG_VM;
    for (u32 i = 0; i < 6; i++) {
        put(&virtual8086, 0x800 + 2 * i, 0x1000 + i);
        put(&virtual8086, 0x6806 + 2 * i, (0x1000 + i) << 4);
        put(&virtual8086, 0x4800 + 2 * i, 0xffff);
        put(&virtual8086, 0x4814 + 2 * i, 0xf3);
    }

    real = narrow;
    real.secondary_processor_based_controls |= (u32)VMX_C_unrestricted_guest;
    real.guest_cr0 = 0x30;
    for (u32 i = 0; i < 6; i++)
        put(&real, 0x4814 + 2 * i, 0x93);
    for (u32 i = 0; i < 6; i++)
        put(&real, 0x4800 + 2 * i, 0xffff);
}

/* A CPU with all that CR4 can turn on. */
static void all_features(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)cpu, (void)leaf, (void)subleaf;
    memset(out, 0xff, 4 * sizeof(*out));
}

static void no_counters(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    all_features(cpu, leaf, subleaf, out);
    if (leaf == 1)
        out[2] &= ~(u32)BIT(15);
}

static int setup(void **state)
{
    static const struct x86_hooks hooks = {.cpuid = all_features};
    struct err err;

    (void)state;
    vmx_init(&m.vmx);
    m.cpu.engine = &m;
    m.cpu.hooks = &hooks;
    m.cpu.phys_mask = mask_low(46);
    m.cpu.efer = X86_EFER_LMA | X86_EFER_LME;
    m.cpu.common.mem = mem_create();
    assert_non_null(m.cpu.common.mem);
    assert_int_equal(mem_ram_alloc(&m.ram, RAM, &err), 0);
    assert_int_equal(mem_set_slot(m.cpu.common.mem, 0, 0, 0, RAM, m.ram.hva), 0);
    make_wide(&wide);
    make_others();
    return 0;
}

static bool passes(enum part part, const struct vmcs *v)
{
    u64 qualification;

    if (part == CONTROLS)
        return vmx_check_controls(&m.cpu, v);
    return part == HOST ? vmx_check_host(&m.cpu, v) : vmx_check_guest(&m.cpu, v, &qualification);
}

/* @base with @changes (of v) passes, or not. */
#define EXPECT(good, part, base, changes)                                                          \
    do {                                                                                           \
        struct vmcs v = base;                                                                      \
        changes;                                                                                   \
        if (passes(part, &v) != (good))                                                            \
            fail_msg("line %d: %s, not as expected", __LINE__, (good) ? "refused" : "passed");     \
    } while (0)
#define GOOD(...) EXPECT(true, __VA_ARGS__)
#define BAD(...) EXPECT(false, __VA_ARGS__)
#define INJECT(type, vector) v.vm_entry_interruption_information = 1u << 31 | (type) << 8 | (vector)

static void bases_pass(void **state)
{
    const struct vmcs *all[] = {&wide, &narrow, &virtual8086, &real};

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned part = CONTROLS; part <= GUEST; part++)
            if (!passes(part, all[i]))
                fail_msg("base %u, part %u", i, part);
}

static void host_state(void **state)
{
    (void)state;
    BAD(HOST, wide, v.host_ia32_pat = 2);
    BAD(HOST, wide, v.host_ia32_pat = 3);
    BAD(HOST, wide, v.host_ia32_pat = 8);
    GOOD(HOST, wide, v.host_ia32_pat = 0x0007040600070406);
    BAD(HOST, wide, v.host_cr0 |= 1ull << 32);
    BAD(HOST, wide, v.host_ia32_efer = 0x100);
    BAD(HOST, wide, v.host_ia32_efer = 0x400);
    BAD(HOST, wide, v.host_ia32_efer = 0x502);
    GOOD(HOST, wide, v.host_ss_selector = 0);
    BAD(HOST, wide, v.primary_vm_exit_controls &= ~(u32)VMX_C_exit_host_address_space_size);
    BAD(HOST, wide, v.host_rip = 1ull << 47);
    BAD(HOST, wide, v.host_cr4 &= ~(u64)X86_CR4_PAE);
}

/* A 32-bit hypervisor. */
static void narrow_host(void **state)
{
    struct vmcs host32 = narrow;

    (void)state;
    host32.primary_vm_exit_controls &= ~(u32)VMX_C_exit_host_address_space_size;
    host32.host_ia32_efer = 0;
    m.cpu.efer = 0;
    GOOD(HOST, host32, (void)v);
    BAD(HOST, host32, v.host_ss_selector = 0);
    BAD(HOST, host32, v.host_cr4 |= X86_CR4_PCIDE);
    BAD(HOST, host32, v.host_rip = 1ull << 32);
    BAD(HOST, host32, v.vm_entry_controls |= (u32)VMX_C_entry_ia32e_mode_guest);
    BAD(HOST, host32, v.primary_vm_exit_controls |= (u32)VMX_C_exit_host_address_space_size;
        v.host_ia32_efer = 0x500);
    BAD(HOST, host32, v.host_ia32_efer = 0x100);
    m.cpu.efer = X86_EFER_LMA | X86_EFER_LME;
    BAD(HOST, host32, (void)v);
}

static void injection(void **state)
{
    (void)state;
    BAD(CONTROLS, wide, INJECT(1, 0));
    GOOD(CONTROLS, wide, INJECT(7, 0));
    BAD(CONTROLS, wide, INJECT(7, 1));
    GOOD(CONTROLS, real, INJECT(3, 13));
    BAD(CONTROLS, real, INJECT(3, 13) | 1 << 11);
    GOOD(CONTROLS, wide, INJECT(3, 13) | 1 << 11);
    BAD(CONTROLS, wide, INJECT(3, 13));
    /* What may end HLT and shutdown. */
    GOOD(GUEST, wide, v.guest_activity_state = 1; INJECT(2, 2));
    GOOD(GUEST, wide, v.guest_activity_state = 1; INJECT(3, 1));
    GOOD(GUEST, wide, v.guest_activity_state = 1; INJECT(3, 18));
    GOOD(GUEST, wide, v.guest_activity_state = 1; INJECT(7, 0));
    BAD(GUEST, wide, v.guest_activity_state = 1; INJECT(7, 1));
    BAD(GUEST, wide, v.guest_activity_state = 1; INJECT(3, 6));
    BAD(GUEST, wide, v.guest_activity_state = 1; INJECT(4, 6));
    GOOD(GUEST, wide, v.guest_activity_state = 2; INJECT(2, 2));
    GOOD(GUEST, wide, v.guest_activity_state = 2; INJECT(3, 18));
    BAD(GUEST, wide, v.guest_activity_state = 2; INJECT(3, 1));
    BAD(GUEST, wide, v.guest_activity_state = 2; INJECT(2, 3));
    BAD(GUEST, wide, v.guest_activity_state = 3; INJECT(2, 2));
    BAD(GUEST, narrow, v.guest_activity_state = 1; v.guest_ss_access_rights |= 0x60;
        v.guest_ss_selector = 19; v.guest_cs_selector = 11; v.guest_cs_access_rights |= 0x60);
}

static void interruptibility(void **state)
{
    (void)state;
    BAD(GUEST, wide, v.guest_interruptibility_state = 16);
    GOOD(GUEST, wide, v.guest_interruptibility_state = 8; INJECT(2, 2));
    BAD(GUEST, wide, v.guest_interruptibility_state = 8; INJECT(2, 2);
        v.pin_based_controls |= (u32)VMX_C_nmi_exiting | (u32)VMX_C_virtual_nmis);
    GOOD(GUEST, wide, v.guest_interruptibility_state = 8; INJECT(3, 1);
         v.pin_based_controls |= (u32)VMX_C_nmi_exiting | (u32)VMX_C_virtual_nmis);
    BAD(GUEST, wide, v.guest_pending_debug_exceptions = 1 << 16);
    /* TF without BTF waits behind the shadow. */
    BAD(GUEST, wide, v.guest_interruptibility_state = 2; v.guest_rflags |= X86_FLAG_TF);
    GOOD(GUEST, wide, v.guest_interruptibility_state = 2; v.guest_rflags |= X86_FLAG_TF;
         v.guest_pending_debug_exceptions = 1 << 14);
    GOOD(GUEST, wide, v.guest_interruptibility_state = 2; v.guest_rflags |= X86_FLAG_TF;
         v.guest_ia32_debugctl = 2);
    BAD(GUEST, wide, v.guest_activity_state = 1; v.guest_pending_debug_exceptions = 1 << 14);
}

static void segments(void **state)
{
    (void)state;
    for (u32 i = 0; i < 6; i++) {
        BAD(GUEST, virtual8086, put(&v, 0x6806 + 2 * i, 0));
        BAD(GUEST, virtual8086, put(&v, 0x4800 + 2 * i, 0xfffe));
        BAD(GUEST, virtual8086, put(&v, 0x4814 + 2 * i, 0xf2));
    }
    GOOD(GUEST, narrow, v.guest_cs_access_rights = 0xc099);
    GOOD(GUEST, narrow, v.guest_cs_access_rights = 0xc09d);
    GOOD(GUEST, narrow, v.guest_cs_access_rights = 0xc09f);
    BAD(GUEST, narrow, v.guest_cs_access_rights = 0xc093);
    BAD(GUEST, narrow, v.guest_cs_access_rights = 0xc0fb);
    BAD(GUEST, narrow, v.guest_cs_access_rights = 0xc0fd);
    BAD(GUEST, narrow, v.guest_cs_access_rights = 0xc0ff);
    BAD(GUEST, real, v.guest_cs_access_rights = 0xf3);
    BAD(GUEST, real, v.guest_ss_access_rights = 0xf3);
    BAD(GUEST, real, v.guest_cr0 |= X86_CR0_PE; v.guest_ss_access_rights = 0xf3);
    GOOD(GUEST, real, v.guest_ss_selector = 3);
    BAD(GUEST, narrow, v.guest_ss_selector = 19);
    BAD(GUEST, narrow, v.guest_ss_selector = 19; v.guest_cs_selector = 11);
    GOOD(GUEST, narrow, v.guest_ss_access_rights |= X86_SEG_UNUSABLE);
    GOOD(GUEST, narrow, v.guest_ss_access_rights = 0xc097);
    BAD(GUEST, narrow, v.guest_ss_access_rights = 0xc083);
    BAD(GUEST, narrow, v.guest_ss_access_rights = 0xc193);
    BAD(GUEST, narrow, v.guest_ss_access_rights = 0xc013);
    BAD(GUEST, narrow, v.guest_ds_selector = 19);
    GOOD(GUEST, narrow, v.guest_ds_selector = 19; v.guest_ds_access_rights = 0xc0f3);
    GOOD(GUEST, narrow, v.guest_ds_selector = 19; v.guest_ds_access_rights = 0xc09f);
    GOOD(GUEST, real, v.guest_ds_selector = 3);
    GOOD(GUEST, narrow, v.guest_tr_access_rights = 0x83);
    BAD(GUEST, wide, v.guest_tr_access_rights = 0x83);
    BAD(GUEST, wide, v.guest_tr_access_rights = 0x89);
    GOOD(GUEST, wide, v.guest_ldtr_access_rights = 0x82);
    BAD(GUEST, wide, v.guest_ldtr_access_rights = 0x92);
    BAD(GUEST, wide, v.guest_ldtr_access_rights = 0x02);
    BAD(GUEST, wide, v.guest_ldtr_access_rights = 0x182);
    BAD(GUEST, wide, v.guest_ldtr_access_rights = 0x83);
}

static void registers_and_pointers(void **state)
{
    u32 revision = VMX_REVISION, shadow = revision | 1u << 31;
    u64 bad_pdpte = 0x1e7;

    (void)state;
    BAD(GUEST, wide, v.guest_ia32_efer = 0x400);
    BAD(GUEST, wide, v.guest_ia32_efer = 0x100);
    BAD(GUEST, wide, v.guest_ia32_efer = 0x502);
    GOOD(GUEST, real, v.guest_ia32_efer = 0x100);
    BAD(GUEST, narrow, v.guest_ia32_efer = 0x100);
    BAD(GUEST, narrow, v.guest_rip = 1ull << 32);
    BAD(GUEST, wide, v.guest_cs_access_rights = 0xc09b; v.guest_rip = 1ull << 32);
    GOOD(GUEST, wide, v.guest_rip = 1ull << 46);
    BAD(GUEST, wide, v.guest_rflags |= X86_FLAG_VM);
    BAD(GUEST, real, v.guest_rflags |= X86_FLAG_VM);
    /* The link pointer: a region of the right kind, that is not the current one. */
    assert_int_equal(mem_write(m.cpu.common.mem, 0x2000, &revision, 4), 0);
    assert_int_equal(mem_write(m.cpu.common.mem, 0x3000, &shadow, 4), 0);
    m.vmx.current_pointer = 0x4000;
    GOOD(GUEST, wide, v.vmcs_link_pointer = 0x2000);
    BAD(GUEST, wide, v.vmcs_link_pointer = 0x3000);
    BAD(GUEST, wide, v.vmcs_link_pointer = 0x5000);
    BAD(GUEST, wide, v.vmcs_link_pointer = 0x2008);
    BAD(GUEST, wide, v.vmcs_link_pointer = 1ull << 40);
    m.vmx.current_pointer = 0x2000;
    BAD(GUEST, wide, v.vmcs_link_pointer = 0x2000);
    /* PDPTEs: from the VMCS with EPT, else from memory. */
    BAD(GUEST, narrow, v.guest_pdpte2 = 0x1e7);
    GOOD(GUEST, narrow, v.guest_pdpte2 = 0x1e6);
    GOOD(GUEST, narrow, v.guest_cr4 &= ~(u64)X86_CR4_PAE; v.guest_pdpte2 = 0x1e7);
    GOOD(GUEST, narrow, v.secondary_processor_based_controls = 0; v.guest_cr3 = 0x6000);
    assert_int_equal(mem_write(m.cpu.common.mem, 0x6008, &bad_pdpte, 8), 0);
    BAD(GUEST, narrow, v.secondary_processor_based_controls = 0; v.guest_cr3 = 0x6000);
    BAD(GUEST, narrow, v.secondary_processor_based_controls = 0; v.guest_cr3 = 0x80000000);
}

/* The second side of conditions of several parts. */
static void other_sides(void **state)
{
    u32 mtf = (u32)VMX_C_monitor_trap_flag, allowed = m.vmx.allowed1[VMX_PROC];

    (void)state;
    GOOD(HOST, wide, v.primary_vm_exit_controls &= ~(u32)VMX_C_exit_load_efer;
         v.host_ia32_efer = ~0ull);
    GOOD(GUEST, wide, v.vm_entry_controls &= ~(u32)VMX_C_entry_load_efer;
         v.guest_ia32_efer = ~0ull);
    GOOD(GUEST, wide, v.guest_rip = ~0ull << 47);
    GOOD(CONTROLS, narrow, v.guest_cr0 = 0x30; INJECT(3, 13) | 1 << 11);
    GOOD(CONTROLS, wide, v.primary_processor_based_controls |= mtf; INJECT(7, 0));
    m.vmx.allowed1[VMX_PROC] &= ~mtf;
    BAD(CONTROLS, wide, INJECT(7, 0));
    m.vmx.allowed1[VMX_PROC] = allowed;
    BAD(GUEST, real, v.guest_cs_access_rights = 0x91);
    GOOD(GUEST, real, v.guest_cs_access_rights = 0x9b);
    BAD(GUEST, real, v.guest_cs_access_rights = 0x9f; v.guest_ss_access_rights = 0xf3);
    BAD(GUEST, virtual8086, v.vm_entry_controls |= (u32)VMX_C_entry_ia32e_mode_guest;
        v.guest_ia32_efer = 0x500);
    BAD(GUEST, virtual8086, v.guest_cr0 = 0x30;
        v.secondary_processor_based_controls |= (u32)VMX_C_unrestricted_guest);
    GOOD(GUEST, narrow, v.guest_cr3 = 0x7000;
         v.primary_processor_based_controls &= ~(u32)VMX_C_activate_secondary_controls);
}

static void four_levels(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    all_features(cpu, leaf, subleaf, out);
    if (leaf == 7)
        out[2] &= ~(u32)BIT(16);
}

/* Of linear addresses: the CPU's, and of the host's RIP that of its paging. */
static void widths(void **state)
{
    static const struct x86_hooks narrower = {.cpuid = four_levels};
    const struct x86_hooks *hooks = m.cpu.hooks;

    (void)state;
    GOOD(HOST, wide, v.host_cr4 |= X86_CR4_LA57; v.host_rip = 1ull << 55);
    BAD(HOST, wide, v.host_cr4 |= X86_CR4_LA57; v.host_rip = 1ull << 56);
    BAD(HOST, wide, v.host_rip = 1ull << 47);
    GOOD(HOST, wide, v.host_gs_base = 1ull << 55);
    BAD(HOST, wide, v.host_gs_base = 1ull << 56);
    GOOD(GUEST, wide, v.guest_rip = 1ull << 56);
    BAD(GUEST, wide, v.guest_rip = 1ull << 57);
    m.cpu.hooks = &narrower;
    x86_update_features(&m.cpu);
    BAD(HOST, wide, v.host_gs_base = 1ull << 47);
    GOOD(GUEST, wide, v.guest_rip = 1ull << 47);
    BAD(GUEST, wide, v.guest_rip = 1ull << 48);
    BAD(GUEST, wide, v.guest_fs_base = 1ull << 47);
    m.cpu.hooks = hooks;
    x86_update_features(&m.cpu);
}

static void execution_controls(void **state)
{
    (void)state;
    GOOD(CONTROLS, wide, v.vm_exit_msr_load_count = 1; v.vm_exit_msr_load_address = 0x7000);
    BAD(CONTROLS, wide, v.vm_exit_msr_load_count = 1; v.vm_exit_msr_load_address = 0x7008);
    BAD(CONTROLS, wide, v.vm_exit_msr_load_count = 2;
        v.vm_exit_msr_load_address = mask_low(46) - 15);
    BAD(CONTROLS, wide, v.vm_exit_msr_load_count = 1; v.vm_exit_msr_load_address = 1ull << 46);
    for (u64 address = 64; address; address = address == 64 ? 32 : address == 32 ? 1ull << 46 : 0) {
        struct vmcs posted = wide;

        posted.primary_processor_based_controls |= (u32)VMX_C_use_tpr_shadow;
        posted.secondary_processor_based_controls |= (u32)VMX_C_virtual_interrupt_delivery;
        posted.pin_based_controls |=
            (u32)VMX_C_external_interrupt_exiting | (u32)VMX_C_process_posted_interrupts;
        posted.primary_vm_exit_controls |= (u32)VMX_C_exit_acknowledge_interrupt;
        EXPECT(address == 64, CONTROLS, posted, v.posted_interrupt_descriptor_address = address);
        BAD(CONTROLS, posted, v.posted_interrupt_notification_vector = 256);
    }
}

/* Without performance counters nobody may ask for their control register. */
static void without_counters(void **state)
{
    static const struct x86_hooks none = {.cpuid = no_counters};
    const struct x86_hooks *all = m.cpu.hooks;
    struct vmcs v = wide;
    u64 value;

    (void)state;
    v.vm_entry_controls |= VMX_C_entry_load_perf_global_ctrl;
    v.primary_vm_exit_controls |=
        (u32)VMX_C_exit_load_perf_global_ctrl | (u32)VMX_C_exit_save_perf_global_ctrl;
    assert_true(vmx_check_controls(&m.cpu, &v));
    assert_true(vmx_msr_read(&m.cpu, 0x483, &value) &&
                value >> 32 & VMX_C_exit_load_perf_global_ctrl);
    m.cpu.hooks = &none;
    x86_update_features(&m.cpu);
    assert_false(vmx_check_controls(&m.cpu, &v));
    v.vm_entry_controls &= ~(u32)VMX_C_entry_load_perf_global_ctrl;
    assert_false(vmx_check_controls(&m.cpu, &v));
    v.primary_vm_exit_controls = wide.primary_vm_exit_controls;
    assert_true(vmx_check_controls(&m.cpu, &v));
    assert_true(vmx_msr_read(&m.cpu, 0x483, &value));
    assert_int_equal(value >> 32 & (BIT(12) | BIT(30)), 0);
    assert_true(vmx_msr_read(&m.cpu, 0x490, &value));
    assert_int_equal(value >> 32 & BIT(13), 0);
    m.cpu.hooks = all;
    x86_update_features(&m.cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bases_pass),
        cmocka_unit_test(host_state),
        cmocka_unit_test(narrow_host),
        cmocka_unit_test(injection),
        cmocka_unit_test(interruptibility),
        cmocka_unit_test(segments),
        cmocka_unit_test(registers_and_pointers),
        cmocka_unit_test(execution_controls),
        cmocka_unit_test(other_sides),
        cmocka_unit_test(widths),
        cmocka_unit_test(without_counters),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
