#include "multimodal/bench_step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "multimodal/examples.h"
#include "multimodal/trainer_internal.h"

enum { MOST_STEPS = 40, MOST_TURNS = 32, MOST_SETS = 3, SENTENCE = 20, QUESTION_TEXT = 256 };

/* A model of examples/ and the shape of its data: samples of `turns` to `turns` + 3 questions of so many words,
 * answered in so many, from a vocabulary of `words`. */
typedef struct subject {
    const char *config, *sets[MOST_SETS];
    int batch, turns, question, answer, words;
} subject;

const char *const mm_bench_model_names[] = {"demo", "easy-vqa", "easy-vqa, 8 experts", "easy-vqa, dense", NULL};
static const subject subjects[] = {
    {example_demo, {0}, 16, 5, 6, 2, 380},
    {example_easy_vqa, {0}, 32, 8, 7, 1, 40},
    {example_easy_vqa, {"vision.moe.experts=8", "vision.moe.hidden=256"}, 32, 8, 7, 1, 40},
    {example_easy_vqa, {"vision.moe.experts=0"}, 32, 8, 7, 1, 40},
};

/* ---- synthetic samples ------------------------------------------------------------------------------------------- */

/* A tokenizer with one id for each of the words "w0", "w1", ... */
static mm_tokenizer *make_tokenizer(int words)
{
    const size_t count = (size_t)(words + SENTENCE - 1) / SENTENCE;
    char(*text)[SENTENCE * 8] = cs_alloc(count, sizeof *text, "a benchmark");
    const char **sentences = cs_alloc(count, sizeof *sentences, "a benchmark");
    mm_tokenizer *t = NULL;
    for (size_t s = 0; text && sentences && s < count; s++) {
        sentences[s] = text[s];
        for (int w = 0, at = 0; w < SENTENCE; w++)
            at += snprintf(text[s] + at, sizeof *text - (size_t)at, " w%d", ((int)s * SENTENCE + w) % words);
    }
    if (text && sentences)
        t = mm_tokenizer_train(sentences, count,
                               &(mm_tokenizer_options){.vocabulary = words + 10, .type = MM_MODEL_WORD});
    free(sentences);
    free(text);
    return t;
}

static void put_words(cs_random *r, int count, int words, char *text, size_t room)
{
    size_t at = 0;
    *text = '\0';
    for (int w = 0; w < count && at < room; w++)
        at += (size_t)snprintf(text + at, room - at, "%sw%u", w ? " " : "", cs_random_below(r, (uint32_t)words));
}

static bool make_sequence(const trainer *t, const subject *s, int index, cs_random *r, mm_sequence *out)
{
    char text[MOST_TURNS][2][QUESTION_TEXT];
    mm_turn turns[MOST_TURNS];
    const int count = s->turns + index % 4;
    for (int k = 0; k < count; k++) {
        put_words(r, s->question, s->words, text[k][0], QUESTION_TEXT);
        put_words(r, s->answer, s->words, text[k][1], QUESTION_TEXT);
        turns[k] = (mm_turn){text[k][0], text[k][1]};
    }
    return mm_sequence_encode(&t->format, turns, (size_t)count, true, out);
}

