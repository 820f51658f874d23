/* Router mode: softmax gate, top-k, renormalised weights, balance loss and z-loss (specification 2.2, 3.1, 3.5). */
#include <math.h>

#include "nn/moe_ops.h"
#include "nn/op_table.h"
#include "nn/routing.h"

typedef struct route_params {
    int32_t top_k;
} route_params;

static nn_routing routing_of(const nn_node *n)
{
    return nn_routing_of(n->in[0], ((const route_params *)n->params)->top_k);
}

bool nn_route(nn_tape *tape, nn_tensor *z, int top_k, nn_routing_result *out)
{
    nn_tensor *o[ROUTING_OUTS];
    bool ok = nn_apply(tape, &nn_op_route, &(route_params){top_k}, &z, 1, o);
    *out = (nn_routing_result){o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]};
    return ok;
}

static bool infer(nn_node *n)
{
    return nn_routing_infer(n, ((const route_params *)n->params)->top_k);
}

static bool forward(nn_exec *x, const nn_node *n)
{
    nn_routing r = routing_of(n);
    vk_bind partial = nn_routing_partial(x, &r);
    uint32_t push[] = {(uint32_t)r.per_sequence, r.tiles};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "route",
        .spec = {64, (uint32_t)r.experts, (uint32_t)r.top_k, r.tile},
        .specs = 4,
        .bind = {nn_read_bind(n->in[0]), nn_write_bind(n->out[OUT_PROBABILITIES]), nn_write_bind(n->out[OUT_INDICES]),
                 nn_write_bind(n->out[OUT_WEIGHTS]), {partial.range, VK_WRITE}},
        .binds = 5,
        .push = push,
        .push_bytes = sizeof push,
        .groups = {r.tiles, (uint32_t)r.sequences, 1},
        .bytes = 8.0 * (double)nn_count(n->in[0]),
    }) && nn_routing_finish(x, n, &r, partial, false, 0);
}

static bool backward(nn_exec *x, const nn_node *n)
{
    nn_routing r = routing_of(n);
    bool accumulate;
    vk_bind dz = nn_din_bind(x, n->in[0], &accumulate);
    uint32_t push[] = {(uint32_t)r.tokens, (uint32_t)r.per_sequence};
    return vk_run(nn_device(x), &(vk_dispatch){
        .kernel = "route_backward",
        .spec = {64, (uint32_t)r.experts, (uint32_t)r.top_k, accumulate},
        .specs = 4,
        .bind = {nn_read_bind(n->in[0]), nn_read_bind(n->out[OUT_PROBABILITIES]), nn_read_bind(n->out[OUT_INDICES]),
                 nn_read_bind(n->out[OUT_WEIGHTS]), nn_read_bind(n->out[OUT_STATISTICS]),
                 nn_dout_bind(n->out[OUT_WEIGHTS]), nn_dout_bind(n->out[OUT_BALANCE]), nn_dout_bind(n->out[OUT_SECOND]),
                 {dz.range, VK_READ | VK_WRITE}},
        .binds = 9,
        .push = push,
        .push_bytes = sizeof push,
        .groups = {(uint32_t)((r.tokens + 63) / 64), 1, 1},
        .bytes = 16.0 * (double)nn_count(n->in[0]),
    });
}

/* ---- references ---------------------------------------------------------------------------------------------- */

