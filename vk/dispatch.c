/* Recording one dispatch: checks, pipeline, what it binds. */
#include "vk/internal.h"

#include <string.h>

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static bool check_bind(const vk_device *device, const vk_dispatch *dispatch, uint32_t index)
{
    const vk_caps *caps = &device->caps;
    const vk_bind *bind = &dispatch->bind[index];
    const vk_range *range = &bind->range;
    bool texel = bind->access & VK_TEXEL;
    uint32_t align = texel ? caps->texel_align : caps->storage_align;
    if (texel && bind->access & VK_WRITE)
        return cs_fail("kernel %s: binding %u is a texel buffer and cannot be written", dispatch->kernel, index);
    if (!range->block)
        return true;
    if (range->block->kind != VK_MEMORY_DEVICE)
        return cs_fail("kernel %s: binding %u is host memory", dispatch->kernel, index);
    if (range->block->dry && !device->dry)
        return cs_fail("kernel %s: binding %u was handed out by a dry device", dispatch->kernel, index);
    if (range->offset + range->size > range->block->size)
        return cs_fail("kernel %s: binding %u ends outside its memory", dispatch->kernel, index);
    if (range->offset % align)
        return cs_fail("kernel %s: binding %u starts at byte %llu, not a multiple of %u", dispatch->kernel, index,
                       (unsigned long long)range->offset, align);
    uint64_t limit = texel ? (uint64_t)caps->max_texel_elements * 16 : caps->max_storage_range;
    if (range->size > limit)
        return cs_fail("kernel %s: binding %u has %s, device %s binds at most %s", dispatch->kernel, index,
                       vk_size_text(range->size), caps->name, vk_size_text(limit));
    return true;
}

