/* Activations: y = act(x), and the gated form y = act(a) * b. */
#include <math.h>

#include "base/error.h"
#include "nn/activation.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct activation_params {
    uint32_t kind; /* enum nn_activation */
} activation_params;

static uint32_t kind_of(const nn_node *n)
{
    return ((const activation_params *)n->params)->kind;
}

nn_tensor *nn_activate(nn_tape *tape, nn_tensor *x, enum nn_activation kind)
{
    nn_tensor *y;
    nn_apply(tape, &nn_op_activation, &(activation_params){kind}, &x, 1, &y);
    return y;
}

nn_tensor *nn_gated(nn_tape *tape, nn_tensor *a, nn_tensor *b, enum nn_activation kind)
{
    nn_tensor *in[] = {a, b}, *y;
    nn_apply(tape, &nn_op_gated, &(activation_params){kind}, in, 2, &y);
    return y;
}

static bool check_kind(const nn_node *n)
{
    return kind_of(n) <= NN_RELU || cs_fail("%s: there is no activation %u", n->op->name, kind_of(n));
}

static bool infer_activation(nn_node *n)
{
    nn_shape_like(n->out[0], n->in[0]);
    return check_kind(n) && nn_expect_values("activation", "x", n->in[0]);
}

static bool infer_gated(nn_node *n)
{
    nn_shape_like(n->out[0], n->in[0]);
    return check_kind(n) && nn_expect_alike("gated", "a", n->in[0], "b", n->in[1]);
}

/* exp and a rational function: about this much per element. */
static double flops(const nn_node *n)
{
    return 30.0 * (double)nn_count(n->in[0]);
}

static bool launch(vk_device *device, uint32_t kind, int64_t count, nn_row_bind a, nn_row_bind b, nn_row_bind y)
{
    nn_flat f = nn_flat_shape(device, count);
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "activation",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {a, b, y},
        .spec = {kind, b.bind.range.block != NULL},
        .flops = 30.0 * (double)count,
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t count = nn_count(n->in[0]), cols = nn_flat_shape(nn_device(x), count).cols;
    return launch(nn_device(x), kind_of(n), count, nn_row_in(n->in[0], cols), nn_row_in(n->in[1], cols),
                  nn_row_out(n->out[0], cols));
}

static bool launch_gradients(vk_device *device, uint32_t kind, int64_t count, const nn_row_bind values[3],
                             nn_row_bind da, nn_row_bind db, uint32_t flags)
{
    nn_flat f = nn_flat_shape(device, count);
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "activation_backward",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {values[0], values[1], values[2], da, db, nn_row_old(da, flags & NN_ADD_A),
                 nn_row_old(db, flags & NN_ADD_B)},
        .spec = {kind, values[1].bind.range.block != NULL, flags},
        .flops = 60.0 * (double)count,
    });
}

static nn_row_bind flat_bind(vk_device *device, const nn_gate *g, vk_range range, uint32_t access)
{
    uint64_t stride = (uint64_t)nn_flat_shape(device, g->count).cols * nn_dtype_size(g->type);
    return (nn_row_bind){{range, access}, stride, access == VK_READ, g->type};
}

bool nn_gate_run(vk_device *device, const nn_gate *g, vk_range y)
{
    return launch(device, (uint32_t)g->activation, g->count, flat_bind(device, g, g->a, VK_READ),
                  flat_bind(device, g, g->b, VK_READ), flat_bind(device, g, y, VK_WRITE));
}

bool nn_gate_backward(vk_device *device, const nn_gate *g, vk_range dy, vk_range da, vk_range db)
{
    const nn_row_bind values[] = {flat_bind(device, g, g->a, VK_READ), flat_bind(device, g, g->b, VK_READ),
                                  flat_bind(device, g, dy, VK_READ)};
    return launch_gradients(device, (uint32_t)g->activation, g->count, values, flat_bind(device, g, da, VK_WRITE),
                            flat_bind(device, g, db, VK_WRITE), NN_WANT_A | (db.block ? NN_WANT_B : 0));
}

