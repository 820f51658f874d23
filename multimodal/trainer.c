#include "multimodal/trainer_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/trace.h"
#include "multimodal/run.h"
#include "nn/competition_schedule.h"

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static bool open_data(trainer *t)
{
    const mm_data_config *d = &t->config.data;
    const mm_dataset_params dataset = {.image_root = d->image_root, .skip_bad = d->skip_bad};
    return (t->data = mm_dataset_open(d->train, &dataset));
}

static bool open_loader(trainer *t, uint64_t first)
{
    const mm_data_config *d = &t->config.data;
    mm_loader_params p = {
        .format = t->format,
        .batch = t->config.train.batch,
        .shuffle = true,
        .group_by_length = d->group_by_length,
        .seed = (uint64_t)t->config.seed,
        .flip_x = d->flip_x,
        .flip_y = d->flip_y,
        .shift = d->shift,
        .prefetch = d->prefetch,
        .cache_bytes = (size_t)d->cache_mib << 20,
        .skip_bad = d->skip_bad,
    };
    t->loader = mm_loader_open(t->data, &p, first * (uint64_t)t->config.train.accumulate);
    return t->loader;
}

static bool need(const char *value, const char *key, const char *config)
{
    return value || cs_fail("%s: %s is not set: name a file there or with --set %s=FILE", config, key, key);
}

/* Training works without them; but what should be marks are then words, which mean something already or nothing at
 * all. */
static void warn_of_marks(const trainer *t)
{
    const char *end = mm_template_end(t->format.conversation);
    if (end && mm_tokenizer_id(t->tokenizer, end) < 0)
        cs_log(CS_LOG_WARN,
               "%s: data.template %s: there is no piece '%s', so that the template's marks fall into pieces; "
               "csmoe tokenizer train makes one with --symbol '%s'",
               t->config.data.tokenizer, t->config.data.conversation, end, end);
}

static bool open_inputs(trainer *t)
{
    const mm_train_params *p = t->params;
    bool ok = mm_config_read(&t->config, p->config, p->sets, p->set_count) &&
              need(t->config.data.train, "data.train", p->config) &&
              need(t->config.data.tokenizer, "data.tokenizer", p->config) &&
              (t->tokenizer = mm_tokenizer_load(t->config.data.tokenizer)) &&
              mm_config_format(&t->config, t->tokenizer, &t->format);
    if (ok)
        warn_of_marks(t);
    return ok;
}

static bool open_device(trainer *t, bool dry)
{
    const mm_train_params *p = t->params;
    t->borrowed = p->on && !dry;
    t->device = t->borrowed ? p->on : vk_open(&(vk_params){.selector = p->device, .profile = p->profile != NULL});
    if (t->borrowed)
        vk_memory_reset_peak(t->device);
    return t->device && (!dry || vk_dry(t->device, true));
}

/* What was recorded on a borrowed device may still read host memory of this run. */
static void close_device(trainer *t)
{
    if (!t->borrowed)
        vk_close(&t->device);
    else
        vk_wait(t->device, vk_submit(t->device));
}

static bool open_model(trainer *t)
{
    return (t->model = mm_model_new(t->device, &t->config, mm_tokenizer_size(t->tokenizer), true)) &&
           (t->tape = nn_tape_new(t->device));
}

static bool scales_loss(const trainer *t)
{
    return mm_config_precision(&t->config) == NN_F16;
}

/* After a checkpoint has been loaded, if any: its loss scale goes on. */
static bool set_precision(trainer *t)
{
    const mm_train_config *c = &t->config.train;
    nn_tape_set_precision(t->tape, mm_config_precision(&t->config));
    if (!scales_loss(t))
        return true;
    if (t->state.loss_scale.scale == 0)
        t->state.loss_scale = (nn_loss_scale){.scale = c->loss_scale};
    if (!nn_params_scale_loss(t->model->params, &t->state.loss_scale, (uint32_t)c->loss_scale_growth))
        return false;
    nn_tape_set_loss_scale(t->tape, nn_params_loss_scale(t->model->params));
    return true;
}

