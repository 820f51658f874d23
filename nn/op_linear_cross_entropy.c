/* Cross-entropy of x w^T against labels without the logits of the whole vocabulary: they are made for one chunk of its
 * entries after the other, forward (log sum exp as it goes) and once more backward. Outputs as cross_entropy's. */
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/cross_entropy.h"
#include "nn/gemm.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

enum { IN_X, IN_W, IN_LABELS };
enum { OUT_LOSS, OUT_BEST, OUT_LOG_SUMS };

typedef struct loss_params {
    float scale;
    int32_t chunk; /* entries of the vocabulary at once */
} loss_params;

static const loss_params *params_of(const nn_node *n)
{
    return (const loss_params *)n->params;
}

/* Chunks start where a device can bind a buffer. */
enum { CHUNK_STEP = 64 };

nn_tensor *nn_linear_cross_entropy(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *labels, float scale,
                                   int64_t chunk, nn_tensor **best)
{
    if (!w || nn_rows(w) <= chunk)
        return nn_cross_entropy(tape, nn_linear_f32(tape, x, w, NULL), labels, scale, best);
    nn_tensor *in[] = {x, w, labels}, *out[3];
    nn_apply(tape, &nn_op_linear_cross_entropy, &(loss_params){scale, (int32_t)chunk}, in, 3, out);
    if (best)
        *best = out[OUT_BEST];
    return out[OUT_LOSS];
}

static bool infer(nn_node *n)
{
    static const char name[] = "linear_cross_entropy";
    const nn_tensor *x = n->in[IN_X], *w = n->in[IN_W];
    int64_t rows = nn_rows(x);
    for (int i = 0; i < 3; i++) {
        n->out[i]->dtype = i == OUT_BEST ? NN_I32 : NN_F32;
        n->out[i]->dims = 1;
        n->out[i]->shape[0] = i == OUT_LOSS ? 1 : rows;
    }
    if (!nn_expect_values(name, "x", x) || !nn_expect_floats(name, "w", w) ||
        !nn_expect_integers(name, "labels", n->in[IN_LABELS], rows))
        return false;
    if (w->dims != 2 || nn_cols(w) != nn_cols(x))
        return cs_fail("%s: w %s must be [vocabulary, %lld]", name, nn_shape_string(w).text, (long long)nn_cols(x));
    return params_of(n)->chunk > 0 || cs_fail("%s: chunks of %d entries", name, params_of(n)->chunk);
}

static double flops(const nn_node *n)
{
    return (2.0 * (double)nn_cols(n->in[IN_X]) + 20) * (double)nn_rows(n->in[IN_X]) * (double)nn_rows(n->in[IN_W]);
}

/* ---- a chunk ----------------------------------------------------------------------------------------------------- */

