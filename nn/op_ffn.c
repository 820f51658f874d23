/* Feed-forward blocks as one operator: plain, and grouped over the routed rows of a mixture of experts, whose gather is
 * part of the first product's loads. */
#include "base/error.h"
#include "nn/combine.h"
#include "nn/ffn.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

enum { IN_OFFSETS = NN_FFN_INS, IN_ROWS, IN_PLACES, GROUPED_INS };
enum { OUT_Y, OUT_U, OUT_V, OUT_H, OUTS };

typedef struct ffn_params {
    int32_t activation;
} ffn_params;

nn_tensor *nn_feed_forward_block(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, enum nn_activation activation)
{
    nn_tensor *in[] = {x, w->w1, w->b1, w->w2, w->b2, w->w3}, *out[OUTS];
    nn_apply(tape, &nn_op_ffn, &(ffn_params){(int32_t)activation}, in, NN_FFN_INS, out);
    return out[OUT_Y];
}

nn_tensor *nn_grouped_ffn(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, enum nn_activation activation,
                          const nn_plan *plan)
{
    nn_tensor *in[] = {x, w->w1, w->b1, w->w2, w->b2, w->w3, plan->offsets, plan->rows, plan->places}, *out[OUTS];
    nn_apply(tape, &nn_op_grouped_ffn, &(ffn_params){(int32_t)activation}, in, GROUPED_INS, out);
    return out[OUT_Y];
}

static bool is_grouped(const nn_node *n)
{
    return n->op == &nn_op_grouped_ffn;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

static bool find_shape(const nn_node *n, nn_ffn_shape *s)
{
    if (!nn_ffn_check(n, ((const ffn_params *)n->params)->activation, is_grouped(n), s))
        return false;
    if (is_grouped(n))
        s->rows = (uint32_t)nn_count(n->in[IN_ROWS]);
    return true;
}

static bool check_plan(const nn_node *n, const nn_ffn_shape *s)
{
    const char *op = n->op->name;
    if (!nn_expect_integers(op, "offsets", n->in[IN_OFFSETS], (int64_t)s->experts + 1) ||
        !nn_expect_integers(op, "rows", n->in[IN_ROWS], s->rows) ||
        !nn_expect_integers(op, "places", n->in[IN_PLACES], s->rows))
        return false;
    return nn_rows(n->in[IN_PLACES]) == nn_rows(n->in[NN_FFN_X]) ||
           cs_fail("%s: x %s and places %s must have as many tokens", op, nn_shape_string(n->in[NN_FFN_X]).text,
                   nn_shape_string(n->in[IN_PLACES]).text);
}

/* [rows, cols], or left out. */
static void set_saved(nn_tensor *t, bool saved, enum nn_dtype type, int64_t rows, int64_t cols)
{
    *t = (nn_tensor){.dtype = saved ? type : NN_F32, .dims = saved ? 2 : 0, .shape = {rows, cols}};
}

static bool infer(nn_node *n)
{
    nn_ffn_shape s;
    if (!find_shape(n, &s) || (is_grouped(n) && !check_plan(n, &s)))
        return false;
    bool trains = nn_ffn_trains(n);
    set_saved(n->out[OUT_Y], true, s.out_type, s.rows, s.out);
    if (!is_grouped(n)) {
        nn_shape_like(n->out[OUT_Y], n->in[NN_FFN_X]);
        n->out[OUT_Y]->dtype = s.out_type;
        n->out[OUT_Y]->shape[n->in[NN_FFN_X]->dims - 1] = s.out;
    }
    set_saved(n->out[OUT_U], trains, s.hidden_type, s.rows, s.hidden);
    set_saved(n->out[OUT_V], trains && s.gated, s.hidden_type, s.rows, s.hidden);
    set_saved(n->out[OUT_H], true, s.hidden_type, s.rows, s.hidden);
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

static vk_range values(const nn_tensor *t)
{
    return nn_read_bind(t).range;
}

static bool find_block(const nn_node *n, nn_ffn *f)
{
    nn_ffn_shape s;
    if (!find_shape(n, &s))
        return false;
    *f = nn_ffn_of(n, &s);
    f->h = values(n->out[OUT_H]);
    f->u = values(n->out[OUT_U]);
    f->v = values(n->out[OUT_V]);
    if (is_grouped(n)) {
        f->offsets = values(n->in[IN_OFFSETS]);
        f->tokens = values(n->in[IN_ROWS]);
    }
    return true;
}

/* ---- windows of rows --------------------------------------------------------------------------------------------- */

/* The rows of a grouped block, in windows that a device can bind; one window where it can bind all. */
typedef struct windows {
    uint32_t rows, step, stride; /* rows in all and of a window; elements between two windows' offsets */
    vk_range offsets;
} windows;

enum { WINDOW_ALIGN = 64 }; /* rows, or elements of offsets, that keep every range aligned */

static uint32_t next_window(const windows *w, uint32_t first)
{
    return w->rows - first < w->step ? w->rows - first : w->step;
}

static bool find_windows(nn_exec *x, const nn_ffn *f, windows *w)
{
    const nn_ffn_shape *s = &f->shape;
    const uint64_t bytes[] = {s->hidden * nn_dtype_size(s->hidden_type), s->out * nn_dtype_size(s->out_type),
                              s->in * nn_dtype_size(f->x.type)};
    uint64_t most = vk_device_caps(nn_device(x))->max_storage_range, widest = 0;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        widest = bytes[i] > widest ? bytes[i] : widest;
    *w = (windows){s->rows, s->rows, 0, f->offsets};
    if (!f->offsets.block || s->rows <= most / widest)
        return true;
    w->step = (uint32_t)(most / widest / WINDOW_ALIGN * WINDOW_ALIGN);
    if (!w->step)
        return cs_fail("grouped_ffn: %d rows of %llu bytes do not fit a buffer of this device (%llu bytes)",
                       WINDOW_ALIGN, (unsigned long long)widest, (unsigned long long)most);
    uint32_t count = (s->rows + w->step - 1) / w->step;
    w->stride = (s->experts + WINDOW_ALIGN) / WINDOW_ALIGN * WINDOW_ALIGN;
    w->offsets = nn_scratch(x, 4ull * count * w->stride).range;
    const uint32_t push[] = {s->experts, w->step, w->stride, count};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "window_offsets",
        .spec = {64},
        .specs = 1,
        .bind = {{f->offsets, VK_READ}, {w->offsets, VK_WRITE}},
        .binds = 2,
        .push = push,
        .push_bytes = sizeof push,
        .groups = {(count * (s->experts + 1) + 63) / 64, 1, 1},
    });
}

