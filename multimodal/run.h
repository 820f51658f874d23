/* A run's folder: log.jsonl and checkpoints step-00000100/ with config.json, model.safetensors, tokenizer.model and
 * trainer.safetensors. A checkpoint is built beside its final name and appears by one rename, so that there is always a
 * whole one, whatever stops the program. */
#ifndef MULTIMODAL_RUN_H
#define MULTIMODAL_RUN_H

#include "multimodal/model.h"
#include "nn/checkpoint.h"

/* The newest checkpoint of a run folder, or `path` itself where it is a checkpoint (has model.safetensors); free() it.
 * NULL with the error set where there is none. */
char *mm_run_checkpoint(const char *path);
/* Whether the folder has a checkpoint. */
bool mm_run_exists(const char *path);

/* Makes the run's folder and checks that it can be written to. */
bool mm_run_prepare(const char *path);
/* Removes what an interrupted save left behind: for the one training that writes to the run (mm_train_log_open). */
bool mm_run_clear(const char *path);

/* Writes the checkpoint of `state->step`, then removes all but the newest `keep` >= 1. */
bool mm_run_save(const char *run, const mm_model *model, const mm_tokenizer *tokenizer, const nn_train_state *state,
                 int keep);
/* Writes config.json, model.safetensors, tokenizer.model and trainer.safetensors (`state` NULL: without it) into
 * `folder`, which appears whole or not at all; an existing one is refused. */
bool mm_checkpoint_write(const char *folder, const mm_model *model, const mm_tokenizer *tokenizer,
                         const nn_train_state *state);

/* A model to use, with what belongs to it. */
typedef struct mm_loaded {
    mm_config config;
    mm_tokenizer *tokenizer;
    mm_model *model;
    mm_format format;
} mm_loaded;

/* Opens the newest checkpoint for evaluation or generation. `sets` override its configuration (data.* only makes
 * sense). Release with mm_unload() also after a failure. */
bool mm_load(mm_loaded *l, const char *path, vk_device *device, const char *const *sets, size_t set_count);
void mm_unload(mm_loaded *l);

#endif
