/* The training loop on a tiny model: its log, its stop, its checkpoints. */
#include "tests/model_fixture.h"

#include <jansson.h>

#include "base/trace.h"
#include "multimodal/run.h"
#include "multimodal/train_log.h"
#include "multimodal/trainer.h"

enum { MOST_LINES = 64 };

static const char *const common[] = {
    "vision.size=16",       "vision.width=16",      "vision.layers=1",
    "vision.heads=2",       "vision.hidden=24",     "vision.moe.experts=3",
    "text.width=16",        "text.layers=1",        "text.heads=2",
    "text.hidden=24",       "text.moe.experts=4",   "train.lr=1e-2",
    "competition.warmup=0", "competition.rate=0.5", "data.group_by_length=false",
};

/* The parameters of a training on `data` with the overrides; they live until the next call. */
static mm_train_params with_inputs(mm_train_params params, const char *data, const char *const *sets, size_t count)
{
    static const char *all[MAX_SETS];
    static char train[300], tokenizer[300];
    size_t n = sizeof common / sizeof *common;
    memcpy(all, common, sizeof common);
    snprintf(train, sizeof train, "data.train=%s", in_folder(data));
    snprintf(tokenizer, sizeof tokenizer, "data.tokenizer=%s", in_folder("words.model"));
    all[n++] = train;
    all[n++] = tokenizer;
    assert_true(n + count <= MAX_SETS);
    for (size_t i = 0; i < count; i++)
        all[n + i] = sets[i];
    params.config = write_text("empty.json", "{}");
    params.sets = all;
    params.set_count = n + count;
    return params;
}

static bool run_training(mm_train_params params, const char *data, const char *const *sets, size_t count, bool *stopped)
{
    params = with_inputs(params, data, sets, count);
    params.on = device; /* whose kernels are made once for all runs */
    return mm_train(&params, stopped);
}

/* Trains with the overrides into a new run folder; the lines of its log. */
static size_t train(const char *run, const char *const *sets, size_t count, volatile sig_atomic_t *stop, bool *stopped,
                    json_t **lines)
{
    char path[300], line[4096];
    size_t read = 0;
    check(run_training((mm_train_params){.out = in_folder(run), .stop = stop}, "all.json", sets, count, stopped));
    snprintf(path, sizeof path, "%s/log.jsonl", in_folder(run));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        assert_true(read < MOST_LINES);
        lines[read] = json_loads(line, 0, NULL);
        assert_non_null(lines[read++]);
    }
    fclose(file);
    return read;
}

static void drop(json_t **lines, size_t count)
{
    for (size_t i = 0; i < count; i++)
        json_decref(lines[i]);
}

static double number(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    if (!json_is_number(value))
        fail_msg("'%s' is missing in the log", key);
    return json_number_value(value);
}

static double sum(const json_t *list)
{
    double total = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        total += json_number_value(json_array_get(list, i));
    return total;
}

/* A mixture's figures at a step at which it saw something. */
static void check_mixture(const json_t *m, bool first_is_vision)
{
    bool competed = json_is_true(json_object_get(m, "competed"));
    assert_string_equal(json_string_value(json_object_get(m, "name")),
                        first_is_vision ? "vision.layers.0" : "text.layers.0");
    assert_int_equal(json_array_size(json_object_get(m, "load")), first_is_vision ? 3 : 4);
    assert_true(number(m, "entropy") >= 0 && number(m, "entropy") < log(4) + 1e-3);
    assert_true(sum(json_object_get(m, "load")) > 0);
    assert_true(number(m, "balance") > 0);
    assert_int_equal(json_object_get(m, "router") != NULL, competed);
    assert_int_equal(json_object_get(m, "diversity") != NULL, competed);
    assert_int_equal(json_object_get(m, "z") != NULL, !competed);
}

