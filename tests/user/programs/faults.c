/* SIGSEGV and its kin: address, code, and registers as of the faulting instruction. */
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int sig_seen, code_seen;
static volatile uint64_t address_seen, loop_seen, pc_seen;

#if defined(__x86_64__)
#define LOOP_REGISTER(mc) ((uint64_t)(mc)->gregs[REG_RCX])
#define PC(mc) ((uint64_t)(mc)->gregs[REG_RIP])
#elif defined(__riscv)
#define LOOP_REGISTER(mc) ((uint64_t)(mc)->__gregs[28]) /* t3 */
#define PC(mc) ((uint64_t)(mc)->__gregs[0])
#endif

static void on_fault(int sig, siginfo_t *info, void *context)
{
    mcontext_t *mc = &((ucontext_t *)context)->uc_mcontext;

    sig_seen = sig;
    code_seen = info->si_code;
    address_seen = (uint64_t)info->si_addr;
    loop_seen = LOOP_REGISTER(mc);
    pc_seen = PC(mc);
    siglongjmp(back, 1);
}

extern const char walk_store[];

/* Stores bytes from @p on until there is no memory any more, counting in a known register. */
static __attribute__((noinline)) void walk(char *p)
{
#if defined(__x86_64__)
    __asm__ volatile("xor %%ecx, %%ecx\n\t"
                     "1: add $1, %%rcx\n\t"
                     ".globl walk_store\n"
                     "walk_store: movb $7, (%0, %%rcx)\n\t"
                     "jmp 1b" ::"r"(p)
                     : "rcx", "memory");
#elif defined(__riscv)
    __asm__ volatile("li t3, 0\n\tmv t4, %0\n\t"
                     "1: addi t3, t3, 1\n\taddi t4, t4, 1\n\t"
                     ".globl walk_store\n"
                     "walk_store: sb zero, 0(t4)\n\t"
                     "j 1b" ::"r"(p)
                     : "t3", "t4", "memory");
#endif
}

static void report(const char *what, uint64_t base)
{
    printf("%s: signal %d code %d address +%llu\n", what, sig_seen, code_seen,
           (unsigned long long)(address_seen - base));
}

static __attribute__((noinline)) int deep(int n)
{
    volatile char room[4096];

    room[0] = (char)n;
    return n ? deep(n + 1) + room[0] : 0;
}

int main(void)
{
    static char stack[65536];
    stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    char *p = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    sigaltstack(&alt, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
    mprotect(p + 2 * 4096, 4096, PROT_NONE);
    for (int i = 0; i < 3; i++) {
        if (!sigsetjmp(back, 1))
            walk(p + i);
        report("walk", (uint64_t)p);
        printf("loop register %llu, pc exact %d\n", (unsigned long long)loop_seen,
               pc_seen == (uint64_t)walk_store);
    }
    if (!sigsetjmp(back, 1))
        ((void (*)(void))p)();
    report("no execute", (uint64_t)p);
    printf("pc there %d\n", pc_seen == (uint64_t)p);
    munmap(p + 3 * 4096, 4096);
    if (!sigsetjmp(back, 1))
        ((void (*)(void))(p + 3 * 4096))();
    report("not mapped", (uint64_t)p);
    if (!sigsetjmp(back, 1))
        printf("deep %d\n", deep(1));
    printf("stack overflow: signal %d\n", sig_seen);
#if defined(__x86_64__) && !defined(PORTABLE)
    if (!sigsetjmp(back, 1))
        __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::
                             : "eax", "ecx", "edx");
    printf("division: signal %d code %d\n", sig_seen, code_seen);
    if (!sigsetjmp(back, 1))
        __asm__ volatile("hlt");
    printf("hlt: signal %d code %d\n", sig_seen, code_seen);
    if (!sigsetjmp(back, 1))
        __asm__ volatile("int3");
    printf("int3: signal %d code %d\n", sig_seen, code_seen);
    if (!sigsetjmp(back, 1))
        *(volatile char *)0x8000000000000000 = 1;
    report("not canonical", 0);
    if (!sigsetjmp(back, 1)) {
        char *q = p + 4096 + 4090;

        __asm__ volatile("movdqu %%xmm0, (%0)" ::"r"(q) : "memory");
    }
    report("over the edge", (uint64_t)p);
    if (!sigsetjmp(back, 1))
        __asm__ volatile("cld; rep stosb" ::"D"(p + 4096 + 4000), "c"(1000), "a"(3) : "memory");
    report("rep stosb", (uint64_t)p);
    printf("left %llu\n", (unsigned long long)loop_seen);
#endif
    return 0;
}
