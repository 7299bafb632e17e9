/*
 * Preloaded: makes allocation number FAIL_AT of the process fail, or with FAIL_ALL=1 it and all
 * after it. With FAIL_COUNT=FILE nothing fails and their number is written there at the end. Memory
 * mappings of Triode's own count, too.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long calls, fail_at;
static bool fail_all, ready;
static const char *count_path;

/* dlsym allocates before it has an answer. */
static char early[65536];
static size_t early_used;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void write_count(void)
{
    FILE *file = fopen(count_path, "w");

    if (file) {
        fprintf(file, "%lu\n", calls);
        fclose(file);
    }
}

/* A run in user mode ends so. */
void _exit(int status)
{
    if (count_path)
        write_count();
    syscall(SYS_exit_group, status);
    __builtin_unreachable();
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("FAIL_AT");

    real_malloc = dlsym(RTLD_NEXT, "malloc");
    real_realloc = dlsym(RTLD_NEXT, "realloc");
    real_free = dlsym(RTLD_NEXT, "free");
    real_mmap = dlsym(RTLD_NEXT, "mmap");
    real_calloc = dlsym(RTLD_NEXT, "calloc");
    fail_at = at ? strtoul(at, NULL, 10) : 0;
    fail_all = getenv("FAIL_ALL") != NULL;
    count_path = getenv("FAIL_COUNT");
    if (count_path)
        atexit(write_count);
    ready = true;
}

static bool fails(void)
{
    unsigned long n;

    if (!ready)
        return false;
    n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (!fail_at || (fail_all ? n < fail_at : n != fail_at))
        return false;
    errno = ENOMEM;
    return true;
}

static void *early_alloc(size_t bytes)
{
    void *p = early + early_used;

    early_used += (bytes + 15) & ~(size_t)15;
    if (early_used > sizeof early)
        abort();
    return p;
}

static bool is_early(const void *p)
{
    return (const char *)p >= early && (const char *)p < early + sizeof early;
}

void *malloc(size_t bytes)
{
    if (!real_malloc)
        return early_alloc(bytes);
    return fails() ? NULL : real_malloc(bytes);
}

void *calloc(size_t n, size_t bytes)
{
    if (!real_calloc)
        return early_alloc(n * bytes);
    return fails() ? NULL : real_calloc(n, bytes);
}

void *realloc(void *old, size_t bytes)
{
    if (!real_realloc || is_early(old)) {
        void *p = malloc(bytes);

        if (p && old)
            memcpy(p, old, bytes); /* too much is no harm within early[] */
        return p;
    }
    return fails() ? NULL : real_realloc(old, bytes);
}

void free(void *p)
{
    if (p && !is_early(p) && real_free)
        real_free(p);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (!real_mmap)
        real_mmap = dlsym(RTLD_NEXT, "mmap");
    return fails() ? MAP_FAILED : real_mmap(at, bytes, protection, flags, fd, offset);
}
