#include "tools/bench_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "multimodal/bench_step.h"
#include "nn/bench_moe.h"
#include "tools/bench_report.h"
#include "tools/options.h"

/* One device being measured. */
typedef struct session {
    const bench_job *job;
    nn_bench bench;
    json_t *entry;
    int heading; /* part whose heading stands last; -1 = none */
} session;

/* Prints a row and appends it. */
static bool report(session *s, bench_row *row)
{
    if (bench_part_of(row) != BENCH_PEAKS)
        bench_set_roof(row, s->entry);
    if ((int)bench_part_of(row) != s->heading)
        bench_print_heading(bench_part_of(row), stdout);
    s->heading = (int)bench_part_of(row);
    bench_print_row(row, stdout);
    return bench_add(s->entry, row);
}

/* ---- peaks ------------------------------------------------------------------------------------------------------- */

static bool run_peaks(session *s)
{
    static const char *const types[NN_PEAKS] = {"f32", "f16", "f16", "bf16", "", "", ""};
    for (int peak = 0; peak < NN_PEAKS; peak++) {
        nn_timing t;
        if (!nn_bench_peak(&s->bench, (enum nn_peak)peak, &t))
            return false;
        if (!t.runs)
            continue;
        bench_row row = bench_row_of(BENCH_PEAKS, "peak", nn_peak_names[peak], "", types[peak], &t);
        if (!report(s, &row))
            return false;
    }
    return true;
}

/* ---- matrix products and operators ------------------------------------------------------------------------------- */

static bool report_product(session *s, const nn_bench_product *p, const nn_timing *t)
{
    static const char *const plain[] = {"gemm NT", "gemm NN", "gemm TN"};
    static const char *const grouped[] = {"grouped gemm NT", "grouped gemm NN", "grouped gemm TN"};
    char name[64];
    int used = snprintf(name, sizeof name, "%u x %u x %u", p->m, p->n, p->k);
    if (p->groups || p->batch)
        snprintf(name + used, sizeof name - (size_t)used, p->groups ? ", %u groups" : ", %u times",
                 p->groups ? p->groups : p->batch);
    bench_row row = bench_row_of(BENCH_OPS, (p->groups ? grouped : plain)[p->layout], name, "",
                                 nn_dtype_name(p->type), t);
    return report(s, &row);
}

static bool run_products_of(session *s, const uint32_t *size)
{
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    enum { GROUPS = 8 };
    static const uint32_t groups[] = {0, GROUPS / 2, GROUPS};
    for (size_t type = 0; type < CS_COUNT(types); type++) {
        nn_bench_product products[NN_BENCH_PRODUCTS];
        nn_timing t[NN_BENCH_PRODUCTS];
        int count = 0;
        for (size_t g = 0; g < CS_COUNT(groups); g++)
            for (int layout = NN_GEMM_NT; layout <= NN_GEMM_TN; layout++)
                products[count++] = (nn_bench_product){(enum nn_gemm_layout)layout, types[type], size[0], size[1],
                                                       size[2], groups[g]};
        /* What grouping costs a weight gradient: as many products of one group's rows each write as much. */
        if (size[2] >= GROUPS)
            products[count++] = (nn_bench_product){NN_GEMM_TN, types[type], size[0], size[1], size[2] / GROUPS,
                                                   .batch = GROUPS};
        if (!nn_bench_gemm(&s->bench, products, count, t))
            return false;
        for (int i = 0; i < count; i++)
            if (!report_product(s, &products[i], &t[i]))
                return false;
    }
    return true;
}

static bool run_products(session *s)
{
    static const uint32_t usual[][3] = {
        {512, 512, 512}, {1024, 512, 2048}, {1024, 1024, 1024}, {2048, 2048, 2048}, {4096, 4096, 4096}};
    const bool cpu = bench_is_cpu(s->entry);
    const size_t count = s->job->products ? s->job->products : s->job->quick ? 1 : cpu ? 2 : CS_COUNT(usual);
    for (size_t i = 0; i < count; i++)
        if (!run_products_of(s, s->job->products ? s->job->product[i].size : usual[i]))
            return false;
    return true;
}

