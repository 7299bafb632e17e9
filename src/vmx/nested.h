/*
 * VMX operation of the guest: its own VMCSs on top of the root. Between the files of src/vmx.
 *
 * A VMCS region in guest memory (4 KiB, SDM 25.2): revision identifier (bit 31: shadow), VMX-abort
 * indicator, then our own format: launch state, the fields as struct vmcs has them. The current
 * VMCS is kept in vmx->nested.vmcs and written back when it stops being current.
 */
#ifndef TRIODE_VMX_NESTED_H
#define TRIODE_VMX_NESTED_H

#include "vmx/vmx.h"

#define VMX_REVISION 0x54524901u & 0x7fffffffu
#define VMX_NO_POINTER (~0ull)
#define VMX_PAGE 4096u

struct vmx_region {
    u32 revision;
    u32 abort;
    u32 launched;
    u32 reserved;
    struct vmcs vmcs;
};

/* VM-instruction error numbers, SDM table 31-1. */
enum {
    VMX_ERR_VMCALL_IN_ROOT = 1,
    VMX_ERR_VMCLEAR_ADDRESS = 2,
    VMX_ERR_VMCLEAR_VMXON_POINTER = 3,
    VMX_ERR_VMLAUNCH_NOT_CLEAR = 4,
    VMX_ERR_VMRESUME_NOT_LAUNCHED = 5,
    VMX_ERR_VMRESUME_AFTER_VMXOFF = 6,
    VMX_ERR_CONTROLS = 7,
    VMX_ERR_HOST_STATE = 8,
    VMX_ERR_VMPTRLD_ADDRESS = 9,
    VMX_ERR_VMPTRLD_VMXON_POINTER = 10,
    VMX_ERR_VMPTRLD_REVISION = 11,
    VMX_ERR_UNSUPPORTED_COMPONENT = 12,
    VMX_ERR_READ_ONLY_COMPONENT = 13,
    VMX_ERR_VMXON_IN_ROOT = 15,
    VMX_ERR_MOV_SS = 26,
    VMX_ERR_INVALIDATION_OPERAND = 28,
};

/* VMX aborts, SDM 28.7. */
enum { VMX_ABORT_STORE_MSRS = 1, VMX_ABORT_HOST_PDPTES = 2, VMX_ABORT_LOAD_MSRS = 4 };

/* Entry-failure qualifications, SDM 27.8. */
enum { VMX_FAIL_PDPTES = 2, VMX_FAIL_LINK_POINTER = 4 };

static inline bool vmx_pin(const struct vmcs *vmcs, u32 control)
{
    return vmcs->pin_based_controls & control;
}

static inline bool vmx_proc(const struct vmcs *vmcs, u32 control)
{
    return vmcs->primary_processor_based_controls & control;
}

/* Secondary controls count only when activated (SDM 25.6.2). */
static inline bool vmx_proc2(const struct vmcs *vmcs, u32 control)
{
    return vmx_proc(vmcs, (u32)VMX_C_activate_secondary_controls) &&
           vmcs->secondary_processor_based_controls & control;
}

static inline bool vmx_exit_control(const struct vmcs *vmcs, u32 control)
{
    return vmcs->primary_vm_exit_controls & control;
}

static inline bool vmx_entry_control(const struct vmcs *vmcs, u32 control)
{
    return vmcs->vm_entry_controls & control;
}

/* The guest's VMCS in effect, or NULL outside VMX non-root operation. */
static inline struct vmcs *vmx_inner(const struct x86_cpu *cpu)
{
    struct vmx_cpu *vmx = vmx_of(cpu);

    return vmx->current == &vmx->root ? NULL : &vmx->current->vmcs;
}

/* A check of VM entry: answers false from the function when @condition, the SDM's sentence, does
 * not hold; its text is the trace. */
bool vmx_check_failed(const struct x86_cpu *cpu, const char *condition);
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return vmx_check_failed(cpu, #condition);                                              \
    } while (0)

