/* Which samples stand in which batch: the deterministic order of an epoch. */
#ifndef MULTIMODAL_PLAN_H
#define MULTIMODAL_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mm_plan {
    size_t samples, batch;
    bool shuffle, group;
    uint64_t seed;
    const uint32_t *lengths; /* [samples], borrowed */
    uint64_t epoch;          /* of `order` */
    uint32_t *order;         /* [samples] batch b of the plan is order[b * batch ..] */
    uint32_t *turn;          /* [batches] which of them comes when */
    uint64_t *keys;          /* [samples] scratch of the sort */
    uint32_t *before;        /* [samples] likewise */
} mm_plan;

/* Sizes and lengths set, makes the arrays and the plan of epoch 0. */
bool mm_plan_open(mm_plan *p);
void mm_plan_close(mm_plan *p);
size_t mm_plan_batches(const mm_plan *p);

/* The samples of a step, counted through all epochs; `*count` of them, at most `batch`. */
const uint32_t *mm_plan_step(mm_plan *p, uint64_t step, size_t *count);

#endif
