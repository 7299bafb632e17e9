/* fork, exec, wait, spawn, pipes between processes, exit statuses. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void show_status(const char *what, int status)
{
    printf("%s exited %d status %d signal %d\n", what, WIFEXITED(status),
           WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           WIFSIGNALED(status) ? WTERMSIG(status) : -1);
}

static void forks(void)
{
    int ends[2], status, value = 1;
    char buf[32] = "";
    pid_t pid;

    if (pipe(ends))
        return;
    pid = fork();
    if (!pid) {
        value = 2;
        dprintf(ends[1], "child %d %d", value, getppid() == getpid());
        _exit(41);
    }
    printf("wait %d\n", waitpid(pid, &status, 0) == pid);
    show_status("fork", status);
    printf("read %zd %s, here %d\n", read(ends[0], buf, sizeof(buf) - 1), buf, value);
    for (int i = 0; i < 20; i++)
        if (!fork())
            _exit(i);
    for (int i = 0, sum = 0; i < 20; i++) {
        wait(&status);
        sum += WEXITSTATUS(status);
        if (i == 19)
            printf("sum %d\n", sum);
    }
    printf("no more %d\n", wait(&status) < 0 ? errno : 0);
}

static void spawns(const char *self)
{
    char *argv[] = {"a name", "echo", "one two", "", "three", NULL};
    char *env[] = {"COLOUR=green", NULL};
    char *nothing[] = {"none", NULL};
    int status;
    pid_t pid;

    printf("spawn\n");
    fflush(stdout);
    if (posix_spawn(&pid, self, NULL, NULL, argv, env))
        return;
    waitpid(pid, &status, 0);
    show_status("spawn", status);
    printf("spawn none %d\n", posix_spawn(&pid, "/does/not/exist", NULL, NULL, nothing, env));
    printf("vfork\n");
    fflush(stdout);
    pid = vfork();
    if (!pid) {
        execve(self, argv, env);
        _exit(1);
    }
    waitpid(pid, &status, 0);
    show_status("vfork", status);
    pid = vfork();
    if (!pid)
        _exit(9);
    waitpid(pid, &status, 0);
    show_status("vfork and exit", status);
}

static void errors(void)
{
    char name[] = "/tmp/triode-script-XXXXXX";
    char *argv[] = {"x", NULL};
    int fd = mkstemp(name), status;
    siginfo_t info = {0};
    pid_t pid;

    dprintf(fd, "not a program\n");
    close(fd);
    execve(name, argv, environ);
    printf("no right %d\n", errno);
    chmod(name, 0700);
    execve(name, argv, environ);
    printf("no format %d\n", errno);
    execve("/tmp", argv, environ);
    printf("directory %d\n", errno);
    fd = open(name, O_WRONLY | O_TRUNC);
    dprintf(fd, "#!/bin/sh\necho script \"$1\"\nexit 5\n");
    close(fd);
    fflush(stdout);
    pid = fork();
    if (!pid) {
        char *args[] = {name, "argument", NULL};

        execve(name, args, environ);
        _exit(1);
    }
    waitid(P_PID, (id_t)pid, &info, WEXITED);
    printf("script %d %d\n", info.si_code, info.si_status);
    unlink(name);
    pid = fork();
    if (!pid)
        for (;;)
            pause();
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    show_status("killed", status);
}

int main(int argc, char **argv)
{
    char self[4096];
    ssize_t n;

    if (argc > 1) {
        printf("%s", argv[0]);
        for (int i = 1; i < argc; i++)
            printf(" [%s]", argv[i]);
        printf(" %s\n", getenv("COLOUR"));
        return 23;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    printf("self %s\n", strrchr(self, '/') + 1);
    forks();
    spawns(self);
    errors();
    return 0;
}
