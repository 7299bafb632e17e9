/* The engine as the machine sees it, with guests of a few bytes. */
#include "../unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "soft/soft.h"

#define CODE 0x1000
#define DATA 0x2000
#define MMIO 0xd0000000u

struct fixture {
    struct engine *engine;
    struct mem *mem;
    struct mem_ram ram;
    struct vm *vm;
    struct vcpu *vcpu[2];
    const struct engine_ops *ops;
};

static int setup_jit(void **state, bool jit)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct engine_vm_config config = {
        .topology = {2, 1, 2, 1}, .jit = jit, .code_cache_bytes = 16 * MiB, .pit = true};
    struct kvm_userspace_memory_region region = {.memory_size = 1 * MiB};
    struct err err = {""};

    assert_non_null(f);
    f->ops = &soft_engine_ops;
    f->mem = mem_create();
    assert_int_equal(mem_ram_alloc(&f->ram, 1 * MiB, NULL), 0);
    assert_int_equal(f->ops->open(&f->engine, &err), 0);
    config.mem = f->mem;
    if (f->ops->vm_create(f->engine, &config, &f->vm, &err))
        fail_msg("%s", err.text);
    region.userspace_addr = (u64)f->ram.hva;
    assert_int_equal(f->ops->set_memory(f->vm, &region), 0);
    for (unsigned i = 0; i < 2; i++)
        if (f->ops->vcpu_create(f->vm, i, i, &f->vcpu[i], &err))
            fail_msg("%s", err.text);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_jit(state, true);
}

static int setup_interpreter(void **state)
{
    return setup_jit(state, false);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->ops->vcpu_destroy(f->vcpu[0]);
    f->ops->vcpu_destroy(f->vcpu[1]);
    f->ops->vm_destroy(f->vm);
    f->ops->close(f->engine);
    mem_destroy(f->mem);
    mem_ram_free(&f->ram);
    free(f);
    return 0;
}

/* vCPU 0 in flat 32-bit protected mode without paging, or in real mode, at CODE. */
static void place(struct fixture *f, const void *code, size_t len, bool real)
{
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    memcpy(f->ram.hva + CODE, code, len);
    mem_wrote(f->mem, CODE, len);
    assert_int_equal(f->ops->get_sregs(f->vcpu[0], &sregs), 0);
    if (real) {
        sregs.cs.selector = 0;
        sregs.cs.base = 0;
    } else {
        sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
        sregs.cs = data;
        sregs.cs.type = 0xb;
        sregs.cs.selector = 8;
        sregs.cr0 = 0x11;
    }
    assert_int_equal(f->ops->set_sregs(f->vcpu[0], &sregs), 0);
    memset(&regs, 0, sizeof regs);
    regs.rip = CODE;
    regs.rsp = 0x8000;
    regs.rflags = 2;
    assert_int_equal(f->ops->set_regs(f->vcpu[0], &regs), 0);
}
#define PLACE(f, code, real) place(f, code, sizeof(code) - 1, real)

static struct kvm_run *run(struct fixture *f, u32 exit_reason)
{
    struct kvm_run *record = f->vcpu[0]->run;
    int ret = f->ops->vcpu_run(f->vcpu[0]);
    struct err err = {""};

    if (ret || record->exit_reason != exit_reason) {
        f->ops->explain(f->vcpu[0], &err);
        fail_msg("run answered %d, exit %u, not %u: %s", ret, record->exit_reason, exit_reason,
                 err.text);
    }
    return record;
}

static u8 *io_data(struct kvm_run *record)
{
    return (u8 *)record + record->io.data_offset;
}

static struct kvm_regs regs_of(struct fixture *f)
{
    struct kvm_regs regs;

    assert_int_equal(f->ops->get_regs(f->vcpu[0], &regs), 0);
    return regs;
}

/* "out 0xf4, al" ends a guest. */
static void expect_end(struct fixture *f)
{
    struct kvm_run *record = run(f, KVM_EXIT_IO);

    assert_int_equal(record->io.port, 0xf4);
}

