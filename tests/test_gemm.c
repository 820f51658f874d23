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
#include "base/half.h"
#include "base/random.h"
#include "nn/gemm_internal.h"
#include "nn/moe_ops.h"
#include "nn/ops.h"

#define check(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail_msg("%s: %s", #condition, cs_error());                                                                \
    } while (0)

enum how { PLAIN, BATCHED, SHARED_A, SUMMED, GROUPED, HOWS };
static const char *const how_names[] = {"plain", "batched", "shared A", "summed", "grouped"};
enum { ENTRIES = 3, GROUPS = 4 };

/* One product with its operands on the host. */
typedef struct trial {
    nn_gemm g;
    enum how how;
    size_t a_size, b_size, c_size, bias_size, row_count;
    float *a, *b, *c, *bias, *other; /* of values that their types can have */
    int32_t offsets[GROUPS + 1], *rows;
    double *expected, *expected_extra;
} trial;

static vk_device *device;

static int open_device(void **state)
{
    (void)state;
    device = vk_open(&(vk_params){.quiet = true, .cache_folder = ""});
    check(device);
    return 0;
}

/* How often each variant ran, for the end of the log. */
static int runs[32];

static int close_device(void **state)
{
    (void)state;
    for (int i = 0; nn_gemm_variant_name(i); i++)
        print_message("%s: %d products\n", nn_gemm_variant_name(i), runs[i]);
    vk_close(&device);
    assert_int_equal(vk_validation_messages(), 0);
    return 0;
}

static float rounded(float x, enum nn_dtype type)
{
    return type == NN_F16    ? cs_f16_value(cs_f16_bits(x))
           : type == NN_BF16 ? cs_bf16_value(cs_bf16_bits(x))
                             : x;
}

static void *allocate(size_t n, size_t size)
{
    void *x = calloc(n ? n : 1, size);
    assert_non_null(x);
    return x;
}

static float *draw(size_t n, enum nn_dtype type, cs_random *r)
{
    float *x = allocate(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rounded(cs_random_normal(r), type);
    return x;
}

static vk_range upload_bytes(const void *data, size_t bytes)
{
    vk_range range = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "a test");
    check(range.block);
    check(vk_upload(device, range, data, bytes));
    return range;
}

