/* The linear layer; see nn/gemm.h for its products. */
#include "nn/ops.h"

#include "base/error.h"
#include "nn/bias_sum.h"
#include "nn/gemm.h"
#include "nn/op_table.h"
#include "nn/op_util.h"

enum { IN_X, IN_W, IN_B };
enum { KEEP_XW = 1 << IN_X | 1 << IN_W };

typedef struct linear_params {
    bool wide; /* y is F32 and so are the weights, whatever the precision, and nothing of F32 is rounded */
} linear_params;

static bool is_wide(const nn_node *node)
{
    return ((const linear_params *)node->params)->wide;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

/* x [rows, k], w [n, k] */
typedef struct sizes {
    uint32_t rows, n, k;
} sizes;

static sizes sizes_of(const nn_node *node)
{
    const nn_tensor *w = node->in[IN_W];
    return (sizes){(uint32_t)nn_rows(node->in[IN_X]), (uint32_t)w->shape[0], (uint32_t)nn_cols(w)};
}

static bool infer(nn_node *node)
{
    const char *name = node->op->name;
    const nn_tensor *x = node->in[IN_X], *w = node->in[IN_W], *b = node->in[IN_B];
    nn_tensor *y = node->out[0];
    if (!nn_expect_values(name, "x", x) || !nn_expect_values(name, "w", w) || (b && !nn_expect_floats(name, "b", b)))
        return false;
    if (w->dims != 2)
        return cs_fail("%s: w has %d dimensions and needs 2", name, w->dims);
    if (x->dims < 1 || nn_cols(x) != nn_cols(w))
        return cs_fail("%s: x has rows of %lld and w takes rows of %lld", name, (long long)nn_cols(x),
                       (long long)nn_cols(w));
    if (b && (b->dims != 1 || nn_count(b) != w->shape[0]))
        return cs_fail("%s: b has %lld elements in %d dimensions, w has %lld rows", name, (long long)nn_count(b),
                       b->dims, (long long)w->shape[0]);
    nn_shape_like(y, x);
    y->dtype = is_wide(node) ? NN_F32 : nn_product_type(node, w->shape[0]);
    y->shape[x->dims - 1] = w->shape[0];
    return true;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------- */

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
    nn_gemm g = {.layout = NN_GEMM_NT, .label = "linear", .m = s.rows, .n = s.n, .k = s.k, .exact = is_wide(node)};
    set_operand(&g.a, &g.a_type, nn_product_operand(node, node->in[IN_X]));
    set_operand(&g.b, &g.b_type, weights(node));
    g.c = nn_write_bind(node->out[0]).range;
    g.c_type = node->out[0]->dtype;
    g.bias = nn_read_bind(node->in[IN_B]).range;
    return nn_gemm_run(nn_device(x), &g);
}

/* dx = dy w */
static bool backward_x(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_gemm g = {.layout = NN_GEMM_NN, .label = "linear dx", .m = s->rows, .n = s->k, .k = s->n,
                 .exact = is_wide(node)};
    g.a = nn_dout_bind(node->out[0]).range;
    g.a_type = node->out[0]->dtype;
    set_operand(&g.b, &g.b_type, weights(node));
    g.c = nn_din_bind(x, node->in[IN_X], &g.accumulate).range;
    g.c_type = node->in[IN_X]->dtype;
    return nn_gemm_run(nn_device(x), &g);
}

/* dw = dy^T x */
static bool backward_w(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_gemm g = {.layout = NN_GEMM_TN, .label = "linear dw", .m = s->n, .n = s->k, .k = s->rows,
                 .exact = is_wide(node)};
    g.a = nn_dout_bind(node->out[0]).range;
    g.a_type = node->out[0]->dtype;
    set_operand(&g.b, &g.b_type, nn_product_operand(node, node->in[IN_X]));
    g.c = nn_din_bind(x, node->in[IN_W], &g.accumulate).range;
    g.c_type = node->in[IN_W]->dtype;
    return nn_gemm_run(nn_device(x), &g);
}

static bool backward_b(nn_exec *x, const nn_node *node, const sizes *s)
{
    nn_bias_sum c = {.rows = s->rows, .columns = s->n, .label = "linear db"};
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

static void ref_forward(const nn_ref *r)
{
    sizes s = sizes_of(r->node);
    for (int64_t i = 0; i < s.rows; i++)
        for (int64_t n = 0; n < s.n; n++) {
            const double *x = r->in[IN_X] + i * s.k, *w = r->in[IN_W] + n * s.k;
            double sum = r->in[IN_B] ? r->in[IN_B][n] : 0;
            for (int64_t k = 0; k < s.k; k++)
                sum += x[k] * w[k];
            r->out[0][i * s.n + n] = sum;
        }
}

static void ref_backward(const nn_ref *r)
{
    sizes s = sizes_of(r->node);
    for (int64_t i = 0; i < s.rows; i++)
        for (int64_t n = 0; n < s.n; n++) {
            int64_t x = i * s.k, w = n * s.k;
            double dy = r->dout[0][i * s.n + n];
            for (int64_t k = 0; k < s.k; k++) {
                if (r->din[IN_X])
                    r->din[IN_X][x + k] += dy * r->in[IN_W][w + k];
                if (r->din[IN_W])
                    r->din[IN_W][w + k] += dy * r->in[IN_X][x + k];
            }
            if (r->din[IN_B])
                r->din[IN_B][n] += dy;
        }
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static const linear_params wide = {true};

#define VALUES(...)                                                                                                    \
    {                                                                                                                  \
        .dims = sizeof((int[]){__VA_ARGS__}) / sizeof(int), .shape = {__VA_ARGS__}, .fill = NN_FILL_NORMAL             \
    }

static const nn_case cases[] = {
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

const nn_op nn_op_linear = {
    .name = "linear",
    .ins = 3,
    .outs = 1,
    .optional = 1 << IN_B,
    .keep_in = KEEP_XW,
    .half_in = KEEP_XW,
    .param_bytes = sizeof(linear_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
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
