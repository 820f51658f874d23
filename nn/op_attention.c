/* Multi-head attention over a fused projection (Vaswani et al. 2017), in tiles with an online softmax (Dao et al.
 * 2022). Outputs: y [B, T, heads head_dim] and the logarithm of each row's sum of exponentials, [B, heads, T]. */
#include "nn/attention_internal.h"

#include <string.h>

#include "base/error.h"
#include "nn/op_table.h"

static const nn_attention_params *params_of(const nn_node *n)
{
    return (const nn_attention_params *)n->params;
}

static bool infer(nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    const nn_tensor *qkv = n->in[0], *segments = n->in[1];
    if (!nn_is_float(qkv->dtype) || qkv->dims != 3)
        return cs_fail("attention: qkv must be [B, T, heads and key heads]");
    if (!nn_attention_check("attention", p, qkv->shape[2]))
        return false;
    if (nn_is_half(qkv->dtype) && p->head_dim % NN_HALF_COLS)
        return cs_fail("attention: head_dim is %d, in 16 bits it must be a multiple of %d", p->head_dim, NN_HALF_COLS);
    int64_t batch = qkv->shape[0], rows = qkv->shape[1];
    if (segments && (segments->dtype != NN_I32 || nn_count(segments) != batch * rows))
        return cs_fail("attention: segments must be %lld integers, one per row", (long long)(batch * rows));
    *n->out[0] =
        (nn_tensor){.dtype = qkv->dtype, .dims = 3, .shape = {batch, rows, (int64_t)p->heads * p->head_dim}};
    *n->out[1] = (nn_tensor){.dtype = NN_F32, .dims = 3, .shape = {batch, p->heads, rows}};
    return true;
}

static nn_attention_push push_of(const nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    uint32_t width = (uint32_t)p->head_dim / 4, rows = (uint32_t)n->in[0]->shape[1];
    uint32_t row = (uint32_t)(p->heads + 2 * p->kv_heads) * width, keys = (uint32_t)p->heads * width;
    return (nn_attention_push){
        .queries = rows,
        .keys = rows,
        .open = rows, /* without segments all rows are segment 0 */
        .heads = (uint32_t)p->heads,
        .group = (uint32_t)(p->heads / p->kv_heads),
        .q_row = row,
        .k_row = row,
        .v_row = row,
        .k_first = keys,
        .v_first = keys + (uint32_t)p->kv_heads * width,
        .scale = nn_attention_scale(p),
    };
}

static bool forward(nn_exec *x, const nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    nn_attention_push push = push_of(n);
    nn_attention_plan plan =
        nn_attention_plan_for(vk_device_caps(nn_device(x)), NN_ATTENTION_FORWARD, p->head_dim, n->in[0]->dtype);
    vk_dispatch d;
    nn_attention_dispatch(&d, &plan, NN_ATTENTION_FORWARD, p, &push, n->in[1] != NULL, n->in[0]->shape[0]);
    d.binds = 6;
    for (int i = 0; i < 3; i++)
        d.bind[i] = nn_texel_bind(n->in[0]);
    d.bind[3] = nn_read_bind(n->in[1]);
    d.bind[4] = nn_write_bind(n->out[0]);
    d.bind[5] = nn_write_bind(n->out[1]);
    return vk_run(nn_device(x), &d);
}

