/*
 * User mode's side of Linux: program files as the loader takes them, and structures that a system
 * call or a signal frame converts, at any address. What lies outside the guest's memory is not
 * touched. Input: u8 choices; then a file, or records of an operation byte and its operands.
 */
#include <asm/prctl.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuzz.h"
#include "guest/riscv/riscv.h"
#include "guest/x86/x86.h"
#include "user/private.h"

/* The guest's memory: writable, writable, read-only; the host's pages around it cannot be touched.
 * Low, because a sanitizer has the addresses that programs get. */
#define BASE 0x40000000ull
#define PAGES 3

static struct process {
    struct user user;
    struct user_thread *thread;
} processes[2];
static struct user *user;          /* the one in use, */
static struct user_thread *thread; /* and its thread */
static int epoll, file;
static char file_path[32];

/* The arguments that a script's first line adds live as long as the process. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static void reserve(void)
{
    void *at = (void *)(BASE - MEM_PAGE_SIZE);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

    MUST(mmap(at, (PAGES + 2) * MEM_PAGE_SIZE, PROT_NONE, flags, -1, 0) == at);
    MUST(!mprotect((void *)BASE, 2 * MEM_PAGE_SIZE, PROT_READ | PROT_WRITE));
    MUST(!mprotect((void *)(BASE + 2 * MEM_PAGE_SIZE), MEM_PAGE_SIZE, PROT_READ));
}

static void make_process(void)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT};
    int fd = memfd_create("always ready", MFD_CLOEXEC), pair[2];

    MUST(fd >= 0);
    file = fd;
    snprintf(file_path, sizeof file_path, "/proc/self/fd/%d", fd);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    MUST(epoll >= 0 && !pipe2(pair, O_CLOEXEC | O_NONBLOCK));
    for (unsigned i = 0; i < 4; i++) {
        event.data.u64 = 0x1122334455667788 * i;
        MUST(!epoll_ctl(epoll, EPOLL_CTL_ADD, dup(pair[1]), &event));
    }
    reserve();
}

/* The thread of one guest as a program finds it; the address space is as after reserve(). */
static void use_process(const struct user_guest *guest)
{
    struct dbt_config config = {.direct = true, .protect = mm_protect_code};
    struct process *p = &processes[guest == &user_guest_riscv];
    struct err err;

    user = &p->user;
    if (!p->thread) {
        user->guest = guest;
        user->ops = *guest->ops;
        snprintf(user->exe, sizeof user->exe, "/program");
        config.guest = &user->ops;
        config.opaque = &user->mm;
        config.code_cache_bytes = MiB;
        MUST(!pthread_mutex_init(&user->lock, NULL) && !mm_init(&user->mm));
        MUST(!mm_note(&user->mm, BASE, BASE + 2 * MEM_PAGE_SIZE, PROT_READ | PROT_WRITE));
        MUST(
            !mm_note(&user->mm, BASE + 2 * MEM_PAGE_SIZE, BASE + PAGES * MEM_PAGE_SIZE, PROT_READ));
        MUST(!dbt_create(&user->dbt, &config, &err));
        p->thread = user_thread_create(user);
        MUST(p->thread);
        p->thread->tid = (pid_t)syscall(SYS_gettid);
    }
    user_current = thread = p->thread;
    thread->mask = 0;
    thread->altstack = (stack_t){.ss_flags = SS_DISABLE};
    memset((void *)BASE, 0, 2 * MEM_PAGE_SIZE);
    guest->start(thread->cpu, BASE, BASE + 2 * MEM_PAGE_SIZE);
}

/* ---- Structures ------------------------------------------------------------------------------ */

/* Mostly about the ends of pages. */
static u64 take_address(struct fuzz_input *in)
{
    u64 pick = fuzz_take(in, 2), at = BASE + (pick >> 12 & 3) * MEM_PAGE_SIZE;

    switch (pick >> 14) {
    case 0:
        return at - (pick & 0xfff);
    case 1:
        return at + (pick & 0xfff);
    case 2:
        return at - (pick & 0xff);
    default:
        return fuzz_take(in, 8);
    }
}

static void set_sp(u64 sp)
{
    if (user->guest == &user_guest_x86)
        x86_cpu(thread->cpu)->gpr[X86_RSP] = sp;
    else
        riscv_cpu(thread->cpu)->x[2] = sp;
}

static void write_memory(struct fuzz_input *in)
{
    u8 bytes[64];
    u64 at = BASE + (fuzz_take(in, 2) & 0x1fff), len = fuzz_take(in, 1) & 63;

    fuzz_bytes(in, bytes, len);
    if (at + len <= BASE + 2 * MEM_PAGE_SIZE)
        memcpy((void *)at, bytes, len);
}

static u64 take_registers(u64 regs[33], bool set, struct fuzz_input *in)
{
    u64 *at =
        user->guest == &user_guest_x86 ? x86_cpu(thread->cpu)->gpr : &riscv_cpu(thread->cpu)->x[1];
    unsigned count = user->guest == &user_guest_x86 ? 16 : 31;

    for (unsigned i = 0; i < count; i++) {
        if (set)
            at[i] = fuzz_take(in, 8);
        regs[i] = at[i];
    }
    return count;
}

