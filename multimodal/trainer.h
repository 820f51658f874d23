/* The training loop: batches in, recorded steps out, never waiting for the device inside a step. */
#ifndef MULTIMODAL_TRAINER_H
#define MULTIMODAL_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

typedef struct mm_train_params {
    const char *config;           /* JSON file */
    const char *const *sets;      /* "key=value" overrides */
    size_t set_count;
    const char *out;              /* the run's folder */
    bool resume;                  /* go on from its newest checkpoint */
    const char *device;           /* selector or NULL */
    FILE *profile;                /* where the table of kernels goes at the end; NULL = no timestamps */
    volatile sig_atomic_t *stop;  /* non-zero: finish the step, save and return; may be NULL */
} mm_train_params;

/* Trains to the end or until asked to stop; checkpoints and log.jsonl go to the run's folder. `*stopped`: whether steps are
 * left, which resuming would do. */
bool mm_train(const mm_train_params *params, bool *stopped);

#endif
