/* Rows by index, each at most once. */
#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

nn_tensor *nn_gather_rows(nn_tape *tape, nn_tensor *x, nn_tensor *rows, nn_tensor *inverse)
{
    nn_tensor *in[] = {x, rows, inverse}, *y;
    nn_apply(tape, &nn_op_gather_rows, NULL, in, 3, &y);
    return y;
}

static bool infer(nn_node *n)
{
    const nn_tensor *x = n->in[0], *rows = n->in[1];
    if (!nn_expect_values("gather_rows", "x", x) || !nn_expect_integers("gather_rows", "rows", rows, nn_count(rows)))
        return false;
    n->out[0]->dtype = x->dtype;
    n->out[0]->dims = 2;
    n->out[0]->shape[0] = nn_count(rows);
    n->out[0]->shape[1] = nn_cols(x);
    return nn_expect_integers("gather_rows", "inverse", n->in[2], nn_rows(x));
}

/* The rows that are picked, not all. */
static double bytes(const nn_node *n)
{
    return 2.0 * (double)nn_bytes(n->out[0]) + 4.0 * (double)nn_rows(n->out[0]);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    return nn_gather(nn_device(x), &(nn_gather_launch){
        .index = nn_read_bind(n->in[1]),
        .from = nn_read_bind(n->in[0]),
        .to = nn_write_bind(n->out[0]),
        .from_type = n->in[0]->dtype,
        .to_type = n->out[0]->dtype,
        .sources = nn_rows(n->in[0]),
        .rows = nn_rows(n->out[0]),
        .cols = nn_cols(n->in[0]),
        .flags = NN_GATHER_ZERO_MISSING,
    });
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    return nn_gather(nn_device(x), &(nn_gather_launch){
        .index = nn_read_bind(n->in[2]),
        .from = nn_dout_bind(n->out[0]),
        .to = dx,
        .from_type = n->out[0]->dtype,
        .to_type = n->in[0]->dtype,
        .sources = nn_rows(n->out[0]),
        .rows = nn_rows(n->in[0]),
        .cols = nn_cols(n->in[0]),
        .flags = accumulate ? NN_GATHER_ACCUMULATE : NN_GATHER_ZERO_MISSING,
    });
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->out[0]), cols = nn_cols(r->node->out[0]);
    for (int64_t i = 0; i < rows * cols; i++)
        r->out[0][i] = r->in[1][i / cols] < 0 ? 0 : r->in[0][(int64_t)r->in[1][i / cols] * cols + i % cols];
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    int64_t rows = nn_rows(r->node->out[0]), cols = nn_cols(r->node->out[0]);
    for (int64_t i = 0; i < rows * cols; i++)
        if (r->in[1][i / cols] >= 0)
            r->din[0][(int64_t)r->in[1][i / cols] * cols + i % cols] += r->dout[0][i];
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Picks rows in a scattered order (5 has no common factor with the row counts used), then inverts the choice. */
static void fill(const nn_case *c, int i, double *const *values)
{
    int64_t n = c->in[0].shape[0], m = c->in[1].shape[0];
    if (i == 1) {
        for (int64_t j = 0; j < m; j++)
            values[1][j] = (double)((5 * j + 2) % n);
        return;
    }
    for (int64_t j = 0; j < n; j++)
        values[2][j] = -1;
    for (int64_t j = 0; j < m; j++)
        values[2][(int64_t)values[1][j]] = (double)j;
}

#define GATHER(n, m, cols) \
    .in = {{NN_F32, 2, {n, cols}, NN_FILL_NORMAL}, {NN_I32, 1, {m}, NN_FILL_CUSTOM}, \
           {NN_I32, 1, {n}, NN_FILL_CUSTOM}}, \
    .fill = fill

static const nn_case cases[] = {
    {.name = "9 of 17 rows of 64", GATHER(17, 9, 64)},
    {.name = "all rows, odd columns", GATHER(7, 7, 5)},
    {.name = "one of one", GATHER(1, 1, 1)},
    {.name = "8192 of 16384 rows of 64", GATHER(16384, 8192, 64), .bench = true},
    {.name = "2048 of 4096 rows of 1024", GATHER(4096, 2048, 1024), .bench = true},
};

const nn_op nn_op_gather_rows = {
    .name = "gather_rows",
    .ins = 3,
    .outs = 1,
    .half_in = 1,
    .keep_in = 4,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .bytes = bytes,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
