/* Checks on the host-state area. SDM 27.2.2 to 27.2.4, bullet by bullet. */
#include "vmx/nested.h"

bool vmx_valid_pat(u64 pat)
{
    for (unsigned i = 0; i < 8; i++, pat >>= 8)
        if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
            return false;
    return true;
}

/* 27.2.2 control registers and MSRs. */
static bool check_registers(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool host64 = vmx_exit_control(v, VMX_C_exit_host_address_space_size);
    u64 valid_efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;

    CHECK(!(~v->host_cr0 & vmx_cr0_fixed0(NULL)) && !(v->host_cr0 >> 32));
    CHECK(!(~v->host_cr4 & VMX_CR4_FIXED0) && !(v->host_cr4 & ~vmx_cr4_fixed1(cpu)));
    CHECK(!(v->host_cr3 & ~cpu->phys_mask));
    CHECK(vmx_canonical(cpu, v->host_ia32_sysenter_esp));
    CHECK(vmx_canonical(cpu, v->host_ia32_sysenter_eip));
    CHECK(!vmx_exit_control(v, VMX_C_exit_load_perf_global_ctrl) ||
          !(v->host_ia32_perf_global_ctrl & ~x86_pmu_global_valid()));
    CHECK(!vmx_exit_control(v, VMX_C_exit_load_pat) || vmx_valid_pat(v->host_ia32_pat));
    CHECK(!vmx_exit_control(v, VMX_C_exit_load_efer) ||
          (!(v->host_ia32_efer & ~valid_efer) && !(v->host_ia32_efer & X86_EFER_LMA) == !host64 &&
           !(v->host_ia32_efer & X86_EFER_LME) == !host64));
    return true;
}

/* 27.2.3 segment and descriptor-table registers. */
static bool check_segments(const struct x86_cpu *cpu, const struct vmcs *v)
{
    CHECK(!(v->host_cs_selector & 7));
    CHECK(!(v->host_ss_selector & 7));
    CHECK(!(v->host_ds_selector & 7));
    CHECK(!(v->host_es_selector & 7));
    CHECK(!(v->host_fs_selector & 7));
    CHECK(!(v->host_gs_selector & 7));
    CHECK(!(v->host_tr_selector & 7));
    CHECK(v->host_cs_selector);
    CHECK(v->host_tr_selector);
    CHECK(v->host_ss_selector || vmx_exit_control(v, VMX_C_exit_host_address_space_size));
    CHECK(vmx_canonical(cpu, v->host_fs_base));
    CHECK(vmx_canonical(cpu, v->host_gs_base));
    CHECK(vmx_canonical(cpu, v->host_gdtr_base));
    CHECK(vmx_canonical(cpu, v->host_idtr_base));
    CHECK(vmx_canonical(cpu, v->host_tr_base));
    return true;
}

/* 27.2.4 address-space size. */
static bool check_address_space(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool host64 = vmx_exit_control(v, VMX_C_exit_host_address_space_size);

    if (!(cpu->efer & X86_EFER_LMA)) {
        CHECK(!vmx_entry_control(v, VMX_C_entry_ia32e_mode_guest));
        CHECK(!host64);
    } else {
        CHECK(host64);
    }
    if (!host64) {
        CHECK(!vmx_entry_control(v, VMX_C_entry_ia32e_mode_guest));
        CHECK(!(v->host_cr4 & X86_CR4_PCIDE));
        CHECK(!(v->host_rip >> 32));
    } else {
        CHECK(v->host_cr4 & X86_CR4_PAE);
        /* By the paging that the exit switches to. */
        CHECK((u64)sign_extend(v->host_rip, v->host_cr4 & X86_CR4_LA57 ? 57 : 48) == v->host_rip);
    }
    return true;
}

bool vmx_check_host(const struct x86_cpu *cpu, const struct vmcs *v)
{
    return check_registers(cpu, v) && check_segments(cpu, v) && check_address_space(cpu, v);
}
