/* Replays golden cases of the authors' layer through this layer: the same tape, kernels and parameters that training
 * uses. */
#ifndef NN_VERIFY_H
#define NN_VERIFY_H

#include "nn/golden.h"

/* A tensor agrees where no element differs by more than the larger of these: a multiple of the reference's own float32
 * error for it, and a share of its largest magnitude (of a sum over experts: of the largest summand). Integers and
 * schedules must be equal. */
#define NN_VERIFY_TIMES 50
#define NN_VERIFY_SHARE 5e-6

typedef struct nn_verify_result {
    bool passed;
    int tensors;      /* compared */
    char worst[96];   /* the tensor nearest to, or farthest beyond, its limit */
    double error, limit;
} nn_verify_result;

/* False where the case could not be run (a tensor is missing or of the wrong shape, memory); a difference is a
 * result. The golden must be supported. */
bool nn_verify(vk_device *device, const nn_safetensors *st, const nn_golden *golden, nn_verify_result *result);

#endif
