/* Routing strategies. A strategy is one file nn/router_NAME.c with one nn_router, and a row in nn/moe.c: it
 * declares its own parameters and turns x into the layer's result with the parts below and the operators of
 * nn/moe_ops.h. */
#ifndef NN_ROUTER_H
#define NN_ROUTER_H

#include "nn/moe.h"

typedef struct nn_router {
    const char *name;
    /* Declares the parameters besides the experts' and checks the configuration. */
    bool (*init)(nn_moe *l, nn_params *set, const char *prefix);
    /* Fills the zeroed `result`; x [B, N, in] or [T, in]. `compete` implies `training`. */
    bool (*forward)(nn_tape *tape, const nn_moe *l, nn_tensor *x, bool training, bool compete, nn_moe_result *result);
    /* Weight of loss k at a routed or competing step. */
    float (*coefficient)(const nn_moe *l, int k, bool competed);
    uint32_t losses[2]; /* bit k: a routed [0], competing [1] training step computes loss k */
} nn_router;

extern const nn_router nn_router_competesmoe;

/* Sparse path: sorts the chosen (token, expert) pairs by expert, evaluates each once, mixes. Memory grows with the
 * routed rows. x's shape with `out` columns. */
nn_tensor *nn_moe_experts_routed(nn_tape *tape, const nn_moe *l, nn_tensor *x, nn_tensor *indices, nn_tensor *weights);
/* Every expert for every token, and the winners. */
bool nn_moe_compete(nn_tape *tape, const nn_moe *l, nn_tensor *x, nn_competition_result *out);
/* Declares `<prefix>.gate.weight` [experts, in] as gate_std says. */
bool nn_moe_gate_init(nn_moe *l, nn_params *set, const char *prefix);

#endif
