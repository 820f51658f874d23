#include "multimodal/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* ---- building --------------------------------------------------------------------------------------------------- */

static void add_mixture(mm_model *m, const nn_feed_forward *f, const char *name, float weight)
{
    if (!f->mixture)
        return;
    mm_mixture *x = &m->mixture[m->mixtures++];
    x->moe = &f->moe;
    x->weight = weight;
    snprintf(x->name, sizeof x->name, "%s", name);
}

static bool list_mixtures(mm_model *m)
{
    size_t most = (size_t)(m->vision.blocks + 1 + m->config->text.layers);
    m->mixture = cs_alloc(most, sizeof *m->mixture, "the model");
    m->results = cs_alloc(most, sizeof *m->results, "the model");
    if (!m->mixture || !m->results)
        return false;
    char name[64];
    for (int i = 0; i < m->vision.blocks; i++) {
        snprintf(name, sizeof name, "vision.layers.%d", i);
        add_mixture(m, &m->vision.block[i].ffn, name, 1.0f / (float)m->vision.blocks);
    }
    add_mixture(m, &m->projector, "projector", 1);
    for (int i = 0; i < m->config->text.layers; i++) {
        snprintf(name, sizeof name, "text.layers.%d", i);
        add_mixture(m, &m->decoder.block[i].ffn, name, 1.0f / (float)m->config->text.layers);
    }
    return true;
}

static bool init_projector(mm_model *m)
{
    const mm_config *c = m->config;
    int hidden = c->projector.hidden ? c->projector.hidden : c->text.width;
    if (c->projector.norm &&
        !nn_norm_init(&m->projector_norm, m->params, "projector.norm", c->vision.width, false, c->vision.eps))
        return false;
    return nn_feed_forward_init(&m->projector, m->params, "projector", c->vision.width, hidden, c->text.width,
                                (enum nn_ffn_kind)c->projector.ffn, &c->projector_moe);
}

/* Freezes each of the prefixes, which commas or blanks separate. */
static bool freeze(nn_params *set, const char *list)
{
    static const char separators[] = ", \t";
    char prefix[128];
    for (const char *p = list; p && *p; p += strspn(p, separators)) {
        size_t n = strcspn(p, separators);
        snprintf(prefix, sizeof prefix, "%.*s", (int)n, p);
        if (n >= sizeof prefix || (n && !nn_params_freeze(set, prefix)))
            return cs_fail("train.freeze: no parameter's name begins with '%.*s'", (int)n, p);
        p += n;
    }
    return true;
}

static bool build(mm_model *m, mm_config *config, int vocabulary, bool training)
{
    if (!(m->params = nn_params_new(m->device)) || !mm_decoder_complete(&config->text, vocabulary))
        return false;
    m->sees = config->vision.layers > 0;
    if (m->sees && (!mm_vision_init(&m->vision, m->params, &config->vision, &config->vision_moe) || !init_projector(m)))
        return false;
    if (!mm_decoder_init(&m->decoder, m->params, &config->text, &config->text_moe) || !list_mixtures(m))
        return false;
    return freeze(m->params, config->train.freeze) && nn_params_allocate(m->params, training, (uint64_t)config->seed);
}

mm_model *mm_model_new(vk_device *device, mm_config *config, int vocabulary, bool training)
{
    mm_model *m = cs_alloc(1, sizeof *m, "the model");
    if (!m)
        return NULL;
    m->device = device;
    m->config = config;
    if (!build(m, config, vocabulary, training))
        mm_model_free(&m);
    return m;
}

void mm_model_free(mm_model **model)
{
    mm_model *m = *model;
    if (!m)
        return;
    nn_params_free(&m->params);
    mm_vision_release(&m->vision);
    mm_decoder_release(&m->decoder);
    free(m->mixture);
    free(m->results);
    free(m->scratch.index);
    free(m->scratch.places);
    free(m->scratch.picks);
    free(m->scratch.inverse);
    free(m->scratch.label);
    free(m->scratch.slots);
    free(m);
    *model = NULL;
}

/* ---- forward ---------------------------------------------------------------------------------------------------- */

static nn_tensor *see(mm_model *m, nn_tape *tape, const mm_batch *b, nn_pass_context *c, bool recompute)
{
    if (!m->sees)
        return cs_fail("a sample has a picture, but the model has no vision tower (vision.layers is 0)"), NULL;
    nn_tensor *patches =
        nn_input(tape, NN_F32, 2, (int64_t[]){(int64_t)b->images * b->patches_per_image, b->patch_values}, b->patches);
    nn_tensor *x = mm_vision_forward(tape, &m->vision, patches, b->images, c, recompute);
    if (m->projector_norm.gain)
        x = nn_norm_forward(tape, &m->projector_norm, x);
    /* A mixture balances per sequence: here a picture. */
    x = nn_reshape(tape, x, 3, (int64_t[]){b->images, b->patches_per_image, m->config->vision.width});
    x = nn_feed_forward_forward(tape, &m->projector, x, c);
    return nn_reshape(tape, x, 2, (int64_t[]){(int64_t)b->images * b->patches_per_image, m->config->text.width});
}

