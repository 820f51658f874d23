/* Checkpoints and run folders: bits survive, faults are named, and whatever goes wrong leaves the old checkpoint whole.
 */
#include "tests/model_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "nn/safetensors.h"

enum { LAYERS = 2, STEPS = 5 };

static const struct {
    const char *name;
    int64_t rows, cols;
} shapes[] = {{"first.weight", 7, 9}, {"first.bias", 1, 9}, {"second.weight", 64, 3}, {"frozen.weight", 4, 4}};

enum { SHAPES = sizeof shapes / sizeof *shapes };

/* `count` of the shapes, drawn from the seed; "frozen" is. */
static nn_params *make_set(int count, uint64_t seed)
{
    nn_params *set = nn_params_new(device);
    for (int i = 0; i < count; i++)
        check(nn_param_add(set, shapes[i].name, 2, (int64_t[]){shapes[i].rows, shapes[i].cols}, NN_INIT_NORMAL, 1,
                           i != 1));
    nn_params_freeze(set, "frozen");
    check(nn_params_allocate(set, true, seed));
    return set;
}

static void fill_moments(nn_params *set, uint64_t seed)
{
    for (size_t i = 0; i < nn_params_count(set); i++) {
        const nn_param *p = nn_params_at(set, i);
        float values[64 * 3];
        for (int which = 2; p->trainable && which < 4; which++) {
            fill_normal(values, (size_t)nn_count(&p->tensor), seed + 10 * i + (uint64_t)which);
            check(nn_param_write(set, p, which, values));
        }
    }
}

static void assert_same(nn_params *a, nn_params *b, int first, int last)
{
    for (size_t i = 0; i < nn_params_count(a); i++) {
        const nn_param *p = nn_params_at(a, i), *q = nn_params_at(b, i);
        float x[64 * 3], y[64 * 3];
        for (int which = first; which <= last && (p->trainable || !which); which++) {
            check(nn_param_read(a, p, which, x) && nn_param_read(b, q, which, y));
            assert_memory_equal(x, y, (size_t)nn_count(&p->tensor) * sizeof *x);
        }
    }
}

/* ---- the files -------------------------------------------------------------------------------------------------- */

static void test_parameters_survive(void **state)
{
    (void)state;
    nn_params *a = make_set(SHAPES, 1), *b = make_set(SHAPES, 2);
    const float odd[] = {-0.0f, 1e-42f, INFINITY, 3.4028235e38f, -1e-45f, 0.1f, 7, 8, 9};
    check(nn_param_write(a, nn_params_find(a, "first.bias"), NN_VALUE, odd));
    check(nn_params_save(a, in_folder("p.safetensors")) && nn_params_load(b, in_folder("p.safetensors")));
    assert_same(a, b, 0, 0);
    nn_params_free(&a);
    nn_params_free(&b);
}

static void test_wrong_parameters_are_named(void **state)
{
    (void)state;
    nn_params *all = make_set(SHAPES, 1), *three = make_set(3, 1), *other = nn_params_new(device);
    check(nn_params_save(all, in_folder("p.safetensors")) && nn_params_save(three, in_folder("three.safetensors")));
    assert_false(nn_params_load(three, in_folder("p.safetensors")));
    assert_error("p.safetensors: tensor 'frozen.weight' does not belong");
    assert_false(nn_params_load(all, in_folder("three.safetensors")));
    assert_error("three.safetensors: ");
    assert_error("'frozen.weight'");
    check(nn_param_add(other, "first.weight", 2, (int64_t[]){9, 7}, NN_INIT_ZERO, 0, true) &&
          nn_params_allocate(other, false, 1));
    assert_false(nn_params_load(other, in_folder("p.safetensors")));
    assert_error("p.safetensors: ");
    assert_error("'first.weight'");
    assert_false(nn_params_load(all, in_folder("missing.safetensors")));
    assert_error("missing.safetensors: ");
    nn_params_free(&all);
    nn_params_free(&three);
    nn_params_free(&other);
}

static void test_truncated_files_are_refused(void **state)
{
    (void)state;
    nn_params *set = make_set(SHAPES, 1);
    size_t size;
    check(nn_params_save(set, in_folder("p.safetensors")));
    char *bytes = cs_read_file(in_folder("p.safetensors"), 1 << 20, &size);
    assert_non_null(bytes);
    for (size_t kept = 0; kept < size; kept += kept < 32 ? 1 : size / 7) {
        check(cs_write_file(in_folder("short.safetensors"), bytes, kept));
        assert_false(nn_params_load(set, in_folder("short.safetensors")));
        assert_error("short.safetensors: ");
    }
    free(bytes);
    nn_params_free(&set);
}

