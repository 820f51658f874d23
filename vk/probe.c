/* What a physical device can do. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

bool vk_has_extension(const struct vk_api *api, VkPhysicalDevice physical, const char *name)
{
    uint32_t count = 0;
    api->EnumerateDeviceExtensionProperties(physical, NULL, &count, NULL);
    VkExtensionProperties *extensions = cs_alloc(count, sizeof *extensions, "Vulkan device extensions");
    bool found = false;
    if (extensions && api->EnumerateDeviceExtensionProperties(physical, NULL, &count, extensions) >= 0)
        for (uint32_t i = 0; i < count; i++)
            found |= !strcmp(extensions[i].extensionName, name);
    free(extensions);
    return found;
}

uint32_t vk_queue_family(const struct vk_api *api, VkPhysicalDevice physical, uint32_t *bits)
{
    uint32_t count = 0, best = UINT32_MAX;
    api->GetPhysicalDeviceQueueFamilyProperties(physical, &count, NULL);
    VkQueueFamilyProperties *families = cs_alloc(count, sizeof *families, "Vulkan queue families");
    if (!families)
        return UINT32_MAX;
    api->GetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT))
            continue;
        bool pure = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (best == UINT32_MAX || (pure && families[best].queueFlags & VK_QUEUE_GRAPHICS_BIT))
            best = i;
    }
    if (best != UINT32_MAX)
        *bits = families[best].timestampValidBits;
    free(families);
    return best;
}

static enum vk_type type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return VK_TYPE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return VK_TYPE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return VK_TYPE_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return VK_TYPE_CPU;
    default:
        return VK_TYPE_OTHER;
    }
}

/* The largest heap of the kind that device-local allocations come from. */
static uint64_t device_memory(const struct vk_api *api, VkPhysicalDevice physical)
{
    VkPhysicalDeviceMemoryProperties2 memory = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    api->GetPhysicalDeviceMemoryProperties2(physical, &memory);
    uint64_t local = 0, any = 0;
    for (uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; i++) {
        VkMemoryHeap heap = memory.memoryProperties.memoryHeaps[i];
        if (heap.size > any)
            any = heap.size;
        if (heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT && heap.size > local)
            local = heap.size;
    }
    return local ? local : any;
}

static void probe_limits(const VkPhysicalDeviceLimits *limits, vk_caps *caps)
{
    caps->max_invocations = limits->maxComputeWorkGroupInvocations;
    memcpy(caps->max_local_size, limits->maxComputeWorkGroupSize, sizeof caps->max_local_size);
    memcpy(caps->max_groups, limits->maxComputeWorkGroupCount, sizeof caps->max_groups);
    caps->max_shared_bytes = limits->maxComputeSharedMemorySize;
    caps->max_push_bytes = limits->maxPushConstantsSize;
    caps->max_binds = limits->maxPerStageDescriptorStorageBuffers;
    caps->max_storage_range = limits->maxStorageBufferRange;
    caps->max_texel_elements = limits->maxTexelBufferElements;
    caps->storage_align = (uint32_t)limits->minStorageBufferOffsetAlignment;
    caps->texel_align = (uint32_t)limits->minTexelBufferOffsetAlignment;
    caps->timestamp_ns = limits->timestampPeriod;
}

/* Features of newer Vulkan, asked for only where the extension is there. */
struct matrix_features {
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bfloat16;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix2;
};

static void chain_matrix_features(const struct vk_api *api, VkPhysicalDevice physical, struct matrix_features *f,
                                  VkPhysicalDeviceFeatures2 *features)
{
    *f = (struct matrix_features){
        .matrix = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR},
        .bfloat16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR},
        .matrix2 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV},
    };
    const struct {
        const char *extension;
        void *feature;
    } links[] = {
        {VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, &f->matrix},
        {VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME, &f->bfloat16},
        {VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME, &f->matrix2},
    };
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (vk_has_extension(api, physical, links[i].extension))
            vk_link(features, links[i].feature);
}

/* Whether a kernel here makes use of such products: of f16 or bf16, summed in f32. */
static bool is_used(const vk_caps *caps, const struct matrix_features *f, VkComponentTypeKHR a, VkComponentTypeKHR b,
                    VkComponentTypeKHR c, VkComponentTypeKHR result)
{
    bool half = a == VK_COMPONENT_TYPE_FLOAT16_KHR && caps->float16;
    bool brain = a == VK_COMPONENT_TYPE_BFLOAT16_KHR && caps->float16 && f->bfloat16.shaderBFloat16CooperativeMatrix;
    return (half || brain) && b == a && c == VK_COMPONENT_TYPE_FLOAT32_KHR && result == c;
}

