/* Multi-head attention over a fused projection (Vaswani et al. 2017), in tiles with an online softmax (Dao et al.
 * 2022). Outputs: y [B, T, heads head_dim] and the logarithm of each row's sum of exponentials, [B, heads, T]; with
 * picks [R, heads head_dim] and, by slot, [B, heads, Q]. */
#include "nn/attention_internal.h"

#include <string.h>

#include "base/error.h"
#include "nn/op_table.h"

enum { IN_QKV, IN_SEGMENTS, IN_ROWS, IN_PICKS, INS };

static const nn_attention_params *params_of(const nn_node *n)
{
    return (const nn_attention_params *)n->params;
}

/* Queries of a sequence: its rows, or the slots of the list of picks. */
static int64_t queries_of(const nn_node *n)
{
    const nn_tensor *qkv = n->in[IN_QKV], *picks = n->in[IN_PICKS];
    return picks ? nn_count(picks) / qkv->shape[0] : qkv->shape[1];
}

static bool picks_fit(const nn_node *n)
{
    const nn_tensor *rows = n->in[IN_ROWS], *picks = n->in[IN_PICKS];
    if (!rows && !picks)
        return true;
    if (!rows || !picks || rows->dtype != NN_I32 || picks->dtype != NN_I32)
        return cs_fail("attention: picked rows and their slots must both be integers");
    if (!nn_count(picks) || nn_count(picks) % n->in[IN_QKV]->shape[0] || nn_count(rows) > nn_count(picks))
        return cs_fail("attention: %lld slots cannot hold %lld picked rows of %lld sequences",
                       (long long)nn_count(picks), (long long)nn_count(rows), (long long)n->in[IN_QKV]->shape[0]);
    return true;
}

static bool infer(nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    const nn_tensor *qkv = n->in[IN_QKV], *segments = n->in[IN_SEGMENTS];
    if (!nn_is_float(qkv->dtype) || qkv->dims != 3)
        return cs_fail("attention: qkv must be [B, T, heads and key heads]");
    if (!nn_attention_check("attention", p, qkv->shape[2]))
        return false;
    if (nn_is_half(qkv->dtype) && p->head_dim % NN_HALF_COLS)
        return cs_fail("attention: head_dim is %d, in 16 bits it must be a multiple of %d", p->head_dim, NN_HALF_COLS);
    int64_t batch = qkv->shape[0], rows = qkv->shape[1];
    if (segments && (segments->dtype != NN_I32 || nn_count(segments) != batch * rows))
        return cs_fail("attention: segments must be %lld integers, one per row", (long long)(batch * rows));
    if (!picks_fit(n))
        return false;
    int64_t width = (int64_t)p->heads * p->head_dim;
    *n->out[0] = n->in[IN_ROWS]
                     ? (nn_tensor){.dtype = qkv->dtype, .dims = 2, .shape = {nn_count(n->in[IN_ROWS]), width}}
                     : (nn_tensor){.dtype = qkv->dtype, .dims = 3, .shape = {batch, rows, width}};
    *n->out[1] = (nn_tensor){.dtype = NN_F32, .dims = 3, .shape = {batch, p->heads, queries_of(n)}};
    return true;
}