static void test_power_on(void **state)
{
    struct fixture *f = *state;
    struct kvm_mp_state mp;
    struct kvm_sregs sregs;
    struct kvm_regs regs = regs_of(f);

    assert_int_equal(regs.rip, 0xfff0);
    assert_int_equal(regs.rflags, 2);
    assert_int_equal(regs.rdx, 0x30661);
    f->ops->get_sregs(f->vcpu[0], &sregs);
    assert_int_equal(sregs.cs.base, 0xffff0000);
    assert_int_equal(sregs.cs.selector, 0xf000);
    assert_int_equal(sregs.cr0, 0x60000010);
    assert_int_equal(sregs.apic_base, 0xfee00900);
    f->ops->get_mp_state(f->vcpu[0], &mp);
    assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
    f->ops->get_mp_state(f->vcpu[1], &mp);
    assert_int_equal(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
}

static void test_io(void **state)
{
    struct fixture *f = *state;
    struct kvm_run *record;

    PLACE(f,
          "\xb0\x5a\xe6\x80" /* mov al, 5Ah; out 80h, al */
          "\xba\x00\x10\xed" /* mov dx, 1000h; in ax, dx */
          "\xe6\xf4",
          true);
    record = run(f, KVM_EXIT_IO);
    assert_int_equal(record->io.direction, KVM_EXIT_IO_OUT);
    assert_int_equal(record->io.port, 0x80);
    assert_int_equal(record->io.size, 1);
    assert_int_equal(record->io.count, 1);
    assert_int_equal(*io_data(record), 0x5a);
    record = run(f, KVM_EXIT_IO);
    assert_int_equal(record->io.direction, KVM_EXIT_IO_IN);
    assert_int_equal(record->io.port, 0x1000);
    assert_int_equal(record->io.size, 2);
    memcpy(io_data(record), "\x34\x12", 2);
    expect_end(f);
    assert_int_equal(regs_of(f).rax, 0x1234);
}

static void test_string_io(void **state)
{
    struct fixture *f = *state;
    struct kvm_run *record;

    memcpy(f->ram.hva + DATA, "hello", 5);
    PLACE(f,
          "\xbe\x00\x20\xb9\x05\x00\xba\xf8\x03\xfc" /* si = 2000h, cx = 5, dx = 3F8h, cld */
          "\xf3\x6e"                                 /* rep outsb */
          "\xbf\xfc\x2f\xb9\x06\x00"                 /* di = 2FFCh, cx = 6 */
          "\xf3\x6d"                                 /* rep insw: over the end of a page */
          "\xe6\xf4",
          true);
    record = run(f, KVM_EXIT_IO);
    assert_int_equal(record->io.count, 5);
    assert_memory_equal(io_data(record), "hello", 5);
    record = run(f, KVM_EXIT_IO);
    assert_int_equal(regs_of(f).rsi, 0x2005);
    assert_int_equal(record->io.direction, KVM_EXIT_IO_IN);
    assert_int_equal(record->io.size, 2);
    assert_int_equal(record->io.count, 2); /* up to the page's end */
    memcpy(io_data(record), "abcd", 4);
    record = run(f, KVM_EXIT_IO);
    assert_int_equal(record->io.count, 4);
    memcpy(io_data(record), "efghijkl", 8);
    expect_end(f);
    assert_memory_equal(f->ram.hva + 0x2ffc, "abcdefghijkl", 12);
    assert_int_equal(regs_of(f).rcx, 0);
    assert_int_equal(regs_of(f).rdi, 0x3008);
}

static void test_string_io_backwards(void **state)
{
    struct fixture *f = *state;

    memcpy(f->ram.hva + DATA, "abc", 3);
    PLACE(f, "\xbe\x02\x20\xb9\x03\x00\xba\xf8\x03\xfd\xf3\x6e\xe6\xf4", true); /* std */
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_run *record = run(f, KVM_EXIT_IO);

        assert_int_equal(record->io.port, 0x3f8);
        assert_int_equal(record->io.count, 1);
        assert_int_equal(*io_data(record), "cba"[i]);
    }
    expect_end(f);
    assert_int_equal(regs_of(f).rsi, 0x1fff);
}

