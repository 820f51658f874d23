/* What the files of the trainer share. */
#ifndef MULTIMODAL_TRAINER_INTERNAL_H
#define MULTIMODAL_TRAINER_INTERNAL_H

#include "multimodal/loader.h"
#include "multimodal/train_log.h"
#include "multimodal/trainer.h"
#include "nn/checkpoint.h"

enum {
    AHEAD = 2, /* steps recorded before the oldest must be done: keeps the device busy and memory bounded */
    PENDING = AHEAD + 2,
    NORM_FIGURES = 2, /* gradient norm, loss scale */
};

/* A step whose figures are still on the device. */
typedef struct pending {
    uint64_t step, ticket, value; /* 1-based step; of the readback; of the timeline */
    uint64_t tokens;
    double lr;
    const uint8_t *competed;
} pending;

typedef struct trainer {
    const mm_train_params *params;
    mm_config config;
    mm_tokenizer *tokenizer;
    mm_dataset *data;
    mm_loader *loader;
    mm_format format;
    vk_device *device;
    bool borrowed; /* the device is the caller's */
    mm_model *model;
    nn_tape *tape;
    mm_train_log *log;
    nn_train_state state;
    uint64_t total;
    uint8_t *compete; /* [total][mixtures] the schedule, a row a step */
    nn_root *roots;
    mm_batch **batches; /* [accumulate] of the present step */
    vk_range figures;   /* device: [accumulate] losses, NORM_FIGURES, then per mixture its floats */
    uint64_t figure_count;
    pending pending[PENDING];
    uint64_t read;  /* steps whose figures have been read */
    uint64_t saved; /* steps that the newest checkpoint has */
    uint64_t waits; /* host waits inside of steps */
    uint64_t traced; /* the step to trace, 1-based; 0 = none */
} trainer;

/* Opens all that a run needs. `dry`: on a dry device, and without touching the run's folder. */
bool mm_trainer_open(trainer *t, bool dry);
/* Makes model, tape and buffers for what is set already: configuration, tokenizer and device, which then belong to the
 * trainer. Without data, run and log: for mm_trainer_record() over batches of one's own. */
bool mm_trainer_make(trainer *t);
/* False where the log cannot be written to its end. */
bool mm_trainer_close(trainer *t);
/* Takes a step's micro-batches from the loader, and gives them back. */
bool mm_trainer_next_batches(trainer *t);
void mm_trainer_free_batches(trainer *t);
/* Records and submits a step (0-based) over t->batches; `compete` [mixtures] or NULL. */
bool mm_trainer_record(trainer *t, uint64_t step, const uint8_t *compete, pending *p);

#endif
