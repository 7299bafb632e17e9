/*
 * `triode probe`. A /dev/kvm is no proof of virtualization: on some cloud hosts it is a device that
 * emulates, runs a thousand times slower than a CPU and fails on real kernels. So the engine has to
 * run a guest here, and its speed is compared with the host CPU's on the same code.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/bits.h"
#include "base/clock.h"
#include "base/thread.h"
#include "cli/probe.h"
#include "cli/probe_guest.h"

/* The guest's memory. */
#define RAM_BYTES (256 * KiB)
#define PML4_GPA 0x1000
#define PDPT_GPA 0x2000
#define PD_GPA 0x3000 /* four of them, one a GiB */
#define GDT_GPA 0x7000
#define IDT_GPA 0x8000
#define CODE_GPA 0x10000
#define STACK_GPA 0x20000

#define TIME_LIMIT_NS (5 * NSEC_PER_SEC)
#define KICK_GRACE_NS (1 * NSEC_PER_SEC)
#define LOOP_NS 4000000ull /* CPU time that makes a speed trustworthy */
#define FIRST_ROUNDS 2000u /* about 10 ms even where everything is emulated */
#define MAX_ROUNDS 100000000u
#define CPUID_ROOM 256

/* A CPU that virtualizes runs the loop at the host's speed; 1/4 leaves room for a busy host. */
#define PLAUSIBLE_SHARE 4

/* In probe_guest.S. */
extern const u8 probe_guest[];
extern const struct {
    u32 bytes;
    u32 page_fault, timer; /* offsets of the handlers */
} probe_guest_layout;
u64 probe_count_native(u64 rounds);

static const char *const step_names[] = {
    "port I/O",
    [PROBE_COUNTED] = "a counting loop",
    [PROBE_CPUID] = "CPUID",
    [PROBE_PAGE_FAULT] = "a page fault with a handler",
    [PROBE_SYSCALL] = "SYSCALL",
    [PROBE_SSE] = "SSE instructions",
    [PROBE_MMIO_DONE] = "MMIO",
    [PROBE_TIMER] = "a timer interrupt out of HLT",
    [PROBE_END] = "its end",
};

struct probe {
    const struct engine_ops *ops;
    struct engine *engine;
    struct mem *mem;
    struct mem_ram ram;
    struct vm *vm;
    struct vcpu *vcpu;

    int steps;         /* of step_names, done */
    u32 rounds;        /* of the loop under way */
    u64 loop_start_ns; /* CPU time */
    double mips;
    bool ended;
    char failure[384]; /* a sentence's end, empty when all went well */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool thread_done;
};

static double native_mips(void)
{
    double best = 0;

    for (u32 rounds = FIRST_ROUNDS; rounds <= MAX_ROUNDS; rounds *= 8) {
        u64 start = clock_thread_ns(), spent;

        probe_count_native(rounds);
        spent = clock_thread_ns() - start;
        if (spent)
            best = (double)rounds * PROBE_LOOP_INSNS * 1e3 / spent;
        if (spent >= LOOP_NS)
            break;
    }
    return best;
}

static void put_gate(u8 *ram, unsigned vector, u32 handler)
{
    u64 rip = CODE_GPA + handler;
    u32 gate[4] = {
        PROBE_CODE_SELECTOR << 16 | (rip & 0xffff),
        (rip & 0xffff0000) | 0x8e00, /* present, 64-bit interrupt gate */
        rip >> 32,
    };

    memcpy(ram + IDT_GPA + vector * sizeof gate, gate, sizeof gate);
}

static void fill_ram(u8 *ram)
{
    static const u64 gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    u64 *pml4 = (u64 *)(ram + PML4_GPA), *pdpt = (u64 *)(ram + PDPT_GPA);
    u64 *pd = (u64 *)(ram + PD_GPA);

    pml4[0] = PDPT_GPA | 3;
    for (u64 i = 0; i < 4; i++)
        pdpt[i] = (PD_GPA + i * MEM_PAGE_SIZE) | 3;
    for (u64 i = 0; i < 4 * 512; i++)
        pd[i] = i << 21 | 0x83; /* 2 MiB pages */
    memcpy(ram + GDT_GPA, gdt, sizeof gdt);
    put_gate(ram, 14, probe_guest_layout.page_fault);
    put_gate(ram, PROBE_TIMER_VECTOR, probe_guest_layout.timer);
    memcpy(ram + CODE_GPA, probe_guest, probe_guest_layout.bytes);
}

static int enter_long_mode(struct probe *probe)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2};
    struct kvm_sregs sregs;
    int ret;

    ret = probe->ops->get_sregs(probe->vcpu, &sregs);
    if (ret)
        return ret;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt = (struct kvm_dtable){.base = GDT_GPA, .limit = 23};
    sregs.idt = (struct kvm_dtable){.base = IDT_GPA, .limit = 0xfff};
    sregs.cr0 = 0x80000011 | (sregs.cr0 & 0x60000000); /* PG, ET, PE */
    sregs.cr3 = PML4_GPA;
    sregs.cr4 = BIT(5);            /* PAE */
    sregs.efer = BIT(8) | BIT(10); /* LME, LMA */
    ret = probe->ops->set_sregs(probe->vcpu, &sregs);
    return ret ? ret : probe->ops->set_regs(probe->vcpu, &regs);
}

