/* Opening and closing a device, results, device loss. */
#include "vk/internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

static const char *result_name(VkResult result)
{
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "out of host memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "out of device memory";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "initialization failed";
    case VK_ERROR_DEVICE_LOST:
        return "device lost";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "too many objects";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "extension not present";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "feature not present";
    case VK_ERROR_INVALID_SHADER_NV:
        return "invalid shader";
    default:
        return NULL;
    }
}

/* Appends formatted text to the loss report. */
static void report(vk_device *device, const char *fmt, ...) CS_PRINTF(2, 3);
static void report(vk_device *device, const char *fmt, ...)
{
    size_t used = strlen(device->lost_text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(device->lost_text + used, sizeof device->lost_text - used, fmt, args);
    va_end(args);
}

/* The driver's own words about the fault (VK_EXT_device_fault). */
static void report_fault(vk_device *device)
{
    if (!device->caps.device_fault || !device->api.GetDeviceFaultInfoEXT)
        return;
    VkDeviceFaultCountsEXT counts = {.sType = VK_STRUCTURE_TYPE_DEVICE_FAULT_COUNTS_EXT};
    if (device->api.GetDeviceFaultInfoEXT(device->handle, &counts, NULL))
        return;
    VkDeviceFaultInfoEXT info = {.sType = VK_STRUCTURE_TYPE_DEVICE_FAULT_INFO_EXT};
    info.pAddressInfos = cs_alloc(counts.addressInfoCount, sizeof *info.pAddressInfos, "fault addresses");
    info.pVendorInfos = cs_alloc(counts.vendorInfoCount, sizeof *info.pVendorInfos, "fault records");
    counts.vendorBinarySize = 0;
    if (info.pAddressInfos && info.pVendorInfos &&
        device->api.GetDeviceFaultInfoEXT(device->handle, &counts, &info) >= 0) {
        report(device, "; the driver says: %s", info.description);
        for (uint32_t i = 0; i < counts.addressInfoCount; i++)
            report(device, ", address 0x%llx", (unsigned long long)info.pAddressInfos[i].reportedAddress);
        for (uint32_t i = 0; i < counts.vendorInfoCount; i++)
            report(device, ", %s", info.pVendorInfos[i].description);
    }
    free(info.pAddressInfos);
    free(info.pVendorInfos);
}

/* Names what had been submitted and not finished, latest first. */
static void report_recent(vk_device *device)
{
    const struct vk_stream *stream = &device->stream;
    uint64_t completed = stream->completed;
    if (stream->timeline)
        device->api.GetSemaphoreCounterValue(device->handle, stream->timeline, &completed);
    if (completed == UINT64_MAX) /* what a lost device may report */
        completed = stream->completed;
    uint32_t named = 0;
    for (uint32_t i = 1; i <= VK_RECENT && i <= stream->recent_count && named < 5; i++) {
        uint32_t slot = (stream->recent_count - i) % VK_RECENT;
        if (stream->recent[slot].value <= completed || stream->recent[slot].value > stream->submitted)
            continue;
        report(device, "%s%s", named ? ", " : "; last kernels in flight: ", stream->recent[slot].label);
        named++;
    }
}

bool vk_check(vk_device *device, VkResult result, const char *what)
{
    if (result == VK_SUCCESS)
        return true;
    if (result == VK_ERROR_DEVICE_LOST && !device->lost) {
        device->lost = true;
        report(device, "the device %s was lost while %s", device->caps.name, what);
        report_recent(device);
        report_fault(device);
    }
    if (result == VK_ERROR_DEVICE_LOST)
        return vk_alive(device);
    const char *name = result_name(result);
    return name ? cs_fail("%s: %s", what, name) : cs_fail("%s: Vulkan result %d", what, result);
}

bool vk_alive(const vk_device *device)
{
    return !device->lost || cs_fail("%s", device->lost_text);
}

void vk_name_object(vk_device *device, VkObjectType type, uint64_t handle, const char *name)
{
    if (!device->instance.validation || !device->api.SetDebugUtilsObjectNameEXT)
        return;
    device->api.SetDebugUtilsObjectNameEXT(device->handle, &(VkDebugUtilsObjectNameInfoEXT){
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .objectType = type,
        .objectHandle = handle,
        .pObjectName = name,
    });
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void describe(const vk_device *device)
{
    const vk_caps *caps = &device->caps;
    if (caps->type == VK_TYPE_CPU)
        cs_log(CS_LOG_WARN, "device %zu: %s, %s, CPU driver: no GPU is used", device->index, caps->name,
               caps->driver_info);
    else
        cs_log(CS_LOG_INFO, "device %zu: %s, %s %s, %s", device->index, caps->name, caps->driver, caps->driver_info,
               vk_size_text(caps->memory_bytes));
}

/* What cooperative matrices are enabled by; lives as long as the chain that it is linked into. */
struct enabled_matrices {
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bfloat16;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix2;
    VkPhysicalDeviceMaintenance4Features maintenance;
};

/* Links the features of the matrices that were probed behind v12 and returns how many extensions it has named. */
static uint32_t enable_matrices(const vk_caps *caps, struct enabled_matrices *f, VkPhysicalDeviceVulkan12Features *v12,
                                const char **extensions)
{
    uint32_t count = 0;
    *f = (struct enabled_matrices){
        .matrix = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
                   .cooperativeMatrix = VK_TRUE},
        .bfloat16 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR,
                     .shaderBFloat16Type = VK_TRUE, .shaderBFloat16CooperativeMatrix = VK_TRUE},
        .matrix2 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV,
                    .cooperativeMatrixWorkgroupScope = VK_TRUE, .cooperativeMatrixFlexibleDimensions = VK_TRUE,
                    .cooperativeMatrixPerElementOperations = VK_TRUE, .cooperativeMatrixTensorAddressing = VK_TRUE,
                    .cooperativeMatrixBlockLoads = VK_TRUE},
        .maintenance = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES, .maintenance4 = VK_TRUE},
    };
    if (caps->matrix_count) {
        /* Cooperative matrices are defined in terms of it; where it is on, GLSL's atomics need its device scope. */
        v12->vulkanMemoryModel = v12->vulkanMemoryModelDeviceScope = VK_TRUE;
        vk_link(v12, &f->matrix);
        extensions[count++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    }
    if (vk_matrix_find(caps, true)) {
        vk_link(v12, &f->bfloat16);
        extensions[count++] = VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME;
    }
    if (caps->matrix2_count) {
        v12->bufferDeviceAddress = VK_TRUE; /* which decode functions take their place in memory by */
        vk_link(v12, &f->matrix2);
        vk_link(v12, &f->maintenance);
        extensions[count++] = VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME;
    }
    return count;
}