static void expect_mmio(struct fixture *f, u64 gpa, u32 len, bool write, u64 data)
{
    struct kvm_run *record = run(f, KVM_EXIT_MMIO);
    u64 got = 0;

    assert_int_equal(record->mmio.phys_addr, gpa);
    assert_int_equal(record->mmio.len, len);
    assert_int_equal(record->mmio.is_write, write);
    memcpy(&got, record->mmio.data, len);
    if (write)
        assert_int_equal(got, data);
    else
        memcpy(record->mmio.data, &data, 8);
}

/* Each access once and in order, whatever the instruction makes of it. */
static void test_mmio(void **state)
{
    struct fixture *f = *state;

    PLACE(f,
          "\xbb\x00\x00\x00\xd0" /* mov ebx, MMIO */
          "\x8b\x03"             /* mov eax, [ebx] */
          "\x83\x43\x04\x05"     /* add dword [ebx+4], 5 */
          "\x66\x89\x43\x08"     /* mov [ebx+8], ax */
          "\xff\x73\x10"         /* push dword [ebx+10h] */
          "\x8d\x73\x20\x8d\x7b\x40\xb9\x02\x00\x00\x00\xfc"
          "\xf3\xa5"             /* rep movsd: MMIO to MMIO, 2 */
          "\xf0\x0f\xc1\x43\x50" /* lock xadd [ebx+50h], eax */
          "\xe6\xf4",
          false);
    expect_mmio(f, MMIO, 4, false, 0x11223344);
    expect_mmio(f, MMIO + 4, 4, false, 37);
    expect_mmio(f, MMIO + 4, 4, true, 42);
    expect_mmio(f, MMIO + 8, 2, true, 0x3344);
    expect_mmio(f, MMIO + 0x10, 4, false, 0xcafe);
    for (u32 i = 0; i < 8; i += 4) {
        expect_mmio(f, MMIO + 0x20 + i, 4, false, 0xabc0 + i);
        expect_mmio(f, MMIO + 0x40 + i, 4, true, 0xabc0 + i);
    }
    expect_mmio(f, MMIO + 0x50, 4, false, 1);
    expect_mmio(f, MMIO + 0x50, 4, true, 0x11223345);
    expect_end(f);
    assert_int_equal(regs_of(f).rax, 1);
    assert_int_equal(regs_of(f).rsp, 0x7ffc);
    assert_int_equal(*(u32 *)(void *)(f->ram.hva + 0x7ffc), 0xcafe);
}

static void test_kick_in_replay(void **state)
{
    struct fixture *f = *state;

    PLACE(f, "\xbb\x00\x00\x00\xd0\xff\x03\xe6\xf4", false); /* inc dword [ebx] */
    expect_mmio(f, MMIO, 4, false, 7);
    f->ops->kick(f->vcpu[0]);
    expect_mmio(f, MMIO, 4, true, 8); /* the instruction is finished first, as KVM does */
    assert_int_equal(f->ops->vcpu_run(f->vcpu[0]), -EINTR);
    assert_int_equal(f->vcpu[0]->run->exit_reason, KVM_EXIT_INTR);
    assert_int_equal(regs_of(f).rip, CODE + 7);
    expect_end(f);
}

static void test_kick_before_run_and_while_spinning(void **state)
{
    struct fixture *f = *state;

    PLACE(f, "\xeb\xfe", true); /* jmp $ */
    f->ops->kick(f->vcpu[0]);
    assert_int_equal(f->ops->vcpu_run(f->vcpu[0]), -EINTR);
}

static void *kick_later(void *opaque)
{
    struct fixture *f = opaque;

    usleep(20000);
    f->ops->kick(f->vcpu[0]);
    return NULL;
}

static void test_kick_from_thread(void **state)
{
    struct fixture *f = *state;
    static const char *const codes[] = {"\xeb\xfe", "\xfa\xf4"}; /* jmp $; cli, hlt */

    for (unsigned i = 0; i < 2; i++) {
        pthread_t thread;

        place(f, codes[i], 2, true);
        pthread_create(&thread, NULL, kick_later, f);
        assert_int_equal(f->ops->vcpu_run(f->vcpu[0]), -EINTR);
        pthread_join(thread, NULL);
    }
}

