/* Exits, kicks, memory slots and debugging, driven by the host with a few bytes of guest code. */
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

#define OPS(name) (host->ops->name)
#define KICK_LIMIT_NS (2 * NSEC_PER_SEC) /* the host may be busy; without a kick it were forever */

static struct host *start(const u8 *code, size_t len, enum guest_mode mode)
{
    struct host *host = host_create(1);

    host_load(host, LOAD_GPA, code, len);
    host_enter(host, mode);
    return host;
}

static u8 *io_data(struct kvm_run *run)
{
    return (u8 *)run + run->io.data_offset;
}

static u64 get_rip(struct host *host)
{
    struct kvm_regs regs = {0};

    CHECK_EQUAL(OPS(get_regs)(host->cpu[0].vcpu, &regs), 0);
    return regs.rip;
}

void io_exit_record(void **state)
{
    static const u8 code[] = {
        0xb8, 0x78, 0x56, 0x34, 0x12, /* mov $0x12345678, %eax */
        0xba, 0x34, 0x12, 0x00, 0x00, /* mov $0x1234, %edx */
        0xee,                         /* out %al, %dx */
        0x66, 0xef,                   /* out %ax, %dx */
        0xef,                         /* out %eax, %dx */
        0xed,                         /* in %dx, %eax */
        0xe7, 0x99,                   /* out %eax, $0x99 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;
    u32 sizes[] = {1, 2, 4};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQUAL(host_run_once(host), 0);
        CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
        CHECK_EQUAL(run->io.direction, KVM_EXIT_IO_OUT);
        CHECK_EQUAL(run->io.port, 0x1234);
        CHECK_EQUAL(run->io.size, sizes[i]);
        CHECK_EQUAL(run->io.count, 1);
        CHECK(!memcmp(io_data(run), "\x78\x56\x34\x12", sizes[i]));
    }
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->io.direction, KVM_EXIT_IO_IN);
    CHECK_EQUAL(run->io.size, 4);
    memcpy(io_data(run), "\xef\xbe\xad\xde", 4);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->io.port, 0x99);
    CHECK_EQUAL(*(u32 *)io_data(run), 0xdeadbeef);
    host_destroy(host);
}

void mmio_exit_record(void **state)
{
    static const u8 code[] = {
        0xbb, 0x00, 0x00, 0x00, 0xd0, /* mov $0xd0000000, %ebx */
        0x8b, 0x43, 0x04,             /* mov 4(%rbx), %eax */
        0x48, 0x89, 0x43, 0x10,       /* mov %rax, 0x10(%rbx) */
        0x0f, 0xb6, 0x43, 0x03,       /* movzbl 3(%rbx), %eax */
        0x66, 0x89, 0x43, 0x20,       /* mov %ax, 0x20(%rbx) */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(run->mmio.phys_addr, 0xd0000004);
    CHECK_EQUAL(run->mmio.len, 4);
    CHECK_EQUAL(run->mmio.is_write, 0);
    memcpy(run->mmio.data, "\xef\xbe\xad\xde", 4);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(run->mmio.phys_addr, 0xd0000010);
    CHECK_EQUAL(run->mmio.len, 8);
    CHECK_EQUAL(run->mmio.is_write, 1);
    CHECK(!memcmp(run->mmio.data, "\xef\xbe\xad\xde\0\0\0\0", 8));
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->mmio.phys_addr, 0xd0000003);
    CHECK_EQUAL(run->mmio.len, 1);
    run->mmio.data[0] = 0xf7;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->mmio.len, 2);
    CHECK(!memcmp(run->mmio.data, "\xf7\0", 2));
    host_destroy(host);
}

