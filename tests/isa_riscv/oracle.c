/* The oracle: qemu-riscv64 in user mode, one run for a batch of cases. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "isa_riscv.h"

/* What it offers beyond our extensions is switched off. */
#define CPU "rv64,v=false,zbc=false,h=false,Zfh=false,zbkb=false,zbkx=false"

static void execute(int in, int out, const char *path)
{
    if (dup2(out, 1) < 0)
        _exit(126);
    close(in);
    execlp("qemu-riscv64", "qemu-riscv64", "-cpu", CPU, path, (char *)NULL);
    _exit(errno == ENOENT ? 77 : 126);
}

static int run(const char *path, void *buf, size_t size)
{
    int pipes[2], status;
    size_t got = 0;
    ssize_t n;
    pid_t pid;

    if (pipe(pipes))
        return -1;
    pid = fork();
    if (pid < 0)
        return -1;
    if (!pid)
        execute(pipes[0], pipes[1], path);
    close(pipes[1]);
    while (got < size && (n = read(pipes[0], (u8 *)buf + got, size - got)) > 0)
        got += (size_t)n;
    close(pipes[0]);
    if (waitpid(pid, &status, 0) != pid)
        return -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return 1;
    if (status || got != size) {
        fprintf(stderr, "qemu-riscv64 ended with status %#x after %zu of %zu bytes\n", status, got,
                size);
        return -1;
    }
    return 0;
}

int isa_oracle(const struct isa_program *p, struct isa_area *results)
{
    char path[] = "/tmp/isa_riscv.XXXXXX";
    int fd = mkstemp(path), ret = -1;

    if (fd < 0)
        return -1;
    if (!isa_write_elf(p, fd) && !fchmod(fd, 0700)) {
        close(fd);
        ret = run(path, results, p->results_bytes);
    } else {
        close(fd);
    }
    unlink(path);
    return ret;
}
