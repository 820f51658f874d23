/* Command buffers: made from lists of commands, kept, and submitted again when the same list comes once more. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "vk/internal.h"

enum { SETS_PER_POOL = VK_PART, STORAGE_PER_SET = 8, TEXELS_PER_SET = 4 };

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static bool add_set_pool(vk_device *device, struct vk_encoded *encoded)
{
    if (!cs_grow(&encoded->set_pools, &encoded->set_pool_capacity, encoded->set_pool_count + 1,
                 sizeof *encoded->set_pools, "descriptor pools"))
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
    }, NULL, &encoded->set_pools[encoded->set_pool_count]);
    if (!vk_check(device, result, "creating a descriptor pool"))
        return false;
    encoded->set_pool_count++;
    return true;
}

static VkDescriptorSet allocate_set(vk_device *device, struct vk_encoded *encoded, VkDescriptorSetLayout layout)
{
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorSetCount = 1, .pSetLayouts = &layout};
    VkDescriptorSet set;
    for (;; encoded->set_pool++) {
        bool fresh = encoded->set_pool == encoded->set_pool_count;
        if (fresh && !add_set_pool(device, encoded))
            return VK_NULL_HANDLE;
        info.descriptorPool = encoded->set_pools[encoded->set_pool];
        VkResult result = device->api.AllocateDescriptorSets(device->handle, &info, &set);
        bool full = result == VK_ERROR_OUT_OF_POOL_MEMORY || result == VK_ERROR_FRAGMENTED_POOL;
        if (!full || fresh)
            return vk_check(device, result, "allocating descriptors") ? set : VK_NULL_HANDLE;
    }
}

static void write_set(vk_device *device, const struct vk_command *command, uint32_t texels, VkDescriptorSet set)
{
    const struct vk_bound *bound = (const struct vk_bound *)(command + 1);
    VkDescriptorBufferInfo buffers[VK_MAX_BINDS];
    VkBufferView views[VK_MAX_BINDS];
    VkWriteDescriptorSet writes[VK_MAX_BINDS];
    for (uint32_t i = 0; i < command->binds; i++) {
        views[i] = (VkBufferView)bound[i].handle;
        buffers[i] = (VkDescriptorBufferInfo){(VkBuffer)bound[i].handle, bound[i].offset, bound[i].size};
        writes[i] = (VkWriteDescriptorSet){
            .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
            .dstSet = set,
            .dstBinding = i,
            .descriptorCount = 1,
            .descriptorType = texels >> i & 1 ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER
                                              : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .pBufferInfo = &buffers[i],
            .pTexelBufferView = &views[i],
        };
    }
    device->api.UpdateDescriptorSets(device->handle, command->binds, writes, 0, NULL);
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void encode_barrier(vk_device *device, VkCommandBuffer buffer, bool to_host)
{
    const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = to_host ? VK_ACCESS_HOST_READ_BIT
                                 : VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                                       VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    device->api.CmdPipelineBarrier(buffer, work, to_host ? VK_PIPELINE_STAGE_HOST_BIT : work, 0, 1, &memory, 0, NULL, 0,
                                   NULL);
}

static bool encode_dispatch(vk_device *device, struct vk_encoded *encoded, const struct vk_command *c)
{
    const struct vk_layout *layout = &device->kernels.layouts[c->layout];
    const uint8_t *push = (const uint8_t *)(c + 1) + c->binds * sizeof(struct vk_bound);
    if (c->binds) {
        VkDescriptorSet set = allocate_set(device, encoded, layout->set);
        if (!set)
            return false;
        write_set(device, c, layout->texels, set);
        device->api.CmdBindDescriptorSets(encoded->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, layout->handle, 0, 1, &set,
                                          0, NULL);
    }
    device->api.CmdBindPipeline(encoded->buffer, VK_PIPELINE_BIND_POINT_COMPUTE, c->dispatch.pipeline);
    if (c->push_bytes)
        device->api.CmdPushConstants(encoded->buffer, layout->handle, VK_SHADER_STAGE_COMPUTE_BIT, 0, c->push_bytes,
                                     push);
    device->api.CmdDispatch(encoded->buffer, c->dispatch.groups[0], c->dispatch.groups[1], c->dispatch.groups[2]);
    return true;
}

static bool encode_command(vk_device *device, struct vk_encoded *encoded, const struct vk_command *c)
{
    switch ((enum vk_command_kind)c->kind) {
    case VK_COMMAND_DISPATCH:
        return encode_dispatch(device, encoded, c);
    case VK_COMMAND_COPY:
        device->api.CmdCopyBuffer(encoded->buffer, c->copy.from, c->copy.to, 1,
                                  &(VkBufferCopy){c->copy.from_offset, c->copy.to_offset, c->copy.size});
        return true;
    case VK_COMMAND_FILL:
        device->api.CmdFillBuffer(encoded->buffer, c->fill.to, c->fill.offset, c->fill.size, (uint32_t)c->fill.value);
        return true;
    case VK_COMMAND_HOST_BARRIER:
        encode_barrier(device, encoded->buffer, true);
        return true;
    }
    return false;
}

/* A timestamp once everything before it is done: a command's time is from the end of all before it to its own end, so
 * that commands that overlap stand side by side. */
