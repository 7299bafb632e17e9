/* The VMX instructions in VMX root operation. SDM vol. 3 chapter 31. */
#include <stdio.h>
#include <string.h>

#include "guest/x86/cc.h"
#include "guest/x86/x86_internal.h"
#include "trace/trace.h"
#include "vmx/nested.h"

#define FEATURE_CONTROL_ENABLED 5u

struct operation {
    struct x86_cpu *cpu;
    struct vmx_cpu *vmx;
    u64 info;   /* VM-exit instruction information */
    u64 linear; /* of the memory operand */
};

static void succeed(struct x86_cpu *cpu)
{
    x86_set_arith_flags(cpu, 0);
}

/* SDM 31.2: with a current VMCS the number goes there and ZF says so, else CF. A shadow VMCS is not
 * the current one. */
static void fail(struct operation *o, u32 error)
{
    char what[32];

    if (trace_enabled(TRACE_VMX)) {
        snprintf(what, sizeof(what), "VMfail %u", error);
        trace_emit(VMX, vmx, (int)o->cpu->common.index, .what = what, .level = 1,
                   .rip = x86_rip(o->cpu));
    }
    if (o->vmx->current_pointer == VMX_NO_POINTER) {
        x86_set_arith_flags(o->cpu, X86_FLAG_CF);
        return;
    }
    o->vmx->nested.vmcs.vm_instruction_error = error;
    x86_set_arith_flags(o->cpu, X86_FLAG_ZF);
}

static void fail_invalid(struct x86_cpu *cpu)
{
    x86_set_arith_flags(cpu, X86_FLAG_CF);
}

static u64 load_operand(struct operation *o)
{
    u64 value;

    o->cpu->common.memory->load(&o->cpu->common, o->linear, &value, 8);
    return value;
}

static void read_region(struct operation *o, u64 pointer)
{
    struct vmx_region region;

    memset(&region, 0, sizeof(region));
    mem_read(o->cpu->common.mem, pointer, &region, sizeof(region));
    o->vmx->nested.vmcs = region.vmcs;
    o->vmx->launched = region.launched == 1;
    o->vmx->current_pointer = pointer;
}

static void write_region(struct operation *o)
{
    struct vmx_cpu *vmx = o->vmx;
    u64 at = vmx->current_pointer;
    u32 launched = vmx->launched;

    if (at == VMX_NO_POINTER)
        return;
    mem_write(o->cpu->common.mem, at + offsetof(struct vmx_region, launched), &launched, 4);
    mem_write(o->cpu->common.mem, at + offsetof(struct vmx_region, vmcs), &vmx->nested.vmcs,
              sizeof(vmx->nested.vmcs));
}

static void vmxon(struct operation *o)
{
    struct x86_cpu *cpu = o->cpu;
    u32 revision;
    u64 pointer;

    if (cpu->cpl || ~cpu->cr0 & vmx_cr0_fixed0(NULL) ||
        (o->vmx->feature_control & FEATURE_CONTROL_ENABLED) != FEATURE_CONTROL_ENABLED)
        x86_raise_error(cpu, X86_GP, 0);
    if (o->vmx->on) {
        fail(o, VMX_ERR_VMXON_IN_ROOT);
        return;
    }
    pointer = load_operand(o);
    if (!vmx_page_address(cpu, pointer) || mem_read(cpu->common.mem, pointer, &revision, 4) ||
        revision != (VMX_REVISION)) {
        fail_invalid(cpu);
        return;
    }
    o->vmx->on = true;
    o->vmx->vmxon_pointer = pointer;
    o->vmx->current_pointer = VMX_NO_POINTER;
    succeed(cpu);
}

static void vmxoff(struct operation *o)
{
    write_region(o);
    o->vmx->on = false;
    o->vmx->current_pointer = VMX_NO_POINTER;
    /* An INIT that VMX operation has held back comes before the next instruction. */
    __atomic_fetch_or(&o->cpu->common.request, GUEST_REQ_EVENT, __ATOMIC_SEQ_CST);
    succeed(o->cpu);
}

static void vmclear(struct operation *o)
{
    u64 pointer = load_operand(o);
    const u32 clear = 0;

    if (!vmx_page_address(o->cpu, pointer)) {
        fail(o, VMX_ERR_VMCLEAR_ADDRESS);
    } else if (pointer == o->vmx->vmxon_pointer) {
        fail(o, VMX_ERR_VMCLEAR_VMXON_POINTER);
    } else {
        if (pointer == o->vmx->current_pointer) {
            write_region(o);
            o->vmx->current_pointer = VMX_NO_POINTER;
        }
        mem_write(o->cpu->common.mem, pointer + offsetof(struct vmx_region, launched), &clear, 4);
        succeed(o->cpu);
    }
}

