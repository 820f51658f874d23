/* Recording one dispatch: checks, descriptors, ordering. */
#include "vk/internal.h"

#include <string.h>

#include "base/memory.h"

enum { SETS_PER_POOL = 256, STORAGE_PER_SET = 8, TEXELS_PER_SET = 4 };

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

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static bool add_set_pool(vk_device *device, struct vk_commands *commands)
{
    if (!cs_grow(&commands->set_pools, &commands->set_pool_capacity, commands->set_pool_count + 1,
                 sizeof *commands->set_pools, "descriptor pools"))
        return false;
    VkDescriptorPoolSize sizes[] = {
        {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, SETS_PER_POOL * STORAGE_PER_SET},
        {VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER, SETS_PER_POOL * TEXELS_PER_SET},
    };
    VkResult result = device->api.CreateDescriptorPool(device->handle, &(VkDescriptorPoolCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = SETS_PER_POOL,
        .poolSizeCount = 2,
        .pPoolSizes = sizes,
    }, NULL, &commands->set_pools[commands->set_pool_count]);
    if (!vk_check(device, result, "creating a descriptor pool"))
        return false;
    commands->set_pool_count++;
    return true;
}

static VkDescriptorSet allocate_set(vk_device *device, struct vk_commands *commands, VkDescriptorSetLayout layout)
{
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorSetCount = 1, .pSetLayouts = &layout};
    VkDescriptorSet set;
    for (;; commands->set_pool++) {
        bool fresh = commands->set_pool == commands->set_pool_count;
        if (fresh && !add_set_pool(device, commands))
            return VK_NULL_HANDLE;
        info.descriptorPool = commands->set_pools[commands->set_pool];
        VkResult result = device->api.AllocateDescriptorSets(device->handle, &info, &set);
        bool full = result == VK_ERROR_OUT_OF_POOL_MEMORY || result == VK_ERROR_FRAGMENTED_POOL;
        if (!full || fresh)
            return vk_check(device, result, "allocating descriptors") ? set : VK_NULL_HANDLE;
    }
}

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

static void write_set(vk_device *device, const vk_dispatch *dispatch, VkDescriptorSet set, const VkBufferView *views)
{
    VkDescriptorBufferInfo buffers[VK_MAX_BINDS];
    VkWriteDescriptorSet writes[VK_MAX_BINDS];
    for (uint32_t i = 0; i < dispatch->binds; i++) {
        vk_range range = dispatch->bind[i].range;
        bool texel = dispatch->bind[i].access & VK_TEXEL;
        if (!range.block || !range.size)
            range = (vk_range){device->heap.dummy, 0, VK_ALIGN};
        /* Whole vec4s: kernels may read packed or vector elements across an odd end, within the 256-byte allocation. */
        uint64_t size = (range.size + 15) / 16 * 16;
        if (size > range.block->size - range.offset)
            size = range.block->size - range.offset;
        buffers[i] = (VkDescriptorBufferInfo){range.block->buffer, range.offset, size};
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType =
                texel ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = &buffers[i],
            .pTexelBufferView = &views[i],
        };
    }
    device->api.UpdateDescriptorSets(device->handle, dispatch->binds, writes, 0, NULL);
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

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
    const struct vk_layout *layout = &device->kernels.layouts[pipeline->layout];
    const char *label = dispatch->label ? dispatch->label : dispatch->kernel;
    struct vk_commands *commands = vk_stream_record(device);
    struct vk_touch touches[VK_MAX_BINDS];
    size_t count = touches_of(dispatch, touches);
    VkDescriptorSet set = VK_NULL_HANDLE;
    if (!commands || (dispatch->binds && !(set = allocate_set(device, commands, layout->set))) ||
        !vk_order(device, commands, touches, count) || !vk_profile_begin(device, commands))
        return false;
    if (set) {
        write_set(device, dispatch, set, views);
        device->api.CmdBindDescriptorSets(commands->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, layout->handle, 0, 1, &set, 0,
                                          NULL);
    }
    device->api.CmdBindPipeline(commands->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline->handle);
    if (dispatch->push_bytes)
        device->api.CmdPushConstants(commands->buffer, layout->handle, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                     dispatch->push_bytes, dispatch->push);
    device->api.CmdDispatch(commands->buffer, dispatch->groups[0], dispatch->groups[1], dispatch->groups[2]);
    vk_stream_note(device, label);
    device->counters.dispatches++;
    return vk_profile_end(device, commands, &(struct vk_about){label, false, dispatch->flops, dispatch->bytes});
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
    struct vk_stream *stream = &device->stream;
    struct vk_commands *current = &stream->commands[stream->next % VK_COMMANDS];
    double work = work_of(device->caps.type, dispatch->flops, dispatch->bytes);
    if (stream->recording && current->work > 0 && current->work + work > 1 && !vk_submit(device))
        return false;
    if (!record(device, dispatch, pipeline, views))
        return false;
    stream->commands[stream->next % VK_COMMANDS].work += work;
    return true;
}
