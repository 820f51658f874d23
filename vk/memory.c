/* Arenas: each memory kind grows by blocks (one VkBuffer with its memory), cut up by best fit. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define MIB (UINT64_C(1) << 20)

enum { FIRST_BLOCK_MIB = 16, LAST_BLOCK_MIB = 256 };

static const char *const kind_names[] = {"device memory", "upload memory", "readback memory"};

const char *vk_size_text(uint64_t bytes)
{
    static _Thread_local char text[4][32];
    static _Thread_local unsigned turn;
    char *out = text[turn++ % 4];
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(out, sizeof text[0], unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

/* ---- memory types ------------------------------------------------------------------------------------------------ */

static int score(enum vk_memory kind, VkMemoryPropertyFlags flags)
{
    const VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    bool local = flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, cached = flags & VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
    if (flags & (VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT))
        return -1;
    if (kind == VK_MEMORY_DEVICE)
        return 2 * local + !(flags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT);
    if ((flags & host) != host)
        return -1;
    return kind == VK_MEMORY_UPLOAD ? 2 * !local + !cached : 2 * cached + !local;
}

static VkBufferUsageFlags usage_of(enum vk_memory kind)
{
    switch (kind) {
    case VK_MEMORY_UPLOAD:
        return VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
    case VK_MEMORY_READBACK:
        return VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    default:
        return VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
               VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    }
}

static VkResult create_buffer(vk_device *device, enum vk_memory kind, uint64_t size, VkBuffer *buffer)
{
    return device->api.CreateBuffer(device->handle, &(VkBufferCreateInfo){
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = size, .usage = usage_of(kind)}, NULL, buffer);
}

/* Chooses each kind's memory type among those that its buffers can live in. */
static bool choose_types(vk_device *device)
{
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    device->api.GetPhysicalDeviceMemoryProperties2(device->physical, &memory);
    const VkPhysicalDeviceMemoryProperties *properties = &memory.memoryProperties;
    for (int kind = 0; kind < VK_MEMORY_KINDS; kind++) {
        VkBuffer buffer;
        VkMemoryRequirements needs;
        if (!vk_check(device, create_buffer(device, kind, VK_ALIGN, &buffer), "creating a buffer"))
            return false;
        device->api.GetBufferMemoryRequirements(device->handle, buffer, &needs);
        device->api.DestroyBuffer(device->handle, buffer, NULL);
        int best = -1;
        for (uint32_t i = 0; i < properties->memoryTypeCount; i++) {
            int points = needs.memoryTypeBits >> i & 1 ? score(kind, properties->memoryTypes[i].propertyFlags) : -1;
            if (points <= best)
                continue;
            best = points;
            device->heap.type[kind] = i;
        }
        if (best < 0)
            return cs_fail("device %s offers no memory for %s", device->caps.name, kind_names[kind]);
    }
    device->heap.device_heap = properties->memoryTypes[device->heap.type[VK_MEMORY_DEVICE]].heapIndex;
    device->heap.device_heap_bytes = properties->memoryHeaps[device->heap.device_heap].size;
    return true;
}

/* Bytes that this process may take from the device's heap, all in all. */
static uint64_t budget(const vk_device *device)
{
    if (device->heap.limit)
        return device->heap.limit;
    if (!device->caps.memory_budget)
        return device->heap.device_heap_bytes;
    VkPhysicalDeviceMemoryBudgetPropertiesEXT now = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                                .pNext = &now};
    device->api.GetPhysicalDeviceMemoryProperties2(device->physical, &memory);
    return now.heapBudget[device->heap.device_heap];
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static void destroy_block(vk_device *device, struct vk_block *block)
{
    vk_views_destroy(device, block);
    if (block->buffer)
        device->api.DestroyBuffer(device->handle, block->buffer, NULL);
    if (block->memory)
        device->api.FreeMemory(device->handle, block->memory, NULL);
    free(block->holes.items);
    free(block->reads.items);
    free(block->writes.items);
    free(block);
}

static VkResult back_block(vk_device *device, struct vk_block *block)
{
    VkMemoryRequirements needs;
    VkResult result = create_buffer(device, block->kind, block->size, &block->buffer);
    if (result)
        return result;
    device->api.GetBufferMemoryRequirements(device->handle, block->buffer, &needs);
    result = device->api.AllocateMemory(device->handle, &(VkMemoryAllocateInfo){
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .allocationSize = needs.size,
        .memoryTypeIndex = device->heap.type[block->kind],
    }, NULL, &block->memory);
    if (!result)
        result = device->api.BindBufferMemory(device->handle, block->buffer, block->memory, 0);
    if (!result && block->kind != VK_MEMORY_DEVICE)
        result = device->api.MapMemory(device->handle, block->memory, 0, VK_WHOLE_SIZE, 0, (void **)&block->mapped);
    return result;
}