static uint64_t total_steps(const trainer *t)
{
    const mm_train_config *c = &t->config.train;
    uint64_t micro = mm_loader_steps_per_epoch(t->loader) * (uint64_t)c->epochs, accumulate = (uint64_t)c->accumulate;
    return c->steps ? (uint64_t)c->steps : (micro + accumulate - 1) / accumulate;
}

/* Draws the competition schedule, unless a checkpoint has brought it. */
static bool make_schedule(trainer *t)
{
    const mm_competition_config *c = &t->config.competition;
    nn_train_state *s = &t->state;
    if (!t->model->mixtures)
        return true;
    if (!s->schedule && !nn_competition_draw(t->model->mixtures, t->total, c->rate, c->warmup, c->max_layers,
                                             (uint64_t)t->config.seed, s))
        return false;
    const uint64_t end = (uint64_t)s->schedule_first + (uint64_t)s->schedule_steps;
    if (s->schedule_layers != t->model->mixtures || s->schedule_first < 0 || s->schedule_steps < 0 || end != t->total)
        return cs_fail("%s: the checkpoint's competition schedule is for %lld mixtures and ends at step %llu, this run "
                       "has %d mixtures and %llu steps; has %s changed?",
                       t->params->out, (long long)s->schedule_layers, (unsigned long long)end, t->model->mixtures,
                       (unsigned long long)t->total, t->config.data.train);
    size_t mixtures = (size_t)t->model->mixtures;
    if (!(t->compete = cs_alloc((size_t)t->total, mixtures, "the competition schedule")))
        return false;
    for (uint64_t step = (uint64_t)s->schedule_first; step < t->total; step++)
        for (size_t i = 0; i < mixtures; i++)
            t->compete[step * mixtures + i] =
                s->schedule[(int64_t)i * s->schedule_steps + (int64_t)step - s->schedule_first];
    return true;
}

static bool same_config(const trainer *t, const char *folder)
{
    char *path = cs_join(folder, "config.json");
    mm_config *saved = cs_alloc(1, sizeof *saved, "the configuration");
    bool ok = path && saved && mm_config_read(saved, path, NULL, 0) &&
              mm_decoder_complete(&saved->text, mm_tokenizer_size(t->tokenizer));
    if (ok && !cs_config_same(&t->config.tables, &saved->tables))
        ok = cs_fail_in("%s: this checkpoint is of another configuration", path);
    if (saved)
        mm_config_release(saved);
    free(saved);
    free(path);
    return ok;
}

static bool same_tokenizer(const trainer *t, const char *folder)
{
    enum { LIMIT = 1 << 30 };
    size_t size, saved_size;
    const void *model = mm_tokenizer_model(t->tokenizer, &size);
    char *path = cs_join(folder, "tokenizer.model"), *saved = path ? cs_read_file(path, LIMIT, &saved_size) : NULL;
    bool ok = saved;
    if (ok && (size != saved_size || memcmp(model, saved, size) != 0))
        ok = cs_fail("%s: this checkpoint was trained with another tokenizer than %s is now", path,
                     t->config.data.tokenizer);
    free(saved);
    free(path);
    return ok;
}

static bool load_checkpoint(trainer *t)
{
    char *folder = mm_run_checkpoint(t->params->out);
    if (!folder)
        return false;
    char *model = cs_join(folder, "model.safetensors"), *state = cs_join(folder, "trainer.safetensors");
    bool ok = model && state && same_config(t, folder) && same_tokenizer(t, folder) &&
              nn_params_load(t->model->params, model) &&
              nn_train_state_load(t->model->params, &t->state, state);
    if (ok)
        cs_log(CS_LOG_INFO, "going on from %s", folder);
    free(model);
    free(state);
    free(folder);
    return ok;
}

static bool open_run(trainer *t)
{
    const char *out = t->params->out;
    if (!t->params->resume && mm_run_exists(out))
        return cs_fail("%s: has checkpoints already; go on from them with --resume or name another folder with --out",
                       out);
    if (t->params->resume && !mm_run_exists(out))
        return cs_fail("%s: has no checkpoint to go on from; leave out --resume to start a new run", out);
    t->state.seed = (uint64_t)t->config.seed;
    return !t->params->resume || load_checkpoint(t);
}

