#include "multimodal/run.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

static char *step_name(const char *run, uint64_t step)
{
    char name[40];
    snprintf(name, sizeof name, "step-%08" PRIu64, step);
    return cs_join(run, name);
}

/* The step of a checkpoint folder's name, -1 for another name. */
static int64_t step_of(const char *name)
{
    uint64_t step;
    int used = 0;
    if (sscanf(name, "step-%" SCNu64 "%n", &step, &used) != 1 || name[used])
        return -1;
    return (int64_t)step;
}

/* Highest step, below `below`, of the checkpoints in the run folder; -1 for none. */
static int64_t newest_step(const char *run, int64_t below)
{
    DIR *d = opendir(run);
    int64_t newest = -1;
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step > newest && step < below)
            newest = step;
    }
    if (d)
        closedir(d);
    return newest;
}

bool mm_run_exists(const char *path)
{
    return newest_step(path, INT64_MAX) >= 0;
}

char *mm_run_checkpoint(const char *path)
{
    /* Not config.json: the configuration that a run was started from may lie in its folder. */
    char *model = cs_join(path, "model.safetensors");
    if (!model)
        return NULL;
    bool itself = cs_is_file(model);
    free(model);
    if (itself)
        return cs_strdup(path);
    if (!cs_is_folder(path))
        return cs_fail("%s: there is no such run folder", path), NULL;
    int64_t step = newest_step(path, INT64_MAX);
    if (step < 0)
        return cs_fail("%s: the folder has no checkpoint (step-*/model.safetensors)", path), NULL;
    return step_name(path, (uint64_t)step);
}

bool mm_run_prepare(const char *path)
{
    if (!cs_make_folder(path))
        return false;
    return access(path, W_OK) == 0 || cs_fail("%s: the folder is not writable: %s", path, strerror(errno));
}

bool mm_run_clear(const char *path)
{
    DIR *d = opendir(path);
    bool ok = d || cs_fail("%s: cannot open the folder: %s", path, strerror(errno));
    for (struct dirent *e; ok && (e = readdir(d));) {
        if (strncmp(e->d_name, "step-", 5) || !strstr(e->d_name, ".tmp-"))
            continue;
        char *left = cs_join(path, e->d_name);
        ok = left && cs_remove_folder(left);
        free(left);
    }
    if (d)
        closedir(d);
    return ok;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static bool write_parts(const char *folder, const mm_model *m, const mm_tokenizer *tokenizer,
                        const nn_train_state *state)
{
    char *config = cs_join(folder, "config.json"), *model = cs_join(folder, "model.safetensors"),
         *pieces = cs_join(folder, "tokenizer.model"), *trainer = cs_join(folder, "trainer.safetensors");
    size_t size;
    const void *bytes = mm_tokenizer_model(tokenizer, &size);
    bool ok = config && model && pieces && trainer && mm_config_write(m->config, config) &&
              nn_params_save(m->params, model) && cs_write_file(pieces, bytes, size) &&
              (!state || nn_train_state_save(m->params, state, trainer));
    free(config);
    free(model);
    free(pieces);
    free(trainer);
    return ok;
}

bool mm_checkpoint_write(const char *folder, const mm_model *model, const mm_tokenizer *tokenizer,
                         const nn_train_state *state)
{
    cs_folder *f = cs_folder_begin(folder, false);
    if (f && write_parts(cs_folder_path(f), model, tokenizer, state))
        return cs_folder_commit(f);
    cs_folder_abort(f);
    return false;
}

static bool prune(const char *run, uint64_t newest, int keep)
{
    int64_t step = (int64_t)newest;
    for (int i = 1; i < keep && step >= 0; i++)
        step = newest_step(run, step);
    while (step >= 0 && (step = newest_step(run, step)) >= 0) {
        char *old = step_name(run, (uint64_t)step);
        bool ok = old && cs_remove_folder(old);
        free(old);
        if (!ok)
            return false;
    }
    return true;
}

bool mm_run_save(const char *run, const mm_model *model, const mm_tokenizer *tokenizer, const nn_train_state *state,
                 int keep)
{
    char *folder = step_name(run, state->step);
    if (!folder)
        return false;
    /* The same step again (resumed at its end) holds the same bits. */
    bool ok = cs_is_folder(folder) || mm_checkpoint_write(folder, model, tokenizer, state);
    free(folder);
    return ok && prune(run, state->step, keep);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool load(mm_loaded *l, const char *folder, vk_device *device, const char *const *sets, size_t set_count)
{
    char *config = cs_join(folder, "config.json"), *model = cs_join(folder, "model.safetensors"),
         *pieces = cs_join(folder, "tokenizer.model");
    bool ok = config && model && pieces && mm_config_read(&l->config, config, sets, set_count) &&
              (l->tokenizer = mm_tokenizer_load(pieces)) &&
              (l->model = mm_model_new(device, &l->config, mm_tokenizer_size(l->tokenizer), false)) &&
              nn_params_load(l->model->params, model) && mm_config_format(&l->config, l->tokenizer, &l->format);
    free(config);
    free(model);
    free(pieces);
    return ok;
}

bool mm_load(mm_loaded *l, const char *path, vk_device *device, const char *const *sets, size_t set_count)
{
    memset(l, 0, sizeof *l);
    char *folder = mm_run_checkpoint(path);
    bool ok = folder && load(l, folder, device, sets, set_count);
    free(folder);
    return ok;
}

void mm_unload(mm_loaded *l)
{
    mm_model_free(&l->model);
    mm_tokenizer_free(l->tokenizer);
    mm_config_release(&l->config);
    l->tokenizer = NULL;
}
