/* Weighted sums of rows by token, on device memory. For operators. */
#ifndef NN_COMBINE_H
#define NN_COMBINE_H

#include "nn/launch.h"

/* y [T, C]: sum over k of weights [T, K] times row places [T, K] of ys. */
typedef struct nn_combine {
    int64_t tokens, top_k, cols;
    vk_range places;  /* none: row t K + k */
    vk_range weights; /* none: all 1 */
} nn_combine;

/* Records the sums, added to y where `accumulate`. ys and y are what nn_row_in() and nn_row_out() give with any width;
 * ys may be larger than a device binds at once. */
bool nn_combine_run(vk_device *device, const nn_combine *c, nn_row_bind ys, nn_row_bind y, bool accumulate);

#endif
