/* Every state struct of the engine contract: set, get, equal; and that the guest sees it. */
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* struct kvm_msrs with room for @n entries. */
#define MSRS(n)                                                                                    \
    union {                                                                                        \
        struct kvm_msrs head;                                                                      \
        struct {                                                                                   \
            u32 nmsrs, pad;                                                                        \
            struct kvm_msr_entry entries[n];                                                       \
        };                                                                                         \
    }

#define OPS(name) (host->ops->name)

static bool same(const char *what, const void *got, const void *want, size_t len)
{
    const u8 *g = got, *w = want;

    for (size_t i = 0; i < len; i++) {
        if (g[i] != w[i]) {
            print_message("%s differs at byte %zu: 0x%02x, wanted 0x%02x\n", what, i, g[i], w[i]);
            return false;
        }
    }
    return true;
}

/* Table 10-1 of SDM volume 3, "IA-32 and Intel 64 processor states following power-up". */
void power_on_state(void **state)
{
    struct host *host = host_create(2);
    struct kvm_mp_state mp;
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct vcpu *vcpu = host->cpu[i].vcpu;

        CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
        CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
        CHECK_EQUAL(OPS(get_mp_state)(vcpu, &mp), 0);
        CHECK_EQUAL(mp.mp_state, i ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE);
        CHECK_EQUAL(regs.rip, 0xfff0);
        CHECK_EQUAL(regs.rflags, 2);
        CHECK_EQUAL(regs.rax, 0);
        CHECK_EQUAL(regs.rbx, 0);
        CHECK_EQUAL(regs.rcx, 0);
        CHECK_EQUAL(regs.rsp, 0);
        CHECK_EQUAL(regs.r15, 0);
        CHECK_EQUAL(sregs.cs.selector, 0xf000);
        CHECK_EQUAL(sregs.cs.base, 0xffff0000);
        CHECK_EQUAL(sregs.cs.limit, 0xffff);
        CHECK_EQUAL(sregs.cs.present, 1);
        CHECK_EQUAL(sregs.ds.selector, 0);
        CHECK_EQUAL(sregs.ds.base, 0);
        CHECK_EQUAL(sregs.ds.limit, 0xffff);
        CHECK_EQUAL(sregs.ss.limit, 0xffff);
        CHECK_EQUAL(sregs.gdt.limit, 0xffff);
        CHECK_EQUAL(sregs.idt.limit, 0xffff);
        CHECK_EQUAL(sregs.gdt.base, 0);
        CHECK_EQUAL(sregs.cr0, 0x60000010);
        CHECK_EQUAL(sregs.cr2, 0);
        CHECK_EQUAL(sregs.cr3, 0);
        CHECK_EQUAL(sregs.cr4, 0);
        CHECK_EQUAL(sregs.cr8, 0);
        CHECK_EQUAL(sregs.efer, 0);
        CHECK_EQUAL(sregs.apic_base, i ? 0xfee00800 : 0xfee00900);
    }
    host_destroy(host);
}

/* The first instruction is at 0xfffffff0. */
void reset_vector(void **state)
{
    static const u8 code[] = {0xb0, 0x5a, 0xe6, 0x80}; /* mov $0x5a, %al; out %al, $0x80 */
    struct host *host = host_create(1);
    struct kvm_userspace_memory_region region = {
        .slot = 7,
        .guest_phys_addr = 0xfffff000,
        .memory_size = 0x1000,
        .userspace_addr = (uintptr_t)host->ram.hva + FREE_GPA,
    };
    struct kvm_run *run = host->cpu[0].vcpu->run;

    (void)state;
    host_load(host, FREE_GPA + 0xff0, code, sizeof code);
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(run->io.port, 0x80);
    CHECK_EQUAL(*((u8 *)run + run->io.data_offset), 0x5a);
    host_destroy(host);
}

