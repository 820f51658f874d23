/* The tape: liveness, recomputation, views, roots, dry runs and errors. */
#include "nn/ops.h"
#include "tests/nn_fixture.h"

enum { ROWS = 32, COLS = 64, COUNT = ROWS * COLS, BYTES = COUNT * 4 };

static const int64_t shape[] = {ROWS, COLS};
static nn_tape *tape;
static float values[COUNT];

static int open_tape(void **state)
{
    fill_normal(values, COUNT, 1);
    return open_device(state) || !(tape = nn_tape_new(device)) ? -1 : 0;
}

static int close_tape(void **state)
{
    nn_tape_free(&tape);
    return close_device(state);
}

static int reset(void **state)
{
    (void)state;
    nn_tape_reset(tape);
    vk_dry(device, false);
    return 0;
}

static nn_tensor *input(void)
{
    return nn_input(tape, NN_F32, 2, shape, values);
}

static nn_tensor *ones(void)
{
    static float one[COUNT];
    for (int i = 0; i < COUNT; i++)
        one[i] = 1;
    return nn_input(tape, NN_F32, 2, shape, one);
}

/* Bytes of device memory above `before` at the highest point since the last reset of the peak. */
static uint64_t peak_since(uint64_t before)
{
    return vk_memory_get(device).peak - before;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void test_chain_holds_two_tensors(void **state)
{
    (void)state;
    uint64_t before = used_memory();
    vk_memory_reset_peak(device);
    nn_tensor *x = input();
    for (int i = 0; i < 20; i++)
        x = nn_activate(tape, x, NN_GELU_TANH);
    nn_keep(x);
    check(nn_tape_run(tape, NULL, 0));
    assert_int_equal(peak_since(before), 2 * BYTES);
    assert_int_equal(used_memory() - before, BYTES);
    nn_tape_reset(tape);
    assert_int_equal(used_memory(), before);
}

static void test_output_nobody_reads_goes_at_once(void **state)
{
    (void)state;
    uint64_t before = used_memory();
    vk_memory_reset_peak(device);
    nn_tensor *x = input();
    for (int i = 0; i < 8; i++)
        nn_activate(tape, x, NN_RELU);
    check(nn_tape_run(tape, NULL, 0));
    assert_int_equal(peak_since(before), 2 * BYTES);
    assert_int_equal(used_memory(), before);
}

static void test_kept_tensor_survives(void **state)
{
    (void)state;
    nn_tensor *x = input(), *first = nn_keep(nn_add(tape, x, x)), *y = first, *lost = NULL;
    for (int i = 0; i < 6; i++)
        lost = y = nn_add(tape, y, y);
    nn_tensor *last = nn_keep(nn_add(tape, y, x));
    check(nn_tape_run(tape, NULL, 0));
    static float got[COUNT];
    check(nn_read(tape, first, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == 2 * values[i]);
    check(nn_read(tape, last, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == 128 * values[i] + values[i]);
    assert_false(nn_read(tape, lost, got));
    assert_error("not kept");
}

/* Forward keeps the inputs that backward reads; backward gives each back as soon as it is read. */
static void test_backward_returns_memory(void **state)
{
    (void)state;
    enum { DEPTH = 8 };
    uint64_t before = used_memory();
    vk_memory_reset_peak(device);
    nn_tensor *x = nn_watch(input()), *y = x;
    for (int i = 0; i < DEPTH; i++)
        y = nn_activate(tape, y, NN_GELU_ERF);
    check(nn_tape_run(tape, &(nn_root){y, 1, NULL}, 1));
    /* The inputs of all layers and two gradients, of which the seed replaces the last output. */
    assert_in_range(peak_since(before), (DEPTH + 1) * BYTES, (DEPTH + 2) * BYTES);
    assert_int_equal(used_memory() - before, BYTES); /* the watched gradient */
}

/* ---- recomputation ---------------------------------------------------------------------------------------------- */

typedef struct outcome {
    float y[COUNT], gradient[COUNT];
    uint64_t peak;
} outcome;

static void run_layers(bool recompute, outcome *o)
{
    uint64_t before = used_memory();
    vk_memory_reset_peak(device);
    nn_tensor *x = nn_watch(input()), *y = x;
    for (int layer = 0; layer < 6; layer++) {
        if (recompute)
            nn_recompute_begin(tape);
        nn_tensor *h = y;
        for (int i = 0; i < 4; i++)
            h = nn_activate(tape, h, i & 1 ? NN_SILU : NN_GELU_TANH);
        y = nn_add(tape, y, nn_gated(tape, h, y, NN_SILU));
        if (recompute)
            nn_recompute_end(tape);
    }
    nn_keep(y);
    check(nn_tape_run(tape, &(nn_root){y, 0.5f, NULL}, 1));
    check(nn_read(tape, y, o->y) && nn_read_grad(tape, x, o->gradient));
    o->peak = peak_since(before);
    nn_tape_reset(tape);
    assert_int_equal(used_memory(), before);
}

static void test_recomputation_is_exact_and_smaller(void **state)
{
    (void)state;
    static outcome kept, recomputed;
    run_layers(false, &kept);
    run_layers(true, &recomputed);
    assert_memory_equal(kept.y, recomputed.y, BYTES);
    assert_memory_equal(kept.gradient, recomputed.gradient, BYTES);
    assert_true(recomputed.peak * 2 < kept.peak);
}

/* Random graphs: reshapes, tensors used often or never, branches without gradient, segments anywhere. Neither
 * recomputation nor releasing memory may change a bit. */
enum graph_mode { GRAPH_KEEP_ALL, GRAPH_RELEASE, GRAPH_RECOMPUTE };

static void run_graph(uint64_t seed, enum graph_mode mode, outcome *o)
{
    enum { NODES = 24 };
    cs_random r = {.seed = seed, .stream = 5};
    nn_tensor *made[NODES + 2], *x = nn_watch(input());
    made[0] = x;
    made[1] = ones();
    uint32_t left = 0; /* nodes left in the open segment */
    for (int i = 2; i < NODES + 2; i++) {
        uint32_t size = cs_random_below(&r, 5);
        if (!left && size && mode == GRAPH_RECOMPUTE)
            nn_recompute_begin(tape);
        left = left ? left : size;
        nn_tensor *a = made[cs_random_below(&r, (uint32_t)i)], *b = made[cs_random_below(&r, (uint32_t)i)], *y;
        switch (cs_random_below(&r, 5)) {
        case 0:
            y = nn_add(tape, a, b);
            break;
        case 1:
            y = nn_gated(tape, a, b, NN_SILU);
            break;
        case 2:
            y = nn_rms_norm(tape, a, nn_reshape(tape, nn_input(tape, NN_F32, 1, &shape[1], values), 1, &shape[1]),
                            1e-5f);
            break;
        case 3:
            y = nn_reshape(tape, nn_softmax(tape, nn_reshape(tape, a, 2, (int64_t[]){COLS, ROWS})), 2, shape);
            break;
        default:
            y = nn_activate(tape, a, NN_GELU_ERF);
        }
        made[i] = y;
        if (mode == GRAPH_KEEP_ALL)
            nn_keep(y);
        if (left && !--left && mode == GRAPH_RECOMPUTE)
            nn_recompute_end(tape);
    }
    nn_recompute_end(tape);
    nn_tensor *y = nn_keep(nn_add(tape, made[NODES + 1], made[NODES / 2]));
    check(nn_tape_run(tape, &(nn_root){y, 1, NULL}, 1));
    check(nn_read(tape, y, o->y) && nn_read_grad(tape, x, o->gradient));
    nn_tape_reset(tape);
}

static void test_random_graphs(void **state)
{
    (void)state;
    static outcome whole, released, recomputed;
    uint64_t before = used_memory();
    for (uint64_t seed = 0; seed < 20; seed++) {
        run_graph(seed, GRAPH_KEEP_ALL, &whole);
        run_graph(seed, GRAPH_RELEASE, &released);
        run_graph(seed, GRAPH_RECOMPUTE, &recomputed);
        assert_memory_equal(whole.y, released.y, BYTES);
        assert_memory_equal(whole.gradient, released.gradient, BYTES);
        assert_memory_equal(whole.y, recomputed.y, BYTES);
        assert_memory_equal(whole.gradient, recomputed.gradient, BYTES);
        assert_int_equal(used_memory(), before);
    }
}

/* ---- gradients -------------------------------------------------------------------------------------------------- */

static void assert_gradient(const nn_tensor *x, double expected)
{
    static float got[COUNT];
    check(nn_read_grad(tape, x, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == (float)expected);
}

static void test_view_shares_data_and_gradient(void **state)
{
    (void)state;
    nn_tensor *x = nn_watch(input());
    nn_tensor *view = nn_reshape(tape, nn_reshape(tape, x, 1, (int64_t[]){COUNT}), 3, (int64_t[]){2, COUNT / 8, 4});
    assert_int_equal(nn_rows(view), COUNT / 4);
    nn_tensor *y = nn_add(tape, nn_reduce(tape, view, NN_SUM), nn_reduce(tape, x, NN_SUM));
    nn_keep(view);
    check(nn_tape_run(tape, &(nn_root){y, 3, NULL}, 1));
    assert_gradient(x, 6);
    assert_gradient(view, 6);
    static float got[COUNT];
    check(nn_read(tape, view, got));
    assert_memory_equal(got, values, BYTES);
}

static void test_view_as_root(void **state)
{
    (void)state;
    nn_tensor *x = nn_watch(input()), *y = nn_add(tape, x, ones());
    check(nn_tape_run(tape, &(nn_root){nn_reshape(tape, y, 1, (int64_t[]){COUNT}), -2, NULL}, 1));
    assert_gradient(x, -2);
}

static void test_used_twice_accumulates(void **state)
{
    (void)state;
    nn_tensor *x = nn_watch(input()), *twice = nn_add(tape, x, x);
    nn_tensor *y = nn_add(tape, nn_add(tape, twice, x), twice);
    check(nn_tape_run(tape, &(nn_root){y, 1, NULL}, 1));
    assert_gradient(x, 5);
}

/* A chain of sums hands one gradient on without a copy, and whoever adds to it does not change what others hold. */
static void test_sum_shares_its_gradient(void **state)
{
    (void)state;
    nn_tensor *a = nn_watch(input()), *b = nn_watch(ones()), *relu = nn_activate(tape, a, NN_RELU), *y = a;
    uint64_t before = used_memory();
    for (int i = 0; i < 4; i++)
        y = nn_add(tape, y, b);
    check(nn_tape_run(tape, (nn_root[]){{y, 2, NULL}, {relu, 1, NULL}}, 2));
    static float got[COUNT];
    assert_gradient(b, 8); /* from four sums */
    check(nn_read_grad(tape, a, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == (values[i] > 0 ? 3 : 2));
    nn_tape_reset(tape);
    assert_int_equal(used_memory(), before);

    a = nn_watch(input());
    b = nn_watch(ones());
    uint64_t dispatches = vk_counters_get(device).dispatches;
    check(nn_tape_run(tape, &(nn_root){nn_add(tape, a, b), 2, NULL}, 1));
    assert_int_equal(vk_counters_get(device).dispatches - dispatches, 1);
    assert_true(a->grad.block == b->grad.block && a->grad.offset == b->grad.offset);
    assert_gradient(a, 2);
    assert_gradient(b, 2);
}

static void test_roots(void **state)
{
    (void)state;
    static float seed[COUNT], got[COUNT];
    for (int i = 0; i < COUNT; i++)
        seed[i] = (float)(i % 7) - 3;
    nn_tensor *x = nn_watch(input()), *a = nn_add(tape, x, ones()), *b = nn_add(tape, a, a),
              *c = nn_add(tape, ones(), ones());
    const nn_root roots[] = {{a, 0.25f, NULL}, {b, 9, seed}, {c, 1, NULL}};
    check(nn_tape_run(tape, roots, 3)); /* c has nothing trainable behind it */
    check(nn_read_grad(tape, x, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == 0.25f + 2 * seed[i]);
}

static void test_bad_roots(void **state)
{
    (void)state;
    nn_tensor *x = nn_watch(input()), *y = nn_add(tape, x, x);
    const nn_root twice[] = {{y, 1, NULL}, {y, 1, NULL}};
    assert_false(nn_tape_run(tape, twice, 2));
    assert_error("root 1 is given twice");
    assert_false(nn_tape_run(tape, twice, 1));
    assert_error("has run already");
    nn_tape_reset(tape);
    x = nn_watch(input());
    nn_add(tape, x, x);
    assert_false(nn_tape_run(tape, &(nn_root){NULL, 1, NULL}, 1));
    assert_error("root 0 is missing");
}

static uint64_t dispatches_of(bool side_branch, bool watched)
{
    uint64_t before = vk_counters_get(device).dispatches;
    nn_tensor *x = input(), *y;
    if (watched)
        nn_watch(x);
    y = nn_activate(tape, x, NN_SILU);
    if (side_branch)
        nn_activate(tape, nn_activate(tape, y, NN_RELU), NN_SILU);
    check(nn_tape_run(tape, &(nn_root){y, 1, NULL}, 1));
    if (watched && side_branch) {
        static float got[COUNT];
        check(nn_read_grad(tape, x, got));
        for (int i = 0; i < COUNT; i++) {
            double s = 1 / (1 + exp(-(double)values[i]));
            assert_float_equal(got[i], s * (1 + values[i] * (1 - s)), 1e-6);
        }
    }
    nn_tape_reset(tape);
    return vk_counters_get(device).dispatches - before;
}

static void test_no_backward_without_flow(void **state)
{
    (void)state;
    assert_int_equal(dispatches_of(false, false), 1);
    assert_int_equal(dispatches_of(false, true), 2);
    assert_int_equal(dispatches_of(true, true), 4); /* the branch runs forward only */
    nn_tensor *x = nn_watch(input());
    nn_activate(tape, x, NN_RELU);
    check(nn_tape_run(tape, &(nn_root){nn_add(tape, ones(), ones()), 1, NULL}, 1));
    assert_gradient(x, 0);
}

/* ---- dry run ---------------------------------------------------------------------------------------------------- */

static uint64_t measure_step(nn_params *set, nn_tensor *w, bool recompute)
{
    uint64_t before = used_memory();
    vk_memory_reset_peak(device);
    nn_tensor *y = input();
    check(nn_params_zero_grad(set));
    for (int i = 0; i < 4; i++) {
        if (recompute)
            nn_recompute_begin(tape);
        y = nn_add(tape, y, nn_linear(tape, nn_activate(tape, nn_linear(tape, y, w, NULL), NN_SILU), w, NULL));
        if (recompute)
            nn_recompute_end(tape);
    }
    nn_tensor *loss = nn_keep(nn_reduce(tape, y, NN_SUM_SQUARES));
    check(nn_tape_run(tape, &(nn_root){loss, 1, NULL}, 1));
    check(nn_params_step(set, &(nn_adamw){.lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .clip = 1}, 1,
                         (vk_range){0}));
    uint64_t peak = peak_since(before);
    nn_tape_reset(tape);
    assert_int_equal(used_memory(), before);
    return peak;
}

static void test_dry_run_predicts_peak(void **state)
{
    (void)state;
    nn_params *set = nn_params_new(device);
    nn_tensor *w = nn_param_add(set, "w", 2, (int64_t[]){COLS, COLS}, NN_INIT_NORMAL, 0.1f, true);
    check(w && nn_params_allocate(set, true, 1));
    for (int recompute = 0; recompute < 2; recompute++) {
        check(vk_dry(device, true));
        uint64_t dispatches = vk_counters_get(device).dispatches, dry = measure_step(set, w, recompute);
        assert_int_equal(vk_counters_get(device).dispatches, dispatches);
        check(vk_dry(device, false));
        assert_int_equal(dry, measure_step(set, w, recompute));
        assert_true(dry > 4 * BYTES);
    }
    nn_params_free(&set);
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

static void test_first_error_is_kept(void **state)
{
    (void)state;
    nn_tensor *x = input(), *other = nn_input(tape, NN_F32, 2, (int64_t[]){2, 2}, values);
    nn_tensor *y = nn_add(tape, x, other);
    assert_null(y);
    assert_error("add");
    char first[256];
    snprintf(first, sizeof first, "%s", cs_error());
    y = nn_softmax(tape, nn_reshape(tape, nn_linear(tape, y, x, NULL), 1, (int64_t[]){5}));
    assert_null(nn_keep(nn_watch(y)));
    assert_string_equal(cs_error(), first);
    assert_null(nn_input(tape, NN_F32, 2, shape, values));
    cs_fail("something else, later");
    assert_false(nn_tape_run(tape, NULL, 0));
    assert_string_equal(cs_error(), first);
    nn_tape_reset(tape);
    nn_keep(nn_add(tape, input(), input()));
    check(nn_tape_run(tape, NULL, 0));
}

static void test_bad_shapes(void **state)
{
    (void)state;
    assert_null(nn_input(tape, NN_F32, 2, (int64_t[]){4, 0}, values));
    assert_error("input: dimension 1 is 0");
    nn_tape_reset(tape);
    assert_null(nn_input(tape, NN_F32, 2, (int64_t[]){1 << 16, 1 << 16}, values));
    assert_error("2^31 elements");
    nn_tape_reset(tape);
    assert_null(nn_input(tape, NN_F32, 5, (int64_t[]){1, 1, 1, 1, 1}, values));
    assert_error("at most 4");
    nn_tape_reset(tape);
    assert_null(nn_reshape(tape, input(), 1, (int64_t[]){COUNT + 1}));
    assert_error("reshape: 2048 elements into 2049");
    nn_tape_reset(tape);
    nn_tensor *x = nn_input(tape, NN_F32, 2, shape, NULL);
    nn_activate(tape, x, NN_RELU);
    assert_false(nn_tape_run(tape, NULL, 0));
    assert_error("activation");
}

/* Each wrapper of nn/ops.h with operands that do not fit: NULL, and the operator's name in the message. */
static nn_tensor *ints(int64_t n)
{
    static const int32_t zeros[COUNT];
    return nn_input(tape, NN_I32, 1, &n, zeros);
}

static nn_tensor *floats(int dims, int64_t a, int64_t b, int64_t c)
{
    return nn_input(tape, NN_F32, dims, (int64_t[]){a, b, c}, values);
}

enum { WRAPPERS = 15 };

static nn_tensor *call_wrongly(int wrapper, const char **name)
{
    nn_tensor *a, *b;
    static const char *const names[WRAPPERS] = {"linear",  "linear", "ffn",  "ffn",       "activation",
                                                "gated",   "add",    "add_rows",       "rms_norm",      "layer_norm",
                                                "softmax", "top_k",  "rope",           "embedding",     "gather_rows"};
    *name = names[wrapper];
    switch (wrapper) {
    case 0:
        return nn_linear(tape, floats(2, 4, 8, 0), floats(2, 3, 7, 0), NULL);
    case 1:
        return nn_linear(tape, floats(2, 4, 8, 0), floats(2, 3, 8, 0), floats(1, 4, 0, 0));
    case 2:
        return nn_feed_forward_block(
            tape, floats(2, 4, 8, 0), &(nn_ffn_weights){.w1 = floats(2, 3, 8, 0), .w2 = floats(2, 8, 4, 0)}, NN_RELU);
    case 3:
        return nn_feed_forward_block(tape, floats(2, 4, 8, 0),
                                     &(nn_ffn_weights){.w1 = floats(2, 3, 8, 0), .w2 = floats(2, 8, 3, 0),
                                                       .w3 = floats(2, 4, 8, 0)}, NN_SILU);
    case 4:
        return nn_activate(tape, ints(8), NN_RELU);
    case 5:
        return nn_gated(tape, floats(2, 4, 8, 0), floats(2, 8, 4, 0), NN_SILU);
    case 6:
        return nn_add(tape, floats(2, 4, 8, 0), ints(32));
    case 7:
        return nn_add_rows(tape, floats(2, 4, 8, 0), floats(2, 3, 8, 0));
    case 8:
        return nn_rms_norm(tape, floats(2, 4, 8, 0), floats(1, 4, 0, 0), 1e-5f);
    case 9:
        return nn_layer_norm(tape, floats(2, 4, 8, 0), floats(1, 8, 0, 0), floats(1, 9, 0, 0), 1e-5f);
    case 10:
        return nn_softmax(tape, ints(8));
    case 11:
        return nn_top_k(tape, floats(2, 4, 8, 0), 9, &a, &b) ? a : NULL;
    case 12:
        return nn_rope(tape, floats(2, 4, 8, 0), ints(4), 3, 4, 10000, false);
    case 13:
        return nn_embedding(tape, floats(2, 4, 8, 0), ints(5), ints(16), NULL, NULL);
    default:
        return nn_gather_rows(tape, floats(2, 4, 8, 0), ints(2), ints(5));
    }
}

static void test_wrappers_name_the_operator(void **state)
{
    (void)state;
    for (int i = 0; i < WRAPPERS; i++) {
        const char *name;
        assert_null(call_wrongly(i, &name));
        assert_error(name);
        nn_tape_reset(tape);
    }
    nn_tensor *best;
    assert_null(nn_cross_entropy(tape, floats(2, 4, 8, 0), ints(5), 1, &best));
    assert_error("cross_entropy");
    nn_tape_reset(tape);
    assert_null(nn_reduce(tape, ints(5), NN_SUM));
    assert_error("reduce");
    nn_tape_reset(tape);
    cs_fail("%s", "");
    assert_null(nn_add(tape, input(), NULL));
    assert_error("add: input 1 is missing");
}

/* A device that has room for a few tensors only: the run fails, the reset gives everything back, a smaller run
 * works. */
static void test_out_of_memory(void **state)
{
    (void)state;
    const vk_params params = {.quiet = true, .cache_folder = "", .memory_limit = 5 * BYTES};
    vk_device *small = vk_open(&params);
    check(small);
    nn_tape *t = nn_tape_new(small);
    uint64_t before = vk_memory_get(small).used;
    for (int depth = 1; depth <= 32; depth += 31) {
        nn_tensor *x = nn_watch(nn_input(t, NN_F32, 2, shape, values)), *y = x;
        for (int i = 0; i < depth; i++)
            y = nn_activate(t, y, NN_SILU);
        bool ok = nn_tape_run(t, &(nn_root){y, 1, NULL}, 1);
        assert_int_equal(ok, depth == 1);
        if (!ok) {
            assert_error("out of device memory for activation");
            assert_error("forward of activation");
        }
        nn_tape_reset(t);
        assert_int_equal(vk_memory_get(small).used, before);
    }
    nn_tape_free(&t);
    vk_close(&small);
}

/* ---- external memory -------------------------------------------------------------------------------------------- */

static void test_external(void **state)
{
    (void)state;
    vk_range range = vk_alloc(device, BYTES, VK_MEMORY_DEVICE, "a test");
    check(range.block && vk_upload(device, range, values, BYTES));
    nn_tensor *x = nn_external(tape, NN_F32, 2, shape, range), *y = nn_keep(nn_add(tape, x, x));
    check(nn_tape_run(tape, NULL, 0));
    nn_tape_reset(tape);
    x = nn_external(tape, NN_F32, 2, shape, range); /* still there after the reset */
    y = nn_keep(nn_add(tape, x, x));
    check(nn_tape_run(tape, NULL, 0));
    static float got[COUNT];
    check(nn_read(tape, y, got));
    for (int i = 0; i < COUNT; i++)
        assert_true(got[i] == 2 * values[i]);
    nn_tape_reset(tape);
    assert_null(nn_external(tape, NN_F32, 2, (int64_t[]){ROWS + 1, COLS}, range));
    assert_error("external tensor: 8192 bytes of memory for 8448 bytes of values");
    vk_free(device, &range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_chain_holds_two_tensors, reset),
        cmocka_unit_test_teardown(test_output_nobody_reads_goes_at_once, reset),
        cmocka_unit_test_teardown(test_kept_tensor_survives, reset),
        cmocka_unit_test_teardown(test_backward_returns_memory, reset),
        cmocka_unit_test_teardown(test_recomputation_is_exact_and_smaller, reset),
        cmocka_unit_test_teardown(test_random_graphs, reset),
        cmocka_unit_test_teardown(test_view_shares_data_and_gradient, reset),
        cmocka_unit_test_teardown(test_view_as_root, reset),
        cmocka_unit_test_teardown(test_used_twice_accumulates, reset),
        cmocka_unit_test_teardown(test_sum_shares_its_gradient, reset),
        cmocka_unit_test_teardown(test_roots, reset),
        cmocka_unit_test_teardown(test_bad_roots, reset),
        cmocka_unit_test_teardown(test_no_backward_without_flow, reset),
        cmocka_unit_test_teardown(test_dry_run_predicts_peak, reset),
        cmocka_unit_test_teardown(test_first_error_is_kept, reset),
        cmocka_unit_test_teardown(test_bad_shapes, reset),
        cmocka_unit_test_teardown(test_wrappers_name_the_operator, reset),
        cmocka_unit_test_teardown(test_out_of_memory, reset),
        cmocka_unit_test_teardown(test_external, reset),
    };
    return cmocka_run_group_tests(tests, open_tape, close_tape);
}
