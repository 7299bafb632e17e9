#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

static struct host *hosts;

const struct engine_ops *test_ops;
char test_doubt[640];

void host_give_up(const char *fmt, ...)
{
    char text[4600];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (!test_doubt[0])
        fail_msg("%s", text);
    print_message("SKIP: %s; here: %s\n", test_doubt, text);
    skip();
}

static void add_slot(struct host *host, u32 slot, u32 flags, u64 gpa, u64 bytes)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = gpa,
        .memory_size = bytes,
        .userspace_addr = (uintptr_t)host->ram.hva + gpa,
    };
    int ret = host->ops->set_memory(host->vm, &region);

    if (ret)
        host_give_up("set_memory of slot %u: %s", slot, strerror(-ret));
}

static void create_cpus(struct host *host)
{
    struct err err = {""};
    int ret;

    host->cpuid = calloc(1, sizeof *host->cpuid + CPUID_ROOM * sizeof host->cpuid->entries[0]);
    assert_non_null(host->cpuid);
    host->cpuid->nent = CPUID_ROOM;
    ret = host->ops->get_supported_cpuid(host->engine, host->cpuid);
    if (ret)
        host_give_up("get_supported_cpuid: %s", strerror(-ret));
    for (unsigned i = 0; i < host->cpus; i++) {
        host->cpu[i].host = host;
        ret = host->ops->vcpu_create(host->vm, i, i, &host->cpu[i].vcpu, &err);
        if (ret)
            host_give_up("vcpu_create: %s", err.text);
        for (u32 k = 0; k < host->cpuid->nent; k++) {
            if (host->cpuid->entries[k].function == 1)
                host->cpuid->entries[k].ebx = (host->cpuid->entries[k].ebx & 0xffffff) | i << 24;
            if (host->cpuid->entries[k].function == 0xb)
                host->cpuid->entries[k].edx = i;
        }
        ret = host->ops->set_cpuid(host->cpu[i].vcpu, host->cpuid);
        if (ret)
            host_give_up("set_cpuid: %s", strerror(-ret));
    }
}

struct host *host_create(unsigned cpus)
{
    struct engine_vm_config config = {
        .topology = {.cpus = cpus, .sockets = 1, .cores = cpus, .threads = 1},
        .cpu_model = "x86-64-v2,pmu=on,movbe=on,adx=on,movdiri=on,pks=on,waitpkg=on",
        .jit = !getenv("CONFORMANCE_NO_JIT"),
        .dump_stages = getenv("CONFORMANCE_DUMP") ? 15 : 0,
        .dump_last = ~0ull,
        .pit = true,
    };
    struct err err = {""};
    struct host *host;
    int ret;

    host = calloc(1, sizeof *host);
    assert_non_null(host);
    host->next = hosts;
    hosts = host;
    host->ops = test_ops;
    host->cpus = cpus;
    mutex_init(&host->lock);
    cond_init(&host->changed);
    host->mem = mem_create();
    assert_non_null(host->mem);
    assert_int_equal(mem_ram_alloc(&host->ram, RAM_BYTES, &err), 0);
    config.mem = host->mem;
    ret = host->ops->open(&host->engine, &err);
    if (!ret)
        ret = host->ops->vm_create(host->engine, &config, &host->vm, &err);
    if (ret)
        host_give_up("%s", err.text);
    memset(host->ram.hva + ROM_GPA, ROM_BYTE, ROM_BYTES);
    add_slot(host, 0, 0, 0, LOW_HOLE_GPA);
    add_slot(host, 1, KVM_MEM_READONLY, ROM_GPA, ROM_BYTES);
    add_slot(host, 2, 0, 0x100000, RAM_BYTES - 0x100000);
    for (unsigned i = 0; i < sizeof host->page; i++)
        host->page[i] = i ^ i >> 8 ^ 0xa5;
    create_cpus(host);
    return host;
}

void host_destroy(struct host *host)
{
    struct host **at = &hosts;

    while (*at != host)
        at = &(*at)->next;
    *at = host->next;
    if (host->hung) /* a thread still uses it all */
        return;
    while (host->orders)
        usleep(1000);
    for (unsigned i = 0; i < host->cpus; i++) {
        if (host->cpu[i].vcpu)
            host->ops->vcpu_destroy(host->cpu[i].vcpu);
    }
    if (host->vm)
        host->ops->vm_destroy(host->vm);
    if (host->engine)
        host->ops->close(host->engine);
    mem_ram_free(&host->ram);
    mem_destroy(host->mem);
    free(host->cpuid);
    free(host);
}

int host_destroy_all(void **state)
{
    (void)state;
    while (hosts)
        host_destroy(hosts);
    return 0;
}

void host_load(struct host *host, u64 gpa, const void *code, size_t len)
{
    assert_true(gpa + len <= host->ram.size);
    memcpy(host->ram.hva + gpa, code, len);
    mem_wrote(host->mem, gpa, len);
}

