/* The parts of user mode to each other. */
#ifndef TRIODE_USER_PRIVATE_H
#define TRIODE_USER_PRIVATE_H

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/bits.h"
#include "dbt/dbt.h"
#include "user/user.h"

#define USER_SIGNALS 64
#define USER_MAX_THREADS 256     /* what dbt takes */
#define USER_RESTART 512         /* negative result: the host's system call was not begun */
#define USER_EXIT_SYSCALL 0x1000 /* exit codes of dbt_run: a system call, */
#define USER_EXIT_FAULT 0x1001   /* thread->fault holds a signal that the instruction raised */

/* --- the guest's address space (mm.c) -------------------------------------------------------- */

struct mapping {
    u64 start, end; /* pages */
    u32 prot;       /* PROT_* as the guest asked for, and USER_PROT_SHARED */
};

/* MAP_SHARED: others may write the same memory, through other mappings and from other processes. */
#define USER_PROT_SHARED (1 << 16)
#define USER_PROT_RIGHTS (PROT_READ | PROT_WRITE | PROT_EXEC)

struct user_mm {
    pthread_mutex_t lock;
    struct mapping *maps; /* sorted, not overlapping */
    size_t count, cap;
    u64 brk_start, brk, brk_end; /* brk_end: mapped so far */
};

struct user;

int mm_init(struct user_mm *mm);
/* Notes (or with @prot -1 forgets) a range; the caller maps it. Lock not held. */
int mm_note(struct user_mm *mm, u64 start, u64 end, int prot);
/* Rights to the page, or -1 outside the guest's memory. */
int mm_prot(struct user_mm *mm, u64 addr);
/* Is all of the range the guest's with rights @prot? */
bool mm_allows(struct user_mm *mm, u64 addr, u64 len, int prot);
/* dbt's protect callback; @opaque is the mm. */
bool mm_protect_code(void *opaque, u64 page, bool on);
/* Host rights for guest rights: nothing of the guest's is executable for the host. */
int mm_host_prot(int prot);
/* mmap for the guest; answers the address or -errno. */
s64 mm_map(struct user *user, u64 addr, u64 len, int prot, int flags, int fd, u64 offset);
void mm_set_brk(struct user_mm *mm, u64 start);

/* --- a guest CPU's Linux ABI (guest_*.c) ------------------------------------------------------ */

enum user_numbers { USER_NUMBERS_X86_64, USER_NUMBERS_GENERIC };

struct user_thread;
struct user_fault;

/* struct sigaction as all guests have it here, after conversion. */
struct user_action {
    u64 handler, flags, restorer, mask;
};

struct user_call {
    u64 number;
    u64 arg[6];
};

struct user_guest {
    const char *machine; /* uname -m, AT_PLATFORM */
    u16 elf_machine;
    enum user_numbers numbers;
    const struct guest_ops *ops; /* its walk is not used */
    bool tls_before_ctid;        /* clone(flags, stack, parent_tid, tls, child_tid) */
    bool has_restorer;           /* struct sigaction has sa_restorer */
    u64 hwcap, hwcap2;
    u64 pie_base;
    u32 red_zone; /* bytes below the stack pointer that a handler must not touch */

    /* A CPU as the kernel starts a program with; memory services are attached. */
    void (*start)(struct guest_cpu *cpu, u64 entry, u64 sp);
    /* The new thread's differences to its parent; sp 0: as the parent's. */
    void (*child)(struct guest_cpu *cpu, u64 sp, bool set_tls, u64 tls);
    void (*get_call)(const struct guest_cpu *cpu, struct user_call *call);
    void (*set_result)(struct guest_cpu *cpu, s64 result);
    /* Back before the system call instruction, with its registers as they were. */
    void (*rewind)(struct guest_cpu *cpu, const struct user_call *call);
    u64 (*sp)(const struct guest_cpu *cpu);
    /* What dbt_run left with, as a signal in @info; 0: none, go on. */
    int (*trap)(struct guest_cpu *cpu, u32 code, siginfo_t *info);
    /* Fills in what the CPU says of a fetch from a page that is not mapped or not executable. */
    void (*fetch_fault)(struct user_fault *fault, bool mapped);
    /* Enters @action's handler through a frame on the stack below @sp; -EFAULT. */
    int (*push_frame)(struct user_thread *t, int sig, const siginfo_t *info,
                      const struct user_action *action, u64 sp);
    /* rt_sigreturn: puts everything back, with the mask and alternate stack; -EFAULT. */
    int (*pop_frame)(struct user_thread *t, u64 *mask, stack_t *altstack);
    u32 stat_bytes; /* of its struct stat, which put_stat fills in */
    void (*put_stat)(void *guest, const struct stat *st);
    /* Calls that this guest alone has; false: unknown. */
    bool (*own_call)(struct user_thread *t, const struct user_call *call, s64 *result);
};

