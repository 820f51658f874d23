/* The k largest of each row with their columns. */
#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct top_k_params {
    int32_t k;
} top_k_params;

static int32_t k_of(const nn_node *n)
{
    return ((const top_k_params *)n->params)->k;
}

bool nn_top_k(nn_tape *tape, nn_tensor *x, int k, nn_tensor **values, nn_tensor **indices)
{
    nn_tensor *out[2];
    bool ok = nn_apply(tape, &nn_op_top_k, &(top_k_params){k}, &x, 1, out);
    *values = out[0];
    *indices = out[1];
    return ok;
}

static bool infer(nn_node *n)
{
    const nn_tensor *x = n->in[0];
    if (!nn_expect_floats("top_k", "x", x))
        return false;
    if (x->dims < 1 || k_of(n) < 1 || k_of(n) > nn_cols(x))
        return cs_fail("top_k: k = %d of rows %s", k_of(n), nn_shape_string(x).text);
    for (int i = 0; i < 2; i++) {
        nn_shape_like(n->out[i], x);
        n->out[i]->shape[x->dims - 1] = k_of(n);
    }
    n->out[1]->dtype = NN_I32;
    return true;
}

static double flops(const nn_node *n)
{
    return (double)nn_count(n->in[0]) * k_of(n);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    uint32_t k = (uint32_t)k_of(n);
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "top_k",
        .rows = nn_rows(n->in[0]),
        .cols = nn_cols(n->in[0]),
        .reduce = true,
        .bind = {{nn_read_bind(n->in[0]), (uint64_t)nn_cols(n->in[0]) * 4}, {nn_write_bind(n->out[0]), k * 4ull},
                 {nn_write_bind(n->out[1]), k * 4ull}},
        .push = &k,
        .push_bytes = sizeof k,
        .flops = flops(n),
    });
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    uint32_t push[] = {(uint32_t)k_of(n), accumulate};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "top_k_backward",
        .rows = nn_rows(n->in[0]),
        .cols = nn_cols(n->in[0]),
        .bind = {{nn_read_bind(n->out[1]), push[0] * 4ull}, {nn_dout_bind(n->out[0]), push[0] * 4ull},
                 {dx, (uint64_t)nn_cols(n->in[0]) * 4}},
        .push = push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]), k = k_of(r->node);
    for (int64_t i = 0; i < rows; i++) {
        const double *x = r->in[0] + i * cols;
        double *values = r->out[0] + i * k, *indices = r->out[1] + i * k;
        for (int64_t pick = 0; pick < k; pick++) {
            int64_t best = -1;
            for (int64_t c = 0; c < cols; c++) {
                bool taken = false;
                for (int64_t earlier = 0; earlier < pick; earlier++)
                    taken |= indices[earlier] == (double)c;
                if (!taken && (best < 0 || x[c] > x[best]))
                    best = c;
            }
            values[pick] = x[best];
            indices[pick] = (double)best;
        }
    }
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]), k = k_of(r->node);
    for (int64_t i = 0; i < rows * k; i++)
        r->din[0][i / k * cols + (int64_t)r->out[1][i]] += r->dout[0][i];
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Few distinct values, so that the order among equals shows. */
static void fill_ties(const nn_case *c, int i, double *const *values)
{
    for (int64_t j = 0; j < c->in[i].shape[0] * c->in[i].shape[1]; j++)
        values[i][j] = (double)(j * 7 % 5 - j % 3) * 0.5;
}

static const top_k_params one = {1}, two = {2}, six = {6};

static const nn_case cases[] = {
    {.name = "2 of 8", .in = {{NN_F32, 3, {3, 11, 8}, NN_FILL_NORMAL}}, .params = &two},
    {.name = "all 6", .in = {{NN_F32, 2, {4, 6}, NN_FILL_NORMAL}}, .params = &six},
    {.name = "1 of 1", .in = {{NN_F32, 2, {3, 1}, NN_FILL_NORMAL}}, .params = &one},
    {.name = "2 of 777, one row", .in = {{NN_F32, 2, {1, 777}, NN_FILL_NORMAL}}, .params = &two},
    {.name = "ties, 6 of 13",
     .in = {{NN_F32, 2, {5, 13}, NN_FILL_CUSTOM, .no_grad = true}},
     .params = &six,
     .fill = fill_ties},
    {.name = "2 of 16, 65536 rows", .in = {{NN_F32, 2, {65536, 16}, NN_FILL_NORMAL}}, .params = &two, .bench = true},
    {.name = "2 of 128, 8192 rows", .in = {{NN_F32, 2, {8192, 128}, NN_FILL_NORMAL}}, .params = &two, .bench = true},
};

const nn_op nn_op_top_k = {
    .name = "top_k",
    .ins = 1,
    .outs = 2,
    .keep_out = 2,
    .param_bytes = sizeof(top_k_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
