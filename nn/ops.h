/* The operators as functions. Each appends one node; shapes in brackets; see nn/nn.h for the error rule. */
#ifndef NN_OPS_H
#define NN_OPS_H

#include "nn/nn.h"

/* ---- matrix products (nn/op_linear.c, nn/gemm.h) ---- */
/* y [..., N] = x [..., K] w[N, K]^T + b[N]; b may be NULL. */
nn_tensor *nn_linear(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b);
/* The same with y in F32, and w not rounded, whatever the tape's precision: scores. */
nn_tensor *nn_linear_f32(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *b);

/* ---- feed-forward (nn/op_ffn.c) ---- */
enum nn_activation { NN_GELU_ERF, NN_GELU_TANH, NN_QUICK_GELU, NN_SILU, NN_RELU };
/* w1, w3 [hidden, in], w2 [out, hidden], b1 [hidden], b2 [out], of stacked experts with E in front. Biases may be NULL;
 * with w3 the block is gated. */
typedef struct nn_ffn_weights {
    nn_tensor *w1, *b1, *w2, *b2, *w3;
} nn_ffn_weights;
/* y [..., out] = w2 act(w1 x + b1) + b2, or gated w2 (act(w1 x + b1) * (w3 x)) + b2; x [..., in]. */
nn_tensor *nn_feed_forward_block(nn_tape *tape, nn_tensor *x, const nn_ffn_weights *w, enum nn_activation activation);

/* ---- elementwise (nn/op_activation.c, nn/op_add.c) ---- */
nn_tensor *nn_activate(nn_tape *tape, nn_tensor *x, enum nn_activation kind);
/* act(a) * b: SwiGLU with NN_SILU. */
nn_tensor *nn_gated(nn_tape *tape, nn_tensor *a, nn_tensor *b, enum nn_activation kind);
/* The same values as another float type (nn/op_cast.c); x itself where it has that type. */
nn_tensor *nn_cast(nn_tape *tape, nn_tensor *x, enum nn_dtype type);
nn_tensor *nn_add(nn_tape *tape, nn_tensor *a, nn_tensor *b);
/* x [..., P, C] + rows [P, C] broadcast over the leading dimensions (learned positions). */
nn_tensor *nn_add_rows(nn_tape *tape, nn_tensor *x, nn_tensor *rows);

/* ---- rows (nn/op_norm.c, nn/op_softmax.c, nn/op_rope.c) ---- */
nn_tensor *nn_rms_norm(nn_tape *tape, nn_tensor *x, nn_tensor *gain, float eps);
nn_tensor *nn_layer_norm(nn_tape *tape, nn_tensor *x, nn_tensor *gain, nn_tensor *bias, float eps);
/* The norm of sum = x + y, in one pass over both. */
nn_tensor *nn_add_rms_norm(nn_tape *tape, nn_tensor *x, nn_tensor *y, nn_tensor *gain, float eps, nn_tensor **sum);
nn_tensor *nn_add_layer_norm(nn_tape *tape, nn_tensor *x, nn_tensor *y, nn_tensor *gain, nn_tensor *bias, float eps,
                             nn_tensor **sum);
nn_tensor *nn_softmax(nn_tape *tape, nn_tensor *x);
/* Largest k of each row in descending order, lowest index first among equals: values [..., k] and indices [..., k] I32.
 */
bool nn_top_k(nn_tape *tape, nn_tensor *x, int k, nn_tensor **values, nn_tensor **indices);
/* Rotary positions on the first `heads` heads of width `head_dim` of each row of x [R, C] (queries and keys of a fused
 * projection; the rest is copied); positions [R] I32. interleaved: pairs (2i, 2i+1) as in llama2.c, else (i, i +
 * head_dim/2). */
nn_tensor *nn_rope(nn_tape *tape, nn_tensor *x, nn_tensor *positions, int heads, int head_dim, float theta,
                   bool interleaved);

