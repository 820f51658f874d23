#include "nn/selftest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "nn/dtype.h"

/* ---- one case: inputs, device results, references --------------------------------------------------------------- */

typedef struct bench {
    const nn_op *op;
    const nn_case *c;
    enum nn_dtype type; /* precision of the tape, and of the inputs that can take it */
    nn_tape *tape;
    nn_tensor *in[NN_MAX_IN], *out[NN_MAX_OUT];
    void *host[NN_MAX_IN];          /* what the device gets */
    double *in_value[NN_MAX_IN];    /* the same, in double */
    double *out_value[NN_MAX_OUT];  /* reference */
    double *seed_value[NN_MAX_OUT]; /* gradient that the backward pass starts from */
    float *seed[NN_MAX_OUT];
    double *grad_value[NN_MAX_IN]; /* reference */
    nn_node node;
} bench;

static void bench_free(bench *b)
{
    for (int i = 0; i < NN_MAX_IN; i++) {
        free(b->host[i]);
        free(b->in_value[i]);
        free(b->grad_value[i]);
    }
    for (int i = 0; i < NN_MAX_OUT; i++) {
        free(b->out_value[i]);
        free(b->seed_value[i]);
        free(b->seed[i]);
    }
    nn_tape_free(&b->tape);
}

static size_t case_count(const nn_case *c, int i)
{
    size_t n = 1;
    for (int d = 0; d < c->in[i].dims; d++)
        n *= (size_t)c->in[i].shape[d];
    return n;
}

void nn_case_fill(const nn_op *op, const nn_case *c, int i, double *const *values, void *host)
{
    size_t n = case_count(c, i);
    cs_random r = {.seed = (uint64_t)i, .stream = cs_random_stream(op->name) ^ cs_random_stream(c->name)};
    if (c->in[i].fill == NN_FILL_CUSTOM)
        c->fill(c, i, values);
    for (size_t j = 0; j < n; j++) {
        if (c->in[i].fill == NN_FILL_NORMAL)
            values[i][j] = cs_random_normal(&r) * (c->in[i].scale != 0 ? c->in[i].scale : 1);
        else if (c->in[i].fill == NN_FILL_INDEX)
            values[i][j] = cs_random_below(&r, (uint32_t)c->in[i].below);
        if (c->in[i].dtype == NN_I32) {
            ((int32_t *)host)[j] = (int32_t)values[i][j];
        } else {
            ((float *)host)[j] = (float)values[i][j];
            values[i][j] = ((float *)host)[j]; /* the reference sees what the device sees */
        }
    }
}

static bool wants_gradient(const bench *b, int i)
{
    return b->op->backward && b->in[i] && nn_is_float(b->in[i]->dtype) && !b->c->in[i].no_grad;
}

static bool takes_gradient(const bench *b, int i)
{
    return nn_is_float(b->out[i]->dtype) && !(b->op->aux_out & 1u << i);
}

/* Type that input `i` is given in. */
static enum nn_dtype input_type(const nn_op *op, const nn_case *c, int i, enum nn_dtype type)
{
    bool narrow = nn_is_half(type) && op->half_in & 1u << i && c->in[i].dtype == NN_F32 && c->in[i].dims &&
                  c->in[i].shape[c->in[i].dims - 1] % NN_HALF_COLS == 0;
    return narrow ? type : c->in[i].dtype;
}

/* Rounds floats to 16 bits in `narrow`, and `values` to the same, so that the reference sees what the device sees. */
static void round_to(enum nn_dtype type, float *host, size_t n, uint16_t *narrow, double *values)
{
    nn_narrow(type, host, n, narrow);
    nn_widen(type, narrow, n, host);
    for (size_t i = 0; i < n; i++)
        values[i] = host[i];
}

static bool round_input(bench *b, int i, enum nn_dtype type, size_t n)
{
    uint16_t *narrow = cs_alloc(n, sizeof *narrow, "a test input");
    if (!narrow)
        return false;
    round_to(type, b->host[i], n, narrow, b->in_value[i]);
    free(b->host[i]);
    b->host[i] = narrow;
    return true;
}

