/*
 * Linux's perf events on the guest's performance counters: the first program of a guest, that
 * counts what it knows and prints one line a matter.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of this process in user mode; or with @all of the whole CPU. */
static int event(uint64_t config, int all, uint64_t period)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof(attr),
        .config = config,
        .disabled = 1,
        .exclude_kernel = !all,
        .exclude_hv = 1,
        .sample_period = period,
        .wakeup_events = period ? 1 : 0,
    };

    return (int)syscall(SYS_perf_event_open, &attr, all ? -1 : 0, all ? 0 : -1, -1, 0);
}

static uint64_t value(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* 2 n + 1 instructions, n branches. */
static void loop(uint64_t n)
{
    __asm__ volatile("mov %0, %%rcx; 1: dec %%rcx; jnz 1b" : : "r"(n) : "rcx", "cc");
}

/* The least of some tries: an interrupt's IRET counts too. */
static uint64_t count_of(int fd, uint64_t n)
{
    uint64_t least = ~0ull;

    for (int i = 0; i < 40; i++) {
        uint64_t count;

        ioctl(fd, PERF_EVENT_IOC_RESET, 0);
        ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
        loop(n);
        ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
        count = value(fd);
        least = count < least ? count : least;
    }
    return least;
}

static void exact(const char *name, uint64_t config)
{
    int fd = event(config, 0, 0);
    uint64_t few = count_of(fd, 1000), many = count_of(fd, 101000);

    printf("COUNTERS %s: %llu more\n", name, (unsigned long long)(many - few));
    close(fd);
}

/* By RDPMC in user mode, as the mapped page says. */
static void read_directly(void)
{
    int fd = event(PERF_COUNT_HW_INSTRUCTIONS, 0, 0);
    struct perf_event_mmap_page *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    uint64_t least = ~0ull;

    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    if (page == MAP_FAILED || !page->cap_user_rdpmc || !page->index) {
        printf("COUNTERS rdpmc: not offered\n");
        return;
    }
    for (int i = 0; i < 20; i++) {
        uint32_t index = page->index - 1, first, second;

        __asm__ volatile("rdpmc; mov %%eax, %%esi; .rept 10; nop; .endr; rdpmc"
                         : "=a"(second), "=S"(first)
                         : "c"(index)
                         : "rdx");
        least = second - first < least ? second - first : least;
    }
    printf("COUNTERS rdpmc: %llu\n", (unsigned long long)least);
    close(fd);
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

/* A sample every so many instructions. */
static void samples(void)
{
    int fd = event(PERF_COUNT_HW_INSTRUCTIONS, 0, 1000000);
    void *ring = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct sigaction action = {.sa_handler = on_signal};

    sigaction(SIGIO, &action, NULL);
    fcntl(fd, F_SETOWN, getpid());
    fcntl(fd, F_SETFL, O_ASYNC);
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    loop(10000000);
    ioctl(fd, PERF_EVENT_IOC_DISABLE, 0);
    printf("COUNTERS samples: %s\n",
           ring != MAP_FAILED && signals >= 20 && signals <= 21 ? "20 or 21" : "other");
    printf("COUNTERS signals %d\n", (int)signals);
    close(fd);
}

/* None while the CPU has nothing to do. */
static void sleeping(void)
{
    int fd = event(PERF_COUNT_HW_CPU_CYCLES, 1, 0);
    struct timespec rest = {.tv_nsec = 300000000};
    uint64_t busy, idle;

    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0);
    loop(20000000);
    busy = value(fd);
    nanosleep(&rest, NULL);
    idle = value(fd) - busy;
    printf("COUNTERS cycles: %s\n", busy > 1000000 && idle < busy ? "busy" : "idle");
    close(fd);
}

int main(void)
{
    exact("instructions", PERF_COUNT_HW_INSTRUCTIONS);
    exact("branches", PERF_COUNT_HW_BRANCH_INSTRUCTIONS);
    read_directly();
    samples();
    sleeping();
    fflush(stdout);
    reboot(RB_POWER_OFF);
    return 0;
}
