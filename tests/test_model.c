/* The assembled model: gradients, recomputation, overfitting one batch, generation against the teacher-forced pass,
 * evaluation. */
#include "tests/model_fixture.h"

#define MIXTURES                                                                                                       \
    "vision.moe.experts=4", "vision.moe.hidden=12", "projector.moe.experts=3", "projector.moe.hidden=8",               \
        "text.moe.experts=4", "text.moe.hidden=12"

static const variant variants[] = {
    {"dense", {NULL}, false},
    {"isolated, open prefix, shared key/value heads, tied",
     {"data.turns=isolated", "text.open_prefix=true", "text.kv_heads=1", "text.tied=true",
      "text.rope_interleaved=true"},
     false},
    {"odd sizes",
     {"vision.width=12", "vision.heads=3", "vision.hidden=21", "projector.hidden=7", "text.width=21", "text.heads=3",
      "text.head_dim=4", "text.hidden=13"},
     false},
    {"class token as in CLIP",
     {"vision.class_token=true", "vision.pre_norm=true", "vision.post_norm=false", "vision.layers=2",
      "vision.feature_layer=-2", "vision.activation=quick_gelu", "projector.norm=true", "text.layers=2",
      "data.template=vicuna_v1"},
     false},
    {"mixtures", {MIXTURES}, true},
    {"mixtures, isolated, L2 norm, class token",
     {MIXTURES, "data.turns=isolated", "vision.class_token=true", "vision.moe.affinity=l2norm",
      "vision.moe.hybrid=true", "projector.moe.affinity=l2norm", "text.moe.affinity=l2norm", "text.moe.top_k=1"},
     true},
};

enum { VARIANTS = sizeof variants / sizeof *variants };

/* ---- gradients -------------------------------------------------------------------------------------------------- */

static double loss_of(subject *s)
{
    nn_tensor *loss, *best;
    float value;
    nn_tape_reset(s->tape);
    const mm_forward how = {.training = true, .label_weight = 1.0f / (float)s->batch->labels};
    check(mm_model_forward(s->loaded.model, s->tape, s->batch, &how, &loss, &best));
    check(nn_tape_run(s->tape, NULL, 0) && nn_read(s->tape, loss, &value));
    return value;
}

/* Derivative along a random direction of one parameter, by central differences and by the backward pass. */
static void check_parameter(subject *s, const variant *v, const nn_param *p)
{
    const float step = 0.02f;
    nn_params *set = s->loaded.model->params;
    size_t n = (size_t)nn_count(&p->tensor);
    float *x = malloc(n * sizeof *x), *moved = malloc(n * sizeof *x), *g = malloc(n * sizeof *x),
          *d = malloc(n * sizeof *x);
    assert_true(x && moved && g && d);
    check(nn_param_read(set, p, NN_VALUE, x) && nn_param_read(set, p, NN_GRADIENT, g));
    fill_normal(d, n, 3);
    double along = 0, size = 0, slope = 0, sides[2];
    for (size_t i = 0; i < n; i++)
        size += (double)d[i] * d[i];
    for (size_t i = 0; i < n; i++) {
        d[i] = (float)(d[i] / sqrt(size));
        along += (double)d[i] * g[i];
        slope += (double)g[i] * g[i];
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved[i] = x[i] + (side ? step : -step) * d[i];
        check(nn_param_write(set, p, NN_VALUE, moved));
        sides[side] = loss_of(s);
    }
    check(nn_param_write(set, p, NN_VALUE, x));
    double measured = (sides[1] - sides[0]) / (2 * step);
    if (fabs(measured - along) > 2e-4 + 0.03 * sqrt(slope))
        fail_msg("%s, %s: the loss changes by %g, the gradient says %g", v->name, p->name, measured, along);
    free(x);
    free(moved);
    free(g);
    free(d);
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        if (variants[i].competes) /* routing has steps, which differences do not see */
            continue;
        subject s;
        make_subject(&s, &variants[i], NULL, "all.json");
        nn_params *set = s.loaded.model->params;
        check(nn_params_zero_grad(set));
        backward_pass(&s, NULL);
        for (size_t k = 0; k < nn_params_count(set); k++)
            check_parameter(&s, &variants[i], nn_params_at(set, k));
        drop_subject(&s);
    }
}