static void test_log(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=30", "train.batch=1", "train.schedule=constant", "train.warmup=0"};
    json_t *lines[MOST_LINES];
    bool stopped;
    size_t count = train("log", sets, 4, NULL, &stopped, lines);
    assert_false(stopped);
    assert_int_equal(count, 30);
    int blind = 0, competing = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(number(lines[i], "step") == (double)i + 1);
        assert_float_equal(number(lines[i], "lr"), 1e-2, 1e-8);
        assert_true(number(lines[i], "loss") > 0 && number(lines[i], "grad_norm") > 0);
        assert_true(number(lines[i], "tokens_per_second") > 0 && number(lines[i], "tokens_per_second") < 1e6);
        const json_t *mixtures = json_object_get(lines[i], "mixtures"), *vision = json_array_get(mixtures, 0),
                     *text = json_array_get(mixtures, 1);
        assert_int_equal(json_array_size(mixtures), 2);
        check_mixture(text, false);
        competing += json_is_true(json_object_get(text, "competed"));
        if (json_is_null(json_object_get(vision, "entropy"))) { /* the sample without a picture */
            blind++;
            assert_true(sum(json_object_get(vision, "load")) == 0);
            assert_null(json_object_get(vision, "balance"));
        } else {
            check_mixture(vision, true);
        }
    }
    assert_int_equal(blind, 10);
    assert_in_range(competing, 8, 22);
    assert_true(number(lines[29], "loss") + number(lines[28], "loss") + number(lines[27], "loss") <
                0.7 * (number(lines[0], "loss") + number(lines[1], "loss") + number(lines[2], "loss")));
    drop(lines, count);
}

/* Three micro-batches of one sample each are one step over the three samples. */
static void test_accumulation_counts_every_label_once(void **state)
{
    (void)state;
    static const char *const whole[] = {"train.steps=2", "train.batch=3", "vision.moe.experts=0", "text.moe.experts=0"};
    static const char *const parts[] = {"train.steps=2", "train.batch=1", "vision.moe.experts=0", "text.moe.experts=0",
                                        "train.accumulate=3"};
    json_t *a[MOST_LINES], *b[MOST_LINES];
    bool stopped;
    size_t n = train("whole", whole, 4, NULL, &stopped, a), m = train("parts", parts, 5, NULL, &stopped, b);
    assert_true(n == 2 && m == 2);
    for (size_t i = 0; i < 2; i++) {
        assert_float_equal(number(a[i], "loss") / number(b[i], "loss"), 1, 1e-5);
        assert_float_equal(number(a[i], "grad_norm") / number(b[i], "grad_norm"), 1, 1e-4);
        assert_true(number(a[i], "tokens") == number(b[i], "tokens"));
    }
    drop(a, n);
    drop(b, m);
}

/* 16-bit training goes where f32 training goes. These 30 steps are the steepest part of the curve, where one token
 * routed differently makes a run fall a step earlier or later: about 3% of the mean; what broken arithmetic does is far
 * more. */
static void test_precisions_agree(void **state)
{
    (void)state;
    static const char *const names[] = {"f32", "bf16", "f16"};
    double last[3] = {0};
    for (int k = 0; k < 3; k++) {
        char precision[32];
        snprintf(precision, sizeof precision, "train.precision=%s", names[k]);
        const char *const sets[] = {"train.steps=30", "train.batch=3", "train.schedule=constant", precision};
        json_t *lines[MOST_LINES];
        bool stopped;
        size_t count = train(names[k], sets, 4, NULL, &stopped, lines);
        assert_int_equal(count, 30);
        for (size_t i = 20; i < 30; i++)
            last[k] += number(lines[i], "loss") / 10;
        assert_true(last[k] < 0.7 * number(lines[0], "loss"));
        assert_int_equal(json_object_get(lines[0], "loss_scale") != NULL, k == 2);
        drop(lines, count);
    }
    assert_float_equal(last[1] / last[0], 1, 0.06);
    assert_float_equal(last[2] / last[0], 1, 0.06);
}