static vk_range upload(const float *values, size_t n, enum nn_dtype type)
{
    if (type == NN_F32)
        return upload_bytes(values, n * 4);
    uint16_t *halves = allocate(n + 1, sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = type == NN_F16 ? cs_f16_bits(values[i]) : cs_bf16_bits(values[i]);
    vk_range range = upload_bytes(halves, (n + 1) / 2 * 4);
    free(halves);
    return range;
}

static void download(vk_range range, float *values, size_t n, enum nn_dtype type)
{
    if (type == NN_F32) {
        check(vk_read(device, (vk_range){range.block, range.offset, n * 4}, values, n * 4));
        return;
    }
    uint16_t *halves = allocate(n + 1, sizeof *halves);
    size_t bytes = (n + 1) / 2 * 4;
    check(vk_read(device, (vk_range){range.block, range.offset, bytes}, halves, bytes));
    for (size_t i = 0; i < n; i++)
        values[i] = type == NN_F16 ? cs_f16_value(halves[i]) : cs_bf16_value(halves[i]);
    free(halves);
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

/* Every third row of what is gathered from is used twice, and the last not at all. */
static void set_rows(trial *t)
{
    t->rows = allocate(t->row_count, sizeof *t->rows);
    for (size_t i = 0; i < t->row_count; i++)
        t->rows[i] = (int32_t)((i * 3 + i % 2) % (t->row_count + 2));
}

/* A trial of what `g` says; sizes of layout and types come from there, strides from `how`. */
static trial make_trial_of(nn_gemm g, enum how how, bool gather)
{
    trial t = {.g = g, .how = how};
    cs_random r = {.seed = 5, .stream = g.m * 64 + g.layout * 8 + how};
    set_strides(&t);
    set_offsets(&t);
    if (gather) {
        t.row_count = g.layout == NN_GEMM_TN ? g.k : g.m;
        *(g.layout == NN_GEMM_TN ? &t.b_size : &t.a_size) += 2 * (size_t)(g.layout == NN_GEMM_TN ? g.n : g.k);
    }
    set_rows(&t);
    t.a = draw(t.a_size, g.a_type, &r);
    t.b = draw(t.b_size, g.b_type, &r);
    t.c = draw(t.c_size, g.c_type, &r);
    t.bias = draw(t.bias_size, NN_F32, &r);
    t.other = draw(t.c_size, g.other_type, &r);
    t.expected = allocate(t.c_size, sizeof(double));
    t.expected_extra = allocate(t.c_size, sizeof(double));
    return t;
}

static trial make_trial(enum nn_gemm_layout layout, enum how how, uint32_t m, uint32_t n, uint32_t k, bool accumulate)
{
    return make_trial_of((nn_gemm){.layout = layout, .m = m, .n = n, .k = k, .accumulate = accumulate}, how, false);
}

static void free_trial(trial *t)
{
    free(t->a);
    free(t->b);
    free(t->c);
    free(t->bias);
    free(t->other);
    free(t->rows);
    free(t->expected);
    free(t->expected_extra);
}

static size_t gathered(const trial *t, uint32_t row)
{
    return t->row_count ? (size_t)t->rows[row] : row;
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
                sum += (double)(g->layout == NN_GEMM_TN ? a[(size_t)p * g->m + i] : a[gathered(t, i) * g->k + p]) *
                       (g->layout == NN_GEMM_NT   ? b[(size_t)j * g->k + p]
                        : g->layout == NN_GEMM_TN ? b[gathered(t, p) * g->n + j]
                                                  : b[(size_t)p * g->n + j]);
            t->expected[(size_t)entry * g->c_stride + i * g->n + j] += sum;
        }
}

static void add_bias(trial *t, uint32_t entry, uint32_t row, uint32_t row_end)
{
    for (uint32_t i = row; i < row_end; i++)
        for (uint32_t j = 0; j < t->g.n; j++)
            t->expected[(size_t)entry * t->g.c_stride + i * t->g.n + j] += t->bias[entry * t->g.bias_stride + j];
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double silu_slope(double x)
{
    double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

static double activated(const nn_gemm *g, double x)
{
    return g->activation == NN_RELU ? fmax(x, 0) : silu(x);
}

static double slope(const nn_gemm *g, double x)
{
    return g->activation == NN_RELU ? x > 0 : silu_slope(x);
}

static double finished(const nn_gemm *g, double v, double other)
{
    switch (g->epilogue) {
    case NN_GEMM_ACTIVATE:
        return activated(g, v);
    case NN_GEMM_GATE:
        return activated(g, other) * v;
    case NN_GEMM_SLOPE:
        return v * slope(g, other);
    case NN_GEMM_ADD:
        return v + other;
    default:
        return v;
    }
}

/* The term of an affinity (specification 2.3). */
static double affinity_term(int kind, double v)
{
    switch (kind) {
    case NN_AFFINITY_SOFTPLUS:
        return log1p(exp(v));
    case NN_AFFINITY_L2NORM:
        return v * v;
    case NN_AFFINITY_RELU:
        return fmax(v, 0);
    case NN_AFFINITY_SIGMOID:
        return 1 / (1 + exp(-v));
    default:
        return silu(v);
    }
}

static size_t extra_size(const trial *t)
{
    return t->g.epilogue == NN_GEMM_AFFINITY ? t->c_size / 4 : t->c_size;
}

/* From the sums in `expected`. */
static void make_extra(trial *t)
{
    bool affinity = t->g.epilogue == NN_GEMM_AFFINITY;
    for (size_t i = 0; i < t->c_size; i++)
        if (affinity)
            t->expected_extra[i / 4] += affinity_term(t->g.activation, t->expected[i]);
        else
            t->expected_extra[i] = t->expected[i];
}

static void make_reference(trial *t)
{
    const nn_gemm *g = &t->g;
    uint32_t copies = t->how == GROUPED ? GROUPS : t->how == PLAIN ? 1 : ENTRIES;
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
    make_extra(t);
    for (size_t i = 0; i < t->c_size; i++)
        t->expected[i] = finished(g, t->expected[i], t->other[i]) + (g->accumulate ? t->c[i] : 0);
}

/* Root mean square difference between a device's values and what they should be, relative to these. */
static double error_of(vk_range range, enum nn_dtype type, const double *expected, size_t n)
{
    float *got = allocate(n, sizeof *got);
    download(range, got, n, type);
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        size += expected[i] * expected[i];
    }
    free(got);
    return sqrt(difference / size);
}

/* Rounding errors of a sum add up like a random walk; those of 16-bit results are a third of the last place at most. */
static double allowed(const trial *t, enum nn_dtype type, const char *variant)
{
    double error = 1e-6 + 3e-8 * sqrt(t->g.k) + (type == NN_F16 ? 3e-4 : type == NN_BF16 ? 2.4e-3 : 0);
    /* An operand of f32 is rounded to the type of the other. */
    if ((!variant || strstr(variant, "coopmat")) && t->g.a_type != t->g.b_type)
        error += t->g.a_type == NN_F16 || t->g.b_type == NN_F16 ? 3e-4 : 2.4e-3;
    return error;
}

static void run_trial(trial *t, const char *variant)
{
    nn_gemm g = t->g;
    g.variant = variant;
    g.a = upload(t->a, t->a_size, g.a_type);
    g.b = upload(t->b, t->b_size, g.b_type);
    g.c = upload(t->c, t->c_size, g.c_type);
    g.bias = upload(t->bias, t->bias_size, NN_F32);
    g.other = upload(t->other, t->c_size, g.other_type);
    g.extra = upload(t->other, extra_size(t), g.extra_type);
    if (g.groups)
        g.offsets = upload_bytes(t->offsets, sizeof t->offsets);
    if (t->row_count)
        g.rows = upload_bytes(t->rows, t->row_count * 4);
    check(nn_gemm_run(device, &g));
    double error = error_of(g.c, g.c_type, t->expected, t->c_size);
    if (!(error < allowed(t, g.c_type, variant)))
        fail_msg("%s %s %ux%ux%u epilogue %d types %d %d %d by %s: error %g", nn_gemm_layout_names[g.layout],
                 how_names[t->how], g.m, g.n, g.k, g.epilogue, g.a_type, g.b_type, g.c_type,
                 variant ? variant : "choice", error);
    if (g.epilogue == NN_GEMM_ACTIVATE || g.epilogue == NN_GEMM_GATE || g.epilogue == NN_GEMM_AFFINITY) {
        error = error_of(g.extra, g.extra_type, t->expected_extra, extra_size(t));
        if (!(error < allowed(t, g.extra_type, variant)))
            fail_msg("extra of %s %s by %s: error %g", nn_gemm_layout_names[g.layout], how_names[t->how],
                     variant ? variant : "choice", error);
    }
    vk_range *ranges[] = {&g.a, &g.b, &g.c, &g.bias, &g.other, &g.extra, &g.offsets, &g.rows};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        vk_free(device, ranges[i]);
}

static void run_named(trial *t, int index)
{
    if (!nn_gemm_variant_suits(device, nn_gemm_variant_name(index), &t->g))
        return;
    run_trial(t, nn_gemm_variant_name(index));
    runs[index]++;
}

/* By the device's choice and one more in turn: each is a kernel to compile, which takes long on CPU drivers. By
 * cooperative matrices of both kinds wherever there are. */
static void try_two(trial *t, size_t turn)
{
    int variants = 0;
    make_reference(t);
    run_trial(t, NULL);
    for (; nn_gemm_variant_name(variants); variants++)
        if (!strcmp(nn_gemm_variant_name(variants), "gemm_coopmat_32") ||
            !strcmp(nn_gemm_variant_name(variants), "gemm_coopmat2_64"))
            run_named(t, variants);
    run_named(t, (int)(turn % (size_t)variants));
}

/* Larger tiles of a kernel that has a variant with smaller ones. */
static bool has_large_tiles(const char *variant)
{
    if (!strcmp(variant, "gemm_coopmat2_64"))
        return false;
    return strstr(variant, "_64") || strstr(variant, "_128") || strstr(variant, "_256") || strstr(variant, "_tall");
}

/* Returns how many variants ran. A kernel's larger tiles take a CPU driver seconds to compile: few tests need them. */
static int try_variants(trial *t, bool large)
{
    int ran = 0;
    make_reference(t);
    for (int i = 0; nn_gemm_variant_name(i); i++) {
        const char *variant = nn_gemm_variant_name(i);
        if (!nn_gemm_variant_suits(device, variant, &t->g) || (!large && has_large_tiles(variant)))
            continue;
        run_trial(t, variant);
        runs[i]++;
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
                assert_true(try_variants(&t, false) > 0);
                free_trial(&t);
            }
}

/* Epilogues, types and gathered rows, in all layouts, plain and grouped. */
static void test_epilogues(void **state)
{
    static const struct {
        enum nn_gemm_epilogue epilogue;
        enum nn_activation activation;
        enum nn_dtype a, b, c, other, extra;
        bool gather, accumulate;
    } rows[] = {
        {NN_GEMM_NONE, 0, NN_BF16, NN_BF16, NN_F32, 0, 0, false, true},
        {NN_GEMM_NONE, 0, NN_F16, NN_F16, NN_F16, 0, 0, true, false},
        {NN_GEMM_NONE, 0, NN_F32, NN_BF16, NN_BF16, 0, 0, true, true},
        {NN_GEMM_ACTIVATE, NN_SILU, NN_F32, NN_F32, NN_F32, 0, NN_F32, false, false},
        {NN_GEMM_ACTIVATE, NN_RELU, NN_BF16, NN_BF16, NN_BF16, 0, NN_BF16, true, false},
        {NN_GEMM_GATE, NN_SILU, NN_F32, NN_F32, NN_F32, NN_F32, NN_F32, true, true},
        {NN_GEMM_GATE, NN_SILU, NN_F16, NN_F32, NN_F16, NN_BF16, NN_F16, false, false},
        {NN_GEMM_SLOPE, NN_SILU, NN_F32, NN_F32, NN_F32, NN_F32, 0, false, false},
        {NN_GEMM_SLOPE, NN_RELU, NN_BF16, NN_F16, NN_BF16, NN_F16, 0, true, false},
        {NN_GEMM_ADD, 0, NN_F32, NN_F32, NN_F32, NN_F32, 0, true, false},
        {NN_GEMM_ADD, 0, NN_F16, NN_F16, NN_F32, NN_F16, 0, false, true},
    };
    static const uint32_t shapes[][3] = {{40, 72, 24}, {21, 34, 11}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
            size_t s = (i + layout) % 2;
            nn_gemm g = {.layout = layout, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2],
                         .a_type = rows[i].a, .b_type = rows[i].b, .c_type = rows[i].c,
                         .epilogue = rows[i].epilogue, .activation = rows[i].activation,
                         .other_type = rows[i].other, .extra_type = rows[i].extra,
                         .accumulate = rows[i].accumulate};
            trial t = make_trial_of(g, i % 2 ? GROUPED : PLAIN, rows[i].gather);
            try_two(&t, i + layout);
            free_trial(&t);
        }
}

/* Sums of an affinity's terms, of rows of whole eights and of fours. */
static void test_affinity_sums(void **state)
{
    static const struct {
        enum nn_affinity_kind kind;
        enum how how;
        uint32_t n;
        enum nn_dtype operands, result;
    } rows[] = {
        {NN_AFFINITY_SOFTPLUS, BATCHED, 72, NN_F32, NN_F32},
        {NN_AFFINITY_L2NORM, BATCHED, 36, NN_F16, NN_F16},
        {NN_AFFINITY_RELU, GROUPED, 72, NN_BF16, NN_BF16},
        {NN_AFFINITY_SIGMOID, SHARED_A, 36, NN_F32, NN_F32},
        {NN_AFFINITY_SILU, PLAIN, 40, NN_F32, NN_BF16},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = 21, .n = rows[i].n, .k = 24, .a_type = rows[i].operands,
                     .b_type = rows[i].operands, .c_type = rows[i].result, .epilogue = NN_GEMM_AFFINITY,
                     .activation = rows[i].kind};
        trial t = make_trial_of(g, rows[i].how, false);
        try_two(&t, i);
        run_trial(&t, nn_gemm_plainest()->name);
        free_trial(&t);
    }
}

