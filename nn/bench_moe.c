#include "nn/bench_moe.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "nn/dtype.h"
#include "nn/layers.h"

const char *const nn_bench_moe_names[] = {"dense", "routed", "routed, Zipf", "competing", "competing, recomputed"};

/* Layers that do not compete are timed so many times as often as those that do, which take E / K times as long. */
enum { WARM_UP = 2, MOST_RUNS = 200, OFTEN = 3 };

/* One kind of layer with its parameters and tokens. */
typedef struct trial {
    vk_device *device;
    const nn_bench_moe_shape *shape;
    enum nn_bench_moe_kind kind;
    nn_params *params;
    nn_tape *tape;
    nn_mlp dense;
    nn_moe moe;
    vk_range tokens;
    int runs;
    double ns[OFTEN * MOST_RUNS];
} trial;

/* ---- tokens that are routed as wanted ---------------------------------------------------------------------------- */

/* Column e of a token is its logit of expert e: the gate is a part of the identity matrix. */
static bool write_gate(trial *t)
{
    int64_t width = t->shape->width, experts = t->shape->experts;
    float *w = cs_alloc((size_t)(experts * width), sizeof *w, "a benchmark");
    for (int64_t e = 0; w && e < experts; e++)
        w[e * width + e] = 1;
    bool ok = w && nn_param_write(t->params, t->moe.gate->param, NN_VALUE, w);
    free(w);
    return ok;
}

/* An expert that is not yet chosen, with probability in proportion to 1 / (expert + 1). */
static int draw_zipf(cs_random *r, const bool *chosen, int experts)
{
    double sum = 0;
    for (int e = 0; e < experts; e++)
        sum += chosen[e] ? 0 : 1.0 / (e + 1);
    double at = sum * cs_random_below(r, 1 << 24) / (1 << 24);
    int last = 0;
    for (int e = 0; e < experts; e++) {
        if (chosen[e])
            continue;
        last = e;
        at -= 1.0 / (e + 1);
        if (at < 0)
            break;
    }
    return last;
}

static void choose_experts(const trial *t, cs_random *r, int token, float *logits)
{
    const nn_bench_moe_shape *s = t->shape;
    bool chosen[NN_MAX_EXPERTS] = {false};
    for (int k = 0; k < s->top_k; k++) {
        int e = t->kind == NN_BENCH_SKEWED ? draw_zipf(r, chosen, s->experts) : (token * s->top_k + k) % s->experts;
        chosen[e] = true;
        logits[e] += 8 - 0.5f * (float)k;
    }
}

static bool upload(trial *t, const float *x, size_t count)
{
    const enum nn_dtype type = t->shape->precision;
    if (!nn_is_half(type))
        return vk_upload(t->device, t->tokens, x, count * 4);
    uint16_t *narrow = cs_alloc(count, sizeof *narrow, "a benchmark");
    if (narrow)
        nn_narrow(type, x, count, narrow);
    bool ok = narrow && vk_upload(t->device, t->tokens, narrow, count * 2);
    free(narrow);
    return ok;
}

static bool write_tokens(trial *t)
{
    const nn_bench_moe_shape *s = t->shape;
    int tokens = s->sequences * s->tokens;
    size_t count = (size_t)tokens * (size_t)s->width;
    float *x = cs_alloc(count, sizeof *x, "a benchmark");
    cs_random r = {.seed = 1, .stream = cs_random_stream("bench_moe")};
    for (size_t i = 0; x && i < count; i++)
        x[i] = cs_random_normal(&r);
    for (int i = 0; x && i < tokens; i++)
        choose_experts(t, &r, i, x + (size_t)i * (size_t)s->width);
    t->tokens = vk_alloc(t->device, count * nn_dtype_size(s->precision), VK_MEMORY_DEVICE, "a benchmark");
    bool ok = x && t->tokens.block && upload(t, x, count);
    free(x);
    return ok;
}

