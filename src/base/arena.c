#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES (64 * KiB)
#define ARENA_ALIGN 16

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(ARENA_ALIGN) u8 data[];
};

static struct arena_chunk *chunk_new(size_t size)
{
    struct arena_chunk *chunk;

    if (size > PTRDIFF_MAX - sizeof(*chunk)) /* more than malloc may ever give */
        return NULL;
    chunk = malloc(sizeof(*chunk) + size);
    if (chunk)
        *chunk = (struct arena_chunk){.size = size};
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    struct arena_chunk *chunk = arena->chunks;
    size_t need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    void *p;

    if (need < size)
        return NULL;
    if (!chunk || chunk->size - chunk->used < need) {
        chunk = chunk_new(need > ARENA_CHUNK_BYTES ? need : ARENA_CHUNK_BYTES);
        if (!chunk)
            return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    p = chunk->data + chunk->used;
    chunk->used += need;
    return memset(p, 0, size);
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
}

void arena_free(struct arena *arena)
{
    free_chunks(arena->chunks);
    arena->chunks = NULL;
}