/* A block with no holes, outside the arenas. NULL on failure, `*result` saying whether the driver refused. */
static struct vk_block *create_block(vk_device *device, enum vk_memory kind, uint64_t size, bool dry, VkResult *result)
{
    struct vk_block *block = cs_alloc(1, sizeof *block, "a memory block");
    *result = VK_SUCCESS;
    if (!block)
        return NULL;
    block->kind = kind;
    block->size = size;
    block->dry = dry;
    if (!dry)
        *result = back_block(device, block);
    if (*result) {
        destroy_block(device, block);
        return NULL;
    }
    if (block->buffer)
        vk_name_object(device, VK_OBJECT_TYPE_BUFFER, (uint64_t)block->buffer, kind_names[kind]);
    return block;
}

static void account_block(vk_device *device, const struct vk_block *block, bool added)
{
    if (block->dry)
        return;
    uint64_t *reserved = block->kind == VK_MEMORY_DEVICE ? &device->heap.reserved : &device->heap.host_reserved;
    *reserved = added ? *reserved + block->size : *reserved - block->size;
}

/* Adds a block to the arena; false with `*result` set where the driver refuses. */
static bool grow(vk_device *device, enum vk_memory kind, uint64_t size, bool dry, VkResult *result)
{
    struct vk_heap *heap = &device->heap;
    if (!cs_grow(&heap->blocks, &heap->capacity, heap->count + 1, sizeof *heap->blocks, "memory blocks"))
        return false;
    struct vk_block *block = create_block(device, kind, size, dry, result);
    if (!block)
        return false;
    if (!vk_spans_add(&block->holes, 0, size)) {
        destroy_block(device, block);
        return false;
    }
    heap->blocks[heap->count++] = block;
    account_block(device, block, true);
    return true;
}

/* Gives wholly unused blocks back to the driver; waits for the device, as past work may still use them. */
static bool trim(vk_device *device)
{
    struct vk_heap *heap = &device->heap;
    uint64_t value = vk_submit(device);
    if (!value || !vk_wait(device, value))
        return false;
    size_t kept = 0;
    for (size_t i = 0; i < heap->count; i++) {
        struct vk_block *block = heap->blocks[i];
        if (block->holes.count == 1 && block->holes.items[0].hi - block->holes.items[0].lo == block->size) {
            vk_encoded_forget(device);
            account_block(device, block, false);
            destroy_block(device, block);
        } else {
            heap->blocks[kept++] = block;
        }
    }
    heap->count = kept;
    return true;
}

/* ---- ranges ------------------------------------------------------------------------------------------------------ */

/* Best fit over all blocks of a kind. */
static bool carve(struct vk_heap *heap, enum vk_memory kind, bool dry, uint64_t bytes, vk_range *range)
{
    struct vk_block *best = NULL;
    size_t best_hole = 0;
    uint64_t best_size = UINT64_MAX;
    for (size_t i = 0; i < heap->count; i++) {
        struct vk_block *block = heap->blocks[i];
        if (block->kind != kind || block->dry != dry)
            continue;
        for (size_t hole = 0; hole < block->holes.count; hole++) {
            uint64_t size = block->holes.items[hole].hi - block->holes.items[hole].lo;
            if (size < bytes || size >= best_size)
                continue;
            best = block;
            best_hole = hole;
            best_size = size;
        }
    }
    if (!best)
        return false;
    range->block = best;
    range->offset = best->holes.items[best_hole].lo;
    vk_spans_take(&best->holes, best_hole, bytes);
    return true;
}

static bool fail_memory(const vk_device *device, enum vk_memory kind, const char *what, uint64_t bytes)
{
    const struct vk_heap *heap = &device->heap;
    uint64_t total = budget(device), used = kind == VK_MEMORY_DEVICE ? heap->used : heap->host_used;
    if (kind != VK_MEMORY_DEVICE)
        return cs_fail("out of %s for %s: %s wanted, %s in use", kind_names[kind], what, vk_size_text(bytes),
                       vk_size_text(used));
    return cs_fail("out of device memory for %s: %s wanted, %s available of %s", what, vk_size_text(bytes),
                   vk_size_text(total > used ? total - used : 0), vk_size_text(total));
}