/* The driver's list, less what no kernel here makes use of. */
static void probe_matrix_shapes(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps,
                                const struct matrix_features *f)
{
    uint32_t count = 0;
    if (!api->GetPhysicalDeviceCooperativeMatrixPropertiesKHR ||
        api->GetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &count, NULL))
        return;
    VkCooperativeMatrixPropertiesKHR *shapes = cs_alloc(count, sizeof *shapes, "cooperative matrix shapes");
    for (uint32_t i = 0; shapes && i < count; i++)
        shapes[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (!shapes || api->GetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &count, shapes) < 0)
        count = 0;
    for (uint32_t i = 0; i < count && caps->matrix_count < VK_MAX_MATRIX_SHAPES; i++) {
        const VkCooperativeMatrixPropertiesKHR *s = &shapes[i];
        if (is_used(caps, f, s->AType, s->BType, s->CType, s->ResultType) && s->scope == VK_SCOPE_SUBGROUP_KHR &&
            !s->saturatingAccumulation)
            caps->matrix[caps->matrix_count++] = (vk_matrix_shape){s->MSize, s->NSize, s->KSize,
                                                                   s->AType == VK_COMPONENT_TYPE_BFLOAT16_KHR};
    }
    free(shapes);
}

/* Likewise, of the matrices of whole workgroups. */
static void probe_matrix_grains(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps,
                                const struct matrix_features *f)
{
    uint32_t count = 0;
    if (!api->GetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV ||
        api->GetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV(physical, &count, NULL))
        return;
    VkCooperativeMatrixFlexibleDimensionsPropertiesNV *grains =
        cs_alloc(count, sizeof *grains, "cooperative matrix sizes");
    for (uint32_t i = 0; grains && i < count; i++)
        grains[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV;
    if (!grains ||
        api->GetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV(physical, &count, grains) < 0)
        count = 0;
    for (uint32_t i = 0; i < count && caps->matrix2_count < VK_MAX_MATRIX_SHAPES; i++) {
        const VkCooperativeMatrixFlexibleDimensionsPropertiesNV *s = &grains[i];
        bool brain = s->AType == VK_COMPONENT_TYPE_BFLOAT16_KHR;
        if (is_used(caps, f, s->AType, s->BType, s->CType, s->ResultType) && s->scope == VK_SCOPE_WORKGROUP_KHR &&
            !s->saturatingAccumulation && s->MGranularity && s->NGranularity && s->KGranularity &&
            vk_matrix_find(caps, brain)) /* which the type is enabled by */
            caps->matrix2[caps->matrix2_count++] = (vk_matrix_grain){s->MGranularity, s->NGranularity,
                                                                     s->KGranularity, s->workgroupInvocations, brain};
    }
    free(grains);
}

/* All that gemm_coopmat2 uses. Its code is SPIR-V 1.6, which is Vulkan 1.3's, and names its workgroup's size as
 * maintenance4 allows, which all of Vulkan 1.3 have. */
static bool has_matrix2(const vk_caps *caps, const VkPhysicalDeviceCooperativeMatrix2FeaturesNV *f,
                        const VkPhysicalDeviceVulkan12Features *v12)
{
    return caps->api_version >= VK_API_VERSION_1_3 && v12->bufferDeviceAddress && f->cooperativeMatrixWorkgroupScope &&
           f->cooperativeMatrixFlexibleDimensions && f->cooperativeMatrixPerElementOperations &&
           f->cooperativeMatrixTensorAddressing && f->cooperativeMatrixBlockLoads;
}

static void probe_features(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps, bool *timeline)
{
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
    VkPhysicalDeviceFaultFeaturesEXT fault = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FAULT_FEATURES_EXT};
    VkPhysicalDeviceVulkan12Features v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceVulkan11Features v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
                                            .pNext = &v12};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11};
    bool size_control = caps->api_version >= VK_API_VERSION_1_3 ||
                        vk_has_extension(api, physical, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    bool device_fault = vk_has_extension(api, physical, VK_EXT_DEVICE_FAULT_EXTENSION_NAME);
    if (size_control)
        vk_link(&v12, &subgroup);
    if (device_fault)
        vk_link(&v12, &fault);
    struct matrix_features matrix;
    chain_matrix_features(api, physical, &matrix, &features);
    api->GetPhysicalDeviceFeatures2(physical, &features);
    *timeline = v12.timelineSemaphore;
    caps->float16 = v12.shaderFloat16;
    caps->storage16 = v11.storageBuffer16BitAccess;
    caps->int64 = features.features.shaderInt64;
    caps->subgroup_control = subgroup.subgroupSizeControl && subgroup.computeFullSubgroups;
    caps->device_fault = fault.deviceFault;
    if (matrix.matrix.cooperativeMatrix && v12.vulkanMemoryModel && v12.vulkanMemoryModelDeviceScope &&
        caps->subgroup_control)
        probe_matrix_shapes(api, physical, caps, &matrix);
    if (caps->matrix_count && has_matrix2(caps, &matrix.matrix2, &v12))
        probe_matrix_grains(api, physical, caps, &matrix);
    caps->memory_budget = vk_has_extension(api, physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    caps->push_descriptor = vk_has_extension(api, physical, VK_KHR_PUSH_DESCRIPTOR_EXTENSION_NAME);
}

/* NVIDIA's drivers and AMD's say; Intel's do not. */
static uint32_t count_cores(const struct vk_api *api, VkPhysicalDevice physical)
{
    VkPhysicalDeviceShaderSMBuiltinsPropertiesNV nvidia = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
    VkPhysicalDeviceShaderCoreProperties2AMD amd = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_CORE_PROPERTIES_2_AMD};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    if (vk_has_extension(api, physical, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME))
        vk_link(&properties, &nvidia);
    else if (vk_has_extension(api, physical, VK_AMD_SHADER_CORE_PROPERTIES_2_EXTENSION_NAME))
        vk_link(&properties, &amd);
    else
        return 0;
    api->GetPhysicalDeviceProperties2(physical, &properties);
    return nvidia.shaderSMCount ? nvidia.shaderSMCount : amd.activeComputeUnitCount;
}