static void test_training_state_survives(void **state)
{
    (void)state;
    nn_params *a = make_set(SHAPES, 1), *b = make_set(SHAPES, 1);
    fill_moments(a, 3);
    uint8_t schedule[LAYERS * STEPS] = {0, 1, 1, 0, 1, 1, 0, 0, 0, 1};
    const nn_train_state saved = {.step = 5000000000,
                                  .seed = 9000000000000000,
                                  .schedule = schedule,
                                  .schedule_layers = LAYERS,
                                  .schedule_steps = STEPS,
                                  .schedule_first = 12};
    nn_train_state loaded;
    check(nn_train_state_save(a, &saved, in_folder("t.safetensors")) &&
          nn_train_state_load(b, &loaded, in_folder("t.safetensors")));
    assert_same(a, b, 2, 3);
    assert_true(loaded.step == saved.step && loaded.seed == saved.seed && loaded.schedule_first == 12);
    assert_true(loaded.schedule_layers == LAYERS && loaded.schedule_steps == STEPS);
    assert_memory_equal(loaded.schedule, schedule, sizeof schedule);
    free(loaded.schedule);
    check(nn_train_state_save(a, &(nn_train_state){.step = 1}, in_folder("t.safetensors")));
    check(nn_train_state_load(b, &loaded, in_folder("t.safetensors")));
    assert_true(loaded.step == 1 && !loaded.schedule);
    check(nn_params_save(a, in_folder("p.safetensors")));
    assert_false(nn_train_state_load(b, &loaded, in_folder("p.safetensors")));
    assert_error("p.safetensors: metadata 'step' is missing");
    nn_params_free(&a);
    nn_params_free(&b);
}

/* ---- run folders ------------------------------------------------------------------------------------------------ */

static const variant small = {"small", {"text.moe.experts=3"}, false};

static void save_step(const char *run, subject *s, uint64_t step, int keep)
{
    check(mm_run_save(run, s->loaded.model, s->loaded.tokenizer, &(nn_train_state){.step = step}, keep));
}

static void assert_newest(const char *run, const char *name)
{
    char *newest = mm_run_checkpoint(run);
    check(newest);
    assert_string_equal(strrchr(newest, '/') + 1, name);
    free(newest);
}

static bool exists(const char *run, const char *name)
{
    char *path = cs_join(run, name);
    bool there = cs_is_folder(path) || cs_is_file(path);
    free(path);
    return there;
}

static void test_run_folder(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &small, NULL, "text.json");
    const char *run = in_folder("deep/er/run");
    assert_false(mm_run_exists(run));
    assert_null(mm_run_checkpoint(run));
    assert_error("run: there is no such run folder");
    check(mm_run_prepare(run));
    assert_null(mm_run_checkpoint(run));
    assert_error("has no checkpoint");
    save_step(run, &s, 99, 2);
    save_step(run, &s, 100, 2);
    assert_newest(run, "step-00000100");
    save_step(run, &s, 1000000000, 2);
    assert_newest(run, "step-1000000000");
    assert_true(!exists(run, "step-00000099") && exists(run, "step-00000100"));
    save_step(run, &s, 1000000000, 1);
    assert_false(exists(run, "step-00000100"));
    /* Not checkpoints: names that only look alike, and what an interrupted save left. */
    char *left = cs_join(run, "step-2000000000.tmp-7"), *alike = cs_join(run, "step-best");
    check(cs_make_folder(left) && cs_make_folder(alike));
    assert_newest(run, "step-1000000000");
    check(mm_run_clear(run));
    assert_true(!cs_is_folder(left) && cs_is_folder(alike));
    free(left);
    free(alike);
    /* The run's own configuration may lie beside them. */
    char *config = cs_join(run, "config.json");
    check(cs_write_file(config, "{}", 2));
    assert_newest(run, "step-1000000000");
    free(config);
    /* A checkpoint's own folder will do. */
    char *itself = mm_run_checkpoint(run), *same = mm_run_checkpoint(itself);
    check(same);
    assert_string_equal(itself, same);
    assert_false(mm_checkpoint_write(itself, s.loaded.model, s.loaded.tokenizer, NULL));
    assert_error("exists already");
    free(itself);
    free(same);
    drop_subject(&s);
}

