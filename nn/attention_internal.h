/* What the attention operators' files share. */
#ifndef NN_ATTENTION_INTERNAL_H
#define NN_ATTENTION_INTERNAL_H

#include "nn/ops.h"

/* Parameters of nn_attention_cached's node. */
typedef struct nn_cached_params {
    nn_attention_params attention;
    int past, open;
} nn_cached_params;

/* Push constants of shaders/include/attention.glsl. */
typedef struct nn_attention_push {
    uint32_t queries, keys, past, open;
    uint32_t heads, group;
    uint32_t q_row, k_row, v_row;       /* vec4s */
    uint32_t q_first, k_first, v_first; /* vec4s */
    float scale;
} nn_attention_push;

enum nn_attention_kernel { NN_ATTENTION_FORWARD, NN_ATTENTION_BACKWARD_QUERY, NN_ATTENTION_BACKWARD_KEY };

/* How a kernel is run on a device; see shaders/include/attention.glsl. */
typedef struct nn_attention_plan {
    bool shuffle, wide; /* wide: 64-bit stores, with shuffle only */
    enum nn_dtype type; /* of qkv, y and their gradients */
    uint32_t lanes, rows, tile, block, chunk, chunks;
    uint32_t subgroup; /* to be required, or 0 */
} nn_attention_plan;

/* Rows in 16 bits: head_dim is a multiple of 8. */
nn_attention_plan nn_attention_plan_for(const vk_caps *caps, enum nn_attention_kernel kernel, int head_dim,
                                        enum nn_dtype type);
/* Makes plans take the shared-memory kernels where they would take the shuffling ones, so that a test reaches both on
 * one device. */
void nn_attention_prefer_shared(bool prefer);

/* Checks that a row of `cols` elements is queries, keys and values of those heads; errors start with `what`. */
bool nn_attention_check(const char *what, const nn_attention_params *p, int64_t cols);
/* Scale with its default. */
float nn_attention_scale(const nn_attention_params *p);
/* Starts a dispatch of the kernel: name, specialization, groups, push constants (kept by address); the caller adds the
 * binds, and sets the specialization constants NN_ATTENTION_ACCUMULATE where gradients are added to and
 * NN_ATTENTION_PICKED where a list says which rows are queries. */
enum { NN_ATTENTION_ACCUMULATE = 10, NN_ATTENTION_PICKED };
void nn_attention_dispatch(vk_dispatch *d, const nn_attention_plan *plan, enum nn_attention_kernel kernel,
                           const nn_attention_params *p, const nn_attention_push *push, bool segments, int64_t batch);
/* Whether query i sees key j, by the rule of nn_attention. */
bool nn_attention_visible(const nn_attention_params *p, int64_t i, int64_t j, int query_segment, int key_segment);

/* nn/op_attention_reference.c */
void nn_attention_ref_forward(const nn_ref *r);
void nn_attention_ref_backward(const nn_ref *r);

#endif
