/* Sums: y = a + b, and x + rows with the rows repeated over the leading dimensions. */
#include "base/error.h"
#include "nn/bias_sum.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

nn_tensor *nn_add(nn_tape *tape, nn_tensor *a, nn_tensor *b)
{
    nn_tensor *in[] = {a, b}, *y;
    nn_apply(tape, &nn_op_add, NULL, in, 2, &y);
    return y;
}

nn_tensor *nn_add_rows(nn_tape *tape, nn_tensor *x, nn_tensor *rows)
{
    nn_tensor *in[] = {x, rows}, *y;
    nn_apply(tape, &nn_op_add_rows, NULL, in, 2, &y);
    return y;
}

static double flops(const nn_node *n)
{
    return (double)nn_count(n->in[0]);
}

/* ---- add --------------------------------------------------------------------------------------------------------- */

static bool infer_add(nn_node *n)
{
    nn_shape_like(n->out[0], n->in[0]);
    n->out[0]->dtype = NN_F32;
    return nn_expect_alike("add", "a", n->in[0], "b", n->in[1]);
}

static bool forward_add(nn_exec *x, const nn_node *n)
{
    nn_flat f = nn_flat_shape(nn_device(x), nn_count(n->in[0]));
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "add",
        .rows = f.rows,
        .cols = f.cols,
        .width = f.width,
        .turns = true,
        .bind = {nn_row_in(n->in[0], f.cols), nn_row_in(n->in[1], f.cols), nn_row_out(n->out[0], f.cols)},
        .push = &(uint32_t){0},
        .push_bytes = sizeof(uint32_t),
        .flops = flops(n),
    });
}

bool nn_pass_gradient(nn_exec *x, const nn_tensor *out, nn_tensor *in)
{
    if (!nn_wants_grad(in) || nn_hand_gradient(x, out, in))
        return true;
    bool accumulate;
    vk_bind sum = nn_din_bind(x, in, &accumulate);
    return nn_cast_run(nn_device(x), nn_row_dout(out, 0), nn_row_din(sum, in, 0), nn_count(in), accumulate);
}

static bool backward_add(nn_exec *x, const nn_node *n)
{
    return nn_pass_gradient(x, n->out[0], n->in[0]) && nn_pass_gradient(x, n->out[0], n->in[1]);
}

/* ---- add_rows ---------------------------------------------------------------------------------------------------- */

static bool infer_add_rows(nn_node *n)
{
    const nn_tensor *x = n->in[0], *rows = n->in[1];
    nn_shape_like(n->out[0], x);
    n->out[0]->dtype = NN_F32;
    if (!nn_expect_values("add_rows", "x", x) || !nn_expect_floats("add_rows", "rows", rows))
        return false;
    bool fits = rows->dims == 2 && x->dims >= 2 && x->shape[x->dims - 1] == rows->shape[1] &&
                x->shape[x->dims - 2] == rows->shape[0];
    return fits || cs_fail("add_rows: rows %s must be the last two dimensions of x %s", nn_shape_string(rows).text,
                           nn_shape_string(x).text);
}

static bool forward_add_rows(nn_exec *x, const nn_node *n)
{
    enum nn_width width = nn_row_width(nn_device(x), nn_count(n->in[1]));
    uint32_t period = (uint32_t)(nn_count(n->in[1]) / width);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "add",
        .rows = nn_count(n->in[0]) / width,
        .cols = width,
        .width = width,
        .turns = true,
        .bind = {nn_row_in(n->in[0], width), nn_row_in(n->in[1], 0), nn_row_out(n->out[0], width)},
        .spec = {true},
        .push = &period,
        .push_bytes = sizeof period,
        .flops = flops(n),
    });
}

