/* System calls that make, end and replace processes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "trace/trace.h"
#include "user/private.h"

#define MAX_ARGUMENTS 65536

s64 sys_clone(struct user_thread *t, const u64 a[6])
{
    bool tls_first = t->user->guest->tls_before_ctid;
    struct user_clone args = {
        .flags = a[0] & ~(u64)CSIGNAL,
        .exit_signal = (int)(a[0] & CSIGNAL),
        .stack = a[1],
        .parent_tid = a[2],
        .child_tid = tls_first ? a[4] : a[3],
        .tls = tls_first ? a[3] : a[4],
    };

    return user_thread_clone(t, &args);
}

s64 sys_clone3(struct user_thread *t, const u64 a[6])
{
    struct clone_args in = {0};
    struct user_clone args;

    if (a[1] < CLONE_ARGS_SIZE_VER0 || a[1] > MEM_PAGE_SIZE)
        return a[1] > MEM_PAGE_SIZE ? -E2BIG : -EINVAL;
    if (!mm_allows(&t->user->mm, a[0], a[1], PROT_READ))
        return -EFAULT;
    memcpy(&in, user_ptr(a[0]), a[1] < sizeof(in) ? a[1] : sizeof(in));
    if (in.set_tid_size || in.cgroup || in.flags & CLONE_PIDFD)
        return -EINVAL;
    args = (struct user_clone){
        .flags = in.flags,
        .exit_signal = (int)in.exit_signal,
        .stack = in.stack ? in.stack + in.stack_size : 0,
        .parent_tid = in.parent_tid,
        .child_tid = in.child_tid,
        .tls = in.tls,
    };
    return user_thread_clone(t, &args);
}

s64 sys_fork(struct user_thread *t, const u64 a[6])
{
    (void)a;
    return user_thread_clone(t, &(struct user_clone){.exit_signal = SIGCHLD});
}

s64 sys_vfork(struct user_thread *t, const u64 a[6])
{
    (void)a;
    return user_thread_clone(
        t, &(struct user_clone){.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD});
}

s64 sys_exit(struct user_thread *t, const u64 a[6])
{
    user_thread_exit(t, (int)a[0]);
    return 0;
}

s64 sys_exit_group(struct user_thread *t, const u64 a[6])
{
    if (unlikely(trace_enabled(TRACE_SYSCALL)))
        trace_emit(SYSCALL, syscall, t->tid, .name = "exit_group", .a0 = a[0]);
    user_exit((int)a[0]);
}

s64 sys_set_tid_address(struct user_thread *t, const u64 a[6])
{
    t->clear_tid = a[0];
    return t->tid;
}

/* --- execve ------------------------------------------------------------------------------- */

/* Number of words in the guest's list at @addr; -EFAULT, -E2BIG. */
static s64 count_words(struct user_thread *t, u64 addr)
{
    s64 n = 0;

    if (!addr)
        return 0;
    for (;; n++) {
        if (!mm_allows(&t->user->mm, addr + 8 * (u64)n, 8, PROT_READ))
            return -EFAULT;
        if (!((const u64 *)user_ptr(addr))[n])
            return n;
        if (n == MAX_ARGUMENTS)
            return -E2BIG;
    }
}

/* "triode user OPTIONS --argv0 NAME -- PATH ARGUMENTS". */
static char **triode_words(struct user_thread *t, const char *path, char *const *argv, s64 argc)
{
    const struct user_config *config = &t->user->config;
    char **words = calloc(config->noptions + (size_t)argc + 8, sizeof(*words));
    size_t at = 0;

    if (!words)
        return NULL;
    words[at++] = (char *)"triode";
    words[at++] = (char *)"user";
    for (unsigned i = 0; i < config->noptions; i++)
        words[at++] = (char *)config->options[i];
    if (argc) {
        words[at++] = (char *)"--argv0";
        words[at++] = argv[0];
    }
    words[at++] = (char *)"--";
    words[at++] = (char *)path;
    for (s64 i = 1; i < argc; i++)
        words[at++] = argv[i];
    return words;
}

static s64 execute(struct user_thread *t, const char *path, u64 argv, u64 envp)
{
    char *none[] = {NULL};
    s64 argc = count_words(t, argv), envc = count_words(t, envp);
    char **words;
    s64 result = user_check_executable(t->user, path);

    if (argc < 0 || envc < 0)
        return argc < 0 ? argc : envc;
    if (result)
        return result;
    words = triode_words(t, path, user_ptr(argv), argc);
    if (!words)
        return -ENOMEM;
    result = syscall_host(t, SYS_execve,
                          (u64[6]){(u64) "/proc/self/exe", (u64)words, envp ? envp : (u64)none});
    free(words);
    return result;
}

/* A copy of the guest's path: it is looked at here before the kernel sees it. */
static s64 read_path(struct user_thread *t, u64 addr, char path[PATH_MAX])
{
    for (size_t n = 0; n < PATH_MAX; n++) {
        if (!(n && (addr + n) & (MEM_PAGE_SIZE - 1)) &&
            !mm_allows(&t->user->mm, addr + n, 1, PROT_READ))
            return -EFAULT;
        path[n] = ((const char *)user_ptr(addr))[n];
        if (!path[n])
            return n ? 0 : -ENOENT;
    }
    return -ENAMETOOLONG;
}

s64 sys_execve(struct user_thread *t, const u64 a[6])
{
    char path[PATH_MAX];
    s64 ret = read_path(t, a[0], path);

    if (ret)
        return ret;
    if (!strcmp(path, "/proc/self/exe"))
        memcpy(path, t->user->exe, sizeof(t->user->exe));
    return execute(t, path, a[1], a[2]);
}

s64 sys_execveat(struct user_thread *t, const u64 a[6])
{
    char path[PATH_MAX], full[PATH_MAX + 32];
    s64 ret = read_path(t, a[1], path);

    if (ret == -ENOENT && a[4] & AT_EMPTY_PATH)
        *path = '\0';
    else if (ret)
        return ret;
    if (a[4] & ~(u64)AT_EMPTY_PATH)
        return -EINVAL;
    if (*path == '/' || ((int)a[0] == AT_FDCWD && *path))
        return execute(t, path, a[2], a[3]);
    snprintf(full, sizeof(full), "/proc/self/fd/%d%s%s", (int)a[0], *path ? "/" : "", path);
    return execute(t, full, a[2], a[3]);
}
