/* Timing of operators and plain matrix products on a device opened with params.profile. */
#ifndef NN_BENCH_H
#define NN_BENCH_H

#include "nn/gemm.h"
#include "nn/nn.h"

/* Device time of one thing, over several runs after a first one that is not counted. */
typedef struct nn_timing {
    int runs;
    double median, best;   /* nanoseconds */
    double deviation;      /* median distance from the median */
    double flops, bytes;   /* arithmetic; what must be read and written at least */
} nn_timing;

/* Fills in what follows from `runs` durations in nanoseconds, whose array is used up. */
void nn_summarise(nn_timing *t, double *ns, int runs);

/* C = A B of normal random values in that layout. */
bool nn_bench_gemm(vk_device *device, enum nn_gemm_layout layout, uint32_t m, uint32_t n, uint32_t k, nn_timing *t);

/* One case of an operator. `backward` (runs = 0 where it has none) is what the backward pass adds to a forward one, its
 * arithmetic counted as twice the forward's, as usual; on a busy machine the difference may come out as 0 or less. */
bool nn_bench_case(vk_device *device, const nn_op *op, const nn_case *c, nn_timing *forward, nn_timing *backward);

#endif
