/* A run's configuration: what docs/configuration.md describes, one member per key. */
#ifndef MULTIMODAL_CONFIG_H
#define MULTIMODAL_CONFIG_H

#include "base/config.h"
#include "multimodal/decoder.h"
#include "multimodal/sequence.h"
#include "multimodal/vision.h"

typedef struct mm_data_config {
    char *train, *image_root, *tokenizer, *conversation;
    int turns;      /* enum mm_turns_mode */
    int max_tokens; /* per sample */
    int fit;        /* enum mm_fit */
    float mean[3], std[3];
    bool flip_x, flip_y, group_by_length, skip_bad;
    int shift, prefetch, cache_mib;
} mm_data_config;

typedef struct mm_projector_config {
    int hidden; /* 0 = text.width */
    int ffn;    /* enum nn_ffn_kind */
    bool norm;  /* LayerNorm in front */
} mm_projector_config;

typedef struct mm_competition_config {
    double rate;    /* share of a mixture's steps after the warm-up that compete */
    double warmup;  /* share of all steps that warm up */
    int max_layers; /* mixtures that may compete at one step */
} mm_competition_config;

typedef struct mm_train_config {
    int64_t steps; /* 0: by epochs */
    int epochs, batch, accumulate;
    float lr, min_lr_ratio, weight_decay, beta1, beta2, eps, clip;
    double warmup; /* share of the steps; double, so that 0.03 of 1000 steps are 30 */
    int schedule; /* enum nn_schedule */
    int precision; /* of precision_names: mm_config_precision() */
    float loss_scale;
    int loss_scale_growth;
    bool recompute;
    char *freeze; /* prefixes of parameter names, separated by commas */
    int save_every, keep, log_every;
} mm_train_config;

typedef struct mm_config {
    int64_t seed;
    mm_data_config data;
    mm_vision_config vision;
    nn_moe_config vision_moe;
    mm_projector_config projector;
    nn_moe_config projector_moe;
    mm_decoder_config text;
    nn_moe_config text_moe;
    mm_competition_config competition;
    mm_train_config train;
    cs_section sections[10]; /* the tables bound to this struct */
    cs_config tables;
} mm_config;

/* Defaults, the JSON file (NULL: none), the "key=value" overrides; then checks what concerns several keys. Release with
 * mm_config_release() also after a failure. */
bool mm_config_read(mm_config *c, const char *path, const char *const *sets, size_t set_count);
/* The same from a JSON text; `name` is what errors call it. */
bool mm_config_parse(mm_config *c, const char *name, const char *text, const char *const *sets, size_t set_count);
void mm_config_release(mm_config *c);
/* Type that training stores activations in. */
enum nn_dtype mm_config_precision(const mm_config *c);
bool mm_config_write(const mm_config *c, const char *path);
/* The reference of all keys in Markdown. */
bool mm_config_describe(FILE *out);

/* How samples become tokens under this configuration; borrows the tokenizer. */
bool mm_config_format(const mm_config *c, const mm_tokenizer *tokenizer, mm_format *format);

#endif