static vk_range skip(vk_range r, uint64_t bytes)
{
    return r.block ? (vk_range){r.block, r.offset + bytes, r.size - bytes} : r;
}

/* The rows of a window that begins at row `first`. */
static nn_ffn window_of(const nn_ffn *all, const windows *w, uint32_t first)
{
    const nn_ffn_shape *s = &all->shape;
    uint64_t hidden = (uint64_t)first * s->hidden * nn_dtype_size(s->hidden_type);
    nn_ffn f = *all;
    f.shape.rows = next_window(w, first);
    f.offsets = skip(w->offsets, 4ull * (first / w->step) * w->stride);
    f.tokens = skip(f.tokens, 4ull * first);
    f.u = skip(f.u, hidden);
    f.v = skip(f.v, hidden);
    f.h = skip(f.h, hidden);
    return f;
}

static vk_range out_rows(const nn_ffn *f, vk_range y, uint32_t first)
{
    return skip(y, (uint64_t)first * f->shape.out * nn_dtype_size(f->shape.out_type));
}

static uint64_t token_bytes(const nn_ffn *f)
{
    return f->shape.in * nn_dtype_size(f->x.type);
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static bool forward(nn_exec *x, const nn_node *n)
{
    vk_range y = nn_write_bind(n->out[OUT_Y]).range;
    nn_ffn f;
    windows w;
    if (!find_block(n, &f) || !find_windows(x, &f, &w))
        return false;
    for (uint32_t first = 0; first < w.rows; first += next_window(&w, first)) {
        nn_ffn part = window_of(&f, &w, first);
        if (!nn_ffn_forward(nn_device(x), &part, out_rows(&f, y, first)))
            return false;
    }
    return true;
}

/* dx of a token: the sum over its rows. */
static bool sum_rows(nn_exec *x, const nn_node *n, vk_range rows, nn_ffn_gradient dx)
{
    const nn_tensor *places = n->in[IN_PLACES];
    const nn_combine c = {.tokens = nn_rows(places), .top_k = nn_cols(places), .cols = nn_cols(n->in[NN_FFN_X]),
                          .places = values(places)};
    enum nn_dtype type = n->in[NN_FFN_X]->dtype;
    return nn_combine_run(nn_device(x), &c, (nn_row_bind){{rows, VK_READ}, 0, true, type},
                          (nn_row_bind){{dx.to, VK_WRITE}, 0, false, type}, dx.accumulate);
}

static nn_ffn_work find_work(nn_exec *x, const nn_node *n, const nn_ffn *f)
{
    nn_ffn_work work = {.du = nn_ffn_reuse(x, n->out[OUT_U]), .dh = nn_ffn_reuse(x, n->out[OUT_H])};
    if (f->shape.gated)
        work.dv = nn_ffn_reuse(x, n->out[OUT_V]);
    return work;
}

static bool backward_window(nn_exec *x, const nn_node *n, const nn_ffn *f, const windows *w, uint32_t first,
                            const nn_ffn_work *work, const nn_ffn_gradients *to)
{
    nn_ffn part = window_of(f, w, first);
    uint64_t hidden = (uint64_t)first * f->shape.hidden * nn_dtype_size(f->shape.hidden_type);
    nn_ffn_work there = {skip(work->du, hidden), skip(work->dv, hidden), skip(work->dh, hidden)};
    nn_ffn_gradients g = *to;
    if (is_grouped(n))
        g.x.to = skip(g.x.to, token_bytes(f) * first);
    nn_ffn_gradient *const weights[] = {&g.w1, &g.b1, &g.w2, &g.b2, &g.w3};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        weights[i]->accumulate |= first > 0;
    return nn_ffn_backward(nn_device(x), &part, out_rows(f, nn_dout_bind(n->out[OUT_Y]).range, first), &there, &g);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    nn_ffn f;
    windows w;
    if (!find_block(n, &f) || !find_windows(x, &f, &w))
        return false;
    nn_ffn_gradients to = nn_ffn_take_gradients(x, n);
    nn_ffn_gradient dx = to.x;
    bool summed = is_grouped(n) && dx.to.block;
    if (summed)
        to.x = (nn_ffn_gradient){nn_scratch(x, token_bytes(&f) * f.shape.rows).range, dx.type, false};
    nn_ffn_work work = find_work(x, n, &f);
    for (uint32_t first = 0; first < w.rows; first += next_window(&w, first))
        if (!backward_window(x, n, &f, &w, first, &work, &to))
            return false;
    return !summed || sum_rows(x, n, to.x.to, dx);
}

static double flops(const nn_node *n)
{
    double products = n->in[NN_FFN_W3] ? 2 : 1;
    return 2.0 * (double)nn_count(n->out[OUT_H]) *
           (products * (double)nn_cols(n->in[NN_FFN_X]) + (double)nn_cols(n->out[OUT_Y]));
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* Calls `visit` with every row: its expert and the row of x. */
static void each_row(const nn_ref *r, void (*visit)(const nn_ref *, const nn_ffn_ref *, int64_t, int64_t, int64_t))
{
    nn_ffn_shape s;
    if (!find_shape(r->node, &s))
        return;
    nn_ffn_ref f = nn_ffn_ref_of(r, &s);
    int64_t e = 0;
    for (int64_t i = 0; i < s.rows; i++) {
        while (is_grouped(r->node) && i >= (int64_t)r->in[IN_OFFSETS][e + 1])
            e++;
        visit(r, &f, e, i, is_grouped(r->node) ? (int64_t)r->in[IN_ROWS][i] : i);
    }
}

static void forward_row(const nn_ref *r, const nn_ffn_ref *f, int64_t e, int64_t row, int64_t token)
{
    const nn_ffn_shape *s = &f->shape;
    nn_ffn_ref_forward(f, e, r->in[NN_FFN_X] + token * s->in, r->out[OUT_U] + row * s->hidden,
                       s->gated ? r->out[OUT_V] + row * s->hidden : NULL, r->out[OUT_H] + row * s->hidden,
                       r->out[OUT_Y] + row * s->out);
}

static void backward_row(const nn_ref *r, const nn_ffn_ref *f, int64_t e, int64_t row, int64_t token)
{
    const nn_ffn_shape *s = &f->shape;
    nn_ffn_ref_backward(f, e, r->in[NN_FFN_X] + token * s->in, r->out[OUT_U] + row * s->hidden,
                        s->gated ? r->out[OUT_V] + row * s->hidden : NULL, r->out[OUT_H] + row * s->hidden,
                        r->dout[OUT_Y] + row * s->out, r->din[NN_FFN_X] ? r->din[NN_FFN_X] + token * s->in : NULL);
}

static void ref_forward(const nn_ref *r)
{
    each_row(r, forward_row);
}

static void ref_backward(const nn_ref *r)
{
    each_row(r, backward_row);
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

/* Sorted row of a pair, as a fixed permutation; expert 0 gets one row, expert 1 none, the others about equal shares. */
static void fill_plan(const nn_case *c, int i, double *const *values)
{
    int64_t rows = c->in[IN_ROWS].shape[0], experts = c->in[IN_OFFSETS].shape[0] - 1;
    int64_t top_k = c->in[IN_PLACES].shape[1];
    for (int64_t e = 0; i == IN_OFFSETS && e <= experts; e++)
        values[i][e] = e == 0 ? 0 : e <= 2 ? 1 : 1 + (double)((rows - 1) * (e - 2) / (experts - 2));
    for (int64_t pair = 0; i != IN_OFFSETS && pair < rows; pair++) {
        int64_t place = (pair * 7919 + 3) % rows;
        values[i][i == IN_ROWS ? place : pair] = (double)(i == IN_ROWS ? pair / top_k : place);
    }
}

#define VALUES(...)                                                                                                    \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL             \
    }
#define WEIGHTS(...)                                                                                                   \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL,            \
        .scale = 0.3                                                                                                   \
    }
#define INTEGERS(...)                                                                                                  \
    {                                                                                                                  \
        .dtype = NN_I32, .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__},                   \
        .fill = NN_FILL_CUSTOM                                                                                         \
    }
