/* Feeds training and evaluation: a thread that has decoded the pictures and laid out the tokens of the next batches
 * before they are asked for. Batch N is a pure function of data, parameters and N: resuming needs nothing but the step.
 *
 * A step is one micro-batch; gradient accumulation calls mm_loader_next() several times. */
#ifndef MULTIMODAL_LOADER_H
#define MULTIMODAL_LOADER_H

#include "multimodal/batch.h"
#include "multimodal/dataset.h"

typedef struct mm_loader_params {
    mm_format format;
    int batch;    /* samples per step; an epoch's last batch may have fewer */
    int epochs;   /* 0: without end */
    bool shuffle; /* another order every epoch; otherwise the file's order, or by length with `group_by_length` */
    bool group_by_length; /* batches of samples of like length, so that little is padded; their order stays random */
    uint64_t seed;
    bool flip_x, flip_y; /* mirror the picture with probability 1/2 */
    int shift;           /* shift it cyclically by up to this many pixels both ways */
    int prefetch;        /* batches kept ready, >= 1 */
    size_t cache_bytes;  /* fitted pictures kept in memory, 8-bit RGB */
    /* With shuffle, a sample whose picture turns out unreadable gives its place to the next readable one, with a
     * warning; otherwise it is an error. */
    bool skip_bad;
} mm_loader_params;

typedef struct mm_loader_stats {
    uint64_t tokens, padding; /* of the batches handed out */
    size_t dropped_turns;     /* for max_tokens, in the data set */
    size_t cut_samples;       /* for max_tokens, in the data set */
    size_t bad_images;        /* found unreadable so far */
    size_t cached_bytes;
} mm_loader_stats;

typedef struct mm_loader mm_loader;

/* Tokenises the data set and starts the thread at batch `first_step`; samples to which max_tokens leaves no answer are
 * left out, with a warning. Borrows dataset, tokenizer and template until mm_loader_close(). */
mm_loader *mm_loader_open(const mm_dataset *data, const mm_loader_params *params, uint64_t first_step);

/* Waits for the next batch, which is the caller's: mm_batch_free(*batch), free(*batch). *batch is NULL after the last
 * epoch. False with the thread's error set; every later call gives the same error. */
bool mm_loader_next(mm_loader *l, mm_batch **batch);

/* Of the batches of steps [first, first + steps), those that none of the others equals or exceeds in tokens, pictures
 * and labels: one of them takes the most memory. Their pictures are blank. `*batches` and each of its `*count` batches
 * (mm_batch_free) are the caller's. */
bool mm_loader_largest(const mm_loader *l, uint64_t first, uint64_t steps, mm_batch **batches, size_t *count);

uint64_t mm_loader_steps_per_epoch(const mm_loader *l);
mm_loader_stats mm_loader_get_stats(mm_loader *l);

/* Stops the thread, whatever it is doing, and releases everything. NULL is fine. */
void mm_loader_close(mm_loader *l);

#endif
