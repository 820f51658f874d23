#include "multimodal/decoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

#define FIELD(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_decoder_config, member), min, max, fallback, doc, ##__VA_ARGS__}

const cs_field mm_decoder_fields[] = {
    FIELD("vocabulary", CS_INT, vocabulary, 0, 1 << 24, "0",
          "rows of the embedding; 0: as many as the tokenizer has pieces"),
    FIELD("width", CS_INT, width, 1, 65536, "64", "width of the decoder"),
    FIELD("layers", CS_INT, layers, 1, 256, "2", "transformer layers"),
    FIELD("heads", CS_INT, heads, 1, 256, "4", "query heads"),
    FIELD("kv_heads", CS_INT, kv_heads, 0, 256, "0", "key/value heads; divides `heads`; 0: as many as `heads`"),
    FIELD("head_dim", CS_INT, head_dim, 0, 1024, "0", "width of a head; 0: `width` / `heads`"),
    FIELD("hidden", CS_INT, hidden, 1, 1 << 20, "176", "width inside the feed-forward blocks"),
    FIELD("activation", CS_ENUM, ffn, 0, 0, "\"swiglu\"", "of the feed-forward blocks", nn_ffn_names),
    FIELD("context", CS_INT, context, 16, 1 << 20, "512", "most tokens of a sequence in generation"),
    FIELD("loss_chunk", CS_INT, loss_chunk, 64, 1 << 24, "8192",
          "entries of the vocabulary whose scores are in memory at once in training; a larger vocabulary is scored "
          "chunk by chunk, once more in the backward pass"),
    FIELD("open_prefix", CS_BOOL, open_prefix, 0, 0, "false",
          "tokens of the shared prefix (system, picture) see each other both ways; false: causal as in LLaVA. Only "
          "with isolated turns: in a conversation everything is prefix"),
    FIELD("tied", CS_BOOL, tied, 0, 0, "false", "the head's weights are the embedding's"),
    FIELD("rope_interleaved", CS_BOOL, rope_interleaved, 0, 0, "false",
          "rotary positions turn neighbouring pairs (llama2.c) instead of halves"),
    FIELD("rope_theta", CS_FLOAT, rope_theta, 0, 1e9, "10000", "base of the rotary positions; 0: none"),
    FIELD("eps", CS_FLOAT, eps, 1e-12, 1, "1e-5", "added to the mean square in RMSNorm"),
};
const size_t mm_decoder_field_count = sizeof mm_decoder_fields / sizeof *mm_decoder_fields;

bool mm_decoder_complete(mm_decoder_config *c, int vocabulary)
{
    if (!c->vocabulary)
        c->vocabulary = vocabulary;
    if (c->vocabulary < vocabulary)
        return cs_fail("text.vocabulary is %d, but the tokenizer has %d pieces", c->vocabulary, vocabulary);
    if (!c->kv_heads)
        c->kv_heads = c->heads;
    if (c->heads % c->kv_heads)
        return cs_fail("text.heads %d is not a multiple of text.kv_heads %d", c->heads, c->kv_heads);
    if (!c->head_dim && c->width % c->heads)
        return cs_fail("text.width %d is not a multiple of text.heads %d", c->width, c->heads);
    if (!c->head_dim)
        c->head_dim = c->width / c->heads;
    if (c->rope_theta > 0 && c->head_dim % 2)
        return cs_fail("text.head_dim %d is odd, which rotary positions do not allow", c->head_dim);
    return true;
}

bool mm_decoder_init(mm_decoder *d, nn_params *set, const mm_decoder_config *config, const nn_moe_config *moe)
{
    *d = (mm_decoder){.config = *config};
    const int64_t table[] = {config->vocabulary, config->width};
    if (!(d->block = cs_alloc((size_t)config->layers, sizeof *d->block, "the decoder")) ||
        !(d->embedding = nn_param_add(set, "text.embedding", 2, table, NN_INIT_NORMAL, 0.02f, true)))
        return false;
    nn_block_config block = {.width = config->width,
                             .hidden = config->hidden,
                             .heads = config->heads,
                             .kv_heads = config->kv_heads,
                             .head_dim = config->head_dim,
                             .rms = true,
                             .eps = config->eps,
                             .rope_theta = config->rope_theta,
                             .rope_interleaved = config->rope_interleaved,
                             .ffn = (enum nn_ffn_kind)config->ffn};
    for (int i = 0; i < config->layers; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "text.layers.%d", i);
        if (!nn_block_init(&d->block[i], set, prefix, &block, moe))
            return false;
    }
    if (!nn_norm_init(&d->norm, set, "text.norm", config->width, true, config->eps))
        return false;
    d->head = config->tied
                  ? d->embedding
                  : nn_param_add(set, "text.head", 2, table, NN_INIT_UNIFORM, 1 / sqrtf((float)config->width), true);
    return d->head;
}

