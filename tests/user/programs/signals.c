/* Signals: handlers, masks, the alternate stack, what a handler sees and changes. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count, last_code, last_pid_ok;
static volatile long last_value;

static void on_info(int sig, siginfo_t *info, void *context)
{
    (void)context;
    count += sig;
    last_code = info->si_code;
    last_pid_ok = info->si_pid == getpid();
    last_value = info->si_value.sival_int;
}

static void set(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};

    sigaction(sig, &action, NULL);
}

static void basics(void)
{
    struct sigaction old;
    sigset_t mask, pending;

    set(SIGUSR1, on_info, 0);
    sigaction(SIGUSR1, NULL, &old);
    printf("old %d %x\n", old.sa_sigaction == on_info, old.sa_flags & SA_SIGINFO);
    raise(SIGUSR1);
    printf("raise %d %d\n", count, last_code == SI_TKILL);
    kill(getpid(), SIGUSR1);
    printf("kill %d %d %d\n", count, last_code == SI_USER, last_pid_ok);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    printf("queue %d %d %ld\n", count, last_code == SI_QUEUE, last_value);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    count = 0;
    raise(SIGUSR1);
    sigpending(&pending);
    printf("blocked %d %d\n", count, sigismember(&pending, SIGUSR1));
    sigemptyset(&mask);
    errno = 0;
    last_value = sigsuspend(&mask);
    printf("suspend %ld %d\n", last_value, errno == EINTR);
    printf("then %d\n", count);
    sigprocmask(SIG_SETMASK, NULL, &mask);
    printf("mask %d\n", sigismember(&mask, SIGUSR1));
    sigemptyset(&mask);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    printf("SIGKILL %d\n", sigaction(SIGKILL, &old, NULL) ? errno : 0);
    signal(SIGUSR2, SIG_IGN);
    raise(SIGUSR2);
    set(SIGUSR2, on_info, SA_RESETHAND);
    raise(SIGUSR2);
    sigaction(SIGUSR2, NULL, &old);
    printf("reset %d\n", old.sa_handler == SIG_DFL);
}

static volatile int depth, most, calls;

static void on_nested(int sig, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    depth++;
    if (depth > most)
        most = depth;
    if (++calls < 4)
        raise(sig);
    depth--;
}

static char stack_memory[65536];
static volatile int inside;

static void on_stack(int sig, siginfo_t *info, void *context)
{
    char here;
    stack_t now;

    (void)sig;
    (void)info;
    (void)context;
    sigaltstack(NULL, &now);
    inside = &here > stack_memory && &here < stack_memory + sizeof(stack_memory) &&
             now.ss_flags == SS_ONSTACK;
}

static void stacks(void)
{
    stack_t alt = {.ss_sp = stack_memory, .ss_size = sizeof(stack_memory)}, now;

    set(SIGUSR1, on_nested, SA_NODEFER);
    raise(SIGUSR1);
    printf("nested %d of %d\n", most, calls);
    most = calls = 0;
    set(SIGUSR1, on_nested, 0);
    raise(SIGUSR1);
    printf("deferred %d of %d\n", most, calls);
    printf("sigaltstack %d\n", sigaltstack(&alt, NULL));
    set(SIGUSR1, on_stack, SA_ONSTACK);
    raise(SIGUSR1);
    printf("on it %d\n", inside);
    sigaltstack(NULL, &now);
    printf("off it %d\n", now.ss_flags);
}

/* A loop that a timer's handler ends: signals reach code that makes no system calls. */
static void asynchronous(void)
{
    struct itimerval timer = {.it_value = {0, 20000}, .it_interval = {0, 2000}};
    volatile uint64_t spins = 0;

    count = 0;
    set(SIGALRM, on_info, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    while (count < 10 * SIGALRM)
        spins++;
    memset(&timer, 0, sizeof(timer));
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("timer %d\n", spins > 0);
}

static void interrupted(int flags, const char *what)
{
    struct itimerval timer = {.it_value = {0, 20000}};
    int ends[2];
    char byte = 0;
    ssize_t n;

    if (pipe(ends))
        return;
    count = 0;
    set(SIGALRM, on_info, flags);
    if (!fork()) {
        usleep(60000);
        n = write(ends[1], "z", 1);
        _exit(n != 1);
    }
    setitimer(ITIMER_REAL, &timer, NULL);
    n = read(ends[0], &byte, 1);
    printf("%s %zd %d %d\n", what, n, n < 0 ? errno : byte, count);
    wait(NULL);
    close(ends[0]);
    close(ends[1]);
}

static void sleeping(void)
{
    struct itimerval timer = {.it_value = {0, 20000}};
    struct timespec want = {2, 0}, left = {0, 0};
    int ret;

    set(SIGALRM, on_info, SA_RESTART);
    setitimer(ITIMER_REAL, &timer, NULL);
    ret = nanosleep(&want, &left);
    printf("nanosleep %d %d %d\n", ret, errno == EINTR, left.tv_sec == 1);
}

/* A handler that looks at and changes the interrupted context. */
#if defined(__x86_64__) && !defined(PORTABLE)
static volatile uint64_t seen[4];

static void on_trap(int sig, siginfo_t *info, void *context)
{
    mcontext_t *mc = &((ucontext_t *)context)->uc_mcontext;

    (void)sig;
    (void)info;
    seen[0] = (uint64_t)mc->gregs[REG_RBX];
    seen[1] = (uint64_t)mc->gregs[REG_R15];
    seen[2] = (uint64_t)mc->gregs[REG_EFL] & 0x8d5;
    memcpy((void *)&seen[3], &mc->fpregs->_xmm[5], 8);
    mc->gregs[REG_RBX] += 1;
    mc->gregs[REG_RIP] += 2; /* over the undefined instruction */
    memcpy(&mc->fpregs->_xmm[5], &(uint64_t){0x4045000000000000}, 8);
}

static void context(void)
{
    uint64_t rbx = 0x1111222233334444, five = 0x4014000000000000, out;

    set(SIGILL, on_trap, 0);
    __asm__ volatile("movq %2, %%xmm5\n\tmov $0x77, %%r15\n\tmov $-1, %%rax\n\tadd $1, %%rax\n\t"
                     "ud2\n\tmovq %%xmm5, %1"
                     : "+b"(rbx), "=r"(out)
                     : "r"(five)
                     : "rax", "r15", "xmm5", "cc");
    printf("context %llx %llx %llx %llx -> %llx %llx\n", (unsigned long long)seen[0],
           (unsigned long long)seen[1], (unsigned long long)seen[2], (unsigned long long)seen[3],
           (unsigned long long)rbx, (unsigned long long)out);
}
#else
static void context(void)
{
}
#endif

static void child_status(int sig)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        signal(sig, SIG_DFL);
        raise(sig);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    printf("child %d %d %d\n", sig, WIFSIGNALED(status), WTERMSIG(status));
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    basics();
    stacks();
    asynchronous();
    interrupted(SA_RESTART, "restarted");
    interrupted(0, "interrupted");
    sleeping();
    context();
    child_status(SIGTERM);
    child_status(SIGABRT);
    child_status(SIGSEGV);
    return 0;
}
