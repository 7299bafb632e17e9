/*
 * Linux's ABI of riscv64: arch/riscv/include/uapi/asm/ucontext.h and sigcontext.h for the frames,
 * asm-generic's numbers and structs, the RISC-V psABI for registers.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "guest/riscv/riscv.h"
#include "user/private.h"

enum { RA = 1, SP = 2, TP = 4, A0 = 10, A1, A2, A7 = 17 };
#define ECALL_BYTES 4
#define SYS_RISCV_FLUSH_ICACHE 259

/* One bit an extension letter: A C D F I M. */
#define HWCAP                                                                                      \
    (BIT('A' - 'A') | BIT('C' - 'A') | BIT('D' - 'A') | BIT('F' - 'A') | BIT('I' - 'A') |          \
     BIT('M' - 'A'))

/* Exception codes of the privileged manual (scause). */
enum { INSTRUCTION_PAGE_FAULT = 12 };

/* --- registers ---------------------------------------------------------------------------- */

static void start(struct guest_cpu *common, u64 entry, u64 sp)
{
    struct riscv_cpu *cpu = riscv_cpu(common);

    riscv_reset(cpu, entry);
    cpu->x[SP] = sp;
}

static void child(struct guest_cpu *common, u64 sp, bool set_tls, u64 tls)
{
    struct riscv_cpu *cpu = riscv_cpu(common);

    if (sp)
        cpu->x[SP] = sp;
    if (set_tls)
        cpu->x[TP] = tls;
    cpu->x[A0] = 0;
    cpu->reserved_address = RISCV_NO_RESERVATION;
    common->memory->switch_space(common, 0, 0);
}

static void get_call(const struct guest_cpu *common, struct user_call *call)
{
    const struct riscv_cpu *cpu = (const struct riscv_cpu *)common;

    call->number = cpu->x[A7];
    memcpy(call->arg, &cpu->x[A0], sizeof(call->arg));
}

static void set_result(struct guest_cpu *common, s64 result)
{
    riscv_cpu(common)->x[A0] = (u64)result;
}

static void rewind_call(struct guest_cpu *common, const struct user_call *call)
{
    struct riscv_cpu *cpu = riscv_cpu(common);

    cpu->pc -= ECALL_BYTES;
    cpu->x[A0] = call->arg[0];
}

static u64 get_sp(const struct guest_cpu *common)
{
    return ((const struct riscv_cpu *)common)->x[SP];
}

static bool own_call(struct user_thread *t, const struct user_call *call, s64 *result)
{
    (void)t;
    if (call->number != SYS_RISCV_FLUSH_ICACHE)
        return false;
    *result = 0; /* writes to code are seen as they are made */
    return true;
}

/* asm-generic/stat.h */
struct stat_riscv {
    u64 dev, ino;
    u32 mode, nlink, uid, gid;
    u64 rdev, pad1;
    s64 size;
    s32 blksize, pad2;
    s64 blocks, atime;
    u64 atime_nsec;
    s64 mtime;
    u64 mtime_nsec;
    s64 ctime;
    u64 ctime_nsec;
    u32 unused[2];
};

static void put_stat(void *guest, const struct stat *st)
{
    struct stat_riscv to = {
        .dev = st->st_dev,
        .ino = st->st_ino,
        .mode = st->st_mode,
        .nlink = (u32)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = st->st_rdev,
        .size = st->st_size,
        .blksize = (s32)st->st_blksize,
        .blocks = st->st_blocks,
        .atime = st->st_atim.tv_sec,
        .atime_nsec = (u64)st->st_atim.tv_nsec,
        .mtime = st->st_mtim.tv_sec,
        .mtime_nsec = (u64)st->st_mtim.tv_nsec,
        .ctime = st->st_ctim.tv_sec,
        .ctime_nsec = (u64)st->st_ctim.tv_nsec,
    };

    memcpy(guest, &to, sizeof(to));
}

/* --- exceptions --------------------------------------------------------------------------- */

/* Signals as arch/riscv/kernel/traps.c gives them: all at the instruction's address. */
static int trap(struct guest_cpu *common, u32 code, siginfo_t *info)
{
    struct riscv_cpu *cpu = riscv_cpu(common);

    switch (code) {
    case RISCV_EXIT_ECALL:
        cpu->pc += ECALL_BYTES;
        syscall_run(user_current);
        return 0;
    case RISCV_EXIT_EBREAK:
        *info = (siginfo_t){.si_signo = SIGTRAP, .si_code = TRAP_BRKPT};
        break;
    case RISCV_EXIT_MISALIGNED:
        *info = (siginfo_t){.si_signo = SIGBUS, .si_code = BUS_ADRALN};
        break;
    default:
        *info = (siginfo_t){.si_signo = SIGILL, .si_code = ILL_ILLOPC};
        break;
    }
    info->si_addr = user_ptr(cpu->pc);
    return info->si_signo;
}

