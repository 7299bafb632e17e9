/*
 * Process 1 of bench/guest's guest: runs the programs in /bin and reports each run's time by the
 * guest's monotonic clock. On the kernel command line: bench.only=NAME,NAME... says which and in
 * what order, bench.repeat=N how often each. Output: "bench: NAME NANOSECONDS what it printed".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* What the program says goes through a pipe, at most a line. */
static void run(const char *name)
{
    char path[64], said[256] = "";
    int pipes[2], status;
    size_t n = 0;
    ssize_t got;
    long long begin;
    pid_t child;

    snprintf(path, sizeof(path), "/bin/%s", name);
    if (pipe2(pipes, O_CLOEXEC))
        return;
    begin = now();
    child = fork();
    if (!child) {
        dup2(pipes[1], 1);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    while (n < sizeof(said) - 1 && (got = read(pipes[0], said + n, sizeof(said) - 1 - n)) > 0)
        n += (size_t)got;
    waitpid(child, &status, 0);
    begin = now() - begin;
    close(pipes[0]);
    said[strcspn(said, "\n")] = '\0';
    if (status)
        snprintf(said, sizeof(said), "(wait status %d)", status);
    printf("bench: %s %lld %s\n", name, begin, said);
}

static char *option(char *line, const char *name)
{
    char *at = strstr(line, name);

    return at ? strndup(at + strlen(name), strcspn(at + strlen(name), " \n")) : NULL;
}

int main(void)
{
    char line[2048] = "", *only, *repeat;
    int fd, times;

    setvbuf(stdout, NULL, _IOLBF, 0);
    mount("proc", "/proc", "proc", 0, NULL);
    fd = open("/proc/cmdline", O_RDONLY);
    if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
        puts("bench: no command line");
    only = option(line, "bench.only=");
    repeat = option(line, "bench.repeat=");
    times = repeat ? atoi(repeat) : 1;
    puts("bench: ready");
    for (char *name = only ? strtok(only, ",") : NULL; name; name = strtok(NULL, ","))
        for (int i = 0; i < times; i++)
            run(name);
    sync();
    reboot(RB_POWER_OFF);
    return 0;
}
