/* The training loop: batches in, recorded steps out, never waiting for the device inside a step. */
#ifndef MULTIMODAL_TRAINER_H
#define MULTIMODAL_TRAINER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vk/vk.h"

typedef struct mm_train_params {
    const char *config;           /* JSON file */
    const char *const *sets;      /* "key=value" overrides */
    size_t set_count;
    const char *out;              /* the run's folder */
    bool resume;                  /* go on from its newest checkpoint */
    const char *device;           /* selector or NULL */
    vk_device *on;                /* train on this open device, the caller's; NULL: on one opened for the run */
    FILE *profile;                /* where the table of kernels goes at the end; NULL = no timestamps; not with `on` */
    const char *trace;            /* file for the trace of one step; NULL = none */
    uint64_t trace_step;          /* 1-based; 0: the tenth of this program's steps, or the last if there are fewer */
    volatile sig_atomic_t *stop;  /* non-zero: finish the step, save and return; may be NULL */
} mm_train_params;

/* Trains to the end or until asked to stop; checkpoints and log.jsonl go to the run's folder. `*stopped`: whether steps
 * are left, which resuming would do. */
bool mm_train(const mm_train_params *params, bool *stopped);

/* ---- memory, before anything runs -------------------------------------------------------------------------------- */

/* Bytes of device memory that a training step takes at its highest, with its largest batch. */
typedef struct mm_memory_plan {
    uint64_t parameters, gradients, moments;
    /* Everything else of a step: activations, their gradients, scratch; [0] kept, [1] with train.recompute. */
    uint64_t routed[2], competing[2]; /* competing: 0 where no mixture ever competes */
    uint64_t staging;                 /* rings of host-visible memory */
    uint64_t budget;                  /* what the device has for this process */
    int samples, tokens, images, labels; /* of the largest batch */
} mm_memory_plan;

/* Plays a run's largest steps on a dry device: nothing is computed and nothing written (params->out and params->on are
 * not used). The inputs must be as good as for training. */
bool mm_train_plan(const mm_train_params *params, mm_memory_plan *plan);
/* Device memory at the highest, staging not included. */
uint64_t mm_memory_plan_peak(const mm_memory_plan *plan, bool recompute);
void mm_memory_plan_print(const mm_memory_plan *plan, FILE *out);

#endif
