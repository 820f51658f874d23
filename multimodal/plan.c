#include "multimodal/plan.h"

#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"

/* Samples are sorted by length inside groups of this many batches, as Hugging Face's LengthGroupedSampler does: large
 * enough for like lengths to meet, small enough for the company to change every epoch. */
enum { GROUP_BATCHES = 50, MIN_GROUPS = 4 };

size_t mm_plan_batches(const mm_plan *p)
{
    return (p->samples + p->batch - 1) / p->batch;
}

static int longest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

/* Keys are (length, place), so that the order among equals is the shuffled one. */
static void sort_by_length(mm_plan *p, size_t first, size_t count)
{
    uint32_t *order = p->order + first;
    for (size_t i = 0; i < count; i++) {
        p->keys[i] = (uint64_t)p->lengths[order[i]] << 32 | i;
        p->before[i] = order[i];
    }
    qsort(p->keys, count, sizeof *p->keys, longest_first);
    for (size_t i = 0; i < count; i++)
        order[i] = p->before[(uint32_t)p->keys[i]];
}

static void plan_epoch(mm_plan *p, uint64_t epoch)
{
    size_t batches = mm_plan_batches(p), group = p->samples;
    cs_random r = {p->seed, CS_STREAM_SHUFFLE, epoch << 36};
    for (size_t i = 0; i < p->samples; i++)
        p->order[i] = (uint32_t)i;
    for (size_t i = 0; i < batches; i++)
        p->turn[i] = (uint32_t)i;
    if (p->shuffle) {
        cs_random_shuffle(&r, p->order, p->samples);
        size_t in_group = batches / MIN_GROUPS;
        in_group = in_group < 1 ? 1 : in_group > GROUP_BATCHES ? GROUP_BATCHES : in_group;
        group = in_group * p->batch;
    }
    for (size_t i = 0; p->group && i < p->samples; i += group)
        sort_by_length(p, i, group < p->samples - i ? group : p->samples - i);
    if (p->shuffle)
        cs_random_shuffle(&r, p->turn, batches);
    p->epoch = epoch;
}

bool mm_plan_open(mm_plan *p)
{
    p->order = cs_alloc(p->samples, sizeof *p->order, "the order of the samples");
    p->turn = cs_alloc(mm_plan_batches(p), sizeof *p->turn, "the order of the batches");
    p->keys = cs_alloc(p->samples, sizeof *p->keys, "the order of the samples");
    p->before = cs_alloc(p->samples, sizeof *p->before, "the order of the samples");
    if (!p->order || !p->turn || !p->keys || !p->before)
        return false;
    plan_epoch(p, 0);
    return true;
}

void mm_plan_close(mm_plan *p)
{
    free(p->order);
    free(p->turn);
    free(p->keys);
    free(p->before);
}

const uint32_t *mm_plan_step(mm_plan *p, uint64_t step, size_t *count)
{
    size_t batches = mm_plan_batches(p);
    if (step / batches != p->epoch)
        plan_epoch(p, step / batches);
    size_t first = p->turn[step % batches] * p->batch, left = p->samples - first;
    *count = left < p->batch ? left : p->batch;
    return p->order + first;
}
