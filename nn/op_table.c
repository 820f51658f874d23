/* The operator table: selftest, unit tests and benchmark walk it. A new operator is one row here and its declaration in
 * nn/op_table.h, in the order of the alphabet. */
#include "nn/op_table.h"

#include <string.h>

const nn_op *const nn_op_table[] = {
    &nn_op_activation,
    &nn_op_add,
    &nn_op_add_layer_norm,
    &nn_op_add_rms_norm,
    &nn_op_add_rows,
    &nn_op_attention,
    &nn_op_attention_cached,
    &nn_op_cast,
    &nn_op_compete,
    &nn_op_competition,
    &nn_op_cross_entropy,
    &nn_op_diversity,
    &nn_op_embedding,
    &nn_op_ffn,
    &nn_op_gated,
    &nn_op_gather_rows,
    &nn_op_grouped_ffn,
    &nn_op_layer_norm,
    &nn_op_linear,
    &nn_op_linear_cross_entropy,
    &nn_op_moe_combine,
    &nn_op_moe_plan,
    &nn_op_reduce,
    &nn_op_rms_norm,
    &nn_op_rope,
    &nn_op_route,
    &nn_op_softmax,
    &nn_op_top_k,
    NULL,
};

const int nn_op_count = sizeof nn_op_table / sizeof *nn_op_table - 1;

const nn_op *nn_op_find(const char *name)
{
    for (int i = 0; i < nn_op_count; i++)
        if (!strcmp(nn_op_table[i]->name, name))
            return nn_op_table[i];
    return NULL;
}