static vk_bind as_texels(vk_bind b)
{
    b.access = VK_READ | VK_TEXEL;
    return b;
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[0]))
        return true;
    const nn_attention_params *p = params_of(n);
    const vk_caps *caps = vk_device_caps(nn_device(x));
    int64_t batch = n->in[0]->shape[0];
    bool accumulate, segments = n->in[1] != NULL;
    vk_bind gradient = nn_din_bind(x, n->in[0], &accumulate); /* the two kernels write disjoint columns */
    vk_bind delta = nn_scratch(x, (uint64_t)nn_count(n->out[1]) * sizeof(float));
    nn_attention_push push = push_of(n);

    vk_dispatch d;
    nn_attention_plan plan = nn_attention_plan_for(caps, NN_ATTENTION_BACKWARD_QUERY, p->head_dim, n->in[0]->dtype);
    nn_attention_dispatch(&d, &plan, NN_ATTENTION_BACKWARD_QUERY, p, &push, segments, batch);
    d.spec[NN_ATTENTION_ACCUMULATE] = accumulate;
    d.binds = 7;
    d.bind[0] = nn_texel_bind(n->in[0]);
    d.bind[1] = as_texels(nn_dout_bind(n->out[0]));
    d.bind[2] = nn_texel_bind(n->out[0]);
    d.bind[3] = nn_read_bind(n->in[1]);
    d.bind[4] = nn_read_bind(n->out[1]);
    d.bind[5] = (vk_bind){delta.range, VK_WRITE};
    d.bind[6] = gradient;
    if (!vk_run(nn_device(x), &d))
        return false;

    plan = nn_attention_plan_for(caps, NN_ATTENTION_BACKWARD_KEY, p->head_dim, n->in[0]->dtype);
    nn_attention_dispatch(&d, &plan, NN_ATTENTION_BACKWARD_KEY, p, &push, segments, batch);
    d.spec[NN_ATTENTION_ACCUMULATE] = accumulate;
    d.binds = 6;
    d.bind[0] = nn_texel_bind(n->in[0]);
    d.bind[1] = as_texels(nn_dout_bind(n->out[0]));
    d.bind[2] = nn_read_bind(n->in[1]);
    d.bind[3] = nn_read_bind(n->out[1]);
    d.bind[4] = (vk_bind){delta.range, VK_READ};
    d.bind[5] = gradient;
    return vk_run(nn_device(x), &d);
}