/* The elements of a REP OUTS may come in several exits, but all of them, in order. */
void string_io_exit_record(void **state)
{
    static const u8 code[] = {
        0xbe, 0x00, 0x00, 0x20, 0x00, /* mov $0x200000, %esi */
        0xb9, 0x64, 0x00, 0x00, 0x00, /* mov $100, %ecx */
        0xba, 0x34, 0x12, 0x00, 0x00, /* mov $0x1234, %edx */
        0xf3, 0x66, 0x6f,             /* rep outsw */
        0xe6, 0x80,                   /* out %al, $0x80 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;
    u32 seen = 0, exits = 0;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        ((u16 *)(host->ram.hva + FREE_GPA))[i] = i * 3;
    for (;;) {
        CHECK_EQUAL(host_run_once(host), 0);
        CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
        if (run->io.port == 0x80)
            break;
        CHECK_EQUAL(run->io.port, 0x1234);
        CHECK_EQUAL(run->io.size, 2);
        CHECK(run->io.count >= 1 && seen + run->io.count <= 100);
        for (u32 i = 0; i < run->io.count; i++)
            CHECK_EQUAL(((u16 *)io_data(run))[i], (seen + i) * 3);
        seen += run->io.count;
        CHECK(++exits <= 100);
    }
    CHECK_EQUAL(seen, 100);
    host_destroy(host);
}

/* At an IN's exit the instruction is not done: a kick then completes it first. */
void unknown_exits_wait_for_completion(void **state)
{
    static const u8 code[] = {0xe4, 0x99, /* in $0x99, %al */
                              0xe6, 0x98 /* out %al, $0x98 */};
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_regs regs;

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->io.direction, KVM_EXIT_IO_IN);
    CHECK_EQUAL(get_rip(host), LOAD_GPA);
    *io_data(vcpu->run) = 0x42;
    OPS(kick)(vcpu);
    CHECK_EQUAL(OPS(vcpu_run)(vcpu), (u64)-EINTR);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_INTR);
    CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
    CHECK_EQUAL(regs.rax & 0xff, 0x42);
    CHECK_EQUAL(regs.rip, LOAD_GPA + 2);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->io.port, 0x98);
    CHECK_EQUAL(*io_data(vcpu->run), 0x42);
    host_destroy(host);
}

void dirty_log(void **state)
{
    static const u8 code[] = {
        0xbb, 0x00, 0x00, 0x30, 0x00,       /* mov $0x300000, %ebx */
        0xc6, 0x03, 0x01,                   /* movb $1, (%rbx) */
        0x8a, 0x83, 0x00, 0x30, 0,    0,    /* mov 0x3000(%rbx), %al: a read */
        0xc6, 0x83, 0x00, 0x50, 0,    0, 1, /* movb $1, 0x5000(%rbx) */
        0xe6, 0x80,                         /* out %al, $0x80 */
        0xeb, 0xe7,                         /* again */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    u64 offset = 0x300000 - 0x100000;
    u64 bitmap[(RAM_BYTES - 0x100000) / 4096 / 64];
    struct kvm_userspace_memory_region region = {
        .slot = 2,
        .flags = KVM_MEM_LOG_DIRTY_PAGES,
        .guest_phys_addr = 0x100000,
        .memory_size = RAM_BYTES - 0x100000,
        .userspace_addr = (uintptr_t)host->ram.hva + 0x100000,
    };

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0); /* warm, and not logged yet */
    CHECK_EQUAL(OPS(get_dirty_log)(host->vm, 2, bitmap, sizeof bitmap), (u64)-ENOENT);
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), 0);
    for (unsigned round = 0; round < 3; round++) {
        CHECK_EQUAL(OPS(get_dirty_log)(host->vm, 2, bitmap, sizeof bitmap), 0);
        for (unsigned i = 0; i < ARRAY_SIZE(bitmap); i++) {
            u64 want = 0;

            if (round && i == offset / 4096 / 64)
                want = BIT(offset / 4096 % 64) | BIT((offset / 4096 + 5) % 64);
            CHECK_EQUAL(bitmap[i], want);
        }
        CHECK_EQUAL(host_run_once(host), 0);
        CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_IO);
    }
    /* What a device writes is logged too. */
    CHECK_EQUAL(OPS(get_dirty_log)(host->vm, 2, bitmap, sizeof bitmap), 0);
    CHECK_EQUAL(mem_write(host->mem, 0x100000 + 70 * 4096, "x", 1), 0);
    CHECK_EQUAL(OPS(get_dirty_log)(host->vm, 2, bitmap, sizeof bitmap), 0);
    CHECK_EQUAL(bitmap[1], BIT(6));
    host_destroy(host);
}

