/*
 * The user's terminal. Whatever ends the process, the terminal must be as it was: hence the one
 * piece of state that is not passed around, because atexit and signal handlers have no argument.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

#define CTRL_A 1

static struct {
    struct termios saved;
    int fd;
    atomic_bool raw;
    bool hooked;
} terminal;

void terminal_restore(void)
{
    sigset_t block, old;
    int saved_errno = errno;

    if (!atomic_exchange(&terminal.raw, false))
        return;
    /* A background job that sets the terminal would be stopped by SIGTTOU. */
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    log_terminal_raw(false);
    errno = saved_errno;
}

/* A fault of ours: put the terminal back, then die of it as if there had been no handler. */
static void on_fault(int signal)
{
    terminal_restore();
    raise(signal); /* SA_RESETHAND made it deadly */
}

static void hook(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};

    if (terminal.hooked)
        return;
    terminal.hooked = true;
    atexit(terminal_restore);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        struct sigaction present;

        /* An engine may handle some of them for its guest. */
        if (!sigaction(faults[i], NULL, &present) && present.sa_handler == SIG_DFL)
            sigaction(faults[i], &action, NULL);
    }
}

bool terminal_raw(int fd)
{
    struct termios raw;
    pid_t foreground;

    if (atomic_load(&terminal.raw))
        return true;
    /* A terminal that is not our session's has no foreground job that could be another's. */
    foreground = tcgetpgrp(fd);
    if (!isatty(fd) || (foreground >= 0 && foreground != getpgrp()) ||
        tcgetattr(fd, &terminal.saved))
        return false;
    terminal.fd = fd;
    hook();
    raw = terminal.saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* what Triode itself prints still gets its carriage returns */
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    atomic_store(&terminal.raw, true);
    if (tcsetattr(fd, TCSANOW, &raw)) {
        atomic_store(&terminal.raw, false);
        return false;
    }
    return true;
}

static void say(const char *text)
{
    ssize_t done = write(STDERR_FILENO, text, strlen(text));

    (void)done;
}

static void list_keys(void)
{
    say("\r\n"
        "Ctrl-A X       quit Triode\r\n"
        "Ctrl-A B       send a break\r\n"
        "Ctrl-A H       this list\r\n"
        "Ctrl-A Ctrl-A  send Ctrl-A\r\n");
}

size_t terminal_filter(void *opaque, u8 *data, size_t len)
{
    struct terminal_keys *keys = opaque;
    size_t kept = 0;

    for (size_t i = 0; i < len; i++) {
        u8 key = data[i];

        if (!keys->prefix) {
            keys->prefix = key == CTRL_A;
            if (key != CTRL_A)
                data[kept++] = key;
            continue;
        }
        keys->prefix = false;
        switch (key) {
        case CTRL_A:
            data[kept++] = key;
            break;
        case 'x':
        case 'X':
        case 'x' & 0x1f: /* Ctrl still held down */
            keys->quit(keys->opaque);
            break;
        case 'b':
        case 'B':
            keys->line_break(keys->opaque);
            break;
        default:
            list_keys();
            break;
        }
    }
    return kept;
}
