#include "nn/launch.h"

#include <string.h>

#include "base/error.h"

/* ---- slices ------------------------------------------------------------------------------------------------------- */

static int64_t aligned_rows(const char *what, int64_t rows, uint64_t stride, const vk_caps *caps, uint64_t step)
{
    uint64_t fit = caps->max_storage_range / stride;
    if ((uint64_t)rows <= fit)
        return rows;
    while (stride * step % caps->storage_align)
        step *= 2;
    if (fit < step)
        return cs_fail("%s: %llu rows of %llu bytes do not fit a storage buffer of this device (%llu bytes)", what,
                       (unsigned long long)step, (unsigned long long)stride, (unsigned long long)caps->max_storage_range), 0;
    return (int64_t)(fit - fit % step);
}

int64_t nn_slice_rows(vk_device *device, const char *what, int64_t rows, uint64_t stride)
{
    return aligned_rows(what, rows, stride, vk_device_caps(device), 1);
}

vk_bind nn_slice_bind(vk_bind bind, int64_t first, int64_t count, uint64_t stride)
{
    uint64_t offset = stride * (uint64_t)first, bytes = stride * (uint64_t)count;
    bind.range.offset += offset;
    bind.range.size = bytes < bind.range.size - offset ? bytes : bind.range.size - offset;
    return bind;
}

/* Rows per slice of a launch: the fewest of its binds, in a step that keeps the slices of all binds aligned. */
static int64_t slice_rows(const vk_caps *caps, const nn_launch *l)
{
    int64_t rows = l->rows;
    uint64_t step = 1;
    for (int i = 0; i < NN_MAX_ROW_BINDS; i++)
        while (l->bind[i].stride * step % caps->storage_align)
            step *= 2;
    for (int i = 0; rows && i < NN_MAX_ROW_BINDS; i++) {
        const nn_row_bind *b = &l->bind[i];
        if (!b->bind.range.block)
            continue;
        if (b->stride)
            rows = aligned_rows(l->kernel, rows, b->stride, caps, step);
        else if (b->bind.range.size > caps->max_storage_range)
            return cs_fail("%s: an operand of %llu bytes does not fit a storage buffer of this device (%llu bytes)", l->kernel,
                           (unsigned long long)b->bind.range.size, (unsigned long long)caps->max_storage_range), 0;
    }
    return rows;
}

/* ---- spreading ---------------------------------------------------------------------------------------------------- */

enum { MAX_LANES = 256, GROUP = 64, MAX_TURNS = 32768 };

/* Invocations per row of a reducing kernel. A GPU wants neighbours to read neighbouring units; a CPU driver wants no
 * reduction between invocations, as long as there are rows enough to keep its cores busy. */
static uint32_t row_lanes(const vk_caps *caps, int64_t rows, int64_t units)
{
    const int64_t enough = 1024;
    int64_t lanes = 1;
    while (lanes < MAX_LANES && lanes < units && (caps->type != VK_TYPE_CPU || rows * lanes < enough || units / lanes > MAX_TURNS))
        lanes *= 2;
    return (uint32_t)lanes;
}

/* As many workgroups as that, in two dimensions where one is too short. */
static bool set_groups(const vk_caps *caps, vk_dispatch *d, uint64_t groups)
{
    uint64_t y = (groups + caps->max_groups[0] - 1) / caps->max_groups[0];
    if (y > caps->max_groups[1])
        return cs_fail("%s: %llu workgroups are more than this device takes", d->kernel, (unsigned long long)groups);
    d->groups[0] = (uint32_t)(y > 1 ? (groups + y - 1) / y : groups);
    d->groups[1] = (uint32_t)y;
    d->groups[2] = 1;
    return true;
}

static bool launch_slice(vk_device *device, const nn_launch *l, int64_t first, int64_t rows)
{
    const vk_caps *caps = vk_device_caps(device);
    uint32_t units = (uint32_t)(l->vector ? l->cols / 4 : l->cols);
    uint32_t lanes = l->reduce ? row_lanes(caps, l->rows, units) : 1;
    uint32_t group = lanes > GROUP ? lanes : GROUP;
    uint64_t per_row = l->reduce ? lanes : l->per_row ? (uint64_t)l->per_row : units;
    uint32_t push[3 + NN_MAX_ROW_PUSH / 4] = {(uint32_t)rows, units, (uint32_t)first};
    if (l->push_bytes)
        memcpy(push + 3, l->push, l->push_bytes);
    vk_dispatch d = {
        .kernel = l->kernel,
        .spec = {group, lanes, l->vector},
        .specs = 3 + NN_MAX_ROW_SPECS,
        .push = push,
        .push_bytes = 12 + l->push_bytes,
        .flops = l->flops * (double)rows / (double)l->rows,
    };
    memcpy(d.spec + 3, l->spec, sizeof l->spec);
    for (int i = 0; i < NN_MAX_ROW_BINDS && l->bind[i].bind.access; i++) {
        const nn_row_bind *b = &l->bind[i];
        d.bind[d.binds] = b->bind.range.block && b->stride ? nn_slice_bind(b->bind, first, rows, b->stride) : b->bind;
        d.bytes += (double)d.bind[d.binds++].range.size;
    }
    return set_groups(caps, &d, ((uint64_t)rows * per_row + group - 1) / group) && vk_run(device, &d);
}