static bool make_inputs(bench *b)
{
    for (int i = 0; i < b->op->ins; i++) {
        if (b->c->in[i].fill == NN_FILL_NONE)
            continue;
        size_t n = case_count(b->c, i);
        b->host[i] = cs_alloc(n, 4, "a test input");
        b->in_value[i] = cs_alloc(n, sizeof(double), "a test input");
        if (!b->host[i] || !b->in_value[i])
            return false;
        nn_case_fill(b->op, b->c, i, b->in_value, b->host[i]);
        enum nn_dtype type = input_type(b->op, b->c, i, b->type);
        if (nn_is_half(type) && !round_input(b, i, type, n))
            return false;
        b->in[i] = nn_input(b->tape, type, b->c->in[i].dims, b->c->in[i].shape, b->host[i]);
        if (!b->in[i])
            return false;
        if (wants_gradient(b, i)) {
            nn_watch(b->in[i]);
            if (!(b->grad_value[i] = cs_alloc(n, sizeof(double), "a test gradient")))
                return false;
        }
    }
    return true;
}

static bool make_outputs(bench *b)
{
    cs_random r = {.seed = 77, .stream = cs_random_stream(b->op->name) ^ cs_random_stream(b->c->name)};
    for (int i = 0; i < b->op->outs; i++) {
        nn_keep(b->out[i]);
        size_t n = (size_t)nn_count(b->out[i]);
        if (!(b->out_value[i] = cs_alloc(n, sizeof(double), "a reference")))
            return false;
        if (!takes_gradient(b, i))
            continue;
        b->seed_value[i] = cs_alloc(n, sizeof(double), "a reference");
        b->seed[i] = cs_alloc(n, sizeof(float), "a reference");
        if (!b->seed_value[i] || !b->seed[i])
            return false;
        for (size_t j = 0; j < n; j++)
            b->seed_value[i][j] = b->seed[i][j] = cs_random_normal(&r);
        if (nn_is_half(b->out[i]->dtype)) {
            uint16_t *narrow = cs_alloc(n, sizeof *narrow, "a reference");
            if (!narrow)
                return false;
            round_to(b->out[i]->dtype, b->seed[i], n, narrow, b->seed_value[i]);
            free(narrow);
        }
    }
    return true;
}

static nn_ref reference_of(const bench *b)
{
    nn_ref ref = {.node = &b->node};
    for (int i = 0; i < NN_MAX_IN; i++) {
        ref.in[i] = b->in_value[i];
        ref.din[i] = b->grad_value[i];
    }
    for (int i = 0; i < NN_MAX_OUT; i++) {
        ref.out[i] = b->out_value[i];
        ref.dout[i] = b->seed_value[i];
    }
    return ref;
}

static bool bench_make(bench *b, vk_device *device)
{
    if (!(b->tape = nn_tape_new(device)))
        return false;
    nn_tape_set_precision(b->tape, b->type);
    if (!make_inputs(b))
        return false;
    if (!nn_apply(b->tape, b->op, b->c->params, b->in, b->op->ins, b->out))
        return cs_fail_in("%s, case %s", b->op->name, b->c->name);
    if (!make_outputs(b))
        return false;
    b->node = (nn_node){.op = b->op, .ins = b->op->ins, .outs = b->op->outs, .precision = b->type};
    memcpy(b->node.in, b->in, sizeof b->in);
    memcpy(b->node.out, b->out, sizeof b->out);
    if (b->c->params)
        memcpy(b->node.params, b->c->params, b->op->param_bytes);
    nn_ref ref = reference_of(b);
    b->op->ref_forward(&ref);
    if (b->op->backward)
        b->op->ref_backward(&ref);
    return true;
}