/* A difference of two measurements that is lost in their noise gives no rate. */
static void drop_noise(nn_timing *t)
{
    if (t->median < 2 * t->deviation)
        t->flops = t->bytes = 0;
}

static bool run_case(session *s, const nn_op *op, const nn_case *c)
{
    nn_timing forward, backward;
    if (!nn_bench_case(&s->bench, op, c, &forward, &backward))
        return false;
    const char *type = nn_dtype_name(c->in[0].dtype == NN_I32 ? NN_F32 : c->in[0].dtype);
    bench_row row = bench_row_of(BENCH_OPS, op->name, c->name, "forward", type, &forward);
    if (!report(s, &row))
        return false;
    drop_noise(&backward);
    row = bench_row_of(BENCH_OPS, op->name, c->name, "backward", type, &backward);
    return !backward.runs || report(s, &row);
}

static bool run_operator(session *s, const nn_op *op)
{
    int done = 0;
    for (int i = 0; i < op->case_count; i++)
        if (op->cases[i].bench && !(s->job->quick && done++) && !run_case(s, op, &op->cases[i]))
            return false;
    return true;
}

static bool run_ops(session *s)
{
    const char *only = s->job->op;
    if ((!only || !strcmp(only, "gemm")) && !run_products(s))
        return false;
    for (int i = 0; i < nn_op_count; i++)
        if ((!only || !strcmp(only, nn_op_table[i]->name)) && !run_operator(s, nn_op_table[i]))
            return false;
    return true;
}

/* ---- the mixture-of-experts layer -------------------------------------------------------------------------------- */

static bool run_layer(session *s, const int *size, enum nn_dtype precision)
{
    const nn_bench_moe_shape shape = {size[0], size[1], size[2], size[3], size[4], size[5], precision};
    nn_bench_moe_result result[NN_BENCH_MOE_KINDS], *wanted[NN_BENCH_MOE_KINDS];
    char name[96];
    snprintf(name, sizeof name, "%d,%d,%d,%d,%d,%d", size[0], size[1], size[2], size[3], size[4], size[5]);
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++)
        wanted[k] = &result[k];
    if (!nn_bench_moe(s->bench.device, &shape, s->job->quick ? 5 : 9, wanted))
        return false;
    for (int k = 0; k < NN_BENCH_MOE_KINDS; k++) {
        const nn_timing *t = &result[k].time;
        bench_row row = bench_row_of(BENCH_MOE, nn_bench_moe_names[k], name, "both",
                                     nn_dtype_name(precision), t);
        /* The same arithmetic as the dense block's, but for the competing one, which has E / K times as much. */
        const double dense = result[NN_BENCH_DENSE].time.median * t->flops / result[NN_BENCH_DENSE].time.flops;
        row.figure[BENCH_DENSE_PERCENT] = k == NN_BENCH_DENSE ? NAN : 100 * dense / t->median;
        row.figure[BENCH_MEMORY_BYTES] = (double)result[k].peak_bytes;
        row.figure[BENCH_DISPATCHES] = (double)result[k].dispatches;
        if (!report(s, &row))
            return false;
    }
    return true;
}

static bool run_layers(session *s)
{
    /* The shapes that the layer is compared with PyTorch at; the last one is for GPUs. */
    static const int usual[][6] = {{4, 256, 128, 512, 8, 2},  {4, 512, 256, 1024, 8, 2},  {4, 512, 512, 2048, 4, 2},
                                   {8, 512, 264, 264, 16, 2}, {8, 2048, 2048, 8192, 8, 2}};
    static const enum nn_dtype types[] = {NN_F32, NN_F16, NN_BF16};
    const bool cpu = bench_is_cpu(s->entry); /* where 16 bits are little faster, and a run takes minutes */
    const size_t all = CS_COUNT(usual) - cpu, precisions = cpu ? 1 : CS_COUNT(types);
    const size_t count = s->job->layers ? s->job->layers : s->job->quick ? 1 : all;
    for (size_t i = 0; i < count; i++)
        for (size_t type = 0; type < precisions; type++)
            if (!run_layer(s, s->job->layers ? s->job->layer[i].size : usual[i], types[type]))
                return false;
    return true;
}

