/*
 * Signals. The host's kernel keeps them: a guest's handler has a host handler standing for it, the
 * guest's masks and ignored signals are the host thread's and process's. The host handler notes the
 * signal, blocks all others and asks the translated code to stop; the guest's frame is made at the
 * next boundary of blocks. SIGSEGV and SIGBUS are always caught and never blocked, because they are
 * also how the guest's memory faults are learnt.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/log.h"
#include "user/private.h"

#define SA_RESTORER_FLAG 0x04000000
#define AUTODISARM (1u << 31) /* SS_AUTODISARM */
#define SYNC_SIGNALS (BIT(SIGSEGV - 1) | BIT(SIGBUS - 1))
#define KEPT_FLAGS ((u64)(SA_NOCLDSTOP | SA_NOCLDWAIT))

/* What the kernel takes. */
struct host_action {
    void (*handler)(int, siginfo_t *, void *);
    u64 flags;
    void (*restorer)(void);
    u64 mask;
};

static int host_sigaction(int sig, const struct host_action *action, struct host_action *old)
{
    return (int)syscall(SYS_rt_sigaction, sig, action, old, 8);
}

u64 signal_host_mask(u64 guest_mask)
{
    return guest_mask & ~SYNC_SIGNALS;
}

static void set_host_mask(u64 mask)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

void signal_sync_mask(struct user_thread *t)
{
    /* With one noted, all others stay blocked until it is delivered. */
    if (!__atomic_load_n(&t->pending, __ATOMIC_RELAXED))
        set_host_mask(signal_host_mask(t->mask));
}

/* --- host handlers ------------------------------------------------------------------------ */

static void block_all_after(void *ucontext)
{
    u64 mask = ~SYNC_SIGNALS;

    memcpy(&((ucontext_t *)ucontext)->uc_sigmask, &mask, sizeof(mask));
}

static void on_signal(int sig, siginfo_t *info, void *ucontext)
{
    struct user_thread *t = user_current;

    if (!t)
        return;
    if (t->pending) { /* between a look at it and a change of mask: the kernel keeps this one */
        syscall(SYS_rt_tgsigqueueinfo, getpid(), t->tid, sig, info);
    } else {
        t->pending_info = *info;
        __atomic_store_n(&t->pending, (u32)sig, __ATOMIC_SEQ_CST);
    }
    block_all_after(ucontext);
    user_host_cancel(ucontext);
    dbt_request(t->cpu, GUEST_REQ_KICK);
}

static void own_fault(int sig)
{
    static const struct host_action by_default;

    log_error("internal error: a fault (signal %d) outside guest code", sig);
    host_sigaction(sig, &by_default, NULL); /* the instruction does it again */
}

static void on_fault(int sig, siginfo_t *info, void *ucontext)
{
    struct user_thread *t = user_current;
    u64 addr = (u64)info->si_addr;

    if (info->si_code <= 0) {
        on_signal(sig, info, ucontext);
        return;
    }
    if (!t) {
        own_fault(sig);
        return;
    }
    if (sig == SIGSEGV && info->si_code == SEGV_ACCERR) {
        int prot = mm_prot(&t->user->mm, addr);

        if (prot >= 0 && prot & PROT_WRITE) {
            dbt_fault_write(t->cpu, ucontext, addr);
            if (t->pending)
                block_all_after(ucontext);
            return;
        }
    }
    if (!dbt_fault_precise(t->cpu, ucontext)) {
        own_fault(sig);
        return;
    }
    user_host_fault(ucontext, &t->fault);
    t->fault.info = *info;
    if (sig == SIGSEGV && info->si_code == SEGV_ACCERR && mm_prot(&t->user->mm, addr) < 0)
        t->fault.info.si_code = SEGV_MAPERR; /* a page that is there for Triode only */
    guest_leave(t->cpu, USER_EXIT_FAULT);
}

/* --- dispositions ------------------------------------------------------------------------- */

static void set_disposition(struct user *user, int sig)
{
    const struct user_action *action = &user->actions[sig];
    struct host_action host = {.restorer = user_host_restorer,
                               .flags =
                                   SA_RESTORER_FLAG | SA_SIGINFO | (action->flags & KEPT_FLAGS)};

    if (SYNC_SIGNALS & BIT(sig - 1)) {
        host.handler = on_fault;
        host.flags |= SA_NODEFER; /* it is left by a jump */
    } else if (action->handler == (u64)SIG_DFL || action->handler == (u64)SIG_IGN) {
        host.handler = (void (*)(int, siginfo_t *, void *))action->handler;
        host.flags &= ~(u64)SA_SIGINFO;
    } else {
        host.handler = on_signal;
        host.mask = ~SYNC_SIGNALS;
    }
    host_sigaction(sig, &host, NULL);
}