static bool bench_run(bench *b)
{
    nn_root roots[NN_MAX_OUT];
    int count = 0;
    for (int i = 0; b->op->backward && i < b->op->outs; i++)
        if (takes_gradient(b, i))
            roots[count++] = (nn_root){b->out[i], 0, b->seed[i]};
    return nn_tape_run(b->tape, count ? roots : NULL, count);
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

/* |a - b| / |b| (Frobenius); a NaN anywhere gives NaN. Absolute where b is zero. */
static double relative_error(const float *a, const double *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(size > 0 ? difference / size : difference);
}

static double integer_error(const int32_t *a, const double *b, size_t n)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += a[i] != (int32_t)b[i];
    return (double)wrong;
}

/* The same for a tensor on the device. */
static bool tensor_error(bench *b, const nn_tensor *t, const double *wanted, double *error)
{
    size_t n = (size_t)nn_count(t);
    float *got = cs_alloc(n, sizeof *got, "a test result");
    uint16_t *narrow = nn_is_half(t->dtype) ? cs_alloc(n, sizeof *narrow, "a test result") : NULL;
    bool ok = got && (narrow || !nn_is_half(t->dtype)) && nn_read(b->tape, t, narrow ? (void *)narrow : got);
    if (ok && narrow)
        nn_widen(t->dtype, narrow, n, got);
    if (ok)
        *error = t->dtype == NN_I32 ? integer_error((int32_t *)got, wanted, n) : relative_error(got, wanted, n);
    free(narrow);
    free(got);
    return ok;
}

/* Worst error of the outputs (integers: how many differ). */
static bool forward_error(bench *b, double *worst)
{
    *worst = 0;
    for (int i = 0; i < b->op->outs; i++) {
        double e;
        if (!b->out[i]->dims) /* left out */
            continue;
        if (!tensor_error(b, b->out[i], b->out_value[i], &e))
            return false;
        if (!(e <= *worst))
            *worst = e;
    }
    return true;
}

static bool backward_error(bench *b, double *worst)
{
    *worst = 0;
    for (int i = 0; i < b->op->ins; i++) {
        if (!wants_gradient(b, i))
            continue;
        size_t n = (size_t)nn_count(b->in[i]);
        float *got = cs_alloc(n, 4, "a test result");
        if (!got || !nn_read_grad(b->tape, b->in[i], got)) {
            free(got);
            return false;
        }
        double e = relative_error(got, b->grad_value[i], n);
        if (!(e <= *worst))
            *worst = e;
        free(got);
    }
    return true;
}

/* sum(out * seed) of the reference. */
static double objective(const bench *b)
{
    nn_ref ref = reference_of(b);
    b->op->ref_forward(&ref);
    double sum = 0;
    for (int i = 0; i < b->op->outs; i++)
        for (int64_t j = 0; b->seed_value[i] && j < nn_count(b->out[i]); j++)
            sum += b->out_value[i][j] * b->seed_value[i][j];
    return sum;
}

enum { DIFFERENCES = 12 };

/* The reference's own backward against central differences of its forward, on a few elements of each input: relative to
 * the largest gradient of that input. In double with a step of 1e-5 the truncation is near 1e-9; 1e-5 leaves room for
 * the curvature of steep cases and still catches any wrong term. */
static double difference_error(bench *b)
{
    const double step = 1e-5;
    double worst = 0;
    for (int i = 0; i < b->op->ins; i++) {
        if (!b->grad_value[i])
            continue;
        size_t n = case_count(b->c, i);
        double largest = 1e-6;
        for (size_t j = 0; j < n; j++)
            largest = fmax(largest, fabs(b->grad_value[i][j]));
        for (size_t k = 0; k < DIFFERENCES && k < n; k++) {
            size_t j = n <= DIFFERENCES ? k : k * 2654435761u % n;
            double *x = &b->in_value[i][j], at = *x;
            *x = at + step;
            double up = objective(b);
            *x = at - step;
            double down = objective(b);
            *x = at;
            worst = fmax(worst, fabs((up - down) / (2 * step) - b->grad_value[i][j]) / largest);
        }
    }
    return worst;
}

