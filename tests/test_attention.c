/* Attention: the kernels that this device would not choose by itself, the cache's content, generation against
 * training. */
#include "tests/nn_fixture.h"

#include "nn/attention_internal.h"

static nn_tape *tape;

static int set_up(void **state)
{
    return open_device(state) || !(tape = nn_tape_new(device)) ? -1 : 0;
}

static int tear_down(void **state)
{
    nn_tape_free(&tape);
    return close_device(state);
}

/* Every third row, in slots of which every fourth is empty. */
typedef struct picks {
    int32_t rows[64], slots[64];
    int64_t count, room;
} picks;

static picks every_third(int64_t rows)
{
    picks p = {0};
    for (int64_t i = 1; i < rows; i += 3) {
        if (p.room % 4 == 0)
            p.slots[p.room++] = -1;
        p.slots[p.room++] = (int32_t)p.count;
        p.rows[p.count++] = (int32_t)i;
    }
    return p;
}

/* Output and gradient of one attention over random values, in that type, all gradients of the output 1; of all rows
 * without `picks`. */
static void attend(nn_attention_params p, enum nn_dtype type, int64_t rows, const float *qkv, const int32_t *segments,
                   const picks *picks, float *y, float *dqkv)
{
    int64_t cols = (p.heads + 2 * p.kv_heads) * p.head_dim;
    nn_tape_reset(tape);
    nn_tensor *x = nn_watch(nn_input(tape, NN_F32, 3, (int64_t[]){1, rows, cols}, qkv));
    nn_tensor *s = segments ? nn_input(tape, NN_I32, 2, (int64_t[]){1, rows}, segments) : NULL;
    nn_tensor *picked = picks ? nn_input(tape, NN_I32, 1, &picks->count, picks->rows) : NULL;
    nn_tensor *slots = picks ? nn_input(tape, NN_I32, 2, (int64_t[]){1, picks->room}, picks->slots) : NULL;
    nn_tensor *out = nn_attention_picked(tape, nn_cast(tape, x, type), s, picked, slots, p);
    check(out);
    assert_int_equal(out->dtype, type);
    out = nn_keep(nn_cast(tape, out, NN_F32));
    check(out && nn_tape_run(tape, &(nn_root){.tensor = out, .weight = 1}, 1));
    check(nn_read(tape, out, y) && nn_read_grad(tape, x, dqkv));
}

static void compare_kernels(nn_attention_params p, enum nn_dtype type, int64_t rows, const int32_t *segments,
                            const picks *picks)
{
    enum { MOST = 4096 };
    static float qkv[MOST], y[2][MOST], dqkv[2][MOST];
    int64_t n = rows * (p.heads + 2 * p.kv_heads) * p.head_dim;
    cs_random r = {.seed = 4, .stream = CS_STREAM_NAMED};
    assert_true(n <= MOST);
    for (int64_t i = 0; i < n; i++)
        qkv[i] = cs_random_normal(&r);
    for (int shared = 0; shared < 2; shared++) {
        nn_attention_prefer_shared(shared);
        attend(p, type, rows, qkv, segments, picks, y[shared], dqkv[shared]);
    }
    nn_attention_prefer_shared(false);
    /* Sums in another order may round to the neighbour: 2^-11 of values up to 4, gradients up to 8. */
    float close = type == NN_F32 ? 1e-5f : 4e-3f;
    for (int64_t i = 0; i < (picks ? picks->count : rows) * p.heads * p.head_dim; i++)
        assert_true(fabsf(y[0][i] - y[1][i]) < close);
    for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(dqkv[0][i] - dqkv[1][i]) < (type == NN_F32 ? 1e-4f : 8e-3f));
}