/* A slot removed becomes MMIO, even if the guest has used it; put elsewhere, it is seen there. */
void memory_slot_moves(void **state)
{
    static const u8 code[] = {
        0xbb, 0x00, 0x00, 0x00, 0xe0, /* mov $0xe0000000, %ebx */
        0x8b, 0x03,                   /* mov (%rbx), %eax */
        0xe7, 0x80,                   /* out %eax, $0x80 */
        0xeb, 0xfa,                   /* again */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;
    struct kvm_userspace_memory_region region = {
        .slot = 9,
        .guest_phys_addr = 0xe0000000,
        .memory_size = 0x1000,
        .userspace_addr = (uintptr_t)host->ram.hva + FREE_GPA,
    };

    (void)state;
    *(u32 *)(host->ram.hva + FREE_GPA) = 0x11111111;
    *(u32 *)(host->ram.hva + FREE_GPA + 0x1000) = 0x22222222;
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(*(u32 *)io_data(run), 0x11111111);
    region.memory_size = 0;
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(run->mmio.phys_addr, 0xe0000000);
    memset(run->mmio.data, 0x33, 4);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(*(u32 *)io_data(run), 0x33333333);
    region.memory_size = 0x1000;
    region.userspace_addr += 0x1000;
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(*(u32 *)io_data(run), 0x22222222);
    /* Slots may not overlap. */
    region.slot = 10;
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), (u64)-EEXIST);
    region.guest_phys_addr = 0xe0000800;
    CHECK_EQUAL(OPS(set_memory)(host->vm, &region), (u64)-EINVAL);
    host_destroy(host);
}

void read_only_slot(void **state)
{
    static const u8 code[] = {
        0xbb, 0x00, 0x00, 0x0c, 0x00, /* mov $0xc0000, %ebx */
        0x8b, 0x03,                   /* mov (%rbx), %eax */
        0xff, 0xc0,                   /* inc %eax */
        0x89, 0x43, 0x08,             /* mov %eax, 8(%rbx) */
        0x8b, 0x43, 0x08,             /* mov 8(%rbx), %eax */
        0xe7, 0x80,                   /* out %eax, $0x80 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(run->mmio.is_write, 1);
    CHECK_EQUAL(run->mmio.phys_addr, ROM_GPA + 8);
    CHECK_EQUAL(*(u32 *)run->mmio.data, 0x5a5a5a5b);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(*(u32 *)io_data(run), 0x5a5a5a5a);
    host_destroy(host);
}

void kick_before_run(void **state)
{
    static const u8 code[] = {0xeb, 0xfe}; /* jmp to itself */
    struct host *host = start(code, sizeof code, MODE_LONG64);

    (void)state;
    OPS(kick)(host->cpu[0].vcpu);
    CHECK_EQUAL(host_run_once(host), (u64)-EINTR);
    CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_INTR);
    CHECK_EQUAL(get_rip(host), LOAD_GPA);
    host_destroy(host);
}

struct kicker {
    struct host *host;
    unsigned delay_us, cpu;
    u64 kicked_ns;
};

static void *kicker_thread(void *opaque)
{
    struct kicker *kicker = opaque;

    usleep(kicker->delay_us);
    kicker->kicked_ns = clock_mono_ns();
    kicker->host->ops->kick(kicker->host->cpu[kicker->cpu].vcpu);
    return NULL;
}