static bool check(const vk_device *device, const vk_dispatch *dispatch)
{
    const vk_caps *caps = &device->caps;
    if (dispatch->binds > VK_MAX_BINDS || dispatch->specs > VK_MAX_SPECS)
        return cs_fail("kernel %s: %u bindings and %u constants, at most %d and %d", dispatch->kernel, dispatch->binds,
                       dispatch->specs, VK_MAX_BINDS, VK_MAX_SPECS);
    if (dispatch->push_bytes > VK_MAX_PUSH || dispatch->push_bytes % 4)
        return cs_fail("kernel %s: %u bytes of push constants, not a multiple of 4 up to %d", dispatch->kernel,
                       dispatch->push_bytes, VK_MAX_PUSH);
    for (int i = 0; i < 3; i++)
        if (dispatch->groups[i] > caps->max_groups[i])
            return cs_fail("kernel %s: %u workgroups in dimension %d, device %s runs at most %u", dispatch->kernel,
                           dispatch->groups[i], i, caps->name, caps->max_groups[i]);
    uint32_t storage = 0;
    for (uint32_t i = 0; i < dispatch->binds; i++) {
        storage += !(dispatch->bind[i].access & VK_TEXEL);
        if (!check_bind(device, dispatch, i))
            return false;
    }
    return storage <= caps->max_binds || cs_fail("kernel %s: %u storage buffers, device %s binds at most %u",
                                                 dispatch->kernel, storage, caps->name, caps->max_binds);
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* Texel views of the binds that want one; made before recording starts, as that may have to wait for the device. */
static bool get_views(vk_device *device, const vk_dispatch *dispatch, VkBufferView *views)
{
    for (uint32_t i = 0; i < dispatch->binds; i++)
        if (dispatch->bind[i].access & VK_TEXEL && dispatch->bind[i].range.block &&
            !vk_views_make_room(device, dispatch->bind[i].range.block))
            return false;
    for (uint32_t i = 0; i < dispatch->binds; i++) {
        vk_range range = dispatch->bind[i].range;
        if (!(dispatch->bind[i].access & VK_TEXEL))
            continue;
        if (!range.block || !range.size)
            range = (vk_range){device->heap.dummy, 0, VK_ALIGN};
        if (!(views[i] = vk_texel_view(device, range.block, range.offset, range.size)))
            return false;
    }
    return true;
}

static struct vk_bound bound_of(const vk_device *device, const vk_bind *bind, VkBufferView view)
{
    vk_range range = bind->range;
    if (bind->access & VK_TEXEL)
        return (struct vk_bound){.handle = (uint64_t)view};
    if (!range.block || !range.size)
        range = (vk_range){device->heap.dummy, 0, VK_ALIGN};
    /* Whole vec4s: kernels may read packed or vector elements across an odd end, within the 256-byte allocation. */
    uint64_t size = (range.size + 15) / 16 * 16;
    if (size > range.block->size - range.offset)
        size = range.block->size - range.offset;
    return (struct vk_bound){(uint64_t)range.block->buffer, range.offset, size};
}

/* The share of one submit's allowance that a command is estimated to take: a submit should stay under about 100 ms on
 * the slowest devices of a kind (DESIGN decision 11). A CPU driver has no watchdog. */
static double work_of(enum vk_type type, double flops, double bytes)
{
    static const struct {
        double flops, bytes;
    } allowance[] = {
        [VK_TYPE_DISCRETE] = {100e9, 10e9}, [VK_TYPE_INTEGRATED] = {20e9, 2e9}, [VK_TYPE_VIRTUAL] = {20e9, 2e9},
        [VK_TYPE_CPU] = {20e9, 20e9},       [VK_TYPE_OTHER] = {20e9, 2e9},
    };
    const double commands = 4096;
    double by_flops = flops / allowance[type].flops, by_bytes = bytes / allowance[type].bytes;
    return (by_flops > by_bytes ? by_flops : by_bytes) + 1 / commands;
}

static size_t touches_of(const vk_dispatch *dispatch, struct vk_touch *touches)
{
    size_t count = 0;
    for (uint32_t i = 0; i < dispatch->binds; i++) {
        const vk_range *range = &dispatch->bind[i].range;
        if (range->block && range->size)
            touches[count++] = (struct vk_touch){range->block, range->offset, range->offset + range->size,
                                                 dispatch->bind[i].access & VK_WRITE};
    }
    return count;
}

static bool record(vk_device *device, const vk_dispatch *dispatch, const struct vk_pipeline *pipeline,
                   const VkBufferView *views)
{
    const struct vk_about about = {.label = dispatch->label ? dispatch->label : dispatch->kernel,
                                   .flops = dispatch->flops, .bytes = dispatch->bytes, .once = dispatch->once};
    struct vk_touch touches[VK_MAX_BINDS];
    size_t count = touches_of(dispatch, touches),
           extra = dispatch->binds * sizeof(struct vk_bound) + dispatch->push_bytes;
    struct vk_command *command = vk_list_add(device, VK_COMMAND_DISPATCH, extra, touches, count, &about);
    if (!command)
        return false;
    struct vk_bound *bound = (struct vk_bound *)(command + 1);
    command->layout = pipeline->layout;
    command->binds = dispatch->binds;
    command->push_bytes = dispatch->push_bytes;
    command->dispatch.pipeline = pipeline->handle;
    memcpy(command->dispatch.groups, dispatch->groups, sizeof dispatch->groups);
    for (uint32_t i = 0; i < dispatch->binds; i++)
        bound[i] = bound_of(device, &dispatch->bind[i], views[i]);
    if (dispatch->push_bytes)
        memcpy(bound + dispatch->binds, dispatch->push, dispatch->push_bytes);
    device->counters.dispatches++;
    return true;
}

bool vk_run(vk_device *device, const vk_dispatch *dispatch)
{
    if (!dispatch->groups[0] || !dispatch->groups[1] || !dispatch->groups[2])
        return true;
    struct vk_pipeline_key key = {.kernel = vk_kernel_find(device, dispatch->kernel), .binds = dispatch->binds,
                                  .subgroup = dispatch->subgroup, .specs = dispatch->specs};
    if (!vk_alive(device) || key.kernel == VK_MAP_NONE || !check(device, dispatch))
        return false;
    if (device->dry)
        return true;
    memcpy(key.spec, dispatch->spec, dispatch->specs * sizeof key.spec[0]);
    for (uint32_t i = 0; i < dispatch->binds; i++)
        key.texels |= dispatch->bind[i].access & VK_TEXEL ? 1u << i : 0;
    const struct vk_pipeline *pipeline = vk_pipeline_get(device, &key);
    VkBufferView views[VK_MAX_BINDS] = {0};
    if (!pipeline || !get_views(device, dispatch, views))
        return false;
    double work = work_of(device->caps.type, dispatch->flops, dispatch->bytes);
    if (device->stream.work > 0 && device->stream.work + work > 1 && !vk_submit(device))
        return false;
    device->stream.work += work;
    return record(device, dispatch, pipeline, views);
}
