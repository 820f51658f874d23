#include <stddef.h>
#include <stdlib.h>

static void *stb_take(size_t size);
static void *stb_resize(void *p, size_t size);

void mm_stb_free(void *p);

#define STBI_MALLOC(size) stb_take(size)
#define STBI_REALLOC(p, size) stb_resize(p, size)
#define STBI_FREE(p) mm_stb_free(p)

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_FAILURE_USERMSG
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#endif
#include "multimodal/stb.h"

/* Each block is preceded by its size, so that what is released returns to the budget. */
typedef union stb_block {
    size_t size;
    max_align_t align;
} stb_block;

static _Thread_local size_t remaining;

void mm_stb_budget(size_t bytes)
{
    remaining = bytes;
}

static void *stb_take(size_t size)
{
    if (size > remaining)
        return NULL;
    stb_block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    block->size = size;
    remaining -= size;
    return block + 1;
}

static void *stb_resize(void *p, size_t size)
{
    if (!p)
        return stb_take(size);
    stb_block *block = (stb_block *)p - 1;
    size_t old = block->size;
    if (size > old && size - old > remaining)
        return NULL;
    block = realloc(block, sizeof *block + size);
    if (!block)
        return NULL;
    block->size = size;
    remaining = remaining + old - size;
    return block + 1;
}

void mm_stb_free(void *p)
{
    if (!p)
        return;
    stb_block *block = (stb_block *)p - 1;
    remaining += block->size;
    free(block);
}
