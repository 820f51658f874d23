/* Parameter sets and the optimizer. */
#include "base/half.h"
#include "base/random.h"
#include "nn/ops.h"
#include "nn/params_internal.h"
#include "tests/nn_fixture.h"


static nn_params *set;

static int make(void **state)
{
    (void)state;
    set = nn_params_new(device);
    return set ? 0 : -1;
}

static int drop(void **state)
{
    (void)state;
    nn_params_free(&set);
    return 0;
}

static nn_tensor *add(const char *name, int64_t rows, int64_t cols, enum nn_init init, float scale, bool decay)
{
    nn_tensor *t = nn_param_add(set, name, 2, (int64_t[]){rows, cols}, init, scale, decay);
    check(t);
    return t;
}

static float *read_part(const char *name, enum nn_part part)
{
    nn_param *p = nn_params_find(set, name);
    assert_non_null(p);
    float *host = malloc((size_t)nn_count(&p->tensor) * sizeof *host);
    assert_non_null(host);
    check(nn_param_read(set, p, part, host));
    return host;
}

/* ---- declaration and layout ------------------------------------------------------------------------------------- */

static void test_declaration_errors(void **state)
{
    (void)state;
    add("a", 2, 3, NN_INIT_ZERO, 0, true);
    assert_null(nn_param_add(set, "a", 1, (int64_t[]){4}, NN_INIT_ZERO, 0, true));
    assert_error("parameter 'a' is declared twice");
    assert_null(nn_param_add(set, "b", 2, (int64_t[]){4, 0}, NN_INIT_ZERO, 0, true));
    assert_error("parameter 'b': dimension 1 is 0");
    assert_null(nn_param_add(set, "c", 3, (int64_t[]){1 << 12, 1 << 12, 1 << 12}, NN_INIT_ZERO, 0, true));
    assert_error("parameter 'c'");
    assert_null(nn_param_add(set, "d", 5, (int64_t[]){1, 1, 1, 1, 1}, NN_INIT_ZERO, 0, true));
    assert_error("parameter 'd': 5 dimensions");
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_null(nn_param_add(set, name, 1, (int64_t[]){4}, NN_INIT_ZERO, 0, true));
    assert_error("too long");
    check(nn_params_allocate(set, false, 1));
    assert_null(nn_param_add(set, "e", 1, (int64_t[]){4}, NN_INIT_ZERO, 0, true));
    assert_error("laid out already");
    assert_int_equal(nn_params_count(set), 1);
}

/* Decayed parameters lie before the others in each slab, frozen ones in slabs of their own, without overlap. */
static void test_layout(void **state)
{
    (void)state;
    add("norm.weight", 1, 65, NN_INIT_ONE, 0, false);
    add("vision.w", 7, 9, NN_INIT_NORMAL, 1, true);
    add("vision.b", 1, 9, NN_INIT_ZERO, 0, false);
    add("text.w", 70, 3, NN_INIT_NORMAL, 1, true);
    add("text.b", 1, 3, NN_INIT_ZERO, 0, false);
    nn_params_freeze(set, "vision");
    check(nn_params_allocate(set, true, 3));
    assert_int_equal(nn_params_elements(set, false), 65 + 63 + 9 + 210 + 3);
    assert_int_equal(nn_params_elements(set, true), 65 + 210 + 3);
    assert_int_equal(set->slabs, 2);
    for (size_t i = 0; i < nn_params_count(set); i++) {
        const nn_param *p = nn_params_at(set, i);
        const nn_slab *s = &set->slab[p->slab];
        uint64_t count = (uint64_t)nn_count(&p->tensor);
        assert_int_equal(s->trainable, p->trainable);
        assert_int_equal(p->tensor.wants_grad, p->trainable);
        assert_int_equal(p->offset % 128, 0);
        assert_true(p->offset + count <= s->elements);
        assert_true(p->decay ? p->offset + count <= s->decay_elements : p->offset >= s->decay_elements);
        for (size_t j = 0; j < i; j++) {
            const nn_param *q = nn_params_at(set, j);
            assert_true(q->slab != p->slab || q->offset >= p->offset + count ||
                        p->offset >= q->offset + (uint64_t)nn_count(&q->tensor));
        }
    }
    float host[63];
    assert_false(nn_param_read(set, nn_params_find(set, "vision.w"), NN_GRADIENT, host));
    assert_error("'vision.w' is not being trained");
    float *ones = read_part("norm.weight", NN_VALUE);
    for (int i = 0; i < 65; i++)
        assert_true(ones[i] == 1);
    free(ones);
}