static bool competes(const trial *t)
{
    return t->kind == NN_BENCH_COMPETING || t->kind == NN_BENCH_RECOMPUTING;
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static bool make(trial *t)
{
    const nn_bench_moe_shape *s = t->shape;
    nn_moe_config c = {.experts = s->experts, .top_k = s->top_k, .hidden = s->hidden, .balance_loss_coef = 0.01f,
                       .router_z_loss_coef = 0.001f, .router_loss_coef = 0.01f, .diversity_loss_coef = 0.01f,
                       .bal_comp_loss_coef = 0.01f};
    if (t->kind == NN_BENCH_RECOMPUTING)
        c.competition_memory = NN_COMPETITION_RECOMPUTE;
    t->params = nn_params_new(t->device);
    t->tape = nn_tape_new(t->device);
    if (!t->params || !t->tape)
        return false;
    nn_tape_set_precision(t->tape, s->precision);
    if (t->kind == NN_BENCH_DENSE)
        return nn_mlp_init(&t->dense, t->params, "dense", s->width, (int64_t)s->top_k * s->hidden, s->width,
                           NN_FFN_GELU) &&
               nn_params_allocate(t->params, true, 1) && write_tokens(t) &&
               nn_params_narrow(t->params, s->precision);
    return nn_moe_init(&t->moe, t->params, "moe", &c, s->width, s->width, NN_FFN_GELU) &&
           nn_params_allocate(t->params, true, 1) && write_gate(t) && write_tokens(t) &&
           nn_params_narrow(t->params, s->precision);
}

static void drop(trial *t)
{
    nn_tape_free(&t->tape);
    nn_params_free(&t->params);
    vk_free(t->device, &t->tokens);
}

static bool record_pass(trial *t)
{
    const nn_bench_moe_shape *s = t->shape;
    nn_root roots[1 + NN_MOE_LOSSES];
    int count = 1;
    nn_tape_reset(t->tape);
    const int64_t shape[] = {s->sequences, s->tokens, s->width};
    nn_tensor *x = nn_watch(nn_external(t->tape, s->precision, 3, shape, t->tokens));
    if (t->kind == NN_BENCH_DENSE) {
        roots[0] = (nn_root){nn_mlp_forward(t->tape, &t->dense, x), 1, NULL};
        return nn_tape_run(t->tape, roots, 1);
    }
    nn_moe_result r;
    if (!nn_moe_forward(t->tape, &t->moe, x, true, competes(t), &r))
        return false;
    roots[0] = (nn_root){r.output, 1, NULL};
    for (int k = 0; k < NN_MOE_LOSSES; k++)
        if (r.loss[k])
            roots[count++] = (nn_root){r.loss[k], nn_moe_coefficient(&t->moe, k, &r), NULL};
    return nn_tape_run(t->tape, roots, count);
}

static bool run_pass(trial *t, double *ns)
{
    double start = cs_seconds();
    if (!record_pass(t))
        return false;
    uint64_t value = vk_submit(t->device);
    bool ok = value && vk_wait(t->device, value);
    *ns = (cs_seconds() - start) * 1e9;
    return ok;
}

/* Of the products: two forward, twice as many backward. */
static double arithmetic(const trial *t)
{
    const nn_bench_moe_shape *s = t->shape;
    double evaluated = competes(t) ? s->experts : s->top_k;
    return 12.0 * s->sequences * s->tokens * s->width * s->hidden * evaluated;
}

static bool warm_up(trial *t, nn_bench_moe_result *r)
{
    double ns;
    if (!make(t) || !run_pass(t, &ns))
        return false;
    nn_tape_reset(t->tape);
    vk_memory_reset_peak(t->device);
    uint64_t used = vk_memory_get(t->device).used, dispatches = vk_counters_get(t->device).dispatches;
    for (int i = 1; i < WARM_UP; i++)
        if (!run_pass(t, &ns))
            return false;
    *r = (nn_bench_moe_result){
        .time = {.flops = arithmetic(t)},
        .dispatches = (vk_counters_get(t->device).dispatches - dispatches) / (WARM_UP - 1),
        .peak_bytes = vk_memory_get(t->device).peak - used,
    };
    nn_tape_reset(t->tape);
    return true;
}

static bool time_trials(trial *trials, int runs, nn_bench_moe_result *const *result)
{
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
        if (result[k] && !warm_up(&trials[k], result[k]))
            return false;
    for (int turn = 0; turn < OFTEN * runs; turn++)
        for (int k = 0; k < NN_BENCH_MOE_KINDS; k++) {
            trial *t = &trials[k];
            if (!result[k] || (competes(t) && turn % OFTEN))
                continue;
            if (!run_pass(t, &t->ns[t->runs++]))
                return false;
            nn_tape_reset(t->tape);
        }
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
        if (result[k])
            nn_summarise(&result[k]->time, trials[k].ns, trials[k].runs);
    return true;
}

bool nn_bench_moe(vk_device *device, const nn_bench_moe_shape *shape, int runs,
                  nn_bench_moe_result *const result[NN_BENCH_MOE_KINDS])
{
    const nn_bench_moe_shape *s = shape;
    if (s->experts > s->width || s->top_k > s->experts)
        return cs_fail("benchmark of the mixture of experts: %d of %d experts of width %d; as many experts as columns "
                       "are possible",
                       s->top_k, s->experts, s->width);
    runs = runs < 5 ? 5 : runs > MOST_RUNS ? MOST_RUNS : runs;
    trial *trials = cs_alloc(NN_BENCH_MOE_KINDS, sizeof *trials, "a benchmark");
    if (!trials)
        return false;
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
        trials[k] = (trial){.device = device, .shape = shape, .kind = (enum nn_bench_moe_kind)k};
    bool ok = time_trials(trials, runs, result);
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
        drop(&trials[k]);
    free(trials);
    return ok || cs_fail_in("benchmark of the mixture of experts");
}