/* A driver may allocate more than maxMemoryAllocationSize: NVIDIA's says 4 GiB and gives all there is. So the size of a
 * buffer is the limit where it is known (Vulkan 1.3), and the driver refuses what it cannot give. */
static uint64_t max_allocation(enum vk_type type, uint64_t memory, uint64_t buffer)
{
    return !buffer || (type == VK_TYPE_CPU && memory < buffer) ? memory : buffer;
}

static void probe_properties(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps)
{
    VkPhysicalDeviceSubgroupSizeControlProperties control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceMaintenance4Properties maintenance = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES};
    VkPhysicalDeviceCooperativeMatrix2PropertiesNV matrix2 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_PROPERTIES_NV};
    VkPhysicalDeviceVulkan12Properties v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES};
    VkPhysicalDeviceVulkan11Properties v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES,
                                              .pNext = &v12};
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &v11};
    if (caps->subgroup_control)
        vk_link(&v12, &control);
    if (caps->api_version >= VK_API_VERSION_1_3)
        vk_link(&v12, &maintenance);
    if (caps->matrix2_count)
        vk_link(&v12, &matrix2);
    api->GetPhysicalDeviceProperties2(physical, &properties);
    caps->cores = count_cores(api, physical);
    memcpy(caps->pipeline_cache_uuid, properties.properties.pipelineCacheUUID, sizeof caps->pipeline_cache_uuid);
    memcpy(caps->uuid, v11.deviceUUID, sizeof caps->uuid);
    snprintf(caps->driver, sizeof caps->driver, "%s", v12.driverName);
    snprintf(caps->driver_info, sizeof caps->driver_info, "%s", v12.driverInfo);
    caps->subgroup_size = caps->subgroup_min = caps->subgroup_max = v11.subgroupSize;
    if (caps->subgroup_control && !(control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT))
        caps->subgroup_control = false;
    if (caps->subgroup_control) {
        caps->subgroup_min = control.minSubgroupSize;
        caps->subgroup_max = control.maxSubgroupSize;
    }
    caps->matrix2_max_size = matrix2.cooperativeMatrixFlexibleDimensionsMaxDimension;
    caps->matrix2_shared_bytes = matrix2.cooperativeMatrixWorkgroupScopeReservedSharedMemory;
    bool compute = v11.subgroupSupportedStages & VK_SHADER_STAGE_COMPUTE_BIT;
    caps->subgroup_arithmetic = compute && v11.subgroupSupportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
    caps->subgroup_shuffle = compute && v11.subgroupSupportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    caps->max_allocation = max_allocation(caps->type, v11.maxMemoryAllocationSize, maintenance.maxBufferSize);
}

const vk_matrix_shape *vk_matrix_find(const vk_caps *caps, bool bfloat16)
{
    const vk_matrix_shape *best = NULL;
    for (uint32_t i = 0; i < caps->matrix_count; i++) {
        const vk_matrix_shape *s = &caps->matrix[i];
        if (s->bfloat16 == bfloat16 && (!best || s->m * s->n * s->k > best->m * best->n * best->k))
            best = s;
    }
    return best;
}

bool vk_probe(const struct vk_api *api, VkPhysicalDevice physical, vk_caps *caps)
{
    VkPhysicalDeviceProperties2 properties = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    api->GetPhysicalDeviceProperties2(physical, &properties);
    const VkPhysicalDeviceProperties *p = &properties.properties;
    *caps = (vk_caps){.type = type_of(p->deviceType), .vendor_id = p->vendorID, .device_id = p->deviceID,
                      .driver_version = p->driverVersion, .api_version = p->apiVersion};
    snprintf(caps->name, sizeof caps->name, "%s", p->deviceName);
    if (p->apiVersion < VK_API_VERSION_1_2)
        return false;
    uint32_t timestamp_bits = 0;
    bool timeline = false, compute = vk_queue_family(api, physical, &timestamp_bits) != UINT32_MAX;
    probe_limits(&p->limits, caps);
    probe_features(api, physical, caps, &timeline);
    probe_properties(api, physical, caps);
    caps->timestamps = timestamp_bits > 0 && caps->timestamp_ns > 0;
    caps->memory_bytes = device_memory(api, physical);
    return timeline && compute;
}
