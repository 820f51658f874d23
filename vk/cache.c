/* The driver's pipeline cache, kept in a file per device. A file that is damaged, or of another driver or other
 * kernels, is ignored with a notice and replaced. */
#include "vk/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"

struct header {
    char magic[8];
    uint8_t uuid[16];     /* pipelineCacheUUID */
    uint64_t code_hash;   /* of the kernels */
    uint64_t bytes, hash; /* of what follows */
};

static const char magic[8] = "csmoepc";
enum { MAX_CACHE_BYTES = 256 << 20 };

static struct header header_of(const vk_device *device, const void *data, size_t bytes)
{
    struct header header = {.code_hash = device->kernels.code_hash, .bytes = bytes,
                            .hash = vk_hash(data, bytes, VK_HASH_SEED)};
    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.uuid, device->caps.pipeline_cache_uuid, sizeof header.uuid);
    return header;
}

/* $XDG_CACHE_HOME/csmoe or ~/.cache/csmoe; NULL where the environment names neither. */
static char *default_folder(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache)
        return cs_join(cache, "csmoe");
    return home && *home ? cs_join(home, ".cache/csmoe") : NULL;
}

char *vk_cache_file(const vk_device *device, const char *name)
{
    return device->cache_folder ? cs_join(device->cache_folder, name) : NULL;
}

/* Makes the folder; none where `folder` is "" or cannot be made. */
static void open_folder(vk_device *device, const char *folder)
{
    device->cache_folder = folder ? cs_join(NULL, folder) : default_folder();
    if (device->cache_folder && (!*device->cache_folder || !cs_make_folder(device->cache_folder))) {
        free(device->cache_folder);
        device->cache_folder = NULL;
    }
}

static char *pipelines_path(const vk_device *device)
{
    char name[64] = "pipelines-";
    size_t used = strlen(name);
    for (size_t i = 0; i < sizeof device->caps.pipeline_cache_uuid; i++)
        used += (size_t)snprintf(name + used, sizeof name - used, "%02x", device->caps.pipeline_cache_uuid[i]);
    return vk_cache_file(device, name);
}

enum state { USABLE, OTHER_BUILD, DAMAGED };

static enum state state_of(const vk_device *device, const char *file, size_t size)
{
    struct header header;
    if (size < sizeof header)
        return DAMAGED;
    memcpy(&header, file, sizeof header);
    struct header wanted = header_of(device, file + sizeof header, size - sizeof header);
    if (header.code_hash != wanted.code_hash) {
        header.code_hash = wanted.code_hash;
        return memcmp(&header, &wanted, sizeof header) ? DAMAGED : OTHER_BUILD;
    }
    return memcmp(&header, &wanted, sizeof header) ? DAMAGED : USABLE;
}

void vk_cache_load(vk_device *device, const char *folder)
{
    struct vk_kernels *kernels = &device->kernels;
    open_folder(device, folder);
    kernels->cache_path = pipelines_path(device);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    size_t size = 0;
    char *file = NULL;
    if (kernels->cache_path && cs_is_file(kernels->cache_path)) {
        file = cs_read_file(kernels->cache_path, MAX_CACHE_BYTES, &size);
        enum state state = file ? state_of(device, file, size) : DAMAGED;
        if (state == USABLE) {
            info.initialDataSize = size - sizeof(struct header);
            info.pInitialData = file + sizeof(struct header);
        } else {
            cs_log(state == DAMAGED ? CS_LOG_INFO : CS_LOG_DEBUG, "pipeline cache %s is %s: starting a new one",
                   kernels->cache_path, state == DAMAGED ? "damaged" : "of another build");
        }
    }
    if (device->api.CreatePipelineCache(device->handle, &info, NULL, &kernels->cache) && info.initialDataSize) {
        info.initialDataSize = 0;
        device->api.CreatePipelineCache(device->handle, &info, NULL, &kernels->cache);
    }
    kernels->cache_loaded_bytes = info.initialDataSize;
    free(file);
}

static bool save(vk_device *device, char *file, size_t bytes)
{
    struct vk_kernels *kernels = &device->kernels;
    char *data = file + sizeof(struct header);
    if (device->api.GetPipelineCacheData(device->handle, kernels->cache, &bytes, data))
        return false;
    struct header header = header_of(device, data, bytes);
    memcpy(file, &header, sizeof header);
    return cs_write_file(kernels->cache_path, file, sizeof header + bytes);
}

void vk_cache_save(vk_device *device)
{
    struct vk_kernels *kernels = &device->kernels;
    size_t bytes = 0;
    if (!kernels->cache || !kernels->cache_path || !kernels->pipeline_count || device->lost ||
        device->api.GetPipelineCacheData(device->handle, kernels->cache, &bytes, NULL) || !bytes ||
        bytes == kernels->cache_loaded_bytes)
        return;
    char *file = malloc(sizeof(struct header) + bytes);
    if (file && !save(device, file, bytes))
        cs_log(CS_LOG_DEBUG, "the pipeline cache was not written: %s", cs_error());
    free(file);
}