/* A loss scale that is too large costs a few steps, which the log names; then training goes on. */
static void test_overflow_is_skipped(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=30", "train.batch=3", "train.schedule=constant",
                                       "train.precision=f16", "train.loss_scale=16777216", "competition.rate=0"};
    json_t *lines[MOST_LINES];
    bool stopped;
    size_t count = train("overflow", sets, 6, NULL, &stopped, lines), skipped = 0;
    double scale = 16777216;
    assert_int_equal(count, 30);
    for (size_t i = 0; i < count; i++) {
        bool skip = json_is_true(json_object_get(lines[i], "skipped"));
        assert_float_equal(number(lines[i], "loss_scale") / scale, 1, 1e-6);
        assert_int_equal(json_is_null(json_object_get(lines[i], "grad_norm")), skip);
        skipped += skip;
        scale /= skip ? 2 : 1;
    }
    assert_true(json_is_true(json_object_get(lines[0], "skipped")) && skipped < 15);
    assert_float_equal(number(lines[1], "loss") / number(lines[0], "loss"), 1, 1e-5); /* nothing was learned */
    assert_true(number(lines[29], "loss") < 0.7 * number(lines[0], "loss"));
    drop(lines, count);
}

static void test_epochs_make_steps(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.epochs=5", "train.batch=2", "train.accumulate=3"};
    json_t *lines[MOST_LINES];
    bool stopped;
    size_t count = train("epochs", sets, 3, NULL, &stopped, lines);
    assert_int_equal(count, 4); /* 2 batches an epoch, 10 in all, 3 a step */
    drop(lines, count);
    char *newest = mm_run_checkpoint(in_folder("epochs"));
    check(newest);
    assert_non_null(strstr(newest, "step-00000004"));
    free(newest);
}

static void test_asked_to_stop(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=20"};
    volatile sig_atomic_t stop = 1;
    json_t *lines[MOST_LINES];
    bool stopped;
    size_t count = train("stopped", sets, 1, &stop, &stopped, lines);
    assert_true(stopped);
    assert_int_equal(count, 0);
    char *newest = mm_run_checkpoint(in_folder("stopped"));
    check(newest);
    assert_non_null(strstr(newest, "step-00000000"));
    free(newest);
}

static void test_diverging_loss_is_reported(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=200",         "train.lr=10",      "train.clip=0", "train.warmup=0",
                                       "train.schedule=constant", "text.rope_theta=0"};
    bool stopped;
    assert_false(run_training((mm_train_params){.out = in_folder("diverging")}, "all.json", sets, 6, &stopped));
    assert_error("the loss is ");
    assert_false(mm_run_exists(in_folder("diverging")));
}

/* Two trainings would write their steps between each other's. */
static void test_one_training_at_a_time(void **state)
{
    (void)state;
    const char *run = in_folder("locked");
    check(mm_run_prepare(run));
    mm_train_log *first = mm_train_log_open(run, NULL, 0, 1);
    check(first);
    assert_null(mm_train_log_open(run, NULL, 0, 1));
    assert_error("locked/log.jsonl: another training");
    check(mm_train_log_close(first));
    mm_train_log *next = mm_train_log_open(run, NULL, 0, 1);
    check(next);
    check(mm_train_log_close(next));
}

/* Weights that are no numbers never replace a checkpoint of good ones. */
static void test_diverging_run_keeps_good_weights(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=60",          "train.lr=10",       "train.clip=0",
                                       "train.warmup=0",          "text.rope_theta=0", "train.save_every=1",
                                       "train.schedule=constant", "train.keep=1"};
    bool stopped;
    assert_false(run_training((mm_train_params){.out = in_folder("diverged")}, "all.json", sets, 8, &stopped));
    assert_error("the loss is ");
    mm_loaded l;
    mm_evaluation r;
    check(mm_load(&l, in_folder("diverged"), device, NULL, 0));
    check(mm_evaluate(&l, &(mm_evaluate_params){.data = in_folder("all.json"), .batch = 3}, &r));
    assert_true(isfinite(r.loss));
    mm_unload(&l);
}

/* A run by epochs cannot go on over data of another size: its schedules were made for the old one. */
static void test_resuming_over_other_data(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.epochs=2", "train.batch=1"};
    static const char sample[] =
        "{\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": \"how many\"}, {\"from\": "
        "\"gpt\", \"value\": \"two\"}]}\n";
    char text[3 * sizeof sample];
    bool stopped;
    snprintf(text, sizeof text, "%s%s", sample, sample);
    write_text("growing.jsonl", text);
    check(run_training((mm_train_params){.out = in_folder("growing")}, "growing.jsonl", sets, 2, &stopped));
    snprintf(text, sizeof text, "%s%s%s", sample, sample, sample);
    write_text("growing.jsonl", text);
    const mm_train_params again = {.out = in_folder("growing"), .resume = true};
    assert_false(run_training(again, "growing.jsonl", sets, 2, &stopped));
    assert_error("ends at step 4, this run has 2 mixtures and 6 steps");
}

