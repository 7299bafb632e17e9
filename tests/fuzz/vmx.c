/*
 * VMCS and EPT contents: a small hypervisor in the guest (vmx_guest.S) runs on the soft engine;
 * what it writes into its VMCS, its EPT entries and its guest's code come from the input. Any end
 * but Triode's own trouble is fine: failed entries, triple faults, a loop that has to be kicked.
 * Input: records of an operation byte and its operands; then the inner guest's code.
 */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/thread.h"
#include "engine/engine.h"
#include "fuzz.h"
#include "vmx/vmx.h"

#define RAM (2 * MiB)
#define LIST_MAX 512

/* The guest's memory map; CODE, LIST and HANDLER agree with vmx_guest.S. */
enum {
    GDT = 0x1000,
    CODE = 0x2000,
    VMXON_PAGE = 0x4000,
    VMCS_PAGE = 0x5000,
    LIST = 0x6000,
    INNER_CODE = 0x9000,
    STACK = 0xb000,
    INNER_STACK = 0xc000,
    AREAS = 0xd000, /* bitmaps, MSR areas and the like: three pages */
    TABLES = 0x10000,
    EPT = 0x20000,
};

extern const u8 vmx_guest[], vmx_guest_end[];
extern const u8 vmx_guest_handler[];

static struct {
    struct engine *engine;
    struct vm *vm;
    struct mem *mem;
    struct mem_ram ram;
    struct vcpu *vcpu;
    pthread_mutex_t lock;
    u64 started_ns; /* of the run under way; 0: none */
} m = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct entry {
    u64 encoding, value;
};

/* Kicks what runs for longer than some milliseconds. */
static void *watch(void *opaque)
{
    (void)opaque;
    for (;;) {
        usleep(2000);
        pthread_mutex_lock(&m.lock);
        if (m.started_ns)
            m.vcpu->ops->kick(m.vcpu);
        pthread_mutex_unlock(&m.lock);
    }
    return NULL;
}

static void make_machine(void)
{
    struct engine_vm_config config = {.topology = {1, 1, 1, 1},
                                      .cpu_model = "max",
                                      .jit = true,
                                      .code_cache_bytes = 16 * MiB,
                                      .pit = true};
    struct kvm_userspace_memory_region region = {.memory_size = RAM};
    pthread_t thread;
    struct err err;

    m.mem = mem_create();
    MUST(m.mem && !mem_ram_alloc(&m.ram, RAM, &err));
    config.mem = m.mem;
    MUST(!soft_engine_ops.open(&m.engine, &err));
    MUST(!soft_engine_ops.vm_create(m.engine, &config, &m.vm, &err));
    region.userspace_addr = (uintptr_t)m.ram.hva;
    MUST(!soft_engine_ops.set_memory(m.vm, &region));
    MUST(!thread_create(&thread, "watch", watch, NULL, NULL));
    pthread_detach(thread);
}

static void fill_memory(void)
{
    static const u64 gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067, 0};
    u8 *ram = m.ram.hva;
    u64 *tables = (u64 *)(ram + TABLES), *ept = (u64 *)(ram + EPT);

    memset(ram, 0, 0x30000);
    memcpy(ram + GDT, gdt, sizeof gdt);
    memcpy(ram + CODE, vmx_guest, (size_t)(vmx_guest_end - vmx_guest));
    tables[0] = (TABLES + 0x1000) | 7;
    tables[512] = (TABLES + 0x2000) | 7;
    ept[0] = (EPT + 0x1000) | 7;
    ept[512] = (EPT + 0x2000) | 7;
    for (u64 i = 0; i < 512; i++) {
        tables[1024 + i] = i << 21 | 0x87;
        ept[1024 + i] = i << 21 | 0xb7; /* write-back, 2 MiB */
    }
}

static void put(struct vmcs *v, u32 encoding, u64 value)
{
    vmx_field_set(v, vmx_field_find(encoding), value);
}

static void base_segments(struct vmcs *v)
{
    for (u32 i = 0; i < 6; i++) { /* ES CS SS DS FS GS */
        put(v, 0x800 + 2 * i, i == 1 ? 8 : 16);
        put(v, 0x4800 + 2 * i, 0xffffffff);
        put(v, 0x4814 + 2 * i, i == 1 ? 0xa09b : 0xc093);
        put(v, 0xc00 + 2 * i, i == 1 ? 8 : 16);
    }
    put(v, 0x4820, 0x10000); /* LDTR: unusable */
    put(v, 0x80e, 24);
    put(v, 0x480e, 0x67);
    put(v, 0x4822, 0x8b); /* TR */
    put(v, 0xc0c, 24);
    put(v, 0x6816, GDT);
    put(v, 0x4810, 39);
    put(v, 0x6c0c, GDT);
}

