/* The device's peaks. Each way known is timed, its work doubled until a run is long beside what a dispatch costs. */
#include "nn/bench.h"

#include "base/error.h"

const char *const nn_peak_names[NN_PEAKS] = {"f32 FMA", "f16 FMA", "memory read", "memory write", "memory copy"};

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

enum { FMA_TURNS = 1024, FMA_STEPS = 16, FMA_LANES = 12 };

typedef struct arithmetic {
    vk_device *device;
    const char *kernel;
    vk_range sink;
    uint32_t groups;
} arithmetic;

static bool run_arithmetic(void *with)
{
    const arithmetic *a = with;
    const float push[] = {0.5f, 1.0f, -1.0f};
    const vk_dispatch d = {.kernel = a->kernel,
                           .spec = {group_size(vk_device_caps(a->device)), FMA_TURNS},
                           .specs = 2,
                           .bind = {{a->sink, VK_WRITE}},
                           .binds = 1,
                           .push = push,
                           .push_bytes = sizeof push,
                           .groups = {a->groups, 1, 1}};
    return vk_run(a->device, &d);
}

static bool bench_arithmetic(const nn_bench *b, const char *kernel, nn_timing *t)
{
    const vk_caps *caps = vk_device_caps(b->device);
    arithmetic a = {b->device, kernel, vk_alloc(b->device, 256, VK_MEMORY_DEVICE, "a benchmark"), 8};
    double ns = 0;
    bool ok = a.sink.block && nn_bench_once(b, run_arithmetic, &a, &ns); /* compiles */
    while (ok && (ok = nn_bench_once(b, run_arithmetic, &a, &ns)) && ns < LONG_ENOUGH &&
           a.groups * 2 <= caps->max_groups[0])
        a.groups *= 2;
    t->flops = 2.0 * FMA_TURNS * FMA_STEPS * FMA_LANES * group_size(caps) * a.groups;
    ok = ok && nn_bench_device_time(b, run_arithmetic, &a, t);
    vk_free(b->device, &a.sink);
    return ok;
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
        ok = bench_arithmetic(b, "peak_fma", t);
        break;
    case NN_PEAK_F16:
        ok = !vk_device_caps(b->device)->float16 || bench_arithmetic(b, "peak_fma_f16", t);
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
