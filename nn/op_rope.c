/* Rotary position embedding (Su et al. 2021). Angles are exact to 2^-32 of a turn at any position: frequencies go to
 * the device as 64-bit binary fractions of a turn, and whole turns fall off the top of an integer product. */
#include <math.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

enum { MAX_HEAD_DIM = 1024 };

typedef struct rope_params {
    int32_t heads, head_dim;
    float theta;
    uint32_t interleaved;
} rope_params;

static const rope_params *params_of(const nn_node *n)
{
    return (const rope_params *)n->params;
}

nn_tensor *nn_rope(nn_tape *tape, nn_tensor *x, nn_tensor *positions, int heads, int head_dim, float theta,
                   bool interleaved)
{
    /* A unit of fewer than 4 columns cannot be stored in 16 bits. */
    if (head_dim % 8)
        x = nn_cast(tape, x, NN_F32);
    nn_tensor *in[] = {x, positions}, *y;
    nn_apply(tape, &nn_op_rope, &(rope_params){heads, head_dim, theta, interleaved}, in, 2, &y);
    return y;
}

static bool infer(nn_node *n)
{
    const rope_params *p = params_of(n);
    nn_shape_like(n->out[0], n->in[0]);
    if (!nn_expect_values("rope", "x", n->in[0]))
        return false;
    if (!nn_expect_integers("rope", "positions", n->in[1], nn_rows(n->in[0])))
        return false;
    if (p->head_dim < 2 || p->head_dim % 2 || p->head_dim > MAX_HEAD_DIM)
        return cs_fail("rope: head width %d is not an even number up to %d", p->head_dim, MAX_HEAD_DIM);
    if (p->heads < 1 || (int64_t)p->heads * p->head_dim > nn_cols(n->in[0]))
        return cs_fail("rope: %d heads of width %d in rows %s", p->heads, p->head_dim, nn_shape_string(n->in[0]).text);
    return p->theta > 1 || cs_fail("rope: theta %g is not above 1", p->theta);
}

static double flops(const nn_node *n)
{
    return 3.0 * (double)nn_count(n->in[0]);
}

static vk_bind upload_frequencies(nn_exec *x, const rope_params *p)
{
    uint32_t words[MAX_HEAD_DIM];
    for (int i = 0; i < p->head_dim / 2; i++) {
        double turns = pow(p->theta, -2.0 * i / p->head_dim) / (2 * M_PI);
        double high = floor(ldexp(turns, 32));
        words[2 * i] = (uint32_t)high;
        words[2 * i + 1] = (uint32_t)ldexp(ldexp(turns, 32) - high, 32);
    }
    uint64_t bytes = (uint64_t)p->head_dim * 4;
    vk_bind bind = nn_scratch(x, bytes);
    bind.range.size = bytes;
    if (bind.range.block && !vk_upload(nn_device(x), bind.range, words, bytes))
        bind.range = (vk_range){0};
    return bind;
}