/* Token and picture embeddings of `tokens` entries of source. */
static nn_tensor *embed(mm_model *m, nn_tape *tape, const int32_t *source, int64_t tokens, nn_tensor *features)
{
    struct mm_model_scratch *s = &m->scratch;
    const int64_t places = features ? nn_rows(features) : 0, index = 3 * tokens + 2;
    if (!cs_grow(&s->index, &s->index_room, (size_t)index, 4, "the embedding") ||
        !cs_grow(&s->places, &s->places_room, (size_t)places, 4, "the embedding"))
        return NULL;
    for (int64_t i = 0; i < places; i++)
        s->places[i] = -1;
    for (int64_t i = 0; i < tokens; i++)
        if (source[i] < 0)
            s->places[-1 - source[i]] = (int32_t)i;
    nn_embedding_index(source, tokens, s->index);
    return nn_embedding(tape, m->decoder.embedding, nn_input(tape, NN_I32, 1, &tokens, source),
                        nn_input(tape, NN_I32, 1, &index, s->index), features,
                        features ? nn_input(tape, NN_I32, 1, &places, s->places) : NULL);
}

/* These of n rows, into scratch.picks and its inverse; there is room for `most`. */
static bool list_picks(mm_model *m, const int32_t *rows, int64_t count, int64_t most, int64_t n)
{
    struct mm_model_scratch *s = &m->scratch;
    if (!cs_grow(&s->picks, &s->picks_room, (size_t)most, 4, "the labels") ||
        !cs_grow(&s->inverse, &s->inverse_room, (size_t)n, 4, "the labels"))
        return false;
    memcpy(s->picks, rows, (size_t)count * 4);
    for (int64_t i = 0; i < n; i++)
        s->inverse[i] = -1;
    for (int64_t i = 0; i < count; i++)
        s->inverse[rows[i]] = (int32_t)i;
    return true;
}

static bool pick_rows(mm_model *m, nn_tape *tape, int64_t count, int64_t n, nn_pick *pick)
{
    const struct mm_model_scratch *s = &m->scratch;
    *pick = (nn_pick){nn_input(tape, NN_I32, 1, &count, s->picks), nn_input(tape, NN_I32, 1, &n, s->inverse), NULL};
    return pick->rows && pick->inverse;
}

/* Most labels of a sample; all of them are in order of samples. */
static int64_t most_labels(const mm_batch *b)
{
    int64_t most = 0;
    for (int i = 0, run = 0; i < b->labels; i++) {
        bool same = i && b->label_row[i] / b->tokens == b->label_row[i - 1] / b->tokens;
        run = same ? run + 1 : 1;
        most = run > most ? run : most;
    }
    return most;
}

/* Where shapes repeat from batch to batch, command buffers are used again: slots and scored rows come in these
 * steps. */
enum { SLOTS_STEP = 8, ROWS_STEP = 16 };
enum { NO_LABEL = -1 }; /* not counted */

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* So few more than there are labels that they cost next to nothing: where labels are many, the device's time is what
 * counts, not that of encoding commands. */
static int64_t rows_to_score(const mm_batch *b, int64_t slots)
{
    const int64_t step = b->labels < 256 ? ROWS_STEP : 2 * ROWS_STEP, most = b->samples * slots;
    return round_up(b->labels, step) < most ? round_up(b->labels, step) : most;
}

/* Picks one more row of a sample, the next without a label, that makes up the number. */
static int32_t pick_filler(struct mm_model_scratch *s, int64_t *row, int32_t pick)
{
    while (s->inverse[*row] >= 0)
        ++*row;
    s->picks[pick] = (int32_t)*row;
    s->inverse[*row] = pick;
    s->label[pick] = NO_LABEL;
    return pick;
}

/* The rows that are scored: those of the labels, then some that make up the number, by sample wherever slots are
 * left. */
static bool pick_labels(mm_model *m, nn_tape *tape, const mm_batch *b, nn_pick *pick, nn_tensor **labels)
{
    struct mm_model_scratch *s = &m->scratch;
    const int64_t slots = round_up(most_labels(b), SLOTS_STEP), count = rows_to_score(b, slots);
    const int64_t rows = (int64_t)b->samples * b->tokens;
    if (!list_picks(m, b->label_row, b->labels, count, rows) ||
        !cs_grow(&s->label, &s->label_room, (size_t)count, 4, "the labels") ||
        !cs_grow(&s->slots, &s->slots_room, (size_t)(b->samples * slots), 4, "the labels"))
        return false;
    memcpy(s->label, b->label, (size_t)b->labels * 4);
    int32_t label = 0, filler = b->labels;
    for (int64_t sample = 0; sample < b->samples; sample++) {
        int64_t row = sample * b->tokens;
        for (int64_t i = 0; i < slots; i++) {
            bool has = label < b->labels && b->label_row[label] / b->tokens == sample;
            s->slots[sample * slots + i] = has ? label++ : filler < count ? pick_filler(s, &row, filler++) : -1;
        }
    }
    if (!pick_rows(m, tape, count, rows, pick))
        return false;
    pick->slots = nn_input(tape, NN_I32, 2, (int64_t[]){b->samples, slots}, s->slots);
    *labels = nn_input(tape, NN_I32, 1, &count, s->label);
    return pick->slots && *labels;
}