/* Loss of the batch's labels over random embeddings `x`; gradients of those and of all parameters, one after the other.
 * The last block works on the labelled rows alone, or all rows go through it. */
static float decode_labels(subject *s, const float *x, bool pick, float *gradients)
{
    const mm_model *m = s->loaded.model;
    const mm_batch *b = s->batch;
    const int64_t labels = b->labels, shape[] = {b->samples, b->tokens, m->config->text.width}, n = shape[0] * shape[1];
    int32_t inverse[512];
    float loss;
    assert_true(n <= 512);
    memset(inverse, -1, sizeof inverse);
    for (int i = 0; i < b->labels; i++)
        inverse[b->label_row[i]] = i;
    nn_tape *tape = s->tape;
    nn_tape_reset(tape);
    check(nn_params_zero_grad(m->params));
    nn_pass_context c = {.training = true,
                         .segments = nn_input(tape, NN_I32, 2, shape, b->segment),
                         .positions = nn_input(tape, NN_I32, 1, &n, b->position)};
    const nn_pick wanted = {.rows = nn_input(tape, NN_I32, 1, &labels, b->label_row),
                            .inverse = nn_input(tape, NN_I32, 1, &n, inverse),
                            .slots = nn_input(tape, NN_I32, 2, shape, inverse)};
    nn_tensor *in = nn_watch(nn_input(tape, NN_F32, 3, shape, x)), *best;
    nn_tensor *hidden = mm_decoder_forward(tape, &m->decoder, in, NULL, pick ? &wanted : NULL, &c, false);
    if (!pick)
        hidden = nn_gather_rows(tape, hidden, wanted.rows, wanted.inverse);
    nn_tensor *label = nn_input(tape, NN_I32, 1, &labels, b->label);
    nn_tensor *sum = nn_keep(mm_decoder_loss(tape, &m->decoder, hidden, label, 1, &best));
    check(sum && nn_tape_run(tape, &(nn_root){sum, 1, NULL}, 1) && nn_read(tape, sum, &loss));
    check(nn_read_grad(tape, in, gradients));
    gradients += nn_count(in);
    for (size_t i = 0; i < nn_params_count(m->params); i++) {
        const nn_param *p = nn_params_at(m->params, i);
        check(nn_param_read(m->params, p, NN_GRADIENT, gradients));
        gradients += nn_count(&p->tensor);
    }
    return loss;
}

static void test_picking_labels(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        subject s;
        make_subject(&s, &variants[i], "text.layers=2", "all.json");
        const mm_model *m = s.loaded.model;
        size_t inputs = (size_t)s.batch->samples * (size_t)s.batch->tokens * (size_t)m->config->text.width;
        size_t count = inputs + (size_t)nn_params_elements(m->params, false);
        float *x = malloc(inputs * sizeof *x), *all = malloc(count * sizeof *all), *some = malloc(count * sizeof *some);
        assert_true(x && all && some);
        fill_normal(x, inputs, 9);
        float whole = decode_labels(&s, x, false, all), picked = decode_labels(&s, x, true, some);
        double size = 0, difference = 0;
        for (size_t k = 0; k < count; k++) {
            size += (double)all[k] * all[k];
            difference += ((double)all[k] - some[k]) * ((double)all[k] - some[k]);
        }
        if (fabsf(whole - picked) > 1e-5f * whole || sqrt(difference) > 1e-5 * sqrt(size))
            fail_msg("%s: losses %g and %g, gradients of size %g differ by %g", variants[i].name, whole, picked,
                     sqrt(size), sqrt(difference));
        free(x);
        free(all);
        free(some);
        drop_subject(&s);
    }
}

/* The head's scores in chunks train as the scores in one piece do. */
static void test_vocabulary_in_chunks(void **state)
{
    (void)state;
    static const variant whole = {"whole", {"text.vocabulary=200"}, false},
                         chunks = {"chunks", {"text.vocabulary=200", "text.loss_chunk=64"}, false};
    float loss[2];
    for (int i = 0; i < 2; i++) {
        subject s;
        make_subject(&s, i ? &chunks : &whole, NULL, "all.json");
        loss[i] = train_steps(&s, i ? &chunks : &whole, 0, 4, 1e-2f);
        drop_subject(&s);
    }
    assert_true(fabsf(loss[0] - loss[1]) < 1e-4f * loss[0]);
}

