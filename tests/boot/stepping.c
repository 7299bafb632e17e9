/*
 * Single steps and breakpoints as a program and a debugger under Linux see them. Runs on the host
 * and, as init, in the guest: what it prints is to be the same.
 */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define SINGLEBLOCK 33 /* PTRACE_SINGLEBLOCK, which not all headers have */

char source[64], target[64];
volatile long watched;
static volatile long traps;

static void trap(int signal)
{
    (void)signal;
    traps++;
}

/* All kinds of instructions with TF set: branches, strings, system calls, what the engine
 * emulates. */
static __attribute__((noinline)) void stepped(void)
{
    __asm__ volatile(
        "pushf; orq $0x100, (%%rsp); popf\n"
        "mov $20, %%ecx; 1: dec %%ecx; jnz 1b\n"
        "mov $39, %%eax; syscall\n" /* getpid */
        "lea source(%%rip), %%rsi; lea target(%%rip), %%rdi; mov $17, %%ecx; rep movsb\n"
        "lea source(%%rip), %%rsi; lea target(%%rip), %%rdi; mov $9, %%ecx; repe cmpsb\n"
        "cpuid; rdtsc; pushf; pop %%rax; push %%rax; popf; mov %%ds, %%eax; mov %%eax, %%es\n"
        "int3; nop; call 2f; 2: pop %%rax\n"
        "pushf; andq $~0x100, (%%rsp); popf\n"
        :
        :
        : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r11", "memory", "cc");
}

static void writes(void)
{
    for (int i = 0; i < 5; i++)
        watched = i;
    __asm__ volatile("lea watched(%%rip), %%rdi; mov $8, %%ecx; xor %%eax, %%eax; rep stosb"
                     :
                     :
                     : "rax", "rcx", "rdi", "memory");
}

static void loop(void)
{
    __asm__ volatile("mov $50, %%ecx; 1: nop; dec %%ecx; jnz 1b" : : : "rcx", "cc");
}

/* A child that stops before it calls @work and then ends. */
static pid_t child(void (*work)(void))
{
    pid_t pid = fork();

    if (!pid) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        work();
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    return pid;
}

/* Goes on by @request until the child has ended; how often it stopped. */
static int stops(int request, pid_t pid)
{
    int status, n = 0;

    for (; n < 100000; n++) {
        if (ptrace(request, pid, 0, 0))
            return -1;
        waitpid(pid, &status, 0);
        if (WIFEXITED(status))
            break;
    }
    return n;
}

static long debug_register(pid_t pid, unsigned n, unsigned long value)
{
    return ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg) + 8 * n, value);
}

static void breakpoints(void)
{
    int status, hits = 0, executed = 0;
    pid_t pid = child(writes);
    long refused = debug_register(pid, 0, (unsigned long)&watched) |
                   debug_register(pid, 1, (unsigned long)_exit) | debug_register(pid, 7, 0xd0005);

    for (;;) {
        ptrace(PTRACE_CONT, pid, 0, 0);
        waitpid(pid, &status, 0);
        if (WIFEXITED(status))
            break;
        status = (int)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg) + 8 * 6, 0);
        hits += status & 1;
        executed += status >> 1 & 1;
        debug_register(pid, 6, 0);
    }
    printf("STEPPING writes %d executed %d refused %ld\n", hits, executed, refused);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    signal(SIGTRAP, trap);
    stepped();
    printf("STEPPING traps %ld\n", traps);
    breakpoints();
    printf("STEPPING steps %d\n", stops(PTRACE_SINGLESTEP, child(stepped)));
    printf("BLOCKS %d of %d\n", stops(SINGLEBLOCK, child(loop)),
           stops(PTRACE_SINGLESTEP, child(loop)));
    if (getpid() == 1)
        reboot(RB_POWER_OFF);
    return 0;
}
