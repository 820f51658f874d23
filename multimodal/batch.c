#include "multimodal/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

enum { MULTIPLE = 16 };

void mm_batch_free(mm_batch *b)
{
    free(b->patches);
    free(b->source);
    free(b->position);
    free(b->segment);
    free(b->label_row);
    free(b->label);
    free(b->label_turn);
    free(b->length);
    free(b->image_index);
    free(b->sample_index);
    *b = (mm_batch){0};
}

static bool has_picture(const mm_sequence *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->tokens[i].id == MM_PICTURE)
            return true;
    return false;
}

mm_batch_size mm_batch_measure(const mm_sequence *const *sequences, int count)
{
    mm_batch_size size = {0};
    size_t longest = 1;
    for (int i = 0; i < count; i++) {
        const mm_sequence *s = sequences[i];
        longest = s->length > longest ? s->length : longest;
        size.images += has_picture(s);
        for (uint32_t t = 0; t < s->count; t++)
            size.labels += s->tokens[t].label;
    }
    size.tokens = (size_t)count * ((longest + MULTIPLE - 1) / MULTIPLE * MULTIPLE);
    return size;
}

/* Sizes from the sequences; the labels' as an upper bound, set exactly while laying out. */
static bool allocate(const mm_format *f, const mm_sequence *const *sequences, int count, mm_batch *b)
{
    static const char what[] = "a batch";
    const mm_batch_size size = mm_batch_measure(sequences, count);
    size_t n = (size_t)count, rows = size.tokens, labels = size.labels;
    if (rows > INT32_MAX)
        return cs_fail("a batch of %d samples of %zu tokens is too large", count, rows / n);
    b->samples = count;
    b->tokens = (int)(rows / n);
    b->images = (int)size.images;
    b->patches_per_image = mm_format_picture_tokens(f);
    b->patch_values = mm_format_patch_values(f);
    size_t patch_rows = (size_t)b->images * (size_t)b->patches_per_image;
    return (!b->images || (b->patches = cs_alloc(patch_rows, (size_t)b->patch_values * sizeof(float), what))) &&
           (b->source = cs_alloc(rows, sizeof *b->source, what)) &&
           (b->position = cs_alloc(rows, sizeof *b->position, what)) &&
           (b->segment = cs_alloc(rows, sizeof *b->segment, what)) &&
           (b->label_row = cs_alloc(labels, sizeof *b->label_row, what)) &&
           (b->label = cs_alloc(labels, sizeof *b->label, what)) &&
           (b->label_turn = cs_alloc(labels, sizeof *b->label_turn, what)) &&
           (b->length = cs_alloc(n, sizeof *b->length, what)) &&
           (b->image_index = cs_alloc(n, sizeof *b->image_index, what)) &&
           (b->sample_index = cs_alloc(n, sizeof *b->sample_index, what));
}

/* Where the layout of one sample stands. */
typedef struct layout {
    mm_batch *batch;
    int sample;
    bool isolated;
    int row;                /* next one, in samples * T */
    int32_t position;       /* of the next token */
    int prefix_row;         /* last row of the prefix, -1 for none */
    int32_t prefix_length;  /* positions it takes */
    uint32_t turn;          /* of the token before */
    uint32_t labelled_turn; /* whose labels are being written, 0 for none */
    int last_label_row;     /* of this sample's latest label predicted from the prefix, -1 */
} layout;

static void put_label(layout *l, const mm_token *token, int before)
{
    mm_batch *b = l->batch;
    if (before < 0 || (before == l->prefix_row && l->last_label_row == before))
        return;
    if (before == l->prefix_row)
        l->last_label_row = before;
    if (l->labelled_turn != token->turn) {
        l->labelled_turn = token->turn;
        b->turns++;
    }
    b->label_row[b->labels] = before;
    b->label[b->labels] = token->id;
    b->label_turn[b->labels++] = b->turns - 1;
}

static void put_row(layout *l, int32_t source, uint32_t turn)
{
    mm_batch *b = l->batch;
    b->source[l->row] = source;
    b->position[l->row] = l->position++;
    b->segment[l->row++] = l->isolated ? (int32_t)turn : 0;
}

static void put_token(layout *l, const mm_token *token)
{
    mm_batch *b = l->batch;
    int before = l->row > l->sample * b->tokens ? l->row - 1 : -1;
    if (l->isolated && token->turn != l->turn) {
        l->position = l->prefix_length;
        before = l->prefix_row;
    }
    l->turn = token->turn;
    if (token->label)
        put_label(l, token, before);
    if (token->id == MM_PICTURE) {
        int first = b->images++ * b->patches_per_image;
        b->image_index[l->sample] = b->images - 1;
        for (int p = 0; p < b->patches_per_image; p++)
            put_row(l, -1 - (first + p), token->turn);
    } else {
        put_row(l, token->id, token->turn);
    }
    if (!token->turn) {
        l->prefix_row = l->row - 1;
        l->prefix_length = l->position;
    }
}

bool mm_batch_make(const mm_format *f, const mm_sequence *const *sequences, int count, mm_batch *out)
{
    *out = (mm_batch){0};
    if (!allocate(f, sequences, count, out)) {
        mm_batch_free(out);
        return false;
    }
    int pad = mm_tokenizer_pad(f->tokenizer);
    out->images = 0;
    for (int i = 0; i < count; i++) {
        const mm_sequence *s = sequences[i];
        layout l = {out, i, f->turns == MM_TURNS_ISOLATED, i * out->tokens, 0, -1, 0, 0, 0, -1};
        out->image_index[i] = -1;
        for (uint32_t t = 0; t < s->count; t++)
            put_token(&l, &s->tokens[t]);
        out->length[i] = (int32_t)s->length;
        for (; l.row < (i + 1) * out->tokens; l.row++) {
            out->source[l.row] = pad < 0 ? 0 : pad;
            out->segment[l.row] = -1;
        }
    }
    return true;
}

bool mm_prompt(const mm_format *f, const mm_turn *turns, size_t count, const mm_image *picture, mm_batch *out)
{
    *out = (mm_batch){0};
    if (f->turns == MM_TURNS_ISOLATED && count > 1) {
        turns += count - 1;
        count = 1;
    }
    mm_sequence s;
    if (!mm_sequence_encode(f, turns, count, picture != NULL, &s))
        return false;
    const mm_sequence *one = &s;
    bool ok = (!f->max_tokens || s.length <= (uint32_t)f->max_tokens ||
               cs_fail("the conversation takes %u tokens, but the model was trained with at most %d", s.length,
                       f->max_tokens)) &&
              mm_batch_make(f, &one, 1, out) &&
              (!picture || mm_image_patches(picture, &f->picture, NULL, out->patches));
    mm_sequence_free(&s);
    out->labels = out->turns = 0; /* earlier answers are context here */
    if (!ok)
        mm_batch_free(out);
    return ok;
}
