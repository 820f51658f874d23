/* What a training run says: log.jsonl, a progress bar on a terminal, plain lines elsewhere. */
#ifndef MULTIMODAL_TRAIN_LOG_H
#define MULTIMODAL_TRAIN_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "multimodal/model.h"

typedef struct mm_train_log mm_train_log;

/* One step's figures. Per mixture, NN_MOE_LOSSES unweighted losses (NAN where not computed at this step), entropy and
 * load. */
typedef struct mm_step_record {
    uint64_t step, total; /* 1-based; of the run */
    double loss, lr, norm;
    double loss_scale; /* 0: losses are not scaled; else a norm that is not finite means that the step was skipped */
    uint64_t tokens;         /* real ones, of all micro-batches */
    uint64_t memory;         /* bytes of device memory at the highest so far */
    const uint8_t *competed; /* [mixtures] or NULL */
    const float *mixtures;   /* [mixtures][NN_MOE_LOSSES + 1 + experts...], see mm_train_log_floats() */
} mm_step_record;

/* Floats per mixture in mm_step_record.mixtures: losses, entropy, then the expert loads. */
int mm_train_log_floats(const mm_mixture *x);

/* Opens RUN/log.jsonl to append; lines of steps beyond `done` (of a run that was cut off behind its last checkpoint)
 * go. NULL with the error set also where another training has it open. */
mm_train_log *mm_train_log_open(const char *run, const mm_model *model, uint64_t done, int every);
bool mm_train_log_step(mm_train_log *log, const mm_step_record *r);
/* Flushes and closes; NULL is fine. */
bool mm_train_log_close(mm_train_log *log);

#endif