/* Relative rounding error of a type: half a unit in its last place. */
static double rounding(enum nn_dtype type)
{
    return type == NN_F16 ? 0x1p-11 : type == NN_BF16 ? 0x1p-8 : 0;
}

/* The coarsest type among a case's tensors. */
static double case_rounding(const bench *b)
{
    double r = 0;
    for (int i = 0; i < b->op->ins; i++)
        r = fmax(r, b->in[i] ? rounding(b->in[i]->dtype) : 0);
    for (int i = 0; i < b->op->outs; i++)
        r = fmax(r, rounding(b->out[i]->dtype));
    return r;
}

static bool run_case(vk_device *device, const nn_op *op, const nn_case *c, enum nn_dtype type, FILE *out,
                     nn_selftest_result *result)
{
    bench b = {.op = op, .c = c, .type = type};
    double forward = 0, backward = 0, difference = 0;
    bool ok = bench_make(&b, device) && bench_run(&b) && forward_error(&b, &forward) &&
              (!op->backward || backward_error(&b, &backward));
    bool differentiate = ok && op->backward && !op->stops_gradient && type == NN_F32;
    if (differentiate)
        difference = difference_error(&b);
    double coarse = ok ? case_rounding(&b) : 0;
    bench_free(&b);
    if (!ok)
        return cs_fail_in("selftest of %s, case %s, %s", op->name, c->name, nn_dtype_name(type));
    bool pass = forward <= NN_FORWARD_TOLERANCE + NN_FORWARD_ROUNDINGS * coarse &&
                backward <= NN_BACKWARD_TOLERANCE + NN_BACKWARD_ROUNDINGS * coarse && difference <= 1e-5;
    fprintf(out, "%s %-18s %-28s %-4s forward %.1e", pass ? "pass" : "FAIL", op->name, c->name, nn_dtype_name(type),
            forward);
    if (op->backward)
        fprintf(out, "  backward %.1e", backward);
    if (differentiate)
        fprintf(out, "  reference against differences %.1e", difference);
    fputc('\n', out);
    pass ? result->passed++ : result->failed++;
    return true;
}

/* Whether a case has 16-bit tensors where the tape's precision is 16 bits. */
static bool narrows(const nn_op *op, const nn_case *c)
{
    for (int i = 0; i < op->ins; i++)
        if (c->in[i].fill != NN_FILL_NONE && nn_is_half(input_type(op, c, i, NN_F16)))
            return true;
    return false;
}

/* A walk over the cases: what is wanted of them, and how many have gone by. */
typedef struct walk {
    vk_device *device;
    const nn_selftest_params *p;
    FILE *out;
    nn_selftest_result *result;
    uint32_t number;
} walk;

/* Whether the next case is of the wanted shard. */
static bool is_in_shard(walk *w)
{
    return !w->p->shards || w->number++ % w->p->shards == w->p->shard;
}

static bool run_types(walk *w, const nn_op *op, const nn_case *c)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    size_t count = w->p->f32_only || !narrows(op, c) ? 1 : sizeof types / sizeof *types;
    for (size_t i = 0; i < count; i++)
        if (is_in_shard(w) && !run_case(w->device, op, c, types[i], w->out, w->result))
            return false;
    return true;
}

bool nn_selftest(vk_device *device, const nn_selftest_params *p, FILE *out, nn_selftest_result *result)
{
    if (p->op && !nn_op_find(p->op))
        return cs_fail("selftest: there is no operator '%s'", p->op);
    *result = (nn_selftest_result){0};
    walk w = {.device = device, .p = p, .out = out, .result = result};
    for (int i = 0; i < nn_op_count; i++) {
        const nn_op *op = nn_op_table[i];
        if (p->op && strcmp(p->op, op->name))
            continue;
        for (int k = 0; k < op->case_count; k++)
            if (!op->cases[k].bench && !run_types(&w, op, &op->cases[k]))
                return false;
    }
    return p->op || !is_in_shard(&w) || nn_selftest_tape(device, out, result);
}
