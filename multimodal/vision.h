/* Vision tower: a pre-norm vision transformer of CLIP's and SigLIP's shape, trained here or imported. */
#ifndef MULTIMODAL_VISION_H
#define MULTIMODAL_VISION_H

#include "base/config.h"
#include "nn/layers.h"

typedef struct mm_vision_config {
    int size, patch; /* side of picture and patch in pixels; patch divides size */
    int width, layers, heads, hidden;
    int ffn;           /* enum nn_ffn_kind */
    int feature_layer; /* whose output the projector reads: -1 the last, -2 the one before (LLaVA's choice), ... */
    bool class_token;  /* CLIP: a learned token in front, not passed on */
    bool pre_norm;     /* CLIP: LayerNorm behind the embeddings */
    bool post_norm;    /* LayerNorm on the features */
    float eps;
} mm_vision_config;

extern const cs_field mm_vision_fields[];
extern const size_t mm_vision_field_count;

typedef struct mm_vision {
    mm_vision_config config;
    nn_linear_layer patch;  /* [width, 3 patch^2] */
    nn_tensor *position;    /* [P (+1), width] */
    nn_tensor *class_token; /* [1, width] or NULL */
    nn_norm_layer pre, post;
    nn_block *block; /* [blocks] only those below the feature layer */
    int blocks;
    int32_t *ids, *index, *places; /* of the class token's look-up, for `images` pictures */
    int32_t *rows, *inverse;       /* of the patches behind the class tokens */
    int images;
} mm_vision;

/* Patches of a picture. */
int mm_vision_patches(const mm_vision_config *c);

bool mm_vision_init(mm_vision *v, nn_params *set, const mm_vision_config *config, const nn_moe_config *moe);
void mm_vision_release(mm_vision *v);
/* patches [images * P, 3 patch^2] -> features [images * P, width]. */
nn_tensor *mm_vision_forward(nn_tape *tape, mm_vision *v, nn_tensor *patches, int images, nn_pass_context *c,
                             bool recompute);

#endif
