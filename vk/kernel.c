/* Kernels by name, their layouts and lazily made pipelines. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/trace.h"

static uint64_t name_hash(const char *name)
{
    return vk_hash(name, strlen(name), VK_HASH_SEED);
}

bool vk_kernels_init(vk_device *device, const char *cache_folder)
{
    struct vk_kernels *kernels = &device->kernels;
    kernels->modules = cs_alloc(vk_kernel_source_count, sizeof *kernels->modules, "shader modules");
    if (!kernels->modules)
        return false;
    kernels->code_hash = VK_HASH_SEED;
    for (size_t i = 0; i < vk_kernel_source_count; i++) {
        const vk_kernel_source *source = &vk_kernel_sources[i];
        if (!vk_map_put(&kernels->names, name_hash(source->name), (uint32_t)i))
            return false;
        kernels->code_hash = vk_hash(source->code, source->bytes, kernels->code_hash);
    }
    vk_cache_load(device, cache_folder);
    return true;
}

bool vk_has_kernel(const char *name)
{
    for (size_t i = 0; i < vk_kernel_source_count; i++)
        if (!strcmp(vk_kernel_sources[i].name, name))
            return true;
    return false;
}

uint32_t vk_kernel_find(vk_device *device, const char *name)
{
    size_t probe = 0;
    uint32_t index;
    while ((index = vk_map_next(&device->kernels.names, name_hash(name), &probe)) != VK_MAP_NONE)
        if (!strcmp(vk_kernel_sources[index].name, name))
            return index;
    return cs_fail("kernel '%s' is not in this build", name), VK_MAP_NONE;
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

static bool create_layout(vk_device *device, struct vk_layout *layout)
{
    VkDescriptorSetLayoutBinding bindings[VK_MAX_BINDS];
    for (uint32_t i = 0; i < layout->binds; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){
            .binding = i,
            .descriptorType = layout->texels >> i & 1 ? VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER
                                                      : VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
            .descriptorCount = 1,
            .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        };
    VkResult result = device->api.CreateDescriptorSetLayout(device->handle, &(VkDescriptorSetLayoutCreateInfo){
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = layout->binds,
        .pBindings = bindings,
    }, NULL, &layout->set);
    if (!vk_check(device, result, "creating a descriptor set layout"))
        return false;
    result = device->api.CreatePipelineLayout(device->handle, &(VkPipelineLayoutCreateInfo){
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &layout->set,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &(VkPushConstantRange){VK_SHADER_STAGE_COMPUTE_BIT, 0, VK_MAX_PUSH},
    }, NULL, &layout->handle);
    if (vk_check(device, result, "creating a pipeline layout"))
        return true;
    device->api.DestroyDescriptorSetLayout(device->handle, layout->set, NULL);
    return false;
}

/* Index of the layout for these bindings; VK_MAP_NONE on failure. There are few, so the search is linear. */
static uint32_t layout_get(vk_device *device, uint32_t binds, uint32_t texels)
{
    struct vk_kernels *kernels = &device->kernels;
    for (size_t i = 0; i < kernels->layout_count; i++)
        if (kernels->layouts[i].binds == binds && kernels->layouts[i].texels == texels)
            return (uint32_t)i;
    struct vk_layout layout = {.binds = binds, .texels = texels};
    if (!cs_grow(&kernels->layouts, &kernels->layout_capacity, kernels->layout_count + 1, sizeof layout, "layouts") ||
        !create_layout(device, &layout))
        return VK_MAP_NONE;
    kernels->layouts[kernels->layout_count] = layout;
    return (uint32_t)kernels->layout_count++;
}

/* ---- pipelines --------------------------------------------------------------------------------------------------- */

static VkShaderModule module_get(vk_device *device, uint32_t kernel)
{
    VkShaderModule *module = &device->kernels.modules[kernel];
    const vk_kernel_source *source = &vk_kernel_sources[kernel];
    if (*module)
        return *module;
    VkShaderModuleCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                     .codeSize = source->bytes, .pCode = source->code};
    const char *folder = getenv("CSMOE_SHADER_DIR");
    uint32_t *code = NULL;
    if (folder && *folder) {
        if (!vk_runtime_compile(source, folder, &code, &info.codeSize))
            return VK_NULL_HANDLE;
        info.pCode = code;
    }
    VkResult result = device->api.CreateShaderModule(device->handle, &info, NULL, module);
    free(code);
    vk_check(device, result, "creating a shader module");
    return *module;
}

