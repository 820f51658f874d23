/* What the tests of matrix products share: products of every kind with operands on the host, what they should be in
 * double, and runs of them by one variant or several. */
#ifndef TESTS_GEMM_FIXTURE_H
#define TESTS_GEMM_FIXTURE_H

#include "base/half.h"
#include "nn/gemm_internal.h"
#include "nn/moe_ops.h"
#include "nn/ops.h"
#include "tests/nn_fixture.h"

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

/* How often each variant ran, for the end of the log. */
static int runs[32];

static inline int report_and_close(void **state)
{
    for (int i = 0; nn_gemm_variant_name(i); i++)
        print_message("%s: %d products\n", nn_gemm_variant_name(i), runs[i]);
    return close_device(state);
}

static inline float rounded(float x, enum nn_dtype type)
{
    return type == NN_F16    ? cs_f16_value(cs_f16_bits(x))
           : type == NN_BF16 ? cs_bf16_value(cs_bf16_bits(x))
                             : x;
}

static inline void *allocate(size_t n, size_t size)
{
    void *x = calloc(n ? n : 1, size);
    assert_non_null(x);
    return x;
}

static inline float *draw(size_t n, enum nn_dtype type, cs_random *r)
{
    float *x = allocate(n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rounded(cs_random_normal(r), type);
    return x;
}

static inline vk_range upload_bytes(const void *data, size_t bytes)
{
    vk_range range = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "a test");
    check(range.block);
    check(vk_upload(device, range, data, bytes));
    return range;
}

static inline vk_range upload(const float *values, size_t n, enum nn_dtype type)
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

static inline void download(vk_range range, float *values, size_t n, enum nn_dtype type)
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

static inline void set_strides(trial *t)
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
static inline void set_offsets(trial *t)
{
    uint32_t rows = t->g.layout == NN_GEMM_TN ? t->g.k : t->g.m;
    int32_t at[] = {0, 1, 1, (int32_t)(rows / 3 + 1), (int32_t)rows};
    memcpy(t->offsets, at, sizeof at);
}

/* Every third row of what is gathered from is used twice, and the last not at all. */
static inline void set_rows(trial *t)
{
    t->rows = allocate(t->row_count, sizeof *t->rows);
    for (size_t i = 0; i < t->row_count; i++)
        t->rows[i] = (int32_t)((i * 3 + i % 2) % (t->row_count + 2));
}

/* A trial of what `g` says; sizes of layout and types come from there, strides from `how`. */
static inline trial make_trial_of(nn_gemm g, enum how how, bool gather)
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

static inline trial make_trial(enum nn_gemm_layout layout, enum how how, uint32_t m, uint32_t n, uint32_t k,
                               bool accumulate)
{
    return make_trial_of((nn_gemm){.layout = layout, .m = m, .n = n, .k = k, .accumulate = accumulate}, how, false);
}

static inline void drop_bias(trial *t)
{
    memset(t->bias, 0, t->bias_size * sizeof *t->bias);
    t->bias_size = 0;
}

static inline void free_trial(trial *t)
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

static inline size_t gathered(const trial *t, uint32_t row)
{
    return t->row_count ? (size_t)t->rows[row] : row;
}

/* Adds rows [row, row_end) of one product over terms [term, term_end). */
static inline void reference(trial *t, uint32_t entry, uint32_t row, uint32_t row_end, uint32_t term, uint32_t term_end)
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

static inline void add_bias(trial *t, uint32_t entry, uint32_t row, uint32_t row_end)
{
    for (uint32_t i = row; i < row_end; i++)
        for (uint32_t j = 0; j < t->g.n; j++)
            t->expected[(size_t)entry * t->g.c_stride + i * t->g.n + j] += t->bias[entry * t->g.bias_stride + j];
}

static inline double silu(double x)
{
    return x / (1 + exp(-x));
}

static inline double silu_slope(double x)
{
    double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

static inline double activated(const nn_gemm *g, double x)
{
    return g->activation == NN_RELU ? fmax(x, 0) : silu(x);
}

static inline double slope(const nn_gemm *g, double x)
{
    return g->activation == NN_RELU ? x > 0 : silu_slope(x);
}

static inline double finished(const nn_gemm *g, double v, double other)
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
static inline double affinity_term(int kind, double v)
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

static inline size_t extra_size(const trial *t)
{
    return t->g.epilogue == NN_GEMM_AFFINITY ? t->c_size / 4 : t->c_size;
}

/* From the sums in `expected`. */
static inline void make_extra(trial *t)
{
    bool affinity = t->g.epilogue == NN_GEMM_AFFINITY;
    for (size_t i = 0; i < t->c_size; i++)
        if (affinity)
            t->expected_extra[i / 4] += affinity_term(t->g.activation, t->expected[i]);
        else
            t->expected_extra[i] = t->expected[i];
}

static inline void make_reference(trial *t)
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
static inline double error_of(vk_range range, enum nn_dtype type, const double *expected, size_t n)
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
static inline double allowed(const trial *t, enum nn_dtype type, const char *variant)
{
    double error = 1e-6 + 3e-8 * sqrt(t->g.k) + (type == NN_F16 ? 3e-4 : type == NN_BF16 ? 2.4e-3 : 0);
    /* An operand of f32 is rounded to the type of the other. */
    if ((!variant || strstr(variant, "coopmat")) && t->g.a_type != t->g.b_type)
        error += t->g.a_type == NN_F16 || t->g.b_type == NN_F16 ? 3e-4 : 2.4e-3;
    return error;
}

static inline void run_trial(trial *t, const char *variant)
{
    nn_gemm g = t->g;
    g.variant = variant;
    g.a = upload(t->a, t->a_size, g.a_type);
    g.b = upload(t->b, t->b_size, g.b_type);
    g.c = upload(t->c, t->c_size, g.c_type);
    if (t->bias_size)
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

static inline void run_named(trial *t, int index)
{
    if (!nn_gemm_variant_suits(device, nn_gemm_variant_name(index), &t->g))
        return;
    run_trial(t, nn_gemm_variant_name(index));
    runs[index]++;
}

/* By the device's choice and one more in turn: each is a kernel to compile, which takes long on CPU drivers. By
 * cooperative matrices of both kinds wherever there are. */
static inline void try_two(trial *t, size_t turn)
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
static inline bool has_large_tiles(const char *variant)
{
    if (!strcmp(variant, "gemm_coopmat2_64"))
        return false;
    return strstr(variant, "_64") || strstr(variant, "_128") || strstr(variant, "_256") || strstr(variant, "_tall");
}

/* Returns how many variants ran. A kernel's larger tiles take a CPU driver seconds to compile: few tests need them. */
static inline int try_variants(trial *t, bool large)
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

#endif