static void stamp(vk_device *device, const struct vk_encoded *encoded, uint32_t index)
{
    if (encoded->stamped)
        device->api.CmdWriteTimestamp(encoded->buffer, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, encoded->queries, index);
}

static bool encode_commands(vk_device *device, struct vk_encoded *encoded)
{
    const struct vk_list *list = &encoded->list;
    if (encoded->stamped)
        device->api.CmdResetQueryPool(encoded->buffer, encoded->queries, 0, 2 * list->count);
    size_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        const struct vk_command *command = (const struct vk_command *)(list->bytes + at);
        if (command->barrier)
            encode_barrier(device, encoded->buffer, false);
        stamp(device, encoded, 2 * i);
        if (!encode_command(device, encoded, command))
            return false;
        stamp(device, encoded, 2 * i + 1);
        at += command->bytes;
    }
    return true;
}

/* ---- command buffers --------------------------------------------------------------------------------------------- */

static bool create_buffer(vk_device *device, struct vk_encoded *encoded)
{
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = device->family};
    if (!vk_check(device, device->api.CreateCommandPool(device->handle, &pool, NULL, &encoded->pool),
                  "creating a command pool"))
        return false;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = encoded->pool, .commandBufferCount = 1};
    return vk_check(device, device->api.AllocateCommandBuffers(device->handle, &info, &encoded->buffer),
                    "creating a command buffer");
}

static bool create_queries(vk_device *device, struct vk_encoded *encoded)
{
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP, .queryCount = 2 * VK_PART};
    return vk_check(device, device->api.CreateQueryPool(device->handle, &info, NULL, &encoded->queries),
                    "creating a query pool");
}

/* Encodes its list. One without timestamps may be in flight several times at once. */
static bool fill_buffer(vk_device *device, struct vk_encoded *encoded)
{
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = encoded->stamped ? 0 : VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    if ((!encoded->buffer && !create_buffer(device, encoded)) ||
        (encoded->stamped && !encoded->queries && !create_queries(device, encoded)) ||
        !vk_check(device, device->api.ResetCommandPool(device->handle, encoded->pool, 0), "resetting a command pool") ||
        !vk_check(device, device->api.BeginCommandBuffer(encoded->buffer, &info), "starting a command buffer"))
        return false;
    for (size_t i = 0; i < encoded->set_pool_count; i++)
        device->api.ResetDescriptorPool(device->handle, encoded->set_pools[i], 0);
    encoded->set_pool = 0;
    return encode_commands(device, encoded) &&
           vk_check(device, device->api.EndCommandBuffer(encoded->buffer), "ending a command buffer");
}

/* ---- the ones that are kept -------------------------------------------------------------------------------------- */

