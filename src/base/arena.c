/* SPDX-License-Identifier: Apache-2.0 */
/* The arena of oncehook/types.h: a chain of blocks, bump allocated, freed at once. */
#include "oncehook/types.h"

#include <stdlib.h>

enum { ARENA_ALIGN = 16, ARENA_BLOCK_MIN = 1024 };

struct arena_block {
    struct arena_block *next; /* older blocks */
    size_t used, size;        /* of bytes[] */
    _Alignas(ARENA_ALIGN) char bytes[];
};

struct oh_arena {
    struct arena_block *newest;
    size_t taken;     /* sum of all blocks' sizes */
    size_t max_bytes; /* bound of `taken` */
};

static struct arena_block *block_new(size_t size)
{
    struct arena_block *block = malloc(sizeof(*block) + size);
    if (block) {
        block->next = NULL;
        block->used = 0;
        block->size = size;
    }
    return block;
}

struct oh_arena *oh_arena_new(size_t first_bytes, size_t max_bytes)
{
    /* The arena's own head lives in its first block, so a request costs one malloc. */
    size_t head = (sizeof(struct oh_arena) + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_block *block = block_new(head + first_bytes);
    if (!block)
        return NULL;
    struct oh_arena *arena = (struct oh_arena *)(void *)block->bytes;
    block->used = head;
    arena->newest = block;
    arena->taken = first_bytes;
    arena->max_bytes = max_bytes < first_bytes ? first_bytes : max_bytes;
    return arena;
}

static struct arena_block *arena_grow(struct oh_arena *arena, size_t bytes)
{
    size_t room = arena->max_bytes - arena->taken;
    size_t size = arena->newest->size * 2;
    if (size < ARENA_BLOCK_MIN)
        size = ARENA_BLOCK_MIN;
    if (size > room)
        size = room;
    if (size < bytes)
        size = bytes;
    if (size > room)
        return NULL;
    struct arena_block *block = block_new(size);
    if (!block)
        return NULL;
    arena->taken += size;
    block->next = arena->newest;
    arena->newest = block;
    return block;
}

void *oh_arena_alloc(struct oh_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - ARENA_ALIGN)
        return NULL;
    bytes = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_block *block = arena->newest;
    if (block->size - block->used < bytes) {
        block = arena_grow(arena, bytes);
        if (!block)
            return NULL;
    }
    void *at = block->bytes + block->used;
    block->used += bytes;
    return at;
}

size_t oh_arena_bytes(const struct oh_arena *arena)
{
    return arena->taken;
}

void oh_arena_free(struct oh_arena *arena)
{
    if (!arena)
        return;
    struct arena_block *block = arena->newest;
    while (block) { /* the oldest block holds the arena itself and is freed last */
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}
