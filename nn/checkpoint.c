#include "nn/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/safetensors.h"


static const struct {
    enum nn_part part;
    const char *prefix;
} moments[] = {{NN_FIRST_MOMENT, "m."}, {NN_SECOND_MOMENT, "v."}};

static void full_name(char *out, size_t size, const char *prefix, const nn_param *p)
{
    snprintf(out, size, "%s%s", prefix, p->name);
}

static bool declare(nn_st_writer *w, const char *prefix, const nn_param *p)
{
    char name[160];
    full_name(name, sizeof name, prefix, p);
    return nn_safetensors_declare(w, name, NN_ST_F32, p->tensor.dims, p->tensor.shape);
}

static bool put(nn_st_writer *w, nn_params *set, const nn_param *p, enum nn_part part)
{
    size_t n = (size_t)nn_count(&p->tensor);
    float *host = cs_alloc(n, sizeof *host, p->name);
    bool ok = host && nn_param_read(set, p, part, host) && nn_safetensors_put(w, host, n * sizeof *host);
    free(host);
    return ok;
}

static bool get(const nn_safetensors *st, const char *prefix, nn_params *set, const nn_param *p, enum nn_part part)
{
    char name[160];
    full_name(name, sizeof name, prefix, p);
    const nn_st_tensor *t = nn_safetensors_need(st, name, p->tensor.dims, p->tensor.shape);
    float *host = t ? cs_alloc((size_t)t->count, sizeof *host, name) : NULL;
    bool ok = host && nn_safetensors_read_f32(st, t, host) && nn_param_write(set, p, part, host);
    free(host);
    return ok;
}

bool nn_params_save(nn_params *set, const char *path)
{
    nn_st_writer *w = nn_safetensors_create(path);
    bool ok = w && nn_safetensors_add_metadata(w, "format", "csmoe");
    for (size_t i = 0; ok && i < nn_params_count(set); i++)
        ok = declare(w, "", nn_params_at(set, i));
    for (size_t i = 0; ok && i < nn_params_count(set); i++)
        ok = put(w, set, nn_params_at(set, i), NN_VALUE);
    if (!ok) {
        nn_safetensors_abort(w);
        return false;
    }
    return nn_safetensors_commit(w);
}

bool nn_params_load(nn_params *set, const char *path)
{
    nn_safetensors *st = nn_safetensors_open(path);
    bool ok = st;
    for (size_t i = 0; ok && i < nn_params_count(set); i++)
        ok = get(st, "", set, nn_params_at(set, i), NN_VALUE);
    for (size_t i = 0; ok && i < nn_safetensors_count(st); i++) {
        const char *name = nn_safetensors_at(st, i)->name;
        if (!nn_params_find(set, name))
            ok = cs_fail("%s: tensor '%s' does not belong to this configuration's model", path, name);
    }
    nn_safetensors_close(&st);
    return ok;
}

/* ---- training state --------------------------------------------------------------------------------------------- */

static const char loss_scale_key[] = "loss_scale";

static bool write_loss_scale(nn_st_writer *w, const nn_loss_scale *s)
{
    char text[64];
    snprintf(text, sizeof text, "%.9g good %" PRIu32 " skipped %" PRIu32, s->scale, s->good, s->skipped);
    return s->scale == 0 || nn_safetensors_add_metadata(w, loss_scale_key, text);
}

static bool read_loss_scale(const nn_safetensors *st, nn_loss_scale *s)
{
    const char *text = nn_safetensors_metadata(st, loss_scale_key);
    *s = (nn_loss_scale){0};
    return !text || sscanf(text, "%g good %" SCNu32 " skipped %" SCNu32, &s->scale, &s->good, &s->skipped) == 3 ||
           cs_fail("%s: metadata '%s' is damaged", nn_safetensors_path(st), loss_scale_key);
}

static bool write_state(nn_st_writer *w, nn_params *set, const nn_train_state *s)
{
    char number[32];
    bool ok = nn_safetensors_add_metadata(w, "format", "csmoe-trainer");
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"step", s->step}, {"seed", s->seed}, {"schedule_first", (uint64_t)s->schedule_first}};
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(number, sizeof number, "%" PRIu64, numbers[i].value);
        ok = nn_safetensors_add_metadata(w, numbers[i].key, number);
    }
    ok = ok && write_loss_scale(w, &s->loss_scale);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; ok && i < nn_params_count(set); i++)
            if (nn_params_at(set, i)->trainable)
                ok = declare(w, moments[k].prefix, nn_params_at(set, i));
    if (ok && s->schedule)
        ok = nn_safetensors_declare(w, "competition.table", NN_ST_U8, 2,
                                    (int64_t[]){s->schedule_layers, s->schedule_steps});
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; ok && i < nn_params_count(set); i++)
            if (nn_params_at(set, i)->trainable)
                ok = put(w, set, nn_params_at(set, i), moments[k].part);
    if (ok && s->schedule)
        ok = nn_safetensors_put(w, s->schedule, (size_t)(s->schedule_layers * s->schedule_steps));
    return ok;
}

bool nn_train_state_save(nn_params *set, const nn_train_state *state, const char *path)
{
    nn_st_writer *w = nn_safetensors_create(path);
    if (!w || !write_state(w, set, state)) {
        nn_safetensors_abort(w);
        return false;
    }
    return nn_safetensors_commit(w);
}

static bool read_number(const nn_safetensors *st, const char *key, uint64_t *value)
{
    const char *text = nn_safetensors_metadata(st, key);
    char *end = NULL;
    if (text)
        *value = strtoull(text, &end, 10);
    if (!text || !*text || *end)
        return cs_fail("%s: metadata '%s' is missing or not a number", nn_safetensors_path(st), key);
    return true;
}

static bool read_state(const nn_safetensors *st, nn_params *set, nn_train_state *s)
{
    uint64_t first = 0;
    if (!read_number(st, "step", &s->step) || !read_number(st, "seed", &s->seed) ||
        !read_number(st, "schedule_first", &first) || !read_loss_scale(st, &s->loss_scale))
        return false;
    s->schedule_first = (int64_t)first;
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < nn_params_count(set); i++) {
            const nn_param *p = nn_params_at(set, i);
            if (p->trainable && !get(st, moments[k].prefix, set, p, moments[k].part))
                return false;
        }
    const nn_st_tensor *t = nn_safetensors_find(st, "competition.table");
    if (!t)
        return true;
    if (t->dims != 2 || t->type != NN_ST_U8)
        return cs_fail("%s: 'competition.table' is not a matrix of bytes", nn_safetensors_path(st));
    s->schedule_layers = t->shape[0];
    s->schedule_steps = t->shape[1];
    s->schedule = cs_alloc((size_t)t->count, 1, "the competition schedule");
    return s->schedule && nn_safetensors_read(st, t, s->schedule);
}

bool nn_train_state_load(nn_params *set, nn_train_state *state, const char *path)
{
    *state = (nn_train_state){0};
    nn_safetensors *st = nn_safetensors_open(path);
    bool ok = st && read_state(st, set, state);
    nn_safetensors_close(&st);
    if (!ok) {
        free(state->schedule);
        state->schedule = NULL;
    }
    return ok;
}
