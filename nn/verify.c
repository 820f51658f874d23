#include "nn/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "nn/competition_schedule.h"

/* ---- what was computed, by the golden file's names ----------------------------------------------------------- */

typedef struct value {
    char name[96];
    size_t count;
    double *data;
    double scale; /* of a sum: its largest summand, which its rounding is relative to */
} value;

typedef struct values {
    value *items;
    size_t count, capacity;
} values;

static void values_free(values *v)
{
    for (size_t i = 0; i < v->count; i++)
        free(v->items[i].data);
    free(v->items);
}

/* Zeroed room for `count` numbers under that name; NULL with the error set. */
static double *add(values *v, size_t count, const char *name)
{
    if (!cs_grow(&v->items, &v->capacity, v->count + 1, sizeof *v->items, "results"))
        return NULL;
    value *x = &v->items[v->count];
    *x = (value){.count = count, .data = cs_alloc(count, sizeof *x->data, "results")};
    if (!x->data)
        return NULL;
    snprintf(x->name, sizeof x->name, "%s", name);
    v->count++;
    return x->data;
}

static bool add_scalar(values *v, double number, const char *name)
{
    double *data = add(v, 1, name);
    return data && (data[0] = number, true);
}

static const value *find(const values *v, const char *name)
{
    for (size_t i = 0; i < v->count; i++)
        if (!strcmp(v->items[i].name, name))
            return &v->items[i];
    return NULL;
}

/* ---- comparing ----------------------------------------------------------------------------------------------- */

/* Largest difference and largest magnitude of the reference; integers count their differences. */
static bool difference(const nn_safetensors *st, const nn_st_tensor *t, const double *got, double *error,
                       double *largest)
{
    *error = *largest = 0;
    bool whole = t->type == NN_ST_I32 || t->type == NN_ST_U8;
    double *wanted = cs_alloc((size_t)t->count, sizeof *wanted, "a reference");
    int32_t *numbers = whole ? cs_alloc((size_t)t->count, sizeof *numbers, "a reference") : NULL;
    bool ok = wanted && (!whole || numbers) &&
              (whole ? nn_safetensors_read_i32(st, t, numbers) : nn_safetensors_read_f64(st, t, wanted));
    for (int64_t i = 0; ok && i < t->count; i++) {
        double w = whole ? numbers[i] : wanted[i], d = whole ? w != got[i] : fabs(w - got[i]);
        *largest = whole ? 0 : fmax(*largest, fabs(w));
        if (!(d <= *error))
            *error = whole ? *error + d : d;
    }
    free(wanted);
    free(numbers);
    return ok;
}

/* How near to its limit a difference is; 1 = at it. */
static double nearness(double error, double limit)
{
    return error == 0 ? 0 : limit > 0 ? error / limit : INFINITY;
}

static bool compare(const nn_safetensors *st, const nn_golden *g, const values *v, const nn_st_tensor *t,
                    nn_verify_result *r)
{
    const value *got = find(v, t->name);
    if (!got)
        return cs_fail("%s: tensor '%s' has no counterpart in this mode", nn_safetensors_path(st), t->name);
    if ((int64_t)got->count != t->count)
        return cs_fail("%s: tensor '%s' has %lld elements, not %zu", nn_safetensors_path(st), t->name,
                       (long long)t->count, got->count);
    double error, largest;
    if (!difference(st, t, got->data, &error, &largest))
        return false;
    double limit = fmax(NN_VERIFY_TIMES * nn_golden_error(g, t->name), NN_VERIFY_SHARE * fmax(largest, got->scale));
    if (!r->tensors++ || !(nearness(error, limit) <= nearness(r->error, r->limit))) {
        snprintf(r->worst, sizeof r->worst, "%s", t->name);
        r->error = error;
        r->limit = limit;
    }
    r->passed &= error <= limit;
    return true;
}

