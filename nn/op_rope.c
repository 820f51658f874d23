/* Rotary position embedding (Su et al. 2021). Angles are exact to 2^-32 of a turn at any position: frequencies go to
 * the device as 64-bit binary fractions of a turn, and whole turns fall off the top of an integer product. */
#include <math.h>

#include "base/error.h"
#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

enum { IN_X, IN_POSITIONS, IN_FREQUENCIES };
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

static bool takes_heads_of(int head_dim)
{
    return head_dim >= 2 && head_dim % 2 == 0 && head_dim <= MAX_HEAD_DIM;
}

/* Word `i` of a head's frequencies: two for each pair, the high one first. */
static uint32_t frequency_word(const rope_params *p, int i)
{
    double turns = pow(p->theta, -2.0 * (i / 2) / p->head_dim) / (2 * M_PI);
    double high = floor(ldexp(turns, 32));
    return (uint32_t)(i % 2 ? ldexp(ldexp(turns, 32) - high, 32) : high);
}

/* An input, so that it goes to the device with a step's other integers. */
static nn_tensor *frequencies(nn_tape *tape, const rope_params *p)
{
    const int64_t count = takes_heads_of(p->head_dim) ? p->head_dim : 1; /* infer() says what is wrong */
    uint32_t *words = nn_tape_take(tape, (size_t)count * sizeof *words);
    for (int i = 0; words && i < count; i++)
        words[i] = frequency_word(p, i);
    return words ? nn_input(tape, NN_I32, 1, &count, words) : NULL;
}

nn_tensor *nn_rope(nn_tape *tape, nn_tensor *x, nn_tensor *positions, int heads, int head_dim, float theta,
                   bool interleaved)
{
    const rope_params params = {heads, head_dim, theta, interleaved};
    /* A unit of fewer than 4 columns cannot be stored in 16 bits. */
    if (head_dim % 8)
        x = nn_cast(tape, x, NN_F32);
    nn_tensor *in[] = {x, positions, frequencies(tape, &params)}, *y;
    nn_apply(tape, &nn_op_rope, &params, in, 3, &y);
    return y;
}

static bool infer(nn_node *n)
{
    const rope_params *p = params_of(n);
    nn_shape_like(n->out[0], n->in[IN_X]);
    if (!takes_heads_of(p->head_dim))
        return cs_fail("rope: head width %d is not an even number up to %d", p->head_dim, MAX_HEAD_DIM);
    if (!nn_expect_values("rope", "x", n->in[IN_X]) ||
        !nn_expect_integers("rope", "positions", n->in[IN_POSITIONS], nn_rows(n->in[IN_X])) ||
        !nn_expect_integers("rope", "frequencies", n->in[IN_FREQUENCIES], p->head_dim))
        return false;
    if (p->heads < 1 || (int64_t)p->heads * p->head_dim > nn_cols(n->in[IN_X]))
        return cs_fail("rope: %d heads of width %d in rows %s", p->heads, p->head_dim,
                       nn_shape_string(n->in[IN_X]).text);
    return p->theta > 1 || cs_fail("rope: theta %g is not above 1", p->theta);
}

static double flops(const nn_node *n)
{
    return 3.0 * (double)nn_count(n->in[IN_X]);
}

static bool launch(nn_exec *x, const nn_node *n, nn_row_bind from, nn_row_bind to, float direction,
                   bool accumulate)
{
    const rope_params *p = params_of(n);
    int64_t cols = nn_cols(n->in[IN_X]);
    /* A unit must lie in one head, and in one half of it where the halves are rotated. */
    int64_t whole = p->interleaved ? p->head_dim : p->head_dim / 2;
    enum nn_width width = nn_row_width(nn_device(x), cols), head_width = nn_row_width(nn_device(x), whole);
    width = head_width < width ? head_width : width;
    uint32_t head_units = (uint32_t)p->head_dim / width;
    struct {
        uint32_t heads, head_units;
        float direction;
    } push = {(uint32_t)p->heads, head_units, direction};
    return nn_launch_rows(nn_device(x), &(nn_launch){
        .kernel = "rope",
        .rows = nn_rows(n->in[IN_X]),
        .cols = cols,
        .width = width,
        .per_row = p->interleaved && width > 1 ? head_units : head_units / 2,
        .bind = {from, {nn_read_bind(n->in[IN_POSITIONS]), 4}, {nn_read_bind(n->in[IN_FREQUENCIES]), 0, true}, to,
                 nn_row_old(to, accumulate)},
        .spec = {p->interleaved, accumulate},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = flops(n),
    });
}