static bool make_buffers(trainer *t)
{
    size_t accumulate = (size_t)t->config.train.accumulate, mixtures = (size_t)t->model->mixtures;
    t->figure_count = accumulate + NORM_FIGURES;
    for (size_t i = 0; i < mixtures; i++)
        t->figure_count += (uint64_t)mm_train_log_floats(&t->model->mixture[i]);
    if (t->figure_count * 4 > VK_READ_LATER_BYTES)
        return cs_fail("train.accumulate %d with %d mixtures of experts: a step has %llu figures for the log, at most "
                       "%d are read back", t->config.train.accumulate, t->model->mixtures,
                       (unsigned long long)t->figure_count, VK_READ_LATER_BYTES / 4);
    t->figures = vk_alloc(t->device, t->figure_count * 4, VK_MEMORY_DEVICE, "the log's figures");
    t->figures.size = t->figure_count * 4;
    t->batches = cs_alloc(accumulate, sizeof *t->batches, "the batches");
    t->roots = cs_alloc(1 + mixtures * NN_MOE_LOSSES, sizeof *t->roots, "the losses");
    return t->figures.block && t->batches && t->roots;
}

bool mm_trainer_make(trainer *t)
{
    return open_model(t) && set_precision(t) && make_buffers(t);
}

bool mm_trainer_open(trainer *t, bool dry)
{
    if (!open_inputs(t) || !open_data(t) || !open_device(t, dry) || !open_model(t) || (!dry && !open_run(t)) ||
        !set_precision(t) || !open_loader(t, t->state.step))
        return false;
    t->total = total_steps(t);
    t->read = t->state.step;
    if (!make_schedule(t) || !make_buffers(t))
        return false;
    /* The run's folder comes after everything that may be wrong with the inputs, so that a mistake leaves none
     * behind. */
    const char *out = t->params->out;
    return dry || (mm_run_prepare(out) &&
                   (t->log = mm_train_log_open(out, t->model, t->state.step, t->config.train.log_every)) &&
                   mm_run_clear(out));
}

bool mm_trainer_close(trainer *t)
{
    bool ok = mm_train_log_close(t->log);
    mm_loader_close(t->loader);
    mm_dataset_close(t->data);
    nn_tape_free(&t->tape);
    if (t->device)
        vk_free(t->device, &t->figures);
    mm_model_free(&t->model);
    mm_tokenizer_free(t->tokenizer);
    close_device(t);
    free(t->state.schedule);
    free(t->compete);
    free(t->roots);
    mm_trainer_free_batches(t);
    free(t->batches);
    mm_config_release(&t->config);
    return ok;
}

/* ---- one step --------------------------------------------------------------------------------------------------- */

static bool copy_figure(trainer *t, uint64_t at, const nn_tensor *from)
{
    if (!from)
        return true;
    uint64_t bytes = (uint64_t)nn_count(from) * 4;
    vk_range src = nn_read_bind(from).range, dst = {t->figures.block, t->figures.offset + at * 4, bytes};
    src.size = bytes;
    return vk_copy(t->device, dst, src);
}

/* Marks the figures of a mixture that did not run (a tower without a picture to see) as missing. */
static bool mark_missing(trainer *t, uint64_t at, int count)
{
    const float missing = NAN;
    uint32_t bits;
    memcpy(&bits, &missing, sizeof bits);
    vk_range dst = {t->figures.block, t->figures.offset + at * 4, (uint64_t)count * 4};
    return vk_fill(t->device, dst, bits);
}

static bool copy_mixture(trainer *t, uint64_t at, const nn_moe_result *r)
{
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (!copy_figure(t, at + (uint64_t)k, r->loss[k]))
            return false;
    return copy_figure(t, at + NN_MOE_LOSSES, r->entropy) && copy_figure(t, at + NN_MOE_LOSSES + 1, r->load);
}

