/* Competition (specification 2.3): every expert is evaluated once for every token, in chunks of experts; the product
 * that makes a chunk's outputs sums the terms of their affinities where it can, and the best outputs so far are kept.
 * What the backward pass needs of all experts is stored, or recomputed chunk by chunk: then only affinities, winners
 * and one chunk are in memory. */
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/ffn.h"
#include "nn/launch.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

enum { OUT_AFFINITIES, OUT_WINNERS, OUT_INDICES, OUT_Y, OUT_U, OUT_V, OUT_H, OUTS };

bool nn_competition(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, nn_competition_params params,
                    nn_competition_result *out)
{
    nn_tensor *in[] = {x, w->w1, w->b1, w->w2, w->b2, w->w3}, *o[OUTS];
    bool ok = nn_apply(tape, &nn_op_competition, &params, in, NN_FFN_INS, o);
    *out = (nn_competition_result){o[OUT_AFFINITIES], o[OUT_WINNERS], params.recompute ? NULL : o[OUT_Y]};
    return ok;
}

static const nn_competition_params *params_of(const nn_node *n)
{
    return (const nn_competition_params *)n->params;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

static bool find_shape(const nn_node *n, nn_ffn_shape *s)
{
    return nn_ffn_check(n, params_of(n)->activation, true, s);
}

static bool stores(const nn_node *n)
{
    return !params_of(n)->recompute && nn_ffn_trains(n);
}

/* [experts, rows, cols], or left out. */
static void set_saved(nn_tensor *t, bool saved, enum nn_dtype type, int64_t experts, int64_t rows, int64_t cols)
{
    *t = (nn_tensor){.dtype = saved ? type : NN_F32, .dims = saved ? 3 : 0, .shape = {experts, rows, cols}};
}

static bool infer(nn_node *n)
{
    const nn_competition_params *p = params_of(n);
    nn_ffn_shape s;
    if (!find_shape(n, &s))
        return false;
    if (p->affinity < 0 || p->affinity >= NN_AFFINITY_KINDS)
        return cs_fail("competition: there is no affinity %d", p->affinity);
    if (p->top_k < 1 || p->top_k > (int32_t)s.experts || s.experts > NN_MAX_EXPERTS)
        return cs_fail("competition: %d of %u experts cannot win", p->top_k, s.experts);
    *n->out[OUT_AFFINITIES] = (nn_tensor){.dtype = NN_F32, .dims = 2, .shape = {s.rows, s.experts}};
    *n->out[OUT_INDICES] = (nn_tensor){.dtype = NN_I32, .dims = 2, .shape = {s.rows, p->top_k}};
    set_saved(n->out[OUT_WINNERS], true, s.out_type, s.rows, p->top_k, s.out);
    set_saved(n->out[OUT_Y], !p->recompute, s.out_type, s.experts, s.rows, s.out);
    set_saved(n->out[OUT_U], stores(n), s.hidden_type, s.experts, s.rows, s.hidden);
    set_saved(n->out[OUT_V], stores(n) && s.gated, s.hidden_type, s.experts, s.rows, s.hidden);
    set_saved(n->out[OUT_H], stores(n), s.hidden_type, s.experts, s.rows, s.hidden);
    return true;
}

/* ---- chunks of experts ------------------------------------------------------------------------------------------- */

/* Experts first .. first + count - 1. */
typedef struct chunk {
    uint32_t first, count;
} chunk;

enum { CHUNK_BYTES = 64 << 20 };

/* Bytes of one expert's matrices of that many elements, and of its outputs. */
static uint64_t bytes_of(enum nn_dtype type, uint64_t rows, uint64_t cols)
{
    return rows * cols * nn_dtype_size(type);
}

static uint64_t output_bytes(const nn_ffn_shape *s)
{
    return bytes_of(s->out_type, s->rows, s->out);
}

/* Sums of each four columns. */
static uint64_t sums_bytes(const nn_ffn_shape *s)
{
    return bytes_of(NN_F32, s->rows, s->out / 4);
}

/* Experts whose weights begin where a device can bind them. */
static uint32_t aligned_experts(vk_device *device, const nn_ffn_shape *s)
{
    const vk_caps *caps = vk_device_caps(device);
    uint64_t align = caps->texel_align > caps->storage_align ? caps->texel_align : caps->storage_align;
    const uint64_t strides[] = {2ull * s->hidden * s->in, 2ull * s->out * s->hidden, 4ull * s->hidden, 4ull * s->out,
                                output_bytes(s)};
    uint32_t step = 1;
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
        while (step < s->experts && strides[i] * step % align)
            step *= 2;
    return step;
}

/* Experts at a time: all where their values are stored, else what the parameters say or a quarter of them, fewer where
 * that were more than a few tens of megabytes. */
static uint32_t chunk_experts(vk_device *device, const nn_node *n, const nn_ffn_shape *s)
{
    if (!params_of(n)->recompute)
        return s->experts;
    uint64_t hidden = (s->gated ? 3 : 2) * bytes_of(s->hidden_type, s->rows, s->hidden);
    uint64_t each = output_bytes(s) + sums_bytes(s) + hidden, step = aligned_experts(device, s);
    uint64_t quarter = (s->experts + 3) / 4, fit = CHUNK_BYTES / each;
    uint64_t wanted = params_of(n)->chunk ? (uint64_t)params_of(n)->chunk : quarter < fit ? quarter : fit;
    uint64_t count = wanted > step ? wanted / step * step : step;
    return (uint32_t)(count < s->experts ? count : s->experts);
}

static vk_range skip(vk_range r, uint64_t bytes)
{
    return r.block ? (vk_range){r.block, r.offset + bytes, r.size - bytes} : r;
}

static void skip_operand(nn_operand *o, uint64_t elements)
{
    o->range = skip(o->range, elements * nn_dtype_size(o->type));
}

static nn_ffn chunk_of(const nn_ffn *all, chunk c)
{
    const nn_ffn_shape *s = &all->shape;
    nn_ffn f = *all;
    f.shape.experts = c.count;
    skip_operand(&f.w1, (uint64_t)c.first * s->hidden * s->in);
    skip_operand(&f.w3, (uint64_t)c.first * s->hidden * s->in);
    skip_operand(&f.w2, (uint64_t)c.first * s->out * s->hidden);
    f.b1 = skip(f.b1, 4ull * c.first * s->hidden);
    f.b2 = skip(f.b2, 4ull * c.first * s->out);
    return f;
}

static void skip_gradient(nn_ffn_gradient *g, uint64_t elements)
{
    g->to = skip(g->to, elements * nn_dtype_size(g->type));
}

static nn_ffn_gradients chunk_gradients(const nn_ffn_gradients *all, const nn_ffn_shape *s, chunk c)
{
    nn_ffn_gradients g = *all;
    g.x.accumulate |= c.first > 0;
    skip_gradient(&g.w1, (uint64_t)c.first * s->hidden * s->in);
    skip_gradient(&g.w3, (uint64_t)c.first * s->hidden * s->in);
    skip_gradient(&g.w2, (uint64_t)c.first * s->out * s->hidden);
    skip_gradient(&g.b1, (uint64_t)c.first * s->hidden);
    skip_gradient(&g.b2, (uint64_t)c.first * s->out);
    return g;
}

/* ---- winners ----------------------------------------------------------------------------------------------------- */

/* Launches that visit the chunk's outputs: of all its experts at once where the device can bind them, and no invocation
 * takes too many turns of its loops; else expert by expert, sliced by tokens. */
static bool at_once(vk_device *device, const nn_ffn_shape *s, const nn_node *n, chunk c)
{
    enum { MOST_TURNS = 32768 };
    uint64_t rows = (uint64_t)c.count * s->rows, winners = (uint64_t)s->rows * (uint64_t)params_of(n)->top_k;
    return bytes_of(s->out_type, rows > winners ? rows : winners, s->out) <=
               vk_device_caps(device)->max_storage_range &&
           (uint64_t)c.count * s->out <= MOST_TURNS;
}

/* Memory for sums of each four columns' terms of the affinities, of `experts` of them; none where the product that
 * makes y cannot sum them, or find_winners() could not bind them. */
static vk_range affinity_sums(nn_exec *x, const nn_ffn_shape *s, const nn_node *n, uint32_t experts)
{
    enum { MOST_TERMS = 16384 }; /* CPU drivers may make longer sums in parts, which take no epilogue */
    bool summed = s->out % 4 == 0 && s->hidden <= MOST_TERMS && at_once(nn_device(x), s, n, (chunk){0, experts});
    return summed ? nn_scratch(x, experts * sums_bytes(s)).range : (vk_range){0};
}

static bool launch_winners(vk_device *device, const nn_ffn_shape *s, const nn_node *n, chunk c, vk_range y,
                           vk_range sums, bool whole)
{
    const nn_competition_params *p = params_of(n);
    uint64_t row = bytes_of(s->out_type, 1, s->out);
    nn_row_bind winners = nn_row_out(n->out[OUT_WINNERS], p->top_k * (int64_t)s->out), old = winners;
    old.bind.access = VK_READ;
    old.values = true;
    uint32_t push[] = {s->experts, 0, c.count, whole ? s->rows : 0};
    push[1] = c.first;
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "winners",
        .rows = s->rows,
        .cols = s->out,
        .width = nn_row_width(device, s->out),
        .reduce = true,
        .bind = {{{y, VK_READ}, whole ? 0 : row, true, s->out_type},
                 {{nn_read_bind(n->out[OUT_AFFINITIES]).range, VK_READ | VK_WRITE}, 4ull * s->experts},
                 {{nn_read_bind(n->out[OUT_INDICES]).range, VK_READ | VK_WRITE}, 4ull * (uint64_t)p->top_k}, winners,
                 old, {{sums, VK_READ}, 0, true, NN_F32}},
        .spec = {(uint32_t)p->affinity, (uint32_t)p->top_k, sums.block != NULL},
        .push = push,
        .push_bytes = sizeof push,
        .flops = (sums.block ? 0.25 : 30) * s->rows * c.count * s->out,
    });
}

