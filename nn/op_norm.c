/* RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension, plain and behind a sum (the
 * residual connection of a pre-norm block). Outputs: x + y where there is a sum; the result; and the statistics
 * [rows, 2] (mean, 0 for RMSNorm; reciprocal deviation) that the backward pass reads. */
#include <math.h>

#include "base/error.h"
#include "nn/bias_sum.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct norm_params {
    float eps;
} norm_params;

static float eps_of(const nn_node *n)
{
    return ((const norm_params *)n->params)->eps;
}

/* ---- the tensors of the four operators --------------------------------------------------------------------------- */

/* In: x, y where there is a sum, gain, bias of a LayerNorm. Out: the sum where there is one, result, statistics. */
static bool has_sum(const nn_node *n)
{
    return n->outs == 3;
}

static bool is_layer(const nn_node *n)
{
    return n->ins == (has_sum(n) ? 4 : 3);
}

static nn_tensor *addend_of(const nn_node *n)
{
    return has_sum(n) ? n->in[1] : NULL;
}

static nn_tensor *gain_of(const nn_node *n)
{
    return n->in[1 + has_sum(n)];
}

static nn_tensor *bias_of(const nn_node *n)
{
    return is_layer(n) ? n->in[2 + has_sum(n)] : NULL;
}

static nn_tensor *sum_of(const nn_node *n)
{
    return has_sum(n) ? n->out[0] : NULL;
}

/* What is normalised. */
static nn_tensor *source_of(const nn_node *n)
{
    return has_sum(n) ? n->out[0] : n->in[0];
}

static nn_tensor *result_of(const nn_node *n)
{
    return n->out[has_sum(n)];
}

static nn_tensor *stats_of(const nn_node *n)
{
    return n->out[1 + has_sum(n)];
}

nn_tensor *nn_rms_norm(nn_tape *tape, nn_tensor *x, nn_tensor *gain, float eps)
{
    nn_tensor *in[] = {x, gain}, *out[2];
    nn_apply(tape, &nn_op_rms_norm, &(norm_params){eps}, in, 2, out);
    return out[0];
}

nn_tensor *nn_layer_norm(nn_tape *tape, nn_tensor *x, nn_tensor *gain, nn_tensor *bias, float eps)
{
    nn_tensor *in[] = {x, gain, bias}, *out[2];
    nn_apply(tape, &nn_op_layer_norm, &(norm_params){eps}, in, 3, out);
    return out[0];
}

nn_tensor *nn_add_rms_norm(nn_tape *tape, nn_tensor *x, nn_tensor *y, nn_tensor *gain, float eps, nn_tensor **sum)
{
    nn_tensor *in[] = {x, y, gain}, *out[3];
    nn_apply(tape, &nn_op_add_rms_norm, &(norm_params){eps}, in, 3, out);
    *sum = out[0];
    return out[1];
}

nn_tensor *nn_add_layer_norm(nn_tape *tape, nn_tensor *x, nn_tensor *y, nn_tensor *gain, nn_tensor *bias, float eps,
                             nn_tensor **sum)
{
    nn_tensor *in[] = {x, y, gain, bias}, *out[3];
    nn_apply(tape, &nn_op_add_layer_norm, &(norm_params){eps}, in, 4, out);
    *sum = out[0];
    return out[1];
}

static bool infer(nn_node *n)
{
    const nn_tensor *x = n->in[0];
    const char *name = n->op->name;
    nn_shape_like(n->out[0], x);
    nn_shape_like(result_of(n), x);
    if (has_sum(n))
        sum_of(n)->dtype = NN_F32;
    result_of(n)->dtype = nn_product_type(n, nn_cols(x));
    nn_tensor *stats = stats_of(n);
    stats->dtype = NN_F32;
    stats->dims = 2;
    stats->shape[0] = nn_rows(x);
    stats->shape[1] = 2;
    if (has_sum(n) && !nn_expect_alike(name, "x", x, "y", addend_of(n)))
        return false;
    if (!nn_expect_values(name, "x", x) || !nn_expect_row(name, "gain", gain_of(n), nn_cols(x)))
        return false;
    if (is_layer(n) && !nn_expect_row(name, "bias", bias_of(n), nn_cols(x)))
        return false;
    return eps_of(n) >= 0 || cs_fail("%s: eps %g is negative", name, eps_of(n));
}