#define GUEST(name) extern const struct user_guest user_guest_##name;
#include "user/guests.def"
#undef GUEST
/* The guest for an ELF machine number; NULL for none. */
const struct user_guest *user_guest_of(u16 elf_machine);

/* --- the process ------------------------------------------------------------------------------ */

struct user {
    struct user_config config;
    const struct user_guest *guest;
    struct guest_ops ops; /* the guest's, with a walk of our own */
    struct dbt *dbt;
    struct user_mm mm;
    pthread_mutex_t lock; /* actions, indices */
    struct user_action actions[USER_SIGNALS + 1];
    u64 indices[USER_MAX_THREADS / 64];
    unsigned nthreads;
    char exe[4096]; /* what /proc/self/exe says */
    u64 sigreturn;  /* code that does rt_sigreturn, for guests without restorer */
};

/* fault.c and signal.c: what the kernel says of an instruction's fault beside siginfo. */
struct user_fault {
    siginfo_t info;
    u64 trap, error, address; /* x86's, for its signal frame */
};

struct user_thread {
    struct user *user;
    struct guest_cpu *cpu;
    pid_t tid;
    u32 pending; /* signal number caught by the host handler and not delivered yet */
    siginfo_t pending_info;
    u64 mask;         /* of the guest; bit n-1 is signal n */
    stack_t altstack; /* of the guest */
    struct user_fault fault;
    struct user_call call; /* the last system call, */
    bool call_interrupted; /* which ended by a signal */
    bool call_restarts;    /* and goes on after a handler with SA_RESTART, */
    bool call_unbegun;     /* or in any case, because the host had not begun it */
    bool call_timed;       /* a futex wait with a timeout: does not restart */
    bool call_keeps;       /* registers are the system call's own work: no result is written */
    u64 clear_tid;
    bool exiting;
    bool vforked; /* runs in its parent's memory until it executes or exits */
};

extern __thread struct user_thread *user_current;

static inline void *user_ptr(u64 gva)
{
    return (void *)gva;
}

/* elf.c: loads the program and makes its first stack. Answers 0, or an exit status. */
struct user_image {
    u64 entry, sp;
};
int user_load(struct user *user, struct user_image *image, struct err *err);
/* Can @path be executed? 0 or -errno as execve has it. */
int user_check_executable(const struct user *user, const char *path);

/* thread.c */
struct user_thread *user_thread_create(struct user *user);
/* Runs until the thread exits; never returns for the last one. */
void user_thread_run(struct user_thread *t);
/* clone and its kin: the new thread's or process's id, or -errno. In a new process answers 0. */
struct user_clone {
    u64 flags, stack, parent_tid, child_tid, tls;
    int exit_signal;
};
s64 user_thread_clone(struct user_thread *t, const struct user_clone *args);
void user_thread_exit(struct user_thread *t, int status);
NORETURN void user_exit(int status);

/* signal.c */
void signal_init(struct user *user, struct user_thread *t);
/* Delivers what is pending; after a system call, restarts it where that is due. */
void signal_deliver(struct user_thread *t);
/* A signal that the instruction raised: cannot be blocked or ignored. */
void signal_force(struct user_thread *t, const siginfo_t *info);
/* The host's mask of this thread is made that of the guest. */
void signal_sync_mask(struct user_thread *t);
u64 signal_host_mask(u64 guest_mask);
NORETURN void signal_die(int sig);
void signal_after_fork(struct user_thread *t);

/* syscall.c */
void syscall_run(struct user_thread *t);
s64 syscall_host(struct user_thread *t, long number, const u64 arg[6]);

/* All system calls of our own doing: arguments are raw, the answer is a result or -errno. */
#define S(name, x86, generic, handler, flags, format)                                              \
    s64 sys_##handler(struct user_thread *t, const u64 a[6]);
#define PASS(name, x86, generic, flags, format)
#include "user/syscalls.def"
#undef S
#undef PASS

/* host_x64.S, host_x64.c: what depends on the host CPU. */

/* Does a system call unless *@interrupted; -USER_RESTART if it did not. */
s64 user_host_syscall(const u32 *interrupted, long number, const u64 arg[6]);
void user_host_restorer(void);
/* A signal handler's context stands before a call of user_host_syscall's: the call is not made. */
void user_host_cancel(void *ucontext);
void user_host_fault(const void *ucontext, struct user_fault *fault);

#endif
