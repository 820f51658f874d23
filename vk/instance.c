/* The instance, its validation messages, and the choice of a device. */
#include "vk/internal.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";
static atomic_uint validation_messages;

uint32_t vk_validation_messages(void)
{
    return atomic_load(&validation_messages);
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)types;
    (void)user;
    atomic_fetch_add(&validation_messages, 1);
    cs_log(severity >= VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT ? CS_LOG_ERROR : CS_LOG_WARN,
           "Vulkan validation: %s", data->pMessage);
    return VK_FALSE;
}

static bool has_layer(const struct vk_api *api, const char *name)
{
    uint32_t count = 0;
    api->EnumerateInstanceLayerProperties(&count, NULL);
    VkLayerProperties *layers = cs_alloc(count, sizeof *layers, "Vulkan layers");
    bool found = false;
    if (layers && api->EnumerateInstanceLayerProperties(&count, layers) >= 0)
        for (uint32_t i = 0; i < count; i++)
            found |= !strcmp(layers[i].layerName, name);
    free(layers);
    return found;
}

static bool has_instance_extension(const struct vk_api *api, const char *name)
{
    uint32_t count = 0;
    api->EnumerateInstanceExtensionProperties(NULL, &count, NULL);
    VkExtensionProperties *extensions = cs_alloc(count, sizeof *extensions, "Vulkan instance extensions");
    bool found = false;
    if (extensions && api->EnumerateInstanceExtensionProperties(NULL, &count, extensions) >= 0)
        for (uint32_t i = 0; i < count; i++)
            found |= !strcmp(extensions[i].extensionName, name);
    free(extensions);
    return found;
}

static bool validation_wanted(void)
{
    const char *value = getenv("CSMOE_VALIDATION");
    return value && *value && strcmp(value, "0");
}

static bool report_creation(VkResult result)
{
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER)
        return cs_fail("no Vulkan driver is installed (Debian: apt-get install mesa-vulkan-drivers)");
    return !result || cs_fail("vkCreateInstance failed with %d", result);
}

