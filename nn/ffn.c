#include "nn/ffn.h"

#include "base/error.h"
#include "nn/activation.h"
#include "nn/bias_sum.h"
#include "nn/gemm.h"
#include "nn/launch.h"
#include "nn/op_util.h"
#include "nn/ops.h"

static bool is_grouped(const nn_ffn *f)
{
    return f->offsets.block != NULL;
}

static uint32_t copies(const nn_ffn *f)
{
    return f->shape.experts && !is_grouped(f) ? f->shape.experts : 1;
}

uint64_t nn_ffn_rows(const nn_ffn *f)
{
    return (uint64_t)copies(f) * f->shape.rows;
}

/* What all products have in common. */
static nn_gemm product(const nn_ffn *f, enum nn_gemm_layout layout, const char *label)
{
    nn_gemm g = {.layout = layout, .label = label, .activation = f->shape.activation};
    if (is_grouped(f)) {
        g.groups = f->shape.experts;
        g.offsets = f->offsets;
    } else {
        g.batch = f->shape.experts;
    }
    return g;
}

/* Elements between two experts' rows of that width. */
static uint32_t row_stride(const nn_ffn *f, uint32_t width)
{
    return copies(f) > 1 ? f->shape.rows * width : 0;
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

/* w x + b for w1 or w3. */
static nn_gemm product_up(const nn_ffn *f, nn_operand w, vk_range b)
{
    const nn_ffn_shape *s = &f->shape;
    nn_gemm g = product(f, NN_GEMM_NT, "ffn up");
    g.m = s->rows, g.n = s->hidden, g.k = s->in;
    g.a = f->x.range, g.a_type = f->x.type;
    g.b = w.range, g.b_type = w.type;
    g.bias = b;
    g.c_type = g.other_type = g.extra_type = s->hidden_type;
    g.rows = f->tokens;
    g.b_stride = s->hidden * s->in;
    g.c_stride = row_stride(f, s->hidden);
    g.bias_stride = s->hidden;
    return g;
}

static bool prefer_fused;

void nn_ffn_prefer_fused(bool prefer)
{
    prefer_fused = prefer;
}

/* Whether activations are passes of their own. On CPU drivers such a pass over units of eight columns takes less time
 * than the same in a product's tile, whose sums wait in registers meanwhile. */
static bool activates_apart(vk_device *device)
{
    return vk_device_caps(device)->type == VK_TYPE_CPU && !prefer_fused;
}

static nn_gate gate_of(const nn_ffn *f, vk_range u)
{
    return (nn_gate){f->shape.activation, (int64_t)nn_ffn_rows(f) * f->shape.hidden, f->shape.hidden_type, u, f->v};
}

/* h takes u first where u is not kept: the activation may be read from where it is written. */
static bool forward_up(vk_device *device, const nn_ffn *f)
{
    vk_range u = f->u.block ? f->u : f->h;
    nn_gemm up = product_up(f, f->w1, f->b1), gate = product_up(f, f->w3, (vk_range){0});
    nn_gate apart = gate_of(f, u);
    up.c = u;
    if (f->shape.gated) {
        bool after = f->v.block && activates_apart(device);
        gate.epilogue = after ? NN_GEMM_NONE : NN_GEMM_GATE;
        gate.other = after ? (vk_range){0} : u;
        gate.c = after ? f->v : f->h;
        gate.extra = after ? (vk_range){0} : f->v;
        return nn_gemm_run(device, &up) && nn_gemm_run(device, &gate) &&
               (!after || nn_gate_run(device, &apart, f->h));
    }
    if (activates_apart(device))
        return nn_gemm_run(device, &up) && nn_gate_run(device, &apart, f->h);
    up.epilogue = NN_GEMM_ACTIVATE;
    up.c = f->h, up.extra = f->u;
    return nn_gemm_run(device, &up);
}

bool nn_ffn_forward(vk_device *device, const nn_ffn *f, vk_range y)
{
    const nn_ffn_shape *s = &f->shape;
    nn_gemm g = product(f, NN_GEMM_NT, "ffn down");
    g.m = s->rows, g.n = s->out, g.k = s->hidden;
    g.a = f->h, g.a_type = s->hidden_type;
    g.b = f->w2.range, g.b_type = f->w2.type;
    g.c = y, g.c_type = s->out_type;
    g.bias = f->b2;
    g.a_stride = row_stride(f, s->hidden);
    g.b_stride = s->out * s->hidden;
    g.c_stride = row_stride(f, s->out);
    g.bias_stride = s->out;
    if (f->sums.block) {
        g.epilogue = NN_GEMM_AFFINITY;
        g.activation = f->affinity;
        g.extra = f->sums;
    }
    return forward_up(device, f) && nn_gemm_run(device, &g);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* dh = dy w2, from which du follows, and where gated dv. */
static bool backward_hidden(vk_device *device, const nn_ffn *f, vk_range dy, const nn_ffn_work *to)
{
    const nn_ffn_shape *s = &f->shape;
    nn_gemm g = product(f, NN_GEMM_NN, "ffn dh");
    g.m = s->rows, g.n = s->hidden, g.k = s->out;
    g.a = dy, g.a_type = s->out_type;
    g.b = f->w2.range, g.b_type = f->w2.type;
    g.c = to->dh;
    g.c_type = g.other_type = s->hidden_type;
    g.a_stride = row_stride(f, s->out);
    g.b_stride = s->out * s->hidden;
    g.c_stride = row_stride(f, s->hidden);
    if (!s->gated && !activates_apart(device)) {
        g.epilogue = NN_GEMM_SLOPE;
        g.other = f->u;
        g.c = to->du;
        return nn_gemm_run(device, &g);
    }
    nn_gate gate = gate_of(f, f->u);
    return nn_gemm_run(device, &g) && nn_gate_backward(device, &gate, to->dh, to->du, to->dv);
}

/* dw = du^T x for w1 or w3. */
static bool backward_up(vk_device *device, const nn_ffn *f, vk_range du, nn_ffn_gradient dw)
{
    const nn_ffn_shape *s = &f->shape;
    if (!dw.to.block)
        return true;
    nn_gemm g = product(f, NN_GEMM_TN, "ffn dw up");
    g.m = s->hidden, g.n = s->in, g.k = s->rows;
    g.a = du, g.a_type = s->hidden_type;
    g.b = f->x.range, g.b_type = f->x.type;
    g.rows = f->tokens;
    g.c = dw.to, g.c_type = dw.type;
    g.a_stride = row_stride(f, s->hidden);
    g.c_stride = s->hidden * s->in;
    g.accumulate = dw.accumulate;
    return nn_gemm_run(device, &g);
}

static bool backward_down(vk_device *device, const nn_ffn *f, vk_range dy, nn_ffn_gradient dw)
{
    const nn_ffn_shape *s = &f->shape;
    if (!dw.to.block)
        return true;
    nn_gemm g = product(f, NN_GEMM_TN, "ffn dw down");
    g.m = s->out, g.n = s->hidden, g.k = s->rows;
    g.a = dy, g.a_type = s->out_type;
    g.b = f->h, g.b_type = s->hidden_type;
    g.c = dw.to, g.c_type = dw.type;
    g.a_stride = row_stride(f, s->out);
    g.b_stride = row_stride(f, s->hidden);
    g.c_stride = s->out * s->hidden;
    g.accumulate = dw.accumulate;
    return nn_gemm_run(device, &g);
}

/* dx = du w for w1 or w3; the experts' sum where they share x. */
static bool backward_x(vk_device *device, const nn_ffn *f, vk_range du, nn_operand w, nn_ffn_gradient dx)
{
    const nn_ffn_shape *s = &f->shape;
    if (!dx.to.block)
        return true;
    nn_gemm g = product(f, NN_GEMM_NN, "ffn dx");
    g.m = s->rows, g.n = s->in, g.k = s->hidden;
    g.a = du, g.a_type = s->hidden_type;
    g.b = w.range, g.b_type = w.type;
    g.c = dx.to, g.c_type = dx.type;
    g.a_stride = row_stride(f, s->hidden);
    g.b_stride = s->hidden * s->in;
    g.sum_batch = copies(f) > 1;
    g.accumulate = dx.accumulate;
    return nn_gemm_run(device, &g);
}

static bool backward_bias(vk_device *device, const nn_ffn *f, nn_operand in, uint32_t columns, nn_ffn_gradient db)
{
    nn_bias_sum sum = {.rows = f->shape.rows, .columns = columns, .in = in.range, .in_type = in.type, .out = db.to,
                       .accumulate = db.accumulate, .label = "ffn db"};
    if (!db.to.block)
        return true;
    if (is_grouped(f)) {
        sum.groups = f->shape.experts;
        sum.offsets = f->offsets;
    } else {
        sum.batch = f->shape.experts;
    }
    return nn_bias_sum_run(device, &sum);
}

bool nn_ffn_backward(vk_device *device, const nn_ffn *f, vk_range dy, const nn_ffn_work *work,
                     const nn_ffn_gradients *to)
{
    const nn_ffn_shape *s = &f->shape;
    nn_operand out = {dy, s->out_type}, hidden = {work->du, s->hidden_type};
    /* A bias only after two products that run side by side: the barrier within its sum would part them. */
    if (!backward_down(device, f, dy, to->w2) || !backward_hidden(device, f, dy, work) ||
        !backward_bias(device, f, out, s->out, to->b2) || !backward_up(device, f, work->du, to->w1) ||
        !backward_x(device, f, work->du, f->w1, to->x) || !backward_bias(device, f, hidden, s->hidden, to->b1))
        return false;
    nn_ffn_gradient more = {to->x.to, to->x.type, true};
    return !s->gated ||
           (backward_up(device, f, work->dv, to->w3) && backward_x(device, f, work->dv, f->w3, more));
}

/* ---- for operators ----------------------------------------------------------------------------------------------- */

static bool check_weights(const nn_node *n, const nn_ffn_shape *s)
{
    static const char *const names[] = {"x", "w1", "b1", "w2", "b2", "w3"};
    int64_t copies = s->experts ? s->experts : 1, up = copies * s->hidden * s->in, down = copies * s->out * s->hidden;
    const int64_t counts[] = {nn_count(n->in[NN_FFN_X]), up, copies * s->hidden, down, copies * s->out, up};
    for (int i = 0; i < NN_FFN_INS; i++) {
        const nn_tensor *t = n->in[i];
        bool bias = i == NN_FFN_B1 || i == NN_FFN_B2;
        if (t && !(bias ? nn_expect_floats : nn_expect_values)(n->op->name, names[i], t))
            return false;
        if (t && nn_count(t) != counts[i])
            return cs_fail("%s: %s %s must have %lld elements", n->op->name, names[i], nn_shape_string(t).text,
                           (long long)counts[i]);
    }
    return true;
}

bool nn_ffn_check(const nn_node *n, int activation, bool stacked, nn_ffn_shape *shape)
{
    const nn_tensor *x = n->in[NN_FFN_X], *w1 = n->in[NN_FFN_W1], *w2 = n->in[NN_FFN_W2];
    const char *op = n->op->name;
    int dims = 2 + stacked;
    if (activation < 0 || activation > NN_RELU)
        return cs_fail("%s: there is no activation %d", op, activation);
    if (x->dims < 2 || w1->dims != dims || w2->dims != dims || nn_cols(x) != nn_cols(w1) ||
        w1->shape[dims - 2] != nn_cols(w2) || (stacked && w1->shape[0] != w2->shape[0]))
        return cs_fail("%s: x %s, w1 %s and w2 %s do not fit together", op, nn_shape_string(x).text,
                       nn_shape_string(w1).text, nn_shape_string(w2).text);
    *shape = (nn_ffn_shape){
        .activation = activation,
        .gated = n->in[NN_FFN_W3] != NULL,
        .experts = stacked ? (uint32_t)w1->shape[0] : 0,
        .tokens = (uint32_t)nn_rows(x),
        .rows = (uint32_t)nn_rows(x),
        .in = (uint32_t)nn_cols(w1),
        .hidden = (uint32_t)nn_cols(w2),
        .out = (uint32_t)w2->shape[dims - 2],
    };
    shape->hidden_type = nn_product_type(n, shape->hidden);
    shape->out_type = nn_product_type(n, shape->out);
    return check_weights(n, shape);
}

bool nn_ffn_trains(const nn_node *n)
{
    bool trains = false;
    for (int i = 0; i < NN_FFN_INS; i++)
        trains |= nn_wants_grad(n->in[i]);
    return trains;
}

nn_ffn nn_ffn_of(const nn_node *n, const nn_ffn_shape *shape)
{
    return (nn_ffn){
        .shape = *shape,
        .x = nn_product_operand(n, n->in[NN_FFN_X]),
        .w1 = nn_product_operand(n, n->in[NN_FFN_W1]),
        .w2 = nn_product_operand(n, n->in[NN_FFN_W2]),
        .w3 = nn_product_operand(n, n->in[NN_FFN_W3]),
        .b1 = nn_read_bind(n->in[NN_FFN_B1]).range,
        .b2 = nn_read_bind(n->in[NN_FFN_B2]).range,
    };
}

static nn_ffn_gradient take_gradient(nn_exec *x, nn_tensor *t)
{
    nn_ffn_gradient g = {0};
    if (nn_wants_grad(t)) {
        g.to = nn_din_bind(x, t, &g.accumulate).range;
        g.type = t->dtype;
    }
    return g;
}

nn_ffn_gradients nn_ffn_take_gradients(nn_exec *x, const nn_node *n)
{
    nn_ffn_gradients g;
    g.w2 = take_gradient(x, n->in[NN_FFN_W2]);
    g.b2 = take_gradient(x, n->in[NN_FFN_B2]);
    g.w1 = take_gradient(x, n->in[NN_FFN_W1]);
    g.b1 = take_gradient(x, n->in[NN_FFN_B1]);
    g.x = take_gradient(x, n->in[NN_FFN_X]);
    g.w3 = take_gradient(x, n->in[NN_FFN_W3]);
    return g;
}

vk_range nn_ffn_reuse(nn_exec *x, const nn_tensor *t)
{
    return t->keep ? nn_scratch(x, nn_bytes(t)).range : nn_read_bind(t).range;
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* y = w x + b, w [rows, cols]; b NULL: none. */
static void ref_product(int64_t rows, int64_t cols, const double *w, const double *b, const double *x, double *y)
{
    for (int64_t i = 0; i < rows; i++) {
        y[i] = b ? b[i] : 0;
        for (int64_t j = 0; j < cols; j++)
            y[i] += w[i * cols + j] * x[j];
    }
}

/* Adds dy x^T to dw, w^T dy to dx, dy to db where they are wanted. */
static void ref_product_backward(int64_t rows, int64_t cols, const double *w, const double *x, const double *dy,
                                 double *dw, double *db, double *dx)
{
    for (int64_t i = 0; i < rows; i++) {
        if (db)
            db[i] += dy[i];
        for (int64_t j = 0; j < cols; j++) {
            if (dw)
                dw[i * cols + j] += dy[i] * x[j];
            if (dx)
                dx[j] += dy[i] * w[i * cols + j];
        }
    }
}

/* Expert e's part of a stack of `each` numbers; NULL stays. */
#define PART(stack, e, each) ((stack) ? (stack) + (e) * (each) : NULL)

nn_ffn_ref nn_ffn_ref_of(const nn_ref *r, const nn_ffn_shape *shape)
{
    return (nn_ffn_ref){
        *shape, r->in[NN_FFN_W1], r->in[NN_FFN_B1], r->in[NN_FFN_W2], r->in[NN_FFN_B2], r->in[NN_FFN_W3],
        r->din[NN_FFN_W1], r->din[NN_FFN_B1], r->din[NN_FFN_W2], r->din[NN_FFN_B2], r->din[NN_FFN_W3],
    };
}

void nn_ffn_ref_forward(const nn_ffn_ref *f, int64_t e, const double *x, double *u, double *v, double *h, double *y)
{
    int64_t in = f->shape.in, hidden = f->shape.hidden, out = f->shape.out;
    ref_product(hidden, in, f->w1 + e * hidden * in, PART(f->b1, e, hidden), x, u);
    if (f->shape.gated)
        ref_product(hidden, in, f->w3 + e * hidden * in, NULL, x, v);
    for (int64_t i = 0; i < hidden; i++)
        h[i] = nn_ref_activation((uint32_t)f->shape.activation, u[i]) * (f->shape.gated ? v[i] : 1);
    ref_product(out, hidden, f->w2 + e * out * hidden, PART(f->b2, e, out), h, y);
}

void nn_ffn_ref_backward(const nn_ffn_ref *f, int64_t e, const double *x, const double *u, const double *v,
                         const double *h, const double *dy, double *dx)
{
    int64_t in = f->shape.in, hidden = f->shape.hidden, out = f->shape.out;
    uint32_t kind = (uint32_t)f->shape.activation;
    const double *w2 = f->w2 + e * out * hidden;
    ref_product_backward(out, hidden, w2, h, dy, PART(f->dw2, e, out * hidden), PART(f->db2, e, out), NULL);
    for (int64_t i = 0; i < hidden; i++) {
        double dh = 0, du, dv;
        for (int64_t j = 0; j < out; j++)
            dh += dy[j] * w2[j * hidden + i];
        du = dh * nn_ref_activation_slope(kind, u[i]) * (f->shape.gated ? v[i] : 1);
        int64_t row = e * hidden + i;
        ref_product_backward(1, in, f->w1 + row * in, x, &du, PART(f->dw1, row, in), PART(f->db1, row, 1), dx);
        if (!f->shape.gated)
            continue;
        dv = dh * nn_ref_activation(kind, u[i]);
        ref_product_backward(1, in, f->w3 + row * in, x, &dv, PART(f->dw3, row, in), NULL, dx);
    }
}