/* ---- attention (nn/op_attention.c) ---- */
typedef struct nn_attention_params {
    int heads, kv_heads, head_dim; /* heads a multiple of kv_heads */
    bool causal;                   /* key j visible to query i only if j <= i ... */
    bool open_prefix;              /* ... except that tokens of segment 0 see all of segment 0 */
    float scale;                   /* 0 = 1/sqrt(head_dim) */
} nn_attention_params;
/* qkv [B, T, (heads + 2 kv_heads) head_dim] (queries, keys, values side by side); segments [B, T] I32 or NULL (all 0):
 * a key is visible if its segment is 0 or equals the query's; tokens of segment -1 are padding: neither seen nor
 * computed (output 0). Gives [B, T, heads head_dim]; tiles of scores only, backward recomputes them from the row sums.
 */
nn_tensor *nn_attention(nn_tape *tape, nn_tensor *qkv, nn_tensor *segments, nn_attention_params params);
/* The same for the queries of some rows only: `rows` [R] I32, of B * T, each at most once. picks [B, Q] I32: for every
 * sequence the places in `rows` of those that are its own, in any order and with -1 in slots that are left. Gives
 * [R, heads head_dim]. */
nn_tensor *nn_attention_picked(nn_tape *tape, nn_tensor *qkv, nn_tensor *segments, nn_tensor *rows, nn_tensor *picks,
                               nn_attention_params params);
/* Generation: qkv [N, ...] of N new tokens at positions past..past+N-1 of one sequence; their keys and values are
 * written to cache_k, cache_v [T, kv_heads head_dim] (nn_external) and the queries attend causally to all up to
 * themselves; tokens before `open` see each other freely (picture prefix; 0 = none). No gradient. */
nn_tensor *nn_attention_cached(nn_tape *tape, nn_tensor *qkv, nn_tensor *cache_k, nn_tensor *cache_v,
                               nn_attention_params params, int past, int open);

/* ---- tables and rows by index (nn/op_embedding.c, nn/op_gather.c) ---- */
/* Host-made index for the backward pass of a table look-up: positions sorted by row, so that each row's gradient is
 * summed in a fixed order by one workgroup. `index` [n + 2*(n+1)] I32 (entries of negative ids are left out): sorted
 * positions [n], then start of each distinct id [n+1], then the distinct ids [n+1], unused entries -1. */
void nn_embedding_index(const int32_t *ids, int64_t n, int32_t *index);
/* y [n, C]: row ids[i] of table [V, C], or where ids[i] < 0 row -1-ids[i] of features [F, C] (NULL: none may be
 * negative); every features row is used at most once. ids [n] I32; index [3n+2] from nn_embedding_index() over ids;
 * places [F] I32: the i that uses each features row, -1 = unused (NULL without features). */
nn_tensor *nn_embedding(nn_tape *tape, nn_tensor *table, nn_tensor *ids, nn_tensor *index, nn_tensor *features,
                        nn_tensor *places);
/* y [m, C] = rows rows[i] of x [n, C]; each row at most once; inverse [n] I32: the i of each row of x, or -1. */
nn_tensor *nn_gather_rows(nn_tape *tape, nn_tensor *x, nn_tensor *rows, nn_tensor *inverse);

/* ---- losses and reductions (nn/op_cross_entropy.c, nn/op_reduce.c) ---- */
/* loss [1] = scale * sum over rows of -log softmax(logits)[label], rows with label < 0 ignored; best [rows] I32 =
 * argmax (lowest index first); labels [rows] I32. best may be NULL. */
nn_tensor *nn_cross_entropy(nn_tape *tape, nn_tensor *logits, nn_tensor *labels, float scale, nn_tensor **best);
/* The same of the logits x [rows, K] w[V, K]^T, in F32 whatever the tape's precision. More than `chunk` logits a row
 * are never in memory: they are computed chunk by chunk, twice, with their share of the products. */
nn_tensor *nn_linear_cross_entropy(nn_tape *tape, nn_tensor *x, nn_tensor *w, nn_tensor *labels, float scale,
                                   int64_t chunk, nn_tensor **best);
enum nn_reduction { NN_SUM, NN_MEAN, NN_SUM_SQUARES };
/* [1]; two passes in fixed order. */
nn_tensor *nn_reduce(nn_tape *tape, nn_tensor *x, enum nn_reduction kind);

#endif