static void test_recomputation_changes_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < VARIANTS; i++) {
        float *values[2];
        uint64_t peak[2];
        size_t count;
        for (int recompute = 0; recompute < 2; recompute++) {
            subject s;
            make_subject(&s, &variants[i], recompute ? "train.recompute=true" : NULL, "all.json");
            uint64_t before = used_memory();
            vk_memory_reset_peak(device);
            train_steps(&s, &variants[i], 0, 4, 1e-2f);
            peak[recompute] = vk_memory_get(device).peak - before;
            values[recompute] = all_parameters(s.loaded.model->params, &count);
            drop_subject(&s);
        }
        if (memcmp(values[0], values[1], count * sizeof *values[0]))
            fail_msg("%s: recomputation gives other parameters", variants[i].name);
        assert_true(peak[1] <= peak[0]);
        free(values[0]);
        free(values[1]);
    }
}

static void test_freezing(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &variants[4], "train.freeze=vision,text.layers", "all.json");
    nn_params *set = s.loaded.model->params;
    size_t count;
    float *before = all_parameters(set, &count), *was = before;
    train_steps(&s, &variants[4], 0, 2, 1e-2f);
    float *after = all_parameters(set, &count), *is = after;
    for (size_t i = 0; i < nn_params_count(set); i++) {
        const nn_param *p = nn_params_at(set, i);
        size_t n = (size_t)nn_count(&p->tensor);
        bool frozen = !strncmp(p->name, "vision", 6) || !strncmp(p->name, "text.layers", 11);
        assert_int_equal(!memcmp(was, is, n * sizeof *was), frozen);
        was += n;
        is += n;
    }
    free(before);
    free(after);
    drop_subject(&s);
}

/* ---- learning --------------------------------------------------------------------------------------------------- */

/* Greedy answers that equal the data's, out of all its turns. */
static uint64_t generated_exactly(subject *s, uint64_t *turns)
{
    mm_loaded *l = &s->loaded;
    uint64_t exact = 0;
    *turns = 0;
    for (size_t i = 0; i < s->data->count; i++) {
        const mm_sample *sample = &s->data->samples[i];
        mm_image image = {0};
        if (sample->image >= 0)
            check(mm_image_load(s->data->images[sample->image], &image));
        for (uint32_t t = 0; t < sample->turn_count; t++) {
            mm_turn asked[4];
            memcpy(asked, sample->turns, (t + 1) * sizeof *asked);
            asked[t].answer = NULL;
            const mm_generate_params params = {.max_tokens = 12, .stop = mm_format_end(&l->format)};
            char *text = mm_answer(l, asked, t + 1, sample->image >= 0 ? &image : NULL, &params);
            check(text);
            exact += !strcmp(text, sample->turns[t].answer);
            ++*turns;
            free(text);
        }
        mm_image_free(&image);
    }
    return exact;
}

static mm_evaluation evaluate(subject *s, bool blank)
{
    mm_evaluation e;
    check(
        mm_evaluate(&s->loaded, &(mm_evaluate_params){.data = in_folder("all.json"), .batch = 2, .blank = blank}, &e));
    return e;
}

/* The first samples of the file, not the longest ones, which batches begin with. */
static void test_evaluation_of_a_part(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &variants[0], NULL, "all.json");
    write_text("mixed.json", "[{\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": \"who are you\"}, "
                             "{\"from\": \"gpt\", \"value\": \"two\"}]},\n"
                             "{\"id\": 2, \"conversations\": [{\"from\": \"human\", \"value\": \"who are you\"}, "
                             "{\"from\": \"gpt\", \"value\": \"a blue old dog\"}]}]\n");
    for (int64_t limit = 0; limit < 4; limit++) {
        mm_evaluation e;
        check(mm_evaluate(&s.loaded, &(mm_evaluate_params){.data = in_folder("mixed.json"), .batch = 2, .limit = limit},
                          &e));
        assert_int_equal(e.samples, limit == 1 ? 1 : 2);
        assert_int_equal(e.labels, limit == 1 ? 2 : 7);
    }
    drop_subject(&s);
}