void regs_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_regs want, got;
    u64 *words = (u64 *)&want;

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *words; i++)
        words[i] = 0x0123456789abcdef * (i + 1);
    want.rip = 0x1234;
    want.rflags = 0x246;
    CHECK_EQUAL(OPS(set_regs)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_regs)(host->cpu[0].vcpu, &got), 0);
    CHECK(same("kvm_regs", &got, &want, sizeof got));
    host_destroy(host);
}

void sregs_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_sregs want, got;

    (void)state;
    host_enter(host, MODE_LONG64);
    CHECK_EQUAL(OPS(get_sregs)(host->cpu[0].vcpu, &want), 0);
    want.fs.base = 0xffff888012345678;
    want.fs.selector = 0;
    want.gs.base = 0x7fff12345678;
    want.tr = (struct kvm_segment){
        .base = 0xfffffe0000003000, .limit = 0x4087, .selector = 0x40, .type = 11, .present = 1};
    want.ldt = (struct kvm_segment){
        .base = 0x5000, .limit = 0x1f, .selector = 0x50, .type = 2, .present = 1};
    want.gdt = (struct kvm_dtable){.base = 0xfffffe0000001000, .limit = 0x7f};
    want.idt = (struct kvm_dtable){.base = 0xfffffe0000000000, .limit = 0xfff};
    want.cr2 = 0xffffc90000123000;
    want.cr3 = TABLES_GPA;
    want.cr4 |= 0x6f0 & ~0x40ull & ~0x20000ull;
    want.cr0 |= 0x50022;
    want.efer |= 0x801;
    want.cr8 = 5;
    CHECK_EQUAL(OPS(set_sregs)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_sregs)(host->cpu[0].vcpu, &got), 0);
    CHECK(same("cs", &got.cs, &want.cs, sizeof want.cs));
    CHECK(same("ds", &got.ds, &want.ds, sizeof want.ds));
    CHECK(same("fs", &got.fs, &want.fs, sizeof want.fs));
    CHECK(same("gs", &got.gs, &want.gs, sizeof want.gs));
    CHECK(same("ss", &got.ss, &want.ss, sizeof want.ss));
    CHECK(same("tr", &got.tr, &want.tr, sizeof want.tr));
    CHECK(same("ldt", &got.ldt, &want.ldt, sizeof want.ldt));
    CHECK_EQUAL(got.gdt.base, want.gdt.base);
    CHECK_EQUAL(got.gdt.limit, want.gdt.limit);
    CHECK_EQUAL(got.idt.base, want.idt.base);
    CHECK_EQUAL(got.idt.limit, want.idt.limit);
    CHECK_EQUAL(got.cr0, want.cr0);
    CHECK_EQUAL(got.cr2, want.cr2);
    CHECK_EQUAL(got.cr3, want.cr3);
    CHECK_EQUAL(got.cr4, want.cr4);
    CHECK_EQUAL(got.cr8, want.cr8);
    CHECK_EQUAL(got.efer, want.efer);
    CHECK_EQUAL(got.apic_base, want.apic_base);
    host_destroy(host);
}

void fpu_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_fpu want, got;

    (void)state;
    memset(&want, 0, sizeof want);
    for (unsigned i = 0; i < 8; i++) {
        for (unsigned k = 0; k < 10; k++) /* 80 bits each */
            want.fpr[i][k] = i * 16 + k + 1;
    }
    for (unsigned i = 0; i < 16; i++)
        memset(want.xmm[i], 0x40 + i, sizeof want.xmm[i]);
    want.fcw = 0x27f;
    want.fsw = 0x3800;
    want.ftwx = 0xa5;
    want.last_opcode = 0x123;
    want.last_ip = 0x1122334455667788;
    want.last_dp = 0x8877665544332211;
    CHECK_EQUAL(OPS(set_fpu)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_fpu)(host->cpu[0].vcpu, &got), 0);
    /* Linux fills mxcsr only in the XSAVE area. */
    CHECK(same("kvm_fpu", &got, &want, offsetof(struct kvm_fpu, mxcsr)));
    host_destroy(host);
}

