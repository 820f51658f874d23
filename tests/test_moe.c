/* The mixture-of-experts layer on the chosen device: its invariants, its memory, its errors. Its operators are
 * checked by the selftest, its numbers by test_verify. */
#include "tests/nn_fixture.h"

#include "nn/moe.h"

enum { SEQUENCES = 2, LENGTH = 48, TOKENS = SEQUENCES * LENGTH, WIDTH = 16, HIDDEN = 24, OUT = 8 };

static float x[TOKENS * WIDTH], dy[TOKENS * OUT];

static int set_up(void **state)
{
    fill_normal(x, TOKENS * WIDTH, 5);
    fill_normal(dy, TOKENS * OUT, 6);
    return open_device(state);
}

static nn_moe_config config_of(int experts, int top_k)
{
    return (nn_moe_config){.experts = experts, .top_k = top_k, .hidden = HIDDEN, .hybrid = true, .router_theta = 0.1f,
                           .balance_loss_coef = 0.01f, .router_z_loss_coef = 0.001f, .router_loss_coef = 0.01f,
                           .diversity_loss_coef = 0.01f, .bal_comp_loss_coef = 0.01f};
}

/* A layer with its parameters and the tape of its last pass. */
typedef struct fixture {
    nn_params *params;
    nn_tape *tape;
    nn_moe layer;
    nn_moe_result result;
    nn_tensor *x;
} fixture;

static fixture make(const nn_moe_config *config, enum nn_ffn_kind kind)
{
    fixture f = {.params = nn_params_new(device), .tape = nn_tape_new(device)};
    check(f.params && f.tape);
    check(nn_moe_init(&f.layer, f.params, "moe", config, WIDTH, OUT, kind));
    check(nn_params_allocate(f.params, true, 3));
    return f;
}

static void drop(fixture *f)
{
    nn_tape_free(&f->tape);
    nn_params_free(&f->params);
}

enum { WATCHED = 1, COMPETE = 2, RECOMPUTE = 4 };

/* One pass with the gradients of sum(output dy) and, with `aux`, of the weighted losses. */
static void run(fixture *f, int flags, bool aux)
{
    nn_root roots[1 + NN_MOE_LOSSES];
    int count = 1;
    nn_tape_reset(f->tape);
    f->x = nn_input(f->tape, NN_F32, 3, (int64_t[]){SEQUENCES, LENGTH, WIDTH}, x);
    if (flags & WATCHED)
        nn_watch(f->x);
    if (flags & RECOMPUTE)
        nn_recompute_begin(f->tape);
    check(nn_moe_forward(f->tape, &f->layer, f->x, true, flags & COMPETE, &f->result));
    if (flags & RECOMPUTE)
        nn_recompute_end(f->tape);
    nn_keep(f->result.output);
    roots[0] = (nn_root){f->result.output, 0, dy};
    for (int k = 0; aux && k < NN_MOE_LOSSES; k++)
        if (nn_keep(f->result.loss[k]))
            roots[count++] = (nn_root){f->result.loss[k], nn_moe_coefficient(&f->layer, k, &f->result), NULL};
    check(nn_params_zero_grad(f->params) && nn_tape_run(f->tape, roots, count));
}

static float *gradient(const fixture *f, const nn_tensor *t)
{
    float *host = calloc((size_t)nn_count(t), sizeof *host);
    check(host && nn_param_read(f->params, t->param, NN_GRADIENT, host));
    return host;
}

static double largest(const float *data, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fabsf(data[i]) <= most ? most : fabsf(data[i]); /* a NaN stays */
    return most;
}

static double largest_gradient(const fixture *f, const nn_tensor *t)
{
    float *host = gradient(f, t);
    double most = largest(host, nn_count(t));
    free(host);
    return most;
}

/* ---- what receives gradient (3.4) ---------------------------------------------------------------------------- */

static void a_competing_output_does_not_train_the_gate(void **state)
{
    (void)state;
    nn_moe_config c = config_of(4, 2);
    fixture f = make(&c, NN_FFN_GELU);
    run(&f, COMPETE | WATCHED, false);
    assert_true(largest_gradient(&f, f.layer.gate) == 0);
    assert_true(largest_gradient(&f, f.layer.w1) > 0);
    run(&f, COMPETE | WATCHED, true);
    assert_true(largest_gradient(&f, f.layer.gate) > 0);
    drop(&f);
}

static void with_one_choice_the_output_does_not_train_the_gate(void **state)
{
    (void)state;
    nn_moe_config c = config_of(4, 1);
    fixture f = make(&c, NN_FFN_RELU);
    run(&f, WATCHED, false);
    assert_true(largest_gradient(&f, f.layer.gate) == 0);
    run(&f, WATCHED, true);
    assert_true(largest_gradient(&f, f.layer.gate) > 0);
    drop(&f);
}

