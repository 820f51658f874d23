/* Feed-forward blocks on device memory, forward and backward: y = w2 act(w1 x + b1) + b2, or gated y = w2 (act(w1 x)
 * (w3 x)). One block, or one of each expert: grouped, where each row belongs to one expert, or by expert, where every
 * expert sees every row. For operators. */
#ifndef NN_FFN_H
#define NN_FFN_H

#include "nn/nn.h"

typedef struct nn_ffn_shape {
    int activation; /* enum nn_activation */
    bool gated;
    uint32_t experts; /* 0: one block, whose weights have no leading dimension */
    uint32_t tokens;  /* rows of x */
    uint32_t rows;    /* tokens, or where grouped, rows of all experts together */
    uint32_t in, hidden, out;
    enum nn_dtype hidden_type, out_type; /* of u, v and h; of y; and of their gradients */
} nn_ffn_shape;

typedef struct nn_ffn {
    nn_ffn_shape shape;
    /* w1, w3 [E, hidden, in], w2 [E, out, hidden], b1 [E, hidden], b2 [E, out] of f32; no biases where absent. */
    nn_operand x, w1, w2, w3;
    vk_range b1, b2;
    /* Grouped: rows offsets[e] .. offsets[e+1]-1 belong to expert e, offsets [E+1] I32, and row i is row tokens[i] of x
     * (none: row i). None: by expert. */
    vk_range offsets, tokens;
    /* What the backward pass needs, [rows, hidden] or by expert [E, rows, hidden]: u = w1 x + b1, where gated v = w3 x,
     * and h = act(u) or act(u) v. */
    vk_range u, v, h;
    /* None, or memory for sums over each four columns of y of the terms of `affinity` (enum nn_affinity_kind), f32
     * [rows, out / 4] or by expert [E, rows, out / 4]. */
    vk_range sums;
    int affinity;
} nn_ffn;

/* Makes products activate what they make on CPU drivers too, as they do on GPUs, so that a test reaches both ways on
 * one device. */
void nn_ffn_prefer_fused(bool prefer);

/* Rows of u, h and y. */
uint64_t nn_ffn_rows(const nn_ffn *f);

/* Records y [rows, out] or by expert [E, rows, out]; u and v may be none where no backward pass follows. */
bool nn_ffn_forward(vk_device *device, const nn_ffn *f, vk_range y);

/* Where a gradient goes; none: not wanted. */
typedef struct nn_ffn_gradient {
    vk_range to;
    enum nn_dtype type;
    bool accumulate;
} nn_ffn_gradient;

typedef struct nn_ffn_gradients {
    nn_ffn_gradient x; /* grouped: of every row, [rows, in]; by expert: the experts' sum */
    nn_ffn_gradient w1, b1, w2, b2, w3; /* of biases: f32 */
} nn_ffn_gradients;

/* Memory like u, v and h for their gradients; may be the same, whose values are then lost. dv where gated. */
typedef struct nn_ffn_work {
    vk_range du, dv, dh;
} nn_ffn_work;

/* Records the gradients from dy, shaped like y. */
bool nn_ffn_backward(vk_device *device, const nn_ffn *f, vk_range dy, const nn_ffn_work *work,
                     const nn_ffn_gradients *to);

/* ---- for operators with inputs x, w1, b1, w2, b2, w3 ---- */

enum { NN_FFN_X, NN_FFN_W1, NN_FFN_B1, NN_FFN_W2, NN_FFN_B2, NN_FFN_W3, NN_FFN_INS };
enum { NN_FFN_OPTIONAL = 1 << NN_FFN_B1 | 1 << NN_FFN_B2 | 1 << NN_FFN_W3 };

enum { NN_FFN_HALF_IN = 1 << NN_FFN_X | 1 << NN_FFN_W1 | 1 << NN_FFN_W2 | 1 << NN_FFN_W3 };

/* Checks types, dimensions and sizes and fills `shape`, with every token as one row. */
bool nn_ffn_check(const nn_node *n, int activation, bool stacked, nn_ffn_shape *shape);
/* Whether any of these inputs wants a gradient. */
bool nn_ffn_trains(const nn_node *n);
/* The block over the inputs' values; u, v, h, offsets and tokens are the operator's. */
nn_ffn nn_ffn_of(const nn_node *n, const nn_ffn_shape *shape);
/* The inputs' gradients, in the order in which nn_ffn_backward() writes them. */
nn_ffn_gradients nn_ffn_take_gradients(nn_exec *x, const nn_node *n);
/* The memory of an output that backward no longer needs, or scratch memory where somebody keeps its values. */
vk_range nn_ffn_reuse(nn_exec *x, const nn_tensor *t);

/* ---- references, in double ---- */

typedef struct nn_ffn_ref {
    nn_ffn_shape shape;
    const double *w1, *b1, *w2, *b2, *w3;
    double *dw1, *db1, *dw2, *db2, *dw3; /* added to; NULL: not wanted */
} nn_ffn_ref;

nn_ffn_ref nn_ffn_ref_of(const nn_ref *r, const nn_ffn_shape *shape);
/* One row of expert e: u [hidden], v [hidden] where gated, h [hidden], y [out]. */
void nn_ffn_ref_forward(const nn_ffn_ref *f, int64_t e, const double *x, double *u, double *v, double *h, double *y);
/* Adds to the gradients of the weights and to dx (NULL: not wanted). */
void nn_ffn_ref_backward(const nn_ffn_ref *f, int64_t e, const double *x, const double *u, const double *v,
                         const double *h, const double *dy, double *dx);

#endif