/* Affinities of the chunk, and the winners so far; y [count, T, C] and, where the product has made them, sums of each
 * four columns' terms. */
static bool find_winners(vk_device *device, const nn_ffn_shape *s, const nn_node *n, chunk c, vk_range y, vk_range sums)
{
    y.size = c.count * output_bytes(s);
    if (at_once(device, s, n, c))
        return launch_winners(device, s, n, c, y, sums, true);
    for (uint32_t e = 0; e < c.count; e++)
        if (!launch_winners(device, s, n, (chunk){c.first + e, 1}, skip(y, e * output_bytes(s)), (vk_range){0}, false))
            return false;
    return true;
}

static bool launch_gradients(vk_device *device, const nn_ffn_shape *s, const nn_node *n, chunk c, vk_range y,
                             vk_range dy, bool whole)
{
    const nn_competition_params *p = params_of(n);
    const nn_tensor *scores = n->out[OUT_AFFINITIES];
    uint64_t row = whole ? 0 : bytes_of(s->out_type, 1, s->out), pairs = whole ? 0 : (uint64_t)p->top_k;
    uint32_t push[] = {s->experts, s->rows, c.first};
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "winners_backward",
        .rows = (int64_t)c.count * s->rows,
        .cols = s->out,
        .width = nn_row_width(device, s->out),
        .reduce = true,
        .bind = {{{y, VK_READ}, row, true, s->out_type}, {nn_read_bind(scores), whole ? 0 : 4ull * s->experts},
                 {nn_dout_bind(scores), whole ? 0 : 4ull * s->experts},
                 {nn_read_bind(n->out[OUT_INDICES]), 4 * pairs},
                 {nn_dout_bind(n->out[OUT_WINNERS]), row * pairs, true, s->out_type},
                 {{dy, VK_WRITE}, row, false, s->out_type}},
        .spec = {(uint32_t)p->affinity, (uint32_t)p->top_k},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 30.0 * s->rows * c.count * s->out,
    });
}