/* ---- the trace of a step ---- */

typedef struct span {
    const char *name;
    int row;
    double begin, end; /* microseconds */
} span;

static int by_row_and_time(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->row != y->row)
        return x->row - y->row;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end < y->end) - (x->end > y->end);
}

/* The spans of a trace, sorted; their names live as long as it. */
static size_t spans_of(const json_t *trace, span *spans, size_t most)
{
    size_t count = 0, i;
    json_t *event;
    json_array_foreach(json_object_get(trace, "traceEvents"), i, event) {
        if (strcmp(json_string_value(json_object_get(event, "ph")), "X"))
            continue;
        assert_true(count < most);
        double begin = number(event, "ts");
        spans[count++] = (span){json_string_value(json_object_get(event, "name")), (int)number(event, "tid"), begin,
                                begin + number(event, "dur")};
    }
    qsort(spans, count, sizeof *spans, by_row_and_time);
    return count;
}

/* Every span of a row ends within the one that it begins in. */
static void check_nesting(const span *spans, size_t count)
{
    const double rounding = 1e-3;
    enum { DEEPEST = 8 };
    span open[DEEPEST];
    size_t depth = 0;
    for (size_t i = 0; i < count; i++) {
        while (depth && (open[depth - 1].row != spans[i].row || open[depth - 1].end <= spans[i].begin + rounding))
            depth--;
        if (depth && spans[i].end > open[depth - 1].end + rounding)
            fail_msg("'%s' ends behind '%s'", spans[i].name, open[depth - 1].name);
        assert_true(depth < DEEPEST);
        open[depth++] = spans[i];
    }
}

static const span *find_span(const span *spans, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(spans[i].name, name))
            return &spans[i];
    fail_msg("the trace has no '%s'", name);
    return NULL;
}

/* Dispatches in the device's row, and what the step says of itself. */
static void check_dispatches(const json_t *trace, const char *step)
{
    size_t i, dispatches = 0;
    double counted = 0;
    json_t *event;
    json_array_foreach(json_object_get(trace, "traceEvents"), i, event) {
        const char *name = json_string_value(json_object_get(event, "name")),
                   *kind = json_string_value(json_object_get(event, "cat"));
        dispatches += kind && !strcmp(kind, "dispatch");
        if (!strcmp(name, step))
            counted = number(json_object_get(event, "args"), "dispatches");
    }
    assert_true(counted > 20);
    assert_true(!vk_device_caps(device)->timestamps || (double)dispatches == counted);
}

static void test_trace_shows_one_step(void **state)
{
    (void)state;
    enum { MOST_SPANS = 4096 };
    static const char *const sets[] = {"train.steps=6", "train.batch=2", "train.accumulate=2"};
    static const char *const inside[] = {"wait for the batch", "build the tape", "record forward and backward",
                                         "record the optimizer", "submit"};
    static span spans[MOST_SPANS];
    bool stopped;
    const mm_train_params params = {.out = in_folder("traced"), .trace = in_folder("trace.json"), .trace_step = 4};
    check(run_training(params, "all.json", sets, 3, &stopped));
    json_error_t error;
    json_t *trace = json_load_file(in_folder("trace.json"), 0, &error);
    if (!trace)
        fail_msg("%s", error.text);
    size_t count = spans_of(trace, spans, MOST_SPANS);
    check_nesting(spans, count);
    check_dispatches(trace, "step 4");
    const span *step = find_span(spans, count, "step 4");
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        const span *part = find_span(spans, count, inside[i]);
        assert_true(part->row == step->row && part->begin >= step->begin && part->end <= step->end);
    }
    find_span(spans, count, "step 5"); /* recorded before the figures of step 4 are read */
    const double alignment = 1e3; /* of the clocks, where the device cannot read both at once */
    for (size_t i = 0; i < count; i++) /* nothing runs before it is recorded */
        assert_true(spans[i].row != CS_TRACE_DEVICE + 1 || spans[i].begin >= step->begin - alignment);
    json_decref(trace);
}