static void test_memory_returns(void **state)
{
    (void)state;
    uint64_t before = used_memory();
    add("w", 100, 100, NN_INIT_NORMAL, 1, true);
    check(nn_params_allocate(set, true, 3));
    assert_in_range(used_memory() - before, 4 * 40000, 4 * 41000);
    nn_params_free(&set);
    assert_int_equal(used_memory(), before);
}

/* ---- initial values --------------------------------------------------------------------------------------------- */

/* A parameter's values depend on the seed and its name only. */
static void test_values_are_independent(void **state)
{
    (void)state;
    add("x", 16, 16, NN_INIT_NORMAL, 0.5f, true);
    add("y", 16, 16, NN_INIT_NORMAL, 0.5f, true);
    check(nn_params_allocate(set, false, 9));
    float *x = read_part("x", NN_VALUE), *y = read_part("y", NN_VALUE);
    assert_memory_not_equal(x, y, 1024);
    nn_params_free(&set);
    make(NULL);
    add("before", 3, 5, NN_INIT_UNIFORM, 1, false);
    add("y", 16, 16, NN_INIT_NORMAL, 0.5f, true);
    add("between", 30, 5, NN_INIT_NORMAL, 1, true);
    add("x", 16, 16, NN_INIT_NORMAL, 0.5f, true);
    nn_params_freeze(set, "y");
    check(nn_params_allocate(set, true, 9));
    float *x2 = read_part("x", NN_VALUE), *y2 = read_part("y", NN_VALUE);
    assert_memory_equal(x, x2, 1024);
    assert_memory_equal(y, y2, 1024);
    nn_params_free(&set);
    make(NULL);
    add("x", 16, 16, NN_INIT_NORMAL, 0.5f, true);
    check(nn_params_allocate(set, true, 10));
    float *other = read_part("x", NN_VALUE);
    assert_memory_not_equal(x, other, 1024);
    free(x);
    free(y);
    free(x2);
    free(y2);
    free(other);
}

static void test_distributions(void **state)
{
    (void)state;
    enum { N = 128 * 128 };
    add("normal", 128, 128, NN_INIT_NORMAL, 0.5f, true);
    add("uniform", 128, 128, NN_INIT_UNIFORM, 0.25f, true);
    check(nn_params_allocate(set, false, 9));
    float *x = read_part("normal", NN_VALUE), *u = read_part("uniform", NN_VALUE);
    double mean = 0, square = 0, low = 0, high = 0, uniform_square = 0;
    for (int i = 0; i < N; i++) {
        mean += x[i] / N;
        square += (double)x[i] * x[i] / N;
        low = fmin(low, u[i]);
        high = fmax(high, u[i]);
        uniform_square += (double)u[i] * u[i] / N;
    }
    assert_float_equal(mean, 0, 0.02);
    assert_float_equal(sqrt(square), 0.5, 0.02);
    assert_true(low >= -0.25 && low < -0.249 && high <= 0.25 && high > 0.249);
    assert_float_equal(uniform_square, 0.0625 / 3, 0.001);
    free(x);
    free(u);
}

/* ---- the optimizer ---------------------------------------------------------------------------------------------- */

enum { PARTS = 3, STEPS = 6 };

static const struct part {
    const char *name;
    int rows, cols;
    bool decay, frozen;
} parts[PARTS + 1] = {
    {"w", 37, 29, true, false}, {"b", 1, 29, false, false}, {"v", 5, 13, true, false}, {"frozen", 4, 4, true, true}};

