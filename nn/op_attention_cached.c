/* Attention of new tokens over a key/value cache, for generation. */
#include "nn/attention_internal.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "nn/op_table.h"

/* Up to this many new tokens the lanes of a workgroup share the keys instead of the queries. */
enum { FEW_QUERIES = 4 };

static const nn_cached_params *params_of(const nn_node *n)
{
    return (const nn_cached_params *)n->params;
}

static bool infer(nn_node *n)
{
    const nn_cached_params *p = params_of(n);
    const nn_tensor *qkv = n->in[0];
    if (!nn_attention_check("cached attention", &p->attention, nn_cols(qkv)))
        return false;
    int64_t rows = nn_rows(qkv), width = (int64_t)p->attention.kv_heads * p->attention.head_dim;
    for (int i = 0; i < 3; i++)
        if (n->in[i]->dtype != NN_F32)
            return cs_fail("cached attention: inputs must be floats");
    for (int i = 1; i < 3; i++)
        if (nn_cols(n->in[i]) != width || p->past < 0 || p->past + rows > nn_rows(n->in[i]))
            return cs_fail("cached attention: a cache of %lld rows of %lld, but rows of %lld up to row %lld are needed",
                           (long long)nn_rows(n->in[i]), (long long)nn_cols(n->in[i]), (long long)width,
                           (long long)(p->past + rows));
    if (p->open < 0 || p->open > p->past + rows)
        return cs_fail("cached attention: an open prefix of %d rows in a sequence of %lld", p->open,
                       (long long)(p->past + rows));
    *n->out[0] =
        (nn_tensor){.dtype = NN_F32, .dims = 2, .shape = {rows, (int64_t)p->attention.heads * p->attention.head_dim}};
    return true;
}

static nn_attention_push push_of(const nn_node *n)
{
    const nn_cached_params *p = params_of(n);
    uint32_t rows = (uint32_t)nn_rows(n->in[0]), cache_row = (uint32_t)nn_cols(n->in[1]) / 4;
    return (nn_attention_push){
        .queries = rows,
        .keys = (uint32_t)p->past + rows,
        .past = (uint32_t)p->past,
        .open = (uint32_t)p->open,
        .heads = (uint32_t)p->attention.heads,
        .group = (uint32_t)(p->attention.heads / p->attention.kv_heads),
        .q_row = (uint32_t)nn_cols(n->in[0]) / 4,
        .k_row = cache_row,
        .v_row = cache_row,
        .scale = nn_attention_scale(&p->attention),
    };
}

static bool store(nn_exec *x, const nn_node *n, const nn_attention_push *push)
{
    const nn_attention_params *p = &params_of(n)->attention;
    nn_attention_plan plan =
        nn_attention_plan_for(vk_device_caps(nn_device(x)), NN_ATTENTION_FORWARD, p->head_dim, NN_F32);
    uint32_t lanes = 64, vectors = push->queries * push->k_row;
    vk_dispatch d = {
        .kernel = "attention_store",
        .spec = {lanes, 1, 1, 1, plan.chunk, plan.chunks},
        .specs = 6,
        .bind = {nn_read_bind(n->in[0]), nn_write_bind(n->in[1]), nn_write_bind(n->in[2])},
        .binds = 3,
        .push = push,
        .push_bytes = sizeof *push,
        .groups = {(vectors + lanes - 1) / lanes, 1, 1},
        .bytes = 64.0 * vectors,
    };
    return vk_run(nn_device(x), &d);
}

/* The kernel needs no subgroups; its lanes' partial outputs must fit into shared memory. */
static void use_decode(vk_dispatch *d, const nn_attention_push *push, const nn_attention_plan *plan,
                       const vk_caps *caps)
{
    uint32_t lanes = plan->lanes;
    while (lanes > 1 && lanes * (plan->chunk * 16 + 8) > caps->max_shared_bytes)
        lanes /= 2;
    d->kernel = d->label = "attention_decode";
    d->spec[0] = lanes;
    d->subgroup = 0;
    d->groups[0] = push->queries;
}

static bool attend(nn_exec *x, const nn_node *n, const nn_attention_push *push)
{
    nn_attention_params p = params_of(n)->attention;
    p.causal = true;
    p.open_prefix = push->open > 0;
    nn_attention_plan plan =
        nn_attention_plan_for(vk_device_caps(nn_device(x)), NN_ATTENTION_FORWARD, p.head_dim, NN_F32);
    vk_dispatch d;
    nn_attention_dispatch(&d, &plan, NN_ATTENTION_FORWARD, &p, push, false, 1);
    for (int i = 0; i < 3; i++)
        d.bind[i] = nn_texel_bind(n->in[i]);
    if (push->queries <= FEW_QUERIES) {
        use_decode(&d, push, &plan, vk_device_caps(nn_device(x)));
        d.bind[3] = nn_write_bind(n->out[0]);
        d.binds = 4;
    } else {
        d.label = "attention prefill";
        for (int i = 3; i < 6; i++)
            d.bind[i] = nn_read_bind(NULL); /* no segments, no picks */
        d.bind[6] = nn_write_bind(n->out[0]);
        d.bind[7] = nn_scratch(x, (uint64_t)push->queries * push->heads * sizeof(float)); /* row sums, unused */
        d.binds = 8;
    }
    return vk_run(nn_device(x), &d);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_attention_push push = push_of(n);
    return store(x, n, &push) && attend(x, n, &push);
}

