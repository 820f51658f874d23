#ifndef NN_PARAMS_INTERNAL_H
#define NN_PARAMS_INTERNAL_H

#include "nn/nn.h"

/* Parameters side by side, so that the optimizer is one dispatch a slab. Elements [0, decay_elements) take weight
 * decay, the rest does not; gaps between parameters are zero and stay so. */
typedef struct nn_slab {
    vk_range value, grad, m, v; /* f32 [elements]; the last three only where trainable and training */
    uint64_t elements, decay_elements;
    vk_range narrow; /* the first decay_elements in 16 bits; none before nn_params_narrow() */
    bool narrowed;   /* and they are those of `value` */
    bool trainable;
} nn_slab;

struct nn_params {
    vk_device *device;
    nn_param **param;
    size_t count, capacity;
    nn_slab *slab;
    size_t slabs, slab_capacity;
    bool allocated;
    vk_range loss_scale; /* nn_loss_scale on the device; none: gradients are not scaled */
    uint32_t growth;     /* good steps until it doubles */
};

#endif
