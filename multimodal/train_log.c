#include "multimodal/train_log.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

struct mm_train_log {
    FILE *file;
    char *path;
    const mm_model *model;
    int every;
    double begin, last; /* seconds of the first and of the latest record */
    uint64_t first;     /* steps done when it began */
    /* Of the latest steps, fading: steps are read in bursts, so one step's own time means little. */
    double tokens, seconds;
    double rate; /* tokens per second of these */
    double loss; /* smoothed, for the eye */
    bool started;
};

int mm_train_log_floats(const mm_mixture *x)
{
    return NN_MOE_LOSSES + 1 + x->moe->config.experts;
}

/* One run at a time writes to it. Where the file system has no locks, nothing is kept out. */
static bool lock_log(FILE *file, const char *path)
{
    if (flock(fileno(file), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return true;
    return cs_fail("%s: another training is writing to this run", path);
}

/* Cuts the file behind the last whole line whose step is at most `done`. */
static bool cut_log(FILE *file, const char *path, uint64_t done)
{
    char *line = NULL;
    size_t room = 0;
    off_t kept = 0;
    rewind(file);
    for (ssize_t length; (length = getline(&line, &room, file)) > 0 && line[length - 1] == '\n'; kept += length) {
        uint64_t step;
        if (sscanf(line, "{\"step\": %" SCNu64, &step) == 1 && step > done)
            break;
    }
    free(line);
    return (!ferror(file) && ftruncate(fileno(file), kept) == 0 && fseeko(file, 0, SEEK_END) == 0) ||
           cs_fail("%s: cannot shorten: %s", path, strerror(errno));
}

mm_train_log *mm_train_log_open(const char *run, const mm_model *model, uint64_t done, int every)
{
    mm_train_log *l = cs_alloc(1, sizeof *l, "the log");
    if (!l)
        return NULL;
    *l = (mm_train_log){.model = model, .every = every, .first = done, .begin = cs_seconds(), .last = cs_seconds()};
    l->path = cs_join(run, "log.jsonl");
    if (l->path && !(l->file = fopen(l->path, "a+")))
        cs_fail("%s: cannot write: %s", l->path, strerror(errno));
    if (l->file && lock_log(l->file, l->path) && cut_log(l->file, l->path, done))
        return l;
    if (l->file)
        fclose(l->file);
    free(l->path);
    free(l);
    return NULL;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

/* NaN and infinity are not JSON: null. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *mixture_json(const mm_mixture *x, const float *f, bool competed)
{
    json_t *o = json_object(), *load = json_array();
    json_object_set_new(o, "name", json_string(x->name));
    json_object_set_new(o, "competed", json_boolean(competed));
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (isfinite(f[k]))
            json_object_set_new(o, nn_moe_loss_names[k], json_real(f[k]));
    json_object_set_new(o, "entropy", number(f[NN_MOE_LOSSES]));
    for (int e = 0; e < x->moe->config.experts; e++)
        json_array_append_new(load, number(f[NN_MOE_LOSSES + 1 + e]));
    json_object_set_new(o, "load", load);
    return o;
}

static bool write_line(mm_train_log *l, const mm_step_record *r)
{
    json_t *o = json_object();
    json_object_set_new(o, "step", json_integer((json_int_t)r->step));
    json_object_set_new(o, "loss", number(r->loss));
    json_object_set_new(o, "lr", number(r->lr));
    json_object_set_new(o, "grad_norm", number(r->norm));
    if (r->loss_scale > 0) {
        /* Whole ones with all digits, which may be more than 7. */
        bool whole = fmod(r->loss_scale, 1) == 0;
        json_object_set_new(o, "loss_scale",
                            whole ? json_integer((json_int_t)r->loss_scale) : json_real(r->loss_scale));
        json_object_set_new(o, "skipped", json_boolean(!isfinite(r->norm)));
    }
    json_object_set_new(o, "tokens", json_integer((json_int_t)r->tokens));
    json_object_set_new(o, "tokens_per_second", number(l->rate));
    json_object_set_new(o, "seconds", number(l->last - l->begin));
    json_object_set_new(o, "device_memory", json_integer((json_int_t)r->memory));
    json_t *layers = json_array();
    const float *f = r->mixtures;
    for (int i = 0; i < l->model->mixtures; i++) {
        json_array_append_new(layers, mixture_json(&l->model->mixture[i], f, r->competed && r->competed[i]));
        f += mm_train_log_floats(&l->model->mixture[i]);
    }
    json_object_set_new(o, "mixtures", layers);
    bool ok =
        json_dumpf(o, l->file, JSON_REAL_PRECISION(7)) == 0 && fputc('\n', l->file) != EOF && fflush(l->file) == 0;
    json_decref(o);
    return ok || cs_fail("%s: cannot write: %s", l->path, strerror(errno));
}

/* ---- the terminal ----------------------------------------------------------------------------------------------- */

static void duration(char *out, size_t size, double seconds)
{
    long s = seconds > 0 ? lrint(seconds) : 0;
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

static void show(const mm_train_log *l, const mm_step_record *r)
{
    char left[32], bar[25];
    double per_step = (l->last - l->begin) / (double)(r->step - l->first);
    duration(left, sizeof left, per_step * (double)(r->total - r->step));
    if (cs_progress_visible()) {
        char line[160];
        size_t full = (size_t)(24 * r->step / r->total);
        memset(bar, '.', 24);
        memset(bar, '#', full);
        bar[24] = 0;
        snprintf(line, sizeof line, "[%s] %" PRIu64 "/%" PRIu64 "  loss %.4f  %.0f tokens/s  ETA %s", bar, r->step,
                 r->total, l->loss, l->rate, left);
        cs_progress(line);
    } else if (r->step % (uint64_t)l->every == 0 || r->step == r->total) {
        cs_log(CS_LOG_INFO,
               "step %" PRIu64 "/%" PRIu64 "  loss %.4f  grad norm %.3f  lr %.2e  %.0f tokens/s  %.0f ms/step  ETA %s",
               r->step, r->total, l->loss, r->norm, r->lr, l->rate, 1e3 * per_step, left);
    }
}

bool mm_train_log_step(mm_train_log *l, const mm_step_record *r)
{
    double at = cs_seconds();
    l->tokens = 0.95 * l->tokens + (double)r->tokens;
    l->seconds = 0.95 * l->seconds + at - l->last;
    l->rate = l->tokens / fmax(l->seconds, 1e-6);
    l->loss = l->started ? 0.95 * l->loss + 0.05 * r->loss : r->loss;
    l->started = true;
    l->last = at;
    if (!write_line(l, r))
        return false;
    if (r->loss_scale > 0 && !isfinite(r->norm))
        cs_log(CS_LOG_INFO, "step %" PRIu64 ": gradients overflow with a loss scale of %g: step skipped, scale halved",
               r->step, r->loss_scale);
    show(l, r);
    return true;
}

bool mm_train_log_close(mm_train_log *l)
{
    if (!l)
        return true;
    cs_progress(NULL);
    bool ok = fclose(l->file) == 0 || cs_fail("%s: cannot write: %s", l->path, strerror(errno));
    free(l->path);
    free(l);
    return ok;
}
