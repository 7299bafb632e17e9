#include "base/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bits.h"

#define ARENA_CHUNK_BYTES (64 * KiB)
#define ARENA_HUGE_BYTES                                                                           \
    (2 * MiB)              /* chunks of an arena that grows large: a huge page, if it may be */
#define ARENA_HUGE_FROM 16 /* small chunks before that */
#define ARENA_ALIGN 16

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    unsigned number; /* of the arena's chunks that were there before */
    _Alignas(ARENA_ALIGN) u8 data[];
};

static struct arena_chunk *huge_chunk(void)
{
    struct arena_chunk *chunk = aligned_alloc(ARENA_HUGE_BYTES, ARENA_HUGE_BYTES);

    if (!chunk)
        return NULL;
    madvise(chunk, ARENA_HUGE_BYTES, MADV_HUGEPAGE);
    *chunk = (struct arena_chunk){.size = ARENA_HUGE_BYTES - sizeof(*chunk)};
    return chunk;
}

/* A chunk for @size bytes and more. */
static struct arena_chunk *chunk_new(const struct arena *arena, size_t size)
{
    unsigned number = arena->chunks ? arena->chunks->number + 1 : 0;
    struct arena_chunk *chunk = NULL;

    if (size > PTRDIFF_MAX - sizeof(*chunk)) /* more than malloc may ever give */
        return NULL;
    if (number >= ARENA_HUGE_FROM && size <= ARENA_CHUNK_BYTES)
        chunk = huge_chunk();
    if (!chunk) {
        size = size > ARENA_CHUNK_BYTES ? size : ARENA_CHUNK_BYTES;
        chunk = malloc(sizeof(*chunk) + size);
        if (!chunk)
            return NULL;
        *chunk = (struct arena_chunk){.size = size};
    }
    chunk->number = number;
    return chunk;
}

void *arena_alloc_dirty(struct arena *arena, size_t size)
{
    struct arena_chunk *chunk = arena->chunks;
    size_t need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    void *p;

    if (need < size)
        return NULL;
    if (!chunk || chunk->size - chunk->used < need) {
        chunk = chunk_new(arena, need);
        if (!chunk)
            return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    p = chunk->data + chunk->used;
    chunk->used += need;
    return p;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    void *p = arena_alloc_dirty(arena, size);

    return p ? memset(p, 0, size) : NULL;
}

static void free_chunks(struct arena_chunk *chunk)
{
    while (chunk) {
        struct arena_chunk *next = chunk->next;

        free(chunk);
        chunk = next;
    }
}

void arena_reset(struct arena *arena)
{
    struct arena_chunk *chunk = arena->chunks;

    if (!chunk)
        return;
    free_chunks(chunk->next);
    chunk->next = NULL;
    chunk->used = 0;
    chunk->number = 0;
}

void arena_free(struct arena *arena)
{
    free_chunks(arena->chunks);
    arena->chunks = NULL;
}
