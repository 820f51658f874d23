#include "multimodal/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/trace.h"
#include "multimodal/plan.h"

enum picture_state { UNSEEN, GOOD, BAD };

struct mm_loader {
    mm_loader_params params;
    const mm_dataset *data;
    mm_sequence *sequences; /* [samples of the data set] */
    uint32_t *used;         /* [used_count] samples with an answer to learn: what the plan counts */
    uint32_t *lengths;      /* [used_count] */
    size_t used_count;

    /* The thread's own. */
    mm_plan plan;
    mm_image *cache; /* [images] fitted, without pixels where not kept */
    uint8_t *state;  /* [images] enum picture_state */
    const mm_sequence **chosen;
    uint32_t *chosen_index;
    uint64_t step;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t filled, taken;
    mm_batch **queue; /* ring of `prefetch` */
    size_t head, waiting;
    bool stop, done;
    char *error;
    mm_loader_stats stats;
};

/* ---- pictures ---- */

static bool fit_picture(const mm_loader *l, int32_t image, mm_image *fitted)
{
    mm_image full;
    if (!mm_image_load(l->data->images[image], &full))
        return false;
    bool ok = mm_image_fit(&full, &l->params.format.picture, fitted);
    mm_image_free(&full);
    return ok;
}

/* The fitted picture, from the cache or the file; `*loose` gets it where it is not kept. NULL with the error set. */
static const mm_image *get_picture(mm_loader *l, int32_t image, mm_image *loose)
{
    if (l->cache[image].rgb)
        return &l->cache[image];
    if (!fit_picture(l, image, loose))
        return NULL;
    size_t side = (size_t)l->params.format.picture.size, bytes = 3 * side * side;
    pthread_mutex_lock(&l->lock);
    bool keep = l->stats.cached_bytes + bytes <= l->params.cache_bytes;
    l->stats.cached_bytes += keep ? bytes : 0;
    pthread_mutex_unlock(&l->lock);
    if (!keep)
        return loose;
    l->cache[image] = *loose;
    *loose = (mm_image){0};
    return &l->cache[image];
}

/* Drawn from (seed, epoch, sample): the same whenever and in whatever batch the sample comes. */
static mm_augment draw_augment(const mm_loader *l, uint64_t epoch, uint32_t sample)
{
    const mm_loader_params *p = &l->params;
    cs_random r = {p->seed, CS_STREAM_AUGMENT, (epoch * l->data->count + sample) * 16};
    float x = cs_random_float(&r), y = cs_random_float(&r);
    uint32_t range = 2 * (uint32_t)p->shift + 1;
    mm_augment a = {.flip_x = p->flip_x && x < 0.5f, .flip_y = p->flip_y && y < 0.5f};
    a.dx = (int)cs_random_below(&r, range) - p->shift;
    a.dy = (int)cs_random_below(&r, range) - p->shift;
    return a;
}

static bool write_patches(mm_loader *l, uint32_t sample, float *out)
{
    mm_image loose = {0};
    const mm_image *picture = get_picture(l, l->data->samples[sample].image, &loose);
    if (!picture)
        return false;
    mm_augment augment = draw_augment(l, l->step / mm_plan_batches(&l->plan), sample);
    bool ok = mm_image_patches(picture, &l->params.format.picture, &augment, out);
    mm_image_free(&loose);
    return ok;
}

/* ---- one batch ---- */

static void mark_bad(mm_loader *l, int32_t image)
{
    cs_log(CS_LOG_WARN, "skipped: %s", cs_error());
    l->state[image] = BAD;
    pthread_mutex_lock(&l->lock);
    l->stats.bad_images++;
    pthread_mutex_unlock(&l->lock);
}

/* Whether the sample's picture, if it has one, can be read; looks at the file unless it is known already. */
static bool usable(mm_loader *l, uint32_t sample)
{
    int32_t image = l->data->samples[sample].image;
    if (image < 0 || l->state[image] != UNSEEN)
        return image < 0 || l->state[image] == GOOD;
    mm_image loose = {0};
    bool ok = get_picture(l, image, &loose) != NULL;
    mm_image_free(&loose);
    l->state[image] = GOOD;
    if (!ok)
        mark_bad(l, image);
    return ok;
}