static double flops(const nn_node *n)
{
    return (is_layer(n) ? 8.0 : 5.0) * (double)nn_count(n->in[0]);
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static const uint64_t stats_stride = 8;

/* How a row is spread: `held` units for each of `lanes` invocations. */
typedef struct spread {
    enum nn_width width;
    uint32_t lanes, held;
} spread;

static spread spread_of(vk_device *device, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    spread s = {.width = nn_row_width(device, cols)};
    int64_t units = cols / s.width;
    s.lanes = nn_holding_lanes(device, nn_rows(n->in[0]), units);
    s.held = (uint32_t)((units + s.lanes - 1) / s.lanes);
    return s;
}

static bool forward(nn_exec *x, const nn_node *n)
{
    spread s = spread_of(nn_device(x), n);
    int64_t cols = nn_cols(n->in[0]);
    float eps = eps_of(n);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "norm",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = s.width,
        .turns = true,
        .reduce = true,
        .lanes = s.lanes,
        .bind = {nn_row_in(n->in[0], cols), nn_row_in(addend_of(n), cols), nn_row_in(gain_of(n), 0),
                 nn_row_in(bias_of(n), 0), nn_row_out(sum_of(n), cols), nn_row_out(result_of(n), cols),
                 {nn_write_bind(stats_of(n)), stats_stride}},
        .spec = {is_layer(n), has_sum(n), s.held},
        .push = &eps,
        .push_bytes = sizeof eps,
        .flops = flops(n),
    });
}

/* Partial sums over chunks of rows [chunks, columns], for the gradients of the gain and of the bias. */
typedef struct partials {
    int64_t chunks, chunk_rows;
    uint64_t stride; /* bytes of a chunk */
    vk_bind gain, bias;
    bool adjoin; /* the bias's lie right behind the gain's */
} partials;

static partials make_partials(nn_exec *x, const nn_node *n)
{
    enum { LEAST_ROWS = 16, MOST_CHUNKS = 256 };
    int64_t rows = nn_rows(n->in[0]);
    partials p = {.chunk_rows = (rows + MOST_CHUNKS - 1) / MOST_CHUNKS, .bias = {.access = VK_WRITE}};
    if (p.chunk_rows < LEAST_ROWS)
        p.chunk_rows = LEAST_ROWS;
    p.chunks = (rows + p.chunk_rows - 1) / p.chunk_rows;
    p.stride = (uint64_t)nn_cols(n->in[0]) * 4;
    uint64_t bytes = (uint64_t)p.chunks * p.stride;
    const vk_caps *caps = vk_device_caps(nn_device(x));
    p.adjoin = is_layer(n) && bytes % caps->storage_align == 0 && bytes % caps->texel_align == 0;
    p.gain = nn_scratch(x, p.adjoin ? 2 * bytes : bytes);
    if (p.adjoin)
        p.bias = (vk_bind){{p.gain.range.block, p.gain.range.offset + bytes, bytes}, p.gain.access};
    else if (is_layer(n))
        p.bias = nn_scratch(x, bytes);
    p.gain.range.size = bytes;
    return p;
}