/* The selftest covers the kernels of this device's choice; the others must agree with them. */
static void shared_memory_kernels(void **state)
{
    (void)state;
    int32_t segments[50];
    for (int i = 0; i < 50; i++)
        segments[i] = i < 15 ? 0 : i > 47 ? -1 : 1 + (i - 15) / 4;
    const nn_attention_params grouped = {
        .heads = 4, .kv_heads = 2, .head_dim = 8, .causal = true, .open_prefix = true};
    const nn_attention_params one = {.heads = 1, .kv_heads = 1, .head_dim = 40, .causal = true};
    const picks few = every_third(9), many = every_third(50);
    compare_kernels(grouped, NN_F32, 50, segments, NULL);
    compare_kernels(grouped, NN_F16, 50, segments, NULL);
    compare_kernels(grouped, NN_F32, 50, segments, &many);
    compare_kernels(grouped, NN_F16, 50, segments, &many);
    compare_kernels(one, NN_F32, 9, NULL, NULL);
    compare_kernels(one, NN_F32, 9, NULL, &few);
}

static void plans_fit_every_device(void **state)
{
    (void)state;
    static const vk_caps kinds[] = {
        {.subgroup_size = 4, .subgroup_min = 4, .subgroup_max = 4, .subgroup_shuffle = true, .max_invocations = 256},
        {.subgroup_size = 8, .subgroup_min = 8, .subgroup_max = 8, .subgroup_shuffle = true, .max_invocations = 1024},
        {.subgroup_size = 32, .subgroup_min = 8, .subgroup_max = 32, .subgroup_shuffle = true, .max_invocations = 1024},
        {.subgroup_size = 64, .subgroup_min = 64, .subgroup_max = 64, .max_invocations = 1024},
        {.subgroup_size = 1, .subgroup_min = 1, .subgroup_max = 1, .max_invocations = 128},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int kernel = NN_ATTENTION_FORWARD; kernel <= NN_ATTENTION_BACKWARD_KEY; kernel++)
            for (uint32_t width = 1; width <= 32; width++) {
                bool half = width % 2 == 0 && kernel == NN_ATTENTION_FORWARD;
                nn_attention_plan p =
                    nn_attention_plan_for(&kinds[i], kernel, 4 * (int)width, half ? NN_BF16 : NN_F32);
                assert_true(!half || p.chunk % 2 == 0);
                assert_int_equal(p.chunk * p.chunks, width);
                assert_int_equal(p.tile % p.block, 0);
                assert_true(p.lanes <= kinds[i].max_invocations);
                assert_true(p.shuffle ? p.tile == p.lanes : p.tile * width * 32 + p.lanes * 16 < 16384);
            }
}

static void refuse_picks(const char *message, int64_t picked, int64_t slots)
{
    static const float values[2 * 4 * 12];
    static const int32_t ids[16];
    nn_tape_reset(tape);
    nn_tensor *x = nn_input(tape, NN_F32, 3, (int64_t[]){2, 4, 12}, values);
    nn_tensor *r = nn_input(tape, NN_I32, 1, &picked, ids), *s = slots ? nn_input(tape, NN_I32, 1, &slots, ids) : NULL;
    const nn_attention_params p = {.heads = 1, .kv_heads = 1, .head_dim = 4};
    assert_null(nn_attention_picked(tape, x, NULL, r, s, p));
    if (!strstr(cs_error(), message))
        fail_msg("\"%s\" is not in \"%s\"", message, cs_error());
    nn_tape_reset(tape);
}

static void wrong_picks(void **state)
{
    (void)state;
    refuse_picks("must both be integers", 3, 0);
    refuse_picks("5 slots cannot hold 3 picked rows of 2 sequences", 3, 5);
    refuse_picks("4 slots cannot hold 5 picked rows of 2 sequences", 5, 4);
}

enum { TOKENS = 11, WIDTH = 32, HEADS = 4, KEY_HEADS = 2, DIM = 4 };
static const nn_attention_params params = {.heads = HEADS, .kv_heads = KEY_HEADS, .head_dim = DIM, .causal = true};

