/* The experts' rows of each token, mixed by its weights. */
#include "base/error.h"
#include "nn/combine.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

enum { IN_YS, IN_WEIGHTS, IN_PLACES };

/* ---- kernels ------------------------------------------------------------------------------------------------- */

/* Rows of ys that are bound at a time, and where they begin; placed rows are visited window by window, others are
 * sliced with the tokens. */
typedef struct window {
    int64_t first, count, rows;
} window;

static bool first_window(vk_device *device, const nn_combine *c, const nn_row_bind *ys, window *w)
{
    *w = (window){0, c->tokens * c->top_k, c->tokens * c->top_k};
    if (c->places.block)
        w->count = nn_slice_rows(device, "combine", w->rows, (uint64_t)c->cols * nn_dtype_size(ys->type));
    return w->count > 0;
}

static bool next_window(window *w)
{
    w->first += w->count;
    w->count = w->first + w->count <= w->rows ? w->count : w->rows - w->first;
    return w->count > 0;
}

/* `rows` as the kernel sees it in this window. */
static nn_row_bind window_bind(const nn_combine *c, nn_row_bind rows, const window *w)
{
    uint64_t stride = (uint64_t)c->cols * nn_dtype_size(rows.type);
    rows.stride = 0;
    if (!c->places.block)
        rows.stride = (uint64_t)c->top_k * stride;
    else if (rows.bind.range.block)
        rows.bind = nn_slice_bind(rows.bind, w->first, w->count, stride);
    return rows;
}

bool nn_combine_run(vk_device *device, const nn_combine *c, nn_row_bind ys, nn_row_bind y, bool accumulate)
{
    uint64_t pair_stride = (uint64_t)c->top_k * 4;
    enum nn_width width = nn_row_width(device, c->cols);
    window w;
    if (!first_window(device, c, &ys, &w))
        return false;
    y.stride = (uint64_t)c->cols * nn_dtype_size(y.type);
    do {
        bool add = accumulate || w.first;
        uint32_t push[] = {(uint32_t)w.first, (uint32_t)w.count};
        bool ok = nn_launch_rows(device, &(nn_launch){
            .kernel = "combine",
            .rows = c->tokens,
            .cols = c->cols,
            .width = width,
            .reduce = true,
            .lanes = nn_streaming_lanes(device, c->cols / width),
            .bind = {{{c->places, VK_READ}, pair_stride}, {{c->weights, VK_READ}, pair_stride},
                     window_bind(c, ys, &w), y, nn_row_old(y, add)},
            .spec = {(uint32_t)c->top_k, c->weights.block != NULL, c->places.block != NULL, add},
            .push = push,
            .push_bytes = sizeof push,
            .flops = 2.0 * (double)(w.count * c->cols),
        });
        if (!ok)
            return false;
    } while (next_window(&w));
    return true;
}

enum { WRITE_YS = 1, ADD_YS = 2, WRITE_W = 4, ADD_W = 8 }; /* as in combine_backward.comp */

typedef struct gradients {
    nn_row_bind dy, ys, dys;
    vk_bind dw;
    uint32_t flags;
} gradients;

static bool run_backward(vk_device *device, const nn_combine *c, const gradients *g)
{
    uint64_t pair_stride = (uint64_t)c->top_k * 4;
    enum nn_width width = nn_row_width(device, c->cols);
    window w;
    if (!first_window(device, c, &g->ys, &w))
        return false;
    do {
        uint32_t push[] = {(uint32_t)w.first, (uint32_t)w.count};
        nn_row_bind dys = window_bind(c, g->dys, &w);
        bool ok = nn_launch_rows(device, &(nn_launch){
            .kernel = "combine_backward",
            .rows = c->tokens,
            .cols = c->cols,
            .width = width,
            .reduce = true,
            .lanes = nn_streaming_lanes(device, c->cols / width),
            .bind = {{{c->places, VK_READ}, pair_stride}, {{c->weights, VK_READ}, pair_stride}, g->dy,
                     window_bind(c, g->ys, &w), dys, {g->dw, pair_stride}, nn_row_old(dys, g->flags & ADD_YS)},
            .spec = {(uint32_t)c->top_k, c->places.block != NULL, g->flags},
            .push = push,
            .push_bytes = sizeof push,
            .flops = 3.0 * (double)(w.count * c->cols),
        });
        if (!ok)
            return false;
    } while (next_window(&w));
    return true;
}

/* ---- the operator -------------------------------------------------------------------------------------------- */

nn_tensor *nn_moe_combine(nn_tape *tape, nn_tensor *ys, nn_tensor *weights, const nn_plan *plan)
{
    nn_tensor *in[] = {ys, weights, plan ? plan->places : NULL}, *y;
    nn_apply(tape, &nn_op_moe_combine, NULL, in, 3, &y);
    return y;
}

static nn_combine combine_of(const nn_node *n)
{
    const nn_tensor *w = n->in[IN_WEIGHTS];
    return (nn_combine){nn_rows(w), nn_cols(w), nn_cols(n->in[IN_YS]), nn_read_bind(n->in[IN_PLACES]).range,
                        nn_read_bind(w).range};
}