static bool create_pipeline(vk_device *device, struct vk_pipeline *pipeline, VkShaderModule module)
{
    const struct vk_pipeline_key *key = &pipeline->key;
    VkSpecializationMapEntry entries[VK_MAX_SPECS];
    for (uint32_t i = 0; i < key->specs; i++)
        entries[i] = (VkSpecializationMapEntry){i, i * (uint32_t)sizeof key->spec[0], sizeof key->spec[0]};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroup = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = key->subgroup,
    };
    bool require = key->subgroup && device->caps.subgroup_control;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage =
            {
                .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .pNext = require ? &subgroup : NULL,
                .flags = require ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &(VkSpecializationInfo){key->specs, entries, sizeof key->spec, key->spec},
            },
        .layout = device->kernels.layouts[pipeline->layout].handle,
    };
    char what[128];
    snprintf(what, sizeof what, "making the pipeline of kernel %s", vk_kernel_sources[key->kernel].name);
    return vk_check(device, device->api.CreateComputePipelines(device->handle, device->kernels.cache, 1, &info, NULL,
                                                               &pipeline->handle), what);
}

static bool check_subgroup(const vk_device *device, const struct vk_pipeline_key *key)
{
    const vk_caps *caps = &device->caps;
    bool power = key->subgroup && !(key->subgroup & (key->subgroup - 1));
    if (!key->subgroup || (power && key->subgroup >= caps->subgroup_min && key->subgroup <= caps->subgroup_max))
        return true;
    return cs_fail("kernel %s: subgroup size %u is not one that device %s offers (%u to %u)",
                   vk_kernel_sources[key->kernel].name, key->subgroup, caps->name, caps->subgroup_min,
                   caps->subgroup_max);
}

const struct vk_pipeline *vk_pipeline_get(vk_device *device, const struct vk_pipeline_key *key)
{
    struct vk_kernels *kernels = &device->kernels;
    uint64_t hash =
        vk_hash(key, offsetof(struct vk_pipeline_key, spec) + key->specs * sizeof key->spec[0], VK_HASH_SEED);
    size_t probe = 0;
    for (uint32_t i; (i = vk_map_next(&kernels->pipeline_map, hash, &probe)) != VK_MAP_NONE;)
        if (!memcmp(&kernels->pipelines[i].key, key, sizeof *key))
            return &kernels->pipelines[i];

    struct vk_pipeline pipeline = {.key = *key};
    VkShaderModule module;
    uint64_t began = cs_trace_now();
    if (!check_subgroup(device, key) || !(module = module_get(device, key->kernel)) ||
        (pipeline.layout = layout_get(device, key->binds, key->texels)) == VK_MAP_NONE ||
        !cs_grow(&kernels->pipelines, &kernels->pipeline_capacity, kernels->pipeline_count + 1, sizeof pipeline,
                 "pipelines") ||
        !create_pipeline(device, &pipeline, module))
        return NULL;
    kernels->pipelines[kernels->pipeline_count] = pipeline;
    if (!vk_map_put(&kernels->pipeline_map, hash, (uint32_t)kernels->pipeline_count)) {
        device->api.DestroyPipeline(device->handle, pipeline.handle, NULL);
        return NULL;
    }
    vk_name_object(device, VK_OBJECT_TYPE_PIPELINE, (uint64_t)pipeline.handle, vk_kernel_sources[key->kernel].name);
    device->counters.pipelines++;
    cs_trace_end(CS_TRACE_HOST, "make a pipeline", began);
    return &kernels->pipelines[kernels->pipeline_count++];
}

void vk_kernels_close(vk_device *device)
{
    struct vk_kernels *kernels = &device->kernels;
    vk_cache_save(device);
    for (size_t i = 0; i < kernels->pipeline_count; i++)
        device->api.DestroyPipeline(device->handle, kernels->pipelines[i].handle, NULL);
    for (size_t i = 0; i < kernels->layout_count; i++) {
        device->api.DestroyPipelineLayout(device->handle, kernels->layouts[i].handle, NULL);
        device->api.DestroyDescriptorSetLayout(device->handle, kernels->layouts[i].set, NULL);
    }
    for (size_t i = 0; kernels->modules && i < vk_kernel_source_count; i++)
        device->api.DestroyShaderModule(device->handle, kernels->modules[i], NULL);
    device->api.DestroyPipelineCache(device->handle, kernels->cache, NULL);
    free(kernels->modules);
    free(kernels->layouts);
    free(kernels->pipelines);
    free(kernels->cache_path);
    vk_map_clear(&kernels->names);
    vk_map_clear(&kernels->pipeline_map);
    *kernels = (struct vk_kernels){0};
}
