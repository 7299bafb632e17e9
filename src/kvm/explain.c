/* Why a run failed, in a sentence. */
#include <Zydis/Zydis.h>
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "kvm/kvm.h"
#include "kvm/private.h"

#define INSN_MAX 15 /* bytes of the longest x86 instruction, SDM volume 2, 2.3.11 */

struct name {
    u64 number;
    const char *text;
};

/* SDM volume 3, 27.8 "VM-entry failures during or after loading guest state". */
static const struct name entry_failures[] = {
    {33, "invalid guest state"},
    {34, "MSR loading failed"},
    {41, "machine-check event during VM entry"},
};

/* SDM volume 3, 31.4 "VM instruction error numbers", those that VM entry gives. */
static const struct name instruction_errors[] = {
    {4, "VMLAUNCH with non-clear VMCS"},
    {5, "VMRESUME with non-launched VMCS"},
    {6, "VMRESUME after VMXOFF"},
    {7, "VM entry with invalid control fields"},
    {8, "VM entry with invalid host-state fields"},
    {16, "VM entry with invalid executive-VMCS pointer"},
    {17, "VM entry with non-launched executive VMCS"},
    {18, "VM entry with executive-VMCS pointer not VMXON pointer"},
    {25, "VM entry with invalid VM-execution control fields in executive VMCS"},
    {26, "VM entry with events blocked by MOV SS"},
};

/* APM volume 2, appendix C "SVM intercept exit codes". */
static const struct name svm_failures[] = {
    {(u64)-1, "VMEXIT_INVALID: invalid guest state in the VMCB"},
    {(u64)-2, "VMEXIT_BUSY: busy bit set in the VMSA"},
    {(u64)-3, "VMEXIT_IDLE_REQUIRED"},
    {(u64)-4, "VMEXIT_INVALID_PMC"},
    {0xffffffffu, "VMEXIT_INVALID: invalid guest state in the VMCB"},
};

/* Linux, Documentation/virt/kvm/api.rst, KVM_EXIT_INTERNAL_ERROR. */
static const struct name suberrors[] = {
    {KVM_INTERNAL_ERROR_EMULATION, "the kernel cannot emulate an instruction"},
    {KVM_INTERNAL_ERROR_SIMUL_EX, "simultaneous exceptions during event delivery"},
    {KVM_INTERNAL_ERROR_DELIVERY_EV, "an unexpected exit while an event was being delivered"},
    {KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, "an exit reason the kernel does not expect"},
};

static const char *find_name(const struct name *names, size_t count, u64 number)
{
    for (size_t i = 0; i < count; i++) {
        if (names[i].number == number)
            return names[i].text;
    }
    return NULL;
}
#define FIND_NAME(table, number) find_name(table, ARRAY_SIZE(table), number)

static bool host_is_intel(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_INTEL_ebx;
}

const char *kvm_suberror_name(u32 suberror)
{
    return FIND_NAME(suberrors, suberror);
}

void kvm_describe_entry_failure(u64 reason, bool intel, struct err *err)
{
    const char *name;

    if (!intel) {
        name = FIND_NAME(svm_failures, reason);
        err_set(err, 0, "the CPU refused to enter the guest: VMRUN exit code 0x%" PRIx64 "%s%s",
                reason, name ? ", " : "", name ? name : "");
    } else if (reason & BIT(31)) {
        name = FIND_NAME(entry_failures, bits(reason, 15, 0));
        err_set(err, 0, "the CPU refused to enter the guest: VM-entry failure %u%s%s",
                (unsigned)bits(reason, 15, 0), name ? ", " : "", name ? name : "");
    } else {
        name = FIND_NAME(instruction_errors, reason);
        err_set(err, 0, "the CPU refused to enter the guest: VM-instruction error %" PRIu64 "%s%s",
                reason, name ? ", " : "", name ? name : "");
    }
}

void kvm_describe_insn(const u8 *bytes, size_t len, unsigned code_bits, u64 rip, char *text,
                       size_t size)
{
    ZydisMachineMode mode = code_bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                            : code_bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                              : ZYDIS_MACHINE_MODE_LEGACY_16;
    ZydisDisassembledInstruction insn;
    size_t shown = len, used = 0;
    bool known;

    known = ZYAN_SUCCESS(ZydisDisassembleIntel(mode, rip, bytes, len, &insn));
    if (known)
        shown = insn.info.length;
    text[0] = 0;
    for (size_t i = 0; i < shown && used < size; i++)
        used += snprintf(text + used, size - used, "%02x ", bytes[i]);
    if (used < size)
        snprintf(text + used, size - used, " %s", known ? insn.text : "(not an instruction)");
}