static double flops(const nn_node *n)
{
    const nn_cached_params *p = params_of(n);
    double rows = (double)nn_rows(n->in[0]);
    return 4.0 * p->attention.heads * p->attention.head_dim * rows * (p->past + (rows + 1) / 2);
}

/* ---- reference --------------------------------------------------------------------------------------------------- */

/* Row j of the sequence's keys (which = 0) or values (1) of a key head: from the cache or from the new tokens. */
static const double *sequence_row(const nn_ref *r, int which, int key_head, int64_t j)
{
    const nn_cached_params *p = params_of(r->node);
    const nn_attention_params *a = &p->attention;
    int64_t offset = (int64_t)key_head * a->head_dim;
    if (j < p->past)
        return r->in[1 + which] + j * a->kv_heads * a->head_dim + offset;
    return r->in[0] + (j - p->past) * nn_cols(r->node->in[0]) +
           (int64_t)(a->heads + which * a->kv_heads) * a->head_dim + offset;
}

static void ref_row(const nn_ref *r, int64_t i, int head, double *p, double *y)
{
    const nn_cached_params *params = params_of(r->node);
    const nn_attention_params *a = &params->attention;
    const double *q = r->in[0] + i * nn_cols(r->node->in[0]) + (int64_t)head * a->head_dim;
    int64_t position = params->past + i, end = position < params->open ? params->open : position + 1;
    int key_head = head / (a->heads / a->kv_heads);
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < end; j++) {
        const double *k = sequence_row(r, 0, key_head, j);
        p[j] = 0;
        for (int c = 0; c < a->head_dim; c++)
            p[j] += q[c] * k[c] * nn_attention_scale(a);
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < end; j++)
        sum += exp(p[j] - top);
    for (int c = 0; c < a->head_dim; c++) {
        y[c] = 0;
        for (int64_t j = 0; j < end; j++)
            y[c] += exp(p[j] - top) / sum * sequence_row(r, 1, key_head, j)[c];
    }
}

static void ref_forward(const nn_ref *r)
{
    const nn_cached_params *p = params_of(r->node);
    int64_t rows = nn_rows(r->node->in[0]);
    double *row = calloc((size_t)(p->past + rows), sizeof *row);
    for (int64_t i = 0; row && i < rows; i++)
        for (int h = 0; h < p->attention.heads; h++)
            ref_row(r, i, h, row, r->out[0] + (i * p->attention.heads + h) * p->attention.head_dim);
    free(row);
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static const nn_cached_params one = {{.heads = 4, .kv_heads = 2, .head_dim = 8}, 21, 0};
static const nn_cached_params start = {{.heads = 2, .kv_heads = 2, .head_dim = 16}, 0, 0};
static const nn_cached_params picture = {{.heads = 2, .kv_heads = 1, .head_dim = 16}, 0, 13};
static const nn_cached_params inside = {{.heads = 2, .kv_heads = 1, .head_dim = 72}, 5, 8};
static const nn_cached_params more = {{.heads = 3, .kv_heads = 3, .head_dim = 128}, 9, 4};
static const nn_cached_params bench_one = {{.heads = 8, .kv_heads = 2, .head_dim = 64}, 1000, 0};
static const nn_cached_params bench_prompt = {{.heads = 8, .kv_heads = 2, .head_dim = 64}, 0, 0};

#define FUSED(rows, cols) {.dtype = NN_F32, .dims = 2, .shape = {rows, cols}, .fill = NN_FILL_NORMAL}
#define CACHE(rows, cols) FUSED(rows, cols), FUSED(rows, cols)

static const nn_case cases[] = {
    {.name = "one token", .params = &one, .in = {FUSED(1, 64), CACHE(30, 16)}},
    {.name = "start", .params = &start, .in = {FUSED(19, 96), CACHE(19, 32)}},
    {.name = "picture and text", .params = &picture, .in = {FUSED(37, 64), CACHE(64, 16)}},
    {.name = "inside a picture", .params = &inside, .in = {FUSED(3, 288), CACHE(9, 72)}},
    {.name = "more text", .params = &more, .in = {FUSED(11, 1152), CACHE(20, 384)}},
    {.name = "one of 1000", .params = &bench_one, .in = {FUSED(1, 768), CACHE(1024, 128)}, .bench = true},
    {.name = "a prompt of 256", .params = &bench_prompt, .in = {FUSED(256, 768), CACHE(1024, 128)}, .bench = true},
};

const nn_op nn_op_attention_cached = {
    .name = "attention_cached",
    .ins = 3,
    .outs = 1,
    .param_bytes = sizeof(nn_cached_params),
    .infer = infer,
    .forward = forward,
    .ref_forward = ref_forward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};

nn_tensor *nn_attention_cached(nn_tape *tape, nn_tensor *qkv, nn_tensor *cache_k, nn_tensor *cache_v,
                               nn_attention_params params, int past, int open)
{
    nn_cached_params p = {params, past, open};
    nn_tensor *out;
    nn_apply(tape, &nn_op_attention_cached, &p, (nn_tensor *[]){qkv, cache_k, cache_v}, 3, &out);
    return out;
}
