/* Checks on the VM-execution, VM-exit and VM-entry control fields. SDM 27.2.1, bullet by bullet. */
#include "guest/x86/x86_internal.h"
#include "trace/trace.h"
#include "vmx/nested.h"

bool vmx_check_failed(const struct x86_cpu *cpu, const char *condition)
{
    trace_emit(VMX, vmx, (int)cpu->common.index, .what = "check failed", .detail = condition,
               .level = 2, .rip = vmx_of(cpu)->nested.vmcs.guest_rip);
    vmx_trace_vmcs(cpu, &vmx_of(cpu)->nested.vmcs, condition);
    return false;
}

bool vmx_canonical(const struct x86_cpu *cpu, u64 address)
{
    return x86_canonical_any(cpu, address);
}

bool vmx_bits_above_width(const struct x86_cpu *cpu, u64 address)
{
    unsigned width = x86_has(cpu, X86_FEATURE_LA57) ? 57 : 48;
    u64 above = address >> width;

    return !above || above == ~0ull >> width;
}

bool vmx_page_address(const struct x86_cpu *cpu, u64 address)
{
    return !(address & 0xfff) && !(address & ~cpu->phys_mask);
}

static bool allowed(const struct x86_cpu *cpu, const struct vmcs *v, enum vmx_control_word word)
{
    u32 value = (u32)vmx_control_get(v, word);

    return !(~value & vmx_of(cpu)->allowed0[word]) && !(value & ~vmx_may(cpu, word));
}

/* An area of @count 16-byte entries. */
static bool msr_area(const struct x86_cpu *cpu, u64 address, u32 count)
{
    u64 last = address + (u64)count * 16 - 1;

    return !count || (!(address & 15) && !(address & ~cpu->phys_mask) && !(last & ~cpu->phys_mask));
}

static u32 virtual_tpr(const struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 vtpr = 0;

    mem_read(cpu->common.mem, v->virtual_apic_address + 0x80, &vtpr, 4);
    return vtpr;
}

/* 27.2.1.1 VM-execution control fields: what is in force without secondary controls. */
static bool check_execution(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool tpr_shadow = vmx_proc(v, (u32)VMX_C_use_tpr_shadow);
    bool vid = vmx_proc2(v, VMX_C_virtual_interrupt_delivery);

    CHECK(allowed(cpu, v, VMX_PIN));
    CHECK(allowed(cpu, v, VMX_PROC));
    CHECK(!vmx_proc(v, (u32)VMX_C_activate_secondary_controls) || allowed(cpu, v, VMX_PROC2));
    CHECK(v->cr3_target_count <= 4);
    CHECK(!vmx_proc(v, (u32)VMX_C_use_io_bitmaps) || vmx_page_address(cpu, v->io_bitmap_a_address));
    CHECK(!vmx_proc(v, (u32)VMX_C_use_io_bitmaps) || vmx_page_address(cpu, v->io_bitmap_b_address));
    CHECK(!vmx_proc(v, (u32)VMX_C_use_msr_bitmaps) ||
          vmx_page_address(cpu, v->msr_bitmaps_address));
    CHECK(!tpr_shadow || vmx_page_address(cpu, v->virtual_apic_address));
    CHECK(!tpr_shadow || vid || !(v->tpr_threshold & ~15u));
    CHECK(!tpr_shadow || vid || vmx_proc2(v, VMX_C_virtualize_apic_accesses) ||
          (v->tpr_threshold & 15) <= (virtual_tpr(cpu, v) >> 4 & 15));
    CHECK(vmx_pin(v, VMX_C_nmi_exiting) || !vmx_pin(v, VMX_C_virtual_nmis));
    CHECK(vmx_pin(v, VMX_C_virtual_nmis) || !vmx_proc(v, (u32)VMX_C_nmi_window_exiting));
    return true;
}

static bool check_apic(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool x2apic = vmx_proc2(v, VMX_C_virtualize_x2apic_mode);
    bool posted = vmx_pin(v, VMX_C_process_posted_interrupts);

    CHECK(!vmx_proc2(v, VMX_C_virtualize_apic_accesses) ||
          vmx_page_address(cpu, v->apic_access_address));
    CHECK(vmx_proc(v, (u32)VMX_C_use_tpr_shadow) ||
          (!x2apic && !vmx_proc2(v, VMX_C_apic_register_virtualization) &&
           !vmx_proc2(v, VMX_C_virtual_interrupt_delivery)));
    CHECK(!x2apic || !vmx_proc2(v, VMX_C_virtualize_apic_accesses));
    CHECK(!vmx_proc2(v, VMX_C_virtual_interrupt_delivery) ||
          vmx_pin(v, VMX_C_external_interrupt_exiting));
    CHECK(!posted || vmx_proc2(v, VMX_C_virtual_interrupt_delivery));
    CHECK(!posted || vmx_exit_control(v, VMX_C_exit_acknowledge_interrupt));
    CHECK(!posted || v->posted_interrupt_notification_vector <= 255);
    CHECK(!posted || (!(v->posted_interrupt_descriptor_address & 63) &&
                      !(v->posted_interrupt_descriptor_address & ~cpu->phys_mask)));
    return true;
}

