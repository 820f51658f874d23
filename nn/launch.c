#include "nn/launch.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

/* ---- slices ------------------------------------------------------------------------------------------------------ */

/* What a bind may hold and where it may start; texel buffers have limits of their own. */
typedef struct bind_limit {
    uint64_t bytes, align;
} bind_limit;

static bind_limit limit_of(const vk_caps *caps, bool texel)
{
    uint64_t texels = (uint64_t)caps->max_texel_elements * 16;
    if (!texel)
        return (bind_limit){caps->max_storage_range, caps->storage_align};
    return (bind_limit){texels < caps->max_storage_range ? texels : caps->max_storage_range,
                        caps->texel_align > caps->storage_align ? caps->texel_align : caps->storage_align};
}

static int64_t rows_within(bind_limit limit, const char *what, int64_t rows, uint64_t stride, uint64_t step)
{
    uint64_t fit = limit.bytes / stride;
    if ((uint64_t)rows <= fit)
        return rows;
    while (stride * step % limit.align)
        step *= 2;
    if (fit < step)
        return cs_fail("%s: %llu rows of %llu bytes do not fit a buffer of this device (%llu bytes)", what,
                       (unsigned long long)step, (unsigned long long)stride, (unsigned long long)limit.bytes), 0;
    return (int64_t)(fit - fit % step);
}

int64_t nn_slice_rows(vk_device *device, const char *what, int64_t rows, uint64_t stride)
{
    return rows_within(limit_of(vk_device_caps(device), true), what, rows, stride, 1);
}

vk_bind nn_slice_bind(vk_bind bind, int64_t first, int64_t count, uint64_t stride)
{
    uint64_t offset = stride * (uint64_t)first, bytes = stride * (uint64_t)count;
    bind.range.offset += offset;
    bind.range.size = bytes < bind.range.size - offset ? bytes : bind.range.size - offset;
    return bind;
}

static bool is_texel(const nn_launch *l, int i)
{
    return l->width == NN_WIDTH_8 && l->bind[i].values;
}

/* Rows per slice of a launch: the fewest of its binds, in a step that keeps the slices of all binds aligned. */
static int64_t slice_rows(const vk_caps *caps, const nn_launch *l)
{
    int64_t rows = l->rows;
    uint64_t step = 1;
    for (int i = 0; i < NN_MAX_ROW_BINDS; i++)
        while (l->bind[i].stride * step % limit_of(caps, is_texel(l, i)).align)
            step *= 2;
    for (int i = 0; rows && i < NN_MAX_ROW_BINDS; i++) {
        const nn_row_bind *b = &l->bind[i];
        bind_limit limit = limit_of(caps, is_texel(l, i));
        if (!b->bind.range.block)
            continue;
        if (b->stride)
            rows = rows_within(limit, l->kernel, rows, b->stride, step);
        else if (b->bind.range.size > limit.bytes)
            return cs_fail("%s: an operand of %llu bytes does not fit a buffer of this device (%llu bytes)", l->kernel,
                           (unsigned long long)b->bind.range.size, (unsigned long long)limit.bytes), 0;
    }
    return rows;
}

/* ---- spreading --------------------------------------------------------------------------------------------------- */

enum { MAX_LANES = 256, GROUP = 64, ENOUGH_GROUPS = 32, MAX_TURNS = 32768 };

/* Invocations per row of a reducing kernel. A GPU wants neighbours to read neighbouring units; a CPU driver wants no
 * reduction between invocations, as long as there are rows enough to keep its cores busy. */
static uint32_t row_lanes(const vk_caps *caps, int64_t rows, int64_t units)
{
    const int64_t enough = 1024;
    bool cpu = caps->type == VK_TYPE_CPU;
    int64_t lanes = 1;
    while (lanes < MAX_LANES && lanes < units && (!cpu || rows * lanes < enough || units / lanes > MAX_TURNS))
        lanes *= 2;
    return (uint32_t)lanes;
}

/* Invocations per workgroup, at least the lanes of a row. A CPU driver gives whole workgroups to its cores, so that few
 * invocations make small ones. */
static uint32_t group_size(const vk_caps *caps, uint64_t invocations, uint32_t lanes)
{
    uint32_t group = GROUP;
    while (caps->type == VK_TYPE_CPU && group > caps->subgroup_size && invocations / group < ENOUGH_GROUPS)
        group /= 2;
    return lanes > group ? lanes : group;
}

/* Units or rows that an invocation may take one after the other. On a CPU driver a subgroup is then a workgroup and
 * takes as many as leave enough workgroups, one behind the other in memory. */
static uint32_t turns_of(const vk_caps *caps, uint64_t invocations, uint32_t lanes)
{
    const uint32_t most = 32;
    uint32_t turns = 1;
    if (caps->type == VK_TYPE_CPU && lanes <= caps->subgroup_size)
        while (turns < most && invocations / (2 * turns * caps->subgroup_size) >= ENOUGH_GROUPS)
            turns *= 2;
    return turns;
}

