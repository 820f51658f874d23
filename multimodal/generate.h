/* Generation with a key/value cache, one sequence at a time. */
#ifndef MULTIMODAL_GENERATE_H
#define MULTIMODAL_GENERATE_H

#include "multimodal/run.h"
#include "nn/sample.h"

typedef struct mm_generate_params {
    nn_sampling sampling;
    cs_random *random; /* of the draws (CS_STREAM_SAMPLE), which go on from answer to answer; NULL where greedy */
    int max_tokens; /* most new tokens */
    int32_t stop;   /* token that ends an answer, -1 = none (mm_format_end) */
} mm_generate_params;

/* Continues the prompt (mm_prompt, or mm_generate_raw's); `ids` has room for max_tokens; the stop token is not among
 * the `*count` ids. Fails where prompt and answer do not fit text.context. */
bool mm_generate(mm_loaded *l, const mm_batch *prompt, const mm_generate_params *params, int32_t *ids, int *count);

/* Continues bare token ids, without template or picture. */
bool mm_generate_raw(mm_loaded *l, const int32_t *start, int starts, const mm_generate_params *params, int32_t *ids,
                     int *count);

/* Answers the last of `turns` (its answer is NULL) about `picture` (may be NULL): the text, free() it. */
char *mm_answer(mm_loaded *l, const mm_turn *turns, size_t count, const mm_image *picture,
                const mm_generate_params *params);

#endif