/* Interrupt 30h by the 8259 wakes HLT; its handler at 3000h counts. */
static void test_halt_and_pic(void **state)
{
    struct fixture *f = *state;
    u32 vector = 0x3000;

    memcpy(f->ram.hva + 4 * 0x30, &vector, 4);
    memcpy(f->ram.hva + 0x3000, "\xff\x06\x00\x20\xb0\x20\xe6\x20\xcf", 9); /* inc, EOI, iret */
    PLACE(f,
          "\xb0\x11\xe6\x20\xb0\x30\xe6\x21\xb0\x04\xe6\x21\xb0\x01\xe6\x21" /* 8259 to 30h */
          "\xb0\xfe\xe6\x21"                                                 /* only IRQ 0 */
          "\xb0\x34\xe6\x43\xb0\xa9\xe6\x40\xb0\x04\xe6\x40"                 /* 8254: every ms */
          "\xfb\xf4"                                                         /* sti, hlt */
          "\x83\x3e\x00\x20\x05\x72\xf8"                                     /* until 5 came */
          "\xe6\xf4",
          true);
    expect_end(f);
    assert_true(*(u16 *)(void *)(f->ram.hva + DATA) >= 5); /* a slow host may see one more */
}

static void *nmi_later(void *opaque)
{
    struct fixture *f = opaque;

    usleep(20000);
    f->ops->nmi(f->vcpu[0]);
    return NULL;
}

static void test_nmi(void **state)
{
    struct fixture *f = *state;
    u32 vector = 0x3000;
    pthread_t thread;

    memcpy(f->ram.hva + 8, &vector, 4);
    memcpy(f->ram.hva + 0x3000, "\xb0\x77\xcf", 3); /* mov al, 77h; iret */
    PLACE(f, "\xfa\xf4\xe6\xf4", true);             /* cli; hlt: an NMI comes through */
    pthread_create(&thread, NULL, nmi_later, f);
    expect_end(f);
    pthread_join(thread, NULL);
    assert_int_equal(regs_of(f).rax & 0xff, 0x77);
}

/* Two that come before the vCPU runs are the one it takes and the one that waits behind it; a third
 * is lost. While one is handled only one waits. */
static void test_nmis_in_a_row(void **state)
{
    struct fixture *f = *state;
    struct kvm_vcpu_events events;
    u32 vector = 0x3000;

    memcpy(f->ram.hva + 8, &vector, 4);
    memcpy(f->ram.hva + 0x3000, "\xfe\xc0\xe6\x99\xcf", 5); /* inc al; out 99h, al; iret */
    PLACE(f, "\x90\xe6\xf4", true);
    for (unsigned i = 0; i < 3; i++)
        f->ops->nmi(f->vcpu[0]);
    f->ops->get_vcpu_events(f->vcpu[0], &events);
    assert_int_equal(events.nmi.pending, 2);
    assert_int_equal(run(f, KVM_EXIT_IO)->io.port, 0x99); /* in the first one's handler */
    for (unsigned i = 0; i < 3; i++)
        f->ops->nmi(f->vcpu[0]);
    assert_int_equal(run(f, KVM_EXIT_IO)->io.port, 0x99);
    expect_end(f);
    assert_int_equal(regs_of(f).rax & 0xff, 2);
}

