/* CompeteSMoE (arXiv 2505.13380; specification 2, 3): a softmax top-k gate, and steps at which all experts compete
 * by their outputs and the gate learns to predict the winners. */
#include "nn/ops.h"
#include "nn/router.h"

static bool route(nn_tape *tape, const nn_moe *l, nn_tensor *x, bool training, nn_moe_result *r)
{
    if (!nn_route(tape, r->logits, l->config.top_k, &r->routing))
        return false;
    r->output = nn_moe_experts_routed(tape, l, x, r->routing.indices, r->routing.weights);
    if (training) {
        r->loss[NN_MOE_BALANCE] = r->routing.balance;
        r->loss[NN_MOE_Z] = r->routing.second;
    }
    return true;
}

/* Each expert is evaluated once; affinities, winners' outputs and diversity share that evaluation. */
static bool compete(nn_tape *tape, const nn_moe *l, nn_tensor *x, nn_moe_result *r)
{
    const nn_moe_config *c = &l->config;
    const nn_compete_params params = {c->top_k, c->norm_sigmoid, c->hybrid ? c->router_theta : 0};
    nn_competition_result experts;
    if (!nn_moe_compete(tape, l, x, &experts))
        return false;
    r->expert_outputs = experts.outputs;
    r->affinities = r->logits ? nn_reshape(tape, experts.affinities, r->logits->dims, r->logits->shape) : NULL;
    if (!nn_compete(tape, r->logits, r->affinities, params, &r->routing))
        return false;
    r->loss[NN_MOE_BALANCE] = r->routing.balance;
    r->loss[NN_MOE_ROUTER] = r->routing.second;
    r->loss[NN_MOE_DIVERSITY] = nn_diversity(tape, experts.winners);
    r->output = nn_moe_combine(tape, experts.winners, r->routing.weights, NULL);
    return r->loss[NN_MOE_DIVERSITY];
}

static bool forward(nn_tape *tape, const nn_moe *l, nn_tensor *x, bool training, bool competing, nn_moe_result *r)
{
    r->logits = nn_linear_f32(tape, x, l->gate, NULL);
    bool ok = competing ? compete(tape, l, x, r) : route(tape, l, x, training, r);
    r->load = r->routing.load;
    r->entropy = r->routing.entropy;
    return ok;
}

static float coefficient(const nn_moe *l, int k, bool competed)
{
    const nn_moe_config *c = &l->config;
    switch (k) {
    case NN_MOE_BALANCE: return competed ? c->bal_comp_loss_coef : c->balance_loss_coef;
    case NN_MOE_Z: return c->router_z_loss_coef;
    case NN_MOE_ROUTER: return c->router_loss_coef;
    default: return c->diversity_loss_coef;
    }
}

const nn_router nn_router_competesmoe = {
    .name = "competesmoe",
    .init = nn_moe_gate_init,
    .forward = forward,
    .coefficient = coefficient,
    .losses = {1 << NN_MOE_BALANCE | 1 << NN_MOE_Z, 1 << NN_MOE_BALANCE | 1 << NN_MOE_ROUTER | 1 << NN_MOE_DIVERSITY},
};