/* dy [count, T, C], which may be the memory of y. */
static bool output_gradients(vk_device *device, const nn_ffn_shape *s, const nn_node *n, chunk c, vk_range y,
                             vk_range dy)
{
    y.size = dy.size = c.count * output_bytes(s);
    if (at_once(device, s, n, c))
        return launch_gradients(device, s, n, c, y, dy, true);
    uint64_t bytes = output_bytes(s);
    for (uint32_t e = 0; e < c.count; e++)
        if (!launch_gradients(device, s, n, (chunk){c.first + e, 1}, skip(y, e * bytes), skip(dy, e * bytes), false))
            return false;
    return true;
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static vk_range values(const nn_tensor *t)
{
    return nn_read_bind(t).range;
}

static vk_range hidden_scratch(nn_exec *x, const nn_ffn_shape *s, uint32_t experts)
{
    return nn_scratch(x, experts * bytes_of(s->hidden_type, s->rows, s->hidden)).range;
}

/* The block of all experts, with memory for the values of `experts` of them; `recorded`: those that backward reads. */
static nn_ffn block_of(nn_exec *x, const nn_node *n, const nn_ffn_shape *s, uint32_t experts, bool recorded,
                       vk_range *y)
{
    nn_ffn f = nn_ffn_of(n, s);
    *y = params_of(n)->recompute ? nn_scratch(x, experts * output_bytes(s)).range : values(n->out[OUT_Y]);
    if (stores(n)) {
        f.u = values(n->out[OUT_U]);
        f.v = values(n->out[OUT_V]);
        f.h = values(n->out[OUT_H]);
        return f;
    }
    f.h = hidden_scratch(x, s, experts);
    if (recorded) {
        f.u = hidden_scratch(x, s, experts);
        f.v = s->gated ? hidden_scratch(x, s, experts) : (vk_range){0};
    }
    return f;
}

static chunk next_chunk(const nn_ffn_shape *s, chunk c, uint32_t step)
{
    c.first += c.count;
    c.count = s->experts - c.first < step ? s->experts - c.first : step;
    return c;
}

static bool forward(nn_exec *x, const nn_node *n)
{
    vk_device *device = nn_device(x);
    nn_ffn_shape s;
    vk_range y;
    if (!find_shape(n, &s))
        return false;
    uint32_t step = chunk_experts(device, n, &s);
    nn_ffn all = block_of(x, n, &s, step, false, &y);
    all.affinity = params_of(n)->affinity;
    all.sums = affinity_sums(x, &s, n, step);
    for (chunk c = next_chunk(&s, (chunk){0}, step); c.count; c = next_chunk(&s, c, step)) {
        nn_ffn f = chunk_of(&all, c);
        if (!nn_ffn_forward(device, &f, y) || !find_winners(device, &s, n, c, y, f.sums))
            return false;
    }
    return true;
}

static bool backward(nn_exec *x, const nn_node *n)
{
    vk_device *device = nn_device(x);
    bool stored = stores(n);
    nn_ffn_shape s;
    vk_range y;
    if (!find_shape(n, &s))
        return false;
    uint32_t step = chunk_experts(device, n, &s);
    nn_ffn all = block_of(x, n, &s, step, true, &y);
    nn_ffn_gradients to = nn_ffn_take_gradients(x, n);
    nn_ffn_gradient dx = to.x;
    if (nn_is_half(dx.type)) /* the experts' sum is one of f32 */
        to.x = (nn_ffn_gradient){nn_scratch(x, bytes_of(NN_F32, s.rows, s.in)).range, NN_F32, false};
    nn_ffn_work work = {all.u, all.v, all.h};
    vk_range dy = y;
    if (stored) {
        work.du = nn_ffn_reuse(x, n->out[OUT_U]);
        work.dv = s.gated ? nn_ffn_reuse(x, n->out[OUT_V]) : work.dv;
        work.dh = nn_ffn_reuse(x, n->out[OUT_H]);
        dy = nn_ffn_reuse(x, n->out[OUT_Y]);
    }
    for (chunk c = next_chunk(&s, (chunk){0}, step); c.count; c = next_chunk(&s, c, step)) {
        nn_ffn f = chunk_of(&all, c);
        nn_ffn_gradients part = chunk_gradients(&to, &s, c);
        if ((!stored && !nn_ffn_forward(device, &f, y)) || !output_gradients(device, &s, n, c, y, dy) ||
            !nn_ffn_backward(device, &f, dy, &work, &part))
            return false;
    }
    return !nn_is_half(dx.type) ||
           nn_cast_run(device, (nn_row_bind){{to.x.to, VK_READ}, 0, true, NN_F32},
                       (nn_row_bind){{dx.to, VK_WRITE}, 0, false, dx.type}, (int64_t)s.rows * s.in, dx.accumulate);
}

static double flops(const nn_node *n)
{
    const nn_tensor *w1 = n->in[NN_FFN_W1];
    double products = n->in[NN_FFN_W3] ? 2 : 1;
    return 2.0 * (double)nn_rows(n->in[NN_FFN_X]) *
           (products * (double)nn_count(w1) + (double)nn_count(n->in[NN_FFN_W2]));
}

/* ---- references -------------------------------------------------------------------------------------------------- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double term(int kind, double y)
{
    switch (kind) {
    case NN_AFFINITY_SOFTPLUS: return y > 20 ? y : log1p(exp(y));
    case NN_AFFINITY_L2NORM: return y * y;
    case NN_AFFINITY_RELU: return y > 0 ? y : 0;
    case NN_AFFINITY_SIGMOID: return sigmoid(y);
    default: return y * sigmoid(y);
    }
}

static double slope(int kind, double y)
{
    double s = sigmoid(y);
    switch (kind) {
    case NN_AFFINITY_SOFTPLUS: return y > 20 ? 1 : s;
    case NN_AFFINITY_RELU: return y > 0;
    case NN_AFFINITY_SIGMOID: return s * (1 - s);
    default: return s * (1 + y * (1 - s));
    }
}

/* One token's values of one expert. */
typedef struct ref_row {
    double *u, *v, *h, *y;
} ref_row;

static ref_row row_of(const nn_ref *r, const nn_ffn_shape *s, double *room, int64_t e, int64_t t)
{
    ref_row row = {room, room + s->hidden, room + 2 * s->hidden, room + 3 * s->hidden};
    int64_t at = e * s->rows + t;
    if (!params_of(r->node)->recompute)
        row = (ref_row){r->out[OUT_U] + at * s->hidden, s->gated ? r->out[OUT_V] + at * s->hidden : NULL,
                        r->out[OUT_H] + at * s->hidden, r->out[OUT_Y] + at * s->out};
    return row;
}

static double affinity(int kind, const double *y, int64_t cols)
{
    double sum = 0;
    for (int64_t c = 0; c < cols; c++)
        sum += term(kind, y[c]);
    return kind == NN_AFFINITY_L2NORM ? sqrt(sum) : sum / (double)cols;
}

static void keep_winners(const nn_ref *r, const nn_ffn_shape *s, const nn_ffn_ref *f, double *room, int64_t t)
{
    int64_t top_k = params_of(r->node)->top_k;
    const double *scores = r->out[OUT_AFFINITIES] + t * s->experts, *x = r->in[NN_FFN_X] + t * s->in;
    bool taken[NN_MAX_EXPERTS] = {false};
    for (int64_t k = 0; k < top_k; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < s->experts; e++)
            if (!taken[e] && (best < 0 || scores[e] > scores[best]))
                best = e;
        taken[best] = true;
        r->out[OUT_INDICES][t * top_k + k] = (double)best;
        ref_row row = row_of(r, s, room, best, t);
        nn_ffn_ref_forward(f, best, x, row.u, row.v, row.h, row.y);
        for (int64_t c = 0; c < s->out; c++)
            r->out[OUT_WINNERS][(t * top_k + k) * s->out + c] = row.y[c];
    }
}