static bool create_instance(struct vk_instance *instance)
{
    struct vk_api *api = &instance->api;
    uint32_t version = 0;
    api->EnumerateInstanceVersion(&version);
    if (version < VK_API_VERSION_1_2)
        return cs_fail("the Vulkan loader speaks Vulkan %u.%u only: 1.2 is needed", VK_API_VERSION_MAJOR(version),
                       VK_API_VERSION_MINOR(version));
    const char *extensions[2];
    const VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
    };
    VkValidationFeatureEnableEXT enables[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &messenger,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = enables,
    };
    const char *layer = validation_layer;
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo =
            &(VkApplicationInfo){
                .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                .pApplicationName = "csmoe",
                .apiVersion = version < VK_API_VERSION_1_3 ? VK_API_VERSION_1_2 : VK_API_VERSION_1_3,
            },
        .ppEnabledExtensionNames = extensions,
    };
    if (instance->validation) {
        if (!has_layer(api, validation_layer))
            return cs_fail("CSMOE_VALIDATION is set, but %s is not installed (Debian: apt-get install "
                           "vulkan-validationlayers)", validation_layer);
        info.pNext = &features;
        info.enabledLayerCount = 1;
        info.ppEnabledLayerNames = &layer;
        extensions[info.enabledExtensionCount++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    }
    /* MoltenVK is not a conformant Vulkan and only shows itself to those who say they know. */
    if (has_instance_extension(api, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
        extensions[info.enabledExtensionCount++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
    }
    if (!report_creation(api->CreateInstance(&info, NULL, &instance->handle)) ||
        !vk_api_load_instance(api, instance->handle))
        return false;
    if (instance->validation && api->CreateDebugUtilsMessengerEXT)
        api->CreateDebugUtilsMessengerEXT(instance->handle, &messenger, NULL, &instance->messenger);
    return true;
}

bool vk_instance_open(struct vk_instance *instance)
{
    *instance = (struct vk_instance){.validation = validation_wanted()};
    if (vk_api_load(&instance->api) && create_instance(instance))
        return true;
    vk_instance_close(instance);
    return false;
}

void vk_instance_close(struct vk_instance *instance)
{
    if (instance->messenger)
        instance->api.DestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (instance->handle && instance->api.DestroyInstance)
        instance->api.DestroyInstance(instance->handle, NULL);
    *instance = (struct vk_instance){0};
}

static bool probe_all(struct vk_instance *instance, const VkPhysicalDevice *handles, uint32_t total,
                      struct vk_candidate *devices, size_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < total; i++) {
        struct vk_candidate *candidate = &devices[*count];
        candidate->handle = handles[i];
        *count += vk_probe(&instance->api, handles[i], &candidate->caps);
    }
    if (!total)
        return cs_fail("no Vulkan device: no driver is installed or none found a device (Debian: apt-get install "
                       "mesa-vulkan-drivers)");
    if (!*count)
        return cs_fail("no usable Vulkan device: none of %u has Vulkan 1.2 with timeline semaphores and a compute "
                       "queue", total);
    return true;
}

bool vk_instance_devices(struct vk_instance *instance, struct vk_candidate **devices, size_t *count)
{
    uint32_t total = 0;
    *devices = NULL;
    *count = 0;
    VkResult result = instance->api.EnumeratePhysicalDevices(instance->handle, &total, NULL);
    if (result)
        return cs_fail("enumerating Vulkan devices failed with %d: the driver does not start", result);
    VkPhysicalDevice *handles = cs_alloc(total, sizeof *handles, "Vulkan devices");
    *devices = cs_alloc(total, sizeof **devices, "Vulkan devices");
    bool ok = handles && *devices && instance->api.EnumeratePhysicalDevices(instance->handle, &total, handles) >= 0 &&
              probe_all(instance, handles, total, *devices, count);
    free(handles);
    if (!ok) {
        free(*devices);
        *devices = NULL;
    }
    return ok;
}

size_t vk_best_device(const struct vk_candidate *devices, size_t count)
{
    static const int rank[] = {[VK_TYPE_DISCRETE] = 0, [VK_TYPE_INTEGRATED] = 1, [VK_TYPE_VIRTUAL] = 2,
                               [VK_TYPE_OTHER] = 3, [VK_TYPE_CPU] = 4};
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (rank[devices[i].caps.type] < rank[devices[best].caps.type])
            best = i;
    return best;
}

bool vk_list(vk_caps **devices, size_t *count, size_t *chosen)
{
    struct vk_instance instance;
    struct vk_candidate *found = NULL;
    *devices = NULL;
    *count = *chosen = 0;
    if (!vk_instance_open(&instance))
        return false;
    bool ok = vk_instance_devices(&instance, &found, count);
    if (ok && (*devices = cs_alloc(*count, sizeof **devices, "Vulkan devices"))) {
        for (size_t i = 0; i < *count; i++)
            (*devices)[i] = found[i].caps;
        *chosen = vk_best_device(found, *count);
    }
    free(found);
    vk_instance_close(&instance);
    return ok && *devices;
}

/* ---- selectors --------------------------------------------------------------------------------------------------- */

static bool contains(const char *text, const char *part)
{
    for (; *text; text++) {
        size_t i = 0;
        while (part[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (!part[i])
            return true;
    }
    return false;
}

/* Whether the text is 32 hexadecimal digits, dashes aside. */
static bool parse_uuid(const char *text, uint8_t uuid[16])
{
    size_t digits = 0;
    for (; *text; text++) {
        if (*text == '-')
            continue;
        if (!isxdigit((unsigned char)*text) || digits == 32)
            return false;
        uint8_t value =
            (uint8_t)(isdigit((unsigned char)*text) ? *text - '0' : tolower((unsigned char)*text) - 'a' + 10);
        uuid[digits / 2] = (uint8_t)(digits % 2 ? uuid[digits / 2] << 4 | value : value);
        digits++;
    }
    return digits == 32;
}

static bool fail_selector(const struct vk_candidate *devices, size_t count, const char *selector, const char *fault)
{
    char list[2048];
    size_t used = 0;
    list[0] = 0;
    for (size_t i = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%zu: %s", i ? ", " : "", i, devices[i].caps.name);
    return cs_fail("device '%s' %s; there are: %s", selector, fault, list);
}

bool vk_select(const struct vk_candidate *devices, size_t count, const char *selector, size_t *chosen)
{
    if (!selector || !*selector)
        selector = getenv("CSMOE_DEVICE");
    if (!selector || !*selector || !strcmp(selector, "auto")) {
        *chosen = vk_best_device(devices, count);
        return true;
    }
    uint8_t uuid[16];
    bool by_uuid = parse_uuid(selector, uuid);
    if (!by_uuid && strspn(selector, "0123456789") == strlen(selector)) {
        *chosen = strlen(selector) < 6 ? (size_t)atoi(selector) : count;
        return *chosen < count || fail_selector(devices, count, selector, "does not exist");
    }
    size_t matches = 0;
    for (size_t i = 0; i < count; i++) {
        const vk_caps *caps = &devices[i].caps;
        if (by_uuid ? memcmp(caps->uuid, uuid, sizeof uuid) : !contains(caps->name, selector))
            continue;
        *chosen = i;
        matches++;
    }
    if (matches != 1)
        return fail_selector(devices, count, selector, matches ? "matches several" : "matches none");
    return true;
}
