/* A sample as tokens: the template's spans through the tokenizer, knowing for every token its turn and whether it is
 * learned.
 *
 * Text between two special tokens is tokenised as one piece, as LLaVA does it, and cut where the answer begins: the
 * tokens up to there are exactly those of the prompt that generation starts from. It is also cut where the words spell
 * a special token's "<|name|>", so that what is only written does not become that token. */
#ifndef MULTIMODAL_SEQUENCE_H
#define MULTIMODAL_SEQUENCE_H

#include <stdint.h>

#include "multimodal/image.h"
#include "multimodal/template.h"
#include "multimodal/tokenizer.h"

/* How samples become tokens; the same for training, evaluation and generation. Borrows tokenizer and template. */
typedef struct mm_format {
    const mm_tokenizer *tokenizer;
    const mm_template *conversation;
    mm_turns_mode turns;
    mm_preprocess picture;
    int max_tokens; /* per sample with its picture's; 0: no limit */
} mm_format;

/* Tokens a picture takes, (size / patch)^2, and values of one patch, 3 * patch * patch. */
int mm_format_picture_tokens(const mm_format *f);
int mm_format_patch_values(const mm_format *f);
/* The token that ends an answer, where generation stops: the template's own where the tokenizer has it, else end of
 * sentence; -1 where that is missing too. */
int32_t mm_format_end(const mm_format *f);

enum { MM_PICTURE = -1 };

typedef struct mm_token {
    int32_t id;         /* MM_PICTURE stands for all tokens of the picture */
    uint32_t turn : 31; /* 0 = shared prefix */
    uint32_t label : 1;
} mm_token;

typedef struct mm_sequence {
    mm_token *tokens;
    uint32_t count;
    uint32_t length; /* with the picture's tokens */
    uint32_t turns;
} mm_sequence;

/* Encodes a conversation, without regard to max_tokens. */
bool mm_sequence_encode(const mm_format *f, const mm_turn *turns, size_t count, bool image, mm_sequence *out);
void mm_sequence_free(mm_sequence *s);

/* Shortens to max_tokens: whole trailing turns go first, then the text of the only turn is cut. Adds to the counters.
 * Fails where not even the shared prefix and one token more fit. */
bool mm_sequence_limit(const mm_format *f, mm_sequence *s, size_t *dropped_turns, size_t *cut_samples);

#endif