static void vmptrld(struct operation *o)
{
    u64 pointer = load_operand(o);
    bool shadowing = vmx_may(o->cpu, VMX_PROC2) & VMX_C_vmcs_shadowing;
    u32 revision = 0;

    if (!vmx_page_address(o->cpu, pointer)) {
        fail(o, VMX_ERR_VMPTRLD_ADDRESS);
        return;
    }
    if (pointer == o->vmx->vmxon_pointer) {
        fail(o, VMX_ERR_VMPTRLD_VMXON_POINTER);
        return;
    }
    /* Memory that is not there reads as ones, like an undriven bus. */
    if (mem_read(o->cpu->common.mem, pointer, &revision, 4))
        revision = ~0u;
    if ((revision & 0x7fffffff) != (VMX_REVISION) || (revision >> 31 && !shadowing)) {
        fail(o, VMX_ERR_VMPTRLD_REVISION);
        return;
    }
    if (pointer != o->vmx->current_pointer) {
        write_region(o);
        read_region(o, pointer);
        o->vmx->shadow = revision >> 31;
    }
    succeed(o->cpu);
}

static void vmptrst(struct operation *o)
{
    o->cpu->common.memory->store(&o->cpu->common, o->linear, &o->vmx->current_pointer, 8);
    succeed(o->cpu);
}

/* In non-root operation with VMCS shadowing the VMCS at the link pointer is meant (SDM 26.3): *@v
 * becomes a copy of it, or false: there is none. */
static bool shadow_vmcs(struct operation *o, struct vmcs *v)
{
    u64 at = o->vmx->nested.vmcs.vmcs_link_pointer;

    return at != VMX_NO_POINTER &&
           !mem_read(o->cpu->common.mem, at + offsetof(struct vmx_region, vmcs), v, sizeof(*v));
}

static u64 operand_mask(const struct x86_cpu *cpu)
{
    return x86_code64(cpu) ? ~0ull : 0xffffffff;
}

/* VMREAD and VMWRITE have the field's encoding in one register, the other operand in one or memory.
 * NULL: the instruction has failed; else the field is in *@v: @shadow or the current VMCS. */
static const struct vmx_field *find_field(struct operation *o, u64 *encoding, struct vmcs **v,
                                          struct vmcs *shadow)
{
    const struct vmx_field *field;

    *encoding = o->cpu->gpr[o->info >> 28 & 15] & operand_mask(o->cpu);
    *v = vmx_inner(o->cpu) ? shadow : &o->vmx->nested.vmcs;
    if ((*v == shadow && !shadow_vmcs(o, shadow)) || o->vmx->current_pointer == VMX_NO_POINTER) {
        fail_invalid(o->cpu);
        return NULL;
    }
    field = *encoding >> 32 ? NULL : vmx_field_find((u32)*encoding);
    if (!field)
        fail(o, VMX_ERR_UNSUPPORTED_COMPONENT);
    return field;
}

static void vmread(struct operation *o)
{
    struct vmcs *v, shadow;
    u64 encoding, value;
    const struct vmx_field *field = find_field(o, &encoding, &v, &shadow);

    if (!field)
        return;
    value = vmx_field_get(v, field);
    if (encoding & 1)
        value >>= 32;
    value &= operand_mask(o->cpu);
    if (o->info & BIT(10))
        o->cpu->gpr[o->info >> 3 & 15] = value;
    else
        o->cpu->common.memory->store(&o->cpu->common, o->linear, &value,
                                     x86_code64(o->cpu) ? 8 : 4);
    succeed(o->cpu);
}

static void vmwrite(struct operation *o)
{
    struct vmcs *v, shadow;
    u64 encoding, value = 0;
    const struct vmx_field *field;

    if (o->info & BIT(10))
        value = o->cpu->gpr[o->info >> 3 & 15] & operand_mask(o->cpu);
    else
        o->cpu->common.memory->load(&o->cpu->common, o->linear, &value, x86_code64(o->cpu) ? 8 : 4);
    field = find_field(o, &encoding, &v, &shadow);
    if (!field)
        return;
    if (encoding & 1)
        value = value << 32 | (u32)vmx_field_get(v, field);
    vmx_field_set(v, field, value);
    if (v == &shadow)
        mem_write(o->cpu->common.mem,
                  o->vmx->nested.vmcs.vmcs_link_pointer + offsetof(struct vmx_region, vmcs),
                  &shadow, sizeof(shadow));
    succeed(o->cpu);
}

