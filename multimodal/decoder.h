/* Decoder language model of LLaMA's shape: RMSNorm, rotary positions, grouped key/value heads, SwiGLU. */
#ifndef MULTIMODAL_DECODER_H
#define MULTIMODAL_DECODER_H

#include "base/config.h"
#include "nn/layers.h"

typedef struct mm_decoder_config {
    int vocabulary;                                       /* 0 = the tokenizer's size */
    int width, layers, heads, kv_heads, head_dim, hidden; /* kv_heads 0 = heads; head_dim 0 = width / heads */
    int ffn;                                              /* enum nn_ffn_kind */
    int context;                                          /* most tokens of a sequence, in generation */
    int loss_chunk;                                       /* entries of the vocabulary scored at once in training */
    bool open_prefix;                                     /* picture tokens see each other both ways */
    bool tied;                                            /* the head is the embedding */
    bool rope_interleaved;                                /* pairs (2i, 2i+1) as in llama2.c */
    float rope_theta, eps;
} mm_decoder_config;

extern const cs_field mm_decoder_fields[];
extern const size_t mm_decoder_field_count;

typedef struct mm_decoder {
    mm_decoder_config config;
    nn_tensor *embedding; /* [vocabulary, width] */
    nn_tensor *head;      /* [vocabulary, width]; the embedding where tied */
    nn_norm_layer norm;
    nn_block *block; /* [layers] */
} mm_decoder;

/* Key/value caches of one sequence for generation. */
typedef struct mm_cache {
    vk_device *device;
    vk_range k, v; /* [layers, context, kv_heads * head_dim] */
    int used;      /* tokens in it */
} mm_cache;

/* `config->vocabulary`, `kv_heads` and `head_dim` must be filled in (mm_decoder_complete). */
bool mm_decoder_init(mm_decoder *d, nn_params *set, const mm_decoder_config *config, const nn_moe_config *moe);
/* Fills in the values that follow from others and checks that sizes divide. */
bool mm_decoder_complete(mm_decoder_config *config, int vocabulary);
void mm_decoder_release(mm_decoder *d);

bool mm_cache_make(mm_cache *cache, vk_device *device, const mm_decoder_config *config);
void mm_cache_release(mm_cache *cache);

/* x [B, T, width] embedded tokens -> hidden states behind the last norm, [B * T, width] or, with `wanted`, those rows
 * of it. With `cache` (B = 1) the tokens follow those in it, and cache->used grows. */
nn_tensor *mm_decoder_forward(nn_tape *tape, const mm_decoder *d, nn_tensor *x, mm_cache *cache, const nn_pick *wanted,
                              nn_pass_context *c, bool recompute);
/* hidden [R, width] -> logits [R, vocabulary]. */
nn_tensor *mm_decoder_logits(nn_tape *tape, const mm_decoder *d, nn_tensor *hidden);
/* Cross-entropy of these against labels [R] I32, as nn_cross_entropy() has it, in chunks of config.loss_chunk. */
nn_tensor *mm_decoder_loss(nn_tape *tape, const mm_decoder *d, nn_tensor *hidden, nn_tensor *labels, float scale,
                           nn_tensor **best);

#endif
