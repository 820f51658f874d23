#include "nn/bias_sum.h"

#include "base/error.h"
#include "nn/gemm.h"

/* Mirrors shaders/bias_sum.comp. */
typedef struct push {
    uint32_t rows, columns, chunks, groups, accumulate, stride;
} push;

/* A workgroup is COLUMNS (or four times as many, by texels) times lanes that share the rows. */
enum { COLUMNS = 8, GPU_LANES = 16, ROWS_PER_CHUNK = 1024, MAX_CHUNKS = 32 };
/* lavapipe 22.3 ends the loops of an invocation after 65535 turns. */
enum { MAX_LOOP = 1 << 15 };

static uint32_t entries(const nn_bias_sum *s)
{
    return s->groups ? s->groups : s->batch ? s->batch : 1;
}

/* On a CPU driver the barrier between lanes costs more than they save. */
static uint32_t lanes_of(const vk_caps *caps)
{
    return caps->type == VK_TYPE_CPU ? 1 : GPU_LANES;
}

/* A GPU is kept busy by chunks; the few cores of a CPU have enough to do without, and a second pass costs more. */
static uint32_t chunks_of(const vk_caps *caps, const nn_bias_sum *s)
{
    uint32_t wanted = caps->type == VK_TYPE_CPU ? 1 : s->rows / ROWS_PER_CHUNK;
    wanted = wanted < 1 ? 1 : wanted > MAX_CHUNKS ? MAX_CHUNKS : wanted;
    uint32_t needed = s->rows / (lanes_of(caps) * MAX_LOOP) + 1;
    return wanted > needed ? wanted : needed;
}

static bool run_pass(vk_device *device, const nn_bias_sum *s, uint32_t chunks)
{
    const vk_caps *caps = vk_device_caps(device);
    uint64_t rows = (uint64_t)s->rows * (s->groups ? 1 : entries(s));
    uint64_t bytes = rows * s->columns * nn_dtype_size(s->in_type);
    bool texel = s->columns % 4 == 0 && nn_texel_fits(caps, s->in, bytes);
    uint32_t width = COLUMNS * (texel ? 4 : 1);
    uint32_t stride = s->out_stride ? s->out_stride : s->columns;
    push p = {s->rows, s->columns, chunks, s->groups, s->accumulate, stride};
    vk_dispatch d = {
        .kernel = texel ? "bias_sum_texel" : "bias_sum",
        .label = s->label ? s->label : "bias_sum",
        .spec = {COLUMNS, s->in_type, lanes_of(caps)},
        .specs = 3,
        .bind =
            {
                {{s->in.block, s->in.offset, bytes}, texel ? VK_READ | VK_TEXEL : VK_READ},
                {{s->out.block, s->out.offset, ((uint64_t)(entries(s) * chunks - 1) * stride + s->columns) * 4},
                 s->accumulate ? VK_READ | VK_WRITE : VK_WRITE},
                {s->offsets, VK_READ},
            },
        .binds = 3,
        .push = &p,
        .push_bytes = sizeof p,
        .groups = {(s->columns + width - 1) / width, chunks, entries(s)},
        .flops = (double)rows * s->columns,
        .bytes = (double)bytes,
    };
    return vk_run(device, &d);
}

bool nn_bias_sum_run(vk_device *device, const nn_bias_sum *s)
{
    uint32_t chunks = chunks_of(vk_device_caps(device), s);
    if (chunks == 1)
        return run_pass(device, s, 1);
    nn_bias_sum first = *s, second = *s;
    uint64_t bytes = (uint64_t)entries(s) * chunks * s->columns * 4;
    vk_range scratch = vk_alloc(device, bytes, VK_MEMORY_DEVICE, "bias gradients");
    if (!scratch.block)
        return false;
    first.out = second.in = scratch;
    first.accumulate = false;
    first.out_stride = 0;
    second.in_type = NN_F32;
    second.rows = chunks;
    second.batch = entries(s);
    second.groups = 0;
    second.offsets = (vk_range){0};
    bool ok = run_pass(device, &first, chunks) && run_pass(device, &second, 1);
    vk_free(device, &scratch);
    return ok;
}
