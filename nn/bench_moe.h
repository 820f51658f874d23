/* Wall-clock timing of the mixture-of-experts layer, forward and backward, beside a dense feed-forward block of equal
 * arithmetic. */
#ifndef NN_BENCH_MOE_H
#define NN_BENCH_MOE_H

#include "nn/bench.h"

/* B sequences of N tokens of width D; experts of hidden width H with biases and GELU, K of E per token. */
typedef struct nn_bench_moe_shape {
    int sequences, tokens, width, hidden, experts, top_k;
    enum nn_dtype precision; /* of the tape and of the tokens; see nn_tape_set_precision() */
} nn_bench_moe_shape;

enum nn_bench_moe_kind {
    NN_BENCH_DENSE,       /* one block of hidden width K H: the routed layer's arithmetic without routing */
    NN_BENCH_ROUTED,      /* every expert gets about as many tokens */
    NN_BENCH_SKEWED,      /* expert e gets tokens in proportion to 1 / (e + 1): Zipf's law */
    NN_BENCH_COMPETING,   /* all experts see all tokens */
    NN_BENCH_RECOMPUTING, /* the same, with competition_memory "recompute" */
    NN_BENCH_MOE_KINDS,
};
extern const char *const nn_bench_moe_names[]; /* of the kinds */

typedef struct nn_bench_moe_result {
    nn_timing time;      /* flops: of the experts' products, forward and backward, none of them twice */
    uint64_t dispatches; /* of one pass */
    uint64_t peak_bytes; /* device memory beyond parameters and inputs */
} nn_bench_moe_result;

/* Times passes over the same random tokens: the tape is built, run, submitted and waited for; gradients of sum(output)
 * and the weighted losses go to the parameters and the tokens. `runs` (5 or more) passes of each kind that competes and
 * three times as many of the others, after two that are not counted; the kinds take turns, so that what disturbs the
 * machine disturbs all. A kind whose result is NULL is left out. */
bool nn_bench_moe(vk_device *device, const nn_bench_moe_shape *shape, int runs,
                  nn_bench_moe_result *const result[NN_BENCH_MOE_KINDS]);

#endif
