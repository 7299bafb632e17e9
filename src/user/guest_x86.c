/*
 * Linux's ABI of x86-64: arch/x86/include/uapi/asm/sigcontext.h and ucontext.h for the frames, the
 * System V ABI's AMD64 supplement for registers.
 */
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#include "base/log.h"
#include "guest/x86/x86.h"
#include "user/private.h"

#define RED_ZONE 128
#define SYSCALL_BYTES 2
#define USER_CS 0x33
#define USER_SS 0x2b
/* Flags that a program may have changed when its handler returns. */
#define SIGRETURN_FLAGS (X86_FLAGS_ARITH | X86_FLAG_DF | X86_FLAG_TF | X86_FLAG_RF | X86_FLAG_AC)

/* --- the CPU as a kernel would leave it to programs ------------------------------------------ */

/* CPUID of x86-64-v2: leaf, subleaf, EAX, EBX, ECX, EDX. */
static const struct {
    u32 leaf, out[4];
} leaves[] = {
    {0, {7, 0x756e6547, 0x6c65746e, 0x49656e69}}, /* GenuineIntel */
    /* Family 6, model 36h. SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT; FPU TSC MSR PAE CX8 SEP PGE MCA
     * CMOV PAT CLFSH MMX FXSR SSE SSE2 */
    {1, {0x00030661, 0x00010800, 0x00982201, 0x0788a171}},
    {2, {0, 0, 0, 0}},
    {4, {0, 0, 0, 0}},
    {7, {0, 0, 0, 0}},
    {0x80000000, {0x80000008, 0, 0, 0}},
    {0x80000001, {0, 0, 0x00000001, 0x20100800}}, /* LAHF; SYSCALL NX LM */
    {0x80000002, {0x6f697254, 0x61206564, 0x38782062, 0x34362d36}},
    {0x80000003, {0x0032762d, 0, 0, 0}},
    {0x80000004, {0, 0, 0, 0}},
    {0x80000007, {0, 0, 0, 0x00000100}}, /* invariant TSC */
    {0x80000008, {0x00003030, 0, 0, 0}},
};

static void cpuid(struct x86_cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)cpu;
    (void)subleaf;
    memset(out, 0, 4 * sizeof(*out));
    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
        if (leaves[i].leaf == leaf)
            memcpy(out, leaves[i].out, sizeof(leaves[i].out));
}

static u64 tsc(const struct x86_cpu *cpu)
{
    (void)cpu;
    return __rdtsc();
}

static void on_syscall(struct x86_cpu *cpu)
{
    guest_leave(&cpu->common, USER_EXIT_SYSCALL);
}

static const struct x86_hooks hooks = {.cpuid = cpuid, .tsc = tsc, .syscall = on_syscall};

static void set_segments(struct x86_cpu *cpu)
{
    u32 flags = X86_SEG_S | X86_SEG_P | X86_SEG_G | 3u << 5;

    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = (struct x86_seg){.access = X86_SEG_UNUSABLE};
    cpu->seg[X86_CS] = (struct x86_seg){
        .limit = 0xffffffff, .selector = USER_CS, .access = flags | 11 | X86_SEG_L};
    cpu->seg[X86_SS] = (struct x86_seg){
        .limit = 0xffffffff, .selector = USER_SS, .access = flags | 3 | X86_SEG_DB};
}

static void init_fpu(struct x86_cpu *cpu)
{
    cpu->fcw = 0x37f;
    cpu->fsw = 0;
    cpu->ftop = 0;
    cpu->ftag = 0;
    cpu->mxcsr = 0x1f80;
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
}