#define ACTIVATION(kind) .params = &(const ffn_params){kind}

static const nn_case ffn_cases[] = {
    {"gelu, 2x12 rows 16 to 24 to 8",
     {VALUES(2, 12, 16), WEIGHTS(24, 16), VALUES(24), WEIGHTS(8, 24), VALUES(8)}, ACTIVATION(NN_GELU_ERF)},
    {"relu, 7 rows 10 to 14 to 6", {VALUES(7, 10), WEIGHTS(14, 10), VALUES(14), WEIGHTS(6, 14), VALUES(6)},
     ACTIVATION(NN_RELU)},
    {"tanh gelu, 9 rows 5 to 7 to 3, no biases", {VALUES(9, 5), WEIGHTS(7, 5), {0}, WEIGHTS(3, 7)},
     ACTIVATION(NN_GELU_TANH)},
    {"swiglu, 33 rows 16 to 12 to 16", {VALUES(33, 16), WEIGHTS(12, 16), {0}, WEIGHTS(16, 12), {0}, WEIGHTS(12, 16)},
     ACTIVATION(NN_SILU)},
    {"swiglu, 5 rows 6 to 5 to 7", {VALUES(5, 6), WEIGHTS(5, 6), {0}, WEIGHTS(7, 5), {0}, WEIGHTS(5, 6)},
     ACTIVATION(NN_SILU)},
    {"gelu, 2048 rows 256 to 1024 to 256",
     {VALUES(2048, 256), WEIGHTS(1024, 256), VALUES(1024), WEIGHTS(256, 1024), VALUES(256)}, ACTIVATION(NN_GELU_ERF),
     .bench = true},
    {"gelu, 2048 rows 64 to 256 to 64",
     {VALUES(2048, 64), WEIGHTS(256, 64), VALUES(256), WEIGHTS(64, 256), VALUES(64)}, ACTIVATION(NN_GELU_ERF),
     .bench = true},
};

