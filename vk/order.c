/* Barriers from tracked reads and writes. Each block keeps the ranges touched since the last barrier; as that one is
 * global, a single counter ("epoch") forgets them all. */
#include "vk/internal.h"

static bool conflicts(const struct vk_touch *touch, uint64_t epoch)
{
    const struct vk_block *block = touch->block;
    if (block->epoch != epoch)
        return false;
    return vk_spans_overlap(&block->writes, touch->lo, touch->hi) ||
           (touch->write && vk_spans_overlap(&block->reads, touch->lo, touch->hi));
}

static bool remember(const struct vk_touch *touch, uint64_t epoch)
{
    struct vk_block *block = touch->block;
    if (block->epoch != epoch) {
        block->epoch = epoch;
        block->reads.count = block->writes.count = 0;
    }
    return vk_spans_add(touch->write ? &block->writes : &block->reads, touch->lo, touch->hi);
}

bool vk_order(vk_device *device, const struct vk_touch *touches, size_t count, bool *barrier)
{
    struct vk_stream *stream = &device->stream;
    bool conflict = false;
    for (size_t i = 0; i < count && !conflict; i++)
        conflict = conflicts(&touches[i], stream->epoch);
    if (conflict) {
        stream->epoch++;
        device->counters.barriers++;
    }
    /* A profile orders everything, so that a kernel's time is its own. */
    *barrier = conflict || device->profiling;
    for (size_t i = 0; i < count; i++)
        if (!remember(&touches[i], stream->epoch))
            return false;
    return true;
}