static bool copy_figures(trainer *t, int micro, const nn_tensor *loss)
{
    if (!copy_figure(t, (uint64_t)micro, loss))
        return false;
    uint64_t at = (uint64_t)t->config.train.accumulate + NORM_FIGURES;
    for (int i = 0; i < t->model->mixtures; i++) {
        const nn_moe_result *r = &t->model->results[i];
        int count = mm_train_log_floats(&t->model->mixture[i]);
        if (!r->output ? !micro && !mark_missing(t, at, count) : !copy_mixture(t, at, r))
            return false;
        at += (uint64_t)count;
    }
    return true;
}

static bool run_micro(trainer *t, int micro, int64_t labels, const uint8_t *compete)
{
    mm_model *m = t->model;
    nn_tensor *loss, *best;
    nn_tape_reset(t->tape);
    uint64_t began = cs_trace_now();
    const mm_forward how = {.training = true, .compete = compete, .label_weight = 1.0f / (float)labels};
    if (!mm_model_forward(m, t->tape, t->batches[micro], &how, &loss, &best))
        return false;
    for (int i = 0; i < m->mixtures; i++) {
        for (int k = 0; k < NN_MOE_LOSSES; k++)
            nn_keep(m->results[i].loss[k]);
        nn_keep(m->results[i].entropy);
        nn_keep(m->results[i].load);
    }
    int roots = mm_model_roots(m, loss, 1.0f / (float)t->config.train.accumulate, t->roots);
    cs_trace_end(CS_TRACE_HOST, "build the tape", began);
    began = cs_trace_now();
    bool ok = nn_tape_run(t->tape, t->roots, roots) && copy_figures(t, micro, loss);
    cs_trace_end(CS_TRACE_HOST, "record forward and backward", began);
    return ok;
}

void mm_trainer_free_batches(trainer *t)
{
    for (int i = 0; t->batches && i < t->config.train.accumulate; i++)
        if (t->batches[i]) {
            mm_batch_free(t->batches[i]);
            free(t->batches[i]);
            t->batches[i] = NULL;
        }
}

bool mm_trainer_next_batches(trainer *t)
{
    uint64_t began = cs_trace_now();
    for (int i = 0; i < t->config.train.accumulate; i++)
        if (!mm_loader_next(t->loader, &t->batches[i]))
            return false;
    cs_trace_end(CS_TRACE_HOST, "wait for the batch", began);
    return true;
}

/* The labels of a step's micro-batches, and their tokens without padding. */
static int64_t count_labels(const trainer *t, uint64_t *tokens)
{
    int64_t labels = 0;
    *tokens = 0;
    for (int i = 0; i < t->config.train.accumulate; i++) {
        labels += t->batches[i]->labels;
        for (int s = 0; s < t->batches[i]->samples; s++)
            *tokens += (uint64_t)t->batches[i]->length[s];
    }
    return labels;
}

bool mm_trainer_record(trainer *t, uint64_t step, const uint8_t *compete, pending *p)
{
    const mm_train_config *c = &t->config.train;
    const int64_t labels = count_labels(t, &p->tokens);
    p->step = step + 1;
    p->lr = nn_lr((enum nn_schedule)c->schedule, c->lr, c->min_lr_ratio, step,
                  (uint64_t)(c->warmup * (double)t->total), t->total);
    p->competed = compete;
    uint64_t waits = vk_counters_get(t->device).host_waits;
    if (!nn_params_zero_grad(t->model->params) || !nn_params_narrow(t->model->params, mm_config_precision(&t->config)))
        return false;
    for (int i = 0; i < c->accumulate; i++)
        if (!run_micro(t, i, labels, p->competed))
            return false;
    const nn_adamw adamw = {.lr = (float)p->lr,
                            .beta1 = c->beta1,
                            .beta2 = c->beta2,
                            .eps = c->eps,
                            .decay = c->weight_decay,
                            .clip = c->clip};
    vk_range norm = {t->figures.block, t->figures.offset + (uint64_t)c->accumulate * 4, NORM_FIGURES * 4};
    uint64_t began = cs_trace_now();
    if (!nn_params_step(t->model->params, &adamw, step + 1, norm))
        return false;
    cs_trace_end(CS_TRACE_HOST, "record the optimizer", began);
    if (!(p->ticket = vk_read_later(t->device, t->figures)) || !(p->value = vk_submit(t->device)))
        return false;
    t->waits += vk_counters_get(t->device).host_waits - waits;
    return true;
}