/* The gradient of what is normalised gets this node's share; that of a sum has its readers' already. */
static bool backward_rows(nn_exec *x, const nn_node *n, const partials *p)
{
    enum { WANT_X = 1, ADD_X = 2 };
    spread s = spread_of(nn_device(x), n);
    int64_t cols = nn_cols(n->in[0]);
    int64_t chunk = p->chunk_rows * cols;
    bool accumulate = false, wanted = nn_wants_grad(source_of(n));
    vk_bind dx = {.access = VK_WRITE};
    if (wanted)
        dx = nn_din_bind(x, source_of(n), &accumulate);
    nn_row_bind sum = nn_row_din(dx, source_of(n), chunk);
    uint32_t flags = (wanted ? WANT_X : 0) | (accumulate ? ADD_X : 0);
    uint32_t push[] = {(uint32_t)nn_rows(n->in[0]), (uint32_t)p->chunk_rows};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "norm_backward",
        .rows = p->chunks,
        .cols = cols,
        .width = s.width,
        .reduce = true,
        .lanes = s.lanes,
        .bind = {nn_row_in(source_of(n), chunk), nn_row_in(gain_of(n), 0),
                 {nn_read_bind(stats_of(n)), (uint64_t)p->chunk_rows * stats_stride, true},
                 nn_row_dout(result_of(n), chunk), sum, nn_row_old(sum, accumulate), {p->gain, p->stride},
                 {p->bias, p->stride}},
        .spec = {is_layer(n), s.held, flags},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 2 * flops(n),
    });
}

/* A sum over the chunks that goes to a gradient. */
typedef struct chunk_sum {
    vk_bind from, to;
    bool wanted, accumulate;
} chunk_sum;

static chunk_sum chunk_sum_of(nn_exec *x, nn_tensor *t, vk_bind from)
{
    chunk_sum s = {.from = from, .wanted = nn_wants_grad(t)};
    if (s.wanted)
        s.to = nn_din_bind(x, t, &s.accumulate);
    return s;
}

/* Both sums at once where the gradients lie at `out_stride` elements from each other, else (0) one. */
static bool add_chunks(nn_exec *x, const nn_node *n, const partials *p, const chunk_sum *s, uint32_t out_stride)
{
    vk_range in = s->from.range;
    in.size *= out_stride ? 2 : 1;
    return !s->wanted || nn_bias_sum_run(nn_device(x), &(nn_bias_sum){
        .rows = (uint32_t)p->chunks,
        .columns = (uint32_t)nn_cols(n->in[0]),
        .batch = out_stride ? 2 : 1,
        .in = in,
        .out = s->to.range,
        .out_stride = out_stride,
        .accumulate = s->accumulate,
    });
}

/* Elements from the gain's gradient to the bias's where they are close neighbours in one slab, else 0. */
static uint32_t gradient_stride(const partials *p, const chunk_sum *gain, const chunk_sum *bias)
{
    enum { MOST_GAP = 1024 };
    vk_range a = gain->to.range, b = bias->to.range;
    bool together = p->adjoin && gain->wanted && bias->wanted && gain->accumulate == bias->accumulate &&
                    a.block == b.block && b.offset >= a.offset + p->stride &&
                    b.offset <= a.offset + p->stride + MOST_GAP;
    return together ? (uint32_t)((b.offset - a.offset) / 4) : 0;
}

static bool backward_weights(nn_exec *x, const nn_node *n, const partials *p)
{
    chunk_sum gain = chunk_sum_of(x, gain_of(n), p->gain), bias = chunk_sum_of(x, bias_of(n), p->bias);
    uint32_t stride = gradient_stride(p, &gain, &bias);
    return add_chunks(x, n, p, &gain, stride) && (stride || add_chunks(x, n, p, &bias, 0));
}

static bool backward(nn_exec *x, const nn_node *n)
{
    partials p = make_partials(x, n);
    if (!backward_rows(x, n, &p) || !backward_weights(x, n, &p))
        return false;
    return !has_sum(n) || (nn_pass_gradient(x, sum_of(n), n->in[0]) && nn_pass_gradient(x, sum_of(n), n->in[1]));
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    const nn_node *n = r->node;
    int64_t rows = nn_rows(n->in[0]), cols = nn_cols(n->in[0]);
    const double *source = r->in[0], *gain = r->in[1 + has_sum(n)], *bias = r->in[2 + has_sum(n)];
    double *result = r->out[has_sum(n)], *stats = r->out[1 + has_sum(n)];
    for (int64_t i = 0; has_sum(n) && i < rows * cols; i++)
        r->out[0][i] = r->in[0][i] + r->in[1][i];
    if (has_sum(n))
        source = r->out[0];
    for (int64_t i = 0; i < rows; i++) {
        const double *x = source + i * cols;
        double mean = 0, square = 0;
        for (int64_t c = 0; is_layer(n) && c < cols; c++)
            mean += x[c] / (double)cols;
        for (int64_t c = 0; c < cols; c++)
            square += (x[c] - mean) * (x[c] - mean) / (double)cols;
        double scale = 1 / sqrt(square + eps_of(n));
        for (int64_t c = 0; c < cols; c++)
            result[i * cols + c] = (x[c] - mean) * scale * gain[c] + (is_layer(n) ? bias[c] : 0);
        stats[2 * i] = mean;
        stats[2 * i + 1] = scale;
    }
}