static int64_t chunk_entries(const nn_node *n)
{
    return (params_of(n)->chunk + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
}

static vk_bind make_logits(nn_exec *x, const nn_node *n)
{
    int64_t vocabulary = nn_rows(n->in[IN_W]), chunk = chunk_entries(n);
    return nn_scratch(x, (uint64_t)nn_rows(n->in[IN_X]) * (uint64_t)(chunk < vocabulary ? chunk : vocabulary) * 4);
}

/* The chunk at `first`; its logits will lie in `logits`. */
static nn_logits_chunk chunk_at(const nn_node *n, int64_t first, vk_bind logits)
{
    int64_t vocabulary = nn_rows(n->in[IN_W]), chunk = chunk_entries(n);
    return (nn_logits_chunk){
        .rows = nn_rows(n->in[IN_X]),
        .columns = vocabulary,
        .first = first,
        .count = first + chunk < vocabulary ? chunk : vocabulary - first,
        .logits = logits,
        .labels = nn_read_bind(n->in[IN_LABELS]),
        .log_sums = nn_read_bind(n->out[OUT_LOG_SUMS]),
    };
}

/* The chunk's entries of w, or of its gradient. */
static vk_range entries_of(const nn_node *n, const nn_logits_chunk *c, vk_range all, enum nn_dtype type)
{
    uint64_t entry = (uint64_t)nn_cols(n->in[IN_W]) * nn_dtype_size(type);
    return (vk_range){all.block, all.offset + (uint64_t)c->first * entry, (uint64_t)c->count * entry};
}

/* logits = x w^T */
static bool compute_logits(nn_exec *x, const nn_node *n, const nn_logits_chunk *c)
{
    nn_operand w = nn_product_operand(n, n->in[IN_W]);
    return nn_gemm_run(nn_device(x), &(nn_gemm){
        .layout = NN_GEMM_NT,
        .label = "vocabulary",
        .m = (uint32_t)c->rows,
        .n = (uint32_t)c->count,
        .k = (uint32_t)nn_cols(n->in[IN_X]),
        .a = nn_read_bind(n->in[IN_X]).range,
        .a_type = n->in[IN_X]->dtype,
        .b = entries_of(n, c, w.range, w.type),
        .b_type = w.type,
        .c = c->logits.range,
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t rows = nn_rows(n->in[IN_X]), vocabulary = nn_rows(n->in[IN_W]);
    nn_loss_scratch s = nn_loss_scratch_make(x, rows, true);
    vk_bind logits = make_logits(x, n);
    for (int64_t first = 0; first < vocabulary; first += chunk_entries(n)) {
        nn_logits_chunk c = chunk_at(n, first, logits);
        c.logits.access = VK_READ;
        if (!compute_logits(x, n, &c) || !nn_cross_entropy_chunk(nn_device(x), &c, &s, nn_write_bind(n->out[OUT_BEST])))
            return false;
    }
    return nn_cross_entropy_finish(nn_device(x), &s, rows, params_of(n)->scale, nn_write_bind(n->out[OUT_LOSS]));
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* A gradient that the chunks add to. */
typedef struct target {
    bool wanted, accumulate;
    vk_range range;
} target;

static target take(nn_exec *x, nn_tensor *t)
{
    target g = {.wanted = nn_wants_grad(t)};
    if (g.wanted)
        g.range = nn_din_bind(x, t, &g.accumulate).range;
    return g;
}

/* dx += dlogits w; the first chunk writes where there is nothing to add to. */
static bool add_dx(nn_exec *x, const nn_node *n, const nn_logits_chunk *c, const target *dx)
{
    nn_operand w = nn_product_operand(n, n->in[IN_W]);
    return !dx->wanted || nn_gemm_run(nn_device(x), &(nn_gemm){
        .layout = NN_GEMM_NN,
        .label = "vocabulary dx",
        .m = (uint32_t)c->rows,
        .n = (uint32_t)nn_cols(n->in[IN_X]),
        .k = (uint32_t)c->count,
        .a = c->logits.range,
        .b = entries_of(n, c, w.range, w.type),
        .b_type = w.type,
        .c = dx->range,
        .accumulate = dx->accumulate || c->first > 0,
    });
}

/* dw = dlogits^T x */
static bool add_dw(nn_exec *x, const nn_node *n, const nn_logits_chunk *c, const target *dw)
{
    return !dw->wanted || nn_gemm_run(nn_device(x), &(nn_gemm){
        .layout = NN_GEMM_TN,
        .label = "vocabulary dw",
        .m = (uint32_t)c->count,
        .n = (uint32_t)nn_cols(n->in[IN_X]),
        .k = (uint32_t)c->rows,
        .a = c->logits.range,
        .b = nn_read_bind(n->in[IN_X]).range,
        .b_type = n->in[IN_X]->dtype,
        .c = entries_of(n, c, dw->range, NN_F32),
        .accumulate = dw->accumulate,
    });
}

/* dx of a 16-bit x is summed in f32 and rounded once. */
static bool round_dx(nn_exec *x, const nn_node *n, vk_bind sums)
{
    nn_tensor *t = n->in[IN_X];
    bool accumulate;
    vk_bind dx = nn_din_bind(x, t, &accumulate);
    sums.access = VK_READ;
    return nn_cast_run(nn_device(x), (nn_row_bind){.bind = sums, .values = true, .type = NN_F32},
                       nn_row_din(dx, t, 0), nn_count(t), accumulate);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *source = n->in[IN_X];
    bool rounds = nn_wants_grad(source) && nn_is_half(source->dtype);
    vk_bind logits = make_logits(x, n), sums = {.access = VK_WRITE};
    target dw = take(x, n->in[IN_W]), dx;
    if (rounds) {
        sums = nn_scratch(x, (uint64_t)nn_count(source) * 4);
        dx = (target){.wanted = true, .range = sums.range};
    } else {
        dx = take(x, n->in[IN_X]);
    }
    for (int64_t first = 0; first < nn_rows(n->in[IN_W]); first += chunk_entries(n)) {
        nn_logits_chunk c = chunk_at(n, first, logits);
        vk_bind d = c.logits;
        c.logits.access = VK_READ;
        d.access = VK_WRITE;
        if (!compute_logits(x, n, &c) ||
            !nn_cross_entropy_slope(nn_device(x), &c, params_of(n)->scale, nn_dout_bind(n->out[OUT_LOSS]), d, false) ||
            !add_dx(x, n, &c, &dx) || !add_dw(x, n, &c, &dw))
            return false;
    }
    return !rounds || round_dx(x, n, sums);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void reference_logits(const nn_ref *r, int64_t row, double *logits)
{
    int64_t cols = nn_cols(r->node->in[IN_X]);
    for (int64_t v = 0; v < nn_rows(r->node->in[IN_W]); v++) {
        logits[v] = 0;
        for (int64_t c = 0; c < cols; c++)
            logits[v] += r->in[IN_X][row * cols + c] * r->in[IN_W][v * cols + c];
    }
}

static void ref_forward(const nn_ref *r)
{
    int64_t vocabulary = nn_rows(r->node->in[IN_W]);
    double *logits = cs_alloc((size_t)vocabulary, sizeof *logits, "a reference");
    r->out[OUT_LOSS][0] = 0;
    for (int64_t i = 0; logits && i < nn_rows(r->node->in[IN_X]); i++) {
        int64_t best, label = (int64_t)r->in[IN_LABELS][i];
        reference_logits(r, i, logits);
        double log_sum = nn_reference_log_sum(logits, vocabulary, &best);
        bool counts = label >= 0 && label < vocabulary;
        r->out[OUT_BEST][i] = (double)best;
        r->out[OUT_LOG_SUMS][i] = counts ? log_sum : 0;
        r->out[OUT_LOSS][0] += counts ? params_of(r->node)->scale * (log_sum - logits[label]) : 0;
    }
    free(logits);
}

static void ref_backward(const nn_ref *r)
{
    int64_t vocabulary = nn_rows(r->node->in[IN_W]), cols = nn_cols(r->node->in[IN_X]);
    double *logits = cs_alloc((size_t)vocabulary, sizeof *logits, "a reference");
    for (int64_t i = 0; logits && i < nn_rows(r->node->in[IN_X]); i++) {
        int64_t best, label = (int64_t)r->in[IN_LABELS][i];
        if (label < 0 || label >= vocabulary)
            continue;
        reference_logits(r, i, logits);
        double log_sum = nn_reference_log_sum(logits, vocabulary, &best);
        for (int64_t v = 0; v < vocabulary; v++) {
            double d = params_of(r->node)->scale * r->dout[OUT_LOSS][0] * (exp(logits[v] - log_sum) - (v == label));
            for (int64_t c = 0; c < cols; c++) {
                if (r->din[IN_X])
                    r->din[IN_X][i * cols + c] += d * r->in[IN_W][v * cols + c];
                if (r->din[IN_W])
                    r->din[IN_W][v * cols + c] += d * r->in[IN_X][i * cols + c];
            }
        }
    }
    free(logits);
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Labels spread over all chunks, every fourth ignored. */
static void fill_labels(const nn_case *c, int i, double *const *values)
{
    int64_t rows = c->in[i].shape[0], vocabulary = c->in[IN_W].shape[0];
    for (int64_t j = 0; j < rows; j++)
        values[i][j] = j % 4 == 3 ? -100 : (double)(j * (vocabulary - 1) / rows);
}

static const loss_params chunks_of_64 = {0.05f, 64}, chunks_of_8192 = {1, 8192};

#define CASE(rows, cols, vocabulary) \
    .in = {{NN_F32, 2, {rows, cols}, NN_FILL_NORMAL}, \
           {NN_F32, 2, {vocabulary, cols}, NN_FILL_NORMAL}, \
           {NN_I32, 1, {rows}, NN_FILL_CUSTOM}}, \
    .fill = fill_labels

static const nn_case cases[] = {
    {.name = "[30, 16] of 256 in 4 chunks", CASE(30, 16, 256), .params = &chunks_of_64},
    {.name = "the last chunk shorter, odd sizes", CASE(9, 7, 203), .params = &chunks_of_64},
    {.name = "one chunk", CASE(5, 8, 40), .params = &chunks_of_64},
    {.name = "[4, 8] of 128256", CASE(4, 8, 128256), .params = &chunks_of_8192},
    {.name = "[512, 256] of 32000", CASE(512, 256, 32000), .params = &chunks_of_8192, .bench = true},
};

const nn_op nn_op_linear_cross_entropy = {
    .name = "linear_cross_entropy",
    .ins = 3,
    .outs = 3,
    .aux_out = 1 << OUT_LOG_SUMS,
    .keep_in = 1 << IN_X | 1 << IN_W | 1 << IN_LABELS,
    .keep_out = 1 << OUT_LOG_SUMS,
    .half_in = 1 << IN_X,
    .param_bytes = sizeof(loss_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