/* Products of all row pairs, half of them with causal attention; what segments hide is not known here. */
static double flops(const nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    double rows = (double)n->in[0]->shape[1];
    return 4.0 * (double)n->in[0]->shape[0] * p->heads * p->head_dim * rows * rows * (p->causal ? 0.5 : 1);
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

/* Isolated turns: a third of each row is the picture (segment 0), then turns of 3 tokens, then one row of padding. */
static void fill_turns(const nn_case *c, int i, double *const *values)
{
    int64_t rows = c->in[i].shape[1];
    for (int64_t b = 0; b < c->in[i].shape[0]; b++)
        for (int64_t t = 0; t < rows; t++) {
            int64_t open = rows / 3 + b;
            values[i][b * rows + t] = t < open ? 0 : t == rows - 1 ? -1 : (double)(1 + (t - open) / 3);
        }
}

/* As in training: 64 picture tokens, turns of 9 tokens, padding of up to 8 rows. */
static void fill_picture(const nn_case *c, int i, double *const *values)
{
    int64_t rows = c->in[i].shape[1];
    for (int64_t b = 0; b < c->in[i].shape[0]; b++)
        for (int64_t t = 0; t < rows; t++)
            values[i][b * rows + t] = t < 64 ? 0 : t >= rows - b % 9 ? -1 : (double)(1 + (t - 64) / 9);
}

/* Short texts packed behind each other, none of them segment 0; the padding stands first. */
static void fill_packed(const nn_case *c, int i, double *const *values)
{
    int64_t rows = c->in[i].shape[1];
    for (int64_t b = 0; b < c->in[i].shape[0]; b++)
        for (int64_t t = 0; t < rows; t++)
            values[i][b * rows + t] = t < 5 ? -1 : (double)(1 + (t - 5) / (11 + b));
}

static const nn_attention_params few = {.heads = 3, .kv_heads = 3, .head_dim = 16};
static const nn_attention_params causal_grouped = {
    .heads = 4, .kv_heads = 2, .head_dim = 8, .causal = true, .scale = 0.5f};
static const nn_attention_params prefix = {
    .heads = 2, .kv_heads = 1, .head_dim = 16, .causal = true, .open_prefix = true};
static const nn_attention_params packed = {.heads = 1, .kv_heads = 1, .head_dim = 32, .causal = true};
static const nn_attention_params wide = {.heads = 2, .kv_heads = 1, .head_dim = 128, .causal = true};
static const nn_attention_params middle = {.heads = 2, .kv_heads = 2, .head_dim = 64};
static const nn_attention_params odd = {.heads = 3, .kv_heads = 1, .head_dim = 72};
static const nn_attention_params small = {.heads = 1, .kv_heads = 1, .head_dim = 4, .causal = true};
static const nn_attention_params bench_full = {.heads = 4, .kv_heads = 4, .head_dim = 16};
static const nn_attention_params bench_turns = {
    .heads = 4, .kv_heads = 4, .head_dim = 16, .causal = true, .open_prefix = true};
static const nn_attention_params bench_32 = {.heads = 4, .kv_heads = 4, .head_dim = 32};
static const nn_attention_params bench_text = {.heads = 8, .kv_heads = 2, .head_dim = 64, .causal = true};

#define QKV(batch, rows, cols) {.dtype = NN_F32, .dims = 3, .shape = {batch, rows, cols}, .fill = NN_FILL_NORMAL}
#define SEGMENTS(batch, rows) {.dtype = NN_I32, .dims = 2, .shape = {batch, rows}, .fill = NN_FILL_CUSTOM}

static const nn_case cases[] = {
    {.name = "full", .params = &few, .in = {QKV(2, 13, 144)}},
    {.name = "causal, grouped", .params = &causal_grouped, .in = {QKV(2, 37, 64)}},
    {.name = "isolated turns", .params = &prefix, .in = {QKV(2, 53, 64), SEGMENTS(2, 53)}, .fill = fill_turns},
    {.name = "open prefix alone", .params = &prefix, .in = {QKV(1, 18, 64)}},
    {.name = "packed", .params = &packed, .in = {QKV(2, 71, 96), SEGMENTS(2, 71)}, .fill = fill_packed},
    {.name = "padded, not causal", .params = &middle, .in = {QKV(1, 33, 384), SEGMENTS(1, 33)}, .fill = fill_turns},
    {.name = "wide heads", .params = &wide, .in = {QKV(1, 19, 512)}},
    {.name = "heads of 72", .params = &odd, .in = {QKV(1, 9, 360)}},
    {.name = "one row", .params = &small, .in = {QKV(3, 1, 12)}},
    {.name = "full 64", .params = &bench_full, .in = {QKV(32, 64, 192)}, .bench = true},
    {.name = "isolated turns 152", .params = &bench_turns, .in = {QKV(32, 152, 192), SEGMENTS(32, 152)},
     .fill = fill_picture, .bench = true},
    {.name = "full 64, heads of 32", .params = &bench_32, .in = {QKV(16, 64, 384)}, .bench = true},
    {.name = "causal 512 x 64", .params = &bench_text, .in = {QKV(1, 512, 768)}, .bench = true},
};

const nn_op nn_op_attention = {
    .name = "attention",
    .ins = 2,
    .outs = 2,
    .optional = 1u << 1,
    .keep_in = 3,
    .keep_out = 3,
    .aux_out = 1u << 1,
    .half_in = 1,
    .param_bytes = sizeof(nn_attention_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = nn_attention_ref_forward,
    .ref_backward = nn_attention_ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};

nn_tensor *nn_attention(nn_tape *tape, nn_tensor *qkv, nn_tensor *segments, nn_attention_params params)
{
    nn_tensor *out[2];
    if (params.head_dim % NN_HALF_COLS)
        qkv = nn_cast(tape, qkv, NN_F32);
    nn_apply(tape, &nn_op_attention, &params, (nn_tensor *[]){qkv, segments}, 2, out);
    return out[0];
}