static bool forward(nn_exec *x, const nn_node *n)
{
    int64_t cols = nn_cols(n->in[IN_X]);
    return launch(x, n, nn_row_in(n->in[IN_X], cols), nn_row_out(n->out[0], cols), 1, false);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[IN_X]))
        return true;
    bool accumulate;
    int64_t cols = nn_cols(n->in[IN_X]);
    vk_bind dx = nn_din_bind(x, n->in[IN_X], &accumulate);
    return launch(x, n, nn_row_dout(n->out[0], cols), nn_row_din(dx, n->in[IN_X], cols), -1, accumulate);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

/* to += rotation of `from` by `direction` times the angles. */
static void rotate(const nn_node *n, const double *positions, const double *from, double *to, double direction)
{
    const rope_params *p = params_of(n);
    int64_t rows = nn_rows(n->in[IN_X]), cols = nn_cols(n->in[IN_X]), width = p->head_dim;
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
    for (int64_t i = 0; i < nn_count(r->node->in[IN_X]); i++)
        r->out[0][i] = 0;
    rotate(r->node, r->in[IN_POSITIONS], r->in[IN_X], r->out[0], 1);
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[IN_X])
        return;
    rotate(r->node, r->in[IN_POSITIONS], r->dout[0], r->din[IN_X], -1);
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

/* Positions up to a million, and the frequencies. */
static void fill_integers(const nn_case *c, int i, double *const *values)
{
    for (int j = 0; j < c->in[i].shape[0]; j++)
        values[i][j] = i == IN_POSITIONS ? (j + 1) * 99991 % 1000003 : (int32_t)frequency_word(c->params, j);
}

#define CASE(rows, width, ...) \
    .in = {{NN_F32, __VA_ARGS__, NN_FILL_NORMAL}, \
           {NN_I32, 1, {rows}, NN_FILL_CUSTOM}, \
           {NN_I32, 1, {width}, NN_FILL_CUSTOM}}, \
    .fill = fill_integers

static const rope_params pairs = {3, 16, 1e4f, true}, halves = {2, 32, 1e4f, false}, narrow = {2, 6, 5e5f, false},
                         odd = {1, 2, 1e4f, true}, easy = {8, 16, 1e4f, false}, wide = {16, 64, 1e4f, true};

static const nn_case cases[] = {
    {.name = "interleaved, values copied", CASE(9, 16, 2, {9, 64}), .params = &pairs},
    {.name = "halves, batch", CASE(10, 32, 3, {2, 5, 64}), .params = &halves},
    {.name = "halves of 3", CASE(7, 6, 2, {7, 13}), .params = &narrow},
    {.name = "one pair, odd columns", CASE(1, 2, 2, {1, 5}), .params = &odd},
    {.name = "[8192, 192], 4 + 4 heads of 16", CASE(8192, 16, 2, {8192, 192}), .params = &easy, .bench = true},
    {.name = "[2048, 1536], 8 + 8 heads of 64", CASE(2048, 64, 2, {2048, 1536}), .params = &wide, .bench = true},
};

const nn_op nn_op_rope = {
    .name = "rope",
    .ins = 3,
    .outs = 1,
    .half_in = 1 << IN_X,
    .keep_in = 1 << IN_POSITIONS | 1 << IN_FREQUENCIES,
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