/* The values of one expert for one token where they are not outputs. */
static double *make_room(const nn_ffn_shape *s)
{
    return cs_alloc(3 * (size_t)s->hidden + s->out, sizeof(double), "a reference");
}

static void ref_forward(const nn_ref *r)
{
    nn_ffn_shape s;
    double *room = find_shape(r->node, &s) ? make_room(&s) : NULL;
    if (!room)
        return;
    nn_ffn_ref f = nn_ffn_ref_of(r, &s);
    for (int64_t t = 0; t < s.rows; t++) {
        for (int64_t e = 0; e < s.experts; e++) {
            ref_row row = row_of(r, &s, room, e, t);
            nn_ffn_ref_forward(&f, e, r->in[NN_FFN_X] + t * s.in, row.u, row.v, row.h, row.y);
            r->out[OUT_AFFINITIES][t * s.experts + e] = affinity(params_of(r->node)->affinity, row.y, s.out);
        }
        keep_winners(r, &s, &f, room, t);
    }
    free(room);
}

/* dy of one expert for one token. */
static void ref_output_gradient(const nn_ref *r, const nn_ffn_shape *s, const double *y, int64_t e, int64_t t,
                                double *dy)
{
    const nn_competition_params *p = params_of(r->node);
    int64_t at = t * s->experts + e;
    double ds = r->dout[OUT_AFFINITIES][at], score = r->out[OUT_AFFINITIES][at];
    for (int64_t c = 0; c < s->out; c++) {
        if (p->affinity == NN_AFFINITY_L2NORM)
            dy[c] = score > 0 ? ds * y[c] / score : 0;
        else
            dy[c] = ds * slope(p->affinity, y[c]) / s->out;
        for (int64_t pair = t * p->top_k; pair < (t + 1) * p->top_k; pair++)
            if (r->out[OUT_INDICES][pair] == (double)e)
                dy[c] += r->dout[OUT_WINNERS][pair * s->out + c];
    }
}

