/* Times whole training steps of the example models on synthetic samples of their data's shapes: no data set is
 * needed. */
#ifndef MULTIMODAL_BENCH_STEP_H
#define MULTIMODAL_BENCH_STEP_H

#include "nn/bench.h"

extern const char *const mm_bench_model_names[]; /* NULL-ended */

typedef struct mm_bench_step_params {
    const char *device;    /* selector or NULL */
    int model;             /* index into mm_bench_model_names */
    int batch;             /* samples; 0: the model's usual batch */
    bool compete;          /* every mixture competes, instead of none */
    bool quick;            /* fewer steps */
    const char *precision; /* train.precision */
} mm_bench_step_params;

typedef struct mm_bench_step_result {
    nn_timing time;            /* wall clock from one finished step to the next */
    /* Medians: of recording; of the sum of all kernels, run one after the other, without uploads. */
    double host_ns, device_ns;
    int samples, tokens;       /* of the batch; tokens of a sample with its picture's and padding */
    uint64_t real_tokens;      /* of the batch without padding */
    uint64_t dispatches;
    uint64_t peak_bytes;       /* device memory with parameters and optimizer */
    bool has_mixtures;         /* whether `compete` makes a difference */
} mm_bench_step_result;

bool mm_bench_step(const mm_bench_step_params *params, mm_bench_step_result *result);

#endif
