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
#define DEAD_CHUNKS 8             /* are looked for */

/* Address space as well. A loop over all blocks is one over huge pages, where the host has some. */
static int make_block_memory(struct dbt *dbt, struct err *err)
{
    size_t size = (size_t)dbt->nchunks * DBT_CHUNK_BLOCKS;

    dbt->block_memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (dbt->block_memory == MAP_FAILED) {
        dbt->block_memory = NULL;
        return err_set(err, -errno, "no memory for the code cache: %s", strerror(errno));
    }
    madvise(dbt->block_memory, size, MADV_HUGEPAGE);
    for (u32 i = 0; i < dbt->nchunks; i++)
        dbt->chunks[i].memory = dbt->block_memory + (size_t)i * DBT_CHUNK_BLOCKS;
    if (dbt->config.jit && dbt->config.hot != ~0u) {
        dbt->counters = calloc((size_t)dbt->nchunks * DBT_CHUNK_COUNTERS, sizeof(*dbt->counters));
        if (!dbt->counters)
            return err_set(err, -ENOMEM, "no memory for the code cache");
    }
    return 0;
}

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
        return err_set(err, -errno, "cannot map the code cache of %" PRIu64 " MiB: %s", size / MiB,
                       strerror(errno));
    }
    dbt->code_size = size;
    dbt->code_exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, dbt->code_fd, 0);
    if (dbt->code_exec == MAP_FAILED) {
        dbt->code_exec = NULL;
        if (errno == ENOMEM)
            return err_set(err, -ENOMEM, "cannot map the code cache of %" PRIu64 " MiB twice: %s",
                           size / MiB, strerror(errno));
        return err_set(err, -errno,
                       "this system does not let memory files be executed (%s): use --jit=off",
                       strerror(errno));
    }
    dbt->nchunks = (u32)(size / DBT_CHUNK);
    dbt->next_chunk = dbt->first_chunk;
    dbt->chunks = calloc(dbt->nchunks, sizeof(*dbt->chunks));
    if (!dbt->chunks)
        return err_set(err, -ENOMEM, "no memory for the code cache");
    return make_block_memory(dbt, err);
}

void cache_destroy(struct dbt *dbt)
{
    free(dbt->chunks);
    free(dbt->counters);
    if (dbt->block_memory)
        munmap(dbt->block_memory, (size_t)dbt->nchunks * DBT_CHUNK_BLOCKS);
    if (dbt->code_rw)
        munmap(dbt->code_rw, dbt->code_size);
    if (dbt->code_exec)
        munmap(dbt->code_exec, dbt->code_size);
    if (dbt->code_fd >= 0)
        close(dbt->code_fd);
}

static struct chunk *chunk_of(struct dbt *dbt, const void *exec_addr)
{
    return &dbt->chunks[(size_t)((const u8 *)exec_addr - dbt->code_exec) / DBT_CHUNK];
}

static u64 offset_of(const struct dbt *dbt, const struct chunk *chunk)
{
    return (u64)(chunk - dbt->chunks) * DBT_CHUNK;
}

static void push_free(struct dbt *dbt, struct chunk *chunk)
{
    chunk->state = CHUNK_FREE;
    chunk->next = dbt->free_chunks;
    dbt->free_chunks = chunk;
}

/* To fill the gaps of dead chunks is worth that all vCPUs stand still once there are some. */
static struct chunk *next_chunk(struct dbt *dbt)
{
    struct chunk *chunk = dbt->free_chunks;

    if (chunk)
        dbt->free_chunks = chunk->next;
    else if (dbt->next_chunk < dbt->nchunks && dbt->dead_chunks < DEAD_CHUNKS)
        chunk = &dbt->chunks[dbt->next_chunk++];
    return chunk;
}

static int take_chunk(struct dbt_cpu *dc)
{
    struct dbt *dbt = dc->dbt;
    struct chunk *chunk;

    pthread_mutex_lock(&dbt->lock);
    chunk = next_chunk(dbt);
    if (chunk) {
        if (dc->chunk) {
            dc->chunk->state = CHUNK_FULL;
            dbt->dead_chunks += !dc->chunk->live;
        }
        chunk->state = CHUNK_FILLING;
        dc->chunk = chunk;
    }
    pthread_mutex_unlock(&dbt->lock);
    return chunk ? 0 : -ENOSPC;
}

void cache_leave(struct dbt_cpu *dc)
{
    pthread_mutex_lock(&dc->dbt->lock);
    if (dc->chunk)
        push_free(dc->dbt, dc->chunk);
    dc->chunk = NULL;
    pthread_mutex_unlock(&dc->dbt->lock);
}

/* Asks the host for the next pages in both mappings at once: two faults for each would cost more.
 * It may refuse (Linux before 5.14): then they come by faults. */