static void start(struct guest_cpu *common, u64 entry, u64 sp)
{
    struct x86_cpu *cpu = x86_cpu(common);

    cpu->hooks = &hooks;
    cpu->phys_mask = mask_low(48);
    x86_reset(cpu, false);
    cpu->cr0 =
        X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    cpu->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    cpu->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    cpu->cpl = 3;
    cpu->quiet = true;
    set_segments(cpu);
    init_fpu(cpu);
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    cpu->gpr[X86_RSP] = sp;
    cpu->lip = entry;
    x86_set_rflags(cpu, 2 | X86_FLAG_IF);
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
}

static void child(struct guest_cpu *common, u64 sp, bool set_tls, u64 tls)
{
    struct x86_cpu *cpu = x86_cpu(common);

    if (sp)
        cpu->gpr[X86_RSP] = sp;
    if (set_tls)
        cpu->seg[X86_FS].base = tls;
    cpu->gpr[X86_RAX] = 0;
    x86_update_mode(cpu);
    x86_update_mmu(cpu);
}

/* --- system calls ------------------------------------------------------------------------- */

static void get_call(const struct guest_cpu *common, struct user_call *call)
{
    const u64 *r = ((const struct x86_cpu *)common)->gpr;
    const struct user_call from = {r[X86_RAX],
                                   {r[X86_RDI], r[X86_RSI], r[X86_RDX], r[10], r[8], r[9]}};

    *call = from;
}

/* RCX and R11 are the instruction's own. */
static void set_result(struct guest_cpu *common, s64 result)
{
    struct x86_cpu *cpu = x86_cpu(common);

    cpu->gpr[X86_RAX] = (u64)result;
    cpu->gpr[X86_RCX] = cpu->lip;
    cpu->gpr[11] = x86_rflags(cpu);
}

static void rewind_call(struct guest_cpu *common, const struct user_call *call)
{
    struct x86_cpu *cpu = x86_cpu(common);

    cpu->lip -= SYSCALL_BYTES;
    cpu->gpr[X86_RAX] = call->number;
}

static u64 get_sp(const struct guest_cpu *common)
{
    return ((const struct x86_cpu *)common)->gpr[X86_RSP];
}

static s64 arch_prctl(struct user_thread *t, const u64 a[6])
{
    struct x86_cpu *cpu = x86_cpu(t->cpu);
    struct x86_seg *seg = &cpu->seg[a[0] == ARCH_SET_FS || a[0] == ARCH_GET_FS ? X86_FS : X86_GS];

    switch (a[0]) {
    case ARCH_SET_FS:
    case ARCH_SET_GS:
        if (a[1] >> 47)
            return -EPERM;
        seg->base = a[1];
        return 0;
    case ARCH_GET_FS:
    case ARCH_GET_GS:
        if (!mm_allows(&t->user->mm, a[1], 8, PROT_WRITE))
            return -EFAULT;
        memcpy(user_ptr(a[1]), &seg->base, 8);
        return 0;
    default:
        return -EINVAL;
    }
}

static bool own_call(struct user_thread *t, const struct user_call *call, s64 *result)
{
    if (call->number != 158)
        return false;
    *result = arch_prctl(t, call->arg);
    return true;
}

static void put_stat(void *guest, const struct stat *st)
{
    memcpy(guest, st, sizeof(*st));
}

/* --- exceptions --------------------------------------------------------------------------- */

static int fp_code(u32 flags)
{
    if (flags & 1)
        return FPE_FLTINV;
    if (flags & 4)
        return FPE_FLTDIV;
    if (flags & 8)
        return FPE_FLTOVF;
    return flags & 0x12 ? FPE_FLTUND : FPE_FLTRES;
}