/* One batch is learned by heart; on the way, and at its end, evaluation and generation agree about every answer. */
static void test_overfitting(void **state)
{
    (void)state;
    static const int stops[] = {12, 45};
    for (int i = 0; i < VARIANTS; i++) {
        subject s;
        make_subject(&s, &variants[i], NULL, "all.json");
        float loss = 0;
        uint64_t turns, exact = 0;
        for (int k = 0, done = 0; k < 2; done = stops[k++]) {
            loss = train_steps(&s, &variants[i], done, stops[k] - done, 2e-2f);
            mm_evaluation e = evaluate(&s, false);
            exact = generated_exactly(&s, &turns);
            assert_int_equal(e.answers, turns);
            assert_int_equal(e.samples, 3);
            if (e.exact != exact)
                fail_msg("%s: evaluation counts %d exact answers, generation gives %d", variants[i].name, (int)e.exact,
                         (int)exact);
        }
        if (loss > 0.1f || exact != turns)
            fail_msg("%s: a loss of %g and %d of %d answers after 45 steps", variants[i].name, loss, (int)exact,
                     (int)turns);
        mm_evaluation blank = evaluate(&s, true);
        assert_true(blank.exact < blank.answers && blank.loss > 0.2);
        drop_subject(&s);
    }
}

/* All that is left of the answer is right, but its end is not there. */
static void test_a_cut_answer_is_not_exact(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &variants[0], NULL, "text.json");
    train_steps(&s, &variants[0], 0, 30, 2e-2f);
    const mm_evaluate_params params = {.data = in_folder("text.json"), .batch = 1};
    for (int cut = 0; cut < 2; cut++) {
        mm_evaluation e;
        s.loaded.format.max_tokens = s.batch->length[0] - cut;
        check(mm_evaluate(&s.loaded, &params, &e));
        assert_int_equal(e.labels, s.batch->labels - cut);
        assert_int_equal(e.answers, 1);
        assert_int_equal(e.exact, !cut);
    }
    drop_subject(&s);
}

static void test_text_only(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &variants[4], NULL, "text.json");
    nn_params *set = s.loaded.model->params;
    size_t count;
    float *before = all_parameters(set, &count);
    assert_true(train_steps(&s, &variants[4], 0, 40, 2e-2f) < 0.1f);
    float *after = all_parameters(set, &count);
    size_t tower = 0; /* tower and projector come first and are not touched */
    for (size_t i = 0; strncmp(nn_params_at(set, i)->name, "text.", 5); i++)
        tower += (size_t)nn_count(&nn_params_at(set, i)->tensor);
    assert_memory_equal(before, after, tower * sizeof *before);
    assert_memory_not_equal(before + tower, after + tower, (count - tower) * sizeof *before);
    free(before);
    free(after);
    drop_subject(&s);
}

static void test_blind_model(void **state)
{
    (void)state;
    const variant blind = {"blind", {"vision.layers=0", "text.moe.experts=4"}, true};
    subject s;
    make_subject(&s, &blind, NULL, "text.json");
    assert_int_equal(s.loaded.model->mixtures, 1);
    assert_true(train_steps(&s, &blind, 0, 40, 2e-2f) < 0.1f);
    drop_subject(&s);
    make_subject(&s, &blind, NULL, "all.json");
    nn_tensor *loss, *best;
    assert_false(mm_model_forward(s.loaded.model, s.tape, s.batch, &(mm_forward){.label_weight = 1}, &loss, &best));
    assert_error("no vision tower");
    drop_subject(&s);
}

