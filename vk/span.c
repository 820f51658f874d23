#include "vk/internal.h"

#include <string.h>

#include "base/memory.h"

/* Index of the first interval that ends at or after `at`. */
static size_t first_reaching(const struct vk_spans *spans, uint64_t at)
{
    size_t low = 0, high = spans->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (spans->items[middle].hi < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool vk_spans_add(struct vk_spans *spans, uint64_t lo, uint64_t hi)
{
    size_t from = first_reaching(spans, lo), to = from;
    while (to < spans->count && spans->items[to].lo <= hi) {
        if (spans->items[to].lo < lo)
            lo = spans->items[to].lo;
        if (spans->items[to].hi > hi)
            hi = spans->items[to].hi;
        to++;
    }
    if (from == to &&
        !cs_grow(&spans->items, &spans->capacity, spans->count + 1, sizeof *spans->items, "memory ranges"))
        return false;
    memmove(spans->items + from + 1, spans->items + to, (spans->count - to) * sizeof *spans->items);
    spans->items[from] = (struct vk_span){lo, hi};
    spans->count += 1 - (to - from);
    return true;
}

bool vk_spans_overlap(const struct vk_spans *spans, uint64_t lo, uint64_t hi)
{
    size_t i = first_reaching(spans, lo + 1);
    return i < spans->count && spans->items[i].lo < hi;
}

void vk_spans_take(struct vk_spans *spans, size_t index, uint64_t bytes)
{
    struct vk_span *span = &spans->items[index];
    span->lo += bytes;
    if (span->lo == span->hi) {
        spans->count--;
        memmove(span, span + 1, (spans->count - index) * sizeof *span);
    }
}
