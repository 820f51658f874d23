/* A tiny model with its tokenizer and one batch: two pictures of 16x16 pixels with two questions each and a text-only
 * sample. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include "tests/data_fixture.h"
#include "tests/nn_fixture.h"

#include "multimodal/evaluate.h"
#include "multimodal/generate.h"
#include "multimodal/loader.h"

enum { MAX_SETS = 32 };

/* One configuration of the model, as "key=value" texts. */
typedef struct variant {
    const char *name, *sets[MAX_SETS];
    bool competes;
} variant;

static const char *const tiny[] = {
    "vision.size=16",      "vision.patch=8", "vision.width=16", "vision.layers=1", "vision.heads=2", "vision.hidden=24",
    "projector.hidden=16", "text.width=16",  "text.layers=1",   "text.heads=2",    "text.hidden=24", "text.context=256",
};

/* A model with what belongs to it, ready to train on its one batch. */
typedef struct subject {
    mm_loaded loaded;
    mm_dataset *data;
    mm_batch *batch;
    nn_tape *tape;
} subject;

static inline int open_world(void **state)
{
    static const char *const sentences[] = {"what colour is it", "how many", "a red cat",   "two",
                                            "a blue old dog",    "three",    "who are you", "just a model"};
    if (open_device(state) || open_words(sentences, sizeof sentences / sizeof *sentences, NULL, 0))
        return -1;
    write_picture("a.png", 16, 30);
    write_picture("b.png", 16, 190);
    write_text("all.json", "[{\"id\": \"a\", \"image\": \"a.png\", \"conversations\": [{\"from\": \"human\", "
                           "\"value\": \"<image>\\nwhat colour is it\"},"
                           " {\"from\": \"gpt\", \"value\": \"a red cat\"}, {\"from\": \"human\", \"value\": \"how "
                           "many\"}, {\"from\": \"gpt\", \"value\": \"two\"}]},\n"
                           "{\"id\": \"b\", \"image\": \"b.png\", \"conversations\": [{\"from\": \"human\", \"value\": "
                           "\"<image>\\nwhat colour is it\"},"
                           " {\"from\": \"gpt\", \"value\": \"a blue old dog\"}, {\"from\": \"human\", \"value\": "
                           "\"how many\"}, {\"from\": \"gpt\", \"value\": \"three\"}]},\n"
                           "{\"id\": \"c\", \"conversations\": [{\"from\": \"human\", \"value\": \"who are you\"}, "
                           "{\"from\": \"gpt\", \"value\": \"just a model\"}]}]\n");
    write_text("text.json", "[{\"id\": \"c\", \"conversations\": [{\"from\": \"human\", \"value\": \"who are you\"},"
                            " {\"from\": \"gpt\", \"value\": \"just a model\"}]}]\n");
    return 0;
}

static inline int close_world(void **state)
{
    return close_folder(state) | close_device(state);
}

static inline mm_batch *whole_batch(const mm_format *format, const mm_dataset *data)
{
    const mm_loader_params params = {.format = *format, .batch = 64, .epochs = 1, .prefetch = 1};
    mm_batch *batch = NULL;
    mm_loader *loader = mm_loader_open(data, &params, 0);
    check(loader && mm_loader_next(loader, &batch));
    assert_non_null(batch);
    mm_loader_close(loader);
    return batch;
}

/* The variant's model with `extra` (may be NULL) set on top. */
static inline void make_subject(subject *s, const variant *v, const char *extra, const char *data)
{
    const char *sets[2 * MAX_SETS];
    size_t count = sizeof tiny / sizeof *tiny;
    memcpy(sets, tiny, sizeof tiny);
    for (int i = 0; i < MAX_SETS && v->sets[i]; i++)
        sets[count++] = v->sets[i];
    if (extra)
        sets[count++] = extra;
    *s = (subject){0};
    mm_loaded *l = &s->loaded;
    check(mm_config_read(&l->config, NULL, sets, count));
    size_t size;
    const void *pieces = mm_tokenizer_model(words, &size);
    check(cs_write_file(in_folder("words.model"), pieces, size));
    l->tokenizer = mm_tokenizer_load(in_folder("words.model"));
    check(l->tokenizer);
    l->model = mm_model_new(device, &l->config, mm_tokenizer_size(l->tokenizer), true);
    check(l->model && mm_config_format(&l->config, l->tokenizer, &l->format));
    s->data = mm_dataset_open(in_folder(data), &(mm_dataset_params){0});
    check(s->data);
    s->batch = whole_batch(&l->format, s->data);
    s->tape = nn_tape_new(device);
    check(s->tape);
}

static inline void drop_subject(subject *s)
{
    nn_tape_free(&s->tape);
    mm_batch_free(s->batch);
    free(s->batch);
    mm_dataset_close(s->data);
    mm_unload(&s->loaded);
}

/* Records forward and backward over the batch; gradients are added to the parameters'. Returns the loss per label. */
static inline nn_tensor *backward_pass(subject *s, const uint8_t *compete)
{
    mm_model *m = s->loaded.model;
    nn_root roots[64];
    nn_tensor *loss, *best;
    nn_tape_reset(s->tape);
    const mm_forward how = {.training = true, .compete = compete, .label_weight = 1.0f / (float)s->batch->labels};
    check(mm_model_forward(m, s->tape, s->batch, &how, &loss, &best));
    check(nn_tape_run(s->tape, roots, mm_model_roots(m, loss, 1, roots)));
    return loss;
}

/* Optimizer steps from `first`; where the variant competes, mixtures take turns at it. Returns the last loss. */
static inline float train_steps(subject *s, const variant *v, int first, int steps, float lr)
{
    mm_model *m = s->loaded.model;
    uint8_t compete[16] = {0};
    nn_tensor *loss = NULL;
    float value = NAN;
    for (int step = first; step < first + steps; step++) {
        for (int i = 0; i < m->mixtures; i++)
            compete[i] = v->competes && (step + i) % 3 == 0;
        check(nn_params_zero_grad(m->params));
        loss = backward_pass(s, compete);
        const nn_adamw a = {.lr = lr, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .clip = 1};
        check(nn_params_step(m->params, &a, (uint64_t)step + 1, (vk_range){0}));
    }
    check(nn_read(s->tape, loss, &value));
    return value;
}

/* All parameters one after the other; free(). */
static inline float *all_parameters(nn_params *set, size_t *count)
{
    *count = (size_t)nn_params_elements(set, false);
    float *values = malloc(*count * sizeof *values), *at = values;
    assert_non_null(values);
    for (size_t i = 0; i < nn_params_count(set); i++) {
        const nn_param *p = nn_params_at(set, i);
        check(nn_param_read(set, p, NN_VALUE, at));
        at += nn_count(&p->tensor);
    }
    return values;
}

#endif