/* Signals of exceptions as arch/x86/kernel/traps.c gives them; -1: no address. */
static int signal_of(struct x86_cpu *cpu, u8 vector, siginfo_t *info)
{
    void *rip = user_ptr(cpu->lip);

    switch (vector) {
    case X86_DE:
        *info = (siginfo_t){.si_signo = SIGFPE, .si_code = FPE_INTDIV};
        info->si_addr = rip;
        break;
    case X86_DB:
        *info = (siginfo_t){.si_signo = SIGTRAP, .si_code = TRAP_TRACE};
        info->si_addr = rip;
        break;
    case X86_BP:
        *info = (siginfo_t){.si_signo = SIGTRAP, .si_code = SI_KERNEL};
        break;
    case X86_UD:
        *info = (siginfo_t){.si_signo = SIGILL, .si_code = ILL_ILLOPN};
        info->si_addr = rip;
        break;
    case X86_MF:
        *info = (siginfo_t){.si_signo = SIGFPE, .si_code = fp_code(cpu->fsw & ~cpu->fcw)};
        info->si_addr = rip;
        break;
    case X86_XM:
        *info =
            (siginfo_t){.si_signo = SIGFPE, .si_code = fp_code(cpu->mxcsr & ~(cpu->mxcsr >> 7))};
        info->si_addr = rip;
        break;
    case X86_AC:
        *info = (siginfo_t){.si_signo = SIGBUS, .si_code = BUS_ADRALN};
        break;
    default:
        *info = (siginfo_t){.si_signo = SIGSEGV, .si_code = SI_KERNEL};
    }
    return info->si_signo;
}

static int trap(struct guest_cpu *common, u32 code, siginfo_t *info)
{
    struct x86_cpu *cpu = x86_cpu(common);
    struct user_fault *fault = &user_current->fault;
    u8 vector;

    if (code == X86_EXIT_UNIMPLEMENTED) {
        log_error("an instruction at %#" PRIx64 " that is not implemented", cpu->lip);
        vector = X86_UD;
    } else if (code == X86_EXIT_EVENT && cpu->pending.valid) {
        vector = cpu->pending.vector;
        fault->error = cpu->pending.has_error ? cpu->pending.error : 0;
        if (cpu->pending.type == 6 || cpu->pending.type == 5) /* INT3: a trap */
            cpu->lip += cpu->pending.insn_len;
        else if (cpu->pending.type == 4) { /* INT n: no gate is open to programs */
            fault->error = vector * 8u + 2;
            vector = X86_GP;
        }
        cpu->pending.valid = false;
    } else if (code >= X86_EXIT_VECTOR && code < X86_EXIT_VECTOR + 32) {
        vector = (u8)(code - X86_EXIT_VECTOR);
        fault->error = 0;
    } else {
        return 0; /* a change of mode: go on */
    }
    fault->trap = vector;
    return signal_of(cpu, vector, info);
}

/* The page-fault error code of a fetch by a program: SDM vol. 3 4.7. */
static void fetch_fault(struct user_fault *fault, bool mapped)
{
    fault->trap = X86_PF;
    fault->error = mapped ? 0x15 : 0x14;
}

/* --- signal frames ------------------------------------------------------------------------ */

