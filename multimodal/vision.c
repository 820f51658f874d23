#include "multimodal/vision.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

#define FIELD(key, type, member, min, max, fallback, doc, ...) \
    {key, type, CS_MEMBER(mm_vision_config, member), min, max, fallback, doc, ##__VA_ARGS__}

const cs_field mm_vision_fields[] = {
    FIELD("size", CS_INT, size, 8, 2048, "64", "side of the square that pictures are fitted to, in pixels"),
    FIELD("patch", CS_INT, patch, 1, 256, "8", "side of a patch in pixels; divides `size`"),
    FIELD("width", CS_INT, width, 1, 65536, "64", "width of the tower"),
    FIELD("layers", CS_INT, layers, 0, 256, "3", "transformer layers; 0: no tower, a model of text only"),
    FIELD("heads", CS_INT, heads, 1, 256, "4", "attention heads; divides `width`"),
    FIELD("hidden", CS_INT, hidden, 1, 1 << 20, "256", "width inside the feed-forward blocks"),
    FIELD("activation", CS_ENUM, ffn, 0, 0, "\"gelu\"",
          "of the feed-forward blocks: SigLIP has gelu_tanh, CLIP quick_gelu", nn_ffn_names),
    FIELD("feature_layer", CS_INT, feature_layer, -256, -1, "-1",
          "layer that the projector reads: -1 the last, -2 the one before it, ...; layers above it are not run"),
    FIELD("class_token", CS_BOOL, class_token, 0, 0, "false",
          "a learned token in front of the patches (CLIP); not passed on"),
    FIELD("pre_norm", CS_BOOL, pre_norm, 0, 0, "false", "LayerNorm behind the embeddings (CLIP)"),
    FIELD("post_norm", CS_BOOL, post_norm, 0, 0, "true", "LayerNorm on the features"),
    FIELD("eps", CS_FLOAT, eps, 1e-12, 1, "1e-6", "added to the variance in LayerNorm"),
};
const size_t mm_vision_field_count = sizeof mm_vision_fields / sizeof *mm_vision_fields;

int mm_vision_patches(const mm_vision_config *c)
{
    return (c->size / c->patch) * (c->size / c->patch);
}

static bool check(const mm_vision_config *c)
{
    if (c->size % c->patch)
        return cs_fail("vision.size %d is not a multiple of vision.patch %d", c->size, c->patch);
    if (c->width % c->heads)
        return cs_fail("vision.width %d is not a multiple of vision.heads %d", c->width, c->heads);
    if (-c->feature_layer > c->layers)
        return cs_fail("vision.feature_layer %d: the tower has %d layers", c->feature_layer, c->layers);
    return true;
}

bool mm_vision_init(mm_vision *v, nn_params *set, const mm_vision_config *config, const nn_moe_config *moe)
{
    *v = (mm_vision){.config = *config};
    if (!check(config))
        return false;
    const int64_t width = config->width, tokens = mm_vision_patches(config) + config->class_token, one = 1;
    v->blocks = config->layers + config->feature_layer + 1;
    if (!(v->block = cs_alloc((size_t)v->blocks, sizeof *v->block, "the vision tower")))
        return false;
    if (!nn_linear_init(&v->patch, set, "vision.patch", 3 * config->patch * config->patch, width, true) ||
        !(v->position =
              nn_param_add(set, "vision.position", 2, (int64_t[]){tokens, width}, NN_INIT_NORMAL, 0.02f, true)))
        return false;
    if (config->class_token &&
        !(v->class_token = nn_param_add(set, "vision.class", 2, (int64_t[]){one, width}, NN_INIT_NORMAL, 0.02f, true)))
        return false;
    if (config->pre_norm && !nn_norm_init(&v->pre, set, "vision.pre_norm", width, false, config->eps))
        return false;
    nn_block_config block = {.width = width,
                             .hidden = config->hidden,
                             .heads = config->heads,
                             .kv_heads = config->heads,
                             .head_dim = config->width / config->heads,
                             .bias = true,
                             .eps = config->eps,
                             .ffn = (enum nn_ffn_kind)config->ffn};
    for (int i = 0; i < v->blocks; i++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "vision.layers.%d", i);
        if (!nn_block_init(&v->block[i], set, prefix, &block, moe))
            return false;
    }
    return !config->post_norm || nn_norm_init(&v->post, set, "vision.post_norm", width, false, config->eps);
}

