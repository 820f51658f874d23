/* Cross-entropy of logits against labels. Outputs: the loss [1], the largest column of each row, and each row's
 * log sum exp, from which the backward pass makes the softmax again instead of keeping it. */
#include "nn/cross_entropy.h"

#include <math.h>

#include "nn/launch.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/ops.h"

typedef struct cross_entropy_params {
    float scale;
} cross_entropy_params;

static float scale_of(const nn_node *n)
{
    return ((const cross_entropy_params *)n->params)->scale;
}

nn_tensor *nn_cross_entropy(nn_tape *tape, nn_tensor *logits, nn_tensor *labels, float scale, nn_tensor **best)
{
    nn_tensor *in[] = {logits, labels}, *out[3];
    nn_apply(tape, &nn_op_cross_entropy, &(cross_entropy_params){scale}, in, 2, out);
    if (best)
        *best = out[1];
    return out[0];
}

static bool infer(nn_node *n)
{
    int64_t rows = nn_rows(n->in[0]);
    const int64_t counts[] = {1, rows, rows};
    for (int i = 0; i < 3; i++) {
        n->out[i]->dtype = i == 1 ? NN_I32 : NN_F32;
        n->out[i]->dims = 1;
        n->out[i]->shape[0] = counts[i];
    }
    return nn_expect_floats("cross_entropy", "logits", n->in[0]) &&
           nn_expect_integers("cross_entropy", "labels", n->in[1], rows);
}

static double flops(const nn_node *n)
{
    return 20.0 * (double)nn_count(n->in[0]);
}

/* ---- chunks ------------------------------------------------------------------------------------------------------ */

enum { STATE_BYTES = 16 };

nn_loss_scratch nn_loss_scratch_make(nn_exec *x, int64_t rows, bool chunked)
{
    nn_loss_scratch s = {.states = {.access = VK_READ | VK_WRITE}};
    s.losses = nn_scratch(x, (uint64_t)rows * 4);
    s.partials = nn_scratch(x, (uint64_t)nn_reduce_partials(rows) * 4);
    if (chunked)
        s.states = nn_scratch(x, (uint64_t)rows * STATE_BYTES);
    return s;
}

bool nn_cross_entropy_chunk(vk_device *device, const nn_logits_chunk *c, const nn_loss_scratch *s, vk_bind best)
{
    uint32_t push[] = {(uint32_t)c->first, (uint32_t)c->columns};
    vk_bind log_sums = c->log_sums;
    log_sums.access = VK_WRITE;
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "cross_entropy",
        .rows = c->rows,
        .cols = c->count,
        .width = nn_row_width(device, c->count),
        .reduce = true,
        .bind = {{c->logits, (uint64_t)c->count * 4, true}, {c->labels, 4}, {s->losses, 4}, {best, 4}, {log_sums, 4},
                 {s->states, STATE_BYTES}},
        .push = push,
        .push_bytes = sizeof push,
        .flops = 20.0 * (double)c->rows * (double)c->count,
    });
}

bool nn_cross_entropy_finish(vk_device *device, const nn_loss_scratch *s, int64_t rows, float scale, vk_bind loss)
{
    return nn_reduce_range(device, s->losses, rows, false, scale, s->partials, loss);
}

bool nn_cross_entropy_slope(vk_device *device, const nn_logits_chunk *c, float scale, vk_bind dloss, vk_bind d,
                            bool accumulate)
{
    uint64_t stride = (uint64_t)c->count * 4;
    struct {
        float scale;
        uint32_t first, columns;
    } push = {scale, (uint32_t)c->first, (uint32_t)c->columns};
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "cross_entropy_backward",
        .rows = c->rows,
        .cols = c->count,
        .width = nn_row_width(device, c->count),
        .reduce = true,
        .bind = {{c->logits, stride, true}, {c->labels, 4}, {c->log_sums, 4}, {dloss, 0}, {d, stride},
                 nn_row_old((nn_row_bind){d, stride}, accumulate)},
        .spec = {accumulate},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = 20.0 * (double)c->rows * (double)c->count,
    });
}

/* ---- the operator ------------------------------------------------------------------------------------------------ */

static nn_logits_chunk all_columns(const nn_node *n)
{
    int64_t cols = nn_cols(n->in[0]);
    return (nn_logits_chunk){
        .rows = nn_rows(n->in[0]),
        .columns = cols,
        .count = cols,
        .logits = nn_read_bind(n->in[0]),
        .labels = nn_read_bind(n->in[1]),
        .log_sums = nn_read_bind(n->out[2]),
    };
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_logits_chunk c = all_columns(n);
    nn_loss_scratch s = nn_loss_scratch_make(x, c.rows, false);
    return nn_cross_entropy_chunk(nn_device(x), &c, &s, nn_write_bind(n->out[1])) &&
           nn_cross_entropy_finish(nn_device(x), &s, c.rows, scale_of(n), nn_write_bind(n->out[0]));
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    nn_logits_chunk c = all_columns(n);
    bool accumulate;
    vk_bind dx = nn_din_bind(x, n->in[0], &accumulate);
    return nn_cross_entropy_slope(nn_device(x), &c, scale_of(n), nn_dout_bind(n->out[0]), dx, accumulate);
}

