/* VM entries and exits in words, and a whole VMCS, for --trace vmx and --trace vmcs. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "guest/x86/x86_internal.h"
#include "trace/trace.h"
#include "vmx/nested.h"

static const char *const registers[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static const char *const vectors[32] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM",
                                        "#DF", "9",   "#TS", "#NP", "#SS", "#GP", "#PF", "15",
                                        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};

static const char *vector_name(u32 info)
{
    const char *name = (info & 0xff) < 32 ? vectors[info & 31] : NULL;

    return name ? name : "vector";
}

/* SDM tables 28-3 to 28-8. */
static void control_register(u64 q, char *text, size_t size)
{
    switch (bits(q, 5, 4)) {
    case 0:
        snprintf(text, size, "mov to cr%u from %s", (unsigned)(q & 15), registers[bits(q, 11, 8)]);
        break;
    case 1:
        snprintf(text, size, "mov from cr%u to %s", (unsigned)(q & 15), registers[bits(q, 11, 8)]);
        break;
    case 2:
        snprintf(text, size, "clts");
        break;
    default:
        snprintf(text, size, "lmsw %#x", (unsigned)bits(q, 31, 16));
    }
}

static void io(u64 q, char *text, size_t size)
{
    snprintf(text, size, "%s%s port %#x, %u byte%s%s", q & BIT(5) ? "rep " : "",
             q & BIT(4) ? (q & BIT(3) ? "ins" : "outs") : (q & BIT(3) ? "in" : "out"),
             (unsigned)bits(q, 31, 16), (unsigned)(q & 7) + 1, q & 7 ? "s" : "",
             q & BIT(6) ? ", immediate" : "");
}

static void violation(const struct vmcs *v, u64 q, char *text, size_t size)
{
    snprintf(text, size, "%s%s%s of gpa %#" PRIx64 " mapped %c%c%c, %s %#" PRIx64 "%s",
             q & 1 ? "read" : "", q & 2 ? (q & 1 ? "+write" : "write") : "", q & 4 ? "fetch" : "",
             v->guest_physical_address, q & 8 ? 'r' : '-', q & 16 ? 'w' : '-', q & 32 ? 'x' : '-',
             q & BIT(8) ? "at" : "walking for", v->guest_linear_address,
             q & BIT(12) ? ", NMIs unblocked by IRET" : "");
}

static void exception(const struct vmcs *v, u64 q, char *text, size_t size)
{
    u32 info = v->vm_exit_interruption_information;

    if (info & VMX_INTR_ERROR)
        snprintf(text, size, "%s error %#x address %#" PRIx64, vector_name(info),
                 v->vm_exit_interruption_error_code, q);
    else
        snprintf(text, size, "%s qualification %#" PRIx64, vector_name(info), q);
}

static void apic_access(u64 q, char *text, size_t size)
{
    static const char *const types[16] = {"read", "write", "fetch", "event delivery"};
    const char *type = types[bits(q, 15, 12)];

    snprintf(text, size, "%s at offset %#x", type ? type : "physical access",
             (unsigned)(q & 0xfff));
}

static void task_switch(u64 q, char *text, size_t size)
{
    static const char *const sources[4] = {"call", "iret", "jmp", "task gate"};

    snprintf(text, size, "to %#x by %s", (unsigned)(q & 0xffff), sources[bits(q, 31, 30)]);
}

static void failure(u64 q, char *text, size_t size)
{
    static const char *const why[] = {"", "", "PDPTEs", "NMI", "VMCS link pointer"};

    snprintf(text, size, "%s", q < ARRAY_SIZE(why) ? why[q] : "");
}

static void describe(const struct vmcs *v, u32 reason, char *text, size_t size)
{
    const struct vmx_reason_info *info = vmx_reason(reason & 0xffff);
    u64 q = v->exit_qualification;

    text[0] = 0;
    switch (reason & 0xffff) {
    case VMX_REASON_exception_or_nmi:
        exception(v, q, text, size);
        break;
    case VMX_REASON_external_interrupt:
        if (v->vm_exit_interruption_information & VMX_INTR_VALID)
            snprintf(text, size, "vector %u acknowledged",
                     v->vm_exit_interruption_information & 0xff);
        break;
    case VMX_REASON_control_register_access:
        control_register(q, text, size);
        break;
    case VMX_REASON_mov_dr:
        snprintf(text, size, "%s dr%u %s %s", q & 16 ? "mov from" : "mov to", (unsigned)(q & 7),
                 q & 16 ? "to" : "from", registers[bits(q, 11, 8)]);
        break;
    case VMX_REASON_io_instruction:
        io(q, text, size);
        break;
    case VMX_REASON_ept_violation:
        violation(v, q, text, size);
        break;
    case VMX_REASON_ept_misconfiguration:
        snprintf(text, size, "gpa %#" PRIx64, v->guest_physical_address);
        break;
    case VMX_REASON_apic_access:
        apic_access(q, text, size);
        break;
    case VMX_REASON_apic_write:
        snprintf(text, size, "offset %#x", (unsigned)q);
        break;
    case VMX_REASON_virtualized_eoi:
    case VMX_REASON_startup_ipi:
        snprintf(text, size, "vector %u", (unsigned)q);
        break;
    case VMX_REASON_task_switch:
        task_switch(q, text, size);
        break;
    case VMX_REASON_entry_failure_guest_state:
        failure(q, text, size);
        break;
    case VMX_REASON_entry_failure_msr_loading:
        snprintf(text, size, "entry %u of the list", (unsigned)q);
        break;
    default:
        if (info && info->info & VMX_INFO_Q && q)
            snprintf(text, size, "qualification %#" PRIx64, q);
    }
    if (v->idt_vectoring_information & VMX_INTR_VALID) {
        size_t used = strlen(text);

        snprintf(text + used, size - used, "%sdelivering %s %u", used ? ", " : "",
                 vector_name(v->idt_vectoring_information), v->idt_vectoring_information & 0xff);
    }
}

