/* Competition mode: winners by affinity, weights by ratio, router loss against the detached target, balance loss of the
 * target (specification 2.3, 3.1, 3.4, 3.5). */
#include <math.h>

#include "base/error.h"
#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/op_util.h"
#include "nn/routing.h"

enum { IN_LOGITS, IN_AFFINITIES };

static const nn_compete_params *params_of(const nn_node *n)
{
    return (const nn_compete_params *)n->params;
}

bool nn_compete(nn_tape *tape, nn_tensor *z, nn_tensor *s, nn_compete_params params, nn_routing_result *out)
{
    nn_tensor *in[] = {z, s}, *o[ROUTING_OUTS];
    bool ok = nn_apply(tape, &nn_op_compete, &params, in, 2, o);
    *out = (nn_routing_result){o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]};
    return ok;
}

static bool infer(nn_node *n)
{
    if (!nn_routing_infer(n, params_of(n)->top_k) ||
        !nn_expect_row("compete", "affinities", n->in[1], nn_count(n->in[0])))
        return false;
    return nn_cols(n->in[1]) == nn_cols(n->in[0]) ||
           cs_fail("compete: affinities %s must have %lld columns", nn_shape_string(n->in[1]).text,
                   (long long)nn_cols(n->in[0]));
}

static bool forward(nn_exec *x, const nn_node *n)
{
    const nn_compete_params *p = params_of(n);
    nn_routing r = nn_routing_of(n->in[0], p->top_k);
    vk_bind partial = nn_routing_partial(x, &r);
    uint32_t push[] = {(uint32_t)r.per_sequence, r.tiles};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "compete",
        .spec = {64, (uint32_t)r.experts, (uint32_t)r.top_k, r.tile, p->norm_sigmoid != 0},
        .specs = 5,
        .bind = {nn_read_bind(n->in[IN_LOGITS]), nn_read_bind(n->in[IN_AFFINITIES]),
                 nn_write_bind(n->out[OUT_PROBABILITIES]), nn_write_bind(n->out[OUT_INDICES]),
                 nn_write_bind(n->out[OUT_WEIGHTS]), {partial.range, VK_WRITE}},
        .binds = 6,
        .push = push,
        .push_bytes = sizeof push,
        .groups = {r.tiles, (uint32_t)r.sequences, 1},
        .bytes = 12.0 * (double)nn_count(n->in[0]),
    }) && nn_routing_finish(x, n, &r, partial, true, p->theta);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    const nn_compete_params *p = params_of(n);
    nn_routing r = nn_routing_of(n->in[0], p->top_k);
    bool wanted[2], accumulate[2] = {false, false};
    vk_bind gradient[2] = {{.access = VK_WRITE}, {.access = VK_WRITE}};
    for (int i = 0; i < 2; i++)
        if ((wanted[i] = nn_wants_grad(n->in[i])))
            gradient[i] = (vk_bind){nn_din_bind(x, n->in[i], &accumulate[i]).range, VK_READ | VK_WRITE};
    struct {
        uint32_t tokens, per_sequence;
        float theta;
    } push = {(uint32_t)r.tokens, (uint32_t)r.per_sequence, p->theta};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "compete_backward",
        .spec = {64, (uint32_t)r.experts, (uint32_t)r.top_k, p->norm_sigmoid != 0, wanted[0], accumulate[0], wanted[1],
                 accumulate[1]},
        .specs = 8,
        .bind = {nn_read_bind(n->in[IN_LOGITS]), nn_read_bind(n->in[IN_AFFINITIES]),
                 nn_read_bind(n->out[OUT_PROBABILITIES]), nn_read_bind(n->out[OUT_INDICES]),
                 nn_read_bind(n->out[OUT_WEIGHTS]), nn_read_bind(n->out[OUT_STATISTICS]),
                 nn_dout_bind(n->out[OUT_WEIGHTS]), nn_dout_bind(n->out[OUT_SECOND]), nn_dout_bind(n->out[OUT_BALANCE]),
                 gradient[IN_LOGITS], gradient[IN_AFFINITIES]},
        .binds = 11,
        .push = &push,
        .push_bytes = sizeof push,
        .groups = {(uint32_t)((r.tokens + 63) / 64), 1, 1},
        .bytes = 24.0 * (double)nn_count(n->in[0]),
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

