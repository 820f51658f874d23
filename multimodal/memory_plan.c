/* Predicts the memory of training: the same steps, recorded on a dry device. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "multimodal/trainer_internal.h"

enum { MAX_PATTERNS = 16 }; /* of competing mixtures that are played */

/* ---- playing a step ---------------------------------------------------------------------------------------------- */

/* Highest use of device memory over a step at which these mixtures compete. */
static bool play_step(trainer *t, const uint8_t *compete, uint64_t *peak)
{
    pending ignored;
    vk_memory_reset_peak(t->device);
    if (!mm_trainer_record(t, 0, compete, &ignored))
        return false;
    *peak = vk_memory_get(t->device).peak;
    return true;
}

/* The most that any of the batches takes above `base` bytes. */
static bool play_batches(trainer *t, mm_batch *batches, size_t count, const uint8_t *compete, uint64_t base,
                         uint64_t *most, size_t *largest)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t peak;
        for (int k = 0; k < t->config.train.accumulate; k++)
            t->batches[k] = &batches[i];
        bool ok = play_step(t, compete, &peak);
        memset(t->batches, 0, (size_t)t->config.train.accumulate * sizeof *t->batches);
        if (!ok)
            return false;
        if (peak - base <= *most)
            continue;
        *most = peak - base;
        *largest = i;
    }
    return true;
}

/* ---- which mixtures compete -------------------------------------------------------------------------------------- */

static size_t competitors(const trainer *t, const uint8_t *row)
{
    size_t n = 0;
    for (int i = 0; i < t->model->mixtures; i++)
        n += row[i];
    return n;
}

/* Rows of the schedule with the most competitors, each pattern once, up to MAX_PATTERNS. */
static size_t worst_patterns(const trainer *t, const uint8_t **patterns)
{
    const size_t mixtures = (size_t)t->model->mixtures;
    size_t count = 0, most = 1;
    for (uint64_t step = 0; step < t->total && mixtures; step++) {
        const uint8_t *row = t->compete + step * mixtures;
        size_t n = competitors(t, row);
        bool known = n < most;
        if (n > most)
            count = 0;
        for (size_t i = 0; i < count && !known; i++)
            known = !memcmp(patterns[i], row, mixtures);
        if (known || count == MAX_PATTERNS)
            continue;
        most = n;
        patterns[count++] = row;
    }
    return count;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

static bool play(trainer *t, mm_batch *batches, size_t count, mm_memory_plan *plan)
{
    const uint64_t base = plan->parameters + plan->gradients + plan->moments;
    const uint8_t *patterns[MAX_PATTERNS];
    const size_t pattern_count = worst_patterns(t, patterns);
    size_t largest = 0;
    for (int recompute = 1; recompute >= 0; recompute--) {
        t->config.train.recompute = recompute;
        if (!play_batches(t, batches, count, NULL, base, &plan->routed[recompute], &largest))
            return false;
        for (size_t i = 0; i < pattern_count; i++) {
            size_t ignored;
            if (!play_batches(t, batches, count, patterns[i], base, &plan->competing[recompute], &ignored))
                return false;
        }
    }
    plan->samples = batches[largest].samples;
    plan->tokens = batches[largest].tokens;
    plan->images = batches[largest].images;
    plan->labels = batches[largest].labels;
    return true;
}

/* A checkpoint reads the parameters back: its landing place belongs to the staging memory. */
static bool read_parameter(trainer *t, const nn_param *p)
{
    float *host = cs_alloc((size_t)nn_count(&p->tensor), sizeof *host, "a parameter");
    bool ok = host && nn_param_read(t->model->params, p, NN_VALUE, host);
    free(host);
    return ok;
}

static bool make_plan(trainer *t, mm_memory_plan *plan)
{
    nn_params *set = t->model->params;
    mm_batch *batches;
    size_t count;
    uint64_t steps = (t->total - t->state.step) * (uint64_t)t->config.train.accumulate;
    if (!mm_loader_largest(t->loader, 0, steps, &batches, &count))
        return false;
    plan->parameters = nn_params_bytes(set, NN_VALUE);
    plan->gradients = nn_params_bytes(set, NN_GRADIENT);
    plan->moments = nn_params_bytes(set, NN_FIRST_MOMENT) + nn_params_bytes(set, NN_SECOND_MOMENT);
    bool ok = play(t, batches, count, plan);
    for (size_t i = 0; ok && i < nn_params_count(set); i++)
        ok = read_parameter(t, nn_params_at(set, i));
    const vk_memory_stats stats = vk_memory_get(t->device);
    plan->staging = stats.host_peak;
    plan->budget = stats.budget;
    for (size_t i = 0; i < count; i++)
        mm_batch_free(&batches[i]);
    free(batches);
    return ok;
}

bool mm_train_plan(const mm_train_params *params, mm_memory_plan *plan)
{
    trainer t = {.params = params};
    *plan = (mm_memory_plan){0};
    /* The first batch comes through the loader, so that a picture that is missing is noticed as in training. */
    bool ok = mm_trainer_open(&t, true) && mm_trainer_next_batches(&t);
    mm_trainer_free_batches(&t);
    ok = ok && make_plan(&t, plan);
    return mm_trainer_close(&t) && ok;
}

uint64_t mm_memory_plan_peak(const mm_memory_plan *p, bool recompute)
{
    uint64_t step = p->routed[recompute] > p->competing[recompute] ? p->routed[recompute] : p->competing[recompute];
    return p->parameters + p->gradients + p->moments + step;
}

static void print_row(FILE *out, const char *name, uint64_t kept, uint64_t recomputed)
{
    fprintf(out, "%-34s %14.1f %14.1f\n", name, (double)kept / (1 << 20), (double)recomputed / (1 << 20));
}

void mm_memory_plan_print(const mm_memory_plan *p, FILE *out)
{
    uint64_t kept = mm_memory_plan_peak(p, false), recomputed = mm_memory_plan_peak(p, true);
    fprintf(out, "largest batch: %d samples of %d tokens, %d pictures, %d labels\n", p->samples, p->tokens, p->images,
            p->labels);
    fprintf(out, "%-34s %14s %14s\n", "MiB of memory, train.recompute:", "false", "true");
    print_row(out, "parameters", p->parameters, p->parameters);
    print_row(out, "gradients", p->gradients, p->gradients);
    print_row(out, "optimizer moments", p->moments, p->moments);
    print_row(out, "activations of a routed step", p->routed[0], p->routed[1]);
    if (p->competing[0])
        print_row(out, "activations of a competing step", p->competing[0], p->competing[1]);
    print_row(out, "device memory at the highest", kept, recomputed);
    print_row(out, "staging (host-visible)", p->staging, p->staging);
    print_row(out, "this process in all", kept + p->staging, recomputed + p->staging);
    if (recomputed > p->budget)
        cs_log(CS_LOG_WARN, "the device has %.1f MiB for this process: not enough even with train.recompute",
               (double)p->budget / (1 << 20));
    else if (kept > p->budget)
        cs_log(CS_LOG_WARN, "the device has %.1f MiB for this process: set train.recompute=true",
               (double)p->budget / (1 << 20));
}
