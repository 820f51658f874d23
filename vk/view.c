/* Texel views (VkBufferView, R32G32B32A32_UINT) of ranges, cached with their block. */
#include "vk/internal.h"

#include <stdlib.h>

#include "base/memory.h"

enum { TEXEL_BYTES = 16, MAX_VIEWS = 16384 };

static uint64_t view_hash(uint64_t offset, uint64_t size)
{
    return vk_hash((uint64_t[]){offset, size}, 2 * sizeof(uint64_t), VK_HASH_SEED);
}

static bool create_view(vk_device *device, struct vk_block *block, uint64_t offset, uint64_t size)
{
    if (!cs_grow(&block->views, &block->view_capacity, block->view_count + 1, sizeof *block->views, "texel views"))
        return false;
    struct vk_view *view = &block->views[block->view_count];
    *view = (struct vk_view){.offset = offset, .size = size};
    VkResult result = device->api.CreateBufferView(device->handle, &(VkBufferViewCreateInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
        .buffer = block->buffer,
        .format = VK_FORMAT_R32G32B32A32_UINT,
        .offset = offset,
        .range = size,
    }, NULL, &view->handle);
    if (!vk_check(device, result, "creating a texel view"))
        return false;
    if (!vk_map_put(&block->view_map, view_hash(offset, size), (uint32_t)block->view_count)) {
        device->api.DestroyBufferView(device->handle, view->handle, NULL);
        return false;
    }
    block->view_count++;
    return true;
}

VkBufferView vk_texel_view(vk_device *device, struct vk_block *block, uint64_t offset, uint64_t size)
{
    size = (size + TEXEL_BYTES - 1) / TEXEL_BYTES * TEXEL_BYTES;
    size_t probe = 0;
    for (uint32_t i; (i = vk_map_next(&block->view_map, view_hash(offset, size), &probe)) != VK_MAP_NONE;)
        if (block->views[i].offset == offset && block->views[i].size == size)
            return block->views[i].handle;
    return create_view(device, block, offset, size) ? block->views[block->view_count - 1].handle : VK_NULL_HANDLE;
}

bool vk_views_make_room(vk_device *device, struct vk_block *block)
{
    if (block->view_count + VK_MAX_BINDS <= MAX_VIEWS)
        return true;
    uint64_t value = vk_submit(device);
    if (!value || !vk_wait(device, value))
        return false;
    vk_encoded_forget(device);
    vk_views_destroy(device, block);
    return true;
}

void vk_views_destroy(vk_device *device, struct vk_block *block)
{
    for (size_t i = 0; i < block->view_count; i++)
        device->api.DestroyBufferView(device->handle, block->views[i].handle, NULL);
    free(block->views);
    block->views = NULL;
    block->view_count = block->view_capacity = 0;
    vk_map_clear(&block->view_map);
}