/* The sample at this place of the plan, or with skip_bad the next one that can be read. */
static bool choose(mm_loader *l, uint32_t place, uint32_t *chosen)
{
    *chosen = l->used[place];
    if (!l->params.skip_bad || !l->params.shuffle)
        return true;
    for (size_t tried = 0; tried < l->used_count; tried++) {
        *chosen = l->used[(place + tried) % l->used_count];
        if (usable(l, *chosen))
            return true;
    }
    return cs_fail("%s: none of its pictures can be read", l->data->path);
}

static bool fill_batch(mm_loader *l, const uint32_t *places, size_t count, mm_batch *batch)
{
    for (size_t i = 0; i < count; i++) {
        if (!choose(l, places[i], &l->chosen_index[i]))
            return false;
        l->chosen[i] = &l->sequences[l->chosen_index[i]];
    }
    if (!mm_batch_make(&l->params.format, l->chosen, (int)count, batch))
        return false;
    memcpy(batch->sample_index, l->chosen_index, count * sizeof *batch->sample_index);
    size_t picture = (size_t)batch->patches_per_image * (size_t)batch->patch_values;
    for (size_t i = 0; i < count; i++)
        if (batch->image_index[i] >= 0 &&
            !write_patches(l, l->chosen_index[i], batch->patches + (size_t)batch->image_index[i] * picture))
            return false;
    return true;
}

static mm_batch *make_batch(mm_loader *l)
{
    size_t count;
    const uint32_t *places = mm_plan_step(&l->plan, l->step, &count);
    mm_batch *batch = cs_alloc(1, sizeof *batch, "a batch");
    if (batch && !fill_batch(l, places, count, batch)) {
        mm_batch_free(batch);
        free(batch);
        return NULL;
    }
    return batch;
}

/* ---- the thread ---- */