static void test_a_loaded_model_is_the_saved_one(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &small, NULL, "all.json");
    train_steps(&s, &small, 0, 10, 2e-2f);
    save_step(in_folder("loaded"), &s, 10, 1);
    mm_loaded l;
    check(mm_load(&l, in_folder("loaded"), device, NULL, 0));
    size_t count, again;
    float *a = all_parameters(s.loaded.model->params, &count), *b = all_parameters(l.model->params, &again);
    assert_int_equal(count, again);
    assert_memory_equal(a, b, count * sizeof *a);
    mm_evaluation before, after;
    const mm_evaluate_params params = {.data = in_folder("all.json"), .batch = 3};
    check(mm_evaluate(&s.loaded, &params, &before) && mm_evaluate(&l, &params, &after));
    assert_true(before.loss == after.loss && before.exact == after.exact && before.labels == after.labels);
    free(a);
    free(b);
    mm_unload(&l);
    drop_subject(&s);
}

static void assert_load_fails(const char *run, const char *message)
{
    mm_loaded l;
    assert_false(mm_load(&l, run, device, NULL, 0));
    assert_error(message);
    mm_unload(&l);
}

static void test_damaged_checkpoints(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &small, NULL, "text.json");
    save_step(in_folder("damaged"), &s, 1, 1);
    char *checkpoint = mm_run_checkpoint(in_folder("damaged"));
    check(checkpoint);
    static const struct {
        const char *file, *text, *message;
    } faults[] = {
        {"tokenizer.model", "no model", "tokenizer.model"},
        {"model.safetensors", "", "model.safetensors: "},
        {"config.json", "{\"text\": {\"width\": 32}}", "model.safetensors: "},
        {"config.json", "{\"text\": {\"width\": }}", "config.json:1"},
        {"config.json", "{\"text\": {\"widht\": 32}}", "did you mean 'width'"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        char *path = cs_join(checkpoint, faults[i].file);
        size_t size;
        char *whole = cs_read_file(path, 1 << 24, &size);
        check(whole && cs_write_file(path, faults[i].text, strlen(faults[i].text)));
        assert_load_fails(in_folder("damaged"), faults[i].message);
        check(cs_write_file(path, whole, size));
        free(whole);
        free(path);
    }
    mm_loaded l;
    check(mm_load(&l, in_folder("damaged"), device, NULL, 0));
    mm_unload(&l);
    free(checkpoint);
    drop_subject(&s);
}

/* A limit on the size of files stands in for a full disk, at every file of the checkpoint that is too large for it. */
static void test_full_disk(void **state)
{
    (void)state;
    subject s;
    make_subject(&s, &small, NULL, "text.json");
    const char *run = in_folder("full");
    save_step(run, &s, 1, 1);
    size_t count, again;
    float *saved = all_parameters(s.loaded.model->params, &count);
    train_steps(&s, &small, 0, 1, 1e-2f);
    struct rlimit was, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t limits[] = {0, 100, 5000, 60000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit = (struct rlimit){limits[i], was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        bool ok = mm_run_save(run, s.loaded.model, s.loaded.tokenizer, &(nn_train_state){.step = 2}, 1);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_false(ok);
        assert_error("cannot write: File too large");
        assert_newest(run, "step-00000001");
        char *left = cs_join(run, "step-00000002");
        assert_false(cs_is_folder(left));
        free(left);
    }
    mm_loaded l;
    check(mm_load(&l, run, device, NULL, 0));
    float *old = all_parameters(l.model->params, &again);
    assert_memory_equal(saved, old, count * sizeof *old);
    free(saved);
    free(old);
    mm_unload(&l);
    save_step(run, &s, 2, 1);
    assert_newest(run, "step-00000002");
    drop_subject(&s);
}

static void test_unwritable_folders(void **state)
{
    (void)state;
    write_text("file", "");
    assert_false(mm_run_prepare(in_folder("file")));
    assert_error("file: is a file, not a folder");
    assert_false(mm_run_prepare(in_folder("file/run")));
    assert_error("cannot make the folder");
    assert_false(mm_run_prepare("/proc/self/run"));
    assert_error("/proc/self/run: cannot make the folder");
    if (geteuid() == 0) /* may write everywhere */
        return;
    check(cs_make_folder(in_folder("closed")));
    chmod(in_folder("closed"), 0500);
    assert_false(mm_run_prepare(in_folder("closed")));
    assert_error("closed: the folder is not writable");
    chmod(in_folder("closed"), 0700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_survive),
        cmocka_unit_test(test_wrong_parameters_are_named),
        cmocka_unit_test(test_truncated_files_are_refused),
        cmocka_unit_test(test_training_state_survives),
        cmocka_unit_test(test_run_folder),
        cmocka_unit_test(test_a_loaded_model_is_the_saved_one),
        cmocka_unit_test(test_damaged_checkpoints),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_unwritable_folders),
    };
    return cmocka_run_group_tests(tests, open_world, close_world);
}
