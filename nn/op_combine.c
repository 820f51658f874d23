/* Rows to experts and back: permute gathers a row per (token, choice) in the plan's order, combine mixes the
 * experts' rows of each token by its weights, over sorted rows or over the dense outputs of all experts. */
#include "base/error.h"
#include "nn/launch.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

/* ---- kernels ------------------------------------------------------------------------------------------------- */

/* One launch of combine.comp or combine_backward.comp. */
typedef struct mix {
    vk_bind places, weights; /* per (token, choice); weights may be none: all 1 */
    int64_t tokens, top_k, cols;
    bool dense;
} mix;

static bool launch_combine(nn_exec *x, const mix *m, vk_bind ys, vk_bind y, bool accumulate)
{
    uint32_t push[] = {(uint32_t)m->tokens, accumulate};
    uint64_t pair_stride = (uint64_t)m->top_k * 4;
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "combine",
        .rows = m->tokens,
        .cols = m->cols,
        .width = nn_narrow_width(m->cols),
        .bind = {{m->places, pair_stride}, {m->weights, pair_stride}, {ys, 0}, {y, (uint64_t)m->cols * 4}},
        .spec = {(uint32_t)m->top_k, m->weights.range.block != NULL, m->dense},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 2.0 * (double)(m->tokens * m->top_k * m->cols),
    });
}

enum { WRITE_YS = 1, ADD_YS = 2, WRITE_W = 4, ADD_W = 8 }; /* as in combine_backward.comp */

static bool launch_combine_backward(nn_exec *x, const mix *m, vk_bind dy, vk_bind ys, vk_bind dys, vk_bind dw,
                                    uint32_t flags)
{
    uint32_t push[] = {(uint32_t)m->tokens, flags};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "combine_backward",
        .rows = m->tokens * m->top_k,
        .cols = m->cols,
        .width = nn_narrow_width(m->cols),
        .reduce = true,
        .bind = {{m->places, 4}, {m->weights, 4}, {dy, 0}, {ys, 0}, {dys, 0}, {dw, 4}},
        .spec = {(uint32_t)m->top_k, m->dense},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 3.0 * (double)(m->tokens * m->top_k * m->cols),
    });
}

/* ---- permute ------------------------------------------------------------------------------------------------- */

enum { PERMUTE_X, PERMUTE_ROWS, PERMUTE_PLACES };

nn_tensor *nn_moe_permute(nn_tape *tape, nn_tensor *x, const nn_plan *plan)
{
    nn_tensor *in[] = {x, plan->rows, plan->places}, *xs;
    nn_apply(tape, &nn_op_moe_permute, NULL, in, 3, &xs);
    return xs;
}

static bool infer_permute(nn_node *n)
{
    const nn_tensor *x = n->in[PERMUTE_X];
    int64_t pairs = nn_count(n->in[PERMUTE_ROWS]);
    if (!nn_expect_floats("moe_permute", "x", x) ||
        !nn_expect_integers("moe_permute", "rows", n->in[PERMUTE_ROWS], pairs) ||
        !nn_expect_integers("moe_permute", "places", n->in[PERMUTE_PLACES], pairs))
        return false;
    if (nn_rows(n->in[PERMUTE_PLACES]) != nn_rows(x))
        return cs_fail("moe_permute: x %s and places %s must have as many tokens", nn_shape_string(x).text,
                       nn_shape_string(n->in[PERMUTE_PLACES]).text);
    *n->out[0] = (nn_tensor){.dtype = NN_F32, .dims = 2, .shape = {pairs, nn_cols(x)}};
    return true;
}

static bool forward_permute(nn_exec *x, const nn_node *n)
{
    int64_t pairs = nn_count(n->in[PERMUTE_ROWS]), cols = nn_cols(n->in[PERMUTE_X]);
    uint32_t push[] = {0, (uint32_t)nn_rows(n->in[PERMUTE_X]), 0};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "gather_rows",
        .rows = pairs,
        .cols = cols,
        .width = nn_narrow_width(cols),
        .bind = {{nn_read_bind(n->in[PERMUTE_ROWS]), 4}, {nn_read_bind(n->in[PERMUTE_X]), 0},
                 {nn_write_bind(n->out[0]), (uint64_t)cols * 4}},
        .push = push,
        .push_bytes = sizeof push,
    });
}