static void ref_backward_row(const nn_ref *r, int64_t row)
{
    const nn_node *n = r->node;
    int sum = has_sum(n);
    int64_t cols = nn_cols(n->in[0]);
    const double *x = (sum ? r->out[0] : r->in[0]) + row * cols, *dy = r->dout[sum] + row * cols;
    const double *gain = r->in[1 + sum], *stats = r->out[1 + sum] + 2 * row;
    double *dgain = r->din[1 + sum], *dbias = is_layer(n) ? r->din[2 + sum] : NULL;
    double mean = stats[0], scale = stats[1], mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; c < cols; c++) {
        double normal = (x[c] - mean) * scale;
        mean_g += is_layer(n) ? dy[c] * gain[c] / (double)cols : 0;
        mean_gn += dy[c] * gain[c] * normal / (double)cols;
        if (dgain)
            dgain[c] += dy[c] * normal;
        if (dbias)
            dbias[c] += dy[c];
    }
    for (int64_t c = 0; c < cols; c++) {
        double dx = scale * (dy[c] * gain[c] - mean_g - (x[c] - mean) * scale * mean_gn);
        dx += sum ? r->dout[0][row * cols + c] : 0;
        for (int i = 0; i <= sum; i++)
            if (r->din[i])
                r->din[i][row * cols + c] += dx;
    }
}

static void ref_backward(const nn_ref *r)
{
    for (int64_t i = 0; i < nn_rows(r->node->in[0]); i++)
        ref_backward_row(r, i);
}

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

static const norm_params small_eps = {1e-5f}, large_eps = {0.1f};

#define RMS(rows, cols) .in = {{NN_F32, 2, {rows, cols}, NN_FILL_NORMAL}, {NN_F32, 1, {cols}, NN_FILL_NORMAL}}
#define LAYER(rows, cols, size) \
    .in = {{NN_F32, 2, {rows, cols}, NN_FILL_NORMAL, .scale = size}, \
           {NN_F32, 1, {cols}, NN_FILL_NORMAL}, \
           {NN_F32, 1, {cols}, NN_FILL_NORMAL}}

#define VALUES(rows, cols) {NN_F32, 2, {rows, cols}, NN_FILL_NORMAL}
#define WEIGHT(cols) {NN_F32, 1, {cols}, NN_FILL_NORMAL}

static const nn_case rms_cases[] = {
    {.name = "[33, 64]", RMS(33, 64), .params = &small_eps},
    {.name = "odd columns", RMS(15, 37), .params = &large_eps},
    {.name = "a multiple of 4, not of 8", RMS(5, 12), .params = &large_eps},
    {.name = "one row, longer than a group", RMS(1, 1300), .params = &small_eps},
    {.name = "one column", RMS(9, 1), .params = &large_eps},
    {.name = "[4096, 1024]", RMS(4096, 1024), .params = &small_eps, .bench = true},
    {.name = "[8192, 64]", RMS(8192, 64), .params = &small_eps, .bench = true},
};

static const nn_case layer_cases[] = {
    {.name = "[33, 64]", LAYER(33, 64, 1), .params = &small_eps},
    {.name = "odd columns, large values", LAYER(7, 35, 100), .params = &small_eps},
    {.name = "one row, longer than a group", LAYER(1, 1301, 1), .params = &small_eps},
    {.name = "many rows", LAYER(1100, 8, 1), .params = &large_eps},
    {.name = "bias gradient only",
     .in = {{NN_F32, 2, {5, 12}, NN_FILL_NORMAL, .no_grad = true},
            {NN_F32, 1, {12}, NN_FILL_NORMAL, .no_grad = true},
            {NN_F32, 1, {12}, NN_FILL_NORMAL}},
     .params = &small_eps},
    {.name = "[4096, 1024]", LAYER(4096, 1024, 1), .params = &small_eps, .bench = true},
    {.name = "[8192, 64]", LAYER(8192, 64, 1), .params = &small_eps, .bench = true},
};

