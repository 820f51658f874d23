/* Matrix products: one function records any of them; what a device gets is one table in nn/gemm.c. */
#ifndef NN_GEMM_H
#define NN_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "vk/vk.h"

enum nn_gemm_layout {
    NN_GEMM_NT, /* C[m,n] = sum over k of A[m,k] B[n,k] (+ bias[n]): a linear layer, y = x W^T + b */
    NN_GEMM_NN, /* C[m,n] = sum over k of A[m,k] B[k,n] (+ bias[n]): its input's gradient, dx = dy W */
    NN_GEMM_TN, /* C[m,n] = sum over k of A[k,m] B[k,n] (+ bias[n]): its weight's gradient, dW = dy^T x */
};

/* One product, or one for each of `batch` entries or `groups` groups, of dense row-major f32 matrices. Ranges may be
 * longer than what is used. */
typedef struct nn_gemm {
    enum nn_gemm_layout layout;
    uint32_t m, n, k;
    vk_range a, b, c, bias; /* bias: none for no bias */
    bool accumulate;        /* add to C instead of writing it */

    /* Entries lie this many elements apart; 0 shares one matrix among all. 0 entries means 1. */
    uint32_t batch, a_stride, b_stride, c_stride, bias_stride;
    bool sum_batch; /* one C: the sum over the entries, in their order */

    /* Rows offsets[e]..offsets[e+1]-1 belong to group e; offsets [groups+1] I32 on the device. NT and NN: rows of A and
     * C, m of them, each group with its own B (b_stride apart) and bias (bias_stride). TN: rows of A and B, k of them,
     * each group with its own C (c_stride apart), zero where it has no rows. Not with batch; 0 groups: plain. */
    uint32_t groups;
    vk_range offsets;

    const char *label;   /* row of the profile; NULL: the variant's name */
    const char *variant; /* one variant by its name, for tests and tuning; NULL: the device's best for these sizes */
    uint64_t max_range;  /* bytes bound at once, for tests; 0: what the device can */
} nn_gemm;

/* Records the product, in parts where matrices are larger than a device binds at once (not where grouped). Fails where
 * a range is too short for the sizes, or a named variant does not suit. Results are the same bits each time on the same
 * device. */
bool nn_gemm_run(vk_device *device, const nn_gemm *g);

/* The variants, best first: names for nn_gemm.variant; NULL past the last. */
const char *nn_gemm_variant_name(int index);
/* Whether that variant can run this product on this device. */
bool nn_gemm_variant_suits(vk_device *device, const char *variant, const nn_gemm *g);

/* Whether the first `elements` f32 of the range can be bound as texels of four. */
bool nn_texel_fits(const vk_caps *caps, vk_range range, uint64_t elements);

#endif
