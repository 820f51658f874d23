/* Cross-entropy over rows of logits, whole or chunk by chunk of their columns; for the operators of both kinds. */
#ifndef NN_CROSS_ENTROPY_H
#define NN_CROSS_ENTROPY_H

#include "nn/nn.h"

/* Columns first .. first + count - 1 of `columns`, in `logits` [rows, count] f32. */
typedef struct nn_logits_chunk {
    int64_t rows, columns, first, count;
    vk_bind logits;
    vk_bind labels;   /* [rows] I32; no column: the row is ignored */
    vk_bind log_sums; /* [rows] log sum exp over all columns; 0 for ignored rows */
} nn_logits_chunk;

/* Scratch of the forward pass: [rows] losses, and where there are several chunks [rows, 4] what they hand on. */
typedef struct nn_loss_scratch {
    vk_bind losses, states, partials;
} nn_loss_scratch;
nn_loss_scratch nn_loss_scratch_make(nn_exec *x, int64_t rows, bool chunked);

/* Takes in the next chunk; chunks come in order. The last one writes losses, log_sums and best [rows] I32, the largest
 * column. */
bool nn_cross_entropy_chunk(vk_device *device, const nn_logits_chunk *c, const nn_loss_scratch *s, vk_bind best);
/* loss [1] = scale times the sum of the losses. */
bool nn_cross_entropy_finish(vk_device *device, const nn_loss_scratch *s, int64_t rows, float scale, vk_bind loss);

/* d [rows, count] (+)= scale dloss (softmax - 1 at the label); may be the logits themselves. */
bool nn_cross_entropy_slope(vk_device *device, const nn_logits_chunk *c, float scale, vk_bind dloss, vk_bind d,
                            bool accumulate);

/* The double reference of one row: log sum exp and the largest column. */
double nn_reference_log_sum(const double *logits, int64_t columns, int64_t *best);

#endif