/* The same in parts: a batch and rows are halved, and their sums with them. */
static void test_affinity_parts(void **state)
{
    (void)state;
    for (int batched = 0; batched < 2; batched++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = batched ? 64 : 200, .n = 40, .k = 16, .epilogue = NN_GEMM_AFFINITY,
                     .max_range = 16384};
        trial t = make_trial_of(g, batched ? BATCHED : PLAIN, false);
        assert_true(t.c_size * 4 > g.max_range);
        make_reference(&t);
        run_trial(&t, NULL);
        free_trial(&t);
    }
}

/* They need memory of f32, and columns and strides in whole fours. */
static void test_affinity_refused(void **state)
{
    static const struct {
        uint32_t n, c_stride;
        bool memory;
        enum nn_dtype extra;
    } rows[] = {{6, 0, true, NN_F32}, {8, 34, true, NN_F32}, {8, 0, false, NN_F32}, {8, 0, true, NN_F16}};
    static const float zeros[128];
    (void)state;
    vk_range memory = upload(zeros, 128, NN_F32);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = NN_GEMM_NT, .m = 4, .n = rows[i].n, .k = 8, .a = memory, .b = memory, .c = memory,
                     .c_stride = rows[i].c_stride, .epilogue = NN_GEMM_AFFINITY, .extra_type = rows[i].extra};
        g.extra = rows[i].memory ? memory : (vk_range){0};
        assert_false(nn_gemm_run(device, &g));
        assert_non_null(strstr(cs_error(), "whole fours"));
    }
    vk_free(device, &memory);
}