static void enter(struct operation *o, bool launch)
{
    struct x86_cpu *cpu = o->cpu;
    u32 error;

    if (o->vmx->current_pointer == VMX_NO_POINTER || o->vmx->shadow) {
        fail_invalid(cpu);
        return;
    }
    if (x86_interruptibility(cpu) & X86_SHADOW_MOV_SS) {
        fail(o, VMX_ERR_MOV_SS);
        return;
    }
    if (launch == o->vmx->launched) {
        fail(o, launch ? VMX_ERR_VMLAUNCH_NOT_CLEAR : VMX_ERR_VMRESUME_NOT_LAUNCHED);
        return;
    }
    error = vmx_nested_entry(cpu); /* comes back only if controls or host state are wrong */
    fail(o, error);
}

/* SDM vol. 3 31.3 INVEPT, INVVPID. More than asked for may always be dropped: of an EPTP the
 * translations with any VPID, of all EPTPs those without EPT too. */
static void invept(struct operation *o)
{
    u64 type = o->cpu->gpr[o->info >> 28 & 15] & operand_mask(o->cpu), descriptor[2];

    o->cpu->common.memory->load(&o->cpu->common, o->linear, descriptor, 16);
    if (type < 1 || type > 2 || (type == 1 && !vmx_valid_eptp(o->cpu, descriptor[0]))) {
        fail(o, VMX_ERR_INVALIDATION_OPERAND);
        return;
    }
    if (type == 1)
        o->cpu->common.memory->flush_tags(&o->cpu->common, VMX_TAG_EPTP_MASK,
                                          vmx_eptp_tag(descriptor[0]));
    else
        o->cpu->common.memory->flush_tags(&o->cpu->common, 0, 0);
    succeed(o->cpu);
}

enum { INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_SINGLE_BUT_GLOBALS };

static void invvpid(struct operation *o)
{
    u64 type = o->cpu->gpr[o->info >> 28 & 15] & operand_mask(o->cpu), descriptor[2];

    o->cpu->common.memory->load(&o->cpu->common, o->linear, descriptor, 16);
    if (type > 3 || descriptor[0] >> 16 || (type != INVVPID_ALL && !descriptor[0]) ||
        (type == INVVPID_ADDRESS && !vmx_canonical(o->cpu, descriptor[1]))) {
        fail(o, VMX_ERR_INVALIDATION_OPERAND);
        return;
    }
    if (type == INVVPID_ADDRESS)
        o->cpu->common.memory->flush_page(&o->cpu->common, descriptor[1]);
    else if (type == INVVPID_ALL)
        o->cpu->common.memory->flush_tags(&o->cpu->common, 0, 0);
    else
        o->cpu->common.memory->flush_tags(&o->cpu->common, VMX_TAG_VPID_MASK, descriptor[0]);
    succeed(o->cpu);
}

/* Function 0, the only one: switch the EPTP (SDM 26.5.6.3). vmx_intercept has seen to the rest. */
static void vmfunc(struct operation *o)
{
    struct vmcs *v = vmx_inner(o->cpu);
    u64 eptp;

    if (!v || !vmx_eptp_switch(o->cpu, &eptp))
        x86_raise(o->cpu, X86_UD);
    v->ept_pointer = eptp;
    if (vmx_proc2(v, VMX_C_ept_violation_ve))
        v->eptp_index = (u16)o->cpu->gpr[X86_RCX];
    vmx_update_second_level(o->cpu);
    o->cpu->common.tlb = NULL;
    x86_update_mmu(o->cpu);
}

void vmx_instruction(struct x86_cpu *cpu, u32 reason, u64 info, u64 linear, unsigned insn_len)
{
    struct operation o = {cpu, vmx_of(cpu), info, linear};

    (void)insn_len;
    if (reason != VMX_REASON_vmxon) {
        if (!o.vmx->on)
            x86_raise(cpu, X86_UD);
        if (cpu->cpl && reason != VMX_REASON_vmfunc)
            x86_raise_error(cpu, X86_GP, 0);
    }
    switch (reason) {
    case VMX_REASON_vmxon:
        vmxon(&o);
        break;
    case VMX_REASON_vmxoff:
        vmxoff(&o);
        break;
    case VMX_REASON_vmclear:
        vmclear(&o);
        break;
    case VMX_REASON_vmptrld:
        vmptrld(&o);
        break;
    case VMX_REASON_vmptrst:
        vmptrst(&o);
        break;
    case VMX_REASON_vmread:
        vmread(&o);
        break;
    case VMX_REASON_vmwrite:
        vmwrite(&o);
        break;
    case VMX_REASON_vmlaunch:
        enter(&o, true);
        break;
    case VMX_REASON_vmresume:
        enter(&o, false);
        break;
    case VMX_REASON_invept:
        invept(&o);
        break;
    case VMX_REASON_invvpid:
        invvpid(&o);
        break;
    case VMX_REASON_vmfunc:
        vmfunc(&o);
        break;
    default:
        x86_raise(cpu, X86_UD);
    }
}