/* The XSAVE area in the standard format: FXSAVE's 512 bytes, then XSTATE_BV. */
void xsave_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_xsave want, got;
    u8 *area = (u8 *)want.region;
    struct kvm_fpu fpu;
    u64 *components = (u64 *)(area + 512);

    (void)state;
    CHECK_EQUAL(OPS(get_xsave)(host->cpu[0].vcpu, &want), 0);
    *(u16 *)area = 0x37f;
    *(u16 *)(area + 2) = 0x2800;
    area[4] = 0x81;
    for (unsigned i = 0; i < 8; i++)
        memset(area + 32 + i * 16, 0x11 * (i + 1), 10);
    for (unsigned i = 0; i < 16; i++)
        memset(area + 160 + i * 16, 0xa0 + i, 16);
    *(u32 *)(area + 24) = 0x1f80;
    *components |= 3;
    CHECK_EQUAL(OPS(set_xsave)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_xsave)(host->cpu[0].vcpu, &got), 0);
    CHECK(same("control", got.region, want.region, 5));
    CHECK(same("registers", (u8 *)got.region + 32, area + 32, 128 + 256));
    CHECK_EQUAL(((u64 *)((u8 *)got.region + 512))[0] & 3, 3);
    CHECK_EQUAL(OPS(get_fpu)(host->cpu[0].vcpu, &fpu), 0); /* the same registers */
    CHECK_EQUAL(fpu.xmm[7][0], 0xa7);
    CHECK_EQUAL(fpu.fpr[3][9], 0x44);
    CHECK_EQUAL(fpu.ftwx, 0x81);
    CHECK_EQUAL(fpu.fsw, 0x2800);
    host_destroy(host);
}

void xcrs_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_xcrs want = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = 3}}}, got;
    const struct kvm_cpuid_entry2 *leaf = engine_cpuid_find(host->cpuid, 1, 0);

    (void)state;
    CHECK(leaf);
    if (!(leaf->ecx & BIT(26))) {
        print_message("no XSAVE here\n");
        host_destroy(host);
        skip();
    }
    CHECK_EQUAL(OPS(get_xcrs)(host->cpu[0].vcpu, &got), 0);
    CHECK_EQUAL(got.nr_xcrs, 1);
    CHECK_EQUAL(got.xcrs[0].value, 1);
    CHECK_EQUAL(OPS(set_xcrs)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_xcrs)(host->cpu[0].vcpu, &got), 0);
    CHECK_EQUAL(got.xcrs[0].value, 3);
    want.xcrs[0].value = 2; /* x87 must be on */
    CHECK_EQUAL(OPS(set_xcrs)(host->cpu[0].vcpu, &want), (u64)-EINVAL);
    host_destroy(host);
}