typedef struct reference {
    double x[37 * 29], m[37 * 29], v[37 * 29];
} reference;

static int part_count(int k)
{
    return parts[k].rows * parts[k].cols;
}

static void gradient_of(int part, uint64_t step, float *g)
{
    fill_normal(g, (size_t)part_count(part), 100 * step + (uint64_t)part);
    for (int i = 0; i < part_count(part); i++)
        g[i] *= step & 1 ? 0.01f : 2;
}

static double norm_of(uint64_t step)
{
    float g[37 * 29];
    double sum = 0;
    for (int k = 0; k < PARTS; k++) {
        gradient_of(k, step, g);
        for (int i = 0; i < part_count(k); i++)
            sum += (double)g[i] * g[i];
    }
    return sqrt(sum);
}

/* Loshchilov & Hutter 2019, algorithm 2, with the schedule multiplier folded into the rate. */
static void step_reference(reference *r, int part, const nn_adamw *a, uint64_t step)
{
    float g[37 * 29];
    gradient_of(part, step, g);
    double norm = norm_of(step), clip = a->clip > 0 && norm > a->clip ? a->clip / norm : 1;
    for (int i = 0; i < part_count(part); i++) {
        double d = clip * g[i];
        r->m[i] = a->beta1 * r->m[i] + (1 - (double)a->beta1) * d;
        r->v[i] = a->beta2 * r->v[i] + (1 - (double)a->beta2) * d * d;
        double m = r->m[i] / (1 - pow(a->beta1, (double)step)), v = r->v[i] / (1 - pow(a->beta2, (double)step));
        r->x[i] -= a->lr * (m / (sqrt(v) + a->eps) + (parts[part].decay ? a->decay * r->x[i] : 0));
    }
}

static void compare_part(int part, const reference *r)
{
    const double *expected[] = {r->x, NULL, r->m, r->v};
    for (int which = 0; which < 4; which++) {
        if (!expected[which])
            continue;
        float *got = read_part(parts[part].name, which);
        double error = 0, size = 0;
        for (int i = 0; i < part_count(part); i++) {
            error += pow(got[i] - expected[which][i], 2);
            size += pow(expected[which][i], 2);
        }
        assert_true(sqrt(error / size) < 1e-6);
        free(got);
    }
}

static void run_optimizer(const nn_adamw *a)
{
    static reference r[PARTS];
    memset(r, 0, sizeof r);
    for (int k = 0; k <= PARTS; k++)
        add(parts[k].name, parts[k].rows, parts[k].cols, NN_INIT_NORMAL, 1, parts[k].decay);
    nn_params_freeze(set, "frozen");
    check(nn_params_allocate(set, true, 4));
    float *frozen = read_part("frozen", NN_VALUE);
    for (int k = 0; k < PARTS; k++) {
        float *x = read_part(parts[k].name, NN_VALUE);
        for (int i = 0; i < part_count(k); i++)
            r[k].x[i] = x[i];
        free(x);
    }
    vk_range norm = vk_alloc(device, 8, VK_MEMORY_DEVICE, "a test");
    for (uint64_t step = 1; step <= STEPS; step++) {
        check(nn_params_zero_grad(set));
        for (int k = 0; k < PARTS; k++) {
            float g[37 * 29];
            gradient_of(k, step, g);
            check(nn_param_write(set, nn_params_find(set, parts[k].name), NN_GRADIENT, g));
            step_reference(&r[k], k, a, step);
        }
        check(nn_params_step(set, a, step, norm));
        float got;
        check(vk_read(device, norm, &got, 4));
        assert_float_equal(got / norm_of(step), 1, 1e-6);
    }
    vk_free(device, &norm);
    for (int k = 0; k < PARTS; k++)
        compare_part(k, &r[k]);
    float *still = read_part("frozen", NN_VALUE);
    assert_memory_equal(still, frozen, 64);
    free(still);
    free(frozen);
}