/* The batch that every step learns from. */
static bool make_batch(trainer *t, const subject *s)
{
    const int samples = t->config.train.batch;
    mm_sequence *sequences = cs_alloc((size_t)samples, sizeof *sequences, "a benchmark");
    const mm_sequence **list = cs_alloc((size_t)samples, sizeof *list, "a benchmark");
    mm_batch *b = t->batches[0] = cs_alloc(1, sizeof *b, "a benchmark");
    cs_random r = {.seed = 1, .stream = cs_random_stream("bench_step")};
    bool ok = sequences && list && b;
    for (int i = 0; ok && i < samples; i++) {
        ok = make_sequence(t, s, i, &r, &sequences[i]);
        list[i] = &sequences[i];
    }
    ok = ok && mm_batch_make(&t->format, list, samples, b);
    const size_t values = ok ? (size_t)b->images * (size_t)b->patches_per_image * (size_t)b->patch_values : 0;
    for (size_t i = 0; i < values; i++)
        b->patches[i] = cs_random_normal(&r);
    for (int i = 0; sequences && i < samples; i++)
        mm_sequence_free(&sequences[i]);
    free(list);
    free(sequences);
    return ok;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static bool open_trainer(trainer *t, const mm_bench_step_params *p, const subject *s, bool profile)
{
    const char *sets[MOST_SETS + 2];
    size_t count = 0;
    char batch[32], precision[32];
    snprintf(batch, sizeof batch, "train.batch=%d", p->batch ? p->batch : s->batch);
    snprintf(precision, sizeof precision, "train.precision=%s", p->precision);
    for (int i = 0; i < MOST_SETS && s->sets[i]; i++)
        sets[count++] = s->sets[i];
    sets[count++] = batch;
    sets[count++] = precision;
    t->total = MOST_STEPS;
    return mm_config_parse(&t->config, mm_bench_model_names[p->model], s->config, sets, count) &&
           (t->tokenizer = make_tokenizer(s->words)) && mm_config_format(&t->config, t->tokenizer, &t->format) &&
           (t->device = vk_open(&(vk_params){.selector = p->device, .quiet = true, .profile = profile})) &&
           mm_trainer_make(t) && make_batch(t, s);
}

static bool record(trainer *t, const uint8_t *compete, uint64_t step, double *host_ns)
{
    pending *p = &t->pending[step % PENDING];
    const double start = cs_seconds();
    const bool ok = mm_trainer_record(t, step, compete, p);
    *host_ns = 1e9 * (cs_seconds() - start);
    return ok;
}

/* Steps one after the other as in training: the next one is recorded while one is under way. */
static bool time_steps(trainer *t, const uint8_t *compete, int steps, mm_bench_step_result *r)
{
    double host[MOST_STEPS], ns[MOST_STEPS], ignored;
    nn_timing recording;
    uint64_t step = 0;
    for (; step < AHEAD; step++) /* the first ones compile and allocate */
        if (!record(t, compete, step, &ignored) || !vk_wait(t->device, t->pending[step % PENDING].value))
            return false;
    vk_memory_reset_peak(t->device);
    const uint64_t dispatches = vk_counters_get(t->device).dispatches;
    double last = cs_seconds();
    if (!record(t, compete, step++, &ignored))
        return false;
    for (int i = 0; i < steps; i++, step++) {
        if (!record(t, compete, step, &host[i]) || !vk_wait(t->device, t->pending[(step - 1) % PENDING].value))
            return false;
        ns[i] = 1e9 * (cs_seconds() - last);
        last = cs_seconds();
    }
    r->dispatches = (vk_counters_get(t->device).dispatches - dispatches) / (uint64_t)(steps + 1);
    r->peak_bytes = vk_memory_get(t->device).peak;
    if (!vk_wait(t->device, t->pending[(step - 1) % PENDING].value))
        return false;
    nn_summarise(&r->time, ns, steps);
    nn_summarise(&recording, host, steps);
    r->host_ns = recording.median;
    return true;
}

static bool time_kernels(trainer *t, const uint8_t *compete, int steps, mm_bench_step_result *r)
{
    double ns[MOST_STEPS], upload, ignored;
    uint64_t calls;
    nn_timing kernels;
    for (int i = -1; i < steps; i++) {
        double *sum = i < 0 ? &ignored : &ns[i];
        vk_profile_reset(t->device);
        if (!record(t, compete, (uint64_t)(i + 1), &ignored) || !vk_profile_get(t->device, NULL, sum, &calls) ||
            !vk_profile_get(t->device, "upload", &upload, &calls))
            return false;
        *sum -= upload;
    }
    nn_summarise(&kernels, ns, steps);
    r->device_ns = kernels.median;
    return true;
}

static void describe(const trainer *t, mm_bench_step_result *r)
{
    const mm_batch *b = t->batches[0];
    r->samples = b->samples;
    r->tokens = b->tokens;
    r->has_mixtures = t->model->mixtures > 0;
    r->real_tokens = 0;
    for (int i = 0; i < b->samples; i++)
        r->real_tokens += (uint64_t)b->length[i];
}

static bool run(const mm_bench_step_params *p, bool profile, mm_bench_step_result *r)
{
    trainer t = {0};
    uint8_t *compete = NULL;
    const int steps = profile ? 3 : p->quick ? 4 : 12;
    bool ok = open_trainer(&t, p, &subjects[p->model], profile);
    if (ok && p->compete && t.model->mixtures) {
        compete = cs_alloc((size_t)t.model->mixtures, 1, "a benchmark");
        ok = compete;
        for (int i = 0; ok && i < t.model->mixtures; i++)
            compete[i] = 1;
    }
    if (ok)
        describe(&t, r);
    ok = ok && (profile ? !vk_device_caps(t.device)->timestamps || time_kernels(&t, compete, steps, r)
                        : time_steps(&t, compete, steps, r));
    free(compete);
    return mm_trainer_close(&t) && ok;
}

bool mm_bench_step(const mm_bench_step_params *p, mm_bench_step_result *r)
{
    *r = (mm_bench_step_result){0};
    return (run(p, false, r) && run(p, true, r)) ||
           cs_fail_in("benchmark of a training step of %s", mm_bench_model_names[p->model]);
}
