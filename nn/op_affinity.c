/* Affinity of each expert's output to its token: mean softplus, ReLU, sigmoid or SiLU, or the L2 norm (2.3, 3.5). */
#include <math.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

typedef struct affinity_params {
    uint32_t kind; /* enum nn_affinity_kind */
} affinity_params;

static uint32_t kind_of(const nn_node *n)
{
    return ((const affinity_params *)n->params)->kind;
}

nn_tensor *nn_affinity(nn_tape *tape, nn_tensor *y, enum nn_affinity_kind kind)
{
    nn_tensor *s;
    nn_apply(tape, &nn_op_affinity, &(affinity_params){kind}, &y, 1, &s);
    return s;
}

static bool infer(nn_node *n)
{
    const nn_tensor *y = n->in[0];
    if (!nn_expect_floats("affinity", "y", y))
        return false;
    if (y->dims != 3)
        return cs_fail("affinity: y %s must be [experts, tokens, columns]", nn_shape_string(y).text);
    if (kind_of(n) >= NN_AFFINITY_KINDS)
        return cs_fail("affinity: there is no kind %u", kind_of(n));
    *n->out[0] = (nn_tensor){.dtype = NN_F32, .dims = 2, .shape = {y->shape[1], y->shape[0]}};
    return true;
}

static double flops(const nn_node *n)
{
    return (kind_of(n) == NN_AFFINITY_L2NORM ? 2.0 : 30.0) * (double)nn_count(n->in[0]);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[0];
    uint32_t push[] = {(uint32_t)y->shape[1], (uint32_t)y->shape[0]};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "affinity",
        .rows = nn_rows(y),
        .cols = nn_cols(y),
        .width = nn_narrow_width(nn_cols(y)),
        .reduce = true,
        .bind = {{nn_read_bind(y), (uint64_t)nn_cols(y) * 4}, {nn_write_bind(n->out[0]), 0}},
        .spec = {kind_of(n)},
        .push = push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

static bool backward(nn_exec *x, const nn_node *n)
{
    const nn_tensor *y = n->in[0];
    bool accumulate;
    vk_bind dy = nn_din_bind(x, n->in[0], &accumulate);
    uint32_t push[] = {(uint32_t)y->shape[1], (uint32_t)y->shape[0], accumulate};
    uint64_t stride = (uint64_t)nn_cols(y) * 4;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "affinity_backward",
        .rows = nn_rows(y),
        .cols = nn_cols(y),
        .width = nn_narrow_width(nn_cols(y)),
        .bind = {{nn_read_bind(y), stride}, {nn_read_bind(n->out[0]), 0}, {nn_dout_bind(n->out[0]), 0}, {dy, stride}},
        .spec = {kind_of(n)},
        .push = push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double term(uint32_t kind, double y)
{
    switch (kind) {
    case NN_AFFINITY_SOFTPLUS: return y > 20 ? y : log1p(exp(y));
    case NN_AFFINITY_L2NORM: return y * y;
    case NN_AFFINITY_RELU: return y > 0 ? y : 0;
    case NN_AFFINITY_SIGMOID: return sigmoid(y);
    default: return y * sigmoid(y);
    }
}

static double slope(uint32_t kind, double y)
{
    double s = sigmoid(y);
    switch (kind) {
    case NN_AFFINITY_SOFTPLUS: return y > 20 ? 1 : s;
    case NN_AFFINITY_RELU: return y > 0;
    case NN_AFFINITY_SIGMOID: return s * (1 - s);
    default: return s * (1 + y * (1 - s));
    }
}

static void ref_forward(const nn_ref *r)
{
    const nn_tensor *y = r->node->in[0];
    uint32_t kind = kind_of(r->node);
    int64_t cols = nn_cols(y), tokens = y->shape[1];
    for (int64_t row = 0; row < nn_rows(y); row++) {
        double sum = 0;
        for (int64_t c = 0; c < cols; c++)
            sum += term(kind, r->in[0][row * cols + c]);
        r->out[0][row % tokens * y->shape[0] + row / tokens] =
            kind == NN_AFFINITY_L2NORM ? sqrt(sum) : sum / (double)cols;
    }
}

static void ref_backward(const nn_ref *r)
{
    const nn_tensor *y = r->node->in[0];
    uint32_t kind = kind_of(r->node);
    int64_t cols = nn_cols(y), tokens = y->shape[1];
    for (int64_t i = 0; i < nn_count(y); i++) {
        int64_t row = i / cols, at = row % tokens * y->shape[0] + row / tokens;
        double v = r->in[0][i], s = r->out[0][at], d;
        if (kind == NN_AFFINITY_L2NORM)
            d = s > 0 ? v / s : 0;
        else
            d = slope(kind, v) / (double)cols;
        r->din[0][i] += r->dout[0][at] * d;
    }
}

static const nn_case cases[] = {
    {.name = "softplus", .in = {{NN_F32, 3, {4, 33, 64}, NN_FILL_NORMAL, .scale = 2}},
     .params = &(const affinity_params){NN_AFFINITY_SOFTPLUS}},
    {.name = "softplus, far tails, odd width", .in = {{NN_F32, 3, {3, 5, 7}, NN_FILL_NORMAL, .scale = 20}},
     .params = &(const affinity_params){NN_AFFINITY_SOFTPLUS}},
    {.name = "L2 norm", .in = {{NN_F32, 3, {8, 9, 100}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_L2NORM}},
    {.name = "ReLU", .in = {{NN_F32, 3, {2, 3, 10}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_RELU}},
    {.name = "sigmoid", .in = {{NN_F32, 3, {2, 3, 10}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_SIGMOID}},
    {.name = "SiLU", .in = {{NN_F32, 3, {2, 3, 12}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_SILU}},
    {.name = "softplus [4, 2048, 512]", .in = {{NN_F32, 3, {4, 2048, 512}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_SOFTPLUS}, .bench = true},
    {.name = "L2 norm [4, 2048, 512]", .in = {{NN_F32, 3, {4, 2048, 512}, NN_FILL_NORMAL}},
     .params = &(const affinity_params){NN_AFFINITY_L2NORM}, .bench = true},
};

const nn_op nn_op_affinity = {
    .name = "affinity",
    .ins = 1,
    .outs = 1,
    .keep_in = 1,
    .keep_out = 1,
    .param_bytes = sizeof(affinity_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
