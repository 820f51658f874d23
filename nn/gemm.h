/* Matrix products: one function records any of them; what a device gets is one table in nn/gemm_variants.c. */
#ifndef NN_GEMM_H
#define NN_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "nn/nn.h"

enum nn_gemm_layout {
    NN_GEMM_NT, /* C[m,n] = sum over k of A[m,k] B[n,k] (+ bias[n]): a linear layer, y = x W^T + b */
    NN_GEMM_NN, /* C[m,n] = sum over k of A[m,k] B[k,n] (+ bias[n]): its input's gradient, dx = dy W */
    NN_GEMM_TN, /* C[m,n] = sum over k of A[k,m] B[k,n] (+ bias[n]): its weight's gradient, dW = dy^T x */
};

extern const char *const nn_gemm_layout_names[]; /* "NT", "NN", "TN" */

/* What is made of v, the finished sum with its bias. */
enum nn_gemm_epilogue {
    NN_GEMM_NONE,     /* C = v */
    NN_GEMM_ACTIVATE, /* C = act(v); extra, where given, = v */
    NN_GEMM_GATE,     /* C = act(other) v; extra, where given, = v */
    NN_GEMM_SLOPE,    /* C = v act'(other) */
    NN_GEMM_ADD,      /* C = v + other */
    NN_GEMM_AFFINITY, /* C = v; extra, f32, = sums of an affinity's terms of v, before C is rounded, over each four
                       * columns, n / 4 a row; n, c_stride and bias_stride are multiples of 4 (specification 2.3; the
                       * sum over the row is left to do) */
};

/* One product, or one for each of `batch` entries or `groups` groups, of dense row-major matrices. Ranges may be longer
 * than what is used. Sums are f32, whatever the types: 0 is NN_F32; NN_F16 and NN_BF16 are how values lie in memory. C,
 * `other` and `extra` of 16 bits take an even n and strides. */
typedef struct nn_gemm {
    enum nn_gemm_layout layout;
    uint32_t m, n, k;
    vk_range a, b, c;
    enum nn_dtype a_type, b_type, c_type;
    vk_range bias;   /* f32; none for no bias */
    bool accumulate; /* add the result to C instead of writing it */
    bool exact;      /* an f32 operand beside one of 16 bits is multiplied as it is; else a device may round it, too */

    enum nn_gemm_epilogue epilogue;
    int activation;        /* enum nn_activation; with NN_GEMM_AFFINITY enum nn_affinity_kind */
    vk_range other, extra; /* shaped like C, if not said otherwise; `other` may be C itself */
    enum nn_dtype other_type, extra_type;

    /* I32: row i of A (NT, NN) or of B (TN) is row rows[i] of what is given. None: row i. Not with a batch. */
    vk_range rows;

    /* Entries lie this many elements apart; 0 shares one matrix among all. 0 entries means 1. */
    uint32_t batch, a_stride, b_stride, c_stride, bias_stride;
    bool sum_batch; /* one C: the sum over the entries, in their order */

    /* Rows offsets[e]..offsets[e+1]-1 belong to group e; offsets [groups+1] I32 on the device. NT and NN: rows of A and
     * C, m of them, each group with its own B (b_stride apart) and bias (bias_stride). TN: rows of A and B, k of them,
     * each group with its own C (c_stride apart), zero where it has no rows. Not with batch; 0 groups: plain. */
    uint32_t groups;
    vk_range offsets;
    uint32_t first_group; /* so many groups' offsets and groups' or entries' biases are skipped */

    /* TN with nothing but a C of f32: so many parts of the terms, which k is a multiple of, are summed side by side and
     * then added up. 0: as suits the device. */
    uint32_t parts;

    const char *label;   /* row of the profile; NULL: the variant's name */
    const char *variant; /* one variant by its name, for tests and tuning; NULL: the device's best for these sizes */
    uint64_t max_range;  /* bytes bound at once, for tests; 0: what the device can */
} nn_gemm;

/* Records the product, in halves where matrices are larger than a device binds at once: batches by entries, grouped
 * ones by groups, so that the rows of A and C have to fit (nn/op_ffn.c cuts these), plain ones by rows or, TN, by
 * terms. Fails where a range is too short for the sizes, or a named variant does not suit. Results are the same bits
 * each time on the same device. Sums too long for one dispatch (tens of thousands of terms on a CPU driver, or a TN
 * product over more rows than a device binds) take no epilogue and an f32 C. */
bool nn_gemm_run(vk_device *device, const nn_gemm *g);

/* Called with every product that nn_gemm_run() gets, before it is cut up, until another is set; NULL: none. For tuning,
 * from the one thread that runs products. */
typedef void nn_gemm_observer(void *with, const nn_gemm *g);
void nn_gemm_observe(nn_gemm_observer *observer, void *with);

/* The variants, best first: names for nn_gemm.variant; NULL past the last. */
const char *nn_gemm_variant_name(int index);
/* Whether that variant can run this product on this device. */
bool nn_gemm_variant_suits(vk_device *device, const char *variant, const nn_gemm *g);

/* Whether the first `bytes` of the range can be bound as texels of 16 bytes. */
bool nn_texel_fits(const vk_caps *caps, vk_range range, uint64_t bytes);

#endif