static bool launch_backward(nn_exec *x, const nn_node *n, vk_bind da, vk_bind db, uint32_t flags)
{
    int64_t count = nn_count(n->in[0]), cols = nn_flat_shape(nn_device(x), count).cols;
    const nn_row_bind values[] = {nn_row_in(n->in[0], cols), nn_row_in(n->in[1], cols), nn_row_dout(n->out[0], cols)};
    return launch_gradients(nn_device(x), kind_of(n), count, values, nn_row_din(da, n->in[0], cols),
                            nn_row_din(db, n->in[1], cols), flags);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    return nn_pair_backward(x, n, launch_backward);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static const double root_2_over_pi = 0.79788456080286535588;

double nn_ref_activation(uint32_t kind, double x)
{
    switch (kind) {
    case NN_GELU_ERF:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case NN_GELU_TANH:
        return 0.5 * x * (1 + tanh(root_2_over_pi * (x + 0.044715 * x * x * x)));
    case NN_QUICK_GELU:
        return x * sigmoid(1.702 * x);
    case NN_SILU:
        return x * sigmoid(x);
    default:
        return x > 0 ? x : 0;
    }
}

double nn_ref_activation_slope(uint32_t kind, double x)
{
    double s, t;
    switch (kind) {
    case NN_GELU_ERF:
        return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
    case NN_GELU_TANH:
        t = tanh(root_2_over_pi * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root_2_over_pi * (1 + 3 * 0.044715 * x * x);
    case NN_QUICK_GELU:
        s = sigmoid(1.702 * x);
        return s * (1 + 1.702 * x * (1 - s));
    case NN_SILU:
        s = sigmoid(x);
        return s * (1 + x * (1 - s));
    default:
        return x > 0 ? 1 : 0;
    }
}

static void ref_forward(const nn_ref *r)
{
    int64_t count = nn_count(r->node->in[0]);
    for (int64_t i = 0; i < count; i++)
        r->out[0][i] = nn_ref_activation(kind_of(r->node), r->in[0][i]) * (r->in[1] ? r->in[1][i] : 1);
}

static void ref_backward(const nn_ref *r)
{
    int64_t count = nn_count(r->node->in[0]);
    for (int64_t i = 0; i < count; i++) {
        double dy = r->dout[0][i], x = r->in[0][i];
        if (r->din[0])
            r->din[0][i] += dy * nn_ref_activation_slope(kind_of(r->node), x) * (r->in[1] ? r->in[1][i] : 1);
        if (r->in[1] && r->din[1])
            r->din[1][i] += dy * nn_ref_activation(kind_of(r->node), x);
    }
}

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

static const activation_params erf_kind = {NN_GELU_ERF}, tanh_kind = {NN_GELU_TANH}, quick_kind = {NN_QUICK_GELU},
                               silu_kind = {NN_SILU}, relu_kind = {NN_RELU};

static const nn_case activation_cases[] = {
    {.name = "gelu erf", .in = {{NN_F32, 2, {33, 64}, NN_FILL_NORMAL, .scale = 3}}, .params = &erf_kind},
    {.name = "gelu tanh, odd count", .in = {{NN_F32, 2, {7, 33}, NN_FILL_NORMAL, .scale = 3}}, .params = &tanh_kind},
    {.name = "quick gelu, one element", .in = {{NN_F32, 1, {1}, NN_FILL_NORMAL}}, .params = &quick_kind},
    {.name = "silu, far tails", .in = {{NN_F32, 3, {3, 5, 8}, NN_FILL_NORMAL, .scale = 30}}, .params = &silu_kind},
    {.name = "relu", .in = {{NN_F32, 2, {5, 3}, NN_FILL_NORMAL}}, .params = &relu_kind},
    {.name = "gelu erf [4096, 1024]",
     .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}},
     .params = &erf_kind,
     .bench = true},
    {.name = "gelu erf [2048, 256]",
     .in = {{NN_F32, 2, {2048, 256}, NN_FILL_NORMAL}},
     .params = &erf_kind,
     .bench = true},
};

static const nn_case gated_cases[] = {
    {.name = "silu",
     .in = {{NN_F32, 2, {17, 64}, NN_FILL_NORMAL}, {NN_F32, 2, {17, 64}, NN_FILL_NORMAL}},
     .params = &silu_kind},
    {.name = "gelu tanh, odd count",
     .in = {{NN_F32, 2, {5, 7}, NN_FILL_NORMAL}, {NN_F32, 2, {5, 7}, NN_FILL_NORMAL}},
     .params = &tanh_kind},
    {.name = "silu, gate without gradient",
     .in = {{NN_F32, 2, {3, 4}, NN_FILL_NORMAL, .no_grad = true}, {NN_F32, 2, {3, 4}, NN_FILL_NORMAL}},
     .params = &silu_kind},
    {.name = "silu [4096, 1024]",
     .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}, {NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}},
     .params = &silu_kind,
     .bench = true},
    {.name = "silu [5632, 176]",
     .in = {{NN_F32, 2, {5632, 176}, NN_FILL_NORMAL}, {NN_F32, 2, {5632, 176}, NN_FILL_NORMAL}},
     .params = &silu_kind,
     .bench = true},
};

const nn_op nn_op_activation = {
    .name = "activation",
    .ins = 1,
    .outs = 1,
    .keep_in = 1,
    .half_in = 1,
    .param_bytes = sizeof(activation_params),
    .infer = infer_activation,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = activation_cases,
    .case_count = sizeof activation_cases / sizeof *activation_cases,
};

const nn_op nn_op_gated = {
    .name = "gated",
    .ins = 2,
    .outs = 1,
    .keep_in = 3,
    .half_in = 3,
    .param_bytes = sizeof(activation_params),
    .infer = infer_gated,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = gated_cases,
    .case_count = sizeof gated_cases / sizeof *gated_cases,
};