/* Waits for a free place; false when the thread has to end. */
static bool wait_for_room(mm_loader *l)
{
    pthread_mutex_lock(&l->lock);
    while (!l->stop && l->waiting == (size_t)l->params.prefetch)
        pthread_cond_wait(&l->taken, &l->lock);
    bool go_on = !l->stop;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void finish(mm_loader *l, const char *error)
{
    pthread_mutex_lock(&l->lock);
    l->done = true;
    l->error = error ? cs_strdup(error) : NULL;
    if (error && !l->error)
        l->error = strdup("out of memory");
    pthread_cond_signal(&l->filled);
    pthread_mutex_unlock(&l->lock);
}

static void *load(void *user)
{
    mm_loader *l = user;
    uint64_t end = (uint64_t)l->params.epochs * mm_plan_batches(&l->plan);
    for (; (!l->params.epochs || l->step < end) && wait_for_room(l); l->step++) {
        uint64_t began = cs_trace_now();
        mm_batch *batch = make_batch(l);
        cs_trace_end(CS_TRACE_LOADER, "make a batch", began);
        if (!batch)
            return finish(l, cs_error()), NULL;
        pthread_mutex_lock(&l->lock);
        l->queue[(l->head + l->waiting++) % (size_t)l->params.prefetch] = batch;
        pthread_cond_signal(&l->filled);
        pthread_mutex_unlock(&l->lock);
    }
    finish(l, NULL);
    return NULL;
}

bool mm_loader_next(mm_loader *l, mm_batch **batch)
{
    *batch = NULL;
    pthread_mutex_lock(&l->lock);
    while (!l->waiting && !l->done)
        pthread_cond_wait(&l->filled, &l->lock);
    if (l->waiting) {
        *batch = l->queue[l->head];
        l->head = (l->head + 1) % (size_t)l->params.prefetch;
        l->waiting--;
        uint64_t rows = (uint64_t)(*batch)->samples * (uint64_t)(*batch)->tokens, tokens = 0;
        for (int i = 0; i < (*batch)->samples; i++)
            tokens += (uint64_t)(*batch)->length[i];
        l->stats.tokens += tokens;
        l->stats.padding += rows - tokens;
        pthread_cond_signal(&l->taken);
    }
    bool ok = *batch || !l->error || cs_fail("%s", l->error);
    pthread_mutex_unlock(&l->lock);
    return ok;
}

/* ---- opening and closing ---- */

/* Those whose question alone takes max_tokens are left out. */
static void use_sample(mm_loader *l, uint32_t sample)
{
    const mm_sequence *s = &l->sequences[sample];
    if (!mm_batch_measure(&s, 1).labels)
        return;
    l->used[l->used_count] = sample;
    l->lengths[l->used_count++] = s->length;
}

static bool encode_all(mm_loader *l)
{
    const mm_dataset *d = l->data;
    const mm_format *f = &l->params.format;
    for (size_t i = 0; i < d->count; i++) {
        const mm_sample *s = &d->samples[i];
        if (!mm_sequence_encode(f, s->turns, s->turn_count, s->image >= 0, &l->sequences[i]) ||
            !mm_sequence_limit(f, &l->sequences[i], &l->stats.dropped_turns, &l->stats.cut_samples))
            return cs_fail_in("%s:%u: sample %u", d->path, s->line, s->index);
        use_sample(l, (uint32_t)i);
    }
    if (l->stats.dropped_turns || l->stats.cut_samples)
        cs_log(CS_LOG_WARN, "%s: max_tokens %d: %zu turns dropped, %zu samples cut", d->path, f->max_tokens,
               l->stats.dropped_turns, l->stats.cut_samples);
    if (l->used_count < d->count)
        cs_log(CS_LOG_WARN, "%s: max_tokens %d leaves %zu samples without an answer: they are left out", d->path,
               f->max_tokens, d->count - l->used_count);
    return l->used_count ||
           cs_fail("%s: max_tokens %d leaves no sample an answer to learn", d->path, f->max_tokens);
}

static bool check_params(const mm_loader_params *p)
{
    if (p->batch < 1 || p->prefetch < 1 || p->epochs < 0 || p->shift < 0)
        return cs_fail("loading data: batch %d, prefetch %d, epochs %d, shift %d: a value is out of range", p->batch,
                       p->prefetch, p->epochs, p->shift);
    if (p->format.picture.patch < 1 || p->format.picture.size % p->format.picture.patch)
        return cs_fail("loading data: patches of %d pixels do not divide pictures of %d", p->format.picture.patch,
                       p->format.picture.size);
    return true;
}

static bool prepare(mm_loader *l)
{
    const mm_dataset *d = l->data;
    const mm_loader_params *p = &l->params;
    static const char what[] = "the loader";
    if (!check_params(p))
        return false;
    if (!d->count)
        return cs_fail("%s: has no samples", d->path);
    if (!(l->sequences = cs_alloc(d->count, sizeof *l->sequences, what)) ||
        !(l->used = cs_alloc(d->count, sizeof *l->used, what)) ||
        !(l->lengths = cs_alloc(d->count, sizeof *l->lengths, what)) ||
        !(l->cache = cs_alloc(d->image_count, sizeof *l->cache, what)) ||
        !(l->state = cs_alloc(d->image_count, sizeof *l->state, what)) ||
        !(l->chosen = cs_alloc((size_t)p->batch, sizeof *l->chosen, what)) ||
        !(l->chosen_index = cs_alloc((size_t)p->batch, sizeof *l->chosen_index, what)) ||
        !(l->queue = cs_alloc((size_t)p->prefetch, sizeof *l->queue, what)))
        return false;
    if (!encode_all(l))
        return false;
    l->plan =
        (mm_plan){l->used_count, (size_t)p->batch, p->shuffle, p->group_by_length, p->seed, .lengths = l->lengths};
    return mm_plan_open(&l->plan);
}

mm_loader *mm_loader_open(const mm_dataset *data, const mm_loader_params *params, uint64_t first_step)
{
    mm_loader *l = cs_alloc(1, sizeof *l, "the loader");
    if (!l)
        return NULL;
    l->params = *params;
    l->data = data;
    l->step = first_step;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->filled, NULL);
    pthread_cond_init(&l->taken, NULL);
    if (prepare(l)) {
        l->started = pthread_create(&l->thread, NULL, load, l) == 0;
        if (l->started)
            return l;
        cs_fail("loading data: cannot start a thread");
    }
    mm_loader_close(l);
    return NULL;
}

/* ---- the largest batches ---- */

/* Batches of the plan of which none covers another. */
typedef struct largest {
    struct large {
        mm_batch_size size;
        uint64_t step;
    } *items;
    size_t count, capacity;
} largest;