static uint64_t hash_list(const struct vk_list *list)
{
    uint64_t hash = list->size, word;
    for (size_t i = 0; i < list->size; i += sizeof word) {
        memcpy(&word, list->bytes + i, sizeof word);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    return hash;
}

static struct vk_encoded *find_same(vk_device *device, uint64_t hash)
{
    const struct vk_stream *stream = &device->stream;
    const struct vk_list *list = &stream->list;
    for (uint32_t i = 0; i < stream->encoded_count; i++) {
        struct vk_encoded *e = stream->encoded[i];
        if (e->used && e->hash == hash && e->stamped == vk_stamping(device) && !(e->stamped && e->in_flight) &&
            e->list.size == list->size && !memcmp(e->list.bytes, list->bytes, list->size))
            return e;
    }
    return NULL;
}

static struct vk_encoded *find_oldest(const struct vk_stream *stream)
{
    struct vk_encoded *oldest = NULL;
    for (uint32_t i = 0; i < stream->encoded_count; i++)
        if (!stream->encoded[i]->in_flight && (!oldest || stream->encoded[i]->used < oldest->used))
            oldest = stream->encoded[i];
    return oldest;
}

/* One to encode into: one that nothing will look for, a new one while there are few, then the one not in flight that
 * was used longest ago. */
static struct vk_encoded *take_oldest(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    for (;;) {
        struct vk_encoded *oldest = find_oldest(stream);
        if (stream->encoded_count < VK_ENCODED && (!oldest || oldest->used)) {
            struct vk_encoded *fresh = cs_alloc(1, sizeof *fresh, "a command buffer");
            if (fresh)
                stream->encoded[stream->encoded_count++] = fresh;
            return fresh;
        }
        if (oldest)
            return oldest;
        if (!vk_stream_wait(device, stream->submits[stream->first % VK_SUBMITS].value))
            return NULL;
    }
}

static struct vk_encoded *encode_list(vk_device *device, uint64_t hash)
{
    struct vk_stream *stream = &device->stream;
    struct vk_encoded *encoded = take_oldest(device);
    if (!encoded)
        return NULL;
    const struct vk_list spare = encoded->list;
    encoded->list = stream->list;
    stream->list = spare;
    encoded->hash = hash;
    encoded->used = 0;
    encoded->stamped = vk_stamping(device);
    return fill_buffer(device, encoded) ? encoded : NULL;
}

bool vk_encode(vk_device *device)
{
    struct vk_stream *stream = &device->stream;
    if (!stream->list.count)
        return true;
    const bool once = stream->list.once;
    uint64_t hash = once ? 0 : hash_list(&stream->list);
    struct vk_encoded *encoded = once ? NULL : find_same(device, hash);
    device->counters.reused += encoded != NULL;
    if (!encoded) {
        encoded = encode_list(device, hash);
        device->counters.encoded++;
    }
    stream->list.size = stream->list.count = 0;
    if (!encoded)
        return false;
    encoded->used = once ? 0 : ++stream->uses;
    encoded->in_flight++;
    encoded->traced = device->tracing;
    return vk_stream_add_part(device, encoded);
}

void vk_encoded_forget(vk_device *device)
{
    for (uint32_t i = 0; i < device->stream.encoded_count; i++)
        device->stream.encoded[i]->used = 0;
}

static void destroy(vk_device *device, struct vk_encoded *encoded)
{
    if (encoded->pool)
        device->api.DestroyCommandPool(device->handle, encoded->pool, NULL);
    for (size_t i = 0; i < encoded->set_pool_count; i++)
        device->api.DestroyDescriptorPool(device->handle, encoded->set_pools[i], NULL);
    if (encoded->queries)
        device->api.DestroyQueryPool(device->handle, encoded->queries, NULL);
    free(encoded->set_pools);
    free(encoded->list.bytes);
    free(encoded);
}

void vk_encoded_close(vk_device *device)
{
    for (uint32_t i = 0; i < device->stream.encoded_count; i++)
        destroy(device, device->stream.encoded[i]);
}
