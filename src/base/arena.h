/*
 * A bump allocator: many small objects with one common end.
 * Not thread-safe; one owner.
 */
#ifndef TRIODE_BASE_ARENA_H
#define TRIODE_BASE_ARENA_H

#include "base/types.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* newest first */
};

/* @size bytes, zeroed, 16-byte aligned; NULL when memory is out. */
void *arena_alloc(struct arena *arena, size_t size);

/* The same with whatever the memory holds: for arrays that are seldom filled. */
void *arena_alloc_dirty(struct arena *arena, size_t size);

/* Forgets all objects, keeps the newest chunk for reuse. */
void arena_reset(struct arena *arena);

/* Frees everything. */
void arena_free(struct arena *arena);

#endif
