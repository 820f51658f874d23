/* One case of an operator, forward and backward. */
#include "nn/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "nn/selftest.h"

typedef struct trial {
    const nn_op *op;
    const nn_case *c;
    nn_tape *tape;
    bool with_backward;
    vk_range in[NN_MAX_IN];
    float *seed[NN_MAX_OUT]; /* gradients of the outputs */
    double flops, in_bytes, out_bytes, bytes, backward_bytes;
} trial;

static size_t input_count(const nn_case *c, int i)
{
    size_t n = 1;
    for (int d = 0; d < c->in[i].dims; d++)
        n *= (size_t)c->in[i].shape[d];
    return n;
}

/* Draws the inputs into device memory, so that runs do not upload them. */
static bool make_inputs(trial *t, vk_device *device)
{
    double *values[NN_MAX_IN] = {0};
    bool ok = true;
    for (int i = 0; ok && i < t->op->ins; i++) {
        if (t->c->in[i].fill == NN_FILL_NONE)
            continue;
        size_t n = input_count(t->c, i);
        void *host = cs_alloc(n, 4, "a benchmark input");
        values[i] = cs_alloc(n, sizeof(double), "a benchmark input");
        t->in[i] = vk_alloc(device, n * 4, VK_MEMORY_DEVICE, "a benchmark input");
        ok = host && values[i] && t->in[i].block;
        if (ok) {
            nn_case_fill(t->op, t->c, i, values, host);
            ok = vk_upload(device, (vk_range){t->in[i].block, t->in[i].offset, n * 4}, host, n * 4);
        }
        t->in_bytes += 4.0 * (double)n;
        free(host);
    }
    for (int i = 0; i < NN_MAX_IN; i++)
        free(values[i]);
    return ok;
}

static bool takes_gradient(const trial *t, nn_tensor *const *out, int i)
{
    return out[i]->dtype == NN_F32 && !(t->op->aux_out & 1u << i);
}

static bool make_seeds(trial *t, nn_tensor *const *out)
{
    for (int i = 0; i < t->op->outs; i++) {
        if (t->seed[i] || !takes_gradient(t, out, i))
            continue;
        size_t n = (size_t)nn_count(out[i]);
        cs_random r = {.seed = 3, .stream = cs_random_stream("bench")};
        if (!(t->seed[i] = cs_alloc(n, sizeof(float), "a benchmark gradient")))
            return false;
        for (size_t j = 0; j < n; j++)
            t->seed[i][j] = cs_random_normal(&r);
    }
    return true;
}

static bool build(trial *t, nn_tensor **out)
{
    nn_tensor *in[NN_MAX_IN] = {0};
    nn_tape_reset(t->tape);
    for (int i = 0; i < t->op->ins; i++) {
        if (!t->in[i].block)
            continue;
        in[i] = nn_external(t->tape, t->c->in[i].dtype, t->c->in[i].dims, t->c->in[i].shape, t->in[i]);
        if (!in[i])
            return false;
        if (t->with_backward && t->c->in[i].dtype == NN_F32 && !t->c->in[i].no_grad)
            nn_watch(in[i]);
    }
    return nn_apply(t->tape, t->op, t->c->params, in, t->op->ins, out);
}

static bool run_trial(void *with)
{
    trial *t = with;
    nn_tensor *out[NN_MAX_OUT];
    nn_root roots[NN_MAX_OUT];
    int count = 0;
    if (!build(t, out) || !make_seeds(t, out))
        return false;
    for (int i = 0; i < t->op->outs; i++)
        if (t->with_backward && takes_gradient(t, out, i))
            roots[count++] = (nn_root){out[i], 0, t->seed[i]};
    return nn_tape_run(t->tape, t->with_backward ? roots : NULL, count);
}

static bool count_work(trial *t)
{
    nn_tensor *out[NN_MAX_OUT];
    if (!build(t, out))
        return false;
    nn_node node = {.op = t->op, .ins = t->op->ins, .outs = t->op->outs};
    nn_tensor in[NN_MAX_IN];
    for (int i = 0; i < t->op->ins; i++) {
        in[i] = (nn_tensor){.dtype = t->c->in[i].dtype, .dims = t->c->in[i].dims, .shape = {1, 1, 1, 1}};
        memcpy(in[i].shape, t->c->in[i].shape, (size_t)in[i].dims * sizeof *in[i].shape);
        node.in[i] = t->in[i].block ? &in[i] : NULL;
    }
    for (int i = 0; i < t->op->outs; i++) {
        node.out[i] = out[i];
        t->out_bytes += (double)nn_bytes(out[i]);
    }
    if (t->c->params)
        memcpy(node.params, t->c->params, t->op->param_bytes);
    t->flops = t->op->flops ? t->op->flops(&node) : 0;
    t->bytes = t->op->bytes ? t->op->bytes(&node) : t->in_bytes + t->out_bytes;
    t->backward_bytes = t->op->bytes ? 2 * t->bytes : 2 * t->in_bytes + t->out_bytes;
    return true;
}

/* Runs without and with the backward pass take turns, so that what disturbs the machine disturbs both. */
static bool time_passes(trial *t, const nn_bench *b, nn_timing *forward, nn_timing *backward)
{
    double first[NN_BENCH_MOST], both[NN_BENCH_MOST], sum = 0;
    int runs = 0;
    *forward = (nn_timing){.flops = t->flops, .bytes = t->bytes};
    *backward = (nn_timing){.flops = 2 * t->flops, .bytes = t->backward_bytes};
    t->with_backward = t->op->backward != NULL;
    if (!run_trial(t))
        return false;
    for (; !nn_bench_enough(b, runs, sum); sum += first[runs] + both[runs], runs++) {
        t->with_backward = false;
        if (!nn_bench_once(b, run_trial, t, &first[runs]))
            return false;
        both[runs] = first[runs];
        t->with_backward = true;
        if (t->op->backward && !nn_bench_once(b, run_trial, t, &both[runs]))
            return false;
    }
    for (int i = 0; i < runs; i++)
        both[i] -= first[i];
    nn_summarise(forward, first, runs);
    if (t->op->backward)
        nn_summarise(backward, both, runs);
    return true;
}

bool nn_bench_case(const nn_bench *b, const nn_op *op, const nn_case *c, nn_timing *forward, nn_timing *backward)
{
    trial t = {.op = op, .c = c, .tape = nn_tape_new(b->device)};
    bool ok = t.tape && make_inputs(&t, b->device) && count_work(&t) && time_passes(&t, b, forward, backward);
    nn_tape_free(&t.tape);
    for (int i = 0; i < NN_MAX_IN; i++)
        vk_free(b->device, &t.in[i]);
    for (int i = 0; i < NN_MAX_OUT; i++)
        free(t.seed[i]);
    return ok || cs_fail_in("benchmark of %s, case %s", op->name, c->name);
}