static bool create_device(vk_device *device)
{
    const vk_caps *caps = &device->caps;
    const char *extensions[8];
    uint32_t extension_count = 0;
    VkPhysicalDeviceFaultFeaturesEXT fault = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FAULT_FEATURES_EXT,
                                              .deviceFault = VK_TRUE};
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
        .subgroupSizeControl = VK_TRUE, .computeFullSubgroups = VK_TRUE};
    VkPhysicalDeviceVulkan12Features v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
                                            .timelineSemaphore = VK_TRUE, .shaderFloat16 = caps->float16};
    VkPhysicalDeviceVulkan11Features v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
                                            .pNext = &v12, .storageBuffer16BitAccess = caps->storage16};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11,
                                          .features = {.shaderInt64 = caps->int64}};
    if (caps->subgroup_control) {
        vk_link(&v12, &subgroup);
        if (caps->api_version < VK_API_VERSION_1_3)
            extensions[extension_count++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    }
    if (caps->device_fault) {
        vk_link(&v12, &fault);
        extensions[extension_count++] = VK_EXT_DEVICE_FAULT_EXTENSION_NAME;
    }
    if (caps->memory_budget)
        extensions[extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if ((device->calibrated = vk_can_calibrate(device)))
        extensions[extension_count++] = VK_EXT_CALIBRATED_TIMESTAMPS_EXTENSION_NAME;
    if (vk_has_extension(&device->api, device->physical, "VK_KHR_portability_subset"))
        extensions[extension_count++] = "VK_KHR_portability_subset";
    struct enabled_matrices matrices;
    extension_count += enable_matrices(caps, &matrices, &v12, extensions + extension_count);
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos =
            &(VkDeviceQueueCreateInfo){
                .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                .queueFamilyIndex = device->family,
                .queueCount = 1,
                .pQueuePriorities = &(float){1},
            },
        .enabledExtensionCount = extension_count,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult result = device->api.CreateDevice(device->physical, &info, NULL, &device->handle);
    if (!vk_check(device, result, "creating the Vulkan device") || !vk_api_load_device(&device->api, device->handle))
        return false;
    device->api.GetDeviceQueue(device->handle, device->family, 0, &device->queue);
    return true;
}

static bool choose(vk_device *device, const char *selector)
{
    struct vk_candidate *devices;
    size_t count;
    if (!vk_instance_devices(&device->instance, &devices, &count))
        return false;
    bool ok = vk_select(devices, count, selector, &device->index);
    if (ok) {
        device->physical = devices[device->index].handle;
        device->caps = devices[device->index].caps;
    }
    free(devices);
    return ok;
}

static bool open_device(vk_device *device, const vk_params *params)
{
    if (!vk_instance_open(&device->instance))
        return false;
    device->api = device->instance.api;
    if (!choose(device, params->selector))
        return false;
    device->family = vk_queue_family(&device->api, device->physical, &device->timestamp_bits);
    if (device->family == UINT32_MAX)
        return cs_fail("device %s has no compute queue", device->caps.name);
    if (!params->quiet)
        describe(device);
    device->profiling = params->profile && device->caps.timestamps;
    if (params->profile && !device->profiling)
        cs_log(CS_LOG_WARN, "device %s has no timestamps: there will be no profile", device->caps.name);
    device->heap.limit = params->memory_limit;
    return create_device(device) && vk_memory_init(device) && vk_kernels_init(device, params->cache_folder) &&
           vk_stream_init(device);
}

vk_device *vk_open(const vk_params *params)
{
    static const vk_params defaults;
    vk_device *device = cs_alloc(1, sizeof *device, "a Vulkan device");
    if (device && !open_device(device, params ? params : &defaults))
        vk_close(&device);
    return device;
}

void vk_close(vk_device **pointer)
{
    vk_device *device = *pointer;
    if (!device)
        return;
    vk_attach(device, NULL, NULL);
    if (device->handle && device->api.DestroyDevice) {
        if (device->api.DeviceWaitIdle)
            device->api.DeviceWaitIdle(device->handle);
        vk_transfer_close(device);
        vk_stream_close(device);
        vk_profile_close(device);
        vk_kernels_close(device);
        vk_memory_close(device);
        device->api.DestroyDevice(device->handle, NULL);
    }
    vk_instance_close(&device->instance);
    free(device->cache_folder);
    free(device);
    *pointer = NULL;
}

void vk_attach(vk_device *device, void *data, void (*release)(void *data))
{
    if (device->release)
        device->release(device->attached);
    device->attached = data;
    device->release = release;
}

void *vk_attached(const vk_device *device)
{
    return device->attached;
}

const vk_caps *vk_device_caps(const vk_device *device)
{
    return &device->caps;
}

vk_counters vk_counters_get(const vk_device *device)
{
    return device->counters;
}
