/* Threads: mutexes, conditions, thread-local storage, atomics, signals to one thread. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS 20000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long plain;
static atomic_long atomic;
static __thread int own = 5;
static int turn;

static void *count(void *opaque)
{
    long id = (long)opaque;

    own += (int)id;
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        plain++;
        pthread_mutex_unlock(&lock);
        atomic_fetch_add(&atomic, 2);
    }
    return (void *)(long)own;
}

static void *take_turns(void *opaque)
{
    long id = (long)opaque;

    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&lock);
        while (turn != id)
            pthread_cond_wait(&changed, &lock);
        turn = (turn + 1) % 4;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static atomic_int hit_by;
static atomic_int ready;

static void on_signal(int sig)
{
    (void)sig;
    atomic_store(&hit_by, (int)syscall(SYS_gettid));
}

static void *wait_for_signal(void *opaque)
{
    (void)opaque;
    atomic_store(&ready, (int)syscall(SYS_gettid));
    while (!atomic_load(&hit_by))
        ;
    return NULL;
}

static void *robust_owner(void *mutex)
{
    pthread_mutex_lock(mutex);
    return NULL; /* and dies with it */
}

static void robust(void)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t mutex;
    pthread_t thread;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attr);
    pthread_create(&thread, NULL, robust_owner, &mutex);
    pthread_join(thread, NULL);
    printf("robust %s\n", strerror(pthread_mutex_lock(&mutex)));
}

static void *churn(void *opaque)
{
    unsigned *sum = opaque;

    for (unsigned i = 1; i < 3000; i++) {
        unsigned char *p = malloc(i % 5000 + 1);

        memset(p, (int)i, i % 5000 + 1);
        *sum += p[i % 5000];
        free(p);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    unsigned sums[THREADS] = {0};
    struct timespec soon;
    void *result;
    long total = 0;

    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        total += (long)result;
    }
    printf("plain %ld atomic %ld own %d total %ld\n", plain, atomic_load(&atomic), own, total);
    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, take_turns, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("turns done %d\n", turn);
    signal(SIGUSR1, on_signal);
    pthread_create(&threads[0], NULL, wait_for_signal, NULL);
    while (!atomic_load(&ready))
        usleep(1000);
    pthread_kill(threads[0], SIGUSR1);
    pthread_join(threads[0], NULL);
    printf("signal to the right thread %d\n", atomic_load(&hit_by) == atomic_load(&ready));
    robust();
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, churn, &sums[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("churn %u %u\n", sums[0], sums[THREADS - 1]);
    pthread_create(&threads[0], NULL, count, (void *)0L);
    pthread_detach(threads[0]);
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec = (soon.tv_nsec + 20000000) % 1000000000;
    pthread_mutex_lock(&lock);
    pthread_cond_timedwait(&changed, &lock, &soon);
    pthread_mutex_unlock(&lock);
    pthread_exit(NULL); /* the others go on */
}