bool nn_launch_rows(vk_device *device, const nn_launch *l)
{
    if (!l->rows || !l->cols)
        return true;
    int64_t step = slice_rows(vk_device_caps(device), l);
    if (!step)
        return false;
    for (int64_t first = 0; first < l->rows; first += step)
        if (!launch_slice(device, l, first, first + step < l->rows ? step : l->rows - first))
            return false;
    return true;
}

nn_flat nn_flat_shape(int64_t count)
{
    return count % 4 ? (nn_flat){count, 1, false, 4} : (nn_flat){count / 4, 4, true, 16};
}

/* ---- rows by index ----------------------------------------------------------------------------------------------- */

bool nn_gather(vk_device *device, const nn_gather_launch *g)
{
    uint64_t stride = (uint64_t)g->cols * 4;
    int64_t step = nn_slice_rows(device, "gather_rows", g->sources, stride);
    for (int64_t first = 0; step && first < g->sources; first += step) {
        int64_t bound = first + step < g->sources ? step : g->sources - first;
        uint32_t push[] = {(uint32_t)first, (uint32_t)bound, g->flags};
        bool ok = nn_launch_rows(device, &(nn_launch){
            .kernel = "gather_rows",
            .rows = g->rows,
            .cols = g->cols,
            .vector = g->cols % 4 == 0,
            .bind = {{g->index, 4}, {nn_slice_bind(g->from, first, bound, stride), 0}, {g->to, stride}},
            .push = push,
            .push_bytes = sizeof push,
        });
        if (!ok)
            return false;
    }
    return step > 0;
}

/* ---- sums over rows ------------------------------------------------------------------------------------------------ */

int64_t nn_sum_chunks(int64_t rows, int64_t *chunk_rows)
{
    const int64_t least = 32, most_chunks = 128;
    *chunk_rows = (rows + most_chunks - 1) / most_chunks;
    if (*chunk_rows < least)
        *chunk_rows = least;
    return (rows + *chunk_rows - 1) / *chunk_rows;
}

static bool sum_columns_pass(vk_device *device, const nn_column_sums *s, int64_t chunks, int64_t chunk_rows)
{
    bool vector = s->cols % 4 == 0 && s->split % 4 == 0;
    struct {
        uint32_t in_rows, chunk_rows, split, flags;
    } push = {(uint32_t)s->rows, (uint32_t)chunk_rows, (uint32_t)(vector ? s->split / 4 : s->split),
              (s->add_a ? 1u : 0) | (s->add_b ? 2u : 0)};
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "column_sum",
        .rows = chunks,
        .cols = s->cols,
        .vector = vector,
        .bind = {{s->x, (uint64_t)(chunk_rows * s->cols) * 4}, {s->a, (uint64_t)s->split * 4},
                 {s->b, (uint64_t)(s->cols - s->split) * 4}},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = (double)(s->rows * s->cols),
    });
}

bool nn_sum_columns(nn_exec *x, const nn_column_sums *s)
{
    vk_device *device = nn_device(x);
    int64_t chunk_rows, chunks = nn_sum_chunks(s->rows, &chunk_rows);
    /* Wide and short sums have work for every core in one pass. */
    if (chunks == 1 || (s->cols >= 4096 && s->rows <= 1024))
        return sum_columns_pass(device, s, 1, s->rows);
    vk_bind partial = nn_scratch(x, (uint64_t)(chunks * s->cols) * 4);
    nn_column_sums first = {.x = s->x, .a = partial, .b = {.access = VK_WRITE}, .rows = s->rows, .cols = s->cols, .split = s->cols};
    nn_column_sums second = *s;
    second.x = partial;
    second.rows = chunks;
    return sum_columns_pass(device, &first, chunks, chunk_rows) && sum_columns_pass(device, &second, 1, chunks);
}

/* ---- reductions to one number --------------------------------------------------------------------------------------- */

enum { REDUCE_WHOLE = 65536, REDUCE_CHUNK = 16384, REDUCE_PARTIALS = 65536 };

static int64_t chunk_elements(int64_t count)
{
    if (count <= REDUCE_WHOLE)
        return count;
    /* Never so many chunks that their sums would take a third pass. */
    int64_t least = (count + REDUCE_PARTIALS - 1) / REDUCE_PARTIALS;
    return least > REDUCE_CHUNK ? (least + 3) / 4 * 4 : REDUCE_CHUNK;
}

int64_t nn_reduce_partials(int64_t count)
{
    int64_t chunk = chunk_elements(count);
    return (count + chunk - 1) / chunk;
}

bool nn_reduce_chunks(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials)
{
    bool vector = count % 4 == 0;
    int64_t chunk = chunk_elements(count);
    struct {
        uint32_t total_units;
        float scale;
    } push = {(uint32_t)(vector ? count / 4 : count), scale};
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "reduce",
        .rows = nn_reduce_partials(count),
        .cols = chunk,
        .vector = vector,
        .reduce = true,
        .bind = {{x, (uint64_t)chunk * 4}, {partials, 4}},
        .spec = {square},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = (double)count * (square ? 2 : 1),
    });
}

bool nn_reduce_range(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials, vk_bind result)
{
    int64_t n = nn_reduce_partials(count);
    if (n == 1)
        return nn_reduce_chunks(device, x, count, square, scale, result);
    return nn_reduce_chunks(device, x, count, square, 1, partials) &&
           nn_reduce_chunks(device, partials, n, false, scale, result);
}
