/* Activations on device memory, and their references in double. For operators. */
#ifndef NN_ACTIVATION_H
#define NN_ACTIVATION_H

#include "nn/nn.h"

/* y = act(a) b for `count` elements of one type; b none: 1. */
typedef struct nn_gate {
    int activation; /* enum nn_activation */
    int64_t count;
    enum nn_dtype type;
    vk_range a, b;
} nn_gate;

/* Records y, which may be a. */
bool nn_gate_run(vk_device *device, const nn_gate *g, vk_range y);
/* Records da = dy act'(a) b and, with b, db = dy act(a). da may be a and db b, which are then lost. */
bool nn_gate_backward(vk_device *device, const nn_gate *g, vk_range dy, vk_range da, vk_range db);

/* enum nn_activation and its derivative. */
double nn_ref_activation(uint32_t kind, double x);
double nn_ref_activation_slope(uint32_t kind, double x);

#endif