static void the_input_need_not_want_a_gradient(void **state)
{
    (void)state;
    nn_moe_config c = config_of(4, 2);
    fixture f = make(&c, NN_FFN_SWIGLU);
    for (int mode = 0; mode <= COMPETE; mode += COMPETE) {
        run(&f, mode | WATCHED, true);
        float *watched = gradient(&f, f.layer.w3);
        run(&f, mode, true);
        float *alone = gradient(&f, f.layer.w3);
        assert_memory_equal(watched, alone, (size_t)nn_count(f.layer.w3) * sizeof *alone);
        free(watched);
        free(alone);
    }
    drop(&f);
}

/* ---- the same numbers ---------------------------------------------------------------------------------------- */

static void recomputation_changes_no_bit(void **state)
{
    (void)state;
    nn_moe_config c = config_of(8, 3);
    fixture f = make(&c, NN_FFN_GELU);
    for (int mode = 0; mode <= COMPETE; mode += COMPETE) {
        run(&f, mode | WATCHED, true);
        float *kept = gradient(&f, f.layer.w1);
        run(&f, mode | WATCHED | RECOMPUTE, true);
        float *again = gradient(&f, f.layer.w1);
        assert_true(largest(kept, nn_count(f.layer.w1)) > 0);
        assert_memory_equal(kept, again, (size_t)nn_count(f.layer.w1) * sizeof *kept);
        free(kept);
        free(again);
    }
    drop(&f);
}

/* With K = E the router's sparse path and the competition's dense path evaluate the same experts on the same tokens. */
static void sparse_and_dense_paths_agree(void **state)
{
    (void)state;
    nn_moe_config c = config_of(3, 3);
    fixture f = make(&c, NN_FFN_GELU_TANH);
    float *zero = calloc((size_t)nn_count(f.layer.gate), sizeof *zero);
    check(zero && nn_param_write(f.params, f.layer.gate->param, NN_VALUE, zero)); /* equal weights 1/3 */
    float routed[TOKENS * OUT], outputs[3 * TOKENS * OUT];
    run(&f, 0, true);
    check(nn_read(f.tape, f.result.output, routed));
    nn_tape_reset(f.tape);
    nn_tensor *input = nn_input(f.tape, NN_F32, 3, (int64_t[]){SEQUENCES, LENGTH, WIDTH}, x);
    check(nn_moe_forward(f.tape, &f.layer, input, true, true, &f.result));
    nn_keep(f.result.expert_outputs);
    check(nn_tape_run(f.tape, NULL, 0) && nn_read(f.tape, f.result.expert_outputs, outputs));
    for (int i = 0; i < TOKENS * OUT; i++) {
        double mean = ((double)outputs[i] + outputs[TOKENS * OUT + i] + outputs[2 * TOKENS * OUT + i]) / 3;
        assert_true(fabs(mean - routed[i]) < 1e-5);
    }
    free(zero);
    drop(&f);
}

static void inference_has_no_losses_and_does_not_compete(void **state)
{
    (void)state;
    nn_moe_config c = config_of(4, 2);
    fixture f = make(&c, NN_FFN_GELU);
    nn_tensor *input = nn_input(f.tape, NN_F32, 3, (int64_t[]){SEQUENCES, LENGTH, WIDTH}, x);
    check(nn_moe_forward(f.tape, &f.layer, input, false, true, &f.result));
    assert_false(f.result.competed);
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        assert_null(f.result.loss[k]);
    float load[4], entropy, sum = 0;
    nn_keep(f.result.load);
    nn_keep(f.result.entropy);
    check(nn_tape_run(f.tape, NULL, 0) && nn_read(f.tape, f.result.load, load) &&
          nn_read(f.tape, f.result.entropy, &entropy));
    for (int e = 0; e < 4; e++)
        sum += load[e];
    assert_true(fabsf(sum - 1) < 1e-6f && entropy > 0 && entropy <= 1.3863f);
    drop(&f);
}

/* Experts that answer nothing: norms are zero, and so are affinities, cosines and their guarded derivatives (3.6). */
static void silent_experts_give_no_nan(void **state)
{
    (void)state;
    nn_moe_config c = config_of(4, 2);
    fixture f = make(&c, NN_FFN_GELU);
    float *zero = calloc((size_t)nn_count(f.layer.w2), sizeof *zero);
    check(zero && nn_param_write(f.params, f.layer.w2->param, NN_VALUE, zero));
    run(&f, COMPETE | WATCHED, true);
    float losses[NN_MOE_LOSSES] = {0};
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (f.result.loss[k])
            check(nn_read(f.tape, f.result.loss[k], &losses[k]));
    assert_true(losses[NN_MOE_DIVERSITY] == 0);
    assert_true(isfinite(largest_gradient(&f, f.layer.w2)));
    free(zero);
    drop(&f);
}