void msrs_round_trip(void **state)
{
    static const struct kvm_msr_entry values[] = {
        {.index = 0x174, .data = 0x10},                    /* SYSENTER_CS */
        {.index = 0x175, .data = 0xffff800000001000},      /* SYSENTER_ESP */
        {.index = 0x176, .data = 0xffff800000002000},      /* SYSENTER_EIP */
        {.index = 0x277, .data = 0x0007010600070106},      /* PAT */
        {.index = 0xc0000081, .data = 0x0023001000000000}, /* STAR */
        {.index = 0xc0000082, .data = 0xffffffff81000000}, /* LSTAR */
        {.index = 0xc0000083, .data = 0xffffffff81001000}, /* CSTAR */
        {.index = 0xc0000084, .data = 0x47700},            /* SFMASK */
        {.index = 0xc0000100, .data = 0x7f0012345678},     /* FS_BASE */
        {.index = 0xc0000101, .data = 0xffff888000000000}, /* GS_BASE */
        {.index = 0xc0000102, .data = 0x7f0087654321},     /* KERNEL_GS_BASE */
        {.index = 0x1a0, .data = 1},                       /* MISC_ENABLE: fast strings */
    };
    struct host *host = host_create(1);
    struct kvm_sregs sregs;
    MSRS(16) msrs = {0};

    (void)state;
    msrs.nmsrs = ARRAY_SIZE(values);
    memcpy(msrs.entries, values, sizeof values);
    CHECK_EQUAL(OPS(set_msrs)(host->cpu[0].vcpu, &msrs.head), ARRAY_SIZE(values));
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        msrs.entries[i].data = 0xdead;
    CHECK_EQUAL(OPS(get_msrs)(host->cpu[0].vcpu, &msrs.head), ARRAY_SIZE(values));
    for (size_t i = 0; i < ARRAY_SIZE(values) - 1; i++) /* MISC_ENABLE has bits of its own */
        CHECK_EQUAL(msrs.entries[i].data, values[i].data);
    CHECK_EQUAL(OPS(get_sregs)(host->cpu[0].vcpu, &sregs), 0);
    CHECK_EQUAL(sregs.fs.base, 0x7f0012345678);
    CHECK_EQUAL(sregs.gs.base, 0xffff888000000000);
    host_destroy(host);
}

/* The answer is how many were done before the first that is not known. */
void msrs_stop_at_unknown(void **state)
{
    struct host *host = host_create(1);
    MSRS(4)
    msrs = {.nmsrs = 3,
            .entries = {{.index = 0x174, .data = 8},
                        {.index = 0x12345678, .data = 1},
                        {.index = 0x175, .data = 0x77}}};

    (void)state;
    CHECK_EQUAL(OPS(set_msrs)(host->cpu[0].vcpu, &msrs.head), 1);
    CHECK_EQUAL(OPS(get_msrs)(host->cpu[0].vcpu, &msrs.head), 1);
    host_destroy(host);
}

static u32 *lapic_reg(struct kvm_lapic_state *lapic, u32 offset)
{
    return (u32 *)(lapic->regs + offset);
}

void lapic_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_lapic_state want, got;

    (void)state;
    CHECK_EQUAL(OPS(get_lapic)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(*lapic_reg(&want, 0x20) >> 24, 0);
    /* The first CPU's LINT0 takes the PIC's interrupts from the start, as firmware leaves it. */
    CHECK_EQUAL(*lapic_reg(&want, 0x350), 0x700);
    CHECK_EQUAL(*lapic_reg(&want, 0x320), 0x10000);
    *lapic_reg(&want, 0x80) = 0x30;  /* TPR */
    *lapic_reg(&want, 0xf0) = 0x1ff; /* spurious vector, enabled */
    *lapic_reg(&want, 0xd0) = 0x01000000;
    *lapic_reg(&want, 0xe0) = 0xffffffff;
    *lapic_reg(&want, 0x320) = 0x20060; /* timer, periodic */
    *lapic_reg(&want, 0x350) = 0x10700;
    *lapic_reg(&want, 0x360) = 0x400;
    *lapic_reg(&want, 0x370) = 0xfe;
    *lapic_reg(&want, 0x3e0) = 0xb;
    CHECK_EQUAL(OPS(set_lapic)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_lapic)(host->cpu[0].vcpu, &got), 0);
    for (u32 offset = 0; offset < 0x400; offset += 16) {
        if (offset == 0xa0 || offset == 0x390) /* PPR and the counter follow the rest */
            continue;
        if (*lapic_reg(&got, offset) != *lapic_reg(&want, offset))
            print_message("local APIC register 0x%x\n", offset);
        CHECK_EQUAL(*lapic_reg(&got, offset), *lapic_reg(&want, offset));
    }
    host_destroy(host);
}

