/* What cases.json says of a golden file (specification 12): which layer it holds and how exact the reference is. */
#ifndef NN_GOLDEN_H
#define NN_GOLDEN_H

#include "nn/moe.h"
#include "nn/safetensors.h"

enum nn_golden_kind { NN_GOLDEN_LAYER, NN_GOLDEN_SCHEDULE, NN_GOLDEN_UNSUPPORTED };

typedef struct nn_golden {
    enum nn_golden_kind kind;
    char reason[160]; /* why it is unsupported */
    bool listed;      /* found in cases.json; else all that is known is the file */
    char mode[64];
    /* A layer. */
    nn_moe_config config; /* without experts and hidden, which the tensors give */
    enum nn_ffn_kind ffn;
    bool training, compete, gradients; /* losses are evaluated; competition; the file has gradients */
    /* A schedule. */
    double rate, warmup;
    int64_t total_steps;
    int max_layers;
    const struct json_t *errors; /* float32_vs_float64; borrowed from the cases */
} nn_golden;

typedef struct nn_golden_cases nn_golden_cases;

/* The cases.json of a folder. NULL without an error in `*cases` where there is none; false where it is broken. */
bool nn_golden_cases_read(const char *folder, nn_golden_cases **cases);
void nn_golden_cases_free(nn_golden_cases **cases);

/* Describes the open file `st` by its case, else by its metadata and tensors: then coefficients are the authors' and no
 * measured errors are known. False where a case contradicts itself. */
bool nn_golden_describe(const nn_golden_cases *cases, const nn_safetensors *st, nn_golden *golden);

/* The reference's own float32 error for a tensor ("experts.3.w1" is listed as "experts.*.w1"); 0 where unknown. */
double nn_golden_error(const nn_golden *golden, const char *tensor);

#endif
