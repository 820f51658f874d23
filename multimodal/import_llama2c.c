#include "multimodal/import_llama2c.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "multimodal/run.h"

/* ---- the file: seven int32, then float32 tensors in a fixed order ----------------------------------------------- */

enum { HEADER = 7 };

typedef struct weights {
    const char *path;
    char *bytes;
    size_t size;
    mm_llama2c_shape shape;
    const float *next; /* the tensor to be read */
    const float *end;
} weights;

static bool read_header(weights *w)
{
    int32_t h[HEADER];
    if (w->size < sizeof h)
        return cs_fail("%s: %zu bytes are too few for a llama2.c model", w->path, w->size);
    memcpy(h, w->bytes, sizeof h);
    mm_llama2c_shape *s = &w->shape;
    *s = (mm_llama2c_shape){h[0], h[1], h[2], h[3], h[4], h[5] < 0 && h[5] > INT32_MIN ? -h[5] : h[5], h[6], h[5] > 0};
    const int32_t limit[] = {1 << 16, 1 << 20, 256, 256, 256, 1 << 24, 1 << 20};
    const int32_t value[] = {s->width, s->hidden, s->layers, s->heads, s->kv_heads, s->vocabulary, s->context};
    for (int i = 0; i < HEADER; i++)
        if (value[i] < 1 || value[i] > limit[i])
            return cs_fail("%s: not a llama2.c model: number %d of its header is %d", w->path, i, h[i]);
    if (s->width % s->heads || s->heads % s->kv_heads)
        return cs_fail("%s: not a llama2.c model: width %d, %d heads, %d key/value heads", w->path, s->width, s->heads,
                       s->kv_heads);
    w->next = (const float *)(w->bytes + sizeof h);
    w->end = w->next + (w->size - sizeof h) / 4;
    return true;
}

/* The next `count` floats, NULL with the error set where the file ends before. */
static const float *take(weights *w, uint64_t count)
{
    if ((uint64_t)(w->end - w->next) < count)
        return cs_fail("%s: truncated: the header promises more weights than its %zu bytes hold", w->path, w->size),
               NULL;
    const float *p = w->next;
    w->next += count;
    return p;
}

/* ---- into the model --------------------------------------------------------------------------------------------- */

static bool put(mm_model *m, const char *format, int layer, const float *values)
{
    char name[128];
    snprintf(name, sizeof name, format, layer);
    const nn_param *p = nn_params_find(m->params, name);
    if (!p)
        return cs_fail("the model has no parameter '%s'", name);
    return nn_param_write(m->params, p, NN_VALUE, values);
}

/* A tensor [layers, each] of the file, one parameter a layer. */
static bool put_layers(mm_model *m, weights *w, const char *format, uint64_t each)
{
    for (int i = 0; i < w->shape.layers; i++) {
        const float *p = take(w, each);
        if (!p || !put(m, format, i, p))
            return false;
    }
    return true;
}

/* Queries, keys and values lie apart in the file and side by side in the model. */
static bool put_qkv(mm_model *m, weights *w)
{
    const mm_llama2c_shape *s = &w->shape;
    const uint64_t q = (uint64_t)s->width * (uint64_t)s->width, kv = q / (uint64_t)s->heads * (uint64_t)s->kv_heads;
    const uint64_t layers = (uint64_t)s->layers;
    const float *wq = take(w, layers * q), *wk = take(w, layers * kv), *wv = take(w, layers * kv);
    float *all = wv ? cs_alloc(q + 2 * kv, sizeof *all, "attention weights") : NULL;
    bool ok = all;
    for (uint64_t i = 0; ok && i < layers; i++) {
        memcpy(all, wq + i * q, q * sizeof *all);
        memcpy(all + q, wk + i * kv, kv * sizeof *all);
        memcpy(all + q + kv, wv + i * kv, kv * sizeof *all);
        ok = put(m, "text.layers.%d.attention.qkv.weight", (int)i, all);
    }
    free(all);
    return ok;
}

