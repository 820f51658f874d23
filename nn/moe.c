#include "nn/moe.h"

#include <math.h>
#include <stdio.h>

#include "base/error.h"
#include "nn/ops.h"
#include "nn/router.h"

/* ---- configuration ------------------------------------------------------------------------------------------- */

static const nn_router *const routers[] = {&nn_router_competesmoe};
static const char *const router_names[] = {"competesmoe", NULL};

const char *const nn_ffn_names[] = {"gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu", NULL};
const char *const nn_affinity_names[] = {"softplus", "l2norm", "relu", "sigmoid", "silu", NULL};
static const char *const memory_names[] = {"store", "recompute", NULL};
const char *const nn_moe_loss_names[] = {"balance", "z", "router", "diversity"};

int nn_ffn_activation(enum nn_ffn_kind kind)
{
    static const int activation[] = {NN_GELU_ERF, NN_GELU_TANH, NN_QUICK_GELU, NN_RELU, NN_SILU};
    return activation[kind];
}

#define FIELD(key, type, min, max, fallback, doc, ...) \
    {#key, type, CS_MEMBER(nn_moe_config, key), min, max, fallback, doc, ##__VA_ARGS__}
const cs_field nn_moe_fields[] = {
    FIELD(experts, CS_INT, 0, NN_MAX_EXPERTS, "0", "experts in place of the feed-forward block; 0: a dense block"),
    FIELD(top_k, CS_INT, 1, NN_MAX_EXPERTS, "2", "experts that a token is sent to"),
    FIELD(hidden, CS_INT, 0, 1 << 20, "0", "inner width of an expert; 0: the dense block's"),
    FIELD(router, CS_ENUM, 0, 0, "\"competesmoe\"", "routing strategy", router_names),
    FIELD(affinity, CS_ENUM, 0, 0, "\"softplus\"",
          "score of an expert's output in competition: its L2 norm, or the mean of a function over it",
          nn_affinity_names),
    FIELD(hybrid, CS_BOOL, 0, 0, "false", "add the winners' term, times router_theta, to the router loss"),
    FIELD(competition_memory, CS_ENUM, 0, 0, "\"store\"",
          "what a competing step keeps for its backward pass: all experts' values, or only the winners' outputs and "
          "all affinities, evaluating the experts again, a chunk of them at a time",
          memory_names),
    FIELD(norm_sigmoid, CS_BOOL, 0, 0, "false", "mix winners by sigmoid(affinity) instead of affinity"),
    FIELD(router_theta, CS_FLOAT, 0, 1e6, "0.1", "weight of the hybrid term"),
    FIELD(balance_loss_coef, CS_FLOAT, 0, 1e6, "0.01", "weight of the gate's balance loss (routed steps)"),
    FIELD(router_z_loss_coef, CS_FLOAT, 0, 1e6, "0.001", "weight of the z-loss (routed steps)"),
    FIELD(router_loss_coef, CS_FLOAT, 0, 1e6, "0.01", "weight of the router loss (competing steps)"),
    FIELD(diversity_loss_coef, CS_FLOAT, 0, 1e6, "0.01", "weight of the diversity loss (competing steps)"),
    FIELD(bal_comp_loss_coef, CS_FLOAT, 0, 1e6, "0.01",
          "weight of the balance loss of the affinities (competing steps)"),
    FIELD(gate_std, CS_FLOAT, 0, 10, "0",
          "standard deviation of the gate's initial values; 0: uniform within 1 / sqrt(width)"),
};
const size_t nn_moe_field_count = sizeof nn_moe_fields / sizeof *nn_moe_fields;

/* ---- parameters ---------------------------------------------------------------------------------------------- */

enum { NAME_BYTES = 128 };

/* Weights [E, out, in], uniform within 1 / sqrt(in); biases [E, out], zero. */
static bool declare(nn_tensor **t, nn_params *set, const char *prefix, const char *name, const int64_t *shape, int dims)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.experts.%s", prefix, name);
    if (dims == 3)
        *t = nn_param_add(set, full, 3, shape, NN_INIT_UNIFORM, 1 / sqrtf((float)shape[2]), true);
    else
        *t = nn_param_add(set, full, 2, shape, NN_INIT_ZERO, 0, false);
    return *t;
}

