/* Whether a variant of the matrix product can be trusted on a device: its results are compared with those of the
 * variant that runs everything everywhere. For tuning. */
#ifndef NN_GEMM_CHECK_H
#define NN_GEMM_CHECK_H

#include "nn/gemm.h"

/* A product and what it should come to. */
typedef struct nn_gemm_trial {
    nn_gemm g;         /* `other`, where it has one, is C as it was before */
    vk_range expected; /* like C */
} nn_gemm_trial;

typedef struct nn_gemm_check {
    vk_device *device;
    nn_gemm_trial plain;
    vk_range offsets, rows, bias; /* of the thorough comparison; made when first needed */
} nn_gemm_check;

/* Rows (NT, NN) or terms (TN) that operands and result of an ungrouped product need to have room for, where it is to be
 * checked thoroughly with so many of its own. */
uint32_t nn_gemm_check_tokens(uint32_t tokens);

/* Makes the expected result of a product without bias, epilogue and gathered rows; writes over its C, which stays its
 * owner's. To be ended, also after a failure. */
bool nn_gemm_check_begin(nn_gemm_check *check, vk_device *device, const nn_gemm *g);
/* Makes the product by that variant, which suits it. Where `thorough` also with whole tiles, with ragged ones, and with
 * gathered rows, a bias, an addend and a result in the operands' type: what else a choice for it may be used for.
 * `*agrees`: whether the results are the expected ones, but for rounding. Fails where that cannot be found out. */
bool nn_gemm_check_variant(nn_gemm_check *check, const char *variant, bool thorough, bool *agrees);
void nn_gemm_check_end(nn_gemm_check *check);

/* The largest difference of two elements, each relative to the expected one plus the root mean square of all expected
 * ones; infinite where one is no number. f32, f16 or bf16. */
bool nn_gemm_difference(vk_device *device, vk_range got, vk_range expected, enum nn_dtype type, uint64_t elements,
                        double *difference);
/* The difference that rounding may make between two variants' sums of so many terms, stored in that type. */
double nn_gemm_rounding(uint32_t terms, enum nn_dtype type);

#endif
