/*
 * Making all vCPUs stand still: for dropping the code cache, changes of memslots and accesses that
 * host atomics cannot do. Whoever waits here counts as standing still, so two can ask at once.
 */
#include "dbt/internal.h"

void exclusive_enter_guest(struct dbt_cpu *dc)
{
    struct dbt *dbt = dc->dbt;

    for (;;) {
        atomic_store(&dc->in_guest, true);
        if (likely(!atomic_load(&dbt->exclusive)))
            return;
        /* Somebody wants the machine: step back and wait until nobody does. */
        pthread_mutex_lock(&dbt->cpus_lock);
        atomic_store(&dc->in_guest, false);
        pthread_cond_broadcast(&dbt->cpus_cond);
        while (atomic_load(&dbt->exclusive))
            pthread_cond_wait(&dbt->cpus_cond, &dbt->cpus_lock);
        pthread_mutex_unlock(&dbt->cpus_lock);
    }
}

void exclusive_leave_guest(struct dbt_cpu *dc)
{
    struct dbt *dbt = dc->dbt;

    atomic_store(&dc->in_guest, false);
    if (unlikely(atomic_load(&dbt->exclusive))) {
        pthread_mutex_lock(&dbt->cpus_lock);
        pthread_cond_broadcast(&dbt->cpus_cond);
        pthread_mutex_unlock(&dbt->cpus_lock);
    }
}

static bool others_in_guest(struct dbt *dbt, struct dbt_cpu *self)
{
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i] && dbt->cpus[i] != self && atomic_load(&dbt->cpus[i]->in_guest))
            return true;
    return false;
}

void exclusive_begin(struct dbt *dbt, struct dbt_cpu *self)
{
    pthread_mutex_lock(&dbt->cpus_lock);
    atomic_fetch_add(&dbt->exclusive, 1);
    if (self)
        atomic_store(&self->in_guest, false);
    pthread_cond_broadcast(&dbt->cpus_cond);
    while (dbt->exclusive_held)
        pthread_cond_wait(&dbt->cpus_cond, &dbt->cpus_lock);
    dbt->exclusive_held = true;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i] && dbt->cpus[i] != self)
            dbt_request(dbt->cpus[i]->cpu, GUEST_REQ_EXCLUSIVE);
    while (others_in_guest(dbt, self))
        pthread_cond_wait(&dbt->cpus_cond, &dbt->cpus_lock);
    pthread_mutex_unlock(&dbt->cpus_lock);
}

void exclusive_end(struct dbt *dbt, struct dbt_cpu *self)
{
    pthread_mutex_lock(&dbt->cpus_lock);
    dbt->exclusive_held = false;
    atomic_fetch_sub(&dbt->exclusive, 1);
    pthread_cond_broadcast(&dbt->cpus_cond);
    /* Back into the guest only when nobody else holds or waits for the machine. */
    while (self && atomic_load(&dbt->exclusive))
        pthread_cond_wait(&dbt->cpus_cond, &dbt->cpus_lock);
    if (self)
        atomic_store(&self->in_guest, true);
    pthread_mutex_unlock(&dbt->cpus_lock);
}
