/* Matrix products: every layout, plain, batched, summed and grouped, aligned and ragged, by every variant that suits.
 * */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/random.h"
#include "nn/gemm.h"

#define check(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail_msg("%s: %s", #condition, cs_error());                                                                \
    } while (0)

enum how { PLAIN, BATCHED, SHARED_A, SUMMED, GROUPED, HOWS };
static const char *const how_names[] = {"plain", "batched", "shared A", "summed", "grouped"};
static const char *const layout_names[] = {"NT", "NN", "TN"};
enum { ENTRIES = 3, GROUPS = 4 };

/* One product with its operands on the host. */
typedef struct trial {
    nn_gemm g;
    enum how how;
    size_t a_size, b_size, c_size, bias_size;
    float *a, *b, *c, *bias;
    int32_t offsets[GROUPS + 1];
    double *expected;
} trial;

static vk_device *device;

static int open_device(void **state)
{
    (void)state;
    device = vk_open(&(vk_params){.quiet = true, .cache_folder = ""});
    check(device);
    return 0;
}

static int close_device(void **state)
{
    (void)state;
    vk_close(&device);
    assert_int_equal(vk_validation_messages(), 0);
    return 0;
}

static float *draw(size_t n, cs_random *r)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = cs_random_normal(r);
    return x;
}

static vk_range upload(const void *data, size_t n)
{
    vk_range range = vk_alloc(device, n * 4, VK_MEMORY_DEVICE, "a test");
    check(range.block);
    check(vk_upload(device, (vk_range){range.block, range.offset, n * 4}, data, n * 4));
    return range;
}

static void set_strides(trial *t)
{
    nn_gemm *g = &t->g;
    bool terms = g->layout == NN_GEMM_TN;
    uint32_t a = g->m * g->k, b = g->n * g->k, c = g->m * g->n;
    if (t->how == GROUPED) {
        g->groups = GROUPS;
        g->b_stride = terms ? 0 : b;
        g->c_stride = terms ? c : 0;
    } else if (t->how != PLAIN) {
        g->batch = ENTRIES;
        g->a_stride = t->how == SHARED_A ? 0 : a;
        g->b_stride = b;
        g->c_stride = t->how == SUMMED ? 0 : c;
        g->sum_batch = t->how == SUMMED;
    }
    g->bias_stride = t->how == GROUPED || t->how == BATCHED ? g->n : 0;
    uint32_t copies = t->how == GROUPED ? GROUPS : ENTRIES;
    t->a_size = a + (size_t)(copies - 1) * g->a_stride;
    t->b_size = b + (size_t)(copies - 1) * g->b_stride;
    t->c_size = c + (size_t)(copies - 1) * g->c_stride;
    t->bias_size = g->n + (size_t)(copies - 1) * g->bias_stride;
}

/* First group one row, second none. */
static void set_offsets(trial *t)
{
    uint32_t rows = t->g.layout == NN_GEMM_TN ? t->g.k : t->g.m;
    int32_t at[] = {0, 1, 1, (int32_t)(rows / 3 + 1), (int32_t)rows};
    memcpy(t->offsets, at, sizeof at);
}

static trial make_trial(enum nn_gemm_layout layout, enum how how, uint32_t m, uint32_t n, uint32_t k, bool accumulate)
{
    trial t = {.g = {.layout = layout, .m = m, .n = n, .k = k, .accumulate = accumulate}, .how = how};
    cs_random r = {.seed = 5, .stream = m * 64 + layout * 8 + how};
    set_strides(&t);
    set_offsets(&t);
    t.a = draw(t.a_size, &r);
    t.b = draw(t.b_size, &r);
    t.c = draw(t.c_size, &r);
    t.bias = draw(t.bias_size, &r);
    t.expected = malloc(t.c_size * sizeof(double));
    assert_non_null(t.expected);
    return t;
}

static void free_trial(trial *t)
{
    free(t->a);
    free(t->b);
    free(t->c);
    free(t->bias);
    free(t->expected);
}

/* Adds rows [row, row_end) of one product over terms [term, term_end). */
static void reference(trial *t, uint32_t entry, uint32_t row, uint32_t row_end, uint32_t term, uint32_t term_end)
{
    const nn_gemm *g = &t->g;
    const float *a = t->a + (size_t)entry * g->a_stride, *b = t->b + (size_t)entry * g->b_stride;
    for (uint32_t i = row; i < row_end; i++)
        for (uint32_t j = 0; j < g->n; j++) {
            double sum = 0;
            for (uint32_t p = term; p < term_end; p++)
                sum += (double)(g->layout == NN_GEMM_TN ? a[(size_t)p * g->m + i] : a[(size_t)i * g->k + p]) *
                       (g->layout == NN_GEMM_NT ? b[(size_t)j * g->k + p] : b[(size_t)p * g->n + j]);
            t->expected[(size_t)entry * g->c_stride + i * g->n + j] += sum;
        }
}

static void add_bias(trial *t, uint32_t entry, uint32_t row, uint32_t row_end)
{
    for (uint32_t i = row; i < row_end; i++)
        for (uint32_t j = 0; j < t->g.n; j++)
            t->expected[(size_t)entry * t->g.c_stride + i * t->g.n + j] += t->bias[entry * t->g.bias_stride + j];
}