static void fill_tables(struct host *host, enum guest_mode mode)
{
    u64 gdt[] = {0, mode == MODE_LONG64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
                 0x00cf93000000ffff};
    u64 *tables = (u64 *)(host->ram.hva + TABLES_GPA);

    memcpy(host->ram.hva + GDT_GPA, gdt, sizeof gdt);
    if (mode != MODE_LONG64)
        return;
    tables[0] = (TABLES_GPA + 0x1000) | 7;
    for (u64 i = 0; i < 4; i++)
        tables[512 + i] = (TABLES_GPA + 0x2000 + i * 0x1000) | 7;
    for (u64 i = 0; i < 4 * 512; i++)
        tables[1024 + i] = i << 21 | 0x87;
}

static void real_mode_segments(struct kvm_sregs *sregs)
{
    struct kvm_segment *all[] = {&sregs->ds, &sregs->es, &sregs->fs, &sregs->gs};

    sregs->cs.selector = LOAD_GPA >> 4;
    sregs->cs.base = LOAD_GPA;
    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        all[i]->selector = LOAD_GPA >> 4;
        all[i]->base = LOAD_GPA;
    }
    sregs->ss.selector = 0x8000;
    sregs->ss.base = 0x80000;
}

static void flat_segments(struct kvm_sregs *sregs, bool wide)
{
    struct kvm_segment code = {.limit = 0xffffffff,
                               .selector = SELECTOR_CODE,
                               .type = 11,
                               .present = 1,
                               .s = 1,
                               .l = wide,
                               .db = !wide,
                               .g = 1};
    struct kvm_segment data = {.limit = 0xffffffff,
                               .selector = SELECTOR_DATA,
                               .type = 3,
                               .present = 1,
                               .s = 1,
                               .db = 1,
                               .g = 1};

    sregs->cs = code;
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
    sregs->gdt = (struct kvm_dtable){.base = GDT_GPA, .limit = 23};
    sregs->cr0 = 0x11 | (sregs->cr0 & 0x60000000);
    if (wide) {
        sregs->cr0 |= BIT(31);
        sregs->cr3 = TABLES_GPA;
        sregs->cr4 = BIT(5);
        sregs->efer = BIT(8) | BIT(10);
    }
}

void host_enter(struct host *host, enum guest_mode mode)
{
    struct kvm_regs regs = {.rip = LOAD_GPA, .rsp = STACK_TOP, .rflags = 2};
    struct vcpu *vcpu = host->cpu[0].vcpu;
    struct kvm_sregs sregs;

    fill_tables(host, mode);
    CHECK_EQUAL(host->ops->get_sregs(vcpu, &sregs), 0);
    if (mode == MODE_REAL) {
        real_mode_segments(&sregs);
        regs.rip = 0;
        regs.rsp = 0xfffe;
    } else {
        flat_segments(&sregs, mode == MODE_LONG64);
    }
    CHECK_EQUAL(host->ops->set_sregs(vcpu, &sregs), 0);
    CHECK_EQUAL(host->ops->set_regs(vcpu, &regs), 0);
}

static void stop_all(struct host *host)
{
    host->stop = true;
    for (unsigned i = 0; i < host->cpus; i++)
        host->ops->kick(host->cpu[i].vcpu);
}

