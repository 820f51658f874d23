#include "nn/layers.h"

#include <math.h>
#include <stdio.h>

#include "nn/attention_internal.h"

enum { NAME_BYTES = 160 };

static nn_tensor *add(nn_params *set, const char *prefix, const char *name, int dims, const int64_t *shape,
                      enum nn_init init, float scale, bool decay)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return nn_param_add(set, full, dims, shape, init, scale, decay);
}

bool nn_linear_init(nn_linear_layer *l, nn_params *set, const char *prefix, int64_t in, int64_t out, bool bias)
{
    *l = (nn_linear_layer){0};
    l->w = add(set, prefix, "weight", 2, (int64_t[]){out, in}, NN_INIT_UNIFORM, 1 / sqrtf((float)in), true);
    if (bias)
        l->b = add(set, prefix, "bias", 1, &out, NN_INIT_ZERO, 0, false);
    return l->w && (l->b || !bias);
}

nn_tensor *nn_linear_forward(nn_tape *tape, const nn_linear_layer *l, nn_tensor *x)
{
    return nn_linear(tape, x, l->w, l->b);
}

bool nn_norm_init(nn_norm_layer *l, nn_params *set, const char *prefix, int64_t width, bool rms, float eps)
{
    *l = (nn_norm_layer){.eps = eps};
    l->gain = add(set, prefix, "weight", 1, &width, NN_INIT_ONE, 0, false);
    if (!rms)
        l->bias = add(set, prefix, "bias", 1, &width, NN_INIT_ZERO, 0, false);
    return l->gain && (l->bias || rms);
}

nn_tensor *nn_norm_forward(nn_tape *tape, const nn_norm_layer *l, nn_tensor *x)
{
    return l->bias ? nn_layer_norm(tape, x, l->gain, l->bias, l->eps) : nn_rms_norm(tape, x, l->gain, l->eps);
}

nn_tensor *nn_stream_norm(nn_tape *tape, const nn_norm_layer *l, nn_stream *s)
{
    nn_tensor *addend = s->addend;
    s->addend = NULL;
    if (!addend)
        return nn_norm_forward(tape, l, s->x);
    return l->bias ? nn_add_layer_norm(tape, s->x, addend, l->gain, l->bias, l->eps, &s->x)
                   : nn_add_rms_norm(tape, s->x, addend, l->gain, l->eps, &s->x);
}

nn_tensor *nn_stream_sum(nn_tape *tape, nn_stream *s)
{
    if (s->addend)
        s->x = nn_add(tape, s->x, s->addend);
    s->addend = NULL;
    return s->x;
}

/* ---- feed-forward ----------------------------------------------------------------------------------------------- */

static bool init_part(nn_linear_layer *l, nn_params *set, const char *prefix, const char *name, int64_t in, int64_t out,
                      bool bias)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    return nn_linear_init(l, set, full, in, out, bias);
}

bool nn_mlp_init(nn_mlp *l, nn_params *set, const char *prefix, int64_t in, int64_t hidden, int64_t out,
                 enum nn_ffn_kind kind)
{
    bool gated = kind == NN_FFN_SWIGLU;
    *l = (nn_mlp){.kind = kind};
    return init_part(&l->up, set, prefix, "w1", in, hidden, !gated) &&
           init_part(&l->down, set, prefix, "w2", hidden, out, !gated) &&
           (!gated || init_part(&l->gate, set, prefix, "w3", in, hidden, false));
}

nn_tensor *nn_mlp_forward(nn_tape *tape, const nn_mlp *l, nn_tensor *x)
{
    const nn_ffn_weights w = {l->up.w, l->up.b, l->down.w, l->down.b, l->gate.w};
    return nn_feed_forward_block(tape, x, &w, (enum nn_activation)nn_ffn_activation(l->kind));
}

