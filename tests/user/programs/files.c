/* Files, directories, pipes, polling, sockets: what is read back is what was written. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

static void show(const char *what, long value)
{
    printf("%s %ld %s\n", what, value, value < 0 ? strerror(errno) : "");
}

static void regular(void)
{
    struct iovec parts[2] = {{"abc", 3}, {"defg", 4}};
    struct timespec times[2] = {{1000000000, 5}, {1100000000, 7}};
    char buf[64] = "";
    struct stat st, st2;
    int fd = open("data", O_RDWR | O_CREAT | O_EXCL, 0640);

    show("writev", writev(fd, parts, 2));
    show("pwrite", pwrite(fd, "XY", 2, 1));
    show("lseek", lseek(fd, 0, SEEK_SET));
    show("read", read(fd, buf, sizeof(buf)));
    puts(buf);
    show("pread", pread(fd, buf, 3, 4));
    show("ftruncate", ftruncate(fd, 5));
    show("futimens", futimens(fd, times));
    show("fstat", fstat(fd, &st));
    printf("size %ld mode %o links %ld mtime %ld.%ld blksize>0 %d\n", (long)st.st_size, st.st_mode,
           (long)st.st_nlink, (long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec, st.st_blksize > 0);
    show("stat", stat("data", &st2));
    printf("same %d\n",
           st.st_ino == st2.st_ino && st.st_dev == st2.st_dev && st.st_uid == getuid());
    show("again", open("data", O_CREAT | O_EXCL, 0600));
    show("dup2", dup2(fd, 40));
    show("fcntl", fcntl(40, F_GETFD));
    show("setfd", fcntl(40, F_SETFD, FD_CLOEXEC));
    show("fcntl", fcntl(40, F_GETFD));
    show("getfl", fcntl(fd, F_GETFL) & O_ACCMODE);
    close(40);
    show("closed", close(40));
    show("isatty", isatty(fd));
    close(fd);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void directories(void)
{
    char *names[16], cwd[4096], link[64] = "";
    struct dirent *entry;
    size_t n = 0;
    DIR *dir;

    show("mkdir", mkdir("sub", 0755));
    show("rename", rename("data", "sub/moved"));
    show("symlink", symlink("moved", "sub/link"));
    show("link", linkat(AT_FDCWD, "sub/moved", AT_FDCWD, "sub/hard", 0));
    show("readlink", readlink("sub/link", link, sizeof(link)));
    puts(link);
    show("chdir", chdir("sub"));
    puts(strrchr(getcwd(cwd, sizeof(cwd)), '/'));
    dir = opendir(".");
    while ((entry = readdir(dir)))
        names[n++] = strdup(entry->d_name);
    closedir(dir);
    qsort(names, n, sizeof(*names), compare);
    for (size_t i = 0; i < n; i++)
        puts(names[i]);
    show("access", access("moved", R_OK | W_OK));
    show("access", access("none", F_OK));
    show("unlink", unlink("moved"));
    show("unlink", unlink("link"));
    show("unlink", unlink("hard"));
    show("chdir", chdir(".."));
    show("rmdir", rmdir("sub"));
    show("rmdir", rmdir("sub"));
}

static void pipes(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef}, got[4];
    int ends[2], ep = epoll_create1(0), counter = eventfd(3, 0);
    struct timeval none = {0, 0};
    struct pollfd pfd;
    uint64_t value = 0;
    char buf[8] = "";
    fd_set set;

    show("pipe", pipe2(ends, O_NONBLOCK));
    pfd = (struct pollfd){.fd = ends[0], .events = POLLIN};
    show("poll", poll(&pfd, 1, 0));
    show("read", read(ends[0], buf, 8));
    show("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, ends[0], &event));
    show("epoll_wait", epoll_wait(ep, got, 4, 0));
    show("write", write(ends[1], "ping", 4));
    show("poll", poll(&pfd, 1, 100));
    printf("revents %d\n", pfd.revents);
    show("epoll_wait", epoll_wait(ep, got, 4, 100));
    printf("%x %llx\n", got[0].events, (unsigned long long)got[0].data.u64);
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    show("select", select(ends[0] + 1, &set, NULL, NULL, &none));
    show("read", read(ends[0], buf, 8));
    puts(buf);
    show("read eventfd", read(counter, &value, 8));
    printf("%llu\n", (unsigned long long)value);
}

static void sockets(void)
{
    struct msghdr msg = {0};
    char control[CMSG_SPACE(sizeof(int))] = "", byte = 'x', buf[16] = "";
    struct iovec part = {&byte, 1};
    struct cmsghdr *c;
    int pair[2], fd = 1;

    show("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    msg.msg_iov = &part;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof(control);
    c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    show("sendmsg", sendmsg(pair[0], &msg, 0));
    show("recvmsg", recvmsg(pair[1], &msg, 0));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
    fflush(stdout);
    show("write", write(fd, "passed\n", 7));
    show("send", send(pair[0], "hello", 5, 0));
    show("recv", recv(pair[1], buf, sizeof(buf), 0));
    puts(buf);
    show("shutdown", shutdown(pair[0], SHUT_WR));
    show("recv", recv(pair[1], buf, sizeof(buf), 0));
}

/* Bad addresses are EFAULT, not a crash. */
static void bad_addresses(void)
{
    int fd = open("/dev/zero", O_RDONLY);
    struct stat st;

    show("read", read(fd, (void *)16, 8));
    show("stat", stat((const char *)16, &st));
    show("fstat", fstat(fd, (void *)16));
    show("write", write(1, (void *)16, 4));
    show("uname", uname((void *)16));
    show("bad fd", read(77, &st, 1));
    close(fd);
}

int main(void)
{
    char dir[] = "/tmp/triode-files-XXXXXX";
    struct statfs fs;

    if (!mkdtemp(dir) || chdir(dir))
        return 1;
    regular();
    directories();
    pipes();
    sockets();
    bad_addresses();
    show("statfs", statfs("/", &fs));
    show("chdir", chdir("/"));
    show("rmdir", rmdir(dir));
    return 0;
}
