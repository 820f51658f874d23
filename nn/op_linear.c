/* Linear layers: plain, grouped by rows (each row belongs to one expert) and by expert (every expert sees every row).
 * All three are the same products, batched or grouped; see nn/gemm.h. */
#include "nn/ops.h"

#include "base/error.h"
#include "nn/bias_sum.h"
#include "nn/gemm.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

enum { IN_X, IN_W, IN_B, IN_OFFSETS };
enum { KEEP_XW = 1 << IN_X | 1 << IN_W };

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

typedef struct linear_params {
    bool wide; /* y is F32 and so are the weights, whatever the precision */
} linear_params;

static bool is_wide(const nn_node *node)
{
    return ((const linear_params *)node->params)->wide;
}

/* Rows of one expert (of all, where grouped), sizes of w[e], and experts where there are several. */
typedef struct sizes {
    uint32_t rows, n, k, experts;
    bool shared; /* all experts see the same rows of x */
} sizes;

static sizes sizes_of(const nn_node *node)
{
    const nn_tensor *x = node->in[IN_X], *w = node->in[IN_W];
    bool stacked = node->op != &nn_op_linear, by_expert = node->op == &nn_op_expert_linear;
    return (sizes){
        .rows = (uint32_t)(by_expert ? x->shape[x->dims - 2] : nn_rows(x)),
        .n = (uint32_t)w->shape[w->dims - 2],
        .k = (uint32_t)nn_cols(w),
        .experts = stacked ? (uint32_t)w->shape[0] : 1,
        .shared = by_expert && x->dims == 2,
    };
}

static bool check_sizes(const nn_node *node, int w_dims)
{
    const char *name = node->op->name;
    const nn_tensor *x = node->in[IN_X], *w = node->in[IN_W], *b = node->in[IN_B];
    if (!nn_expect_values(name, "x", x) || !nn_expect_values(name, "w", w) || (b && !nn_expect_floats(name, "b", b)))
        return false;
    if (w->dims != w_dims)
        return cs_fail("%s: w has %d dimensions and needs %d", name, w->dims, w_dims);
    if (x->dims < 1 || nn_cols(x) != nn_cols(w))
        return cs_fail("%s: x has rows of %lld and w takes rows of %lld", name, (long long)nn_cols(x),
                       (long long)nn_cols(w));
    if (b && (b->dims != w_dims - 1 || nn_count(b) * nn_cols(w) != nn_count(w)))
        return cs_fail("%s: b has %lld elements in %d dimensions, w has %lld rows", name, (long long)nn_count(b),
                       b->dims, (long long)nn_rows(w));
    if (nn_rows(x) > INT32_MAX || nn_count(w) > INT32_MAX)
        return cs_fail("%s: more than %d rows or weights", name, INT32_MAX);
    return true;
}

static void set_output(nn_node *node, int dims, const int64_t *shape, int64_t n)
{
    nn_tensor *y = node->out[0];
    y->dtype = is_wide(node) ? NN_F32 : nn_product_type(node, n);
    y->dims = dims;
    for (int i = 0; i < dims - 1; i++)
        y->shape[i] = shape[i];
    y->shape[dims - 1] = n;
}

static bool infer_linear(nn_node *node)
{
    if (!check_sizes(node, 2))
        return false;
    set_output(node, node->in[IN_X]->dims, node->in[IN_X]->shape, node->in[IN_W]->shape[0]);
    return true;
}

static bool infer_grouped(nn_node *node)
{
    const nn_tensor *x = node->in[IN_X], *w = node->in[IN_W], *offsets = node->in[IN_OFFSETS];
    if (!check_sizes(node, 3))
        return false;
    if (x->dims != 2)
        return cs_fail("%s: x has %d dimensions and needs 2", node->op->name, x->dims);
    if (offsets->dtype != NN_I32 || nn_count(offsets) != w->shape[0] + 1)
        return cs_fail("%s: offsets must be %lld I32 for %lld experts", node->op->name, (long long)w->shape[0] + 1,
                       (long long)w->shape[0]);
    set_output(node, 2, x->shape, w->shape[1]);
    return true;
}

