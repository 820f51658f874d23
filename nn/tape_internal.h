#ifndef NN_TAPE_INTERNAL_H
#define NN_TAPE_INTERNAL_H

#include "nn/nn.h"

enum nn_pass { NN_PASS_FORWARD, NN_PASS_BACKWARD };

/* One step of the program; forward steps past the first `nodes` ones are recomputations. */
typedef struct nn_step {
    enum nn_pass pass;
    nn_node *node;
    uint32_t release_in, release_out; /* bit i: the memory of in[i] / out[i] goes after this step */
} nn_step;

typedef struct nn_chunk {
    struct nn_chunk *next;
    size_t used;
    _Alignas(16) unsigned char bytes[];
} nn_chunk;

struct nn_tape {
    vk_device *device;
    nn_chunk *chunks, *chunk; /* all, and the one being filled */
    nn_node **node;
    nn_tensor **tensor;
    nn_step *step;
    size_t nodes, tensors, steps, node_capacity, tensor_capacity, step_capacity;
    enum nn_dtype precision;
    vk_range indices;    /* of all integer inputs of this run, side by side */
    vk_range loss_scale; /* of roots' gradients; none: 1 */
    int segment, segments; /* of recomputation: the open one (0 = none), how many so far */
    bool failed, ran;
    char error[512]; /* the first one while building */
};

enum { NN_MAX_SCRATCH = 8 };

struct nn_exec {
    nn_tape *tape;
    vk_range scratch[NN_MAX_SCRATCH];
    int scratches;
    bool failed;
};

#endif
