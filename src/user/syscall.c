/* From a guest's system call to its row, and what the rows need of files and waiting. */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "trace/trace.h"
#include "user/private.h"

#define RESTART 1

struct row {
    const char *name;
    s64 (*handler)(struct user_thread *t, const u64 a[6]); /* NULL: the host's kernel */
    long host;
    u32 flags;
    const char *format;
};

static const struct row rows[] = {
#define S(name, x86, generic, handler, flags, format)                                              \
    {#name, sys_##handler, SYS_##name, flags, format},
#define PASS(name, x86, generic, flags, format) {#name, NULL, SYS_##name, flags, format},
#include "user/syscalls.def"
#undef S
#undef PASS
};

static const s16 numbers[][2] = {
#define S(name, x86, generic, handler, flags, format) {x86, generic},
#define PASS(name, x86, generic, flags, format) {x86, generic},
#include "user/syscalls.def"
#undef S
#undef PASS
};

#define MAX_NUMBER 512

/* Row index + 1 by number, for each table of numbers. */
static u16 index_of[2][MAX_NUMBER];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_index(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        for (unsigned k = 0; k < 2; k++)
            if (numbers[i][k] >= 0 && numbers[i][k] < MAX_NUMBER)
                index_of[k][numbers[i][k]] = (u16)(i + 1);
}

s64 syscall_host(struct user_thread *t, long number, const u64 arg[6])
{
    return user_host_syscall(&t->pending, number, arg);
}

/* --- --trace syscall ---------------------------------------------------------------------- */

static void format_string(struct strbuf *out, struct user_thread *t, u64 addr)
{
    char text[48];
    size_t n = 0;

    if (!addr || !mm_allows(&t->user->mm, addr, 1, PROT_READ)) {
        strbuf_printf(out, "%#" PRIx64, addr);
        return;
    }
    while (n < sizeof(text) - 1 && mm_allows(&t->user->mm, addr + n, 1, PROT_READ)) {
        char c = ((const char *)user_ptr(addr))[n];

        if (!c)
            break;
        text[n++] = c < ' ' || c == '"' ? '.' : c;
    }
    text[n] = '\0';
    strbuf_printf(out, "\"%s\"%s", text, n == sizeof(text) - 1 ? "..." : "");
}

static void format_argument(struct strbuf *out, struct user_thread *t, char how, u64 value)
{
    switch (how) {
    case 'a':
    case 'd':
        strbuf_printf(out, "%d", (int)value);
        break;
    case 'u':
    case 'l':
        strbuf_printf(out, "%" PRId64, (s64)value);
        break;
    case 'o':
        strbuf_printf(out, "0%" PRIo64, value);
        break;
    case 's':
        format_string(out, t, value);
        break;
    default:
        strbuf_printf(out, "%#" PRIx64, value);
    }
}

static void trace_call(struct user_thread *t, const struct row *row, s64 result)
{
    struct strbuf text = {0};
    const u64 *a = t->call.arg;

    if (row) {
        strbuf_printf(&text, "%s(", row->name);
        for (unsigned i = 0; row->format[i]; i++) {
            strbuf_printf(&text, "%s", i ? ", " : "");
            format_argument(&text, t, row->format[i], a[i]);
        }
        strbuf_printf(&text, ")");
    } else {
        strbuf_printf(&text, "unknown(%" PRIu64 ")", t->call.number);
    }
    trace_emit(SYSCALL, syscall, t->tid, .name = text.text ? text.text : "", .a0 = a[0], .a1 = a[1],
               .a2 = a[2], .result = (u64)result);
    strbuf_free(&text);
}

/* --- the call ----------------------------------------------------------------------------- */

/* The host's kernel found a page not writable that is so to the guest, because of code: once more,
 * with no page protected. */
static s64 pass(struct user_thread *t, const struct row *row)
{
    s64 result = syscall_host(t, row->host, t->call.arg);

    if (unlikely(result == -EFAULT)) {
        dbt_code_changed(t->user->dbt, 0, BIT(47));
        result = syscall_host(t, row->host, t->call.arg);
    }
    return result;
}

static s64 answer(struct user_thread *t, const struct row *row)
{
    s64 result = -ENOSYS;

    if (!row) {
        if (t->user->guest->own_call)
            t->user->guest->own_call(t, &t->call, &result);
        return result;
    }
    return row->handler ? row->handler(t, t->call.arg) : pass(t, row);
}

void syscall_run(struct user_thread *t)
{
    const struct user_guest *guest = t->user->guest;
    const struct row *row = NULL;
    s64 result;
    u16 index;

    pthread_once(&once, make_index);
    guest->get_call(t->cpu, &t->call);
    if (t->call.number < MAX_NUMBER) {
        index = index_of[guest->numbers][t->call.number];
        row = index ? &rows[index - 1] : NULL;
    }
    t->call_keeps = t->call_timed = false;
    result = answer(t, row);
    if (unlikely(trace_enabled(TRACE_SYSCALL)))
        trace_call(t, row, result);
    if (t->call_keeps || t->exiting)
        return;
    if (unlikely(result == -EINTR || result == -USER_RESTART)) {
        t->call_unbegun = result == -USER_RESTART;
        t->call_restarts = row && row->flags & RESTART && !t->call_timed;
        t->call_interrupted = __atomic_load_n(&t->pending, __ATOMIC_RELAXED);
        result = -EINTR;
    }
    guest->set_result(t->cpu, result);
}

/* --- names -------------------------------------------------------------------------------- */

static bool string_is(struct user_thread *t, u64 addr, const char *text)
{
    size_t len = strlen(text) + 1;

    return mm_allows(&t->user->mm, addr, len, PROT_READ) && !memcmp(user_ptr(addr), text, len);
}

/* The kernel's answer would be Triode's own file. */
static bool names_own_exe(struct user_thread *t, u64 addr)
{
    char path[48];

    if (string_is(t, addr, "/proc/self/exe") || string_is(t, addr, "/proc/thread-self/exe"))
        return true;
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)getpid());
    return string_is(t, addr, path);
}