static bool infer(nn_node *n)
{
    const nn_tensor *ys = n->in[IN_YS], *w = n->in[IN_WEIGHTS], *places = n->in[IN_PLACES];
    if (!nn_expect_values("moe_combine", "ys", ys) || !nn_expect_floats("moe_combine", "weights", w) ||
        (places && !nn_expect_integers("moe_combine", "places", places, nn_count(w))))
        return false;
    if (nn_rows(ys) != nn_count(w))
        return cs_fail("moe_combine: outputs %s do not fit weights %s", nn_shape_string(ys).text,
                       nn_shape_string(w).text);
    nn_shape_like(n->out[0], w);
    n->out[0]->dtype = ys->dtype;
    n->out[0]->shape[w->dims - 1] = nn_cols(ys);
    return true;
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_combine c = combine_of(n);
    return nn_combine_run(nn_device(x), &c, nn_row_in(n->in[IN_YS], c.cols), nn_row_out(n->out[0], c.cols), false);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    nn_combine c = combine_of(n);
    nn_tensor *ys = n->in[IN_YS];
    gradients g = {.dy = nn_row_dout(n->out[0], c.cols), .ys = nn_row_in(ys, c.cols), .dw = {.access = VK_WRITE}};
    vk_bind dys = {.access = VK_WRITE};
    bool accumulate;
    if (nn_wants_grad(ys)) {
        dys = nn_din_bind(x, ys, &accumulate);
        g.flags |= WRITE_YS | (accumulate ? ADD_YS : 0);
    }
    if (nn_wants_grad(n->in[IN_WEIGHTS])) {
        g.dw = nn_din_bind(x, n->in[IN_WEIGHTS], &accumulate);
        g.flags |= WRITE_W | (accumulate ? ADD_W : 0);
    }
    g.dys = nn_row_din(dys, ys, c.cols);
    return run_backward(nn_device(x), &c, &g);
}

/* Row of ys for choice k of token t. */
static int64_t ref_row(const nn_ref *r, int64_t pair)
{
    return r->in[IN_PLACES] ? (int64_t)r->in[IN_PLACES][pair] : pair;
}

static void ref_forward(const nn_ref *r)
{
    const nn_tensor *w = r->node->in[IN_WEIGHTS];
    int64_t top_k = nn_cols(w), cols = nn_cols(r->node->in[IN_YS]);
    for (int64_t t = 0; t < nn_rows(w); t++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0;
            for (int64_t pair = t * top_k; pair < (t + 1) * top_k; pair++)
                sum += r->in[IN_WEIGHTS][pair] * r->in[IN_YS][ref_row(r, pair) * cols + c];
            r->out[0][t * cols + c] = sum;
        }
}

static void ref_backward(const nn_ref *r)
{
    const nn_tensor *w = r->node->in[IN_WEIGHTS];
    int64_t top_k = nn_cols(w), cols = nn_cols(r->node->in[IN_YS]);
    for (int64_t pair = 0; pair < nn_count(w); pair++) {
        int64_t t = pair / top_k, row = ref_row(r, pair);
        for (int64_t c = 0; c < cols; c++) {
            double g = r->dout[0][t * cols + c];
            if (r->din[IN_YS])
                r->din[IN_YS][row * cols + c] += r->in[IN_WEIGHTS][pair] * g;
            if (r->din[IN_WEIGHTS])
                r->din[IN_WEIGHTS][pair] += r->in[IN_YS][row * cols + c] * g;
        }
    }
}

static double flops(const nn_node *n)
{
    return 2.0 * (double)(nn_count(n->in[IN_WEIGHTS]) * nn_cols(n->in[IN_YS]));
}

/* ---- the row ------------------------------------------------------------------------------------------------- */

/* Sorted row of a pair: a fixed permutation (7919 is prime and divides none of the tests' counts). */
static void fill_places(const nn_case *c, int i, double *const *values)
{
    int64_t pairs = 1;
    for (int d = 0; d < c->in[i].dims; d++)
        pairs *= c->in[i].shape[d];
    for (int64_t pair = 0; pair < pairs; pair++)
        values[i][pair] = (double)((pair * 7919 + 3) % pairs);
}

static const nn_case cases[] = {
    {.name = "K 2",
     .in = {{NN_F32, 2, {42, 16}, NN_FILL_NORMAL},
            {NN_F32, 3, {3, 7, 2}, NN_FILL_NORMAL},
            {NN_I32, 3, {3, 7, 2}, NN_FILL_CUSTOM}},
     .fill = fill_places},
    {.name = "K 3, odd width",
     .in = {{NN_F32, 2, {33, 70}, NN_FILL_NORMAL},
            {NN_F32, 2, {11, 3}, NN_FILL_NORMAL},
            {NN_I32, 2, {11, 3}, NN_FILL_CUSTOM}},
     .fill = fill_places},
    {.name = "K 2, in place", .in = {{NN_F32, 3, {21, 2, 16}, NN_FILL_NORMAL}, {NN_F32, 3, {3, 7, 2}, NN_FILL_NORMAL}}},
    {.name = "K 3, in place, weights fixed",
     .in = {{NN_F32, 3, {11, 3, 5}, NN_FILL_NORMAL}, {NN_F32, 2, {11, 3}, NN_FILL_NORMAL, .no_grad = true}}},
    {.name = "[2048, 512], K 2",
     .in = {{NN_F32, 2, {4096, 512}, NN_FILL_NORMAL},
            {NN_F32, 2, {2048, 2}, NN_FILL_NORMAL},
            {NN_I32, 2, {2048, 2}, NN_FILL_CUSTOM}},
     .fill = fill_places,
     .bench = true},
    {.name = "[2048, 64], K 2, in place",
     .in = {{NN_F32, 3, {2048, 2, 64}, NN_FILL_NORMAL}, {NN_F32, 2, {2048, 2}, NN_FILL_NORMAL}},
     .bench = true},
};

const nn_op nn_op_moe_combine = {
    .name = "moe_combine",
    .ins = 3,
    .outs = 1,
    .optional = 1 << IN_PLACES,
    .keep_in = 7,
    .half_in = 1 << IN_YS,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
