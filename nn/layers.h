/* Layers: parameters with a forward function each. A layer is plain data; its tensors belong to the parameter set. */
#ifndef NN_LAYERS_H
#define NN_LAYERS_H

#include "nn/moe.h"
#include "nn/ops.h"

/* y = x w^T + b; b NULL = none. */
typedef struct nn_linear_layer {
    nn_tensor *w, *b;
} nn_linear_layer;

/* Declares `<prefix>.weight` [out, in], uniform within +-1/sqrt(in), and with `bias` `<prefix>.bias` [out], zero. */
bool nn_linear_init(nn_linear_layer *l, nn_params *set, const char *prefix, int64_t in, int64_t out, bool bias);
nn_tensor *nn_linear_forward(nn_tape *tape, const nn_linear_layer *l, nn_tensor *x);

/* LayerNorm, or RMSNorm where it has no bias. */
typedef struct nn_norm_layer {
    nn_tensor *gain, *bias;
    float eps;
} nn_norm_layer;

bool nn_norm_init(nn_norm_layer *l, nn_params *set, const char *prefix, int64_t width, bool rms, float eps);
nn_tensor *nn_norm_forward(nn_tape *tape, const nn_norm_layer *l, nn_tensor *x);

/* The residual stream between the blocks of a stack: its tensor, and what a block has yet to add to it (or NULL), which
 * the next norm does in its own pass. */
typedef struct nn_stream {
    nn_tensor *x, *addend;
} nn_stream;

/* Adds what is to be added and gives the norm of the sum. */
nn_tensor *nn_stream_norm(nn_tape *tape, const nn_norm_layer *l, nn_stream *s);
/* Adds what is to be added where no norm follows, and gives the stream's tensor. */
nn_tensor *nn_stream_sum(nn_tape *tape, nn_stream *s);

/* Feed-forward block: w2 act(w1 x + b1) + b2, or w2 (silu(w1 x) * (w3 x)) for NN_FFN_SWIGLU (no biases). */
typedef struct nn_mlp {
    enum nn_ffn_kind kind;
    nn_linear_layer up, down, gate; /* gate: w3, of SwiGLU only */
} nn_mlp;

bool nn_mlp_init(nn_mlp *l, nn_params *set, const char *prefix, int64_t in, int64_t hidden, int64_t out,
                 enum nn_ffn_kind kind);
nn_tensor *nn_mlp_forward(nn_tape *tape, const nn_mlp *l, nn_tensor *x);

/* A feed-forward block that is dense or, with moe.experts > 0, a mixture of experts. */
typedef struct nn_feed_forward {
    nn_mlp mlp;
    nn_moe moe;
    bool mixture;
} nn_feed_forward;

/* The experts' kind and, where moe->hidden is 0, their hidden width are the dense block's. */
bool nn_feed_forward_init(nn_feed_forward *l, nn_params *set, const char *prefix, int64_t in, int64_t hidden,
                          int64_t out, enum nn_ffn_kind kind, const nn_moe_config *moe);

/* What one pass through a stack of layers shares: who sees whom, and where mixtures report. */
typedef struct nn_pass_context {
    bool training;
    const nn_attention_params *attention;
    nn_tensor *segments;  /* [B, T] I32 or NULL */
    nn_tensor *positions; /* [B * T] I32 for rotary positions; NULL where the layers have none */
    int past, open;       /* with key/value caches: tokens already in them; length of the open prefix */
    /* Competition: whether the next mixture competes (in order of the layers), advanced by each; NULL = none does. */
    const uint8_t *compete;
    nn_moe_result *results; /* one per mixture, in order; room for all */
    int mixtures;           /* passed so far */
} nn_pass_context;

nn_tensor *nn_feed_forward_forward(nn_tape *tape, const nn_feed_forward *l, nn_tensor *x, nn_pass_context *c);

/* Shape of a pre-norm transformer block. */
typedef struct nn_block_config {
    int64_t width, hidden;
    int heads, kv_heads, head_dim;
    bool rms, bias; /* RMSNorm instead of LayerNorm; biases on the attention's projections */
    float eps;
    float rope_theta; /* 0 = no rotary positions */
    bool rope_interleaved;
    enum nn_ffn_kind ffn;
} nn_block_config;

/* x += out(attention(qkv(norm1 x))); x += ffn(norm2 x). */
typedef struct nn_block {
    nn_block_config config;
    nn_norm_layer norm1, norm2;
    nn_linear_layer qkv, out; /* queries, keys and values in one product */
    nn_feed_forward ffn;
} nn_block;

/* Declares the block's parameters under `prefix`; moe NULL or of 0 experts: a dense feed-forward block. */
bool nn_block_init(nn_block *l, nn_params *set, const char *prefix, const nn_block_config *config,
                   const nn_moe_config *moe);

/* The only rows that are wanted of a tensor with N rows. */
typedef struct nn_pick {
    nn_tensor *rows;    /* [R] I32, each at most once */
    nn_tensor *inverse; /* [N] I32: places in `rows`, -1 of those that are not in it */
    nn_tensor *slots;   /* [B, Q] I32: the same by sequence, as nn_attention_picked() has it; not used with a cache */
} nn_pick;

/* Takes the stream, x [B, T, width], through the block; the feed-forward block's output remains to be added. cache_k,
 * cache_v [room, kv_heads * head_dim] for generation (B = 1), else NULL. With `wanted` (NULL: all rows) the stream
 * comes out as [R, width]: what follows the attention works row by row and is left out elsewhere. Not in a block with a
 * mixture, whose losses are those of all rows: nn_block_picks(). */
void nn_block_forward(nn_tape *tape, const nn_block *l, nn_stream *s, nn_tensor *cache_k, nn_tensor *cache_v,
                      const nn_pick *wanted, nn_pass_context *c);
bool nn_block_picks(const nn_block *l);

#endif