/* Runs tokens past .. past + n - 1 of `qkv` against the caches. */
static void step(const float *qkv, vk_range k, vk_range v, int past, int n, float *y)
{
    nn_tape_reset(tape);
    nn_tensor *x = nn_input(tape, NN_F32, 2, (int64_t[]){n, WIDTH}, qkv + past * WIDTH);
    nn_tensor *cache[2];
    const vk_range range[2] = {k, v};
    for (int i = 0; i < 2; i++)
        cache[i] = nn_external(tape, NN_F32, 2, (int64_t[]){TOKENS, KEY_HEADS * DIM}, range[i]);
    nn_tensor *out = nn_keep(nn_attention_cached(tape, x, cache[0], cache[1], params, past, 0));
    check(out && nn_tape_run(tape, NULL, 0) && nn_read(tape, out, y + past * HEADS * DIM));
}

static void generation_equals_training(void **state)
{
    (void)state;
    float qkv[TOKENS * WIDTH], whole[TOKENS * HEADS * DIM], parts[TOKENS * HEADS * DIM],
        cached[TOKENS * KEY_HEADS * DIM];
    cs_random r = {.seed = 3, .stream = CS_STREAM_NAMED};
    for (int i = 0; i < TOKENS * WIDTH; i++)
        qkv[i] = cs_random_normal(&r);
    vk_range k = vk_alloc(device, sizeof cached, VK_MEMORY_DEVICE, "keys");
    vk_range v = vk_alloc(device, sizeof cached, VK_MEMORY_DEVICE, "values");
    check(k.block && v.block);

    nn_tensor *x = nn_input(tape, NN_F32, 3, (int64_t[]){1, TOKENS, WIDTH}, qkv);
    nn_tensor *out = nn_keep(nn_attention(tape, x, NULL, params));
    check(out && nn_tape_run(tape, NULL, 0) && nn_read(tape, out, whole));

    step(qkv, k, v, 0, 6, parts);
    for (int t = 6; t < TOKENS; t++)
        step(qkv, k, v, t, 1, parts);
    for (int i = 0; i < TOKENS * HEADS * DIM; i++)
        assert_true(fabsf(whole[i] - parts[i]) < 1e-5f);
    nn_tape_reset(tape);
    for (int which = 0; which < 2; which++) {
        vk_range range = which ? v : k;
        range.size = sizeof cached;
        check(vk_read(device, range, cached, sizeof cached));
        for (int t = 0; t < TOKENS; t++)
            assert_memory_equal(cached + t * KEY_HEADS * DIM, qkv + t * WIDTH + (HEADS + which * KEY_HEADS) * DIM,
                                KEY_HEADS * DIM * sizeof(float));
    }
    vk_free(device, &k);
    vk_free(device, &v);
}

static void refuse(const char *message, int cols, int64_t segments, nn_attention_params p)
{
    static const float values[2 * 7 * 64];
    static const int32_t ids[64];
    nn_tape_reset(tape);
    nn_tensor *x = nn_input(tape, NN_F32, 3, (int64_t[]){2, 7, cols}, values);
    nn_tensor *s = segments ? nn_input(tape, NN_I32, 1, &segments, ids) : NULL;
    assert_null(nn_attention(tape, x, s, p));
    if (!strstr(cs_error(), message))
        fail_msg("\"%s\" is not in \"%s\"", message, cs_error());
    nn_tape_reset(tape);
}

static void wrong_shapes(void **state)
{
    (void)state;
    refuse("3 heads cannot share 2 key heads", 28, 0, (nn_attention_params){.heads = 3, .kv_heads = 2, .head_dim = 4});
    refuse("head_dim is 6", 18, 0, (nn_attention_params){.heads = 1, .kv_heads = 1, .head_dim = 6});
    refuse("rows of 16 elements", 16, 0, (nn_attention_params){.heads = 1, .kv_heads = 1, .head_dim = 4});
    refuse("segments must be 14 integers", 12, 13, (nn_attention_params){.heads = 1, .kv_heads = 1, .head_dim = 4});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shared_memory_kernels, set_up, tear_down),
        cmocka_unit_test(plans_fit_every_device),
        cmocka_unit_test_setup_teardown(generation_equals_training, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_shapes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_picks, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