static bool declare_experts(nn_moe *l, nn_params *set, const char *prefix)
{
    const int64_t up[] = {l->config.experts, l->config.hidden, l->in},
                  down[] = {l->config.experts, l->out, l->config.hidden};
    if (l->kind == NN_FFN_SWIGLU)
        return declare(&l->w1, set, prefix, "w1", up, 3) && declare(&l->w2, set, prefix, "w2", down, 3) &&
               declare(&l->w3, set, prefix, "w3", up, 3);
    return declare(&l->w1, set, prefix, "w1", up, 3) && declare(&l->b1, set, prefix, "b1", up, 2) &&
           declare(&l->w2, set, prefix, "w2", down, 3) && declare(&l->b2, set, prefix, "b2", down, 2);
}

bool nn_moe_gate_init(nn_moe *l, nn_params *set, const char *prefix)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.gate.weight", prefix);
    const int64_t shape[] = {l->config.experts, l->in};
    float std = l->config.gate_std;
    l->gate = nn_param_add(set, full, 2, shape, std > 0 ? NN_INIT_NORMAL : NN_INIT_UNIFORM,
                           std > 0 ? std : 1 / sqrtf((float)l->in), true);
    return l->gate;
}

bool nn_moe_init(nn_moe *l, nn_params *set, const char *prefix, const nn_moe_config *config, int64_t in, int64_t out,
                 enum nn_ffn_kind kind)
{
    *l = (nn_moe){.config = *config, .router = routers[config->router], .in = in, .out = out, .kind = kind};
    if (config->experts < 1 || config->experts > NN_MAX_EXPERTS)
        return cs_fail("%s: %d experts, 1 to %d are possible", prefix, config->experts, NN_MAX_EXPERTS);
    if (config->top_k < 1 || config->top_k > config->experts)
        return cs_fail("%s: top_k is %d, but there are %d experts", prefix, config->top_k, config->experts);
    if (config->hidden < 1)
        return cs_fail("%s: the experts' hidden width is %d", prefix, config->hidden);
    return l->router->init(l, set, prefix) && declare_experts(l, set, prefix);
}

/* ---- experts ------------------------------------------------------------------------------------------------- */

static nn_ffn_weights weights_of(const nn_moe *l)
{
    return (nn_ffn_weights){l->w1, l->b1, l->w2, l->b2, l->w3};
}

nn_tensor *nn_moe_experts_routed(nn_tape *tape, const nn_moe *l, nn_tensor *x, nn_tensor *indices, nn_tensor *weights)
{
    nn_ffn_weights w = weights_of(l);
    nn_plan plan;
    if (!nn_moe_plan(tape, indices, l->config.experts, &plan))
        return NULL;
    nn_tensor *ys = nn_grouped_ffn(tape, x, &w, (enum nn_activation)nn_ffn_activation(l->kind), &plan);
    return nn_moe_combine(tape, ys, weights, &plan);
}

bool nn_moe_compete(nn_tape *tape, const nn_moe *l, nn_tensor *x, nn_competition_result *out)
{
    nn_ffn_weights w = weights_of(l);
    const nn_moe_config *c = &l->config;
    return nn_competition(tape, x, &w,
                          (nn_competition_params){
                              .activation = nn_ffn_activation(l->kind),
                              .affinity = c->affinity,
                              .top_k = c->top_k,
                              .recompute = c->competition_memory == NN_COMPETITION_RECOMPUTE,
                          },
                          out);
}

/* ---- the layer ----------------------------------------------------------------------------------------------- */

bool nn_moe_forward(nn_tape *tape, const nn_moe *l, nn_tensor *x, bool training, bool compete, nn_moe_result *result)
{
    *result = (nn_moe_result){.competed = training && compete};
    if (x && nn_cols(x) != l->in)
        return cs_fail("mixture of experts: tokens of %lld columns, but its experts take %lld", (long long)nn_cols(x),
                       (long long)l->in);
    return x && l->router->forward(tape, l, x, training, result->competed, result) && result->output;
}

float nn_moe_coefficient(const nn_moe *l, int k, const nn_moe_result *result)
{
    return l->router->coefficient(l, k, result->competed);
}

bool nn_moe_has_loss(const nn_moe *l, int k, bool competed)
{
    return l->router->losses[competed] & 1u << k;
}