void mm_decoder_release(mm_decoder *d)
{
    free(d->block);
    d->block = NULL;
}

static uint64_t cache_layer_bytes(const mm_decoder_config *c)
{
    /* Each layer's part starts where any device can bind a buffer. */
    return ((uint64_t)c->context * (uint64_t)c->kv_heads * (uint64_t)c->head_dim * 4 + 255) & ~(uint64_t)255;
}

bool mm_cache_make(mm_cache *cache, vk_device *device, const mm_decoder_config *c)
{
    uint64_t bytes = cache_layer_bytes(c) * (uint64_t)c->layers;
    *cache = (mm_cache){.device = device};
    cache->k = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "the key cache");
    cache->v = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "the value cache");
    return cache->k.block && cache->v.block;
}

void mm_cache_release(mm_cache *cache)
{
    if (!cache->device)
        return;
    vk_free(cache->device, &cache->k);
    vk_free(cache->device, &cache->v);
}

static nn_tensor *cache_of_layer(nn_tape *tape, const mm_decoder_config *c, vk_range all, int layer)
{
    uint64_t bytes = cache_layer_bytes(c);
    vk_range part = {all.block, all.offset + bytes * (uint64_t)layer, bytes};
    return nn_external(tape, NN_F32, 2, (int64_t[]){c->context, (int64_t)c->kv_heads * c->head_dim}, part);
}

nn_tensor *mm_decoder_forward(nn_tape *tape, const mm_decoder *d, nn_tensor *x, mm_cache *cache, const nn_pick *wanted,
                              nn_pass_context *c, bool recompute)
{
    const mm_decoder_config *f = &d->config;
    const nn_attention_params attention = {.heads = f->heads,
                                           .kv_heads = f->kv_heads,
                                           .head_dim = f->head_dim,
                                           .causal = true,
                                           .open_prefix = f->open_prefix};
    if (!x)
        return NULL;
    if (cache && cache->used + x->shape[1] > f->context)
        return cs_fail("the sequence is longer than text.context (%d tokens)", f->context), NULL;
    c->attention = &attention;
    c->past = cache ? cache->used : 0;
    const int64_t tokens = nn_rows(x);
    nn_stream s = {x, NULL};
    for (int i = 0; i < f->layers; i++) {
        nn_tensor *k = cache ? cache_of_layer(tape, f, cache->k, i) : NULL,
                  *v = cache ? cache_of_layer(tape, f, cache->v, i) : NULL;
        if (recompute)
            nn_recompute_begin(tape);
        const nn_pick *pick = i + 1 == f->layers && nn_block_picks(&d->block[i]) ? wanted : NULL;
        nn_block_forward(tape, &d->block[i], &s, k, v, pick, c);
        wanted = pick ? NULL : wanted;
        if (recompute) {
            nn_stream_sum(tape, &s); /* one tensor to keep instead of two */
            nn_recompute_end(tape);
        }
    }
    if (cache)
        cache->used += (int)tokens;
    nn_tensor *hidden = nn_stream_norm(tape, &d->norm, &s);
    if (wanted)
        return nn_gather_rows(tape, hidden, wanted->rows, wanted->inverse);
    return hidden ? nn_reshape(tape, hidden, 2, (int64_t[]){nn_rows(hidden), f->width}) : NULL;
}

nn_tensor *mm_decoder_logits(nn_tape *tape, const mm_decoder *d, nn_tensor *hidden)
{
    return nn_linear_f32(tape, hidden, d->head, NULL);
}

nn_tensor *mm_decoder_loss(nn_tape *tape, const mm_decoder *d, nn_tensor *hidden, nn_tensor *labels, float scale,
                           nn_tensor **best)
{
    return nn_linear_cross_entropy(tape, hidden, d->head, labels, scale, d->config.loss_chunk, best);
}