/* Marks figures of losses that this step did not compute; the device's copy still has an older step's. */
static void blank_missing(const trainer *t, const pending *p, float *figures)
{
    for (int i = 0; i < t->model->mixtures; i++) {
        bool competed = p->competed && p->competed[i];
        for (int k = 0; k < NN_MOE_LOSSES; k++)
            if (!nn_moe_has_loss(t->model->mixture[i].moe, k, competed))
                figures[k] = NAN;
        figures += mm_train_log_floats(&t->model->mixture[i]);
    }
}

static bool check_figures(const mm_step_record *r)
{
    if (!isfinite(r->loss) || (!isfinite(r->norm) && r->loss_scale == 0))
        return cs_fail("step %llu: the loss is %f, the norm of the gradients %f; a smaller train.lr or a train.clip "
                       "may help", (unsigned long long)r->step, r->loss, r->norm);
    return isfinite(r->norm) || r->loss_scale != 1 ||
           cs_fail("step %llu: the gradients overflow f16 even with a loss scale of 1; train.precision bf16 has a "
                   "wider range", (unsigned long long)r->step);
}

static bool log_step(trainer *t, const pending *p)
{
    const float *host = vk_read_ready(t->device, p->ticket);
    if (!host)
        return cs_fail("step %llu: its figures were not there when its work was done", (unsigned long long)p->step);
    float *figures = cs_alloc(t->figure_count, sizeof *figures, "the log");
    if (!figures)
        return false;
    memcpy(figures, host, t->figure_count * sizeof *figures);
    mm_step_record r = {.step = p->step,
                        .total = t->total,
                        .lr = p->lr,
                        .tokens = p->tokens,
                        .memory = vk_memory_get(t->device).peak,
                        .competed = p->competed};
    int accumulate = t->config.train.accumulate;
    for (int i = 0; i < accumulate; i++)
        r.loss += figures[i];
    r.norm = figures[accumulate];
    r.loss_scale = scales_loss(t) ? figures[accumulate + 1] : 0;
    r.mixtures = figures + accumulate + NORM_FIGURES;
    blank_missing(t, p, figures + accumulate + NORM_FIGURES);
    bool ok = mm_train_log_step(t->log, &r) && check_figures(&r);
    free(figures);
    return ok;
}

/* Logs every step whose work is done, and waits for those more than `ahead` behind. */
static bool collect(trainer *t, uint64_t recorded, uint64_t ahead)
{
    while (t->read < recorded) {
        pending *p = &t->pending[t->read % PENDING];
        if (recorded - t->read > ahead ? !vk_wait(t->device, p->value) : !vk_done(t->device, p->value))
            return recorded - t->read <= ahead;
        uint64_t began = cs_trace_now();
        if (!log_step(t, p))
            return false;
        cs_trace_end(CS_TRACE_HOST, "log", began);
        if (++t->read == t->traced && !cs_trace_write(t->params->trace))
            cs_log(CS_LOG_WARN, "%s", cs_error());
    }
    return true;
}

static bool save(trainer *t, uint64_t step)
{
    if (!collect(t, step, 0))
        return false;
    t->state.step = step;
    if (!nn_params_read_loss_scale(t->model->params, &t->state.loss_scale) ||
        !mm_run_save(t->params->out, t->model, t->tokenizer, &t->state, t->config.train.keep))
        return false;
    t->saved = step;
    return true;
}

/* The data failed: what has been learned so far is kept. Fails with that error. */
static bool rescue(trainer *t, uint64_t step)
{
    const cs_kept_error why = cs_keep_error();
    if (step > t->saved && save(t, step))
        cs_log(CS_LOG_INFO, "saved step %llu; once the data is mended, go on with --resume", (unsigned long long)step);
    return cs_restore_error(&why);
}

static bool start_trace(trainer *t)
{
    if (!vk_trace_start(t->device))
        return false;
    cs_trace_start();
    return true;
}