/* A VMCS whose entry succeeds: a 64-bit guest with EPT. */
static void base_vmcs(struct vmcs *v)
{
    memset(v, 0, sizeof *v);
    put(v, 0x4000, vmx_allowed0(VMX_PIN));
    put(v, 0x4002,
        vmx_allowed0(VMX_PROC) | (u32)VMX_C_activate_secondary_controls | (u32)VMX_C_hlt_exiting |
            (u32)VMX_C_unconditional_io_exiting);
    put(v, 0x401e, vmx_allowed0(VMX_PROC2) | (u32)VMX_C_enable_ept);
    put(v, 0x400c,
        vmx_allowed0(VMX_EXIT) | (u32)VMX_C_exit_host_address_space_size |
            (u32)VMX_C_exit_save_efer | (u32)VMX_C_exit_load_efer);
    put(v, 0x4012,
        vmx_allowed0(VMX_ENTRY) | (u32)VMX_C_entry_ia32e_mode_guest | (u32)VMX_C_entry_load_efer);
    put(v, 0x201a, EPT | 6 | 3 << 3);
    put(v, 0x2800, ~0ull);
    put(v, 0x2806, 0x500);
    put(v, 0x2c02, 0x500);
    put(v, 0x6800, 0x80000031);
    put(v, 0x6802, TABLES);
    put(v, 0x6804, 0x2020);
    put(v, 0x6c00, 0x80000031);
    put(v, 0x6c02, TABLES);
    put(v, 0x6c04, 0x2020);
    put(v, 0x681a, 0x400);
    put(v, 0x681c, INNER_STACK);
    put(v, 0x681e, INNER_CODE);
    put(v, 0x6820, 2);
    put(v, 0x6c14, STACK);
    put(v, 0x6c16, CODE + (u64)(vmx_guest_handler - vmx_guest));
    base_segments(v);
}

static u64 operand(struct fuzz_input *in, u64 old)
{
    u8 kind = (u8)fuzz_take(in, 1);

    switch (kind & 3) {
    case 0:
        return old ^ BIT(kind >> 2);
    case 1:
        return AREAS + (kind >> 2) * 0x100ull;
    case 2:
        return fuzz_take(in, 2);
    default:
        return fuzz_take(in, 8);
    }
}

/* Reads the records: changes of the first VMCS, VMWRITEs between entries, EPT and area contents. */
static void prepare(struct fuzz_input *in)
{
    struct entry *list = (struct entry *)(m.ram.hva + LIST);
    unsigned later = 0;
    struct vmcs v;
    u64 value;

    base_vmcs(&v);
    for (unsigned records = 0; records < 64 && in->left; records++) {
        u8 op = (u8)fuzz_take(in, 1);
        const struct vmx_field *f = &vmx_fields[fuzz_take(in, 1) % vmx_nfields];
        unsigned at = (op >> 2) * 8;

        if (op == 0xff)
            break;
        switch (op & 3) {
        case 0:
        case 1:
            vmx_field_set(&v, f, operand(in, vmx_field_get(&v, f)));
            break;
        case 2:
            value = operand(in, vmx_field_get(&v, f));
            if (later < LIST_MAX - vmx_nfields - 2)
                list[vmx_nfields + later++] = (struct entry){f->encoding, value};
            break;
        default:
            value = fuzz_take(in, 1);
            at += (value & 3) * 0x1000 + (value >> 7) * 8 * 1024;
            value = fuzz_take(in, 8);
            memcpy(m.ram.hva + (op & 4 ? EPT : AREAS) + at, &value, 8);
        }
    }
    for (unsigned i = 0; i < vmx_nfields; i++)
        list[i] = (struct entry){vmx_fields[i].encoding, vmx_field_get(&v, &vmx_fields[i])};
    /* The guest takes the first as many; later ones follow one an exit, again from the start. */
    list[vmx_nfields + later].encoding = ~0ull;
}

static void enter(void)
{
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = 2, .rcx = vmx_nfields, .rdx = 24};
    struct kvm_segment code = {
        .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs sregs;

    MUST(!m.vcpu->ops->get_sregs(m.vcpu, &sregs));
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt = (struct kvm_dtable){.base = GDT, .limit = 39};
    sregs.cr0 = 0x80000031;
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x2020;
    sregs.efer = 0x500;
    MUST(!m.vcpu->ops->set_sregs(m.vcpu, &sregs));
    MUST(!m.vcpu->ops->set_regs(m.vcpu, &regs));
}

static void set_started(u64 ns)
{
    pthread_mutex_lock(&m.lock);
    m.started_ns = ns;
    pthread_mutex_unlock(&m.lock);
}

/* MMIO and ports answer with ones. */
static bool goes_on(struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_IO) {
        if (run->io.port == 0xf4)
            return false;
        if (run->io.direction == KVM_EXIT_IO_IN)
            memset((u8 *)run + run->io.data_offset, 0xff, (size_t)run->io.size * run->io.count);
        return true;
    }
    if (run->exit_reason == KVM_EXIT_MMIO) {
        memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        return true;
    }
    MUST(run->exit_reason == KVM_EXIT_SHUTDOWN || run->exit_reason == KVM_EXIT_HLT ||
         run->exit_reason == KVM_EXIT_INTERNAL_ERROR || run->exit_reason == KVM_EXIT_SYSTEM_EVENT ||
         run->exit_reason == KVM_EXIT_FAIL_ENTRY);
    return false;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct err err;
    int ret;

    if (!m.vm)
        make_machine();
    fill_memory();
    prepare(&in);
    fuzz_bytes(&in, m.ram.hva + INNER_CODE, 256);
    mem_wrote(m.mem, 0, RAM);
    MUST(!m.vm->ops->vcpu_create(m.vm, 0, 0, &m.vcpu, &err));
    enter();
    set_started(1);
    for (unsigned i = 0; i < 256; i++) {
        ret = m.vcpu->ops->vcpu_run(m.vcpu);
        MUST(!ret || ret == -EINTR);
        if (ret || !goes_on(m.vcpu->run))
            break;
    }
    set_started(0);
    m.vcpu->ops->vcpu_destroy(m.vcpu);
    return 0;
}