static double rated(const nn_node *n, double score)
{
    return params_of(n)->norm_sigmoid ? 1 / (1 + exp(-score)) : score;
}

static void ref_forward(const nn_ref *r)
{
    nn_routing g = nn_routing_of(r->node->in[0], params_of(r->node)->top_k);
    double *statistics = r->out[OUT_STATISTICS], entropy = 0, all = 0, winners = 0;
    for (int64_t t = 0; t < g.tokens; t++) {
        const double *s = r->in[IN_AFFINITIES] + t * g.experts;
        double *q = r->out[OUT_PROBABILITIES] + t * g.experts, *chosen = r->out[OUT_INDICES] + t * g.top_k;
        double p[NN_MAX_EXPERTS], sum = 0;
        nn_ref_softmax(r->in[IN_LOGITS] + t * g.experts, p, g.experts);
        nn_ref_softmax(s, q, g.experts);
        nn_ref_select(s, g.experts, g.top_k, chosen);
        for (int64_t e = 0; e < g.experts; e++) {
            entropy -= p[e] * (p[e] > 0 ? log(p[e]) : 0);
            all += (p[e] - q[e]) * (p[e] - q[e]);
        }
        for (int64_t k = 0; k < g.top_k; k++) {
            int64_t e = (int64_t)chosen[k];
            winners += (p[e] - q[e]) * (p[e] - q[e]);
            sum += rated(r->node, s[e]);
        }
        for (int64_t k = 0; k < g.top_k; k++)
            r->out[OUT_WEIGHTS][t * g.top_k + k] = rated(r->node, s[(int64_t)chosen[k]]) / sum;
    }
    nn_ref_balance(r, &g);
    r->out[OUT_ENTROPY][0] = entropy / (double)g.tokens;
    statistics[NN_STAT_ROUTER_ALL] = all / (double)(g.tokens * g.experts);
    statistics[NN_STAT_ROUTER_WINNERS] = winners / (double)(g.tokens * g.top_k);
    r->out[OUT_SECOND][0] = statistics[NN_STAT_ROUTER_ALL] +
                            params_of(r->node)->theta * statistics[NN_STAT_ROUTER_WINNERS];
}

static void ref_gate_backward(const nn_ref *r, const nn_routing *g, int64_t t)
{
    const double *q = r->out[OUT_PROBABILITIES] + t * g->experts, *chosen = r->out[OUT_INDICES] + t * g->top_k;
    double p[NN_MAX_EXPERTS], dp[NN_MAX_EXPERTS], mean = 0;
    nn_ref_softmax(r->in[IN_LOGITS] + t * g->experts, p, g->experts);
    for (int64_t e = 0; e < g->experts; e++)
        dp[e] = r->dout[OUT_SECOND][0] * 2 * (p[e] - q[e]) / (double)(g->tokens * g->experts);
    for (int64_t k = 0; k < g->top_k; k++) {
        int64_t e = (int64_t)chosen[k];
        dp[e] +=
            r->dout[OUT_SECOND][0] * params_of(r->node)->theta * 2 * (p[e] - q[e]) / (double)(g->tokens * g->top_k);
    }
    for (int64_t e = 0; e < g->experts; e++)
        mean += p[e] * dp[e];
    for (int64_t e = 0; e < g->experts; e++)
        r->din[IN_LOGITS][t * g->experts + e] += p[e] * (dp[e] - mean);
}

static void ref_expert_backward(const nn_ref *r, const nn_routing *g, int64_t t)
{
    const double *s = r->in[IN_AFFINITIES] + t * g->experts, *chosen = r->out[OUT_INDICES] + t * g->top_k;
    const double *w = r->out[OUT_WEIGHTS] + t * g->top_k, *dw = r->dout[OUT_WEIGHTS] + t * g->top_k;
    double sum = 0, mean = 0;
    for (int64_t k = 0; k < g->top_k; k++) {
        sum += rated(r->node, s[(int64_t)chosen[k]]);
        mean += w[k] * dw[k];
    }
    for (int64_t k = 0; k < g->top_k; k++) {
        int64_t e = (int64_t)chosen[k];
        double v = rated(r->node, s[e]), slope = params_of(r->node)->norm_sigmoid ? v * (1 - v) : 1;
        r->din[IN_AFFINITIES][t * g->experts + e] += slope * (dw[k] - mean) / sum;
    }
}

