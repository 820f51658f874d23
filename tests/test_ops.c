/* What the walk over the operator table does not reach: the index of an embedding, tensors larger than a buffer, blocks
 * fused as on GPUs, and one tensor given to an operator twice. */
#include "tests/nn_fixture.h"

#include "nn/ffn.h"
#include "nn/ops.h"
#include "nn/selftest.h"

static nn_tape *new_tape(void)
{
    nn_tape *tape = nn_tape_new(device);
    check(tape);
    return tape;
}

static void test_embedding_index(void **state)
{
    (void)state;
    const int32_t ids[] = {7, -1, 2, 7, 2, 7, -2};
    const int32_t wanted[] = {2, 4, 0, 3, 5, -1, -1, /* starts */ 0, 2, 5, -1, -1, -1, -1, -1,
                              /* ids */ 2, 7, -1, -1, -1, -1, -1, -1};
    int32_t index[23];
    nn_embedding_index(ids, 7, index);
    assert_memory_equal(index, wanted, sizeof wanted);
    const int32_t picture_only[] = {-1}, empty[] = {-1, 0, -1, -1, -1};
    nn_embedding_index(picture_only, 1, index);
    assert_memory_equal(index, empty, sizeof empty);
}

enum { ROWS = 301, COLS = 24 };

/* Values and gradient of a few operators over [ROWS, COLS]; returns the dispatches it took. */
static uint64_t run_chain(const float *host, float *values, float *gradient)
{
    nn_tape *tape = new_tape();
    uint64_t before = vk_counters_get(device).dispatches;
    nn_tensor *x = nn_watch(nn_input(tape, NN_F32, 2, (int64_t[]){ROWS, COLS}, host));
    nn_tensor *y = nn_keep(nn_softmax(tape, nn_add(tape, x, nn_activate(tape, x, NN_SILU))));
    nn_root root = {y, 0, host};
    check(y && nn_tape_run(tape, &root, 1) && nn_read(tape, y, values) && nn_read_grad(tape, x, gradient));
    nn_tape_free(&tape);
    return vk_counters_get(device).dispatches - before;
}

/* On a device that binds little, a tensor is cut into slices; the result must not show where. */
static void test_slices(void **state)
{
    (void)state;
    static float host[ROWS * COLS], whole[2][ROWS * COLS], sliced[2][ROWS * COLS];
    fill_normal(host, ROWS * COLS, 5);
    vk_caps *caps = (vk_caps *)vk_device_caps(device);
    uint64_t range = caps->max_storage_range;
    uint64_t few = run_chain(host, whole[0], whole[1]);
    caps->max_storage_range = 4096;
    uint64_t many = run_chain(host, sliced[0], sliced[1]);
    caps->max_storage_range = range;
    assert_true(many >= few * 7); /* 28,896 bytes in slices of 4,096 */
    assert_memory_equal(whole, sliced, sizeof whole);
}

static void test_row_too_long_for_device(void **state)
{
    (void)state;
    static float host[2048];
    vk_caps *caps = (vk_caps *)vk_device_caps(device);
    uint64_t range = caps->max_storage_range;
    nn_tape *tape = new_tape();
    nn_tensor *y = nn_softmax(tape, nn_input(tape, NN_F32, 2, (int64_t[]){1, 2048}, host));
    caps->max_storage_range = 4096;
    assert_false(nn_tape_run(tape, NULL, 0) || !y);
    caps->max_storage_range = range;
    assert_error("do not fit a buffer of this device");
    nn_tape_free(&tape);
}

/* Whether the operator's cases in f32 pass, as the selftest runs them. */
static bool cases_pass(const char *op)
{
    nn_selftest_result result = {0};
    FILE *lines = tmpfile();
    assert_non_null(lines);
    bool ok = nn_selftest(device, &(nn_selftest_params){.op = op, .f32_only = true}, lines, &result);
    fclose(lines);
    bool good = ok && !result.failed && result.passed;
    if (!good)
        print_error("%s: %d passed, %d failed %s\n", op, result.passed, result.failed, ok ? "" : cs_error());
    return good;
}

/* Products that activate and gate what they make, as on GPUs: a CPU driver's selftest does without. */
static void test_fused_blocks(void **state)
{
    static const char *const ops[] = {"ffn", "grouped_ffn"};
    (void)state;
    bool good = true;
    nn_ffn_prefer_fused(true);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        good &= cases_pass(ops[i]);
    nn_ffn_prefer_fused(false);
    assert_true(good);
}

/* On a device that cannot bind the outputs of all experts at once, their affinities are found expert by expert. */
static void test_competition_by_expert(void **state)
{
    (void)state;
    vk_caps *caps = (vk_caps *)vk_device_caps(device);
    uint64_t range = caps->max_storage_range;
    if (caps->storage_align > 64 || caps->texel_align > 64)
        skip(); /* products of so few rows cannot be cut where these begin */
    caps->max_storage_range = 8192; /* the first case makes 8,448 bytes */
    bool good = cases_pass("competition");
    caps->max_storage_range = range;
    assert_true(good);
}

/* A score that is no number makes a loss that is none, wherever it stands in its row. */
static void test_loss_of_no_number(void **state)
{
    (void)state;
    enum { COLUMNS = 40 };
    static const int32_t label = 3;
    for (int at = 0; at < COLUMNS; at += 13) {
        float x[COLUMNS] = {0}, loss;
        x[at] = NAN;
        nn_tape *tape = new_tape();
        nn_tensor *scores = nn_input(tape, NN_F32, 2, (int64_t[]){1, COLUMNS}, x);
        nn_tensor *y =
            nn_keep(nn_cross_entropy(tape, scores, nn_input(tape, NN_I32, 1, (int64_t[]){1}, &label), 1, NULL));
        check(y && nn_tape_run(tape, NULL, 0) && nn_read(tape, y, &loss));
        assert_true(isnan(loss));
        nn_tape_free(&tape);
    }
}

static void test_one_tensor_twice(void **state)
{
    (void)state;
    static float host[ROWS * COLS], gradient[ROWS * COLS];
    fill_normal(host, ROWS * COLS, 6);
    nn_tape *tape = new_tape();
    nn_tensor *x = nn_watch(nn_input(tape, NN_F32, 2, (int64_t[]){ROWS, COLS}, host));
    nn_tensor *y = nn_add(tape, nn_add(tape, x, x), nn_gated(tape, x, x, NN_RELU));
    nn_root root = {y, 1, NULL};
    check(y && nn_tape_run(tape, &root, 1) && nn_read_grad(tape, x, gradient));
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(fabsf(gradient[i] - (2 + 2 * fmaxf(host[i], 0))) < 1e-5f);
    nn_tape_free(&tape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding_index),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_row_too_long_for_device),
        cmocka_unit_test(test_fused_blocks),
        cmocka_unit_test(test_competition_by_expert),
        cmocka_unit_test(test_one_tensor_twice),
        cmocka_unit_test(test_loss_of_no_number),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