static bool backward_permute(nn_exec *x, const nn_node *n)
{
    const nn_tensor *places = n->in[PERMUTE_PLACES];
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[PERMUTE_X], &accumulate);
    mix m = {nn_read_bind(places), {.access = VK_READ}, nn_rows(places), nn_cols(places), nn_cols(n->out[0]), false};
    return launch_combine(x, &m, nn_dout_bind(n->out[0]), dx, accumulate);
}

static void ref_forward_permute(const nn_ref *r)
{
    int64_t pairs = nn_count(r->node->in[PERMUTE_ROWS]), cols = nn_cols(r->node->in[PERMUTE_X]);
    for (int64_t i = 0; i < pairs * cols; i++)
        r->out[0][i] = r->in[PERMUTE_X][(int64_t)r->in[PERMUTE_ROWS][i / cols] * cols + i % cols];
}

static void ref_backward_permute(const nn_ref *r)
{
    int64_t pairs = nn_count(r->node->in[PERMUTE_ROWS]), cols = nn_cols(r->node->in[PERMUTE_X]);
    for (int64_t i = 0; i < pairs * cols; i++)
        r->din[PERMUTE_X][(int64_t)r->in[PERMUTE_ROWS][i / cols] * cols + i % cols] += r->dout[0][i];
}

/* ---- combine ------------------------------------------------------------------------------------------------- */

enum { COMBINE_YS, COMBINE_WEIGHTS, COMBINE_PLACES };

nn_tensor *nn_moe_combine(nn_tape *tape, nn_tensor *ys, nn_tensor *weights, const nn_plan *plan)
{
    nn_tensor *in[] = {ys, weights, plan->places}, *y;
    nn_apply(tape, &nn_op_moe_combine, NULL, in, 3, &y);
    return y;
}

nn_tensor *nn_moe_combine_dense(nn_tape *tape, nn_tensor *y, nn_tensor *weights, nn_tensor *indices)
{
    nn_tensor *in[] = {y, weights, indices}, *out;
    nn_apply(tape, &nn_op_moe_combine_dense, NULL, in, 3, &out);
    return out;
}

static bool is_dense(const nn_node *n)
{
    return n->op == &nn_op_moe_combine_dense;
}

static mix mix_of(const nn_node *n)
{
    const nn_tensor *w = n->in[COMBINE_WEIGHTS];
    return (mix){nn_read_bind(n->in[COMBINE_PLACES]), nn_read_bind(w), nn_rows(w), nn_cols(w),
                 nn_cols(n->in[COMBINE_YS]), is_dense(n)};
}

static bool infer_combine(nn_node *n)
{
    const nn_tensor *ys = n->in[COMBINE_YS], *w = n->in[COMBINE_WEIGHTS];
    const char *op = n->op->name;
    if (!nn_expect_floats(op, "ys", ys) || !nn_expect_floats(op, "weights", w) ||
        !nn_expect_integers(op, "places", n->in[COMBINE_PLACES], nn_count(w)))
        return false;
    if (is_dense(n) ? ys->dims != 3 || ys->shape[1] != nn_rows(w) : nn_rows(ys) != nn_count(w))
        return cs_fail("%s: outputs %s do not fit weights %s", op, nn_shape_string(ys).text, nn_shape_string(w).text);
    nn_shape_like(n->out[0], w);
    n->out[0]->shape[w->dims - 1] = nn_cols(ys);
    return true;
}

static bool forward_combine(nn_exec *x, const nn_node *n)
{
    mix m = mix_of(n);
    return launch_combine(x, &m, nn_read_bind(n->in[COMBINE_YS]), nn_write_bind(n->out[0]), false);
}