/* INIT and SIPI by the local APIC's registers; vCPU 1 starts at 04000h in a thread. */
static void *run_second(void *opaque)
{
    struct fixture *f = opaque;

    assert_int_equal(f->ops->vcpu_run(f->vcpu[1]), 0);
    assert_int_equal(f->vcpu[1]->run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(f->vcpu[1]->run->io.port, 0x99);
    return NULL;
}

static void test_startup_ipi(void **state)
{
    struct fixture *f = *state;
    struct kvm_sregs sregs;
    struct kvm_regs regs;
    pthread_t thread;

    memcpy(f->ram.hva + 0x4000, "\x8c\xc8\xe6\x99", 4); /* mov ax, cs; out 99h, al */
    PLACE(f,
          "\xbb\x00\x00\xe0\xfe"                     /* ebx = APIC */
          "\xc7\x83\x10\x03\x00\x00\x00\x00\x00\x01" /* ICR2 = id 1 */
          "\xc7\x83\x00\x03\x00\x00\x00\x45\x00\x00" /* INIT */
          "\xc7\x83\x00\x03\x00\x00\x04\x46\x00\x00" /* SIPI 04h */
          "\xe6\xf4",
          false);
    pthread_create(&thread, NULL, run_second, f);
    expect_end(f);
    pthread_join(thread, NULL);
    f->ops->get_sregs(f->vcpu[1], &sregs);
    assert_int_equal(sregs.cs.selector, 0x400);
    assert_int_equal(sregs.cs.base, 0x4000);
    f->ops->get_regs(f->vcpu[1], &regs);
    assert_int_equal(regs.rax & 0xffff, 0x400);
}

/* Of a SIPI, an INIT and a SIPI that find a CPU too busy to look, the second SIPI starts it; with
 * the INIT last, nothing does. */
static void test_sipi_before_init(void **state)
{
    struct fixture *f = *state;
    struct kvm_sregs sregs;
    struct kvm_mp_state mp;
    pthread_t thread;

    memcpy(f->ram.hva + 0x4000, "\xe6\x99", 2);
    memcpy(f->ram.hva + 0x5000, "\xe6\x98", 2);
    PLACE(f,
          "\xbb\x00\x00\xe0\xfe"                     /* ebx = APIC */
          "\xc7\x83\x10\x03\x00\x00\x00\x00\x00\x01" /* ICR2 = id 1 */
          "\xc7\x83\x00\x03\x00\x00\x05\x46\x00\x00" /* SIPI 05h */
          "\xc7\x83\x00\x03\x00\x00\x00\x45\x00\x00" /* INIT */
          "\xe6\xf4"
          "\xc7\x83\x00\x03\x00\x00\x04\x46\x00\x00" /* SIPI 04h */
          "\xc7\x83\x00\x03\x00\x00\x05\x46\x00\x00" /* SIPI 05h, which comes too late */
          "\xe6\xf4",
          false);
    mp.mp_state = KVM_MP_STATE_RUNNABLE;
    assert_int_equal(f->ops->set_mp_state(f->vcpu[1], &mp), 0);
    expect_end(f);
    pthread_create(&thread, NULL, run_second, f);
    usleep(10000);
    expect_end(f);
    pthread_join(thread, NULL);
    f->ops->get_sregs(f->vcpu[1], &sregs);
    assert_int_equal(sregs.cs.selector, 0x400);
}

/* The hypercall for IPIs by bitmap (KVM_HC_SEND_IPI): of the ids 0 and 1 only CPU 0 has its APIC
 * on, and ids beyond those of CPUs are nobody's, not everybody's. */
static void test_ipi_hypercall(void **state)
{
    struct fixture *f = *state;

    PLACE(f,
          "\xbf\x00\x00\xe0\xfe"                     /* edi = APIC */
          "\xc7\x87\xf0\x00\x00\x00\xff\x01\x00\x00" /* on */
          "\xb8\x0a\x00\x00\x00\xbb\x03\x00\x00\x00" /* eax = 10, ebx = ids 0 and 1 */
          "\x31\xc9\x31\xd2\xbe\x50\x00\x00\x00"     /* ecx = edx = 0, vector 50h */
          "\x0f\x01\xc1\xe6\xf4"
          "\xb8\x0a\x00\x00\x00\xba\xff\xff\xff\xff" /* from id FFFFFFFFh on */
          "\xbe\x51\x00\x00\x00\x0f\x01\xc1"
          "\x8b\x8f\x20\x02\x00\x00\xe6\xf4", /* ecx = IRR of vectors 40h to 5Fh */
          false);
    expect_end(f);
    assert_int_equal(regs_of(f).rax, 1);
    expect_end(f);
    assert_int_equal(regs_of(f).rax, 0);
    assert_int_equal(regs_of(f).rcx, 0x10000);
}

static void test_triple_fault(void **state)
{
    struct fixture *f = *state;
    struct kvm_sregs sregs;

    PLACE(f, "\x0f\x0b", false); /* ud2 */
    f->ops->get_sregs(f->vcpu[0], &sregs);
    sregs.idt.limit = 0;
    assert_int_equal(f->ops->set_sregs(f->vcpu[0], &sregs), 0);
    run(f, KVM_EXIT_SHUTDOWN);
}

static void test_msrs(void **state)
{
    struct fixture *f = *state;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry[4];
    } msrs = {{.nmsrs = 4},
              {{.index = 0x1b}, {.index = 0x10}, {.index = 0x123456}, {.index = 0x277}}};

    assert_int_equal(f->ops->get_msrs(f->vcpu[0], &msrs.head), 2); /* up to the unknown one */
    assert_int_equal(msrs.entry[0].data, 0xfee00900);
    msrs.entry[2].index = 0xc0000082;
    assert_int_equal(f->ops->get_msrs(f->vcpu[0], &msrs.head), 4);
    assert_int_equal(msrs.entry[3].data, 0x0007040600070406);
    msrs.entry[3].data = 2; /* a memory type that does not exist */
    msrs.entry[2].data = 0xffffffff81000000;
    assert_int_equal(f->ops->set_msrs(f->vcpu[0], &msrs.head), 3);
    /* An unknown MSR is #GP in the guest, vector 13 through the IVT. */
    memcpy(f->ram.hva + 4 * 13, "\x00\x30\x00\x00", 4);
    memcpy(f->ram.hva + 0x3000, "\xe6\xf4", 2);
    PLACE(f, "\x66\xb9\x56\x34\x12\x00\x0f\x32", true); /* rdmsr */
    expect_end(f);
}