/* Runs @cpu, kicked after 20 ms by another thread; checks that the kick ended it, and soon. */
static void run_and_kick(struct host *host, unsigned cpu)
{
    struct kicker kicker = {.host = host, .delay_us = 20000, .cpu = cpu};
    pthread_t thread;
    u64 ended_ns;
    int ret;

    assert_int_equal(thread_create(&thread, "kicker", kicker_thread, &kicker, NULL), 0);
    ret = OPS(vcpu_run)(host->cpu[cpu].vcpu);
    ended_ns = clock_mono_ns();
    pthread_join(thread, NULL);
    CHECK_EQUAL(ret, (u64)-EINTR);
    CHECK_EQUAL(host->cpu[cpu].vcpu->run->exit_reason, KVM_EXIT_INTR);
    CHECK(ended_ns >= kicker.kicked_ns && ended_ns - kicker.kicked_ns < KICK_LIMIT_NS);
}

void kick_in_loop(void **state)
{
    static const u8 code[] = {0x48, 0xff, 0xc0, 0xeb, 0xfb}; /* inc %rax; again */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_regs regs;

    (void)state;
    run_and_kick(host, 0);
    CHECK_EQUAL(OPS(get_regs)(host->cpu[0].vcpu, &regs), 0);
    CHECK(regs.rax > 100);
    CHECK(regs.rip == LOAD_GPA || regs.rip == LOAD_GPA + 3);
    run_and_kick(host, 0);
    host_destroy(host);
}

void kick_in_halt(void **state)
{
    static const u8 code[] = {0xfa, 0xf4, 0xe6, 0x80}; /* cli; hlt; out */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_mp_state mp;

    (void)state;
    run_and_kick(host, 0);
    CHECK_EQUAL(OPS(get_mp_state)(host->cpu[0].vcpu, &mp), 0);
    CHECK_EQUAL(mp.mp_state, KVM_MP_STATE_HALTED);
    run_and_kick(host, 0); /* and still halts */
    CHECK_EQUAL(get_rip(host), LOAD_GPA + 2);
    host_destroy(host);
}

