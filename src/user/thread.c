/* Guest threads on host threads; new processes. */
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "trace/trace.h"
#include "user/private.h"

#define THREAD_FLAGS                                                                               \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define TID_FLAGS (CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_SETTLS)
#define IGNORED_FLAGS (CLONE_DETACHED | CLONE_IO | CLONE_PTRACE | CLONE_CLEAR_SIGHAND)
#define HOST_STACK (512 * KiB) /* frames of translated code are 17 KiB */

__thread struct user_thread *user_current;

static int take_index(struct user *user)
{
    int index = -EAGAIN;

    pthread_mutex_lock(&user->lock);
    for (unsigned i = 0; i < USER_MAX_THREADS && index < 0; i++) {
        if (user->indices[i / 64] & BIT(i % 64))
            continue;
        user->indices[i / 64] |= BIT(i % 64);
        user->nthreads++;
        index = (int)i;
    }
    pthread_mutex_unlock(&user->lock);
    return index;
}

static void give_index(struct user *user, unsigned index)
{
    pthread_mutex_lock(&user->lock);
    user->indices[index / 64] &= ~BIT(index % 64);
    user->nthreads--;
    pthread_mutex_unlock(&user->lock);
}

struct user_thread *user_thread_create(struct user *user)
{
    size_t bytes = align_up(user->guest->ops->state_size, 64);
    struct user_thread *t = calloc(1, sizeof(*t));
    int index;

    if (!t)
        return NULL;
    t->user = user;
    t->altstack.ss_flags = SS_DISABLE;
    t->cpu = aligned_alloc(64, bytes);
    index = t->cpu ? take_index(user) : -ENOMEM;
    if (index < 0) {
        free(t->cpu);
        free(t);
        return NULL;
    }
    memset(t->cpu, 0, bytes);
    t->cpu->ops = &user->ops;
    t->cpu->index = (unsigned)index;
    if (dbt_attach(user->dbt, t->cpu)) {
        give_index(user, t->cpu->index);
        free(t->cpu);
        free(t);
        return NULL;
    }
    return t;
}

static void thread_free(struct user_thread *t)
{
    unsigned index = t->cpu->index;

    dbt_detach(t->cpu);
    give_index(t->user, index);
    free(t->cpu);
    free(t);
}

/* Guest registers of @from; what dbt keeps in the common part stays. */
static void copy_state(struct guest_cpu *to, const struct guest_cpu *from, size_t size)
{
    memcpy((u8 *)to + sizeof(*to), (const u8 *)from + sizeof(*from), size - sizeof(*to));
    to->mode = from->mode;
}

/* --- running ------------------------------------------------------------------------------ */

/* The bytes of the next instruction cannot be read although its page may be executed. */
static void fetch_fault(struct user_thread *t)
{
    siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_ADRERR};

    info.si_addr = user_ptr(t->cpu->scratch[0]);
    signal_force(t, &info);
}

static void handle(struct user_thread *t, u32 code)
{
    siginfo_t info = {0};

    switch (code) {
    case USER_EXIT_SYSCALL:
        syscall_run(t);
        break;
    case USER_EXIT_FAULT:
        signal_force(t, &t->fault.info);
        break;
    case IR_EXIT_REQUEST:
        __atomic_and_fetch(&t->cpu->request, ~(u32)GUEST_REQ_KICK, __ATOMIC_SEQ_CST);
        break;
    case DBT_EXIT_STEP:
        break;
    case DBT_EXIT_FETCH:
        fetch_fault(t);
        break;
    case DBT_EXIT_NOMEM:
        log_error("the host has no memory for translated code");
        signal_die(SIGKILL);
        break;
    default:
        if (t->user->guest->trap(t->cpu, code, &info)) {
            t->fault.info = info;
            signal_force(t, &info);
        }
    }
}

void user_thread_run(struct user_thread *t)
{
    while (!t->exiting) {
        handle(t, dbt_run(t->cpu));
        if (unlikely(__atomic_load_n(&t->pending, __ATOMIC_RELAXED)) && !t->exiting)
            signal_deliver(t);
    }
}

NORETURN void user_exit(int status)
{
    if (!user_current || !user_current->vforked)
        trace_close();
    _exit(status);
}