static void test_adamw(void **state)
{
    (void)state;
    run_optimizer(&(nn_adamw){.lr = 0.05f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f});
}

static void test_adamw_with_decay_and_clipping(void **state)
{
    (void)state;
    run_optimizer(&(nn_adamw){.lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.95f, .eps = 1e-3f, .decay = 0.3f, .clip = 1.5f});
}

static void test_step_errors(void **state)
{
    (void)state;
    add("w", 4, 4, NN_INIT_ONE, 0, true);
    check(nn_params_allocate(set, true, 4));
    assert_false(nn_params_step(set, &(nn_adamw){.lr = 1}, 0, (vk_range){0}));
    assert_error("steps count from 1");
}

/* With nothing to train a step does nothing and the norm is 0. */
static void test_step_of_frozen_set(void **state)
{
    (void)state;
    add("w", 4, 4, NN_INIT_ONE, 0, true);
    nn_params_freeze(set, "");
    check(nn_params_allocate(set, true, 4));
    vk_range norm = vk_alloc(device, 8, VK_MEMORY_DEVICE, "a test");
    check(nn_params_zero_grad(set) && nn_params_step(set, &(nn_adamw){.lr = 1}, 1, norm));
    float got = 1;
    check(vk_read(device, norm, &got, 4));
    assert_true(got == 0);
    vk_free(device, &norm);
}

/* ---- loss scaling ----------------------------------------------------------------------------------------------- */

enum { W_COUNT = 16 * 24 };

static const nn_adamw scaled_adamw = {.lr = 0.05f, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-6f, .decay = 0.1f};

static nn_loss_scale scaling(void)
{
    nn_loss_scale s;
    check(nn_params_read_loss_scale(set, &s));
    return s;
}

/* One step with the gradient of `draw` times `scale`; what the step says of its norm and its loss scale. */
static void scaled_step(uint64_t draw, float scale, uint64_t step, float figures[2])
{
    float g[W_COUNT];
    vk_range norm = vk_alloc(device, 8, VK_MEMORY_DEVICE, "a test");
    fill_normal(g, W_COUNT, draw);
    for (int i = 0; i < W_COUNT; i++)
        g[i] *= scale;
    check(nn_params_zero_grad(set) && nn_param_write(set, nn_params_find(set, "w"), NN_GRADIENT, g));
    check(nn_params_step(set, &scaled_adamw, step, norm) && vk_read(device, norm, figures, 8));
    vk_free(device, &norm);
}

/* Steps with scaled gradients, one of which overflows, end where the others end without scaling, bit for bit: also the
 * moments' corrections do not count the step that was skipped. */
static void test_overflowing_step_is_skipped(void **state)
{
    (void)state;
    float figures[2], *plain[4];
    add("w", 16, 24, NN_INIT_NORMAL, 1, true);
    check(nn_params_allocate(set, true, 4));
    for (uint64_t step = 1; step <= 3; step++)
        scaled_step(step, 1, step, figures);
    float plain_norm = figures[0];
    scaled_step(7, NAN, 4, figures); /* changes nothing without a scale either */
    assert_false(isfinite(figures[0]));
    scaled_step(7, INFINITY, 4, figures);
    assert_true(figures[1] == 1);
    for (int which = 0; which < 4; which++)
        plain[which] = which == NN_GRADIENT ? NULL : read_part("w", which);
    nn_params_free(&set);

    set = nn_params_new(device);
    add("w", 16, 24, NN_INIT_NORMAL, 1, true);
    check(nn_params_allocate(set, true, 4));
    check(nn_params_scale_loss(set, &(nn_loss_scale){.scale = 1024}, 100));
    scaled_step(1, 1024, 1, figures);
    assert_true(figures[1] == 1024 && isfinite(figures[0]));
    scaled_step(7, INFINITY, 2, figures);
    assert_true(figures[1] == 1024 && !isfinite(figures[0]));
    scaled_step(2, 512, 3, figures);
    scaled_step(3, 512, 4, figures);
    assert_true(figures[1] == 512 && figures[0] == plain_norm);
    nn_loss_scale s = scaling();
    assert_true(s.scale == 512 && s.good == 2 && s.skipped == 1);
    for (int which = 0; which < 4; which++) {
        if (!plain[which])
            continue;
        float *got = read_part("w", which);
        assert_memory_equal(got, plain[which], W_COUNT * sizeof *got);
        free(got);
        free(plain[which]);
    }
}