void signal_init(struct user *user, struct user_thread *t)
{
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &t->mask, 8);
    for (int sig = 1; sig <= USER_SIGNALS; sig++) {
        struct host_action present;

        /* A program started with a signal ignored is to see that. */
        if (!host_sigaction(sig, NULL, &present) && (u64)present.handler == (u64)SIG_IGN)
            user->actions[sig].handler = (u64)SIG_IGN;
    }
    set_disposition(user, SIGSEGV);
    set_disposition(user, SIGBUS);
    signal_sync_mask(t);
}

void signal_after_fork(struct user_thread *t)
{
    t->pending = 0;
    t->call_interrupted = false;
    signal_sync_mask(t);
}

NORETURN void signal_die(int sig)
{
    static const struct host_action by_default;
    struct rlimit none = {0, 0};
    u64 mask = ~BIT(sig - 1);

    setrlimit(RLIMIT_CORE, &none); /* it would be Triode's memory, not the program's file */
    host_sigaction(sig, &by_default, NULL);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), sig);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    _exit(128 + sig);
}

/* --- delivery ----------------------------------------------------------------------------- */

static bool on_altstack(const struct user_thread *t, u64 sp)
{
    return !(t->altstack.ss_flags & SS_DISABLE) && sp > (u64)t->altstack.ss_sp &&
           sp - (u64)t->altstack.ss_sp <= t->altstack.ss_size;
}

static void enter_handler(struct user_thread *t, int sig, const siginfo_t *info,
                          const struct user_action *action)
{
    u64 sp = t->user->guest->sp(t->cpu);

    if (action->flags & SA_ONSTACK && !(t->altstack.ss_flags & SS_DISABLE) && !on_altstack(t, sp))
        sp = (u64)t->altstack.ss_sp + t->altstack.ss_size;
    else
        sp -= t->user->guest->red_zone;
    if (t->user->guest->push_frame(t, sig, info, action, sp))
        signal_die(SIGSEGV);
    if (t->altstack.ss_flags & (int)AUTODISARM)
        t->altstack = (stack_t){.ss_flags = SS_DISABLE};
    t->mask |= action->mask | (action->flags & SA_NODEFER ? 0 : BIT(sig - 1));
    t->mask &= ~(BIT(SIGKILL - 1) | BIT(SIGSTOP - 1));
}

/* The action for @sig as it is taken now. */
static struct user_action take_action(struct user *user, int sig)
{
    struct user_action action;

    pthread_mutex_lock(&user->lock);
    action = user->actions[sig];
    if (action.flags & SA_RESETHAND && action.handler > (u64)SIG_IGN) {
        user->actions[sig].handler = (u64)SIG_DFL;
        set_disposition(user, sig);
    }
    pthread_mutex_unlock(&user->lock);
    return action;
}

void signal_force(struct user_thread *t, const siginfo_t *info)
{
    int sig = info->si_signo;
    struct user_action action = take_action(t->user, sig);

    if (action.handler == (u64)SIG_DFL || action.handler == (u64)SIG_IGN || t->mask & BIT(sig - 1))
        signal_die(sig);
    enter_handler(t, sig, info, &action);
    signal_sync_mask(t);
}

void signal_deliver(struct user_thread *t)
{
    int sig = (int)t->pending;
    siginfo_t info = t->pending_info;
    struct user_action action = take_action(t->user, sig);
    bool runs = action.handler != (u64)SIG_DFL && action.handler != (u64)SIG_IGN;

    if (t->call_interrupted &&
        (!runs || t->call_unbegun || (t->call_restarts && action.flags & SA_RESTART)))
        t->user->guest->rewind(t->cpu, &t->call);
    t->call_interrupted = false;
    __atomic_store_n(&t->pending, 0, __ATOMIC_SEQ_CST);
    if (runs)
        enter_handler(t, sig, &info, &action);
    else if (action.handler ==
             (u64)SIG_DFL) { /* became so in between: the kernel knows what to do */
        if (SYNC_SIGNALS & BIT(sig - 1))
            signal_die(sig);
        syscall(SYS_rt_tgsigqueueinfo, getpid(), t->tid, sig, &info);
    }
    t->fault.trap = 0;
    signal_sync_mask(t);
}

/* --- system calls ------------------------------------------------------------------------- */

/* struct sigaction in guest memory: handler, flags, restorer where there is one, mask. */
static void read_action(const struct user_guest *guest, const void *guest_action,
                        struct user_action *to)
{
    u64 from[4] = {0};

    memcpy(from, guest_action, guest->has_restorer ? 32 : 24);
    to->handler = from[0];
    to->flags = from[1];
    to->restorer = guest->has_restorer ? from[2] : 0;
    to->mask = from[guest->has_restorer ? 3 : 2];
}

