/* RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension. Outputs: y like x, and the
 * statistics [rows, 2] (mean, 0 for RMSNorm; reciprocal deviation) that the backward pass reads. */
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

/* A bias makes it a LayerNorm. */
static bool is_layer(const nn_node *n)
{
    return n->ins == 3;
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

static bool infer(nn_node *n)
{
    const nn_tensor *x = n->in[0];
    const char *name = n->op->name;
    nn_shape_like(n->out[0], x);
    n->out[0]->dtype = nn_product_type(n, nn_cols(x));
    n->out[1]->dtype = NN_F32;
    n->out[1]->dims = 2;
    n->out[1]->shape[0] = nn_rows(x);
    n->out[1]->shape[1] = 2;
    if (!nn_expect_values(name, "x", x) || !nn_expect_row(name, "gain", n->in[1], nn_cols(x)))
        return false;
    if (is_layer(n) && !nn_expect_row(name, "bias", n->in[2], nn_cols(x)))
        return false;
    return eps_of(n) >= 0 || cs_fail("%s: eps %g is negative", name, eps_of(n));
}

static double flops(const nn_node *n)
{
    return (is_layer(n) ? 8.0 : 5.0) * (double)nn_count(n->in[0]);
}

static const uint64_t stats_stride = 8;

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    float eps = eps_of(n);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "norm",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {nn_row_in(n->in[0], cols), nn_row_in(n->in[1], 0), nn_row_in(n->in[2], 0),
                 nn_row_out(n->out[0], cols), {nn_write_bind(n->out[1]), stats_stride}},
        .spec = {is_layer(n)},
        .push = &eps,
        .push_bytes = sizeof eps,
        .flops = flops(n),
    });
}

static bool backward_x(nn_exec *x, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    bool accumulate;
    nn_row_bind dx = nn_row_din(nn_din_bind(x, n->in[0], &accumulate), n->in[0], cols);
    uint32_t push = accumulate;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "norm_backward",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {nn_row_in(n->in[0], cols), nn_row_in(n->in[1], 0), {nn_read_bind(n->out[1]), stats_stride},
                 nn_row_dout(n->out[0], cols), dx, nn_row_old(dx, accumulate)},
        .spec = {is_layer(n)},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = 2 * flops(n),
    });
}

/* The second pass over the partial sums of the chunks, into the gradient of `t` if it wants one. */
static bool add_chunks(nn_exec *x, nn_tensor *t, vk_bind partial, int64_t chunks)
{
    if (!nn_wants_grad(t))
        return true;
    bool accumulate;
    vk_bind sum = nn_din_bind(x, t, &accumulate);
    return nn_bias_sum_run(nn_device(x), &(nn_bias_sum){
        .rows = (uint32_t)chunks,
        .columns = (uint32_t)nn_count(t),
        .in = partial.range,
        .out = sum.range,
        .accumulate = accumulate,
    });
}

static bool backward_weights(nn_exec *x, const nn_node *n)
{
    int64_t rows = nn_rows(n->in[0]), cols = nn_cols(n->in[0]);
    int64_t chunk_rows, chunks = nn_sum_chunks(rows, &chunk_rows);
    uint64_t stride = (uint64_t)cols * 4;
    vk_bind gain = nn_scratch(x, (uint64_t)chunks * stride), bias = {.access = VK_WRITE};
    if (is_layer(n))
        bias = nn_scratch(x, (uint64_t)chunks * stride);
    uint32_t push[] = {(uint32_t)rows, (uint32_t)chunk_rows};
    bool ok = nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "norm_weight_backward",
        .rows = chunks,
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .bind = {nn_row_in(n->in[0], chunk_rows * cols),
                 {nn_read_bind(n->out[1]), (uint64_t)chunk_rows * stats_stride},
                 nn_row_dout(n->out[0], chunk_rows * cols), {gain, stride}, {bias, stride}},
        .spec = {is_layer(n)},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 4.0 * (double)nn_count(n->in[0]),
    });
    return ok && add_chunks(x, n->in[1], gain, chunks) && add_chunks(x, n->in[2], bias, chunks);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (nn_wants_grad(n->in[0]) && !backward_x(x, n))
        return false;
    return (!nn_wants_grad(n->in[1]) && !nn_wants_grad(n->in[2])) || backward_weights(x, n);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    const nn_node *n = r->node;
    int64_t rows = nn_rows(n->in[0]), cols = nn_cols(n->in[0]);
    for (int64_t i = 0; i < rows; i++) {
        const double *x = r->in[0] + i * cols;
        double mean = 0, square = 0;
        for (int64_t c = 0; is_layer(n) && c < cols; c++)
            mean += x[c] / (double)cols;
        for (int64_t c = 0; c < cols; c++)
            square += (x[c] - mean) * (x[c] - mean) / (double)cols;
        double scale = 1 / sqrt(square + eps_of(n));
        for (int64_t c = 0; c < cols; c++)
            r->out[0][i * cols + c] = (x[c] - mean) * scale * r->in[1][c] + (is_layer(n) ? r->in[2][c] : 0);
        r->out[1][2 * i] = mean;
        r->out[1][2 * i + 1] = scale;
    }
}

static void ref_backward_row(const nn_ref *r, int64_t row)
{
    const nn_node *n = r->node;
    int64_t cols = nn_cols(n->in[0]);
    const double *x = r->in[0] + row * cols, *dy = r->dout[0] + row * cols, *gain = r->in[1];
    double mean = r->out[1][2 * row], scale = r->out[1][2 * row + 1], mean_g = 0, mean_gn = 0;
    for (int64_t c = 0; c < cols; c++) {
        double normal = (x[c] - mean) * scale;
        mean_g += is_layer(n) ? dy[c] * gain[c] / (double)cols : 0;
        mean_gn += dy[c] * gain[c] * normal / (double)cols;
        if (r->din[1])
            r->din[1][c] += dy[c] * normal;
        if (is_layer(n) && r->din[2])
            r->din[2][c] += dy[c];
    }
    for (int64_t c = 0; r->din[0] && c < cols; c++)
        r->din[0][row * cols + c] += scale * (dy[c] * gain[c] - mean_g - (x[c] - mean) * scale * mean_gn);
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

static const nn_case rms_cases[] = {
    {.name = "[33, 64]", RMS(33, 64), .params = &small_eps},
    {.name = "odd columns", RMS(15, 37), .params = &large_eps},
    {.name = "a multiple of 4, not of 8", RMS(5, 12), .params = &large_eps},
    {.name = "one row, longer than a group", RMS(1, 1300), .params = &small_eps},
    {.name = "one column", RMS(9, 1), .params = &large_eps},
    {.name = "[4096, 1024]", RMS(4096, 1024), .params = &small_eps, .bench = true},
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