static unsigned code_bits(const struct kvm_sregs *sregs)
{
    if (sregs->cs.l && (sregs->efer & BIT(10)))
        return 64;
    return sregs->cs.db ? 32 : 16;
}

/* The bytes at the guest's RIP, as far as they can be read: how many. */
static size_t fetch_insn(struct vcpu *vcpu, u64 linear, u8 *bytes)
{
    for (size_t i = 0; i < INSN_MAX; i++) {
        struct kvm_translation translation = {.linear_address = linear + i};

        if (kvm_translate(vcpu, &translation) || !translation.valid ||
            mem_read(vcpu->vm->mem, translation.physical_address, &bytes[i], 1))
            return i;
    }
    return INSN_MAX;
}

/* " at rip 0x1000: 0f 0b  ud2", with @bytes if the kernel gave them, else as memory has them. */
static void add_insn(struct vcpu *vcpu, const u8 *given, size_t given_len, struct err *err)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    u8 fetched[INSN_MAX];
    char text[160];
    size_t used;

    if (kvm_get_regs(vcpu, &regs) || kvm_get_sregs(vcpu, &sregs))
        return;
    if (!given_len) {
        u64 base = code_bits(&sregs) == 64 ? 0 : sregs.cs.base;

        given = fetched;
        given_len = fetch_insn(vcpu, base + regs.rip, fetched);
    }
    if (given_len)
        kvm_describe_insn(given, given_len, code_bits(&sregs), regs.rip, text, sizeof text);
    used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used,
             "; %u-bit code at cs:rip %04x:%" PRIx64 "%s%s", code_bits(&sregs), sregs.cs.selector,
             (u64)regs.rip, given_len ? ": " : "", given_len ? text : " (not readable)");
}

static void explain_internal_error(struct vcpu *vcpu, struct err *err)
{
    const struct kvm_run *run = vcpu->run;
    const char *name = kvm_suberror_name(run->internal.suberror);
    const u8 *bytes = NULL;
    size_t len = 0, used;

    err_set(err, 0, "KVM internal error %u: %s", run->internal.suberror,
            name ? name : "a suberror unknown to Triode");
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        if (run->emulation_failure.ndata >= 3 &&
            (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
            bytes = run->emulation_failure.insn_bytes;
            len = run->emulation_failure.insn_size;
            if (len > INSN_MAX)
                len = INSN_MAX;
        }
    } else {
        for (u32 i = 0; i < run->internal.ndata && i < ARRAY_SIZE(run->internal.data); i++) {
            used = strlen(err->text);
            snprintf(err->text + used, sizeof err->text - used, "%s0x%llx", i ? " " : "; data ",
                     run->internal.data[i]);
        }
    }
    add_insn(vcpu, bytes, len, err);
}

void kvm_explain(struct vcpu *vcpu, struct err *err)
{
    const struct kvm_run *run = vcpu->run;
    int code = to_kvm_vcpu(vcpu)->run_error;

    if (code) {
        err_set(err, 0, "KVM_RUN failed: %s%s", strerror(code),
                code == EFAULT ? " (guest memory has no host memory behind it)" : "");
        add_insn(vcpu, NULL, 0, err);
        return;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_FAIL_ENTRY:
        kvm_describe_entry_failure(run->fail_entry.hardware_entry_failure_reason, host_is_intel(),
                                   err);
        add_insn(vcpu, NULL, 0, err);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        explain_internal_error(vcpu, err);
        break;
    case KVM_EXIT_UNKNOWN:
        err_set(err, 0, "the kernel does not know the hardware's exit reason 0x%llx",
                run->hw.hardware_exit_reason);
        add_insn(vcpu, NULL, 0, err);
        break;
    default:
        err_set(err, 0, "the last run ended by %s (exit reason %u)",
                engine_exit_name(run->exit_reason) ? engine_exit_name(run->exit_reason)
                                                   : "an unknown exit",
                run->exit_reason);
    }
}