static nn_attention_push push_of(const nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    uint32_t width = (uint32_t)p->head_dim / 4, rows = (uint32_t)n->in[IN_QKV]->shape[1];
    uint32_t row = (uint32_t)(p->heads + 2 * p->kv_heads) * width, keys = (uint32_t)p->heads * width;
    return (nn_attention_push){
        .queries = (uint32_t)queries_of(n),
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

/* Starts a dispatch, with the lists as binds from `lists` on. */
static void start(vk_dispatch *d, nn_exec *x, const nn_node *n, enum nn_attention_kernel kernel,
                  const nn_attention_push *push, int lists)
{
    const nn_attention_params *p = params_of(n);
    const nn_tensor *qkv = n->in[IN_QKV];
    nn_attention_plan plan = nn_attention_plan_for(vk_device_caps(nn_device(x)), kernel, p->head_dim, qkv->dtype);
    nn_attention_dispatch(d, &plan, kernel, p, push, n->in[IN_SEGMENTS] != NULL, qkv->shape[0]);
    d->spec[NN_ATTENTION_PICKED] = n->in[IN_PICKS] != NULL;
    for (int i = IN_SEGMENTS; i <= IN_PICKS; i++)
        d->bind[lists + i - IN_SEGMENTS] = nn_read_bind(n->in[i]);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_attention_push push = push_of(n);
    vk_dispatch d;
    start(&d, x, n, NN_ATTENTION_FORWARD, &push, 3);
    d.binds = 8;
    for (int i = 0; i < 3; i++)
        d.bind[i] = nn_texel_bind(n->in[IN_QKV]);
    d.bind[6] = nn_write_bind(n->out[0]);
    d.bind[7] = nn_write_bind(n->out[1]);
    return vk_run(nn_device(x), &d);
}

static vk_bind as_texels(vk_bind b)
{
    b.access = VK_READ | VK_TEXEL;
    return b;
}

static bool backward(nn_exec *x, const nn_node *n)
{
    if (!nn_wants_grad(n->in[IN_QKV]))
        return true;
    bool accumulate;
    vk_bind gradient = nn_din_bind(x, n->in[IN_QKV], &accumulate); /* the two kernels write disjoint columns */
    vk_bind delta = nn_scratch(x, (uint64_t)nn_count(n->out[1]) * sizeof(float));
    nn_attention_push push = push_of(n);
    if (n->in[IN_PICKS] && !accumulate && !vk_fill(nn_device(x), gradient.range, 0)) /* the other rows' queries */
        return false;

    vk_dispatch d;
    start(&d, x, n, NN_ATTENTION_BACKWARD_QUERY, &push, 3);
    d.spec[NN_ATTENTION_ACCUMULATE] = accumulate;
    d.binds = 9;
    d.bind[0] = nn_texel_bind(n->in[IN_QKV]);
    d.bind[1] = as_texels(nn_dout_bind(n->out[0]));
    d.bind[2] = nn_texel_bind(n->out[0]);
    d.bind[6] = nn_read_bind(n->out[1]);
    d.bind[7] = (vk_bind){delta.range, VK_WRITE};
    d.bind[8] = gradient;
    if (!vk_run(nn_device(x), &d))
        return false;

    start(&d, x, n, NN_ATTENTION_BACKWARD_KEY, &push, 2);
    d.spec[NN_ATTENTION_ACCUMULATE] = accumulate;
    d.binds = 8;
    d.bind[0] = nn_texel_bind(n->in[IN_QKV]);
    d.bind[1] = as_texels(nn_dout_bind(n->out[0]));
    d.bind[5] = nn_read_bind(n->out[1]);
    d.bind[6] = (vk_bind){delta.range, VK_READ};
    d.bind[7] = gradient;
    return vk_run(nn_device(x), &d);
}

/* Products of all row pairs, half of them with causal attention; what segments hide is not known here. */
static double flops(const nn_node *n)
{
    const nn_attention_params *p = params_of(n);
    double pairs = (double)n->in[IN_QKV]->shape[1] * (double)queries_of(n);
    return 4.0 * (double)n->in[IN_QKV]->shape[0] * p->heads * p->head_dim * pairs * (p->causal ? 0.5 : 1);
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

/* Picks of every sequence but the second, and segments as fill_turns has them. Rows are spread over those sequences,
 * slots are taken from the last to the first, so that empty ones come before them. */
static void fill_picks(const nn_case *c, int i, double *const *values)
{
    int64_t sequences = c->in[IN_PICKS].shape[0], slots = c->in[IN_PICKS].shape[1], count = c->in[IN_ROWS].shape[0];
    int64_t rows = c->in[IN_QKV].shape[1], candidates = (sequences - (sequences > 1)) * rows;
    if (i == IN_SEGMENTS)
        fill_turns(c, i, values);
    for (int64_t j = 0; i == IN_ROWS && j < count; j++) {
        int64_t row = j * candidates / count;
        values[i][j] = (double)(row < rows ? row : row + rows);
    }
    if (i != IN_PICKS)
        return;
    for (int64_t j = 0; j < sequences * slots; j++)
        values[i][j] = -1;
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t j = 0, slot = (b + 1) * slots - 1; j < count; j++)
            if ((int64_t)values[IN_ROWS][j] / rows == b)
                values[i][slot--] = (double)j;
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

#define PICKED(batch, slots, count) \
    {.dtype = NN_I32, .dims = 1, .shape = {count}, .fill = NN_FILL_CUSTOM}, \
        {.dtype = NN_I32, .dims = 2, .shape = {batch, slots}, .fill = NN_FILL_CUSTOM}

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
    {.name = "picks", .params = &few, .in = {QKV(2, 13, 144), {0}, PICKED(2, 8, 5)}, .fill = fill_picks},
    {.name = "picks, causal, grouped", .params = &causal_grouped, .in = {QKV(3, 37, 64), {0}, PICKED(3, 16, 23)},
     .fill = fill_picks},
    {.name = "picks of turns", .params = &prefix, .in = {QKV(3, 53, 64), SEGMENTS(3, 53), PICKED(3, 40, 69)},
     .fill = fill_picks},
    {.name = "picks, open prefix", .params = &prefix, .in = {QKV(1, 18, 64), {0}, PICKED(1, 7, 7)},
     .fill = fill_picks},
    {.name = "picks, heads of 72", .params = &odd, .in = {QKV(2, 9, 360), {0}, PICKED(2, 5, 3)}, .fill = fill_picks},
    {.name = "full 64", .params = &bench_full, .in = {QKV(32, 64, 192)}, .bench = true},
    {.name = "isolated turns 152", .params = &bench_turns, .in = {QKV(32, 152, 192), SEGMENTS(32, 152)},
     .fill = fill_picture, .bench = true},
    {.name = "picks of turns 192", .params = &bench_turns,
     .in = {QKV(32, 192, 192), SEGMENTS(32, 192), PICKED(32, 24, 744)}, .fill = fill_picks, .bench = true},
    {.name = "full 64, heads of 32", .params = &bench_32, .in = {QKV(16, 64, 384)}, .bench = true},
    {.name = "causal 512 x 64", .params = &bench_text, .in = {QKV(1, 512, 768)}, .bench = true},
};

const nn_op nn_op_attention = {
    .name = "attention",
    .ins = INS,
    .outs = 2,
    .optional = 1u << IN_SEGMENTS | 1u << IN_ROWS | 1u << IN_PICKS,
    .keep_in = (1u << INS) - 1,
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

nn_tensor *nn_attention_picked(nn_tape *tape, nn_tensor *qkv, nn_tensor *segments, nn_tensor *rows, nn_tensor *picks,
                               nn_attention_params params)
{
    nn_tensor *out[2];
    if (params.head_dim % NN_HALF_COLS)
        qkv = nn_cast(tape, qkv, NN_F32);
    nn_apply(tape, &nn_op_attention, &params, (nn_tensor *[]){qkv, segments, rows, picks}, INS, out);
    return out[0];
}

nn_tensor *nn_attention(nn_tape *tape, nn_tensor *qkv, nn_tensor *segments, nn_attention_params params)
{
    return nn_attention_picked(tape, qkv, segments, NULL, NULL, params);
}