static bool backward_add_rows(nn_exec *x, const nn_node *n)
{
    if (!nn_pass_gradient(x, n->out[0], n->in[0]))
        return false;
    if (!nn_wants_grad(n->in[1]))
        return true;
    bool accumulate;
    uint32_t cols = (uint32_t)nn_count(n->in[1]);
    vk_bind rows = nn_din_bind(x, n->in[1], &accumulate);
    return nn_bias_sum_run(nn_device(x), &(nn_bias_sum){
        .rows = (uint32_t)(nn_count(n->in[0]) / cols),
        .columns = cols,
        .in = nn_dout_bind(n->out[0]).range,
        .out = rows.range,
        .accumulate = accumulate,
    });
}

/* ---- references: add is add_rows with as many rows as x ---------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    int64_t count = nn_count(r->node->in[0]), period = nn_count(r->node->in[1]);
    for (int64_t i = 0; i < count; i++)
        r->out[0][i] = r->in[0][i] + r->in[1][i % period];
}

static void ref_backward(const nn_ref *r)
{
    int64_t count = nn_count(r->node->in[0]), period = nn_count(r->node->in[1]);
    for (int64_t i = 0; i < count; i++) {
        if (r->din[0])
            r->din[0][i] += r->dout[0][i];
        if (r->din[1])
            r->din[1][i % period] += r->dout[0][i];
    }
}

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

static const nn_case add_cases[] = {
    {.name = "[3, 5, 64]", .in = {{NN_F32, 3, {3, 5, 64}, NN_FILL_NORMAL}, {NN_F32, 3, {3, 5, 64}, NN_FILL_NORMAL}}},
    {.name = "odd count", .in = {{NN_F32, 2, {7, 11}, NN_FILL_NORMAL}, {NN_F32, 2, {7, 11}, NN_FILL_NORMAL}}},
    {.name = "one gradient",
     .in = {{NN_F32, 2, {4, 4}, NN_FILL_NORMAL}, {NN_F32, 2, {4, 4}, NN_FILL_NORMAL, .no_grad = true}}},
    {.name = "[4096, 1024]",
     .in = {{NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}, {NN_F32, 2, {4096, 1024}, NN_FILL_NORMAL}},
     .bench = true},
    {.name = "[5632, 64]",
     .in = {{NN_F32, 2, {5632, 64}, NN_FILL_NORMAL}, {NN_F32, 2, {5632, 64}, NN_FILL_NORMAL}},
     .bench = true},
};

static const nn_case add_rows_cases[] = {
    {.name = "[3, 5, 64]", .in = {{NN_F32, 3, {3, 5, 64}, NN_FILL_NORMAL}, {NN_F32, 2, {5, 64}, NN_FILL_NORMAL}}},
    {.name = "odd columns, many batches",
     .in = {{NN_F32, 3, {70, 2, 7}, NN_FILL_NORMAL}, {NN_F32, 2, {2, 7}, NN_FILL_NORMAL}}},
    {.name = "no leading dimension", .in = {{NN_F32, 2, {3, 1}, NN_FILL_NORMAL}, {NN_F32, 2, {3, 1}, NN_FILL_NORMAL}}},
    {.name = "[32, 256, 256]",
     .in = {{NN_F32, 3, {32, 256, 256}, NN_FILL_NORMAL}, {NN_F32, 2, {256, 256}, NN_FILL_NORMAL}},
     .bench = true},
    {.name = "[32, 64, 64]",
     .in = {{NN_F32, 3, {32, 64, 64}, NN_FILL_NORMAL}, {NN_F32, 2, {64, 64}, NN_FILL_NORMAL}},
     .bench = true},
};

const nn_op nn_op_add = {
    .name = "add",
    .ins = 2,
    .outs = 1,
    .half_in = 3,
    .infer = infer_add,
    .forward = forward_add,
    .backward = backward_add,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = add_cases,
    .case_count = sizeof add_cases / sizeof *add_cases,
};

const nn_op nn_op_add_rows = {
    .name = "add_rows",
    .ins = 2,
    .outs = 1,
    .half_in = 1,
    .infer = infer_add_rows,
    .forward = forward_add_rows,
    .backward = backward_add_rows,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = add_rows_cases,
    .case_count = sizeof add_rows_cases / sizeof *add_rows_cases,
};