static bool put_all(mm_model *m, weights *w)
{
    const mm_llama2c_shape *s = &w->shape;
    const uint64_t d = (uint64_t)s->width, h = (uint64_t)s->hidden, v = (uint64_t)s->vocabulary;
    const float *p = take(w, v * d);
    if (!p || !put(m, "text.embedding", 0, p) || !put_layers(m, w, "text.layers.%d.norm1.weight", d) ||
        !put_qkv(m, w) || !put_layers(m, w, "text.layers.%d.attention.out.weight", d * d) ||
        !put_layers(m, w, "text.layers.%d.norm2.weight", d) ||
        !put_layers(m, w, "text.layers.%d.ffn.w1.weight", h * d) ||
        !put_layers(m, w, "text.layers.%d.ffn.w2.weight", d * h) ||
        !put_layers(m, w, "text.layers.%d.ffn.w3.weight", h * d))
        return false;
    if (!(p = take(w, d)) || !put(m, "text.norm.weight", 0, p))
        return false;
    if (s->tied)
        return true;
    /* Two tables of rotary angles, which the model computes, lie before the head. */
    return take(w, (uint64_t)s->context * (d / (uint64_t)s->heads)) && (p = take(w, v * d)) &&
           put(m, "text.head", 0, p);
}

static bool make_config(mm_config *c, const mm_llama2c_shape *s)
{
    char set[12][48];
    const char *sets[12];
    int n = 0;
#define SET(...) (snprintf(set[n], sizeof set[n], __VA_ARGS__), sets[n] = set[n], n++)
    SET("vision.layers=0");
    SET("text.width=%d", s->width);
    SET("text.hidden=%d", s->hidden);
    SET("text.layers=%d", s->layers);
    SET("text.heads=%d", s->heads);
    SET("text.kv_heads=%d", s->kv_heads);
    SET("text.vocabulary=%d", s->vocabulary);
    SET("text.context=%d", s->context < 16 ? 16 : s->context);
    SET("text.tied=%s", s->tied ? "true" : "false");
    SET("text.rope_interleaved=true");
#undef SET
    return mm_config_read(c, NULL, sets, (size_t)n);
}

static bool same_pieces(const weights *w, const char *tokenizer_path, const mm_tokenizer *tokenizer)
{
    return w->shape.vocabulary == mm_tokenizer_size(tokenizer) ||
           cs_fail("%s: the model has %d pieces, but %s has %d", w->path, w->shape.vocabulary, tokenizer_path,
                   mm_tokenizer_size(tokenizer));
}

static bool convert(weights *w, const char *tokenizer_path, const char *target, vk_device *device)
{
    mm_tokenizer *tokenizer = mm_tokenizer_from_llama2c(tokenizer_path);
    mm_config *config = cs_alloc(1, sizeof *config, "the configuration");
    mm_model *m = NULL;
    bool ok = tokenizer && config && same_pieces(w, tokenizer_path, tokenizer) && make_config(config, &w->shape) &&
              (m = mm_model_new(device, config, mm_tokenizer_size(tokenizer), false)) && put_all(m, w) &&
              mm_checkpoint_write(target, m, tokenizer, NULL);
    mm_model_free(&m);
    if (config)
        mm_config_release(config);
    free(config);
    mm_tokenizer_free(tokenizer);
    return ok;
}

/* ---- finding the files ------------------------------------------------------------------------------------------ */

/* The one file in the folder that ends in .bin and does, or does not, begin with "tok". */
static char *find_bin(const char *folder, bool tokenizer)
{
    DIR *d = opendir(folder);
    char *found = NULL;
    bool twice = false;
    for (struct dirent *e; d && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".bin") || !strncmp(e->d_name, "tok", 3) != tokenizer)
            continue;
        twice = found;
        free(found);
        found = cs_join(folder, e->d_name);
    }
    if (d)
        closedir(d);
    if (found && !twice)
        return found;
    free(found);
    const char *what = tokenizer ? "a tokenizer (tok*.bin)" : "weights (*.bin)";
    return cs_fail(twice ? "%s: several files here could be %s" : "%s: there is no file here that could be %s", folder,
                   what),
           NULL;
}

bool mm_import_llama2c(const char *source, const char *target, vk_device *device, mm_llama2c_shape *shape)
{
    bool whole = cs_is_folder(source);
    char *folder = whole ? cs_strdup(source) : cs_parent(source);
    char *model = folder ? (whole ? find_bin(folder, false) : cs_strdup(source)) : NULL;
    char *tokenizer = model ? find_bin(folder, true) : NULL;
    weights w = {.path = model};
    bool ok = tokenizer && (w.bytes = cs_read_file(model, (size_t)1 << 40, &w.size)) && read_header(&w) &&
              convert(&w, tokenizer, target, device);
    *shape = w.shape;
    free(w.bytes);
    free(tokenizer);
    free(model);
    free(folder);
    return ok;
}