/* ---- training steps ---------------------------------------------------------------------------------------------- */

static bool run_step(session *s, const mm_bench_step_params *p, bool *has_mixtures)
{
    mm_bench_step_result r;
    char name[64];
    if (!mm_bench_step(p, &r))
        return false;
    snprintf(name, sizeof name, "%d samples x %d tokens", r.samples, r.tokens);
    const char *pass = p->compete ? "competing" : r.has_mixtures ? "routed" : "dense";
    bench_row row = bench_row_of(BENCH_STEP, mm_bench_model_names[p->model], name, pass, p->precision, &r.time);
    row.figure[BENCH_TOKENS] = 1e9 * (double)r.real_tokens / r.time.median;
    row.figure[BENCH_HOST_MS] = r.host_ns / 1e6;
    row.figure[BENCH_DEVICE_MS] = r.device_ns > 0 ? r.device_ns / 1e6 : NAN;
    row.figure[BENCH_DISPATCHES] = (double)r.dispatches;
    row.figure[BENCH_MEMORY_BYTES] = (double)r.peak_bytes;
    *has_mixtures = r.has_mixtures;
    return report(s, &row);
}

static bool run_model(session *s, const char *selector, int model, const char *precision)
{
    mm_bench_step_params p = {selector, model, s->job->batch, false, s->job->quick, precision};
    bool has_mixtures;
    if (!run_step(s, &p, &has_mixtures))
        return false;
    p.compete = true;
    return !has_mixtures || run_step(s, &p, &has_mixtures);
}

static bool run_steps(session *s, const char *selector)
{
    static const char *const precisions[] = {"f32", "bf16", "f16"};
    for (int model = 0; mm_bench_model_names[model]; model++)
        for (size_t i = 0; i < CS_COUNT(precisions); i++)
            if (!run_model(s, selector, model, precisions[i]))
                return false;
            else if (s->job->quick)
                return true;
    return true;
}

/* ---- a device ---------------------------------------------------------------------------------------------------- */

/* What is timed by the device's clock. */
static bool run_profiled(session *s, const char *selector)
{
    vk_device *device = vk_open(&(vk_params){.selector = selector, .profile = true});
    if (!device)
        return false;
    const vk_caps *caps = vk_device_caps(device);
    s->bench = nn_bench_on(device, s->job->quick);
    bool ok = caps->timestamps || cs_fail("benchmark: device %s has no timestamps", caps->name);
    if (ok && (ok = (s->entry = bench_device_new(caps)) != NULL))
        bench_print_device(s->entry, stdout);
    if (ok && (s->job->part[BENCH_PEAKS] || s->job->part[BENCH_OPS]))
        ok = run_peaks(s);
    ok = ok && (!s->job->part[BENCH_OPS] || run_ops(s));
    vk_close(&device);
    return ok;
}

/* What is timed by the wall clock: without the timestamps, which keep kernels from overlapping. */
static bool run_unprofiled(session *s, const char *selector)
{
    vk_device *device = vk_open(&(vk_params){.selector = selector, .quiet = true});
    if (!device)
        return false;
    s->bench = nn_bench_on(device, s->job->quick);
    bool ok = run_layers(s);
    vk_close(&device);
    return ok;
}

bool bench_run(const char *selector, const bench_job *job, json_t *doc)
{
    session s = {.job = job, .heading = -1};
    bool ok = run_profiled(&s, selector) && (!job->part[BENCH_MOE] || run_unprofiled(&s, selector)) &&
              (!job->part[BENCH_STEP] || run_steps(&s, selector));
    if (ok && json_array_append(doc, s.entry) != 0)
        ok = cs_fail("benchmark: out of memory for the results");
    json_decref(s.entry);
    return ok;
}
