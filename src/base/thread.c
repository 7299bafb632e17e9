#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/log.h"

struct thread_start {
    void *(*fn)(void *);
    void *arg;
    char name[16];
};

static void *thread_main(void *opaque)
{
    struct thread_start start = *(struct thread_start *)opaque;

    free(opaque);
    prctl(PR_SET_NAME, start.name);
    return start.fn(start.arg);
}

int thread_create(pthread_t *thread, const char *name, void *(*fn)(void *), void *arg,
                  struct err *err)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    struct thread_start *start = malloc(sizeof(*start));
    sigset_t block, old;
    int rc;

    if (!start)
        return err_set(err, -ENOMEM, "out of memory for thread %s", name);
    start->fn = fn;
    start->arg = arg;
    snprintf(start->name, sizeof(start->name), "%s", name);

    sigfillset(&block);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
        sigdelset(&block, faults[i]);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    rc = pthread_create(thread, NULL, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        free(start);
        return err_set(err, -rc, "cannot start thread %s: %s", name, strerror(rc));
    }
    return 0;
}

void mutex_init(pthread_mutex_t *mutex)
{
    int rc = pthread_mutex_init(mutex, NULL);

    BUG_ON(rc);
}

void mutex_lock(pthread_mutex_t *mutex)
{
    int rc = pthread_mutex_lock(mutex);

    BUG_ON(rc);
}

void mutex_unlock(pthread_mutex_t *mutex)
{
    int rc = pthread_mutex_unlock(mutex);

    BUG_ON(rc);
}

void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int rc;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    rc = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    BUG_ON(rc);
}

bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, u64 deadline_ns)
{
    struct timespec ts = {
        .tv_sec = (time_t)(deadline_ns / NSEC_PER_SEC),
        .tv_nsec = (long)(deadline_ns % NSEC_PER_SEC),
    };
    int rc = pthread_cond_timedwait(cond, mutex, &ts);

    BUG_ON(rc && rc != ETIMEDOUT);
    return rc == 0;
}