/* Blocks grow with what is already reserved, so that small jobs stay small and large ones need few blocks. */
static uint64_t block_size(const vk_device *device, enum vk_memory kind, uint64_t bytes, uint64_t allowed)
{
    const struct vk_heap *heap = &device->heap;
    uint64_t size = kind == VK_MEMORY_DEVICE ? heap->reserved : heap->host_reserved / 2;
    if (size < FIRST_BLOCK_MIB * MIB)
        size = kind == VK_MEMORY_DEVICE ? FIRST_BLOCK_MIB * MIB : 4 * MIB;
    if (size > LAST_BLOCK_MIB * MIB)
        size = LAST_BLOCK_MIB * MIB;
    if (size > device->caps.max_allocation)
        size = device->caps.max_allocation;
    if (size > allowed)
        size = allowed;
    if (size < bytes)
        size = bytes;
    return (size + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN;
}

/* Makes room for `bytes` by a new block: the usual size, else just what is needed. */
static bool extend(vk_device *device, enum vk_memory kind, uint64_t bytes)
{
    struct vk_heap *heap = &device->heap;
    if (device->dry && kind == VK_MEMORY_DEVICE) {
        VkResult ignored;
        return grow(device, kind, bytes > LAST_BLOCK_MIB * MIB ? bytes : LAST_BLOCK_MIB * MIB, true, &ignored);
    }
    uint64_t allowed = UINT64_MAX;
    if (kind == VK_MEMORY_DEVICE) {
        uint64_t total = budget(device);
        allowed = total > heap->reserved ? total - heap->reserved : 0;
        if (bytes > allowed)
            return false;
    }
    VkResult result = VK_SUCCESS;
    uint64_t size = block_size(device, kind, bytes, allowed);
    return grow(device, kind, size, false, &result) ||
           (result && size > bytes && grow(device, kind, bytes, false, &result));
}

vk_range vk_alloc(vk_device *device, uint64_t bytes, enum vk_memory kind, const char *what)
{
    struct vk_heap *heap = &device->heap;
    bool dry = device->dry && kind == VK_MEMORY_DEVICE;
    uint64_t rounded = bytes ? (bytes + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN : VK_ALIGN;
    vk_range none = {0}, range = {.size = bytes};
    if (bytes > UINT64_MAX / 2 || (!dry && rounded > device->caps.max_allocation))
        return cs_fail("allocating %s for %s: device %s allows at most %s in one piece", vk_size_text(bytes), what,
                       device->caps.name, vk_size_text(device->caps.max_allocation)), none;
    if (kind == VK_MEMORY_DEVICE && !dry && heap->limit && heap->used + rounded > heap->limit)
        return fail_memory(device, kind, what, rounded), none;
    if (!carve(heap, kind, dry, rounded, &range) &&
        !(extend(device, kind, rounded) && carve(heap, kind, dry, rounded, &range)) &&
        !(!dry && trim(device) && extend(device, kind, rounded) && carve(heap, kind, dry, rounded, &range)))
        return vk_alive(device) ? fail_memory(device, kind, what, rounded) : false, none;
    uint64_t *used = kind == VK_MEMORY_DEVICE ? &heap->used : &heap->host_used;
    *used += rounded;
    if (heap->used > heap->peak)
        heap->peak = heap->used;
    if (heap->host_used > heap->host_peak)
        heap->host_peak = heap->host_used;
    return range;
}

void vk_free(vk_device *device, vk_range *range)
{
    struct vk_block *block = range->block;
    if (block) {
        uint64_t rounded = range->size ? (range->size + VK_ALIGN - 1) / VK_ALIGN * VK_ALIGN : VK_ALIGN;
        uint64_t *used = block->kind == VK_MEMORY_DEVICE ? &device->heap.used : &device->heap.host_used;
        *used -= rounded;
        vk_spans_add(&block->holes, range->offset, range->offset + rounded);
    }
    *range = (vk_range){0};
}

void *vk_host(vk_range range)
{
    return range.block && range.block->mapped ? range.block->mapped + range.offset : NULL;
}

vk_memory_stats vk_memory_get(const vk_device *device)
{
    const struct vk_heap *heap = &device->heap;
    return (vk_memory_stats){.used = heap->used, .peak = heap->peak, .reserved = heap->reserved,
                             .host_used = heap->host_used, .host_peak = heap->host_peak, .budget = budget(device)};
}

void vk_memory_reset_peak(vk_device *device)
{
    device->heap.peak = device->heap.used;
}

bool vk_dry(vk_device *device, bool dry)
{
    if (!vk_alive(device))
        return false;
    device->dry = dry;
    return true;
}

bool vk_is_dry(const vk_device *device)
{
    return device->dry;
}

bool vk_memory_init(vk_device *device)
{
    VkResult result;
    if (!choose_types(device))
        return false;
    device->heap.dummy = create_block(device, VK_MEMORY_DEVICE, VK_ALIGN, false, &result);
    return device->heap.dummy || vk_check(device, result ? result : VK_ERROR_OUT_OF_HOST_MEMORY, "allocating a buffer");
}

void vk_memory_close(vk_device *device)
{
    struct vk_heap *heap = &device->heap;
    for (size_t i = 0; i < heap->count; i++)
        destroy_block(device, heap->blocks[i]);
    if (heap->dummy)
        destroy_block(device, heap->dummy);
    free(heap->blocks);
    *heap = (struct vk_heap){0};
}
