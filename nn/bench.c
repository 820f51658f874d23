#include "nn/bench.h"

#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"

nn_bench nn_bench_on(vk_device *device, bool quick)
{
    return quick ? (nn_bench){device, 3, 5, 0.02e9} : (nn_bench){device, 5, NN_BENCH_MOST, 0.3e9};
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

void nn_summarise(nn_timing *t, double *ns, int runs)
{
    t->runs = runs;
    t->median = median(ns, runs);
    t->best = ns[0];
    for (int i = 0; i < runs; i++)
        ns[i] = fabs(ns[i] - t->median);
    t->deviation = median(ns, runs);
}

bool nn_bench_enough(const nn_bench *b, int runs, double sum)
{
    return runs >= b->fewest && (runs >= b->most || sum >= b->enough);
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

/* The profile's sum over all that run() records, but uploads. */
bool nn_bench_once(const nn_bench *b, nn_bench_fn *run, void *with, double *ns)
{
    double upload;
    uint64_t calls;
    vk_profile_reset(b->device);
    if (!run(with) || !vk_profile_get(b->device, NULL, ns, &calls) ||
        !vk_profile_get(b->device, "upload", &upload, &calls))
        return false;
    *ns -= upload;
    return true;
}

bool nn_bench_device_time(const nn_bench *b, nn_bench_fn *run, void *with, nn_timing *t)
{
    double ns[NN_BENCH_MOST], sum = 0;
    int runs = 0;
    if (!nn_bench_once(b, run, with, &sum)) /* the first one may compile */
        return false;
    for (sum = 0; !nn_bench_enough(b, runs, sum); sum += ns[runs++])
        if (!nn_bench_once(b, run, with, &ns[runs]))
            return false;
    nn_summarise(t, ns, runs);
    return true;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

bool nn_bench_fill(vk_device *device, vk_range range, enum nn_dtype type, uint64_t elements, uint64_t seed)
{
    const uint64_t bytes = (nn_is_half(type) ? (elements + 1) / 2 : elements) * 4;
    void *host = cs_alloc(bytes, 1, "a benchmark");
    cs_random r = {.seed = seed, .stream = cs_random_stream("bench")};
    for (uint64_t i = 0; host && i < elements; i++) {
        float x = cs_random_normal(&r);
        if (type == NN_F32)
            ((float *)host)[i] = x;
        else
            ((uint16_t *)host)[i] = type == NN_F16 ? cs_f16_bits(x) : cs_bf16_bits(x);
    }
    bool ok = host && vk_upload(device, (vk_range){range.block, range.offset, bytes}, host, bytes);
    free(host);
    return ok;
}
