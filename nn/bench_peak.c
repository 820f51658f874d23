/* The device's peaks. Each way known is timed, its work doubled until a run is long beside what a dispatch costs. */
#include "nn/bench.h"

#include "base/error.h"

const char *const nn_peak_names[NN_PEAKS] = {"f32 FMA",     "f16 FMA",      "f16 matrix", "bf16 matrix",
                                           "memory read", "memory write", "memory copy"};

static const double LONG_ENOUGH = 10e6; /* nanoseconds a run */

static uint32_t group_size(const vk_caps *caps)
{
    return caps->max_invocations < 256 ? caps->max_invocations : 256;
}

/* Takes `t` where it is faster than what is there: more of its work a nanosecond. */
static void keep_faster(nn_timing *best, const nn_timing *t)
{
    double old = best->runs ? (best->flops + best->bytes) / best->best : 0;
    if ((t->flops + t->bytes) / t->best > old)
        *best = *t;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

enum { FMA_TURNS = 1024, FMA_STEPS = 16, FMA_LANES = 12, MATRIX_TURNS = 256, MATRIX_STEPS = 8, MATRIX_CHAINS = 4 };

typedef struct arithmetic {
    vk_device *device;
    vk_dispatch dispatch; /* of groups[0] workgroups */
    double flops;         /* of one workgroup */
} arithmetic;

static bool run_arithmetic(void *with)
{
    const arithmetic *a = with;
    return vk_run(a->device, &a->dispatch);
}

/* Doubles the workgroups until a run is long enough, then measures. */
static bool bench_arithmetic(const nn_bench *b, arithmetic *a, nn_timing *t)
{
    static const float push[] = {0.5f, 1.0f, -1.0f};
    const uint32_t most = vk_device_caps(b->device)->max_groups[0];
    vk_range sink = vk_alloc(b->device, 256, VK_MEMORY_DEVICE, "a benchmark");
    vk_dispatch *d = &a->dispatch;
    double ns = 0;
    d->bind[0] = (vk_bind){sink, VK_WRITE};
    d->binds = 1;
    d->push = push;
    d->push_bytes = sizeof push;
    d->groups[0] = 8, d->groups[1] = d->groups[2] = 1;
    bool ok = sink.block && nn_bench_once(b, run_arithmetic, a, &ns); /* compiles */
    while (ok && (ok = nn_bench_once(b, run_arithmetic, a, &ns)) && ns < LONG_ENOUGH && d->groups[0] * 2 <= most)
        d->groups[0] *= 2;
    t->flops = a->flops * d->groups[0];
    ok = ok && nn_bench_device_time(b, run_arithmetic, a, t);
    vk_free(b->device, &sink);
    return ok;
}

static bool bench_fma(const nn_bench *b, bool half, nn_timing *t)
{
    const vk_caps *caps = vk_device_caps(b->device);
    const uint32_t local = group_size(caps);
    arithmetic a = {.device = b->device,
                    .dispatch = {.kernel = half ? "peak_fma_f16" : "peak_fma", .spec = {local, FMA_TURNS}, .specs = 2},
                    .flops = 2.0 * FMA_TURNS * FMA_STEPS * FMA_LANES * local};
    return (half && !caps->float16) || bench_arithmetic(b, &a, t);
}

static bool bench_matrix(const nn_bench *b, bool bfloat16, nn_timing *t)
{
    enum { SUBGROUPS = 4 }; /* of a workgroup */
    const vk_caps *caps = vk_device_caps(b->device);
    const vk_matrix_shape *s = vk_matrix_find(caps, bfloat16);
    const char *kernel = bfloat16 ? "peak_matrix_bf16" : "peak_matrix_f16";
    if (!s || !vk_has_kernel(kernel))
        return true;
    arithmetic a = {.device = b->device,
                    .dispatch = {.kernel = kernel,
                                 .spec = {SUBGROUPS * caps->subgroup_min, MATRIX_TURNS, s->m, s->n, s->k},
                                 .specs = 5,
                                 .subgroup = caps->subgroup_min},
                    .flops = 2.0 * MATRIX_TURNS * MATRIX_STEPS * MATRIX_CHAINS * s->m * s->n * s->k * SUBGROUPS};
    return bench_arithmetic(b, &a, t);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

enum { STREAM_TURNS = 16 };
static const uint64_t STREAM_BYTES = 512 << 20;

typedef struct stream {
    vk_device *device;
    bool reads, writes, wide;
    vk_range from, to;
    uint64_t bytes;
} stream;

static bool run_stream(void *with)
{
    const stream *s = with;
    const uint32_t push[] = {1, 0x5bd1e995}, local = group_size(vk_device_caps(s->device));
    const uint64_t groups = s->bytes / ((s->wide ? 32 : 16) * STREAM_TURNS * local);
    const vk_bind from = {s->from, s->wide ? VK_READ | VK_TEXEL : VK_READ};
    const vk_dispatch d = {.kernel = s->wide ? "peak_stream_wide" : "peak_stream",
                           .spec = {local, s->reads, s->writes},
                           .specs = 3,
                           .bind = {from, {s->to, VK_WRITE}},
                           .binds = 2,
                           .push = push,
                           .push_bytes = sizeof push,
                           .groups = {(uint32_t)groups, 1, 1}};
    return vk_run(s->device, &d);
}

static bool run_copy(void *with)
{
    const stream *s = with;
    return vk_copy(s->device, s->to, s->from);
}

static bool run_fill(void *with)
{
    const stream *s = with;
    return vk_fill(s->device, s->to, 1);
}

/* As much as can be bound and covered by one row of workgroups of either kernel, in whole workgroups. */
static uint64_t stream_bytes(vk_device *device)
{
    const vk_caps *caps = vk_device_caps(device);
    const uint64_t unit = 32ull * STREAM_TURNS * group_size(caps);
    const vk_memory_stats memory = vk_memory_get(device);
    uint64_t bytes = STREAM_BYTES;
    const uint64_t limits[] = {caps->max_storage_range, unit / 2 * caps->max_groups[0], memory.budget / 8};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        bytes = limits[i] < bytes ? limits[i] : bytes;
    return bytes / unit * unit;
}

static bool time_stream(const nn_bench *b, nn_bench_fn *run, stream *s, nn_timing *best)
{
    nn_timing t = {.bytes = (double)s->bytes * (s->reads + s->writes)};
    if (!nn_bench_device_time(b, run, s, &t))
        return false;
    keep_faster(best, &t);
    return true;
}

static bool bench_stream(const nn_bench *b, bool reads, bool writes, nn_timing *t)
{
    stream s = {b->device, reads, writes, false, .bytes = stream_bytes(b->device)};
    if (!s.bytes)
        return cs_fail("the device has too little memory for this");
    s.from = vk_alloc(b->device, s.bytes, VK_MEMORY_DEVICE, "a benchmark");
    s.to = vk_alloc(b->device, s.bytes, VK_MEMORY_DEVICE, "a benchmark");
    bool ok = s.from.block && s.to.block && vk_fill(b->device, s.from, 1) && time_stream(b, run_stream, &s, t);
    const vk_caps *caps = vk_device_caps(b->device);
    if (ok && caps->int64 && 16ull * caps->max_texel_elements >= s.bytes) {
        s.wide = true;
        ok = time_stream(b, run_stream, &s, t);
    }
    if (ok && writes) /* the driver's own way */
        ok = time_stream(b, reads ? run_copy : run_fill, &s, t);
    vk_free(b->device, &s.from);
    vk_free(b->device, &s.to);
    return ok;
}

bool nn_bench_peak(const nn_bench *often, enum nn_peak peak, nn_timing *t)
{
    /* A roof has to be reached once: more and longer than the rest, beyond a moment in which the machine is busy. */
    const nn_bench effort = {often->device, often->fewest < 10 ? 10 : often->fewest, NN_BENCH_MOST, 3 * often->enough},
                   *b = &effort;
    bool ok = true;
    *t = (nn_timing){0};
    switch (peak) {
    case NN_PEAK_F32:
    case NN_PEAK_F16:
        ok = bench_fma(b, peak == NN_PEAK_F16, t);
        break;
    case NN_PEAK_MATRIX_F16:
    case NN_PEAK_MATRIX_BF16:
        ok = bench_matrix(b, peak == NN_PEAK_MATRIX_BF16, t);
        break;
    case NN_PEAK_READ:
        ok = bench_stream(b, true, false, t);
        break;
    case NN_PEAK_WRITE:
        ok = bench_stream(b, false, true, t);
        break;
    default:
        ok = bench_stream(b, true, true, t);
    }
    return ok || cs_fail_in("benchmark of the peak of %s", nn_peak_names[peak]);
}
