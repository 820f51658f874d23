#include "nn/competition_schedule.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

int64_t nn_competition_warmup(double warmup, uint64_t total_steps)
{
    double steps = warmup * (double)total_steps;
    return steps > 0 ? steps < (double)total_steps ? (int64_t)steps : (int64_t)total_steps : 0;
}

/* Nearest step to i that has room and is not the layer's yet: to the left first, then to the right; -1 where none
 * is. */
static int64_t nearest_room(const int *used, const uint8_t *chosen, int64_t i, int64_t steps, int max_layers)
{
    for (int64_t j = i - 1; j >= 0; j--)
        if (used[j] < max_layers && !chosen[j])
            return j;
    for (int64_t j = i + 1; j < steps; j++)
        if (used[j] < max_layers && !chosen[j])
            return j;
    return -1;
}

/* A hit on a step with room takes it, even when an earlier hit moved there already: that hit is absorbed, as in the
 * authors' code. */
static void place_layer(const float *draws, int64_t steps, double rate, int max_layers, int *used, uint8_t *chosen)
{
    for (int64_t i = 0; i < steps; i++) {
        if (!((double)draws[i] < rate))
            continue;
        int64_t j = used[i] < max_layers ? i : nearest_room(used, chosen, i, steps, max_layers);
        if (j < 0)
            continue;
        chosen[j] = 1;
        used[j]++;
    }
}

bool nn_competition_place(const float *draws, int layers, int64_t steps, double rate, int max_layers, uint8_t *table)
{
    int *taken = cs_alloc((size_t)steps, 2 * sizeof *taken, "the competition schedule");
    if (!taken)
        return false;
    int *used = taken + steps;
    memset(table, 0, (size_t)layers * (size_t)steps);
    for (int l = 0; l < layers; l++) {
        memcpy(used, taken, (size_t)steps * sizeof *used);
        place_layer(draws + l * steps, steps, rate, max_layers, used, table + l * steps);
        for (int64_t i = 0; i < steps; i++)
            taken[i] += table[l * steps + i];
    }
    free(taken);
    return true;
}

bool nn_competition_draw(int layers, uint64_t total_steps, double rate, double warmup, int max_layers, uint64_t seed,
                         nn_train_state *state)
{
    int64_t first = nn_competition_warmup(warmup, total_steps), steps = (int64_t)total_steps - first;
    if (steps < 1)
        return cs_fail("competition: a warm-up of %lld steps leaves none of %llu", (long long)first,
                       (unsigned long long)total_steps);
    float *draws = cs_alloc((size_t)layers, (size_t)steps * sizeof *draws, "the competition schedule");
    uint8_t *table = cs_alloc((size_t)layers, (size_t)steps, "the competition schedule");
    cs_random random = {.seed = seed, .stream = CS_STREAM_SCHEDULE};
    for (int64_t i = 0; draws && i < layers * steps; i++)
        draws[i] = cs_random_float(&random);
    bool ok = draws && table && nn_competition_place(draws, layers, steps, rate, max_layers, table);
    free(draws);
    if (!ok) {
        free(table);
        return false;
    }
    state->schedule = table;
    state->schedule_layers = layers;
    state->schedule_steps = steps;
    state->schedule_first = first;
    return true;
}