/* 16-bit operands of whole tiles and of ragged ones, in all that a product can be of. */
static void test_16_bits(void **state)
{
    static const uint32_t shapes[][3] = {{64, 128, 64}, {40, 24, 72}, {21, 34, 11}};
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
            for (enum how how = PLAIN; how < HOWS; how++) {
                enum nn_dtype type = (layout + how) % 2 ? NN_BF16 : NN_F16;
                nn_gemm g = {.layout = layout, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2],
                             .a_type = type, .b_type = type, .accumulate = how % 2};
                trial t = make_trial_of(g, how, false);
                try_two(&t, s + layout + how);
                free_trial(&t);
            }
}

/* Few columns, and few behind whole tiles, in so many rows that a workgroup makes whole rows of tiles: gemm_shuffle has
 * narrower ones for these. */
static void test_narrow_tiles(void **state)
{
    static const struct {
        enum nn_gemm_layout layout;
        uint32_t n;
        enum how how;
        enum nn_gemm_epilogue epilogue;
        enum nn_dtype operands, result;
        bool gather, accumulate;
    } rows[] = {
        {NN_GEMM_NT, 40, PLAIN, NN_GEMM_NONE, NN_F32, NN_F32, false, true},
        {NN_GEMM_NT, 48, GROUPED, NN_GEMM_GATE, NN_BF16, NN_BF16, true, false},
        {NN_GEMM_NT, 16, BATCHED, NN_GEMM_NONE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NT, 8, PLAIN, NN_GEMM_NONE, NN_F16, NN_F16, true, false},
        {NN_GEMM_NN, 40, GROUPED, NN_GEMM_SLOPE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NN, 48, PLAIN, NN_GEMM_ADD, NN_F16, NN_F32, false, true},
        {NN_GEMM_NN, 16, GROUPED, NN_GEMM_ACTIVATE, NN_F32, NN_F32, false, false},
        {NN_GEMM_NN, 8, PLAIN, NN_GEMM_NONE, NN_BF16, NN_F32, false, false},
        {NN_GEMM_TN, 40, GROUPED, NN_GEMM_NONE, NN_BF16, NN_F32, true, false},
        {NN_GEMM_TN, 48, SUMMED, NN_GEMM_NONE, NN_F32, NN_F32, false, true},
        {NN_GEMM_TN, 16, PLAIN, NN_GEMM_NONE, NN_F16, NN_F32, true, false},
        {NN_GEMM_TN, 8, GROUPED, NN_GEMM_NONE, NN_F32, NN_F32, false, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nn_gemm g = {.layout = rows[i].layout, .m = 1040, .n = rows[i].n, .k = 40,
                     .a_type = rows[i].operands, .b_type = rows[i].operands, .c_type = rows[i].result,
                     .epilogue = rows[i].epilogue, .activation = NN_SILU, .other_type = rows[i].result,
                     .extra_type = rows[i].result, .accumulate = rows[i].accumulate};
        trial t = make_trial_of(g, rows[i].how, rows[i].gather);
        if (!nn_gemm_variant_suits(device, "gemm_shuffle_wide", &t.g)) {
            free_trial(&t);
            skip();
        }
        make_reference(&t);
        run_trial(&t, NULL);
        free_trial(&t);
    }
}

/* Many tiles, by every variant that suits. */
static void test_many_tiles(void **state)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
        nn_gemm g = {.layout = layout, .m = 515, .n = 500, .k = 20, .a_type = types[layout], .b_type = types[layout]};
        trial t = make_trial_of(g, PLAIN, false);
        assert_true(try_variants(&t, true) > 1);
        free_trial(&t);
    }
}

