/* The mixture-of-experts layer of CompeteSMoE (specification 1-3, 5): stacked experts, a routing strategy, and the
 * losses that train it. */
#ifndef NN_MOE_H
#define NN_MOE_H

#include "base/config.h"
#include "nn/moe_ops.h"
#include "nn/nn.h"

/* Kinds of feed-forward block, dense or expert (1.1): w2 act(w1 x + b1) + b2, or gated w2 (silu(w1 x) * (w3 x)). */
enum nn_ffn_kind { NN_FFN_GELU, NN_FFN_GELU_TANH, NN_FFN_QUICK_GELU, NN_FFN_RELU, NN_FFN_SWIGLU };
extern const char *const nn_ffn_names[]; /* NULL-ended */
/* enum nn_activation of a kind that is not gated. */
int nn_ffn_activation(enum nn_ffn_kind kind);

/* What a competing step keeps for its backward pass. */
enum nn_competition_memory { NN_COMPETITION_STORE, NN_COMPETITION_RECOMPUTE };

typedef struct nn_moe_config {
    int experts;  /* 0 = dense */
    int top_k;
    int hidden;   /* of an expert; 0 = as the dense block */
    int router;   /* index into nn_router_names */
    int affinity; /* enum nn_affinity_kind */
    int competition_memory; /* enum nn_competition_memory */
    bool hybrid, norm_sigmoid;
    float router_theta;
    float balance_loss_coef, router_z_loss_coef, router_loss_coef, diversity_loss_coef, bal_comp_loss_coef;
    float gate_std; /* of the gate's initial normal values; 0 = uniform within 1 / sqrt(in) */
} nn_moe_config;

extern const char *const nn_affinity_names[]; /* NULL-ended */
/* The configuration keys of the struct. */
extern const cs_field nn_moe_fields[];
extern const size_t nn_moe_field_count;

/* Losses that a layer can report. */
enum nn_moe_loss { NN_MOE_BALANCE, NN_MOE_Z, NN_MOE_ROUTER, NN_MOE_DIVERSITY, NN_MOE_LOSSES };
extern const char *const nn_moe_loss_names[];

/* Plain data; the tensors belong to the parameter set. */
typedef struct nn_moe {
    nn_moe_config config;
    const struct nn_router *router;
    int64_t in, out;
    enum nn_ffn_kind kind;
    nn_tensor *gate;                    /* [E, in] */
    nn_tensor *w1, *b1, *w2, *b2, *w3;  /* [E, hidden, in], [E, hidden], [E, out, hidden], [E, out], [E, hidden, in] */
} nn_moe;

typedef struct nn_moe_result {
    nn_tensor *output;              /* x's shape with `out` columns */
    nn_tensor *loss[NN_MOE_LOSSES]; /* scalars [1], unweighted; NULL where this mode has none */
    bool competed;
    nn_tensor *load, *entropy;      /* for the log: [E] and [1], see nn_routing_result */
    /* For whoever looks closer: gate logits, what the routing operator gave (losses also outside training), and in
     * competition the affinities and, where they are stored, the outputs of all experts [E, T, out]. */
    nn_tensor *logits, *expert_outputs, *affinities;
    nn_routing_result routing;
} nn_moe_result;

/* Declares `<prefix>.experts.w1`, b1, w2, b2 (or w1, w2, w3 where gated) and the router's parameters. */
bool nn_moe_init(nn_moe *l, nn_params *set, const char *prefix, const nn_moe_config *config, int64_t in, int64_t out,
                 enum nn_ffn_kind kind);
/* x [B, N, in] -> output [B, N, out]. Competition needs `training`; without it there are no losses (5). */
bool nn_moe_forward(nn_tape *tape, const nn_moe *l, nn_tensor *x, bool training, bool compete, nn_moe_result *result);
/* Weight of loss k in the layer's total (3.2). */
float nn_moe_coefficient(const nn_moe *l, int k, const nn_moe_result *result);
/* Whether a training step computes loss k. */
bool nn_moe_has_loss(const nn_moe *l, int k, bool competed);

#endif
