/* Parameters and training state as safetensors files. Both are replaced atomically and load bit for bit what was saved.
 */
#ifndef NN_CHECKPOINT_H
#define NN_CHECKPOINT_H

#include "nn/nn.h"

/* One F32 tensor per parameter, under its name. */
bool nn_params_save(nn_params *set, const char *path);
/* Every parameter must be there with its shape, and nothing else; errors name file and tensor. */
bool nn_params_load(nn_params *set, const char *path);

/* What training needs beyond the parameters to go on as if it had not stopped. */
typedef struct nn_train_state {
    uint64_t step; /* optimizer steps done */
    uint64_t seed; /* of all counter-based draws: with the step, the whole random state */
    /* Competition schedule [layers, steps], owned; NULL where no layer competes. */
    uint8_t *schedule;
    nn_loss_scale loss_scale; /* all 0 where losses are not scaled */
    int64_t schedule_layers, schedule_steps, schedule_first; /* first: step of its first column */
} nn_train_state;

/* AdamW's moments ("m.<name>", "v.<name>") and the state. */
bool nn_train_state_save(nn_params *set, const nn_train_state *state, const char *path);
bool nn_train_state_load(nn_params *set, nn_train_state *state, const char *path);

#endif