/* Long rows, whole texels and not, which take more terms in a turn; more terms than lavapipe's longest loop. */
static void test_many_terms(void **state)
{
    static const struct {
        enum nn_gemm_layout layout;
        uint32_t m, n, k;
        bool accumulate;
    } rows[] = {
        {NN_GEMM_NT, 20, 36, 1036, false},
        {NN_GEMM_NT, 9, 10, 1030, true},
        {NN_GEMM_TN, 4, 4, 300000, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trial t = make_trial(rows[i].layout, PLAIN, rows[i].m, rows[i].n, rows[i].k, rows[i].accumulate);
        assert_true(try_variants(&t, false) > 0);
        free_trial(&t);
    }
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
            int variants = try_variants(&t, false);
            assert_true(variants > 0);
            assert_true(vk_counters_get(device).dispatches > before + (uint64_t)variants);
            free_trial(&t);
        }
}

/* Weights, or their gradients, of several groups at once are more than a device binds. */
static void test_group_parts(void **state)
{
    (void)state;
    for (enum nn_gemm_layout layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++) {
        uint32_t rows = layout == NN_GEMM_TN ? 64 : 32, terms = layout == NN_GEMM_TN ? 32 : 64;
        trial t = make_trial(layout, GROUPED, rows, 64, terms, layout == NN_GEMM_TN);
        t.g.max_range = 20 << 10;
        t.g.variant = "gemm_tiled_32"; /* others take B as texels, which have another limit */
        uint64_t before = vk_counters_get(device).dispatches;
        make_reference(&t);
        run_trial(&t, t.g.variant);
        assert_int_equal(vk_counters_get(device).dispatches, before + GROUPS);
        free_trial(&t);
    }
}