static bool launch(nn_exec *x, const nn_node *n, nn_row_bind from, nn_row_bind to, float direction,
                   bool accumulate)
{
    const rope_params *p = params_of(n);
    int64_t cols = nn_cols(n->in[0]);
    /* A unit must lie in one head, and in one half of it where the halves are rotated. */
    int64_t whole = p->interleaved ? p->head_dim : p->head_dim / 2;
    enum nn_width width = nn_row_width(nn_device(x), cols), head_width = nn_row_width(nn_device(x), whole);
    width = head_width < width ? head_width : width;
    uint32_t head_units = (uint32_t)p->head_dim / width;
    vk_bind frequencies = upload_frequencies(x, p);
    struct {
        uint32_t heads, head_units;
        float direction;
    } push = {(uint32_t)p->heads, head_units, direction};
    return frequencies.range.block && nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "rope",
        .rows = nn_rows(n->in[0]),
        .cols = cols,
        .width = width,
        .per_row = p->interleaved && width > 1 ? head_units : head_units / 2,
        .bind = {from, {nn_read_bind(n->in[1]), 4}, {frequencies, 0, true}, to, nn_row_old(to, accumulate)},
        .spec = {p->interleaved, accumulate},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    return launch(x, n, nn_row_in(n->in[0], cols), nn_row_out(n->out[0], cols), 1, false);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    bool accumulate;
    int64_t cols = nn_cols(n->in[0]);
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    return launch(x, n, nn_row_dout(n->out[0], cols), nn_row_din(dx, n->in[0], cols), -1, accumulate);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* to += rotation of `from` by `direction` times the angles. */
static void rotate(const nn_node *n, const double *positions, const double *from, double *to, double direction)
{
    const rope_params *p = params_of(n);
    int64_t rows = nn_rows(n->in[0]), cols = nn_cols(n->in[0]), width = p->head_dim;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) {
            int64_t at = i * cols + c;
            if (c >= p->heads * width) {
                to[at] += from[at];
                continue;
            }
            int64_t d = c % width, pair = p->interleaved ? d / 2 : d % (width / 2);
            bool lower = p->interleaved ? d % 2 == 0 : d < width / 2;
            int64_t partner = at + (lower ? 1 : -1) * (p->interleaved ? 1 : width / 2);
            double angle = direction * positions[i] * pow(p->theta, -2.0 * (double)pair / (double)width);
            to[at] += from[at] * cos(angle) + (lower ? -1 : 1) * from[partner] * sin(angle);
        }
}

static void ref_forward(const nn_ref *r)
{
    for (int64_t i = 0; i < nn_count(r->node->in[0]); i++)
        r->out[0][i] = 0;
    rotate(r->node, r->in[1], r->in[0], r->out[0], 1);
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    rotate(r->node, r->in[1], r->dout[0], r->din[0], -1);
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static void fill_far(const nn_case *c, int i, double *const *values)
{
    for (int64_t j = 0; j < c->in[i].shape[0]; j++)
        values[i][j] = (double)(j * 99991 % 1000003);
}

static const rope_params pairs = {3, 16, 1e4f, true}, halves = {2, 32, 1e4f, false}, narrow = {2, 6, 5e5f, false},
                         odd = {1, 2, 1e4f, true};

static const nn_case cases[] = {
    {.name = "interleaved, values copied",
     .in = {{NN_F32, 2, {9, 64}, NN_FILL_NORMAL}, {NN_I32, 1, {9}, NN_FILL_INDEX, .below = 40}},
     .params = &pairs},
    {.name = "halves, batch",
     .in = {{NN_F32, 3, {2, 5, 64}, NN_FILL_NORMAL}, {NN_I32, 1, {10}, NN_FILL_INDEX, .below = 512}},
     .params = &halves},
    {.name = "halves of 3, positions up to a million",
     .in = {{NN_F32, 2, {7, 13}, NN_FILL_NORMAL}, {NN_I32, 1, {7}, NN_FILL_CUSTOM}},
     .params = &narrow,
     .fill = fill_far},
    {.name = "one pair, odd columns",
     .in = {{NN_F32, 2, {1, 5}, NN_FILL_NORMAL}, {NN_I32, 1, {1}, NN_FILL_INDEX, .below = 9}},
     .params = &odd},
    {.name = "[8192, 192], 4 + 4 heads of 16",
     .in = {{NN_F32, 2, {8192, 192}, NN_FILL_NORMAL}, {NN_I32, 1, {8192}, NN_FILL_INDEX, .below = 512}},
     .params = &(const rope_params){8, 16, 1e4f, false},
     .bench = true},
    {.name = "[2048, 1536], 8 + 8 heads of 64",
     .in = {{NN_F32, 2, {2048, 1536}, NN_FILL_NORMAL}, {NN_I32, 1, {2048}, NN_FILL_INDEX, .below = 512}},
     .params = &(const rope_params){16, 64, 1e4f, true},
     .bench = true},
};

const nn_op nn_op_rope = {
    .name = "rope",
    .ins = 2,
    .outs = 1,
    .half_in = 1,
    .keep_in = 2,
    .param_bytes = sizeof(rope_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