static void test_loss_scale_moves(void **state)
{
    (void)state;
    static const struct {
        float gradient, scale;
        uint32_t good, skipped;
    } steps[] = {{1, 4, 1, 0},   {1, 8, 0, 0},   {NAN, 4, 0, 1}, {1, 4, 1, 1},       {INFINITY, 2, 0, 2},
                 {NAN, 1, 0, 3}, {NAN, 1, 0, 4}, {1, 1, 1, 4},   {1, 2, 0, 4}};
    add("w", 16, 24, NN_INIT_NORMAL, 1, true);
    check(nn_params_allocate(set, true, 4));
    assert_false(nn_params_scale_loss(set, &(nn_loss_scale){.scale = 0.5f}, 2));
    assert_error("a loss scale of 0.5");
    check(nn_params_scale_loss(set, &(nn_loss_scale){.scale = 4}, 2));
    for (uint64_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        float figures[2];
        scaled_step(i, steps[i].gradient, i + 1, figures);
        nn_loss_scale s = scaling();
        assert_true(s.scale == steps[i].scale && s.good == steps[i].good && s.skipped == steps[i].skipped);
    }
    check(nn_params_scale_loss(set, &(nn_loss_scale){.scale = 64, .good = 1, .skipped = 5}, 2)); /* as after loading */
    float figures[2];
    scaled_step(1, 1, 20, figures);
    nn_loss_scale s = scaling();
    assert_true(s.scale == 128 && s.good == 0 && s.skipped == 5);
}

/* The backward pass starts from the losses' weights times the scale. */
static void test_roots_are_scaled(void **state)
{
    (void)state;
    nn_tensor *w = add("w", 8, 8, NN_INIT_ONE, 0, true);
    check(nn_params_allocate(set, true, 4) && nn_params_zero_grad(set));
    check(nn_params_scale_loss(set, &(nn_loss_scale){.scale = 32}, 100));
    nn_tape *tape = nn_tape_new(device);
    nn_tape_set_loss_scale(tape, nn_params_loss_scale(set));
    nn_tensor *sum = nn_reduce(tape, w, NN_SUM), *squares = nn_reduce(tape, w, NN_SUM_SQUARES);
    check(nn_tape_run(tape, (nn_root[]){{sum, 2, NULL}, {squares, 0.5f, NULL}}, 2));
    float *g = read_part("w", NN_GRADIENT);
    for (int i = 0; i < 64; i++)
        assert_true(g[i] == 32 * (2 + 0.5f * 2));
    free(g);
    nn_tape_reset(tape);
    check(!nn_tape_run(tape, &(nn_root){nn_cast(tape, w, NN_BF16), 1, NULL}, 1));
    assert_error("root 0 is not a loss");
    nn_tape_free(&tape);
}

/* ---- 16-bit copies ---------------------------------------------------------------------------------------------- */

