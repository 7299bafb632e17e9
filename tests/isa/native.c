/*
 * The host's own CPU: a child process goes from case to case by signals. Every case ends in one
 * (INT3 at the latest); the handler notes the state in the signal frame, writes the next case's
 * into it, and returns into that. SS and CS of the frame choose 64-bit, 32-bit or 16-bit code.
 */
#include "isa.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define USER_CS64 0x33
#define USER_CS32 0x23
#define USER_DS 0x2b
#define LDT(n) ((n) << 3 | 7)
enum { LDT_CODE16, LDT_DATA16 };
#define XSTATE_MAGIC 0x46505853u /* FP_XSTATE_MAGIC1 */

struct isa_native { /* shared with the child */
    struct isa_case cases[ISA_BATCH];
    struct isa_result results[ISA_BATCH];
    u8 pattern[ISA_DATA_SIZE];
    unsigned first, count;
    volatile int current; /* -1 before the first */
    /* The child lives on from batch to batch: a byte for each there, a byte back when it is
     * done. */
    int socket[2]; /* ours, the child's */
    pid_t child;   /* 0: none */
};

/* The handler has no argument of its own. */
static struct isa_native *shared;

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static void note(const ucontext_t *uc, struct isa_result *r)
{
    const greg_t *g = uc->uc_mcontext.gregs;

    for (unsigned i = 0; i < 16; i++)
        r->out.gpr[i] = (u64)g[greg_of[i]];
    /* IRET to a 16-bit stack leaves half of an espfix address in the upper half. */
    if ((g[REG_CSGSFS] & 0xffff) == LDT(LDT_CODE16))
        r->out.gpr[4] = (u32)r->out.gpr[4];
    r->out.rip = (u64)g[REG_RIP];
    r->out.rflags = (u64)g[REG_EFL];
    r->vector = (u8)g[REG_TRAPNO];
    r->error = (u32)g[REG_ERR];
    r->address = (u64)g[REG_CR2];
    memcpy(r->out.fx, uc->uc_mcontext.fpregs, ISA_FX);
    isa_note_data(&shared->cases[shared->current], (u8 *)ISA_DATA, r);
    r->died = false;
}

static void load(ucontext_t *uc, const struct isa_case *c)
{
    greg_t *g = uc->uc_mcontext.gregs;
    u8 *fx = (u8 *)uc->uc_mcontext.fpregs;
    unsigned ds = c->bits == 16 ? LDT(LDT_DATA16) : USER_DS;
    unsigned cs = c->bits == 16 ? LDT(LDT_CODE16) : c->bits == 32 ? USER_CS32 : USER_CS64;
    u32 magic;

    for (unsigned i = 0; i < 16; i++)
        g[greg_of[i]] = (greg_t)c->in.gpr[i];
    g[REG_RIP] = (greg_t)c->in.rip;
    g[REG_EFL] = (greg_t)(c->in.rflags | 0x202);
    g[REG_CSGSFS] = (greg_t)(cs | (u64)ds << 48);
    /* Only 64-bit code does not care. */
    __asm__ volatile("movw %w0, %%ds; movw %w0, %%es" : : "r"(ds));
    memcpy(fx, c->in.fx, ISA_FX);
    /* An extended frame restores x87 and SSE only if its header says they are there. */
    memcpy(&magic, fx + 464, 4);
    if (magic == XSTATE_MAGIC)
        *(u64 *)(fx + 512) |= 3;
    if (c->patch_at)
        memcpy((void *)c->patch_at, &c->patch, 8);
}

static void set_memory(void)
{
    const size_t fixed = ISA_DATA_SIZE - ISA_WRITABLE;

    memcpy(isa_pattern, shared->pattern, ISA_DATA_SIZE);
    mprotect((void *)(ISA_DATA + ISA_WRITABLE), fixed, PROT_READ | PROT_WRITE);
    memcpy((void *)ISA_DATA, isa_pattern, ISA_DATA_SIZE);
    mprotect((void *)(ISA_DATA + ISA_WRITABLE), fixed, PROT_READ);
}

