/* Sums of the columns of dense row-major matrices, in f32: the gradient of a bias. */
#ifndef NN_BIAS_SUM_H
#define NN_BIAS_SUM_H

#include <stdbool.h>
#include <stdint.h>

#include "nn/nn.h"

typedef struct nn_bias_sum {
    uint32_t rows, columns; /* of each entry; where grouped, rows of all groups together */
    uint32_t batch;         /* entries one after the other; 0 means 1 */
    uint32_t groups;        /* or groups: rows offsets[e]..offsets[e+1]-1 each; 0: plain */
    vk_range offsets;       /* [groups+1] I32 */
    vk_range in;            /* [batch, rows, columns] or [rows, columns] */
    enum nn_dtype in_type;  /* of 16 bits: an even number of columns */
    vk_range out;           /* [batch or groups, columns] */
    uint32_t out_stride;    /* elements between the sums of two entries; 0: columns */
    bool accumulate;        /* add to `out` instead of writing it */
    const char *label;      /* row of the profile; NULL: "bias_sum" */
} nn_bias_sum;

/* Records the sums, always in the same order. Takes and returns its scratch memory itself. */
bool nn_bias_sum_run(vk_device *device, const nn_bias_sum *s);

#endif