void vcpu_events_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_vcpu_events events;

    (void)state;
    CHECK_EQUAL(OPS(get_vcpu_events)(host->cpu[0].vcpu, &events), 0);
    CHECK_EQUAL(events.exception.injected, 0);
    CHECK_EQUAL(events.interrupt.injected, 0);
    CHECK_EQUAL(events.nmi.pending, 0);
    CHECK_EQUAL(events.nmi.masked, 0);
    events.exception.injected = 1;
    events.exception.nr = 14;
    events.exception.has_error_code = 1;
    events.exception.error_code = 6;
    events.nmi.masked = 1;
    events.nmi.pending = 1;
    events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    CHECK_EQUAL(OPS(set_vcpu_events)(host->cpu[0].vcpu, &events), 0);
    memset(&events, 0, sizeof events);
    CHECK_EQUAL(OPS(get_vcpu_events)(host->cpu[0].vcpu, &events), 0);
    CHECK_EQUAL(events.exception.injected, 1);
    CHECK_EQUAL(events.exception.nr, 14);
    CHECK_EQUAL(events.exception.has_error_code, 1);
    CHECK_EQUAL(events.exception.error_code, 6);
    CHECK_EQUAL(events.nmi.masked, 1);
    CHECK_EQUAL(events.nmi.pending, 1);
    CHECK(events.interrupt.shadow != 0);
    /* An NMI by the operation shows up as pending. */
    memset(&events, 0, sizeof events);
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    CHECK_EQUAL(OPS(set_vcpu_events)(host->cpu[0].vcpu, &events), 0);
    CHECK_EQUAL(OPS(nmi)(host->cpu[0].vcpu), 0);
    CHECK_EQUAL(OPS(get_vcpu_events)(host->cpu[0].vcpu, &events), 0);
    CHECK_EQUAL(events.nmi.pending, 1);
    host_destroy(host);
}

void mp_state_round_trip(void **state)
{
    static const u32 states[] = {KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED,
                                 KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED};
    struct host *host = host_create(2);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        struct kvm_mp_state want = {states[i]}, got;

        CHECK_EQUAL(OPS(set_mp_state)(host->cpu[1].vcpu, &want), 0);
        CHECK_EQUAL(OPS(get_mp_state)(host->cpu[1].vcpu, &got), 0);
        CHECK_EQUAL(got.mp_state, want.mp_state);
    }
    struct kvm_mp_state nonsense = {77};

    CHECK_EQUAL(OPS(set_mp_state)(host->cpu[1].vcpu, &nonsense), (u64)-EINVAL);
    host_destroy(host);
}

void debugregs_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_debugregs want, got;

    (void)state;
    CHECK_EQUAL(OPS(get_debugregs)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(want.dr6, 0xffff0ff0);
    CHECK_EQUAL(want.dr7, 0x400);
    want.db[0] = 0x1000;
    want.db[1] = 0xffff800000002000;
    want.db[2] = 0x3000;
    want.db[3] = 0x4000;
    want.dr6 = 0xffff0ff2;
    want.dr7 = 0x000d0402;
    CHECK_EQUAL(OPS(set_debugregs)(host->cpu[0].vcpu, &want), 0);
    CHECK_EQUAL(OPS(get_debugregs)(host->cpu[0].vcpu, &got), 0);
    CHECK(same("kvm_debugregs", &got, &want, offsetof(struct kvm_debugregs, flags)));
    host_destroy(host);
}

void cpuid_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_cpuid2 *got;

    (void)state;
    got = calloc(1, sizeof *got + CPUID_ROOM * sizeof got->entries[0]);
    assert_non_null(got);
    got->nent = 1;
    CHECK_EQUAL(OPS(get_cpuid)(host->cpu[0].vcpu, got), (u64)-E2BIG);
    got->nent = CPUID_ROOM;
    CHECK_EQUAL(OPS(get_cpuid)(host->cpu[0].vcpu, got), 0);
    CHECK_EQUAL(got->nent, host->cpuid->nent);
    for (u32 i = 0; i < got->nent; i++) {
        const struct kvm_cpuid_entry2 *g = &got->entries[i], *w = &host->cpuid->entries[i];

        CHECK_EQUAL(g->function, w->function);
        CHECK_EQUAL(g->index, w->index);
        if (g->function == 1 || g->function == 7 || g->function == 0xd)
            continue; /* leaves with bits that follow CR4 and XCR0 */
        CHECK_EQUAL(g->eax, w->eax);
        CHECK_EQUAL(g->ebx, w->ebx);
        CHECK_EQUAL(g->ecx, w->ecx);
        CHECK_EQUAL(g->edx, w->edx);
    }
    free(got);
    host_destroy(host);
}

