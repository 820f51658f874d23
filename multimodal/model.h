/* The assembled model: vision tower, projector, decoder; any of their feed-forward blocks may be mixtures of experts.
 */
#ifndef MULTIMODAL_MODEL_H
#define MULTIMODAL_MODEL_H

#include "multimodal/batch.h"
#include "multimodal/config.h"

/* A mixture of experts of the model, in the order of the schedule: vision layers, projector, decoder layers. */
typedef struct mm_mixture {
    char name[64]; /* "vision.layers.0" */
    const nn_moe *moe;
    /* Share of its losses in the total: the mean over the layers of its tower, 1 for the projector (spec 5.1). */
    float weight;
} mm_mixture;

typedef struct mm_model {
    vk_device *device;
    const mm_config *config; /* borrowed */
    nn_params *params;
    bool sees; /* has a vision tower */
    mm_vision vision;
    nn_norm_layer projector_norm;
    nn_feed_forward projector;
    mm_decoder decoder;
    mm_mixture *mixture;
    nn_moe_result *results; /* [mixtures] of the last forward pass; zeroed where a mixture did not run */
    int mixtures;
    struct mm_model_scratch { /* host copies that a tape reads from, valid until the next forward pass */
        int32_t *index, *places, *picks, *inverse, *label, *slots;
        size_t index_room, places_room, picks_room, inverse_room, label_room, slots_room;
    } scratch;
} mm_model;

/* Builds the model for `vocabulary` pieces and draws its initial values from the seed. `config` is completed
 * (text.vocabulary, ...) and must outlive the model. */
mm_model *mm_model_new(vk_device *device, mm_config *config, int vocabulary, bool training);
void mm_model_free(mm_model **model);

typedef struct mm_forward {
    bool training;
    const uint8_t *compete; /* [mixtures] or NULL */
    float label_weight;     /* of each label's cross-entropy in the loss */
    bool blank;             /* pictures are replaced by their mean colour: what the text alone gives away */
} mm_forward;

/* Appends the whole model to the tape. `*loss` = label_weight * sum of the labels' cross-entropy, `*best` I32
 * the likeliest tokens: the labels' first, then those of rows that make up a number that repeats. The batch must live
 * until the tape has run. */
bool mm_model_forward(mm_model *model, nn_tape *tape, const mm_batch *batch, const mm_forward *how, nn_tensor **loss,
                      nn_tensor **best);

/* Roots of the backward pass: the loss and every mixture's weighted losses, times `scale`. `roots` has room for
 * 1 + mixtures * NN_MOE_LOSSES; returns how many. */
int mm_model_roots(const mm_model *model, nn_tensor *loss, float scale, nn_root *roots);

/* Generation. The first takes a prompt (mm_prompt), the second one token; both give the logits [1, vocabulary] of what
 * comes next and grow the cache. */
nn_tensor *mm_model_prompt(mm_model *model, nn_tape *tape, const mm_batch *prompt, mm_cache *cache);
nn_tensor *mm_model_token(mm_model *model, nn_tape *tape, const int32_t *token, const int32_t *position, int open,
                          mm_cache *cache);

#endif
