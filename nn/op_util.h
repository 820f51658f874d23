/* Checks and shapes that the operators' infer functions share. Errors name the operator and the operand. */
#ifndef NN_OP_UTIL_H
#define NN_OP_UTIL_H

#include "nn/nn.h"

bool nn_same_shape(const nn_tensor *a, const nn_tensor *b);
/* `t` is of a float type. */
bool nn_expect_values(const char *op, const char *name, const nn_tensor *t);
/* `t` is F32. */
bool nn_expect_floats(const char *op, const char *name, const nn_tensor *t);
/* `t` is F32 with `count` elements. */
bool nn_expect_row(const char *op, const char *name, const nn_tensor *t, int64_t count);
/* `t` is I32 with `count` elements. */
bool nn_expect_integers(const char *op, const char *name, const nn_tensor *t, int64_t count);
/* `a` and `b` are of float types and of one shape. */
bool nn_expect_alike(const char *op, const char *a_name, const nn_tensor *a, const char *b_name, const nn_tensor *b);
/* Type of an output that feeds products: the node's precision, or F32 where rows of `cols` do not suit 16 bits. */
enum nn_dtype nn_product_type(const nn_node *n, int64_t cols);
/* Gives an output the dtype and shape of `t`. */
void nn_shape_like(nn_tensor *out, const nn_tensor *t);
/* "[2, 3, 64]" for messages; at most 96 bytes. */
typedef struct nn_shape_text {
    char text[96];
} nn_shape_text;
nn_shape_text nn_shape_string(const nn_tensor *t);

/* Backward of an elementwise operator whose kernel writes the gradients of inputs 0 and 1 (or of input 0 alone) at
 * once. `flags` tells the kernel which are wanted and which add to what is there. Where both are the same memory (one
 * tensor given twice) they are launched one after the other. */
enum { NN_WANT_A = 1, NN_ADD_A = 2, NN_WANT_B = 4, NN_ADD_B = 8 };
typedef bool (*nn_pair_launch)(nn_exec *x, const nn_node *n, vk_bind da, vk_bind db, uint32_t flags);
bool nn_pair_backward(nn_exec *x, const nn_node *n, nn_pair_launch launch);

/* Backward of a sum (nn/op_add.c): the gradient of `in` is that of `out`, handed on where it can be, else cast or
 * added. */
bool nn_pass_gradient(nn_exec *x, const nn_tensor *out, nn_tensor *in);

#endif
