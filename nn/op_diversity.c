/* Diversity loss: mean over tokens of the summed cosines between different winners' outputs, over K^2 (3.1, 3.5,
 * 3.6). */
#include <math.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

enum { IN_Y, IN_INDICES };
enum { OUT_LOSS, OUT_PRODUCTS /* y_i . y_j, for backward */ };

nn_tensor *nn_diversity(nn_tape *tape, nn_tensor *y, nn_tensor *indices)
{
    nn_tensor *in[] = {y, indices}, *out[2];
    nn_apply(tape, &nn_op_diversity, NULL, in, 2, out);
    return out[OUT_LOSS];
}

static bool infer(nn_node *n)
{
    const nn_tensor *y = n->in[IN_Y], *indices = n->in[IN_INDICES];
    if (!nn_expect_floats("diversity", "y", y) ||
        !nn_expect_integers("diversity", "indices", indices, nn_count(indices)))
        return false;
    if (y->dims != 3 || nn_rows(indices) != y->shape[1] || nn_cols(indices) > y->shape[0])
        return cs_fail("diversity: y %s must be [experts, tokens, columns] and fit indices %s", nn_shape_string(y).text,
                       nn_shape_string(indices).text);
    int64_t top_k = nn_cols(indices);
    *n->out[OUT_LOSS] = (nn_tensor){.dtype = NN_F32, .dims = 1, .shape = {1}};
    *n->out[OUT_PRODUCTS] = (nn_tensor){.dtype = NN_F32, .dims = 3, .shape = {y->shape[1], top_k, top_k}};
    return true;
}

static double flops(const nn_node *n)
{
    int64_t top_k = nn_cols(n->in[IN_INDICES]);
    return (double)(top_k * (top_k + 1) * nn_rows(n->in[IN_INDICES]) * nn_cols(n->in[IN_Y]));
}

static bool forward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[IN_Y];
    int64_t tokens = y->shape[1], top_k = nn_cols(n->in[IN_INDICES]);
    vk_bind losses = nn_scratch(x, (uint64_t)tokens * 4),
            partials = nn_scratch(x, (uint64_t)nn_reduce_partials(tokens) * 4);
    uint32_t push = (uint32_t)tokens;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "diversity",
        .rows = tokens,
        .cols = nn_cols(y),
        .width = nn_narrow_width(nn_cols(y)),
        .reduce = true,
        .bind = {{nn_read_bind(n->in[IN_INDICES]), (uint64_t)top_k * 4}, {nn_read_bind(y), 0},
                 {nn_write_bind(n->out[OUT_PRODUCTS]), (uint64_t)(top_k * top_k) * 4}, {losses, 4}},
        .spec = {(uint32_t)top_k},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    }) && nn_reduce_range(nn_device(x), losses, tokens, false, 1.0f / (float)tokens, partials,
                          nn_write_bind(n->out[OUT_LOSS]));
}

static bool backward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[IN_Y];
    int64_t tokens = y->shape[1], top_k = nn_cols(n->in[IN_INDICES]);
    bool accumulate;
    vk_bind dy = nn_din_bind(x, n->in[IN_Y], &accumulate);
    /* The kernel adds to the winners only. */
    if (!accumulate && !vk_fill(nn_device(x), dy.range, 0))
        return false;
    uint32_t push = (uint32_t)tokens;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "diversity_backward",
        .rows = tokens,
        .cols = nn_cols(y),
        .width = nn_narrow_width(nn_cols(y)),
        .bind = {{nn_read_bind(n->in[IN_INDICES]), (uint64_t)top_k * 4}, {nn_read_bind(y), 0},
                 {nn_read_bind(n->out[OUT_PRODUCTS]), (uint64_t)(top_k * top_k) * 4},
                 {nn_dout_bind(n->out[OUT_LOSS]), 0}, {{dy.range, VK_READ | VK_WRITE}, 0}},
        .spec = {(uint32_t)top_k},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

static const double least_norm = 1e-12;

static const double *winner(const nn_ref *r, int64_t t, int64_t k)
{
    const nn_tensor *y = r->node->in[IN_Y];
    int64_t e = (int64_t)r->in[IN_INDICES][t * nn_cols(r->node->in[IN_INDICES]) + k];
    return r->in[IN_Y] + (e * y->shape[1] + t) * nn_cols(y);
}

static void ref_forward(const nn_ref *r)
{
    int64_t tokens = r->node->in[IN_Y]->shape[1], cols = nn_cols(r->node->in[IN_Y]),
            K = nn_cols(r->node->in[IN_INDICES]);
    double loss = 0;
    for (int64_t t = 0; t < tokens; t++) {
        double *gram = r->out[OUT_PRODUCTS] + t * K * K;
        for (int64_t i = 0; i < K * K; i++) {
            gram[i] = 0;
            for (int64_t c = 0; c < cols; c++)
                gram[i] += winner(r, t, i / K)[c] * winner(r, t, i % K)[c];
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
    int64_t tokens = r->node->in[IN_Y]->shape[1], cols = nn_cols(r->node->in[IN_Y]),
            K = nn_cols(r->node->in[IN_INDICES]);
    double scale = r->dout[OUT_LOSS][0] * 2 / (double)(tokens * K * K);
    for (int64_t t = 0; t < tokens; t++) {
        const double *gram = r->out[OUT_PRODUCTS] + t * K * K;
        for (int64_t i = 0; i < K; i++) {
            double *d = r->din[IN_Y] + (winner(r, t, i) - r->in[IN_Y]), norm = sqrt(gram[i * K + i]);
            for (int64_t j = 0; j < K && norm > least_norm; j++) {
                double other = fmax(sqrt(gram[j * K + j]), least_norm), cosine = gram[i * K + j] / (norm * other);
                for (int64_t c = 0; c < cols && j != i; c++)
                    d[c] += scale * (winner(r, t, j)[c] / other - cosine * winner(r, t, i)[c] / norm) / norm;
            }
        }
    }
}

/* Different experts for the choices of a token. */
static void fill_winners(const nn_case *c, int i, double *const *values)
{
    int64_t top_k = c->in[i].shape[1], experts = c->in[IN_Y].shape[0];
    for (int64_t pair = 0; pair < c->in[i].shape[0] * top_k; pair++)
        values[i][pair] = (double)((pair / top_k * 5 + pair % top_k) % experts);
}

static const nn_case cases[] = {
    {.name = "K 2", .in = {{NN_F32, 3, {4, 33, 64}, NN_FILL_NORMAL}, {NN_I32, 2, {33, 2}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "K 3, odd width", .in = {{NN_F32, 3, {5, 7, 9}, NN_FILL_NORMAL}, {NN_I32, 2, {7, 3}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "K 8", .in = {{NN_F32, 3, {8, 3, 12}, NN_FILL_NORMAL}, {NN_I32, 2, {3, 8}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "K 1", .in = {{NN_F32, 3, {2, 3, 8}, NN_FILL_NORMAL}, {NN_I32, 2, {3, 1}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "[4, 2048, 512], K 2",
     .in = {{NN_F32, 3, {4, 2048, 512}, NN_FILL_NORMAL}, {NN_I32, 2, {2048, 2}, NN_FILL_CUSTOM}},
     .fill = fill_winners, .bench = true},
};

const nn_op nn_op_diversity = {
    .name = "diversity",
    .ins = 2,
    .outs = 2,
    .keep_in = 3,
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
