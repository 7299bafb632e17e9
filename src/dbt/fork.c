/*
 * Around fork. The code cache is shared memory, so that it can be mapped twice; a child must get
 * its own, at the same addresses, with the code as it was at the fork.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dbt/internal.h"

static bool write_all(int fd, const u8 *from, size_t len, u64 offset)
{
    while (len) {
        ssize_t n = pwrite(fd, from, len, (off_t)offset);

        if (n <= 0)
            return false;
        from += n;
        offset += (u64)n;
        len -= (size_t)n;
    }
    return true;
}

static int copy_cache(struct dbt *dbt)
{
    int fd = memfd_create("triode-code", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)dbt->code_size) || !write_all(fd, dbt->code_rw, DBT_THUNKS, 0))
        goto fail;
    for (u32 i = dbt->first_chunk; i < dbt->next_chunk; i++) {
        u64 hot = (u64)i * DBT_CHUNK, cold = hot + DBT_CHUNK_HOT;

        if (!write_all(fd, dbt->code_rw + hot, dbt->chunks[i].hot.used, hot) ||
            !write_all(fd, dbt->code_rw + cold, dbt->chunks[i].cold.used, cold))
            goto fail;
    }
    dbt->fork_fd = fd;
    return 0;
fail:
    close(fd);
    return -ENOMEM;
}

int dbt_fork_prepare(struct guest_cpu *cpu)
{
    struct dbt *dbt = dbt_cpu(cpu)->dbt;
    int ret;

    exclusive_begin(dbt, NULL);
    pthread_mutex_lock(&dbt->lock);
    ret = copy_cache(dbt);
    if (ret) {
        pthread_mutex_unlock(&dbt->lock);
        exclusive_end(dbt, NULL);
    }
    return ret;
}

void dbt_fork_parent(struct guest_cpu *cpu)
{
    struct dbt *dbt = dbt_cpu(cpu)->dbt;

    close(dbt->fork_fd);
    dbt->fork_fd = -1;
    pthread_mutex_unlock(&dbt->lock);
    exclusive_end(dbt, NULL);
}

/* The other threads were not copied; nobody will wake or unlock what they waited for or held. */
static void forget_others(struct dbt *dbt, struct dbt_cpu *self)
{
    pthread_mutex_init(&dbt->lock, NULL);
    pthread_mutex_init(&dbt->cpus_lock, NULL);
    pthread_cond_init(&dbt->cpus_cond, NULL);
    atomic_store(&dbt->exclusive, 0);
    dbt->exclusive_held = false;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i] && dbt->cpus[i] != self)
            dbt_detach(dbt->cpus[i]->cpu);
}

int dbt_fork_child(struct guest_cpu *cpu)
{
    struct dbt *dbt = dbt_cpu(cpu)->dbt;
    int fd = dbt->fork_fd, ret = 0;

    if (mmap(dbt->code_rw, dbt->code_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED ||
        mmap(dbt->code_exec, dbt->code_size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd,
             0) == MAP_FAILED)
        ret = -errno;
    close(fd);
    dbt->fork_fd = -1;
    forget_others(dbt, dbt_cpu(cpu));
    return ret;
}
