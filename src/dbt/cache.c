/*
 * The code cache: one memfd with two mappings, so that no page is ever writable and executable
 * through the same address. Chunks are handed to vCPUs, so compiling needs no lock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "dbt/internal.h"

#define CACHE_DEFAULT (256 * MiB) /* address space; pages are touched as they are used */
#define POPULATE (32 * KiB)       /* got from the host at a time */
#define POPULATE_AHEAD (4 * KiB)  /* more than most blocks take */

int cache_create(struct dbt *dbt, struct err *err)
{
    u64 size = dbt->config.code_cache_bytes ? dbt->config.code_cache_bytes : CACHE_DEFAULT;

    dbt->code_fd = -1;
    if (size < MiB || size > GiB)
        return err_set(err, -EINVAL, "the code cache must be 1M to 1G, not %" PRIu64 " bytes",
                       size);
    dbt->first_chunk =
        (u32)(align_up(DBT_THUNKS + DBT_MAX_CPUS * DBT_MAX_BLOCK_CODE, DBT_CHUNK) / DBT_CHUNK);
    size = align_up(size, DBT_CHUNK) + (u64)dbt->first_chunk * DBT_CHUNK;
    dbt->code_fd = memfd_create("triode-code", MFD_CLOEXEC);
    if (dbt->code_fd < 0 || ftruncate(dbt->code_fd, (off_t)size) < 0)
        return err_set(err, -errno, "no memory file for the code cache: %s", strerror(errno));
    dbt->code_rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, dbt->code_fd, 0);
    if (dbt->code_rw == MAP_FAILED) {
        dbt->code_rw = NULL;
        return err_set(err, -errno, "cannot map the code cache: %s", strerror(errno));
    }
    dbt->code_size = size;
    dbt->code_exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, dbt->code_fd, 0);
    if (dbt->code_exec == MAP_FAILED) {
        dbt->code_exec = NULL;
        return err_set(err, -errno,
                       "this system does not let memory files be executed (%s): use --jit=off",
                       strerror(errno));
    }
    dbt->nchunks = (u32)(size / DBT_CHUNK);
    dbt->next_chunk = dbt->first_chunk;
    dbt->chunks = calloc(dbt->nchunks, sizeof(*dbt->chunks));
    if (!dbt->chunks)
        return err_set(err, -ENOMEM, "no memory for the code cache");
    return 0;
}

void cache_destroy(struct dbt *dbt)
{
    for (u32 i = 0; dbt->chunks && i < dbt->nchunks; i++)
        free(dbt->chunks[i].blocks);
    free(dbt->chunks);
    if (dbt->code_rw)
        munmap(dbt->code_rw, dbt->code_size);
    if (dbt->code_exec)
        munmap(dbt->code_exec, dbt->code_size);
    if (dbt->code_fd >= 0)
        close(dbt->code_fd);
}

static int take_chunk(struct dbt_cpu *dc)
{
    struct dbt *dbt = dc->dbt;
    int ret = -ENOSPC;

    pthread_mutex_lock(&dbt->lock);
    if (dbt->next_chunk < dbt->nchunks) {
        dc->chunk_index = dbt->next_chunk++;
        dc->chunk = &dbt->chunks[dc->chunk_index];
        ret = 0;
    }
    pthread_mutex_unlock(&dbt->lock);
    return ret;
}

/* Asks the host for the next pages in both mappings at once: two faults for each would cost more.
 * It may refuse (Linux before 5.14): then they come by faults. */
static void populate(struct dbt_cpu *dc, struct chunk_part *part, u32 begin, u32 end)
{
    u64 offset = (u64)dc->chunk_index * DBT_CHUNK + begin + part->populated;
    u32 bytes = end - begin - part->populated;

    if (part->used + POPULATE_AHEAD <= part->populated || !bytes)
        return;
    if (bytes > POPULATE)
        bytes = POPULATE;
    madvise(dc->dbt->code_rw + offset, bytes, MADV_POPULATE_WRITE);
    madvise(dc->dbt->code_exec + offset, bytes, MADV_POPULATE_READ);
    part->populated += bytes;
}

static bool has_room(const struct chunk *chunk)
{
    return chunk->hot.used + DBT_MAX_BLOCK_CODE <= DBT_CHUNK_HOT &&
           chunk->cold.used + DBT_MAX_BLOCK_CODE <= DBT_CHUNK - DBT_CHUNK_HOT;
}