/* Products read the matrices in the tape's precision, as they are after the latest change. */
static void test_products_read_rounded_matrices(void **state)
{
    (void)state;
    static float x[8 * 16], y[8 * 24];
    for (int i = 0; i < 8 * 16; i++)
        x[i] = i % 17 == 0; /* rows of the unit matrix */
    nn_tensor *w = add("w", 24, 16, NN_INIT_NORMAL, 1, true);
    check(nn_params_allocate(set, true, 4));
    nn_tape *tape = nn_tape_new(device);
    nn_tape_set_precision(tape, NN_BF16);
    for (int round = 0; round < 2; round++) {
        float *values = read_part("w", NN_VALUE);
        for (int i = 0; round && i < W_COUNT; i++)
            values[i] *= 1.7f;
        check(nn_param_write(set, nn_params_find(set, "w"), NN_VALUE, values) && nn_params_narrow(set, NN_BF16));
        nn_tape_reset(tape);
        nn_tensor *in = nn_input(tape, NN_F32, 2, (int64_t[]){8, 16}, x), *out = nn_linear(tape, in, w, NULL);
        assert_int_equal(out->dtype, NN_BF16);
        out = nn_keep(nn_cast(tape, out, NN_F32));
        check(nn_tape_run(tape, NULL, 0) && nn_read(tape, out, y));
        for (int row = 0; row < 8; row++)
            for (int c = 0; c < 24; c++)
                assert_true(y[row * 24 + c] == cs_bf16_value(cs_bf16_bits(values[c * 16 + row])));
        free(values);
    }
    nn_tape_free(&tape);
}

/* Gradients of micro-batches add up until they are zeroed. */
static void test_gradients_accumulate(void **state)
{
    (void)state;
    nn_tensor *w = add("w", 8, 8, NN_INIT_ONE, 0, true);
    check(nn_params_allocate(set, true, 4));
    nn_tape *tape = nn_tape_new(device);
    for (int round = 0; round < 2; round++) {
        check(nn_params_zero_grad(set));
        for (int i = 1; i <= 3; i++) {
            nn_tape_reset(tape);
            check(nn_tape_run(tape, &(nn_root){nn_reduce(tape, w, NN_SUM), 2, NULL}, 1));
            float *g = read_part("w", NN_GRADIENT);
            for (int k = 0; k < 64; k++)
                assert_true(g[k] == (float)(2 * i));
            free(g);
        }
    }
    nn_tape_free(&tape);
}

/* ---- the learning rate ------------------------------------------------------------------------------------------ */

static void test_schedules(void **state)
{
    (void)state;
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 0, 10, 110), 0.2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_LINEAR, 2, 0, 9, 10, 110), 2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_CONSTANT, 2, 0, 4, 10, 110), 1, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_CONSTANT, 2, 0, 109, 10, 110), 2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 10, 10, 110), 2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 60, 10, 110), 1, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 35, 10, 110), 1 + cos(M_PI / 4), 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_LINEAR, 2, 0.5f, 60, 10, 110), 1.5, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_LINEAR, 2, 0.5f, 110, 10, 110), 1, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0.1f, 500, 10, 110), 0.2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 0, 0, 0), 2, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 4, 8, 8), 1.25, 1e-6);
    assert_float_equal(nn_lr(NN_SCHEDULE_COSINE, 2, 0, 8, 8, 8), 2, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_declaration_errors, make, drop),
        cmocka_unit_test_setup_teardown(test_layout, make, drop),
        cmocka_unit_test_setup_teardown(test_memory_returns, make, drop),
        cmocka_unit_test_setup_teardown(test_values_are_independent, make, drop),
        cmocka_unit_test_setup_teardown(test_distributions, make, drop),
        cmocka_unit_test_setup_teardown(test_adamw, make, drop),
        cmocka_unit_test_setup_teardown(test_adamw_with_decay_and_clipping, make, drop),
        cmocka_unit_test_setup_teardown(test_step_errors, make, drop),
        cmocka_unit_test_setup_teardown(test_step_of_frozen_set, make, drop),
        cmocka_unit_test_setup_teardown(test_overflowing_step_is_skipped, make, drop),
        cmocka_unit_test_setup_teardown(test_loss_scale_moves, make, drop),
        cmocka_unit_test_setup_teardown(test_roots_are_scaled, make, drop),
        cmocka_unit_test_setup_teardown(test_products_read_rounded_matrices, make, drop),
        cmocka_unit_test_setup_teardown(test_gradients_accumulate, make, drop),
        cmocka_unit_test(test_schedules),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