static bool compare_all(const nn_safetensors *st, const nn_golden *g, const values *v, bool (*is_input)(const char *),
                        nn_verify_result *r)
{
    *r = (nn_verify_result){.passed = true};
    for (size_t i = 0; i < nn_safetensors_count(st); i++) {
        const nn_st_tensor *t = nn_safetensors_at(st, i);
        if (!is_input(t->name) && !compare(st, g, v, t, r))
            return false;
    }
    return r->tensors || cs_fail("%s: nothing to compare", nn_safetensors_path(st));
}

/* ---- a layer ------------------------------------------------------------------------------------------------- */

enum { PARTS = 5 };
static const char *const part_names[PARTS] = {"w1", "b1", "w2", "b2", "w3"};

typedef struct replay {
    vk_device *device;
    const nn_safetensors *st;
    const nn_golden *golden;
    nn_params *params;
    nn_moe layer;
    nn_tape *tape;
    int64_t batch, tokens, experts, top_k; /* tokens of a sequence */
    float *x, *dy;
    values values;
} replay;

static bool is_layer_input(const char *name)
{
    return !strcmp(name, "x") || !strcmp(name, "dy") || !strcmp(name, "gate.weight") || !strncmp(name, "experts.", 8);
}

static nn_tensor *part(const replay *p, int i)
{
    nn_tensor *const parts[PARTS] = {p->layer.w1, p->layer.b1, p->layer.w2, p->layer.b2, p->layer.w3};
    return parts[i];
}

static float *read_floats(const nn_safetensors *st, const nn_st_tensor *t)
{
    float *data = t ? cs_alloc((size_t)t->count, sizeof *data, "a golden tensor") : NULL;
    if (data && !nn_safetensors_read_f32(st, t, data)) {
        free(data);
        data = NULL;
    }
    return data;
}

static bool write_param(const replay *p, nn_tensor *to, const float *data)
{
    return nn_param_write(p->params, to->param, NN_VALUE, data);
}

/* experts.<e>.<part> of all experts, stacked. */
static bool load_part(const replay *p, int i)
{
    nn_tensor *to = part(p, i);
    size_t each = (size_t)(nn_count(to) / p->experts);
    float *stack = cs_alloc((size_t)nn_count(to), sizeof *stack, "golden weights");
    bool ok = stack;
    for (int64_t e = 0; ok && e < p->experts; e++) {
        char name[64];
        snprintf(name, sizeof name, "experts.%lld.%s", (long long)e, part_names[i]);
        const nn_st_tensor *t = nn_safetensors_need(p->st, name, to->dims - 1, to->shape + 1);
        ok = t && nn_safetensors_read_f32(p->st, t, stack + (size_t)e * each);
    }
    ok = ok && write_param(p, to, stack);
    free(stack);
    return ok;
}

/* Sizes come from the tensors: gate [E, D], experts.0.w1 [H, D] and w2 [O, H], mixing weights [B, N, K]. */
static bool make_layer(replay *p)
{
    const nn_st_tensor *x = nn_safetensors_need(p->st, "x", -1, NULL),
                       *gate = nn_safetensors_need(p->st, "gate.weight", -1, NULL);
    const nn_st_tensor *w1 = nn_safetensors_need(p->st, "experts.0.w1", -1, NULL);
    const nn_st_tensor *w2 = nn_safetensors_need(p->st, "experts.0.w2", -1, NULL);
    const nn_st_tensor *weights = nn_safetensors_need(p->st, "mixing_weights", -1, NULL);
    if (!x || !gate || !w1 || !w2 || !weights)
        return false;
    if (x->dims != 3 || gate->dims != 2 || w1->dims != 2 || w2->dims != 2 || weights->dims != 3 ||
        gate->shape[0] > NN_MAX_EXPERTS || w1->shape[0] > INT32_MAX || gate->shape[1] != x->shape[2])
        return cs_fail("%s: the shapes of x, gate.weight, experts and mixing_weights do not fit",
                       nn_safetensors_path(p->st));
    p->batch = x->shape[0];
    p->tokens = x->shape[1];
    p->experts = gate->shape[0];
    p->top_k = weights->shape[2];
    nn_moe_config config = p->golden->config;
    config.experts = (int)p->experts;
    config.top_k = (int)p->top_k;
    config.hidden = (int)w1->shape[0];
    const nn_st_tensor *dy = nn_safetensors_need(p->st, "dy", 3, (int64_t[]){p->batch, p->tokens, w2->shape[0]});
    float *g = NULL;
    bool ok = (p->params = nn_params_new(p->device)) &&
              nn_moe_init(&p->layer, p->params, "moe", &config, x->shape[2], w2->shape[0], p->golden->ffn) &&
              nn_params_allocate(p->params, true, 0) && (p->tape = nn_tape_new(p->device)) &&
              (p->x = read_floats(p->st, x)) && (p->dy = read_floats(p->st, dy)) && (g = read_floats(p->st, gate)) &&
              write_param(p, p->layer.gate, g);
    for (int i = 0; ok && i < PARTS; i++)
        ok = !part(p, i) || load_part(p, i);
    free(g);
    return ok;
}

