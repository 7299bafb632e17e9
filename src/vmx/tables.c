/* The tables made from fields.def, controls.def and reasons.def, and look-ups in them. */
#include <string.h>

#include "vmx/nested.h"

const struct vmx_field vmx_fields[] = {
#define F(encoding, width, area, access, name)                                                     \
    {encoding, VMX_##width, VMX_##area, VMX_##access, offsetof(struct vmcs, name), #name},
#include "vmx/fields.def"
#undef F
};
const unsigned vmx_nfields = ARRAY_SIZE(vmx_fields);

const struct vmx_control vmx_controls[] = {
#define C(word, bit, name, allowed) {VMX_##word, bit, VMX_##allowed, #name},
#include "vmx/controls.def"
#undef C
};
const unsigned vmx_ncontrols = ARRAY_SIZE(vmx_controls);

const struct vmx_field *vmx_field_find(u32 encoding)
{
    u32 key = (encoding >> 13 & 3) == VMX_W64 ? encoding & ~1u : encoding;
    unsigned low = 0, high = ARRAY_SIZE(vmx_fields);

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (vmx_fields[middle].encoding == key)
            return &vmx_fields[middle];
        if (vmx_fields[middle].encoding < key)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static size_t field_bytes(const struct vmx_field *field)
{
    static const u8 bytes[] = {[VMX_W16] = 2, [VMX_W64] = 8, [VMX_W32] = 4, [VMX_WN] = 8};

    return bytes[field->width];
}

u64 vmx_field_get(const struct vmcs *vmcs, const struct vmx_field *field)
{
    u64 value = 0;

    memcpy(&value, (const u8 *)vmcs + field->offset, field_bytes(field));
    return value;
}

void vmx_field_set(struct vmcs *vmcs, const struct vmx_field *field, u64 value)
{
    memcpy((u8 *)vmcs + field->offset, &value, field_bytes(field));
}

/* The bits of @word whose column "allowed" is one of @kinds, a set of BIT(VMX_*). */
static u32 of_kinds(enum vmx_control_word word, u64 kinds)
{
    u32 controls = 0;

    for (size_t i = 0; i < ARRAY_SIZE(vmx_controls); i++)
        if (vmx_controls[i].word == word && kinds & BIT(vmx_controls[i].allowed))
            controls |= 1u << vmx_controls[i].bit;
    return controls;
}

u32 vmx_allowed0(enum vmx_control_word word)
{
    return of_kinds(word, BIT(VMX_ONE));
}

u32 vmx_default1(enum vmx_control_word word)
{
    return of_kinds(word, BIT(VMX_ONE) | BIT(VMX_DEFAULT1));
}

u32 vmx_allowed1(enum vmx_control_word word)
{
    return of_kinds(word, ~BIT(VMX_NO));
}

u32 vmx_pmu_controls(enum vmx_control_word word)
{
    return of_kinds(word, BIT(VMX_PMU));
}

u64 vmx_control_get(const struct vmcs *vmcs, enum vmx_control_word word)
{
    switch (word) {
    case VMX_PIN:
        return vmcs->pin_based_controls;
    case VMX_PROC:
        return vmcs->primary_processor_based_controls;
    case VMX_PROC2:
        return vmcs->secondary_processor_based_controls;
    case VMX_PROC3:
        return vmcs->tertiary_processor_based_controls;
    case VMX_EXIT:
        return vmcs->primary_vm_exit_controls;
    case VMX_EXIT2:
        return vmcs->secondary_vm_exit_controls;
    default:
        return vmcs->vm_entry_controls;
    }
}

/* Whether the SDM lets @when functions look at a control word that may not be activated. */
static bool proc(const struct vmx_level *level, u32 bit)
{
    return level->vmcs.primary_processor_based_controls & bit;
}

/* SDM 26.1.3: MOV to CR0 or CR4 exits if the value differs from the read shadow in a bit the guest
 * does not own; LMSW looks at the low four bits and cannot clear PE; CLTS at TS. The root owns no
 * bit. cpu->cr_operand is what is to be written. */
static bool cr_write_exits(const struct vmx_level *level, const struct x86_cpu *cpu, unsigned reg,
                           unsigned type)
{
    const struct vmcs *v = &level->vmcs;
    u64 mask = reg == 4 ? v->cr4_guest_host_mask : v->cr0_guest_host_mask;
    u64 shadow = reg == 4 ? v->cr4_read_shadow : v->cr0_read_shadow;
    u64 operand = cpu->cr_operand;

    if (!level->outer)
        return false;
    if (type == 2)
        return mask & shadow & X86_CR0_TS;
    if (type == 3) {
        mask &= 15;
        operand |= shadow & X86_CR0_PE;
    }
    return (operand ^ shadow) & mask;
}

static bool is_cr3_target(const struct vmcs *v, u64 value)
{
    const u64 targets[] = {v->cr3_target_value_0, v->cr3_target_value_1, v->cr3_target_value_2,
                           v->cr3_target_value_3};

    for (unsigned i = 0; i < v->cr3_target_count && i < ARRAY_SIZE(targets); i++)
        if (targets[i] == value)
            return true;
    return false;
}

/* SDM table 28-3: register in bits 3:0, access type in 5:4 (0 MOV to, 1 MOV from, 2 CLTS, 3
 * LMSW). */
static bool when_control_register(const struct vmx_level *level, const struct x86_cpu *cpu,
                                  u64 qualification)
{
    unsigned reg = qualification & 15, type = (unsigned)bits(qualification, 5, 4);

    if (reg == 3 && type == 0)
        return proc(level, VMX_C_cr3_load_exiting) && !is_cr3_target(&level->vmcs, cpu->cr_operand);
    if (reg == 3)
        return proc(level, VMX_C_cr3_store_exiting);
    if (reg == 2)
        return false;
    if (reg == 8)
        return proc(level, type == 0 ? VMX_C_cr8_load_exiting : VMX_C_cr8_store_exiting);
    return type != 1 && cr_write_exits(level, cpu, reg, type);
}

/* Bit @n of the bitmap at guest-physical @address; memory that is not there reads as ones. */
static bool bitmap_bit(const struct x86_cpu *cpu, u64 address, unsigned n)
{
    u8 byte;

    if (mem_read(cpu->common.mem, address + n / 8, &byte, 1))
        return true;
    return byte >> (n % 8) & 1;
}

/* SDM 26.1.3: bitmap A has ports 0 to 7FFFh, B the others; any of the access's ports counts, and
 * one that wraps around FFFFh exits. */
static bool when_io(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    unsigned port = (unsigned)bits(qualification, 31, 16), bytes = (qualification & 7) + 1;

    if (!proc(level, (u32)VMX_C_use_io_bitmaps))
        return proc(level, VMX_C_unconditional_io_exiting);
    for (unsigned i = 0; i < bytes; i++) {
        u64 map =
            (port + i) & 0x8000 ? level->vmcs.io_bitmap_b_address : level->vmcs.io_bitmap_a_address;

        if (port + i > 0xffff || bitmap_bit(cpu, map, (port + i) & 0x7fff))
            return true;
    }
    return false;
}

/* SDM 25.6.9: four bitmaps of 1 KiB: reads of low and high MSRs, writes of low and high. */
static bool msr_exits(const struct vmx_level *level, const struct x86_cpu *cpu, bool write)
{
    u32 msr = (u32)cpu->gpr[X86_RCX];
    u64 map = level->vmcs.msr_bitmaps_address + (write ? 2048 : 0);

    if (!proc(level, VMX_C_use_msr_bitmaps))
        return true;
    if (!level->outer)
        return !level->msr_exits || level->msr_exits(msr);
    if (msr < 0x2000)
        return bitmap_bit(cpu, map, msr);
    if (msr >= 0xc0000000 && msr < 0xc0002000)
        return bitmap_bit(cpu, map + 1024, msr & 0x1fff);
    return true;
}

static bool when_rdmsr(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    (void)qualification;
    return msr_exits(level, cpu, false);
}

static bool when_wrmsr(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    (void)qualification;
    return msr_exits(level, cpu, true);
}

/* SDM 26.1.3: when EDX:EAX, IA32_XSS and the XSS-exiting bitmap have a bit in common. */
static bool when_xsaves(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    u64 mask = (u32)cpu->gpr[X86_RAX] | cpu->gpr[X86_RDX] << 32;

    (void)qualification;
    return mask & cpu->xss & level->vmcs.xss_exiting_bitmap;
}

/* SDM 26.1.3: with PAUSE-loop exiting at CPL 0, when PAUSEs not further apart than PLE_Gap go on
 * for longer than PLE_Window. */
static bool when_pause(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    const struct vmcs *v = &level->vmcs;
    struct vmx_cpu *vmx = vmx_of(cpu);
    u64 now, last = vmx->pause_last;

    (void)qualification;
    if (proc(level, VMX_C_pause_exiting))
        return true;
    if (!level->outer || cpu->cpl || !vmx_proc2(v, VMX_C_pause_loop_exiting))
        return false;
    now = vmx_outer_tsc(cpu);
    vmx->pause_last = now;
    if (now - last > v->ple_gap) {
        vmx->pause_first = now;
        return false;
    }
    if (now - vmx->pause_first <= v->ple_window)
        return false;
    vmx->pause_last = 0;
    return true;
}

/* SDM 26.5.6.2: a function that is not enabled, or EPTP switching to an entry that is none. */
static bool when_vmfunc(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    u64 eptp;

    (void)qualification;
    if (!level->outer || (u32)cpu->gpr[X86_RAX] > 63)
        return false;
    return !vmx_eptp_switch(cpu, &eptp);
}

/* VMREAD or VMWRITE of @encoding in non-root operation goes to the shadow VMCS (SDM 26.1.3). */
static bool shadowed(const struct x86_cpu *cpu, bool write, u64 encoding)
{
    const struct vmcs *v = vmx_inner(cpu);

    return v && vmx_proc2(v, VMX_C_vmcs_shadowing) && !(encoding >> 15) &&
           !bitmap_bit(cpu, write ? v->vmwrite_bitmap_address : v->vmread_bitmap_address,
                       (unsigned)encoding);
}

/* The register with the field's encoding is cpu->cr_operand. */
static bool when_vmread(const struct vmx_level *level, const struct x86_cpu *cpu, u64 qualification)
{
    (void)qualification;
    return level->outer && !shadowed(cpu, false, cpu->cr_operand);
}

static bool when_vmwrite(const struct vmx_level *level, const struct x86_cpu *cpu,
                         u64 qualification)
{
    (void)qualification;
    return level->outer && !shadowed(cpu, true, cpu->cr_operand);
}

bool vmx_eptp_switch(const struct x86_cpu *cpu, u64 *eptp)
{
    const struct vmcs *v = vmx_inner(cpu);
    u32 index = (u32)cpu->gpr[X86_RCX];

    return v && !(u32)cpu->gpr[X86_RAX] && v->vm_function_controls & 1 && index < 512 &&
           !mem_read(cpu->common.mem, v->eptp_list_address + index * 8ull, eptp, 8) &&
           vmx_valid_eptp(cpu, *eptp);
}

/* Which word each control of controls.def is in, for ON(). */
enum {
#define C(word, bit, name, allowed) VMX_WORD_OF_##name = VMX_##word,
#include "vmx/controls.def"
#undef C
};

#define Q VMX_INFO_Q
#define L VMX_INFO_L
#define P VMX_INFO_P
#define I VMX_INFO_I
#define N VMX_INFO_N
#define D VMX_INFO_D
#define NEVER .when = VMX_NEVER
#define EVENT .when = VMX_EVENT
#define INNER .when = VMX_INNER
#define ALWAYS .when = VMX_ALWAYS
#define ON(control) .when = VMX_ON, .word = VMX_WORD_OF_##control, .mask = (u32)VMX_C_##control
#define ASK(function) .when = VMX_ASK, .ask = function
static const struct vmx_reason_info reasons[VMX_REASONS] = {
#define R(number, text, information, manual, when_, handler)                                       \
    [number] = {.name = #text, .section = manual, .info = information, when_},
#include "vmx/reasons.def"
#undef R
};

const struct vmx_reason_info *vmx_reason(u32 reason)
{
    return reason < VMX_REASONS && reasons[reason].name ? &reasons[reason] : NULL;
}

const char *vmx_reason_name(u32 reason)
{
    const struct vmx_reason_info *info = vmx_reason(reason);

    return info ? info->name : "reserved";
}
