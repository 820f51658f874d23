#include "nn/routing.h"

#include <math.h>

#include "base/error.h"
#include "nn/moe_ops.h"
#include "nn/op_util.h"

nn_routing nn_routing_of(const nn_tensor *scores, int64_t top_k)
{
    nn_routing r = {.experts = nn_cols(scores), .top_k = top_k};
    r.per_sequence = scores->dims < 2 ? 1 : scores->shape[scores->dims - 2];
    r.tokens = nn_rows(scores);
    r.sequences = r.tokens / r.per_sequence;
    /* Shared memory of a token: two rows of E, its choices, its sums; 4096 words (16 KiB) in all. */
    int64_t words = 2 * (r.experts | 1) + top_k + 4, fit = 4096 / words;
    r.tile = (uint32_t)(fit < 64 ? fit : 64);
    r.tiles = (uint32_t)((r.per_sequence + r.tile - 1) / r.tile);
    return r;
}

bool nn_routing_infer(nn_node *n, int64_t top_k)
{
    const nn_tensor *scores = n->in[0];
    const char *op = n->op->name;
    if (!nn_expect_floats(op, "scores", scores))
        return false;
    nn_routing r = nn_routing_of(scores, top_k);
    if (scores->dims < 2 || scores->dims > 3)
        return cs_fail("%s: scores %s must be [sequences, tokens, experts]", op, nn_shape_string(scores).text);
    if (r.experts > NN_MAX_EXPERTS)
        return cs_fail("%s: %lld experts, at most %d are possible", op, (long long)r.experts, NN_MAX_EXPERTS);
    if (top_k < 1 || top_k > r.experts)
        return cs_fail("%s: %lld of %lld experts cannot be chosen", op, (long long)top_k, (long long)r.experts);
    if (r.sequences > 65535 || r.tiles > 65535)
        return cs_fail("%s: %lld sequences of %lld tokens are too many for one call", op, (long long)r.sequences,
                       (long long)r.per_sequence);
    nn_shape_like(n->out[OUT_PROBABILITIES], scores);
    nn_shape_like(n->out[OUT_WEIGHTS], scores);
    n->out[OUT_WEIGHTS]->shape[scores->dims - 1] = top_k;
    nn_shape_like(n->out[OUT_INDICES], n->out[OUT_WEIGHTS]);
    n->out[OUT_INDICES]->dtype = NN_I32;
    const int64_t lengths[] = {1, 1, r.experts, 1, NN_STAT_FIRST + r.sequences * r.experts};
    for (int i = 0; OUT_BALANCE + i < ROUTING_OUTS; i++) {
        nn_tensor *t = n->out[OUT_BALANCE + i];
        t->dtype = NN_F32;
        t->dims = 1;
        t->shape[0] = lengths[i];
    }
    return true;
}

vk_bind nn_routing_partial(nn_exec *x, const nn_routing *r)
{
    return nn_scratch(x, (uint64_t)(r->sequences * r->tiles * (3 * r->experts + 4)) * 4);
}

bool nn_routing_finish(nn_exec *x, const nn_node *n, const nn_routing *r, vk_bind partial, bool compete, float theta)
{
    struct {
        uint32_t sequences, per_sequence, tiles;
        float theta;
    } push = {(uint32_t)r->sequences, (uint32_t)r->per_sequence, r->tiles, theta};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "routing_finish",
        .spec = {64, (uint32_t)r->experts, (uint32_t)r->top_k, compete},
        .specs = 4,
        .bind = {{partial.range, VK_READ}, nn_write_bind(n->out[OUT_BALANCE]), nn_write_bind(n->out[OUT_SECOND]),
                 nn_write_bind(n->out[OUT_LOAD]), nn_write_bind(n->out[OUT_ENTROPY]),
                 nn_write_bind(n->out[OUT_STATISTICS])},
        .binds = 6,
        .push = &push,
        .push_bytes = sizeof push,
        .groups = {1, 1, 1},
        .bytes = (double)partial.range.size,
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

double nn_ref_softmax(const double *in, double *out, int64_t count)
{
    double top = in[0], sum = 0;
    for (int64_t i = 1; i < count; i++)
        top = fmax(top, in[i]);
    for (int64_t i = 0; i < count; i++)
        sum += exp(in[i] - top);
    double lse = top + log(sum);
    for (int64_t i = 0; i < count; i++)
        out[i] = exp(in[i] - lse);
    return lse;
}

void nn_ref_select(const double *scores, int64_t count, int64_t top_k, double *indices)
{
    for (int64_t k = 0; k < top_k; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < count; e++) {
            bool taken = false;
            for (int64_t j = 0; j < k; j++)
                taken |= indices[j] == (double)e;
            if (!taken && (best < 0 || scores[e] > scores[best]))
                best = e;
        }
        indices[k] = (double)best;
    }
}

void nn_ref_balance(const nn_ref *r, const nn_routing *g)
{
    double *load = r->out[OUT_LOAD], *first = r->out[OUT_STATISTICS] + NN_STAT_FIRST;
    for (int64_t e = 0; e < g->experts; e++)
        load[e] = 0;
    for (int64_t i = 0; i < g->sequences * g->experts; i++)
        first[i] = 0;
    for (int64_t t = 0; t < g->tokens; t++) {
        const double *chosen = r->out[OUT_INDICES] + t * g->top_k;
        first[t / g->per_sequence * g->experts + (int64_t)chosen[0]] += 1.0 / (double)g->per_sequence;
        for (int64_t k = 0; k < g->top_k; k++)
            load[(int64_t)chosen[k]] += 1.0 / (double)(g->tokens * g->top_k);
    }
    double sum = 0;
    for (int64_t t = 0; t < g->tokens; t++)
        for (int64_t e = 0; e < g->experts; e++)
            sum += first[t / g->per_sequence * g->experts + e] * r->out[OUT_PROBABILITIES][t * g->experts + e];
    r->out[OUT_BALANCE][0] = sum * (double)g->experts / (double)g->tokens;
}

void nn_ref_balance_backward(const nn_ref *r, const nn_routing *g, double *d_scores)
{
    const double *first = r->out[OUT_STATISTICS] + NN_STAT_FIRST;
    double scale = r->dout[OUT_BALANCE][0] * (double)g->experts / (double)g->tokens;
    for (int64_t t = 0; t < g->tokens; t++) {
        const double *p = r->out[OUT_PROBABILITIES] + t * g->experts, *f = first + t / g->per_sequence * g->experts;
        double mean = 0;
        for (int64_t e = 0; e < g->experts; e++)
            mean += p[e] * scale * f[e];
        for (int64_t e = 0; e < g->experts; e++)
            d_scores[t * g->experts + e] += p[e] * (scale * f[e] - mean);
    }
}
