/* Operators of the mixture-of-experts layer; the rules of nn/ops.h apply. Sections are those of the CompeteSMoE
 * specification. B sequences of N tokens, T = B N; E experts (at most 256), K of them chosen per token. */
#ifndef NN_MOE_OPS_H
#define NN_MOE_OPS_H

#include "nn/ops.h"

enum { NN_MAX_EXPERTS = 256 };

/* ---- routing (nn/op_route.c, nn/op_compete.c, nn/op_competition.c) ---- */

/* What a routing operator gives. Gradients flow from weights, balance and second. */
typedef struct nn_routing_result {
    nn_tensor *probabilities; /* [B, N, E]: softmax of the scores that were ranked */
    nn_tensor *indices;       /* [B, N, K] I32: chosen experts, best first */
    nn_tensor *weights;       /* [B, N, K]: mixing weights */
    nn_tensor *balance;       /* [1]: balance loss of the probabilities, first choices only (3.1) */
    nn_tensor *second;        /* [1]: z-loss (route) or router loss (compete) */
    nn_tensor *load;          /* [E]: each expert's share of all choices */
    nn_tensor *entropy;       /* [1]: mean entropy of softmax(z), nats */
    nn_tensor *statistics;    /* [2 + B E]: see enum */
} nn_routing_result;

/* Where the statistics lie. */
enum {
    NN_STAT_ROUTER_ALL,     /* compete: mean over all experts of (p - q)^2 */
    NN_STAT_ROUTER_WINNERS, /* compete: the same over the winners */
    NN_STAT_FIRST,          /* [B, E]: share of a sequence's tokens whose first choice it is */
};

/* Router mode (2.2): p = softmax(z) of logits z [B, N, E] (or [N, E]: one sequence), the K largest p (lowest index
 * first among equals), weights p_k / sum p; z-loss. */
bool nn_route(nn_tape *tape, nn_tensor *z, int top_k, nn_routing_result *out);

typedef struct nn_compete_params {
    int32_t top_k;
    int32_t norm_sigmoid; /* mix by sigmoid(s) instead of s (2.3) */
    float theta;          /* of the hybrid router loss; 0 = not hybrid */
} nn_compete_params;

/* Competition (2.3): q = softmax(s) of affinities s [B, N, E], winners by s, weights s_k / sum s; router loss of
 * the gate's p = softmax(z) against the detached q, balance loss of q. */
bool nn_compete(nn_tape *tape, nn_tensor *z, nn_tensor *s, nn_compete_params params, nn_routing_result *out);

enum nn_affinity_kind {
    NN_AFFINITY_SOFTPLUS,
    NN_AFFINITY_L2NORM,
    NN_AFFINITY_RELU,
    NN_AFFINITY_SIGMOID,
    NN_AFFINITY_SILU,
    NN_AFFINITY_KINDS,
};

typedef struct nn_competition_params {
    int32_t activation; /* enum nn_activation */
    int32_t affinity;   /* enum nn_affinity_kind */
    int32_t top_k;
    int32_t recompute; /* keep nothing of the experts but affinities and winners; evaluate them again in backward */
    int32_t chunk;     /* experts evaluated at a time where recomputing; 0: a quarter of them, or less */
} nn_competition_params;

typedef struct nn_competition_result {
    nn_tensor *affinities; /* [T, E] */
    nn_tensor *winners;    /* [T, K, C]: outputs of the K experts of the largest affinity, best first */
    nn_tensor *outputs;    /* [E, T, C] of all experts; no gradient; NULL where recomputed */
} nn_competition_result;

/* Every expert's output for every token of x [.., in], each evaluated once, and the winners (2.3). The weights are
 * stacked: w1 [E, hidden, in] and so on. */
bool nn_competition(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, nn_competition_params params,
                    nn_competition_result *out);

/* Diversity loss [1] (3.1) of the winners' outputs y [T, K, C]. */
nn_tensor *nn_diversity(nn_tape *tape, nn_tensor *y);

/* ---- dispatch (nn/op_plan.c, nn/op_ffn.c, nn/op_combine.c) ---- */

typedef struct nn_plan {
    nn_tensor *offsets; /* [E + 1] I32: where each expert's rows begin */
    nn_tensor *rows;    /* [T K] I32: token of each sorted row */
    nn_tensor *places;  /* [T, K] I32: sorted row of each (token, choice) */
} nn_plan;

/* Stable counting sort of indices [.., K] by expert; all on the device. */
bool nn_moe_plan(nn_tape *tape, nn_tensor *indices, int experts, nn_plan *out);
/* [T K, out]: the experts' outputs of the sorted rows; x [.., in] with T rows, weights stacked as in
 * nn_competition(). */
nn_tensor *nn_grouped_ffn(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, enum nn_activation activation,
                          const nn_plan *plan);
/* [.., C]: sum over k of weights [.., K] times the sorted rows ys [T K, C], or without a plan times ys [T, K, C]. */
nn_tensor *nn_moe_combine(nn_tape *tape, nn_tensor *ys, nn_tensor *weights, const nn_plan *plan);

#endif