static void test_trace_of_a_step_that_is_not_trained(void **state)
{
    (void)state;
    static const char *const sets[] = {"train.steps=3"};
    bool stopped;
    const mm_train_params params = {.out = in_folder("untraced"), .trace = in_folder("none.json"), .trace_step = 4};
    assert_false(run_training(params, "all.json", sets, 1, &stopped));
    assert_error("step 4 is not one of the steps 1 to 3");
}

/* The memory that is planned is the memory that is used, with recomputation and without. */
static void test_memory_is_predicted(void **state)
{
    (void)state;
    double peak[2];
    mm_memory_plan plan[2];
    for (int recompute = 0; recompute < 2; recompute++) {
        const char *const sets[] = {"train.steps=8", "train.batch=3", "text.layers=3", "competition.rate=0.7",
                                    recompute ? "train.recompute=true" : "train.recompute=false"};
        json_t *lines[MOST_LINES];
        bool stopped;
        const mm_train_params params = with_inputs((mm_train_params){0}, "all.json", sets, 5);
        check(mm_train_plan(&params, &plan[recompute]));
        size_t count = train(recompute ? "recomputed" : "kept", sets, 5, NULL, &stopped, lines);
        peak[recompute] = number(lines[count - 1], "device_memory");
        drop(lines, count);
    }
    assert_memory_equal(&plan[0], &plan[1], sizeof plan[0]); /* a plan has both columns, whatever is configured */
    assert_true(plan[0].parameters && plan[0].gradients == plan[0].parameters);
    assert_true(plan[0].moments == 2 * plan[0].parameters);
    assert_true(plan[0].competing[0] > plan[0].routed[0] && plan[0].staging && plan[0].budget);
    assert_int_equal(plan[0].samples, 3);
    assert_int_equal(plan[0].images, 2);
    for (int recompute = 0; recompute < 2; recompute++)
        assert_float_equal((double)mm_memory_plan_peak(plan, recompute) / peak[recompute], 1, 0.1);
    double saved = 1 - (double)mm_memory_plan_peak(plan, true) / (double)mm_memory_plan_peak(plan, false);
    assert_true(saved > 0.05);
    assert_float_equal(1 - peak[1] / peak[0], saved, 0.05);
}

static void test_planning_needs_the_same_inputs(void **state)
{
    (void)state;
    mm_memory_plan plan;
    mm_train_params params = with_inputs((mm_train_params){0}, "absent.json", NULL, 0);
    assert_false(mm_train_plan(&params, &plan));
    assert_error("absent.json: cannot open");
    write_text("blind.json", "[{\"id\": \"a\", \"image\": \"absent.png\", \"conversations\": [{\"from\": "
                             "\"human\", \"value\": \"<image>\\nhow many\"}, {\"from\": \"gpt\", \"value\": "
                             "\"two\"}]}]\n");
    params = with_inputs((mm_train_params){0}, "blind.json", NULL, 0);
    assert_false(mm_train_plan(&params, &plan));
    assert_error("absent.png");
}

static int open_training(void **state)
{
    size_t size;
    if (open_world(state))
        return -1;
    const void *pieces = mm_tokenizer_model(words, &size);
    return cs_write_file(in_folder("words.model"), pieces, size) ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_accumulation_counts_every_label_once),
        cmocka_unit_test(test_precisions_agree),
        cmocka_unit_test(test_overflow_is_skipped),
        cmocka_unit_test(test_epochs_make_steps),
        cmocka_unit_test(test_asked_to_stop),
        cmocka_unit_test(test_diverging_loss_is_reported),
        cmocka_unit_test(test_one_training_at_a_time),
        cmocka_unit_test(test_diverging_run_keeps_good_weights),
        cmocka_unit_test(test_resuming_over_other_data),
        cmocka_unit_test(test_trace_shows_one_step),
        cmocka_unit_test(test_trace_of_a_step_that_is_not_trained),
        cmocka_unit_test(test_memory_is_predicted),
        cmocka_unit_test(test_planning_needs_the_same_inputs),
    };
    return cmocka_run_group_tests(tests, open_training, close_world);
}
