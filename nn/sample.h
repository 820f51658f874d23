/* Choosing the next token from a row of logits, on the host. */
#ifndef NN_SAMPLE_H
#define NN_SAMPLE_H

#include <stdint.h>

#include "base/random.h"

typedef struct nn_sampling {
    float temperature; /* logits are divided by it; 0 = greedy: the largest logit */
    int top_k;         /* only the k largest logits; 0 = all */
    float top_p;       /* of these only the fewest most probable with at least this share of the probability (nucleus
                          sampling, Holtzman et al. 2020); 0 or 1 = all */
} nn_sampling;

/* The index in 0..n-1 (n >= 1) of the chosen logit. Equal logits rank by index, the lowest first; a NaN ranks last and
 * is never drawn. Greedy choice draws no random number, any other choice exactly one. */
int32_t nn_sample(const float *logits, int64_t n, const nn_sampling *s, cs_random *r);

#endif