void irqchip_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_irqchip want = {.chip_id = KVM_IRQCHIP_IOAPIC}, got;

    (void)state;
    CHECK_EQUAL(OPS(get_irqchip)(host->vm, &want), 0);
    CHECK_EQUAL(want.chip.ioapic.base_address, 0xfec00000);
    for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        want.chip.ioapic.redirtbl[i].bits = 0x0100000000010030 + i;
    want.chip.ioapic.ioregsel = 0x13;
    CHECK_EQUAL(OPS(set_irqchip)(host->vm, &want), 0);
    got = (struct kvm_irqchip){.chip_id = KVM_IRQCHIP_IOAPIC};
    CHECK_EQUAL(OPS(get_irqchip)(host->vm, &got), 0);
    CHECK_EQUAL(got.chip.ioapic.ioregsel, 0x13);
    for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        CHECK_EQUAL(got.chip.ioapic.redirtbl[i].bits, want.chip.ioapic.redirtbl[i].bits);
    for (u32 id = KVM_IRQCHIP_PIC_MASTER; id <= KVM_IRQCHIP_PIC_SLAVE; id++) {
        want = (struct kvm_irqchip){.chip_id = id};
        CHECK_EQUAL(OPS(get_irqchip)(host->vm, &want), 0);
        want.chip.pic.irq_base = 0x30 + id * 8;
        want.chip.pic.imr = 0xf0 + id;
        want.chip.pic.elcr = id ? 0x0c : 0;
        CHECK_EQUAL(OPS(set_irqchip)(host->vm, &want), 0);
        got = (struct kvm_irqchip){.chip_id = id};
        CHECK_EQUAL(OPS(get_irqchip)(host->vm, &got), 0);
        CHECK(same("kvm_pic_state", &got.chip.pic, &want.chip.pic, sizeof want.chip.pic));
    }
    want.chip_id = 9;
    CHECK_EQUAL(OPS(get_irqchip)(host->vm, &want), (u64)-EINVAL);
    host_destroy(host);
}

void pit_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_pit_state2 want, got;

    (void)state;
    CHECK_EQUAL(OPS(get_pit)(host->vm, &want), 0);
    want.channels[0].count = 0x1234;
    want.channels[0].mode = 2;
    want.channels[0].rw_mode = 3;
    want.channels[2].count = 0x4321;
    want.channels[2].mode = 3;
    want.channels[2].gate = 1;
    CHECK_EQUAL(OPS(set_pit)(host->vm, &want), 0);
    CHECK_EQUAL(OPS(get_pit)(host->vm, &got), 0);
    CHECK_EQUAL(got.channels[0].count, 0x1234);
    CHECK_EQUAL(got.channels[0].mode, 2);
    CHECK_EQUAL(got.channels[0].rw_mode, 3);
    CHECK_EQUAL(got.channels[2].count, 0x4321);
    CHECK_EQUAL(got.channels[2].mode, 3);
    CHECK_EQUAL(got.channels[2].gate, 1);
    host_destroy(host);
}

void clock_round_trip(void **state)
{
    struct host *host = host_create(1);
    struct kvm_clock_data first = {0}, second = {0}, set = {.clock = 1000000000000000};

    (void)state;
    CHECK_EQUAL(OPS(get_clock)(host->vm, &first), 0);
    CHECK_EQUAL(OPS(get_clock)(host->vm, &second), 0);
    CHECK(second.clock >= first.clock);
    CHECK_EQUAL(OPS(set_clock)(host->vm, &set), 0);
    CHECK_EQUAL(OPS(get_clock)(host->vm, &first), 0);
    CHECK(first.clock >= set.clock && first.clock < set.clock + 60000000000);
    host_destroy(host);
}