static void populate(struct dbt *dbt, struct chunk_part *part, u64 offset, u32 size)
{
    u32 bytes = size - part->populated;

    if (part->used + POPULATE_AHEAD <= part->populated || !bytes)
        return;
    if (bytes > POPULATE)
        bytes = POPULATE;
    madvise(dbt->code_rw + offset + part->populated, bytes, MADV_POPULATE_WRITE);
    madvise(dbt->code_exec + offset + part->populated, bytes, MADV_POPULATE_READ);
    part->populated += bytes;
}

static size_t block_bytes(u32 nlinks)
{
    /* What block_find looks at is then in one cache line. */
    return align_up(sizeof(struct block) + nlinks * sizeof(struct dbt_link), 32);
}

static struct block **block_entry(const struct chunk *chunk, u32 i)
{
    return (struct block **)(chunk->memory + DBT_CHUNK_BLOCKS) - 1 - i;
}

static bool has_room(const struct chunk *chunk)
{
    return chunk->hot.used + DBT_MAX_BLOCK_CODE <= DBT_CHUNK_HOT &&
           chunk->cold.used + DBT_MAX_BLOCK_CODE <= DBT_CHUNK - DBT_CHUNK_HOT &&
           chunk->memory + chunk->used + block_bytes(HOST_MAX_LINKS) <=
               (u8 *)block_entry(chunk, chunk->nblocks) &&
           chunk->counters + HOST_MAX_COUNTERS <= DBT_CHUNK_COUNTERS;
}

s32 cache_first_count(const struct dbt *dbt)
{
    u32 hot = dbt->config.hot;

    return (s32)(hot < INT32_MAX ? hot : INT32_MAX) - 1;
}

static void set_counters(struct dbt *dbt, const struct chunk *chunk, struct host_abi *abi)
{
    abi->counters =
        &dbt->counters[(size_t)(chunk - dbt->chunks) * DBT_CHUNK_COUNTERS + chunk->counters];
    for (u32 i = 0; i < HOST_MAX_COUNTERS; i++)
        abi->counters[i] = cache_first_count(dbt);
}

int cache_reserve(struct dbt_cpu *dc, struct cache_room *room)
{
    struct dbt *dbt = dc->dbt;
    struct chunk *chunk;
    u64 offset;

    while (!dc->chunk || !has_room(dc->chunk)) {
        int ret = take_chunk(dc);

        if (ret)
            return ret;
    }
    chunk = dc->chunk;
    offset = offset_of(dbt, chunk);
    populate(dbt, &chunk->hot, offset, DBT_CHUNK_HOT);
    populate(dbt, &chunk->cold, offset + DBT_CHUNK_HOT, DBT_CHUNK - DBT_CHUNK_HOT);
    room->rw = dbt->code_rw + offset + chunk->hot.used;
    room->exec = (u64)dbt->code_exec + offset + chunk->hot.used;
    room->abi = dbt->abi;
    room->abi.cold = DBT_CHUNK_HOT + chunk->cold.used - chunk->hot.used;
    if (dbt->counters)
        set_counters(dbt, chunk, &room->abi);
    return 0;
}

static void fill_block(struct block *block, const struct cache_room *room,
                       const struct host_code *code)
{
    block->code = (u8 *)room->exec;
    block->code_rw = room->rw;
    block->hot_bytes = (u32)code->hot_bytes;
    block->cold = (u32)code->cold;
    block->insn_bytes = (u32)code->code_bytes;
    block->code_bytes = (u32)code->total_bytes;
    block->nlinks = code->nlinks;
    block->links = (struct dbt_link *)(block + 1);
    for (u32 i = 0; i < code->nlinks; i++) {
        block->links[i].host = code->links[i];
        block->links[i].from = block;
    }
}

struct block *cache_keep(struct dbt_cpu *dc, const struct cache_room *room,
                         const struct host_code *code)
{
    struct chunk *chunk = dc->chunk;
    u32 n = atomic_load_explicit(&chunk->nblocks, memory_order_relaxed);
    size_t bytes = block_bytes(code->nlinks);
    struct block *block = memset(chunk->memory + chunk->used, 0, bytes);

    fill_block(block, room, code);
    chunk->used += (u32)bytes;
    chunk->counters += code->ncounters;
    chunk->hot.used = (u32)align_up(chunk->hot.used + block->hot_bytes, 16);
    chunk->cold.used = (u32)align_up(chunk->cold.used + block->code_bytes - block->cold, 16);
    *block_entry(chunk, n) = block;
    atomic_store_explicit(&chunk->nblocks, n + 1, memory_order_release);
    return block;
}

static u32 bytes_of(const struct block *block)
{
    return block->hot_bytes + block->code_bytes - block->cold;
}