/* Drivers on a CPU pay per load and store, hardly per byte. */
static bool is_wide(const vk_caps *caps)
{
    return caps->type == VK_TYPE_CPU && caps->int64;
}

enum nn_width nn_narrow_width(int64_t cols)
{
    return cols % 4 ? NN_WIDTH_1 : NN_WIDTH_4;
}

enum nn_width nn_row_width(vk_device *device, int64_t cols)
{
    return cols % 8 == 0 && is_wide(vk_device_caps(device)) ? NN_WIDTH_8 : nn_narrow_width(cols);
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

/* An absent output, which the kernel leaves alone, is bound to one that is there: what stands in for absent memory is
 * not kept in order between readers and writers. */
static const nn_row_bind *present_output(const nn_launch *l)
{
    for (int i = 0; i < NN_MAX_ROW_BINDS; i++)
        if (l->bind[i].bind.access & VK_WRITE && l->bind[i].bind.range.block)
            return &l->bind[i];
    return NULL;
}

static bool launch_slice(vk_device *device, const nn_launch *l, int64_t first, int64_t rows)
{
    const vk_caps *caps = vk_device_caps(device);
    enum nn_width width = l->width ? l->width : NN_WIDTH_1;
    uint32_t units = (uint32_t)(l->cols / width);
    uint32_t lanes = !l->reduce ? 1 : l->lanes ? l->lanes : row_lanes(caps, l->rows, units);
    uint64_t per_row = l->reduce ? lanes : l->per_row ? (uint64_t)l->per_row : units;
    uint32_t turns = l->turns ? turns_of(caps, (uint64_t)rows * per_row, lanes) : 1;
    uint64_t invocations = ((uint64_t)rows * per_row + turns - 1) / turns;
    uint32_t group = turns > 1 ? caps->subgroup_size : group_size(caps, invocations, lanes);
    uint32_t push[3 + NN_MAX_ROW_PUSH / 4] = {(uint32_t)rows, units, (uint32_t)first};
    if (l->push_bytes)
        memcpy(push + 3, l->push, l->push_bytes);
    char name[64];
    snprintf(name, sizeof name, "%s%s", l->kernel, width == NN_WIDTH_8 ? "_wide" : "");
    vk_dispatch d = {
        .kernel = name,
        .label = l->kernel,
        .spec = {group, lanes, width > 1},
        .specs = 3 + NN_MAX_ROW_SPECS + 3,
        .push = push,
        .push_bytes = 12 + l->push_bytes,
        .once = l->once,
        .flops = l->flops * (double)rows / (double)l->rows,
    };
    memcpy(d.spec + 3, l->spec, sizeof l->spec);
    uint32_t *types = &d.spec[3 + NN_MAX_ROW_SPECS];
    d.spec[3 + NN_MAX_ROW_SPECS + 1] = turns;
    d.spec[3 + NN_MAX_ROW_SPECS + 2] = lanes <= caps->subgroup_size && lanes <= 64;
    const nn_row_bind *output = present_output(l);
    for (int i = 0; i < NN_MAX_ROW_BINDS && l->bind[i].bind.access; i++) {
        const nn_row_bind *b = &l->bind[i];
        if (b->bind.access & VK_WRITE && !b->bind.range.block && output)
            b = output;
        d.bind[d.binds] = b->bind.range.block && b->stride ? nn_slice_bind(b->bind, first, rows, b->stride) : b->bind;
        if (is_texel(l, i))
            d.bind[d.binds].access = VK_READ | VK_TEXEL;
        *types |= (uint32_t)b->type << 2 * i;
        d.bytes += (double)d.bind[d.binds++].range.size;
    }
    return set_groups(caps, &d, (invocations + group - 1) / group) && vk_run(device, &d);
}

static nn_row_bind row_bind(vk_bind bind, const nn_tensor *t, int64_t cols, bool values)
{
    enum nn_dtype type = t ? t->dtype : NN_F32;
    return (nn_row_bind){bind, (uint64_t)cols * nn_dtype_size(type), values, type};
}

nn_row_bind nn_row_in(const nn_tensor *t, int64_t cols)
{
    return row_bind(nn_read_bind(t), t, cols, true);
}

nn_row_bind nn_row_out(const nn_tensor *t, int64_t cols)
{
    return row_bind(nn_write_bind(t), t, cols, false);
}

nn_row_bind nn_row_dout(const nn_tensor *t, int64_t cols)
{
    return row_bind(nn_dout_bind(t), t, cols, true);
}

nn_row_bind nn_row_din(vk_bind din, const nn_tensor *t, int64_t cols)
{
    return row_bind(din, t, cols, false);
}

nn_row_bind nn_row_old(nn_row_bind sum, bool accumulate)
{
    if (!accumulate)
        sum.bind.range = (vk_range){0};
    sum.bind.access = VK_READ;
    sum.values = true;
    return sum;
}

uint32_t nn_streaming_lanes(vk_device *device, int64_t units)
{
    const int64_t long_row = 8;
    const vk_caps *caps = vk_device_caps(device);
    return caps->type == VK_TYPE_CPU && units >= long_row * caps->subgroup_size ? caps->subgroup_size : 0;
}

uint32_t nn_holding_lanes(vk_device *device, int64_t rows, int64_t units)
{
    enum { MOST_HELD = 4, MOST_HELD_ON_CPU = 16 };
    const vk_caps *caps = vk_device_caps(device);
    bool cpu = caps->type == VK_TYPE_CPU;
    int64_t lanes = row_lanes(caps, rows, units), most = cpu ? MOST_HELD_ON_CPU : MOST_HELD;
    while (cpu && lanes < caps->subgroup_size && lanes < units)
        lanes *= 2;
    while (lanes < MAX_LANES && units > most * lanes)
        lanes *= 2;
    return (uint32_t)lanes;
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

nn_flat nn_flat_shape(vk_device *device, int64_t count)
{
    enum nn_width width = nn_row_width(device, count);
    return (nn_flat){count / width, width, width, 4 * width};
}

bool nn_scale_run(vk_device *device, vk_range values, vk_range factor, int64_t count)
{
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "scale",
        .rows = count,
        .cols = 1,
        .bind = {{{values, VK_READ | VK_WRITE}, 4}, {{factor, VK_READ}, 0}},
        .flops = (double)count,
    });
}

