/*
 * The VMCS tables against what the SDM's appendices say about their form, and against the constants
 * that Linux uses for the same fields and reasons (written down here from its asm/vmx.h by number).
 */
#include "../unit.h"

#include <string.h>

#include "guest/x86/x86.h"
#include "vmx/vmx.h"

/* SDM volume 3, 25.11.2: access type 0, index 9:1, type 11:10, 12 reserved, width 14:13. */
static void test_field_encodings(void **state)
{
    (void)state;
    for (unsigned i = 0; i < vmx_nfields; i++) {
        const struct vmx_field *f = &vmx_fields[i];

        assert_int_equal(f->encoding >> 13, f->width);
        assert_int_equal(f->encoding >> 10 & 3, f->area);
        assert_int_equal(f->encoding & 0x1001, 0);
        assert_int_equal(f->access == VMX_RO, f->area == VMX_INFORMATION);
        if (i)
            assert_true(f->encoding > vmx_fields[i - 1].encoding);
    }
}

static void test_field_names_by_encoding(void **state)
{
    static const struct {
        u32 encoding;
        const char *name;
    } known[] = {
        {0x0000, "virtual_processor_identifier"},
        {0x0802, "guest_cs_selector"},
        {0x080e, "guest_tr_selector"},
        {0x0c0c, "host_tr_selector"},
        {0x2004, "msr_bitmaps_address"},
        {0x2010, "tsc_offset"},
        {0x201a, "ept_pointer"},
        {0x2026, "vmread_bitmap_address"},
        {0x2032, "tsc_multiplier"},
        {0x2400, "guest_physical_address"},
        {0x2800, "vmcs_link_pointer"},
        {0x2806, "guest_ia32_efer"},
        {0x2810, "guest_pdpte3"},
        {0x2c02, "host_ia32_efer"},
        {0x4004, "exception_bitmap"},
        {0x4016, "vm_entry_interruption_information"},
        {0x401e, "secondary_processor_based_controls"},
        {0x4402, "exit_reason"},
        {0x440e, "vm_exit_instruction_information"},
        {0x4816, "guest_cs_access_rights"},
        {0x4826, "guest_activity_state"},
        {0x482e, "vmx_preemption_timer_value"},
        {0x6004, "cr0_read_shadow"},
        {0x6400, "exit_qualification"},
        {0x640a, "guest_linear_address"},
        {0x681e, "guest_rip"},
        {0x6820, "guest_rflags"},
        {0x6c16, "host_rip"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        const struct vmx_field *f = vmx_field_find(known[i].encoding);

        assert_non_null(f);
        assert_string_equal(f->name, known[i].name);
    }
    assert_null(vmx_field_find(0x0001));
    assert_null(vmx_field_find(0x4401));
    assert_null(vmx_field_find(0x1000));
    assert_null(vmx_field_find(0xffffffff));
    assert_ptr_equal(vmx_field_find(0x2011), vmx_field_find(0x2010)); /* the high half */
}

/* Every field holds its width and no two overlap. */
static void test_field_storage(void **state)
{
    static const u64 widths[] = {0xffff, ~0ull, 0xffffffff, ~0ull};
    struct vmcs vmcs;

    (void)state;
    for (unsigned i = 0; i < vmx_nfields; i++) {
        memset(&vmcs, 0, sizeof vmcs);
        vmx_field_set(&vmcs, &vmx_fields[i], ~0ull);
        for (unsigned j = 0; j < vmx_nfields; j++)
            assert_int_equal(vmx_field_get(&vmcs, &vmx_fields[j]),
                             i == j ? widths[vmx_fields[i].width] : 0);
    }
}

static void test_controls(void **state)
{
    u32 seen[VMX_CONTROL_WORDS] = {0};

    (void)state;
    for (unsigned i = 0; i < vmx_ncontrols; i++) {
        const struct vmx_control *c = &vmx_controls[i];

        assert_in_range(c->bit, 0, 31);
        assert_false(seen[c->word] >> c->bit & 1);
        seen[c->word] |= 1u << c->bit;
    }
    /* The default1 classes, SDM appendix A.2 to A.5. */
    assert_int_equal(vmx_default1(VMX_PIN), 0x16);
    assert_int_equal(vmx_default1(VMX_PROC), 0x0401e172);
    assert_int_equal(vmx_default1(VMX_PROC2), 0);
    assert_int_equal(vmx_default1(VMX_EXIT), 0x00036dff);
    assert_int_equal(vmx_default1(VMX_ENTRY), 0x000011ff);
    assert_int_equal(vmx_allowed0(VMX_PROC), 0x04006172); /* A.3.2: but CR3 exiting */
    for (unsigned word = 0; word < VMX_CONTROL_WORDS; word++)
        assert_int_equal(vmx_allowed0(word) & ~vmx_allowed1(word), 0);
}

static void test_reasons(void **state)
{
    (void)state;
    assert_string_equal(vmx_reason_name(0), "exception_or_nmi");
    assert_string_equal(vmx_reason_name(12), "hlt");
    assert_string_equal(vmx_reason_name(30), "io_instruction");
    assert_string_equal(vmx_reason_name(48), "ept_violation");
    assert_string_equal(vmx_reason_name(54), "wbinvd");
    assert_string_equal(vmx_reason_name(64), "xrstors");
    assert_string_equal(vmx_reason_name(77), "tdcall");
    /* Not used by the SDM. */
    assert_null(vmx_reason(35));
    assert_null(vmx_reason(38));
    assert_null(vmx_reason(42));
    assert_null(vmx_reason(71));
    assert_null(vmx_reason(78));
}

struct machine {
    struct vmx_cpu vmx; /* first, as vmx_of demands */
    struct x86_cpu cpu;
    jmp_buf leave;
};

static int setup(void **state)
{
    static struct machine m;

    memset(&m, 0, sizeof m);
    vmx_init(&m.vmx);
    m.cpu.engine = &m;
    m.cpu.common.leave = &m.leave;
    *state = &m;
    return 0;
}

static bool intercepted(struct machine *m, u32 reason, u64 qualification)
{
    if (setjmp(m->leave)) {
        assert_int_equal(m->cpu.common.exit_code, X86_EXIT_VMEXIT);
        assert_int_equal(m->cpu.vmexit.reason, reason);
        return true;
    }
    vmx_intercept(&m->cpu, reason, qualification, 2, 0, 0);
    return false;
}

static void test_root_intercepts(void **state)
{
    struct machine *m = *state;

    assert_true(intercepted(m, VMX_REASON_cpuid, 0));
    assert_true(intercepted(m, VMX_REASON_hlt, 0));
    assert_true(intercepted(m, VMX_REASON_io_instruction, 0x80ull << 16));
    assert_true(intercepted(m, VMX_REASON_vmcall, 0));
    assert_true(intercepted(m, VMX_REASON_xsetbv, 0));
    assert_true(intercepted(m, VMX_REASON_rdmsr, 0));
    assert_false(intercepted(m, VMX_REASON_vmxon, 0));
    assert_false(intercepted(m, VMX_REASON_rdtsc, 0));
    assert_false(intercepted(m, VMX_REASON_invlpg, 0));
    assert_false(intercepted(m, VMX_REASON_control_register_access, 3));
    assert_false(intercepted(m, VMX_REASON_control_register_access, 0));
    assert_false(intercepted(m, VMX_REASON_pause, 0));
    m->vmx.root.vmcs.primary_processor_based_controls |= (u32)VMX_C_pause_exiting;
    assert_true(intercepted(m, VMX_REASON_pause, 0));
}

/* The innermost VMCS that wants the exit gets it. */
static void test_innermost_first(void **state)
{
    struct machine *m = *state;
    struct vmx_level inner = {.outer = &m->vmx.root};

    m->vmx.current = &inner;
    assert_true(intercepted(m, VMX_REASON_cpuid, 0));
    assert_ptr_equal(m->vmx.exit_to, &inner);
    assert_true(intercepted(m, VMX_REASON_vmxon, 0));
    assert_ptr_equal(m->vmx.exit_to, &inner);
    assert_true(intercepted(m, VMX_REASON_hlt, 0)); /* the inner one does not ask for it */
    assert_ptr_equal(m->vmx.exit_to, &m->vmx.root);
    inner.vmcs.primary_processor_based_controls = (u32)VMX_C_hlt_exiting;
    assert_true(intercepted(m, VMX_REASON_hlt, 0));
    assert_ptr_equal(m->vmx.exit_to, &inner);
    m->vmx.current = &m->vmx.root;
}

static void test_exit_records(void **state)
{
    struct machine *m = *state;
    const struct vmcs *vmcs = &m->vmx.root.vmcs;

    assert_true(intercepted(m, VMX_REASON_io_instruction, 0x3f80001));
    assert_int_equal(vmx_exit(&m->cpu), 30);
    assert_int_equal(vmcs->exit_reason, 30);
    assert_int_equal(vmcs->exit_qualification, 0x3f80001);
    assert_int_equal(vmcs->vm_exit_instruction_length, 2);
    assert_int_equal(vmcs->idt_vectoring_information, 0);
    assert_int_equal(m->vmx.exits[30], 1);
}

static void test_event_information(void **state)
{
    struct x86_event event = {
        .valid = true, .vector = 14, .type = 3, .has_error = true, .error = 2};
    struct x86_event back;

    (void)state;
    assert_int_equal(vmx_event_info(&event), 0x80000b0e);
    back = vmx_info_event(0x80000b0e, 2, 0);
    assert_true(back.valid && back.has_error);
    assert_int_equal(back.vector, 14);
    assert_int_equal(back.type, 3);
    event = (struct x86_event){.valid = true, .vector = 0x80, .type = 4, .insn_len = 2};
    assert_int_equal(vmx_event_info(&event), 0x80000480);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_field_encodings),
        cmocka_unit_test(test_field_names_by_encoding),
        cmocka_unit_test(test_field_storage),
        cmocka_unit_test(test_controls),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test_setup(test_root_intercepts, setup),
        cmocka_unit_test_setup(test_innermost_first, setup),
        cmocka_unit_test_setup(test_exit_records, setup),
        cmocka_unit_test(test_event_information),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