static bool add_tensor(replay *p, const nn_tensor *t, const char *name)
{
    size_t count = (size_t)nn_count(t);
    double *data = add(&p->values, count, name);
    void *host = data ? cs_alloc(count, 4, "results") : NULL;
    bool ok = host && nn_read(p->tape, t, host);
    for (size_t i = 0; ok && i < count; i++)
        data[i] = t->dtype == NN_I32 ? ((int32_t *)host)[i] : ((float *)host)[i];
    free(host);
    return ok;
}

/* Starts a tape with one forward pass of the layer on it, everything worth comparing kept. */
static nn_tensor *build(replay *p, bool training, bool compete, nn_moe_result *r)
{
    nn_tape_reset(p->tape);
    nn_tensor *x = nn_input(p->tape, NN_F32, 3, (int64_t[]){p->batch, p->tokens, p->layer.in}, p->x);
    nn_watch(x);
    if (!nn_moe_forward(p->tape, &p->layer, x, training, compete, r))
        return NULL;
    nn_tensor *const keep[] = {r->output, r->logits, r->expert_outputs, r->affinities, r->routing.probabilities,
                               r->routing.indices, r->routing.weights, r->routing.balance, r->routing.second,
                               r->routing.statistics, r->loss[NN_MOE_DIVERSITY]};
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++)
        nn_keep(keep[i]);
    return x;
}

static int aux_roots(const replay *p, const nn_moe_result *r, nn_root *roots)
{
    int n = 0;
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (r->loss[k])
            roots[n++] = (nn_root){r->loss[k], nn_moe_coefficient(&p->layer, k, r), NULL};
    return n;
}

/* Gradient of x, under `name`. */
static bool add_input_gradient(replay *p, const nn_tensor *x, const char *name)
{
    size_t count = (size_t)nn_count(x);
    double *data = add(&p->values, count, name);
    float *host = data ? cs_alloc(count, sizeof *host, "results") : NULL;
    bool ok = host && nn_read_grad(p->tape, x, host);
    for (size_t i = 0; ok && i < count; i++)
        data[i] = host[i];
    free(host);
    return ok;
}

static bool copy_values(values *v, const char *name, const float *from, size_t count)
{
    double *data = add(v, count, name);
    for (size_t i = 0; data && i < count; i++)
        data[i] = from[i];
    return data;
}

/* Gradient of one part of the experts: of each expert, and their sum. */
static bool add_expert_gradients(replay *p, int i, const char *prefix, const float *gradient)
{
    size_t experts = (size_t)p->experts, each = (size_t)nn_count(part(p, i)) / experts;
    char name[96];
    for (size_t e = 0; e < experts; e++) {
        snprintf(name, sizeof name, "%s.experts.%zu.%s", prefix, e, part_names[i]);
        if (!copy_values(&p->values, name, gradient + e * each, each))
            return false;
    }
    snprintf(name, sizeof name, "%s_sum_over_experts.%s", prefix, part_names[i]);
    double *sum = add(&p->values, each, name);
    for (size_t j = 0; sum && j < experts * each; j++) {
        value *v = &p->values.items[p->values.count - 1];
        sum[j % each] += gradient[j];
        v->scale = fmax(v->scale, fabs(gradient[j]));
    }
    return sum;
}