static void release_index(mm_vision *v)
{
    free(v->ids);
    free(v->index);
    free(v->places);
    free(v->rows);
    free(v->inverse);
    v->ids = v->index = v->places = v->rows = v->inverse = NULL;
}

void mm_vision_release(mm_vision *v)
{
    release_index(v);
    free(v->block);
    v->block = NULL;
}

/* Look-ups that put the class token in front of each picture's patches and take it away again. */
static bool make_index(mm_vision *v, int images)
{
    if (v->images == images)
        return true;
    release_index(v);
    const int p = mm_vision_patches(&v->config);
    const size_t n = (size_t)images * (size_t)(p + 1), patches = (size_t)images * (size_t)p;
    v->ids = cs_alloc(n, 4, "the class tokens");
    v->index = cs_alloc(3 * n + 2, 4, "the class tokens");
    v->places = cs_alloc(patches, 4, "the class tokens");
    v->rows = cs_alloc(patches, 4, "the class tokens");
    v->inverse = cs_alloc(n, 4, "the class tokens");
    if (!v->ids || !v->index || !v->places || !v->rows || !v->inverse)
        return false;
    for (int b = 0, row = 0; b < images; b++) {
        v->inverse[b * (p + 1)] = -1;
        for (int i = 0; i < p; i++, row++) {
            int at = b * (p + 1) + 1 + i;
            v->ids[at] = -1 - row;
            v->places[row] = v->rows[row] = at;
            v->inverse[at] = row;
        }
    }
    nn_embedding_index(v->ids, (int64_t)n, v->index);
    v->images = images;
    return true;
}

static nn_tensor *put_class(nn_tape *tape, mm_vision *v, nn_tensor *x, int images)
{
    if (!make_index(v, images))
        return NULL;
    const int64_t patches = (int64_t)images * mm_vision_patches(&v->config), n = patches + images, index = 3 * n + 2;
    return nn_embedding(tape, v->class_token, nn_input(tape, NN_I32, 1, &n, v->ids),
                        nn_input(tape, NN_I32, 1, &index, v->index), x, nn_input(tape, NN_I32, 1, &patches, v->places));
}

static nn_tensor *take_class(nn_tape *tape, mm_vision *v, nn_tensor *x, int images)
{
    const int64_t patches = (int64_t)images * mm_vision_patches(&v->config), n = patches + images;
    return nn_gather_rows(tape, nn_reshape(tape, x, 2, (int64_t[]){n, v->config.width}),
                          nn_input(tape, NN_I32, 1, &patches, v->rows), nn_input(tape, NN_I32, 1, &n, v->inverse));
}

nn_tensor *mm_vision_forward(nn_tape *tape, mm_vision *v, nn_tensor *patches, int images, nn_pass_context *c,
                             bool recompute)
{
    const mm_vision_config *f = &v->config;
    const int64_t p = mm_vision_patches(f), tokens = p + f->class_token;
    const nn_attention_params attention = {.heads = f->heads, .kv_heads = f->heads, .head_dim = f->width / f->heads};
    nn_tensor *x = nn_linear_forward(tape, &v->patch, patches);
    if (f->class_token)
        x = put_class(tape, v, x, images);
    x = nn_reshape(tape, x, 3, (int64_t[]){images, tokens, f->width});
    x = nn_add_rows(tape, x, v->position);
    if (f->pre_norm)
        x = nn_norm_forward(tape, &v->pre, x);
    c->attention = &attention;
    nn_stream s = {x, NULL};
    for (int i = 0; i < v->blocks; i++) {
        if (recompute)
            nn_recompute_begin(tape);
        nn_block_forward(tape, &v->block[i], &s, NULL, NULL, NULL, c);
        if (recompute) {
            nn_stream_sum(tape, &s); /* one tensor to keep instead of two */
            nn_recompute_end(tape);
        }
    }
    x = f->post_norm ? nn_stream_norm(tape, &v->post, &s) : nn_stream_sum(tape, &s);
    return f->class_token ? take_class(tape, v, x, images) : nn_reshape(tape, x, 2, (int64_t[]){images * p, f->width});
}