static void ref_backward(const nn_ref *r)
{
    nn_ffn_shape s;
    double *room = find_shape(r->node, &s) ? make_room(&s) : NULL;
    double *dy = room ? cs_alloc(s.out, sizeof *dy, "a reference") : NULL;
    nn_ffn_ref f = nn_ffn_ref_of(r, &s);
    for (int64_t i = 0; dy && i < (int64_t)s.experts * s.rows; i++) {
        int64_t e = i / s.rows, t = i % s.rows;
        const double *x = r->in[NN_FFN_X] + t * s.in;
        ref_row row = row_of(r, &s, room, e, t);
        nn_ffn_ref_forward(&f, e, x, row.u, row.v, row.h, row.y);
        ref_output_gradient(r, &s, row.y, e, t, dy);
        nn_ffn_ref_backward(&f, e, x, row.u, row.v, row.h, dy, r->din[NN_FFN_X] ? r->din[NN_FFN_X] + t * s.in : NULL);
    }
    free(room);
    free(dy);
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

#define VALUES(...)                                                                                                    \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL             \
    }
#define WEIGHTS(...)                                                                                                   \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL,            \
        .scale = 0.5                                                                                                   \
    }
/* x [T, in] of E experts, and their hidden and output widths. */
#define EXPERTS(t, in, e, hidden, out)                                                                                 \
    {                                                                                                                  \
        VALUES(t, in), WEIGHTS(e, hidden, in), VALUES(e, hidden), WEIGHTS(e, out, hidden), VALUES(e, out)              \
    }
