/* When layers compete (specification 4): a table drawn once, so that about a share `rate` of a layer's steps after the
 * warm-up compete, and never more than `max_layers` layers at one step. */
#ifndef NN_COMPETITION_SCHEDULE_H
#define NN_COMPETITION_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "nn/checkpoint.h"

/* Steps of the warm-up, in which nothing competes: floor(warmup * total), 0 to total. */
int64_t nn_competition_warmup(double warmup, uint64_t total_steps);

/* Fills table [layers, steps] with 0 and 1 from uniform draws [layers, steps] in [0, 1). */
bool nn_competition_place(const float *draws, int layers, int64_t steps, double rate, int max_layers, uint8_t *table);

/* Draws from (seed, CS_STREAM_SCHEDULE) and fills state->schedule [layers, total - warm-up], owned by the state,
 * its sizes and its first step. Fails where the warm-up leaves no step. */
bool nn_competition_draw(int layers, uint64_t total_steps, double rate, double warmup, int max_layers, uint64_t seed,
                         nn_train_state *state);

#endif