static const nn_case add_rms_cases[] = {
    {.name = "[33, 64]", .in = {VALUES(33, 64), VALUES(33, 64), WEIGHT(64)}, .params = &small_eps},
    {.name = "odd columns", .in = {VALUES(40, 7), VALUES(40, 7), WEIGHT(7)}, .params = &large_eps},
    {.name = "one row, longer than a group", .in = {VALUES(1, 1300), VALUES(1, 1300), WEIGHT(1300)},
     .params = &small_eps},
    {.name = "one gradient",
     .in = {{NN_F32, 2, {5, 12}, NN_FILL_NORMAL, .no_grad = true}, VALUES(5, 12), WEIGHT(12)},
     .params = &large_eps},
    {.name = "[4096, 1024]", .in = {VALUES(4096, 1024), VALUES(4096, 1024), WEIGHT(1024)}, .params = &small_eps,
     .bench = true},
    {.name = "[8192, 64]", .in = {VALUES(8192, 64), VALUES(8192, 64), WEIGHT(64)}, .params = &small_eps,
     .bench = true},
};

static const nn_case add_layer_cases[] = {
    {.name = "[33, 64]", .in = {VALUES(33, 64), VALUES(33, 64), WEIGHT(64), WEIGHT(64)}, .params = &small_eps},
    {.name = "odd columns", .in = {VALUES(7, 35), VALUES(7, 35), WEIGHT(35), WEIGHT(35)}, .params = &small_eps},
    {.name = "many rows", .in = {VALUES(1100, 8), VALUES(1100, 8), WEIGHT(8), WEIGHT(8)}, .params = &large_eps},
    {.name = "[8192, 64]", .in = {VALUES(8192, 64), VALUES(8192, 64), WEIGHT(64), WEIGHT(64)}, .params = &small_eps,
     .bench = true},
    {.name = "[4096, 1024]", .in = {VALUES(4096, 1024), VALUES(4096, 1024), WEIGHT(1024), WEIGHT(1024)},
     .params = &small_eps, .bench = true},
};

const nn_op nn_op_rms_norm = {
    .name = "rms_norm",
    .ins = 2,
    .outs = 2,
    .aux_out = 2,
    .keep_in = 3,
    .half_in = 1,
    .keep_out = 2,
    .param_bytes = sizeof(norm_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = rms_cases,
    .case_count = sizeof rms_cases / sizeof *rms_cases,
};

const nn_op nn_op_layer_norm = {
    .name = "layer_norm",
    .ins = 3,
    .outs = 2,
    .aux_out = 2,
    .keep_in = 3,
    .half_in = 1,
    .keep_out = 2,
    .param_bytes = sizeof(norm_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = layer_cases,
    .case_count = sizeof layer_cases / sizeof *layer_cases,
};

const nn_op nn_op_add_rms_norm = {
    .name = "add_rms_norm",
    .ins = 3,
    .outs = 3,
    .aux_out = 4,
    .keep_in = 4,
    .keep_out = 5,
    .adds_out = 1,
    .half_in = 3,
    .param_bytes = sizeof(norm_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = add_rms_cases,
    .case_count = sizeof add_rms_cases / sizeof *add_rms_cases,
};

const nn_op nn_op_add_layer_norm = {
    .name = "add_layer_norm",
    .ins = 4,
    .outs = 3,
    .aux_out = 4,
    .keep_in = 4,
    .keep_out = 5,
    .adds_out = 1,
    .half_in = 3,
    .param_bytes = sizeof(norm_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = add_layer_cases,
    .case_count = sizeof add_layer_cases / sizeof *add_layer_cases,
};
