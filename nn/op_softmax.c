/* Softmax over the last dimension. */
#include <math.h>

#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

nn_tensor *nn_softmax(nn_tape *tape, nn_tensor *x)
{
    nn_tensor *y;
    nn_apply(tape, &nn_op_softmax, NULL, &x, 1, &y);
    return y;
}

static bool infer(nn_node *n)
{
    nn_shape_like(n->out[0], n->in[0]);
    return nn_expect_floats("softmax", "x", n->in[0]);
}

static double flops(const nn_node *n)
{
    return 40.0 * (double)nn_count(n->in[0]); /* two exponentials */
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    uint64_t stride = (uint64_t)cols * 4;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "softmax",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {{nn_read_bind(n->in[0]), stride, true}, {nn_write_bind(n->out[0]), stride}},
        .flops = flops(n),
    });
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    int64_t cols = nn_cols(n->in[0]);
    uint64_t stride = (uint64_t)cols * 4;
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "softmax_backward",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = nn_row_width(nn_device(x), cols),
        .reduce = true,
        .bind = {{nn_read_bind(n->out[0]), stride, true}, {nn_dout_bind(n->out[0]), stride, true}, {dx, stride},
                 nn_row_old((nn_row_bind){dx, stride}, accumulate)},
        .spec = {accumulate},
        .flops = 4.0 * (double)nn_count(n->in[0]),
    });
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]);
    for (int64_t i = 0; i < rows; i++) {
        const double *x = r->in[0] + i * cols;
        double top = x[0], sum = 0;
        for (int64_t c = 1; c < cols; c++)
            top = fmax(top, x[c]);
        for (int64_t c = 0; c < cols; c++)
            sum += exp(x[c] - top);
        for (int64_t c = 0; c < cols; c++)
            r->out[0][i * cols + c] = exp(x[c] - top) / sum;
    }
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]);
    for (int64_t i = 0; i < rows; i++) {
        const double *y = r->out[0] + i * cols, *dy = r->dout[0] + i * cols;
        double sum = 0;
        for (int64_t c = 0; c < cols; c++)
            sum += y[c] * dy[c];
        for (int64_t c = 0; c < cols; c++)
            r->din[0][i * cols + c] += y[c] * (dy[c] - sum);
    }
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static const nn_case cases[] = {
    {.name = "[33, 8]", .in = {{NN_F32, 2, {33, 8}, NN_FILL_NORMAL}}},
    {.name = "odd columns, large values", .in = {{NN_F32, 3, {2, 5, 35}, NN_FILL_NORMAL, .scale = 20}}},
    {.name = "one row, longer than a group", .in = {{NN_F32, 2, {1, 2050}, NN_FILL_NORMAL, .scale = 4}}},
    {.name = "one column", .in = {{NN_F32, 2, {5, 1}, NN_FILL_NORMAL}}},
    {.name = "[1200, 4]", .in = {{NN_F32, 2, {1200, 4}, NN_FILL_NORMAL}}},
    {.name = "[4096, 1024]", .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}}, .bench = true},
    {.name = "[16384, 64]", .in = {{NN_F32, 2, {16384, 64}, NN_FILL_NORMAL}}, .bench = true},
};

const nn_op nn_op_softmax = {
    .name = "softmax",
    .ins = 1,
    .outs = 1,
    .keep_out = 1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