static bool backward_combine(nn_exec *x, const nn_node *n)
{
    mix m = mix_of(n);
    vk_bind dys = {.access = VK_WRITE}, dw = {.access = VK_WRITE};
    uint32_t flags = 0;
    bool accumulate;
    if (nn_wants_grad(n->in[COMBINE_YS])) {
        dys = nn_din_bind(x, n->in[COMBINE_YS], &accumulate);
        /* The kernel visits the winners only; the losers' rows of dense outputs get zeros here. */
        if (is_dense(n) && !accumulate && !vk_fill(nn_device(x), dys.range, 0))
            return false;
        flags |= WRITE_YS | (accumulate ? ADD_YS : 0);
    }
    if (nn_wants_grad(n->in[COMBINE_WEIGHTS])) {
        dw = nn_din_bind(x, n->in[COMBINE_WEIGHTS], &accumulate);
        flags |= WRITE_W | (accumulate ? ADD_W : 0);
    }
    return launch_combine_backward(x, &m, nn_dout_bind(n->out[0]), nn_read_bind(n->in[COMBINE_YS]), dys, dw, flags);
}

/* Row of ys for choice k of token t. */
static int64_t ref_row(const nn_ref *r, int64_t t, int64_t k)
{
    const nn_tensor *w = r->node->in[COMBINE_WEIGHTS];
    int64_t place = (int64_t)r->in[COMBINE_PLACES][t * nn_cols(w) + k];
    return is_dense(r->node) ? place * nn_rows(w) + t : place;
}

static void ref_forward_combine(const nn_ref *r)
{
    const nn_tensor *w = r->node->in[COMBINE_WEIGHTS];
    int64_t top_k = nn_cols(w), cols = nn_cols(r->node->in[COMBINE_YS]);
    for (int64_t t = 0; t < nn_rows(w); t++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0;
            for (int64_t k = 0; k < top_k; k++)
                sum += r->in[COMBINE_WEIGHTS][t * top_k + k] * r->in[COMBINE_YS][ref_row(r, t, k) * cols + c];
            r->out[0][t * cols + c] = sum;
        }
}

static void ref_backward_combine(const nn_ref *r)
{
    const nn_tensor *w = r->node->in[COMBINE_WEIGHTS];
    int64_t top_k = nn_cols(w), cols = nn_cols(r->node->in[COMBINE_YS]);
    for (int64_t pair = 0; pair < nn_count(w); pair++) {
        int64_t t = pair / top_k, row = ref_row(r, t, pair % top_k);
        for (int64_t c = 0; c < cols; c++) {
            double g = r->dout[0][t * cols + c];
            if (r->din[COMBINE_YS])
                r->din[COMBINE_YS][row * cols + c] += r->in[COMBINE_WEIGHTS][pair] * g;
            if (r->din[COMBINE_WEIGHTS])
                r->din[COMBINE_WEIGHTS][pair] += r->in[COMBINE_YS][row * cols + c] * g;
        }
    }
}

static double flops_combine(const nn_node *n)
{
    return 2.0 * (double)(nn_count(n->in[COMBINE_WEIGHTS]) * nn_cols(n->in[COMBINE_YS]));
}

/* ---- the rows ------------------------------------------------------------------------------------------------ */

/* Sorted row of a pair: a fixed permutation (7919 is prime and divides none of the tests' counts). */
static int64_t test_place(int64_t pair, int64_t pairs)
{
    return (pair * 7919 + 3) % pairs;
}

static void fill_plan(const nn_case *c, int i, double *const *values)
{
    int last = c->in[2].dims - 1;
    int64_t top_k = c->in[2].shape[last], pairs = 1;
    for (int d = 0; d <= last; d++)
        pairs *= c->in[2].shape[d];
    for (int64_t pair = 0; pair < pairs; pair++) {
        if (i == PERMUTE_ROWS)
            values[i][test_place(pair, pairs)] = (double)(pair / top_k);
        else
            values[i][pair] = (double)test_place(pair, pairs);
    }
}

/* Different experts for the choices of a token. */
static void fill_winners(const nn_case *c, int i, double *const *values)
{
    int64_t top_k = c->in[i].shape[1], experts = c->in[COMBINE_YS].shape[0];
    for (int64_t pair = 0; pair < c->in[i].shape[0] * top_k; pair++)
        values[i][pair] = (double)((pair / top_k * 5 + pair % top_k) % experts);
}