/* ---- references -------------------------------------------------------------------------------------------------- */

double nn_reference_log_sum(const double *logits, int64_t columns, int64_t *best)
{
    double sum = 0;
    *best = 0;
    for (int64_t c = 1; c < columns; c++)
        *best = logits[c] > logits[*best] ? c : *best;
    for (int64_t c = 0; c < columns; c++)
        sum += exp(logits[c] - logits[*best]);
    return logits[*best] + log(sum);
}

static void ref_forward(const nn_ref *r)
{
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]);
    r->out[0][0] = 0;
    for (int64_t i = 0; i < rows; i++) {
        const double *x = r->in[0] + i * cols;
        int64_t best, label = (int64_t)r->in[1][i];
        double log_sum = nn_reference_log_sum(x, cols, &best);
        bool counts = label >= 0 && label < cols;
        r->out[1][i] = (double)best;
        r->out[2][i] = counts ? log_sum : 0;
        r->out[0][0] += counts ? scale_of(r->node) * (log_sum - x[label]) : 0;
    }
}

static void ref_backward(const nn_ref *r)
{
    if (!r->din[0])
        return;
    int64_t rows = nn_rows(r->node->in[0]), cols = nn_cols(r->node->in[0]);
    double weight = scale_of(r->node) * r->dout[0][0];
    for (int64_t i = 0; i < rows; i++) {
        int64_t label = (int64_t)r->in[1][i];
        if (label < 0 || label >= cols)
            continue;
        for (int64_t c = 0; c < cols; c++)
            r->din[0][i * cols + c] += weight * (exp(r->in[0][i * cols + c] - r->out[2][i]) - (c == label));
    }
}

/* ---- the row ----------------------------------------------------------------------------------------------------- */

static void fill_some_ignored(const nn_case *c, int i, double *const *values)
{
    for (int64_t j = 0; j < c->in[i].shape[0]; j++)
        values[i][j] = j % 3 == 1 ? -100 : (double)(j * 31 % c->in[0].shape[1]);
}

static void fill_all_ignored(const nn_case *c, int i, double *const *values)
{
    for (int64_t j = 0; j < c->in[i].shape[0]; j++)
        values[i][j] = -1;
}

static const cross_entropy_params whole = {1}, mean_of_20 = {1 / 20.0f};

static const nn_case cases[] = {
    {.name = "[30, 64], a third ignored",
     .in = {{NN_F32, 2, {30, 64}, NN_FILL_NORMAL, .scale = 3}, {NN_I32, 1, {30}, NN_FILL_CUSTOM}},
     .params = &mean_of_20,
     .fill = fill_some_ignored},
    {.name = "odd columns",
     .in = {{NN_F32, 2, {7, 13}, NN_FILL_NORMAL}, {NN_I32, 1, {7}, NN_FILL_INDEX, .below = 13}},
     .params = &whole},
    {.name = "one row of 3003",
     .in = {{NN_F32, 2, {1, 3003}, NN_FILL_NORMAL, .scale = 5}, {NN_I32, 1, {1}, NN_FILL_INDEX, .below = 3003}},
     .params = &whole},
    {.name = "all ignored",
     .in = {{NN_F32, 2, {5, 8}, NN_FILL_NORMAL}, {NN_I32, 1, {5}, NN_FILL_CUSTOM}},
     .params = &whole,
     .fill = fill_all_ignored},
    {.name = "one column",
     .in = {{NN_F32, 2, {4, 1}, NN_FILL_NORMAL}, {NN_I32, 1, {4}, NN_FILL_INDEX, .below = 1}},
     .params = &whole},
    {.name = "[1100, 4]",
     .in = {{NN_F32, 2, {1100, 4}, NN_FILL_NORMAL}, {NN_I32, 1, {1100}, NN_FILL_INDEX, .below = 4}},
     .params = &whole},
    {.name = "[512, 32000]",
     .in = {{NN_F32, 2, {512, 32000}, NN_FILL_NORMAL}, {NN_I32, 1, {512}, NN_FILL_INDEX, .below = 32000}},
     .params = &whole,
     .bench = true},
    {.name = "[1024, 400]",
     .in = {{NN_F32, 2, {1024, 400}, NN_FILL_NORMAL}, {NN_I32, 1, {1024}, NN_FILL_INDEX, .below = 400}},
     .params = &whole,
     .bench = true},
};

const nn_op nn_op_cross_entropy = {
    .name = "cross_entropy",
    .ins = 2,
    .outs = 3,
    .aux_out = 4,
    .keep_in = 3,
    .keep_out = 4,
    .param_bytes = sizeof(cross_entropy_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
