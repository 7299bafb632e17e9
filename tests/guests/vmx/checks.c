/*
 * Every check of VM entry (SDM volume 3 chapter 27), one row a bullet: a valid VMCS, what breaks
 * it, and how the entry must fail. The name begins with the section.
 */
#include "vmx_guest.h"

enum op { SET = 1, OR, CLEAR };

enum expect {
    ENTERS,   /* it does not fail: the guest runs to its VMCALL */
    CONTROLS, /* VMfailValid 7 */
    HOST,     /* VMfailValid 8 */
    GUEST,    /* exit 33 */
    MSRS,     /* exit 34 */
};

struct check {
    const char *name;
    enum expect expect;
    u64 qualification;
    struct {
        u32 field;
        enum op op;
        u64 value;
    } change[5];
};

#define PIN FIELD_pin_based_controls
#define PROC FIELD_primary_processor_based_controls
#define PROC2 FIELD_secondary_processor_based_controls
#define EXIT FIELD_primary_vm_exit_controls
#define ENTRY FIELD_vm_entry_controls
#define INFO FIELD_vm_entry_interruption_information
#define ON(word, bit)                                                                              \
    {                                                                                              \
        word, OR, (u32)C_##bit                                                                     \
    }
#define OFF(word, bit)                                                                             \
    {                                                                                              \
        word, CLEAR, (u32)C_##bit                                                                  \
    }
#define FIELD(name, value)                                                                         \
    {                                                                                              \
        FIELD_##name, SET, value                                                                   \
    }
#define BEYOND (1ull << 51)        /* the physical-address width */
#define WILD 0x8000000000000000ull /* not canonical */
#define WIDE 0x00f0000000000000ull /* canonical for 57 bits, not for 48 */
#define TPR ON(PROC, use_tpr_shadow), FIELD(virtual_apic_address, 0x1000)
#define EPT ON(PROC2, enable_ept)
#define VALID 0x80000000u
#define CS_RIGHTS FIELD_guest_cs_access_rights
#define REAL EPT, ON(PROC2, unrestricted_guest)
#define VM86_RFLAGS 0x20002