/* A handler that returns at once leaves the registers as they were. */
static void frame(struct fuzz_input *in)
{
    struct user_action action = {.handler = fuzz_take(in, 8), .restorer = fuzz_take(in, 8)};
    siginfo_t info = {.si_signo = (int)fuzz_take(in, 1)};
    u64 before[33], after[33], mask, sp = take_address(in), count;
    stack_t altstack;

    take_registers(before, fuzz_take(in, 1) & 1, in);
    set_sp(sp);
    count = take_registers(before, false, in);
    thread->mask = fuzz_take(in, 8);
    mask = thread->mask;
    if (user->guest->push_frame(thread, info.si_signo, &info, &action, sp))
        return;
    if (user->guest == &user_guest_x86) /* its handler's RET */
        set_sp(user->guest->sp(thread->cpu) + 8);
    thread->mask = 0;
    MUST(!user->guest->pop_frame(thread, &thread->mask, &altstack));
    take_registers(after, false, in);
    MUST(thread->mask == mask && !memcmp(before, after, count * 8));
}

static void bad_frame(struct fuzz_input *in)
{
    stack_t altstack;
    u64 mask;

    set_sp(take_address(in));
    user->guest->pop_frame(thread, &mask, &altstack);
    user->guest->start(thread->cpu, BASE, BASE + 2 * MEM_PAGE_SIZE);
}

static s64 call(struct fuzz_input *in)
{
    static const char *const links[] = {"/proc/self/exe", "/proc/thread-self/exe", "/", "."};
    u8 which = (u8)fuzz_take(in, 1);
    u64 at = take_address(in);
    u64 other = take_address(in), size = fuzz_take(in, 8);
    const char *link = links[which >> 4 & 3];

    if (which & 0x80)
        memcpy((void *)BASE, link, strlen(link) + 1);
    switch (which & 15) {
    case 0:
        return sys_stat(thread, (u64[6]){which & 0x80 ? BASE : other, at});
    case 1:
        return sys_fstat(thread, (u64[6]){(u64)epoll, at});
    case 2:
        return sys_newfstatat(thread, (u64[6]){(u64)epoll, which & 0x80 ? BASE : other, at, size});
    case 3:
        return sys_uname(thread, (u64[6]){at});
    case 4:
        return sys_readlink(thread, (u64[6]){which & 0x80 ? BASE : other, at, size});
    case 5:
        return sys_readlinkat(thread, (u64[6]){(u64)-100, which & 0x80 ? BASE : other, at, size});
    case 6:
        return sys_epoll_wait(thread, (u64[6]){(u64)epoll, at, size, 0});
    case 7:
        return sys_epoll_pwait(thread, (u64[6]){(u64)epoll, at, size & 7, 0, other, 8});
    case 8:
        return sys_epoll_ctl(thread, (u64[6]){(u64)epoll, EPOLL_CTL_MOD, size & 31, at});
    case 9:
        return sys_rt_sigaction(thread, (u64[6]){size & 127, 0, at, 8});
    case 10:
        return sys_sigaltstack(thread, (u64[6]){at, other});
    case 11:
        return sys_sigaltstack(thread, (u64[6]){0, other});
    case 12:
        return sys_lstat(thread, (u64[6]){which & 0x80 ? BASE : other, at});
    case 13:
        size = 0;
        user->guest->own_call(thread, &(struct user_call){158, {ARCH_GET_FS, at}}, (s64 *)&size);
        return (s64)size;
    default:
        return sys_rt_sigprocmask(thread, (u64[6]){SIG_BLOCK, 0, at, 8});
    }
}

static void step(struct fuzz_input *in)
{
    switch (fuzz_take(in, 1) & 3) {
    case 0:
        write_memory(in);
        break;
    case 1:
        frame(in);
        break;
    case 2:
        bad_frame(in);
        break;
    default:
        MUST(call(in) >= -4095);
        break;
    }
}

/* ---- Programs -------------------------------------------------------------------------------- */

static void unmap_all(void)
{
    for (size_t i = 0; i < user->mm.count; i++)
        munmap(user_ptr(user->mm.maps[i].start), user->mm.maps[i].end - user->mm.maps[i].start);
    free(user->mm.maps);
    free(user);
}

/* The stack's, of which the mappings do not know. */
static void unmap_guard(u64 sp)
{
    for (size_t i = 0; i < user->mm.count; i++)
        if (user->mm.maps[i].start <= sp && sp < user->mm.maps[i].end)
            munmap(user_ptr(user->mm.maps[i].start - MiB), MiB);
}

static void load(const u8 *data, size_t size)
{
    char *argv[] = {file_path, "argument", NULL}, *envp[] = {"NAME=value", NULL};
    struct user_image image = {0};
    struct err err = {""};
    int status;

    MUST(!ftruncate(file, 0) && pwrite(file, data, size, 0) == (ssize_t)size);
    user = calloc(1, sizeof *user);
    MUST(user && !mm_init(&user->mm));
    user->config.argv = argv;
    user->config.envp = envp;
    status = user_load(user, &image, &err);
    MUST(!status == !err.text[0]);
    MUST(status || mm_allows(&user->mm, image.sp, 64, PROT_READ | PROT_WRITE));
    if (!status)
        unmap_guard(image.sp);
    unmap_all();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct fuzz_input in = {data, size};
    u8 choices = (u8)fuzz_take(&in, 1);

    if (!epoll)
        make_process();
    if (choices & 1) {
        load(in.at, in.left);
        return 0;
    }
    use_process(choices & 2 ? &user_guest_x86 : &user_guest_riscv);
    while (in.left)
        step(&in);
    return 0;
}