static bool covers(const mm_batch_size *a, const mm_batch_size *b)
{
    return a->tokens >= b->tokens && a->images >= b->images && a->labels >= b->labels;
}

static bool keep_large(largest *l, const mm_batch_size *size, uint64_t step)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++)
        if (covers(&l->items[i].size, size))
            return true;
    for (size_t i = 0; i < l->count; i++)
        if (!covers(size, &l->items[i].size))
            l->items[kept++] = l->items[i];
    l->count = kept;
    if (!cs_grow(&l->items, &l->capacity, l->count + 1, sizeof *l->items, "the largest batches"))
        return false;
    l->items[l->count++] = (struct large){*size, step};
    return true;
}

static int sequences_of_step(const mm_loader *l, mm_plan *plan, uint64_t step, const mm_sequence **sequences)
{
    size_t count;
    const uint32_t *places = mm_plan_step(plan, step, &count);
    for (size_t i = 0; i < count; i++)
        sequences[i] = &l->sequences[l->used[places[i]]];
    return (int)count;
}

static bool find_largest(const mm_loader *l, mm_plan *plan, uint64_t first, uint64_t steps, const mm_sequence **chosen,
                         mm_batch **batches, size_t *count)
{
    largest found = {0};
    bool ok = true;
    for (uint64_t step = first; ok && step < first + steps; step++) {
        int samples = sequences_of_step(l, plan, step, chosen);
        mm_batch_size size = mm_batch_measure(chosen, samples);
        ok = keep_large(&found, &size, step);
    }
    ok = ok && (*batches = cs_alloc(found.count, sizeof **batches, "the largest batches"));
    for (size_t i = 0; ok && i < found.count; i++) {
        int samples = sequences_of_step(l, plan, found.items[i].step, chosen);
        ok = mm_batch_make(&l->params.format, chosen, samples, &(*batches)[i]);
        *count += ok;
    }
    free(found.items);
    return ok;
}

bool mm_loader_largest(const mm_loader *l, uint64_t first, uint64_t steps, mm_batch **batches, size_t *count)
{
    const mm_sequence **chosen = cs_alloc((size_t)l->params.batch, sizeof *chosen, "the largest batches");
    mm_plan plan = {.samples = l->plan.samples, .batch = l->plan.batch, .shuffle = l->plan.shuffle,
                    .group = l->plan.group, .seed = l->plan.seed, .lengths = l->lengths};
    *batches = NULL;
    *count = 0;
    bool ok = chosen && mm_plan_open(&plan) && find_largest(l, &plan, first, steps, chosen, batches, count);
    for (; !ok && *count; --*count)
        mm_batch_free(&(*batches)[*count - 1]);
    if (!ok) {
        free(*batches);
        *batches = NULL;
    }
    mm_plan_close(&plan);
    free(chosen);
    return ok;
}

uint64_t mm_loader_steps_per_epoch(const mm_loader *l)
{
    return mm_plan_batches(&l->plan);
}

mm_loader_stats mm_loader_get_stats(mm_loader *l)
{
    pthread_mutex_lock(&l->lock);
    mm_loader_stats stats = l->stats;
    pthread_mutex_unlock(&l->lock);
    return stats;
}

static void stop_thread(mm_loader *l)
{
    if (!l->started)
        return;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->taken);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
}

void mm_loader_close(mm_loader *l)
{
    if (!l)
        return;
    stop_thread(l);
    for (; l->queue && l->waiting; l->waiting--, l->head = (l->head + 1) % (size_t)l->params.prefetch) {
        mm_batch_free(l->queue[l->head]);
        free(l->queue[l->head]);
    }
    for (size_t i = 0; l->sequences && i < l->data->count; i++)
        mm_sequence_free(&l->sequences[i]);
    for (size_t i = 0; l->cache && i < l->data->image_count; i++)
        mm_image_free(&l->cache[i]);
    mm_plan_close(&l->plan);
    pthread_cond_destroy(&l->taken);
    pthread_cond_destroy(&l->filled);
    pthread_mutex_destroy(&l->lock);
    free(l->sequences);
    free(l->used);
    free(l->lengths);
    free(l->cache);
    free(l->state);
    free(l->chosen);
    free(l->chosen_index);
    free(l->queue);
    free(l->error);
    free(l);
}