static void make_reference(trial *t)
{
    const nn_gemm *g = &t->g;
    uint32_t copies = t->how == GROUPED ? GROUPS : t->how == PLAIN ? 1 : ENTRIES;
    for (size_t i = 0; i < t->c_size; i++)
        t->expected[i] = g->accumulate ? t->c[i] : 0;
    for (uint32_t e = 0; e < copies; e++) {
        uint32_t row = 0, row_end = g->m, term = 0, term_end = g->k;
        if (t->how == GROUPED && g->layout == NN_GEMM_TN)
            term = (uint32_t)t->offsets[e], term_end = (uint32_t)t->offsets[e + 1];
        else if (t->how == GROUPED)
            row = (uint32_t)t->offsets[e], row_end = (uint32_t)t->offsets[e + 1];
        reference(t, e, row, row_end, term, term_end);
        if (t->how != SUMMED || e == 0)
            add_bias(t, e, row, row_end);
    }
}

static double run_trial(trial *t, const char *variant)
{
    nn_gemm g = t->g;
    g.variant = variant;
    g.a = upload(t->a, t->a_size);
    g.b = upload(t->b, t->b_size);
    g.c = upload(t->c, t->c_size);
    g.bias = upload(t->bias, t->bias_size);
    if (g.groups)
        g.offsets = upload(t->offsets, GROUPS + 1);
    float *got = malloc(t->c_size * sizeof *got);
    assert_non_null(got);
    check(nn_gemm_run(device, &g));
    check(vk_read(device, (vk_range){g.c.block, g.c.offset, t->c_size * 4}, got, t->c_size * 4));
    double difference = 0, size = 0;
    for (size_t i = 0; i < t->c_size; i++) {
        difference += (got[i] - t->expected[i]) * (got[i] - t->expected[i]);
        size += t->expected[i] * t->expected[i];
    }
    free(got);
    vk_free(device, &g.a);
    vk_free(device, &g.b);
    vk_free(device, &g.c);
    vk_free(device, &g.bias);
    vk_free(device, &g.offsets);
    return sqrt(difference / size);
}

/* Returns how many variants ran. */
static int try_variants(trial *t)
{
    int ran = 0;
    make_reference(t);
    for (int i = 0; nn_gemm_variant_name(i); i++) {
        const char *variant = nn_gemm_variant_name(i);
        if (!nn_gemm_variant_suits(device, variant, &t->g))
            continue;
        double error = run_trial(t, variant);
        /* Rounding errors of a sum add up like a random walk. */
        if (!(error < 1e-6 + 3e-8 * sqrt(t->g.k)))
            fail_msg("%s %s %ux%ux%u by %s: error %g", layout_names[t->g.layout], how_names[t->how], t->g.m, t->g.n,
                     t->g.k, variant, error);
        ran++;
    }
    return ran;
}

static void test_shapes(void **state)
{
    static const uint32_t shapes[][3] = {{40, 36, 24}, {64, 128, 32}, {7, 10, 14}, {37, 33, 45}, {1, 8, 4}};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
            for (enum how how = PLAIN; how < HOWS; how++) {
                trial t = make_trial(layout, how, shapes[s][0], shapes[s][1], shapes[s][2], (s + how) % 2);
                assert_true(try_variants(&t) > 0);
                free_trial(&t);
            }
}

/* The tiles of 64 are only used for many of them. */
static void test_many_tiles(void **state)
{
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
        trial t = make_trial(layout, PLAIN, 515, 500, 20, false);
        assert_true(try_variants(&t) > 1);
        free_trial(&t);
    }
}

/* More terms than lavapipe's longest loop. */
static void test_many_terms(void **state)
{
    (void)state;
    trial t = make_trial(NN_GEMM_TN, PLAIN, 4, 4, 300000, true);
    assert_true(try_variants(&t) > 0);
    free_trial(&t);
}

/* In parts, as where a device cannot bind whole operands. */
static void test_parts(void **state)
{
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
        for (enum how how = PLAIN; how <= SUMMED; how++) {
            trial t = make_trial(layout, how, 200, 64, 320, layout == NN_GEMM_NN);
            t.g.max_range = 84 << 10;
            uint64_t before = vk_counters_get(device).dispatches;
            int variants = try_variants(&t);
            assert_true(variants > 0);
            assert_true(vk_counters_get(device).dispatches > before + (uint64_t)variants);
            free_trial(&t);
        }
}

static void test_faults(void **state)
{
    (void)state;
    float zero[16] = {0};
    vk_range range = upload(zero, 16);
    nn_gemm g = {.m = 4, .n = 4, .k = 4, .a = range, .b = range, .c = range, .variant = "fastest"};
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "there is no variant 'fastest'"));
    g.variant = NULL;
    g.k = 1000;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "A has "));
    g.k = 4;
    g.max_range = 32;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "larger than"));
    g.max_range = 0;
    g.batch = g.groups = 2;
    assert_false(nn_gemm_run(device, &g));
    vk_free(device, &range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes), cmocka_unit_test(test_many_tiles), cmocka_unit_test(test_many_terms),
        cmocka_unit_test(test_parts),  cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
