/* The Vulkan entry points used here, loaded at run time so that the program starts (and says what is missing) without a
 * Vulkan loader. Members carry the specification's names without "vk". */
#ifndef VK_API_H
#define VK_API_H

#include <stdbool.h>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "vk/extensions.h"

#define VK_GLOBAL_CALLS(X) \
    X(CreateInstance) \
    X(EnumerateInstanceExtensionProperties) \
    X(EnumerateInstanceLayerProperties) \
    X(EnumerateInstanceVersion)

#define VK_INSTANCE_CALLS(X) \
    X(CreateDevice) \
    X(DestroyInstance) \
    X(EnumerateDeviceExtensionProperties) \
    X(EnumeratePhysicalDevices) \
    X(GetDeviceProcAddr) \
    X(GetPhysicalDeviceFeatures2) \
    X(GetPhysicalDeviceMemoryProperties2) \
    X(GetPhysicalDeviceProperties2) \
    X(GetPhysicalDeviceQueueFamilyProperties)

#define VK_DEVICE_CALLS(X) \
    X(AllocateCommandBuffers) \
    X(AllocateDescriptorSets) \
    X(AllocateMemory) \
    X(BeginCommandBuffer) \
    X(BindBufferMemory) \
    X(CmdBindDescriptorSets) \
    X(CmdBindPipeline) \
    X(CmdCopyBuffer) \
    X(CmdDispatch) \
    X(CmdFillBuffer) \
    X(CmdPipelineBarrier) \
    X(CmdPushConstants) \
    X(CmdResetQueryPool) \
    X(CmdWriteTimestamp) \
    X(CreateBuffer) \
    X(CreateBufferView) \
    X(CreateCommandPool) \
    X(CreateComputePipelines) \
    X(CreateDescriptorPool) \
    X(CreateDescriptorSetLayout) \
    X(CreatePipelineCache) \
    X(CreatePipelineLayout) \
    X(CreateQueryPool) \
    X(CreateSemaphore) \
    X(CreateShaderModule) \
    X(DestroyBuffer) \
    X(DestroyBufferView) \
    X(DestroyCommandPool) \
    X(DestroyDescriptorPool) \
    X(DestroyDescriptorSetLayout) \
    X(DestroyDevice) \
    X(DestroyPipeline) \
    X(DestroyPipelineCache) \
    X(DestroyPipelineLayout) \
    X(DestroyQueryPool) \
    X(DestroySemaphore) \
    X(DestroyShaderModule) \
    X(DeviceWaitIdle) \
    X(EndCommandBuffer) \
    X(FreeMemory) \
    X(GetBufferMemoryRequirements) \
    X(GetDeviceQueue) \
    X(GetPipelineCacheData) \
    X(GetQueryPoolResults) \
    X(GetSemaphoreCounterValue) \
    X(MapMemory) \
    X(QueueSubmit) \
    X(ResetCommandPool) \
    X(ResetDescriptorPool) \
    X(UpdateDescriptorSets) \
    X(WaitSemaphores)

/* NULL where the extension is not enabled. */
#define VK_OPTIONAL_INSTANCE_CALLS(X) \
    X(CreateDebugUtilsMessengerEXT) \
    X(DestroyDebugUtilsMessengerEXT) \
    X(GetPhysicalDeviceCalibrateableTimeDomainsEXT) \
    X(GetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV) \
    X(GetPhysicalDeviceCooperativeMatrixPropertiesKHR) \
    X(SetDebugUtilsObjectNameEXT)
#define VK_OPTIONAL_DEVICE_CALLS(X) \
    X(GetCalibratedTimestampsEXT) \
    X(GetDeviceFaultInfoEXT)

struct vk_api {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr;
#define VK_MEMBER(name) PFN_vk##name name;
    VK_GLOBAL_CALLS(VK_MEMBER)
    VK_INSTANCE_CALLS(VK_MEMBER)
    VK_OPTIONAL_INSTANCE_CALLS(VK_MEMBER)
    VK_DEVICE_CALLS(VK_MEMBER)
    VK_OPTIONAL_DEVICE_CALLS(VK_MEMBER)
#undef VK_MEMBER
};

/* Finds the loader library and the calls that need no instance. The library stays open for the life of the process. */
bool vk_api_load(struct vk_api *api);
bool vk_api_load_instance(struct vk_api *api, VkInstance instance);
bool vk_api_load_device(struct vk_api *api, VkDevice device);

#endif