static void write_action(const struct user_guest *guest, void *guest_action,
                         const struct user_action *from)
{
    u64 to[4] = {from->handler, from->flags, from->restorer, from->mask};

    if (!guest->has_restorer)
        to[2] = from->mask;
    memcpy(guest_action, to, guest->has_restorer ? 32 : 24);
}

s64 sys_rt_sigaction(struct user_thread *t, const u64 a[6])
{
    struct user *user = t->user;
    unsigned bytes = user->guest->has_restorer ? 32 : 24;
    int sig = (int)a[0];
    struct user_action old, action = {0};

    if (sig < 1 || sig > USER_SIGNALS || a[3] != 8 || (a[1] && (sig == SIGKILL || sig == SIGSTOP)))
        return -EINVAL;
    if ((a[1] && !mm_allows(&user->mm, a[1], bytes, PROT_READ)) ||
        (a[2] && !mm_allows(&user->mm, a[2], bytes, PROT_WRITE)))
        return -EFAULT;
    if (a[1])
        read_action(user->guest, user_ptr(a[1]), &action);
    pthread_mutex_lock(&user->lock);
    old = user->actions[sig];
    if (a[1]) {
        user->actions[sig] = action;
        set_disposition(user, sig);
    }
    pthread_mutex_unlock(&user->lock);
    if (a[2])
        write_action(user->guest, user_ptr(a[2]), &old);
    return 0;
}

s64 sys_rt_sigprocmask(struct user_thread *t, const u64 a[6])
{
    u64 old = t->mask, set = 0;

    if (a[3] != 8)
        return -EINVAL;
    if ((a[1] && !mm_allows(&t->user->mm, a[1], 8, PROT_READ)) ||
        (a[2] && !mm_allows(&t->user->mm, a[2], 8, PROT_WRITE)))
        return -EFAULT;
    if (a[1]) {
        memcpy(&set, user_ptr(a[1]), 8);
        switch (a[0]) {
        case SIG_BLOCK:
            t->mask |= set;
            break;
        case SIG_UNBLOCK:
            t->mask &= ~set;
            break;
        case SIG_SETMASK:
            t->mask = set;
            break;
        default:
            return -EINVAL;
        }
        t->mask &= ~(BIT(SIGKILL - 1) | BIT(SIGSTOP - 1));
        signal_sync_mask(t);
    }
    if (a[2])
        memcpy(user_ptr(a[2]), &old, 8);
    return 0;
}

s64 sys_rt_sigreturn(struct user_thread *t, const u64 a[6])
{
    stack_t altstack = t->altstack;
    u64 mask;

    (void)a;
    t->call_keeps = true;
    if (t->user->guest->pop_frame(t, &mask, &altstack)) {
        siginfo_t info = {.si_signo = SIGSEGV, .si_code = SI_KERNEL};

        signal_force(t, &info);
        return 0;
    }
    t->altstack.ss_sp = altstack.ss_sp;
    t->altstack.ss_size = altstack.ss_size;
    t->altstack.ss_flags = altstack.ss_flags & ~SS_ONSTACK;
    t->mask = mask & ~(BIT(SIGKILL - 1) | BIT(SIGSTOP - 1));
    signal_sync_mask(t);
    return 0;
}

s64 sys_sigaltstack(struct user_thread *t, const u64 a[6])
{
    bool in_use = on_altstack(t, t->user->guest->sp(t->cpu));
    stack_t old = t->altstack, set;

    if ((a[0] && !mm_allows(&t->user->mm, a[0], sizeof(set), PROT_READ)) ||
        (a[1] && !mm_allows(&t->user->mm, a[1], sizeof(set), PROT_WRITE)))
        return -EFAULT;
    if (a[0]) {
        memcpy(&set, user_ptr(a[0]), sizeof(set));
        if (in_use)
            return -EPERM;
        if (set.ss_flags & ~(int)(SS_DISABLE | SS_ONSTACK | AUTODISARM))
            return -EINVAL;
        if (set.ss_flags & SS_DISABLE) {
            set.ss_sp = NULL;
            set.ss_size = 0;
        } else if (set.ss_size < 2048) {
            return -ENOMEM;
        }
        set.ss_flags &= ~SS_ONSTACK;
        t->altstack = set;
    }
    if (a[1]) {
        old.ss_flags |= in_use ? SS_ONSTACK : 0;
        memcpy(user_ptr(a[1]), &old, sizeof(old));
    }
    return 0;
}

s64 sys_rt_sigsuspend(struct user_thread *t, const u64 a[6])
{
    u64 mask;

    if (a[1] != 8)
        return -EINVAL;
    if (!mm_allows(&t->user->mm, a[0], 8, PROT_READ))
        return -EFAULT;
    memcpy(&mask, user_ptr(a[0]), 8);
    mask = signal_host_mask(mask);
    return syscall_host(t, SYS_rt_sigsuspend, (u64[6]){(u64)&mask, 8});
}