static const struct check checks[] = {
    {"27.2.1 a VMCS with nothing wrong enters", ENTERS, 0, {{0}}},
    {"27.2.1.1 reserved pin-based controls", CONTROLS, 0, {FIELD(pin_based_controls, 0)}},
    {"27.2.1.1 reserved primary controls",
     CONTROLS,
     0,
     {FIELD(primary_processor_based_controls, 0)}},
    {"27.2.1.1 reserved secondary controls", CONTROLS, 0, {{PROC2, OR, 1u << 29}}},
    {"27.2.1.1 secondary controls do not count unless activated",
     ENTERS,
     0,
     {{PROC2, OR, 1u << 29}, OFF(PROC, activate_secondary_controls)}},
    {"27.2.1.1 CR3-target count 4", ENTERS, 0, {FIELD(cr3_target_count, 4)}},
    {"27.2.1.1 CR3-target count 5", CONTROLS, 0, {FIELD(cr3_target_count, 5)}},
    {"27.2.1.1 I/O bitmap A aligned",
     CONTROLS,
     0,
     {ON(PROC, use_io_bitmaps), FIELD(io_bitmap_a_address, 0x1001)}},
    {"27.2.1.1 I/O bitmap A within the width",
     CONTROLS,
     0,
     {ON(PROC, use_io_bitmaps), FIELD(io_bitmap_a_address, BEYOND)}},
    {"27.2.1.1 I/O bitmap B aligned",
     CONTROLS,
     0,
     {ON(PROC, use_io_bitmaps), FIELD(io_bitmap_b_address, 0x800)}},
    {"27.2.1.1 I/O bitmap B within the width",
     CONTROLS,
     0,
     {ON(PROC, use_io_bitmaps), FIELD(io_bitmap_b_address, BEYOND)}},
    {"27.2.1.1 MSR bitmaps aligned",
     CONTROLS,
     0,
     {ON(PROC, use_msr_bitmaps), FIELD(msr_bitmaps_address, 1)}},
    {"27.2.1.1 MSR bitmaps within the width",
     CONTROLS,
     0,
     {ON(PROC, use_msr_bitmaps), FIELD(msr_bitmaps_address, BEYOND)}},
    {"27.2.1.1 TPR shadow", ENTERS, 0, {TPR}},
    {"27.2.1.1 virtual-APIC page aligned", CONTROLS, 0, {TPR, FIELD(virtual_apic_address, 0x10)}},
    {"27.2.1.1 virtual-APIC page within the width",
     CONTROLS,
     0,
     {TPR, FIELD(virtual_apic_address, BEYOND)}},
    {"27.2.1.1 TPR threshold bits 31:4", CONTROLS, 0, {TPR, FIELD(tpr_threshold, 0x10)}},
    {"27.2.1.1 TPR threshold above VTPR", CONTROLS, 0, {TPR, FIELD(tpr_threshold, 1)}},
    {"27.2.1.1 virtual NMIs need NMI exiting", CONTROLS, 0, {ON(PIN, virtual_nmis)}},
    {"27.2.1.1 NMI-window exiting needs virtual NMIs",
     CONTROLS,
     0,
     {ON(PIN, nmi_exiting), ON(PROC, nmi_window_exiting)}},
    {"27.2.1.1 APIC-access page aligned",
     CONTROLS,
     0,
     {ON(PROC2, virtualize_apic_accesses), FIELD(apic_access_address, 8)}},
    {"27.2.1.1 APIC-access page within the width",
     CONTROLS,
     0,
     {ON(PROC2, virtualize_apic_accesses), FIELD(apic_access_address, BEYOND)}},
    {"27.2.1.1 x2APIC mode needs the TPR shadow", CONTROLS, 0, {ON(PROC2, virtualize_x2apic_mode)}},
    {"27.2.1.1 APIC registers need the TPR shadow",
     CONTROLS,
     0,
     {ON(PROC2, apic_register_virtualization)}},
    {"27.2.1.1 virtual interrupts need the TPR shadow",
     CONTROLS,
     0,
     {ON(PROC2, virtual_interrupt_delivery), ON(PIN, external_interrupt_exiting)}},
    {"27.2.1.1 x2APIC mode excludes APIC accesses",
     CONTROLS,
     0,
     {TPR, ON(PROC2, virtualize_x2apic_mode), ON(PROC2, virtualize_apic_accesses)}},
    {"27.2.1.1 virtual interrupts need external-interrupt exiting",
     CONTROLS,
     0,
     {TPR, ON(PROC2, virtual_interrupt_delivery)}},
    {"27.2.1.1 posted interrupts need virtual interrupts",
     CONTROLS,
     0,
     {ON(PIN, process_posted_interrupts), ON(PIN, external_interrupt_exiting),
      ON(EXIT, exit_acknowledge_interrupt)}},
    {"27.2.1.1 posted interrupts need acknowledgement",
     CONTROLS,
     0,
     {TPR,
      ON(PROC2, virtual_interrupt_delivery),
      {PIN, OR, C_process_posted_interrupts | C_external_interrupt_exiting}}},
    {"27.2.1.1 VPID 0",
     CONTROLS,
     0,
     {ON(PROC2, enable_vpid), FIELD(virtual_processor_identifier, 0)}},
    {"27.2.1.1 EPT", ENTERS, 0, {EPT}},
    {"27.2.1.1 EPTP memory type", CONTROLS, 0, {EPT, {FIELD_ept_pointer, CLEAR, 4}}},
    {"27.2.1.1 EPTP walk length", CONTROLS, 0, {EPT, {FIELD_ept_pointer, CLEAR, 8}}},
    {"27.2.1.1 EPTP reserved bits", CONTROLS, 0, {EPT, {FIELD_ept_pointer, OR, 0x800}}},
    {"27.2.1.1 EPTP within the width", CONTROLS, 0, {EPT, {FIELD_ept_pointer, OR, BEYOND}}},
    {"27.2.1.1 PML needs EPT", CONTROLS, 0, {ON(PROC2, enable_pml)}},
    {"27.2.1.1 PML address aligned",
     CONTROLS,
     0,
     {EPT, ON(PROC2, enable_pml), FIELD(pml_address, 8)}},
    {"27.2.1.1 unrestricted guest needs EPT", CONTROLS, 0, {ON(PROC2, unrestricted_guest)}},
    {"27.2.1.1 mode-based execution needs EPT",
     CONTROLS,
     0,
     {ON(PROC2, mode_based_execute_control)}},
    {"27.2.1.1 #VE information aligned",
     CONTROLS,
     0,
     {EPT, ON(PROC2, ept_violation_ve), FIELD(virtualization_exception_information_address, 4)}},
    {"27.2.1.1 VM functions reserved",
     CONTROLS,
     0,
     {EPT, ON(PROC2, enable_vm_functions), FIELD(vm_function_controls, 2)}},
    {"27.2.1.1 EPTP switching needs EPT",
     CONTROLS,
     0,
     {ON(PROC2, enable_vm_functions), FIELD(vm_function_controls, 1)}},
    {"27.2.1.1 EPTP list aligned",
     CONTROLS,
     0,
     {EPT, ON(PROC2, enable_vm_functions), FIELD(vm_function_controls, 1),
      FIELD(eptp_list_address, 8)}},
    {"27.2.1.1 VMREAD bitmap aligned",
     CONTROLS,
     0,
     {ON(PROC2, vmcs_shadowing), FIELD(vmread_bitmap_address, 8)}},
    {"27.2.1.1 VMWRITE bitmap aligned",
     CONTROLS,
     0,
     {ON(PROC2, vmcs_shadowing), FIELD(vmwrite_bitmap_address, 8)}},
    {"27.2.1.1 TSC multiplier 0",
     CONTROLS,
     0,
     {ON(PROC2, use_tsc_scaling), FIELD(tsc_multiplier, 0)}},

    {"27.2.1.2 reserved VM-exit controls", CONTROLS, 0, {FIELD(primary_vm_exit_controls, 0)}},
    {"27.2.1.2 saving the preemption timer needs it",
     CONTROLS,
     0,
     {ON(EXIT, exit_save_preemption_timer)}},
    {"27.2.1.2 MSR-store address aligned",
     CONTROLS,
     0,
     {FIELD(vm_exit_msr_store_count, 1), FIELD(vm_exit_msr_store_address, 8)}},
    {"27.2.1.2 MSR-store area within the width",
     CONTROLS,
     0,
     {FIELD(vm_exit_msr_store_count, 1), FIELD(vm_exit_msr_store_address, BEYOND)}},
    {"27.2.1.2 MSR-load address aligned",
     CONTROLS,
     0,
     {FIELD(vm_exit_msr_load_count, 1), FIELD(vm_exit_msr_load_address, 8)}},
    {"27.2.1.2 MSR-load area's last byte within the width",
     CONTROLS,
     0,
     {FIELD(vm_exit_msr_load_count, 2), FIELD(vm_exit_msr_load_address, BEYOND - 16)}},

    {"27.2.1.3 reserved VM-entry controls", CONTROLS, 0, {FIELD(vm_entry_controls, 0)}},
    {"27.2.1.3 injection type 1", CONTROLS, 0, {{INFO, SET, VALID | 1 << 8}}},
    {"27.2.1.3 an NMI has vector 2", CONTROLS, 0, {{INFO, SET, VALID | 2 << 8 | 3}}},
    {"27.2.1.3 a hardware exception has a vector to 31",
     CONTROLS,
     0,
     {{INFO, SET, VALID | 3 << 8 | 32}}},
    {"27.2.1.3 a pending MTF exit has vector 0", CONTROLS, 0, {{INFO, SET, VALID | 7 << 8 | 1}}},
    {"27.2.1.3 #GP needs its error code", CONTROLS, 0, {{INFO, SET, VALID | 3 << 8 | 13}}},
    {"27.2.1.3 #UD has no error code", CONTROLS, 0, {{INFO, SET, VALID | 3 << 8 | 1 << 11 | 6}}},
    {"27.2.1.3 an interrupt has no error code", CONTROLS, 0, {{INFO, SET, VALID | 1 << 11 | 40}}},
    {"27.2.1.3 reserved bits of the information",
     CONTROLS,
     0,
     {{INFO, SET, VALID | 3 << 8 | 1 << 12 | 6}}},
    {"27.2.1.3 bits 31:16 of the error code",
     CONTROLS,
     0,
     {{INFO, SET, VALID | 3 << 8 | 1 << 11 | 13}, FIELD(vm_entry_exception_error_code, 0x10000)}},
    {"27.2.1.3 instruction length 16",
     CONTROLS,
     0,
     {{INFO, SET, VALID | 4 << 8 | 3}, FIELD(vm_entry_instruction_length, 16)}},
    {"27.2.1.3 MSR-load address aligned",
     CONTROLS,
     0,
     {FIELD(vm_entry_msr_load_count, 1), FIELD(vm_entry_msr_load_address, 4)}},

    {"27.2.2 host CR0 fixed bits", HOST, 0, {{FIELD_host_cr0, CLEAR, 1 << 5}}},
    {"27.2.2 host CR4 fixed bits", HOST, 0, {{FIELD_host_cr4, CLEAR, 1 << 13}}},
    {"27.2.2 host CR4 reserved bits", HOST, 0, {{FIELD_host_cr4, OR, 1ull << 40}}},
    {"27.2.2 host CR3 within the width", HOST, 0, {{FIELD_host_cr3, OR, BEYOND}}},
    {"27.2.2 host SYSENTER_ESP canonical", HOST, 0, {FIELD(host_ia32_sysenter_esp, WILD)}},
    {"27.2.2 host SYSENTER_EIP canonical", HOST, 0, {FIELD(host_ia32_sysenter_eip, WILD)}},
    {"27.2.2 host SYSENTER_ESP canonical for the CPU's width",
     ENTERS,
     0,
     {FIELD(host_ia32_sysenter_esp, WIDE), FIELD(host_ia32_sysenter_eip, ~WIDE)}},
    {"27.2.2 host PERF_GLOBAL_CTRL reserved bit 4",
     HOST,
     0,
     {ON(EXIT, exit_load_perf_global_ctrl), FIELD(host_ia32_perf_global_ctrl, 0x10)}},
    {"27.2.2 host PERF_GLOBAL_CTRL reserved bit 35",
     HOST,
     0,
     {ON(EXIT, exit_load_perf_global_ctrl), FIELD(host_ia32_perf_global_ctrl, 1ull << 35)}},
    {"27.2.2 host PERF_GLOBAL_CTRL counts only if loaded",
     ENTERS,
     0,
     {FIELD(host_ia32_perf_global_ctrl, 0x10)}},
    {"27.2.2 host PAT types", HOST, 0, {FIELD(host_ia32_pat, 2)}},
    {"27.2.2 host EFER reserved bits", HOST, 0, {{FIELD_host_ia32_efer, OR, 2}}},
    {"27.2.2 host EFER.LMA is the address-space size",
     HOST,
     0,
     {{FIELD_host_ia32_efer, CLEAR, 0x400}}},
    {"27.2.2 host EFER.LME is the address-space size",
     HOST,
     0,
     {{FIELD_host_ia32_efer, CLEAR, 0x100}}},
#define SELECTOR(name)                                                                             \
    {"27.2.3 host " #name " selector RPL", HOST, 0, {{FIELD_host_##name##_selector, OR, 1}}},      \
    {                                                                                              \
        "27.2.3 host " #name " selector TI", HOST, 0,                                              \
        {                                                                                          \
            {                                                                                      \
                FIELD_host_##name##_selector, OR, 4                                                \
            }                                                                                      \
        }                                                                                          \
    }
    SELECTOR(cs),
    SELECTOR(ss),
    SELECTOR(ds),
    SELECTOR(es),
    SELECTOR(fs),
    SELECTOR(gs),
    SELECTOR(tr),
    {"27.2.3 host CS not null", HOST, 0, {FIELD(host_cs_selector, 0)}},
    {"27.2.3 host TR not null", HOST, 0, {FIELD(host_tr_selector, 0)}},
    {"27.2.3 host FS base canonical", HOST, 0, {FIELD(host_fs_base, WILD)}},
    {"27.2.3 host FS and GS base canonical for the CPU's width",
     ENTERS,
     0,
     {FIELD(host_fs_base, WIDE), FIELD(host_gs_base, ~WIDE)}},
    {"27.2.3 host GS base canonical", HOST, 0, {FIELD(host_gs_base, WILD)}},
    {"27.2.3 host GDTR base canonical", HOST, 0, {FIELD(host_gdtr_base, WILD)}},
    {"27.2.3 host IDTR base canonical", HOST, 0, {FIELD(host_idtr_base, WILD)}},
    {"27.2.3 host TR base canonical", HOST, 0, {FIELD(host_tr_base, WILD)}},
    {"27.2.4 in IA-32e mode the host is 64-bit",
     HOST,
     0,
     {OFF(EXIT, exit_host_address_space_size), {FIELD_host_ia32_efer, CLEAR, 0x500}}},
    {"27.2.4 a 64-bit host has CR4.PAE", HOST, 0, {{FIELD_host_cr4, CLEAR, 0x20}}},

    {"27.3.1.1 CR0 fixed bits", GUEST, 0, {{FIELD_guest_cr0, CLEAR, 1 << 5}}},
    {"27.3.1.1 CR0 bits 63:32", GUEST, 0, {{FIELD_guest_cr0, OR, 1ull << 32}}},
    {"27.3.1.1 CR0.PG needs PE", GUEST, 0, {REAL, {FIELD_guest_cr0, CLEAR, 1}}},
    {"27.3.1.1 CR4 fixed bits", GUEST, 0, {{FIELD_guest_cr4, CLEAR, 1 << 13}}},
    {"27.3.1.1 CR4 reserved bits", GUEST, 0, {{FIELD_guest_cr4, OR, 1ull << 40}}},
    {"27.3.1.1 DEBUGCTL reserved bits", GUEST, 0, {FIELD(guest_ia32_debugctl, 0x20000)}},
    {"27.3.1.1 IA-32e mode needs CR0.PG", GUEST, 0, {REAL, {FIELD_guest_cr0, CLEAR, 1u << 31}}},
    {"27.3.1.1 IA-32e mode needs CR4.PAE", GUEST, 0, {{FIELD_guest_cr4, CLEAR, 0x20}}},
    {"27.3.1.1 PCIDs need IA-32e mode",
     GUEST,
     0,
     {OFF(ENTRY, entry_ia32e_mode_guest), {FIELD_guest_cr4, OR, 1 << 17}}},
    {"27.3.1.1 CR3 within the width", GUEST, 0, {{FIELD_guest_cr3, OR, BEYOND}}},
    {"27.3.1.1 DR7 bits 63:32", GUEST, 0, {{FIELD_guest_dr7, OR, 1ull << 32}}},
    {"27.3.1.1 SYSENTER_ESP canonical", GUEST, 0, {FIELD(guest_ia32_sysenter_esp, WILD)}},
    {"27.3.1.1 SYSENTER_EIP canonical", GUEST, 0, {FIELD(guest_ia32_sysenter_eip, WILD)}},
    {"27.3.1.1 PERF_GLOBAL_CTRL reserved bit 4",
     GUEST,
     0,
     {ON(ENTRY, entry_load_perf_global_ctrl), FIELD(guest_ia32_perf_global_ctrl, 0x10)}},
    {"27.3.1.1 PERF_GLOBAL_CTRL reserved bit 63",
     GUEST,
     0,
     {ON(ENTRY, entry_load_perf_global_ctrl), FIELD(guest_ia32_perf_global_ctrl, 1ull << 63)}},
    {"27.3.1.1 PERF_GLOBAL_CTRL counts only if loaded",
     ENTERS,
     0,
     {FIELD(guest_ia32_perf_global_ctrl, 0x10)}},
    {"27.3.1.1 PAT types", GUEST, 0, {FIELD(guest_ia32_pat, 3)}},
    {"27.3.1.1 EFER reserved bits", GUEST, 0, {{FIELD_guest_ia32_efer, OR, 2}}},
    {"27.3.1.1 EFER.LMA is the IA-32e control", GUEST, 0, {{FIELD_guest_ia32_efer, CLEAR, 0x400}}},
    {"27.3.1.1 EFER.LME is LMA while paging", GUEST, 0, {{FIELD_guest_ia32_efer, CLEAR, 0x100}}},

    {"27.3.1.2 TR selector TI", GUEST, 0, {{FIELD_guest_tr_selector, OR, 4}}},
    {"27.3.1.2 LDTR selector TI",
     GUEST,
     0,
     {FIELD(guest_ldtr_access_rights, 0x82), FIELD(guest_ldtr_selector, 4)}},
    {"27.3.1.2 SS RPL is CS RPL", GUEST, 0, {{FIELD_guest_ss_selector, OR, 3}}},
    {"27.3.1.2 TR base canonical", GUEST, 0, {FIELD(guest_tr_base, WILD)}},
    {"27.3.1.2 FS base canonical", GUEST, 0, {FIELD(guest_fs_base, WILD)}},
    {"27.3.1 guest bases canonical for the CPU's width",
     ENTERS,
     0,
     {FIELD(guest_fs_base, WIDE), FIELD(guest_gs_base, ~WIDE), FIELD(guest_gdtr_base, WIDE),
      FIELD(guest_ia32_sysenter_esp, WIDE), FIELD(guest_tr_base, ~WIDE)}},
    {"27.3.1.2 GS base canonical", GUEST, 0, {FIELD(guest_gs_base, WILD)}},
    {"27.3.1.2 LDTR base canonical",
     GUEST,
     0,
     {FIELD(guest_ldtr_access_rights, 0x82), FIELD(guest_ldtr_base, WILD)}},
    {"27.3.1.2 CS base bits 63:32", GUEST, 0, {FIELD(guest_cs_base, 1ull << 32)}},
    {"27.3.1.2 SS base bits 63:32", GUEST, 0, {FIELD(guest_ss_base, 1ull << 32)}},
    {"27.3.1.2 DS base bits 63:32", GUEST, 0, {FIELD(guest_ds_base, 1ull << 32)}},
    {"27.3.1.2 ES base bits 63:32", GUEST, 0, {FIELD(guest_es_base, 1ull << 32)}},
    {"27.3.1.2 CS type", GUEST, 0, {{CS_RIGHTS, SET, 0xa093}}},
    {"27.3.1.2 CS accessed", GUEST, 0, {{CS_RIGHTS, SET, 0xa09a}}},
    {"27.3.1.2 CS is code or data", GUEST, 0, {{CS_RIGHTS, CLEAR, 0x10}}},
    {"27.3.1.2 CS present", GUEST, 0, {{CS_RIGHTS, CLEAR, 0x80}}},
    {"27.3.1.2 CS reserved bits", GUEST, 0, {{CS_RIGHTS, OR, 0x100}}},
    {"27.3.1.2 CS usable", GUEST, 0, {{CS_RIGHTS, OR, 0x10000}}},
    {"27.3.1.2 CS not L and D", GUEST, 0, {{CS_RIGHTS, OR, 0x4000}}},
    {"27.3.1.2 CS DPL is SS DPL", GUEST, 0, {{CS_RIGHTS, OR, 0x60}}},
    {"27.3.1.2 CS granularity", GUEST, 0, {{CS_RIGHTS, CLEAR, 0x8000}}},
    {"27.3.1.2 CS limit's low bits", GUEST, 0, {FIELD(guest_cs_limit, 0xfffff000)}},
    {"27.3.1.2 SS type", GUEST, 0, {FIELD(guest_ss_access_rights, 0xc091)}},
    {"27.3.1.2 SS unusable is not looked at", ENTERS, 0, {FIELD(guest_ss_access_rights, 0x10091)}},
    {"27.3.1.2 SS DPL is its RPL", GUEST, 0, {FIELD(guest_ss_access_rights, 0xc0f3)}},
    {"27.3.1.2 SS present", GUEST, 0, {FIELD(guest_ss_access_rights, 0xc013)}},
    {"27.3.1.2 DS accessed", GUEST, 0, {FIELD(guest_ds_access_rights, 0xc092)}},
    {"27.3.1.2 DS code must be readable", GUEST, 0, {FIELD(guest_ds_access_rights, 0xc099)}},
    {"27.3.1.2 DS DPL at least its RPL", GUEST, 0, {{FIELD_guest_ds_selector, OR, 3}}},
    {"27.3.1.2 ES present", GUEST, 0, {FIELD(guest_es_access_rights, 0xc013)}},
    {"27.3.1.2 FS reserved bits", GUEST, 0, {{FIELD_guest_fs_access_rights, OR, 0x800}}},
    {"27.3.1.2 GS is code or data", GUEST, 0, {{FIELD_guest_gs_access_rights, CLEAR, 0x10}}},
    {"27.3.1.2 TR type", GUEST, 0, {FIELD(guest_tr_access_rights, 0x89)}},
    {"27.3.1.2 TR is a system segment", GUEST, 0, {FIELD(guest_tr_access_rights, 0x9b)}},
    {"27.3.1.2 TR present", GUEST, 0, {FIELD(guest_tr_access_rights, 0x0b)}},
    {"27.3.1.2 TR usable", GUEST, 0, {FIELD(guest_tr_access_rights, 0x1008b)}},
    {"27.3.1.2 TR limit and granularity", GUEST, 0, {FIELD(guest_tr_access_rights, 0x808b)}},
    {"27.3.1.2 LDTR type", GUEST, 0, {FIELD(guest_ldtr_access_rights, 0x83)}},
    {"27.3.1.2 LDTR present", GUEST, 0, {FIELD(guest_ldtr_access_rights, 0x02)}},
    {"27.3.1.2 virtual-8086 CS base",
     GUEST,
     0,
     {OFF(ENTRY, entry_ia32e_mode_guest),
      {FIELD_guest_ia32_efer, SET, 0},
      FIELD(guest_rflags, VM86_RFLAGS)}},

    {"27.3.1.3 GDTR base canonical", GUEST, 0, {FIELD(guest_gdtr_base, WILD)}},
    {"27.3.1.3 IDTR base canonical", GUEST, 0, {FIELD(guest_idtr_base, WILD)}},
    {"27.3.1.3 GDTR limit bits 31:16", GUEST, 0, {FIELD(guest_gdtr_limit, 0x10000)}},
    {"27.3.1.3 IDTR limit bits 31:16", GUEST, 0, {FIELD(guest_idtr_limit, 0x10000)}},

    {"27.3.1.4 RIP canonical", GUEST, 0, {FIELD(guest_rip, WILD)}},
    {"27.3.1.4 RFLAGS bit 1", GUEST, 0, {FIELD(guest_rflags, 0)}},
    {"27.3.1.4 RFLAGS bit 3", GUEST, 0, {FIELD(guest_rflags, 0xa)}},
    {"27.3.1.4 RFLAGS bits 63:22", GUEST, 0, {FIELD(guest_rflags, 0x400002)}},
    {"27.3.1.4 RFLAGS.VM in IA-32e mode", GUEST, 0, {FIELD(guest_rflags, VM86_RFLAGS)}},
    {"27.3.1.4 an interrupt needs RFLAGS.IF", GUEST, 0, {{INFO, SET, VALID | 40}}},

    {"27.3.1.5 activity state 4", GUEST, 0, {FIELD(guest_activity_state, 4)}},
    {"27.3.1.5 HLT at CPL 3",
     GUEST,
     0,
     {FIELD(guest_activity_state, 1), FIELD(guest_ss_access_rights, 0x10060)}},
    {"27.3.1.5 blocking by STI needs the active state",
     GUEST,
     0,
     {FIELD(guest_activity_state, 1), FIELD(guest_interruptibility_state, 1),
      FIELD(guest_rflags, 0x202)}},
    {"27.3.1.5 what may be injected in HLT",
     GUEST,
     0,
     {FIELD(guest_activity_state, 1), {INFO, SET, VALID | 3 << 8 | 6}}},
    {"27.3.1.5 what may be injected in shutdown",
     GUEST,
     0,
     {FIELD(guest_activity_state, 2), {INFO, SET, VALID | 3 << 8 | 1}}},
    {"27.3.1.5 nothing is injected in wait-for-SIPI",
     GUEST,
     0,
     {FIELD(guest_activity_state, 3), {INFO, SET, VALID | 2 << 8 | 2}}},
    {"27.3.1.5 interruptibility reserved bits",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 0x20)}},
    {"27.3.1.5 STI and MOV SS together",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 3), FIELD(guest_rflags, 0x202)}},
    {"27.3.1.5 blocking by STI needs RFLAGS.IF",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 1)}},
    {"27.3.1.5 no interrupt under blocking by MOV SS",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 2), {INFO, SET, VALID | 40}, FIELD(guest_rflags, 0x202)}},
    {"27.3.1.5 no NMI under blocking by MOV SS",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 2), {INFO, SET, VALID | 2 << 8 | 2}}},
    {"27.3.1.5 blocking by SMI outside SMM", GUEST, 0, {FIELD(guest_interruptibility_state, 4)}},
    {"27.3.1.5 no NMI under virtual-NMI blocking",
     GUEST,
     0,
     {{PIN, OR, C_nmi_exiting | C_virtual_nmis},
      FIELD(guest_interruptibility_state, 8),
      {INFO, SET, VALID | 2 << 8 | 2}}},
    {"27.3.1.5 pending debug exceptions reserved bits",
     GUEST,
     0,
     {FIELD(guest_pending_debug_exceptions, 0x10)}},
    {"27.3.1.5 BS under blocking with RFLAGS.TF",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 2), FIELD(guest_rflags, 0x102)}},
    {"27.3.1.5 no BS under blocking without RFLAGS.TF",
     GUEST,
     0,
     {FIELD(guest_interruptibility_state, 2), FIELD(guest_pending_debug_exceptions, 0x4000)}},
    {"27.3.1.5 link pointer aligned", GUEST, 4, {FIELD(vmcs_link_pointer, 8)}},
    {"27.3.1.5 link pointer within the width", GUEST, 4, {FIELD(vmcs_link_pointer, BEYOND)}},
    {"27.3.1.5 link pointer's revision", GUEST, 4, {FIELD(vmcs_link_pointer, 0x1000)}},
    {"27.3.1.6 PDPTEs with EPT",
     GUEST,
     2,
     {EPT, OFF(ENTRY, entry_ia32e_mode_guest), FIELD(guest_ia32_efer, 0),
      FIELD(guest_cs_access_rights, 0xc09b), FIELD(guest_pdpte0, 7)}},
    {"27.4 an MSR that entry may not load",
     MSRS,
     1,
     {FIELD(vm_entry_msr_load_count, 1), FIELD(vm_entry_msr_load_address, 0x2000)}},
};