static void test_state_round_trips(void **state)
{
    struct fixture *f = *state;
    struct kvm_vcpu_events events, events2;
    struct kvm_debugregs debug = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff0, .dr7 = 0x400}, debug2;
    struct kvm_lapic_state lapic, lapic2;
    struct kvm_sregs sregs, sregs2;
    struct kvm_xsave xsave, xsave2;
    struct kvm_fpu fpu, fpu2;

    memset(&fpu, 0, sizeof fpu);
    for (size_t i = 0; i < sizeof fpu.xmm; i++)
        ((u8 *)fpu.xmm)[i] = (u8)(i * 7);
    for (unsigned i = 0; i < 8; i++)
        memset(fpu.fpr[i], (int)i + 1, 10);
    fpu.fcw = 0x37f;
    fpu.ftwx = 0xff;
    fpu.mxcsr = 0x1f80;
    assert_int_equal(f->ops->set_fpu(f->vcpu[0], &fpu), 0);
    assert_int_equal(f->ops->get_fpu(f->vcpu[0], &fpu2), 0);
    assert_memory_equal(&fpu, &fpu2, sizeof fpu);
    assert_int_equal(f->ops->get_xsave(f->vcpu[0], &xsave), 0);
    assert_memory_equal((u8 *)xsave.region + 160, fpu.xmm, sizeof fpu.xmm);
    assert_int_equal(f->ops->set_xsave(f->vcpu[1], &xsave), 0);
    assert_int_equal(f->ops->get_xsave(f->vcpu[1], &xsave2), 0);
    assert_memory_equal(&xsave, &xsave2, sizeof xsave.region);
    assert_int_equal(f->ops->set_debugregs(f->vcpu[0], &debug), 0);
    assert_int_equal(f->ops->get_debugregs(f->vcpu[0], &debug2), 0);
    assert_memory_equal(&debug, &debug2, sizeof debug);
    assert_int_equal(f->ops->get_sregs(f->vcpu[0], &sregs), 0);
    sregs.cr8 = 5;
    sregs.cr2 = 0x1234567890;
    assert_int_equal(f->ops->set_sregs(f->vcpu[0], &sregs), 0);
    assert_int_equal(f->ops->get_sregs(f->vcpu[0], &sregs2), 0);
    assert_memory_equal(&sregs, &sregs2, sizeof sregs);
    sregs.cr0 |= 1u << 31; /* paging without protection */
    sregs.cr0 &= ~1ull;
    assert_int_equal(f->ops->set_sregs(f->vcpu[0], &sregs), -EINVAL);
    sregs.cr0 = sregs2.cr0;
    sregs.cr4 = 1ull << 40;
    assert_int_equal(f->ops->set_sregs(f->vcpu[0], &sregs), -EINVAL);
    assert_int_equal(f->ops->get_lapic(f->vcpu[0], &lapic), 0);
    assert_int_equal(f->ops->set_lapic(f->vcpu[0], &lapic), 0);
    assert_int_equal(f->ops->get_lapic(f->vcpu[0], &lapic2), 0);
    assert_memory_equal(&lapic, &lapic2, sizeof lapic);
    assert_int_equal(f->ops->get_vcpu_events(f->vcpu[0], &events), 0);
    events.exception.injected = 1;
    events.exception.nr = 13;
    events.exception.has_error_code = 1;
    events.exception.error_code = 0x10;
    events.nmi.pending = 1;
    events.nmi.masked = 1;
    events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
    assert_int_equal(f->ops->set_vcpu_events(f->vcpu[0], &events), 0);
    assert_int_equal(f->ops->get_vcpu_events(f->vcpu[0], &events2), 0);
    assert_memory_equal(&events, &events2, sizeof events);
}