static bool infer_expert(nn_node *node)
{
    const nn_tensor *x = node->in[IN_X], *w = node->in[IN_W];
    if (!check_sizes(node, 3))
        return false;
    if (x->dims != 2 && (x->dims != 3 || x->shape[0] != w->shape[0]))
        return cs_fail("%s: x must be [T, K] or [%lld, T, K] for %lld experts", node->op->name, (long long)w->shape[0],
                       (long long)w->shape[0]);
    int64_t shape[] = {w->shape[0], x->shape[x->dims - 2], 0};
    set_output(node, 3, shape, w->shape[1]);
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

/* What the three products of a node have in common. */
static nn_gemm product(const nn_node *node, const sizes *s, enum nn_gemm_layout layout, const char *label)
{
    nn_gemm g = {.layout = layout, .label = label};
    if (node->op == &nn_op_grouped_linear) {
        g.groups = s->experts;
        g.offsets = nn_read_bind(node->in[IN_OFFSETS]).range;
    } else {
        g.batch = s->experts;
    }
    return g;
}

/* Elements between two experts' rows: of x (width k) and y (width n). */
static uint32_t row_stride(const nn_node *node, const sizes *s, uint32_t width)
{
    return node->op == &nn_op_expert_linear ? s->rows * width : 0;
}

static uint32_t x_stride(const nn_node *node, const sizes *s)
{
    return s->shared ? 0 : row_stride(node, s, s->k);
}

static void set_operand(vk_range *range, enum nn_dtype *type, nn_operand operand)
{
    *range = operand.range;
    *type = operand.type;
}

static nn_operand weights(const nn_node *node)
{
    const nn_tensor *w = node->in[IN_W];
    return is_wide(node) ? (nn_operand){nn_read_bind(w).range, w->dtype} : nn_product_operand(node, w);
}

static bool forward(nn_exec *x, const nn_node *node)
{
    sizes s = sizes_of(node);
    nn_gemm g = product(node, &s, NN_GEMM_NT, "linear");
    g.m = s.rows, g.n = s.n, g.k = s.k;
    set_operand(&g.a, &g.a_type, nn_product_operand(node, node->in[IN_X]));
    set_operand(&g.b, &g.b_type, weights(node));
    g.c = nn_write_bind(node->out[0]).range;
    g.c_type = node->out[0]->dtype;
    g.bias = nn_read_bind(node->in[IN_B]).range;
    g.a_stride = x_stride(node, &s);
    g.b_stride = s.n * s.k;
    g.c_stride = row_stride(node, &s, s.n);
    g.bias_stride = s.n;
    return nn_gemm_run(nn_device(x), &g);
}

/* dx = dy w; where the experts share x, their sum in order. */
static bool backward_x(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_gemm g = product(node, s, NN_GEMM_NN, "linear dx");
    g.m = s->rows, g.n = s->k, g.k = s->n;
    g.a = nn_dout_bind(node->out[0]).range;
    g.a_type = node->out[0]->dtype;
    set_operand(&g.b, &g.b_type, weights(node));
    g.c = nn_din_bind(x, node->in[IN_X], &g.accumulate).range;
    g.c_type = node->in[IN_X]->dtype;
    g.a_stride = row_stride(node, s, s->n);
    g.b_stride = s->n * s->k;
    g.c_stride = x_stride(node, s);
    g.sum_batch = s->shared;
    return nn_gemm_run(nn_device(x), &g);
}

/* dw = dy^T x */
static bool backward_w(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_gemm g = product(node, s, NN_GEMM_TN, "linear dw");
    g.m = s->n, g.n = s->k, g.k = s->rows;
    g.a = nn_dout_bind(node->out[0]).range;
    g.a_type = node->out[0]->dtype;
    set_operand(&g.b, &g.b_type, nn_product_operand(node, node->in[IN_X]));
    g.c = nn_din_bind(x, node->in[IN_W], &g.accumulate).range;
    g.c_type = node->in[IN_W]->dtype;
    g.a_stride = row_stride(node, s, s->n);
    g.b_stride = x_stride(node, s);
    g.c_stride = s->n * s->k;
    return nn_gemm_run(nn_device(x), &g);
}

static bool backward_b(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_bias_sum c = {.rows = s->rows, .columns = s->n, .label = "linear db"};
    if (node->op == &nn_op_grouped_linear) {
        c.groups = s->experts;
        c.offsets = nn_read_bind(node->in[IN_OFFSETS]).range;
    } else {
        c.batch = s->experts;
    }
    c.in = nn_dout_bind(node->out[0]).range;
    c.in_type = node->out[0]->dtype;
    c.out = nn_din_bind(x, node->in[IN_B], &c.accumulate).range;
    return nn_bias_sum_run(nn_device(x), &c);
}

static bool backward(nn_exec *x, const nn_node *node)
{
    sizes s = sizes_of(node);
    return (!nn_wants_grad(node->in[IN_X]) || backward_x(x, node, &s)) &&
           (!nn_wants_grad(node->in[IN_W]) || backward_w(x, node, &s)) &&
           (!nn_wants_grad(node->in[IN_B]) || backward_b(x, node, &s));
}

static double flops(const nn_node *node)
{
    return 2.0 * (double)nn_count(node->out[0]) * (double)nn_cols(node->in[IN_X]);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* Rows of x and y that expert e sees: x_first + i and y_first + i for i < count. */
typedef struct rows {
    int64_t x_first, y_first, count;
} rows;

static rows rows_of(const nn_ref *r, const sizes *s, int64_t e)
{
    if (r->node->op == &nn_op_grouped_linear) {
        int64_t first = (int64_t)r->in[IN_OFFSETS][e];
        return (rows){first, first, (int64_t)r->in[IN_OFFSETS][e + 1] - first};
    }
    return (rows){s->shared ? 0 : e * s->rows, e * s->rows, s->rows};
}

static void ref_forward(const nn_ref *r)
{
    sizes s = sizes_of(r->node);
    for (int64_t e = 0; e < s.experts; e++) {
        rows at = rows_of(r, &s, e);
        for (int64_t i = 0; i < at.count; i++)
            for (int64_t n = 0; n < s.n; n++) {
                const double *x = r->in[IN_X] + (at.x_first + i) * s.k, *w = r->in[IN_W] + (e * s.n + n) * s.k;
                double sum = r->in[IN_B] ? r->in[IN_B][e * s.n + n] : 0;
                for (int64_t k = 0; k < s.k; k++)
                    sum += x[k] * w[k];
                r->out[0][(at.y_first + i) * s.n + n] = sum;
            }
    }
}

static void ref_backward(const nn_ref *r)
{
    sizes s = sizes_of(r->node);
    for (int64_t e = 0; e < s.experts; e++) {
        rows at = rows_of(r, &s, e);
        for (int64_t i = 0; i < at.count; i++)
            for (int64_t n = 0; n < s.n; n++) {
                int64_t x = (at.x_first + i) * s.k, w = (e * s.n + n) * s.k;
                double dy = r->dout[0][(at.y_first + i) * s.n + n];
                for (int64_t k = 0; k < s.k; k++) {
                    if (r->din[IN_X])
                        r->din[IN_X][x + k] += dy * r->in[IN_W][w + k];
                    if (r->din[IN_W])
                        r->din[IN_W][w + k] += dy * r->in[IN_X][x + k];
                }
                if (r->din[IN_B])
                    r->din[IN_B][e * s.n + n] += dy;
            }
    }
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

/* Expert 0 gets one row, expert 1 none, the others about equal shares. */
static void fill_uneven(const nn_case *c, int i, double *const *values)
{
    int64_t experts = c->in[i].shape[0] - 1, rows = c->in[IN_X].shape[0];
    for (int64_t e = 0; e <= experts; e++)
        values[i][e] = e == 0 ? 0 : e <= 2 ? 1 : 1 + (double)((rows - 1) * (e - 2) / (experts - 2));
}

/* All rows go to the last expert. */
static void fill_last(const nn_case *c, int i, double *const *values)
{
    int64_t experts = c->in[i].shape[0] - 1;
    for (int64_t e = 0; e <= experts; e++)
        values[i][e] = e == experts ? (double)c->in[IN_X].shape[0] : 0;
}

static void fill_even(const nn_case *c, int i, double *const *values)
{
    int64_t experts = c->in[i].shape[0] - 1;
    for (int64_t e = 0; e <= experts; e++)
        values[i][e] = (double)(c->in[IN_X].shape[0] * e / experts);
}

static const linear_params wide = {true};

#define VALUES(...)                                                                                                    \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL             \
    }
#define OFFSETS(experts)                                                                                               \
    {                                                                                                                  \
        .dtype = NN_I32, .dims = 1, .shape = {(experts) + 1}, .fill = NN_FILL_CUSTOM                                   \
    }

static const nn_case linear_cases[] = {
    {"2x24 rows 64 to 96", {VALUES(2, 24, 64), VALUES(96, 64), VALUES(96)}},
    {"7 rows 10 to 14", {VALUES(7, 10), VALUES(14, 10), VALUES(14)}},
    {"1 row 33 to 5, no bias", {VALUES(1, 33), VALUES(5, 33)}},
    {"9 rows 32 to 7 scores", {VALUES(9, 32), VALUES(7, 32)}, .params = &wide},
    {"300 rows 12 to 20", {VALUES(300, 12), VALUES(20, 12), VALUES(20)}},
    {"70 rows 66 to 68", {VALUES(70, 66), VALUES(68, 66), VALUES(68)}},
    {"512 rows 512 to 512", {VALUES(512, 512), VALUES(512, 512), VALUES(512)}, .bench = true},
    {"4096 rows 64 to 192", {VALUES(4096, 64), VALUES(192, 64), VALUES(192)}, .bench = true},
    {"4096 rows 256 to 64", {VALUES(4096, 256), VALUES(64, 256), VALUES(64)}, .bench = true},
};

static const nn_case grouped_cases[] = {
    {"50 rows 32 to 24, 4 uneven", {VALUES(50, 32), VALUES(4, 24, 32), VALUES(4, 24), OFFSETS(4)}, .fill = fill_uneven},
    {"19 rows 10 to 7, 5 uneven", {VALUES(19, 10), VALUES(5, 7, 10), VALUES(5, 7), OFFSETS(5)}, .fill = fill_uneven},
    {"33 rows 8 to 12, 3 all last", {VALUES(33, 8), VALUES(3, 12, 8), {0}, OFFSETS(3)}, .fill = fill_last},
    {"400 rows 16 to 8, 3 uneven", {VALUES(400, 16), VALUES(3, 8, 16), VALUES(3, 8), OFFSETS(3)}, .fill = fill_uneven},
    {"4096 rows 64 to 256, 8 even",
     {VALUES(4096, 64), VALUES(8, 256, 64), VALUES(8, 256), OFFSETS(8)},
     .fill = fill_even,
     .bench = true},
    {"4096 rows 64 to 256, 8 uneven",
     {VALUES(4096, 64), VALUES(8, 256, 64), VALUES(8, 256), OFFSETS(8)},
     .fill = fill_uneven,
     .bench = true},
};

static const nn_case expert_cases[] = {
    {"20 shared rows 32 to 24, 3", {VALUES(20, 32), VALUES(3, 24, 32), VALUES(3, 24)}},
    {"20 rows each 32 to 24, 3", {VALUES(3, 20, 32), VALUES(3, 24, 32), VALUES(3, 24)}},
    {"7 shared rows 10 to 14, 4", {VALUES(7, 10), VALUES(4, 14, 10), VALUES(4, 14)}},
    {"1 row each 6 to 3, 2, no bias", {VALUES(2, 1, 6), VALUES(2, 3, 6)}},
    {"1024 shared rows 64 to 256, 8", {VALUES(1024, 64), VALUES(8, 256, 64), VALUES(8, 256)}, .bench = true},
};

/* ---- table rows and wrappers ------------------------------------------------------------------------------------- */

#define CASES(list) .cases = list, .case_count = sizeof list / sizeof *list

const nn_op nn_op_linear = {
    .name = "linear",
    .ins = 3,
    .outs = 1,
    .optional = 1 << IN_B,
    .keep_in = KEEP_XW,
    .half_in = KEEP_XW,
    .param_bytes = sizeof(linear_params),
    .infer = infer_linear,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    CASES(linear_cases),
};

const nn_op nn_op_grouped_linear = {
    .name = "grouped_linear",
    .ins = 4,
    .outs = 1,
    .optional = 1 << IN_B,
    .keep_in = KEEP_XW | 1 << IN_OFFSETS,
    .half_in = KEEP_XW,
    .param_bytes = sizeof(linear_params),
    .infer = infer_grouped,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    CASES(grouped_cases),
};

const nn_op nn_op_expert_linear = {
    .name = "expert_linear",
    .ins = 3,
    .outs = 1,
    .optional = 1 << IN_B,
    .keep_in = KEEP_XW,
    .half_in = KEEP_XW,
    .param_bytes = sizeof(linear_params),
    .infer = infer_expert,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    CASES(expert_cases),
};

nn_tensor *nn_linear(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b)
{
    nn_tensor *y;
    return nn_apply(tape, &nn_op_linear, NULL, (nn_tensor *[]){x, w, b}, 3, &y) ? y : NULL;
}

nn_tensor *nn_linear_f32(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b)
{
    nn_tensor *y;
    return nn_apply(tape, &nn_op_linear, &wide, (nn_tensor *[]){x, w, b}, 3, &y) ? y : NULL;
}

nn_tensor *nn_grouped_linear(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *offsets)
{
    nn_tensor *y;
    return nn_apply(tape, &nn_op_grouped_linear, NULL, (nn_tensor *[]){x, w, b, offsets}, 4, &y) ? y : NULL;
}

nn_tensor *nn_expert_linear(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b)
{
    nn_tensor *y;
    return nn_apply(tape, &nn_op_expert_linear, NULL, (nn_tensor *[]){x, w, b}, 3, &y) ? y : NULL;
}