static int copy_cpuid(struct probe *probe)
{
    struct kvm_cpuid2 *cpuid;
    int ret;

    cpuid = calloc(1, sizeof *cpuid + CPUID_ROOM * sizeof cpuid->entries[0]);
    if (!cpuid)
        return -ENOMEM;
    cpuid->nent = CPUID_ROOM;
    ret = probe->ops->get_supported_cpuid(probe->engine, cpuid);
    if (!ret)
        ret = probe->ops->set_cpuid(probe->vcpu, cpuid);
    free(cpuid);
    return ret;
}

static int set_up(struct probe *probe, struct err *err)
{
    struct kvm_userspace_memory_region region = {.memory_size = RAM_BYTES};
    struct engine_vm_config config = {
        .topology = {.cpus = 1, .sockets = 1, .cores = 1, .threads = 1},
        .cpu_model = "x86-64-v2",
        .jit = true,
    };
    int ret;

    ret = probe->ops->open(&probe->engine, err);
    if (ret)
        return ret;
    probe->mem = mem_create();
    if (!probe->mem)
        return err_set(err, -ENOMEM, "out of memory");
    ret = mem_ram_alloc(&probe->ram, RAM_BYTES, err);
    if (ret)
        return ret;
    fill_ram(probe->ram.hva);
    config.mem = probe->mem;
    ret = probe->ops->vm_create(probe->engine, &config, &probe->vm, err);
    if (ret)
        return ret;
    region.userspace_addr = (uintptr_t)probe->ram.hva;
    ret = probe->ops->set_memory(probe->vm, &region);
    if (ret)
        return err_set(err, ret, "the guest's memory is refused: %s", strerror(-ret));
    ret = probe->ops->vcpu_create(probe->vm, 0, 0, &probe->vcpu, err);
    if (ret)
        return ret;
    ret = copy_cpuid(probe);
    if (ret)
        return err_set(err, ret, "its own CPUID tables are refused: %s", strerror(-ret));
    ret = enter_long_mode(probe);
    if (ret)
        return err_set(err, ret, "registers for 64-bit mode are refused: %s", strerror(-ret));
    return 0;
}

static void tear_down(struct probe *probe)
{
    if (probe->vcpu)
        probe->ops->vcpu_destroy(probe->vcpu);
    if (probe->vm)
        probe->ops->vm_destroy(probe->vm);
    mem_ram_free(&probe->ram);
    if (probe->mem)
        mem_destroy(probe->mem);
    if (probe->engine)
        probe->ops->close(probe->engine);
    free(probe);
}

/* The loop has run; is it enough? Else the next one is eight times as long. */
static void loop_ended(struct probe *probe)
{
    u64 spent = clock_thread_ns() - probe->loop_start_ns;

    if (spent)
        probe->mips = (double)probe->rounds * PROBE_LOOP_INSNS * 1e3 / spent;
    probe->rounds = spent >= LOOP_NS || probe->rounds > MAX_ROUNDS / 8 ? 0 : probe->rounds * 8;
}

/* False: the guest is done or did something that it should not have. */
static bool handle_io(struct probe *probe)
{
    struct kvm_run *run = probe->vcpu->run;
    u32 *data = (u32 *)((u8 *)run + run->io.data_offset);

    if (run->io.size != 4 || run->io.count != 1)
        return false;
    if (run->io.direction == KVM_EXIT_IO_IN) {
        *data = run->io.port == PROBE_PORT_ECHO ? PROBE_MAGIC : probe->rounds;
        probe->loop_start_ns = clock_thread_ns();
        return true;
    }
    if (probe->steps == 0) { /* the first word is the echo */
        probe->steps = 1;
        return *data == (u32)~PROBE_MAGIC;
    }
    if (*data == PROBE_COUNTED)
        loop_ended(probe);
    if (*data == PROBE_COUNTED && probe->steps > PROBE_COUNTED)
        return true;
    if (*data != (u32)probe->steps)
        return false;
    probe->steps++;
    probe->ended = *data == PROBE_END;
    return !probe->ended;
}

static bool handle_mmio(struct probe *probe)
{
    struct kvm_run *run = probe->vcpu->run;
    u32 value = PROBE_MAGIC;

    if (run->mmio.len != 4)
        return false;
    if (!run->mmio.is_write) {
        memcpy(run->mmio.data, &value, sizeof value);
        return run->mmio.phys_addr == PROBE_MMIO;
    }
    memcpy(&value, run->mmio.data, sizeof value);
    return run->mmio.phys_addr == PROBE_MMIO + 4 && value == PROBE_MAGIC + 1;
}