static bool check_secondary(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool functions = vmx_proc2(v, VMX_C_enable_vm_functions);
    bool ept = vmx_proc2(v, VMX_C_enable_ept);

    CHECK(!vmx_proc2(v, VMX_C_enable_vpid) || v->virtual_processor_identifier);
    CHECK(!ept || vmx_valid_eptp(cpu, v->ept_pointer));
    CHECK(!vmx_proc2(v, VMX_C_enable_pml) || ept);
    CHECK(!vmx_proc2(v, VMX_C_enable_pml) || vmx_page_address(cpu, v->pml_address));
    CHECK(ept || !vmx_proc2(v, VMX_C_unrestricted_guest));
    CHECK(ept || !vmx_proc2(v, VMX_C_mode_based_execute_control));
    CHECK(!functions || !(v->vm_function_controls & ~1ull));
    CHECK(!functions || !(v->vm_function_controls & 1) || ept);
    CHECK(!functions || !(v->vm_function_controls & 1) ||
          vmx_page_address(cpu, v->eptp_list_address));
    CHECK(!vmx_proc2(v, VMX_C_vmcs_shadowing) || vmx_page_address(cpu, v->vmread_bitmap_address));
    CHECK(!vmx_proc2(v, VMX_C_vmcs_shadowing) || vmx_page_address(cpu, v->vmwrite_bitmap_address));
    CHECK(!vmx_proc2(v, VMX_C_ept_violation_ve) ||
          vmx_page_address(cpu, v->virtualization_exception_information_address));
    CHECK(!vmx_proc2(v, VMX_C_use_tsc_scaling) || v->tsc_multiplier);
    return true;
}

/* 27.2.1.2 VM-exit control fields. */
static bool check_exit(const struct x86_cpu *cpu, const struct vmcs *v)
{
    CHECK(allowed(cpu, v, VMX_EXIT));
    CHECK(vmx_pin(v, VMX_C_activate_vmx_preemption_timer) ||
          !vmx_exit_control(v, VMX_C_exit_save_preemption_timer));
    CHECK(msr_area(cpu, v->vm_exit_msr_store_address, v->vm_exit_msr_store_count));
    CHECK(msr_area(cpu, v->vm_exit_msr_load_address, v->vm_exit_msr_load_count));
    return true;
}

/* 27.2.1.3: event injection. */
static bool check_injection(const struct x86_cpu *cpu, const struct vmcs *v)
{
    static const u32 with_error =
        1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17;
    u32 info = v->vm_entry_interruption_information;
    unsigned type = VMX_INTR_TYPE(info), vector = info & 0xff;
    bool error = info & VMX_INTR_ERROR;
    bool protected_mode = v->guest_cr0 & X86_CR0_PE || !vmx_proc2(v, VMX_C_unrestricted_guest);
    bool software = type == 4 || type == 5 || type == 6;

    if (!(info & VMX_INTR_VALID))
        return true;
    CHECK(type != 1 && (type != 7 || vmx_proc(v, VMX_C_monitor_trap_flag) ||
                        vmx_may(cpu, VMX_PROC) & VMX_C_monitor_trap_flag));
    CHECK(type != 2 || vector == 2);
    CHECK(type != 3 || vector <= 31);
    CHECK(type != 7 || vector == 0);
    CHECK(!error || (protected_mode && type == 3 && with_error >> (vector & 31) & 1));
    CHECK(error || !(protected_mode && type == 3 && with_error >> (vector & 31) & 1));
    CHECK(!bits(info, 30, 12));
    CHECK(!error || !(v->vm_entry_exception_error_code & 0xffff0000));
    CHECK(!software || v->vm_entry_instruction_length <= 15);
    return true;
}

/* 27.2.1.3 VM-entry control fields. */
static bool check_entry(const struct x86_cpu *cpu, const struct vmcs *v)
{
    CHECK(allowed(cpu, v, VMX_ENTRY));
    if (!check_injection(cpu, v))
        return false;
    CHECK(msr_area(cpu, v->vm_entry_msr_load_address, v->vm_entry_msr_load_count));
    return true;
}

bool vmx_check_controls(const struct x86_cpu *cpu, const struct vmcs *v)
{
    return check_execution(cpu, v) && check_apic(cpu, v) && check_secondary(cpu, v) &&
           check_exit(cpu, v) && check_entry(cpu, v);
}