/* Matrices of whole workgroups: what takes which device and product, and that nothing but tuning chooses them. */
static void test_workgroup_matrices(void **state)
{
    static const vk_caps caps = {
        .type = VK_TYPE_DISCRETE,
        .subgroup_size = 32, .subgroup_min = 32, .subgroup_max = 32, .subgroup_control = true,
        .max_invocations = 1024, .max_shared_bytes = 48 << 10, .texel_align = 16, .float16 = true,
        .matrix = {{16, 16, 16, false}}, .matrix_count = 1,
        .matrix2 = {{32, 16, 16, 128, false}, {32, 32, 16, 256, false}}, .matrix2_count = 2,
        .matrix2_max_size = 1024, .matrix2_shared_bytes = 32 << 10,
    };
    vk_caps no_grain = caps, no_room = caps, small = caps;
    nn_gemm plain = {.m = 512, .n = 512, .k = 512, .a_type = NN_F16, .b_type = NN_F16};
    nn_gemm single = plain, brain = plain, ragged = plain, unaligned = plain, mixed = plain, exact = plain;
    const struct {
        const char *what;
        const vk_caps *caps;
        const nn_gemm *g;
        bool suits;
    } rows[] = {
        {"plain", &caps, &plain, true},
        {"rows of any length", &caps, &ragged, true},
        {"one operand of f32", &caps, &mixed, true},
        {"one operand of f32 that is not to be rounded", &caps, &exact, false},
        {"entries that begin anywhere", &caps, &unaligned, false},
        {"both operands of f32", &caps, &single, false},
        {"a type that the device lacks", &caps, &brain, false},
        {"other numbers of invocations", &no_grain, &plain, false},
        {"no shared memory left", &no_room, &plain, false},
        {"matrices that are too small", &small, &plain, false},
    };
    const nn_gemm_variant *v = nn_gemm_find("gemm_coopmat2_128");
    (void)state;
    no_grain.matrix2_count = 1;
    no_room.matrix2_shared_bytes = 45 << 10;
    small.matrix2_max_size = 64;
    single.a_type = single.b_type = NN_F32;
    brain.a_type = brain.b_type = NN_BF16;
    ragged.k = ragged.n = 511;
    mixed.b_type = exact.b_type = NN_F32;
    exact.exact = true;
    unaligned.batch = 2, unaligned.b_stride = 511 * 512 + 1;
    assert_non_null(v);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (v->suits(rows[i].caps, v, rows[i].g) != (rows[i].suits && vk_has_kernel("gemm_coopmat2_f16")))
            fail_msg("%s: should %s", rows[i].what, rows[i].suits ? "do" : "not do");
        assert_false(nn_gemm_built_in(rows[i].caps, rows[i].g)->unproven);
    }
    assert_string_equal(nn_gemm_built_in(&caps, &exact)->kernel, "gemm_tiled");
}

static void test_faults(void **state)
{
    (void)state;
    float zero[16] = {0};
    vk_range range = upload_bytes(zero, sizeof zero);
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
    g.batch = g.groups = 0;
    g.n = 3;
    g.c_type = NN_BF16;
    assert_false(nn_gemm_run(device, &g));
    assert_non_null(strstr(cs_error(), "even number of columns"));
    vk_free(device, &range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_epilogues),
        cmocka_unit_test(test_affinity_sums),
        cmocka_unit_test(test_affinity_parts),
        cmocka_unit_test(test_affinity_refused),
        cmocka_unit_test(test_16_bits),
        cmocka_unit_test(test_narrow_tiles),
        cmocka_unit_test(test_many_tiles),
        cmocka_unit_test(test_many_terms),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_group_parts),
        cmocka_unit_test(test_workgroup_matrices),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