static void guest_code(void)
{
    __asm__ volatile("vmcall");
}

static u64 outcome(enum expect *what)
{
    u64 result = enter_guest(0), reason;

    if (result == 2) {
        reason = vmread(FIELD_vm_instruction_error);
        *what = reason == 7 ? CONTROLS : reason == 8 ? HOST : MSRS + 1;
        return 0;
    }
    reason = vmread(FIELD_exit_reason);
    *what = reason == 18           ? ENTERS
            : reason == 0x80000021 ? GUEST
            : reason == 0x80000022 ? MSRS
                                   : MSRS + 1;
    return *what == ENTERS ? 0 : vmread(FIELD_exit_qualification);
}

static bool check(const struct check *c)
{
    enum expect what;
    u64 qualification;

    vmcs_make(guest_code);
    for (unsigned i = 0; i < 5 && c->change[i].op; i++) {
        u32 field = c->change[i].field;
        u64 old = vmread(field), value = c->change[i].value;

        vmwrite(field, c->change[i].op == SET  ? value
                       : c->change[i].op == OR ? old | value
                                               : old & ~value);
    }
    qualification = outcome(&what);
    if (what == c->expect && qualification == c->qualification)
        return true;
    print("FAILED: ");
    print(c->name);
    print(": outcome ");
    print_hex(what);
    print(" wanted ");
    print_hex(c->expect);
    print(", exit reason ");
    print_hex(vmread(FIELD_exit_reason));
    print(" qualification ");
    print_hex(vmread(FIELD_exit_qualification));
    print("\n");
    return false;
}

unsigned test_checks(void)
{
    unsigned failed = 0;

    *(u32 *)0x1000 = 0; /* no VMCS revision, VTPR 0 */
    memset((void *)0x1000, 0, 4096);
    memset((void *)0x2000, 0, 4096);
    *(u32 *)0x2000 = 0xc0000100; /* IA32_FS_BASE */
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        failed += !check(&checks[i]);
    print_hex(sizeof(checks) / sizeof(checks[0]));
    print(" entry checks\n");
    return failed;
}
