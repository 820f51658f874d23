/* Activations on device memory, and their references in double. For operators. */
#ifndef NN_ACTIVATION_H
#define NN_ACTIVATION_H

#include "nn/nn.h"

/* Of y = act(a) b. */
typedef struct nn_gated_ranges {
    vk_range a, b, dy, da, db; /* da, db may be a and b, which are then lost */
} nn_gated_ranges;

/* Records da = dy act'(a) b and db = dy act(a) for `count` elements, all of that type. */
bool nn_gated_backward(vk_device *device, int kind, int64_t count, enum nn_dtype type, const nn_gated_ranges *r);

/* enum nn_activation and its derivative. */
double nn_ref_activation(uint32_t kind, double x);
double nn_ref_activation_slope(uint32_t kind, double x);

#endif
