/* Loss and exact-match accuracy over a data set. */
#ifndef MULTIMODAL_EVALUATE_H
#define MULTIMODAL_EVALUATE_H

#include "multimodal/dataset.h"
#include "multimodal/run.h"

typedef struct mm_evaluation {
    uint64_t samples, answers, exact; /* exact: answers whose every token, end included, is the likeliest one */
    uint64_t labels;                  /* tokens of all answers */
    double loss;                      /* nats per label */
    double seconds;
    size_t bad; /* samples left out as unreadable */
} mm_evaluation;

typedef struct mm_evaluate_params {
    const char *data;       /* LLaVA-format JSON or JSON lines */
    const char *image_root; /* NULL: as the data set says */
    int batch;
    int64_t limit; /* only the file's first so many samples; 0 = all */
    bool blank;    /* pictures replaced by their mean colour */
    bool skip_bad;
} mm_evaluate_params;

/* Runs the model over the file without training. An answer is exactly matched where greedy generation would give it
 * word for word: every token is the likeliest one given the right ones before it. One that max_tokens cut is none. */
bool mm_evaluate(mm_loaded *l, const mm_evaluate_params *params, mm_evaluation *result);

#endif
