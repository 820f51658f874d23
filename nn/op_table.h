/* The operators' rows; each is defined beside its kernels' recording code in nn/op_*.c. */
#ifndef NN_OP_TABLE_H
#define NN_OP_TABLE_H

#include "nn/nn.h"

extern const nn_op nn_op_activation;
extern const nn_op nn_op_add;
extern const nn_op nn_op_add_layer_norm;
extern const nn_op nn_op_add_rms_norm;
extern const nn_op nn_op_add_rows;
extern const nn_op nn_op_attention;
extern const nn_op nn_op_attention_cached;
extern const nn_op nn_op_cast;
extern const nn_op nn_op_compete;
extern const nn_op nn_op_competition;
extern const nn_op nn_op_cross_entropy;
extern const nn_op nn_op_diversity;
extern const nn_op nn_op_embedding;
extern const nn_op nn_op_ffn;
extern const nn_op nn_op_gated;
extern const nn_op nn_op_gather_rows;
extern const nn_op nn_op_grouped_ffn;
extern const nn_op nn_op_layer_norm;
extern const nn_op nn_op_linear;
extern const nn_op nn_op_linear_cross_entropy;
extern const nn_op nn_op_moe_combine;
extern const nn_op nn_op_moe_plan;
extern const nn_op nn_op_reduce;
extern const nn_op nn_op_rms_norm;
extern const nn_op nn_op_rope;
extern const nn_op nn_op_route;
extern const nn_op nn_op_softmax;
extern const nn_op nn_op_top_k;

#endif