int cache_reserve(struct dbt_cpu *dc, u8 **rw, u64 *exec)
{
    struct dbt *dbt = dc->dbt;
    u64 offset;

    if (!dc->chunk || !has_room(dc->chunk)) {
        int ret = take_chunk(dc);

        if (ret)
            return ret;
    }
    populate(dc, &dc->chunk->hot, 0, DBT_CHUNK_HOT);
    populate(dc, &dc->chunk->cold, DBT_CHUNK_HOT, DBT_CHUNK);
    offset = (u64)dc->chunk_index * DBT_CHUNK + dc->chunk->hot.used;
    dc->cold = DBT_CHUNK_HOT + dc->chunk->cold.used - dc->chunk->hot.used;
    *rw = dbt->code_rw + offset;
    *exec = (u64)dbt->code_exec + offset;
    return 0;
}

void cache_commit(struct dbt_cpu *dc, struct block *block)
{
    struct dbt *dbt = dc->dbt;
    struct chunk *chunk = dc->chunk;
    u32 cold_bytes = block->code_bytes - block->cold;

    pthread_mutex_lock(&dbt->lock);
    if (chunk->nblocks == chunk->cap) {
        u32 cap = chunk->cap ? chunk->cap * 2 : 256;
        struct block **blocks = realloc(chunk->blocks, cap * sizeof(*blocks));

        if (!blocks) {
            /* cache_find will not know the block: its jumps stay unchained, nothing else. */
            pthread_mutex_unlock(&dbt->lock);
            goto used;
        }
        chunk->blocks = blocks;
        chunk->cap = cap;
    }
    chunk->blocks[chunk->nblocks++] = block;
    dbt->stats.code_bytes += block->hot_bytes + cold_bytes;
    pthread_mutex_unlock(&dbt->lock);
used:
    chunk->hot.used = (u32)align_up(chunk->hot.used + block->hot_bytes, 16);
    chunk->cold.used = (u32)align_up(chunk->cold.used + cold_bytes, 16);
}

/* Lock held. */
struct block *cache_find(struct dbt *dbt, u64 exec_addr)
{
    u64 offset = exec_addr - (u64)dbt->code_exec;
    const struct chunk *chunk;
    u32 lo = 0, hi;
    bool cold;

    if (offset >= dbt->code_size)
        return NULL;
    chunk = &dbt->chunks[offset / DBT_CHUNK];
    cold = offset % DBT_CHUNK >= DBT_CHUNK_HOT;
    hi = chunk->nblocks;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        struct block *block = chunk->blocks[mid];

        u64 first = (u64)block->code + (cold ? block->cold : 0);
        u64 end = (u64)block->code + (cold ? block->code_bytes : block->hot_bytes);

        if (exec_addr < first)
            hi = mid;
        else if (exec_addr >= end)
            lo = mid + 1;
        else
            return block;
    }
    return NULL;
}

struct block *cache_running(struct dbt_cpu *dc)
{
    const u64 *frame = (const u64 *)dc->cpu->host_frame;
    struct block *block = dc->running;

    if (frame) { /* units do not push: below their frame is where their call returns to */
        pthread_mutex_lock(&dc->dbt->lock);
        block = cache_find(dc->dbt, frame[-1]);
        pthread_mutex_unlock(&dc->dbt->lock);
    }
    return block;
}

void cache_flush(struct dbt *dbt)
{
    pthread_mutex_lock(&dbt->lock);
    memset((void *)dbt->hash, 0, sizeof(*dbt->hash) << DBT_HASH_BITS);
    pages_free(dbt);
    for (u32 i = dbt->first_chunk; i < dbt->nchunks; i++)
        dbt->chunks[i].hot.used = dbt->chunks[i].cold.used = dbt->chunks[i].nblocks = 0;
    dbt->next_chunk = dbt->first_chunk;
    arena_reset(&dbt->blocks);
    atomic_store(&dbt->kept_units, 0);
    atomic_store(&dbt->counters_used, 0);
    dbt->stats.code_bytes = 0;
    dbt->stats.flushes++;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i]) {
            dbt->cpus[i]->chunk = NULL;
            dbt->cpus[i]->counters_next = dbt->cpus[i]->counters_end = 0;
            memset(dbt->cpus[i]->jumps, 0, sizeof(dbt->cpus[i]->jumps));
        }
    pthread_mutex_unlock(&dbt->lock);
}