/* checks_controls.c, checks_host.c, checks_guest.c: in the SDM's order. */
bool vmx_check_controls(const struct x86_cpu *cpu, const struct vmcs *v);
bool vmx_check_host(const struct x86_cpu *cpu, const struct vmcs *v);
/* *@qualification says more of a failure (0 or VMX_FAIL_*). */
bool vmx_check_guest(struct x86_cpu *cpu, const struct vmcs *v, u64 *qualification);

/* What several checks ask. */
bool vmx_canonical(const struct x86_cpu *cpu, u64 address);
/* Are the bits above the linear-address width all the same? (The top one below it need not be.) */
bool vmx_bits_above_width(const struct x86_cpu *cpu, u64 address);
bool vmx_page_address(const struct x86_cpu *cpu, u64 address);
bool vmx_valid_pat(u64 pat);
/* Bits of @word that may be 1 on this CPU, with what CPUID offers. */
u32 vmx_may(const struct x86_cpu *cpu, enum vmx_control_word word);
u64 vmx_cr0_fixed0(const struct vmcs *v); /* bits that must be 1; @v NULL: no VMCS relaxes them */
u64 vmx_cr4_fixed1(const struct x86_cpu *cpu);
#define VMX_CR4_FIXED0 X86_CR4_VMXE
/* CR0 from a field of the VMCS: ET, NW, CD and reserved bits stay as they are (SDM 27.3.2.1,
 * 28.5.1). */
void vmx_load_cr0(struct x86_cpu *cpu, u64 value);

/* entry.c: VMLAUNCH and VMRESUME from the checks on; leaves with X86_EXIT_STATE, in non-root
 * operation or, after a failed entry, at the host state's RIP. Answers the VM-instruction error if
 * controls or host state are wrong. */
u32 vmx_nested_entry(struct x86_cpu *cpu);

/* exit.c: VM exit to the guest's VMCS: @reason (bit 31: failed entry) and what cpu->vmexit says. */
void vmx_nested_exit(struct x86_cpu *cpu, u32 reason);

/* msr_lists.c: entry n failed: its number from 1, or 0 for success. */
u32 vmx_load_msrs(struct x86_cpu *cpu, u64 address, u32 count);
u32 vmx_store_msrs(struct x86_cpu *cpu, u64 address, u32 count);
void vmx_abort(struct x86_cpu *cpu, u32 indicator) NORETURN;

/* describe.c: the trace. */
void vmx_trace_exit(struct x86_cpu *cpu, const struct vmcs *v, u32 reason);
void vmx_trace_entry(struct x86_cpu *cpu, const struct vmcs *v);
/* @condition: the check that failed. */
void vmx_trace_vmcs(const struct x86_cpu *cpu, const struct vmcs *v, const char *condition);

/* vapic.c */
void vmx_enter_vapic(struct x86_cpu *cpu);
void vmx_apic_fetch(struct x86_cpu *cpu, u64 gva) NORETURN;
void vmx_apic_walk(struct x86_cpu *cpu) NORETURN;

/* VMFUNC's conditions for its function 0; the EPTP to switch to (SDM 26.5.6.3). */
bool vmx_eptp_switch(const struct x86_cpu *cpu, u64 *eptp);

/* Tags of soft TLBs in non-root operation (SDM 29.4): VPID in bits 15:0, EPTP above; 0 is the
 * root's. */
#define VMX_TAG_NONROOT BIT(63)
#define VMX_TAG_MODE_BASED BIT(62)
#define VMX_TAG_APIC_PAGE BIT(61)
#define VMX_TAG_VPID_MASK 0xffffull
#define VMX_TAG_EPTP_MASK ((mask_low(52) & ~0xfffull) << 4)
static inline u64 vmx_eptp_tag(u64 eptp)
{
    return eptp << 4 & VMX_TAG_EPTP_MASK;
}

/* ept.c */
bool vmx_valid_eptp(const struct x86_cpu *cpu, u64 eptp);
bool vmx_second_level(struct x86_cpu *cpu, u64 gpa, u64 gva, enum guest_access access,
                      bool walk_entry, bool probe, struct guest_page *page);
/* Makes second-level translation, and the tag of TLBs, those of the VMCS in effect. */
void vmx_update_second_level(struct x86_cpu *cpu);

#endif