/* What is set is what the guest computes with, and what it leaves is what get finds. */
void regs_reach_the_guest(void **state)
{
    static const u8 code[] = {
        0x48, 0x01, 0xd8,       /* add %rbx, %rax */
        0x4d, 0x31, 0xfe,       /* xor %r15, %r14 */
        0x48, 0xff, 0xc1,       /* inc %rcx */
        0x66, 0x0f, 0xef, 0xc1, /* pxor %xmm1, %xmm0 */
        0xf9,                   /* stc */
        0xe6, 0x80,             /* out %al, $0x80 */
    };
    struct host *host = host_create(1);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_regs regs = {.rax = 0x1111111111111111,
                            .rbx = 0x2222222222222222,
                            .r14 = 0xff,
                            .r15 = 0x0f,
                            .rcx = ~0ull,
                            .rip = LOAD_GPA,
                            .rflags = 2,
                            .rdx = 77};
    struct kvm_sregs sregs;
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};
    struct kvm_xsave xsave;

    (void)state;
    host_load(host, LOAD_GPA, code, sizeof code);
    host_enter(host, MODE_LONG64);
    CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
    sregs.cr4 |= 0x600;
    CHECK_EQUAL(OPS(set_sregs)(vcpu, &sregs), 0);
    memset(fpu.xmm[0], 0xf0, 16);
    memset(fpu.xmm[1], 0x3c, 16);
    /* KVM's set_fpu writes the registers of its XSAVE image but not XSTATE_BV, by which those of a
     * vCPU that never ran are in their initial state. */
    CHECK_EQUAL(OPS(get_xsave)(vcpu, &xsave), 0);
    xsave.region[128] |= 3;
    CHECK_EQUAL(OPS(set_xsave)(vcpu, &xsave), 0);
    CHECK_EQUAL(OPS(set_fpu)(vcpu, &fpu), 0);
    CHECK_EQUAL(OPS(set_regs)(vcpu, &regs), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
    CHECK_EQUAL(regs.rax, 0x3333333333333333);
    CHECK_EQUAL(regs.r14, 0xf0);
    CHECK_EQUAL(regs.rcx, 0);
    CHECK_EQUAL(regs.rdx, 77);
    CHECK_EQUAL(regs.rflags & 0x8d5, 0x55); /* CF from STC; ZF, AF and PF from INC */
    CHECK_EQUAL(OPS(get_fpu)(vcpu, &fpu), 0);
    CHECK_EQUAL(fpu.xmm[0][5], 0xcc);
    host_destroy(host);
}

void translate_walks_tables(void **state)
{
    struct host *host = host_create(1);
    struct kvm_translation translation = {.linear_address = 0x123456};
    u64 *directory = (u64 *)(host->ram.hva + TABLES_GPA + 0x2000);

    (void)state;
    host_enter(host, MODE_LONG64);
    CHECK_EQUAL(OPS(translate)(host->cpu[0].vcpu, &translation), 0);
    CHECK_EQUAL(translation.valid, 1);
    CHECK_EQUAL(translation.physical_address, 0x123456);
    directory[3] = 0x200000 | 0x87;
    directory[4] = 0;
    translation.linear_address = 0x601234;
    CHECK_EQUAL(OPS(translate)(host->cpu[0].vcpu, &translation), 0);
    CHECK_EQUAL(translation.valid, 1);
    CHECK_EQUAL(translation.physical_address, 0x201234);
    translation.linear_address = 0x801234;
    CHECK_EQUAL(OPS(translate)(host->cpu[0].vcpu, &translation), 0);
    CHECK_EQUAL(translation.valid, 0);
    host_destroy(host);
}
