/* Thin wrappers around POSIX threads: named threads, and locks whose misuse is a bug report. */
#ifndef TRIODE_BASE_THREAD_H
#define TRIODE_BASE_THREAD_H

#include <pthread.h>

#include "base/err.h"
#include "base/types.h"

/* Starts @fn(@arg) in a thread that ps and gdb show as @name (cut at 15 characters). All signals
 * but those that report a fault of the thread itself are blocked in it; who wants one unblocks it.
 * 0 or a negative errno with @err set. */
int thread_create(pthread_t *thread, const char *name, void *(*fn)(void *), void *arg,
                  struct err *err);

void mutex_init(pthread_mutex_t *mutex);
void mutex_lock(pthread_mutex_t *mutex);
void mutex_unlock(pthread_mutex_t *mutex);

/* A condition variable whose timed waits count on CLOCK_MONOTONIC. */
void cond_init(pthread_cond_t *cond);

/* Waits until signalled or clock_mono_ns() passes @deadline_ns; false when time is up. Wakes up
 * without cause now and then, so the caller loops. */
bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, u64 deadline_ns);

#endif