static void fetch_fault(struct user_fault *fault, bool mapped)
{
    (void)mapped;
    fault->trap = INSTRUCTION_PAGE_FAULT;
}

/* --- signal frames ------------------------------------------------------------------------ */

struct frame {
    siginfo_t info; /* 128 bytes */
    struct {
        u64 flags, link;
        stack_t stack;
        u64 sigmask;
        u8 unused[120]; /* room for a longer mask */
        u64 pad;        /* the machine's context is aligned to 16 bytes */
        u64 pc, x[31];
        union {
            struct {
                u64 f[32];
                u32 fcsr;
            };
            u8 q[528]; /* registers of the Q extension would fill it */
        };
    } uc;
};

/* The C library has no restorer of its own on this machine: the kernel's page of code does it. */
static u64 sigreturn_code(struct user *user)
{
    static const u32 code[] = {0x08b00893, 0x00000073}; /* LI a7, 139; ECALL */
    s64 at;

    pthread_mutex_lock(&user->lock);
    if (!user->sigreturn) {
        at = mm_map(user, 0, sizeof(code), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
        if (at > 0) {
            memcpy(user_ptr((u64)at), code, sizeof(code));
            mm_note(&user->mm, (u64)at, (u64)at + MEM_PAGE_SIZE, PROT_READ | PROT_EXEC);
            mprotect(user_ptr((u64)at), MEM_PAGE_SIZE, mm_host_prot(PROT_READ | PROT_EXEC));
            user->sigreturn = (u64)at;
        }
    }
    pthread_mutex_unlock(&user->lock);
    return user->sigreturn;
}

static int push_frame(struct user_thread *t, int sig, const siginfo_t *info,
                      const struct user_action *action, u64 sp)
{
    struct riscv_cpu *cpu = riscv_cpu(t->cpu);
    u64 at = align_down(sp - sizeof(struct frame), 16), sigreturn = sigreturn_code(t->user);
    struct frame *frame = user_ptr(at);

    if (!sigreturn || !mm_allows(&t->user->mm, at, sizeof(*frame), PROT_WRITE))
        return -EFAULT;
    memset(frame, 0, sizeof(*frame));
    frame->info = *info;
    frame->uc.stack = t->altstack;
    frame->uc.sigmask = t->mask;
    frame->uc.pc = cpu->pc;
    memcpy(frame->uc.x, &cpu->x[1], sizeof(frame->uc.x));
    memcpy(frame->uc.f, cpu->f, sizeof(frame->uc.f));
    frame->uc.fcsr = cpu->fcsr;
    cpu->x[A0] = (u64)sig;
    cpu->x[A1] = (u64)&frame->info;
    cpu->x[A2] = (u64)&frame->uc;
    cpu->x[RA] = sigreturn;
    cpu->x[SP] = at;
    cpu->pc = action->handler;
    cpu->reserved_address = RISCV_NO_RESERVATION;
    return 0;
}

static int pop_frame(struct user_thread *t, u64 *mask, stack_t *altstack)
{
    struct riscv_cpu *cpu = riscv_cpu(t->cpu);
    struct frame frame;

    if (!mm_allows(&t->user->mm, cpu->x[SP], sizeof(frame), PROT_READ))
        return -EFAULT;
    memcpy(&frame, user_ptr(cpu->x[SP]), sizeof(frame));
    cpu->pc = frame.uc.pc & ~1ull;
    memcpy(cpu->f, frame.uc.f, sizeof(cpu->f));
    riscv_set_fcsr(cpu, frame.uc.fcsr);
    *mask = frame.uc.sigmask;
    *altstack = frame.uc.stack;
    memcpy(&cpu->x[1], frame.uc.x, sizeof(frame.uc.x));
    cpu->reserved_address = RISCV_NO_RESERVATION;
    return 0;
}

const struct user_guest user_guest_riscv = {
    .machine = "riscv64",
    .elf_machine = EM_RISCV,
    .numbers = USER_NUMBERS_GENERIC,
    .ops = &riscv_guest_ops,
    .tls_before_ctid = true,
    .hwcap = HWCAP,
    .pie_base = 0x2aaaaaa000,
    .start = start,
    .child = child,
    .get_call = get_call,
    .set_result = set_result,
    .rewind = rewind_call,
    .sp = get_sp,
    .trap = trap,
    .fetch_fault = fetch_fault,
    .push_frame = push_frame,
    .pop_frame = pop_frame,
    .stat_bytes = sizeof(struct stat_riscv),
    .put_stat = put_stat,
    .own_call = own_call,
};