static void test_mixtures(void **state)
{
    (void)state;
    const variant deep = {"deep", {MIXTURES, "vision.layers=2", "text.layers=4"}, true};
    static const char *const names[] = {"vision.layers.0", "vision.layers.1", "projector",    "text.layers.0",
                                        "text.layers.1",   "text.layers.2",   "text.layers.3"};
    static const float weights[] = {0.5f, 0.5f, 1, 0.25f, 0.25f, 0.25f, 0.25f};
    subject s;
    make_subject(&s, &deep, NULL, "all.json");
    const mm_model *m = s.loaded.model;
    assert_int_equal(m->mixtures, 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(m->mixture[i].name, names[i]);
        assert_true(m->mixture[i].weight == weights[i]);
    }
    uint8_t compete[7] = {1, 0, 1, 0, 0, 0, 1};
    check(nn_params_zero_grad(m->params));
    backward_pass(&s, compete);
    for (int i = 0; i < 7; i++)
        assert_int_equal(m->results[i].competed, compete[i]);
    drop_subject(&s);
}

/* ---- generation ------------------------------------------------------------------------------------------------- */

/* The prompt with the generated tokens behind it, each of them a label. */
static mm_batch continued(const mm_batch *prompt, const int32_t *ids, int count)
{
    int length = prompt->length[0], tokens = (length + count + 15) / 16 * 16;
    mm_batch b = *prompt;
    b.tokens = tokens;
    b.labels = count;
    b.source = calloc((size_t)tokens, 4);
    b.position = calloc((size_t)tokens, 4);
    b.segment = calloc((size_t)tokens, 4);
    b.label_row = calloc((size_t)count, 4);
    b.label = calloc((size_t)count, 4);
    b.label_turn = calloc((size_t)count, 4);
    for (int i = 0; i < tokens; i++) {
        bool given = i < length, made = !given && i < length + count;
        b.source[i] = given ? prompt->source[i] : made ? ids[i - length] : 0;
        b.position[i] = given ? prompt->position[i] : made ? prompt->position[length - 1] + 1 + i - length : 0;
        b.segment[i] = given ? prompt->segment[i] : made ? prompt->segment[length - 1] : -1;
    }
    for (int i = 0; i < count; i++) {
        b.label_row[i] = length - 1 + i;
        b.label[i] = ids[i];
    }
    return b;
}

static void free_continued(mm_batch *b)
{
    free(b->source);
    free(b->position);
    free(b->segment);
    free(b->label_row);
    free(b->label);
    free(b->label_turn);
}

/* Untrained weights: whatever is generated with the cache, the teacher-forced pass finds likeliest at every place. */
static void test_cache_equals_full_pass(void **state)
{
    (void)state;
    enum { TOKENS = 24 };
    const mm_turn turns[] = {{"what colour is it", "a blue old dog"}, {"how many", NULL}};
    for (int i = 0; i < VARIANTS; i++)
        for (int with_picture = 0; with_picture < 2; with_picture++) {
            subject s;
            make_subject(&s, &variants[i], NULL, "all.json");
            mm_loaded *l = &s.loaded;
            train_steps(&s, &variants[i], 0, 5, 2e-2f); /* away from answers that are one token for ever */
            mm_image image = {0};
            check(mm_image_load(in_folder("b.png"), &image));
            mm_batch prompt;
            check(mm_prompt(&l->format, turns, 2, with_picture ? &image : NULL, &prompt));
            int32_t ids[TOKENS], best[TOKENS];
            int count;
            check(mm_generate(l, &prompt, &(mm_generate_params){.max_tokens = TOKENS, .stop = -1}, ids, &count));
            assert_int_equal(count, TOKENS);
            mm_batch b = continued(&prompt, ids, count);
            nn_tensor *loss, *likeliest;
            nn_tape_reset(s.tape);
            check(mm_model_forward(l->model, s.tape, &b, &(mm_forward){.label_weight = 1}, &loss, &likeliest));
            check(nn_tape_run(s.tape, NULL, 0) && nn_read(s.tape, likeliest, best));
            for (int k = 0; k < TOKENS; k++)
                if (best[k] != ids[k])
                    fail_msg("%s, token %d: generated %d, teacher-forced %d", variants[i].name, k, ids[k], best[k]);
            free_continued(&b);
            mm_batch_free(&prompt);
            mm_image_free(&image);
            drop_subject(&s);
        }
}