/* The instruction at lip, or "" if it is not mapped. */
static void instruction(struct x86_cpu *cpu, char *text, size_t size)
{
    u8 code[15] = {0};
    struct guest_page page;
    u32 len = 4096 - (u32)(cpu->lip & 4095);

    text[0] = 0;
    len = len < sizeof(code) ? len : (u32)sizeof(code);
    if (!x86_translate(cpu, cpu->lip, &page) &&
        !mem_read(cpu->common.mem, page.gpa | (cpu->lip & 4095), code, len))
        x86_guest_ops.disassemble(cpu->common.mode, cpu->lip, code, len, text, size);
}

void vmx_trace_exit(struct x86_cpu *cpu, const struct vmcs *v, u32 reason)
{
    char detail[160], insn[96] = "", what[48];
    bool failed = reason >> 31;

    if (likely(!trace_enabled(TRACE_VMX)))
        return;
    describe(v, reason, detail, sizeof(detail));
    if (!failed)
        instruction(cpu, insn, sizeof(insn));
    snprintf(what, sizeof(what), "%s %s", failed ? "entry failed:" : "exit",
             vmx_reason_name(reason & 0xffff));
    trace_emit(VMX, vmx, (int)cpu->common.index, .what = what, .detail = detail, .level = 2,
               .rip = x86_rip(cpu), .insn = insn);
}

void vmx_trace_entry(struct x86_cpu *cpu, const struct vmcs *v)
{
    u32 info = v->vm_entry_interruption_information;
    char detail[64] = "", insn[96];

    if (likely(!trace_enabled(TRACE_VMX)))
        return;
    if (info & VMX_INTR_VALID)
        snprintf(detail, sizeof(detail), "injecting %s %u", vector_name(info), info & 0xff);
    instruction(cpu, insn, sizeof(insn));
    trace_emit(VMX, vmx, (int)cpu->common.index, .what = "entry", .detail = detail, .level = 2,
               .rip = v->guest_rip, .insn = insn);
}

/* Is @name in @text, as a whole word, or as "part" of a segment, which checks have in a
 * variable? */
static bool mentions(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = text; (at = strstr(at, name)); at++)
        if ((at == text || !(isalnum((u8)at[-1]) || at[-1] == '_')) &&
            !(isalnum((u8)at[len]) || at[len] == '_'))
            return true;
    return false;
}

static bool concerns(const char *condition, const char *field)
{
    char segment[16];
    const char *end;

    if (mentions(condition, field))
        return true;
    if (strncmp(field, "guest_", 6) || !(end = strchr(field + 6, '_')) ||
        (size_t)(end - field - 6) >= sizeof(segment))
        return false;
    memcpy(segment, field + 6, (size_t)(end - field - 6));
    segment[end - field - 6] = 0;
    if (!mentions(condition, segment))
        return false;
    return strstr(condition, end + 1) || !strcmp(end, "_access_rights") ||
           !strcmp(end, "_selector");
}

void vmx_trace_vmcs(const struct x86_cpu *cpu, const struct vmcs *v, const char *condition)
{
    static const char *const areas[] = {"control", "information", "guest", "host"};

    if (likely(!trace_enabled(TRACE_VMCS)))
        return;
    for (unsigned area = VMX_CONTROL; area <= VMX_HOST; area++)
        for (unsigned i = 0; i < vmx_nfields; i++)
            if (vmx_fields[i].area == area)
                trace_emit(VMCS, vmcs, (int)cpu->common.index, .area = areas[area],
                           .field = vmx_fields[i].name, .value = vmx_field_get(v, &vmx_fields[i]),
                           .mark = concerns(condition, vmx_fields[i].name) ? "<== " : "");
}