static void ref_forward(const nn_ref *r)
{
    nn_routing g = routing_of(r->node);
    double *statistics = r->out[OUT_STATISTICS], square = 0, entropy = 0;
    for (int64_t t = 0; t < g.tokens; t++) {
        double *p = r->out[OUT_PROBABILITIES] + t * g.experts, *chosen = r->out[OUT_INDICES] + t * g.top_k, sum = 0;
        double lse = nn_ref_softmax(r->in[0] + t * g.experts, p, g.experts);
        square += lse * lse;
        for (int64_t e = 0; e < g.experts; e++)
            entropy -= p[e] * (p[e] > 0 ? log(p[e]) : 0);
        nn_ref_select(p, g.experts, g.top_k, chosen);
        for (int64_t k = 0; k < g.top_k; k++)
            sum += p[(int64_t)chosen[k]];
        for (int64_t k = 0; k < g.top_k; k++)
            r->out[OUT_WEIGHTS][t * g.top_k + k] = p[(int64_t)chosen[k]] / sum;
    }
    nn_ref_balance(r, &g);
    r->out[OUT_SECOND][0] = square / (double)g.tokens;
    r->out[OUT_ENTROPY][0] = entropy / (double)g.tokens;
    statistics[NN_STAT_ROUTER_ALL] = statistics[NN_STAT_ROUTER_WINNERS] = 0;
}

static void ref_backward(const nn_ref *r)
{
    nn_routing g = routing_of(r->node);
    nn_ref_balance_backward(r, &g, r->din[0]);
    for (int64_t t = 0; t < g.tokens; t++) {
        const double *z = r->in[0] + t * g.experts, *p = r->out[OUT_PROBABILITIES] + t * g.experts;
        const double *w = r->out[OUT_WEIGHTS] + t * g.top_k, *dw = r->dout[OUT_WEIGHTS] + t * g.top_k;
        double *dz = r->din[0] + t * g.experts, mean = 0;
        for (int64_t k = 0; k < g.top_k; k++)
            mean += w[k] * dw[k];
        for (int64_t k = 0; k < g.top_k; k++)
            dz[(int64_t)r->out[OUT_INDICES][t * g.top_k + k]] += w[k] * (dw[k] - mean);
        for (int64_t e = 0; e < g.experts; e++)
            dz[e] += r->dout[OUT_SECOND][0] * 2 * (z[e] - log(p[e])) * p[e] / (double)g.tokens;
    }
}

static double flops(const nn_node *n)
{
    return 30.0 * (double)nn_count(n->in[0]);
}

static const nn_case cases[] = {
    {.name = "E 4, K 2", .in = {{NN_F32, 3, {3, 65, 4}, NN_FILL_NORMAL}}, .params = &(const route_params){2}},
    {.name = "E 64, K 8, large logits",
     .in = {{NN_F32, 3, {2, 37, 64}, NN_FILL_NORMAL, .scale = 5}}, .params = &(const route_params){8}},
    {.name = "E 3, K 3, one sequence", .in = {{NN_F32, 2, {5, 3}, NN_FILL_NORMAL}}, .params = &(const route_params){3}},
    {.name = "E 256, K 1", .in = {{NN_F32, 3, {2, 9, 256}, NN_FILL_NORMAL}}, .params = &(const route_params){1}},
    {.name = "E 1, K 1", .in = {{NN_F32, 3, {1, 6, 1}, NN_FILL_NORMAL}}, .params = &(const route_params){1}},
    {.name = "[32, 64, 8], K 2",
     .in = {{NN_F32, 3, {32, 64, 8}, NN_FILL_NORMAL}}, .params = &(const route_params){2}, .bench = true},
    {.name = "[8, 2048, 64], K 4",
     .in = {{NN_F32, 3, {8, 2048, 64}, NN_FILL_NORMAL}}, .params = &(const route_params){4}, .bench = true},
};

const nn_op nn_op_route = {
    .name = "route",
    .ins = 1,
    .outs = ROUTING_OUTS,
    .keep_in = 1,
    .keep_out = 1 << OUT_PROBABILITIES | 1 << OUT_INDICES | 1 << OUT_WEIGHTS | 1 << OUT_STATISTICS,
    .aux_out = 1 << OUT_PROBABILITIES | 1 << OUT_LOAD | 1 << OUT_ENTROPY | 1 << OUT_STATISTICS,
    .param_bytes = sizeof(route_params),
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .ref_forward = ref_forward,
    .ref_backward = ref_backward,
    .flops = flops,
    .cases = cases,
    .case_count = sizeof cases / sizeof *cases,
};