static int vision_mixtures(const mm_model *m)
{
    int n = 0;
    while (n < m->mixtures && strncmp(m->mixture[n].name, "text.", 5))
        n++;
    return n;
}

bool mm_model_forward(mm_model *m, nn_tape *tape, const mm_batch *b, const mm_forward *how, nn_tensor **loss,
                      nn_tensor **best)
{
    const bool recompute = how->training && m->config->train.recompute;
    const int64_t tokens = (int64_t)b->samples * b->tokens;
    if (!b->labels)
        return cs_fail("a batch has no answers to learn from: all of its turns were dropped by data.max_tokens");
    memset(m->results, 0, (size_t)m->mixtures * sizeof *m->results);
    if (how->blank && b->images)
        memset(b->patches, 0,
               (size_t)b->images * (size_t)b->patches_per_image * (size_t)b->patch_values * sizeof *b->patches);
    nn_pass_context c = {.training = how->training, .compete = how->compete, .results = m->results};
    nn_tensor *features = b->images ? see(m, tape, b, &c, recompute) : NULL;
    if (b->images && !features)
        return false;
    c.mixtures = vision_mixtures(m);
    c.segments = nn_input(tape, NN_I32, 2, (int64_t[]){b->samples, b->tokens}, b->segment);
    c.positions = nn_input(tape, NN_I32, 1, &tokens, b->position);
    nn_tensor *x = embed(m, tape, b->source, tokens, features);
    x = nn_reshape(tape, x, 3, (int64_t[]){b->samples, b->tokens, m->config->text.width});
    nn_pick wanted;
    nn_tensor *labels;
    if (!pick_labels(m, tape, b, &wanted, &labels))
        return false;
    x = mm_decoder_forward(tape, &m->decoder, x, NULL, &wanted, &c, recompute);
    *loss = nn_keep(mm_decoder_loss(tape, &m->decoder, x, labels, how->label_weight, best));
    nn_keep(*best);
    return *loss != NULL;
}

int mm_model_roots(const mm_model *m, nn_tensor *loss, float scale, nn_root *roots)
{
    int n = 0;
    roots[n++] = (nn_root){loss, 1, NULL};
    for (int i = 0; i < m->mixtures; i++)
        for (int k = 0; k < NN_MOE_LOSSES; k++)
            if (m->results[i].loss[k])
                roots[n++] = (nn_root){
                    m->results[i].loss[k],
                    scale * m->mixture[i].weight * nn_moe_coefficient(m->mixture[i].moe, k, &m->results[i]), NULL};
    return n;
}

/* ---- generation ------------------------------------------------------------------------------------------------- */

static nn_tensor *decode(mm_model *m, nn_tape *tape, nn_tensor *x, const int32_t *positions, int64_t tokens,
                         mm_cache *cache, nn_pass_context *c)
{
    c->mixtures = vision_mixtures(m);
    c->positions = nn_input(tape, NN_I32, 1, &tokens, positions);
    x = nn_reshape(tape, x, 3, (int64_t[]){1, tokens, m->config->text.width});
    const int32_t last_row = (int32_t)tokens - 1; /* predicts what comes next */
    nn_pick last;
    if (!list_picks(m, &last_row, 1, 1, tokens) || !pick_rows(m, tape, 1, tokens, &last))
        return NULL;
    x = mm_decoder_forward(tape, &m->decoder, x, cache, tokens > 1 ? &last : NULL, c, false);
    return nn_keep(mm_decoder_logits(tape, &m->decoder, x));
}

nn_tensor *mm_model_prompt(mm_model *m, nn_tape *tape, const mm_batch *b, mm_cache *cache)
{
    nn_pass_context c = {.results = m->results};
    nn_tensor *features = b->images ? see(m, tape, b, &c, false) : NULL;
    if (b->images && !features)
        return NULL;
    for (int i = 0; m->config->text.open_prefix && i < b->length[0] && b->segment[i] == 0; i++)
        c.open = i + 1;
    return decode(m, tape, embed(m, tape, b->source, b->length[0], features), b->position, b->length[0], cache, &c);
}

nn_tensor *mm_model_token(mm_model *m, nn_tape *tape, const int32_t *token, const int32_t *position, int open,
                          mm_cache *cache)
{
    nn_pass_context c = {.results = m->results, .open = open};
    return decode(m, tape, embed(m, tape, token, 1, NULL), position, 1, cache, &c);
}