static void test_generation_limits(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &variants[0], "text.context=64", "all.json");
    const int32_t start[] = {1, 5};
    int32_t ids[64];
    int count;
    check(mm_generate_raw(&s.loaded, start, 2, &(mm_generate_params){.max_tokens = 62, .stop = -1}, ids, &count));
    assert_int_equal(count, 62);
    assert_false(
        mm_generate_raw(&s.loaded, start, 2, &(mm_generate_params){.max_tokens = 63, .stop = -1}, ids, &count));
    assert_error("text.context (64)");
    /* The token that comes first, as stop token, gives nothing. */
    check(mm_generate_raw(&s.loaded, start, 2, &(mm_generate_params){.max_tokens = 8, .stop = ids[0]}, ids, &count));
    assert_int_equal(count, 0);
    drop_subject(&s);
}

/* Draws repeat with their seed; the second time of the same prompt they go on. */
static void test_draws(void **state)
{
    (void)state;
    enum { TOKENS = 30, TIMES = 2 };
    subject s;
    make_subject(&s, &variants[0], "text.context=64", "all.json");
    const int32_t start[] = {1, 5};
    int32_t ids[3][TIMES][TOKENS];
    for (int i = 0; i < 3; i++) {
        cs_random random = {.seed = i < 2 ? 4 : 5, .stream = CS_STREAM_SAMPLE};
        const mm_generate_params draw = {
            .max_tokens = TOKENS, .stop = -1, .sampling = {.temperature = 1}, .random = &random};
        int count;
        for (int k = 0; k < TIMES; k++)
            check(mm_generate_raw(&s.loaded, start, 2, &draw, ids[i][k], &count));
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0][0], ids[0][1], sizeof ids[0][0]);
    assert_memory_not_equal(ids[0][0], ids[2][0], sizeof ids[0][0]);
    drop_subject(&s);
}

/* ---- configuration ---------------------------------------------------------------------------------------------- */

static void test_bad_configurations(void **state)
{
    (void)state;
    static const struct {
        const char *set, *message;
    } cases[] = {
        {"vision.patch=7", "vision.size 16 is not a multiple of vision.patch 7"},
        {"vision.heads=3", "vision.width 16 is not a multiple of vision.heads 3"},
        {"vision.feature_layer=-2", "vision.feature_layer -2: the tower has 1 layers"},
        {"text.heads=3", "text.width 16 is not a multiple of text.heads 3"},
        {"text.kv_heads=3", "text.heads 2 is not a multiple of text.kv_heads 3"},
        {"text.head_dim=5", "text.head_dim 5 is odd"},
        {"text.head_dim=130", "text.layers.0: head_dim is 130, must be a multiple of 4"},
        {"vision.width=18", "vision.layers.0: head_dim is 9, must be a multiple of 4"},
        {"text.vocabulary=3", "text.vocabulary is 3"},
        {"text.open_prefix=true", "text.open_prefix needs data.turns \"isolated\""},
        {"data.template=plian", "data.template"},
        {"text.moe.top_k=0", "text.moe.top_k"},
        {"vision.wdith=3", "did you mean 'width'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *sets[MAX_SETS];
        size_t count = sizeof tiny / sizeof *tiny;
        memcpy(sets, tiny, sizeof tiny);
        sets[count++] = cases[i].set;
        mm_config *config = calloc(1, sizeof *config);
        mm_model *m = NULL;
        bool ok = mm_config_read(config, NULL, sets, count) && (m = mm_model_new(device, config, 120, true));
        assert_false(ok);
        assert_error(cases[i].message);
        mm_model_free(&m);
        mm_config_release(config);
        free(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_picking_labels),
        cmocka_unit_test(test_vocabulary_in_chunks),
        cmocka_unit_test(test_recomputation_changes_no_bit),
        cmocka_unit_test(test_freezing),
        cmocka_unit_test(test_evaluation_of_a_part),
        cmocka_unit_test(test_overfitting),
        cmocka_unit_test(test_a_cut_answer_is_not_exact),
        cmocka_unit_test(test_text_only),
        cmocka_unit_test(test_blind_model),
        cmocka_unit_test(test_mixtures),
        cmocka_unit_test(test_cache_equals_full_pass),
        cmocka_unit_test(test_generation_limits),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_bad_configurations),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
