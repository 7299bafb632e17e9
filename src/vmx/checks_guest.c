/* Checks on the guest-state area. SDM 27.3.1, bullet by bullet. */
#include "guest/x86/x86_internal.h"
#include "vmx/nested.h"

struct segment_view {
    u16 selector;
    u64 base;
    u32 limit, access;
};

#define SEGMENT(v, name)                                                                           \
    ((struct segment_view){(v)->guest_##name##_selector, (v)->guest_##name##_base,                 \
                           (v)->guest_##name##_limit, (v)->guest_##name##_access_rights})

#define TYPE(s) X86_SEG_TYPE((s).access)
#define DPL(s) X86_SEG_DPL((s).access)
#define RPL(s) ((s).selector & 3u)
#define USABLE(s) (!((s).access & X86_SEG_UNUSABLE))
#define RESERVED_ACCESS 0xfffe0f00u

static bool ia32e(const struct vmcs *v)
{
    return vmx_entry_control(v, VMX_C_entry_ia32e_mode_guest);
}

static bool unrestricted(const struct vmcs *v)
{
    return vmx_proc2(v, VMX_C_unrestricted_guest);
}

static bool vm86(const struct vmcs *v)
{
    return v->guest_rflags & X86_FLAG_VM;
}

/* 27.3.1.1 control registers, debug registers and MSRs. */
static bool check_registers(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool paging = v->guest_cr0 & X86_CR0_PG;
    u64 valid_efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;

    CHECK(!(~v->guest_cr0 & vmx_cr0_fixed0(v)) && !(v->guest_cr0 >> 32));
    CHECK(!paging || v->guest_cr0 & X86_CR0_PE);
    CHECK(!(~v->guest_cr4 & VMX_CR4_FIXED0) && !(v->guest_cr4 & ~vmx_cr4_fixed1(cpu)));
    CHECK(!vmx_entry_control(v, VMX_C_entry_load_debug_controls) ||
          !(v->guest_ia32_debugctl & ~x86_debugctl_valid(cpu)));
    CHECK(!ia32e(v) || (paging && v->guest_cr4 & X86_CR4_PAE));
    CHECK(ia32e(v) || !(v->guest_cr4 & X86_CR4_PCIDE));
    CHECK(!(v->guest_cr3 & ~cpu->phys_mask));
    CHECK(!vmx_entry_control(v, VMX_C_entry_load_debug_controls) || !(v->guest_dr7 >> 32));
    CHECK(vmx_canonical(cpu, v->guest_ia32_sysenter_esp));
    CHECK(vmx_canonical(cpu, v->guest_ia32_sysenter_eip));
    CHECK(!vmx_entry_control(v, VMX_C_entry_load_perf_global_ctrl) ||
          !(v->guest_ia32_perf_global_ctrl & ~x86_pmu_global_valid()));
    CHECK(!vmx_entry_control(v, VMX_C_entry_load_pat) || vmx_valid_pat(v->guest_ia32_pat));
    CHECK(!vmx_entry_control(v, VMX_C_entry_load_efer) ||
          (!(v->guest_ia32_efer & ~valid_efer) &&
           !(v->guest_ia32_efer & X86_EFER_LMA) == !ia32e(v) &&
           (!paging ||
            !(v->guest_ia32_efer & X86_EFER_LMA) == !(v->guest_ia32_efer & X86_EFER_LME))));
    return true;
}

/* In virtual-8086 mode each is what the mode makes of its selector. */
static bool check_vm86_segment(const struct x86_cpu *cpu, struct segment_view s)
{
    CHECK(s.base == (u64)s.selector << 4);
    CHECK(s.limit == 0xffff);
    CHECK(s.access == 0xf3);
    return true;
}

static bool check_limit(const struct x86_cpu *cpu, struct segment_view s)
{
    CHECK((s.limit & 0xfff) == 0xfff || !(s.access & X86_SEG_G));
    CHECK(!(s.limit >> 20) || s.access & X86_SEG_G);
    return true;
}

static bool check_cs(const struct x86_cpu *cpu, const struct vmcs *v)
{
    struct segment_view cs = SEGMENT(v, cs), ss = SEGMENT(v, ss);

    CHECK(!(cs.base >> 32));
    CHECK(TYPE(cs) == 9 || TYPE(cs) == 11 || TYPE(cs) == 13 || TYPE(cs) == 15 ||
          (unrestricted(v) && TYPE(cs) == 3));
    CHECK(cs.access & X86_SEG_S);
    CHECK(TYPE(cs) != 3 || DPL(cs) == 0);
    CHECK((TYPE(cs) != 9 && TYPE(cs) != 11) || DPL(cs) == DPL(ss));
    CHECK((TYPE(cs) != 13 && TYPE(cs) != 15) || DPL(cs) <= DPL(ss));
    CHECK(cs.access & X86_SEG_P);
    CHECK(!(cs.access & (RESERVED_ACCESS | X86_SEG_UNUSABLE)));
    CHECK(!(ia32e(v) && cs.access & X86_SEG_L) || !(cs.access & X86_SEG_DB));
    return check_limit(cpu, cs);
}

static bool check_ss(const struct x86_cpu *cpu, const struct vmcs *v)
{
    struct segment_view ss = SEGMENT(v, ss), cs = SEGMENT(v, cs);

    CHECK(unrestricted(v) || RPL(ss) == RPL(cs));
    CHECK(unrestricted(v) || DPL(ss) == RPL(ss));
    CHECK((TYPE(cs) != 3 && v->guest_cr0 & X86_CR0_PE) || DPL(ss) == 0);
    if (!USABLE(ss))
        return true;
    CHECK(!(ss.base >> 32));
    CHECK(TYPE(ss) == 3 || TYPE(ss) == 7);
    CHECK(ss.access & X86_SEG_S);
    CHECK(ss.access & X86_SEG_P);
    CHECK(!(ss.access & RESERVED_ACCESS));
    return check_limit(cpu, ss);
}

static bool check_data(const struct x86_cpu *cpu, const struct vmcs *v, struct segment_view s,
                       bool wide_base)
{
    if (wide_base)
        CHECK(vmx_canonical(cpu, s.base));
    if (!USABLE(s))
        return true;
    CHECK(wide_base || !(s.base >> 32));
    CHECK(TYPE(s) & 1);
    CHECK(!(TYPE(s) & 8) || TYPE(s) & 2);
    CHECK(s.access & X86_SEG_S);
    CHECK(unrestricted(v) || TYPE(s) > 11 || DPL(s) >= RPL(s));
    CHECK(s.access & X86_SEG_P);
    CHECK(!(s.access & RESERVED_ACCESS));
    return check_limit(cpu, s);
}

static bool check_system_segments(const struct x86_cpu *cpu, const struct vmcs *v)
{
    struct segment_view tr = SEGMENT(v, tr), ldtr = SEGMENT(v, ldtr);

    CHECK(!(tr.selector & 4));
    CHECK(vmx_canonical(cpu, tr.base));
    CHECK(TYPE(tr) == 11 || (TYPE(tr) == 3 && !ia32e(v)));
    CHECK(!(tr.access & X86_SEG_S));
    CHECK(tr.access & X86_SEG_P);
    CHECK(!(tr.access & (RESERVED_ACCESS | X86_SEG_UNUSABLE)));
    if (!check_limit(cpu, tr))
        return false;
    if (!USABLE(ldtr))
        return true;
    CHECK(!(ldtr.selector & 4));
    CHECK(vmx_canonical(cpu, ldtr.base));
    CHECK(TYPE(ldtr) == 2);
    CHECK(!(ldtr.access & X86_SEG_S));
    CHECK(ldtr.access & X86_SEG_P);
    CHECK(!(ldtr.access & RESERVED_ACCESS));
    return check_limit(cpu, ldtr);
}

/* 27.3.1.2 segment registers. */
static bool check_segments(const struct x86_cpu *cpu, const struct vmcs *v)
{
    if (!check_system_segments(cpu, v))
        return false;
    if (vm86(v))
        return check_vm86_segment(cpu, SEGMENT(v, cs)) && check_vm86_segment(cpu, SEGMENT(v, ss)) &&
               check_vm86_segment(cpu, SEGMENT(v, ds)) && check_vm86_segment(cpu, SEGMENT(v, es)) &&
               check_vm86_segment(cpu, SEGMENT(v, fs)) && check_vm86_segment(cpu, SEGMENT(v, gs));
    return check_cs(cpu, v) && check_ss(cpu, v) && check_data(cpu, v, SEGMENT(v, ds), false) &&
           check_data(cpu, v, SEGMENT(v, es), false) && check_data(cpu, v, SEGMENT(v, fs), true) &&
           check_data(cpu, v, SEGMENT(v, gs), true);
}

/* 27.3.1.3 descriptor-table registers, 27.3.1.4 RIP and RFLAGS. */
static bool check_tables_and_flags(const struct x86_cpu *cpu, const struct vmcs *v)
{
    bool code64 = ia32e(v) && v->guest_cs_access_rights & X86_SEG_L;
    u32 info = v->vm_entry_interruption_information;
    bool external = info & VMX_INTR_VALID && VMX_INTR_TYPE(info) == 0;

    CHECK(vmx_canonical(cpu, v->guest_gdtr_base));
    CHECK(vmx_canonical(cpu, v->guest_idtr_base));
    CHECK(!(v->guest_gdtr_limit >> 16));
    CHECK(!(v->guest_idtr_limit >> 16));
    CHECK(code64 || !(v->guest_rip >> 32));
    CHECK(!code64 || vmx_bits_above_width(cpu, v->guest_rip));
    CHECK(!(v->guest_rflags & ~0x3f7fd7ull) && v->guest_rflags & 2);
    CHECK(!vm86(v) || (!ia32e(v) && v->guest_cr0 & X86_CR0_PE));
    CHECK(!external || v->guest_rflags & X86_FLAG_IF);
    return true;
}

static bool check_activity(const struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 info = v->vm_entry_interruption_information, activity = v->guest_activity_state;
    unsigned type = VMX_INTR_TYPE(info), vector = info & 0xff;
    bool injecting = info & VMX_INTR_VALID;

    CHECK(activity <= X86_WAITS_FOR_SIPI);
    CHECK(activity != X86_HALTED || X86_SEG_DPL(v->guest_ss_access_rights) == 0);
    CHECK(!(v->guest_interruptibility_state & X86_SHADOW) || activity == X86_ACTIVE);
    CHECK(!injecting || activity != X86_HALTED || type == 0 || type == 2 ||
          (type == 3 && (vector == X86_DB || vector == X86_MC)) || (type == 7 && vector == 0));
    CHECK(!injecting || activity != X86_SHUTDOWN || (type == 2 && vector == 2) ||
          (type == 3 && vector == X86_MC));
    CHECK(!injecting || activity != X86_WAITS_FOR_SIPI);
    return true;
}

static bool check_interruptibility(const struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 state = v->guest_interruptibility_state, info = v->vm_entry_interruption_information;
    bool injecting = info & VMX_INTR_VALID;
    unsigned type = VMX_INTR_TYPE(info);

    CHECK(!(state & ~0x1fu));
    CHECK((state & 3) != 3);
    CHECK(v->guest_rflags & X86_FLAG_IF || !(state & 1));
    CHECK(!injecting || type != 0 || !(state & 3));
    CHECK(!injecting || type != 2 || !(state & 2));
    CHECK(!(state & 4));  /* outside SMM */
    CHECK(!(state & 16)); /* no enclaves */
    CHECK(!injecting || type != 2 || !vmx_pin(v, VMX_C_virtual_nmis) || !(state & 8));
    return true;
}

static bool check_pending_debug(const struct x86_cpu *cpu, const struct vmcs *v)
{
    u64 pending = v->guest_pending_debug_exceptions;
    bool shadow =
        v->guest_interruptibility_state & X86_SHADOW || v->guest_activity_state == X86_HALTED;
    bool single_step =
        v->guest_rflags & X86_FLAG_TF && !(v->guest_ia32_debugctl & X86_DEBUGCTL_BTF);

    CHECK(!(pending & ~0x1500full));
    CHECK(!shadow || !single_step || pending & BIT(14));
    CHECK(!shadow || single_step || !(pending & BIT(14)));
    CHECK(!(pending & BIT(16))); /* no RTM */
    return true;
}

static bool check_link_pointer(const struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 revision = 0;
    bool shadowing = vmx_proc2(v, VMX_C_vmcs_shadowing);

    if (v->vmcs_link_pointer == VMX_NO_POINTER)
        return true;
    CHECK(vmx_page_address(cpu, v->vmcs_link_pointer));
    CHECK(!mem_read(cpu->common.mem, v->vmcs_link_pointer, &revision, 4));
    CHECK((revision & 0x7fffffff) == (VMX_REVISION) && revision >> 31 == shadowing);
    CHECK(v->vmcs_link_pointer != vmx_of(cpu)->current_pointer);
    return true;
}

/* 27.3.1.6: with EPT they are in the VMCS, else in memory. */
static bool check_pdptes(struct x86_cpu *cpu, const struct vmcs *v)
{
    u64 reserved = 0x1e6 | ~cpu->phys_mask;
    u64 pdpte[4] = {v->guest_pdpte0, v->guest_pdpte1, v->guest_pdpte2, v->guest_pdpte3};

    if (!(v->guest_cr0 & X86_CR0_PG) || !(v->guest_cr4 & X86_CR4_PAE) || ia32e(v))
        return true;
    if (!vmx_proc2(v, VMX_C_enable_ept) &&
        mem_read(cpu->common.mem, v->guest_cr3 & 0xffffffe0, pdpte, sizeof(pdpte)))
        return false;
    for (unsigned i = 0; i < 4; i++)
        CHECK(!(pdpte[i] & 1) || !(pdpte[i] & reserved));
    return true;
}

bool vmx_check_guest(struct x86_cpu *cpu, const struct vmcs *v, u64 *qualification)
{
    *qualification = 0;
    if (!check_registers(cpu, v) || !check_segments(cpu, v) || !check_tables_and_flags(cpu, v) ||
        !check_activity(cpu, v))
        return false;
    if (!check_interruptibility(cpu, v) || !check_pending_debug(cpu, v))
        return false;
    if (!check_link_pointer(cpu, v)) {
        *qualification = VMX_FAIL_LINK_POINTER;
        return false;
    }
    if (!check_pdptes(cpu, v)) {
        *qualification = VMX_FAIL_PDPTES;
        return false;
    }
    return true;
}