static const nn_case grouped_cases[] = {
    {"gelu, 25 tokens, K 2 of 4",
     {VALUES(25, 16), WEIGHTS(4, 24, 16), VALUES(4, 24), WEIGHTS(4, 8, 24), VALUES(4, 8), {0}, INTEGERS(5),
      INTEGERS(50), INTEGERS(25, 2)},
     ACTIVATION(NN_GELU_ERF), .fill = fill_plan},
    {"quick gelu, 7 tokens, K 3 of 5, odd",
     {VALUES(7, 5), WEIGHTS(5, 9, 5), VALUES(5, 9), WEIGHTS(5, 3, 9), VALUES(5, 3), {0}, INTEGERS(6), INTEGERS(21),
      INTEGERS(7, 3)},
     ACTIVATION(NN_QUICK_GELU), .fill = fill_plan},
    {"swiglu, 2x9 tokens, K 1 of 3",
     {VALUES(2, 9, 8), WEIGHTS(3, 12, 8), {0}, WEIGHTS(3, 8, 12), {0}, WEIGHTS(3, 12, 8), INTEGERS(4), INTEGERS(18),
      INTEGERS(18, 1)},
     ACTIVATION(NN_SILU), .fill = fill_plan},
    {"gelu, 2048 tokens, K 2 of 8, 256 to 1024 to 256",
     {VALUES(2048, 256), WEIGHTS(8, 1024, 256), VALUES(8, 1024), WEIGHTS(8, 256, 1024), VALUES(8, 256), {0},
      INTEGERS(9), INTEGERS(4096), INTEGERS(2048, 2)},
     ACTIVATION(NN_GELU_ERF), .fill = fill_plan, .bench = true},
    {"gelu, 2048 tokens, K 2 of 4, 64 to 128 to 64",
     {VALUES(2048, 64), WEIGHTS(4, 128, 64), VALUES(4, 128), WEIGHTS(4, 64, 128), VALUES(4, 64), {0}, INTEGERS(5),
      INTEGERS(4096), INTEGERS(2048, 2)},
     ACTIVATION(NN_GELU_ERF), .fill = fill_plan, .bench = true},
};

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