static void clear_tid(struct user_thread *t)
{
    u32 *tid = user_ptr(t->clear_tid);

    if (!tid || !mm_allows(&t->user->mm, t->clear_tid, 4, PROT_WRITE))
        return;
    __atomic_store_n(tid, 0, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, tid, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void user_thread_exit(struct user_thread *t, int status)
{
    bool last;

    pthread_mutex_lock(&t->user->lock);
    last = t->user->nthreads == 1;
    pthread_mutex_unlock(&t->user->lock);
    if (last || t->vforked)
        user_exit(status);
    clear_tid(t);
    t->exiting = true;
    if (t->tid != getpid())
        return; /* its function ends, and with it the host thread */
    thread_free(t);
    syscall(SYS_exit, status);
}

/* --- threads ------------------------------------------------------------------------------ */

struct start {
    struct user_thread *t;
    const struct user_clone *args;
    pid_t tid; /* the thread may be gone before its parent looks */
    sem_t ready;
};

static bool put_tid(struct user_thread *t, u64 addr, s32 tid)
{
    if (!mm_allows(&t->user->mm, addr, 4, PROT_WRITE))
        return false;
    memcpy(user_ptr(addr), &tid, 4);
    return true;
}

static void *thread_main(void *opaque)
{
    struct start *start = opaque;
    struct user_thread *t = start->t;
    sigset_t all;

    user_current = t;
    t->tid = start->tid = (pid_t)syscall(SYS_gettid);
    if (start->args->flags & CLONE_PARENT_SETTID)
        put_tid(t, start->args->parent_tid, t->tid);
    if (start->args->flags & CLONE_CHILD_SETTID)
        put_tid(t, start->args->child_tid, t->tid);
    sem_post(&start->ready); /* from here on *start is gone */
    signal_sync_mask(t);
    user_thread_run(t);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    user_current = NULL;
    thread_free(t);
    return NULL;
}

static s64 new_thread(struct user_thread *parent, const struct user_clone *args)
{
    struct user_thread *t = user_thread_create(parent->user);
    struct start start = {.t = t, .args = args};
    sigset_t all, before;
    pthread_attr_t attr;
    pthread_t thread;
    s64 ret;

    if (!t)
        return -EAGAIN;
    copy_state(t->cpu, parent->cpu, t->cpu->ops->state_size);
    parent->user->guest->child(t->cpu, args->stack, args->flags & CLONE_SETTLS, args->tls);
    t->mask = parent->mask;
    if (args->flags & CLONE_CHILD_CLEARTID)
        t->clear_tid = args->child_tid;
    sem_init(&start.ready, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, HOST_STACK);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ret = -pthread_create(&thread, &attr, thread_main, &start);
    if (!ret) {
        while (sem_wait(&start.ready))
            ;
        ret = start.tid;
    } else {
        thread_free(t);
    }
    if (!__atomic_load_n(&parent->pending, __ATOMIC_RELAXED))
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    sem_destroy(&start.ready);
    return ret;
}

/* --- processes ---------------------------------------------------------------------------- */

static void become_child(struct user_thread *t, const struct user_clone *args)
{
    t->tid = (pid_t)syscall(SYS_gettid);
    t->user->guest->child(t->cpu, args->stack, args->flags & CLONE_SETTLS, args->tls);
    t->clear_tid = args->flags & CLONE_CHILD_CLEARTID ? args->child_tid : 0;
    if (args->flags & CLONE_CHILD_SETTID)
        put_tid(t, args->child_tid, t->tid);
    signal_after_fork(t);
}

static s64 new_process(struct user_thread *t, const struct user_clone *args)
{
    struct user *user = t->user;
    s64 pid = dbt_fork_prepare(t->cpu);

    if (pid)
        return pid == -ENOSPC ? -ENOMEM : pid;
    pthread_mutex_lock(&user->mm.lock);
    pthread_mutex_lock(&user->lock);
    pid = fork();
    if (pid < 0)
        pid = -errno;
    pthread_mutex_unlock(&user->lock);
    pthread_mutex_unlock(&user->mm.lock);
    if (pid) {
        dbt_fork_parent(t->cpu);
        if (pid > 0 && args->flags & CLONE_PARENT_SETTID)
            put_tid(t, args->parent_tid, (s32)pid);
        return pid;
    }
    if (dbt_fork_child(t->cpu)) {
        log_error("a new process has no memory for translated code");
        signal_die(SIGKILL);
    }
    memset(user->indices, 0, sizeof(user->indices));
    user->indices[t->cpu->index / 64] = BIT(t->cpu->index % 64);
    user->nthreads = 1;
    become_child(t, args);
    return 0;
}

struct vfork {
    struct user_thread *t;
    const struct user_clone *args;
};

/* In the parent's memory, while the parent's thread sleeps: with its thread struct and CPU. */
static int vfork_main(void *opaque)
{
    struct vfork *v = opaque;

    v->t->vforked = true;
    v->t->user->guest->set_result(v->t->cpu, 0);
    become_child(v->t, v->args);
    user_thread_run(v->t);
    _exit(0);
}

static s64 new_vfork(struct user_thread *t, const struct user_clone *args)
{
    struct vfork v = {t, args};
    size_t size = t->cpu->ops->state_size;
    struct user_action actions[USER_SIGNALS + 1];
    struct user_thread before = *t;
    struct guest_cpu *cpu = aligned_alloc(64, align_up(size, 64));
    u8 *stack = mmap(NULL, HOST_STACK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    sigset_t all, mask;
    s64 pid = -ENOMEM;

    /* Until all is as it was, a signal would be noted in the child's place. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    if (cpu && stack != MAP_FAILED) {
        memcpy(cpu, t->cpu, size);
        memcpy(actions, t->user->actions, sizeof(actions));
        pid = clone(vfork_main, stack + HOST_STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, &v);
        if (pid < 0)
            pid = -errno;
        copy_state(t->cpu, cpu, size);
        t->cpu->leave = NULL;
        memcpy(t->user->actions, actions, sizeof(actions));
        *t = before;
    }
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (stack != MAP_FAILED)
        munmap(stack, HOST_STACK);
    free(cpu);
    return pid;
}

s64 user_thread_clone(struct user_thread *t, const struct user_clone *args)
{
    u64 flags = args->flags & ~(u64)IGNORED_FLAGS, kind = flags & ~(u64)TID_FLAGS;

    if (kind == THREAD_FLAGS || kind == (THREAD_FLAGS & ~CLONE_SYSVSEM))
        return t->vforked ? -EINVAL : new_thread(t, args);
    if (args->exit_signal != SIGCHLD)
        return -EINVAL;
    if (kind == (CLONE_VM | CLONE_VFORK))
        return t->vforked ? new_process(t, args) : new_vfork(t, args);
    return kind & ~(u64)CLONE_VFORK ? -EINVAL : new_process(t, args);
}
