/* What one micro-batch of the model reads: the samples' tokens side by side, the pictures' patches, the labels.
 *
 * Segments say who sees whom: a token sees the tokens before it in segment 0 and in its own segment. In conversation
 * mode all of a sample is segment 0; in isolated mode segment 0 is the shared prefix and turn k is segment k, its
 * positions starting again behind the prefix, so that every turn is computed as if it alone followed the picture. */
#ifndef MULTIMODAL_BATCH_H
#define MULTIMODAL_BATCH_H

#include <stdint.h>

#include "multimodal/sequence.h"

typedef struct mm_batch {
    int samples;
    int tokens; /* T, per sample, a multiple of 16 */
    int images, patches_per_image /* P */, patch_values;
    int labels;
    int turns; /* answers with at least one label */

    float *patches;         /* [images * P, patch_values]; NULL without images */
    int32_t *source;        /* [samples * T] >= 0: token id, < 0: row -1 - v of the image features [images * P] */
    int32_t *position;      /* [samples * T] from 0; 0 where padded */
    int32_t *segment;       /* [samples * T] 0 = shared prefix, k >= 1 = turn, -1 = padding */
    int32_t *label_row;     /* [labels] row in samples * T that predicts the label; in order of samples, none twice */
    int32_t *label;         /* [labels] token id */
    int32_t *label_turn;    /* [labels] 0..turns-1, rising: exact match counts turns */
    int32_t *length;        /* [samples] tokens before the padding */
    int32_t *image_index;   /* [samples] picture of the sample, -1 for text only */
    uint32_t *sample_index; /* [samples] place in the data set's samples */
} mm_batch;

/* What a batch's memory grows with. */
typedef struct mm_batch_size {
    size_t tokens; /* samples * T */
    size_t images, labels; /* labels: an upper bound, see mm_batch_make() */
} mm_batch_size;
mm_batch_size mm_batch_measure(const mm_sequence *const *sequences, int count);

/* Lays the sequences side by side. `sample_index` and the content of `patches` (allocated, zero) are the caller's to
 * fill. A label whose place has no token before it, or the same as another label's, is left out. */
bool mm_batch_make(const mm_format *f, const mm_sequence *const *sequences, int count, mm_batch *out);
void mm_batch_free(mm_batch *b); /* releases the arrays and zeroes the struct; a zeroed struct is fine */

/* The batch of one sample for generation: a conversation whose last turn has no answer. No labels; the next token
 * comes from row length[0] - 1. `picture` may be NULL. In isolated mode only the last turn and the prefix are written.
 * Fails where the conversation is longer than max_tokens. */
bool mm_prompt(const mm_format *f, const mm_turn *turns, size_t count, const mm_image *picture, mm_batch *out);

#endif
