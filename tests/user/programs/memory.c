/* The address space: mappings, protection, growing and moving, the heap. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static sigjmp_buf back;
static void *volatile fault_address;
static volatile int fault_code, fault_signal;

static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    fault_signal = sig;
    fault_address = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(back, 1);
}

/* What an access at @p does, relative to @base. */
static void try(const char *what, volatile char *p, volatile char *base, int write)
{
    if (sigsetjmp(back, 1)) {
        printf("%s: signal %d code %d at %ld\n", what, fault_signal, fault_code,
               (long)((volatile char *)fault_address - base));
        return;
    }
    if (write)
        *p = 1;
    else
        (void)*p;
    printf("%s: fine\n", what);
}

static void protection(void)
{
    char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    try("write", p + 5, p, 1);
    printf("mprotect %d\n", mprotect(p + PAGE, PAGE, PROT_READ));
    try("read ro", p + PAGE + 3, p, 0);
    try("write ro", p + PAGE + 3, p, 1);
    printf("mprotect %d\n", mprotect(p + 2 * PAGE, PAGE, PROT_NONE));
    try("read none", p + 2 * PAGE + 7, p, 0);
    printf("munmap %d\n", munmap(p + 3 * PAGE, PAGE));
    try("read unmapped", p + 3 * PAGE + 9, p, 0);
    printf("mprotect hole %d\n", mprotect(p, 4 * PAGE, PROT_READ) ? errno : 0);
    try("write after it", p + 1, p, 1); /* what lies before the hole was changed */
    mprotect(p, PAGE, PROT_READ | PROT_WRITE);
    memset(p, 'a', PAGE / 2);
    printf("fixed %d\n", mmap(p, PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
    printf("cleared %d\n", p[0] == 0 && p[PAGE / 2 - 1] == 0);
    munmap(p, 4 * PAGE);
    try("null", NULL, NULL, 0);
}

static void files(void)
{
    char name[] = "/tmp/triode-memory-XXXXXX", *shared, *private;
    int fd = mkstemp(name);
    char buf[4] = "";

    if (ftruncate(fd, PAGE))
        return;
    shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    private = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memcpy(shared, "one", 3);
    memcpy(private + 8, "two", 3);
    printf("read %zd %s\n", pread(fd, buf, 3, 0), buf);
    printf("private %.3s %d\n", private, shared[8]);
    try("beyond the end", shared + PAGE + 1, shared, 0);
    printf("msync %d\n", msync(shared, PAGE, MS_SYNC));
    munmap(shared, 2 * PAGE);
    munmap(private, PAGE);
    close(fd);
    unlink(name);
}

static void moving(void)
{
    char *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *q;

    strcpy(p + PAGE, "stays");
    q = mremap(p, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    printf("grown %s %d\n", q + PAGE, q[63 * PAGE]);
    q[63 * PAGE] = 7;
    p = mremap(q, 64 * PAGE, PAGE, 0);
    printf("shrunk %d\n", p == q);
    try("cut off", q + PAGE, q, 0);
    printf("dontneed %d", madvise(p, PAGE, MADV_DONTNEED));
    printf(" %d\n", p[0]);
    munmap(p, PAGE);
    printf("mremap nothing %d\n", mremap((void *)PAGE, PAGE, 2 * PAGE, 0) == MAP_FAILED);
}

static void heap(void)
{
    char *start = sbrk(0), *more;
    uint64_t sum = 0;

    printf("sbrk %d\n", sbrk(3 * PAGE) == start);
    memset(start, 1, 3 * PAGE);
    printf("brk back %d\n", brk(start));
    for (int round = 0; round < 200; round++) {
        size_t size = (size_t)round * 4099 + 1;

        more = malloc(size);
        memset(more, round, size);
        more = realloc(more, size * 2);
        sum += (unsigned char)more[size - 1];
        free(more);
    }
    printf("sum %llu\n", (unsigned long long)sum);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    protection();
    files();
    moving();
    heap();
    return 0;
}