void kick_in_sipi_wait(void **state)
{
    struct host *host = host_create(2);
    struct kvm_mp_state mp;

    (void)state;
    run_and_kick(host, 1);
    CHECK_EQUAL(OPS(get_mp_state)(host->cpu[1].vcpu, &mp), 0);
    CHECK_EQUAL(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
    host_destroy(host);
}

struct storm {
    struct host *host;
    atomic_bool over;
};

static void *storm_thread(void *opaque)
{
    struct storm *storm = opaque;

    while (!storm->over) {
        storm->host->ops->kick(storm->host->cpu[0].vcpu);
        usleep(50);
    }
    return NULL;
}

/* Kicks in between change nothing in what the guest does. */
void kick_storm(void **state)
{
    static const u8 code[] = {
        0xff, 0xc0,                      /* inc %eax */
        0xe7, 0x98,                      /* out %eax, $0x98 */
        0x8b, 0x1c, 0x25, 0, 0, 0x20, 0, /* mov 0x200000, %ebx */
        0xeb, 0xf3,                      /* again */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_run *run = host->cpu[0].vcpu->run;
    struct storm storm = {.host = host};
    pthread_t thread;
    u32 seen = 0, tries = 0;
    bool right = true;

    (void)state;
    assert_int_equal(thread_create(&thread, "storm", storm_thread, &storm, NULL), 0);
    while (right && seen < 500 && tries++ < 100000) {
        int ret = OPS(vcpu_run)(host->cpu[0].vcpu);

        if (ret == -EINTR)
            continue;
        right = !ret && run->exit_reason == KVM_EXIT_IO && *(u32 *)io_data(run) == seen + 1;
        seen++;
    }
    storm.over = true;
    pthread_join(thread, NULL);
    CHECK(right);
    CHECK_EQUAL(seen, 500);
    host_destroy(host);
}

void triple_fault(void **state)
{
    static const u8 code[] = {0x0f, 0x0b}; /* ud2, with an empty IDT */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_sregs sregs;

    (void)state;
    CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
    sregs.idt.limit = 0;
    CHECK_EQUAL(OPS(set_sregs)(vcpu, &sregs), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_SHUTDOWN);
    host_destroy(host);
}

static void set_debug(struct host *host, u32 control)
{
    struct kvm_guest_debug debug = {.control = control};

    debug.arch.debugreg[0] = LOAD_GPA + 2;
    debug.arch.debugreg[7] = control & KVM_GUESTDBG_USE_HW_BP ? 0x402 : 0x400;
    CHECK_EQUAL(OPS(set_guest_debug)(host->cpu[0].vcpu, &debug), 0);
}

static void expect_debug_exit(struct host *host, u64 rip, u32 exception)
{
    struct kvm_run *run = host->cpu[0].vcpu->run;

    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(run->exit_reason, KVM_EXIT_DEBUG);
    CHECK_EQUAL(run->debug.arch.pc, rip);
    CHECK_EQUAL(run->debug.arch.exception, exception);
    CHECK_EQUAL(get_rip(host), rip);
}

void single_step(void **state)
{
    static const u8 code[] = {0x90, 0xff, 0xc0, 0xeb, 0x00, 0x90, 0xe6, 0x80};
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_regs regs;

    (void)state;
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    expect_debug_exit(host, LOAD_GPA + 1, 1);
    expect_debug_exit(host, LOAD_GPA + 3, 1);
    expect_debug_exit(host, LOAD_GPA + 5, 1);
    CHECK_EQUAL(OPS(get_regs)(host->cpu[0].vcpu, &regs), 0);
    CHECK_EQUAL(regs.rax, 1);
    CHECK_EQUAL(regs.rflags & 0x100, 0); /* the guest's TF is not the debugger's */
    set_debug(host, 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_IO);
    host_destroy(host);
}

void software_breakpoint(void **state)
{
    static const u8 code[] = {0x90, 0xff, 0xc0, 0xcc, 0x90};
    struct host *host = start(code, sizeof code, MODE_LONG64);

    (void)state;
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
    expect_debug_exit(host, LOAD_GPA + 3, 3);
    host_destroy(host);
}

void hardware_breakpoint(void **state)
{
    static const u8 code[] = {0xff, 0xc0, 0xff, 0xc0, 0xe6, 0x80};
    struct host *host = start(code, sizeof code, MODE_LONG64);

    (void)state;
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
    expect_debug_exit(host, LOAD_GPA + 2, 1);
    host_destroy(host);
}

static void set_breakpoint(struct host *host, u64 address, u32 dr7)
{
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP};

    debug.arch.debugreg[0] = address;
    debug.arch.debugreg[7] = dr7;
    CHECK_EQUAL(OPS(set_guest_debug)(host->cpu[0].vcpu, &debug), 0);
}

/* In the middle of a block that ran before without it, at the end of which it loops. */
void breakpoint_in_a_loop(void **state)
{
    static const u8 code[] = {
        0xff, 0xc0, /* inc %eax */
        0xff, 0xc3, /* inc %ebx */
        0xe6, 0x80, /* out %al, $0x80 */
        0xeb, 0xf8, /* again */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct kvm_regs regs;

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_IO);
    set_breakpoint(host, LOAD_GPA + 2, 0x402);
    expect_debug_exit(host, LOAD_GPA + 2, 1);
    CHECK_EQUAL(host->cpu[0].vcpu->run->debug.arch.dr6 & 15, 1);
    CHECK_EQUAL(OPS(get_regs)(host->cpu[0].vcpu, &regs), 0);
    CHECK_EQUAL(regs.rax, 3);
    CHECK_EQUAL(regs.rbx, 2);
    set_debug(host, 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_IO);
    host_destroy(host);
}

void watchpoints(void **state)
{
    static const u8 code[] = {
        0x89, 0x03,       /* mov %eax, (%rbx) */
        0x89, 0x43, 0x04, /* mov %eax, 4(%rbx) */
        0x8b, 0x0b,       /* mov (%rbx), %ecx */
        0x89, 0x03,       /* mov %eax, (%rbx) */
        0xff, 0xc0,       /* inc %eax */
        0xf3, 0xaa,       /* rep stosb */
        0xe6, 0x80,       /* out %al, $0x80 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_regs regs;

    (void)state;
    CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
    regs.rbx = FREE_GPA;
    regs.rdi = FREE_GPA - 8;
    CHECK_EQUAL(OPS(set_regs)(vcpu, &regs), 0);
    set_breakpoint(host, FREE_GPA + 4, 0xd0402); /* writes, four bytes */
    expect_debug_exit(host, LOAD_GPA + 5, 1);
    CHECK_EQUAL(vcpu->run->debug.arch.dr6 & 15, 1);
    set_breakpoint(host, FREE_GPA, 0xf0402); /* reads too */
    expect_debug_exit(host, LOAD_GPA + 7, 1);
    expect_debug_exit(host, LOAD_GPA + 9, 1);
    CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
    regs.rcx = 32;
    CHECK_EQUAL(OPS(set_regs)(vcpu, &regs), 0);
    set_breakpoint(host, FREE_GPA + 3, 0x10402); /* writes, one byte, met by the string */
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_DEBUG);
    CHECK_EQUAL(vcpu->run->debug.arch.dr6 & 15, 1);
    set_debug(host, 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_IO);
    host_destroy(host);
}

/* An interrupt descriptor table with one gate, to @handler at LOAD_GPA + 0x100. */
static void set_gate(struct host *host, unsigned vector, const u8 *handler, size_t len)
{
    struct vcpu *vcpu = host->cpu[0].vcpu;
    u32 *idt = (u32 *)(host->ram.hva + FREE_GPA);
    struct kvm_sregs sregs;

    host_load(host, LOAD_GPA + 0x100, handler, len);
    idt[vector * 4] = SELECTOR_CODE << 16 | ((LOAD_GPA + 0x100) & 0xffff);
    idt[vector * 4 + 1] = ((LOAD_GPA + 0x100) & 0xffff0000) | 0x8e00;
    CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
    sregs.idt = (struct kvm_dtable){.base = FREE_GPA, .limit = 0xfff};
    CHECK_EQUAL(OPS(set_sregs)(vcpu, &sregs), 0);
}

void steps_over_what_exits(void **state)
{
    static const u8 code[] = {
        0xe6, 0x81,       /* out %al, $0x81 */
        0x0f, 0xa2,       /* cpuid */
        0x0f, 0x22, 0xd9, /* mov %rcx, %cr3 */
        0xe6, 0x82,       /* out %al, $0x82 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    (void)state;
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_IO);
    expect_debug_exit(host, LOAD_GPA + 2, 1);
    expect_debug_exit(host, LOAD_GPA + 4, 1);
    CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
    CHECK_EQUAL(OPS(get_regs)(vcpu, &regs), 0);
    regs.rcx = sregs.cr3;
    CHECK_EQUAL(OPS(set_regs)(vcpu, &regs), 0);
    /* KVM keeps the step in RFLAGS.TF, which set_regs has just written. */
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    expect_debug_exit(host, LOAD_GPA + 7, 1);
    host_destroy(host);
}

/* A step from an instruction that faults ends before its handler's first. (A CPU under KVM has TF
 * clear there and runs on.) */
void steps_into_handlers(void **state)
{
    static const u8 code[] = {0x90, 0x0f, 0x0b};    /* nop; ud2 */
    static const u8 handler[] = {0x58, 0xe7, 0x82}; /* pop %rax; out %eax, $0x82 */
    struct host *host = start(code, sizeof code, MODE_LONG64);

    (void)state;
    if (host->cpu[0].vcpu->ops != &soft_engine_ops) {
        host_destroy(host);
        skip();
    }
    set_gate(host, 6, handler, sizeof handler);
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    expect_debug_exit(host, LOAD_GPA + 1, 1);
    expect_debug_exit(host, LOAD_GPA + 0x100, 1);
    expect_debug_exit(host, LOAD_GPA + 0x101, 1);
    host_destroy(host);
}

/* INT3 is the guest's own: its handler gets it although a debugger has breakpoints exit. */
void breakpoint_given_back(void **state)
{
    static const u8 code[] = {0x90, 0xcc, 0x90};
    static const u8 handler[] = {0x58, 0xe7, 0x82}; /* pop %rax; out %eax, $0x82 */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;

    (void)state;
    set_gate(host, 3, handler, sizeof handler);
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
    expect_debug_exit(host, LOAD_GPA + 1, 3);
    set_debug(host, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(*(u32 *)io_data(vcpu->run), LOAD_GPA + 2);
    host_destroy(host);
}

/* An exception set by vcpu_events is delivered before the first instruction. */
void injected_exception(void **state)
{
    static const u8 code[] = {0x90, 0xe6, 0x81};    /* the guest's own: nop; out 0x81 */
    static const u8 handler[] = {0x58, 0xe7, 0x82}; /* pop %rax; out %eax, $0x82 */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    u32 *idt = (u32 *)(host->ram.hva + FREE_GPA);
    struct kvm_vcpu_events events;
    struct kvm_sregs sregs;

    (void)state;
    host_load(host, LOAD_GPA + 0x100, handler, sizeof handler);
    idt[13 * 4] = SELECTOR_CODE << 16 | ((LOAD_GPA + 0x100) & 0xffff);
    idt[13 * 4 + 1] = ((LOAD_GPA + 0x100) & 0xffff0000) | 0x8e00;
    CHECK_EQUAL(OPS(get_sregs)(vcpu, &sregs), 0);
    sregs.idt = (struct kvm_dtable){.base = FREE_GPA, .limit = 0xfff};
    CHECK_EQUAL(OPS(set_sregs)(vcpu, &sregs), 0);
    CHECK_EQUAL(OPS(get_vcpu_events)(vcpu, &events), 0);
    events.exception.injected = 1;
    events.exception.nr = 13;
    events.exception.has_error_code = 1;
    events.exception.error_code = 0x1230;
    CHECK_EQUAL(OPS(set_vcpu_events)(vcpu, &events), 0);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_IO);
    CHECK_EQUAL(vcpu->run->io.port, 0x82);
    CHECK_EQUAL(*(u32 *)io_data(vcpu->run), 0x1230);
    host_destroy(host);
}

static void copy_state(struct host *host, struct vcpu *from, struct vcpu *to)
{
    struct kvm_vcpu_events events;
    struct kvm_lapic_state lapic;
    struct kvm_xsave xsave;
    struct kvm_sregs sregs;
    struct kvm_regs regs;

    CHECK_EQUAL(OPS(get_sregs)(from, &sregs), 0);
    CHECK_EQUAL(OPS(get_regs)(from, &regs), 0);
    CHECK_EQUAL(OPS(get_xsave)(from, &xsave), 0);
    CHECK_EQUAL(OPS(get_lapic)(from, &lapic), 0);
    CHECK_EQUAL(OPS(get_vcpu_events)(from, &events), 0);
    CHECK_EQUAL(OPS(set_sregs)(to, &sregs), 0);
    CHECK_EQUAL(OPS(set_regs)(to, &regs), 0);
    CHECK_EQUAL(OPS(set_xsave)(to, &xsave), 0);
    CHECK_EQUAL(OPS(set_lapic)(to, &lapic), 0);
    CHECK_EQUAL(OPS(set_vcpu_events)(to, &events), 0);
}

/* A guest stopped in the middle goes on in another VM with the same memory. */
void state_moves_to_another_vm(void **state)
{
    static const u8 code[] = {
        0x48, 0x8d, 0x44, 0x18, 0x07, /* lea 7(%rax,%rbx), %rax */
        0xff, 0xc3,                   /* inc %ebx */
        0xf2, 0x0f, 0x2a, 0xc0,       /* cvtsi2sd %eax, %xmm0 */
        0xe7, 0x98,                   /* out %eax, $0x98 */
        0xeb, 0xf1,                   /* again */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64), *other;
    struct kvm_sregs sregs;
    u32 want = 0;

    (void)state;
    CHECK_EQUAL(OPS(get_sregs)(host->cpu[0].vcpu, &sregs), 0);
    sregs.cr4 |= 0x600;
    CHECK_EQUAL(OPS(set_sregs)(host->cpu[0].vcpu, &sregs), 0);
    for (u32 i = 0; i < 6; i++) {
        if (i == 3) {
            /* An OUT is complete only when the vCPU is entered again. */
            OPS(kick)(host->cpu[0].vcpu);
            CHECK_EQUAL(OPS(vcpu_run)(host->cpu[0].vcpu), (u64)-EINTR);
            other = host_create(1);
            memcpy(other->ram.hva, host->ram.hva, RAM_BYTES);
            mem_wrote(other->mem, 0, LOW_HOLE_GPA);
            copy_state(host, host->cpu[0].vcpu, other->cpu[0].vcpu);
            host_destroy(host);
            host = other;
        }
        want += 7 + i;
        CHECK_EQUAL(host_run_once(host), 0);
        CHECK_EQUAL(host->cpu[0].vcpu->run->exit_reason, KVM_EXIT_IO);
        CHECK_EQUAL(*(u32 *)io_data(host->cpu[0].vcpu->run), want);
    }
    host_destroy(host);
}

/* A read-modify-write at MMIO: a kick after the read's exit comes only when the write is out
 * too. */
void mmio_completes_before_a_kick(void **state)
{
    static const u8 code[] = {
        0xbb, 0x00, 0x00, 0x00, 0xd0, /* mov $0xd0000000, %ebx */
        0xff, 0x03,                   /* incl (%rbx) */
        0x8b, 0x43, 0x08,             /* mov 8(%rbx), %eax */
        0xe7, 0x98,                   /* out %eax, $0x98 */
    };
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct vcpu *vcpu = host->cpu[0].vcpu;
    int ret;

    (void)state;
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(vcpu->run->mmio.is_write, 0);
    memset(vcpu->run->mmio.data, 0, 8);
    vcpu->run->mmio.data[0] = 41;
    OPS(kick)(vcpu);
    ret = OPS(vcpu_run)(vcpu);
    CHECK_EQUAL(ret, 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(vcpu->run->mmio.is_write, 1);
    CHECK_EQUAL(vcpu->run->mmio.data[0], 42);
    CHECK_EQUAL(OPS(vcpu_run)(vcpu), (u64)-EINTR);
    CHECK_EQUAL(get_rip(host), LOAD_GPA + 7);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(vcpu->run->exit_reason, KVM_EXIT_MMIO);
    CHECK_EQUAL(vcpu->run->mmio.phys_addr, MMIO_GPA + 8);
    memset(vcpu->run->mmio.data, 7, 8);
    OPS(kick)(vcpu);
    CHECK_EQUAL(OPS(vcpu_run)(vcpu), (u64)-EINTR);
    CHECK_EQUAL(get_rip(host), LOAD_GPA + 10);
    CHECK_EQUAL(host_run_once(host), 0);
    CHECK_EQUAL(*(u32 *)io_data(vcpu->run), 0x07070707);
    host_destroy(host);
}

void statistics(void **state)
{
    static const u8 code[] = {0xe6, 0x98, 0xeb, 0xfc}; /* out; again */
    struct host *host = start(code, sizeof code, MODE_LONG64);
    struct engine_stat stats[128];
    int count;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQUAL(host_run_once(host), 0);
    count = OPS(vcpu_stats)(host->cpu[0].vcpu, stats, ARRAY_SIZE(stats));
    CHECK(count > 0 && count <= (int)ARRAY_SIZE(stats));
    for (int i = 0; i < count; i++)
        CHECK(stats[i].name && stats[i].name[0]);
    CHECK_EQUAL(OPS(vcpu_stats)(host->cpu[0].vcpu, stats, 1), 1);
    CHECK(OPS(vm_stats)(host->vm, stats, ARRAY_SIZE(stats)) >= 0);
    host_destroy(host);
}
