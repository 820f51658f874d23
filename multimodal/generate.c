#include "multimodal/generate.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct generator {
    mm_loaded *l;
    const mm_generate_params *params;
    nn_tape *tape;
    mm_cache cache;
    float *logits;
} generator;

/* Runs what was appended to the tape and draws the next token from its logits. */
static bool draw(generator *g, nn_tensor *logits, int32_t *token)
{
    if (!logits || !nn_tape_run(g->tape, NULL, 0) || !nn_read(g->tape, logits, g->logits))
        return false;
    /* Rows of the embedding beyond the tokenizer's pieces mean nothing. */
    *token = nn_sample(g->logits, mm_tokenizer_size(g->l->tokenizer), &g->params->sampling, g->params->random);
    return true;
}

static int open_prefix(const generator *g, const mm_batch *prompt)
{
    int n = 0;
    while (g->l->config.text.open_prefix && n < prompt->length[0] && prompt->segment[n] == 0)
        n++;
    return n;
}

static bool generate(generator *g, const mm_batch *prompt, int32_t *ids, int *count)
{
    const int open = open_prefix(g, prompt);
    int32_t position = prompt->position[prompt->length[0] - 1], token;
    if (!draw(g, mm_model_prompt(g->l->model, g->tape, prompt, &g->cache), &token))
        return false;
    for (*count = 0; token != g->params->stop;) {
        ids[(*count)++] = token;
        if (*count == g->params->max_tokens)
            break;
        position++;
        nn_tape_reset(g->tape);
        if (!draw(g, mm_model_token(g->l->model, g->tape, &ids[*count - 1], &position, open, &g->cache), &token))
            return false;
    }
    return true;
}

bool mm_generate(mm_loaded *l, const mm_batch *prompt, const mm_generate_params *params, int32_t *ids, int *count)
{
    if (params->max_tokens < 1 || prompt->length[0] + params->max_tokens > l->config.text.context)
        return cs_fail("%d tokens of prompt and up to %d of answer do not fit text.context (%d)", prompt->length[0],
                       params->max_tokens, l->config.text.context);
    generator g = {.l = l, .params = params};
    g.logits = cs_alloc((size_t)l->config.text.vocabulary, sizeof *g.logits, "the logits");
    bool ok = g.logits && (g.tape = nn_tape_new(l->model->device)) &&
              mm_cache_make(&g.cache, l->model->device, &l->config.text) && generate(&g, prompt, ids, count);
    nn_tape_free(&g.tape);
    mm_cache_release(&g.cache);
    free(g.logits);
    return ok;
}

bool mm_generate_raw(mm_loaded *l, const int32_t *start, int starts, const mm_generate_params *params, int32_t *ids,
                     int *count)
{
    int32_t *zeros = cs_alloc((size_t)starts, sizeof *zeros, "the prompt"),
            *positions = cs_alloc((size_t)starts, sizeof *positions, "the prompt");
    bool ok = zeros && positions;
    for (int i = 0; ok && i < starts; i++)
        positions[i] = i;
    mm_batch prompt = {.samples = 1,
                       .tokens = starts,
                       .source = (int32_t *)start,
                       .position = positions,
                       .segment = zeros,
                       .length = &starts};
    ok = ok && mm_generate(l, &prompt, params, ids, count);
    free(zeros);
    free(positions);
    return ok;
}

char *mm_answer(mm_loaded *l, const mm_turn *turns, size_t count, const mm_image *picture,
                const mm_generate_params *params)
{
    mm_batch prompt = {0};
    int32_t *ids = cs_alloc((size_t)params->max_tokens, sizeof *ids, "the answer");
    int made = 0;
    char *text = NULL;
    if (ids && mm_prompt(&l->format, turns, count, picture, &prompt) && mm_generate(l, &prompt, params, ids, &made))
        text = mm_tokenizer_decode(l->tokenizer, ids, (size_t)made, NULL);
    mm_batch_free(&prompt);
    free(ids);
    return text;
}
