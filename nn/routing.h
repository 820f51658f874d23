/* What the operators route and compete share: their outputs' shapes, tiles, the pass that finishes their losses,
 * and the references. */
#ifndef NN_ROUTING_H
#define NN_ROUTING_H

#include "nn/nn.h"

/* Outputs of both operators, in this order (nn_routing_result). */
enum { OUT_PROBABILITIES, OUT_INDICES, OUT_WEIGHTS, OUT_BALANCE, OUT_SECOND, OUT_LOAD, OUT_ENTROPY, OUT_STATISTICS,
       ROUTING_OUTS };

typedef struct nn_routing {
    int64_t sequences, per_sequence, tokens, experts, top_k;
    uint32_t tile, tiles; /* tokens of a workgroup, tiles of a sequence */
} nn_routing;

/* From scores [B, N, E] or [N, E]. */
nn_routing nn_routing_of(const nn_tensor *scores, int64_t top_k);
/* Checks in[0] and the sizes, fills the shapes of all outputs. */
bool nn_routing_infer(nn_node *n, int64_t top_k);
/* Memory for the tiles' partial sums. */
vk_bind nn_routing_partial(nn_exec *x, const nn_routing *r);
/* The last pass, common to both: partial sums to losses and statistics. */
bool nn_routing_finish(nn_exec *x, const nn_node *n, const nn_routing *r, vk_bind partial, bool compete, float theta);

/* ---- references, in double ---- */

/* out = softmax of `count` numbers; returns the logarithm of the sum of exponentials. */
double nn_ref_softmax(const double *in, double *out, int64_t count);
/* The largest `top_k` of `count` scores, best first, lowest index first among equals. */
void nn_ref_select(const double *scores, int64_t count, int64_t top_k, double *indices);
/* Balance loss, load and first choices from probabilities and indices in r->out. */
void nn_ref_balance(const nn_ref *r, const nn_routing *g);
/* Adds to `d_scores` what the balance loss contributes through the softmax. */
void nn_ref_balance_backward(const nn_ref *r, const nn_routing *g, double *d_scores);

#endif