/* Gradients of the present tape's run, under `prefix`. */
static bool add_gradients(replay *p, const nn_tensor *x, const char *prefix)
{
    char name[96];
    snprintf(name, sizeof name, "%s.x", prefix);
    bool ok = add_input_gradient(p, x, name);
    for (int i = -1; ok && i < PARTS; i++) { /* -1: the gate */
        const nn_tensor *t = i < 0 ? p->layer.gate : part(p, i);
        if (!t)
            continue;
        float *host = cs_alloc((size_t)nn_count(t), sizeof *host, "results");
        snprintf(name, sizeof name, "%s.gate.weight", prefix);
        ok = host && nn_param_read(p->params, t->param, NN_GRADIENT, host) &&
             (i < 0 ? copy_values(&p->values, name, host, (size_t)nn_count(t))
                    : add_expert_gradients(p, i, prefix, host));
        free(host);
    }
    return ok;
}

/* selected_expert_outputs [B, N, K, O] from the dense outputs [E, T, O]. */
static bool add_winners(replay *p)
{
    const value *y = find(&p->values, "expert_outputs"), *chosen = find(&p->values, "selected_experts");
    size_t out = (size_t)p->layer.out, tokens = (size_t)(p->batch * p->tokens), pairs = tokens * (size_t)p->top_k;
    const double *from = y->data, *index = chosen->data;
    double *data = add(&p->values, pairs * out, "selected_expert_outputs");
    for (size_t i = 0; data && i < pairs; i++)
        memcpy(data + i * out, from + ((size_t)index[i] * tokens + i / (size_t)p->top_k) * out, out * sizeof *data);
    return data;
}

static double scalar(const values *v, const char *name)
{
    const value *x = find(v, name);
    return x ? x->data[0] : 0;
}

/* Totals on the host, in double, from the device's losses and output. */
static bool add_totals(replay *p, const nn_moe_result *r)
{
    static const char *const names[NN_MOE_LOSSES] = {"loss.balance", "loss.z", "loss.router", "loss.diversity"};
    double aux = 0, objective = 0;
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (r->loss[k])
            aux += (double)nn_moe_coefficient(&p->layer, k, r) * scalar(&p->values, names[k]);
    const value *y = find(&p->values, "output");
    for (size_t i = 0; i < y->count; i++)
        objective += y->data[i] * p->dy[i];
    return add_scalar(&p->values, aux, "loss.aux_total") && add_scalar(&p->values, objective + aux, "loss.objective");
}

static bool add_competition(replay *p, const nn_moe_result *r)
{
    if (!add_tensor(p, r->affinities, "affinity_scores") ||
        !add_tensor(p, r->routing.probabilities, "affinity_softmax") ||
        !add_tensor(p, r->expert_outputs, "expert_outputs") || !add_winners(p) ||
        !add_tensor(p, r->loss[NN_MOE_DIVERSITY], "loss.diversity") ||
        !add_tensor(p, r->routing.second, "loss.router") || !add_tensor(p, r->routing.statistics, "statistics"))
        return false;
    const double *statistics = find(&p->values, "statistics")->data;
    double all = statistics[NN_STAT_ROUTER_ALL], winners = statistics[NN_STAT_ROUTER_WINNERS];
    return add_scalar(&p->values, all, "loss.router_all_experts") &&
           add_scalar(&p->values, winners, "loss.router_topk_experts");
}

/* The mode of the case, with the gradients of the objective. */
static bool run_mode(replay *p)
{
    nn_moe_result r;
    nn_root roots[1 + NN_MOE_LOSSES];
    nn_tensor *x = build(p, p->golden->training, p->golden->compete, &r);
    if (!x)
        return false;
    roots[0] = (nn_root){r.output, 0, p->dy};
    int count = 1 + aux_roots(p, &r, roots + 1);
    bool gradients = p->golden->gradients;
    return nn_params_zero_grad(p->params) && nn_tape_run(p->tape, gradients ? roots : NULL, gradients ? count : 0) &&
           add_tensor(p, r.output, "output") && add_tensor(p, r.logits, "gate_logits") &&
           add_tensor(p, r.routing.indices, "selected_experts") && add_tensor(p, r.routing.weights, "mixing_weights") &&
           add_tensor(p, r.routing.balance, "loss.balance") &&
           (p->golden->compete ? add_competition(p, &r) : add_tensor(p, r.routing.second, "loss.z")) &&
           add_totals(p, &r) && (!gradients || add_gradients(p, x, "grad"));
}