/* ---- rows by index ----------------------------------------------------------------------------------------------- */

bool nn_gather(vk_device *device, const nn_gather_launch *g)
{
    uint64_t stride = (uint64_t)g->cols * nn_dtype_size(g->from_type);
    int64_t step = nn_slice_rows(device, "gather_rows", g->sources, stride);
    nn_row_bind to = {g->to, (uint64_t)g->cols * nn_dtype_size(g->to_type), .type = g->to_type};
    for (int64_t first = 0; step && first < g->sources; first += step) {
        int64_t bound = first + step < g->sources ? step : g->sources - first;
        uint32_t push[] = {(uint32_t)first, (uint32_t)bound};
        bool ok = nn_launch_rows(device, &(nn_launch){
            .kernel = "gather_rows",
            .rows = g->rows,
            .cols = g->cols,
            .width = nn_row_width(device, g->cols),
            .reduce = true,
            .bind = {{g->index, 4}, {nn_slice_bind(g->from, first, bound, stride), 0, true, g->from_type}, to,
                     nn_row_old(to, g->flags & NN_GATHER_ACCUMULATE)},
            .spec = {g->flags},
            .push = push,
            .push_bytes = sizeof push,
        });
        if (!ok)
            return false;
    }
    return step > 0;
}

/* ---- reductions to one number ------------------------------------------------------------------------------------ */

enum { REDUCE_WHOLE = 65536, REDUCE_CHUNK = 16384, REDUCE_PARTIALS = 65536 };

static int64_t chunk_elements(int64_t count)
{
    if (count <= REDUCE_WHOLE)
        return count;
    /* Never so many chunks that their sums would take a third pass. */
    int64_t least = (count + REDUCE_PARTIALS - 1) / REDUCE_PARTIALS;
    return least > REDUCE_CHUNK ? (least + 7) / 8 * 8 : REDUCE_CHUNK;
}

int64_t nn_reduce_partials(int64_t count)
{
    int64_t chunk = chunk_elements(count);
    return (count + chunk - 1) / chunk;
}

bool nn_reduce_chunks(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials)
{
    enum nn_width width = nn_row_width(device, count);
    int64_t chunk = chunk_elements(count);
    struct {
        uint32_t total_units;
        float scale;
    } push = {(uint32_t)(count / width), scale};
    return nn_launch_rows(device, &(nn_launch){
        .kernel = "reduce",
        .rows = nn_reduce_partials(count),
        .cols = chunk,
        .width = width,
        .reduce = true,
        .bind = {{x, (uint64_t)chunk * 4, true}, {partials, 4}},
        .spec = {square},
        .push = &push,
        .push_bytes = sizeof push,
        .flops = (double)count * (square ? 2 : 1),
    });
}

bool nn_reduce_range(vk_device *device, vk_bind x, int64_t count, bool square, float scale, vk_bind partials,
                     vk_bind result)
{
    int64_t n = nn_reduce_partials(count);
    if (n == 1)
        return nn_reduce_chunks(device, x, count, square, scale, result);
    return nn_reduce_chunks(device, x, count, square, 1, partials) &&
           nn_reduce_chunks(device, partials, n, false, scale, result);
}