static s64 read_own_exe(struct user_thread *t, u64 buf, u64 size)
{
    size_t len = strlen(t->user->exe);

    if (!size || (s64)size < 0)
        return -EINVAL;
    if (len > size)
        len = size;
    if (!mm_allows(&t->user->mm, buf, len, PROT_WRITE))
        return -EFAULT;
    memcpy(user_ptr(buf), t->user->exe, len);
    return (s64)len;
}

s64 sys_readlink(struct user_thread *t, const u64 a[6])
{
    if (names_own_exe(t, a[0]))
        return read_own_exe(t, a[1], a[2]);
    return syscall_host(t, SYS_readlink, a);
}

s64 sys_readlinkat(struct user_thread *t, const u64 a[6])
{
    if (names_own_exe(t, a[1]))
        return read_own_exe(t, a[2], a[3]);
    return syscall_host(t, SYS_readlinkat, a);
}

s64 sys_open(struct user_thread *t, const u64 a[6])
{
    u64 path = names_own_exe(t, a[0]) ? (u64)t->user->exe : a[0];

    return syscall_host(t, SYS_open, (u64[6]){path, a[1], a[2]});
}

s64 sys_openat(struct user_thread *t, const u64 a[6])
{
    u64 path = names_own_exe(t, a[1]) ? (u64)t->user->exe : a[1];

    return syscall_host(t, SYS_openat, (u64[6]){a[0], path, a[2], a[3]});
}

/* --- stat --------------------------------------------------------------------------------- */

static s64 put_stat(struct user_thread *t, u64 to, s64 result, const struct stat *st)
{
    if (result)
        return result;
    if (!mm_allows(&t->user->mm, to, t->user->guest->stat_bytes, PROT_WRITE))
        return -EFAULT;
    t->user->guest->put_stat(user_ptr(to), st);
    return 0;
}

s64 sys_stat(struct user_thread *t, const u64 a[6])
{
    struct stat st;

    return put_stat(t, a[1], syscall_host(t, SYS_stat, (u64[6]){a[0], (u64)&st}), &st);
}

s64 sys_lstat(struct user_thread *t, const u64 a[6])
{
    struct stat st;

    return put_stat(t, a[1], syscall_host(t, SYS_lstat, (u64[6]){a[0], (u64)&st}), &st);
}

s64 sys_fstat(struct user_thread *t, const u64 a[6])
{
    struct stat st;

    return put_stat(t, a[1], syscall_host(t, SYS_fstat, (u64[6]){a[0], (u64)&st}), &st);
}

s64 sys_newfstatat(struct user_thread *t, const u64 a[6])
{
    struct stat st;
    u64 args[6] = {a[0], a[1], (u64)&st, a[3]};

    return put_stat(t, a[2], syscall_host(t, SYS_newfstatat, args), &st);
}

/* --- waiting, with masks that must not block the signals Triode needs ------------------------ */

/* A copy of the guest's mask for the host; false: it cannot be read. */
static bool copy_mask(struct user_thread *t, u64 addr, u64 *mask)
{
    if (!addr)
        return true;
    if (!mm_allows(&t->user->mm, addr, 8, PROT_READ))
        return false;
    memcpy(mask, user_ptr(addr), 8);
    *mask = signal_host_mask(*mask);
    return true;
}

s64 sys_ppoll(struct user_thread *t, const u64 a[6])
{
    u64 mask;

    if (!copy_mask(t, a[3], &mask))
        return -EFAULT;
    return syscall_host(t, SYS_ppoll, (u64[6]){a[0], a[1], a[2], a[3] ? (u64)&mask : 0, a[4]});
}