enum {
    KEEP_IN = 1 << NN_FFN_X | 1 << NN_FFN_W1 | 1 << NN_FFN_W2 | 1 << NN_FFN_W3,
    SAVED = 1 << OUT_U | 1 << OUT_V | 1 << OUT_H,
};

const nn_op nn_op_ffn = {
    .name = "ffn",
    .ins = NN_FFN_INS,
    .outs = OUTS,
    .optional = NN_FFN_OPTIONAL,
    .half_in = NN_FFN_HALF_IN,
    .keep_in = KEEP_IN,
    .keep_out = SAVED,
    .aux_out = SAVED,
    .param_bytes = sizeof(ffn_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = ffn_cases,
    .case_count = sizeof ffn_cases / sizeof *ffn_cases,
};

const nn_op nn_op_grouped_ffn = {
    .name = "grouped_ffn",
    .ins = GROUPED_INS,
    .outs = OUTS,
    .optional = NN_FFN_OPTIONAL,
    .half_in = NN_FFN_HALF_IN,
    .keep_in = KEEP_IN | 1 << IN_OFFSETS | 1 << IN_ROWS | 1 << IN_PLACES,
    .keep_out = SAVED,
    .aux_out = SAVED,
    .param_bytes = sizeof(ffn_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = grouped_cases,
    .case_count = sizeof grouped_cases / sizeof *grouped_cases,
};