void cache_published(struct dbt *dbt, struct block *block)
{
    if (!dbt->config.jit)
        return;
    chunk_of(dbt, block->code)->live++;
    dbt->stats.code_bytes += bytes_of(block);
}

void cache_retired(struct dbt *dbt, struct block *block)
{
    struct chunk *chunk;

    if (!dbt->config.jit)
        return;
    chunk = chunk_of(dbt, block->code);
    dbt->dead_chunks += !--chunk->live && chunk->state == CHUNK_FULL;
    dbt->stats.code_bytes -= bytes_of(block);
}

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
    hi = atomic_load_explicit(&chunk->nblocks, memory_order_acquire);
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        struct block *block = *block_entry(chunk, mid);

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

/* Does a vCPU stand in C that was called from the chunk's code, and will go on there? */
static bool is_awaited(struct dbt *dbt, const struct chunk *chunk)
{
    u64 first = (u64)dbt->code_exec + offset_of(dbt, chunk);

    for (unsigned i = 0; i < DBT_MAX_CPUS; i++) {
        const u64 *frame = dbt->cpus[i] ? (const u64 *)dbt->cpus[i]->cpu->host_frame : NULL;

        if (frame && frame[-1] - first < DBT_CHUNK)
            return true;
    }
    return false;
}

static void empty(struct dbt *dbt, struct chunk *chunk)
{
    chunk->hot.used = chunk->cold.used = 0;
    chunk->used = chunk->counters = chunk->live = 0;
    atomic_store(&chunk->nblocks, 0);
    push_free(dbt, chunk);
}

/* Both locks held, all CPUs stand still. */
static void free_dead_chunks(struct dbt *dbt)
{
    dbt->dead_chunks = 0;
    dbt->generation++;
    dbt->stats.reclaims++;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i] && atomic_exchange(&dbt->cpus[i]->drop_jumps, false))
            tlb_drop_jumps(dbt->cpus[i]);
    for (u32 i = dbt->next_chunk; i-- > dbt->first_chunk;) {
        struct chunk *chunk = &dbt->chunks[i];

        if (chunk->state == CHUNK_FULL && !chunk->live && !is_awaited(dbt, chunk))
            empty(dbt, chunk);
    }
}

/* The blocks of a chunk that must stay for a moment lead nowhere. */
static void cut_off(struct chunk *chunk)
{
    chunk->state = CHUNK_FULL;
    chunk->live = 0;
    for (u32 i = 0; i < chunk->nblocks; i++) {
        struct block *block = *block_entry(chunk, i);

        atomic_store(&block->dead, true);
        block->incoming = NULL;
        for (u32 j = 0; j < block->nlinks; j++) {
            if (block->links[j].to)
                host_patch_link(block->code_rw, (u64)block->code, &block->links[j].host, 0);
            block->links[j].to = NULL;
        }
    }
}

/* Both locks held, all CPUs stand still. */
static void flush(struct dbt *dbt)
{
    memset((void *)dbt->hash, 0, sizeof(*dbt->hash) << DBT_HASH_BITS);
    pages_free(dbt);
    dbt->free_chunks = NULL;
    dbt->dead_chunks = 0;
    dbt->generation++;
    for (u32 i = dbt->next_chunk; i-- > dbt->first_chunk;) {
        if (is_awaited(dbt, &dbt->chunks[i]))
            cut_off(&dbt->chunks[i]);
        else
            empty(dbt, &dbt->chunks[i]);
    }
    arena_reset(&dbt->units);
    atomic_store(&dbt->kept_units, 0);
    dbt->stats.code_bytes = 0;
    dbt->stats.flushes++;
    for (unsigned i = 0; i < DBT_MAX_CPUS; i++)
        if (dbt->cpus[i]) {
            dbt->cpus[i]->chunk = NULL;
            memset(dbt->cpus[i]->jumps, 0, sizeof(dbt->cpus[i]->jumps));
        }
}

void cache_make_room(struct dbt *dbt)
{
    pthread_mutex_lock(&dbt->lock);
    pthread_mutex_lock(&dbt->cpus_lock);
    free_dead_chunks(dbt);
    if (!dbt->config.jit || (!dbt->free_chunks && dbt->next_chunk == dbt->nchunks))
        flush(dbt);
    pthread_mutex_unlock(&dbt->cpus_lock);
    pthread_mutex_unlock(&dbt->lock);
}

void cache_flush(struct dbt *dbt)
{
    pthread_mutex_lock(&dbt->lock);
    pthread_mutex_lock(&dbt->cpus_lock);
    flush(dbt);
    pthread_mutex_unlock(&dbt->cpus_lock);
    pthread_mutex_unlock(&dbt->lock);
}