s64 sys_pselect6(struct user_thread *t, const u64 a[6])
{
    u64 pair[2] = {0, 8}, mask;

    if (a[5]) {
        if (!mm_allows(&t->user->mm, a[5], sizeof(pair), PROT_READ))
            return -EFAULT;
        memcpy(pair, user_ptr(a[5]), sizeof(pair));
        if (!copy_mask(t, pair[0], &mask))
            return -EFAULT;
        pair[0] = pair[0] ? (u64)&mask : 0;
    }
    return syscall_host(t, SYS_pselect6, (u64[6]){a[0], a[1], a[2], a[3], a[4], (u64)pair});
}

/* struct epoll_event is packed on x86-64 only. */
struct generic_epoll_event {
    u32 events, pad;
    u64 data;
};

static bool packed_epoll(const struct user_thread *t)
{
    return t->user->guest->numbers == USER_NUMBERS_X86_64;
}

s64 sys_epoll_ctl(struct user_thread *t, const u64 a[6])
{
    struct generic_epoll_event from;
    struct epoll_event event = {0};

    if (packed_epoll(t) || !a[3])
        return syscall_host(t, SYS_epoll_ctl, a);
    if (!mm_allows(&t->user->mm, a[3], sizeof(from), PROT_READ))
        return -EFAULT;
    memcpy(&from, user_ptr(a[3]), sizeof(from));
    event.events = from.events;
    event.data.u64 = from.data;
    return syscall_host(t, SYS_epoll_ctl, (u64[6]){a[0], a[1], a[2], (u64)&event});
}

static s64 wait_for_events(struct user_thread *t, const u64 a[6], u64 *mask)
{
    int most = (int)a[2] > 1024 ? 1024 : (int)a[2];
    struct epoll_event *events;
    s64 n;

    if (packed_epoll(t))
        return syscall_host(t, SYS_epoll_pwait, (u64[6]){a[0], a[1], a[2], a[3], (u64)mask, 8});
    if (most <= 0)
        return -EINVAL;
    if (!mm_allows(&t->user->mm, a[1], (u64)most * sizeof(struct generic_epoll_event), PROT_WRITE))
        return -EFAULT;
    events = calloc((size_t)most, sizeof(*events));
    if (!events)
        return -ENOMEM;
    n = syscall_host(t, SYS_epoll_pwait,
                     (u64[6]){a[0], (u64)events, (u64)most, a[3], (u64)mask, 8});
    for (s64 i = 0; i < n; i++) {
        struct generic_epoll_event event = {.events = events[i].events, .data = events[i].data.u64};

        memcpy(user_ptr(a[1] + (u64)i * sizeof(event)), &event, sizeof(event));
    }
    free(events);
    return n;
}

s64 sys_epoll_wait(struct user_thread *t, const u64 a[6])
{
    return wait_for_events(t, a, NULL);
}

s64 sys_epoll_pwait(struct user_thread *t, const u64 a[6])
{
    u64 mask;

    if (a[4] && a[5] != 8)
        return -EINVAL;
    if (!copy_mask(t, a[4], &mask))
        return -EFAULT;
    return wait_for_events(t, a, a[4] ? &mask : NULL);
}

/* With a timeout the kernel itself does not restart it after a handler. */
s64 sys_futex(struct user_thread *t, const u64 a[6])
{
    s64 result = syscall_host(t, SYS_futex, a);
    int op = (int)a[1] & FUTEX_CMD_MASK;

    if (result == -EFAULT) {
        dbt_code_changed(t->user->dbt, 0, BIT(47));
        result = syscall_host(t, SYS_futex, a);
    }
    t->call_timed = result == -EINTR && a[3] && (op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET);
    return result;
}

/* --- the system --------------------------------------------------------------------------- */

s64 sys_uname(struct user_thread *t, const u64 a[6])
{
    struct utsname name;

    if (uname(&name))
        return -errno;
    if (!mm_allows(&t->user->mm, a[0], sizeof(name), PROT_WRITE))
        return -EFAULT;
    snprintf(name.machine, sizeof(name.machine), "%s", t->user->guest->machine);
    memcpy(user_ptr(a[0]), &name, sizeof(name));
    return 0;
}

/* What would change Triode itself, or let the kernel judge its calls, is refused. */
s64 sys_prctl(struct user_thread *t, const u64 a[6])
{
    switch ((int)a[0]) {
    case PR_SET_SECCOMP:
    case PR_SET_MM:
    case PR_SET_SYSCALL_USER_DISPATCH:
    case PR_SET_TSC:
        return -EINVAL;
    default:
        return syscall_host(t, SYS_prctl, a);
    }
}