bool nn_feed_forward_init(nn_feed_forward *l, nn_params *set, const char *prefix, int64_t in, int64_t hidden,
                          int64_t out, enum nn_ffn_kind kind, const nn_moe_config *moe)
{
    *l = (nn_feed_forward){.mixture = moe && moe->experts > 0};
    if (!l->mixture)
        return nn_mlp_init(&l->mlp, set, prefix, in, hidden, out, kind);
    nn_moe_config c = *moe;
    c.hidden = c.hidden ? c.hidden : (int)hidden;
    return nn_moe_init(&l->moe, set, prefix, &c, in, out, kind);
}

nn_tensor *nn_feed_forward_forward(nn_tape *tape, const nn_feed_forward *l, nn_tensor *x, nn_pass_context *c)
{
    if (!l->mixture)
        return nn_mlp_forward(tape, &l->mlp, x);
    int i = c->mixtures++;
    bool compete = c->training && c->compete && c->compete[i];
    nn_moe_result *r = &c->results[i];
    return nn_moe_forward(tape, &l->moe, x, c->training, compete, r) ? r->output : NULL;
}

/* ---- transformer block ------------------------------------------------------------------------------------------ */

bool nn_block_init(nn_block *l, nn_params *set, const char *prefix, const nn_block_config *config,
                   const nn_moe_config *moe)
{
    const nn_block_config *c = config;
    *l = (nn_block){.config = *c};
    const nn_attention_params attention = {.heads = c->heads, .kv_heads = c->kv_heads, .head_dim = c->head_dim};
    int64_t q = (int64_t)c->heads * c->head_dim, kv = (int64_t)c->kv_heads * c->head_dim;
    if (!nn_attention_check(prefix, &attention, q + 2 * kv))
        return false;
    char norm1[NAME_BYTES], norm2[NAME_BYTES], ffn[NAME_BYTES];
    snprintf(norm1, sizeof norm1, "%s.norm1", prefix);
    snprintf(norm2, sizeof norm2, "%s.norm2", prefix);
    snprintf(ffn, sizeof ffn, "%s.ffn", prefix);
    return nn_norm_init(&l->norm1, set, norm1, c->width, c->rms, c->eps) &&
           init_part(&l->qkv, set, prefix, "attention.qkv", c->width, q + 2 * kv, c->bias) &&
           init_part(&l->out, set, prefix, "attention.out", q, c->width, c->bias) &&
           nn_norm_init(&l->norm2, set, norm2, c->width, c->rms, c->eps) &&
           nn_feed_forward_init(&l->ffn, set, ffn, c->width, c->hidden, c->width, c->ffn, moe);
}

bool nn_block_picks(const nn_block *l)
{
    return !l->ffn.mixture;
}

void nn_block_forward(nn_tape *tape, const nn_block *l, nn_stream *s, nn_tensor *cache_k, nn_tensor *cache_v,
                      const nn_pick *wanted, nn_pass_context *c)
{
    const nn_block_config *b = &l->config;
    nn_tensor *qkv = nn_linear_forward(tape, &l->qkv, nn_stream_norm(tape, &l->norm1, s));
    if (b->rope_theta > 0)
        qkv = nn_rope(tape, qkv, c->positions, b->heads + b->kv_heads, b->head_dim, b->rope_theta, b->rope_interleaved);
    nn_tensor *seen;
    if (cache_k)
        seen = nn_attention_cached(tape, qkv, cache_k, cache_v, *c->attention, c->past, c->open);
    else if (wanted)
        seen = nn_attention_picked(tape, qkv, c->segments, wanted->rows, wanted->slots, *c->attention);
    else
        seen = nn_attention(tape, qkv, c->segments, *c->attention);
    if (wanted) {
        seen = cache_k ? nn_gather_rows(tape, seen, wanted->rows, wanted->inverse) : seen;
        s->x = nn_gather_rows(tape, s->x, wanted->rows, wanted->inverse);
    } else if (seen) {
        seen = nn_reshape(tape, seen, 3, (int64_t[]){s->x->shape[0], s->x->shape[1], nn_cols(seen)});
    }
    s->addend = nn_linear_forward(tape, &l->out, seen);
    s->addend = nn_feed_forward_forward(tape, &l->ffn, nn_stream_norm(tape, &l->norm2, s), c);
    if (!s->addend)
        s->x = NULL; /* an error, and not nothing to add */
}