static const nn_case permute_cases[] = {
    {.name = "K 2",
     .in = {{NN_F32, 3, {3, 7, 16}, NN_FILL_NORMAL},
            {NN_I32, 1, {42}, NN_FILL_CUSTOM},
            {NN_I32, 3, {3, 7, 2}, NN_FILL_CUSTOM}},
     .fill = fill_plan},
    {.name = "K 3, odd width",
     .in = {{NN_F32, 2, {11, 5}, NN_FILL_NORMAL},
            {NN_I32, 1, {33}, NN_FILL_CUSTOM},
            {NN_I32, 2, {11, 3}, NN_FILL_CUSTOM}},
     .fill = fill_plan},
    {.name = "[2048, 512], K 2",
     .in = {{NN_F32, 2, {2048, 512}, NN_FILL_NORMAL},
            {NN_I32, 1, {4096}, NN_FILL_CUSTOM},
            {NN_I32, 2, {2048, 2}, NN_FILL_CUSTOM}},
     .fill = fill_plan,
     .bench = true},
};

static const nn_case combine_cases[] = {
    {.name = "K 2",
     .in = {{NN_F32, 2, {42, 16}, NN_FILL_NORMAL},
            {NN_F32, 3, {3, 7, 2}, NN_FILL_NORMAL},
            {NN_I32, 3, {3, 7, 2}, NN_FILL_CUSTOM}},
     .fill = fill_plan},
    {.name = "K 3, odd width",
     .in = {{NN_F32, 2, {33, 70}, NN_FILL_NORMAL},
            {NN_F32, 2, {11, 3}, NN_FILL_NORMAL},
            {NN_I32, 2, {11, 3}, NN_FILL_CUSTOM}},
     .fill = fill_plan},
    {.name = "[2048, 512], K 2",
     .in = {{NN_F32, 2, {4096, 512}, NN_FILL_NORMAL},
            {NN_F32, 2, {2048, 2}, NN_FILL_NORMAL},
            {NN_I32, 2, {2048, 2}, NN_FILL_CUSTOM}},
     .fill = fill_plan,
     .bench = true},
};

static const nn_case dense_cases[] = {
    {.name = "E 4, K 2",
     .in = {{NN_F32, 3, {4, 21, 16}, NN_FILL_NORMAL},
            {NN_F32, 2, {21, 2}, NN_FILL_NORMAL},
            {NN_I32, 2, {21, 2}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "E 3, K 3, odd width, weights fixed",
     .in = {{NN_F32, 3, {3, 11, 5}, NN_FILL_NORMAL},
            {NN_F32, 2, {11, 3}, NN_FILL_NORMAL, .no_grad = true},
            {NN_I32, 2, {11, 3}, NN_FILL_CUSTOM}},
     .fill = fill_winners},
    {.name = "[4, 2048, 512], K 2",
     .in = {{NN_F32, 3, {4, 2048, 512}, NN_FILL_NORMAL},
            {NN_F32, 2, {2048, 2}, NN_FILL_NORMAL},
            {NN_I32, 2, {2048, 2}, NN_FILL_CUSTOM}},
     .fill = fill_winners,
     .bench = true},
};

const nn_op nn_op_moe_permute = {
    .name = "moe_permute",
    .ins = 3,
    .outs = 1,
    .keep_in = 1 << PERMUTE_PLACES,
    .infer = infer_permute,
    .forward = forward_permute,
    .backward = backward_permute,
    .ref_forward = ref_forward_permute,
    .ref_backward = ref_backward_permute,
    .cases = permute_cases,
    .case_count = sizeof permute_cases / sizeof *permute_cases,
};

const nn_op nn_op_moe_combine = {
    .name = "moe_combine",
    .ins = 3,
    .outs = 1,
    .keep_in = 7,
    .infer = infer_combine,
    .forward = forward_combine,
    .backward = backward_combine,
    .ref_forward = ref_forward_combine,
    .ref_backward = ref_backward_combine,
    .flops = flops_combine,
    .cases = combine_cases,
    .case_count = sizeof combine_cases / sizeof *combine_cases,
};

const nn_op nn_op_moe_combine_dense = {
    .name = "moe_combine_dense",
    .ins = 3,
    .outs = 1,
    .keep_in = 7,
    .infer = infer_combine,
    .forward = forward_combine,
    .backward = backward_combine,
    .ref_forward = ref_forward_combine,
    .ref_backward = ref_backward_combine,
    .flops = flops_combine,
    .cases = dense_cases,
    .case_count = sizeof dense_cases / sizeof *dense_cases,
};