static void next_batch(void)
{
    char byte = 0;

    alarm(0);
    if (write(shared->socket[1], &byte, 1) != 1 || read(shared->socket[1], &byte, 1) != 1)
        _exit(0);
    alarm(3);
    if (memcmp(isa_pattern, shared->pattern, ISA_DATA_SIZE) != 0)
        set_memory();
    shared->current = (int)shared->first;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    (void)number;
    (void)info;
    /* Before the first access that may be misaligned. */
    __asm__ volatile("pushfq; andl %0, (%%rsp); popfq" : : "i"(~0x40000) : "memory", "cc");
    if (shared->current >= 0)
        note(uc, &shared->results[shared->current]);
    else
        shared->current = (int)shared->first - 1;
    if ((unsigned)++shared->current == shared->count)
        next_batch();
    load(uc, &shared->cases[shared->current]);
}

static void make_segment(unsigned number, unsigned base, unsigned limit, unsigned contents)
{
    struct user_desc d = {
        .entry_number = number,
        .base_addr = base,
        .limit = limit,
        .contents = contents,
    };

    if (syscall(SYS_modify_ldt, 1, &d, sizeof(d))) {
        perror("modify_ldt");
        _exit(2);
    }
}

static NORETURN void child(void)
{
    static u8 stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static const int numbers[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE};

    sigaltstack(&alt, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        sigaction(numbers[i], &sa, NULL);
    make_segment(LDT_CODE16, ISA_CODE, ISA_CODE16_LIMIT, MODIFY_LDT_CONTENTS_CODE);
    make_segment(LDT_DATA16, ISA_DATA, ISA_DATA_SIZE - 1, MODIFY_LDT_CONTENTS_DATA);
    close(shared->socket[0]);
    set_memory();
    alarm(3);
    raise(SIGTRAP);
    _exit(1);
}

static void *map_at(u64 address, size_t size, int protection, int sharing)
{
    void *p = mmap((void *)address, size, protection,
                   sharing | MAP_ANONYMOUS | (address ? MAP_FIXED_NOREPLACE : 0), -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

struct isa_native *isa_native_create(void)
{
    struct isa_native *native = map_at(0, sizeof(*native), PROT_READ | PROT_WRITE, MAP_SHARED);

    map_at(ISA_CODE, ISA_CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED);
    map_at(ISA_DATA, ISA_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    return native;
}

static void start_child(struct isa_native *native)
{
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, native->socket)) {
        perror("socketpair");
        exit(1);
    }
    pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (!pid)
        child();
    native->child = pid;
    close(native->socket[1]);
}

/* It ends by itself when its socket is closed. */
static int end_child(struct isa_native *native)
{
    int status = 0;

    close(native->socket[0]);
    waitpid(native->child, &status, 0);
    native->child = 0;
    return status;
}

/* From case native->first on; false if the child died of one. */
static bool run_batch(struct isa_native *native)
{
    char byte = 0;

    native->current = -1;
    if (!native->child)
        start_child(native);
    else if (write(native->socket[0], &byte, 1) != 1)
        return false;
    return read(native->socket[0], &byte, 1) == 1;
}

const struct isa_result *isa_native_run(struct isa_native *native, const struct isa_case *cases,
                                        unsigned count)
{
    memcpy(native->cases, cases, count * sizeof(*cases));
    for (unsigned i = 0; i < count; i++)
        isa_place(&cases[i], (u8 *)ISA_CODE);
    memcpy(native->pattern, isa_pattern, ISA_DATA_SIZE);
    native->count = count;
    shared = native;
    native->first = 0;
    while (native->first < count && !run_batch(native)) {
        int status = end_child(native);

        if (native->current < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 2))
            exit(1);
        /* Go on behind the case that did it. */
        native->results[native->current].died = true;
        native->first = (unsigned)native->current + 1;
    }
    return native->results;
}

void isa_native_destroy(struct isa_native *native)
{
    if (native->child)
        end_child(native);
    munmap(native, sizeof(*native));
    munmap((void *)ISA_CODE, ISA_CODE_SIZE);
    munmap((void *)ISA_DATA, ISA_DATA_SIZE);
}