static void trace_step(const trainer *t, uint64_t step, uint64_t began, uint64_t dispatches)
{
    char name[32];
    snprintf(name, sizeof name, "step %llu", (unsigned long long)step + 1);
    if (began)
        cs_trace_add(&(cs_trace_span){
            CS_TRACE_HOST, name, "host", began, cs_trace_now(),
            {{"dispatches", (double)(vk_counters_get(t->device).dispatches - dispatches)}}});
}

/* Takes the batches of a step (0-based), records and submits it. The device's row of a trace has this one step, the
 * host's goes on until its figures have been read, and so shows what the host does meanwhile. */
static bool do_step(trainer *t, uint64_t step)
{
    const uint8_t *compete = t->compete ? t->compete + step * (uint64_t)t->model->mixtures : NULL;
    const bool traced = t->traced == step + 1;
    if (traced && !start_trace(t))
        return false;
    uint64_t began = cs_trace_now(), dispatches = vk_counters_get(t->device).dispatches;
    if (!mm_trainer_next_batches(t))
        return rescue(t, step);
    if (!mm_trainer_record(t, step, compete, &t->pending[step % PENDING]) || (traced && !vk_trace_stop(t->device)))
        return false;
    trace_step(t, step, began, dispatches);
    mm_trainer_free_batches(t);
    return true;
}

static bool choose_traced(trainer *t)
{
    const uint64_t first = t->state.step, wanted = t->params->trace_step;
    if (!t->params->trace || first >= t->total)
        return true;
    if (wanted && (wanted <= first || wanted > t->total))
        return cs_fail("%s: step %llu is not one of the steps %llu to %llu that are trained now", t->params->trace,
                       (unsigned long long)wanted, (unsigned long long)first + 1, (unsigned long long)t->total);
    t->traced = wanted ? wanted : first + 10 < t->total ? first + 10 : t->total;
    return true;
}

static bool train(trainer *t, bool *stopped)
{
    const mm_train_config *c = &t->config.train;
    uint64_t step = t->saved = t->state.step;
    if (step >= t->total)
        cs_log(CS_LOG_INFO, "%s: all %llu steps are done", t->params->out, (unsigned long long)t->total);
    while (step < t->total && !(t->params->stop && *t->params->stop)) {
        if (!do_step(t, step) || !collect(t, ++step, AHEAD))
            return false;
        if (c->save_every && step % (uint64_t)c->save_every == 0 && !save(t, step))
            return false;
    }
    *stopped = step < t->total;
    return (t->saved == step && step > 0) || save(t, step);
}

static void summary(const trainer *t)
{
    vk_memory_stats m = vk_memory_get(t->device);
    mm_loader_stats l = mm_loader_get_stats(t->loader);
    cs_log(CS_LOG_INFO, "device memory: %.1f MiB at most; padding: %.1f%% of the tokens", (double)m.peak / (1 << 20),
           100.0 * (double)l.padding / (double)(l.tokens + l.padding + 1));
    if (l.bad_images)
        cs_log(CS_LOG_WARN, "%zu pictures were unreadable", l.bad_images);
}

/* Better known now than after many steps. */
static bool can_write_trace(const mm_train_params *params)
{
    cs_writer *w = params->trace ? cs_writer_open(params->trace) : NULL;
    cs_writer_abort(w);
    return w || !params->trace;
}

bool mm_train(const mm_train_params *params, bool *stopped)
{
    trainer t = {.params = params};
    *stopped = false;
    bool ok = can_write_trace(params) && mm_trainer_open(&t, false);
    if (ok) {
        cs_log(CS_LOG_INFO, "%llu parameters, %d mixtures of experts, %zu samples, %llu steps",
               (unsigned long long)nn_params_elements(t.model->params, false), t.model->mixtures, t.data->count,
               (unsigned long long)t.total);
        ok = choose_traced(&t) && train(&t, stopped);
        if (ok)
            summary(&t);
    }
    if (ok && params->profile) {
        ok = vk_profile_print(t.device, params->profile);
        fprintf(params->profile, "host waits inside training steps: %llu\n", (unsigned long long)t.waits);
    }
    return mm_trainer_close(&t) && ok;
}