static bool run_aux(replay *p)
{
    nn_moe_result r;
    nn_root roots[NN_MOE_LOSSES];
    nn_tensor *x = build(p, true, p->golden->compete, &r);
    return x && nn_params_zero_grad(p->params) && nn_tape_run(p->tape, roots, aux_roots(p, &r, roots)) &&
           add_gradients(p, x, "grad_aux");
}

/* The gate's own choice, which a competition step of the reference computes and throws away. */
static bool run_gate(replay *p)
{
    nn_moe_result r;
    return build(p, false, false, &r) && nn_tape_run(p->tape, NULL, 0) &&
           add_tensor(p, r.routing.probabilities, "gate_softmax") &&
           add_tensor(p, r.routing.indices, "router.selected_experts") &&
           add_tensor(p, r.routing.weights, "router.mixing_weights");
}

static bool verify_layer(vk_device *device, const nn_safetensors *st, const nn_golden *g, nn_verify_result *result)
{
    replay p = {.device = device, .st = st, .golden = g};
    bool ok = make_layer(&p) && run_mode(&p) && (!g->gradients || run_aux(&p)) && run_gate(&p) &&
              compare_all(st, g, &p.values, is_layer_input, result);
    nn_tape_free(&p.tape);
    nn_params_free(&p.params);
    free(p.x);
    free(p.dy);
    values_free(&p.values);
    return ok;
}

/* ---- a schedule ---------------------------------------------------------------------------------------------- */

static bool is_schedule_input(const char *name)
{
    return !strcmp(name, "uniform_draws");
}

static bool add_schedule(values *v, const nn_golden *g, const uint8_t *table, int64_t layers, int64_t steps)
{
    int64_t warmup = g->total_steps - steps;
    double *flips = add(v, (size_t)(layers * steps), "competition_table");
    double *by_step = flips ? add(v, (size_t)(layers * g->total_steps), "competition_by_step") : NULL;
    double *competing = by_step ? add(v, (size_t)steps, "competing_layers_per_step") : NULL;
    for (int64_t i = 0; competing && i < layers * steps; i++) {
        flips[i] = table[i];
        by_step[i / steps * g->total_steps + warmup + i % steps] = table[i];
        competing[i % steps] += table[i];
    }
    return competing;
}

static bool verify_schedule(const nn_safetensors *st, const nn_golden *g, nn_verify_result *result)
{
    const nn_st_tensor *t = nn_safetensors_need(st, "uniform_draws", -1, NULL);
    if (!t)
        return false;
    int64_t warmup = nn_competition_warmup(g->warmup, (uint64_t)g->total_steps);
    if (t->dims != 2 || t->shape[0] > INT32_MAX || t->shape[1] != g->total_steps - warmup)
        return cs_fail("%s: uniform_draws must have a column for each of the %lld steps after the warm-up",
                       nn_safetensors_path(st), (long long)(g->total_steps - warmup));
    values v = {0};
    float *draws = read_floats(st, t);
    uint8_t *table = cs_alloc((size_t)t->count, 1, "a schedule");
    bool ok = draws && table &&
              nn_competition_place(draws, (int)t->shape[0], t->shape[1], g->rate, g->max_layers, table) &&
              add_schedule(&v, g, table, t->shape[0], t->shape[1]) && compare_all(st, g, &v, is_schedule_input, result);
    free(draws);
    free(table);
    values_free(&v);
    return ok;
}

bool nn_verify(vk_device *device, const nn_safetensors *st, const nn_golden *golden, nn_verify_result *result)
{
    return golden->kind == NN_GOLDEN_SCHEDULE ? verify_schedule(st, golden, result)
                                              : verify_layer(device, st, golden, result);
}