static void test_single_step(void **state)
{
    struct fixture *f = *state;
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    struct kvm_run *record;

    PLACE(f, "\x40\x40\x40\xe6\xf4", false); /* inc eax, three times */
    assert_int_equal(f->ops->set_guest_debug(f->vcpu[0], &debug), 0);
    for (u64 i = 1; i <= 3; i++) {
        record = run(f, KVM_EXIT_DEBUG);
        assert_int_equal(record->debug.arch.pc, CODE + i);
        assert_int_equal(regs_of(f).rax, i);
    }
    debug.control = 0;
    assert_int_equal(f->ops->set_guest_debug(f->vcpu[0], &debug), 0);
    expect_end(f);
}

static void test_breakpoints(void **state)
{
    struct fixture *f = *state;
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP |
                                               KVM_GUESTDBG_USE_SW_BP};
    struct kvm_run *record;

    PLACE(f, "\x40\x40\x40\xcc\xe6\xf4", false);
    debug.arch.debugreg[0] = CODE + 2;
    debug.arch.debugreg[7] = 1;
    assert_int_equal(f->ops->set_guest_debug(f->vcpu[0], &debug), 0);
    record = run(f, KVM_EXIT_DEBUG);
    assert_int_equal(record->debug.arch.pc, CODE + 2);
    debug.arch.debugreg[7] = 0; /* the instruction has not run: it would be met again */
    assert_int_equal(f->ops->set_guest_debug(f->vcpu[0], &debug), 0);
    record = run(f, KVM_EXIT_DEBUG);
    assert_int_equal(record->debug.arch.exception, 3);
    assert_int_equal(record->debug.arch.pc, CODE + 3);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, setup, teardown),                                        \
    {                                                                                              \
#name " interpreted", name, setup_interpreter, teardown, NULL                              \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_power_on),
        TEST(test_io),
        TEST(test_string_io),
        TEST(test_string_io_backwards),
        TEST(test_mmio),
        TEST(test_kick_in_replay),
        TEST(test_kick_before_run_and_while_spinning),
        TEST(test_kick_from_thread),
        TEST(test_halt_and_pic),
        TEST(test_nmi),
        TEST(test_nmis_in_a_row),
        TEST(test_startup_ipi),
        TEST(test_sipi_before_init),
        TEST(test_ipi_hypercall),
        TEST(test_triple_fault),
        TEST(test_msrs),
        TEST(test_state_round_trips),
        TEST(test_single_step),
        TEST(test_breakpoints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