/* ---- the same numbers another way ---------------------------------------------------------------------------- */

/* Output and gradient of w1 of a pass. */
typedef struct numbers {
    float output[TOKENS * OUT], *w1;
} numbers;

static numbers numbers_of(fixture *f, int flags)
{
    numbers n;
    run(f, flags | WATCHED, true);
    check(nn_read(f->tape, f->result.output, n.output));
    n.w1 = gradient(f, f->layer.w1);
    return n;
}

static void assert_close(const float *a, const float *b, int64_t count)
{
    double most = largest(b, count);
    assert_true(most > 0);
    for (int64_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - b[i]) <= 1e-5 * most))
            fail_msg("element %lld: %g and %g of at most %g", (long long)i, a[i], b[i], most);
}

static void assert_same_numbers(const fixture *f, numbers *a, numbers *b)
{
    assert_close(a->output, b->output, TOKENS * OUT);
    assert_close(a->w1, b->w1, nn_count(f->layer.w1));
    free(a->w1);
    free(b->w1);
}

/* 8 KiB bind 85 of the 192 routed rows of 24 floats, and fewer than all experts' 96 outputs of 8. */
static void a_device_that_binds_little_gives_the_same(void **state)
{
    (void)state;
    vk_caps *caps = (vk_caps *)vk_device_caps(device);
    uint64_t range = caps->max_storage_range;
    const enum nn_ffn_kind kinds[] = {NN_FFN_GELU, NN_FFN_SWIGLU};
    for (int i = 0; i < 4; i++) {
        nn_moe_config c = config_of(4, 2);
        fixture f = make(&c, kinds[i / 2]);
        numbers whole = numbers_of(&f, i % 2 ? COMPETE : 0);
        uint64_t before = vk_counters_get(device).dispatches;
        caps->max_storage_range = 8192;
        numbers parts = numbers_of(&f, i % 2 ? COMPETE : 0);
        caps->max_storage_range = range;
        uint64_t many = vk_counters_get(device).dispatches - before;
        before = vk_counters_get(device).dispatches;
        run(&f, (i % 2 ? COMPETE : 0) | WATCHED, true);
        assert_true(many > vk_counters_get(device).dispatches - before);
        assert_same_numbers(&f, &parts, &whole);
        drop(&f);
    }
}

/* Taken for a GPU, the device activates within its products, by other kernels. */
static void activating_within_the_products_gives_the_same(void **state)
{
    (void)state;
    vk_caps *caps = (vk_caps *)vk_device_caps(device);
    enum vk_type type = caps->type;
    const enum nn_ffn_kind kinds[] = {NN_FFN_GELU, NN_FFN_SWIGLU};
    for (int i = 0; i < 4; i++) {
        nn_moe_config c = config_of(4, 2);
        fixture f = make(&c, kinds[i / 2]);
        caps->type = VK_TYPE_CPU;
        numbers apart = numbers_of(&f, i % 2 ? COMPETE : 0);
        caps->type = VK_TYPE_DISCRETE;
        numbers within = numbers_of(&f, i % 2 ? COMPETE : 0);
        caps->type = type;
        assert_same_numbers(&f, &within, &apart);
        drop(&f);
    }
}

static void evaluating_experts_again_gives_the_same(void **state)
{
    (void)state;
    nn_moe_config c = config_of(5, 2);
    fixture stored = make(&c, NN_FFN_GELU);
    c.competition_memory = NN_COMPETITION_RECOMPUTE;
    fixture again = make(&c, NN_FFN_GELU);
    numbers a = numbers_of(&stored, COMPETE), b = numbers_of(&again, COMPETE);
    assert_non_null(stored.result.expert_outputs);
    assert_null(again.result.expert_outputs);
    assert_same_numbers(&stored, &a, &b);
    drop(&stored);
    drop(&again);
}

/* ---- memory and errors --------------------------------------------------------------------------------------- */

static uint64_t peak_of(int experts, int flags)
{
    nn_moe_config c = config_of(experts, 1);
    fixture f = make(&c, NN_FFN_GELU);
    uint64_t before = vk_memory_get(device).used;
    vk_memory_reset_peak(device);
    run(&f, flags, true);
    uint64_t peak = vk_memory_get(device).peak - before;
    drop(&f);
    return peak;
}

static void routed_memory_does_not_grow_with_the_experts(void **state)
{
    (void)state;
    assert_true(peak_of(32, 0) < 2 * peak_of(4, 0));
    assert_true(peak_of(32, COMPETE) > 4 * peak_of(4, COMPETE)); /* competition evaluates them all */
}