static void describe_bad_exit(struct probe *probe, int ret)
{
    u32 reason = probe->vcpu->run->exit_reason;
    const char *name = engine_exit_name(reason);
    struct err why = {""};

    if (ret == -EINTR) {
        snprintf(probe->failure, sizeof probe->failure, "it does not come to an end");
        return;
    }
    if (reason == KVM_EXIT_IO || reason == KVM_EXIT_MMIO || reason == KVM_EXIT_SHUTDOWN) {
        snprintf(probe->failure, sizeof probe->failure, "%s", name);
        return;
    }
    if (probe->ops->explain)
        probe->ops->explain(probe->vcpu, &why);
    snprintf(probe->failure, sizeof probe->failure, "%.360s", why.text);
}

static void *probe_thread(void *opaque)
{
    struct probe *probe = opaque;
    bool go_on;
    int ret;

    do {
        go_on = false;
        ret = probe->ops->vcpu_run(probe->vcpu);
        if (ret)
            break;
        if (probe->vcpu->run->exit_reason == KVM_EXIT_IO)
            go_on = handle_io(probe);
        else if (probe->vcpu->run->exit_reason == KVM_EXIT_MMIO)
            go_on = handle_mmio(probe);
    } while (go_on);
    if (!probe->ended)
        describe_bad_exit(probe, ret);
    mutex_lock(&probe->lock);
    probe->thread_done = true;
    pthread_cond_signal(&probe->changed);
    mutex_unlock(&probe->lock);
    return NULL;
}

static bool wait_done(struct probe *probe, u64 limit_ns)
{
    u64 deadline = clock_mono_ns() + limit_ns;
    bool in_time = true;

    mutex_lock(&probe->lock);
    while (!probe->thread_done && in_time)
        in_time = cond_wait_until(&probe->changed, &probe->lock, deadline);
    in_time = probe->thread_done;
    mutex_unlock(&probe->lock);
    return in_time;
}

static void judge(const struct probe *probe, struct probe_result *out)
{
    bool kernel = probe->ops == &kvm_engine_ops;

    out->mips = probe->mips;
    if (kernel)
        out->native_mips = native_mips();
    out->emulated = kernel && out->mips > 0 && out->mips * PLAUSIBLE_SHARE < out->native_mips;
    out->usable = probe->ended && !out->emulated;
    if (out->emulated)
        snprintf(out->reason, sizeof out->reason,
                 "/dev/kvm emulates rather than virtualizes: %.0f MIPS against %.0f native%s%s",
                 out->mips, out->native_mips, probe->ended ? "" : ", and fails at ",
                 probe->ended ? "" : step_names[probe->steps]);
    else if (!probe->ended)
        snprintf(out->reason, sizeof out->reason, "a small guest fails at %s: %.400s",
                 step_names[probe->steps], probe->failure);
    else if (kernel)
        snprintf(out->reason, sizeof out->reason,
                 "a small guest ran to its end at %.0f %% of the host CPU's speed",
                 100 * out->mips / out->native_mips);
    else
        snprintf(out->reason, sizeof out->reason, "a small guest ran to its end");
}

int probe_engine(const struct engine_ops *ops, struct probe_result *out)
{
    struct probe *probe;
    struct err err = {""};
    pthread_t thread;
    int ret;

    memset(out, 0, sizeof *out);
    probe = calloc(1, sizeof *probe);
    if (!probe)
        return -ENOMEM;
    probe->ops = ops;
    probe->ram.fd = -1;
    probe->rounds = FIRST_ROUNDS;
    mutex_init(&probe->lock);
    cond_init(&probe->changed);
    ret = set_up(probe, &err);
    if (!ret)
        ret = thread_create(&thread, "probe", probe_thread, probe, &err);
    if (ret) {
        snprintf(out->reason, sizeof out->reason, "%s", err.text);
        tear_down(probe);
        return ret == -ENOMEM ? ret : 0;
    }
    if (!wait_done(probe, TIME_LIMIT_NS)) {
        ops->kick(probe->vcpu);
        if (!wait_done(probe, KICK_GRACE_NS)) {
            /* The thread is lost inside the engine and still uses everything: leave it all. */
            pthread_detach(thread);
            snprintf(out->reason, sizeof out->reason,
                     "a small guest hangs at %s and does not react to a kick",
                     step_names[probe->steps]);
            return 0;
        }
    }
    pthread_join(thread, NULL);
    judge(probe, out);
    tear_down(probe);
    return 0;
}

int cli_cmd_probe(int argc, char **argv)
{
    static const struct engine_ops *const engines[] = {&kvm_engine_ops, &soft_engine_ops};
    struct probe_result result;
    bool any = false;

    (void)argc, (void)argv;
    for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
        if (probe_engine(engines[i], &result)) {
            fprintf(stderr, "triode: out of memory\n");
            return 1;
        }
        any |= result.usable;
        printf("%-5s %-4s", engines[i]->name, result.usable ? "yes" : "no");
        if (result.mips > 0)
            printf("%7.0f MIPS", result.mips);
        else
            printf("%12s", "");
        printf("  %s\n", result.reason);
    }
    return any ? 0 : 1;
}