static void add_trouble(struct host *host, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void add_trouble(struct host *host, const char *fmt, ...)
{
    size_t used;
    va_list args;

    mutex_lock(&host->lock);
    used = strlen(host->trouble);
    va_start(args, fmt);
    vsnprintf(host->trouble + used, sizeof host->trouble - used, fmt, args);
    va_end(args);
    mutex_unlock(&host->lock);
}

static void add_bad_exit(struct host_cpu *cpu, int ret)
{
    struct host *host = cpu->host;
    struct kvm_run *run = cpu->vcpu->run;
    const char *name = engine_exit_name(run->exit_reason);
    struct kvm_regs regs = {0};
    struct err err = {""};

    if (host->ops->explain)
        host->ops->explain(cpu->vcpu, &err);
    host->ops->get_regs(cpu->vcpu, &regs);
    add_trouble(host, "vCPU %u, after guest line %u: run gave %d, %s at rip 0x%llx",
                cpu->vcpu->index, host->last_line, ret, name ? name : "an unknown exit", regs.rip);
    if (run->exit_reason == KVM_EXIT_IO)
        add_trouble(host, " (port 0x%x, direction %u, size %u, count %u)", run->io.port,
                    run->io.direction, run->io.size, run->io.count);
    if (run->exit_reason == KVM_EXIT_MMIO)
        add_trouble(host, " (gpa 0x%llx, len %u, write %u)", run->mmio.phys_addr, run->mmio.len,
                    run->mmio.is_write);
    add_trouble(host, ": %s\n", err.text);
}

static void *cpu_thread(void *opaque)
{
    struct host_cpu *cpu = opaque;
    struct host *host = cpu->host;
    int ret;

    while (!host->stop) {
        ret = host->ops->vcpu_run(cpu->vcpu);
        if (ret == -EINTR) {
            if (atomic_exchange(&cpu->nmi_wanted, false))
                host->ops->nmi(cpu->vcpu);
            continue;
        }
        if (ret || !host_handle_exit(cpu)) {
            add_bad_exit(cpu, ret);
            stop_all(host);
        }
    }
    mutex_lock(&host->lock);
    cpu->thread_started = false;
    pthread_cond_signal(&host->changed);
    mutex_unlock(&host->lock);
    return NULL;
}

static bool wait_for_threads(struct host *host, u64 ns)
{
    u64 deadline = clock_mono_ns() + ns;
    bool in_time = true, running = true;

    mutex_lock(&host->lock);
    while (running && in_time) {
        running = false;
        for (unsigned i = 0; i < host->cpus; i++)
            running |= host->cpu[i].thread_started;
        if (running)
            in_time = cond_wait_until(&host->changed, &host->lock, deadline);
    }
    mutex_unlock(&host->lock);
    return !running;
}

void host_run(struct host *host, unsigned limit_ms)
{
    struct kvm_regs regs;

    for (unsigned i = 0; i < host->cpus; i++) {
        host->cpu[i].thread_started = true;
        assert_int_equal(
            thread_create(&host->cpu[i].thread, "vcpu", cpu_thread, &host->cpu[i], NULL), 0);
    }
    if (!wait_for_threads(host, limit_ms * 1000000ull)) {
        add_trouble(host, "no end after %u ms, last comparison at guest line %u;", limit_ms,
                    host->last_line);
        stop_all(host);
        host->hung = !wait_for_threads(host, 2 * NSEC_PER_SEC);
        for (unsigned i = 0; i < host->cpus && !host->hung; i++) {
            if (!host->ops->get_regs(host->cpu[i].vcpu, &regs))
                add_trouble(host, " vCPU %u at rip 0x%llx", i, regs.rip);
        }
        add_trouble(host, "%s\n", host->hung ? " and no reaction to a kick" : "");
    }
    for (unsigned i = 0; i < host->cpus; i++) {
        if (host->hung)
            pthread_detach(host->cpu[i].thread);
        else
            pthread_join(host->cpu[i].thread, NULL);
    }
}

struct watchdog {
    struct host *host;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
};

static void *watchdog_thread(void *opaque)
{
    struct watchdog *watchdog = opaque;
    u64 deadline = clock_mono_ns() + 10 * NSEC_PER_SEC;

    mutex_lock(&watchdog->lock);
    while (!watchdog->over && cond_wait_until(&watchdog->changed, &watchdog->lock, deadline)) {
    }
    if (!watchdog->over)
        watchdog->host->ops->kick(watchdog->host->cpu[0].vcpu);
    mutex_unlock(&watchdog->lock);
    return NULL;
}

int host_run_once(struct host *host)
{
    struct watchdog watchdog = {.host = host};
    pthread_t thread;
    int ret;

    mutex_init(&watchdog.lock);
    cond_init(&watchdog.changed);
    assert_int_equal(thread_create(&thread, "watchdog", watchdog_thread, &watchdog, NULL), 0);
    ret = host->ops->vcpu_run(host->cpu[0].vcpu);
    mutex_lock(&watchdog.lock);
    watchdog.over = true;
    pthread_cond_signal(&watchdog.changed);
    mutex_unlock(&watchdog.lock);
    pthread_join(thread, NULL);
    return ret;
}

static size_t read_guest(const char *name, u8 *buf, size_t size)
{
    char path[512];
    size_t len;
    FILE *file;

    snprintf(path, sizeof path, "%s/%s.bin", GUEST_DIR, name);
    file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    len = fread(buf, 1, size, file);
    fclose(file);
    assert_true(len > 0 && len < size);
    return len;
}

void run_guest(const char *name, enum guest_mode mode, unsigned cpus, unsigned limit_ms)
{
    static u8 code[256 * KiB];
    size_t len = read_guest(name, code, sizeof code);
    struct host *host = host_create(cpus);
    char trouble[sizeof host->trouble];

    host_load(host, LOAD_GPA, code, len);
    host_enter(host, mode);
    host_run(host, limit_ms);
    if (!host->trouble[0] && (!host->done || !host->checks || host->checks != host->checks_named))
        add_trouble(host, "%u comparisons arrived, the guest counted %u\n", host->checks,
                    host->checks_named);
    if (host->console[0])
        print_message("the guest says: %s\n", host->console);
    else
        print_message("%u comparisons\n", host->checks);
    memcpy(trouble, host->trouble, sizeof trouble);
    host_destroy(host);
    if (trouble[0])
        host_give_up("%s", trouble);
}
