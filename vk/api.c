#include "vk/api.h"

#include <dlfcn.h>

#include "base/error.h"

#ifdef __APPLE__
static const char *const loader_names[] = {"libvulkan.dylib", "libvulkan.1.dylib", "libMoltenVK.dylib"};
#else
static const char *const loader_names[] = {"libvulkan.so.1", "libvulkan.so"};
#endif

bool vk_api_load(struct vk_api *api)
{
    static void *library;
    for (size_t i = 0; !library && i < sizeof loader_names / sizeof *loader_names; i++)
        library = dlopen(loader_names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return cs_fail("no Vulkan loader: %s is not installed (Debian: apt-get install libvulkan1)", loader_names[0]);
    *(void **)&api->GetInstanceProcAddr = dlsym(library, "vkGetInstanceProcAddr");
    if (!api->GetInstanceProcAddr)
        return cs_fail("the Vulkan loader lacks vkGetInstanceProcAddr");
#define VK_LOAD(name) \
    if (!(api->name = (PFN_vk##name)api->GetInstanceProcAddr(NULL, "vk" #name))) \
        return cs_fail("the Vulkan loader lacks vk" #name ": Vulkan 1.2 or newer is needed");
    VK_GLOBAL_CALLS(VK_LOAD)
#undef VK_LOAD
    return true;
}

bool vk_api_load_instance(struct vk_api *api, VkInstance instance)
{
#define VK_LOAD(name) \
    if (!(api->name = (PFN_vk##name)api->GetInstanceProcAddr(instance, "vk" #name))) \
        return cs_fail("the Vulkan instance lacks vk" #name);
#define VK_LOAD_OPTIONAL(name) api->name = (PFN_vk##name)api->GetInstanceProcAddr(instance, "vk" #name);
    VK_INSTANCE_CALLS(VK_LOAD)
    VK_OPTIONAL_INSTANCE_CALLS(VK_LOAD_OPTIONAL)
#undef VK_LOAD
#undef VK_LOAD_OPTIONAL
    return true;
}

bool vk_api_load_device(struct vk_api *api, VkDevice device)
{
#define VK_LOAD(name) \
    if (!(api->name = (PFN_vk##name)api->GetDeviceProcAddr(device, "vk" #name))) \
        return cs_fail("the Vulkan driver lacks vk" #name);
#define VK_LOAD_OPTIONAL(name) api->name = (PFN_vk##name)api->GetDeviceProcAddr(device, "vk" #name);
    VK_DEVICE_CALLS(VK_LOAD)
    VK_OPTIONAL_DEVICE_CALLS(VK_LOAD_OPTIONAL)
#undef VK_LOAD
#undef VK_LOAD_OPTIONAL
    return true;
}
