/* Diversity loss: mean over tokens of the summed cosines between different winners' outputs, over K^2 (3.1, 3.5,
 * 3.6). */
#include <math.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

enum { OUT_LOSS, OUT_PRODUCTS /* y_i . y_j, for backward */ };

nn_tensor *nn_diversity(nn_tape *tape, nn_tensor *y)
{
    nn_tensor *out[2];
    nn_apply(tape, &nn_op_diversity, NULL, &y, 1, out);
    return out[OUT_LOSS];
}

static bool infer(nn_node *n)
{
    const nn_tensor *y = n->in[0];
    if (!nn_expect_values("diversity", "y", y))
        return false;
    if (y->dims != 3)
        return cs_fail("diversity: y %s must be [tokens, winners, columns]", nn_shape_string(y).text);
    *n->out[OUT_LOSS] = (nn_tensor){.dtype = NN_F32, .dims = 1, .shape = {1}};
    *n->out[OUT_PRODUCTS] = (nn_tensor){.dtype = NN_F32, .dims = 3, .shape = {y->shape[0], y->shape[1], y->shape[1]}};
    return true;
}

static double flops(const nn_node *n)
{
    return (double)(nn_count(n->in[0]) * (n->in[0]->shape[1] + 1));
}

static bool forward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[0];
    int64_t tokens = y->shape[0], top_k = y->shape[1], cols = nn_cols(y);
    vk_bind losses = nn_scratch(x, (uint64_t)tokens * 4),
            partials = nn_scratch(x, (uint64_t)nn_reduce_partials(tokens) * 4);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "diversity",
        .rows = tokens,
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {nn_row_in(y, top_k * cols), {nn_write_bind(n->out[OUT_PRODUCTS]), (uint64_t)(top_k * top_k) * 4},
                 {losses, 4}},
        .spec = {(uint32_t)top_k},
        .flops = flops(n),
    }) && nn_reduce_range(nn_device(x), losses, tokens, false, 1.0f / (float)tokens, partials,
                          nn_write_bind(n->out[OUT_LOSS]));
}

static bool backward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[0];
    int64_t tokens = y->shape[0], top_k = y->shape[1], cols = nn_cols(y);
    bool accumulate;
    nn_row_bind dy = nn_row_din(nn_din_bind(x, n->in[0], &accumulate), y, top_k * cols);
    uint32_t push = (uint32_t)tokens;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "diversity_backward",
        .rows = tokens,
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {nn_row_in(y, top_k * cols), {nn_read_bind(n->out[OUT_PRODUCTS]), (uint64_t)(top_k * top_k) * 4},
                 {nn_dout_bind(n->out[OUT_LOSS]), 0}, dy, nn_row_old(dy, accumulate)},
        .spec = {(uint32_t)top_k, accumulate},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

static const double least_norm = 1e-12;

static void ref_forward(const nn_ref *r)
{
    const nn_tensor *y = r->node->in[0];
    int64_t tokens = y->shape[0], K = y->shape[1], cols = nn_cols(y);
    double loss = 0;
    for (int64_t t = 0; t < tokens; t++) {
        const double *rows = r->in[0] + t * K * cols;
        double *gram = r->out[OUT_PRODUCTS] + t * K * K;
        for (int64_t i = 0; i < K * K; i++) {
            gram[i] = 0;
            for (int64_t c = 0; c < cols; c++)
                gram[i] += rows[i / K * cols + c] * rows[i % K * cols + c];
        }
        for (int64_t i = 0; i < K; i++)
            for (int64_t j = 0; j < K; j++)
                if (i != j)
                    loss += gram[i * K + j] /
                            (fmax(sqrt(gram[i * K + i]), least_norm) * fmax(sqrt(gram[j * K + j]), least_norm));
    }
    r->out[OUT_LOSS][0] = loss / (double)(tokens * K * K);
}

static void ref_backward(const nn_ref *r)
{
    const nn_tensor *y = r->node->in[0];
    int64_t tokens = y->shape[0], K = y->shape[1], cols = nn_cols(y);
    double scale = r->dout[OUT_LOSS][0] * 2 / (double)(tokens * K * K);
    for (int64_t t = 0; t < tokens; t++) {
        const double *gram = r->out[OUT_PRODUCTS] + t * K * K, *rows = r->in[0] + t * K * cols;
        for (int64_t i = 0; i < K; i++) {
            double *d = r->din[0] + (t * K + i) * cols, norm = sqrt(gram[i * K + i]);
            for (int64_t j = 0; j < K && norm > least_norm; j++) {
                double other = fmax(sqrt(gram[j * K + j]), least_norm), cosine = gram[i * K + j] / (norm * other);
                for (int64_t c = 0; c < cols && j != i; c++)
                    d[c] += scale * (rows[j * cols + c] / other - cosine * rows[i * cols + c] / norm) / norm;
            }
        }
    }
}

static const nn_case cases[] = {
    {.name = "K 2", .in = {{NN_F32, 3, {33, 2, 64}, NN_FILL_NORMAL}}},
    {.name = "K 3, odd width", .in = {{NN_F32, 3, {7, 3, 9}, NN_FILL_NORMAL}}},
    {.name = "K 8", .in = {{NN_F32, 3, {3, 8, 12}, NN_FILL_NORMAL}}},
    {.name = "K 1", .in = {{NN_F32, 3, {3, 1, 8}, NN_FILL_NORMAL}}},
    {.name = "[2048, 2, 512]", .in = {{NN_F32, 3, {2048, 2, 512}, NN_FILL_NORMAL}}, .bench = true},
    {.name = "[2048, 4, 64]", .in = {{NN_F32, 3, {2048, 4, 64}, NN_FILL_NORMAL}}, .bench = true},
};

const nn_op nn_op_diversity = {
    .name = "diversity",
    .ins = 1,
    .outs = 2,
    .keep_in = 1,
    .half_in = 1,
    .keep_out = 1 << OUT_PRODUCTS,
    .aux_out = 1 << OUT_PRODUCTS,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