static void ref_backward(const nn_ref *r)
{
    nn_routing g = nn_routing_of(r->node->in[0], params_of(r->node)->top_k);
    if (r->din[IN_AFFINITIES])
        nn_ref_balance_backward(r, &g, r->din[IN_AFFINITIES]);
    for (int64_t t = 0; t < g.tokens; t++) {
        if (r->din[IN_LOGITS])
            ref_gate_backward(r, &g, t);
        if (r->din[IN_AFFINITIES])
            ref_expert_backward(r, &g, t);
    }
}

static double flops(const nn_node *n)
{
    return 60.0 * (double)nn_count(n->in[0]);
}

/* Affinities are positive as softplus means and norms are: a sum near zero would make the weights arbitrary. */
static void fill_affinities(const nn_case *c, int i, double *const *values)
{
    int64_t count = c->in[i].shape[0] * c->in[i].shape[1] * c->in[i].shape[2];
    for (int64_t j = 0; j < count; j++)
        values[i][j] = 0.5 + (double)(j * 2654435761u % 1000003) / 1000003;
}

static const nn_case cases[] = {
    {.name = "E 4, K 2, hybrid",
     .in = {{NN_F32, 3, {3, 65, 4}, NN_FILL_NORMAL}, {NN_F32, 3, {3, 65, 4}, NN_FILL_CUSTOM}},
     .params = &(const nn_compete_params){2, 0, 0.1f}, .fill = fill_affinities},
    {.name = "E 64, K 8",
     .in = {{NN_F32, 3, {2, 37, 64}, NN_FILL_NORMAL}, {NN_F32, 3, {2, 37, 64}, NN_FILL_CUSTOM}},
     .params = &(const nn_compete_params){8, 0, 0}, .fill = fill_affinities},
    {.name = "E 4, K 2, norm_sigmoid",
     .in = {{NN_F32, 3, {2, 7, 4}, NN_FILL_NORMAL}, {NN_F32, 3, {2, 7, 4}, NN_FILL_NORMAL}},
     .params = &(const nn_compete_params){2, 1, 0.7f}},
    {.name = "E 3, K 3, gate frozen",
     .in = {{NN_F32, 3, {2, 5, 3}, NN_FILL_NORMAL, .no_grad = true}, {NN_F32, 3, {2, 5, 3}, NN_FILL_CUSTOM}},
     .params = &(const nn_compete_params){3, 0, 0.1f}, .fill = fill_affinities},
    {.name = "E 256, K 1, experts frozen",
     .in = {{NN_F32, 3, {1, 9, 256}, NN_FILL_NORMAL}, {NN_F32, 3, {1, 9, 256}, NN_FILL_CUSTOM, .no_grad = true}},
     .params = &(const nn_compete_params){1, 0, 0.1f}, .fill = fill_affinities},
    {.name = "[32, 64, 8], K 2",
     .in = {{NN_F32, 3, {32, 64, 8}, NN_FILL_NORMAL}, {NN_F32, 3, {32, 64, 8}, NN_FILL_CUSTOM}},
     .params = &(const nn_compete_params){2, 0, 0.1f}, .fill = fill_affinities, .bench = true},
    {.name = "[8, 2048, 64], K 4",
     .in = {{NN_F32, 3, {8, 2048, 64}, NN_FILL_NORMAL}, {NN_F32, 3, {8, 2048, 64}, NN_FILL_CUSTOM}},
     .params = &(const nn_compete_params){4, 0, 0.1f}, .fill = fill_affinities, .bench = true},
};

const nn_op nn_op_compete = {
    .name = "compete",
    .ins = 2,
    .outs = ROUTING_OUTS,
    .keep_in = 3,
    .keep_out = 1 << OUT_PROBABILITIES | 1 << OUT_INDICES | 1 << OUT_WEIGHTS | 1 << OUT_STATISTICS,
    .aux_out = 1 << OUT_PROBABILITIES | 1 << OUT_LOAD | 1 << OUT_ENTROPY | 1 << OUT_STATISTICS,
    .stops_gradient = true, /* the target q of the router loss is detached */
    .param_bytes = sizeof(nn_compete_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
