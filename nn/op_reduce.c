/* Sum, mean or sum of squares of all elements. */
#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct reduce_params {
    uint32_t kind; /* enum nn_reduction */
} reduce_params;

static uint32_t kind_of(const nn_node *n)
{
    return ((const reduce_params *)n->params)->kind;
}

static double scale_of(const nn_node *n)
{
    return kind_of(n) == NN_MEAN ? 1.0 / (double)nn_count(n->in[0]) : 1;
}

nn_tensor *nn_reduce(nn_tape *tape, nn_tensor *x, enum nn_reduction kind)
{
    nn_tensor *y;
    nn_apply(tape, &nn_op_reduce, &(reduce_params){kind}, &x, 1, &y);
    return y;
}

static bool infer(nn_node *n)
{
    n->out[0]->dtype = NN_F32;
    n->out[0]->dims = 1;
    n->out[0]->shape[0] = 1;
    if (kind_of(n) > NN_SUM_SQUARES)
        return cs_fail("reduce: there is no reduction %u", kind_of(n));
    return nn_expect_floats("reduce", "x", n->in[0]);
}

static double flops(const nn_node *n)
{
    return (double)nn_count(n->in[0]) * (kind_of(n) == NN_SUM_SQUARES ? 2 : 1);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t count = nn_count(n->in[0]);
    vk_bind partials = nn_scratch(x, (uint64_t)nn_reduce_partials(count) * 4);
    bool square = kind_of(n) == NN_SUM_SQUARES;
    return nn_reduce_range(nn_device(x), nn_read_bind(n->in[0]), count, square, (float)scale_of(n), partials,
                           nn_write_bind(n->out[0]));
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    nn_flat f = nn_flat_shape(nn_device(x), nn_count(n->in[0]));
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    float scale = (float)scale_of(n);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "reduce_backward",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {{nn_read_bind(n->in[0]), f.stride, true}, {nn_dout_bind(n->out[0]), 0}, {dx, f.stride},
                 nn_row_old((nn_row_bind){dx, f.stride}, accumulate)},
        .spec = {kind_of(n) == NN_SUM_SQUARES, accumulate},
        .push = &scale,
        .push_bytes = sizeof scale,
        .flops = flops(n),
    });
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    double sum = 0;
    for (int64_t i = 0; i < nn_count(r->node->in[0]); i++)
        sum += kind_of(r->node) == NN_SUM_SQUARES ? r->in[0][i] * r->in[0][i] : r->in[0][i];
    r->out[0][0] = sum * scale_of(r->node);
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    for (int64_t i = 0; i < nn_count(r->node->in[0]); i++)
        r->din[0][i] += r->dout[0][0] * (kind_of(r->node) == NN_SUM_SQUARES ? 2 * r->in[0][i] : scale_of(r->node));
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* A sum of numbers of one sign: the relative error of one that cancels says nothing. */
static void fill_positive(const nn_case *c, int i, double *const *values)
{
    int64_t n = 1;
    for (int d = 0; d < c->in[i].dims; d++)
        n *= c->in[i].shape[d];
    for (int64_t j = 0; j < n; j++)
        values[i][j] = 0.5 + (double)(j * 37 % 101) / 101;
}

static const reduce_params sum = {NN_SUM}, mean = {NN_MEAN}, squares = {NN_SUM_SQUARES};

static const nn_case cases[] = {
    {.name = "sum", .in = {{NN_F32, 2, {33, 64}, NN_FILL_CUSTOM}}, .params = &sum, .fill = fill_positive},
    {.name = "mean, odd count", .in = {{NN_F32, 2, {7, 33}, NN_FILL_CUSTOM}}, .params = &mean, .fill = fill_positive},
    {.name = "squares", .in = {{NN_F32, 3, {3, 5, 8}, NN_FILL_NORMAL}}, .params = &squares},
    {.name = "squares, two passes", .in = {{NN_F32, 2, {257, 301}, NN_FILL_NORMAL}}, .params = &squares},
    {.name = "one element", .in = {{NN_F32, 1, {1}, NN_FILL_NORMAL}}, .params = &mean},
    {.name = "sum [4096, 1024]", .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}}, .params = &sum, .bench = true},
    {.name = "squares [2048, 64]", .in = {{NN_F32, 2, {2048, 64}, NN_FILL_NORMAL}}, .params = &squares, .bench = true},
};

const nn_op nn_op_reduce = {
    .name = "reduce",
    .ins = 1,
    .outs = 1,
    .keep_in = 1,
    .param_bytes = sizeof(reduce_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