enum { MANY = 16, K = 2, BROAD = 64, CHUNK = 2 };

/* Peak of an operator's pass over MANY experts of hidden width BROAD. */
static uint64_t competition_peak(bool recompute)
{
    nn_moe_config c = config_of(MANY, K);
    c.hidden = BROAD;
    fixture f = make(&c, NN_FFN_GELU);
    const nn_ffn_weights w = {f.layer.w1, f.layer.b1, f.layer.w2, f.layer.b2, NULL};
    nn_competition_result r;
    uint64_t before = vk_memory_get(device).used;
    vk_memory_reset_peak(device);
    nn_tensor *in = nn_input(f.tape, NN_F32, 2, (int64_t[]){TOKENS, WIDTH}, x);
    const nn_competition_params params = {.top_k = K, .recompute = recompute, .chunk = CHUNK};
    check(nn_competition(f.tape, in, &w, params, &r));
    const nn_root roots[] = {{r.winners, 1, NULL}, {r.affinities, 1, NULL}};
    check(nn_params_zero_grad(f.params) && nn_tape_run(f.tape, roots, 2));
    uint64_t peak = vk_memory_get(device).peak - before;
    drop(&f);
    return peak;
}

/* CHUNK, or more where so few experts' biases, the shortest of their values, do not end where a device can bind. */
static uint64_t experts_at_a_time(void)
{
    const vk_caps *caps = vk_device_caps(device);
    uint64_t align = caps->texel_align > caps->storage_align ? caps->texel_align : caps->storage_align, n = CHUNK;
    while (n < MANY && n * OUT * 4 % align)
        n *= 2;
    return n;
}

/* Beside x: scores and their gradients, indices, and rows of winners (here their gradients only: nothing else reads the
 * values); and u, h and y of all experts, or of one chunk of them. */
static void competition_takes_the_memory_that_is_planned(void **state)
{
    (void)state;
    const uint64_t floats = 4, rounding = 16 * 256 + 64 * BROAD * floats; /* of ranges; partial sums of biases */
    uint64_t kept = TOKENS * (WIDTH + K * OUT + 2 * MANY + K) * floats;
    uint64_t expert = TOKENS * (2 * BROAD + OUT) * floats;
    uint64_t stored = competition_peak(false), recomputed = competition_peak(true);
    uint64_t chunk = experts_at_a_time() * expert;
    assert_in_range(stored, kept + MANY * expert, kept + MANY * expert + rounding);
    assert_in_range(recomputed, kept + chunk, kept + chunk + rounding);
}

static void wrong_configurations_are_refused(void **state)
{
    (void)state;
    nn_params *params = nn_params_new(device);
    nn_moe layer;
    nn_moe_config c = config_of(4, 5);
    assert_false(nn_moe_init(&layer, params, "tower.moe", &c, WIDTH, OUT, NN_FFN_GELU));
    assert_non_null(strstr(cs_error(), "tower.moe: top_k is 5"));
    c = config_of(NN_MAX_EXPERTS + 1, 1);
    assert_false(nn_moe_init(&layer, params, "m", &c, WIDTH, OUT, NN_FFN_GELU));
    c = config_of(4, 2);
    c.hidden = 0;
    assert_false(nn_moe_init(&layer, params, "m", &c, WIDTH, OUT, NN_FFN_GELU));
    nn_params_free(&params);

    c = config_of(4, 2);
    fixture f = make(&c, NN_FFN_GELU);
    nn_tensor *narrow = nn_input(f.tape, NN_F32, 3, (int64_t[]){SEQUENCES, LENGTH, WIDTH - 1}, x);
    assert_false(nn_moe_forward(f.tape, &f.layer, narrow, true, false, &f.result));
    assert_non_null(strstr(cs_error(), "15 columns"));
    drop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_competing_output_does_not_train_the_gate),
        cmocka_unit_test(with_one_choice_the_output_does_not_train_the_gate),
        cmocka_unit_test(the_input_need_not_want_a_gradient),
        cmocka_unit_test(recomputation_changes_no_bit),
        cmocka_unit_test(sparse_and_dense_paths_agree),
        cmocka_unit_test(inference_has_no_losses_and_does_not_compete),
        cmocka_unit_test(silent_experts_give_no_nan),
        cmocka_unit_test(a_device_that_binds_little_gives_the_same),
        cmocka_unit_test(activating_within_the_products_gives_the_same),
        cmocka_unit_test(evaluating_experts_again_gives_the_same),
        cmocka_unit_test(competition_takes_the_memory_that_is_planned),
        cmocka_unit_test(routed_memory_does_not_grow_with_the_experts),
        cmocka_unit_test(wrong_configurations_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, close_device);
}