#define SWIGLU_EXPERTS(t, in, e, hidden, out)                                                                          \
    {                                                                                                                  \
        VALUES(t, in), WEIGHTS(e, hidden, in), {0}, WEIGHTS(e, out, hidden), {0}, WEIGHTS(e, hidden, in)               \
    }
#define PARAMS(...) .params = &(const nn_competition_params){__VA_ARGS__}

static const nn_case cases[] = {
    {"softplus, K 2 of 4", EXPERTS(33, 16, 4, 24, 16), PARAMS(NN_GELU_ERF, NN_AFFINITY_SOFTPLUS, 2)},
    {"L2 norm, K 3 of 5, odd", EXPERTS(7, 5, 5, 6, 9), PARAMS(NN_GELU_TANH, NN_AFFINITY_L2NORM, 3)},
    {"softplus, K 2 of 3, odd", EXPERTS(6, 8, 3, 8, 10), PARAMS(NN_GELU_ERF, NN_AFFINITY_SOFTPLUS, 2)},
    {"ReLU, K 1 of 3", EXPERTS(9, 8, 3, 8, 12), PARAMS(NN_RELU, NN_AFFINITY_RELU, 1)},
    {"sigmoid, K 2 of 2, SwiGLU", SWIGLU_EXPERTS(6, 8, 2, 24, 16), PARAMS(NN_SILU, NN_AFFINITY_SIGMOID, 2)},
    {"SiLU, K 2 of 5", EXPERTS(5, 8, 5, 8, 8), PARAMS(NN_QUICK_GELU, NN_AFFINITY_SILU, 2)},
    {"recomputed, K 2 of 7, chunks of 2", EXPERTS(11, 16, 7, 32, 16),
     PARAMS(NN_GELU_ERF, NN_AFFINITY_SOFTPLUS, 2, true, 2)},
    {"recomputed, K 5 of 8, chunks of 3", EXPERTS(6, 16, 8, 16, 64),
     PARAMS(NN_GELU_ERF, NN_AFFINITY_L2NORM, 5, true, 3)},
    {"recomputed, K 2 of 4, SwiGLU", SWIGLU_EXPERTS(5, 16, 4, 32, 24),
     PARAMS(NN_SILU, NN_AFFINITY_SOFTPLUS, 2, true, 1)},
    {"softplus [1024, 128], K 2 of 8", EXPERTS(1024, 128, 8, 512, 128), PARAMS(NN_GELU_ERF, NN_AFFINITY_SOFTPLUS, 2),
     .bench = true},
    {"softplus [2048, 64], K 2 of 4", EXPERTS(2048, 64, 4, 128, 64), PARAMS(NN_GELU_ERF, NN_AFFINITY_SOFTPLUS, 2),
     .bench = true},
};

enum { SAVED = 1 << OUT_Y | 1 << OUT_U | 1 << OUT_V | 1 << OUT_H };

const nn_op nn_op_competition = {
    .name = "competition",
    .ins = NN_FFN_INS,
    .outs = OUTS,
    .optional = NN_FFN_OPTIONAL,
    .half_in = NN_FFN_HALF_IN,
    .keep_in = (1 << NN_FFN_INS) - 1,
    .keep_out = SAVED | 1 << OUT_AFFINITIES | 1 << OUT_INDICES,
    .aux_out = SAVED,
    .param_bytes = sizeof(nn_competition_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