struct sigcontext_x86 {
    u64 r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
    u16 cs, gs, fs, ss;
    u64 err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct frame {
    u64 restorer;
    u64 uc_flags, uc_link;
    stack_t uc_stack;
    struct sigcontext_x86 mc;
    u64 uc_sigmask;
    siginfo_t info;
};

#define UC_FLAGS 6 /* UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
#define FPSTATE_BYTES 512

/* Order of sigcontext's first 16 registers. */
static const u8 order[16] = {8,       9,       10,      11,      12,      13,
                             14,      15,      X86_RDI, X86_RSI, X86_RBP, X86_RBX,
                             X86_RDX, X86_RAX, X86_RCX, X86_RSP};

static void fill_context(struct user_thread *t, struct sigcontext_x86 *mc, u64 fpstate)
{
    struct x86_cpu *cpu = x86_cpu(t->cpu);
    u64 *out = &mc->r8;

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        out[i] = cpu->gpr[order[i]];
    mc->ip = cpu->lip;
    mc->flags = x86_rflags(cpu);
    mc->cs = USER_CS;
    mc->ss = USER_SS;
    mc->err = t->fault.error;
    mc->trapno = t->fault.trap;
    mc->cr2 = t->fault.address;
    mc->oldmask = t->mask;
    mc->fpstate = fpstate;
}

static int push_frame(struct user_thread *t, int sig, const siginfo_t *info,
                      const struct user_action *action, u64 sp)
{
    struct x86_cpu *cpu = x86_cpu(t->cpu);
    u64 fpstate = align_down(sp - FPSTATE_BYTES, 64);
    u64 at = align_down(fpstate - sizeof(struct frame), 16) - 8;
    struct frame *frame = user_ptr(at);
    u8 image[FPSTATE_BYTES] = {0};

    if (!mm_allows(&t->user->mm, at, sp - at, PROT_WRITE) || !action->restorer)
        return -EFAULT;
    x86_fxsave(cpu, image, true);
    memset(image + 464, 0, 48); /* no extended state behind it */
    memcpy(user_ptr(fpstate), image, sizeof(image));
    memset(frame, 0, sizeof(*frame));
    frame->restorer = action->restorer;
    frame->uc_flags = UC_FLAGS;
    frame->uc_stack = t->altstack;
    frame->uc_sigmask = t->mask;
    frame->info = *info;
    fill_context(t, &frame->mc, fpstate);
    cpu->gpr[X86_RDI] = (u64)sig;
    cpu->gpr[X86_RSI] = (u64)&frame->info;
    cpu->gpr[X86_RDX] = (u64)&frame->uc_flags;
    cpu->gpr[X86_RAX] = 0;
    cpu->gpr[X86_RSP] = at;
    cpu->lip = action->handler;
    x86_set_rflags(cpu, x86_rflags(cpu) & ~(X86_FLAG_DF | X86_FLAG_RF | X86_FLAG_TF));
    init_fpu(cpu);
    x86_update_mode(cpu);
    return 0;
}

static int pop_frame(struct user_thread *t, u64 *mask, stack_t *altstack)
{
    struct x86_cpu *cpu = x86_cpu(t->cpu);
    u64 at = cpu->gpr[X86_RSP] - 8;
    struct frame frame;
    const u64 *in = &frame.mc.r8;

    if (!mm_allows(&t->user->mm, at, sizeof(frame), PROT_READ))
        return -EFAULT;
    memcpy(&frame, user_ptr(at), sizeof(frame));
    if (frame.mc.fpstate && !mm_allows(&t->user->mm, frame.mc.fpstate, FPSTATE_BYTES, PROT_READ))
        return -EFAULT;
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        cpu->gpr[order[i]] = in[i];
    cpu->lip = frame.mc.ip;
    x86_set_rflags(cpu, (x86_rflags(cpu) & ~SIGRETURN_FLAGS) | (frame.mc.flags & SIGRETURN_FLAGS));
    if (frame.mc.fpstate)
        x86_fxrstor(cpu, user_ptr(frame.mc.fpstate), true);
    else
        init_fpu(cpu);
    x86_update_mode(cpu);
    *mask = frame.uc_sigmask;
    *altstack = frame.uc_stack;
    return 0;
}

const struct user_guest user_guest_x86 = {
    .machine = "x86_64",
    .elf_machine = EM_X86_64,
    .numbers = USER_NUMBERS_X86_64,
    .ops = &x86_guest_ops,
    .fetch_fault = fetch_fault,
    .has_restorer = true,
    .hwcap = 0x0788a171, /* CPUID.1:EDX */
    .pie_base = 0x4000000000,
    .red_zone = RED_ZONE,
    .start = start,
    .child = child,
    .get_call = get_call,
    .set_result = set_result,
    .rewind = rewind_call,
    .sp = get_sp,
    .trap = trap,
    .push_frame = push_frame,
    .pop_frame = pop_frame,
    .stat_bytes = sizeof(struct stat),
    .put_stat = put_stat,
    .own_call = own_call,
};
